"""Run a chapter many times, each time with other parameters, on a Dask cluster: behind `python -m cvlab sweep`.

A run takes place on a worker, in a folder of its own there; its notebook and its metrics come back to the command that
was started, which alone writes into the sweep's folder:

    results.parquet, results.csv, results.png    one row a run; the claims over the parameters
    runs/<digest>/{lesson.ipynb,metrics.json}    a run that is complete; the digest is that of its parameters and code
    failed/<digest>/…                            one whose cell failed or whose kernel died: tried again the next time

A run's folder is written aside and renamed when it is whole. So whatever stops a sweep, the same command goes on with
the runs that are not there yet.
"""

import contextlib
import csv
import importlib.util
import itertools
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import records, run

MOST_RUNS = 10_000  # a grid of more is taken for a mistake
MEMORY_OF_A_RUN = 3 * 2**30  # bytes: how many workers a machine has room for by default
TIMES_TRIED = 3  # a run whose worker died is tried again on another, so many times in all
DASHBOARD = "127.0.0.1:8787"  # or another port of this machine, if that one is taken
ONE_AT_A_TIME = threading.Lock()  # in a worker process: a run sets the environment of the whole process
MOST_PANELS = 12  # of the plot


class Stopped(Exception):
    """A sweep ended early, but not by Ctrl-C; the message says why and what would do."""


# What is to be run


def expand(words: Sequence[str]) -> dict[str, list[str]]:
    """Read a grid: `["learning_rate=1e-3,1e-2", "seed=0..4"]` → name → list of values, as text.

    `0..4` stands for 0, 1, 2, 3 and 4. Commas within brackets or quotes separate nothing: `sizes=[32,64],[96]`.

    Raises:
        CommandError: for a word without `=`, a name without values, or a name that comes twice.
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name or not text:
            raise run.CommandError(f"sweep: grid has {word!r}, expected NAME=VALUE,VALUE or NAME=FIRST..LAST")
        if name in grid:
            raise run.CommandError(f"sweep: grid has {name} twice; give all its values at once, {name}=VALUE,VALUE")
        grid[name] = [value for part in split(text) for value in integers(part)]
    return grid


def split(text: str) -> list[str]:
    """Split text at commas, but not within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def integers(text: str) -> list[str]:
    """Give the whole numbers that `0..4` stands for, as text; other text as it is."""
    limits = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text)
    if not limits:
        return [text]
    first, last = (int(limit) for limit in limits.groups())
    if not 0 <= last - first < MOST_RUNS:
        raise run.CommandError(f"sweep: grid has the range {text}, expected FIRST..LAST with FIRST up to LAST")
    return [str(number) for number in range(first, last + 1)]


def plan(chapter: str, profile: str, grid: dict[str, list[str]], fixed: Sequence = ()) -> dict[str, dict]:
    """List the runs of a grid: digest → parameters that differ from the chapter's own, in the grid's order.

    Args:
        grid: from `expand`.
        fixed: (name, value) pairs that are the same in all runs.

    Raises:
        CommandError: for an unknown parameter or a value of the wrong type, before anything runs.
    """
    if twice := {name for name, _ in fixed} & set(grid):
        raise run.CommandError(f"sweep: parameter {min(twice)} is given by -p and by the grid; leave one out")
    if math.prod(map(len, grid.values())) > MOST_RUNS:
        raise run.CommandError(f"sweep: the grid has more than {MOST_RUNS:,} runs; take fewer values")
    runs = {}
    for values in itertools.product(*grid.values()):
        parameters = run.settings(chapter, profile, [*fixed, *zip(grid, values)])
        runs[records.run_digest(chapter, parameters)] = parameters
    return runs


# On a worker


def run_one(chapter: str, profile: str, parameters: dict, digest: str, environment: dict, gpus: Sequence[str]) -> dict:
    """Execute one run on this worker.

    Args:
        parameters: what differs from the chapter's own.
        digest: of the run, as the command that was started has it; a worker with other code has another.
        environment: variables for the run's kernel.
        gpus: GPUs that the workers of this machine share, by number; each worker takes one.

    Returns:
        A dict of `metrics` (see `records.metrics`) and `notebook` (bytes), whatever the outcome.
    """
    from distributed import get_worker

    if records.run_digest(chapter, parameters) != digest:
        raise run.CommandError(f"sweep: a worker has another version of {chapter} than this clone; bring it up to date")
    if gpus:
        environment = {**environment, "CUDA_VISIBLE_DEVICES": gpus[int(get_worker().name) % len(gpus)]}
    with ONE_AT_A_TIME, changed_environment(environment), tempfile.TemporaryDirectory(prefix="cvlab-sweep-") as folder:
        target = Path(folder) / "lesson.ipynb"
        try:
            measured = records.execute(chapter, profile, parameters, target)
        except run.ChapterFailed as failure:
            target = failure.notebook
            measured = json.loads(records.metrics_path(target).read_text(encoding="utf-8"))
        return {"metrics": {**measured, "notebook": "lesson.ipynb"}, "notebook": target.read_bytes()}


