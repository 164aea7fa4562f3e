// The playground's engine: a classic worker that runs the book's networks on an image. It loads nothing but files of
// its own folder, and none before it is asked for a model.
//
// Messages to it are {id, do, …}. It answers in order, with {id, progress: {loaded, total, what}} any number of times,
// then {id, done: {…}} or {id, error: "a sentence"}. README.md beside this file lists what can be asked.
"use strict";

const VERSION = self.location.search; // that the page has asked for
importScripts(`maths.js${VERSION}`, `network.js${VERSION}`);

const FOLDER = new URL(".", self.location.href);
const BATCH = 7; // hidden images at a time
const NOISY = 4; // noisy ones, whose feature maps all have to be kept
let listed = null; // models.json
let started = false; // whether the runtime is there, as `tf`
const imported = new Set(); // its scripts that are
const loaded = new Map(); // by name: {entry, network}
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
  const weights = new Map(missing.flatMap((entry) => entry.weights.map((file) => [file.file, { file, entry }])));
  const absent = [...weights.values()].filter(({ file }) => !arrays.has(file.file));
  const program = programFor(), ofRuntime = started ? [] : [...listed.runtime.scripts, program];
  const tally = counter([...ofRuntime, ...absent.map(({ file }) => file)], report);
  const [, ...unpacked] = await Promise.all([
    start(program, tally),
    ...absent.map(async ({ file, entry }) => [file.file, await unpack(file, await fetched(file, tally, entry.title))]),
  ]);
  for (const [name, array] of unpacked) arrays.set(name, array);
  for (const entry of missing) {
    const network = new Network(tf, entry, entry.weights.map(({ file }) => arrays.get(file)));
    loaded.set(entry.name, { entry, network });
  }
  return { backend: tf.getBackend(), bytes: tally.loaded };
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

async function unpack({ half, single }, packed) {
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return maths.unpackWeights(new Uint8Array(await new Response(stream).arrayBuffer()), half, single);
}

// Choose the program of the runtime: with SIMD where the browser has it. (These 29 bytes are a module that uses it.)
function programFor() {
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11];
  const name = WebAssembly.validate(Uint8Array.from(simd)) ? "-simd" : "";
  return listed.runtime.programs[`tfjs-backend-wasm${name}.wasm`];
}

// Start the runtime, once.
async function start(program, tally) {
  if (started) return;
  for (const script of listed.runtime.scripts) {
    try {
      if (!imported.has(script.file)) importScripts(new URL(script.file, FOLDER));
    } catch {
      throw new Error(`${script.file} could not be loaded; is the network there?`);
    }
    imported.add(script.file);
    tally.add(script.bytes, "runtime");
  }
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false); // threads need headers that a static host does not send
  const names = ["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm", "tfjs-backend-wasm-threaded-simd.wasm"];
  const address = new URL(program.file, FOLDER).href; // each name has to be there; the one that fits is asked for
  tf.wasm.setWasmPaths(Object.fromEntries(names.map((name) => [name, address])));
  if (!(await tf.setBackend("wasm"))) throw new Error("This browser could not start the runtime.");
  tally.add(program.bytes, "runtime");
  started = true;
}

// Give a model that does a task, loading it if that has not been done.
async function modelFor(name, task, report) {
  const entry = await entryOf(name);
  if (entry.task !== task) throw new Error(`The model “${name}” is there to ${entry.task}, not to ${task}.`);
  if (!loaded.has(name)) await load({ models: [name] }, report);
  return loaded.get(name);
}

// ------------------------------------------------------------------------------------------- the four views

// Bring an image to a network's size: {data: (height · width · 3) float32 0–255, dims}.
function inputFor(entry, image) {
  const { width, height, data } = image ?? {};
  if (!(width >= 1 && height >= 1 && data?.length === 4 * width * height)) {
    throw new Error("The image is empty or broken: it has not as many pixels as its width and height say.");
  }
  const [rows, columns] = entry.size;
  return { data: maths.resize(image, columns, rows), dims: [1, rows, columns, 3] };
}

async function classify({ image, model = "lite0", top = 5 }, report) {
  const { entry, network } = await modelFor(model, "classify", report);
  const { logits } = await network.run(inputFor(entry, image));
  return { classes: maths.topClasses(logits.data, entry.classes, top) };
}

