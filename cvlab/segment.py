"""Segmentation: a class for each pixel, predicted by fully convolutional networks of stride 32, 16 and 8."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import learn, zoo
from cvlab.engine import labelling, networks, upsampling


def fcn(
    backbone: "keras.Model", num_classes: int | None = 11, stride: int = 8, mode: str = "fine_tune"
) -> "keras.Model":
    """Build FCN-32s, FCN-16s or FCN-8s on a backbone; everything above the backbone is untrained.

    A 1×1 convolution computes scores for each cell of the coarsest map. For the finer networks, the scores are
    upsampled by 2 with a transposed convolution, initialized as bilinear interpolation, and the scores of the next
    finer map, which start at 0, are added. The last scores are upsampled by `stride`, bilinearly. Images may have any
    size: if the coarsest stride does not divide it, the image is padded by mirroring its right and lower ends (layers
    that halve an odd number of rows are aligned differently from those that halve an even number), and the logits are
    cropped again.

    Args:
        backbone: keras.Model without top, such as `zoo.efficientnet_lite0(include_top=False)`.
        num_classes: int ≥ 2; labels run from 0 to num_classes − 1.
        stride: of the finest map that is scored; one of `strides(backbone)`, usually 32, 16 or 8.
        mode: of the backbone, as in `classify.transfer`: "frozen", "fine_tune" or "scratch".

    Returns:
        keras.Model from pixel values 0–255 (N, H, W, 3), with H and W at least the coarsest stride, to logits
        (N, H, W, num_classes). Its layers "backbone" and "heads" are its parts, its attribute `stride` is the stride.

    Raises:
        ValueError: for another stride, fewer than two classes, and a backbone without these maps.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
    """
    possible = strides(backbone)
    if stride not in possible:
        coarsest, middle, finest = possible
        raise ValueError(
            f"fcn: stride={stride!r}, expected {coarsest}, {middle} or {finest}, as {backbone.name}'s coarsest map has "
            f"stride {coarsest}"
        )
    if int(num_classes) != num_classes or num_classes < 2:
        raise ValueError(f"fcn: num_classes={num_classes!r}, expected an integer, at least 2")
    scored = [s for s in possible[::-1] if s >= stride]
    body = zoo.copy_body(backbone, mode, scored, name="backbone")
    pixels = keras.Input((None, None, 3), name="pixels")
    maps = keras.tree.flatten(body(Whole(scored[-1], name="whole")(pixels)))
    heads = _heads([m.shape[-1] for m in maps], num_classes, scored)
    model = keras.Model(pixels, Enlarge(stride, name="enlarge")([heads(maps), pixels]), name=f"fcn_{stride}s")
    model.stride = stride
    return model


def strides(backbone: "keras.Model") -> tuple:
    """List the strides that `fcn` offers for a backbone: that of its coarsest map, half of it, and a quarter of it.

    They are 32, 16 and 8 for EfficientNet-Lite0 and ResNet-50, and 4, 2 and 1 for ResNet-20.

    Raises:
        ValueError: for a model whose output is not a feature map.
    """
    shape = backbone.compute_output_shape((1, 256, 256, 3))
    if len(shape) != 4:
        raise ValueError(
            f"fcn: {backbone.name} gives {shape}, expected feature maps (N, h, w, C); build it with include_top=False"
        )
    coarsest = 256 // shape[1]
    return coarsest, coarsest // 2, coarsest // 4


def _heads(widths, num_classes, scored):
    """Build the model from feature maps of these widths and strides, finest first, to the scores of the finest one."""
    maps = [keras.Input((None, None, width)) for width in widths]
    scores = layers.Conv2D(num_classes, 1, name=f"score_{scored[-1]}")(maps[-1])
    for stride, finer in zip(scored[-2::-1], maps[-2::-1]):
        upsampled = layers.Conv2DTranspose(
            num_classes, 4, 2, "same", use_bias=False, name=f"twice_{stride}", kernel_initializer=bilinear_initializer
        )(scores)
        skip = layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name=f"score_{stride}")(finer)
        scores = layers.Add(name=f"add_{stride}")([Cut(name=f"cut_{stride}")([upsampled, skip]), skip])
    return keras.Model(maps, scores, name="heads")


@keras.saving.register_keras_serializable("cvlab")
class Whole(layers.Layer):
    """Pad images to whole cells by mirroring their right and lower ends: H and W become multiples of `cell`."""

    def __init__(self, cell, **options):
        super().__init__(**options)
        self.cell = cell

    def call(self, images):
        for axis in (1, 2):
            side = ops.shape(images)[axis]
            if not isinstance(missing := -side % self.cell, int) or missing:
                mirrored = ops.moveaxis(ops.flip(ops.moveaxis(images, axis, 1)[:, side - missing :], 1), 1, axis)
                images = ops.concatenate([images, mirrored], axis)
        return images

    def compute_output_shape(self, input_shape):
        return (*input_shape[:1], *(n and -(-n // self.cell) * self.cell for n in input_shape[1:3]), input_shape[3])

    def get_config(self):
        return super().get_config() | {"cell": self.cell}


@keras.saving.register_keras_serializable("cvlab")
class Cut(layers.Layer):
    """Crop a map to the size of another, at its end: [(N, h, w, C), (N, H, W, D)] → (N, H, W, C), h ≥ H and w ≥ W."""

    def call(self, inputs):
        map_, like = inputs
        return map_[:, : ops.shape(like)[1], : ops.shape(like)[2]]

    def compute_output_shape(self, input_shape):
        map_, like = input_shape
        return (*map_[:1], *like[1:3], map_[3])


@keras.saving.register_keras_serializable("cvlab")
class Enlarge(layers.Layer):
    """Upsample a map bilinearly and crop it to the size of another: [(N, h, w, C), (N, H, W, D)] → (N, H, W, C).

    It computes what `keras.ops.image.resize` computes, for a size that may be known only when the graph runs. With
    `classes=True`, it returns the index of the largest channel instead, (N, H, W), of `label_dtype`.
    """

    def __init__(self, factor, classes=False, **options):
        super().__init__(**options)
        self.factor, self.classes = factor, classes

    def call(self, inputs):
        map_, like = inputs
        dtype = label_dtype(map_.shape[-1]) if self.classes else None
        return upsampling.upsample(map_, self.factor, ops.shape(like)[1:3], dtype)

    def compute_output_shape(self, input_shape):
        map_, like = input_shape
        return (*map_[:1], *like[1:3], map_[3])[: 3 if self.classes else 4]

    def get_config(self):
        return super().get_config() | {"factor": self.factor, "classes": self.classes}


def label_dtype(num_classes: int | None) -> str:
    """Return the dtype of label maps: "uint8" for up to 256 classes, else "int32"."""
    return "uint8" if num_classes <= 256 else "int32"


def bilinear_kernel(factor: float) -> np.ndarray:
    """Compute the kernel with which a transposed convolution of stride `factor` interpolates bilinearly.

    Args:
        factor: int ≥ 1.

    Returns:
        (k, k) float32 with k = 2 · factor − factor % 2, each phase of which sums to 1.

    Raises:
        ValueError: for another factor.

    Source: Long, Shelhamer and Darrell, 2015, section 3.3; the values are those of their code.
    """
    if int(factor) != factor or factor < 1:
        raise ValueError(f"bilinear_kernel: factor={factor!r}, expected an integer, at least 1")
    side = 2 * factor - factor % 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / factor
    return np.outer(line, line).astype(np.float32)


@keras.saving.register_keras_serializable("cvlab", "bilinear")
def bilinear_initializer(shape: Any, dtype: Any = None) -> Any:
    """Initialize a transposed convolution (k, k, C, C) of stride (k + 1) // 2 to upsample each channel separately.

    For k = 3, the weights along each axis are 1/2, 1, 1/2: interpolation with each cell's centre on a pixel's centre.
    """
    side, factor = shape[0], (shape[0] + 1) // 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / factor
    return ops.convert_to_tensor(np.einsum("i,j,oc->ijoc", line, line, np.eye(*shape[2:])), dtype=dtype)


def convolution_matrix(kernel: Any, input_shape: Sequence[int], stride: int = 1, padding: str = "valid") -> tuple:
    """Write a convolution of one channel as a matrix with a row for each output and a column for each input.

    Args:
        kernel: (k, l) numbers, not flipped (a cross-correlation, as in all neural networks).
        input_shape: (H, W).
        stride: int ≥ 1.
        padding: "valid", or "same": zero padding by TensorFlow's rule, with ceil(H / stride) rows of outputs, and the
            larger part of an odd padding at the end.

    Returns:
        (matrix, output_shape): (h · w, H · W) float64, and (h, w).

    Raises:
        ValueError: for other arguments, and for a kernel that is larger than the input.
    """
    kernel = np.asarray(kernel, float)
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"convolution_matrix: kernel has shape {kernel.shape}, expected (k, l)")
    if padding not in ("valid", "same") or int(stride) != stride or stride < 1:
        raise ValueError(
            f"convolution_matrix: stride={stride!r}, padding={padding!r}; expected an integer, at "
            "least 1, and 'valid' or 'same'"
        )
    rows, columns = (_window_starts(n, k, stride, padding) for n, k in zip(input_shape, kernel.shape, strict=True))
    if not (len(rows) and len(columns)):
        raise ValueError(f"convolution_matrix: the kernel, {kernel.shape}, is larger than the input, {input_shape}")
    (high, wide), (height, width) = kernel.shape, input_shape
    padded = np.zeros((len(rows), len(columns), height + 2 * high, width + 2 * wide))  # windows reach over the edge
    for i, top in enumerate(rows + high):
        for j, left in enumerate(columns + wide):
            padded[i, j, top : top + high, left : left + wide] = kernel
    matrix = padded[:, :, high : high + height, wide : wide + width]
    return matrix.reshape(len(rows) * len(columns), -1), (len(rows), len(columns))


def _window_starts(length, kernel, stride, padding):
    """Compute the first input in the window of each output, along one axis."""
    if padding == "valid":
        return np.arange(0, length - kernel + 1, stride)
    outputs = -(-length // stride)
    return np.arange(outputs) * stride - max((outputs - 1) * stride + kernel - length, 0) // 2


def transposed_convolution(
    x: Any, kernel: Any, stride: int = 1, padding: str = "valid", output_size: Any = None
) -> Any:
    """Apply a transposed convolution: multiply by the transpose of the convolution's matrix.

    Args:
        x: (h, w) numbers.
        kernel, stride, padding: of the convolution, as in `convolution_matrix`.
        output_size: (H, W), since a convolution can map several sizes to the same (h, w); None for the one that Keras
            chooses, (h − 1) · stride + k or, with "same", h · stride.

    Returns:
        (H, W) float64.

    Raises:
        ValueError: if the convolution does not map output_size to (h, w).
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
            f"convolution, but x has shape {x.shape}; expected an output_size that becomes that shape"
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
    """Train the trainable weights of a network from `fcn`, with Adam and a learning rate that falls along a cosine.

    If the backbone is frozen, its maps are computed once; with `augment`, for `copies` augmented versions of each
    image.

    Args:
        model: from `fcn`.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        masks: (N, H, W) integers, the class of each pixel, or `ignore`.
        augment: function of (image, mask, numpy.random.Generator) that returns an augmented pair, such as `augment`.
        ignore: label of void pixels, which have no loss.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list with the mean cross-entropy per pixel for each step; and "seconds".

    Raises:
        ValueError: for masks that don't fit the images or the classes, and for images that are too small.
    """
    start, masks = time.perf_counter(), np.asarray(masks)
    images = _large_enough(model, images, "segment.train")
    _check_masks(masks, images, model.output.shape[-1], ignore)

    def draw(rows, generator):
        pairs = [(images[i], masks[i]) for i in rows]
        if augment is not None:
            pairs = [augment(*pair, generator) for pair in pairs]
        batch, labels = (np.stack(side) for side in zip(*pairs, strict=True))
        return batch.astype(np.float32), labels.astype(np.int32)

    trained, count = model, len(images)
    if not model.get_layer("backbone").trainable_variables:
        count *= 1 if augment is None else copies
        versions, labels = draw(np.arange(count) % len(images), np.random.default_rng(seed))
        maps = _maps(model, versions, progress)
        trained, draw = _above_backbone(model, maps), learn.batches([*maps, labels[..., None]], labels)
    history = learn.optimize(trained, _loss(ignore), draw, count, steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - start}


