"""Teach a network cat and dog by the eyes alone, ask where its class activation maps peak, mend the data, ask again.

    python -m experiments.eyes    # measures what `results/eyes.json` lacks, on CPU; --help says more

Each run trains the last stage of CIFAR-10's ResNet-20, and a new classifier on it, on `train` of the toybox's `eyes` or
on that and `mended_train`, and is tested on `test` and `mended_test`, by the number of eyes that can be seen.
"""

import argparse
import json
import time

import numpy as np

from cvlab import backend, classify, data, explain, metrics

from ._timing import resume, write_rows

NAMES = ("cat", "dog")
TRAINED_ON = {"train": ("train",), "mended": ("train", "mended_train")}
TESTED_ON = ("test", "mended_test")
TOLERANCE = 2  # pixels beside an eye that still count
LEARNING_RATE, PAIRS, WINDOW = 0.003, 8, 40
STEPS = {"train": 110, "mended": 170}


def plan(seeds):
    """List the runs."""
    return [{"trained on": name, "steps": STEPS[name], "seed": seed} for seed in range(seeds) for name in TRAINED_ON]


def load(split):
    return data.load("eyes", split, classes=NAMES)


def build():
    """Put a new classifier on the ResNet-20 of CIFAR-10.

    Returns:
        The whole, from pixels to probabilities; its first two stages; and the rest, which is what learns.
    """
    import keras

    body = classify.resnet20(include_top=False)
    early = keras.Model(body.input, body.get_layer("stage2_block3_out").output)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    answer = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", name="classes")(pooled)
    return keras.Model(body.input, answer), early, keras.Model(early.output, answer)


def train(run, parts):
    """Train on what the run names, with features of the first two stages that are computed once.

    A batch takes two neighbours at a time, in `train` the two of a pair, and cuts one window from all of its maps.

    Returns:
        The model and the seconds of both.
    """
    backend.set_seed(run["seed"])
    began, (model, early, late) = time.perf_counter(), build()
    used = [parts[split] for split in TRAINED_ON[run["trained on"]]]
    maps = np.concatenate([classify.features(early, own) for p in used for own in (p.images, p.images[:, :, ::-1])])
    labels = np.concatenate([own for p in used for own in (p.labels, p.labels)])
    twos = np.arange(len(maps)).reshape(-1, 2)
    twos = np.concatenate([twos, twos[len(parts["train"]) :]])  # the mended ones, half as many, count twice

    def draw(rows, generator):
        chosen, (y, x) = twos[rows].ravel(), generator.integers(0, maps.shape[1] - WINDOW + 1, 2)
        return maps[chosen, y : y + WINDOW, x : x + WINDOW], labels[chosen]

    classify.optimize(late, classify.LOSS, draw, len(twos), run["steps"], LEARNING_RATE, PAIRS, run["seed"])
    return model, time.perf_counter() - began


def eye_masks(part, grow=0):
    """Give the eyes' pixels, and those in a square of `grow` around each, (N, H, W) bool."""
    import cv2

    eyes, square = part.parts == part.part_names.index("eye"), np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)
    return np.stack([cv2.dilate(own.astype(np.uint8), square) for own in eyes]) > 0


def peaks(maps, part, hit):
    """Name for each map the part that it peaks on, "eye" where that is hit."""
    rows, largest = np.arange(len(maps)), maps.reshape(len(maps), -1).argmax(1)
    names = np.array(["background", *part.part_names[1:]])[part.parts.reshape(len(maps), -1)[rows, largest]]
    return np.where(hit, "eye", names)


def paint_over(images, masks):
    """Fill the masked pixels from what is around them."""
    import cv2

    return np.stack(
        [
            cv2.inpaint(image, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)
            for image, mask in zip(images, masks, strict=True)
        ]
    )


def test(model, part, seed):
    """Score a model on a split, by the number of visible eyes.

    Returns: a list of dict, each with split, "eyes" visible, "pictures", "accuracy", "confidence" (the mean of the
        predicted class's probability), "painted" (the accuracy once the eyes are painted over), the share of "cam",
        "grad_cam" and "random" maps that peak on an eye, and "peaks" (how many of CAM's are on which part).
    """
    eyes, visible = eye_masks(part), part.extras["eyes_visible"]
    probabilities = classify.features(model, part.images)
    right = probabilities.argmax(1) == part.labels
    painted = classify.features(model, paint_over(part.images, eye_masks(part, 2))).argmax(1) == part.labels
    maps = {
        "cam": explain.cam(model, part.images),
        "grad_cam": explain.grad_cam(model, part.images),
        "random": np.random.default_rng(seed).random(eyes.shape),
    }
    hit = {name: metrics.pointing_game(own, eyes, TOLERANCE) for name, own in maps.items()}
    at, rows = peaks(maps["cam"], part, hit["cam"]), []
    for count in (2, 1, 0):
        chosen = visible == count
        places, often = np.unique(at[chosen], return_counts=True)
        shares = {"accuracy": right[chosen], "confidence": probabilities[chosen].max(1), "painted": painted[chosen]}
        shares |= {name: own[chosen] for name, own in hit.items()}
        rows.append(
            {"split": part.split, "eyes": count, "pictures": int(chosen.sum())}
            | {name: round(float(values.mean()), 4) for name, values in shares.items()}
            | {"peaks": dict(zip(places.tolist(), often.tolist(), strict=True))}
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sha256 = data.manifest()["toybox/eyes.zip"]["sha256"]
    rows, todo = resume("eyes", plan(options.seeds), sha256)
    parts = {split: load(split) for split in {*sum(TRAINED_ON.values(), ()), *TESTED_ON}}
    for run in todo:
        model, took = train(run, parts)
        tested = [row for split in TESTED_ON for row in test(model, parts[split], run["seed"])]
        rows.append(run | {"seconds": round(took, 1), "tested": tested})
        print(json.dumps(rows[-1]), flush=True)
        write_rows("eyes", rows, sha256)


if __name__ == "__main__":
    main()
