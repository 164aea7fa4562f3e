"""RetinaNet: a feature pyramid, anchors on every cell, and two heads trained with the focal loss.

The architecture comes from a `RetinaNetConfig`, the weights from a checkpoint. A checkpoint can be loaded into an
architecture that differs in some parts (`restore` reports which weights fitted). Classes are numbered from 0, and
background is not one of them: for an anchor on background, the probabilities of all classes are low.

Source: Lin et al., Focal loss for dense object detection, ICCV 2017; Feature pyramid networks, CVPR 2017.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import boxes, learn, zoo
from cvlab.checkpoints import (  # noqa: F401 (lessons reach these functions through this module)
    PARTS,
    Restored,
    configuration,
    restore,
    save,
    trainable,
    weights,
    write_whole,
)
from cvlab.engine import halves
from cvlab.engine.convolution import Conv3x3

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # offsets are divided by these, so that their scale is about that of the logits
BACKGROUND, IGNORED = -1, -2  # targets of anchors without an object


@dataclasses.dataclass(frozen=True)
class RetinaNetConfig:
    """The architecture of a RetinaNet, which can be read and written as YAML; it holds no weights.

    Attributes:
        class_names: by label, from 0; background is not a class.
        backbone: name of a network, as in `zoo.backbone`.
        input_size: side in pixels to which images are resized inside the model; a multiple of the largest stride.
        strides, anchor_sizes: pixels per cell, and side of the square anchor in pixels of the resized image, by level.
            Levels with strides above 32 are computed from the backbone's last map by convolutions of stride 2.
        ratios, scales: of the anchors of each cell (see `boxes.anchors`).
        channels: of the pyramid and the heads. depth: convolutions in each head's tower.
        prior: probability that an untrained class head predicts for every class.
    """

    class_names: tuple
    backbone: str = "efficientnet_lite0"
    input_size: int = 256
    strides: tuple = (8, 16, 32)
    anchor_sizes: tuple = (32, 64, 128)
    ratios: tuple = (0.5, 1.0, 2.0)
    scales: tuple = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    channels: int = 96
    depth: int = 2
    prior: float = 0.01

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, tuple(value) if isinstance(value, list) else value)
        names, strides = self.class_names, self.strides
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise ValueError(f"RetinaNetConfig: class_names={names!r}, expected at least one, without duplicates")
        if len(strides) != len(self.anchor_sizes) or list(strides) != [strides[0] * 2**i for i in range(len(strides))]:
            raise ValueError(
                f"RetinaNetConfig: strides={strides} with anchor_sizes={self.anchor_sizes}, expected one "
                "of each per level, and each stride twice the one before"
            )
        if self.input_size <= 0 or self.input_size % strides[-1]:
            raise ValueError(
                f"RetinaNetConfig: input_size={self.input_size}, expected a multiple of {strides[-1]}, "
                "the largest stride"
            )
        if not 0 < self.prior < 1:
            raise ValueError(f"RetinaNetConfig: prior={self.prior}, expected a probability between 0 and 1")

    @classmethod
    def load(cls, path):
        """Read a configuration from a YAML file.

        Raises:
            ValueError: for a file that is not YAML, and for an unknown or missing key.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            return cls(**values)
        except (TypeError, yaml.YAMLError) as error:
            keys = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ValueError(f"RetinaNetConfig: {path}: {error}; it may hold {keys}") from error

    def save(self, path):
        """Write the configuration to a YAML file, atomically."""
        import yaml

        values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        text = yaml.safe_dump(values, sort_keys=False)
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    def anchors(self, by_level=False):
        """Lay out the anchors: (A, 4) float32, xyxy in pixels of the resized image, in the order of the outputs."""
        return boxes.anchors(
            self.input_size, self.strides, self.anchor_sizes, self.ratios, self.scales, by_level=by_level
        )


def build(
    config: RetinaNetConfig, weights: str | None = "pretrained", body: "keras.Model | None" = None
) -> "keras.Model":
    """Build the network of a configuration; everything but the backbone is untrained.

    Args:
        config: RetinaNetConfig.
        weights: of the backbone: "pretrained", or None for random ones.
        body: keras.Model from pixel values to feature maps of the strides up to 32, to use in place of the
            configuration's backbone.

    Returns:
        keras.Model from pixel values 0–255 (N, H, W, 3) to {"class": (N, A, num_classes) logits, "box": (N, A, 4)
        offsets from the anchors, as from `boxes.encode` with VARIANCES}. Its attribute `config` is the configuration,
        its layers with the names PARTS are its parts, and batch normalization is frozen.
    """
    if body is None:
        source = zoo.backbone(config.backbone, **({} if weights == "pretrained" else {"weights": weights}))
        body = zoo.copy_body(source, "fine_tune", [s for s in config.strides if s <= 32], name="backbone")
    pixels = keras.Input((None, None, 3), name="pixels")
    resized = layers.Resizing(config.input_size, config.input_size, name="resize")(pixels)
    maps = keras.tree.flatten(body(resized))
    levels = keras.tree.flatten(pyramid(config, [m.shape[-1] for m in maps])(maps))
    model = keras.Model(pixels, head_outputs(config, levels, *heads(config)), name="retinanet")
    model.config = config
    return model


