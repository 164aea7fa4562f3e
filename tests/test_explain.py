"""Explanations: equal to independent ones, on any model, of the logit; and what can't be explained is refused."""

import functools
import gc
import itertools
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers, ops

from cvlab import backend, classify, explain, metrics

SIDE = (20, 28)  # height and width differ, so that a swap shows


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(0, 255, (3, *SIDE, 3)).astype(np.float32)


def small_cnn(end="softmax", seed=1, pooling=layers.GlobalAveragePooling2D, side=SIDE, conv="relu"):
    """Two convolutions, batch normalization with statistics that matter, pooling, dense."""
    backend.set_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((*side, 3)),
            layers.Rescaling(1 / 128, offset=-1),
            layers.Conv2D(6, 3, 2, "same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Activation(conv, name="active"),
            layers.Conv2D(8, 3, padding="same", activation=conv, name="second"),
            pooling(name="pool"),
            layers.Dropout(0.5),
            layers.Dense(4, activation=end, name="scores"),
        ]
    )
    return with_statistics(model)


@functools.cache
def shared():
    """Give one small network to all tests that leave it as it is: what is compiled for it serves them all."""
    return small_cnn()


def with_statistics(model, seed=2):
    """Give batch normalization what training would have given it, and normalization what adapting would have."""
    random = np.random.default_rng(seed)
    for layer in classify.all_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            parts = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 2)}
            for name, (low, high) in parts.items():
                if (variable := getattr(layer, name)) is not None:
                    variable.assign(random.uniform(low, high, shape))
        if isinstance(layer, layers.Normalization) and layer.input_mean is None:
            layer.adapt_mean.assign(random.uniform(0.3, 0.6, layer.adapt_mean.shape))
            layer.adapt_variance.assign(random.uniform(0.03, 0.1, layer.adapt_variance.shape))
            layer.finalize_state()
    return model


def numpy_of(tensor):
    return ops.convert_to_numpy(tensor)


def logits_by_hand(model, pictures):
    """Run a Sequential up to its last dense layer, and that one in NumPy."""
    inner = keras.Model(model.inputs[0], model.layers[-2].output)
    kernel, bias = model.layers[-1].get_weights()
    return numpy_of(inner(pictures, training=False)) @ kernel + bias


def enlarged(cells, size):
    """Enlarge (h, w) bilinearly to a size, pixel centres at halves, edges repeated: rows, then columns."""
    for axis, pixels in enumerate(size):
        count = cells.shape[axis]
        at = np.clip((np.arange(pixels) + 0.5) * count / pixels - 0.5, 0, count - 1)
        weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(count)))
        cells = np.moveaxis(np.tensordot(weights, cells, (1, axis)), 0, axis)
    return cells


def feature_maps(model, name, pictures):
    return numpy_of(keras.Model(model.inputs[0], model.get_layer(name).output)(pictures, training=False))


# CAM


@pytest.mark.house
def test_a_kernel_is_flipped_one_axis_at_a_time_as_keras_before_3_14_asks(monkeypatch, pictures):
    expected, flip, flipped = explain.saliency(small_cnn(), pictures), ops.flip, []

    def as_before(x, axis=None):
        assert isinstance(axis, int), f"ops.flip: axis={axis!r} needs a newer Keras"
        flipped.append(axis)
        return flip(x, axis)

    monkeypatch.setattr(ops, "flip", as_before)
    np.testing.assert_allclose(explain.saliency(small_cnn(), pictures), expected, atol=1e-6)
    assert flipped


def test_cam_is_the_weighted_sum_of_the_features_over_the_pooled_cells_enlarged_rectified_and_scaled(pictures):
    model = shared()
    features, classes = feature_maps(model, "second", pictures), [2, 0, 3]
    cells = (
        np.einsum("nhwc,cn->nhw", features, model.layers[-1].get_weights()[0][:, classes]) / features[0, ..., 0].size
    )
    expected = np.stack([enlarged(own, SIDE) for own in cells])
    np.testing.assert_allclose(explain.cam(model, pictures, classes, raw=True), expected, atol=1e-5)
    scaled = np.maximum(expected, 0) / expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explain.cam(model, pictures, classes), scaled, atol=1e-5)


def test_the_cells_of_a_raw_cam_sum_to_the_logit_without_its_bias(pictures):
    backend.set_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIDE, 3)),
            layers.Conv2D(5, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )
    model.layers[-1].bias.assign([5.0, -3.0, 1.0])
    total = explain.cam(model, pictures, 1, raw=True).sum(axis=(1, 2))  # as many cells as pixels: nothing is enlarged
    np.testing.assert_allclose(total - 3.0, logits_by_hand(model, pictures)[:, 1], rtol=1e-4)


@pytest.mark.contract
@pytest.mark.parametrize("build", ["sequential", "nested", "resnet", "pooled", "logits"])
def test_grad_cam_equals_cam_where_the_head_is_pooling_and_dense(build, pictures):
    models = {
        "sequential": shared,
        "logits": lambda: small_cnn(end=None),
        "nested": nested,
        "resnet": lambda: with_statistics(classify.resnet20(weights=None)),
        "pooled": lambda: classify.alexnet(weights=None),
    }
    backend.set_seed(3)
    model, images = models[build](), pictures
    if build == "pooled":
        images = np.random.default_rng(1).uniform(0, 255, (3, 96, 64, 3)).astype(np.float32)
    for raw in (False, True):
        one, other = (method(model, images, raw=raw) for method in (explain.cam, explain.grad_cam))
        assert one.shape == images.shape[:3]
        assert np.abs(one).max() > 1e-4
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(one).max()))


def nested(depth=2, activation="relu"):
    """A backbone called as a layer of a model that is itself called as one."""
    backend.set_seed(4)
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, 2, "same", use_bias=False, name="inner_conv")(pixels)
    x = layers.Activation(activation, name="inner_relu")(layers.BatchNormalization(name="inner_norm")(x))
    body = keras.Model(pixels, x, name="body")
    for level in range(depth - 1):
        outside = keras.Input((None, None, 3))
        body = keras.Model(
            outside, layers.Conv2D(6, 3, name=f"conv_{level}")(body(outside / 128 - 1)), name=f"wrapped_{level}"
        )
    outside = keras.Input((*SIDE, 3))
    x = layers.GlobalAveragePooling2D()(body(outside))
    return with_statistics(keras.Model(outside, layers.Dense(4, activation="softmax")(x), name="whole"))


@pytest.mark.house
def test_cam_wants_global_average_pooling_and_one_dense_layer(pictures):
    flat = small_cnn(pooling=layers.Flatten)
    largest = small_cnn(pooling=layers.GlobalMaxPooling2D)
    body = small_cnn()
    two = keras.Sequential([*body.layers[:-1], layers.Dense(5), layers.Dense(4, activation="softmax")])
    curved = keras.Sequential([*body.layers[:-1], layers.Dense(4, activation="relu"), layers.Softmax()])
    twice = keras.Sequential([*body.layers[:-1], layers.Dense(4, activation="softmax"), layers.Softmax()])
    for model in (flat, largest, two, curved, twice):
        with pytest.raises(ValueError, match="CAM needs global average pooling and one dense layer"):
            explain.cam(model, pictures)
        assert explain.grad_cam(model, pictures).shape == (3, *SIDE)


# Grad-CAM


def test_grad_cam_weighs_each_map_with_the_mean_of_its_gradient(pictures):
    model = small_cnn(pooling=layers.Flatten)
    features = feature_maps(model, "second", pictures)
    gradient = model.layers[-1].get_weights()[0][:, 2].reshape(features.shape[1:])  # of a dense layer: its weights
    cells = np.einsum("nhwc,c->nhw", features, gradient.mean(axis=(0, 1)))
    expected = np.stack([enlarged(own, SIDE) for own in cells])
    np.testing.assert_allclose(
        explain.grad_cam(model, pictures, 2, raw=True), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.contract
@pytest.mark.parametrize("build, layer", [("flat", "norm"), ("nested", "inner_norm"), ("joined", "norm")])
def test_grad_cam_of_an_early_layer_follows_every_way_from_it_to_the_logit(build, layer, pictures):
    backend.set_seed(5)
    if build == "joined":
        pixels = keras.Input((*SIDE, 3))
        x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, 2, "same")(pixels / 128 - 1))
        x = layers.Add()([layers.Conv2D(6, 3, padding="same", activation="softplus")(x), x])
        x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
        model = keras.Model(pixels, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    else:
        model = small_cnn(conv="softplus") if build == "flat" else nested(activation="softplus")
    with_statistics(model)
    inner = next(own for own in classify.all_layers(model) if own.name == layer)
    weights = []
    for channel in range(6):  # a shift of beta shifts the whole map: the logit changes by the sum of its gradient
        logits = []
        for sign in (1, -1):
            beta = numpy_of(inner.beta)
            inner.beta.assign(beta + sign * 0.02 * (np.arange(6) == channel))
            logits.append(explain.logits(model, pictures)[:, 1])
            inner.beta.assign(beta)
        weights.append((logits[0] - logits[1]) / 0.04)
    maps = explain.grad_cam(model, pictures, 1, layer=layer, raw=True)
    features = activations_of(model, inner, pictures)
    cells = np.einsum("nhwc,cn->nhw", features, weights) / features[0, ..., 0].size
    expected = np.stack([enlarged(own, SIDE) for own in cells])
    np.testing.assert_allclose(maps, expected, atol=2e-3 * np.abs(expected).max())


def activations_of(model, layer, pictures):
    """Record what a layer gives while the model runs, wherever in it the layer is."""
    seen, call = [], layer.call
    layer.call = lambda *args, **kwargs: seen.append(call(*args, **kwargs)) or seen[-1]
    try:
        model(pictures, training=False)
    finally:
        layer.call = call
    return numpy_of(seen[-1])


def test_grad_cam_on_a_relu_explains_what_the_relu_gives(pictures):
    model = nested(depth=1)
    on_relu = explain.grad_cam(model, pictures, 2, layer="inner_relu", raw=True)
    np.testing.assert_allclose(on_relu, explain.cam(model, pictures, 2, raw=True), atol=1e-6)
    assert np.abs(on_relu - explain.grad_cam(model, pictures, 2, layer="inner_norm", raw=True)).max() > 1e-3


def test_grad_cam_is_rectified_and_each_map_divided_by_its_own_maximum(pictures):
    raw = explain.grad_cam(shared(), pictures, 0, raw=True)
    assert raw.min() < 0 < raw.max(axis=(1, 2)).min()
    expected = np.maximum(raw, 0) / raw.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explain.grad_cam(shared(), pictures, 0), expected, atol=1e-6)


