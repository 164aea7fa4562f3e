"""The controls that are moved by hand, on a page of their own: pointer, touch and keyboard, from disk, for everybody.

The page has two controls of each kind, at the sizes that lessons show, since two on one page must not clash.
"""

import json
import re
import statistics

import numpy as np
import pytest

from cvlab import interact, propose, run

ROOT = run.book_root()
SIDE = 160
WORDS = {"caption": "What to see.", "alt": "What is to be seen"}
KINDS = ["drag_boxes", "step_nms", "merge_regions", "place_anchors", "paint_labels", "drag_occluder"]
every_kind = pytest.mark.parametrize("kind", KINDS)
# What a theme of the book sets, in brief: the page is a page of the book without the rest of it.
THEME = """:root { --pst-color-primary: #0a7d91; --pst-color-text-base: #222832; --pst-color-text-muted: #48566b;
--pst-color-border: #d1d5da; --pst-color-surface: #f5f5f5; --pst-color-background: #fff; --pst-color-accent: #8045e5 }
html[data-theme="dark"] { --pst-color-primary: #3fb1c5; --pst-color-text-base: #ced6dd; --pst-color-text-muted: #9ca4af;
--pst-color-border: #48566b; --pst-color-surface: #29313d; --pst-color-background: #14181e;
--pst-color-accent: #c78aff }
body { background: var(--pst-color-background); color: var(--pst-color-text-base); margin: 0 auto; max-width: 50rem;
padding: 0 1rem } * { box-sizing: border-box }"""
KEYS = {  # what takes the focus, a key that changes what is shown, and another where that one is at its end
    "drag_boxes": (".cv-body >> nth=1", ("ArrowRight", "ArrowLeft")),
    "step_nms": ("[data-part=threshold]", ("ArrowRight", "ArrowLeft")),
    "merge_regions": ("[data-part=merges]", ("ArrowLeft", "ArrowRight")),
    "place_anchors": (".cv-cell", ("ArrowDown", "ArrowUp")),
    "paint_labels": (".cv-easel", (" ", "ArrowRight")),
    "drag_occluder": (".cv-body", ("ArrowDown", "ArrowUp")),
}


def panels(name):
    """One control of each kind, on images of the usual size."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (10, 10, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    true = [40, 40, 90, 100]
    corner = rng.integers(0, 60, (30, 2))
    found = np.concatenate([corner, corner + rng.integers(30, 70, (30, 2))], axis=1)
    segments = np.arange(256).reshape(16, 16).repeat(10, 0).repeat(10, 1)
    maps = rng.integers(0, 11, (2, 16, 16)).repeat(10, 1).repeat(10, 2)
    grid = rng.uniform(size=(17, 17))
    names = [f"class {k}" for k in range(11)]
    return [
        interact.drag_boxes(image, true, [60, 50, 120, 110], name=f"{name}-drag_boxes", **WORDS),
        interact.step_nms(image, found, rng.uniform(size=30), name=f"{name}-step_nms", **WORDS),
        interact.merge_regions(image, segments, propose.group(image, segments), name=f"{name}-merge_regions", **WORDS),
        interact.place_anchors(
            image,
            [true, [100, 20, 150, 60]],
            strides=(8, 16, 32),
            sizes=(32, 64, 128),
            input_size=256,
            name=f"{name}-place_anchors",
            **WORDS,
        ),
        interact.paint_labels(image, *maps, names, paint=3, name=f"{name}-paint_labels", **WORDS),
        interact.drag_occluder(
            image,
            {"cat": grid, "dog": 1 - grid},
            {"cat": 0.9, "dog": 0.1},
            32,
            8,
            start=(5, 5),
            name=f"{name}-drag_occluder",
            **WORDS,
        ),
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page's address on the disk."""
    file = tmp_path_factory.mktemp("controls") / "page.html"
    book = "".join((ROOT / "book" / "_static" / name).read_text(encoding="utf-8") for name in ("book.css", "pages.css"))
    book = re.sub(r"@font-face \{.*?\}", "", book)
    body = "".join(panel.html for name in ("one", "two") for panel in panels(name))
    file.write_text(
        '<!doctype html><html lang="en-GB" data-theme="light"><meta charset="utf-8"><title>Controls</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{THEME}{book}</style><main class='bd-article'><h1>Controls</h1>{body}</main></html>",
        encoding="utf-8",
    )
    return file.as_uri()


