"""Run every race against a peer, and write one table: `make races`, or `python -m experiments.races [NAME …]`.

    make races                                  # .venv-races with the peers of pyproject's extra; at most 30 minutes
    .venv-races/bin/python -m experiments.races boxes --share 0.1    # one race, in a tenth of its time

Each race runs in a process of its own and keeps to its budget of seconds: its contestants are timed in turns, and
rounds that would take too long are left out. A ratio is ours over the peer's, of the medians; its 95 % interval comes
from drawing the rounds anew with repeats. A bar holds if the whole interval is at or below it, and fails if the whole
interval is above it; else, and with fewer than three rounds, it is open. A peer that is not installed gets a row that
says so.

results/races.json holds the rows of one machine. Rows of another are not mixed with them: run all races anew there.
Lighthouse (`races/lighthouse.py`) stays apart, as it needs Chromium and takes half an hour by itself.
"""

import argparse
import dataclasses
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from .. import _timing

ROOT = Path(__file__).resolve().parents[2]
MARGIN = 0.15  # of a race's budget: imports, building networks, compiling
FEWEST_ROUNDS = 3  # of which an interval is made
GRACE, GRACE_OF_A_TRIAL = 30, 150  # seconds beyond its budget before a race is ended
MACHINE = ("cpu", "cores", "system")  # what two machines may not differ in
PACKAGES = ("numpy", "keras", "tensorflow-cpu", "opencv-python-headless", "keras-hub", "xplique", "tf-keras-vis")


@dataclasses.dataclass(frozen=True)
class Race:
    """A module of this folder, how it is called, and for how many seconds; `groups` are timed one after the other."""

    module: str
    seconds: int
    groups: int
    arguments: tuple = ()
    bars: tuple = ()  # (start of a table's title, ours, the peer, the highest ratio)


RACES = {
    "boxes": Race(
        "boxes",
        150,
        9,
        bars=(
            ("IoU, 2,000 × 2,000", "cvlab", "keras compute_iou", 0.3),
            ("NMS, 20,000", "cvlab", "tf.image.non_max_suppression", 1.0),
        ),
    ),
    "explain": Race("explain", 450, 3, ("--models", "MobileNetV2")),
    "explain_resnet50": Race("explain", 390, 2, ("--models", "ResNet50", "--methods", "saliency", "grad_cam")),
    "fcn": Race("fcn", 240, 2, bars=(("a forward pass", "FCN-8s, label maps", "encoder", 1.1),)),
    "retinanet": Race(
        "retinanet",
        390,
        2,
        bars=(
            ("a training step", "cvlab", "keras-hub", 0.9),
            ("decoding", "cvlab", "keras-hub", 0.5),
        ),
    ),
}


class Recorder:
    """Keeps each group's times while a race runs, and says when a group has had its share of the budget.

    Each row is written to `out` at once, as a line of JSON, so that it is there even if the race does not end in time.
    """

    def __init__(self, race, seconds, out=None):
        self.race, self.share = race, (1 - MARGIN) * seconds / race.groups
        self.groups, self.rows, self.out = [], [], out

    def is_over(self, elapsed):
        return elapsed > self.share

    def keep(self, times):
        self.groups.append({name: list(taken) for name, taken in times.items()})

    def name(self, title, contestants, reference):
        """Make the rows of a printed table: each of ours against each peer in it."""
        times = next(group for group in reversed(self.groups) if set(contestants) <= set(group))
        ours = [name for name in contestants if name.startswith(("cvlab", "FCN-8s")) and name != reference]
        peers = [name for name in contestants if name not in ours]
        for name, peer in itertools.product(ours, peers):
            self.add(row(self.race, title, name, peer, times))

    def add(self, line):
        self.rows.append(line)
        if self.out:
            print(json.dumps(line), file=self.out, flush=True)


def row(race, title, ours, peer, times):
    ratio, low, high = interval(times[ours], times[peer])
    line = {"what": title, "ours": ours, "peer": peer, "ratio": ratio, "low": low, "high": high}
    line["rounds"] = len(times[ours])
    bar = bar_of(race, title, ours, peer)
    return line | {"bar": bar, "holds": None if bar is None else verdict(low, high, bar, line["rounds"])}


def interval(ours, peers, draws=2000):
    """Give the ratio of the medians, and the ends of its 95 % interval over rounds drawn anew; both in one draw.

    Args:
        ours, peers: (rounds,) times, timed in turns.
    """
    ours, peers = np.asarray(ours), np.asarray(peers)
    rounds = np.random.default_rng(0).integers(0, len(ours), (draws, len(ours)))
    ratios = np.median(ours[rounds], axis=1) / np.median(peers[rounds], axis=1)
    ends = np.percentile(ratios, [2.5, 97.5])
    return tuple(round(float(value), 3) for value in (np.median(ours) / np.median(peers), *ends))


