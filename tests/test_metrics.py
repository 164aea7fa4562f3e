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


def test_mean_and_spread_by_hand():
    assert metrics.mean_and_spread([0.6, 0.7, 0.8]) == pytest.approx((0.7, 0.1))
    mean, spread = metrics.mean_and_spread([[1, 2, 6], [4, 4, 4]])
    assert mean.tolist() == [3, 4]
    assert spread == pytest.approx([math.sqrt(7), 0])


def test_a_single_run_has_no_spread():
    mean, spread = metrics.mean_and_spread([0.5])
    assert mean == 0.5 and math.isnan(spread)


@pytest.mark.parametrize("nothing", [[], 0.5, np.zeros((3, 0))])
def test_mean_of_no_runs_is_refused(nothing):
    with pytest.raises(ValueError, match="^mean_and_spread: values has shape"):
        metrics.mean_and_spread(nothing)
