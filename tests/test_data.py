"""Datasets: what is loaded is what lies in the archive, and what is wrong is said in one line."""

import dataclasses
import hashlib
import http.server
import io
import json
import os
import ssl
import subprocess
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvlab import data, files

TOYBOX = data.EMBEDDED / "toybox"


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def shades(*values, size=(6, 8)):
    return [np.full((*size, 3), v, np.uint8) for v in values]


@pytest.fixture
def image_folder(tmp_path):
    """Two classes, red-ish pictures in three splits; the shade says which picture it is."""
    for shade, place in enumerate(["train/cat/a", "train/cat/b", "train/dog/c", "test/cat/d", "test/dog/e"]):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(shades(10 * shade)[0]))
    return tmp_path


def test_objects_labels_and_boxes_are_those_of_the_archives_own_json():
    loaded = data.load("objects", "test")
    with zipfile.ZipFile(TOYBOX / "objects.zip") as archive:
        coco = json.loads(archive.read("test.json"))
    truth = {a["image_id"]: a for a in coco["annotations"]}
    names = {c["id"]: c["name"] for c in coco["categories"]}
    assert len(loaded) == len(coco["images"]) == 500
    for i, info in enumerate(coco["images"]):
        annotation = truth[info["id"]]
        x, y, width, height = annotation["bbox"]
        assert loaded.class_names[loaded.labels[i]] == names[annotation["category_id"]]
        np.testing.assert_allclose(loaded.boxes[i], [x, y, x + width, y + height])
        assert loaded.masks[i].sum() == annotation["area"]


def test_masks_lie_in_their_boxes_and_parts_in_their_masks():
    loaded = data.load("objects", "val", limit=40)
    for box, mask, parts in zip(loaded.boxes.astype(int), loaded.masks, loaded.parts, strict=True):
        rows, columns = np.nonzero(mask)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()
        assert not (parts[mask == 0]).any()


def test_resizing_halves_the_boxes_and_gives_each_pixel_the_label_that_covers_most_of_it():
    full, half = data.load("objects", "val", limit=5), data.load("objects", "val", limit=5, size=48)
    np.testing.assert_allclose(half.boxes, full.boxes / 2)
    np.testing.assert_array_equal(half.masks, full.masks.reshape(5, 48, 2, 48, 2).mean((2, 4)) > 0.5)
    assert half.masks.dtype == half.parts.dtype == np.uint8
    blocks = full.images.reshape(5, 48, 2, 48, 2, 3).mean((2, 4))
    assert np.abs(half.images - blocks).max() <= 1  # area resizing is the mean of 2×2 pixels


def test_scenes_know_a_class_for_every_pixel():
    loaded = data.load("scenes", "val", limit=20)
    assert loaded.mask_names[:2] == ("floor", "wall") and loaded.mask_names[2:] == loaded.class_names
    for labels, instances, masks in zip(loaded.labels, loaded.instances, loaded.masks, strict=True):
        for k, label in enumerate(labels, 1):
            assert (masks[instances == k] == label + 2).all()
        assert (masks[instances == 0] < 2).all()


@pytest.mark.parametrize("name", ["objects", "scenes"])
def test_no_base_part_knows_the_duck(name):
    assert "duck" not in data.load(name, "test", limit=1).class_names


def test_each_of_the_five_duck_pictures_shows_one():
    ducks = data.load("duck", "train")
    assert len(ducks) == 5 and all(ducks.class_names.index("duck") in labels for labels in ducks.labels)


def test_only_keeps_the_boxes_of_the_classes_asked_for_and_numbers_them_in_that_order():
    part = data.load("scenes", "test", limit=20)
    some = part.only(["mug", "ball"])
    assert some.class_names == ("mug", "ball") and len(some) == 20
    for own, labels, every, names in zip(some.boxes, some.labels, part.boxes, part.labels, strict=True):
        for new, name in enumerate(some.class_names):
            kept = every[names == part.class_names.index(name)]
            assert np.array_equal(own[labels == new], kept)
    assert sum(map(len, some.boxes)) > 0


def test_only_follows_in_the_boxes_that_scores_ignore():
    part = data.load("scenes", "test", limit=2)
    crowd = [np.float32([[0, 0, 9, 9]])] * 2
    extras = {"crowd_boxes": crowd, "crowd_labels": [np.array([1]), np.array([0])]}
    some = dataclasses.replace(part, extras=extras).only([part.class_names[1]])
    assert [len(own) for own in some.extras["crowd_boxes"]] == [1, 0]
    assert some.extras["crowd_labels"][0].tolist() == [0]


def test_only_refuses_an_unknown_class_and_data_with_one_class_an_image():
    with pytest.raises(ValueError, match=r"only: class_names has 'zebra', expected some of ball, "):
        data.load("scenes", "test", limit=1).only(["zebra"])
    with pytest.raises(ValueError, match=r"only: objects has one class an image"):
        data.load("objects", "val", limit=1).only(["dog"])


