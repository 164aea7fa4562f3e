"""Classifiers: three ways to transfer a backbone to new classes, and how they are trained and compared."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from cvlab import data
from cvlab.engine import backend
from cvlab.learn import batches, features, optimize, random_view, tinted, warped
from cvlab.zoo import (  # noqa: F401 (lessons reach the networks through this module)
    LITE0_STAGES,
    alexnet,
    all_layers,
    backbone,
    copy_body,
    efficientnet_lite0,
    resnet20,
    resnet50,
    zfnet,
)

LOSS = "sparse_categorical_crossentropy"
LEARNING_RATES = {"frozen": 3e-3, "fine_tune": 5e-4, "scratch": 2e-3}  # of `trial`; chosen on `objects`, val


def transfer(
    backbone: "keras.Model", num_classes: int | None, mode: str = "frozen", input_size: int | None = None
) -> "keras.Model":
    """Put a new classifier on a copy of a backbone.

    In the modes "frozen" and "fine_tune", batch normalization keeps the statistics and weights of the pre-training; a
    few small batches would spoil them.

    Args:
        backbone: keras.Model without top, from pixel values to feature maps (N, h, w, C).
        num_classes: int.
        mode: "frozen", only the new classifier is trainable; "fine_tune", everything but batch normalization is
            trainable, starting from the backbone's weights; "scratch", everything is, starting from random weights.
        input_size: side in pixels to which images are resized inside the model (bilinear); None for no resizing.

    Returns:
        keras.Model from pixel values 0–255 (N, H, W, 3) to probabilities (N, num_classes).

    Raises:
        ValueError: for another mode, or a backbone whose output is not a feature map.
    """
    body = copy_body(backbone, mode)
    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Resizing(input_size, input_size, name="resize")(pixels) if input_size else pixels
    x = layers.GlobalAveragePooling2D(name="pool")(body(x))
    # A kernel of zeros passes no gradient down in the first step, which leaves pretrained weights as they are.
    kernel = "glorot_uniform" if mode == "scratch" else "zeros"
    x = layers.Dense(num_classes, activation="softmax", kernel_initializer=kernel, dtype="float32", name="classes")(x)
    return keras.Model(pixels, x, name=f"{backbone.name}_{mode}")


def train(
    model: "keras.Model",
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = 200,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    augment: Callable | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train a classifier with Adam and a learning rate that falls to zero along a cosine (see `learn.optimize`).

    If only the last layer is trainable, each image's features are computed once, and the steps cost next to nothing.

    Args:
        model: keras.Model from `transfer`, or any model whose last layer gives probabilities.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        labels: (N,) integers from 0.
        steps: number of batches; the images come in a new random order each time all have been used.
        learning_rate: of the first step.
        batch_size: images per batch.
        augment: function of (images, numpy.random.Generator) that changes a batch; not with a frozen body.
        seed: of the order (the model's random weights depend on `backend.set_seed` before it is built).
        progress: show a progress bar.

    Returns:
        dict: "loss", a list with the loss of each step, and "seconds".

    Raises:
        ValueError: for labels that don't fit the images or the model.
    """
    start = time.perf_counter()
    images = data.as_images(images, "train")
    if any(layer.trainable_weights for layer in model.layers[:-1]):
        losses = fit(model, images, labels, steps, learning_rate, batch_size, augment, seed, progress)
    else:
        if augment is not None:
            raise ValueError("train: augment needs a trainable body; with a frozen one, each image is seen only once")
        cached = features(keras.Model(model.input, model.layers[-1].input), images, progress=progress)
        losses = fit_top(model.layers[-1], cached, labels, steps, learning_rate, batch_size, seed, progress)
    return {"loss": losses, "seconds": time.perf_counter() - start}


