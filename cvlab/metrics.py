"""Scores: how good are boxes, label maps and heat maps, and how far do repeated runs spread?"""

import collections
import contextlib
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .boxes import convert

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

    Every argument holds one entry an image, in the same order; an image without boxes has empty entries. By the rules,
    a detection is right if it is the best-scored one left to reach the IoU threshold with an object of its class.

    Args:
        true_boxes: for each image (T, 4) float, xyxy in pixels: the objects.
        true_labels: for each image (T,) int, 0-based classes of the objects.
        boxes: for each image (D, 4) float, xyxy in pixels: the detections, of any order and number.
        labels: for each image (D,) int, 0-based classes of the detections.
        scores: for each image (D,) float, higher where the detector is surer.
        class_names: names of the classes by label, as keys of the result; None for the labels themselves.
        max_boxes: how many of the best detections count, an image and class.
        crowd_boxes, crowd_labels: as true_boxes and true_labels, or None: regions with many objects. A detection of the
            class that lies in one, by at least the IoU threshold of its own area, is neither right nor wrong.
        difficult_boxes, difficult_labels: likewise, objects that need not be found. A detection that reaches the IoU
            threshold with one, and matches no object that counts, is neither right nor wrong.

    Returns:
        A dict of floats in [0, 1]: `"AP"`, the mean of the average precision over the IoU thresholds 0.50, 0.55 … 0.95
        and all classes with objects; `"AP50"` and `"AP75"`, at one threshold; and `"AP50_by_class"`, a dict by class.
        A class without objects counts for nothing, and has nan in the latter; without any object all are nan.

    Raises:
        ValueError: for arguments that do not fit each other, bad boxes, labels outside the classes, or NaN scores.

    Source: Lin et al., "Microsoft COCO", ECCV 2014; pycocotools. Difficult objects: Everingham et al., "The PASCAL
        Visual Object Classes Challenge", IJCV 2010.
    """
    lengths = [len(entries) for entries in (true_boxes, true_labels, boxes, labels, scores)]
    if len(set(lengths)) > 1:
        raise ValueError(
            "detection_scores: true_boxes, true_labels, boxes, labels and scores hold {}, {}, {}, {} and {} entries, "
            "expected as many, one an image".format(*lengths)
        )
    truth = _annotations("true_boxes", true_boxes, "true_labels", true_labels, class_names)
    found = _annotations("boxes", boxes, "labels", labels, class_names, scores)
    crowds, difficult = (
        _ignored(kind, kind_boxes, kind_labels, len(true_boxes), class_names)
        for kind, kind_boxes, kind_labels in (
            ("crowd", crowd_boxes, crowd_labels),
            ("difficult", difficult_boxes, difficult_labels),
        )
    )
    named = sorted({annotation["category_id"] for annotation in truth + found})
    classes = named if class_names is None else list(range(len(class_names)))
    truth += [annotation | {"iscrowd": 1} for annotation in crowds]
    # The evaluator ignores objects outside its range of areas, but lets each match once: one for each detection.
    rivals = collections.Counter((annotation["image_id"], annotation["category_id"]) for annotation in found)
    for annotation in difficult:
        truth += [annotation | {"area": -1}] * rivals[annotation["image_id"], annotation["category_id"]]
    truth = [annotation | {"id": number} for number, annotation in enumerate(truth, 1)]

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # the evaluator reports on itself
        sides = []
        for annotations in (truth, found):
            side = COCO()
            side.dataset = {
                "images": [{"id": image} for image in range(len(true_boxes))],
                "categories": [{"id": label} for label in classes],
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluator.params.maxDets = [max_boxes]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, 0].mean(axis=1)  # (thresholds, classes); −1: no object of the class
    precision[precision < 0] = np.nan
    counted = precision[:, ~np.isnan(precision[0])]
    parts = {"AP": counted, "AP50": counted[0], "AP75": counted[5]}
    by_class = {
        name: float(value) for name, value in zip(classes if class_names is None else class_names, precision[0])
    }
    return {name: float(part.mean()) if part.size else math.nan for name, part in parts.items()} | {
        "AP50_by_class": by_class
    }


def segmentation_scores(y_true: np.ndarray, y_pred: np.ndarray, num_classes: int, ignore: int | None = None) -> dict:
    """Score label maps by how well each class overlaps; all pictures count together.

    Args:
        y_true: (..., H, W) integers: each pixel's class, or `ignore`.
        y_pred: of the same shape: what was predicted.
        num_classes: int; classes run from 0 to num_classes − 1.
        ignore: label of void pixels in y_true, which don't count, whatever is predicted there.

    Returns:
        A dict: `"IoU"` and `"Dice"`, (C,) float64 in [0, 1], nan for a class that neither map shows; `"mean IoU"` and
        `"mean Dice"` over the other classes; `"frequency-weighted IoU"`, weighted by each class's true pixels; `"pixel
        accuracy"`, and `"mean accuracy"`, that of each class's true pixels, over the classes that have any; and
        `"confusion"`, (C, C) int64, the pixels by true class (row) and predicted class (column).

    Raises:
        ValueError: for maps that don't fit each other or are no integers, labels outside the classes, and no pixel that
            counts.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015, section 5.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"segmentation_scores: y_true has shape {y_true.shape}, y_pred {y_pred.shape}; expected one")
    if not all(labels.dtype.kind in "biu" for labels in (y_true, y_pred)):
        raise ValueError(
            f"segmentation_scores: y_true is {y_true.dtype}, y_pred {y_pred.dtype}; expected integers, as "
            "from logits.argmax(-1)"
        )
    counts = np.ones(y_true.shape, bool) if ignore is None else y_true != ignore
    true, found = y_true[counts].astype(np.int64), y_pred[counts].astype(np.int64)
    if not true.size:
        raise ValueError(f"segmentation_scores: y_true, of shape {y_true.shape}, has no pixel that counts")
    for name, labels in (("y_true", true), ("y_pred", found)):
        if labels.min() < 0 or labels.max() >= num_classes:
            bad = labels[(labels < 0) | (labels >= num_classes)][0]
            raise ValueError(f"segmentation_scores: {name} holds {bad}, expected classes from 0 to {num_classes - 1}")
    confusion = np.bincount(true * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)
    right, of_true, of_found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        iou, dice = right / (of_true + of_found - right), 2 * right / (of_true + of_found)
        accuracy = right / of_true
    return {
        "IoU": iou,
        "Dice": dice,
        "mean IoU": float(np.nanmean(iou)),
        "mean Dice": float(np.nanmean(dice)),
        "frequency-weighted IoU": float(np.nansum(iou * of_true) / of_true.sum()),
        "pixel accuracy": float(right.sum() / confusion.sum()),
        "mean accuracy": float(np.nanmean(accuracy)),
        "confusion": confusion,
    }


