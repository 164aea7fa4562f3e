import itertools

import keras
import numpy as np
import pytest
from keras import ops

from cvlab import backend, classify, metrics, segment


@pytest.fixture(scope="module")
def body():
    """A small backbone: feature maps of stride 2, 4, … 32 of a few channels."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    for width in (4, 4, 8, 8, 8):
        x = keras.layers.Conv2D(width, 3, 2, "same", activation="relu")(x)
    return keras.Model(pixels, x, name="small")


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)


# Up-sampling ----------------------------------------------------------------------------------------------------------


def test_bilinear_kernels_have_the_values_of_the_paper():
    np.testing.assert_array_equal(segment.bilinear_kernel(1), [[1]])
    np.testing.assert_allclose(segment.bilinear_kernel(2)[1], np.array([0.25, 0.75, 0.75, 0.25]) * 0.75)
    np.testing.assert_allclose(segment.bilinear_kernel(3)[2], np.array([1, 2, 3, 2, 1]) / 3, rtol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 32])
def test_every_phase_of_a_bilinear_kernel_sums_to_1(factor):
    kernel = np.pad(segment.bilinear_kernel(factor), (0, factor))
    for i, j in itertools.product(range(factor), repeat=2):
        assert kernel[i::factor, j::factor].sum() == pytest.approx(1)


def test_bilinear_transposed_convolution_enlarges_as_opencv_does_but_at_the_edge():
    import cv2

    image = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    for factor in (2, 4):
        ours = segment.transposed_convolution(image, segment.bilinear_kernel(factor), factor, "same")
        theirs = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        inner = np.s_[factor:-factor, factor:-factor]
        np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


CASES = list(itertools.product(range(1, 6), range(1, 5), ("valid", "same")))


@pytest.mark.parametrize(("k", "stride", "padding"), CASES)
def test_the_matrix_is_keras_convolution_and_its_transpose_the_transposed_one(k, stride, padding):
    generator = np.random.default_rng(k)
    kernel, x = generator.normal(size=(k, k)), generator.normal(size=(6, 7))
    matrix, shape = segment.convolution_matrix(kernel, x.shape, stride, padding)
    conv = ops.conv(x[None, ..., None].astype("float32"), kernel[..., None, None].astype("float32"), stride, padding)
    np.testing.assert_allclose((matrix @ x.ravel()).reshape(shape), ops.convert_to_numpy(conv)[0, ..., 0], atol=1e-5)

    y = generator.normal(size=(4, 5))
    ours = segment.transposed_convolution(y, kernel, stride, padding)
    theirs = ops.conv_transpose(
        y[None, ..., None].astype("float32"), kernel[..., None, None].astype("float32"), stride, padding
    )
    np.testing.assert_allclose(ours, ops.convert_to_numpy(theirs)[0, ..., 0], atol=1e-5)


@pytest.mark.parametrize(("k", "stride", "padding"), CASES)
def test_whole_numbers_agree_with_keras_to_the_last_digit(k, stride, padding):
    generator = np.random.default_rng(10 * k + stride)
    kernel, y = generator.integers(-9, 10, (k, k)), generator.integers(-9, 10, (3, 4))  # exact in float32
    ours = segment.transposed_convolution(y, kernel, stride, padding)
    layer = keras.layers.Conv2DTranspose(1, k, stride, padding, use_bias=False)
    layer.build((1, 3, 4, 1))
    layer.set_weights([kernel[..., None, None]])
    y, kernel = y[None, ..., None].astype("float32"), kernel[..., None, None].astype("float32")
    for theirs in (layer(y), ops.conv_transpose(y, kernel, stride, padding)):
        np.testing.assert_array_equal(ours, ops.convert_to_numpy(theirs)[0, ..., 0])


def test_same_pads_the_odd_zero_at_the_end():
    matrix, shape = segment.convolution_matrix([[1, 10, 100]], (1, 4), 2, "same")
    assert shape == (1, 2)
    np.testing.assert_array_equal(matrix, [[1, 10, 100, 0], [0, 0, 1, 10]])


def test_one_matrix_by_hand():
    matrix, shape = segment.convolution_matrix([[1, 2], [3, 4]], (2, 3))
    assert shape == (1, 2)
    np.testing.assert_array_equal(matrix, [[1, 2, 0, 3, 4, 0], [0, 1, 2, 0, 3, 4]])


@pytest.mark.parametrize("k", range(1, 9))
def test_the_initializer_interpolates_each_channel_for_every_kernel(k):
    stride = (k + 1) // 2
    kernel = ops.convert_to_numpy(segment.bilinear_initializer((k, k, 3, 3)))
    assert kernel.shape == (k, k, 3, 3)
    assert not kernel[..., ~np.eye(3, dtype=bool)].any()
    if k == 2 * stride - stride % 2:
        np.testing.assert_allclose(kernel[..., 1, 1], segment.bilinear_kernel(stride), rtol=1e-6)
    ramp = np.add.outer(np.arange(6), 10 * np.arange(6))
    inner = segment.transposed_convolution(ramp, kernel[..., 2, 2], stride)[k:-k, k:-k]
    np.testing.assert_allclose(np.diff(inner, axis=0), 1 / stride, atol=1e-5)  # a ramp stays one
    np.testing.assert_allclose(np.diff(inner, axis=1), 10 / stride, atol=1e-5)


def test_output_sizes_are_ambiguous_and_a_wrong_one_is_an_error():
    x = np.ones((3, 3))
    for size in ((5, 5), (6, 6), (5, 6)):
        assert segment.transposed_convolution(x, np.ones((3, 3)), 2, "same", size).shape == size
    with pytest.raises(ValueError, match=r"\(7, 7\) becomes \(4, 4\).*x has shape \(3, 3\)"):
        segment.transposed_convolution(x, np.ones((3, 3)), 2, "same", (7, 7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segment.bilinear_kernel(0), "factor=0, expected an integer, at least 1"),
        (lambda: segment.convolution_matrix([1, 2], (3, 3)), r"kernel has shape \(2,\)"),
        (lambda: segment.convolution_matrix([[1]], (3, 3), 0), "stride=0"),
        (lambda: segment.convolution_matrix([[1]], (3, 3), 1, "full"), "padding='full'"),
        (lambda: segment.convolution_matrix(np.ones((4, 4)), (3, 3)), "larger than the input"),
    ],
)
def test_what_a_bad_argument_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The network ----------------------------------------------------------------------------------------------------------


def bilinear(x, factor):
    """Enlarge (H, W, C) by OpenCV, which repeats the edge."""
    import cv2

    return cv2.resize(x, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)


@pytest.mark.contract
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_fcn_8s_is_what_the_paper_draws(body, size):
    keras.utils.set_random_seed(1)
    model = segment.fcn(body, 4, 8)
    heads = model.get_layer("heads")
    for layer in heads.layers:  # the skips' zeros would hide a mistake
        layer.set_weights(
            [w if w.any() else np.random.default_rng(0).normal(size=w.shape) for w in layer.get_weights()]
        )
    image = np.random.default_rng(2).uniform(0, 255, (1, *size, 3)).astype("float32")
    whole = np.pad(image, [(0, 0), *((0, -n % 32) for n in size), (0, 0)], "symmetric")
    maps = [ops.convert_to_numpy(m)[0] for m in model.get_layer("backbone")(whole)]
    assert [m.shape[:2] for m in maps] == [tuple(-(-n // 32) * 32 // s for n in size) for s in (8, 16, 32)]

    def score(name, map_):
        kernel, bias = heads.get_layer(name).get_weights()
        return map_ @ kernel[0, 0] + bias

    scores = score("score_32", maps[2])
    for stride, finer in ((16, maps[1]), (8, maps[0])):
        line = segment.bilinear_kernel(2)
        larger = [segment.transposed_convolution(scores[..., c], line, 2, "same") for c in range(4)]
        scores = np.stack(larger, -1)[: finer.shape[0], : finer.shape[1]] + score(f"score_{stride}", finer)
    expected = bilinear(scores.astype("float32"), 8)[: size[0], : size[1]]
    np.testing.assert_allclose(ops.convert_to_numpy(model(image))[0], expected, atol=1e-3)


@pytest.mark.contract
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_enlarging_is_opencvs_and_its_gradient_the_transposed(factor):
    x, like = np.random.default_rng(factor).normal(size=(2, 5, 7, 3)).astype("float32"), (5 * factor - 1, 7 * factor)
    larger = ops.convert_to_numpy(segment.Enlarge(factor)([x, np.zeros((1, *like, 1))]))
    expected = np.stack([bilinear(one, factor)[: like[0]] for one in x])
    np.testing.assert_allclose(larger, expected, atol=1e-5)
    found = ops.convert_to_numpy(segment.Enlarge(factor, classes=True)([x, np.zeros((1, *like, 1))]))
    assert found.dtype == np.uint8 and (found == larger.argmax(-1)).all()
    weight = np.random.default_rng(9).normal(size=larger.shape).astype("float32")
    step = np.zeros_like(x)
    step[1, 2, 3, 0] = step[0, 0, 6, 1] = 1.0

    def loss(x):
        larger = segment.Enlarge(factor)([x, np.zeros((1, *like, 1), "float32")])
        return ops.sum(ops.multiply(larger, weight))

    _, gradient = backend.value_and_grad(loss)(x)
    rise = (np.stack([bilinear(one, factor)[: like[0]] for one in step]) * weight).sum()
    np.testing.assert_allclose((ops.convert_to_numpy(gradient) * step).sum(), rise, rtol=1e-4)


@pytest.mark.contract
def test_label_maps_are_the_logits_largest_also_after_training(body, photographs):
    model = segment.fcn(body, 3, 8)
    images, masks = photographs[:3, :, :90], np.zeros((3, 64, 90), int)
    masks[:, 30:] = 1
    seen = []
    for _ in range(2):
        logits = model.predict_on_batch(images.astype("float32"))
        first, second = np.sort(logits, -1)[..., :-3:-1].transpose(3, 0, 1, 2)
        sure = first - second > 1e-3
        found = segment.predict(model, images, batch_size=2)
        assert found.dtype == np.uint8 and found.shape == masks.shape
        assert (found == logits.argmax(-1))[sure].all() and sure.mean() > 0.8
        seen.append(found)
        segment.train(model, images, masks, 6, 1e-2, 3)
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_any_size_gives_a_map_of_its_size(body, stride):
    model = segment.fcn(body, 3, stride)
    for size in ((32, 32), (97, 131), (33, 64)):
        assert model.predict_on_batch(np.zeros((1, *size, 3))).shape == (1, *size, 3)
    assert model.stride == stride


def test_finer_networks_begin_as_the_coarsest(body, photographs):
    outputs = []
    for stride in (32, 16, 8):
        model = segment.fcn(body, 3, stride)
        model.get_layer("heads").get_layer("score_32").set_weights([np.full((1, 1, 8, 3), 0.1), np.arange(3.0)])
        outputs.append(model.predict_on_batch(photographs))
    inner = np.s_[:, 30:34, 46:50]  # zeros beyond the edge reach in 24 pixels
    np.testing.assert_allclose(outputs[0][inner].mean(), outputs[2][inner].mean(), rtol=0.05)
    assert (outputs[0].argmax(-1) == outputs[2].argmax(-1)).mean() > 0.95


def test_what_a_bad_network_is_told(body):
    with pytest.raises(ValueError, match="stride=4, expected 32, 16 or 8, as small's coarsest map has stride 32"):
        segment.fcn(body, 3, 4)
    with pytest.raises(ValueError, match="stride=8, expected 4, 2 or 1, as resnet20's coarsest map has stride 4"):
        segment.fcn(classify.resnet20(weights=None, include_top=False), 3, 8)
    with pytest.raises(ValueError, match="num_classes=1, expected an integer, at least 2"):
        segment.fcn(body, 1)
    with pytest.raises(ValueError, match="resnet20 gives .* expected feature maps .*include_top=False"):
        segment.fcn(classify.resnet20(weights=None), 3, 4)
    with pytest.raises(ValueError, match="once has no feature map of stride 16"):
        pixels = keras.Input((None, None, 3))
        segment.fcn(keras.Model(pixels, keras.layers.Conv2D(4, 3, 32, "same")(pixels), name="once"), 3, 16)


def test_networks_can_be_saved_and_loaded(body, photographs, tmp_path):
    model = segment.fcn(body, 3, 8)
    model.save(tmp_path / "fcn.keras")
    again = keras.models.load_model(tmp_path / "fcn.keras")
    np.testing.assert_allclose(again.predict_on_batch(photographs), model.predict_on_batch(photographs), atol=1e-5)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.contract
def test_cross_entropy_is_the_mean_over_pixels_that_count():
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 3, (2, 4, 5)), generator.normal(size=(2, 4, 5, 3)).astype("float32")
    labels[0, :3] = 255
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted = [
        -np.log(p[i][i_, j, labels[i, i_, j]])
        for i in range(2)
        for i_ in range(4)
        for j in range(5)
        if labels[i, i_, j] != 255
    ]
    assert float(ops.sum(segment.cross_entropy(labels, logits, 255))) == pytest.approx(np.mean(counted), rel=1e-5)
    assert float(ops.sum(segment.cross_entropy(labels * 0 + 255, logits, 255))) == 0


def halves():
    """Pictures dark on one side and bright on the other, and which side is which."""
    images, masks = np.full((8, 64, 64, 3), 30, np.uint8), np.zeros((8, 64, 64), np.uint8)
    for i in range(8):
        at = 16 + 4 * i
        images[i, :, at:], masks[i, :, at:] = 220, 1
    return images, masks


@pytest.mark.contract
@pytest.mark.parametrize("mode", ["frozen", "fine_tune"])
def test_training_learns_and_a_frozen_backbone_stays(body, mode):
    images, masks = halves()
    model = segment.fcn(body, 2, 8, mode)
    before = [np.array(w) for w in model.get_layer("backbone").get_weights()]
    rate, falls_to, reaches = (0.1, 0.8, 0.6) if mode == "frozen" else (0.01, 0.4, 0.8)  # its features are random
    history = segment.train(model, images, masks, 150, rate, augment=segment.augment)
    after = model.get_layer("backbone").get_weights()
    assert all((a == b).all() for a, b in zip(before, after)) == (mode == "frozen")
    assert np.mean(history["loss"][-10:]) < falls_to * history["loss"][0]
    assert metrics.segmentation_scores(masks, segment.predict(model, images), 2)["mean IoU"] > reaches


def test_void_pixels_teach_nothing(body):
    images, masks = halves()
    void = masks.copy()
    void[:, :, :32] = 7
    weights = []
    for hidden in (void, np.where(void == 7, 7, masks)):
        keras.utils.set_random_seed(0)
        model = segment.fcn(body, 2, 32, "frozen")
        segment.train(model, images, hidden, 5, 1e-2, ignore=7)
        weights.append(model.get_weights())
    keras.utils.set_random_seed(0)
    model = segment.fcn(body, 2, 32, "frozen")
    history = segment.train(model, images, np.full_like(masks, 7), 5, 1e-2, ignore=7)
    assert history["loss"] == [0.0] * 5
    for one, other in zip(*weights):
        np.testing.assert_array_equal(one, other)


def test_frozen_and_whole_training_take_the_same_steps(body):
    images, masks = halves()
    losses = []
    for mode in ("frozen", "fine_tune"):
        keras.utils.set_random_seed(0)
        model = segment.fcn(body, 2, 8, mode)
        for variable in model.get_layer("backbone").weights:
            variable.trainable = False
        if mode == "fine_tune":  # learns through the whole network, though its backbone cannot change
            model.get_layer("backbone").layers[-1].kernel.trainable = True
        losses.append(segment.train(model, images, masks, 3, 1e-3, seed=1)["loss"])
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-4)
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_augment_moves_picture_and_labels_alike():
    generator = np.random.default_rng(0)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 5
    image = np.repeat(np.where(mask == 5, 200, 40)[..., None], 3, -1).astype(np.uint8)
    for _ in range(20):
        seen, labels = segment.augment(image, mask, generator, colour=0)
        assert set(np.unique(labels)) <= {0, 5}
        assert ((seen[..., 0] > 120) == (labels == 5)).mean() > 0.97


def test_predict_takes_lists_and_says_what_is_too_small(body, photographs):
    model = segment.fcn(body, 3, 8)
    maps = segment.predict(model, [photographs[0], photographs[1, :40, :50]])
    assert [m.shape for m in maps] == [(64, 96), (40, 50)]
    np.testing.assert_array_equal(segment.predict(model, photographs, batch_size=3)[0], maps[0])
    with pytest.raises(ValueError, match="50×20 pixels is too small.*32×32"):
        segment.predict(model, photographs[:, :20, :50])
    with pytest.raises(ValueError, match="too small"):
        segment.train(model, photographs[:, :20], np.zeros((4, 20, 96), int))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((4, 64, 95), int), "expected integers of"),
        (np.zeros((4, 64, 96)), "float64"),
        (np.full((4, 64, 96), 3), "masks hold 3, expected classes from 0 to 2"),
    ],
)
def test_masks_that_do_not_fit_are_told(body, photographs, masks, message):
    with pytest.raises(ValueError, match=message):
        segment.train(segment.fcn(body, 3, 8), photographs, masks, 1)


# Three networks side by side ------------------------------------------------------------------------------------------


def test_a_backbones_coarsest_map_decides_on_the_strides(body):
    assert segment.strides(body) == (32, 16, 8)
    assert segment.strides(classify.efficientnet_lite0(weights=None, include_top=False)) == (32, 16, 8)
    resnet = classify.resnet20(weights=None, include_top=False)
    assert segment.strides(resnet) == (4, 2, 1)
    model = segment.fcn(resnet, 3, 1)
    assert [m.shape[-1] for m in model.get_layer("heads").inputs] == [16, 32, 64]
    assert segment.predict(model, np.zeros((1, 5, 9, 3), np.uint8)).shape == (1, 5, 9)
    with pytest.raises(ValueError, match="9×3 pixels is too small.*4×4"):
        segment.predict(model, np.zeros((1, 3, 9, 3), np.uint8))


def test_more_than_256_classes_have_numbers_of_their_own(body, photographs):
    for num_classes, last, dtype in ((256, 255, np.uint8), (300, 299, np.int32)):
        model = segment.fcn(body, num_classes, stride=8)
        score = model.get_layer("heads").get_layer("score_8")
        score.set_weights([0 * score.get_weights()[0], np.eye(num_classes)[last]])
        found = segment.predict(model, photographs)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, last)


def test_segment_says_what_is_nan(body, photographs):
    model = segment.fcn(body, 3)
    pixels = np.array(photographs, np.float32)
    pixels[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="segment.predict: images hold NaN"):
        segment.predict(model, pixels)
    score = model.get_layer("heads").get_layer("score_8")
    score.set_weights([score.get_weights()[0] * np.nan, score.get_weights()[1]])
    with pytest.raises(ValueError, match="segment.predict: layer 'heads/score_8' .*holds NaN in its weight 'kernel'"):
        segment.predict(model, photographs)
