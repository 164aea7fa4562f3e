"""Data sets: the embedded toybox, known photographs, and the reader's own pictures, through one door.

`load` looks beside the package (the toybox), then in the folder that the environment variable CVLAB_DATA names, then
in the cache, and then downloads: the book's own files from the commit that cvlab was installed from, others from the
data set's own home where that home offers a file with a known checksum.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .files import BOOK, EMBEDDED, DataError, DataUnavailable, cache_folder, fetch, find, manifest, record, whole

PHOTOGRAPHS = ("chelsea", "coffee", "camera")  # scikit-image's; ImageNet's classes: tiger cat, espresso, tripod
CATALOGUE = {  # name: (reader, file, splits, what it holds, licence, home)
    "objects": ("toybox", "toybox/objects.zip", ("train", "val", "test"), "one toy a picture, nine classes, 96×96"),
    "scenes": ("toybox", "toybox/scenes.zip", ("train", "val", "test"), "one to six toys a picture, 160×160"),
    "duck": ("toybox", "toybox/duck.zip", ("train", "test"), "scenes with rubber ducks, which no other part shows"),
    "eyes": ("toybox", "toybox/eyes.zip", ("train", "test", "mended_train", "mended_test"),
             "cats and dogs that differ in their eyes alone"),
    "pavement": ("toybox", "toybox/pavement.zip", ("train", "test", "turned", "mended_train"),
                 "cars that always stand on pavement, and the rule turned round"),
    "cifar10": ("folder", "cifar10.zip", ("train", "test"), "60,000 pictures, ten classes, 32×32",
                "no licence stated; for research", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "camvid": ("masks", "camvid.zip", ("train", "val", "test"), "street scenes with eleven classes and void, 480×360",
               "no licence stated; for research", "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"),
    "raccoon": ("voc", "raccoon.zip", ("train", "val"), "200 photographs of raccoons with boxes",
                "MIT", "https://github.com/datitran/raccoon_dataset"),
    "mnist": ("mnist", "mnist.npz", ("train", "val", "test"), "70,000 handwritten digits, 28×28",
              "CC BY-SA 3.0", "https://keras.io/api/datasets/mnist/"),
    "imagenet_samples": ("imagenet", "imagenet_samples.zip", ("train",), "150 photographs, one a class",
                         "ImageNet's terms", "https://www.image-net.org"),
}  # fmt: skip
OWN = {
    "folder": "a folder of pictures, <split>/<class>/picture.jpg or <class>/picture.jpg",
    "voc": "Pascal VOC, images/*.jpg (or JPEGImages) and annotations/*.xml (or Annotations)",
    "coco": "COCO, <split>.json (or annotations/<split>.json) and its pictures",
    "masks": "label maps, <split>/images/*.jpg, <split>/labels/*.png and classes.txt (the last class may be void)",
}
HOMES = {  # name: (address, bytes, sha256) of what can be downloaded
    "cifar10": ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    "mnist": ("https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz", 11_490_434,
              "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"),
}  # fmt: skip
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclasses.dataclass
class Dataset:
    """Pictures and what is known about them. What a data set does not have is None.

    Attributes:
        images: (N, H, W, 3) uint8; a list of (H, W, 3) where sizes differ.
        labels: (N,) int64 where a picture has one class; a list of (n,) int64, a class a box, where it has several.
        class_names: names in order of the label, from 0; background is no class.
        boxes: (N, 4) float32 or a list of (n, 4): [x_min, y_min, x_max, y_max] in pixels, edges at pixel borders.
        masks: (N, H, W) uint8; the toy's own pixels (1) where there is one toy, else each pixel's class; a list
            of (H, W) where sizes differ.
        mask_names: what the values of `masks` mean.
        instances: (N, H, W) uint8; 0 nothing, k the k-th box.
        parts, part_names: (N, H, W) uint8, 0 none, else the index into `part_names`.
        extras: further facts a picture, each an array of length N, such as "eyes_visible".
    """

    name: str
    split: str
    images: object
    labels: object = None
    class_names: tuple = ()
    boxes: object = None
    masks: object = None
    mask_names: tuple = ()
    instances: object = None
    parts: object = None
    part_names: tuple = ()
    extras: dict = dataclasses.field(default_factory=dict)

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        size = "{2}×{1}".format(*self.images.shape) if isinstance(self.images, np.ndarray) else "various sizes"
        return f"Dataset({self.name!r}, {self.split!r}: {len(self)} pictures, {size}, {len(self.class_names)} classes)"

    def take(self, indices):
        """Give the data set of the pictures at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)

        def pick(value):
            return value[indices] if isinstance(value, np.ndarray) else [value[i] for i in indices]

        changed = {k: pick(getattr(self, k)) for k in ("images", "labels", "boxes", "masks", "instances", "parts")
                   if getattr(self, k) is not None}  # fmt: skip
        return dataclasses.replace(self, **changed, extras={k: pick(v) for k, v in self.extras.items()})

    def draw(self, per_class, seed=0):
        """Draw `per_class` pictures of each class (all of a class that has no more); give their indices, sorted.

        Smaller draws are part of larger ones with the same seed.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        drawn = [order[self.labels[order] == label][:per_class] for label in range(len(self.class_names))]
        return np.sort(np.concatenate(drawn))

    def few(self, per_class, seed=0):
        """Give the data set of the pictures that `draw` draws."""
        return self.take(self.draw(per_class, seed))


def load(name, split="train", *, path=None, size=None, limit=None, classes=None):
    """Load one split of a data set.

    Args:
        name: a name from `available()`, or "folder", "voc", "coco" or "masks" for data of your own at `path`.
        split: e.g. "train", "val" or "test"; `describe(name)` lists them.
        path: folder or zip archive of your own data; only with "folder", "voc", "coco" and "masks".
        size: side in pixels; pictures are resized to size × size (by area), and masks by nearest neighbour.
        limit: read the first so many pictures only.
        classes: keep pictures of these class names only, numbered in this order (data with one class a picture).

    Returns:
        Dataset.

    Raises:
        ValueError: for an unknown name, split or option.
        DataUnavailable: where the data is not on this machine and can't be fetched.
        DataError: where it is damaged.
    """
    reader, store = _open(name, split, path)
    if size is not None and not (isinstance(size, int) and size > 0):
        raise ValueError(f"load: size={size!r}, expected a number of pixels, such as 32")
    data = READERS[reader](store, name, split, limit)
    if classes is not None:
        data = _only(data, classes)
    return data if size is None else _resize(data, size)


def splits(name, **options):
    """Load train, val and test, as `load` does. Of data without a val split, a tenth of train, drawn, becomes val.

    Returns: three Datasets.
    """
    train, test = (load(name, split, **options) for split in ("train", "test"))
    try:
        return train, load(name, "val", **options), test
    except (ValueError, DataError) as error:
        if "val" not in str(error):
            raise
    order = np.random.default_rng(0).permutation(len(train))
    held = max(1, len(train) // 10)
    val = dataclasses.replace(train.take(np.sort(order[:held])), split="val")
    return train.take(np.sort(order[held:])), val, test


def describe(name):
    """Say in a few lines what a data set holds, where it comes from, its licence, and where it lies here."""
    if name in OWN:
        return f"{name}: your own data, {OWN[name]}; load({name!r}, split, path=...)"
    _, file, splits, what, licence, home = _entry(name)
    return (f"{name}: {what}\nsplits: {', '.join(splits)}\nlicence: {licence}\nsource: {home}\n"
            f"here: {find(file) or 'not on this machine'}")  # fmt: skip


def available():
    """Give a dict of every known data set's name and where it lies on this machine (None where it doesn't)."""
    return {name: find(entry[1]) for name, entry in CATALOGUE.items()}


def weights(name):
    """Give the path of the book's weights, e.g. "efficientnet_lite0_imagenet", after comparing their checksum.

    Raises: ValueError for an unknown name; DataUnavailable or DataError as `load` does.
    """
    known = [key[8:-11] for key in manifest() if key.endswith(".weights.h5")]
    if name not in known:
        raise ValueError(f"weights: {name!r} is not among the embedded weights: {', '.join(sorted(known))}")
    return whole(f"weights/{name}.weights.h5", f"weights: {name}")


def results(name):
    """Give a committed measurement, `experiments/results/<name>.json`, as the dictionary that its script wrote."""
    path = BOOK / "experiments" / "results" / f"{name}.json"
    if not path.exists():
        raise DataUnavailable(f"results: {path} is missing; `python -m experiments.{name}` measures it")
    return json.loads(record(path).read_text(encoding="utf-8"))


def imagenet_classes():
    """Give the 1,000 ImageNet class names, in the order in which models number their outputs."""
    return tuple(name for _, name in _imagenet())


def photograph(name):
    """Give a public photograph of scikit-image's, `(H, W, 3)` uint8: "chelsea" (a cat), "coffee" or "camera"."""
    import skimage.data

    if name not in PHOTOGRAPHS:
        raise ValueError(f"photograph: {name!r} is not one of {', '.join(PHOTOGRAPHS)}")
    image = getattr(skimage.data, name)()
    return np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]


