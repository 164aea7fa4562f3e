"""`python -m cvlab data check PATH`: what a folder or archive of your own data holds, and all that is wrong with it.

The readers of `readers` list the images; here each is decoded, and what can't be used is collected rather than raised.
"""

import collections
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from . import readers
from .files import DataError
from .stores import SizeError, Store

NAMES = {"folder": "an image folder", "voc": "Pascal VOC", "coco": "COCO", "masks": "label maps"}
ROWS = {  # kind of a finding: what its row is called
    "unreadable": "unreadable files",
    "size": "sizes that disagree",
    "outside": "boxes empty or outside",
    "missing": "missing labels or images",
    "other": "other faults",
    "rare": "classes with fewer than ten images",
    "same": "duplicates",
    "near": "near-duplicates across splits",
}
FEW = 10  # images of a class
# Near-duplicates differ in at most so many of 64 bits, and so many of 255 grey levels on average. An image that varies
# by less than FLAT levels looks like nothing in particular.
NEAR_BITS, NEAR_LEVELS, FLAT = 8, 20, 2
NEAREST = 100  # so many that agree in the most bits are looked at


def check(path: str | Path | None, kind: str | None = None) -> int:
    """Print what a folder or archive holds and all that is wrong with it.

    Args:
        path: of the folder or zip archive.
        kind: a key of `readers.KINDS`; None to recognize it.

    Returns:
        The exit status: 0 where nothing is wrong, 1 where something is, 2 where the data can't be read at all.
    """
    for stream in (sys.stdout, sys.stderr):  # file names may hold what a terminal can't show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    path = Path(path).expanduser()
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist; expected a folder or a zip archive")
        store = Store(path)
        kinds = [kind] if kind else readers.recognize(store)
        if not kinds:
            raise DataError(
                "; ".join(
                    [
                        *store.faults,
                        f"{path} holds no data of a known kind; expected one of: "
                        f"{', or '.join(readers.KINDS.values())}",
                    ]
                )
            )
    except (DataError, OSError) as error:
        print(f"data check: {error}", file=sys.stderr)
        return 2
    statuses = [_check_kind(path, each) for each in kinds]
    return 0 if not any(statuses) else 2 if set(statuses) == {2} else 1


def _check_kind(path, kind):
    findings = {}  # (row, message), each once and in order

    def report(row, message):
        findings[row, str(message)] = None

    try:
        store = Store(path)
        for message in store.faults:
            report("unreadable", message)
        listing = readers.SCANS[kind](store, None, report)
        if not listing.entries:
            raise DataError(f"{path} holds no images that can be used; expected {readers.KINDS[kind]}")
    except DataError as error:
        for row, message in findings:
            print(f"{ROWS[row]}: {message}")
        print(f"data check: {error}", file=sys.stderr)
        return 2
    for file in listing.bare:
        report("missing", f"{store.where(file)}: nothing is annotated for this image")
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda entry: _examine(store, entry, listing), listing.entries))
    for image in images:
        for row, message in image["findings"]:
            report(row, message)
    counts = collections.Counter(name for image in images for name in image["classes"])
    for name in listing.class_names:
        if counts[name] < FEW:
            report("rare", f"{name}: {counts[name]} of {len(images):,} images")
    seen = [image for image in images if image["digest"]]
    for message in _duplicates(seen):
        report("same", message)
    for message in _near_duplicates([image for image in seen if np.std(image["levels"]) >= FLAT]):
        report("near", message)
    _print(path, kind, listing, images, findings)
    return 1 if findings else 0


