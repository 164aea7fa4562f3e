"""Proposals: windows where they are said to be, and regions that merge as the paper says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import rectangles
from skimage.segmentation import felzenszwalb

from cvlab import boxes, propose, rcnn

ALL = propose.SIMILARITIES


@pytest.fixture(scope="module")
def patches():
    """A picture of 30×40 with smooth colours and noise, and its segmentation into twelve patches of uneven size."""
    draw = np.random.default_rng(4)
    rows, columns = np.cumsum([8, 13, 9]), np.cumsum([7, 12, 6, 15])
    y, x = np.indices((30, 40))
    segments = np.searchsorted(rows, y, side="right") * 4 + np.searchsorted(columns, x, side="right")
    noise = draw.integers(0, 20, (30, 40, 3)) * (1 + segments % 3)[..., None]  # so that no two pairs are equally alike
    return (draw.integers(0, 195, (12, 3))[segments] + noise).astype(np.uint8), segments


# Sliding windows


def test_windows_lie_where_a_hand_puts_them():
    found = propose.sliding_windows((5, 8), (2, 3), (3, 2))
    assert found.tolist() == [[0, 0, 3, 2], [2, 0, 5, 2], [4, 0, 7, 2], [0, 3, 3, 5], [2, 3, 5, 5], [4, 3, 7, 5]]
    assert found.dtype == np.float32
    assert propose.sliding_windows(160, 64, 16).shape == (49, 4)


@settings(max_examples=60, deadline=None)
@given(*(st.tuples(st.integers(1, 24), st.integers(1, 24)) for _ in range(3)))
def test_windows_are_all_that_fit(image_size, size, stride):
    (height, width), (h, w) = image_size, size
    wanted = [
        [x, y, x + w, y + h]
        for y in range(0, height, stride[0])
        for x in range(0, width, stride[1])
        if x + w <= width and y + h <= height
    ]
    assert propose.sliding_windows(image_size, size, stride).tolist() == wanted


def test_a_window_larger_than_the_picture_fits_nowhere():
    assert propose.sliding_windows(10, 11, 1).shape == (0, 4)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, (1, 2, 3), "8", (4, 0)])
@pytest.mark.parametrize("argument", ["image_size", "size", "stride"])
def test_windows_of_nonsense_are_told_by_name(argument, wrong):
    with pytest.raises(ValueError, match=f"sliding_windows: {argument}=.*positive integer"):
        propose.sliding_windows(**{"image_size": 32, "size": 8, "stride": 4} | {argument: wrong})


# The pyramid


def test_a_pyramid_shrinks_by_its_factor_until_the_smallest_side():
    levels = propose.pyramid(np.zeros((100, 140, 3), np.uint8), smallest=25, factor=2)
    assert [picture.shape[:2] for picture, _ in levels] == [(100, 140), (50, 70), (25, 35)]
    assert levels[1][1].tolist() == [0.5] * 4
    only = propose.pyramid(np.zeros((20, 30, 3), np.uint8), smallest=25)
    assert len(only) == 1 and only[0][1].tolist() == [1] * 4


def test_a_box_in_a_level_of_rounded_size_maps_back_exactly():
    image = np.zeros((101, 67, 3), np.float32)
    for picture, scale in propose.pyramid(image, smallest=20, factor=1.37):
        height, width = picture.shape[:2]
        np.testing.assert_allclose(np.float32([0, 0, width, height]) / scale, [0, 0, 67, 101], rtol=1e-6)


def test_a_thing_seen_in_a_level_is_where_it_was():
    image = np.zeros((120, 160, 3), np.uint8)
    image[32:80, 48:112] = 255
    for picture, scale in propose.pyramid(image, smallest=30):
        y, x = np.nonzero(picture[..., 0] > 127)
        found = np.float32([x.min(), y.min(), x.max() + 1, y.max() + 1]) / scale
        np.testing.assert_allclose(found, [48, 32, 112, 80], atol=0.6 / scale.min())


def test_a_pyramid_averages_pixels_and_skips_none():
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2] = 200
    (_, _), (half, _) = propose.pyramid(stripes, smallest=32, factor=2)
    np.testing.assert_allclose(half, 100)


def test_a_pyramid_without_end_is_refused():
    for options in ({"factor": 1}, {"smallest": 0}):
        with pytest.raises(ValueError, match="pyramid: factor=.* expected above 1"):
            propose.pyramid(np.zeros((9, 9, 3), np.uint8), **options)


@pytest.mark.parametrize("image", [np.zeros((1, 9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3))])
def test_what_is_not_one_picture_is_told(image):
    calls = {
        "pyramid": propose.pyramid,
        "selective_search": propose.selective_search,
        "warp": lambda picture: propose.warp(picture, [[0, 0, 4, 4]]),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}: image is {image.dtype} of shape"):
            call(image)


# Regions


def test_the_similarities_of_two_regions_by_hand():
    image, segments = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), int)
    image[1:3, 2:6, 0] = 255
    segments[1:3, 2:6] = 1  # 8 pixels of red; around them 16 of black, in the whole picture's box
    found = propose.describe(image, segments)
    assert found.sizes.tolist() == [16, 8]
    assert found.boxes.tolist() == [[0, 0, 6, 4], [2, 1, 6, 3]]
    assert found.colour[1].nonzero()[0].tolist() == [24, 25, 50]  # red 255; green 0, blue 0
    alike = found.similarity(0, 1, 24)
    np.testing.assert_allclose([alike["colour"], alike["size"], alike["fill"]], [2 / 3, 0, 1], atol=1e-6)
    apart = propose.describe(np.zeros((2, 9, 3), np.uint8), np.repeat([[0, 1, 2]] * 2, 3, 1)).similarity(0, 2, 18)
    np.testing.assert_allclose(list(apart.values()), [1, 1, 1 - 12 / 18, 1 - 6 / 18], atol=1e-6)


def test_half_of_one_colour_is_half_alike():
    image, segments = np.zeros((2, 4, 3), np.uint8), np.repeat([[0, 0, 1, 1]] * 2, 1, 1)
    image[0, 2:] = 99
    assert propose.describe(image, segments).similarity(0, 1, 8)["colour"] == pytest.approx(0.5)


def test_texture_knows_the_direction_of_slopes():
    ramp = np.tile(np.arange(0, 240, 8, np.uint8), (30, 1))  # brighter to the right, alike in each channel
    texture = propose.describe(np.stack([ramp] * 3, -1), np.zeros((30, 30), int)).texture.reshape(8, 3, 10) * 24
    right, down, left = texture[0], texture[2], texture[4]
    assert (right[:, 9] > 0.8).all()  # the steepest there is, nearly everywhere
    np.testing.assert_allclose(down[:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(left[:, 0], 1, atol=1e-6)


def test_histograms_sum_to_one(patches):
    found = propose.describe(*patches)
    for histograms in (found.colour, found.texture):
        np.testing.assert_allclose(histograms.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("segments", [np.zeros((3, 4), int), np.full((4, 4), 1), np.arange(16).reshape(4, 4) * 2])
def test_segments_that_don_t_fit_are_told(segments):
    with pytest.raises(ValueError, match="describe: segments of shape"):
        propose.describe(np.zeros((4, 4, 3), np.uint8), segments)


def after(segments, pairs):
    """Paint the regions that are left after these merges: labels from 0, and the numbers they have in `group`."""
    label = np.arange(segments.max() + 1)
    for new, (a, b) in enumerate(pairs, len(label)):
        label[(label == a) | (label == b)] = new
    numbers, painted = np.unique(label[segments], return_inverse=True)
    return painted.reshape(segments.shape), numbers


def test_a_merged_region_is_what_its_pixels_say(patches):
    image, segments = patches
    grouped = propose.group(image, segments)
    for merges in range(len(grouped.pairs) + 1):
        painted, numbers = after(segments, grouped.pairs[:merges])
        fresh = propose.describe(image, painted)
        assert len(numbers) == 12 - merges
        for name in ("sizes", "boxes", "colour", "texture"):
            np.testing.assert_allclose(getattr(grouped, name)[numbers], getattr(fresh, name), atol=1e-5, err_msg=name)


def slow_grouping(image, segments, similarities):
    """Group as the paper's algorithm 1 says, measuring pixels anew after each merge: how alike each pair was."""
    painted, values = segments.copy(), []
    while painted.max():
        found, area, best = propose.describe(image, painted), painted.size, (-1, 0, 0)
        touching = {
            tuple(sorted(p))
            for one, other in ((painted[1:], painted[:-1]), (painted[:, 1:], painted[:, :-1]))
            for p in zip(one.ravel().tolist(), other.ravel().tolist())
            if p[0] != p[1]
        }
        for a, b in touching:
            (ax, ay, ar, ad), (bx, by, br, bd) = found.boxes[[a, b]].tolist()
            together = (max(ar, br) - min(ax, bx)) * (max(ad, bd) - min(ay, by))
            sizes = np.sum(painted == a) + np.sum(painted == b)
            terms = {
                "colour": sum(map(min, found.colour[a], found.colour[b])),
                "size": 1 - sizes / area,
                "texture": sum(map(min, found.texture[a], found.texture[b])),
                "fill": 1 - (together - sizes) / area,
            }
            best = max(best, (sum(terms[name] for name in similarities), a, b))
        values.append(best[0])
        painted[painted == best[2]] = best[1]
        painted = np.unique(painted, return_inverse=True)[1].reshape(painted.shape)
    return values


