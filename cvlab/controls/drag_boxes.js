// Drag and resize a true and a predicted box; overlap and gradient follow.

function start(panel) {
  const { data, size } = panel;
  const boxes = { true: data.true.slice(), predicted: data.predicted.slice() };
  const step = Math.max(1, Math.round(size[0] / 160));
  const smallest = 2 * step;
  const handles = [];

  // Keep a box whole and within the image.
  function move(name, left, top) {
    const [x, y, right, bottom] = boxes[name];
    const x0 = clamp(left, 0, size[0] - (right - x));
    const y0 = clamp(top, 0, size[1] - (bottom - y));
    boxes[name] = [x0, y0, x0 + right - x, y0 + bottom - y];
    show();
  }

  // Move one corner; `right` and `bottom` are 0 or 2, the side of the box that it belongs to.
  function resize(name, right, bottom, x, y) {
    const box = boxes[name];
    box[right] = right ? clamp(x, box[0] + smallest, size[0]) : clamp(x, 0, box[2] - smallest);
    box[bottom + 1] = bottom ? clamp(y, box[1] + smallest, size[1]) : clamp(y, 0, box[3] - smallest);
    show();
  }

  // An arrow from the middle of a side of the predicted box: which way, and how much, moving it raises the GIoU.
  function arrow(k, slope) {
    const box = boxes.predicted;
    const length = clamp((slope * size[0] * size[0]) / 24, -size[0] / 4, size[0] / 4);
    if (Math.abs(length) < size[0] / 100) return;
    const head = Math.sign(length) * Math.min(Math.abs(length), size[0] / 40);
    const x = k % 2 ? (box[0] + box[2]) / 2 : box[k];
    const y = k % 2 ? box[k] : (box[1] + box[3]) / 2;
    const path = k % 2
      ? `M${x} ${y}v${length}m${-head} ${-head}l${head} ${head}l${head} ${-head}`
      : `M${x} ${y}h${length}m${-head} ${-head}l${head} ${head}l${-head} ${head}`;
    panel.layer.append(make("path", { d: path, class: "cv-halo" }), make("path", { d: path, class: "cv-arrow" }));
  }

  function show() {
    const { true: truth, predicted } = boxes;
    const found = compare(predicted, truth);
    const slopes = gradients(predicted, truth);
    const low = (k) => Math.max(truth[k], predicted[k]);
    const high = (k) => Math.min(truth[k], predicted[k]);
    clear(panel);
    outline(panel, [high(0), high(1), low(2), low(3)], "cv-hull");
    if (found.intersection > 0) {
      const at = { x: low(0), y: low(1), width: high(2) - low(0), height: high(3) - low(1) };
      panel.layer.append(make("rect", { ...at, class: "cv-shared" }));
    }
    outline(panel, truth, "cv-true");
    outline(panel, predicted, "cv-found");
    slopes.giou.forEach((slope, k) => arrow(k, slope));
    tag(panel, "true", truth, false);
    tag(panel, "predicted", predicted, true);
    handles.forEach((each) => each());
    write(panel, { intersection: number(found.intersection, 0), union: number(found.union, 0),
      iou: number(found.iou, 3), giou: number(found.giou, 3) });
    slopes.iou.forEach((slope, k) => {
      write(panel, { [`iou${k}`]: number(slope, 4), [`giou${k}`]: number(slopes.giou[k], 4) });
    });
    panel.part("code").textContent = `boxes.giou([[${predicted.map((x) => +x.toFixed(1)).join(", ")}]], `
      + `[[${truth.map((x) => +x.toFixed(1)).join(", ")}]])`;
  }

  function changed() {
    const { iou, giou, intersection } = compare(boxes.predicted, boxes.true);
    announce(panel, `IoU ${number(iou, 2)}, GIoU ${number(giou, 2)}${intersection > 0 ? "" : ", the boxes are apart"}`);
  }

  ["true", "predicted"].forEach((name) => {
    const body = handle(panel, `${name === "true" ? "True" : "Predicted"} box`, "cv-body", {
      grab: ([x, y]) => [x - boxes[name][0], y - boxes[name][1]],
      drag: ([x, y], [dx, dy]) => { move(name, x - dx, y - dy); changed(); },
      key: (dx, dy, shift) => {
        const box = boxes[name];
        if (shift) resize(name, 2, 2, box[2] + dx * step, box[3] + dy * step);
        else move(name, box[0] + dx * step, box[1] + dy * step);
        changed();
      },
    });
    handles.push(() => place(panel, body, boxes[name]));
  });
  ["true", "predicted"].forEach((name) => {
    [[0, 0], [2, 0], [0, 2], [2, 2]].forEach(([right, bottom]) => {
      const last = right && bottom; // this corner is in the order of focus, the others are for a pointer
      const corner = handle(panel, last ? `Lower right corner of the ${name} box` : "", `cv-corner cv-${name}-corner`, {
        grab: ([x, y]) => [x - boxes[name][right], y - boxes[name][bottom + 1]],
        drag: ([x, y], [dx, dy]) => { resize(name, right, bottom, x - dx, y - dy); changed(); },
        key: (dx, dy) => {
          resize(name, right, bottom, boxes[name][right] + dx * step, boxes[name][bottom + 1] + dy * step);
          changed();
        },
      });
      handles.push(() => {
        const [x, y] = [boxes[name][right], boxes[name][bottom + 1]];
        place(panel, corner, [x, y, x, y]);
        corner.style.width = "";
        corner.style.height = "";
      });
    });
  });
  panel.part("reset").addEventListener("click", () => {
    boxes.true = data.true.slice();
    boxes.predicted = data.predicted.slice();
    show();
    changed();
  });
  show();
}
