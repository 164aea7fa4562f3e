"""The zoo: the networks give the right numbers, and their copies compute the same."""

import csv
import json
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from cvlab import backend, classify, data, zoo

REFERENCE = json.loads((Path(__file__).parent / "references/efficientnet_lite0.json").read_text())


@pytest.fixture(scope="module")
def lite0():
    return zoo.efficientnet_lite0()


def test_converted_weights_give_the_originals_probabilities(lite0):
    images = np.stack([data.centre_crop(data.photograph(name)) for name in REFERENCE])
    ours = lite0.predict_on_batch(images)
    for row, (name, expected) in zip(ours, REFERENCE.items(), strict=True):
        for index, probability in expected.items():
            assert row[int(index)] == pytest.approx(probability, abs=1e-2), (name, index)
        assert set(np.argsort(-row)[:3]) == {int(k) for k in list(expected)[:3]}


def test_imagenet_names_stand_in_the_order_of_the_outputs(lite0):
    names = data.imagenet_classes()
    best = lite0.predict_on_batch(data.centre_crop(data.photograph("coffee"))[None])[0].argmax()
    assert len(names) == 1000 and names[best] == "espresso"


@pytest.mark.skipif(not os.environ.get("CVLAB_DATA"), reason="CVLAB_DATA is not set: no ImageNet photographs here")
def test_lite0_names_at_least_85_of_100_imagenet_photographs(lite0):
    samples = data.load("imagenet_samples")
    images = np.stack([data.centre_crop(image) for image in samples.images])
    assert classify.accuracy(lite0, images, samples.labels) >= 0.85


@pytest.mark.skipif(not os.environ.get("CVLAB_DATA"), reason="CVLAB_DATA is not set: no CIFAR-10 here")
def test_resnet20_names_at_least_91_of_100_cifar_pictures():
    test = data.load("cifar10", "test")
    assert classify.accuracy(zoo.resnet20(), test.images, test.labels) >= 0.91


def test_backbones_are_found_by_name_and_others_are_refused():
    assert zoo.backbone("resnet20", weights=None).output.shape == (None, None, None, 64)
    with pytest.raises(ValueError, match="name='vgg', expected one of efficientnet_lite0, resnet20, resnet50"):
        zoo.backbone("vgg")


def test_parameter_counts_are_the_papers():
    assert zoo.resnet20(weights=None).count_params() == pytest.approx(0.27e6, rel=0.03)
    assert zoo.efficientnet_lite0(weights=None).count_params() == pytest.approx(4.65e6, rel=0.02)


