"""`python -m cvlab`: which parameters a chapter gets, when it is out of date, what a user is told."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cvlab import __main__ as command
from cvlab import run, stamps

pytestmark = pytest.mark.house

PARAMETERS = "seeds = 3\nlearning_rate = 0.1\ndataset = 'objects'\nfast = True\nsizes = (5, 20)\nlimit = None"


def write_chapter(root, *sources, name="week1/small"):
    cells = [new_markdown_cell("# Small"), new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    path = root / "chapters" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in sources]), path)
    return path


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with one chapter, `week1/small`, and the profiles quick and full."""
    write_chapter(tmp_path, "print(seeds * 2)")
    profiles = tmp_path / "chapters" / "profiles"
    profiles.mkdir()
    (profiles / "quick.yml").write_text("week1/small: {seeds: 3}\n")
    (profiles / "full.yml").write_text("week1/small: {seeds: 10, learning_rate: 1}\n")
    monkeypatch.setattr(run, "book_root", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["week1/small", "small", "chapters/week1/small.ipynb", "./chapters/week1/small.ipynb"])
def test_a_chapter_is_found_by_name_or_path(book, name):
    assert run.find_chapter(name) == "week1/small"


def test_a_profile_overrides_the_cell_and_the_command_line_the_profile(book):
    assert run.settings("week1/small", "full") == {"seeds": 10, "learning_rate": 1.0}
    assert run.settings("week1/small", "full", [("seeds", "4")]) == {"seeds": 4, "learning_rate": 1.0}


def test_what_equals_the_parameters_cell_is_not_injected(book):
    assert run.settings("week1/small", "quick") == {}
    assert run.settings("week1/small", "full", [("seeds", "3"), ("learning_rate", "0.1")]) == {}


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [("seeds", "7", 7), ("learning_rate", "1", 1.0), ("learning_rate", "1e-3", 1e-3), ("dataset", "7", "7"),
     ("fast", "false", False), ("sizes", "[1, 2]", (1, 2)), ("limit", "100", 100), ("limit", "few", "few")],
)  # fmt: skip
def test_a_value_from_the_command_line_gets_the_parameters_type(book, parameter, text, value):
    result = run.settings("week1/small", "quick", [(parameter, text)])[parameter]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["week9/none"], ["week9/none", "week1/small"]), ([], ["week1/small"]),
     (["small", "--profile", "fast"], ["fast", "full, quick"]), (["small", "-p", "sedes", "1"], ["sedes", "seeds"]),
     (["small", "-p", "seeds", "1.5"], ["seeds", "1.5", "int"]), (["small", "-p", "seeds", "many"], ["many", "int"]),
     (["small", "-p", "fast", "1"], ["fast", "bool"]), (["small", "-p", "sizes", "5"], ["sizes", "tuple"]),
     (["small", "-p", "seeds", "__import__('os')"], ["seeds", "int"])],
)  # fmt: skip
def test_a_wrong_request_gets_one_line_and_status_2(book, capsys, arguments, told):
    assert command.main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(word in err for word in told)


def test_a_wrong_value_in_a_profile_is_told_too(book):
    (book / "chapters" / "profiles" / "full.yml").write_text("week1/small: {seeds: many}\n")
    with pytest.raises(run.CommandError, match="seeds is 'many', expected int"):
        run.settings("week1/small", "full")


