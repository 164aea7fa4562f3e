"""Sphinx extension: a lesson's page shows the method, and folds what stands around it.

Set-up, plotting code and the code of checks are folded, a quiz shows no code, and what checks print becomes one quiet
line, "✓ 3 claims checked", that opens to each value and its bound; consecutive ones join. `cells.py` tells what kind a
cell is. All of it works without JavaScript.
"""

import re
from html import escape

import cells
from docutils import nodes

SUMMARIES = {
    "set-up": "Show the set-up",
    "figure": "Show the plotting code",
    "exercise": "Show how your answer is checked",
    "check": "Show the checks",
    "aside": "Show the code",  # or what the cell's metadata say
}
CLAIM = re.compile(r"✓ (?P<name>.*?) (?P<bound>[≥≤] \S+(?: and ≤ \S+)?) · measured (?P<value>\S+)")
MARKS = ("✓", "○")


class Fold:
    """The code of one cell or of several in a row, closed, with a line that says what is in it.

    The line of checks says how many claims they made, and opens to each claim with its value and its bound.
    """

    def __init__(self, kind, cell):
        self.kind, self.cell, self.code, self.lines, self.place = kind, cell, [], [], nodes.container()
        self.summary = cell.get("prompt_show", SUMMARIES[kind]) if kind == "aside" else SUMMARIES[kind]

    def add(self, code, lines):
        for block in (block for part in code for block in part.findall(nodes.literal_block)):
            block["language"] = "text"  # a page of coloured code is heavy, and few open it
        self.code += code
        self.lines += lines
        content, count = list(self.code), sum(line.startswith("✓") for line in self.lines)
        if self.kind == "check" and self.code:
            content = details("cv-code", "Show the code", content)
        if self.lines:
            content.insert(0, raw(f"<ul>{''.join(map(row, self.lines))}</ul>"))
        told = f"✓ {count} claim{'s' * (count > 1)} checked" if count else escape(self.summary)
        self.place.children = details("cv-checks" if self.kind == "check" else "cv-code", told, content)


def setup(app):
    app.connect("doctree-read", fold_cells, priority=400)  # before the figures are counted
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fold_cells(app, doctree):
    """Fold each code cell by its kind, and those of one kind that follow each other together."""
    if not app.env.docname.startswith("chapters/"):
        return
    open_fold = None  # of the cell before, if this one may join it
    for cell in list(doctree.findall(lambda node: isinstance(node, nodes.container) and "cell" in node["classes"])):
        given = [part for part in cell if "cell_input" in part.get("classes", ())]
        lines, others = split_outputs(cell)
        kind = cells.kind(given[0].astext(), [name.removeprefix("tag_") for name in cell["classes"]]) if given else ""
        fold = Fold(kind, cell) if kind in SUMMARIES else None
        joins = open_fold is not None and open_fold.kind == kind and open_fold.cell is previous(cell)
        joins = joins and open_fold.summary == fold.summary  # asides with lines of their own stay apart
        fold = open_fold if joins else fold
        cell.children = given if kind == "method" else []
        if fold:
            fold.add(given, lines if kind == "check" else [])
            cell.children += [] if joins else [fold.place]
        if kind == "exercise":
            cell.children += [raw(f'<p class="cv-answer">{escape(line)}</p>') for line in lines]
        cell.children += others
        if lines and kind not in ("check", "exercise"):
            printed = Fold("check", cell)
            printed.add([], lines)
            cell.children.append(printed.place)
        for part in cell.children:
            part.parent = cell
        if not cell.children:
            cell.parent.remove(cell)
        open_fold = None if others or kind == "exercise" or (lines and kind != "check") else fold


def previous(node):
    """Give what stands right before a node among its siblings."""
    index = node.parent.index(node)
    return node.parent[index - 1] if index else None


def split_outputs(cell):
    """Take from a cell's outputs the lines that checks print: (those lines, the outputs without them)."""
    lines, others = [], []
    for part in cell:
        if "cell_output" not in part.get("classes", ()):
            continue
        for output in list(part):
            if isinstance(output, nodes.literal_block) and "stream" in output.get("classes", ()):
                printed = output.astext().splitlines()
                lines += [line for line in printed if line.startswith(MARKS)]
                rest = "\n".join(line for line in printed if not line.startswith(MARKS))
                if not rest.strip():
                    part.remove(output)
                elif len(rest.splitlines()) < len(printed):
                    output.children, output.rawsource = [nodes.Text(rest)], rest
        if len(part):
            others.append(part)
    return lines, others


def row(line):
    """Write a claim as a list's line: its name, what was measured, and the bound."""
    if found := CLAIM.fullmatch(line):
        name, value, bound = (escape(found[key]) for key in ("name", "value", "bound"))
        return f"<li>{name}: <b>{value}</b> <span>({bound})</span></li>"
    return f"<li>{escape(line[2:])}</li>"


def details(kind, summary, content):
    return [raw(f'<details class="{kind}"><summary>{summary}</summary>'), *content, raw("</details>")]


def raw(html):
    return nodes.raw("", html, format="html")
