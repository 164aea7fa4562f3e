"""Controls moved by hand: what their scripts compute equals what cvlab computes, and mistakes are told by name."""

import json
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup

from cvlab import boxes, files, interact, metrics, propose

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
TEXTS = {"caption": "What to *see*.", "alt": "What is to be seen"}
TRUE, PREDICTED = [10, 5, 40, 30], [20, 10, 55, 38]
MAPS = np.random.default_rng(1).integers(0, 4, (2, 10, 15)).repeat(4, 1).repeat(4, 2)  # (2, 40, 60), classes 0 to 3
FOUND = np.float32([[5, 5, 25, 25], [7, 6, 26, 27], [30, 10, 50, 30], [31, 11, 52, 31], [6, 7, 27, 24]])
SCORES = np.float32([0.9, 0.8, 0.7, 0.95, 0.3])
SEGMENTS = np.arange(24).reshape(4, 6).repeat(10, 0).repeat(10, 1)  # (40, 60), 24 squares
GROUPED = propose.group(IMAGE, SEGMENTS)
PYRAMID = {"strides": (8, 16), "sizes": (16, 32)}
GRID = np.linspace(0.1, 0.9, 35).reshape(5, 7)


def drag_boxes(**more):
    return interact.drag_boxes(**{"image": IMAGE, "true_box": TRUE, "predicted_box": PREDICTED} | TEXTS | more)


def step_nms(**more):
    return interact.step_nms(**{"image": IMAGE, "boxes": FOUND, "scores": SCORES} | TEXTS | more)


def merge_regions(**more):
    return interact.merge_regions(**{"image": IMAGE, "segments": SEGMENTS, "regions": GROUPED} | TEXTS | more)


def place_anchors(**more):
    return interact.place_anchors(**{"image": IMAGE, "true_boxes": [TRUE]} | PYRAMID | TEXTS | more)


def paint_labels(**more):
    start = {"image": IMAGE, "true": MAPS[0], "predicted": MAPS[1], "class_names": ["floor", "cat", "dog", "tree"]}
    return interact.paint_labels(**start | TEXTS | more)


def drag_occluder(**more):
    start = {
        "image": IMAGE,
        "scores": {"cat": GRID, "dog": 1 - GRID},
        "whole": {"cat": 0.8, "dog": 0.1},
        "size": 16,
        "stride": 6,
    }
    return interact.drag_occluder(**start | TEXTS | more)


CONTROLS = [drag_boxes, step_nms, merge_regions, place_anchors, paint_labels, drag_occluder]
every_control = pytest.mark.parametrize("make", CONTROLS, ids=lambda make: make.__name__)


def soup(panel):
    return BeautifulSoup(panel._repr_mimebundle_()["text/html"], "html.parser")


@every_control
def test_a_control_is_a_figure_with_caption_alt_text_and_its_data(make):
    page = soup(make(name="mine"))
    assert page.figure["id"] == "fig-mine" and {"cv-figure", "cv-interact"} <= {*page.figure["class"]}
    assert page.figcaption.decode_contents() == "What to <em>see</em>."
    assert [image["alt"] for image in page.find_all("img")] == [TEXTS["alt"]]
    assert json.loads(page.find("script", type="application/json").string)["size"] == [60, 40]
    assert make().html == make().html


@every_control
def test_without_javascript_nothing_is_offered_that_would_do_nothing(make):
    for element in soup(make()).select("button, select, input"):
        assert element.find_parent(hidden=True) or element.has_attr("hidden")


@every_control
def test_a_page_asks_for_nothing_and_holds_no_comments(make):
    page = make().html
    assert not re.search(r"(src|href)=\"(?!data:)", page) and not re.search(r"url\(|@import|import\(|fetch\(", page)
    assert " // " not in page and "/*" not in page


@every_control
def test_a_terminal_gets_the_caption_and_the_numbers(make):
    text = repr(make())
    assert text.startswith(TEXTS["caption"]) and text.endswith(f"[{TEXTS['alt']}]") and re.search(r"\d", text)


