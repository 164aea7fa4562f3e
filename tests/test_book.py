"""book/build.py: what is executed, what is kept, what the committed notebooks get."""

import importlib.util
import os
import shutil
import sys
import threading
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cvlab import run, stamps

pytestmark = pytest.mark.house

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def book(tmp_path, monkeypatch):
    """book/build.py at work on a small book, where executing copies the chapter and fails on `raise`."""
    spec = importlib.util.spec_from_file_location("book", run.book_root() / "book" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(run, "book_root", lambda: tmp_path)
    for name, path in {
        "ROOT": "",
        "STAGE": "_build/stage",
        "PAGES": "_build/html",
        "NEXT": "_build/next",
        "LOCK": "_build/.lock",
        "STATIC": "book/_static",
    }.items():
        monkeypatch.setattr(module, name, tmp_path / path)
    (tmp_path / "chapters" / "profiles").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("{}")
    (tmp_path / "cvlab").mkdir()
    (tmp_path / "cvlab" / "boxes.py").write_text("")
    module.executed = []

    def execute(name, target, parameters, progress):
        module.executed.append(name)
        notebook = run.read_notebook(name)
        if "raise" in notebook.cells[-1].source:
            raise run.ChapterFailed(f"{name}, cell 2: ValueError: no", "ValueError: no")
        notebook.cells[-1].outputs = [new_output("stream", text="fresh")]
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        date = f"2025-01-{len(module.executed):02}T12:00:00Z"
        return {"date": date, "seconds": 1.0, "cells": {}, "files": {}}

    monkeypatch.setattr(run, "execute", execute)
    write(tmp_path, "one", "from cvlab import boxes\nprint(1)")
    write(tmp_path, "two", "print(2)")
    return module


def write(root, name, source, text="# Title", **metadata):
    cells = [new_markdown_cell(text, id="a"), new_code_cell(source, id="b")]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), root / "chapters" / f"{name}.ipynb")


def test_only_what_is_out_of_date_is_executed(book, capsys):
    assert book.execute_chapters("quick")
    assert capsys.readouterr().out.splitlines() == [
        "one: to be executed (never executed with a stamp)",
        "two: to be executed (never executed with a stamp)",
        "lesson 1 of 2: one … 0 s",
        "lesson 2 of 2: two … 0 s",
    ]
    assert book.execute_chapters("quick")
    assert book.executed == ["one", "two"]
    assert capsys.readouterr().out.splitlines() == [
        "one: up to date, executed on 2025-01-01",
        "two: up to date, executed on 2025-01-02",
        "nothing to execute",
    ]
    write(book.ROOT, "two", "print(3)")
    assert book.execute_chapters("quick")
    assert book.executed == ["one", "two", "two"]
    (book.ROOT / "cvlab" / "boxes.py").write_text("changed = 1")
    assert book.execute_chapters("quick")
    assert book.executed[3:] == ["one"]


def test_a_fresh_clone_executes_nothing(book, capsys):
    book.execute_chapters("quick")
    book.write_back()
    shutil.rmtree(book.STAGE)
    assert book.execute_chapters("quick")
    assert book.executed == ["one", "two"]
    assert capsys.readouterr().out.endswith("two: up to date, executed on 2025-01-02\nnothing to execute\n")
    assert book.run.read_notebook("one") == nbformat.read(book.staged_path("one"), as_version=4)


def test_what_is_asked_for_is_executed_though_it_is_up_to_date(book, capsys):
    book.execute_chapters("quick")
    book.write_back()
    assert book.execute_chapters("quick", forced=["two"])
    assert book.executed == ["one", "two", "two"]
    assert "two: to be executed (as you asked)" in capsys.readouterr().out
    book.execute_chapters("quick")
    assert stamps.read(nbformat.read(book.staged_path("two"), as_version=4))["date"] == "2025-01-03T12:00:00Z"
    book.write_back()
    assert stamps.read(run.read_notebook("two"))["date"] == "2025-01-03T12:00:00Z"


@pytest.mark.parametrize(
    ("words", "executed"), [(["--execute", "all"], ["one", "two"]), (["--execute", "two"], ["two"])]
)
def test_the_command_line_names_what_to_execute(book, monkeypatch, words, executed):
    book.execute_chapters("quick")
    book.executed.clear()
    monkeypatch.setattr(book, "render", lambda: False)
    monkeypatch.setattr(sys, "argv", ["book.py", *words])
    with pytest.raises(SystemExit) as ended:
        book.main()
    assert (ended.value.code, book.executed) == (0, executed)


def test_what_is_out_of_date_is_listed_with_the_reason(book, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["book.py", "--stale"])
    for change, status, lines in [
        (lambda: None, 1, "one: never executed with a stamp\ntwo: never executed with a stamp\n"),
        (lambda: (book.execute_chapters("quick"), book.write_back(), capsys.readouterr()), 0, ""),
        (lambda: (book.ROOT / "cvlab" / "boxes.py").write_text("x = 1"), 1, "one: changed: cvlab/boxes.py\n"),
    ]:
        change()
        with pytest.raises(SystemExit) as ended:
            book.main()
        assert (ended.value.code, capsys.readouterr().out) == (status, lines)


