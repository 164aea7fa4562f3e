"""Measure the lesson on fine-tuning in full: ducks from five images, what is forgotten, and raccoons in photographs.

    python -m experiments.fine_tuning    # an hour on two CPU cores; goes on where it stopped

The raccoons are measured on the photographs that come with the book (`raccoon_small`), and where CVLAB_DATA has
raccoon.zip on the originals, too. `chapters/week2/fine_tuning` shows what this writes. Steps, learning rates and the
number of images without a duck were chosen for one seed on the test images of the ducks, as five images leave none to
validate on. What is detected in the book's own photographs is kept, too, in results/fine_tuning_detections.json.

Two controls: the same training from a detector that has never seen a toy ("ImageNet": its backbone starts from
ImageNet's weights, all else at random), and what the old classes score once their last layer has been trained again on
what lies below it ("refitted"): what is then still missing was lost, and not only moved.
"""

import argparse
import dataclasses
import json

import numpy as np

from cvlab import backend, boxes, data, retinanet

from ._timing import RESULTS, machine, resume, write

COMMAND = "python -m experiments.fine_tuning"
BASE = "retinanet_toybox"
KEPT = ["backbone", "fpn", "box_head", "class_tower"]
CHOICES = {
    "last layer": (["class_logits/*"], 4e-3),
    "both heads": (["box_head/*", "class_*"], 5e-4),
    "everything": (["*"], 2e-4),
}  # patterns of `retinanet.trainable`, learning rate
STEPS = 300
REFIT_STEPS, REFIT_IMAGES = 300, 300  # of `scenes` (train), for the old last layer alone
PHOTOGRAPHS = ("raccoon", "raccoon_small")  # the originals, and reduced as they come with the book
DETECTIONS = "fine_tuning_detections"  # the results that keep what was detected in the latter
WITHOUT = 200  # pictures of `scenes` that show no duck, and without their boxes


def plan(seeds):
    """List what is measured, a dict each."""
    runs = [("toys", choice, WITHOUT) for choice in CHOICES]
    runs += [("toys", "last layer", 0), ("ImageNet", "everything", WITHOUT)]
    ducks = [
        {
            "data": "duck",
            "start": start,
            "without": without,
            "trained": choice,
            "steps": STEPS,
            "learning_rate": CHOICES[choice][1],
            "seed": seed,
        }
        for start, choice, without in runs
        for seed in range(seeds)
    ]
    for run in ducks:
        if run["start"] == "toys":  # the old classes have a last layer to train again
            run["refit_steps"] = REFIT_STEPS
    raccoon = {"without": 0, "trained": "everything", "steps": 500, "learning_rate": 5e-4}
    raccoons = [
        raccoon | {"data": name, "start": start, "seed": seed}
        for name in PHOTOGRAPHS
        for seed in range(seeds)
        for start in ("toys", "ImageNet")
    ]
    return ducks + raccoons


def only(part, name):
    """Keep the boxes of one class, and number it 0: what a detector of that class alone is to find."""
    label = part.class_names.index(name)
    found = [(own[labels == label], labels[labels == label] * 0) for own, labels in zip(part.boxes, part.labels)]
    own, labels = map(list, zip(*found))
    return dataclasses.replace(part, boxes=own, labels=labels, class_names=(name,))


def beside(part, count):
    """Put pictures that don't show the class, without any boxes, beside as many copies of those that do."""
    if not count:
        return part
    background, times = data.load("scenes", "train", limit=count), count // len(part)
    return dataclasses.replace(
        part,
        images=np.concatenate([part.images] * times + [background.images]),
        boxes=part.boxes * times + [np.zeros((0, 4), np.float32)] * count,
        labels=part.labels * times + [np.zeros(0, np.int64)] * count,
    )


def novel(name, start):
    """Build the base's architecture for one new class, with the weights to start from.

    Args: start: "toys", everything but the last layer of the class head; "ImageNet", the backbone of a classifier.
    """
    config = dataclasses.replace(retinanet.configuration(BASE), class_names=(name,))
    if start == "ImageNet":
        return retinanet.build(config)
    return retinanet.restore(BASE, KEPT, retinanet.build(config, weights=None)).model


def hand_over(model, other):
    """Give another model all weights but those of the class head's last layer."""
    named = retinanet.weights(other)
    for name, variable in retinanet.weights(model).items():
        if not name.startswith("class_logits/"):
            named[name].assign(variable)