@pytest.mark.parametrize("layer", ["inner_conv", "body/inner_conv", "wrapped_0/body/inner_conv"])
def test_a_layer_of_a_nested_model_goes_by_its_name_or_its_path(layer, pictures):
    model = nested(depth=2 if layer.startswith("wrapped") else 1)
    assert explain.grad_cam(model, pictures, layer=layer).max() == 1


def test_a_nested_model_can_be_named_for_its_output(pictures):
    model = nested(depth=1)
    by_model, by_layer = (explain.grad_cam(model, pictures, layer=name) for name in ("body", "inner_relu"))
    np.testing.assert_array_equal(by_model, by_layer)


def test_a_layer_that_is_not_there_is_answered_with_those_that_are(pictures):
    with pytest.raises(
        ValueError, match="'conv9' is not in the model; .* are wrapped_0/body/inner_conv, wrapped_0/conv_0"
    ):
        explain.grad_cam(nested(depth=2), pictures, layer="conv9")
    with pytest.raises(ValueError, match=r"layer 'scores' gives \(None, 4\), expected feature maps"):
        explain.grad_cam(small_cnn(), pictures, layer="scores")


@pytest.mark.house
def test_a_name_that_two_layers_have_is_answered_with_their_paths(pictures):
    pixels = keras.Input((*SIDE, 3))
    halves = [
        keras.Sequential([keras.Input((*SIDE, 3)), layers.Conv2D(2, 3, name="conv")], name=n) for n in ("one", "two")
    ]
    x = layers.Add()([half(pixels) for half in halves])
    model = keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match="more than once, as one/conv, two/conv"):
        explain.grad_cam(model, pictures, layer="conv")
    assert explain.grad_cam(model, pictures, layer="two/conv").shape == (3, *SIDE)


@pytest.mark.house
def test_without_global_pooling_the_last_maps_are_those_before_the_last_pooling(pictures):
    backend.set_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIDE, 3)),
            layers.Conv2D(4, 3),
            layers.Conv2D(4, 3, name="last"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(5),
            layers.Dense(3),
        ]
    )
    found, named = (explain.grad_cam(model, pictures, layer=layer) for layer in (None, "relu"))
    np.testing.assert_array_equal(found, named)


@pytest.mark.house
def test_a_model_without_convolution_is_refused_by_what_needs_one(pictures):
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Flatten(), layers.Dense(3)])
    pooled = keras.Sequential([keras.Input((*SIDE, 3)), layers.GlobalAveragePooling2D(), layers.Dense(3)])
    for method, subject in itertools.product((explain.cam, explain.grad_cam), (model, pooled)):
        with pytest.raises(ValueError, match="no convolutional layer|CAM needs"):
            method(subject, pictures)
    assert explain.saliency(model, pictures).max() == 1
    assert explain.smooth_grad(pooled, pictures, samples=2).max() == 1


