"""Localization: a network that classifies the one object in an image and predicts its box, and losses for boxes.

Inside the network, boxes are fractions of the image's width and height, so that the image size makes no difference;
`train` takes and `predict` returns boxes in pixels, [x_min, y_min, x_max, y_max].
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import boxes, classify, data, learn, zoo

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
    """Put a box head and, if there are classes, a class head on a copy of a backbone.

    With head="votes", every cell of the feature map predicts the four sides of the box relative to its own position,
    and a confidence for each side; the box is the mean of all predictions, weighted by the softmax of the confidences
    over the cells. Like a convolution, it treats all positions alike. With head="dense", one dense layer sees the whole
    map and has to learn each position separately. head="deep_dense" is the fair comparison for "votes": the same 3×3
    convolutions come first, so that both have about the same number of weights.

    Args:
        backbone: keras.Model without top, from pixel values to feature maps.
        num_classes: int; None for no class head.
        mode: of the backbone: "frozen", "fine_tune" or "scratch" (see `classify.transfer`).
        input_size: side in pixels to which images are resized inside the model.
        strides: of the feature maps that the box head sees, in any order; the class head sees the coarsest.
        head: "votes", "dense" or "deep_dense".

    Returns:
        keras.Model from pixel values 0–255 (N, H, W, 3) to {"box": (N, 4), xyxy in fractions of the image's sides, with
        x_min ≤ x_max and y_min ≤ y_max; "trust": (N, h, w, 4), the weights of the cells, which sum to 1 (only with
        "votes"); "class": (N, num_classes) probabilities}.

    Raises:
        ValueError: for another head or mode, or strides that the backbone doesn't have.
    """
    if head not in HEADS:
        raise ValueError(f"regressor: head={head!r}, expected one of {', '.join(HEADS)}")
    body = zoo.copy_body(backbone, mode, strides)
    pixels = keras.Input((None, None, 3), name="pixels")
    maps = body(layers.Resizing(input_size, input_size, name="resize")(pixels))
    body = keras.Model(pixels, maps, name="body")  # a separate model, which `maps` runs alone
    outputs = heads([m.shape[1:] for m in maps], num_classes, head)
    return keras.Model(pixels, outputs(body(pixels)), name=f"{backbone.name}_{head}")


def heads(shapes: Sequence, num_classes: int | None = None, head: str = "votes", width: float = 96) -> "keras.Model":
    """Build both heads alone, from feature maps of these (h, w, C) shapes, in any order. See `regressor`.

    The kernel of the last layer starts at zero, so that the first box is the same for all images and the first steps
    are small: with random weights, a box may become empty early in training, and then no IoU has a gradient.
    """
    maps = [keras.Input(shape) for shape in shapes]
    finest_first = sorted(maps, key=lambda m: -m.shape[1] * m.shape[2])
    rows, columns = finest_first[0].shape[1:3]
    resized = []
    for features in maps:
        x = layers.Conv2D(64, 1)(features)
        resized.append(x if x.shape[1:3] == (rows, columns) else layers.Resizing(rows, columns)(x))
    x = layers.Concatenate()(resized) if len(resized) > 1 else resized[0]
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if head != "dense":
        for _ in range(2):  # with Keras' default initializer, one seed in five learned more slowly than the others
            x = layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    if head == "votes":
        x = layers.Conv2D(8, 1, kernel_initializer="zeros", name="votes")(x)
        flat = ops.reshape(x, (-1, rows * columns, 8))
        trust = ops.softmax(flat[..., 4:], axis=1)  # (N, cells, 4)
        distances = ops.softplus(flat[..., :4] - 1) * np.float32([-1, -1, 1, 1])  # to the left, up, right and down
        sides = ops.sum(trust * (distances + cells(rows, columns).reshape(-1, 4)), axis=1)
        outputs = {"trust": ops.reshape(trust, (-1, rows, columns, 4))}
    else:
        x = layers.Conv2D(32, 1, activation="relu")(x) if head == "dense" else x
        x = layers.Dense(4, kernel_initializer="zeros", name="dense")(layers.Flatten()(x))
        centre, size = ops.sigmoid(x[:, :2]), ops.sigmoid(x[:, 2:])
        sides, outputs = ops.concatenate([centre - size / 2, centre + size / 2], axis=-1), {}
    first, second = sides[:, :2], sides[:, 2:]  # early in training, x_min may exceed x_max
    outputs["box"] = ops.concatenate([ops.minimum(first, second), ops.maximum(first, second)], axis=-1)
    if num_classes:
        pooled = layers.GlobalAveragePooling2D(name="pool")(finest_first[-1])
        outputs["class"] = layers.Dense(num_classes, activation="softmax", name="class")(pooled)
    return keras.Model(maps, outputs, name="heads")


def cells(rows: Any, columns: int) -> np.ndarray:
    """Compute the centres of a feature map's cells, each twice, in fractions of the image: (rows, columns, 4)."""
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([x, y, x, y], axis=-1).astype(np.float32)


