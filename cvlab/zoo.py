"""The zoo: five classification networks with their preprocessing inside, and copies of them for new heads.

Every network takes pixel values from 0 to 255, `(N, H, W, 3)`, uint8 or float32, of any size that its strides allow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cvlab import data
from cvlab.engine import copies
from cvlab.engine.copies import all_layers

LITE0_STAGES = (  # repeats, kernel, stride, expansion, filters: Tan and Le (2019), Table 1
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
CIFAR_MEAN, CIFAR_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of the training images' red, green and blue


def backbone(name: str, **options: Any) -> "keras.Model":
    """Build the network of this name, without its classifier unless the options say otherwise.

    Raises:
        ValueError: for a name that is none of efficientnet_lite0, resnet20, resnet50, alexnet and zfnet.
    """
    networks = {build.__name__: build for build in (efficientnet_lite0, resnet20, resnet50, alexnet, zfnet)}
    if name not in networks:
        raise ValueError(f"backbone: name={name!r}, expected one of {', '.join(networks)}")
    return networks[name](**{"include_top": False, **options})


def resnet20(
    weights: str | Path | None = "cifar10",
    include_top: bool = True,
    num_classes: int | None = 10,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build ResNet-20, which its authors designed for 32×32 images.

    Three stages of three residual blocks with 16, 32 and 64 filters; 0.27 million parameters. Where the shape changes,
    the shortcut is a 1×1 convolution (the paper's option B; its own CIFAR networks pad with zeros instead).

    Args:
        weights: "cifar10" (trained for this book), None (random), or the path of a `.weights.h5` file.
        include_top: if True, pooling and a dense layer follow and the output is `(N, num_classes)`; if False, the
            output is feature maps `(N, H/4, W/4, 64)`.
        num_classes: int; must be 10 with weights="cifar10" and the top.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixel values 0–255 `(N, H, W, 3)`.

    Raises:
        ValueError: for another number of classes than the weights have, and for unknown weights.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """

    def conv_bn(x, filters, kernel, stride, name, relu=True):
        x = _convolution(filters, kernel, stride, name)(x)
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
    return _finish("resnet20", ("cifar10", 10), pixels, x, weights, include_top, num_classes, classifier_activation)