def centre_crop(image, short=256, size=224):
    """Resize a picture's shorter side to `short` and cut `size` × `size` pixels from its centre: ImageNet's usual view.

    Args: image: (H, W, 3) uint8. Returns: (size, size, 3) uint8.
    """
    import cv2

    scale = short / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def as_images(images, where):
    """Check that `images` are (N, H, W, 3), uint8 or float32, with at least one picture; give them as an array."""
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise ValueError(f"{where}: images are {images.dtype} of shape {images.shape}; expected uint8 or float32, "
                         "(N, H, W, 3) with N ≥ 1; images[None] makes a batch of one picture")  # fmt: skip
    return images


def _entry(name):
    if name not in CATALOGUE:
        raise ValueError(f"load: {name!r} is not a data set; there are {', '.join([*CATALOGUE, *OWN])}")
    return (*CATALOGUE[name], "CC BY 4.0", "this book")[:6]


def _open(name, split, path):
    """Give (reader, store) for a data set, fetching it where that is possible."""
    if name in OWN:
        if path is None:
            raise ValueError(f"load: {name!r} needs path=..., {OWN[name]}")
        if not (path := Path(path).expanduser()).exists():
            raise DataUnavailable(f"load: path={path} does not exist; expected {OWN[name]}")
        return name, _Store(path)
    reader, file, splits, what, _, home = _entry(name)
    if path is not None:
        raise ValueError(f"load: path={path!r} goes with {', '.join(OWN)}; {name!r} is found by name")
    if split not in splits:
        raise ValueError(f"load: {name!r} has no split {split!r}; it has {', '.join(splits)}")
    if reader == "toybox":
        return reader, _Store(whole(file, f"load: {name} ({what})"))
    if found := find(file):
        return reader, _Store(found)
    failed = None
    if name in HOMES:
        url, size, sha256 = HOMES[name]
        target = cache_folder() / url.rsplit("/", 1)[1]
        try:
            target = target if target.exists() else fetch(url, target, sha256, size)
            return ("cifar_binary", target) if name == "cifar10" else (reader, _Store(target))
        except DataUnavailable as error:
            failed = error
    raise DataUnavailable(
        f"load: {name} ({what}) is not on this machine{f', and {failed}' if failed else ''}. It comes from {home}. "
        f"Three ways to get it: put {file} (or its unpacked folder) into {cache_folder()}; set CVLAB_DATA to "
        "a folder that has it; or use the toybox, which comes with the book, in its place"
    ) from failed


