"""Measure the lesson on transfer learning in full: two networks, three modes, four sizes of training set, three seeds.

    python -m experiments.transfer  # 20 minutes on two CPU cores; resumable; writes results/transfer.json

Not a race but a measurement: `chapters/week1/transfer_learning` shows what it writes.
"""

import argparse
import itertools
import json

from cvlab import classify, data

from ._timing import machine, resume, write

PLAN = (  # network, mode, size that it sees, learning rate, steps of training by pictures a class (None: all)
    ("efficientnet_lite0", "frozen", 96, 3e-3, {5: 200, 20: 200, 100: 200, None: 200}),
    ("resnet20", "frozen", None, 3e-3, {5: 200, 20: 200, 100: 200, None: 200}),
    ("efficientnet_lite0", "fine_tune", 96, 2e-4, {5: 40, 20: 60, 100: 80, None: 150}),
    ("resnet20", "fine_tune", None, 5e-4, {5: 60, 20: 80, 100: 120, None: 200}),
    ("resnet20", "scratch", None, 2e-3, {5: 120, 20: 160, 100: 400, None: 1200}),
    ("efficientnet_lite0", "scratch", 96, 2e-3, {20: 120}),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    plan = [
        {
            "network": network,
            "mode": mode,
            "input_size": size,
            "learning_rate": rate,
            "steps": steps,
            "per_class": per_class,
            "seed": seed,
        }
        for network, mode, size, rate, by_class in PLAN
        for per_class, steps in by_class.items()
        for seed in range(options.seeds)
    ]
    rows, todo = resume("transfer", plan, sha256)
    train, test = (data.load("objects", split, size=32) for split in ("train", "test"))
    for how, runs in itertools.groupby(todo, lambda run: {k: v for k, v in run.items() if k != "seed"}):
        seeds = [run["seed"] for run in runs]
        backbone = classify.backbone(how["network"])
        new = classify.trial(
            backbone,
            train,
            test,
            how["mode"],
            how["per_class"],
            how["steps"],
            how["input_size"],
            seeds,
            how["learning_rate"],
        )
        rows += [how | row for row in new]
        about = {"data": "objects at 32×32", "sha256": sha256, "machine": machine("keras", "tensorflow-cpu", "numpy")}
        write("transfer", {**about, "rows": rows})
        print(json.dumps(new), flush=True)


if __name__ == "__main__":
    main()
