"""`python -m cvlab data check`: all faults are listed, and the exit status tells what came of it."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from test_readers import coco, listed, masks, pack, save, thing, voc, write

from cvlab import __main__, audit


def photograph(seed, side=64):
    """Draw an image that looks like no other: random blots."""
    blots = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blots).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def clean(tmp_path):
    """An image folder in which nothing is wrong."""
    for k in range(24):
        save(tmp_path / f"clean/{('train', 'val', 'test')[k % 12 // 5]}/{'ab'[k // 12]}/{k}.png", photograph(k))
    return tmp_path / "clean"


def check(path, capsys, *options):
    """Give (exit status, what is printed, what is printed on stderr)."""
    status = __main__.main(["data", "check", str(path), *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def row(name, out):
    """Give the numbers in a row of the table."""
    line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
    return [int(number) for number in line.removeprefix(name).split()]


@pytest.mark.parametrize("packed", [False, True])
def test_a_clean_folder_or_archive_has_a_table_and_status_0(clean, capsys, packed):
    status, out, err = check(pack(clean, "wrapped/") if packed else clean, capsys)
    assert (status, err) == (0, "") and ": an image folder" in out and out.endswith("nothing is wrong\n")
    assert row("images", out) == [10, 10, 4, 24] and row("classes", out) == [2, 2, 2, 2]
    assert all(row(name, out) == [0] for kind, name in audit.ROWS.items() if kind != "outside")


def test_all_faults_of_an_image_folder_are_listed(clean, capsys):
    save(clean / "test/b/copy.png", photograph(0))
    smaller = Image.fromarray(photograph(12, 200)).resize((50, 50))
    smaller.save(clean / "test/b/smaller.jpg", quality=60)
    for place in ("val/a/5.png", "val/b/17.png"):
        (clean / place).write_bytes((clean / place).read_bytes()[:-60])
    write(clean / "val/b/empty.png", "")
    write(clean / "val/b/1.heic", "ftypheic")
    save(clean / "val/loose.png", photograph(30))
    save(clean / "train/c/1.tif", photograph(31))
    save(clean / "train/.ipynb_checkpoints/1-checkpoint.png", photograph(32))
    os.symlink(clean / "nowhere", clean / "train/d")
    status, out, _ = check(clean, capsys)
    assert status == 1 and row("unreadable files", out) == [5]
    for place in ("val/a/5.png", "val/b/17.png", "val/b/empty.png", "val/b/1.heic", "train/d"):
        assert any(line.startswith("unreadable files: ") and f"{place} " in line for line in out.splitlines())
    assert row("missing labels or images", out) == [1] and "val/loose.png lies in no class folder" in out
    assert "classes with fewer than ten images: c: 1 of 29 images" in out
    assert row("duplicates", out) == [1]
    assert "train/a/0.png, test/b/copy.png hold the same image" in out.replace(
        "test/b/copy.png, train/a/0.png", "train/a/0.png, test/b/copy.png"
    )
    assert row("near-duplicates across splits", out) == [1]
    assert "test/b/smaller.jpg resembles train/b/12.png" in out
    assert "passed over, as hidden or metadata: train/.ipynb_checkpoints" in out
    assert "Traceback" not in out


def test_all_faults_of_voc_data_are_listed(tmp_path, capsys):
    for k in range(12):
        save(tmp_path / f"images/{k}.png", photograph(k))
        voc(tmp_path, thing(), f"{k}", image=False)
    voc(tmp_path, thing(box=(60, 1, 70, 9)) + thing(box=(9, 9, 3, 3)), "0", image=False)
    voc(tmp_path, thing("") + thing().replace("xmax", "xmux") + thing(), "1", image=False)
    voc(tmp_path, thing(), "2", head="<size><width>640</width><height>480</height></size>", image=False)
    voc(tmp_path, thing(), "3", head="<filename>three.png</filename>", image=False)
    write(tmp_path / "annotations/4.xml", "<annotation>")
    voc(tmp_path, thing(), "nowhere", image=False)
    save(tmp_path / "images/bare.png", photograph(20))
    listed(listed(tmp_path, "".join(f"{k}\n" for k in [*range(12), "nowhere", "unknown", 7])), "5\n", "val")
    status, out, _ = check(tmp_path, capsys)
    assert status == 1 and ": Pascal VOC" in out
    assert row("boxes empty or outside", out) == [2] and row("sizes that disagree", out) == [1]
    assert row("unreadable files", out) == [1] and "annotations/4.xml is not XML" in out
    for said in (
        "images/0.png is empty or outside its 64×64 pixels: [59.0, 0.0, 70.0, 9.0]",
        "images/0.png is empty or outside its 64×64 pixels: [8.0, 8.0, 3.0, 3.0]",
        "an object of annotations/1.xml has no name",
        "an object of annotations/1.xml lacks one of bndbox's",
        "images/2.png has 64×64 pixels, but annotations/2.xml says 640×480",
        "annotations/3.xml names the image three.png, which is not there",
        "annotations/nowhere.xml has no image nowhere.jpg",
        "images/bare.png: nothing is annotated for this image",
        "train.txt: 'unknown' in line 14 has no annotation",
        "train.txt: '7' is in lines 8 and 15",
        "train.txt and ImageSets/Main/val.txt both list 5",
    ):
        assert said in out, said


def test_all_faults_of_coco_data_are_listed(tmp_path, capsys):
    for k in range(1, 13):
        save(tmp_path / f"{k}.png", photograph(k))
    images = [{"id": k, "file_name": f"{k}.png"} for k in range(1, 14)]
    notes = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 3, 4]} for k in range(1, 13)]
    notes += [
        notes[0] | {"bbox": [60, 1, 10, 10]},
        notes[0] | {"image_id": 99},
        notes[0] | {"bbox": None},
        notes[0] | {"iscrowd": 1},
    ]
    images[4] |= {"width": 10, "height": 64}
    coco(tmp_path, images, notes)
    write(tmp_path / "val.json", "{")
    status, out, _ = check(tmp_path, capsys)
    assert status == 1 and ": COCO" in out and row("crowd regions", out) == [1, 1] and row("boxes", out) == [13, 13]
    for said in (
        "val.json is not JSON",
        "13.png, which is not there",
        "1.png is empty or outside",
        "annotations[13] has the image_id 99",
        "annotations[14] has the bbox None",
        "5.png has 64×64 pixels, but train.json says 10×64",
    ):
        assert said in out, said


def test_all_faults_of_label_maps_are_listed(tmp_path, capsys):
    for k in range(12):
        masks(tmp_path, f"{k}", names="void\n\nroad\nRoad")
    save(tmp_path / "train/labels/0.png", np.zeros((9, 8), np.uint8))
    save(tmp_path / "train/labels/1.png", np.full((8, 8), 9, np.uint8))
    save(tmp_path / "train/labels/2.png")
    (tmp_path / "train/labels/3.png").unlink()
    (tmp_path / "train/images/4.png").unlink()
    write(tmp_path / "train/labels/5.png", "no image")
    status, out, _ = check(tmp_path, capsys)
    assert status == 1 and ": label maps" in out
    for said in (
        "classes.txt has void in line 1",
        "classes.txt: line 2 is empty",
        "has the class 'Road' twice, also as 'road'",
        "labels/0.png has 8×9 pixels",
        "labels/1.png holds 9, expected",
        "labels/2.png is in colours",
        "no label map train/labels/3.png for train/images/3.png",
        "train/labels/4.png is a label map of no image",
        "train/labels/5.png can't be read",
    ):
        assert said in out, said


def test_data_of_several_kinds_in_one_folder_is_checked_as_each_of_them(clean, capsys):
    for k in range(12):
        save(clean / f"images/{k}.png", photograph(50 + k))
        voc(clean, thing(), f"{k}", image=False)
    coco(clean, [{"id": 1, "file_name": "images/0.png"}])
    status, out, _ = check(clean, capsys)
    assert status == 1 and all(kind in out for kind in (": Pascal VOC", ": COCO", ": an image folder"))


@pytest.mark.parametrize("content", [None, "", "no archive", {}, {"notes.txt": "x"}, {"train.json": "{"}])
def test_what_cannot_be_read_at_all_has_status_2_and_one_line(tmp_path, capsys, content):
    path = tmp_path / "own"
    if isinstance(content, str):
        write(path, content)
    if isinstance(content, dict):
        path.mkdir()
        for name, text in content.items():
            write(path / name, text)
    status, out, err = check(path, capsys)
    assert status == 2 and str(path) in err and err.count("\n") == 1


def test_the_kind_can_be_named(clean, capsys):
    assert check(clean, capsys, "--kind", "folder")[0] == 0
    status, _, err = check(clean, capsys, "--kind", "voc")
    assert status == 2 and "no annotations; expected Pascal VOC" in err


def test_a_file_of_another_purpose_is_not_taken_for_coco(clean, capsys):
    write(clean / "settings.json", json.dumps({"images": 3}))
    status, out, _ = check(clean, capsys)
    assert status == 0 and "settings.json" in out


def test_flat_images_of_other_shades_are_no_near_duplicates(tmp_path, capsys):
    for k in range(24):
        save(tmp_path / f"{('train', 'val')[k % 2]}/a/{k}.png", np.full((8, 8, 3), 5 * k, np.uint8))
    assert check(tmp_path, capsys)[0] == 0
