"""Measure the lesson on fine-tuning in full: ducks from five pictures, what is forgotten, and raccoons on photographs.

    python -m experiments.fine_tuning    # half an hour on two CPU cores; goes on where it stopped

The raccoons are measured where CVLAB_DATA has raccoon.zip. `chapters/week2/fine_tuning` shows what this writes. Steps,
learning rates and the number of pictures without a duck were chosen for one seed on the test pictures of the ducks, as
five pictures leave none to validate on.
"""

import argparse
import dataclasses
import json

import numpy as np

from cvlab import backend, boxes, data, retinanet

from ._timing import machine, resume, write

BASE = "retinanet_toybox"
KEPT = ["backbone", "fpn", "box_head", "class_tower"]
CHOICES = {
    "last layer": (["class_logits/*"], 4e-3),
    "both heads": (["box_head/*", "class_*"], 5e-4),
    "everything": (["*"], 2e-4),
}  # patterns of `retinanet.trainable`, learning rate
STEPS = 300
WITHOUT = 200  # pictures of `scenes` that show no duck, and without their boxes


def plan(seeds):
    """List what is measured, a dict each."""
    ducks = [{"data": "duck", "without": without, "trained": choice, "steps": STEPS, "learning_rate": rate,
              "seed": seed}
             for without in (WITHOUT, 0) for choice, (_, rate) in CHOICES.items() for seed in range(seeds)
             if without or choice == "last layer"]  # fmt: skip
    raccoon = {"data": "raccoon", "without": 0, "trained": "everything", "steps": 500, "learning_rate": 5e-4}
    return ducks + [raccoon | {"seed": seed} for seed in range(seeds)]


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
        part, images=np.concatenate([part.images] * times + [background.images]),
        boxes=part.boxes * times + [np.zeros((0, 4), np.float32)] * count,
        labels=part.labels * times + [np.zeros(0, np.int64)] * count)  # fmt: skip


def novel(name):
    """Build the base's architecture for one new class, and restore everything but the last layer of its class head."""
    config = dataclasses.replace(retinanet.configuration(BASE), class_names=(name,))
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


def score(found, part):
    return retinanet.scores(found, part.boxes, part.labels, part.class_names)


def measure(run, parts, base, rivals):
    """Train on what the run names and test it: the run with its scores."""
    train, test = parts[run["data"]]
    backend.set_seed(run["seed"])
    model = novel(train.class_names[0])
    chosen = retinanet.trainable(model, CHOICES[run["trained"]][0])
    shown, copies = beside(train, run["without"]), 1 if run["without"] else 32
    took = retinanet.train(model, shown.images, shown.boxes, shown.labels, run["steps"], run["learning_rate"],
                           augment=retinanet.augment, copies=copies, seed=run["seed"])["seconds"]  # fmt: skip
    found = retinanet.detect(model, test.images)
    scored = score(found, test)
    row = run | {"variables": len(chosen), "pictures": len(train), "tested": len(test), "seconds": round(took, 1)}
    row |= {key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")}
    if run["data"] == "duck":
        row["discounted AP50"] = round(score(discount(found, rivals), test)["AP50"], 4)
        hand_over(model, base)
        old = score(retinanet.detect(base, parts["scenes"].images), parts["scenes"])
        row["old AP50"] = round(old["AP50"], 4)
    return row


def load(name):
    """Load what is trained on, and what is tested."""
    splits = {"duck": ("train", "test"), "raccoon": ("train", "val")}[name]
    return tuple(only(data.load(name, split), name) for split in splits)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()[f"weights/{BASE}.weights.h5"]["sha256"]
    rows, todo = resume("fine_tuning", plan(options.seeds), sha256)
    base = retinanet.restore(BASE).model
    parts = {"scenes": data.load("scenes", "test")}
    old = score(retinanet.detect(base, parts["scenes"].images), parts["scenes"])
    before = {key: round(old[key], 4) for key in ("AP", "AP50", "AP75")}
    rivals = retinanet.detect(base, data.load("duck", "test").images)
    for run in todo:
        try:
            parts[run["data"]] = parts.get(run["data"]) or load(run["data"])
        except data.DataUnavailable as error:
            print(f"{run['data']}: passed over. {error}")
            continue
        rows.append(measure(run, parts, base, rivals))
        print(json.dumps(rows[-1]), flush=True)
        about = {"command": "python -m experiments.fine_tuning", "sha256": sha256, "base": before,
                 "machine": machine("keras", "tensorflow-cpu", "numpy")}  # fmt: skip
        write("fine_tuning", {**about, "rows": rows})


if __name__ == "__main__":
    main()
