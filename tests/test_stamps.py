"""Stamps: what puts a lesson out of date, what does not, and what a run leaves behind."""

import functools
import glob
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cvlab import data, files, run, stamps

pytestmark = pytest.mark.house

ROOT = run.book_root()
MODULES = {
    "__init__": """'Lazy.'

__version__ = "1.0"
__all__ = ["boxes", "check", "masks"]

def __getattr__(name):
    return name
""",
    "boxes": """'Boxes.'
from . import geometry

def area(box):
    'Give the area.'
    return geometry.area(box)
""",
    "geometry": """
def area(box):
    from cvlab.engine.fast import product  # only when it is called
    return product(box)
""",
    "engine/__init__": "",
    "engine/fast": """from ..files import whole

def product(box):
    return box[0] * box[1]
""",
    "files": "def whole(): pass",
    "masks": "from cvlab import boxes",
    "check": "def check(): pass",
}
REACHED = {"__init__", "boxes", "geometry", "engine/__init__", "engine/fast", "files", "check"}
CODE = "from cvlab import boxes\nfrom cvlab.check import check\nboxes.area((2, 3))  # 6"


@pytest.fixture
def book(tmp_path):
    """A small book: a package, an archive, and one lesson that was executed with a stamp."""
    for name, source in MODULES.items():
        path = tmp_path / "cvlab" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for name in ("data/toys.zip", "data/other.zip", "experiments/results/boxes.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Boxes"),
            new_code_cell("seeds = 3", metadata={"tags": ["parameters"]}),
            new_code_cell(CODE, outputs=[new_output("execute_result", {"text/plain": "6"}, execution_count=2)]),
            new_code_cell("print('a\\nb')", outputs=[new_output("stream", text="a\nb\n")]),
        ]
    )
    opened = {
        name: hashlib.sha256(b"content").hexdigest() for name in ("data/toys.zip", "experiments/results/boxes.json")
    }
    stamp = {
        "fingerprint": stamps.dependencies(tmp_path, notebook, {}),
        "files": opened,
        "date": "2025-01-31T12:00:00Z",
    }
    stamps.seal(notebook, stamp)
    return tmp_path, notebook


def why(book, **parameters):
    root, notebook = book
    return stamps.why_stale(root, notebook, stamps.dependencies(root, notebook, parameters))


def change(book, name, before, after):
    path = book[0] / name
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_a_stamped_lesson_is_up_to_date(book):
    assert why(book) is None
    assert set(book[1].metadata.cvlab.stamp.fingerprint) == {
        "code cells",
        "parameters",
        *(f"cvlab/{name}.py" for name in REACHED),
    }


def test_it_is_so_too_when_read_from_its_file_as_plain_json(book):
    root, notebook = book
    raw = json.loads(nbformat.writes(notebook))
    assert raw["cells"][-1]["outputs"][0]["text"] == ["a\n", "b\n"]
    assert stamps.why_stale(root, raw, stamps.dependencies(root, raw, {})) is None


def test_a_lesson_without_a_stamp_is_out_of_date(book):
    del book[1].metadata["cvlab"]
    assert why(book) == "never executed with a stamp"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("cvlab/boxes.py", "Give the area.", "Give the area of a box."),
        ("cvlab/boxes.py", "'Boxes.'", "'Rectangles.'"),
        ("cvlab/geometry.py", "# only when it is called", "# later"),
        ("cvlab/geometry.py", "return product(box)", "return product(\n        box\n    )"),
        ("cvlab/masks.py", "boxes", "boxes as b"),
        ("cvlab/__init__.py", '"masks"]', '"masks", "new"]'),
        ("cvlab/__init__.py", '"1.0"', '"1.1"'),
        ("data/other.zip", "content", "other"),
    ],
    ids=[
        "docstring",
        "module's docstring",
        "comment",
        "formatting",
        "unreached module",
        "a new module's name",
        "version",
        "unopened archive",
    ],
)
def test_a_lesson_stays_up_to_date_after_a_change_of(book, name, before, after):
    change(book, name, before, after)
    assert why(book) is None


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("cvlab/boxes.py", "return geometry.area(box)", "return -geometry.area(box)"),
        ("cvlab/geometry.py", "product(box)", "product(bax)"),
        ("cvlab/engine/fast.py", "[1]", "[2]"),
        ("cvlab/engine/__init__.py", "", "x = 1"),
        ("cvlab/files.py", "pass", "return"),
        ("cvlab/check.py", "pass", "return"),
        ("cvlab/__init__.py", "return name", "return name + name"),
        ("data/toys.zip", "content", "contents"),
        ("experiments/results/boxes.json", "content", "contend"),
    ],
)
def test_a_lesson_is_out_of_date_after_a_change_in(book, name, before, after):
    change(book, name, before, after)
    assert why(book) == f"changed: {name}"


