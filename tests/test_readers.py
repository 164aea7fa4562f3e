"""Readers of own data: what the files hold is used, or refused with the file's name."""

import json
import os
import zipfile
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from cvlab import data, metrics, readers

NOISE = np.random.default_rng(0)


def save(path, array=None, **options):
    """Write an image, of noise where none is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = NOISE.integers(0, 255, (8, 8, 3), dtype=np.uint8) if array is None else array
    Image.fromarray(array).save(path, **options)


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def classes(root, *places, ending="png"):
    for place in places:
        save(root / f"{place}.{ending}")


def refused(kind, path, split="train", **options):
    """Give the message of the DataError that loading raises: one line that names the path."""
    with pytest.raises(data.DataError) as error:
        data.load(kind, split, path=path, **options)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def coco(root, images=None, annotations=None, categories=None, split="train"):
    """Write a COCO file; ids count from 1."""
    content = {
        "images": images or [{"id": 1, "file_name": "1.png"}],
        "annotations": annotations or [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": categories or [{"id": 1, "name": "cat"}],
    }
    write(root / f"{split}.json", json.dumps(content))
    return root


def thing(name="car", box=(1, 1, 5, 5), more=""):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def voc(root, objects=None, stem="a", ending="png", head="", image=True):
    """Write an image and its annotation, listed for training."""
    if image:
        save(root / f"images/{stem}.{ending}")
    write(root / f"annotations/{stem}.xml", f"<annotation>{head}{thing() if objects is None else objects}</annotation>")
    return root


def listed(root, text="a\n", name="train", encoding="utf-8"):
    write(root / f"ImageSets/Main/{name}.txt", text, encoding)
    return root


def masks(root, stem="one", mask=None, names="road\nvoid", top="train"):
    save(root / top / f"images/{stem}.png")
    save(root / top / f"labels/{stem}.png", np.zeros((8, 8), np.uint8) if mask is None else mask)
    write(root / "classes.txt", names)
    return root


# Images, and what belongs to them


def turned(orientation=6):
    """An image of 40×30 pixels as stored whose upper half is white as shown, and its EXIF."""
    stored, exif = np.zeros((30, 40, 3), np.uint8), Image.Exif()
    stored[:, :20], exif[0x112] = 255, orientation
    return stored, exif


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_orientation_says_and_its_boxes_fit_what_is_shown(tmp_path, ending):
    stored, exif = turned()
    save(tmp_path / f"1.{ending}", stored, exif=exif)
    coco(
        tmp_path,
        [{"id": 1, "file_name": f"1.{ending}", "width": 30, "height": 40}],
        [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 19]}],
    )
    part = data.load("coco", "train", path=tmp_path)
    assert part.images.shape == (1, 40, 30, 3)
    x, y, right, bottom = part.boxes[0][0].astype(int)
    assert part.images[0][y:bottom, x:right].mean() > 240


def test_a_declared_size_that_is_the_stored_one_is_ambiguous_and_refused(tmp_path):
    stored, exif = turned()
    save(tmp_path / "images/a.jpg", stored, exif=exif)
    voc(tmp_path, head="<size><width>40</width><height>30</height></size>", image=False)
    message = refused("voc", listed(tmp_path))
    assert "images/a.jpg has 30×40 pixels (40×30 as stored, before its EXIF orientation)" in message
    assert "annotations/a.xml says 40×30; save it upright" in message


def test_a_label_map_that_lies_on_the_image_as_stored_is_refused(tmp_path):
    stored, exif = turned()
    masks(tmp_path, mask=np.zeros((30, 40), np.uint8))
    save(tmp_path / "train/images/one.png", stored, exif=exif)
    assert "labels/one.png has 40×30 pixels, its image train/images/one.png 30×40" in refused("masks", tmp_path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_values_of_16_bits_are_divided_by_256_and_not_clipped(tmp_path, ending):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    save(tmp_path / f"train/cells/1.{ending}", ramp)
    image = data.load("folder", "train", path=tmp_path).images[0]
    np.testing.assert_array_equal(image, np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, -1))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_32_bits_are_refused_as_nothing_tells_their_range(tmp_path, dtype):
    save(tmp_path / "train/cells/1.tif", np.ones((8, 8), dtype))
    assert "train/cells/1.tif can't be read as an image (its values have 32 bits" in refused("folder", tmp_path)


@pytest.mark.parametrize(("width", "height", "says"), [(400, 400, "400×400"), (400, None, "400×?"), (0, 0, "0×0")])
def test_a_declared_size_is_compared_with_the_image(tmp_path, width, height, says):
    save(tmp_path / "1.png")
    coco(tmp_path, [{"id": 1, "file_name": "1.png", "width": width, "height": height}])
    assert f"1.png has 8×8 pixels, but train.json says {says}" in refused("coco", tmp_path)
    size = f"<size><width>{width}</width><height>{'' if height is None else height}</height></size>"
    voc(tmp_path / "voc", head=size)
    assert f"images/a.png has 8×8 pixels, but annotations/a.xml says {says}" in refused("voc", listed(tmp_path / "voc"))


def test_masks_are_resized_without_a_shift(tmp_path):
    mask = np.zeros((90, 90), np.uint8)
    mask[31:61, 31:61] = 1
    for stem, array in (("one", mask), ("two", mask[::-1, ::-1])):
        masks(tmp_path, stem, np.ascontiguousarray(array), "elsewhere\nthing")
        save(tmp_path / f"train/images/{stem}.png", np.repeat(array[..., None] * 255, 3, -1))
    for size in (10, 45, 37, 64, 120):
        part = data.load("masks", "train", path=tmp_path, size=size)
        one, two = part.masks[0], part.masks[1][::-1, ::-1]
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, part.images[0, ..., 0] > 128)


def test_label_maps_of_more_than_256_classes_keep_their_numbers(tmp_path):
    mask = np.zeros((8, 8), np.uint16)
    mask[0, :4] = 0, 1, 256, 299
    masks(tmp_path, mask=mask, names="\n".join(f"class {i}" for i in range(300)))
    part = data.load("masks", "train", path=tmp_path)
    np.testing.assert_array_equal(part.masks[0], mask, strict=True)
    assert data.load("masks", "train", path=tmp_path, size=8).masks.dtype == np.uint16


def test_the_image_that_a_voc_annotation_names_is_read_and_no_neighbour(tmp_path):
    white, black = (np.full((8, 8, 3), v, np.uint8) for v in (255, 0))
    save(tmp_path / "images/a.png", white)
    save(tmp_path / "images/a.bmp", black)
    voc(tmp_path, head="<filename>a.bmp</filename>", image=False)
    assert data.load("voc", "train", path=listed(tmp_path)).images.max() == 0
    voc(tmp_path, head="<filename>a.jpg</filename>", image=False)
    assert "annotations/a.xml names the image a.jpg, which is not there (images/a.bmp is, but" in refused(
        "voc", tmp_path
    )
    voc(tmp_path, image=False)
    assert "annotations/a.xml may mean images/a.bmp or images/a.png" in refused("voc", tmp_path)


def test_two_voc_annotations_of_one_image_are_refused(tmp_path):
    voc(tmp_path)
    voc(tmp_path, stem="b", head="<filename>a.png</filename>")
    assert "annotations/b.xml and annotations/a.xml both name the image images/a.png" in refused(
        "voc", listed(tmp_path, "a\nb")
    )


def test_the_image_that_coco_names_is_read_and_none_of_another_folder(tmp_path):
    save(tmp_path / "other/1.png")
    coco(tmp_path, [{"id": 1, "file_name": "images/1.png"}])
    assert "names the image images/1.png, which is not there (other/1.png is, but" in refused("coco", tmp_path)
    save(tmp_path / "third/1.png")
    coco(tmp_path, [{"id": 1, "file_name": "1.png"}])
    assert "names the image 1.png, which may be other/1.png or third/1.png" in refused("coco", tmp_path)
    coco(tmp_path, [{"id": i, "file_name": "other/1.png"} for i in (1, 2)])
    assert "names the image other/1.png twice" in refused("coco", tmp_path)


def test_two_images_of_one_label_map_and_a_label_map_of_none_are_refused(tmp_path):
    save(masks(tmp_path) / "train/images/one.bmp")
    assert "images/one.bmp and train/images/one.png have one label map" in refused("masks", tmp_path)
    (tmp_path / "train/images/one.bmp").unlink()
    save(tmp_path / "train/labels/two.png", np.zeros((8, 8), np.uint8))
    assert "train/labels/two.png is a label map of no image" in refused("masks", tmp_path)


def test_a_label_map_in_a_format_that_changes_values_is_refused(tmp_path):
    (masks(tmp_path) / "train/labels/one.png").rename(tmp_path / "train/labels/one.jpg")
    assert "train/labels/one.jpg is no label map, as its format changes values" in refused("masks", tmp_path)


# Names, folders and splits


METADATA = (".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/cat/._1.png", "cat/._1.png", ".hidden/1.png")


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_folders_and_metadata_of_archives_are_no_classes_and_are_told(tmp_path, capsys, packed):
    root = tmp_path / "own"
    classes(root, "train/cat/1", "train/dog/1")
    for place in METADATA:
        save(root / "train" / place)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        write(root / "train/cat" / name, "metadata")
    part = data.load("folder", "train", path=pack(root) if packed else root)
    assert part.class_names == ("cat", "dog") and part.labels.tolist() == [0, 1]
    assert "2 images, 2 classes; passed over, as hidden or metadata: train/.hidden" in capsys.readouterr().err


def pack(root, wrap=""):
    """Pack a folder into a zip archive beside it, within a folder `wrap`."""
    with zipfile.ZipFile(archive := root.parent / f"{root.name}.zip", "w") as out:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                out.write(path, wrap + path.relative_to(root).as_posix())
    return archive


@pytest.mark.parametrize("wrap", ["pets/", "a/b/pets/", "./pets/", "pets\\"])
def test_a_folder_that_wraps_everything_is_entered(tmp_path, wrap):
    root = tmp_path / "own"
    classes(root, *(f"{split}/{name}/{k}" for split in ("train", "test") for name in ("cat", "dog") for k in range(3)))
    write(root.parent / "README.md", "beside")
    part = data.load("folder", "train", path=pack(root, wrap))
    assert part.class_names == ("cat", "dog") and len(part) == 6
    listed(voc(root.parent / "voc"))
    assert len(data.load("voc", "train", path=pack(root.parent / "voc", wrap))) == 1
    assert len(data.load("masks", "train", path=pack(masks(root.parent / "masks"), wrap))) == 1
    save(root.parent / "coco/1.png")
    assert len(data.load("coco", "train", path=pack(coco(root.parent / "coco"), wrap))) == 1


def test_two_folders_with_splits_and_splits_within_classes_are_refused(tmp_path):
    classes(tmp_path, "a/train/cat/1", "b/train/cat/1")
    assert "the folders a/train, b/train would mix the splits" in refused("folder", tmp_path)


def test_splits_without_class_folders_are_no_classes(tmp_path):
    classes(tmp_path, "train/1", "test/1")
    assert "train/1.png lies in no class folder" in refused("folder", tmp_path)


def test_an_image_outside_of_the_class_folders_is_refused_or_told(tmp_path, capsys):
    classes(tmp_path, "train/cat/1", "train/loose")
    assert "train/loose.png lies in no class folder" in refused("folder", tmp_path)
    (tmp_path / "train/loose.png").unlink()
    classes(tmp_path, "results/plots/1", "logo")
    data.load("folder", "train", path=tmp_path)
    assert "as they belong to no split: logo.png (1), results/ (1)" in capsys.readouterr().err


def test_a_validation_split_has_several_names(tmp_path):
    classes(
        tmp_path, *(f"{split}/{name}/{k}" for split in ("Train", "valid", "testing") for name in "ab" for k in "12")
    )
    assert [len(part) for part in data.splits("folder", path=tmp_path)] == [4, 4, 4]


def test_splits_do_not_replace_a_damaged_or_empty_val_by_a_part_of_train(tmp_path):
    classes(tmp_path, *(f"{split}/{name}/{k}" for split in ("train", "val", "test") for name in "ab" for k in "12"))
    hurt = tmp_path / "val/a/2.png"
    hurt.write_bytes(hurt.read_bytes()[:-100])
    with pytest.raises(data.DataError, match=r"val/a/2\.png can't be read as an image .*truncated"):
        data.splits("folder", path=tmp_path)
    for path in (tmp_path / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(data.DataError, match="the folder of split 'val' holds no images"):
        data.splits("folder", path=tmp_path)


def test_composed_and_decomposed_names_are_the_same(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        classes(tmp_path, f"{split}/bar/1", f"{split}/{normalize(form, 'café')}/1")
    part = data.load("folder", "test", path=tmp_path, classes=[normalize("NFD", "café")])
    assert part.class_names == ("café",) and part.labels.tolist() == [0]
    assert data.load("folder", "train", path=tmp_path).class_names == ("bar", "café")


def test_annotations_and_lists_find_decomposed_file_names(tmp_path):
    voc(tmp_path, thing(normalize("NFD", "café")) + thing("café"), stem=normalize("NFD", "é"))
    objects = thing(normalize("NFD", "café")) + thing("café")
    voc(tmp_path, objects, normalize("NFD", "é"), head="<filename>é.png</filename>", image=False)
    part = data.load("voc", "train", path=listed(tmp_path, "é\n"))
    assert part.class_names == ("café",) and len(part.boxes[0]) == 2


def test_names_in_an_archive_that_macos_packed_are_read_as_utf_8(tmp_path):
    classes(tmp_path / "own", "train/cafe/1", "train/bar/1")
    archive = pack(tmp_path / "own")
    content = archive.read_bytes()
    assert content.count(b"train/cafe") == 2
    archive.write_bytes(content.replace(b"train/cafe", "train/caé".encode()))  # as long, and without the flag of UTF-8
    assert data.load("folder", "train", path=archive).class_names == ("bar", "caé")


@pytest.mark.parametrize("ending", ["tif", "tiff", "gif", "webp", "bmp", "ppm", "JPG", "jp2"])
def test_classes_of_other_image_formats_are_not_lost(tmp_path, ending):
    classes(tmp_path, "train/forest/1")
    classes(tmp_path, "train/river/1", ending=ending)
    assert data.load("folder", "train", path=tmp_path).class_names == ("forest", "river")


def test_a_class_in_a_format_that_is_not_read_is_refused_and_not_lost(tmp_path):
    classes(tmp_path, "train/forest/1")
    write(tmp_path / "train/river/1.heic", "ftypheic")
    assert "train/river/1.heic can't be read as an image" in refused("folder", tmp_path)


def test_a_file_of_several_images_is_refused_as_all_but_one_would_be_lost(tmp_path):
    frames = [Image.fromarray(NOISE.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    (tmp_path / "train/a").mkdir(parents=True)
    frames[0].save(tmp_path / "train/a/1.tif", save_all=True, append_images=frames[1:])
    assert "train/a/1.tif holds 3 images; save each as a file of its own" in refused("folder", tmp_path)


def test_linked_folders_are_followed_and_links_that_lead_nowhere_or_round_are_refused(tmp_path):
    root = tmp_path / "own"
    classes(root, "train/cat/1")
    classes(tmp_path, "elsewhere/dog/1")
    os.symlink(tmp_path / "elsewhere/dog", root / "train/dog")
    assert data.load("folder", "train", path=root).class_names == ("cat", "dog")
    os.symlink(root / "train", root / "train/cat/round")
    assert "train/cat/round is a link to a folder that it lies in" in refused("folder", root)
    (root / "train/cat/round").unlink()
    os.symlink(tmp_path / "nowhere", root / "train/fish")
    assert "train/fish is no file, or a link that leads nowhere" in refused("folder", root)


# Pascal VOC


def test_an_object_with_several_boxes_has_each_of_them(tmp_path):
    boxes = [thing(box=(k, k, k + 2, k + 2)).split("</name>")[1].removesuffix("</object>") for k in (1, 3, 5)]
    voc(tmp_path, f"<object><name>car</name>{''.join(boxes)}</object>")
    part = data.load("voc", "train", path=listed(tmp_path))
    assert part.boxes[0].tolist() == [[0, 0, 3, 3], [2, 2, 5, 5], [4, 4, 7, 7]] and part.labels[0].tolist() == [0] * 3


def test_a_part_of_an_object_is_no_object_and_a_box_outside_of_an_object_is_refused(tmp_path):
    box = thing(box=(2, 2, 3, 3)).split("</name>")[1].removesuffix("</object>")
    voc(tmp_path, thing(more=f"<part><name>head</name>{box}</part>"))
    assert len(data.load("voc", "train", path=listed(tmp_path)).boxes[0]) == 1
    voc(tmp_path, thing() + box)
    assert "annotations/a.xml has a bndbox outside of an object" in refused("voc", tmp_path)
    voc(tmp_path, thing() + thing().replace("object>", "Object>"))
    assert "annotations/a.xml has a bndbox outside of an object" in refused("voc", tmp_path)


def test_voc_images_without_objects_are_background(tmp_path):
    voc(voc(tmp_path), "", stem="b")
    part = data.load("voc", "train", path=listed(tmp_path, "a\nb\n"))
    assert [len(boxes) for boxes in part.boxes] == [1, 0] and part.boxes[1].shape == (0, 4)
    assert part.labels[1].shape == (0,)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("\ufeffa\n", "utf-8"),
        ("a\n", "utf-16"),
        (" a \r\n\r\n", "utf-8"),
        ("a.png\n", "utf-8"),
        ("images/a.png", "utf-8"),
    ],
)
def test_lists_with_a_byte_order_mark_with_spaces_folders_or_endings_are_read(tmp_path, text, encoding):
    voc(tmp_path, stem="my image 1")
    text = text.replace("a", "my image 1", 1) if "/" not in text else "images/my image 1.png"
    assert len(data.load("voc", "train", path=listed(voc(tmp_path), text, encoding=encoding))) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nb\n", "'b' in line 2 has no annotation"),
        ("a\na.png\n", "'a.png' is in lines 1 and 2; take one out"),
        ("\n", "train.txt lists no image"),
        ("", "train.txt is empty"),
    ],
)
def test_a_list_that_names_nothing_twice_or_what_is_not_there_is_refused(tmp_path, text, said):
    assert said in refused("voc", listed(voc(tmp_path), text))


def test_a_lone_list_of_train_and_val_is_divided_among_the_two(tmp_path):
    for k in range(60):
        voc(tmp_path, stem=f"{k:03}")
    listed(tmp_path, "\n".join(f"{k:03}" for k in range(40)), "trainval")
    train, val = (data.load("voc", split, path=tmp_path) for split in ("train", "val"))
    assert len(train) + len(val) == 40 and len(train) > 30
    assert train.notes == (
        "passed over, as no list names them: annotations/040.xml, annotations/041.xml, annotations/042.xml … (20)",
    )
    listed(tmp_path, "\n".join(f"{k:03}" for k in range(30)))
    assert [len(data.load("voc", split, path=tmp_path)) for split in ("train", "val")] == [30, 10]


def test_an_image_in_two_lists_and_lists_of_classes_alone_are_refused(tmp_path):
    listed(listed(voc(tmp_path)), name="val")
    assert "Main/train.txt and ImageSets/Main/val.txt both list a" in refused("voc", tmp_path)
    for name in ("train", "val"):
        (tmp_path / f"ImageSets/Main/{name}.txt").unlink()
    assert "car_train.txt is a list, but there is neither train.txt" in refused(
        "voc", listed(tmp_path, name="car_train")
    )


def test_images_that_nothing_is_annotated_for_are_told(tmp_path, capsys):
    classes(listed(voc(tmp_path)), "images/b")
    data.load("voc", "train", path=tmp_path)
    assert (
        "1 image, 1 box, 1 class; passed over, as nothing is annotated for them: images/b.png"
        in capsys.readouterr().err
    )


# COCO


@pytest.mark.parametrize("ids", [(1, "1"), ("1", 1), (1, 1.0), ("a", "a")])
def test_ids_of_another_type_are_matched(tmp_path, ids):
    save(tmp_path / "1.png")
    coco(
        tmp_path,
        [{"id": ids[0], "file_name": "1.png"}],
        [{"id": 1, "image_id": ids[1], "category_id": ids[1], "bbox": [1, 2, 3, 4]}],
        [{"id": ids[0], "name": "cat"}],
    )
    assert data.load("coco", "train", path=tmp_path).boxes[0].tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_id": 9}, "annotations[0] has the image_id 9, but none of images has that id"),
        ({"image_id": None}, "annotations[0] has the image_id None"),
        ({"image_id": True}, "annotations[0] has the image_id True"),
        ({"category_id": 3}, "annotations[0] has the category_id 3, but none of categories has that id"),
        ({"bbox": {"x": 1}}, "annotations[0] has the bbox {'x': 1}, expected a list of four numbers"),
        ({"bbox": [1, 2, 3]}, "annotations[0] has the bbox [1, 2, 3]"),
        ({"bbox": [1, 2, "3", 4]}, "annotations[0] has the bbox [1, 2, '3', 4]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotations[0] has the bbox [1, 2, nan, 4]"),
        ({"bbox": None}, "annotations[0] has the bbox None"),
        ({"iscrowd": 2}, "annotations[0]: iscrowd is 2, expected 0 or 1"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_refused(tmp_path, changed, said):
    save(tmp_path / "1.png")
    note = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} | changed
    assert f"train.json: {said}" in refused("coco", coco(tmp_path, annotations=[note]))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([{"id": 1}], "images[0] has the file_name None"),
        (["1.png"], "images[0] is '1.png', expected an object with an id"),
        ([{"file_name": "1.png"}], "images[0] is {'file_name': '1.png'}, expected an object with an id"),
        ([{"id": 1, "file_name": "1.png"}, {"id": "1", "file_name": "2.png"}], "images[1] has the id 1, as another"),
        ([{"id": 1, "file_name": "1.png", "width": "wide"}], "images[0]: width is 'wide', expected a number"),
    ],
)
def test_an_entry_of_an_image_that_cannot_be_used_is_refused(tmp_path, images, said):
    classes(tmp_path, "1", "2")
    assert f"train.json: {said}" in refused("coco", coco(tmp_path, images))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"images": []}', "[" * 10**5, "null", "\ufeff"])
def test_a_file_that_is_not_coco_is_refused(tmp_path, content):
    write(tmp_path / "train.json", content)
    assert "train.json" in refused("coco", tmp_path)


def test_classes_that_are_numbered_otherwise_in_another_split_are_refused(tmp_path):
    classes(tmp_path, "train/1", "val/1")
    coco(tmp_path, categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    coco(tmp_path, categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}], split="val")
    assert "val.json numbers the classes dog, cat, but train.json cat, dog" in refused("coco", tmp_path, "val")


def test_cocos_own_file_names_are_known(tmp_path):
    classes(tmp_path, "train2017/1", "val2017/1")
    for split in ("train", "val"):
        coco(tmp_path, split=f"annotations/instances_{split}2017")
    parts = [data.load("coco", split, path=tmp_path) for split in ("train", "val")]
    assert (parts[0].images != parts[1].images).any()


# Crowd regions and difficult objects


def test_a_crowd_region_is_no_object_and_is_kept_apart(tmp_path, capsys):
    save(tmp_path / "1.png")
    one = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [2, 2, 3, 3]}
    crowd = one | {"id": 2, "iscrowd": 1, "bbox": [0, 0, 8, 8], "segmentation": {"size": [8, 8], "counts": [0, 64]}}
    hard = one | {"id": 3, "ignore": 1, "bbox": [5, 5, 1, 1]}
    part = data.load("coco", "train", path=coco(tmp_path, annotations=[one, crowd, hard]), size=16)
    assert part.boxes[0].tolist() == [[4, 4, 10, 10]]
    assert part.extras["crowd_boxes"][0].tolist() == [[0, 0, 16, 16]] and part.extras["crowd_labels"][0].tolist() == [0]
    assert part.extras["difficult_boxes"][0].tolist() == [[10, 10, 12, 12]]
    assert "1 image, 1 box, 1 class; 1 crowd region and 1 difficult object ignored in scores" in capsys.readouterr().err
    assert part.take([0]).ignored() == part.ignored()


def test_a_difficult_object_is_kept_apart_and_scores_ignore_it(tmp_path):
    voc(tmp_path, thing() + thing(box=(6, 6, 8, 8), more="<difficult>1</difficult>"))
    part = data.load("voc", "train", path=listed(tmp_path))
    assert part.boxes[0].tolist() == [[0, 0, 5, 5]] and part.extras["difficult_boxes"][0].tolist() == [[5, 5, 8, 8]]
    found = [[[5, 5, 8, 8], [0, 0, 5, 5]]], [[0, 0]], [[0.9, 0.8]]
    assert metrics.detection_scores(part.boxes, part.labels, *found)["AP50"] == 0.5
    assert metrics.detection_scores(part.boxes, part.labels, *found, **part.ignored())["AP50"] == pytest.approx(1)
    voc(tmp_path, thing(more="<difficult>perhaps</difficult>"))
    assert "annotations/a.xml: difficult is 'perhaps', expected 0 or 1" in refused("voc", tmp_path)


# Files that can't be read


def corrupt(path, how):
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": os.urandom(100)}[how])


@pytest.mark.parametrize("how", ["empty", "cut", "noise"])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_a_broken_image_is_named(tmp_path, ending, how):
    classes(tmp_path, "train/a/1", ending=ending)
    corrupt(tmp_path / f"train/a/1.{ending}", how)
    assert f"train/a/1.{ending} " in refused("folder", tmp_path)


def test_an_image_of_too_many_pixels_is_named_and_not_decoded(tmp_path):
    for side in (20_000, 10_000):  # Pillow refuses the first, and warns of the second
        (tmp_path / "train/a").mkdir(parents=True, exist_ok=True)
        Image.new("1", (side, side)).save(tmp_path / "train/a/1.png")
        with pytest.warns(Image.DecompressionBombWarning) if side == 10_000 else pytest.MonkeyPatch.context():
            assert "train/a/1.png is too large" in refused("folder", tmp_path)


def test_a_file_that_is_too_large_is_named_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("cvlab.stores.LARGEST_FILE", 100)
    classes(tmp_path, "train/a/1")
    assert "train/a/1.png holds" in refused("folder", tmp_path)


@pytest.mark.parametrize("content", ["Stra\u00dfe", "a\0b"])
def test_classes_in_another_encoding_are_refused(tmp_path, content):
    masks(tmp_path)
    write(tmp_path / "classes.txt", content, "latin-1")
    assert "classes.txt" in refused("masks", tmp_path) and "UTF-8" in refused("masks", tmp_path)


def test_an_empty_line_within_the_classes_is_refused_as_it_would_shift_their_numbers(tmp_path):
    assert "classes.txt: line 2 is empty" in refused("masks", masks(tmp_path, names="road\n\nsky"))


@pytest.mark.parametrize(
    "content",
    [
        b"<annotation>",
        b"\xff\xfe\x00",
        b"<annotations/>",
        b"<?xml version='1.0' encoding='gbk'?><annotation/>",
        b"<?xml version='1.0' encoding='no such'?><annotation/>",
        b"not XML",
        b"",
        b"<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>",
        b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation><filename>&x;</filename></annotation>",
    ],
)
def test_an_annotation_that_is_no_xml_or_declares_entities_is_refused(tmp_path, content):
    voc(listed(tmp_path))
    (tmp_path / "annotations/a.xml").write_bytes(content)
    assert "annotations/a.xml" in refused("voc", tmp_path)


@pytest.mark.parametrize("how", ["method", "password", "empty", "text"])
def test_an_archive_that_cannot_be_read_is_named(tmp_path, how):
    classes(tmp_path / "own", "train/a/1")
    raw = bytearray((archive := pack(tmp_path / "own")).read_bytes())
    central = raw.find(b"PK\1\2")
    if how == "method":
        raw[8], raw[central + 10] = 9, 9  # Deflate64
    if how == "password":
        raw[6], raw[central + 8] = raw[6] | 1, raw[central + 8] | 1
    archive.write_bytes({"empty": b"", "text": b"no archive"}.get(how, bytes(raw)))
    assert "own.zip" in refused("folder", archive)


def test_a_file_name_that_is_no_unicode_can_be_drawn_too(tmp_path):
    assert readers.drawn("a/\udcff.png") in readers.SPLITS