def _examine(store, entry, listing):
    """Decode one image and what belongs to it → a dict of what the table and the comparisons need."""
    found = []

    def report(row, message):
        found.append((row, str(message)))

    told = {
        "file": entry.image,
        "split": entry.split,
        "label": entry.label,
        "findings": found,
        "digest": None,
        "classes": {label for label, _, _ in entry.objects} | ({entry.label} - {None}),
        "objects": collections.Counter(flag for _, _, flag in entry.objects),
    }
    mask = None
    if entry.map:
        try:
            mask = store.label_map(entry.map)
            if mask.ndim == 2:
                names = dict(enumerate(listing.class_names))
                told["classes"] = {names[value] for value in np.unique(mask).tolist() if value in names}
        except DataError as error:
            report("unreadable", error)
    try:
        try:
            image = store.image(entry.image, entry.declared)
            readers.check_boxes(store, entry, image, report)
        except SizeError as error:  # its boxes count other pixels
            report("size", error)
            image = store.image(entry.image)
    except DataError as error:
        report("unreadable", error)
        return told
    told |= {"digest": hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest(), **_looks(image)}
    if mask is not None:
        readers.check_map(store, entry, image, mask, listing.mask_names, report)
    return told


def _looks(image):
    """Describe what an image looks like, whatever its size and compression: where it gets brighter, and how bright."""
    import cv2

    small = cv2.resize(image.mean(-1, dtype=np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    return {"bits": np.where(small[:, 1:] > small[:, :-1], 1, -1).ravel(), "levels": small.ravel()}


def _duplicates(images):
    """Tell which images are the same to the pixel; across splits or classes is worst, but twice in one is wrong too."""
    groups = collections.defaultdict(list)
    for image in images:
        groups[image["digest"]].append(image)
    for group in groups.values():
        if len(group) > 1:
            yield f"{', '.join(_place(image) for image in group)} hold the same image"


def _near_duplicates(images):
    """Tell for each image which one of another split it resembles most, if any does."""
    splits = dict.fromkeys([*readers.SPLITS, *(image["split"] for image in images)])
    order = {split: place for place, split in enumerate(splits)}
    for split in order:
        ours = [image for image in images if image["split"] == split]
        others = [image for image in images if order[image["split"]] < order[split]]
        if not others:
            continue
        bits, levels = (np.array([image[key] for image in others], np.float32) for key in ("bits", "levels"))
        for image in ours:
            differing = (64 - bits @ image["bits"]) / 2
            near = [k for k in np.argsort(differing, kind="stable")[:NEAREST] if differing[k] <= NEAR_BITS]
            near = [k for k in near if np.abs(levels[k] - image["levels"]).mean() <= NEAR_LEVELS]
            near = [k for k in near if others[k]["digest"] != image["digest"]]  # those are duplicates
            if near:
                yield f"{_place(image)} resembles {_place(others[near[0]])}"


def _place(image):
    inside = f"{image['split']}/" in f"/{image['file']}"
    return image["file"] if inside else f"{image['file']} ({image['split']})"


def _print(path, kind, listing, images, findings):
    splits = list(dict.fromkeys([*readers.SPLITS, *(image["split"] for image in images)]))
    splits = [split for split in splits if any(image["split"] == split for image in images)]
    columns = [[image for image in images if image["split"] == split] for split in splits] + [images]
    boxes = kind in ("voc", "coco")
    print(f"{path}: {NAMES[kind]}\n")
    print(f"{'':36}" + "".join(f"{name:>10}" for name in [*splits, "all"]))
    rows = {"images": [len(column) for column in columns]}
    rows["classes"] = [len({name for image in column for name in image["classes"]}) for column in columns]
    for flag, name in ((None, "boxes"), (readers.CROWD, "crowd regions"), (readers.DIFFICULT, "difficult objects")):
        if boxes:
            rows[name] = [sum(image["objects"][flag] for image in column) for column in columns]
    for name, numbers in rows.items():
        print(f"{name:36}" + "".join(f"{number:>10,}" for number in numbers))
    found = collections.Counter(row for row, _ in findings)
    for row, name in ROWS.items():
        if row != "outside" or boxes:
            print(f"{name:36}{found[row]:>{10 * len(columns)},}")
    print()
    for row, name in ROWS.items():
        for message in (message for each, message in findings if each == row):
            print(f"{name}: {message}")
    for reason, files in listing.notes:
        for file in files:
            print(f"{reason}: {file}")
    print("nothing is wrong" if not findings else f"{len(findings):,} finding{'s' * (len(findings) > 1)}")
