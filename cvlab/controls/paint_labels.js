// Paint a label map, and watch its scores: those of cvlab.metrics.segmentation_scores.

// Scores from a confusion matrix, of which entry [t * classes + p] counts pixels of the true class t painted as p.
// A class that neither map shows has no score: NaN.
function scores(confusion, classes) {
  const ofTrue = new Array(classes).fill(0);
  const ofFound = new Array(classes).fill(0);
  let right = 0;
  let total = 0;
  confusion.forEach((pixels, i) => {
    ofTrue[Math.floor(i / classes)] += pixels;
    ofFound[i % classes] += pixels;
    total += pixels;
    if (i % (classes + 1) === 0) right += pixels;
  });
  const iou = ofTrue.map((all, k) => confusion[k * (classes + 1)] / (all + ofFound[k] - confusion[k * (classes + 1)]));
  const dice = ofTrue.map((all, k) => (2 * confusion[k * (classes + 1)]) / (all + ofFound[k]));
  const mean = (values) => {
    const real = values.filter((value) => !Number.isNaN(value));
    return real.reduce((sum, value) => sum + value, 0) / real.length;
  };
  return { iou, dice, meanIou: mean(iou), meanDice: mean(dice), accuracy: right / total };
}

function start(panel) {
  const { data, size } = panel;
  const [width, height] = data.shape;
  const classes = data.colours.length;
  const truth = decode(data.true, width * height);
  const predicted = decode(data.predicted, width * height);
  const painted = predicted.slice();
  const colours = data.colours.map(channels);
  const confusion = new Array(classes * classes).fill(0);
  const strokes = []; // for undo: what each changed, {pixel: label before}
  const unit = size[0] / width;
  let cursor = [Math.floor(width / 2), Math.floor(height / 2)];
  let down = false; // the keyboard's brush is on the canvas

  const canvas = make("canvas", { class: "cv-canvas", width, height, "aria-hidden": "true" });
  panel.stage.insertBefore(canvas, panel.layer);
  panel.layer.textContent = ""; // the still prediction
  const scale = `scale(${size[0] / width} ${size[1] / height})`;
  const edges = borders(truth, width, height);
  ["cv-halo", "cv-truth-line"].forEach((look) => {
    panel.layer.append(make("path", { d: edges, class: look, transform: scale }));
  });
  const context = canvas.getContext("2d");
  const pixels = new ImageData(width, height);

  const brush = () => data.brushes[chosen(panel, "brush")];
  const label = () => Number(panel.figure.querySelector("input[type=radio]:checked").value);

  function colour(i) {
    const view = Number(panel.part("view").value);
    const wrong = painted[i] !== truth[i] && truth[i] !== data.ignore;
    if (view === 1) pixels.data.set(wrong ? [213, 94, 0, 230] : [255, 255, 255, 90], 4 * i);
    else pixels.data.set([...colours[painted[i]], 190], 4 * i);
  }

  // Give a pixel a label, and keep the counts; the old label is noted in the stroke.
  function set(i, to, stroke) {
    const from = painted[i];
    if (from === to) return;
    if (stroke && !stroke.has(i)) stroke.set(i, from);
    if (truth[i] !== data.ignore) {
      confusion[truth[i] * classes + from] -= 1;
      confusion[truth[i] * classes + to] += 1;
    }
    painted[i] = to;
    colour(i);
  }

  function show() {
    context.putImageData(pixels, 0, 0);
    const found = scores(confusion, classes);
    const told = (value) => (Number.isNaN(value) ? "\u2013" : number(value, 3));
    write(panel, { accuracy: told(found.accuracy), miou: told(found.meanIou), mdice: told(found.meanDice) });
    found.iou.forEach((value, k) => write(panel, { [`iou${k}`]: told(value), [`dice${k}`]: told(found.dice[k]) }));
    panel.part("undo").disabled = !strokes.length;
    const radius = (brush() / 2) * unit;
    const [x, y] = [(cursor[0] + 0.5) * unit, (cursor[1] + 0.5) * unit];
    place(panel, ring, [x - radius, y - radius, x + radius, y + radius]);
    ring.classList.toggle("cv-down", down);
    ring.style.borderColor = data.colours[label()];
    return found;
  }

  function changed() {
    const found = show();
    const name = data.names[label()];
    const iou = found.iou[label()];
    announce(panel, `Pixel accuracy ${number(found.accuracy, 2)}, mean IoU ${number(found.meanIou, 2)}`
      + (Number.isNaN(iou) ? "" : `, IoU of ${name} ${number(iou, 2)}`));
  }

  // Paint a disc: the pixels whose middles lie within the brush.
  function dab([column, row], stroke) {
    const radius = brush() / 2;
    const reach = Math.floor(radius);
    for (let y = Math.max(0, row - reach); y <= Math.min(height - 1, row + reach); y += 1) {
      for (let x = Math.max(0, column - reach); x <= Math.min(width - 1, column + reach); x += 1) {
        if ((x - column) ** 2 + (y - row) ** 2 < radius * radius) set(y * width + x, label(), stroke);
      }
    }
  }

  // Paint along a line, so that a fast pointer leaves no gaps.
  function line(from, to, stroke) {
    const steps = Math.max(1, Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]));
    for (let i = 0; i <= steps; i += 1) {
      dab([0, 1].map((k) => Math.round(from[k] + ((to[k] - from[k]) * i) / steps)), stroke);
    }
  }

  const pixel = ([x, y]) => [clamp(Math.floor(x / unit), 0, width - 1), clamp(Math.floor(y / unit), 0, height - 1)];
  const begin = () => {
    strokes.push(new Map());
    return strokes[strokes.length - 1];
  };

  const easel = handle(panel, "Label map", "cv-easel", {
    grab: (point) => {
      const stroke = begin();
      cursor = pixel(point);
      dab(cursor, stroke);
      changed();
      return stroke;
    },
    drag: (point, stroke) => {
      const to = pixel(point);
      line(cursor, to, stroke);
      cursor = to;
      changed();
    },
    key: (dx, dy, shift) => {
      const far = shift ? 8 : 1;
      const to = [clamp(cursor[0] + dx * far, 0, width - 1), clamp(cursor[1] + dy * far, 0, height - 1)];
      if (down) line(cursor, to, strokes[strokes.length - 1]);
      cursor = to;
      if (down) changed();
      else {
        show();
        const at = to[1] * width + to[0];
        announce(panel, `Column ${to[0]}, row ${to[1]}: ${data.names[painted[at]]}, in truth ${
          truth[at] === data.ignore ? "void" : data.names[truth[at]]}`);
      }
    },
  });
  const ring = make("div", { class: "cv-ring", "aria-hidden": "true" });
  panel.stage.append(ring);

  function undo() {
    down = false;
    const stroke = strokes.pop();
    if (stroke) stroke.forEach((before, i) => set(i, before, null));
    changed();
  }

  easel.addEventListener("keydown", (event) => {
    if (event.key === " ") dab(cursor, begin());
    else if (event.key === "Enter") {
      down = !down;
      if (down) dab(cursor, begin());
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      undo();
      return;
    } else return;
    event.preventDefault();
    changed();
  });
  panel.part("undo").addEventListener("click", () => {
    undo();
    if (panel.part("undo").disabled) panel.part("reset").focus();
  });
  const replace = (to) => {
    down = false;
    const stroke = begin();
    painted.forEach((_, i) => set(i, to(i), stroke));
    changed();
  };
  panel.part("reset").addEventListener("click", () => replace((i) => predicted[i]));
  panel.part("fill").addEventListener("click", () => replace(() => label()));
  panel.part("brush").addEventListener("input", show);
  panel.part("view").addEventListener("input", () => {
    painted.forEach((_, i) => colour(i));
    show();
  });
  panel.figure.querySelectorAll("input[type=radio]").forEach((radio) => radio.addEventListener("input", show));
  painted.forEach((found, i) => {
    if (truth[i] !== data.ignore) confusion[truth[i] * classes + found] += 1;
    colour(i);
  });
  show();
}