def test_few_draws_so_many_of_each_class_and_smaller_draws_are_part_of_larger():
    labels = np.repeat(np.arange(3), [9, 20, 4])
    source = data.Dataset(
        "x", "train", np.arange(33)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), labels, ("a", "b", "c")
    )
    small, large = source.few(5, seed=1), source.few(8, seed=1)
    assert np.bincount(small.labels).tolist() == [5, 5, 4]
    drawn = [set(d.images[:, 0, 0, 0].tolist()) for d in (small, large, source.few(5, seed=2))]
    assert drawn[0] < drawn[1] and drawn[0] != drawn[2]
    np.testing.assert_array_equal(labels[small.images[:, 0, 0, 0].astype(int)], small.labels)


def test_own_image_folder_has_classes_by_name_and_splits_by_folder(image_folder):
    train, test = (data.load("folder", split, path=image_folder) for split in ("train", "test"))
    assert train.class_names == ("cat", "dog") and train.labels.tolist() == [0, 0, 1]
    assert train.images[:, 0, 0, 0].tolist() == [0, 10, 20] and test.images[:, 0, 0, 0].tolist() == [30, 40]


def test_a_class_has_one_number_in_all_splits_and_one_name(image_folder):
    (image_folder / "test/cat/d.png").unlink()
    assert data.load("folder", "test", path=image_folder).labels.tolist() == [1]
    (image_folder / "train/dog").rename(image_folder / "train/Cat")
    with pytest.raises(data.DataError, match="has the class 'cat' twice, also as 'Cat'"):
        data.load("folder", "train", path=image_folder)


def test_folder_without_splits_is_divided_and_each_picture_is_in_one_split(tmp_path):
    for i in range(60):
        path = tmp_path / f"{'ab'[i % 2]}/{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(shades(i)[0]))
    seen = [data.load("folder", split, path=tmp_path).images[:, 0, 0, 0].tolist() for split in ("train", "val", "test")]
    assert sorted(sum(seen, [])) == list(range(60)) and len(seen[0]) > 40


def test_a_zip_reads_like_its_folder(image_folder, tmp_path_factory):
    archive = tmp_path_factory.mktemp("zip") / "own.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in image_folder.rglob("*.png"):
            out.write(path, path.relative_to(image_folder).as_posix())
    np.testing.assert_array_equal(
        data.load("folder", path=archive).images, data.load("folder", path=image_folder).images
    )


def voc_folder(root, box, label="duck", picture=True, size=(30, 40)):
    for folder in ("images", "annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if picture:
        (root / "images/one.png").write_bytes(png(np.zeros((*size, 3), np.uint8)))
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    objects = f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"
    (root / "annotations/one.xml").write_text(f"<annotation>{objects}</annotation>")
    (root / "ImageSets/Main/train.txt").write_text("one\n")
    return root


def test_voc_boxes_count_from_one_and_include_the_last_pixel(tmp_path):
    loaded = data.load("voc", "train", path=voc_folder(tmp_path, (1, 1, 40, 30)))
    np.testing.assert_array_equal(loaded.boxes[0], [[0, 0, 40, 30]])  # the whole picture
    assert loaded.class_names == ("duck",) and loaded.labels[0].tolist() == [0]


@pytest.mark.parametrize("box", [(1, 1, 41, 30), (10, 10, 9, 12), (-3, 1, 5, 5)])
def test_voc_box_outside_its_picture_is_named(tmp_path, box):
    with pytest.raises(data.DataError, match=r"images/one\.png is empty or outside its 40×30"):
        data.load("voc", "train", path=voc_folder(tmp_path, box))


def test_voc_annotation_without_its_image_is_named(tmp_path):
    with pytest.raises(data.DataError, match=r"annotations/one\.xml has no image one"):
        data.load("voc", "train", path=voc_folder(tmp_path, (1, 1, 5, 5), picture=False))


OBJECT = "<object><name>duck</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ("", r"no annotation has an object, from annotations/one\.xml on"),
        (OBJECT.replace("duck", " "), r"an object of annotations/one\.xml has no name"),
        (
            OBJECT.replace("<xmax>5</xmax>", ""),
            r"an object of annotations/one\.xml lacks one of bndbox's xmin, ymin, xmax",
        ),
        (OBJECT + OBJECT.replace("duck", "Duck"), "has the class 'duck' twice, also as 'Duck'"),
        ("<object>", r"annotations/one\.xml is not XML"),
    ],
)
def test_what_is_wrong_in_a_voc_annotation_is_named(tmp_path, objects, said):
    voc_folder(tmp_path, (1, 1, 5, 5))
    (tmp_path / "annotations/one.xml").write_text(f"<annotation>{objects}</annotation>")
    with pytest.raises(data.DataError, match=said) as error:
        data.load("voc", "train", path=tmp_path)
    assert "\n" not in str(error.value)


def test_voc_boxes_that_count_from_zero_are_kept_and_classes_have_one_number_in_all_splits(tmp_path):
    voc_folder(tmp_path, (0, 0, 40, 30))
    (tmp_path / "images/two.png").write_bytes(png(np.zeros((30, 40, 3), np.uint8)))
    (tmp_path / "annotations/two.xml").write_text(f"<annotation>{OBJECT.replace('duck', 'cat')}</annotation>")
    (tmp_path / "ImageSets/Main/val.txt").write_text("two\n")
    train, val = (data.load("voc", split, path=tmp_path) for split in ("train", "val"))
    np.testing.assert_array_equal(train.boxes[0], [[0, 0, 40, 30]])
    assert train.class_names == val.class_names == ("cat", "duck")
    assert (train.labels[0].tolist(), val.labels[0].tolist()) == ([1], [0])
    with pytest.raises(data.DataError, match="no images for split 'test'"):
        data.load("voc", "test", path=tmp_path)