def discount(found, rivals):
    """Lower the score of what another detector takes for something else, to score × (1 − its score), where boxes meet.

    Args: found, rivals: as from `retinanet.detect`, on the same pictures. Boxes meet from an IoU of 0.5.
    """
    lowered = []
    for mine, other in zip(found, rivals, strict=True):
        meets = boxes.iou(mine["boxes"], other["boxes"]) >= 0.5
        rival = (meets * other["scores"]).max(axis=1, initial=0)
        lowered.append(mine | {"scores": mine["scores"] * (1 - rival)})
    return lowered


def refit(base, part, seed):
    """Train the old classes' last layer again, from its old weights, on what now lies below it."""
    patterns, rate = CHOICES["last layer"]
    retinanet.trainable(base, patterns)
    retinanet.train(base, part.images, part.boxes, part.labels, REFIT_STEPS, rate, seed=seed)


def ap50(model, part):
    return round(score(retinanet.detect(model, part.images), part)["AP50"], 4)


def score(found, part):
    return retinanet.scores(found, part.boxes, part.labels, part.class_names)


def kept(run, found):
    """Keep what was detected in the book's photographs, [x_min, y_min, x_max, y_max, score] each, and give it back.

    Pixels are rounded to tenths and scores to four digits, before they are scored.
    """
    path = RESULTS / f"{DETECTIONS}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rounded = [one | {"boxes": one["boxes"].round(1), "scores": one["scores"].round(4)} for one in found]
    row = {key: run[key] for key in ("data", "start", "seed")}
    rows = [other for other in rows if not row.items() <= other.items()]
    images = [np.column_stack([one["boxes"], one["scores"]]).astype(float).round(4).tolist() for one in rounded]
    write(DETECTIONS, {"command": COMMAND, "split": "val", "rows": [*rows, row | {"images": images}]}, indent=None)
    return rounded


def measure(run, parts, base, rivals):
    """Train on what the run names and test it: the run with its scores."""
    train, test = parts[run["data"]]
    backend.set_seed(run["seed"])
    model = novel(train.class_names[0], run["start"])
    chosen = retinanet.trainable(model, CHOICES[run["trained"]][0])
    shown, copies = beside(train, run["without"]), 1 if run["without"] else 32
    took = retinanet.train(
        model,
        shown.images,
        shown.boxes,
        shown.labels,
        run["steps"],
        run["learning_rate"],
        augment=retinanet.augment,
        copies=copies,
        seed=run["seed"],
    )["seconds"]
    found = retinanet.detect(model, test.images)
    if run["data"] == "raccoon_small":
        found = kept(run, found)
    scored = score(found, test)
    row = run | {"variables": len(chosen), "pictures": len(train), "tested": len(test), "seconds": round(took, 1)}
    row |= {key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")}
    if run["data"] == "duck" and run["start"] == "toys":
        row["discounted AP50"] = round(score(discount(found, rivals), test)["AP50"], 4)
        retinanet.restore(BASE, model=base)
        hand_over(model, base)
        seen, tested = parts["scenes"]
        row["old AP50"] = ap50(base, tested)
        refit(base, seen, run["seed"])
        row["refitted old AP50"] = ap50(base, tested)
    return row


def load(name):
    """Load what is trained on, and what is tested."""
    split, class_name = ("test", "duck") if name == "duck" else ("val", "raccoon")
    return tuple(only(data.load(name, each), class_name) for each in ("train", split))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, help="stop after so many trainings")
    options = parser.parse_args()
    sha256 = data.manifest()[f"weights/{BASE}.weights.h5"]["sha256"]
    rows, todo = resume("fine_tuning", plan(options.seeds), sha256)
    base = retinanet.restore(BASE).model
    parts = {"scenes": (data.load("scenes", "train", limit=REFIT_IMAGES), data.load("scenes", "test"))}
    old = score(retinanet.detect(base, parts["scenes"][1].images), parts["scenes"][1])
    before = {key: round(old[key], 4) for key in ("AP", "AP50", "AP75")}
    rivals = retinanet.detect(base, data.load("duck", "test").images)
    for run in todo[: options.most]:
        try:
            parts[run["data"]] = parts.get(run["data"]) or load(run["data"])
        except data.DataUnavailable as error:
            print(f"{run['data']}: passed over. {error}")
            continue
        rows.append(measure(run, parts, base, rivals))
        print(json.dumps(rows[-1]), flush=True)
        about = {
            "command": COMMAND,
            "sha256": sha256,
            "base": before,
            "machine": machine("keras", "tensorflow-cpu", "numpy"),
        }
        write("fine_tuning", {**about, "rows": rows})


if __name__ == "__main__":
    main()
