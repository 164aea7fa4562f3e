"""Measure the short trainings of the lesson on localization over three seeds: box heads, and a start in a corner.

    python -m experiments.localize_short  # three minutes on two cores; resumable; writes results/localize_short.json

From the middle, three heads are trained on all images and judged on `val`. From the corner, a dense head begins with a
small box there, and is trained on the images whose toy that box does not meet, or on all. The lesson trains the first
seed and shows all.
"""

import json

import numpy as np

from cvlab import backend, boxes, classify, data, localize

from ._timing import resume, write_rows

SIDE, BIAS = 96, -3  # pixels; of the dense layer: a box of 4.6×4.6 pixels, 2.3 pixels from the corner
FIXED = {"input_size": SIDE, "learning_rate": 2e-3, "batch_size": 32}
PLAN = [
    {"start": "middle", "head": head, "loss": "giou", "images": "all", "split": "val", "seed": seed, "steps": 100}
    | FIXED
    for head in ("dense", "votes", "deep_dense")
    for seed in range(3)
] + [
    {"start": "corner", "head": "dense", "loss": loss, "images": images, "split": "test", "seed": seed, "steps": 50}
    | FIXED
    for loss, images in (
        ("giou", "away"),
        ("l1", "away"),
        ("iou", "away"),
        ("iou", "all"),
        ("diou", "away"),
        ("ciou", "away"),
    )
    for seed in range(3)
]


def main():
    sha256 = data.manifest()["toybox/objects.zip"]["sha256"]
    rows, todo = resume("localize_short", PLAN, sha256)
    parts = {split: localize.load("objects", split, size=SIDE) for split in {"train", *(run["split"] for run in todo)}}
    train, num_classes = parts["train"], len(parts["train"].class_names)
    backbone = classify.efficientnet_lite0(include_top=False)
    models = {head: localize.regressor(backbone, num_classes, "frozen", SIDE, head=head) for head in localize.HEADS}
    cached = {split: localize.maps(models["dense"], part.images) for split, part in parts.items()}
    for run in todo:
        model, maps, test = models[run["head"]], cached["train"], parts[run["split"]]
        heads = model.get_layer("heads")
        backend.set_seed(run["seed"])
        fresh = localize.heads([m.shape[1:] for m in maps], num_classes, run["head"])
        heads.set_weights(fresh.get_weights())
        if run["start"] == "corner":
            dense = heads.get_layer("dense")
            dense.set_weights([np.zeros(dense.kernel.shape), np.full(4, BIAS)])
        first = localize.predict(model, train.images[:1], [m[:1] for m in maps])["box"]
        meets = boxes.iou(first, train.boxes)[0] > 0
        some = np.flatnonzero(~meets) if run["images"] == "away" else np.arange(len(train))
        part = train.take(some)
        localize.train(
            model,
            part.images,
            part.boxes,
            part.labels,
            run["loss"],
            run["steps"],
            run["learning_rate"],
            run["batch_size"],
            seed=run["seed"],
            cached=[m[some] for m in maps],
        )
        answers = localize.predict(model, test.images, cached[run["split"]])
        found, named = answers["box"], answers["class"].argmax(-1) == test.labels
        sides = found[:, 2:] - found[:, :2]
        rows.append(
            run
            | {"pictures": len(some), "tested": len(test), "class": float(named.mean())}
            | localize.scores(found, test.boxes)
            | {
                "mean side": float(sides.mean()),
                "longest side": float(sides.max()),
                "moved": float(abs(found - first).max()),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        write_rows("localize_short", rows, sha256)


if __name__ == "__main__":
    main()