def pointing_game(maps: np.ndarray, masks: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """Tell for each map whether its peak lies on the object.

    Args:
        maps: (N, H, W) numbers, higher where a method sees the reason. Where several pixels share the highest value,
            all of them are the peak and must lie on the object; a map of one value has no peak.
        masks: (N, H, W), nonzero on the object.
        tolerance: how many pixels beside the object still count, measured from pixel centre to pixel centre.

    Returns:
        (N,) bool; False where a map has no peak or a mask no object.

    Raises:
        ValueError: for maps and masks of different shapes, and for maps with NaN.

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
    """Give the share of each map's sum that lies on the object.

    Args:
        maps: (N, H, W) numbers ≥ 0.
        masks: (N, H, W), nonzero on the object.

    Returns:
        (N,) float64 in [0, 1]; 0 for a map that is 0 all over. A map of one value gets the object's share of the
        picture: what chance would give.

    Raises:
        ValueError: for maps and masks of different shapes, and for negative values or NaN in the maps.

    Source: Wang et al., Score-CAM, CVPR workshops 2020, section 4.3.
    """
    maps, masks = _maps_and_masks(maps, masks, "energy_in_mask")
    if maps.min(initial=0) < 0:
        raise ValueError(f"energy_in_mask: maps hold {maps.min()}, expected numbers ≥ 0")
    inside, all_ = (maps * masks).sum(axis=(1, 2)), maps.sum(axis=(1, 2))
    return np.divide(inside, all_, out=np.zeros(len(maps)), where=all_ > 0)


def deletion(
    model: "keras.Model",
    images: np.ndarray,
    maps: np.ndarray,
    classes: Any = None,
    steps: int = 20,
    baseline: Any = "mean",
    batch_size: int = 16,
) -> dict:
    """Follow a class's probability while the pixels that a map ranks highest are taken away, step by step.

    The sooner it falls, the better the map: a small area is good. Pixels of equal rank go in a fixed random order.

    Args:
        model: Keras classifier, as in `explain.cam`.
        images: (N, H, W, 3) in the model's own range.
        maps: (N, H, W) numbers, higher where the reason is said to be.
        classes: None for those predicted, an int for all pictures, or (N,) ints; of a model with one output, 0 for the
            class whose probability it gives and 1 for the other.
        steps: into how many equal parts the pixels are divided.
        baseline: what takes their place: "mean", the picture's mean colour; "blur", the picture blurred (Gaussian, of
            standard deviation max(H, W) / 40); or anything that broadcasts to the images' shape, such as 0.
        batch_size: pictures at a time.

    Returns:
        A dict: "share", (steps + 1,) float64 from 0 to 1, of the pixels taken away; "probability", (N, steps + 1)
        float32; "area", (N,) float64 in [0, 1], under each picture's curve (trapezoids).

    Raises:
        ValueError: for maps, classes or a baseline that don't fit the pictures, and for steps < 1.

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
    """Follow a class's probability while the pixels that a map ranks highest are put into an empty picture.

    The sooner it rises, the better the map: a large area is good. Without `classes`, the class is the one predicted of
    the whole picture. Args, Returns ("share" is that of the pixels put in), Raises and Source are those of `deletion`.
    """
    return _curve("insertion", model, images, maps, classes, steps, baseline, batch_size)


