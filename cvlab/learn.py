"""Learning: the training loop that all lessons share, cached features, random views of images, and common losses.

A lesson's `train` checks its arguments, says how a batch is drawn, and calls `optimize`.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cvlab import data
from cvlab.engine import backend, memory, resume


def optimize(
    model: "keras.Model",
    loss: Any,
    draw: Callable,
    count: int,
    steps: int,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
    devices: int | None = None,
) -> list[float]:
    """Train a model with Adam and a learning rate that falls to zero along a cosine.

    Where CVLAB_RESUME names a folder, a long training that was cut off goes on where it was (see `engine.resume`).

    Args:
        model: keras.Model. If it is compiled with the same loss, its compiled graph is reused and only the optimizer's
            state starts afresh.
        loss: a Keras loss, or a dict (or list) of losses by output.
        draw: function of (rows, numpy.random.Generator) that returns the inputs and targets of a batch; `rows` are the
            indices of its examples.
        count: number of examples. They come in a new random order each time all have been used.
        steps: number of batches.
        learning_rate: of the first step.
        batch_size: examples per batch, at most `count`.
        seed: of the order, and of the generator that `draw` gets.
        progress: show a progress bar.
        devices: GPUs that share each batch, of which they must divide the size; None for what the environment variable
            CVLAB_DEVICES says, by default one. See `backend.train_on_batch` for what is the same on any number.

    Returns:
        list of float, the loss of each step.
    """
    devices = int(os.environ.get("CVLAB_DEVICES", 1)) if devices is None else devices
    with backend.on_devices(model, devices) as trained:
        return _optimize(
            trained, loss, draw, count, steps, learning_rate, min(batch_size, count), seed, progress, devices
        )


def _optimize(model, loss, draw, count, steps, learning_rate, batch_size, seed, progress, devices):
    """Train a model that is on its devices already."""
    if model.compiled and model.loss == loss and isinstance(model.optimizer, keras.optimizers.Adam):
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
    else:
        model.compile(keras.optimizers.Adam(), loss)
        model.optimizer.build(model.trainable_variables)  # else TensorFlow traces the first step twice
    generator = np.random.default_rng(seed)
    training = resume.Training(model, generator, [steps, count, learning_rate, batch_size, seed])
    first, order, losses = training.restore()
    for step in _bar(range(first, steps), progress, f"training {model.name}"):
        model.optimizer.learning_rate = learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        if len(order) < batch_size:  # what is left of the last order comes first in the next
            order = np.concatenate([order, generator.permutation(count)])
        rows, order = order[:batch_size], order[batch_size:]
        model.reset_metrics()  # else Keras before 3.14 returns the mean of all losses so far
        backend.clear_gradients(model.trainable_variables)
        losses.append(backend.train_on_batch(model, *draw(rows, generator), devices))
        training.save(step + 1, order, losses)
    return [float(loss) for loss in losses]


def batches(inputs: Any, targets: Any) -> Callable:
    """Make the `draw` of `optimize` for arrays: both are arrays, or lists or dicts of arrays, of equal length."""

    def draw(rows, generator):
        return keras.tree.map_structure(lambda array: array[rows], (inputs, targets))

    return draw


def features(model: "keras.Model", images: np.ndarray, batch_size: int = 64, progress: bool = False) -> Any:
    """Run images through a model, batch by batch. Images that the model has seen before are not computed again.

    Args:
        model: keras.Model from images to a tensor or a list of tensors.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        batch_size: images per batch.
        progress: show a progress bar.

    Returns:
        (N, ...) float32, or a list of such arrays.

    Raises:
        ValueError: for images of another shape or dtype.
    """
    images = data.as_images(images, "features")
    key = memory.model_key(model)
    keys = [(key, image) for image in memory.image_keys(images)] if key else []
    outputs = [memory.memory.get(key) for key in keys] or [None] * len(images)
    missing = [i for i, output in enumerate(outputs) if output is None]
    for start in _bar(range(0, len(missing), batch_size), progress, f"features of {model.name}"):
        rows = missing[start : start + batch_size]
        padding = batch_size - len(rows) if start else 0  # the last batch is filled up, so that one graph serves all
        batch = model.predict_on_batch(np.pad(images[rows], [(0, padding)] + [(0, 0)] * 3))
        for i, *arrays in zip(rows, *keras.tree.flatten(batch)):
            outputs[i] = arrays
            if keys:
                memory.memory.put(keys[i], arrays)
    joined = [np.stack(arrays) for arrays in zip(*outputs, strict=True)]
    return joined if isinstance(model.output, (list, tuple)) else joined[0]


def _bar(steps, progress, description):
    if not progress:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc=description, leave=False)


# Random views of an image: one affine map, which boxes and masks follow


def random_view(shape: Sequence[int], generator: np.random.Generator, zoom: tuple[float, float], shift: float) -> tuple:
    """Draw a random view of an image: whether it is flipped, how far it is zoomed, and where its corner comes to lie.

    Args:
        shape: (H, W, ...) of the image.
        zoom: smallest and largest factor. shift: largest shift, as a fraction of the sides.

    Returns:
        flipped (bool), scale (float) and corner (2,), (x, y) in pixels. Without a shift, the image's centre stays where
        it is.
    """
    flipped, scale = generator.random() < 0.5, np.exp(generator.uniform(*np.log(zoom)))
    return flipped, scale, np.float32(shape[1::-1]) * ((1 - scale) / 2 + generator.uniform(-shift, shift, 2))


def warped(
    image: np.ndarray, flipped: bool, scale: float, corner: np.ndarray, outside: Any = None, **options: Any
) -> np.ndarray:
    """Draw an image (or a mask) as a view from `random_view` shows it, at the same size.

    Args:
        image: (H, W, ...). flipped, scale, corner: from `random_view`.
        outside: colour of what comes into view from outside the image; None mirrors the image at its edges.
        options: of `cv2.warpAffine`.
    """
    import cv2

    x, y = corner + (scale - 1) / 2  # OpenCV counts from the centre of the first pixel
    edge = {"borderMode": cv2.BORDER_REFLECT} if outside is None else {"borderValue": outside}
    image = np.ascontiguousarray(image[:, ::-1] if flipped else image)
    return cv2.warpAffine(image, np.float32([[scale, 0, x], [0, scale, y]]), image.shape[1::-1], **edge, **options)


def warped_boxes(boxes: np.ndarray, size: Sequence[int], flipped: bool, scale: float, corner: np.ndarray) -> tuple:
    """Let boxes follow a view from `random_view`.

    Args:
        boxes: (T, 4) float32 xyxy in pixels. size: (width, height) of their image. flipped, scale, corner: of the view.

    Returns:
        The moved boxes (T, 4), which may reach beyond the image, and the parts of them within it, (T, 4) float32.
    """
    width, height = size
    if flipped:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    moved = boxes * scale + np.tile(corner, 2)
    visible = np.clip(moved, 0, [width, height, width, height]).astype(np.float32)
    return moved, visible


def tinted(image: np.ndarray, generator: np.random.Generator, colour: float) -> np.ndarray:
    """Change an image's brightness by a random share of at most `colour`, and each channel by at most half of it.

    Returns: uint8, of the image's shape.
    """
    gain = (1 + generator.uniform(-colour, colour)) * (1 + generator.uniform(-colour, colour, 3) / 2)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


# Losses of box heads, in several detectors


def smooth_l1(targets: Any, offsets: Any, beta: float = 1.0) -> Any:
    """Sum the smooth L1 loss over the four offsets of each box, for those boxes that count.

    With the absolute difference d of an offset, it is 0.5 d² / beta up to d = beta, and d − 0.5 beta beyond.

    Args:
        targets: (..., 5), four offsets, then 1 if the box counts, else 0.
        offsets: (..., 4), predicted.
        beta: where the quadratic part ends.

    Returns:
        (...) tensor.

    Source: Girshick, Fast R-CNN, ICCV 2015, equation 3.
    """
    targets, offsets = ops.convert_to_tensor(targets), ops.convert_to_tensor(offsets)
    difference = ops.abs(targets[..., :4] - offsets)
    loss = ops.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)
    return ops.sum(loss, axis=-1) * targets[..., 4]


def per_positive(loss: Any, positive: Any) -> Any:
    """Scale a batch's losses so that Keras' mean over them is their sum divided by the number of positive examples.

    Args:
        loss: (N,), the loss of each image or box.
        positive: of any shape, 1 for each positive example in the batch, else 0.
    """
    return loss * ops.cast(ops.shape(loss)[0], "float32") / ops.maximum(ops.sum(positive), 1.0)
