"""Measure proposals: selective search beside OpenCV's, recall against the number of boxes, and R-CNN in full.

    pip install --no-deps --target FOLDER opencv-contrib-python-headless
    python -m experiments.propose --opencv FOLDER    # an hour on two CPU cores; goes on where it stopped

Writes results/propose.json, which `chapters/week2/proposals` shows. FOLDER lies outside the project's environment, as
OpenCV's twin with selective search would take the place of the one that is there. Photographs are those of raccoons,
where CVLAB_DATA has raccoon.zip, scaled to 480 pixels on the longer side. What R-CNN is given was chosen on `val`; a
backbone that learns is tried there only, as it takes ten minutes for 300 pictures.
"""

import argparse
import json
import sys
import time

import numpy as np

from cvlab import backend, boxes, classify, data, metrics, propose

from ._timing import machine, resume, side_by_side, write

LAYERS = ("stage5_block3_add", "stage6_block4_add", "head_relu")  # of EfficientNet-Lite0
LAYER, CROP, LIMIT = LAYERS[1], 64, 300  # its last layer that is used; pixels; proposals a picture for R-CNN
SETS = {
    "ten scenes": ("scenes", 10),
    "five photographs": ("raccoon", 5),
    "100 scenes": ("scenes", 100),
    "40 photographs": ("raccoon", 40),
}
SIZES = (28, 40, 56, 80, 112)  # of windows, in pixels
STEPS = (2, 1, 0.5, 0.25, 0.125)  # how far a window is moved, in parts of its size
WINDOWS = {"one size": STEPS, "five sizes": STEPS, "pyramid": STEPS, "five sizes, three shapes": STEPS[:-1]}


def plan():
    """List what is measured, a dict each."""
    runs = [{"kind": "search", "set": name} for name in SETS]
    runs += [
        {"kind": "windows", "method": method, "stride": stride}
        for method, strides in WINDOWS.items()
        for stride in strides
    ]
    runs += [{"kind": "windows", "method": "selective search", "limit": n} for n in (10, 30, 100, 300, 1000)]
    choice = {"kind": "rcnn", "split": "val", "pictures": 300, "layer": LAYER, "crop": CROP, "seed": 0}
    frozen = choice | {"mode": "frozen", "steps": 300, "rate": 1e-2, "batch": 128}
    tuned = choice | {"mode": "fine_tune", "crop": 96, "steps": 600, "batch": 64}
    runs += [frozen | {"layer": layer} for layer in LAYERS]
    runs += [frozen | {"crop": 96}, frozen | {"crop": 96, "steps": 1000}]
    runs += [tuned | {"rate": rate} for rate in (5e-4, 1e-3)]
    test = {"split": "test", "pictures": 900, "crop": 96}
    return runs + [frozen | test | {"steps": 1000, "seed": seed} for seed in range(3)]


def pictures(name):
    """Give a set's pictures and true boxes; photographs have a longer side of 480 pixels."""
    import cv2

    source, count = SETS[name]
    part = data.load(source, "val", limit=count)
    if source == "scenes":
        return part.images, part.boxes
    images, truth = [], []
    for image, own in zip(part.images, part.boxes, strict=True):
        height, width = image.shape[:2]
        factor = 480 / max(height, width)
        size = round(width * factor), round(height * factor)
        images.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR))
        truth.append(own * np.float32([size[0] / width, size[1] / height] * 2))
    return images, truth


def opencv(image, quality=False):
    """Run OpenCV's selective search: (N, 4) xyxy, in its order."""
    import cv2

    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    (search.switchToSelectiveSearchQuality if quality else search.switchToSelectiveSearchFast)()
    return boxes.convert(search.process(), "xywh", "xyxy")


def recall(truth, proposals, limit=1000):
    """Give the share of true boxes that one of a picture's first proposals meets with an IoU of at least 0.5."""
    best = [boxes.iou(own, found[:limit]).max(1) for own, found in zip(truth, proposals) if len(own)]
    return float((np.concatenate(best) >= 0.5).mean())


def search(run, parts):
    """Run the three searches on one set of pictures, side by side."""
    images, truth = pictures(run["set"])
    found, methods = (
        {},
        {
            "ours": propose.selective_search,
            "OpenCV fast": opencv,
            "OpenCV quality": lambda image: opencv(image, quality=True),
        },
    )

    def over(name):
        found[name] = [methods[name](image) for image in images]

    rounds, warm_up = (3, 1) if len(images) <= 10 else (1, 0)
    times = side_by_side({name: lambda name=name: over(name) for name in methods}, rounds, warm_up)
    return {"pictures": len(images), "objects": sum(map(len, truth))} | {
        name: {
            "proposals": float(np.mean([len(own) for own in found[name]])),
            "recall": recall(truth, found[name]),
            "seconds": times[name]["median_ms"] / 1000 / len(images),
        }
        for name in methods
    }


def windows(run, parts):
    """Measure the recall of windows, or of the first proposals, on 100 scenes, and what classifying them would take."""
    part = parts("val", 100)
    began = time.perf_counter()
    if "limit" in run:
        proposals = [propose.selective_search(image, limit=run["limit"]) for image in part.images]
    else:
        proposals = [laid_out(run["method"], run["stride"], image) for image in part.images]
    proposing = (time.perf_counter() - began) / len(part)
    count = float(np.mean([len(own) for own in proposals]))
    return {
        "proposals": count,
        "recall": recall(part.boxes, proposals, None),
        "seconds to propose": proposing,
        "seconds to classify": count * parts.a_crop(),
    }


