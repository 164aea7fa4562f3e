"""The one door to TensorFlow, JAX or PyTorch: seeds, gradients, compilation, devices.

Every other module speaks Keras 3 and NumPy. Which backend answers is Keras' own choice: the environment
variable `KERAS_BACKEND` (`tensorflow`, `jax` or `torch`), read when Keras is first imported.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


def name() -> str:
    """Name the active backend: `"tensorflow"`, `"jax"` or `"torch"`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    return keras.backend.backend()


def _module():
    active = name()
    if active == "tensorflow":
        import tensorflow as module

        logging.getLogger("tensorflow").addFilter(_is_no_retracing)
    elif active == "jax":
        import jax as module
    elif active == "torch":
        import torch as module
    else:
        raise RuntimeError(f"backend: Keras runs on {active!r}; set KERAS_BACKEND to tensorflow, jax or torch")
    return module


def _is_no_retracing(record):
    """Drop TensorFlow's warning that a function is retraced often, as it counts several functions as one."""
    return "triggered tf.function retracing" not in record.getMessage()


def set_seed(seed: int) -> None:
    """Seed Python, NumPy, Keras and the backend, so that a run can be repeated.

    Weights, dropout and the backend's generator start afresh. Functions of `keras.random` that are called without a
    seed do so from Keras 3.13 on.

    Args:
        seed: int, 0 ≤ seed < 2³².

    Raises:
        ValueError: for a seed outside that range.
    """
    if not 0 <= int(seed) < 2**32:
        raise ValueError(f"set_seed: seed is {seed!r}, expected an integer from 0 to 2**32 - 1")
    _module()
    import keras

    keras.utils.set_random_seed(int(seed))


def value_and_grad(fn: Callable) -> Callable:
    """Turn `fn(x, *rest) → scalar` into a function that returns the scalar and its gradient with respect to `x`.

    Args:
        fn: a function of tensors, written with `keras.ops`; its value must be a scalar.

    Returns:
        A function of the same arguments that returns `(value, gradient)`, both tensors; the gradient has the shape and
        dtype of `x`. Entries that `fn` does not depend on have gradient 0.
    """
    module, active = _module(), name()
    if active == "tensorflow":

        def wrapped(x, *rest):
            x = module.convert_to_tensor(x)
            with module.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                value = fn(x, *rest)
            return value, tape.gradient(value, x, unconnected_gradients="zero")

        return wrapped
    if active == "jax":

        def wrapped(x, *rest):
            return module.value_and_grad(fn)(module.numpy.asarray(x), *rest)

        return wrapped

    def wrapped(x, *rest):
        import keras

        x = keras.ops.convert_to_tensor(x).detach().clone().requires_grad_(True)
        with module.enable_grad():  # `jit` may have turned gradients off around this
            value = fn(x, *rest)
        if not value.requires_grad:
            return value, module.zeros_like(x)
        (gradient,) = module.autograd.grad(value, x, allow_unused=True)
        return value.detach(), module.zeros_like(x) if gradient is None else gradient

    return wrapped


def with_gradient(fn: Callable, gradient: Callable) -> Callable:
    """Define how TensorFlow computes the gradient of `fn(x)` with respect to `x`; other backends derive it themselves.

    Args:
        fn: a function of one tensor.
        gradient: function from the gradient with respect to the value of `fn` to that with respect to `x`; it must
            equal the true derivative.

    Returns:
        A function with the values of `fn`.
    """
    module = _module()
    return module.custom_gradient(lambda x: (fn(x), gradient)) if name() == "tensorflow" else fn


def jit(fn: Callable, xla: bool = False, reads: Sequence = ()) -> Callable:
    """Compile `fn`, which branches and loops on no tensor, for repeated calls with tensors of the same shapes.

    On TensorFlow this is a graph (`tf.function`), and XLA only where `xla=True`: on a CPU, XLA makes element-wise
    formulas several times faster and the gradients of depthwise convolutions several times slower. JAX always
    compiles with XLA. PyTorch runs eagerly, and records what a gradient needs only if an argument requires one, not for
    the weights that `fn` happens to read.

    Args:
        fn: a function of tensors, written with `keras.ops`; arrays among its arguments become tensors.
        xla: compile with XLA on TensorFlow too.
        reads: the Keras variables that `fn` reads. Each call then uses their current values; JAX would otherwise keep
            the values at the time of compilation.
    """
    module, active = _module(), name()
    if active == "tensorflow":
        return module.function(fn, jit_compile=xla, reduce_retracing=True, autograph=False)
    if active == "jax":
        import keras

        def with_values(values, *args):
            with keras.StatelessScope(state_mapping=list(zip(reads, values))):
                return fn(*args)

        compiled = module.jit(with_values if reads else fn)
        return (lambda *args: compiled([variable.value for variable in reads], *args)) if reads else compiled

    def eagerly(*args):
        import keras

        args = keras.tree.map_structure(keras.ops.convert_to_tensor, args)
        wanted = any(tensor.requires_grad for tensor in keras.tree.flatten(args))
        with module.set_grad_enabled(wanted and module.is_grad_enabled()):
            return fn(*args)

    return eagerly