class _Store:
    """Named files in a folder or a zip archive."""

    def __init__(self, path):
        self.path = path
        try:
            self.zip = None if path.is_dir() else zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a whole zip archive ({error}); fetch it again") from error
        entries = self.zip.namelist() if self.zip else (p.relative_to(path).as_posix() for p in path.rglob("*.*"))
        self.names = sorted(name for name in entries if not name.endswith("/"))

    def below(self, *folders, ends=PICTURES):
        """List the files with these endings below the first of `folders` that has any."""
        found = ([n for n in self.names if n.startswith(f"{folder}/" if folder else "") and n.lower().endswith(ends)]
                 for folder in folders)  # fmt: skip
        return next(filter(None, found), [])

    def read(self, name):
        try:
            return self.zip.read(name) if self.zip else (self.path / name).read_bytes()
        except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {name} can't be read ({error}); the archive may be damaged") from error

    def picture(self, name, mode="RGB"):
        from PIL import Image

        content = self.read(name)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.asarray(image if mode is None else image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self.path}: {name} is not a picture ({error})") from error

    def pictures(self, names, mode="RGB"):
        """Decode pictures on all cores; one array where their sizes agree, else a list."""
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(functools.partial(self.picture, mode=mode), names))
        return np.stack(images) if images and len({image.shape for image in images}) == 1 else images


