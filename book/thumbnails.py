"""Sphinx extension: a card's thumbnail, cut from a figure of the lesson that the card leads to.

    ```{thumbnail} chapters/week1/localization
    :figure: trust
    :image: 1
    ```

It is a square from the middle of the figure's image, by default the first one of the first figure that has one. It
says nothing that the card's text doesn't, so it has an empty alt text.
"""

import base64
import io
import re
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from PIL import Image
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

SIDE = 96  # CSS pixels
QUALITY = 50
FIGURE = re.compile(r'<figure class="cv-figure[^"]*" id="fig-(?P<name>[^"]+)".*?</figure>', re.S)
IMAGE = re.compile(r'<img[^>]* src="data:image/(?:webp|png|jpeg);base64,([^"]+)"')
logger = logging.getLogger(__name__)


class Thumbnail(SphinxDirective):
    required_arguments = 1
    option_spec = {"figure": directives.unchanged_required, "image": directives.nonnegative_int}

    def run(self):
        name = self.arguments[0]
        lesson = Path(self.env.srcdir, f"{name}.ipynb")
        self.env.note_dependency(str(lesson))
        try:
            image = figure_image(nbformat.read(lesson, 4), self.options.get("figure"), self.options.get("image", 0))
        except (OSError, ValueError) as error:
            logger.warning("thumbnail of %s: %s", name, error, location=self.get_location())
            return []
        data = base64.b64encode(encode(image)).decode()
        place = f'width="{SIDE}" height="{SIDE}" loading="lazy" decoding="async"'
        tag = f'<img class="cv-thumbnail dark-light" alt="" {place} src="data:image/webp;base64,{data}">'
        return [nodes.raw("", tag, format="html")]


def setup(app):
    app.add_directive("thumbnail", Thumbnail)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def figure_image(notebook, figure=None, number=0):
    """Give an image of a figure in the outputs of a lesson, as a PIL image.

    Args: figure: its name, by default the first figure that has images; drawings in SVG don't count. number: which of
        its images, from 0.
    Raises: ValueError where there is none.
    """
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    names = []
    for found in FIGURE.finditer("".join("".join(data.get("text/html", "")) for data in outputs)):
        images = IMAGE.findall(found[0])
        if len(images) > number and figure in (None, found["name"]):
            return Image.open(io.BytesIO(base64.b64decode(images[number])))
        names += [found["name"]] * (len(images) > number)
    asked = "a figure" if figure is None else f"the figure {figure!r}"
    raise ValueError(f"expected {asked} with an image {number}, found {', '.join(names) or 'none'}")


def encode(image):
    """Cut the square in the middle of an image, and write it as WebP, two pixels for each CSS pixel of its place."""
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    smooth = Image.Resampling.LANCZOS if side >= 2 * SIDE else Image.Resampling.NEAREST  # pixels remain squares
    square = image.crop((left, top, left + side, top + side)).resize((2 * SIDE, 2 * SIDE), smooth)
    file = io.BytesIO()
    square.save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()
