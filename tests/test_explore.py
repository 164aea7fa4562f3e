"""Controls: each choice shows what its function draws, in the page and in a kernel; mistakes are told in words."""

import base64
import io
import itertools
import json
import re
import sys

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from cvlab import show
from cvlab.explore import MAX_BYTES, explore, parameter, quiz

ROWS, COLUMNS = [1, 2, 5, 7], ["left", "middle", "right"]


def chart(row, column):
    """A white square on a board."""
    board = np.zeros((8, 12), "uint8")
    board[row, 4 * COLUMNS.index(column) : 4 * COLUMNS.index(column) + 2] = 255
    return board


def both():
    return explore(chart, row=ROWS, column=COLUMNS, alt="A square in row {row}, {column}.", start={"row": 5})


def soup(shown):
    return BeautifulSoup(shown._repr_mimebundle_()["text/html"], "html.parser")


def decode(source):
    assert source.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def frames(found):
    """The frame and the alt text of each state, in order, as the page's script finds them."""
    data = json.loads(found.find("script", type="application/json").string)
    data["frames"][data["start"]] = found.img["src"]
    sources = [data["frames"][f] if isinstance(f, int) else f for f in data["frames"]]
    return list(zip(map(decode, sources), data["alts"], strict=True)), data


def rgb(array):
    return array[..., None].repeat(3, -1)


def test_every_frame_is_what_the_function_draws_for_its_choice():
    seen, data = frames(soup(both()))
    assert data["texts"] == [["1", "2", "5", "7"], COLUMNS]
    for (frame, alt), (row, column) in zip(seen, itertools.product(ROWS, COLUMNS), strict=True):
        assert (frame == rgb(chart(row, column))).all()
        assert alt == f"A square in row {row}, {column}."


def test_it_begins_with_the_start_or_the_first_choice():
    found = soup(both())
    assert found.img["alt"] == "A square in row 5, left."
    assert (decode(found.img["src"]) == rgb(chart(5, "left"))).all()
    assert found.find("input")["value"] == "2"
    assert soup(explore(lambda k: chart(k, "left"), k=ROWS, start=7)).find("input")["aria-valuetext"] == "7"
    assert soup(explore(lambda k: chart(k, "left"), k=ROWS)).find("input")["value"] == "0"


def test_numbers_in_order_get_a_slider_and_all_else_a_list():
    def element(choices):
        return soup(explore(lambda k: chart(1, "left"), k=choices)).find(["input", "select"])

    for ordered in ([1, 2, 3], [0.5, 0.25, 0.125], range(3), np.linspace(0, 1, 4), (np.float32(1), np.float32(2))):
        assert element(ordered)["type"] == "range"
        assert int(element(ordered)["max"]) == len(ordered) - 1
    for other in (["a", "b"], [1, 3, 2], [True, False], {"few": 1, "many": 9}, [None, 1]):
        assert element(other).name == "select"
        assert len(element(other).find_all("option")) == len(other)


def test_each_control_is_labelled_and_speaks_its_value():
    found = soup(explore(chart, row=ROWS, column=COLUMNS, label={"row": "row from the top"}))
    assert [label.span.text for label in found.select("label")] == ["row from the top", "Column"]
    assert all(label.find(["input", "select"]) for label in found.select("label"))
    assert found.find("input")["aria-valuetext"] == "1"
    assert [option.text for option in found.find_all("option")] == COLUMNS
    assert soup(explore(lambda a_b: chart(a_b, "left"), a_b=ROWS)).label.span.text == "A b"


def test_choices_reach_the_function_as_plain_values():
    got = []
    explore(lambda k: got.append(k) or chart(1, "left"), k=np.array([0.1, 0.2], "float32"))
    explore(lambda k: got.append(k) or chart(1, "left"), k={"few": (1, 2), "many": (3, 4)})
    assert got == [pytest.approx(0.1), pytest.approx(0.2), (1, 2), (3, 4)]
    assert type(got[0]) is float


def test_alt_texts_come_from_a_template_a_function_or_the_caption():
    def alts(**more):
        return frames(soup(explore(lambda k: chart(1, "left"), k=[0.1 + 0.2, 0.5], **more)))[0]

    assert [alt for _, alt in alts(alt="Blur {k}")] == ["Blur 0.3", "Blur 0.5"]
    assert [alt for _, alt in alts(alt="Blur {k:.2f}")] == ["Blur 0.30", "Blur 0.50"]
    assert [alt for _, alt in alts(alt=lambda k: f"twice {2 * k:.1f}")] == ["twice 0.6", "twice 1.0"]
    assert [alt for _, alt in alts(caption="A board.")] == ["A board: k 0.3", "A board: k 0.5"]


