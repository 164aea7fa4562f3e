"""The files of a dataset, in a folder or in a zip archive as it is: their names, and what they hold.

Nothing is unpacked or executed. Whatever can't be read is a DataError that names the file, what was found, and what
would do. Names are compared in Unicode's composed form (NFC), as macOS stores them decomposed.
"""

import functools
import io
import json
import os
import posixpath
import re
import stat
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from .files import DataError

LARGEST_FILE = 1 << 30  # bytes
LARGEST_IMAGE = 89_478_485  # pixels, as in Pillow: from here on it suspects a decompression bomb
IMAGE_ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".dib",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".jp2",
    ".tga",
    ".avif",
)
# Decoders that are used whatever a file is called; Pillow's others run programs, or hardly ever meet a photograph.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000")  # formats whose grey values Pillow may widen from 16 to 32 bits
TEXT_ENDINGS = (
    ".txt",
    ".md",
    ".rst",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".xml",
    ".yml",
    ".yaml",
    ".toml",
    ".ini",
    ".cfg",
    ".log",
    ".html",
    ".htm",
    ".pdf",
    ".py",
    ".ipynb",
    ".sh",
)
METADATA = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "icon\r"}


class Store:
    """Named files in a folder or a zip archive.

    Attributes:
        path: the folder or archive.
        base: the wrapping folder that was entered, ending in "/", or "".
        names: the files' names below `base`, sorted.
        folders: the names of folders below `base`.
        hidden: hidden files and folders and systems' metadata, which are passed over.
        faults: messages about names that can't be used, such as links that lead nowhere.
    """

    def __init__(self, path):
        self.path, self.base, self.zip = path, "", None
        self.hidden, self.faults, self.places, self.directories = [], [], {}, set()
        if path.is_dir():
            self._list_folder("", ())
        else:
            self._list_archive()
        self.names, self.folders = sorted(self.places), sorted(self.directories)

    def enter(self, folder):
        """Go into a folder: from now on, names are those below it."""
        self.base += f"{folder}/"
        self.names = [name.removeprefix(f"{folder}/") for name in self.names if name.startswith(f"{folder}/")]
        self.folders = [name.removeprefix(f"{folder}/") for name in self.folders if name.startswith(f"{folder}/")]

    def where(self, name):
        """Name a file for a message: the store's path, and the file's place in it."""
        return f"{self.path}: {self.base}{name}"

    def below(self, folder, endings=IMAGE_ENDINGS):
        """List the files below a folder ("" for all) whose names end so."""
        start = f"{folder}/" if folder else ""
        return [name for name in self.names if name.startswith(start) and name.lower().endswith(endings)]

    def size(self, name):
        """Give the size of a file in bytes."""
        place = self.places[self.base + name]
        return place.file_size if self.zip else os.stat(place).st_size

    def read(self, name):
        """Give the bytes of a file; raise DataError where it can't be read, is empty, or too large."""
        try:
            place, size = self.places[self.base + name], self.size(name)
            if size > LARGEST_FILE:
                raise DataError(f"{self.where(name)} holds {size:,} bytes; at most {LARGEST_FILE:,} are read")
            if self.zip:
                content = self.zip.read(place)
            else:
                with open(place, "rb") as file:
                    content = file.read()
        except DataError:
            raise
        except Exception as error:  # zipfile, zlib, lzma and the system have more than ten kinds
            advice = "pack the archive again, without a password, by Deflate" if self.zip else "see to its permissions"
            raise fault(f"{self.where(name)} can't be read ({_told(error)}); copy it anew, or {advice}") from error
        if not content:
            raise fault(f"{self.where(name)} is empty; copy it anew, or take it out")
        return content

    def text(self, name):
        """Give a text file's content: UTF-8, or UTF-16 with a byte order mark."""
        content = self.read(name)
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise fault(f"{self.where(name)} is not UTF-8 ({_told(error)}); save it as UTF-8") from error
        if "\0" in text:
            raise fault(f"{self.where(name)} holds null characters, as UTF-16 and binary files do; save it as UTF-8")
        return text

    def json(self, name):
        """Give what a JSON file holds."""
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise fault(f"{self.where(name)} is not JSON ({_told(error)}); write it again") from error

    def xml(self, name):
        """Give the root element of an XML file; one that declares entities is refused."""
        content, builder, parser = self.read(name), ElementTree.TreeBuilder(), expat.ParserCreate()

        def refuse(*_):
            raise fault(f"{self.where(name)} declares XML entities, which annotations don't need; take them out")

        parser.EntityDeclHandler = refuse
        parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
        parser.CharacterDataHandler = builder.data
        try:
            parser.Parse(content, True)
            return builder.close()
        except DataError:
            raise
        except (expat.ExpatError, ValueError, LookupError, AssertionError, RecursionError) as error:
            raise fault(f"{self.where(name)} is not XML ({_told(error)}); write it again") from error

    def image(self, name, declared=None):
        """Decode an image as it is shown, that is, turned as its EXIF orientation says.

        Args:
            name: the file.
            declared: (width, height, file that says so) to compare its size with; either number may be None.

        Returns:
            (H, W, 3) uint8; of 16-bit images, the upper eight bits.

        Raises:
            DataError: for what is no image, is cut short, too large, or of another size than declared.
        """
        array, turned = self._decode(name, _rgb)
        if declared:
            self._compare(name, array.shape[1], array.shape[0], turned, declared)
        return array

    def label_map(self, name):
        """Decode an image whose values are numbers of classes: (H, W) integers; (H, W, C) where it is in colours."""
        array, _ = self._decode(name, np.asarray)
        if array.dtype.kind not in "biu":
            raise fault(f"{self.where(name)} holds {array.dtype} values, expected whole numbers; save it as a PNG")
        return array

    def images(self, names, declared=None):
        """Decode images on all cores; one array where their sizes agree, else a list."""
        return self._all(self.image, names, declared or [None] * len(names))

    def label_maps(self, names):
        """Decode label maps on all cores; one array where their sizes agree, else a list."""
        return self._all(self.label_map, names)

    def _all(self, decode, *columns):
        with ThreadPoolExecutor() as pool:
            arrays = list(pool.map(decode, *columns))
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays

    def _decode(self, name, convert):
        """Give (array, whether EXIF turned it by a quarter) of an image."""
        from PIL import Image, ImageOps

        content = self.read(name)
        try:
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                if image.width * image.height > LARGEST_IMAGE:
                    raise fault(_too_large(self.where(name), f"{image.width}×{image.height}"))
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":  # a phone's MPO holds a preview beside the photograph
                    raise fault(f"{self.where(name)} holds {frames} images; save each as a file of its own")
                orientation = image.getexif().get(0x112, 1)
                image.load()
                upright = ImageOps.exif_transpose(image) if image.getexif().get(0x112, 1) != 1 else image
                upright.format = image.format
                return convert(upright), orientation in (5, 6, 7, 8)
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise fault(_too_large(self.where(name), _told(error))) from error
        except Exception as error:  # Pillow's decoders raise what they meet in a broken file
            told = "it is damaged, or no image that can be read" if isinstance(error, OSError) else _told(error)
            told += f": {_told(error)}" if isinstance(error, OSError) and "BytesIO" not in str(error) else ""
            raise fault(
                f"{self.where(name)} can't be read as an image ({told}); copy it anew, save it as JPEG or PNG, "
                "or take it out"
            ) from error

    def _compare(self, name, width, height, turned, declared):
        """Compare an image's size as shown with the size that its annotation declares."""
        *said, source = declared
        if all(a in (None, b) for a, b in zip(said, (width, height))):
            return
        says = "×".join("?" if side is None else str(side) for side in said)
        advice = "scale the annotation, or give the image that was annotated"
        also = ""
        if turned and all(a in (None, b) for a, b in zip(said, (height, width))):
            # Some tools draw boxes on the image as stored, others on it as shown, and both write the stored size.
            also = f" ({height}×{width} as stored, before its EXIF orientation)"
            advice = "save it upright, without an EXIF orientation, and see whether its boxes still fit"
        told = f"{self.where(name)} has {width}×{height} pixels{also}, but {self.base}{source} says {says}; {advice}"
        raise fault(told, SizeError)

    def _list_folder(self, folder, above):
        place = os.path.join(self.path, folder)
        try:
            real, entries = os.path.realpath(place), sorted(os.scandir(place), key=lambda entry: entry.name)
            if real in above:
                self.faults.append(f"{self.path}: {folder} is a link to a folder that it lies in; take it out")
                return
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if _is_hidden(entry.name):
                    self.hidden.append(name)
                elif entry.is_dir():
                    self.directories.add(unicodedata.normalize("NFC", name))
                    self._list_folder(name, (*above, real))
                else:
                    self._add(name, entry.path, entry.is_file())
        except OSError as error:
            self.faults.append(
                f"{self.path}: the folder {folder or '.'} can't be listed ({_told(error)}); see to its permissions"
            )

    def _list_archive(self):
        try:
            self.zip = zipfile.ZipFile(self.path)
            entries = self.zip.infolist()
        except Exception as error:  # see read
            raise fault(
                f"{self.path} is not a whole zip archive ({_told(error)}); fetch it again, or unpack it and "
                "give the folder"
            ) from error
        for entry in entries:
            name = posixpath.normpath(_name_in_archive(entry).replace("\\", "/"))
            parts = name.split("/")
            if hidden := [i for i, part in enumerate(parts) if _is_hidden(part)]:
                self.hidden.append("/".join(parts[: hidden[0] + 1]))
            elif entry.is_dir() or entry.filename.endswith("\\"):
                self.directories.add(unicodedata.normalize("NFC", name))
            else:
                parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
                self.directories.update(unicodedata.normalize("NFC", parent) for parent in parents)
                self._add(name, entry, not stat.S_ISLNK(entry.external_attr >> 16))
        self.hidden = list(dict.fromkeys(self.hidden))

    def _add(self, name, place, is_file):
        composed = unicodedata.normalize("NFC", name)
        if not is_file:
            self.faults.append(
                f"{self.path}: {name} is no file, or a link that leads nowhere; put the file in its "
                "place, or take it out"
            )
        elif composed in self.places:
            self.faults.append(f"{self.path}: has {composed} twice; take one out")
        else:
            self.places[composed] = place


class SizeError(DataError):
    """An image has another size than its annotation says."""


def fault(message: str, kind: type = DataError) -> Exception:
    """Make a DataError whose message is one line."""
    return kind(re.sub(r"\s*[\r\n]+\s*", " ", message))


def _told(error):
    return str(error) or type(error).__name__


def _too_large(where, size):
    return f"{where} is too large ({size}; at most {LARGEST_IMAGE:,} pixels are read); make it smaller"


def _is_hidden(part):
    return part.startswith(".") or part.lower() in METADATA


def _name_in_archive(entry):
    """Give an entry's name; macOS writes UTF-8 without the flag that says so, which zipfile takes for code page 437."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


@functools.cache
def _formats():
    """List the decoders among FORMATS that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _rgb(image):
    """Convert a Pillow image to (H, W, 3) uint8; grey values of 16 bits are divided by 256."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, -1)
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits, whose range nothing tells; save it with 8 or 16 bits a channel")
    return np.asarray(image.convert("RGB"))
