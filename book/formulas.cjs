// Sets formulas when the book is built: TeX in, SVG with a spoken text out. Called by formulas.py.
//
// Standard input is JSON, [[{tex, display}, …] of a page, …]; standard output is JSON,
// [{formulas: ["<svg …>", …], glyphs: "<svg …>"} of a page, …]. A page's formulas share its glyphs.
const path = require("path");
const modules = path.join(__dirname, "..", "node_modules");
const speech = require(path.join(modules, "speech-rule-engine/lib/sre.js"));

async function main() {
  const pages = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const mathjax = await require(path.join(modules, "mathjax/es5/node-main.js")).init({
    loader: { load: ["input/tex-full", "output/svg"] },
    tex: { packages: { "[-]": ["noundefined", "noerrors"] } }, // an unknown command is an error
    svg: { fontCache: "global" },
  });
  await speech.setupEngine({
    locale: "en",
    domain: "clearspeak",
    json: path.join(modules, "speech-rule-engine/lib/mathmaps"),
  });
  await speech.engineReady();
  const adaptor = mathjax.startup.adaptor;
  const glyphs = mathjax.startup.output.fontCache;
  const done = [];
  for (const page of pages) {
    glyphs.clearCache();
    const formulas = [];
    for (const { tex, display } of page) {
      const spoken = speech.toSpeech(await mathjax.tex2mmlPromise(tex, { display }));
      const svg = adaptor.firstChild(await mathjax.tex2svgPromise(tex, { display }));
      if (adaptor.outerHTML(svg).includes("data-mjx-error")) throw new Error(`TeX that MathJax can't set: ${tex}`);
      flatten(adaptor, svg);
      adaptor.setAttribute(svg, "aria-label", spoken);
      formulas.push(adaptor.outerHTML(svg));
    }
    done.push({ formulas, glyphs: `<svg aria-hidden="true" style="display:none">${adaptor.outerHTML(glyphs.getCache())}</svg>` });
  }
  process.stdout.write(JSON.stringify(done));
}

// Takes out what only MathJax itself would need: names of the parts, and groups that neither move nor scale.
function flatten(adaptor, node) {
  for (const child of [...adaptor.childNodes(node)]) {
    if (adaptor.kind(child) === "#text") continue;
    flatten(adaptor, child);
    for (const { name } of adaptor.allAttributes(child)) {
      if (name.startsWith("data-")) adaptor.removeAttribute(child, name);
    }
    if (adaptor.kind(child) !== "g") continue;
    const parts = adaptor.childNodes(child);
    const transform = adaptor.getAttribute(child, "transform");
    if (adaptor.allAttributes(child).length === 0) {
      [...parts].forEach((part) => adaptor.insert(part, child));
      adaptor.remove(child);
    } else if (parts.length === 1 && transform && adaptor.allAttributes(child).length === 1) {
      const inner = adaptor.getAttribute(parts[0], "transform");
      adaptor.setAttribute(parts[0], "transform", inner ? `${transform} ${inner}` : transform);
      adaptor.replace(parts[0], child);
    }
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
