"""Keras models laid open: every layer of nested models too, and a fast way to run them where they don't learn.

Padding, and where no gradient is taken batch normalization, becomes part of the convolution beside it, in each run
anew: whatever the weights are by then, is what counts.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from . import backend, classify

SQUASHING = {
    "softmax": ops.softmax,
    "logsoftmax": ops.log_softmax,
    "sigmoid": ops.sigmoid,
    "logsigmoid": ops.log_sigmoid,
}
RECTIFIERS = {"relu": ops.relu, "relu6": ops.relu6}
ACTIVATIONS = {"linear": lambda x: x} | RECTIFIERS | SQUASHING
GLOBAL_POOLING = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)
IDLE = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise, layers.Identity)  # in a model that doesn't learn
RESHAPING = (layers.Reshape, layers.Flatten)
BETWEEN = (*POOLING, layers.ZeroPadding2D)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
CONVOLVING = (*CONVOLUTIONS, layers.SeparableConv2D, layers.Conv2DTranspose)

_networks = weakref.WeakKeyDictionary()  # a model's structure and what was compiled for it, while the model lives


def laid_open(model: "keras.Model", where: str) -> Any:
    """Give the `Network` of a model, the one known from before where the model is built as it was.

    Args:
        model: a Sequential or functional Keras model, built, with one input and one output.
        where: the name of the caller, for its errors.

    Raises:
        ValueError: for another model.
    """
    known = _networks.get(model) if isinstance(model, keras.Model) else None
    if known is None or not known.is_of(model):
        known = _networks[model] = Network(model, where)
    return known


class _Slot:
    """Stands for a tensor in the arguments of a step, by its number in the network."""

    def __init__(self, number):
        self.number = number


class Step:
    """A layer, or an operation of `keras.ops`, that computes tensors from tensors, all known by number."""

    def __init__(self, layer, name, arguments, parents, outputs, shapes):
        self.layer, self.name, self.arguments, self.parents, self.outputs = layer, name, arguments, parents, outputs
        self.shapes = shapes  # of what it gets, and of what it gives
        self.parts = classify.all_layers(layer) if isinstance(layer, keras.Layer) else []  # the layers within it

    @property
    def weights(self):
        return getattr(self.layer, "weights", [])

    @functools.cached_property
    def activation(self):
        """Its name by what it does, "linear" where there is none; of a function not among ACTIVATIONS its own name.

        Also of layers and operations that are nothing but an activation.
        """
        function = getattr(self.layer, "activation", None)
        if function is None and not self.is_only_an_activation:
            return "linear"
        known = self.effect if function is None else activation_name(function, self.shapes[-1])
        name = getattr(function or type(self.layer), "__name__", repr(function)).lower()
        return known or (f"another {name}" if name in ACTIVATIONS else name)

    @functools.cached_property
    def effect(self):
        """The name of the activation that the whole step is, such as "softmax" of a `Lambda`; None for another step."""
        alike = len(self.parents) == len(self.outputs) == 1 and self.shapes[0] == self.shapes[-1]
        if not alike or self.weights:
            return None
        return activation_name(self.alone, self.shapes[-1])

    def alone(self, x):
        """Compute what the step gives for a tensor."""
        return self({self.parents[0]: x})[0]

    @property
    def is_only_an_activation(self):
        named = type(self.layer).__name__.lower() in ACTIVATIONS and self.effect is not None
        return named or type(self.layer) in (layers.Activation, layers.ReLU, layers.Softmax)

    @functools.cached_property
    def is_convolution(self):
        """Whether it is a convolution, or a block with convolutions inside."""
        if not isinstance(self.layer, keras.Layer):
            return "conv" in type(self.layer).__name__.lower()  # an operation of `keras.ops`
        is_of_keras = type(self.layer).__module__.startswith("keras.")
        has_kernel = any(len(weight.shape) == 4 for weight in self.weights)
        holds_one = any(isinstance(layer, CONVOLVING) for layer in (self.layer, *self.parts))
        return holds_one or (has_kernel and not is_of_keras)

    @property
    def is_weighted(self):
        """Whether it is a plain convolution or dense layer, whose kernel and bias are all there is to it."""
        kind, quantized = type(self.layer), getattr(self.layer, "quantization_mode", None)
        return kind in (*CONVOLUTIONS, layers.Dense) and self.is_channels_last and not quantized

    @property
    def is_valid_convolution(self):
        return self.is_weighted and getattr(self.layer, "padding", None) == "valid"

    @property
    def is_norm(self):
        return type(self.layer) is layers.BatchNormalization and self.layer.axis in (-1, len(self.shapes[0]) - 1)

    @property
    def is_channels_last(self):
        return getattr(self.layer, "data_format", "channels_last") == "channels_last"

    @property
    def is_idle(self):
        """Whether it hands on what it gets, in a model that doesn't learn."""
        return type(self.layer) in IDLE or (self.is_only_an_activation and self.activation == "linear")

    def __call__(self, values):
        """Compute the outputs from a dict of tensors by number."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: values[leaf.number] if isinstance(leaf, _Slot) else leaf, self.arguments
        )
        if "training" in kwargs:
            kwargs["training"] = False
        return keras.tree.flatten(self.layer(*args, **kwargs))


class Network:
    """A model laid open: the layers of nested models too, in the order of computing; the picture is tensor 0."""

    def __init__(self, model, where):
        functional = _functional(model)
        if functional is None:
            raise ValueError(
                f"{where}: model is a {type(model).__name__}, expected a Sequential or functional Keras model, built"
            )
        if len(functional.inputs) != 1 or len(functional.outputs) != 1:
            raise ValueError(
                f"{where}: {model.name} has {len(functional.inputs)} inputs and {len(functional.outputs)} "
                "outputs, expected one of each: pictures and scores"
            )
        self.name, self.functional = model.name, weakref.ref(functional)
        self.steps, self.named, self.plans, self.shapes = [], {}, {}, [tuple(functional.inputs[0].shape)]
        (self.output,) = self._lay_open(functional, [0], "")
        self.producer = {number: step for step in self.steps for number in step.outputs}
        self.last = self._above(
            self.output, lambda s: s.is_idle or isinstance(s.layer, RESHAPING) or s.effect == "linear"
        )
        gives_scores = self.last is not None and len(self.shapes[self.output]) == 2
        self.squash = self._squash() if gives_scores else None
        self.sealed = self._squashed_within() if gives_scores and self.squash is None else None
        self.settings = self._settings()
        self.check_weights(where)  # once: later, NaN shows in what comes out, unless a ReLU makes 0 of all of it

    @property
    def is_two_sided(self):
        """Whether the one score speaks for a class, 0, and against another, 1."""
        return self.shapes[self.output][-1] == 1 and self.squash in (None, "sigmoid", "logsigmoid")

    def _squash(self):
        """Name the softmax or sigmoid at the end that can be left out, as it is the last step or its activation."""
        step, classes = self.last, self.shapes[self.output][-1]
        name = step.activation if step.is_weighted else step.effect
        return name if name in SQUASHING and step.shapes[-1][-1] == classes else None

    def _squashed_within(self):
        """Say whether the scores are "probabilities" or "logarithms" of some, although no softmax or sigmoid was seen.

        A few random tensors, up to large ones, go through the last activation or layer, and through the whole model.
        None for scores that look like neither.
        """
        step, model = self.last, self.functional()
        if step.is_weighted and step.activation in ("linear", *RECTIFIERS):
            return None
        trials = [(lambda x: model(x, training=False), self.shapes[0])]
        if step.is_weighted:
            trials = [(step.layer.activation, step.shapes[-1])]
        elif len(step.parents) == 1:
            trials.insert(0, (step.alone, step.shapes[0]))
        for function, shape in trials:
            given = results(function, random_tensors([side or 64 for side in shape[1:]]))
            if (kind := _kind_of_probabilities(given)) is not None:
                return kind
        return None

    def is_of(self, model):
        """Whether the model is still built as it was."""
        now = self._settings()
        same = len(now) == len(self.settings) and all(one is other for one, other in zip(now, self.settings))
        return same and self.functional() is _functional(model)

    def variables(self):
        """Give all weights, each once."""
        found = (variable for step in self.steps for variable in step.weights)
        return list({id(variable): variable for variable in found}.values())

    def _settings(self):
        """Give what can be exchanged in a layer: variables, activations, and what `Normalization` adapted to."""
        names = ("activation", "mean", "variance")
        inside = [layer for step in self.steps for layer in (step.layer, *step.parts)]
        return self.variables() + [getattr(layer, name, None) for layer in inside for name in names]

    def _lay_open(self, functional, sources, prefix):
        numbers = dict(zip(map(id, functional.inputs), sources))

        def slot(leaf):
            return _Slot(numbers[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf

        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                layer, name = node.operation, prefix + node.operation.name
                parents = [numbers[id(tensor)] for tensor in node.arguments.keras_tensors]
                if (inner := _functional(layer)) is not None:
                    outputs = self._lay_open(inner, parents, f"{name}/")
                else:
                    outputs = [len(self.shapes) + place for place in range(len(node.outputs))]
                    self.shapes += [tuple(tensor.shape) for tensor in node.outputs]
                    arguments = keras.tree.map_structure(slot, (node.arguments.args, node.arguments.kwargs))
                    shapes = [self.shapes[number] for number in (*parents, *outputs)]
                    self.steps.append(Step(layer, name, arguments, parents, outputs, shapes))
                numbers.update(zip(map(id, node.outputs), outputs))
                self.named[name] = outputs[0]
        return [numbers[id(tensor)] for tensor in functional.outputs]

    def _above(self, number, passing):
        """Go up from a tensor, past the steps that `passing` is true of, to the next one; None at the picture."""
        while (step := self.producer.get(number)) and len(step.parents) == 1 and passing(step):
            number = step.parents[0]
        return step

    def find(self, layer, where):
        """Give the number of a layer's output, feature maps (N, h, w, C)."""
        wanted = getattr(layer, "name", layer)
        paths = [wanted] if wanted in self.named else [n for n in self.named if n.rsplit("/", 1)[-1] == wanted]
        if len(paths) > 1:
            raise ValueError(f"{where}: layer {wanted!r} is in the model more than once, as {', '.join(paths)}")
        if not paths:
            names = ", ".join(step.name for step in self.steps if step.is_convolution) or "none"
            raise ValueError(f"{where}: layer {wanted!r} is not in the model; its convolutional layers are {names}")
        number = self.named[paths[0]]
        if len(self.shapes[number]) != 4:
            raise ValueError(
                f"{where}: layer {wanted!r} gives {self.shapes[number]}, expected feature maps (N, h, w, C)"
            )
        return number

    def last_maps(self, where):
        """Give the number of the feature maps that global pooling reads, or else the last before other heads."""
        number, last = self.output, None
        while (step := self.producer.get(number)) and len(step.parents) == 1:
            if isinstance(step.layer, GLOBAL_POOLING):
                last = step.parents[0]
                break
            last = number if last is None and len(self.shapes[number]) == 4 else last
            number = step.parents[0]
        else:
            if last is None:
                maps = [number for number, shape in enumerate(self.shapes) if number and len(shape) == 4]
                last = maps[-1] if maps else 0
            while (step := self.producer.get(last)) and (step.is_idle or isinstance(step.layer, BETWEEN)):
                last = step.parents[0]
            if hidden := next((step for step in self.downstream(last) if step.is_convolution), None):
                raise ValueError(
                    f"{where}: layer {hidden.name!r}, a {type(hidden.layer).__name__}, holds convolutions "
                    "whose feature maps can't be reached from outside; build it as a functional model, or "
                    "name a layer before it (layer=…)"
                )
        if not any(step.is_convolution for step in self.upstream(last)):
            raise ValueError(f"{where}: {self.name} has no convolutional layer before its scores")
        return last

    def upstream(self, number):
        """Give the steps that a tensor depends on, in the order of computing."""
        needed, steps = {number}, []
        for step in reversed(self.steps):
            if needed.intersection(step.outputs):
                needed.update(step.parents)
                steps.append(step)
        return steps[::-1]

    def downstream(self, number):
        """Give the steps that depend on a tensor, in the order of computing."""
        known, steps = {number}, []
        for step in self.steps:
            if known.intersection(step.parents):
                known.update(step.outputs)
                steps.append(step)
        return steps

    def pooled_head(self, where):
        """Give the number of the feature maps that global average pooling reads, and the dense layer behind it."""
        dense = self.last
        if dense is not None and self.squash and not dense.is_weighted:
            dense = self._above(dense.parents[0], lambda s: s.is_idle or s.effect == "linear")
        linear = dense is not None and (dense is self.last or dense.activation == "linear")
        fits = linear and dense.is_weighted and (dense.activation in ("linear", self.squash))
        fits = fits and type(dense.layer) is layers.Dense
        pool = self._above(dense.parents[0], lambda s: s.is_idle or isinstance(s.layer, RESHAPING)) if fits else None
        if (
            pool is None
            or type(pool.layer) is not layers.GlobalAveragePooling2D
            or not pool.is_channels_last
            or (tuple(dense.layer.kernel.shape) != (pool.shapes[0][-1], self.shapes[self.output][-1]))
        ):
            end = [type(step.layer).__name__ for step in self.steps[-4:]]
            raise ValueError(
                f"{where}: {self.name} ends in {', '.join(end)}; CAM needs global average pooling and one "
                "dense layer behind it. grad_cam explains any convolutional classifier"
            )
        self.last_maps(where)  # there is a convolution
        return pool.parents[0], dense

    def checked(self, images, classes, where):
        """Give pictures (N, H, W, C) float32 and classes (N,) int32, −1 for one to be predicted."""
        pictures = np.asarray(images)
        pictures = pictures[None] if pictures.ndim == 3 else pictures
        takes = self.shapes[0]
        if not (
            pictures.dtype.kind in "uif"
            and pictures.ndim == len(takes) == 4
            and len(pictures)
            and all(want in (None, has) for has, want in zip(pictures.shape[1:], takes[1:]))
        ):
            raise ValueError(
                f"{where}: images are {pictures.dtype} of shape {np.shape(images)}; expected numbers, "
                f"(N, H, W, C) or (H, W, C), as {self.name} takes {takes}"
            )
        if pictures.dtype.kind == "f" and not np.isfinite(pictures).all():
            row = int(np.argmin(np.isfinite(pictures).reshape(len(pictures), -1).all(axis=1)))
            raise ValueError(f"{where}: images hold {not_finite(pictures[row])} (image {row}); expected finite numbers")
        count = 2 if self.is_two_sided else self.shapes[self.output][-1]
        chosen = np.asarray(-1 if classes is None else classes)
        if (
            chosen.dtype.kind not in "iu"
            or chosen.shape not in ((), (len(pictures),))
            or (classes is not None and (chosen.min() < 0 or chosen.max() >= count))
        ):
            raise ValueError(
                f"{where}: classes is {classes!r}, expected None, an int or {len(pictures)} ints, from 0 to {count - 1}"
            )
        return pictures.astype(np.float32), np.broadcast_to(chosen, len(pictures)).astype(np.int32)

    def check_weights(self, where):
        """Raise an error that names the first weight that is not finite."""
        for step in self.steps:
            for weight in step.weights:
                array = ops.convert_to_numpy(ops.cast(weight, "float32"))
                if not np.isfinite(array).all():
                    raise ValueError(
                        f"{where}: layer {step.name!r} of {self.name} holds {not_finite(array)} in its "
                        f"weight {weight.name!r}; load or train the weights again"
                    )

    def blame(self, where, what, values):
        """Raise the error that says what is NaN or infinite: a layer's weights, or what the model gave for an image.

        Args:
            what: a name for the values. values: (N, ...), not all finite.
        """
        self.check_weights(where)
        row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        raise ValueError(
            f"{where}: {what} of {self.name} hold {not_finite(values[row])} for image {row}, though "
            "images and weights are finite; look for a division by 0, the root or logarithm of 0, or "
            "numbers too large for the model's precision"
        )

    def plan(self, keep=None, folds=False):
        """Give the plan of a run that computes the tensor `keep` too; see `Plan` for `folds`."""
        if (keep, folds) not in self.plans:
            self.plans[keep, folds] = Plan(self, keep, folds)
        return self.plans[keep, folds]


