"""Print the notebooks that `make test` compares: those that are out of date, and two others, chosen by the commit.

Which two follows from the commit's hash, so that all lessons come round. With --all, every one.
"""

import itertools
import subprocess
import sys
from pathlib import Path

from cvlab import run

ROOT = Path(__file__).resolve().parents[1]


def main():
    names = run.chapters()
    chosen = names if "--all" in sys.argv else [*filter(run.stale, names)]
    for name in chosen + drawn([name for name in names if name not in chosen], commit()):
        print(f"chapters/{name}.ipynb")


def drawn(names, commit, count=2):
    """Choose `count` of the names by a commit's hash; where there are fewer, all of them."""
    pairs = list(itertools.combinations(names, min(count, len(names))))
    return list(pairs[int(commit, 16) % len(pairs)])


def commit():
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "0"  # where the book is no clone, the first two


if __name__ == "__main__":
    main()
