"""Measure the lesson on FCN in full: three strides on the toybox over three seeds, longer training, and CamVid.

    python -m bench.segment --data scenes    # an hour on two CPU cores
    python -m bench.segment --data camvid    # as long, once CVLAB_DATA has camvid.zip

Both go on after the last whole round, whose weights stay in `.build/segment`. `chapters/week3/fcn` shows what this
writes. Pictures are tinted, flipped and zoomed; CamVid is learned from crops of four ninths of a picture, and scored
whole, on `val`, and on `test` where camvid.zip has that split. Steps and learning rates were chosen on `val`
of each data set, on which CamVid's score is thus a little flattered; the score on `scenes` is that on `test`.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from cvlab import backend, classify, data, metrics, segment

from ._timing import machine, resume, write

BUILD = Path(__file__).resolve().parents[1] / ".build" / "segment"
CROP = (240, 320)
ROUNDS = {  # steps, learning rate, height and width of what is learned from, pictures a step
    "scenes": ((300, 1e-3, None, 8), (300, 1e-3, None, 8), (300, 5e-4, None, 8)),
    "camvid": ((500, 1e-3, CROP, 8), (700, 8e-4, CROP, 8)),
}


def plan(seeds):
    """List what is measured, a dict each."""
    runs = [("scenes", stride, seed) for seed in range(seeds) for stride in (8, 16, 32)] + [("camvid", 8, 0)]
    return [{"data": name, "stride": stride, "mode": "fine_tune", "rounds": [list(r[:2]) for r in ROUNDS[name]],
             "seed": seed} for name, stride, seed in runs]  # fmt: skip


def build(classes, run):
    backend.set_seed(run["seed"])
    return segment.fcn(classify.efficientnet_lite0(include_top=False), classes, run["stride"], run["mode"])


def rounded(model, part, ignore=None):
    """Score a network on a part of the data."""
    found = segment.predict(model, part.images, 8)
    names = [name for name in part.mask_names if name != "void"]
    scored = metrics.segmentation_scores(part.masks, found, len(names), ignore)
    kept = ("mean IoU", "mean Dice", "frequency-weighted IoU", "pixel accuracy")
    return {key: round(scored[key], 4) for key in kept} | {
        "IoU": {name: round(float(value), 4) for name, value in zip(names, scored["IoU"], strict=True)}
    }


def cropped(image, mask, generator, size):
    """Change a picture as `segment.augment` does, and cut a random window of (height, width) from it."""
    image, mask = segment.augment(image, mask, generator)
    if size is None:
        return image, mask
    top, left = (generator.integers(0, whole - part + 1) for whole, part in zip(mask.shape, size, strict=True))
    window = np.s_[top : top + size[0], left : left + size[1]]
    return image[window], mask[window]


def measure(run):
    """Train in rounds, each with a checkpoint, and score on the test pictures; CamVid's on `val`, and `test` if any."""
    name, split = run["data"], "val" if run["data"] == "camvid" else "test"
    train, held_out = (data.load(name, part) for part in ("train", split))
    void, took = segment.ignored(train), 0.0
    model = build(len(train.mask_names) - (void is not None), run)
    stem = name if name == "camvid" else f"{name}_{run['stride']}"
    BUILD.mkdir(parents=True, exist_ok=True)
    for number, (steps, rate, size, batch) in enumerate(ROUNDS[name]):
        checkpoint = BUILD / f"{stem}_{run['seed']}_{number}.weights.h5"
        if checkpoint.exists():
            model.load_weights(checkpoint)
            took += json.loads(checkpoint.with_suffix(".json").read_text())["seconds"]
            continue
        took += (seconds := segment.train(
            model, train.images, train.masks, steps, rate, batch, seed=100 * run["seed"] + number, ignore=void,
            augment=lambda *one, size=size: cropped(*one, size), progress=True)["seconds"])  # fmt: skip
        print(f"round {number}: {rounded(model, held_out, void)}, {seconds:.0f} s", flush=True)
        checkpoint.with_suffix(".json").write_text(json.dumps({"seconds": seconds}))
        part = checkpoint.with_name(f"part_{checkpoint.name}")
        model.save_weights(part)
        os.replace(part, checkpoint)
    row = run | {"split": split, "pictures": len(train), "tested": len(held_out), "seconds": round(took)}
    row |= rounded(model, held_out, void)
    if name == "camvid":
        try:
            row["test"] = rounded(model, data.load(name, "test"), void)
        except data.DataError as error:
            print(f"camvid's test split: passed over. {error}")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("scenes", "camvid"), help="measure that data set alone")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/scenes.zip"]["sha256"]
    for run in resume("segment", plan(options.seeds), sha256)[1]:
        if options.data not in (None, run["data"]):
            continue
        try:
            row = measure(run)
        except data.DataUnavailable as error:
            print(f"{run['data']}: passed over. {error}")
            continue
        print(json.dumps(row), flush=True)
        rows = resume("segment", plan(options.seeds), sha256)[0]  # another run may have added to them
        write("segment", {"command": "python -m bench.segment", "sha256": sha256,
                          "machine": machine("keras", "tensorflow-cpu", "numpy"), "rows": [*rows, row]})  # fmt: skip


if __name__ == "__main__":
    main()