@contextlib.contextmanager
def changed_environment(variables: dict) -> Iterator[None]:
    """Set variables of the environment for as long as this lasts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# The folder of a sweep, into which one process writes


class Folder:
    """What a sweep leaves on disk: complete runs, failed ones, and the table."""

    def __init__(self, path):
        self.path = Path(path)

    @contextlib.contextmanager
    def alone(self):
        """Keep other sweeps out of the folder, and take away what a killed one left half-written."""
        import filelock

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path / ".lock", timeout=0):
                for left in [*self.path.glob("*/.*.partial"), *self.path.glob(".*.partial")]:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield
        except filelock.Timeout:
            raise run.CommandError(f"sweep: another sweep is at work in {self.path}; name another folder") from None

    def measured(self, digest):
        """Give the metrics of a complete run, or None."""
        path = self.path / "runs" / digest / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def put(self, digest, result):
        """Write a run's notebook and metrics aside, and rename their folder when they are whole.

        Raises:
            OSError: there is no room; nothing of the run is left.
        """
        complete = result["metrics"]["outcome"] in ("held", "claims failed")
        place = self.path / ("runs" if complete else "failed") / digest
        beside = place.with_name(f".{digest}.partial")
        try:
            beside.mkdir(parents=True)
            (beside / "lesson.ipynb").write_bytes(result["notebook"])
            records.write(beside / "metrics.json", result["metrics"])
            for old in (place, self.path / "failed" / digest):
                shutil.rmtree(old, ignore_errors=True)
            beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def write_table(self, rows, varied):
        """Write the table as Parquet and CSV, and plot it; each file aside first, then renamed."""
        import pyarrow
        import pyarrow.parquet

        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = pyarrow.table({name: column_of(rows, name) for name in columns})
        self._write("results.parquet", lambda path: pyarrow.parquet.write_table(table, path))
        self._write("results.csv", lambda path: write_csv(path, rows, columns))
        self._write("results.png", lambda path: plot(path, rows, varied))

    def _write(self, name, write):
        beside = self.path / f".{name}.partial"
        try:
            write(beside)
            beside.replace(self.path / name)
        finally:
            beside.unlink(missing_ok=True)


# The table


def row_of(digest: str, measured: dict, varied: Sequence[str]) -> dict:
    """Give a run's row: its digest, the grid's parameters, the outcome, the claims' values, and what it ran on.

    Args:
        measured: metrics of the run, see `records.metrics`.
        varied: names of the grid's parameters.
    """
    counts = measured["counts"]
    row = {"run": digest, **{name: cell_of(measured["parameters"][name]) for name in varied}}
    row |= {"outcome": measured["outcome"], "seconds": measured["seconds"], "cpu_seconds": measured["cpu_seconds"]}
    row |= {f"claims_{kind}": counts[kind] for kind in ("held", "failed", "skipped")}
    row |= {key: measured[key] for key in ("device", "date", "commit", "error")}
    row["parameters"] = json.dumps(measured["parameters"])
    for claim in measured["claims"]:
        if isinstance(claim["value"], (int, float)):
            row[free_name(claim["name"], row)] = float(claim["value"])
    return row


def free_name(name: str, row: dict) -> str:
    """Give a claim's column a name that the row does not have yet."""
    names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
    return next(each for each in names if each not in row)


def cell_of(value: Any) -> Any:
    """Write a parameter as a table holds it: lists and dicts as text."""
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def column_of(rows: Sequence[dict], name: str) -> list:
    """Give a column; one with values of several types becomes text."""
    values = [row.get(name) for row in rows]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return values if len(kinds) < 2 else [None if value is None else str(value) for value in values]


