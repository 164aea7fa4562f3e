"""What a classifier looks at: CAM, Grad-CAM, gradients and their means, occlusion, RISE.

What is explained is always the logit: the score that a softmax or sigmoid at the model's end turns into a probability.
A model with one output, a sigmoid or its logit, has two classes: 0 is the one whose probability p it gives, and 1 the
other, whose probability is 1 − p and whose logit is the negative. Where no class is asked for, the more probable one of
each image is explained; `predicted_classes` names it.

Every method goes the same way. `_opened` gives the classifier's network, and checks images and classes. A function of
tensors, in the method's own body, computes the numbers for a batch; `_computed` runs it over all batches, and
`_heatmaps` or `_pixel_maps` turns the numbers into maps from 0 to 1. The model itself is in the plans: `plan.scores(x)`
gives its logits, and of a plan for a layer `features, head = plan.split(x)` gives the layer's output and the function
from there to the logits. How a plan computes them fast is in `cvlab/engine/folded.py`.

Every function takes the weights as they are when it is called; what is kept of a model is how it is built. Images,
weights or logits with NaN or infinite numbers are an error that says where they are.
"""

from typing import Any

import cv2
import keras
import numpy as np
from keras import ops

from . import backend
from .deconv import deconvnet as deconvnet  # explain.deconvnet, too
from .deconv import strongest as strongest
from .engine import networks
from .engine.folded import batched
from .metrics import baseline_images


