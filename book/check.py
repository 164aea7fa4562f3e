"""Lint, and the tests of what has changed and of what imports it: behind `make check`.

What has changed is told by git: since `origin/main` where there is one, and what is not committed. A module's tests
run when it, or a module that it imports, has changed; the tests of all else when they name the changed file.
"""

import subprocess
import sys
from pathlib import Path

from cvlab import run, stamps

ROOT = Path(__file__).resolve().parents[1]
RUFF = [sys.executable, "-m", "ruff"]
MYPY = [sys.executable, "-m", "mypy", "--no-error-summary"]
PYTEST = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses", "auto"]


def main():
    changed = changed_files()
    if not changed:
        print("check: nothing has changed")
        return 0
    linters = ([*RUFF, "check", "."], [*RUFF, "format", "--check", "."], MYPY)
    lint = [subprocess.run(words, cwd=ROOT).returncode for words in linters]
    tests = sorted(tests_of(changed))
    print(f"check: {len(changed)} files have changed; tests: {', '.join(path.stem for path in tests) or 'none'}")
    tested = subprocess.run([*PYTEST, *tests], cwd=ROOT).returncode if tests else 0
    for name in run.chapters():
        if reason := run.stale(name):
            print(f"check: {name} is out of date ({reason}): make outputs")
    return int(any(lint) or tested)


def changed_files():
    """List the files that differ from `origin/main`, or from the last commit where there is no such branch."""
    base = git("merge-base", "HEAD", "origin/main") or ["HEAD"]
    names = git("diff", "--name-only", base[0]) + git("ls-files", "--others", "--exclude-standard")
    return [ROOT / name for name in dict.fromkeys(names)]


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def tests_of(changed):
    """Give the test files that may tell something about changed files."""
    unit = {path.stem.removeprefix("test_"): path for path in (ROOT / "tests").glob("test_*.py")}
    chosen = set()
    for path in changed:
        name = path.relative_to(ROOT).as_posix()
        if path in unit.values():
            chosen.add(path)
        elif name.startswith("cvlab/") and path.suffix == ".py":
            chosen.update(unit[module] for module in users_of(name) if module in unit)
        elif name.startswith("chapters/"):
            chosen.add(unit["house"])
        else:
            chosen.update(test for test in unit.values() if path.name in test.read_text(encoding="utf-8"))
    return {path for path in chosen if path.exists()}


def users_of(name):
    """List a module of `cvlab`, given as a file such as "cvlab/boxes.py", and the modules that import it."""
    changed = Path(name).with_suffix("")
    wanted, users = ".".join(changed.parts), [changed.stem]
    for path in sorted((ROOT / "cvlab").rglob("*.py")):
        package = ".".join(path.relative_to(ROOT).parts[:-1])
        _, imported = stamps.read_module(path.read_text(encoding="utf-8"), package)
        if wanted in imported and path.stem not in users:
            users.append(path.stem)
    return users


if __name__ == "__main__":
    sys.exit(main())
