"""Make the files of the playground's models, which run in the reader's browser, from the weights that the lessons use.

    python book/playground/export.py OUT_DIR

OUT_DIR gets `models.json`, which holds the layers of each model (see `describe.py`), and files of weights, compressed
with gzip, whose names hold a hash of what is in them. A model is written once for its weights and its exporter, into
_build/playground, and copied from there ever after.
"""

import argparse
import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "_build" / "playground"
RUNTIME = ROOT / "node_modules" / "@tensorflow"
# What the worker loads of the runtime: scripts, in this order, and the program in WebAssembly that fits the browser.
SCRIPTS = (("tfjs-core", "tf-core.min.js"), ("tfjs-backend-wasm", "tf-backend-wasm.min.js"))
PROGRAMS = (
    ("tfjs-backend-wasm", "tfjs-backend-wasm-simd.wasm"),
    ("tfjs-backend-wasm", "tfjs-backend-wasm.wasm"),  # for browsers of before 2021
)
# Whose code decides what a model computes, beside its weights.
SOURCES = (
    HERE / "export.py",
    HERE / "describe.py",
    *(ROOT / "cvlab" / f"{name}.py" for name in ("zoo", "retinanet", "segment", "segmenter", "checkpoints")),
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the playground.

    Attributes:
        name: by which the page asks for it.
        title: for people.
        task: "classify", "detect" or "segment".
        weights: name of the weights in data/weights, without the suffix.
        size: (height, width) of its input in pixels; images are resized to it, whatever their shape.
        build: function without arguments that gives its `describe.Description`, and what models.json holds beside.
        beside: names of other weights that it is built from.
    """

    name: str
    title: str
    task: str
    weights: str
    size: tuple[int, int]
    build: Callable
    beside: tuple[str, ...] = ()


def models():
    """List the models whose weights are embedded."""
    everything = (
        Model("lite0", "EfficientNet-Lite0", "classify", "efficientnet_lite0_imagenet", (224, 224), lite0),
        Model("eyes", "cat or dog, before", "classify", "resnet20_eyes", (96, 96), toy("resnet20_eyes")),
        Model(
            "eyes_mended",
            "cat or dog, after",
            "classify",
            "resnet20_eyes_mended",
            (96, 96),
            toy("resnet20_eyes_mended"),
        ),
        Model("pavement", "car or not, before", "classify", "resnet20_pavement", (48, 48), toy("resnet20_pavement")),
        Model(
            "pavement_mended",
            "car or not, after",
            "classify",
            "resnet20_pavement_mended",
            (48, 48),
            toy("resnet20_pavement_mended"),
        ),
        Model("detector", "RetinaNet", "detect", "retinanet_toybox", (256, 256), detector),
        Model("segmenter", "segmenter", "segment", "segmenter_toybox", (224, 224), segmenter, ("retinanet_toybox",)),
    )
    return [model for model in everything if all(path.exists() for path in weights_files(model))]


def weights_files(model):
    return [ROOT / "data" / "weights" / f"{name}.weights.h5" for name in (model.weights, *model.beside)]


CLASSES = {"eyes": ("cat", "dog"), "pavement": ("other", "car")}


def lite0():
    from cvlab import classify, data

    return classifier(classify.efficientnet_lite0(), (224, 224), data.imagenet_classes())


def toy(weights):
    """Make the function that builds one of the ResNet-20s of two classes."""

    def build():
        from cvlab import classify, data

        dataset = weights.split("_")[1]
        size = (96, 96) if dataset == "eyes" else (48, 48)
        return classifier(classify.resnet20(data.weights(weights), num_classes=2), size, CLASSES[dataset])

    return build


def classifier(model, size, class_names):
    import describe

    described, places = describe.classifier(model, size)
    outputs = {name: places[name] for name in ("logits", "features")}
    return described, {"classes": list(class_names), "outputs": outputs, "kernel": places["kernel"]}


def detector():
    """Describe the RetinaNet with its two outputs side by side: (1, anchors, classes + 4)."""
    import describe
    import keras

    from cvlab import retinanet

    model = retinanet.restore("retinanet_toybox").model
    joined = keras.layers.Concatenate(axis=-1)([model.output["class"], model.output["box"]])
    config = model.config
    side = (config.input_size,) * 2
    described = describe.Description(keras.Model(model.input, joined), side, common="backbone")
    anchors = {key: list(getattr(config, key)) for key in ("strides", "anchor_sizes", "ratios", "scales")}
    return described, {
        "classes": list(config.class_names),
        "outputs": {"outputs": len(described.layers)},
        "anchors": anchors,
        "variances": list(retinanet.VARIANCES),
    }


def segmenter():
    """Describe the segmenter, whose backbone is the detector's, so that its weights are the same file."""
    from cvlab import segmenter

    model = segmenter.restore("segmenter_toybox")
    described, outputs = segmenter_layers(model, (model.input_size,) * 2, "backbone")
    return described, {"classes": list(model.class_names), "outputs": outputs}


def segmenter_layers(model, size, common=None):
    """Describe a network that scores pixels, or larger cells, with the class of each pixel, (1, H, W), behind it."""
    import describe

    described = describe.Description(model, size, common)
    last = len(described.layers)
    if tuple(described.graph.shapes[described.graph.output][1:3]) != tuple(size):
        described.layers.append({"op": "bilinear", "size": list(size), "from": [last]})
    described.layers.append({"op": "classes", "from": [len(described.layers)]})
    return described, {"labels": len(described.layers)}


def export(out_dir: str | Path, report: Callable = lambda line: None) -> dict:
    """Write the files of all models, and models.json.

    Args:
        out_dir: folder, made if there is none; other files in it stay.
        report: function of a line that says what is done.

    Returns:
        What models.json holds.

    Raises:
        FileNotFoundError: if `npm ci` has not installed the runtime.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    entries = []
    for model in models():
        start, folder = time.perf_counter(), CACHE / key(model)
        if not (folder / "entry.json").exists():
            write(model, folder)
            report(f"{model.name}: written in {time.perf_counter() - start:.1f} s")
        entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        for file in entry["weights"]:
            put(folder / file["file"], out_dir / file["file"])
        entries.append(entry)
    listed = {"version": 1, "runtime": runtime(), "models": entries}
    text = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
    part = out_dir / "models.json.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, out_dir / "models.json")
    return listed


def key(model):
    """Hash what decides the files of a model: its weights, and the code that writes it."""
    digest = hashlib.sha256(model.name.encode())
    for path in (*weights_files(model), *(path for path in SOURCES if path.exists())):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{model.name}-{digest.hexdigest()[:16]}"


def write(model, folder):
    """Build a model and write its files into a new folder, which appears only when it is whole."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path[:0] = [path for path in (str(ROOT), str(HERE)) if path not in sys.path]
    CACHE.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{model.name}.", dir=CACHE))
    try:
        described, details = model.build()
        files = [
            {"half": each.count("half"), "single": each.count("single")}
            # What models have in common is one file for all of them.
            | kept(part, f"{each.name or model.name}.weights", gzip.compress(each.packed(), 9, mtime=0))
            for each in described.weights
        ]
        entry = {"name": model.name, "title": model.title, "task": model.task, "size": list(model.size)}
        entry |= {"bytes": sum(file["bytes"] for file in files)} | details
        entry |= {"weights": files, "layers": described.layers}
        (part / "entry.json").write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        for old in CACHE.glob(f"{model.name}-*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process may have been faster, with the same files
            os.replace(part, folder)
        if not (folder / "entry.json").exists():
            raise OSError(f"{folder} could not be written")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def kept(folder, name, content):
    """Write a file with the hash of its content in its name, and say what it is called, how long, and its sha256."""
    digest = hashlib.sha256(content).hexdigest()
    stem, suffix = name.rsplit(".", 1)
    file = f"{stem}.{digest[:12]}.{suffix}"
    (folder / file).write_bytes(content)
    return {"file": file, "bytes": len(content), "sha256": digest}


def put(source, target):
    """Copy a file aside and rename it, unless it is already there."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    os.replace(part, target)


def runtime():
    """List the runtime's files for models.json: {"scripts": [{file, bytes}, …], "programs": the same by names}."""
    files = [{"file": target, "bytes": source.stat().st_size} for source, target in runtime_files()]
    programs = {name: file for (_, name), file in zip(PROGRAMS, files[len(SCRIPTS) :], strict=True)}
    return {"scripts": files[: len(SCRIPTS)], "programs": programs}


def runtime_files() -> list[tuple[Path, str]]:
    """List the files that the worker loads the runtime from, beside worker.js.

    Returns:
        (source path, target name) of each; the target's name holds the runtime's version.

    Raises:
        FileNotFoundError: if `npm ci` has not installed the runtime.
    """
    files = []
    for package, name in (*SCRIPTS, *PROGRAMS):
        folder = RUNTIME / package
        if not (folder / "package.json").exists():
            raise FileNotFoundError(f"{folder} is missing; `npm ci` (or `make book`) installs the playground's runtime")
        version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
        stem, suffix = name.split(".", 1)
        files.append((folder / "dist" / name, f"{stem}-{version}.{suffix}"))
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    options = parser.parse_args()
    try:
        listed = export(options.out_dir, lambda line: print(f"playground: {line}", file=sys.stderr))
    except (OSError, ValueError) as error:
        sys.exit(f"playground: {error}")
    for entry in listed["models"]:
        print(f"{entry['name']:16} {entry['bytes'] / 1e6:6.2f} MB")


if __name__ == "__main__":
    main()
