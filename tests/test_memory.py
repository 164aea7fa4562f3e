"""What is remembered of a network is what it would give again: never another network's, nor another image's."""

import keras
import numpy as np
import pytest
from keras import layers

from cvlab import backend, classify
from cvlab.engine import memory


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "memory", memory.Memory())


def small(activation="relu", seed=0, filters=4):
    backend.set_seed(seed)
    pixels = keras.Input((8, 8, 3))
    return keras.Model(pixels, layers.Conv2D(filters, 3, activation=activation)(pixels))


def images(count=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), "uint8")


def looked_at(model):
    """Let a model note how many images it is asked about."""
    seen, predict = [], model.predict_on_batch
    model.predict_on_batch = lambda batch: (seen.append(len(batch)), predict(batch))[1]
    return seen


def test_an_image_that_was_seen_is_not_computed_again_and_gives_the_same():
    model = small()
    first, seen = classify.features(model, images()), looked_at(model)
    again = classify.features(model, images()[[4, 1]])
    np.testing.assert_array_equal(again, first[[4, 1]])
    more = classify.features(model, np.concatenate([images(), images(2, seed=1)]))
    assert seen == [2]
    np.testing.assert_allclose(more[6:], model.predict_on_batch(images(2, seed=1)), atol=1e-5)


def test_a_model_built_again_with_the_same_weights_is_the_same_model():
    assert memory.model_key(small()) == memory.model_key(small())


@pytest.mark.parametrize("other", [small(activation="tanh"), small(seed=1), small(filters=5)])
def test_another_activation_other_weights_or_other_layers_make_another_model(other):
    assert memory.model_key(other) != memory.model_key(small())


def test_after_a_training_step_or_an_exchanged_activation_all_is_computed_anew():
    model = small()
    before = classify.features(model, images())
    model.set_weights([2 * array for array in model.get_weights()])
    np.testing.assert_allclose(classify.features(model, images()), model.predict_on_batch(images()), atol=1e-3)
    model.layers[-1].activation = keras.activations.linear
    rebuilt = keras.Model(model.input, model.output)
    assert classify.features(rebuilt, images()).min() < 0 <= before.min()


def test_the_same_numbers_in_another_dtype_or_shape_are_another_image():
    pixels = keras.Input((None, None, 3))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(pixels))
    flat = np.arange(2 * 4 * 6 * 3, dtype="uint8").reshape(2, 4, 6, 3)
    classify.features(model, flat)
    tall = classify.features(model, flat.reshape(2, 6, 4, 3))
    np.testing.assert_allclose(tall, flat.reshape(2, 24, 3).mean(1), atol=1e-4)
    assert set(memory.image_keys(flat)).isdisjoint(memory.image_keys(flat.astype("float32")))


def test_what_does_not_say_all_of_itself_is_not_remembered():
    class Own(keras.Model):
        def call(self, x):
            return x[..., :1]

    assert memory.model_key(Own()) is None
    pixels = keras.Input((8, 8, 3))
    assert memory.model_key(keras.Model(pixels, layers.Lambda(lambda x: x + 1)(pixels))) is None


def test_the_oldest_goes_first_and_the_bytes_are_counted():
    kept = memory.Memory(limit=100)
    for name in "ab":
        kept.put(name, [np.zeros(5)])
    kept.get("a")
    kept.put("c", [np.zeros(5)])
    assert (kept.get("b"), kept.size) == (None, 80) and kept.get("a") is not None
    kept.put("large", [np.zeros(50)])
    assert kept.get("large") is None and kept.size == 80


def test_what_is_kept_changes_with_no_array_that_was_given_out():
    model = small()
    first = classify.features(model, images())
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(classify.features(model, images()), expected)


def test_other_statistics_make_another_model_and_a_layer_of_ones_own_is_not_remembered():
    pixels = keras.Input((8, 8, 3))
    normalize = layers.Normalization()
    model = keras.Model(pixels, normalize(pixels))
    normalize.set_weights([np.ones(3), 4 * np.ones(3), np.array(1)])
    before, computed_with = memory.model_key(model), keras.ops.convert_to_numpy(normalize.mean) + 0
    normalize.finalize_state()  # on PyTorch the layer's mean is a view of its weights, and follows them at once
    changed = bool((keras.ops.convert_to_numpy(normalize.mean) != computed_with).any())
    assert changed or keras.backend.backend() == "torch"
    assert before and (memory.model_key(model) != before) == changed

    class Scale(layers.Layer):
        def call(self, x):
            return x * self.factor

    scale = Scale()
    scale.factor = 2.0
    assert memory.model_key(keras.Model(pixels, scale(pixels))) is None