def box_loss(true: Any, predicted: Any, kind: str = "giou") -> Any:
    """Compute the loss of each predicted box against its true box.

    Args:
        true, predicted: (N, 4) xyxy in the same unit; for "l1" in fractions of the image.
        kind: "l1", the sum of the four sides' absolute errors; "iou", 1 − IoU; "giou", "diou" and "ciou" likewise.

    Returns:
        (N,) tensor.

    Raises:
        ValueError: for another kind.

    Source: Rezatofighi et al., Generalized intersection over union, CVPR 2019; Zheng et al., Distance-IoU loss, AAAI
        2020, for the last two.
    """
    _check_kind(kind)
    if kind == "l1":
        return ops.sum(ops.abs(ops.cast(true, "float32") - predicted), axis=-1)
    true, predicted = ops.convert_to_tensor(true), ops.convert_to_tensor(predicted)
    return 1 - SIMILARITIES[kind](true, predicted)


def _check_kind(kind):
    if kind not in LOSSES:
        raise ValueError(f"box_loss: kind={kind!r}, expected one of {', '.join(LOSSES)}")


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
    """Train the heads, and the backbone unless it is frozen, with Adam and a learning rate that falls along a cosine.

    Args:
        model: from `regressor`.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        true_boxes: (N, 4) xyxy in pixels of `images`.
        labels: (N,) integers from 0, for a model with a class head; its cross-entropy is added to the box loss.
        loss: the `kind` of `box_loss`.
        augment: function of (images, boxes, numpy.random.Generator) that changes a batch, such as `augment`; not with a
            frozen backbone.
        cached: the result of `maps` for these images, so that a frozen backbone needn't see them again; not with a
            trainable backbone.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list with the loss of each step, and "seconds".

    Raises:
        ValueError: for boxes, labels or maps that don't fit the images or the model.
    """
    start = time.perf_counter()
    images = data.as_images(images, "localize.train")
    targets, losses = {"box": fractions(true_boxes, images)}, {"box": _loss(loss)}
    if "class" in model.output:
        targets["class"] = _checked_labels(labels, len(images), model.output["class"].shape[-1])
        losses["class"] = classify.LOSS
    if not model.get_layer("body").trainable_weights:
        if augment is not None:
            raise ValueError("localize.train: augment needs a trainable backbone; a frozen one sees each image once")
        trained, draw = model.get_layer("heads"), learn.batches(_maps(model, images, cached, progress), targets)
    elif cached is not None:
        raise ValueError("localize.train: cached needs a frozen backbone; the maps of a trainable one change")
    else:
        trained, draw = model, learn.batches(images, targets)
    true_boxes = np.asarray(true_boxes, np.float32)

    def augmented(rows, generator):
        batch, moved = augment(images[rows], true_boxes[rows], generator)
        unchanged = {name: target[rows] for name, target in targets.items()}
        return batch, unchanged | {"box": fractions(moved, batch)}

    draw = augmented if augment else draw
    history = learn.optimize(trained, losses, draw, len(images), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - start}


