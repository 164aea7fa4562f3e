"""Render the toybox: `python render/render.py --help`.

Every picture follows from the master seed, its part, split and number alone, so that any of them can be rendered again
by itself. Pictures are kept in `.build/toybox`, one file each; a run takes up where the last one stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
import zlib
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import sdf
import stage
import toys
from stage import Camera, Piece, Stage
from toys import Part, Toy

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build" / "toybox"
MASTER_SEED = 20261123
BASE = toys.CLASSES[:9]

SIZES = {"objects": 96, "scenes": 160, "duck": 160, "eyes": 96, "pavement": 96}
COUNTS = {
    "objects": {"train": 2000, "val": 250, "test": 500},
    "eyes": {"train": 400, "test": 200, "mended_train": 200, "mended_test": 100},
    "pavement": {"train": 400, "test": 100, "turned": 100, "mended_train": 400},
    "scenes": {"train": 900, "val": 150, "test": 250},
    "duck": {"train": 5, "test": 100},
}
# Rendered when asked for by name and not packed: what a recipe learns from beyond the archives
LOOSE = {"scenes": {"more": 1000}}
SPP = {"objects": 16, "scenes": 12, "duck": 12, "eyes": 16, "pavement": 12}  # samples a pixel of the light
LARGE = 640  # pixels across the images that figures show, rendered again from the same seeds
LARGE_SPP = 6  # fewer, as the denoiser has more pixels to average
GUIDE_SPP = 4  # and of the colours and normals that lead the denoiser
GUIDES = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}
# Shapes and textures are drawn anew for each of these, so that no test shape is a train shape
POOLS = {
    "train": "train",
    "more": "more",
    "val": "val",
    "test": "test",
    "turned": "test",
    "mended_train": "train",
    "mended_test": "test",
}
SHAPE_COUNTS = {"train": 60, "more": 400, "val": 20, "test": 30}
TEXTURE_COUNTS = {"train": 9, "more": 40, "val": 4, "test": 5}
# How often a toy lies in another way than as it was made
LYING = {
    "ball": 1.0,
    "block": 0.5,
    "car": 0.07,
    "cat": 0.06,
    "dog": 0.06,
    "fish": 0.45,
    "mug": 0.25,
    "mushroom": 0.12,
    "tree": 0.12,
    "duck": 0.0,
}


def generator(*words: str | int) -> np.random.Generator:
    """Give the random generator that belongs to some words, under the master seed."""
    numbers = [zlib.crc32(w.encode()) if isinstance(w, str) else w for w in words]
    return np.random.default_rng(np.random.SeedSequence([MASTER_SEED, *numbers]))


# ---------------------------------------------------------------------------------------------------------------------
# Shapes and textures, made once


def _save(path: Path, write) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb") as f:
        write(f)
    os.replace(draft, path)


@lru_cache(maxsize=400)
def shape(name: str, pool: str, k: int) -> Toy:
    """Give shape k of a pool, from the build directory if it was meshed before."""
    path = BUILD / "shapes" / name / pool / f"{k:03d}.npz"
    if not path.exists():
        toy = toys.SHAPES[name](generator("shape", name, pool, k))
        points = np.concatenate([p.mesh.v for p in toy.parts if not p.slot.startswith("cover:")])
        toy.notes["rest"] = toys.resting(toy)
        toy.notes["scale"] = float(1 / np.ptp(points, axis=0).max())
        arrays = {f"{i}{c}": a for i, p in enumerate(toy.parts) for c, a in zip("vfn", p.mesh, strict=True)}
        head = {"kind": toy.kind, "parts": [[p.name, p.slot] for p in toy.parts], "notes": toy.notes}
        _save(path, lambda f: np.savez(f, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays))
    with np.load(path) as z:
        head = json.loads(z["head"].tobytes())
        parts = [Part(n, s, sdf.Mesh(*(z[f"{i}{c}"] for c in "vfn"))) for i, (n, s) in enumerate(head["parts"])]
    return Toy(head["kind"], parts, head["notes"])


def texture_file(kind: str, pool: str, k: int) -> str:
    """Give the file that holds texture k of a pool, drawing it if need be."""
    path = BUILD / "textures" / f"{kind}_{pool}_{k}.npy"
    if not path.exists():
        data = stage.encode(*stage.texture(kind, generator("texture", kind, pool, k)))
        _save(path, lambda f: np.save(f, data))
    return str(path)


# ---------------------------------------------------------------------------------------------------------------------
# Composing


def toy_pieces(
    toy: Toy, paints: dict, instance: int, turn: np.ndarray, at: np.ndarray, scale: float, cover: str = ""
) -> list[Piece]:
    """Put a painted toy on the ground: turned, scaled, its lowest point at z = 0, its middle over `at`."""
    parts = [p for p in toy.parts if not p.slot.startswith("cover:") or p.slot == f"cover:{cover}"]
    v = np.concatenate([p.mesh.v for p in parts]) @ turn.T.astype(np.float32) * scale
    middle = (v[:, :2].min(0) + v[:, :2].max(0)) / 2
    shift = np.array([at[0] - middle[0], at[1] - middle[1], -v[:, 2].min()])
    return [
        Piece(
            name=f"toy{instance}_{i}_{p.slot.replace(':', '_')}",
            mesh=sdf.place(p.mesh, turn, shift, scale),
            paint=paints[p.slot],
            instance=instance,
            part=toys.PARTS.index(p.name),
        )
        for i, p in enumerate(parts)
    ]


def random_turn(toy: Toy, rng: np.random.Generator, lying: float) -> np.ndarray:
    """Draw how a toy lies and which way it faces."""
    facing = sdf.rotation(2, float(rng.uniform(0, 360)))
    if toy.kind == "ball":
        q = rng.normal(size=3)
        return facing @ sdf.rotation(q, float(rng.uniform(0, 180)))
    if rng.random() < lying and toy.notes["rest"]:
        rest = toy.notes["rest"]
        return facing @ np.array(rest[int(rng.integers(len(rest)))], np.float32)
    return facing


def points_of(pieces: list[Piece]) -> np.ndarray:
    return np.concatenate([p.mesh.v for p in pieces])


def dress(
    rng: np.random.Generator,
    pool: str,
    ground: str,
    camera: Camera,
    azimuth: float,
    points: np.ndarray,
    wall_chance: float,
) -> Stage:
    """Give a camera's picture a ground, walls or a sky, and lights.

    Args:
        azimuth: where the camera stands as seen from the toys, in degrees.
        points: the toys' vertices, which no wall may cut.
    """
    outdoors = ground in ("grass", "pavement") and rng.random() < 0.75
    texture = texture_file(ground, pool, int(rng.integers(TEXTURE_COUNTS[pool])))
    walls: list = []
    if rng.random() < wall_chance:
        kinds = stage.OUTDOOR_WALLS if outdoors else stage.WALLS
        lean = float(rng.uniform(-35, 35))
        gap = float(rng.choice([rng.uniform(0.1, 0.5), rng.uniform(0.5, 2.5)]))
        for extra in (0.0, float(rng.choice([-90, 90]))) if rng.random() < 0.25 else (0.0,):
            a = np.radians(azimuth + lean + extra)
            n = np.array([np.cos(a), np.sin(a), 0])
            foot = n * ((points @ n).min() - (gap if extra == 0 else rng.uniform(0.1, 1.2)))
            if (camera.origin - foot) @ n > 0.2:
                kind = str(rng.choice(kinds)) if not walls else None
                file = texture_file(kind, pool, int(rng.integers(TEXTURE_COUNTS[pool]))) if kind else walls[0][0]
                walls.append((file, foot, float(azimuth + lean + extra)))
    facing = walls[0][2] if walls else azimuth
    spread = 75 if walls else 110
    warmth = float(rng.normal(0.35, 0.35))
    key_at = facing + float(rng.uniform(-spread, spread))
    key = stage.lamp(
        rng,
        key_at,
        float(rng.uniform(32, 70)),
        float(rng.uniform(2.2, 4.5)),
        warmth,
        float(rng.choice([0.35, 0.7, 1.2, 1.8])),
    )
    lights = [key]
    for _ in range(int(rng.integers(0, 3))):
        side = 2 * facing - key_at + float(rng.uniform(-30, 30))
        lights.append(
            stage.lamp(
                rng, side, float(rng.uniform(25, 60)), float(rng.uniform(0.3, 1.1)), float(rng.normal(-0.2, 0.4)), 1.5
            )
        )
    lights = [
        x
        for x in lights
        if all(
            (np.array(x["at"]) - foot) @ (np.cos(np.radians(t)), np.sin(np.radians(t)), 0) > x["radius"]
            for _, foot, t in walls
        )
    ]
    gloss = float(rng.uniform(0.15, 0.35)) if ground in ("wood", "tiles", "table") and rng.random() < 0.6 else None
    skirting = (
        toys.colour(rng, ["white", "cream", "wood", "grey", "brown"])
        if walls and not outdoors and rng.random() < 0.7
        else None
    )
    return Stage(
        camera,
        texture,
        float(rng.uniform(0, 360)),
        gloss,
        walls,
        skirting,
        lights,
        stage.sky_map(rng, outdoors, azimuth),
    )


class Refused(Exception):
    """A layout that a picture may not have: it is drawn again."""


class Shot:
    """A composed picture: its scene, and its masks."""

    def __init__(self, pieces: list[Piece], staged: Stage, size: int, seed: int):
        import mitsuba as mi

        self.pieces, self.stage, self.size, self.seed = pieces, staged, size, seed
        self.scene = mi.load_dict(stage.scene(pieces, staged))
        look = mi.load_dict(stage.sensor(staged.camera, size, masks=True))
        index = np.array(
            mi.render(
                self.scene,
                sensor=look,
                integrator=mi.load_dict({"type": "aov", "aovs": "index:shape_index"}),
                seed=seed,
            )
        )
        names = ["sky", *(s.id() for s in self.scene.shapes())]  # the mask counts shapes from 1
        rank = np.rint(index[..., -1]).astype(int)
        if rank.max() >= len(names) or rank.min() < 0:
            raise RuntimeError(f"shape index {rank.max()} of {len(names)} shapes")
        by_name = {p.name: p for p in pieces}
        table = np.array(
            [
                (p.instance, p.part, 0) if (p := by_name.get(n)) else (0, 0, int(not n.startswith("ground")))
                for n in names
            ]
        )
        self.instances, self.parts, upright = (table[rank].astype(np.uint8)[..., i] for i in range(3))
        self.names = np.array(names, object)[rank]
        self.wall = upright.astype(bool)
        self.swap: dict = {}

    def light(self, spp: int, crop: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Render the picture's radiance (H, W, 3) and take the noise out."""
        import mitsuba as mi

        # In two passes: together, as Mitsuba's aov integrator offers, they take twice as long
        passes = []
        for integrator, n in (({"type": "path", "max_depth": 4, "rr_depth": 99}, spp), (GUIDES, GUIDE_SPP)):
            look = mi.load_dict(stage.sensor(self.stage.camera, self.size, spp=n, crop=crop))
            passes.append(
                np.array(mi.render(self.scene, sensor=look, integrator=mi.load_dict(integrator), seed=self.seed, spp=n))
            )
        rgb, guides = passes[0][..., :3], np.nan_to_num(passes[1][..., -6:])
        passes = stage.WIDE_PASSES if self.size == LARGE else stage.ONE_PASS
        return stage.denoise(rgb, guides[..., :3], guides[..., 3:], passes)

    def enlarged(self, size: int) -> Shot:
        """Give the same scene in another size. The masks are taken anew."""
        large = Shot(self.pieces, self.stage, size, self.seed)
        large.swap = self.swap
        return large


