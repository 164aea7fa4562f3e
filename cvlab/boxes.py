"""Bounding boxes: coordinate formats, overlap, non-maximum suppression, anchors, and offsets from anchors.

A box is `[x_min, y_min, x_max, y_max]` in pixels, with x to the right, y down, and edges at pixel borders. Arrays and
lists are checked, and give float32 NumPy arrays (integers above 2**24 are rounded). All functions but `nms` and
`anchors` also take Keras tensors of any backend and then return tensors, with gradients; the shape of a tensor is
checked, its values are not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvlab.engine import pairs, suppression

_FORMS = {
    "xyxy": "[x_min, y_min, x_max, y_max]",
    "xywh": "[x_min, y_min, width, height]",
    "cxcywh": "[x_centre, y_centre, width, height]",
}


def convert(boxes: Any, source: str, target: str) -> Any:
    """Convert boxes from one coordinate format to another.

    Args:
        boxes: (..., 4) numbers in pixels, in the format `source`.
        source, target: `"xyxy"`, `"xywh"` (corner and size) or `"cxcywh"` (centre and size).

    Returns:
        (..., 4) float32 in the format `target`.

    Raises:
        ValueError: for an unknown format, a wrong shape, a value that is not finite, or a negative size.
    """
    for argument, form in (("source", source), ("target", target)):
        if form not in _FORMS:
            raise ValueError(f"boxes.convert: {argument} is {form!r}, expected one of {', '.join(map(repr, _FORMS))}")
    xp = _namespace(boxes)
    a, b, c, d = _planes(_checked("convert: boxes", boxes, xp, form=source))
    if source == "xywh":
        c, d = a + c, b + d
    elif source == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if target == "xywh":
        c, d = c - a, d - b
    elif target == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return xp.stack([a, b, c, d], axis=-1)


def area(boxes: Any) -> Any:
    """Compute the area of each box: (..., 4) float xyxy → (...) float32, in square pixels."""
    return _area(_planes(_checked("area: boxes", boxes, _namespace(boxes))))


def iou(a: Any, b: Any) -> Any:
    """Compute the intersection over union of every box of `a` with every box of `b`.

    A box without area has IoU 0 with every box, itself included. If Keras has been imported, its backend compares
    thousands of boxes with thousands, compiled; the last bits may then differ from NumPy's.

    Args:
        a: (N, 4) float, xyxy in pixels.
        b: (M, 4) float, xyxy in pixels.

    Returns:
        (N, M) float32 in [0, 1].

    Raises:
        ValueError: for a wrong shape, a value that is not finite, x_max < x_min or y_max < y_min.
    """
    return _pairwise("iou", _iou, a, b)


def giou(a: Any, b: Any) -> Any:
    """Compute the generalized IoU, which tells near from far even if boxes do not overlap.

    GIoU = IoU − (|C| − |A ∪ B|) / |C|, where C is the smallest box around A and B. If C has no area, GIoU is 0.

    Args and Raises: as in `iou`.

    Returns:
        (N, M) float32 in [−1, 1], at most the IoU.

    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.
    """
    return _pairwise("giou", _giou, a, b)


def paired_iou(a: Any, b: Any) -> Any:
    """Compute the IoU of each box of `a` with its partner in `b`: (..., 4), (..., 4) → (...) float32.

    For tensors it is differentiable, and no gradient is NaN; if boxes don't overlap, the gradient is 0. Predicted boxes
    must have x_min ≤ x_max and y_min ≤ y_max, since a tensor's values are not checked.
    """
    return _iou(*_partners("paired_iou", a, b))


def paired_giou(a: Any, b: Any) -> Any:
    """Compute the GIoU of each box of `a` with its partner in `b`. See `paired_iou` and `giou`."""
    return _giou(*_partners("paired_giou", a, b))


def paired_diou(a: Any, b: Any) -> Any:
    """Compute the distance IoU of each box of `a` with its partner in `b`: (..., 4), (..., 4) → (...) float32.

    It is the IoU minus the squared distance of the two centres, divided by the squared diagonal of the smallest box
    around both. See `paired_iou` for tensors.

    Source: Zheng et al., "Distance-IoU Loss", AAAI 2020, equation 7.
    """
    xp, a, b = _partners("paired_diou", a, b)
    return _iou(xp, a, b) - _centre_distance(xp, a, b)


def paired_ciou(a: Any, b: Any) -> Any:
    """Compute the complete IoU of each box of `a` with its partner in `b`: the distance IoU minus a shape term.

    The term compares the boxes' ratios of width to height. Its weight is treated as a constant in the gradient, as in
    the authors' code. See `paired_diou`.

    Source: Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8 to 11.
    """
    xp, a, b = _partners("paired_ciou", a, b)
    iou = _iou(xp, a, b)
    difference = (4 / np.pi**2) * (_aspect_angle(xp, a) - _aspect_angle(xp, b)) ** 2  # 0 for the same shape, below 1
    weight = difference / xp.maximum(1 - iou + difference, 1e-7)
    if xp is not np:
        weight = xp.stop_gradient(weight)
    return iou - _centre_distance(xp, a, b) - weight * difference


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float = 0.5,
    max_boxes: int | None = None,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Suppress boxes that overlap a better one: greedy non-maximum suppression.

    In order of falling score, a box is kept unless its IoU with a kept one is above the threshold (at the threshold it
    is kept). Of equal scores, the earlier one comes first. The result equals that of `tf.image.non_max_suppression`.

    Args:
        boxes: (N, 4) float, xyxy in pixels.
        scores: (N,) float, compared as float32.
        iou_threshold: number from 0 to 1.
        max_boxes: largest number of boxes to keep; None for all.
        labels: (N,) int; if given, boxes with different labels do not suppress each other.

    Returns:
        (K,) int64, the indices of the kept boxes, in order of falling score.

    Raises:
        ValueError: as in `iou`; for scores or labels of another length, a NaN score, or an option out of range.
    """
    boxes, scores = _checked("nms: boxes", boxes, np, ndim=2), np.asarray(scores, np.float32)
    groups = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    for argument, values in (("scores", scores), ("labels", groups)):
        if values.shape != boxes.shape[:1]:
            raise ValueError(f"boxes.nms: {argument} has shape {values.shape}, expected ({len(boxes)},), one per box")
    if np.isnan(scores).any():
        raise ValueError(f"boxes.nms: scores[{np.isnan(scores).argmax()}] is NaN, expected numbers")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"boxes.nms: iou_threshold is {iou_threshold!r}, expected a number from 0 to 1")
    if max_boxes is not None and max_boxes < 0:
        raise ValueError(f"boxes.nms: max_boxes is {max_boxes!r}, expected None or at least 0")
    order = suppression.by_score(scores)
    iou_threshold = float(iou_threshold)  # a NumPy float64 would compare in float64
    limit = len(boxes) if max_boxes is None else max_boxes
    kept = [order[:0]]  # ranks, not indices: sorting ranks sorts by score
    for label in [0] if labels is None else np.unique(groups):
        ranks = np.flatnonzero(groups[order] == label)
        kept.append(ranks[_suppressed(boxes[order[ranks]], iou_threshold, limit)])
    return order[np.sort(np.concatenate(kept))[:limit]]


