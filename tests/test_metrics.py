"""Scores against numbers worked out by hand, and against average precision written out anew."""

import contextlib
import io
import math

import numpy as np
import pytest

from cvlab import boxes, metrics

A, B = [0, 0, 100, 50], [200, 0, 300, 100]  # two objects, far from each other


def scores_of(true, found, **options):
    """Score one list of pictures: for each, true (box, label) pairs and found (box, label, score) triples."""
    return metrics.detection_scores(
        [[box for box, _ in image] for image in true],
        [[label for _, label in image] for image in true],
        [[box for box, _, _ in image] for image in found],
        [[label for _, label, _ in image] for image in found],
        [[score for _, _, score in image] for image in found],
        **options,
    )


def crowd(seed, pictures=60, classes=3):
    """Draw pictures of objects, some found well, some badly, some twice, some as another class, some made up."""
    random = np.random.default_rng(seed)
    true, found = [], []
    for _ in range(pictures):
        corner = random.uniform(0, 100, (random.integers(0, 5), 2))
        objects = np.concatenate([corner, corner + random.uniform(20, 60, corner.shape)], axis=1)
        true.append([(box, random.integers(classes)) for box in objects])
        found.append([])
        for box, label in true[-1]:
            for _ in range(random.integers(0, 3)):
                guess = label if random.random() < 0.8 else random.integers(classes)
                found[-1].append((box + random.uniform(-8, 8, 4), guess, random.random()))
        for _ in range(random.integers(0, 3)):
            found[-1].append(([0, 0, *random.uniform(20, 150, 2)], random.integers(classes), random.random()))
    return true, found


def average_precision(true, found, label, threshold):
    """Write out COCO's definition: greedy matching by score, precision made monotone, mean over 101 recalls."""
    hits, total = [], sum(kind == label for image in true for _, kind in image)
    for objects, detections in zip(true, found):
        left = [box for box, kind in objects if kind == label]
        for box, _, score in sorted((d for d in detections if d[1] == label), key=lambda d: -d[2]):
            overlaps = [boxes.iou([box], [other])[0, 0] for other in left]
            hit = bool(overlaps) and max(overlaps) >= threshold
            if hit:
                left.pop(int(np.argmax(overlaps)))
            hits.append((score, hit))
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])])
    precision, recall = right / np.arange(1, len(right) + 1), right / total
    return np.mean([precision[recall >= level].max(initial=0) for level in np.linspace(0, 1, 101)])


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_follows_its_definition(seed):
    true, found = crowd(seed)
    result = scores_of(true, found)
    thresholds = np.arange(0.5, 1, 0.05)
    table = np.array([[average_precision(true, found, label, t) for label in range(3)] for t in thresholds])
    assert (np.diff(table.mean(axis=1)[:8]) < 0).all()  # these pictures tell the thresholds apart
    assert result["AP"] == pytest.approx(table.mean(), abs=1e-9)
    assert result["AP50"] == pytest.approx(table[0].mean(), abs=1e-9)
    assert result["AP75"] == pytest.approx(table[5].mean(), abs=1e-9)
    assert list(result["AP50_by_class"].values()) == pytest.approx(table[0], abs=1e-9)


def test_perfect_detections_score_one():
    true = [[(A, 0), (B, 1)], [], [(B, 0)]]
    result = scores_of(
        true, [[(box, label, 0.7) for box, label in image] for image in true], class_names=["cat", "dog"]
    )
    assert [result["AP"], result["AP50"], result["AP75"]] == pytest.approx([1, 1, 1])
    assert result["AP50_by_class"] == pytest.approx({"cat": 1, "dog": 1})


def test_the_first_object_of_the_first_picture_counts():
    assert scores_of([[(A, 0)]], [[(A, 0, 0.5)]])["AP50"] == pytest.approx(1)  # COCO's evaluator overlooks number 0


def test_a_box_of_iou_072_is_right_at_five_of_the_ten_thresholds():
    result = scores_of([[(A, 0)]], [[([0, 0, 72, 50], 0, 0.9)]])
    assert [result["AP"], result["AP50"], result["AP75"]] == pytest.approx([0.5, 1, 0])


