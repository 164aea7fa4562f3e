// Watch regions merge in selective search: the label map of the first regions, and which two merged at each step.

// The region that each first region belongs to after so many merges. `pairs[i]` became region `count + i`.
function owners(count, pairs, merges) {
  const parent = [];
  pairs.slice(0, merges).forEach(([a, b], i) => { parent[a] = parent[b] = count + i; });
  return Array.from({ length: count }, (_, region) => {
    let top = region;
    while (parent[top] !== undefined) top = parent[top];
    return top;
  });
}

function start(panel) {
  const { data, size } = panel;
  const [width, height] = data.shape;
  const first = decode(data.runs, width * height);
  const count = data.colours.length;
  const sizes = new Array(count).fill(0);
  first.forEach((label) => { sizes[label] += 1; });
  const colours = data.colours.map(channels);
  data.pairs.forEach(([a, b], i) => { // sizes add up, and a mean colour is the mean of two, weighted by size
    const total = sizes[a] + sizes[b];
    colours.push(colours[a].map((value, c) => (value * sizes[a] + colours[b][c] * sizes[b]) / total));
    sizes[count + i] = total;
  });
  const slider = panel.part("merges");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const canvas = make("canvas", { class: "cv-canvas", width, height, "aria-hidden": "true" });
  panel.stage.insertBefore(canvas, panel.layer);
  let timer = null;

  function show() {
    const merges = Number(slider.value);
    const owner = owners(count, data.pairs, merges);
    const labels = first.map((label) => owner[label]);
    const filled = chosen(panel, "view") === 0;
    const pixels = new ImageData(width, height);
    labels.forEach((label, i) => {
      if (filled) pixels.data.set([...colours[label].map(Math.round), 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    clear(panel);
    const scale = `scale(${size[0] / width} ${size[1] / height})`;
    const path = (d, look) => panel.layer.append(make("path", { d, class: look, transform: scale }));
    path(borders(labels, width, height), "cv-border");
    if (merges) {
      const merged = count + merges - 1;
      path(borders(labels.map((label) => Number(label === merged)), width, height), "cv-merged");
      outline(panel, data.boxes[merges - 1], "cv-found");
    }
    slider.setAttribute("aria-valuetext", `${merges} merges`);
    slider.nextSibling.textContent = merges;
    panel.part("says").textContent = sentence(merges);
    panel.part("previous").disabled = merges === 0;
    panel.part("next").disabled = merges === data.pairs.length;
  }

  function sentence(merges) {
    const left = count - merges;
    if (!merges) return `${count} regions, before the first merge.`;
    const [a, b] = data.pairs[merges - 1];
    return `Merge ${merges} of ${data.pairs.length}: regions of ${sizes[a]} and ${sizes[b]} pixels, similarity `
      + `${number(data.alike[merges - 1], 2)}, become one. ${left} ${left === 1 ? "region is" : "regions are"} left; `
      + `the box around the new one is proposed.`;
  }

  function go(to) {
    slider.value = clamp(to, 0, data.pairs.length);
    const before = document.activeElement;
    show();
    if (before && before.disabled) panel.part(before === panel.part("next") ? "previous" : "next").focus();
    announce(panel, panel.part("says").textContent);
  }

  // Playing never begins by itself, and is not offered to readers who asked their system for less motion.
  function pause() {
    clearInterval(timer);
    timer = null;
    panel.part("play").textContent = "Play";
  }

  function play() {
    if (timer) { pause(); return; }
    if (Number(slider.value) === data.pairs.length) slider.value = 0;
    panel.part("play").textContent = "Pause";
    const seconds = clamp(20 / data.pairs.length, 0.1, 0.6);
    timer = setInterval(() => {
      go(Number(slider.value) + 1);
      if (Number(slider.value) === data.pairs.length || still.matches) pause();
    }, 1000 * seconds);
  }

  const offer = () => { panel.part("play").hidden = still.matches; };
  offer();
  still.addEventListener("change", offer);
  panel.part("play").addEventListener("click", play);
  panel.part("previous").addEventListener("click", () => { pause(); go(Number(slider.value) - 1); });
  panel.part("next").addEventListener("click", () => { pause(); go(Number(slider.value) + 1); });
  slider.addEventListener("input", () => { pause(); go(Number(slider.value)); });
  panel.part("view").addEventListener("input", show);
  show();
}
