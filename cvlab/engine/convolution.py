"""3×3 convolutions that need a quarter of the multiplications: Winograd's algorithm, where it is faster.

`Conv3x3` computes what `keras.layers.Conv2D(filters, 3, padding="same")` computes.
"""

import functools
from typing import Any

import numpy as np
from keras import layers, ops

from cvlab.engine import backend

MATRICES = (  # for inputs, weights and outputs along one axis: polynomials evaluated at 0, 1, −1, 2, −2 and infinity
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


class Conv3x3(layers.Conv2D):
    """A 3×3 convolution with stride 1 and zero padding, by `winograd` where that is faster."""

    def __init__(self, filters, **options):
        super().__init__(filters, **{"kernel_size": 3, "padding": "same", **options})

    def convolution_op(self, inputs, kernel):
        # On small maps, transforming the kernel costs more than is saved.
        large = all(side and side >= 16 for side in inputs.shape[1:3])
        if large and backend.gains_by_winograd():
            return winograd(inputs, kernel)
        return super().convolution_op(inputs, kernel)


def winograd(inputs: Any, kernel: Any) -> Any:
    """Convolve feature maps with a 3×3 kernel, stride 1 and zero padding, with a quarter of the multiplications.

    For each tile of 4×4 outputs, constant matrices transform the 6×6 inputs and the 3×3 weights into 36 numbers each.
    Their products, summed over the channels, are transformed into the outputs: 36 multiplications per channel and
    filter instead of 144. The result equals the convolution up to rounding, about 1e-5 of the largest value.

    Args:
        inputs: (N, H, W, C) tensor with static H, W and C.
        kernel: (3, 3, C, K) tensor.

    Returns:
        (N, H, W, K) tensor.

    Source: Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016: F(4×4, 3×3).
    """
    to_inputs, to_weights, to_outputs = (np.kron(matrix, matrix).astype(np.float32) for matrix in MATRICES)
    (height, width, channels), filters = inputs.shape[1:], kernel.shape[-1]
    tiles, tile, position = map(ops.convert_to_tensor, _tiles(height, width))
    images = ops.arange(ops.shape(inputs)[0])
    cells = ops.pad(ops.reshape(inputs, (-1, channels)), ((1, 0), (0, 0)))  # cell 0 is the zero padding
    indices = ops.where(tiles > 0, tiles + height * width * images[:, None], 0)  # (36, N, tiles)
    transformed = ops.matmul(to_inputs, ops.reshape(ops.take(cells, indices, axis=0), (36, -1)))
    weights = ops.matmul(to_weights, ops.reshape(kernel, (9, -1)))
    product = ops.matmul(ops.reshape(transformed, (36, -1, channels)), ops.reshape(weights, (36, channels, filters)))
    outputs = ops.reshape(ops.matmul(to_outputs, ops.reshape(product, (36, -1))), (-1, filters))
    indices = (position * ops.shape(images)[0] + images[:, None]) * tiles.shape[-1] + tile  # (N, H · W)
    return ops.reshape(ops.take(outputs, indices, axis=0), (-1, height, width, filters))


@functools.cache
def _tiles(height, width):
    """List the input cells of each tile (36, 1, tiles), numbered from 1, and each output's tile and position in it.

    Tiles of 6×6 inputs overlap by two, so that each has 4×4 outputs; 0 stands for the padding. Cells, tiles and
    positions within a tile are numbered row by row.
    """
    rows, columns = -(-height // 4), -(-width // 4)
    cells = np.zeros((4 * rows + 2, 4 * columns + 2), np.int32)
    cells[1 : height + 1, 1 : width + 1] = np.arange(1, height * width + 1).reshape(height, width)
    tiles = np.lib.stride_tricks.sliding_window_view(cells, (6, 6))[::4, ::4].reshape(-1, 36)
    y, x = np.divmod(np.arange(height * width, dtype=np.int32), np.int32(width))
    return tiles.T[:, None], y // 4 * columns + x // 4, y % 4 * 4 + x % 4
