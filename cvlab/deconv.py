"""ZFNet's way back from a feature to the pixels, and the images that excite a feature most."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from . import backend
from .engine import networks
from .engine.activations import RECTIFIERS
from .engine.folded import product, same_padding, value
from .engine.opened import CONVOLUTIONS

WINDOWED = (*CONVOLUTIONS, *networks.POOLING)
LINEAR = (
    *CONVOLUTIONS,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Rescaling,
    layers.Normalization,
    layers.ZeroPadding2D,
    layers.Cropping2D,
)


def deconvnet(
    model: "keras.Model",
    images: np.ndarray,
    layer: Any,
    channel: int | None = None,
    switches: bool = True,
    everywhere: bool = False,
) -> np.ndarray:
    """Project a feature back to the pixels, as ZFNet's authors did: unpool, rectify, transposed filters.

    From the strongest activation of a layer down to the image: max pooling puts each value back to where its maximum
    was, the first one where several are equal, and adds where windows overlap; ReLU sets negative values to 0;
    convolutions, and whatever else is linear (batch normalization, rescaling, padding, average pooling), are
    transposed. Response normalization is left out, as in the paper.

    Args:
        model: Keras model in which one layer follows another, from the images to `layer`; nested or not.
        images: (N, H, W, 3) in the model's own range, or one image (H, W, 3).
        layer: name of a layer with feature maps (N, h, w, C), as in `explain.grad_cam`.
        channel: the feature, 0 to C − 1; None for all of them.
        switches: False to put each value to the same cell of its window instead: the middle, or what is left above it.
        everywhere: project all activations of the channel together, not the strongest alone.

    Returns:
        (N, H, W, 3) float32 of either sign, in the units of a gradient with respect to the image; (H, W, 3) for one
        image.

    Raises:
        ValueError: for a layer or channel that isn't there, and for layers on the way that have no way back here.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 2.1.
    """
    network = networks.laid_open(model, "deconvnet", images)
    chain = _chain(network, network.find(layer, "deconvnet"), "deconvnet")
    *inputs, features = _forward(network, chain, network.checked_images(images, "deconvnet"), "deconvnet")
    channels = np.arange(features.shape[-1])
    chosen = np.isin(channels, channels if channel is None else _channel(features, channel, "deconvnet"))
    if not everywhere:
        flat = np.where(chosen, features, -np.inf).reshape(len(features), -1)
        chosen = (np.arange(flat.shape[1]) == flat.argmax(-1)[:, None]).reshape(features.shape)
    reconstruction = np.where(chosen, features, 0)
    for step, x in zip(reversed(chain), reversed(inputs)):
        reconstruction = _backward(step, x, reconstruction, switches)
    return reconstruction[0] if np.ndim(images) == 3 else reconstruction


def strongest(
    model: "keras.Model", images: np.ndarray, layer: Any, channel: int, count: int = 9, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the images that excite a feature most, and the part of each that the strongest activation depends on.

    Args:
        model, layer: as in `deconvnet`.
        images: (N, H, W, 3) in the model's own range.
        channel: the feature, 0 to C − 1.
        count: how many images, each with its strongest activation.
        batch_size: images at a time.

    Returns:
        rows: (count,) int, which images, the most excited first; fewer where there are fewer images.
        windows: (count, 4) float32, xyxy in pixels: the receptive field of the activation, cut at the image's border.
        values: (count,) float32, the activations.

    Raises:
        ValueError: as `deconvnet`.
    """
    network = networks.laid_open(model, "strongest", images)
    target = network.find(layer, "strongest")
    chain = _chain(network, target, "strongest")
    plan, batch = network.plan(target, folds=True), network.checked_images(images, "strongest")
    *inputs, features = _forward(network, chain, batch[:1], "strongest")
    channels = np.full(len(batch), _channel(features, channel, "strongest"), np.int32)

    def feature_map(x, channels):
        features, _ = plan.split(x)
        return ops.take(ops.cast(features, "float32"), channels[0], axis=-1)

    maps = plan.batched("strongest", feature_map, batch_size, batch, channels)
    if not np.isfinite(maps).all():
        network.blame("strongest", f"activations of {layer!r}", maps)
    flat = maps.reshape(len(maps), -1)
    rows = np.argsort(-flat.max(-1), kind="stable")[:count]
    y, x = np.unravel_index(flat[rows].argmax(-1), maps.shape[1:])
    spans = [[_receptive_field(chain, inputs, cell, axis) for cell in cells] for axis, cells in ((1, x), (0, y))]
    windows = np.concatenate([np.reshape(spans, (2, -1, 2))[..., end].T for end in (0, 1)], axis=1)
    return rows, windows.astype(np.float32), flat[rows].max(-1)


def _channel(features, channel, caller):
    if int(channel) != channel or not 0 <= channel < features.shape[-1]:
        raise ValueError(f"{caller}: channel={channel!r}, expected an int from 0 to {features.shape[-1] - 1}")
    return int(channel)


