"""The renderer makes the toybox's images again: masks the same, pixels all but the same.

`make test` runs this only where the renderer or an archive has changed since these tests passed (book/renderer.py).
"""

import importlib
import io
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


def render_again(part, split, index, folder, large=False):
    """Render an image (a pair, in `eyes`) from nothing → instances, parts, the packed image and the pixels of each."""
    sys.path.insert(0, str(HERE))
    render, pack, display = (importlib.import_module(name) for name in ("render", "pack", "display"))
    render.BUILD = folder
    render.start()
    quality = (display if large else pack).QUALITY[part]
    shown = render.pictures(part, split, index, large=large)
    return [(one["instances"], one["parts"], pack.webp(one["image"], quality), one["image"]) for one in shown]


def in_a_process(*arguments):
    """Call `render_again` in a process: with TensorFlow loaded before it, Mitsuba crashes when the process ends."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(render_again, *arguments).result()


def stored(part, split, index, large=False):
    """Read an image of the archive → instances, parts (S, S), pixels (S, S, 3)."""
    with zipfile.ZipFile(TOYBOX / ("display.zip" if large else f"{part}.zip")) as archive:
        below = f"{part}/{split}" if large else split
        name = Path(f"{index:05d}.webp")
        masks = [archive.read(f"{below}/{kind}/{name.with_suffix('.png')}") for kind in ("instances", "parts")]
        image = archive.read(f"{below}/images/{name}")
    return [*(np.asarray(Image.open(io.BytesIO(mask))) for mask in masks), pixels(image)]


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("part", "split", "index"), [("objects", "test", 7), ("eyes", "test", 4), ("pavement", "turned", 3)]
)
def test_rendering_again_gives_the_same_images(part, split, index, tmp_path):
    for offset, (instances, parts, image, _) in enumerate(in_a_process(part, split, index, tmp_path)):
        old_instances, old_parts, old_image = stored(part, split, index + offset)
        assert (instances == old_instances).mean() >= 0.999
        assert (parts == old_parts).mean() >= 0.999
        assert np.abs(pixels(image) - old_image).mean() < 2


def test_rendering_large_again_gives_the_same_pair_which_differs_in_its_eyes_alone(tmp_path):
    again = in_a_process("eyes", "test", 0, tmp_path, True)
    for offset, (instances, parts, image, _) in enumerate(again):
        old_instances, old_parts, old_image = stored("eyes", "test", offset, large=True)
        assert instances.shape == (640, 640)
        assert (instances == old_instances).mean() >= 0.999
        assert (parts == old_parts).mean() >= 0.999
        assert np.abs(pixels(image) - old_image).mean() < 2
    (_, parts, _, cat), (_, same_parts, _, dog) = again
    differ = (cat != dog).any(-1)
    assert (parts == same_parts).all()
    assert differ.any() and set(parts[differ]) == {2}, "the part eye, and no pixel elsewhere"