class Block(layers.Layer):
    """A convolution and its activation in one layer, as readers write them."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.inner = layers.Conv2D(filters, 3, padding="same")

    def build(self, shape):
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        return ops.relu(self.inner(x))


def pooled(*parts, classes=4):
    """Put global average pooling and a dense layer on some layers."""
    backend.set_seed(1)
    return keras.Sequential([keras.Input((*SIDE, 3)), *parts, layers.GlobalAveragePooling2D(), layers.Dense(classes)])


def test_a_block_that_holds_a_convolution_counts_as_one(pictures):
    model = pooled(Block(8), layers.MaxPooling2D(), Block(8, name="last"))
    found, named = (explain.grad_cam(model, pictures, 1, layer=layer) for layer in (None, "last"))
    np.testing.assert_array_equal(found, named)
    np.testing.assert_allclose(explain.cam(model, pictures, 1), found, atol=1e-5)


@pytest.mark.house
def test_a_layer_is_no_convolution_because_of_its_name(pictures):
    class ConvertColours(layers.Layer):
        def call(self, x):
            return x / 255

    with pytest.raises(ValueError, match="has no convolutional layer before its scores"):
        explain.grad_cam(pooled(ConvertColours()), pictures)


@pytest.mark.house
def test_convolutions_that_no_one_can_reach_are_refused_with_the_layers_name(pictures):
    class Whole(Block):
        def call(self, x):
            return ops.mean(self.inner(x), axis=(1, 2))

    backend.set_seed(0)
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Conv2D(4, 3, name="stem"), Whole(4, name="whole")])
    with pytest.raises(
        ValueError, match="layer 'whole', a Whole, holds convolutions whose feature maps can't be reach"
    ):
        explain.grad_cam(model, pictures)
    assert explain.grad_cam(model, pictures, layer="stem").shape == (3, *SIDE)


@pytest.mark.house
def test_a_class_derived_from_a_convolution_or_pooling_is_not_taken_for_one(pictures):
    class Rectified(layers.Conv2D):
        def call(self, x):
            return ops.relu(super().call(x))

    class CubePooling(layers.GlobalAveragePooling2D):
        def call(self, x):
            return ops.mean(x**3, axis=(1, 2))

    model = pooled(Rectified(4, 3, name="own"))
    with pytest.raises(ValueError, match="layer 'own', a Rectified with linear activation, has no way back"):
        explain.deconvnet(model, pictures, "own")
    backend.set_seed(0)
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Conv2D(4, 3), CubePooling(), layers.Dense(4)])
    with pytest.raises(ValueError, match="CAM needs global average pooling"):
        explain.cam(model, pictures)


def test_a_layer_whose_call_trains_by_default_is_run_as_in_inference(pictures):
    class Trains(layers.Layer):
        def call(self, x, training=True):
            return 0 * x if training else x

    plain, model = pooled(layers.Conv2D(4, 3)), pooled(Trains(), layers.Conv2D(4, 3))
    model.set_weights(plain.get_weights())
    np.testing.assert_allclose(explain.saliency(model, pictures, 1), explain.saliency(plain, pictures, 1), atol=1e-6)


def test_what_a_block_adapts_to_after_it_was_explained_counts(pictures):
    class Normalized(Block):
        def __init__(self, filters, **options):
            super().__init__(filters, **options)
            self.normalize = layers.Normalization()

        def build(self, shape):
            self.normalize.build(shape)
            super().build(shape)

        def call(self, x):
            return super().call(self.normalize(x))

    model = pooled(Normalized(4, name="block"))
    explain.logits(model, pictures)
    model.get_layer("block").normalize.adapt(pictures)
    np.testing.assert_allclose(explain.logits(model, pictures), numpy_of(model(pictures, training=False)), atol=1e-4)


# Saliency and SmoothGrad


@pytest.mark.contract
def test_saliency_is_the_central_difference_of_the_logit(pictures):
    small = pictures[:2, :8, :6]
    model = small_cnn(side=(8, 6), conv="softplus")
    slope = np.empty_like(small)
    for row, picture in enumerate(small):
        steps = 8 * np.eye(picture.size, dtype=np.float32).reshape(-1, *picture.shape)
        up, down = (logits_by_hand(model, picture + sign * steps)[:, 3] for sign in (1, -1))
        slope[row] = ((up - down) / 16).reshape(picture.shape)
    raw, total = explain.saliency(model, small, 3, raw=True), np.abs(slope).sum(-1)
    np.testing.assert_allclose(raw, slope, atol=1e-3 * np.abs(slope).max())
    expected = total / total.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(explain.saliency(model, small, 3), expected, atol=1e-3)


@pytest.mark.contract
def test_smooth_grad_is_the_mean_gradient_of_noisy_copies(pictures):
    model = shared()
    noise = np.random.default_rng(7).standard_normal((6, *SIDE, 3), np.float32)
    ranges = np.ptp(pictures, axis=(1, 2, 3))[:, None, None, None]
    expected = np.mean([explain.saliency(model, pictures + 0.2 * ranges * one, 1, raw=True) for one in noise], axis=0)
    for batch_size in (1, 3, 7, 64):  # a copy, all pictures, two copies or all copies at a time
        raw = explain.smooth_grad(model, pictures, 1, samples=6, noise=0.2, seed=7, batch_size=batch_size, raw=True)
        np.testing.assert_allclose(raw, expected, atol=1e-5 * np.abs(expected).max())
    total = np.abs(expected).sum(-1)
    maps = explain.smooth_grad(model, pictures, 1, samples=6, noise=0.2, seed=7)
    np.testing.assert_allclose(maps, total / total.max(axis=(1, 2), keepdims=True), atol=1e-5)


def test_smooth_grad_without_noise_is_saliency_and_with_it_follows_the_seed(pictures):
    model = shared()
    calm = explain.smooth_grad(model, pictures, samples=3, noise=0)
    np.testing.assert_allclose(calm, explain.saliency(model, pictures), atol=1e-5)
    first, again, other = (explain.smooth_grad(model, pictures, samples=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_smooth_grad_explains_the_class_of_the_picture_without_noise(pictures):
    model = shared()
    predicted = logits_by_hand(model, pictures).argmax(-1)
    named, found = (explain.smooth_grad(model, pictures, classes, samples=4, noise=2) for classes in (predicted, None))
    np.testing.assert_array_equal(named, found)


# Integrated gradients, occlusion and Grad-CAM++


@pytest.mark.contract
@pytest.mark.parametrize("baseline", [0, "mean", "blur"])
def test_integrated_gradients_sum_to_what_the_logit_gains_from_the_baseline(baseline, pictures):
    model = small_cnn()
    start = metrics.baseline_images(pictures, baseline, "test")
    gained = logits_by_hand(model, pictures)[:, 1] - logits_by_hand(model, start)[:, 1]
    shares = explain.integrated_gradients(model, pictures, 1, steps=128, baseline=baseline, raw=True)
    np.testing.assert_allclose(shares.sum(axis=(1, 2, 3)), gained, atol=0.01 * np.abs(gained).max())


@pytest.mark.contract
def test_integrated_gradients_are_the_mean_gradient_on_the_way_times_the_way(pictures):
    model, middles = shared(), (np.arange(6) + 0.5) / 6
    slopes = [explain.saliency(model, 50 + middle * (pictures - 50), 2, raw=True) for middle in middles]
    expected = np.mean(slopes, axis=0) * (pictures - 50)
    for batch_size in (1, 4, 7, 64):  # a picture, some points of the way, or all of them at a time
        shares = explain.integrated_gradients(model, pictures, 2, 6, 50, batch_size=batch_size, raw=True)
        np.testing.assert_allclose(shares, expected, atol=1e-5 * np.abs(expected).max())


def test_integrated_gradients_of_a_linear_model_are_its_terms(pictures):
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Flatten(), layers.Dense(2)])
    terms = pictures * model.layers[-1].get_weights()[0][:, 1].reshape(pictures.shape[1:])
    shares = explain.integrated_gradients(model, pictures, 1, steps=1, raw=True)
    np.testing.assert_allclose(shares, terms, atol=1e-5 * np.abs(terms).max())


@pytest.mark.contract
@pytest.mark.parametrize(("window", "stride"), [(8, 4), (7, 5), (20, 20)])
def test_occlusion_equals_a_plain_loop(window, stride, pictures):
    model = shared()
    score = logits_by_hand(model, pictures)[:, 2]
    total, count = np.zeros((2, *pictures.shape[:3]))
    for y in [*range(0, SIDE[0] - window, stride), SIDE[0] - window]:
        for x in [*range(0, SIDE[1] - window, stride), SIDE[1] - window]:
            hidden, place = pictures.copy(), np.s_[:, y : y + window, x : x + window]
            hidden[place] = pictures.mean(axis=(1, 2))[:, None, None]
            total[place] += (score - logits_by_hand(model, hidden)[:, 2])[:, None, None]
            count[place] += 1
    maps = explain.occlusion(model, pictures, 2, window, stride, raw=True)
    np.testing.assert_allclose(maps, total / count, atol=1e-4 * np.abs(total / count).max())


@pytest.mark.contract
def test_occlusion_of_one_output_falls_for_one_class_where_it_rises_for_the_other(pictures):
    model = pooled(layers.Conv2D(4, 3, activation="relu"), classes=1)
    for_one, for_other = (explain.occlusion(model, pictures, k, 8, 8, raw=True) for k in (0, 1))
    np.testing.assert_allclose(for_one, -for_other, atol=1e-5)
    assert np.abs(for_one).max() > 1e-3


@pytest.mark.contract
@pytest.mark.parametrize(("cells", "keep", "baseline"), [(7, 0.5, "mean"), (3, 0.2, 0), (20, 0.9, "blur")])
def test_rise_equals_a_plain_loop_over_masks(cells, keep, baseline, pictures):
    model, random, hidden = shared(), np.random.default_rng(5), metrics.baseline_images(pictures, baseline, "test")
    scores, masks = [], []
    height, width = -(-SIDE[0] // cells), -(-SIDE[1] // cells)
    for _ in range(12):
        grid = np.float32(random.random((cells, cells)) < keep)
        large = enlarged(grid, ((cells + 1) * height, (cells + 1) * width))
        y, x = random.integers(height), random.integers(width)
        mask = large[y : y + SIDE[0], x : x + SIDE[1]]
        masks.append(mask)
        mixed = mask[..., None] * pictures + (1 - mask[..., None]) * hidden
        scores.append(logits_by_hand(model, mixed.astype(np.float32))[:, 2])
    above = np.array(scores) - np.mean(scores, axis=0)
    expected = np.einsum("mn,mhw->nhw", above, masks) / (12 * keep)
    maps = explain.rise(model, pictures, 2, 12, cells, keep, baseline, seed=5, raw=True)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.contract
def test_rise_finds_the_one_place_that_a_model_looks_at():
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.Flatten(), layers.Dense(2)])
    kernel = np.zeros((*SIDE, 3, 2), np.float32)
    kernel[4:8, 20:24, :, 0] = 1
    model.layers[-1].set_weights([kernel.reshape(-1, 2), np.zeros(2, np.float32)])
    image = np.zeros((*SIDE, 3), np.float32)
    image[4:8, 20:24] = 255
    y, x = np.unravel_index(explain.rise(model, image, 0, masks=200).argmax(), SIDE)
    assert 3 <= y <= 8 and 19 <= x <= 24


def test_rise_is_seeded_and_its_seeds_differ(pictures):
    first, again, other = (explain.rise(shared(), pictures, 1, masks=8, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@pytest.mark.contract
def test_grad_cam_plus_plus_has_the_weights_of_its_formula(pictures):
    model = small_cnn(pooling=layers.Flatten)  # the gradient differs from cell to cell
    features = feature_maps(model, "second", pictures)  # A
    gradient = model.layers[-1].get_weights()[0][:, 2].reshape(features.shape[1:])
    score = logits_by_hand(model, pictures)[:, 2]
    factor = np.exp(score - score.max()).reshape(-1, 1, 1, 1)  # Y = exp(S), up to a constant
    first, second, third = (factor * gradient**power for power in (1, 2, 3))  # derivatives of Y
    alpha = second / (2 * second + features.sum(axis=(1, 2), keepdims=True) * third)  # eq. 19
    weights = (alpha * np.maximum(first, 0)).sum(axis=(1, 2))  # eq. 5
    expected = np.stack([enlarged(own, SIDE) for own in np.einsum("nhwc,nc->nhw", features, weights)])
    raw = explain.grad_cam_plus_plus(model, pictures, 2, layer="second", raw=True)
    np.testing.assert_allclose(raw * factor[..., 0], expected, atol=1e-4 * np.abs(expected).max())


def test_steps_windows_and_baselines_that_make_no_sense_are_named(pictures):
    with pytest.raises(ValueError, match="steps=0, expected an integer from 1 on"):
        explain.integrated_gradients(shared(), pictures, steps=0)
    for options in ({"window": 21}, {"window": 0, "stride": 0}, {"window": 4, "stride": 5}, {"stride": 1.5}):
        with pytest.raises(
            ValueError, match=r"window=.* and stride=.*, expected integers with 1 ≤ stride ≤ window ≤ 20"
        ):
            explain.occlusion(shared(), pictures, **options)
    for options in ({"masks": 0}, {"masks": 1.5}, {"cells": 0}, {"cells": 21}, {"keep": 0}, {"keep": 1}):
        with pytest.raises(ValueError, match=r"rise: masks=.*, cells=.* and keep=.*, expected an integer from 1 on"):
            explain.rise(shared(), pictures, **options)
    for method in (explain.integrated_gradients, explain.occlusion, explain.rise):
        with pytest.raises(ValueError, match="baseline='grey', expected 'mean', 'blur', a number or images"):
            method(shared(), pictures, baseline="grey")


# What all methods have in common

METHODS = {
    "cam": explain.cam,
    "grad_cam": explain.grad_cam,
    "grad_cam_plus_plus": explain.grad_cam_plus_plus,
    "saliency": explain.saliency,
    "smooth_grad": lambda *args, **options: explain.smooth_grad(*args, samples=3, **options),
    "integrated_gradients": lambda *args, **options: explain.integrated_gradients(*args, steps=3, **options),
    "occlusion": lambda *args, **options: explain.occlusion(*args, window=6, stride=5, **options),
    "rise": lambda *args, **options: explain.rise(*args, masks=6, cells=4, **options),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def test_maps_are_float32_from_0_to_1_of_the_pictures_size(method, pictures):
    maps = method(shared(), pictures)
    assert maps.dtype == np.float32
    assert maps.shape == (3, *SIDE)
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, rtol=1e-6)


@pytest.mark.house
def test_one_picture_a_batch_and_several_batches_give_the_same(method, pictures):
    model = shared()
    together = method(model, pictures)
    np.testing.assert_allclose(method(model, pictures, batch_size=2), together, atol=1e-5)
    np.testing.assert_allclose(method(model, pictures[1]), together[1], atol=1e-5)
    np.testing.assert_array_equal(method(model, pictures.astype(np.uint8)), method(model, np.floor(pictures)))


def test_classes_are_those_named_or_those_predicted(method, pictures):
    model = shared()
    predicted = logits_by_hand(model, pictures).argmax(-1)
    np.testing.assert_allclose(method(model, pictures), method(model, pictures, predicted), atol=1e-6)
    apart = np.stack([method(model, picture, int(own)) for picture, own in zip(pictures, [3, 0, 2])])
    np.testing.assert_allclose(method(model, pictures, [3, 0, 2]), apart, atol=1e-5)
    assert np.abs(method(model, pictures, 3) - method(model, pictures, 0)).max() > 0.1


ENDS = {
    "softmax of the dense layer": lambda x: layers.Dense(4, activation="softmax", name="scores")(x),
    "sigmoid of the dense layer": lambda x: layers.Dense(4, activation="sigmoid", name="scores")(x),
    "layer Activation": lambda x: layers.Activation("softmax")(layers.Dense(4, name="scores")(x)),
    "layer Softmax": lambda x: layers.Softmax()(layers.Dense(4, name="scores")(x)),
    "operation": lambda x: ops.softmax(layers.Dense(4, name="scores")(x)),
    "sigmoid, then more that changes nothing": lambda x: layers.Activation("linear", dtype="float32")(
        layers.Dropout(0.1)(ops.sigmoid(layers.Dense(4, name="scores")(x)))
    ),
    "log of softmax": lambda x: layers.Activation("log_softmax")(layers.Dense(4, name="scores")(x)),
    "model of its own": lambda x: keras.Sequential(
        [keras.Input(x.shape[1:]), layers.Dense(4, name="scores"), layers.Softmax()]
    )(x),
}


@pytest.mark.house
@pytest.mark.parametrize("end", ENDS)
def test_the_logit_is_explained_whatever_squashes_it(end, pictures):
    reference = small_cnn(end=None)
    body = keras.Model(reference.inputs[0], reference.layers[-2].output)
    model = keras.Model(body.inputs[0], ENDS[end](body.output))
    scores = next(own for own in classify.all_layers(model) if own.name == "scores")
    scores.set_weights([10 * w for w in reference.layers[-1].get_weights()])  # saturated: probabilities have no slope
    reference.layers[-1].set_weights(scores.get_weights())
    np.testing.assert_allclose(
        explain.logits(model, pictures), logits_by_hand(reference, pictures), rtol=1e-4, atol=1e-3
    )
    for method in (explain.cam, explain.saliency):
        np.testing.assert_allclose(method(model, pictures, 1), method(reference, pictures, 1), atol=1e-5)


@pytest.mark.contract
def test_probabilities_are_the_models_own_or_softmax_of_its_logits(pictures):
    for end in ("softmax", "sigmoid"):
        expected = numpy_of(small_cnn(end)(pictures, training=False))
        np.testing.assert_allclose(explain.probabilities(small_cnn(end), pictures), expected, atol=1e-5)
    expected = numpy_of(small_cnn("softmax")(pictures, training=False))
    np.testing.assert_allclose(explain.probabilities(small_cnn(None), pictures), expected, atol=1e-5)


class OwnSoftmax(layers.Layer):
    def call(self, x):
        return ops.softmax(x)


class Head(layers.Layer):
    """A dense layer and a function of its values, in one layer."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.dense, self.function = layers.Dense(4), function

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.function(self.dense(x))


