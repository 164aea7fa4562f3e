"""Measure which box losses lead a network out of a corner, for the lesson on localization.

    python -m experiments.corner  # two minutes on two CPU cores; resumable; writes results/corner.json

A dense head begins with a small box in the upper left corner and is trained for 50 steps, on the images whose toy that
box does not meet, or on all. `chapters/week1/localization` trains the first seed and shows all.
"""

import json

import numpy as np

from cvlab import backend, boxes, classify, data, localize

from ._timing import machine, resume, write

SIDE, BIAS = 96, -3  # pixels; of the dense layer: a box of 4.6×4.6 pixels, 2.3 pixels from the corner
FIXED = {"input_size": SIDE, "steps": 50, "learning_rate": 2e-3, "batch_size": 32}
PLAN = [
    {"loss": loss, "images": images, "seed": seed} | FIXED
    for loss, images in (("giou", "away"), ("l1", "away"), ("iou", "away"), ("iou", "all"))
    for seed in range(3)
]


def main():
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("corner", PLAN, sha256)
    train, test = (localize.load("objects", split, size=SIDE) for split in ("train", "test"))
    backbone = classify.efficientnet_lite0(include_top=False)
    model = localize.regressor(backbone, len(train.class_names), "frozen", SIDE, head="dense")
    heads, maps, test_maps = model.get_layer("heads"), *(localize.maps(model, p.images) for p in (train, test))
    for run in todo:
        backend.set_seed(run["seed"])
        heads.set_weights(localize.heads([m.shape[1:] for m in maps], len(train.class_names), "dense").get_weights())
        dense = heads.get_layer("dense")
        dense.set_weights([np.zeros(dense.kernel.shape), np.full(4, BIAS)])
        first = localize.predict(model, train.images[:1], [m[:1] for m in maps])["box"]
        meets = boxes.iou(first, train.boxes)[0] > 0
        some = np.flatnonzero(~meets) if run["images"] == "away" else np.arange(len(train))
        part = train.take(some)
        localize.train(model, part.images, part.boxes, part.labels, run["loss"], run["steps"], run["learning_rate"],
                       run["batch_size"], seed=run["seed"], cached=[m[some] for m in maps])  # fmt: skip
        found = localize.predict(model, test.images, test_maps)["box"]
        sides = found[:, 2:] - found[:, :2]
        rows.append(run | {"pictures": len(some), "tested": len(test)} | localize.scores(found, test.boxes)
                    | {"mean side": float(sides.mean()), "longest side": float(sides.max()),
                       "moved": float(abs(found - first).max())})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
        about = {"command": "python -m experiments.corner", "sha256": sha256,
                 "machine": machine("keras", "tensorflow-cpu", "numpy")}  # fmt: skip
        write("corner", {**about, "rows": rows})


if __name__ == "__main__":
    main()