def _checked_labels(labels, count, num_classes):
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= num_classes:
        values = f" and values {labels.min()}…{labels.max()}" if labels.ndim else ""
        raise ValueError(
            f"localize.train: labels have shape {labels.shape}{values}; expected ({count},) and "
            f"0…{num_classes - 1}, as the model has a class head"
        )
    return labels


def maps(model: "keras.Model", images: np.ndarray, progress: bool = False) -> list[np.ndarray]:
    """Run images through a regressor's backbone: a list of (N, h, w, C) float32, for `train` and `predict`."""
    feature_maps = learn.features(model.get_layer("body"), images, progress=progress)
    return feature_maps if isinstance(feature_maps, list) else [feature_maps]


def _maps(model, images, cached, progress=False):
    """Return the cached maps if they fit these images, or compute them if there are none."""
    if cached is None:
        return maps(model, images, progress)
    expected = [(len(images), *m.shape[1:]) for m in model.get_layer("heads").inputs]
    shapes = [np.shape(m) for m in cached] if isinstance(cached, (list, tuple)) else np.shape(cached)
    if shapes != expected:
        raise ValueError(f"localize: cached has shapes {shapes}, expected {expected}, as from `maps` for these images")
    return cached


def predict(model: "keras.Model", images: np.ndarray, cached: Sequence | None = None) -> dict[str, np.ndarray]:
    """Predict boxes and, if the model has a class head, classes.

    Boxes are clipped to the image. As the true box lies within the image, this can't lower the IoU.

    Args:
        images: (N, H, W, 3), 0–255.
        cached: the result of `maps` for these images, so that the backbone needn't see them again.

    Returns:
        dict of the model's outputs as arrays, with "box" (N, 4) float32 xyxy in pixels.

    Raises:
        ValueError: for images of another shape or dtype, and for maps that don't fit them.
    """
    images, head_model = data.as_images(images, "localize.predict"), model.get_layer("heads")
    feature_maps = _maps(model, images, cached)
    batches = [head_model([m[i : i + 256] for m in feature_maps], training=False) for i in range(0, len(images), 256)]
    outputs = {key: np.concatenate([ops.convert_to_numpy(batch[key]) for batch in batches]) for key in batches[0]}
    return outputs | {"box": np.clip(outputs["box"], 0, 1) * _sides(images)}