STEMS = {  # kernel and stride of the first two convolutions: the papers'
    "alexnet": [(11, 4), (5, 1)],
    "zfnet": [(7, 2), (5, 2)],
}


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize("name", STEMS)
def test_alexnet_and_zfnet_have_the_papers_stems(name):
    model = getattr(zoo, name)(weights=None)
    kernels = [(*layer.kernel_size, *layer.strides) for layer in convolutions(model)]
    assert kernels == [(k, k, s, s) for k, s in [*STEMS[name], (3, 1), (3, 1), (3, 1)]]
    assert [layer.filters for layer in convolutions(model)] == [96 // 3, 256 // 4, 384 // 4, 384 // 4, 256 // 4]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_alexnet_and_zfnet_differ_in_the_first_filters_alone():
    models = [zoo.alexnet(weights=None), zoo.zfnet(weights=None)]
    shapes = [[w.shape for w in model.get_weights()] for model in models]
    assert shapes[0][0] == (11, 11, 3, 32) and shapes[1][0] == (7, 7, 3, 32)
    assert shapes[0][1:] == shapes[1][1:]
    sizes = {"alexnet": (24, 12, 12, 6), "zfnet": (48, 24, 12, 6)}
    for model in models:
        taps = [model.get_layer(layer).output for layer in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")]
        maps = keras.Model(model.input, taps).predict_on_batch(np.zeros((1, 96, 96, 3), np.uint8))
        assert [m.shape[1] for m in maps] == [*sizes[model.name], 6, 3]


@pytest.mark.parametrize("name", STEMS)
def test_the_trained_stems_name_the_toys_as_their_card_says(name):
    if f"weights/{name}_toybox.weights.h5" not in data.manifest():
        pytest.skip("`python -m experiments.weights.zfnet` has not exported these weights yet")
    card = (data.EMBEDDED / "weights" / "README.md").read_text(encoding="utf-8")
    said = float(re.search(rf"`{name}_toybox.weights.h5`.*?\| score \| (0\.\d+)", card, re.S)[1])
    test = data.load("objects", "test")
    model = getattr(zoo, name)()
    assert classify.accuracy(model, test.images, test.labels) == pytest.approx(said, abs=0.006)
    assert data.weights(f"{name}_toybox").stat().st_size < 1.5e6


def test_without_top_come_feature_maps_a_32nd_and_a_quarter_of_the_size():
    images = np.zeros((1, 96, 64, 3), np.uint8)
    assert zoo.efficientnet_lite0(include_top=False).predict_on_batch(images).shape == (1, 3, 2, 1280)
    assert zoo.resnet20(weights=None, include_top=False).predict_on_batch(images).shape == (1, 24, 16, 64)


def test_top_and_body_agree(lite0):
    image = data.centre_crop(data.photograph("chelsea"))[None]
    maps = zoo.efficientnet_lite0(include_top=False).predict_on_batch(image)
    kernel, bias = lite0.get_layer("classes").get_weights()
    logits = maps.mean((1, 2)) @ kernel + bias
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(lite0.predict_on_batch(image), probabilities, atol=1e-5)


@pytest.mark.parametrize("build", [zoo.resnet20, zoo.efficientnet_lite0, zoo.alexnet, zoo.zfnet])
def test_known_weights_with_another_number_of_classes_are_refused(build):
    with pytest.raises(ValueError, match="num_classes=7 with the .* weights"):
        build(num_classes=7)
    with pytest.raises(ValueError, match=r"weights='vgg', expected '.*', None or a path"):
        build(weights="vgg")


def test_resnet50_subtracts_the_mean_colours_in_the_order_blue_green_red():
    backend.set_seed(0)
    model = zoo.resnet50(weights=None, include_top=False)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    bare = keras.applications.ResNet50(include_top=False, weights=None)
    bare.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model.predict_on_batch(images),
        bare.predict_on_batch(keras.applications.resnet50.preprocess_input(images.copy())),
        atol=1e-4,
    )


def test_a_copied_body_gives_the_last_map_of_each_stride(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)
    maps = zoo.copy_body(small_backbone, strides=(2, 8)).predict_on_batch(images)
    assert [m.shape for m in maps] == [(2, 16, 24, 8), (2, 4, 6, 16)]
    np.testing.assert_allclose(maps[1], small_backbone.predict_on_batch(images), atol=1e-6)
    with pytest.raises(ValueError, match="small has no feature map of stride 16; it has 1, 2, 4, 8"):
        zoo.copy_body(small_backbone, strides=(4, 16))


def test_imagenet_class_list_is_the_shared_one():
    with open(data.EMBEDDED / "imagenet_classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(1000))
    assert (rows[0]["name"], rows[999]["wnid"]) == ("tench", "n15075141")


# Copies


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Normalization, convolution and batch normalization in a layer of the reader's own."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.filters = filters
        self.parts = [keras.layers.Normalization(), keras.layers.Conv2D(filters, 3, padding="same")]
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
        self.norm.build((*shape[:-1], self.filters))
        self.built = True

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.norm(x)

    def get_config(self):
        return super().get_config() | {"filters": self.filters}


class UnregisteredBlock(Block):
    """Keras can't find this class by its name."""


def chain(*parts, pixels=(None, None, 3)):
    first = x = keras.Input(pixels)
    for part in parts:
        x = part(x)
    return keras.Model(first, x)


def conv():
    return keras.layers.Conv2D(4, 3, padding="same")


def shared():
    first, normalize, convolve = keras.Input((None, None, 3)), keras.layers.Normalization(), keras.layers.Conv2D(3, 3)
    return keras.Model(first, convolve(normalize(convolve(normalize(first)))))


def named_alike():
    first = keras.Input((None, None, 3))
    halves = [
        keras.Sequential([keras.Input((None, None, 3)), keras.layers.Normalization(name="n"), conv()], name=name)
        for name in ("one", "two")
    ]
    return keras.Model(first, keras.layers.Add()([half(first) for half in halves]))


def adapted_bins():
    bins = keras.layers.Discretization(num_bins=5)
    bins.adapt(np.random.default_rng(0).uniform(0, 255, 100))
    return chain(bins, keras.layers.Rescaling(1.0), conv())


def adapted_vocabulary():
    lookup = keras.layers.IntegerLookup()
    lookup.adapt(np.arange(0, 200, 3))
    return chain(lambda x: keras.ops.cast(x, "int64"), lookup, keras.layers.Rescaling(1.0), conv())


COPIED = {
    "adapted": lambda: chain(keras.layers.Normalization(), conv()),
    "adapted as a whole": lambda: chain(keras.layers.Normalization(axis=None), conv()),
    "adapted by row and channel": lambda: chain(keras.layers.Normalization(axis=(1, -1)), conv(), pixels=(32, 32, 3)),
    "mean and variance given": lambda: chain(
        keras.layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6]), conv()
    ),
    "inverse": lambda: chain(keras.layers.Normalization(invert=True), conv()),
    "nested": lambda: chain(chain(keras.layers.Normalization(), conv()), conv()),
    "Sequential in Sequential": lambda: keras.Sequential(
        [keras.Input((None, None, 3)), keras.Sequential([keras.layers.Normalization(), conv()]), conv()]
    ),
    "shared layers": shared,
    "nested layers of the same name": named_alike,
    "layer of the reader's own": lambda: chain(Block(4)),
    "layer that is not registered, nested": lambda: chain(chain(UnregisteredBlock(4)), conv()),
    "Lambda, nested": lambda: chain(chain(keras.layers.Lambda(lambda x: x / 255), conv()), conv()),
    "bins": adapted_bins,
    "vocabulary": adapted_vocabulary,
    "half precision": lambda: chain(
        keras.layers.Normalization(dtype="mixed_float16"), keras.layers.Conv2D(4, 3, dtype="mixed_float16")
    ),
}