def test_outside_a_clone_one_line_says_so(tmp_path):
    package = tmp_path / "site" / "cvlab"
    package.mkdir(parents=True)
    for module in ("__init__", "__main__", "files", "run", "stamps"):
        shutil.copy(Path(run.__file__).with_name(f"{module}.py"), package)
    done = subprocess.run(
        [sys.executable, "-m", "cvlab", "run", "small"], cwd=package.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "clone" in done.stderr


def test_a_chapter_is_out_of_date_until_it_is_stamped_and_after_a_change(book):
    path = book / "chapters" / "week1" / "small.ipynb"
    assert run.stale("week1/small") == "never executed with a stamp"
    notebook = nbformat.read(path, as_version=4)
    stamps.seal(notebook, {"fingerprint": run.fingerprint("week1/small", {}), "files": {}})
    nbformat.write(notebook, path)
    assert run.stale("week1/small") is None
    (book / "chapters" / "profiles" / "quick.yml").write_text("week1/small: {seeds: 4}\n")
    assert run.stale("week1/small") == "changed: parameters"


def test_an_execution_tells_what_it_ran_on_and_how_long_each_cell_took(book):
    write_chapter(book, "import time\ntime.sleep(0.6)", "1")
    target = book / "out" / "small.ipynb"
    told = run.execute("week1/small", target, {})
    slow = nbformat.read(target, as_version=4).cells[-2].id
    assert set(told) == {"versions", "machine", "files", "date", "seconds", "cells"}
    assert list(told["cells"]) == [slow] and 0.6 <= told["cells"][slow] < told["seconds"]
    assert told["versions"]["python"] == platform.python_version() and told["files"] == {}


def test_ctrl_c_gets_one_line_and_status_130(book, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "execute", interrupted)
    assert command.main(["run", "small"]) == 130
    assert capsys.readouterr().err == "run: stopped; nothing was written\n"


def test_run_executes_with_the_parameters_under_this_very_python_whatever_kernels_the_user_has(book, monkeypatch):
    rogue = book / "home" / "kernels" / "python3"
    rogue.mkdir(parents=True)
    (rogue / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "rogue", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(book / "home"))
    monkeypatch.setenv("JUPYTER_PATH", str(book / "home"))
    told = "seeds, sys.executable, os.environ['PYTHONHASHSEED'], os.getcwd()"
    write_chapter(book, f"import os, sys\nprint({told}, sep='\\n')")
    target = book / "out" / "small.ipynb"
    assert command.main(["run", "small", "-p", "seeds", "4", "-o", str(target)]) == 0
    printed = nbformat.read(target, as_version=4).cells[-1].outputs[0].text.splitlines()
    assert printed == ["4", sys.executable, "0", str(book / "chapters" / "week1")]
    assert os.listdir(target.parent) == ["small.ipynb"]


@pytest.mark.parametrize(("overrides", "status"), [([], 1), (["-p", "seeds", "4"], 0)])
def test_a_claim_is_asserted_with_the_chapters_own_parameters_and_reported_with_others(book, overrides, status):
    write_chapter(book, "from cvlab.check import check\ncheck('seeds', seeds, at_least=7)")
    target = book / "out" / "small.ipynb"
    assert command.main(["run", "small", "-o", str(target), *overrides]) == status
    assert "CVLAB_CHECKS" not in os.environ
    if status == 0:
        assert "✗ seeds: 4" in nbformat.read(target, as_version=4).cells[-1].outputs[0].text


def test_a_cell_that_raises_is_named_and_what_was_there_before_stays(book, capsys):
    write_chapter(book, "1 + 1", "boxes = []\nboxes[3]")
    target = book / "out" / "small.ipynb"
    target.parent.mkdir()
    target.write_text("good")
    assert command.main(["run", "small", "-o", str(target)]) == 1
    failed = target.with_name("small.failed.ipynb")
    told = f"run: week1/small, cell 4: IndexError: list index out of range; the notebook as far as it got is {failed}\n"
    assert capsys.readouterr().err == told
    assert "boxes[3]" in failed.read_text()
    assert target.read_text() == "good"
    assert sorted(os.listdir(target.parent)) == ["small.failed.ipynb", "small.ipynb"]
    assert nbformat.read(target.parent / "small.failed.ipynb", as_version=4).cells


def test_a_place_that_cannot_be_written_gets_one_line(book, capsys):
    (book / "file").write_text("")
    assert command.main(["run", "small", "-o", str(book / "file" / "small.ipynb")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_doctor_finds_damaged_and_missing_files(book, capsys):
    pytest.importorskip("jupyter_book")  # without it, the verdict is another
    weights = book / "data" / "weights" / "net.weights.h5"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    entry = {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7}
    (book / "data" / "manifest.json").write_text(json.dumps({"files": {"weights/net.weights.h5": entry}}))
    assert command.main(["doctor"]) == 0
    assert "verdict    ready" in capsys.readouterr().out
    weights.write_bytes(b"weightz")
    assert command.main(["doctor"]) == 1
    assert "net.weights.h5 differs" in capsys.readouterr().out
    weights.unlink()
    assert command.main(["doctor"]) == 1
    assert "verdict    not ready: weights" in capsys.readouterr().out


def test_doctor_outside_a_clone_asks_for_no_files_of_one(monkeypatch, capsys):
    def none():
        raise run.CommandError("run: no clone")

    monkeypatch.setattr(run, "book_root", none)
    assert command.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "no clone is here" in out and "verdict    ready to run chapters" in out and "make book" not in out


def test_doctor_says_that_cvlab_data_points_nowhere(book, capsys, monkeypatch):
    monkeypatch.setenv("CVLAB_DATA", str(book / "nowhere"))
    (book / "data").mkdir()
    (book / "data" / "manifest.json").write_text('{"files": {}}')
    assert command.main(["doctor"]) == 1
    assert "CVLAB_DATA" in capsys.readouterr().out
