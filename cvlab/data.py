"""Datasets: the embedded toybox, known photographs, and the reader's own images, through one door.

`load` looks beside the package (the toybox, and reduced photographs of raccoons), then in the folder that the
environment variable CVLAB_DATA names, then in the cache, and then downloads: the book's own files from the commit that
cvlab was installed from, others from the dataset's own home where that home offers a file with a known checksum.
"""

import collections
import csv
import dataclasses
import io
import json
import re
import sys
import tarfile
import unicodedata
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import readers
from .files import BOOK, EMBEDDED, DataError, DataUnavailable, cache_folder, fetch, find, manifest, record, whole
from .readers import NoSplit
from .stores import Store

PHOTOGRAPHS = ("chelsea", "coffee", "camera")  # scikit-image's; ImageNet's classes: tiger cat, espresso, tripod
CATALOGUE = {  # name: (reader, file, splits, what it holds, licence, home)
    "objects": ("toybox", "toybox/objects.zip", ("train", "val", "test"), "one toy an image, nine classes, 96×96"),
    "scenes": ("toybox", "toybox/scenes.zip", ("train", "val", "test"), "one to six toys an image, 160×160"),
    "duck": ("toybox", "toybox/duck.zip", ("train", "test"), "scenes with rubber ducks, which no other part shows"),
    "eyes": (
        "toybox",
        "toybox/eyes.zip",
        ("train", "test", "mended_train", "mended_test"),
        "cats and dogs that differ in their eyes alone",
    ),
    "pavement": (
        "toybox",
        "toybox/pavement.zip",
        ("train", "test", "turned", "mended_train"),
        "cars that always stand on pavement, and the rule turned round",
    ),
    "cifar10": (
        "folder",
        "cifar10.zip",
        ("train", "test"),
        "60,000 images, ten classes, 32×32",
        "no licence stated; for research",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "camvid": (
        "masks",
        "camvid.zip",
        ("train", "val", "test"),
        "street scenes with eleven classes and void, 480×360",
        "no licence stated; for research",
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    ),
    "raccoon": (
        "voc",
        "raccoon.zip",
        ("train", "val"),
        "200 photographs of raccoons with boxes",
        "MIT",
        "https://github.com/datitran/raccoon_dataset",
    ),
    "raccoon_small": (
        "voc",
        "photographs/raccoon_small.zip",
        ("train", "val"),
        "the same 200 photographs, longer side at most 320",
        "MIT",
        "https://github.com/datitran/raccoon_dataset",
    ),
    "mnist": (
        "mnist",
        "mnist.npz",
        ("train", "val", "test"),
        "70,000 handwritten digits, 28×28",
        "CC BY-SA 3.0",
        "https://keras.io/api/datasets/mnist/",
    ),
    "imagenet_samples": (
        "imagenet",
        "imagenet_samples.zip",
        ("train",),
        "150 photographs, one a class",
        "ImageNet's terms",
        "https://www.image-net.org",
    ),
}
DISPLAY = "toybox/display.zip"  # what figures show of the toybox, rendered at 640×640 pixels
ALIKE = 15  # levels of 255 by which, on average, an image may differ from its render: other images differ by far more
OWN = readers.KINDS
IGNORED = ("crowd_boxes", "crowd_labels", "difficult_boxes", "difficult_labels")
HOMES = {  # name: (address, bytes, sha256) of what can be downloaded
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        11_490_434,
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
}


@dataclasses.dataclass
class Dataset:
    """Images and what is known about them. What a dataset does not have is None.

    Attributes:
        images: (N, H, W, 3) uint8; a list of (H, W, 3) where sizes differ.
        labels: (N,) int64 where an image has one class; a list of (n,) int64, a class a box, where it has several.
        class_names: names in order of the label, from 0; background is no class.
        boxes: (N, 4) float32 or a list of (n, 4): [x_min, y_min, x_max, y_max] in pixels, edges at pixel borders.
        masks: (N, H, W) uint8, or uint16 with more than 256 classes; the toy's own pixels (1) where there is one toy,
            else each pixel's class; a list of (H, W) where sizes differ.
        mask_names: what the values of `masks` mean.
        instances: (N, H, W) uint8; 0 nothing, k the k-th box.
        parts, part_names: (N, H, W) uint8, 0 none, else the index into `part_names`.
        extras: further facts, each an array or a list of length N, such as "eyes_visible". Boxes of your own data come
            with "crowd_boxes", "crowd_labels", "difficult_boxes" and "difficult_labels", lists as `boxes` and `labels`
            are: regions and objects that `metrics.detection_scores` ignores when given them by these names.
        notes: what the reader of your own data passed over, and why.
        index, origin: (N,) int64, each image's index in the split that it was loaded from, and that split, such as
            "scenes/test"; subsets keep both. The index is -1 where images of several datasets were put together.
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
    notes: tuple = ()
    index: object = None
    origin: str = ""

    def __post_init__(self):
        if self.index is None:
            self.index = np.arange(len(self.images))
        elif len(self.index) != len(self.images):  # they were put together from several datasets
            self.index = np.full(len(self.images), -1)
        self.origin = self.origin or f"{self.name}/{self.split}"

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        size = "{2}×{1}".format(*self.images.shape) if isinstance(self.images, np.ndarray) else "various sizes"
        return f"Dataset({self.name!r}, {self.split!r}: {size}, {self.summary()})"

    def summary(self):
        """Say in one line what was read: "205 images, 2,805 boxes, 3 classes; 12 crowd regions ignored in scores"."""
        parts = [_count(len(self), "image")]
        if self.boxes is not None:
            parts.append(_count(sum(len(np.reshape(each, (-1, 4))) for each in self.boxes), "box"))
        ignored = []
        for key, noun in (("crowd_boxes", "crowd region"), ("difficult_boxes", "difficult object")):
            if number := sum(map(len, self.extras.get(key, ()))):
                ignored.append(_count(number, noun))
        told = [f"{', '.join(parts)}, {_count(len(self.class_names), 'class')}"]
        told += [f"{' and '.join(ignored)} ignored in scores"] * bool(ignored)
        return "; ".join([*told, *self.notes])

    def ignored(self):
        """Give what scores ignore, by the names of `metrics.detection_scores`: {} for data that has none of it."""
        return {key: value for key, value in self.extras.items() if key in IGNORED}

    def take(self, indices):
        """Give the dataset of the images at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)

        def pick(value):
            return value[indices] if isinstance(value, np.ndarray) else [value[i] for i in indices]

        changed = {
            k: pick(getattr(self, k))
            for k in ("images", "labels", "boxes", "masks", "instances", "parts", "index")
            if getattr(self, k) is not None
        }
        return dataclasses.replace(self, **changed, extras={k: pick(v) for k, v in self.extras.items()})

    def only(self, class_names):
        """Give the dataset with the boxes of these classes alone, numbered in this order; all images stay.

        Args: class_names: some of the dataset's.
        Raises: ValueError for a name that it doesn't have, and for data with one class an image.
        """
        if unknown := [name for name in class_names if name not in self.class_names]:
            raise ValueError(f"only: class_names has {unknown[0]!r}, expected some of {', '.join(self.class_names)}")
        if self.boxes is None or isinstance(self.labels, np.ndarray):
            raise ValueError(f"only: {self.name} has one class an image; load(..., classes=) chooses among those")
        number = np.full(len(self.class_names), -1)  # -1: not asked for
        number[[self.class_names.index(name) for name in class_names]] = range(len(class_names))
        extras = dict(self.extras)
        for kind in ("crowd", "difficult"):
            if f"{kind}_boxes" in extras:
                pair = extras[f"{kind}_boxes"], extras[f"{kind}_labels"]
                extras[f"{kind}_boxes"], extras[f"{kind}_labels"] = _numbered(*pair, number)
        kept, labels = _numbered(self.boxes, self.labels, number)
        return dataclasses.replace(self, boxes=kept, labels=labels, class_names=tuple(class_names), extras=extras)

    def draw(self, per_class, seed=0):
        """Draw `per_class` images of each class (all of a class that has no more); give their indices, sorted.

        Smaller draws are part of larger ones with the same seed.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        drawn = [order[self.labels[order] == label][:per_class] for label in range(len(self.class_names))]
        return np.sort(np.concatenate(drawn))

    def few(self, per_class, seed=0):
        """Give the dataset of the images that `draw` draws."""
        return self.take(self.draw(per_class, seed))

    def display(self, indices: Sequence[int] | None = None, size: int = 640) -> list:
        """Give images as figures show them: rendered at 640×640 pixels where such a render exists.

        Where it doesn't (other datasets, other images of the toybox, images that were changed since they were loaded),
        the dataset's image is given as it is.

        Args:
            indices: of images of this dataset, in any order; by default all.
            size: side in pixels that renders are reduced to, such as 320 for the many frames of a control.

        Returns:
            A list of (H, W, 3) uint8.
        """
        return _display_images(self, range(len(self)) if indices is None else indices, size)


def load(
    name: str,
    split: str = "train",
    *,
    path: str | Path | None = None,
    size: int | None = None,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    display: bool = False,
) -> Dataset:
    """Load one split of a dataset.

    Args:
        name: a name from `available()`, or "folder", "voc", "coco" or "masks" for data of your own at `path`.
            "raccoon_small" comes with the book: the photographs of "raccoon" with the same splits, reduced to at most
            320 pixels. Neither stands in for the other; "raccoon" is found only where its archive is.
        split: e.g. "train", "val" or "test"; `describe(name)` lists them.
        path: folder or zip archive of your own data; only with "folder", "voc", "coco" and "masks".
        size: side in pixels; images are resized to size × size by area; a pixel of the masks gets
            the label that covers most of it.
        limit: read the first so many images only.
        classes: keep images of these class names only, numbered in this order (data with one class an image).
        display: load the images that were rendered again at 640×640 pixels for figures, with boxes and masks at that
            size, in place of the whole split; `index` tells which they are.

    Returns:
        Dataset.

    Raises:
        ValueError: for an unknown name, split or option.
        DataUnavailable: where the data is not on this machine and can't be fetched.
        DataError: where it is damaged.
    """
    reader, store = _open(name, split, path)
    if display:
        store, _ = _open_display(f"{name}/{split}", "load")
        store.enter(name)
    for option, value, example in (("size", size, "pixels, such as 32"), ("limit", limit, "images, such as 100")):
        if value is not None and not (isinstance(value, (int, np.integer)) and value > 0):
            raise ValueError(f"load: {option}={value!r}, expected a number of {example}")
    data = READERS[reader](store, name, split, limit)
    if name in OWN:
        print(f"{store.path}, {split}: {data.summary()}", file=sys.stderr)
    if classes is not None:
        data = _only(data, classes)
    return data if size is None else _resize(data, size)


def display(part: str, index: int) -> np.ndarray:
    """Give an image of the toybox as figures show it, rendered at 640×640 pixels from the same seed.

    Args:
        part: a part of the toybox and its split, such as "scenes/test".
        index: the image's index in that split.

    Returns:
        (640, 640, 3) uint8.

    Raises:
        ValueError: for a part, or an image, that was not rendered at this size.
        DataUnavailable: where the renders are not on this machine and can't be fetched.
        DataError: where they are damaged.
    """
    store, files = _open_display(part, "display")
    if index not in files:
        rendered = ", ".join(map(str, files))
        raise ValueError(f"display: index={index!r} of {part} is not rendered at 640 pixels; these are: {rendered}")
    return store.image(files[index])


def splits(name: str, **options: Any) -> Any:
    """Load train, val and test, as `load` does. Of data without a val split, a tenth of train, drawn, becomes val.

    Returns: three Datasets.
    """
    train, test = (load(name, split, **options) for split in ("train", "test"))
    try:
        if name not in CATALOGUE or "val" in CATALOGUE[name][2]:
            return train, load(name, "val", **options), test
    except NoSplit:  # and nothing else: damage in val must not pass for its absence
        pass
    if len(train) < 2:
        raise DataError(f"splits: {name} has no split 'val', and {len(train)} image to train on; give it two or more")
    order = np.random.default_rng(0).permutation(len(train))
    held = max(1, len(train) // 10)
    val = dataclasses.replace(train.take(np.sort(order[:held])), split="val")
    return train.take(np.sort(order[held:])), val, test


def describe(name: str) -> Any:
    """Say in a few lines what a dataset holds, where it comes from, its licence, and where it lies here."""
    if name in OWN:
        return f"{name}: your own data, {OWN[name]}; load({name!r}, split, path=...)"
    _, file, splits, what, licence, home = _entry(name)
    return (
        f"{name}: {what}\nsplits: {', '.join(splits)}\nlicence: {licence}\nsource: {home}\n"
        f"here: {find(file) or 'not on this machine'}"
    )


def available() -> Any:
    """Give a dict of every known dataset's name and where it lies on this machine (None where it doesn't)."""
    return {name: find(entry[1]) for name, entry in CATALOGUE.items()}


def weights(name: str) -> Path:
    """Give the path of the book's weights, e.g. "efficientnet_lite0_imagenet", after comparing their checksum.

    Raises: ValueError for an unknown name; DataUnavailable or DataError as `load` does.
    """
    known = [key[8:-11] for key in manifest() if key.endswith(".weights.h5")]
    if name not in known:
        raise ValueError(f"weights: {name!r} is not among the embedded weights: {', '.join(sorted(known))}")
    return whole(f"weights/{name}.weights.h5", f"weights: {name}")


def results(name: str) -> dict:
    """Give a committed measurement, `experiments/results/<name>.json`, as the dictionary that its script wrote."""
    path = BOOK / "experiments" / "results" / f"{name}.json"
    if not path.exists():
        raise DataUnavailable(f"results: {path} is missing; `python -m experiments.{name}` measures it")
    try:
        return json.loads(record(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"results: {path} is not JSON ({error}); `git checkout {path}` brings it back") from error


def imagenet_classes() -> Any:
    """Give the 1,000 ImageNet class names, in the order in which models number their outputs."""
    return tuple(name for _, name in _imagenet())


def photograph(name: str) -> np.ndarray:
    """Give a public photograph of scikit-image's, `(H, W, 3)` uint8: "chelsea" (a cat), "coffee" or "camera"."""
    import skimage.data

    if name not in PHOTOGRAPHS:
        raise ValueError(f"photograph: {name!r} is not one of {', '.join(PHOTOGRAPHS)}")
    image = getattr(skimage.data, name)()
    return np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]