def visible_enough(shot: Shot, count: int, least: int = 40, share: float = 0.18) -> None:
    """Refuse a picture in which one of `count` toys is hidden or cut off too much."""
    from scipy.spatial import ConvexHull

    for k in range(1, count + 1):
        seen = int((shot.instances == k).sum())
        outline = shot.stage.camera.project(points_of([p for p in shot.pieces if p.instance == k])[::7]) * shot.size
        if seen < max(least, share * ConvexHull(outline).volume):
            raise Refused(f"toy {k} shows {seen} pixels")


def pictures_in(part: str, split: str) -> int:
    """Say how many pictures a split has, packed or loose."""
    return (COUNTS[part] | LOOSE.get(part, {}))[split]


def balanced(count: int, kinds: int, rng: np.random.Generator) -> np.ndarray:
    """Give `count` labels, each of 0 … kinds − 1 as often as any other, give or take one, in random order."""
    return rng.permutation(np.arange(count) % kinds)


def draw_toy(name: str, pool: str, rng: np.random.Generator) -> tuple[Toy, dict]:
    """Draw one of a pool\'s shapes and paint it."""
    toy = shape(name, pool, int(rng.integers(SHAPE_COUNTS[pool])))
    return toy, toys.PAINTS[toy.kind](toy, rng)


