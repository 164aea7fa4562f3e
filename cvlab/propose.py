"""Region proposals, from sliding windows or by selective search; and R-CNN, which classifies them."""

import dataclasses
import heapq
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvlab import boxes, classify

if TYPE_CHECKING:
    import keras

SIMILARITIES = ("colour", "texture", "size", "fill")
COLOUR_SPACES = {"rgb": None, "hsv": "COLOR_RGB2HSV_FULL", "lab": "COLOR_RGB2LAB"}  # all with channels 0–255
VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of R-CNN's offsets, so that they are of about the size 1


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

    image, levels = _picture("pyramid", image), []
    if not (factor > 1 and smallest >= 1):
        raise ValueError(f"pyramid: factor={factor!r} and smallest={smallest!r}, expected above 1, and at least 1")
    sides = size = np.array(image.shape[1::-1])
    while not levels or size.min() >= smallest:
        level = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA) if levels else image
        levels.append((level, np.tile(np.float32(size / sides), 2)))
        size = np.round(sides / factor ** len(levels)).astype(int)
    return levels


def _picture(where, image):
    image = np.asarray(image)
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{where}: image is {image.dtype} of shape {image.shape}, expected uint8 or float32, (H, W, 3), one image"
        )
    return image


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

    image = np.clip(_picture("selective_search", image), 0, 255).astype(np.uint8)
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


def warp(image: np.ndarray, proposals: np.ndarray, size: int = 96, context: float | None = None) -> np.ndarray:
    """Cut boxes out of a picture and warp each to a square, whatever its shape, with a margin of what is around it.

    Args:
        image: (H, W, 3) uint8 or float32.
        proposals: (N, 4) xyxy in pixels, none without area; they may reach beyond the picture.
        size: side of the squares in pixels. context: of it, the margin on each side; by default 16 of 227, as R-CNN's.

    Returns:
        (N, size, size, 3), of the picture's dtype; outside the picture is its mean colour.

    Source: Girshick et al., Rich feature hierarchies, CVPR 2014, appendix A.
    """
    import cv2

    image, own = _picture("warp", image), boxes.convert(proposals, "xyxy", "xyxy").reshape(-1, 4)
    context = round(size * 16 / 227) if context is None else context
    if not 0 <= 2 * context < size:
        raise ValueError(f"warp: context={context!r} with size={size!r}, expected 0 or more, and less than half of it")
    if (empty := (own[:, :2] >= own[:, 2:]).any(1)).any():
        raise ValueError(f"warp: proposals[{empty.argmax()}] = {own[empty][0].tolist()} has no area")
    crops, outside = np.empty((len(own), size, size, 3), image.dtype), image.mean((0, 1)).tolist()
    for crop, corner, sides in zip(crops, own[:, :2], own[:, 2:] - own[:, :2], strict=True):
        scale = (size - 2 * context) / sides
        shift = context - corner * scale + (scale - 1) / 2  # OpenCV counts from the middle of the first pixel
        cv2.warpAffine(image, np.column_stack([np.diag(scale), shift]), (size, size), crop, borderValue=outside)
    return crops


def rcnn(
    backbone: "keras.Model", num_classes: int | None, mode: str = "frozen", input_size: int | None = 96
) -> "keras.Model":
    """Build R-CNN's network, from warped crops to a score for each class and to how the box should move.

    Each class has a score of its own, linear in the pooled features and with a sigmoid, so that a crop of background is
    a low score for all of them, and no class itself. The offsets are the same whichever the class. (The paper trains
    support vector machines, and offsets for each class, apart from the network.)

    Args:
        backbone: keras.Model from pixels to feature maps.
        num_classes: int. mode: of the backbone, as in `classify.transfer`. input_size: side of the crops in pixels.

    Returns:
        keras.Model from crops (N, input_size, input_size, 3), 0–255, to {"class": (N, num_classes), 0…1; "box": (N, 4),
        for `boxes.decode` with the proposals and VARIANCES}.

    Source: Girshick et al., Rich feature hierarchies for accurate object detection, CVPR 2014.
    """
    import keras
    from keras import layers

    body, crops = classify.copy_body(backbone, mode), keras.Input((input_size, input_size, 3), name="crops")
    features = keras.Input(body(crops).shape[1:])
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(features)
    rare = keras.initializers.Constant(-2.0)  # most crops show none of most classes
    named = layers.Dense(num_classes, "sigmoid", bias_initializer=rare, name="class")
    moved = layers.Flatten()(layers.Conv2D(64, 1, activation="relu")(x))
    outputs = {
        "class": named(layers.GlobalAveragePooling2D()(x)),
        "box": layers.Dense(4, kernel_initializer="zeros", name="box")(moved),
    }
    heads = keras.Model(features, outputs, name="heads")
    return keras.Model(crops, heads(body(crops)), name=f"rcnn_{mode}")


