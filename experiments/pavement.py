"""Measure the lesson on saliency in full: car or pavement, before and after the data was mended, for every seed.

    python -m experiments.weights.pavement    # trains the models
    python -m experiments.pavement    # some minutes on two CPU cores; goes on where it stopped

`chapters/week4/saliency` shows what this writes: the accuracy on all pictures of a split, and the share of SmoothGrad's
energy (of the score *car*) that lies inside the toy's mask, for all its cars, beside the share of the picture that the
mask covers, which is what a map that knows nothing gets.
"""

import argparse
import json
from pathlib import Path

from cvlab import classify, data, explain, metrics

from ._timing import resume, write_rows

BUILD = Path(__file__).resolve().parents[1] / ".build" / "pavement"
MODELS = {"before": "resnet20_pavement", "after": "resnet20_pavement_mended"}
SIZE, SAMPLES, NOISE = 48, 16, 0.15


def plan(seeds):
    """List what is measured, a dict each."""
    return [
        {"data": when, "split": split, "seed": seed, "samples": SAMPLES, "noise": NOISE}
        for seed in range(seeds)
        for when in MODELS
        for split in ("test", "turned")
    ]


def measure(run):
    """Score one model on one split: the run with its accuracy and its energies."""
    part = data.load("pavement", run["split"], size=SIZE)
    is_car = part.labels == part.class_names.index("car")
    model = classify.resnet20(BUILD / f"{MODELS[run['data']]}_{run['seed']}.weights.h5", num_classes=2)
    cars = part.take(is_car.nonzero()[0])
    maps = explain.smooth_grad(model, cars.images, 1, SAMPLES, NOISE)
    single = explain.saliency(model, cars.images, 1)
    return run | {
        "accuracy": round(classify.accuracy(model, part.images, is_car), 4),
        "energy": round(float(metrics.energy_in_mask(maps, cars.masks > 0).mean()), 4),
        "saliency's energy": round(float(metrics.energy_in_mask(single, cars.masks > 0).mean()), 4),
        "area": round(float((cars.masks > 0).mean()), 4),
        "cars": len(cars),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = [data.manifest()[f"weights/{name}.weights.h5"]["sha256"] for name in MODELS.values()]
    rows, todo = resume("pavement", plan(options.seeds), sha256)
    for run in todo:
        rows.append(measure(run))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("pavement", rows, sha256)


if __name__ == "__main__":
    main()
