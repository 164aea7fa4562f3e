"""Measure for the lesson on RetinaNet what the focal loss, the prior and the pyramid's levels are worth on the toybox.

    python -m experiments.focal    # half an hour on two CPU cores; goes on where it stopped; writes results/focal.json

Not a race but a measurement: `chapters/week2/retinanet` shows what it writes. A detector smaller than the book's, from
ImageNet's weights, backbone and all. Each kind has the learning rate that did best on `val`.
"""

import argparse
import json

import numpy as np

from cvlab import backend, classify, data, retinanet

from ._timing import machine, resume, write

LOSSES = {"focal": (2.0, 0.25), "cross-entropy": (0.0, 0.5)}
LEVELS = {
    "three": {"strides": (8, 16, 32), "anchor_sizes": (16, 32, 64)},
    "one": {"strides": (16,), "anchor_sizes": (16,), "scales": tuple((2 ** (np.arange(9) / 3)).tolist())},
}
KINDS = [  # loss, prior, levels
    ("focal", 0.01, "three"),
    ("cross-entropy", 0.01, "three"),
    ("cross-entropy", 0.5, "three"),
    ("focal", 0.01, "one"),
]
RATES = (2.5e-4, 5e-4, 1e-3)


def plan(seeds):
    """List what is measured, a dict each: of each kind first the learning rates on `val`, then the seeds on `test`."""
    kinds = [{"loss": loss, "prior": prior, "levels": levels, "steps": 400} for loss, prior, levels in KINDS]
    choices = [kind | {"split": "val", "seed": 0, "learning_rate": rate} for kind in kinds for rate in RATES]
    return choices + [kind | {"split": "test", "seed": seed} for kind in kinds for seed in range(seeds)]


def best_rate(run, rows):
    """Give the learning rate that had the best AP50 on `val` with a run's loss, prior and levels."""
    same = [row for row in rows if row["split"] == "val" and all(row[k] == run[k] for k in ("loss", "prior", "levels"))]
    return max(same, key=lambda row: row["AP50"])["learning_rate"]


def measure(run, backbone, train, part):
    """Train one detector and test it: the run with its first and last losses, its scores and seconds."""
    backend.set_seed(run["seed"])
    config = retinanet.RetinaNetConfig(
        train.class_names, input_size=128, channels=64, depth=1, prior=run["prior"], **LEVELS[run["levels"]]
    )
    model = retinanet.build(config, body=classify.copy_body(backbone, "fine_tune", config.strides, name="backbone"))
    gamma, alpha = LOSSES[run["loss"]]
    trained = retinanet.train(
        model,
        train.images,
        train.boxes,
        train.labels,
        run["steps"],
        run["learning_rate"],
        gamma=gamma,
        alpha=alpha,
        seed=run["seed"],
    )
    scored = retinanet.scores(retinanet.detect(model, part.images), part.boxes, part.labels, part.class_names)
    losses = {"first": trained["loss"][0], "last": float(np.mean(trained["loss"][-20:]))}
    scores = {key: scored[key] for key in ("AP", "AP50", "AP75")}
    rounded = {key: round(value, 4) for key, value in (losses | scores).items()}
    return run | {"anchors": len(config.anchors())} | rounded | {"seconds": round(trained["seconds"], 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("focal", plan(options.seeds), sha256)
    train, *others = (data.load("scenes", split) for split in ("train", "val", "test"))
    parts, backbone = {part.split: part for part in others}, classify.efficientnet_lite0(include_top=False)
    for run in todo:
        run = {"learning_rate": best_rate(run, rows)} | run if run["split"] == "test" else run
        rows.append(measure(run, backbone, train, parts[run["split"]]))
        print(json.dumps(rows[-1]), flush=True)
        about = {
            "command": "python -m experiments.focal",
            "data": "scenes",
            "sha256": sha256,
            "machine": machine("keras", "tensorflow-cpu", "numpy"),
        }
        write("focal", {**about, "rows": rows})


if __name__ == "__main__":
    main()