def test_the_caption_is_given_or_the_first_line_of_the_docstring():
    assert soup(both()).figcaption.text == "A white square on a board."
    assert soup(explore(chart, row=ROWS, column=COLUMNS, caption="See.")).figcaption.text == "See."


def test_drawings_and_figures_of_show_become_frames():
    def plot(k):
        drawing, ax = show.axes(3, 2)
        ax.plot([0, k])
        ax.set_ylim(0, 9)
        return drawing

    def figure(k):
        return show.figure(chart(k, "left"), caption="One.", alt="One.")

    plots = [frame for frame, _ in frames(soup(explore(plot, k=[1, 9])))[0]]
    assert plots[0].shape == (300, 450, 3)
    assert (plots[0] != plots[1]).any()
    for (frame, _), row in zip(frames(soup(explore(figure, k=ROWS)))[0], ROWS, strict=True):
        assert (frame == rgb(chart(row, "left"))).all()


def test_equal_frames_are_stored_once():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 24, 24, 3), "uint8")
    found = soup(explore(lambda k: pictures[k % 2], k=range(6), start=3))
    seen, _ = frames(found)
    assert all((frame == pictures[k % 2]).all() for k, (frame, _) in enumerate(seen))
    assert len(re.findall("data:image/webp", str(found))) <= 3


def test_photographs_are_lossy_and_line_art_is_not():
    y, x = np.mgrid[:120, :160]
    noise = np.random.default_rng(0).normal(0, 5, (120, 160, 3))

    def photograph(k):
        return np.clip((np.sin(x / (9 + k)) * 60 + np.cos(y / 13) * 50 + 128)[..., None] + noise, 0, 255)

    sizes = {given: len(explore(photograph, k=[1, 2], lossless=given).html) for given in (None, True, False)}
    assert sizes[None] == sizes[False] < sizes[True] / 3
    for (frame, _), k in zip(frames(soup(explore(photograph, k=range(1, 5))))[0], range(1, 5), strict=True):
        errors = [np.abs(frame - photograph(other)).mean() for other in range(1, 5)]
        assert np.argmin(errors) == k - 1
        assert min(errors) < 6


def test_the_control_asks_nothing_of_any_host_and_depends_on_nothing():
    assert not re.search(r"https?:|//[a-z]|import|fetch|\beval\b", re.sub(r"data:image[^\"]+", "", both().html))


def test_without_javascript_the_picture_stands_and_no_dead_control():
    found = soup(both())
    assert found.select_one(".cv-controls").has_attr("hidden")
    assert not found.img.find_parent(hidden=True)
    assert found.img["src"]
    assert found.figcaption.text


def test_texts_cannot_break_out_of_the_page():
    evil = '</script><img src=x onerror="alert(1)">'
    shown = explore(lambda k: chart(1, "left"), k={evil: 1, "b": 2}, alt=evil + "{k}", caption=evil, label=evil)
    found = soup(shown)
    assert len(found.find_all("img")) == 1
    assert found.option.text == evil
    assert [alt for _, alt in frames(found)[0]] == [evil * 2, evil + "b"]


def test_two_calls_give_the_same_bytes_and_pixels_do_not_change_the_rest():
    first, second = both()._repr_mimebundle_(), both()._repr_mimebundle_()
    assert (first["text/html"], first["text/plain"]) == (second["text/html"], second["text/plain"])
    rng = np.random.default_rng(0)
    noises = [
        re.sub(r"data:image/[^\"]+", "P", explore(lambda k: rng.random((9, 9)), k=[1, 2], caption="Noise.").html)
        for _ in range(2)
    ]
    assert noises[0] == noises[1]


def test_plain_text_tells_caption_choices_and_what_is_to_be_seen():
    assert repr(both()).splitlines() == [
        "A white square on a board.",
        "Row: 1, 2, 5, 7",
        "Column: left, middle, right",
        "[A square in row 5, left.]",
    ]


