"""Time peers side by side, and keep what was measured with a description of the machine."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
recorder = None  # while `experiments.races` runs a race: it keeps every call's time, and how long a race may take


def side_by_side(contestants, rounds=9, warm_up=2):
    """Time functions in turns, so that whatever else the machine does falls on all of them alike.

    Args:
        contestants: a dict of functions without arguments, by name. Each must return only when its result is there.
        rounds: how many timed calls of each.
        warm_up: how many calls of each before, untimed: compilation, caches.

    Returns:
        A dict by name of `{"median_ms": …, "min_ms": …}`.
    """
    taken = {name: [] for name in contestants}
    began = time.perf_counter()
    for call in range(-warm_up, rounds):
        if recorder is not None and call > 0 and recorder.is_over(time.perf_counter() - began):
            break
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if call >= 0:
                taken[name].append(1000 * (time.perf_counter() - start))
    summary = {
        name: {"median_ms": round(statistics.median(times), 3), "min_ms": round(min(times), 3)}
        for name, times in taken.items()
    }
    if recorder is not None:
        recorder.keep(taken)
    return summary


def machine(*packages):
    """Describe the machine and the moment: processor, cores, load, date, and versions of the packages that it has."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": cpu,
        "cores": cores,
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions},
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def commit():
    """Give the commit that was measured, with a + where files have changed since; None outside a clone."""
    if not shutil.which("git"):
        return None

    def git(*question):
        done = subprocess.run(["git", "-C", RESULTS, *question], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../../cvlab", "..", ":!.")
    return (git("rev-parse", "--short=7", "HEAD") + ("+" if changed else "")) or None


def table(title, contestants, reference):
    """Print the medians, and how they compare with the first contestant's peer `reference`."""
    if recorder is not None:
        recorder.name(title, contestants, reference)
    print(f"\n{title}\n{'':<34}{'median ms':>11}{'min ms':>10}{'of ' + reference:>34}")
    for name, times in contestants.items():
        ratio = times["median_ms"] / contestants[reference]["median_ms"]
        print(f"  {name:<32}{times['median_ms']:>11.2f}{times['min_ms']:>10.2f}{ratio:>34.2f}")


def resume(name, plan, sha256):
    """Split a plan, a list of dicts, into what `results/<name>.json` holds of it and what is left to measure.

    Rows of other data, by its checksum, and rows that the plan no longer asks for, are dropped.

    Returns:
        The measured rows and the entries of the plan that are left.
    """
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = known.get("rows", []) if known.get("sha256") == sha256 else []
    rows = [row for row in rows if any(entry.items() <= row.items() for entry in plan)]
    return rows, [entry for entry in plan if not any(entry.items() <= row.items() for row in rows)]


def write(name, result, indent=1):
    """Write `results/<name>.json`, whole or not at all; on one line with `indent=None`."""
    if recorder is not None and name != "races":
        return
    target = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(result, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    print(f"\nexperiments/results/{target.name} written")


def write_rows(name, rows, sha256, **more):
    """Write the rows of `experiments/<name>.py`, with its command, the checksum of its data, and the machine."""
    about = {"command": f"python -m experiments.{name}", **more, "sha256": sha256}
    write(name, {**about, "machine": machine("keras", "tensorflow-cpu", "numpy"), "rows": rows})
