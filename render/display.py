"""The images that the book's figures show, rendered again at 640 pixels: which they are, and their archive.

`python render/render.py display` renders what is not there yet, compares each image with the small one that networks
see, and packs them all into `data/toybox/display.zip`.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pack as packing
from PIL import Image

import render

# Of lossy WebP; higher where a pair's images must differ in little but their eyes after it
QUALITY = {"objects": 82, "scenes": 82, "duck": 82, "eyes": 90, "pavement": 82}
MOST = {"pixels": 12.0, "masks": 0.03, "boxes": 2.0}  # by which a large render may differ: see `differences`
# Of each split, those that matter most first; both images of a pair (`eyes`).
IMAGES: dict[str, list[int]] = {
    "scenes/test": [
        21,
        34,
        22,
        0,
        1,
        16,
        12,
        8,
        4,
        6,
        14,
        47,
        30,
        36,
        10,
        13,
        20,
        25,
        41,
        2,
        3,
        5,
        7,
        9,
        11,
        15,
        52,
        54,
        35,
    ],
    "eyes/test": [0, 1, 100, 101, 150, 151, 72, 73, 78, 79, 114, 115, 106, 107, 198, 199, 2, 3, 4, 5, 14, 15],
    "pavement/test": [1, 2, 0, 3, 4, 5, 14],
    "pavement/turned": [0, 2, 1, 3, 6, 7, 4],
    "duck/train": [0, 1, 2, 3, 4],
    "duck/test": [35, 37, 0, 1, 2, 3, 4],
    "objects/test": [7, 0, 1, 4, 470, 448, 77, *range(10, 20), 2, 3, 5, 6, 460, 178, 483, 32, 8, 9],
    "objects/train": [0, 1, 3, 5, 7, 8, 13, 16, 22],
    "eyes/mended_test": [0, 1, 2, 11, 5, 12, 8, 19, 15, 29, 44, 55, 3, 13, 14],
    "scenes/val": [0, 59],
    "pavement/train": [0, 1, 2, 3, 6, 7],
}


def jobs() -> list[tuple[str, str, int]]:
    """List (part, split, image) of all that are rendered large: the first of every split, then the second, …"""
    ordered = [(place, *name.split("/"), i) for name, numbers in IMAGES.items() for place, i in enumerate(numbers)]
    return [(part, split, i) for _, part, split, i in sorted(ordered, key=lambda job: job[0])]


def load(part: str, split: str, i: int) -> dict:
    """Read a large render from the build directory."""
    with np.load(render.picture_file(part, split, i, large=True)) as z:
        shown = {k: z[k] for k in ("image", "instances", "parts", "semantic")}
        return shown | {"meta": json.loads(z["meta"].tobytes())}


def differences(large: dict, small: dict) -> dict[str, float]:
    """Compare a large render with the small image of the same scene.

    Args: each with `image` (S, S, 3), `instances`, `parts` (S, S).

    Returns: `pixels`: mean difference of the image, averaged over the small one's pixels, in levels of 255; `masks`:
        share of pixels whose toy or part differs from that in the middle of their place in the large masks; `boxes`:
        largest difference of a side of a toy's box, in pixels of the small image.
    """
    size = len(small["image"])
    ratio = len(large["image"]) / size
    reduced = np.asarray(Image.fromarray(large["image"]).resize((size, size), Image.Resampling.BOX))
    at = ((np.arange(size) + 0.5) * ratio).astype(int)
    unlike = [(large[kind][np.ix_(at, at)] != small[kind]) for kind in ("instances", "parts")]
    sides = [
        abs(sides_of(large["instances"], k) / ratio - sides_of(small["instances"], k)).max()
        for k in range(1, 1 + int(small["instances"].max()))
    ]
    return {
        "pixels": float(np.abs(reduced - small["image"].astype(float)).mean()),
        "masks": float((unlike[0] | unlike[1]).mean()),
        "boxes": float(max(sides)),
    }


def sides_of(instances: np.ndarray, k: int) -> np.ndarray:
    """Give the box [x_min, y_min, x_max, y_max] around a toy's visible pixels."""
    rows, columns = np.nonzero(instances == k)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def archived(folder: Path, part: str) -> dict[str, bytes]:
    """Read a part's archive of small images: its files by name."""
    with zipfile.ZipFile(folder / f"{part}.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(folder: Path) -> None:
    """Check all large renders against the small images, and write their archive and its entry in the manifest."""
    files: dict[str, bytes] = {}
    worst = dict.fromkeys(MOST, 0.0)
    for name, numbers in IMAGES.items():
        part, split = name.split("/")
        small = archived(folder, part)
        coco = json.loads(small[f"{split}.json"])
        of_image = {info["id"]: info for info in coco["images"]}
        coco["info"]["description"] += f", rendered at {render.LARGE} pixels for figures"
        coco["images"], coco["annotations"] = [], []
        kinds = [kind for kind in ("instances", "parts", "semantic") if f"{split}/{kind}/00000.png" in small]
        for i in sorted(numbers):
            shown = load(part, split, i)
            seen = {"image": decoded(small[f"{split}/images/{i:05d}.webp"]).astype(np.uint8)}
            seen |= {kind: decoded(small[f"{split}/{kind}/{i:05d}.png"], "P") for kind in kinds}
            for what, value in differences(shown, seen).items():
                if value > MOST[what]:
                    raise SystemExit(
                        f"display: {name}/{i} does not show what its small image shows: {what} differ by {value:.3f}, "
                        f"expected at most {MOST[what]}"
                    )
                worst[what] = max(worst[what], value)
            files[f"{name}/images/{i:05d}.webp"] = packing.webp(shown["image"], QUALITY[part])
            for kind in kinds:
                files[f"{name}/{kind}/{i:05d}.png"] = packing.indexed_png(shown[kind])
            coco["images"].append(of_image[i] | {"width": render.LARGE, "height": render.LARGE})
            coco["annotations"] += packing.annotations(shown, i, len(coco["annotations"]))
        files[f"{name}.json"] = json.dumps(coco, separators=(",", ":")).encode()
    data = packing.zipped(files)
    render._save(folder / "display.zip", lambda f: f.write(data))
    packing.enter(folder.parent / "manifest.json", f"{folder.name}/display.zip", data)
    print(
        f"{folder / 'display.zip'}: {len(jobs())} images, {len(data) / 1e6:.2f} MB; most that one differs from its "
        f"small image: {worst}"
    )


def decoded(data: bytes, mode: str = "RGB") -> np.ndarray:
    """Decode an image: RGB pixels, or the values of an indexed one."""
    return np.asarray(Image.open(io.BytesIO(data)) if mode == "P" else Image.open(io.BytesIO(data)).convert(mode))
