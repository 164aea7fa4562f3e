"""Segmentation: a class for each pixel, by fully convolutional networks of stride 32, 16 and 8."""

import functools
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from . import backend, classify, metrics, networks
from .data import Dataset


def fcn(
    backbone: "keras.Model", num_classes: int | None = 11, stride: int = 8, mode: str = "fine_tune"
) -> "keras.Model":
    """Build FCN-32s, FCN-16s or FCN-8s on a backbone; what stands on it is untrained.

    A 1×1 convolution scores each cell of the coarsest map. For the finer networks, the scores are enlarged twofold by
    a transposed convolution that begins as bilinear interpolation, and the scores of the next finer map, which begin
    at 0, are added. The last scores are enlarged `stride`-fold, bilinearly. Pictures of any size will do: one that the
    coarsest stride does not divide is mirrored at its end until it does (a layer that halves an odd number of rows
    would look elsewhere than one that halves an even number), and what is then too much is cut off again.

    Args:
        backbone: keras.Model without top, such as `classify.efficientnet_lite0(include_top=False)`.
        num_classes: int; labels run from 0 to num_classes − 1.
        stride: of the finest map that is scored; one of `strides(backbone)`, mostly 32, 16 or 8.
        mode: of the backbone, as in `classify.transfer`: "frozen", "fine_tune" or "scratch".

    Returns:
        keras.Model from pixels 0–255 (N, H, W, 3), of any H and W from the coarsest stride on, to logits
        (N, H, W, num_classes). Its layers "backbone" and "heads" are its parts; it keeps `stride`.

    Raises:
        ValueError: for another stride, fewer than two classes, and a backbone without these maps.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
    """
    if stride not in (known := strides(backbone)):
        raise ValueError(
            "fcn: stride={!r}, expected {}, {} or {}, as {}'s coarsest map has stride {}".format(
                stride, *known, backbone.name, known[0]
            )
        )
    if int(num_classes) != num_classes or num_classes < 2:
        raise ValueError(f"fcn: num_classes={num_classes!r}, expected an integer from 2 on")
    scored = [s for s in known[::-1] if s >= stride]
    body = classify.copy_body(backbone, mode, scored, name="backbone")
    pixels = keras.Input((None, None, 3), name="pixels")
    maps = keras.tree.flatten(body(Whole(scored[-1], name="whole")(pixels)))
    heads = _heads([m.shape[-1] for m in maps], num_classes, scored)
    model = keras.Model(pixels, Enlarge(stride, name="enlarge")([heads(maps), pixels]), name=f"fcn_{stride}s")
    model.stride = stride
    return model


def strides(backbone: "keras.Model") -> tuple:
    """Give the strides for which `fcn` builds on a backbone: that of its coarsest map, half of it, and a quarter.

    They are 32, 16 and 8 for EfficientNet-Lite0 and ResNet-50, and 4, 2 and 1 for ResNet-20.
    """
    shape = backbone.compute_output_shape((1, 256, 256, 3))
    if len(shape) != 4:
        raise ValueError(
            f"fcn: {backbone.name} gives {shape}, expected feature maps (N, h, w, C); build it with include_top=False"
        )
    coarsest = 256 // shape[1]
    return coarsest, coarsest // 2, coarsest // 4


def _heads(widths, num_classes, scored, name="heads"):
    """Build what goes from feature maps, finest first, to the scores of the finest one."""
    maps = [keras.Input((None, None, width)) for width in widths]
    scores = layers.Conv2D(num_classes, 1, name=f"score_{scored[-1]}")(maps[-1])
    for size, finer in zip(scored[-2::-1], maps[-2::-1]):
        larger = layers.Conv2DTranspose(
            num_classes, 4, 2, "same", use_bias=False, name=f"twice_{size}", kernel_initializer=bilinear_initializer
        )(scores)
        own = layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name=f"score_{size}")(finer)
        scores = layers.Add(name=f"add_{size}")([Cut(name=f"cut_{size}")([larger, own]), own])
    return keras.Model(maps, scores, name=name)


