"""Boxes against pictures of them, Keras, TensorFlow, OpenCV, and the papers' formulas."""

import itertools
import subprocess
import sys

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st
from keras import ops

from cvlab import backend, boxes
from cvlab.engine import suppression

FORMS = ("xyxy", "xywh", "cxcywh")
WIDTH, HEIGHT = 23, 14  # of a picture that no swap of x and y leaves as it is


def arrays(side_x=WIDTH, side_y=HEIGHT, least=0, min_size=1, max_size=12):
    """Lists of boxes at whole pixels, whose areas are exact in float32, as (N, 4) float32."""

    def span(side):
        return st.integers(0, side - least).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + least, side)))

    box = st.tuples(span(side_x), span(side_y)).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))
    return st.lists(box, min_size=min_size, max_size=max_size).map(
        lambda found: np.array(found, np.float32).reshape(-1, 4)
    )


def given(*strategies):
    """Check a property on examples, however slow the machine is just now."""
    return lambda test: hypothesis.settings(deadline=None, max_examples=60)(hypothesis.given(*strategies)(test))


def scattered(count, seed=0, extent=(640, 320), sides=(8, 120)):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, extent, (count, 2))
    size = np.exp(random.uniform(*np.log(sides), (count, 2)))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def painted(box):
    """Paint an integer box into a picture: its pixels, by the definition of a box."""
    picture = np.zeros((HEIGHT, WIDTH), bool)
    x_min, y_min, x_max, y_max = box.astype(int)
    picture[y_min:y_max, x_min:x_max] = True
    return picture


def numpy_of(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


# Forms


def test_forms_of_one_box():
    box = {"xyxy": [10, 20, 40, 30], "xywh": [10, 20, 30, 10], "cxcywh": [25, 25, 30, 10]}
    for source, target in itertools.product(FORMS, FORMS):
        converted = boxes.convert([box[source]], source, target)
        np.testing.assert_array_equal(converted, [box[target]], err_msg=f"{source} to {target}")
        assert converted.dtype == np.float32


@pytest.mark.parametrize("names", [("xywh", "xyWH"), ("cxcywh", "center_xyWH")])
def test_forms_agree_with_keras(names):
    found, (ours, theirs) = scattered(50), names
    reference = keras.utils.bounding_boxes.convert_format(found, source="xyxy", target=theirs)
    np.testing.assert_allclose(boxes.convert(found, "xyxy", ours), numpy_of(reference), rtol=1e-6)


@given(arrays(), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_converting_there_and_back_changes_nothing(found, first, second):
    start = boxes.convert(found, "xyxy", first)
    np.testing.assert_array_equal(boxes.convert(boxes.convert(start, first, second), second, first), start)


@given(arrays())
def test_area_counts_the_pixels(found):
    np.testing.assert_array_equal(boxes.area(found), [painted(box).sum() for box in found])


def test_batches_convert_as_their_boxes_do():
    found = scattered(24)
    batch = boxes.convert(found.reshape(2, 3, 4, 4), "xyxy", "xywh")
    np.testing.assert_array_equal(batch.reshape(-1, 4), boxes.convert(found, "xyxy", "xywh"))


# Overlap


@given(arrays(), arrays())
def test_iou_counts_the_pixels_of_intersection_and_union(a, b):
    expected = np.zeros((len(a), len(b)))
    for i, j in np.ndindex(expected.shape):
        first, second = painted(a[i]), painted(b[j])
        expected[i, j] = (first & second).sum() / max((first | second).sum(), 1)
    measured = boxes.iou(a, b)
    np.testing.assert_allclose(measured, expected, rtol=1e-6, atol=0)
    assert measured.dtype == np.float32


def test_iou_agrees_with_keras():
    a, b = scattered(300), scattered(200, seed=1)
    reference = numpy_of(keras.utils.bounding_boxes.compute_iou(a, b, "xyxy"))
    assert (reference > 0).mean() > 0.02
    np.testing.assert_allclose(boxes.iou(a, b), reference, atol=2e-6)


@pytest.mark.contract
@pytest.mark.parametrize("shape", [(1000, 1100), (2049, 1000), (2100, 2050)])
def test_compiled_tiles_agree_with_numpy(shape):
    a, b = scattered(shape[0]), scattered(shape[1], seed=1)
    a[7] = b[5]
    a[11, 2] = a[11, 0]
    for measure in (boxes.iou, boxes.giou):
        whole = measure(a, b)
        piecewise = np.concatenate([measure(part, b) for part in np.array_split(a, 4)])
        np.testing.assert_allclose(whole, piecewise, atol=1e-6)
        assert whole.shape == shape and whole.max() <= 1 and whole[7, 5] == pytest.approx(1)
        assert whole.flags.writeable and whole.flags.c_contiguous


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (500, 3), (3, 500), (130, 700), (5, 70_000)])
def test_every_shape_is_measured_pair_by_pair(shape):
    a, b = scattered(shape[0]), scattered(shape[1], seed=1)
    for pairwise, paired in ((boxes.iou, boxes.paired_iou), (boxes.giou, boxes.paired_giou)):
        matrix = pairwise(a, b)
        assert matrix.shape == shape
        repeated = np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))
        np.testing.assert_array_equal(matrix.ravel(), paired(*repeated))


