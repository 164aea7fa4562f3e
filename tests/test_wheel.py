"""From an empty folder: the set-up cell, the package that it installs, and a chapter on nothing else."""

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from forge import can_open, command, opened

from cvlab import requirements, run

pytestmark = pytest.mark.house

ROOT = run.book_root()
CHAPTER = "week1/transfer_learning"
# The chapter's cells, all of them, on as little as they take.
LITTLE = {"seeds": 1, "steps": 2, "pictures_per_class": [5, 20], "input_size": 32, "input_sizes": [32, 48]}


def setup_cell(name=CHAPTER):
    return next(cell.source for cell in run.read_notebook(name).cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    if not can_open():
        pytest.skip("openssl and git are needed to stand in for the book's home")
    with opened(tmp_path_factory.mktemp("forge")) as address_commit_certificate:
        yield address_commit_certificate


@pytest.fixture
def elsewhere(tmp_path):
    """Python with all that this one has, but without cvlab: gives its program."""
    venv.create(tmp_path / "python", with_pip=False)
    program = tmp_path / "python" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = command(program, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    Path(site, "packages.pth").write_text(sysconfig.get_path("purelib"))  # where no .pth file counts: no clone's cvlab
    return program


def test_a_chapter_runs_from_an_empty_folder_with_what_its_set_up_cell_installs(forge, elsewhere, tmp_path):
    address, commit, certificate = forge
    notebook = run.read_notebook(CHAPTER)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source = cell.source.replace('BOOK = ""', f'BOOK = "{address}@{commit}"')
    told = (
        "import cvlab.files, keras\nfrom cvlab import data\n"
        "print(cvlab.__file__, cvlab.files.BOOK, keras.__version__, len(data.load('raccoon_small', 'val')))"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(told))
    empty = tmp_path / "empty folder"
    empty.mkdir()
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    command(
        elsewhere,
        "-m",
        "papermill",
        tmp_path / "chapter.ipynb",
        tmp_path / "done.ipynb",
        "--kernel",
        "python3",
        "--no-progress-bar",
        "--parameters_yaml",
        json.dumps(LITTLE),
        cwd=empty,
        **run.KERNEL_ENVIRONMENT,
        CVLAB_CHECKS="report",
        CVLAB_DATA="",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_ROOT_USER_ACTION="ignore",
        GIT_SSL_CAINFO=str(certificate),
        SSL_CERT_FILE=str(certificate),
        PYTHONPATH="",
    )
    outputs = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells[-1].outputs
    package, book, keras, photographs = "".join(o.text for o in outputs if o.get("name") == "stdout").split()
    assert Path(package).is_relative_to(tmp_path / "python") and Path(book).is_relative_to(tmp_path / "python")
    assert keras == importlib.metadata.version("keras")
    assert photographs == "40"  # these are in the package: none is among what was fetched
    fetched = {
        path.relative_to(tmp_path / "cache/cvlab").as_posix()
        for path in (tmp_path / "cache/cvlab").rglob("*")
        if path.is_file()
    }
    assert fetched == {
        "toybox/display.zip",
        "toybox/objects.zip",
        "weights/efficientnet_lite0_imagenet.weights.h5",
        "weights/resnet20_cifar10.weights.h5",
    }
    assert list(empty.iterdir()) == []


def run_cell(monkeypatch, missing, book=""):
    """Run the set-up cell where modules are missing; give the commands that it would have run."""
    commands = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else real(name))
    monkeypatch.setattr(subprocess, "run", lambda words, check: commands.append(words))
    exec(setup_cell().replace('BOOK = ""', f"BOOK = {book!r}"), {})
    return commands


def test_the_set_up_cell_does_nothing_in_a_clone(monkeypatch):
    assert run_cell(monkeypatch, missing=()) == []


def test_the_set_up_cell_installs_the_package_of_the_pages_commit_and_nothing_it_depends_on(monkeypatch):
    address = "https://host/owner/book@" + "c" * 40
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    assert run_cell(monkeypatch, {"cvlab"}, address) == [[*pip, "--no-deps", f"git+{address}"]]


def test_the_set_up_cell_looks_at_versions(monkeypatch):
    monkeypatch.setattr(requirements, "installed", lambda name: "1.0" if name == "keras" else "99")
    monkeypatch.setattr(requirements, "compare", lambda needed: ([], [r for r in needed if r.name == "keras"]))
    with pytest.raises(ImportError, match="this lesson does not run with keras 1.0"):
        run_cell(monkeypatch, missing=())


def test_the_set_up_cell_of_an_unpublished_copy_says_what_to_do(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="open this lesson from the book's page, or install the clone"):
        run_cell(monkeypatch, {"cvlab"})


@pytest.mark.parametrize("name", run.chapters())
def test_every_chapter_begins_with_the_same_set_up_cell(name):
    first, second = [cell for cell in run.read_notebook(name).cells if cell.cell_type == "code"][:2]
    assert first.source == setup_cell() and first.source.count('BOOK = ""') == 1
    assert {"setup", "hide-input"} <= set(first.metadata.tags) and "parameters" in second.metadata.tags