def test_finding_an_object_twice_costs_precision():
    twice = scores_of([[(A, 0), (B, 0)]], [[(A, 0, 0.9), (A, 0, 0.8), (B, 0, 0.7)]])
    expected = (51 * 1 + 50 * 2 / 3) / 101  # precision 1 up to recall 1/2, then 2 right of 3
    assert twice["AP50"] == pytest.approx(expected)


def test_surer_mistakes_cost_more():
    mistake_last = scores_of([[(A, 0)]], [[(A, 0, 0.9), (B, 0, 0.8)]])
    mistake_first = scores_of([[(A, 0)]], [[(A, 0, 0.8), (B, 0, 0.9)]])
    assert (mistake_last["AP50"], mistake_first["AP50"]) == pytest.approx((1, 0.5))


def test_the_right_box_with_the_wrong_class_or_in_the_wrong_picture_is_wrong():
    assert scores_of([[(A, 0)]], [[(A, 1, 0.9)]])["AP50"] == 0
    assert scores_of([[(A, 0)], []], [[], [(A, 0, 0.9)]])["AP50"] == 0


def test_order_of_detections_does_not_matter():
    true, found = crowd(7)
    assert scores_of(true, [image[::-1] for image in found]) == scores_of(true, found)


def test_only_the_best_detections_of_a_picture_count():
    found = [[(B, 0, 0.9), (A, 0, 0.5)]]
    assert scores_of([[(A, 0)]], found, max_boxes=2)["AP50"] == pytest.approx(0.5)
    assert scores_of([[(A, 0)]], found, max_boxes=1)["AP50"] == 0


def test_missing_everything_scores_zero():
    result = scores_of([[(A, 0)], [(B, 1)]], [[], []], class_names=["cat", "dog"])
    assert [result["AP"], result["AP50"], result["AP75"]] == [0, 0, 0]
    assert result["AP50_by_class"] == {"cat": 0, "dog": 0}


def test_a_class_without_objects_counts_for_nothing():
    result = scores_of([[(A, 0)]], [[(A, 0, 0.9), (B, 2, 0.9)]], class_names=["cat", "dog", "fish"])
    assert result["AP"] == pytest.approx(1)
    assert result["AP50_by_class"] == pytest.approx({"cat": 1, "dog": math.nan, "fish": math.nan}, nan_ok=True)


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_pictures_without_objects_have_no_score(pictures):
    result = scores_of([[]] * pictures, [[]] * pictures)
    assert math.isnan(result["AP"]) and math.isnan(result["AP50"]) and math.isnan(result["AP75"])
    assert result["AP50_by_class"] == {}


