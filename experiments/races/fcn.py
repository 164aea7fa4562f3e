"""Time FCN-8s beside its own encoder, and its training step beside keras-hub's segmentation networks.

    python -m experiments.races.fcn    # the first alone; a minute on two CPU cores
    pip install --no-deps keras-hub "kagglehub<0.4" regex tokenizers    # not among the requirements
    python -m experiments.races.fcn    # both; three minutes; writes results/fcn.json

Forward: FCN-8s on EfficientNet-Lite0, 8 pictures of 360×480, 11 classes, beside the whole encoder with its last 1,280
feature maps, by Keras' `predict_on_batch`. FCN-8s once by `segment.predict`, which gives label maps and computes batch
normalization as a part of the convolutions, and once by `predict_on_batch`, which gives 61 MB of logits.

A training step: 4 pictures of 256×256, 21 classes, cross-entropy at every pixel, random weights, batch normalization
learning in all, and keras-hub's metric, the accuracy. Two pairs. On one and the same ResNet-18 of keras-hub's: its
DeepLabV3+ with the settings of its documentation, and our FCN-8s. And two networks of like size: its SegFormer on
MiT-B0, which is made of attention, and our FCN-8s on EfficientNet-Lite0. A step is `train_on_batch` in all. The
networks differ, so this says what a reader waits for, not whose code is faster.
"""

import keras
import numpy as np

from cvlab import backend, classify, segment

from .._timing import machine, side_by_side, table, write
from ._peers import resnet18

HEIGHT, WIDTH, PICTURES = 360, 480, 8
SIDE, BATCH, CLASSES = 256, 4, 21


def forward():
    """Time a forward pass of FCN-8s and of its encoder."""
    encoder = classify.efficientnet_lite0(include_top=False)
    model = segment.fcn(encoder, 11, 8)
    images = np.random.default_rng(0).uniform(0, 255, (PICTURES, HEIGHT, WIDTH, 3)).astype("float32")
    return side_by_side(
        {
            "encoder": lambda: encoder.predict_on_batch(images),
            "FCN-8s, label maps": lambda: segment.predict(model, images, PICTURES),
            "FCN-8s, logits": lambda: model.predict_on_batch(images),
        },
        rounds=25,
        warm_up=3,
    )


def theirs():
    """Build keras-hub's two networks."""
    import keras_hub

    body = keras_hub.models.DeepLabV3Backbone(
        resnet18(SIDE),
        spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
        image_shape=(SIDE, SIDE, 3),
    )
    mit = keras_hub.models.MiTBackbone(
        layerwise_depths=[2, 2, 2, 2],
        num_layers=4,
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        image_shape=(SIDE, SIDE, 3),
        hidden_dims=[32, 64, 160, 256],
    )
    return {
        "keras-hub DeepLabV3+, ResNet-18": keras_hub.models.DeepLabV3ImageSegmenter(body, CLASSES),
        "keras-hub SegFormer, MiT-B0": keras_hub.models.SegFormerImageSegmenter(
            keras_hub.models.SegFormerBackbone(mit, projection_filters=256), CLASSES
        ),
    }


def ours():
    """Build FCN-8s on keras-hub's ResNet-18 and on our EfficientNet-Lite0."""
    source = resnet18(SIDE)
    body = keras.Model(source.input, source.pyramid_outputs["P5"], name="resnet18")
    small = classify.efficientnet_lite0(weights=None, include_top=False)
    return {
        "cvlab FCN-8s, ResNet-18": segment.fcn(body, CLASSES, 8, "scratch"),
        "cvlab FCN-8s, EfficientNet-Lite0": segment.fcn(small, CLASSES, 8, "scratch"),
    }


def training():
    """Time a training step of four networks, and count their parameters."""
    models, generator = theirs() | ours(), np.random.default_rng(0)
    images = generator.uniform(0, 255, (BATCH, SIDE, SIDE, 3)).astype("float32")
    labels = generator.integers(0, CLASSES, (BATCH, SIDE, SIDE)).astype("int32")
    for model in models.values():
        how = keras.optimizers.Adam(1e-4), segment._loss(None)
        model.compile(*how, metrics=[keras.metrics.SparseCategoricalAccuracy()], jit_compile=False)
    steps = {name: lambda model=model: model.train_on_batch(images, labels) for name, model in models.items()}
    return side_by_side(steps, rounds=7), {name: model.count_params() for name, model in models.items()}


def main():
    backend.set_seed(0)
    about, passes = machine("keras", "keras-hub", "tensorflow-cpu", "numpy"), forward()
    table(f"a forward pass of {PICTURES} pictures of {HEIGHT}×{WIDTH}", passes, "encoder")
    try:
        steps, counts = training()
    except ImportError as error:
        print(f"\nno training step, and nothing written: {error}")
        return
    print(counts)
    for first, second in zip([*steps][:2], [*steps][2:]):
        pair = {name: steps[name] for name in (first, second)}
        table(f"a training step of {BATCH} pictures of {SIDE}×{SIDE}", pair, first)
    write(
        "fcn",
        {
            "command": "python -m experiments.races.fcn",
            "machine": about,
            "forward": passes,
            "step": steps,
            "parameters": counts,
        },
    )


if __name__ == "__main__":
    main()
