"""tools/book.py: what is executed, what is kept, what the committed notebooks get."""

import importlib.util
import json
import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cvlab import run

pytestmark = pytest.mark.house

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def book(tmp_path, monkeypatch):
    """tools/book.py at work on a small book, where executing copies the chapter and fails on `raise`."""
    spec = importlib.util.spec_from_file_location("book", run.book_root() / "tools" / "book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(run, "book_root", lambda: tmp_path)
    for name, path in {"ROOT": "", "STAGE": "_build/stage", "PAGES": "_build/html", "NEXT": "_build/next"}.items():
        monkeypatch.setattr(module, name, tmp_path / path)
    (tmp_path / "chapters" / "profiles").mkdir(parents=True)
    (tmp_path / "chapters" / "profiles" / "quick.yml").write_text("{}")
    (tmp_path / "cvlab").mkdir()
    (tmp_path / "cvlab" / "boxes.py").write_text("")
    module.executed = []

    def execute(name, target, parameters):
        module.executed.append(name)
        notebook = run.read_notebook(name)
        if "raise" in notebook.cells[-1].source:
            raise run.ChapterFailed(f"{name}, cell 2: ValueError: no", "ValueError: no")
        notebook.cells[-1].outputs = [new_output("stream", text="fresh")]
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        return 1.0

    monkeypatch.setattr(run, "execute", execute)
    write(tmp_path, "one", "print(1)")
    write(tmp_path, "two", "print(2)")
    return module


def write(root, name, source, **metadata):
    cells = [new_markdown_cell(f"# {name}", id="a"), new_code_cell(source, id="b")]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), root / "chapters" / f"{name}.ipynb")


def test_only_what_is_out_of_date_is_executed(book, capsys):
    assert book.execute_chapters("quick")
    assert book.execute_chapters("quick")
    assert book.executed == ["one", "two"]
    assert "two: up to date" in capsys.readouterr().out
    write(book.ROOT, "two", "print(3)")
    assert book.execute_chapters("quick")
    assert book.executed == ["one", "two", "two"]
    (book.ROOT / "cvlab" / "boxes.py").write_text("changed")
    assert book.execute_chapters("quick")
    assert book.executed[3:] == ["one", "two"]


def test_committed_outputs_are_taken_where_asked_and_stay_out_of_date(book, capsys):
    book.execute_chapters("quick")
    write(book.ROOT, "two", "print(3)")
    assert book.execute_chapters("quick", committed=True)
    assert "one: up to date\ntwo: as committed" in capsys.readouterr().out
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


def test_writing_back_changes_outputs_alone_and_leaves_no_trace_of_the_run(book):
    write(book.ROOT, "one", "print(1)", title="One")
    before = nbformat.read(book.ROOT / "chapters" / "one.ipynb", as_version=4)
    book.execute_chapters("quick")
    book.write_back()
    first = (book.ROOT / "chapters" / "one.ipynb").read_bytes()
    after = nbformat.reads(first, as_version=4)
    assert after.cells[-1].outputs[0].text == "fresh"
    after.cells[-1].outputs = before.cells[-1].outputs
    assert after == before
    book.write_back()
    assert (book.ROOT / "chapters" / "one.ipynb").read_bytes() == first
    assert json.loads(first)["metadata"] == {"title": "One"}
    book.execute_chapters("quick")
    assert book.executed == ["one", "two"], "written-back outputs don't put a chapter out of date"


def test_the_stage_follows_the_sources(book):
    book.execute_chapters("quick")
    (book.ROOT / "intro.md").write_text("# Intro")
    (book.ROOT / "gone.md").write_text("# Gone")
    book.copy_sources()
    (book.ROOT / "gone.md").unlink()
    (book.ROOT / "chapters" / "two.ipynb").unlink()
    book.copy_sources()
    files = {path.relative_to(book.STAGE).as_posix() for path in book.STAGE.rglob("*") if path.is_file()}
    assert files == {"intro.md", "chapters/one.ipynb"}


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
