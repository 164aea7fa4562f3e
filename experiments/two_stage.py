"""Train R-CNN, Fast R-CNN, Faster R-CNN and RetinaNet on the same scenes: AP against seconds per image.

    python -m experiments.two_stage    # an hour on two CPU cores; goes on where it stopped
    python -m experiments.two_stage --minutes 7    # starts nothing new after so many minutes

Writes results/two_stage.json, which `chapters/week2/two_stage` shows. All four stand on the same EfficientNet-Lite0
with ImageNet's weights, frozen, and learn from 300 scenes; what can be computed once is kept in a folder.
R-CNN's settings are those of the lesson before, with 600 steps. The learning rates of Fast R-CNN, which Faster R-CNN
takes as well, and of RetinaNet were chosen on `val`, the former with half of the steps. RetinaNet is trained a second
time, with cross-entropy in place of the focal loss and a learning rate of its own.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers

from cvlab import backend, boxes, classify, data, faster_rcnn, metrics, propose, rcnn, retinanet

from ._timing import machine, resume, side_by_side, write

SIDE, SCENE = 320, 160  # pixels: of what one pass sees, and of the scenes as they are, for search and crops
CROP, LIMIT, KEPT = 96, 300, 100  # R-CNN's crops; proposals an image by selective search, and by Faster R-CNN's own
IMAGES = {"train": 300, "val": 100, "test": 150}  # how many of each split
STEPS, BATCH = 400, 4  # of each network, which takes RetinaNet about as long as both of Faster R-CNN's
ENTROPY = "RetinaNet, cross-entropy"
LOSSES = {"RetinaNet": (2.0, 0.25), ENTROPY: (0.0, 0.5)}  # gamma and alpha of the focal loss
RATES = {"Fast": (5e-4, 1e-3, 2e-3), "RetinaNet": (5e-4, 1e-3, 2e-3), ENTROPY: (5e-4, 1e-3, 2e-3, 4e-3)}
LIMITS = (1, 3, 10, 30, 100, 300)
DETECTORS = ("R-CNN", "Fast", "Faster", "RetinaNet")
LONGER, BOTH = 1600, 800  # steps of RetinaNet, to see what a longer training gives it; Faster R-CNN's in all


def plan():
    """List what is measured, a dict each: rates on `val`, three seeds on `test`, seconds, and a longer training."""
    choices = [{"kind": "choice", "detector": name, "rate": rate} for name in RATES for rate in RATES[name]]
    first, *others = [[{"kind": "test", "detector": name, "seed": seed} for name in DETECTORS] for seed in range(3)]
    longer = [{"kind": "longer", "detector": "RetinaNet", "steps": LONGER, "seed": 0}]
    entropy = [{"kind": "test", "detector": ENTROPY, "seed": seed} for seed in range(3)]
    entropy += [{"kind": "longer", "detector": ENTROPY, "steps": BOTH, "seed": seed} for seed in range(3)]
    return choices + first + [{"kind": "seconds"}] + sum(others, []) + longer + entropy


class Scenes:
    """Scenes, their proposals and their feature maps, each computed once and kept in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.small = {split: data.load("scenes", split, limit=n) for split, n in IMAGES.items()}
        self.large = {split: data.load("scenes", split, limit=n, size=SIDE) for split, n in IMAGES.items()}
        whole = classify.efficientnet_lite0(include_top=False)
        stride_16, stride_32 = (whole.get_layer(name).output for name in ("stage5_block3_add", "stage6_block4_add"))
        upsampled = layers.UpSampling2D(interpolation="bilinear")(stride_32)
        self.crop_body = keras.Model(whole.input, stride_32, name="to_stage6")
        self.body = keras.Model(whole.input, layers.Concatenate()([stride_16, upsampled]), name="map_of_stride_16")
        self.levels_body = classify.copy_body(whole, "frozen", (8, 16, 32))

    def kept(self, name, compute):
        """Give an array from the folder, or compute it and keep it there."""
        file = self.folder / f"{name}.npy"
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}.npy")
            np.save(part, compute())
            part.rename(file)
        return np.load(file, mmap_mode="r")

    def proposals(self, split):
        """Give selective search's first LIMIT proposals of each scene, in pixels of the scene as it is."""

        def search():
            searched = [propose.selective_search(image, limit=LIMIT) for image in self.small[split].images]
            padded = [np.pad(one, [(0, LIMIT - len(one)), (0, 0)], constant_values=np.nan) for one in searched]
            return np.stack(padded)

        padded = self.kept(f"search_{split}", search)[: len(self.small[split])]
        return [one[np.isfinite(one[:, 0])] for one in padded]

    def maps(self, split):
        """Give the feature maps that Fast and Faster R-CNN share: (N, 20, 20, 304) float16."""
        return self.kept(f"map_{split}", lambda: in_batches(self.body, self.large[split].images)[0])

    def levels(self, split):
        """Give the backbone's maps of stride 8, 16 and 32, for RetinaNet: three arrays (N, h, w, C) float16."""
        names = [f"level_{i}_{split}" for i in range(3)]
        if not all((self.folder / f"{name}.npy").exists() for name in names):
            for name, array in zip(names, in_batches(self.levels_body, self.large[split].images), strict=True):
                self.kept(name, lambda array=array: array)
        return [self.kept(name, lambda: None) for name in names]

    def crops(self, name, split, chosen):
        """Give the features of R-CNN's crops: a list of arrays (n, 3, 3, 192) float16, one an image."""

        def compute():
            crops = [propose.warp(image, regions, CROP) for image, regions in zip(self.small[split].images, chosen)]
            return np.concatenate([in_batches(self.crop_body, one, 100)[0] for one in crops])

        ends = np.cumsum([len(regions) for regions in chosen])
        return np.split(self.kept(f"crops_{name}_{split}", compute), ends[:-1])