def coco_folder(root, **changed):
    content = {
        "images": [{"id": 7, "file_name": "one.png", "width": 40, "height": 30}],
        "categories": [{"id": 5, "name": "mug"}, {"id": 2, "name": "duck"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [4, 6, 10, 20]}],
    } | changed
    (root / "train.json").write_text(json.dumps(content))
    (root / "one.png").write_bytes(png(np.zeros((30, 40, 3), np.uint8)))
    return root


def test_coco_ids_become_labels_from_zero_and_widths_become_corners(tmp_path):
    loaded = data.load("coco", "train", path=coco_folder(tmp_path))
    assert loaded.class_names == ("duck", "mug") and loaded.labels[0].tolist() == [1]
    np.testing.assert_array_equal(loaded.boxes[0], [[4, 6, 14, 26]])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"categories": [{"id": 5, "name": "mug"}, {"id": 2, "name": "mug"}]}, "'mug' twice"),
        ({"images": [{"id": 7, "file_name": "two.png", "width": 40, "height": 30}]}, "two.png, which is not there"),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [4, 6, 0, 20]}]},
            r"one\.png is empty or outside its 40×30",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [35, 6, 10, 5]}]},
            r"one\.png is empty or outside its 40×30",
        ),
    ],
)
def test_what_is_wrong_in_a_coco_file_is_named(tmp_path, changed, said):
    with pytest.raises(data.DataError, match=said):
        data.load("coco", "train", path=coco_folder(tmp_path, **changed))


def test_coco_picture_is_the_one_of_its_split_where_names_repeat_and_may_show_nothing(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (7, 8)]
    coco_folder(tmp_path, images=images)
    for shade, place in enumerate(["val/7", "train/7", "train/8"]):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(png(shades(shade, size=(30, 40))[0]))
    loaded = data.load("coco", "train", path=tmp_path)
    assert loaded.images[:, 0, 0, 0].tolist() == [1, 2]
    assert [len(boxes) for boxes in loaded.boxes] == [1, 0] and loaded.boxes[1].shape == (0, 4)


def masks_folder(root, mask, size=(6, 8), names="road\ntraffic light\nvoid\n", place="train/{}/one", **more):
    """A picture, its label map and classes.txt, as a labelling tool leaves them; `more` are further label maps."""
    for stem, map_ in {"one": mask, **more}.items():
        for kind, array, ends in (("images", np.zeros((*size, 3), np.uint8), "jpg"), ("labels", map_, "png")):
            path = root / f"{place.format(kind).replace('one', stem)}.{ends}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if array is not None:
                Image.fromarray(array).save(path)
    (root / "classes.txt").write_text(names)
    return root


def test_label_maps_are_what_was_painted_and_void_is_no_class(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (6, 8), dtype=np.uint8)
    loaded = data.load("masks", "train", path=masks_folder(tmp_path, mask))
    np.testing.assert_array_equal(loaded.masks, mask[None])
    assert loaded.images.shape == (1, 6, 8, 3) and loaded.masks.dtype == np.uint8
    assert (loaded.class_names, loaded.mask_names) == (("road", "traffic light"), ("road", "traffic light", "void"))


def test_label_maps_may_be_palette_pictures_and_16_bit_ones(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (6, 8), dtype=np.uint8)
    masks_folder(tmp_path, mask.astype(np.uint16), two=mask)
    indexed = Image.fromarray(mask)
    indexed.putpalette([200, 0, 0, 0, 200, 0, 9, 9, 9])
    indexed.save(tmp_path / "train/labels/two.png")
    for found in data.load("masks", "train", path=tmp_path).masks:
        np.testing.assert_array_equal(found, mask)


def test_label_maps_of_several_sizes_are_a_list_and_have_one_size_on_demand(tmp_path):
    masks_folder(tmp_path, np.ones((6, 8), np.uint8))
    masks_folder(tmp_path, np.zeros((4, 4), np.uint8), (4, 4), place="train/{}/two")
    assert [m.shape for m in data.load("masks", "train", path=tmp_path).masks] == [(6, 8), (4, 4)]
    small = data.load("masks", "train", path=tmp_path, size=2)
    assert small.images.shape == (2, 2, 2, 3) and small.masks.tolist() == [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]
    assert [m.shape for m in data.load("masks", "train", path=tmp_path).take([1]).masks] == [(4, 4)]