def fractions(true_boxes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Convert boxes from pixels of `images`, one per image, to fractions of width and height: (N, 4) float32.

    Raises:
        ValueError: for another shape, and for a box that is empty or lies outside its image.
    """
    in_pixels = np.asarray(true_boxes, np.float32)
    if in_pixels.shape != (len(images), 4):
        raise ValueError(f"localize: boxes have shape {in_pixels.shape}, expected ({len(images)}, 4), one per image")
    relative = in_pixels / _sides(images)
    nonempty = (relative[:, :2] < relative[:, 2:]).all(1)
    valid = nonempty & (relative >= -1e-3).all(1) & (relative <= 1.001).all(1)
    if not valid.all():
        row = valid.argmin()
        raise ValueError(
            f"localize: box {row} is {np.asarray(true_boxes)[row].tolist()}, empty or outside its image; expected "
            f"x_min < x_max and y_min < y_max within {images.shape[2]}×{images.shape[1]} pixels"
        )
    return relative


def _sides(images):
    """Return width, height, width, height of images in pixels: (4,) float32."""
    return np.float32([images.shape[2], images.shape[1]] * 2)


def augment(
    images: np.ndarray,
    true_boxes: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.7, 1.3),
    shift: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Flip images left to right at random, zoom and shift them, and let the boxes follow.

    What comes into view from outside has the image's mean colour. An image whose box would lose more than a fifth of
    its area is not zoomed and shifted, only flipped.

    Args:
        images: (N, H, W, 3). true_boxes: (N, 4) xyxy in pixels. generator: numpy.random.Generator.
        zoom: smallest and largest factor. shift: largest shift, as a fraction of the sides.

    Returns:
        images and boxes, of the shapes and dtypes of the arguments (boxes float32).
    """
    images, moved = images.copy(), np.asarray(true_boxes, np.float32).copy()
    width, height = images.shape[2], images.shape[1]
    for i, box in enumerate(moved):
        flipped, scale, corner = learn.random_view(images[i].shape, generator, zoom, shift)
        if flipped:
            images[i], box[[0, 2]] = images[i][:, ::-1].copy(), width - box[[2, 0]]
        complete, visible = learn.warped_boxes(box[None], (width, height), False, scale, corner)
        if boxes.area(visible) >= 0.8 * boxes.area(complete):
            outside = images[i].mean((0, 1)).tolist()  # mirroring would repeat an object that touches the border
            images[i] = learn.warped(images[i], False, scale, corner, outside)
            moved[i] = visible[0]
    return images, moved


def load(name: str, split: str = "train", **options: Any) -> Any:
    """Load one split of a dataset as `data.load` does, with one box per image; images with several are left out.

    "mnist" has no boxes: its digits are placed on canvases of 75×75 pixels (see `digits_on_canvas`), and `size` is
    ignored.

    Returns:
        data.Dataset with boxes (N, 4) and labels (N,).

    Raises:
        ValueError: as in `data.load`, and for a dataset in which no image has exactly one box.
    """
    if name == "mnist":
        part = data.load(name, split, **options | {"size": None})
        images, digit_boxes = digits_on_canvas(part.images, seed=("train", "val", "test").index(split))
        return dataclasses.replace(part, images=images, boxes=digit_boxes)
    part = data.load(name, split, **options)
    if isinstance(part.boxes, np.ndarray):
        return part
    single = [i for i, image_boxes in enumerate(part.boxes or ()) if len(image_boxes) == 1]
    if not single:
        raise ValueError(f"localize.load: {name} has no image with one box; 'voc' and 'coco' read your own boxes")
    part = part.take(single)
    return dataclasses.replace(part, boxes=np.concatenate(part.boxes), labels=np.concatenate(part.labels))


def digits_on_canvas(digits: np.ndarray, canvas: int = 75, seed: int = 0) -> Any:
    """Place each digit at a random position on a black canvas, with the tight box around it.

    Args:
        digits: (N, h, w, 3) uint8, bright on black.
        canvas: side in pixels.
        seed: of the positions.

    Returns:
        images (N, canvas, canvas, 3) uint8, and boxes (N, 4) float32, xyxy in pixels.

    Raises:
        ValueError: for a canvas that is smaller than a digit, and for a digit without a bright pixel.
    """
    digits, generator = data.as_images(digits, "digits_on_canvas"), np.random.default_rng(seed)
    height, width = digits.shape[1:3]
    ink = digits.max(-1) > 50  # not the blur around the strokes
    if canvas < max(height, width):
        raise ValueError(
            f"digits_on_canvas: canvas={canvas}, expected at least {max(height, width)}, the side of a digit"
        )
    if not ink.any((1, 2)).all():
        empty = ink.any((1, 2)).argmin()
        raise ValueError(f"digits_on_canvas: digit {empty} has no pixel brighter than 50; expected digits on black")
    images, digit_boxes = np.zeros((len(digits), canvas, canvas, 3), np.uint8), []
    for image, digit, mask in zip(images, digits, ink, strict=True):
        top, left = generator.integers(0, canvas - np.array([height, width]) + 1)
        image[top : top + height, left : left + width] = digit
        rows, columns = np.nonzero(mask)
        digit_boxes.append([left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1])
    return images, np.float32(digit_boxes)


def scores(predicted: np.ndarray, true: np.ndarray) -> dict:
    """Compare predicted with true boxes, both (N, 4) xyxy, pair by pair.

    Returns:
        dict: "IoU", the mean; "> .5" and "> .75", the shares of images with an IoU above these.
    """
    overlap = boxes.paired_iou(np.asarray(predicted, np.float32), np.asarray(true, np.float32))
    return {
        "IoU": float(overlap.mean()),
        "> .5": float((overlap > 0.5).mean()),
        "> .75": float((overlap > 0.75).mean()),
    }


@functools.cache
def _loss(kind):
    _check_kind(kind)
    return functools.partial(box_loss, kind=kind)  # the same object each time, so that the graph is compiled once
