"""COCO's evaluator of detections: its annotations, made and checked, and its average precision, without its prints."""

import collections
import contextlib
import io
import math
from collections.abc import Sequence

import numpy as np

from cvlab.boxes import convert


def annotations(
    boxes_name: str,
    boxes: Sequence,
    labels_name: str,
    labels: Sequence,
    class_names: Sequence | None,
    scores: Sequence | None = None,
) -> list:
    """Convert lists by image to COCO's annotations, numbered from 1, as 0 means unmatched in the evaluator."""
    converted, last = [], math.inf if class_names is None else len(class_names) - 1
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
            annotation: dict = {"id": len(converted) + 1, "image_id": image, "category_id": int(label), "iscrowd": 0}
            annotation |= {"bbox": [x_min, y_min, *size], "area": size[0] * size[1]}
            converted.append(annotation if scores is None else annotation | {"score": float(scores[image][index])})
    return converted


def ignored(
    kind: str, boxes: Sequence | None, labels: Sequence | None, count: int, class_names: Sequence | None
) -> list:
    """Convert crowds or difficult objects to COCO's annotations, after checking that there is one entry per image."""
    if boxes is None and labels is None:
        return []
    if boxes is None or labels is None or not len(boxes) == len(labels) == count:
        lengths = " and ".join("None" if each is None else f"{len(each)}" for each in (boxes, labels))
        raise ValueError(
            f"detection_scores: {kind}_boxes and {kind}_labels hold {lengths} entries, expected {count} "
            "each, one per image, or None for both"
        )
    return annotations(f"{kind}_boxes", boxes, f"{kind}_labels", labels, class_names)


def with_ignored(truth: list, crowds: list, difficult: list, detections: list) -> list:
    """Add crowd regions and difficult objects to the true annotations, as the evaluator expects them."""
    truth = truth + [annotation | {"iscrowd": 1} for annotation in crowds]
    # The evaluator ignores objects outside its range of areas, but lets each match only one detection. So each
    # difficult object is repeated as often as there are detections of its class in its image.
    counts = collections.Counter((annotation["image_id"], annotation["category_id"]) for annotation in detections)
    for annotation in difficult:
        truth += [annotation | {"area": -1}] * counts[annotation["image_id"], annotation["category_id"]]
    return [annotation | {"id": number} for number, annotation in enumerate(truth, 1)]


def average_precision(truth: list, detections: list, num_images: int, classes: list, max_boxes: int) -> np.ndarray:
    """Run COCO's evaluator: average precision by IoU threshold and class, nan for classes without objects."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # the evaluator prints its progress
        sides = []
        for annotated in (truth, detections):
            side = COCO()
            side.dataset = {
                "images": [{"id": image} for image in range(num_images)],
                "categories": [{"id": label} for label in classes],
                "annotations": annotated,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluator.params.maxDets = [max_boxes]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, 0].mean(axis=1)
    precision[precision < 0] = np.nan  # −1: no object of the class
    return precision