def test_arrays_and_lists_score_the_same_and_nothing_is_printed():
    true, found = crowd(1)
    columns = [
        [[row[k] for row in image] for image in rows] for rows, width in ((true, 2), (found, 3)) for k in range(width)
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        as_arrays = metrics.detection_scores(*[[np.array(entry) for entry in column] for column in columns])
    assert as_arrays == metrics.detection_scores(*columns)
    assert not said.getvalue()


def ignoring(found, **ignored):
    """Score one image with object A of class 0, and what is ignored."""
    ignored = {
        f"{kind}_{part}": [[each[k] for each in entries]]
        for kind, entries in ignored.items()
        for k, part in enumerate(("boxes", "labels"))
    }
    return scores_of([[(A, 0)]], [found], **ignored)["AP50"]


REGION, INSIDE, BESIDE = [200, 0, 300, 100], [210, 10, 230, 30], [290, 0, 330, 100]


def test_detections_in_a_crowd_region_are_neither_right_nor_wrong_however_many_and_small():
    found = [(INSIDE, 0, 0.9), (REGION, 0, 0.8), (A, 0, 0.7)]
    assert ignoring(found) == pytest.approx(1 / 3, abs=1e-3)
    assert ignoring(found, crowd=[(REGION, 0)]) == pytest.approx(1)
    assert ignoring([(BESIDE, 0, 0.9), (A, 0, 0.7)], crowd=[(REGION, 0)]) == pytest.approx(0.5)  # a quarter lies in it


def test_detections_of_a_difficult_object_are_neither_right_nor_wrong_but_a_part_of_it_is_wrong():
    found = [(B, 0, 0.95), (B, 0, 0.9), (A, 0, 0.7)]
    assert ignoring(found, difficult=[(B, 0)]) == pytest.approx(1)
    assert ignoring([(INSIDE, 0, 0.9), (A, 0, 0.7)], difficult=[(B, 0)]) == pytest.approx(0.5)


def test_what_is_ignored_is_of_one_class_and_need_not_be_found():
    assert ignoring([(A, 0, 0.5)], crowd=[(REGION, 0)], difficult=[(B, 0)]) == pytest.approx(1)
    result = scores_of([[(A, 0)]], [[(A, 0, 0.5), (B, 1, 0.9)]], difficult_boxes=[[B]], difficult_labels=[[0]])
    assert result["AP50"] == pytest.approx(1) and math.isnan(result["AP50_by_class"][1])  # no object of class 1
    assert ignoring([(A, 0, 0.5)], difficult=[(A, 0)]) == pytest.approx(1)  # what counts comes first


@pytest.mark.parametrize("given", [{"crowd_boxes": [[]]}, {"difficult_boxes": [[], []], "difficult_labels": [[], []]}])
def test_what_is_ignored_has_an_entry_an_image(given):
    with pytest.raises(
        ValueError, match="^detection_scores: (crowd|difficult)_boxes and .* hold .* entries, expected 1"
    ):
        scores_of([[(A, 0)]], [[(A, 0, 0.5)]], **given)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("true_boxes, .* hold 2, 1, 1, 1 and 1 entries", ([[], []], [[]], [[]], [[]], [[]])),
        (r"true_boxes\[0\]: .*\[0\] = \[9, 0, 1, 1\] has x_max < x_min", ([[[9, 0, 1, 1]]], [[0]], [[]], [[]], [[]])),
        (r"boxes\[1\]: .*shape \(1, 3\)", ([[], []], [[], []], [[], [[0, 0, 1]]], [[], [0]], [[], [0.5]])),
        (r"true_labels\[0\] is \[0.0, 1.0\], expected 1 numbers", ([[A]], [[0, 1]], [[]], [[]], [[]])),
        (r"scores\[0\] is \[\], expected 1 numbers", ([[A]], [[0]], [[A]], [[0]], [[]])),
        (r"scores\[0\] is \[nan\]", ([[A]], [[0]], [[A]], [[0]], [[math.nan]])),
        (r"labels\[0\]\[0\] is 2, expected a class from 0 to 1", ([[A]], [[0]], [[A]], [[2]], [[0.5]], ["cat", "dog"])),
        (r"true_labels\[0\]\[0\] is -1, expected a class", ([[A]], [[-1]], [[]], [[]], [[]])),
        (r"labels\[0\]\[0\] is 0.5, expected a class", ([[A]], [[0]], [[A]], [[0.5]], [[0.5]])),
    ],
)
def test_what_does_not_fit_is_named(message, arguments):
    with pytest.raises(ValueError, match="^detection_scores: " + message) as caught:
        metrics.detection_scores(*arguments)
    assert "\n" not in str(caught.value)


VOID = 255
MAPS = np.array([[0, 0, 1, 1], [0, 2, 2, VOID]]), np.array([[0, 1, 1, 1], [0, 2, 0, 2]])  # true and found


def maps_of(seed, shape=(3, 8, 9), classes=6):
    """Draw label maps that agree at half of their pixels; some are void, and class 3 is on neither."""
    random = np.random.default_rng(seed)
    true, other = random.choice([0, 1, 2, 4, 5, VOID], (2, *shape), p=[0.4, 0.3, 0.1, 0.08, 0.02, 0.1])
    found = np.where(random.random(shape) < 0.5, true, other)
    return true, np.where(found == VOID, random.integers(0, 3, shape), found)