def efficientnet_lite0(
    weights: str | Path | None = "imagenet",
    include_top: bool = True,
    num_classes: int | None = 1000,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build EfficientNet-Lite0, an ImageNet network small enough for a CPU.

    Inverted residual blocks with ReLU6 and without squeeze-and-excitation; 4.7 million parameters. It was made for
    224×224 images (shorter side resized to 256, then a centre crop of 224), and works from 32×32 upwards.

    Args:
        weights: "imagenet" (see data/weights), None (random), or the path of a `.weights.h5` file.
        include_top: if True, pooling and a dense layer follow and the output is `(N, num_classes)`; if False, the
            output is feature maps `(N, H/32, W/32, 1280)`.
        num_classes: int; must be 1000 with weights="imagenet" and the top.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixel values 0–255 `(N, H, W, 3)`.

    Raises:
        ValueError: for another number of classes than the weights have, and for unknown weights.

    Source: Tan and Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019; the Lite
    variants: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """

    def bn(x, name, relu=True):
        x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")(pixels)
    x = bn(_convolution(32, 3, 2, "stem")(x), "stem")
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(LITE0_STAGES, 1):
        for block in range(1, repeats + 1):
            name, shortcut = f"stage{stage}_block{block}", x
            if expansion > 1:
                x = bn(_convolution(x.shape[-1] * expansion, 1, 1, f"{name}_expand")(x), f"{name}_expand")
            x = layers.DepthwiseConv2D(
                kernel, stride if block == 1 else 1, "same", use_bias=False, name=f"{name}_depthwise_conv"
            )(x)
            x = bn(x, f"{name}_depthwise")
            x = bn(_convolution(filters, 1, 1, f"{name}_project")(x), f"{name}_project", relu=False)
            if block > 1:
                x = layers.Add(name=f"{name}_add")([shortcut, x])
    x = bn(_convolution(1280, 1, 1, "head")(x), "head")
    trained_on = ("imagenet", 1000)
    return _finish(
        "efficientnet_lite0", trained_on, pixels, x, weights, include_top, num_classes, classifier_activation
    )


def _convolution(filters, kernel, stride, name):
    """Make a convolution without bias, as one that batch normalization follows needs none."""
    return layers.Conv2D(
        filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv", kernel_initializer="he_normal"
    )


def alexnet(
    weights: str | Path | None = "toybox",
    include_top: bool = True,
    num_classes: int | None = 9,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build an AlexNet for 96×96 images: five convolutions, the first with 11×11 filters and stride 4.

    It has a third of the paper's filters in the first layer and a quarter in the others (32, 64, 96, 96, 64; 0.26
    million parameters). Pooling windows are 2×2 and don't overlap, there is no response normalization, and global
    average pooling replaces two dense layers.

    Args:
        weights: "toybox" (trained for this book on photographs, then on toys), None (random), or the path of a
            `.weights.h5` file.
        include_top: if True, pooling and a dense layer follow and the output is `(N, num_classes)`; if False, the
            output is feature maps `(N, H/32, W/32, 64)`.
        num_classes: int; must be 9 with weights="toybox" and the top.
        classifier_activation: "softmax" for probabilities, None for logits.

    Returns:
        keras.Model from pixel values 0–255 `(N, H, W, 3)`; its layers are conv1, relu1, pool1, conv2, ….

    Raises:
        ValueError: for another number of classes than the weights have, and for unknown weights.

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

    The feature maps of the first block are twice as wide and high as AlexNet's; from the second convolution on, both
    networks have maps of the same size. Everything else, Args, Returns and Raises are as in `alexnet`.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.1.
    """
    return _five_convolutions("zfnet", (7, 2), (5, 2), weights, include_top, num_classes, classifier_activation)


def _five_convolutions(name, first, second, weights, include_top, num_classes, activation):
    """Build AlexNet or ZFNet, which differ in the (kernel, stride) of the first two layers."""
    pixels = keras.Input((None, None, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="normalize")(pixels)
    shapes = (first, second, (3, 1), (3, 1), (3, 1))
    for number, (filters, (kernel, stride)) in enumerate(zip((32, 64, 96, 96, 64), shapes), 1):
        # The first filters start small, as in the papers, so that the structure seen in them was learned.
        initializer = keras.initializers.RandomNormal(stddev=0.01) if number == 1 else "he_normal"
        x = layers.Conv2D(filters, kernel, stride, "same", kernel_initializer=initializer, name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if number in (1, 2, 5):
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    return _finish(name, ("toybox", 9), pixels, x, weights, include_top, num_classes, activation)


def _finish(name, trained_on, pixels, features, weights, include_top, num_classes, activation):
    """Add the classifier, load the weights, and remove the classifier again where it is not wanted.

    `trained_on` is the name of the embedded weights and their number of classes.
    """
    pretrained, trained_classes = trained_on
    if weights == pretrained and include_top and num_classes != trained_classes:
        raise ValueError(
            f"{name}: num_classes={num_classes} with the {pretrained} weights, whose top has {trained_classes}; "
            "use include_top=False and a new classifier (see transfer), or weights=None"
        )
    if not (weights is None or weights == pretrained or str(weights).endswith(".weights.h5")):
        raise ValueError(
            f"{name}: weights={weights!r}, expected {pretrained!r}, None or a path that ends in .weights.h5"
        )
    x = layers.GlobalAveragePooling2D(name="pool")(features)
    x = layers.Dense(num_classes if weights != pretrained else trained_classes, name="classes")(x)
    x = layers.Activation(activation, dtype="float32", name="probabilities")(x) if activation else x
    model = keras.Model(pixels, x, name=name)
    if weights is not None:
        model.load_weights(data.weights(f"{name}_{weights}") if weights == pretrained else weights)
    return model if include_top else keras.Model(pixels, features, name=name)


def resnet50(
    weights: str | Path | None = "imagenet",
    include_top: bool = True,
    num_classes: int | None = 1000,
    classifier_activation: str | None = "softmax",
) -> "keras.Model":
    """Build the ResNet-50 of Keras with its preprocessing inside; its ImageNet weights (98 MB) are downloaded once.

    Args and Returns are as in `efficientnet_lite0`, with feature maps `(N, H/32, W/32, 2048)`. With its top, the model
    takes 224×224 images only.

    Raises:
        DataUnavailable: if the weights are not in Keras' cache and can't be downloaded.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
    """
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
            "resnet50: its ImageNet weights are not on this machine and can't be downloaded. There are three ways on: "
            "connect to the network; copy the file from https://keras.io/api/applications/resnet/ to ~/.keras/models; "
            "or use efficientnet_lite0, whose weights are embedded"
        ) from error
    return keras.Model(pixels, model.output, name="resnet50_pixels")


# Copies of a backbone


def copy_body(
    backbone: "keras.Model", mode: str = "frozen", strides: Sequence[int] | None = None, name: str | None = None
) -> "keras.Model":
    """Copy a backbone as the body of a new network, so that training the copy leaves the original unchanged.

    Args:
        backbone: keras.Model without top, from pixel values to feature maps (N, h, w, C).
        mode: "frozen", no weight is trainable; "fine_tune", all but batch normalization is trainable, starting from the
            backbone's weights; "scratch", everything is trainable, starting from random weights.
        strides: input pixels per cell of each feature map that is wanted, such as (8, 16, 32); None for the last map.
        name: of the copy; None for the backbone's.

    Returns:
        keras.Model from pixel values to the backbone's last map or, with `strides`, to a list with the last map of each
        stride. Weights, statistics and the state of preprocessing layers are copied, so that it computes what the
        backbone computes; with "scratch", only the preprocessing is copied.

    Raises:
        ValueError: for another mode, a backbone with a top, a stride that none of its maps has, and a custom layer that
            can't be rebuilt from its configuration or keeps state outside its weights.
    """
    if mode not in ("frozen", "fine_tune", "scratch"):
        raise ValueError(f"copy_body: mode={mode!r}, expected 'frozen', 'fine_tune' or 'scratch'")
    shapes = [output.shape for output in backbone.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"copy_body: {backbone.name} gives {', '.join(map(str, shapes))}, expected feature maps "
            "(N, h, w, C); build it with include_top=False"
        )
    body = copies.clone(backbone, with_weights=mode != "scratch")
    if strides is not None:
        body = copies.with_strides(body, strides, name or backbone.name)
    elif name:
        body = keras.Model(body.input, body.output, name=name)
    body.trainable = mode != "frozen"
    for layer in all_layers(body):
        if isinstance(layer, layers.BatchNormalization):
            # Not `body(x, training=False)`: Keras 3 overrules it when the outer model is called with training=True.
            layer.trainable = mode == "scratch"
            # Statistics that start from nothing have to converge within the steps of a small training set.
            layer.momentum = min(layer.momentum, 0.9)
    return body
