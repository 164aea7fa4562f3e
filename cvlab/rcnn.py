"""R-CNN and what became of it: crops of the image, crops of its feature map, and proposals made from that map.

R-CNN runs a network on every proposal. Fast R-CNN runs it once and crops the feature map (see `roi`).
Faster R-CNN also makes the proposals from that map, by a region proposal network (`rpn`). Here the backbone is frozen,
so that feature maps are computed once and both of Faster R-CNN's networks learn on them, one after the other.

Source: Girshick et al., CVPR 2014; Girshick, Fast R-CNN, ICCV 2015; Ren et al., Faster R-CNN, NeurIPS 2015.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvlab import boxes, classify
from cvlab.roi import roi_align, roi_pool  # noqa: F401

if TYPE_CHECKING:
    import keras

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of the offsets, so that they are of about the size 1


def check_image(function: str, image: Any) -> np.ndarray:
    """Give one image as an array, or say, in the name of a function, that it is none."""
    image = np.asarray(image)
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{function}: image is {image.dtype} of shape {image.shape}, expected uint8 or float32, (H, W, 3), one "
            "picture"
        )
    return image


def warp(image: np.ndarray, proposals: np.ndarray, size: int = 96, context: float | None = None) -> np.ndarray:
    """Crop boxes from an image and warp each to a square, whatever its shape, with a margin of what is around it.

    Args:
        image: (H, W, 3) uint8 or float32.
        proposals: (N, 4) xyxy in pixels, none without area; they may reach beyond the image.
        size: side of the squares in pixels. context: of it, the margin on each side; by default 16 of 227, as R-CNN's.

    Returns:
        (N, size, size, 3), of the image's dtype; outside the image is its mean colour.

    Source: Girshick et al., Rich feature hierarchies, CVPR 2014, appendix A.
    """
    import cv2

    image, regions = check_image("warp", image), boxes.convert(proposals, "xyxy", "xyxy").reshape(-1, 4)
    context = round(size * 16 / 227) if context is None else context
    if not 0 <= 2 * context < size:
        raise ValueError(f"warp: context={context!r} with size={size!r}, expected 0 or more, and less than half of it")
    if (empty := (regions[:, :2] >= regions[:, 2:]).any(1)).any():
        raise ValueError(f"warp: proposals[{empty.argmax()}] = {regions[empty][0].tolist()} has no area")
    crops, outside = np.empty((len(regions), size, size, 3), image.dtype), image.mean((0, 1)).tolist()
    for crop, corner, sides in zip(crops, regions[:, :2], regions[:, 2:] - regions[:, :2], strict=True):
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
    """Choose in each image what R-CNN learns from, among proposals and true boxes.

    Args:
        proposals, true_boxes: for each image (n, 4) and (T, 4) xyxy in pixels. labels: (T,) int, from 0.
        positive: a box shows the object with which its IoU is greatest, and at least this. negative: below it, a box
            shows background; what lies between is left out.
        per_image: so many at most. share: of them with objects, at most.

    Returns:
        list of (n, 4) boxes an image; and for all of them, in this order, {"class": (N, num_classes) float32, 1 for
        what is shown; "box": (N, 5) float32, offsets to the object as from `boxes.encode`, then 1 where they count}.

    Raises:
        ValueError: for another number of images, or labels outside the classes.
    """
    if not len(proposals) == len(true_boxes) == len(labels) > 0:
        raise ValueError(
            f"examples: {len(proposals)} proposals, {len(true_boxes)} true_boxes, {len(labels)} labels; "
            "expected as many of each, an entry an image"
        )
    generator, chosen, classes, offsets = np.random.default_rng(seed), [], [], []
    for proposed, true, names in zip(proposals, true_boxes, labels, strict=True):
        true, names = np.asarray(true, np.float32).reshape(-1, 4), np.asarray(names, int)
        if names.shape != (len(true),) or ((names < 0) | (names >= num_classes)).any():
            raise ValueError(
                f"examples: labels {names.tolist()} for {len(true)} boxes, expected one a box, from 0 to "
                f"{num_classes - 1}"
            )
        candidates = np.concatenate([true, proposed])
        overlap = boxes.iou(candidates, true) if len(true) else np.zeros((len(candidates), 1))
        with_object = generator.permutation(np.flatnonzero(overlap.max(1) >= positive))[: round(share * per_image)]
        background = generator.permutation(np.flatnonzero(overlap.max(1) < negative))[: per_image - len(with_object)]
        objects = overlap[with_object].argmax(1)
        chosen.append(candidates[np.concatenate([with_object, background])])
        classes.append(np.zeros((len(chosen[-1]), num_classes), np.float32))
        offsets.append(np.zeros((len(chosen[-1]), 5), np.float32))
        if len(with_object):
            classes[-1][np.arange(len(with_object)), names[objects]] = 1
            offsets[-1][: len(with_object), :4] = boxes.encode(true[objects], candidates[with_object], VARIANCES)
            offsets[-1][: len(with_object), 4] = 1
    return chosen, {"class": np.concatenate(classes), "box": np.concatenate(offsets)}


def crop_features(
    model: "keras.Model", images: np.ndarray, proposals: Sequence[np.ndarray], progress: bool = False
) -> list[np.ndarray]:
    """Run all proposals of all images through an R-CNN's backbone, which is where its time goes.

    Returns: an array (n, h, w, C) float16 an image, for `train_rcnn` and `detect` to take as `cached`.
    """
    counts, regions = [len(proposed) for proposed in proposals], np.concatenate(proposals)
    image_index, features = np.repeat(np.arange(len(images)), counts), []
    for start in range(0, len(regions), 8192):
        part = slice(start, start + 8192)
        crops = _crops(images, image_index[part], regions[part], model.input.shape[1])
        features.append(classify.features(model.layers[1], crops, progress=progress).astype(np.float16))
    return np.split(np.concatenate(features), np.cumsum(counts)[:-1])


def _crops(images, image_index, regions, size):
    return np.concatenate([warp(images[i], box[None], size) for i, box in zip(image_index, regions, strict=True)])


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
        model: from `rcnn`. images: N images. chosen, targets: from `examples`.
        cached: for a frozen backbone, what `crop_features` gave for `chosen`.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began, counts = time.perf_counter(), [len(proposed) for proposed in chosen]
    if sum(counts) != len(targets["box"]) or len(images) != len(counts):
        raise ValueError(
            f"train_rcnn: {len(images)} images, and {sum(counts)} boxes in {len(counts)} images with "
            f"{len(targets['box'])} targets; `examples` gives what fits"
        )
    image_index, regions = np.repeat(np.arange(len(images)), counts), np.concatenate(chosen)
    backbone_learns = model.layers[1].trainable
    if not backbone_learns:
        cached = np.concatenate(crop_features(model, images, chosen, progress) if cached is None else cached)

    def draw(rows, generator):
        inputs = (
            _crops(images, image_index[rows], regions[rows], model.input.shape[1]) if backbone_learns else cached[rows]
        )
        return inputs, {name: wanted[rows] for name, wanted in targets.items()}

    learner, losses = model if backbone_learns else model.layers[2], {"class": "binary_crossentropy", "box": _box_loss}
    history = classify.optimize(learner, losses, draw, len(regions), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _box_loss(wanted, offsets):
    from keras import ops

    difference, counts = ops.abs(wanted[:, :4] - offsets), wanted[:, 4]
    loss = ops.sum(ops.where(difference < 1, 0.5 * difference**2, difference - 0.5), axis=-1) * counts
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
    """Detect objects by R-CNN: score each proposal for each class, move its box, suppress what overlaps a better one.

    Args:
        model: from `rcnn`. images: N images. proposals: for each (n, 4) xyxy in pixels.
        score: least score. iou: of two boxes of one class that overlap more, the one with the lower score goes.
        max_boxes: at most so many an image. regress: whether boxes move. cached: what `crop_features` gave.

    Returns:
        list of dict, one an image: "boxes" (D, 4) float32 xyxy within it, "labels" (D,), "scores" (D,), falling.
    """
    from keras import ops

    detections = []
    cached = crop_features(model, images, proposals) if cached is None else cached
    for image, proposed, maps in zip(images, proposals, cached, strict=True):
        outputs = {key: ops.convert_to_numpy(value) for key, value in model.layers[2](maps, training=False).items()}
        size, offsets = image.shape[1::-1], outputs["box"] if regress else None
        detections.append(_select(proposed, outputs["class"], offsets, size, score, iou, max_boxes))
    return detections


def fast_rcnn(
    map_shape: Sequence[int],
    num_classes: int,
    stride: float,
    size: int = 7,
    pooling: Callable = roi_align,
    channels: int = 128,
    width: int = 256,
) -> "keras.Model":
    """Build what follows the backbone in Fast R-CNN: pool each proposal's features, score its classes, move its box.

    As in `rcnn`, each class has a sigmoid of its own, background is a low score for all, and offsets don't depend on
    the class. (The paper has a softmax with a class for background, and offsets for each class.)

    Args:
        map_shape: (h, w, C) of the backbone's feature map. num_classes: int.
        stride: pixels of the image that a cell of the map stands for.
        size: cells a side of a pooled region. pooling: `roi_align`, or `roi_pool`.
        channels: that the map is reduced to before pooling. width: of the dense layer that all outputs share.

    Returns:
        keras.Model from {"map": (N, h, w, C), "boxes": (N, R, 4) xyxy in pixels} to {"class": (N, R, num_classes), 0…1;
        "box": (N, R, 4) offsets for `boxes.decode` with the proposals and VARIANCES}.

    Source: Girshick, Fast R-CNN, ICCV 2015.
    """
    import keras
    from keras import layers

    feature_map, proposals = keras.Input(map_shape, name="map"), keras.Input((None, 4), name="boxes")
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(feature_map)
    x = layers.Conv2D(channels, 1, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Reshape((-1, size * size * channels))(pooling(x, proposals / stride, size))
    x = layers.Dense(width, "relu", kernel_initializer="he_normal")(x)
    rare = keras.initializers.Constant(-2.0)  # most proposals show none of most classes
    outputs = {
        "class": layers.Dense(num_classes, "sigmoid", bias_initializer=rare, name="class")(x),
        "box": layers.Dense(4, kernel_initializer="zeros", name="box")(x),
    }
    return keras.Model({"map": feature_map, "boxes": proposals}, outputs, name="fast_rcnn")


def train_fast_rcnn(
    model: "keras.Model",
    maps: np.ndarray,
    proposals: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    steps: int = 300,
    learning_rate: float = 1e-3,
    batch_size: int = 4,
    per_image: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train a Fast R-CNN on feature maps: in each step some proposals of a few images, drawn anew by `examples`.

    The loss is R-CNN's: binary cross-entropy, summed over the classes, plus smooth L1 of the offsets that count.

    Args:
        model: from `fast_rcnn`. maps: (N, h, w, C) float32, of all images.
        proposals, true_boxes, labels: as in `examples`. per_image: proposals of each image in a step.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began, num_classes = time.perf_counter(), model.output["class"].shape[-1]
    if not len(maps) == len(proposals) == len(true_boxes):
        raise ValueError(
            f"train_fast_rcnn: {len(maps)} maps, {len(proposals)} proposals, {len(true_boxes)} true_boxes; expected as "
            "many of each, an entry an image"
        )

    def draw(rows, generator):
        inputs, wanted = [], {"class": [], "box": []}
        for row in rows:
            given = [proposals[row]], [true_boxes[row]], [labels[row]]
            (chosen,), targets = examples(*given, num_classes, per_image, seed=int(generator.integers(2**31)))
            index = np.resize(np.arange(len(chosen)), per_image)  # where there are fewer, some come twice
            inputs.append(chosen[index])
            for name, values in targets.items():
                wanted[name].append(values[index])
        return {"map": maps[rows], "boxes": np.stack(inputs)}, {name: np.stack(v) for name, v in wanted.items()}

    losses = {"class": _class_loss, "box": _region_loss}
    history = classify.optimize(model, losses, draw, len(maps), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _class_loss(wanted, scores):
    from keras import ops

    return ops.mean(ops.sum(ops.binary_crossentropy(wanted, scores), axis=-1), axis=-1)


def _region_loss(wanted, offsets):
    from keras import ops

    return _box_loss(ops.reshape(wanted, (-1, 5)), ops.reshape(offsets, (-1, 4)))


def detect_fast_rcnn(
    model: "keras.Model",
    maps: np.ndarray,
    proposals: Sequence[np.ndarray],
    image_size: int,
    score: float = 0.05,
    iou: float = 0.3,
    max_boxes: int = 100,
) -> list[dict]:
    """Detect objects by Fast R-CNN, from feature maps and proposals.

    Args:
        model: from `fast_rcnn`. maps: (N, h, w, C). proposals: for each image (n, 4) xyxy in pixels.
        image_size: side of the images in pixels. score, iou, max_boxes: as in `detect`.

    Returns:
        list of dict, one an image, as `detect`.
    """
    detections = []
    for feature_map, proposed in zip(maps, proposals, strict=True):
        padded = np.resize(np.arange(len(proposed)), -(-len(proposed) // 64) * 64)  # few shapes, so few graphs
        outputs = model.predict_on_batch({"map": feature_map[None], "boxes": proposed[padded][None]})
        scores, offsets = (np.asarray(outputs[key])[0, : len(proposed)] for key in ("class", "box"))
        detections.append(_select(proposed, scores, offsets, (image_size, image_size), score, iou, max_boxes))
    return detections


def _select(proposals, scores, offsets, size, score, iou, max_boxes):
    """Turn the scores and offsets of an image's proposals into detections; `offsets` may be None: no box moves."""
    rows, labels = np.nonzero(scores >= score)
    moved = np.asarray(proposals, np.float32) if offsets is None else boxes.decode(offsets, proposals, VARIANCES)
    moved, sure = np.clip(moved, 0, np.float32([*size, *size]))[rows], scores[rows, labels]
    kept = boxes.nms(moved, sure, iou, max_boxes, labels)
    return {"boxes": moved[kept], "labels": labels[kept], "scores": sure[kept]}