def examples(
    proposals: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_classes: int | None,
    per_image: int = 64,
    share: float = 1 / 3,
    positive: float = 0.5,
    negative: float = 0.3,
    seed: int = 0,
) -> tuple:
    """Choose in each picture what R-CNN learns from, among proposals and true boxes.

    Args:
        proposals, true_boxes: for each picture (n, 4) and (T, 4) xyxy in pixels. labels: (T,) int, from 0.
        positive: a box shows the object with which its IoU is greatest, and at least this. negative: below it, a box
            shows background; what lies between is left out.
        per_image: so many at most. share: of them with objects, at most.

    Returns:
        list of (n, 4) boxes a picture; and for all of them, in this order, {"class": (N, num_classes) float32, 1 for
        what is shown; "box": (N, 5) float32, offsets to the object as from `boxes.encode`, then 1 where they count}.

    Raises:
        ValueError: for another number of pictures, or labels outside the classes.
    """
    if not len(proposals) == len(true_boxes) == len(labels) > 0:
        raise ValueError(
            f"examples: {len(proposals)} proposals, {len(true_boxes)} true_boxes, {len(labels)} labels; "
            "expected as many of each, an entry a picture"
        )
    generator, chosen, classes, offsets = np.random.default_rng(seed), [], [], []
    for own, true, names in zip(proposals, true_boxes, labels, strict=True):
        true, names = np.asarray(true, np.float32).reshape(-1, 4), np.asarray(names, int)
        if names.shape != (len(true),) or ((names < 0) | (names >= num_classes)).any():
            raise ValueError(
                f"examples: labels {names.tolist()} for {len(true)} boxes, expected one a box, from 0 to "
                f"{num_classes - 1}"
            )
        every = np.concatenate([true, own])
        overlap = boxes.iou(every, true) if len(true) else np.zeros((len(every), 1))
        shown = generator.permutation(np.flatnonzero(overlap.max(1) >= positive))[: round(share * per_image)]
        empty = generator.permutation(np.flatnonzero(overlap.max(1) < negative))[: per_image - len(shown)]
        objects = overlap[shown].argmax(1)
        chosen.append(every[np.concatenate([shown, empty])])
        classes.append(np.zeros((len(chosen[-1]), num_classes), np.float32))
        offsets.append(np.zeros((len(chosen[-1]), 5), np.float32))
        if len(shown):
            classes[-1][np.arange(len(shown)), names[objects]] = 1
            offsets[-1][: len(shown), :4] = boxes.encode(true[objects], every[shown], VARIANCES)
            offsets[-1][: len(shown), 4] = 1
    return chosen, {"class": np.concatenate(classes), "box": np.concatenate(offsets)}


def crop_features(
    model: "keras.Model", images: np.ndarray, proposals: Sequence[np.ndarray], progress: bool = False
) -> list[np.ndarray]:
    """Run all proposals of all pictures through an R-CNN's backbone, which is where its time goes.

    Returns: an array (n, h, w, C) float16 a picture, for `train_rcnn` and `detect` to take as `cached`.
    """
    counts, every = [len(own) for own in proposals], np.concatenate(proposals)
    owner, found = np.repeat(np.arange(len(images)), counts), []
    for start in range(0, len(every), 8192):
        part = slice(start, start + 8192)
        crops = _crops(images, owner[part], every[part], model.input.shape[1])
        found.append(classify.features(model.layers[1], crops, progress=progress).astype(np.float16))
    return np.split(np.concatenate(found), np.cumsum(counts)[:-1])


