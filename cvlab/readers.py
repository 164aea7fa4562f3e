"""Readers of a reader's own data: image folders, Pascal VOC, COCO, and label maps.

Each reader makes a `Listing` of a store: what there is, by image, before any image is decoded. Whatever can't be used
goes to `report(kind, message)`: `read` refuses it by a DataError, and `audit` collects it and goes on. The kinds are
"unreadable", "size", "outside", "missing" and "other".
"""

import collections
import dataclasses
import hashlib
import itertools
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from .files import DataError
from .stores import IMAGE_ENDINGS, TEXT_ENDINGS, fault

KINDS = {
    "folder": "a folder of images, <split>/<class>/image.jpg or <class>/image.jpg",
    "voc": "Pascal VOC, images/*.jpg (or JPEGImages) and annotations/*.xml (or Annotations)",
    "coco": "COCO, <split>.json (or annotations/<split>.json) and its images",
    "masks": "label maps, <split>/images/*.jpg, <split>/labels/*.png and classes.txt (the last class may be void)",
}
SPLITS = ("train", "val", "test")
ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
CROWD, DIFFICULT = "crowd", "difficult"  # what scores ignore; None for an object that counts
IMAGE_FOLDERS = ("images", "jpegimages")  # of Pascal VOC
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "unspecified")
SMALL = 100_000_000  # bytes: up to here, the classes of the other splits' COCO files are compared too


class NoSplit(DataError):
    """The data has no such split."""


@dataclasses.dataclass
class Entry:
    """What is known of one image before it is decoded.

    Attributes:
        image: its file.
        split: "train", "val", "test", or another that the data names.
        objects: (class, [x_min, y_min, x_max, y_max], None, CROWD or DIFFICULT), one a box.
        label: its class, in an image folder.
        map: the file of its label map.
        declared: (width, height, file that says so), or None.
    """

    image: str
    split: str
    objects: list = dataclasses.field(default_factory=list)
    label: str | None = None
    map: str | None = None
    declared: tuple | None = None


@dataclasses.dataclass
class Listing:
    """What a store holds.

    Attributes:
        entries: its images, one Entry each.
        class_names, mask_names: in order of the label.
        notes: (why files were passed over, which) each.
        bare: images that nothing is annotated for.
    """

    entries: list
    class_names: tuple
    mask_names: tuple = ()
    notes: list = dataclasses.field(default_factory=list)
    bare: list = dataclasses.field(default_factory=list)


def read(kind: str, store: Any, split: str, limit: int | None = None, choose: Any = None) -> Any:
    """Read one split of a store; refuse what can't be used.

    Args:
        kind: a key of KINDS.
        store: stores.Store.
        split: its name.
        limit: the number of images to read, or None.
        choose: a function of an annotation's stem that gives its split, where the data set has a rule of its own.

    Returns:
        A dict of the arguments of `data.Dataset` but for its name and split.

    Raises:
        NoSplit: where nothing belongs to the split. DataError: for what is broken.
    """
    if store.faults:
        raise fault(store.faults[0])
    wanted = canonical(split)
    options = {"choose": choose} if choose else {}
    listing = SCANS[kind](store, wanted, refuse, **options)
    entries = [entry for entry in listing.entries if entry.split == wanted][:limit]
    if not entries and any(canonical(folder) == wanted for folder in store.folders):
        raise fault(f"{store.path}: the folder of split {split!r} holds no images; expected {KINDS[kind]}")
    if not entries:
        raise fault(f"{store.path}: no images for split {split!r}; expected {KINDS[kind]}", NoSplit)
    images = store.images([entry.image for entry in entries], [entry.declared for entry in entries])
    bare = [("passed over, as nothing is annotated for them", listing.bare)] if listing.bare else []
    notes = tuple(f"{reason}: {_some(files)}" for reason, files in listing.notes + bare)
    columns = {"images": images, "class_names": listing.class_names, "notes": notes}
    if kind == "folder":
        number = {name: label for label, name in enumerate(listing.class_names)}
        return columns | {"labels": np.array([number[entry.label] for entry in entries], np.int64)}
    if kind == "masks":
        masks = store.label_maps([entry.map for entry in entries])
        for entry, image, mask in zip(entries, images, masks, strict=True):
            check_map(store, entry, image, mask, listing.mask_names, refuse)
        dtype = np.uint8 if len(listing.mask_names) <= 256 else np.uint16
        masks = masks.astype(dtype) if isinstance(masks, np.ndarray) else [mask.astype(dtype) for mask in masks]
        return columns | {"masks": masks, "mask_names": listing.mask_names}
    for entry, image in zip(entries, images, strict=True):
        check_boxes(store, entry, image, refuse)
    boxes, labels = _boxes(entries, listing.class_names, None)
    extras = {}
    for flag in (CROWD, DIFFICULT):
        extras[f"{flag}_boxes"], extras[f"{flag}_labels"] = _boxes(entries, listing.class_names, flag)
    return columns | {"boxes": boxes, "labels": labels, "extras": extras}