def write_csv(path: Path, rows: Sequence[dict], columns: Sequence[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def plot(path: Path, rows: Sequence[dict], varied: Sequence[str]) -> None:
    """Plot each numeric claim over the first parameter that varies: a point a run, and the mean as a line."""
    from matplotlib.figure import Figure

    first = next((name for name in varied if len({row[name] for row in rows}) > 1), "run")
    about_it = ["outcome", "seconds", "cpu_seconds", "device", "date", "commit", "error", "parameters", "run", *varied]
    named = dict.fromkeys(c for row in rows for c in row if c not in about_it and not c.startswith("claims_"))
    claims = [name for name in named if len({row.get(name) for row in rows} - {None}) > 1][:MOST_PANELS] or ["seconds"]
    across = min(3, len(claims))
    down = math.ceil(len(claims) / across)
    figure = Figure(figsize=(4 * across, 3 * down), layout="constrained")
    values = list(dict.fromkeys(row[first] for row in rows))
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    values = sorted(values) if numeric else values
    places = values if numeric else list(range(len(values)))
    for axes, name in zip(figure.subplots(down, across, squeeze=False).flat, claims):
        points = [[row[name] for row in rows if row[first] == value and row.get(name) is not None] for value in values]
        for place, each in zip(places, points):
            axes.plot([place] * len(each), each, "o", color="#7a7a7a", markersize=4, alpha=0.7)
        means = [(place, sum(each) / len(each)) for place, each in zip(places, points) if each]
        axes.plot(*zip(*means), color="#0b62a4")
        axes.set_title(shortened(name), fontsize=9)
        axes.set_xlabel(first)
        if numeric and min(values) > 0 and max(values) >= 20 * min(values):
            axes.set_xscale("log")
        if not numeric:
            axes.set_xticks(places, [shortened(str(value), 12) for value in values])
    figure.savefig(path, format="png", dpi=150)


def shortened(text: str, most: int = 48) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# The cluster


def check_installed() -> None:
    """Make sure that Dask and pyarrow are here, which only sweeps need.

    Raises:
        CommandError: says what to install.
    """
    needed = {"distributed": "dask[distributed]", "pyarrow": "pyarrow", "filelock": "filelock"}
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise run.CommandError(
            f"sweep: {' and '.join(missing)} must be installed for sweeps: "
            "`make sweep` does it, or pip install -e '.[sweep]' in the clone"
        )


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int | None, num_runs: int) -> Iterator[tuple]:
    """Connect to a Dask cluster, or start one on this machine: (client, environment of a run, GPUs to share).

    Args:
        scheduler: address, such as tcp://10.0.0.5:8786; None for a cluster on this machine.
        workers: with an address, how many workers to wait for; else how many to start, by default as many as there are
            GPUs, or cores with 3 GB of memory each.
        num_runs: no more workers than runs are started.
    """
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set({"distributed.scheduler.allowed-failures": TIMES_TRIED - 1})
    chosen = {name: os.environ[name] for name in ("KERAS_BACKEND", "CVLAB_CHECKS") if name in os.environ}
    if scheduler:
        try:
            client = Client(scheduler, timeout="10 s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise run.CommandError(
                f"sweep: scheduler is {scheduler!r}, which does not answer; start one with `dask scheduler`, or leave "
                "--scheduler out for a cluster on this machine"
            ) from error
        with contextlib.closing(client):
            try:
                client.wait_for_workers(workers or 1, timeout=60)
            except TimeoutError:
                raise run.CommandError(
                    f"sweep: fewer than {workers or 1} workers have joined {scheduler}; start them with "
                    f"`dask worker {scheduler} --nthreads 1`"
                ) from None
            check_threads(client)
            yield client, chosen, []
        return
    gpus = gpus_here()
    workers = min(workers or default_workers(gpus), num_runs)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    limited = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")  # NPROC: XLA's, of JAX
    chosen |= {name: os.environ.get(name, threads) for name in limited} if workers > 1 else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port", UserWarning)  # another is taken, and its address printed
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=DASHBOARD,
            memory_limit=None,  # Dask would count the worker's own memory, not that of its kernel
            silence_logs=logging.CRITICAL,
        )
    client = Client(cluster, set_as_default=False)
    try:
        yield client, chosen, gpus
    finally:
        with contextlib.suppress(Exception):  # what is closed has nothing to say that matters any more
            client.close(timeout=2)
            cluster.close(timeout=5)


def check_threads(client: Any) -> None:
    """Make sure that each worker runs one chapter at a time.

    Raises:
        CommandError: names a worker that would take several.
    """
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        if worker["nthreads"] > 1:
            raise run.CommandError(
                f"sweep: the worker {address} has {worker['nthreads']} threads, and would take so many runs at a time "
                "in one process; start workers with --nthreads 1, and with --nworkers for more of them"
            )


