"""R-CNN, Fast R-CNN and Faster R-CNN: crops, targets and proposals as defined, and detectors that learn."""

import keras
import numpy as np
import pytest
from made_up import rectangles

from cvlab import backend, boxes, faster_rcnn, metrics, propose, rcnn

# R-CNN's crops


def test_the_whole_image_at_its_own_size_is_itself():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    np.testing.assert_array_equal(rcnn.warp(image, [[0, 0, 40, 40]], 40, context=0)[0], image)


def test_a_crop_is_the_pixels_of_its_box_stretched_to_a_square():
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3)).astype(np.float32)
    np.testing.assert_allclose(rcnn.warp(image, [[7, 5, 23, 21]], 16, context=0)[0], image[5:21, 7:23], atol=0.01)
    y, x = np.indices((40, 50)).astype(np.float32)
    ramp = np.stack([x + 0.5, y + 0.5, x], -1)  # each pixel's centre
    crop = rcnn.warp(ramp, [[10, 8, 34, 20]], 12, context=0)[0]
    np.testing.assert_allclose(crop[..., 0], np.tile(10 + 2 * (np.arange(12) + 0.5), (12, 1)), atol=0.07)
    np.testing.assert_allclose(crop[..., 1], np.tile((8 + np.arange(12) + 0.5)[:, None], 12), atol=0.07)


def test_the_context_is_as_many_pixels_of_the_crop_whatever_the_box():
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 10:50] = 255
    crop = rcnn.warp(image, [[10, 20, 50, 40]], 64, context=12)[0, ..., 0] > 127
    wanted = np.zeros((64, 64), bool)
    wanted[12:52, 12:52] = True
    np.testing.assert_array_equal(crop, wanted)
    default = rcnn.warp(image, [[10, 20, 50, 40]], 227)[0, ..., 0] > 127
    assert default[113].sum() == default[:, 113].sum() == 227 - 2 * 16


def test_outside_the_image_is_its_mean_colour():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = (200, 100, 40)
    crop = rcnn.warp(image, [[10, 0, 30, 20]], 20, context=0)[0]
    assert crop[:, 12:].reshape(-1, 3).tolist() == [[100, 50, 20]] * 160
    assert crop[5, 5].tolist() == [200, 100, 40]


def test_crops_that_can_t_be_are_told():
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"warp: proposals\[1\] = .* has no area"):
        rcnn.warp(image, [[0, 0, 4, 4], [3, 3, 3, 9]])
    with pytest.raises(ValueError, match="warp: context=16 with size=32"):
        rcnn.warp(image, [[0, 0, 4, 4]], 32, context=16)
    assert rcnn.warp(image, np.zeros((0, 4)), 32).shape == (0, 32, 32, 3)


# R-CNN's examples

TRUE = np.float32([[0, 0, 20, 20], [30, 30, 50, 40]])
OWN = np.float32([[2, 0, 22, 20], [30, 30, 48, 42], [8, 0, 28, 20], [60, 60, 80, 80], [0, 40, 20, 60]])
# IoU with its object: 0.82, 0.75, 0.43; two show nothing


def test_examples_show_the_nearest_object_or_background():
    (chosen,), targets = rcnn.examples([OWN], [TRUE], [[4, 2]], 6, share=1)
    shown = targets["box"][:, 4] == 1
    objects = dict(zip(map(tuple, chosen.tolist()), targets["class"].argmax(1).tolist()))
    assert {box: objects[tuple(box)] for box in map(tuple, chosen[shown].tolist())} == {
        tuple(TRUE[0].tolist()): 4,
        tuple(TRUE[1].tolist()): 2,
        tuple(OWN[0].tolist()): 4,
        tuple(OWN[1].tolist()): 2,
    }
    assert targets["class"][shown].sum(1).tolist() == [1] * 4
    assert sorted(chosen[~shown].tolist()) == sorted(OWN[3:].tolist())
    assert not targets["class"][~shown].any() and not targets["box"][~shown].any()