def centre_crop(image: np.ndarray, short: int = 256, size: int | None = 224) -> np.ndarray:
    """Resize an image's shorter side to `short` and cut `size` × `size` pixels from its centre: ImageNet's usual view.

    Args: image: (H, W, 3) uint8. Returns: (size, size, 3) uint8.
    """
    import cv2

    scale = short / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def as_images(images: np.ndarray, where: str) -> np.ndarray:
    """Check that `images` are (N, H, W, 3), uint8 or float32, with at least one image; give them as an array."""
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise ValueError(
            f"{where}: images are {images.dtype} of shape {images.shape}; expected uint8 or float32, "
            "(N, H, W, 3) with N ≥ 1; images[None] makes a batch of one image"
        )
    return images


def _entry(name):
    if name not in CATALOGUE:
        raise ValueError(f"load: {name!r} is not a dataset; there are {', '.join([*CATALOGUE, *OWN])}")
    return (*CATALOGUE[name], "CC BY 4.0", "this book")[:6]


def _open(name, split, path):
    """Give (reader, store) for a dataset, fetching it where that is possible."""
    if name in OWN:
        if path is None:
            raise ValueError(f"load: {name!r} needs path=..., {OWN[name]}")
        if not (path := Path(path).expanduser()).exists():
            raise DataUnavailable(f"load: path={path} does not exist; expected {OWN[name]}")
        return name, Store(path)
    reader, file, splits, what, _, home = _entry(name)
    if path is not None:
        raise ValueError(f"load: path={path!r} goes with {', '.join(OWN)}; {name!r} is found by name")
    if split not in splits:
        raise ValueError(f"load: {name!r} has no split {split!r}; it has {', '.join(splits)}")
    if "/" in file:  # one of the book's own archives
        return reader, Store(whole(file, f"load: {name} ({what})"))
    if found := find(file):
        return reader, Store(found)
    failed = None
    if name in HOMES:
        url, size, sha256 = HOMES[name]
        target = cache_folder() / url.rsplit("/", 1)[1]
        try:
            target = target if target.exists() else fetch(url, target, sha256, size)
            return ("cifar_binary", target) if name == "cifar10" else (reader, Store(target))
        except DataUnavailable as error:
            failed = error
    raise DataUnavailable(
        f"load: {name} ({what}) is not on this machine{f', and {failed}' if failed else ''}. It comes from {home}. "
        f"Three ways to get it: put {file} (or its unpacked folder) into {cache_folder()}; set CVLAB_DATA to "
        "a folder that has it; or use the toybox, which comes with the book, in its place"
    ) from failed