def stable_softmax(x):
    powers = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return powers / ops.sum(powers, axis=-1, keepdims=True)


def by_name(function, name):
    function.__name__ = name
    return function


SEEN = {  # functions that are a softmax or sigmoid, whatever they are called
    "lambda": lambda x: layers.Dense(4, activation=lambda x: ops.softmax(x), name="scores")(x),
    "written out": lambda x: layers.Dense(4, activation=stable_softmax, name="scores")(x),
    "activation layer with a lambda": lambda x: layers.Activation(lambda x: ops.softmax(x))(dense(x)),
    "lambda layer": lambda x: layers.Lambda(lambda x: ops.softmax(x))(dense(x)),
    "layer of the reader's own": lambda x: OwnSoftmax()(dense(x)),
    "lambda layer behind it that changes nothing": lambda x: layers.Lambda(lambda x: x)(layers.Softmax()(dense(x))),
    "sigmoid": lambda x: layers.Dense(4, activation=lambda x: 1 / (1 + ops.exp(-x)), name="scores")(x),
    "log-sigmoid": lambda x: layers.Dense(4, activation="log_sigmoid", name="scores")(x),
    "log-softmax": lambda x: layers.Dense(4, activation=lambda x: ops.log_softmax(x), name="scores")(x),
}
HIDDEN = {  # probabilities whose logits can't be reached
    "softmax in a head": lambda x: Head(ops.softmax, name="end")(x),
    "sigmoid in a head": lambda x: Head(ops.sigmoid, name="end")(x),
    "temperature": lambda x: layers.Dense(4, activation=lambda x: ops.softmax(x / 2), name="end")(x),
    "hard sigmoid": lambda x: layers.Dense(4, activation="hard_sigmoid", name="end")(x),
    "operations": lambda x: ops.divide(ops.exp(x[:, :4]), ops.sum(ops.exp(x[:, :4]), axis=-1, keepdims=True)),
    "mean of two": lambda x: layers.Average(name="end")([layers.Dense(4, "softmax")(x), layers.Dense(4, "softmax")(x)]),
    "clipped": lambda x: ops.clip(layers.Dense(4, "softmax")(x), 1e-7, 1 - 1e-7),
    "p and 1 - p": lambda x: layers.Concatenate(name="end")([p := layers.Dense(1, "sigmoid")(x), 1 - p]),
    "1 - p": lambda x: 1 - layers.Dense(1, "sigmoid")(x),
}
NEITHER = {  # functions that are called like a softmax but are none, and scores without one
    "named softmax": lambda x: layers.Dense(4, activation=by_name(lambda x: 2 * x, "softmax"), name="scores")(x),
    "class named Softmax": lambda x: type("Softmax", (layers.Layer,), {"call": lambda self, x: 3 * x})()(dense(x)),
    "linear head": lambda x: Head(lambda x: x)(x),
    "sum": lambda x: layers.Add()([dense(x), layers.Dense(4)(x)]),
    "tanh": lambda x: layers.Dense(4, activation="tanh")(x),
    "relu": lambda x: layers.Dense(4, activation="relu")(x),
}


def dense(x):
    return layers.Dense(4, name="scores")(x)


def ending(end):
    """Put an end on two convolutions and pooling."""
    reference = small_cnn(end=None)
    model = keras.Model(reference.inputs[0], end(reference.layers[-2].output))
    return reference, model


@pytest.mark.house
@pytest.mark.parametrize("end", SEEN)
def test_a_softmax_is_known_by_what_it_does(end, pictures):
    reference, model = ending(SEEN[end])
    model.get_layer("scores").set_weights([3 * w for w in reference.layers[-1].get_weights()])
    reference.layers[-1].set_weights(model.get_layer("scores").get_weights())
    expected = numpy_of(model(pictures, training=False))
    expected = np.exp(expected) if end.startswith("log-") else expected
    np.testing.assert_allclose(explain.probabilities(model, pictures), expected, atol=1e-5)
    np.testing.assert_allclose(explain.logits(model, pictures), explain.logits(reference, pictures), atol=1e-4)
    for method in METHODS.values():
        np.testing.assert_allclose(method(model, pictures, 1), method(reference, pictures, 1), atol=1e-5)


@pytest.mark.house
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_softmax_of_half_precision_is_seen(precision, pictures):
    for end in (layers.Softmax, OwnSoftmax, lambda dtype: layers.Activation("softmax", dtype=dtype)):
        _, model = ending(lambda x, end=end: end(dtype=precision)(dense(x)))
        expected = numpy_of(ops.cast(model(pictures, training=False), "float32"))
        np.testing.assert_allclose(explain.probabilities(model, pictures), expected, atol=1e-2)
        assert explain.cam(model, pictures).max() == 1


@pytest.mark.house
@pytest.mark.parametrize("end", HIDDEN)
def test_probabilities_without_a_logit_are_given_as_they_are_and_not_explained(end, pictures):
    _, model = ending(HIDDEN[end])
    expected = numpy_of(model(pictures, training=False))
    np.testing.assert_allclose(explain.probabilities(model, pictures), expected, atol=1e-6)
    for method in (*METHODS.values(), explain.logits):
        with pytest.raises(ValueError, match=r"layer '\w+', a \w+ at the end of .* gives probabilities itself"):
            method(model, pictures)