def test_offsets_are_those_that_lead_to_the_object():
    (chosen,), targets = rcnn.examples([OWN], [TRUE], [[4, 2]], 6, share=1)
    shown = targets["box"][:, 4] == 1
    objects = TRUE[(targets["class"][shown].argmax(1) == 2).astype(int)]
    wanted = boxes.encode(objects, chosen[shown], rcnn.VARIANCES)
    np.testing.assert_allclose(targets["box"][shown, :4], wanted, atol=1e-6)
    np.testing.assert_allclose(
        boxes.decode(targets["box"][shown, :4], chosen[shown], rcnn.VARIANCES), objects, atol=1e-4
    )
    row = np.flatnonzero((chosen == OWN[0]).all(1))[0]
    np.testing.assert_allclose(targets["box"][row], [-2 / 20 / 0.1, 0, 0, 0, 1], atol=1e-6)


def test_the_thresholds_say_what_counts():
    assert len(rcnn.examples([OWN], [TRUE], [[4, 2]], 6, share=1, negative=0.5)[0][0]) == 7
    _, targets = rcnn.examples([OWN], [TRUE], [[4, 2]], 6, share=1, positive=0.4)
    assert targets["box"][:, 4].sum() == 5


def test_no_more_examples_than_asked_for_and_no_more_objects_than_their_share():
    many = propose.sliding_windows(100, 20, 2)
    chosen, targets = rcnn.examples([many] * 2, [TRUE] * 2, [[0, 1]] * 2, 2, per_image=30, share=0.2)
    assert [len(own) for own in chosen] == [30, 30]
    assert targets["box"][:30, 4].sum() == targets["box"][30:, 4].sum() == 6
    again, _ = rcnn.examples([many] * 2, [TRUE] * 2, [[0, 1]] * 2, 2, per_image=30, share=0.2)
    other, _ = rcnn.examples([many] * 2, [TRUE] * 2, [[0, 1]] * 2, 2, per_image=30, share=0.2, seed=1)
    assert np.array_equal(chosen, again) and not np.array_equal(chosen, other)


def test_a_image_without_objects_gives_background():
    (chosen,), targets = rcnn.examples([OWN], [np.zeros((0, 4))], [[]], 6)
    assert len(chosen) == 5 and not targets["class"].any() and not targets["box"].any()


@pytest.mark.parametrize(
    ("labels", "told"),
    [([[0, 6]], "from 0 to 5"), ([[-1, 0]], "from 0 to 5"), ([[0]], "one a box"), ([[0, 1]] * 2, "2 labels")],
)
def test_labels_that_don_t_fit_are_told(labels, told):
    with pytest.raises(ValueError, match=f"examples: .*{told}"):
        rcnn.examples([OWN], [TRUE], labels, 6)


# R-CNN itself


@pytest.fixture(scope="module")
def scenes():
    """Images to learn from and to test on, each with its windows of three sizes, shapes that fit no toy exactly."""
    windows = np.concatenate([propose.sliding_windows(64, size, 4) for size in (16, 20, (16, 24), (24, 16))])
    return [(*rectangles(count, 64, seed), [windows] * count) for count, seed in ((30, 7), (12, 8))]