def refuse(_: str, message: str) -> NoReturn:
    """Raise DataError: the report of those who can't go on."""
    raise message if isinstance(message, DataError) else fault(message)


def recognize(store: Any) -> list[str]:
    """List the kinds of data that a store looks like, after going into the one folder that may hold it all."""
    kinds = []
    for kind in ("masks", "coco", "voc"):
        _unwrap(store, LOOKS[kind])
        if LOOKS[kind](store):
            kinds.append(kind)
    _unwrap(store, _looks_like_classes)
    divided = {f.split("/")[0] for f in _images(store) if f.count("/") >= 2 and canonical(f.split("/")[0]) in SPLITS}
    beside = {"images", "labels"} | {name.lower() for name in ("JPEGImages", "Annotations")}
    classes = any(f.split("/")[0] in divided and f.split("/")[1].lower() not in beside for f in _images(store))
    if classes or not kinds and any("/" in name for name in _images(store)):
        kinds.append("folder")
    return kinds


def canonical(split: str) -> str:
    """Give the one name of a split that data sets call by several, such as val for Validation."""
    lower = str(split).casefold()
    return ALIASES.get(lower, lower if lower in SPLITS else str(split))


def drawn(name: str) -> str:
    """Draw a file's split from its name: eight in ten train, one val, one test; the same on every machine."""
    tenth = int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), 16) % 10
    return "val" if tenth == 0 else "test" if tenth == 1 else "train"


def check_boxes(store: Any, entry: Any, image: np.ndarray, report: Callable) -> None:
    """Report boxes that have no width or height, or lie outside their image by more than rounding."""
    height, width = image.shape[:2]
    for _, box, _ in entry.objects:
        corners = np.array(box, np.float32)
        inside = (corners >= -0.01).all() and (corners <= np.float32([width, height] * 2) + 0.01).all()
        if not (inside and (corners[:2] < corners[2:]).all()):
            report(
                "outside",
                f"{store.path}: a box of {store.base}{entry.image} is empty or outside its "
                f"{width}×{height} pixels: {corners.tolist()}",
            )


def check_map(store: Any, entry: Any, image: np.ndarray, mask: np.ndarray, names: Any, report: Callable) -> None:
    """Report a label map that is in colours, of another size than its image, or holds an unknown class."""
    where = store.where(entry.map)
    if mask.ndim != 2:
        report("other", f"{where} is in colours, expected the number of a class at each pixel")
    elif mask.shape != image.shape[:2]:
        report(
            "size",
            f"{where} has {mask.shape[1]}×{mask.shape[0]} pixels, its image {entry.image} "
            f"{image.shape[1]}×{image.shape[0]}; give both one size, and no EXIF orientation",
        )
    elif mask.max() >= len(names) or mask.min() < 0:
        bad = mask.min() if mask.min() < 0 else mask.max()
        report("other", f"{where} holds {int(bad)}, expected 0…{len(names) - 1}, as classes.txt has {len(names)} lines")


# Image folders


