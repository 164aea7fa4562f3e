"""The built pages, served on this machine and opened in the browser."""

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cvlab import run

PAGES = run.book_root() / "_build" / "html"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("house")


@pytest.fixture(scope="session")
def pages():
    """The folder of the built pages, with the committed outputs where these are newer: nbval executes the chapters."""
    done = subprocess.run(
        [sys.executable, run.book_root() / "tools" / "book.py", "--committed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return PAGES


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


@pytest.fixture
def visit(browser, served, pages):
    """A function that opens a page by its name, served or (`disk=True`) straight from the disk."""
    opened = []

    def go(name, disk=False, **options):
        address = (pages / name).as_uri() if disk else f"{served}/{name}"
        opened.append(Visit(browser, address, pages.as_uri() if disk else served, **options))
        return opened[-1]

    yield go
    for one in opened:
        one.close()
