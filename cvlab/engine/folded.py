"""Opened models run fast where they don't learn: padding and batch normalization become part of the convolutions.

This is done anew in each run, with the weights as they are by then. Every value equals that of the model's own layers
up to rounding (tests/test_networks.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from .. import backend


class Plan:
    """How to compute a network's logits fast: padding becomes part of a convolution, and with `folds` batch
    normalization, too.

    `folds` is for runs of which no gradient is taken. Multiplied into a kernel, batch normalization is rounded
    otherwise than by Keras. Scores hardly change by that; but where a ReLU gets a number close to 0, rounding decides
    whether it passes a gradient on, and on one image in three a DenseNet's gradient was up to 0.5 % off.

    Args:
        network: a `networks.Network`.
        keep: the number of a tensor that is wanted, too, and that nothing may be folded across; or None.
        folds: whether batch normalization becomes part of the convolutions.
    """

    def __init__(self, network, keep=None, folds=False):
        self.network, self.keep, self.entries, self.late, self.compiled, readers = network, keep, [], set(), {}, {}
        for step in network.steps:
            for parent in step.parents:
                readers.setdefault(parent, []).append(step)

        def only_reader(step):
            following = readers.get(step.outputs[0], ())
            return following[0] if len(following) == 1 and keep not in step.outputs else None

        frames, folded, after = {}, {}, {keep}
        for step in network.steps:
            reader = only_reader(step)
            if reader and type(step.layer) is layers.ZeroPadding2D and reader.is_valid_convolution:
                frames[reader] = step
            elif folds and reader and step.is_weighted and step.activation == "linear" and reader.is_norm:
                folded[reader] = step
            else:
                entry = self._entry(network, step, folded, frames)
                self.entries.append(entry)
                if after & set(entry.parents):
                    self.late.add(entry)
                    after.update(entry.outputs)

    @staticmethod
    def _entry(network, step, folded, frames):
        if step in folded:
            return _Weighted(folded[step], step, frames.get(folded[step]))
        bare = step is network.last and network.squash is not None
        if bare and not step.is_weighted:
            return _Nothing(step)
        if step.is_weighted:
            return _Weighted(step, None, frames.get(step), bare)
        return _Norm(step) if step.is_norm else _Layer(step)

    def run(self, values, part="all"):
        """Compute the tensors of a part, "before" or "after" the one kept, from a dict of some; give them all."""
        values = dict(values)
        for entry in self.entries:
            if part == "all" or (entry in self.late) == (part == "after"):
                values.update(zip(entry.outputs, entry(values)))
        return values

    def scores(self, x):
        """Compute the scores, (N, outputs) float32, without the softmax or sigmoid at the end, of images."""
        return ops.cast(self.run({0: x})[self.network.output], "float32")

    def split(self, x):
        """Compute the tensor that is kept, and give it with the function that takes it on to the scores.

        That function computes what depends on the kept tensor; what bypasses it stays as it is for these images.
        """
        values = self.run({0: x}, "before")

        def head(kept):
            return ops.cast(self.run(values | {self.keep: kept}, "after")[self.network.output], "float32")

        return values[self.keep], head

    def compile(self, name, function):
        """Compile a function; the first one of that name serves ever after."""
        if name not in self.compiled:
            self.compiled[name] = backend.jit(function, reads=self.network.variables())
        return self.compiled[name]

    def batched(self, name, function, batch_size, *arrays):
        """Run a function of tensors over (N, ...) arrays, compiled under a name, batch by batch."""
        return batched(self.compile(name, function), batch_size, *arrays)


class _Layer:
    """Compute a step as it is."""

    def __init__(self, step):
        self.step, self.parents, self.outputs = step, step.parents, step.outputs

    def __call__(self, values):
        return self.step(values)


class _Nothing(_Layer):
    """Hand on what the softmax or sigmoid would get: the logits."""

    def __call__(self, values):
        return [values[self.parents[0]]]


class _Weighted(_Layer):
    """Compute a convolution or dense layer, with what is folded into it, or with its activation left out."""

    def __init__(self, step, norm=None, frame=None, bare=False):
        super().__init__(step)
        self.norm, self.frame = norm, frame
        self.parents, self.outputs = (frame or step).parents, (norm or step).outputs
        self.activation = None if bare or norm else step.layer.activation

    def __call__(self, values):
        layer, x = self.step.layer, values[self.parents[0]]
        padding = getattr(layer, "padding", None)
        if self.frame and _is_same_padding(self.frame.layer, layer, x.shape):
            padding = "same"  # spares a copy of x, and of its gradient
        elif self.frame:
            (x,) = self.frame(values)
        x, *weights = (ops.cast(tensor, layer.compute_dtype) for tensor in (x, *self.kernel_and_bias()))
        y = product(layer, x, padding, *weights)
        return [y if self.activation is None else self.activation(y)]

    def kernel_and_bias(self):
        layer = self.step.layer
        kernel, bias = value(layer.kernel), value(layer.bias) if layer.use_bias else None
        if self.norm:
            scale, shift = _scale_and_shift(self.norm.layer)
            bias = shift if bias is None else shift + scale * bias
            depthwise = isinstance(layer, layers.DepthwiseConv2D)  # kernel (h, w, in, multiplier), or (…, in, out)
            kernel = kernel * (ops.reshape(scale, kernel.shape[2:]) if depthwise else scale)
        return [kernel] if bias is None else [kernel, bias]


class _Norm(_Layer):
    """Compute a batch normalization that nothing could be folded into, as a scale and a shift."""

    def __call__(self, values):
        x, scale, shift = (
            ops.cast(tensor, self.step.layer.compute_dtype)
            for tensor in (values[self.parents[0]], *_scale_and_shift(self.step.layer))
        )
        return [ops.add(x * scale, shift)]


def value(variable: Any) -> Any:
    """Give a variable's value as a tensor that no gradient goes through."""
    return ops.stop_gradient(ops.convert_to_tensor(variable))