def scan_folder(store: Any, wanted: str | None, report: Callable) -> Any:
    """List an image folder; `wanted` is the one split whose images matter, or None for all."""
    _unwrap(store, _looks_like_classes)
    files, known = _images(store), {*SPLITS, wanted}
    tops = {file.split("/")[0] for file in files if "/" in file}
    deep = [file.split("/")[:2] for file in files if file.count("/") >= 2]
    divided = any(canonical(top) in known for top, _ in deep) or {canonical(top) for top in tops} <= set(SPLITS)
    if not divided and (nested := sorted({f"{top}/{inner}" for top, inner in deep if canonical(inner) in SPLITS})):
        raise fault(
            f"{store.path}: the folders {_some(nested)} would mix the splits; give the path of one folder that "
            f"holds splits, or arrange it as {KINDS['folder']}"
        )
    depth = 1 if divided else 0  # of the class folders
    entries, apart = [], collections.Counter()
    for file in files:
        folders = file.split("/")[:-1]
        split = canonical(folders[0]) if divided and folders else drawn(file)
        if divided and (not folders or split not in known):
            apart[f"{folders[0]}/" if folders else file] += 1
        elif len(folders) > depth:
            entries.append(Entry(file, split, label=folders[depth]))
        elif not divided or wanted in (None, split):
            report("missing", f"{store.where(file)} lies in no class folder; expected {KINDS['folder']}")
    names = _distinct(sorted({entry.label for entry in entries}), store.path, report)
    notes = _passed_over(store, store.names)
    if apart:
        notes.append(("passed over, as they belong to no split", [f"{place} ({n:,})" for place, n in apart.items()]))
    for folder in store.folders:
        part, label = canonical(folder.split("/")[0]) if divided else wanted, folder.split("/")[-1]
        if folder.count("/") == depth and label not in names and part in (*known, None):
            notes.append(("passed over, as it holds no image", [f"{folder}/"]))
    return Listing(entries, names, notes=notes)


def _looks_like_classes(store):
    """Tell whether there are class folders or splits at the top, and not one folder that wraps them."""
    files = _images(store)
    tops = {file.split("/")[0] for file in files}
    wrapped = len(tops) == 1 and canonical(*tops) not in SPLITS and all(file.count("/") >= 2 for file in files)
    return not wrapped


# Pascal VOC


def scan_voc(store: Any, wanted: str | None, report: Callable, choose: Any = None) -> Any:
    """List Pascal VOC data, whose boxes count pixels from 1 and include the last one."""
    _unwrap(store, _looks_like_voc)
    notes = {}  # name below the annotations' folder, without its ending → file
    for file in store.below("", (".xml",)):
        folder, _, rest = file.partition("/")
        if folder.lower() == "annotations" and rest:
            if (name := _stem(rest)) in notes:
                report("other", f"{store.where(file)} and {notes[name]} are annotations of one name; take one out")
            notes[name] = file
    if not notes:
        deeper = sorted({folder for folder in store.folders if folder.lower().endswith("/annotations")})
        also = f" ({_some(deeper)} lie deeper: give the path of one folder)" if deeper else ""
        raise fault(f"{store.path}: no annotations{also}; expected {KINDS['voc']}")
    images = [file for file in _images(store) if "/" in file and file.split("/")[0].lower() in IMAGE_FOLDERS]
    by_stem = collections.defaultdict(list)
    for image in images:
        by_stem[_stem(image.rsplit("/", 1)[-1])].append(image)
    split_of, remarks = _voc_splits(store, notes, report, choose)
    entries, class_names, taken = [], set(), {}
    for name, file in notes.items():
        split = split_of.get(name)
        try:
            named, size, objects = _voc_annotation(store, file, report)
        except DataError as error:
            report("unreadable", error)
            continue
        class_names.update(label for label, _, _ in objects)
        if split is None or wanted not in (None, split):
            continue
        try:
            image = _voc_image(store, by_stem, name, file, named)
        except DataError as error:
            report("missing", error)
            continue
        if image in taken:
            report("other", f"{store.where(file)} and {taken[image]} both name the image {image}; correct one")
            continue
        taken[image] = file
        entries.append(Entry(image, split, objects, declared=None if size == (None, None) else (*size, file)))
    if not class_names:
        report("missing", f"{store.path}: no annotation has an object, from {[*notes.values()][0]} on; annotate some")
    names = _distinct(sorted(class_names), store.path, report)
    stems = {name.rsplit("/", 1)[-1] for name in notes}
    bare = [file for file in images if _stem(file.rsplit("/", 1)[-1]) not in stems and file not in taken]
    others = [file for file in store.names if not file.lower().endswith((".xml", ".txt"))]
    return Listing(entries, names, notes=remarks + _passed_over(store, others), bare=bare)


def _looks_like_voc(store):
    return any(folder.lower() == "annotations" for folder in store.folders) and bool(store.below("", (".xml",)))