def test_label_maps_without_splits_are_divided_by_name(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    masks_folder(tmp_path, mask, place="{}/one", **{f"p{i}": mask for i in range(40)})
    train, val, test = data.splits("masks", path=tmp_path)
    assert len(train) + len(val) + len(test) == 41 and len(train) > 25


@pytest.mark.parametrize(
    ("mask", "names", "said"),
    [
        (None, "road\nvoid", r"no label map train/labels/one\.png for train/images/one\.jpg"),
        (
            np.zeros((6, 9), np.uint8),
            "road\nvoid",
            r"labels/one\.png has 9×6 pixels, its image train/images/one.jpg 8×6",
        ),
        (np.full((6, 8), 255, np.uint8), "road\nvoid", r"labels/one\.png holds 255, expected 0…1, as .* has 2 lines"),
        (np.zeros((6, 8, 3), np.uint8), "road\nvoid", r"labels/one\.png is in colours, expected the number of a class"),
        (np.zeros((6, 8), np.uint8), "void\nroad", "has void in line 1, expected in the last"),
        (np.zeros((6, 8), np.uint8), "road\nRoad", "classes.txt: has the class 'Road' twice, also as 'road'"),
        (np.zeros((6, 8), np.uint8), " \n", "no classes.txt with a class a line; expected label maps, <split>/images"),
    ],
)
def test_what_is_wrong_in_a_folder_of_label_maps_is_named(tmp_path, mask, names, said):
    with pytest.raises(data.DataError, match=said) as error:
        data.load("masks", "train", path=masks_folder(tmp_path, mask, names=names))
    assert "\n" not in str(error.value)


def test_a_split_without_label_maps_is_named(tmp_path):
    masks_folder(tmp_path, np.zeros((6, 8), np.uint8))
    with pytest.raises(data.DataError, match="no images for split 'test'; expected label maps"):
        data.load("masks", "test", path=tmp_path)


def test_camvid_has_a_test_split_where_its_archive_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    masks_folder(tmp_path / "camvid", np.ones((6, 8), np.uint8), place="test/{}/one")
    assert data.load("camvid", "test").masks.tolist() == [[[1] * 8] * 6]
    with pytest.raises(data.DataError, match="no images for split 'val'"):
        data.load("camvid", "val")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("objets", "train"), "'objets' is not a dataset; there are objects, scenes"),
        (("objects", "dev"), "no split 'dev'; it has train, val, test"),
        (("folder", "train"), "needs path="),
        (("voc", "train"), "needs path=..., Pascal VOC"),
    ],
)
def test_an_unknown_name_or_split_is_answered_with_those_that_are(arguments, said):
    with pytest.raises(ValueError, match=said):
        data.load(*arguments)


def test_an_unknown_class_or_size_is_named():
    with pytest.raises(ValueError, match="'zebra' is not a class of objects: ball, block"):
        data.load("objects", "val", classes=["zebra"])
    with pytest.raises(ValueError, match="size='32'"):
        data.load("objects", "val", size="32")
    with pytest.raises(ValueError, match="limit='5', expected a number of images"):
        data.load("objects", "val", limit="5")


def test_classes_keeps_those_pictures_and_numbers_them_in_the_order_given():
    every, some = data.load("objects", "val"), data.load("objects", "val", classes=["dog", "cat"])
    assert some.class_names == ("dog", "cat")
    kept = [every.class_names[label] for label in every.labels if every.class_names[label] in ("dog", "cat")]
    assert [some.class_names[label] for label in some.labels] == kept


