"""Execute chapters headless, and say what runs on this machine: behind `python -m cvlab run` and `doctor`.

A chapter is a notebook of chapters/ with a cell tagged `parameters`. Its values come, each overriding the one before,
from that cell, from the profile (chapters/profiles/<profile>.yml) and from the command line.
"""

import ast
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import stamps

# What every kernel of the book runs under: the interpreter that started it, repeatable, without backend chatter.
KERNEL_ENVIRONMENT = {
    "JUPYTER_PATH": "",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "OPENBLAS_NUM_THREADS": "1",  # the lessons' matrices are small: a second thread of NumPy's waits more than it works
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
SAVE_EVERY = 30  # seconds between two saves of a notebook that is being executed
ROOM = 64 * 2**20  # bytes that an executed notebook may need, with some to spare
CLEAR_LINE = "\r\x1b[K"  # in a terminal: back to the start of the line, and the line is empty


class CommandError(Exception):
    """What the user asked for can't be had; the message says in one line what can."""


class ChapterFailed(Exception):
    """A cell raised: `str()` is one line, `traceback` the end of what the kernel said, `notebook` the file with it.

    `cell` is the number in the cell's margin, 7 for `In [7]`; None where the kernel died.
    """

    def __init__(self, message, traceback="", notebook=None, cell=None):
        super().__init__(message)
        self.traceback, self.notebook, self.cell = traceback, notebook, cell


class NotWritten(Exception):
    """A chapter ran, but its notebook can't be written where it was asked for; the message says where it is kept."""


def book_root() -> Path:
    """Find the folder that holds chapters/: CVLAB_BOOK, beside this package, or the current folder or one above it."""
    here = Path.cwd()
    if named := os.environ.get("CVLAB_BOOK"):  # another set of lessons, such as a course's own
        if not (Path(named) / "chapters" / "profiles").is_dir():
            raise CommandError(
                f"run: CVLAB_BOOK is {named!r}, where there is no chapters/profiles/; name a book's folder"
            )
        return Path(named).absolute()
    for folder in (Path(__file__).resolve().parents[1], here, *here.parents):
        if (folder / "chapters" / "profiles").is_dir():
            return folder
    raise CommandError("run: there is no chapters/ beside cvlab or above this folder; start it in a clone of the book")


def chapters() -> list[str]:
    """List the chapters by name, e.g. `["week1/transfer_learning"]`."""
    folder = book_root() / "chapters"
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts and not path.name.endswith(".failed.ipynb")
    )


def find_chapter(name: str) -> str:
    """Resolve `week1/transfer_learning`, `transfer_learning` or a path of the notebook to a chapter's name.

    Raises:
        CommandError: names the chapters there are.
    """
    known = chapters()
    wanted = re.sub(r"^(\./)?chapters/|\.ipynb$", "", str(name))
    matches = [c for c in known if wanted in (c, c.rpartition("/")[2])]
    if len(matches) != 1:
        raise CommandError(f"run: no chapter {str(name)!r}; the chapters are {', '.join(known)}")
    return matches[0]


def read_notebook(name: str) -> Any:
    import nbformat

    return nbformat.read(book_root() / "chapters" / f"{name}.ipynb", as_version=4)


def default_parameters(notebook: Any) -> dict:
    """Give the literal values that the cell tagged `parameters` assigns: a dict of name → value."""
    values = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            for statement in ast.parse(cell.source).body:
                targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
                for target in targets:
                    if isinstance(target, ast.Name):
                        values[target.id] = ast.literal_eval(statement.value)
    return values


def profile_parameters(name: str, profile: str) -> dict:
    """Give what chapters/profiles/<profile>.yml sets for the chapter: a dict, empty where it sets nothing.

    Raises:
        CommandError: names the profiles there are.
    """
    import yaml

    files = {path.stem: path for path in sorted((book_root() / "chapters" / "profiles").glob("*.yml"))}
    if profile not in files:
        raise CommandError(f"run: no profile {profile!r}; the profiles are {', '.join(files)}")
    return (yaml.safe_load(files[profile].read_text(encoding="utf-8")) or {}).get(name) or {}


