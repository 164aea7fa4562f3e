"""Grade the notebooks of a class: behind `python -m cvlab grade`.

Of a submission only the cells with the answers are taken, by their ids, or by the check that follows them. They run in
the book's own copy of the lesson, in a fresh kernel in a scratch folder, without the environment's secrets and with
limits of time, memory and output (see `engine.sandbox`). Each submission has its row, whatever it does.

The limits keep submissions from harming each other. The code still runs as you: grade strangers' code in a container.
"""

import ast
import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import run

DOTS = re.compile(r"^[\w, ]+ = \.\.\.(, \.\.\.)*$")  # a cell that waits for an answer
LARGEST = 50 * 2**20  # bytes of a notebook
LONGEST = 100_000  # characters of an answer
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CVLAB_DATA", "CVLAB_BOOK", "KERAS_BACKEND")
# Words that an honest answer has no need of: they are named in the row, and change no grade.
UNUSUAL = re.compile(r"cvlab\.check|\bexercise\b|\bsealed?\b|sys\.modules|That is right|os\._exit|os\.kill|subprocess")
STATUSES = ("passed", "failed", "untouched", "not reached")
COLUMNS = ("name", "lesson", *(status.replace(" ", "_") for status in STATUSES), "seconds", "outcome")


@dataclass(frozen=True)
class Exercise:
    """An exercise of a lesson: where its answer goes, and where it is checked.

    Attributes: name: the check's. answer, check: indices of the two cells among the lesson's code cells. id: of the
    answer's cell.
    """

    name: str
    answer: int
    check: int
    id: str


def exercises(sources: Sequence[str], ids: Sequence[str]) -> list[Exercise]:
    """List the exercises of a lesson, in its order.

    Args:
        sources, ids: of its code cells.
    """
    listed = []
    for answer, source in enumerate(sources):
        if DOTS.match(source.strip()):
            check = next(i for i in range(answer + 1, len(sources)) if re.search(r"^exercise\(", sources[i], re.M))
            listed.append(Exercise(check_name(sources[check]), answer, check, ids[answer]))
    return listed


def check_name(source: str) -> str:
    """Give the name of the exercise that a cell checks: the first argument of `exercise`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "exercise":
            return ast.literal_eval(node.args[0])
    raise ValueError(f"grade: no call of exercise in {source!r}")


@dataclass(frozen=True)
class Lesson:
    """A lesson of the book: its name, code cells and exercises."""

    name: str
    sources: list[str]
    exercises: list[Exercise]


def lesson(name: str) -> Lesson:
    cells = [cell for cell in run.read_notebook(name).cells if cell.cell_type == "code"]
    sources = [cell.source for cell in cells]
    return Lesson(name, sources, exercises(sources, [cell.id for cell in cells]))


# What is taken of a submission


def read_cells(path: Path) -> list[tuple[str, str]]:
    """Read the code cells of a submitted notebook: (id, source) of each.

    Raises:
        ValueError: it is no notebook; the message says why.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a regular file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 2**20} MB")
    try:
        notebook = json.loads(path.read_bytes())
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        return [(id_of(cell), text_of(cell["source"])) for cell in cells]
    except RecursionError:
        raise ValueError("not a notebook: nested too deeply") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a notebook ({type(error).__name__})") from None
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror})") from None


def id_of(cell: dict) -> str:
    """Give a cell's id, wherever the program that wrote the notebook keeps it (Colab: in its metadata)."""
    return str(cell.get("id") or cell.get("metadata", {}).get("id", ""))


def text_of(source: Any) -> str:
    return source if isinstance(source, str) else "".join(str(line) for line in source)


def answers(cells: Sequence[tuple[str, str]], asked: Sequence[Exercise]) -> dict[str, str]:
    """Find the answers in a submission: name of the exercise → source, of those that are there.

    Args:
        cells: (id, source) of the submission's code cells.
        asked: the lesson's exercises.
    """
    found = {}
    ids = {id: source for id, source in cells if id}
    for exercise in asked:
        if exercise.id in ids:
            found[exercise.name] = ids[exercise.id]
            continue
        call = re.compile(rf"^exercise\(\s*['\"]{re.escape(exercise.name)}['\"]", re.M)
        checks = [index for index, (_, source) in enumerate(cells) if call.search(source)]
        if checks and checks[0] > 0:
            found[exercise.name] = cells[checks[0] - 1][1]
    return {name: source[:LONGEST] for name, source in found.items()}


