"""Pack rendered pictures into archives with COCO annotations, and lay out contact sheets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import render
import toys

LICENCE = {"id": 1, "name": "CC-BY-4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
QUALITY = 91
COLOURS = [(0, 0, 0)] + [tuple(int(255 * c) for c in toys.PALETTE[k]) for k in ("red", "sky", "yellow", "green", "purple", "orange", "pink", "teal", "blue", "lime", "brown", "cream", "wood", "grey", "white", "black")]


def load(part: str, split: str, i: int) -> dict:
    """Read a rendered picture from the build directory."""
    with np.load(render.picture_file(part, split, i)) as z:
        return {k: z[k] for k in ("image", "instances", "parts", "semantic")} | {"meta": json.loads(z["meta"].tobytes())}


def webp(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


def indexed_png(mask: np.ndarray) -> bytes:
    """Encode a mask as an indexed PNG whose palette shows its values in colours."""
    image = Image.fromarray(mask, "P") if mask.dtype == np.uint8 else None
    palette = [c for k in range(int(mask.max()) + 1) for c in COLOURS[k % len(COLOURS)]]
    image.putpalette(palette)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def annotations(shown: dict, image_id: int, first_id: int) -> list[dict]:
    """Give COCO annotations of a picture's toys, with boxes tight around the visible pixels."""
    out = []
    for k, name in enumerate(shown["meta"]["classes"], 1):
        rows, columns = np.nonzero(shown["instances"] == k)
        x, y = int(columns.min()), int(rows.min())
        box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
        out.append({"id": first_id + len(out), "image_id": image_id, "category_id": toys.CLASSES.index(name), "bbox": box, "area": len(rows), "iscrowd": 0, "instance": k})
    return out


def archive(part: str, counts: dict[str, int]) -> bytes:
    """Put a part's splits into one zip file: stored, in order, without dates."""
    size = render.SIZES[part]
    semantic = part in ("scenes", "duck")
    classes = toys.CLASSES if part == "duck" else render.BASE
    files: dict[str, bytes] = {}
    for split, count in counts.items():
        images, boxes = [], []
        for i in range(count):
            shown = load(part, split, i)
            name = f"{i:05d}"
            files[f"{split}/images/{name}.webp"] = webp(shown["image"])
            for folder in ("instances", "parts", *(["semantic"] if semantic else [])):
                files[f"{split}/{folder}/{name}.png"] = indexed_png(shown[folder])
            images.append({"id": i, "file_name": f"{name}.webp", "width": size, "height": size, "license": 1, **shown["meta"]["extras"]})
            boxes += annotations(shown, i, len(boxes))
        info = {
            "description": f"The toybox, part {part}, split {split}", "version": "1.0", "year": 2026, "seed": render.MASTER_SEED,
            "contributor": "Advanced Computer Vision, an interactive textbook", "parts": toys.PARTS,
        }  # fmt: skip
        if semantic:
            info["semantic"] = ["floor", "wall", *classes]
        coco = {"info": info, "licenses": [LICENCE], "categories": [{"id": k, "name": c, "supercategory": "toy"} for k, c in enumerate(classes)], "images": images, "annotations": boxes}
        files[f"{split}.json"] = json.dumps(coco, separators=(",", ":")).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            z.writestr(entry, files[name])
    return out.getvalue()


def pack(part: str, folder: Path) -> None:
    """Write a part's archive, and its entry in the manifest where that lies beside the folder."""
    missing = [f"{split}/{i}" for split, n in render.COUNTS[part].items() for i in range(n) if not render.picture_file(part, split, i).exists()]
    if missing:
        raise SystemExit(f"pack: {part} lacks {len(missing)} pictures, the first is {missing[0]}; run render.py --part {part}")
    data = archive(part, render.COUNTS[part])
    render._save(folder / f"{part}.zip", lambda f: f.write(data))
    print(f"{folder / part}.zip: {len(data) / 1e6:.2f} MB")
    enter(folder.parent / "manifest.json", f"{folder.name}/{part}.zip", data)


def enter(manifest: Path, key: str, data: bytes, licence: str = "CC-BY-4.0") -> None:
    """Set one file's entry in the manifest and leave the others."""
    known = json.loads(manifest.read_text()) if manifest.exists() else {"files": {}}
    known["files"][key] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "licence": licence}
    known["files"] = dict(sorted(known["files"].items()))
    text = json.dumps(known, indent=2) + "\n"
    render._save(manifest, lambda f: f.write(text.encode()))


def tile(pictures: list[np.ndarray], columns: int, side: int, gap: int = 4, paper: int = 255) -> np.ndarray:
    """Lay pictures out in rows, each enlarged or reduced to `side` pixels."""
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), paper, np.uint8)
    for k, p in enumerate(pictures):
        y, x = gap + (k // columns) * (side + gap), gap + (k % columns) * (side + gap)
        sheet[y : y + side, x : x + side] = np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS))
    return sheet


def rendered(part: str, split: str) -> list[int]:
    return [i for i in range(render.COUNTS[part][split]) if render.picture_file(part, split, i).exists()]


if __name__ == "__main__":
    raise SystemExit("run render.py pack")
