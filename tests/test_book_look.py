"""The landing page's figure and the cards' thumbnails: the numbers are the networks' own, and images are found."""

import base64
import io
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from cvlab import data, run, show

sys.path.insert(0, str(run.book_root()))
sys.path.insert(0, str(run.book_root() / "book"))

import look
import thumbnails

from experiments import landing

pytestmark = pytest.mark.house
EXAMPLES = look.examples()
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])


@every_example
def test_the_committed_maps_and_probabilities_are_those_of_the_networks(example):
    known = {key: example.row[key] for key in ("part", "split", "index", "size")}
    assert known in landing.EXAMPLES
    again = landing.measure(known)
    for when in ("before", "after"):
        assert again[when]["probability"] == pytest.approx(example.row[when]["probability"], abs=0.005)
        maps = [decode(row[when]["map"]) for row in (again, example.row)]
        assert maps[0].shape == (example.row["size"],) * 2
        assert abs(maps[0] - maps[1]).mean() < 1


def decode(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), "float64")


@every_example
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_share_is_the_part_of_the_maps_sum_that_lies_in_the_true_part(example, when):
    heat, mask = decode(example.row[when]["map"]), example.true_mask(example.small())
    assert example.measure(when)["share"] == pytest.approx(heat[mask].sum() / heat.sum())


@every_example
def test_the_image_shown_is_the_one_that_the_networks_saw(example):
    large, small = example.large(), example.small()
    assert large.images.shape == (1, 640, 640, 3)
    assert (large.origin, large.index.tolist()) == (small.origin, small.index.tolist())
    assert example.true_mask(large).mean() == pytest.approx(example.true_mask(small).mean(), rel=0.05)
    assert large.class_names[large.labels[0]] == example.target


@every_example
def test_what_may_be_chosen_covers_the_image_without_overlap(example):
    masks = np.stack(list(example.masks(example.large()).values()))
    assert (masks.sum(0) == 1).all()
    assert set(example.true) < set(example.regions)


def test_mended_data_helped_as_the_page_says():
    car, dog, cat = ({when: each.measure(when) for when in ("before", "after")} for each in EXAMPLES)
    assert car["before"]["probability"] < 0.5 < car["after"]["probability"]
    assert dog["before"]["probability"] < 0.5 < dog["after"]["probability"]
    assert all(each["after"]["share"] > each["before"]["share"] for each in (car, dog, cat))
    area = EXAMPLES[0].true_mask(EXAMPLES[0].small()).mean()
    assert car["before"]["share"] < area < car["after"]["share"]


def test_an_outline_encloses_its_mask():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:25] = True
    assert look.outline(mask) == "M5 10L5 29L24 29L24 10Z"
    assert look.outline(np.zeros((40, 40), bool)) == ""


def notebook(*figures):
    cells = [
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"text/html": figure.html})])
        for figure in figures
    ]
    return nbformat.v4.new_notebook(cells=cells)


def picture(value, name, count=1):
    images = np.full((count, 400, 600, 3), value, "uint8") + np.arange(count, dtype="uint8")[:, None, None, None]
    return show.images(images, caption="Grey.", alt="Grey", name=name, lossless=True)


def test_a_thumbnail_is_of_the_figure_and_the_image_that_are_named():
    lesson = notebook(picture(10, "first"), picture(50, "second", 3))
    levels = [
        np.asarray(thumbnails.figure_image(lesson, *asked).convert("RGB"))[0, 0, 0]
        for asked in ((), ("second",), ("second", 2))
    ]
    assert levels == [10, 50, 52]


def test_a_figure_that_the_lesson_has_not_is_refused_by_name():
    with pytest.raises(ValueError, match="expected the figure 'third' with an image 0, found first"):
        thumbnails.figure_image(notebook(picture(10, "first")), "third")


def test_a_thumbnail_is_a_square_at_twice_its_size_in_the_page():
    wide = Image.fromarray(data.display("scenes/test", 34)).crop((0, 100, 640, 500))
    encoded = thumbnails.encode(wide)
    assert Image.open(io.BytesIO(encoded)).size == (192, 192)
    assert len(encoded) < 12_000
