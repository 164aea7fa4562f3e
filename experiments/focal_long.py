"""Measure what the focal loss, the prior and the pyramid are worth to the lesson's detector, trained for longer.

    CVLAB_DATA=… python -m experiments.focal_long    # an hour on two CPU cores; resumable
    python -m experiments.focal_long --twice         # and runs of twice the length, which show how far it has converged
    python -m experiments.focal_long --minutes 7     # a part of it; the next call continues

It writes results/focal_long.json, which `chapters/week2/retinanet` shows.

The lesson's detector: a frozen backbone with ImageNet weights, whose feature maps are computed once, and above it a
pyramid and two heads. Each kind of detector has a learning rate of its own, the best on validation images at half
length: the grid grows by factors of two until its best value is not at an edge. At full length, each is then trained
from three seeds and tested; a run of twice the length shows how far training has converged.

Four datasets differ in their imbalance, the number of background anchors for each matched anchor, and in how easy the
background is. `scenes` has 1–6 toys of nine classes in an image. `few` and `search` are made here, from a seed: toys
are cut out of `objects` by their exact masks, and pasted, small, onto floors and walls cut out of `scenes`. In `few`
there is one toy in an image, and all toys are of one class, so that the scores measure detection alone. In `search`
there are sixteen, but only one of them, a car, counts; the others are background that resembles it. `raccoon` has
photographs (measured where CVLAB_DATA has raccoon.zip).
"""

import argparse
import functools
import json
import time

import cv2
import keras
import numpy as np
from keras import layers, ops

from cvlab import backend, boxes, classify, data, retinanet

from ._timing import RESULTS, machine, write

LOSSES = {  # gamma, alpha, and the weight of the class loss beside the box loss
    "focal": (2.0, 0.25, 1.0),
    "cross-entropy": (0.0, 0.5, 1.0),
    "focal x4": (2.0, 0.25, 4.0),  # a control: does the focal loss lag because it is so small beside the box loss?
}
KINDS = [  # loss, prior, levels
    ("focal", 0.01, "three"),
    ("cross-entropy", 0.01, "three"),
    ("focal", 0.01, "one"),
    ("cross-entropy", 0.5, "three"),
    ("focal x4", 0.01, "three"),
]
DATASETS = {  # how many of KINDS; side of the images in pixels; basic anchors; steps
    "scenes": {"kinds": 5, "input_size": 160, "anchor_sizes": (20, 40, 80), "steps": 1200},
    "few": {"kinds": 2, "input_size": 256, "anchor_sizes": (16, 32, 64), "steps": 400},
    "raccoon": {"kinds": 2, "input_size": 160, "anchor_sizes": (32, 64, 128), "steps": 300},
    "search": {"kinds": 2, "input_size": 256, "anchor_sizes": (16, 32, 64), "steps": 400},
}
FIRST_RATE, BATCH_SIZE = 1e-3, 8
PASTED = {"few": (1, None), "search": (16, "car")}  # toys in an image, and the class of the one that counts; None: any
COUNTS = {"train": 500, "val": 100, "test": 200}  # images made
TOY_SIZES = (16, 48)  # longest side of a pasted toy in pixels, drawn evenly on a logarithmic scale


# ----------------------------------------------------------------------------------------------------------------------
# Data


@functools.cache
def split(name, part):
    """Load "train", "val" or "test" of a dataset as (images (N, S, S, 3) uint8, boxes, labels, class_names)."""
    side = DATASETS[name]["input_size"]
    if name in PASTED:
        return paste(part, *PASTED[name], side)
    if name == "raccoon":  # it has no test images: a fifth of `train` serves for choices, and `val` is the test
        loaded = data.load("raccoon", "val" if part == "test" else "train", size=side)
        if part != "test":
            loaded = loaded.take([i for i in range(len(loaded)) if (i % 5 == 0) == (part == "val")])
    else:
        loaded = data.load(name, part, size=side)
    return loaded.images, loaded.boxes, loaded.labels, loaded.class_names


