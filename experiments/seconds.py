"""Say where the time of executing the lessons goes: `python -m experiments.seconds`, after `make outputs EXECUTE=all`.

Reads the stamps of the committed notebooks, which hold the seconds of each cell and the CPU seconds of the kernel, and
writes results/seconds.json. What stood there as `before`, measured on an earlier commit and the same machine, is kept.
"""

import json

from cvlab import run, stamps

from ._timing import RESULTS, write

SLOWEST = 5


def main():
    target = RESULTS / "seconds.json"
    before = json.loads(target.read_text(encoding="utf-8"))["before"] if target.exists() else {"lessons": {}}
    rows = [row(name, before["lessons"].get(name)) for name in run.chapters()]
    for one in rows:
        print(
            f"{one['lesson']:<26} {one['cpu_seconds']:>6} s of CPU, before {one['before'] or '?':>6}; "
            f"{one['seconds']:>6} s in all"
        )
    told = [one for one in rows if one["before"]]
    if told:
        now, then = (sum(one[key] for one in told) for key in ("cpu_seconds", "before"))
        print(f"{len(told)} lessons: {now:.0f} of {then:.0f} s of CPU, a share of {now / then:.2f}")
    write("seconds", {"command": "python -m experiments.seconds", "before": before, "rows": rows})


def row(name, before):
    """Give a lesson's seconds and its slowest cells, with the first line of their code."""
    notebook = run.read_notebook(name)
    stamp = stamps.read(notebook)
    if stamp is None:
        raise SystemExit(f"seconds: chapters/{name}.ipynb has no valid stamp; `make outputs` executes and stamps it")
    first_lines = {cell["id"]: cell["source"].partition("\n")[0] for cell in stamps.code_cells(notebook)}
    slowest = sorted(stamp["cells"].items(), key=lambda item: -item[1])[:SLOWEST]
    return {
        "lesson": name,
        "cpu_seconds": stamp["cpu_seconds"],
        "before": before,
        "seconds": stamp["seconds"],
        "date": stamp["date"],
        "processor": stamp["machine"]["processor"],
        "slowest": [{"cell": cell, "seconds": seconds, "begins": first_lines[cell]} for cell, seconds in slowest],
    }


if __name__ == "__main__":
    main()