def test_data_that_is_nowhere_is_answered_with_three_ways_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("CVLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(data.DataUnavailable, match="It comes from .* Three ways to get it") as error:
        data.load("raccoon", "train")
    assert "\n" not in str(error.value) and "raccoon.zip" in str(error.value)


def test_a_cvlab_data_that_is_no_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(data.DataUnavailable, match="CVLAB_DATA=.*nowhere is not a folder"):
        data.load("cifar10", "test")


def keep_mnist(folder, **changed):
    """An archive as Keras keeps MNIST: 5,003 training digits and 4 to test on, whose shade says which it is."""
    shades = {"train": np.arange(5003) % 251, "test": np.arange(4)}
    arrays = {f"x_{part}": np.full((len(s), 28, 28), s[:, None, None], np.uint8) for part, s in shades.items()}
    arrays |= {f"y_{part}": (s % 10).astype(np.uint8) for part, s in shades.items()}
    np.savez(folder / "mnist.npz", **arrays | changed)


def test_the_last_5000_of_mnists_training_digits_are_its_validation_split(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    keep_mnist(tmp_path)
    train, val, test = (data.load("mnist", split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (3, 5000, 4)
    assert train.images.shape == (3, 28, 28, 3) and train.images.dtype == np.uint8
    assert [*train.images[:, 5, 5, 1]] == [0, 1, 2] and [*val.images[:3, 0, 0, 0]] == [3, 4, 5]
    assert val.labels[9] == (12 % 10) and val.class_names == tuple("0123456789")
    assert len(data.load("mnist", "val", limit=7)) == 7


def test_arrays_of_objects_are_never_unpickled(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    keep_mnist(tmp_path, y_test=np.array([{}, {}, {}, {}], object))
    with pytest.raises(data.DataError, match="is not Keras' mnist.npz: .*allow_pickle"):
        data.load("mnist", "test")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_data_that_its_home_does_not_give_is_answered_with_three_ways_to_get_it(monkeypatch, tmp_path, name):
    def fetch(url, target, sha256, limit):
        raise data.DataUnavailable(f"fetch: {url} could not be saved as {target}: no network")

    monkeypatch.delenv("CVLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "fetch", fetch)
    with pytest.raises(data.DataUnavailable, match="no network.* Three ways to get it: put .*; set .*; or use the toy"):
        data.load(name, "test")


def test_mnist_is_fetched_from_kerass_own_home_and_compared_with_its_checksum(monkeypatch, tmp_path):
    asked = []

    def fetch(url, target, sha256, limit):
        asked.append((url, sha256, limit))
        keep_mnist(tmp_path / "cvlab")
        return target

    monkeypatch.delenv("CVLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "fetch", fetch)
    (tmp_path / "cvlab").mkdir()
    assert len(data.load("mnist", "test")) == len(data.load("mnist", "test")) == 4
    assert asked == [
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            11490434,
        )
    ]


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_damaged_archive_is_named(monkeypatch, tmp_path, damage):
    archive = tmp_path / "raccoon.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("images/raccoon-1.jpg", os.urandom(4000))
        out.writestr("annotations/raccoon-1.xml", "<annotation/>")
    whole = archive.read_bytes()
    archive.write_bytes(
        {"truncated": whole[:2000], "overwritten": whole[:100] + b"\0" * 200 + whole[300:], "empty": b""}[damage]
    )
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"raccoon\.zip"):
        data.load("raccoon", "train")


def test_toybox_that_differs_from_the_manifest_is_refused(monkeypatch, tmp_path):
    (tmp_path / "toybox").mkdir()
    (tmp_path / "manifest.json").write_text((data.EMBEDDED / "manifest.json").read_text())
    (tmp_path / "toybox/objects.zip").write_bytes((TOYBOX / "objects.zip").read_bytes() + b"x")
    monkeypatch.setattr(files, "EMBEDDED", tmp_path)
    with pytest.raises(data.DataError, match="checksum differs"):
        data.load("objects", "test")


def test_every_file_of_the_manifest_is_there_and_whole():
    for key, entry in data.manifest().items():
        content = (data.EMBEDDED / key).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), key


def test_unknown_weights_are_answered_with_those_that_are():
    with pytest.raises(ValueError, match="'vgg' is not among the embedded weights: .*efficientnet_lite0_imagenet"):
        data.weights("vgg")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.int64),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_images_of_another_type_or_shape_are_named(images):
    with pytest.raises(ValueError, match=f"some_function: images are {images.dtype} of shape"):
        data.as_images(images, "some_function")


def test_centre_crop_keeps_the_centre():
    image = np.zeros((300, 500, 3), np.uint8)
    image[148:152, 248:252] = 255
    crop = data.centre_crop(image)
    rows, columns = np.nonzero(crop[..., 0] > 60)
    assert crop.shape == (224, 224, 3)
    assert abs(rows.mean() - 111.5) < 1 and abs(columns.mean() - 111.5) < 1


@pytest.mark.parametrize(("short", "size"), [(256, 224), (300, 300), (60, 40)])
def test_centre_crop_resizes_the_shorter_side_and_averages_pixels_where_it_shrinks(short, size):
    checks = np.indices((600, 900)).sum(0) % 2 * 255  # of single pixels: their mean is grey, sampling is not
    image = np.repeat(checks[..., None], 3, -1).astype(np.uint8)
    crop = data.centre_crop(image, short, size)
    assert crop.shape == (size, size, 3) and abs(crop.astype(int) - 127.5).max() < 40
    ramp = np.repeat(np.arange(900)[None, :, None] // 4, 600, 0).repeat(3, -1).astype(np.uint8)
    middle = data.centre_crop(ramp, short, size)[size // 2, :, 0].astype(float)
    assert abs(middle.mean() - 450 / 4) < 1
    assert middle[-1] - middle[0] == pytest.approx((size - 1) * 600 / short / 4, abs=1.5)


def test_available_and_describe_say_where_each_dataset_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    places = data.available()
    assert list(places) == list(data.CATALOGUE)
    assert places["objects"] == TOYBOX / "objects.zip"
    for name, place in places.items():
        lines = data.describe(name).splitlines()
        assert lines[0].startswith(f"{name}: ") and lines[-1] == f"here: {place or 'not on this machine'}"
        assert [line.split(":")[0] for line in lines[1:]] == ["splits", "licence", "source", "here"]
    assert data.describe("objects").splitlines()[1:4] == [
        "splits: train, val, test",
        "licence: CC BY 4.0",
        "source: this book",
    ]
    assert data.describe("voc") == f"voc: your own data, {data.OWN['voc']}; load('voc', split, path=...)"
    with pytest.raises(ValueError, match="'voc2' is not a dataset; there are objects"):
        data.describe("voc2")


def test_a_dataset_that_is_not_on_this_machine_is_available_as_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "find", lambda file: None)
    assert set(data.available().values()) == {None}
    assert data.describe("cifar10").endswith("here: not on this machine")


def test_photographs_are_rgb_and_an_unknown_one_is_named():
    assert all(
        data.photograph(name).shape[-1] == 3 and data.photograph(name).dtype == np.uint8 for name in data.PHOTOGRAPHS
    )
    with pytest.raises(ValueError, match="'lena' is not one of chelsea"):
        data.photograph("lena")


class Server(tuple):
    """(address of a file, ssl context, what is in the file), and the folder that it serves."""


@pytest.fixture(scope="module")
def https_server(tmp_path_factory):
    """A server on this machine that gives 3,000 bytes over https; yields (address, context, content)."""
    folder = tmp_path_factory.mktemp("server")
    content = bytes(range(256)) * 12
    (folder / "file.bin").write_bytes(content)
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            folder / "key.pem",
            "-out",
            folder / "cert.pem",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl is not here to make a certificate for the test's own server")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = inside.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = Server(
        (
            f"https://127.0.0.1:{server.server_port}/file.bin",
            ssl.create_default_context(cafile=folder / "cert.pem"),
            content,
        )
    )
    made.folder = folder
    yield made
    server.shutdown()


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """cvlab as a wheel has it, without the toybox: one small file is in the manifest; gives its name."""
    embedded = tmp_path / "package"
    embedded.mkdir()
    file, content = "toybox/tiny.bin", bytes(range(256)) * 12
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    monkeypatch.setattr(files, "EMBEDDED", embedded)
    monkeypatch.setattr(files, "manifest", lambda: {file: entry})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CVLAB_DATA", raising=False)
    return file


def installed(monkeypatch, folder, url, **noted):
    """Let pip have noted where it installed cvlab from."""
    info = folder / "site" / "cvlab-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cvlab\nVersion: 1.0.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": url, **noted}))
    monkeypatch.syspath_prepend(info.parent)


