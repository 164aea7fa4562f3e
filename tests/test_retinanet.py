"""cvlab.retinanet: anchors and what they learn, losses by the paper's formulas, checkpoints that say what fitted."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cvlab import backend, boxes, classify, data, files, retinanet
from cvlab.engine import convolution

NAMES = ("disc", "square")


@pytest.fixture(scope="module")
def config():
    return retinanet.RetinaNetConfig(NAMES, input_size=64, strides=(4, 8), anchor_sizes=(12, 24), channels=16, depth=1)


@pytest.fixture
def model(config, small_backbone):
    backend.set_seed(0)
    return retinanet.build(config, body=classify.copy_body(small_backbone, "fine_tune", [4, 8], name="backbone"))


def shapes(count, seed=0, side=64):
    """Draw grey pictures with a bright disc and a dark square each → images, boxes, labels."""
    generator, images, truth = np.random.default_rng(seed), [], []
    y, x = np.mgrid[:side, :side] + 0.5
    for _ in range(count):
        image = generator.normal(120, 10, (side, side, 3))
        (ax, ay), (bx, by) = generator.uniform((10, 10), (22, 54)), generator.uniform((42, 10), (54, 54))
        r, h = generator.uniform(6, 9, 2).round()
        ax, ay, bx, by = np.round([ax, ay, bx, by])
        image[(x - ax) ** 2 + (y - ay) ** 2 < r**2] = 240
        image[(abs(x - bx) < h) & (abs(y - by) < h)] = 10
        images.append(image.clip(0, 255).astype(np.uint8))
        truth.append(np.float32([[ax - r, ay - r, ax + r, ay + r], [bx - h, by - h, bx + h, by + h]]))
    return np.stack(images), truth, [np.array([0, 1])] * count


# --- configuration


def test_a_configuration_survives_its_yaml_file(config, tmp_path):
    config.save(tmp_path / "net.yml")
    assert retinanet.RetinaNetConfig.load(tmp_path / "net.yml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["net.yml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class_names: [a]\nanchor_size: [3]\n", "anchor_size.*class_names, backbone"),
        ("backbone: resnet20\n", "class_names"),
        ("- 1\n", "it may hold class_names"),
        ("a: [\n", "it may hold class_names"),
        ("class_names: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
)
def test_a_wrong_yaml_file_is_told(tmp_path, text, words):
    (tmp_path / "net.yml").write_text(text)
    with pytest.raises(ValueError, match=f"(?s)net.yml.*{words}"):
        retinanet.RetinaNetConfig.load(tmp_path / "net.yml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ()}, "at least one"),
        ({"class_names": ("duck", "duck")}, "without duplicates"),
        ({"class_names": "duck"}, "'duck'"),
        ({"strides": (8, 16)}, "one of each per level"),
        ({"strides": (8, 16, 64)}, "twice the one before"),
        ({"input_size": 200}, "multiple of 32"),
        ({"prior": 1.0}, "between 0 and 1"),
    ],
)
def test_a_wrong_configuration_is_told(changes, words):
    with pytest.raises(ValueError, match=words):
        retinanet.RetinaNetConfig(**{"class_names": NAMES, **changes})


def test_the_papers_anchors_are_nine_a_cell_from_32_to_813_pixels():
    paper = retinanet.RetinaNetConfig(NAMES, "resnet50", 640, (8, 16, 32, 64, 128), (32, 64, 128, 256, 512))
    levels = paper.anchors(by_level=True)
    assert [len(level) for level in levels] == [9 * (640 // stride) ** 2 for stride in paper.strides]
    assert sum(map(len, levels)) == 76_725
    width, height = (levels[0][:9, 2:] - levels[0][:9, :2]).T  # of the cell at the top left, centred at (4, 4)
    np.testing.assert_allclose((levels[0][:9, :2] + levels[0][:9, 2:]) / 2, 4, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(width * height), np.tile([32, 40.3175, 50.7968], 3), rtol=1e-5)
    np.testing.assert_allclose(height / width, np.repeat([0.5, 1, 2], 3), rtol=1e-5)
    assert np.sqrt(np.prod(levels[-1][0, 2:] - levels[-1][0, :2])) == pytest.approx(512)
    assert np.sqrt(boxes.area(levels[-1]).max()) == pytest.approx(812.75, abs=0.01)


# --- architecture


def test_the_levels_have_the_strides_that_the_configuration_says():
    config = retinanet.RetinaNetConfig(
        NAMES, "resnet20", 64, (2, 4, 8, 16, 32, 64), (4, 8, 16, 32, 64, 128), channels=8
    )
    with pytest.raises(ValueError, match="no feature map of stride 8; it has 1, 2, 4"):
        retinanet.build(config, weights=None)
    pixels = keras.Input((None, None, 3))
    maps = [keras.layers.Conv2D(4, 3, stride, "same")(pixels) for stride in (2, 4, 8, 16, 32)]
    model = retinanet.build(config, body=keras.Model(pixels, maps, name="backbone"))
    levels = model.get_layer("fpn").output
    assert [level.shape[-1] for level in levels] == [8] * 6
    found = model.predict_on_batch(np.zeros((1, 64, 64, 3), "uint8"))
    count = 9 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2 + 1)
    assert found["class"].shape == (1, count, 2) and found["box"].shape == (1, count, 4) == (1, *config.anchors().shape)


def test_each_output_belongs_to_the_anchor_at_its_place(config, model):
    """What a head says of a cell stands where the anchors around that cell's centre stand, nine in a row."""
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    body, fpn, *_ = (model.get_layer(part) for part in retinanet.PARTS)
    levels = [keras.ops.convert_to_numpy(level) for level in fpn(body(image))]
    found, centres = model.predict_on_batch(image), boxes.convert(config.anchors(), "xyxy", "cxcywh")[:, :2]
    logits = lambda level: model.get_layer("class_logits")(model.get_layer("class_tower")(level))  # noqa: E731
    for head, name, width in ((model.get_layer("box_head"), "box", 4), (logits, "class", 2)):
        start = 0
        for level, stride in zip(levels, config.strides, strict=True):
            said = keras.ops.convert_to_numpy(head(level))[0]
            for row, column in ((0, 0), (2, 5), (7, 1)):
                first = start + 9 * (row * said.shape[1] + column)
                of_cell = found[name][0, first : first + 9]
                np.testing.assert_allclose(of_cell, said[row, column].reshape(9, width), rtol=1e-3, atol=1e-5)
                where = [[(column + 0.5) * stride, (row + 0.5) * stride]] * 9
                np.testing.assert_allclose(centres[first : first + 9], where, atol=1e-4)
            start += 9 * said.shape[0] * said.shape[1]
        assert start == len(centres)