def fit_top(
    layer: Any,
    cached: Sequence | None,
    labels: np.ndarray,
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train a dense layer on cached features (N, C), and return the loss of each step.

    For training, the features are standardized to mean 0 and variance 1, so that one learning rate suits all channels;
    the layer's weights are converted to the standardized features before and back to the original ones afterwards.
    """
    mean, deviation = cached.mean(0), cached.std(0) + 1e-3
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * deviation[:, None], bias + mean @ kernel])
    top = keras.Sequential([keras.Input(cached.shape[1:]), layer])
    standardized = (cached - mean) / deviation
    losses = fit(top, standardized, labels, steps, learning_rate, batch_size, None, seed, progress)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / deviation[:, None], bias - (mean / deviation) @ kernel])
    return losses


def fit(
    model: "keras.Model",
    inputs: Any,
    labels: np.ndarray,
    steps: int,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    augment: Callable | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train a whole classifier on inputs of any kind, (N, ...), and return the loss of each step. See `train`."""
    labels, num_classes = np.asarray(labels), model.outputs[0].shape[-1]
    if labels.shape != (len(inputs),) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"train: labels have shape {labels.shape} and values {labels.min()}…{labels.max()}; expected "
            f"({len(inputs)},) and 0…{num_classes - 1}"
        )

    def augmented(rows, generator):
        return augment(inputs[rows], generator), labels[rows]

    draw = augmented if augment else batches(inputs, labels)
    return optimize(model, LOSS, draw, len(inputs), steps, learning_rate, batch_size, seed, progress)


def augment(
    images: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.9, 1.2),
    shift: float = 0.08,
    colour: float = 0.2,
) -> np.ndarray:
    """Flip images left to right at random, zoom, shift and tint each of them; edges are mirrored.

    Args:
        images: (N, H, W, 3), 0–255. generator: numpy.random.Generator.
        zoom: smallest and largest factor. shift: largest shift, as a fraction of the sides. colour: largest relative
            change of the brightness; each channel changes by at most half of it in addition.

    Returns:
        (N, H, W, 3) uint8.
    """
    augmented = []
    for image in images:
        view = random_view(image.shape, generator, zoom, shift)
        augmented.append(tinted(warped(image, *view), generator, colour))
    return np.stack(augmented)


def trial(
    backbone: "keras.Model",
    train_set: "data.Dataset",
    test_set: "data.Dataset",
    mode: str,
    per_class: int | None = None,
    steps: int = 200,
    input_size: int | None = None,
    seeds: Sequence[int] = (0,),
    learning_rate: float | None = None,
) -> list[dict]:
    """Train a transferred classifier on `per_class` images of each class (None: all) and test it, once per seed.

    The seed determines which images are drawn, their order, and the random weights. Without a learning rate, the one
    in `LEARNING_RATES` for the mode is used.

    Returns:
        list of dict: "mode", "per_class", "seed", "accuracy" on the test set (0–1), and "seconds" of training.
    """
    model, rows = None, []
    for seed in seeds:
        backend.set_seed(seed)
        subset = train_set if per_class is None else train_set.few(per_class, seed)
        if model is None or mode == "scratch":  # in the other modes, every seed starts from the same weights
            fresh = transfer(backbone, len(train_set.class_names), mode, input_size)
            initial_weights = fresh.get_weights()
        if model is None:  # one compiled graph serves all seeds, and compiling it is not training
            model = fresh
            train(model, subset.images[:32], subset.labels[:32], 1)
        model.set_weights(initial_weights)
        rate = learning_rate or LEARNING_RATES[mode]
        seconds = train(model, subset.images, subset.labels, steps, rate, seed=seed)["seconds"]
        scored = accuracy(model, test_set.images, test_set.labels)
        rows.append({"mode": mode, "per_class": per_class, "seed": seed, "accuracy": scored, "seconds": seconds})
    return rows


def accuracy(model: "keras.Model", images: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of images whose most probable class is their label, 0–1.

    Raises:
        ValueError: if the model gives NaN or infinite numbers for an image.
    """
    probabilities = features(model, images)
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=-1)))
        raise ValueError(
            f"accuracy: {model.name} gives {probabilities[row].tolist()} for image {row}, expected finite "
            "numbers; look for NaN in the images and in the model's weights"
        )
    return float(np.mean(probabilities.argmax(-1) == np.asarray(labels)))