def _curve(where, model, images, maps, classes, steps, baseline, batch_size):
    """Follow the probability while pixels change between a picture and its baseline, those highest in the map first."""
    from .explain import probabilities

    images, maps = np.asarray(images, np.float32), np.asarray(maps, np.float32)
    if images.ndim != 4 or maps.shape != images.shape[:3] or np.isnan(maps).any():
        raise ValueError(
            f"{where}: images have shape {images.shape} and maps {maps.shape}, expected (N, H, W, 3) and "
            "(N, H, W), without NaN"
        )
    if int(steps) != steps or steps < 1:
        raise ValueError(f"{where}: steps={steps!r}, expected an integer from 1 on")
    if not np.isfinite(images).all():
        raise ValueError(f"{where}: images hold NaN or infinite numbers, expected finite ones")

    def of_classes(images):
        given = probabilities(model, images, batch_size)
        return np.concatenate([given, 1 - given], axis=1) if given.shape[1] == 1 else given  # one output, two classes

    whole = of_classes(images)
    classes = whole.argmax(-1) if classes is None else np.broadcast_to(classes, len(images))
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= whole.shape[1]:
        raise ValueError(f"{where}: classes is {classes.tolist()}, expected ints from 0 to {whole.shape[1] - 1}")
    empty = baseline_images(images, baseline, where)
    before, after = (images, empty) if where == "deletion" else (empty, images)
    ranks, share = np.stack([_ranks(heat) for heat in maps]), np.linspace(0, 1, steps + 1)
    probability, cuts = np.empty((len(images), steps + 1), np.float32), np.rint(share * ranks[0].size)
    for start in range(0, probability.size, 4 * batch_size):
        row, step = np.divmod(np.arange(start, min(start + 4 * batch_size, probability.size)), steps + 1)
        changed = ranks[row] < cuts[step, None, None]
        changed = np.where(changed[..., None], after[row], before[row])
        probability[row, step] = of_classes(changed)[np.arange(len(row)), classes[row]]
    area = ((probability[:, 1:] + probability[:, :-1]).astype(float) / 2).mean(axis=1)
    return {"share": share, "probability": probability, "area": area}


