"""Simulate what a large course and many readers ask of machines: `python -m experiments.load`, a few seconds.

Nothing is timed here. Service times come from the stamps of the committed lessons (two CPU cores) and from the longest
trainings in `experiments/results`, memory from results/memory.json, the weight of pages from results/lighthouse.json.
What is assumed and not measured stands in ASSUMED, goes into results/load.json, and is printed beside the results.

Students: each runs every lesson of a week some times before its deadline, half of them on the last day. Runs wait in
one queue for a slot, first come, first served. Readers: visits arrive at random, more by day than by night.
"""

import heapq
import json

import numpy as np

from cvlab import run, stamps

from ._timing import RESULTS, commit, write

ROOT = run.book_root()
ASSUMED = {
    "students": 1000,
    "runs of a lesson per student": 3,
    "days until the deadline": 5,
    "hours a day": 12,
    "share of runs on the last day": 0.5,
    "wait that 95% of runs should stay below, minutes": 10,
    "GPU is faster than two cores, times": [1, 10, 30],
    "readers a day": 100_000,
    "pages a reader opens": 3,
    "share of a day's visits in the busiest hour": 0.1,
    "traffic that GitHub Pages allows, GB a month": 100,  # docs.github.com, "GitHub Pages limits": a soft limit
}
WEEK = "week2"  # the heaviest
SEED = 0


def arrivals(count, generator):
    """Draw when runs are asked for, in seconds of working time, sorted; the last day is the busiest."""
    days, day = ASSUMED["days until the deadline"], 3600 * ASSUMED["hours a day"]
    last = ASSUMED["share of runs on the last day"]
    shares = [(1 - last) / (days - 1)] * (days - 1) + [last]
    return np.sort((generator.choice(days, count, p=shares) + generator.random(count)) * day)


def queue(asked, seconds, slots):
    """Let runs wait in one queue for a number of slots.

    Args:
        asked: (N,) when each run is asked for, sorted. seconds: (N,) how long it takes.

    Returns:
        (N,) seconds that each waits.
    """
    free = [0.0] * slots
    waits = np.empty(len(asked))
    for i, (arrival, duration) in enumerate(zip(asked, seconds)):
        start = max(arrival, heapq.heappop(free))
        waits[i] = start - arrival
        heapq.heappush(free, start + duration)
    return waits


