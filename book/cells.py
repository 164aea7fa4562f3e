"""What kind of cell is it: the lesson's method, or what stands around it? For the page's folds, and to count lines.

    python book/cells.py    # how many of the visible lines of code are method, by lesson

A page shows the code of the method, and folds what checks it, plots it or sets it up. A cell's kind is told from its
statements; in a notebook it is an ordinary cell. What is method by its statements, but only copies, collects or times
what the text says, has the tag "hide-input" and folds as well, under the cell's own `code_prompt_show`.
"""

import ast
import collections
import sys
from pathlib import Path

CHECKS = {"check", "claim", "claim.label", "claim.summary"}
FIGURES = {"show.figure", "show.images", "show.curves", "show.table", "show.feature_maps", "explore"}
FIGURES |= {
    f"interact.{name}"
    for name in ("drag_boxes", "step_nms", "merge_regions", "place_anchors", "paint_labels", "drag_occluder")
}
DRAWS = {"ax", "axes", "drawing", "show", "draw_boxes"}  # names that only code for a figure uses
MOST = 0.5  # of a cell's lines make it what they are


def kind(source: str, tags=()) -> str:
    """Tell a cell's kind: "set-up", "quiz", "exercise", "check", "figure", "aside" or "method".

    Args: source: the cell's code. tags: the tags in its metadata.
    """
    if "setup" in tags or "parameters" in tags:
        return "set-up"
    if "plotting" in tags:  # helpers of a figure or a table, whose statements don't tell
        return "figure"
    statements = ast.parse(source).body
    if 2 * sum(isinstance(each, (ast.Import, ast.ImportFrom)) for each in statements) >= max(1, len(statements)):
        return "set-up"
    calls = {name for each in statements for name in called(each)}
    if "quiz" in calls:
        return "quiz"
    if "exercise" in calls:
        return "exercise"
    counted, total = count(source, statements)
    if counted["check"] and counted["check"] >= MOST * total:
        return "check"
    if counted["check"] + counted["figure"] > MOST * total:
        return "figure"
    return "aside" if "hide-input" in tags else "method"


def count(source, statements):
    """Count the lines of statements by what they are for: {"method": …, "figure": …, "check": …}, and all of them."""
    counted = dict.fromkeys(("method", "figure", "check"), 0)
    for name, lines in counted_lines(source, statements):
        counted[name] += lines
    return counted, sum(counted.values())


def counted_lines(source, statements):
    """Give (kind, number of lines) of statements; those within a `with` or a `try` count on their own."""
    for statement, lines in zip(statements, lengths(source, statements)):
        if isinstance(statement, (ast.With, ast.Try)):
            handlers = [each for handler in getattr(statement, "handlers", ()) for each in handler.body]
            yield from counted_lines(source, [*statement.body, *handlers])
        else:
            yield statement_kind(statement), lines


def statement_kind(statement):
    """Tell what a statement is for: "check", "figure" or "method"."""
    names = called(statement)
    if names & CHECKS:
        return "check"
    if names & FIGURES:
        return "figure"
    used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    used |= {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
    return "figure" if used & DRAWS else "method"


def called(statement):
    """Give the names of all that a statement calls, such as "claim.label"."""
    return {ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)}


def lengths(source, statements):
    """Count each statement's lines, blank ones and comments of their own left out."""
    lines = source.splitlines()
    for statement in statements:
        own = lines[statement.lineno - 1 : statement.end_lineno]
        yield sum(bool(line.strip()) and not line.strip().startswith("#") for line in own)


def visible(notebook):
    """Count the lines of code that a page shows: {"method": …, "figure": …, "check": …}, and the longest cell's."""
    counted, longest = collections.Counter(method=0, figure=0, check=0), 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or kind(cell.source, cell.metadata.get("tags", ())) != "method":
            continue
        of_cell, total = count(cell.source, ast.parse(cell.source).body)
        longest = max(longest, total)
        counted.update(of_cell)
    return dict(counted), longest


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from cvlab import run

    sums = {"method": 0, "figure": 0, "check": 0}
    for name in run.chapters():
        counted, longest = visible(run.read_notebook(name))
        sums = {key: sums[key] + counted[key] for key in sums}
        print(f"{name:<26} {told(counted)}, longest cell {longest} lines")
    print(f"{'all':<26} {told(sums)}")


def told(counted):
    total = sum(counted.values())
    return f"{total:>4} visible lines, {counted['method'] / max(1, total):.0%} method"


if __name__ == "__main__":
    main()
