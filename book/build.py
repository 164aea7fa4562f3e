"""Build the book: execute the chapters that are out of date, render the pages, say where they lie.

Each chapter carries the stamp of the run that made its outputs (see `cvlab.stamps`). Where what the stamp names is
the same today, the chapter is up to date and is not executed. Executed chapters go to _build/stage with their new
stamps, never over the committed ones (but see --write-back), and the newer of both is rendered while its stamp holds.
Pages are rendered again when the stage or the configuration has changed.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import nbformat

from cvlab import run, stamps

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "_build" / "stage"
STATIC = ROOT / "book" / "_static"
PAGES = ROOT / "_build" / "html"
LOCK = ROOT / "_build" / ".lock"
NEXT = ROOT / "_build" / "next"
# What the pages are made from, apart from the chapters' notebooks.
SOURCES = ("*.md", "*.bib", "_toc.yml", "chapters/**/*", "data/*/*.webp", "docs/*.webp")
SOLUTION = re.compile(r"^:::\{dropdown\} Solution.*?^:::$\n?", re.S | re.M)
WIDGET = "application/vnd.jupyter.widget-view+json"
# What is no complaint on stderr: progress bars, and what TensorFlow's libraries log when they are loaded
CHATTER = re.compile(r"\r|\d+%\||^I\d{4} |^WARNING: All log messages before absl|^To enable the following instructions")


def main():
    try:
        options = read_options()
        if options.one:  # of several at the same time: the build that started this one holds the lock
            sys.exit(0 if execute(options.one, options.profile, options.label) else 1)
        sys.exit(build_alone(options))
    except (run.CommandError, OSError) as error:
        sys.exit(f"book: {error}")
    except KeyboardInterrupt:
        print("book: stopped; what was executed is kept, make book goes on from there", file=sys.stderr)
        sys.exit(130)


def read_options():
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("--profile", default="quick", help="a file of chapters/profiles/ (default: quick)")
    parser.add_argument("--execute", nargs="+", default=[], metavar="CHAPTER", help="execute these anyway, or `all`")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="chapters to execute at the same time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--label", help=argparse.SUPPRESS)
    parser.add_argument("--write-back", action="store_true", help="write the outputs and stamps into chapters/ too")
    parser.add_argument("--committed", action="store_true", help="execute nothing; take the outputs in chapters/")
    parser.add_argument("--without-solutions", action="store_true", help="leave the solutions of exercises out")
    parser.add_argument("--stale", action="store_true", help="only list what is out of date, and why; then status 1")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"argument --workers: {options.workers} is less than 1")
    if options.profile != "quick" and (options.write_back or options.committed or options.stale):
        parser.error("--write-back, --committed, --stale: the outputs in chapters/ are those of the quick profile")
    if options.committed and (options.write_back or options.execute):
        parser.error("--committed executes nothing, and its outputs are in chapters/ already")
    return options


def build_alone(options):
    """Build while no other build is at work in this clone: both would write to the same stage."""
    LOCK.parent.mkdir(exist_ok=True)
    lock = filelock.FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print("book: another build is at work in this clone; this one goes on when it has ended", file=sys.stderr)
        lock.acquire()
    try:
        return build(options)
    finally:
        lock.release()


def build(options):
    """Do what the command line asks for; give the exit status."""
    if options.stale:
        reasons = {name: run.stale(name) for name in run.chapters()}
        print("".join(f"{name}: {reason}\n" for name, reason in reasons.items() if reason), end="")
        return 1 if any(reasons.values()) else 0
    began = time.monotonic()
    forced = run.chapters() if "all" in options.execute else [run.find_chapter(name) for name in options.execute]
    if not execute_chapters(options.profile, options.committed, forced, options.workers):
        print("book: not rendered, as a chapter failed; the pages are as they were before", file=sys.stderr)
        return 1
    if options.write_back:
        write_back()
    if options.without_solutions:
        leave_out_solutions()
    copy_sources()
    rendered = render()
    done, page = "built" if rendered else "up to date", (PAGES / "index.html").relative_to(ROOT)
    print(f"{done} in {time.monotonic() - began:.0f} s: {page} (read it there, or `make serve`)")
    return 0


def execute_chapters(profile, committed=False, forced=(), workers=1):
    """Bring the stage up to date, with a line for each chapter; say whether all went well.

    Args:
        profile: a file of chapters/profiles/.
        committed: execute nothing; what is out of date comes as it lies in chapters/, and stays out of date.
        forced: names of chapters to execute in any case.
        workers: how many chapters to execute at the same time.
    """
    outdated = []
    for name in run.chapters():
        source, staged = run.read_notebook(name), staged_path(name)
        valid, reason = newest_valid(name, source, run.fingerprint(name, run.settings(name, profile)))
        if valid and name not in forced:
            write(with_outputs(source, valid), staged)
            print(f"{name}: up to date, executed on {stamps.read(valid)['date'][:10]}")
        elif committed:
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "chapters" / f"{name}.ipynb", staged)
            print(f"{name}: as committed, though out of date ({reason})")
        else:
            outdated.append(name)
            print(f"{name}: to be executed ({reason or 'as you asked'})")
    if not outdated and not committed:
        print("nothing to execute")
    if workers > 1:
        outdated.sort(key=expected_seconds, reverse=True)  # the longest first, so that none is alone at the end
    labels = {name: f"lesson {number} of {len(outdated)}: {name}" for number, name in enumerate(outdated, 1)}
    if workers == 1:
        results = [execute(name, profile, label) for name, label in labels.items()]
        return all(results)
    with ThreadPoolExecutor(workers) as pool:
        try:
            return all(list(pool.map(execute_apart, labels, [profile] * len(labels), labels.values())))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def expected_seconds(name):
    """Tell how long a chapter took the last time; 0 where that is not known."""
    return (stamps.read(run.read_notebook(name)) or {"seconds": 0})["seconds"]


def execute_apart(name, profile, label):
    """Execute one chapter in a process of its own, as others are at work; say whether that went well."""
    command = [sys.executable, Path(__file__), "--profile", profile, "--one", name, "--label", label]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, end="", flush=True)
    print(done.stderr, end="", file=sys.stderr, flush=True)
    return done.returncode == 0


def staged_path(name):
    return STAGE / "chapters" / f"{name}.ipynb"


def newest_valid(name, source, fingerprint):
    """Find the outputs of a chapter that are still true: the committed ones or the staged ones, the newer of both.

    Returns:
        (notebook, None), or (None, why the committed outputs are out of date).
    """
    staged = staged_path(name)
    candidates = [source, *([nbformat.read(staged, as_version=4)] if staged.exists() else [])]
    reasons = [stamps.why_stale(ROOT, notebook, fingerprint) for notebook in candidates]
    valid = [notebook for notebook, reason in zip(candidates, reasons) if reason is None]
    if not valid:
        return None, reasons[0]
    return max(valid, key=lambda notebook: stamps.read(notebook)["date"]), None


def execute(name, profile, label):
    """Execute one chapter into the stage, and stamp it; say whether that went well."""
    staged = staged_path(name)
    parameters = run.settings(name, profile)
    source, fingerprint = run.read_notebook(name), run.fingerprint(name, parameters)
    executed = staged.with_suffix(".executed.ipynb")
    os.environ["CVLAB_FIGURES"] = "strict"  # a figure with a fault is an error here
    try:
        with run.Progress(label, source) as progress:
            told = run.execute(name, executed, parameters, progress)
    except run.ChapterFailed as error:
        print("\n".join([f"book: {error}", *error.traceback.splitlines()[-15:]]), file=sys.stderr)
        return False
    finally:
        del os.environ["CVLAB_FIGURES"]
    notebook = nbformat.read(executed, as_version=4)
    complaints = tidy(notebook)
    told.pop("claims", None)  # counted for those who run a lesson by hand, and no part of a stamp
    stamps.seal(notebook, {"fingerprint": fingerprint, "profile": profile, **told})
    write(notebook, staged)
    executed.unlink()
    for line in complaints:
        print(f"{name}: stderr: {line}", file=sys.stderr)
    return True


def with_outputs(notebook, executed):
    """Give a chapter the outputs and the stamp of a run of the same code; its text and comments stay as they are."""
    for cell, done in zip(stamps.code_cells(notebook), stamps.code_cells(executed), strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    kinds = [cell.metadata.get("tags", []) for cell in notebook.cells]
    for injected in filter(stamps.is_injected, executed.cells):
        after = next(index for index, tags in enumerate(kinds) if "parameters" in tags) + 1
        notebook.cells.insert(after, injected)
    notebook.metadata["cvlab"] = executed.metadata["cvlab"]
    return notebook


def tidy(notebook):
    """Drop what differs from run to run or belongs to a live kernel only.

    Returns:
        What the cells wrote to stderr, chatter apart: readers don't see it, who builds the book should.
    """
    for key in ("widgets", "papermill", "cvlab"):
        notebook.metadata.pop(key, None)
    complaints = []
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                complaints += [line for line in output.text.splitlines() if line.strip() and not CHATTER.search(line)]
                continue
            if "text/html" in output.get("data", {}):
                output.data.pop(WIDGET, None)
            if kept and output.output_type == "stream" and output.name == kept[-1].get("name"):
                kept[-1].text += output.text  # a kernel sends what is printed in pieces, which differ from run to run
            else:
                kept.append(output)
        cell.outputs = kept
    return complaints


def write(notebook, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.ipynb")
    try:
        partial.write_text(nbformat.writes(notebook), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_back():
    """Put staged outputs and stamps that are newer than the committed ones into chapters/; all else stays as it is."""
    for name in run.chapters():
        path = ROOT / "chapters" / f"{name}.ipynb"
        before, staged = run.read_notebook(name), nbformat.read(staged_path(name), as_version=4)
        if reason := stamps.why_stale(ROOT, staged, run.fingerprint(name, run.settings(name))):
            print(f"{name}: not written, as it is out of date again ({reason})")
            continue
        after = with_outputs(run.read_notebook(name), staged)
        if after != before:
            write(after, path)
            print(f"{name}: outputs and stamp written to {path.relative_to(ROOT)}")


def leave_out_solutions():
    """Take the folded solutions out of the staged chapters: out of the pages, and of the notebooks behind them."""
    for name in run.chapters():
        notebook = nbformat.read(staged_path(name), as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = SOLUTION.sub("", cell.source).rstrip()
        write(notebook, staged_path(name))


def copy_sources():
    """Bring all else that the pages are made from into the stage, and take out of it what is gone."""
    wanted = {STAGE / "chapters" / f"{name}.ipynb" for name in run.chapters()}
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            if source.is_dir() or source.suffix == ".ipynb" or source.name == "README.md" or "profiles" in source.parts:
                continue
            wanted.add(copy(source, STAGE / source.relative_to(ROOT)))
    for source in filter(Path.is_file, STATIC.rglob("*")):  # Sphinx looks for it beside the pages
        wanted.add(copy(source, STAGE / "_static" / source.relative_to(STATIC)))
    for path in STAGE.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def copy(source, target):
    """Copy a file unless the target is the same already; give the target."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return target


