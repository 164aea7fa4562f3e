"""The renderer makes the toybox's images again: masks the same, pixels all but the same.

`make test` runs this only where the renderer or an archive has changed since these tests passed (book/renderer.py).
"""

import importlib
import io
import json
import multiprocessing
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
TOYBOX = HERE.parent / "data" / "toybox"


def render_again(part, split, index, folder):
    """Render an image (a pair, in `eyes`) from nothing → instances, parts and the packed image of each."""
    sys.path.insert(0, str(HERE))
    render, pack = importlib.import_module("render"), importlib.import_module("pack")
    render.BUILD = folder
    render.start()
    shown = render.pictures(part, split, index)
    return [(one["instances"], one["parts"], pack.webp(one["image"], pack.QUALITY[part])) for one in shown]


def stored(part, split, index):
    """Read an image of the archive → instances, parts (S, S), pixels (S, S, 3)."""
    with zipfile.ZipFile(TOYBOX / f"{part}.zip") as archive:
        name = Path(json.loads(archive.read(f"{split}.json"))["images"][index]["file_name"])
        masks = [archive.read(f"{split}/{kind}/{name.with_suffix('.png')}") for kind in ("instances", "parts")]
        image = archive.read(f"{split}/images/{name}")
    return [*(np.asarray(Image.open(io.BytesIO(mask))) for mask in masks), pixels(image)]


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("part", "split", "index"), [("objects", "test", 7), ("eyes", "test", 4), ("pavement", "turned", 3)]
)
def test_rendering_again_gives_the_same_images(part, split, index, tmp_path):
    # In a process of its own: with TensorFlow loaded before it, Mitsuba crashes when the process ends.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        again = pool.submit(render_again, part, split, index, tmp_path).result()
    for offset, (instances, parts, image) in enumerate(again):
        old_instances, old_parts, old_image = stored(part, split, index + offset)
        assert (instances == old_instances).mean() >= 0.999
        assert (parts == old_parts).mean() >= 0.999
        assert np.abs(pixels(image) - old_image).mean() < 2