def baseline_images(images: np.ndarray, baseline: Any, where: str) -> np.ndarray:
    """Make the images without evidence that `deletion`, `explain.occlusion` and others compare with.

    Args: images: (N, H, W, C) float32. baseline: as in `deletion`. where: the caller's name, for its errors.
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
            f"{where}: baseline={baseline!r}, expected 'mean', 'blur', a number or pictures of shape {images.shape}"
        ) from None


def _ranks(heat):
    """Give each pixel's place, 0 for the highest value; equal values come in an order that is random, but fixed."""
    shuffled = np.random.default_rng(0).permutation(heat.size)
    order = shuffled[np.argsort(-heat.ravel()[shuffled], kind="stable")]
    ranks = np.empty(heat.size, np.int64)
    ranks[order] = np.arange(heat.size)
    return ranks.reshape(heat.shape)


def _maps_and_masks(maps, masks, where):
    maps, masks = np.asarray(maps, float), np.asarray(masks) != 0
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise ValueError(f"{where}: maps have shape {maps.shape} and masks {masks.shape}, expected (N, H, W) for both")
    if not np.isfinite(maps).all():
        raise ValueError(f"{where}: maps hold NaN or infinite numbers, expected finite ones")
    return maps, masks


def _ignored(kind, boxes, labels, count, class_names):
    """Turn what detection_scores ignores into COCO's annotations, after checking that there is an entry an image."""
    if boxes is None and labels is None:
        return []
    if boxes is None or labels is None or not len(boxes) == len(labels) == count:
        given = " and ".join("None" if each is None else f"{len(each)}" for each in (boxes, labels))
        raise ValueError(
            f"detection_scores: {kind}_boxes and {kind}_labels hold {given} entries, expected {count} "
            "each, one an image, or None for both"
        )
    return _annotations(f"{kind}_boxes", boxes, f"{kind}_labels", labels, class_names)


def _annotations(boxes_name, boxes, labels_name, labels, class_names, scores=None):
    """Turn lists by image into COCO's annotations, numbered from 1: to the evaluator, number 0 means unmatched."""
    annotations, last = [], math.inf if class_names is None else len(class_names) - 1
    for image, (image_boxes, image_labels) in enumerate(zip(boxes, labels)):
        try:
            corners = convert(image_boxes, "xyxy", "xyxy").astype(float)  # to check them
        except ValueError as error:
            raise ValueError(f"detection_scores: {boxes_name}[{image}]: {error}") from None
        columns = (
            {labels_name: image_labels} if scores is None else {labels_name: image_labels, "scores": scores[image]}
        )
        for argument, values in columns.items():
            values = np.asarray(values, float)
            if values.shape != (len(corners),) or np.isnan(values).any():
                raise ValueError(
                    f"detection_scores: {argument}[{image}] is {values.tolist()}, expected {len(corners)} numbers, "
                    f"one for each of {boxes_name}[{image}]"
                )
        for index, (x_min, y_min, x_max, y_max) in enumerate(corners.tolist()):
            label, size = image_labels[index], [x_max - x_min, y_max - y_min]
            if label != int(label) or not 0 <= label <= last:
                raise ValueError(
                    f"detection_scores: {labels_name}[{image}][{index}] is {label}, expected a class from 0 to {last}"
                )
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "iscrowd": 0}
            annotation |= {"bbox": [x_min, y_min, *size], "area": size[0] * size[1]}
            annotations.append(annotation if scores is None else annotation | {"score": float(scores[image][index])})
    return annotations