def in_batches(model, images, batch_size=20):
    """Run images through a model: a list of arrays (N, ...) float16, one for each of its outputs."""
    parts = []
    for start in range(0, len(images), batch_size):
        outputs = keras.tree.flatten(model.predict_on_batch(images[start : start + batch_size]))
        parts.append([np.asarray(one, np.float16) for one in outputs])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


class Rows:
    """An array whose rows are read when asked for, as float32."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        return np.asarray(self.array[rows], np.float32)


def scaled(proposals):
    return [one * (SIDE / SCENE) for one in proposals]


def scores(detections, part):
    columns = ([one[key] for one in detections] for key in ("boxes", "labels", "scores"))
    scored = metrics.detection_scores(part.boxes, part.labels, *columns, part.class_names)
    return {key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")}


def recall(part, proposals, threshold):
    """Give for each of LIMITS the share of objects that one of an image's first so many proposals covers."""
    best = [[boxes.iou(true, p[:n]).max(1) for true, p in zip(part.boxes, proposals)] for n in LIMITS]
    return [round(float((np.concatenate(one) >= threshold).mean()), 4) for one in best]


def run_rcnn(scenes, split, seed, rate=1e-2, steps=600):
    train, part = scenes.small["train"], scenes.small[split]
    backend.set_seed(seed)
    model = rcnn.rcnn(scenes.crop_body, len(train.class_names), input_size=CROP)
    chosen, targets = rcnn.examples(scenes.proposals("train"), train.boxes, train.labels, len(train.class_names))
    cached = scenes.crops("examples", "train", chosen)
    history = rcnn.train_rcnn(model, train.images, chosen, targets, steps, rate, seed=seed, cached=cached)
    proposals = scenes.proposals(split)
    cached = scenes.crops("proposals", split, proposals)
    detections = rcnn.detect(model, part.images, proposals, score=0.01, cached=cached)
    covered = {"recall 0.5": recall(part, proposals, 0.5), "recall 0.7": recall(part, proposals, 0.7)}
    return model, scores(detections, part) | covered | {"seconds": history["seconds"]}


