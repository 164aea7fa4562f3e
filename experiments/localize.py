"""Measure the lesson on localization in full: the toybox with three heads and five losses, and raccoons on photographs.

    python -m experiments.localize  # 20 minutes on two CPU cores; resumable; writes results/localize.json

The raccoons are the photographs that come with the book. Not a race but a measurement: `chapters/week1/localization`
shows what it writes. The size and the learning rate were chosen on `val`, with the first rows of the plan.
"""

import argparse
import itertools
import json

import numpy as np

from cvlab import backend, classify, data, localize

from ._timing import resume, write_rows

SIDES = {"objects": 96, "raccoon_small": 224}  # pixels of the pictures
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
    raccoon = test | {"data": "raccoon_small", "split": "val", "input_size": 224, "steps": 200, "batch_size": 32}
    return runs + [raccoon | {"seed": seed} for seed in range(seeds)]


def train(run, backbone, part, cached):
    """Train one regressor on cached feature maps: (model, seconds)."""
    backend.set_seed(run["seed"])
    num_classes = len(part.class_names) if len(part.class_names) > 1 else None  # one class needs no class head
    model = localize.regressor(backbone, num_classes, "frozen", run["input_size"], head=run["head"])
    if "train" not in cached:
        cached["train"] = localize.maps(model, part.images)
    result = localize.train(
        model,
        part.images,
        part.boxes,
        part.labels,
        run["loss"],
        run["steps"],
        run["learning_rate"],
        run["batch_size"],
        seed=run["seed"],
        cached=cached["train"],
    )
    return model, result["seconds"]


def test(model, part, cached):
    """Score a regressor on a part of the data."""
    found = localize.predict(model, part.images, cached)
    named = found["class"].argmax(-1) == part.labels if "class" in found else np.ones(len(part))
    return localize.scores(found["box"], part.boxes) | {"class": float(named.mean())}


def measure(run, backbone, parts, cached):
    """Train one regressor and test it: the run with its scores and seconds."""
    model, seconds = train(run, backbone, parts["train"], cached)
    part = parts[run["split"]]
    if run["split"] not in cached:
        cached[run["split"]] = localize.maps(model, part.images)
    counts = {"pictures": len(parts["train"]), "tested": len(part)}
    return run | counts | test(model, part, cached[run["split"]]) | {"seconds": round(seconds, 2)}


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
            write_rows("localize", rows, sha256)


if __name__ == "__main__":
    main()