def convert(parameter: str, value: Any, default: Any) -> Any:
    """Give `value` the type of `default`; a string is read as a Python literal unless `default` is a string.

    Raises:
        CommandError: where that can't be done without loss.
    """
    kind, given = type(default), value
    if isinstance(value, str) and kind is not str:
        text = value.capitalize() if value.lower() in ("true", "false", "none") else value
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = value if default is None else None
    if kind is float and type(value) is int:
        value = float(value)
    if kind in (list, tuple) and type(value) in (list, tuple):
        value = kind(value)
    if default is not None and type(value) is not kind:
        raise CommandError(f"run: parameter {parameter} is {given!r}, expected {kind.__name__} such as {default!r}")
    return value


def settings(name: str, profile: str = "quick", overrides: Iterable = ()) -> dict:
    """Collect the parameters with which to execute a chapter: those that differ from its own parameters cell.

    Args:
        overrides: (name, value) pairs, values as strings or of the parameter's type.

    Raises:
        CommandError: for an unknown chapter, profile or parameter, or a value of the wrong type.
    """
    defaults = default_parameters(read_notebook(name))
    values = {}
    by_profile = profile_parameters(name, profile)
    for parameter, value in [*by_profile.items(), *overrides]:
        if parameter not in defaults:
            known = ", ".join(defaults) or "none"
            raise CommandError(f"run: {name} has no parameter {parameter!r}; its parameters are {known}")
        values[parameter] = convert(parameter, value, defaults[parameter])
    for parameter in {parameter for parameter, _ in overrides}:
        values[parameter] = located(parameter, values[parameter])
    return {parameter: value for parameter, value in values.items() if value != defaults[parameter]}


def located(parameter: str, value: Any) -> Any:
    """Make a path that was typed on the command line absolute, as a chapter is executed in its own folder.

    The parameter `path` is a path in any case. Another one, such as `checkpoint`, is one where its value looks like a
    path (it has a slash, a `~` or an ending) and names something that exists. `~` is the home folder.

    Raises:
        CommandError: `path` names nothing that exists.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(located(parameter, item) for item in value)
    if not isinstance(value, str) or not value:
        return value
    place = Path(os.path.abspath(os.path.expanduser(value)))
    if parameter == "path" and not place.exists():
        raise CommandError(
            f"run: parameter path is {value!r}, and there is no {place}; give a folder or archive with "
            "your data, from here or as an absolute path"
        )
    looks_like_a_path = parameter == "path" or "/" in value or os.sep in value or "~" in value or Path(value).suffix
    return str(place) if looks_like_a_path and place.exists() else value


def fingerprint(name: str, parameters: dict) -> dict:
    """Give a digest of each thing that a chapter's outputs depend on, but for the files that it opens."""
    return stamps.dependencies(book_root(), read_notebook(name), parameters)


def stale(name: str) -> str | None:
    """Tell why the committed outputs of a chapter are out of date: a few words, or None where they are still true."""
    return stamps.why_stale(book_root(), read_notebook(name), fingerprint(name, settings(name)))