def test_a_lesson_is_out_of_date_without_a_file_or_a_module_that_it_used(book):
    for name in ("data/toys.zip", "cvlab/check.py"):
        (book[0] / name).unlink()
    assert why(book) == "changed: data/toys.zip, cvlab/check.py"


def test_all_that_changed_is_named(book):
    change(book, "cvlab/boxes.py", "return", "return 1 +")
    change(book, "data/toys.zip", "content", "contents")
    assert why(book, seeds=4) == "changed: parameters, cvlab/boxes.py, data/toys.zip"


def test_a_lesson_is_out_of_date_with_other_parameters(book):
    assert why(book, seeds=4) == "changed: parameters"


def test_prose_may_change(book):
    book[1].cells[0].source = "# Rectangles"
    book[1].cells.insert(2, new_markdown_cell("More."))
    assert why(book) is None


@pytest.mark.parametrize(
    "source",
    [CODE + " is six", CODE.replace("(2, 3)", "(\n    2, 3\n)"), "# Six\n\n" + CODE],
    ids=["comment", "formatting", "title"],
)
def test_comments_and_formatting_in_a_cell_may_change(book, source):
    book[1].cells[2].source = source
    assert why(book) is None


@pytest.mark.parametrize(
    "source",
    [CODE.replace("3", "4"), CODE.replace("  # 6", ";  # 6"), f"%magic\n{CODE}", CODE + "\n'six'"],
    ids=["number", "semicolon that hides the value", "magic", "value shown"],
)
def test_a_lesson_is_out_of_date_after_a_change_of_a_cells(book, source):
    book[1].cells[2].source = source
    assert "code cells" in why(book)


def test_a_text_that_a_cell_begins_with_is_shown_and_no_docstring(book):
    book[1].cells[3].source = "'a'"
    before = stamps.dependencies(*book, {})["code cells"]
    book[1].cells[3].source = "'b'"
    assert stamps.dependencies(*book, {})["code cells"] != before


def test_the_tags_and_the_order_of_cells_count(book):
    notebook = book[1]
    notebook.cells[1].metadata.tags = []
    assert why(book) == "changed: code cells"
    notebook.cells[1].metadata.tags = ["parameters"]
    notebook.cells[2:4] = notebook.cells[3:1:-1]
    assert why(book) == "its outputs or its stamp were edited after it was executed"


@pytest.mark.parametrize(
    ("imports", "modules"),
    [
        ("import numpy as np\nfrom os import path", set()),
        ("import cvlab.check as c", {"__init__", "check"}),
        ("import cvlab", set(MODULES)),
        ("import cvlab.check", set(MODULES)),
        ("from cvlab import *", set(MODULES)),
        ("def f():\n    if x:\n        from cvlab import check", {"__init__", "check"}),
        ("from cvlab.engine import fast", {"__init__", "engine/__init__", "engine/fast", "files"}),
        ("from cvlab import __version__", {"__init__"}),
        ("import cvlabs\nfrom cvlabs import boxes", set()),
    ],
)
def test_a_lesson_reaches_what_it_imports(book, imports, modules):
    notebook = new_notebook(cells=[new_code_cell(imports)])
    reached = {name for name in stamps.dependencies(book[0], notebook, {}) if name.endswith(".py")}
    assert reached == {f"cvlab/{name}.py" for name in modules}


def test_the_fingerprint_knows_no_backend_and_no_requirements(book, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "another")
    (book[0] / "requirements.txt").write_text("keras")
    (book[0] / "data" / "manifest.json").write_text("{}")
    assert why(book) is None


@pytest.mark.parametrize(
    ("key", "value"), [("date", "2026-01-31T12:00:00Z"), ("files", {}), ("checksum", "0" * 64), ("seconds", 1)]
)
def test_a_stamp_that_was_edited_is_noticed(book, key, value):
    book[1].metadata.cvlab.stamp[key] = value
    assert why(book) == "its outputs or its stamp were edited after it was executed"
    assert stamps.read(book[1]) is None


@pytest.mark.parametrize("stamp", ["yes", ["a"], {"date": "2025-01-31"}])
def test_what_is_no_stamp_is_none(book, stamp):
    book[1].metadata.cvlab["stamp"] = stamp
    assert why(book) == "its outputs or its stamp were edited after it was executed"