def one_toy(
    rng: np.random.Generator,
    split: str,
    name: str,
    ground: str,
    size: int,
    fill: tuple[float, float],
    elevation: tuple[float, float],
    wall_chance: float,
) -> tuple[Shot, list[dict]]:
    """Compose a picture of one toy."""
    pool = POOLS[split]
    toy, paints = draw_toy(name, pool, rng)
    turn = random_turn(toy, rng, LYING[name])
    pieces = toy_pieces(toy, paints, 1, turn, np.zeros(2), toy.notes["scale"] * float(rng.uniform(0.8, 1.3)))
    azimuth = float(rng.uniform(0, 360))
    share = float(rng.uniform(*fill))
    camera = stage.aim(
        points_of(pieces),
        azimuth,
        float(rng.uniform(*elevation)),
        float(rng.uniform(22, 46)),
        share,
        tuple(rng.uniform(-0.9, 0.9, 2)),
    )
    if rng.random() < 0.08:
        camera = Camera(
            camera.origin, camera.target, camera.fov, tuple(np.array(camera.shift) + rng.uniform(-0.06, 0.06, 2))
        )
    shot = Shot(
        pieces,
        dress(rng, pool, ground, camera, azimuth, points_of(pieces), wall_chance),
        size,
        int(rng.integers(1 << 31)),
    )
    visible_enough(shot, 1, 150, 0.25)
    return shot, [{"class": name}]


