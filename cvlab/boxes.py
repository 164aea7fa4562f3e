"""Bounding boxes: forms, overlap, suppression, anchors and offsets from them.

A box is `[x_min, y_min, x_max, y_max]` in pixels, x to the right, y down, edges at pixel borders. Arrays and lists are
checked, and give float32 NumPy arrays (integers above 2**24 are rounded). All functions but `nms` and `anchors` take
Keras tensors too, of any backend: these give tensors, with gradients; their shape is checked, their values are not.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

_FORMS = {
    "xyxy": "[x_min, y_min, x_max, y_max]",
    "xywh": "[x_min, y_min, width, height]",
    "cxcywh": "[x_centre, y_centre, width, height]",
}


def convert(boxes: Any, source: str, target: str) -> Any:
    """Convert boxes from one form to another.

    Args:
        boxes: (..., 4) numbers in pixels, in the form `source`.
        source, target: `"xyxy"`, `"xywh"` (corner and size) or `"cxcywh"` (centre and size).

    Returns:
        (..., 4) float32 in the form `target`.

    Raises:
        ValueError: for an unknown form, a wrong shape, a value that is not finite, or a negative size.
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
    """Measure the area of each box: (..., 4) float xyxy → (...) float32, in square pixels."""
    return _area(_planes(_checked("area: boxes", boxes, _namespace(boxes))))


def iou(a: Any, b: Any) -> Any:
    """Measure the intersection over union of every box of `a` with every box of `b`.

    A box without area has IoU 0 with every box, itself included. Thousands of boxes with thousands are
    compared by Keras' backend, compiled, if Keras has been imported: the last bits may then differ from NumPy's.

    Args:
        a: (N, 4) float, xyxy in pixels.
        b: (M, 4) float, xyxy in pixels.

    Returns:
        (N, M) float32 in [0, 1].

    Raises:
        ValueError: for a wrong shape, a value that is not finite, x_max < x_min or y_max < y_min.
    """
    return _pairwise("iou", a, b, generalized=False)


def giou(a: Any, b: Any) -> Any:
    """Measure the generalized IoU, which tells near from far even where boxes do not overlap.

    GIoU = IoU − (|C| − |A ∪ B|) / |C|, where C is the smallest box around A and B; where C has no area, it is 0.

    Args and Raises: as `iou`.

    Returns:
        (N, M) float32 in [−1, 1], at most the IoU.

    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.
    """
    return _pairwise("giou", a, b, generalized=True)


def paired_iou(a: Any, b: Any) -> Any:
    """Measure the IoU of each box of `a` with its partner in `b`: (..., 4), (..., 4) → (...) float32.

    On tensors it is differentiable, and no gradient is NaN; where boxes are apart, the gradient is 0. Predicted boxes
    must be in order (x_min ≤ x_max, y_min ≤ y_max), since a tensor's values are not checked.
    """
    return _paired("paired_iou", a, b, generalized=False)


def paired_giou(a: Any, b: Any) -> Any:
    """Measure the GIoU of each box of `a` with its partner in `b`. See `paired_iou` and `giou`."""
    return _paired("paired_giou", a, b, generalized=True)


def paired_diou(a: Any, b: Any) -> Any:
    """Measure the distance IoU of each box of `a` with its partner in `b`: (..., 4), (..., 4) → (...) float32.

    From the IoU it takes the squared distance of the two centres, over the squared diagonal of the smallest box around
    both. See `paired_iou` for tensors.

    Source: Zheng et al., "Distance-IoU Loss", AAAI 2020, equation 7.
    """
    xp, a, b = _partners("paired_diou", a, b)
    return _similarity(xp, a, b) - _centre_distance(xp, a, b)