@every_control
def test_the_scripts_count_among_the_files_that_a_lesson_opened(make):
    make()
    assert {"cvlab/controls/panel.js", "cvlab/controls/panel.css", f"cvlab/controls/{make.__name__}.js"} <= {
        *files.opened
    }


@every_control
@pytest.mark.parametrize("missing", ["caption", "alt"])
def test_a_control_needs_caption_and_alt_text(make, missing):
    with pytest.raises(ValueError, match=missing):
        make(**{missing: " "})


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        (drag_boxes, {"true_box": [10, 5, 10, 30]}, r"true_box is \[10, 5, 10, 30\].* within 60×40"),
        (drag_boxes, {"predicted_box": [0, 0, 61, 30]}, "predicted_box is"),
        (step_nms, {"boxes": np.zeros((41, 4))}, r"boxes has shape \(41, 4\).*1 to 40: give those with the highest"),
        (step_nms, {"scores": [1, 2]}, r"scores has shape \(2,\)"),
        (step_nms, {"threshold": 1.5}, "iou_threshold is 1.5"),
        (step_nms, {"labels": np.array([0, 1, 2, 0, 1]), "class_names": ["a", "b"]}, "labels hold .* 0 to 1"),
        (merge_regions, {"segments": SEGMENTS[:, :30]}, r"segments has shape \(40, 30\)"),
        (merge_regions, {"merges": 24}, "merges is 24, expected 0 to 23"),
        (place_anchors, {"true_boxes": np.empty((0, 4))}, r"true_boxes has shape \(0, 4\)"),
        (place_anchors, {"names": ["a", "b"]}, "names has 2 entries, expected 1"),
        (place_anchors, {"level": 2}, "level is 2, expected 0 to 1"),
        (place_anchors, {"sizes": (16,)}, "2 strides but 1 sizes"),
        (paint_labels, {"true": MAPS[0, :4]}, r"true has shape \(4, 60\)"),
        (paint_labels, {"predicted": MAPS[1] + 1}, "y_pred holds 4"),
        (paint_labels, {"colours": ["red"] * 4}, "colours is"),
        (paint_labels, {"class_names": ["one"]}, "class_names has 1 entries"),
        (paint_labels, {"paint": 4}, "paint is 4"),
        (drag_occluder, {"scores": {"cat": GRID[0]}}, "scores has the shapes"),
        (drag_occluder, {"whole": {"cat": 1}}, "whole has the classes"),
        (drag_occluder, {"stride": 8}, "reach 64×48 pixels, expected to stay within 60×40"),
        (drag_occluder, {"start": (5, 0)}, "start is"),
    ],
)
def test_a_wrong_argument_is_named_with_what_would_do(make, given, says):
    with pytest.raises(ValueError, match=says):
        make(**given)


# `measure` gives the numbers of any state, by the functions that the lessons teach.


def test_measured_overlap_is_that_of_boxes():
    got = drag_boxes().measure(TRUE, PREDICTED)
    assert got["IoU"] == boxes.iou([TRUE], [PREDICTED])[0, 0] and got["GIoU"] == boxes.giou([TRUE], [PREDICTED])[0, 0]
    assert got["intersection"] == pytest.approx(20 * 20) and got["union"] == pytest.approx(30 * 25 + 35 * 28 - 400)


def test_measured_suppression_is_that_of_boxes():
    assert step_nms().measure(0.5).tolist() == boxes.nms(FOUND, SCORES, 0.5).tolist() == [3, 0]


def test_measured_merges_end_in_one_region():
    panel = merge_regions()
    assert (panel.measure(0)["labels"] == SEGMENTS).all()
    for merges in (1, 7, 23):
        assert len(np.unique(panel.measure(merges)["labels"])) == 24 - merges
    assert panel.measure(23)["box"].tolist() == [0, 0, 60, 40]