def _toybox(store, name, split, limit):
    coco, infos, class_names, boxes, labels = _read_coco(store, f"{split}.json", limit)
    stems = [info["file_name"].rsplit("/", 1)[-1].rsplit(".", 1)[0] for info in infos]
    several = name in ("scenes", "duck")
    kinds = ("instances", "parts", "semantic") if several else ("instances", "parts")
    maps = {kind: store.pictures([f"{split}/{kind}/{stem}.png" for stem in stems], None) for kind in kinds}
    known = {"id", "file_name", "width", "height", "license"}
    extras = {key: np.array([info[key] for info in infos]) for key in infos[0] if key not in known}
    return Dataset(
        name, split, store.pictures([f"{split}/images/{stem}.webp" for stem in stems]),
        labels if several else np.concatenate(labels), class_names, boxes if several else np.concatenate(boxes),
        maps["semantic" if several else "instances"],
        tuple(coco["info"]["semantic"]) if several else ("elsewhere", "toy"),
        maps["instances"], maps["parts"], tuple(coco["info"]["parts"]), extras,
    )  # fmt: skip


def _folder(store, name, split, limit):
    tops = {f.split("/")[0] for f in store.below("") if f.count("/") >= 2}
    divided = bool(tops & {split, "train", "val", "test"})
    files = [f for f in store.below("") if f.count("/") > divided]
    class_names = _distinct(sorted({f.split("/")[divided] for f in files}), store.path)
    files = [f for f in files if (f.startswith(f"{split}/") if divided else _drawn(f) == split)][:limit]
    if not files:
        raise DataError(f"{store.path}: no pictures for split {split!r}; expected {OWN['folder']}")
    labels = np.array([class_names.index(f.split("/")[divided]) for f in files], np.int64)
    return Dataset(name, split, store.pictures(files), labels, class_names)


def _drawn(file):
    """Draw a file's split from its name: eight in ten train, one val, one test; the same on every machine."""
    tenth = int(hashlib.sha256(file.encode()).hexdigest(), 16) % 10
    return "val" if tenth == 0 else "test" if tenth == 1 else "train"


def _distinct(names, where):
    """Give class names as a tuple, where no two are the same but for capitals and spaces."""
    seen = {}
    for name in names:
        if (other := seen.setdefault(" ".join(name.split()).casefold(), name)) is not name or names.count(name) > 1:
            also = "" if other == name else f", also as {other!r}"
            raise DataError(f"{where}: has the class {name!r} twice{also}; give each class one name")
    return tuple(names)