def rpn(map_shape: Sequence[int], num_anchors: int, channels: int = 128) -> "keras.Model":
    """Build a region proposal network: is there an object at this anchor, and how should the anchor move?

    A 3×3 convolution that slides over the feature map, and for each cell two 1×1 convolutions: objectness (a logit for
    each of its anchors) and four offsets.

    Args:
        map_shape: (h, w, C) of the feature map. num_anchors: of each cell. channels: of the 3×3 convolution.

    Returns:
        keras.Model from maps (N, h, w, C) to {"object": (N, A, 1) logits, "box": (N, A, 4) offsets}, in the order of
        `boxes.anchors` with one level.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.
    """
    import keras
    from keras import layers

    feature_map = keras.Input(map_shape, name="map")
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(feature_map)
    x = layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    start = keras.initializers.RandomNormal(stddev=0.01)
    object_logits = layers.Conv2D(num_anchors, 1, kernel_initializer=start)(x)
    offsets = layers.Conv2D(4 * num_anchors, 1, kernel_initializer=start)(x)
    outputs = {
        "object": layers.Reshape((-1, 1), name="object")(object_logits),
        "box": layers.Reshape((-1, 4), name="box")(offsets),
    }
    return keras.Model(feature_map, outputs, name="rpn")


def rpn_targets(
    anchors: np.ndarray, true_boxes: Sequence[np.ndarray], positive: float = 0.7, negative: float = 0.3
) -> dict:
    """Give what each anchor of some images learns: object, background or nothing, and how to move to its object.

    Args:
        anchors: (A, 4) xyxy in pixels, from `boxes.anchors`. true_boxes: for each image (T, 4) likewise.
        positive: an anchor with such an IoU with some true box, or the highest for one, is an object. negative: one
            below it is background. The rest is ignored.

    Returns:
        {"object": (N, A, 1) int32, 0 for an object, else -1 (background) or -2 (ignored), as `retinanet.match`; "box":
        (N, A, 5) float32, four offsets, then 1 where they count}.
    """
    from cvlab import retinanet

    classes = np.empty((len(true_boxes), len(anchors), 1), np.int32)
    offsets = np.zeros((len(true_boxes), len(anchors), 5), np.float32)
    for i, true in enumerate(true_boxes):
        true = np.asarray(true, np.float32).reshape(-1, 4)
        classes[i, :, 0], index = retinanet.match(true, np.zeros(len(true), int), anchors, positive, negative)
        if (counts := classes[i, :, 0] == 0).any():
            offsets[i, counts, :4] = boxes.encode(true[index[counts]], anchors[counts], VARIANCES)
            offsets[i, counts, 4] = 1
    return {"object": classes, "box": offsets}


