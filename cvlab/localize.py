"""Localization: a network that names the one thing in a picture and puts a box around it, and losses for boxes.

The network works in fractions of the picture's width and height, so that the size of a picture makes no difference;
what goes in and out of `train` and `predict` are boxes in pixels, [x_min, y_min, x_max, y_max].
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import boxes, classify, data

SIMILARITIES = {
    "iou": boxes.paired_iou,
    "giou": boxes.paired_giou,
    "diou": boxes.paired_diou,
    "ciou": boxes.paired_ciou,
}
LOSSES = ("l1", *SIMILARITIES)
HEADS = ("votes", "dense", "deep_dense")


def regressor(
    backbone: "keras.Model",
    num_classes: int | None = None,
    mode: str = "frozen",
    input_size: int | None = 96,
    strides: Sequence[int] = (16, 32),
    head: str = "votes",
) -> "keras.Model":
    """Put a box head, and beside it a class head, on one backbone.

    With head="votes" every cell of the feature map proposes where each side of the box lies, relative to itself, and
    says how much it is to be trusted for that side; the box is the mean of all proposals, weighted by the softmax of
    the trust. It treats every place alike, as a convolution does. With head="dense", one dense layer looks at the whole
    map; it has to learn each place by itself. head="deep_dense" is the fair match of "votes": the same 3×3 convolutions
    come first, so that both have about as many weights.

    Args:
        backbone: keras.Model without top, from pixels to feature maps.
        num_classes: int; None leaves the class head out.
        mode: of the backbone: "frozen", "fine_tune" or "scratch" (see `classify.transfer`).
        input_size: side in pixels that pictures are resized to inside the model.
        strides: of the feature maps that the box head sees, in any order; the class head sees the coarsest.
        head: "votes", "dense" or "deep_dense".

    Returns:
        keras.Model from pixels 0–255 (N, H, W, 3) to {"box": (N, 4), fractions of the picture's sides, in order;
        "trust": (N, h, w, 4), which sums to 1 over the cells (votes only); "class": (N, num_classes) probabilities}.

    Raises:
        ValueError: for another head or mode, or strides that the backbone doesn't have.
    """
    if head not in HEADS:
        raise ValueError(f"regressor: head={head!r}, expected one of {', '.join(HEADS)}")
    body = classify.copy_body(backbone, mode, strides)
    pixels = keras.Input((None, None, 3), name="pixels")
    maps = body(layers.Resizing(input_size, input_size, name="resize")(pixels))
    body = keras.Model(pixels, maps, name="body")  # a model of its own, which `maps` runs alone
    outputs = heads([m.shape[1:] for m in maps], num_classes, head)
    return keras.Model(pixels, outputs(body(pixels)), name=f"{backbone.name}_{head}")


def heads(shapes: Sequence, num_classes: int | None = None, head: str = "votes", width: float = 96) -> "keras.Model":
    """Build the two heads alone, from feature maps of these (h, w, C) shapes, in any order. See `regressor`.

    Their last layer starts with zeros, so that all pictures begin with the same box, and the first steps are small:
    from random ones, a box may shrink to nothing before it has learned, and there no IoU has a gradient.
    """
    maps = [keras.Input(shape) for shape in shapes]
    by_size = sorted(maps, key=lambda m: -m.shape[1] * m.shape[2])  # finest first
    rows, columns = by_size[0].shape[1:3]
    same = []
    for features in maps:  # to one number of channels and one size
        x = layers.Conv2D(64, 1)(features)
        same.append(x if x.shape[1:3] == (rows, columns) else layers.Resizing(rows, columns)(x))
    x = layers.Concatenate()(same) if len(same) > 1 else same[0]
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if head != "dense":
        for _ in range(2):  # with Keras' own first weights, one seed in five learned more slowly than the others
            x = layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    if head == "votes":
        x = layers.Conv2D(8, 1, kernel_initializer="zeros", name="votes")(x)
        flat = ops.reshape(x, (-1, rows * columns, 8))
        trust = ops.softmax(flat[..., 4:], axis=1)  # (N, cells, 4)
        reach = ops.softplus(flat[..., :4] - 1) * np.float32([-1, -1, 1, 1])  # to the left, up, right and down
        sides = ops.sum(trust * (reach + cells(rows, columns).reshape(-1, 4)), axis=1)
        outputs = {"trust": ops.reshape(trust, (-1, rows, columns, 4))}
    else:
        x = layers.Conv2D(32, 1, activation="relu")(x) if head == "dense" else x
        x = layers.Dense(4, kernel_initializer="zeros", name="dense")(layers.Flatten()(x))
        centre, size = ops.sigmoid(x[:, :2]), ops.sigmoid(x[:, 2:])
        sides, outputs = ops.concatenate([centre - size / 2, centre + size / 2], axis=-1), {}
    first, second = sides[:, :2], sides[:, 2:]  # early in training a left side may lie right of the right one
    outputs["box"] = ops.concatenate([ops.minimum(first, second), ops.maximum(first, second)], axis=-1)
    if num_classes:
        pooled = layers.GlobalAveragePooling2D(name="pool")(by_size[-1])
        outputs["class"] = layers.Dense(num_classes, activation="softmax", name="class")(pooled)
    return keras.Model(maps, outputs, name="heads")


def cells(rows: Any, columns: int) -> np.ndarray:
    """Give the centre of each cell of a feature map, twice, in fractions of the picture: (rows, columns, 4)."""
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([x, y, x, y], axis=-1).astype(np.float32)


def box_loss(true: Any, predicted: Any, kind: str = "giou") -> Any:
    """Measure how far boxes are from true ones, by pairs.

    Args:
        true, predicted: (N, 4) in any unit; for "l1" in fractions of the picture.
        kind: "l1", the sum of the four sides' absolute errors; "iou", 1 − IoU; "giou", "diou" and "ciou" likewise.

    Returns:
        (N,) tensor.

    Source: Rezatofighi et al., Generalized intersection over union, CVPR 2019; Zheng et al., Distance-IoU loss, AAAI
        2020, for the last two.
    """
    if kind not in LOSSES:
        raise ValueError(f"box_loss: kind={kind!r}, expected one of {', '.join(LOSSES)}")
    if kind == "l1":
        return ops.sum(ops.abs(ops.cast(true, "float32") - predicted), axis=-1)
    true, predicted = ops.convert_to_tensor(true), ops.convert_to_tensor(predicted)
    return 1 - SIMILARITIES[kind](true, predicted)


def train(
    model: "keras.Model",
    images: np.ndarray,
    true_boxes: np.ndarray,
    labels: np.ndarray | None = None,
    loss: Any = "giou",
    steps: int = 300,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    augment: Callable | None = None,
    seed: int = 0,
    progress: bool = False,
    cached: Sequence | None = None,
) -> dict:
    """Train the heads, and the backbone where it is not frozen, with Adam and a cosine's learning rates.

    Args:
        model: from `regressor`.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        true_boxes: (N, 4) xyxy in pixels of `images`.
        labels: (N,) integers from 0, for a model with a class head; its cross-entropy is added to the box loss.
        loss: the `kind` of `box_loss`.
        augment: function of (images, boxes, numpy.random.Generator) that changes a batch, such as `augment`; not with a
            frozen backbone.
        cached: what `maps` gave for these pictures; a frozen backbone then needn't see them again. Not for one that
            learns.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".

    Raises:
        ValueError: for boxes, labels or maps that don't fit the pictures or the model.
    """
    began = time.perf_counter()
    images = data.as_images(images, "localize.train")
    targets, losses = {"box": fractions(true_boxes, images)}, {"box": _loss(loss)}
    if "class" in model.output:
        labels, classes = np.asarray(labels), model.output["class"].shape[-1]
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= classes:
            values = f" and values {labels.min()}…{labels.max()}" if labels.ndim else ""
            raise ValueError(
                f"localize.train: labels have shape {labels.shape}{values}; expected ({len(images)},) and "
                f"0…{classes - 1}, as the model has a class head"
            )
        targets["class"], losses["class"] = labels, classify.LOSS
    learning = bool(model.get_layer("body").trainable_weights)
    if not learning and augment is not None:
        raise ValueError("localize.train: augment needs a backbone that learns; a frozen one sees each picture once")
    if learning and cached is not None:
        raise ValueError("localize.train: cached needs a frozen backbone; the maps of one that learns change")
    inputs = [images] if learning else _maps(model, images, cached, progress)

    def draw(rows, generator):
        batch, truth = [x[rows] for x in inputs], {key: target[rows] for key, target in targets.items()}
        if augment is not None:
            batch[0], moved = augment(batch[0], np.asarray(true_boxes, np.float32)[rows], generator)
            truth["box"] = fractions(moved, batch[0])
        return batch[0] if learning else batch, truth

    trained = model if learning else model.get_layer("heads")
    history = classify.optimize(trained, losses, draw, len(images), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def maps(model: "keras.Model", images: np.ndarray, progress: bool = False) -> list[np.ndarray]:
    """Run pictures through a regressor's backbone: a list of (N, h, w, C) float32, for `train` and `predict`."""
    found = classify.features(model.get_layer("body"), images, progress=progress)
    return found if isinstance(found, list) else [found]


