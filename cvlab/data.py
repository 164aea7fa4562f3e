"""Data sets: the embedded toybox, known photographs, and the reader's own pictures, through one door.

`load` looks beside the package (the toybox), then in the folder that the environment variable CVLAB_DATA names, then
in the cache, and then downloads from the data set's own home where that home offers a file with a known checksum.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

EMBEDDED = Path(__file__).resolve().parents[1] / "data"
PHOTOGRAPHS = ("chelsea", "coffee", "camera")  # scikit-image's; ImageNet's classes: tiger cat, espresso, tripod
CATALOGUE = {  # name: (reader, file, splits, what it holds, licence, home, download)
    "objects": ("toybox", "toybox/objects.zip", ("train", "val", "test"), "one toy a picture, nine classes, 96×96"),
    "scenes": ("toybox", "toybox/scenes.zip", ("train", "val", "test"), "one to six toys a picture, 160×160"),
    "duck": ("toybox", "toybox/duck.zip", ("train", "test"), "scenes with rubber ducks, which no other part shows"),
    "eyes": ("toybox", "toybox/eyes.zip", ("train", "test", "mended_train", "mended_test"),
             "cats and dogs that differ in their eyes alone"),
    "pavement": ("toybox", "toybox/pavement.zip", ("train", "test", "turned", "mended_train"),
                 "cars that always stand on pavement, and the rule turned round"),
    "cifar10": ("folder", "cifar10.zip", ("train", "test"), "60,000 pictures, ten classes, 32×32",
                "no licence stated; for research", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "camvid": ("labelled", "camvid.zip", ("train", "val"), "street scenes with eleven classes and void, 480×360",
               "no licence stated; for research", "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"),
    "raccoon": ("voc", "raccoon.zip", ("train", "val"), "200 photographs of raccoons with boxes",
                "MIT", "https://github.com/datitran/raccoon_dataset"),
    "imagenet_samples": ("imagenet", "imagenet_samples.zip", ("train",), "150 photographs, one a class",
                         "ImageNet's terms", "https://www.image-net.org"),
}  # fmt: skip
OWN = {
    "folder": "a folder of pictures, <split>/<class>/picture.jpg or <class>/picture.jpg",
    "voc": "Pascal VOC, images/*.jpg (or JPEGImages) and annotations/*.xml (or Annotations)",
    "coco": "COCO, <split>.json (or annotations/<split>.json) and its pictures",
}
DOWNLOADS = {  # file in the cache: (address, bytes, sha256)
    "cifar-10-binary.tar.gz": ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
                               "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
}  # fmt: skip
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class DataUnavailable(RuntimeError):
    """A data set is not on this machine, and can't be fetched; the message says three ways to get it."""


class DataError(ValueError):
    """Data is there, but damaged or not what it claims to be."""