def compiles() -> bool:
    """Whether `jit` makes a function faster: not on PyTorch, where it runs eagerly."""
    return name() != "torch"


def gains_by_winograd() -> bool:
    """Whether `convolution.winograd` is faster than the backend's own convolution: on TensorFlow's CPU alone."""
    return name() == "tensorflow" and device() == "CPU"


def clear_gradients(variables: Iterable) -> None:
    """Clear the gradients of the last training step, which variables keep on PyTorch.

    Keras' training step clears them too, but finds the variables by their path: of several with the same path, such as
    those of two parts with layers of the same name, it finds only one, and the gradients of the others accumulate.
    """
    if name() == "torch":
        for variable in variables:
            variable.value.grad = None


@contextlib.contextmanager
def on_devices(model: Any, devices: int) -> Iterator[Any]:
    """Give a copy of a model that is replicated on several devices, for data-parallel training; its weights come back.

    TensorFlow replicates it with `tf.distribute.MirroredStrategy`, JAX with `keras.distribution.DataParallel`. The copy
    is trained with `train_on_batch` within this context. With one device it is the model itself.

    Args:
        model: keras.Model that can be cloned.
        devices: how many GPUs, or CPU devices where there is no GPU.

    Raises:
        ValueError: there are fewer devices, or the backend is PyTorch.
    """
    if devices == 1:
        yield model
        return
    import keras

    with _distribution(devices):
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        yield copy
    model.set_weights(copy.get_weights())


def _distribution(devices):
    """Give the context in which models are replicated on so many devices."""
    module, active = _module(), name()
    if active == "tensorflow":
        listed = module.config.list_logical_devices("GPU") or module.config.list_logical_devices("CPU")
    else:
        listed = module.devices() if active == "jax" else [module]
    if not 1 <= devices <= len(listed):
        raise ValueError(f"on_devices: devices is {devices!r}, and {active} has {len(listed)} to share a training")
    if active == "tensorflow":
        return module.distribute.MirroredStrategy([each.name for each in listed[:devices]]).scope()
    import keras

    return keras.distribution.DataParallel(devices=listed[:devices]).scope()


def train_on_batch(model: Any, inputs: Any, targets: Any, devices: int = 1) -> Any:
    """Take one training step, and give its loss; with several devices, each takes an equal part of the batch.

    A loss that is a mean over the examples is the same on any number of devices. On TensorFlow, one that divides by
    something else of the batch, such as its number of objects, does so on each device for itself.

    Args:
        model: compiled; from `on_devices`, with the same `devices`.
        inputs, targets: arrays, or lists or dicts of arrays, whose length `devices` divides.
    """
    if devices > 1:
        import keras

        length = len(keras.tree.flatten(inputs)[0])
        if length % devices:
            raise ValueError(f"train_on_batch: the batch has {length} examples, which {devices} devices can't share")
        if name() == "tensorflow":
            strategy = model.distribute_strategy

            def share(array):
                parts = _module().split(array, devices)
                return strategy.experimental_distribute_values_from_function(
                    lambda context: parts[context.replica_id_in_sync_group]
                )

            model.make_train_function()
            shared = keras.tree.map_structure(share, (inputs, targets))
            return model.train_function(iter([shared]))["loss"].numpy()
    return model.train_on_batch(inputs, targets, return_dict=True)["loss"]


def device() -> str:
    """Describe where tensors live, e.g. `"GPU: NVIDIA A100"` or `"CPU"`."""
    module, active = _module(), name()
    if active == "tensorflow":
        gpus = module.config.list_physical_devices("GPU")
        names = [module.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    elif active == "jax":
        names = [d.device_kind for d in module.devices() if d.platform != "cpu"]
    else:
        names = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]
    return "GPU: " + ", ".join(names) if names else "CPU"


def versions() -> dict[str, str]:
    """Return the versions of Keras and of the active backend as a dict of strings."""
    module = _module()
    import keras

    return {"keras": keras.__version__, name(): module.__version__}
