"""Measure what averaging over mirrored images, and detecting at several scales, are worth to the book's RetinaNet.

    python -m experiments.at_inference    # 15 minutes on two CPU cores; resumable; writes results/at_inference.json

Nothing is trained. Mirrored: the class probabilities and the offsets of an image and of its mirror image are averaged,
anchor by anchor. Scales: the image is resized to several sides, and the detections of all go through one non-maximum
suppression; anchors keep their sides in pixels, as the network has learned them. All combinations are measured on
`val`, and on `test` the detector as it is and the combination with the best AP50 on `val`.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from cvlab import boxes, data, metrics

from ._timing import resume, write_rows

SCALES = ((256,), (320,), (192, 256), (256, 320), (192, 256, 320))
STRIDES, ANCHOR_SIZES, VARIANCES = (8, 16, 32), (32, 64, 128), (0.1, 0.1, 0.2, 0.2)  # as retinanet_toybox's
BATCH, MIN_SCORE, CANDIDATES = 16, 0.05, 1000


def plan(rows):
    """List what is measured, a dict each; the best on `val` is known once its rows are complete."""
    val = [
        {"split": "val", "sides": list(sides), "mirrored": mirrored} for sides in SCALES for mirrored in (False, True)
    ]
    measured = [row for row in rows if row["split"] == "val"]
    if len(measured) < len(val):
        return val
    best = max(measured, key=lambda row: row["AP50"])
    chosen = {"sides": best["sides"], "mirrored": best["mirrored"]}
    return [*val, {"split": "test", "sides": [256], "mirrored": False}, {"split": "test", **chosen}]


def outputs(folder, part, side, mirrored):
    """Compute the network's logits (N, A, K) and offsets (N, A, 4) at a side, or read them from the folder."""
    file = folder / f"{part.split}_{side}_{int(mirrored)}.npz"
    if not file.exists():
        import dataclasses

        from cvlab import retinanet

        book = retinanet.restore("retinanet_toybox").model
        model = retinanet.build(dataclasses.replace(book.config, input_size=side), weights=None)
        model.set_weights(book.get_weights())
        images = part.images[:, :, ::-1] if mirrored else part.images
        parts = []
        for start in range(0, len(images), BATCH):
            batch = images[np.arange(start, start + BATCH) % len(images)]  # the last is filled up: one graph for all
            predicted = model.predict_on_batch(retinanet._batch(model.config, list(batch)))
            parts.append([np.asarray(predicted[key], np.float16) for key in ("class", "box")])
        logits, offsets = (np.concatenate(column)[: len(images)] for column in zip(*parts, strict=True))
        if mirrored:
            logits, offsets = (mirrored_back(array, side) for array in (logits, offsets))
            offsets = offsets * np.float16([-1, 1, 1, 1])
        partial = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, L=logits, O=offsets)
        partial.rename(file)
    stored = np.load(file)
    return stored["L"], stored["O"]


def mirrored_back(array, side):
    """Put the predictions for a mirrored image (N, A, …) where those for the image itself stand."""
    cells = [(side // stride) ** 2 * 9 for stride in STRIDES]
    levels = np.split(array, np.cumsum(cells)[:-1], axis=1)
    grids = [level.reshape(len(array), side // s, side // s, 9, -1)[:, :, ::-1] for level, s in zip(levels, STRIDES)]
    return np.concatenate([grid.reshape(level.shape) for grid, level in zip(grids, levels)], axis=1)


def candidates(one, other, anchors):
    """Give an image's likely boxes, their labels and logits; `other`, from the mirrored image, may be None."""
    logits, offsets = (array.astype(np.float32) for array in one)
    if other is not None:
        probabilities = [1 / (1 + np.exp(-each[0].astype(np.float32))) for each in (one, other)]
        mean = np.clip(np.mean(probabilities, axis=0), 1e-6, 1 - 1e-6)
        logits, offsets = np.log(mean / (1 - mean)), (offsets + other[1].astype(np.float32)) / 2
    flat = logits.ravel()
    likely = np.flatnonzero(flat >= np.log(MIN_SCORE / (1 - MIN_SCORE)))
    likely = likely[np.argsort(-flat[likely])[:CANDIDATES]]
    anchor, labels = np.divmod(likely, logits.shape[1])
    return boxes.decode(offsets[anchor], anchors[anchor], VARIANCES), labels, flat[likely]


def measure(run, folder):
    """Score one combination on one split: the run with its scores."""
    part = data.load("scenes", run["split"])
    size, flips = part.images.shape[1], (False, True) if run["mirrored"] else (False,)
    predicted = {side: [outputs(folder, part, side, flip) for flip in flips] for side in run["sides"]}
    anchors = {side: boxes.anchors(side, STRIDES, ANCHOR_SIZES) for side in run["sides"]}
    detections = []
    for i in range(len(part)):
        found = []
        for side, versions in predicted.items():
            one, other = ([array[i] for array in version] for version in (versions[0], versions[-1]))
            moved, labels, logits = candidates(one, other if run["mirrored"] else None, anchors[side])
            found.append((moved * (size / side), labels, logits))
        moved, labels, logits = (np.concatenate(column) for column in zip(*found, strict=True))
        kept = boxes.nms(moved, logits, 0.5, 100, labels)
        detections.append((moved[kept].clip(0, size), labels[kept], 1 / (1 + np.exp(-logits[kept]))))
    columns = zip(*detections, strict=True)
    scored = metrics.detection_scores(part.boxes, part.labels, *columns, part.class_names, **part.ignored())
    return run | {"images": len(part)} | {key: round(scored[key], 4) for key in ("AP50", "AP75", "AP")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", default=Path(tempfile.gettempdir()) / "cvlab-at-inference", help="folder for outputs"
    )
    parser.add_argument("--limit", type=int, help="measure at most so many now")
    options = parser.parse_args()
    folder, done = Path(options.cache), 0
    folder.mkdir(parents=True, exist_ok=True)
    manifest = data.manifest()
    sha256 = [manifest[name]["sha256"] for name in ("toybox/scenes.zip", "weights/retinanet_toybox.weights.h5")]
    rows, _ = resume("at_inference", plan([]), sha256)
    rows, todo = resume("at_inference", plan(rows), sha256)
    while todo and done != options.limit:
        rows.append(measure(todo[0], folder))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("at_inference", rows, sha256, data="scenes")
        rows, todo = resume("at_inference", plan(rows), sha256)
        done += 1


if __name__ == "__main__":
    main()
