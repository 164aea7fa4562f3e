"""Localization: the box that comes out is the one that was drawn, and the losses are what their formulas say."""

import gc
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cvlab import backend, boxes, data, localize


@pytest.fixture(scope="module")
def rectangles():
    """96 pictures, 32 high and 48 wide, with a bright red or green rectangle each: images, boxes, labels."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 40, (96, 32, 48, 3)).astype(np.uint8)
    top, left = generator.integers(0, 16, 96), generator.integers(0, 28, 96)
    height, width = generator.integers(8, 16, (2, 96))
    truth = np.stack([left, top, left + width, top + height], -1)
    labels = np.arange(96) % 2
    for image, (x0, y0, x1, y1), label in zip(images, truth, labels, strict=True):
        image[y0:y1, x0:x1, label] = 220
    return images, truth.astype(np.float32), labels


def small(backbone, num_classes=2, mode="frozen", head="votes", seed=0):
    backend.set_seed(seed)
    return localize.regressor(backbone, num_classes, mode, input_size=32, strides=(4, 8), head=head)


def copies(weights):
    return [np.array(w) for w in weights]


# The model


@pytest.mark.parametrize("head", ["votes", "dense"])
def test_boxes_are_in_order_and_the_class_head_gives_probabilities(small_backbone, rectangles, head):
    model = small(small_backbone, head=head)
    heads = model.get_layer("heads")
    wild = [np.random.default_rng(1).normal(size=w.shape) for w in heads.weights]
    heads.set_weights([abs(w) if "variance" in v.path else w for v, w in zip(heads.weights, wild, strict=True)])
    found = model.predict_on_batch(rectangles[0])
    assert found["box"].shape == (96, 4) and found["class"].shape == (96, 2)
    assert (found["box"][:, :2] <= found["box"][:, 2:]).all()
    np.testing.assert_allclose(found["class"].sum(-1), 1, atol=1e-5)
    assert ("trust" in found) == (head == "votes")
    assert set(small(small_backbone, None, head=head).output) == set(found) - {"class"}


def test_a_box_is_the_trusted_mean_of_what_the_cells_propose(small_backbone, rectangles):
    heads = small(small_backbone).get_layer("heads")
    inner = keras.Model(heads.inputs, [heads.get_layer("votes").output, heads.output["trust"], heads.output["box"]])
    shapes = [(4, *m.shape[1:]) for m in heads.inputs]
    features = [np.random.default_rng(2).normal(size=shape).astype(np.float32) for shape in shapes]
    votes, trust, box = (np.asarray(x) for x in inner.predict_on_batch(features))
    assert votes.shape == (4, 8, 8, 8)
    for picture in range(4):
        odds = np.exp(votes[picture, ..., 4:].astype(np.float64))
        weights = odds / odds.sum((0, 1))
        np.testing.assert_allclose(trust[picture], weights, atol=1e-5)
        reach = np.log1p(np.exp(votes[picture, ..., :4].astype(np.float64) - 1))
        centre = (np.arange(8) + 0.5) / 8
        x0, x1 = (weights[..., 0] * (centre - reach[..., 0])).sum(), (weights[..., 2] * (centre + reach[..., 2])).sum()
        y0 = (weights[..., 1] * (centre[:, None] - reach[..., 1])).sum()
        y1 = (weights[..., 3] * (centre[:, None] + reach[..., 3])).sum()
        wanted = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
        np.testing.assert_allclose(box[picture], wanted, atol=1e-4)


def test_cells_are_the_centres_of_a_map_in_fractions_of_the_picture():
    found = localize.cells(2, 4)
    np.testing.assert_allclose(found[0, :, 0], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(found[:, 3, 1], [0.25, 0.75])
    np.testing.assert_array_equal(found[..., :2], found[..., 2:])


def test_votes_move_with_the_features(small_backbone):
    """Shift what lies far from the border by one cell, and the trusted cells and their proposals shift by one."""
    model = localize.heads([(12, 12, 3)], head="votes")
    backend.set_seed(0)
    model.set_weights([np.random.default_rng(3).normal(size=w.shape, scale=0.3) for w in model.get_weights()])
    inner = keras.Model(model.inputs, model.get_layer("votes").output)
    features = np.zeros((2, 12, 12, 3), np.float32)
    features[0, 4:7, 4:7] = features[1, 4:7, 5:8] = np.random.default_rng(4).normal(size=(3, 3, 3))
    first, second = np.asarray(inner.predict_on_batch([features]))
    np.testing.assert_allclose(second[2:10, 3:10], first[2:10, 2:9], atol=1e-4)


def test_a_deep_dense_head_has_about_as_many_weights_as_the_votes():
    deep, votes = (localize.heads([(6, 6, 16)], head=head).count_params() for head in ("deep_dense", "votes"))
    assert 1 <= deep / votes < 1.1


def test_votes_keep_the_size_of_the_signal_through_their_rectified_layers():
    """He and others (2015): a variance of 2 / fan-in; with less, one seed in five learned slowly on the toys."""
    kernels = [w for w in localize.heads([(8, 8, 12)]).get_weights() if w.shape[:2] == (3, 3)]
    assert [w.shape[2:] for w in kernels] == [(64, 96), (96, 96)]
    for kernel in kernels:
        assert kernel.std() == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:3])), rel=0.02)


@pytest.mark.parametrize("strides", [(2, 4, 8), (8, 2, 4)])
def test_the_finest_map_sets_the_cells_and_the_class_head_sees_the_coarsest_in_any_order(small_backbone, strides):
    backend.set_seed(0)
    model = localize.regressor(small_backbone, 2, input_size=32, strides=strides)
    assert model.output["trust"].shape[1:] == (16, 16, 4)
    images = np.random.default_rng(5).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    found, maps = localize.maps(model, images), dict(zip(strides, localize.maps(model, images), strict=True))
    assert [m.shape[1] for m in found] == [32 // stride for stride in strides]
    kernel, bias = model.get_layer("heads").get_layer("class").get_weights()
    odds = np.exp(maps[8].mean((1, 2)) @ kernel + bias)
    wanted = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(localize.predict(model, images, found)["class"], wanted, atol=1e-5)


def test_a_model_is_let_go_when_nobody_needs_it(small_backbone, rectangles):
    model = small(small_backbone)
    localize.predict(model, rectangles[0][:4])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_wrong_head_mode_or_stride_is_named(small_backbone):
    with pytest.raises(ValueError, match="head='boxes', expected one of votes, dense, deep_dense"):
        localize.regressor(small_backbone, head="boxes")
    with pytest.raises(ValueError, match="mode='thaw', expected 'frozen'"):
        localize.regressor(small_backbone, mode="thaw", strides=(8,))
    with pytest.raises(ValueError, match="no feature map of stride 16; it has .*2, 4, 8"):
        localize.regressor(small_backbone, strides=(16,))


# The losses

BOX = st.tuples(*[st.integers(0, 44)] * 2, *[st.integers(4, 20)] * 2)  # in 64ths of the picture


def corners(x, y, width, height):
    return np.float32([[x, y, x + width, y + height]]) / 64


def loss_and_gradient(predicted, true, kind):
    value, gradient = backend.value_and_grad(lambda p: keras.ops.sum(localize.box_loss(true, p, kind)))(predicted)
    return float(value), keras.ops.convert_to_numpy(gradient)


@pytest.mark.contract
@given(BOX, BOX)
@settings(max_examples=60, deadline=None)
def test_losses_are_their_formulas(a, b):
    predicted, true = corners(*a), corners(*b)
    wanted = {
        "l1": np.abs(predicted - true).sum(),
        "iou": 1 - boxes.iou(true, predicted)[0, 0],
        "giou": 1 - boxes.giou(true, predicted)[0, 0],
        "diou": 1 - boxes.paired_diou(true, predicted)[0],
        "ciou": 1 - boxes.paired_ciou(true, predicted)[0],
    }
    assert set(wanted) == set(localize.LOSSES)
    for kind, value in wanted.items():
        assert loss_and_gradient(predicted, true, kind)[0] == pytest.approx(value, abs=1e-5)


@given(BOX, BOX)
@settings(max_examples=60, deadline=None)
def test_apart_the_iou_has_no_gradient_and_giou_and_l1_have_one(a, b):
    predicted, true = corners(*a), corners(*b)
    true = true + np.float32([1, 0, 1, 0])  # to the right of it
    value, gradient = loss_and_gradient(predicted, true, "iou")
    assert value == 1 and not gradient.any()
    assert loss_and_gradient(predicted, true, "giou")[1][0, 2] < 0  # the right side is to move to the right
    np.testing.assert_array_equal(np.sign(loss_and_gradient(predicted, true, "l1")[1][0, [0, 2]]), -1)


@pytest.mark.contract
def test_the_gradient_of_giou_is_that_of_small_differences():
    for predicted, true in (((6, 13, 12, 19), (13, 19, 25, 25)), ((6, 6, 6, 13), (38, 32, 12, 19))):
        predicted, true = corners(*predicted), corners(*true)
        gradient = loss_and_gradient(predicted, true, "giou")[1]
        for side, step in enumerate(np.eye(4) * 1e-3):
            high, low = (boxes.giou(true, predicted + s)[0, 0] for s in (step, -step))
            assert gradient[0, side] == pytest.approx(-(high - low) / 2e-3, abs=0.02)


@pytest.mark.parametrize(
    "call", [lambda: localize.box_loss([[0, 0, 1, 1]], [[0, 0, 1, 1]], "eiou"), lambda: localize._loss("eiou")]
)
def test_an_unknown_loss_is_answered_with_those_there_are(call):
    with pytest.raises(ValueError, match="kind='eiou', expected one of l1, iou, giou, diou, ciou"):
        call()


# Training


@pytest.mark.parametrize(
    ("head", "loss", "share"), [("votes", "l1", 0.8), ("votes", "iou", 0.8), ("dense", "giou", 0.4)]
)
def test_a_network_learns_to_find_rectangles_it_has_not_seen_and_names_their_colour(
    small_backbone, rectangles, head, loss, share
):
    images, truth, labels = rectangles
    same_box = np.tile(truth[:72].mean(0), (24, 1))  # what can be had without looking
    assert localize.scores(same_box, truth[72:])["> .5"] <= 0.1
    model = small(small_backbone, mode="scratch", head=head)
    trained = localize.train(model, images[:72], truth[:72], labels[:72], loss, steps=150, batch_size=24)
    assert len(trained["loss"]) == 150 and trained["loss"][-1] < 0.3 * trained["loss"][0]
    found = localize.predict(model, images[72:])
    assert localize.scores(found["box"], truth[72:])["> .5"] >= share
    assert (found["class"].argmax(-1) == labels[72:]).mean() >= 0.9


@pytest.mark.contract
def test_frozen_trains_the_heads_alone(small_backbone, rectangles):
    images, truth, labels = rectangles
    model = small(small_backbone)
    body, heads = model.get_layer("body"), model.get_layer("heads")
    before = copies(body.get_weights()), copies(heads.get_weights())
    localize.train(model, images, truth, labels, steps=5)
    assert all(np.array_equal(a, b) for a, b in zip(before[0], body.get_weights(), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(before[1], heads.get_weights(), strict=True) if a.size > 8)


def test_fine_tuning_moves_the_backbones_copy_and_not_the_backbone(small_backbone, rectangles):
    images, truth, labels = rectangles
    model, original = small(small_backbone, mode="fine_tune"), copies(small_backbone.get_weights())
    localize.train(model, images, truth, labels, steps=2, augment=localize.augment)
    assert not np.array_equal(model.get_layer("body").get_weights()[0], original[0])
    assert all(np.array_equal(a, b) for a, b in zip(original, small_backbone.get_weights(), strict=True))


def test_cached_maps_give_the_same_training_and_prediction_as_pictures(small_backbone, rectangles):
    images, truth, labels = rectangles
    predicted = []
    for use_cache in (True, False):
        model = small(small_backbone)
        cached = localize.maps(model, images) if use_cache else None
        losses = localize.train(model, images, truth, labels, steps=4, cached=cached)["loss"]
        predicted.append((losses, localize.predict(model, images, cached)["box"]))
    np.testing.assert_allclose(predicted[0][0], predicted[1][0], rtol=1e-5)
    np.testing.assert_allclose(predicted[0][1], predicted[1][1], atol=1e-4)
    whole = model.predict_on_batch(images)["box"] * [48, 32, 48, 32]  # pixels: x by the width, y by the height
    assert ((whole > 0) & (whole < [48, 32, 48, 32])).all()
    np.testing.assert_allclose(predicted[1][1], whole, atol=1e-3)


def test_a_predicted_box_ends_at_the_pictures_border(small_backbone, rectangles):
    model, images = small(small_backbone, head="dense"), rectangles[0][:2]
    for side in range(4):
        bias = np.float32([0, 0, 4, 4])  # in the middle, nearly as large as the picture
        bias[side % 2] = -1 if side < 2 else 1  # and shifted to the left, up, right or down
        dense = model.get_layer("heads").get_layer("dense")
        dense.set_weights([0 * dense.get_weights()[0], bias])
        raw, found = model.predict_on_batch(images)["box"], localize.predict(model, images)["box"]
        outside = (raw < 0) | (raw > 1)
        assert outside[:, side].all() and outside.sum() == 2
        np.testing.assert_allclose(found, np.clip(raw * [48, 32, 48, 32], 0, [48, 32, 48, 32]), atol=1e-4)


def test_the_same_seed_gives_the_same_network_and_another_seed_another(small_backbone, rectangles):
    images, truth, labels = rectangles

    def trained(seed):
        model = small(small_backbone, seed=seed)
        return localize.train(model, images, truth, labels, steps=3, batch_size=16, seed=seed)["loss"]

    assert trained(1) == pytest.approx(trained(1), rel=1e-5)
    assert trained(1) != pytest.approx(trained(2), rel=1e-3)


def test_what_does_not_fit_is_named(small_backbone, rectangles):
    images, truth, labels = rectangles
    model = small(small_backbone)
    with pytest.raises(ValueError, match=r"labels have shape \(\); expected \(96,\) and 0…1, as the model has a class"):
        localize.train(model, images, truth)
    for wrong, values in ((labels + 1, "1…2"), (labels - 1, "-1…0")):
        with pytest.raises(ValueError, match=rf"\(96,\) and values {values}; expected \(96,\) and 0…1"):
            localize.train(model, images, truth, wrong)
    with pytest.raises(ValueError, match="augment needs a trainable backbone"):
        localize.train(model, images, truth, labels, augment=localize.augment)
    with pytest.raises(ValueError, match=r"boxes have shape \(95, 4\), expected \(96, 4\)"):
        localize.train(model, images, truth[1:], labels)
    with pytest.raises(ValueError, match="localize.predict: images are float64"):
        localize.predict(model, images / 255.0)


def test_maps_of_other_pictures_or_another_network_are_refused(small_backbone, rectangles):
    images, truth, labels = rectangles
    model = small(small_backbone)
    cached = localize.maps(model, images)
    fitting = r"expected \[\(96, 8, 8, \d+\), \(96, 4, 4, \d+\)\]"
    for wrong in ([m[:95] for m in cached], [cached[0], cached[1][:95]], cached[::-1], cached[:1], cached[0]):
        with pytest.raises(ValueError, match=rf"cached has shapes .*, {fitting}"):
            localize.train(model, images, truth, labels, cached=wrong)
        with pytest.raises(ValueError, match=rf"cached has shapes .*, {fitting}"):
            localize.predict(model, images, wrong)
    with pytest.raises(ValueError, match="cached needs a frozen backbone"):
        localize.train(small(small_backbone, mode="fine_tune"), images, truth, labels, cached=cached)


@pytest.mark.parametrize("wrong", [[3, 4, 3, 9], [9, 4, 3, 9], [0, 0, 49, 8], [-2, 0, 9, 8]])
def test_a_box_that_is_empty_or_outside_is_named(wrong):
    with pytest.raises(ValueError, match=r"box 1 is \[.*\], empty or outside its image; .* within 48×32 pixels"):
        localize.fractions([[0, 0, 48, 32], wrong], np.zeros((2, 32, 48, 3), np.uint8))


def test_fractions_divide_x_by_the_width_and_y_by_the_height():
    found = localize.fractions([[12, 8, 48, 32]], np.zeros((1, 32, 48, 3), np.uint8))
    np.testing.assert_allclose(found, [[0.25, 0.25, 1, 1]])


# Augmentation


def test_boxes_follow_what_augmentation_does_to_the_pictures(rectangles):
    images, truth, _ = rectangles
    flat = np.where(images > 100, images, 0).astype(np.uint8)  # the rectangle alone
    before = flat.copy(), truth.copy()
    changed, moved = localize.augment(flat, truth, np.random.default_rng(0))
    assert np.array_equal(before[0], flat) and np.array_equal(before[1], truth)
    assert changed.shape == flat.shape and changed.dtype == np.uint8
    sizes = boxes.area(moved) / boxes.area(truth)
    assert sizes.min() < 0.6 and sizes.max() > 1.4
    for image, box in zip(changed, moved, strict=True):
        rows, columns = np.nonzero(image.max(-1) > 110)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(seen, box, atol=1.01)
        assert (box >= 0).all() and (box <= [48, 32, 48, 32]).all()


def test_half_of_the_pictures_are_flipped_and_none_loses_more_than_a_fifth_of_its_box():
    images = np.zeros((400, 40, 40, 3), np.uint8)
    images[:, 5:15, 2:12] = 255
    truth = np.tile(np.float32([2, 5, 12, 15]), (400, 1))
    flipped, moved = localize.augment(images, truth, np.random.default_rng(1), zoom=(1, 1), shift=0)
    left = moved[:, 0] == 2
    assert 0.4 < left.mean() < 0.6
    np.testing.assert_array_equal(moved[~left], np.tile([28, 5, 38, 15], ((~left).sum(), 1)))
    np.testing.assert_array_equal(flipped[~left][0], images[0][:, ::-1])
    _, moved = localize.augment(images, truth, np.random.default_rng(1), zoom=(1, 1), shift=0.5)
    assert boxes.area(moved).min() >= 80 and (boxes.area(moved) < 100).any()


# Scores and data


def test_scores_count_pictures_above_a_threshold_and_not_at_it():
    truth = np.float32([[0, 0, 4, 4]] * 4)
    predicted = np.float32([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3.5], [5, 5, 6, 6]])  # IoU 1, 0.5, 0.875, 0
    assert localize.scores(predicted, truth) == pytest.approx({"IoU": 2.375 / 4, "> .5": 0.5, "> .75": 0.5})


def test_pictures_with_one_box_are_kept_and_the_others_left_out(tmp_path):
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    for name, found in {"a": 1, "b": 2, "c": 1, "d": 2}.items():
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / f"{name}.jpg")
        box = "<xmin>11</xmin><ymin>1</ymin><xmax>30</xmax><ymax>10</ymax>"
        entry = f"<object><name>{'cat' if name == 'a' else 'dog'}</name><bndbox>{box}</bndbox></object>"
        (tmp_path / "annotations" / f"{name}.xml").write_text(f"<annotation>{entry * found}</annotation>")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("d")
    part = localize.load("voc", "train", path=tmp_path, size=80)
    assert part.images.shape == (2, 80, 80, 3) and [*part.labels] == [0, 1]
    np.testing.assert_allclose(part.boxes, [[20, 0, 60, 40]] * 2)  # from 40×20 to 80×80
    with pytest.raises(ValueError, match="voc has no image with one box"):
        localize.load("voc", "val", path=tmp_path)


def test_objects_come_as_they_are():
    part = localize.load("objects", "val", limit=5)
    np.testing.assert_array_equal(part.boxes, data.load("objects", "val", limit=5).boxes)


def test_mnist_comes_on_canvases_that_differ_between_splits(monkeypatch):
    def load(name, split, size=None, limit=None):
        assert name == "mnist" and size is None
        shape = (limit, 28, 28, 3)
        return data.Dataset(name, split, np.full(shape, 200, np.uint8), np.arange(limit), tuple("0123456789"))

    monkeypatch.setattr(data, "load", load)
    train, test = (localize.load("mnist", split, size=96, limit=5) for split in ("train", "test"))
    assert train.images.shape == (5, 75, 75, 3) and [*train.labels] == [0, 1, 2, 3, 4]
    assert not np.array_equal(train.boxes, test.boxes)


@given(st.integers(0, 2**32 - 1), st.integers(20, 40))
@settings(max_examples=20, deadline=None)
def test_a_digits_box_is_the_box_around_its_ink_and_nothing_is_lost(seed, canvas):
    generator = np.random.default_rng(seed)
    digits = np.zeros((3, 20, 12, 3), np.uint8)
    digits[:, 4:15, 3:9] = generator.integers(0, 256, (3, 11, 6, 1))
    digits[:, 9, 6] = 255
    images, found = localize.digits_on_canvas(digits, canvas, seed)
    assert images.shape == (3, canvas, canvas, 3) and found.dtype == np.float32
    for image, digit, (x0, y0, x1, y1) in zip(images, digits, found.astype(int), strict=True):
        ink = image[..., 0] > 50
        assert ink[y0:y1, x0:x1].sum() == ink.sum() == (digit[..., 0] > 50).sum()
        assert ink[y0].any() and ink[y1 - 1].any() and ink[:, x0].any() and ink[:, x1 - 1].any()
        assert image.sum() == digit.sum()


def test_digits_reach_every_place_of_the_canvas_and_the_seed_decides_which():
    digits = np.full((2000, 4, 4, 3), 255, np.uint8)
    found = localize.digits_on_canvas(digits, 9, seed=3)[1]
    assert {tuple(box) for box in found[:, :2].astype(int).tolist()} == {(x, y) for x in range(6) for y in range(6)}
    np.testing.assert_array_equal(found, localize.digits_on_canvas(digits, 9, seed=3)[1])
    assert not np.array_equal(found, localize.digits_on_canvas(digits, 9, seed=4)[1])
    with pytest.raises(ValueError, match="canvas=3, expected at least 4"):
        localize.digits_on_canvas(digits, 3)
    digits[7] = 0
    with pytest.raises(ValueError, match="digit 7 has no pixel"):
        localize.digits_on_canvas(digits, 9)
