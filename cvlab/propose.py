"""Boxes that might hold some object, from sliding windows or by selective search; and R-CNN, which classifies them."""

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

    image, levels = _picture("pyramid", image), []
    if not (factor > 1 and smallest >= 1):
        raise ValueError(f"pyramid: factor={factor!r} and smallest={smallest!r}, expected above 1, and at least 1")
    sides = size = np.array(image.shape[1::-1])
    while not levels or size.min() >= smallest:
        picture = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA) if levels else image
        levels.append((picture, np.tile(np.float32(size / sides), 2)))
        size = np.round(sides / factor ** len(levels)).astype(int)
    return levels


def _picture(where, image):
    image = np.asarray(image)
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{where}: image is {image.dtype} of shape {image.shape}, expected uint8 or float32, (H, W, 3), one picture"
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

    image = np.clip(_picture("selective_search", image), 0, 255).astype(np.uint8)
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
