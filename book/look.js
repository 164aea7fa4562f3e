// The landing page's figure: the reader says what a network should look at, then sees what it looked at.
// Python puts this file, without its comments, into the figure. Nothing to fetch but the frames.

function start(figure) {
  const examples = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const part = (name) => figure.querySelector(`[data-part='${name}']`);
  const layer = part("layer");
  let shown = examples[0];
  let answer = null; // the region that the reader chose
  let when = "before"; // the network's data was mended

  function path(shape, name) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("d", shape);
    element.setAttribute("class", name);
    element.setAttribute("fill-rule", "evenodd");
    layer.append(element);
    return element;
  }

  function press(buttons, isPressed) {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(isPressed(button))));
  }

  function set(image, source, alt) {
    if (image.getAttribute("src") !== source) image.src = source;
    image.alt = alt;
  }

  // Show the image, what may be chosen, and, after an answer, the map of a network and what was measured.
  function draw() {
    const network = shown[when];
    set(part("image"), shown.image, shown.alt);
    part("question").textContent = shown.question;
    press(figure.querySelectorAll("[data-example]"), (button) => examples[button.dataset.example] === shown);
    press(part("answers").childNodes, (button) => button.textContent === answer);
    press(figure.querySelectorAll("[data-when]"), (button) => button.dataset.when === when);
    layer.textContent = "";
    shown.regions.forEach(([name, shape]) => {
      path(shape, "cv-region").addEventListener("click", () => choose(name));
    });
    part("map").hidden = answer === null;
    part("result").hidden = answer === null;
    part("help").hidden = answer !== null;
    part("verdict").textContent = "";
    part("told").textContent = "";
    if (answer === null) return;
    path(shown.outline, "cv-halo");
    path(shown.outline, "cv-outline");
    set(part("map"), network.map, network.alt);
    part("verdict").textContent = shown.true.includes(answer) ? shown.right : shown.wrong;
    part("share").textContent = network.share;
    part("probability").textContent = network.probability;
    part("target").textContent = shown.target;
    part("area").textContent = shown.area;
    part("told").textContent = network.told;
    part("bar").style.width = `${network.width}%`;
    part("mark").style.left = `${shown.mark}%`;
  }

  function choose(region) {
    answer = region;
    draw();
  }

  function open(example) {
    shown = example;
    answer = null;
    when = "before";
    part("answers").replaceChildren(...shown.regions.map(([name]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => choose(name));
      return button;
    }));
    draw();
  }

  figure.querySelectorAll("[data-example]").forEach((button) => {
    button.addEventListener("click", () => open(examples[button.dataset.example]));
  });
  figure.querySelectorAll("[data-when]").forEach((button) => {
    button.addEventListener("click", () => {
      when = button.dataset.when;
      draw();
    });
  });
  // The frames of an image come as the reader comes near: to the figure for the first one, to their buttons for others.
  function fetchOnce(place, example) {
    ["pointerenter", "focusin"].forEach((type) => place.addEventListener(type, () => {
      [example.image, example.before.map, example.after.map].forEach((frame) => {
        if (!frame.startsWith("data:")) new Image().src = frame;
      });
    }, { once: true }));
  }
  fetchOnce(figure, shown);
  figure.querySelectorAll("[data-example]").forEach((button) => fetchOnce(button, examples[button.dataset.example]));
  figure.querySelectorAll("[data-live]").forEach((element) => { element.hidden = false; });
  part("still").remove();
  open(shown);
}