def paired_ciou(a: Any, b: Any) -> Any:
    """Measure the complete IoU of each box of `a` with its partner in `b`: the distance IoU, less a term for the shape.

    The term compares the boxes' ratios of width to height. Its weight counts as a constant in the gradient, as in the
    authors' code. See `paired_diou`.

    Source: Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8 to 11.
    """
    xp, a, b = _partners("paired_ciou", a, b)
    iou = _similarity(xp, a, b)
    difference = (4 / np.pi**2) * (_slant(xp, a) - _slant(xp, b)) ** 2  # 0 for the same shape, below 1
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

    From the best score down, a box is kept unless its IoU with a kept one is above the threshold (at the threshold it
    stays). Of equal scores the earlier goes first. The result is that of `tf.image.non_max_suppression`.

    Args:
        boxes: (N, 4) float, xyxy in pixels.
        scores: (N,) float, compared as float32.
        iou_threshold: number from 0 to 1.
        max_boxes: how many to keep at most; None for all.
        labels: (N,) int; if given, boxes with different labels do not suppress each other.

    Returns:
        (K,) int64, the indices of the kept boxes, by falling score.

    Raises:
        ValueError: as `iou`; for scores or labels of another length, a NaN score, or another option out of range.
    """
    boxes, scores = _checked("nms: boxes", boxes, np, ndim=2), np.asarray(scores, np.float32)
    groups = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    for argument, values in (("scores", scores), ("labels", groups)):
        if values.shape != boxes.shape[:1]:
            raise ValueError(f"boxes.nms: {argument} has shape {values.shape}, expected ({len(boxes)},), one a box")
    if np.isnan(scores).any():
        raise ValueError(f"boxes.nms: scores[{np.isnan(scores).argmax()}] is NaN, expected numbers")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"boxes.nms: iou_threshold is {iou_threshold!r}, expected a number from 0 to 1")
    if max_boxes is not None and max_boxes < 0:
        raise ValueError(f"boxes.nms: max_boxes is {max_boxes!r}, expected None or at least 0")
    order, iou_threshold = _by_score(scores), float(iou_threshold)  # a NumPy float64 would compare in float64
    limit = len(boxes) if max_boxes is None else max_boxes
    kept = [order[:0]]  # ranks, not indices: sorting ranks sorts by score
    for label in [0] if labels is None else np.unique(groups):
        ranks = np.flatnonzero(groups[order] == label)
        count = 2 * limit
        found = _suppress(boxes[order[ranks[:count]]], iou_threshold)
        while len(found) < limit and count < len(ranks):  # what comes later never changes what came before
            count *= 4
            found = _suppress(boxes[order[ranks[:count]]], iou_threshold)
        kept.append(ranks[found])
    return order[np.sort(np.concatenate(kept))[:limit]]


def anchors(
    image_size: Any,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    sizes: Sequence = (32, 64, 128, 256, 512),
    ratios: Sequence[float] = (0.5, 1, 2),
    scales: Sequence[float] = (1, 2 ** (1 / 3), 2 ** (2 / 3)),
    by_level: bool = False,
) -> Any:
    """Lay out the anchors of a feature pyramid; the defaults are RetinaNet's, nine a cell on the levels P3 to P7.

    A level of stride s has ceil(height / s) rows and ceil(width / s) columns of cells, centred at ((column + ½) s,
    (row + ½) s). An anchor has the area (size × scale)² and height / width = ratio. It may reach beyond the image.

    Args:
        image_size: (height, width) in pixels, or one int for both.
        strides, sizes: pixels a cell, and side of the square anchor of scale 1, both by level.
        ratios, scales: of the anchors of each cell, the same on every level.
        by_level: whether to give a list with an array a level instead of all in one.

    Returns:
        (A, 4) float32 xyxy, by level, then row, column, ratio, and scale, the last running fastest: the order of a
        head's feature maps (rows, columns, ratios × scales × 4), each reshaped to (-1, 4).

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.
    """
    height, width = (image_size, image_size) if np.ndim(image_size) == 0 else image_size
    given = {"image_size": (height, width), "strides": strides, "sizes": sizes, "ratios": ratios, "scales": scales}
    for argument, values in given.items():
        if not len(values) or min(values) <= 0:
            raise ValueError(f"boxes.anchors: {argument} is {values!r}, expected positive numbers")
    if len(strides) != len(sizes):
        raise ValueError(f"boxes.anchors: {len(strides)} strides but {len(sizes)} sizes, expected one of each a level")
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
    """Express boxes as offsets from their anchors, which is what a box head learns.

    The offsets are (Δx / w, Δy / h, log of the ratio of widths, of heights), with Δ between centres and w, h of the
    anchor, each divided by its variance, such as (0.1, 0.1, 0.2, 0.2).

    Args:
        boxes, anchors: (..., 4) float, xyxy in pixels, matched one to one, none without area.
        variances: four positive numbers.

    Returns:
        (..., 4) float32.

    Raises:
        ValueError: as `iou`, and for a box or an anchor without area.

    Source: Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C.
    """
    xp = _namespace(boxes, anchors)
    x, y, w, h = _planes(convert(_checked("encode: boxes", boxes, xp, solid=True), "xyxy", "cxcywh"))
    ax, ay, aw, ah = _planes(convert(_checked("encode: anchors", anchors, xp, solid=True), "xyxy", "cxcywh"))
    deltas = (x - ax) / aw, (y - ay) / ah, xp.log(w / aw), xp.log(h / ah)
    return xp.stack([delta / variance for delta, variance in zip(deltas, variances)], axis=-1)


def decode(deltas: Any, anchors: Any, variances: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Turn offsets from anchors into boxes, xyxy in pixels: the inverse of `encode`.

    A side grows to at most 62.5 times (1000 / 16, as in Detectron) the anchor's, so that no head overflows. Boxes are
    not clipped to the image.
    """
    xp = _namespace(deltas, anchors)
    deltas = _planes(_checked("decode: deltas", deltas, xp, form=None))
    dx, dy, dw, dh = (delta * variance for delta, variance in zip(deltas, variances))
    ax, ay, aw, ah = _planes(convert(_checked("decode: anchors", anchors, xp), "xyxy", "cxcywh"))
    x, y = ax + dx * aw, ay + dy * ah
    w, h = (side * xp.exp(xp.minimum(d, float(np.log(1000 / 16)))) for side, d in ((aw, dw), (ah, dh)))
    return xp.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def _namespace(*arrays):
    """Give `numpy` for arrays and lists, `keras.ops` where there is a tensor."""
    if all(isinstance(array, (np.ndarray, list, tuple)) for array in arrays):
        return np
    from keras import ops

    return ops