def job_cells(book: Lesson, given: dict[str, str]) -> list[dict]:
    """Put answers into the book's own copy of a lesson, up to its last check: the cells for `engine.sandbox`."""
    answered = {exercise.answer: exercise.name for exercise in book.exercises}
    checked = {exercise.check: exercise.name for exercise in book.exercises}
    cells: list[dict] = []
    for index, source in enumerate(book.sources[: max(checked) + 1]):
        if index in answered:
            name = answered[index]
            cells.append({"kind": "answer", "exercise": name, "source": given.get(name, source), "blank": source})
        elif index in checked:
            cells.append({"kind": "check", "exercise": checked[index], "source": source})
        else:
            cells.append({"kind": "book", "exercise": None, "source": source})
    return cells


def find_lesson(cells: Sequence[tuple[str, str]], lessons: Sequence[Lesson]) -> Lesson:
    """Find the lesson that a submission is a copy of: the one with most of its exercises.

    Raises:
        ValueError: it has no exercise of any.
    """
    counts = [len(answers(cells, book.exercises)) for book in lessons]
    if not any(counts):
        raise ValueError("has no exercise of the book's lessons")
    return lessons[counts.index(max(counts))]


# Grading


def grade(
    folder: str | Path,
    target: str | Path,
    name: str | None = None,
    limits: dict | None = None,
    workers: int = 1,
    say: Callable = print,
) -> list[dict]:
    """Grade each notebook of a folder and of the folders in it, and write a row for each.

    Args:
        folder: of the submissions.
        target: CSV file to write; it is there, whole, from the first row on.
        name: of the lesson that they all are; None to tell it from each.
        limits: see `limits_of`.
        workers: how many to grade at the same time.
        say: what to do with a line about the progress.

    Returns:
        The rows, by name: dicts with the keys COLUMNS, "look_at" and "exercises".

    Raises:
        CommandError: the folder has no notebooks, or the lesson no exercises.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise run.CommandError(f"grade: folder is {str(folder)!r}, and there is no .ipynb in it")
    lessons = [book for book in map(lesson, [name] if name else run.chapters()) if book.exercises]
    if not lessons:
        raise run.CommandError(f"grade: {name or 'the book'} has no exercises")
    rows: dict[Path, dict] = {}
    lock = threading.Lock()

    def one(path):
        row = grade_one(path, str(path.relative_to(folder)), lessons, limits or limits_of())
        with lock:
            rows[path] = row
            write_rows(Path(target), [rows[each] for each in sorted(rows)])
            say(f"{len(rows)} of {len(paths)}: {line_of(row)}")

    with ThreadPoolExecutor(workers) as pool:
        try:
            for done in [pool.submit(one, path) for path in paths]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_marked(f"{os.getpid()}-")
            raise
    return [rows[path] for path in paths]


def limits_of(minutes: float = 15, memory: float = 4, answer_seconds: float = 60, output: float = 1) -> dict:
    """Give the limits of one submission.

    Args:
        minutes: for the whole lesson. memory: GiB of all its processes. answer_seconds: for one answer, and for one
            check. output: million characters that a cell may print.
    """
    sizes = {"memory": int(memory * 2**30), "output": int(output * 1e6), "file": 2**30}
    return {"seconds": minutes * 60, "answer_seconds": answer_seconds, **sizes}


def grade_one(path: Path, name: str, lessons: Sequence[Lesson], limits: dict) -> dict:
    """Grade one submission, and give its row."""
    began = time.monotonic()
    row: dict = {"name": name, "lesson": "", **dict.fromkeys(COLUMNS[2:6], 0), "look_at": "", "exercises": {}}
    try:
        cells = read_cells(path)
        book = find_lesson(cells, lessons)
    except ValueError as error:
        return {**row, "seconds": round(time.monotonic() - began, 1), "outcome": str(error)}
    given = answers(cells, book.exercises)
    told = run_apart(job_cells(book, given), limits)
    results: dict = told["exercises"] or {exercise.name: ("not reached", "") for exercise in book.exercises}
    for exercise in book.exercises:
        if given.get(exercise.name, "...").strip() == book.sources[exercise.answer].strip():
            results[exercise.name] = ("untouched", "")
        elif exercise.name not in given:
            results[exercise.name] = ("untouched", "its cell is missing")
    for status in STATUSES:
        row[status.replace(" ", "_")] = sum(result[0] == status for result in results.values())
    unusual = sorted({word for source in given.values() for word in UNUSUAL.findall(source)})
    row |= {"lesson": book.name, "outcome": told["outcome"], "look_at": " ".join(unusual), "exercises": results}
    return {**row, "seconds": round(time.monotonic() - began, 1)}


def run_apart(cells: Sequence[dict], limits: dict) -> dict:
    """Run cells in `engine.sandbox`, in a process of its own, and give what it says."""
    with scratch_folder() as scratch:
        mark = f"{os.getpid()}-{Path(scratch).name}"
        process = subprocess.Popen(
            [sys.executable, "-m", "cvlab.engine.sandbox"],
            cwd=scratch,
            env=clean_environment(scratch, mark),
            start_new_session=True,  # a Ctrl-C in the terminal is this process's business
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        job = json.dumps({"cells": list(cells), "limits": limits}).encode()
        try:
            printed, _ = process.communicate(job, timeout=limits["seconds"] + 60)
            told = json.loads(printed)
        except subprocess.TimeoutExpired:
            told = {"exercises": {}, "outcome": "the time for all cells was over"}
        except (ValueError, OSError):
            told = {"exercises": {}, "outcome": f"its grader was killed (status {process.poll()})"}
        finally:
            process.kill()
            process.wait()
            end_marked(mark)
    return told


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="cvlab-grade-", ignore_cleanup_errors=True) as folder:
        yield folder


def clean_environment(scratch: str, mark: str) -> dict:
    """Give the environment of a submission: what the lesson needs, and no tokens, passwords or home folder."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    package = str(Path(__file__).resolve().parents[1])
    own = {"HOME": scratch, "TMPDIR": scratch, "JUPYTER_DATA_DIR": scratch, "MPLCONFIGDIR": scratch}
    return {
        **run.KERNEL_ENVIRONMENT,
        **kept,
        **own,
        "PYTHONPATH": package,
        "CVLAB_CHECKS": "report",
        "CVLAB_GRADE": mark,
    }