def laid_out(method, step, image):
    """Give the windows of one method, in pixels of the picture."""
    if method == "pyramid":  # one window on all levels
        size, smallest = SIZES[0], image.shape[0] * SIZES[0] / SIZES[-1] - 1
        return np.concatenate(
            [
                propose.sliding_windows(level.shape[:2], size, max(1, round(size * step))) / scale
                for level, scale in propose.pyramid(image, smallest)
            ]
        )
    shapes = [(size, size) for size in ([SIZES[2]] if method == "one size" else SIZES)]
    if method == "five sizes, three shapes":
        shapes = [(round(s * r**0.5), round(s / r**0.5)) for s in SIZES for r in (0.5, 1, 2)]
    return np.concatenate(
        [
            propose.sliding_windows(image.shape[:2], shape, [max(1, round(side * step)) for side in shape])
            for shape in shapes
        ]
    )


def backbone(layer=LAYER):
    """Cut EfficientNet-Lite0 off after a layer."""
    import keras

    whole = classify.efficientnet_lite0(include_top=False)
    return keras.Model(whole.input, whole.get_layer(layer).output, name=f"efficientnet_lite0_to_{layer}")


def rcnn(run, parts):
    """Train R-CNN and test it, with and without its box regression."""
    train, test = parts("train", run["pictures"]), parts(run["split"], None)
    proposals = [parts.proposals(part) for part in (train, test)]
    names = train.class_names
    backend.set_seed(run["seed"])
    model = propose.rcnn(backbone(run["layer"]), len(names), run["mode"], run["crop"])
    chosen, targets = propose.examples(proposals[0], train.boxes, train.labels, len(names), seed=run["seed"])
    took = propose.train_rcnn(
        model, train.images, chosen, targets, run["steps"], run["rate"], run["batch"], run["seed"], progress=True
    )["seconds"]
    began = time.perf_counter()
    cached = propose.crop_features(model, test.images, proposals[1], progress=True)
    scores = {}
    for regress in (True, False):
        found = propose.detect(model, test.images, proposals[1], score=0.01, regress=regress, cached=cached)
        tested = (time.perf_counter() - began) / len(test)
        columns = ([one[key] for one in found] for key in ("boxes", "labels", "scores"))
        scored = metrics.detection_scores(test.boxes, test.labels, *columns, names)
        scores["moved" if regress else "as proposed"] = {key: scored[key] for key in ("AP", "AP50", "AP75")}
        if regress:
            seconds = tested
    return {
        "examples": len(targets["box"]),
        "tested": len(test),
        "recall": recall(test.boxes, proposals[1]),
        "seconds": round(took, 1),
        "seconds a picture": round(seconds, 3),
        **scores,
    }


class Parts:
    """Scenes and their proposals, loaded and searched once."""

    def __init__(self):
        self.known = {}

    def __call__(self, split, limit):
        if (split, limit) not in self.known:
            self.known[split, limit] = data.load("scenes", split, limit=limit)
        return self.known[split, limit]

    def a_crop(self):
        """Measure the seconds that warping and running one crop through the backbone takes."""
        if "a crop" not in self.known:
            model, image = propose.rcnn(backbone(), 9, input_size=CROP), self("val", 100).images[:1]
            crops, times = propose.sliding_windows(160, 48, 4)[:512], []
            for _ in range(4):
                began = time.perf_counter()
                propose.crop_features(model, image, [crops])
                times.append((time.perf_counter() - began) / len(crops))
            self.known["a crop"] = min(times[1:])
        return self.known["a crop"]

    def proposals(self, part):
        key = part.split, len(part), "proposals"
        if key not in self.known:
            self.known[key] = [propose.selective_search(image, limit=LIMIT) for image in part.images]
        return self.known[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opencv", help="folder with opencv-contrib-python-headless, installed by pip's --target")
    options = parser.parse_args()
    if options.opencv:
        sys.path.insert(0, options.opencv)  # before anything imports cv2
    import cv2

    peer = hasattr(cv2, "ximgproc")
    sha256, parts = data.manifest()["toybox/scenes.zip"]["sha256"], Parts()
    rows, todo = resume("propose", plan(), sha256)
    measures = {"search": search, "windows": windows, "rcnn": rcnn}
    for run in todo:
        if run["kind"] == "search" and not peer:
            print(
                f"{run['set']}: passed over, as this OpenCV has no selective search. Install its twin elsewhere, "
                "`pip install --no-deps --target FOLDER opencv-contrib-python-headless`, and give `--opencv FOLDER`"
            )
            continue
        try:
            rows.append(run | measures[run["kind"]](run, parts))
        except data.DataUnavailable as error:
            print(f"{run['set']}: passed over. {error}")
            continue
        print(json.dumps(rows[-1]), flush=True)
        about = machine("keras", "tensorflow-cpu", "numpy", "scikit-image", "opencv-contrib-python-headless")
        command = "python -m experiments.propose --opencv FOLDER"
        write("propose", {"command": command, "sha256": sha256, "machine": about, "rows": rows})


if __name__ == "__main__":
    main()