def _open_display(part, where=None):
    """Give the archive of large renders, and {index: file} of those of a part of the toybox.

    Where it has none of that part, `where` names the function that complains.
    """
    store = Store(whole(DISPLAY, f"{where or 'display'}: the toybox at 640 pixels"))
    files = {int(Path(file).stem): file for file in store.below(f"{part}/images")}
    if where and not files:
        parts = ", ".join(sorted({"/".join(file.split("/")[:2]) for file in store.below("")}))
        raise ValueError(f"{where}: no image of {part!r} is rendered at 640 pixels; there are renders of {parts}")
    return store, files


def _display_images(data, indices, size):
    """Give the large render of each image, and the image itself where there is none: see `Dataset.display`."""
    images = [data.images[i] for i in indices]
    if CATALOGUE.get(data.origin.split("/")[0], ("",))[0] != "toybox":
        return images
    try:
        store, files = _open_display(data.origin)
    except DataUnavailable as error:
        warnings.warn(f"figures show the small images that networks see. {error}", stacklevel=3)
        return images
    for place, number in enumerate(np.asarray(data.index)[indices].tolist()):
        if number in files:
            render = store.image(files[number])
            if _looks_like(render, images[place]):
                images[place] = render if size >= len(render) else _reduce(render, (size, size))
    return images