def _voc_splits(store, notes, report, choose):
    """Give (a dict of each annotation's split, remarks): by the lists in ImageSets/Main, or drawn without any."""
    if choose:
        return {name: choose(name) for name in notes}, []
    lists, others = {}, []
    for file in store.below("ImageSets", (".txt",)):
        folders, name = file.split("/")[1:-1], canonical(_stem(file).rsplit("/", 1)[-1])
        if folders not in ([], ["Main"]):
            continue
        if name not in (*SPLITS, "trainval"):
            others.append(file)
        elif name in lists:
            report("other", f"{store.where(file)} and {lists[name][0]} are lists of one split; take one out")
        else:
            lists[name] = file, _voc_list(store, file, notes, report)
    if not lists and others:
        report(
            "other",
            f"{store.where(others[0])} is a list, but there is neither train.txt, val.txt, test.txt nor "
            "trainval.txt beside it; add these, or take the folder out",
        )
    if not lists:
        return {name: drawn(name) for name in notes}, []
    for one, other in itertools.combinations([split for split in SPLITS if split in lists], 2):
        if both := sorted(set(lists[one][1]) & set(lists[other][1])):
            report(
                "other",
                f"{store.where(lists[one][0])} and {lists[other][0]} both list {_some(both)}; an image "
                "belongs to one split",
            )
    split_of = {name: split for split in reversed(SPLITS) if split in lists for name in lists[split][1]}
    missing = [split for split in ("train", "val") if split not in lists]  # these are in trainval.txt
    for name in lists.get("trainval", (None, []))[1]:
        split_of.setdefault(name, missing[0] if len(missing) == 1 else "val" if drawn(name) == "val" else "train")
    unlisted = [name for name in notes if name not in split_of]
    return split_of, [("passed over, as no list names them", [notes[n] for n in unlisted])] if unlisted else []


def _voc_list(store, file, notes, report):
    """Read a list of images, one a line: names of annotations, with or without a folder and an ending."""
    by_stem = collections.defaultdict(list)
    for name in notes:
        by_stem[name.rsplit("/", 1)[-1]].append(name)
    found = {}
    try:
        lines = unicodedata.normalize("NFC", store.text(file)).splitlines()
    except DataError as error:
        report("unreadable", error)
        return []
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()):
            continue
        stem = line.replace("\\", "/")
        if not (stem in notes or stem in by_stem) and stem.lower().endswith((*IMAGE_ENDINGS, ".xml")):
            stem = _stem(stem)
        names = [stem] if stem in notes else by_stem.get(stem.rsplit("/", 1)[-1], [])
        if len(names) != 1:
            told = f"may be {' or '.join(notes[n] for n in names)}" if names else "has no annotation"
            report(
                "missing",
                f"{store.where(file)}: {_short(line)} in line {number} {told}; expected a name such as "
                f"{next(iter(notes))}",
            )
        elif names[0] in found:
            lines_of_it = f"lines {found[names[0]]} and {number}"
            report("other", f"{store.where(file)}: {_short(line)} is in {lines_of_it}; take one out")
        else:
            found[names[0]] = number
    if not found:
        report("missing", f"{store.where(file)} lists no image; expected one a line, such as {next(iter(notes))}")
    return list(found)


def _voc_annotation(store, file, report):
    """Read one annotation → (the image that it names or "", (width, height), objects as in Entry)."""
    root, where = store.xml(file), store.where(file)
    if root.tag != "annotation":
        raise fault(f"{where} begins with <{root.tag}>, expected the <annotation> of one image")
    objects, boxes = [], 0
    for thing in root.iter("object"):
        found = thing.findall("bndbox")
        boxes += len(found) + len(thing.findall("part/bndbox"))
        labels = [_clean(name.text or "") for name in thing.findall("name")]
        try:
            if len(labels) != 1 or not labels[0]:
                told = "several names" if any(labels) else "no name"
                raise fault(f"{store.path}: an object of {store.base}{file} has {told}; give it one <name>")
            if not found:
                raise fault(f"{store.path}: an object of {store.base}{file} has no bndbox; add one, or take it out")
            flag = DIFFICULT if _flag(thing.findtext("difficult"), f"{where}: difficult") else None
        except DataError as error:
            report("other", error)
            continue
        for box in found:
            try:
                x_min, y_min, x_max, y_max = (_corner(box, corner, store, file) for corner in CORNERS)
            except DataError as error:
                report("other", error)
                continue
            x_min, y_min = (0.0 if 0 <= low < 1 else low - 1 for low in (x_min, y_min))  # some tools count from 0
            objects.append((labels[0], [x_min, y_min, x_max, y_max], flag))
    if boxes != sum(element.tag.lower() == "bndbox" for element in root.iter()):
        report("other", f"{where} has a bndbox outside of an object; put it into an <object> with a <name>")
    size = []
    for side in ("width", "height"):
        try:
            size.append(_side(root.findtext(f"size/{side}"), f"{where}: {side}"))
        except DataError as error:
            report("size", error)
            size.append(None)
    return _clean(root.findtext("filename") or ""), tuple(size), objects


