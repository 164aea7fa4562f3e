"""What a classifier is made of: its last feature maps, its head and its logits, for any functional Keras model.

`laid_open` is the door: it gives the `Network` of a model, with the layers of nested models too. `opened` says how a
model is opened, and `folded` how it is run fast.
"""

import weakref
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .activations import RECTIFIERS, SQUASHING, kind_of_probabilities, random_tensors, results
from .folded import Plan
from .opened import Graph, is_functional

GLOBAL_POOLING = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)
RESHAPING = (layers.Reshape, layers.Flatten)
BETWEEN = (*POOLING, layers.ZeroPadding2D)

_networks = weakref.WeakKeyDictionary()  # a model's structure and what was compiled for it, while the model lives


def laid_open(model: "keras.Model", where: str, images: Any = None) -> "Network":
    """Give the `Network` of a model, the one of an earlier call where the model is still built as it was.

    Args:
        model: a Sequential or functional Keras model with one input and one output.
        where: the name of the caller, for its errors.
        images: (..., H, W, C), for whose size a Sequential model is built if it isn't yet.

    Raises:
        ValueError: for another model, and for weights that are not finite.
    """
    if isinstance(model, keras.Sequential) and not model.built and images is not None:
        model.build((None, *np.shape(images)[-3:]))
    if not isinstance(model, keras.Model) or not is_functional(model):
        raise ValueError(
            f"{where}: model is a {type(model).__name__}, expected a Sequential or functional Keras model, built"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{where}: {model.name} has {len(model.inputs)} inputs and {len(model.outputs)} "
            "outputs, expected one of each: images and scores"
        )
    network = _networks.get(model)
    if network is None or not network.is_of(model):
        network = _networks[model] = Network(model, where)
    return network