@pytest.fixture(scope="module")
def opened(browser, address):
    """A function that opens the page in some way, once for all tests that ask for the same."""
    pages = {}

    def go(**options):
        key = repr(sorted(options.items()))
        if key not in pages:
            page = browser.new_context(**{"viewport": {"width": 1000, "height": 900}} | options).new_page()
            page.set_default_timeout(10_000)
            page.complaints = []
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("console", lambda message: page.complaints.append(message.text))
            page.on(
                "request",
                lambda asked: None if asked.url.startswith(("data:", address)) else page.complaints.append(asked.url),
            )
            page.goto(address)
            pages[key] = page
        return pages[key]

    yield go
    for page in pages.values():
        page.context.close()


def control(page, kind, which="one"):
    return page.locator(f"#fig-{which}-{kind.replace('_', '-')}")


def seen(figure):
    """All that a reader sees or hears of a control."""
    return figure.evaluate("""f => f.querySelector('.cv-side').innerText + f.querySelector('.cv-layer').innerHTML
        + [...f.querySelectorAll('.cv-handle, .cv-ring, .cv-tag')].map(e => e.style.cssText).join()
        + [...f.querySelectorAll('canvas')].map(e => e.toDataURL()).join()""")


def numbers(figure):
    return figure.locator(".cv-side").inner_text()


def middle(element, x=0.5, y=0.5):
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(page, start, by):
    page.mouse.move(*start)
    page.mouse.down()
    for part in (0.25, 0.5, 0.75, 1):
        page.mouse.move(start[0] + part * by[0], start[1] + part * by[1])
    page.mouse.up()


@every_kind
def test_a_key_changes_what_is_shown_within_a_tenth_of_a_second(opened, kind):
    page = opened()
    figure, (target, (key, _)) = control(page, kind), KEYS[kind]
    before = seen(figure)
    figure.locator(target).focus()
    page.keyboard.press(key)
    assert seen(figure) != before
    took = figure.locator(target).evaluate(
        """async (element, key) => {
            const times = [];
            for (let i = 0; i < 5; i += 1) {
                const began = performance.now();
                if (element.type === "range") element.dispatchEvent(new Event("input"));
                else element.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
                element.getBoundingClientRect(); // with the layout
                times.push(performance.now() - began);
                await new Promise(requestAnimationFrame);
            }
            return times;
        }""",
        key,
    )
    assert statistics.median(took) < 100


@every_kind
def test_moving_one_control_leaves_its_twin_alone(opened, kind):
    page = opened()
    figure, (target, (key, _)) = control(page, kind, "two"), KEYS[kind]
    rest = [control(page, each, which) for each in KINDS for which in ("one", "two") if (each, which) != (kind, "two")]
    others, before = [seen(each) for each in rest], seen(figure)
    figure.locator(target).focus()
    page.keyboard.press(key)
    assert seen(figure) != before
    assert [seen(each) for each in rest] == others


def test_arrow_keys_move_a_box_and_with_shift_resize_it(opened):
    page = opened()
    figure = control(page, "drag_boxes", "two")
    figure.get_by_role("button", name="Start again").click()
    assert "[[60, 50, 120, 110]]" in figure.locator("code").inner_text()
    predicted = figure.get_by_role("application", name="Predicted box", exact=True)
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "Shift+ArrowRight"):
        predicted.press(key)
    assert "[[59, 48, 120, 108]]" in figure.locator("code").inner_text()
    figure.get_by_role("application", name="Lower right corner of the true box").press("ArrowDown")
    assert "[[40, 40, 90, 101]]" in figure.locator("code").inner_text()
    for _ in range(200):
        predicted.press("ArrowLeft")
    assert "[[0, 48, 61, 108]]" in figure.locator("code").inner_text()  # it stays within the image
    page.wait_for_timeout(400)
    assert re.fullmatch(r"IoU 0\.\d\d, GIoU .0?\.?\d+.*", figure.locator("[aria-live]").text_content())


def test_a_pointer_drags_a_box_and_its_corners(opened):
    page = opened()
    figure = control(page, "drag_boxes")
    figure.get_by_role("button", name="Start again").click()
    pixel = figure.locator(".cv-stage").bounding_box()["width"] / SIDE
    drag(page, middle(figure.locator(".cv-body").nth(1)), (20 * pixel, -10 * pixel))
    assert predicted_box(figure) == pytest.approx([80, 40, 140, 100], abs=1)
    drag(page, middle(figure.locator(".cv-predicted-corner").first), (-30 * pixel, 5 * pixel))
    assert predicted_box(figure) == pytest.approx([50, 45, 140, 100], abs=1)