@given(arrays(), arrays())
def test_overlap_is_symmetric_and_within_its_range(a, b):
    overlap, generalized = boxes.iou(a, b), boxes.giou(a, b)
    np.testing.assert_array_equal(overlap, boxes.iou(b, a).T)
    np.testing.assert_array_equal(generalized, boxes.giou(b, a).T)
    assert (overlap >= 0).all() and (overlap <= 1).all()
    assert (generalized >= -1).all() and (generalized <= overlap).all()


@given(arrays(least=1), arrays(least=1))
def test_iou_is_one_for_equal_boxes_and_for_no_others(a, b):
    b[0] = a[0]
    equal = (a[:, None] == b).all(axis=-1)
    np.testing.assert_array_equal(boxes.iou(a, b) == 1, equal)
    np.testing.assert_array_equal(boxes.giou(a, b) == 1, equal)


@given(arrays(), arrays(), st.integers(-500, 500), st.integers(-500, 500), st.sampled_from([0.25, 2, 64]))
def test_overlap_does_not_depend_on_where_or_how_large(a, b, right, down, factor):
    for measure in (boxes.iou, boxes.giou):
        shift = np.array([right, down, right, down], np.float32)
        np.testing.assert_array_equal(measure((a + shift) * factor, (b + shift) * factor), measure(a, b))


@given(arrays(), arrays())
def test_overlap_is_the_same_in_a_mirror(a, b):
    def mirrored(found, axis, length):
        found = found.copy()
        found[:, [axis, axis + 2]] = length - found[:, [axis + 2, axis]]
        return found

    for measure, (axis, length) in itertools.product((boxes.iou, boxes.giou), ((0, WIDTH), (1, HEIGHT))):
        np.testing.assert_array_equal(measure(mirrored(a, axis, length), mirrored(b, axis, length)), measure(a, b))


def test_boxes_apart_along_both_axes_do_not_overlap():
    assert boxes.iou([[0, 0, 10, 10]], [[20, 30, 25, 35]])[0, 0] == 0  # two negative sides have a positive product


def test_touching_boxes_do_not_overlap():
    assert not boxes.iou([[0, 0, 10, 10]], [[10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]]).any()


def test_boxes_without_area_overlap_nothing_not_even_themselves():
    flat = [[5, 5, 5, 5], [0, 5, 10, 5], [5, 0, 5, 10]]
    np.testing.assert_array_equal(boxes.iou(flat, [*flat, [0, 0, 10, 10]]), np.zeros((3, 4)))
    np.testing.assert_array_equal(np.diag(boxes.giou(flat, flat)), np.zeros(3))


@pytest.mark.parametrize(
    ("case", "a", "b", "expected"),
    [  # by hand, from the paper's formula: I / U − (C − U) / C
        ("identical", [0, 0, 4, 2], [0, 0, 4, 2], 1),
        ("nested", [0, 0, 8, 4], [2, 1, 6, 3], 8 / 32),
        ("overlapping", [0, 0, 4, 2], [2, 1, 6, 4], 2 / 18 - (24 - 18) / 24),
        ("side by side", [0, 0, 4, 2], [4, 0, 6, 2], 0),
        ("touching at a corner", [0, 0, 4, 2], [4, 2, 8, 4], -(32 - 16) / 32),
        ("apart along x", [0, 0, 2, 2], [6, 0, 8, 2], -(16 - 8) / 16),
        ("apart along both", [0, 0, 2, 1], [8, 3, 10, 5], -(50 - 6) / 50),
        ("a point and a box", [3, 1, 3, 1], [0, 0, 4, 2], 0),
        ("two points", [0, 0, 0, 0], [4, 2, 4, 2], -1),
    ],
)
def test_giou_by_hand(case, a, b, expected):
    assert boxes.giou([a], [b])[0, 0] == pytest.approx(expected, abs=1e-6), case
    assert boxes.paired_giou([a], [b])[0] == pytest.approx(expected, abs=1e-6), case


