"""What a classifier looks at: CAM, Grad-CAM, gradients and their means, occlusion, and ZFNet's way back to the pixels.

What is explained is always the logit: the score that a softmax or sigmoid at the model's end turns into a probability.
A model with one output, a sigmoid or its logit, has two classes: 0 is the one whose probability p it gives, and 1 the
other, whose probability is 1 − p and whose logit is the negative. Where no class is asked for, the more probable one of
each image is explained; `predicted_classes` names it.

Every function takes the weights as they are when it is called; what is kept of a model is how it is built. Images,
weights or logits with NaN or infinite numbers are an error that says where they are.
"""

from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops

from . import backend, networks
from .metrics import baseline_images

WINDOWED = (*networks.CONVOLUTIONS, *networks.POOLING)
LINEAR = (
    *networks.CONVOLUTIONS,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Rescaling,
    layers.Normalization,
    layers.ZeroPadding2D,
    layers.Cropping2D,
)


def cam(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map which places speak for a class, by the weights of the dense layer behind the pooling.

    A cell of the last feature maps adds w · f / (h · w) to the logit: f are its features, w the class's weights, and
    the pooling divides by the number of cells. These shares, enlarged bilinearly to the picture's size, are the raw map
    (before enlarging they sum to the logit without its bias). What is negative becomes 0, and each map is divided by
    its own maximum. A map in which nothing speaks for the class is 0 all over.

    Args:
        model: Keras Sequential or functional model, from pictures to logits or probabilities (N, classes), that ends in
            global average pooling and a dense layer; dropout may stand between them. Models may be nested in it.
        images: (N, H, W, 3) in the model's own range, or one picture (H, W, 3).
        classes: None for those predicted (see `predicted_classes`), an int for all pictures, or (N,) ints. Of a model
            with one output, a sigmoid or its logit, class 0 is the one that it speaks for and 1 the other.
        batch_size: pictures at a time.
        raw: give the map before negative values are cut off and the rest is scaled.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one picture (H, W).

    Raises:
        ValueError: for another kind of model, one whose softmax or sigmoid is hidden in another layer, for pictures or
            classes that it can't have, and for NaN and infinite numbers.

    Source: Zhou et al., Learning deep features for discriminative localization, CVPR 2016, section 2.
    """
    network = _network(model, images, "cam")
    pooled, dense = network.pooled_head("cam")
    plan = network.plan(pooled, folds=True)

    def shares(x, classes):
        values = plan.run({0: x})
        features, scores = ops.cast(values[pooled], "float32"), _scores(network, values)
        kernel = _both_sides(network, ops.cast(dense.layer.kernel, "float32"))
        class_weights = ops.take(kernel, _chosen(scores, classes), axis=1)  # (C, N)
        cells = ops.cast(ops.shape(features)[1] * ops.shape(features)[2], "float32")
        return ops.einsum("nhwc,cn->nhw", features, class_weights) / cells, ops.sum(scores, axis=-1)

    return _heatmaps("cam", network, plan, shares, images, classes, batch_size, raw)


def grad_cam(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    layer: Any = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map which places of a layer speak for a class, its feature maps weighted by the gradient of the logit.

    The weight of a feature map is the mean, over its cells, of the logit's gradient by them; the raw map is the
    weighted sum of the feature maps, enlarged bilinearly to the picture's size. What is negative becomes 0, and each
    map is divided by its own maximum. On the maps that global average pooling and a dense layer read, it equals `cam`.

    Args:
        model, images, classes, batch_size, raw: as in `cam`, but any convolutional classifier will do.
        layer: name of a layer, of a nested model's layer ("name" or "model/name"), or of a nested model, whose output
            is explained as it is. None finds the last feature maps: those that global pooling reads, and in a model
            without it the last ones before a pooling, flattening or dense layer.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one picture (H, W).

    Raises:
        ValueError: as `cam`, and for a layer that isn't there or whose output is not feature maps (N, h, w, C), and a
            model without a convolution or with one whose maps can't be reached.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2.
    """

    def mean_gradients(features, gradient):
        return ops.mean(gradient, axis=(1, 2))

    return _weighted_maps("grad_cam", mean_gradients, model, images, classes, layer, batch_size, raw)


def grad_cam_plus_plus(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    layer: Any = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map which places of a layer speak for a class, like `grad_cam`, but with weights that count places, not sizes.

    With gradients g of the logit and features A, a feature map is weighted by the sum over its cells of α · max(g, 0),
    where α = g² / (2 g² + g³ · ΣA) and ΣA sums the feature map. So each cell with a positive gradient adds
    g / (2 + g · ΣA). The published weights differ by the factor exp(logit), which scaling a map takes away.

    Args:
        model, images, classes, layer, batch_size, raw: as in `grad_cam`.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one picture (H, W).

    Raises:
        ValueError: as `grad_cam`.

    Source: Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 5, 10 and 19.
    """

    def positive_gradients(features, gradient):
        positive, total = ops.relu(gradient), ops.sum(features, axis=(1, 2), keepdims=True)
        return ops.sum(positive / (2 + positive * total), axis=(1, 2))

    return _weighted_maps("grad_cam_plus_plus", positive_gradients, model, images, classes, layer, batch_size, raw)


def saliency(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map how much the logit changes with each pixel: its gradient by the picture.

    The absolute values of a pixel's channels are summed, and each map is divided by its own maximum.

    Args:
        model, images, classes, batch_size: as in `cam`, but any classifier will do.
        raw: give the gradient itself.

    Returns:
        (N, H, W) float32 in [0, 1], or the gradient, (N, H, W, 3) float32, if raw; without N for one picture.

    Raises:
        ValueError: as `cam`, for a model that is not Sequential or functional.

    Source: Simonyan et al., Deep inside convolutional networks, 2014, section 3 (which takes the largest channel).
    """
    network = _network(model, images, "saliency")
    plan = network.plan()

    def slope(x, classes):
        def score(x):
            return _score(_scores(network, plan.run({0: x})), classes)

        value, gradient = backend.value_and_grad(score)(x)
        return gradient if raw else ops.sum(ops.abs(gradient), axis=-1), _for_each(classes, value)

    pictures, classes = network.checked(images, classes, "saliency")
    maps, totals = plan.batched(("saliency", raw), slope, batch_size, pictures, classes)
    _check_finite("saliency", network, pictures, maps, totals)
    return _as_given(maps if raw else _scaled(maps), images)


def smooth_grad(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    samples: int = 16,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map the saliency that stays when noise is added: the mean gradient of several noisy copies of each picture.

    The mean is of signed gradients; then the absolute values of a pixel's channels are summed, and each map is divided
    by its own maximum. All pictures get the same patterns of noise, each scaled to its own range, so that a map does
    not depend on which pictures come along. Predicted classes are those of the pictures without noise.

    Args:
        model, images, classes, batch_size, raw: as in `saliency`.
        samples: noisy copies of each picture.
        noise: standard deviation, as a share of the picture's range (its largest value less its smallest).
        seed: of the noise.

    Returns:
        (N, H, W) float32 in [0, 1], or the mean gradient, (N, H, W, 3) float32, if raw; without N for one picture.

    Raises:
        ValueError: as `saliency`, and for samples < 1 or noise < 0.

    Source: Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.
    """
    if samples < 1 or noise < 0:
        raise ValueError(f"smooth_grad: samples={samples!r} and noise={noise!r}, expected at least 1 and at least 0")
    network = _network(model, images, "smooth_grad")
    plan = network.plan()

    def slope(x, classes, spread, patterns):
        def score(x):
            noisy = x[:, None] + spread[:, None, None, None, None] * patterns
            scores = _scores(network, plan.run({0: ops.reshape(noisy, (-1, *x.shape[1:]))}))
            of_copies = ops.reshape(scores, (ops.shape(x)[0], -1, scores.shape[-1]))
            return _score(ops.sum(of_copies, axis=1), classes)

        value, gradient = backend.value_and_grad(score)(x)
        return gradient, _for_each(classes, value)

    pictures, classes = network.checked(images, classes, "smooth_grad")
    if (classes < 0).any():
        classes = _most_probable(network, _outputs("smooth_grad", network, pictures, batch_size))
    patterns = np.random.default_rng(seed).standard_normal((samples, *pictures.shape[1:]), np.float32)
    room = max(1, batch_size // len(pictures))  # copies that fit a batch
    together = max(size for size in range(1, min(room, samples) + 1) if samples % size == 0)
    spread = noise * np.ptp(pictures, axis=(1, 2, 3)).astype(np.float32)
    groups = [ops.convert_to_tensor(group) for group in patterns.reshape(-1, together, *pictures.shape[1:])]
    compiled = plan.compile("smooth_grad", slope)

    def total(*batch):
        gradients, values = zip(*(compiled(*batch, group) for group in groups))
        return sum(gradients), sum(values)

    gradient, totals = networks.batched(total, batch_size, pictures, classes, spread)
    _check_finite("smooth_grad", network, pictures, gradient, totals)
    gradient = gradient / np.float32(samples)
    return _as_given(gradient if raw else _scaled(np.abs(gradient).sum(-1)), images)


def integrated_gradients(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    steps: int = 64,
    baseline: Any = 0,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map what each pixel adds to the logit on the straight way from a baseline to the picture.

    The mean gradient along the way (at the middles of `steps` equal parts), times picture less baseline. These shares
    sum to the logit of the picture less that of the baseline, the more exactly the more steps.

    Args:
        model, images, classes, batch_size: as in `saliency`. Predicted classes are those of the pictures.
        steps: points on the way.
        baseline: where it begins: a number in the model's own range, by default black for a model that takes 0–255;
            "mean", the picture's mean colour; "blur", the picture blurred; or pictures that broadcast to the images.
        raw: give the shares themselves.

    Returns:
        (N, H, W) float32 in [0, 1], absolute values summed over channels and divided by the map's maximum; or the
        shares, (N, H, W, 3) float32 of either sign, if raw. Without N for one picture.

    Raises:
        ValueError: as `saliency`, and for steps < 1 or a baseline that doesn't fit.

    Source: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017, section 3.
    """
    if int(steps) != steps or steps < 1:
        raise ValueError(f"integrated_gradients: steps={steps!r}, expected an integer from 1 on")
    where = "integrated_gradients"
    network = _network(model, images, where)
    plan = network.plan()

    def slope(x, start, classes, share):
        def score(x):
            return _score(_scores(network, plan.run({0: x})), classes)

        value, gradient = backend.value_and_grad(score)(start + share * (x - start))
        return gradient, _for_each(classes, value)

    pictures, classes = network.checked(images, classes, where)
    start = baseline_images(pictures, baseline, where)
    if (classes < 0).any():
        classes = _most_probable(network, _outputs(where, network, pictures, batch_size))
    compiled = plan.compile(where, slope)
    gradient, together = np.zeros_like(pictures), max(1, batch_size // len(pictures))
    middles = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    for at in range(0, steps, together):
        shares = middles[at : at + together]
        count = len(shares) * len(pictures)
        share = np.repeat(shares, len(pictures)).reshape(-1, 1, 1, 1)
        copies = (np.tile(each, (len(shares), *[1] * (each.ndim - 1))) for each in (pictures, start, classes))
        gradients, totals = networks.batched(compiled, min(batch_size, count), *copies, share)
        _check_finite(where, network, pictures, gradients, totals)
        gradient += gradients.reshape(len(shares), *pictures.shape).sum(axis=0)
    shares = gradient / np.float32(steps) * (pictures - start)
    return _as_given(shares if raw else _scaled(np.abs(shares).sum(-1)), images)


def occlusion(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    window: int = 16,
    stride: int = 8,
    baseline: Any = "mean",
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map by how much the logit falls when a square window of the picture is hidden.

    The window moves over the picture by `stride`, from the upper left corner to the lower right one, where the last
    step may be shorter. A pixel gets the mean fall over all windows that hide it. What is negative (the logit rises)
    becomes 0, and each map is divided by its own maximum.

    Args:
        model, images, classes: as in `cam`, but any classifier will do.
        window: side of the square in pixels.
        stride: pixels from one window to the next, at most `window`.
        baseline: what hides the picture, as in `integrated_gradients`, by default its mean colour.
        batch_size: hidden pictures at a time.
        raw: give the falls of the logit before negative values are cut off and the rest is scaled.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one picture (H, W).

    Raises:
        ValueError: as `saliency`, and for a window, stride or baseline that doesn't fit.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2.
    """
    where = "occlusion"
    network = _network(model, images, where)
    pictures, classes = network.checked(images, classes, where)
    size = pictures.shape[1:3]
    if not (int(window) == window and int(stride) == stride and 1 <= stride <= window <= min(size)):
        raise ValueError(
            f"occlusion: window={window!r} and stride={stride!r}, expected integers with 1 ≤ stride ≤ "
            f"window ≤ {min(size)}, the picture's shorter side"
        )
    corners = [sorted({*range(0, length - window, stride), length - window}) for length in size]
    masks = np.zeros((len(corners[0]), len(corners[1]), *size), np.float32)
    for i, y in enumerate(corners[0]):
        for j, x in enumerate(corners[1]):
            masks[i, j, y : y + window, x : x + window] = 1
    masks = masks.reshape(-1, *size)
    hidden, whole = baseline_images(pictures, baseline, where), _outputs(where, network, pictures, batch_size)
    classes = np.where(classes < 0, _most_probable(network, whole), classes)
    falls = np.empty((len(pictures), len(masks)), np.float32)
    for start in range(0, falls.size, 4 * batch_size):
        row, at = np.divmod(np.arange(start, min(start + 4 * batch_size, falls.size)), len(masks))
        covered = np.where(masks[at][..., None] > 0, hidden[row], pictures[row])
        change = whole[row] - _outputs(where, network, covered, batch_size)
        sides = np.concatenate([change, -change], axis=1) if network.is_two_sided else change
        falls[row, at] = sides[np.arange(len(row)), classes[row]]
    if not falls.any(axis=1).all():
        network.check_weights(where)  # a ReLU may make 0 of NaN
    maps = np.einsum("np,phw->nhw", falls, masks, optimize=True) / masks.sum(axis=0)
    return _as_given(maps if raw else _scaled(np.maximum(maps, 0)), images)


def logits(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give the scores that a softmax or sigmoid at the model's end would turn into probabilities.

    Returns:
        (N, outputs) float32. A model that ends in neither is taken to give logits.

    Raises:
        ValueError: as `saliency`.
    """
    network = _network(model, images, "logits")
    return _outputs("logits", network, network.checked(images, None, "logits")[0], batch_size)


def probabilities(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give each output's probability, (N, outputs) float32 in [0, 1], also where the model itself gives logits.

    The model's own softmax or sigmoid decides, wherever it is; logits of a model with neither get softmax, a single one
    sigmoid. A single output is the probability p of class 0; that of class 1 is 1 − p.
    """
    network = _network(model, images, "probabilities", sealed=True)
    scores = _outputs("probabilities", network, network.checked(images, None, "probabilities")[0], batch_size)
    if network.sealed:
        return np.exp(scores) if network.sealed == "logarithms" else scores
    if network.squash in ("sigmoid", "logsigmoid") or network.is_two_sided:
        return ops.convert_to_numpy(ops.sigmoid(scores))
    return ops.convert_to_numpy(ops.softmax(scores, axis=-1))


def predicted_classes(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give the most probable class of each image, (N,) int32: the one explained where `classes` is None.

    Of a model with one output it is 0 where the probability is 0.5 or more, else 1.
    """
    network = _network(model, images, "predicted_classes", sealed=True)
    pictures, _ = network.checked(images, None, "predicted_classes")
    return _most_probable(network, _outputs("predicted_classes", network, pictures, batch_size))


def deconvnet(
    model: "keras.Model",
    images: np.ndarray,
    layer: Any,
    channel: int | None = None,
    switches: Any = True,
    everywhere: bool = False,
) -> Any:
    """Project a feature back to the pixels, as ZFNet's authors did: unpool, rectify, transposed filters.

    From the strongest activation of a layer down to the picture: max pooling puts each value back to where its maximum
    was, the first one where several are equal, and adds where windows overlap; ReLU sets negative values to 0;
    convolutions, and whatever else is linear (batch normalization, rescaling, padding, average pooling), are
    transposed. Response normalization is left out, as in the paper.

    Args:
        model: Keras model in which one layer follows another, from the pictures to `layer`; nested or not.
        images: (N, H, W, 3) in the model's own range, or one picture (H, W, 3).
        layer: name of a layer with feature maps (N, h, w, C), as in `grad_cam`.
        channel: the feature, 0 to C − 1; None for all of them.
        switches: False to put each value to the same cell of its window instead: the middle, or what is left above it.
        everywhere: project all activations of the channel together, not the strongest alone.

    Returns:
        (N, H, W, 3) float32 of either sign, in the units of the picture's gradient; (H, W, 3) for one picture.

    Raises:
        ValueError: for a layer or channel that isn't there, and for layers on the way that have no way back here.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 2.1.
    """
    network = _network(model, images, "deconvnet", scores=False)
    chain = _chain(network, network.find(layer, "deconvnet"), "deconvnet")
    pictures, _ = network.checked(images, None, "deconvnet")
    inputs = _forward(network, chain, pictures, "deconvnet")
    features = inputs.pop()
    channels = np.arange(features.shape[-1])
    chosen = np.isin(channels, channels if channel is None else _channel(features, channel, "deconvnet"))
    if not everywhere:
        flat = np.where(chosen, features, -np.inf).reshape(len(features), -1)
        chosen = (np.arange(flat.shape[1]) == flat.argmax(-1)[:, None]).reshape(features.shape)
    back = np.where(chosen, features, 0)
    for step, x in zip(reversed(chain), reversed(inputs)):
        back = _backward(step, x, back, switches)
    return _as_given(back, images)


def strongest(
    model: "keras.Model", images: np.ndarray, layer: Any, channel: int, count: int = 9, batch_size: int = 64
) -> Any:
    """Find the pictures that excite a feature most, and the part of each that the strongest activation sees.

    Args:
        model, layer: as in `deconvnet`.
        images: (N, H, W, 3) in the model's own range.
        channel: the feature, 0 to C − 1.
        count: how many pictures, each with its strongest activation.
        batch_size: pictures at a time.

    Returns:
        rows: (count,) int, which pictures, the most excited first; fewer where there are fewer pictures.
        windows: (count, 4) float32, xyxy in pixels: all that the activation depends on, cut at the picture's border.
        values: (count,) float32, the activations.

    Raises:
        ValueError: as `deconvnet`.
    """
    network = _network(model, images, "strongest", scores=False)
    target = network.find(layer, "strongest")
    chain = _chain(network, target, "strongest")
    plan = network.plan(target, folds=True)
    pictures, _ = network.checked(images, None, "strongest")
    inputs = _forward(network, chain, pictures[:1], "strongest")
    channels = np.full(len(pictures), _channel(inputs.pop(), channel, "strongest"), np.int32)

    def forward(x, channels):
        features = ops.cast(plan.run({0: x}, "before")[target], "float32")
        return ops.take(features, channels[0], axis=-1)

    maps = plan.batched("strongest", forward, batch_size, pictures, channels)
    if not np.isfinite(maps).all():
        network.blame("strongest", f"activations of {layer!r}", maps)
    flat = maps.reshape(len(maps), -1)
    rows = np.argsort(-flat.max(-1), kind="stable")[:count]
    y, x = np.unravel_index(flat[rows].argmax(-1), maps.shape[1:])
    spans = [[_seen(chain, inputs, place, axis) for place in places] for axis, places in ((1, x), (0, y))]
    windows = np.concatenate([np.reshape(spans, (2, -1, 2))[..., end].T for end in (0, 1)], axis=1)
    return rows, windows.astype(np.float32), flat[rows].max(-1)


def overlay(image: Any, map: np.ndarray, opacity: float = 0.5, cmap: str = "viridis") -> Any:
    """Lay a map over its image, in the colours of a matplotlib colour map.

    Args:
        image: (H, W, 3) or (N, H, W, 3), uint8 or float, 0–255; or a list of N images, such as `Dataset.display` gives.
        map: (H, W) or (N, H, W), in [0, 1]. A map smaller than its image, with the same ratio of its sides, is
            interpolated linearly, so that a map of the image that a network saw fits its large render.
        opacity: of the map, 0 (the image alone) to 1 (the map alone).
        cmap: name of the colour map.

    Returns:
        uint8, of the image's shape; a list of such for a list.

    Raises:
        ValueError: for shapes that don't fit, and an opacity outside 0 to 1.
    """
    import matplotlib

    if isinstance(image, list) and len(image) == len(map):
        return [overlay(*each, opacity, cmap) for each in zip(image, map)]
    image, map = np.asarray(image, np.float32), _fit(np.asarray(map, np.float32), np.shape(image))
    if image.shape != (*map.shape, 3):
        raise ValueError(f"overlay: image has shape {image.shape} and map {map.shape}, expected (H, W, 3) and (H, W)")
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity={opacity!r}, expected a number from 0 to 1")
    colours = 255 * matplotlib.colormaps[cmap](np.clip(map, 0, 1))[..., :3]
    return np.rint(np.clip((1 - opacity) * image + opacity * colours, 0, 255)).astype(np.uint8)


def _fit(map, shape):
    """Interpolate (H, W) or (N, H, W) maps to the size of larger images, where the ratio of the sides is the same."""
    import cv2

    if len(shape) != map.ndim + 1 or map.ndim not in (2, 3):
        return map
    (height, width), (rows, columns) = shape[-3:-1], map.shape[-2:]
    if rows >= height or rows * width != height * columns:
        return map
    resized = [cv2.resize(each, (width, height)) for each in map.reshape(-1, rows, columns)]
    return np.reshape(resized, (*map.shape[:-2], height, width))


def normalize(images: np.ndarray, mean: Any = 0.0, std: Any = 255.0) -> Any:
    """Bring pixels to a model's range: (images − mean) / std, channel by channel.

    Args: images: (..., 3). mean, std: numbers, or one for each channel, in the units of the images; by default pixels
        0–255 come to 0–1.

    Returns:
        float32, of the images' shape.
    """
    return ((np.asarray(images, np.float64) - mean) / std).astype(np.float32)


def denormalize(images: np.ndarray, mean: Any = 0.0, std: Any = 255.0) -> Any:
    """Undo `normalize` with the same mean and std: images · std + mean, by default 0–1 to 0–255.

    Returns:
        float32, of the images' shape; uint8 pixels come back to within rounding (`np.rint` makes them whole).
    """
    return (np.asarray(images, np.float64) * std + mean).astype(np.float32)


def _network(model, images, where, scores=True, sealed=False):
    """Lay a model open; `scores`: it must give some, `sealed`: also where their logits can't be reached."""
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *np.shape(images)[-3:]))
    network = networks.laid_open(model, where)
    if scores and len(network.shapes[network.output]) != 2:
        raise ValueError(
            f"{where}: {network.name} gives {network.shapes[network.output]}, expected scores (N, classes)"
        )
    if scores and not sealed and network.sealed:
        name, kind = network.last.name, type(network.last.layer).__name__
        raise ValueError(
            f"{where}: layer {name!r}, a {kind} at the end of {network.name}, gives "
            f"{network.sealed} itself, so that there is no logit to explain; let it give logits, and put "
            "layers.Softmax() or layers.Activation('sigmoid') behind it, or neither"
        )
    return network


def _outputs(where, network, pictures, batch_size):
    """Compute what the model gives without the softmax or sigmoid at its end, (N, outputs), and check it."""
    plan = network.plan(folds=True)

    def forward(x):
        return ops.cast(plan.run({0: x})[network.output], "float32")

    outputs = plan.batched("logits", forward, batch_size, pictures)
    if not np.isfinite(outputs).all():
        network.blame(where, "outputs" if network.sealed else "logits", outputs)
    return outputs


def _most_probable(network, outputs):
    """Give the class (N,) int32 of outputs (N, …): of a single one, 1 where its probability is below 0.5."""
    if network.sealed == "logarithms":
        outputs = np.exp(outputs)
    if outputs.shape[1] == 1 and (network.sealed or network.is_two_sided):
        return (outputs[:, 0] < (0.5 if network.sealed else 0)).astype(np.int32)
    return outputs.argmax(-1).astype(np.int32)


def _check_finite(where, network, pictures, maps, totals):
    """Raise an error where maps, or the totals that came with them, are not finite."""
    if not np.isfinite(totals).all():
        _outputs(where, network, pictures, len(pictures))  # finds the image
    for what, values in (("gradients", maps), ("sums of logits", totals)):
        if not np.isfinite(values).all():
            network.blame(where, what, values)
    if not maps.reshape(len(maps), -1).any(axis=1).all():
        network.check_weights(where)  # a ReLU may make 0 of NaN


def _both_sides(network, scores):
    """Give the scores of both classes, (…, 2), where a single output speaks for class 0; else what was given."""
    return ops.concatenate([scores, -scores], axis=-1) if network.is_two_sided else scores


def _scores(network, values):
    """Give the logits of all classes, (N, classes) float32, from the tensors of a run."""
    return _both_sides(network, ops.cast(values[network.output], "float32"))


def _for_each(classes, value):
    """Give each image, (N,), the number that a batch has in common."""
    return ops.zeros_like(classes, dtype="float32") + value


def _chosen(logits, classes):
    """Give the classes (N,), the best-scored one where −1 stands."""
    return ops.where(classes < 0, ops.cast(ops.argmax(logits, axis=-1), "int32"), classes)


def _score(logits, classes):
    """Sum the chosen logits of all pictures; none depends on another picture. NaN where any logit is not finite."""
    return ops.sum(logits * ops.one_hot(_chosen(logits, classes), logits.shape[-1], dtype="float32"))


def _heatmaps(where, network, plan, function, images, classes, batch_size, raw):
    """Run what gives a cell a number, and enlarge, rectify and scale the maps."""
    pictures, classes = network.checked(images, classes, where)
    cells, totals = plan.batched(where, function, batch_size, pictures, classes)
    _check_finite(where, network, pictures, cells, totals)
    height, width = pictures.shape[1:3]
    shrinks = cells.shape[1] > height or cells.shape[2] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    maps = np.stack([cv2.resize(own, (width, height), interpolation=how) for own in cells])
    return _as_given(maps if raw else _scaled(np.maximum(maps, 0)), images)


def _weighted_maps(where, weights_of, model, images, classes, layer, batch_size, raw):
    """Add up a layer's feature maps with the weights (N, C) that `weights_of` gives for them and their gradient."""
    network = _network(model, images, where)
    target = network.last_maps(where) if layer is None else network.find(layer, where)
    plan = network.plan(target)

    def weighted(x, classes):
        values = plan.run({0: x}, "before")

        def score(features):
            return _score(_scores(network, plan.run(values | {target: features}, "after")), classes)

        value, gradient = backend.value_and_grad(score)(values[target])
        features, gradient = ops.cast(values[target], "float32"), ops.cast(gradient, "float32")
        cells = ops.einsum("nhwc,nc->nhw", features, weights_of(features, gradient))
        return cells, _for_each(classes, value)

    return _heatmaps(where, network, plan, weighted, images, classes, batch_size, raw)


def _scaled(maps):
    """Divide each map by its maximum; one that is 0 all over stays so."""
    top = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(top > 0, top, 1)


def _as_given(maps, images):
    """Take the first axis off again where one picture was given without it."""
    return maps[0] if np.ndim(images) == 3 else maps


def _channel(features, channel, where):
    if int(channel) != channel or not 0 <= channel < features.shape[-1]:
        raise ValueError(f"{where}: channel={channel!r}, expected an int from 0 to {features.shape[-1] - 1}")
    return int(channel)


def _chain(network, number, where):
    """Give the steps from the picture to a tensor, where one follows another."""
    steps = network.upstream(number)
    for step in steps:
        if len(step.parents) != 1 or len(step.outputs) != 1:
            raise ValueError(f"{where}: layer {step.name!r} joins several paths, expected one layer after another")
        if not step.is_idle and not _has_way_back(step):
            known = ", ".join(kind.__name__ for kind in (layers.ReLU, layers.MaxPooling2D, *LINEAR))
            raise ValueError(
                f"{where}: layer {step.name!r}, a {type(step.layer).__name__} with {step.activation} "
                f"activation, has no way back; {known} have one. Name a layer before it, or build a block "
                "of several layers as a functional model"
            )
    return [step for step in steps if not step.is_idle]


def _forward(network, chain, pictures, where):
    """Compute what each step gets, and what the last one gives, as arrays."""
    network.check_weights(where)
    values = [pictures]
    for step in chain:
        (output,) = step({step.parents[0]: ops.convert_to_tensor(values[-1])})
        values.append(ops.convert_to_numpy(ops.cast(output, "float32")))
        if not np.isfinite(values[-1]).all():
            network.blame(where, f"activations of {step.name!r}", values[-1])
    return values


def _has_way_back(step):
    layer = step.layer
    if step.is_only_an_activation:
        return step.activation in networks.RECTIFIERS
    if _is_response_normalization(layer) or type(layer) is layers.MaxPooling2D:
        return step.is_channels_last
    plain = step.activation == "linear" or (step.is_weighted and step.activation in networks.RECTIFIERS)
    return type(layer) in LINEAR and plain and step.is_channels_last  # a class derived from one may do anything


def _is_response_normalization(layer):
    return "responsenormalization" in type(layer).__name__.lower()


def _backward(step, x, back, switches):
    """Take what was reconstructed of a step's output on to its input x."""
    layer = step.layer
    if step.activation in networks.RECTIFIERS:
        back = np.maximum(back, 0)
    if step.is_only_an_activation or _is_response_normalization(layer):
        return back
    if isinstance(layer, layers.MaxPooling2D):
        return _unpool(layer, x, back, switches)

    def linear(x):
        if step.is_weighted:
            y = networks.product(layer, x, layer.padding, ops.cast(networks.value(layer.kernel), "float32"))
        else:
            (y,) = step({step.parents[0]: x})
        return ops.sum(ops.multiply(ops.cast(y, "float32"), back))

    return ops.convert_to_numpy(backend.value_and_grad(linear)(x)[1])


def _unpool(layer, x, back, switches):
    """Put each value back to where its window's maximum was, or to the window's middle."""
    (high, wide), (down, across) = layer.pool_size, layer.strides
    before = [_padding(layer, axis, x.shape[1 + axis])[0] for axis in (0, 1)]
    rows, columns = back.shape[1:3]
    full = ((rows - 1) * down + high, (columns - 1) * across + wide)
    frame = [(0, 0)] + [(p, max(0, f - p - n)) for p, f, n in zip(before, full, x.shape[1:3])] + [(0, 0)]
    padded = np.pad(x, frame, constant_values=-np.inf)
    cells = [
        (slice(None), slice(i, i + (rows - 1) * down + 1, down), slice(j, j + (columns - 1) * across + 1, across))
        for i in range(high)
        for j in range(wide)
    ]
    middle = (high - 1) // 2 * wide + (wide - 1) // 2
    where = np.stack([padded[cell] for cell in cells]).argmax(0) if switches else np.full(back.shape, middle)
    out = np.zeros(padded.shape, np.float32)
    for number, cell in enumerate(cells):
        out[cell] += np.where(where == number, back, 0)
    return out[:, before[0] :, before[1] :][:, : x.shape[1], : x.shape[2]]


def _padding(layer, axis, size):
    """Give (cells before the first, kernel's extent, stride) of a windowed layer along an axis of the given size."""
    kernel = getattr(layer, "kernel_size", None) or layer.pool_size
    stride, dilation = layer.strides[axis], getattr(layer, "dilation_rate", (1, 1))[axis]
    extent = (kernel[axis] - 1) * dilation + 1
    before = networks.same_padding(size, extent, stride)[0] if layer.padding == "same" else 0
    return before, extent, stride


def _seen(chain, inputs, place, axis):
    """Give the pixels, from … to (exclusive), that a place of the last step depends on, along an axis."""
    low = high = place
    for step, x in zip(reversed(chain), reversed(inputs)):
        size = x.shape[1 + axis]
        if isinstance(step.layer, WINDOWED):
            before, extent, stride = _padding(step.layer, axis, size)
            low, high = low * stride - before, high * stride - before + extent - 1
        elif isinstance(step.layer, layers.ZeroPadding2D):
            low, high = low - step.layer.padding[axis][0], high - step.layer.padding[axis][0]
        elif isinstance(step.layer, layers.Cropping2D):
            low, high = low + step.layer.cropping[axis][0], high + step.layer.cropping[axis][0]
        low, high = max(low, 0), min(high, size - 1)
    return low, high + 1
