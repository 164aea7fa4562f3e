"""A forge on this machine that stands in for the book's home: its repository and its files, over https."""

import contextlib
import functools
import http.server
import os
import shutil
import ssl
import subprocess
import threading

from cvlab import run

ROOT = run.book_root()
PACKAGED = (
    "pyproject.toml",
    "README.md",
    "LICENSE*",
    "cvlab/**/*.py",
    "cvlab/controls/*",
    "experiments/results/*.json",
    "data/*.*",
    "data/photographs/*",
)


def command(*arguments, cwd, **environment):
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def can_open():
    """Say whether the programs that it takes are here."""
    return bool(shutil.which("openssl") and shutil.which("git"))


@contextlib.contextmanager
def opened(folder):
    """Serve the book as it lies here from a folder; gives (address of the repository, commit, certificate)."""
    source = folder / "source"
    for pattern in PACKAGED:
        for path in ROOT.glob(pattern):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    git = functools.partial(command, "git", "-c", "user.name=book", "-c", "user.email=book@localhost", cwd=source)
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "The book")
    commit = git("rev-parse", "HEAD")
    git("clone", "--quiet", "--bare", ".", folder / "book.git")
    command("git", "update-server-info", cwd=folder / "book.git")
    raw = folder / "book" / "raw" / commit
    raw.mkdir(parents=True)
    (raw / "data").symlink_to(ROOT / "data")
    certificate = folder / "certificate.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", folder / "key.pem", "-out", certificate)
    command("openssl", "req", "-x509", *made, *subject, cwd=folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(certificate, folder / "key.pem")
    server.socket = inside.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/book.git", commit, certificate
    finally:
        server.shutdown()
        server.server_close()
