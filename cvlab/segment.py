"""Segmentation: a class for each pixel, by fully convolutional networks of stride 32, 16 and 8."""

import functools
import time

import keras
import numpy as np
from keras import layers, ops

from . import classify

STRIDES = (8, 16, 32)


def fcn(backbone, num_classes=11, stride=8, mode="fine_tune"):
    """Build FCN-32s, FCN-16s or FCN-8s on a backbone; what stands on it is untrained.

    A 1×1 convolution scores each cell of the coarsest map. For the finer networks, the scores are enlarged twofold by
    a transposed convolution that begins as bilinear interpolation, and the scores of the next finer map, which begin
    at 0, are added. The last scores are enlarged `stride`-fold, bilinearly. Sizes that 32 does not divide need no
    padding: a map of a side n has ceil(n / stride) cells, and what an enlarged one has too many is cut off at the end.

    Args:
        backbone: keras.Model without top, with feature maps of the strides 8, 16 and 32, such as
            `classify.efficientnet_lite0(include_top=False)`.
        num_classes: int; labels run from 0 to num_classes − 1.
        stride: 32, 16 or 8: of the finest map that is scored.
        mode: of the backbone, as in `classify.transfer`: "frozen", "fine_tune" or "scratch".

    Returns:
        keras.Model from pixels 0–255 (N, H, W, 3), of any H and W from 32, to logits (N, H, W, num_classes). Its
        layers "backbone" and "heads" are its parts; it keeps `stride`.

    Raises:
        ValueError: for another stride, fewer than two classes, and a backbone without these maps.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
    """
    if stride not in STRIDES:
        raise ValueError(f"fcn: stride={stride!r}, expected 32, 16 or 8")
    if int(num_classes) != num_classes or num_classes < 2:
        raise ValueError(f"fcn: num_classes={num_classes!r}, expected an integer from 2 on")
    body = classify.copy_body(backbone, mode, [s for s in STRIDES if s >= stride], name="backbone")
    pixels = keras.Input((None, None, 3), name="pixels")
    maps = keras.tree.flatten(body(pixels))
    heads = _heads([m.shape[-1] for m in maps], num_classes, stride)
    model = keras.Model(pixels, Enlarge(stride, name="enlarge")([heads(maps), pixels]), name=f"fcn_{stride}s")
    model.stride = stride
    return model


def _heads(widths, num_classes, stride):
    """Build what goes from feature maps, finest first, to the scores of the finest one."""
    maps = [keras.Input((None, None, width)) for width in widths]
    scores = layers.Conv2D(num_classes, 1, name="score_32")(maps[-1])
    for size, finer in zip((16, 8), maps[-2::-1]):
        larger = layers.Conv2DTranspose(num_classes, 4, 2, "same", use_bias=False, name=f"twice_{size}",
                                        kernel_initializer=bilinear_initializer)(scores)  # fmt: skip
        own = layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name=f"score_{size}")(finer)
        scores = layers.Add(name=f"add_{size}")([Cut(name=f"cut_{size}")([larger, own]), own])
    return keras.Model(maps, scores, name="heads")


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

    Two products with matrices, as `keras.ops.image.resize` takes no size that is known only when a graph runs.
    """

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs):
        map_, like = inputs
        wide = ops.einsum("vw,nhwc->nhvc", self.weights_of(ops.shape(map_)[2], ops.shape(like)[2]), map_)
        return ops.einsum("uh,nhvc->nuvc", self.weights_of(ops.shape(map_)[1], ops.shape(like)[1]), wide)

    def weights_of(self, cells, pixels):
        """Give how much of each cell each pixel takes, (pixels, cells), along one axis."""
        middle = (ops.cast(ops.arange(pixels), "float32") + 0.5) / self.factor - 0.5
        middle = ops.clip(middle, 0.0, ops.cast(cells - 1, "float32"))
        return ops.relu(1 - ops.abs(middle[:, None] - ops.cast(ops.arange(cells), "float32")))

    def compute_output_shape(self, input_shape):
        map_, like = input_shape
        return (*map_[:1], *like[1:3], map_[3])

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


def bilinear_kernel(factor):
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
def bilinear_initializer(shape, dtype=None):
    """Initialize a transposed convolution (k, k, C, C), k = 2 · factor, so that it enlarges each channel by itself."""
    kernel = bilinear_kernel(shape[0] // 2)
    return ops.convert_to_tensor(kernel[..., None, None] * np.eye(*shape[2:]), dtype=dtype)


def convolution_matrix(kernel, input_shape, stride=1, padding="valid"):
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
        raise ValueError(f"convolution_matrix: stride={stride!r}, padding={padding!r}; expected an integer from 1 on, "
                         "and 'valid' or 'same'")  # fmt: skip
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


def transposed_convolution(x, kernel, stride=1, padding="valid", output_size=None):
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
        output_size = [n * stride if padding == "same" else (n - 1) * stride + max(k, stride)
                       for n, k in zip(x.shape, kernel.shape)]  # fmt: skip
    matrix, shape = convolution_matrix(kernel, output_size, stride, padding)
    if shape != x.shape:
        raise ValueError(f"transposed_convolution: output_size={tuple(output_size)} becomes {shape} under this "
                         f"convolution, but x has shape {x.shape}")  # fmt: skip
    return (matrix.T @ x.ravel()).reshape(output_size)


def train(model, images, masks, steps=200, learning_rate=1e-3, batch_size=8, augment=None, copies=4, ignore=None,
          seed=0, progress=False):  # fmt: skip
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
    images = _large_enough(images, "segment.train")
    if masks.shape != images.shape[:3] or not np.issubdtype(masks.dtype, np.integer):
        raise ValueError(f"segment.train: masks of {masks.dtype} have shape {masks.shape}, expected integers of "
                         f"{images.shape[:3]}, one for each pixel of the pictures")  # fmt: skip
    if unknown := set(np.unique(masks).tolist()) - {*range(num_classes), ignore}:
        raise ValueError(f"segment.train: masks hold {min(unknown)}, expected classes from 0 to {num_classes - 1}; "
                         f"ignore={ignore} is the label of void")  # fmt: skip

    def draw(rows, generator):
        pairs = [(images[i], masks[i]) for i in rows]
        pairs = pairs if augment is None else [augment(*pair, generator) for pair in pairs]
        pictures, labels = (np.stack(side) for side in zip(*pairs, strict=True))
        return pictures.astype(np.float32), labels.astype(np.int32)

    learner, count = model, len(images)
    if not model.get_layer("backbone").trainable_variables:
        count *= 1 if augment is None else copies
        pictures, labels = draw(np.arange(count) % len(images), np.random.default_rng(seed))
        body = model.get_layer("backbone")
        pixels = keras.Input(pictures.shape[1:])
        maps = classify.features(keras.Model(pixels, keras.tree.flatten(body(pixels))), pictures, 32, progress)
        maps = maps if isinstance(maps, list) else [maps]
        learner = _above(model, maps)

        def draw(rows, generator):
            return [*(m[rows] for m in maps), labels[rows, ..., None]], labels[rows]

    history = classify.optimize(learner, _loss(ignore), draw, count, steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _above(model, maps):
    """Give what stands on the backbone, from its maps and pictures, whose size alone counts, to the logits."""
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    return keras.Model([*inputs, like], model.get_layer("enlarge")([model.get_layer("heads")(inputs), like]))


@functools.cache
def _loss(ignore):
    """Give Keras, which takes the mean over pictures, the mean over a batch's valid pixels."""

    def loss(labels, logits):
        return cross_entropy(labels, logits, ignore) * ops.cast(ops.shape(logits)[0], "float32")

    return loss