def _check_masks(masks, images, num_classes, ignore):
    if masks.shape != images.shape[:3] or not np.issubdtype(masks.dtype, np.integer):
        raise ValueError(
            f"segment.train: masks of {masks.dtype} have shape {masks.shape}, expected integers of "
            f"{images.shape[:3]}, one for each pixel of the images"
        )
    if unknown := set(np.unique(masks).tolist()) - {*range(num_classes), ignore}:
        raise ValueError(
            f"segment.train: masks hold {min(unknown)}, expected classes from 0 to {num_classes - 1}; "
            f"ignore={ignore} is the label of void"
        )


def ignored(dataset: Any) -> Any:
    """Return the label of a dataset's void pixels, or None if it has none."""
    return dataset.mask_names.index("void") if "void" in dataset.mask_names else None


def _maps(model, images, progress=False):
    """Compute the backbone's feature maps of images, finest first."""
    body, pixels = model.get_layer("backbone"), keras.Input(images.shape[1:])
    maps = keras.tree.flatten(body(model.get_layer("whole")(pixels)))
    maps = learn.features(keras.Model(pixels, maps), images, 32, progress)
    return maps if isinstance(maps, list) else [maps]


def _above_backbone(model, maps):
    """Build the part above the backbone: from its maps and the images, of which only the size matters, to logits."""
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    enlarge = Enlarge(model.get_layer("enlarge").factor)
    return keras.Model([*inputs, like], enlarge([model.get_layer("heads")(inputs), like]))


