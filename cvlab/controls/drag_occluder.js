// Drag an occluder over an image; the scores of all its positions were computed beforehand.

function start(panel) {
  const { data, size } = panel;
  const heat = panel.part("heat");
  let at = data.at; // [row, column] of the grid of positions
  let warm = false;

  const corner = () => [at[1] * data.stride[0], at[0] * data.stride[1]];

  function show() {
    const k = data.scores.length > 1 ? chosen(panel, "class") : 0;
    const grid = data.scores[k];
    at = [clamp(at[0], 0, grid.length - 1), clamp(at[1], 0, grid[0].length - 1)];
    const score = grid[at[0]][at[1]];
    const [x, y] = corner();
    clear(panel);
    if (warm) {
      const low = Math.min(...grid.map((row) => Math.min(...row)));
      const high = Math.max(...grid.map((row) => Math.max(...row)));
      grid.forEach((row, i) => row.forEach((value, j) => {
        panel.layer.append(make("rect", { x: j * data.stride[0] + (data.occluder[0] - data.stride[0]) / 2,
          y: i * data.stride[1] + (data.occluder[1] - data.stride[1]) / 2, width: data.stride[0], height: data.stride[1],
          style: `fill:${data.colours[Math.round((255 * (value - low)) / (high - low || 1))]}`, class: "cv-heat" }));
      }));
    }
    panel.layer.append(make("rect", { x, y, width: data.occluder[0], height: data.occluder[1], class: "cv-occluder",
      style: warm ? "fill:none" : `fill:${data.fill}` }));
    place(panel, occluder, [x, y, x + data.occluder[0], y + data.occluder[1]]);
    write(panel, { whole: number(data.whole[k], 3), score: number(score, 3), change: number(score - data.whole[k], 3) });
    panel.part("bar").style.width = `${100 * clamp(score / data.top, 0, 1)}%`;
    panel.part("mark").style.left = `${100 * clamp(data.whole[k] / data.top, 0, 1)}%`;
    heat.setAttribute("aria-pressed", warm);
    panel.part("legend").hidden = !warm;
    return `${data.names[k]}: ${number(score, 2)} with the occluder here, ${number(data.whole[k], 2)} without`;
  }

  function moveTo(row, column) {
    if (row === at[0] && column === at[1]) return;
    at = [row, column];
    announce(panel, show());
  }

  const occluder = handle(panel, "Occluder", "cv-body", {
    grab: ([x, y]) => [x - corner()[0], y - corner()[1]],
    drag: ([x, y], [dx, dy]) => {
      const grid = data.scores[0];
      moveTo(clamp(Math.round((y - dy) / data.stride[1]), 0, grid.length - 1),
        clamp(Math.round((x - dx) / data.stride[0]), 0, grid[0].length - 1));
    },
    key: (dx, dy) => moveTo(at[0] + dy, at[1] + dx),
  });
  heat.addEventListener("click", () => {
    warm = !warm;
    show();
    announce(panel, warm ? "Heat map shown" : "Heat map hidden");
  });
  if (panel.part("class")) panel.part("class").addEventListener("input", () => announce(panel, show()));
  show();
}
