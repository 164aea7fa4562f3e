"""Measure the memory of each lesson's kernel and of fine-tuning on 50,000 images, and what caching features saves.

    python -m experiments.memory lessons [week4/cam …]    # a kernel for each lesson, quick profile; a minute each
    python -m experiments.memory streaming                # needs cifar10 in CVLAB_DATA
    python -m experiments.memory caching                  # some minutes
    python -m experiments.memory                          # what is still missing of all three

Writes results/memory.json after each piece. Peak memory is VmHWM, what Linux says was the most that a process held at
one time; a lesson's is that of its kernel. Lessons whose code has changed since are measured again.

streaming: ResNet-20, all of it trainable, sees every training image of CIFAR-10 once, augmented, in batches of 64, in a
process of its own. What counts is the peak above that of the same process after three steps on 64 images.

caching: a new last layer on a frozen EfficientNet-Lite0 at 224×224, five epochs over 512 images, once with every image
going through the frozen network in each epoch and once with features that are computed before. Both take the same
steps from the same weights: the predictions are compared.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cvlab import run

from ._timing import RESULTS, machine, write

ROOT = Path(__file__).resolve().parents[1]
PEAK = "[line for line in open('/proc/self/status') if line.startswith('VmHWM')][0]"
BARS = {"lesson_gb": 2.5, "streaming_gb": 1.0, "caching_times": 4.0, "caching_difference": 1e-4}
IMAGES, SIDE, EPOCHS, BATCH = 512, 224, 5, 32


def peak_gb():
    """Give the most memory that this process has held so far, in GB (10⁹ bytes)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


# A lesson's kernel


def digest(name):
    """Give a checksum of all that a lesson's run depends on."""
    fingerprint = run.fingerprint(name, run.settings(name))
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


def lesson(name):
    """Execute a lesson with one more cell at its end, which says how much memory its kernel has held."""
    import nbformat
    import papermill

    notebook = run.read_notebook(name)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print({PEAK})", id="peak"))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lesson.ipynb")
        nbformat.write(notebook, path)
        done = papermill.execute_notebook(
            str(path),
            str(path),
            kernel_name="python3",
            progress_bar=False,
            cwd=str(ROOT / "chapters" / Path(name).parent),
        )
    kilobytes = int(done.cells[-1].outputs[0].text.split()[1])
    return {
        "kind": "lesson",
        "lesson": name,
        "digest": digest(name),
        "peak_gb": round(kilobytes * 1024 / 1e9, 2),
        "seconds": round(time.monotonic() - began),
    }


# All of CIFAR-10 through fine-tuning


def streaming(_rounds):
    """Fine-tune on 50,000 images; how much more memory does it take than the model and its training step?"""
    from cvlab import backend, classify, data

    backend.set_seed(0)
    model = classify.transfer(classify.backbone("resnet20"), 10, "fine_tune")
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), "uint8")
    classify.train(model, noise, np.arange(64) % 10, steps=3, batch_size=64, augment=classify.augment)
    before = peak_gb()
    part = data.load("cifar10", "train")
    loaded = peak_gb()
    steps = len(part.images) // 64
    history = classify.train(model, part.images, part.labels, steps=steps, batch_size=64, augment=classify.augment)
    return {
        "kind": "streaming",
        "images": len(part.images),
        "image_gb": round(part.images.nbytes / 1e9, 3),
        "model_gb": round(before, 2),
        "loaded_gb": round(loaded - before, 2),
        "peak_above_model_gb": round(peak_gb() - before, 2),
        "seconds": round(history["seconds"]),
        "loss": [round(float(np.mean(history["loss"][part])), 3) for part in (slice(50), slice(-50, None))],
    }


# Features computed once


def caching(rounds):
    """Train a last layer on frozen features: through the network in each epoch, and on features computed before."""
    import keras

    from cvlab import backend, classify

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, SIDE, SIDE, 3), "uint8")
    labels = generator.integers(0, 10, IMAGES)
    body = classify.backbone("efficientnet_lite0")
    body.trainable = False
    pooled = keras.Model(body.input, keras.layers.GlobalAveragePooling2D()(body.output))

    def head():
        backend.set_seed(0)
        return keras.layers.Dense(10, activation="softmax")

    def fit(model, inputs):
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        for _ in range(EPOCHS):
            for start in range(0, IMAGES, BATCH):
                model.train_on_batch(inputs[start : start + BATCH], labels[start : start + BATCH])
        return model

    def through():
        pixels = keras.Input((SIDE, SIDE, 3))
        return fit(keras.Model(pixels, head()(pooled(pixels, training=False))), images)

    def cached():
        features = np.concatenate(
            [pooled.predict_on_batch(images[start : start + BATCH]) for start in range(0, IMAGES, BATCH)]
        )
        vectors = keras.Input(features.shape[1:])
        top = fit(keras.Model(vectors, head()(vectors)), features)
        pixels = keras.Input((SIDE, SIDE, 3))
        return keras.Model(pixels, top(pooled(pixels)))

    pooled.predict_on_batch(images[:BATCH])  # which compiles it
    times, models = {"through": [], "cached": []}, {}
    for _ in range(rounds):
        for name, contestant in (("through", through), ("cached", cached)):
            began = time.perf_counter()
            models[name] = contestant()
            times[name].append(time.perf_counter() - began)
    some = images[:64]
    off = np.abs(models["through"].predict_on_batch(some) - models["cached"].predict_on_batch(some)).max()
    ratios = np.divide(times["through"], times["cached"])
    return {
        "kind": "caching",
        "images": IMAGES,
        "side": SIDE,
        "epochs": EPOCHS,
        "seconds": {name: [round(each, 1) for each in taken] for name, taken in times.items()},
        "times_faster": [round(float(ratio), 2) for ratio in ratios],
        "largest_difference": float(f"{off:.1e}"),
    }


ALONE = {"streaming": streaming, "caching": caching}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=("lessons", *ALONE), help="one of these alone (default: all)")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="these alone (default: those not measured yet)")
    parser.add_argument("--rounds", type=int, default=3, help="of `caching`, both ways in turns (default: 3)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(ALONE[options.kind](options.rounds)))
        return
    wanted = [run.find_chapter(name) for name in options.lessons] or run.chapters()
    for name in wanted if options.kind in (None, "lessons") else ():
        known = next((row for row in measured() if row.get("lesson") == name), None)
        if options.lessons or known is None or known["digest"] != digest(name):
            keep(lesson(name))
    for kind in ALONE:
        if options.kind == kind or (options.kind is None and all(row["kind"] != kind for row in measured())):
            keep(apart(kind, options.rounds))


def measured():
    """List the rows of results/memory.json."""
    path = RESULTS / "memory.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def apart(kind, rounds):
    """Measure in a process of its own, whose memory nothing else has grown."""
    command = [sys.executable, "-m", "experiments.memory", kind, "--here", "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def keep(row):
    """Write a row in place of an earlier one of the same; lessons come first, in the book's order."""
    print(json.dumps(row), flush=True)
    order = run.chapters()
    others = [each for each in measured() if (each["kind"], each.get("lesson")) != (row["kind"], row.get("lesson"))]
    rows = [each for each in [*others, row] if each["kind"] != "lesson" or each["lesson"] in order]
    rows.sort(key=lambda each: order.index(each["lesson"]) if each["kind"] == "lesson" else len(order))
    about = machine("keras", "tensorflow-cpu", "numpy")
    write("memory", {"command": "python -m experiments.memory", "bars": BARS, "machine": about, "rows": rows})


if __name__ == "__main__":
    main()