def _scale_and_shift(norm):
    scale = ops.rsqrt(value(norm.moving_variance) + norm.epsilon)
    scale = scale * value(norm.gamma) if norm.scale else scale
    shift = -scale * value(norm.moving_mean)
    return scale, shift + value(norm.beta) if norm.center else shift


def product(layer: Any, x: Any, padding: str, kernel: Any, bias: Any = None) -> Any:
    """Compute a convolution or dense layer without its activation."""
    if isinstance(layer, layers.Dense):
        y = ops.matmul(x, kernel)
        return y if bias is None else ops.add(y, bias)
    depthwise, size, strides = isinstance(layer, layers.DepthwiseConv2D), tuple(kernel.shape[:2]), tuple(layer.strides)
    if size == (1, 1) and strides != (1, 1) and not depthwise:
        x, strides = x[:, :: strides[0], :: strides[1]], (1, 1)  # the rest of x plays no part

    def convolve(x):
        how = ops.depthwise_conv if depthwise else ops.conv
        y = how(x, kernel, strides, padding, "channels_last", layer.dilation_rate)
        return y if bias is None else ops.add(y, bias)

    grouped, dilated = kernel.shape[2] != x.shape[-1], tuple(layer.dilation_rate) != (1, 1)
    centred = size == (1, 1) or (padding == "same" and size[0] % 2 == size[1] % 2 == 1)
    if depthwise or grouped or dilated or not centred or strides != (1, 1):
        return convolve(x)

    def gradient(slope):
        if size == (1, 1):
            flat = ops.matmul(ops.reshape(slope, (-1, kernel.shape[3])), ops.transpose(kernel[0, 0]))
            return ops.reshape(flat, (*ops.shape(slope)[:3], kernel.shape[2]))
        turned = ops.transpose(ops.flip(ops.flip(kernel, 0), 1), (0, 1, 3, 2))  # older Keras flips one axis only
        return ops.conv(slope, turned, 1, "same", "channels_last")

    # A convolution by the kernel turned round, as the gradient is, takes a CPU less than TensorFlow's own operation.
    return backend.with_gradient(convolve, gradient)(x)


def batched(function: Callable, batch_size: int, *arrays: Any) -> Any:
    """Run a function of tensors over (N, ...) arrays, batch by batch; the last batch is filled up, to compile once.

    Returns:
        (N, ...) array, or a list of arrays where the function gives several tensors.
    """
    parts, count = [], len(arrays[0])
    for start in range(0, count, batch_size):
        batch = [array[start : start + batch_size] for array in arrays]
        size = len(batch[0])
        missing = batch_size - size if start else 0
        if missing:
            batch = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in batch]
        outputs = function(*map(ops.convert_to_tensor, batch))
        single = not isinstance(outputs, (list, tuple))
        parts.append([ops.convert_to_numpy(output)[:size] for output in ([outputs] if single else outputs)])
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return joined[0] if single else joined


def same_padding(size: int, extent: int, stride: int) -> tuple[int, int]:
    """Give how many cells padding "same" puts before and behind an axis."""
    missing = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return missing // 2, missing - missing // 2


def _is_same_padding(frame, layer, shape):
    """Whether a padding layer does for a convolution behind it, on images of that shape, what "same" would."""
    return all(
        size is not None and tuple(around) == same_padding(size, (kernel - 1) * dilation + 1, stride)
        for size, around, kernel, dilation, stride in zip(
            shape[1:3], frame.padding, layer.kernel_size, layer.dilation_rate, layer.strides
        )
    )
