"""Judge the maps of eight methods, and of two controls, on whole test splits, for `grad_cam`.

    python -m experiments.judge    # a quarter of an hour on two CPU cores; goes on where it stopped, map by map

Two networks with a known reason: cat or dog by the eyes alone (`eyes`, test: the images in which both eyes are
visible), and car or not on ground that says nothing (`pavement`, turned: the cars). Only images that the network gets
right count.
Each measure is a mean over the images with its 95 % interval (images drawn anew, with repeats), as is each difference
from the image's edges; there is one trained network for each question, so the intervals say nothing of other trainings.
`seconds` are what the map of one image takes, by median, all methods timed in turns on images of `eyes`.
"""

import argparse
import functools
import os
from pathlib import Path

import cv2
import numpy as np

from cvlab import classify, data, explain, metrics

from ._timing import machine, resume, side_by_side, write
from .randomisation import guided

SAMPLES, PATH, MASKS, STEPS, TOLERANCE, RESAMPLED = 16, 64, 500, 10, 2, 2000
PART, TIMED, ROUNDS = 10, 2, 3  # images of RISE at a time; images and calls of each method that are timed
BUILD = Path(__file__).resolve().parents[1] / ".build" / "judge"
WEIGHTS = {"eyes": "resnet20_eyes", "cars": "resnet20_pavement_mended"}


def plan():
    """List what is measured, a dict each."""
    return [{"question": question, "samples": SAMPLES, "path": PATH, "steps": STEPS} for question in WEIGHTS]


def load(question):
    """Give a network, and the images that it gets right with their labels and the masks of the reason."""
    net = classify.resnet20(data.weights(WEIGHTS[question]), num_classes=2)
    if question == "eyes":
        part = data.load("eyes", "test", classes=["cat", "dog"])
        masks, labels = part.parts == part.part_names.index("eye"), part.labels
        asked = part.extras["eyes_visible"] == 2
    else:
        part = data.load("pavement", "turned", size=48)
        masks, asked = part.masks > 0, part.labels == part.class_names.index("car")
        labels = asked.astype(int)
    right = classify.features(net, part.images).argmax(1) == labels
    rows = np.flatnonzero(asked & right)
    return net, part.images[rows].astype("float32"), labels[rows], masks[rows], int(asked.sum())


def edges(images):
    """Give the size of the brightness' gradient by Sobel's filter, in [0, 1]."""
    grey = images.mean(-1)
    size = np.stack([np.hypot(cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)) for g in grey])
    return size / size.max((1, 2), keepdims=True)


def random(images):
    """Give maps that know nothing: 24×24 random cells, enlarged bilinearly."""
    cells = np.random.default_rng(0).random((len(images), 24, 24), np.float32)
    return np.stack([cv2.resize(own, images.shape[2:0:-1]) for own in cells])


def occlusion(net, images, labels):
    """Hide a sixth of each side at a time, in steps of half of that."""
    window = images.shape[1] // 6
    return explain.occlusion(net, images, labels, window, window // 2)


@functools.cache
def guided_twin(net):
    """Copy a network with guided rectifiers, and its weights with it."""
    twin = guided(net)
    twin.set_weights(net.get_weights())
    return twin


MAPS = {  # CAM is Grad-CAM here, as pooling and a dense layer end both networks
    "Grad-CAM": explain.grad_cam,
    "Grad-CAM++": explain.grad_cam_plus_plus,
    "occlusion": occlusion,
    "RISE": lambda *given: explain.rise(*given, MASKS),
    "saliency": explain.saliency,
    "SmoothGrad": lambda *given: explain.smooth_grad(*given, SAMPLES),
    "integrated gradients": lambda *given: explain.integrated_gradients(*given, PATH),
    "guided backpropagation": lambda net, *given: explain.saliency(guided_twin(net), *given),
    "edges": lambda net, images, labels: edges(images),
    "random": lambda net, images, labels: random(images),
}


def interval(values, seed=0):
    """Give the mean over images and its 95 % interval."""
    n = len(values)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLED) / n
    return [round(float(v), 3) for v in (np.mean(values), *np.percentile(weights @ values, (2.5, 97.5)))]


def kept(name, question, net, images, labels):
    """Compute the maps of a method a few images at a time, and keep them in `.build`, as RISE takes minutes."""
    maps = []
    for first in range(0, len(images), PART):
        path, part = BUILD / f"{question}_{name}_{MASKS}_{first}.npy", slice(first, first + PART)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".part.npy"), MAPS[name](net, images[part], labels[part]))
            os.replace(path.with_suffix(".part.npy"), path)
        maps.append(np.load(path, allow_pickle=False))
    return np.concatenate(maps)


def judge(name, question, net, images, labels, masks):
    """Measure the maps of a method or control: a dict of (N,) numbers."""
    given = (net, images, labels)
    maps = kept(name, question, *given) if name == "RISE" else MAPS[name](*given)
    return {
        "peak": metrics.pointing_game(maps, masks, TOLERANCE).astype(float),
        "energy": metrics.energy_in_mask(maps, masks),
        "deletion": metrics.deletion(net, images, maps, labels, STEPS)["area"],
        "insertion": metrics.insertion(net, images, maps, labels, STEPS)["area"],
    }


def measure(run):
    """Judge the maps of one question that its row lacks: give the row after each of them, with one map more."""
    net, images, labels, masks, asked = load(run["question"])
    about = run | {"images": len(images), "of": asked, "area": round(float(masks.mean()), 4)}
    question, given = run["question"], (net, images, labels, masks)
    rows, by_edges = {row["map"]: row for row in run.get("maps", [])}, judge("edges", question, *given)
    for name in (name for name in MAPS if name not in rows):
        measured = judge(name, question, *given)
        rows[name] = {"map": name} | ({"masks": MASKS} if name == "RISE" else {})
        rows[name] |= {key: interval(values) for key, values in measured.items()}
        rows[name] |= {f"{key} less edges'": interval(values - by_edges[key]) for key, values in measured.items()}
        yield about | {"maps": [rows[name] for name in MAPS if name in rows]}


def seconds_an_image():
    """Time all methods in turns: a dict of the median seconds that the map of one image takes."""
    net, images, labels, _, _ = load("eyes")
    calls = {name: functools.partial(make, net, images[:TIMED], labels[:TIMED]) for name, make in MAPS.items()}
    times = side_by_side(calls, ROUNDS, warm_up=1)
    return {name: round(row["median_ms"] / 1000 / TIMED, 4) for name, row in times.items()}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sha256 = [data.manifest()[f"weights/{name}.weights.h5"]["sha256"] for name in WEIGHTS.values()]
    result = {"command": "python -m experiments.judge", "sha256": sha256}
    rows, _ = resume("judge", plan(), sha256)
    rows = {row["question"]: row for row in rows}
    for run in plan():
        known = rows.get(run["question"], run)
        if {row["map"] for row in known.get("maps", [])} >= set(MAPS):
            continue
        for row in measure(known):
            rows[run["question"]] = row
            print(run["question"], *(each["map"] for each in row["maps"]), sep=", ", flush=True)
            result["machine"] = machine("keras", "tensorflow-cpu", "numpy")
            write("judge", result | {"rows": [*rows.values()]})
    result |= {"seconds": seconds_an_image(), "machine": machine("keras", "tensorflow-cpu", "numpy")}
    write("judge", result | {"rows": [*rows.values()]})


if __name__ == "__main__":
    main()