def end_marked(mark: str) -> None:
    """Kill what is left of a submission: the processes that still have its mark in their environment."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("CVLAB_GRADE", "").startswith(mark):
                process.kill()


# The rows


def write_rows(target: Path, rows: Sequence[dict]) -> None:
    """Write the rows as CSV, aside first, then renamed; what each check said comes last, as JSON."""
    beside = target.with_name(f".{target.name}.partial")
    try:
        with open(beside, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            columns = [*COLUMNS, "look_at", "exercises"]
            writer.writerow(columns)
            for row in rows:
                writer.writerow([cell_of(row[column]) for column in columns])
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def cell_of(value: Any) -> Any:
    """Write a value so that a spreadsheet takes no text of a submission for a formula."""
    if not isinstance(value, str):
        return json.dumps(value) if isinstance(value, dict) else value
    text = printable(value)
    return f"'{text}" if text[:1] in "=+-@" and text else text


def printable(text: str) -> str:
    """Leave out what could steer a terminal, and line ends."""
    return "".join(character if character.isprintable() else " " for character in text)


def line_of(row: dict) -> str:
    """Give a row as a line for people."""
    counts = ", ".join(f"{row[s.replace(' ', '_')]} {s}" for s in STATUSES if row[s.replace(" ", "_")])
    remark = f"; look at its use of {row['look_at']}" if row["look_at"] else ""
    graded = "" if row["outcome"] == "graded" else f" ({row['outcome']})"
    return printable(f"{row['name']}: {counts or 'nothing graded'}{graded}, {row['seconds']:.0f} s{remark}")