SOME = [ALL, *((name,) for name in ALL), *itertools.combinations(ALL, 3)]


@pytest.mark.parametrize("similarities", SOME, ids="+".join)
def test_the_most_alike_neighbours_are_merged_first(patches, similarities):
    grouped = propose.group(*patches, similarities)
    np.testing.assert_allclose(grouped.alike, slow_grouping(*patches, similarities), atol=1e-4)


def test_each_similarity_that_is_switched_off_changes_the_order(patches):
    orders = {tuple(map(tuple, propose.group(*patches, s).pairs)) for s in SOME}
    assert len(orders) == len(SOME)


def test_each_later_box_is_the_smallest_around_its_two_parts(patches):
    grouped = propose.group(*patches)
    assert grouped.boxes.shape == (23, 4)
    assert sorted(grouped.pairs.ravel().tolist()) == list(range(22))  # each is merged once, but the last
    for box, size, (a, b) in zip(grouped.boxes[12:], grouped.sizes[12:], grouped.pairs):
        one, other = grouped.boxes[[a, b]]
        assert box.tolist() == [*np.minimum(one, other)[:2], *np.maximum(one, other)[2:]]
        assert size == grouped.sizes[a] + grouped.sizes[b]
    assert grouped.boxes[-1].tolist() == [0, 0, 40, 30]