def paste(part, number, wanted, side, seed=0):
    """Make images with `number` small toys each, which hide at most a fifth of each other's boxes.

    With `wanted`, a class, exactly one toy in each image is of it, and it alone has a box.
    """
    toys, scenes = data.load("objects", part), data.load("scenes", part)
    generator = np.random.default_rng([seed, number, len(part)])
    is_wanted = toys.labels == toys.class_names.index(wanted) if wanted else np.ones(len(toys), bool)
    images, true_boxes = [], []
    for _ in range(COUNTS[part]):
        image, placed = background(scenes, side, generator), np.empty((0, 4), np.float32)
        while len(placed) < number:
            candidates = np.flatnonzero(is_wanted if len(placed) == 0 else ~is_wanted)
            toy, cover = cut_out(toys, generator.choice(candidates), generator)
            height, width = cover.shape[:2]
            left, top = generator.integers(0, (side - width + 1, side - height + 1))
            box = np.float32([[left, top, left + width, top + height]])
            if len(placed) and (overlap(box, placed) > 0.2).any():
                continue
            window = image[top : top + height, left : left + width]
            window[:] = np.rint(window * (1 - cover) + toy * cover)
            placed = np.concatenate([placed, box])
        images.append(image)
        true_boxes.append(placed[:1])
    return np.stack(images), true_boxes, [np.zeros(1, np.int64)] * len(images), (wanted or "toy",)


def overlap(box, others):
    """Intersection of a box (1, 4) with each of the others (N, 4), relative to the smaller of the two areas: (N,)."""
    sides = np.minimum(box[:, 2:], others[:, 2:]) - np.maximum(box[:, :2], others[:, :2])
    return sides.clip(0).prod(1) / np.minimum(boxes.area(box), boxes.area(others))


def background(scenes, side, generator):
    """Cut a square without toys out of a scene, at least 48 pixels wide, and resize it to `side`."""
    while True:
        k = generator.integers(len(scenes))
        size = int(generator.integers(48, 97))
        top, left = generator.integers(0, 160 - size + 1, 2)
        window = np.s_[top : top + size, left : left + size]
        if not scenes.instances[k][window].any():
            return cv2.resize(scenes.images[k][window], (side, side), interpolation=cv2.INTER_CUBIC)


def cut_out(toys, k, generator):
    """Cut out a toy, small: pixels (h, w, 3) float32, 0–255, and how much of each it covers (h, w, 1), 0–1."""
    x_min, y_min, x_max, y_max = toys.boxes[k].round().astype(int)
    window = np.s_[y_min:y_max, x_min:x_max]
    toy, mask = toys.images[k][window].astype(np.float32), toys.masks[k][window].astype(np.float32)
    scale = np.exp(generator.uniform(*np.log(TOY_SIZES))) / max(mask.shape)
    size = [max(4, round(length * scale)) for length in mask.shape[::-1]]
    cover = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    toy = cv2.resize(toy * mask[..., None], size, interpolation=cv2.INTER_AREA) / cover.clip(1e-3)[..., None]
    if generator.random() < 0.5:
        toy, cover = toy[:, ::-1], cover[:, ::-1]
    return toy, cover[..., None]


@functools.cache
def prepared(name, part):
    """Compute the backbone's maps and the targets of a split once; for "train", of the flipped images as well."""
    images, true_boxes, labels, class_names = split(name, part)
    config = configure(name, class_names)
    side = config.input_size
    if part == "train":
        images = np.concatenate([images, images[:, :, ::-1]])
        flipped = [np.stack([side - b[:, 2], b[:, 1], side - b[:, 0], b[:, 3]], axis=1) for b in true_boxes]
        true_boxes, labels = [*true_boxes, *flipped], [*labels, *labels]
    maps = body().predict(images, batch_size=16, verbose=0)
    return maps, retinanet.targets(config, true_boxes, labels, [(side, side)] * len(images))


@functools.cache
def body():
    """The frozen backbone: a Keras model from pixels to its maps of stride 8, 16 and 32."""
    return classify.copy_body(classify.efficientnet_lite0(include_top=False), "frozen", (8, 16, 32))


def describe(name):
    """Count the images, objects and anchors of a dataset, and the imbalance."""
    images, true_boxes, _, class_names = split(name, "train")
    learns = prepared(name, "train")[1]["class"][: len(images), :, 0]
    matched, objects = int((learns >= 0).sum()), sum(map(len, true_boxes))
    sides = np.sqrt(boxes.area(np.concatenate(true_boxes)))
    return {
        "images": [len(split(name, part)[0]) for part in ("train", "val", "test")],
        "input_size": DATASETS[name]["input_size"],
        "classes": len(class_names),
        "anchors": learns.shape[1],
        "objects per image": round(objects / len(images), 2),
        "median side": round(float(np.median(sides)), 1),
        "matched per object": round(matched / objects, 1),
        "background per matched": round(float((learns == retinanet.BACKGROUND).sum()) / matched),
    }


