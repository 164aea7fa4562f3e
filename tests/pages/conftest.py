"""The built pages, served on this machine and opened in the browser."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvlab import run

PAGES = run.book_root() / "_build" / "html"


def pytest_collection_modifyitems(items):
    """Put the tests of one page behind each other, and let one worker run them: they share what is open of it."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker("house")
        item.add_marker(pytest.mark.xdist_group(page_of(item) or "the pages"))
    ours.sort(key=page_of)
    places = [place for place, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def page_of(item):
    return item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""


@pytest.fixture(scope="session")
def pages():
    """The folder of the built pages, with the committed outputs where these are newer: nbval executes the chapters."""
    with alone(run.book_root() / "_build" / "pages.lock"):  # the other workers find the pages up to date
        done = subprocess.run(
            [sys.executable, run.book_root() / "tools" / "book.py", "--committed"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return PAGES


@contextlib.contextmanager
def alone(lock, limit=900):
    """Wait until no other process holds the lock, a file that is there while it does; one left behind is taken over."""
    lock.parent.mkdir(exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError), open(lock, "x"):
            break
        with contextlib.suppress(FileNotFoundError):
            if time.time() - lock.stat().st_mtime > limit:
                lock.unlink()
        time.sleep(0.5)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


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

    def __init__(self, browser, address, own, width=1280, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
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
def opened():
    """What is open of one page, by how it was opened: one visit serves many tests."""
    visits = {}
    yield visits
    for one in visits.values():
        one.close()


@pytest.fixture
def visit(browser, served, pages, opened):
    """A function that opens a page by its name, served or (`disk=True`) straight from the disk.

    A visit of the same kind that another test has begun goes on, with all that this test did on the page, unless
    `fresh=True`.
    """

    def go(name, disk=False, fresh=False, **options):
        kind = (name, disk, tuple(options.items()))
        for other in [each for each in opened if each[0] != name or (fresh and each == kind)]:
            opened.pop(other).close()
        if kind not in opened:
            address = (pages / name).as_uri() if disk else f"{served}/{name}"
            opened[kind] = Visit(browser, address, pages.as_uri() if disk else served, **options)
        return opened[kind]

    return go
