"""Metrics: how good are detections, segmentations and explanation maps?"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cvlab.engine import coco

if TYPE_CHECKING:
    import keras


def detection_scores(
    true_boxes: Sequence[np.ndarray],
    true_labels: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    class_names: Sequence[str] | None = None,
    max_boxes: int = 100,
    *,
    crowd_boxes: Sequence[np.ndarray] | None = None,
    crowd_labels: Sequence[np.ndarray] | None = None,
    difficult_boxes: Sequence[np.ndarray] | None = None,
    difficult_labels: Sequence[np.ndarray] | None = None,
) -> dict:
    """Score detections by the rules of COCO, with COCO's own evaluator.

    Every argument holds one entry per image, in the same order; an image without boxes has empty entries. In order of
    falling score, a detection is a true positive if its IoU with a so far unmatched object of its class reaches the
    threshold.

    Args:
        true_boxes: for each image (T, 4) float, xyxy in pixels: the objects.
        true_labels: for each image (T,) int, 0-based classes of the objects.
        boxes: for each image (D, 4) float, xyxy in pixels: the detections, in any order.
        labels: for each image (D,) int, 0-based classes of the detections.
        scores: for each image (D,) float, higher for more confident detections.
        class_names: names of the classes by label, as keys of the result; None for the labels themselves.
        max_boxes: how many of the best detections are evaluated per image and class.
        crowd_boxes, crowd_labels: as true_boxes and true_labels, or None: regions with many objects. A detection of the
            class is ignored if the share of its area within such a region reaches the IoU threshold.
        difficult_boxes, difficult_labels: likewise, objects that need not be detected. A detection is ignored if its
            IoU with one reaches the threshold and it matches no other object.

    Returns:
        A dict of floats in [0, 1]: `"AP"`, the average precision, averaged over the IoU thresholds 0.50, 0.55 … 0.95
        and all classes with objects; `"AP50"` and `"AP75"`, at one threshold; and `"AP50_by_class"`, a dict by class.
        Classes without objects are left out of the averages and are nan in the last; without any object, all are nan.

    Raises:
        ValueError: for arguments that do not fit each other, invalid boxes, labels outside the classes, or NaN scores.

    Source: Lin et al., "Microsoft COCO", ECCV 2014; pycocotools. Difficult objects: Everingham et al., "The PASCAL
        Visual Object Classes Challenge", IJCV 2010.
    """
    lengths = [len(entries) for entries in (true_boxes, true_labels, boxes, labels, scores)]
    if len(set(lengths)) > 1:
        raise ValueError(
            "detection_scores: true_boxes, true_labels, boxes, labels and scores hold {}, {}, {}, {} and {} entries, "
            "expected equal numbers, one entry per image".format(*lengths)
        )
    count = len(true_boxes)
    truth = coco.annotations("true_boxes", true_boxes, "true_labels", true_labels, class_names)
    detections = coco.annotations("boxes", boxes, "labels", labels, class_names, scores)
    crowds = coco.ignored("crowd", crowd_boxes, crowd_labels, count, class_names)
    difficult = coco.ignored("difficult", difficult_boxes, difficult_labels, count, class_names)
    present = sorted({annotation["category_id"] for annotation in truth + detections})
    classes = present if class_names is None else list(range(len(class_names)))
    truth = coco.with_ignored(truth, crowds, difficult, detections)
    precision = coco.average_precision(truth, detections, count, classes, max_boxes)
    valid = precision[:, ~np.isnan(precision[0])]
    parts = {"AP": valid, "AP50": valid[0], "AP75": valid[5]}
    result: dict = {name: float(part.mean()) if part.size else math.nan for name, part in parts.items()}
    keys = classes if class_names is None else class_names
    return result | {"AP50_by_class": {key: float(value) for key, value in zip(keys, precision[0])}}


def segmentation_scores(y_true: np.ndarray, y_pred: np.ndarray, num_classes: int, ignore: int | None = None) -> dict:
    """Score label maps by the overlap of each class, over the pixels of all images together.

    Args:
        y_true: (..., H, W) integers: each pixel's class, or `ignore`.
        y_pred: predictions, of the same shape.
        num_classes: int; classes run from 0 to num_classes − 1.
        ignore: label of void pixels in y_true, which are left out, whatever is predicted there.

    Returns:
        A dict: `"IoU"` and `"Dice"`, (C,) float64 in [0, 1], nan for a class that is in neither map; `"mean IoU"` and
        `"mean Dice"` over the other classes; `"frequency-weighted IoU"`, weighted by each class's true pixels; `"pixel
        accuracy"`; `"mean accuracy"`, the accuracy on each class's true pixels, averaged over the classes that have
        any; and `"confusion"`, (C, C) int64, the pixels by true class (row) and predicted class (column).

    Raises:
        ValueError: for maps of different shapes or without integers, labels outside the classes, and maps without a
            valid pixel.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015, section 5.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"segmentation_scores: y_true has shape {y_true.shape}, y_pred {y_pred.shape}; expected equal")
    if not all(labels.dtype.kind in "biu" for labels in (y_true, y_pred)):
        raise ValueError(
            f"segmentation_scores: y_true is {y_true.dtype}, y_pred {y_pred.dtype}; expected integers, as "
            "from logits.argmax(-1)"
        )
    valid = np.ones(y_true.shape, bool) if ignore is None else y_true != ignore
    true, predicted = y_true[valid].astype(np.int64), y_pred[valid].astype(np.int64)
    if not true.size:
        raise ValueError(f"segmentation_scores: y_true, of shape {y_true.shape}, has no pixel that counts")
    for name, labels in (("y_true", true), ("y_pred", predicted)):
        if labels.min() < 0 or labels.max() >= num_classes:
            bad = labels[(labels < 0) | (labels >= num_classes)][0]
            raise ValueError(f"segmentation_scores: {name} holds {bad}, expected classes from 0 to {num_classes - 1}")
    confusion = np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
    correct, of_true, of_predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 for a class that is in neither map
        iou, dice = correct / (of_true + of_predicted - correct), 2 * correct / (of_true + of_predicted)
        accuracy = correct / of_true
    return {
        "IoU": iou,
        "Dice": dice,
        "mean IoU": float(np.nanmean(iou)),
        "mean Dice": float(np.nanmean(dice)),
        "frequency-weighted IoU": float(np.nansum(iou * of_true) / of_true.sum()),
        "pixel accuracy": float(correct.sum() / confusion.sum()),
        "mean accuracy": float(np.nanmean(accuracy)),
        "confusion": confusion,
    }