def render():
    """Render the stage with execution off, unless the pages were made from just this; say whether that was needed.

    All pages are made anew and take the place of the old ones at the end, so that nothing stale is left among them.
    """
    digest = hashlib.sha256(clone())
    sources = [p for p in sorted(STAGE.rglob("*")) if p.is_file()]
    drawn = (
        "cvlab/**/*.py",
        "book/*.py",
        "book/*.js",
        "book/playground/*.*",
        "node_modules/@tensorflow/*/package.json",
        "experiments/results/*.json",
    )  # for what is drawn anew
    code = [path for pattern in drawn for path in sorted(ROOT.glob(pattern))]
    others = ("_config.yml", "data/manifest.json", "package-lock.json", "requirements.txt", "requirements.lock")
    for path in [*sources, *code, *(ROOT / name for name in others)]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    stamp = PAGES / ".rendered"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    print("rendering the pages …", end="", flush=True)
    began = time.monotonic()
    shutil.rmtree(NEXT, ignore_errors=True)
    build = [sys.executable, "-c", "import jupyter_book.cli.main as jb; jb.main()", "build"]
    settings = ["--path-output", NEXT, "--config", ROOT / "_config.yml", "-q"]
    try:
        done = subprocess.run([*build, STAGE, *settings], capture_output=True, text=True)
    except KeyboardInterrupt:
        print(" stopped")
        raise
    warnings = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)
    print(f" {time.monotonic() - began:.0f} s")
    sys.stderr.write(warnings)
    if done.returncode != 0:
        sys.stderr.write(done.stdout[-2000:])
        sys.exit("book: Jupyter Book could not render the pages, see above; the old ones stay")
    (ROOT / "_build" / "warnings.txt").write_text(warnings, encoding="utf-8")
    shutil.rmtree(PAGES, ignore_errors=True)
    (NEXT / "_build" / "html").rename(PAGES)
    shutil.rmtree(NEXT)
    stamp.write_text(digest.hexdigest())
    return True


def clone():
    """Give the commit and the origin of this clone, which the pages name; nothing where it is none."""
    questions = (("rev-parse", "HEAD"), ("remote", "get-url", "origin"))
    if not shutil.which("git"):
        return b""
    asked = (subprocess.run(["git", "-C", ROOT, *each], capture_output=True, check=False) for each in questions)
    return b"".join(done.stdout for done in asked)


if __name__ == "__main__":
    main()