def _suppressed(boxes, iou_threshold, limit):
    """Return the positions of the kept boxes, at least `limit` if there are so many; `boxes` are given best first."""
    count = 2 * limit
    kept = suppression.greedy(boxes[:count], iou_threshold, _iou)
    while len(kept) < limit and count < len(boxes):  # later boxes never change which earlier ones are kept
        count *= 4
        kept = suppression.greedy(boxes[:count], iou_threshold, _iou)
    return kept


def anchors(
    image_size: Any,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    sizes: Sequence = (32, 64, 128, 256, 512),
    ratios: Sequence[float] = (0.5, 1, 2),
    scales: Sequence[float] = (1, 2 ** (1 / 3), 2 ** (2 / 3)),
    by_level: bool = False,
) -> Any:
    """Lay out the anchors of a feature pyramid; the defaults are RetinaNet's, nine per cell on the levels P3 to P7.

    A level of stride s has ceil(height / s) rows and ceil(width / s) columns of cells, centred at ((column + ½) s,
    (row + ½) s). An anchor has the area (size × scale)² and the ratio height / width. It may reach beyond the image.

    Args:
        image_size: (height, width) in pixels, or one int for both.
        strides, sizes: pixels per cell, and side in pixels of the square anchor of scale 1, both by level.
        ratios, scales: of the anchors of each cell, the same on every level.
        by_level: return a list with one array per level instead of a single array.

    Returns:
        (A, 4) float32 xyxy, ordered by level, row, column, ratio and scale, the last varying fastest: the order of a
        head's feature maps (rows, columns, ratios × scales × 4), each reshaped to (-1, 4).

    Raises:
        ValueError: for numbers that are not positive, and for another number of strides than sizes.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.
    """
    height, width = (image_size, image_size) if np.ndim(image_size) == 0 else image_size
    given = {"image_size": (height, width), "strides": strides, "sizes": sizes, "ratios": ratios, "scales": scales}
    for argument, values in given.items():
        if not len(values) or min(values) <= 0:
            raise ValueError(f"boxes.anchors: {argument} is {values!r}, expected positive numbers")
    if len(strides) != len(sizes):
        raise ValueError(
            f"boxes.anchors: {len(strides)} strides but {len(sizes)} sizes, expected one of each per level"
        )
    ratio, scale = (grid.ravel() for grid in np.meshgrid(ratios, scales, indexing="ij"))
    shapes = np.stack([scale / np.sqrt(ratio), scale * np.sqrt(ratio)], axis=-1)  # (K, 2): width, height at size 1
    levels = []
    for stride, size in zip(strides, sizes):
        x, y = ((np.arange(-(-length // stride)) + 0.5) * stride for length in (width, height))
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
        boxes = np.concatenate([centres - shapes * size / 2, centres + shapes * size / 2], axis=-1)
        levels.append(boxes.reshape(-1, 4).astype(np.float32))
    return levels if by_level else np.concatenate(levels)


def encode(boxes: Any, anchors: Any, variances: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Express boxes as offsets from their anchors, the targets of a box head.

    The offsets are Δx / w, Δy / h and the logarithms of the ratios of the widths and of the heights, with Δ between the
    centres and w, h of the anchor, each divided by its variance, such as (0.1, 0.1, 0.2, 0.2).

    Args:
        boxes, anchors: (..., 4) float, xyxy in pixels, matched one to one, none without area.
        variances: four positive numbers.

    Returns:
        (..., 4) float32.

    Raises:
        ValueError: as in `iou`, and for a box or an anchor without area.

    Source: Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C.
    """
    xp = _namespace(boxes, anchors)
    x, y, w, h = _planes(convert(_checked("encode: boxes", boxes, xp, solid=True), "xyxy", "cxcywh"))
    ax, ay, aw, ah = _planes(convert(_checked("encode: anchors", anchors, xp, solid=True), "xyxy", "cxcywh"))
    deltas = (x - ax) / aw, (y - ay) / ah, xp.log(w / aw), xp.log(h / ah)
    return xp.stack([delta / variance for delta, variance in zip(deltas, variances)], axis=-1)


def decode(deltas: Any, anchors: Any, variances: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Turn offsets from anchors into boxes: the inverse of `encode`.

    A side becomes at most 62.5 times (1000 / 16, as in Detectron) as long as the anchor's, so that it can't overflow.
    Boxes are not clipped to the image.

    Args:
        deltas: (..., 4) float. anchors: (..., 4) float, xyxy in pixels. variances: as in `encode`.

    Returns:
        (..., 4) float32, xyxy in pixels.
    """
    xp = _namespace(deltas, anchors)
    deltas = _planes(_checked("decode: deltas", deltas, xp, form=None))
    dx, dy, dw, dh = (delta * variance for delta, variance in zip(deltas, variances))
    ax, ay, aw, ah = _planes(convert(_checked("decode: anchors", anchors, xp), "xyxy", "cxcywh"))
    x, y = ax + dx * aw, ay + dy * ah
    w, h = (side * xp.exp(xp.minimum(d, float(np.log(1000 / 16)))) for side, d in ((aw, dw), (ah, dh)))
    return xp.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def _namespace(*arrays):
    """Choose `numpy` for arrays and lists, `keras.ops` if one of them is a tensor."""
    if all(isinstance(array, (np.ndarray, list, tuple)) for array in arrays):
        return np
    from keras import ops

    return ops


def _checked(argument, boxes, xp, ndim=None, form="xyxy", solid=False):
    """Convert boxes to float32 (..., 4), or say which one is wrong. With `form=None`, any finite values are allowed."""
    try:
        boxes = np.asarray(boxes, np.float32) if xp is np else xp.cast(boxes, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes.{argument} cannot be read as numbers: {error}") from None
    boxes = boxes.reshape(0, 4) if xp is np and boxes.shape == (0,) else boxes
    shape = tuple(boxes.shape)
    if shape[-1:] != (4,) or ndim not in (None, len(shape)):
        raise ValueError(f"boxes.{argument} has shape {shape}, expected {'(N, 4)' if ndim == 2 else '(..., 4)'}")
    if xp is not np:
        return boxes
    a, b, c, d = _planes(boxes)
    faults = {"a value that is not finite": ~np.logical_and.reduce([np.isfinite(plane) for plane in (a, b, c, d)])}
    if form == "xyxy":
        faults |= {"x_max < x_min": c < a, "y_max < y_min": d < b}
    elif form:
        faults |= {"width < 0": c < 0, "height < 0": d < 0}
    if solid:
        faults["no area"] = (c == a) | (d == b)
    for fault, faulty in faults.items():
        if faulty.any():
            index = np.argwhere(faulty)[0].tolist()
            name = f"{argument}[{', '.join(map(str, index))}]" if index else argument
            values = ", ".join(f"{value:g}" for value in boxes[tuple(index)])
            raise ValueError(f"boxes.{name} = [{values}] has {fault}; expected {_FORMS.get(form, '4 finite numbers')}")
    return boxes


def _planes(boxes):
    return tuple(boxes[..., k] for k in range(4))


def _area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(xp, a, b):
    width = xp.minimum(a[2], b[2]) - xp.maximum(a[0], b[0])
    height = xp.minimum(a[3], b[3]) - xp.maximum(a[1], b[1])
    return xp.maximum(width, 0) * xp.maximum(height, 0)


def _iou(xp, a, b):
    """Compute the IoU of boxes whose four coordinates broadcast."""
    intersection = _intersection(xp, a, b)
    return _ratio(xp, intersection, _area(a) + _area(b) - intersection)


def _giou(xp, a, b):
    """Compute the generalized IoU of boxes whose four coordinates broadcast."""
    intersection = _intersection(xp, a, b)
    union = _area(a) + _area(b) - intersection
    width, height = _hull(xp, a, b)
    return _ratio(xp, intersection, union) - _ratio(xp, width * height - union, width * height)


def _ratio(xp, part, whole):
    """Divide areas; the ratio of nothing to nothing is 0, and so is its gradient."""
    return part / xp.where(whole > 0, whole, 1.0)


def _hull(xp, a, b):
    """Compute the width and height of the smallest box around both."""
    return xp.maximum(a[2], b[2]) - xp.minimum(a[0], b[0]), xp.maximum(a[3], b[3]) - xp.minimum(a[1], b[1])


def _centre_distance(xp, a, b):
    """Divide the squared distance of the centres by the squared diagonal of the smallest box around both."""
    x, y = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    width, height = _hull(xp, a, b)
    diagonal = width**2 + height**2
    return (x**2 + y**2) / xp.where(diagonal > 0, diagonal, 1.0)


def _aspect_angle(xp, box):
    """Compute the angle whose tangent is width over height."""
    return xp.arctan2(box[2] - box[0], xp.maximum(box[3] - box[1], 1e-6))  # at (0, 0) the gradient would be NaN


def _partners(name, a, b):
    """Return the namespace of both arrays and their coordinates, or say that their shapes differ."""
    xp = _namespace(a, b)
    a, b = _checked(f"{name}: a", a, xp), _checked(f"{name}: b", b, xp)
    if xp is np and a.shape != b.shape:
        raise ValueError(f"boxes.{name}: a has shape {a.shape} but b {b.shape}, expected the same, partner by partner")
    return xp, _planes(a), _planes(b)


def _pairwise(name, measure, a, b):
    """Apply a measure of `_iou` or `_giou` to every pair; arrays are compared tile by tile."""
    xp = _namespace(a, b)
    a, b = _checked(f"{name}: a", a, xp, ndim=2), _checked(f"{name}: b", b, xp, ndim=2)
    return pairs.tiled(measure, a, b) if xp is np else measure(xp, _planes(a[:, None]), _planes(b))