@pytest.mark.house
@pytest.mark.parametrize("end", NEITHER)
def test_scores_are_not_taken_for_probabilities_because_of_a_name(end, pictures):
    _, model = ending(NEITHER[end])
    scores = numpy_of(model(pictures, training=False))
    np.testing.assert_allclose(explain.logits(model, pictures), scores, atol=1e-4)
    np.testing.assert_allclose(explain.probabilities(model, pictures), numpy_of(ops.softmax(scores)), atol=1e-5)
    # Compiled: TensorFlow then leaves out the kernels' gradients, in which its CPU code has been seen to crash.
    slope = backend.jit(backend.value_and_grad(lambda x: ops.sum(model(x, training=False)[:, 1])))
    _, expected = slope(pictures)
    found, expected = explain.saliency(model, pictures, 1, raw=True), numpy_of(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.house
def test_an_activation_named_linear_or_relu_is_known_by_what_it_does(pictures):
    for name, function in (("linear", ops.tanh), ("relu", ops.leaky_relu)):
        backend.set_seed(0)
        own = by_name(lambda x, function=function: function(x), name)
        model = with_statistics(pooled(layers.Conv2D(4, 3, activation=own, name="own"), layers.BatchNormalization()))
        expected = numpy_of(model(pictures, training=False))
        np.testing.assert_allclose(explain.logits(model, pictures), expected, atol=1e-4)  # nothing is folded
        with pytest.raises(ValueError, match=f"'own', a Conv2D with another {name} activation, has no way back"):
            explain.deconvnet(model, pictures, "own")


@pytest.mark.skipif(backend.name() != "tensorflow", reason="a function of TensorFlow's")
def test_tensorflows_own_softmax_and_sigmoid_are_seen(method, pictures):
    import tensorflow

    for name, function in (("softmax", tensorflow.nn.softmax), ("sigmoid", tensorflow.nn.sigmoid)):
        one, other = small_cnn(name), small_cnn(function)
        expected = numpy_of(one(pictures, training=False))
        np.testing.assert_allclose(explain.probabilities(other, pictures), expected, atol=1e-5)
        np.testing.assert_allclose(method(other, pictures), method(one, pictures), atol=1e-6)


# One output, two classes


SINGLE = {
    "sigmoid": "sigmoid",
    "lambda": lambda x: ops.sigmoid(x),
    "logit": None,
}


def one_output(end, bias):
    """Two convolutions, pooling, and one output for a class or against it."""
    model = small_cnn(end=end)
    model = keras.Sequential([keras.Input((*SIDE, 3)), *model.layers[:-1], layers.Dense(1, end, name="score")])
    model.get_layer("score").bias.assign([bias])
    return model


@pytest.mark.contract
@pytest.mark.parametrize("end", SINGLE)
def test_of_one_output_the_more_probable_class_is_explained(end, method, pictures):
    for bias, predicted in ((20, 0), (-20, 1)):
        model = one_output(SINGLE[end], bias)
        np.testing.assert_array_equal(explain.predicted_classes(model, pictures), predicted)
        found, *both = (method(model, pictures, classes, raw=True) for classes in (None, 0, 1))
        np.testing.assert_array_equal(found, both[predicted])
        if method is not explain.grad_cam_plus_plus:  # which takes positive gradients alone
            np.testing.assert_allclose(both[0], -both[1], atol=1e-6 * np.abs(found).max())
        assert np.abs(found).max() > 0
        with pytest.raises(ValueError, match="classes is 2, expected None, an int or 3 ints, from 0 to 1"):
            method(model, pictures, 2)
    mixed = method(model, pictures, [0, 1, 0], raw=True)
    np.testing.assert_array_equal(mixed, np.stack([both[0][0], both[1][1], both[0][2]]))


def test_the_probability_of_one_output_is_that_of_class_0(pictures):
    for end in SINGLE:
        model, reference = one_output(SINGLE[end], -1), one_output("sigmoid", -1)
        reference.set_weights(model.get_weights())
        expected = numpy_of(reference(pictures, training=False))
        np.testing.assert_allclose(explain.probabilities(model, pictures), expected, atol=1e-5)


def test_predicted_classes_are_the_most_probable_ones(pictures):
    for end in ("softmax", "sigmoid", None):
        model = small_cnn(end)
        expected = numpy_of(model(pictures, training=False)).argmax(-1)
        np.testing.assert_array_equal(explain.predicted_classes(model, pictures), expected)
    _, model = ending(HIDDEN["1 - p"])
    expected = (numpy_of(model(pictures, training=False))[:, 0] < 0.5).astype(int)
    np.testing.assert_array_equal(explain.predicted_classes(model, pictures), expected)


# NaN and infinite numbers


EVERY = METHODS | {
    "logits": explain.logits,
    "probabilities": explain.probabilities,
    "predicted_classes": explain.predicted_classes,
    "deconvnet": lambda model, images: explain.deconvnet(model, images, "second"),
    "strongest": lambda model, images: explain.strongest(model, images, "second", 0),
}


@pytest.mark.house
@pytest.mark.parametrize("name", EVERY)
def test_nan_in_an_image_is_told(name, pictures):
    for value, called in ((np.nan, "NaN"), (np.inf, "inf")):
        images = pictures.copy()
        images[1, 2, 3, 0] = value
        with pytest.raises(ValueError, match=rf"{name}: images hold {called} \(image 1\); expected finite numbers"):
            EVERY[name](shared(), images)


@pytest.mark.house
@pytest.mark.parametrize("name", EVERY)
def test_nan_in_a_weight_is_told_also_where_a_relu_hides_it(name, pictures):
    for value, called in ((np.nan, "NaN"), (np.inf, "inf")):
        model = small_cnn()
        first = model.get_layer("first")
        kernel, bias = first.get_weights()
        kernel[0, 0, 0, 0] = value
        first.set_weights([kernel, bias])
        with pytest.raises(ValueError, match=f"{name}: layer 'first' of .* holds {called} in its weight 'kernel'"):
            EVERY[name](model, pictures)


@pytest.mark.house
def test_nan_that_comes_into_a_weight_later_is_told(method, pictures):
    for layer in ("first", "scores"):
        model = small_cnn()
        method(model, pictures)
        own = model.get_layer(layer)
        own.set_weights([w * np.nan for w in own.get_weights()])
        with pytest.raises(ValueError, match=f"layer '{layer}' of .* holds NaN in its weight 'kernel'"):
            method(model, pictures)


@pytest.mark.house
def test_nan_that_a_layer_makes_is_told(pictures):
    class Own(layers.Layer):
        def call(self, x):
            return function(x)

    function = ops.log  # of negative numbers
    model = pooled(layers.Conv2D(4, 3), Own())
    for name in ("cam", "grad_cam", "saliency", "logits", "probabilities"):
        with pytest.raises(
            ValueError, match=f"{name}: logits of .* hold NaN for image 0, though images and weights are"
        ):
            EVERY[name](model, pictures)
    function = lambda x: ops.sqrt(ops.relu(x))  # noqa: E731 - its slope at 0 is infinite
    model = pooled(layers.Conv2D(4, 3), Own())
    assert np.isfinite(explain.logits(model, pictures)).all()
    with pytest.raises(ValueError, match="saliency: gradients of .* hold NaN"):
        explain.saliency(model, pictures)


# Known networks, against plain gradients

APPLICATIONS = {  # and their sides in pixels
    "ConvNeXtTiny": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "InceptionResNetV2": 80,
    "InceptionV3": 80,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "NASNetMobile": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "VGG16": 64,
    "Xception": 75,
}
SMOOTH = ("ConvNeXtTiny",)  # its GELU has a gradient everywhere, and in float64 its convolutions take minutes
QUICK = ("DenseNet121", "MobileNet", "MobileNetV3Small", "VGG16")


def by_gradient_tape(model, pictures, classes):
    """Give saliency and the cells of Grad-CAM by TensorFlow alone, from what the model is without its softmax."""
    import tensorflow as tf

    pools = [layer for layer in model.layers if isinstance(layer, layers.GlobalAveragePooling2D)]
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    maps = pools[-1].input if pools else convolutions[-1].output
    end = model.layers[-1]
    softmax, end.activation = end.activation, keras.activations.linear
    x = tf.convert_to_tensor(pictures)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        features, logits = keras.Model(model.inputs[0], [maps, model.outputs[0]])(x, training=False)
        score = tf.reduce_sum(tf.gather(logits, classes, axis=1, batch_dims=1))
    slope, weights = tape.gradient(score, x).numpy(), tape.gradient(score, features).numpy().mean(axis=(1, 2))
    end.activation = softmax
    return slope, np.einsum("nhwc,nc->nhw", features.numpy(), weights)


def double_precision(build):
    """Build a model that computes in float64.

    In float32, rounding decides on which side of 0 some units fall, in DenseNet121 and Xception above all, and whether
    a ReLU passes their gradient on. It depends on the number of threads, so two computations of the same gradient may
    differ by 1e-3.
    """
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        return build()
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


@pytest.mark.house
@pytest.mark.skipif(backend.name() != "tensorflow", reason="against TensorFlow's own gradients")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.weekly) for name in APPLICATIONS]
)
def test_saliency_and_grad_cam_are_those_of_a_gradient_tape(name):
    began, side = time.perf_counter(), APPLICATIONS[name]
    backend.set_seed(0)

    def build():
        return getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=5)

    model = with_statistics(build() if name in SMOOTH else double_precision(build))
    images = np.random.default_rng(2).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    if any(isinstance(layer, (layers.Rescaling, layers.Normalization)) for layer in model.layers):
        images = 127.5 * (images + 1)
    classes = np.array([3, 1], np.int32)
    slope, cells = by_gradient_tape(model, images, classes)
    errors = {}
    for method, expected in (
        ("saliency", slope),
        ("grad_cam", np.stack([enlarged(own, (side, side)) for own in cells])),
    ):
        found = METHODS[method](model, images, classes, raw=True)
        assert np.abs(expected).max() > 0
        errors[method] = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{name}: {time.perf_counter() - began:.0f} s", *(f"{key} {error:.1e}" for key, error in errors.items()))
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.contract
def test_an_explanation_follows_the_weights(method, pictures):
    model = small_cnn()
    before = method(model, pictures, 1, raw=True)
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    for layer in model.layers:
        layer.trainable = True
    for _ in range(3):
        model.train_on_batch(pictures, np.array([0, 1, 2]))
    after = method(model, pictures, 1, raw=True)
    assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    twin = small_cnn()  # never explained before
    twin.set_weights(model.get_weights())
    again = method(twin, pictures, 1, raw=True)
    np.testing.assert_allclose(after, again, atol=1e-5 * max(1, np.abs(after).max()))