def test_what_a_wheel_lacks_comes_from_its_commit_once_and_again_where_the_cache_is_stale(
    wheel, https_server, monkeypatch, tmp_path
):
    url, _, content = https_server
    monkeypatch.setenv("SSL_CERT_FILE", str(https_server.folder / "cert.pem"))
    served = https_server.folder / f"owner/book/raw/{'c' * 40}/data" / wheel
    served.parent.mkdir(parents=True)
    served.write_bytes(content)
    address = url.replace("file.bin", "owner/book.git")
    installed(monkeypatch, tmp_path, address, vcs_info={"vcs": "git", "commit_id": "c" * 40})
    path = files.whole(wheel, "load: tiny")
    assert path == tmp_path / "cache/cvlab" / wheel and path.read_bytes() == content
    path.write_bytes(b"of another version")
    assert files.whole(wheel, "load: tiny").read_bytes() == content
    served.unlink()
    assert files.whole(wheel, "load: tiny") == path, "it is not fetched again"
    path.unlink()
    with pytest.raises(data.DataUnavailable, match="404"):
        files.whole(wheel, "load: tiny")


@pytest.mark.parametrize(
    ("url", "noted"),
    [
        ("file:///book", {"dir_info": {"editable": True}}),
        ("ssh://git@host/owner/book", {"vcs_info": {"commit_id": "c"}}),
    ],
)
def test_without_an_https_source_three_ways_are_told(wheel, monkeypatch, tmp_path, url, noted):
    installed(monkeypatch, tmp_path, url, **noted)
    with pytest.raises(data.DataUnavailable, match="load: tiny is not on this machine.*Three ways") as error:
        files.whole(wheel, "load: tiny")
    assert "\n" not in str(error.value) and "CVLAB_DATA" in str(error.value)


def test_the_books_own_files_are_found_below_cvlab_data_and_a_damaged_one_is_named(wheel, monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    (tmp_path / wheel).parent.mkdir()
    (tmp_path / wheel).write_bytes(bytes(range(256)) * 12)
    assert files.whole(wheel, "load: tiny") == tmp_path / wheel
    (tmp_path / wheel).write_bytes(b"damaged")
    with pytest.raises(data.DataError, match="load: tiny: .*tiny.bin is damaged"):
        files.whole(wheel, "load: tiny")


def test_fetch_keeps_what_has_the_right_checksum(https_server, tmp_path):
    url, context, content = https_server
    target = files.fetch(url, tmp_path / "new/file.bin", hashlib.sha256(content).hexdigest(), 10_000, context)
    assert target.read_bytes() == content and [p.name for p in target.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    ("sha256", "limit", "said"), [("0" * 64, 10_000, "another checksum"), (None, 1_000, "larger than 1,000 bytes")]
)
def test_fetch_keeps_nothing_of_what_is_wrong_or_too_large(https_server, tmp_path, sha256, limit, said):
    url, context, content = https_server
    with pytest.raises(data.DataUnavailable, match=said):
        files.fetch(url, tmp_path / "file.bin", sha256 or hashlib.sha256(content).hexdigest(), limit, context)
    assert list(tmp_path.iterdir()) == []


def test_fetch_on_a_full_disk_says_so_and_leaves_nothing(https_server, tmp_path, monkeypatch):
    url, context, content = https_server
    real = files.tempfile.NamedTemporaryFile

    def full(*args, **options):
        file = real(*args, **options)
        file.write = lambda block: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        return file

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(data.DataUnavailable, match="No space left on device"):
        files.fetch(url, tmp_path / "file.bin", hashlib.sha256(content).hexdigest(), 10_000, context)
    assert list(tmp_path.iterdir()) == []


def test_fetch_takes_https_only(tmp_path):
    with pytest.raises(ValueError, match="not an https address"):
        files.fetch("http://127.0.0.1/file", tmp_path / "file", "0" * 64, 10)


def has(name):
    return os.environ.get("CVLAB_DATA") and (Path(os.environ["CVLAB_DATA"]) / name).exists()


@pytest.mark.skipif(not has("camvid.zip"), reason="camvid.zip is not in CVLAB_DATA")
def test_camvid_label_maps_hold_class_indices_and_void():
    loaded = data.load("camvid", "val", limit=8)
    assert loaded.masks.shape == loaded.images.shape[:3] and len(loaded.class_names) == 11
    assert loaded.masks.max() <= 11 and loaded.mask_names[11] == "void"
    road = loaded.masks == loaded.class_names.index("road")
    assert road[:, 240:].mean() > 5 * road[:, :120].mean()  # the road is below


@pytest.mark.skipif(not has("raccoon.zip"), reason="raccoon.zip is not in CVLAB_DATA")
def test_raccoon_split_is_by_number_and_boxes_lie_inside():
    train, val = data.load("raccoon", "train"), data.load("raccoon", "val")
    assert (len(train), len(val)) == (160, 40)
    for image, boxes in zip(val.images, val.boxes, strict=True):
        assert (boxes >= 0).all() and (boxes[:, 2:] <= [image.shape[1], image.shape[0]]).all() and len(boxes)


def test_the_books_raccoons_are_small_photographs_with_boxes_inside(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))  # an empty folder: nothing else is needed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train, val = data.load("raccoon_small", "train"), data.load("raccoon_small", "val")
    assert (len(train), len(val)) == (160, 40) and train.class_names == ("raccoon",)
    for part in (train, val):
        for image, boxes in zip(part.images, part.boxes, strict=True):
            assert max(image.shape[:2]) <= 320 and len(boxes)
            assert (boxes >= 0).all() and (boxes[:, 2:] <= np.add(image.shape[1::-1], 0.01)).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()
    with pytest.raises(data.DataUnavailable, match=r"raccoon\.zip"):  # the small ones don't pass for the originals
        data.load("raccoon", "val")


