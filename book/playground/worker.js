// The playground's engine: a classic worker that runs the book's networks on an image. It loads nothing but files of its
// own folder, and none before it is asked for a model.
//
// Messages to it are {id, do, …}. It answers in order, with {id, progress: {loaded, total, what}} any number of times,
// and then {id, done: {…}} or {id, error: "a sentence"}. README.md beside this file lists what can be asked.
"use strict";

importScripts(`maths.js${self.location.search}`); // with the version that the page has asked for

const FOLDER = new URL(".", self.location.href);
const BATCH = 7; // hidden images at a time; of SmoothGrad, half as many noisy ones
let listed = null; // models.json
let runtime = null; // {ort, backend}
const loaded = new Map(); // by name: {entry, weights, sessions}
const arrays = new Map(); // weights by the name of their file, which several models may share
let lastDetection = null; // what `redetect` filters again

const answers = { load, classify, detect, redetect, segment, explain };
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  queue = queue.then(() => answer(data));
};

async function answer(message) {
  const { id } = message;
  try {
    if (!Object.hasOwn(answers, message.do)) {
      throw new Error(`The engine does not know “${message.do}”; it can ${Object.keys(answers).join(", ")}.`);
    }
    const start = performance.now();
    const done = await answers[message.do](message, (progress) => self.postMessage({ id, progress }));
    done.seconds = (performance.now() - start) / 1000;
    const moved = [done.labels, done.map].filter((value) => ArrayBuffer.isView(value));
    self.postMessage({ id, done }, moved.map((array) => array.buffer));
  } catch (error) {
    self.postMessage({ id, error: sentence(error) });
  }
}

// Make a sentence of what went wrong.
function sentence(error) {
  const text = String(error?.message ?? error).trim() || "Something went wrong, and the browser does not say what.";
  const closed = /[.!?]$/.test(text) ? text : `${text}.`;
  return closed[0].toUpperCase() + closed.slice(1);
}

// ------------------------------------------------------------------------------------------- loading

async function load({ models }, report) {
  if (!Array.isArray(models) || !models.length) throw new Error("Loading needs a list of models.");
  const entries = await Promise.all([...new Set(models)].map(entryOf));
  const missing = entries.filter((entry) => !loaded.has(entry.name));
  const weights = new Map(missing.flatMap((entry) => entry.weights).map((file) => [file.file, file]));
  const absent = [...weights.values()].filter(({ file }) => !arrays.has(file));
  const graphs = missing.map((entry) => entry.graphs.forward);
  const tally = counter([...(runtime ? [] : listed.runtime.wasm), ...absent, ...graphs], report);
  const title = (file) =>
    missing.find(({ weights, graphs }) => [...weights, graphs.forward].some((each) => each.file === file.file)).title;
  const [, unpacked, forward] = await Promise.all([
    start(tally),
    Promise.all(absent.map(async (file) => [file.file, await unpack(file, await fetched(file, tally, title(file)))])),
    Promise.all(graphs.map((file) => fetched(file, tally, title(file)))),
  ]);
  for (const [name, array] of unpacked) arrays.set(name, array);
  for (const [i, entry] of missing.entries()) {
    const network = { entry, weights: entry.weights.map(({ file }) => arrays.get(file)), sessions: {} };
    network.sessions.forward = await session(forward[i], network);
    loaded.set(entry.name, network);
  }
  return { backend: runtime.backend, bytes: tally.loaded };
}

// Find a model in models.json.
async function entryOf(name) {
  listed ??= await (await response("models.json", { cache: "no-cache" })).json();
  const entry = listed.models.find((each) => each.name === name);
  if (!entry) {
    throw new Error(`There is no model “${name}”; there are ${listed.models.map((each) => each.name).join(", ")}.`);
  }
  return entry;
}

// Count the bytes of all files of one request.
function counter(files, report) {
  const tally = { loaded: 0, total: files.reduce((sum, file) => sum + file.bytes, 0) };
  tally.add = (bytes, what) => {
    tally.loaded += bytes;
    report({ loaded: tally.loaded, total: tally.total, what });
  };
  return tally;
}

async function response(file, options) {
  let answer;
  try {
    answer = await fetch(new URL(file, FOLDER), options);
  } catch {
    throw new Error(`${file} could not be loaded; is the network there?`);
  }
  if (!answer.ok) throw new Error(`${file} could not be loaded: the server answered ${answer.status}.`);
  return answer;
}

// Fetch a file, whose name holds a hash or a version, so that what the browser has kept is as good as new.
async function fetched({ file }, tally, what) {
  const reader = (await response(file, { cache: "force-cache" })).body.getReader(), chunks = [];
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    chunks.push(value);
    tally.add(value.length, what);
  }
  return new Blob(chunks);
}