@functools.cache
def _loss(ignore):
    """Make the loss for Keras, which averages over images: the mean over all valid pixels of a batch."""

    def loss(labels, logits):
        return cross_entropy(labels, logits, ignore) * ops.cast(ops.shape(logits)[0], "float32")

    return loss


def cross_entropy(labels: np.ndarray, logits: np.ndarray, ignore: int | None = None) -> Any:
    """Compute each image's share of the mean cross-entropy over a batch's valid pixels.

    Args:
        labels: (N, H, W) integers. logits: (N, H, W, C). ignore: label of void pixels, or None.

    Returns:
        (N,) tensor, whose sum is the mean over the valid pixels of the batch; 0 if there are none.
    """
    labels = ops.cast(labels, "int32")
    valid = ops.ones_like(labels) if ignore is None else ops.cast(labels != ignore, "int32")
    loss = keras.losses.sparse_categorical_crossentropy(labels * valid, logits, from_logits=True)
    valid = ops.cast(valid, loss.dtype)
    return ops.sum(loss * valid, axis=(1, 2)) / ops.maximum(ops.sum(valid), 1.0)


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.8, 1.4),
    shift: float = 0.1,
    colour: float = 0.2,
) -> tuple:
    """Flip an image left to right at random, zoom, shift and tint it, and let its mask follow; edges are mirrored.

    Args:
        image: (H, W, 3), 0–255. mask: (H, W) integers. generator: numpy.random.Generator.
        zoom, shift, colour: as in `classify.augment`.

    Returns:
        image (H, W, 3) uint8, mask (H, W) of its dtype, by nearest neighbour.
    """
    import cv2

    view = learn.random_view(mask.shape, generator, zoom, shift)
    mask = learn.warped(mask, *view, flags=cv2.INTER_NEAREST)
    return learn.tinted(learn.warped(image, *view), generator, colour), mask


