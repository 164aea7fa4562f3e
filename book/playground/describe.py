"""Keras models as lists of layers, which `network.js` runs and differentiates in the browser.

A layer is a dict: "op", "from" (the numbers of its inputs; 0 is the image, 1 the output of the first layer, …), and
what the operation needs. Weights lie beside the list, in arrays of float32 that are stored as float16 where that loses
nothing (`Weights`); a layer refers to them by [number of the array, place, shape]. Those of a part that several models
have in common can lie in an array of their own.
"""

import keras
import numpy as np
from keras import layers

from cvlab import segment
from cvlab.engine import opened
from cvlab.engine.convolution import Conv3x3


class Weights:
    """Weights of a model: one array of float32, of which those that float16 can hold come first.

    Attributes:
        name: of the part of the model that they belong to; "" for what is in no common part.
        half, single: lists of arrays, float16 and float32.
    """

    def __init__(self, name=""):
        self.name, self.half, self.single, self.places = name, [], [], {}

    def add(self, name, values):
        """Take an array under a name, once; without loss as float16 where that holds it, else as float32."""
        if name in self.places:
            return
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"weights {name!r} hold NaN or infinite numbers")
        group = self.half if (values.astype(np.float16) == values).all() else self.single
        self.places[name] = (group, sum(map(np.size, group)), values.shape)
        group.append(values.astype(np.float16 if group is self.half else np.float32))

    def offset(self, name):
        """Give the place of an array's first number in the array of all, in numbers."""
        group, place, _ = self.places[name]
        return place + (self.count("half") if group is self.single else 0)

    def count(self, kind):
        return sum(map(np.size, getattr(self, kind)))

    def array(self):
        """Give all weights in one array, (n,) float32."""
        return np.concatenate([values.ravel().astype(np.float32) for values in (*self.half, *self.single)])

    def packed(self):
        """Give the bytes of the file: all first bytes together, then all second ones, …, which compresses better."""
        planes = [
            np.concatenate([values.ravel() for values in group] or [np.empty(0, dtype)]).astype(dtype).view(np.uint8)
            for group, dtype in ((self.half, "<f2"), (self.single, "<f4"))
        ]
        return b"".join(plane.reshape(-1, width).T.tobytes() for plane, width in zip(planes, (2, 4)))


class Description:
    """A Keras model from images (N, H, W, 3), 0–255, of one size, as a list of layers.

    Args:
        model: functional, with one output.
        size: (H, W).
        common: name of the nested model, if any, whose weights lie in an array of their own.

    Attributes:
        layers: list of dicts.
        weights: list of `Weights`, those of the common part last.
        numbers: of the layers' outputs, by the tensors of `graph`.
        graph: `opened.Graph` of the model.

    Raises:
        ValueError: for a layer that `network.js` has no operation for.
    """

    def __init__(self, model, size, common=None):
        pixels = keras.Input((*size, 3), name="pixels")
        self.name, self.common = model.name, common
        self.weights = [Weights()] if common is None else [Weights(), Weights(common)]
        self.graph = opened.Graph(keras.Model(pixels, model(pixels)))
        self.layers, self.numbers, self._waiting = [], {0: 0}, []
        for step in self.graph.steps:
            describe = next((function for kind, function in KINDS if isinstance(step.layer, kind)), None)
            if describe is None:
                raise ValueError(
                    f"{model.name}: layer {step.name!r} is a {type(step.layer).__name__}, for which there is no "
                    "operation yet; book/playground/describe.py lists those that there are"
                )
            described = describe(self, step)
            if isinstance(described, int):  # what the layer before gives
                self.numbers[step.outputs[0]] = described
            else:
                self.append(described, step)
        for weights, name, reference in self._waiting:  # only now is it known how many float16 come before
            reference[1] = weights.offset(name)

    def append(self, layer, step):
        layer["from"] = [self.numbers[number] for number in step.parents]
        self.layers.append(layer)
        self.numbers[step.outputs[0]] = len(self.layers)

    def weight(self, name, values):
        """Take weights, and give what a layer says of them."""
        is_common = self.common is not None and f"/{self.common}/" in f"/{name}"
        weights = self.weights[-1 if is_common else 0]
        weights.add(name, values)
        reference = [self.weights.index(weights), None, list(np.shape(values))]
        self._waiting.append((weights, name, reference))
        return reference

    def convolution_before(self, step):
        """Give the convolution without activation whose output this step reads, if no other one does; else None."""
        (number,) = step.parents
        readers = sum(each.parents.count(number) for each in self.graph.steps)
        before = self.layers[self.numbers[number] - 1] if self.numbers[number] else {"op": "image"}
        return before if readers == 1 and before["op"] == "conv" and before["top"] == 0 else None


