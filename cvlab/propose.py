"""Region proposals, from sliding windows or by selective search; `rcnn` classifies them.

R-CNN's own functions can be reached from here as well.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvlab.rcnn import (  # noqa: F401
    VARIANCES,
    check_image,
    crop_features,
    detect,
    examples,
    rcnn,
    train_rcnn,
    warp,
)

SIMILARITIES = ("colour", "texture", "size", "fill")
COLOUR_SPACES = {"rgb": None, "hsv": "COLOR_RGB2HSV_FULL", "lab": "COLOR_RGB2LAB"}  # all with channels 0–255


def sliding_windows(image_size: Any, size: Any, stride: Any) -> np.ndarray:
    """Lay out all windows of one size that lie within an image.

    Args:
        image_size: (height, width) of the image in pixels, or one int for both.
        size: (height, width) of the window in pixels, or one int for both.
        stride: step (down, right) to the next window in pixels, or one int for both.

    Returns:
        (N, 4) float32 xyxy, row by row, with (height − h) // stride + 1 rows, and columns likewise; N = 0 if the window
        is larger than the image. Pixels beyond the last step lie in no window.

    Raises:
        ValueError: for anything but positive integers.
    """
    pairs = {"image_size": image_size, "size": size, "stride": stride}
    for argument, value in pairs.items():
        pair = np.atleast_1d(value)
        if pair.dtype.kind not in "iu" or pair.shape not in ((1,), (2,)) or (pair < 1).any():
            raise ValueError(f"sliding_windows: {argument}={value!r}, expected a positive integer, or two")
        pairs[argument] = np.broadcast_to(pair, 2).tolist()
    (height, width), (h, w), (down, right) = pairs.values()
    x, y = np.meshgrid(np.arange(0, width - w + 1, right), np.arange(0, height - h + 1, down))
    return np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4).astype(np.float32)


def pyramid(image: np.ndarray, smallest: int = 48, factor: float = 2**0.5) -> list:
    """Build an image pyramid: an image at several sizes, so that windows of one size cover objects of many sizes.

    Each level is resized from the image itself, by area interpolation: pixels are averaged, none is skipped.

    Args:
        image: (H, W, 3) uint8 or float32.
        smallest: minimum length of the shorter side in pixels; the first level is always the image itself.
        factor: between the sizes of consecutive levels, above 1.

    Returns:
        list of (image (h, w, 3), scale (4,) float32, [w / W, h / H, w / W, h / H]): a box in a level, divided by its
        scale, is in pixels of `image`, exactly, even though the sides of levels are rounded to whole pixels.

    Raises:
        ValueError: for another kind of image, factor ≤ 1 or smallest < 1.
    """
    import cv2

    image, levels = check_image("pyramid", image), []
    if not (factor > 1 and smallest >= 1):
        raise ValueError(f"pyramid: factor={factor!r} and smallest={smallest!r}, expected above 1, and at least 1")
    sides = size = np.array(image.shape[1::-1])
    while not levels or size.min() >= smallest:
        level = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA) if levels else image
        levels.append((level, np.tile(np.float32(size / sides), 2)))
        size = np.round(sides / factor ** len(levels)).astype(int)
    return levels


def selective_search(
    image: np.ndarray,
    similarities: Sequence[str] = SIMILARITIES,
    scales: Sequence[float] = (50, 150, 300),
    colour_spaces: Sequence[str] = ("hsv", "lab"),
    min_size: int = 50,
    limit: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Propose the boxes of all regions that arise in a bottom-up grouping of the image.

    Felzenszwalb and Huttenlocher's graph-based method segments the image into small regions, once for each scale and
    colour space; `group` merges them. A box's rank is the position of its region in the order of merging, from the last
    one, times a random number, so that the largest boxes of all groupings don't come first.

    Args:
        image: (H, W, 3) uint8 or float32, 0–255. The time grows with its area; 480 pixels a side are plenty.
        similarities: which of SIMILARITIES are used.
        scales: of the initial regions, larger for larger regions: the k of the paper, for channels 0–255.
        colour_spaces: some of COLOUR_SPACES.
        min_size: of the initial regions, in pixels.
        limit: maximum number of boxes; None for all.
        seed: of the ranking.

    Returns:
        (N, 4) float32 xyxy in pixels, best rank first, without duplicates.

    Raises:
        ValueError: for another kind of image, and for no or unknown similarities or colour spaces.

    Source: Uijlings et al., Selective search for object recognition, IJCV 2013 (OpenCV's fast mode has HSV and Lab,
    150 and 300); Felzenszwalb and Huttenlocher, Efficient graph-based image segmentation, IJCV 2004.
    """
    import cv2
    from skimage.segmentation import felzenszwalb

    image = np.clip(check_image("selective_search", image), 0, 255).astype(np.uint8)
    _some_of("colour_spaces", colour_spaces, COLOUR_SPACES)
    generator, proposals, ranks = np.random.default_rng(seed), [], []
    for space in colour_spaces:
        code = COLOUR_SPACES[space]
        converted = cv2.cvtColor(image, getattr(cv2, code)) if code else image
        bins = pixel_bins(converted)  # the same for all scales
        for scale in scales:
            segments = felzenszwalb(converted, scale, sigma=0.8, min_size=min_size)
            region_boxes = group(converted, segments, similarities, bins).boxes
            proposals.append(region_boxes)
            ranks.append(np.arange(len(region_boxes), 0, -1) * generator.random(len(region_boxes)))
    ranked = np.concatenate(proposals)[np.argsort(np.concatenate(ranks), kind="stable")]
    first = np.sort(np.unique(ranked, axis=0, return_index=True)[1])
    return ranked[first[:limit]].astype(np.float32)