def cross_entropy(labels, logits, ignore=None):
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


def augment(image, mask, generator, zoom=(0.8, 1.4), shift=0.1, colour=0.2):
    """Flip a picture left to right, zoom, shift and tint it, and let its label map follow; edges are mirrored.

    Args:
        image: (H, W, 3), 0–255. mask: (H, W) integers. generator: numpy.random.Generator.
        zoom, shift, colour: as in `retinanet.augment`.

    Returns:
        image (H, W, 3) uint8, mask (H, W), whose labels are never mixed.
    """
    import cv2

    height, width = mask.shape
    if generator.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    scale = np.exp(generator.uniform(*np.log(zoom)))
    x, y = np.float32([width, height]) * ((1 - scale) / 2 + generator.uniform(-shift, shift, 2)) + (scale - 1) / 2
    move = {"M": np.float32([[scale, 0, x], [0, scale, y]]), "dsize": (width, height), "borderMode": cv2.BORDER_REFLECT}
    image = cv2.warpAffine(np.ascontiguousarray(image), **move)
    mask = cv2.warpAffine(np.ascontiguousarray(mask), **move, flags=cv2.INTER_NEAREST)
    gain = (1 + generator.uniform(-colour, colour)) * (1 + generator.uniform(-colour, colour, 3) / 2)
    return np.clip(image * gain, 0, 255).astype(np.uint8), mask


def predict(model, images, batch_size=16):
    """Give each pixel's likeliest class.

    Args:
        model: from `fcn`.
        images: (N, H, W, 3) or a list of N pictures of any size from 32×32, uint8 or float32, 0–255.

    Returns:
        (N, H, W) uint8, or a list of (H, W) where a list was given.

    Raises:
        ValueError: for pictures that are too small.
    """
    if isinstance(images, (list, tuple)):
        return [predict(model, np.asarray(image)[None], batch_size)[0] for image in images]
    images = _large_enough(images, "segment.predict")
    maps = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch) if start else 0  # the last batch is filled up, so that one graph serves all
        logits = model.predict_on_batch(np.pad(batch, [(0, missing)] + [(0, 0)] * 3))
        maps.append(logits[: len(batch)].argmax(-1).astype(np.uint8))
    return np.concatenate(maps) if maps else np.zeros(images.shape[:3], np.uint8)


def _large_enough(images, name):
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name}: images have shape {images.shape}, expected (N, H, W, 3)")
    if min(images.shape[1:3]) < STRIDES[-1]:
        raise ValueError(f"{name}: a picture of {images.shape[2]}×{images.shape[1]} pixels is too small, as a cell of "
                         "the coarsest map stands for 32×32; enlarge it first")  # fmt: skip
    return images