def test_giou_of_disjoint_boxes_falls_with_their_distance():
    distances = np.arange(20, 200, 10)
    away = np.stack([distances, 0 * distances, distances + 10, 0 * distances + 10], axis=1)
    generalized = boxes.giou([[0, 0, 10, 10]], away)[0]
    assert (np.diff(generalized) < 0).all() and (generalized < 0).all() and (generalized > -1).all()


PAIRED = (boxes.paired_iou, boxes.paired_giou, boxes.paired_diou, boxes.paired_ciou)


def test_diou_by_hand():
    """IoU 4 / 20; the centres are (2, 1) apart, the hull is 6×4."""
    assert boxes.paired_diou([[0, 0, 4, 3]], [[2, 1, 6, 4]])[0] == pytest.approx(0.2 - 5 / 52, abs=1e-6)
    assert boxes.paired_diou([[0, 0, 1, 1]], [[3, 0, 4, 1]])[0] == pytest.approx(-9 / 17, abs=1e-6)


def test_ciou_is_diou_for_boxes_of_one_shape_and_less_for_others():
    small, large = np.array([[0, 0, 2, 1]]), np.array([[0, 0, 8, 4]])
    np.testing.assert_allclose(boxes.paired_ciou(small, large), boxes.paired_diou(small, large), atol=1e-6)
    tall = [[0, 0, 4, 8]]  # IoU 16 / 48, centres 8 apart squared, hull 8×8
    v = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    wanted = 1 / 3 - 8 / 128 - v * v / (1 - 1 / 3 + v)
    assert boxes.paired_ciou(large, tall)[0] == pytest.approx(wanted, abs=1e-6)


def test_all_paired_measures_are_one_for_equal_boxes():
    found = scattered(40)
    for measure in PAIRED:
        np.testing.assert_allclose(measure(found, found), 1, atol=1e-5)


@pytest.mark.contract
@given(arrays())
def test_tensors_are_measured_as_arrays_are(found):
    other = found[::-1].copy()
    a, b = ops.convert_to_tensor(found), ops.convert_to_tensor(other)
    for measure in (boxes.iou, boxes.giou, *PAIRED):
        result = measure(a, b)
        assert not isinstance(result, np.ndarray)
        np.testing.assert_allclose(numpy_of(result), measure(found, other), atol=1e-6)
    np.testing.assert_array_equal(numpy_of(boxes.convert(a, "xyxy", "xywh")), boxes.convert(found, "xyxy", "xywh"))


@pytest.mark.contract
def test_paired_overlap_compiles():
    a, b = scattered(40), scattered(40, seed=1)
    compiled = backend.jit(boxes.paired_giou)(ops.convert_to_tensor(a), ops.convert_to_tensor(b))
    np.testing.assert_allclose(numpy_of(compiled), boxes.paired_giou(a, b), atol=1e-6)


def gradient(measure, predicted, true):
    true = ops.convert_to_tensor(np.array(true, np.float32))
    _, found = backend.value_and_grad(lambda x: ops.sum(measure(x, true)))(np.array(predicted, np.float32))
    return numpy_of(found)


@pytest.mark.contract
def test_giou_has_a_gradient_where_iou_has_none():
    apart, true = [[0, 0, 10, 10]], [[30, 40, 50, 60]]
    assert not gradient(boxes.paired_iou, apart, true).any()
    towards = gradient(boxes.paired_giou, apart, true)[0]
    assert towards[2] > 0 and towards[3] > 0


@pytest.mark.contract
def test_gradients_agree_with_central_differences():
    a, b = np.array([[10, 20, 60, 50], [0, 0, 30, 30]]), np.array([[20, 10, 90, 45], [50, 20, 70, 60]])
    for measure in (boxes.paired_iou, boxes.paired_giou, boxes.paired_diou):
        found = gradient(measure, a, b)
        for index in np.ndindex(found.shape):
            step = np.zeros(found.shape)
            step[index] = 0.25
            difference = (measure(a + step, b).sum() - measure(a - step, b).sum()) / 0.5
            assert found[index] == pytest.approx(difference, abs=2e-5)


