// The playground's page: the reader's image, four views of it, and words about what came out.
//
// The networks run in worker.js, files become pixels in read_image.js (another worker). Neither is fetched before the
// reader has asked for something. Nothing is stored, and nothing leaves the page.

(function () {
  "use strict";

  const app = document.getElementById("playground");
  const part = (name) => app.querySelector(`[data-part="${name}"]`);
  const all = (selector) => [...app.querySelectorAll(selector)];
  const book = JSON.parse(part("data").textContent);
  const FOLDER = "playground/";
  const SIDE = 1024; // pixels of an image's longer side at most
  const VIEWS = ["classify", "detect", "segment", "explain"];
  const METHODS = { cam: "CAM", grad_cam: "Grad-CAM", saliency: "Saliency", smooth_grad: "SmoothGrad", occlusion: "Occlusion" };
  const WHAT = {
    classify: "What is in the image? Five classes with the highest probability.",
    detect: "Which toys are where? The book's RetinaNet knows nine classes of toys.",
    segment: "Which class does each pixel belong to? The book's FCN-8s knows toys, floor and wall.",
    explain: "Where in the image is the evidence for a class?",
  };
  const state = {
    image: null,
    view: "classify",
    network: "lite0",
    mended: false,
    method: "grad_cam",
    target: null, // the class to explain; null: the likeliest
    threshold: 0.5,
    iou: 0.5,
    opacity: 0.75,
    truth: false,
    place: null, // [x, y] from 0 to 1, where the reader asked what lies there
  };
  let results = new Map(); // of this image
  let networkChosen = false; // by the reader or the address, rather than with an image of the book
  let started = false; // the reader has asked for a result, so that models may be loaded

  // ---- what the page says and draws ------------------------------------------------------------------------------

  const percent = (share) => (share > 0 && share < 0.005 ? "<1\u00a0%" : `${Math.round(100 * share)}\u00a0%`);
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
  const counted = (count, one, several = `${one}s`) => `${count} ${count === 1 ? one : several}`;

  function create(tag, attributes, ...content) {
    const element = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...content);
    return element;
  }

  function draw(tag, attributes, parent) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    parent.append(element);
    return element;
  }

  function say(name, words) {
    part(name).textContent = words;
  }

  function fail(words) {
    say("error", words);
    part("status").hidden = true;
  }

  function tell(what, loaded, total) {
    part("status").hidden = false;
    const bytes = total > 1000; // a network's file; else steps of a method
    const far = !total ? "" : bytes ? `: ${megabytes(loaded)} of ${megabytes(total)}` : `: ${loaded} of ${total}`;
    say("doing", what[0].toUpperCase() + what.slice(1) + far);
    if (total) part("progress").value = loaded / total;
    else part("progress").removeAttribute("value");
  }

  // ---- the two workers -------------------------------------------------------------------------------------------

  // A worker that answers messages by their id; it is made with the first one, and anew after it has failed.
  class Answering {
    constructor(address, options) {
      Object.assign(this, { address, options, worker: null, waiting: new Map(), last: 0 });
    }

    ask(message, progress = () => {}) {
      if (!this.worker) this.start();
      const id = ++this.last;
      return new Promise((resolve, reject) => {
        this.waiting.set(id, { resolve, reject, progress });
        this.worker.postMessage({ ...message, id });
      });
    }

    start() {
      this.worker = new Worker(this.address, this.options);
      this.worker.addEventListener("message", ({ data }) => {
        const one = this.waiting.get(data.id);
        if (!one) return;
        if (data.progress) return one.progress(data.progress);
        this.waiting.delete(data.id);
        if (data.error) one.reject(new Error(data.error));
        else one.resolve(data.done || data.image);
      });
      this.worker.addEventListener("error", (event) => {
        event.preventDefault();
        this.stop(new Error("This did not run to its end; the browser may be out of memory. Try again, or a smaller image."));
      });
    }

    stop(error) {
      this.worker.terminate();
      this.worker = null;
      const left = [...this.waiting.values()];
      this.waiting.clear();
      left.forEach((one) => one.reject(error));
    }
  }

  const networks = new Answering(`${FOLDER}worker.js?v=${book.version}`);
  const reader = new Answering(`${FOLDER}read_image.js?v=${book.version}`, { type: "module" });
  const loaded = new Set(); // models in the worker
  let detectedIn = null; // the image whose raw detections the worker holds

  async function readFile(file) {
    if (typeof OffscreenCanvas !== "undefined") return reader.ask({ file, side: SIDE });
    const { readImage } = await import(new URL(FOLDER + "read_image.js", document.baseURI));
    return readImage(file, SIDE);
  }

  async function load(models) {
    const missing = models.filter((name) => !(name in book.models));
    if (missing.length) throw new Error(missingModel(missing[0]));
    const wanted = models.filter((name) => !loaded.has(name));
    if (!wanted.length) return;
    await networks.ask({ do: "load", models: wanted }, ({ loaded, total, what }) =>
      tell(`Loading ${!what || what === "runtime" ? "the runtime" : what}`, loaded, total),
    );
    wanted.forEach((name) => loaded.add(name));
  }

  function missingModel(name) {
    const names = { segmenter: "The network that segments", detector: "The network that detects" };
    return `${names[name] || "This network"} is not part of this copy of the book.`;
  }

  // ---- the image -------------------------------------------------------------------------------------------------

  async function choose(image) {
    say("error", "");
    state.image = image;
    state.target = state.place = null;
    results = new Map();
    const canvas = part("image");
    canvas.width = image.large.width;
    canvas.height = image.large.height;
    canvas.getContext("2d").putImageData(image.large, 0, 0);
    canvas.setAttribute("aria-label", image.alt);
    part("stage").dataset.full = "";
    part("stage").style.setProperty("--aspect", image.large.width / image.large.height);
    all("[data-image]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.image === image.id)));
    clear();
    refresh();
    const narrow = matchMedia("(max-width: 56rem)").matches;
    if (narrow && started) part("body").scrollIntoView({ block: "start" });
  }

  let newest = 0;

  // Read what `source` gives, and show it unless the reader has chosen another image since.
  async function open(source, what) {
    const turn = ++newest;
    say("error", "");
    tell(what);
    try {
      const image = await source();
      if (turn !== newest) return false;
      part("status").hidden = true;
      await choose(image);
      return true;
    } catch (error) {
      if (turn === newest) fail(error.message);
      return false;
    }
  }

  async function ownImage(file) {
    const pixels = await readFile(file);
    const [width, height] = pixels.from;
    const large = new ImageData(pixels.data, pixels.width, pixels.height);
    const scaled = width === large.width ? "" : `, scaled to ${large.width} × ${large.height}`;
    return { id: "", name: file.name || "your image", alt: "Your image", large, caption: `${pixels.kind}, ${width} × ${height} pixels${scaled}` };
  }

  async function bookImage(id) {
    const told = book.images.find((one) => one.id === id);
    if (!told) throw new Error(`There is no image ${id} in the book.`);
    const get = async (name) => {
      const answer = await fetch(FOLDER + name);
      if (!answer.ok) throw new Error(`The image ${name} could not be loaded (${answer.status}).`);
      return readFile(await answer.blob());
    };
    const [large, small, map] = await Promise.all([told.large, told.small, told.truth && told.truth.map].map((name) => name && get(name)));
    const image = { ...told, large: new ImageData(large.data, large.width, large.height), caption: told.alt };
    if (small) image.small = new ImageData(small.data, small.width, small.height);
    // The numbers of regions are the grey values of the map.
    if (map) image.truth = { ...told.truth, width: map.width, height: map.height, regions: map.data.filter((_, k) => k % 4 === 0) };
    return image;
  }

  function useOwn(files, what = "Reading the image") {
    const file = files && files[0];
    if (!file) return;
    started = true;
    if (!networkChosen) state.network = "lite0";
    open(() => ownImage(file), what).then((opened) => opened && run());
  }

  function useBook(id, start = true) {
    const told = book.images.find((one) => one.id === id);
    if (start) {
      started = true;
      [state.network, state.mended] = [(told && told.network) || "lite0", false];
      networkChosen = false;
    }
    return open(() => bookImage(id), "Loading the image").then((opened) => opened && started && run());
  }

  // ---- asking the networks ---------------------------------------------------------------------------------------

  const model = () => state.network + (state.mended && state.network !== "lite0" ? "_mended" : "");
  const modelNeeded = () => ({ detect: "detector", segment: "segmenter" })[state.view] || model();

  // The pixels that a network gets: toys as it was trained on them, else the large image.
  function pixels(name) {
    const { small, large, models } = state.image;
    const from = small && models.includes(name) ? small : large;
    return { width: from.width, height: from.height, data: from.data };
  }

  function keyOf() {
    if (state.view === "detect") return `detect ${state.threshold} ${state.iou}`;
    if (state.view === "segment") return "segment";
    if (state.view === "classify") return `classify ${model()}`;
    return `explain ${model()} ${state.method} ${state.target}`;
  }

  async function compute() {
    const { image, view, method, target, threshold, iou } = state;
    const name = modelNeeded();
    await load([name]);
    const progress = (step) => tell(step.what || METHODS[method], step.loaded, step.total);
    tell({ classify: "Classifying", detect: "Detecting", segment: "Segmenting", explain: `${METHODS[method]} runs` }[view]);
    const given = pixels(name);
    if (view === "classify") return networks.ask({ do: "classify", image: given, model: name, top: 5 }, progress);
    if (view === "segment") return networks.ask({ do: "segment", image: given }, progress);
    if (view === "explain") {
      const asked = target === null ? {} : { target };
      return networks.ask({ do: "explain", image: given, model: name, method, ...asked }, progress);
    }
    const again = detectedIn === image;
    detectedIn = null;
    const done = await networks.ask(again ? { do: "redetect", threshold, iou } : { do: "detect", image: given, threshold, iou }, progress);
    detectedIn = image;
    return { ...done, width: given.width, height: given.height };
  }

  let running = false;

  // Bring the result of the current state, one request at a time; what the reader changes meanwhile is done next.
  async function run() {
    if (!state.image) return;
    started = true;
    refresh();
    if (running) return;
    running = true;
    try {
      for (;;) {
        const [image, key] = [state.image, keyOf()];
        if (!results.has(key)) {
          part("view").setAttribute("aria-busy", "true");
          const done = await compute();
          if (image === state.image) {
            results.set(key, done);
            if (state.view === "detect") forgetDetections(key);
          }
        }
        if (image === state.image && key === keyOf()) break;
      }
      say("error", "");
      part("status").hidden = true;
    } catch (error) {
      clear();
      fail(error.message);
    } finally {
      running = false;
      part("view").removeAttribute("aria-busy");
    }
    refresh();
  }

  // A slider gives many thresholds; the worker filters them again at once.
  function forgetDetections(kept) {
    [...results.keys()].forEach((key) => key.startsWith("detect ") && key !== kept && results.delete(key));
  }

  // ---- showing a result ------------------------------------------------------------------------------------------

  let shown = { image: null, view: null }; // of the result that is shown

  function clear() {
    shown = { image: null, view: null };
    ["words", "told", "place", "cost"].forEach((name) => say(name, ""));
    part("results").textContent = part("layer").textContent = "";
    part("map").width = part("map").height = 1;
    app.querySelector('[data-do="save"]').hidden = true;
  }

  // Set every control as the state has it, and show the result if there is one.
  function refresh() {
    const { image, view } = state;
    const toy = state.network !== "lite0";
    all("[data-view]").forEach((tab) => {
      const selected = tab.dataset.view === view;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      if (selected) document.getElementById("pg-view").setAttribute("aria-labelledby", tab.id);
    });
    all("[data-for]").forEach((label) => (label.hidden = !label.dataset.for.split(" ").includes(view)));
    part("mended").hidden = !toy || !["classify", "explain"].includes(view) || !(`${state.network}_mended` in book.models);
    all("[data-mended]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mended === String(state.mended))));
    part("network").value = state.network;
    part("method").value = state.method;
    ["threshold", "iou", "opacity"].forEach((name) => {
      part(name).value = state[name];
      part(name).nextElementSibling.textContent = name === "opacity" ? percent(state[name]) : state[name].toFixed(2);
    });
    part("truth").hidden = !image || !image.truth || view === "classify";
    part("truth-box").checked = state.truth;
    say("what", WHAT[view]);
    part("words").classList.toggle("pg-spoken", view === "classify");
    const lesson = book.lessons[view === "explain" ? state.method : view];
    part("lesson").href = lesson.href;
    say("lesson", lesson.title);
    say("caption", image ? image.caption : "");
    const stage = part("stage");
    const asks = view === "explain" && image;
    ["tabindex", "role", "aria-label"].forEach((name, k) => {
      if (asks) stage.setAttribute(name, ["0", "group", "Image: click a place, or move a mark with the arrow keys, to ask what lies there"][k]);
      else stage.removeAttribute(name);
    });
    stage.toggleAttribute("data-asks", Boolean(asks));
    const runs = app.querySelector('[data-do="run"]');
    const needed = modelNeeded();
    runs.hidden = !image || started || !(needed in book.models);
    runs.textContent = `${view[0].toUpperCase()}${view.slice(1)} this image (up to ${megabytes(book.runtime + (book.models[needed] || 0))} to load)`;
    if (image && !(needed in book.models)) say("error", missingModel(needed));
    const result = image && results.get(keyOf());
    const focused = document.activeElement?.dataset.target;
    // What is shown stays until the next result of the same view is there.
    if (result || shown.image !== image || shown.view !== view) clear();
    if (result) {
      shown = { image, view };
      ({ classify: showClasses, detect: showBoxes, segment: showLabels, explain: showMap })[view](result);
      if (result.seconds !== undefined) say("cost", `Computed on this device in ${Math.max(1, Math.round(1000 * result.seconds))}\u00a0ms`);
      app.querySelector('[data-do="save"]').hidden = false;
      if (focused) app.querySelector(`[data-target="${focused}"]`)?.focus({ preventScroll: true });
    }
    keepAddress();
  }

  function row(label, value, share) {
    const content = [create("span", {}, label), create("b", {}, value), create("i", {}, "Why?")];
    const element = create("button", { type: "button", class: "pg-class" }, ...content);
    const bar = draw("svg", { "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 1 1" }, element);
    draw("rect", { width: share.toFixed(4), height: 1 }, bar);
    return element;
  }

  function list(rows, label) {
    return create("ul", { class: "pg-rows", "aria-label": label }, ...rows.map((one) => create("li", {}, one)));
  }

  function classRows(classes, explained) {
    return list(
      classes.map(({ index, label, probability }) => {
        const button = row(label, percent(probability), probability);
        if (explained !== undefined) button.setAttribute("aria-pressed", String(index === explained));
        button.dataset.target = index;
        button.addEventListener("click", () => explain(index));
        return button;
      }),
      "Classes",
    );
  }

  function explain(index) {
    state.target = index;
    const from = state.view;
    show("explain");
    if (from === "explain") return;
    app.querySelector('[aria-selected="true"]').focus({ preventScroll: true });
    part("stage").scrollIntoView({ block: "nearest" });
  }

  const inWords = (classes) => classes.map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ");

  function trueLabel() {
    const { image } = state;
    return image.label ? `The truth: ${image.label}.` : "";
  }

  function showClasses({ classes }) {
    say("words", inWords(classes)); // for screen readers: the rows say the same
    part("results").append(classRows(classes));
    say("told", trueLabel());
  }

  const COLOUR = (name) => book.colours[name] || "#6699cc";

  function showBoxes({ boxes, width, height }) {
    const layer = part("layer");
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.setAttribute("preserveAspectRatio", "none");
    const { image } = state;
    const rectangle = ([x0, y0, x1, y1], kind, colour) => {
      const place = { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) };
      draw("rect", { ...place, class: kind, ...(colour ? { stroke: colour } : {}) }, layer);
    };
    const trueBoxes = image.boxes ? scaledBoxes(image, width, height) : null;
    [...boxes].reverse().forEach(({ box, label }) => {
      rectangle(box, "pg-halo");
      rectangle(box, "pg-box", COLOUR(label));
    });
    if (state.truth && trueBoxes) {
      trueBoxes.forEach(({ box }) => {
        rectangle(box, "pg-box pg-true-halo");
        rectangle(box, "pg-box pg-true");
      });
    }
    boxes.forEach(({ box, label, score }) => tag(layer, box, `${label} ${percent(score)}`, COLOUR(label), width, height));
    const words = boxes.map(({ label, score }) => `${label} ${percent(score)}`).join(", ");
    say("words", boxes.length ? `${counted(boxes.length, "box", "boxes")}: ${words}` : `No toy with a score of at least ${state.threshold.toFixed(2)}`);
    if (trueBoxes) say("told", matched(boxes, trueBoxes));
  }

  function scaledBoxes(image, width, height) {
    const scale = [width / image.side, height / image.side];
    return image.boxes.map(({ box, label }) => ({ label, box: box.map((value, k) => value * scale[k % 2]) }));
  }

  function tag(layer, [x0, y0], words, colour, width, height) {
    const unit = width / part("image").clientWidth || 1; // of the drawing, for each CSS pixel
    const tall = (height / part("image").clientHeight || 1) * 18;
    const long = Math.min(width, words.length * 7.4 * unit + 8 * unit);
    const x = Math.min(Math.max(0, x0), width - long);
    const y = y0 >= tall ? y0 - tall : y0;
    draw("rect", { x, y, width: long, height: tall, fill: ink(colour) }, layer);
    const text = draw("text", { class: "pg-layer-tag", x: 0, y: 0, transform: `translate(${x + 4 * unit} ${y + tall * 0.75}) scale(${unit})` }, layer);
    text.textContent = words;
  }

  // A colour dark enough for white words on it.
  function ink(colour) {
    let [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
    while (0.2126 * r ** 2.2 + 0.7152 * g ** 2.2 + 0.0722 * b ** 2.2 > 0.17 * 255 ** 2.2) [r, g, b] = [r * 0.9, g * 0.9, b * 0.9];
    return `rgb(${[r, g, b].map(Math.round).join(" ")})`;
  }

  function overlap(a, b) {
    const side = (k) => Math.max(0, Math.min(a[k + 2], b[k + 2]) - Math.max(a[k], b[k]));
    const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
    const both = side(0) * side(1);
    return both / (area(a) + area(b) - both || 1);
  }

  // Match boxes to true ones of the same class, the highest score first, at an IoU of at least 0.5.
  function matched(boxes, trueBoxes) {
    const left = new Set(trueBoxes);
    let found = 0;
    [...boxes].sort((a, b) => b.score - a.score).forEach(({ box, label }) => {
      const best = [...left].filter((one) => one.label === label).sort((a, b) => overlap(b.box, box) - overlap(a.box, box))[0];
      if (best && overlap(best.box, box) >= 0.5) {
        left.delete(best);
        found += 1;
      }
    });
    const missed = left.size ? `; missed: ${[...left].map((one) => one.label).join(", ")}` : "";
    const wrong = boxes.length - found;
    const others = wrong ? ` ${counted(wrong, "box is", "boxes are")} false.` : "";
    return `${found} of ${counted(trueBoxes.length, "toy")} found, at an IoU of at least 0.5${missed}.${others}`;
  }

  function showLabels({ width, height, labels, classes, shares }) {
    const { truth } = state.image;
    const segmented = truth && truth.segments;
    const shown = state.truth && segmented ? { width: truth.width, height: truth.height, labels: truth.regions, classes: truth.names } : { width, height, labels, classes };
    paint(shown.width, shown.height, (k) => [...rgb(COLOUR(shown.classes[shown.labels[k]])), 255 * state.opacity]);
    part("map").dataset.look = "labels";
    const large = shares.filter((one) => one.share >= 0.005).sort((a, b) => b.share - a.share);
    say("words", large.map(({ label, share }) => `${label} ${percent(share)}`).join(", "));
    const rows = large.map(({ label, share }) => {
      const item = create("div", { class: "pg-class pg-legend" });
      const swatch = draw("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, item);
      swatch.setAttribute("class", "pg-swatch");
      draw("rect", { width: 1, height: 1, fill: COLOUR(label) }, swatch);
      item.append(create("span", {}, label), create("b", {}, percent(share)));
      return item;
    });
    part("results").append(list(rows, "Share of the image"));
    if (segmented) {
      let right = 0;
      for (let y = 0; y < truth.height; y++) {
        for (let x = 0; x < truth.width; x++) {
          const at = Math.floor(((y + 0.5) / truth.height) * height) * width + Math.floor(((x + 0.5) / truth.width) * width);
          right += classes[labels[at]] === truth.names[truth.regions[y * truth.width + x]];
        }
      }
      const accuracy = percent(right / (truth.width * truth.height));
      say("told", state.truth ? "Shown: the true label map." : `Pixel accuracy against the true label map: ${accuracy}.`);
    }
  }

  const rgb = (colour) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  const HEAT = book.heat.map(rgb);

  function heat(value) {
    const at = Math.min(Math.max(value, 0), 1) * (HEAT.length - 1);
    const [k, rest] = [Math.min(Math.floor(at), HEAT.length - 2), at - Math.min(Math.floor(at), HEAT.length - 2)];
    return HEAT[k].map((low, c) => low + rest * (HEAT[k + 1][c] - low));
  }

  // Put colours over the image: (index of a pixel) → [r, g, b, alpha].
  function paint(width, height, colour) {
    const canvas = part("map");
    canvas.width = width;
    canvas.height = height;
    const pixels = new ImageData(width, height);
    for (let k = 0; k < width * height; k++) pixels.data.set(colour(k), 4 * k);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  function showMap(result) {
    const { width, height, map, classes, target, label } = result;
    paint(width, height, (k) => [...heat(map[k]), 255 * state.opacity * (0.35 + 0.65 * map[k])]);
    part("map").dataset.look = "heat";
    const share = shareInside(result);
    const { truth } = state.image;
    const inside = share === null ? "" : `: ${percent(share.map)} of the map lies inside the ${truth.words}`;
    say("words", `${METHODS[state.method]} for ${label}${inside}`);
    part("results").append(create("p", { class: "pg-help" }, "Choose a class to explain it; click the image to ask what lies there."), classRows(classes, target));
    if (share) say("told", `The ${truth.words} ${truth.plural ? "take" : "takes"} ${percent(share.area)} of the image: so much would lie there by chance. ${trueLabel()}`);
    if (state.truth && truth) outline();
    if (state.place) mark(result);
  }

  // How much of a map lies inside the region that tells the class, and how much of the image that region takes.
  function shareInside({ width, height, map }) {
    const { truth } = state.image;
    if (!truth || !truth.cause) return null;
    let [inside, total, area] = [0, 0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const cause = truth.cause.includes(regionAt((x + 0.5) / width, (y + 0.5) / height));
        total += map[y * width + x];
        inside += cause * map[y * width + x];
        area += cause;
      }
    }
    return { map: total ? inside / total : 0, area: area / (width * height) };
  }

  function regionAt(x, y) {
    const { width, height, regions } = state.image.truth;
    return regions[Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))];
  }

  // Draw the border of the true region, pixel by pixel.
  function outline() {
    const { truth } = state.image;
    const { width, height } = truth;
    const layer = part("layer");
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.setAttribute("preserveAspectRatio", "none");
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && truth.cause.includes(truth.regions[y * width + x]);
    let path = "";
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        if (inside(x, y) !== inside(x - 1, y)) path += `M${x} ${y}v1`;
        if (inside(x, y) !== inside(x, y - 1)) path += `M${x} ${y}h1`;
      }
    }
    draw("path", { d: path, class: "pg-mark-halo" }, layer);
    draw("path", { d: path, class: "pg-mark" }, layer);
  }

  // Mark the place that was asked for, and say what lies there: the map's value, the true part, the segmenter's class.
  function mark({ width, height, map }) {
    const [x, y] = state.place;
    const layer = part("layer");
    if (!layer.childNodes.length) {
      layer.setAttribute("viewBox", "0 0 1 1");
      layer.setAttribute("preserveAspectRatio", "none");
    }
    const [, , across, down] = layer.getAttribute("viewBox").split(" ").map(Number);
    const radius = 9 / (part("image").clientWidth || 300);
    const tall = 9 / (part("image").clientHeight || 300);
    const ring = { cx: x * across, cy: y * down, rx: radius * across, ry: tall * down };
    draw("ellipse", { ...ring, class: "pg-mark-halo" }, layer);
    draw("ellipse", { ...ring, class: "pg-mark" }, layer);
    const value = map[Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))];
    const told = [`Here the map is ${value.toFixed(2)} (its greatest value is 1)`];
    const { truth } = state.image;
    if (truth) told.push(`the truth is ${truth.names[regionAt(x, y)]}`);
    const segments = results.get("segment");
    if (segments) told.push(`the segmentation network says ${labelAt(segments, x, y)}`);
    else if ("segmenter" in book.models) askSegments();
    say("place", `${told.join("; ")}.`);
  }

  function labelAt({ width, height, labels, classes }, x, y) {
    return classes[labels[Math.min(height - 1, Math.floor(y * height)) * width + Math.min(width - 1, Math.floor(x * width))]];
  }

  let unsegmented = null; // an image for which that failed: it is not asked for again

  async function askSegments() {
    if (running || unsegmented === state.image) return;
    running = true;
    const { image } = state;
    const key = keyOf();
    try {
      await load(["segmenter"]);
      const done = await networks.ask({ do: "segment", image: pixels("segmenter") });
      if (image === state.image) results.set("segment", done);
      part("status").hidden = true;
    } catch {
      unsegmented = image; // what was asked for first, the map's value, is there
      part("status").hidden = true;
    } finally {
      running = false;
    }
    if (image === state.image && key === keyOf()) refresh();
    else run();
  }

  // ---- saving ----------------------------------------------------------------------------------------------------

  // Draw image, map, boxes and words into one PNG, and hand it to the browser as a download.
  async function save() {
    const image = part("image");
    const scale = Math.max(1, Math.min(3, 640 / Math.max(image.width, 1)));
    const [width, height] = [Math.round(image.width * scale), Math.round(image.height * scale)];
    const wide = Math.max(width, 320);
    const canvas = create("canvas", { width: wide, height });
    const pen = canvas.getContext("2d");
    const font = "16px system-ui, sans-serif";
    pen.font = font;
    const lines = wrap(pen, `${part("words").textContent}. ${part("told").textContent}`, wide - 24);
    canvas.height = height + 24 + 22 * (lines.length + 1);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    const left = (wide - width) / 2;
    pen.drawImage(image, left, 0, width, height);
    pen.imageSmoothingEnabled = part("map").dataset.look !== "labels";
    if (part("map").width > 1 || part("map").height > 1) pen.drawImage(part("map"), left, 0, width, height);
    drawBoxes(pen, left, width, height);
    pen.font = font;
    pen.fillStyle = "#1f2328";
    lines.forEach((line, k) => pen.fillText(line, 12, height + 28 + 22 * k));
    pen.fillStyle = "#5a5d63";
    pen.fillText("Advanced Computer Vision · the playground", 12, canvas.height - 12);
    const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const address = URL.createObjectURL(file);
    create("a", { href: address, download: `playground-${state.view}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  function drawBoxes(pen, left, width, height) {
    const result = results.get(keyOf());
    if (state.view !== "detect" || !result) return;
    const scale = [width / result.width, height / result.height];
    result.boxes.forEach(({ box: [x0, y0, x1, y1], label, score }) => {
      const place = [left + x0 * scale[0], y0 * scale[1], (x1 - x0) * scale[0], (y1 - y0) * scale[1]];
      [["#fff", 5], [COLOUR(label), 3]].forEach(([colour, thick]) => {
        Object.assign(pen, { strokeStyle: colour, lineWidth: thick });
        pen.strokeRect(...place);
      });
      const words = `${label} ${percent(score)}`;
      pen.font = "600 14px system-ui, sans-serif";
      const top = Math.max(0, place[1] - 20);
      pen.fillStyle = ink(COLOUR(label));
      pen.fillRect(place[0], top, pen.measureText(words).width + 10, 20);
      pen.fillStyle = "#fff";
      pen.fillText(words, place[0] + 5, top + 15);
    });
  }

  function wrap(pen, words, width) {
    const lines = [""];
    words.split(" ").forEach((word) => {
      const longer = `${lines[lines.length - 1]} ${word}`.trim();
      if (pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
      else lines.push(word);
    });
    return lines.filter(Boolean);
  }

  // ---- the camera ------------------------------------------------------------------------------------------------

  // A phone's own camera where there is one; else a window with this computer's.
  async function openCamera() {
    const touch = matchMedia("(pointer: coarse)").matches;
    if (touch || !navigator.mediaDevices) return part("capture").click();
    try {
      part("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch {
      return fail("There is no camera that this page may use. Choose an image instead.");
    }
    part("dialog").showModal();
    await part("video").play();
  }

  function closeCamera() {
    const stream = part("video").srcObject;
    if (stream) stream.getTracks().forEach((track) => track.stop());
    part("video").srcObject = null;
  }

  async function takePhotograph() {
    const video = part("video");
    if (!video.videoWidth) return;
    const canvas = create("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    part("dialog").close();
    const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    useOwn([file]);
  }

  // ---- what the reader does --------------------------------------------------------------------------------------

  function show(view) {
    state.view = view;
    say("error", "");
    refresh();
    if (started) run();
  }

  function ask(x, y) {
    if (state.view !== "explain" || !state.image) return;
    state.place = [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)];
    refresh();
  }

  function listen() {
    const actions = {
      file: () => part("file").click(),
      camera: openCamera,
      run,
      save,
      take: takePhotograph,
      close: () => part("dialog").close(),
    };
    app.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const { image, view, mended } = button.dataset;
      if (button.dataset.do) actions[button.dataset.do]();
      else if (image) useBook(image);
      else if (view) show(view);
      else if (mended) change({ mended: mended === "true", target: null });
    });
    part("dialog").addEventListener("close", closeCamera);
    ["file", "capture"].forEach((name) =>
      part(name).addEventListener("change", (event) => {
        useOwn(event.target.files);
        event.target.value = "";
      }),
    );
    app.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const to = { Home: 0, End: VIEWS.length - 1 }[event.key] ?? (step && (VIEWS.indexOf(state.view) + step + VIEWS.length) % VIEWS.length);
      if (to === undefined) return;
      event.preventDefault();
      show(VIEWS[to]);
      app.querySelector('[aria-selected="true"]').focus();
    });
    part("network").addEventListener("change", (event) => {
      networkChosen = true;
      change({ network: event.target.value, target: null });
    });
    part("method").addEventListener("change", (event) => change({ method: event.target.value }));
    ["threshold", "iou"].forEach((name) => part(name).addEventListener("input", (event) => change({ [name]: Number(event.target.value) })));
    part("opacity").addEventListener("input", (event) => change({ opacity: Number(event.target.value) }, false));
    part("truth-box").addEventListener("change", (event) => change({ truth: event.target.checked }, false));
    const stage = part("stage");
    stage.addEventListener("click", (event) => {
      const frame = part("image").getBoundingClientRect();
      ask((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
    });
    stage.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move || state.view !== "explain") return;
      event.preventDefault();
      const [x, y] = state.place || [0.5, 0.5];
      const step = event.shiftKey ? 0.1 : 0.025;
      ask(x + step * move[0], y + step * move[1]);
    });
    document.addEventListener("paste", ({ clipboardData }) => {
      if (clipboardData.files.length) useOwn(clipboardData.files, "Reading the pasted image");
      else fail("There is no image in the clipboard. Copy an image itself, not its address.");
    });
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      app.classList.add("pg-dropping");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || app.classList.remove("pg-dropping"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      app.classList.remove("pg-dropping");
      const { files } = event.dataTransfer;
      if (files.length) useOwn(files);
      else fail("That was no file. Save the image first, and drop the file.");
    });
    window.addEventListener("hashchange", () => location.hash !== written && readAddress());
    window.addEventListener("storage", followTheme);
  }

  function change(what, runs = true) {
    Object.assign(state, what);
    say("error", "");
    if (runs && started) run();
    else refresh();
  }

  // The reader has changed the theme on another page of the book, such as the lesson around this one.
  function followTheme({ key, newValue }) {
    if (key === "theme" && ["light", "dark"].includes(newValue)) document.documentElement.dataset.theme = newValue;
  }

  // ---- the page's address: playground.html#view=explain&method=grad_cam&image=cat --------------------------------

  let written = "";

  function keepAddress() {
    const { image, view, method, network, mended } = state;
    if (!image) return;
    const told = new URLSearchParams({ view });
    if (view === "explain") told.set("method", method);
    if (["classify", "explain"].includes(view)) told.set("network", network + (mended ? "_mended" : ""));
    if (image.id) told.set("image", image.id);
    if (document.documentElement.classList.contains("pg-embedded")) told.set("embed", "1");
    written = `#${told}`;
    history.replaceState(null, "", written);
  }

  function readAddress() {
    const told = new URLSearchParams(location.hash.slice(1));
    document.documentElement.classList.toggle("pg-embedded", told.has("embed"));
    if (told.has("embed")) document.head.append(create("base", { target: "_parent" }));
    if (VIEWS.includes(told.get("view"))) state.view = told.get("view");
    if (told.get("method") in METHODS) state.method = told.get("method");
    const [network, mended] = (told.get("network") || "").split("_");
    networkChosen = network in book.networks;
    const image = book.images.find((one) => one.id === told.get("image"));
    if (networkChosen) [state.network, state.mended] = [network, mended === "mended"];
    else if (image && image.network) state.network = image.network;
    state.target = null;
    refresh();
    if (told.has("image")) useBook(told.get("image"), false);
  }

  function start() {
    const { built, runs } = document.documentElement.dataset;
    if (built === undefined || runs === undefined || !book.models) return;
    Object.entries(METHODS).forEach(([name, title]) => part("method").append(create("option", { value: name }, title)));
    listen();
    readAddress();
  }

  start();
})();
