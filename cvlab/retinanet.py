"""RetinaNet: a feature pyramid, anchors on every cell, and two heads that learn from the focal loss.

The architecture comes from a `RetinaNetConfig`, the weights from a checkpoint: one architecture may carry many weights,
and a checkpoint may serve an architecture that differs in a part (`restore` says what fitted). Classes are numbered
from 0, and background is no class: it is what all of an anchor's probabilities say together when they are low.

Source: Lin et al., Focal loss for dense object detection, ICCV 2017; Feature pyramid networks, CVPR 2017.
"""

import dataclasses
import fnmatch
import functools
import os
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import backend, boxes, classify, data, files

PARTS = ("backbone", "fpn", "box_head", "class_tower", "class_logits")
VARIANCES = (0.1, 0.1, 0.2, 0.2)  # offsets divided by these are about as large as the logits
BACKGROUND, IGNORED = -1, -2  # what an anchor learns in place of a class
MATRICES = (  # of `winograd`, along one axis, for inputs, weights and outputs: polynomials at 0, 1, −1, 2, −2, infinity
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


@dataclasses.dataclass(frozen=True)
class RetinaNetConfig:
    """The architecture of a RetinaNet, readable and writable as YAML; it holds no weights.

    Attributes:
        class_names: in order of the label, from 0; background is no class.
        backbone: a name that `classify.backbone` knows.
        input_size: side in pixels that pictures are resized to inside the model; a multiple of the largest stride.
        strides, anchor_sizes: pixels a cell, and side of the square anchor in pixels of the resized picture, by level.
            Levels of more than 32 pixels a cell are made from the backbone's last by convolutions of stride 2.
        ratios, scales: of the anchors of each cell (see `boxes.anchors`).
        channels, depth: of the pyramid and the heads; convolutions in each head's tower.
        prior: probability that an untrained class head gives every class.
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
            raise ValueError(f"RetinaNetConfig: class_names={names!r}, expected at least one, and each once")
        if len(strides) != len(self.anchor_sizes) or list(strides) != [strides[0] * 2**i for i in range(len(strides))]:
            raise ValueError(
                f"RetinaNetConfig: strides={strides} with anchor_sizes={self.anchor_sizes}, expected one "
                "of each a level, and each stride twice the one before"
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
        """Read a configuration from a YAML file; ValueError for what is no YAML, and for an unknown or missing key."""
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            return cls(**values)
        except (TypeError, yaml.YAMLError) as error:
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ValueError(f"RetinaNetConfig: {path}: {error}; it may hold {known}") from error

    def save(self, path):
        """Write the configuration as a YAML file, whole or not at all."""
        import yaml

        values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        text = yaml.safe_dump(values, sort_keys=False)
        _write(path, lambda part: part.write_text(text, encoding="utf-8"))

    def anchors(self, by_level=False):
        """Lay out the anchors: (A, 4) float32, xyxy in pixels of the resized picture, in the order of the outputs."""
        return boxes.anchors(
            self.input_size, self.strides, self.anchor_sizes, self.ratios, self.scales, by_level=by_level
        )


def build(
    config: RetinaNetConfig, weights: str | None = "pretrained", body: "keras.Model | None" = None
) -> "keras.Model":
    """Build the network of a configuration; what stands on the backbone is untrained.

    Args:
        config: RetinaNetConfig.
        weights: of the backbone: "pretrained", or None for random ones.
        body: keras.Model from pixels to feature maps of the strides up to 32, in place of the configuration's backbone.

    Returns:
        keras.Model from pixels 0–255 (N, H, W, 3) to {"class": (N, A, num_classes) logits, "box": (N, A, 4) offsets
        from the anchors, as `boxes.encode` with VARIANCES}. It keeps `config`; its layers of the names PARTS are its
        parts, and batch normalization stays as it is.
    """
    if body is None:
        source = classify.backbone(config.backbone, **({} if weights == "pretrained" else {"weights": weights}))
        body = classify.copy_body(source, "fine_tune", [s for s in config.strides if s <= 32], name="backbone")
    pixels = keras.Input((None, None, 3), name="pixels")
    resized = layers.Resizing(config.input_size, config.input_size, name="resize")(pixels)
    maps = keras.tree.flatten(body(resized))
    levels = keras.tree.flatten(pyramid(config, [m.shape[-1] for m in maps])(maps))
    model = keras.Model(pixels, _outputs(config, levels, *heads(config)), name="retinanet")
    model.config = config
    return model


def pyramid(config: RetinaNetConfig, widths: Sequence[int]) -> "keras.Model":
    """Build the feature pyramid: to each of the backbone's maps, of these widths, comes what the next coarser knows."""
    maps = [keras.Input((None, None, width)) for width in widths]

    def conv(x, kind, name, **options):
        return kind(config.channels, **options, padding="same", kernel_initializer="he_uniform", name=name)(x)

    sides = [conv(map_, layers.Conv2D, f"lateral_{i}", kernel_size=1) for i, map_ in enumerate(maps)]
    for i in range(len(sides) - 2, -1, -1):
        sides[i] = layers.Add(name=f"add_{i}")([sides[i], layers.UpSampling2D(name=f"up_{i}")(sides[i + 1])])
    levels = [conv(side, Conv3x3, f"level_{i}") for i, side in enumerate(sides)]
    for i in range(len(maps), len(config.strides)):
        coarser = maps[-1] if i == len(maps) else layers.ReLU(name=f"relu_{i}")(levels[-1])
        levels.append(conv(coarser, layers.Conv2D, f"level_{i}", kernel_size=3, strides=2))
    return keras.Model(maps, levels, name="fpn")


def heads(config: RetinaNetConfig) -> tuple:
    """Build the two heads, which all levels share: the box head, and the class head in two, tower and logits."""
    per_cell = len(config.ratios) * len(config.scales)

    def tower(x, name):
        for i in range(config.depth):
            x = Conv3x3(config.channels, activation="relu", kernel_initializer="he_normal", name=f"{name}_{i}")(x)
        return x

    def last(x, width, bias, name):
        start, bias = keras.initializers.RandomNormal(0, 0.01), keras.initializers.Constant(bias)
        return Conv3x3(per_cell * width, kernel_initializer=start, bias_initializer=bias, name=name)(x)

    prior = float(np.log(config.prior / (1 - config.prior)))  # section 4.1 of the paper: on the class head, no other
    inputs = [keras.Input((None, None, config.channels)) for _ in range(3)]
    box_head = keras.Model(inputs[0], last(tower(inputs[0], "box"), 4, 0.0, "offsets"), name="box_head")
    class_tower = keras.Model(inputs[1], tower(inputs[1], "class"), name="class_tower")
    logits = last(inputs[2], len(config.class_names), prior, "logits")
    return box_head, class_tower, keras.Model(inputs[2], logits, name="class_logits")


class Conv3x3(layers.Conv2D):
    """A 3×3 convolution with stride 1 and zeros around, by `winograd` where that is faster."""

    def __init__(self, filters, **options):
        super().__init__(filters, **{"kernel_size": 3, "padding": "same", **options})

    def convolution_op(self, inputs, kernel):
        large = all(side and side >= 16 for side in inputs.shape[1:3])  # on a small map, changing the kernel costs more
        if large and backend.gains_by_winograd():
            return winograd(inputs, kernel)
        return super().convolution_op(inputs, kernel)


def winograd(inputs: Any, kernel: Any) -> Any:
    """Convolve maps with a 3×3 kernel, stride 1 and zeros around, in a quarter of the products.

    For a tile of 4×4 outputs, 6×6 inputs and 3×3 weights are each changed into 36 numbers by a constant matrix; these,
    multiplied one by one and summed over the channels, are changed into the outputs: 36 products a channel and filter
    instead of 144. The result is that of the convolution but for rounding, some 1e-5 of the largest value.

    Args:
        inputs: (N, H, W, C) tensor with H, W and C known.
        kernel: (3, 3, C, K) tensor.

    Returns:
        (N, H, W, K) tensor.

    Source: Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016: F(4×4, 3×3).
    """
    to_inputs, to_weights, to_outputs = (np.kron(matrix, matrix).astype(np.float32) for matrix in MATRICES)
    (height, width, channels), filters = inputs.shape[1:], kernel.shape[-1]
    tiles, tile, place = map(ops.convert_to_tensor, _tiles(height, width))
    images = ops.arange(ops.shape(inputs)[0])
    cells = ops.pad(ops.reshape(inputs, (-1, channels)), ((1, 0), (0, 0)))  # the first is what lies outside, 0
    number = ops.where(tiles > 0, tiles + height * width * images[:, None], 0)  # (36, N, tiles)
    changed = ops.matmul(to_inputs, ops.reshape(ops.take(cells, number, axis=0), (36, -1)))
    weights = ops.matmul(to_weights, ops.reshape(kernel, (9, -1)))
    product = ops.matmul(ops.reshape(changed, (36, -1, channels)), ops.reshape(weights, (36, channels, filters)))
    outputs = ops.reshape(ops.matmul(to_outputs, ops.reshape(product, (36, -1))), (-1, filters))
    number = (place * ops.shape(images)[0] + images[:, None]) * tiles.shape[-1] + tile  # (N, H · W)
    return ops.reshape(ops.take(outputs, number, axis=0), (-1, height, width, filters))


@functools.cache
def _tiles(height, width):
    """Number the cells that each tile needs, from 1 and 0 outside: (36, 1, tiles). And give each cell's tile and place.

    Tiles of 6×6 overlap by two, so that each has 4×4 outputs. Cells run row by row, and so do tiles, and places in one.
    """
    rows, columns = -(-height // 4), -(-width // 4)
    cells = np.zeros((4 * rows + 2, 4 * columns + 2), np.int32)
    cells[1 : height + 1, 1 : width + 1] = np.arange(1, height * width + 1).reshape(height, width)
    tiles = np.lib.stride_tricks.sliding_window_view(cells, (6, 6))[::4, ::4].reshape(-1, 36)
    y, x = np.divmod(np.arange(height * width, dtype=np.int32), np.int32(width))
    return tiles.T[:, None], y // 4 * columns + x // 4, y % 4 * 4 + x % 4


def _outputs(config, levels, box_head, class_tower, class_logits):
    """Run the heads on every level, and lay what they say in the anchors' order."""
    logits = [class_logits(class_tower(level)) for level in levels]
    offsets = [box_head(level) for level in levels]
    return {"class": _in_order(logits, len(config.class_names), "class"), "box": _in_order(offsets, 4, "box")}


def _in_order(maps, width, name):
    """Lay what a head says of every cell of every level, `width` numbers an anchor, in the anchors' order."""
    flat = [layers.Reshape((-1, width))(level) for level in maps]
    return layers.Concatenate(axis=1, name=name)(flat) if len(flat) > 1 else flat[0]


def coverage(config: RetinaNetConfig, true_boxes: Sequence[np.ndarray], sizes: Sequence) -> np.ndarray:
    """Measure how well the anchors can reach the boxes of a data set: the greatest IoU that any has with each box.

    Args:
        true_boxes: for each picture (T, 4) xyxy in its pixels.
        sizes: for each picture (width, height) in pixels.

    Returns:
        (all T,) float32. Below 0.5 a box has no anchor of its own, and gets the one that comes closest (see `match`).
    """
    anchors, reach = config.anchors(), [np.empty(0, np.float32)]
    for own, size in zip(true_boxes, sizes, strict=True):
        if len(own):
            reach.append(boxes.iou(_resized(config, own, size), anchors).max(1))
    return np.concatenate(reach)


def match(
    true_boxes: np.ndarray, labels: np.ndarray, anchors: np.ndarray, positive: float = 0.5, negative: float = 0.4
) -> tuple:
    """Say what each anchor of one picture is to learn.

    An anchor learns the box with which its IoU is greatest, if that is at least `positive`; background, if it is below
    `negative`; nothing in between. A box that no anchor reaches gets those anchors that come closest to it.

    Args:
        true_boxes: (T, 4) float, xyxy in pixels of the picture that the anchors lie on.
        labels: (T,) int, from 0.
        anchors: (A, 4) float.

    Returns:
        What each anchor learns (A,) int32: a label, BACKGROUND (-1) or IGNORED (-2); and the index of its box (A,).
    """
    learns, chosen = np.full(len(anchors), BACKGROUND, np.int32), np.zeros(len(anchors), np.int64)
    if len(true_boxes):
        overlap, labels = boxes.iou(anchors, true_boxes), np.asarray(labels)
        chosen, best, closest = overlap.argmax(1), overlap.max(1), overlap.max(0)
        learns[best >= negative] = IGNORED
        learns[best >= positive] = labels[chosen[best >= positive]]
        anchor, box = np.nonzero((overlap == closest) & (closest > 0) & (closest < positive))
        learns[anchor], chosen[anchor] = labels[box], box
    return learns, chosen


def targets(
    config: RetinaNetConfig, true_boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], sizes: Sequence
) -> dict:
    """Give what the anchors of some pictures are to learn, as the model's outputs are laid out.

    Args:
        true_boxes, labels: for each picture (T, 4) xyxy in its pixels, and (T,) int.
        sizes: for each picture (width, height) in pixels.

    Returns:
        {"class": (N, A, 1) int32, as `match`; "box": (N, A, 5) float32, four offsets, and 1 where they count, else 0}.
    """
    anchors = config.anchors()
    classes = np.empty((len(labels), len(anchors), 1), np.int32)
    offsets = np.zeros((len(labels), len(anchors), 5), np.float32)
    for i, (own, names, size) in enumerate(zip(true_boxes, labels, sizes, strict=True)):
        there = _resized(config, own, size)
        classes[i, :, 0], chosen = match(there, names, anchors)
        if (counts := classes[i, :, 0] >= 0).any():
            offsets[i, counts, :4] = boxes.encode(there[chosen[counts]], anchors[counts], VARIANCES)
            offsets[i, counts, 4] = 1
    return {"class": classes, "box": offsets}


def _resized(config, own, size):
    return np.asarray(own, np.float32).reshape(-1, 4) * (config.input_size / np.float32([*size, *size]))


def focal_loss(learns: Any, logits: Any, gamma: float = 2.0, alpha: float = 0.25) -> Any:
    """Sum the focal loss over the classes of each anchor.

    For the class that an anchor learns it is −α (1 − p)^γ log p, for every other −(1 − α) p^γ log(1 − p).

    Args:
        learns: (..., 1) int, a label, BACKGROUND or IGNORED.
        logits: (..., K) float.
        gamma: how fast the loss of what is right already fades; 0 for none.
        alpha: weight of the class, 1 − alpha that of its absence.

    Returns:
        (...) tensor, 0 where nothing is learned. With gamma=0 and alpha=0.5 it is half the binary cross-entropy.
    """
    learns, logits = ops.cast(learns, "int32"), ops.cast(logits, "float32")
    truth = ops.cast(learns == ops.arange(logits.shape[-1], dtype="int32"), "float32")
    against = logits * (1 - 2 * truth)  # how far each logit speaks against the truth
    loss = (1 - alpha + truth * (2 * alpha - 1)) * ops.softplus(against)
    if gamma:
        loss = loss * ops.exp(gamma * ops.log_sigmoid(against))
    return ops.sum(loss, axis=-1) * ops.cast(learns[..., 0] != IGNORED, "float32")


def box_loss(wanted: Any, offsets: Any, beta: float = 0.1) -> Any:
    """Sum the smooth L1 loss of each anchor's four offsets: (..., 5) as from `targets`, (..., 4) → (...) tensor.

    Up to `beta` it is 0.5 d² / beta of the difference d, beyond it d − 0.5 beta.
    """
    wanted, offsets = ops.convert_to_tensor(wanted), ops.convert_to_tensor(offsets)
    apart = ops.abs(wanted[..., :4] - offsets)
    loss = ops.where(apart < beta, 0.5 * apart**2 / beta, apart - 0.5 * beta)
    return ops.sum(loss, axis=-1) * wanted[..., 4]


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
    """Train what is trainable in a RetinaNet, with Adam and a cosine's learning rates.

    Where backbone and pyramid are frozen, their feature maps are computed once; with `augment`, for `copies` changed
    versions of each picture. Where only the class head's last layer learns, all below it is computed once.

    Args:
        model: from `build`.
        images: (N, H, W, 3) or a list of N pictures of any size, uint8 or float32, 0–255.
        true_boxes, labels: for each picture (T, 4) xyxy in its pixels, and (T,) int.
        augment: function of (image, boxes, labels, numpy.random.Generator) that gives the three of a changed picture,
            such as `augment`.
        gamma, alpha: of the focal loss.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step: both losses, by the batch's number of anchors with a box; and
        "seconds".

    Raises:
        ValueError: for boxes or labels that don't fit the pictures or the configuration, and where nothing may learn.
    """
    began, config, known = time.perf_counter(), model.config, len(model.config.class_names)
    if not len(images) == len(true_boxes) == len(labels) > 0:
        raise ValueError(
            f"retinanet.train: {len(images)} images, {len(true_boxes)} true_boxes and {len(labels)} "
            "labels; expected as many of each, one at least"
        )
    for i, (own, names) in enumerate(zip(true_boxes, labels, strict=True)):
        own = np.asarray(own, np.float32)
        if own.size and (own.shape[1:] != (4,) or not (own[:, :2] < own[:, 2:]).all()):
            raise ValueError(
                f"retinanet.train: true_boxes[{i}] has shape {own.shape} and is {own.tolist()}; expected "
                "(T, 4), x_min < x_max and y_min < y_max: none is empty"
            )
        if np.shape(names) != (len(own),) or any(not 0 <= label < known for label in names):
            raise ValueError(
                f"retinanet.train: labels[{i}] is {np.asarray(names).tolist()} for {len(own)} boxes; "
                f"expected one a box, 0…{known - 1}, for {', '.join(config.class_names)}"
            )
    if not model.trainable_variables:
        raise ValueError("retinanet.train: nothing in the model is trainable; `trainable` chooses what is")
    learning = [part for part in PARTS if model.get_layer(part).trainable_variables]

    def draw(rows, generator):
        chosen = [(images[i], true_boxes[i], labels[i]) for i in rows]
        if augment is not None:
            chosen = [augment(*one, generator) for one in chosen]
        pictures, *known = (list(values) for values in zip(*chosen, strict=True))
        return _batch(config, pictures), targets(config, *known, [(p.shape[1], p.shape[0]) for p in pictures])

    learner, count = model, len(images)
    if not {"backbone", "fpn"}.intersection(learning):
        learner, body = _split(model)
        count *= copies if augment is not None else 1
        pictures, wanted = draw(np.arange(count) % len(images), np.random.default_rng(seed))
        maps = classify.features(body, pictures, batch_size, progress)
        if learning == ["class_logits"]:
            learner, towers = _last_layer(model)
            maps = towers.predict(maps, batch_size, verbose=0)

        def draw(rows, generator):
            return [m[rows] for m in maps], {name: target[rows] for name, target in wanted.items()}

    losses = _losses(gamma, alpha)
    history = classify.optimize(learner, losses, draw, count, steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


_halves = weakref.WeakKeyDictionary()  # a model's parts, which are compiled once, by the function that cut it


def _split(model):
    """Cut a model at the pyramid's levels, which are kept: (from levels to outputs, from pixels to levels)."""
    return _once(model, _cut_at_levels)


def _last_layer(model):
    """Cut what follows the levels before the last layer: (from what is kept to outputs, from levels to what is kept).

    What is kept is what the class tower makes of each level, and all offsets.
    """
    return _once(model, _cut_at_last_layer)


def _once(model, cut):
    halves = _halves.setdefault(model, {})
    if cut not in halves:
        halves[cut] = cut(model)
    return halves[cut]


def _cut_at_levels(model):
    config = model.config
    pixels = keras.Input((config.input_size,) * 2 + (3,))
    levels = keras.tree.flatten(model.get_layer("fpn")(keras.tree.flatten(model.get_layer("backbone")(pixels))))
    maps = [keras.Input(level.shape[1:]) for level in levels]
    heads = [model.get_layer(part) for part in PARTS[2:]]
    return keras.Model(maps, _outputs(config, maps, *heads)), keras.Model(pixels, levels)


def _cut_at_last_layer(model):
    box_head, class_tower, class_logits = (model.get_layer(part) for part in PARTS[2:])
    levels = [keras.Input(level.shape[1:]) for level in _split(model)[1].outputs]
    offsets = _in_order([box_head(level) for level in levels], 4, "box")
    seen = [class_tower(level) for level in levels]
    maps, known = [keras.Input(each.shape[1:]) for each in seen], keras.Input(offsets.shape[1:])
    logits = _in_order([class_logits(each) for each in maps], len(model.config.class_names), "class")
    outputs = {"class": logits, "box": layers.Identity(name="box")(known)}
    return keras.Model([*maps, known], outputs), keras.Model(levels, [*seen, offsets])


@functools.cache
def _losses(gamma, alpha):
    """Give Keras, which takes the mean over pictures, the losses: sums by the batch's number of positive anchors."""

    def class_loss(learns, logits):
        return _shared(focal_loss(learns, logits, gamma, alpha), ops.cast(learns[..., 0] >= 0, "float32"))

    def offset_loss(wanted, offsets):
        return _shared(box_loss(wanted, offsets), wanted[..., 4])

    return {"class": class_loss, "box": offset_loss}


def _shared(loss, positive):
    return ops.sum(loss, axis=-1) * ops.cast(ops.shape(loss)[0], "float32") / ops.maximum(ops.sum(positive), 1.0)


def augment(
    image: np.ndarray,
    own: np.ndarray,
    labels: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.7, 1.4),
    shift: float = 0.15,
    colour: float = 0.2,
    visible: float = 0.4,
) -> tuple:
    """Flip a picture left to right, zoom, shift and tint it, and let its boxes follow.

    Args:
        image: (H, W, 3), 0–255. own: (T, 4) xyxy in pixels. labels: (T,). generator: numpy.random.Generator.
        zoom: least and greatest factor. shift: greatest, as a fraction of the sides. colour: greatest relative change
            of brightness, and half of it of each channel.
        visible: a box of which less than this share of its area stays in view is dropped.

    Returns:
        image (H, W, 3) uint8, boxes (t, 4) float32 within it, labels (t,).
    """
    (height, width), own = image.shape[:2], np.asarray(own, np.float32).reshape(-1, 4).copy()
    flipped, scale, corner = classify.random_view(image.shape, generator, zoom, shift)
    if flipped:
        own[:, [0, 2]] = width - own[:, [2, 0]]
    image = classify.warped(image, flipped, scale, corner, outside=image.mean((0, 1)).tolist())
    there = own * scale + np.tile(corner, 2)
    inside = np.clip(there, 0, [width, height, width, height]).astype(np.float32)
    kept = boxes.area(inside) >= np.maximum(visible * boxes.area(there), 1.0)
    return classify.tinted(image, generator, colour), inside[kept], np.asarray(labels)[kept]


def detect(
    model: "keras.Model",
    images: Sequence[np.ndarray],
    score: float = 0.05,
    iou: float = 0.5,
    max_boxes: int = 100,
    candidates: int = 1000,
) -> list[dict]:
    """Find things in pictures.

    Args:
        images: (N, H, W, 3) or a list of N pictures of any size, 0–255.
        score: least probability.
        iou: of two boxes of one class that overlap more, the less probable goes.
        max_boxes, candidates: at most so many are found in a picture, among so many of the most probable.

    Returns:
        list of dict, one a picture: "boxes" (D, 4) float32, xyxy in its pixels and within it; "labels" (D,) int64;
        "scores" (D,) float32, falling.
    """
    found, anchors = [], model.config.anchors()
    heads, body = _split(model)
    for start in range(0, len(images), 16):
        pictures = list(images[start : start + 16])
        maps = classify.features(body, _batch(model.config, pictures), 16)
        outputs = heads.predict_on_batch(maps)
        for picture, logits, offsets in zip(pictures, outputs["class"], outputs["box"], strict=True):
            there = suppress(logits, offsets, anchors, score, iou, max_boxes, candidates)
            size = np.float32([picture.shape[1], picture.shape[0]] * 2)
            there["boxes"] = np.clip(there["boxes"] * (size / model.config.input_size), 0, size)
            found.append(there)
    return found


def suppress(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    score: float = 0.05,
    iou: float = 0.5,
    max_boxes: int = 100,
    candidates: int = 1000,
) -> dict:
    """Turn what the model says of one picture, logits (A, K) and offsets (A, 4), into detections. See `detect`."""
    flat = np.asarray(logits, np.float32).ravel()
    likely = np.flatnonzero(flat >= np.log(score / (1 - score)))
    if len(likely) > candidates:
        likely = likely[np.argpartition(flat[likely], -candidates)[-candidates:]]
    anchor, labels = np.divmod(likely, logits.shape[1])
    decoded = boxes.decode(np.asarray(offsets)[anchor], anchors[anchor], VARIANCES)
    kept = boxes.nms(decoded, flat[likely], iou, max_boxes, labels)
    return {"boxes": decoded[kept], "labels": labels[kept], "scores": 1 / (1 + np.exp(-flat[likely][kept]))}


def _batch(config, images):
    """Resize pictures of any size to the model's own, so that they make one array."""
    import cv2

    side = (config.input_size,) * 2
    return np.stack([i if i.shape[:2] == side else cv2.resize(np.asarray(i), side) for i in images])


def scores(
    found: Sequence[dict],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    class_names: Sequence[str],
    **ignored: Any,
) -> dict:
    """Score detections as from `detect`, by the rules of COCO. See `metrics.detection_scores`, also for `ignored`."""
    from cvlab import metrics

    columns = ([each[key] for each in found] for key in ("boxes", "labels", "scores"))
    return metrics.detection_scores(true_boxes, labels, *columns, class_names, **ignored)


def weights(model: "keras.Model") -> dict:
    """Give each weight of a RetinaNet by its name, which begins with its part: {"class_tower/class_0/kernel": …}."""
    return {f"{part}/{v.path}": v for part in PARTS for v in model.get_layer(part).weights}


def trainable(model: "keras.Model", like: str | Sequence[str] | None = None) -> dict:
    """List the variables that training will change; with `like`, choose them first.

    Args:
        model: from `build`.
        like: one pattern or several, such as "class_*" or "box_head/*"; a variable whose name, as in `weights`, fits
            none is frozen. None leaves the choice as it is.

    Returns:
        dict of the trainable variables by name. Batch normalization is never among them: a few small batches would
        spoil its statistics.

    Raises:
        ValueError: for a pattern that fits no variable.
    """
    named = weights(model)
    if like is not None:
        patterns = [like] if isinstance(like, str) else list(like)
        for pattern in patterns:
            if not fnmatch.filter(named, pattern):
                raise ValueError(
                    f"trainable: like={pattern!r} fits no variable; their names begin with "
                    f"{', '.join(f'{part}/' for part in PARTS)}"
                )
        frozen = [layer.variables for layer in classify.all_layers(model) if not layer.trainable]
        kept = {id(variable) for variables in frozen for variable in variables}
        for name, variable in named.items():
            variable.trainable = id(variable) not in kept and any(fnmatch.fnmatchcase(name, p) for p in patterns)
        model.compiled = False  # a compiled step trains what was trainable then
        for upper, _ in _halves.get(model, {}).values():
            upper.compiled = False
    chosen = {id(variable) for variable in model.trainable_variables}
    return {name: variable for name, variable in named.items() if id(variable) in chosen}


def save(model: "keras.Model", path: str | Path | None) -> None:
    """Write a checkpoint: an HDF5 file, `.weights.h5`, with an array for each name in `weights`, kernels as float16."""
    import h5py

    if not str(path).endswith(".weights.h5"):
        raise ValueError(f"retinanet.save: path={path} does not end in .weights.h5")

    def write(part):
        with h5py.File(part, "w") as file:
            for name, variable in weights(model).items():
                array = ops.convert_to_numpy(variable)
                file.create_dataset(name, data=array.astype("float16") if array.ndim > 1 else array)

    _write(path, write)


@dataclasses.dataclass
class Restored:
    """What `restore` did: names of weights, as `weights` gives them.

    Attributes:
        model: the model that was restored.
        loaded: names that came from the checkpoint.
        skipped: names of the checkpoint's in parts that were not asked for.
        misfits: {name: (shape in the checkpoint, shape in the model)}; None for a shape where one side lacks the name.
    """

    model: keras.Model
    loaded: list
    skipped: list
    misfits: dict

    def __str__(self):
        def told(names):
            counts = {part: sum(name.startswith(f"{part}/") for name in names) for part in PARTS}
            return ", ".join(f"{part} ({count})" for part, count in counts.items() if count) or "nothing"

        lines = [f"loaded: {told(self.loaded)}", f"skipped: {told(self.skipped)}", f"did not fit: {told(self.misfits)}"]
        for name, (there, here) in self.misfits.items():
            lines.append(f"  {name}: {there or 'not'} in the checkpoint, {here or 'not'} in the model")
        return "\n".join(lines)

    __repr__ = __str__


def restore(checkpoint: str | Path, parts: Sequence[str] = PARTS, model: "keras.Model | None" = None) -> Restored:
    """Load parts of a checkpoint, and say what was loaded, what was skipped and what did not fit.

    What is not loaded stays as the model has it.

    Args:
        checkpoint: path of a file that `save` wrote, or the name of one of the book's, such as "retinanet_toybox".
        parts: some of PARTS.
        model: from `build`; None builds the model of the configuration that lies beside the checkpoint, as .yml.

    Returns:
        Restored, with the model.

    Raises:
        ValueError: for an unknown part, and for a file that is no checkpoint.
        DataUnavailable: for a file that isn't there.
    """
    import h5py

    parts = [parts] if isinstance(parts, str) else list(parts)
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"restore: parts has {unknown[0]!r}, expected some of {', '.join(PARTS)}")
    path = Path(checkpoint) if str(checkpoint).endswith(".weights.h5") else data.weights(str(checkpoint))
    if not path.exists():
        raise files.DataUnavailable(f"restore: {path} does not exist; `save` writes such a file")
    if model is None:
        model = build(configuration(checkpoint), weights=None)
    named, done = weights(model), Restored(model, [], [], {})
    try:
        with h5py.File(path) as file:
            names = []
            file.visit(names.append)
            arrays = {name: file[name][()] for name in names if isinstance(file[name], h5py.Dataset)}
    except OSError as error:
        raise files.DataError(f"restore: {path} is no checkpoint ({error})") from error
    if not any(name.split("/")[0] in PARTS for name in arrays):
        raise files.DataError(f"restore: {path} holds no weights of a RetinaNet; `retinanet.save` writes them")
    for name in [*arrays, *(name for name in named if name not in arrays)]:
        there, here = (tuple(side[name].shape) if name in side else None for side in (arrays, named))
        if name.split("/")[0] not in parts:
            done.skipped += [name] if there is not None else []
        elif there == here:
            named[name].assign(arrays[name].astype("float32"))
            done.loaded.append(name)
        else:
            done.misfits[name] = there, here
    for layer in classify.all_layers(model.get_layer("backbone")) if "backbone" in parts else ():
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # computes with what it makes of its weights, not with these
    return done


def configuration(checkpoint: str | Path) -> RetinaNetConfig:
    """Read the configuration that lies beside a checkpoint (a path or a name of the book's), as .yml."""
    name = str(checkpoint)
    if name.endswith(".weights.h5"):
        return RetinaNetConfig.load(name.removesuffix(".weights.h5") + ".yml")
    return RetinaNetConfig.load(files.whole(f"weights/{name}.yml", f"configuration of {name}"))


def _write(path, write):
    """Let `write` fill a file beside `path`, and give it that name when it is whole."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