def test_an_explanation_follows_an_activation_that_is_exchanged(pictures):
    model = small_cnn()
    before = explain.saliency(model, pictures)
    model.get_layer("second").activation = keras.activations.softplus
    after = explain.saliency(model, pictures)
    assert np.abs(after - before).max() > 0.01
    model.get_layer("second").activation = keras.activations.relu
    np.testing.assert_allclose(explain.saliency(model, pictures), before, atol=1e-6)


@pytest.mark.house
def test_nothing_is_kept_of_a_model_that_is_gone(pictures):
    for build in (small_cnn, nested):
        model = build()
        for method in (explain.grad_cam, explain.saliency):
            method(model, pictures)
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None


def symbolic_tensors():
    gc.collect()
    return [tensor for tensor in gc.get_objects() if isinstance(tensor, keras.KerasTensor)]


@pytest.mark.house
def test_a_model_is_left_as_it_was(method, pictures):
    model = nested()
    tensors, weights, config = symbolic_tensors(), model.get_weights(), model.get_config()
    method(model, pictures)
    before = {id(tensor) for tensor in tensors}
    assert all(id(tensor) in before for tensor in symbolic_tensors())  # a layer would keep those of another call
    assert config == model.get_config()
    for was, now in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(was, now)


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros(pictures):
    model = small_cnn()
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 1] = -np.abs(kernel[:, 1])  # features behind ReLU are never negative
    model.layers[-1].set_weights([kernel, bias])
    for own in (explain.cam, explain.grad_cam):
        np.testing.assert_array_equal(own(model, pictures, 1), 0)
    model.layers[-1].set_weights([0 * kernel, bias])
    for own in METHODS.values():
        np.testing.assert_array_equal(own(model, pictures, 1), 0)


@pytest.mark.house
def test_a_model_of_half_precision_is_explained_in_float32(pictures):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_cnn()
    finally:
        keras.config.set_dtype_policy(policy)
    for explained in (
        *(lambda own, method=method: method(own, pictures, 1) for method in METHODS.values()),
        lambda own: explain.deconvnet(own, pictures, "second", 1, everywhere=True),
        lambda own: explain.strongest(own, pictures, "second", 1)[2],
    ):
        half, single = explained(model), explained(shared())
        assert half.dtype == np.float32
        assert np.abs(half - single).mean() <= 0.02 * np.abs(single).max()  # 0 where no evidence is left


def test_constant_pictures_have_finite_maps(method):
    for value in (0, 128, 255):
        maps = method(shared(), np.full((2, *SIDE, 3), value, np.uint8))
        assert np.isfinite(maps).all()
        assert maps.min() >= 0
        assert maps.max() <= 1


@pytest.mark.parametrize(
    "change, classes, message",
    [
        (lambda x: x[:0], None, r"images are float32 of shape \(0, 20, 28, 3\)"),
        (lambda x: x[..., 0], None, r"images are float32 of shape \(3, 20, 28\)"),
        (lambda x: x.transpose(0, 2, 1, 3), None, r"as sequential\S* takes \(None, 20, 28, 3\)"),
        (lambda x: x, 4, "classes is 4, expected None, an int or 3 ints, from 0 to 3"),
        (lambda x: x, -1, "classes is -1"),
        (lambda x: x, [0, 1], r"classes is \[0, 1\]"),
        (lambda x: x, 1.0, "classes is 1.0"),
    ],
)
def test_pictures_and_classes_that_do_not_fit_are_named(change, classes, message, method, pictures):
    with pytest.raises(ValueError, match=message):
        method(shared(), change(pictures), classes)


def test_models_that_have_no_graph_or_no_scores_are_refused(method, pictures):
    class Own(keras.Model):
        def call(self, x):
            return x

    pixels = keras.Input((*SIDE, 3))
    maps = layers.Conv2D(2, 3)(pixels)
    for model, message in (
        (Own(), "model is a Own, expected a Sequential or functional"),
        (keras.Model(pixels, maps), r"gives \(None, 18, 26, 2\), expected scores"),
        (keras.Model(pixels, [maps, maps]), "1 inputs and 2 outputs"),
        ("resnet", "model is a str"),
    ):
        with pytest.raises(ValueError, match=message):
            method(model, pictures)


def test_smooth_grad_names_samples_and_noise_that_make_no_sense(pictures):
    for options in ({"samples": 0}, {"noise": -0.1}):
        with pytest.raises(ValueError, match="samples=.* and noise=.*, expected at least 1 and at least 0"):
            explain.smooth_grad(shared(), pictures, **options)


FOLDED = {
    "normalized convolution": lambda: [layers.Conv2D(4, 3, 2, "same"), layers.BatchNormalization()],
    "normalized convolution without bias": lambda: [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization()],
    "normalized depthwise convolution": lambda: [
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.BatchNormalization(scale=False),
    ],
    "normalized groups": lambda: [layers.Conv2D(6, 3, groups=3), layers.BatchNormalization(center=False)],
    "normalized dense layer": lambda: [layers.Dense(4), layers.BatchNormalization()],
    "activation before normalization": lambda: [
        layers.Conv2D(4, 3, activation="softplus"),
        layers.BatchNormalization(),
    ],
    "normalization first": lambda: [layers.BatchNormalization(), layers.Activation("softplus"), layers.Conv2D(4, 3)],
    "padding like same": lambda: [
        layers.ZeroPadding2D(((0, 1), (0, 1))),
        layers.Conv2D(4, 3, 2, use_bias=False),
        layers.BatchNormalization(),
    ],
    "padding on every side": lambda: [
        layers.ZeroPadding2D(1),
        layers.DepthwiseConv2D(3, 2),
        layers.BatchNormalization(),
    ],
    "padding of a dilated convolution": lambda: [layers.ZeroPadding2D(2), layers.Conv2D(4, 3, dilation_rate=2)],
    "more padding than same": lambda: [layers.ZeroPadding2D(2), layers.Conv2D(4, 3)],
    "1x1 convolution of stride 2": lambda: [
        layers.Conv2D(5, 1, 2),
        layers.BatchNormalization(),
        layers.Conv2D(4, 1, (3, 2)),
    ],
    "1x1 convolution of stride 2, same": lambda: [layers.Conv2D(5, 1, (2, 3), "same", use_bias=False)],
    "kernels of other sides": lambda: [
        layers.Conv2D(5, (1, 3), padding="same"),
        layers.Conv2D(4, (5, 3), padding="same"),
    ],
    "even kernel": lambda: [layers.Conv2D(5, 2, padding="same"), layers.Conv2D(4, (3, 4), padding="same")],
    "dilation": lambda: [layers.Conv2D(5, 3, padding="same", dilation_rate=2)],
    "groups": lambda: [layers.Conv2D(6, 3, padding="same", groups=3), layers.Conv2D(4, 1, groups=2)],
    "padding twice": lambda: [layers.ZeroPadding2D(1), layers.ZeroPadding2D(1), layers.Conv2D(4, 5)],
}


@pytest.mark.house
@pytest.mark.parametrize("kind", FOLDED)
def test_what_is_folded_into_a_convolution_changes_nothing(kind, pictures):
    backend.set_seed(0)
    before, behind = layers.Rescaling(1 / 128), [layers.Activation("softplus"), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((*SIDE, 3)), before, *FOLDED[kind](), *behind, layers.Dense(2)])
    with_statistics(model)
    np.testing.assert_allclose(explain.logits(model, pictures), model.predict_on_batch(pictures), rtol=1e-4, atol=1e-5)
    # Compiled: TensorFlow then leaves out the kernels' gradients, in which its CPU code has been seen to crash.
    slope = backend.jit(backend.value_and_grad(lambda x: ops.sum(model(x, training=False)[:, 1])))
    _, expected = slope(pictures)
    found, expected = explain.saliency(model, pictures, 1, raw=True), numpy_of(expected)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.house