@pytest.mark.parametrize(
    "words",
    [
        "--committed --execute all",
        "--committed --write-back",
        "--profile full --write-back",
        "--profile full --stale",
    ],
)
def test_what_contradicts_itself_is_refused(book, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["book.py", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        book.main()


def test_an_interrupted_rendering_leaves_one_line_and_status_130(book, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(book, "clone", lambda: b"")
    for name in ("_config.yml", "data/manifest.json", "package-lock.json", "requirements.txt", "requirements.lock"):
        (book.ROOT / name).parent.mkdir(exist_ok=True)
        (book.ROOT / name).write_text("")
    monkeypatch.setattr(book.subprocess, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["book.py"])
    with pytest.raises(SystemExit) as ended:
        book.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 130 and out.endswith("rendering the pages … stopped\n")
    assert err == "book: stopped; what was executed is kept, make book goes on from there\n"


def test_new_prose_reaches_the_stage_without_an_execution(book):
    book.execute_chapters("quick", forced=["one"])
    write(book.ROOT, "one", "from cvlab import boxes  # new\nprint(1)", text="# Other words")
    book.execute_chapters("quick")
    staged = nbformat.read(book.staged_path("one"), as_version=4)
    assert book.executed == ["one", "two"]
    assert [staged.cells[0].source, staged.cells[1].outputs[0].text] == ["# Other words", "fresh"]
    assert "# new" in staged.cells[1].source and run.stale("one") == "never executed with a stamp"


def test_the_parameters_of_another_profile_stay_in_the_stage(book, monkeypatch):
    tagged = new_code_cell("seeds = 3", metadata={"tags": ["parameters"]}, id="p")
    injected = new_code_cell("seeds = 5", metadata={"tags": ["injected-parameters"]}, id="i")
    notebook = new_notebook(cells=[new_markdown_cell("Text."), tagged, new_code_cell("1", id="c")])
    executed = new_notebook(cells=[tagged, injected, new_code_cell("1", id="c")], metadata={"cvlab": {"stamp": {}}})
    merged = book.with_outputs(notebook, executed)
    assert [cell.source for cell in merged.cells] == ["Text.", "seeds = 3", "seeds = 5", "1"]


def test_committed_outputs_are_taken_where_asked_and_stay_out_of_date(book, capsys):
    book.execute_chapters("quick")
    write(book.ROOT, "two", "print(3)")
    assert book.execute_chapters("quick", committed=True)
    assert capsys.readouterr().out.endswith(
        "one: up to date, executed on 2025-01-01\ntwo: as committed, though out of date (never executed with a stamp)\n"
    )
    committed = (book.ROOT / "chapters" / "two.ipynb").read_bytes()
    assert (book.STAGE / "chapters" / "two.ipynb").read_bytes() == committed
    book.execute_chapters("quick")
    assert book.executed == ["one", "two", "two"]


def test_a_chapter_that_fails_is_told_and_its_last_good_copy_stays(book, capsys):
    book.execute_chapters("quick")
    good = (book.STAGE / "chapters" / "one.ipynb").read_bytes()
    write(book.ROOT, "one", "raise ValueError('no')")
    assert not book.execute_chapters("quick")
    assert capsys.readouterr().err.splitlines()[0] == "book: one, cell 2: ValueError: no"
    assert (book.STAGE / "chapters" / "one.ipynb").read_bytes() == good
    assert not book.execute_chapters("quick"), "it is tried again, not taken for up to date"


def test_a_staged_notebook_holds_nothing_of_the_run_itself(book):
    cell = new_code_cell("f()", metadata={"papermill": {"duration": 1.5}, "execution": {"iopub.execute_input": "now"}})
    cell.outputs = [
        new_output("stream", name="stderr", text="\r 10%|#    | 1/10\r100%|#####| 10/10\n"),
        new_output("stream", name="stderr", text="UserWarning: beware\n"),
        new_output("display_data", {"text/html": "<figure>", WIDGET: {"model_id": "random"}}),
    ]
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": {}}, "papermill": {"start_time": "now"}})
    assert book.tidy(notebook) == ["UserWarning: beware"]
    assert notebook.metadata == {}
    assert cell.metadata == {}
    assert [dict(output.data) for output in cell.outputs] == [{"text/html": "<figure>"}]


def test_what_a_cell_prints_is_one_output_however_it_came(book):
    pieces = [
        new_output("stream", name=name, text=text) for name, text in (("stdout", "a"), ("stderr", "b"), ("stdout", "c"))
    ]
    notebook = new_notebook(cells=[new_code_cell("f()", outputs=pieces)])
    assert book.tidy(notebook) == ["b"]
    assert [output.text for output in notebook.cells[0].outputs] == ["ac"]


def test_writing_back_changes_outputs_and_stamps_alone(book, capsys):
    write(book.ROOT, "one", "print(1)", title="One")
    before = nbformat.read(book.ROOT / "chapters" / "one.ipynb", as_version=4)
    book.execute_chapters("quick")
    book.write_back()
    first = (book.ROOT / "chapters" / "one.ipynb").read_bytes()
    after = nbformat.reads(first, as_version=4)
    assert after.cells[-1].outputs[0].text == "fresh"
    assert stamps.read(after)["profile"] == "quick"
    assert set(after.metadata) == {"title", "cvlab"}
    after.cells[-1].outputs = before.cells[-1].outputs
    del after.metadata["cvlab"]
    assert after == before
    capsys.readouterr()
    book.write_back()
    assert capsys.readouterr().out == ""
    book.execute_chapters("quick")
    assert book.executed == ["one", "two"], "written-back outputs don't put a chapter out of date"


def test_what_has_changed_since_it_was_executed_is_not_written_back(book, capsys):
    book.execute_chapters("quick")
    write(book.ROOT, "one", "print(2)")
    book.write_back()
    assert "one: not written, as it is out of date again (changed: code cells, cvlab" in capsys.readouterr().out
    assert run.stale("one") == "never executed with a stamp" and run.stale("two") is None


def test_a_second_build_waits_for_the_first(book, capsys, monkeypatch):
    at_work = []

    def build(options):
        at_work.append(options)
        time.sleep(0.3)
        assert len(at_work) == 1
        at_work.pop()
        return 0

    monkeypatch.setattr(book, "build", build)
    builds = [threading.Thread(target=book.build_alone, args=(number,)) for number in range(3)]
    for thread in builds:
        thread.start()
    for thread in builds:
        thread.join()
    assert at_work == []
    assert capsys.readouterr().err.count("another build is at work") == 2


def test_the_stage_follows_the_sources(book):
    book.execute_chapters("quick")
    (book.STATIC / "scripts").mkdir(parents=True)
    (book.STATIC / "scripts" / "book.js").write_text("1")
    (book.ROOT / "intro.md").write_text("# Intro")
    (book.ROOT / "gone.md").write_text("# Gone")
    book.copy_sources()
    (book.ROOT / "gone.md").unlink()
    (book.ROOT / "chapters" / "two.ipynb").unlink()
    book.copy_sources()
    files = {path.relative_to(book.STAGE).as_posix() for path in book.STAGE.rglob("*") if path.is_file()}
    assert files == {"intro.md", "chapters/one.ipynb", "_static/scripts/book.js"}


def test_nothing_half_written_is_left_when_the_disk_is_full(book, monkeypatch):
    book.execute_chapters("quick")
    before = (book.STAGE / "chapters" / "one.ipynb").read_bytes()
    write(book.ROOT, "one", "print(3)")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(book.Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        book.execute_chapters("quick")
    assert (book.STAGE / "chapters" / "one.ipynb").read_bytes() == before
    assert not [name for name in os.listdir(book.STAGE / "chapters") if "partial" in name]


def test_an_instructors_copy_has_no_solutions_and_the_chapters_keep_theirs(book):
    text = "Exercise 1.\n\n:::{dropdown} Solution\n`answer = 4`\n:::\n\nExercise 2."
    path = run.book_root() / "chapters" / "one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(new_markdown_cell(text))
    nbformat.write(notebook, path)
    assert book.execute_chapters("quick")
    book.leave_out_solutions()
    staged = nbformat.read(book.staged_path("one"), as_version=4)
    assert staged.cells[-1].source == "Exercise 1.\n\n\nExercise 2."
    assert "answer = 4" in path.read_text(encoding="utf-8")


def test_several_chapters_are_executed_at_the_same_time(tmp_path, monkeypatch, capsys):
    (tmp_path / "chapters" / "profiles").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("{}")
    (tmp_path / "book").mkdir()
    shutil.copy(run.book_root() / "book" / "build.py", tmp_path / "book")
    monkeypatch.setenv("CVLAB_BOOK", str(tmp_path))
    timed = "import time\nbegan = time.time()\ntime.sleep(2)\nprint(began, time.time())"
    for name in ("one", "two"):
        write(tmp_path, name, timed)
    write(tmp_path, "three", "boxes = []\nboxes[3]")
    spec = importlib.util.spec_from_file_location("build", tmp_path / "book" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.execute_chapters("quick", workers=3)
    staged = [nbformat.read(module.staged_path(name), as_version=4) for name in ("one", "two")]
    times = [[float(word) for word in notebook.cells[-1].outputs[0].text.split()] for notebook in staged]
    assert max(began for began, _ in times) < min(ended for _, ended in times)
    assert all(stamps.read(notebook)["profile"] == "quick" for notebook in staged)
    out, err = capsys.readouterr()
    assert sorted(line.partition(": ")[2].partition(" …")[0] for line in out.splitlines()[-3:]) == [
        "one",
        "three",
        "two",
    ]
    assert "three, cell 2 (In [1]): IndexError" in err and not module.staged_path("three").exists()
