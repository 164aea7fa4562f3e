"""Where the book's files lie: beside the package, in $CVLAB_DATA, in the cache, or at the commit cvlab came from."""

import functools
import hashlib
import json
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
BOOK = HERE.parent if (HERE.parent / "data" / "manifest.json").exists() else HERE / "_book"  # a checkout, or a wheel's
EMBEDDED = BOOK / "data"
opened = {}  # of the book's files, those that this process has opened: path below the book's folder → sha256


class DataUnavailable(RuntimeError):
    """A data set is not on this machine, and can't be fetched; the message says three ways to get it."""


class DataError(ValueError):
    """Data is there, but damaged or not what it claims to be."""


@functools.cache
def manifest() -> dict:
    """Give the manifest of the book's own files: path below `data/` → sha256, bytes and licence.

    It is not recorded as opened: whoever uses a file depends on that file, and not on the other entries.
    """
    return json.loads((EMBEDDED / "manifest.json").read_text(encoding="utf-8"))["files"]


def cache_folder() -> Path:
    """Give the folder that downloads are kept in: $XDG_CACHE_HOME/cvlab, or ~/.cache/cvlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvlab"


def own_folder() -> Path | None:
    """Give the folder that CVLAB_DATA names, or None where it is not set; raise DataUnavailable where there is none."""
    value = os.environ.get("CVLAB_DATA")
    if value and not Path(value).is_dir():
        raise DataUnavailable(f"CVLAB_DATA={value} is not a folder; unset it, or name the folder with the archives")
    return Path(value) if value else None


def record(path: str | Path | None) -> Any:
    """Note in `opened` that a file of the book is about to be read, and give its path.

    What a lesson opened is part of its stamp (see `stamps`), so each file of the book that a module or a lesson reads
    goes through this function. Files elsewhere, in $CVLAB_DATA or the cache, are not noted: their paths are private.
    """
    path = Path(path)
    if path.is_relative_to(BOOK):
        name = path.relative_to(BOOK).as_posix()
        if name not in opened:
            opened[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return path


def find(file: str) -> Any:
    """Find a file of the book's own (its path below `data/`), or a data set's archive or the folder it was unpacked to.

    Returns: its path, or None where it is not on this machine.
    """
    ours = "/" in file
    if ours and (EMBEDDED / file).exists():
        return EMBEDDED / file
    for folder in filter(None, (own_folder(), cache_folder())):
        for candidate in (folder / file,) if ours else (folder / file, folder / Path(file).stem):
            if candidate.exists():
                return candidate
    return None


def whole(file: str, what: str) -> Any:
    """Give the path of a file of the book's own, whole as in the manifest, fetched where the package came without it.

    Args: what: who asks for what, for the messages.
    Raises: DataError where it differs from the manifest; DataUnavailable where it is not here and can't be fetched.
    """
    path, entry = find(file), manifest().get(file)
    if path and (entry is None or hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]):
        return record(path)
    if path and cache_folder() not in path.parents:  # what the cache holds may be of another version of the book
        raise DataError(f"{what}: {path} is damaged: its checksum differs from the manifest's")
    if entry and (source := origin()):
        return fetch(f"{source}/{file}", cache_folder() / file, entry["sha256"], entry["bytes"])
    raise DataUnavailable(
        f"{what} is not on this machine. It is data/{file} of the book's repository. Three ways to get it: "
        f"`git checkout data/{file}` in a clone; set CVLAB_DATA to the folder data of a clone that has it; or install "
        "cvlab by its address, `pip install --no-deps git+https://…`, so that it is fetched when it is asked for"
    )


def origin() -> Any:
    """Give the address of the folder `data` at the commit that pip installed cvlab from (PEP 610), else None."""
    try:
        noted = json.loads(metadata.distribution("cvlab").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return None
    url, commit = noted.get("url", "").removesuffix(".git"), noted.get("vcs_info", {}).get("commit_id")
    return f"{url}/raw/{commit}/data" if commit and url.startswith("https://") else None


def fetch(url: str, target: Any, sha256: str, limit: int | None, context: Any = None) -> Any:
    """Download a file over https with a progress bar; nothing is left behind unless all of it is right.

    Args: url: an https address. target: path of the file. sha256: its checksum. limit: the most bytes to accept.
        context: an ssl.SSLContext, where the system's own doesn't do.
    Raises: ValueError for an address that is not https; DataUnavailable where the network, the disk or the checksum
        says no.
    """
    from urllib.request import urlopen

    from tqdm.auto import tqdm

    if urlsplit(url).scheme != "https":
        raise ValueError(f"fetch: {url} is not an https address")
    target, part = Path(target), None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(url, timeout=30, context=context) as response:
            if urlsplit(response.url).scheme != "https":
                raise DataUnavailable(f"fetch: {url} leads to {response.url}, which is not https")
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
                part, digest, got = Path(out.name), hashlib.sha256(), 0
                total = int(response.headers.get("Content-Length") or 0) or None
                with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
                    while block := response.read(1 << 20):
                        got += len(block)
                        if got > limit:
                            raise DataUnavailable(f"fetch: {url} is larger than {limit:,} bytes; nothing was kept")
                        out.write(block)
                        digest.update(block)
                        bar.update(len(block))
        if digest.hexdigest() != sha256:
            raise DataUnavailable(f"fetch: {url} has another checksum than expected ({got:,} bytes); nothing was kept")
        os.replace(part, target)
    except OSError as error:
        raise DataUnavailable(f"fetch: {url} could not be saved as {target}: {error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target