def test_of_equally_similar_neighbours_the_first_are_merged_and_diagonal_regions_are_none():
    segments = np.array([[0, 1], [2, 3]])
    grouped = propose.group(np.full((2, 2, 3), 9, np.uint8), segments, ("colour",))
    assert grouped.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert propose.adjacent(segments).T.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_grouping_takes_the_bins_that_it_is_given(patches):
    image, segments = patches
    other = image[::-1].copy()
    grouped = propose.group(image, segments, bins=propose.pixel_bins(other))
    np.testing.assert_array_equal(grouped.pairs, propose.group(other, segments).pairs)
    assert grouped.pairs.tolist() != propose.group(image, segments).pairs.tolist()


def test_one_region_is_a_grouping_without_merges():
    grouped = propose.group(np.zeros((5, 6, 3), np.uint8), np.zeros((5, 6), int))
    assert grouped.boxes.tolist() == [[0, 0, 6, 5]] and grouped.pairs.shape == (0, 2)


# Selective search


def test_every_rectangle_is_proposed():
    for image, truth in zip(*rectangles(6, 96, seed=1)[:2]):
        found = propose.selective_search(image, scales=(150,))
        assert (boxes.iou(truth, found).max(1) > 0.9).all()


def test_proposals_are_the_boxes_of_the_groupings_each_once():
    image = rectangles(1, 64, seed=2)[0][0]
    found = propose.selective_search(image, scales=(100, 200), colour_spaces=("rgb",), min_size=20)
    first = [felzenszwalb(image, scale, sigma=0.8, min_size=20) for scale in (100, 200)]
    wanted = {tuple(box) for segments in first for box in propose.group(image, segments).boxes.tolist()}
    assert len(found) == len(wanted) and {tuple(box) for box in found.tolist()} == wanted
    assert found.dtype == np.float32


def test_the_same_seed_ranks_the_same_and_a_limit_cuts_the_tail_off():
    image = rectangles(1, 96, seed=3)[0][0]
    first, again, other = (propose.selective_search(image, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {*map(tuple, first.tolist())} == {*map(tuple, other.tolist())}
    np.testing.assert_array_equal(propose.selective_search(image, limit=7), first[:7])


def test_regions_made_late_rank_better():
    image = np.random.default_rng(0).integers(0, 255, (90, 90, 3)).astype(np.uint8)
    areas = np.mean(
        [boxes.area(propose.selective_search(image, scales=(20,), min_size=10, seed=s)[:20]).mean() for s in range(5)]
    )
    assert areas > 3 * boxes.area(propose.selective_search(image, scales=(20,), min_size=10)).mean()


def test_diversity_adds_proposals():
    image = rectangles(1, 96, seed=5)[0][0]
    one = propose.selective_search(image, scales=(50,), colour_spaces=("hsv",))
    assert len(one) < len(propose.selective_search(image, scales=(50, 150), colour_spaces=("hsv",)))
    assert len(one) < len(propose.selective_search(image, scales=(50,), colour_spaces=("hsv", "lab")))


def test_float_pictures_give_what_bytes_give():
    image = rectangles(1, 48, seed=6)[0][0]
    np.testing.assert_array_equal(propose.selective_search(image.astype(np.float32)), propose.selective_search(image))


@pytest.mark.parametrize(
    "options",
    [
        {"similarities": ()},
        {"similarities": "colour"},
        {"similarities": ("shape",)},
        {"colour_spaces": ("hsl",)},
        {"colour_spaces": ()},
    ],
)
def test_unknown_similarities_and_colour_spaces_are_told(options):
    with pytest.raises(ValueError, match=f"selective_search: {next(iter(options))}=.* some of"):
        propose.selective_search(np.zeros((9, 9, 3), np.uint8), **options)


def test_rcnn_can_be_reached_from_here_as_well():
    for name in ("rcnn", "warp", "examples", "crop_features", "train_rcnn", "detect", "VARIANCES"):
        assert getattr(propose, name) is getattr(rcnn, name)
