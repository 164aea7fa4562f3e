"""Sphinx extension: what each lesson's page gets beside the theme's: numbers for its figures, and ways to run it.

Figures and tables of `cvlab.show` and `cvlab.explore` are HTML in a notebook's outputs. Here they are numbered with the
chapter, together with those of Markdown. `[Figure](#fig-curve)` in the text becomes "Figure 1.3", and where the figure
is another lesson's, so does `[Figure](transfer_learning.ipynb#fig-curve)`. An unknown one is a warning of the build.

The notebook behind each page names the commit that it was built from, for its set-up cell to install `cvlab` from.
```{shown} name``` puts a figure that pictures.py draws into a page of text.
"""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from urllib.parse import quote

import pictures
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[1]
SHOWN = re.compile(r'<(?:figure class="cv-figure[^"]*"|div class="cv-(?=table)[^"]*") id="((fig|table)-[^"]+)"')
CAPTION = {"fig": "<figcaption>", "table": "<caption>"}
GITHUB = re.compile(r"(?:https://(?:[^@/]*@)?|(?:ssh://)?git@)github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
BRANCH = "gh-pages"  # where .github/workflows/pages.yml publishes the pages, with the notebooks behind them
UNSET = re.compile(r'BOOK = (\\?")\\?"')
logger = logging.getLogger(__name__)


class FigureMark(nodes.General, nodes.Element):
    """Stands before a figure's HTML, for Sphinx to number."""


class TableMark(nodes.General, nodes.Element):
    """The same for a table."""


class Shown(SphinxDirective):
    required_arguments = 1

    def run(self):
        self.env.note_dependency(pictures.__file__)
        return [nodes.raw("", pictures.DRAWN[self.arguments[0]]().html, format="html")]


class References(SphinxPostTransform):
    """Fill in the numbers of figures and tables, before MyST resolves the links to all else."""

    default_priority = 8

    def run(self):
        own = self.env.docname
        for link in list(self.document.findall(nodes.reference)):  # to a figure of Markdown on this page
            if link.get("id_link") and (number := number_of(self.env, own, link.get("refid"))):
                link += nodes.Text("\N{NO-BREAK SPACE}" + number)
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftype"] != "myst":
                continue
            elsewhere = link["refdomain"] == "doc"
            target = link["reftargetid"] if elsewhere else link["reftarget"]
            pages = [link["reftarget"]] if elsewhere else [own, *sorted(self.env.toc_fignumbers)]
            page = next((page for page in pages if marked(self.env, page, target)), None)
            if page is None:
                continue
            text = "\N{NO-BREAK SPACE}".join(filter(None, (link.astext(), number_of(self.env, page, target))))
            link.replace_self(make_refnode(self.app.builder, own, page, target, nodes.inline(text, text)))


def marked(env, page, target):
    return any(target in numbers for numbers in env.toc_fignumbers.get(page, {}).values())


def number_of(env, page, target):
    """Give the number of a figure or table, "1.2"; None where there is none, or its page is no numbered chapter."""
    found = (numbers.get(target) for numbers in env.toc_fignumbers.get(page, {}).values())
    return next((".".join(map(str, number)) for number in found if number and len(number) > 1), None)


def setup(app):
    for mark, kind in ((FigureMark, "figure"), (TableMark, "table")):
        app.add_enumerable_node(mark, kind, title_of, html=(skip, None))
    app.add_directive("shown", Shown)
    app.add_post_transform(References)
    app.connect("doctree-read", mark_shown)
    app.connect("doctree-resolved", write_numbers)
    app.connect("html-page-context", offer_to_run)
    app.connect("build-finished", name_commit)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def title_of(mark):  # without one, nothing is numbered
    return mark["ids"][0]


def skip(translator, node):
    raise nodes.SkipNode


def mark_shown(app, doctree):
    seen = set()
    for html in list(doctree.findall(nodes.raw)):
        for own, kind in SHOWN.findall(html.astext()):
            if own in seen:
                logger.warning("two figures or tables have the name %r", own, location=doctree)
            seen.add(own)
            html.parent.insert(html.parent.index(html), (FigureMark if kind == "fig" else TableMark)(ids=[own]))


def write_numbers(app, doctree, page):
    for html in doctree.findall(nodes.raw):
        text = html.astext()
        for own, kind in SHOWN.findall(text):
            if number := number_of(app.env, page, own):
                start = text.index(CAPTION[kind], text.index(f'id="{own}"')) + len(CAPTION[kind])
                word = "Figure" if kind == "fig" else "Table"
                text = f'{text[:start]}<span class="caption-number">{word} {number}. </span>{text[start:]}'
        html.children = [nodes.Text(text)]


def origin():
    """Give (owner, repository, commit) where this is a clone whose origin is GitHub, else None."""

    def git(*question):
        done = subprocess.run(["git", "-C", ROOT, *question], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    if not shutil.which("git") or git("rev-parse", "--show-toplevel") != str(ROOT):
        return None
    found, commit = GITHUB.fullmatch(git("remote", "get-url", "origin")), git("rev-parse", "HEAD")
    return (*found.groups(), commit) if found and commit else None


def offer_to_run(app, page, template, context, doctree):
    """Say under a chapter's title how to run it."""
    if doctree is None or not page.startswith("chapters/") or not app.env.doc2path(page).endswith(".ipynb"):
        return
    name, ways, clone = page.removeprefix("chapters/"), [], ""
    if found := origin():
        owner, repository, _ = found
        place = quote(f"{owner}/{repository}/blob/{BRANCH}/_sources/{page}.ipynb")
        ways.append(f'<a href="https://colab.research.google.com/github/{place}">Open it in Colab</a>')
        clone = f"git clone https://github.com/{owner}/{repository}.git book && cd book\n"
    file = context["pathto"](f"_sources/{page}.ipynb", 1)
    ways.append(f'<a href="{escape(file)}" download>Download the notebook</a>')
    commands = (
        f"{clone or '# in a clone of the book&#39;s repository' + chr(10)}make run CHAPTER={escape(name)}\nmake lab"
    )
    here = f"<details><summary>On your own computer</summary><pre>{commands}</pre></details>"
    box = f'<div class="cv-run"><span>Run this chapter:</span> {" ".join(ways)} {here}</div>'
    context["body"] = context["body"].replace("</h1>", f"</h1>{box}", 1)


def name_commit(app, error):
    """Write into the notebooks behind the pages which commit they are of."""
    found = origin() if error is None and app.builder.format == "html" else None
    if found is None:
        return
    source = "https://github.com/{}/{}@{}".format(*found)
    for path in Path(app.outdir, "_sources").rglob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        path.write_text(UNSET.sub(rf"BOOK = \g<1>{source}\g<1>", text), encoding="utf-8")
