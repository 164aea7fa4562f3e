"""Measure up-sampling for the lesson on transfer learning: a frozen network on 32×32 images, at several sizes.

    python -m experiments.input_size  # a minute on two CPU cores; resumable; writes results/input_size.json

The classifier, the draws and the validation images are those of `chapters/week1/transfer_learning`, which shows what
this writes beside the sizes that it measures itself.
"""

import itertools
import json

import keras
import numpy as np
from keras import layers

from cvlab import classify, data

from ._timing import resume, write_rows

PER_CLASS, SEEDS = 20, 3
PLAN = [
    {"pixels": pixels, "input_size": size, "per_class": PER_CLASS, "seed": seed}
    for pixels, size in ((32, 96), (32, 224), (96, 96))
    for seed in range(SEEDS)
]


def probe(features, labels, new_features, new_labels, steps=100, rate=2.0, momentum=0.9):
    """Train a linear classifier by gradient descent on standardized features: its accuracy on new ones."""
    centre, spread = features.mean(0), (features.std(0) + 1e-3) * features.shape[1] ** 0.5
    F, new = (np.c_[(part - centre) / spread, np.ones(len(part), "float32")] for part in (features, new_features))
    Y = np.eye(labels.max() + 1, dtype="float32")[labels]
    W = velocity = np.zeros((F.shape[1], Y.shape[1]), "float32")
    for _ in range(steps):
        scores = F @ W
        odds = np.exp(scores - scores.max(1, keepdims=True))
        velocity = momentum * velocity - rate * F.T @ (odds / odds.sum(1, keepdims=True) - Y) / len(F)
        W = W + velocity
    return float(((new @ W).argmax(1) == new_labels).mean())


def main():
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("input_size", PLAN, sha256)
    backbone = classify.efficientnet_lite0(include_top=False)
    for (pixels, size), runs in itertools.groupby(todo, lambda run: (run["pixels"], run["input_size"])):
        runs = list(runs)
        train, val = (data.load("objects", split, size=pixels) for split in ("train", "val"))
        draws = {run["seed"]: train.draw(PER_CLASS, run["seed"]) for run in runs}
        drawn = np.unique(np.concatenate([*draws.values()]))
        given = keras.Input((pixels, pixels, 3))
        sees = keras.Model(given, layers.GlobalAveragePooling2D()(backbone(layers.Resizing(size, size)(given))))
        F, F_val = (classify.features(sees, images) for images in (train.images[drawn], val.images))
        for run in runs:
            chosen = draws[run["seed"]]
            accuracy = probe(F[np.searchsorted(drawn, chosen)], train.labels[chosen], F_val, val.labels)
            rows.append(run | {"tested": len(val), "accuracy": accuracy})
            print(json.dumps(rows[-1]), flush=True)
        write_rows("input_size", rows, sha256)


if __name__ == "__main__":
    main()