def _corner(box, corner, store, file):
    texts = [element.text for element in box.findall(corner)]
    value = _number(texts[0]) if len(texts) == 1 else None
    if value is None:
        found = "lacks one" if not texts else "has several" if len(texts) > 1 else f"has {_short(texts[0])} for one"
        raise fault(
            f"{store.path}: an object of {store.base}{file} {found} of bndbox's {', '.join(CORNERS)}; expected "
            "a number for each"
        )
    return value


def _voc_image(store, by_stem, name, file, named):
    """Find the image of an annotation: the one that it names, or else the one of its own name."""
    path = named.replace("\\", "/") or name
    stem = path.rsplit("/", 1)[-1]
    near = by_stem.get(_stem(stem), [])
    matches = [image for image in near if _same_place(image, path)]
    if not matches:  # an annotation may leave the ending out, and the one without <filename> does
        near = by_stem.get(stem) or near
        matches = [image for image in near if _same_place(_stem(image), path)]
    if len(matches) > 1:  # the one that lies in the images' folder as the annotation in its own
        matches = [image for image in matches if _stem(image.split("/", 1)[1]) == name] or matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise fault(f"{store.where(file)} may mean {' or '.join(matches)}; write the image's name into <filename>")
    if not named:
        raise fault(f"{store.where(file)} has no image {name}.jpg beside it; add it, or take the annotation out")
    near = near or by_stem.get(name.rsplit("/", 1)[-1], [])
    also = f" ({near[0]} is, but is it the same?)" if near else ""
    raise fault(f"{store.where(file)} names the image {named}, which is not there{also}; add it, or correct <filename>")


def _same_place(image, path):
    """Tell whether a path that an annotation names leads to an image, whatever folders lie above the two."""
    below = image.split("/", 1)[-1]  # without the folder of images
    return f"/{image}".endswith(f"/{path}") or any(f"/{path}".endswith(f"/{each}") for each in (image, below))


# COCO


def scan_coco(store: Any, wanted: str | None, report: Callable) -> Any:
    """List COCO data: of one split's file, or of all where `wanted` is None."""
    _unwrap(store, _looks_like_coco)
    files = collections.defaultdict(list)
    for file in _coco_files(store):
        files[_coco_split(file)].append(file)
    if wanted is not None and wanted not in files:
        also = f" (there are {_some(_coco_files(store))})" if files else ""
        raise fault(f"{store.path}: no {wanted}.json{also}; expected {KINDS['coco']}", NoSplit)
    chosen = [split for split in files if split in (*SPLITS, wanted)] or list(files)
    entries, names, taken = [], {}, {}
    for split in sorted(chosen, key=lambda split: split != wanted):
        file, *more = [file for file in files[split] if _stem(file.rsplit("/", 1)[-1]) == split] or files[split]
        if more and wanted in (None, split):
            report("other", f"{store.where(file)} and {more[0]} are annotations of one split; take one out")
        try:
            if wanted in (None, split):
                names[file], listed = _coco_file(store, file, split, report, taken)
                entries += listed
            elif store.size(file) < SMALL:
                names[file] = _coco_categories(store.json(file)["categories"], store.where(file), lambda *_: None)
        except (DataError, KeyError, TypeError) as error:
            if wanted in (None, split):
                report("unreadable", error)
    if not names:
        raise fault(f"{store.path}: no file of annotations can be read; expected {KINDS['coco']}")
    first, *others = names
    for other in others:
        if [*names[first].values()] != [*names[other].values()]:
            report(
                "other",
                f"{store.where(first)} numbers the classes {_some([*names[first].values()])}, but {other} "
                f"{_some([*names[other].values()])}; give all splits the same categories",
            )
    class_names = _distinct([*names[first].values()], store.where(first), report)
    bare = [file for file in _images(store) if file not in taken] if wanted is None else []
    return Listing(entries, class_names, notes=_passed_over(store, []), bare=bare)


