"""From an empty folder: the set-up cell, the package that it installs, and a chapter on nothing else."""

import functools
import http.server
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
import sysconfig
import threading
import venv
from pathlib import Path

import nbformat
import pytest

from cvlab import run

pytestmark = pytest.mark.house

ROOT = run.book_root()
CHAPTER = "week1/transfer_learning"
# The chapter's cells, all of them, on as little as they take.
LITTLE = {"seeds": 1, "steps": 2, "pictures_per_class": [5, 20], "input_size": 32, "input_sizes": [32, 48]}


def setup_cell(name=CHAPTER):
    return next(cell.source for cell in run.read_notebook(name).cells if cell.cell_type == "code")


def command(*arguments, cwd, **environment):
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """A forge on this machine with the book's repository, over https; gives (address, commit, certificate)."""
    if not shutil.which("openssl") or not shutil.which("git"):
        pytest.skip("openssl and git are needed to stand in for the book's home")
    folder = tmp_path_factory.mktemp("forge")
    source = folder / "source"
    for pattern in ("pyproject.toml", "README.md", "LICENSE*", "cvlab/*.py", "bench/results/*.json", "data/*.*"):
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    git = functools.partial(command, "git", "-c", "user.name=book", "-c", "user.email=book@localhost", cwd=source)
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "The book")
    commit = git("rev-parse", "HEAD")
    git("clone", "--quiet", "--bare", ".", folder / "book.git")
    command("git", "update-server-info", cwd=folder / "book.git")
    raw = folder / "book" / "raw" / commit
    raw.mkdir(parents=True)
    (raw / "data").symlink_to(ROOT / "data")
    certificate = folder / "certificate.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", folder / "key.pem", "-out", certificate)
    command("openssl", "req", "-x509", *made, *subject, cwd=folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(certificate, folder / "key.pem")
    server.socket = inside.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/book.git", commit, certificate
    server.shutdown()


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
    told = "import cvlab.files, keras\nprint(cvlab.__file__, cvlab.files.BOOK, keras.__version__)"
    notebook.cells.append(nbformat.v4.new_code_cell(told))
    empty = tmp_path / "empty folder"
    empty.mkdir()
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    command(
        elsewhere, "-m", "papermill", tmp_path / "chapter.ipynb", tmp_path / "done.ipynb", "--kernel", "python3",
        "--no-progress-bar", "--parameters_yaml", json.dumps(LITTLE), cwd=empty,
        **run.KERNEL_ENVIRONMENT, CVLAB_CHECKS="report", CVLAB_DATA="", XDG_CACHE_HOME=str(tmp_path / "cache"),
        PIP_NO_INDEX="1", PIP_NO_BUILD_ISOLATION="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore",
        GIT_SSL_CAINFO=str(certificate), SSL_CERT_FILE=str(certificate), PYTHONPATH="",
    )  # fmt: skip
    outputs = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells[-1].outputs
    package, book, keras = "".join(o.text for o in outputs if o.get("name") == "stdout").split()
    assert Path(package).is_relative_to(tmp_path / "python") and Path(book).is_relative_to(tmp_path / "python")
    assert keras == importlib.metadata.version("keras")
    fetched = {path.relative_to(tmp_path / "cache/cvlab").as_posix()
               for path in (tmp_path / "cache/cvlab").rglob("*") if path.is_file()}  # fmt: skip
    assert fetched == {"toybox/objects.zip", "weights/efficientnet_lite0_imagenet.weights.h5",
                       "weights/resnet20_cifar10.weights.h5"}  # fmt: skip
    assert list(empty.iterdir()) == []


def run_cell(monkeypatch, missing, book=""):
    """Run the set-up cell where modules are missing; give the commands that it would have run."""
    commands = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else real(name))
    monkeypatch.setattr(subprocess, "run", lambda words, check, **other: commands.append((words, other)))
    exec(setup_cell().replace('BOOK = ""', f"BOOK = {book!r}"), {})
    assert not any(other for _, other in commands)
    assert all(
        isinstance(words, list) and words[:4] == [sys.executable, "-m", "pip", "install"] for words, _ in commands
    )
    return [words[5:] for words, _ in commands]


def test_the_set_up_cell_does_nothing_in_a_clone(monkeypatch):
    assert run_cell(monkeypatch, missing=()) == []


def test_the_set_up_cell_leaves_keras_numpy_and_tensorflow_as_they_are(monkeypatch):
    address = "https://host/owner/book@" + "c" * 40
    assert run_cell(monkeypatch, {"cvlab"}, address) == [["--no-deps", f"git+{address}"]]
    cvlab, others = run_cell(monkeypatch, {"cvlab", "cv2", "pycocotools"}, address)
    assert cvlab == ["--no-deps", f"git+{address}"]
    assert {"opencv-python-headless", "pycocotools"} <= set(others)
    pins = {"pycocotools", "opencv-python-headless"} ^ set(others)
    assert {pin.partition("==")[0] for pin in pins} >= {"keras", "numpy"}
    assert all(importlib.metadata.version(pin.partition("==")[0]) == pin.partition("==")[2] for pin in pins)


def test_the_set_up_cell_of_an_unpublished_copy_says_what_to_do(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="open this chapter from the book's page, or install the clone"):
        run_cell(monkeypatch, {"cvlab"})


@pytest.mark.parametrize("name", run.chapters())
def test_every_chapter_begins_with_the_same_set_up_cell(name):
    first, second = [cell for cell in run.read_notebook(name).cells if cell.cell_type == "code"][:2]
    assert first.source == setup_cell() and first.source.count('BOOK = ""') == 1
    assert {"setup", "hide-input"} <= set(first.metadata.tags) and "parameters" in second.metadata.tags


def test_the_set_up_cell_knows_every_package_that_cvlab_needs():
    from packaging.requirements import Requirement

    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package in {Requirement(line).name for line in project["dependencies"]} - {"numpy"}:  # keras brings numpy
        assert f'"{package}"' in setup_cell(), package
