"""Training on several devices: the same losses and weights as on one, on two virtual CPU devices."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cvlab import backend, learn

TRAIN = """
import json, os, sys
import numpy as np
if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from cvlab import backend, learn

generator = np.random.default_rng(0)
images = generator.normal(size=(24, 8, 8, 3)).astype("float32")
labels = generator.integers(0, 3, 24)

def train(devices, steps=10):
    backend.set_seed(1)
    inputs = keras.Input((8, 8, 3))
    frozen = keras.layers.Conv2D(4, 3, activation="relu", trainable=False)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, activation="relu")(frozen))
    model = keras.Model(inputs, {"class": keras.layers.Dense(3)(pooled)})
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(targets, logits):
        shares.add(targets.shape[0])
        return entropy(targets, logits)

    loss = {"class": loss}
    draw = learn.batches(images, {"class": labels})
    losses = learn.optimize(model, loss, draw, 24, steps, 0.01, 8, 3, devices=devices)
    return losses, [weights.ravel().tolist() for weights in model.get_weights()]

shares = set()  # lengths of the batches that a device sees, where it sees its own share alone
results = [train(1), train(2)]
with backend.on_devices(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), 2) as copy:
    value = copy.variables[0].value
    devices = len(value.sharding.device_set if backend.name() == "jax" else value.values)
print(json.dumps([*results, sorted(shares), devices]))
"""


def trained(name):
    pytest.importorskip("jax" if name == "jax" else "tensorflow")
    environment = {**os.environ, "KERAS_BACKEND": name, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.weekly
@pytest.mark.parametrize("name", ["tensorflow", "jax"])
def test_two_devices_give_the_loss_curve_and_the_weights_of_one(name):
    (losses, weights), (shared_losses, shared_weights), shares, devices = trained(name)
    assert devices == 2 and (name == "jax" or 8 // 2 in shares)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(shared_losses, losses, atol=1e-5)
    for one, two in zip(weights, shared_weights, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-4)


def test_more_devices_than_there_are_are_refused_with_their_number():
    model = type("Model", (), {})()
    with pytest.raises(ValueError, match="devices is 99, and .* has 1 "):
        learn.optimize(model, "mse", None, 4, 1, devices=99)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match="7 examples, which 2 devices can't share"):
        backend.train_on_batch(None, np.zeros((7, 2)), np.zeros(7), devices=2)


def test_the_number_of_devices_can_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CVLAB_DEVICES", "99")
    with pytest.raises(ValueError, match="devices is 99"):
        learn.optimize(type("Model", (), {})(), "mse", None, 4, 1)