# ----------------------------------------------------------------------------------------------------------------------
# The detector


def configure(name, class_names, prior=0.01):
    """Give the configuration of a dataset's detector."""
    options = {key: DATASETS[name][key] for key in ("input_size", "anchor_sizes")}
    return retinanet.RetinaNetConfig(tuple(class_names), channels=64, depth=1, prior=prior, **options)


def network(config, shapes, levels, dtype="float32"):
    """Build what stands above the backbone, from its maps of these (h, w, C) shapes to the outputs for all anchors.

    With dtype="mixed_bfloat16" the convolutions run in bfloat16, several times as fast on processors with AMX; the
    weights stay float32.
    """
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        maps = [keras.Input(shape, dtype="float32") for shape in shapes]
        features = pyramid(maps, config.channels) if levels == "three" else one_level(maps[1], config.channels)
        num_classes = len(config.class_names)
        class_head = head(config.channels, num_classes, bias=-np.log((1 - config.prior) / config.prior))
        box_head = head(config.channels, 4)
        outputs = {"class": layers.Concatenate(axis=1, name="class")([class_head(each) for each in features])}
        outputs["box"] = layers.Concatenate(axis=1, name="box")([box_head(each) for each in features])
        return keras.Model(maps, outputs)
    finally:
        keras.config.set_dtype_policy(former)


def pyramid(maps, channels):
    """Add to each map what the next coarser one has, as the lesson does."""
    merged = [layers.Conv2D(channels, 1, kernel_initializer="he_uniform")(each) for each in maps]
    for i in (1, 0):  # from coarse to fine
        merged[i] = layers.Add()([merged[i], layers.UpSampling2D()(merged[i + 1])])
    return smooth(merged, channels)


def one_level(features, channels):
    """Make all levels from the map of stride 16: upsampled, as it is, and averaged. The anchors stay the same."""
    merged = layers.Conv2D(channels, 1, kernel_initializer="he_uniform")(features)
    return smooth([layers.UpSampling2D()(merged), merged, layers.AveragePooling2D()(merged)], channels)


def smooth(maps, channels):
    """Give each map a 3×3 convolution of its own."""
    return [layers.Conv2D(channels, 3, padding="same", kernel_initializer="he_uniform")(each) for each in maps]


def head(channels, outputs, bias=0.0):
    """Build a head for all levels, as the lesson does: from a level to (N, anchors, outputs)."""
    level = keras.Input((None, None, channels))
    x = layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_initializer="he_normal")(level)
    x = layers.Conv2D(
        9 * outputs,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(bias),
    )(x)
    return keras.Model(level, layers.Reshape((-1, outputs))(x))


@functools.cache
def losses(kind):
    """Give Keras, which takes the mean over images, both losses per matched anchor."""
    gamma, alpha, weight = LOSSES[kind]

    def per_matched(loss, matched):
        images = ops.cast(ops.shape(loss)[0], "float32")
        return ops.sum(loss, axis=-1) * images / ops.maximum(ops.sum(matched), 1.0)

    def class_loss(anchor_labels, logits):
        loss = weight * retinanet.focal_loss(anchor_labels, logits, gamma, alpha)
        return per_matched(loss, ops.cast(anchor_labels[..., 0] >= 0, "float32"))

    def box_loss(box_targets, offsets):
        return per_matched(retinanet.box_loss(box_targets, offsets), box_targets[..., 4])

    return {"class": class_loss, "box": box_loss}


@functools.cache
def compiled(name, loss, levels, dtype):
    """Build a network once for all its runs: they differ in their first weights and the learning rate."""
    return built(name, 0.01, levels, dtype)


def built(name, prior, levels, dtype):
    """Build the network of a dataset's detector, with new weights."""
    config = configure(name, split(name, "train")[3], prior)
    return network(config, [each.shape[1:] for each in prepared(name, "train")[0]], levels, dtype)