class Progress:
    """A line about an execution: rewritten each second in a terminal, elsewhere its beginning and its end alone.

    Args:
        label: how the line begins, such as "lesson 1 of 3: week2/retinanet".
        notebook: the chapter; its stamp, where it has one, tells how long each cell took the last time.
        stream: where the line goes; None for standard output.
        every: outside a terminal, write how far it is each so many seconds, each time on a line of its own, instead of
            the beginning and the end.
    """

    def __init__(self, label, notebook, stream=None, every=None):
        self.label, self.stream, self.every = label, stream or sys.stdout, every
        self.cells = [cell.id for cell in stamps.code_cells(notebook) if cell.source.strip()]
        self.expected = self._expected(stamps.read(notebook))  # seconds of each cell; empty where nothing is known
        self.number = 0  # of the cell that runs, from 1
        self.ended = threading.Event()
        self.rewrites = self.stream.isatty()
        self.ticker = threading.Thread(target=self._tick, daemon=True) if self.rewrites or every else None

    def __enter__(self):
        self.began = self.cell_began = time.monotonic()
        if self.ticker:
            self.ticker.start()
        else:
            about = f", about {sum(self.expected):.0f} s" if self.expected else ""
            print(f"{self.label}{about} …", end="", file=self.stream, flush=True)
        return self

    def __exit__(self, error, *_):
        seconds = f"{time.monotonic() - self.began:.0f} s"
        result = {None: seconds, KeyboardInterrupt: f"stopped after {seconds}"}.get(error, f"failed after {seconds}")
        self.ended.set()
        if self.ticker:
            self.ticker.join()
            if self.rewrites:
                print(f"{CLEAR_LINE}{self.label}, {result}", file=self.stream, flush=True)
        else:
            print(f" {result}", file=self.stream, flush=True)

    def start_cell(self, cell, cell_index):
        """Note that a cell starts: nbclient's `on_cell_start`."""
        if cell.id in self.cells:
            self.number, self.cell_began = self.cells.index(cell.id) + 1, time.monotonic()

    def line(self):
        """Say how far it is: "lesson 1 of 3: week2/retinanet, cell 7 of 40, 34 s, about 20 s to go"."""
        now = time.monotonic()
        seconds = f"{now - self.began:.0f} s"
        if not self.number:
            return f"{self.label}, {seconds}"
        to_go = f", about {self.seconds_to_go(now):.0f} s to go" if self.expected else ""
        return f"{self.label}, cell {self.number} of {len(self.cells)}, {seconds}{to_go}"

    def seconds_to_go(self, now):
        """Estimate from the seconds of the last time, at the pace of this time."""
        done, (this, *rest) = sum(self.expected[: self.number - 1]), self.expected[self.number - 1 :]
        pace = (self.cell_began - self.began) / done if done > 2 else 1
        return max(0, pace * this - (now - self.cell_began)) + pace * sum(rest)

    def _expected(self, stamp):
        if stamp is None:
            return []
        listed = {cell: seconds for cell, seconds in stamp["cells"].items() if cell in self.cells}
        each = (stamp["seconds"] - sum(stamp["cells"].values())) / max(1, len(self.cells) - len(listed))
        return [listed.get(cell, each) for cell in self.cells]

    def _tick(self):
        while not self.ended.wait(1 if self.rewrites else self.every):
            if self.rewrites:
                line = self.line()[: shutil.get_terminal_size().columns - 1]
                print(f"{CLEAR_LINE}{line}", end="", file=self.stream, flush=True)
            else:
                print(self.line(), file=self.stream, flush=True)


def execute(
    name: str,
    target: str | Path,
    parameters: dict,
    progress: Any = None,
    record: Path | None = None,
    resume: Path | None = None,
) -> dict:
    """Execute a chapter with papermill, in its own folder, and put the notebook at `target` once all cells have run.

    Args:
        target: path of the notebook to write; see `check_output`.
        parameters: what differs from the chapter's parameters cell.
        progress: a Progress, which is told of each cell.
        record: file for the claims that the kernel makes, see `cvlab.records`.
        resume: folder for the states of long trainings, see `cvlab.engine.resume`.

    Returns:
        A dict of what a stamp tells of a run: `versions`, `machine`, `date` (UTC), `seconds`, `cells` (id → seconds, of
        those that took half a second or more), and `files`, the book's that were opened (path below it → sha256); and
        `claims`, how many of the text's were "skipped" and how many "failed".

    Raises:
        CommandError: nothing can be written at `target`; nothing was executed.
        ChapterFailed: `target` stays as it was; the notebook as far as it got lies beside it as `….failed.ipynb`.
        NotWritten: `target` could be written before the execution, but not after it.
    """
    import nbclient.exceptions
    import nbformat
    import papermill

    from . import records

    folder = (book_root() / "chapters" / name).parent
    target = Path(target)
    check_output(target)
    failed = failed_path(target)
    work = Path(tempfile.mkdtemp(prefix="cvlab-run-"))  # not beside the target: its disk may be full by the end
    partial = work / target.name
    began, outside = time.monotonic(), dict(os.environ)
    os.environ.update(KERNEL_ENVIRONMENT)
    if parameters:  # the text's claims were made for the chapter's own parameters: with others, report them only
        os.environ.setdefault("CVLAB_CHECKS", "report")
    kernel_options = ["--log-level=CRITICAL"]  # below it, a kernel may log the interrupt that ends it
    if record:
        os.environ["CVLAB_RECORD"] = str(record)
        kernel_options.append(f"--IPKernelApp.exec_lines={records.START}")
    if resume:
        os.environ["CVLAB_RESUME"] = str(Path(resume).absolute())
    notebook = read_notebook(name)
    notebook.cells.append(nbformat.v4.new_code_cell(stamps.REPORT + (records.REPORT if record else "")))
    try:
        nbformat.write(notebook, partial)
        papermill.execute_notebook(
            str(partial),
            str(partial),
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(folder),
            on_cell_start=progress and progress.start_cell,
            extra_arguments=kernel_options,
            kernel_manager_class=_quiet_kernel_manager(),
            engine_name=_sparing_engine(),
        )
        executed, reported = _take_report(partial)
        _put(partial, target)
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        _take_report(partial)
        _put(partial, failed)
        what = " ".join(f"{error.ename}: {error.evalue}".split())
        traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback))
        cell = f"cell {error.cell_index + 1} (In [{error.exec_count}])"  # its place, and the number in its margin
        raise ChapterFailed(f"{name}, {cell}: {what}", traceback, failed, error.exec_count) from None
    except nbclient.exceptions.DeadKernelError:
        _take_report(partial)
        _put(partial, failed)
        raise ChapterFailed(f"{name}: the kernel died, most likely for want of memory", notebook=failed) from None
    except OSError as error:
        why = error.strerror or error
        raise NotWritten(f"run: {name} stopped, as {partial} can't be written ({why}); make room there") from error
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # nobody waits any more for the cell that was stopped
        partial.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # a notebook that could not be put at its place stays
            work.rmdir()
        os.environ.clear()
        os.environ.update(outside)
    durations = {cell.id: round(cell.metadata.papermill.duration, 1) for cell in stamps.code_cells(executed)}
    return {
        **json.loads(reported),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.monotonic() - began, 1),
        "cells": {cell: seconds for cell, seconds in durations.items() if seconds >= 0.5},
    }


