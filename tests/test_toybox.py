"""The toybox: what its data card claims, measured on the archives themselves, without cvlab."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

DATA = Path(__file__).resolve().parents[1] / "data"
TOYBOX = DATA / "toybox"
BASE = ["ball", "block", "car", "cat", "dog", "fish", "mug", "mushroom", "tree"]
COUNTS = {
    "objects": {"train": 2000, "val": 250, "test": 500},
    "scenes": {"train": 900, "val": 150, "test": 250},
    "duck": {"train": 5, "test": 100},
    "eyes": {"train": 400, "test": 200, "mended_train": 200, "mended_test": 100},
    "pavement": {"train": 400, "test": 100, "turned": 100, "mended_train": 400},
}
SIZES = {"objects": 96, "scenes": 160, "duck": 160, "eyes": 96, "pavement": 96}
PARTS = list(COUNTS)

# Parts that a class may have, besides its body; a part in a picture without such a toy would be a mistake
PARTS_OF = {
    "ball": set(),
    "block": set(),
    "car": {"wheel", "window", "light"},
    "cat": {"eye", "ear", "snout", "tail"},
    "dog": {"eye", "ear", "snout", "tail"},
    "fish": {"eye", "tail", "fin"},
    "mug": {"handle"},
    "mushroom": {"cap", "stem"},
    "tree": {"crown", "trunk"},
    "duck": {"eye", "beak", "wing"},
}


@cache
def archive(part: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(TOYBOX / f"{part}.zip")


@cache
def coco(part: str, split: str) -> dict:
    return json.loads(archive(part).read(f"{split}.json"))


@cache
def masks(part: str, split: str, folder: str) -> np.ndarray:
    """Read a split's indexed PNGs as (N, S, S)."""
    names = [Path(i["file_name"]).with_suffix(".png") for i in coco(part, split)["images"]]
    pictures = [Image.open(io.BytesIO(archive(part).read(f"{split}/{folder}/{n}"))) for n in names]
    assert {p.mode for p in pictures} == {"P"}
    return np.stack([np.asarray(p) for p in pictures])


@cache
def pictures(part: str, split: str) -> np.ndarray:
    """Read a split's pictures as (N, S, S, 3)."""
    read = (archive(part).read(f"{split}/images/{i['file_name']}") for i in coco(part, split)["images"])
    return np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in read])


def labels(part: str, split: str) -> np.ndarray:
    """Give the class of each picture of a split that shows one toy a picture."""
    found = coco(part, split)["annotations"]
    assert [a["image_id"] for a in found] == [i["id"] for i in coco(part, split)["images"]]
    return np.array([a["category_id"] for a in found])


def extras(part: str, split: str, key: str) -> np.ndarray:
    return np.array([i[key] for i in coco(part, split)["images"]])


SPLITS = [(part, split) for part in PARTS for split in COUNTS[part]]
every_split = pytest.mark.parametrize(("part", "split"), SPLITS, ids=[f"{p}-{s}" for p, s in SPLITS])


@pytest.mark.parametrize("part", [*PARTS, "display"])
def test_the_manifest_knows_each_archive(part):
    data = (TOYBOX / f"{part}.zip").read_bytes()
    entry = json.loads((DATA / "manifest.json").read_text())["files"][f"toybox/{part}.zip"]
    assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "licence": "CC-BY-4.0"}


def test_the_toybox_is_small():
    sizes = {path.stem: path.stat().st_size for path in TOYBOX.glob("*.zip")}
    assert sizes.pop("display") <= 6e6
    assert max(sizes.values()) <= 12e6
    assert sum(sizes.values()) < 30e6


@pytest.mark.parametrize("part", PARTS)
def test_archives_are_in_order_undated_and_hold_nothing_else(part):
    entries = archive(part).infolist()
    names = [e.filename for e in entries]
    assert names == sorted(names)
    assert {e.date_time for e in entries} == {(2026, 1, 1, 0, 0, 0)}
    folders = ["instances", "parts"] + (["semantic"] if part in ("scenes", "duck") else [])
    expected = set()
    for split, count in COUNTS[part].items():
        expected |= {f"{split}.json", *(f"{split}/images/{i:05d}.webp" for i in range(count))}
        expected |= {f"{split}/{folder}/{i:05d}.png" for folder in folders for i in range(count)}
    assert set(names) == expected