def test_the_coarser_level_reaches_the_finer_one_and_not_the_other_way_round(config):
    fpn = retinanet.pyramid(config, [3, 5])
    fine, coarse = np.zeros((1, 8, 8, 3), "float32"), np.zeros((1, 4, 4, 5), "float32")
    before = [keras.ops.convert_to_numpy(level) for level in fpn([fine, coarse])]
    coarse[0, 3, 3] = 1
    after = [keras.ops.convert_to_numpy(level) for level in fpn([fine, coarse])]
    changed = abs(after[0] - before[0]).sum((0, 3)) > 0
    assert changed[5:, 5:].all() and not changed[:5].any()  # 2×2 cells by the 3×3 convolution
    assert abs(after[1] - before[1]).max() > 0
    fine[0, 0, 0] = 1
    last = [keras.ops.convert_to_numpy(level) for level in fpn([fine, coarse])]
    np.testing.assert_array_equal(last[1], after[1])
    assert abs(last[0] - after[0]).max() > 0


def test_the_prior_sits_on_the_class_head_and_nowhere_else(config, model):
    biases = {
        name: keras.ops.convert_to_numpy(v)
        for name, v in retinanet.weights(model).items()
        if name.endswith("bias") and not name.startswith("backbone")
    }
    np.testing.assert_allclose(biases.pop("class_logits/logits/bias"), -np.log(99), rtol=1e-6)
    assert len(biases) > 6 and all((bias == 0).all() for bias in biases.values())
    found = model.predict_on_batch(np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32"))
    assert np.median(1 / (1 + np.exp(-found["class"]))) == pytest.approx(0.01, rel=0.2)


def test_the_first_focal_loss_is_what_the_papers_formula_gives(config, model):
    """With p = π everywhere: A negatives of (1 − α) π² (−log(1 − π)) a class, and positives of α (1 − π)² (−log π)."""
    images, own, labels = shapes(4)
    model.get_layer("class_logits").layers[-1].kernel.assign(np.zeros((3, 3, 16, 18)))
    learns = retinanet.targets(config, own, labels, [(64, 64)] * 4)["class"][..., 0]
    positive, kept = (learns >= 0).sum(), (learns > -2).sum()
    yes, no = 0.25 * 0.99**2 * -np.log(0.01), 0.75 * 0.01**2 * -np.log(0.99)
    expected = (positive * yes + (2 * kept - positive) * no) / positive
    retinanet.trainable(model, "class_logits/logits/bias")
    model.get_layer("box_head").layers[-1].kernel.assign(np.zeros((3, 3, 16, 36)))
    first = retinanet.train(model, images, own, labels, 1, 0.0, 4)["loss"][0]
    wanted = retinanet.targets(config, own, labels, [(64, 64)] * 4)["box"]
    sides = abs(wanted[..., :4])
    of_boxes = np.where(sides < 0.1, 5 * sides**2, sides - 0.05).sum() / positive
    assert first == pytest.approx(expected + of_boxes, rel=1e-4)
    assert expected == pytest.approx(1.13, abs=0.02)


# --- Winograd's convolution


def plainly(maps, kernel):
    return keras.ops.conv(maps, kernel, padding="same")


def test_a_network_says_and_learns_the_same_without_winograd(model, monkeypatch):
    images, own, labels = shapes(4)
    start, ends = model.get_weights(), []
    for way in (convolution.winograd, plainly):
        monkeypatch.setattr(convolution, "winograd", way)
        model.set_weights(start)
        retinanet.trainable(model, "*")
        model.make_predict_function(force=True)
        said = model.predict_on_batch(images.astype("float32"))
        ends.append([said["class"], said["box"], retinanet.train(model, images, own, labels, 3, 1e-3, 4)["loss"]])
    for first, second in zip(*ends, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


# --- what anchors learn


def test_an_anchor_learns_by_its_iou():
    anchors = np.float32(
        [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [0, 0, 10, 4], [0, 0, 10, 3.9], [20, 20, 30, 30]]
    )
    learns, chosen = retinanet.match([[0, 0, 10, 10]], [3], anchors)  # IoU 1, 0.5, 0.45, 0.4, 0.39, 0
    assert learns.tolist() == [3, 3, -2, -2, -1, -1]
    assert chosen.tolist() == [0] * 6


def test_an_anchor_between_two_boxes_learns_the_one_it_overlaps_more():
    anchors = np.float32([[0, 0, 10, 10], [4, 0, 14, 10]])
    learns, chosen = retinanet.match([[5, 0, 15, 10], [0, 0, 11, 10]], [7, 2], anchors)
    assert learns.tolist() == [2, 7] and chosen.tolist() == [1, 0]


def test_a_box_that_no_anchor_reaches_gets_the_closest():
    anchors = np.float32([[0, 0, 10, 10], [0, 0, 40, 40], [50, 50, 60, 60]])
    learns, chosen = retinanet.match([[0, 0, 3, 3], [50, 50, 60, 60]], [1, 0], anchors)
    assert learns.tolist() == [1, -1, 0] and chosen[[0, 2]].tolist() == [0, 1]


def test_a_box_outside_all_anchors_gets_none_and_no_box_makes_all_background():
    anchors = np.float32([[0, 0, 10, 10]])
    assert retinanet.match([[50, 50, 60, 60]], [1], anchors)[0].tolist() == [-1]
    assert retinanet.match(np.empty((0, 4)), [], anchors)[0].tolist() == [-1]


def test_targets_decode_to_the_boxes_in_the_models_pixels(config):
    own, labels = [np.float32([[10, 20, 40, 60]]), np.empty((0, 4))], [[1], []]
    wanted = retinanet.targets(config, own, labels, [(128, 100), (64, 64)])
    counts = wanted["box"][0, :, 4] > 0
    assert counts.sum() == (wanted["class"][0] == 1).sum() > 0 and not wanted["box"][1].any()
    there = boxes.decode(wanted["box"][0, counts, :4], config.anchors()[counts], retinanet.VARIANCES)
    np.testing.assert_allclose(there, [[10 / 2, 20 * 0.64, 40 / 2, 60 * 0.64]] * counts.sum(), rtol=1e-5)


def test_coverage_is_the_best_iou_of_each_box(config):
    anchors = config.anchors()
    reach = retinanet.coverage(
        config, [anchors[:2] * 2, np.empty((0, 4)), [[0, 0, 2, 2]]], [(128, 128), (9, 9), (64, 64)]
    )
    np.testing.assert_allclose(reach[:2], 1, rtol=1e-5)
    assert reach[2] == pytest.approx(boxes.iou([[0, 0, 2, 2]], anchors).max()) and reach[2] < 0.1 and len(reach) == 3


# --- losses


@pytest.mark.contract
@settings(deadline=None, max_examples=50)
@given(
    arrays.arrays(np.float32, (5, 3), elements=st.floats(-30, 30, width=32)),
    st.sampled_from([0.0, 0.5, 2.0, 5.0]),
    st.floats(0.05, 0.95),
)
def test_focal_loss_is_the_papers_formula_in_float64(logits, gamma, alpha):
    learns = np.array([[-2], [-1], [0], [1], [2]])
    z = logits.astype(np.float64)
    truth = learns == np.arange(3)
    log_p = -np.logaddexp(0, np.where(truth, -z, z))  # log of the probability of what is true
    expected = (np.where(truth, alpha, 1 - alpha) * (1 - np.exp(log_p)) ** gamma * -log_p).sum(1) * (learns[:, 0] > -2)
    found = keras.ops.convert_to_numpy(retinanet.focal_loss(learns, logits, gamma, alpha))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits = np.random.default_rng(0).normal(0, 3, (20, 4)).astype("float32")
    learns = np.random.default_rng(1).integers(-1, 4, (20, 1))
    expected = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(learns == np.arange(4), logits) * 4 / 2
    found = retinanet.focal_loss(learns, logits, gamma=0, alpha=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_focal_loss_agrees_with_keras():
    logits = np.random.default_rng(0).normal(0, 3, (20, 4)).astype("float32")
    learns = np.random.default_rng(1).integers(-1, 4, (20, 1))
    truth = (learns == np.arange(4)).astype("float32")
    theirs = keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True, reduction=None)
    np.testing.assert_allclose(retinanet.focal_loss(learns, logits), theirs(truth, logits) * 4, rtol=1e-4, atol=1e-6)


@pytest.mark.contract
def test_no_gradient_of_the_focal_loss_is_nan_far_out():
    learns = np.array([[0], [-1]])
    step = backend.value_and_grad(lambda z: keras.ops.sum(retinanet.focal_loss(learns, z)))
    for z in (-200.0, 0.0, 200.0):
        value, gradient = step(np.full((2, 2), z, "float32"))
        assert np.isfinite(float(value)) and np.isfinite(keras.ops.convert_to_numpy(gradient)).all()


def test_box_loss_is_quadratic_near_and_linear_far_and_none_without_a_box():
    wanted = np.float32([[[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]])
    offsets = np.float32([[[0.05, 0, -2, 0], [9, 9, 9, 9]]])
    found = keras.ops.convert_to_numpy(retinanet.box_loss(wanted, offsets))
    np.testing.assert_allclose(found, [[0.5 * 0.05**2 / 0.1 + 2 - 0.05, 0]], rtol=1e-5)


# --- training and detecting


@pytest.mark.contract
def test_it_learns_and_finds_what_it_learned(model):
    images, own, labels = shapes(96)
    retinanet.trainable(model, "*")
    losses = retinanet.train(model, images, own, labels, 150, 5e-3, 8)["loss"]
    assert np.mean(losses[-10:]) < 0.3 * losses[0]
    images, own, labels = shapes(24, seed=1)
    scored = retinanet.scores(retinanet.detect(model, images), own, labels, NAMES)
    assert scored["AP50"] > 0.9 and scored["AP50_by_class"]["disc"] > 0.85
    larger = [np.repeat(np.repeat(image, 3, 0), 2, 1) for image in images]  # twice as wide, three times as high
    found = retinanet.detect(model, larger)
    scored = retinanet.scores(found, [b * np.float32([2, 3, 2, 3]) for b in own], labels, NAMES)
    assert scored["AP50"] > 0.85
    assert all((f["boxes"] >= 0).all() and (f["boxes"] <= [128, 192, 128, 192]).all() for f in found)


def test_images_that_are_not_square_are_trained_on_like_the_squares_they_are_resized_to(model):
    wide, square = np.full((1, 40, 80, 3), 127, "uint8"), np.full((1, 80, 80, 3), 127, "uint8")
    weights, losses = model.get_weights(), []
    for images, box in ((wide, [20, 10, 60, 30]), (square, [20, 20, 60, 60])):
        model.set_weights(weights)
        losses.append(retinanet.train(model, images, [np.array([box], "float32")], [np.array([1])], 1, 1e-3, 1)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.contract
@pytest.mark.parametrize("learns", [("box_head/", "class_"), ("class_logits/",)])
def test_what_is_frozen_stays_and_training_in_two_pieces_is_the_same(config, model, learns):
    """With frozen parts, training on their cached maps changes what training on images does, with the same losses."""
    images, own, labels = shapes(4)
    start = model.get_weights()
    retinanet.trainable(model, [f"{part}*" for part in learns])
    losses = retinanet.train(model, images, own, labels, 3, 1e-3, 2)["loss"]
    cached = {name: keras.ops.convert_to_numpy(v) for name, v in retinanet.weights(model).items()}
    model.set_weights(start)
    same = {name: keras.ops.convert_to_numpy(v) for name, v in retinanet.weights(model).items()}
    changed = {name for name in same if (same[name] != cached[name]).any()}
    assert changed == {name for name in same if name.startswith(learns)}
    wanted = retinanet.targets(config, own, labels, [(64, 64)] * 4)

    def draw(rows, generator):
        return images[rows], {name: target[rows] for name, target in wanted.items()}

    whole = classify.optimize(model, retinanet._losses(2.0, 0.25), draw, 4, 3, 1e-3, 2, 0)
    np.testing.assert_allclose(losses, whole, rtol=1e-4)
    for name, v in retinanet.weights(model).items():
        np.testing.assert_allclose(keras.ops.convert_to_numpy(v), cached[name], atol=2e-4)


@pytest.mark.contract
def test_the_same_seed_gives_the_same_weights(model):
    images, own, labels = shapes(6)
    start, runs = model.get_weights(), []
    retinanet.trainable(model, "*")
    for seed in (1, 1, 2):
        model.set_weights(start)
        runs.append(retinanet.train(model, images, own, labels, 2, 1e-3, 4, retinanet.augment, seed=seed)["loss"])
    assert runs[0] == pytest.approx(runs[1], rel=1e-5) and runs[0] != pytest.approx(runs[2], rel=1e-3)


def test_suppression_by_hand():
    """Three anchors, two classes: the sure one drowns its neighbour of the same class, and not that of the other."""
    anchors = np.float32([[0, 0, 10, 10], [0, 1, 10, 11], [30, 30, 40, 40]])
    logits = np.float32([[3, -9], [2, 1], [-9, -9]])
    offsets = np.float32([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = retinanet.suppress(logits, offsets, anchors)
    np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp([-3, -1])), rtol=1e-6)
    assert found["labels"].tolist() == [0, 1]
    np.testing.assert_allclose(found["boxes"], anchors[[0, 1]], atol=1e-5)
    assert len(retinanet.suppress(logits, offsets, anchors, iou=0.9)["boxes"]) == 3
    assert len(retinanet.suppress(logits, offsets, anchors, max_boxes=1)["boxes"]) == 1
    assert retinanet.suppress(logits, offsets, anchors, candidates=2, iou=0.9)["labels"].tolist() == [0, 0]
    assert len(retinanet.suppress(logits, offsets, anchors, score=0.8)["boxes"]) == 1
    offsets[0] = 1, -2, 5 * np.log(2), 0  # one tenth of the width to the right, two tenths up, twice as wide
    np.testing.assert_allclose(retinanet.suppress(logits, offsets, anchors)["boxes"][0], [-4, -2, 16, 8], atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_augmented_boxes_lie_around_what_they_lay_around(seed):
    images, own, labels = shapes(1, seed)
    image, moved, names = retinanet.augment(images[0], own[0], labels[0], np.random.default_rng(seed), colour=0)
    assert image.dtype == np.uint8 and image.shape == (64, 64, 3) and len(moved) == len(names)
    assert (moved >= 0).all() and (moved <= 64).all()
    for (x, y, right, bottom), name in zip(moved, names, strict=True):
        inner = image[round(y + 2) : round(bottom - 2), round(x + 2) : round(right - 2)]
        if inner.size and min(right - x, bottom - y) > 8:
            share = np.mean(inner[..., 0] > 200) if name == 0 else np.mean(inner[..., 0] < 50)
            assert share > 0.6


def test_augment_leaves_the_picture_it_was_given(model):
    images, own, labels = shapes(1)
    before, boxes_before = images.copy(), own[0].copy()
    changed = retinanet.augment(images[0], own[0], labels[0], np.random.default_rng(3))[0]
    assert (images == before).all() and (own[0] == boxes_before).all() and (changed != before[0]).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [[0, 2]]}, r"labels\[0\] is \[0, 2\].*0…1, for disc, square"),
        ({"labels": [[0, -1]]}, r"\[0, -1\]"),
        ({"labels": [[0]]}, "for 2 boxes"),
        ({"true_boxes": []}, "1 images, 0 true_boxes and 1 labels"),
        ({"true_boxes": [[[0, 0, 1], [1, 1, 1]]]}, r"true_boxes\[0\] has shape \(2, 3\)"),
        ({"true_boxes": [[[5, 5, 5, 9], [0, 0, 9, 9]]]}, r"true_boxes\[0\].*\[5.0, 5.0, 5.0, 9.0\].*empty"),
    ],
)
def test_training_data_that_does_not_fit_is_told(model, change, words):
    images, own, labels = shapes(1)
    with pytest.raises(ValueError, match=words):
        retinanet.train(model, images, **{"true_boxes": own, "labels": labels, **change}, steps=1)


def test_ap_of_our_detections_is_that_of_pycocotools_as_it_comes():
    """Detections of the book's checkpoint, in COCO's own form of results, by its evaluator with its own settings."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    part, coco = data.load("scenes", "val", limit=24), COCO()
    found = retinanet.detect(retinanet.restore("retinanet_toybox").model, part.images)

    def rows(found_boxes, labels, image):
        corners = zip(boxes.convert(found_boxes, "xyxy", "xywh").tolist(), labels, strict=True)
        return [{"image_id": image, "category_id": int(label), "bbox": box} for box, label in corners]

    truth = [row for i, each in enumerate(zip(part.boxes, part.labels, strict=True)) for row in rows(*each, i)]
    truth = [row | {"id": i, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]} for i, row in enumerate(truth, 1)]
    names = [{"id": label, "name": name} for label, name in enumerate(part.class_names)]
    coco.dataset = {"images": [{"id": i} for i in range(len(part))], "annotations": truth, "categories": names}
    coco.createIndex()
    results = [
        row | {"score": float(score)}
        for i, each in enumerate(found)
        for row, score in zip(rows(each["boxes"], each["labels"], i), each["scores"], strict=True)
    ]
    evaluator = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    scored = retinanet.scores(found, part.boxes, part.labels, part.class_names)
    assert [scored["AP"], scored["AP50"], scored["AP75"]] == pytest.approx(evaluator.stats[:3].tolist(), abs=1e-6)
    assert 0.5 < scored["AP"] < 0.9


# --- choosing, saving, restoring


def test_trainable_lists_and_chooses_by_pattern(model):
    every = retinanet.trainable(model, "*")
    assert not any("batch_normalization" in name for name in every) and len(every) > 12
    assert sum("batch_normalization" in name for name in retinanet.weights(model)) == 12
    chosen = retinanet.trainable(model, "class_logits/*")
    assert list(chosen) == ["class_logits/logits/kernel", "class_logits/logits/bias"]
    assert list(retinanet.trainable(model)) == list(chosen)
    assert len(model.trainable_variables) == 2
    with pytest.raises(ValueError, match="'klass.*' fits no variable.*box_head/"):
        retinanet.trainable(model, ["box_head/*", "klass*"])
    assert len(retinanet.trainable(model)) == 2
    assert retinanet.trainable(model, []) == {}
    images, own, labels = shapes(2)
    with pytest.raises(ValueError, match="nothing in the model is trainable"):
        retinanet.train(model, images, own, labels, 1)


def test_a_changed_choice_changes_what_the_next_training_trains(model):
    images, own, labels = shapes(4)
    for pattern in ("*", "fpn/*"):
        retinanet.trainable(model, pattern)
        before = [keras.ops.convert_to_numpy(v) for v in retinanet.weights(model).values()]
        retinanet.train(model, images, own, labels, 1, 1e-2, 4)
        moved = {
            name.split("/")[0]
            for (name, v), old in zip(retinanet.weights(model).items(), before, strict=True)
            if (keras.ops.convert_to_numpy(v) != old).any()
        }
        assert moved == (set(retinanet.PARTS) if pattern == "*" else {"fpn"})


def test_names_of_weights_are_the_same_in_every_build(config, small_backbone):
    first, second = (
        retinanet.build(config, body=classify.copy_body(small_backbone, "fine_tune", [4, 8], name="backbone"))
        for _ in range(2)
    )
    assert list(retinanet.weights(first)) == list(retinanet.weights(second))
    assert len(retinanet.weights(first)) == len(first.weights)


def test_a_checkpoint_brings_back_what_was_saved(model, tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    expected = model.predict_on_batch(image)
    path = tmp_path / "net.weights.h5"
    retinanet.save(model, path)
    for v in model.weights:
        v.assign(np.ones(v.shape))
    done = retinanet.restore(path, model=model)
    assert sorted(done.loaded) == sorted(retinanet.weights(model))
    assert not done.skipped and not done.misfits and done.model is model
    for name, found in model.predict_on_batch(image).items():
        np.testing.assert_allclose(found, expected[name], atol=0.02)  # float16 in the file
    assert [p.name for p in tmp_path.iterdir()] == ["net.weights.h5"]


def test_a_checkpoint_holds_every_weight_kernels_in_half_precision_and_all_else_in_single(model, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.weights.h5"
    logits = model.get_layer("class_logits").get_layer("logits")
    logits.bias.assign(np.full(logits.bias.shape, 1 / 3, "float32"))  # which half precision cannot hold
    retinanet.save(model, path)
    with h5py.File(path) as file:
        for name, variable in retinanet.weights(model).items():
            array = keras.ops.convert_to_numpy(variable)
            assert file[name].dtype == ("float16" if array.ndim > 1 else "float32"), name
            np.testing.assert_array_equal(file[name][()], array.astype(file[name].dtype))
    logits.bias.assign(np.zeros(logits.bias.shape))
    retinanet.restore(path, model=model)
    assert (keras.ops.convert_to_numpy(logits.bias) == np.float32(1 / 3)).all()


def test_restore_says_what_was_loaded_what_skipped_and_what_did_not_fit(config, model, small_backbone, tmp_path):
    path = tmp_path / "net.weights.h5"
    retinanet.save(model, path)
    novel = dataclasses.replace(config, class_names=("duck",), depth=2)
    backend.set_seed(1)
    other = retinanet.build(novel, body=classify.copy_body(small_backbone, "scratch", [4, 8], name="backbone"))
    before = {name: keras.ops.convert_to_numpy(v) for name, v in retinanet.weights(other).items()}
    done = retinanet.restore(path, ["backbone", "fpn", "box_head", "class_logits"], other)
    assert set(done.skipped) == {"class_tower/class_0/kernel", "class_tower/class_0/bias"}
    assert done.misfits == {
        "class_logits/logits/kernel": ((3, 3, 16, 18), (3, 3, 16, 9)),
        "class_logits/logits/bias": ((18,), (9,)),
        "box_head/box_1/kernel": (None, (3, 3, 16, 16)),
        "box_head/box_1/bias": (None, (16,)),
    }
    told = str(done)
    assert "skipped: class_tower (2)" in told and "loaded: backbone (" in told
    assert "class_logits/logits/kernel: (3, 3, 16, 18) in the checkpoint, (3, 3, 16, 9) in the model" in told
    assert "box_head/box_1/bias: not in the checkpoint, (16,) in the model" in told
    saved = {name: keras.ops.convert_to_numpy(v) for name, v in retinanet.weights(model).items()}
    for name, v in retinanet.weights(other).items():
        source = saved if name in done.loaded else before
        np.testing.assert_allclose(keras.ops.convert_to_numpy(v), source[name], atol=1e-3)


def test_a_wrong_checkpoint_is_told(model, tmp_path):
    with pytest.raises(ValueError, match="'boxes', expected some of backbone, fpn"):
        retinanet.restore(tmp_path / "net.weights.h5", ["boxes"], model)
    with pytest.raises(files.DataUnavailable, match="net.weights.h5 does not exist"):
        retinanet.restore(tmp_path / "net.weights.h5", model=model)
    (tmp_path / "bad.weights.h5").write_bytes(b"nothing")
    with pytest.raises(files.DataError, match="bad.weights.h5 is no checkpoint"):
        retinanet.restore(tmp_path / "bad.weights.h5", model=model)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(tmp_path / "dense.weights.h5")
    with pytest.raises(files.DataError, match="holds no weights of a RetinaNet"):
        retinanet.restore(tmp_path / "dense.weights.h5", model=model)
    with pytest.raises(ValueError, match="does not end in .weights.h5"):
        retinanet.save(model, tmp_path / "net.h5")


def test_nothing_half_written_is_left(model, tmp_path, monkeypatch):
    path = tmp_path / "net.weights.h5"
    retinanet.save(model, path)
    before = path.read_bytes()
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda v: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        retinanet.save(model, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.weights.h5"]
