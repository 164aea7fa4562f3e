"""Exercises: with the folded solutions in the places of the dots, every check says that the answer is right.

Each chapter is executed once more for it, so it runs where CVLAB_SOLUTIONS is set: in the weekly workflow, and by hand
after a change to an exercise.
"""

import os
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from cvlab import run

ROOT = Path(__file__).resolve().parents[1]
DOTS = re.compile(r"^[\w, ]+ = \.\.\.(, \.\.\.)*$")
BLOCK = re.compile(r":::\{dropdown\} Solution(.*?)^:::", re.S | re.M)
CODE = re.compile(r"```python\n(.*?)```|`(\w+ = [^`]+)`", re.S)


def with_solutions(notebook):
    """Put the code of each folded solution into the cell with dots before it; say how many there were."""
    waiting, filled = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and DOTS.match(cell.source.strip()):
            waiting.append(cell)
        elif cell.cell_type == "markdown":
            for solution in BLOCK.findall(cell.source):
                assert waiting, f"a solution without an exercise: {solution[:80]}"
                block, line = CODE.search(solution).groups()
                waiting.pop(0).source = block or line
                filled += 1
    assert not waiting, f"no solution for {waiting[0].source}"
    return filled


@pytest.mark.parametrize("name", run.chapters())
def test_every_exercise_has_its_solution(name):
    notebook = nbformat.read(ROOT / "chapters" / f"{name}.ipynb", as_version=4)
    assert with_solutions(notebook) >= 3


@pytest.mark.skipif("CVLAB_SOLUTIONS" not in os.environ, reason="CVLAB_SOLUTIONS is not set")
@pytest.mark.parametrize("name", run.chapters())
def test_the_solutions_are_right(name, tmp_path):
    notebook = nbformat.read(ROOT / "chapters" / f"{name}.ipynb", as_version=4)
    filled = with_solutions(notebook)
    nbformat.write(notebook, tmp_path / "solved.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "solved.ipynb", tmp_path / "done.ipynb", kernel_name="python3", progress_bar=False
    )
    printed = "".join(o.get("text", "") for c in done.cells if c.cell_type == "code" for o in c.outputs)
    assert printed.count("That is right.") == filled, [x for x in printed.splitlines() if x[:1] in "✗○"]