def _crops(images, owner, every, size):
    return np.concatenate([warp(images[i], box[None], size) for i, box in zip(owner, every, strict=True)])


def train_rcnn(
    model: "keras.Model",
    images: np.ndarray,
    chosen: Sequence[np.ndarray],
    targets: dict,
    steps: int = 300,
    learning_rate: float = 1e-2,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
    cached: Any = None,
) -> dict:
    """Train an R-CNN with Adam and a cosine's learning rates; with a frozen backbone, on features computed once.

    The loss is the binary cross-entropy of the classes plus the smooth L1 loss of those offsets that count.

    Args:
        model: from `rcnn`. images: N pictures. chosen, targets: from `examples`.
        cached: for a frozen backbone, what `crop_features` gave for `chosen`.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began, counts = time.perf_counter(), [len(own) for own in chosen]
    if sum(counts) != len(targets["box"]) or len(images) != len(counts):
        raise ValueError(
            f"train_rcnn: {len(images)} images, and {sum(counts)} boxes in {len(counts)} pictures with "
            f"{len(targets['box'])} targets; `examples` gives what fits"
        )
    owner, every = np.repeat(np.arange(len(images)), counts), np.concatenate(chosen)
    learning = model.layers[1].trainable
    if not learning:
        cached = np.concatenate(crop_features(model, images, chosen, progress) if cached is None else cached)

    def draw(rows, generator):
        inputs = _crops(images, owner[rows], every[rows], model.input.shape[1]) if learning else cached[rows]
        return inputs, {name: wanted[rows] for name, wanted in targets.items()}

    learner, losses = model if learning else model.layers[2], {"class": "binary_crossentropy", "box": _box_loss}
    history = classify.optimize(learner, losses, draw, len(every), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _box_loss(wanted, offsets):
    from keras import ops

    apart, counts = ops.abs(wanted[:, :4] - offsets), wanted[:, 4]
    loss = ops.sum(ops.where(apart < 1, 0.5 * apart**2, apart - 0.5), axis=-1) * counts
    return loss * ops.cast(ops.shape(loss)[0], "float32") / ops.maximum(ops.sum(counts), 1.0)  # Keras takes the mean


def detect(
    model: "keras.Model",
    images: np.ndarray,
    proposals: Sequence[np.ndarray],
    score: float = 0.05,
    iou: float = 0.3,
    max_boxes: int = 100,
    regress: bool = True,
    cached: Sequence | None = None,
) -> list[dict]:
    """Find things by R-CNN: score each proposal for each class, move its box, and suppress what overlaps a better one.

    Args:
        model: from `rcnn`. images: N pictures. proposals: for each (n, 4) xyxy in pixels.
        score: least score. iou: of two boxes of one class that overlap more, the one with the lower score goes.
        max_boxes: at most so many a picture. regress: whether boxes move. cached: what `crop_features` gave.

    Returns:
        list of dict, one a picture: "boxes" (D, 4) float32 xyxy within it, "labels" (D,), "scores" (D,), falling.
    """
    from keras import ops

    found = []
    cached = crop_features(model, images, proposals) if cached is None else cached
    for image, own, maps in zip(images, proposals, cached, strict=True):
        says = {key: ops.convert_to_numpy(value) for key, value in model.layers[2](maps, training=False).items()}
        rows, labels = np.nonzero(says["class"] >= score)
        moved = boxes.decode(says["box"], own, VARIANCES) if regress else np.asarray(own, np.float32)
        moved = np.clip(moved, 0, np.float32([image.shape[1], image.shape[0]] * 2))[rows]
        kept = boxes.nms(moved, scores := says["class"][rows, labels], iou, max_boxes, labels)
        found.append({"boxes": moved[kept], "labels": labels[kept], "scores": scores[kept]})
    return found
