"""Scores: how good are boxes and label maps that a network finds, and how far do repeated runs spread?"""

import contextlib
import io
import math

import numpy as np

from .boxes import convert


def detection_scores(true_boxes, true_labels, boxes, labels, scores, class_names=None, max_boxes: int = 100) -> dict:
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

    Returns:
        A dict of floats in [0, 1]: `"AP"`, the mean of the average precision over the IoU thresholds 0.50, 0.55 … 0.95
        and all classes with objects; `"AP50"` and `"AP75"`, at one threshold; and `"AP50_by_class"`, a dict by class.
        A class without objects counts for nothing, and has nan in the latter; without any object all are nan.

    Raises:
        ValueError: for arguments that do not fit each other, bad boxes, labels outside the classes, or NaN scores.

    Source: Lin et al., "Microsoft COCO", ECCV 2014; pycocotools.
    """
    lengths = [len(entries) for entries in (true_boxes, true_labels, boxes, labels, scores)]
    if len(set(lengths)) > 1:
        raise ValueError(
            "detection_scores: true_boxes, true_labels, boxes, labels and scores hold {}, {}, {}, {} and {} entries, "
            "expected as many, one an image".format(*lengths)
        )
    truth = _annotations("true_boxes", true_boxes, "true_labels", true_labels, class_names)
    found = _annotations("boxes", boxes, "labels", labels, class_names, scores)
    classes = sorted({annotation["category_id"] for annotation in truth + found})
    classes = classes if class_names is None else range(len(class_names))

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


def segmentation_scores(y_true, y_pred, num_classes: int, ignore: int | None = None) -> dict:
    """Score label maps by how well each class overlaps; all pictures count together.

    Args:
        y_true: (..., H, W) integers: each pixel's class, or `ignore`.
        y_pred: of the same shape: what was predicted.
        num_classes: int; classes run from 0 to num_classes − 1.
        ignore: label of void pixels in y_true, which don't count, whatever is predicted there.

    Returns:
        A dict: `"IoU"` and `"Dice"`, (C,) float64 in [0, 1], nan for a class that neither map shows; `"mean IoU"` and
        `"mean Dice"` over the other classes; `"frequency-weighted IoU"`, weighted by each class's true pixels; `"pixel
        accuracy"`; and `"confusion"`, (C, C) int64, the pixels by true class (row) and predicted class (column).

    Raises:
        ValueError: for maps that don't fit each other, labels outside the classes, and no pixel that counts.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"segmentation_scores: y_true has shape {y_true.shape}, y_pred {y_pred.shape}; expected one")
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
    return {
        "IoU": iou,
        "Dice": dice,
        "mean IoU": float(np.nanmean(iou)),
        "mean Dice": float(np.nanmean(dice)),
        "frequency-weighted IoU": float(np.nansum(iou * of_true) / of_true.sum()),
        "pixel accuracy": float(right.sum() / confusion.sum()),
        "confusion": confusion,
    }


def mean_and_spread(values):
    """Give the mean of repeated runs and their sample standard deviation (n − 1 in the denominator).

    Args:
        values: (..., R) numbers, one for each of R runs, such as one accuracy a seed.

    Returns:
        (mean, spread): (...) float64 each; the spread of a single run is nan.

    Raises:
        ValueError: where there is no run.
    """
    values = np.asarray(values, float)
    runs = values.shape[-1] if values.ndim else 0
    if not runs:
        raise ValueError(f"mean_and_spread: values has shape {values.shape}, expected (..., R) with at least one run")
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) if runs > 1 else values[..., 0] * np.nan


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
