"""A page shows the method and folds the rest, and its images lie beside it (tests/pages looks at real pages)."""

import base64
import re
import sys

import pytest
from docutils import nodes

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import cells
import folding
import image_files

pytestmark = pytest.mark.house
PIXEL = base64.b64encode(bytes(range(256)) * 2).decode()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("x = [1, 2]\ny = sum(x)\ny", "method"),
        ("import keras\nimport numpy as np\n\nBLUE = show.PALETTE[0]", "set-up"),
        ("check('a sum', y, equals=3)\nclaim('it is small', y, at_most=9)", "check"),
        ("for k in kinds:\n    claim(k, found[k], at_least=1)", "check"),
        (
            "try:\n    data.load('x')\nexcept data.DataError as error:\n    print(error)\nclaim('y', y, at_most=9)",
            "method",
        ),
        ("show.images(some, caption='…',\n            alt='…')", "figure"),
        ("interact.drag_boxes(image, a, b, caption='…',\n                    alt='…')", "figure"),
        ("def outline(ax, box):\n    ax.add_patch(box)", "figure"),
        ("drawing, ax = show.axes(3, 2)\nax.plot(x)\nshow.figure(drawing, caption='…', alt='…')", "figure"),
        ("exercise('your IoU', iou, sealed='0123')", "exercise"),
        ("claim.summary()\nquiz('Why?', {'a': 'b', 'c': 'd'}, correct='a')", "quiz"),
        ("a = 1\nb = 2\nc = 3\nd = 4\nshow.table(rows, caption='…')", "method"),
    ],
)
def test_a_cells_kind_is_told_from_its_statements(source, kind):
    assert cells.kind(source) == kind


def test_parameters_setup_and_plotting_are_known_by_their_tags():
    assert cells.kind("steps = 3", ["parameters"]) == cells.kind("x = 1", ["setup"]) == "set-up"
    assert cells.kind("def side_by_side(image):\n    return image", ["plotting"]) == "figure"


def test_method_with_the_tag_hide_input_is_an_aside_and_nothing_else_is():
    assert cells.kind("x = sum(y)", ["hide-input"]) == "aside"
    assert cells.kind("check('a sum', y, equals=3)", ["hide-input"]) == "check"


@pytest.mark.parametrize("name", run.chapters())
def test_three_quarters_of_the_code_that_a_page_shows_is_method(name):
    counted, longest = cells.visible(run.read_notebook(name))
    assert counted["method"] >= 0.75 * sum(counted.values()) > 0
    assert longest <= 25


class App:
    class env:
        docname = "chapters/week1/made_up"


def cell(source, *printed, shown=None, tags=()):
    """Make a code cell as MyST-NB does: a container of the code and of what it printed and showed."""
    made = nodes.container(classes=["cell", *(f"tag_{tag}" for tag in tags)])
    made += nodes.container("", nodes.literal_block(source, source), classes=["cell_input"])
    outputs = nodes.container(classes=["cell_output"])
    for text in printed:
        outputs += nodes.literal_block(text, text, classes=["output", "stream"])
    if shown:
        outputs += nodes.raw("", shown, format="html")
    if len(outputs):
        made += outputs
    return made


def page(*made):
    section = nodes.section("", *made)
    folding.fold_cells(App, section)
    return "".join(
        each.astext() if isinstance(each, nodes.raw) else f"[{each.astext()}]"
        for each in section.findall(lambda node: isinstance(node, (nodes.raw, nodes.literal_block, nodes.paragraph)))
    )


def test_checks_in_a_row_become_one_line_that_opens_to_values_and_bounds():
    html = page(
        cell("check('a', 1.0, at_least=0.5)", "✓ a < b ≥ 0.5 · measured 1\n"),
        cell("claim('c', 2, equals=2)", "✓ c = 2\n✓ d ≥ 1 and ≤ 3 · measured 2.5\n"),
    )
    assert html.count("<details") == 2 and "<summary>✓ 3 claims checked</summary>" in html  # and one for their code
    assert "<li>a &lt; b: <b>1</b> <span>(≥ 0.5)</span></li><li>c = 2</li>" in html
    assert "<li>d: <b>2.5</b> <span>(≥ 1 and ≤ 3)</span></li>" in html
    assert html.index("[check(") < html.index("[claim(") and "✓ a" not in html


def test_a_paragraph_between_two_checks_keeps_them_apart():
    between = nodes.paragraph("", "so it is")
    html = page(cell("check('a', True)", "✓ a\n"), between, cell("check('b', True)", "✓ b\n"))
    assert html.count("1 claim checked") == 2 and html.index("✓ 1") < html.index("so it is") < html.rindex("✓ 1")


def test_what_else_a_cell_prints_or_shows_stays_in_sight():
    html = page(cell("y = f(x)\nz = g(y)\ncheck('a', z)\nprint(z)", "✓ a\n\n3.5\n", shown="<figure>"))
    assert (
        html.startswith("[y = f(x)")
        and "[\n3.5]" in html
        and html.count("<li>") == 1
        and "<figure>" in html
        and "1 claim checked" in html
    )