def pyramid(config: RetinaNetConfig, widths: Sequence[int]) -> "keras.Model":
    """Build the feature pyramid: each of the backbone's maps, of these widths, is added to the next coarser level."""
    maps = [keras.Input((None, None, width)) for width in widths]

    def conv(x, kind, name, **options):
        return kind(config.channels, **options, padding="same", kernel_initializer="he_uniform", name=name)(x)

    merged = [conv(map_, layers.Conv2D, f"lateral_{i}", kernel_size=1) for i, map_ in enumerate(maps)]
    for i in range(len(merged) - 2, -1, -1):  # from the coarsest to the finest
        merged[i] = layers.Add(name=f"add_{i}")([merged[i], layers.UpSampling2D(name=f"up_{i}")(merged[i + 1])])
    levels = [conv(map_, Conv3x3, f"level_{i}") for i, map_ in enumerate(merged)]
    for i in range(len(maps), len(config.strides)):
        coarser = maps[-1] if i == len(maps) else layers.ReLU(name=f"relu_{i}")(levels[-1])
        levels.append(conv(coarser, layers.Conv2D, f"level_{i}", kernel_size=3, strides=2))
    return keras.Model(maps, levels, name="fpn")


def heads(config: RetinaNetConfig) -> tuple:
    """Build the heads that all levels share: the box head, and the tower and the last layer of the class head."""
    per_cell = len(config.ratios) * len(config.scales)

    def tower(x, name):
        for i in range(config.depth):
            x = Conv3x3(config.channels, activation="relu", kernel_initializer="he_normal", name=f"{name}_{i}")(x)
        return x

    def last(x, width, bias, name):
        kernel, bias = keras.initializers.RandomNormal(0, 0.01), keras.initializers.Constant(bias)
        return Conv3x3(per_cell * width, kernel_initializer=kernel, bias_initializer=bias, name=name)(x)

    prior = float(np.log(config.prior / (1 - config.prior)))  # section 4.1 of the paper: of the class head only
    inputs = [keras.Input((None, None, config.channels)) for _ in range(3)]
    box_head = keras.Model(inputs[0], last(tower(inputs[0], "box"), 4, 0.0, "offsets"), name="box_head")
    class_tower = keras.Model(inputs[1], tower(inputs[1], "class"), name="class_tower")
    logits = last(inputs[2], len(config.class_names), prior, "logits")
    return box_head, class_tower, keras.Model(inputs[2], logits, name="class_logits")


def head_outputs(config: RetinaNetConfig, levels: Sequence, box_head: Any, class_tower: Any, class_logits: Any) -> dict:
    """Run the heads on every level: {"class": logits, "box": offsets}, in the order of the anchors."""
    logits = [class_logits(class_tower(level)) for level in levels]
    offsets = [box_head(level) for level in levels]
    return {
        "class": in_anchor_order(logits, len(config.class_names), "class"),
        "box": in_anchor_order(offsets, 4, "box"),
    }


def in_anchor_order(maps: Sequence, width: int, name: str) -> Any:
    """Concatenate the maps of all levels, with `width` numbers per anchor, in the order of the anchors."""
    flat = [layers.Reshape((-1, width))(level) for level in maps]
    return layers.Concatenate(axis=1, name=name)(flat) if len(flat) > 1 else flat[0]


def coverage(config: RetinaNetConfig, true_boxes: Sequence[np.ndarray], sizes: Sequence) -> np.ndarray:
    """Measure how well the anchors cover the true boxes of a dataset: the largest IoU of each box with any anchor.

    Args:
        true_boxes: for each image (T, 4) xyxy in its pixels.
        sizes: for each image (width, height) in pixels.

    Returns:
        (sum of all T,) float32. A box with less than 0.5 has no positive anchor and is matched to the anchor with the
        largest IoU (see `match`).
    """
    anchors, best = config.anchors(), [np.empty(0, np.float32)]
    for image_boxes, size in zip(true_boxes, sizes, strict=True):
        if len(image_boxes):
            best.append(boxes.iou(_resized(config, image_boxes, size), anchors).max(1))
    return np.concatenate(best)


