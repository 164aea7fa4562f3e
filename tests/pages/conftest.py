"""The built pages, served on this machine and opened in the browser."""

import functools
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvlab import run

ROOT = run.book_root()
PAGES = ROOT / "_build" / "html"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads which test belongs to which group
def pytest_collection_modifyitems(items):
    """Put the tests of one page behind each other, and let one worker run them: they share the visits to it."""
    for item in items:
        if is_here(item):
            item.add_marker("house")
            item.add_marker(pytest.mark.xdist_group(page_of(item) or "the pages"))
    items.sort(key=page_of)  # within a page, the tests stay in the order of the file


def is_here(item):
    return Path(__file__).parent in item.path.parents


def page_of(item):
    """Name the page that a test opens or reads: "" for a test of the whole book, or of another folder."""
    return item.callspec.params.get("name", "") if is_here(item) and hasattr(item, "callspec") else ""


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The folder of the built pages, with the committed outputs where these are newer: nbval executes the chapters."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers of this run share
    complaints = build_once(folder)
    assert not complaints, complaints
    return PAGES


def build_once(folder, limit=900):
    """Build the book in the first worker that asks, while the others wait; give all of them what went wrong, or ""."""
    complaints = folder / "complaints.txt"
    try:
        (folder / "building").touch(exist_ok=False)
    except FileExistsError:
        end = time.monotonic() + limit
        while not complaints.exists():
            assert time.monotonic() < end, f"another worker has been building the book for {limit} s"
            time.sleep(0.5)
        return complaints.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, ROOT / "book" / "build.py", "--committed"], capture_output=True, text=True, check=False
    )
    partial = folder / "complaints.partial"
    partial.write_text(done.stdout + done.stderr if done.returncode else "", encoding="utf-8")
    partial.rename(complaints)
    return complaints.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def served(pages):
    """The address under which the pages are served on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(pages))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visit:
    """One page, opened, and what it asked for and complained of since."""

    def __init__(self, browser, address, own, width, scheme, javascript):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
        )
        self.page = self.context.new_page()
        self.elsewhere, self.complaints, self.responses = [], [], []

        def asked(request):
            if not request.url.startswith((own, "data:", "blob:")):
                self.elsewhere.append(request.url)

        def answered(response):
            self.responses.append(response)
            if response.status >= 400:
                self.complaints.append(f"{response.status} {response.url}")

        def logged(message):
            if message.type in ("error", "warning"):
                self.complaints.append(f"{message.type}: {message.text}")

        self.page.on("request", asked)
        self.page.on("response", answered)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("console", logged)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.goto(address, wait_until="networkidle")

    def close(self):
        self.context.close()


@pytest.fixture(scope="session")
def visits():
    """The visits that are open, all to one page, by the way in which it was opened."""
    opened = {}
    yield opened
    for each in opened.values():
        each.close()


@pytest.fixture
def visit(browser, served, pages, visits):
    """A function that opens a page by its name, served or (`disk=True`) straight from the disk.

    A visit serves all tests of its page that ask for the same, so a test finds what those before it have done there.
    """

    def go(name, disk=False, width=1280, scheme="light", javascript=True):
        asked = (name, disk, width, scheme, javascript)
        for other in [each for each in visits if each[0] != name]:
            visits.pop(other).close()
        if asked not in visits:
            address = (pages / name).as_uri() if disk else f"{served}/{name}"
            own = pages.as_uri() if disk else served
            visits[asked] = Visit(browser, address, own, width, scheme, javascript)
        return visits[asked]

    return go