def gpus_here() -> list[str]:
    """List the GPUs of this machine by number, as far as CUDA_VISIBLE_DEVICES allows; without loading a backend."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def default_workers(gpus: Sequence[str]) -> int:
    """Give as many workers as there are GPUs, or else cores and memory."""
    if gpus:
        return len(gpus)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else MEMORY_OF_A_RUN
    return max(1, min(os.cpu_count() or 1, memory // MEMORY_OF_A_RUN))


# The sweep


def sweep(
    chapter: str,
    profile: str,
    grid: dict[str, list[str]],
    fixed: Sequence = (),
    path: str | Path | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    say: Callable = print,
) -> list[dict]:
    """Run a chapter with every combination of a grid's values; those that are complete already are not run again.

    Args:
        chapter, profile, grid, fixed: see `plan`.
        path: folder of the sweep, by default runs/sweeps/CHAPTER-PROFILE of the book.
        scheduler, workers: see `connected`.
        say: what to do with a line about the progress.

    Returns:
        The table: a dict for each run of the grid that was run at all, as `row_of` gives it.

    Raises:
        CommandError: nothing was run. Stopped: some runs are not there, though nobody asked for it.
    """
    check_installed()
    runs = plan(chapter, profile, grid, fixed)
    folder = Folder(path or run.book_root() / "runs" / "sweeps" / f"{chapter}-{profile}")
    with folder.alone():
        missing = [digest for digest in runs if folder.measured(digest) is None]
        say(f"{len(runs)} runs of {chapter} ({profile}), {len(runs) - len(missing)} of them complete: {folder.path}")
        failures: dict[str, dict] = {}
        try:
            if missing:
                check_room(folder.path)
                with connected(scheduler, workers, len(missing)) as cluster:
                    carry_out(chapter, profile, {d: runs[d] for d in missing}, folder, cluster, failures, grid, say)
        finally:
            rows = [
                row_of(digest, measured, list(grid))
                for digest in runs
                if (measured := folder.measured(digest) or failures.get(digest))
            ]
            if rows:
                with contextlib.suppress(OSError) if sys.exc_info()[0] else contextlib.nullcontext():
                    folder.write_table(rows, list(grid))
    return rows


def check_room(path: Path) -> None:
    """Make sure that the disk has room for at least one run; raise CommandError."""
    if (free := shutil.disk_usage(path).free) < run.ROOM:
        have, needed = (f"{size / 2**20:.0f} MB" for size in (free, run.ROOM))
        raise run.CommandError(f"sweep: the disk of {path} has {have} left; make room for {needed} there")


def carry_out(
    chapter: str,
    profile: str,
    runs: dict[str, dict],
    folder: Folder,
    cluster: tuple,
    failures: dict[str, dict],
    grid: dict[str, list[str]],
    say: Callable,
) -> None:
    """Submit runs, write each into the folder as it comes back, and note in `failures` those that failed.

    Raises:
        Stopped: the cluster is gone, or the disk is full.
    """
    from distributed import as_completed

    client, environment, gpus = cluster
    num_workers = len(client.scheduler_info(n_workers=-1)["workers"])
    say(f"{num_workers} worker{'s' * (num_workers != 1)}; Dask's dashboard: {client.dashboard_link}")
    began = time.monotonic()
    futures = {
        client.submit(run_one, chapter, profile, parameters, digest, environment, gpus, key=f"run-{digest}"): digest
        for digest, parameters in runs.items()
    }
    for done, future in enumerate(as_completed(futures, loop=client.loop), 1):
        digest = futures[future]
        try:
            result = future.result()
        except Exception as error:  # what a worker or Dask itself raised
            if future.cancelled() or client.status != "running":
                raise Stopped("sweep: Dask's scheduler is gone; start the same command again, and it goes on") from None
            failures[digest] = never_run(chapter, profile, runs[digest], error)
        else:
            try:
                folder.put(digest, result)
            except OSError as error:
                why = f"{folder.path} can't be written ({error.strerror})"
                raise Stopped(f"sweep: {why}; make room, start the same command again, and it goes on") from error
            if folder.measured(digest) is None:
                failures[digest] = result["metrics"]
        measured = failures.get(digest) or folder.measured(digest)
        values = " ".join(f"{name}={measured['parameters'][name]}" for name in grid)
        to_go = (time.monotonic() - began) / done * (len(runs) - done)
        rest = f", about {to_go:.0f} s to go" if done < len(runs) else ""
        say(f"run {done} of {len(runs)}: {values}: {measured['error'] or measured['outcome']}{rest}")


def never_run(chapter: str, profile: str, parameters: dict, error: Exception) -> dict:
    """Give the metrics of a run that has none, as its worker died each time or raised an error of its own."""
    text = " ".join(str(error).split())
    if type(error).__name__ == "KilledWorker":
        text = f"its worker died {TIMES_TRIED} times, most likely for want of memory"
    blank = {"claims": [], "device": None}
    measured = records.metrics(chapter, profile, parameters, blank, {"seconds": None})
    return {**measured, "outcome": "not run", "error": text}