@pytest.mark.parametrize(
    "build",
    [
        lambda: classify.efficientnet_lite0(weights=None, num_classes=5),
        lambda: keras.applications.MobileNetV2((64, 32, 3), 0.35, weights=None, classes=5),
    ],
    ids=["efficientnet_lite0", "MobileNetV2"],
)
def test_known_networks_keep_their_scores(build):
    backend.set_seed(0)
    model = build()
    for layer in classify.all_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5  # its statistics will be half the next batch's
    images = np.random.default_rng(0).uniform(0, 1, (2, 64, 32, 3)).astype(np.float32)
    model(images, training=True)
    expected = model.predict_on_batch(images)
    assert np.abs(expected - 0.2).max() > 0.01
    np.testing.assert_allclose(explain.probabilities(model, images), expected, atol=1e-4)
    assert explain.cam(model, images, expected.argmax(-1)).shape == (2, 64, 32)


def test_a_head_of_1x1_convolution_and_reshaping_is_a_dense_layer_to_grad_cam(pictures):
    reference = small_cnn()
    maps, kernel = reference.get_layer("second").output, reference.layers[-1].get_weights()[0]
    x = layers.Conv2D(4, 1, name="convolved")(layers.GlobalAveragePooling2D(keepdims=True)(maps))
    model = keras.Model(reference.inputs[0], layers.Softmax()(layers.Reshape((4,))(x)))
    model.get_layer("convolved").set_weights([kernel[None, None], np.zeros(4)])
    found, expected = explain.grad_cam(model, pictures, 2), explain.cam(reference, pictures, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_picture_that_the_model_enlarges_has_a_map_of_its_own_size(pictures):
    backend.set_seed(0)
    parts = [layers.Conv2D(4, 1, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((*SIDE, 3)), layers.UpSampling2D(4), *parts])
    plain = keras.Sequential([keras.Input((*SIDE, 3)), *parts])
    for method in (explain.cam, explain.grad_cam):
        np.testing.assert_allclose(method(model, pictures), method(plain, pictures), atol=1e-4)


def all_maps():
    """Explain a network of many kinds of layers, its weights drawn by NumPy, with every method."""
    body = keras.Sequential(
        [
            keras.Input((None, None, 3), name="inside"),
            layers.Conv2D(8, 3, 2, "same"),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.MaxPooling2D(3, 2, "same"),
            layers.DepthwiseConv2D(3, padding="same", name="deep"),
        ]
    )
    pixels = keras.Input((*SIDE, 3), name="outside")
    x = body(pixels / 128 - 1)
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Add()([x, layers.Conv2D(8, 1)(x)])))
    x = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model, random = keras.Model(pixels, x), np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.5, w.shape) for w in model.get_weights()])
    images = random.uniform(0, 255, (3, *SIDE, 3)).astype(np.float32)
    with_statistics(model)
    maps = {name: method(model, images, 2) for name, method in METHODS.items()}
    maps["early"] = explain.grad_cam(model, images, layer="deep", raw=True)
    chain = scaled_chain()
    chain.set_weights([random.normal(0, 0.3, w.shape) for w in chain.get_weights()])
    return maps | {"deconvnet": explain.deconvnet(with_statistics(chain), images, "relu", everywhere=True)}


@pytest.mark.house
def test_tensorflow_and_jax_agree(tmp_path):
    pytest.importorskip("jax")
    other = "jax" if backend.name() == "tensorflow" else "tensorflow"
    code = f"import numpy, test_explain; numpy.savez({str(tmp_path / 'maps.npz')!r}, **test_explain.all_maps())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": other},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.load(tmp_path / "maps.npz")
    for name, ours in all_maps().items():
        assert np.abs(ours).max() > 1e-3, name
        np.testing.assert_allclose(ours, theirs[name], atol=1e-4 * max(1, np.abs(ours).max()), err_msg=name)


# The way back