def run_fast(scenes, split, seed, rate, steps=STEPS):
    train, part = scenes.large["train"], scenes.large[split]
    maps, test_maps = Rows(scenes.maps("train")), Rows(scenes.maps(split))
    backend.set_seed(seed)
    model = rcnn.fast_rcnn(maps.shape[1:], len(train.class_names), SIDE // maps.shape[1])
    given = scaled(scenes.proposals("train")), train.boxes, train.labels
    history = rcnn.train_fast_rcnn(model, maps, *given, steps, rate, BATCH, seed=seed)
    proposals = scaled(scenes.proposals(split))
    detections = rcnn.detect_fast_rcnn(model, test_maps, proposals, SIDE, score=0.01)
    return model, scores(detections, part) | {"seconds": history["seconds"]}


def run_faster(scenes, split, seed, rate, steps=STEPS):
    train, part = scenes.large["train"], scenes.large[split]
    maps, test_maps = Rows(scenes.maps("train")), Rows(scenes.maps(split))
    backend.set_seed(seed)
    detector = faster_rcnn.faster_rcnn(scenes.body, len(train.class_names), SIDE)
    given = train.images, train.boxes, train.labels
    history = faster_rcnn.train_faster_rcnn(detector, *given, steps, rate, seed=seed, maps=maps)
    proposals, by_limit = detector.propose(part.images, LIMIT, test_maps), {}
    for limit in LIMITS[2:]:
        first = [one[:limit] for one in proposals]
        detections = rcnn.detect_fast_rcnn(detector.head, test_maps, first, SIDE, score=0.01)
        by_limit[limit] = scores(detections, part)
    covered = {"recall 0.5": recall(part, proposals, 0.5), "recall 0.7": recall(part, proposals, 0.7)}
    limits = {"by limit": {str(limit): scored["AP"] for limit, scored in by_limit.items()}}
    return detector, by_limit[KEPT] | covered | limits | {"seconds": history["seconds"]}


def run_retinanet(scenes, split, seed, rate, steps=STEPS, name="RetinaNet"):
    train, part = scenes.large["train"], scenes.large[split]
    maps, test_maps = ([Rows(level) for level in scenes.levels(name)] for name in ("train", split))
    config = retinanet.RetinaNetConfig(
        train.class_names, input_size=SIDE, anchor_sizes=(SIDE // 8, SIDE // 4, SIDE // 2), channels=64, depth=1
    )
    backend.set_seed(seed)
    model, began = above_the_backbone(config, [level.shape[1:] for level in maps]), time.perf_counter()
    wanted = retinanet.targets(config, train.boxes, train.labels, [(SIDE, SIDE)] * len(train))

    def draw(rows, generator):
        return [level[rows] for level in maps], {name: values[rows] for name, values in wanted.items()}

    losses = {"class": class_loss(*LOSSES[name]), "box": offset_loss}
    classify.optimize(model, losses, draw, len(train), steps, rate, BATCH, seed)
    seconds, detections, anchors = time.perf_counter() - began, [], config.anchors()
    for start in range(0, len(part), 10):
        outputs = model.predict_on_batch([level[start : start + 10] for level in test_maps])
        for each in zip(outputs["class"], outputs["box"], strict=True):
            detected = retinanet.suppress(*each, anchors, score=0.01)
            detections.append(detected | {"boxes": detected["boxes"].clip(0, SIDE)})
    return (config, model), scores(detections, part) | {"seconds": seconds}


def above_the_backbone(config, shapes):
    """Build a RetinaNet's pyramid and heads as one model, from the backbone's maps to logits and offsets."""
    maps = [keras.Input(shape) for shape in shapes]
    levels = keras.tree.flatten(retinanet.pyramid(config, [shape[-1] for shape in shapes])(maps))
    box_head, class_tower, class_logits = retinanet.heads(config)
    logits = [layers.Reshape((-1, len(config.class_names)))(class_logits(class_tower(level))) for level in levels]
    offsets = [layers.Reshape((-1, 4))(box_head(level)) for level in levels]
    outputs = {"class": layers.Concatenate(axis=1, name="class")(logits)}
    return keras.Model(maps, outputs | {"box": layers.Concatenate(axis=1, name="box")(offsets)})


def class_loss(gamma, alpha):
    """Give Keras the sum of the focal loss over a batch, by its number of matched anchors."""

    def loss(learns, logits):
        matched = keras.ops.sum(keras.ops.cast(learns >= 0, "float32"))
        return keras.ops.sum(retinanet.focal_loss(learns, logits, gamma, alpha)) / keras.ops.maximum(matched, 1.0)

    return loss


def offset_loss(wanted, offsets):
    """Sum the box loss over a batch, by its number of matched anchors."""
    matched = keras.ops.sum(wanted[..., 4])
    return keras.ops.sum(retinanet.box_loss(wanted, offsets)) / keras.ops.maximum(matched, 1.0)


def measure(run, scenes, rows, trained):
    """Measure one entry of the plan; trained detectors of seed 0 are kept in `trained`, for their seconds."""
    if run["kind"] == "seconds":
        return seconds(scenes, rows, trained)
    name, split, seed = run["detector"], "val" if run["kind"] == "choice" else "test", run.get("seed", 0)
    steps = run.get("steps", STEPS // 2 if run["kind"] == "choice" and name == "Fast" else STEPS)
    if name == "R-CNN":
        detector, measured = run_rcnn(scenes, split, seed)
    else:
        rate = run.get("rate") or best_rate(rows, name if name in LOSSES else "Fast")
        if name in LOSSES:
            detector, measured = run_retinanet(scenes, split, seed, rate, steps, name)
        else:
            train = run_faster if name == "Faster" else run_fast
            detector, measured = train(scenes, split, seed, rate, steps)
        measured |= {"rate": rate, "steps": steps}
    trained[name] = detector
    return measured | {"seconds": round(measured["seconds"], 1)}


def best_rate(rows, name):
    choices = [row for row in rows if row["kind"] == "choice" and row["detector"] == name]
    return max(choices, key=lambda row: row["AP"])["rate"]


def seconds(scenes, rows, trained):
    """Time the steps of all detectors on the same image, side by side: medians in seconds per image.

    Detectors that were not trained in this process are trained shortly, as suppression has less to do with fewer boxes.
    """
    small, large = (next(iter(part["test"].images[7:8])) for part in (scenes.small, scenes.large))
    first = trained.get("R-CNN") or run_rcnn(scenes, "test", 0)[0]
    faster = trained.get("Faster") or run_faster(scenes, "val", 0, 1e-3, 60)[0]
    config, above = trained.get("RetinaNet") or run_retinanet(scenes, "val", 0, 1e-3, 60)[0]
    searched = propose.selective_search(small, limit=LIMIT)
    crops = propose.warp(small, searched, CROP)
    crop_maps, feature_map = scenes.crop_body.predict_on_batch(crops), scenes.body.predict_on_batch(large[None])
    regions = faster.propose(large[None], KEPT, feature_map)
    levels = scenes.levels_body.predict_on_batch(large[None])
    anchors = config.anchors()

    def dense():
        outputs = above.predict_on_batch(levels)
        retinanet.suppress(outputs["class"][0], outputs["box"][0], anchors, score=0.01)

    steps = {
        "selective search": lambda: propose.selective_search(small, limit=LIMIT),
        "warp": lambda: propose.warp(small, searched, CROP),
        "backbone on the crops": lambda: scenes.crop_body.predict_on_batch(crops),
        "R-CNN's heads": lambda: rcnn.detect(first, small[None], [searched], score=0.01, cached=[crop_maps]),
        "backbone": lambda: scenes.body.predict_on_batch(large[None]),
        "Fast's head, 300": lambda: rcnn.detect_fast_rcnn(faster.head, feature_map, scaled([searched]), SIDE, 0.01),
        "RPN": lambda: faster.propose(large[None], KEPT, feature_map),
        "Fast's head, 100": lambda: rcnn.detect_fast_rcnn(faster.head, feature_map, regions, SIDE, 0.01),
        "backbone, three levels": lambda: scenes.levels_body.predict_on_batch(large[None]),
        "pyramid and heads": dense,
    }
    timed = {name: round(times["median_ms"] / 1000, 4) for name, times in side_by_side(steps, 15, 3).items()}
    parts = {
        "R-CNN": ("selective search", "warp", "backbone on the crops", "R-CNN's heads"),
        "Fast": ("selective search", "backbone", "Fast's head, 300"),
        "Faster": ("backbone", "RPN", "Fast's head, 100"),
        "RetinaNet": ("backbone, three levels", "pyramid and heads"),
    }
    totals = {name: round(sum(timed[step] for step in of), 4) for name, of in parts.items()}
    return {"parts": timed, "of": parts, "seconds an image": totals}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default=Path(tempfile.gettempdir()) / "cvlab-two-stage", help="folder for features")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many")
    parser.add_argument("--only", choices=("choice", "test", "seconds", "longer"), help="kind of measurement")
    options = parser.parse_args()
    began, sha256 = time.monotonic(), data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("two_stage", plan(), sha256)
    scenes, trained = Scenes(options.cache), {}
    for run in todo:
        if options.only not in (None, run["kind"]):
            continue
        if time.monotonic() - began > 60 * options.minutes:
            break
        measured = run | measure(run, scenes, rows, trained)
        rows = [*resume("two_stage", plan(), sha256)[0], measured]  # another process may have written meanwhile
        print(json.dumps(rows[-1]), flush=True)
        about = machine("keras", "tensorflow-cpu", "numpy")
        command = "python -m experiments.two_stage"
        write("two_stage", {"command": command, "sha256": sha256, "machine": about, "rows": rows})


if __name__ == "__main__":
    main()