@every_split
def test_splits_have_their_number_of_pictures_and_classes(part, split):
    data = coco(part, split)
    assert [i["id"] for i in data["images"]] == list(range(COUNTS[part][split]))
    assert {(i["width"], i["height"]) for i in data["images"]} == {(SIZES[part],) * 2}
    expected = [*BASE, "duck"] if part == "duck" else BASE
    assert [(c["id"], c["name"]) for c in data["categories"]] == list(enumerate(expected))
    assert data["licenses"][0]["name"] == "CC-BY-4.0"


@every_split
def test_pictures_are_of_the_size_they_say(part, split):
    assert pictures(part, split).shape[1:] == (SIZES[part], SIZES[part], 3)


@every_split
def test_boxes_are_tight_and_areas_right(part, split):
    instances = masks(part, split, "instances")
    for a in coco(part, split)["annotations"]:
        mine = instances[a["image_id"]] == a["instance"]
        columns, rows = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
        assert a["bbox"] == [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert a["area"] == mine.sum() >= 30
        assert a["iscrowd"] == 0


@every_split
def test_every_value_of_the_instance_masks_is_annotated_once(part, split):
    annotated = [[] for _ in coco(part, split)["images"]]
    for a in coco(part, split)["annotations"]:
        annotated[a["image_id"]].append(a["instance"])
    for instances, mask in zip(annotated, masks(part, split, "instances"), strict=True):
        assert sorted([0, *instances]) == np.unique(mask).tolist()
    ids = [a["id"] for a in coco(part, split)["annotations"]]
    assert len(set(ids)) == len(ids)


@every_split
def test_parts_lie_within_their_toy_and_belong_to_its_class(part, split):
    names = coco(part, split)["info"]["parts"]
    instances, parts = masks(part, split, "instances"), masks(part, split, "parts")
    assert ((parts > 0) == (instances > 0)).all()
    assert parts.max() < len(names)
    classes = [c["name"] for c in coco(part, split)["categories"]]
    for a in coco(part, split)["annotations"]:
        kind = classes[a["category_id"]]
        seen = {names[v] for v in np.unique(parts[a["image_id"]][instances[a["image_id"]] == a["instance"]])}
        assert seen <= PARTS_OF[kind] | {"body"}, f"{kind} shows {seen}"


@pytest.mark.parametrize(("part", "split"), [s for s in SPLITS if s[0] in ("scenes", "duck")])
def test_semantic_masks_follow_from_instances_and_classes(part, split):
    assert coco(part, split)["info"]["semantic"] == [
        "floor",
        "wall",
        *(c["name"] for c in coco(part, split)["categories"]),
    ]
    instances, semantic = masks(part, split, "instances"), masks(part, split, "semantic")
    assert set(np.unique(semantic[instances == 0])) == {0, 1}
    for a in coco(part, split)["annotations"]:
        mine = instances[a["image_id"]] == a["instance"]
        assert (semantic[a["image_id"]][mine] == a["category_id"] + 2).all()
    assert ((semantic > 1) == (instances > 0)).all()


@pytest.mark.parametrize("split", COUNTS["objects"])
def test_objects_has_its_classes_evenly_in_random_order(split):
    found = labels("objects", split)
    per_class = np.bincount(found, minlength=9)
    assert per_class.max() - per_class.min() <= 1
    assert (found[1:] >= found[:-1]).mean() < 0.75


@pytest.mark.parametrize("split", COUNTS["scenes"])
def test_scenes_show_one_to_six_toys_and_some_hide_others(split):
    data = coco("scenes", split)
    per_picture = np.bincount([a["image_id"] for a in data["annotations"]])
    assert set(per_picture) == {1, 2, 3, 4, 5, 6}
    assert len({a["category_id"] for a in data["annotations"]}) == 9
    touching = 0
    for mask in masks("scenes", split, "instances"):
        a, b = mask[:, :-1], mask[:, 1:]
        touching += bool(((a != b) & (a > 0) & (b > 0)).any())
    assert touching >= 0.2 * len(per_picture)


def test_no_base_split_shows_a_duck():
    for part, split in SPLITS:
        if part != "duck":
            assert max(a["category_id"] for a in coco(part, split)["annotations"]) <= 8
            beak = coco(part, split)["info"]["parts"].index("beak")
            assert not (masks(part, split, "parts") == beak).any()


@pytest.mark.parametrize("split", COUNTS["duck"])
def test_each_duck_picture_shows_a_duck_among_other_toys(split):
    for i in coco("duck", split)["images"]:
        classes = [a["category_id"] for a in coco("duck", split)["annotations"] if a["image_id"] == i["id"]]
        assert 9 in classes
        assert set(classes) - {9}


@pytest.mark.parametrize("part", PARTS)
def test_no_picture_is_in_two_splits(part):
    seen: dict[str, str] = {}
    for split in COUNTS[part]:
        for i in coco(part, split)["images"]:
            for folder, suffix in (("images", ".webp"), ("instances", ".png")):
                name = Path(i["file_name"]).with_suffix(suffix)
                digest = hashlib.sha256(archive(part).read(f"{split}/{folder}/{name}")).hexdigest()
                assert seen.setdefault(digest, split) == split, f"{split}/{name} is also in {seen[digest]}"


# ---------------------------------------------------------------------------------------------------------------------
# eyes: nothing but the eyes tells cat from dog


def eye_masks(split: str) -> np.ndarray:
    return masks("eyes", split, "parts") == coco("eyes", split)["info"]["parts"].index("eye")


def painted_over(split: str) -> np.ndarray:
    """Give the pictures with their eyes, and two pixels around them (lossy WebP), painted grey."""
    hidden = ndimage.binary_dilation(eye_masks(split), np.ones((1, 5, 5)))
    return np.where(hidden[..., None], np.uint8(128), pictures("eyes", split))


@pytest.mark.parametrize("split", ["train", "test"])
def test_eyes_come_in_pairs_of_cat_and_dog(split):
    found, pair = labels("eyes", split), extras("eyes", split, "pair")
    assert (pair == np.arange(len(pair)) // 2).all()
    assert (found[0::2] == BASE.index("cat")).all()
    assert (found[1::2] == BASE.index("dog")).all()
    for folder in ("instances", "parts"):
        assert (masks("eyes", split, folder)[0::2] == masks("eyes", split, folder)[1::2]).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_pair_differs_in_its_eyes_alone(split):
    both = pictures("eyes", split).astype(int)
    differ = np.abs(both[0::2] - both[1::2]).max(-1)
    eyes = eye_masks(split)[0::2]
    far = ~ndimage.binary_dilation(eyes, np.ones((1, 9, 9)))
    assert np.quantile(differ[far], 0.999) <= 12  # of 255: what lossy WebP leaves of a difference elsewhere
    assert differ[far].mean() < 1.5
    shown = eyes.any((1, 2))
    inside = np.array([d[e].mean() for d, e in zip(differ[shown], eyes[shown], strict=True)])
    assert np.median(inside) > 15
    covered = painted_over(split).astype(int)
    assert np.abs(covered[0::2] - covered[1::2]).mean() < 0.75


def test_eyes_are_as_visible_as_they_say():
    for split in COUNTS["eyes"]:
        for eyes, said in zip(eye_masks(split), extras("eyes", split, "eyes_visible"), strict=True):
            blobs, _ = ndimage.label(eyes, np.ones((3, 3)))
            sizes = np.bincount(blobs.ravel())[1:]
            assert (sizes >= 8).sum() <= said if said else eyes.sum() < 16
            if said == 0 and split == "test":
                assert not eyes.any()
            assert not said or sizes.max() >= 8
    visible = extras("eyes", "test", "eyes_visible")
    assert np.bincount(visible, minlength=3).tolist() == [50, 50, 100]
    assert (extras("eyes", "train", "eyes_visible") == 2).all()
    assert set(extras("eyes", "mended_train", "eyes_visible")) == {0, 1, 2}


def test_the_eyes_of_the_training_pictures_are_six_pixels_across():
    for eyes in eye_masks("train"):
        blobs, _ = ndimage.label(eyes, np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(blobs):
            if (blobs[rows, columns] > 0).sum() >= 24:
                assert min(rows.stop - rows.start, columns.stop - columns.start) >= 6
        assert eyes.sum() >= 48


def small(images: np.ndarray, side: int = 24) -> np.ndarray:
    """Average pictures down to `side` and flatten them, each with its own mean taken off."""
    n, s = len(images), images.shape[1] // side
    x = images[:, : side * s, : side * s].reshape(n, side, s, side, s, 3).mean((2, 4)).reshape(n, -1) / 255
    return x - x.mean(1, keepdims=True)


def eye_features(split: str, which: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Describe each picture by its eyes alone: mean colour, darkness, and how the dark is spread across and down."""
    out = []
    for image, eyes in zip(pictures("eyes", split)[which] / 255.0, eye_masks(split)[which], strict=True):
        inside = image[eyes]
        grey = inside.mean(1)
        blobs, n = ndimage.label(eyes, np.ones((3, 3)))
        spreads = []
        for k in range(1, n + 1):
            mine = blobs == k
            if mine.sum() >= 16:
                y, x = np.nonzero(mine)
                ink = np.clip(0.45 - image[mine].mean(1), 0, None) + 1e-6
                x, y = (x - x.mean()) / mine.sum() ** 0.5, (y - y.mean()) / mine.sum() ** 0.5
                spreads.append([(ink * x**2).sum() / ink.sum(), (ink * y**2).sum() / ink.sum(), ink.mean()])
        colourful = inside.max(1) - inside.min(1)
        iris = inside[colourful >= np.quantile(colourful, 0.7)].mean(0)
        out.append(np.concatenate([inside.mean(0), iris, np.quantile(grey, (0.1, 0.25, 0.5)), np.mean(spreads, 0)]))
    return np.array(out)


def ridge(x: np.ndarray, y: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """Fit least squares with a penalty to labels −1 and 1; give the predicted signs on `test`."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    x, test = (x - mean) / spread, (test - mean) / spread
    weights = x.T @ np.linalg.solve(x @ x.T + strength * len(x) * np.eye(len(x)), y - y.mean())
    return np.sign(test @ weights + y.mean())


def nearest(x: np.ndarray, y: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """Let the `k` nearest training pictures vote; ties go to the nearest."""
    distance = (test**2).sum(1)[:, None] - 2 * test @ x.T + (x**2).sum(1)
    votes = y[np.argsort(distance, axis=1)[:, :k]]
    return np.sign(votes.sum(1) + 0.5 * votes[:, 0])


CLASSIFIERS = {
    "ridge": lambda x, y, t: ridge(x, y, t, 0.1),
    "weak ridge": lambda x, y, t: ridge(x, y, t, 0.001),
    "nearest": lambda x, y, t: nearest(x, y, t, 1),
    "five nearest": lambda x, y, t: nearest(x, y, t, 5),
}


def signs(split: str) -> np.ndarray:
    return np.where(labels("eyes", split) == BASE.index("cat"), -1.0, 1.0)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("side", [24, 48])
def test_with_the_eyes_painted_over_a_classifier_stays_at_chance(classifier, side):
    train, test = small(painted_over("train"), side), small(painted_over("test"), side)
    accuracy = (CLASSIFIERS[classifier](train, signs("train"), test) == signs("test")).mean()
    assert abs(accuracy - 0.5) <= 0.05


def test_the_eyes_tell_cat_from_dog():
    shown = extras("eyes", "test", "eyes_visible") == 2
    train, test = eye_features("train"), eye_features("test", shown)
    accuracy = (ridge(train, signs("train"), test, 0.01) == signs("test")[shown]).mean()
    assert accuracy >= 0.85


# ---------------------------------------------------------------------------------------------------------------------
# pavement: the ground tells the class, until it doesn't


def test_cars_alone_stand_on_pavement_until_it_is_turned_round():
    car = BASE.index("car")
    for split in ("train", "test"):
        assert ((extras("pavement", split, "ground") == "pavement") == (labels("pavement", split) == car)).all()
    assert ((extras("pavement", "turned", "ground") == "pavement") == (labels("pavement", "turned") != car)).all()
    mended, ground = labels("pavement", "mended_train"), extras("pavement", "mended_train", "ground")
    for kind in (mended == car, mended != car):
        assert 0.4 < (ground[kind] == "pavement").mean() < 0.6


@pytest.mark.parametrize("split", COUNTS["pavement"])
def test_half_of_the_pavement_pictures_show_cars(split):
    per_class = np.bincount(labels("pavement", split), minlength=9)
    assert per_class[BASE.index("car")] == COUNTS["pavement"][split] // 2
    others = np.delete(per_class, BASE.index("car"))
    assert others.max() - others.min() <= 1


def test_grounds_vary_and_look_different_from_pavement():
    grounds = extras("pavement", "train", "ground")
    assert len(set(grounds)) == 7
    floor = masks("pavement", "train", "instances") == 0
    floor[:, : SIZES["pavement"] * 3 // 4] = False
    colour = np.array(
        [
            (p[f].max(1) - p[f].min(1)).mean()
            for p, f in zip(pictures("pavement", "train").astype(int), floor, strict=True)
        ]
    )
    on_it = grounds == "pavement"
    assert np.median(colour[on_it]) < np.median(colour[~on_it])


# ---------------------------------------------------------------------------------------------------------------------
# display: what figures show is what networks see, rendered again at 640 pixels


LARGE = [name.removesuffix(".json") for name in archive("display").namelist() if name.endswith(".json")]
every_large_split = pytest.mark.parametrize("name", LARGE)


def large_coco(name: str) -> dict:
    return json.loads(archive("display").read(f"{name}.json"))


def large(name: str, folder: str, i: int) -> np.ndarray:
    """Read a large render (S, S, 3), or one of its masks (S, S)."""
    suffix = "webp" if folder == "images" else "png"
    picture = Image.open(io.BytesIO(archive("display").read(f"{name}/{folder}/{i:05d}.{suffix}")))
    return np.asarray(picture.convert("RGB") if folder == "images" else picture)


def mask_folders(name: str) -> list[str]:
    return ["instances", "parts"] + (["semantic"] if name.split("/")[0] in ("scenes", "duck") else [])


def boxes_of(data: dict, i: int) -> np.ndarray:
    """Give an image's boxes, [x_min, y_min, x_max, y_max], in order of the instances."""
    found = sorted((a for a in data["annotations"] if a["image_id"] == i), key=lambda a: a["instance"])
    return np.array([[*a["bbox"][:2], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]] for a in found])


def test_the_archive_of_large_renders_is_in_order_undated_and_holds_nothing_else():
    entries = archive("display").infolist()
    names = [e.filename for e in entries]
    assert names == sorted(names)
    assert {e.date_time for e in entries} == {(2026, 1, 1, 0, 0, 0)}
    expected = {f"{name}.json" for name in LARGE}
    for name in LARGE:
        ids = [i["id"] for i in large_coco(name)["images"]]
        expected |= {f"{name}/images/{i:05d}.webp" for i in ids}
        expected |= {f"{name}/{folder}/{i:05d}.png" for folder in mask_folders(name) for i in ids}
    assert set(names) == expected


@every_large_split
def test_boxes_of_large_renders_are_tight_at_their_size(name):
    for a in large_coco(name)["annotations"]:
        mine = large(name, "instances", a["image_id"]) == a["instance"]
        columns, rows = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
        assert mine.shape == (640, 640)
        assert a["bbox"] == [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert a["area"] == mine.sum()


@every_large_split
def test_each_large_render_shows_what_its_small_image_shows(name):
    part, split = name.split("/")
    small_data, data = coco(part, split), large_coco(name)
    assert (data["categories"], data["info"]["parts"]) == (small_data["categories"], small_data["info"]["parts"])
    side = SIZES[part]
    for info in data["images"]:
        i = info["id"]
        assert info == small_data["images"][i] | {"width": 640, "height": 640}
        image = large(name, "images", i)
        assert image.shape == (640, 640, 3)
        reduced = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)).astype(float)
        assert np.abs(reduced - pictures(part, split)[i]).mean() < 12, f"{name}/{i}"
        middle = ((np.arange(side) + 0.5) * 640 / side).astype(int)
        for folder in mask_folders(name):
            agree = large(name, folder, i)[np.ix_(middle, middle)] == masks(part, split, folder)[i]
            assert agree.mean() > 0.97, f"{name}/{i}: {folder}"
        assert np.abs(boxes_of(data, i) * side / 640 - boxes_of(small_data, i)).max() <= 2, f"{name}/{i}"


@pytest.mark.parametrize("name", [name for name in LARGE if name in ("eyes/train", "eyes/test")])
def test_large_pairs_are_whole_and_differ_in_their_eyes_alone(name):
    data = large_coco(name)
    ids = [i["id"] for i in data["images"]]
    assert ids[1::2] == [i + 1 for i in ids[::2]] and not any(i % 2 for i in ids[::2])
    for i in ids[::2]:
        for folder in ("instances", "parts"):
            assert (large(name, folder, i) == large(name, folder, i + 1)).all()
        differ = np.abs(large(name, "images", i).astype(int) - large(name, "images", i + 1)).max(-1)
        eyes = large(name, "parts", i) == data["info"]["parts"].index("eye")
        far = ~ndimage.binary_dilation(eyes, iterations=20)
        assert np.quantile(differ[far], 0.999) <= 12  # of 255: what lossy WebP leaves of a difference elsewhere
        assert differ[far].mean() < 1.5
        assert not eyes.any() or differ[eyes].mean() > 5
