"""Keras models as ONNX graphs: the forward pass, and the gradient of one logit with respect to the image.

No runtime for browsers differentiates a convolution on the CPU, so the gradient is written as a graph of its own, made
of the operators that inference has. Convolutions turn into convolutions with the kernel turned round (into transposed
ones where they stride), and ReLU lets pass what it let pass on the way up.

Weights stay outside the graphs, which refer to them by their place in an array of float32 (`Weights`); so the graphs of
a model share them, and a file of float16 serves where the weights are stored as such. Those of a part that several
models have in common can lie in an array of their own.
"""

import hashlib

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from cvlab.engine import opened
from cvlab.engine.convolution import Conv3x3

OPSET, IR_VERSION = 17, 8
LAST = -(2**31) + 1  # the end of a slice that goes backwards to the first element
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, Conv3x3)


class Weights:
    """Weights of a model: one array of float32, of which those that float16 can hold come first.

    Attributes:
        location: the name by which graphs refer to the array.
        half, single: lists of arrays, float16 and float32.
    """

    def __init__(self, location="weights"):
        self.location, self.half, self.single, self.places = location, [], [], {}

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
        """Give all weights in one array, (n,) float32: what the graphs refer to as a file, `location`."""
        return np.concatenate([values.ravel().astype(np.float32) for values in (*self.half, *self.single)])

    def outside(self, name):
        """Describe an array for a graph that it stands outside of."""
        shape = self.places[name][2]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        place = {"location": self.location, "offset": 4 * self.offset(name), "length": 4 * int(np.prod(shape))}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def packed(self):
        """Give the bytes of the file: all first bytes together, then all second ones, …, which compresses better."""
        planes = [
            np.concatenate([values.ravel() for values in group] or [np.empty(0, dtype)]).astype(dtype).view(np.uint8)
            for group, dtype in ((self.half, "<f2"), (self.single, "<f4"))
        ]
        planes = [plane.reshape(-1, width).T.tobytes() for plane, width in zip(planes, (2, 4))]
        return b"".join(planes)


