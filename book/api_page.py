"""Sphinx extension: the appendix "API", from the docstrings of cvlab's modules, which are read and not imported.

```{modules} boxes metrics``` puts modules into a page, each with its public functions and classes, and
```{modules} others``` those that no other place of the page names. A docstring is plain text: its paragraphs, and its
sections such as "Args:", become HTML as they stand.
"""

import ast
import inspect
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).resolve().parents[1] / "cvlab"
# What the package and the build need, and a reader of the book does not call.
INTERNAL = {"files", "page", "readers", "records", "requirements", "stamps", "stores"}
NAMED = re.compile(r"^```\{modules\} (.+)$", re.M)
SECTION = re.compile(r"(?:Args|Attributes|Returns|Raises|Source|Yields):(?=\s)")
ENTRY = re.compile(r"^([\w*`.]+(?:, [\w*`.]+)*): (.*(?:\n[ \n].*)*)", re.M)  # of arguments: a name, and what it is


class Modules(SphinxDirective):
    required_arguments, final_argument_whitespace = 1, True

    def run(self):
        page = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        return [section(name, self.env) for name in asked(self.arguments[0].split(), page)]


def setup(app):
    app.add_directive("modules", Modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def asked(names, page):
    """Give the modules that a directive stands for; those that the page leaves out for `others`."""
    if names != ["others"]:
        return names
    named = {name for line in NAMED.findall(page) for name in line.split()}
    return [path.stem for path in sorted(PACKAGE.glob("[a-z]*.py")) if path.stem not in named | INTERNAL]


def section(name, env):
    path = source_of(name)
    env.note_dependency(str(path))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    title = nodes.title("", "", nodes.literal("", f"cvlab.{name}"))
    entries = "".join(entry(node, name) for node in tree.body if is_public(node))
    html = f'<div class="cv-api">{described(ast.get_docstring(tree))}{entries}</div>'
    return nodes.section("", title, nodes.raw("", html, format="html"), ids=[f"api-{name}"], names=[f"api-{name}"])


def source_of(name):
    """Find a module's source; `backend` only passes on what the module of the same name in `engine` holds."""
    return PACKAGE / ("engine/backend.py" if name == "backend" else f"{name}.py")


def is_public(node):
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")


def entry(node, within):
    """Fold a function or class under its signature and the first line of its docstring."""
    text = ast.get_docstring(node) or ""
    first, _, rest = text.partition("\n")
    methods = filter(is_public, node.body) if isinstance(node, ast.ClassDef) else ()
    parts = [entry(each, f"{within}-{node.name}") for each in methods if ast.get_docstring(each)]
    inside = described(rest) + "".join(parts)
    head = f"<code>{escape(signature(node))}</code> <span>{inline(first)}</span>"
    name = f"api-{within}-{node.name}"
    if not inside:
        return f'<div class="cv-api-entry" id="{name}">{head}</div>'
    return f'<details class="cv-api-entry" id="{name}"><summary>{head}</summary>{inside}</details>'


def signature(node):
    """Write a signature without type hints; of a class, how it is made."""
    if isinstance(node, ast.FunctionDef):
        return f"{node.name}({arguments(node)})"
    made = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if made is not None:
        return f"class {node.name}({arguments(made)})"
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and not each.target.id.startswith("_")]
    return f"class {node.name}({', '.join(each.target.id for each in fields)})"


def arguments(function):
    given = function.args
    for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if each is not None:
            each.annotation = None
    return re.sub(r"^self(, )?", "", ast.unparse(given))


def described(text):
    """Turn a docstring into HTML: paragraphs, sections, lists, and what is indented as it stands."""
    blocks = re.split(rf"\n\s*\n|\n(?={SECTION.pattern})", inspect.cleandoc(text or ""))
    return "".join(block_html(block) for block in blocks if block and block.strip())


def block_html(block):
    if SECTION.match(block):
        head, _, body = block.partition(":")
        first, _, rest = body.partition("\n")
        body = inspect.cleandoc(f"{first}\n{rest}")
        entries = ENTRY.findall(body)
        if first.strip() or not entries:
            return f"<p><b>{head}:</b> {inline(body)}</p>"
        items = (f"<dt><code>{escape(name.strip('`'))}</code></dt><dd>{inline(what)}</dd>" for name, what in entries)
        return f'<p class="cv-api-head">{head}</p><dl>{"".join(items)}</dl>'
    if all(line.startswith("    ") for line in block.splitlines()):
        return f"<pre>{escape(inspect.cleandoc(chr(10) + block))}</pre>"
    if block.startswith("- "):
        items = re.split(r"^- ", block, flags=re.M)[1:]
        return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in items)}</ul>"
    return f"<p>{inline(block)}</p>"


def inline(text):
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))
