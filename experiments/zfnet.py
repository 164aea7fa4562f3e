"""Measure what the lesson on ZFNet says of the two stems: first filters, aliasing and accuracy, for three seeds each.

    python -m experiments.zfnet  # trains what is missing (needs CIFAR-10); goes on where it stopped

`chapters/week4/zfnet` shows what this writes. The recipe was chosen on the val pictures, for both networks alike.
"""

import argparse
import json

import keras
import numpy as np

from cvlab import classify, data

from ._timing import resume, write_rows

SHIFTS, WINDOW = range(8), 80  # pixels; 8 is the stride of both networks' second layer


def plan(seeds):
    """List what is measured, a dict each."""
    return [{"network": name, "seed": seed} for seed in range(seeds) for name in ("alexnet", "zfnet")]


def bands(kernel, size=64):
    """Give each filter's share of power below 1/8, from 1/8 to 1/4, and above 1/4 cycles a pixel: (3, filters).

    1/8 and 1/4 are the highest frequencies that strides of 4 and 2 can carry.
    """
    power = (np.abs(np.fft.fft2(kernel, (size, size), axes=(0, 1))) ** 2).sum(2)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    parts = [power[(low <= radius) & (radius < high)].sum(0) for low, high in ((0, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1))]
    return np.array(parts) / power.sum((0, 1))


def folded(layer, images):
    """Give the share of the first layer's power that its stride folds: above half a cycle per stride, either axis.

    The filters are moved by one pixel at a time, and the power is that of all responses together but for their mean.
    """
    kernel, stride, power = layer.get_weights()[0], layer.strides[0], 0
    for start in range(0, len(images), 20):
        maps = keras.ops.conv(images[start : start + 20].astype("float32"), kernel, 1, "valid")
        maps = keras.ops.convert_to_numpy(maps)
        window = np.hanning(maps.shape[1] + 2)[1:-1]
        maps = (maps - maps.mean((1, 2), keepdims=True)) * (window[:, None] * window)[..., None]
        power = power + (np.abs(np.fft.fft2(maps, axes=(1, 2))) ** 2).sum((0, 3))
    frequency = np.abs(np.fft.fftfreq(len(power)))
    return float(power[np.maximum(frequency[:, None], frequency) > 0.5 / stride].sum() / power.sum())


def flicker(model, images):
    """Say how the network changes its mind while a window moves over the pictures, pixel by pixel.

    Returns:
        dict: for the first two layers the standard deviation over the shifts of a feature map's mean, as a share of
        that mean, over all maps that are not dark; and the share of pictures that get more than one class.
    """
    names = ("relu1", "relu2", "probabilities")
    taps = keras.Model(model.input, [model.get_layer(name).output for name in names])
    seen = [classify.features(taps, images[:, d : d + WINDOW, d : d + WINDOW]) for d in SHIFTS]
    result = {}
    for place, name in enumerate(names[:2]):
        means = np.stack([each[place].mean((1, 2)) for each in seen])  # shifts, pictures, channels
        lit = means.mean(0) > 0.01 * means.max()
        result[f"flicker {name}"] = float((means.std(0)[lit] / means.mean(0)[lit]).mean())
    classes = np.stack([each[2].argmax(-1) for each in seen])
    return result | {"flips": float((classes != classes[0]).any(0).mean())}


def measure(run, test, val):
    """Train what the run names, or load it, and measure it: the run with its numbers."""
    from .weights import zfnet as recipe

    model = recipe.train(run["network"], run["seed"])
    layer = model.get_layer("conv1")
    kernel = layer.get_weights()[0]
    norms = np.sqrt((kernel**2).sum((0, 1, 2)))
    lit = classify.features(keras.Model(model.input, model.get_layer("relu1").output), test.images).max((0, 1, 2))
    shares = bands(kernel)[:, norms >= 0.1 * norms.max()].mean(1)
    scores = {part.split: classify.accuracy(model, part.images, part.labels) for part in (val, test)}
    own = {
        "parameters": model.count_params(),
        **scores,
        **dict(zip(("low", "mid", "high"), map(float, shares))),
        "dark": float((lit <= 0).mean()),
        "weak": float((norms < 0.1 * norms.max()).mean()),
        "folded": folded(layer, test.images[:100]),
        **flicker(model, test.images),
    }
    return run | {key: round(value, 4) for key, value in own.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("zfnet", plan(options.seeds), sha256)
    val, test = (data.load("objects", split) for split in ("val", "test"))
    for run in todo:
        rows.append(measure(run, test, val))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("zfnet", rows, sha256)


if __name__ == "__main__":
    main()