def _chain(network, number, caller):
    """Give the steps from the image to a tensor, where one follows another."""
    steps = network.upstream(number)
    for step in steps:
        if len(step.parents) != 1 or len(step.outputs) != 1:
            raise ValueError(f"{caller}: layer {step.name!r} joins several paths, expected one layer after another")
        if not step.is_idle and not _has_way_back(step):
            kinds = ", ".join(kind.__name__ for kind in (layers.ReLU, layers.MaxPooling2D, *LINEAR))
            raise ValueError(
                f"{caller}: layer {step.name!r}, a {type(step.layer).__name__} with {step.activation} "
                f"activation, has no way back; {kinds} have one. Name a layer before it, or build a block "
                "of several layers as a functional model"
            )
    return [step for step in steps if not step.is_idle]


def _has_way_back(step):
    layer = step.layer
    if step.is_only_an_activation:
        return step.activation in RECTIFIERS
    if _is_response_normalization(layer) or type(layer) is layers.MaxPooling2D:
        return step.is_channels_last
    plain = step.activation == "linear" or (step.is_weighted and step.activation in RECTIFIERS)
    return type(layer) in LINEAR and plain and step.is_channels_last  # a class derived from one may do anything


def _is_response_normalization(layer):
    return "responsenormalization" in type(layer).__name__.lower()


def _forward(network, chain, batch, caller):
    """Compute the input of each step, and what the last one gives, as float32 arrays."""
    network.check_weights(caller)
    values = [batch]
    for step in chain:
        output = step.alone(ops.convert_to_tensor(values[-1]))
        values.append(ops.convert_to_numpy(ops.cast(output, "float32")))
        if not np.isfinite(values[-1]).all():
            network.blame(caller, f"activations of {step.name!r}", values[-1])
    return values


def _backward(step, x, reconstruction, switches):
    """Take what was reconstructed of a step's output on to its input x."""
    layer = step.layer
    if step.activation in RECTIFIERS:
        reconstruction = np.maximum(reconstruction, 0)
    if step.is_only_an_activation or _is_response_normalization(layer):
        return reconstruction
    if isinstance(layer, layers.MaxPooling2D):
        return _unpool(layer, x, reconstruction, switches)

    def linear(x):  # its gradient is the reconstruction times the transposed filters
        if step.is_weighted:
            y = product(layer, x, layer.padding, ops.cast(value(layer.kernel), "float32"))
        else:
            y = step.alone(x)
        return ops.sum(ops.multiply(ops.cast(y, "float32"), reconstruction))

    return ops.convert_to_numpy(backend.value_and_grad(linear)(x)[1])


def _unpool(layer, x, reconstruction, switches):
    """Put each value back to where its window's maximum was, or to the window's middle."""
    (height, width), (down, across) = layer.pool_size, layer.strides
    top, left = (_padding(layer, axis, x.shape[1 + axis])[0] for axis in (0, 1))
    rows, columns = reconstruction.shape[1:3]
    bottom = max(0, (rows - 1) * down + height - top - x.shape[1])
    right = max(0, (columns - 1) * across + width - left - x.shape[2])
    padded = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], constant_values=-np.inf)
    cells = [  # of all windows at once: their upper left cells, then the next ones
        (slice(None), slice(i, i + (rows - 1) * down + 1, down), slice(j, j + (columns - 1) * across + 1, across))
        for i in range(height)
        for j in range(width)
    ]
    if switches:
        switch = np.stack([padded[cell] for cell in cells]).argmax(0)
    else:
        switch = np.full(reconstruction.shape, (height - 1) // 2 * width + (width - 1) // 2)
    unpooled = np.zeros(padded.shape, np.float32)
    for number, cell in enumerate(cells):
        unpooled[cell] += np.where(switch == number, reconstruction, 0)
    return unpooled[:, top : top + x.shape[1], left : left + x.shape[2]]


def _padding(layer, axis, size):
    """Give (cells before the first, kernel's extent, stride) of a windowed layer along an axis of the given size."""
    kernel_size = getattr(layer, "kernel_size", None) or layer.pool_size
    stride, dilation = layer.strides[axis], getattr(layer, "dilation_rate", (1, 1))[axis]
    extent = (kernel_size[axis] - 1) * dilation + 1
    before = same_padding(size, extent, stride)[0] if layer.padding == "same" else 0
    return before, extent, stride


def _receptive_field(chain, inputs, cell, axis):
    """Give the pixels, from … to (exclusive), that a cell of the last step depends on, along an axis."""
    low = high = cell
    for step, x in zip(reversed(chain), reversed(inputs)):
        size = x.shape[1 + axis]
        if isinstance(step.layer, WINDOWED):
            before, extent, stride = _padding(step.layer, axis, size)
            low, high = low * stride - before, high * stride - before + extent - 1
        elif isinstance(step.layer, layers.ZeroPadding2D):
            low, high = low - step.layer.padding[axis][0], high - step.layer.padding[axis][0]
        elif isinstance(step.layer, layers.Cropping2D):
            low, high = low + step.layer.cropping[axis][0], high + step.layer.cropping[axis][0]
        low, high = max(low, 0), min(high, size - 1)
    return low, high + 1