def _quiet_kernel_manager():
    """Give the class that starts a kernel whose own stderr goes nowhere: TensorFlow's libraries write there."""
    from jupyter_client import AsyncKernelManager

    class QuietKernelManager(AsyncKernelManager):
        async def start_kernel(self, **options):
            return await super().start_kernel(stderr=subprocess.DEVNULL, **options)

    return QuietKernelManager


def _sparing_engine():
    """Register the engine that executes a lesson, and give its name.

    papermill's own writes the whole notebook before and after each cell, which takes 8 s of a lesson with 150 cells.
    """
    from papermill.engines import NBClientEngine, papermill_engines

    class SparingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            save = nb_man.save

            def save_now_and_then(**_):
                if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVE_EVERY:
                    save()

            nb_man.save = save_now_and_then
            try:
                super().execute_managed_notebook(nb_man, kernel_name, **options)
            finally:
                nb_man.save = save  # papermill writes the notebook at the end, whatever the end was

    papermill_engines.register("sparing", SparingEngine)
    return "sparing"


def summary(claims: dict) -> list[str]:
    """Say what became of the text's claims in a run: a list of lines, empty where all of them hold."""
    lines = []
    if count := claims["skipped"]:
        noun, were = ("claim", "was") if count == 1 else ("claims", "were")
        lines.append(f"{count} {noun} about the book's own data {were} skipped")
    if count := claims["failed"]:
        do = "claim does" if count == 1 else "claims do"
        lines.append(f"{count} {do} not hold with these parameters: see ✗ there")
    return lines


def check_output(target: Path) -> None:
    """Make sure, before minutes of work, that a notebook can be written at a path; make the folders above it.

    A notebook that papermill executed may lie there already, and is replaced at the end.

    Raises:
        CommandError: says what is in the way, and what would do.
    """
    asked = f"run: output is {str(target)!r}"
    chapters_folder = (book_root() / "chapters").resolve()
    if target.is_dir():
        raise CommandError(f"{asked}, which is a folder; name a notebook in it, such as {target / 'my_run.ipynb'}")
    if target.suffix != ".ipynb":
        raise CommandError(f"{asked}, expected a name that ends in .ipynb, such as {target.name}.ipynb")
    if chapters_folder in target.resolve().parents:
        raise CommandError(f"{asked}, which is among the book's own chapters; give a place outside {chapters_folder}")
    if target.exists() and not is_executed(target):
        raise CommandError(f"{asked}, and a file that is no earlier run lies there; give another name, or move it away")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in (target.parent, Path(tempfile.gettempdir())):
            with tempfile.TemporaryFile(dir=folder):
                pass
            if (free := shutil.disk_usage(folder).free) < ROOM:
                left, needed = (f"{size / 2**20:.0f} MB" for size in (free, ROOM))
                raise CommandError(f"{asked}, but the disk of {folder} has {left} left; make room for {needed} there")
    except OSError as error:
        why = error.strerror or error
        raise CommandError(f"{asked}, which can't be written ({why}: {error.filename}); give another place") from error