def test_set_up_is_one_fold_plotting_folds_and_a_quiz_shows_no_code():
    html = page(
        cell("# set-up", tags=["setup"]),
        cell("steps = 3", tags=["parameters"]),
        cell("import keras"),
        cell("def paint(ax):\n    ax.plot()"),
        cell("show.figure(paint, caption='…', alt='…')", shown="<figure>"),
        cell("quiz('Why?', {'yes': 'Right', 'no': 'Wrong'}, correct='yes')", shown="<div class=quiz>"),
    )
    assert html.count("Show the set-up") == html.count("Show the plotting code") == 1
    assert html.index("[def paint") < html.index("[show.figure") < html.index("</details><figure>")
    assert "correct" not in html and html.endswith("<div class=quiz>")


@pytest.mark.parametrize("name", run.chapters())
def test_every_aside_of_a_lesson_has_a_line_that_says_what_it_holds(name):
    for cell in run.read_notebook(name).cells:
        tags = cell.metadata.get("tags", ())
        if cell.cell_type == "code" and cells.kind(cell.source, tags) == "aside":
            assert cell.metadata.get("mystnb", {}).get("code_prompt_show"), cell.id


def test_asides_join_where_their_lines_are_the_same():
    first, second = cell("b = list(a)", tags=["hide-input"]), cell("c = list(b)", tags=["hide-input"])
    first["prompt_show"] = second["prompt_show"] = "Show how a is copied"
    html = page(first, second)
    assert html.count("<details") == 1 and html.index("[b = list(a)]") < html.index("[c = list(b)]</details>")


def test_asides_fold_each_under_its_own_line_and_their_outputs_stay_in_sight():
    copied, timed = cell("b = list(a)", tags=["hide-input"]), cell("t = time(f)", tags=["hide-input"], shown="0.2 s")
    copied["prompt_show"], timed["prompt_show"] = "Show how a is copied", "Show the times & places"
    html = page(copied, timed)
    assert html.index("<summary>Show how a is copied</summary>[b = list(a)]") < html.index("times &amp; places")
    assert html.endswith("</details>0.2 s")


def test_an_exercise_folds_how_it_is_checked_and_shows_what_it_says():
    html = page(cell("answer = ..."), cell("exercise('a', answer, sealed='0123')", "○ a: no answer yet.\n"))
    assert html.startswith("[answer = ...]") and "Show how your answer is checked" in html
    assert html.endswith('<p class="cv-answer">○ a: no answer yet.</p>')


def test_pages_of_text_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(App.env, "docname", "intro")
    assert page(cell("check('a', True)", "✓ a\n")) == "[check('a', True)][✓ a\n]"


def test_embedded_images_become_files_beside_the_page_and_load_when_they_are_near(tmp_path):
    drawing = "data:image/svg+xml," + "%3Csvg xmlns='http://www.w3.org/2000/svg'%3E" + "%20" * 200 + "%3C/svg%3E"
    folder, path = tmp_path / "_images", tmp_path / "chapters" / "week1" / "page.html"
    path.parent.mkdir(parents=True)
    path.write_text(
        f'<img alt="first" src="data:image/webp;base64,{PIXEL}"><img alt="a" src="data:image/webp;base64,{PIXEL}">'
        f'<img alt="b" src="{drawing}">'
        f'<script type="application/json">{{"frames":["",1,"data:image/webp;base64,{PIXEL}"]}}</script>'
        '<img alt="c" src="data:image/png;base64,AAAA">',
        encoding="utf-8",
    )
    image_files.move_images(path, folder)
    html = path.read_text(encoding="utf-8")
    webp, svg = next(folder.glob("*.webp")), next(folder.glob("*.svg"))
    assert webp.read_bytes() == bytes(range(256)) * 2 and svg.read_text().startswith("<svg xmlns='http")
    assert html.count(f"../../_images/{webp.name}") == 3 and html.count(f"../../_images/{svg.name}") == 1
    assert (
        html.startswith('<img alt="first"')
        and html.count('loading="lazy"') == 2
        and "base64,AAAA" in html
        and len(list(folder.iterdir())) == 2
    )
    image_files.move_images(path, folder)
    assert path.read_text(encoding="utf-8") == html


def test_a_wide_chart_gets_a_box_in_which_it_can_scroll(tmp_path):
    page = tmp_path / "page.html"
    narrow, wide = (f'<img class="dark-light cv-chart" alt="a" width="{width}" height="9">' for width in (520, 800))
    page.write_text(f"<figure>{narrow}</figure><figure>{wide}</figure>", encoding="utf-8")
    for _ in range(2):  # the second time, nothing is left to do
        image_files.move_images(page, tmp_path / "_images")
        html = page.read_text(encoding="utf-8")
        assert html.count('<div class="cv-wide"') == 1
        assert re.search(r'tabindex="0"><img [^>]*width="800" height="9"></div></figure>$', html)