@dataclasses.dataclass
class Dataset:
    """Pictures and what is known about them. What a data set does not have is None.

    Attributes:
        images: (N, H, W, 3) uint8; a list of (H, W, 3) where sizes differ.
        labels: (N,) int64 where a picture has one class; a list of (n,) int64, a class a box, where it has several.
        class_names: names in order of the label, from 0; background is no class.
        boxes: (N, 4) float32 or a list of (n, 4): [x_min, y_min, x_max, y_max] in pixels, edges at pixel borders.
        masks: (N, H, W) uint8; the toy's own pixels (1) where there is one toy, else each pixel's class.
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
        size = (
            f"{self.images.shape[2]}×{self.images.shape[1]}" if isinstance(self.images, np.ndarray) else "various sizes"
        )
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
        name: a name from `available()`, or "folder", "voc" or "coco" for data of your own at `path`.
        split: e.g. "train", "val" or "test"; `describe(name)` lists them.
        path: folder or zip archive of your own data; only with "folder", "voc" and "coco".
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


def describe(name):
    """Say in a few lines what a data set holds, where it comes from, its licence, and where it lies here."""
    if name in OWN:
        return f"{name}: your own data, {OWN[name]}; load({name!r}, split, path=...)"
    _, file, splits, what, *rest = _entry(name)
    licence, home = rest or ("CC BY 4.0", "this project")
    found = _find(file)
    return (f"{name}: {what}\nsplits: {', '.join(splits)}\nlicence: {licence}\nsource: {home}\n"
            f"here: {found or 'not on this machine'}")  # fmt: skip


def available():
    """Give a dict of every known data set's name and where it lies on this machine (None where it doesn't)."""
    return {name: _find(entry[1]) for name, entry in CATALOGUE.items()}


def weights(name):
    """Give the path of embedded weights, e.g. "efficientnet_lite0_imagenet", after comparing their checksum.

    Raises:
        ValueError: for an unknown name.
        DataError: where the file is not the one in the manifest.
    """
    key = f"weights/{name}.weights.h5"
    known = manifest()
    if key not in known:
        names = ", ".join(sorted(k[8:-11] for k in known if k.startswith("weights/")))
        raise ValueError(f"weights: {name!r} is not among the embedded weights: {names}")
    path = EMBEDDED / key
    if not path.exists():
        raise DataUnavailable(f"weights: {key} is missing from {EMBEDDED}; `git checkout data/{key}` brings it back")
    if _sha256(path) != known[key]["sha256"]:
        raise DataError(f"weights: {path} is damaged: its checksum differs from the manifest's")
    return path


def results(name):
    """Give a committed measurement, `bench/results/<name>.json`, as the dictionary that its script wrote."""
    path = EMBEDDED.parent / "bench" / "results" / f"{name}.json"
    if not path.exists():
        raise DataUnavailable(f"results: {path} is missing; `python -m bench.{name}` measures it")
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def manifest():
    """Give the manifest of embedded files: path below `data/` → sha256, bytes and licence."""
    path = EMBEDDED / "manifest.json"
    if not path.exists():
        raise DataUnavailable(f"manifest: {path} is missing; run from a checkout of the book")
    return json.loads(path.read_text())["files"]


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

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (size, size, 3) uint8.
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


def fetch(url, target, sha256, limit, context=None):
    """Download a file over https with a progress bar; nothing is left behind unless all of it is right.

    Args:
        url: an https address.
        target: path of the file.
        sha256: its checksum.
        limit: the most bytes to accept.
        context: an ssl.SSLContext, where the system's own doesn't do.

    Raises:
        ValueError: for an address that is not https.
        DataUnavailable: where the network, the disk or the checksum says no.
    """
    from urllib.request import urlopen

    from tqdm.auto import tqdm

    if urlsplit(url).scheme != "https":
        raise ValueError(f"fetch: {url} is not an https address")
    target = Path(target)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(url, timeout=30, context=context) as response:
            if urlsplit(response.url).scheme != "https":
                raise DataUnavailable(f"fetch: {url} leads to {response.url}, which is not https")
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
                part, digest, got = Path(out.name), hashlib.sha256(), 0
                total = int(response.headers.get("Content-Length") or 0) or None
                with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
                    while block := response.read(1 << 20):
                        got += len(block)
                        if got > limit:
                            raise DataUnavailable(f"fetch: {url} is larger than {limit:,} bytes; nothing was kept")
                        out.write(block)
                        digest.update(block)
                        bar.update(len(block))
        if digest.hexdigest() != sha256:
            raise DataUnavailable(f"fetch: {url} has another checksum than expected ({got:,} bytes); nothing was kept")
        os.replace(part, target)
    except OSError as error:
        raise DataUnavailable(f"fetch: {url} could not be saved as {target}: {error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target


def _entry(name):
    if name not in CATALOGUE:
        raise ValueError(f"load: {name!r} is not a data set; there are {', '.join([*CATALOGUE, *OWN])}")
    return CATALOGUE[name]


def cache_folder():
    """Give the folder that downloads are kept in: $XDG_CACHE_HOME/cvlab, or ~/.cache/cvlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvlab"


def own_folder():
    """Give the folder that CVLAB_DATA names, or None where it is not set.

    Raises:
        DataUnavailable: where it names no folder.
    """
    value = os.environ.get("CVLAB_DATA")
    if value and not Path(value).is_dir():
        raise DataUnavailable(
            f"CVLAB_DATA={value} is not a folder; unset it, or point it at the folder with the archives"
        )
    return Path(value) if value else None