def test_measured_anchor_is_one_of_the_pyramids():
    every = boxes.anchors((40, 60), **PYRAMID, by_level=True)
    got = place_anchors().measure(level=1, row=2, column=3, ratio=0, scale=2)
    assert got["anchor"].tolist() == every[1][(2 * 4 + 3) * 9 + 2].tolist()
    assert got["IoU"] == boxes.iou(got["anchor"][None], [TRUE])[0]


def test_anchors_lie_on_the_image_that_the_network_sees():
    data = place_anchors(input_size=120).data
    assert data["size"] == [120, 120] and data["true"] == [[20, 15, 80, 90]]


def test_measured_scores_are_those_of_metrics():
    got = paint_labels(ignore=4).measure(MAPS[1])
    assert got["mean IoU"] == metrics.segmentation_scores(MAPS[0], MAPS[1], 4)["mean IoU"]


def test_an_occluder_starts_where_the_first_class_suffers_most():
    panel = drag_occluder()
    assert panel.data["at"] == [0, 0] and panel.measure(0, 0) == {"cat": 0.1, "dog": 0.9}


def test_a_display_image_is_shown_in_place_of_the_small_one():
    large = np.full((400, 600, 3), 200, np.uint8)
    assert (drag_boxes(display=large).data["size"], 'width="600"' in drag_boxes(display=large).html) == ([60, 40], True)


# The scripts, run in a browser over random cases and over those at the edges.


@pytest.fixture(scope="module")
def scripts(browser):
    """A page with the functions of all scripts; `scripts(name, cases)` calls one for each case's arguments."""
    page = browser.new_page()
    for file in sorted(interact.FOLDER.glob("*.js")):
        page.add_script_tag(content=f'"use strict";\n{file.read_text(encoding="utf-8")}')
    yield lambda name, cases: page.evaluate(f"cases => cases.map(each => {name}(...each))", cases)
    page.close()


def pairs_of_boxes():
    """Random pairs, and pairs that touch, lie within each other, are equal, level, far apart, or without area."""
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 150, (2, 300, 2))
    pairs = np.concatenate([corners, corners + rng.uniform(1, 90, corners.shape)], axis=-1)
    a = [10, 10, 40, 30]
    edges = [
        [40, 10, 60, 30],
        [10, 30, 40, 50],
        [40, 30, 60, 50],
        [15, 12, 20, 20],
        [0, 0, 90, 90],
        a,
        [10, 12, 40, 35],
        [200, 300, 210, 320],
        [20, 10, 30, 30],
        [41, 10, 60, 30],
        [20, 15, 20, 25],
        [10, 10, 10, 10],
    ]
    edges = np.array([[a, b] for b in edges] + [[b, a] for b in edges] + [[[5, 5, 5, 5], [5, 5, 5, 5]]], float)
    return np.concatenate([pairs, edges.transpose(1, 0, 2)], axis=1).astype(np.float32)


def test_overlap_in_the_page_is_that_of_boxes(scripts):
    a, b = pairs_of_boxes()
    got = scripts("compare", [[x, y] for x, y in zip(a.tolist(), b.tolist())])
    np.testing.assert_allclose([each["iou"] for each in got], boxes.paired_iou(a, b), rtol=0, atol=1e-6)
    np.testing.assert_allclose([each["giou"] for each in got], boxes.paired_giou(a, b), rtol=0, atol=1e-6)


def test_gradients_in_the_page_are_those_of_keras(scripts):
    from cvlab import backend

    a, b = pairs_of_boxes()
    solid = (boxes.area(a) > 0) & (boxes.area(b) > 0)
    if backend.name() != "tensorflow":  # where sides are level, every backend has its own subgradient
        solid[300:] = False
    a, b = a[solid], b[solid]
    got = scripts("gradients", [[x, y] for x, y in zip(a.tolist(), b.tolist())])
    for key, function in (("iou", boxes.paired_iou), ("giou", boxes.paired_giou)):
        _, expected = backend.value_and_grad(lambda x: _sum(function(x, b)))(a)  # noqa: B023
        np.testing.assert_allclose([each[key] for each in got], np.asarray(expected), rtol=0, atol=1e-6)


def _sum(values):
    import keras

    return keras.ops.sum(values)


