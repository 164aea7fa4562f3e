"""Train the RetinaNet of `data/weights` on the nine base classes of the toybox's `scenes`, which show no duck.

    python -m experiments.weights.retinanet_toybox    # trains, or goes on after the last whole round, then exports
    python -m experiments.weights.retinanet_toybox --help

EfficientNet-Lite0's ImageNet weights at the start. In the first round the backbone rests, so that heads that know
nothing yet don't spoil it; then everything learns but batch normalization, in rounds of Adam whose learning rate falls
from the round's own to zero. The last rounds see larger pictures, with toys of `objects` pasted into them (Ghiasi et
al., Simple copy-paste is a strong data augmentation method, CVPR 2021): 900 scenes alone were learned by heart, AP50
0.96 on the first 150 of them and 0.83 on `val`. There are 60 shapes a class to learn from, and others in `test`, where
a cat then passes for a dog: so the last round sees a thousand scenes more, of 400 other shapes a class, which are
rendered but not in the archive (`python render/render.py --part scenes --split more`, half an hour on two cores).
Each round ends with a checkpoint and its AP on `val`.
"""

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from cvlab import backend, data, retinanet

from ._export import enter

NAME = "retinanet_toybox"
BUILD = Path(__file__).resolve().parents[2] / ".build" / NAME
STRONG, MILD = {"swap": 0.0}, {"swap": 0.0, "zoom": (0.85, 1.2), "shift": 0.08, "colour": 0.1}
ROUNDS = (  # side of the picture, steps of 8 pictures, learning rate, changes of the pictures, at most so many pasted
    (192, 300, 1e-3, STRONG, 0),
    (192, 2000, 6e-4, STRONG, 0),
    (192, 2000, 5e-4, STRONG, 0),
    (192, 2000, 4e-4, MILD, 0),
    (256, 1000, 5e-4, MILD, 4),
    (256, 1000, 5e-4, MILD, 4),
    (256, 1500, 4e-4, MILD, 4),
    (256, 2500, 6e-4, MILD | {"colour": 0.3, "swap": 0.5}, 5),
    (256, 2400, 6e-4, MILD | {"colour": 0.2, "swap": 0.25}, 4),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, val, test = (data.load("scenes", split) for split in ("train", "val", "test"))
    toys = data.load("objects", "train")
    scenes = [(np.concatenate([train.images, train.instances[..., None]], axis=-1), train.boxes, train.labels)]
    BUILD.mkdir(parents=True, exist_ok=True)
    backend.set_seed(options.seed)
    model, restored = None, None
    for number, (side, steps, learning_rate, changes, pasted) in enumerate(ROUNDS):
        checkpoint = BUILD / f"round_{number}.weights.h5"
        if model is None or side != model.config.input_size:
            former, model = model, retinanet.build(configure(train.class_names, side))
            if former is not None:
                model.set_weights(former.get_weights())
        if checkpoint.exists():
            restored = checkpoint
            continue
        if restored:
            retinanet.restore(restored, model=model)
            restored = None
        began = time.perf_counter()
        if number == len(ROUNDS) - 1:
            scenes.append(more())
        marked, own, labels = ([one for part in scenes for one in part[i]] for i in range(3))
        retinanet.trainable(model, "*" if number else ["fpn/*", "box_head/*", "class_*"])
        losses = retinanet.train(
            model,
            np.stack(marked),
            own,
            labels,
            steps,
            learning_rate,
            augment=functools.partial(change, toys=toys, pasted=pasted, **changes),
            progress=sys.stderr.isatty(),
            seed=1000 * options.seed + number,
        )["loss"]
        scored = score(model, val)
        retinanet.save(model, checkpoint)
        print(
            f"round {number}: loss {sum(losses[-50:]) / 50:.3f}, val {scored}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    if restored:
        retinanet.restore(restored, model=model)
    target = data.EMBEDDED / "weights" / f"{NAME}.weights.h5"
    retinanet.save(model, target)
    model.config.save(target.with_name(f"{NAME}.yml"))
    for file in (target, target.with_name(f"{NAME}.yml")):
        enter(file, "Apache-2.0")
    print(f"test {score(model, test)}")


def more():
    """Give the scenes of `more`: pictures with the numbers of their toys (N, H, W, 4), boxes and labels."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "render"))
    import pack

    import render

    numbers, wanted = pack.rendered("scenes", "more"), render.pictures_in("scenes", "more")
    if len(numbers) < wanted:
        raise SystemExit(
            f"retinanet_toybox: of {wanted} scenes of `more`, {len(numbers)} are there; render them: "
            "python render/render.py --part scenes --split more"
        )
    marked, own, labels = [], [], []
    for i in numbers:
        shown = pack.load("scenes", "more", i)
        found = sorted(pack.annotations(shown, i, 0), key=lambda one: one["instance"])
        marked.append(np.concatenate([shown["image"], shown["instances"][..., None]], axis=-1))
        own.append(np.float32([one["bbox"] for one in found]))
        own[-1][:, 2:] += own[-1][:, :2]
        labels.append(np.int32([one["category_id"] for one in found]))
    return marked, own, labels


def configure(class_names, side):
    """Give the configuration for pictures of this side; anchors grow with it, so that weights of one serve another."""
    return retinanet.RetinaNetConfig(class_names, input_size=side, anchor_sizes=(side // 8, side // 4, side // 2))


def change(marked, own, labels, generator, toys, pasted, swap, **changes):
    """Paste up to `pasted` toys into a scene (H, W, 4), whose last channel numbers its toys from 1; then augment it.

    With the probability `swap`, its red, green and blue change places: toys of all colours are of every class.
    """
    image, instances = marked[..., :3].copy(), marked[..., 3].copy()
    own, labels, sizes = list(own), list(labels), np.bincount(instances.ravel(), minlength=len(own) + 1)[1:].tolist()
    height, width = instances.shape
    for _ in range(generator.integers(0, pasted + 1)):
        pick = generator.integers(len(toys))
        x_min, y_min, x_max, y_max = toys.boxes[pick].round().astype(int)
        toy, mask = toys.images[pick, y_min:y_max, x_min:x_max], toys.masks[pick, y_min:y_max, x_min:x_max]
        scale = np.exp(generator.uniform(np.log(18), np.log(90))) / max(mask.shape)
        w, h = (max(4, round(side * scale)) for side in mask.shape[::-1])
        cover = cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)[..., None]
        toy = cv2.resize(toy, (w, h), interpolation=cv2.INTER_AREA)
        if generator.random() < 0.5:
            cover, toy = cover[:, ::-1], toy[:, ::-1]
        left, top = generator.integers(0, (width - w + 1, height - h + 1))
        there = np.s_[top : top + h, left : left + w]
        image[there] = (image[there] * (1 - cover) + toy * cover).astype(np.uint8)
        instances[there] = np.where(cover[..., 0] > 0.5, len(own) + 1, instances[there])
        own.append([left, top, left + w, top + h])
        labels.append(toys.labels[pick])
        sizes.append(np.sum(cover > 0.5))
    seen = []
    for number, (box, size) in enumerate(zip(own, sizes, strict=True), 1):
        rows, columns = np.nonzero(instances == number)
        if len(rows) == size:  # nothing came before it
            seen.append(box)
        elif len(rows) >= 0.35 * size:
            seen.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        else:
            seen.append(None)
    kept = [i for i, box in enumerate(seen) if box is not None]
    own, labels = np.float32([seen[i] for i in kept]).reshape(-1, 4), np.asarray(labels)[kept]
    if generator.random() < swap:
        image = image[..., generator.permutation(3)]
    return retinanet.augment(image, own, labels, generator, **changes)


def score(model, part):
    """Give AP, AP50 and AP75 on a split, as text."""
    found = retinanet.detect(model, part.images)
    scored = retinanet.scores(found, part.boxes, part.labels, part.class_names)
    return json.dumps({key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")})


if __name__ == "__main__":
    main()
