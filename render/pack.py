"""Pack rendered pictures into archives with COCO annotations, and lay out contact sheets."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import toys
from PIL import Image, ImageDraw, ImageFont

import render

LICENCE = {"id": 1, "name": "CC-BY-4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
# Of lossy WebP; higher where a pair's pictures must differ in little but their eyes after it
QUALITY = {"objects": 88, "scenes": 82, "duck": 82, "eyes": 95, "pavement": 88}
HUES = ["red", "sky", "yellow", "green", "purple", "orange", "pink", "teal", *toys.ANY]
COLOURS = [(0, 0, 0)] + [tuple(int(255 * c) for c in toys.PALETTE[hue]) for hue in HUES]


def load(part: str, split: str, i: int) -> dict:
    """Read a rendered picture from the build directory."""
    with np.load(render.picture_file(part, split, i)) as z:
        return {k: z[k] for k in ("image", "instances", "parts", "semantic")} | {
            "meta": json.loads(z["meta"].tobytes())
        }


def webp(image: np.ndarray, quality: int) -> bytes:
    """Encode a picture."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", quality=quality, method=6)
    return out.getvalue()


def indexed_png(mask: np.ndarray) -> bytes:
    """Encode a mask as an indexed PNG whose palette shows its values in colours."""
    image = Image.frombytes("P", mask.shape[::-1], np.ascontiguousarray(mask, np.uint8).tobytes())
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
        out.append(
            {
                "id": first_id + len(out),
                "image_id": image_id,
                "category_id": toys.CLASSES.index(name),
                "bbox": box,
                "area": len(rows),
                "iscrowd": 0,
                "instance": k,
            }
        )
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
            files[f"{split}/images/{name}.webp"] = webp(shown["image"], QUALITY[part])
            for folder in ("instances", "parts", *(["semantic"] if semantic else [])):
                files[f"{split}/{folder}/{name}.png"] = indexed_png(shown[folder])
            images.append(
                {
                    "id": i,
                    "file_name": f"{name}.webp",
                    "width": size,
                    "height": size,
                    "license": 1,
                    **shown["meta"]["extras"],
                }
            )
            boxes += annotations(shown, i, len(boxes))
        info = {
            "description": f"The toybox, part {part}, split {split}",
            "version": "1.0",
            "year": 2026,
            "seed": render.MASTER_SEED,
            "contributor": "Advanced Computer Vision, an interactive textbook",
            "parts": toys.PARTS,
        }
        if semantic:
            info["semantic"] = ["floor", "wall", *classes]
        coco = {
            "info": info,
            "licenses": [LICENCE],
            "categories": [{"id": k, "name": c, "supercategory": "toy"} for k, c in enumerate(classes)],
            "images": images,
            "annotations": boxes,
        }
        files[f"{split}.json"] = json.dumps(coco, separators=(",", ":")).encode()
    return zipped(files)


def zipped(files: dict[str, bytes]) -> bytes:
    """Put files into a zip file: stored, in order, without dates."""
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
    missing = [
        f"{split}/{i}"
        for split, n in render.COUNTS[part].items()
        for i in range(n)
        if not render.picture_file(part, split, i).exists()
    ]
    if missing:
        raise SystemExit(
            f"pack: {part} lacks {len(missing)} pictures, the first is {missing[0]}; run render.py --part {part}"
        )
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
        sheet[y : y + side, x : x + side] = np.asarray(
            Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)
        )
    return sheet


def rendered(part: str, split: str) -> list[int]:
    """Say which pictures of a split are there."""
    return [i for i in range(render.pictures_in(part, split)) if render.picture_file(part, split, i).exists()]


