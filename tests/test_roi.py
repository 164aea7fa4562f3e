"""Regions of interest: RoI align and RoI pooling against plain loops, TensorFlow and ONNX Runtime."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvlab import roi


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def bilinear(feature_map, y, x):
    """Sample a map (H, W, C) at one point as torchvision's kernel does: its source, with the same branches."""
    height, width = feature_map.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature_map.shape[2])
    y, x = max(y, 0), max(x, 0)
    y_low, x_low = int(y), int(x)
    if y_low >= height - 1:
        y_high = y_low = y = height - 1
    else:
        y_high = y_low + 1
    if x_low >= width - 1:
        x_high = x_low = x = width - 1
    else:
        x_high = x_low + 1
    ly, lx = y - y_low, x - x_low
    top = (1 - lx) * feature_map[y_low, x_low] + lx * feature_map[y_low, x_high]
    bottom = (1 - lx) * feature_map[y_high, x_low] + lx * feature_map[y_high, x_high]
    return (1 - ly) * top + ly * bottom


def slow_align(feature_map, regions, size, sampling):
    """RoI align point by point: torchvision's definition with aligned=True."""
    pooled = np.zeros((len(regions), size, size, feature_map.shape[2]))
    for region, (x1, y1, x2, y2) in zip(pooled, np.asarray(regions, float) - 0.5):
        height, width = (y2 - y1) / size, (x2 - x1) / size
        for i, j, a, b in np.ndindex(size, size, sampling, sampling):
            y = y1 + i * height + (a + 0.5) * height / sampling
            x = x1 + j * width + (b + 0.5) * width / sampling
            region[i, j] += bilinear(feature_map, y, x) / sampling**2
    return pooled