def with_statistics(model, adapt=True):
    """Give a model the weights and statistics that training and adapting would have given it."""
    random = np.random.default_rng(0)
    for layer in zoo.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None and adapt:
            shape = layer.adapt_mean.shape
            layer.adapt_mean.assign(random.uniform(100, 150, shape))
            layer.adapt_variance.assign(random.uniform(2000, 6000, shape))
            layer.finalize_state()
    return model


def maps_of(model, pixels):
    return keras.ops.convert_to_numpy(model(pixels, training=False)).astype(np.float64)


def assert_same_maps(model, copy, side=32):
    pixels = np.random.default_rng(1).uniform(0, 255, (2, side, side, 3)).astype(np.float32)
    expected = maps_of(model, pixels)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(maps_of(copy, pixels), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.house
@pytest.mark.parametrize("kind", COPIED)
def test_a_copied_body_keeps_adapted_statistics(kind):
    backend.set_seed(0)
    model = with_statistics(COPIED[kind]())
    for mode in ("frozen", "fine_tune"):
        assert_same_maps(model, zoo.copy_body(model, mode))


def test_a_copied_body_keeps_what_normalization_computes_with_rather_than_its_weights():
    model = chain(keras.layers.Normalization(), conv())
    model.set_weights([w + 1 for w in model.get_weights()])  # the layer goes on with mean 0 until it is finalized
    assert_same_maps(model, zoo.copy_body(model))


def test_a_body_from_scratch_keeps_its_preprocessing_alone():
    model = with_statistics(chain(keras.layers.Normalization(), conv()))
    copy = zoo.copy_body(model, "scratch")
    assert_same_maps(chain(model.layers[1]), chain(copy.layers[1]))
    assert np.abs(model.layers[2].get_weights()[0] - copy.layers[2].get_weights()[0]).max() > 0.01


def test_fine_tuning_leaves_batch_normalization_within_a_layer_alone():
    copy = zoo.copy_body(with_statistics(chain(Block(4))), "fine_tune")
    assert sorted(weight.name for weight in copy.trainable_weights) == ["bias", "kernel"]


def test_a_map_of_each_stride_is_found_where_a_layer_is_called_twice():
    first, halve = keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3, 2, "same")
    model = keras.Model(first, halve(halve(first)))
    copy = zoo.copy_body(model, strides=(2, 4))
    assert [shape[1] for shape in copy.compute_output_shape((1, 64, 64, 3))] == [32, 16]
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
    coarse, whole = (keras.ops.convert_to_numpy(found) for found in (copy(pixels)[1], model(pixels)))
    np.testing.assert_allclose(coarse, whole, atol=1e-6)


@pytest.mark.house
def test_a_layer_that_cannot_be_copied_is_named():
    class Scale(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.factor = 1.0

        def call(self, x):
            return x * self.factor

    class NoOptions(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="short")

        def call(self, x):
            return x

    scale = Scale(name="scale")
    scale.factor = 3.0
    with pytest.raises(ValueError, match=r"One of its layers 'scale' \(Scale\) holds a state"):
        zoo.copy_body(chain(scale, conv()))
    with pytest.raises(ValueError, match="layer 'short', a NoOptions, can't be built again"):
        zoo.copy_body(chain(NoOptions(), conv()))
    inside = chain(keras.layers.Conv2D(4, 3, 2, "same"), keras.layers.Conv2D(4, 3, 2, "same"))
    with pytest.raises(ValueError, match=f"no feature map of stride 2; .*within {inside.name} can't be reached"):
        zoo.copy_body(chain(inside, conv()), strides=(2, 4))


APPLICATIONS = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "EfficientNetV2S",
    "InceptionV3",
    "InceptionResNetV2",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
QUICK = ("MobileNet", "EfficientNetB0")


@pytest.mark.house
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.weekly) for name in APPLICATIONS]
)
def test_a_copy_of_a_known_network_gives_the_same_maps(name):
    backend.set_seed(0)
    options = {"include_preprocessing": True} if name.startswith(("EfficientNetV2", "MobileNetV3", "ConvNeXt")) else {}
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(96, 96, 3), **options)
    assert_same_maps(with_statistics(model), zoo.copy_body(model), 96)


def test_a_copied_body_keeps_its_name_unless_it_gets_another(small_backbone):
    assert zoo.copy_body(small_backbone).name == small_backbone.name
    assert zoo.copy_body(small_backbone, name="body").name == "body"
    assert zoo.copy_body(small_backbone, strides=(2, 8)).name == small_backbone.name
    assert zoo.copy_body(small_backbone, strides=(2, 8), name="body").name == "body"
