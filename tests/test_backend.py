"""The door to the backends: seeds, gradients, compilation."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from cvlab import backend

pytestmark = pytest.mark.contract
KERAS = tuple(map(int, keras.__version__.split(".")[:2]))


def test_the_same_seed_gives_the_same_weights_and_dropout_and_another_seed_others():
    def drawn(seed):
        backend.set_seed(seed)
        kernel = keras.layers.Dense(4)
        kernel.build((None, 4))
        dropped = keras.layers.Dropout(0.5)(np.ones((4, 4), np.float32), training=True)
        own = [keras.random.normal((4,))] if KERAS >= (3, 13) else []
        values = [keras.ops.convert_to_numpy(value) for value in (kernel.kernel, dropped, *own)]
        return [*values, np.random.rand(3)]  # noqa: NPY002 - the global generator is what is seeded

    first, again, other = drawn(3), drawn(3), drawn(4)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}"):
        backend.set_seed(seed)


def test_gradient_of_a_cubic_is_its_derivative():
    x = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    value, gradient = backend.value_and_grad(lambda t, factor: ops.sum(t**3) * factor)(x, 2.0)
    assert float(value) == pytest.approx(2 * (x**3).sum())
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), 6 * x**2, rtol=1e-5)


def test_gradient_by_pictures_agrees_with_central_differences():
    backend.set_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3, activation="softplus"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    picture = np.random.default_rng(1).normal(size=(1, 6, 6, 3)).astype(np.float32)
    _, gradient = backend.value_and_grad(lambda x: ops.sum(model(x)[:, 1]))(picture)
    gradient = ops.convert_to_numpy(gradient)
    for at in [(0, 0, 0, 0), (0, 3, 2, 1), (0, 5, 5, 2)]:
        step = np.zeros_like(picture)
        step[at] = 1e-2
        up, down = (float(model.predict_on_batch(picture + sign * step)[0, 1]) for sign in (1, -1))
        assert gradient[at] == pytest.approx((up - down) / 2e-2, abs=1e-3)


def test_what_the_function_ignores_has_gradient_zero():
    _, gradient = backend.value_and_grad(lambda x: ops.sum(x[:1]))(np.ones(3, np.float32))
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient), [1, 0, 0])


@pytest.mark.parametrize("xla", [False, True])
def test_compiled_function_gives_the_same_values(xla):
    x = np.linspace(-2, 2, 7, dtype=np.float32)

    def swish(t):
        return t * ops.sigmoid(t)

    np.testing.assert_allclose(ops.convert_to_numpy(backend.jit(swish, xla=xla)(x)), x / (1 + np.exp(-x)), rtol=1e-5)


def test_a_gradient_can_be_taken_within_a_compiled_function():
    def slope(x, factor):
        return backend.value_and_grad(lambda t: ops.sum(t**3) * factor)(x)[1]

    compiled, x = backend.jit(slope), np.array([1.0, -2.0, 0.5], np.float32)
    for factor in (1.0, 3.0):
        gradient = compiled(x, ops.convert_to_tensor(factor))
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), 3 * factor * x**2, rtol=1e-5)


def test_a_gradient_goes_through_a_compiled_function():
    cubed, x = backend.jit(lambda t: t**3), np.array([1.0, -2.0, 0.5], np.float32)
    _, gradient = backend.value_and_grad(lambda t: ops.sum(cubed(t)))(x)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), 3 * x**2, rtol=1e-5)


def test_what_a_compiled_function_gives_is_no_part_of_a_gradient_by_the_weights_it_reads():
    dense = keras.layers.Dense(2, kernel_initializer="ones")
    dense.build((None, 3))
    found = backend.jit(dense, reads=dense.weights)(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(np.asarray(found), [[3, 3]])  # PyTorch refuses what might yet get a gradient


def test_a_gradient_of_its_own_replaces_none_but_tensorflows():
    told = []
    square = backend.with_gradient(lambda x: x**2, lambda slope: told.append(1) or 7 * slope)
    x = np.array([3.0], np.float32)
    for run in (lambda fn: fn, backend.jit):
        value, gradient = run(backend.value_and_grad(lambda t: ops.sum(square(t))))(x)
        assert (float(value), float(gradient[0])) == (9, 7 if backend.name() == "tensorflow" else 6)
    assert bool(told) == (backend.name() == "tensorflow")


def test_a_compiled_function_reads_variables_as_they_are():
    variable = keras.Variable(np.float32([1, 2]))
    compiled = backend.jit(lambda x: ops.convert_to_tensor(variable) * x, reads=[variable])
    for value in ([1, 2], [3, 5]):
        variable.assign(value)
        np.testing.assert_array_equal(
            ops.convert_to_numpy(compiled(ops.convert_to_tensor(np.float32(2)))), np.multiply(value, 2)
        )


def test_device_and_versions_say_what_runs_here():
    assert backend.device().startswith(("CPU", "GPU: "))
    assert backend.name() in backend.versions()


def test_importing_the_package_loads_neither_a_backend_nor_numpy():
    heavy = ("tensorflow", "jax", "torch", "keras", "numpy", "cv2")
    code = f"import sys, cvlab; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
