// Stands in for book/playground/worker.js in tests of the page: answers at once, with made-up results that depend on
// the pixels that it was given, so that a test can tell one image from another.

const LABELS = ["tiger cat", "lynx", "tabby", "Egyptian cat", "red fox"];
const seen = [];
let raw = null;

function mean({ data }, channel) {
  let sum = 0;
  for (let k = channel; k < data.length; k += 4) sum += data[k];
  return sum / (data.length / 4);
}

function classes(image) {
  const first = 0.3 + mean(image, 0) / 1000;
  return [first, 0.12, 0.08, 0.05, 0.002].map((probability, k) => ({ index: 280 + k, label: LABELS[k], probability }));
}

function boxes({ width, height }, threshold) {
  const all = [
    { box: [0.1 * width, 0.2 * height, 0.5 * width, 0.9 * height], label: "cat", index: 3, score: 0.92 },
    { box: [0.55 * width, 0.4 * height, 0.95 * width, 0.85 * height], label: "car", index: 2, score: 0.41 },
  ];
  return all.filter(({ score }) => score >= threshold);
}

const ANSWERS = {
  load: ({ id, models }) => {
    self.postMessage({ id, progress: { loaded: 1e6, total: 4e6, what: models[0] } });
    return { backend: "fake", bytes: 4e6, seconds: 0.01 };
  },
  classify: ({ image }) => ({ classes: classes(image), seconds: 0.012 }),
  detect: ({ image, threshold }) => {
    raw = image;
    return { boxes: boxes(image, threshold), seconds: 0.1 };
  },
  redetect: ({ threshold }) => ({ boxes: boxes(raw, threshold), seconds: 0.001 }),
  segment: ({ image: { width, height } }) => {
    const labels = new Uint8Array(width * height).map((_, k) => (k % width < width / 4 ? 5 : 0));
    const names = ["floor", "wall", "ball", "block", "car", "cat", "dog", "fish", "mug", "mushroom", "tree"];
    const shares = [{ label: "floor", share: 0.75 }, { label: "cat", share: 0.25 }];
    return { width, height, labels, classes: names, shares, seconds: 0.1 };
  },
  explain: ({ image, method, target = 280 }) => {
    const [width, height] = [24, 24];
    const map = new Float32Array(width * height);
    for (let k = 0; k < map.length; k++) map[k] = Math.exp(-((k % width - 9) ** 2 + (Math.floor(k / width) - 9) ** 2) / 40);
    if (method === "occlusion") throw new Error("Occlusion failed on purpose.");
    return { width, height, map, classes: classes(image), target, label: LABELS[target - 280], seconds: 0.05 };
  },
};

self.addEventListener("message", ({ data }) => {
  seen.push(data.do);
  try {
    if (data.image && !(data.image.data instanceof Uint8ClampedArray)) throw new Error("The image has no pixels.");
    if (data.image && data.image.data.length !== 4 * data.image.width * data.image.height) throw new Error("Wrong size.");
    self.postMessage({ id: data.id, done: ANSWERS[data.do](data) });
  } catch (error) {
    self.postMessage({ id: data.id, error: error.message });
  }
});