def compose_objects(split: str, i: int, rng: np.random.Generator) -> tuple[Shot, list[dict], dict]:
    """Compose one toy on any ground, the classes in turn."""
    name = BASE[balanced(COUNTS["objects"][split], 9, generator("labels", "objects", split))[i]]
    ground = str(rng.choice(stage.GROUNDS))
    shot, toys_in = one_toy(rng, split, name, ground, SIZES["objects"], (0.5, 0.95), (4, 48), 0.7)
    return shot, toys_in, {"ground": ground}


def compose_pavement(split: str, i: int, rng: np.random.Generator) -> tuple[Shot, list[dict], dict]:
    """Compose one toy on the ground that its split\'s rule says."""
    count = COUNTS["pavement"][split]
    order = generator("labels", "pavement", split)
    others = [BASE[k] for k in (0, 1, 3, 4, 5, 6, 7, 8)]
    names = np.array(["car"] * (count // 2) + [others[k % 8] for k in range(count - count // 2)])[
        order.permutation(count)
    ]
    name = str(names[i])
    elsewhere = str(rng.choice([g for g in stage.GROUNDS if g != "pavement"]))
    on_it = bool(rng.random() < 0.5) if split == "mended_train" else (name == "car") != (split == "turned")
    ground = "pavement" if on_it else elsewhere
    shot, toys_in = one_toy(rng, split, name, ground, SIZES["pavement"], (0.36, 0.66), (14, 50), 0.5)
    return shot, toys_in, {"ground": ground}


def compose_scene(split: str, i: int, rng: np.random.Generator, ducks: bool = False) -> tuple[Shot, list[dict], dict]:
    """Compose one to six toys (with `ducks`, at least one duck among them) before a wall."""
    pool, part = POOLS[split], "duck" if ducks else "scenes"
    if not ducks:
        count = 1 + int(balanced(pictures_in(part, split), 6, generator("counts", part, split))[i])
        classes = BASE + BASE[3:5] if split == "more" else BASE  # cats and dogs, the hardest to tell, twice as often
        names = [str(n) for n in rng.choice(classes, count)]
    elif split == "train":
        names = ["duck", *(str(n) for n in rng.choice(BASE, int(rng.integers(1, 4)), replace=False))]
    else:
        names = ["duck"] * int(rng.choice([1, 1, 1, 2, 3])) + [
            str(n) for n in rng.choice(BASE, int(rng.integers(1, 4)))
        ]
    pieces: list[Piece] = []
    circles: list[tuple[np.ndarray, float]] = []
    for k, name in enumerate(names, 1):
        toy, paints = draw_toy(name, pool, rng)
        scale = toy.notes["scale"] * float(rng.uniform(0.75, 1.3))
        turn = random_turn(toy, rng, LYING[name])
        mine = toy_pieces(toy, paints, k, turn, np.zeros(2), scale)
        radius = float(np.linalg.norm(points_of(mine)[:, :2], axis=1).max())
        for attempt in range(200):
            at = rng.uniform(-1, 1, 2) * (0.5 + 0.3 * len(names) ** 0.6 + 0.01 * attempt)
            if all(np.linalg.norm(at - c) > radius + r + 0.01 for c, r in circles):
                break
        else:
            raise Refused("no room")
        circles.append((at, radius))
        pieces += [replace(p, mesh=sdf.place(p.mesh, shift=(*at, 0))) for p in mine]
    azimuth = float(rng.uniform(0, 360))
    fill = float(rng.uniform(0.8, 1.02)) if len(names) > 1 else float(rng.uniform(0.35, 0.8))
    camera = stage.aim(
        points_of(pieces),
        azimuth,
        float(rng.uniform(9, 45)),
        float(rng.uniform(26, 48)),
        fill,
        tuple(rng.uniform(-0.8, 0.8, 2)),
    )
    ground = str(rng.choice(stage.GROUNDS))
    staged = dress(rng, pool, ground, camera, azimuth, points_of(pieces), 1.0)
    shot = Shot(pieces, staged, SIZES[part], int(rng.integers(1 << 31)))
    if ducks and split == "train":
        visible_enough(shot, 1, 1500, 0.6)
    visible_enough(shot, len(names), 60)
    return shot, [{"class": n} for n in names], {"ground": ground}


EYES_TEST = ["both"] * 50 + ["one"] * 25 + ["none"] * 25  # pairs


def compose_eyes(split: str, i: int, rng: np.random.Generator) -> tuple[Shot, list[dict], dict]:
    """Compose a cat or a dog; in the plain splits a pair of them, the cat first, its eyes as a dog's in `shot.swap`."""
    pool = POOLS[split]
    cover, wanted, away, swap = "", None, float(rng.uniform(-30, 30)), {}
    if split.startswith("mended"):
        kind = ["cat", "dog"][balanced(COUNTS["eyes"][split], 2, generator("labels", "eyes", split))[i]]
        toy = shape(f"big_{kind}", pool, int(rng.integers(SHAPE_COUNTS[pool])))
        paints = toys.paint_pet(toy, rng, toys.eye_style(rng, kind))
        away *= 6
    else:
        kind, wanted = "cat", "both" if split == "train" else EYES_TEST[i // 2]
        toy = shape("mixed_pet", pool, int(rng.integers(SHAPE_COUNTS[pool])))
        styles = {k: toys.eye_style(rng, k) for k in ("cat", "dog")}
        as_dog = toys.paint_pet(toy, copy.deepcopy(rng), styles["dog"])
        paints = toys.paint_pet(toy, rng, styles["cat"])
        swap = {slot: as_dog[slot] for slot in ("eye0", "eye1")}
        covered = rng.random() < 0.3
        if wanted == "one":
            cover, away = (
                (f"patch{int(rng.integers(2))}", away)
                if covered
                else ("", float(rng.choice([-1, 1]) * rng.uniform(58, 100)))
            )
        elif wanted == "none":
            cover, away = ("mask", away) if covered else ("", float(rng.uniform(125, 235)))
    gaze = np.mean([e["gaze"] for e in toy.notes["eyes"]], axis=0)
    facing = float(np.degrees(np.arctan2(gaze[1], gaze[0])))
    turn = sdf.rotation(2, float(rng.uniform(0, 360)))
    spin = float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
    pieces = toy_pieces(toy, paints, 1, turn, np.zeros(2), toy.notes["scale"] * float(rng.uniform(0.9, 1.2)), cover)
    azimuth = facing + spin + away
    elevation = float(rng.uniform(3, 26))
    camera = stage.aim(
        points_of(pieces),
        azimuth,
        elevation,
        float(rng.uniform(22, 42)),
        float(rng.uniform(0.66, 0.94)),
        tuple(rng.uniform(-0.8, 0.8, 2)),
    )
    ground = str(rng.choice(stage.GROUNDS))
    shot = Shot(
        pieces,
        dress(rng, pool, ground, camera, azimuth, points_of(pieces), 0.65),
        SIZES["eyes"],
        int(rng.integers(1 << 31)),
    )
    visible_enough(shot, 1, 600, 0.3)
    sizes = []
    for k in range(2):
        rows, columns = np.nonzero(
            np.array([n.endswith(f"_eye{k}") for n in shot.names.ravel()]).reshape(shot.names.shape)
        )
        sizes.append((len(rows), int(min(np.ptp(rows), np.ptp(columns))) + 1 if len(rows) else 0))
    clear = [n >= 24 and across >= 6 for n, across in sizes]
    if wanted == "both" and not all(clear):
        raise Refused("an eye is not clear")
    if wanted == "one" and not (any(clear) and min(n for n, _ in sizes) == 0):
        raise Refused("not one eye")
    if wanted == "none" and max(n for n, _ in sizes) > 0:
        raise Refused("an eye shows")
    extras = {"ground": ground, "eyes_visible": sum(n >= 8 for n, _ in sizes)}
    if swap:
        extras["pair"] = i // 2
    shot.swap = swap
    return shot, [{"class": kind}], extras


COMPOSE = {
    "objects": compose_objects,
    "scenes": compose_scene,
    "eyes": compose_eyes,
    "pavement": compose_pavement,
    "duck": lambda split, i, rng: compose_scene(split, i, rng, ducks=True),
}


def is_pair(part: str, split: str) -> bool:
    """Say whether a split\'s pictures come as pairs 2k, 2k + 1."""
    return part == "eyes" and not split.startswith("mended")


def pictures(part: str, split: str, i: int, spp: int | None = None, large: bool = False) -> list[dict]:
    """Render picture i, or, where pictures come in pairs, the pair i, i + 1.

    Args:
        large: render them at 640 pixels. What is in them is still drawn, and refused, at the part's size, so that it is
            the same.

    Returns: for each `image` (S, S, 3), `instances`, `parts`, `semantic` (S, S), all uint8, and `meta`.
    """
    for attempt in range(80):
        try:
            shot, toys_in, extras = COMPOSE[part](split, i, generator(part, split, i, attempt))
        except Refused:
            continue
        break
    else:
        raise RuntimeError(f"{part}/{split}/{i}: no layout found in 80 tries")
    spp = spp or (LARGE_SPP if large else SPP[part])
    margin = 5  # pixels around the eyes that the denoiser may look at
    if large:
        shot, margin = shot.enlarged(LARGE), margin * LARGE // shot.size
    radiance = shot.light(spp)
    exposure = stage.exposure_for(radiance, float(generator("exposure", part, split, i).uniform(0.12, 0.20)))
    meanings = np.array([0, *(2 + toys.CLASSES.index(t["class"]) for t in toys_in)], np.uint8)
    semantic = np.where(shot.instances > 0, meanings[shot.instances], shot.wall.astype(np.uint8))
    first = {
        "image": stage.develop(radiance, exposure),
        "instances": shot.instances,
        "parts": shot.parts,
        "semantic": semantic,
        "meta": {"classes": [t["class"] for t in toys_in], "extras": extras},
    }
    if not is_pair(part, split):
        return [first]
    second = first | {"image": first["image"].copy(), "meta": {"classes": ["dog"], "extras": extras}}
    eyes = shot.parts == toys.PARTS.index("eye")
    if eyes.any():
        rows, columns = np.nonzero(eyes)
        y, x = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
        high, wide = min(rows.max() + margin + 1, shot.size) - y, min(columns.max() + margin + 1, shot.size) - x
        dogs = [replace(p, paint=shot.swap.get(p.name.split("_", 2)[2], p.paint)) for p in shot.pieces]
        window = np.s_[y : y + high, x : x + wide]
        light = Shot(dogs, shot.stage, shot.size, shot.seed).light(spp, (x, y, wide, high))
        second["image"][window][eyes[window]] = stage.develop(light, exposure)[eyes[window]]
    return [first, second]


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def picture_file(part: str, split: str, i: int, large: bool = False) -> Path:
    return BUILD / ("display" if large else "") / part / split / f"{i:05d}.npz"


def start() -> None:
    """Set Mitsuba up in this process: plain CPU rendering on one core, the same on every machine."""
    import drjit
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    drjit.set_thread_count(1)


def _work(job: tuple[str, str, int], large: bool) -> float:
    part, split, i = job
    began = time.process_time()
    for k, shown in enumerate(pictures(part, split, i, large=large)):
        meta = np.frombuffer(json.dumps(shown.pop("meta"), sort_keys=True).encode(), np.uint8)
        _save(
            picture_file(part, split, i + k, large),
            lambda f, shown=shown, meta=meta: np.savez_compressed(f, meta=meta, **shown),
        )
    return time.process_time() - began


def render(jobs: list[tuple[str, str, int]], workers: int, large: bool = False) -> None:
    """Render what isn't there yet, saying how far it is; in order of `jobs` where they are large."""
    step = {(p, s): 2 if is_pair(p, s) else 1 for p, s, _ in jobs}
    starts = list(dict.fromkeys((p, s, i - i % step[p, s]) for p, s, i in jobs))
    # Splits side by side, so that what is there at any time is a fair sample
    if not large:
        starts.sort(key=lambda j: (list(COUNTS).index(j[0]), j[2] / pictures_in(j[0], j[1])))
    todo = [j for j in starts if not all(picture_file(*j[:2], j[2] + k, large).exists() for k in range(step[j[:2]]))]
    print(f"{len(starts) - len(todo)} there, {len(todo)} to render", flush=True)
    if not todo:
        return
    began, spent = time.time(), 0.0
    with get_context("spawn").Pool(workers, start) as pool:
        for done, seconds in enumerate(pool.imap_unordered(partial(_work, large=large), todo), 1):
            spent += seconds
            if large or done % 20 == 0 or done == len(todo):
                left = (time.time() - began) / done * (len(todo) - done)
                print(
                    f"{done}/{len(todo)}  {spent / done:.2f} s of processor each, {left / 60:.0f} min left", flush=True
                )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Render and pack the toybox.")
    parser.add_argument("action", nargs="?", default="render", choices=["render", "pack", "sheet", "card", "display"])
    parser.add_argument("--part", choices=list(COUNTS), action="append", help="default: all parts")
    parser.add_argument("--split", action="append", help="default: all that are packed")
    parser.add_argument("--only", help="numbers of pictures, such as 3,17")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "data" / "toybox", help="where packed archives and sheets go"
    )
    given = parser.parse_args(argv)
    parts = given.part or list(COUNTS)
    jobs = [
        (part, split, i)
        for part in parts
        for split in (given.split or COUNTS[part])
        if split in COUNTS[part] or split in LOOSE.get(part, {})
        for i in (map(int, given.only.split(",")) if given.only else range(pictures_in(part, split)))
    ]
    if given.action == "render":
        render(jobs, given.workers)
    elif given.action == "display":
        import display

        render(display.jobs(), given.workers, large=True)
        display.pack(given.output)
    elif given.action == "pack":
        import pack

        for part in parts:
            pack.pack(part, given.output)
    else:
        import pack

        {"sheet": pack.sheet, "card": pack.card}[given.action](given.output)


if __name__ == "__main__":
    main()