def predict(model: "keras.Model", images: np.ndarray, batch_size: int = 16) -> Any:
    """Predict the most probable class of each pixel.

    Args:
        model: from `fcn`.
        images: (N, H, W, 3) or a list of N images, uint8 or float32, 0–255, of any size from one cell of the coarsest
            map upwards (32×32 pixels for stride 32).

    Returns:
        (N, H, W) uint8 (int32 with more than 256 classes), or a list of (H, W) if a list was given.

    Raises:
        ValueError: for images that are too small, and for NaN and infinite numbers in them or in the scores.
    """
    if isinstance(images, (list, tuple)):
        return [predict(model, np.asarray(image)[None], batch_size)[0] for image in images]
    images = _large_enough(model, images, "segment.predict")
    return labelling.label_maps(model, images, batch_size)


def _large_enough(model, images, name):
    """Return images as an array, or say what is wrong with them: their shape, size or values."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name}: images have shape {images.shape}, expected (N, H, W, 3)")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(f"{name}: images hold {networks.not_finite(images)}, expected finite numbers")
    cell = model.get_layer("whole").cell
    if min(images.shape[1:3]) < cell:
        raise ValueError(
            f"{name}: an image of {images.shape[2]}×{images.shape[1]} pixels is too small, as a cell of "
            f"the coarsest map covers {cell}×{cell}; upsample it first"
        )
    return images