def test_scores_of_label_maps_by_hand():
    result = metrics.segmentation_scores(*MAPS, num_classes=4, ignore=VOID)
    np.testing.assert_array_equal(
        result["confusion"], [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], strict=True
    )
    assert result["IoU"] == pytest.approx([2 / 4, 2 / 3, 1 / 2, math.nan], nan_ok=True)
    assert result["Dice"] == pytest.approx([4 / 6, 4 / 5, 2 / 3, math.nan], nan_ok=True)
    assert result["mean IoU"] == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)
    assert result["mean Dice"] == pytest.approx((2 / 3 + 4 / 5 + 2 / 3) / 3)
    assert result["frequency-weighted IoU"] == pytest.approx((3 * 1 / 2 + 2 * 2 / 3 + 2 * 1 / 2) / 7)
    assert result["pixel accuracy"] == pytest.approx(5 / 7)
    assert result["mean accuracy"] == pytest.approx((2 / 3 + 2 / 2 + 1 / 2) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_is_that_of_scikit_image_and_mean_iou_that_of_keras(seed):
    import keras
    from skimage.metrics import contingency_table

    true, found = maps_of(seed)
    result = metrics.segmentation_scores(true, found, 6, VOID)
    table = contingency_table(true, found, ignore_labels=[VOID]).toarray()[:6]
    np.testing.assert_array_equal(result["confusion"], np.pad(table, [(0, 0), (0, 6 - table.shape[1])]))
    for names, several in (("mean IoU", keras.metrics.MeanIoU), ("IoU", keras.metrics.IoU)):
        options = {} if several is keras.metrics.MeanIoU else {"target_class_ids": [4]}
        theirs = several(num_classes=6, ignore_class=VOID, **options)
        for one in zip(true, found, strict=True):  # picture by picture
            theirs.update_state(*one)
        ours = result[names] if names == "mean IoU" else result[names][4]
        assert ours == pytest.approx(float(theirs.result()), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_iou_and_dice_are_those_of_sets_of_pixels(seed):
    true, found = maps_of(seed)
    result = metrics.segmentation_scores(true, found, 6, VOID)
    for k in (0, 1, 2, 4, 5):
        a, b = ({*np.flatnonzero((side == k) & (true != VOID)).tolist()} for side in (true, found))
        assert result["IoU"][k] == pytest.approx(len(a & b) / len(a | b))
        assert result["Dice"][k] == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
    np.testing.assert_allclose(result["Dice"], 2 * result["IoU"] / (1 + result["IoU"]))


def test_a_class_that_neither_map_shows_has_no_score_and_counts_for_nothing():
    true, found = maps_of(0)
    few, many = (metrics.segmentation_scores(true, found, classes, VOID) for classes in (6, 9))
    assert np.isnan(few["IoU"]).tolist() == [False, False, False, True, False, False]
    assert np.isnan(many["Dice"]).sum() == 4
    for name in ("mean IoU", "mean Dice", "mean accuracy", "frequency-weighted IoU", "pixel accuracy"):
        assert many[name] == pytest.approx(few[name])


def test_a_class_that_only_one_of_the_maps_shows_scores_zero():
    result = metrics.segmentation_scores([[0, 0, 1]], [[0, 2, 0]], 3)
    assert result["IoU"] == pytest.approx([1 / 3, 0, 0])
    assert result["mean IoU"] == pytest.approx(1 / 9)
    assert result["mean accuracy"] == pytest.approx((1 / 2 + 0) / 2)  # class 2 has no pixel to be found


def test_what_is_predicted_on_void_does_not_count_not_even_void():
    true, found = maps_of(1)
    result = metrics.segmentation_scores(true, found, 6, VOID)
    for label in (0, 3, VOID):
        other = metrics.segmentation_scores(true, np.where(true == VOID, label, found), 6, VOID)
        np.testing.assert_equal(other, result)
    assert result["confusion"].sum() == (true != VOID).sum()


def test_pictures_are_counted_together_and_not_averaged():
    true, found = maps_of(2)
    apart = [metrics.segmentation_scores(*one, 6, VOID) for one in zip(true, found, strict=True)]
    together = metrics.segmentation_scores(true, found, 6, VOID)
    np.testing.assert_array_equal(together["confusion"], sum(one["confusion"] for one in apart))
    assert together["mean IoU"] != pytest.approx(np.mean([one["mean IoU"] for one in apart]), abs=1e-3)


def test_one_class_everywhere_has_its_share_as_pixel_accuracy_and_an_even_share_of_the_rest():
    true = np.repeat([0, 1, 2, 3], [90, 6, 3, 1]).reshape(10, 10)
    result = metrics.segmentation_scores(true, np.zeros_like(true), 4)
    assert result["pixel accuracy"] == pytest.approx(0.9)
    assert result["mean IoU"] == pytest.approx(0.9 / 4)
    assert result["mean accuracy"] == pytest.approx(1 / 4)
    assert result["frequency-weighted IoU"] == pytest.approx(0.9 * 0.9)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_right_maps_score_one_whatever_kind_of_integers_they_hold(kind):
    true = np.array([[[0, 1], [1, 0]]]).astype(kind)
    result = metrics.segmentation_scores(true, true, 2, ignore=-1)
    assert [result[key] for key in result if key not in ("IoU", "Dice", "confusion")] == [1] * 5
    np.testing.assert_array_equal(result["IoU"], [1, 1])


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"y_true has shape \(2, 4\), y_pred \(8,\)", (MAPS[0], MAPS[1].ravel(), 4, VOID)),
        ("y_true is int64, y_pred float32; expected integers", (MAPS[0], MAPS[1].astype("float32"), 4, VOID)),
        ("y_true holds 255, expected classes from 0 to 3", (*MAPS, 4)),
        ("y_pred holds 2, expected classes from 0 to 1", (MAPS[1] // 2, MAPS[1], 2)),
        ("y_pred holds -1, expected classes", (MAPS[1], MAPS[1] - 1, 4)),
        (r"y_true, of shape \(2, 4\), has no pixel that counts", (np.full_like(MAPS[0], VOID), MAPS[1], 4, VOID)),
    ],
)
def test_label_maps_that_do_not_fit_are_named(message, arguments):
    with pytest.raises(ValueError, match="^segmentation_scores: " + message):
        metrics.segmentation_scores(*arguments)


def one_hot_map(row, column, size=(9, 11)):
    heat = np.zeros(size, np.float32)
    heat[row, column] = 1
    return heat


def test_a_peak_hits_within_the_tolerance_of_the_mask_and_not_beyond():
    mask = np.zeros((9, 11), int)
    mask[3:5, 6:8] = 4
    peaks = [(3, 7), (3, 8), (2, 8), (3, 9), (1, 8), (7, 4)]
    for (row, column), far in zip(peaks, [0, 1, np.sqrt(2), 2, np.sqrt(5), np.sqrt(13)]):
        heat = one_hot_map(row, column)
        for tolerance in (0, 1, 1.5, 2, 3):
            assert metrics.pointing_game(heat[None], mask[None], tolerance)[0] == (far <= tolerance), (row, column)


def test_a_mask_grows_by_the_tolerance_on_every_side_and_not_across_the_picture():
    random = np.random.default_rng(0)
    masks = random.random((20, 9, 11)) < 0.02
    heats = random.random((20, 9, 11))
    expected = []
    for mask, heat in zip(masks, heats):
        peak = np.array(np.unravel_index(heat.argmax(), heat.shape))
        distances = np.linalg.norm(np.argwhere(mask) - peak, axis=1)
        expected.append(bool((distances <= 2).any()))
    assert 0 < sum(expected) < 20
    np.testing.assert_array_equal(metrics.pointing_game(heats, masks, 2), expected)


def test_a_map_without_a_peak_and_a_mask_without_an_object_are_no_hits():
    whole, none = np.ones((1, 9, 11)), np.zeros((1, 9, 11))
    assert not metrics.pointing_game(none, whole)[0]
    assert not metrics.pointing_game(whole / 3, whole)[0]
    assert not metrics.pointing_game(one_hot_map(2, 2)[None], none, 100)[0]


def test_of_several_peaks_all_must_be_on_the_object():
    heat = one_hot_map(1, 1) + one_hot_map(1, 2)
    mask = np.zeros((9, 11))
    mask[1, 1] = 1
    np.testing.assert_array_equal(metrics.pointing_game([heat, heat], [mask, mask + (heat > 0)]), [False, True])


def test_energy_is_the_share_of_the_sum_inside():
    heat = np.array([[1, 2, 0], [3, 0, 4]], np.float32)
    mask = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    maps = np.stack([heat, heat / 70, 0 * heat, np.ones_like(heat)])  # however faint a map is
    np.testing.assert_allclose(metrics.energy_in_mask(maps, np.stack([mask] * 4)), [0.5, 0.5, 0, 0.5])
    np.testing.assert_allclose(metrics.energy_in_mask(maps, 1 - np.stack([mask] * 4)), [0.5, 0.5, 0, 0.5])


@pytest.mark.parametrize("score", [metrics.pointing_game, metrics.energy_in_mask])
def test_maps_and_masks_that_do_not_fit_are_named(score):
    with pytest.raises(ValueError, match=r"maps have shape \(1, 2, 3\) and masks \(1, 3, 2\)"):
        score(np.zeros((1, 2, 3)), np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="maps hold NaN"):
        score(np.full((1, 2, 3), np.nan), np.zeros((1, 2, 3)))


def test_energy_can_not_be_negative():
    with pytest.raises(ValueError, match="maps hold -2.0, expected numbers ≥ 0"):
        metrics.energy_in_mask([[[1, -2]]], [[[1, 1]]])


def looks_left(width):
    """Build a classifier of which the logit of class 1 is the mean of the left half, and that of class 0 is 0."""
    import keras

    pixels = keras.Input((6, width, 3))
    x = keras.layers.Flatten()(pixels)
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))
    kernel = np.zeros((6, width, 3, 2), np.float32)
    kernel[:, : width // 2, :, 1] = 1 / (6 * width / 2 * 3)
    model.layers[-1].set_weights([kernel.reshape(-1, 2), np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def left_half():
    return looks_left(8)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def test_deletion_and_insertion_follow_the_probability_of_a_model_that_is_known(left_half):
    images = np.full((3, 6, 8, 3), 4, np.float32)  # logit 4
    left = np.tile(np.linspace(1, 0, 8), (6, 1))  # first the left half, column by column
    maps = np.stack([left, 1 - left, left])
    taken = np.array([0, 0.5, 1, 1, 1])  # of the left half, after each quarter of the pixels
    given = metrics.deletion(left_half, images, maps, [1, 1, 0], steps=4, baseline=0, batch_size=4)
    np.testing.assert_allclose(given["share"], [0, 0.25, 0.5, 0.75, 1])
    curves = [sigmoid(4 * (1 - taken)), sigmoid(4 * taken[::-1]), 1 - sigmoid(4 * (1 - taken))]
    np.testing.assert_allclose(given["probability"], curves, atol=1e-5)
    areas = [sum(curve[1:] + curve[:-1]) / 2 * 0.25 for curve in curves]
    np.testing.assert_allclose(given["area"], areas, atol=1e-5)
    given = metrics.insertion(left_half, images, maps, [1, 1, 0], steps=4, baseline=0)
    curves = [sigmoid(4 * taken), sigmoid(4 * (1 - taken[::-1])), 1 - sigmoid(4 * taken)]
    np.testing.assert_allclose(given["probability"], curves, atol=1e-5)


def test_a_good_map_falls_sooner_and_rises_sooner_than_a_bad_one(left_half):
    images = np.random.default_rng(0).uniform(2, 6, (2, 6, 8, 3)).astype(np.float32)
    good = np.zeros((2, 6, 8))
    good[:, :, :4] = 1
    for score, sign in ((metrics.deletion, 1), (metrics.insertion, -1)):
        right, wrong = (score(left_half, images, maps, 1, baseline=0)["area"] for maps in (good, 1 - good))
        assert (sign * (wrong - right) > 0.1).all()


def test_without_classes_the_predicted_one_is_followed_and_a_class_serves_for_all(left_half):
    images = np.stack([np.full((6, 8, 3), value, np.float32) for value in (3, -3)])
    maps = np.random.default_rng(0).random((2, 6, 8))
    for score in (metrics.deletion, metrics.insertion):
        found, named, one = (score(left_half, images, maps, classes, 5, 0) for classes in (None, [1, 0], 1))
        np.testing.assert_array_equal(found["probability"], named["probability"])
        np.testing.assert_allclose(one["probability"][1], 1 - found["probability"][1], atol=1e-6)


def test_baselines_are_the_mean_colour_a_blurred_picture_or_what_is_given(left_half):
    images = np.zeros((1, 6, 8, 3), np.float32)
    images[:, :, :4] = 8
    for baseline, logit in (("mean", 4), (0, 0), (np.full((6, 8, 3), 2), 2)):
        taken = metrics.deletion(left_half, images, np.ones((1, 6, 8)), 1, 2, baseline)["probability"][0]
        np.testing.assert_allclose(taken[[0, -1]], sigmoid([8, logit]), atol=1e-5)
    images = np.zeros((1, 6, 80, 3), np.float32)
    images[:, :, :40] = 4
    put_in = metrics.insertion(looks_left(80), images, np.ones((1, 6, 80)), 1, 2)["probability"][0]
    leaks = 2 / np.sqrt(2 * np.pi) / 40  # what a Gaussian of deviation 80 / 40 carries over the edge, of all there is
    np.testing.assert_allclose(put_in[[0, -1]], sigmoid([4 * (1 - leaks), 4]), atol=1e-4)


def test_pixels_of_one_rank_go_in_an_order_that_favours_no_side(left_half):
    images = np.full((1, 6, 8, 3), 4, np.float32)
    half = metrics.deletion(left_half, images, np.ones((1, 6, 8)), 1, 2, 0)["probability"][0, 1]
    assert sigmoid(1) < half < sigmoid(3)  # about half of the left half is gone


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"maps": np.zeros((2, 8, 6))}, r"maps \(2, 8, 6\), expected \(N, H, W, 3\)"),
        ({"maps": np.full((2, 6, 8), np.nan)}, "without NaN"),
        ({"steps": 0}, "steps=0, expected an integer, at least 1"),
        ({"classes": 2}, r"classes is \[2, 2\], expected ints from 0 to 1"),
        ({"images": np.full((2, 6, 8, 3), np.nan)}, "images hold NaN or infinite numbers"),
        ({"baseline": "grey"}, "baseline='grey', expected 'mean', 'blur'"),
        ({"baseline": np.zeros(5)}, "expected 'mean', 'blur', a number or images"),
    ],
)
def test_what_can_not_be_followed_is_named(changes, message, left_half):
    arguments = {"images": np.zeros((2, 6, 8, 3)), "maps": np.zeros((2, 6, 8)), "classes": 0} | changes
    for score in (metrics.deletion, metrics.insertion):
        with pytest.raises(ValueError, match=message):
            score(left_half, **arguments)


def test_of_one_output_both_classes_can_be_followed():
    import keras

    pixels = keras.Input((6, 8, 3))
    model = keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(pixels)))
    model.layers[-1].set_weights([np.full((144, 1), -1 / 144), np.zeros(1)])
    images, maps = np.full((1, 6, 8, 3), 4, np.float32), np.ones((1, 6, 8))  # logit -4: the other class, 1
    for classes, start in ((None, sigmoid(4)), (0, sigmoid(-4)), (1, sigmoid(4))):
        curve = metrics.deletion(model, images, maps, classes, 2, 0)["probability"][0]
        np.testing.assert_allclose(curve[[0, -1]], [start, 0.5], atol=1e-5)