@pytest.mark.contract
def test_gradients_of_boxes_without_area_are_finite():
    flat, true = [[5, 5, 5, 5], [0, 0, 0, 9], [5, 5, 5, 5]], [[5, 5, 5, 5], [0, 0, 0, 9], [0, 0, 10, 10]]
    for measure, predicted in itertools.product(PAIRED, (flat, true)):
        assert np.isfinite(gradient(measure, predicted, flat if predicted is true else true)).all()
        assert np.isfinite(gradient(measure, predicted, predicted)).all()


# Suppression


def greedy(found, scores, threshold, limit=None):
    """Suppress by the book, one box after the other, in whole numbers: no rounding."""
    kept = []
    for index in sorted(range(len(found)), key=lambda i: (-scores[i], i)):
        a = found[index].astype(int)
        for b in found[kept].astype(int):
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if shared > threshold * union:
                break
        else:
            kept.append(index)
    return kept[:limit]


@given(st.data(), arrays(max_size=40), st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.sampled_from([None, 0, 1, 3, 100]))
def test_nms_keeps_what_the_definition_keeps(data, found, threshold, limit):
    score = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 3.0, np.inf])  # few, so that many are equal
    scores = data.draw(st.lists(score, min_size=len(found), max_size=len(found)))
    kept = boxes.nms(found, scores, threshold, limit)
    assert kept.tolist() == greedy(found, scores, threshold, limit)
    assert kept.dtype == np.int64


CROWDS = {
    "small and scattered": scattered(3000, sides=(2, 10)),
    "of all sizes": scattered(3000, sides=(2, 300)),
    "around few objects": scattered(40)[np.arange(3000) % 40]
    + np.random.default_rng(2).integers(-6, 7, (3000, 4)).astype(np.float32) * [1, 1, 0, 0],
    "one, three thousand times": np.tile(scattered(1), (3000, 1)),
    "side by side": np.array([[x, y, x + 3, y + 2] for x in range(0, 150, 3) for y in range(0, 120, 2)], np.float32),
    "flat": scattered(3000) * np.float32([1, 0, 1, 0]),
}


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("threshold", [0, 0.1, 0.5, 0.9, 1])
def test_nms_agrees_with_tensorflow(crowd, threshold):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow is not the backend")
    import tensorflow as tf

    found = CROWDS[crowd].astype(np.float32)
    scores = np.random.default_rng(3).random(len(found)).round(3).astype(np.float32)  # with ties
    for limit in (len(found), 100):
        reference = tf.image.non_max_suppression(found, scores, limit, float(threshold)).numpy()
        np.testing.assert_array_equal(boxes.nms(found, scores, threshold, limit), reference)


@pytest.mark.parametrize("crowd", ["small and scattered", "of all sizes", "around few objects"])
def test_nms_agrees_with_opencv(crowd):
    import cv2

    found = np.round(CROWDS[crowd])
    scores = np.random.default_rng(3).permutation(len(found)) + 1.0  # OpenCV drops a score of 0
    corners_and_sizes = np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], axis=1)
    reference = cv2.dnn.NMSBoxes(corners_and_sizes.astype(int).tolist(), scores.tolist(), 0.0, 0.45)
    np.testing.assert_array_equal(boxes.nms(found, scores, 0.45), np.ravel(reference))


@given(st.data(), arrays(max_size=60), st.floats(0, 1, width=32))
def test_opencv_suppresses_a_few_boxes_as_the_plain_loop_does_or_declines(data, found, threshold):
    solid = found[(found[:, 2:] > found[:, :2]).all(axis=1)]
    kept = suppression.by_opencv(solid, threshold) if len(solid) else None
    assert kept is None or kept.tolist() == greedy(solid, np.zeros(len(solid)), threshold)


def test_opencv_is_asked_for_a_few_boxes_and_not_for_many(monkeypatch):
    asked, found = [], scattered(suppression.FEW + 1, sides=(10, 40)).astype(np.float32)
    monkeypatch.setattr(suppression, "by_opencv", lambda given, _: asked.append(len(given)))
    for given in (found, found[:-1]):
        suppression.greedy(given, 0.5, boxes._iou)
    assert asked == [suppression.FEW]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("step", [0, 4])
