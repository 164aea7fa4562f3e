// What the controls of cvlab.interact share: finding the parts of a panel, dragging, drawing, and speaking.
// Python puts this file, the control's own file and a call of `start` into one function for each figure, so
// several controls on a page share no name. Plain ES2019: no library, no module, nothing to fetch.

// Collect the parts of a figure. `size` is the [width, height] that all coordinates of its data are in.
function panelOf(figure) {
  const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const panel = { figure, data, size: data.size, stage: figure.querySelector(".cv-stage") };
  panel.layer = panel.stage.querySelector(".cv-layer");
  panel.part = (name) => figure.querySelector(`[data-part='${name}']`);
  figure.querySelectorAll("[data-live]").forEach((element) => { element.hidden = false; });
  return panel;
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

// Write a number as the book does: with a minus sign rather than a hyphen.
function number(value, digits) {
  return value.toFixed(digits).replace("-", "\u2212");
}

// Make an element of HTML, or of SVG, with attributes; `text` is its content.
function make(tag, attributes, text) {
  const inSvg = ["rect", "path", "circle", "line", "g"].includes(tag);
  const element = inSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  if (text !== undefined) element.textContent = text;
  return element;
}

// Set the text of several parts at once: {name of the part: text}.
function write(panel, texts) {
  Object.entries(texts).forEach(([name, text]) => { panel.part(name).textContent = text; });
}

// Tell a screen reader what has changed, once the changes pause: a held key must not queue a hundred sentences.
function announce(panel, text) {
  clearTimeout(panel.waiting);
  panel.waiting = setTimeout(() => { panel.part("spoken").textContent = text; }, 300);
}

// Where a pointer is, in the coordinates of the data.
function position(panel, event) {
  const frame = panel.stage.getBoundingClientRect();
  return [((event.clientX - frame.left) / frame.width) * panel.size[0],
    ((event.clientY - frame.top) / frame.height) * panel.size[1]];
}

// Place an element over the image, by a box in the coordinates of the data.
function place(panel, element, box) {
  const [width, height] = panel.size;
  element.style.left = `${(100 * box[0]) / width}%`;
  element.style.top = `${(100 * box[1]) / height}%`;
  element.style.width = `${(100 * (box[2] - box[0])) / width}%`;
  element.style.height = `${(100 * (box[3] - box[1])) / height}%`;
}

// Make something on the stage that a pointer drags and arrow keys move. `how` may hold
//   grab(point): when the pointer goes down; what it returns is given to `drag`
//   drag(point, grabbed): while it moves
//   key(dx, dy, shift): for an arrow key, with a step of −1, 0 or 1 in each direction
// The role "application" makes screen readers pass the arrow keys on; `name` is what they read out.
function handle(panel, name, className, how) {
  const hidden = name ? { role: "application", tabindex: "0", "aria-label": name } : { "aria-hidden": "true" };
  const element = make("div", { class: `cv-handle ${className}`, ...hidden });
  if (name && panel.part("help")) {
    panel.part("help").id = `${panel.figure.id}-help`;
    element.setAttribute("aria-describedby", panel.part("help").id);
  }
  let grabbed = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no selection of text, no drag of the image below
    if (name) element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    grabbed = { by: how.grab ? how.grab(position(panel, event)) : null };
  });
  element.addEventListener("pointermove", (event) => {
    if (grabbed) how.drag(position(panel, event), grabbed.by);
  });
  ["pointerup", "pointercancel"].forEach((type) => element.addEventListener(type, () => { grabbed = null; }));
  if (how.key) {
    element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault(); // the page stays where it is
      how.key(step[0], step[1], event.shiftKey);
    });
  }
  panel.stage.append(element);
  return element;
}

// Draw a rectangle on the layer, with a white edge around its own so that it shows on any image.
function outline(panel, box, className) {
  const at = { x: box[0], y: box[1], width: Math.max(0, box[2] - box[0]), height: Math.max(0, box[3] - box[1]) };
  panel.layer.append(make("rect", { ...at, class: "cv-halo" }), make("rect", { ...at, class: className }));
}

// Write a label at the upper left corner of a box, or at the lower left one.
function tag(panel, text, box, below) {
  const element = make("span", { class: below ? "cv-tag cv-below" : "cv-tag", "aria-hidden": "true" }, text);
  element.style.left = `${(100 * clamp(box[0], 0, panel.size[0])) / panel.size[0]}%`;
  element.style.top = `${(100 * clamp(below ? box[3] : box[1], 0, panel.size[1])) / panel.size[1]}%`;
  panel.stage.append(element);
}

// Remove what was drawn.
function clear(panel) {
  panel.layer.textContent = "";
  panel.stage.querySelectorAll(".cv-tag").forEach((element) => element.remove());
}

// A slider's or a list's choice; a slider shows its text beside it, and speaks it.
function chosen(panel, name) {
  const element = panel.part(name);
  const text = panel.data.texts[name][element.value];
  if (element.type === "range") {
    element.setAttribute("aria-valuetext", text);
    element.nextSibling.textContent = text;
  }
  return Number(element.value);
}

// Undo the run-length code of a label map: [label, length, label, length, …], row by row.
function decode(runs, length) {
  const labels = new Uint16Array(length);
  let end = 0;
  for (let i = 0; i < runs.length; i += 2) {
    labels.fill(runs[i], end, end + runs[i + 1]);
    end += runs[i + 1];
  }
  return labels;
}

// The edges between pixels of different labels, as the path of an SVG or of a canvas.
function borders(labels, width, height) {
  const edges = [];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const i = y * width + x;
      if (x + 1 < width && labels[i] !== labels[i + 1]) edges.push(`M${x + 1} ${y}v1`);
      if (y + 1 < height && labels[i] !== labels[i + width]) edges.push(`M${x} ${y + 1}h1`);
    }
  }
  return edges.join("");
}

// "#rrggbb" as [red, green, blue].
function channels(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}