def spread(part: str, split: str, count: int) -> list[int]:
    """Pick pictures evenly over a split (whole pairs where there are pairs)."""
    there = rendered(part, split)
    if render.is_pair(part, split):
        firsts = [i for i in there if i % 2 == 0]
        return [
            i + k
            for i in (firsts[j] for j in np.linspace(0, len(firsts) - 1, count // 2).round().astype(int))
            for k in (0, 1)
        ]
    return [there[j] for j in np.linspace(0, len(there) - 1, count).round().astype(int)]


SHEET = [
    ("objects", "train", 40),
    ("scenes", "train", 20),
    ("eyes", "train", 8),
    ("eyes", "test", 4),
    ("eyes", "mended_train", 4),
    ("pavement", "train", 8),
    ("pavement", "turned", 6),
    ("duck", "train", 4),
    ("duck", "test", 6),
]


def sheet(folder: Path) -> None:
    """Lay out the contact sheet of 100 pictures, and one scene with its boxes and masks."""
    chosen = [load(part, split, i)["image"] for part, split, count in SHEET for i in spread(part, split, count)]
    save_webp(folder / "contact_sheet.webp", tile(chosen, 10, 128), 88)
    i = max(rendered("scenes", "test"), key=lambda i: _interest(load("scenes", "test", i)))
    save_webp(folder / "scene.webp", explain(load("scenes", "test", i)), 92)


def _interest(shown: dict) -> float:
    """Score a scene for the figure: many classes and parts, well filled."""
    return (
        len(set(shown["meta"]["classes"])) + 0.5 * len(np.unique(shown["parts"])) + 2 * (shown["instances"] > 0).mean()
    )


def save_webp(path: Path, image: np.ndarray, quality: int) -> None:
    render._save(path, lambda f: Image.fromarray(image).save(f, "WEBP", quality=quality, method=6))


def paint(mask: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Colour a mask over a faint picture."""
    colours = np.array([COLOURS[k % len(COLOURS)] for k in range(256)])
    shade = 0.35 * base + 0.1 * 255
    return np.where(mask[..., None] > 0, 0.25 * base + 0.75 * colours[mask], shade).round().astype(np.uint8)


def explain(shown: dict, zoom: int = 3, gap: int = 8) -> np.ndarray:
    """Lay a scene beside its boxes, instance mask, part mask and semantic mask."""
    image = shown["image"]
    size = len(image) * zoom
    boxes = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(boxes)
    for a in annotations(shown, 0, 0):
        x, y, w, h = (v * zoom for v in a["bbox"])
        draw.rectangle((x, y, x + w - 1, y + h - 1), outline=(255, 255, 255), width=3)
        label = toys.CLASSES[a["category_id"]]
        font = ImageFont.load_default(size=16)
        _, _, wide, high = font.getbbox(label)
        top = max(y - high - 6, 0)
        draw.rectangle((x, top, x + wide + 8, top + high + 6), fill=(255, 255, 255))
        draw.text((x + 4, top + 1), label, fill=(20, 20, 20), font=font)
    panels = [np.asarray(boxes)]
    for name in ("instances", "parts", "semantic"):
        painted = paint(shown[name] + (name == "semantic"), image)
        panels.append(np.asarray(Image.fromarray(painted).resize((size, size), Image.Resampling.NEAREST)))
    white = np.full((size, gap, 3), 255, np.uint8)
    return np.hstack([x for p in panels for x in (p, white)][:-1])


def statistics(folder: Path) -> str:
    """Measure the packed archives: one line of a table a split."""
    lines = [
        "| part | split | pictures | toys | toy's share of the picture (5 %, median, 95 %) | classes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    part_pixels: dict[str, int] = {}
    for part in render.COUNTS:
        with zipfile.ZipFile(folder / f"{part}.zip") as z:
            for split in render.COUNTS[part]:
                coco = json.loads(z.read(f"{split}.json"))
                names = [c["name"] for c in coco["categories"]]
                share = np.percentile([a["area"] for a in coco["annotations"]], (5, 50, 95)) / render.SIZES[part] ** 2
                found = np.bincount([a["category_id"] for a in coco["annotations"]], minlength=len(names))
                listed = ", ".join(f"{n} {k}" for n, k in zip(names, found, strict=True) if k)
                lines.append(
                    f"| {part} | {split} | {len(coco['images'])} | {len(coco['annotations'])} "
                    f"| {share[0]:.3f}, {share[1]:.3f}, {share[2]:.3f} | {listed} |"
                )
                for name in z.namelist():
                    if name.startswith(f"{split}/parts/"):
                        for value in np.unique(np.asarray(Image.open(io.BytesIO(z.read(name))))):
                            part_pixels[toys.PARTS[value]] = part_pixels.get(toys.PARTS[value], 0) + 1
    parts = ", ".join(f"{p} {part_pixels.get(p, 0)}" for p in toys.PARTS[1:])
    return "\n".join([*lines, "", f"Pictures that show a part: {parts}."])


def card(folder: Path) -> None:
    """Write the measured table into the data card, between its two marks."""
    path = folder / "README.md"
    before, rest = path.read_text().split("<!-- measured -->")
    _, after = rest.split("<!-- /measured -->")
    archives = (folder / f"{name}.zip" for name in (*render.COUNTS, "display"))
    sizes = "".join(f"| `{path.name}` | {path.stat().st_size / 1e6:.2f} |\n" for path in archives)
    measured = f"{statistics(folder)}\n\n| archive | MB |\n| --- | --- |\n{sizes}"
    text = f"{before}<!-- measured -->\n{measured}<!-- /measured -->{after}"
    render._save(path, lambda f: f.write(text.encode()))