@pytest.mark.parametrize(
    "edit",
    [
        lambda cell: cell.outputs[0].data.update({"text/plain": "7"}),
        lambda cell: cell.update(outputs=[]),
        lambda cell: cell.outputs.append(new_output("stream", text="more")),
    ],
)
def test_outputs_that_were_edited_are_noticed(book, edit):
    edit(book[1].cells[2])
    assert why(book) == "its outputs or its stamp were edited after it was executed"


# The same on every Python

SYNTAX = '''
"""A docstring."""
import cvlab.boxes as b
from __future__ import annotations

type_ = u"\\u00e9\\U0001fae8" "joined" f"{x!r:>{width}}{y:.2f}{{}}" f"{x=}{'nested'}"


@decorated(1, *a, **k)
class C(B, metaclass=M):
    """Another."""
    x: int = 1_000
    y = 1e-7j, ..., None, True, b"\\x00", -0.5, 10**20

    async def f(self, a, /, b: int = 1, *c, d, e=None, **f) -> None:
        """A third."""
        async with a as b, c: await d
        return {**a, 1: 2}, [*b], {i async for i in x if i}, lambda *, z: (yield)


match p:
    case {"a": [1, *rest], **others} | C(x=1) if rest: pass
    case None | "s" | _: pass
while (n := next(i)) is not None:
    try: del x[1:2, ::3]
    except (A, B) as error: raise C from error
    else: x @= y
    finally: assert x, "no"
'''
DIGEST = "56f40e91182e7ec9df77e73a38a94a0c5200c65b05af485a2ce7998ea996bca1"
PRINT_DIGESTS = """
import json, sys
from pathlib import Path
from cvlab import stamps
root = Path(sys.argv[1])
cell = {"cell_type": "code", "metadata": {}, "source": sys.stdin.read()}
print(stamps.dependencies(root, {"cells": [cell]}, {})["code cells"])
for path in sorted(root.glob("chapters/**/*.ipynb"))[::4]:
    print(json.dumps(stamps.dependencies(root, json.loads(path.read_text(encoding="utf-8")), {})))
"""


def test_the_digest_of_code_is_the_same_on_every_python_and_system():
    cell = new_code_cell(SYNTAX)
    assert stamps.dependencies(ROOT, new_notebook(cells=[cell]), {})["code cells"] == DIGEST


def pythons():
    """List an interpreter of each other version that is found, in the path or where pyenv puts them."""
    for version in ("3.10", "3.11", "3.12", "3.13"):
        installed = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")))
        python = installed[-1] if installed else shutil.which(f"python{version}")
        if python and version != "{}.{}".format(*sys.version_info):
            yield pytest.param(python, id=version)


@functools.cache
def digests(python):
    """Give what another interpreter computes for some of the book's chapters, without any package."""
    return subprocess.run(
        [python, "-B", "-c", PRINT_DIGESTS, ROOT],
        input=SYNTAX,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    ).stdout


@pytest.mark.parametrize("python", list(pythons()))
def test_the_books_fingerprints_are_the_same_on_every_python(python):
    assert digests(python) == digests(sys.executable)


# What is recorded


def test_files_of_the_book_are_noted_as_they_are_opened_and_others_are_not(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "opened", {})
    data.results("boxes")
    data.weights("resnet20_eyes")
    data.load("duck", "test", limit=1)
    data.imagenet_classes()
    files.record(tmp_path / "my_own.zip")
    assert set(files.opened) == {
        "experiments/results/boxes.json",
        "data/weights/resnet20_eyes.weights.h5",
        "data/toybox/duck.zip",
        "data/imagenet_classes.csv",
    }
    assert files.opened["data/toybox/duck.zip"] == files.manifest()["toybox/duck.zip"]["sha256"]


def test_what_is_only_looked_for_is_not_noted(monkeypatch):
    monkeypatch.setattr(files, "opened", {})
    data.available()
    data.describe("objects")
    assert files.opened == {}


# While a lesson runs


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lesson(seconds=None):
    """A lesson of three cells, with a stamp where the seconds of its last run are given."""
    cells = [
        new_code_cell("1", id="a"),
        new_markdown_cell("Text."),
        new_code_cell("2", id="b"),
        new_code_cell("3", id="c"),
    ]
    notebook = new_notebook(cells=cells)
    if seconds:
        stamps.seal(notebook, {"cells": seconds, "seconds": 20})
    return notebook