def verdict(low, high, bar, rounds):
    """Say whether a bar holds: "yes", "no", or "open" where the interval lies on both sides, or tells nothing yet."""
    if rounds < FEWEST_ROUNDS:
        return "open"
    return "yes" if high <= bar else "no" if low > bar else "open"


def bar_of(race, title, ours, peer):
    """Find a bar among this table's, or in the module's own `BARS` of {method: {peer: ratio}}."""
    for start, name, other, bar in race.bars:
        if title.startswith(start) and (name, other) == (ours, peer):
            return bar
    of_module = getattr(sys.modules.get(f"{__package__}.{race.module}"), "BARS", {})
    method = of_module.get(title.partition(",")[0])
    return method.get(peer) if isinstance(method, dict) and ours == "cvlab" else None


def race(name, seconds, out=None):
    """Run one race within a budget of seconds, here and now; give its rows, and write them to `out` on the way."""
    chosen = RACES[name]
    _timing.recorder = recorder = Recorder(chosen, seconds, out)
    sys.argv = [chosen.module, *chosen.arguments]
    try:
        importlib.import_module(f"{__package__}.{chosen.module}").main()
    except ImportError as error:
        recorder.add({"what": chosen.module, "missing": str(error)})
    finally:
        _timing.recorder = None
    return recorder.rows


def race_apart(name, seconds, limit):
    """Run one race in a process of its own, which is ended when it takes longer than its limit; give its rows."""
    command = [sys.executable, "-m", "experiments.races", "--here", name, "--seconds", str(seconds)]
    began, fault = time.monotonic(), None
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=limit)
        written = done.stdout
        if done.returncode:
            fault = f"the rest ended with exit status {done.returncode}, see above"
    except subprocess.TimeoutExpired as error:
        written, fault = error.stdout or b"", f"the rest had not ended after {limit:.0f} s"
    lines = written.decode("utf-8").split("\n")[:-1]  # the last one may be cut off
    rows = [json.loads(line) for line in lines] + ([{"what": name, "missing": fault}] if fault else [])
    took = round(time.monotonic() - began)
    return [{"race": name, **each, "seconds": took} for each in rows]


def measured_before(path, machine, names):
    """Give the rows of other races that results/races.json has; an error where they come from another machine."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    kept = [each for each in known["rows"] if each["race"] in set(RACES) - set(names)]
    if kept:
        require_one_machine([known["machine"], machine])
    return kept


def require_one_machine(machines):
    """Raise ValueError where descriptions of machines differ: times of two machines do not make a ratio or a table."""
    seen = {tuple(machine[key] for key in MACHINE) for machine in machines}
    if len(seen) > 1:
        told = " and ".join(sorted(" ".join(map(str, machine)) for machine in seen))
        raise ValueError(f"races: results of {told} can't stand in one table; run all races on one machine")


def read_options():
    parser = argparse.ArgumentParser(description="Time cvlab beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(RACES)} (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="of each race's budget (default: 1)")
    parser.add_argument("--here", choices=RACES, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(RACES):
        parser.error(f"{', '.join(sorted(unknown))}: no such race; there are {', '.join(RACES)}")
    if not 0 < options.share <= 1:
        parser.error(f"--share is {options.share}, expected more than 0 and at most 1")
    return options


def main():
    options = read_options()
    if options.here:
        out, sys.stdout = sys.stdout, sys.stderr  # what a race prints goes past the rows
        race(options.here, options.seconds, out)
        return 0
    names, path, machine = options.names or list(RACES), _timing.RESULTS / "races.json", _timing.machine(*PACKAGES)
    rows = measured_before(path, machine, names)
    for number, name in enumerate(names, 1):
        seconds = options.share * RACES[name].seconds
        print(f"race {number} of {len(names)}: {name}, at most {seconds:.0f} s", file=sys.stderr, flush=True)
        rows = [*rows, *race_apart(name, seconds, seconds + (GRACE if options.share == 1 else GRACE_OF_A_TRIAL))]
        order = list(RACES)
        rows.sort(key=lambda each: order.index(each["race"]))  # which keeps the order within a race
        result = {"command": "make races", "share": options.share, "machine": machine, "rows": rows}
        _timing.write("races", result)
    print_table(rows)
    return 1 if any(each.get("holds") == "no" for each in rows) else 0


def print_table(rows):
    for each in rows:
        head = f"{each['what']}: "
        if "missing" in each:
            print(f"{head}not measured ({each['missing']})")
            continue
        bar = "" if each["bar"] is None else f", bar {each['bar']}: {each['holds']}"
        print(f"{head}{each['ours']} of {each['peer']} {each['ratio']:.2f} ({each['low']:.2f}–{each['high']:.2f}){bar}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("races: stopped; the races that ended are in experiments/results/races.json")
