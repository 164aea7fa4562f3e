"""Measure the lesson on FCN in full: FCN-8s trained for longer on the toybox, and on CamVid.

    python -m experiments.segment --data scenes    # an hour a seed on two CPU cores
    python -m experiments.segment --data camvid    # as long, once CVLAB_DATA has camvid.zip

Both go on after the last whole round, whose weights stay in `.build/segment`. `chapters/week3/fcn` shows what this
writes. Pictures are tinted, flipped and zoomed. `scenes` is learned from pictures enlarged to 224×224, by the encoder
of the second week's detector, which knows the toys; scores are brought back to the label maps' own 160×160, and those
of a picture and of its mirror image averaged ("alone" is without the mirror). CamVid is learned by ImageNet's encoder
from crops of four ninths of a picture, and scored whole, on `val`, and on `test` where camvid.zip has that split. Steps
and learning rates were chosen on `val` of each data set, on which CamVid's score is thus a little flattered; the score
on `scenes` is that on `test`.
"""

import argparse
import json
import os
from pathlib import Path

import cv2
import keras
import numpy as np

from cvlab import backend, classify, data, metrics, retinanet, segment

from ._timing import machine, resume, write

BUILD = Path(__file__).resolve().parents[1] / ".build" / "segment"
CROP, BATCH = (240, 320), 8  # height and width of CamVid's windows; pictures a step
SIDES = {"scenes": 224}  # to which pictures are enlarged
ROUNDS = {  # steps and learning rate
    "scenes": ((250, 1e-3), (250, 6e-4), (250, 3e-4), (400, 8e-4), (600, 5e-4), (500, 2e-4)),
    "camvid": ((500, 1e-3), (700, 8e-4)),
}


def plan(seeds):
    """List what is measured, a dict each."""
    runs = [("camvid", 0), *(("scenes", seed) for seed in range(seeds))]
    return [
        {"data": name, "stride": 8, "mode": "fine_tune", "rounds": [list(r) for r in ROUNDS[name]], "seed": seed}
        | ({"mirrored": True} if name == "scenes" else {})
        for name, seed in runs
    ]


def build(classes, run):
    """Build what a run names on its encoder: the detector's on `scenes`, on CamVid ImageNet's."""
    backend.set_seed(run["seed"])
    encoder = classify.efficientnet_lite0(include_top=False)
    if run["data"] == "scenes":
        pyramid = retinanet.restore("retinanet_toybox").model.get_layer("backbone")
        encoder = keras.Model(pyramid.input, pyramid.outputs[-1], name="lite0_toys")
    return segment.fcn(encoder, classes, run["stride"], run["mode"])


def resized(pictures, side, how=cv2.INTER_NEAREST):
    """Resize pictures or label maps to side × side; None leaves them."""
    return pictures if side is None else np.stack([cv2.resize(x, (side, side), interpolation=how) for x in pictures])


def answers(model, part, mirrored):
    """Give a network's label maps (N, H, W) for a part of the data, in the size of the true ones."""
    side = SIDES.get(part.name)
    if side is None:
        return segment.predict(model, part.images, BATCH)
    images, found = resized(part.images, side, cv2.INTER_CUBIC), []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].astype(np.float32)
        scores = keras.ops.softmax(model(batch))
        if mirrored:
            scores += keras.ops.flip(keras.ops.softmax(model(batch[:, :, ::-1])), axis=2)
        scores = resized(keras.ops.convert_to_numpy(scores), part.masks.shape[1], cv2.INTER_LINEAR)
        found.append(scores.argmax(-1))
    return np.concatenate(found)


def rounded(model, part, ignore=None, mirrored=False):
    """Score a network on a part of the data."""
    found = answers(model, part, mirrored)
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
    side, crop = SIDES.get(name), CROP if name == "camvid" else None
    images, masks = resized(train.images, side, cv2.INTER_CUBIC), resized(train.masks, side)
    BUILD.mkdir(parents=True, exist_ok=True)
    for number, (steps, rate) in enumerate(ROUNDS[name]):
        checkpoint = BUILD / f"{name}_{run['seed']}_{number}.weights.h5"
        if checkpoint.exists():
            model.load_weights(checkpoint)
            took += json.loads(checkpoint.with_suffix(".json").read_text())["seconds"]
            continue
        took += (
            seconds := segment.train(
                model,
                images,
                masks,
                steps,
                rate,
                BATCH,
                seed=100 * run["seed"] + number,
                ignore=void,
                augment=lambda *one: cropped(*one, crop),
                progress=True,
            )["seconds"]
        )
        print(f"round {number}: {rounded(model, held_out, void)}, {seconds:.0f} s", flush=True)
        checkpoint.with_suffix(".json").write_text(json.dumps({"seconds": seconds}))
        part = checkpoint.with_name(f"part_{checkpoint.name}")
        model.save_weights(part)
        os.replace(part, checkpoint)
    row = run | {"split": split, "pictures": len(train), "tested": len(held_out), "seconds": round(took)}
    row |= rounded(model, held_out, void, mirrored=run.get("mirrored", False))
    if "mirrored" in run:
        row["alone"] = rounded(model, held_out, void)["mean IoU"]
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
        write(
            "segment",
            {
                "command": "python -m experiments.segment",
                "sha256": sha256,
                "machine": machine("keras", "tensorflow-cpu", "numpy"),
                "rows": [*rows, row],
            },
        )


if __name__ == "__main__":
    main()
