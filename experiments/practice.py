"""Measure the steps of fine-tuning in practice, one at a time, for the lesson on transfer learning.

    python -m experiments.practice  # ten minutes on two CPU cores; resumable; writes results/practice.json

ResNet-20, pretrained on CIFAR-10, is fine-tuned on 100 images of each class of `objects`, and stops by its accuracy on
the validation images. Each recipe adds one step: train the new head first, lower the rate of lower layers, augment. The
last lets batch normalization learn, as Keras does unless told otherwise.
"""

import argparse
import json
import time

import keras
import numpy as np
from keras import layers

from cvlab import backend, classify, data

from ._timing import machine, resume, write

SIMPLE = {"head_first": False, "lowest": 1.0, "augment": False, "batch_norm": "stored", "learning_rate": 5e-4}
RECIPES = {
    "everything at once": SIMPLE,
    "head first": SIMPLE | {"head_first": True},
    "and lower rates below": SIMPLE | {"head_first": True, "lowest": 0.1},
    "and augmentation": SIMPLE | {"head_first": True, "lowest": 0.1, "augment": True},
    "everything at once, batch normalization too": SIMPLE | {"batch_norm": "batch"},
}
PER_CLASS, EPOCHS, PATIENCE = 100, 12, 4


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam whose learning rate rises by equal ratios, from `lowest` of it for the first variable to all of it."""

    def __init__(self, learning_rate, lowest):
        super().__init__(learning_rate)
        self.lowest = lowest

    def build(self, variables):
        super().build(variables)
        factors = np.geomspace(self.lowest, 1, len(variables))
        # TensorFlow hands its own variable to update_step, other backends the Keras variable around it.
        self.factors = {id(each): float(f) for v, f in zip(variables, factors) for each in (v, v.value)}

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.factors[id(variable)])


def build(augment, batch_norm, num_classes):
    """Put a new head on a backbone that learns; "stored": its batch normalization does not."""
    body = classify.resnet20(include_top=False)
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization) and batch_norm == "stored":
            layer.trainable = False
    pixels = keras.Input((32, 32, 3))
    x = pixels
    if augment:
        x = layers.RandomFlip("horizontal", seed=1)(x)
        x = layers.RandomTranslation(0.1, 0.1, seed=2)(x)
        x = layers.RandomZoom(0.2, seed=3)(x)
    x = layers.GlobalAveragePooling2D(name="features")(body(x))
    x = layers.Dense(num_classes, activation="softmax", kernel_initializer="zeros", name="head")(x)
    return keras.Model(pixels, x)


def train_head(model, images, labels):
    """Train the head on the features of the frozen backbone, computed once."""
    features = classify.features(keras.Model(model.input, model.get_layer("features").output), images)
    classify.fit_top(model.get_layer("head"), features, labels, 200, 3e-3)


def run(entry, train, val, test):
    """Train by one recipe → a row with what it reached."""
    backend.set_seed(entry["seed"])
    few = train.few(entry["per_class"], entry["seed"])
    model = build(entry["augment"], entry["batch_norm"], len(train.class_names))
    began = time.perf_counter()
    row = {}
    if entry["head_first"]:
        train_head(model, few.images, few.labels)
        row["frozen"] = classify.accuracy(model, test.images, test.labels)
    model.compile(LayerwiseAdam(entry["learning_rate"], entry["lowest"]), classify.LOSS, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=entry["patience"], restore_best_weights=True)
    last = {}
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: last.update(weights=model.get_weights()))
    history = model.fit(
        few.images,
        few.labels,
        batch_size=32,
        epochs=entry["epochs"],
        verbose=0,
        validation_data=(val.images, val.labels),
        callbacks=[note, stop],
    ).history
    best = int(np.argmax(history["val_accuracy"]))
    row |= {
        "seconds": round(time.perf_counter() - began, 1),
        "trained": len(history["loss"]),
        "best_epoch": best + 1,
        "val_accuracy": history["val_accuracy"][best],
        "accuracy": classify.accuracy(model, test.images, test.labels),
    }
    model.set_weights(last["weights"])
    return row | {"unstopped": classify.accuracy(model, test.images, test.labels)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    fixed = {"network": "resnet20", "per_class": PER_CLASS, "epochs": EPOCHS, "patience": PATIENCE}
    plan = [fixed | RECIPES[name] | {"recipe": name, "seed": seed} for seed in range(options.seeds) for name in RECIPES]
    rows, todo = resume("practice", plan, sha256)
    train, val, test = data.splits("objects", size=32)
    for entry in todo:
        rows.append(entry | run(entry, train, val, test))
        about = {"data": "objects at 32×32", "sha256": sha256, "machine": machine("keras", "tensorflow-cpu")}
        write("practice", {**about, "rows": rows})
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