def one(k):
    return chart(1, "left")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "0 parameters have choices, expected one or two"),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, "3 parameters have choices"),
        ({"k": range(61)}, "61 choices make 61 frames, expected at most 60"),
        ({"k": [1]}, r"k has the choices \['1'\], expected two at least"),
        ({"k": ["a", "b", "a"]}, "all distinct"),
        ({"k": [1, 2], "start": 3}, "start is 3, expected one of k's choices: 1, 2"),
        ({"k": [1, 2], "start": {"j": 1}}, r"names \['j'\], expected some of \['k'\]"),
        ({"k": [1, 2], "alt": "always"}, "alt repeats itself or is empty"),
        ({"k": [1, 2], "alt": "Blur {sigma}"}, r"alt has a field 'sigma', expected \['k'\]"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(arguments, told):
    with pytest.raises(ValueError, match=told):
        explore(one, **arguments)


def test_a_parameter_is_a_slider_only_where_its_numbers_rise_or_fall():
    def read(values, label=None, start=None):
        return parameter("learning_rate", values, label, start)

    rising, falling, mixed, named = read([1, 2, 4]), read((0.5, 0.25)), read([2, 1, 4]), read({"one": 1, "two": 2})
    assert (rising.ordered, falling.ordered, mixed.ordered, named.ordered) == (True, True, False, False)
    assert 'type="range"' in rising.html and 'max="2"' in rising.html and "<select" in mixed.html
    assert (rising.values, rising.texts, rising.fields) == ([1, 2, 4], ["1", "2", "4"], [1, 2, 4])
    assert (named.values, named.texts, named.fields) == ([1, 2], ["one", "two"], ["one", "two"])
    assert (rising.start, read([1, 2, 4], start=4).start, read({"one": 1, "two": 2}, start="two").start) == (0, 2, 1)
    assert rising.label == "Learning rate" and read([1, 2], label="rate").label == "rate"
    assert parameter("k", [1, 2], None, None).label == "k"
    for wrong in ([1], [], [1, 1], [0.1, 0.1000000001]):
        with pytest.raises(ValueError, match="learning_rate has the choices .*, expected two at least, all distinct"):
            read(wrong)
    with pytest.raises(ValueError, match="start is 3, expected one of learning_rate's choices: 1, 2"):
        read([1, 2], start=3)


def test_two_parameters_are_counted_together():
    with pytest.raises(ValueError, match="9 × 7 choices make 63 frames, expected at most 60"):
        explore(chart, row=range(9), column=list("abcdefg"))


def test_a_function_that_fails_names_its_parameters():
    with pytest.raises(RuntimeError, match=r"chart\(row=9, column='left'\): IndexError"):
        explore(chart, row=[1, 9], column=COLUMNS)
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'j'"):
        explore(one, j=[1, 2])
    with pytest.raises(RuntimeError, match=r"values from 0 to 7"):
        explore(lambda k: np.array([[0.0, 7.0]]), k=[1, 2])
    with pytest.raises(RuntimeError, match="several images, expected one"):
        explore(lambda k: show.images([one(k)] * 2, caption="Two.", alt="Two."), k=[1, 2])


def test_pictures_have_one_size():
    with pytest.raises(ValueError, match="pixels, expected one size"):
        explore(lambda k: np.zeros((k, k)), k=[320, 400])


def test_a_control_is_at_most_600_kb():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 200, 3), "uint8")
    with pytest.raises(ValueError, match=r"8 frames take \d+ kB, expected at most 600: give fewer choices"):
        explore(lambda k: noise + np.uint8(k), k=range(8), lossless=True)
    assert len(explore(lambda k: noise + np.uint8(k), k=range(4), lossless=True).html) <= MAX_BYTES


class Widget:
    """The ipywidgets control as the reader meets it: its controls and what it shows."""

    def __init__(self, control):
        *self.controls, self.shown, self.caption = control.widget().children

    def picture(self):
        return BeautifulSoup(self.shown.value, "html.parser").img


def test_a_kernel_gets_a_widget_and_a_page_gets_html():
    bundle = both()._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}


def test_a_control_needs_nothing_that_ipywidgets_7_lacks(monkeypatch):
    import ipywidgets

    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_", raising=False)
    view = both()._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
    assert (view["version_major"], view["version_minor"]) == (2, 0)
    assert isinstance(view["model_id"], str) and view["model_id"]


def test_moving_a_widget_calls_the_function_with_the_value_chosen():
    calls = []

    def draw(row, column):
        calls.append((row, column))
        return chart(row, column)

    widget = Widget(explore(draw, row=ROWS, column=COLUMNS, alt="Row {row}, {column}", start={"column": "right"}))
    row, column = widget.controls
    assert (row.label, column.label, row.continuous_update) == ("1", "right", False)
    assert widget.picture()["alt"] == "Row 1, right"
    calls.clear()
    row.label = "7"
    column.label = "middle"
    assert calls == [(7, "right"), (7, "middle")]
    assert (decode(widget.picture()["src"]) == rgb(chart(7, "middle"))).all()
    assert widget.picture()["alt"] == "Row 7, middle"


def test_a_widget_shows_what_the_function_gives_now_not_what_it_gave():
    state = {"level": 10}
    widget = Widget(explore(lambda k: np.full((4, 4), state["level"] + k, "uint8"), k=[1, 2]))
    state["level"] = 200
    widget.controls[0].label = "2"
    assert (decode(widget.picture()["src"]) == 202).all()


