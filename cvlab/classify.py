"""Classifiers: backbones with their preprocessing inside, and three ways to transfer them.

Every model takes pixels from 0 to 255, `(N, H, W, 3)`, uint8 or float32, of any size that its strides allow.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvlab import backend, data
from cvlab.engine import memory

if TYPE_CHECKING:
    import keras

LITE0_STAGES = (  # repeats, kernel, stride, expansion, filters: Tan and Le (2019), Table 1
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LOSS = "sparse_categorical_crossentropy"
LEARNING_RATES = {"frozen": 3e-3, "fine_tune": 5e-4, "scratch": 2e-3}  # of `trial`; chosen on `objects`, val
CIFAR_MEAN, CIFAR_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


def backbone(name: str, **options: Any) -> "keras.Model":
    """Build a network of this module by its function's name, without top unless the options say so."""
    known = {fn.__name__: fn for fn in (efficientnet_lite0, resnet20, resnet50, alexnet, zfnet)}
    if name not in known:
        raise ValueError(f"backbone: name={name!r}, expected one of {', '.join(known)}")
    return known[name](**{"include_top": False, **options})


def resnet20(
    weights: str | Path | None = "cifar10",
    include_top: bool = True,
    num_classes: int | None = 10,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build the ResNet-20 that its authors designed for 32×32 pictures.

    Three stages of three residual blocks with 16, 32 and 64 filters; 0.27 million parameters. Projections (1×1
    convolutions, the paper's option B; its CIFAR networks pad instead) carry the shortcut where the shape changes.

    Args:
        weights: "cifar10" (trained by us), None (random), or the path of a `.weights.h5` file.
        include_top: with pooling and dense layer, `(N, num_classes)`; without, feature maps `(N, H/4, W/4, 64)`.
        num_classes: int; with weights="cifar10" and the top it must be 10.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixels 0–255 `(N, H, W, 3)`.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """
    import keras
    from keras import layers

    def conv_bn(x, filters, kernel, stride, name, relu=True):
        x = layers.Conv2D(
            filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv", kernel_initializer="he_normal"
        )(x)
        x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Normalization(mean=CIFAR_MEAN, variance=np.square(CIFAR_STD), name="normalize")(pixels)
    x = conv_bn(x, 16, 3, 1, "stem")
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, 4):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            shortcut = conv_bn(x, filters, 1, stride, f"{name}_shortcut", relu=False) if stride == 2 else x
            x = conv_bn(x, filters, 3, stride, f"{name}_a")
            x = conv_bn(x, filters, 3, 1, f"{name}_b", relu=False)
            x = layers.Add(name=f"{name}_add")([shortcut, x])
            x = layers.ReLU(name=f"{name}_out")(x)
    return _finish("resnet20", "cifar10", 10, pixels, x, weights, include_top, num_classes, classifier_activation)


def efficientnet_lite0(
    weights: str | Path | None = "imagenet",
    include_top: bool = True,
    num_classes: int | None = 1000,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build EfficientNet-Lite0, an ImageNet network small enough for a CPU.

    Inverted residual blocks with ReLU6 and without squeeze-and-excitation; 4.7 million parameters; made for 224×224
    pictures (short side 256, centre crop 224), and usable from 32×32 on.

    Args:
        weights: "imagenet" (see data/weights), None (random), or the path of a `.weights.h5` file.
        include_top: with pooling and dense layer, `(N, num_classes)`; without, feature maps `(N, H/32, W/32, 1280)`.
        num_classes: int; with weights="imagenet" and the top it must be 1000.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixels 0–255 `(N, H, W, 3)`.

    Source: Tan and Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019; the Lite
    variants: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """
    import keras
    from keras import layers

    def bn(x, name, relu=True):
        x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def conv(x, filters, kernel, stride, name):
        return layers.Conv2D(
            filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv", kernel_initializer="he_normal"
        )(x)

    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")(pixels)
    x = bn(conv(x, 32, 3, 2, "stem"), "stem")
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(LITE0_STAGES, 1):
        for block in range(1, repeats + 1):
            name, shortcut = f"stage{stage}_block{block}", x
            if expansion > 1:
                x = bn(conv(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand"), f"{name}_expand")
            x = layers.DepthwiseConv2D(
                kernel, stride if block == 1 else 1, "same", use_bias=False, name=f"{name}_depthwise_conv"
            )(x)
            x = bn(x, f"{name}_depthwise")
            x = bn(conv(x, filters, 1, 1, f"{name}_project"), f"{name}_project", relu=False)
            if block > 1:
                x = layers.Add(name=f"{name}_add")([shortcut, x])
    x = bn(conv(x, 1280, 1, 1, "head"), "head")
    return _finish(
        "efficientnet_lite0", "imagenet", 1000, pixels, x, weights, include_top, num_classes, classifier_activation
    )


def alexnet(
    weights: str | Path | None = "toybox",
    include_top: bool = True,
    num_classes: int | None = 9,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build an AlexNet for 96×96 pictures: five convolutions, the first with 11×11 filters and stride 4.

    A third of the paper's filters in the first layer, a quarter in the others (32, 64, 96, 96, 64; 0.26 million
    parameters); pooling over 2×2 cells that don't overlap, no response normalization, and global average pooling in the
    place of two dense layers.

    Args:
        weights: "toybox" (trained by us: photographs, then toys), None (random), or the path of a `.weights.h5` file.
        include_top: with pooling and dense layer, `(N, num_classes)`; without, feature maps `(N, H/32, W/32, 64)`.
        num_classes: int; with weights="toybox" and the top it must be 9.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixels 0–255 `(N, H, W, 3)`; its layers are conv1, relu1, pool1, conv2, ….

    Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks, NeurIPS 2012.
    """
    return _five_convolutions("alexnet", (11, 4), (5, 1), weights, include_top, num_classes, classifier_activation)


def zfnet(
    weights: str | Path | None = "toybox",
    include_top: bool = True,
    num_classes: int | None = 9,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build the ZFNet that matches `alexnet`: first filters of 7×7 with stride 2, and stride 2 in the second layer.

    From the first pooling on, its maps are twice as wide; from the second convolution on, of the same size. All else,
    Args and Returns are those of `alexnet`.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.1.
    """
    return _five_convolutions("zfnet", (7, 2), (5, 2), weights, include_top, num_classes, classifier_activation)


def _five_convolutions(name, first, second, weights, include_top, num_classes, activation):
    """Build what AlexNet and ZFNet share around their first two layers, each given as (kernel, stride)."""
    import keras
    from keras import layers

    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="normalize")(pixels)
    for number, (filters, (kernel, stride)) in enumerate(
        zip((32, 64, 96, 96, 64), (first, second, (3, 1), (3, 1), (3, 1))), 1
    ):
        # The first filters start small, as in the papers: what is seen in them afterwards was learned.
        start = keras.initializers.RandomNormal(stddev=0.01) if number == 1 else "he_normal"
        x = layers.Conv2D(filters, kernel, stride, "same", kernel_initializer=start, name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if number in (1, 2, 5):
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    return _finish(name, "toybox", 9, pixels, x, weights, include_top, num_classes, activation)


def _finish(name, trained_on, trained_classes, pixels, features, weights, include_top, num_classes, activation):
    """Put the top on, load the weights, and take the top off again where none is wanted."""
    import keras
    from keras import layers

    if weights == trained_on and include_top and num_classes != trained_classes:
        raise ValueError(
            f"{name}: num_classes={num_classes} with the {trained_on} weights, whose top has {trained_classes}; "
            "take include_top=False and a top of your own (see transfer), or weights=None"
        )
    if not (weights is None or weights == trained_on or str(weights).endswith(".weights.h5")):
        raise ValueError(
            f"{name}: weights={weights!r}, expected {trained_on!r}, None or a path that ends in .weights.h5"
        )
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    x = layers.Dense(num_classes if weights != trained_on else trained_classes, name="classes")(x)
    x = layers.Activation(activation, dtype="float32", name="probabilities")(x) if activation else x
    model = keras.Model(pixels, x, name=name)
    if weights is not None:
        model.load_weights(data.weights(f"{name}_{weights}") if weights == trained_on else weights)
    return model if include_top else keras.Model(pixels, features, name=name)


def resnet50(
    weights: str | Path | None = "imagenet",
    include_top: bool = True,
    num_classes: int | None = 1000,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build Keras' own ResNet-50 with its preprocessing inside; its ImageNet weights (98 MB) are downloaded once.

    Args and Returns are those of `efficientnet_lite0`; feature maps are `(N, H/32, W/32, 2048)`, and with its top the
    model takes 224×224 pictures.

    Raises:
        DataUnavailable: where the weights are not in Keras' cache and can't be downloaded.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
    """
    import keras

    side = 224 if include_top else None
    pixels = keras.Input((side, side, 3), name="pixels")
    bgr = keras.ops.flip(keras.ops.cast(pixels, "float32"), axis=-1) - np.float32([103.939, 116.779, 123.68])
    try:
        model = keras.applications.ResNet50(
            include_top, weights, input_tensor=bgr, classes=num_classes, classifier_activation=classifier_activation
        )
    except Exception as error:
        if weights != "imagenet" or "URL fetch" not in str(error):
            raise
        raise data.DataUnavailable(
            "resnet50: its ImageNet weights are not on this machine and can't be downloaded. Three ways on: connect to "
            "the network; copy the file of https://keras.io/api/applications/resnet/ to ~/.keras/models; or take "
            "efficientnet_lite0, whose weights are embedded"
        ) from error
    return keras.Model(pixels, model.output, name="resnet50_pixels")


def transfer(
    backbone: "keras.Model", num_classes: int | None, mode: str = "frozen", input_size: int | None = None
) -> "keras.Model":
    """Put a new classifier on a backbone.

    The backbone is copied, so that what is trained here changes no other model. In "frozen" and "fine_tune" batch
    normalization stays as the pretraining left it; a few small batches would spoil its statistics.

    Args:
        backbone: keras.Model without top, from pixels to feature maps (N, h, w, C).
        num_classes: int.
        mode: "frozen", only the new classifier learns; "fine_tune", everything but batch normalization learns, from
            the backbone's weights; "scratch", everything learns, from random weights.
        input_size: side in pixels that pictures are resized to inside the model (bilinear); None leaves them.

    Returns:
        keras.Model from pixels 0–255 (N, H, W, 3) to probabilities (N, num_classes).

    Raises:
        ValueError: for another mode, or a backbone whose output is not a feature map.
    """
    import keras
    from keras import layers

    body = copy_body(backbone, mode)
    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Resizing(input_size, input_size, name="resize")(pixels) if input_size else pixels
    x = layers.GlobalAveragePooling2D(name="pool")(body(x))
    start = "glorot_uniform" if mode == "scratch" else "zeros"  # zeros: a first step that leaves a good body alone
    x = layers.Dense(num_classes, activation="softmax", kernel_initializer=start, dtype="float32", name="classes")(x)
    return keras.Model(pixels, x, name=f"{backbone.name}_{mode}")


def copy_body(
    backbone: "keras.Model", mode: str = "frozen", strides: Sequence[int] | None = None, name: str | None = None
) -> "keras.Model":
    """Copy a backbone for a head of another kind to stand on; `transfer` says what the modes do.

    Args:
        backbone: keras.Model without top, from pixels to feature maps (N, h, w, C).
        mode: "frozen", "fine_tune" or "scratch".
        strides: pixels of the picture that a cell of each wanted feature map stands for, such as (8, 16, 32); None for
            the last map alone.
        name: of the copy; None for the backbone's own.

    Returns:
        keras.Model from pixels to its last map, or to a list with the last map of each stride. It gives what the
        backbone gives: weights, statistics and what a preprocessing layer has adapted to are copied. "scratch" copies
        the preprocessing alone.

    Raises:
        ValueError: for another mode, a backbone with a top, a stride that none of its maps has, and a layer of your own
            that can't be built again or holds a state that is not among its weights.
    """
    import keras

    if mode not in ("frozen", "fine_tune", "scratch"):
        raise ValueError(f"copy_body: mode={mode!r}, expected 'frozen', 'fine_tune' or 'scratch'")
    shapes = [output.shape for output in backbone.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"copy_body: {backbone.name} gives {', '.join(map(str, shapes))}, expected feature maps "
            "(N, h, w, C); build it with include_top=False"
        )
    body = keras.models.clone_model(backbone, clone_function=_copy_layer, recursive=True)
    if mode != "scratch":
        body.set_weights(backbone.get_weights())
    _copy_preprocessing(backbone, body)
    if mode != "scratch":
        _check_copy(backbone, body)
    if strides is not None:
        body = _with_strides(body, strides, name or backbone.name)
    elif name:
        body = keras.Model(body.input, body.output, name=name)
    body.trainable = mode != "frozen"
    for layer in all_layers(body):
        if isinstance(layer, keras.layers.BatchNormalization):
            # Not `body(x, training=False)`: Keras 3 overrules it when the model around is called with training=True.
            layer.trainable = mode == "scratch"
            # Statistics that start from nothing have to arrive within the steps of a small training set.
            layer.momentum = min(layer.momentum, 0.9)
    return body


def all_layers(model: "keras.Model") -> list:
    """List the layers that a model (or a layer) holds, and those that they hold; each comes once."""
    import keras

    found, waiting = {id(model): model}, [model]
    while waiting:
        holder = waiting.pop(0)
        # A layer of the reader's own keeps its parts as attributes, or in lists and dicts among them.
        held = holder.layers if isinstance(holder, keras.Model) else [v for _, v in sorted(vars(holder).items())]
        parts = [part for part in keras.tree.flatten(held) if isinstance(part, keras.Layer) and id(part) not in found]
        found.update((id(part), part) for part in parts)
        waiting = parts + waiting
    return list(found.values())[1:]


def _copy_layer(layer):
    """Build a layer anew from its configuration, as Keras does; it has no weights yet."""
    import keras

    if isinstance(layer, keras.layers.Lambda):  # has no weights, and a configuration that Keras refuses to read
        return layer
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:
        raise ValueError(
            f"copy_body: layer {layer.name!r}, a {type(layer).__name__}, can't be built again from its "
            "configuration; give it a get_config that names all arguments of its __init__, and let "
            "that take name, dtype and trainable as well (**options). "
            f"Keras says: {error}"
        ) from error


def _copy_preprocessing(backbone, body):
    """Copy what preprocessing layers have adapted to: they keep it beside their weights."""
    import keras

    for source, copy in zip(all_layers(backbone), all_layers(body), strict=True):
        if isinstance(source, keras.layers.Normalization):
            copy.set_weights(source.get_weights())
            copy.mean, copy.variance = source.mean, source.variance
        elif isinstance(source, keras.layers.Discretization):
            copy.bin_boundaries = source.bin_boundaries
        elif hasattr(source, "get_vocabulary"):
            copy.set_vocabulary(source.get_vocabulary())


def _check_copy(backbone, body):
    """Check on random pixels that a copy with layers of the reader's own gives what the backbone gives."""
    own = [layer for layer in all_layers(backbone) if not type(layer).__module__.startswith("keras.")]
    if not own:
        return
    shape = [side or 256 for side in backbone.inputs[0].shape[1:]]
    pixels = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
    first, again, copied = (_maps_of(model, pixels) for model in (backbone, backbone, body))
    scale = np.abs(first).max()
    if np.abs(first - again).max() <= 1e-4 * scale < np.abs(first - copied).max():
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in own)
        raise ValueError(
            f"copy_body: the copy of {backbone.name} gives other maps than the original. One of its "
            f"layers {names} holds a state that is neither among its weights nor in its get_config; make "
            "it a weight (add_weight), or let get_config and __init__ carry it"
        )


def _maps_of(model, pixels):
    import keras

    return keras.ops.convert_to_numpy(keras.ops.cast(model(pixels, training=False), "float32"))


def _with_strides(body, strides, name):
    """Let a model give the last map of each stride."""
    import keras

    maps, backbone_name = [], body.name

    def call_and_note(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        maps.extend(tensor for tensor in keras.tree.flatten(outputs) if len(tensor.shape) == 4)
        return outputs

    # Keras calls the same layers once more: of one that is called twice, `layer.output` is the first output alone.
    body = keras.models.clone_model(
        keras.Model(body.inputs[0], body.outputs[0]), clone_function=lambda layer: layer, call_function=call_and_note
    )
    maps = [body.inputs[0], *maps]
    sizes = [shape[1:3] for shape in keras.Model(body.inputs[0], maps).compute_output_shape((1, 256, 256, 3))]
    last = {256 // size[0]: map_ for size, map_ in zip(sizes, maps) if size[0] and 256 % size[0] == 0}
    if missing := [stride for stride in strides if stride not in last]:
        nested = [layer.name for layer in body.layers if hasattr(layer, "layers")]
        hint = f"; the maps within {', '.join(nested)} can't be reached: give that model itself" if nested else ""
        raise ValueError(
            f"copy_body: {backbone_name} has no feature map of stride {missing[0]}; it has "
            f"{', '.join(map(str, sorted(last)))}{hint}"
        )
    return keras.Model(body.inputs[0], [last[stride] for stride in strides], name=name)


def features(model: "keras.Model", images: np.ndarray, batch_size: int = 64, progress: bool = False) -> Any:
    """Run images through a model, batch by batch. What it gave for an image before is remembered.

    Args:
        model: keras.Model from pictures to a tensor or a list of tensors.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        batch_size: pictures at a time.
        progress: show a progress bar.

    Returns:
        (N, ...) float32, or a list of such arrays.
    """
    import keras

    images = data.as_images(images, "features")
    body = memory.model_key(model)
    keys = [(body, image) for image in memory.image_keys(images)] if body else []
    outputs = [memory.memory.get(key) for key in keys] or [None] * len(images)
    unknown = [i for i, known in enumerate(outputs) if known is None]
    for start in _bar(range(0, len(unknown), batch_size), progress, f"features of {model.name}"):
        rows = unknown[start : start + batch_size]
        missing = batch_size - len(rows) if start else 0  # the last batch is filled up, so that one graph serves all
        batch = model.predict_on_batch(np.pad(images[rows], [(0, missing)] + [(0, 0)] * 3))
        for i, *arrays in zip(rows, *keras.tree.flatten(batch)):
            outputs[i] = arrays
            if keys:
                memory.memory.put(keys[i], arrays)
    joined = [np.stack(parts) for parts in zip(*outputs, strict=True)]
    return joined if isinstance(model.output, (list, tuple)) else joined[0]


def train(
    model: "keras.Model",
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = 200,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    augment: Callable | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train a classifier with Adam and a learning rate that falls to zero along a cosine.

    Where everything but the last layer is frozen, each picture's features are computed once and kept, and the steps
    cost next to nothing.

    Args:
        model: keras.Model from `transfer`, or any model whose last layer gives probabilities.
        images: (N, H, W, 3) uint8 or float32, 0–255.
        labels: (N,) integers from 0.
        steps: batches to learn from; the pictures come in a new random order each time all were seen.
        learning_rate: of the first step.
        augment: function of (images, numpy.random.Generator) that changes a batch; not with a frozen body.
        seed: of the order (the model's random weights come from `backend.set_seed` before it is built).

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".

    Raises:
        ValueError: for labels that don't fit the pictures or the model.
    """
    import keras

    began = time.perf_counter()
    images = data.as_images(images, "train")
    if any(layer.trainable_weights for layer in model.layers[:-1]):
        losses = fit(model, images, labels, steps, learning_rate, batch_size, augment, seed, progress)
    else:
        if augment is not None:
            raise ValueError("train: augment needs a body that learns; a frozen one sees each picture once")
        cached = features(keras.Model(model.input, model.layers[-1].input), images, progress=progress)
        losses = fit_top(model.layers[-1], cached, labels, steps, learning_rate, batch_size, seed, progress)
    return {"loss": losses, "seconds": time.perf_counter() - began}


def fit_top(
    layer: Any,
    cached: Sequence | None,
    labels: np.ndarray,
    steps: int,
    learning_rate: float,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train a dense layer on cached features (N, C) as `train` does; give the loss of each step.

    The layer is trained on features with mean 0 and variance 1, so that one learning rate suits all channels; its
    weights before and after are those for the features as they are.
    """
    import keras

    centre, spread = cached.mean(0), cached.std(0) + 1e-3
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * spread[:, None], bias + centre @ kernel])
    top = keras.Sequential([keras.Input(cached.shape[1:]), layer])
    standard = (cached - centre) / spread
    losses = fit(top, standard, labels, steps, learning_rate, batch_size, None, seed, progress)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel / spread[:, None], bias - (centre / spread) @ kernel])
    return losses


def fit(
    model: "keras.Model",
    inputs: Any,
    labels: np.ndarray,
    steps: int,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    augment: Callable | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train a classifier on inputs of any kind, (N, ...), as `train` does on pictures; give the loss of each step."""
    labels, classes = np.asarray(labels), model.outputs[0].shape[-1]
    if labels.shape != (len(inputs),) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"train: labels have shape {labels.shape} and values {labels.min()}…{labels.max()}; expected "
            f"({len(inputs)},) and 0…{classes - 1}"
        )

    def draw(rows, generator):
        return augment(inputs[rows], generator) if augment else inputs[rows], labels[rows]

    return optimize(model, LOSS, draw, len(inputs), steps, learning_rate, batch_size, seed, progress)


def augment(
    images: np.ndarray,
    generator: np.random.Generator,
    zoom: tuple[float, float] = (0.9, 1.2),
    shift: float = 0.08,
    colour: float = 0.2,
) -> np.ndarray:
    """Flip pictures left to right, zoom, shift and tint them, each in its own way; edges are mirrored.

    Args:
        images: (N, H, W, 3), 0–255. generator: numpy.random.Generator.
        zoom, shift, colour: as in `retinanet.augment`.

    Returns:
        (N, H, W, 3) uint8.
    """
    return np.stack(
        [
            tinted(warped(image, *random_view(image.shape, generator, zoom, shift)), generator, colour)
            for image in images
        ]
    )


def random_view(shape: Sequence[int], generator: np.random.Generator, zoom: tuple[float, float], shift: float) -> tuple:
    """Draw how a picture of a shape (H, W, ...) is to be seen → whether flipped, its scale, and where its corner lies.

    The corner is (x, y) in pixels, such that the picture's middle stays in the middle but for the shift.
    """
    flipped, scale = generator.random() < 0.5, np.exp(generator.uniform(*np.log(zoom)))
    return flipped, scale, np.float32(shape[1::-1]) * ((1 - scale) / 2 + generator.uniform(-shift, shift, 2))


def warped(
    image: np.ndarray, flipped: bool, scale: float, corner: np.ndarray, outside: Any = None, **how: Any
) -> np.ndarray:
    """Show a picture as `random_view` says; what comes into view from outside is its mirror, or of a colour."""
    import cv2

    x, y = corner + (scale - 1) / 2  # OpenCV counts from the middle of the first pixel
    edge = {"borderMode": cv2.BORDER_REFLECT} if outside is None else {"borderValue": outside}
    image = np.ascontiguousarray(image[:, ::-1] if flipped else image)
    return cv2.warpAffine(image, np.float32([[scale, 0, x], [0, scale, y]]), image.shape[1::-1], **edge, **how)


def tinted(image: np.ndarray, generator: np.random.Generator, colour: float) -> np.ndarray:
    """Change a picture's brightness by up to a share `colour`, and each channel's by half of that → uint8."""
    gain = (1 + generator.uniform(-colour, colour)) * (1 + generator.uniform(-colour, colour, 3) / 2)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def optimize(
    model: "keras.Model",
    loss: Any,
    draw: Callable,
    count: int,
    steps: int,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Take `steps` steps of Adam with a learning rate that falls to zero along a cosine: the book's training loop.

    Args:
        model: keras.Model; where it was trained with the same loss before, it starts afresh on the graph that is there.
        loss: a Keras loss, or a dict of losses by output.
        draw: function of (rows, numpy.random.Generator) that gives the inputs and targets of a batch.
        count: of examples; they come in a new random order each time all were seen.

    Returns:
        list of float, the loss of each step.
    """
    import keras

    if model.compiled and model.loss == loss and isinstance(model.optimizer, keras.optimizers.Adam):
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
    else:
        model.compile(keras.optimizers.Adam(), loss)
        model.optimizer.build(model.trainable_variables)  # else TensorFlow traces the first step twice
    generator, batch_size, rows, losses = np.random.default_rng(seed), min(batch_size, count), np.arange(0), []
    for step in _bar(range(steps), progress, f"training {model.name}"):
        model.optimizer.learning_rate = learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        if len(rows) < batch_size:  # what is left of the last order comes first in the next
            rows = np.concatenate([rows, generator.permutation(count)])
        chosen, rows = rows[:batch_size], rows[batch_size:]
        model.reset_metrics()  # else Keras before 3.14 gives the mean of all losses so far
        backend.clear_gradients(model.trainable_variables)
        losses.append(model.train_on_batch(*draw(chosen, generator), return_dict=True)["loss"])
    return [float(loss) for loss in losses]


def trial(
    backbone: "keras.Model",
    train_set: "data.Dataset",
    test_set: "data.Dataset",
    mode: str,
    per_class: int | None = None,
    steps: int = 200,
    input_size: int | None = None,
    seeds: Sequence[int] = (0,),
    learning_rate: float | None = None,
) -> list[dict]:
    """Train a transfer on `per_class` pictures of each class (None: all) and test it, once for each seed.

    The seed decides which pictures are drawn, in which order they come, and how random weights start. Without a
    learning rate, `LEARNING_RATES` has one for each mode.

    Returns:
        list of dict: mode, per_class, seed, "accuracy" on the test set (0–1), and "seconds" of training.
    """
    model, rows = None, []
    for seed in seeds:
        backend.set_seed(seed)
        few = train_set if per_class is None else train_set.few(per_class, seed)
        if model is None or mode == "scratch":  # in the other modes every seed starts from the same weights
            fresh = transfer(backbone, len(train_set.class_names), mode, input_size)
            start = fresh.get_weights()
        if model is None:  # one compiled graph serves all seeds, and compiling it is not training
            model = fresh
            train(model, few.images[:32], few.labels[:32], 1)
        model.set_weights(start)
        rate = learning_rate or LEARNING_RATES[mode]
        seconds = train(model, few.images, few.labels, steps, rate, seed=seed)["seconds"]
        scored = accuracy(model, test_set.images, test_set.labels)
        rows.append({"mode": mode, "per_class": per_class, "seed": seed, "accuracy": scored, "seconds": seconds})
    return rows


def accuracy(model: "keras.Model", images: np.ndarray, labels: np.ndarray) -> float:
    """Give the share of pictures whose most probable class is their label, 0–1."""
    probabilities = features(model, images)
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=-1)))
        raise ValueError(
            f"accuracy: {model.name} gives {probabilities[row].tolist()} for image {row}, expected finite "
            "numbers; look for NaN in the images and in the model's weights"
        )
    return float(np.mean(probabilities.argmax(-1) == np.asarray(labels)))


def _bar(steps, progress, what):
    if not progress:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, leave=False)
