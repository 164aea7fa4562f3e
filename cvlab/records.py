"""What a run measured: each claim with its value, noted in the kernel, and the metrics.json that is made of it.

A lesson prints its claims for readers, rounded. `run.execute` starts its kernel with the line START and with
CVLAB_RECORD naming a file: from then on each claim and check is also appended to that file as a line of JSON,
in full precision. What was noted is there even where a later cell fails or the kernel dies.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from . import run

START = "__import__('cvlab.records').records.start()"  # leaves no name behind in the lesson's namespace
REPORT = "\nfrom cvlab import records\nrecords.finish()"  # in the cell that ends an execution
FORMAT = 1  # of metrics.json
MOST_VALUES = 64  # of an array that is noted in full


# In the kernel


def start() -> None:
    """Note each claim and check of this kernel from now on, in the file that CVLAB_RECORD names."""
    from . import check

    if not hasattr(check.check, "__wrapped__"):
        check.check = _noting(check.check)
        setattr(check.Claims, "__call__", _noting_skipped(check.Claims.__call__))  # noqa: B010 (mypy forbids the plain form)


def _noting(function):
    """Wrap `check`, so that what it is called with is noted along with how it ended."""
    from . import check

    @functools.wraps(function)
    def noting(name, value, at_least=None, at_most=None, **options):
        failed, held = check.tally["failed"], False
        try:
            function(name, value, at_least, at_most, **options)
            held = check.tally["failed"] == failed
        finally:
            note("held" if held else "failed", name, value, at_least, at_most, **options)

    return noting


def _noting_skipped(call):
    """Wrap `Claims.__call__`, so that a claim about the book's own data is noted where it is skipped."""

    @functools.wraps(call)
    def noting(claims, name, value, at_least=None, at_most=None, **options):
        call(claims, name, value, at_least, at_most, **options)
        if not claims.book_data:
            note("skipped", name, None if callable(value) else value, at_least, at_most, **options)

    return noting


def note(
    outcome: str,
    name: str,
    value: Any,
    at_least: Any = None,
    at_most: Any = None,
    equals: Any = None,
    digits: int | None = None,
) -> None:
    """Append a claim to the file that CVLAB_RECORD names, and before the first one what the kernel runs on.

    Args:
        outcome: "held", "failed" or "skipped".
        name, value, at_least, at_most, equals, digits: what `check` was called with.
    """
    _note_environment()
    claim = {"name": name, "value": plain(value), "at_least": plain(at_least), "at_most": plain(at_most)}
    _append({"claim": {**claim, "equals": plain(equals), "digits": digits, "outcome": outcome, "cell": _cell()}})


def finish() -> None:
    """Note, in the kernel's last cell, what it runs on, if no claim did."""
    _note_environment()


@functools.cache
def _note_environment():
    """Append versions and device, once: the backend has been loaded by the lesson, if it is needed at all."""
    keras = sys.modules.get("keras")
    device = None
    if keras:
        from . import backend

        device = backend.device()
    _append({"environment": {"device": device}})