def test_opencv_and_groups_keep_the_same_of_random_boxes(monkeypatch, threshold, step):
    generator, few, opencv = np.random.default_rng(5), suppression.FEW, 0
    for count in (2, 9, few // 2, few, few):
        found = scattered(count, seed=count, extent=(200, 150), sides=(10, 80))
        if step:  # many IoUs are equal, and some equal the threshold
            found = np.round(found / step) * step + np.float32([0, 0, step, step])
        scores = generator.random(count).round(2 if step else 9)
        kept = boxes.nms(found, scores, threshold)
        opencv += suppression.by_opencv(found[suppression.by_score(np.float32(scores))], threshold) is not None
        with monkeypatch.context() as patch:
            patch.setattr(suppression, "FEW", 0)
            np.testing.assert_array_equal(kept, boxes.nms(found, scores, threshold))
    assert opencv >= (1 if step else 5)


def test_opencv_declines_where_its_rounding_decides():
    tenth = np.float32([[0, 0, 10, 1], [0, 0, 1, 1]])  # an IoU of 0.1, which OpenCV computes as 1 - 0.9
    assert suppression.by_opencv(tenth, 0.1) is None
    assert boxes.nms(tenth, [0.9, 0.8], 0.1).tolist() == [0, 1]
    assert suppression.by_opencv(tenth, 0.11).tolist() == [0, 1]
    assert suppression.by_opencv(tenth, 0.09).tolist() == [0]


def test_nms_keeps_a_box_at_the_threshold_and_drops_it_above():
    halves = [[0, 0, 4, 4], [0, 0, 4, 2]]  # IoU 1/2
    assert boxes.nms(halves, [0.9, 0.8], 0.5).tolist() == [0, 1]
    assert boxes.nms(halves, [0.9, 0.8], np.nextafter(0.5, 0, dtype=np.float32)).tolist() == [0]


def test_nms_compares_in_float32_whatever_number_the_threshold_is():
    boxes_of_iou_a_fifth = [[0, 0, 5, 1], [0, 0, 1, 1]]  # 1/5 in float32 is above 1/5 in float64
    for number in (0.2, np.float64(0.2), np.float32(0.2)):
        assert boxes.nms(boxes_of_iou_a_fifth, [0.9, 0.8], number).tolist() == [0, 1]


def test_nms_takes_the_earlier_of_equal_scores():
    same = np.tile([[0, 0, 4, 4]], (5, 1))
    assert boxes.nms(same, [0.5, 0.7, 0.7, 0.7 + 1e-12, 0.1]).tolist() == [1]


def test_a_chain_is_suppressed_by_kept_boxes_only():
    chain = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]  # neighbours overlap by 3/7, ends by 1/9
    assert boxes.nms(chain, [0.9, 0.8, 0.7], 0.4).tolist() == [0, 2]


@given(st.data(), arrays(min_size=0, max_size=30))
def test_labels_keep_classes_apart(data, found):
    size = {"min_size": len(found), "max_size": len(found)}
    labels = np.array(data.draw(st.lists(st.integers(0, 3), **size)), int)
    scores = np.array(data.draw(st.lists(st.integers(0, 9), **size)), np.float32)
    apart = found + 1000 * labels[:, None].astype(np.float32)
    for limit in (None, 4):
        expected = greedy(apart, scores, 0.3, limit)
        assert boxes.nms(found, scores, 0.3, limit, labels=labels).tolist() == expected


def test_nms_of_no_boxes_keeps_none():
    for labels in (None, []):
        kept = boxes.nms([], [], labels=labels)
        assert kept.shape == (0,) and kept.dtype == np.int64


# Anchors


def test_anchors_of_a_cell_are_the_papers_nine():
    nine = boxes.anchors(8, strides=[8], sizes=[32])
    assert nine.shape == (9, 4) and nine.dtype == np.float32
    sizes = nine[:, 2:] - nine[:, :2]
    np.testing.assert_allclose((nine[:, :2] + nine[:, 2:]) / 2, 4, atol=1e-5)
    expected = [  # width, height: ratios 1:2, 1:1, 2:1 (height to width), each at 32, 32·2^⅓ = 40.3, 32·2^⅔ = 50.8
        [45.2548, 22.6274],
        [57.0175, 28.5088],
        [71.8376, 35.9188],
        [32.0, 32.0],
        [40.3175, 40.3175],
        [50.7968, 50.7968],
        [22.6274, 45.2548],
        [28.5088, 57.0175],
        [35.9188, 71.8376],
    ]
    np.testing.assert_allclose(sizes, expected, atol=1e-3)


