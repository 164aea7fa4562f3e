"""The fast 3×3 convolution is the convolution by its definition, and is used only where it is faster."""

import keras
import numpy as np
import pytest

from cvlab import backend
from cvlab.engine import convolution


@pytest.mark.contract
@pytest.mark.parametrize(
    ("shape", "filters"), [((2, 16, 16, 5), 3), ((3, 17, 22, 4), 6), ((1, 1, 1, 2), 2), ((2, 5, 3, 3), 4)]
)
def test_winograd_is_the_convolution_and_so_are_its_gradients(shape, filters):
    generator = np.random.default_rng(0)
    maps, kernel = generator.normal(size=shape), generator.normal(size=(3, 3, shape[-1], filters))
    around, (_, height, width, _) = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0))), shape
    windows = np.stack([[around[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)])
    given = {"maps": maps.astype("float32"), "kernel": kernel.astype("float32")}
    found = keras.ops.convert_to_numpy(convolution.winograd(*map(keras.ops.convert_to_tensor, given.values())))
    expected = np.einsum("ijnyxc,ijck->nyxk", windows, kernel)
    assert abs(found - expected).max() < 2e-5 * abs(expected).max()
    share = generator.normal(size=found.shape)  # of the sum whose gradient it is
    of_maps = np.zeros_like(around)
    for i, j in np.ndindex(3, 3):
        of_maps[:, i : i + height, j : j + width] += share @ kernel[i, j].T
    expected = {
        "maps": of_maps[:, 1:-1, 1:-1],
        "kernel": np.einsum("ijnyxc,nyxk->ijck", windows, share),
    }
    for name, gradient in expected.items():

        def summed(changed, name=name):
            both = {key: keras.ops.convert_to_tensor(value) for key, value in given.items()} | {name: changed}
            return keras.ops.sum(keras.ops.multiply(convolution.winograd(*both.values()), share.astype("float32")))

        slope = keras.ops.convert_to_numpy(backend.value_and_grad(summed)(given[name])[1])
        assert abs(slope - gradient).max() < 2e-5 * abs(gradient).max()


def plainly(maps, kernel):
    return keras.ops.conv(maps, kernel, padding="same")


def test_only_large_maps_on_tensorflows_cpu_are_convolved_by_winograd(monkeypatch):
    taken, layer = [], convolution.Conv3x3(4)
    monkeypatch.setattr(convolution, "winograd", lambda *given: taken.append(given[0].shape[1]) or plainly(*given))
    for side in (15, 16, 32):
        assert layer(np.zeros((1, side, side, 2), "float32")).shape == (1, side, side, 4)
    assert taken == ([16, 32] if (backend.name(), backend.device()) == ("tensorflow", "CPU") else [])
