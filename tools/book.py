"""Build the book: execute the chapters that are out of date, render the pages, say where they lie.

Executed chapters go to _build/stage, never over the committed ones (but see --write-back), each with the fingerprint
of what it depends on (`cvlab.run.fingerprint` lists it); a chapter whose fingerprint has changed, or that was never
executed in this clone, is out of date. Pages are rendered again when the stage or the configuration has changed.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from cvlab import run

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "_build" / "stage"
PAGES = ROOT / "_build" / "html"
NEXT = ROOT / "_build" / "next"
# What the pages are made from, apart from the chapters' notebooks.
SOURCES = ("*.md", "*.bib", "_toc.yml", "_static/**/*", "chapters/**/*", "data/*/*.webp", "docs/*.webp")
WIDGET = "application/vnd.jupyter.widget-view+json"
# What is no complaint on stderr: progress bars, and what TensorFlow's libraries log when they are loaded
CHATTER = re.compile(r"\r|\d+%\||^I\d{4} |^WARNING: All log messages before absl|^To enable the following instructions")


def main():
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("--profile", default="quick", help="a file of chapters/profiles/ (default: quick)")
    parser.add_argument("--write-back", action="store_true", help="write the outputs into chapters/ too")
    parser.add_argument("--committed", action="store_true", help="execute nothing; take the outputs in chapters/")
    options = parser.parse_args()
    if options.write_back and options.profile != "quick":
        parser.error("--write-back: the committed outputs are those of the quick profile")
    if options.committed and (options.write_back or options.profile != "quick"):
        parser.error("--committed: these are the outputs of the quick profile, and they are in chapters/ already")
    began = time.monotonic()
    try:
        complete = execute_chapters(options.profile, options.committed)
    except (run.CommandError, OSError) as error:
        sys.exit(f"book: {error}")
    except KeyboardInterrupt:
        sys.exit("\nbook: interrupted; what was executed so far stays")
    if not complete:
        sys.exit("book: not rendered, as a chapter failed; the pages are as they were before")
    if options.write_back:
        write_back()
    copy_sources()
    rendered = render()
    done, page = "built" if rendered else "up to date", (PAGES / "index.html").relative_to(ROOT)
    print(f"{done} in {time.monotonic() - began:.0f} s: {page} (read it there, or `make serve`)")


def execute_chapters(profile, committed=False):
    """Bring the stage up to date, with a line for each chapter; say whether all went well.

    What is out of date is executed, or, if `committed`, comes with the outputs that lie in chapters/, and stays out of
    date for the next time.
    """
    complete = True
    for name in run.chapters():
        staged = STAGE / "chapters" / f"{name}.ipynb"
        parameters = run.settings(name, profile)
        fingerprint = run.fingerprint(name, parameters)
        if staged_fingerprint(staged) == fingerprint:
            print(f"{name}: up to date")
            continue
        if committed:
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "chapters" / f"{name}.ipynb", staged)
            print(f"{name}: as committed")
            continue
        print(f"{name}: executing ({profile}) …", end="", flush=True)
        executed = staged.with_suffix(".executed.ipynb")
        try:
            seconds = run.execute(name, executed, parameters)
        except run.ChapterFailed as error:
            complete = False
            print(" failed")
            print("\n".join([f"book: {error}", *error.traceback.splitlines()[-15:]]), file=sys.stderr)
            continue
        notebook = nbformat.read(executed, as_version=4)
        complaints = tidy(notebook)
        notebook.metadata["cvlab"] = {"fingerprint": fingerprint}
        write(notebook, staged)
        executed.unlink()
        print(f" {seconds:.0f} s")
        for line in complaints:
            print(f"{name}: stderr: {line}", file=sys.stderr)
    return complete


def staged_fingerprint(staged):
    if not staged.exists():
        return None
    return nbformat.read(staged, as_version=4).metadata.get("cvlab", {}).get("fingerprint")


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
            kept.append(output)
        cell.outputs = kept
    return complaints


def write(notebook, target):
    partial = target.with_suffix(".partial.ipynb")
    try:
        partial.write_text(nbformat.writes(notebook), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_back():
    """Put the staged outputs into the committed chapters; all else in them stays as it is."""
    for name in run.chapters():
        path = ROOT / "chapters" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        staged = nbformat.read(STAGE / "chapters" / f"{name}.ipynb", as_version=4)
        executed = [cell for cell in staged.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        for cell, new in zip(notebook.cells, executed, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = new.outputs, new.execution_count
        tidy(notebook)
        write(notebook, path)
        print(f"{name}: outputs written to {path.relative_to(ROOT)}")


def copy_sources():
    """Bring all else that the pages are made from into the stage, and take out of it what is gone."""
    wanted = {STAGE / "chapters" / f"{name}.ipynb" for name in run.chapters()}
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            if source.is_dir() or source.suffix == ".ipynb" or source.name == "README.md" or "profiles" in source.parts:
                continue
            target = STAGE / source.relative_to(ROOT)
            wanted.add(target)
            if not target.exists() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    for path in STAGE.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def render():
    """Render the stage with execution off, unless the pages were made from just this; say whether that was needed.

    All pages are made anew and take the place of the old ones at the end, so that nothing stale is left among them.
    """
    digest = hashlib.sha256(clone())
    sources = [p for p in sorted(STAGE.rglob("*")) if p.is_file()]
    code = [*sorted(ROOT.glob("cvlab/*.py")), *sorted(ROOT.glob("tools/*.py"))]  # for the figures that are drawn anew
    others = ("_config.yml", "data/manifest.json", "package-lock.json", "requirements.txt", "requirements.lock")
    for path in [*sources, *code, *(ROOT / name for name in others)]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    stamp = PAGES / ".rendered"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return False
    print("rendering the pages …", end="", flush=True)
    began = time.monotonic()
    shutil.rmtree(NEXT, ignore_errors=True)
    build = "import jupyter_book.cli.main as jb; jb.main()"
    done = subprocess.run(
        [sys.executable, "-c", build, "build", STAGE, "--path-output", NEXT, "--config", ROOT / "_config.yml", "-q"],
        capture_output=True, text=True,
    )  # fmt: skip
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