def classifier(model, size):
    """Describe a classifier that ends in global average pooling and a dense layer, with or without softmax behind it.

    Returns:
        The `Description`; and {"logits": …, "features": …, "kernel": …}: the numbers of the logits (N, K) and of the
        last feature maps (N, h, w, C), and the dense layer's kernel (C, K), as layers refer to weights.
    """
    described = Description(model, size)
    (pool,) = [layer for layer in described.layers if layer["op"] == "pool"]
    (dense,) = [layer for layer in described.layers if layer["op"] == "dense"]
    number = described.layers.index(dense) + 1
    return described, {"logits": number, "features": pool["from"][0], "kernel": dense["kernel"]}


# How each kind of layer is described: function of (Description, step) that gives the layer, or the number of an output
# that is the same.


def convolution(described, step):
    layer = step.layer
    if layer.padding not in ("same", "valid") or any(rate != 1 for rate in layer.dilation_rate):
        raise ValueError(f"layer {step.name!r} has padding={layer.padding!r}, expected 'same' or 'valid', no dilation")
    name = f"{step.name}/kernel"
    row = {"op": "conv", "depthwise": isinstance(layer, layers.DepthwiseConv2D), "stride": layer.strides[0]}
    row |= {"kernel": described.weight(name, np.asarray(layer.kernel)), "padding": layer.padding}
    if layer.use_bias:
        row["bias"] = described.weight(f"{step.name}/bias", np.asarray(layer.bias))
    return row | {"top": top_of(getattr(layer, "activation", None), step)}


def top_of(activation, step):
    """Give the top of a layer's ReLU, 0 for none at all; "inf" for one without a top."""
    if activation is None or activation is keras.activations.linear:
        return 0
    if activation is keras.activations.relu:
        return "inf"
    raise ValueError(f"layer {step.name!r} has the activation {activation!r}, expected ReLU or none")


def relu(described, step):
    layer = step.layer
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6.0):
        raise ValueError(f"layer {step.name!r} is not a plain ReLU or ReLU6")
    top = "inf" if layer.max_value is None else layer.max_value
    if (before := described.convolution_before(step)) is not None:
        before["top"] = top
        return described.numbers[step.parents[0]]
    return {"op": "relu", "top": top}


def batch_normalization(described, step):
    """Describe batch normalization, which goes into the convolution before it where that is possible.

    The browser multiplies kernel and scale, once; so the kernel in the file stays the one of the book's weights, which
    float16 holds without loss.
    """
    scale, shift = scale_and_shift(step.layer)
    before = described.convolution_before(step)
    scale, shift = (described.weight(f"{step.name}/{k}", v) for k, v in (("scale", scale), ("shift", shift)))
    if before is not None and "bias" not in before and "scale" not in before:
        before |= {"scale": scale, "bias": shift}
        return described.numbers[step.parents[0]]
    return {"op": "affine", "scale": scale, "bias": shift}