def pointing_game(maps: np.ndarray, masks: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """Test for each map whether its maximum lies on the object.

    Args:
        maps: (N, H, W) numbers, higher for more important pixels. If several pixels share the maximum, all of them must
            lie on the object; a constant map has no maximum.
        masks: (N, H, W), nonzero on the object.
        tolerance: largest distance from the object that still counts, in pixels between pixel centres.

    Returns:
        (N,) bool; False for a constant map and for a mask without an object.

    Raises:
        ValueError: for maps and masks of different shapes, and for maps with NaN or infinite numbers.

    Source: Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, section 4.2.
    """
    maps, masks = _maps_and_masks(maps, masks, "pointing_game")
    hits = np.zeros(len(maps), bool)
    for row, (heat, mask) in enumerate(zip(maps, masks)):
        if mask.any() and heat.min() < heat.max():
            far = cv2.distanceTransform(np.where(mask, 0, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            hits[row] = far[heat == heat.max()].max() <= tolerance + 1e-4
    return hits


def energy_in_mask(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Compute the share of each map's sum that lies on the object.

    Args:
        maps: (N, H, W) numbers ≥ 0.
        masks: (N, H, W), nonzero on the object.

    Returns:
        (N,) float64 in [0, 1]; 0 for a map of zeros. For a constant map, it is the object's share of the image's area:
        the chance level.

    Raises:
        ValueError: for maps and masks of different shapes, and for negative values, NaN or infinite numbers in maps.

    Source: Wang et al., Score-CAM, CVPR workshops 2020, section 4.3.
    """
    maps, masks = _maps_and_masks(maps, masks, "energy_in_mask")
    if maps.min(initial=0) < 0:
        raise ValueError(f"energy_in_mask: maps hold {maps.min()}, expected numbers ≥ 0")
    inside, total = (maps * masks).sum(axis=(1, 2)), maps.sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros(len(maps)), where=total > 0)


def deletion(
    model: "keras.Model",
    images: np.ndarray,
    maps: np.ndarray,
    classes: Any = None,
    steps: int = 20,
    baseline: Any = "mean",
    batch_size: int = 16,
) -> dict:
    """Track a class's probability while the pixels that a map ranks highest are removed, step by step.

    The sooner it falls, the better the map: a small area is good. Pixels of equal rank come in a fixed random order.

    Args:
        model: Keras classifier, as in `explain.cam`.
        images: (N, H, W, 3) in the model's input range.
        maps: (N, H, W) numbers, higher for more important pixels.
        classes: None for the predicted ones, an int for all images, or (N,) ints. For a model with one output, 0 is the
            class whose probability it gives, and 1 the other.
        steps: number of equal parts into which the pixels are divided.
        baseline: what replaces removed pixels: "mean", the image's mean colour; "blur", the blurred image (Gaussian,
            with a standard deviation of max(H, W) / 40); or anything that broadcasts to the images' shape, such as 0.
        batch_size: images per batch.

    Returns:
        A dict: "share", (steps + 1,) float64 from 0 to 1, of the pixels that are removed; "probability",
        (N, steps + 1) float32; "area", (N,) float64 in [0, 1], under each image's curve (trapezoidal rule).

    Raises:
        ValueError: for maps, classes or a baseline that don't fit the images, and for steps < 1.

    Source: Petsiuk, Das and Saenko, RISE, BMVC 2018, section 4.1.
    """
    return _curve("deletion", model, images, maps, classes, steps, baseline, batch_size)


def insertion(
    model: "keras.Model",
    images: np.ndarray,
    maps: np.ndarray,
    classes: Any = None,
    steps: int = 20,
    baseline: Any = "blur",
    batch_size: int = 16,
) -> dict:
    """Track a class's probability while the pixels that a map ranks highest are inserted into a baseline image.

    The sooner it rises, the better the map: a large area is good. Without `classes`, the class is the prediction for
    the original image. Args, Returns ("share" is that of the inserted pixels), Raises and Source are as in `deletion`.
    """
    return _curve("insertion", model, images, maps, classes, steps, baseline, batch_size)


def _curve(caller, model, images, maps, classes, steps, baseline, batch_size):
    """Track the probability while pixels change between an image and its baseline, the highest in the map first."""
    images, maps = np.asarray(images, np.float32), np.asarray(maps, np.float32)
    _check_curve(caller, images, maps, steps)
    original = _class_probabilities(model, images, batch_size)
    classes = original.argmax(-1) if classes is None else np.broadcast_to(classes, len(images))
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= original.shape[1]:
        raise ValueError(f"{caller}: classes is {classes.tolist()}, expected ints from 0 to {original.shape[1] - 1}")
    baselines = baseline_images(images, baseline, caller)
    before, after = (images, baselines) if caller == "deletion" else (baselines, images)
    ranks, share = np.stack([_ranks(heat) for heat in maps]), np.linspace(0, 1, steps + 1)
    probability, counts = np.empty((len(images), steps + 1), np.float32), np.rint(share * ranks[0].size)
    for start in range(0, probability.size, 4 * batch_size):
        row, step = np.divmod(np.arange(start, min(start + 4 * batch_size, probability.size)), steps + 1)
        changed = ranks[row] < counts[step, None, None]
        mixed = np.where(changed[..., None], after[row], before[row])
        probability[row, step] = _class_probabilities(model, mixed, batch_size)[np.arange(len(row)), classes[row]]
    area = ((probability[:, 1:] + probability[:, :-1]).astype(float) / 2).mean(axis=1)
    return {"share": share, "probability": probability, "area": area}


def _check_curve(caller, images, maps, steps):
    if images.ndim != 4 or maps.shape != images.shape[:3] or np.isnan(maps).any():
        raise ValueError(
            f"{caller}: images have shape {images.shape} and maps {maps.shape}, expected (N, H, W, 3) and "
            "(N, H, W), without NaN"
        )
    if int(steps) != steps or steps < 1:
        raise ValueError(f"{caller}: steps={steps!r}, expected an integer, at least 1")
    if not np.isfinite(images).all():
        raise ValueError(f"{caller}: images hold NaN or infinite numbers, expected finite ones")


def _class_probabilities(model, images, batch_size):
    """Compute the probability of each class, (N, K); a model with one output has two classes."""
    from cvlab.explain import probabilities

    outputs = probabilities(model, images, batch_size)
    return np.concatenate([outputs, 1 - outputs], axis=1) if outputs.shape[1] == 1 else outputs


def baseline_images(images: np.ndarray, baseline: Any, where: str) -> np.ndarray:
    """Make the baseline images of `deletion`, `explain.occlusion` and others: (N, H, W, C) float32.

    Args:
        images: (N, H, W, C) float32.
        baseline: as in `deletion`.
        where: the caller's name, for error messages.

    Raises:
        ValueError: for a baseline that does not broadcast to the images' shape.
    """
    if isinstance(baseline, str) and baseline == "mean":
        baseline = images.mean(axis=(1, 2), keepdims=True)
    elif isinstance(baseline, str) and baseline == "blur":
        sigma = max(images.shape[1:3]) / 40
        baseline = np.stack([cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape) for image in images])
    try:
        return np.broadcast_to(np.asarray(baseline, np.float32), images.shape)
    except ValueError:
        raise ValueError(
            f"{where}: baseline={baseline!r}, expected 'mean', 'blur', a number or images of shape {images.shape}"
        ) from None


def _ranks(heat):
    """Compute each pixel's rank, 0 for the highest value; equal values are ranked in a fixed random order."""
    shuffled = np.random.default_rng(0).permutation(heat.size)
    order = shuffled[np.argsort(-heat.ravel()[shuffled], kind="stable")]
    ranks = np.empty(heat.size, np.int64)
    ranks[order] = np.arange(heat.size)
    return ranks.reshape(heat.shape)


def _maps_and_masks(maps, masks, caller):
    """Return maps as float64 and masks as bool, or say what is wrong with them."""
    maps, masks = np.asarray(maps, float), np.asarray(masks) != 0
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"{caller}: maps have shape {maps.shape} and masks {masks.shape}, expected (N, H, W) for both")
    if not np.isfinite(maps).all():
        raise ValueError(f"{caller}: maps hold NaN or infinite numbers, expected finite ones")
    return maps, masks
