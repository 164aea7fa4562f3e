// Lay the anchors of a feature pyramid over an image, as cvlab.boxes.anchors does, and compare them with true boxes.

// The anchor of a cell. `level` has a stride and a size; height / width is the ratio, the area (size × scale)².
function anchor(level, row, column, ratio, scale) {
  const x = (column + 0.5) * level.stride;
  const y = (row + 0.5) * level.stride;
  const width = (level.size * scale) / Math.sqrt(ratio);
  const height = level.size * scale * Math.sqrt(ratio);
  return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
}

function start(panel) {
  const { data, size } = panel;
  let cell = data.cell; // [row, column]

  // The IoU of a box with each true box.
  const overlaps = (box) => data.true.map((truth) => compare(box, truth).iou);
  const grid = (level) => [Math.ceil(size[1] / level.stride), Math.ceil(size[0] / level.stride)];

  function show() {
    const level = data.levels[chosen(panel, "level")];
    const ratio = data.ratios[chosen(panel, "ratio")];
    const scale = data.scales[chosen(panel, "scale")];
    const [rows, columns] = grid(level);
    cell = [clamp(cell[0], 0, rows - 1), clamp(cell[1], 0, columns - 1)];
    const box = anchor(level, cell[0], cell[1], ratio, scale);
    const found = overlaps(box);
    const best = found.indexOf(Math.max(...found));
    clear(panel);
    let lines = "";
    for (let i = 1; i < columns; i += 1) lines += `M${i * level.stride} 0V${size[1]}`;
    for (let i = 1; i < rows; i += 1) lines += `M0 ${i * level.stride}H${size[0]}`;
    panel.layer.append(make("path", { d: lines, class: "cv-grid-lines" }));
    const all = [];
    data.ratios.forEach((r) => data.scales.forEach((s) => all.push(anchor(level, cell[0], cell[1], r, s))));
    all.forEach(([x, y, right, bottom]) => {
      panel.layer.append(make("rect", { x, y, width: right - x, height: bottom - y, class: "cv-other" }));
    });
    data.true.forEach((truth, i) => {
      outline(panel, truth, "cv-true");
      tag(panel, data.names[i], truth, true);
    });
    outline(panel, box, found[best] >= data.positive ? "cv-kept" : "cv-found");
    let matching = 0;
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        if (Math.max(...overlaps(anchor(level, row, column, ratio, scale))) >= data.positive) {
          matching += 1;
          const at = { cx: (column + 0.5) * level.stride, cy: (row + 0.5) * level.stride };
          panel.layer.append(make("circle", { ...at, r: size[0] / 110, class: "cv-dot" }));
        }
      }
    }
    place(panel, marker, [cell[1] * level.stride, cell[0] * level.stride,
      (cell[1] + 1) * level.stride, (cell[0] + 1) * level.stride]);
    const ofCell = all.map(overlaps);
    data.true.forEach((_, i) => {
      const most = Math.max(...ofCell.map((each) => each[i]));
      write(panel, { [`iou${i}`]: number(found[i], 2), [`best${i}`]: number(most, 2) });
      panel.part(`iou${i}`).parentNode.className = found[i] >= data.positive ? "cv-match" : "";
    });
    panel.part("says").textContent = `Row ${cell[0]}, column ${cell[1]}: the anchor is ${number(box[2] - box[0], 0)} \u00d7 `
      + `${number(box[3] - box[1], 0)} pixels (width \u00d7 height). ${verdict(found[best], data.names[best])} `
      + `Of the ${(rows * columns).toLocaleString("en")} anchors of this shape on this level, ${matching} reach `
      + `${data.positive} (dots).`;
  }

  function verdict(iou, name) {
    const told = `Its highest IoU is ${number(iou, 2)}, with the ${name}: `;
    if (iou >= data.positive) return `${told}it matches, and learns that object.`;
    return told + (iou < data.negative ? "it learns background." : "neither object nor background, it is ignored.");
  }

  function changed() {
    show();
    announce(panel, panel.part("says").textContent);
  }

  function moveTo([x, y]) {
    const { stride } = data.levels[chosen(panel, "level")];
    const to = [Math.floor(y / stride), Math.floor(x / stride)];
    if (to[0] === cell[0] && to[1] === cell[1]) return;
    cell = to;
    changed();
  }

  const marker = handle(panel, "Cell whose anchors are shown", "cv-cell", {
    drag: moveTo,
    key: (dx, dy) => { cell = [cell[0] + dy, cell[1] + dx]; changed(); },
  });
  panel.stage.addEventListener("click", (event) => moveTo(position(panel, event)));
  let level = chosen(panel, "level");
  panel.part("level").addEventListener("input", () => { // the cell of the new level at the same place
    const next = chosen(panel, "level");
    const factor = data.levels[level].stride / data.levels[next].stride;
    cell = cell.map((index) => Math.floor((index + 0.5) * factor));
    level = next;
    changed();
  });
  ["ratio", "scale"].forEach((name) => panel.part(name).addEventListener("input", changed));
  show();
}
