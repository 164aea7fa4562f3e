"""Measure for the lesson on FCN how networks of three strides compare when the same scenes are shrunk or enlarged.

    python -m experiments.strides    # ten minutes on two CPU cores; goes on where it stopped

Writes results/strides.json, which `chapters/week3/fcn` shows. What a stride costs depends on the size of things beside
it: the scenes, 160×160 as they come, are brought to each of four sides, and the label maps with them (by nearest
neighbour). All else stays: 200 training images, a frozen EfficientNet-Lite0, the same steps and learning rate, three
seeds. The same is done for ResNet-20, whose strides are 4, 2 and 1, at 64×64. All are scored on 100 images of `test`.
"bound" is what cells that know the truth reach at each stride, "ground" the score of a map of floor and wall alone,
each toy taken for floor.
"""

import argparse
import json

import cv2
import keras
import numpy as np

from cvlab import backend, classify, data, learn, metrics, segment

from ._timing import resume, write_rows

SIDES = {"efficientnet_lite0": (96, 160, 320, 448), "resnet20": (64,)}
TRAIN, TEST = 200, 100  # images
STEPS, RATE, BATCH = 150, 0.01, 8
EVERY = {"efficientnet_lite0": 8, "resnet20": 1}  # the loss looks at each so-many-th row and column of pixels


def plan(seeds):
    """List what is measured, a dict each."""
    return [
        {"backbone": name, "side": side, "learning_rate": RATE, "steps": STEPS, "train": TRAIN, "seeds": seeds}
        for name, sides in SIDES.items()
        for side in sides
    ]


def through_cells(mask, stride, num_classes):
    """Draw a label map by cells that know which share of their pixels is of which class, enlarged bilinearly."""
    h, w = (n // stride * stride for n in mask.shape)
    one_hot = np.float32(mask[:h, :w, None] == np.arange(num_classes))
    shares = one_hot.reshape(h // stride, stride, w // stride, stride, num_classes).mean((1, 3))
    return cv2.resize(shares, (w, h)).argmax(-1)


def mean_iou(truth, found, num_classes):
    """Score label maps on the pixels that both have."""
    truth = truth[:, : found.shape[1], : found.shape[2]]
    return round(metrics.segmentation_scores(truth, found, num_classes)["mean IoU"], 4)


def standardized_maps(backbone, strides, train, test):
    """Compute the maps of a frozen backbone, finest first, with mean 0 and variance 1 in each channel of `train`.

    One learning rate then suits all strides.
    """
    body = classify.copy_body(backbone, "frozen", strides[::-1])
    of_train, of_test = (learn.features(body, part.images, 32, progress=True) for part in (train, test))
    for known, tested in zip(of_train, of_test, strict=True):
        mean, deviation = known.mean((0, 1, 2)), known.std((0, 1, 2)) + 0.01
        for maps in (known, tested):
            maps -= mean
            maps /= deviation
    return of_train, of_test


def label_maps(of_train, of_test, train, test, strides, seed, run):
    """Train the heads of an FCN on the maps of these strides, finest first, and label the test images."""
    backend.set_seed(seed)
    heads = segment._heads([m.shape[-1] for m in of_train], len(train.mask_names), strides)
    inputs, like = [keras.Input(m.shape[1:]) for m in of_train], keras.Input((None, None, 1))
    scores, every = heads(inputs), EVERY[run["backbone"]]
    labels = train.masks[:, every // 2 :: every, every // 2 :: every].astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(labels))
    draw = learn.batches([*(m[order] for m in of_train), labels[order, ..., None]], labels[order])
    learner = keras.Model([*inputs, like], segment.Enlarge(strides[0] // every)([scores, like]))
    loss = segment._loss(segment.ignored(train))
    learn.optimize(learner, loss, draw, len(labels), run["steps"], run["learning_rate"], BATCH, progress=True)
    labeller = keras.Model([*inputs, like], segment.Enlarge(strides[0], classes=True)([scores, like]))
    return labeller.predict([*of_test, test.masks[..., None]], BATCH, verbose=0)


def measure(run):
    """Train all three networks from each seed, and score them on test images."""
    train, test = (
        data.load("scenes", split, size=run["side"], limit=limit) for split, limit in (("train", TRAIN), ("test", TEST))
    )
    backbone = classify.backbone(run["backbone"])
    strides, classes = segment.strides(backbone), len(train.mask_names)
    of_train, of_test = standardized_maps(backbone, strides, train, test)
    scored = {"mean IoU": {}, "bound": {}}
    for count, stride in enumerate(strides, 1):  # the coarsest network stands on one map, the finest on three
        scored["mean IoU"][str(stride)] = []
        for seed in range(run["seeds"]):
            finest_first = strides[count - 1 :: -1]
            found = label_maps(of_train[-count:], of_test[-count:], train, test, finest_first, seed, run)
            scored["mean IoU"][str(stride)].append(mean_iou(test.masks, found, classes))
        known = np.stack([through_cells(mask, stride, classes) for mask in test.masks])
        scored["bound"][str(stride)] = mean_iou(test.masks, known, classes)
    ground = mean_iou(test.masks, np.where(test.masks < 2, test.masks, 0), classes)  # 0: floor, 1: wall
    return run | {"tested": len(test), **scored, "ground": ground}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("strides", plan(options.seeds), sha256)
    for run in todo:
        rows.append(measure(run))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("strides", rows, sha256, data="scenes")


if __name__ == "__main__":
    main()