def failed_path(target: str | Path) -> Path:
    """Give the place where a notebook is kept whose execution failed: beside its target."""
    return Path(target).with_suffix(".failed.ipynb")


def is_executed(path: str | Path) -> bool:
    """Tell whether a file is a notebook that papermill has executed, as `execute` leaves it."""
    try:
        return "papermill" in json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _put(executed, target):
    """Bring an executed notebook to its place, all of it or nothing.

    Raises:
        NotWritten: says where the notebook is instead.
    """
    beside = target.with_suffix(".partial.ipynb")
    try:
        shutil.copyfile(executed, beside)
        os.replace(beside, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        why = error.strerror or error
        kept = f"the executed notebook is kept as {executed}"
        raise NotWritten(f"run: {target} can't be written ({why}); {kept}") from error
    executed.unlink()


def _take_report(path):
    """Take the cell that reports for the stamp out of an executed notebook; give the notebook, and what it printed."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    report = notebook.cells.pop()
    nbformat.write(notebook, path)
    return notebook, "".join(output.text for output in report.outputs if output.get("name") == "stdout")


def doctor() -> bool:
    """Print what is here to build and run the book with, line by line, and a verdict.

    Returns:
        True where the book can be built, or outside a clone, where chapters can be run.
    """
    problems = []
    os.environ.update(KERNEL_ENVIRONMENT)
    try:
        root = book_root()
    except CommandError:
        root = None

    def say(label, text, problem=False):
        print(f"{label:<10} {text}" + ("  <- missing or broken" if problem else ""))
        if problem:
            problems.append(label)

    version = platform.python_version()
    say("Python", f"{version} ({sys.executable})", not (3, 10) <= sys.version_info[:2] <= (3, 13))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    say("machine", f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB memory")
    try:
        from cvlab import backend

        found = " under ".join(f"{name} {number}" for name, number in reversed(backend.versions().items()))
        say("backend", f"{found}, on {backend.device()}")
    except Exception as error:  # whatever a broken installation raises is what the reader has to know
        say("backend", f"{type(error).__name__}: {' '.join(str(error).split())}", True)
    for module, package in {"papermill": "papermill", "ipykernel": "ipykernel", "jupyter_book": "jupyter-book"}.items():
        if root and importlib.util.find_spec(module) is None:
            say("book", f"{package} is not installed: pip install --requirement requirements.txt", True)
    if root is None:
        say("book", "no clone is here: chapters run in their notebooks, with files fetched when they are asked for")
    elif not (root / "node_modules" / "mathjax").is_dir():
        say("book", "MathJax is not fetched yet: `make book` does it")
    if root:
        doctor_files(root, say)
    doctor_data(say)
    ready = "ready: `make book` builds the book here" if root else "ready to run chapters"
    say("verdict", f"not ready: {', '.join(problems)}" if problems else ready)
    return not problems


def doctor_files(root: Path, say: Callable) -> None:
    """Compare the embedded data and weights with data/manifest.json."""
    manifest = root / "data" / "manifest.json"
    if not manifest.exists():
        return say("files", f"{manifest} is not there", True)
    for name, entry in json.loads(manifest.read_text(encoding="utf-8"))["files"].items():
        path = root / "data" / name
        label = "weights" if name.startswith("weights/") else "toybox"
        if not path.exists():
            say(label, f"{name} is not there: git checkout data/{name}", True)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            say(label, f"{name} differs from the manifest's sha256: git checkout data/{name}", True)
        else:
            say(label, f"{name}, {entry['bytes'] / 1e6:.1f} MB, sha256 as in the manifest")
    return None


def doctor_data(say: Callable) -> None:
    """Say which data sets are on this machine, and where the others come from."""
    from cvlab import data

    folder = os.environ.get("CVLAB_DATA")
    if folder and not Path(folder).is_dir():
        return say("data", f"CVLAB_DATA is {folder}, and there is no such folder", True)
    for name, path in data.available().items():
        source = next(line for line in data.describe(name).splitlines() if line.startswith("source: "))
        say("data", f"{name}: {path}" if path else f"{name}: not on this machine; {source}")
    return None