@pytest.fixture(scope="module")
def trained(small_backbone, scenes):
    images, truth, labels, windows = scenes[0]
    backend.set_seed(0)
    model = rcnn.rcnn(small_backbone, 2, input_size=32)
    chosen, targets = rcnn.examples(windows, truth, labels, 2)
    before = model.layers[1].get_weights()
    history = rcnn.train_rcnn(model, images, chosen, targets, steps=200, batch_size=64)
    for old, new in zip(before, model.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # it is frozen
    assert history["loss"][0] > 2 * np.mean(history["loss"][-20:])
    return model


def scored(found, truth, labels):
    columns = ([one[key] for one in found] for key in ("boxes", "labels", "scores"))
    return metrics.detection_scores(truth, labels, *columns, ("red", "green"))


def test_it_finds_red_and_green_rectangles(trained, scenes):
    images, truth, labels, windows = scenes[1]
    found = rcnn.detect(trained, images, windows)
    assert scored(found, truth, labels)["AP50"] > 0.9
    for one in found:
        assert (np.diff(one["scores"]) <= 0).all() and (one["scores"] >= 0.05).all()
        assert (one["boxes"] >= 0).all() and (one["boxes"] <= 64).all()
        for label in (0, 1):  # what overlaps a better one of its class is gone
            own = one["boxes"][one["labels"] == label]
            assert (np.triu(boxes.iou(own, own), 1) <= 0.3).all()


def test_moved_boxes_fit_better_than_windows(trained, scenes):
    images, truth, labels, windows = scenes[1]
    cached = rcnn.crop_features(trained, images, windows)
    still, moved = (
        scored(rcnn.detect(trained, images, windows, regress=regress, cached=cached), truth, labels)
        for regress in (False, True)
    )
    assert moved["AP"] > still["AP"] + 0.05


@pytest.mark.contract
def test_cached_features_change_nothing(trained, scenes):
    images, _, _, windows = scenes[1]
    cached = rcnn.crop_features(trained, images[:2], windows[:2])
    assert [m.shape for m in cached] == [(len(windows[0]), 4, 4, 16)] * 2
    crops = rcnn.warp(images[1], windows[1][30:33], 32)
    np.testing.assert_allclose(cached[1][30:33], trained.layers[1].predict_on_batch(crops), rtol=2e-3, atol=2e-3)
    for one, other in zip(*(rcnn.detect(trained, images[:2], windows[:2], cached=c) for c in (cached, None))):
        np.testing.assert_allclose(one["boxes"], other["boxes"])


def test_fewer_boxes_and_higher_scores_on_demand(trained, scenes):
    images, _, _, windows = scenes[1]
    (few,) = rcnn.detect(trained, images[:1], windows[:1], max_boxes=1)
    assert few["boxes"].shape == (1, 4)
    (sure,) = rcnn.detect(trained, images[:1], windows[:1], score=0.9)
    assert (sure["scores"] >= 0.9).all()


def test_an_untrained_one_moves_no_box_and_thinks_all_classes_unlikely(small_backbone):
    model = rcnn.rcnn(small_backbone, 3, input_size=32)
    says = model.predict_on_batch(np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype(np.uint8))
    assert says["class"].shape == (8, 3) and not says["box"].any()
    assert 0.01 < says["class"].mean() < 0.4


def test_a_backbone_that_learns_sees_the_crops_themselves(small_backbone, scenes):
    images, truth, labels, windows = (part[:4] for part in scenes[0])
    model = rcnn.rcnn(small_backbone, 2, "fine_tune", input_size=32)
    chosen, targets = rcnn.examples(windows, truth, labels, 2)
    before = model.layers[1].get_weights()
    seen = []
    learn, model.train_on_batch = model.train_on_batch, lambda x, y, **k: (seen.append((x, y)), learn(x, y, **k))[1]
    rcnn.train_rcnn(model, images, chosen, targets, steps=3, batch_size=16)
    changed = [np.any(old != new) for old, new in zip(before, model.layers[1].get_weights(), strict=True)]
    learning = {id(weight) for weight in model.layers[1].trainable_weights}
    assert changed == [id(weight) in learning for weight in model.layers[1].weights] and any(changed)
    every = np.concatenate([rcnn.warp(image, own, 32) for image, own in zip(images, chosen)])
    crops, wanted = seen[0]
    rows = [np.flatnonzero((every == crop).all((1, 2, 3))) for crop in crops]
    assert all(any(np.array_equal(targets["box"][r], goal) for r in own) for own, goal in zip(rows, wanted["box"]))


@pytest.mark.contract
def test_the_box_loss_by_hand():
    wanted = np.float32([[0, 0, 0, 0, 1], [1, 1, 1, 1, 1], [9, 9, 9, 9, 0]])
    offsets = np.float32([[0.5, 0, 0, -3], [1, 1, 1, 1], [0, 0, 0, 0]])
    loss = keras.ops.convert_to_numpy(rcnn.offset_loss(*map(keras.ops.convert_to_tensor, (wanted, offsets))))
    np.testing.assert_allclose(loss.mean(), (0.5 * 0.25 + 2.5) / 2, rtol=1e-6)
    assert loss[2] == 0


def test_examples_and_targets_that_don_t_fit_are_told(trained, scenes):
    images, truth, labels, windows = (part[:2] for part in scenes[0])
    chosen, targets = rcnn.examples(windows, truth, labels, 2)
    for wrong in ((images[:1], chosen), (images, [chosen[0][:-1], chosen[1]])):
        with pytest.raises(ValueError, match="train_rcnn: .* images, and .* boxes in 2 images"):
            rcnn.train_rcnn(trained, *wrong, targets)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


# The region proposal network

ANCHORS = boxes.anchors(64, [8], [16], (0.5, 1, 2), (1, 2))


def test_anchors_learn_objects_background_or_nothing():
    true = np.float32([[10, 12, 26, 28], [0, 40, 60, 60]])
    targets = faster_rcnn.rpn_targets(ANCHORS, [true, []], positive=0.5)
    assert targets["object"].shape == (2, len(ANCHORS), 1) and (targets["object"][1] == -1).all()
    overlap = boxes.iou(ANCHORS, true)
    best, learns = overlap.max(1), targets["object"][0, :, 0]
    reached = overlap.max(0)
    closest = ((overlap == reached) & (reached < 0.5)).any(1)
    np.testing.assert_array_equal(learns == 0, (best >= 0.5) | closest)
    np.testing.assert_array_equal(learns == -1, (best < 0.3) & ~closest)
    moved = boxes.decode(targets["box"][0, learns == 0, :4], ANCHORS[learns == 0], rcnn.VARIANCES)
    assert all(np.abs(true - box).max(1).min() < 1e-3 for box in moved)
    np.testing.assert_array_equal(targets["box"][0, :, 4], learns == 0)


def test_a_sample_has_so_many_anchors_and_at_most_half_of_them_objects():
    targets = faster_rcnn.rpn_targets(ANCHORS, [np.float32([[10, 12, 26, 28]]), np.zeros((0, 4))], positive=0.3)
    objects = int((targets["object"][0] == 0).sum())
    kept = faster_rcnn.sample_anchors(targets, np.random.default_rng(0), per_image=8)
    assert objects > 4 and [(kept["object"][i] > -2).sum() for i in range(2)] == [8, 8]
    assert [(kept["object"][i] == 0).sum() for i in range(2)] == [4, 0]
    np.testing.assert_array_equal(kept["box"][..., 4] == 1, kept["object"][..., 0] == 0)
    assert (targets["object"][0] == 0).sum() == objects  # what was given stays


def test_proposals_are_the_best_anchors_moved_clipped_and_suppressed():
    generator = np.random.default_rng(1)
    logits, offsets = generator.normal(size=(len(ANCHORS), 1)), generator.normal(size=(len(ANCHORS), 4))
    regions = faster_rcnn.regions_of(logits, offsets, ANCHORS, 64, limit=30, candidates=200)
    order = np.argsort(-logits[:, 0])[:200]
    moved = boxes.decode(offsets[order], ANCHORS[order], rcnn.VARIANCES).clip(0, 64)
    kept = []
    for box in moved[((moved[:, 2:] - moved[:, :2]) >= 1).all(1)]:
        if not kept or boxes.iou(box[None], np.array(kept)).max() <= 0.7:
            kept.append(box)
    np.testing.assert_allclose(regions, kept[:30])


@pytest.mark.contract
def test_the_objectness_loss_by_hand():
    wanted, logits = np.int32([[[0], [-1], [-2]], [[-1], [-2], [-2]]]), np.float32([[[1], [2], [9]], [[-1], [9], [9]]])
    loss = numpy(faster_rcnn._object_loss(*map(keras.ops.convert_to_tensor, (wanted, logits))))
    log = np.log1p(np.exp([-1, 2, -1]))
    np.testing.assert_allclose(loss.mean(), log.mean(), rtol=1e-6)


# Fast and Faster R-CNN


MAP = np.random.default_rng(0).normal(size=(6, 9, 3)).astype(np.float32)


@pytest.mark.contract
def test_an_untrained_fast_rcnn_moves_no_box_and_pools_by_the_stride():
    backend.set_seed(0)
    model = rcnn.fast_rcnn((6, 9, 3), 4, stride=8, size=2)
    regions = np.float32([[[8, 8, 40, 40], [0, 0, 16, 24], [8, 8, 40, 40]]])
    outputs = {key: numpy(value) for key, value in model({"map": MAP[None], "boxes": regions}).items()}
    assert outputs["class"].shape == (1, 3, 4) and outputs["box"].shape == (1, 3, 4) and not outputs["box"].any()
    np.testing.assert_allclose(outputs["class"][0, 0], outputs["class"][0, 2], rtol=1e-5)
    assert not np.allclose(outputs["class"][0, 0], outputs["class"][0, 1])


@pytest.fixture(scope="module")
def faster(small_backbone, scenes):
    """Faster R-CNN on the maps of three random convolutions."""
    images, truth, labels, _ = scenes[0]
    backend.set_seed(0)
    body = keras.Model(small_backbone.input, small_backbone.layers[-4].output)  # stride 4
    detector = faster_rcnn.faster_rcnn(body, 2, 64, sizes=(12, 17, 24), ratios=(0.7, 1, 1.4))
    losses = faster_rcnn.train_faster_rcnn(detector, images, truth, labels, steps=150, learning_rate=3e-3)
    assert losses["rpn"][0] > 2 * np.mean(losses["rpn"][-20:])
    assert losses["head"][0] > 2 * np.mean(losses["head"][-20:])
    return detector


def test_faster_rcnn_proposes_and_finds_red_and_green_rectangles(faster, scenes):
    images, truth, labels, _ = scenes[1]
    proposals = faster.propose(images, limit=20)
    reached = np.concatenate([boxes.iou(t, p).max(1) for t, p in zip(truth, proposals)])
    assert max(map(len, proposals)) <= 20 and (reached >= 0.5).mean() > 0.9
    detections = faster.detect(images)
    assert scored(detections, truth, labels)["AP50"] > 0.9
    for one in detections:
        assert (np.diff(one["scores"]) <= 0).all() and (one["boxes"] >= 0).all() and (one["boxes"] <= 64).all()


def test_maps_that_are_given_change_nothing(faster, scenes):
    images = scenes[1][0][:3]
    for one, other in zip(faster.detect(images), faster.detect(images, maps=faster.features(images))):
        np.testing.assert_allclose(one["boxes"], other["boxes"])


@pytest.mark.parametrize("pooling", [rcnn.roi_align, rcnn.roi_pool])
def test_a_fast_rcnn_overfits_one_scene(small_backbone, scenes, pooling):
    images, truth, labels, windows = (part[:1] for part in scenes[0])
    body = keras.Model(small_backbone.input, small_backbone.layers[-4].output)
    backend.set_seed(0)
    maps = body.predict(images, verbose=0)
    model = rcnn.fast_rcnn(maps.shape[1:], 2, 4, size=4, pooling=pooling)
    loss = rcnn.train_fast_rcnn(model, maps, windows, truth, labels, steps=60, learning_rate=3e-3)["loss"]
    assert np.mean(loss[-5:]) < 0.2 * loss[0]
    detections = rcnn.detect_fast_rcnn(model, maps, windows, 64, score=0.5)
    assert scored(detections, truth, labels)["AP50"] > 0.99


@pytest.mark.contract
def test_one_step_of_each_network_lowers_its_loss_on_the_same_batch(scenes):
    images, truth, labels, windows = (part[:1] for part in scenes[0])
    backend.set_seed(0)
    maps = images[:, ::4, ::4].astype(np.float32) / 255
    proposer, head = faster_rcnn.rpn((16, 16, 3), 3, 8), rcnn.fast_rcnn((16, 16, 3), 2, 4, 2, channels=8, width=8)
    targets = faster_rcnn.rpn_targets(boxes.anchors(64, [4], [16]), truth)
    nine = faster_rcnn.rpn((16, 16, 3), 9, 8)
    with pytest.raises(ValueError, match="train_rpn: 1 maps with 768 anchors, and targets"):
        faster_rcnn.train_rpn(proposer, maps, targets, 1)
    first = faster_rcnn.train_rpn(nine, maps, targets, 12, 3e-3)["loss"]
    second = rcnn.train_fast_rcnn(head, maps, windows, truth, labels, 12, 3e-3)["loss"]
    assert first[-1] < first[0] and second[-1] < second[0]


def test_maps_and_bodies_that_do_not_fit_are_told(small_backbone, scenes, faster):
    images, truth, labels, windows = (part[:2] for part in scenes[0])
    with pytest.raises(ValueError, match="train_fast_rcnn: 1 maps, 2 proposals, 2 true_boxes"):
        rcnn.train_fast_rcnn(faster.head, np.zeros((1, 16, 16, 16)), windows, truth, labels)
    with pytest.raises(ValueError, match="faster_rcnn: small gives .* for images of 60 pixels"):
        faster_rcnn.faster_rcnn(small_backbone, 2, 60)
