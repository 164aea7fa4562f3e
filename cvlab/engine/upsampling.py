"""Bilinear upsampling by a whole factor, compiled: a third of the time that `keras.ops.image.resize` takes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from cvlab.engine import backend


def upsample(map_: Any, factor: int, size: Sequence, dtype: str | None = None) -> Any:
    """Upsample maps bilinearly, their edges repeated, and crop them at the end.

    Along each axis, the `factor` pixels between the centres of two cells weight the two by fractions that don't depend
    on the position. XLA makes one loop of all this.

    Args:
        map_: (N, h, w, C) tensor.
        factor: int ≥ 1.
        size: (H, W) of the result, ints or, within a graph for images of any size, tensors.
        dtype: of the indices of the largest channel, to be returned instead of the maps; None for the maps.

    Returns:
        (N, H, W, C) tensor, or (N, H, W) of `dtype`.
    """
    static = all(isinstance(pixels, int) for pixels in size)
    return (_compiled if static else _compiled.__wrapped__)(factor, dtype, tuple(size))(map_)


@functools.lru_cache(64)
def _compiled(factor: int, dtype: str | None, size: tuple) -> Callable:
    def enlarge(map_):
        for axis, pixels in zip((1, 2), size):
            map_ = ops.moveaxis(map_, axis, 1)
            map_ = ops.concatenate([map_[:, :1], map_, map_[:, -1:]], 1)
            first, step = map_[:, :-1, None], (map_[:, 1:] - map_[:, :-1])[:, :, None]
            fractions = (ops.arange(factor, dtype="float32") + 0.5 * (1 - factor % 2)) / factor
            finer = first + step * ops.reshape(fractions, (1, 1, -1, 1, 1))
            shape, begin = ops.shape(finer), (factor + 1) // 2
            finer = ops.reshape(finer, (shape[0], shape[1] * factor, *shape[3:]))
            map_ = ops.moveaxis(finer[:, begin : begin + pixels], 1, axis)
        return ops.cast(ops.argmax(map_, -1), dtype) if dtype else map_

    return backend.jit(enlarge, xla=True)