class Network(Graph):
    """A model laid open, and what its end is: see `Graph` for its steps.

    Attributes:
        last: the last step that does something to the scores; None where there is none.
        squash: the name of the softmax or sigmoid at the end that can be left out; None where there is none.
        sealed: "probabilities" or "logarithms" (of some), where these are what the model gives although no softmax or
            sigmoid can be left out; else None.
    """

    def __init__(self, model, where):
        super().__init__(model)
        self.name, self.end, self.plans = model.name, model.outputs[0], {}
        self.last = self._above(
            self.output, lambda s: s.is_idle or isinstance(s.layer, RESHAPING) or s.effect == "linear"
        )
        gives_scores = self.last is not None and len(self.shapes[self.output]) == 2
        self.squash = self._squash() if gives_scores else None
        self.sealed = self._squashed_within(model) if gives_scores and self.squash is None else None
        self.settings = self._settings()
        self.check_weights(where)  # once: later, NaN shows in what comes out, unless a ReLU makes 0 of all of it

    @property
    def is_two_sided(self):
        """Whether the one score speaks for a class, 0, and against another, 1."""
        return self.shapes[self.output][-1] == 1 and self.squash in (None, "sigmoid", "logsigmoid")

    def _squash(self):
        """Name the softmax or sigmoid at the end that can be left out, as it is the last step or its activation."""
        step, num_classes = self.last, self.shapes[self.output][-1]
        name = step.activation if step.is_weighted else step.effect
        return name if name in SQUASHING and step.shapes[-1][-1] == num_classes else None

    def _squashed_within(self, model):
        """Say whether the scores are "probabilities" or "logarithms" of some, although no softmax or sigmoid was seen.

        A few random tensors, up to large ones, go through the last activation or layer, and through the whole model.
        None for scores that look like neither.
        """
        step = self.last
        if step.is_weighted and step.activation in ("linear", *RECTIFIERS):
            return None
        trials = [(lambda x: model(x, training=False), self.shapes[0])]
        if step.is_weighted:
            trials = [(step.layer.activation, step.shapes[-1])]
        elif len(step.parents) == 1:
            trials.insert(0, (step.alone, step.shapes[0]))
        for function, shape in trials:
            scores = results(function, random_tensors([side or 64 for side in shape[1:]]))
            if (kind := kind_of_probabilities(scores)) is not None:
                return kind
        return None

    def is_of(self, model):
        """Whether the model is still built as it was."""
        settings = self._settings()
        same = len(settings) == len(self.settings) and all(now is then for now, then in zip(settings, self.settings))
        return same and model.outputs[0] is self.end

    def _settings(self):
        """Give what can be exchanged in a layer: variables, activations, and what `Normalization` adapted to."""
        names = ("activation", "mean", "variance")
        inside = [layer for step in self.steps for layer in (step.layer, *step.parts)]
        return self.variables() + [getattr(layer, name, None) for layer in inside for name in names]

    def _above(self, number, passing):
        """Go up from a tensor, past the steps that `passing` is true of, to the next one; None at the input."""
        while (step := self.producer.get(number)) and len(step.parents) == 1 and passing(step):
            number = step.parents[0]
        return step

    def find(self, layer, where):
        """Give the number of a layer's output, feature maps (N, h, w, C)."""
        name = getattr(layer, "name", layer)
        paths = [name] if name in self.named else [path for path in self.named if path.rsplit("/", 1)[-1] == name]
        if len(paths) > 1:
            raise ValueError(f"{where}: layer {name!r} is in the model more than once, as {', '.join(paths)}")
        if not paths:
            names = ", ".join(step.name for step in self.steps if step.is_convolution) or "none"
            raise ValueError(f"{where}: layer {name!r} is not in the model; its convolutional layers are {names}")
        number = self.named[paths[0]]
        if len(self.shapes[number]) != 4:
            raise ValueError(f"{where}: layer {name!r} gives {self.shapes[number]}, expected feature maps (N, h, w, C)")
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
            last = self._maps_before_a_head(last, where)
        if not any(step.is_convolution for step in self.upstream(last)):
            raise ValueError(f"{where}: {self.name} has no convolutional layer before its scores")
        return last

    def _maps_before_a_head(self, last, where):
        """Go up from the last feature maps, or from the last ones on any path, past pooling and padding."""
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
        return last

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

    def checked_images(self, images, where):
        """Give images (N, H, W, C) float32 of given ones, or of a single one (H, W, C)."""
        batch = np.asarray(images)
        batch = batch[None] if batch.ndim == 3 else batch
        takes = self.shapes[0]
        if not (
            batch.dtype.kind in "uif"
            and batch.ndim == len(takes) == 4
            and len(batch)
            and all(side in (None, given) for given, side in zip(batch.shape[1:], takes[1:]))
        ):
            raise ValueError(
                f"{where}: images are {batch.dtype} of shape {np.shape(images)}; expected numbers, "
                f"(N, H, W, C) or (H, W, C), as {self.name} takes {takes}"
            )
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            row = int(np.argmin(np.isfinite(batch).reshape(len(batch), -1).all(axis=1)))
            raise ValueError(f"{where}: images hold {not_finite(batch[row])} (image {row}); expected finite numbers")
        return batch.astype(np.float32)

    def checked_classes(self, classes, count, where):
        """Give the classes of `count` images, (N,) int32, −1 for one to be predicted."""
        num_classes = 2 if self.is_two_sided else self.shapes[self.output][-1]
        chosen = np.asarray(-1 if classes is None else classes)
        if (
            chosen.dtype.kind not in "iu"
            or chosen.shape not in ((), (count,))
            or (classes is not None and (chosen.min() < 0 or chosen.max() >= num_classes))
        ):
            raise ValueError(
                f"{where}: classes is {classes!r}, expected None, an int or {count} ints, from 0 to {num_classes - 1}"
            )
        return np.broadcast_to(chosen, count).astype(np.int32)

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
            where: the name of the caller.
            what: a name for the values.
            values: (N, ...), not all finite.
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


def not_finite(values: Any) -> str:
    """Name what is not finite among numbers: "NaN", "inf" or "NaN and inf"."""
    kinds = [name for name, is_so in (("NaN", np.isnan), ("inf", np.isinf)) if is_so(values).any()]
    return " and ".join(kinds)
