"""Measure for the lesson on scoring label maps what a soft Dice loss is worth beside cross-entropy.

    python -m experiments.soft_dice    # five minutes on two CPU cores; goes on where it stopped

Writes results/soft_dice.json, which `chapters/week3/evaluation` shows. FCN-8s on a frozen EfficientNet-Lite0, trained
on 300 scenes and scored on all of `test`, from the same three seeds with each of three losses, and otherwise as in that
lesson: the same steps, learning rate and batches, and the loss looks at every fourth pixel of every fourth row.
"""

import argparse
import json

import keras
from keras import ops

from cvlab import backend, classify, data, metrics, segment

from ._timing import resume, write_rows

SIDE, TRAIN, STEPS, RATE, BATCH = 160, 300, 130, 0.005, 8


def cross_entropy(labels, logits):
    return ops.sum(segment.cross_entropy(labels, logits))


def soft_dice(labels, logits):
    """One minus the mean Dice, with probabilities in the place of answers, as in the lesson."""
    y, p = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1]), ops.softmax(logits)
    shared, sizes = ops.sum(p * y, (0, 1, 2)), ops.sum(p + y, (0, 1, 2))
    return 1 - ops.mean((2 * shared + 1) / (sizes + 1))


def both(labels, logits):
    return cross_entropy(labels, logits) + soft_dice(labels, logits)


LOSSES = {"cross-entropy": cross_entropy, "both": both, "soft Dice": soft_dice}


def plan(seeds):
    """List what is measured, a dict each."""
    return [
        {"loss": loss, "seed": seed, "steps": STEPS, "learning_rate": RATE} for loss in LOSSES for seed in range(seeds)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("soft_dice", plan(options.seeds), sha256)
    train, test = (data.load("scenes", split, size=SIDE, limit=n) for split, n in (("train", TRAIN), ("test", None)))
    classes = len(train.mask_names)
    model = segment.fcn(classify.efficientnet_lite0(include_top=False), classes, stride=8, mode="frozen")
    pixels, heads = keras.Input(train.images.shape[1:]), model.get_layer("heads")
    body = keras.Model(pixels, model.get_layer("backbone")(pixels))
    maps, tested = (classify.features(body, part.images, 32) for part in (train, test))
    inputs, like = [keras.Input(m.shape[1:]) for m in maps], keras.Input((None, None, 1))
    learner, answer = (
        keras.Model([*inputs, like], enlarge([heads(inputs), like]))
        for enlarge in (segment.Enlarge(2), segment.Enlarge(8, classes=True))
    )
    labels = train.masks[:, 2::4, 2::4, None].astype("int32")

    def draw(chosen, generator):
        return [*(m[chosen] for m in maps), labels[chosen]], labels[chosen, ..., 0]

    for run in todo:
        backend.set_seed(run["seed"])
        heads.set_weights(keras.models.clone_model(heads).get_weights())
        classify.optimize(learner, LOSSES[run["loss"]], draw, TRAIN, STEPS, RATE, BATCH, run["seed"])
        found = answer.predict([*tested, test.masks[..., None]], 25, verbose=0)
        scored = metrics.segmentation_scores(test.masks, found, classes)
        IoU = {name: round(float(value), 4) for name, value in zip(train.mask_names, scored["IoU"], strict=True)}
        kept = {key: round(float(scored[key]), 4) for key in ("mean IoU", "pixel accuracy")}
        rows.append(run | {"train": TRAIN, "tested": len(test)} | kept | {"IoU": IoU})
        print(json.dumps(rows[-1]), flush=True)
        write_rows("soft_dice", rows, sha256, data="scenes")


if __name__ == "__main__":
    main()