def test_anchors_stand_by_level_then_row_then_column():
    grid = boxes.anchors((20, 50), strides=[10, 20], sizes=[4, 8], ratios=[1], scales=[1])
    centres = ((grid[:, :2] + grid[:, 2:]) / 2).tolist()
    fine = [[x, y] for y in (5, 15) for x in (5, 15, 25, 35, 45)]
    assert centres == [*fine, [10, 10], [30, 10], [50, 10]]
    assert (boxes.area(grid) == [16] * 10 + [64] * 3).all()


def test_anchors_of_the_papers_pyramid_are_as_many_as_its_feature_maps_have_cells():
    levels = boxes.anchors((600, 1000), by_level=True)
    cells = [75 * 125, 38 * 63, 19 * 32, 10 * 16, 5 * 8]  # five times halved, rounded up
    assert [len(level) for level in levels] == [9 * count for count in cells]
    np.testing.assert_array_equal(np.concatenate(levels), boxes.anchors((600, 1000)))


def test_anchors_of_a_feature_map_are_centred_on_its_cells():
    feature_map = np.arange(3 * 5 * 2).reshape(3, 5, 2)  # rows, columns, anchors a cell
    laid_out = boxes.anchors((30, 50), [10], [8], ratios=[1, 4], scales=[1]).reshape(3, 5, 2, 4)
    row, column, kind = np.argwhere(feature_map == 17)[0]
    x_min, y_min, x_max, y_max = laid_out[row, column, kind]
    assert ((x_min + x_max) / 2, (y_min + y_max) / 2) == ((column + 0.5) * 10, (row + 0.5) * 10)
    assert (y_max - y_min) / (x_max - x_min) == pytest.approx([1, 4][kind])


# Offsets


