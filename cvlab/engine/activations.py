"""Activations recognised by what they do, whatever they are called: a reader's own softmax is one, too."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

SQUASHING = {
    "softmax": ops.softmax,
    "logsoftmax": ops.log_softmax,
    "sigmoid": ops.sigmoid,
    "logsigmoid": ops.log_sigmoid,
}
RECTIFIERS = {"relu": ops.relu, "relu6": ops.relu6}
ACTIVATIONS = {"linear": lambda x: x} | RECTIFIERS | SQUASHING


def activation_name(function: Callable, shape: Sequence[int | None]) -> str | None:
    """Name the one of ACTIVATIONS that a function is, by its values for random tensors; None for any other function.

    Args:
        function: of a tensor, such as a layer's activation.
        shape: of the tensors, (N, ..., C); N and other sides may be None.
    """
    for name in ("linear", "relu", "softmax", "sigmoid"):
        if function is getattr(keras.activations, name):
            return name  # spares the trial
    tensors = random_tensors([3] * (len(shape) - 2) + [shape[-1] or 3])
    values = results(function, tensors)
    if values is None or values.shape != tensors.shape:
        return None
    usable = np.isfinite(values)  # exp(x) / sum(exp(x)) has no value for large numbers
    usable[:2] = True
    near = {"rtol": 1e-4, "atol": 1e-6} if values.dtype.itemsize > 2 else {"rtol": 2e-2, "atol": 2e-3}
    values = values.astype(np.float64)
    for name, activation in ACTIVATIONS.items():
        if values.shape[-1] == 1 and "softmax" in name:
            continue  # of one number it is 1, whatever the number
        if np.allclose(values[usable], results(activation, tensors)[usable], **near):
            return name
    return None


def random_tensors(shape: Sequence[int]) -> np.ndarray:
    """Draw tensors of a shape without N: small and large ones, of either sign, which half precision holds exactly.

    Returns:
        (8, ...) float32, multiples of 1/128. The standard deviations are 1/8, 1, 8 and 64, twice in this order.
    """
    scales = np.reshape([1 / 8, 1, 8, 64] * 2, (8, *[1] * len(shape)))
    return (np.rint(16 * np.random.default_rng(0).normal(size=(8, *shape))) / 16 * scales).astype(np.float32)


def results(function: Callable, tensors: np.ndarray) -> np.ndarray | None:
    """Compute a function's values for tensors, (N, ...); None where it takes no such tensors."""
    try:
        return ops.convert_to_numpy(function(ops.convert_to_tensor(tensors)))
    except Exception:  # a reader's function may raise anything
        return None


def kind_of_probabilities(scores: Any) -> str | None:
    """Say whether (N, ...) scores look like "probabilities" or their "logarithms"; None for neither, or for None."""
    if scores is None:
        return None
    scores = scores.astype(np.float64)
    finite = scores[np.isfinite(scores).reshape(len(scores), -1).all(axis=1)]
    if not finite.any():  # zeros: a layer that has learned nothing yet
        return None
    if finite.min() >= -1e-6 and finite.max() <= 1 + 1e-6:
        return "probabilities"
    is_log = finite.max() <= 1e-6 and np.allclose(np.exp(finite).sum(axis=-1), 1, atol=1e-2)
    return "logarithms" if is_log else None