def predicted_box(figure):
    return json.loads(re.search(r"\[\[.*?\]\]", figure.locator("code").inner_text())[0])[0]


def test_a_finger_drags_a_box_paints_and_leaves_the_page_where_it_is(opened):
    page = opened(has_touch=True, viewport={"width": 390, "height": 800})
    session = page.context.new_cdp_session(page)
    for kind, target in (
        ("drag_boxes", ".cv-body >> nth=1"),
        ("paint_labels", ".cv-easel"),
        ("drag_occluder", ".cv-body"),
        ("place_anchors", ".cv-cell"),
    ):
        figure = control(page, kind)
        x, y = middle(figure.locator(target))
        before, at = seen(figure), page.evaluate("scrollY")
        for type_, points in (
            ("touchStart", [(x, y)]),
            ("touchMove", [(x + 20, y + 15)]),
            ("touchMove", [(x + 40, y + 40)]),
            ("touchEnd", []),
        ):
            points = [{"x": a, "y": b} for a, b in points]
            session.send("Input.dispatchTouchEvent", {"type": type_, "touchPoints": points})
        page.wait_for_timeout(50)
        assert seen(figure) != before, kind
        assert page.evaluate("scrollY") == at, kind
    assert page.complaints == []


def test_suppression_goes_box_by_box_to_its_end_and_back(opened):
    figure = control(opened(), "step_nms")
    for steps in ("Next", "Previous"):
        button = figure.get_by_role("button", name=steps)
        while button.is_enabled():
            button.press("Enter")
        assert figure.locator(":focus").count() == 1, "the focus isn't lost with the button"
        told = figure.locator("[data-part=says]").inner_text()
        assert ("All boxes are decided" if steps == "Next" else "None has been looked at") in told
        fates = figure.locator("[data-box] td:last-child").all_inner_texts()
        assert ("undecided" in fates) == (steps == "Previous")


def test_regions_merge_by_slider_by_step_and_by_itself(opened):
    page = opened()
    figure = control(page, "merge_regions")
    slider, play = figure.get_by_label("Merges"), figure.locator("[data-part=play]")
    slider.press("Home")
    assert "256 regions, before the first merge" in numbers(figure)
    figure.get_by_role("button", name="Next").click()
    assert "Merge 1 of 255" in numbers(figure) and slider.input_value() == "1"
    play.click()
    assert play.inner_text() == "Pause"
    page.wait_for_timeout(500)
    play.click()
    stopped = int(slider.input_value())
    assert stopped > 1 and play.inner_text() == "Play"
    page.wait_for_timeout(300)
    assert int(slider.input_value()) == stopped


def test_nothing_plays_where_the_reader_wants_less_motion(opened):
    figure = control(opened(reduced_motion="reduce"), "merge_regions")
    assert not figure.locator("[data-part=play]").is_visible()
    assert figure.get_by_role("button", name="Next").is_visible()


def test_the_cell_of_the_anchors_moves_by_key_click_and_drag(opened):
    page = opened()
    figure = control(page, "place_anchors")
    figure.get_by_label("Level").select_option("stride 32, size 128")
    stage = figure.locator(".cv-stage")
    page.mouse.click(*middle(stage, 1 / 16, 1 / 16))
    assert "Row 0, column 0:" in numbers(figure)
    figure.locator(".cv-cell").press("ArrowRight")
    figure.locator(".cv-cell").press("ArrowDown")
    figure.locator(".cv-cell").press("ArrowDown")
    assert "Row 2, column 1:" in numbers(figure)
    cell = figure.locator(".cv-stage").bounding_box()["width"] / 8
    drag(page, middle(figure.locator(".cv-cell")), (3 * cell, -cell))
    assert "Row 1, column 4:" in numbers(figure)
    figure.get_by_label("Level").select_option("stride 16, size 64")  # the same place on a finer level
    assert re.search(r"Row 3, column 9:", numbers(figure))