def _find(file):
    """Find a data set's archive, or the folder that it was unpacked to."""
    if file.startswith("toybox/"):
        return EMBEDDED / file if (EMBEDDED / file).exists() else None
    for folder in filter(None, (own_folder(), cache_folder())):
        for candidate in (folder / file, folder / Path(file).stem):
            if candidate.exists():
                return candidate
    return None


def _open(name, split, path):
    """Give (reader, store) for a data set, fetching it where that is possible."""
    if name in OWN:
        if path is None:
            raise ValueError(f"load: {name!r} needs path=..., {OWN[name]}")
        if not Path(path).exists():
            raise DataUnavailable(f"load: path={path} does not exist; expected {OWN[name]}")
        return name, _Store(Path(path))
    reader, file, splits, what, *rest = _entry(name)
    if path is not None:
        raise ValueError(f"load: path={path!r} goes with {', '.join(OWN)}; {name!r} is found by name")
    if split not in splits:
        raise ValueError(f"load: {name!r} has no split {split!r}; it has {', '.join(splits)}")
    found = _find(file)
    if found is not None:
        if file in manifest() and _sha256(found) != manifest()[file]["sha256"]:
            raise DataError(f"load: {found} is damaged: its checksum differs from the manifest's")
        return reader, _Store(found)
    if name == "cifar10":
        file = "cifar-10-binary.tar.gz"
        url, size, sha256 = DOWNLOADS[file]
        target = cache_folder() / file
        return "cifar_binary", target if target.exists() else fetch(url, target, sha256, size)
    home = rest[1] if rest else "this project's repository"
    raise DataUnavailable(
        f"load: {name} ({what}) is not on this machine. It comes from {home}. Three ways to get it: "
        f"put {Path(file).name} (or its unpacked folder) into {cache_folder()}; set CVLAB_DATA to "
        "a folder that has it; or use the toybox, which is embedded, in its place"
    )


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Store:
    """Named files in a folder or a zip archive."""

    def __init__(self, path):
        self.path = path
        try:
            self.zip = None if path.is_dir() else zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a whole zip archive ({error}); fetch it again") from error
        if self.zip:
            names = (name for name in self.zip.namelist() if not name.endswith("/"))
        else:
            names = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        self.names = sorted(names)
        self.known = frozenset(self.names)

    def below(self, *folders, ends=PICTURES):
        """List the files with these endings below the first of `folders` that has any."""
        for folder in folders:
            found = [n for n in self.names if n.startswith(f"{folder}/" if folder else "") and n.lower().endswith(ends)]
            if found:
                return found
        return []

    def read(self, name):
        try:
            return self.zip.read(name) if self.zip else (self.path / name).read_bytes()
        except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {name} can't be read ({error}); the archive may be damaged") from error

    def json(self, name):
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise DataError(f"{self.path}: {name} is not JSON ({error})") from error

    def picture(self, name, mode="RGB"):
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                return np.asarray(image if mode is None else image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path}: {name} is not a picture ({error})") from error

    def pictures(self, names, mode="RGB"):
        """Decode pictures on all cores; one array where their sizes agree, else a list."""
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(functools.partial(self.picture, mode=mode), names))
        return np.stack(images) if images and len({image.shape for image in images}) == 1 else images


def _coco_boxes(annotations, where):
    """Turn COCO annotations into boxes (n, 4) and category ids (n,)."""
    boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    if (boxes[:, 2:] <= 0).any():
        raise DataError(f"{where}: a box has no width or height: {boxes[(boxes[:, 2:] <= 0).any(1)][0].tolist()}")
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([a["category_id"] for a in annotations], np.int64)


