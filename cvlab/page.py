"""Images and texts as a page holds them: nothing to fetch, small, and safe to put between tags."""

import base64
import hashlib
import html
import io
import os
import re
import sys
import zlib
from typing import Any
from urllib.parse import quote

import numpy as np

from .engine import drawings

DPI = 150  # pixels of a drawn inch, which takes 100 CSS pixels in the page


class Shown:
    """What a notebook shows: HTML for a page, and plain text for all else."""

    def __init__(self, page, plain):
        self.html, self.plain = page, plain

    def __repr__(self):
        return self.plain

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.plain}


def prose(text: str) -> str:
    """Escape a text for HTML; `this` becomes code and *this* is emphasised."""
    parts = re.split(r"`([^`]+)`", html.escape(str(text)))
    parts[1::2] = [f"<code>{code}</code>" for code in parts[1::2]]
    parts[::2] = [re.sub(r"\*(?=\S)([^*]+)(?<=\S)\*", r"<em>\1</em>", plain) for plain in parts[::2]]
    return "".join(parts)


def require(**texts: Any) -> None:
    """Raise ValueError where a text that every figure needs is missing."""
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{key} is {text!r}, expected a sentence: no figure goes without")


def identifier(prefix: str, name: str, *contents: Any) -> str:
    """Make an element's id from its name or else from its contents: the same in every run."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") if name else ""
    return f"{prefix}-{slug or hashlib.sha256(repr(contents).encode()).hexdigest()[:8]}"


def is_drawing(image: Any) -> bool:
    """Tell a matplotlib figure from an array, without importing matplotlib."""
    return hasattr(image, "savefig")


def pixels(image: Any) -> np.ndarray:
    """Turn a matplotlib figure, or an array as in `show.images`, into (H, W, 3 or 4) uint8.

    Raises: ValueError for another shape, dtype or range: what the values mean is not guessed.
    """
    from PIL import Image

    if is_drawing(image):
        drawn = Image.open(io.BytesIO(_save(image, format="png", dpi=DPI))).convert("RGB")
        few = drawn if any(ax.images for ax in image.axes) else drawn.quantize(64)  # a third of the size, and sharp
        return np.asarray(few.convert("RGB"))
    array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ValueError(f"image has shape {np.shape(image)}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        top = 1 if high <= 1.05 else 255  # interpolation overshoots a little
        if not (-0.05 * top <= low and high <= 1.05 * top) or 1.05 < high < 16:
            raise ValueError(f"image has values from {low:.4g} to {high:.4g}, expected 0 to 1 or 0 to 255")
        array = np.clip(array * (255 / top) + 0.5, 0, 255).astype("uint8")
    elif array.dtype != np.uint8:
        raise ValueError(f"image has dtype {array.dtype}, expected uint8, bool or float; convert with .astype('uint8')")
    return array.repeat(3, 2) if array.shape[2] == 1 else array


def webp(array: np.ndarray, lossless: bool | None = None) -> Any:
    """Encode (H, W, 3 or 4) uint8 as WebP; by default exactly where that is cheap: line art, small images."""
    from PIL import Image

    def encode(**options):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "WEBP", **options)
        return file.getvalue()

    exact = None if lossless is False else encode(lossless=True, method=4, exact=True)
    if lossless:
        return exact
    lossy = encode(quality=80, method=4)
    return exact if exact and len(exact) <= max(1.3 * len(lossy), 4096) else lossy


def img(image: Any, alt: str | None, lossless: bool | None = None, fill: bool = False, vector: bool = True) -> str:
    """Make the `<img>` element of an image; the pixels of small arrays become squares.

    Args: fill: take all the width there is. vector: drawings become SVG where that is smaller.
    """
    require(alt=alt)
    array = pixels(image)
    height, width = array.shape[:2]
    data, scale = webp(array, lossless), max(1, round(360 / width))
    source, kind = "data:image/webp;base64," + base64.b64encode(data).decode(), "dark-light"
    if is_drawing(image):
        scale = 100 / DPI
        if os.environ.get("CVLAB_FIGURES") == "strict" and (wrong := drawings.faults(image)):
            raise ValueError(f"figure: {'; '.join(wrong)}")
        chart = not any(ax.images for ax in image.axes)  # follows a dark page; what holds an image stays on white
        kind += " cv-chart" if chart else ""
        drawn = _save(image, format="svg", transparent=chart, metadata={"Date": None}).decode() if vector else ""
        if vector and len(zlib.compress(drawn.encode())) < len(data):
            drawn = re.sub(r"\s+", " ", drawn[drawn.index("<svg") :]).replace('"', "'")
            source = "data:image/svg+xml," + quote(drawn, safe=" !$&'()*+,-./:;=?@_~|[]")
    style = ("width:100%;" if fill else "max-width:100%;") + "height:auto" + ";image-rendering:pixelated" * (scale > 1)
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}" style="{style}"'
    return f'<img class="{kind}" alt="{html.escape(alt)}" {size} src="{source}">'


def _save(drawing, **options):
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(drawing)  # or the notebook shows it a second time, without a caption
    file = io.BytesIO()
    drawing.savefig(file, **options)
    return file.getvalue()