def _append(line):
    if path := os.environ.get("CVLAB_RECORD"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _cell():
    """Give the number that the running cell has in the notebook's margin, `In [7]`; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return len(shell.history_manager.input_hist_parsed) - 1 if shell else None


def plain(value: Any) -> Any:
    """Turn a value into what JSON has: numbers, text, lists; larger arrays into a text that tells their shape."""
    array = np.asarray(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if array.dtype.kind not in "biufU":
        return str(value)
    if array.size > MOST_VALUES:
        return f"{array.dtype} of shape {array.shape}"
    return _finite(array.tolist())


def _finite(value):
    """Write NaN and infinity, which JSON does not have, as text."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


# Outside the kernel


def execute(name: str, profile: str, parameters: dict, target: str | Path, progress: Any = None) -> dict:
    """Execute a chapter as `run.execute` does, and write what it measured beside the notebook.

    Where an earlier run with the same code, parameters and target was cut off, long trainings go on where they were:
    their states lie in `x.resume/` beside `x.ipynb` until the run is complete.

    Args:
        name: of the chapter.
        profile: whose parameters these are, for the record.
        parameters: what differs from the chapter's parameters cell.
        target: the notebook to write; `x.ipynb` gets `x.metrics.json` beside it.
        progress: a `run.Progress`.

    Returns:
        What metrics.json holds, see `metrics`.

    Raises:
        CommandError, ChapterFailed, NotWritten: as `run.execute` does. A chapter that failed has
            `x.failed.metrics.json` beside `x.failed.ipynb`, with the claims up to there.
    """
    target, began = Path(target), time.monotonic()
    run.check_output(target)
    states = target.with_suffix(".resume")
    resume = states / run_digest(name, parameters)
    with tempfile.TemporaryDirectory(prefix="cvlab-record-", ignore_cleanup_errors=True) as folder:
        noted = Path(folder) / "claims.jsonl"
        try:
            told = run.execute(name, target, parameters, progress, record=noted, resume=resume)
        except run.ChapterFailed as failure:
            seconds = round(time.monotonic() - began, 1)
            failed = metrics(name, profile, parameters, read(noted), {"seconds": seconds}, failure)
            beside = metrics_path(failure.notebook)
            with contextlib.suppress(OSError):  # the failure is what has to be told
                write(beside, {**failed, "notebook": failure.notebook.name})
            raise
        measured = {**metrics(name, profile, parameters, read(noted), told), "notebook": target.name}
    beside = metrics_path(target)
    try:
        beside.unlink(missing_ok=True)  # what an earlier run measured is no longer that of the notebook
        write(beside, measured)
    except OSError as error:
        raise run.NotWritten(f"run: {beside} can't be written ({error.strerror}); {target} is there") from error
    metrics_path(run.failed_path(target)).unlink(missing_ok=True)
    shutil.rmtree(states, ignore_errors=True)
    return measured


def metrics_path(notebook: Path) -> Path:
    """Give the place of the metrics beside a notebook: `x.metrics.json` for `x.ipynb`."""
    return notebook.with_suffix(".metrics.json")


def read(path: Path) -> dict:
    """Read what a kernel noted: a dict of `claims`, in the order in which they were made, and `device`."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    entries = [json.loads(line) for line in lines[:-1]]  # what follows the last line end is empty, or half a line
    environments = [entry["environment"] for entry in entries if "environment" in entry]
    claims = [entry["claim"] for entry in entries if "claim" in entry]
    return {"claims": claims, **(environments[0] if environments else {"device": None})}


def metrics(
    name: str, profile: str, parameters: dict, noted: dict, told: dict, failure: run.ChapterFailed | None = None
) -> dict:
    """Put together what a run measured, for metrics.json.

    Args:
        name, profile, parameters: what was run; see `execute`.
        noted: from `read`.
        told: from `run.execute`.
        failure: the ChapterFailed that ended the run, or None.

    Returns:
        A dict of `format`, `chapter`, `profile`, `parameters` (all of them), `changed` (those that differ from the
        chapter's own), `outcome` ("held", "claims failed", "cell failed" or "kernel died"), `error` (text or None),
        `cell` (number of the failed cell or None), `claims` (list of dicts of name, value, at_least, at_most, equals,
        digits, outcome, cell), `counts` (outcome → number of claims), `device`, `versions`, `machine`, `seconds`,
        `cpu_seconds`, `date` (UTC), `seed` (the parameter, or None), `commit`, `code` (digest of what was executed).
    """
    counts = dict.fromkeys(("held", "failed", "skipped"), 0)
    for claim in noted["claims"]:
        counts[claim["outcome"]] += 1
    outcome = "claims failed" if counts["failed"] else "held"
    if failure:
        outcome = "cell failed" if failure.cell else "kernel died"
    effective = {**run.default_parameters(run.read_notebook(name)), **parameters}
    return {
        "format": FORMAT,
        "chapter": name,
        "profile": profile,
        "parameters": effective,
        "changed": parameters,
        "outcome": outcome,
        "error": str(failure) if failure else None,
        "cell": failure.cell if failure else None,
        "claims": noted["claims"],
        "counts": counts,
        "device": noted["device"],
        "versions": told.get("versions") or versions(),
        "machine": told.get("machine") or {"architecture": platform.machine()},
        "seconds": told["seconds"],
        "cpu_seconds": told.get("cpu_seconds"),
        "date": told.get("date") or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": effective.get("seed"),
        "commit": commit(),
        "code": code_digest(name),
    }


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that matter most, as installed here, without loading them."""
    numbers = {"python": platform.python_version()}
    for package in ("numpy", "keras", os.environ.get("KERAS_BACKEND", "tensorflow")):
        with contextlib.suppress(metadata.PackageNotFoundError):
            numbers[package] = metadata.version(package)
    return numbers


def code_digest(name: str) -> str:
    """Give one digest of all code that a chapter reaches, its cells included: 12 characters."""
    parts = {key: value for key, value in run.fingerprint(name, {}).items() if key != "parameters"}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def run_digest(name: str, parameters: dict) -> str:
    """Give one digest of a chapter's code and of all its parameters, which tells a run from others: 12 characters."""
    effective = {**run.default_parameters(run.read_notebook(name)), **parameters}
    parts = [name, code_digest(name), os.environ.get("KERAS_BACKEND", "tensorflow"), effective]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def commit() -> str | None:
    """Give the commit of this clone, with `+changes` where files differ from it; None where it is no clone."""

    def ask(*words):
        done = subprocess.run(["git", "-C", str(run.book_root()), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    head = ask("rev-parse", "HEAD") if shutil.which("git") else None
    changed = head and ask("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def write(path: Path, value: dict) -> None:
    """Write a dict as JSON, all of it or nothing: aside first, then renamed.

    Raises:
        OSError: nothing was written, and what lay there before is as it was.
    """
    beside = path.with_name(f".{path.name}.partial")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