def _checked(argument, boxes, xp, ndim=None, form="xyxy", solid=False):
    """Give boxes as float32 (..., 4), or say which one is wrong. With `form=None`, any finite values will do."""
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
    for fault, where in faults.items():
        if where.any():
            index = np.argwhere(where)[0].tolist()
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


def _similarity(xp, a, b, generalized=False):
    """Give the IoU or GIoU of boxes whose four planes broadcast: the one place where the formula stands."""

    def share(part, whole):  # 0 of nothing is 0, and so is its gradient
        return part / xp.where(whole > 0, whole, 1.0)

    intersection = _intersection(xp, a, b)
    union = _area(a) + _area(b) - intersection
    if not generalized:
        return share(intersection, union)
    width, height = _hull(xp, a, b)
    return share(intersection, union) - share(width * height - union, width * height)


def _hull(xp, a, b):
    """Give width and height of the smallest box around both."""
    return xp.maximum(a[2], b[2]) - xp.minimum(a[0], b[0]), xp.maximum(a[3], b[3]) - xp.minimum(a[1], b[1])


def _centre_distance(xp, a, b):
    """Give the squared distance of the centres over the squared diagonal of the hull."""
    x, y = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    width, height = _hull(xp, a, b)
    diagonal = width**2 + height**2
    return (x**2 + y**2) / xp.where(diagonal > 0, diagonal, 1.0)


def _slant(xp, box):
    """Give the angle whose tangent is width over height."""
    return xp.arctan2(box[2] - box[0], xp.maximum(box[3] - box[1], 1e-6))  # at (0, 0) the gradient would be NaN


def _paired(name, a, b, generalized):
    return _similarity(*_partners(name, a, b), generalized)


def _partners(name, a, b):
    """Give the namespace of both arrays and their planes, or say that their shapes differ."""
    xp = _namespace(a, b)
    a, b = _checked(f"{name}: a", a, xp), _checked(f"{name}: b", b, xp)
    if xp is np and a.shape != b.shape:
        raise ValueError(f"boxes.{name}: a has shape {a.shape} but b {b.shape}, expected the same, partner by partner")
    return xp, _planes(a), _planes(b)