def sample_anchors(targets: dict, generator: np.random.Generator, per_image: int = 64) -> dict:
    """Keep so many anchors of each image, at most half of them objects, and ignore the others: targets as given."""
    kept = {name: values.copy() for name, values in targets.items()}
    for classes, offsets in zip(kept["object"][..., 0], kept["box"], strict=True):
        objects, background = (generator.permutation(np.flatnonzero(classes == value)) for value in (0, -1))
        objects = objects[: per_image // 2]
        chosen = np.zeros(len(classes), bool)
        chosen[objects] = chosen[background[: per_image - len(objects)]] = True
        classes[~chosen] = -2
        offsets[~chosen] = 0
    return kept


def train_rpn(
    model: "keras.Model",
    maps: np.ndarray,
    targets: dict,
    steps: int = 300,
    learning_rate: float = 1e-3,
    batch_size: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train a region proposal network on feature maps, each step on a new sample of anchors (`sample_anchors`).

    The loss is binary cross-entropy over the sampled anchors, plus smooth L1 of the offsets of those with an object.

    Args:
        model: from `rpn`. maps: (N, h, w, C). targets: from `rpn_targets`. The others as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began = time.perf_counter()
    if len(maps) != len(targets["box"]) or model.output["box"].shape[1] != targets["box"].shape[1]:
        raise ValueError(
            f"train_rpn: {len(maps)} maps with {model.output['box'].shape[1]} anchors, and targets of shape "
            f"{targets['box'].shape}; `rpn_targets` gives what fits"
        )

    def draw(rows, generator):
        return maps[rows], sample_anchors({name: values[rows] for name, values in targets.items()}, generator)

    losses = {"object": _object_loss, "box": _region_loss}
    history = classify.optimize(model, losses, draw, len(maps), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _object_loss(wanted, logits):
    from keras import ops

    counts = ops.cast(wanted > -2, "float32")
    loss = ops.softplus(ops.where(wanted == 0, -logits, logits)) * counts
    total = ops.sum(loss, axis=(1, 2)) / ops.maximum(ops.sum(counts), 1.0)
    return total * ops.cast(ops.shape(total)[0], "float32")  # Keras takes the mean over the images


def regions_of(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    image_size: int,
    limit: int = 100,
    iou: float = 0.7,
    candidates: int = 1000,
) -> np.ndarray:
    """Turn a region proposal network's outputs for one image into proposals: best anchors, decoded, clipped, NMS.

    Args:
        logits: (A, 1). offsets: (A, 4). anchors: (A, 4). image_size: side in pixels.
        candidates: so many anchors of the highest objectness are moved. iou: of two that then overlap more, the one
            with the lower objectness goes. limit: so many are kept, at most.

    Returns:
        (n, 4) float32 xyxy in pixels, within the image and at least a pixel wide and high, best first.
    """
    logits = np.asarray(logits, np.float32)[:, 0]
    best = np.argsort(-logits, kind="stable")[:candidates]
    moved = boxes.decode(np.asarray(offsets)[best], anchors[best], VARIANCES).clip(0, image_size)
    solid = (moved[:, 2:] - moved[:, :2] >= 1).all(axis=1)
    moved, logits = moved[solid], logits[best][solid]
    return moved[boxes.nms(moved, logits, iou, limit)]


@dataclasses.dataclass
class FasterRCNN:
    """Faster R-CNN on a frozen backbone: a region proposal network and Fast R-CNN's head on the same feature map.

    Attributes:
        body: keras.Model from pixels (N, S, S, 3), 0–255, to feature maps (N, h, w, C); it does not learn.
        rpn: from `rpn`. head: from `fast_rcnn`. anchors: (A, 4) xyxy in pixels. image_size: the side S in pixels.
    """

    body: Any
    rpn: Any
    head: Any
    anchors: np.ndarray
    image_size: int

    def features(self, images: np.ndarray) -> np.ndarray:
        """Compute the feature maps that both networks share: (N, S, S, 3) → (N, h, w, C) float32."""
        return classify.features(self.body, images, batch_size=16)

    def propose(self, images: np.ndarray, limit: int = 100, maps: Any = None) -> list[np.ndarray]:
        """Propose at most `limit` boxes in each image: (n, 4) xyxy in pixels, best first. `maps`: from `features`."""
        maps = self.features(images) if maps is None else maps
        proposals = []
        for start in range(0, len(maps), 16):
            outputs = self.rpn.predict_on_batch(maps[start : start + 16])
            for logits, offsets in zip(np.asarray(outputs["object"]), np.asarray(outputs["box"]), strict=True):
                proposals.append(regions_of(logits, offsets, self.anchors, self.image_size, limit))
        return proposals

    def detect(self, images: np.ndarray, limit: int = 100, maps: Any = None, **options: Any) -> list[dict]:
        """Detect objects: proposals from the feature maps, then Fast R-CNN. `options`: as of `detect_fast_rcnn`."""
        maps = self.features(images) if maps is None else maps
        return detect_fast_rcnn(self.head, maps, self.propose(images, limit, maps), self.image_size, **options)


def faster_rcnn(
    body: "keras.Model",
    num_classes: int,
    image_size: int,
    sizes: Sequence[float] = (32, 64, 128),
    ratios: Sequence[float] = (0.5, 1, 2),
    pooling: Callable = roi_align,
) -> FasterRCNN:
    """Build a Faster R-CNN, untrained but for its body.

    Args:
        body: keras.Model from pixels to one feature map (N, h, w, C). num_classes: int.
        image_size: side of the images in pixels. sizes, ratios: of the anchors of each cell, as in `boxes.anchors`.
        pooling: `roi_align`, or `roi_pool`.

    Returns:
        FasterRCNN.

    Raises:
        ValueError: where the body gives no single map, or one whose cells are no squares of the image.
    """
    shape = body.compute_output_shape((1, image_size, image_size, 3))
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or image_size % shape[1]:
        raise ValueError(
            f"faster_rcnn: {body.name} gives {shape} for images of {image_size} pixels, expected one map (N, h, h, C) "
            "whose side divides that of the image"
        )
    stride = image_size // shape[1]
    scales = [size / sizes[0] for size in sizes]
    anchors = boxes.anchors(image_size, [stride], sizes[:1], ratios, scales)
    networks = rpn(shape[1:], len(ratios) * len(sizes)), fast_rcnn(shape[1:], num_classes, stride, pooling=pooling)
    return FasterRCNN(body, *networks, anchors, image_size)


def train_faster_rcnn(
    detector: FasterRCNN,
    images: np.ndarray,
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    steps: int = 300,
    learning_rate: float = 1e-3,
    seed: int = 0,
    maps: Any = None,
    progress: bool = False,
    **options: Any,
) -> dict:
    """Train a Faster R-CNN: first its region proposal network, then its head on the proposals that this one makes.

    The paper trains both together, or in four steps that take turns, as both change the backbone. Here it is frozen.

    Args:
        detector: from `faster_rcnn`. images: (N, S, S, 3), 0–255. true_boxes, labels: for each (T, 4) and (T,).
        steps: of each of the two. maps: from `detector.features`, where they are known. options: as of
            `train_fast_rcnn`.

    Returns:
        dict: "rpn" and "head", a list of the loss of each step each, and "seconds" in all.
    """
    began, maps = time.perf_counter(), detector.features(images) if maps is None else maps
    targets, shared = rpn_targets(detector.anchors, true_boxes), {"seed": seed, "progress": progress}
    first = train_rpn(detector.rpn, maps, targets, steps, learning_rate, **shared)
    proposals = detector.propose(images, 300, maps)
    second = train_fast_rcnn(
        detector.head, maps, proposals, true_boxes, labels, steps, learning_rate, **shared, **options
    )
    return {"rpn": first["loss"], "head": second["loss"], "seconds": time.perf_counter() - began}
