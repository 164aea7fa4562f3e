"""Keras models laid open: every layer, also of nested models, as a step that computes tensors from tensors.

Only public Keras API is used. `keras.models.clone_model(model, call_function=…)` walks through a functional model and
hands each layer, with its arguments, to a function of ours, which takes a record of the call. Three things need care:

- A layer that were called again would keep that call for good (the model's owner would find it in `layer.output`). So
  each call is replaced by a `_Recorded` operation, which only knows the shapes, and the copy is thrown away.
- `clone_model` takes no `call_function` for Sequential models and copies what a model was compiled with, which fails
  for a reader's own loss. So it gets `keras.Model(model.inputs, model.outputs)`: functional, the same layers, bare.
- It hands over a nested model as one layer. The recording function opens it in the same way, with the numbers that
  the tensors outside have; a model or layer that is called several times gives steps for each call.
"""

import functools
from typing import Any

import keras
from keras import layers

from .activations import ACTIVATIONS, activation_name
from .copies import all_layers

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
CONVOLVING = (*CONVOLUTIONS, layers.SeparableConv2D, layers.Conv2DTranspose)
IDLE = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianNoise, layers.Identity)  # in a model that doesn't learn


class _Slot:
    """Stands for a tensor in the arguments of a step, by its number in the graph."""

    def __init__(self, number):
        self.number = number


class Step:
    """A layer, or an operation of `keras.ops`, that computes tensors from tensors, which go by their numbers."""

    def __init__(self, layer, name, arguments, parents, outputs, shapes):
        self.layer, self.name, self.arguments, self.parents, self.outputs = layer, name, arguments, parents, outputs
        self.shapes = shapes  # of its parents, and then of its outputs
        self.parts = all_layers(layer) if isinstance(layer, keras.Layer) else []  # the layers within it

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
        recognised = self.effect if function is None else activation_name(function, self.shapes[-1])
        name = getattr(function or type(self.layer), "__name__", repr(function)).lower()
        return recognised or (f"another {name}" if name in ACTIVATIONS else name)

    @functools.cached_property
    def effect(self):
        """The name of the activation that the whole step is, such as "softmax" of a `Lambda`; None for another step."""
        is_map = len(self.parents) == len(self.outputs) == 1 and self.shapes[0] == self.shapes[-1]
        if not is_map or self.weights:
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


class Graph:
    """The steps of a functional model with one input and one output, in the order of computing; tensor 0 is the input.

    Attributes:
        steps: list of `Step`; those of nested models come in place of the model.
        shapes: the shape of each tensor, by its number.
        named: the number of the (first) output of each layer and nested model, by its path "model/layer".
        output: the number of the model's output.
    """

    def __init__(self, model):
        self.steps, self.named, self.shapes = [], {}, [tuple(model.inputs[0].shape)]
        (self.output,) = self._opened(model, [0], "")
        self.producer = {number: step for step in self.steps for number in step.outputs}

    def _opened(self, model, sources, prefix):
        """Append the steps of a model whose inputs are the tensors `sources`; give the numbers of its outputs."""
        shapes = [_sharper(tensor.shape, self.shapes[number]) for tensor, number in zip(model.inputs, sources)]
        inputs = [keras.Input(batch_shape=s, dtype=x.dtype, name=x.name) for x, s in zip(model.inputs, shapes)]
        numbers = dict(zip(map(id, inputs), sources))

        def record(layer, *args, **kwargs):
            tensors = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
            parents = [numbers[id(tensor)] for tensor in tensors]
            specs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
            if is_functional(layer):
                outputs = self._opened(layer, parents, f"{prefix}{layer.name}/")
            else:
                outputs = [len(self.shapes) + place for place in range(len(specs))]
                self.shapes += [tuple(spec.shape) for spec in specs]
                arguments = keras.tree.map_structure(
                    lambda leaf: _Slot(numbers[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf,
                    (args, kwargs),
                )
                shapes = [self.shapes[number] for number in (*parents, *outputs)]
                self.steps.append(Step(layer, prefix + layer.name, arguments, parents, outputs, shapes))
            self.named[prefix + layer.name] = outputs[0]
            results = _Recorded(specs)(*tensors)
            numbers.update(zip(map(id, results), outputs))
            return results

        bare = keras.Model(model.inputs, model.outputs, name=model.name)
        copy = keras.models.clone_model(bare, inputs, clone_function=lambda layer: layer, call_function=record)
        return [numbers[id(tensor)] for tensor in copy.outputs]

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
        reached, steps = {number}, []
        for step in self.steps:
            if reached.intersection(step.parents):
                reached.update(step.outputs)
                steps.append(step)
        return steps

    def variables(self):
        """Give all weights, each once."""
        variables = (variable for step in self.steps for variable in step.weights)
        return list({id(variable): variable for variable in variables}.values())


class _Recorded(keras.Operation):
    """Stand for a layer's call in the copy of a model: it only knows what the layer would give."""

    def __init__(self, specs):
        super().__init__()
        self.specs = specs

    def compute_output_spec(self, *tensors):
        return self.specs


def is_functional(layer: Any) -> bool:
    """Whether a layer is a functional model, or a built Sequential, that does what its layers do and nothing else."""
    plain = any(type(layer).call is kind.call for kind in (keras.Sequential, _functional_class()))
    return plain and bool(getattr(layer, "inputs", None))  # a Sequential that isn't built has no inputs


@functools.cache
def _functional_class():
    """Give the class of functional models, which Keras does not export."""
    tensor = keras.Input((1,), name="input")
    return type(keras.Model(tensor, tensor, name="model"))


def _sharper(shape, other):
    """Give the shape of a nested model's input, with the sides that only the tensor outside has."""
    return tuple(outside if side is None else side for side, outside in zip(shape, other))