async function detect({ image, threshold, iou, model = "detector" }, report) {
  const { entry, network } = await modelFor(model, "detect", report);
  const { outputs } = await network.run(inputFor(entry, image));
  lastDetection = { entry, outputs: outputs.data, width: image.width, height: image.height };
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
  const { entry, network } = await modelFor(model, "segment", report), { classes } = entry;
  const { labels } = await network.run(inputFor(entry, image));
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
  const asked = await modelFor(model, "classify", report), labels = asked.entry.classes;
  if (target != null && !(Number.isInteger(target) && target >= 0 && target < labels.length)) {
    throw new Error(`The class ${target} is none of the model's ${labels.length}.`);
  }
  const pixels = inputFor(asked.entry, image), [, height, width] = pixels.dims;
  const { map, logits } = await METHODS[method](asked, pixels, target ?? null, message, report);
  const classes = maths.topClasses(logits.slice(0, labels.length), labels, 5), index = target ?? classes[0].index;
  return { width, height, map: maths.scaled(map), signed: false, classes, target: index, label: labels[index] };
}

// Each method is a function of (what modelFor gives, the input, the class or null for the most probable one, the
// message, report) that gives the map, of either sign, and the logits of the image.

// CAM; and Grad-CAM, which is the same on the maps that the pooling reads (see `maths.weightedSum`).
async function activationMap({ entry, network }, pixels, target) {
  const { features, logits } = await network.run(pixels);
  const [array, offset, [channels, classes]] = entry.kernel, [, height, width] = pixels.dims;
  const kernel = network.arrays[array].subarray(offset, offset + channels * classes);
  const index = target ?? maths.largest(logits.data);
  const ofClass = Float32Array.from({ length: channels }, (_, channel) => kernel[channel * classes + index]);
  const [, rows, columns] = features.dims, map = maths.weightedSum(features.data, ofClass);
  return { map: maths.resizeMap(map, columns, rows, width, height), logits: logits.data };
}

async function saliency({ network }, pixels, target) {
  const { gradient, logits } = await network.gradient(pixels, target);
  return { map: maths.pixelSums(gradient), logits };
}

// The mean gradient of noisy copies, as `cvlab.explain.smooth_grad` computes it, with noise of this generator.
async function smoothGrad({ network }, { data, dims }, target, { samples = 16, noise = 0.15, seed = 0 }, report) {
  if (!(Number.isInteger(samples) && samples >= 1 && noise >= 0)) {
    throw new Error("SmoothGrad needs at least one noisy copy, and noise that is not negative.");
  }
  const normal = maths.normalGenerator(seed), [least, most] = maths.range(data), spread = noise * (most - least);
  const logits = (await network.run({ data, dims })).logits.data, index = target ?? maths.largest(logits);
  const sum = new Float32Array(data.length);
  for (let done = 0; done < samples; ) {
    const count = Math.min(NOISY, samples - done), noisy = new Float32Array(count * data.length);
    for (let i = 0; i < noisy.length; i++) noisy[i] = data[i % data.length] + spread * normal();
    const { gradient } = await network.gradient({ data: noisy, dims: [count, ...dims.slice(1)] }, index);
    for (let i = 0; i < gradient.length; i++) sum[i % sum.length] += gradient[i] / samples;
    done += count;
    report({ loaded: done, total: samples, what: "noisy copies" });
  }
  return { map: maths.pixelSums(sum), logits };
}

// By how much the logit falls where a window hides the image behind its mean colour, as `cvlab.explain.occlusion`.
async function occlusion({ entry, network }, { data, dims }, target, message, report) {
  const [, height, width] = dims, { window = width / 4, stride = width / 8 } = message;
  if (!(Number.isInteger(window) && Number.isInteger(stride) && stride >= 1 && stride <= window && window <= width)) {
    throw new Error(`Occlusion needs a window of at most ${width} pixels, and a stride from 1 to the window's side.`);
  }
  const [tops, lefts] = [height, width].map((length) => maths.windowStarts(length, window, stride));
  const colour = maths.meanColour(data), places = tops.flatMap((top) => lefts.map((left) => [top, left]));
  const logits = (await network.run({ data, dims })).logits.data, index = target ?? maths.largest(logits);
  const falls = [], classes = entry.classes.length;
  for (let first = 0; first < places.length; first += BATCH) {
    const part = places.slice(first, first + BATCH), hidden = new Float32Array(part.length * data.length);
    part.forEach(([top, left], i) => {
      hidden.set(data, i * data.length);
      for (let y = top; y < top + window; y++) {
        for (let x = left; x < left + window; x++) hidden.set(colour, i * data.length + (y * width + x) * 3);
      }
    });
    const scores = (await network.run({ data: hidden, dims: [part.length, height, width, 3] })).logits.data;
    part.forEach((_, i) => falls.push(logits[index] - scores[i * classes + index]));
    report({ loaded: falls.length, total: places.length, what: "hidden places" });
  }
  return { map: maths.meanFalls(falls, tops, lefts, window, width, height), logits };
}
