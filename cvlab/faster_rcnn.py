"""Faster R-CNN: a region proposal network makes proposals from the feature map that Fast R-CNN crops.

Here the backbone is frozen, so that feature maps are computed once, and both networks learn on them, one after the
other.

Source: Ren et al., Faster R-CNN, NeurIPS 2015.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import boxes, learn, retinanet
from cvlab.rcnn import VARIANCES, detect_fast_rcnn, fast_rcnn, offset_loss, train_fast_rcnn
from cvlab.roi import roi_align


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

    draw_whole = learn.batches(maps, targets)

    def draw(rows, generator):
        inputs, whole_targets = draw_whole(rows, generator)
        return inputs, sample_anchors(whole_targets, generator)

    losses = {"object": _object_loss, "box": offset_loss}
    history = learn.optimize(model, losses, draw, len(maps), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _object_loss(wanted, logits):
    counts = ops.cast(wanted > -2, "float32")
    loss = ops.softplus(ops.where(wanted == 0, -logits, logits)) * counts
    return learn.per_positive(ops.sum(loss, axis=(1, 2)), counts)  # of the sampled anchors, objects or not


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
        return learn.features(self.body, images, batch_size=16)

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
