"""Backbones and transfer: the right numbers come out, and what is frozen stays as it was."""

import keras
import numpy as np
import pytest

from cvlab import backend, classify, data


@pytest.fixture(scope="module")
def colours():
    """Pictures of three noisy colours, which any classifier learns."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 60, (90, 32, 32, 3)) + 180 * np.eye(3, dtype=int)[labels][:, None, None]
    return images.astype(np.uint8), labels


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


def test_bad_arguments_are_named(small_backbone, colours):
    images, labels = colours
    with pytest.raises(ValueError, match="mode='warm', expected 'frozen'"):
        classify.transfer(small_backbone, 3, "warm")
    with pytest.raises(ValueError, match="efficientnet_lite0 gives .*include_top=False"):
        classify.transfer(classify.efficientnet_lite0(weights=None), 3)
    with pytest.raises(ValueError, match=r"values 0…2; expected \(90,\) and 0…1"):
        classify.train(classify.transfer(small_backbone, 2), images, labels)
    with pytest.raises(ValueError, match="features: images are int64"):
        classify.features(small_backbone, images.astype(np.int64))


def test_accuracy_says_where_a_model_gives_nan(small_backbone, colours):
    model = classify.transfer(small_backbone, 3)
    model.layers[-1].set_weights([w * np.nan for w in model.layers[-1].get_weights()])
    with pytest.raises(ValueError, match=r"accuracy: small_frozen gives \[nan, nan, nan\] for image 0"):
        classify.accuracy(model, *colours)


@pytest.mark.parametrize("mode", ["frozen", "fine_tune", "scratch"])
def test_a_new_head_gives_all_classes_alike_unless_the_body_is_new_too(small_backbone, mode):
    backend.set_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    alike = np.allclose(classify.transfer(small_backbone, 4, mode).predict_on_batch(images), 0.25, atol=1e-6)
    assert alike == (mode != "scratch")