def _pairwise(name, a, b, generalized):
    xp = _namespace(a, b)
    a, b = _checked(f"{name}: a", a, xp, ndim=2), _checked(f"{name}: b", b, xp, ndim=2)
    if xp is not np:
        return _all_pairs(xp, a, b, generalized)
    n, m = len(a), len(b)
    if m < 64 < n:  # NumPy is fast along the last axis only
        return np.ascontiguousarray(_pairwise(name, b, a, generalized).T)
    matrix = np.empty((n, m), np.float32)
    compare = functools.partial(_all_pairs, np, generalized=generalized)
    rows, columns = max(1, min(n, 2**16 // max(m, 1))), max(m, 1)  # a tile that stays in the processor's cache
    if min(n, m) >= 1000 and "keras" in sys.modules and _compiled(generalized):
        compare, rows, columns = _compiled(generalized), 2048, 2048  # one shape, so that it is compiled only once
    a, b = (np.asfortranarray(np.pad(x, ((0, -len(x) % side), (0, 0)))) for x, side in ((a, rows), (b, columns)))
    for i in range(0, n, rows):
        for j in range(0, m, columns):
            part = matrix[i : i + rows, j : j + columns]
            part[...] = compare(a[i : i + rows], b[j : j + columns])[: part.shape[0], : part.shape[1]]
    return matrix


def _all_pairs(xp, a, b, generalized):
    return _similarity(xp, _planes(a[:, None]), _planes(b), generalized)


@functools.cache
def _compiled(generalized):
    """Compile `_all_pairs`, for arrays; None where the backend would run it eagerly, no faster than NumPy does."""
    from keras import ops

    from cvlab import backend

    if not backend.compiles():
        return None
    # A compiler may fuse a product and a sum into one rounding: equal boxes would exceed 1 in the last bit.
    tile = backend.jit(lambda a, b: ops.minimum(_all_pairs(ops, a, b, generalized), 1.0), xla=True)
    return lambda a, b: np.asarray(tile(a, b))


def _by_score(scores):
    """Sort indices by falling score, ties by index. As integers, score bits above the index: ten times as fast."""
    bits = (0.0 - scores).view(np.int32)
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(len(scores))
    return np.sort(keys) & 0xFFFFFFFF


def _suppress(boxes, threshold):
    """Give the positions of the boxes that greedy suppression keeps; `boxes` stand in order, the best first.

    Each box is compared only with those groups of neighbours that could hold an IoU above the threshold: with I its
    intersection with the group's hull, or the group's largest area if that is less, and S its own and the group's
    smallest area together, no IoU exceeds I / (S − I).
    """
    planes = np.ascontiguousarray(boxes.T)  # (4, N)
    areas, kept, todo = _area(planes), np.zeros(len(boxes), bool), np.arange(len(boxes))
    while len(todo) > 1000 and kept.sum() < 16:  # a few boxes against all: enough where these overlap all the others
        best, todo = todo[0], todo[1:]
        kept[best] = True
        todo = todo[_similarity(np, planes[:, best], planes[:, todo]) <= threshold]
    kept[todo] = True
    while todo.size:
        groups = _groups(planes, todo, size=64)  # (G, S), until half of their boxes are done with
        members, member_areas = planes[:, groups], areas[groups]
        hulls = (*members[:2].min(axis=2), *members[2:].max(axis=2))
        smallest, largest = member_areas.min(axis=1), member_areas.max(axis=1)
        until = len(todo) // 2 if len(groups) > 8 else 0
        while len(todo) > until:
            block, todo = todo[:128], todo[128:]
            block = block[kept[block]]
            box = planes[:, block, None]
            reach = np.minimum(_intersection(np, box, hulls), largest)
            least = (areas[block, None] + smallest) * (threshold * (1 - 1e-5))  # with a margin for rounding
            row, group = np.nonzero(reach * (1 + threshold) > least)
            others = groups[group]
            above = _similarity(np, box[:, row], members[:, group]) > threshold
            pair, member = np.nonzero(above & (others > block[row, None]))
            worse = others[pair, member]
            ends = np.searchsorted(row[pair], np.arange(len(block)), side="right").tolist()
            for better, start, end in zip(block.tolist(), [0, *ends], ends):
                if start < end and kept[better]:
                    kept[worse[start:end]] = False
        todo = todo[kept[todo]]
    return np.flatnonzero(kept)


def _groups(planes, indices, size):
    """Halve boxes along x_min, y_min, x_max, y_max in turn into equal groups of neighbours, as a k-d tree does."""
    levels = (-(-len(indices) // size) - 1).bit_length()
    groups = np.pad(indices, (0, -len(indices) % 2**levels), mode="edge")[None]
    for level in range(levels):
        order = np.argpartition(planes[level % 4][groups], groups.shape[1] // 2, axis=1)
        groups = np.take_along_axis(groups, order, axis=1).reshape(2 * len(groups), -1)
    return groups