def test_a_widget_tells_errors_in_words_and_goes_on():
    fail = []

    def draw(k):
        if fail:
            raise ValueError("no <model> yet")
        return chart(k, "left")

    widget = Widget(explore(draw, k=ROWS))
    fail.append(True)
    widget.controls[0].label = "5"
    told = BeautifulSoup(widget.shown.value, "html.parser")
    assert told.find(role="alert").text == "explore: draw(k=5): ValueError: no <model> yet"
    fail.clear()
    widget.controls[0].label = "7"
    assert (decode(widget.picture()["src"]) == rgb(chart(7, "left"))).all()


def test_colab_gets_the_widget_alone_and_draws_one_frame(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    calls = []
    bundle = explore(lambda k: calls.append(k) or chart(k, "left"), k=ROWS)._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    assert calls == [1]


QUIZ = ("Is `1 < 2`?", {"yes": "One is less.", "no <b>": "Count again & again."}, "yes")


def test_a_quiz_holds_its_replies_for_a_page_without_javascript():
    found = soup(quiz(*QUIZ))
    assert found.legend.text == "Is 1 < 2?"
    assert [label.text.strip() for label in found.select("fieldset label")] == ["yes", "no <b>"]
    assert len({radio["name"] for radio in found.select("input[type=radio]")}) == 1
    assert [item.text for item in found.select("details li")] == [
        "yes: Right. One is less.",
        "no <b>: Not quite. Count again & again.",
    ]
    assert "One is less" not in repr(quiz(*QUIZ))
    assert quiz(*QUIZ).html == quiz(*QUIZ).html


@pytest.mark.parametrize("correct", ["maybe", "Yes"])
def test_a_quiz_has_its_right_answer_among_the_answers(correct):
    with pytest.raises(ValueError, match="expected one of two or more answers"):
        quiz("Which?", {"yes": "So.", "no": "So."}, correct)


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page on disk, with nothing in it but two controls and a quiz, in headless Chromium."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    parts = (both(), explore(lambda k: chart(k % 7, "right"), k=range(8), alt="{k}", start=3), quiz(*QUIZ))
    file.write_text(f'<meta charset="utf-8">{"".join(part.html for part in parts)}', encoding="utf-8")
    opened = browser.new_page()
    opened.complaints = []
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.goto(file.as_uri())
    yield opened
    opened.close()


def test_in_a_browser_each_choice_shows_its_own_picture(page):
    control = page.locator(".cv-explore").first
    image, spoken = control.locator("img"), control.locator("[aria-live]")
    assert image.get_attribute("alt") == "A square in row 5, left."
    for index, row in enumerate(ROWS):
        for column in COLUMNS:
            control.locator("select").select_option(label=column)
            control.locator("input").fill(str(index))
            assert (decode(image.get_attribute("src")) == rgb(chart(row, column))).all()
            assert image.get_attribute("alt") == spoken.text_content() == f"A square in row {row}, {column}."
            assert control.locator("input").get_attribute("aria-valuetext") == str(row)
            assert control.locator("input + span").text_content() == str(row)
    assert page.complaints == []


def test_in_a_browser_the_keyboard_moves_the_slider_by_one(page):
    control = page.locator(".cv-explore").nth(1)
    slider = control.get_by_label("k")
    slider.focus()
    seen = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
        slider.press(key)
        value = int(slider.get_attribute("aria-valuetext"))
        seen.append(value)
        assert (decode(control.locator("img").get_attribute("src")) == rgb(chart(value % 7, "right"))).all()
    assert seen == [0, 1, 2, 7, 6]


def test_in_a_browser_a_quiz_answers_when_asked(page):
    asked = page.locator(".cv-quiz")
    button, status = asked.get_by_role("button"), asked.get_by_role("status")
    assert not asked.locator("details").is_visible()
    button.click()
    assert status.text_content() == "Choose an answer first."
    asked.get_by_label("no <b>").check()
    button.click()
    assert status.text_content() == "no <b>: Not quite. Count again & again."
    asked.get_by_label("yes").check()
    button.press("Enter")
    assert status.text_content() == "yes: Right. One is less."


def test_a_quizs_verdicts_are_marked_and_asterisks_emphasise():
    page = soup(quiz("Is `a*b*c` a *car*?", {"*Yes*": "2 * 3 * 4", "No": "x"}, "No"))
    assert page.legend.decode_contents() == "Is <code>a*b*c</code> a <em>car</em>?"
    wrong, right = page.find_all("li")
    assert (wrong["class"], right["class"]) == (["cv-wrong"], ["cv-right"])
    assert "2 * 3 * 4" in wrong.text and wrong.em.text == "Yes"