def test_painting_changes_the_scores_and_undo_takes_it_back(opened):
    page = opened()
    figure = control(page, "paint_labels")
    figure.get_by_role("button", name="Reset").click()
    parts = [figure.locator(f"[data-part={part}]") for part in ("accuracy", "miou", "iou7", "dice7")]
    scores = lambda: [part.inner_text() for part in parts]  # noqa: E731
    start = scores()
    figure.get_by_label("class 7").check()
    easel = figure.get_by_role("application", name="Label map")
    easel.press("Enter")
    for _ in range(5):
        easel.press("Shift+ArrowRight")
    easel.press("Enter")
    painted = scores()
    assert painted != start
    easel.press("ArrowLeft")  # the brush is up again
    assert scores() == painted
    figure.get_by_role("button", name="Undo").click()
    assert scores() == start
    figure.get_by_role("button", name="Fill all").click()
    real = panels("x")[4].measure(np.full((SIDE, SIDE), 7))
    real = [real["pixel accuracy"], real["mean IoU"], real["IoU"][7], real["Dice"][7]]
    assert [float(score) for score in scores()] == pytest.approx(real, abs=6e-4)
    easel.press("Control+z")
    assert scores() == start
    drag(page, middle(easel, 0.3, 0.3), (60, 20))
    assert scores() != start


def test_the_occluder_shows_the_score_of_its_place(opened):
    page = opened()
    figure = control(page, "drag_occluder")
    panel = panels("x")[5]
    figure.get_by_label("Score of").select_option("dog")
    occluder = figure.get_by_role("application", name="Occluder")
    for _ in range(20):
        occluder.press("ArrowLeft")
        occluder.press("ArrowUp")
    assert float(figure.locator("[data-part=score]").inner_text()) == pytest.approx(
        panel.measure(0, 0)["dog"], abs=6e-4
    )
    pixel = figure.locator(".cv-stage").bounding_box()["width"] / SIDE
    drag(page, middle(occluder), (3 * 8 * pixel, 2 * 8 * pixel))
    assert float(figure.locator("[data-part=score]").inner_text()) == pytest.approx(
        panel.measure(2, 3)["dog"], abs=6e-4
    )
    figure.get_by_role("button", name="Heat map").click()
    cells = figure.locator(".cv-heat")
    assert cells.count() == 17 * 17
    assert len({*cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell).fill)")}) > 100
    assert figure.get_by_role("button", name="Heat map").get_attribute("aria-pressed") == "true"


@every_kind
def test_without_javascript_a_still_figure_has_the_numbers_of_the_first_state(opened, kind):
    still = control(opened(java_script_enabled=False), kind)
    fresh = control(opened(locale="en-GB"), kind)
    assert still.locator("img").is_visible() and still.locator("figcaption").is_visible()
    assert not still.locator("button, select, input, .cv-help[data-live]").locator("visible=true").count()
    parts = still.locator(".cv-side [data-part]").locator("visible=true").all()
    assert parts or kind == "step_nms"
    for part in parts:
        name = part.get_attribute("data-part")
        assert part.inner_text() == fresh.locator(f"[data-part={name}]").inner_text(), name


@pytest.mark.parametrize("width", [390, 700])
@every_kind
def test_it_fits_a_phone_and_the_column_of_a_page(opened, kind, width):
    page = opened(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figure = control(page, kind)
    cut = figure.evaluate("""f => [...f.querySelectorAll('.cv-side *')].filter(e => e.offsetParent
        && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
        && e.matches('.cv-numbers, button, p, dd, dt')).map(e => e.outerHTML.slice(0, 80))""")
    assert cut == []
    for button in figure.locator("button").locator("visible=true").all():
        assert button.bounding_box()["height"] >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_in_a_control(opened, scheme):
    page = opened(color_scheme=scheme)
    page.evaluate("scheme => { document.documentElement.dataset.theme = scheme; }", scheme)
    page.evaluate((ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [f"{v['id']}: {v['help']}: {node['html'][:200]}" for v in found for node in v["nodes"]] == []


def test_every_handle_has_a_name_and_can_be_reached_by_tab(opened):
    page = opened()
    handles = page.locator(".cv-handle:not([aria-hidden])").all()
    assert len(handles) == 2 * (4 + 1 + 1 + 1)
    for handle in handles:
        assert handle.get_attribute("aria-label") and handle.get_attribute("tabindex") == "0"
        assert page.locator(f"#{handle.get_attribute('aria-describedby')}").count() == 1


def test_nothing_is_fetched_and_nothing_complains(opened):
    assert opened().complaints == []