def match(
    true_boxes: np.ndarray, labels: np.ndarray, anchors: np.ndarray, positive: float = 0.5, negative: float = 0.4
) -> tuple:
    """Match the anchors of one image to its true boxes.

    An anchor is matched to the true box with which its IoU is largest if that is at least `positive`; it is background
    if that is below `negative`, and ignored in between. A box that reaches `positive` with no anchor is matched to the
    anchors with which its IoU is largest.

    Args:
        true_boxes: (T, 4) float, xyxy in pixels of the resized image, as the anchors.
        labels: (T,) int, from 0.
        anchors: (A, 4) float.
        positive, negative: IoU thresholds.

    Returns:
        The label of each anchor (A,) int32: that of its box, BACKGROUND (-1) or IGNORED (-2); and the index of the box
        with which its IoU is largest (A,) int64.
    """
    anchor_labels, matched = np.full(len(anchors), BACKGROUND, np.int32), np.zeros(len(anchors), np.int64)
    if len(true_boxes):
        overlap, labels = boxes.iou(anchors, true_boxes), np.asarray(labels)
        matched, best_of_anchor, best_of_box = overlap.argmax(1), overlap.max(1), overlap.max(0)
        anchor_labels[best_of_anchor >= negative] = IGNORED
        is_positive = best_of_anchor >= positive
        anchor_labels[is_positive] = labels[matched[is_positive]]
        anchor, box = np.nonzero((overlap == best_of_box) & (best_of_box > 0) & (best_of_box < positive))
        anchor_labels[anchor], matched[anchor] = labels[box], box
    return anchor_labels, matched


def targets(
    config: RetinaNetConfig, true_boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], sizes: Sequence
) -> dict:
    """Compute the training targets of all anchors of some images, laid out as the model's outputs.

    Args:
        true_boxes, labels: for each image (T, 4) xyxy in its pixels, and (T,) int.
        sizes: for each image (width, height) in pixels.

    Returns:
        {"class": (N, A, 1) int32, as from `match`; "box": (N, A, 5) float32, four offsets, then 1 for the anchors that
        are matched to a box, else 0}.
    """
    anchors = config.anchors()
    classes = np.empty((len(labels), len(anchors), 1), np.int32)
    offsets = np.zeros((len(labels), len(anchors), 5), np.float32)
    for i, (image_boxes, image_labels, size) in enumerate(zip(true_boxes, labels, sizes, strict=True)):
        image_boxes = _resized(config, image_boxes, size)
        classes[i, :, 0], matched = match(image_boxes, image_labels, anchors)
        positive = classes[i, :, 0] >= 0
        if positive.any():
            offsets[i, positive, :4] = boxes.encode(image_boxes[matched[positive]], anchors[positive], VARIANCES)
            offsets[i, positive, 4] = 1
    return {"class": classes, "box": offsets}


def _resized(config, image_boxes, size):
    """Scale boxes from an image of `size` (width, height) to the model's resized image."""
    return np.asarray(image_boxes, np.float32).reshape(-1, 4) * (config.input_size / np.float32([*size, *size]))


def focal_loss(anchor_labels: Any, logits: Any, gamma: float = 2.0, alpha: float = 0.25) -> Any:
    """Sum the focal loss over the classes of each anchor.

    For the class of an anchor it is −α (1 − p)^γ log p, for every other class −(1 − α) p^γ log(1 − p).

    Args:
        anchor_labels: (..., 1) int, a label, BACKGROUND or IGNORED.
        logits: (..., K) float.
        gamma: how strongly well-classified anchors are down-weighted; 0 for not at all.
        alpha: weight of the true class; the other classes have the weight 1 − alpha.

    Returns:
        (...) tensor, 0 for ignored anchors. With gamma=0 and alpha=0.5 it is half the binary cross-entropy.
    """
    anchor_labels, logits = ops.cast(anchor_labels, "int32"), ops.cast(logits, "float32")
    is_class = ops.cast(anchor_labels == ops.arange(logits.shape[-1], dtype="int32"), "float32")
    wrong = logits * (1 - 2 * is_class)  # the logit of the wrong decision: its sigmoid is 1 − p for the class, else p
    loss = (1 - alpha + is_class * (2 * alpha - 1)) * ops.softplus(wrong)
    if gamma:
        loss = loss * ops.exp(gamma * ops.log_sigmoid(wrong))
    return ops.sum(loss, axis=-1) * ops.cast(anchor_labels[..., 0] != IGNORED, "float32")