async function unzipped(blob) {
  const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Start the runtime, once.
async function start(tally) {
  if (runtime) return;
  const [script, program] = listed.runtime.wasm;
  const [{ default: ort }, binary] = await Promise.all([
    import(new URL(script.file, FOLDER)).then((module) => {
      tally.add(script.bytes, "runtime");
      return module;
    }),
    fetched(program, tally, "runtime"),
  ]);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more need headers that a static host does not send
  ort.env.wasm.wasmBinary = await binary.arrayBuffer();
  runtime = { ort, backend: "wasm" };
}

async function unpack({ half, single }, packed) {
  return maths.unpackWeights(await unzipped(packed), half, single);
}

async function session(graph, { entry, weights }) {
  return runtime.ort.InferenceSession.create(await unzipped(graph), {
    executionProviders: [runtime.backend],
    graphOptimizationLevel: "all",
    externalData: entry.weights.map(({ location }, i) => ({ path: location, data: new Uint8Array(weights[i].buffer) })),
  });
}

// Give a model that does a task, loading it if that has not been done.
async function modelFor(name, task, report) {
  const entry = await entryOf(name);
  if (entry.task !== task) throw new Error(`The model “${name}” is there to ${entry.task}, not to ${task}.`);
  if (!loaded.has(name)) await load({ models: [name] }, report);
  return loaded.get(name);
}

// Run a session: feeds and outputs are {name: {data, dims}}.
async function run(session, feeds) {
  const { Tensor } = runtime.ort;
  const inputs = Object.entries(feeds).map(([name, { data, dims }]) => [name, new Tensor("float32", data, dims)]);
  const outputs = await session.run(Object.fromEntries(inputs));
  const values = Object.entries(outputs).map(([name, { data, dims }]) => [name, { data, dims }]);
  for (const tensor of [...Object.values(outputs), ...inputs.map(([, tensor]) => tensor)]) tensor.dispose();
  return Object.fromEntries(values);
}

// ------------------------------------------------------------------------------------------- the four views

// Bring an image to a network's size: {data: (height · width · 3) float32 0–255, dims}.
function inputFor({ entry }, image) {
  const { width, height, data } = image ?? {};
  if (!(width >= 1 && height >= 1 && data?.length === 4 * width * height)) {
    throw new Error("The image is empty or broken: it has not as many pixels as its width and height say.");
  }
  const [rows, columns] = entry.size;
  return { data: maths.resize(image, columns, rows), dims: [1, rows, columns, 3] };
}

async function classify({ image, model = "lite0", top = 5 }, report) {
  const network = await modelFor(model, "classify", report);
  const { logits } = await run(network.sessions.forward, { pixels: inputFor(network, image) });
  return { classes: maths.topClasses(logits.data, network.entry.classes, top) };
}

async function detect({ image, threshold, iou, model = "detector" }, report) {
  const network = await modelFor(model, "detect", report);
  const { outputs } = await run(network.sessions.forward, { pixels: inputFor(network, image) });
  lastDetection = { entry: network.entry, outputs: outputs.data, width: image.width, height: image.height };
  return redetect({ threshold, iou });
}

async function redetect({ threshold = 0.3, iou = 0.5 }) {
  if (!lastDetection) throw new Error("Nothing has been detected yet, so there is nothing to filter again.");
  if (!(threshold > 0 && threshold < 1 && iou >= 0 && iou <= 1)) {
    throw new Error("The threshold must lie between 0 and 1, and so must the IoU.");
  }
  const { entry, outputs, width, height } = lastDetection, { anchors, variances, classes } = entry;
  const [side] = entry.size, places = (lastDetection.places ??= maths.anchors(side, anchors));
  const detected = maths.detections(outputs, places, classes.length, variances, { threshold, iou });
  const boxes = detected.map(({ box, index, score }) => {
    const inImage = box.map((value, i) => {
      const length = i % 2 ? height : width;
      return Math.min(Math.max((value * length) / side, 0), length);
    });
    return { box: inImage, label: classes[index], index, score };
  });
  return { boxes };
}

async function segment({ image, model = "segmenter" }, report) {
  const network = await modelFor(model, "segment", report), { classes } = network.entry;
  const { labels } = await run(network.sessions.forward, { pixels: inputFor(network, image) });
  const [height, width] = labels.dims.slice(-2), counts = new Array(classes.length).fill(0);
  for (const label of labels.data) counts[label] += 1;
  const shares = counts
    .map((count, index) => ({ index, label: classes[index], share: count / labels.data.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
  return { width, height, labels: Uint8Array.from(labels.data), classes, shares };
}

// ------------------------------------------------------------------------------------------- why

const METHODS = { cam: activationMap, grad_cam: activationMap, saliency, smooth_grad: smoothGrad, occlusion };

async function explain(message, report) {
  const { image, model = "lite0", method, target } = message;
  if (!Object.hasOwn(METHODS, method)) {
    throw new Error(`There is no method “${method}”; there are ${Object.keys(METHODS).join(", ")}.`);
  }
  const network = await modelFor(model, "classify", report), labels = network.entry.classes;
  if (target != null && !(Number.isInteger(target) && target >= 0 && target < labels.length)) {
    throw new Error(`The class ${target} is none of the model's ${labels.length}.`);
  }
  const pixels = inputFor(network, image), [, height, width] = pixels.dims;
  const forward = await run(network.sessions.forward, { pixels });
  const classes = maths.topClasses(forward.logits.data, labels, 5), index = target ?? classes[0].index;
  const map = await METHODS[method](network, pixels, forward, index, message, report);
  return { width, height, map: maths.scaled(map), signed: false, classes, target: index, label: labels[index] };
}

// CAM; and Grad-CAM, which is the same on the maps that the pooling reads (see `maths.weightedSum`).
function activationMap({ entry, weights }, pixels, { features }, target) {
  const { offset, channels, classes } = entry.kernel, [, height, width] = pixels.dims;
  const kernel = weights[0].subarray(offset, offset + channels * classes);
  const ofClass = Float32Array.from({ length: channels }, (_, channel) => kernel[channel * classes + target]);
  const [, , rows, columns] = features.dims;
  return maths.resizeMap(maths.weightedSum(features.data, ofClass), columns, rows, width, height);
}

// The gradient of a class's logit with respect to images, (N · height · width · 3), summed over the N.
async function gradient(network, { data, dims }, target) {
  const { entry, sessions } = network, [count, height, width] = dims;
  if (!sessions.gradient) {
    const silent = counter([], () => {});
    sessions.gradient = await session(await fetched(entry.graphs.gradient, silent, entry.title), network);
  }
  const onehot = new Float32Array(count * entry.classes.length);
  for (let i = 0; i < count; i++) onehot[i * entry.classes.length + target] = 1;
  const feeds = { pixels: { data, dims }, onehot: { data: onehot, dims: [count, entry.classes.length] } };
  const slope = (await run(sessions.gradient, feeds)).gradient.data, size = height * width * 3;
  if (count === 1) return slope;
  const sum = new Float32Array(size);
  for (let i = 0; i < slope.length; i++) sum[i % size] += slope[i];
  return sum;
}

async function saliency(network, pixels, forward, target) {
  return maths.pixelSums(await gradient(network, pixels, target));
}

// The mean gradient of noisy copies, as `cvlab.explain.smooth_grad` computes it, with noise of this generator.
async function smoothGrad(network, { data, dims }, forward, target, { samples = 16, noise = 0.15, seed = 0 }, report) {
  if (!(Number.isInteger(samples) && samples >= 1 && noise >= 0)) {
    throw new Error("SmoothGrad needs at least one noisy copy, and noise that is not negative.");
  }
  const normal = maths.normalGenerator(seed), [least, most] = maths.range(data), spread = noise * (most - least);
  const sum = new Float32Array(data.length);
  for (let done = 0; done < samples; ) {
    const count = Math.min(BATCH >> 1, samples - done), noisy = new Float32Array(count * data.length);
    for (let i = 0; i < noisy.length; i++) noisy[i] = data[i % data.length] + spread * normal();
    const part = await gradient(network, { data: noisy, dims: [count, ...dims.slice(1)] }, target);
    for (let i = 0; i < sum.length; i++) sum[i] += part[i] / samples;
    done += count;
    report({ loaded: done, total: samples, what: "noisy copies" });
  }
  return maths.pixelSums(sum);
}

// By how much the logit falls where a window hides the image behind its mean colour, as `cvlab.explain.occlusion`.
async function occlusion(network, { data, dims }, { logits }, target, message, report) {
  const [, height, width] = dims, { window = width / 4, stride = width / 8 } = message;
  if (!(Number.isInteger(window) && Number.isInteger(stride) && stride >= 1 && stride <= window && window <= width)) {
    throw new Error(`Occlusion needs a window of at most ${width} pixels, and a stride from 1 to the window's side.`);
  }
  const [tops, lefts] = [height, width].map((length) => maths.windowStarts(length, window, stride));
  const colour = maths.meanColour(data), places = tops.flatMap((top) => lefts.map((left) => [top, left]));
  const falls = [], classes = network.entry.classes.length;
  for (let first = 0; first < places.length; first += BATCH) {
    const part = places.slice(first, first + BATCH), hidden = new Float32Array(part.length * data.length);
    part.forEach(([top, left], i) => {
      hidden.set(data, i * data.length);
      for (let y = top; y < top + window; y++) {
        for (let x = left; x < left + window; x++) hidden.set(colour, i * data.length + (y * width + x) * 3);
      }
    });
    const pixels = { data: hidden, dims: [part.length, height, width, 3] };
    const scores = (await run(network.sessions.forward, { pixels })).logits.data;
    part.forEach((_, i) => falls.push(logits.data[target] - scores[i * classes + target]));
    report({ loaded: falls.length, total: places.length, what: "hidden places" });
  }
  return maths.meanFalls(falls, tops, lefts, window, width, height);
}