def _coco_files(store):
    files = store.below("", (".json",))
    return [file for file in files if file.lower().count("/") == file.lower().startswith("annotations/")]


def _coco_split(file):
    """Give the split that a file of annotations is called by; COCO's own are such as instances_train2017.json."""
    return canonical(re.sub(r"^instances_|_?\d{4}$", "", _stem(file.rsplit("/", 1)[-1])))


def _looks_like_coco(store):
    """Tell whether a file of annotations is named like a split, or holds what COCO's do."""
    return any(_coco_split(file) in SPLITS or _has_annotations(store, file) for file in _coco_files(store))


def _has_annotations(store, file):
    try:
        content = store.json(file)
    except DataError:
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= set(content)


def _coco_file(store, file, split, report, taken):
    """Read a COCO file → (its class names by id, in order of the ids; its entries)."""
    content, where = store.json(file), store.where(file)
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in parts):
        raise fault(f"{where} has no lists of images, annotations and categories; expected a COCO file of instances")
    images, annotations, categories = parts
    names = _coco_categories(categories, where, report)
    if not annotations or not images:
        report("missing", f"{where} has no {'annotations' if images else 'images'}; write some, or take it out")
    entries, places = {}, collections.defaultdict(list)
    for image in _images(store):
        places[image.rsplit("/", 1)[-1]].append(image)
    for position, image in enumerate(images):
        try:
            key, named, declared = _coco_image(image, position, where, file)
            if key in entries:
                raise fault(f"{where}: images[{position}] has the id {key}, as another one has; give each its own")
            entries[key] = None  # its annotations are known to belong here, even where its file is missing
            place = _coco_place(store, places, named, split, where)
        except DataError as error:
            report("missing" if "which is not there" in str(error) else "other", error)
            continue
        if place in taken:
            also = "twice" if taken[place] == file else f"that {taken[place]} names too"
            report("other", f"{where} names the image {place} {also}; take one entry out")
            continue
        taken[place] = file
        entries[key] = Entry(place, split, declared=declared)
    for position, annotation in enumerate(annotations):
        try:
            key, found = _coco_annotation(annotation, position, where, entries, names)
            if entries[key]:
                entries[key].objects.append(found)
        except DataError as error:
            report("other", error)
    return names, [entry for entry in entries.values() if entry]


def _coco_categories(categories, where, report):
    names = {}
    for position, category in enumerate(categories if isinstance(categories, list) else []):
        key = _key(category.get("id")) if isinstance(category, dict) else None
        name = category.get("name") if isinstance(category, dict) else None
        if key is None or not isinstance(name, str) or not name.strip():
            report("other", f"{where}: categories[{position}] is {_short(category)}, expected an id and a name")
        elif key in names:
            report("other", f"{where}: categories[{position}] has the id {key}, as another one has; give each its own")
        else:
            names[key] = _clean(name)
    if not names:
        raise fault(f"{where} has no categories; expected a list of classes, each with an id and a name")
    return dict(sorted(names.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))


def _coco_image(image, position, where, file):
    """Give (id, file name, declared size) of an entry of COCO's images."""
    what = f"{where}: images[{position}]"
    if not isinstance(image, dict) or _key(image.get("id")) is None:
        raise fault(f"{what} is {_short(image)}, expected an object with an id (a number or a text) and a file_name")
    if not isinstance(named := image.get("file_name"), str) or not named.strip():
        raise fault(f"{what} has the file_name {_short(named)}, expected the name of an image below the same folder")
    size = [_side(image.get(side), f"{what}: {side}") for side in ("width", "height")]
    declared = None if size == [None, None] else (*size, file)
    return _key(image["id"]), unicodedata.normalize("NFC", named), declared


