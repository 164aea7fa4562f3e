"""Make a nine-class network random from the top, and measure how much the maps of each method stay the same.

    python -m experiments.randomisation    # some minutes on two CPU cores; goes on where it stopped

`chapters/week4/grad_cam` shows what this writes. The test is that of Adebayo et al. (2018): layers get random weights,
one after the other, from the classifier down to the first convolution, while the class that is explained stays the one
that the trained network predicted. Each map is compared with the trained network's by Spearman's rank correlation of
the pixels: with its signs, and in absolute values. Beside it stands how much each map is like the image's edges.
"""

import argparse
import os
from pathlib import Path

import cv2
import keras
import numpy as np

from cvlab import backend, classify, data, explain

from ._timing import machine, write

BUILD = Path(__file__).resolve().parents[1] / ".build" / "randomisation"
NETWORKS = {"zfnet": classify.zfnet, "alexnet": classify.alexnet}
STAGES = ("classes", "conv5", "conv4", "conv3", "conv2", "conv1")  # as they become random
IMAGES, DRAWS, RESAMPLED = 100, 20, 2000


@keras.ops.custom_gradient
def guided_relu(x):
    """Rectify; the gradient passes where both x and the gradient itself are positive (guided backpropagation)."""

    def gradient(*args, upstream=None):
        (upstream,) = args if upstream is None else (upstream,)
        return keras.ops.relu(upstream) * keras.ops.cast(x > 0, x.dtype)

    return keras.ops.relu(x), gradient


def guided(model):
    """Copy a network, with `guided_relu` in the place of its rectifiers; the weights are the copy's own."""

    def copy(layer):
        if isinstance(layer, keras.layers.ReLU):
            return keras.layers.Activation(guided_relu, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=copy)


def maps_of(model, guided_model, images, classes):
    """Give the maps of each method, a dict by (method, signs) of (N, H, W)."""
    maps = {
        "saliency": explain.saliency(model, images, classes, raw=True),  # (N, H, W, 3)
        "Grad-CAM": explain.grad_cam(model, images, classes, raw=True)[..., None],
        "guided backpropagation": explain.saliency(guided_model, images, classes, raw=True),
    }
    # Selvaraju et al. multiply by the map that is shown, so without what speaks against the class.
    maps["Guided Grad-CAM"] = np.maximum(maps["Grad-CAM"], 0) * maps["guided backpropagation"]
    both = {}
    for method, values in maps.items():
        both |= {(method, "signed"): values.sum(-1), (method, "absolute"): abs(values).sum(-1)}
    return both | {("Grad-CAM", "rectified"): np.maximum(maps["Grad-CAM"][..., 0], 0)}


def ranks(maps):
    """Rank each map's pixels, ties by their mean, scaled to mean 0 and length 1: (N, pixels) float32."""
    rows = np.empty((len(maps), maps[0].size), np.float32)
    for row, values in zip(rows, maps.reshape(len(maps), -1)):
        order = values.argsort()
        ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True)) + 1  # of each run of equal values
        counts = np.diff(ends, prepend=0)
        row[order] = np.repeat(ends - (counts + 1) / 2, counts) - (values.size - 1) / 2
        row /= np.linalg.norm(row) or 1
    return rows


def interval(values, seed=0):
    """Give the mean of (draws, images) and its 95 % interval; both draws and images are drawn anew, with repeats."""
    generator = np.random.default_rng(seed)
    rows, columns = (generator.multinomial(n, np.full(n, 1 / n), RESAMPLED) / n for n in values.shape)
    means = ((rows @ values) * columns).sum(1)
    return [round(float(v), 3) for v in (values.mean(), *np.percentile(means, (2.5, 97.5)))]


def edges(images):
    """Give the size of the brightness' gradient by Sobel's filter, (N, H, W)."""
    grey = images.mean(-1)
    return np.stack([np.hypot(cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)) for g in grey])


class Test:
    """A network, images of the test split that it gets right, and the maps of its trained weights."""

    def __init__(self, name, images=IMAGES):
        part = data.load("objects", "test")
        self.net = NETWORKS[name](classifier_activation=None)
        right = classify.features(self.net, part.images).argmax(-1) == part.labels
        part = part.take(np.flatnonzero(right)[:images])
        self.images, self.classes = part.images.astype("float32"), part.labels
        self.twin, self.guided_twin = keras.models.clone_model(self.net), guided(self.net)
        self.trained = {key: ranks(values) for key, values in self.maps(self.net).items()}
        outlines = ranks(edges(self.images))
        self.like_edges = {key: (values * outlines).sum(-1) for key, values in self.trained.items()}

    def maps(self, source):
        """Give the maps of a network's weights."""
        for model in (self.twin, self.guided_twin):
            model.set_weights(source.get_weights())
        return maps_of(self.twin, self.guided_twin, self.images, self.classes)

    def correlations(self, draw):
        """Give the rank correlations with the trained network's maps, {key: (stages, images)}, of a draw of weights."""
        backend.set_seed(1000 + draw)
        drawn, mixed, stages = keras.models.clone_model(self.net), keras.models.clone_model(self.net), []
        mixed.set_weights(self.net.get_weights())
        for layer in STAGES:
            mixed.get_layer(layer).set_weights(drawn.get_layer(layer).get_weights())
            maps = self.maps(mixed)
            stages.append({key: (self.trained[key] * ranks(values)).sum(-1) for key, values in maps.items()})
        return {key: np.array([stage[key] for stage in stages]) for key in self.trained}


def measure(name, draws):
    """Measure a network, or read what was measured before: rows of the table, by method, signs and stage."""
    checksum = data.manifest()[f"weights/{name}_toybox.weights.h5"]["sha256"][:12]
    BUILD.mkdir(parents=True, exist_ok=True)
    test, found = None, []
    for draw in range(draws):
        file = BUILD / f"{name}_{checksum}_{IMAGES}_{draw}.npz"
        if not file.exists():
            test = test or Test(name)
            values = {"|".join(key): v for key, v in test.correlations(draw).items()}
            part = file.with_suffix(".part.npz")
            np.savez(part, **values, **{f"edges|{'|'.join(key)}": v for key, v in test.like_edges.items()})
            os.replace(part, file)
            print(name, draw, {key: v.mean(1).round(2).tolist() for key, v in values.items()}, flush=True)
        found.append(np.load(file))
    keys = [key for key in found[0] if not key.startswith("edges")]
    rows = []
    for key in keys:
        values = np.stack([own[key] for own in found])  # (draws, stages, images)
        method, signs = key.split("|")
        row = {"network": name, "images": values.shape[2], "draws": draws, "method": method, "signs": signs}
        row["like edges"] = interval(found[0][f"edges|{key}"][None])
        rows.append(row | {"random down to": {s: interval(values[:, i]) for i, s in enumerate(STAGES)}})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--networks", nargs="*", default=["zfnet"], choices=list(NETWORKS))
    options = parser.parse_args()
    rows = [row for name in options.networks for row in measure(name, options.draws)]
    write(
        "randomisation",
        {
            "command": "python -m experiments.randomisation",
            "stages": STAGES,
            "sha256": [data.manifest()[f"weights/{name}_toybox.weights.h5"]["sha256"] for name in options.networks],
            "machine": machine("keras", "tensorflow-cpu", "numpy"),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
