"""Backbones and transfer: the right numbers come out, and what is frozen stays as it was."""

import csv
import json
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from cvlab import backend, classify, data

REFERENCE = json.loads((Path(__file__).parent / "references/efficientnet_lite0.json").read_text())


@pytest.fixture(scope="module")
def lite0():
    return classify.efficientnet_lite0()


@pytest.fixture(scope="module")
def colours():
    """Pictures of three noisy colours, which any classifier learns."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 60, (90, 32, 32, 3)) + 180 * np.eye(3, dtype=int)[labels][:, None, None]
    return images.astype(np.uint8), labels


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
    assert classify.accuracy(classify.resnet20(), test.images, test.labels) >= 0.91


def test_backbones_are_found_by_name_and_others_are_refused():
    assert classify.backbone("resnet20", weights=None).output.shape == (None, None, None, 64)
    with pytest.raises(ValueError, match="name='vgg', expected one of efficientnet_lite0, resnet20, resnet50"):
        classify.backbone("vgg")


def test_parameter_counts_are_the_papers():
    assert classify.resnet20(weights=None).count_params() == pytest.approx(0.27e6, rel=0.03)
    assert classify.efficientnet_lite0(weights=None).count_params() == pytest.approx(4.65e6, rel=0.02)


STEMS = {  # kernel and stride of the first two convolutions: the papers'
    "alexnet": [(11, 4), (5, 1)],
    "zfnet": [(7, 2), (5, 2)],
}


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize("name", STEMS)
def test_alexnet_and_zfnet_have_the_papers_stems(name):
    model = getattr(classify, name)(weights=None)
    kernels = [(*layer.kernel_size, *layer.strides) for layer in convolutions(model)]
    assert kernels == [(k, k, s, s) for k, s in [*STEMS[name], (3, 1), (3, 1), (3, 1)]]
    assert [layer.filters for layer in convolutions(model)] == [96 // 3, 256 // 4, 384 // 4, 384 // 4, 256 // 4]
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_alexnet_and_zfnet_differ_in_the_first_filters_alone():
    models = [classify.alexnet(weights=None), classify.zfnet(weights=None)]
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
    model = getattr(classify, name)()
    assert classify.accuracy(model, test.images, test.labels) == pytest.approx(said, abs=0.006)
    assert data.weights(f"{name}_toybox").stat().st_size < 1.5e6


def test_without_top_come_feature_maps_a_32nd_and_a_quarter_of_the_size():
    images = np.zeros((1, 96, 64, 3), np.uint8)
    assert classify.efficientnet_lite0(include_top=False).predict_on_batch(images).shape == (1, 3, 2, 1280)
    assert classify.resnet20(weights=None, include_top=False).predict_on_batch(images).shape == (1, 24, 16, 64)


def test_top_and_body_agree(lite0):
    image = data.centre_crop(data.photograph("chelsea"))[None]
    maps = classify.efficientnet_lite0(include_top=False).predict_on_batch(image)
    kernel, bias = lite0.get_layer("classes").get_weights()
    logits = maps.mean((1, 2)) @ kernel + bias
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(lite0.predict_on_batch(image), probabilities, atol=1e-5)


@pytest.mark.parametrize("build", [classify.resnet20, classify.efficientnet_lite0, classify.alexnet, classify.zfnet])
def test_known_weights_with_another_number_of_classes_are_refused(build):
    with pytest.raises(ValueError, match="num_classes=7 with the .* weights"):
        build(num_classes=7)
    with pytest.raises(ValueError, match=r"weights='vgg', expected '.*', None or a path"):
        build(weights="vgg")


def test_resnet50_subtracts_the_mean_colours_in_the_order_blue_green_red():
    backend.set_seed(0)
    model = classify.resnet50(weights=None, include_top=False)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    bare = keras.applications.ResNet50(include_top=False, weights=None)
    bare.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model.predict_on_batch(images),
        bare.predict_on_batch(keras.applications.resnet50.preprocess_input(images.copy())),
        atol=1e-4,
    )


@pytest.mark.contract
def test_frozen_leaves_the_body_and_its_statistics_as_they_were(small_backbone, colours):
    images, labels = colours
    model = classify.transfer(small_backbone, 3, "frozen")
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == ["classes", "classes"]
    before = [np.array(w) for w in model.get_weights()]
    classify.train(model, images, labels, steps=30, learning_rate=0.05)
    changed = [not np.array_equal(b, a) for b, a in zip(before, model.get_weights(), strict=True)]
    assert changed == [False] * (len(changed) - 2) + [True, True]
    assert classify.accuracy(model, images, labels) > 0.95


@pytest.mark.contract
def test_fine_tuning_moves_the_convolutions_from_the_backbones_weights_but_not_batch_normalization(
    small_backbone, colours
):
    model = classify.transfer(small_backbone, 3, "fine_tune")
    body = model.get_layer("small")
    for ours, theirs in zip(body.get_weights(), small_backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    classify.train(model, *colours, steps=5)
    for variable, theirs in zip(body.weights, small_backbone.get_weights(), strict=True):
        same = np.array_equal(keras.ops.convert_to_numpy(variable), theirs)
        assert same == ("batch_normalization" in variable.path), variable.path


@pytest.mark.contract
def test_scratch_starts_from_random_weights_and_learns_its_own_statistics(small_backbone, colours):
    backend.set_seed(1)
    model = classify.transfer(small_backbone, 3, "scratch")
    body = model.get_layer("small")
    kernels = [i for i, w in enumerate(body.weights) if "kernel" in w.path]
    assert not any(np.array_equal(body.get_weights()[i], small_backbone.get_weights()[i]) for i in kernels)
    classify.train(model, *colours, steps=5)
    moving = [keras.ops.convert_to_numpy(w) for w in body.weights if "moving_mean" in w.path]
    assert all(np.abs(values).max() > 0 for values in moving)


@pytest.mark.parametrize("mode", ["frozen", "fine_tune", "scratch"])
def test_training_one_transfer_changes_neither_the_backbone_nor_another_transfer(small_backbone, colours, mode):
    before = small_backbone.get_weights()
    other = classify.transfer(small_backbone, 3, "frozen")
    untouched = other.get_weights()
    classify.train(classify.transfer(small_backbone, 3, mode), *colours, steps=3)
    for old, new in zip(before + untouched, small_backbone.get_weights() + other.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert small_backbone.trainable


@pytest.mark.contract
def test_cached_features_train_as_the_whole_network_with_standardized_features(small_backbone, colours):
    images, labels = colours
    quick = classify.transfer(small_backbone, 3, "frozen")
    quick.layers[-1].set_weights([np.random.default_rng(0).normal(size=(16, 3)) * 0.1, np.array([0.1, 0.0, -0.1])])
    pooled = small_backbone.predict_on_batch(images).mean((1, 2))
    centre, spread = pooled.mean(0), pooled.std(0) + 1e-3
    slow = keras.models.clone_model(quick)
    slow.set_weights(quick.get_weights())
    slow.get_layer("small").trainable = False
    features = slow.get_layer("pool").output
    kernel, bias = quick.layers[-1].get_weights()
    top = keras.layers.Dense(3, activation="softmax")
    slow = keras.Model(slow.input, top((features - centre) / spread))
    top.set_weights([kernel * spread[:, None], bias + centre @ kernel])
    np.testing.assert_allclose(slow.predict_on_batch(images), quick.predict_on_batch(images), atol=1e-5)
    cached = classify.train(quick, images, labels, steps=6, seed=4)["loss"]
    slow.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 6)), classify.LOSS)
    rows, generator, whole = np.arange(0), np.random.default_rng(4), []
    for _ in range(6):
        rows = np.concatenate([rows, generator.permutation(len(images))]) if len(rows) < 32 else rows
        whole.append(float(slow.train_on_batch(images[rows[:32]], labels[rows[:32]], return_dict=True)["loss"]))
        rows = rows[32:]
        slow.reset_metrics()
    np.testing.assert_allclose(cached, whole, atol=1e-4)
    np.testing.assert_allclose(slow.predict_on_batch(images), quick.predict_on_batch(images), atol=1e-4)


def test_every_picture_is_seen_once_before_any_is_seen_twice():
    seen = []

    def draw(rows, generator):
        seen.extend(rows.tolist())
        return np.zeros((len(rows), 1), np.float32), np.zeros((len(rows), 1), np.float32)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    classify.optimize(model, "mse", draw, 10, steps=5, batch_size=4)
    assert sorted(seen[:10]) == list(range(10)) == sorted(seen[10:20])


def test_parts_whose_layers_are_called_alike_learn_as_if_alone():
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def part():
        values = keras.Input((3,))
        dense = keras.layers.Dense(1, kernel_initializer="zeros", name="score")
        return keras.Model(values, dense(values))

    def learned(models, targets):
        values = keras.Input((3,))
        whole = keras.Model(values, [model(values) for model in models])

        def draw(rows, generator):
            return x[rows], [target[rows] for target in targets]

        classify.optimize(whole, ["mse"] * len(models), draw, len(x), steps=5, learning_rate=0.1)
        return [model.get_weights()[0] for model in models]

    targets = [x @ np.float32([[1], [-1], [2]]), x @ np.float32([[-3], [0], [1]])]
    together = learned([part(), part()], targets)
    for own, target in zip(together, targets, strict=True):
        np.testing.assert_allclose(own, learned([part()], [target])[0], atol=1e-4)


def test_a_copied_body_gives_the_last_map_of_each_stride(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)
    maps = classify.copy_body(small_backbone, strides=(2, 8)).predict_on_batch(images)
    assert [m.shape for m in maps] == [(2, 16, 24, 8), (2, 4, 6, 16)]
    np.testing.assert_allclose(maps[1], small_backbone.predict_on_batch(images), atol=1e-6)
    with pytest.raises(ValueError, match="small has no feature map of stride 16; it has 1, 2, 4, 8"):
        classify.copy_body(small_backbone, strides=(4, 16))


@pytest.mark.contract
def test_same_seed_same_training_and_another_seed_another(small_backbone, colours):
    def losses(seed):
        backend.set_seed(seed)
        return classify.train(classify.transfer(small_backbone, 3, "fine_tune"), *colours, steps=4, seed=seed)["loss"]

    np.testing.assert_allclose(losses(0), losses(0), rtol=1e-4)
    assert not np.allclose(losses(0), losses(1), rtol=1e-4)


def test_input_size_resizes_bilinearly_inside_the_model(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    model = classify.transfer(small_backbone, 3, "frozen", input_size=32)
    large = keras.ops.convert_to_numpy(keras.ops.image.resize(images.astype(np.float32), (32, 32), "bilinear"))
    maps = small_backbone.predict_on_batch(large).mean((1, 2))
    kernel, bias = model.get_layer("classes").get_weights()
    logits = maps @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(model.predict_on_batch(images), expected, atol=1e-5)


def test_features_come_in_order_whatever_the_batch(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (23, 16, 16, 3)).astype(np.uint8)
    whole = small_backbone.predict_on_batch(images)
    for batch_size in (5, 23, 64):
        np.testing.assert_allclose(classify.features(small_backbone, images, batch_size), whole, atol=1e-5)
    two = keras.Model(small_backbone.input, [small_backbone.layers[2].output, small_backbone.output])
    first, second = classify.features(two, images, 10)
    assert first.shape[0] == 23
    np.testing.assert_allclose(second, whole, atol=1e-5)


def test_accuracy_counts_the_right_answers(small_backbone):
    model = classify.transfer(small_backbone, 3)
    images = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    answers = model.predict_on_batch(images).argmax(-1)
    labels = answers.copy()
    labels[:5] = (labels[:5] + 1) % 3
    assert classify.accuracy(model, images, labels) == pytest.approx(15 / 20)


def test_a_trial_reports_what_it_did_and_repeats(small_backbone, colours):
    images, labels = colours
    source = data.Dataset("colours", "train", images, labels, ("red", "green", "blue"))
    two = classify.trial(small_backbone, source, source, "fine_tune", 6, steps=20, seeds=(1, 2))
    (alone,) = classify.trial(small_backbone, source, source, "fine_tune", 6, steps=20, seeds=(2,))
    assert [row["seed"] for row in two] == [1, 2] and two[1]["accuracy"] == alone["accuracy"] > 0.5
    assert (alone["mode"], alone["per_class"]) == ("fine_tune", 6) and alone["seconds"] > 0


@pytest.mark.contract
def test_training_twice_starts_afresh(small_backbone, colours):
    model = classify.transfer(small_backbone, 3, "fine_tune")
    start = model.get_weights()
    first = classify.train(model, *colours, steps=5)["loss"]
    model.set_weights(start)
    classify.train(model, *colours, steps=3, learning_rate=0.1)
    model.set_weights(start)
    np.testing.assert_allclose(classify.train(model, *colours, steps=5)["loss"], first, rtol=1e-4)


class OldModel(keras.Model):
    """Gives the mean of the losses since it was last asked to reset its metrics, as Keras before 3.14 does."""

    own, losses = True, ()  # whether newer Keras resets on its own account, and what there was since

    def train_on_batch(self, *args, **kwargs):
        self.own = False
        loss = super().train_on_batch(*args, **kwargs)["loss"]
        self.own, self.losses = True, (*self.losses, float(loss))
        return {"loss": np.mean(self.losses)}

    def reset_metrics(self):
        self.losses = () if self.own else self.losses
        super().reset_metrics()


def test_a_step_reports_its_own_loss_on_older_versions_of_keras_too(colours):
    inputs = colours[0].reshape(len(colours[0]), -1)[:, :6] / 255
    losses = {}
    for kind in (keras.Model, OldModel):
        keras.utils.set_random_seed(0)
        pixels = keras.Input((6,))
        model = kind(pixels, keras.layers.Dense(3, activation="softmax")(pixels))
        losses[kind] = classify.fit(model, inputs, colours[1], steps=6, learning_rate=0.1)
    np.testing.assert_allclose(losses[OldModel], losses[keras.Model], rtol=1e-5)
    assert np.ptp(losses[keras.Model]) > 0.01


def test_augmentation_sees_every_batch_and_is_refused_for_a_frozen_body(small_backbone, colours):
    seen = []

    def note(batch, generator):
        seen.append(len(batch))
        return batch

    classify.train(classify.transfer(small_backbone, 3, "fine_tune"), *colours, steps=3, augment=note)
    assert seen == [32, 32, 32]
    with pytest.raises(ValueError, match="augment needs a trainable body"):
        classify.train(classify.transfer(small_backbone, 3), *colours, steps=1, augment=note)


def test_augment_flips_zooms_shifts_and_tints_each_picture_by_itself(colours):
    images, before = colours[0][:64], colours[0][:64].copy()
    same = classify.augment(images, np.random.default_rng(0), (1, 1), 0, 0)
    flipped = [(one == own[:, ::-1]).all() for one, own in zip(same, images, strict=True)]
    assert all(flip or (one == own).all() for flip, one, own in zip(flipped, same, images, strict=True))
    assert 16 < sum(flipped) < 48 and (images == before).all()
    square = np.zeros((64, 40, 40, 3), np.uint8)
    square[:, 16:24, 16:24] = 200
    larger = classify.augment(square, np.random.default_rng(0), (1.5, 1.5), 0, 0)
    np.testing.assert_allclose((larger > 100).sum((1, 2, 3)), 12 * 12 * 3, atol=60)
    centres = np.array([np.argwhere(one[..., 0] > 100).mean(0) for one in larger])
    np.testing.assert_allclose(centres, 19.5, atol=0.6)
    moved = classify.augment(square, np.random.default_rng(0), (1, 1), 0.2, 0)
    rows, columns = np.array([np.argwhere(one[..., 0] > 100).mean(0) for one in moved]).T - 19.5
    for offset in (rows, columns):
        assert offset.min() < -5 and offset.max() > 5 and abs(offset).max() < 0.2 * 40 + 1
    tinted = classify.augment(np.full((64, 8, 8, 3), 100, np.uint8), np.random.default_rng(0))
    assert tinted.dtype == np.uint8 and (tinted == tinted[:, :1, :1]).all()  # no edge comes into view
    levels = tinted[:, 0, 0]
    assert 72 <= levels.min() < 85 and 115 < levels.max() <= 132 and np.ptp(levels, axis=1).max() > 8


def test_bad_arguments_are_named(small_backbone, lite0, colours):
    images, labels = colours
    with pytest.raises(ValueError, match="mode='warm', expected 'frozen'"):
        classify.transfer(small_backbone, 3, "warm")
    with pytest.raises(ValueError, match="efficientnet_lite0 gives .*include_top=False"):
        classify.transfer(lite0, 3)
    with pytest.raises(ValueError, match=r"values 0…2; expected \(90,\) and 0…1"):
        classify.train(classify.transfer(small_backbone, 2), images, labels)
    with pytest.raises(ValueError, match="features: images are int64"):
        classify.features(small_backbone, images.astype(np.int64))


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
    for layer in classify.all_layers(model):
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
        assert_same_maps(model, classify.copy_body(model, mode))


def test_a_copied_body_keeps_what_normalization_computes_with_rather_than_its_weights():
    model = chain(keras.layers.Normalization(), conv())
    model.set_weights([w + 1 for w in model.get_weights()])  # the layer goes on with mean 0 until it is finalized
    assert_same_maps(model, classify.copy_body(model))


def test_a_body_from_scratch_keeps_its_preprocessing_alone():
    model = with_statistics(chain(keras.layers.Normalization(), conv()))
    copy = classify.copy_body(model, "scratch")
    assert_same_maps(chain(model.layers[1]), chain(copy.layers[1]))
    assert np.abs(model.layers[2].get_weights()[0] - copy.layers[2].get_weights()[0]).max() > 0.01


def test_fine_tuning_leaves_batch_normalization_within_a_layer_alone():
    copy = classify.copy_body(with_statistics(chain(Block(4))), "fine_tune")
    assert sorted(weight.name for weight in copy.trainable_weights) == ["bias", "kernel"]


def test_a_map_of_each_stride_is_found_where_a_layer_is_called_twice():
    first, halve = keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3, 2, "same")
    model = keras.Model(first, halve(halve(first)))
    copy = classify.copy_body(model, strides=(2, 4))
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
        classify.copy_body(chain(scale, conv()))
    with pytest.raises(ValueError, match="layer 'short', a NoOptions, can't be built again"):
        classify.copy_body(chain(NoOptions(), conv()))
    inside = chain(keras.layers.Conv2D(4, 3, 2, "same"), keras.layers.Conv2D(4, 3, 2, "same"))
    with pytest.raises(ValueError, match=f"no feature map of stride 2; .*within {inside.name} can't be reached"):
        classify.copy_body(chain(inside, conv()), strides=(2, 4))


def test_accuracy_says_where_a_model_gives_nan(small_backbone, colours):
    model = classify.transfer(small_backbone, 3)
    model.layers[-1].set_weights([w * np.nan for w in model.layers[-1].get_weights()])
    with pytest.raises(ValueError, match=r"accuracy: small_frozen gives \[nan, nan, nan\] for image 0"):
        classify.accuracy(model, *colours)


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
    assert_same_maps(with_statistics(model), classify.copy_body(model), 96)


@pytest.mark.parametrize("mode", ["frozen", "fine_tune", "scratch"])
def test_a_new_head_gives_all_classes_alike_unless_the_body_is_new_too(small_backbone, mode):
    backend.set_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    alike = np.allclose(classify.transfer(small_backbone, 4, mode).predict_on_batch(images), 0.25, atol=1e-6)
    assert alike == (mode != "scratch")


def test_a_copied_body_keeps_its_name_unless_it_gets_another(small_backbone):
    assert classify.copy_body(small_backbone).name == small_backbone.name
    assert classify.copy_body(small_backbone, name="body").name == "body"
    assert classify.copy_body(small_backbone, strides=(2, 8)).name == small_backbone.name
    assert classify.copy_body(small_backbone, strides=(2, 8), name="body").name == "body"