def scale_and_shift(norm):
    """Give what batch normalization, which doesn't learn, multiplies by and adds: (C,) float32 each."""
    mean, variance = (np.asarray(values, np.float64) for values in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    beta = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def rescaling(described, step):
    return affine(described, step, np.full(3, step.layer.scale), np.full(3, step.layer.offset))


def normalization(described, step):
    mean, variance = (np.asarray(values, np.float64).ravel() for values in (step.layer.mean, step.layer.variance))
    return affine(described, step, 1 / np.sqrt(variance), -mean / np.sqrt(variance))


def affine(described, step, scale, shift):
    scale, shift = (described.weight(f"{step.name}/{k}", v) for k, v in (("scale", scale), ("shift", shift)))
    return {"op": "affine", "scale": scale, "bias": shift}


def addition(described, step):
    return {"op": "add"}


def average_pooling(described, step):
    return {"op": "pool"}


def dense(described, step):
    if step.activation not in ("linear", "softmax"):
        raise ValueError(f"layer {step.name!r} has the activation {step.activation!r}, expected softmax or none")
    kernel = described.weight(f"{step.name}/kernel", np.asarray(step.layer.kernel))
    return {"op": "dense", "kernel": kernel, "bias": described.weight(f"{step.name}/bias", np.asarray(step.layer.bias))}


def handed_on(described, step):
    """Describe what hands on what it gets, or the softmax behind the logits."""
    if not step.is_idle and step.activation != "softmax":
        raise ValueError(f"layer {step.name!r} has the activation {step.activation!r}, expected softmax or none")
    return described.numbers[step.parents[0]]


def same_size(described, step):
    """Describe what pads, crops or resizes to a size which its input already has."""
    if step.shapes[0] != step.shapes[-1]:
        raise ValueError(f"layer {step.name!r} turns {step.shapes[0]} into {step.shapes[-1]}, expected the same size")
    return described.numbers[step.parents[0]]


def upsampling(described, step):
    if step.layer.interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            f"layer {step.name!r} has interpolation={step.layer.interpolation!r}, expected 'nearest' or 'bilinear'"
        )
    return {"op": step.layer.interpolation, "size": list(step.shapes[-1][1:3])}


def enlarged(described, step):
    """Describe the bilinear upsampling of `segment.Enlarge`, which needs no cropping at the sizes that are exported."""
    size, factor = list(step.shapes[-1][1:3]), step.layer.factor
    if [side * factor for side in step.shapes[0][1:3]] != size or step.layer.classes:
        raise ValueError(f"layer {step.name!r} crops, expected a size that is a multiple of {factor}, and logits")
    return {"op": "bilinear", "size": size}


def reshape(described, step):
    return {"op": "reshape", "shape": [-1 if side is None else side for side in step.shapes[-1][1:]]}


def concatenation(described, step):
    return {"op": "concat", "axis": step.layer.axis % len(step.shapes[-1])}


def transposed_convolution(described, step):
    layer = step.layer
    if layer.padding != "same":
        raise ValueError(f"layer {step.name!r} has padding={layer.padding!r}, expected 'same'")
    row = {"op": "transposed", "kernel": described.weight(f"{step.name}/kernel", np.asarray(layer.kernel))}
    if layer.use_bias:
        row["bias"] = described.weight(f"{step.name}/bias", np.asarray(layer.bias))
    return row | {"stride": layer.strides[0], "top": top_of(layer.activation, step)}


KINDS = (
    ((layers.Conv2D, layers.DepthwiseConv2D, Conv3x3), convolution),
    (layers.ReLU, relu),
    (layers.BatchNormalization, batch_normalization),
    (layers.Rescaling, rescaling),
    (layers.Normalization, normalization),
    (layers.Add, addition),
    (layers.GlobalAveragePooling2D, average_pooling),
    (layers.Dense, dense),
    ((layers.Activation, layers.Softmax, layers.Dropout), handed_on),
    ((layers.Resizing, segment.Whole, segment.Cut), same_size),
    (layers.UpSampling2D, upsampling),
    (segment.Enlarge, enlarged),
    (layers.Reshape, reshape),
    (layers.Concatenate, concatenation),
    (layers.Conv2DTranspose, transposed_convolution),
)
