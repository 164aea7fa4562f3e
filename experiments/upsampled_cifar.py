"""Measure up-sampling on CIFAR-10 for the lesson on transfer learning: an ImageNet network on 32×32 images.

    python -m experiments.upsampled_cifar  # ten minutes on two CPU cores; resumable

Frozen features of EfficientNet-Lite0 at several input sizes, with a linear classifier on top, tested on all 10,000 test
images; beside it the book's ResNet-20, which was trained on all 50,000 training images at 32×32. CIFAR-10 is looked for
where `cvlab.data` does.
"""

import hashlib
import json
import time

import keras
from keras import layers

from cvlab import classify, data

from ._timing import machine, resume, write

PLAN = [
    {"network": "efficientnet_lite0", "input_size": size, "per_class": per_class, "seed": 0}
    for size, per_class in ((32, 500), (96, 500), (224, 500))
] + [{"network": "resnet20", "input_size": 32, "per_class": 5000, "seed": 0}]


def frozen(entry, train, test):
    """Train a linear classifier on frozen features, computed once → (accuracy, seconds for the features)."""
    few = train.few(entry["per_class"], entry["seed"])
    backbone, size = classify.backbone(entry["network"]), entry["input_size"]
    pixels = keras.Input((32, 32, 3))
    extractor = keras.Model(pixels, layers.GlobalAveragePooling2D()(backbone(layers.Resizing(size, size)(pixels))))
    began = time.perf_counter()
    F, F_test = (classify.features(extractor, part.images) for part in (few, test))
    seconds = time.perf_counter() - began
    head = layers.Dense(len(train.class_names), activation="softmax", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input(F.shape[1:]), head])
    classify.fit_top(head, F, few.labels, 3000, 1e-3, batch_size=256)
    guesses = model.predict(F_test, batch_size=1000, verbose=0).argmax(1)
    return float((guesses == test.labels).mean()), seconds


def main():
    train, test = (data.load("cifar10", split) for split in ("train", "test"))
    sha256 = hashlib.sha256(test.images.tobytes()).hexdigest()
    rows, todo = resume("upsampled_cifar", PLAN, sha256)
    for entry in todo:
        if entry["network"] == "resnet20":
            accuracy, seconds = classify.accuracy(classify.resnet20(), test.images, test.labels), None
        else:
            accuracy, seconds = frozen(entry, train, test)
        rows.append(entry | {"tested": len(test), "accuracy": accuracy, "seconds": seconds})
        about = {
            "command": "python -m experiments.upsampled_cifar",
            "sha256": sha256,
            "machine": machine("keras", "tensorflow-cpu", "numpy"),
        }
        write("upsampled_cifar", {**about, "rows": rows})
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
