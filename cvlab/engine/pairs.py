"""Measures of every box against every other, tile by tile: by NumPy, or compiled where there are very many."""

import functools
import sys
from collections.abc import Callable

import numpy as np


def tiled(measure: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Measure every box of `a` against every box of `b`.

    Args:
        measure: function of (namespace, coordinates, coordinates) of boxes that broadcast, such as the IoU; the
            namespace is `numpy` or `keras.ops`, and coordinates are a tuple of four arrays.
        a, b: (N, 4) and (M, 4) float32.

    Returns:
        (N, M) float32.
    """
    n, m = len(a), len(b)
    if m < 64 < n:  # NumPy is fast along the last axis only
        return np.ascontiguousarray(tiled(measure, b, a).T)
    matrix = np.empty((n, m), np.float32)
    compare = functools.partial(_all_pairs, measure, np)
    rows, columns = max(1, min(n, 2**16 // max(m, 1))), max(m, 1)  # a tile that stays in the processor's cache
    if min(n, m) >= 1000 and "keras" in sys.modules and _compiled(measure):
        compare, rows, columns = _compiled(measure), 2048, 2048  # one shape, so that it is compiled only once
    a, b = (np.asfortranarray(np.pad(x, ((0, -len(x) % side), (0, 0)))) for x, side in ((a, rows), (b, columns)))
    for i in range(0, n, rows):
        for j in range(0, m, columns):
            part = matrix[i : i + rows, j : j + columns]
            part[...] = compare(a[i : i + rows], b[j : j + columns])[: part.shape[0], : part.shape[1]]
    return matrix


def _all_pairs(measure, xp, a, b):
    return measure(xp, tuple(a[:, None, k] for k in range(4)), tuple(b[:, k] for k in range(4)))


@functools.cache
def _compiled(measure):
    """Compile a measure for arrays; None where the backend would run it eagerly, no faster than NumPy does."""
    from keras import ops

    from cvlab.engine import backend

    if not backend.compiles():
        return None
    # A compiler may fuse a product and a sum into one rounding: equal boxes would exceed 1 in the last bit.
    tile = backend.jit(lambda a, b: ops.minimum(_all_pairs(measure, ops, a, b), 1.0), xla=True)
    return lambda a, b: np.asarray(tile(a, b))