def slow_pool(feature_map, regions, size):
    """RoI pooling bin by bin: Fast R-CNN's code, in cells."""
    height, width, channels = feature_map.shape
    pooled = np.zeros((len(regions), size, size, channels))
    for region, corners in zip(pooled, regions):
        x1, y1, x2, y2 = (int(np.sign(corner) * np.floor(abs(corner) + 0.5)) for corner in corners)
        rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(size, size):
            top, bottom = y1 + i * rows // size, y1 - (-(i + 1) * rows // size)
            left, right = x1 + j * columns // size, x1 - (-(j + 1) * columns // size)
            cells = feature_map[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            if cells.size:
                region[i, j] = cells.max((0, 1))
    return pooled


MAP = np.random.default_rng(0).normal(size=(6, 9, 3)).astype(np.float32)
CORNERS = st.floats(-3, 11, width=16)
SIDES = st.floats(0, 8, width=16)
REGIONS = st.lists(st.tuples(CORNERS, CORNERS, SIDES, SIDES), min_size=1, max_size=4)


def as_regions(drawn):
    x, y, width, height = np.float32(drawn).T
    return np.stack([x, y, x + width, y + height], axis=1)


@settings(max_examples=40, deadline=None)
@given(REGIONS, st.integers(1, 4), st.integers(1, 3))
def test_roi_align_is_the_mean_of_bilinear_samples(drawn, size, sampling):
    regions = as_regions(drawn)
    aligned = numpy(roi.roi_align(MAP, regions, size, sampling))
    np.testing.assert_allclose(aligned, slow_align(MAP, regions, size, sampling), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(REGIONS, st.integers(1, 4))
def test_roi_pooling_is_the_maximum_over_rounded_bins(drawn, size):
    regions = as_regions(drawn)
    np.testing.assert_allclose(numpy(roi.roi_pool(MAP, regions, size)), slow_pool(MAP, regions, size), atol=1e-6)


GRID = np.float32([[1, 3, 0, 2], [5, 7, 4, 6], [9, 8, 2, 1], [0, 4, 3, 5]])[..., None]
ON_GRID = np.float32([[0.5, 0.8, 3.2, 3.6], [1, 1, 3, 3], [-1, -0.5, 2.5, 5]])


@pytest.mark.contract
def test_both_give_what_onnx_runtime_gives():
    # By onnxruntime 1.32: RoiAlign with coordinate_transformation_mode="half_pixel" (torchvision's aligned=True),
    # mode="avg" and sampling_ratio=2; and MaxRoiPool. Spatial scale 1, 2×2 cells. Neither is part of the environment.
    aligned = [
        [[5.96437406539917, 3.768125057220459], [6.043750762939453, 3.0612499713897705]],
        [[6.0, 3.875], [6.75, 2.96875]],
        [[1.5625, 3.863281011581421], [1.265625, 4.042969226837158]],
    ]
    np.testing.assert_allclose(numpy(roi.roi_align(GRID, ON_GRID, 2))[..., 0], aligned, atol=1e-5)
    pooled = [[[8, 6], [4, 5]], [[8, 6], [8, 5]], [[9, 8], [9, 8]]]
    np.testing.assert_allclose(numpy(roi.roi_pool(GRID, ON_GRID, 2))[..., 0], pooled)


def test_within_the_map_roi_align_is_tensorflows_crop_and_resize():
    tf = pytest.importorskip("tensorflow")
    regions = np.float32([[1, 1.5, 7.25, 4.5], [2.2, 0.9, 5.6, 5.1]])
    size, sampling = 3, 2
    points = size * sampling  # its points lie at both ends, from pixel centre to pixel centre; ours in bins' middles
    step = (regions[:, 2:] - regions[:, :2]) / points
    first, last = regions[:, :2] - 0.5 + step / 2, regions[:, 2:] - 0.5 - step / 2
    relative = np.concatenate([first[:, ::-1], last[:, ::-1]], axis=1) / np.float32([5, 8, 5, 8])
    samples = tf.image.crop_and_resize(MAP[None], relative, [0, 0], (points, points)).numpy()
    means = samples.reshape(2, size, sampling, size, sampling, 3).mean((2, 4))
    np.testing.assert_allclose(numpy(roi.roi_align(MAP, regions, size, sampling)), means, atol=1e-5)


@pytest.mark.contract
@pytest.mark.parametrize("pooling", [roi.roi_align, roi.roi_pool])
def test_images_are_pooled_each_from_its_own_map(pooling):
    maps, regions = np.stack([MAP, MAP[::-1]]), np.float32([[[1, 1, 4, 5], [0, 2, 6, 6]]] * 2)
    together = numpy(pooling(maps, regions, 2))
    assert together.shape == (2, 2, 2, 2, 3)
    for pooled, each in zip(together, maps):
        np.testing.assert_allclose(pooled, numpy(pooling(each, regions[0], 2)), atol=1e-6)


def test_shifted_by_less_than_a_cell_only_align_changes():
    regions = np.float32([[2, 1, 6, 5], [2.4, 1.4, 6.4, 5.4]])
    pooled, aligned = (numpy(pooling(MAP, regions, 4)) for pooling in (roi.roi_pool, roi.roi_align))
    assert np.array_equal(pooled[0], pooled[1]) and not np.allclose(aligned[0], aligned[1], atol=0.1)


@pytest.mark.parametrize("pooling", [roi.roi_align, roi.roi_pool])
def test_regions_that_do_not_fit_are_told(pooling):
    name = pooling.__name__
    with pytest.raises(ValueError, match=rf"{name}: feature_map has shape \(6, 9, 3\) and regions \(4,\)"):
        pooling(MAP, np.zeros(4))
    with pytest.raises(ValueError, match=f"{name}: feature_map has shape"):
        pooling(MAP, np.zeros((2, 5)))
    with pytest.raises(ValueError, match=f"{name}: size=0, expected a whole number"):
        pooling(MAP, np.zeros((2, 4)), 0)
    with pytest.raises(ValueError, match="roi_align: sampling=0"):
        roi.roi_align(MAP, np.zeros((2, 4)), 2, 0)
