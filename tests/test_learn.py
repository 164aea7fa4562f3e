"""The training loop, cached features, and views of images that boxes follow."""

import keras
import numpy as np
import pytest

from cvlab import learn


def test_every_picture_is_seen_once_before_any_is_seen_twice():
    seen = []

    def draw(rows, generator):
        seen.extend(rows.tolist())
        return np.zeros((len(rows), 1), np.float32), np.zeros((len(rows), 1), np.float32)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    learn.optimize(model, "mse", draw, 10, steps=5, batch_size=4)
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

        learn.optimize(whole, ["mse"] * len(models), draw, len(x), steps=5, learning_rate=0.1)
        return [model.get_weights()[0] for model in models]

    targets = [x @ np.float32([[1], [-1], [2]]), x @ np.float32([[-3], [0], [1]])]
    together = learned([part(), part()], targets)
    for own, target in zip(together, targets, strict=True):
        np.testing.assert_allclose(own, learned([part()], [target])[0], atol=1e-4)


def test_features_come_in_order_whatever_the_batch(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (23, 16, 16, 3)).astype(np.uint8)
    whole = small_backbone.predict_on_batch(images)
    for batch_size in (5, 23, 64):
        np.testing.assert_allclose(learn.features(small_backbone, images, batch_size), whole, atol=1e-5)
    two = keras.Model(small_backbone.input, [small_backbone.layers[2].output, small_backbone.output])
    first, second = learn.features(two, images, 10)
    assert first.shape[0] == 23
    np.testing.assert_allclose(second, whole, atol=1e-5)


def test_boxes_follow_the_view_of_their_image():
    generator = np.random.default_rng(0)
    for _ in range(20):
        image = np.zeros((60, 80, 3), np.float32)
        image[20:40, 30:50] = 255
        view = learn.random_view(image.shape, generator, (0.7, 1.4), 0.1)
        moved, visible = learn.warped_boxes(np.float32([[30, 20, 50, 40]]), (80, 60), *view)
        y, x = np.nonzero(learn.warped(image, *view, outside=0)[..., 0] > 127)
        np.testing.assert_allclose(visible[0], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1)
        np.testing.assert_allclose(visible, np.clip(moved, 0, [80, 60, 80, 60]), atol=1e-4)


def test_a_flipped_box_is_the_mirror_of_the_box_and_one_out_of_view_has_no_area():
    boxes = np.float32([[10, 5, 30, 25], [0, 0, 80, 60]])
    moved, visible = learn.warped_boxes(boxes, (80, 60), True, 1.0, np.zeros(2))
    assert moved.tolist() == visible.tolist() == [[50, 5, 70, 25], [0, 0, 80, 60]]
    moved, visible = learn.warped_boxes(boxes[:1], (80, 60), False, 2.0, np.float32([100, -10]))
    assert moved.tolist() == [[120, 0, 160, 40]] and visible.tolist() == [[80, 0, 80, 40]]
    assert boxes.tolist() == [[10, 5, 30, 25], [0, 0, 80, 60]]


@pytest.mark.contract
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_smooth_l1_is_the_huber_loss_of_the_offsets_that_count(beta):
    generator = np.random.default_rng(0)
    targets, offsets = generator.normal(size=(2, 3, 5)), generator.normal(size=(2, 3, 4))
    targets[..., 4] = [[1, 0, 1], [1, 1, 0]]
    losses = keras.ops.convert_to_numpy(learn.smooth_l1(targets.astype("float32"), offsets.astype("float32"), beta))
    huber = keras.ops.convert_to_numpy(keras.losses.huber(targets[..., :4], offsets, delta=beta))  # the mean of four
    np.testing.assert_allclose(losses, 4 * huber / beta * targets[..., 4], rtol=1e-5)


@pytest.mark.contract
def test_the_mean_of_scaled_losses_is_their_sum_by_the_number_of_positives():
    loss, positive = np.float32([1, 2, 6]), np.float32([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    scaled = keras.ops.convert_to_numpy(learn.per_positive(*map(keras.ops.convert_to_tensor, (loss, positive))))
    assert scaled.mean() == pytest.approx(9 / 4)
    none = keras.ops.convert_to_numpy(learn.per_positive(*map(keras.ops.convert_to_tensor, (loss, 0 * positive))))
    assert none.mean() == pytest.approx(9)


def test_batches_are_the_rows_of_all_inputs_and_targets():
    draw = learn.batches([np.arange(5), np.arange(10).reshape(5, 2)], {"a": np.arange(5) * 2})
    inputs, targets = draw(np.array([3, 0]), None)
    assert [array.tolist() for array in inputs] == [[3, 0], [[6, 7], [0, 1]]]
    assert targets["a"].tolist() == [6, 0]