def test_the_books_raccoons_come_with_their_licence_and_without_metadata():
    path = data.EMBEDDED / "photographs/raccoon_small.zip"
    assert path.stat().st_size <= 4_000_000 and data.manifest()["photographs/raccoon_small.zip"]["licence"] == "MIT"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted(names) and {info.date_time for info in archive.infolist()} == {(2026, 1, 1, 0, 0, 0)}
        assert archive.read("LICENSE").startswith(b"MIT License\n\nCopyright (c) 2017 Dat Tran")
        assert len(names) == 401
        for name in (name for name in names if name.endswith(".jpg")):
            assert not Image.open(io.BytesIO(archive.read(name))).getexif()


@pytest.mark.skipif(not has("raccoon.zip"), reason="raccoon.zip is not in CVLAB_DATA")
def test_the_books_raccoons_are_the_originals_reduced():
    large, small = data.load("raccoon", "val"), data.load("raccoon_small", "val")
    for i, image in enumerate(small.images):
        height, width = image.shape[:2]
        factors = np.tile(np.divide(large.images[i].shape[1::-1], (width, height)), 2)
        np.testing.assert_allclose(small.boxes[i] * factors, large.boxes[i], atol=0.01 * factors.max())
        reduced = np.asarray(Image.fromarray(large.images[i]).resize((width, height), Image.Resampling.BOX))
        assert np.abs(reduced - np.float32(image)).mean() < 8  # of 255: JPEG's own error


@pytest.mark.skipif(not has("imagenet_samples.zip"), reason="imagenet_samples.zip is not in CVLAB_DATA")
def test_imagenet_samples_have_one_picture_a_class():
    loaded = data.load("imagenet_samples")
    assert len(loaded) == len(set(loaded.labels.tolist())) == 150
    assert loaded.class_names[loaded.labels[0]] == "great white shark"