def _coco_place(store, places, named, split, where):
    """Find the image that COCO names, by the path from the top, or from any folder; the split's own comes first."""
    path = re.sub(r"^(\./)+", "", named.replace("\\", "/"))
    near = places.get(path.rsplit("/", 1)[-1], [])
    matches = [place for place in near if f"/{place}".endswith(f"/{path}") or f"/{path}".endswith(f"/{place}")]
    if path in matches and "/" in path:
        return path
    own = [place for place in matches if split in map(_coco_split, place.split("/")[:-1])]
    matches = own if own else [path] if path in matches else matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise fault(f"{where} names the image {named}, which may be {' or '.join(matches)}; name its folder too")
    also = f" ({near[0]} is, but is it the same?)" if near else ""
    raise fault(f"{where} names the image {named}, which is not there{also}; add it, or correct file_name")


def _coco_annotation(annotation, position, where, entries, names):
    """Give (id of the image, object as in Entry) of an entry of COCO's annotations."""
    what = f"{where}: annotations[{position}]"
    if not isinstance(annotation, dict):
        raise fault(f"{what} is {_short(annotation)}, expected an object with image_id, category_id and bbox")
    keys = []
    for field, known in (("image_id", entries), ("category_id", names)):
        value = annotation.get(field)
        if _key(value) is None or _key(value) not in known:
            listed = "images" if field == "image_id" else "categories"
            raise fault(f"{what} has the {field} {_short(value)}, but none of {listed} has that id; correct it")
        keys.append(_key(value))
    box = annotation.get("bbox")
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers or any(isinstance(value, str) for value in box):
        raise fault(f"{what} has the bbox {_short(box)}, expected a list of four numbers, [x, y, width, height]")
    x, y, width, height = numbers
    crowd, *hard = (_flag(annotation.get(k), f"{what}: {k}") for k in ("iscrowd", "ignore", "difficult"))
    flag = CROWD if crowd else DIFFICULT if any(hard) else None
    return keys[0], (names[keys[1]], [x, y, x + width, y + height], flag)