def scaled_chain(pool="valid", padding="valid"):
    """The layers of an AlexNet in small: overlapping pooling, padding, batch normalization, ReLU as layer and not."""
    backend.set_seed(6)
    model = keras.Sequential(
        [
            keras.Input((*SIDE, 3)),
            layers.Rescaling(1 / 64, offset=-2),
            layers.Conv2D(5, 3, padding=padding, activation="relu", name="conv1"),
            layers.MaxPooling2D(3, 2, pool, name="pool1"),
            layers.ZeroPadding2D(((1, 0), (2, 1)), name="pad"),
            layers.Conv2D(4, 3, 2, use_bias=False, name="conv2"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.ReLU(name="relu"),
        ]
    )
    return with_statistics(model)


def places(size, kernel, stride):
    return itertools.product(*(range(0, length - kernel + 1, stride) for length in size))


class ByHand:
    """`scaled_chain` and its deconvnet in loops over places, by the paper and NumPy alone."""

    def __init__(self, model, pool, padding):
        (self.k1, self.b1), (self.k2,) = (model.get_layer(name).get_weights() for name in ("conv1", "conv2"))
        gamma, beta, mean, variance = model.get_layer("norm").get_weights()
        self.scale = gamma / np.sqrt(variance + 1e-3)
        self.shift = beta - mean * self.scale
        self.pool_frame, self.frame = ((0, 1) if pool == "same" else (0, 0)), int(padding == "same")

    def forward(self, x):
        x = np.pad(x / 64 - 2, [(self.frame, self.frame)] * 2 + [(0, 0)])
        self.first = np.maximum(self.convolve(x, self.k1, 1) + self.b1, 0)
        framed = np.pad(self.first, [self.pool_frame] * 2 + [(0, 0)], constant_values=-np.inf)
        self.framed, self.switches = framed.shape, {}
        pooled = {}
        for i, j in places(framed.shape[:2], 3, 2):
            for channel in range(framed.shape[2]):
                window = framed[i : i + 3, j : j + 3, channel]
                self.switches[i, j, channel] = np.unravel_index(window.argmax(), (3, 3))
                pooled[i // 2, j // 2, channel] = window.max()
        rows, columns, _ = np.max(list(pooled), axis=0) + 1
        maps = np.array([pooled[at] for at in np.ndindex(rows, columns, 5)]).reshape(rows, columns, 5)
        second = self.convolve(np.pad(maps, [(1, 0), (2, 1), (0, 0)]), self.k2, 2)
        return np.maximum(second * self.scale + self.shift, 0)

    def back(self, maps, switches=True):
        maps = np.maximum(maps, 0) * self.scale
        maps = self.transpose(maps, self.k2, 2)[1:, 2:-1]
        unpooled = np.zeros(self.framed)
        for (i, j, channel), (row, column) in self.switches.items():
            row, column = (row, column) if switches else (1, 1)
            unpooled[i + row, j + column, channel] += maps[i // 2, j // 2, channel]
        unpooled = np.maximum(unpooled[: self.first.shape[0], : self.first.shape[1]], 0)
        pixels = self.transpose(unpooled, self.k1, 1) / 64
        return pixels[self.frame : SIDE[0] + self.frame, self.frame : SIDE[1] + self.frame]

    def convolve(self, x, kernel, stride):
        ends = [(length - 3) // stride + 1 for length in x.shape[:2]]
        patches = [np.tensordot(x[i : i + 3, j : j + 3], kernel, 3) for i, j in places(x.shape[:2], 3, stride)]
        return np.reshape(patches, (*ends, kernel.shape[-1]))

    def transpose(self, maps, kernel, stride):
        rows, columns = maps.shape[:2]
        height, width = (rows - 1) * stride + 3, (columns - 1) * stride + 3
        x = np.zeros((height, width, kernel.shape[2]))
        for i, j in np.ndindex(rows, columns):
            x[stride * i : stride * i + 3, stride * j : stride * j + 3] += kernel @ maps[i, j]
        return x


@pytest.mark.contract
@pytest.mark.parametrize("switches", [True, False])
@pytest.mark.parametrize("pool, padding", [("valid", "valid"), ("same", "same")])
def test_deconvnet_unpools_rectifies_and_filters_as_the_paper_does(pool, padding, switches, pictures):
    model = scaled_chain(pool, padding)
    by_hand = ByHand(model, pool, padding)
    for everywhere in (False, True):
        found = explain.deconvnet(model, pictures, "relu", 2, switches, everywhere)
        for picture, ours in zip(pictures, found):
            maps = by_hand.forward(picture)
            mine = np.zeros_like(maps)
            at = (..., 2) if everywhere else (*np.unravel_index(maps[..., 2].argmax(), maps.shape[:2]), 2)
            mine[at] = maps[at]
            expected = by_hand.back(mine, switches)
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(ours, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(feature_maps(model, "relu", pictures)[-1], maps, atol=1e-4)
    one = explain.deconvnet(model, pictures[0], "relu", 2, switches, True)
    np.testing.assert_allclose(one, explain.deconvnet(model, pictures, "relu", 2, switches, True)[0], atol=1e-6)


def test_deconvnet_without_a_channel_starts_from_the_strongest_of_all(pictures):
    model = scaled_chain()
    best = feature_maps(model, "relu", pictures).max(axis=(1, 2)).argmax(-1)
    found = explain.deconvnet(model, pictures, "relu")
    for picture, channel, ours in zip(pictures, best, found):
        np.testing.assert_allclose(explain.deconvnet(model, picture, "relu", int(channel)), ours, atol=1e-6)


def test_deconvnet_is_the_gradient_where_nothing_is_rectified(pictures):
    backend.set_seed(0)
    model = keras.Sequential(
        [
            keras.Input((*SIDE, 3)),
            layers.DepthwiseConv2D(3, 2, depth_multiplier=2),
            layers.AveragePooling2D(2),
            layers.Cropping2D(1),
            layers.Conv2D(2, 2, name="last"),
        ]
    )
    found = explain.deconvnet(model, pictures, "last", 1, everywhere=True)
    maps = feature_maps(model, "last", pictures)
    _, expected = backend.value_and_grad(lambda x: ops.sum(ops.multiply(model(x)[..., 1], maps[..., 1])))(pictures)
    np.testing.assert_allclose(found, numpy_of(expected), atol=1e-5 * np.abs(found).max())


def test_unpooling_an_overlap_adds_what_two_windows_send_to_one_place():
    model = keras.Sequential([keras.Input((1, 5, 1)), layers.MaxPooling2D((1, 3), (1, 2), name="pool")])
    row = np.array([1, 0, 5, 2, 3], np.float32).reshape(1, 1, 5, 1)
    found = explain.deconvnet(model, row, "pool", 0, everywhere=True)
    np.testing.assert_array_equal(found.ravel(), [0, 0, 10, 0, 0])
    without = explain.deconvnet(model, row, "pool", 0, switches=False, everywhere=True)
    np.testing.assert_array_equal(without.ravel(), [0, 5, 0, 5, 0])


def test_response_normalization_is_left_out_on_the_way_back(pictures):
    class LocalResponseNormalization(layers.Layer):
        def call(self, x):
            return x / (2 + 1e-7 * ops.square(x)) ** 0.75

    backend.set_seed(0)
    pixels = keras.Input((*SIDE, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(pixels)
    model = keras.Model(pixels, LocalResponseNormalization(name="norm")(x))
    behind, before = (explain.deconvnet(model, pictures, layer, 1) for layer in ("norm", "conv"))
    ratio = feature_maps(model, "norm", pictures)[..., 1].max((1, 2)) / feature_maps(model, "conv", pictures)[
        ..., 1
    ].max((1, 2))
    np.testing.assert_allclose(behind, before * ratio[:, None, None, None], rtol=1e-4, atol=1e-5)


def test_strongest_finds_the_pictures_the_values_and_all_that_the_activation_sees():
    backend.set_seed(0)
    pixels = keras.Input((30, 26, 3))
    x = layers.Conv2D(3, 5, 2, "same")(layers.ZeroPadding2D(((2, 1), (0, 3)))(pixels))
    x = layers.Conv2D(3, 3, dilation_rate=2)(
        layers.AveragePooling2D(3, 2, "same")(layers.Cropping2D(((1, 0), (0, 1)))(x))
    )
    model = keras.Model(pixels, layers.BatchNormalization(name="last")(x))
    for layer in model.layers:
        layer.set_weights([np.abs(w) + 0.1 for w in layer.get_weights()])  # all that it sees counts
    images = np.random.default_rng(0).uniform(-1, 1, (12, 30, 26, 3)).astype(np.float32)
    rows, windows, values = explain.strongest(model, images, "last", 1, count=5, batch_size=5)
    features = numpy_of(model(images))[..., 1].reshape(12, -1)
    np.testing.assert_array_equal(rows, np.argsort(-features.max(-1))[:5])
    np.testing.assert_allclose(values, np.sort(features.max(-1))[:-6:-1], rtol=1e-5)
    for row, window in zip(rows, windows):
        place = int(features[row].argmax())

        def activation(x):
            return ops.reshape(model(x)[..., 1], (-1,))[place]  # noqa: B023 - called at once

        _, gradient = backend.value_and_grad(activation)(images[row : row + 1])
        seen = np.argwhere(np.abs(numpy_of(gradient)[0]).sum(-1) > 0)
        (top, left), (bottom, right) = seen.min(axis=0), seen.max(axis=0) + 1
        np.testing.assert_array_equal(window, [left, top, right, bottom])
    assert len({tuple(window) for window in windows}) > 1


def test_the_way_back_works_through_a_backbone_that_is_called_as_a_layer(pictures):
    backbone = classify.alexnet(weights=None, include_top=False)
    pixels = keras.Input((None, None, 3))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(backbone(pixels)))
    inside, outside = (explain.deconvnet(own, pictures, "conv2", 7) for own in (backbone, model))
    np.testing.assert_array_equal(inside, outside)
    assert inside.shape == pictures.shape


@pytest.mark.house
def test_what_has_no_way_back_is_named(pictures):
    for make, message in (
        (lambda x: layers.Add(name="sum")([x, layers.Conv2D(3, 1)(x)]), "'sum' joins several paths"),
        (
            lambda x: layers.Activation("tanh", name="curve")(x),
            "'curve', a Activation with tanh activation, has no way",
        ),
        (lambda x: layers.Conv2D(2, 3, activation="elu", name="curve")(x), "'curve', a Conv2D with elu activation"),
        (lambda x: layers.LeakyReLU(name="leaky")(x), "'leaky', a LeakyReLU"),
        (lambda x: layers.ReLU(negative_slope=0.1, name="leaky")(x), "'leaky', a ReLU"),
    ):
        pixels = keras.Input((*SIDE, 3))
        model = keras.Model(pixels, layers.Conv2D(2, 3, name="last")(make(pixels)))
        for method in (explain.deconvnet, explain.strongest):
            with pytest.raises(ValueError, match=message):
                method(model, pictures, "last", 0)
    for method in (explain.deconvnet, explain.strongest):
        with pytest.raises(ValueError, match="channel=4, expected an int from 0 to 3"):
            method(scaled_chain(), pictures, "relu", 4)
        with pytest.raises(ValueError, match="'conv3' is not in the model; its convolutional layers are conv1, conv2"):
            method(scaled_chain(), pictures, "conv3", 0)


# Pictures


@pytest.mark.house
def test_an_overlay_mixes_picture_and_colours():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    map = np.linspace(0, 1, 20).reshape(4, 5)
    np.testing.assert_array_equal(explain.overlay(image, map, opacity=0), image)
    alone = explain.overlay(image, map, opacity=1)
    np.testing.assert_array_equal(alone[0, 0], [68, 1, 84])  # viridis begins dark violet
    np.testing.assert_array_equal(alone[-1, -1], [253, 231, 37])  # and ends yellow
    half = explain.overlay(image.astype(np.float32), map, opacity=0.5)
    assert half.dtype == np.uint8
    np.testing.assert_allclose(half, (image.astype(float) + alone) / 2, atol=1)
    batch = explain.overlay(np.stack([image, image]), np.stack([map, 0 * map]), 1)
    np.testing.assert_array_equal(batch[0], alone)


@pytest.mark.house
def test_an_overlay_interpolates_a_map_to_a_larger_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    map = np.zeros((4, 6))
    map[:, 3:] = 1
    alone = explain.overlay(image, map, opacity=1)
    assert alone.shape == image.shape
    np.testing.assert_array_equal(alone[:, :25], alone[:1, :1].repeat(40, 0).repeat(25, 1))  # up to a cell's centre
    assert len(np.unique(alone[0, 25:35], axis=0)) > 5  # between the two centres, step by step
    both = explain.overlay([image, image[:4, :6]], np.stack([map, map]), 0.5)
    np.testing.assert_array_equal(both[0], explain.overlay(image, map, 0.5))
    np.testing.assert_array_equal(both[1], explain.overlay(image[:4, :6], map, 0.5))
    batch = explain.overlay(np.stack([image] * 2), np.stack([map, 1 - map]))
    np.testing.assert_array_equal(batch[1], explain.overlay(image, 1 - map))


def test_an_overlay_names_shapes_and_opacities_that_do_not_fit():
    with pytest.raises(ValueError, match=r"image has shape \(4, 5, 3\) and map \(5, 4\)"):
        explain.overlay(np.zeros((4, 5, 3)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="opacity=2, expected a number from 0 to 1"):
        explain.overlay(np.zeros((4, 5, 3)), np.zeros((4, 5)), 2)


@pytest.mark.house
@given(arrays(np.uint8, (2, 3, 3)), st.floats(-300, 300), st.floats(0.01, 500))
def test_denormalizing_brings_every_pixel_back(pixels, mean, std):
    means, stds = np.array([mean, 0, -mean]), np.array([std, 1, 2 * std])
    back = explain.denormalize(explain.normalize(pixels, means, stds), means, stds)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.rint(back), pixels)


def test_normalizing_without_mean_and_std_is_the_division_by_255_of_the_notes():
    np.testing.assert_allclose(explain.normalize(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_allclose(explain.denormalize(np.array([0, 0.2, 1])), [0, 51, 255], rtol=1e-6)