def smallest(asked, seconds):
    """Find the smallest number of slots with which 95 % of the runs wait no longer than assumed; give the rows "
    "tried."""
    bound = 60 * ASSUMED["wait that 95% of runs should stay below, minutes"]
    tried = {}

    def enough(slots):
        tried[slots] = summary(asked, seconds, slots)
        return tried[slots]["wait_p95_minutes"] * 60 <= bound

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    around = {max(1, high // 2), high, 2 * high}
    return high, [tried.get(slots) or summary(asked, seconds, slots) for slots in sorted(around)]


def summary(asked, seconds, slots):
    waits = queue(asked, seconds, slots)
    open_hours = ASSUMED["days until the deadline"] * ASSUMED["hours a day"]
    return {
        "slots": slots,
        "wait_median_minutes": round(float(np.median(waits)) / 60, 1),
        "wait_p95_minutes": round(float(np.percentile(waits, 95)) / 60, 1),
        "busy": round(float(np.sum(seconds)) / 3600 / (slots * open_hours), 3),
    }


def quick_lessons():
    """A thousand students run the lessons of one week, quick profile, on slots of two cores."""
    stamped = {name: stamps.read(run.read_notebook(name)) for name in run.chapters() if name.startswith(WEEK)}
    each = np.array([stamp["seconds"] for stamp in stamped.values() if stamp])
    runs = ASSUMED["students"] * ASSUMED["runs of a lesson per student"]
    generator = np.random.default_rng(SEED)
    asked = arrivals(runs * len(each), generator)
    seconds = each[generator.integers(0, len(each), len(asked))]
    slots, rows = smallest(asked, seconds)
    peak = memory_of_a_lesson()
    return {
        "kind": "quick",
        "lessons": list(stamped),
        "seconds_a_run": [round(float(value)) for value in each],
        "runs": len(asked),
        "slot_hours": round(float(seconds.sum()) / 3600),
        "slots_needed": slots,
        "memory_gb": None if peak is None else round(slots * peak),
        "rows": rows,
    }


def memory_of_a_lesson():
    path = RESULTS / "memory.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return max((row["peak_gb"] for row in rows if row["kind"] == "lesson"), default=None)


def long_trainings():
    """A thousand students each train once as long as the book's longest trainings; on GPUs, if these are faster."""
    seconds = []
    for name in ("segment", "fine_tuning", "upsampled_cifar"):
        rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        seconds += [row["seconds"] for row in rows if (row.get("seconds") or 0) >= 600]
    generator = np.random.default_rng(SEED)
    asked = arrivals(ASSUMED["students"], generator)
    drawn = np.array(seconds)[generator.integers(0, len(seconds), len(asked))]
    rows = []
    for times in ASSUMED["GPU is faster than two cores, times"]:
        slots, tried = smallest(asked, drawn / times)
        needed = next(row for row in tried if row["slots"] == slots)
        rows.append({"times": times, "slot_hours": round(float(drawn.sum()) / 3600 / times), **needed})
    return {
        "kind": "long",
        "trainings": len(seconds),
        "minutes": [round(min(seconds) / 60), round(max(seconds) / 60)],
        "rows": rows,
    }


def readers():
    """A day of readers: bytes, the busiest second and minute, and how many readers a free host allows."""
    measured = json.loads((RESULTS / "lighthouse.json").read_text(encoding="utf-8"))["rows"]
    pages = [row["kilobytes"] for row in measured if row["form"] == "mobile" and row["page"] != "stock Jupyter Book"]
    stock = [row["kilobytes"] for row in measured if row["form"] == "mobile" and row["page"] == "stock Jupyter Book"]
    generator, visits = np.random.default_rng(SEED), ASSUMED["readers a day"] * ASSUMED["pages a reader opens"]
    swing = 24 * ASSUMED["share of a day's visits in the busiest hour"] - 1  # of a sine over the day
    hours = np.arange(24) + 0.5
    rate = 1 + swing * np.sin(2 * np.pi * (hours - 8) / 24)
    rate = rate.clip(0.02) / rate.clip(0.02).sum()
    moments = (generator.choice(24, visits, p=rate) + generator.random(visits)) * 3600
    kilobytes = np.array(pages)[generator.integers(0, len(pages), visits)]
    by_second = np.bincount(moments.astype(int), weights=kilobytes, minlength=86_400)
    allowed = ASSUMED["traffic that GitHub Pages allows, GB a month"] * 1e6 / 30  # kB a day
    return {
        "kind": "readers",
        "page_kilobytes": [min(pages), round(float(np.mean(pages))), max(pages)],
        "stock_page_kilobytes": round(float(np.mean(stock))) if stock else None,
        "gb_a_day": round(float(kilobytes.sum()) / 1e6, 1),
        "mean_megabit_a_second": round(float(kilobytes.sum()) * 8 / 1000 / 86_400, 1),
        "busiest_second_megabit": round(float(by_second.max()) * 8 / 1000),
        "pages_in_the_busiest_second": int(np.bincount(moments.astype(int)).max()),
        "readers_a_day_that_pages_allows": int(allowed / np.mean(pages) / ASSUMED["pages a reader opens"]),
    }


def downloads():
    """What a student on Colab fetches from the book's repository, once for each new machine."""
    files = json.loads((ROOT / "data" / "manifest.json").read_text(encoding="utf-8"))["files"]
    megabytes = sum(entry["bytes"] for entry in files.values()) / 1e6
    return {
        "kind": "downloads",
        "most_megabytes": round(megabytes),
        "gb": round(megabytes * ASSUMED["students"] / 1000),
    }


def main():
    rows = [quick_lessons(), long_trainings(), readers(), downloads()]
    print(json.dumps({"assumed": ASSUMED, "rows": rows}, indent=1, ensure_ascii=False))
    write("load", {"command": "python -m experiments.load", "commit": commit(), "assumed": ASSUMED, "rows": rows})


if __name__ == "__main__":
    main()
