"""Regions of interest: pool any box of a feature map to a fixed number of cells, with rounding and without."""

from typing import Any

import numpy as np


def roi_pool(feature_map: Any, regions: Any, size: int = 7) -> Any:
    """Pool each region of a feature map to size × size cells: the maximum over whole cells, as in Fast R-CNN.

    A region's corners are rounded to cells, both of which belong to it, so that it has at least one. It is divided into
    size × size bins, each from the cell that its lower edge lies in to the one that its upper edge lies in; bins may
    share cells. A bin outside the map gives 0.

    Args:
        feature_map: (H, W, C), or (N, H, W, C) for N images, float.
        regions: (R, 4), or (N, R, 4), xyxy in cells of the map (pixels divided by the stride).
        size: cells a side of what is returned.

    Returns:
        Tensor (R, size, size, C), or (N, R, size, size, C).

    Raises:
        ValueError: for other shapes, or size < 1.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.1; it is torchvision's `roi_pool`.
    """
    from keras import ops

    feature_map, regions = _check_regions("roi_pool", feature_map, regions, size=size)
    if len(feature_map.shape) == 3:
        return roi_pool(feature_map[None], regions[None], size)[0]
    rows = _bins(regions[..., 1], regions[..., 3], feature_map.shape[1], size)  # (N, R, size, H)
    columns = _bins(regions[..., 0], regions[..., 2], feature_map.shape[2], size)
    nothing, maps, by_row, pooled = -float("inf"), feature_map[:, None], [], []
    for i in range(size):
        by_row.append(ops.max(ops.where(rows[:, :, i, :, None, None], maps, nothing), axis=2))  # (N, R, W, C)
    by_row = ops.stack(by_row, axis=2)
    for j in range(size):
        pooled.append(ops.max(ops.where(columns[:, :, None, j, :, None], by_row, nothing), axis=3))
    pooled = ops.stack(pooled, axis=3)
    return ops.where(pooled == nothing, 0.0, pooled)


def _bins(low, high, length, size):
    """Say which of `length` cells belong to each of the bins from `low` to `high`: bool (..., size, length)."""
    from keras import ops

    start, end = (ops.sign(x) * ops.floor(ops.abs(x) + 0.5) for x in (low[..., None], high[..., None]))  # as C rounds
    count = ops.maximum(end - start + 1, 1)
    first = start + ops.floor(count * np.arange(size, dtype="float32") / size)
    last = start + ops.ceil(count * np.arange(1, size + 1, dtype="float32") / size)
    cells = np.arange(length, dtype="float32")
    return ops.logical_and(first[..., None] <= cells, last[..., None] > cells)


def roi_align(feature_map: Any, regions: Any, size: int = 7, sampling: int = 2) -> Any:
    """Pool each region of a feature map to size × size cells without rounding: means of bilinear samples.

    Each bin has sampling × sampling points, evenly spread. A cell's value stands for its centre, half a cell from its
    edges (torchvision's `aligned=True`): with edges at pixel borders, the centre of the first cell is at 0.5. Beyond
    the outermost centres a map continues with their values for half a cell, and one and a half cells out it is 0.

    Bilinear weights are a product of one for the row and one for the column. So all the points of a bin row are one
    vector of weights over the map's rows, and the pooled region is two products of matrices.

    Args, Returns, Raises: as `roi_pool`; sampling: points a side of a bin, at least 1.

    Source: He et al., Mask R-CNN, ICCV 2017; it is torchvision's `roi_align` with `aligned=True` and this
    `sampling_ratio`.
    """
    from keras import ops

    feature_map, regions = _check_regions("roi_align", feature_map, regions, size=size, sampling=sampling)
    if len(feature_map.shape) == 3:
        return roi_align(feature_map[None], regions[None], size, sampling)[0]
    rows = _bilinear(regions[..., 1], regions[..., 3], feature_map.shape[1], size, sampling)  # (N, R, size, H)
    columns = _bilinear(regions[..., 0], regions[..., 2], feature_map.shape[2], size, sampling)
    by_row = ops.einsum("nrih,nhwc->nriwc", rows, feature_map)
    return ops.einsum("nriwc,nrjw->nrijc", by_row, columns)


def _bilinear(low, high, length, size, sampling):
    """Weigh `length` cells for each of the bins from `low` to `high`: (..., size, length), the mean of its points."""
    from keras import ops

    steps = ((np.arange(size * sampling) + 0.5) / (size * sampling)).reshape(size, sampling).astype("float32")
    points = low[..., None, None] + (high - low)[..., None, None] * steps - 0.5  # 0 is the first cell's centre
    inside = ops.cast(ops.logical_and(points >= -1, points <= length), "float32")
    distance = ops.abs(ops.clip(points, 0, length - 1)[..., None] - np.arange(length, dtype="float32"))
    return ops.mean(ops.maximum(1 - distance, 0) * inside[..., None], axis=-2)


def _check_regions(function, feature_map, regions, **counts):
    """Give both as float32, or say what is wrong."""
    from keras import ops

    for argument, count in counts.items():
        if not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"{function}: {argument}={count!r}, expected a whole number of at least 1")
    shapes = tuple(feature_map.shape), tuple(regions.shape)
    if (len(shapes[0]), len(shapes[1])) not in ((3, 2), (4, 3)) or shapes[1][-1] != 4:
        raise ValueError(
            f"{function}: feature_map has shape {shapes[0]} and regions {shapes[1]}, expected (H, W, C) with (R, 4), "
            "or (N, H, W, C) with (N, R, 4)"
        )
    return ops.cast(feature_map, "float32"), ops.cast(regions, "float32")
