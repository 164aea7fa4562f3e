"""Measure for the lesson on FCN how a U-Net decoder compares with FCN-8s on the same frozen encoder.

    python -m experiments.unet    # five minutes on two CPU cores; goes on where it stopped

Writes results/unet.json, which `chapters/week3/fcn` shows. Both networks are built as in that lesson, on the last
feature maps of strides 8, 16 and 32 of a frozen EfficientNet-Lite0, with each channel standardized; both are trained on
the same 200 scenes at 160×160, for the same steps and batches, with a loss at every fourth pixel of every fourth row.
Learning rates are chosen among `RATES` on 100 images of `val` with one seed; 100 of `test` are scored with three seeds.
"""

import argparse
import json

import keras
import numpy as np
from keras import layers, ops

from cvlab import classify, data, metrics, segment

from ._timing import resume, write_rows

LAYERS = ("stage4_block1_expand_relu", "stage6_block1_expand_relu", "head_relu")
CLASSES, TRAIN, TEST, BATCH, WIDTH = 11, 200, 100, 8, 48
STEPS, RATES = (120, 480), (0.003, 0.01, 0.03)


def cross_entropy(labels, logits):
    """Mean cross-entropy at every fourth pixel of every fourth row."""
    labels, logits = ops.cast(labels, "int32")[:, 2::4, 2::4], logits[:, 2::4, 2::4]
    return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))


def add_skip(scores, feature_map):
    """Double the size of scores, and add scores of a finer map."""
    scores = layers.Conv2DTranspose(
        CLASSES, 4, 2, "same", use_bias=False, kernel_initializer=segment.bilinear_initializer
    )(scores)
    return layers.Add()([scores, layers.Conv2D(CLASSES, 1, kernel_initializer="zeros")(feature_map)])


def fcn_8s(maps):
    map_8, map_16, map_32 = maps
    return add_skip(add_skip(layers.Conv2D(CLASSES, 1)(map_32), map_16), map_8)


def unet(maps):
    x = layers.Conv2D(WIDTH, 1, activation="relu")(maps[2])
    for feature_map in (maps[1], maps[0]):
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        skip = layers.Conv2D(WIDTH, 1, activation="relu")(feature_map)
        x = layers.Concatenate()([x, skip])
        for _ in range(2):
            x = layers.Conv2D(WIDTH, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU()(x)
    return layers.Conv2D(CLASSES, 1)(x)


NETWORKS = {"FCN-8s": fcn_8s, "U-Net": unet}


def train(build, maps, labels, steps, learning_rate, seed):
    """Train a network on feature maps as the lesson does."""
    keras.utils.set_random_seed(seed)
    inputs = [keras.Input(m.shape[1:]) for m in maps]
    model = keras.Model(inputs, layers.UpSampling2D(8, interpolation="bilinear")(build(inputs)))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), cross_entropy)
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        rows = generator.choice(len(labels), BATCH, replace=False)
        model.train_on_batch([m[rows] for m in maps], labels[rows])
    return model


def score(model, maps, masks):
    """Mean IoU of a network's label maps."""
    found = model.predict(maps, BATCH, verbose=0).argmax(-1)
    return round(metrics.segmentation_scores(masks, found, CLASSES)["mean IoU"], 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    plan = [{"network": name, "steps": steps, "seeds": options.seeds} for steps in STEPS for name in NETWORKS]
    rows, todo = resume("unet", plan, sha256)
    classifier = classify.efficientnet_lite0(classifier_activation=None)
    encoder = keras.Model(classifier.input, [classifier.get_layer(name).output for name in LAYERS])
    limits = {"train": TRAIN, "val": TEST, "test": TEST}
    parts = {split: data.load("scenes", split, limit=limit) for split, limit in limits.items()}
    maps = {split: classify.features(encoder, part.images, 32) for split, part in parts.items()}
    moments = [(m.mean((0, 1, 2)), m.std((0, 1, 2)) + 1e-3) for m in maps["train"]]
    maps = {split: [(m - mean) / std for m, (mean, std) in zip(each, moments)] for split, each in maps.items()}
    labels = parts["train"].masks.astype("int32")
    for run in todo:
        build = NETWORKS[run["network"]]
        by_rate = {}
        for rate in RATES:
            model = train(build, maps["train"], labels, run["steps"], rate, 0)
            by_rate[rate] = score(model, maps["val"], parts["val"].masks)
        best = max(by_rate, key=by_rate.get)
        scores = []
        for seed in range(options.seeds):
            model = train(build, maps["train"], labels, run["steps"], best, seed)
            scores.append(score(model, maps["test"], parts["test"].masks))
        rows.append(
            run
            | {
                "learning_rate": best,
                "validation": {str(k): v for k, v in by_rate.items()},
                "weights": model.count_params(),
                "mean IoU": scores,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        write_rows("unet", rows, sha256, data="scenes")


if __name__ == "__main__":
    main()
