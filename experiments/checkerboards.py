"""Measure for the lesson on up-sampling how much checkerboard is left in transposed convolutions that were trained.

    python -m experiments.checkerboards    # ten minutes on two CPU cores; goes on where it stopped

Writes results/checkerboards.json, which `chapters/week3/upsampling` shows. The task is that lesson's: three layers of
stride 2 turn 8×8 cells into 64×64 pixels. Kernels of 2 to 6 from a random start, kernels of 3 and 4 from a bilinear
one, and layers that resize before they convolve, each trained from twenty seeds with the same steps. One control: "as
kernel 3" is a kernel of 4 that holds the bilinear kernel of 3 and zeros, so that it begins with the same outputs, half
a pixel off at each layer, and has the even counts of a kernel of 4. "pattern" is the standard deviation, in grey
levels, of what becomes of flat grey, "RMSE" the error on images of `val`, "inside" that within a margin of 16 pixels.
Seeds share the steps of one graph, each with its own weights and its own order of the images.
"""

import argparse
import json

import keras
import numpy as np
from keras import ops

from cvlab import backend, classify, data, segment

from ._timing import resume, write_rows

RATES = {"bilinear": 0.01, "as kernel 3": 0.01, "random": 0.03, "resize": 0.03}  # as in the lesson
KINDS = [
    ("bilinear", 4),
    ("bilinear", 3),
    ("random", 4),
    ("random", 3),
    ("as kernel 3", 4),
    ("resize", 3),
    *(("random", k) for k in (2, 6, 5)),
]
STEPS = 90
TRAIN, VAL, SIDE, BATCH = 200, 50, 64, 8


def plan(seeds):
    """List what is measured, a dict each."""
    return [{"start": start, "kernel": kernel, "steps": STEPS, "seeds": seeds} for start, kernel in KINDS]


def network(kernel, start):
    """Build the lesson's network: three layers that each enlarge twofold, three channels each."""
    net = keras.Sequential([keras.Input((None, None, 3))])
    how = {"kernel_initializer": segment.bilinear_initializer} if start == "bilinear" else {}
    for _ in range(3):
        if start == "resize":
            net.add(keras.layers.UpSampling2D(2))
            net.add(keras.layers.Conv2D(3, kernel, padding="same", use_bias=False))
        else:
            net.add(keras.layers.Conv2DTranspose(3, kernel, 2, padding="same", use_bias=False, **how))
    if start == "as kernel 3":
        smaller = network(3, "bilinear").get_weights()  # "same" cuts kernel 4 on both sides, kernel 3 at the end alone
        net.set_weights([np.pad(weights, [(1, 0), (1, 0), (0, 0), (0, 0)]) for weights in smaller])
    return net


def rmse(a, b):
    return 255 * float(np.sqrt(((a - b) ** 2).mean()))


def tested(net, cells, pixels):
    """Give the RMSE, that inside the margin, and the pattern on flat grey, all in grey levels."""
    inner, found = np.s_[:, 16:-16, 16:-16], ops.convert_to_numpy(net(cells))
    flat = ops.convert_to_numpy(net(np.full((1, 14, 14, 3), 0.5, "float32")))
    return {
        "RMSE": rmse(found, pixels),
        "inside": rmse(found[inner], pixels[inner]),
        "pattern": 255 * float(flat[0, 32:-32, 32:-32].std((0, 1)).mean()),
    }


def measure(run, train, val):
    """Train a network from each seed, all in the steps of one graph, and test each before and after."""
    nets = []
    for seed in range(run["seeds"]):
        backend.set_seed(seed)
        nets.append(network(run["kernel"], run["start"]))
    before = [tested(net, *val) for net in nets]
    inputs = [keras.Input((8, 8, 3)) for _ in nets]
    together = keras.Model(inputs, [net(cells) for net, cells in zip(nets, inputs, strict=True)])
    orders = np.stack([np.random.default_rng(seed).permutation(TRAIN) for seed in range(run["seeds"])])

    def draw(rows, generator):
        return tuple([part[order[rows]] for order in orders] for part in train)

    losses = ["mse"] * len(nets)
    classify.optimize(together, losses, draw, TRAIN, run["steps"], RATES[run["start"]], BATCH, progress=True)
    after = [tested(net, *val) for net in nets]
    return run | {
        f"{what}, {when}": [round(each[what], 2) for each in results]
        for when, results in (("before", before), ("after", after))
        for what in before[0]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("checkerboards", plan(options.seeds), sha256)
    parts = []
    for split, limit in (("train", TRAIN), ("val", VAL)):
        pixels = data.load("scenes", split, size=SIDE, limit=limit).images.astype(np.float32) / 255
        parts.append((pixels.reshape(-1, SIDE // 8, 8, SIDE // 8, 8, 3).mean((2, 4)), pixels))
    for run in todo:
        rows.append(measure(run, *parts))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("checkerboards", rows, sha256, data="scenes")


if __name__ == "__main__":
    main()