@keras.saving.register_keras_serializable("cvlab")
class Whole(layers.Layer):
    """Mirror pictures at their right and lower ends, up to whole cells: (N, H, W, 3) → H and W multiples of `cell`."""

    def __init__(self, cell, **options):
        super().__init__(**options)
        self.cell = cell

    def call(self, images):
        for axis in (1, 2):
            side = ops.shape(images)[axis]
            if not isinstance(missing := -side % self.cell, int) or missing:
                end = ops.moveaxis(ops.flip(ops.moveaxis(images, axis, 1)[:, side - missing :], 1), 1, axis)
                images = ops.concatenate([images, end], axis)
        return images

    def compute_output_shape(self, input_shape):
        return (*input_shape[:1], *(n and -(-n // self.cell) * self.cell for n in input_shape[1:3]), input_shape[3])

    def get_config(self):
        return super().get_config() | {"cell": self.cell}


@keras.saving.register_keras_serializable("cvlab")
class Cut(layers.Layer):
    """Cut the end off a map's rows and columns: [(N, h, w, C), (N, H, W, D)] → (N, H, W, C), where h ≥ H and w ≥ W."""

    def call(self, inputs):
        map_, like = inputs
        return map_[:, : ops.shape(like)[1], : ops.shape(like)[2]]

    def compute_output_shape(self, input_shape):
        map_, like = input_shape
        return (*map_[:1], *like[1:3], map_[3])


@keras.saving.register_keras_serializable("cvlab")
class Enlarge(layers.Layer):
    """Enlarge a map bilinearly, its edges repeated: [(N, h, w, C), (N, H, W, D)] → (N, H, W, C), cut off at the end.

    With `classes=True`, give the place of each pixel's largest number instead, (N, H, W), of `label_dtype`. Along each
    axis, the `factor` pixels between the middles of two cells take shares of both that don't depend on the place. XLA
    makes one loop of all this, in a third of the time of `keras.ops.image.resize`, which takes no size that is known
    only when a graph runs.
    """

    def __init__(self, factor, classes=False, **options):
        super().__init__(**options)
        self.factor, self.classes = factor, classes

    def call(self, inputs):
        map_, like = inputs
        size = tuple(ops.shape(like)[1:3])
        known = all(isinstance(pixels, int) for pixels in size)  # not within a graph for pictures of any size
        dtype = label_dtype(map_.shape[-1]) if self.classes else None
        compiled = (_enlarging if known else _enlarging.__wrapped__)(self.factor, dtype, size)
        return compiled(map_)

    def compute_output_shape(self, input_shape):
        map_, like = input_shape
        return (*map_[:1], *like[1:3], map_[3])[: 3 if self.classes else 4]

    def get_config(self):
        return super().get_config() | {"factor": self.factor, "classes": self.classes}


@functools.lru_cache(64)
def _enlarging(factor, dtype, size):
    """Compile what an `Enlarge` does to a map, for pictures of a size (H, W); `dtype`: of classes, None for scores."""

    def enlarge(map_):
        for axis, pixels in zip((1, 2), size):
            map_ = ops.moveaxis(map_, axis, 1)
            map_ = ops.concatenate([map_[:, :1], map_, map_[:, -1:]], 1)
            first, step = map_[:, :-1, None], (map_[:, 1:] - map_[:, :-1])[:, :, None]
            shares = (ops.arange(factor, dtype="float32") + 0.5 * (1 - factor % 2)) / factor
            finer = first + step * ops.reshape(shares, (1, 1, -1, 1, 1))
            shape, begin = ops.shape(finer), (factor + 1) // 2
            finer = ops.reshape(finer, (shape[0], shape[1] * factor, *shape[3:]))
            map_ = ops.moveaxis(finer[:, begin : begin + pixels], 1, axis)
        return ops.cast(ops.argmax(map_, -1), dtype) if dtype else map_

    return backend.jit(enlarge, xla=True)


def label_dtype(num_classes: int | None) -> str:
    """Name the dtype of label maps: "uint8" for up to 256 classes, else "int32"."""
    return "uint8" if num_classes <= 256 else "int32"


def bilinear_kernel(factor: float) -> np.ndarray:
    """Give the kernel with which a transposed convolution of stride `factor` interpolates bilinearly.

    Args:
        factor: int ≥ 1.

    Returns:
        (k, k) float32 with k = 2 · factor − factor % 2, each phase of which sums to 1.

    Source: Long, Shelhamer and Darrell, 2015, section 3.3; the values as in their code.
    """
    if int(factor) != factor or factor < 1:
        raise ValueError(f"bilinear_kernel: factor={factor!r}, expected an integer from 1 on")
    side = 2 * factor - factor % 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / factor
    return np.outer(line, line).astype(np.float32)


@keras.saving.register_keras_serializable("cvlab", "bilinear")
def bilinear_initializer(shape: Any, dtype: Any = None) -> Any:
    """Initialize a transposed convolution (k, k, C, C) of stride (k + 1) // 2 to enlarge each channel by itself.

    For k = 3 these are 1/2, 1, 1/2 along each axis: interpolation, but with each cell's middle on a pixel's.
    """
    side, factor = shape[0], (shape[0] + 1) // 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / factor
    return ops.convert_to_tensor(np.einsum("i,j,oc->ijoc", line, line, np.eye(*shape[2:])), dtype=dtype)


def convolution_matrix(kernel: Any, input_shape: int | Sequence[int], stride: int = 1, padding: str = "valid") -> tuple:
    """Write a convolution of one channel as a matrix: a row for each output, a column for each input.

    Args:
        kernel: (k, l) numbers; not turned round, as in all networks.
        input_shape: (H, W).
        stride: int ≥ 1.
        padding: "valid", or "same": zeros around, by TensorFlow's rule, where ceil(H / stride) rows come out and an odd
            zero stands at the end.

    Returns:
        (matrix, output_shape): (h · w, H · W) float64, and (h, w).

    Raises:
        ValueError: for other arguments, and where the kernel is larger than the input.
    """
    kernel = np.asarray(kernel, float)
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"convolution_matrix: kernel has shape {kernel.shape}, expected (k, l)")
    if padding not in ("valid", "same") or int(stride) != stride or stride < 1:
        raise ValueError(
            f"convolution_matrix: stride={stride!r}, padding={padding!r}; expected an integer from 1 on, "
            "and 'valid' or 'same'"
        )
    rows, columns = (_reach(n, k, stride, padding) for n, k in zip(input_shape, kernel.shape, strict=True))
    if not (len(rows) and len(columns)):
        raise ValueError(f"convolution_matrix: the kernel, {kernel.shape}, is larger than the input, {input_shape}")
    matrix = np.zeros((len(rows), len(columns), *(n + 2 * k for n, k in zip(input_shape, kernel.shape))))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):  # with a margin of a kernel's size, for what reaches over the edge
            top_, left_ = top + kernel.shape[0], left + kernel.shape[1]
            matrix[i, j, top_ : top_ + kernel.shape[0], left_ : left_ + kernel.shape[1]] = kernel
    inner = matrix[:, :, kernel.shape[0] : -kernel.shape[0], kernel.shape[1] : -kernel.shape[1]]
    return inner.reshape(len(rows) * len(columns), -1), (len(rows), len(columns))


def _reach(length, kernel, stride, padding):
    """Give the first input that each output of a convolution sees, along one axis."""
    if padding == "valid":
        return np.arange(0, length - kernel + 1, stride)
    outputs = -(-length // stride)
    return np.arange(outputs) * stride - max((outputs - 1) * stride + kernel - length, 0) // 2


def transposed_convolution(
    x: Any, kernel: Any, stride: int = 1, padding: str = "valid", output_size: Any = None
) -> Any:
    """Multiply by the transpose of a convolution's matrix: what that convolution would take to (h, w), come from there.

    Args:
        x: (h, w) numbers.
        kernel, stride, padding: of the convolution, as in `convolution_matrix`.
        output_size: (H, W), as several sizes are taken to the same (h, w); None for the one that Keras chooses,
            (h − 1) · stride + k or, with "same", h · stride.

    Returns:
        (H, W) float64.

    Raises:
        ValueError: where the convolution does not take output_size to (h, w).
    """
    x, kernel = np.asarray(x, float), np.asarray(kernel, float)
    if output_size is None:
        output_size = [
            n * stride if padding == "same" else (n - 1) * stride + max(k, stride)
            for n, k in zip(x.shape, kernel.shape)
        ]
    matrix, shape = convolution_matrix(kernel, output_size, stride, padding)
    if shape != x.shape:
        raise ValueError(
            f"transposed_convolution: output_size={tuple(output_size)} becomes {shape} under this "
            f"convolution, but x has shape {x.shape}"
        )
    return (matrix.T @ x.ravel()).reshape(output_size)


def train(
    model: "keras.Model",
    images: np.ndarray,
    masks: np.ndarray,
    steps: int = 200,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    augment: Callable | None = None,
    copies: int = 4,
    ignore: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train what is trainable in a network from `fcn`, with Adam and a cosine's learning rates.

    Where the backbone is frozen, its maps are computed once; with `augment`, for `copies` versions of each picture.

    Args:
        model: from `fcn`.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        masks: (N, H, W) integers, each pixel's class, or `ignore`.
        augment: function of (image, mask, numpy.random.Generator) that gives both of a changed picture, as `augment`.
        ignore: label of void pixels, from which nothing is learned.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list with the cross-entropy of a pixel for each step; and "seconds".

    Raises:
        ValueError: for masks that don't fit the pictures or the classes, and for pictures that are too small.
    """
    began, masks, num_classes = time.perf_counter(), np.asarray(masks), model.output.shape[-1]
    images = _large_enough(model, images, "segment.train")
    if masks.shape != images.shape[:3] or not np.issubdtype(masks.dtype, np.integer):
        raise ValueError(
            f"segment.train: masks of {masks.dtype} have shape {masks.shape}, expected integers of "
            f"{images.shape[:3]}, one for each pixel of the pictures"
        )
    if unknown := set(np.unique(masks).tolist()) - {*range(num_classes), ignore}:
        raise ValueError(
            f"segment.train: masks hold {min(unknown)}, expected classes from 0 to {num_classes - 1}; "
            f"ignore={ignore} is the label of void"
        )

    def draw(rows, generator):
        pairs = [(images[i], masks[i]) for i in rows]
        pairs = pairs if augment is None else [augment(*pair, generator) for pair in pairs]
        pictures, labels = (np.stack(side) for side in zip(*pairs, strict=True))
        return pictures.astype(np.float32), labels.astype(np.int32)

    learner, count = model, len(images)
    if not model.get_layer("backbone").trainable_variables:
        count *= 1 if augment is None else copies
        pictures, labels = draw(np.arange(count) % len(images), np.random.default_rng(seed))
        maps = _maps(model, pictures, progress)
        learner, draw = _above(model, maps), _drawn(maps, labels)
    history = classify.optimize(learner, _loss(ignore), draw, count, steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def trial(
    backbone: "keras.Model",
    train_set: Dataset,
    test_set: Dataset,
    strides: Sequence[int],
    mode: str = "frozen",
    seeds: Sequence[int] = (0,),
    steps: int = 200,
    learning_rate: float = 1e-2,
    batch_size: int = 4,
    augment: Callable | None = None,
    every: int = 1,
    progress: bool = False,
) -> tuple[list[dict], dict]:
    """Train FCNs of several strides on one backbone, once for each seed, and test them.

    A frozen backbone sees every picture once, as all of these networks share its maps, and all networks learn side by
    side in the steps of one graph, each from its own weights and on its own pictures. The heads learn on channels with
    mean 0 and variance 1, so that one learning rate suits all; their weights afterwards are those for the maps as they
    are. The seed decides on the heads' first weights and on the order of the pictures.

    Args:
        train_set, test_set: Datasets with masks (N, H, W); the class "void" counts for nothing.
        strides: of the networks, as in `fcn`.
        mode: "frozen" or "fine_tune", of the backbone.
        augment: as in `train`; not with a frozen backbone.
        every: with a frozen backbone, learn from each so-many-th row and column of pixels alone, for a fraction of the
            cost; it must divide the strides.
        steps, learning_rate, batch_size, progress: as in `train`.

    Returns:
        (rows, models): for each stride and seed a dict of "stride", "seed", "found" (N, H, W), the label maps of the
        test pictures (see `label_dtype`), and what `metrics.segmentation_scores` gives; and a dict with the network of
        each stride, as the last seed left it.
    """
    void, rows = ignored(train_set), []
    num_classes = len(train_set.mask_names) - (void is not None)
    models = {stride: fcn(backbone, num_classes, stride, mode) for stride in sorted(strides)}
    how = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "progress": progress}
    if mode == "frozen":
        answers = _side_by_side(models, train_set, test_set, seeds, every, **how)
    else:
        answers = _one_by_one(models, train_set, test_set, seeds, augment, **how)
    for stride, seed, found in answers:
        scores = metrics.segmentation_scores(test_set.masks, found, num_classes, void)
        rows.append({"stride": stride, "seed": seed, "found": found, **scores})
    return rows, models


def _one_by_one(models, train_set, test_set, seeds, augment, **how):
    """Train whole networks for each seed, and yield (stride, seed, label maps of the test pictures)."""
    how = how | {"augment": augment, "ignore": ignored(train_set)}
    for stride, model in models.items():
        start = model.get_weights()
        for seed in seeds:
            model.set_weights(start)
            model.get_layer("heads").set_weights(_fresh(model, seed).get_weights())
            train(model, train_set.images, train_set.masks, seed=seed, **how)
            yield stride, seed, predict(model, test_set.images, how["batch_size"])


def _side_by_side(models, train_set, test_set, seeds, every, **how):
    """Train the heads of networks with one frozen backbone in the steps of one graph, and yield as `_one_by_one`."""
    finest = next(iter(models.values()))  # its maps are those of all
    known, tested = (_maps(finest, part.images, how["progress"]) for part in (train_set, test_set))
    moments = [(m.mean((0, 1, 2)), m.std((0, 1, 2)) + 0.01) for m in known]
    for map_, (centre, spread) in zip(known + tested, moments * 2, strict=True):
        map_ -= centre
        map_ /= spread
    labels = train_set.masks[:, every // 2 :: every, every // 2 :: every].astype(np.int32)
    heads = _together(models, seeds, known, labels, _loss(ignored(train_set)), every, **how)
    for stride, model in models.items():
        own = model.get_layer("heads")
        count = len(own.inputs)
        answer = _above(model, tested[-count:], classes=True)
        for seed in seeds:
            own.set_weights(heads[stride, seed].get_weights())
            found = answer.predict([*tested[-count:], test_set.masks[..., None]], how["batch_size"], verbose=0)
            for size, (centre, spread) in zip(_scored(model), moments[-count:], strict=True):  # for maps as they are
                kernel, bias = own.get_layer(f"score_{size}").get_weights()
                kernel /= spread[:, None]
                own.get_layer(f"score_{size}").set_weights([kernel, bias - centre @ kernel[0, 0]])
            yield stride, seed, found


def _together(models, seeds, maps, labels, loss, every, **how):
    """Train heads for each stride and seed on maps → dict of them by (stride, seed)."""
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    heads, logits = {}, []
    for stride, model in models.items():
        parts = zip(*(ops.split(x, len(seeds)) for x in inputs[-len(model.get_layer("heads").inputs) :]))
        scores = []
        for seed, part in zip(seeds, parts, strict=True):
            heads[stride, seed] = _fresh(model, seed)
            scores.append(heads[stride, seed](list(part)))
        logits.append(Enlarge(stride // every)([ops.concatenate(scores, 0), like]))
    orders = np.stack([np.random.default_rng(seed).permutation(len(labels)) for seed in seeds])
    learner, of_batch = keras.Model([*inputs, like], logits, name="heads"), _drawn(maps, labels)

    def draw(rows, generator):
        pictures, targets = of_batch(orders[:, rows].ravel(), generator)  # a batch of each seed's
        return pictures, [targets] * len(models)

    classify.optimize(learner, [loss] * len(models), draw, len(labels), **how)
    return heads


def _fresh(model, seed):
    """Give heads like a network's, with the first weights of a seed."""
    backend.set_seed(seed)
    widths = [x.shape[-1] for x in model.get_layer("heads").inputs]
    return _heads(widths, model.output.shape[-1], _scored(model), f"heads_{model.stride}_{seed}")


def _scored(model):
    """Give the strides of the maps that a network scores, the finest first."""
    return [2**i * model.stride for i in range(len(model.get_layer("heads").inputs))]


def ignored(part: Any) -> Any:
    """Give the label of a data set's void pixels, or None where it has none."""
    return part.mask_names.index("void") if "void" in part.mask_names else None


def _maps(model, images, progress=False):
    """Give the feature maps of pictures, finest first, on which a network's heads stand."""
    body, pixels = model.get_layer("backbone"), keras.Input(images.shape[1:])
    maps = keras.tree.flatten(body(model.get_layer("whole")(pixels)))
    maps = classify.features(keras.Model(pixels, maps), images, 32, progress)
    return maps if isinstance(maps, list) else [maps]


def _drawn(maps, labels):
    """Give the function that draws a batch for what `_above` gives."""
    return lambda rows, generator: ([*(m[rows] for m in maps), labels[rows, ..., None]], labels[rows])


def _above(model, maps, classes=False):
    """Give what stands on the backbone, from its maps and pictures, whose size alone counts, to logits or classes."""
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    enlarge = Enlarge(model.get_layer("enlarge").factor, classes)
    return keras.Model([*inputs, like], enlarge([model.get_layer("heads")(inputs), like]))


@functools.cache
def _loss(ignore):
    """Give Keras, which takes the mean over pictures, the mean over a batch's valid pixels."""

    def loss(labels, logits):
        return cross_entropy(labels, logits, ignore) * ops.cast(ops.shape(logits)[0], "float32")

    return loss


def cross_entropy(labels: np.ndarray, logits: np.ndarray, ignore: int | None = None) -> Any:
    """Give each picture's part of the mean cross-entropy of a batch's pixels, void ones left out.

    Args:
        labels: (N, H, W) integers. logits: (N, H, W, C). ignore: label of void pixels, or None.

    Returns:
        (N,) tensor, whose sum is the mean over the pixels that count; 0 where none does.
    """
    labels = ops.cast(labels, "int32")
    counts = ops.ones_like(labels) if ignore is None else ops.cast(labels != ignore, "int32")
    lost = keras.losses.sparse_categorical_crossentropy(labels * counts, logits, from_logits=True)
    counts = ops.cast(counts, lost.dtype)
    return ops.sum(lost * counts, axis=(1, 2)) / ops.maximum(ops.sum(counts), 1.0)


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.8, 1.4),
    shift: float = 0.1,
    colour: float = 0.2,
) -> tuple:
    """Flip a picture left to right, zoom, shift and tint it, and let its label map follow; edges are mirrored.

    Args:
        image: (H, W, 3), 0–255. mask: (H, W) integers. generator: numpy.random.Generator.
        zoom, shift, colour: as in `retinanet.augment`.

    Returns:
        image (H, W, 3) uint8, mask (H, W), whose labels are never mixed.
    """
    import cv2

    view = classify.random_view(mask.shape, generator, zoom, shift)
    mask = classify.warped(mask, *view, flags=cv2.INTER_NEAREST)
    return classify.tinted(classify.warped(image, *view), generator, colour), mask


def predict(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> Any:
    """Give each pixel's likeliest class.

    Args:
        model: from `fcn`.
        images: (N, H, W, 3) or a list of N pictures of any size from a cell of the coarsest map on (32×32 pixels, where
            that has stride 32), uint8 or float32, 0–255.

    Returns:
        (N, H, W) uint8 (int32 with more than 256 classes), or a list of (H, W) where a list was given.

    Raises:
        ValueError: for pictures that are too small, and for NaN and infinite numbers in them or in the scores.
    """
    if isinstance(images, (list, tuple)):
        return [predict(model, np.asarray(image)[None], batch_size)[0] for image in images]
    images = _large_enough(model, images, "segment.predict")
    if model not in _finders:
        enlarge = model.get_layer("enlarge")
        classes = Enlarge(enlarge.factor, classes=True)
        _finders[model] = keras.Model(model.input, classes([enlarge.input[0], model.input]))
    network = networks.laid_open(_finders[model], "segment.predict")
    plan = network.plan(folds=True)

    def forward(x):
        values = plan.run({0: ops.cast(x, "float32")})
        scores = ops.cast(values[network.last.parents[0]], "float32")  # of cells, before they are enlarged
        return values[network.output], ops.sum(scores, axis=(1, 2, 3))

    labels, totals = plan.batched("predict", forward, batch_size, images)
    if not np.isfinite(totals).all():
        network.blame("segment.predict", "scores", totals)
    return labels


_finders = weakref.WeakKeyDictionary()  # the model that gives a network's label maps, while the network lives


def _large_enough(model, images, name):
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name}: images have shape {images.shape}, expected (N, H, W, 3)")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(f"{name}: images hold {networks.not_finite(images)}, expected finite numbers")
    cell = model.get_layer("whole").cell
    if min(images.shape[1:3]) < cell:
        raise ValueError(
            f"{name}: a picture of {images.shape[2]}×{images.shape[1]} pixels is too small, as a cell of "
            f"the coarsest map stands for {cell}×{cell}; enlarge it first"
        )
    return images