def _looks_like(render, image):
    """Tell whether an image still shows, pixel by pixel, what its large render shows."""
    return np.abs(_reduce(render, image.shape[1::-1]) - np.float32(image)).mean() < ALIKE


def _reduce(image, size):
    import cv2

    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _toybox(store, name, split, limit):
    """Read a part of the toybox, whose archive is whole, as its checksum says."""
    coco = store.json(f"{split}.json")
    infos, several = coco["images"][:limit], name in ("scenes", "duck")
    numbers = {category["id"]: label for label, category in enumerate(coco["categories"])}
    of_image = collections.defaultdict(list)
    for annotation in coco["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    labels = [np.array([numbers[a["category_id"]] for a in of_image[info["id"]]], np.int64) for info in infos]
    boxes = [np.array([a["bbox"] for a in of_image[info["id"]]], np.float32).reshape(-1, 4) for info in infos]
    boxes = [np.concatenate([each[:, :2], each[:, :2] + each[:, 2:]], axis=1) for each in boxes]
    stems = [info["file_name"].rsplit("/", 1)[-1].rsplit(".", 1)[0] for info in infos]
    kinds = ("instances", "parts", "semantic") if several else ("instances", "parts")
    maps = {kind: store.label_maps([f"{split}/{kind}/{stem}.png" for stem in stems]) for kind in kinds}
    known = {"id", "file_name", "width", "height", "license"}
    extras = {key: np.array([info[key] for info in infos]) for key in infos[0] if key not in known}
    return Dataset(
        name,
        split,
        store.images([f"{split}/images/{stem}.webp" for stem in stems]),
        labels if several else np.concatenate(labels),
        tuple(category["name"] for category in coco["categories"]),
        boxes if several else np.concatenate(boxes),
        maps["semantic" if several else "instances"],
        tuple(coco["info"]["semantic"]) if several else ("elsewhere", "toy"),
        maps["instances"],
        maps["parts"],
        tuple(coco["info"]["parts"]),
        extras,
        index=np.array([info["id"] for info in infos]),
    )


def _cifar_binary(path, name, split, limit):
    """Read the archive of the dataset's own home: records of a label and 3×32×32 bytes."""
    wanted = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    try:
        with tarfile.open(path) as tar:
            files = {
                Path(m.name).name: tar.extractfile(m).read()
                for m in tar
                if m.isfile() and Path(m.name).name in [*wanted, "batches.meta.txt"]
            }
        records = np.frombuffer(b"".join(files[file] for file in wanted), np.uint8).reshape(-1, 3073)[:limit]
        class_names = tuple(files["batches.meta.txt"].decode().split())
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise DataError(f"{path} is not CIFAR-10's binary archive ({error}); remove it to fetch it again") from error
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Dataset(name, split, images, records[:, 0].astype(np.int64), class_names)


def _mnist(store, name, split, limit):
    """Read Keras' archive of arrays; `val` is the last 5,000 of its training images."""
    part = "test" if split == "test" else "train"
    rows = {"train": slice(-5000), "val": slice(-5000, None), "test": slice(None)}[split]
    try:
        images, labels = (
            np.load(io.BytesIO(store.read(f"{key}_{part}.npy")), allow_pickle=False)[rows][:limit] for key in "xy"
        )
        if images.shape != (len(labels), 28, 28):
            raise ValueError(f"x_{part} has shape {images.shape}, y_{part} {labels.shape}")
    except (EOFError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{store.path} is not Keras' mnist.npz: {error}") from error
    return Dataset(name, split, images[..., None].repeat(3, -1), labels.astype(np.int64), tuple("0123456789"))


def _imagenet():
    with open(record(EMBEDDED / "imagenet_classes.csv"), newline="", encoding="utf-8") as file:
        return [(row["wnid"], row["name"]) for row in csv.DictReader(file)]


def _imagenet_samples(store, name, split, limit):
    index = {wnid: i for i, (wnid, _) in enumerate(_imagenet())}
    files = store.below("images")[:limit]
    if unknown := [file for file in files if Path(file).name.split("_")[0] not in index]:
        raise DataError(f"{store.where(unknown[0])} is not named as <wnid>_<name>.jpg, by a class of ImageNet")
    labels = np.array([index[Path(file).name.split("_")[0]] for file in files], np.int64)
    return Dataset(name, split, store.images(files), labels, imagenet_classes())


def _own(kind):
    """Give the reader of a kind of the reader's own data."""

    def read(store, name, split, limit):
        choose = _raccoon_split if name in ("raccoon", "raccoon_small") else None
        return Dataset(name, split, **readers.read(kind, store, split, limit, choose))

    return read


def _raccoon_split(name):
    """Give the split of an annotation: by its number, up to 160 for training."""
    if not (number := re.fullmatch(r"raccoon-(\d{1,9})", name)):
        raise DataError(f"raccoon: the annotation {name} is not named as raccoon-1, by a number; take it out")
    return "train" if int(number[1]) <= 160 else "val"


READERS = {
    "toybox": _toybox,
    "cifar_binary": _cifar_binary,
    "mnist": _mnist,
    "imagenet": _imagenet_samples,
    **{kind: _own(kind) for kind in OWN},
}


def _numbered(boxes, labels, number):
    """Keep the boxes whose label has a new number, and give them that number."""
    new = [number[np.asarray(own, np.int64)] for own in labels]
    return [np.asarray(own)[n >= 0] for own, n in zip(boxes, new, strict=True)], [n[n >= 0] for n in new]


def _only(data, classes):
    classes = [unicodedata.normalize("NFC", name) for name in classes]
    unknown = [c for c in classes if c not in data.class_names]
    if unknown:
        raise ValueError(f"load: classes={unknown[0]!r} is not a class of {data.name}: {', '.join(data.class_names)}")
    if not isinstance(data.labels, np.ndarray):
        raise ValueError(f"load: classes= goes with one class an image; {data.name} has several")
    number = {data.class_names.index(c): i for i, c in enumerate(classes)}
    kept = data.take(np.flatnonzero(np.isin(data.labels, list(number))))
    labels = np.array([number[label] for label in kept.labels], np.int64)
    return dataclasses.replace(kept, labels=labels, class_names=tuple(classes))


def _resize(data, size):
    import cv2

    kinds = [kind for kind in ("masks", "instances", "parts") if getattr(data, kind) is not None]
    maps = [_resize_maps(each, size) for each in zip(*(getattr(data, kind) for kind in kinds))]
    changed = {kind: np.stack(each) for kind, each in zip(kinds, zip(*maps))}
    factors = [np.float32([size / i.shape[1], size / i.shape[0]] * 2) for i in data.images]

    def scaled(boxes):
        boxes_scaled = [b * f for b, f in zip(boxes, factors, strict=True)]
        return np.stack(boxes_scaled) if isinstance(boxes, np.ndarray) else boxes_scaled

    if data.boxes is not None:
        changed["boxes"] = scaled(data.boxes)
    extras = {key: scaled(value) if key.endswith("_boxes") else value for key, value in data.extras.items()}
    images = np.stack([cv2.resize(i, (size, size), interpolation=cv2.INTER_AREA) for i in data.images])
    return dataclasses.replace(data, images=images, extras=extras, **changed)


def _resize_maps(maps, size):
    """Resize the maps of one image together, each pixel to the label that covers most of it, as images are averaged.

    Nearest neighbours would move them by up to half a pixel. Instances are chosen among those that lie on the class
    chosen for the pixel, and parts on the instance, so that the maps still agree.

    Args: maps: (H, W) integers each, such as masks, instances and parts.
    Returns: a list of (size, size) arrays of the same types.
    """
    import cv2

    if maps[0].shape == (size, size):
        return maps
    codes = sum(each.astype(np.int64) << 16 * place for place, each in enumerate(maps))  # a number for each combination
    combinations, first = np.unique(codes, return_index=True)
    shares = np.stack(
        [
            cv2.resize((codes == code).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
            for code in combinations
        ]
    )
    resized = []
    for each in maps:
        values = each.ravel()[first]
        labels = np.unique(values)
        covered = np.stack([shares[values == label].sum(0) for label in labels])
        chosen = labels[covered.round(4).argmax(0)]  # of labels that cover as much, the lower one
        resized.append(chosen.astype(each.dtype))
        shares = np.where(values[:, None, None] == chosen, shares, 0)
    return resized


def _count(number, noun):
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