class Pass:
    """One graph in the making: nodes, small constants, and the `Weights` outside, the common ones last if there are."""

    def __init__(self, weights, common=None):
        self.weights, self.common, self.nodes, self.constants = weights, common, [], {}

    def node(self, operator, *inputs, **attributes):
        """Append a node with one output, and give the output's name."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values, dtype=np.float32):
        """Give the name of a small constant that stands in the graph itself."""
        values = np.ascontiguousarray(values, dtype)
        digest = hashlib.sha256(values.tobytes()).hexdigest()[:8]
        name = f"{np.dtype(dtype).name}_{'x'.join(map(str, values.shape))}_{digest}"
        self.constants[name] = values
        return name

    def weight(self, name, values):
        """Give the name of an array of weights that stands outside the graph."""
        is_common = self.common is not None and f"/{self.common}/" in f"/{name}"
        self.weights[-1 if is_common else 0].add(name, values)
        return name

    def finish(self, name, inputs, outputs):
        """Make the model of those nodes that its outputs depend on.

        Args:
            inputs: dict of shapes, with a name for a side that varies, by name; all are float32.
            outputs: dict of (tensor, shape, type) by name.
        """
        ends = [helper.make_node("Identity", [tensor], [key]) for key, (tensor, _, _) in outputs.items()]
        needed, nodes = {tensor for tensor, _, _ in outputs.values()}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [numpy_helper.from_array(self.constants[key], key) for key in self.constants if key in needed]
        weights = [each.outside(key) for each in self.weights for key in each.places if key in needed]
        graph = helper.make_graph(
            [*nodes[::-1], *ends],
            name,
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, kind, shape) for key, (_, shape, kind) in outputs.items()],
            [*constants, *weights],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="cvlab")


class Network:
    """A Keras model laid open, from images (N, H, W, 3), 0–255, of one size.

    `common` is the name of the nested model, if any, whose weights lie in an array of their own.
    """

    def __init__(self, model, size, common=None):
        pixels = keras.Input((*size, 3), name="pixels")
        self.name, self.size, self.common = model.name, tuple(size), common
        self.weights = [Weights()] if common is None else [Weights(), Weights(common)]
        self.graph = opened.Graph(keras.Model(pixels, model(pixels)))
        self.readers = {}
        for step in self.graph.steps:
            for number in step.parents:
                self.readers.setdefault(number, []).append(step)

    def forward(self):
        """Write the forward pass.

        Returns:
            The `Pass`, the names of its tensors by number, and the steps that were written with what undoes each:
            a list of (step, function of (Pass, gradient of its output) that gives those of its parents).
        """
        written = Pass(self.weights, self.common)
        names, undo = {0: written.node("Transpose", "pixels", perm=[0, 3, 1, 2])}, []
        merged = set()  # batch normalization that went into the convolution before it
        for step in self.graph.steps:
            if id(step) in merged:
                continue
            try:
                write = next(function for kind, function in WRITERS if isinstance(step.layer, kind))
            except StopIteration:
                raise ValueError(
                    f"{self.name}: layer {step.name!r} is a {type(step.layer).__name__}, for which no ONNX operators "
                    "are written yet; book/playground/onnx_graph.py has those that are"
                ) from None
            output = step.outputs[0]
            if write is convolution and (norm := self.norm_behind(step)) is not None:
                merged.add(id(norm))
                name, back = write(written, step, names, norm)
                output = norm.outputs[0]
            else:
                name, back = write(written, step, names)
            names[output] = name
            undo.append((step, output, back))
        return written, names, undo

    def norm_behind(self, step):
        """Give the batch normalization that alone reads a convolution without bias; None where there is none."""
        (output,) = step.outputs
        readers = self.readers.get(output, [])
        return readers[0] if len(readers) == 1 and readers[0].is_norm and not step.layer.use_bias else None


def classifier(model, size):
    """Write a classifier that ends in global average pooling and a dense layer, with or without softmax behind it.

    Returns:
        dict of graphs: "forward", from pixels (N, H, W, 3) to logits (N, K) and the last feature maps (N, C, h, w); and
        "gradient", from pixels and onehot (N, K) to the gradient of the sum of onehot · logits, (N, H, W, 3). Beside
        them a list of the `Weights`, and the dense layer's (place, C, K) in these.
    """
    network, (height, width) = Network(model, size), size
    written, names, undo = network.forward()
    pool = next(step for step in network.graph.steps if isinstance(step.layer, layers.GlobalAveragePooling2D))
    dense = next(step for step in network.graph.steps if isinstance(step.layer, layers.Dense))
    logits, features = names[dense.outputs[0]], names[pool.parents[0]]
    channels, num_classes = dense.layer.kernel.shape
    pixels, onehot = {"pixels": ["N", height, width, 3]}, {"onehot": ["N", num_classes]}
    maps = (features, ["N", channels, *pool.shapes[0][1:3]], TensorProto.FLOAT)
    outputs = {"logits": (logits, ["N", num_classes], TensorProto.FLOAT), "features": maps}
    graphs = {"forward": written.finish(f"{network.name}_forward", pixels, outputs)}

    gradients = {dense.outputs[0]: "onehot"}
    for step, output, back in reversed(undo):
        if output not in gradients:  # what follows the logits
            continue
        for number, name in zip(step.parents, back(written, gradients.pop(output)), strict=True):
            before = gradients.get(number)
            gradients[number] = name if before is None else written.node("Add", before, name)
    slope = written.node("Transpose", gradients[0], perm=[0, 2, 3, 1])
    outputs = {"gradient": (slope, pixels["pixels"], TensorProto.FLOAT)}
    graphs["gradient"] = written.finish(f"{network.name}_gradient", pixels | onehot, outputs)
    place = network.weights[0].offset(f"{dense.name}/kernel")
    return graphs, network.weights, (place, channels, num_classes)


def plain(model, size, name, finish=None, common=None):
    """Write a model with one output as a forward pass alone.

    Args:
        name: of the output. common: as in `Network`.
        finish: function of (Pass, tensor of the output, NCHW where it is a map, its shape in Keras, `size`) that
            appends more, and gives the last tensor, its shape and type.

    Returns:
        dict with the graph "forward", and a list of the `Weights`.
    """
    network = Network(model, size, common)
    written, names, _ = network.forward()
    output = names[network.graph.output]
    shape, kind = [1, *network.graph.shapes[network.graph.output][1:]], TensorProto.FLOAT
    if finish is not None:
        output, shape, kind = finish(written, output, shape, network.size)
    pixels = {"pixels": [1, *size, 3]}
    return {"forward": written.finish(network.name, pixels, {name: (output, shape, kind)})}, network.weights


def classes_of_pixels(written, scores, shape, size):
    """Append the class with the highest score of each pixel, (1, H, W) int32: `finish` of `plain` for a segmenter.

    Scores of larger cells are upsampled bilinearly first.
    """
    if tuple(shape[1:3]) != size:
        scores = bilinear(written, scores, [side / cells for side, cells in zip(size, shape[1:3])])
    best = written.node("ArgMax", scores, axis=1, keepdims=0)
    return written.node("Cast", best, to=TensorProto.INT32), [1, *size], TensorProto.INT32


def bilinear(written, x, factors):
    """Append bilinear upsampling, as `keras.ops.image.resize` does it."""
    settings = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return written.node("Resize", x, "", written.constant([1, 1, *factors]), **settings)


# How each kind of layer is written: function of (Pass, step, names) that gives the name of the output, and a function
# of (Pass, name of the output's gradient) that gives the names of the parents' gradients, or None if there is none yet.


def convolution(written, step, names, norm=None):
    """Write a convolution, its activation, and the batch normalization behind it, which scales the kernel.

    Kernel and scale are multiplied in the graph: runtimes do that once, when they load it, and the kernel in the file
    stays the one of the book's weights, which float16 holds without loss.
    """
    layer, x = step.layer, names[step.parents[0]]
    if layer.padding not in ("same", "valid") or any(rate != 1 for rate in layer.dilation_rate):
        raise ValueError(f"layer {step.name!r} has padding={layer.padding!r}, expected 'same' or 'valid', no dilation")
    kernel, depthwise = np.asarray(layer.kernel), isinstance(layer, layers.DepthwiseConv2D)
    kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))  # (outputs, inputs per group, k, k)
    weight = written.weight(f"{step.name}/kernel", kernel)
    bias = None
    if norm is not None:
        scale, shift = scale_and_shift(norm.layer)
        scale = written.weight(f"{norm.name}/scale", scale.reshape(-1, 1, 1, 1))
        weight, bias = written.node("Mul", weight, scale), written.weight(f"{norm.name}/shift", shift)
    elif layer.use_bias:
        bias = written.weight(f"{step.name}/bias", np.asarray(layer.bias))
    sizes, outputs = (shape[1:3] for shape in step.shapes)
    groups, side = kernel.shape[0] if depthwise else 1, kernel.shape[-1]
    stride, none = layer.strides[0], (0, 0)
    before, after = zip(*(none if layer.padding == "valid" else same_padding(n, side, stride) for n in sizes))
    settings = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": [*before, *after], "group": groups}
    output = written.node("Conv", x, weight, *([] if bias is None else [bias]), **settings)
    output, through = activated(written, output, getattr(layer, "activation", None), step)

    def back(written, gradient):
        gradient = through(written, gradient)
        if stride > 1:
            ends = [n - ((o - 1) * stride + side - b - a) for n, o, b, a in zip(sizes, outputs, before, after)]
            return [written.node("ConvTranspose", gradient, weight, output_padding=ends, **settings)]
        turned = weight
        if side > 1:
            backwards = [written.constant(values, np.int64) for values in ([-1, -1], [LAST, LAST], [2, 3], [-1, -1])]
            turned = written.node("Slice", weight, *backwards)
        if not depthwise:
            turned = written.node("Transpose", turned, perm=[1, 0, 2, 3])
        ends = [side - 1 - pad for pad in settings["pads"]]
        return [written.node("Conv", gradient, turned, **(settings | {"pads": ends}))]

    return output, back


def same_padding(length, side, stride):
    """Give the padding before and after, by TensorFlow's rule: the larger part of an odd padding at the end."""
    total = max((-(-length // stride) - 1) * stride + side - length, 0)
    return total // 2, total - total // 2


def scale_and_shift(norm):
    """Give what batch normalization, which doesn't learn, multiplies by and adds: (C,) float32 each."""
    mean, variance = (np.asarray(values, np.float64) for values in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    beta = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def activated(written, x, activation, step):
    """Write the activation of a layer: none, or ReLU."""
    if activation is None or activation is keras.activations.linear:
        return x, lambda written, gradient: gradient
    if activation is keras.activations.relu:
        return rectified(written, x, None)
    raise ValueError(f"layer {step.name!r} has the activation {activation!r}, expected ReLU or none")


def rectified(written, x, top):
    """Write ReLU, or ReLU6 with top=6."""
    if top is None:
        output = written.node("Relu", x)
    else:
        output = written.node("Clip", x, written.constant(0.0), written.constant(top))

    def back(written, gradient):
        # One comparison says where the slope is 1: above 0, and below the top. (At 0 itself, where no number falls
        # but by design, ReLU6 is given the slope 1 and not 0.)
        zero = written.constant(0.0)
        passes = written.node("Greater", output, zero) if top is None else written.node("Equal", output, x)
        return written.node("Where", passes, gradient, zero)

    return output, back


def relu(written, step, names):
    layer = step.layer
    if layer.negative_slope or layer.threshold:
        raise ValueError(f"layer {step.name!r} is a leaky ReLU or has a threshold, expected a plain one")
    output, back = rectified(written, names[step.parents[0]], layer.max_value)
    return output, lambda written, gradient: [back(written, gradient)]


def rescaling(written, step, names):
    scale, offset = (written.constant(value) for value in (step.layer.scale, step.layer.offset))
    output = written.node("Add", written.node("Mul", names[step.parents[0]], scale), offset)
    return output, lambda written, gradient: [written.node("Mul", gradient, scale)]


def normalization(written, step, names):
    mean, variance = (np.asarray(values).reshape(1, -1, 1, 1) for values in (step.layer.mean, step.layer.variance))
    mean, deviation = written.constant(mean), written.constant(np.sqrt(variance))
    output = written.node("Div", written.node("Sub", names[step.parents[0]], mean), deviation)
    return output, lambda written, gradient: [written.node("Div", gradient, deviation)]


def batch_normalization(written, step, names):
    """Write batch normalization that could not go into the convolution before it."""
    scale, shift = (values.reshape(-1, 1, 1) for values in scale_and_shift(step.layer))
    scale = written.weight(f"{step.name}/scale", scale)
    shift = written.weight(f"{step.name}/shift", shift)
    output = written.node("Add", written.node("Mul", names[step.parents[0]], scale), shift)
    return output, lambda written, gradient: [written.node("Mul", gradient, scale)]


def addition(written, step, names):
    output = names[step.parents[0]]
    for number in step.parents[1:]:
        output = written.node("Add", output, names[number])
    return output, lambda written, gradient: [gradient] * len(step.parents)


def average_pooling(written, step, names):
    height, width, channels = step.shapes[0][1:]
    output = written.node("Flatten", written.node("GlobalAveragePool", names[step.parents[0]]))

    def back(written, gradient):
        share = written.node("Mul", gradient, written.constant(1 / (height * width)))
        return [written.node("Reshape", share, written.constant([-1, channels, 1, 1], np.int64))]  # broadcast later

    return output, back


def dense(written, step, names):
    kernel = written.weight(f"{step.name}/kernel", np.asarray(step.layer.kernel))
    bias = written.weight(f"{step.name}/bias", np.asarray(step.layer.bias))
    if step.activation not in ("linear", "softmax"):
        raise ValueError(f"layer {step.name!r} has the activation {step.activation!r}, expected softmax or none")
    output = written.node("Gemm", names[step.parents[0]], kernel, bias)
    return output, lambda written, gradient: [written.node("Gemm", gradient, kernel, transB=1)]


def handed_on(written, step, names):
    """Write nothing: a layer that hands on what it gets, or the softmax behind the logits."""
    if not step.is_idle and step.activation != "softmax":
        raise ValueError(f"layer {step.name!r} has the activation {step.activation!r}, expected softmax or none")
    return names[step.parents[0]], lambda written, gradient: [gradient]


def resizing(written, step, names):
    if step.shapes[0] != step.shapes[-1]:
        raise ValueError(f"layer {step.name!r} resizes {step.shapes[0]} to {step.shapes[-1]}, expected images that fit")
    return names[step.parents[0]], lambda written, gradient: [gradient]


def upsampling(written, step, names):
    x, layer = names[step.parents[0]], step.layer
    if layer.interpolation == "bilinear":
        return bilinear(written, x, layer.size), None
    if layer.interpolation != "nearest":
        raise ValueError(f"layer {step.name!r} has interpolation={layer.interpolation!r}, expected nearest or bilinear")
    settings = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return written.node("Resize", x, "", written.constant([1, 1, *layer.size]), **settings), None


def reshape(written, step, names):
    """Write a reshape to (places, numbers): maps are turned so that the channels come last, as they are in Keras."""
    x = names[step.parents[0]]
    if len(step.shapes[0]) == 4:
        x = written.node("Transpose", x, perm=[0, 2, 3, 1])
    shape = written.constant([1, *(-1 if n is None else n for n in step.shapes[-1][1:])], np.int64)
    return written.node("Reshape", x, shape), None


def concatenation(written, step, names):
    axis = step.layer.axis % len(step.shapes[-1])
    if len(step.shapes[-1]) == 4:
        axis = {1: 2, 2: 3, 3: 1}[axis]
    return written.node("Concat", *(names[number] for number in step.parents), axis=axis), None


def transposed_convolution(written, step, names):
    layer, (height, width) = step.layer, step.shapes[0][1:3]
    kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)  # (k, k, outputs, inputs) → (inputs, outputs, k, k)
    inputs = [names[step.parents[0]], written.weight(f"{step.name}/kernel", kernel)]
    if layer.use_bias:
        inputs.append(written.weight(f"{step.name}/bias", np.asarray(layer.bias)))
    side, stride = kernel.shape[-1], layer.strides[0]
    if layer.padding != "same":
        raise ValueError(f"layer {step.name!r} has padding={layer.padding!r}, expected 'same'")
    before, after = zip(*(same_padding(n * stride, side, stride) for n in (height, width)))
    ends = [n * stride - ((n - 1) * stride + side - b - a) for n, b, a in zip((height, width), before, after)]
    settings = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": [*before, *after]}
    output = written.node("ConvTranspose", *inputs, output_padding=ends, **settings)
    return activated(written, output, layer.activation, step)[0], None


def enlarged(written, step, names):
    """Write the bilinear upsampling of `segment.Enlarge`, which needs no cropping at the sizes that are exported."""
    (height, width), factor = step.shapes[-1][1:3], step.layer.factor
    if step.shapes[0][1] * factor != height or step.shapes[0][2] * factor != width or step.layer.classes:
        raise ValueError(f"layer {step.name!r} crops, expected a size that is a multiple of {factor}, and logits")
    return bilinear(written, names[step.parents[0]], [factor, factor]), None


def same_size(written, step, names):
    """Write nothing for layers that pad or crop to a size which the maps already have."""
    if step.shapes[0] != step.shapes[-1]:
        raise ValueError(f"layer {step.name!r} turns {step.shapes[0]} into {step.shapes[-1]}, expected the same size")
    return names[step.parents[0]], None


def writers():
    """List the kinds of layers with what writes them."""
    from cvlab import segment

    return [
        (CONVOLUTIONS, convolution),
        (layers.ReLU, relu),
        (layers.Rescaling, rescaling),
        (layers.Normalization, normalization),
        (layers.BatchNormalization, batch_normalization),
        (layers.Add, addition),
        (layers.GlobalAveragePooling2D, average_pooling),
        (layers.Dense, dense),
        ((layers.Activation, layers.Softmax, layers.Dropout), handed_on),
        (layers.Resizing, resizing),
        (layers.UpSampling2D, upsampling),
        (layers.Reshape, reshape),
        (layers.Concatenate, concatenation),
        (layers.Conv2DTranspose, transposed_convolution),
        (segment.Enlarge, enlarged),
        ((segment.Whole, segment.Cut), same_size),
    ]


WRITERS = writers()


def with_weights(model: onnx.ModelProto, weights: list[Weights]) -> onnx.ModelProto:
    """Copy a graph with its weights inside, for runtimes and checks that take a single file."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    values = {}
    for each in weights:
        array = each.array()
        for name, (_, _, shape) in each.places.items():
            first = each.offset(name)
            values[name] = array[first : first + int(np.prod(shape))].reshape(shape)
    for tensor in whole.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return whole
