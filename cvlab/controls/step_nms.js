// Step through greedy non-maximum suppression. Boxes stand by falling score; their IoU comes from cvlab.boxes.iou.

// For each box that is kept, in order: {kept, suppressed: [[box, IoU], …]}. Compared in single precision, as in cvlab.
function suppress(iou, labels, threshold) {
  const limit = Math.fround(threshold);
  const gone = new Set();
  const steps = [];
  labels.forEach((label, best) => {
    if (gone.has(best)) return;
    const suppressed = [];
    for (let other = best + 1; other < labels.length; other += 1) {
      if (!gone.has(other) && labels[other] === label && Math.fround(iou[best][other]) > limit) {
        suppressed.push([other, iou[best][other]]);
        gone.add(other);
      }
    }
    steps.push({ kept: best, suppressed });
  });
  return steps;
}

function start(panel) {
  const { data } = panel;
  const count = data.boxes.length;
  let step = 1; // how many boxes are kept so far
  let steps = [];

  function show() {
    steps = suppress(data.iou, data.labels, data.thresholds[chosen(panel, "threshold")]);
    step = clamp(step, 0, steps.length);
    const fates = new Array(count).fill("undecided");
    const looks = new Array(count).fill("cv-waiting");
    const now = step ? steps[step - 1] : { kept: -1, suppressed: [] };
    steps.slice(0, step).forEach(({ kept, suppressed }) => {
      fates[kept] = "kept";
      looks[kept] = "cv-kept";
      suppressed.forEach(([box, iou]) => {
        fates[box] = `box ${kept + 1}, IoU ${number(iou, 2)}`;
        looks[box] = "cv-gone";
      });
    });
    now.suppressed.forEach(([box]) => { looks[box] = "cv-dropped"; });
    if (step) looks[now.kept] = "cv-best";
    clear(panel);
    ["cv-gone", "cv-waiting", "cv-kept", "cv-dropped", "cv-best"].forEach((look) => { // the last lie on top
      looks.forEach((each, box) => { if (each === look) outline(panel, data.boxes[box], look); });
    });
    looks.forEach((look, box) => {
      if (["cv-best", "cv-kept", "cv-dropped"].includes(look)) tag(panel, box + 1, data.boxes[box], look === "cv-dropped");
    });
    panel.figure.querySelectorAll("[data-box]").forEach((row, box) => {
      row.className = looks[box];
      row.lastChild.textContent = fates[box];
    });
    panel.part("says").textContent = sentence(now);
    panel.part("previous").disabled = step === 0;
    panel.part("next").disabled = step === steps.length;
  }

  function sentence({ kept, suppressed }) {
    if (!step) return `${count} boxes, sorted by score. None has been looked at.`;
    const others = suppressed.map(([box, iou]) => `box ${box + 1} (IoU ${number(iou, 2)})`).join(", ");
    return `Step ${step} of ${steps.length}: box ${kept + 1}, ${data.names[kept]}, has the highest score of those left, `
      + `and is kept. It suppresses ${others || "none"}.`
      + (step === steps.length ? ` All boxes are decided: ${steps.length} of ${count} are kept.` : "");
  }

  function go(to) {
    step = to;
    const before = document.activeElement;
    show();
    if (before && before.disabled) panel.part(before === panel.part("next") ? "previous" : "next").focus();
    announce(panel, panel.part("says").textContent);
  }

  panel.part("previous").addEventListener("click", () => go(step - 1));
  panel.part("next").addEventListener("click", () => go(step + 1));
  panel.part("threshold").addEventListener("input", () => go(step));
  show();
}