def cam(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map which places speak for a class, by the weights of the dense layer behind the pooling.

    A cell of the last feature maps adds w · f / (h · w) to the logit: f are its features, w the class's weights, and
    the pooling divides by the number of cells. These shares, upsampled bilinearly to the image's size, are the raw map
    (before upsampling they sum to the logit without its bias). What is negative becomes 0, and each map is divided by
    its own maximum. A map in which nothing speaks for the class is 0 all over.

    Args:
        model: Keras Sequential or functional model, from images to logits or probabilities (N, num_classes), that ends
            in global average pooling and a dense layer; dropout may stand between them. Models may be nested in it.
        images: (N, H, W, 3) in the model's own range, or one image (H, W, 3).
        classes: None for those predicted (see `predicted_classes`), an int for all images, or (N,) ints. Of a model
            with one output, a sigmoid or its logit, class 0 is the one that it speaks for and 1 the other.
        batch_size: images at a time.
        raw: give the map before negative values are cut off and the rest is scaled.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one image (H, W).

    Raises:
        ValueError: for another kind of model, one whose softmax or sigmoid is hidden in another layer, for images or
            classes that it can't have, and for NaN and infinite numbers.

    Source: Zhou et al., Learning deep features for discriminative localization, CVPR 2016, section 2.
    """
    network, batch, classes = _opened("cam", model, images, classes)
    pooled, dense = network.pooled_head("cam")
    plan = network.plan(pooled, folds=True)

    def shares(x, classes):
        features, head = plan.split(x)
        logits = _both_sides(network, head(features))
        weights = _both_sides(network, ops.cast(dense.layer.kernel, "float32"))
        class_weights = ops.take(weights, _chosen(logits, classes), axis=1)  # (C, N)
        num_cells = ops.cast(ops.shape(features)[1] * ops.shape(features)[2], "float32")
        cells = ops.einsum("nhwc,cn->nhw", ops.cast(features, "float32"), class_weights) / num_cells
        return cells, ops.sum(logits, axis=-1)

    return _heatmaps(_computed("cam", network, plan, shares, batch_size, batch, classes), images, raw)


def grad_cam(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    layer: Any = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map which places of a layer speak for a class, its feature maps weighted by the gradient of the logit.

    The weight of a feature map is the mean, over its cells, of the logit's gradient with respect to them; the raw map
    is the weighted sum of the feature maps, upsampled bilinearly to the image's size. What is negative becomes 0, and
    each map is divided by its own maximum. On the maps that global average pooling and a dense layer read, it equals
    `cam`.

    Args:
        model, images, classes, batch_size, raw: as in `cam`, but any convolutional classifier will do.
        layer: name of a layer, of a nested model's layer ("name" or "model/name"), or of a nested model, whose output
            is explained as it is. None takes the last feature maps: those that global pooling reads, and in a model
            without it the last ones before a pooling, flattening or dense layer.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one image (H, W).

    Raises:
        ValueError: as `cam`, and for a layer that isn't there or whose output is not feature maps (N, h, w, C), and a
            model without a convolution or with one whose maps can't be reached.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2.
    """
    network, batch, classes = _opened("grad_cam", model, images, classes)
    plan = network.plan(network.last_maps("grad_cam") if layer is None else network.find(layer, "grad_cam"))

    def weighted_sum(x, classes):
        features, head = plan.split(x)
        gradient, totals = _gradient(network, head, features, classes)
        features, gradient = ops.cast(features, "float32"), ops.cast(gradient, "float32")
        weights = ops.mean(gradient, axis=(1, 2))  # eq. 1
        return ops.einsum("nhwc,nc->nhw", features, weights), totals  # eq. 2; `_heatmaps` rectifies

    return _heatmaps(_computed("grad_cam", network, plan, weighted_sum, batch_size, batch, classes), images, raw)


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
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one image (H, W).

    Raises:
        ValueError: as `grad_cam`.

    Source: Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 5, 10 and 19.
    """
    caller = "grad_cam_plus_plus"
    network, batch, classes = _opened(caller, model, images, classes)
    plan = network.plan(network.last_maps(caller) if layer is None else network.find(layer, caller))

    def weighted_sum(x, classes):
        features, head = plan.split(x)
        gradient, totals = _gradient(network, head, features, classes)
        features, gradient = ops.cast(features, "float32"), ops.cast(gradient, "float32")
        positive, sums = ops.relu(gradient), ops.sum(features, axis=(1, 2), keepdims=True)
        weights = ops.sum(positive / (2 + positive * sums), axis=(1, 2))  # eq. 5, with 19 put in
        return ops.einsum("nhwc,nc->nhw", features, weights), totals

    return _heatmaps(_computed(caller, network, plan, weighted_sum, batch_size, batch, classes), images, raw)


def saliency(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map how much the logit changes with each pixel: its gradient with respect to the image.

    The absolute values of a pixel's channels are summed, and each map is divided by its own maximum.

    Args:
        model, images, classes, batch_size: as in `cam`, but any classifier will do.
        raw: give the gradient itself.

    Returns:
        (N, H, W) float32 in [0, 1], or the gradient, (N, H, W, 3) float32, if raw; without N for one image.

    Raises:
        ValueError: as `cam`, for a model that is not Sequential or functional.

    Source: Simonyan et al., Deep inside convolutional networks, 2014, section 3 (which takes the largest channel).
    """
    network, batch, classes = _opened("saliency", model, images, classes)
    plan = network.plan()

    def gradient(x, classes):
        return _gradient(network, plan.scores, x, classes)

    def pixel_sums(x, classes):
        slope, totals = gradient(x, classes)
        return ops.sum(ops.abs(slope), axis=-1), totals

    maps = _computed("saliency", network, plan, gradient if raw else pixel_sums, batch_size, batch, classes)
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
    """Map the saliency that stays when noise is added: the mean gradient of several noisy copies of each image.

    The mean is of signed gradients; then the absolute values of a pixel's channels are summed, and each map is divided
    by its own maximum. All images get the same patterns of noise, each scaled to its own range, so that a map does
    not depend on which images come along. Predicted classes are those of the images without noise.

    Args:
        model, images, classes, batch_size, raw: as in `saliency`.
        samples: noisy copies of each image.
        noise: standard deviation, as a share of the image's range (its largest value less its smallest).
        seed: of the noise.

    Returns:
        (N, H, W) float32 in [0, 1], or the mean gradient, (N, H, W, 3) float32, if raw; without N for one image.

    Raises:
        ValueError: as `saliency`, and for samples < 1 or noise < 0.

    Source: Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.
    """
    if samples < 1 or noise < 0:
        raise ValueError(f"smooth_grad: samples={samples!r} and noise={noise!r}, expected at least 1 and at least 0")
    network, batch, classes = _opened("smooth_grad", model, images, classes)
    plan, classes = network.plan(), _with_predicted("smooth_grad", network, batch, classes, batch_size)

    def slope(x, classes, spread, patterns):
        def mean_scores(x):  # times the number of patterns
            noisy = x[:, None] + spread[:, None, None, None, None] * patterns
            scores = plan.scores(ops.reshape(noisy, (-1, *x.shape[1:])))
            return ops.sum(ops.reshape(scores, (ops.shape(x)[0], -1, scores.shape[-1])), axis=1)

        return _gradient(network, mean_scores, x, classes)

    patterns = np.random.default_rng(seed).standard_normal((samples, *batch.shape[1:]), np.float32)
    room = max(1, batch_size // len(batch))  # copies that fit a batch
    together = max(size for size in range(1, min(room, samples) + 1) if samples % size == 0)
    groups = [ops.convert_to_tensor(group) for group in patterns.reshape(-1, together, *batch.shape[1:])]
    spread = noise * np.ptp(batch, axis=(1, 2, 3)).astype(np.float32)
    compiled = plan.compile("smooth_grad", slope)

    def total(*arrays):
        gradients, totals = zip(*(compiled(*arrays, group) for group in groups))
        return sum(gradients), sum(totals)

    gradient, totals = batched(total, batch_size, batch, classes, spread)
    _check_finite("smooth_grad", network, batch, gradient, totals)
    return _pixel_maps(gradient / np.float32(samples), images, raw)


def integrated_gradients(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    steps: int = 64,
    baseline: Any = 0,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map what each pixel adds to the logit on the straight way from a baseline to the image.

    The mean gradient along the way (at the middles of `steps` equal parts), times image less baseline. These shares
    sum to the logit of the image less that of the baseline, the more exactly the more steps.

    Args:
        model, images, classes, batch_size: as in `saliency`. Predicted classes are those of the images.
        steps: points on the way.
        baseline: where it begins: a number in the model's own range, by default black for a model that takes 0–255;
            "mean", the image's mean colour; "blur", the image blurred; or images that broadcast to the given ones.
        raw: give the shares themselves.

    Returns:
        (N, H, W) float32 in [0, 1], absolute values summed over channels and divided by the map's maximum; or the
        shares, (N, H, W, 3) float32 of either sign, if raw. Without N for one image.

    Raises:
        ValueError: as `saliency`, and for steps < 1 or a baseline that doesn't fit.

    Source: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017, section 3.
    """
    caller = "integrated_gradients"
    if int(steps) != steps or steps < 1:
        raise ValueError(f"{caller}: steps={steps!r}, expected an integer from 1 on")
    network, batch, classes = _opened(caller, model, images, classes)
    start = baseline_images(batch, baseline, caller)
    plan, classes = network.plan(), _with_predicted(caller, network, batch, classes, batch_size)

    def slope(x, classes, start, share):
        return _gradient(network, plan.scores, start + share * (x - start), classes)

    total, together = np.zeros_like(batch), max(1, batch_size // len(batch))
    middles = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    for first in range(0, steps, together):  # as many points of the way at a time as fit a batch
        shares = middles[first : first + together]
        x, y, starts = (np.concatenate([array] * len(shares)) for array in (batch, classes, start))
        share = np.repeat(shares, len(batch)).reshape(-1, 1, 1, 1)
        gradients = _computed(caller, network, plan, slope, min(batch_size, len(x)), x, y, starts, share)
        total += gradients.reshape(len(shares), *batch.shape).sum(axis=0)
    return _pixel_maps(total / np.float32(steps) * (batch - start), images, raw)


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
    """Map by how much the logit falls when a square window of the image is hidden.

    The window moves over the image by `stride`, from the upper left corner to the lower right one, where the last
    step may be shorter. A pixel gets the mean fall over all windows that hide it. What is negative (the logit rises)
    becomes 0, and each map is divided by its own maximum.

    Args:
        model, images, classes: as in `cam`, but any classifier will do.
        window: side of the square in pixels.
        stride: pixels from one window to the next, at most `window`.
        baseline: what hides the image, as in `integrated_gradients`, by default its mean colour.
        batch_size: hidden images at a time.
        raw: give the falls of the logit before negative values are cut off and the rest is scaled.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one image (H, W).

    Raises:
        ValueError: as `saliency`, and for a window, stride or baseline that doesn't fit.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2.
    """
    network, batch, classes = _opened("occlusion", model, images, classes)
    windows, hidden = _windows(batch.shape[1:3], window, stride), baseline_images(batch, baseline, "occlusion")
    classes = _with_predicted("occlusion", network, batch, classes, batch_size)
    whole = _masked_logits("occlusion", network, batch, hidden, np.ones_like(windows[:1]), classes, batch_size)
    falls = whole - _masked_logits("occlusion", network, batch, hidden, 1 - windows, classes, batch_size)
    if not falls.any(axis=1).all():
        network.check_weights("occlusion")  # a ReLU may make 0 of NaN
    maps = np.einsum("np,phw->nhw", falls, windows, optimize=True) / windows.sum(axis=0)
    return _heatmaps(maps, images, raw)


def rise(
    model: "keras.Model",
    images: np.ndarray,
    classes: int | np.ndarray | None = None,
    masks: int = 500,
    cells: int = 7,
    keep: float = 0.5,
    baseline: Any = "mean",
    seed: int = 0,
    batch_size: int = 16,
    raw: bool = False,
) -> np.ndarray:
    """Map by how much the logit is above its mean when a pixel stays visible and others are hidden at random.

    A mask M is a grid of `cells` × `cells` random zeros and ones, upsampled bilinearly and shifted at random by up to
    a cell. Where M is 1 the image is visible, where it is 0 the baseline is. Over all masks, a pixel gets the mean of
    (logit − mean logit) · M, divided by `keep`. What is negative becomes 0, and each map is divided by its own maximum.
    The paper takes probabilities instead of logits, and leaves the mean in, which adds nearly the same to all pixels.

    Args:
        model, images, classes: as in `cam`, but any classifier will do. Predicted classes are those of the images.
        masks: how many; all images get the same ones.
        cells: of a mask's grid, along each side.
        keep: probability that a cell is visible.
        baseline: what hides the image, as in `integrated_gradients`, by default its mean colour.
        seed: of the masks.
        batch_size: masked images at a time.
        raw: give the map before negative values are cut off and the rest is scaled.

    Returns:
        (N, H, W) float32 in [0, 1], or of either sign if raw; for one image (H, W).

    Raises:
        ValueError: as `saliency`, and for masks, cells, a probability or a baseline that don't fit.

    Source: Petsiuk, Das and Saenko, RISE: randomized input sampling for explanation of black-box models, BMVC 2018,
        eq. 6 and section 3.2.
    """
    network, batch, classes = _opened("rise", model, images, classes)
    if not (int(masks) == masks >= 1 and int(cells) == cells and 1 <= cells <= min(batch.shape[1:3]) and 0 < keep < 1):
        raise ValueError(
            f"rise: masks={masks!r}, cells={cells!r} and keep={keep!r}, expected an integer from 1 on, one from 1 to "
            f"{min(batch.shape[1:3])}, the image's shorter side, and a probability above 0 and below 1"
        )
    hidden = baseline_images(batch, baseline, "rise")
    classes = _with_predicted("rise", network, batch, classes, batch_size)
    generator, together = np.random.default_rng(seed), max(1, batch_size // len(batch))  # masks that fit a batch
    scores, weighted, cover = np.zeros((len(batch), masks)), np.zeros(batch.shape[:3]), np.zeros(batch.shape[1:3])
    for first in range(0, masks, together):
        part = range(first, min(first + together, masks))
        visible = np.stack([_random_mask(generator, batch.shape[1:3], cells, keep) for _ in part])
        scores[:, part] = _masked_logits("rise", network, batch, hidden, visible, classes, batch_size)
        weighted += np.einsum("nm,mhw->nhw", scores[:, part], visible)
        cover += visible.sum(axis=0)
    if not np.ptp(scores, axis=1).all():
        network.check_weights("rise")  # a ReLU may make 0 of NaN
    maps = (weighted - scores.mean(axis=1)[:, None, None] * cover) / (masks * keep)
    return _heatmaps(maps.astype(np.float32), images, raw)


def logits(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give the scores that a softmax or sigmoid at the model's end would turn into probabilities.

    Returns:
        (N, outputs) float32. A model that ends in neither is taken to give logits.

    Raises:
        ValueError: as `saliency`.
    """
    network, batch, _ = _opened("logits", model, images)
    return _outputs("logits", network, batch, batch_size)


def probabilities(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give each output's probability, (N, outputs) float32 in [0, 1], also where the model itself gives logits.

    The model's own softmax or sigmoid decides, wherever it is; logits of a model with neither get softmax, a single one
    sigmoid. A single output is the probability p of class 0; that of class 1 is 1 − p.
    """
    network, batch, _ = _opened("probabilities", model, images, sealed=True)
    scores = _outputs("probabilities", network, batch, batch_size)
    if network.sealed:
        return np.exp(scores) if network.sealed == "logarithms" else scores
    if network.squash in ("sigmoid", "logsigmoid") or network.is_two_sided:
        return ops.convert_to_numpy(ops.sigmoid(scores))
    return ops.convert_to_numpy(ops.softmax(scores, axis=-1))


def predicted_classes(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Give the most probable class of each image, (N,) int32: the one explained where `classes` is None.

    Of a model with one output it is 0 where the probability is 0.5 or more, else 1.
    """
    network, batch, _ = _opened("predicted_classes", model, images, sealed=True)
    return _most_probable(network, _outputs("predicted_classes", network, batch, batch_size))


# Images


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
        return [overlay(*pair, opacity, cmap) for pair in zip(image, map)]
    image, map = np.asarray(image, np.float32), _fit(np.asarray(map, np.float32), np.shape(image))
    if image.shape != (*map.shape, 3):
        raise ValueError(f"overlay: image has shape {image.shape} and map {map.shape}, expected (H, W, 3) and (H, W)")
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity={opacity!r}, expected a number from 0 to 1")
    colours = 255 * matplotlib.colormaps[cmap](np.clip(map, 0, 1))[..., :3]
    return np.rint(np.clip((1 - opacity) * image + opacity * colours, 0, 255)).astype(np.uint8)


def _fit(map, shape):
    """Interpolate (H, W) or (N, H, W) maps to the size of larger images, where the ratio of the sides is the same."""
    if len(shape) != map.ndim + 1 or map.ndim not in (2, 3):
        return map
    (height, width), (rows, columns) = shape[-3:-1], map.shape[-2:]
    if rows >= height or rows * width != height * columns:
        return map
    resized = [cv2.resize(small, (width, height)) for small in map.reshape(-1, rows, columns)]
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


# From a model and images to numbers


def _opened(caller, model, images, classes=None, sealed=False):
    """Lay a classifier open and check what is asked for.

    Args:
        caller: the name of the method, for errors.
        sealed: also take a model whose logits can't be reached.

    Returns:
        network: the `networks.Network` of the model.
        batch: (N, H, W, C) float32, the images.
        classes: (N,) int32, −1 for a class to be predicted.
    """
    network = networks.laid_open(model, caller, images)
    if len(network.shapes[network.output]) != 2:
        raise ValueError(
            f"{caller}: {network.name} gives {network.shapes[network.output]}, expected scores (N, num_classes)"
        )
    if network.sealed and not sealed:
        name, kind = network.last.name, type(network.last.layer).__name__
        raise ValueError(
            f"{caller}: layer {name!r}, a {kind} at the end of {network.name}, gives "
            f"{network.sealed} itself, so that there is no logit to explain; let it give logits, and put "
            "layers.Softmax() or layers.Activation('sigmoid') behind it, or neither"
        )
    batch = network.checked_images(images, caller)
    return network, batch, network.checked_classes(classes, len(batch), caller)


def _gradient(network, scores_of, x, classes):
    """Differentiate the sum of the chosen logits; no image's logit depends on another image.

    Args:
        scores_of: function of x that gives the network's scores, (N, outputs) float32.
        x: (N, ...) tensor.
        classes: (N,) ints, −1 for the class with the highest score.

    Returns:
        The gradient with respect to x; and the sum of the chosen logits, repeated for each image, (N,) float32. That is
        NaN where any logit is not finite.
    """

    def total(x):
        logits = _both_sides(network, scores_of(x))
        return ops.sum(logits * ops.one_hot(_chosen(logits, classes), logits.shape[-1], dtype="float32"))

    value, gradient = backend.value_and_grad(total)(x)
    return gradient, ops.zeros_like(classes, dtype="float32") + value


def _both_sides(network, scores):
    """Give the scores of both classes, (…, 2), where a single output speaks for class 0; else what was given."""
    return ops.concatenate([scores, -scores], axis=-1) if network.is_two_sided else scores


def _chosen(logits, classes):
    """Give the classes (N,), the best-scored one where −1 stands."""
    return ops.where(classes < 0, ops.cast(ops.argmax(logits, axis=-1), "int32"), classes)


def _computed(caller, network, plan, function, batch_size, *arrays):
    """Run a function over (N, ...) arrays, the images first, batch by batch: it gives numbers (N, ...) and totals (N,).

    The function is compiled when its name and the caller's are first used with a plan; that one serves ever after.
    """
    values, totals = plan.batched((caller, function.__name__), function, batch_size, *arrays)
    _check_finite(caller, network, arrays[0], values, totals)
    return values


def _check_finite(caller, network, batch, values, totals):
    """Raise an error where values, or the totals of logits that came with them, are not finite."""
    if not np.isfinite(totals).all():
        _outputs(caller, network, batch, len(batch))  # names the image
    for what, numbers in (("gradients", values), ("sums of logits", totals)):
        if not np.isfinite(numbers).all():
            network.blame(caller, what, numbers)
    if not values.reshape(len(values), -1).any(axis=1).all():
        network.check_weights(caller)  # a ReLU may make 0 of NaN


def _outputs(caller, network, batch, batch_size):
    """Compute what the model gives without the softmax or sigmoid at its end, (N, outputs), and check it."""
    plan = network.plan(folds=True)
    outputs = plan.batched("logits", plan.scores, batch_size, batch)
    if not np.isfinite(outputs).all():
        network.blame(caller, "outputs" if network.sealed else "logits", outputs)
    return outputs


def _most_probable(network, outputs):
    """Give the class (N,) int32 of outputs (N, …): of a single one, 1 where its probability is below 0.5."""
    if network.sealed == "logarithms":
        outputs = np.exp(outputs)
    if outputs.shape[1] == 1 and (network.sealed or network.is_two_sided):
        return (outputs[:, 0] < (0.5 if network.sealed else 0)).astype(np.int32)
    return outputs.argmax(-1).astype(np.int32)


def _with_predicted(caller, network, batch, classes, batch_size):
    """Give the classes (N,), all predicted from the images where −1 stands."""
    if (classes >= 0).all():
        return classes
    return _most_probable(network, _outputs(caller, network, batch, batch_size))


def _masked_logits(caller, network, batch, hidden, masks, classes, batch_size):
    """Compute the class's logit of each image under each mask.

    Args:
        batch, hidden: (N, H, W, C) float32, the images and what hides them.
        masks: (M, H, W) float32, from 1, where the image is visible, to 0, where it is hidden.
        classes: (N,) ints.

    Returns:
        (N, M) float32.
    """
    logits = np.empty((len(batch), len(masks)), np.float32)
    for first in range(0, logits.size, 4 * batch_size):
        row, mask = np.divmod(np.arange(first, min(first + 4 * batch_size, logits.size)), len(masks))
        visible = masks[mask][..., None]
        scores = _outputs(caller, network, visible * batch[row] + (1 - visible) * hidden[row], batch_size)
        scores = np.concatenate([scores, -scores], axis=1) if network.is_two_sided else scores
        logits[row, mask] = scores[np.arange(len(row)), classes[row]]
    return logits


def _random_mask(generator, size, cells, keep):
    """Draw one of RISE's masks, (H, W) float32 in [0, 1]."""
    grid = (generator.random((cells, cells)) < keep).astype(np.float32)
    height, width = (-(-length // cells) for length in size)  # of a cell, in pixels
    large = cv2.resize(grid, ((cells + 1) * width, (cells + 1) * height), interpolation=cv2.INTER_LINEAR)
    top, left = generator.integers(height), generator.integers(width)
    return large[top : top + size[0], left : left + size[1]]


def _windows(size, window, stride):
    """Give the masks of occlusion, (windows, H, W) float32, 1 where a window hides the image."""
    if not (int(window) == window and int(stride) == stride and 1 <= stride <= window <= min(size)):
        raise ValueError(
            f"occlusion: window={window!r} and stride={stride!r}, expected integers with 1 ≤ stride ≤ "
            f"window ≤ {min(size)}, the image's shorter side"
        )
    tops, lefts = (sorted({*range(0, length - window, stride), length - window}) for length in size)
    masks = np.zeros((len(tops), len(lefts), *size), np.float32)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            masks[i, j, top : top + window, left : left + window] = 1
    return masks.reshape(-1, *size)


# From numbers to maps


def _heatmaps(cells, images, raw):
    """Resize maps of cells, (N, h, w), to the images' size; rectify and scale them unless they are wanted raw."""
    height, width = np.shape(images)[-3:-1]
    shrinks = cells.shape[1] > height or cells.shape[2] > width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    maps = np.stack([cv2.resize(cell_map, (width, height), interpolation=interpolation) for cell_map in cells])
    return _as_given(maps if raw else _scaled(np.maximum(maps, 0)), images)


def _pixel_maps(values, images, raw):
    """Sum the absolute values of a pixel's channels, (N, H, W, C), and scale; or give the values where wanted raw."""
    return _as_given(values if raw else _scaled(np.abs(values).sum(-1)), images)


def _scaled(maps):
    """Divide each map by its maximum; one that is 0 all over stays so."""
    top = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(top > 0, top, 1)


def _as_given(maps, images):
    """Take the first axis off again where one image was given without it."""
    return maps[0] if np.ndim(images) == 3 else maps
