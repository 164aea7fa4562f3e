"""Reduce the photographs of raccoons to what the book embeds, `data/photographs/raccoon_small.zip`.

    CVLAB_DATA=… python -m experiments.photographs    # some seconds; the folder must have raccoon.zip

All 200 photographs of Dat Tran's raccoon_dataset, with their names and boxes: the longer side has at most 320 pixels,
boxes are scaled with their photographs, and every photograph is encoded anew. The archive is in order and undated, so
that the same versions of Pillow and libjpeg give the same bytes. It is written whole or not at all, and its checksum
into the manifest; its card, `data/photographs/README.md`, is written by hand.
"""

import io
import os
import zipfile
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from cvlab import data, files
from cvlab.stores import Store

from .weights import _export

TARGET = files.EMBEDDED / "photographs" / "raccoon_small.zip"
LONGER_SIDE = 320  # pixels
QUALITY = 82  # of JPEG
MOST = 4_000_000  # bytes
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def reduce(image):
    """Reduce an image by area until its longer side has at most LONGER_SIDE pixels: (h, w, 3) uint8."""
    scale = LONGER_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (round(side * scale) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def jpeg(image):
    """Encode an image (h, w, 3) as JPEG, without any metadata."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=QUALITY, optimize=True)
    return content.getvalue()


def annotation(name, size, boxes):
    """Write an annotation in Pascal VOC's form, whose pixels count from 1.

    Args: name: of the image's file. size: (height, width) in pixels. boxes: (n, 4) xyxy, edges at pixel borders.
    """
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = name
    sides = ElementTree.SubElement(root, "size")
    for side, pixels in zip(("height", "width"), size):
        ElementTree.SubElement(sides, side).text = str(pixels)
    for box in boxes:
        thing = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(thing, "name").text = "raccoon"
        bounds = ElementTree.SubElement(thing, "bndbox")
        for corner, value in zip(CORNERS, box + [1, 1, 0, 0]):
            ElementTree.SubElement(bounds, corner).text = f"{value:.2f}"
    ElementTree.indent(root, "")
    return ElementTree.tostring(root)


def photographs(split):
    """Give the name of each photograph of a split, as `data.load` orders them, with its pixels and boxes."""
    part = data.load("raccoon", split)
    store = Store(files.find("raccoon.zip"))
    names = [name.split("/")[-1].removesuffix(".xml") for name in store.below("annotations", (".xml",))]
    names = [name for name in names if data._raccoon_split(name) == split]
    for name, image, boxes in zip(names, part.images, part.boxes, strict=True):
        if not (store.image(f"images/{name}.jpg") == image).all():
            raise SystemExit(f"photographs: {name}.jpg is not the image that data.load gives in its place")
        yield name, image, boxes


def archive():
    """Give the bytes of the archive: photographs, annotations and the licence."""
    entries = {"LICENSE": Store(files.find("raccoon.zip")).read("LICENSE")}
    for split in ("train", "val"):
        for name, image, boxes in photographs(split):
            small = reduce(image)
            factors = np.tile(np.divide(small.shape[1::-1], image.shape[1::-1]), 2)
            entries[f"images/{name}.jpg"] = jpeg(small)
            entries[f"annotations/{name}.xml"] = annotation(f"{name}.jpg", small.shape[:2], boxes * factors)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            out.writestr(info, entries[name])
    return content.getvalue()


def main():
    content = archive()
    if len(content) > MOST:
        raise SystemExit(f"photographs: the archive has {len(content):,} bytes, expected at most {MOST:,}")
    TARGET.parent.mkdir(exist_ok=True)
    partial = TARGET.with_name(f".{TARGET.name}")
    partial.write_bytes(content)
    os.replace(partial, TARGET)
    _export.enter(TARGET, "MIT")
    print(f"{TARGET}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