def _some_of(argument, given, allowed):
    if isinstance(given, str) or not given or not set(given) <= set(allowed):
        raise ValueError(f"selective_search: {argument}={given!r}, expected a tuple with some of {', '.join(allowed)}")


@dataclasses.dataclass
class Regions:
    """Regions of an image; from `group`, the initial ones followed by the merged ones.

    Attributes:
        sizes: (R,) in pixels. boxes: (R, 4) xyxy in pixels. colour, texture: (R, bins) histograms that sum to 1.
        pairs: (M, 2) int, the two regions that were merged into each of the last M. alike: (M,), their similarity.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    pairs: object = ()
    alike: object = ()

    def similarity(self, a, b, area):
        """Compare regions `a` and `b` (indices) in an image of `area` pixels: {name: 0…1} for SIMILARITIES.

        Colour and texture are histogram intersections; size is the fraction of the image outside both regions; fill is
        1 minus the fraction of the image that lies in the box around both, but in neither of them.
        """
        size, box = self.sizes[a] + self.sizes[b], self.boxes
        sides = np.maximum(box[a, ..., 2:], box[b, ..., 2:]) - np.minimum(box[a, ..., :2], box[b, ..., :2])
        return {
            "colour": np.minimum(self.colour[a], self.colour[b]).sum(-1),
            "texture": np.minimum(self.texture[a], self.texture[b]).sum(-1),
            "size": 1 - size / area,
            "fill": 1 - (sides.prod(-1) - size) / area,
        }


def pixel_bins(image: np.ndarray) -> Any:
    """Compute the histogram bins of each pixel, for `describe`.

    Args:
        image: (H, W, 3) uint8, in any colour space.

    Returns:
        colour (3, H, W) int64, 0–24, one bin per channel; and texture (24, H, W) int64, 0–9, one per direction and
        channel.
    """
    import cv2

    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1)
    right, down = (
        np.ascontiguousarray(np.moveaxis(cv2.Scharr(smooth, cv2.CV_32F, *axis), -1, 0)) for axis in ((1, 0), (0, 1))
    )
    texture = []
    for angle in np.arange(8) * np.pi / 4:
        slope = np.maximum(np.cos(angle) * right + np.sin(angle) * down, 0)
        steepest = slope.max((1, 2), keepdims=True)
        texture.append(np.minimum(slope * (10 / (steepest + 1e-6)), 9).astype(np.int64))
    return np.moveaxis(image.astype(np.int64) * 25 // 256, -1, 0), np.concatenate(texture)


def describe(image: np.ndarray, segments: np.ndarray, bins: Any = None) -> Any:
    """Compute the features of the regions of a segmentation: size, box, and histograms of colour and texture.

    The colour histogram has 25 bins per channel. The texture histogram has 10 bins for the derivative of each smoothed
    channel in each of eight directions.

    Args:
        image: (H, W, 3) uint8, in any colour space.
        segments: (H, W) int, the region of each pixel, from 0 to R − 1.
        bins: from `pixel_bins`, so that several segmentations of one image can share them; None to compute them.

    Returns:
        Regions.

    Raises:
        ValueError: for segments of another shape, or if a number below the largest label is missing.
    """
    from scipy import ndimage

    segments = np.asarray(segments, np.int64)
    flat, sizes = segments.ravel(), np.bincount(segments.ravel())
    if segments.shape != image.shape[:2] or not sizes.all():
        raise ValueError(
            f"describe: segments of shape {segments.shape} with {np.sum(sizes > 0)} labels up to "
            f"{flat.max()}, expected {image.shape[:2]} and every label from 0 upwards"
        )

    def histogram(planes, count):
        row = flat * count
        counts = [np.bincount(row + plane.ravel(), minlength=len(sizes) * count) for plane in planes]
        counts = np.concatenate([plane.reshape(-1, count) for plane in counts], axis=1)
        return (counts / (len(planes) * sizes[:, None])).astype(np.float32)

    colour, texture = pixel_bins(image) if bins is None else bins
    corners = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(segments + 1)]
    return Regions(sizes.astype(float), np.array(corners, float), histogram(colour, 25), histogram(texture, 10))


def group(image: np.ndarray, segments: np.ndarray, similarities: Sequence[str] = SIMILARITIES, bins: Any = None) -> Any:
    """Merge the two most similar neighbours of a segmentation, again and again, until one region is left.

    The features of a merged region follow from its parts: sizes are added, histograms are averaged with the sizes as
    weights, and the box is the smallest around both.

    Args:
        image, segments, bins: as in `describe`.
        similarities: which of SIMILARITIES are summed.

    Returns:
        Regions: the R regions of `segments`, then the R − 1 merged ones in the order of merging.

    Raises:
        ValueError: as in `describe`, and for no or unknown similarities.
    """
    _some_of("similarities", similarities, SIMILARITIES)
    initial, segments = describe(image, segments, bins), np.asarray(segments, np.int64)
    count = len(initial.sizes)
    features = (initial.sizes, initial.boxes, initial.colour, initial.texture)
    regions = Regions(*(np.concatenate([x, np.zeros((count - 1, *x.shape[1:]), x.dtype)]) for x in features))
    pairs, values = [], []

    def similarity(a, b):
        compared = regions.similarity(a, b, segments.size)
        return sum(compared[name] for name in SIMILARITIES if name in similarities)

    low, high = adjacent(segments)
    heap = list(zip((-similarity(low, high)).tolist(), low.tolist(), high.tolist()))
    neighbours = {region: set() for region in range(count)}
    for _, a, b in heap:
        neighbours[a].add(b)
        neighbours[b].add(a)
    heapq.heapify(heap)
    while heap:
        value, a, b = heapq.heappop(heap)
        if a not in neighbours or b not in neighbours:  # already merged with another region
            continue
        merged = count + len(pairs)
        _merge(regions, a, b, merged)
        neighbours[merged] = (neighbours.pop(a) | neighbours.pop(b)) - {a, b}
        others = sorted(neighbours[merged])
        for other in others:
            neighbours[other] = neighbours[other] - {a, b} | {merged}
        if others:
            for new_value, other in zip((-similarity(np.array(others), merged)).tolist(), others):
                heapq.heappush(heap, (new_value, other, merged))
        pairs.append((a, b))
        values.append(-value)
    return dataclasses.replace(regions, pairs=np.array(pairs, int).reshape(-1, 2), alike=np.array(values))


def adjacent(segments: np.ndarray) -> np.ndarray:
    """List the pairs of regions that touch: (2, P) int64, the smaller label first, without duplicates.

    Args: segments: (H, W) int64 from 0.
    """
    sides = ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:]))
    low, high = np.concatenate([np.sort([one.ravel(), other.ravel()], axis=0) for one, other in sides], axis=1)
    count = int(segments.max()) + 1
    return np.stack(np.divmod(np.unique((low * count + high)[low < high]), count))


def _merge(regions, a, b, merged):
    """Write the features of the region that `a` and `b` make together at the index `merged`."""
    regions.sizes[merged] = regions.sizes[a] + regions.sizes[b]
    for histogram in (regions.colour, regions.texture):
        weighted = regions.sizes[a] * histogram[a] + regions.sizes[b] * histogram[b]
        histogram[merged] = weighted / regions.sizes[merged]
    regions.boxes[merged, :2] = regions.boxes[[a, b], :2].min(0)
    regions.boxes[merged, 2:] = regions.boxes[[a, b], 2:].max(0)
