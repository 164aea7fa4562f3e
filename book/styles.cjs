// Keeps of the pages' style sheets the rules that some page, or some script of theirs, can ask for. Called by styles.py.
//
// Standard input is JSON, {css: "…", pages: "the folder of the pages"}; standard output is the style sheet that is left.
const path = require("path");
const { PurgeCSS } = require(path.join(__dirname, "..", "node_modules", "purgecss"));

async function main() {
  const { css, pages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const [result] = await new PurgeCSS().purge({
    content: [`${pages}/**/*.html`, `${pages}/_static/**/*.js`],
    css: [{ raw: css }],
    safelist: { greedy: [/data-theme/, /data-mode/, /tooltip/, /::-webkit/, /::-moz/] },
  });
  process.stdout.write(result.css);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