def test_splits_are_the_data_sets_own_or_a_tenth_of_train_set_apart(tmp_path):
    train, val, test = data.splits("objects", size=32)
    assert [(d.split, len(d)) for d in (train, val, test)] == [("train", 2000), ("val", 250), ("test", 500)]
    for split, count in (("train", 30), ("test", 4)):
        for k in range(count):
            folder = tmp_path / split / "ab"[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(folder / f"{k}.png")
    train, val, test = data.splits("folder", path=tmp_path)
    assert [(d.split, len(d)) for d in (train, val, test)] == [("train", 27), ("val", 3), ("test", 4)]
    shades = np.concatenate([train.images, val.images])[:, 0, 0, 0]
    assert sorted(shades.tolist()) == list(range(30))


def test_masks_instances_and_parts_still_agree_after_resizing():
    part = data.load("scenes", "val", limit=10, size=70)
    assert ((part.masks >= 2) == (part.instances > 0)).all() and not part.parts[part.instances == 0].any()
    for labels, instances, masks in zip(part.labels, part.instances, part.masks, strict=True):
        assert all((masks[instances == k] == label + 2).all() for k, label in enumerate(labels, 1))


def test_the_books_archives_have_none_of_what_scores_ignore_and_say_what_they_hold():
    part = data.load("scenes", "val", limit=3)
    assert part.ignored() == {} and part.notes == ()
    assert repr(part).startswith("Dataset('scenes', 'val': 160×160, 3 images, ") and repr(part).endswith("9 classes)")


def test_photographs_that_imagenet_has_no_class_for_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    (tmp_path / "imagenet_samples/images").mkdir(parents=True)
    (tmp_path / "imagenet_samples/images/holiday.png").write_bytes(png(shades(1)[0]))
    with pytest.raises(data.DataError, match=r"images/holiday\.png is not named as <wnid>_<name>"):
        data.load("imagenet_samples")


def test_an_annotation_without_a_number_among_the_raccoons_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CVLAB_DATA", str(tmp_path))
    voc_folder(tmp_path / "raccoon", (1, 1, 5, 5))
    with pytest.raises(data.DataError, match="the annotation one is not named as raccoon-1"):
        data.load("raccoon", "train")


def test_an_archive_that_is_not_cifar_10_is_named(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(data.DataError, match=r"cifar-10-binary\.tar\.gz is not CIFAR-10's binary archive"):
        data.READERS["cifar_binary"](tmp_path / "cifar-10-binary.tar.gz", "cifar10", "test", None)


def test_splits_pass_errors_on_that_have_nothing_to_do_with_val():
    with pytest.raises(ValueError, match="unknown|is not|not a"):
        data.splits("objects", classes=["unicorn"])


# The toybox at 640 pixels, as figures show it


def close(render, image):
    """Tell whether a render, averaged over the pixels of an image, is that image."""
    side = len(image)
    reduced = Image.fromarray(render).resize((side, side), Image.Resampling.BOX)
    return np.abs(np.asarray(reduced) - image.astype(float)).mean() < 15


def test_display_gives_the_large_render_of_an_image():
    image = data.display("scenes/test", 21)
    assert (image.shape, image.dtype) == ((640, 640, 3), np.uint8)
    assert close(image, data.load("scenes", "test", limit=22).images[21])


def test_display_names_what_is_rendered_where_something_is_not():
    with pytest.raises(ValueError, match="display: index=249 of scenes/test is not rendered at 640 .* 21, 22"):
        data.display("scenes/test", 249)
    with pytest.raises(ValueError, match="display: no image of 'cifar10/test' is rendered at 640 .*scenes/test"):
        data.display("cifar10/test", 0)


def test_a_dataset_displays_its_renders_and_its_own_images_where_there_are_none():
    scenes = data.load("scenes", "test", limit=100)
    shown = scenes.display([21, 99, 0])
    assert [image.shape for image in shown] == [(640, 640, 3), (160, 160, 3), (640, 640, 3)]
    assert (shown[0] == data.display("scenes/test", 21)).all() and (shown[1] == scenes.images[99]).all()
    assert [len(image) for image in scenes.take([34, 98]).display()] == [640, 160]
    assert [len(image) for image in scenes.display([21, 99], size=320)] == [320, 160]


def test_subsets_of_a_dataset_display_their_own_images():
    train, val, test = data.splits("eyes", size=32)
    subsets = [
        test.take([5, 1]).take([1]),
        test.few(40, seed=1),
        data.load("eyes", "test", classes=["dog"]),
        data.load("eyes", "test", limit=4),
        val,
        data.load("scenes", "test", size=64).take([1]),
    ]
    for subset in subsets:
        renders = [image for image in subset.display() if len(image) == 640]
        assert subset is val or renders
        for i, image in enumerate(subset.display()):
            assert len(image) != 640 or close(image, subset.images[i]), subset
    assert (subsets[0].index.tolist(), subsets[0].origin) == ([1], "eyes/test")
    assert val.origin == "eyes/train" and len(set(val.index) | set(train.index)) == 400


def test_an_image_that_was_changed_is_displayed_as_it_is():
    scenes = data.load("scenes", "test", limit=22).take([21, 0])
    flipped = dataclasses.replace(scenes, images=scenes.images[:, :, ::-1])
    assert (flipped.display()[0] == flipped.images[0]).all()
    doubled = dataclasses.replace(scenes, images=np.concatenate([scenes.images] * 2))
    assert [len(image) for image in doubled.display()] == [160] * 4 and (doubled.index == -1).all()


def test_data_of_your_own_are_displayed_as_they_are(image_folder, monkeypatch):
    monkeypatch.setattr(files, "opened", {})
    loaded = data.load("folder", "train", path=image_folder)
    assert all((shown == image).all() for shown, image in zip(loaded.display(), loaded.images, strict=True))
    assert files.opened == {}, "no archive was needed"


def test_without_the_archive_of_renders_figures_show_the_small_images_and_say_so(monkeypatch):
    scenes = data.load("scenes", "test", limit=1)
    monkeypatch.setattr(data, "DISPLAY", "toybox/elsewhere.zip")
    with pytest.warns(UserWarning, match="figures show the small images .*toybox/elsewhere.zip"):
        assert (scenes.display()[0] == scenes.images[0]).all()
    with pytest.raises(data.DataUnavailable, match="toybox/elsewhere.zip"):
        data.display("scenes/test", 0)


def test_the_renders_load_as_a_dataset_with_boxes_and_masks_at_their_size():
    large, small = data.load("duck", "train", display=True), data.load("duck", "train")
    assert large.images.shape == (5, 640, 640, 3) and large.masks.shape == (5, 640, 640)
    for i, number in enumerate(large.index):
        assert (large.display()[i] == data.display("duck/train", number)).all()
        np.testing.assert_allclose(large.boxes[i] / 4, small.boxes[number], atol=2)
        assert (large.labels[i] == small.labels[number]).all()
        for k, (left, top, right, bottom) in enumerate(large.boxes[i].astype(int), 1):
            rows, columns = np.nonzero(large.instances[i] == k)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    with pytest.raises(ValueError, match="load: no image of 'objects/val' is rendered at 640 pixels"):
        data.load("objects", "val", display=True)
