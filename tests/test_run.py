"""`python -m cvlab`: which parameters a chapter gets, when it is out of date, what a user is told."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cvlab import __main__ as command
from cvlab import records, run, stamps

pytestmark = pytest.mark.house

EARLIER_RUN = '{"cells": [], "metadata": {"papermill": {}}, "nbformat": 4, "nbformat_minor": 5}'
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
    (profiles / "none.yml").write_text("")
    monkeypatch.setattr(run, "book_root", lambda: tmp_path)
    return tmp_path


def forbid_execution(monkeypatch):
    """Let a test fail that executes anything."""
    papermill = pytest.importorskip("papermill")
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("executed"))


def test_what_libraries_write_past_python_does_not_reach_the_terminal(book, tmp_path, capfd):
    write_chapter(book, "import os\nos.write(os.open(f'/proc/{os.getpid()}/fd/2', os.O_WRONLY), b'noise')\nprint(1)")
    run.execute("week1/small", tmp_path / "out.ipynb", {})
    assert "noise" not in "".join(capfd.readouterr())


def test_chapters_are_the_notebooks_by_name_without_checkpoints_and_failed_runs(book):
    write_chapter(book, name="week2/other")
    write_chapter(book, name="week1/a")
    write_chapter(book, name="week1/.ipynb_checkpoints/small-checkpoint")
    write_chapter(book, name="week2/other.failed")
    assert run.chapters() == ["week1/a", "week1/small", "week2/other"]


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
    [
        ("seeds", "7", 7),
        ("learning_rate", "1", 1.0),
        ("learning_rate", "1e-3", 1e-3),
        ("dataset", "7", "7"),
        ("fast", "false", False),
        ("sizes", "[1, 2]", (1, 2)),
        ("limit", "100", 100),
        ("limit", "few", "few"),
    ],
)
def test_a_value_from_the_command_line_gets_the_parameters_type(book, parameter, text, value):
    result = run.settings("week1/small", "quick", [(parameter, text)])[parameter]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["week9/none"], ["week9/none", "week1/small"]),
        ([], ["week1/small"]),
        (["small", "--profile", "fast"], ["fast", "full, none, quick"]),
        (["small", "-p", "sedes", "1"], ["sedes", "seeds"]),
        (["small", "-p", "seeds", "1.5"], ["seeds", "1.5", "int"]),
        (["small", "-p", "seeds", "many"], ["many", "int"]),
        (["small", "-p", "fast", "1"], ["fast", "bool"]),
        (["small", "-p", "sizes", "5"], ["sizes", "tuple"]),
        (["small", "-p", "seeds", "__import__('os')"], ["seeds", "int"]),
    ],
)
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
    for module in ("__init__", "__main__", "files", "records", "run", "stamps"):
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
    assert set(told) == {"versions", "machine", "files", "claims", "date", "seconds", "cpu_seconds", "cells"}
    assert list(told["cells"]) == [slow] and 0.6 <= told["cells"][slow] < told["seconds"]
    assert told["versions"]["python"] == platform.python_version() and told["files"] == {}


# What was measured

CLAIMS = """
import numpy as np
from cvlab.check import Claims, check, exercise
claim = Claims(dataset == 'objects')
check('accuracy', 0.123456789, at_least=0.1)
check('shapes', np.arange(3), equals=[0, 1, 2])
claim('toys', 0.75, at_most=0.5)
claim('other toys', lambda: 7, equals=7)
exercise('sum', ..., equals=3)
"""


def measured(path):
    return json.loads(path.read_text())


def test_metrics_hold_every_claim_in_full_precision_with_its_bound_and_outcome(book):
    write_chapter(book, CLAIMS)
    assert command.main(["run", "small", "-p", "seeds", "4", "-o", str(book / "mine.ipynb")]) == 3
    claims = measured(book / "mine.metrics.json")["claims"]
    facts = [(c["name"], c["value"], c["at_least"], c["at_most"], c["equals"], c["outcome"]) for c in claims]
    assert facts == [
        ("accuracy", 0.123456789, 0.1, None, None, "held"),
        ("shapes", [0, 1, 2], None, None, [0, 1, 2], "held"),
        ("toys", 0.75, None, 0.5, None, "failed"),
        ("other toys", 7, None, None, 7, "held"),
    ]
    assert {claim["cell"] for claim in claims} == {3}, "the parameters, those of the run, and this one"


def test_a_claim_about_the_books_data_is_noted_as_skipped_with_other_data(book):
    write_chapter(book, CLAIMS)
    assert command.main(["run", "small", "-p", "dataset", "voc", "-o", str(book / "mine.ipynb")]) == 0
    told = measured(book / "mine.metrics.json")
    assert told["counts"] == {"held": 2, "failed": 0, "skipped": 2}
    assert [c["value"] for c in told["claims"] if c["outcome"] == "skipped"] == [0.75, None]


def test_metrics_name_parameters_versions_device_seconds_seed_and_commit(book, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "0" * 40)
    path = write_chapter(book, "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "\nseed = 5"
    nbformat.write(notebook, path)
    assert command.main(["run", "small", "-p", "seeds", "4", "-o", str(book / "mine.ipynb")]) == 0
    told = measured(book / "mine.metrics.json")
    assert told["parameters"]["seeds"] == 4 and told["parameters"]["learning_rate"] == 0.1
    assert told["changed"] == {"seeds": 4} and told["seed"] == 5 and told["commit"] == "0" * 40
    assert told["outcome"] == "held" and told["error"] is None and told["notebook"] == "mine.ipynb"
    assert told["versions"]["python"] == platform.python_version() and told["seconds"] > 0
    assert told["device"] is None, "nothing ran on any"


def test_a_recorded_run_has_the_same_cells_and_outputs(book):
    write_chapter(book, CLAIMS)
    plain = run.execute("week1/small", book / "plain.ipynb", {"dataset": "voc"})
    records.execute("week1/small", "quick", {"dataset": "voc"}, book / "noted.ipynb")
    one, other = (nbformat.read(book / f"{name}.ipynb", as_version=4) for name in ("plain", "noted"))
    assert [c.source for c in one.cells] == [c.source for c in other.cells]
    assert [c.get("outputs") for c in one.cells] == [c.get("outputs") for c in other.cells]
    assert [c.get("execution_count") for c in one.cells] == [c.get("execution_count") for c in other.cells]
    assert plain["claims"] == {"skipped": 2, "failed": 0}


def test_a_failed_run_keeps_the_claims_up_to_there(book):
    write_chapter(book, "from cvlab.check import check\ncheck('sum', 3, equals=3)", "boxes = []\nboxes[3]")
    assert command.main(["run", "small", "-o", str(book / "mine.ipynb")]) == 1
    told = measured(book / "mine.failed.metrics.json")
    assert (told["outcome"], told["cell"], told["counts"]["held"]) == ("cell failed", 3, 1)
    assert "IndexError" in told["error"] and told["notebook"] == "mine.failed.ipynb"


def test_a_kernel_that_is_killed_leaves_its_claims(book):
    claim = "from cvlab.check import check\ncheck('sum', 3, equals=3)"
    write_chapter(book, claim, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert command.main(["run", "small", "-o", str(book / "mine.ipynb")]) == 1
    told = measured(book / "mine.failed.metrics.json")
    assert (told["outcome"], told["cell"], told["counts"]["held"]) == ("kernel died", None, 1)


def test_metrics_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    records.write(path, {"seconds": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        records.write(path, {"seconds": 2})
    assert measured(path) == {"seconds": 1} and os.listdir(tmp_path) == ["metrics.json"]


def test_the_number_of_devices_reaches_the_kernel(book, monkeypatch):
    monkeypatch.setenv("CVLAB_DEVICES", "1")
    write_chapter(book, "import os\nprint(os.environ['CVLAB_DEVICES'])")
    assert command.main(["run", "small", "--devices", "2", "-o", str(book / "mine.ipynb")]) == 0
    assert nbformat.read(book / "mine.ipynb", as_version=4).cells[-1].outputs[0].text == "2\n"
    with pytest.raises(SystemExit, match="2"):
        command.main(["run", "small", "--devices", "0"])


def test_in_a_log_progress_is_a_line_now_and_then(book):
    stream = io.StringIO()
    with run.Progress("small", run.read_notebook("week1/small"), stream, every=0.1):
        time.sleep(0.35)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 4 and set(lines) == {"small, 0 s"}


def test_ctrl_c_gets_one_line_and_status_130(book, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(records, "execute", interrupted)
    assert command.main(["run", "small"]) == 130
    assert capsys.readouterr().err == "run: stopped; no notebook was written\n"


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
    assert sorted(os.listdir(target.parent)) == ["small.ipynb", "small.metrics.json"]


@pytest.mark.parametrize(("overrides", "status"), [([], 1), (["-p", "seeds", "4"], 3)])
def test_a_claim_is_asserted_with_the_chapters_own_parameters_and_reported_with_others(book, overrides, status):
    write_chapter(book, "from cvlab.check import check\ncheck('seeds', seeds, at_least=7)")
    target = book / "out" / "small.ipynb"
    assert command.main(["run", "small", "-o", str(target), *overrides]) == status
    assert "CVLAB_CHECKS" not in os.environ
    if status == 3:
        assert "✗ seeds: 4" in nbformat.read(target, as_version=4).cells[-1].outputs[0].text


def test_a_cell_that_raises_is_named_and_what_was_there_before_stays(book, capsys):
    write_chapter(book, "1 + 1", "boxes = []\nboxes[3]")
    target = book / "out" / "small.ipynb"
    target.parent.mkdir()
    target.write_text(EARLIER_RUN)
    assert command.main(["run", "small", "-o", str(target)]) == 1
    failed = target.with_name("small.failed.ipynb")
    told = "run: week1/small, cell 4 (In [3]): IndexError: list index out of range; the notebook as far as it got is"
    assert capsys.readouterr().err == f"{told} {failed}\n"
    assert "boxes[3]" in failed.read_text()
    assert target.read_text() == EARLIER_RUN
    assert sorted(os.listdir(target.parent)) == ["small.failed.ipynb", "small.failed.metrics.json", "small.ipynb"]
    assert nbformat.read(target.parent / "small.failed.ipynb", as_version=4).cells


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("folder", ["which is a folder", "folder/my_run.ipynb"]),
        ("my_run", ["ends in .ipynb", "my_run.ipynb"]),
        ("my_run.txt", ["ends in .ipynb"]),
        ("mine.ipynb", ["no earlier run", "another name"]),
        ("mine.ipynb/small.ipynb", ["can't be written", "mine.ipynb"]),
        ("chapters/week1/small.ipynb", ["the book's own chapters"]),
        ("chapters/week9/new.ipynb", ["the book's own chapters"]),
        ("link.ipynb", ["the book's own chapters"]),
    ],
)
def test_an_output_that_will_not_do_is_told_before_anything_is_executed(book, capsys, monkeypatch, output, told):
    (book / "folder").mkdir()
    (book / "mine.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (book / "link.ipynb").symlink_to(book / "chapters" / "week1" / "small.ipynb")
    before = {path: path.read_bytes() for path in book.rglob("*.ipynb")}
    forbid_execution(monkeypatch)
    assert command.main(["run", "small", "-o", str(book / output)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert all(word in err for word in told), err
    assert {path: path.read_bytes() for path in book.rglob("*.ipynb")} == before


def test_a_disk_without_room_is_told_before_anything_is_executed(book, capsys, monkeypatch):
    forbid_execution(monkeypatch)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 2**20, 2**20))
    assert command.main(["run", "small", "-o", str(book / "small.ipynb")]) == 2
    assert "has 1 MB left; make room for 64 MB there" in capsys.readouterr().err


def test_a_folder_that_is_not_writable_is_told_before_anything_is_executed(book, capsys, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied", str(options["dir"]))

    forbid_execution(monkeypatch)
    monkeypatch.setattr(run.tempfile, "TemporaryFile", refuse)
    assert command.main(["run", "small", "-o", str(book / "out" / "small.ipynb")]) == 2
    assert f"can't be written (Permission denied: {book / 'out'})" in capsys.readouterr().err


def test_an_earlier_run_is_replaced_and_the_line_says_so(book, capsys):
    target = book / "small.ipynb"
    assert command.main(["run", "small", "-o", str(target)]) == 0
    assert f"s, written to {target}" in capsys.readouterr().out
    assert command.main(["run", "small", "-p", "seeds", "4", "-o", str(target)]) == 0
    assert f"written in place of an earlier run to {target}" in capsys.readouterr().out
    assert nbformat.read(target, as_version=4).cells[-1].outputs[0].text == "8\n"


def test_a_result_that_cannot_be_put_at_its_place_is_kept_and_the_message_says_where(book, capsys):
    target = book / "out" / "small.ipynb"
    write_chapter(book, f"import os\nos.makedirs({str(target)!r})\nprint('minutes of work')")
    assert command.main(["run", "small", "-o", str(target)]) == 1
    err = capsys.readouterr().err
    kept = Path(err.partition("is kept as ")[2].strip())
    assert len(err.splitlines()) == 1 and f"{target} can't be written" in err
    assert nbformat.read(kept, as_version=4).cells[-1].outputs[0].text == "minutes of work\n"
    shutil.rmtree(kept.parent)


def test_nothing_is_left_in_the_temporary_folder(book, monkeypatch, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(run.tempfile, "tempdir", str(temporary))
    assert command.main(["run", "small", "-o", str(book / "small.ipynb")]) == 0
    write_chapter(book, "boxes = []\nboxes[3]")
    assert command.main(["run", "small", "-o", str(book / "small.ipynb")]) == 1
    assert os.listdir(temporary) == []


# Paths on the command line.


@pytest.fixture
def reader(book, tmp_path_factory, monkeypatch):
    """A chapter with paths among its parameters, and the folder of a reader, with data and weights in it."""
    path = write_chapter(book, "print(path, checkpoint, dataset, weights, sep='|')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "path = ''\ncheckpoint = 'toybox'\ndataset = 'scenes'\nweights = ['toybox', 'mended']"
    nbformat.write(notebook, path)
    folder = tmp_path_factory.mktemp("reader")
    for name in ("data/slides", "voc", "nets"):
        (folder / name).mkdir(parents=True)
    (folder / "mine.weights.h5").write_bytes(b"")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "data"))
    return folder


@pytest.mark.parametrize(
    ("parameter", "given", "meant"),
    [
        ("path", "data/slides", "{}/data/slides"),
        ("path", "voc", "{}/voc"),
        ("path", "../{name}/voc", "{}/voc"),
        ("path", "~/slides", "{}/data/slides"),
        ("path", "{}/voc", "{}/voc"),
        ("checkpoint", "mine.weights.h5", "{}/mine.weights.h5"),
        ("checkpoint", "./nets", "{}/nets"),
        ("checkpoint", "other.weights.h5", "other.weights.h5"),
        ("dataset", "voc", "voc"),
        ("weights", "['mine.weights.h5', 'nets']", ["{}/mine.weights.h5", "nets"]),
    ],
)
def test_a_path_is_looked_up_from_the_folder_of_the_person_who_typed_it(reader, parameter, given, meant):
    given = given.format(reader, name=reader.name)
    meant = [m.format(reader) for m in meant] if isinstance(meant, list) else meant.format(reader)
    assert run.settings("week1/small", "none", [(parameter, given)]) == {parameter: meant}


def test_a_path_to_nothing_is_told_before_anything_is_executed(reader, capsys, monkeypatch):
    forbid_execution(monkeypatch)
    arguments = ["run", "small", "--profile", "none", "-p", "path", "data/slidse", "-o", "run.ipynb"]
    assert command.main(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "'data/slidse'" in err and str(reader / "data" / "slidse") in err


def test_the_lesson_gets_the_whole_path(reader):
    arguments = ["run", "small", "--profile", "none", "-p", "path", "voc", "-o", "run.ipynb"]
    assert command.main(arguments) == 0
    printed = nbformat.read(reader / "run.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.split("|")[0] == str(reader / "voc")


# Claims about the book's own data.

ABOUT_TOYS = """
from cvlab.check import Claims, check
claim = Claims(dataset == 'objects')
check('sizes', sizes, equals=(5, 20))
claim('toys', seeds, equals=7)
claim('toys in all', lambda: {'objects': 500}[dataset], equals=500)
claim.label()
claim.summary()
"""


def test_with_other_data_claims_about_the_books_are_skipped_and_counted(book, capsys):
    write_chapter(book, ABOUT_TOYS)
    target = book / "mine.ipynb"
    assert command.main(["run", "small", "-p", "dataset", "voc", "-o", str(target)]) == 0
    printed = nbformat.read(target, as_version=4).cells[-1].outputs[0].text.splitlines()
    assert printed == [
        "✓ sizes: all 2 values agree",
        "○ What follows shows the book's own data, not yours:",
        "○ 2 claims about the book's own data were skipped",
    ]
    assert capsys.readouterr().out.splitlines()[1:] == ["2 claims about the book's own data were skipped"]


def test_with_other_parameters_claims_about_the_books_data_are_reported_and_counted(book, capsys):
    write_chapter(book, ABOUT_TOYS)
    target = book / "mine.ipynb"
    assert command.main(["run", "small", "-p", "seeds", "6", "-o", str(target)]) == 3
    printed = nbformat.read(target, as_version=4).cells[-1].outputs[0].text.splitlines()
    assert printed == ["✓ sizes: all 2 values agree", "✗ toys: 6, expected 7", "✓ toys in all = 500"]
    told = capsys.readouterr().out.splitlines()[1:]
    assert told == ["1 claim does not hold with these parameters: see ✗ there"]


# Lessons on a reader's own data.

OWN_DATA = {  # lesson: the data that it takes, and parameters for a short run
    "week1/localization": ("voc", "one", {"steps": "40", "seeds": "1"}),
    "week1/transfer_learning": (
        "folder",
        "folder",
        {"input_sizes": "[32, 64]", "pictures_per_class": "[5, 10]", "seeds": "2", "steps": "5"},
    ),
    "week2/fine_tuning": (
        "voc",
        "several",
        {"steps": "{'last layer': 20, 'both heads': 10}", "background_images": "20"},
    ),
    "week2/proposals": ("voc", "several", {"limits": "[20, 10]", "steps": "40"}),
    "week2/two_stage": ("voc", "several", {"limits": "[20, 10]", "steps": "12"}),
    "week2/retinanet": ("voc", "several", {"steps": "12", "tested": "12"}),
    "week3/evaluation": ("masks", "masks", {"steps": "30", "seeds": "1"}),
    "week3/fcn": ("masks", "masks", {"steps": "40"}),
    "week3/upsampling": ("voc", "several", {"steps": "10", "seeds": "1"}),
    "week4/zfnet": ("folder", "folder", {"weights": "", "steps": "30"}),
}


def test_every_lesson_that_takes_a_readers_data_is_run_with_some():
    takes = {name for name in run.chapters() if "path" in run.default_parameters(run.read_notebook(name))}
    assert takes == {*OWN_DATA}


@pytest.mark.weekly
@pytest.mark.parametrize("name", OWN_DATA)
def test_a_lesson_runs_on_a_readers_data_without_a_word_about_the_books(name, tmp_path, monkeypatch, capsys):
    import made_up

    kind, data, parameters = OWN_DATA[name]
    made_up.write(data, tmp_path / data)
    monkeypatch.chdir(tmp_path)
    chosen = [word for pair in parameters.items() for word in ("-p", *pair)]
    arguments = ["run", name, "-p", "dataset", kind, "-p", "path", data, *chosen, "-o", "mine.ipynb"]
    assert command.main(arguments) == 0, capsys.readouterr().err
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and told[1].endswith("about the book's own data were skipped"), told
    code = [cell for cell in nbformat.read("mine.ipynb", as_version=4).cells if cell.cell_type == "code"]
    printed = [line for cell in code for o in cell.outputs for line in o.get("text", "").splitlines()]
    assert printed.count(f"○ {told[1]}") == 1
    assert not [line for line in printed if line.startswith("✗")]


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
