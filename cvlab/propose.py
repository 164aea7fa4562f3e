"""Boxes that might hold some object, from sliding windows or by selective search.

`rcnn` classifies them; its functions for R-CNN can be reached from here as well.
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
    """Lay out all windows of one size that lie within a picture.

    Args:
        image_size: (height, width) of the picture in pixels, or one int for both.
        size: of the window, and stride: the step (down, right) to the next one, likewise.

    Returns:
        (N, 4) float32 xyxy, row by row, with (height − h) // stride + 1 rows, and columns likewise; none where the
        window is larger than the picture. What the last step doesn't reach lies in no window.

    Raises:
        ValueError: for anything but positive whole numbers.
    """
    pairs = {"image_size": image_size, "size": size, "stride": stride}
    for argument, value in pairs.items():
        pair = np.atleast_1d(value)
        if pair.dtype.kind not in "iu" or pair.shape not in ((1,), (2,)) or (pair < 1).any():
            raise ValueError(f"sliding_windows: {argument}={value!r}, expected one positive whole number, or two")
        pairs[argument] = np.broadcast_to(pair, 2).tolist()
    (height, width), (h, w), (down, right) = pairs.values()
    x, y = np.meshgrid(np.arange(0, width - w + 1, right), np.arange(0, height - h + 1, down))
    return np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4).astype(np.float32)


def pyramid(image: np.ndarray, smallest: int = 48, factor: float = 2**0.5) -> list:
    """Make an image pyramid: a picture at several sizes, so that a window of one size meets objects of many.

    Each level is scaled from the picture itself, by area: pixels are averaged, none is skipped.

    Args:
        image: (H, W, 3) uint8 or float32.
        smallest: least length of the shorter side in pixels; the picture itself is always there, as the first level.
        factor: from one level to the next, above 1.

    Returns:
        list of (picture (h, w, 3), scale (4,) float32, [w / W, h / H, w / W, h / H]): boxes found in a level, divided
        by its scale, are in pixels of `image`, exactly, though levels have whole pixels.

    Raises:
        ValueError: for another picture, factor ≤ 1 or smallest < 1.
    """
    import cv2

    image, levels = check_image("pyramid", image), []
    if not (factor > 1 and smallest >= 1):
        raise ValueError(f"pyramid: factor={factor!r} and smallest={smallest!r}, expected above 1, and at least 1")
    sides = size = np.array(image.shape[1::-1])
    while not levels or size.min() >= smallest:
        picture = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA) if levels else image
        levels.append((picture, np.tile(np.float32(size / sides), 2)))
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
    """Propose the boxes around all regions that a bottom-up grouping ever makes.

    Felzenszwalb and Huttenlocher's graph cuts the picture into small regions, once for each scale and colour space;
    `group` merges them. A box's rank is how late its region was made times a random number, lest every grouping's
    largest boxes come first.

    Args:
        image: (H, W, 3) uint8 or float32, 0–255. Time grows with its area; 480 pixels a side are plenty.
        similarities: which of SIMILARITIES count.
        scales: of the first regions, larger for larger ones: the k of the paper, for channels 0–255.
        colour_spaces: some of COLOUR_SPACES.
        min_size: of the first regions, in pixels.
        limit: give so many at most. seed: of the ranking.

    Returns:
        (N, 4) float32 xyxy in pixels, best rank first, no two equal.

    Raises:
        ValueError: for another picture, or for an unknown or no similarity or colour space.

    Source: Uijlings et al., Selective search for object recognition, IJCV 2013 (OpenCV's fast mode has HSV and Lab,
    150 and 300); Felzenszwalb and Huttenlocher, Efficient graph-based image segmentation, IJCV 2004.
    """
    import cv2
    from skimage.segmentation import felzenszwalb

    image = np.clip(check_image("selective_search", image), 0, 255).astype(np.uint8)
    _some_of("colour_spaces", colour_spaces, COLOUR_SPACES)
    generator, found, ranks = np.random.default_rng(seed), [], []
    for space in colour_spaces:
        code = COLOUR_SPACES[space]
        picture = cv2.cvtColor(image, getattr(cv2, code)) if code else image
        bins = pixel_bins(picture)  # whatever the scale
        for scale in scales:
            first = felzenszwalb(picture, scale, sigma=0.8, min_size=min_size)
            grouped = group(picture, first, similarities, bins).boxes
            found.append(grouped)
            ranks.append(np.arange(len(grouped), 0, -1) * generator.random(len(grouped)))
    ranked = np.concatenate(found)[np.argsort(np.concatenate(ranks), kind="stable")]
    first = np.sort(np.unique(ranked, axis=0, return_index=True)[1])
    return ranked[first[:limit]].astype(np.float32)


def _some_of(argument, given, known):
    if isinstance(given, str) or not given or not set(given) <= set(known):
        raise ValueError(f"selective_search: {argument}={given!r}, expected a tuple with some of {', '.join(known)}")


@dataclasses.dataclass
class Regions:
    """Regions of a picture; from `group`, the first ones and then all that were made of them.

    Attributes:
        sizes: (R,) in pixels. boxes: (R, 4) xyxy. colour, texture: (R, bins) histograms, each with the sum 1.
        pairs: (M, 2) int, from which two regions the last M were made. alike: (M,), how alike these were.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    pairs: object = ()
    alike: object = ()

    def similarity(self, a, b, area):
        """Compare regions `a` and `b` (indices) in a picture of `area` pixels: {name: 0…1} for SIMILARITIES.

        Colour and texture are what two histograms share; size, the share of the picture that the two leave over; fill,
        1 minus the share of it that their common box covers and they don't.
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
    """Say of each pixel in which bin it counts, for the histograms of `describe`.

    Args:
        image: (H, W, 3) uint8, in any colour space.

    Returns:
        (3, H, W) int64, colour: 0 to 24; and (24, H, W) int64, texture: 0 to 9, the three channels for each direction.
    """
    import cv2

    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1)
    right, down = (
        np.ascontiguousarray(np.moveaxis(cv2.Scharr(smooth, cv2.CV_32F, *way), -1, 0)) for way in ((1, 0), (0, 1))
    )
    texture = []
    for angle in np.arange(8) * np.pi / 4:
        slope = np.maximum(np.cos(angle) * right + np.sin(angle) * down, 0)
        steepest = slope.max((1, 2), keepdims=True)
        texture.append(np.minimum(slope * (10 / (steepest + 1e-6)), 9).astype(np.int64))
    return np.moveaxis(image.astype(np.int64) * 25 // 256, -1, 0), np.concatenate(texture)


def describe(image: np.ndarray, segments: np.ndarray, bins: Any = None) -> Any:
    """Measure the regions of a segmentation: size, box, and histograms of colour and texture.

    Colour has 25 bins a channel; texture, the slope of the smoothed channel in each of eight directions, 10 bins each.

    Args:
        image: (H, W, 3) uint8, in any colour space.
        segments: (H, W) int, from 0 to R − 1, each of them there; else ValueError.
        bins: of the image, from `pixel_bins`, for one who describes several segmentations of it.

    Returns:
        Regions.
    """
    from scipy import ndimage

    segments = np.asarray(segments, np.int64)
    flat, sizes = segments.ravel(), np.bincount(segments.ravel())
    if segments.shape != image.shape[:2] or not sizes.all():
        raise ValueError(
            f"describe: segments of shape {segments.shape} with {np.sum(sizes > 0)} labels up to "
            f"{flat.max()}, expected {image.shape[:2]} and every label from 0"
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
    """Merge the two most alike neighbours of a segmentation, again and again, until one region is left.

    All that describes a merged region follows from its parts: sizes add up, histograms are means weighted by size, the
    box is the smallest around both.

    Args:
        image, segments, bins: as in `describe`. similarities: which of SIMILARITIES are added up.

    Returns:
        Regions: the R of `segments`, then the R − 1 merged ones in their order.
    """
    _some_of("similarities", similarities, SIMILARITIES)
    first, segments = describe(image, segments, bins), np.asarray(segments, np.int64)
    count = len(first.sizes)
    room = [
        np.concatenate([x, np.zeros((count - 1, *x.shape[1:]), x.dtype)])
        for x in (first.sizes, first.boxes, first.colour, first.texture)
    ]
    regions, near, pairs, values = Regions(*room), {region: set() for region in range(count)}, [], []

    def alike(a, b):
        compared = regions.similarity(a, b, segments.size)
        return sum(compared[name] for name in SIMILARITIES if name in similarities)

    beside = [
        np.sort([one.ravel(), other.ravel()], axis=0)
        for one, other in ((segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:]))
    ]
    low, high = np.concatenate(beside, axis=1)
    low, high = np.divmod(np.unique((low * count + high)[low < high]), count)
    heap = list(zip((-alike(low, high)).tolist(), low.tolist(), high.tolist()))
    for _, a, b in heap:
        near[a].add(b)
        near[b].add(a)
    heapq.heapify(heap)
    while heap:
        value, a, b = heapq.heappop(heap)
        if a not in near or b not in near:  # merged with another meanwhile
            continue
        new, around = count + len(pairs), (near.pop(a) | near.pop(b)) - {a, b}
        regions.sizes[new] = regions.sizes[a] + regions.sizes[b]
        for own in (regions.colour, regions.texture):
            own[new] = (regions.sizes[a] * own[a] + regions.sizes[b] * own[b]) / regions.sizes[new]
        regions.boxes[new, :2] = regions.boxes[[a, b], :2].min(0)
        regions.boxes[new, 2:] = regions.boxes[[a, b], 2:].max(0)
        near[new], others = around, sorted(around)
        for other in others:
            near[other] = near[other] - {a, b} | {new}
        if others:
            for fresh, other in zip((-alike(np.array(others), new)).tolist(), others):
                heapq.heappush(heap, (fresh, other, new))
        pairs.append((a, b))
        values.append(-value)
    return dataclasses.replace(regions, pairs=np.array(pairs, int).reshape(-1, 2), alike=np.array(values))