def _maps(model, images, cached, progress=False):
    """Give the maps that were kept, where they fit these pictures, or else compute them."""
    if cached is None:
        return maps(model, images, progress)
    wanted = [(len(images), *m.shape[1:]) for m in model.get_layer("heads").inputs]
    found = [np.shape(m) for m in cached] if isinstance(cached, (list, tuple)) else np.shape(cached)
    if found != wanted:
        raise ValueError(f"localize: cached has shapes {found}, expected {wanted}, as `maps` gives for these pictures")
    return cached


def predict(model: "keras.Model", images: np.ndarray, cached: Sequence | None = None) -> dict[str, np.ndarray]:
    """Give what a regressor says of pictures: {"box": (N, 4) float32, xyxy in pixels, …} with all that the model gives.

    Sides beyond the picture's border are put on it. As the true box lies within, no IoU becomes lower by that.

    Args: images: (N, H, W, 3), 0–255. cached: what `maps` gave for them; then the backbone needn't see them again.
    Raises: ValueError for images or maps that don't fit.
    """
    images, heads = data.as_images(images, "localize.predict"), model.get_layer("heads")
    cached = _maps(model, images, cached)
    batches = [heads([m[i : i + 256] for m in cached], training=False) for i in range(0, len(images), 256)]
    found = {key: np.concatenate([ops.convert_to_numpy(batch[key]) for batch in batches]) for key in batches[0]}
    return found | {"box": np.clip(found["box"], 0, 1) * _sides(images)}


