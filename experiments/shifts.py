"""Measure for the lesson on ZFNet how much AlexNet and ZFNet change when an image moves by one to three pixels.

    python -m experiments.shifts    # a quarter of an hour on two CPU cores; goes on where it stopped

Both networks were trained by one recipe (experiments/weights/zfnet.py): seed 0 is the book's own weights, the other
seeds are trained here (needs CIFAR-10). A window of 88×88 pixels moves to the right over each test image of `objects`.

maps: where nothing is lost by sampling, the first layer's maps (before ReLU) move along by shift / stride cells. The
difference from the maps that were moved so, by a windowed sine between the cells, as a share of the maps' deviation
from their mean, in the middle of the window.
blurred: the same with a Gaussian blur of the responses before they are sampled, the cure for aliasing, as a control.
probabilities: half the sum of the absolute differences of the class probabilities, from 0 to 1 (total variation).
flips: whether the class changes.

Each is a mean over the images, with its 95 % interval (images drawn anew, with repeats).
"""

import argparse
import json

import keras
import numpy as np

from cvlab import classify, data

from ._timing import machine, resume, write
from .judge import interval

SHIFTS, WINDOW, BORDER = (1, 2, 3), 88, 20  # pixels; the border has as many cells as `moved` needs, at either stride
NETWORKS = {"alexnet": classify.alexnet, "zfnet": classify.zfnet}


def plan(seeds):
    """List what is measured, a dict each."""
    return [{"network": name, "seed": seed} for seed in range(seeds) for name in NETWORKS]


def network(name, seed):
    """Give a trained network: the book's weights for seed 0, else the one of the recipe."""
    if seed == 0:
        return NETWORKS[name](data.weights(f"{name}_toybox"))
    from .weights import zfnet as recipe

    return recipe.train(name, seed)


def moved(maps, cells, border):
    """Move maps (N, h, w, C) to the left by a number of cells, by a windowed sine between them, and crop a border."""
    around = np.arange(-3, 5)  # the cells that a value between two cells is made of
    distance = around - cells % 1
    weights = np.sinc(distance) * np.sinc(distance / 4)  # Lanczos' window
    columns = np.arange(border, maps.shape[2] - border) + int(cells)
    rows = maps[:, border:-border]
    return sum(weight * rows[:, :, columns + i] for weight, i in zip(weights / weights.sum(), around))


def blurred(kernel, stride):
    """Blur filters (k, k, C, F) by a Gaussian with a standard deviation of 0.6 strides."""
    taps = np.exp(-0.5 * (np.arange(-2 * stride, 2 * stride + 1) / (0.6 * stride)) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        kernel = np.apply_along_axis(np.convolve, axis, kernel, taps)
    return kernel


def not_moved(kernel, stride, windows):
    """Measure what differs when the maps of the first window are moved along: for each other window (N,) shares."""
    border, shares = BORDER // stride, []
    still, *others = (keras.ops.convert_to_numpy(keras.ops.conv(x, kernel, stride, "valid")) for x in windows)
    for shift, maps in zip(SHIFTS, others, strict=True):
        maps = maps[:, border:-border, border:-border]
        error = np.square(maps - moved(still, shift / stride, border)).sum((1, 2, 3))
        shares.append(np.sqrt(error / np.square(maps - maps.mean((1, 2), keepdims=True)).sum((1, 2, 3))))
    return shares


def measure(run, images):
    """Move the window over the images: the run, with a dict of measures for each shift."""
    model = network(run["network"], run["seed"])
    top, (kernel, _) = (images.shape[1] - WINDOW) // 2, model.get_layer("conv1").get_weights()
    stride = model.get_layer("conv1").strides[0]
    windows = [images[:, top : top + WINDOW, top + d : top + d + WINDOW].astype("float32") for d in (0, *SHIFTS)]
    sharp, smooth = (not_moved(k.astype("float32"), stride, windows) for k in (kernel, blurred(kernel, stride)))
    before, *others = (classify.features(model, window) for window in windows)
    rows = [
        {
            "shift": shift,
            "maps": interval(sharp[i]),
            "blurred": interval(smooth[i]),
            "probabilities": interval(np.abs(others[i] - before).sum(-1) / 2),
            "flips": interval((others[i].argmax(-1) != before.argmax(-1)).astype(float)),
        }
        for i, shift in enumerate(SHIFTS)
    ]
    return run | {"images": len(images), "shifts": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("shifts", plan(options.seeds), sha256)
    images = data.load("objects", "test").images
    for run in todo:
        rows.append(measure(run, images))
        print(json.dumps(rows[-1]), flush=True)
        about = {"command": "python -m experiments.shifts", "data": "objects", "sha256": sha256}
        write("shifts", about | {"machine": machine("keras", "tensorflow-cpu", "numpy"), "rows": rows})


if __name__ == "__main__":
    main()