def _cifar_binary(path, name, split, limit):
    """Read the archive of the data set's own home: records of a label and 3×32×32 bytes."""
    wanted = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    with tarfile.open(path) as tar:
        files = {Path(m.name).name: tar.extractfile(m).read() for m in tar
                 if Path(m.name).name in [*wanted, "batches.meta.txt"]}  # fmt: skip
    records = np.frombuffer(b"".join(files[file] for file in wanted), np.uint8).reshape(-1, 3073)[:limit]
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    class_names = tuple(files["batches.meta.txt"].decode().split())
    return Dataset(name, split, images, records[:, 0].astype(np.int64), class_names)


def _mnist(store, name, split, limit):
    """Read Keras' archive of arrays; `val` is the last 5,000 of its training pictures."""
    part = "test" if split == "test" else "train"
    rows = {"train": slice(-5000), "val": slice(-5000, None), "test": slice(None)}[split]
    try:
        images, labels = (np.load(io.BytesIO(store.read(f"{key}_{part}.npy")), allow_pickle=False)[rows][:limit]
                          for key in "xy")  # fmt: skip
    except (EOFError, ValueError) as error:
        raise DataError(f"{store.path} is not Keras' mnist.npz: {error}") from error
    return Dataset(name, split, images[..., None].repeat(3, -1), labels.astype(np.int64), tuple("0123456789"))


def _imagenet():
    with open(record(EMBEDDED / "imagenet_classes.csv"), newline="", encoding="utf-8") as file:
        return [(row["wnid"], row["name"]) for row in csv.DictReader(file)]


def _imagenet_samples(store, name, split, limit):
    index = {wnid: i for i, (wnid, _) in enumerate(_imagenet())}
    files = store.below("images")[:limit]
    labels = np.array([index[Path(file).name.split("_")[0]] for file in files], np.int64)
    return Dataset(name, split, store.pictures(files), labels, imagenet_classes())


def _masks(store, name, split, limit):
    """Read pictures with label maps, whose values are lines of classes.txt, counted from 0."""
    lines = store.read("classes.txt").decode().splitlines() if "classes.txt" in store.names else []
    names = _distinct([line.strip() for line in lines if line.strip()], f"{store.path}: classes.txt")
    if not names:
        raise DataError(f"{store.path}: no classes.txt with a class a line; expected {OWN['masks']}")
    if "void" in names[:-1]:
        raise DataError(f"{store.path}: classes.txt has void in line {names.index('void') + 1}, expected in the last")
    divided = not store.below("images")
    top = f"{split}/" if divided else ""
    files = [file for file in store.below(f"{top}images") if divided or _drawn(file) == split][:limit]
    if not files:
        raise DataError(f"{store.path}: no pictures for split {split!r}; expected {OWN['masks']}")
    maps = [f"{top}labels/{file[len(f'{top}images/') :].rsplit('.', 1)[0]}.png" for file in files]
    if missing := [pair for pair in zip(maps, files) if pair[0] not in store.names]:
        raise DataError("{}: no label map {} for {}".format(store.path, *missing[0]))
    images, masks = store.pictures(files), store.pictures(maps, None)
    for file, mask, image in zip(maps, masks, images, strict=True):
        if mask.ndim != 2:
            raise DataError(f"{store.path}: {file} is in colours, expected the number of a class at each pixel")
        if mask.shape != image.shape[:2]:
            raise DataError(f"{store.path}: {file} has {mask.shape[1]}×{mask.shape[0]} pixels, its picture "
                            f"{image.shape[1]}×{image.shape[0]}")  # fmt: skip
        if mask.max() >= len(names):
            raise DataError(f"{store.path}: {file} holds {mask.max()}, expected 0…{len(names) - 1}, as classes.txt has "
                            f"{len(names)} lines")  # fmt: skip
    masks = masks.astype(np.uint8) if isinstance(masks, np.ndarray) else [mask.astype(np.uint8) for mask in masks]
    return Dataset(name, split, images, class_names=names[:-1] if names[-1] == "void" else names, masks=masks,
                   mask_names=names)  # fmt: skip