def fractions(true_boxes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Turn boxes in pixels of `images`, one a picture, into fractions of width and height: (N, 4) float32.

    Raises: ValueError for another shape, and for a box that is empty or lies outside its picture.
    """
    found = np.asarray(true_boxes, np.float32)
    if found.shape != (len(images), 4):
        raise ValueError(f"localize: boxes have shape {found.shape}, expected ({len(images)}, 4), one a picture")
    found = found / _sides(images)
    wrong = ~((found[:, :2] < found[:, 2:]).all(1) & (found >= -1e-3).all(1) & (found <= 1.001).all(1))
    if wrong.any():
        raise ValueError(
            f"localize: box {wrong.argmax()} is {np.asarray(true_boxes)[wrong.argmax()].tolist()}, empty "
            f"or outside its picture of {images.shape[2]}×{images.shape[1]} pixels"
        )
    return found


def _sides(images):
    return np.float32([images.shape[2], images.shape[1]] * 2)


def augment(
    images: np.ndarray,
    true_boxes: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.7, 1.3),
    shift: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Flip pictures left to right, zoom and shift them, and let the boxes follow; every box stays whole enough.

    What comes into view from outside has the picture's mean colour. A picture whose box would lose more than a fifth of
    its area stays as it is (or is only flipped).

    Args:
        images: (N, H, W, 3). true_boxes: (N, 4) xyxy in pixels. generator: numpy.random.Generator.
        zoom: least and greatest factor. shift: greatest, as a fraction of the sides.

    Returns:
        images and boxes, as given.
    """
    images, moved = images.copy(), np.asarray(true_boxes, np.float32).copy()
    height, width = images.shape[1:3]
    for i, box in enumerate(moved):
        flipped, scale, corner = classify.random_view(images[i].shape, generator, zoom, shift)
        if flipped:
            images[i], box[[0, 2]] = images[i][:, ::-1].copy(), width - box[[2, 0]]
        there = box * scale + np.tile(corner, 2)
        inside = np.clip(there, 0, [width, height, width, height]).astype(np.float32)
        if boxes.area(inside) >= 0.8 * boxes.area(there):
            outside = images[i].mean((0, 1)).tolist()  # repeating the border would draw out what touches it
            images[i] = classify.warped(images[i], False, scale, corner, outside)
            moved[i] = inside
    return images, moved


def load(name: str, split: str = "train", **options: Any) -> Any:
    """Load one split of a data set as `data.load` does, with one box a picture; pictures with more are left out.

    "mnist" has no boxes: its digits are put on canvases of 75×75, see `digits_on_canvas`, and `size` is passed over.

    Returns:
        data.Dataset with boxes (N, 4) and labels (N,).

    Raises:
        ValueError: as `data.load`, and where no picture has one box.
    """
    if name == "mnist":
        part = data.load(name, split, **options | {"size": None})
        images, found = digits_on_canvas(part.images, seed=("train", "val", "test").index(split))
        return dataclasses.replace(part, images=images, boxes=found)
    part = data.load(name, split, **options)
    if isinstance(part.boxes, np.ndarray):
        return part
    kept = [i for i, found in enumerate(part.boxes or ()) if len(found) == 1]
    if not kept:
        raise ValueError(f"localize.load: {name} has no picture with one box; 'voc' and 'coco' read your own boxes")
    part = part.take(kept)
    return dataclasses.replace(part, boxes=np.concatenate(part.boxes), labels=np.concatenate(part.labels))


def digits_on_canvas(digits: np.ndarray, canvas: int = 75, seed: int = 0) -> Any:
    """Put each digit at a random place of a black canvas of its own, with the box around its ink.

    Args:
        digits: (N, h, w, 3) uint8, bright on black.
        canvas: side in pixels.

    Returns:
        images (N, canvas, canvas, 3) uint8, and boxes (N, 4) float32, xyxy in pixels.

    Raises:
        ValueError: for a canvas that is too small, or a digit without ink.
    """
    digits, generator = data.as_images(digits, "digits_on_canvas"), np.random.default_rng(seed)
    height, width = digits.shape[1:3]
    ink = digits.max(-1) > 50  # fainter is the blur around it
    if canvas < max(height, width):
        raise ValueError(f"digits_on_canvas: canvas={canvas}, expected at least {max(height, width)}, a digit's side")
    if not ink.any((1, 2)).all():
        raise ValueError(f"digits_on_canvas: digit {ink.any((1, 2)).argmin()} has no pixel brighter than 50")
    images, found = np.zeros((len(digits), canvas, canvas, 3), np.uint8), []
    for image, digit, mask in zip(images, digits, ink, strict=True):
        top, left = generator.integers(0, canvas - np.array([height, width]) + 1)
        image[top : top + height, left : left + width] = digit
        rows, columns = np.nonzero(mask)
        found.append([left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1])
    return images, np.float32(found)


def scores(predicted: np.ndarray, true: np.ndarray) -> dict:
    """Compare boxes by pairs, (N, 4) xyxy: {"IoU": mean, "> .5": share of pictures with IoU above, "> .75": …}."""
    overlap = boxes.paired_iou(np.asarray(predicted, np.float32), np.asarray(true, np.float32))
    return {
        "IoU": float(overlap.mean()),
        "> .5": float((overlap > 0.5).mean()),
        "> .75": float((overlap > 0.75).mean()),
    }


@functools.cache
def _loss(kind):
    if kind not in LOSSES:
        raise ValueError(f"box_loss: kind={kind!r}, expected one of {', '.join(LOSSES)}")
    return functools.partial(box_loss, kind=kind)  # the same object each time, so that a graph is compiled once