class Plan:
    """How to compute a network's scores fast: padding becomes part of a convolution, and with `folds` batch
    normalization, too.

    That is done anew in each run, with the weights as they are: it costs next to nothing, and none is out of date.

    `folds` is for runs of which no gradient is taken. Multiplied into a kernel, batch normalization is rounded
    otherwise than by Keras. Scores hardly change by that; but where a ReLU gets a number close to 0, rounding decides
    whether it passes a gradient on, and on one image in three a DenseNet's gradient was up to 0.5 % off.
    """

    def __init__(self, network, keep, folds):
        self.network, self.entries, self.late, self.compiled, readers = network, [], set(), {}, {}
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

    def compile(self, name, function):
        """Compile a function; the first one of that name serves ever after."""
        if name not in self.compiled:
            self.compiled[name] = backend.jit(function, reads=self.network.variables())
        return self.compiled[name]

    def batched(self, name, function, batch_size, *arrays):
        """Run a function of tensors over (N, ...) arrays, compiled, batch by batch."""
        return batched(self.compile(name, function), batch_size, *arrays)

    def run(self, values, part="all"):
        """Compute the tensors of a part, "before" or "after" the one kept, from those there are; give them all."""
        values = dict(values)
        for entry in self.entries:
            if part == "all" or (entry in self.late) == (part == "after"):
                values.update(zip(entry.outputs, entry(values)))
        return values


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


