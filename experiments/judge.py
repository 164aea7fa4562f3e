"""Judge the maps of seven methods, and of two controls, on whole test splits, for `grad_cam`.

    python -m experiments.judge    # some ten minutes on two CPU cores; goes on where it stopped

Two networks with a known reason: cat or dog by the eyes alone (`eyes`, test: the images in which both eyes are
visible), and car or not on ground that says nothing (`pavement`, turned: the cars). Only images that the network gets
right count.
Each measure is a mean over the images with its 95 % interval (images drawn anew, with repeats), as is each difference
from the image's edges; there is one trained network for each question, so the intervals say nothing of other trainings.
"""

import argparse

import cv2
import numpy as np

from cvlab import classify, data, explain, metrics

from ._timing import machine, resume, write
from .randomisation import guided

SAMPLES, PATH, STEPS, TOLERANCE, RESAMPLED = 16, 64, 10, 2, 2000
WEIGHTS = {"eyes": "resnet20_eyes", "cars": "resnet20_pavement_mended"}
MAPS = (
    "Grad-CAM",
    "Grad-CAM++",
    "occlusion",
    "saliency",
    "SmoothGrad",
    "integrated gradients",
    "guided backpropagation",
    "edges",
    "random",
)


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


def maps_of(net, images, labels):
    """Give the maps of each method and control, by name; CAM is Grad-CAM here, as pooling and a dense layer end both.

    Occlusion hides a sixth of each side at a time, in steps of half of that.
    """
    guided_net, window = guided(net), images.shape[1] // 6
    guided_net.set_weights(net.get_weights())
    return dict(
        zip(
            MAPS,
            (
                explain.grad_cam(net, images, labels),
                explain.grad_cam_plus_plus(net, images, labels),
                explain.occlusion(net, images, labels, window, window // 2),
                explain.saliency(net, images, labels),
                explain.smooth_grad(net, images, labels, SAMPLES),
                explain.integrated_gradients(net, images, labels, PATH),
                explain.saliency(guided_net, images, labels),
                edges(images),
                random(images),
            ),
        )
    )


def interval(values, seed=0):
    """Give the mean over images and its 95 % interval."""
    n = len(values)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLED) / n
    return [round(float(v), 3) for v in (np.mean(values), *np.percentile(weights @ values, (2.5, 97.5)))]


def measure(run):
    """Judge all maps of one question: the run with a row for each map."""
    net, images, labels, masks, asked = load(run["question"])
    found = {}
    for name, maps in maps_of(net, images, labels).items():
        found[name] = {
            "peak": metrics.pointing_game(maps, masks, TOLERANCE).astype(float),
            "energy": metrics.energy_in_mask(maps, masks),
            "deletion": metrics.deletion(net, images, maps, labels, STEPS)["area"],
            "insertion": metrics.insertion(net, images, maps, labels, STEPS)["area"],
        }
    rows = [
        {"map": name}
        | {key: interval(values) for key, values in own.items()}
        | {f"{key} less edges'": interval(values - found["edges"][key]) for key, values in own.items()}
        for name, own in found.items()
    ]
    return run | {"images": len(images), "of": asked, "area": round(float(masks.mean()), 4), "maps": rows}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sha256 = [data.manifest()[f"weights/{name}.weights.h5"]["sha256"] for name in WEIGHTS.values()]
    rows, todo = resume("judge", plan(), sha256)
    for run in todo:
        rows.append(measure(run))
        print(*(f"{run['question']} {row}" for row in rows[-1]["maps"]), sep="\n", flush=True)
        write(
            "judge",
            {
                "command": "python -m experiments.judge",
                "sha256": sha256,
                "machine": machine("keras", "tensorflow-cpu", "numpy"),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