def test_offsets_by_hand():
    anchor, box = [[0, 0, 10, 20]], [[5, 10, 25, 20]]
    np.testing.assert_allclose(boxes.encode(box, anchor), [[1, 0.25, np.log(2), -np.log(2)]], rtol=1e-6)
    scaled = boxes.encode(box, anchor, (0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(scaled, [[10, 2.5, 5 * np.log(2), -5 * np.log(2)]], rtol=1e-6)
    np.testing.assert_allclose(boxes.decode(scaled, anchor, (0.1, 0.1, 0.2, 0.2)), box, rtol=1e-6)


def test_offsets_agree_with_keras():
    anchors, found = scattered(60), scattered(60, seed=1)
    reference = numpy_of(keras.utils.bounding_boxes.encode_box_to_deltas(anchors, found, "xyxy", "xyxy", "center_xywh"))
    np.testing.assert_allclose(boxes.encode(found, anchors), reference, rtol=1e-4, atol=1e-5)


@given(arrays(least=1), st.sampled_from([(1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2)]))
@example(np.float32([[0, 0, 1, 1], [0, 0, 23, 14]]), (1, 1, 1, 1))
def test_decoding_undoes_encoding(found, variances):
    anchors = found[::-1] + np.float32([3.5, -2, 9.25, 1])
    restored = boxes.decode(boxes.encode(found, anchors, variances), anchors, variances)
    np.testing.assert_allclose(restored, found, atol=1e-4)


def test_offsets_of_zero_are_the_anchor_and_wild_ones_stay_finite():
    anchor = scattered(5)
    np.testing.assert_allclose(boxes.decode(np.zeros((5, 4)), anchor), anchor, atol=1e-4)
    wild = boxes.decode(np.tile([0, 0, 1000, 1000], (5, 1)), anchor)
    np.testing.assert_allclose((wild[:, 2:] - wild[:, :2]) / (anchor[:, 2:] - anchor[:, :2]), 62.5, rtol=1e-4)


@pytest.mark.contract
def test_tensors_are_decoded_as_arrays_are():
    anchor, deltas = scattered(30), np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    decoded = boxes.decode(ops.convert_to_tensor(deltas), anchor)
    np.testing.assert_allclose(
        numpy_of(decoded), boxes.decode(deltas, np.tile(anchor, (2, 1, 1))), rtol=1e-4, atol=1e-3
    )


# What isn't a box


BAD = {
    r"\[1\] = \[30, 5, 20, 9\] has x_max < x_min; expected \[x_min, y_min, x_max, y_max\]": [
        [0, 0, 1, 1],
        [30, 5, 20, 9],
    ],
    r"\[0\] = \[0, 9, 20, 5\] has y_max < y_min": [[0, 9, 20, 5]],
    r"\[2\] = \[0, 0, nan, 5\] has a value that is not finite": [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, np.nan, 5]],
    r"\[0\] = \[-inf, 0, inf, 5\] has a value that is not finite": [[-np.inf, 0, np.inf, 5]],
    r" has shape \(3, 5\), expected \(N, 4\)": np.zeros((3, 5)),
    r" has shape \(4,\), expected \(N, 4\)": [0, 0, 1, 1],
    r" has shape \(1, 2, 4\), expected \(N, 4\)": np.zeros((1, 2, 4)),
    r" cannot be read as numbers": [["a", "b", "c", "d"]],
    r" cannot be read as numbers: .*": [[0, 0, 1, 1], [0, 0, 1]],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("message", BAD)
def test_a_bad_box_is_named_with_its_place_and_values(message):
    good = [[0, 0, 1, 1]]
    calls = {
        "iou: a": lambda bad: boxes.iou(bad, good),
        "iou: b": lambda bad: boxes.iou(good, bad),
        "giou: a": lambda bad: boxes.giou(bad, good),
        "nms: boxes": lambda bad: boxes.nms(bad, [1.0]),
    }
    for argument, call in calls.items():
        with pytest.raises(ValueError, match=rf"^boxes\.{argument}{message}") as caught:
            call(BAD[message])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            "convert: source is 'yxyx', expected one of 'xyxy', 'xywh', 'cx",
            lambda: boxes.convert([], "yxyx", "xywh"),
        ),
        ("convert: target is 'rel'", lambda: boxes.convert([], "xyxy", "rel")),
        (
            r"convert: boxes\[0\] = \[5, 5, -2, 3\] has width < 0",
            lambda: boxes.convert([[5, 5, -2, 3]], "xywh", "xywh"),
        ),
        (
            r"convert: boxes\[1, 0\] = \[2, 0, 1, 1\]",
            lambda: boxes.convert([[[0] * 4], [[2, 0, 1, 1]]], "xyxy", "xywh"),
        ),
        (r"convert: boxes = \[2, 0, 1, 1\] has x_max", lambda: boxes.convert([2, 0, 1, 1], "xyxy", "xywh")),
        (r"area: boxes has shape \(3,\), expected \(\.\.\., 4\)", lambda: boxes.area([1, 2, 3])),
        (
            r"paired_iou: a has shape \(2, 4\) but b \(3, 4\)",
            lambda: boxes.paired_iou(np.zeros((2, 4)), np.zeros((3, 4))),
        ),
        (r"nms: scores has shape \(1,\), expected \(2,\)", lambda: boxes.nms(np.zeros((2, 4)), [1.0])),
        (
            r"nms: labels has shape \(3,\), expected \(1,\)",
            lambda: boxes.nms(np.zeros((1, 4)), [1.0], labels=[1, 2, 3]),
        ),
        (r"nms: scores\[1\] is NaN", lambda: boxes.nms(np.zeros((2, 4)), [1.0, np.nan])),
        ("nms: iou_threshold is 50, expected a number from 0 to 1", lambda: boxes.nms([], [], 50)),
        ("nms: iou_threshold is nan", lambda: boxes.nms([], [], np.nan)),
        ("nms: max_boxes is -1", lambda: boxes.nms([], [], max_boxes=-1)),
        (r"encode: boxes\[0\] = \[1, 1, 1, 2\] has no area", lambda: boxes.encode([[1, 1, 1, 2]], [[0, 0, 1, 1]])),
        (r"encode: anchors\[0\] = \[1, 1, 2, 1\] has no area", lambda: boxes.encode([[0, 0, 1, 1]], [[1, 1, 2, 1]])),
        (r"decode: deltas\[0\] = \[nan, 0, 0, 0\]", lambda: boxes.decode([[np.nan, 0, 0, 0]], [[0, 0, 1, 1]])),
        ("anchors: 5 strides but 2 sizes", lambda: boxes.anchors(64, sizes=[8, 16])),
        (r"anchors: sizes is \[8, 0\]", lambda: boxes.anchors(64, strides=[4, 8], sizes=[8, 0])),
        (r"anchors: image_size is \(0, 64\)", lambda: boxes.anchors((0, 64))),
        (r"anchors: ratios is \[\], expected positive", lambda: boxes.anchors(64, ratios=[])),
    ],
)
def test_a_bad_argument_is_named(message, call):
    with pytest.raises(ValueError, match="^boxes." + message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_tensors_shape_is_checked():
    with pytest.raises(ValueError, match=r"^boxes\.paired_iou: b has shape \(2, 5\)"):
        boxes.paired_iou(ops.zeros((2, 4)), ops.zeros((2, 5)))


@given(arrays())
def test_integers_are_boxes_too_and_inputs_stay_as_they_are(found):
    whole = found.astype(np.int64)
    before = whole.copy()
    np.testing.assert_array_equal(boxes.iou(whole, whole.tolist()), boxes.iou(found, found))
    assert boxes.nms(whole, np.arange(len(whole))).tolist() == boxes.nms(found, np.arange(len(whole))).tolist()
    np.testing.assert_array_equal(whole, before)
    assert boxes.convert(whole, "xyxy", "xywh").dtype == np.float32


def test_boxes_work_without_a_backend():
    code = """if True:
        import sys
        import numpy as np
        from cvlab import boxes
        ones = np.tile([[0, 0, 2, 1]], (1100, 1))
        assert (boxes.iou(ones, ones) == 1).all() and boxes.nms(ones, np.ones(1100)).tolist() == [0]
        loaded = {"keras", "tensorflow", "jax", "torch", "cv2", "matplotlib"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_giou_equals_the_published_formula_on_ten_thousand_pairs():
    generator = np.random.default_rng(0)
    # Whole pixels, whose areas float32 holds exactly: what is compared is the formula, not rounding
    corner, side = generator.integers(-50, 150, (2, 10_000, 2)), 6 * generator.integers(0, 14, (2, 10_000, 2))
    a, b = np.concatenate([corner, corner + side], axis=-1).astype(np.float32)
    b[:1000] = a[:1000]  # identical
    b[1000:2000] = a[1000:2000] + (a[1000:2000, 2:3] - a[1000:2000, :1]) * np.float32([1, 0, 1, 0])  # touching
    middle, half = (a[2000:3000, :2] + a[2000:3000, 2:]) / 2, (a[2000:3000, 2:] - a[2000:3000, :2]) / 6
    b[2000:3000] = np.concatenate([middle - half, middle + half], axis=-1)  # nested
    a[3000:3500, 2] = a[3000:3500, 0]  # without width
    b[3250:3750, 2:] = b[3250:3750, :2]  # points
    b[3400:3450] = a[3400:3450] = np.repeat(a[3400:3450, :2], 2, axis=0).reshape(50, 4)  # the same point
    p, q = a.astype(np.float64), b.astype(np.float64)
    area = lambda box: (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])  # noqa: E731
    shared = np.concatenate([np.maximum(p[:, :2], q[:, :2]), np.minimum(p[:, 2:], q[:, 2:])], axis=-1)
    intersection = np.where((shared[:, :2] < shared[:, 2:]).all(1), area(shared), 0)
    union = area(p) + area(q) - intersection
    hull = area(np.concatenate([np.minimum(p[:, :2], q[:, :2]), np.maximum(p[:, 2:], q[:, 2:])], axis=-1))
    iou = np.divide(intersection, union, out=np.zeros(10_000), where=union > 0)
    published = iou - np.divide(hull - union, hull, out=np.zeros(10_000), where=hull > 0)
    np.testing.assert_allclose(boxes.paired_giou(a, b), published, atol=1e-6)
    pairs = [boxes.giou(a[i : i + 500], b[i : i + 500]).diagonal() for i in range(0, 10_000, 500)]
    np.testing.assert_allclose(np.concatenate(pairs), published, atol=1e-6)


@pytest.mark.contract
def test_the_weight_of_ciou_counts_as_a_constant_in_its_gradient():
    true, predicted = np.float32([[10, 10, 50, 30]]), np.float32([[14, 8, 40, 44]])

    def shape_term(box):
        width, height = (box[..., 2:] - box[..., :2]).T
        return 4 / np.pi**2 * (np.arctan2(40, 20) - np.arctan2(width, height)) ** 2

    def with_constant_weight(box):
        return boxes.paired_diou(true, box) - weight * shape_term(box)

    iou, term = boxes.paired_iou(true, predicted), shape_term(predicted)
    weight = term / (1 - iou + term)
    _, gradient = backend.value_and_grad(lambda box: keras.ops.sum(boxes.paired_ciou(true, box)))(
        keras.ops.convert_to_tensor(predicted)
    )
    step = 0.25 * np.eye(4, dtype="float32")
    slopes = [(with_constant_weight(predicted + s) - with_constant_weight(predicted - s)).item() / 0.5 for s in step]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gradient)[0], slopes, rtol=0.02, atol=2e-5)
