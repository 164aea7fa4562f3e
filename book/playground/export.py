"""Make the files of the playground's models, which run in the reader's browser, from the weights that the lessons use.

    python book/playground/export.py OUT_DIR

OUT_DIR gets `models.json` and, for each model, one file of weights and one or two graphs (see `onnx_graph.py`); their
names hold a hash of what is in them, and all are compressed with gzip. A model is written once for its weights and its
exporter, into _build/playground, and copied from there ever after.
"""

import argparse
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
RUNTIME = ROOT / "node_modules" / "onnxruntime-web"
# What the worker loads of the runtime: a module, and the program that it runs.
RUNTIME_FILES = {"wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")}
# Whose code decides what a model computes, beside its weights.
SOURCES = (
    HERE / "export.py",
    HERE / "onnx_graph.py",
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
        build: function without arguments that gives its graphs, a list of its `Weights`, and what models.json holds
            beside.
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
    import onnx_graph

    graphs, weights, (place, channels, num_classes) = onnx_graph.classifier(model, size)
    kernel = {"offset": place, "channels": channels, "classes": num_classes}
    return graphs, weights, {"classes": list(class_names), "kernel": kernel}


def detector():
    """Write the RetinaNet with its two outputs side by side: (1, anchors, classes + 4)."""
    import keras
    import onnx_graph

    from cvlab import retinanet

    model = retinanet.restore("retinanet_toybox").model
    joined = keras.layers.Concatenate(axis=-1)([model.output["class"], model.output["box"]])
    config = model.config
    side = (config.input_size,) * 2
    graphs, weights = onnx_graph.plain(keras.Model(model.input, joined), side, "outputs", common="backbone")
    keys = ("strides", "anchor_sizes", "ratios", "scales")
    anchors = {key: list(getattr(config, key)) for key in keys}
    details = {"classes": list(config.class_names), "anchors": anchors, "variances": list(retinanet.VARIANCES)}
    return graphs, weights, details


def segmenter():
    """Write the segmenter, whose backbone is the detector's, so that its weights are the same file."""
    from cvlab import segmenter

    model = segmenter.restore("segmenter_toybox")
    graphs, weights = segmenter_graphs(model, (model.input_size,) * 2, "backbone")
    return graphs, weights, {"classes": list(model.class_names)}


def segmenter_graphs(model, size, common=None):
    """Write a network that scores pixels: graphs that give the class of each pixel, (1, H, W) int32, and the weights.

    Its logits are those of `segment.fcn`, or of larger cells, and are then upsampled bilinearly.
    """
    import onnx_graph

    return onnx_graph.plain(model, size, "labels", onnx_graph.classes_of_pixels, common)


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
        for file in (*entry["weights"], *entry["graphs"].values()):
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
        graphs, weights, details = model.build()
        packed = [
            {"location": each.location, "half": each.count("half"), "single": each.count("single")}
            # What models have in common is one file for all of them.
            | kept(part, f"{model.name if each is weights[0] else each.location}.weights", zipped(each.packed()))
            for each in weights
        ]
        written = {
            name: kept(part, f"{model.name}.{name}.onnx", zipped(graph.SerializeToString(deterministic=True)))
            for name, graph in graphs.items()
        }
        entry = {"name": model.name, "title": model.title, "task": model.task, "size": list(model.size)}
        entry |= {"bytes": sum(file["bytes"] for file in (*packed, *written.values()))}
        entry |= details | {"weights": packed, "graphs": written}
        (part / "entry.json").write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
        for old in CACHE.glob(f"{model.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def zipped(content):
    """Compress bytes, to the same ones whenever it is done: not every host compresses what it doesn't know."""
    return gzip.compress(content, 9, mtime=0)


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
    """List the runtime's files for models.json, by backend: [{file, bytes}, …] in the order of RUNTIME_FILES."""
    listed = {}
    for backend, names in RUNTIME_FILES.items():
        targets = dict(zip(names, (target for _, target in runtime_files(backend)), strict=True))
        sizes = [(RUNTIME / "dist" / name).stat().st_size for name in names]
        listed[backend] = [{"file": targets[name], "bytes": size} for name, size in zip(names, sizes)]
    return listed


def runtime_files(backend: str | None = None) -> list[tuple[Path, str]]:
    """List the files that the worker loads the runtime from, beside worker.js.

    Args:
        backend: "wasm", or None for all.

    Returns:
        (source path, target name) of each; the target's name holds the runtime's version.

    Raises:
        FileNotFoundError: if `npm ci` has not installed the runtime.
    """
    package = RUNTIME / "package.json"
    if not package.exists():
        raise FileNotFoundError(f"{package} is missing; `npm ci` (or `make book`) installs the playground's runtime")
    version = json.loads(package.read_text(encoding="utf-8"))["version"]
    names = [name for kind, names in RUNTIME_FILES.items() if backend in (None, kind) for name in names]
    # Not every host knows .mjs as JavaScript.
    return [(RUNTIME / "dist" / name, f"{version}-{name}".replace(".mjs", ".js")) for name in names]


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