def test_gradients_in_the_page_are_slopes(scripts):
    a, b = (each[:300].astype(float) for each in pairs_of_boxes())
    got = np.array([each["giou"] for each in scripts("gradients", np.stack([a, b], 1).tolist())])
    for k in range(4):
        step = 1e-5 * np.eye(4)[k]
        ends = [scripts("compare", np.stack([a + sign * step, b], 1).tolist()) for sign in (1, -1)]
        slope = [(up["giou"] - down["giou"]) / 2e-5 for up, down in zip(*ends)]
        np.testing.assert_allclose(got[:, k], slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_in_the_page_is_that_of_boxes(scripts, seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 30, (40, 2))
    found = np.concatenate([corner, corner + rng.integers(5, 25, (40, 2))], axis=1)
    scores, labels = rng.integers(1, 30, 40) / 30, rng.integers(0, 3, 40)
    for classes in (None, labels):
        panel = step_nms(image=np.zeros((60, 60), np.uint8), boxes=found, scores=scores, labels=classes)
        order = np.argsort(-scores.astype(np.float32), kind="stable")
        for threshold in panel.data["thresholds"]:
            (steps,) = scripts("suppress", [[panel.data["iou"], panel.data["labels"], threshold]])
            assert order[[each["kept"] for each in steps]].tolist() == panel.measure(threshold).tolist()
            assert sum(1 + len(each["suppressed"]) for each in steps) == 40
            assert all(iou > threshold for each in steps for _, iou in each["suppressed"])


def test_at_the_threshold_a_box_stays(scripts):
    found = [[0, 0, 4, 2], [0, 0, 2, 2], [0, 0, 3, 1]]
    panel = step_nms(boxes=found, scores=[0.9, 0.8, 0.7])
    (steps,) = scripts("suppress", [[panel.data["iou"], panel.data["labels"], 0.5]])
    assert [each["kept"] for each in steps] == panel.measure(0.5).tolist() == [0, 1, 2]


def test_merges_in_the_page_are_those_of_propose(scripts):
    panel = merge_regions()
    (first,) = scripts("decode", [[panel.data["runs"], SEGMENTS.size]])
    labels = np.array([first[str(i)] for i in range(SEGMENTS.size)] if isinstance(first, dict) else first)
    assert (labels == SEGMENTS.ravel()).all()
    for merges in range(24):
        (owner,) = scripts("owners", [[24, panel.data["pairs"], merges]])
        assert (np.array(owner)[SEGMENTS] == panel.measure(merges)["labels"]).all()


def test_anchors_in_the_page_are_those_of_boxes(scripts):
    panel, expected, cases = place_anchors(), [], []
    for level, (rows, columns) in enumerate(((5, 8), (3, 4))):
        for index in np.ndindex(rows, columns, 3, 3):
            row, column, ratio, scale = index
            expected.append(panel.measure(level, *index)["anchor"])
            cases.append(
                [panel.data["levels"][level], row, column, panel.data["ratios"][ratio], panel.data["scales"][scale]]
            )
    assert len(cases) == len(boxes.anchors((40, 60), **PYRAMID))
    np.testing.assert_allclose(scripts("anchor", cases), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("ignore", [None, 5])
def test_scores_in_the_page_are_those_of_metrics(scripts, ignore):
    rng = np.random.default_rng(7)
    for classes in (2, 5):
        for shown in (1, 2, classes):  # classes that neither map shows have no score
            true, painted = rng.integers(0, min(shown, classes), (2, 20, 20))
            true[:3] = true[:3] if ignore is None else ignore
            expected = metrics.segmentation_scores(true, painted, classes, ignore)
            (got,) = scripts("scores", [[expected["confusion"].ravel().tolist(), classes]])
            for key, mine in (
                ("IoU", "iou"),
                ("Dice", "dice"),
                ("mean IoU", "meanIou"),
                ("mean Dice", "meanDice"),
                ("pixel accuracy", "accuracy"),
            ):
                value = np.array(got[mine], float)
                np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-6)