def test_the_progress_line_estimates_from_the_stamp_at_the_pace_of_this_run(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])
    notebook = lesson({"a": 4, "b": 10})  # the third cell, and the start, took the other six seconds
    with run.Progress("lesson 2 of 3: week1/small", notebook, io.StringIO()) as progress:
        clock[0] = 101
        assert progress.line() == "lesson 2 of 3: week1/small, 1 s"
        progress.start_cell(notebook.cells[0], 0)
        assert progress.line() == "lesson 2 of 3: week1/small, cell 1 of 3, 1 s, about 20 s to go"
        clock[0] = 108
        progress.start_cell(notebook.cells[1], 1)
        progress.start_cell(notebook.cells[2], 2)
        assert progress.line() == "lesson 2 of 3: week1/small, cell 2 of 3, 8 s, about 32 s to go"
        clock[0] = 160
        assert progress.line() == "lesson 2 of 3: week1/small, cell 2 of 3, 60 s, about 12 s to go"


def test_without_a_stamp_nothing_is_estimated():
    notebook, stream = lesson(), io.StringIO()
    with run.Progress("week1/small", notebook, stream) as progress:
        progress.start_cell(notebook.cells[3], 3)
        assert progress.line() == "week1/small, cell 3 of 3, 0 s"
    assert stream.getvalue() == "week1/small … 0 s\n"


def test_in_a_terminal_one_line_is_rewritten():
    stream = Terminal()
    with run.Progress("week1/small", lesson({"a": 4}), stream):
        time.sleep(1.3)
    assert stream.getvalue() == "\r\x1b[Kweek1/small, 1 s" * 2 + "\n"


@pytest.mark.parametrize(("error", "end"), [(KeyboardInterrupt, "stopped after 0 s"), (ValueError, "failed after 0 s")])
def test_elsewhere_one_line_a_lesson_is_printed(error, end):
    stream = io.StringIO()
    with pytest.raises(error), run.Progress("week1/small", lesson({"a": 4}), stream):
        raise error
    assert stream.getvalue() == f"week1/small, about 20 s … {end}\n"


@pytest.fixture
def clone(tmp_path):
    """A clone with this package and two chapters: a quick one, and one that doesn't end."""
    shutil.copytree(ROOT / "cvlab", tmp_path / "cvlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("book/build.py", "data/manifest.json", "experiments/results/boxes.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "chapters" / "profiles").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("{}")
    endless = "import time\nopen('started', 'w').close()\ntime.sleep(600)"
    for name, code in {"endless": endless, "a_quick_one": "from cvlab import data\nlen(data.results('boxes'))"}.items():
        notebook = new_notebook(cells=[new_code_cell(code)])
        nbformat.write(notebook, tmp_path / "chapters" / f"{name}.ipynb")
    return tmp_path


def wait_for(path, seconds=60):
    for _ in range(10 * seconds):
        if path.exists():
            return
        time.sleep(0.1)
    pytest.fail(f"{path} is not there after {seconds} s")


def test_ctrl_c_leaves_one_line_and_what_was_executed_with_its_stamp(clone):
    pytest.importorskip("filelock", reason="the book is not built on Colab's versions")
    book = subprocess.Popen(
        [sys.executable, "book/build.py"],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background of a script ignores the signal, and so would this process.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(clone / "chapters" / "started")
    book.send_signal(signal.SIGINT)
    out, err = book.communicate(timeout=60)
    assert (book.returncode, err) == (130, "book: stopped; what was executed is kept, make book goes on from there\n")
    lines = [re.sub(r"\d+ s", "9 s", line) for line in out.splitlines()]
    assert lines == [
        "a_quick_one: to be executed (never executed with a stamp)",
        "endless: to be executed (never executed with a stamp)",
        "lesson 1 of 2: a_quick_one … 9 s",
        "lesson 2 of 2: endless … stopped after 9 s",
    ]
    stage = clone / "_build" / "stage" / "chapters"
    assert os.listdir(stage) == ["a_quick_one.ipynb"]
    notebook = nbformat.read(stage / "a_quick_one.ipynb", as_version=4)
    stamp = stamps.read(notebook)
    assert [len(notebook.cells), stamp["profile"]] == [1, "quick"]
    assert list(stamp["files"]) == ["experiments/results/boxes.json"] and stamp["cpu_seconds"] > 0
    assert stamp["versions"]["python"] == platform.python_version() and "numpy" in stamp["versions"]
    assert stamp["machine"]["architecture"] == platform.machine() and stamp["seconds"] > 0
    assert platform.node() not in json.dumps(stamp) and str(clone) not in json.dumps(stamp)
    assert stamps.why_stale(clone, notebook, stamps.dependencies(clone, notebook, {})) is None