def activation_name(function: Callable, shape: Sequence[int]) -> str | None:
    """Name the one of ACTIVATIONS that a function is, by what it does to random tensors; None for another function.

    Args:
        function: of a tensor, such as a layer's activation. shape: of the tensors, (N, ..., C), N and others unknown.
    """
    for name in ("linear", "relu", "softmax", "sigmoid"):
        if function is getattr(keras.activations, name):
            return name  # spares the trial
    tensors = random_tensors([3] * (len(shape) - 2) + [shape[-1] or 3])
    given = results(function, tensors)
    if given is None or given.shape != tensors.shape:
        return None
    usable = np.isfinite(given)  # exp(x) / sum(exp(x)) has no value for large numbers
    usable[:2] = True
    near = {"rtol": 1e-4, "atol": 1e-6} if given.dtype.itemsize > 2 else {"rtol": 2e-2, "atol": 2e-3}
    given = given.astype(np.float64)
    for name, known in ACTIVATIONS.items():
        if given.shape[-1] == 1 and "softmax" in name:
            continue  # of one number it is 1, whatever the number
        if np.allclose(given[usable], results(known, tensors)[usable], **near):
            return name
    return None


def random_tensors(shape: Sequence[int]) -> np.ndarray:
    """Draw tensors of a shape without N, small and large ones, which half precision holds too → (8, ...) float32."""
    scales = np.reshape([1 / 8, 1, 8, 64] * 2, (8, *[1] * len(shape)))
    return (np.rint(16 * np.random.default_rng(0).normal(size=(8, *shape))) / 16 * scales).astype(np.float32)


