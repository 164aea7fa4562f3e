"""Measure the lesson on localization in full: the toybox with three heads and five losses, and raccoons on photographs.

    python -m experiments.localize  # 20 minutes on two CPU cores; resumable; writes results/localize.json

The raccoons are measured where CVLAB_DATA has raccoon.zip. Not a race but a measurement: `chapters/week1/localization`
shows what it writes. The size and the learning rate were chosen on `val`, with the first rows of the plan.
"""

import argparse
import itertools
import json

from cvlab import backend, classify, data, localize

from ._timing import machine, resume, write

SIDES = {"objects": 96, "raccoon": 224}  # pixels of the pictures
FULL = {"input_size": 160, "learning_rate": 2e-3, "steps": 400, "batch_size": 64}


def plan(seeds):
    """List what is measured, with what shares a data set and a size side by side, a dict each."""
    giou = {"data": "objects", "split": "val", "head": "votes", "loss": "giou", "seed": 0}
    choices = [FULL | {"input_size": size} for size in (96, 128)]
    choices += [FULL | {"learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]
    runs = [giou | choice for choice in choices]
    kinds = [("votes", "giou"), ("votes", "iou"), ("votes", "l1"), ("dense", "giou")]
    kinds += [("votes", "diou"), ("deep_dense", "giou"), ("votes", "ciou")]
    test = giou | FULL | {"split": "test"}
    runs += [test | {"head": head, "loss": loss, "seed": seed} for head, loss in kinds for seed in range(seeds)]
    raccoon = test | {"data": "raccoon", "split": "val", "input_size": 224, "steps": 200, "batch_size": 32}
    return runs + [raccoon | {"seed": seed} for seed in range(seeds)]


def measure(run, backbone, parts, cached):
    """Train one regressor on cached feature maps and test it: the run with its scores and seconds."""
    train, test = parts["train"], parts[run["split"]]
    backend.set_seed(run["seed"])
    model = localize.regressor(backbone, len(train.class_names), "frozen", run["input_size"], head=run["head"])
    for split in ("train", run["split"]):
        if split not in cached:
            cached[split] = localize.maps(model, parts[split].images)
    took = localize.train(
        model,
        train.images,
        train.boxes,
        train.labels,
        run["loss"],
        run["steps"],
        run["learning_rate"],
        run["batch_size"],
        seed=run["seed"],
        cached=cached["train"],
    )["seconds"]
    found = localize.predict(model, test.images, cached[run["split"]])
    named = float((found["class"].argmax(-1) == test.labels).mean())
    scored = localize.scores(found["box"], test.boxes) | {"class": named}
    return run | {"pictures": len(train), "tested": len(test)} | scored | {"seconds": round(took, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("localize", plan(options.seeds), sha256)
    backbone = classify.efficientnet_lite0(include_top=False)
    for (name, _), group in itertools.groupby(todo, lambda run: (run["data"], run["input_size"])):
        runs, cached = list(group), {}
        try:
            splits = {"train", *(run["split"] for run in runs)}
            parts = {split: localize.load(name, split, size=SIDES[name]) for split in splits}
        except data.DataUnavailable as error:
            print(f"{name}: passed over. {error}")
            continue
        for run in runs:
            rows.append(measure(run, backbone, parts, cached))
            print(json.dumps(rows[-1]), flush=True)
            about = {
                "command": "python -m experiments.localize",
                "sha256": sha256,
                "machine": machine("keras", "tensorflow-cpu", "numpy"),
            }
            write("localize", {**about, "rows": rows})


if __name__ == "__main__":
    main()