def _toybox(store, name, split, limit):
    coco = store.json(f"{split}.json")
    infos = coco["images"][:limit]
    of_image = {}
    for annotation in coco["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    pairs = [_coco_boxes(of_image[info["id"]], name) for info in infos]
    stems = [info["file_name"].rsplit("/", 1)[-1].rsplit(".", 1)[0] for info in infos]
    several = name in ("scenes", "duck")
    instances, parts = (store.pictures([f"{split}/{kind}/{stem}.png" for stem in stems], None)
                        for kind in ("instances", "parts"))  # fmt: skip
    masks = store.pictures([f"{split}/semantic/{stem}.png" for stem in stems], None) if several else instances
    known = {"id", "file_name", "width", "height", "license"}
    extras = {key: np.array([info[key] for info in infos]) for key in infos[0] if key not in known}
    return Dataset(
        name, split, store.pictures([f"{split}/images/{stem}.webp" for stem in stems]),
        labels=[ids for _, ids in pairs] if several else np.concatenate([ids for _, ids in pairs]),
        class_names=tuple(c["name"] for c in sorted(coco["categories"], key=lambda c: c["id"])),
        boxes=[b for b, _ in pairs] if several else np.concatenate([b for b, _ in pairs]),
        masks=masks, mask_names=tuple(coco["info"]["semantic"]) if several else ("elsewhere", "toy"),
        instances=instances, parts=parts, part_names=tuple(coco["info"]["parts"]), extras=extras,
    )  # fmt: skip


def _folder(store, name, split, limit):
    files = store.below(split)
    if files:
        labelled = [(f, f.split("/")[1]) for f in files if f.count("/") >= 2]
    else:
        files = store.below("")
        labelled = [(f, f.split("/")[0]) for f in files if f.count("/") >= 1 and _drawn(f, split)]
    if not labelled:
        raise DataError(f"{store.path}: no pictures for split {split!r}; expected {OWN['folder']}")
    class_names = tuple(sorted({label for _, label in labelled}))
    labelled = labelled[:limit]
    index = {label: i for i, label in enumerate(class_names)}
    labels = np.array([index[label] for _, label in labelled], np.int64)
    return Dataset(name, split, store.pictures([f for f, _ in labelled]), labels, class_names)


def _drawn(file, split):
    """Draw a file's split from its name: eight in ten train, one val, one test; the same on every machine."""
    tenth = int(hashlib.sha256(file.encode()).hexdigest(), 16) % 10
    return split == ("val" if tenth == 0 else "test" if tenth == 1 else "train")


def _cifar_binary(path, name, split, limit):
    """Read the archive of the data set's own home: records of a label and 3×32×32 bytes."""
    wanted = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    with tarfile.open(path) as tar:
        files = {
            Path(m.name).name: tar.extractfile(m).read()
            for m in tar
            if Path(m.name).name in [*wanted, "batches.meta.txt"]
        }
    records = np.frombuffer(b"".join(files[file] for file in wanted), np.uint8).reshape(-1, 3073)[:limit]
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Dataset(
        name, split, images, records[:, 0].astype(np.int64), tuple(files["batches.meta.txt"].decode().split())
    )


def _imagenet():
    with open(EMBEDDED / "imagenet_classes.csv", newline="", encoding="utf-8") as file:
        return [(row["wnid"], row["name"]) for row in csv.DictReader(file)]


def _imagenet_samples(store, name, split, limit):
    index = {wnid: i for i, (wnid, _) in enumerate(_imagenet())}
    files = store.below("images")[:limit]
    labels = np.array([index[Path(file).name.split("_")[0]] for file in files], np.int64)
    return Dataset(name, split, store.pictures(files), labels, imagenet_classes())


def _labelled(store, name, split, limit):
    """Read pictures with label maps: <split>/images, <split>/labels and classes.txt, whose last class is void."""
    files = store.below(f"{split}/images")[:limit]
    maps = [file.replace("/images/", "/labels/").rsplit(".", 1)[0] + ".png" for file in files]
    names = tuple(store.read("classes.txt").decode().split())
    return Dataset(name, split, store.pictures(files), masks=store.pictures(maps, None), mask_names=names,
                   class_names=tuple(n for n in names if n != "void"))  # fmt: skip


def _voc(store, name, split, limit):
    """Read Pascal VOC, whose boxes count pixels from 1 and include the last one."""
    from xml.etree import ElementTree

    files = store.below("annotations", "Annotations", ends=(".xml",))
    if not files:
        raise DataError(f"{store.path}: no annotations; expected {OWN['voc']}")
    pictures = {Path(p).stem: p for p in store.below("images", "JPEGImages")}
    chosen = [f for f in files if _voc_split(store, name, f) == split][:limit]
    rows, names = [], set()
    for file in chosen:
        try:
            root = ElementTree.fromstring(store.read(file))
        except ElementTree.ParseError as error:
            raise DataError(f"{store.path}: {file} is not XML ({error})") from error
        if Path(file).stem not in pictures:
            raise DataError(f"{store.path}: {file} has no picture {Path(file).stem}.jpg beside it")
        corners = ("xmin", "ymin", "xmax", "ymax")
        objects = [(o.findtext("name").strip(), [float(o.findtext(f"bndbox/{k}")) for k in corners])
                   for o in root.iter("object")]  # fmt: skip
        rows.append((pictures[Path(file).stem], objects))
        names |= {label for label, _ in objects}
    class_names = tuple(sorted(names))
    images = store.pictures([picture for picture, _ in rows])
    boxes, labels = [], []
    for (picture, objects), image in zip(rows, images, strict=True):
        found = np.array([box for _, box in objects], np.float32).reshape(-1, 4) - np.float32([1, 1, 0, 0])
        height, width = image.shape[:2]
        found = np.clip(found, 0, None) if name == "raccoon" else found  # a few of its boxes start at 0
        wrong = (found[:, 2:] <= found[:, :2]).any(1) | (found < 0).any(1) | (found[:, 2:] > [width, height]).any(1)
        if wrong.any():
            raise DataError(f"{store.path}: a box of {picture} is empty or outside its {width}×{height} pixels: "
                            f"{found[wrong][0].tolist()}")  # fmt: skip
        boxes.append(found)
        labels.append(np.array([class_names.index(label) for label, _ in objects], np.int64))
    return Dataset(name, split, images, labels, class_names, boxes)


def _voc_split(store, name, file):
    if name == "raccoon":
        return "train" if int(Path(file).stem.split("-")[1]) <= 160 else "val"
    for split in ("train", "val", "test"):
        listed = f"ImageSets/Main/{split}.txt"
        if listed in store.known and Path(file).stem in store.read(listed).decode().split():
            return split
    return next(split for split in ("train", "val", "test") if _drawn(Path(file).stem, split))


def _coco(store, name, split, limit):
    file = next((f for f in (f"{split}.json", f"annotations/{split}.json") if f in store.known), None)
    if file is None:
        raise DataError(f"{store.path}: no {split}.json; expected {OWN['coco']}")
    coco = store.json(file)
    categories = sorted(coco["categories"], key=lambda c: c["id"])
    class_names = tuple(c["name"] for c in categories)
    if len(set(class_names)) < len(class_names):
        twice = next(n for n in class_names if class_names.count(n) > 1)
        raise DataError(f"{store.path}: {file} names the class {twice!r} twice")
    number = {c["id"]: i for i, c in enumerate(categories)}
    by_name = {Path(n).name: n for n in store.below("")}
    files, boxes, labels = [], [], []
    for info in coco["images"][:limit]:
        if Path(info["file_name"]).name not in by_name:
            raise DataError(f"{store.path}: {file} names the picture {info['file_name']}, which is not there")
        files.append(by_name[Path(info["file_name"]).name])
        box, ids = _coco_boxes([a for a in coco["annotations"] if a["image_id"] == info["id"]], info["file_name"])
        if (box < 0).any() or (box[:, 2:] > [info["width"], info["height"]]).any():
            raise DataError(f"{store.path}: a box of {info['file_name']} lies outside its picture")
        boxes.append(box)
        labels.append(np.array([number[i] for i in ids], np.int64))
    return Dataset(name, split, store.pictures(files), labels, class_names, boxes)


READERS = {"toybox": _toybox, "folder": _folder, "cifar_binary": _cifar_binary, "imagenet": _imagenet_samples,
           "labelled": _labelled, "voc": _voc, "coco": _coco}  # fmt: skip


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

    changed = {"images": scaled(data.images, cv2.INTER_AREA)}
    for key in ("masks", "instances", "parts"):
        if getattr(data, key) is not None:
            changed[key] = scaled(getattr(data, key), cv2.INTER_NEAREST)
    if data.boxes is not None:
        factors = [np.float32([size / i.shape[1], size / i.shape[0]] * 2) for i in data.images]
        boxes = [b * f for b, f in zip(data.boxes, factors, strict=True)]
        changed["boxes"] = np.stack(boxes) if isinstance(data.boxes, np.ndarray) else boxes
    return dataclasses.replace(data, **changed)