def _voc(store, name, split, limit):
    """Read Pascal VOC, whose boxes count pixels from 1 and include the last one."""
    notes = {Path(f).stem: f for f in store.below("annotations", "Annotations", ends=(".xml",))}
    if not notes:
        raise DataError(f"{store.path}: no annotations; expected {OWN['voc']}")
    pictures = {Path(p).stem: p for p in store.below("images", "JPEGImages")}
    objects = {stem: _voc_objects(store, file) for stem, file in notes.items()}
    class_names = _distinct(sorted({label for each in objects.values() for label, _ in each}), store.path)
    lists = {s: f"ImageSets/Main/{s}.txt" for s in ("train", "val", "test")}
    listed = {s: store.read(file).decode().split() for s, file in lists.items() if file in store.names}
    if name == "raccoon":
        listed = {"train": [stem for stem in notes if int(stem.split("-")[1]) <= 160]}
        listed["val"] = sorted({*notes} - {*listed["train"]})
    chosen = [stem for stem in notes if (stem in listed.get(split, ()) if listed else _drawn(stem) == split)]
    if not (chosen := chosen[:limit]):
        raise DataError(f"{store.path}: no annotations for split {split!r}; {lists['train']} and its like list them")
    if missing := [stem for stem in chosen if stem not in pictures]:
        raise DataError(f"{store.path}: {notes[missing[0]]} has no picture {missing[0]}.jpg beside it")
    images, boxes = store.pictures([pictures[stem] for stem in chosen]), []
    for stem, image in zip(chosen, images, strict=True):
        found = np.array([box for _, box in objects[stem]], np.float32) - np.float32([1, 1, 0, 0])
        found[(found >= -1) & (found < 0)] = 0  # some tools count from 0
        boxes.append(_inside(found, image, f"{store.path}: a box of {pictures[stem]}"))
    labels = [np.array([class_names.index(label) for label, _ in objects[stem]], np.int64) for stem in chosen]
    return Dataset(name, split, images, labels, class_names, boxes)


def _voc_objects(store, file):
    """Read one annotation → [(class, [xmin, ymin, xmax, ymax]), …]."""
    from xml.etree import ElementTree

    content, corners = store.read(file), ("xmin", "ymin", "xmax", "ymax")
    try:
        found = [(o.findtext("name", "").strip(), [float(o.findtext(f"bndbox/{k}", "")) for k in corners])
                 for o in ElementTree.fromstring(content).iter("object")]  # fmt: skip
    except ElementTree.ParseError as error:
        raise DataError(f"{store.path}: {file} is not XML ({error})") from error
    except ValueError as error:
        raise DataError(f"{store.path}: an object of {file} lacks one of bndbox's {', '.join(corners)}") from error
    if not found or not all(label for label, _ in found):
        lacks = "an object of it has no name" if found else "it holds no object; take it out, or give it one"
        raise DataError(f"{store.path}: the annotation {file} is empty: {lacks}")
    return found


def _inside(boxes, image, what):
    """Check that boxes (n, 4) have a width and a height and lie in their picture, but for rounding; give them."""
    height, width = image.shape[:2]
    good = (boxes >= -0.01) & (boxes <= np.float32([width, height] * 2) + 0.01)
    good = good.all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not good.all():
        raise DataError(f"{what} is empty or outside its {width}×{height} pixels: {boxes[~good][0].tolist()}")
    return boxes


