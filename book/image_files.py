"""Sphinx extension: images become files beside the page, which load as the reader comes near.

A notebook holds its figures, and all frames of its controls, as data: on Colab it stands alone. In a page that is most
of the weight, and nearly all of it lies further down or in frames that nobody asks for. So here each image becomes a
file in _images, named by what is in it. It works from a disk and below any address, and without JavaScript.
"""

import base64
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

EMBEDDED = re.compile(r'data:image/(?P<kind>png|jpeg|webp|svg\+xml)(?P<coded>;base64)?,(?P<data>[^"\\]+)')
SMALL = 400  # characters; less is not worth a request
TAG = re.compile(r'<img(?![^>]* loading=)(?=[^>]* src="[^"]*_images/)')
CHART = re.compile(r'(?<!tabindex="0">)<img class="dark-light cv-chart"[^>]* width="(\d+)"[^>]*>')
WIDE = 560  # CSS pixels; a chart that is wider keeps this width on a phone, where it scrolls


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, error):
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).glob("**/*.html"):
            move_images(page, Path(app.outdir, "_images"))


def move_images(page, folder):
    """Write the images that a page holds as data into `folder`, and let the page name them."""
    text = page.read_text(encoding="utf-8")
    beside = os.path.relpath(folder, page.parent).replace(os.sep, "/")

    def moved(found):
        if len(found[0]) < SMALL:
            return found[0]
        content = base64.b64decode(found["data"]) if found["coded"] else unquote_to_bytes(found["data"])
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{found['kind'].removesuffix('+xml')}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return f"{beside}/{name}"

    lighter = CHART.sub(scrolling, EMBEDDED.sub(moved, text))
    if first := re.search("<img", lighter):  # it may be in sight at once: to be lazy there would only delay it
        seen = first.end()
        lighter = lighter[:seen] + TAG.sub('<img loading="lazy" decoding="async"', lighter[seen:])
    if lighter != text:
        page.write_text(lighter, encoding="utf-8")


def scrolling(chart):
    """Put a wide chart into a box of its own, which pages.css lets scroll where there is little room."""
    if int(chart[1]) <= WIDE:
        return chart[0]
    return f'<div class="cv-wide" role="group" aria-label="Wide chart" tabindex="0">{chart[0]}</div>'
