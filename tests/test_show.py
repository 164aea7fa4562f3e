"""Figures: what stands in the page is what was given, with its texts; colours can be told apart; pages stay light."""

import base64
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from cvlab import page, show
from cvlab.explore import explore, quiz

TEXTS = {"caption": "What to see.", "alt": "What is to be seen."}
RNG = np.random.default_rng(0)
TINY = RNG.integers(0, 256, (6, 24, 32, 3), "uint8")


def soup(shown):
    return BeautifulSoup(shown._repr_mimebundle_()["text/html"], "html.parser")


def decode(source):
    assert source.startswith("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def photograph(height=120, width=160):
    """A picture with a photograph's grain, which only lossy coding makes small."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([np.sin(x / 17 + k) + np.cos(y / (11 + 3 * k)) for k in range(3)], -1) * 50 + 128
    return np.clip(smooth + np.random.default_rng(1).normal(0, 4, smooth.shape), 0, 255).astype("uint8")


def test_a_figure_has_picture_alt_text_caption_and_address():
    found = soup(show.figure(TINY[0], caption="A `cat` & <b>", alt='A "cat" & <b>', name="The cat"))
    assert found.figure["id"] == "fig-the-cat"
    assert found.figure.img["alt"] == 'A "cat" & <b>'
    assert found.figcaption.text == "A cat & <b>"
    assert found.figcaption.code.text == "cat"
    assert (decode(found.img["src"]) == TINY[0]).all()


@pytest.mark.parametrize("missing", [{"caption": ""}, {"caption": None}, {"alt": " "}, {"alt": None}])
def test_no_figure_goes_without_its_texts(missing):
    for call in (show.figure, lambda *a, **k: show.images(a, **k)):
        with pytest.raises((ValueError, TypeError), match=next(iter(missing))):
            call(TINY[0], **TEXTS | missing)


def test_plain_text_carries_caption_and_alt_text():
    assert show.figure(TINY[0], **TEXTS)._repr_mimebundle_()["text/plain"] == "What to see.\n[What is to be seen.]"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TINY[0], TINY[0]),
        (TINY[0].astype("float32"), TINY[0]),
        (TINY[0] / 255, TINY[0]),
        (np.array([[-0.02, 0.5, 1.03]]), [[[0] * 3, [128] * 3, [255] * 3]]),
        (np.array([[True, False]]), [[[255] * 3, [0] * 3]]),
        (TINY[0, :, :, 0], TINY[0, :, :, :1].repeat(3, 2)),
        (TINY[0, :, :, :1], TINY[0, :, :, :1].repeat(3, 2)),
    ],
)
def test_pictures_of_every_allowed_kind_show_the_same_pixels(given, expected):
    assert (decode(soup(show.figure(given, **TEXTS, lossless=True)).img["src"]) == expected).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (TINY[0].astype("int64"), "dtype int64, expected uint8"),
        (TINY, r"shape \(6, 24, 32, 3\)"),
        (np.zeros((0, 5, 3), "uint8"), r"shape \(0, 5, 3\)"),
        (np.zeros((5, 5, 2), "uint8"), r"shape \(5, 5, 2\)"),
        (np.array([[0, 2.5]]), "values from 0 to 2.5"),
        (np.array([[-1.0, 1.0]]), "values from -1 to 1"),
        (np.array([[0.0, 900.0]]), "values from 0 to 900"),
        (np.array([[0.0, np.nan]]), "values from nan"),
    ],
)
def test_a_picture_of_unclear_meaning_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        show.figure(given, **TEXTS)


def test_pictures_keep_their_order_and_their_titles():
    found = soup(show.images(TINY, [f"toy {i}" for i in range(6)], columns=3, **TEXTS))
    tiles = found.select(".cv-grid > div")
    assert [tile.select_one(".cv-title").text for tile in tiles] == [f"toy {i}" for i in range(6)]
    for tile, picture in zip(tiles, TINY, strict=True):
        assert (decode(tile.img["src"]) == picture).all()
    assert found.select_one("[role=group]")["aria-label"] == TEXTS["alt"]
    assert len({image["alt"] for image in found.select("img")}) == 6


def test_each_picture_may_have_an_alt_text_of_its_own():
    found = soup(show.images(TINY[:2], caption="Two.", alt=["one", "two"]))
    assert [image["alt"] for image in found.select("img")] == ["one", "two"]


def test_small_pictures_are_enlarged_by_squares_and_large_ones_are_not():
    small, large = (soup(show.figure(photograph(s, s), **TEXTS)).img for s in (32, 400))
    assert "pixelated" in small["style"]
    assert int(small["width"]) % 32 == 0
    assert int(small["width"]) >= 256
    assert (int(large["width"]), "pixelated" in large["style"]) == (400, False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"titles": ["one"]}, "titles has 1 entries, expected 6"),
        ({"alt": ["one"]}, "alt has 1 entries, expected 6"),
        ({"boxes": [None]}, "boxes has 1 entries, expected 6"),
    ],
)
def test_lists_beside_the_pictures_have_their_length(arguments, told):
    with pytest.raises(ValueError, match=told):
        show.images(TINY, **TEXTS | arguments)


@pytest.mark.parametrize("pictures", [[], TINY[0], TINY[0, :, :, 0]])
def test_images_wants_several_pictures(pictures):
    with pytest.raises(ValueError, match="images: images has shape"):
        show.images(pictures, **TEXTS)


@pytest.mark.parametrize("side", [160, 400])
def test_a_box_is_drawn_on_the_pixels_that_it_covers_and_no_others(side):
    scale = 320 // 160 if side == 160 else 1
    drawn = show.draw_boxes(np.zeros((side, side // 2, 3), "uint8"), [[20, 90, 50, 130]])
    assert drawn.shape == (side * scale, side // 2 * scale, 3)
    y, x = np.nonzero(drawn.any(-1))
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == tuple(scale * v for v in (20, 90, 50, 130))
    assert not drawn[100 * scale : 120 * scale, 30 * scale : 40 * scale].any()


def test_a_box_around_the_whole_picture_touches_its_borders():
    drawn = show.draw_boxes(np.zeros((400, 500, 3), "uint8"), [[0, 0, 500, 400]])
    assert drawn[0].any(-1).all()
    assert drawn[-1].any(-1).all()
    assert drawn[:, 0].any(-1).all()
    assert drawn[:, -1].any(-1).all()


def test_named_boxes_differ_in_colour_and_carry_their_names():
    blank = np.zeros((320, 320, 3), "uint8")
    drawn = show.draw_boxes(blank, {"truth": [[50, 60, 150, 160]], "found": [[200, 60, 300, 160]]})
    truth, found = (f"#{bytes(drawn[110, x]).hex().upper()}" for x in (52, 202))
    assert (truth, found) == (show.PALETTE[1], show.PALETTE[0])
    assert drawn[:59, 40:160].any()  # "truth" above its box, "found" below
    assert drawn[162:, 190:310].any()
    apart = show.draw_boxes(blank, {"truth": [[50, 60, 150, 160]], "found": []})
    crossed = show.draw_boxes(blank, {"truth": [[50, 60, 150, 160]], "found": [[60, 30, 300, 160]]})
    assert (crossed[48:56, 54:78] == apart[48:56, 54:78]).all()  # no box covers a name
    labelled = show.draw_boxes(blank, [[50, 60, 150, 160]], labels=["cat 0.93"])
    assert (labelled != show.draw_boxes(blank, [[50, 60, 150, 160]])).any()


def test_pictures_with_boxes_are_shown_with_them():
    found = soup(show.images(TINY[:2], boxes=[[[4, 4, 20, 20]], None], lossless=True, **TEXTS)).select("img")
    assert (decode(found[0]["src"]) == show.draw_boxes(TINY[0], [[4, 4, 20, 20]])).all()
    assert (decode(found[1]["src"]) == TINY[1]).all()


def test_a_box_has_a_white_edge_and_a_coloured_line_of_fixed_widths_which_grow_with_the_image():
    for side, thin in ((320, 1), (640, 2)):
        box = [side // 4, side // 4, 3 * side // 4, 3 * side // 4]
        row = show.draw_boxes(np.zeros((side, side, 3), "uint8"), [box])[side // 2, side // 4 :]
        colours = [f"#{bytes(pixel).hex().upper()}" for pixel in row[: 6 * thin]]
        assert colours == ["#FFFFFF"] * thin + [show.PALETTE[1]] * 3 * thin + ["#FFFFFF"] * thin + ["#000000"] * thin


@pytest.mark.parametrize("box", [[30, 10, 20, 40], [10, 40, 20, 30], [10, 10, 10, 20], [np.nan, 0, 5, 5]])
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(ValueError, match=r"draw_boxes: box 1 is .* expected x_min < x_max and y_min < y_max"):
        show.draw_boxes(TINY[0], [[0, 0, 5, 5], box])


def test_labels_are_as_many_as_boxes():
    with pytest.raises(ValueError, match="labels has 1 entries, expected 2"):
        show.draw_boxes(TINY[0], [[0, 0, 5, 5]] * 2, labels=["one"])


def test_what_is_displayed_stands_in_for_the_pictures_and_boxes_are_scaled_to_it():
    picture, large = np.zeros((160, 160, 3), "uint8"), photograph(640, 640)
    drawn = show.draw_boxes(picture, [[10, 20, 60, 150]], display=large)
    assert drawn.shape == (640, 640, 3)
    assert (drawn == show.draw_boxes(large, [[40, 80, 240, 600]])).all()
    options = {"boxes": [[[10, 20, 60, 150]], None], "display": [large, large], "columns": 2, "lossless": True}
    found = soup(show.images([picture, picture], **TEXTS, **options)).find_all("img")
    assert (decode(found[0]["src"]) == drawn).all() and (decode(found[1]["src"]) == large).all()


@pytest.mark.parametrize(("columns", "width"), [(1, 640), (2, 640), (4, 400), (5, 320), (8, 320)])
def test_a_large_image_takes_two_pixels_for_each_of_its_place_in_the_page(columns, width):
    large = [photograph(640, 640)] * columns
    found = soup(show.images(TINY[[0] * columns], display=large, columns=columns, **TEXTS))
    assert decode(found.img["src"]).shape == (width, width, 3)
    assert "pixelated" not in found.img["style"]


def test_a_picture_without_a_large_one_is_shown_as_it_is():
    alone = soup(show.images(TINY[:2], **TEXTS)).find_all("img")
    for none in (None, TINY[1]):
        found = soup(show.images(TINY[:2], display=[photograph(400, 400), none], **TEXTS)).find_all("img")
        assert (decode(found[1]["src"]) == decode(alone[1]["src"])).all()
    with pytest.raises(ValueError, match="images: display has 1 entries, expected 2"):
        show.images(TINY[:2], display=[TINY[0]], **TEXTS)


def test_feature_maps_stand_in_reading_order_each_in_its_own_range():
    ramp = np.arange(12.0).reshape(3, 4)
    maps = np.stack([ramp, ramp[::-1] * 100, ramp.T.reshape(3, 4)], -1)
    grid = decode(soup(show.feature_maps(maps, columns=2, **TEXTS)).img["src"])
    assert grid.shape == (3 + 1 + 3, 4 + 1 + 4, 3)
    assert (grid[:3, :4] == show.heat(ramp)).all()
    assert (grid[:3, 5:] == show.heat(ramp[::-1])).all()
    assert (grid[4:, :4] == show.heat(maps[..., 2])).all()
    assert (grid[4:, 5:] == 255).all()


def test_feature_maps_with_a_shared_range_keep_their_strengths():
    maps = np.stack([np.linspace(0, 1, 16).reshape(4, 4), np.linspace(0, 0.1, 16).reshape(4, 4)], -1)
    grid = decode(soup(show.feature_maps(maps, shared=True, **TEXTS)).img["src"])
    assert (grid[:, 5:] == show.heat(maps[..., 1], low=0, high=1)).all()


def test_feature_maps_are_those_of_one_picture():
    with pytest.raises(ValueError, match=r"maps has shape \(1, 4, 4, 2\), expected \(H, W, C\)"):
        show.feature_maps(np.zeros((1, 4, 4, 2)), **TEXTS)


def test_heat_runs_from_low_to_high_and_bears_a_constant_map():
    import matplotlib

    ends = (np.array(matplotlib.colormaps["viridis"]([0.0, 1.0], bytes=True))[:, :3]).tolist()
    assert show.heat(np.array([[3.0, 7.0]])).tolist() == [ends]
    assert show.heat(np.zeros((1, 2))).tolist() == [[ends[0]] * 2]


def test_heat_takes_its_colours_and_its_range_from_the_caller():
    grey = show.heat(np.array([[0.0, 1.0, 2.0, 3.0]]), "gray", low=1, high=3)
    assert grey.tolist() == [[[0] * 3, [0] * 3, [128] * 3, [255] * 3]]
    assert show.heat(np.array([[1.0, 2.0]]), "gray", high=3).tolist() == [[[0] * 3, [128] * 3]]


AXES = {"xlabel": "pictures", "ylabel": "accuracy"}
RUNS = {"frozen": [[0.5, 0.7, 0.8], [0.7, 0.7, 0.9]], "fine-tuned": [0.4, 0.7, 0.85], "scratch": [[0.1, 0.2, 0.848]]}


def test_curves_draw_the_mean_of_the_runs_and_a_band_from_least_to_most():
    ax = show.curves([5, 20, 100], RUNS, log_x=True, **AXES, **TEXTS).image.axes[0]
    assert [np.round(line.get_ydata(), 9).tolist() for line in ax.lines] == [
        [0.6, 0.7, 0.85],
        [0.4, 0.7, 0.85],
        [0.1, 0.2, 0.848],
    ]
    assert all(line.get_xdata().tolist() == [5, 20, 100] for line in ax.lines)
    (band,) = ax.collections
    low, high = np.sort(np.unique(band.get_paths()[0].vertices[:, 1]))[[0, -1]]
    assert (low, high) == (0.5, 0.9)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["5", "20", "100"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("pictures", "accuracy")


def test_each_curve_is_named_at_its_end_and_no_name_covers_another():
    drawing = show.curves([5, 20, 100], RUNS, **AXES, **TEXTS).image
    drawing.draw_without_rendering()
    ax = drawing.axes[0]
    names = {note.get_text(): note for note in ax.texts}
    assert set(names) == set(RUNS)
    boxes = [note.get_window_extent() for note in names.values()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for line, key in zip(ax.lines, RUNS, strict=True):
        assert names[key].xy == pytest.approx((100, line.get_ydata()[-1]))
        assert drawing.bbox.x1 >= names[key].get_window_extent().x1
    assert min(t.get_fontsize() for t in [*ax.texts, ax.xaxis.label, *ax.get_xticklabels()]) >= 10


def test_curves_may_have_an_x_of_their_own():
    seconds = {"frozen": [[1, 2, 3], [3, 4, 5]], "scratch": [10, 20, 30]}
    ax = show.curves(seconds, {k: RUNS[k] for k in seconds}, **AXES, **TEXTS).image.axes[0]
    assert [line.get_xdata().tolist() for line in ax.lines] == [[2, 3, 4], [10, 20, 30]]


def test_curves_that_cannot_be_drawn_say_why():
    with pytest.raises(ValueError, match="6 series, expected at most 5"):
        show.curves([1, 2], {str(i): [1, 2] for i in range(6)}, **AXES, **TEXTS)
    with pytest.raises(ValueError, match=r"'frozen' has shape \(1, 2\), expected a value for each of 3 x"):
        show.curves([1, 2, 3], {"frozen": [1, 2]}, **AXES, **TEXTS)


def test_plots_are_small_sharp_and_transparent():
    source = soup(show.curves([5, 20, 100], RUNS, **AXES, **TEXTS)).img["src"]
    svg = unquote(source.removeprefix("data:image/svg+xml,"))
    drawn = BeautifulSoup(svg, "html.parser").svg
    assert "fill: none" in drawn.find(id="patch_1").path["style"]  # transparent: the page's own colour is behind it
    assert len(source) < 60_000


def test_a_plot_with_pictures_in_it_is_not_vector_graphics():
    drawing, ax = show.axes(3, 3)
    ax.imshow(photograph())
    assert decode(soup(show.figure(drawing, **TEXTS)).img["src"]).shape == (450, 450, 3)


def test_a_drawing_that_holds_an_image_stays_on_white():
    drawing, ax = show.axes(6, 6)
    ax.imshow(np.eye(8))
    for row, column in np.ndindex(8, 8):
        ax.text(column, row, 8 * row + column)
    tag = soup(show.figure(drawing, **TEXTS)).img
    svg = BeautifulSoup(unquote(tag["src"].partition(",")[2]), "html.parser")
    assert "cv-chart" not in tag["class"] and "fill: #ffffff" in svg.find(id="patch_1").path["style"]


def test_a_pyplot_figure_is_shown_once():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    drawing, ax = pyplot.subplots()
    ax.plot([1, 2])
    show.figure(drawing, **TEXTS)
    assert pyplot.get_fignums() == before


def test_a_table_names_its_columns_and_rows():
    rows = [{"mode": "frozen", "accuracy": 0.81249, "runs": 3}, {"mode": "<b>", "accuracy": np.float32(0.5), "runs": 1}]
    shown = show.table(rows, caption="Modes of `transfer`.", digits=2)
    found = soup(shown)
    assert found.caption.text == "Modes of transfer."
    assert [cell.text for cell in found.select("th[scope=col]")] == ["mode", "accuracy", "runs"]
    assert [cell.text for cell in found.select("th[scope=row]")] == ["frozen", "<b>"]
    assert [cell.text for cell in found.select("td")] == ["0.81", "3", "0.50", "1"]
    assert repr(shown).splitlines()[1:] == ["mode    accuracy  runs", "frozen  0.81      3", "<b>     0.50      1"]


@pytest.mark.parametrize("rows", [[], [{"a": 1}, {"b": 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]])
def test_a_table_has_the_same_columns_in_every_row(rows):
    with pytest.raises(ValueError, match="same keys"):
        show.table(rows, caption="None.")


def test_the_same_call_gives_the_same_bytes():
    calls = (
        lambda: show.images(TINY, **TEXTS),
        lambda: show.curves([5, 20, 100], RUNS, **AXES, **TEXTS),
        lambda: show.table([{"a": 1.0}], caption="One."),
    )
    for call in calls:
        assert call()._repr_mimebundle_() == call()._repr_mimebundle_()


def test_what_nbval_compares_does_not_depend_on_pixels():
    pages = {show.figure(picture, **TEXTS).html for picture in TINY}
    assert len(pages) == len(TINY)
    assert len({re.sub(r'data:image/[^"]+', "PICTURE", each) for each in pages}) == 1


def test_photographs_are_packed_small_and_line_art_exactly():
    photo, art = photograph(), np.full((200, 300, 3), 255, "uint8")
    art[::40] = art[:, ::40] = (0, 114, 178)
    assert 3 * len(page.webp(photo)) < len(page.webp(photo, lossless=True))
    assert np.abs(decode(soup(show.figure(photo, **TEXTS)).img["src"]).astype(int) - photo).mean() < 6
    assert (decode(soup(show.figure(art, **TEXTS)).img["src"]) == art).all()


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2.2, relative luminance and contrast ratio."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (a, b))
    return high / low


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_every_colour_stands_out_from_light_and_dark(ground):
    assert min(contrast(colour, ground) for colour in show.PALETTE) >= 3


def test_text_in_plots_has_a_texts_contrast():
    assert contrast(show.STYLE["text.color"], show.STYLE["figure.facecolor"]) >= 7


# Machado, Oliveira and Fernandes 2009, severity 1.0.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colour_blind_readers_tell_the_colours_apart(deficiency):
    from skimage.color import deltaE_ciede2000, rgb2lab

    seen = np.clip([np.asarray(DEFICIENCIES[deficiency]) @ linear(c) for c in show.PALETTE], 0, 1)
    labs = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    assert min(float(deltaE_ciede2000(a, b)) for a, b in itertools.combinations(labs, 2)) >= 10


def test_the_book_has_a_style_for_every_part():
    css = (Path(__file__).parents[1] / "book" / "_static" / "book.css").read_text(encoding="utf-8")
    shown = (
        show.images(TINY, ["t"] * 6, **TEXTS),
        show.table([{"a": 1}], caption="One."),
        show.curves([5, 20, 100], RUNS, **AXES, **TEXTS),
        explore(lambda k: TINY[k], k=[0, 1]),
        quiz("Which?", {"this": "Yes.", "that": "No."}, "this"),
    )
    classes = {name for each in shown for tag in soup(each).find_all(class_=True) for name in tag["class"]}
    of_pages = {
        "cv-run",
        "cv-start",
        "cv-code",
        "cv-checks",
        "cv-answer",
    }  # what book/ and intro.md put into pages by themselves
    assert {name for name in classes if name.startswith("cv-")} - {"cv-grid", "cv-explore"} == (
        set(re.findall(r"\.(cv-\w+)", css)) - of_pages
    )
    assert not re.search(r"@import|url\(", css)


def test_importing_loads_nothing_heavy():
    code = (
        "import sys; import cvlab.show, cvlab.explore, cvlab.check; "
        "print([m for m in ('matplotlib', 'PIL', 'ipywidgets', 'IPython', 'keras', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_labels_of_boxes_that_coincide_do_not_cover_one_another():
    image, boxes = np.full((160, 160, 3), 120, "uint8"), np.array([[40.0, 40, 120, 120]] * 4)
    bare, first = (show.draw_boxes(image, boxes, [text, "", "", ""]) for text in ("", "car 0.91"))
    label = (first != bare).any(-1)
    every = show.draw_boxes(image, boxes, ["car 0.91", "cat 0.80", "dog 0.70", "mug 0.60"])
    np.testing.assert_array_equal(every[label], first[label])
    assert (every != bare).any(-1).sum() > 3.5 * label.sum()  # each of the four can be read