def _coco(store, name, split, limit):
    file = next((f for f in (f"{split}.json", f"annotations/{split}.json") if f in store.names), None)
    if file is None:
        raise DataError(f"{store.path}: no {split}.json; expected {OWN['coco']}")
    _, infos, class_names, boxes, labels = _read_coco(store, file, limit)
    places, files = {}, []
    for picture in store.below(""):
        places.setdefault(Path(picture).name, []).append(picture)
    for wanted in (info["file_name"] for info in infos):
        found = places.get(Path(wanted).name)
        if not found:
            raise DataError(f"{store.path}: {file} names the picture {wanted}, which is not there")
        files.append(max(found, key=lambda f: (f == wanted, f.endswith(f"/{wanted}"), split in Path(f).parts)))
    images = store.pictures(files)
    for found, image, picture in zip(boxes, images, files, strict=True):
        _inside(found, image, f"{store.path}: a box of {picture}")
    return Dataset(name, split, images, labels, class_names, boxes)


def _read_coco(store, file, limit):
    """Read a COCO file → (all of it, its pictures' entries, class names, and for each picture boxes and labels).

    A picture without annotations has no boxes; a file without any is taken for a mistake.
    """
    content = store.read(file)
    try:
        coco = json.loads(content)
    except ValueError as error:
        raise DataError(f"{store.path}: {file} is not JSON ({error})") from error
    try:
        categories = sorted(coco["categories"], key=lambda category: category["id"])
        number = {category["id"]: i for i, category in enumerate(categories)}
        infos, of_image, names = coco["images"][:limit], {}, [category["name"] for category in categories]
        for a in coco["annotations"]:
            x, y, width, height = a["bbox"]
            of_image.setdefault(a["image_id"], []).append((number[a["category_id"]], [x, y, x + width, y + height]))
        found = [of_image.get(info["id"], []) for info in infos]
    except (KeyError, TypeError, ValueError) as error:
        told = f"{store.path}: {file} has an empty or broken entry ({type(error).__name__}: {error}); expected images"
        raise DataError(f"{told}, categories, and annotations with image_id, category_id and bbox") from error
    if not of_image:
        raise DataError(f"{store.path}: {file} has no annotations")
    labels = [np.array([label for label, _ in each], np.int64) for each in found]
    boxes = [np.array([box for _, box in each], np.float32).reshape(-1, 4) for each in found]
    return coco, infos, _distinct(names, f"{store.path}: {file}"), boxes, labels


READERS = {"toybox": _toybox, "folder": _folder, "cifar_binary": _cifar_binary, "mnist": _mnist,
           "imagenet": _imagenet_samples, "masks": _masks, "voc": _voc, "coco": _coco}  # fmt: skip


def _only(data, classes):
    unknown = [c for c in classes if c not in data.class_names]
    if unknown:
        raise ValueError(f"load: classes={unknown[0]!r} is not a class of {data.name}: {', '.join(data.class_names)}")
    if not isinstance(data.labels, np.ndarray):
        raise ValueError(f"load: classes= goes with one class a picture; {data.name} has several")
    number = {data.class_names.index(c): i for i, c in enumerate(classes)}
    kept = data.take(np.flatnonzero(np.isin(data.labels, list(number))))
    labels = np.array([number[label] for label in kept.labels], np.int64)
    return dataclasses.replace(kept, labels=labels, class_names=tuple(classes))


def _resize(data, size):
    import cv2

    def scaled(images, method):
        return np.stack([cv2.resize(i, (size, size), interpolation=method) for i in images])

    changed = {key: scaled(getattr(data, key), cv2.INTER_NEAREST) for key in ("masks", "instances", "parts")
               if getattr(data, key) is not None}  # fmt: skip
    if data.boxes is not None:
        factors = [np.float32([size / i.shape[1], size / i.shape[0]] * 2) for i in data.images]
        boxes = [b * f for b, f in zip(data.boxes, factors, strict=True)]
        changed["boxes"] = np.stack(boxes) if isinstance(data.boxes, np.ndarray) else boxes
    return dataclasses.replace(data, images=scaled(data.images, cv2.INTER_AREA), **changed)