def train(run):
    """Train one detector from its seed: a network in float32 with its weights, and the loss of each step."""
    maps, targets = prepared(run["data"], "train")
    model = compiled(run["data"], run["loss"], run["levels"], "mixed_bfloat16")
    backend.set_seed(run["seed"])
    model.set_weights(built(run["data"], run["prior"], run["levels"], "float32").get_weights())

    def draw(rows, generator):
        return [each[rows] for each in maps], {key: value[rows] for key, value in targets.items()}

    history = classify.optimize(
        model,
        losses(run["loss"]),
        draw,
        len(maps[0]),
        run["steps"],
        run["learning_rate"],
        BATCH_SIZE,
        seed=run["seed"],
    )
    exact = compiled(run["data"], "none", run["levels"], "float32")
    exact.set_weights(model.get_weights())
    return exact, history


def score(model, name, part):
    """Give COCO's AP, AP50 and AP75 on a split."""
    _, true_boxes, labels, class_names = split(name, part)
    outputs = model.predict(prepared(name, part)[0], batch_size=16, verbose=0)
    config = configure(name, class_names)
    anchors, detections = config.anchors(), []
    for logits, offsets in zip(outputs["class"], outputs["box"], strict=True):
        detected = retinanet.suppress(logits, offsets, anchors)
        detections.append(detected | {"boxes": detected["boxes"].clip(0, config.input_size)})
    scored = retinanet.scores(detections, true_boxes, labels, class_names)
    return {key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")}


def measure(run):
    """Train one detector and score it on the run's split; the test runs on validation images as well."""
    began = time.perf_counter()
    model, history = train(run)
    ends = {"first": round(history[0], 4), "last": round(float(np.mean(history[-50:])), 4)}
    row = run | ends | score(model, run["data"], run["split"])
    if run["split"] == "test":
        row |= {f"val {key}": value for key, value in score(model, run["data"], "val").items()}
    return row | {"seconds": round(time.perf_counter() - began, 1)}


# ----------------------------------------------------------------------------------------------------------------------
# The plan


def kinds(name, first=None):
    """List what is compared on a dataset, a dict each, or the first so many of it."""
    return [
        {"data": name, "loss": loss, "prior": prior, "levels": levels}
        for loss, prior, levels in KINDS[: DATASETS[name]["kinds"]][:first]
    ]


def next_run(kind, seeds, rows, twice=False):
    """Say what is to be measured next of a kind, or None.

    First learning rates at half length, until the best has been compared with its neighbours; with it the seeds at full
    length; with `twice`, also one run of twice the length, which shows how far training has converged.
    """
    steps = DATASETS[kind["data"]]["steps"]
    measured = [row for row in rows if kind.items() <= row.items()]
    val = kind | {"split": "val", "seed": 0}
    choices = {
        row["learning_rate"]: row["AP50"] for row in measured if row["split"] == "val" and row["steps"] == steps // 2
    }
    best = max(choices, key=choices.get) if choices else None
    for rate in [FIRST_RATE] if best is None else [best / 2, best * 2]:
        if rate not in choices:
            return val | {"steps": steps // 2, "learning_rate": rate}
    test = kind | {"split": "test", "steps": steps, "learning_rate": best}
    runs = [test | {"seed": seed} for seed in range(seeds)]
    runs += [val | {"steps": 2 * steps, "learning_rate": best}] if twice else []
    return next((run for run in runs if not any(run.items() <= row.items() for row in measured)), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin nothing new after so many")
    parser.add_argument("--data", nargs="*", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--twice", action="store_true", help="also run each kind once at twice the length")
    parser.add_argument("--kinds", type=int, help="only the first so many kinds of detector")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    sha256 = {part: data.manifest()[f"toybox/{part}.zip"]["sha256"] for part in ("objects", "scenes")}
    path = RESULTS / "focal_long.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("sha256") != sha256:
        known = {}
    rows, datasets = known.get("rows", []), known.get("datasets", {})
    for name in options.data:
        for kind in kinds(name, options.kinds):
            while time.monotonic() < end and (run := next_run(kind, options.seeds, rows, options.twice)):
                try:
                    datasets[name] = datasets.get(name) or describe(name)
                except data.DataUnavailable as error:
                    print(f"{name}: passed over. {error}")
                    break
                rows.append(measure(run))
                print(json.dumps(rows[-1]), flush=True)
                about = {
                    "command": "python -m experiments.focal_long",
                    "sha256": sha256,
                    "machine": machine("keras", "tensorflow-cpu", "numpy"),
                }
                write("focal_long", {**about, "datasets": datasets, "rows": rows})


if __name__ == "__main__":
    main()