def box_loss(box_targets: Any, offsets: Any, beta: float = 0.1) -> Any:
    """Sum the smooth L1 loss of each anchor's four offsets: (..., 5) as from `targets`, (..., 4) → (...) tensor.

    See `learn.smooth_l1`; anchors without a box have loss 0.
    """
    return learn.smooth_l1(box_targets, offsets, beta)


def train(
    model: "keras.Model",
    images: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    steps: int = 600,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    augment: Callable | None = None,
    copies: int = 16,
    gamma: float = 2.0,
    alpha: float = 0.25,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train the trainable variables of a RetinaNet, with Adam and a learning rate that falls along a cosine.

    If backbone and pyramid are frozen, their feature maps are computed once; with `augment`, for `copies` augmented
    versions of each image. If only the class head's last layer is trainable, everything below it is computed once.

    Args:
        model: from `build`.
        images: (N, H, W, 3) or a list of N images of any size, uint8 or float32, 0–255.
        true_boxes, labels: for each image (T, 4) xyxy in its pixels, and (T,) int.
        augment: function of (image, boxes, labels, numpy.random.Generator) that returns all three for an augmented
            image, such as `augment`.
        gamma, alpha: of the focal loss.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list with the loss of each step (the sum of focal and box loss, divided by the batch's number of
        positive anchors); and "seconds".

    Raises:
        ValueError: for boxes or labels that don't fit the images or the configuration, and for a model without
            trainable variables.
    """
    start, config = time.perf_counter(), model.config
    _check_training_data(model, images, true_boxes, labels)
    trainable_parts = [part for part in PARTS if model.get_layer(part).trainable_variables]

    def draw(rows, generator):
        examples = [(images[i], true_boxes[i], labels[i]) for i in rows]
        if augment is not None:
            examples = [augment(*example, generator) for example in examples]
        batch, batch_boxes, batch_labels = (list(values) for values in zip(*examples, strict=True))
        sizes = [(image.shape[1], image.shape[0]) for image in batch]
        return _batch(config, batch), targets(config, batch_boxes, batch_labels, sizes)

    trained, count = model, len(images)
    if not {"backbone", "fpn"}.intersection(trainable_parts):
        trained, body = halves.at_levels(model)
        count *= copies if augment is not None else 1
        versions, all_targets = draw(np.arange(count) % len(images), np.random.default_rng(seed))
        maps = learn.features(body, versions, batch_size, progress)
        if trainable_parts == ["class_logits"]:
            trained, towers = halves.at_last_layer(model)
            maps = towers.predict(maps, batch_size, verbose=0)
        draw = learn.batches(maps, all_targets)
    losses = _losses(gamma, alpha)
    history = learn.optimize(trained, losses, draw, count, steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - start}


def _check_training_data(model, images, true_boxes, labels):
    num_classes = len(model.config.class_names)
    if not len(images) == len(true_boxes) == len(labels) > 0:
        raise ValueError(
            f"retinanet.train: {len(images)} images, {len(true_boxes)} true_boxes and {len(labels)} "
            "labels; expected equal numbers of each, at least one"
        )
    for i, (image_boxes, image_labels) in enumerate(zip(true_boxes, labels, strict=True)):
        image_boxes = np.asarray(image_boxes, np.float32)
        is_list = image_boxes.shape[1:] == (4,)
        if image_boxes.size and not (is_list and (image_boxes[:, :2] < image_boxes[:, 2:]).all()):
            raise ValueError(
                f"retinanet.train: true_boxes[{i}] has shape {image_boxes.shape} and is {image_boxes.tolist()}; "
                "expected (T, 4) with x_min < x_max and y_min < y_max: no box may be empty"
            )
        if np.shape(image_labels) != (len(image_boxes),) or any(not 0 <= label < num_classes for label in image_labels):
            raise ValueError(
                f"retinanet.train: labels[{i}] is {np.asarray(image_labels).tolist()} for {len(image_boxes)} boxes; "
                f"expected one per box, 0…{num_classes - 1}, for {', '.join(model.config.class_names)}"
            )
    if not model.trainable_variables:
        raise ValueError("retinanet.train: nothing in the model is trainable; `trainable` chooses what is")


@functools.cache
def _losses(gamma, alpha):
    """Make the losses for Keras: sums over the batch, divided by its number of positive anchors."""

    def class_loss(anchor_labels, logits):
        loss = ops.sum(focal_loss(anchor_labels, logits, gamma, alpha), axis=-1)
        return learn.per_positive(loss, ops.cast(anchor_labels[..., 0] >= 0, "float32"))

    def offset_loss(box_targets, offsets):
        return learn.per_positive(ops.sum(box_loss(box_targets, offsets), axis=-1), box_targets[..., 4])

    return {"class": class_loss, "box": offset_loss}


def augment(
    image: np.ndarray,
    true_boxes: np.ndarray,
    labels: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.7, 1.4),
    shift: float = 0.15,
    colour: float = 0.2,
    visible: float = 0.4,
) -> tuple:
    """Flip an image left to right at random, zoom, shift and tint it, and let its boxes follow.

    Args:
        image: (H, W, 3), 0–255. true_boxes: (T, 4) xyxy in pixels. labels: (T,). generator: numpy.random.Generator.
        zoom: smallest and largest factor. shift: largest shift, as a fraction of the sides. colour: largest relative
            change of the brightness; each channel changes by at most half of it in addition.
        visible: a box is dropped if less than this share of its area stays in view.

    Returns:
        image (H, W, 3) uint8, boxes (t, 4) float32 within it, labels (t,).
    """
    true_boxes = np.asarray(true_boxes, np.float32).reshape(-1, 4)
    flipped, scale, corner = learn.random_view(image.shape, generator, zoom, shift)
    image = learn.warped(image, flipped, scale, corner, outside=image.mean((0, 1)).tolist())
    moved, inside = learn.warped_boxes(true_boxes, image.shape[1::-1], flipped, scale, corner)
    kept = boxes.area(inside) >= np.maximum(visible * boxes.area(moved), 1.0)
    return learn.tinted(image, generator, colour), inside[kept], np.asarray(labels)[kept]


def detect(
    model: "keras.Model",
    images: Sequence[np.ndarray],
    score: float = 0.05,
    iou: float = 0.5,
    max_boxes: int = 100,
    candidates: int = 1000,
) -> list[dict]:
    """Detect objects in images.

    Args:
        images: (N, H, W, 3) or a list of N images of any size, 0–255.
        score: smallest probability of a detection.
        iou: threshold of the non-maximum suppression within each class.
        max_boxes: largest number of detections per image. candidates: the suppression sees only so many of the most
            probable boxes of each image.

    Returns:
        list of dict, one per image: "boxes" (D, 4) float32, xyxy in its pixels and clipped to it; "labels" (D,) int64;
        "scores" (D,) float32, in falling order.
    """
    detections, anchors = [], model.config.anchors()
    upper, body = halves.at_levels(model)
    for start in range(0, len(images), 16):
        batch = list(images[start : start + 16])
        maps = learn.features(body, _batch(model.config, batch), 16)
        outputs = upper.predict_on_batch(maps)
        for image, logits, offsets in zip(batch, outputs["class"], outputs["box"], strict=True):
            detected = suppress(logits, offsets, anchors, score, iou, max_boxes, candidates)
            size = np.float32([image.shape[1], image.shape[0]] * 2)
            detected["boxes"] = np.clip(detected["boxes"] * (size / model.config.input_size), 0, size)
            detections.append(detected)
    return detections


def suppress(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    score: float = 0.05,
    iou: float = 0.5,
    max_boxes: int = 100,
    candidates: int = 1000,
) -> dict:
    """Turn the model's outputs for one image, logits (A, K) and offsets (A, 4), into detections, as in `detect`.

    The boxes are in pixels of the resized image, and not clipped to it.
    """
    flat = np.asarray(logits, np.float32).ravel()
    likely = np.flatnonzero(flat >= np.log(score / (1 - score)))
    if len(likely) > candidates:
        likely = likely[np.argpartition(flat[likely], -candidates)[-candidates:]]
    anchor, labels = np.divmod(likely, logits.shape[1])
    decoded = boxes.decode(np.asarray(offsets)[anchor], anchors[anchor], VARIANCES)
    kept = boxes.nms(decoded, flat[likely], iou, max_boxes, labels)
    return {"boxes": decoded[kept], "labels": labels[kept], "scores": 1 / (1 + np.exp(-flat[likely][kept]))}


def _batch(config, images):
    """Resize images of any size to the model's input size and stack them: (N, H, W, 3)."""
    import cv2

    side = (config.input_size,) * 2
    return np.stack([image if image.shape[:2] == side else cv2.resize(np.asarray(image), side) for image in images])


def scores(
    detections: Sequence[dict],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    class_names: Sequence[str],
    **ignored: Any,
) -> dict:
    """Score detections from `detect` by the rules of COCO. See `metrics.detection_scores`, also for `ignored`."""
    from cvlab import metrics

    columns = ([detected[key] for detected in detections] for key in ("boxes", "labels", "scores"))
    return metrics.detection_scores(true_boxes, labels, *columns, class_names, **ignored)
