"""Measure for the lesson on scoring label maps how much of the best variant's lead is luck.

    python -m experiments.luck    # a minute on two CPU cores

Writes results/luck.json, which `chapters/week3/evaluation` shows. FCN-8s on a frozen EfficientNet-Lite0 is trained as
in that lesson, with cross-entropy and the first seed. 64 variants of it add a small random number to the logits of each
class. The best of the first 2, 4 … 64 of them in a random order is chosen on 20 test images and scored on the 230
others, for 200 random choices of both; what is written is by how much it is ahead of the average of all 64, on average.
"""

import keras
import numpy as np

from cvlab import backend, classify, data, segment

from ._timing import machine, write

SIDE, TRAIN, STEPS, RATE, BATCH = 160, 300, 130, 0.005, 8
VARIANTS, NOISE, CHOSEN_ON, DRAWS, EVERY = 64, 0.5, 20, 200, 8


def logits_and_labels():
    """Train the lesson's first network, and give test logits (N, 20, 20, C) and labels at every eighth pixel."""
    train, test = (data.load("scenes", split, size=SIDE, limit=n) for split, n in (("train", TRAIN), ("test", None)))
    model = segment.fcn(classify.efficientnet_lite0(include_top=False), len(train.mask_names), 8, "frozen")
    pixels, heads = keras.Input(train.images.shape[1:]), model.get_layer("heads")
    encoder = keras.Model(pixels, model.get_layer("backbone")(pixels))
    maps, tested = (classify.features(encoder, part.images, 32) for part in (train, test))
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    learner = keras.Model([*inputs, like], segment.Enlarge(2)([heads(inputs), like]))
    labels = train.masks[:, 2::4, 2::4, None].astype("int32")
    backend.set_seed(0)
    heads.set_weights(keras.models.clone_model(heads).get_weights())
    classify.optimize(
        learner,
        lambda y, z: keras.ops.sum(segment.cross_entropy(y, z)),
        lambda rows, generator: ([*(m[rows] for m in maps), labels[rows]], labels[rows, ..., 0]),
        TRAIN,
        STEPS,
        RATE,
        BATCH,
        0,
    )
    logits = learner.predict([*tested, test.masks[:, 2::4, 2::4, None]], 25, verbose=0)[:, ::2, ::2]
    return logits, test.masks[:, 2::EVERY, 2::EVERY].astype(int)


def mean_iou(tables):
    """Mean IoU of confusion matrices (..., C, C), absent classes left out."""
    correct = np.diagonal(tables, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(correct / (tables.sum(-1) + tables.sum(-2) - correct), axis=-1)


def main():
    logits, labels = logits_and_labels()
    classes, generator, tables = logits.shape[-1], np.random.default_rng(0), []
    for variant in range(VARIANTS):  # the first is the network itself
        noise = generator.normal(0, NOISE * (variant > 0), classes).astype(np.float32)
        pairs = labels * classes + (logits + noise).argmax(-1)
        tables.append([np.bincount(each.ravel(), minlength=classes**2) for each in pairs])
    tables = np.reshape(tables, (VARIANTS, len(labels), classes, classes))  # a confusion matrix for each image
    counts = [2**i for i in range(1, VARIANTS.bit_length())]
    gains = {"chosen on": [], "others": []}
    for _ in range(DRAWS):
        rows, order = generator.permutation(len(labels))[:CHOSEN_ON], generator.permutation(VARIANTS)
        few = tables[:, rows].sum(1)
        on, rest = mean_iou(few), mean_iou(tables.sum(1) - few)
        best = [order[:count][on[order[:count]].argmax()] for count in counts]
        gains["chosen on"].append(on[best] - on.mean())
        gains["others"].append(rest[best] - rest.mean())
    rows = [
        {"variants": count, "images": CHOSEN_ON, "draws": DRAWS}
        | {f"gain on {key}": round(float(np.mean(values, axis=0)[i]), 4) for key, values in gains.items()}
        for i, count in enumerate(counts)
    ]
    print(*rows, sep="\n")
    write(
        "luck",
        {
            "command": "python -m experiments.luck",
            "data": "scenes",
            "sha256": data.manifest()["toybox/scenes.zip"]["sha256"],
            "machine": machine("keras", "tensorflow-cpu", "numpy"),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