def _key(value):
    """Give an id as a number where it is one, also where it is written as text; None for what is no id."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"0|-?[1-9]\d{0,17}", value, re.ASCII) else value or None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# Label maps


def scan_masks(store: Any, wanted: str | None, report: Callable) -> Any:
    """List images with label maps, whose values are lines of classes.txt, counted from 0."""
    _unwrap(store, _looks_like_masks)
    names, files = _mask_names(store, report), _images(store)
    divided = not any(name.startswith("images/") for name in files)
    images, maps, apart = {}, {}, []  # (split's folder, name without its ending) → files
    for file in files:
        top, _, rest = file.partition("/") if divided else ("", "", file)
        kind, _, name = rest.partition("/")
        if kind in ("images", "labels") and name:
            (images if kind == "images" else maps).setdefault((top, _stem(name)), []).append(file)
        else:
            apart.append(file)
    entries = []
    for key in images:
        split = canonical(key[0]) if divided else drawn(images[key][0])
        expected = "/".join(filter(None, (key[0], "labels", f"{key[1]}.png")))
        if wanted in (None, split) and _is_pair(store, images[key], maps.get(key, []), expected, report):
            entries.append(Entry(images[key][0], split, map=maps[key][0]))
    for key in maps:
        if key not in images and (not divided or wanted in (None, canonical(key[0]))):
            report("missing", f"{store.where(maps[key][0])} is a label map of no image; add the image, or take it out")
    remarks = [("passed over, as they lie in neither images nor labels", apart)] if apart else []
    texts = [name for name in store.names if name != "classes.txt"]
    return Listing(entries, names[:-1] if names[-1] == "void" else names, names, remarks + _passed_over(store, texts))


def _is_pair(store, images, maps, expected, report):
    """Tell whether there are one image and one label map of a name; report what is wrong otherwise."""
    wrong = [file for file in maps if not file.lower().endswith(LOSSLESS)]
    if not maps:
        report("missing", f"{store.path}: no label map {store.base}{expected} for {store.base}{images[0]}; add it")
    elif wrong:
        report("other", f"{store.where(wrong[0])} is no label map, as its format changes values; save it as PNG")
    elif len(images) > 1:
        report("other", f"{store.where(images[0])} and {images[1]} have one label map, {maps[0]}; take one image out")
    elif len(maps) > 1:
        report("other", f"{store.where(maps[0])} and {maps[1]} are label maps of one image; take one out")
    return not wrong and len(images) == len(maps) == 1


def _looks_like_masks(store):
    named = any(name.split("/")[-1] == "classes.txt" for name in store.names)
    labels = any(folder.split("/")[-1] == "labels" and folder.count("/") <= 1 for folder in store.folders)
    return "classes.txt" in store.names or (labels and not named)


def _mask_names(store, report):
    lines = store.text("classes.txt").splitlines() if "classes.txt" in store.names else []
    names = [_clean(line) for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise fault(f"{store.path}: no classes.txt with a class a line; expected {KINDS['masks']}")
    if "" in names:
        report(
            "other",
            f"{store.where('classes.txt')}: line {names.index('') + 1} is empty, but lines number the "
            "classes; name a class in it, or take it out",
        )
    names = _distinct(names, store.where("classes.txt"), report)
    if "void" in names[:-1]:
        report(
            "other", f"{store.where('classes.txt')} has void in line {names.index('void') + 1}, expected in the last"
        )
    return names


SCANS = {"folder": scan_folder, "voc": scan_voc, "coco": scan_coco, "masks": scan_masks}
LOOKS = {"voc": _looks_like_voc, "coco": _looks_like_coco, "masks": _looks_like_masks}


# What several readers need


def _unwrap(store, looks_right):
    """Go into the one folder that holds everything, as archives often have it, if things look right in there."""
    before = store.base, store.names, store.folders
    while not looks_right(store):
        tops = {name.split("/")[0] for name in _images(store)} or {name.split("/")[0] for name in store.folders}
        if len(tops) != 1 or not tops <= set(store.folders):
            store.base, store.names, store.folders = before
            return
        store.enter(*tops)


def _images(store):
    """List the files that are taken for images: all but texts, so that an unknown format is refused and not lost."""
    return [
        name
        for name in store.names
        if not name.lower().endswith(TEXT_ENDINGS) and ("/" in name or name.lower().endswith(IMAGE_ENDINGS))
    ]


def _passed_over(store, files):
    """List the hidden files, and those of `files` that are no images, with the reason for not reading them."""
    images = set(_images(store))
    texts = [file for file in files if file not in images]
    lists = (("passed over, as hidden or metadata", store.hidden), ("passed over, as no images", texts))
    return [(reason, some) for reason, some in lists if some]


def _distinct(names, where, report):
    """Give class names as a tuple; report where two are the same but for capitals and spaces."""
    seen = {}
    for name in names:
        if (other := seen.setdefault(" ".join(name.split()).casefold(), name)) is not name or names.count(name) > 1:
            also = "" if other == name else f", also as {other!r}"
            report("other", f"{where}: has the class {name!r} twice{also}; give each class one name")
    return tuple(names)


def _boxes(entries, class_names, flag):
    """Give lists of the boxes (n, 4) and labels (n,) with this flag, one of each an image."""
    number = {name: label for label, name in enumerate(class_names)}
    chosen = [[(label, box) for label, box, own in entry.objects if own == flag] for entry in entries]
    boxes = [np.array([box for _, box in each], np.float32).reshape(-1, 4) for each in chosen]
    return boxes, [np.array([number[label] for label, _ in each], np.int64) for each in chosen]


def _number(value):
    """Give a finite float, or None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None


def _side(value, what):
    """Give a declared width or height as an int, None where it is not declared."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = _number(value)
    if number is None or number != int(number) or number < 0:
        raise fault(f"{what} is {_short(value)}, expected a number of pixels")
    return int(number)


def _flag(value, what):
    """Read a flag such as iscrowd or difficult."""
    text = "" if value is None else str(value).strip().lower()
    if not isinstance(value, (int, float, str, type(None))) or text not in ("", *NO, *YES):
        raise fault(f"{what} is {_short(value)}, expected 0 or 1")
    return text in YES


def _stem(name):
    """Take the ending off a name, and nothing off one that has none."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.rsplit('.', 1)[0] if '.' in file.lstrip('.') else file}"


def _clean(text):
    return unicodedata.normalize("NFC", text).strip()


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _some(items):
    """Name some of a list's items, and say how many there are."""
    names = ", ".join(str(item) for item in items[:3])
    return names if len(items) <= 3 else f"{names} … ({len(items):,})"
