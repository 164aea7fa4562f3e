"""Measure what the landing page's figure shows: what three networks look at, before and after their data was mended.

    python -m experiments.landing    # seconds

`book/look.py` draws it: for each image the probability of its class and a heat map, of the network that learned a
shortcut and of the one that learned from mended data. The methods are those of the lessons: SmoothGrad of the score
*car* as in `chapters/week4/saliency`, class activation maps of the image's class as in `chapters/week4/cam`.
"""

import base64
import io

import numpy as np
from PIL import Image

from cvlab import classify, data, explain

from ._timing import machine, write

EXAMPLES = (
    {"part": "pavement", "split": "turned", "index": 3, "size": 48},
    {"part": "eyes", "split": "mended_test", "index": 15, "size": 96},
    {"part": "eyes", "split": "mended_test", "index": 2, "size": 96},
)
SAMPLES, NOISE = 16, 0.15  # of SmoothGrad, as in the lesson


def load(example):
    """Give an example's image as the networks see it, with its masks: a dataset of one image."""
    options = {"size": example["size"], "limit": example["index"] + 1}
    return data.load(example["part"], example["split"], **options).take([example["index"]])


def measure(example):
    """Explain one image by both networks: the example with {"before": …, "after": …} added.

    Each holds "probability", of the image's own class, and "map", a grey PNG in base64: (size, size) uint8, 255 at the
    map's maximum.
    """
    shown = load(example)
    label = int(shown.labels[0] == shown.class_names.index("car" if example["part"] == "pavement" else "dog"))
    measured = {}
    for when, suffix in (("before", ""), ("after", "_mended")):
        network = classify.resnet20(data.weights(f"resnet20_{example['part']}{suffix}"), num_classes=2)
        if example["part"] == "pavement":
            heat = explain.smooth_grad(network, shown.images, label, SAMPLES, NOISE)
        else:
            heat = explain.cam(network, shown.images, label)
        probability = float(explain.probabilities(network, shown.images)[0, label])
        measured[when] = {"probability": round(probability, 4), "map": encode(heat[0])}
    return example | measured


def encode(heat):
    """Write a map, (H, W) in [0, 1], as a grey PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * heat).astype("uint8")).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main():
    names = [f"resnet20_{part}{suffix}" for part in ("eyes", "pavement") for suffix in ("", "_mended")]
    about = {
        "command": "python -m experiments.landing",
        "sha256": [data.manifest()[f"weights/{name}.weights.h5"]["sha256"] for name in names],
        "smooth_grad": {"samples": SAMPLES, "noise": NOISE},
        "machine": machine("keras", "tensorflow-cpu", "numpy"),
    }
    write("landing", about | {"rows": [measure(example) for example in EXAMPLES]})


if __name__ == "__main__":
    main()