def results(function: Callable, tensors: Any) -> Any:
    """Compute a function's values for tensors, (N, ...); None where it takes no such tensors."""
    try:
        return ops.convert_to_numpy(function(ops.convert_to_tensor(tensors)))
    except Exception:  # a reader's function may raise anything
        return None


def _kind_of_probabilities(scores):
    """Say whether (N, ...) numbers look like "probabilities" or their "logarithms"; None for neither."""
    scores = np.empty((0, 1)) if scores is None else scores.astype(np.float64)
    finite = scores[np.isfinite(scores).reshape(len(scores), -1).all(axis=1)]
    if not finite.any():  # zeros: a layer that has learned nothing yet
        return None
    if finite.min() >= -1e-6 and finite.max() <= 1 + 1e-6:
        return "probabilities"
    is_log = finite.max() <= 1e-6 and np.allclose(np.exp(finite).sum(axis=-1), 1, atol=1e-2)
    return "logarithms" if is_log else None


def _functional(model):
    """Give the functional model that a model is, or that a Sequential holds; None for anything else."""
    model = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    own_call = getattr(type(model).call, "__qualname__", "") if isinstance(model, keras.Model) else ""
    return model if own_call == "Functional.call" else None


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


def not_finite(values: Any) -> str:
    """Name what is not finite among numbers: "NaN", "inf" or "NaN and inf"."""
    kinds = [name for name, is_so in (("NaN", np.isnan), ("inf", np.isinf)) if is_so(values).any()]
    return " and ".join(kinds)


def same_padding(size: int, extent: int, stride: int) -> Any:
    """Give how many cells padding "same" puts before and behind an axis."""
    missing = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return missing // 2, missing - missing // 2


def _is_same_padding(frame, layer, shape):
    """Whether a padding layer does for a convolution behind it, on pictures of that shape, what "same" would."""
    return all(
        size is not None and tuple(around) == same_padding(size, (kernel - 1) * dilation + 1, stride)
        for size, around, kernel, dilation, stride in zip(
            shape[1:3], frame.padding, layer.kernel_size, layer.dilation_rate, layer.strides
        )
    )
