"""The ten toys: what each is made of, and how it may vary.

`SHAPES[name](rng)` gives a `Toy`: named parts with meshes, facing +x, standing on z = 0. `paint(toy, rng)` gives every
slot of the toy its colours and material. Shape and paint are apart so that a shape is meshed once, for many colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import sdf
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import ConvexHull, QhullError
from sdf import Mesh, capsule, chain, common, cut, ellipsoid, grow, mirror, move, rotation, smooth, union

CLASSES = ["ball", "block", "car", "cat", "dog", "fish", "mug", "mushroom", "tree", "duck"]
PARTS = [
    "none",
    "body",
    "eye",
    "ear",
    "snout",
    "tail",
    "wheel",
    "window",
    "light",
    "beak",
    "wing",
    "fin",
    "handle",
    "cap",
    "stem",
    "crown",
    "trunk",
]


@dataclass
class Part:
    """One mesh of a toy: `name` is its value in the part masks, `slot` says which paint it gets."""

    name: str
    slot: str
    mesh: Mesh


@dataclass
class Toy:
    """A toy's parts and what its painter needs to know (`notes`, JSON values only)."""

    kind: str
    parts: list[Part]
    notes: dict = field(default_factory=dict)

    def add(self, name: str, slot: str, shape: Mesh | sdf.Field, cells: int = 48) -> None:
        """Add a part, meshing it if it comes as a field; `cells` sets how finely."""
        self.parts.append(
            Part(name, slot, sdf.mesh(shape, round(0.78 * cells)) if isinstance(shape, sdf.Field) else shape)
        )


class Paint(NamedTuple):
    """sRGB colours in [0, 1], (3,) or one a vertex (N, 3), and a material: see `stage.MATERIALS`."""

    colour: np.ndarray
    material: str = "plastic"


# ---------------------------------------------------------------------------------------------------------------------
# Colours

PALETTE = {
    "red": (0.80, 0.10, 0.09),
    "orange": (0.93, 0.42, 0.06),
    "yellow": (0.96, 0.76, 0.08),
    "lime": (0.60, 0.76, 0.14),
    "green": (0.13, 0.52, 0.22),
    "teal": (0.07, 0.55, 0.54),
    "sky": (0.38, 0.70, 0.90),
    "blue": (0.10, 0.28, 0.70),
    "purple": (0.45, 0.20, 0.60),
    "pink": (0.93, 0.50, 0.62),
    "brown": (0.42, 0.25, 0.13),
    "wood": (0.80, 0.60, 0.38),
    "cream": (0.94, 0.88, 0.74),
    "white": (0.93, 0.93, 0.91),
    "grey": (0.52, 0.53, 0.55),
    "black": (0.08, 0.08, 0.09),
}
BRIGHT = ["red", "orange", "yellow", "lime", "green", "teal", "sky", "blue", "purple", "pink"]
ANY = [*BRIGHT, "brown", "wood", "cream", "white", "grey", "black"]


def colour(rng: np.random.Generator, names: list[str] | None = None, jitter: float = 0.05) -> np.ndarray:
    """Draw a colour near one of the named ones."""
    base = np.array(PALETTE[str(rng.choice(names or ANY))])
    base = base * rng.uniform(0.82, 1.08) + rng.normal(0, jitter, 3)
    return np.clip(base, 0.03, 0.97)


def other_colour(
    rng: np.random.Generator, than: np.ndarray, names: list[str] | None = None, apart: float = 0.35
) -> np.ndarray:
    """Draw a colour that differs clearly from another."""
    for _ in range(20):
        c = colour(rng, names)
        if np.abs(c - than).sum() > apart:
            return c
    return np.clip(1 - than, 0.05, 0.95)


def waves(v: np.ndarray, rng: np.random.Generator, frequency: float, count: int = 12) -> np.ndarray:
    """Give smooth noise of about unit spread at points (N, 3): a sum of random plane waves."""
    k = rng.normal(0, frequency, (count, 3))
    return np.cos(v @ k.T.astype(np.float32) + rng.uniform(0, 6.28, count).astype(np.float32)).sum(1) / np.sqrt(
        count / 2
    )


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Blend colours: a where t = 0, b where t = 1."""
    t = np.clip(t, 0, 1)[:, None]
    return a * (1 - t) + b * t


def step(x: np.ndarray, width: float = 0.02) -> np.ndarray:
    """Rise from 0 to 1 around x = 0, over `width`."""
    return np.clip(0.5 + x / width, 0, 1)


def sphere_points(count: int, rng: np.random.Generator, jitter: float = 0.1) -> np.ndarray:
    """Spread directions (count, 3) evenly over the sphere (a Fibonacci spiral, shaken)."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    phi = np.pi * (1 + 5**0.5) * i + rng.uniform(0, 6.28)
    p = np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], 1)
    p += rng.normal(0, jitter, p.shape)
    return p / np.linalg.norm(p, axis=1, keepdims=True)


def dots(v: np.ndarray, centres: np.ndarray, radii: np.ndarray | float, width: float = 0.03) -> np.ndarray:
    """Give 1 at points within `radii` of any centre, falling to 0 over `width`."""
    d = np.linalg.norm(v[:, None] - centres[None], axis=-1) - np.broadcast_to(radii, len(centres))
    return step(-d.min(1), width)


# ---------------------------------------------------------------------------------------------------------------------
# Ball


def ball(rng: np.random.Generator) -> Toy:
    """Make a ball: smooth, grooved like a beach ball or basketball, dimpled, knobbly, or a star-shaped bouncer."""
    style = str(
        rng.choice(
            ["smooth", "gores", "football", "tennis", "basket", "dimples", "knobs"],
            p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.06, 0.09],
        )
    )
    panels = int(rng.choice([4, 5, 6, 8]))
    centres = sphere_points(int(rng.choice([40, 60, 90])), rng, 0)
    depth = float(rng.uniform(0.02, 0.05))

    def radius(d: np.ndarray) -> np.ndarray:
        phi = np.arctan2(d[:, 1], d[:, 0])
        if style == "gores":
            return 1 - depth * np.exp(-((np.sin(panels * phi / 2) / 0.16) ** 2)) * np.hypot(d[:, 0], d[:, 1])
        if style == "football":
            return 1 - 0.6 * depth * _seam(d, 0.035)
        if style == "basket":
            return 1 - 0.5 * depth * _basket(d, 0.05)
        nearest = np.arccos(np.clip(d @ centres.T, -1, 1)).min(1)
        if style == "dimples":
            return 1 - 0.05 * np.exp(-((nearest / 0.1) ** 2))
        if style == "knobs":
            return 1 + knob * np.exp(-((nearest / 0.09) ** 2))
        return np.ones(len(d))

    knob = float(rng.uniform(0.08, 0.16))
    m = sdf.sphere_mesh(110, 168, radius)
    squash = rng.uniform(0.96, 1.0) if style in ("smooth", "gores") else 1.0
    m = sdf.place(m, scale=(1, 1, float(squash)))
    toy = Toy("ball", [], {"style": style, "panels": panels})
    toy.add("body", "body", sdf.place(m, shift=(0, 0, -float(m.v[:, 2].min()))))
    return toy


def _icosahedron() -> np.ndarray:
    """Give the twelve corners as unit vectors (12, 3)."""
    g = (1 + 5**0.5) / 2
    p = np.array([(0, a, b * g) for a in (-1, 1) for b in (-1, 1)])
    p = np.concatenate([p, np.roll(p, 1, 1), np.roll(p, 2, 1)])
    return p / np.linalg.norm(p, axis=1, keepdims=True)


def _pentagons(d: np.ndarray) -> np.ndarray:
    """Give the signed distance (in the chord's measure) to a football's twelve pentagons, negative inside."""
    ico = _icosahedron()
    dist = d @ ico.T
    nearest = dist.argmax(1)
    out = np.full(len(d), 1.0)
    for i, c in enumerate(ico):
        mine = nearest == i
        edges = ico[np.argsort(-(ico @ c))[1:6]]
        sides = edges - c * (edges @ c)[:, None]
        sides /= np.linalg.norm(sides, axis=1, keepdims=True)
        out[mine] = (d[mine] @ sides.T).max(1) - 0.30
    return out


def _seam(d: np.ndarray, width: float) -> np.ndarray:
    """Give 1 on a football's seams: pentagon edges, and the hexagon edges between them."""
    ico = _icosahedron()
    dist = np.sort(d @ ico.T, axis=1)
    hexagon = np.abs(dist[:, -1] - dist[:, -2]) / 1.05
    p = _pentagons(d)
    return np.clip(1 - np.minimum(np.abs(p), np.where(p > 0, hexagon, 1)) / width, 0, 1)


def _basket(d: np.ndarray, width: float) -> np.ndarray:
    """Give 1 on a basketball\'s eight seams."""
    curve = np.abs(np.abs(d[:, 1]) - 0.35 - 0.75 * d[:, 2] ** 2)
    return np.clip(1 - np.minimum(np.minimum(np.abs(d[:, 0]), np.abs(d[:, 2])), curve) / width, 0, 1)


def paint_ball(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a ball by its shape: panels, pentagons, seams, or bands, stripes, spots, a star, a swirl."""
    m = toy.parts[0].mesh
    d = m.v - (m.v.max(0) + m.v.min(0)) / 2
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    style, panels = toy.notes["style"], toy.notes["panels"]
    phi = np.arctan2(d[:, 1], d[:, 0])
    a = colour(rng)
    b = other_colour(rng, a)
    material = str(rng.choice(["plastic", "gloss", "rubber"]))
    if style == "gores":
        count = panels
        colours = [colour(rng, BRIGHT) for _ in range(count)] if rng.random() < 0.5 else [a, b] * count
        if rng.random() < 0.4:
            colours = [c if i % 2 else np.array(PALETTE["white"]) for i, c in enumerate(colours)]
        c = np.array(colours[:count])[np.floor(phi / (2 * np.pi) * count).astype(int) % count]
        c = mix(
            c, np.array(PALETTE["white"]) if rng.random() < 0.6 else b, step(np.abs(d[:, 2]) - rng.uniform(0.93, 0.98))
        )
        return {"body": Paint(c, "gloss")}
    if style == "football":
        if rng.random() < 0.4:
            a, b = np.array(PALETTE["white"]), np.array(PALETTE["black"])
        c = mix(np.broadcast_to(a, d.shape), b, step(-_pentagons(d), 0.02))
        return {"body": Paint(mix(c, c * 0.45, 0.8 * _seam(d, 0.03)), "plastic")}
    if style == "tennis":
        t = np.linspace(0, 2 * np.pi, 240)
        curve = np.stack(
            [0.75 * np.cos(t) + 0.25 * np.cos(3 * t), 0.75 * np.sin(t) - 0.25 * np.sin(3 * t), 0.866 * np.sin(2 * t)], 1
        )
        curve /= np.linalg.norm(curve, axis=1, keepdims=True)
        ground = np.array((0.80, 0.86, 0.16)) if rng.random() < 0.6 else a
        near = np.arccos(np.clip(d @ curve.T, -1, 1)).min(1)
        line = np.array(PALETTE["white"]) if ground.mean() < 0.8 else b
        return {"body": Paint(mix(np.broadcast_to(ground, d.shape), line, step(0.07 - near, 0.03)), "plush")}
    if style == "basket":
        base = np.array((0.82, 0.36, 0.10)) if rng.random() < 0.6 else a
        return {
            "body": Paint(
                mix(np.broadcast_to(base, d.shape), np.array((0.07, 0.06, 0.06)), 1.6 * _basket(d, 0.05)), "rubber"
            )
        }
    if style in ("dimples", "knobs"):
        return {"body": Paint(mix(np.broadcast_to(a, d.shape), b, 0.15 * waves(d, rng, 1.0)), material)}
    pattern = str(rng.choice(["plain", "band", "stripes", "halves", "spots", "star", "swirl"]))
    if pattern == "plain":
        return {"body": Paint(a, material)}
    if pattern == "band":
        t = step(rng.uniform(0.12, 0.4) - np.abs(d[:, 2]))
    elif pattern == "stripes":
        t = step(np.sin(rng.uniform(6, 13) * d[:, 2] + rng.uniform(0, 6)), 0.15)
    elif pattern == "halves":
        t = step(d[:, 2] + rng.uniform(-0.2, 0.2))
    elif pattern == "spots":
        t = dots(d, sphere_points(int(rng.integers(10, 40)), rng, 0.05), rng.uniform(0.12, 0.24))
    elif pattern == "star":
        r, points = np.hypot(d[:, 0], d[:, 1]), int(rng.integers(5, 8))
        t = step(0.55 + 0.25 * np.cos(points * phi) - r, 0.04)
    else:
        t = step(np.sin(panels * phi + rng.uniform(2, 6) * d[:, 2]), 0.15)
    c = mix(np.broadcast_to(a, d.shape), b, t)
    if rng.random() < 0.3:
        c = mix(c, other_colour(rng, b), step(np.abs(d[:, 2]) - 0.9))
    return {"body": Paint(c, material)}


# ---------------------------------------------------------------------------------------------------------------------
# Block


def block(rng: np.random.Generator) -> Toy:
    """Make a building block: letter cube, die, plain cuboid, brick with studs, arch, roof, half round, or steps."""
    style = str(
        rng.choice(
            ["letter", "die", "cuboid", "brick", "arch", "roof", "steps"], p=[0.24, 0.1, 0.14, 0.24, 0.12, 0.1, 0.06]
        )
    )
    toy = Toy("block", [], {"style": style})
    r = float(rng.uniform(0.02, 0.08))
    if style in ("letter", "die", "cuboid"):
        h = np.full(3, 0.5)
        if style == "cuboid":
            h = np.array([rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.5), rng.uniform(0.22, 0.6)])
        elif style == "letter":
            h = h * (1, 1, rng.uniform(0.85, 1.0))
        else:
            r = float(rng.uniform(0.06, 0.16))
        toy.notes["half"] = [float(x) for x in h]
        toy.add("body", "body", sdf.place(sdf.rounded_box_mesh(h, r, 64), shift=(0, 0, float(h[2]))))
    elif style == "brick":
        nx, ny = [(2, 2), (3, 2), (4, 2), (2, 1), (3, 1), (4, 1), (3, 3)][rng.integers(7)]
        pitch, high = 0.4, float(rng.choice([0.16, 0.45, 0.48, 0.5]))
        body = [sdf.box((0, 0, high / 2), (nx * pitch / 2, ny * pitch / 2, high / 2), 0.02)]
        x, y = np.meshgrid((np.arange(nx) - (nx - 1) / 2) * pitch, (np.arange(ny) - (ny - 1) / 2) * pitch)
        stud = sdf.lathe(
            np.array([(0.12, -0.02), (0.12, -0.02), (0.12, 0.085), (0.11, 0.095), (0, 0.095), (0, 0.095)]), 32, 2
        )
        toy.add(
            "body",
            "body",
            sdf.merge(
                sdf.mesh(union(*body), 72),
                *[sdf.place(stud, shift=(a, b, high)) for a, b in zip(x.ravel(), y.ravel(), strict=True)],
            ),
        )
    elif style == "arch":
        w, d, h = rng.uniform(0.6, 0.95), rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.6)
        hole = float(min(h * 1.45, w * rng.uniform(0.55, 0.72)))
        body = cut(sdf.box((0, 0, h), (w, d, h), r), sdf.cylinder((0, 0, 0), 1, hole, 2 * d, 0.01), k=0.03)
        toy.add("body", "body", body, 80)
    elif style == "roof":
        w, d, h = rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8)
        slope = np.degrees(np.arctan2(h, w))
        far = 3.0
        left = move(sdf.box((0, 0, far), (far, far, far), 0.01), rotation(1, slope), (w, 0, 0))
        right = move(sdf.box((0, 0, far), (far, far, far), 0.01), rotation(1, -slope), (-w, 0, 0))
        toy.add("body", "body", cut(sdf.box((0, 0, h / 2), (w, d, h / 2), 0.02), left, right, k=0.04), 80)
    else:
        n, w, d = int(rng.integers(2, 4)), 0.32, float(rng.uniform(0.25, 0.5))
        steps = [
            sdf.box(((i - (n - 1) / 2) * w, 0, (i + 1) * 0.15), (w / 2 + 0.01, d, (i + 1) * 0.15), 0.02)
            for i in range(n)
        ]
        toy.add("body", "body", union(*steps), 80)
    return toy


def _letter(text: str, style: int) -> np.ndarray:
    """Draw a letter as a picture (64, 64) with values 0 to 1."""
    image = Image.new("L", (64, 64), 0)
    draw = ImageDraw.Draw(image)
    if style == 1:
        draw.ellipse((6, 6, 57, 57), fill=255)
        draw.text((32, 32), text, font=ImageFont.load_default(size=42), fill=0, anchor="mm", stroke_width=2)
    else:
        draw.text((32, 32), text, font=ImageFont.load_default(size=52), fill=255, anchor="mm", stroke_width=3)
    return np.asarray(image, np.float32) / 255


PIPS = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, -1), (0, 0), (1, 1)], 4: [(-1, -1), (-1, 1), (1, -1), (1, 1)]}
PIPS[5] = [*PIPS[4], (0, 0)]
PIPS[6] = [*PIPS[4], (-1, 0), (1, 0)]


def wood_grain(v: np.ndarray, rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """Colour points like wood: rings around a slanted axis, gently disturbed."""
    q = v @ rotation(rng.normal(size=3), 25).T
    rings = np.sqrt((q[:, 1] + 0.7) ** 2 + (q[:, 2] - 0.3) ** 2) * rng.uniform(25, 45) + 1.2 * waves(v, rng, 2.0)
    return np.clip(base * (1 + 0.09 * np.sin(rings) + 0.03 * waves(v, rng, 9.0))[:, None], 0, 1)


def paint_block(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a block: letters, pips, wood, one colour, a colour a side, or stripes."""
    m, style = toy.parts[0].mesh, toy.notes["style"]
    a = colour(rng)
    b = other_colour(rng, a)
    if style == "brick":
        return {"body": Paint(colour(rng, [*BRIGHT, "white", "grey", "black"], 0.03), "gloss")}
    wood = colour(rng, ["wood", "cream", "brown"], 0.03)
    if style == "die":
        h, size = 0.5, rng.uniform(0.09, 0.12)
        centre = m.v - (0, 0, 0.5)
        t = np.zeros(len(m.v))
        order = [(0, 1, 1), (0, -1, 6), (1, 1, 2), (1, -1, 5), (2, 1, 3), (2, -1, 4)]
        for axis, sign, count in order:
            face = sign * centre[:, axis] > h * 0.9
            uv = centre[face][:, [i for i in range(3) if i != axis]] / h
            at = np.array(PIPS[count]) * 0.48
            t[face] = step(size * 2 - np.linalg.norm(uv[:, None] - at, axis=-1).min(1), 0.06)
        a = np.array(PALETTE["white"]) if rng.random() < 0.35 else a
        b = np.array(PALETTE["black"]) if a.mean() > 0.5 else np.array(PALETTE["white"])
        return {"body": Paint(mix(np.broadcast_to(a, m.v.shape), b, t), "gloss")}
    if style == "letter":
        half = np.array(toy.notes["half"])
        centre = (m.v - (0, 0, half[2])) / half
        base = wood_grain(m.v, rng, wood) if rng.random() < 0.6 else np.broadcast_to(a, m.v.shape).copy()
        c = base.copy()
        frame, inks, drawing = rng.uniform(0.7, 0.86), [colour(rng, BRIGHT) for _ in range(3)], int(rng.integers(3))
        field_colour = np.array(PALETTE["cream"]) if rng.random() < 0.3 else None
        for axis in range(3):
            for sign in (-1, 1):
                face = sign * centre[:, axis] > 0.97
                u, w = [centre[face][:, i] for i in range(3) if i != axis]
                if axis == 0:
                    u = u * sign
                elif axis == 1:
                    u = -u * sign
                letter = _letter(chr(65 + int(rng.integers(26))), drawing)
                inside = np.maximum(np.abs(u), np.abs(w)) < frame
                col = np.clip(((u / frame + 1) * 31.5).round(), 0, 63).astype(int)
                row = np.clip(((1 - w / frame) * 31.5).round(), 0, 63).astype(int)
                ink = inks[axis]
                edge = step(0.07 - np.abs(np.maximum(np.abs(u), np.abs(w)) - frame), 0.04)
                mine = base[face] if field_colour is None else np.where(inside[:, None], field_colour, base[face])
                mine = mix(mine, ink, edge if drawing != 2 else 0 * edge)
                c[face] = mix(mine, ink, np.where(inside, letter[row, col], 0))
        return {"body": Paint(c, "wood")}
    kind = str(rng.choice(["wood", "paint", "sides", "stripes"], p=[0.25, 0.4, 0.2, 0.15]))
    if kind == "wood":
        return {"body": Paint(wood_grain(m.v, rng, wood), "wood")}
    if kind == "paint":
        return {"body": Paint(a, str(rng.choice(["wood", "plastic", "gloss"])))}
    if kind == "sides":
        axis = np.abs(m.n).argmax(1)
        return {
            "body": Paint(
                np.stack([wood, a, b])[axis] if rng.random() < 0.5 else np.stack([a, b, colour(rng)])[axis], "wood"
            )
        }
    t = step(np.sin(m.v[:, int(rng.choice([0, 2]))] * rng.uniform(10, 20)), 0.2)
    return {"body": Paint(mix(np.broadcast_to(a, m.v.shape), b, t), "wood")}


# ---------------------------------------------------------------------------------------------------------------------
# Car


def car(rng: np.random.Generator) -> Toy:
    """Make a car: saloon, hatchback, beetle, van, bus, pick-up, lorry, racer."""
    style = str(rng.choice(["saloon", "hatch", "beetle", "van", "bus", "pickup", "lorry", "racer"]))
    toy = Toy("car", [], {"style": style})
    long = {
        "saloon": 1.0,
        "hatch": 0.82,
        "beetle": 0.85,
        "van": 0.95,
        "bus": 1.2,
        "pickup": 1.02,
        "lorry": 1.15,
        "racer": 1.05,
    }[style]
    long *= rng.uniform(0.92, 1.08)
    wide = float(rng.uniform(0.40, 0.5)) * (1.05 if style in ("bus", "lorry", "racer") else 1.0)
    wheel = float(rng.uniform(0.19, 0.25)) * (0.9 if style == "bus" else 1.12 if style == "racer" else 1.0)
    low = wheel * rng.uniform(0.55, 0.8)
    r = float(rng.uniform(0.06, 0.14))
    belt = float(low + rng.uniform(0.30, 0.38))
    roof = belt + float(rng.uniform(0.28, 0.36))
    hull = sdf.box((0, 0, (low + belt) / 2), (long, wide, (belt - low) / 2), min(r, (belt - low) / 2.2))
    cabin, bands, extra = None, [], []

    def house(x0: float, x1: float, top: float, tuck: float, shrink: float = 0.9) -> sdf.Field:
        """Give a cabin from x0 to x1 at the belt, `tuck` shorter at the roof on either end, as a leaning hull."""
        c, h = (x0 + x1) / 2, (x1 - x0) / 2
        base = sdf.box((c, 0, (belt + top) / 2), (h, wide * shrink, (top - belt) / 2 + 0.06), 0.09)
        tall = top - belt
        front = move(
            sdf.box((2, 0, 0), (2, 2, 4), 0.01), rotation(1, -np.degrees(np.arctan2(tuck, tall))), (x1, 0, belt)
        )
        back = move(
            sdf.box((-2, 0, 0), (2, 2, 4), 0.01), rotation(1, np.degrees(np.arctan2(tuck * 0.7, tall))), (x0, 0, belt)
        )
        return cut(base, front, back, k=0.10)

    if style == "saloon":
        cabin = house(-0.62 * long, 0.48 * long, roof, 0.24)
        bands = [(-0.5 * long, -0.06 * long), (0.0, 0.40 * long)]
    elif style == "hatch":
        cabin = house(-0.92 * long, 0.45 * long, roof, 0.22)
        bands = [(-0.78 * long, -0.2 * long), (-0.13 * long, 0.36 * long)]
    elif style == "beetle":
        hull = smooth(
            ellipsoid((0, 0, low + 0.16), (long, wide, 0.27)),
            sdf.box((0, 0, low + 0.12), (0.8 * long, wide * 0.9, 0.1), 0.08),
            k=0.1,
        )
        belt = low + 0.34
        roof = belt + 0.32
        cabin = ellipsoid((-0.08 * long, 0, belt - 0.06), (0.64 * long, wide * 0.85, roof - belt + 0.06))
        bands = [(-0.5 * long, -0.1 * long), (-0.03 * long, 0.4 * long)]
    elif style == "van":
        roof += 0.12
        cabin = house(-0.98 * long, 0.62 * long, roof, 0.14, 0.95)
        bands = (
            [(0.08 * long, 0.46 * long)]
            if rng.random() < 0.5
            else [(-0.8 * long, -0.42 * long), (-0.34 * long, 0.04 * long), (0.12 * long, 0.48 * long)]
        )
    elif style == "bus":
        roof += float(rng.choice([0.1, 0.2, 0.55]))
        cabin = house(-0.99 * long, 0.985 * long, roof, 0.05, 0.985)
        edges = np.linspace(-0.9 * long, 0.86 * long, int(rng.integers(4, 7)))
        bands = [(a + 0.04, b - 0.03) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    elif style == "pickup":
        cabin = house(-0.2 * long, 0.5 * long, roof, 0.16)
        bands = [(-0.1 * long, 0.14 * long), (0.2 * long, 0.4 * long)]
        hull = cut(hull, sdf.box((-0.6 * long, 0, belt), (0.34 * long, wide * 0.82, 0.2), 0.03), k=0.02)
    elif style == "lorry":
        cabin = house(0.42 * long, 0.97 * long, roof + 0.14, 0.06, 0.96)
        bands = [(0.54 * long, 0.84 * long)]
        load = str(rng.choice(["box", "tank", "tipper"]))
        if load == "box":
            extra = [sdf.box((-0.32 * long, 0, belt + 0.3), (0.64 * long, wide, 0.36), 0.04)]
        elif load == "tank":
            extra = [sdf.cylinder((-0.32 * long, 0, belt + wide * 0.7), 0, wide * 0.85, 0.62 * long, 0.12)]
        else:
            extra = [
                cut(
                    sdf.box((-0.32 * long, 0, belt + 0.18), (0.64 * long, wide, 0.24), 0.03),
                    sdf.box((-0.32 * long, 0, belt + 0.35), (0.57 * long, wide * 0.87, 0.3), 0.02),
                )
            ]
        hull = sdf.box((0, 0, (low + belt) / 2 - 0.04), (long, wide * 0.95, (belt - low) / 2 - 0.03), 0.05)
    else:
        hull = smooth(
            capsule((-0.7 * long, 0, low + 0.16), (0.95 * long, 0, low + 0.08), 0.24, 0.1),
            ellipsoid((-0.15 * long, 0, low + 0.14), (0.62 * long, wide * 0.75, 0.19)),
            k=0.14,
        )
        cabin = smooth(
            ellipsoid((-0.2 * long, 0, low + 0.36), (0.3 * long, 0.2, 0.22)),
            ellipsoid((-0.55 * long, 0, low + 0.34), (0.3 * long, 0.1, 0.24)),
            k=0.05,
        )
        extra = [
            sdf.box((-0.98 * long, 0, low + 0.58), (0.16, wide * 0.95, 0.03), 0.025),
            mirror(sdf.box((-0.95 * long, 0.2, low + 0.4), (0.06, 0.03, 0.2), 0.02)),
            sdf.box((0.95 * long, 0, low + 0.02), (0.14, wide * 0.95, 0.03), 0.025),
        ]
    axles = (0.6 * long, -0.6 * long) if style != "racer" else (0.58 * long, -0.66 * long)
    out = wide * (1.02 if style != "racer" else 1.2)
    arches = [] if style == "racer" else [sdf.cylinder((x, 0, wheel), 1, wheel * 1.17, 2, 0.01) for x in axles]
    body = (
        cut(smooth(hull, cabin, k=0.05) if style in ("beetle", "racer") else union(hull, cabin), *arches, k=0.03)
        if arches
        else smooth(hull, cabin, k=0.04)
    )
    toy.add("body", "body", body, 96)
    if extra:
        toy.add(
            "body",
            "extra" if style == "lorry" else "trim",
            cut(union(*extra), *arches, k=0.02) if arches else union(*extra),
            88,
        )
    # Windows: the cabin's own surface, lifted a little, between sill and roof
    sill, top = belt + 0.05, roof - 0.07 if style != "lorry" else roof + 0.07
    if style == "bus" and roof - belt > 0.7:
        rows = [(belt + 0.06, belt + 0.32), (belt + 0.46, roof - 0.08)]
    else:
        rows = [(max(sill, roof - 0.42) if style in ("van", "bus") else sill, top)]
    shell = grow(cabin, 0.008)
    panes = []
    if style == "racer":
        panes = [common(shell, sdf.box((0.02 * long, 0, low + 0.5), (0.16 * long, 1, 0.13), 0.03))]
    else:
        for a, b in rows:
            c, h = (a + b) / 2, (b - a) / 2
            panes += [common(shell, sdf.box(((x0 + x1) / 2, 0, c), ((x1 - x0) / 2, 2, h), 0.04)) for x0, x1 in bands]
            panes.append(common(shell, sdf.box((2 + bands[-1][1], 0, c), (2, wide * 0.72, h), 0.04)))
            if style in ("saloon", "hatch", "beetle", "bus", "pickup"):
                panes.append(common(shell, sdf.box((-2 + bands[0][0], 0, c), (2, wide * 0.66, h), 0.04)))
    toy.add("window", "window", union(*panes), 96)
    # Wheels: a tyre with a rounded tread, a hub with spokes or a cap
    w = float(rng.uniform(0.08, 0.12)) * (1.5 if style == "racer" else 1.0)
    tyre = sdf.lathe(
        np.array([(0.55, -1), (0.9, -1), (1, -0.7), (1, 0.7), (0.9, 1), (0.55, 1), (0.5, 0.8)]) * (wheel, w), 48, 3
    )
    hub = sdf.lathe(
        np.array([(0.62, 0.5), (0.6, 0.88), (0.5, 0.8), (0.25, 0.75), (0.2, 1.12), (0, 1.15)]) * (wheel, w), 48, 2
    )
    tyres, hubs = [], []
    for x in axles:
        for side in (1, -1):
            turn = rotation(0, -90 * side)
            at = (x, side * (out - w), wheel)
            tyres.append(sdf.place(tyre, turn, at))
            hubs.append(sdf.place(hub, turn, at))
    toy.add("wheel", "tyre", sdf.merge(*tyres))
    toy.add("wheel", "hub", sdf.merge(*hubs))
    # Lamps
    z = float((low + belt) / 2 + 0.04)
    if style != "racer":
        nose = sdf.surface_point(hull, (0, 0.62 * wide, z if style != "beetle" else low + 0.16), (1, 0, 0), 2.5)[0]
        lamp = mirror(ellipsoid(nose, (0.05, 0.075, 0.065)))
        toy.add("light", "front", lamp, 96)
        rear = sdf.surface_point(hull, (0, 0.62 * wide, z if style != "beetle" else low + 0.16), (-1, 0, 0), 2.5)[0]
        toy.add("light", "rear", mirror(sdf.box(rear, (0.025, 0.07, 0.045), 0.02)), 96)
        if rng.random() < 0.6:
            bumpers = [sdf.box((s * long, 0, low + 0.05), (0.05, wide * 0.96, 0.05), 0.04) for s in (-1, 1)]
            toy.add("body", "trim", union(*bumpers), 80)
    if style in ("saloon", "hatch", "van") and rng.random() < 0.25:
        toy.add("light", "sign", sdf.box((0, 0, roof + 0.05), (0.1, 0.2, 0.06), 0.04), 40)
    toy.notes.update(belt=float(belt), roof=float(roof), long=float(long))
    return toy


def paint_car(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a car: one or two colours or wood, with glass, tyres, hubs and lamps."""
    m = toy.parts[0].mesh
    a = colour(rng, [*BRIGHT, "red", "blue", "yellow", "white", "white", "grey", "black", "cream", "wood"])
    b = other_colour(rng, a)
    finish = str(rng.choice(["gloss", "gloss", "plastic", "wood"]))
    c = np.broadcast_to(a, m.v.shape).copy()
    pattern = rng.random()
    if pattern < 0.2:
        c = mix(c, b, step(m.v[:, 2] - toy.notes["belt"] + 0.02))
    elif pattern < 0.35:
        c = mix(c, b, step(0.1 - np.abs(m.v[:, 1])))
    elif pattern < 0.45:
        c = mix(c, b, step(0.05 - np.abs(m.v[:, 2] - toy.notes["belt"] + 0.1)))
    elif pattern < 0.55:
        c = wood_grain(m.v, rng, colour(rng, ["wood", "cream"]))
        finish = "wood"
    hub = colour(rng, ["white", "grey", "yellow", "red", "cream", "black"])
    glass = np.array(rng.choice([[0.10, 0.14, 0.18], [0.06, 0.07, 0.09], [0.35, 0.50, 0.60], [0.55, 0.70, 0.78]]))
    tyre = np.array((0.05, 0.05, 0.055)) if rng.random() < 0.85 else colour(rng, ["brown", "wood", "red", "blue"])
    return {
        "body": Paint(c, finish),
        "extra": Paint(other_colour(rng, a), str(rng.choice(["gloss", "plastic"]))),
        "trim": Paint(colour(rng, ["grey", "black", "white"]), "plastic"),
        "window": Paint(glass, "mirror"),
        "tyre": Paint(tyre, "rubber"),
        "hub": Paint(hub, "gloss"),
        "front": Paint(np.array((0.97, 0.93, 0.74)), "mirror"),
        "rear": Paint(np.array((0.75, 0.05, 0.05)), "mirror"),
        "sign": Paint(colour(rng, ["yellow", "white", "blue", "red"]), "gloss"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Cat and dog


def pet(
    rng: np.random.Generator, ears: str, snout: str, tail: str, kind: str, eye_size: float = 1.0, covers: bool = False
) -> Toy:
    """Make a cat or a dog, or something between.

    Args:
        ears: "pointed", "tall", "folded", "floppy" or "round".
        snout: "cat", "short" or "long".
        tail: "long", "up", "stub" or "curl".
        kind: the toy's class.
        eye_size: factor on the eyes' size.
        covers: also make a sleeping mask and eye patches, in slots "cover:...".
    """
    toy = Toy(kind, [], {"ears": ears, "snout": snout, "tail": tail})
    pose = str(rng.choice(["stand", "sit", "loaf"], p=[0.42, 0.42, 0.16]))
    fat = float(rng.uniform(0.85, 1.15))
    head_size = float(rng.uniform(0.88, 1.15))
    leg = float(rng.uniform(0.09, 0.13))
    if pose == "stand":
        long, height = float(rng.uniform(0.42, 0.62)), float(rng.uniform(0.40, 0.58))
        girth = 0.30 * fat
        trunk = smooth(
            ellipsoid((0, 0, height), (long, girth, girth)),
            ellipsoid((0.45 * long, 0, height + 0.04), (0.3, girth * 0.98, girth)),
            k=0.1,
        )
        legs = [
            mirror(capsule((x, 0.55 * girth, height - 0.1), (x + dx, 0.62 * girth, leg), leg * 1.05, leg))
            for x, dx in ((0.62 * long, 0.03), (-0.66 * long, -0.02))
        ]
        feet = [
            mirror(ellipsoid((x, 0.62 * girth, leg * 0.8), (leg * 1.3, leg * 1.05, leg * 0.8)))
            for x in (0.62 * long + 0.07, -0.66 * long + 0.04)
        ]
        neck, root = np.array([0.72 * long, 0, height + 0.5 * girth]), np.array([-long * 0.93, 0, height + 0.1])
        head_at = np.array([0.80 * long + 0.08, 0, height + girth + 0.28 * head_size])
    elif pose == "sit":
        tall = float(rng.uniform(0.72, 0.95))
        trunk = smooth(
            capsule((-0.14, 0, 0.36 * fat), (0.08, 0, tall), 0.36 * fat, 0.24),
            mirror(ellipsoid((-0.02, 0.26 * fat, 0.20), (0.28, 0.16, 0.22))),
            k=0.1,
        )
        legs = [mirror(capsule((0.20, 0.15, tall - 0.2), (0.33, 0.16, leg), leg * 1.1, leg))]
        feet = [
            mirror(ellipsoid((0.39, 0.16, leg * 0.75), (leg * 1.35, leg * 1.05, leg * 0.75))),
            mirror(ellipsoid((0.24, 0.34 * fat, 0.08), (0.19, 0.10, 0.08))),
        ]
        neck, root = np.array([0.09, 0, tall]), np.array([-0.44 * fat, 0, 0.16])
        head_at = np.array([0.14, 0, tall + 0.34 * head_size])
    else:
        long = float(rng.uniform(0.5, 0.65))
        trunk = smooth(
            ellipsoid((0, 0, 0.29), (long, 0.36 * fat, 0.29)),
            mirror(ellipsoid((-0.3, 0.24 * fat, 0.2), (0.26, 0.17, 0.2))),
            k=0.1,
        )
        legs = [mirror(capsule((0.3, 0.2, 0.16), (0.62, 0.19, leg), leg * 1.1, leg))]
        feet = [mirror(ellipsoid((0.68, 0.19, leg * 0.8), (leg * 1.3, leg, leg * 0.8)))]
        neck, root = np.array([0.42, 0, 0.5]), np.array([-long * 0.92, 0, 0.2])
        head_at = np.array([0.5, 0, 0.62 + 0.2 * head_size])
    look = (
        rotation(2, float(rng.uniform(-30, 30)))
        @ rotation(1, float(rng.uniform(-6, 8)))
        @ rotation(0, float(rng.normal(0, 6)))
    )
    s = 0.42 * head_size  # the head's radius; what follows is in its frame, in units of it
    wide, high = float(rng.uniform(0.98, 1.14)), float(rng.uniform(0.86, 1.0))
    cheeks = float(rng.uniform(0.0, 0.16))
    head = smooth(
        ellipsoid((0, 0, 0), (0.92, wide, high)),
        mirror(ellipsoid((0.25, 0.5 * wide, -0.3), (0.5, 0.42 + cheeks, 0.42))),
        k=0.2,
    )

    def on_head(f: sdf.Field | Mesh) -> sdf.Field | Mesh:
        return (move if isinstance(f, sdf.Field) else sdf.place)(f, look, head_at, s)

    e = float(rng.uniform(0.9, 1.15))
    if ears == "pointed":
        spread, tip = float(rng.uniform(0.52, 0.66)) * wide, float(rng.uniform(1.35, 1.65)) * e
        ear = smooth(
            *[
                capsule((x, spread + dy, 0.55), (x - 0.06, spread + 0.2, tip), 0.26, 0.03)
                for x, dy in ((0.02, 0.1), (0.02, -0.12))
            ],
            k=0.12,
        )
        ear = cut(ear, capsule((0.34, spread - 0.02, 0.72), (0.16, spread + 0.17, tip - 0.18), 0.2, 0.06), k=0.06)
    elif ears == "tall":
        spread, tip = float(rng.uniform(0.42, 0.56)) * wide, float(rng.uniform(1.5, 1.85)) * e
        ear = smooth(
            capsule((0, spread, 0.6), (-0.1, spread + 0.16, tip * 0.82), 0.25, 0.2),
            capsule((-0.1, spread + 0.16, tip * 0.8), (-0.12, spread + 0.22, tip), 0.2, 0.06),
            k=0.1,
        )
        ear = cut(ear, capsule((0.3, spread, 0.8), (0.1, spread + 0.18, tip - 0.2), 0.19, 0.08), k=0.06)
    elif ears == "folded":
        spread = float(rng.uniform(0.55, 0.66)) * wide
        ear = chain(
            np.array(
                [
                    (0.0, spread, 0.6),
                    (-0.05, spread + 0.16, 1.05 * e),
                    (0.22, spread + 0.26, 1.0 * e),
                    (0.38, spread + 0.3, 0.78 * e),
                ]
            ),
            np.array([0.24, 0.19, 0.15, 0.08]),
        )
    elif ears == "floppy":
        drop = float(rng.uniform(-0.75, -0.15)) * e
        path = np.array(
            [(-0.02, 0.6 * wide, 0.68), (-0.02, 0.98 * wide, 0.58), (0.05, 1.16 * wide, 0.1), (0.1, 1.14 * wide, drop)]
        )
        ear = smooth(
            chain(path, np.array([0.16, 0.19, 0.22, 0.2])),
            ellipsoid((0.08, 1.14 * wide, drop + 0.1), (0.3, 0.15, 0.3)),
            k=0.12,
        )
    else:
        spread = 0.66 * wide
        ear = cut(
            ellipsoid((0, spread, 0.78 * e), (0.18, 0.34, 0.36)),
            ellipsoid((0.22, spread, 0.8 * e), (0.16, 0.22, 0.24)),
            k=0.05,
        )
    if snout == "cat":
        out = 0.86
        muzzle = smooth(
            mirror(ellipsoid((out, 0.15, -0.30), (0.22, 0.22, 0.19))),
            ellipsoid((out - 0.04, 0, -0.45), (0.17, 0.16, 0.12)),
            k=0.06,
        )
        nose = ellipsoid((out + 0.18, 0, -0.17), (0.09, 0.11, 0.075))
    else:
        reach = float(rng.uniform(0.12, 0.22) if snout == "short" else rng.uniform(0.34, 0.55))
        w = float(rng.uniform(0.28, 0.36))
        muzzle = smooth(
            capsule((0.6, 0, -0.22), (0.86 + reach, 0, -0.3), w * 1.08, w * 0.85),
            ellipsoid((0.75 + reach * 0.8, 0, -0.52), (0.3, 0.2, 0.13)),
            k=0.1,
        )
        nose = ellipsoid((0.86 + reach + w * 0.75, 0, -0.16), (0.12, 0.16, 0.12))
    path = (
        {
            "long": np.array(
                [(0, 0, 0), (-0.3, 0.03, 0.04), (-0.55, 0.1, 0.25), (-0.6, 0.16, 0.6), (-0.5, 0.18, 0.85)]
            ),
            "up": np.array([(0, 0, 0), (-0.2, 0, 0.12), (-0.3, 0, 0.4), (-0.27, 0, 0.7), (-0.36, 0.02, 0.88)]),
            "stub": np.array([(0, 0, 0), (-0.14, 0, 0.08), (-0.24, 0, 0.18)]),
            "curl": np.array([(0, 0, 0), (-0.2, 0, 0.2), (-0.22, 0.03, 0.45), (0.0, 0.06, 0.56), (0.12, 0.08, 0.4)]),
        }[tail]
        * (1, float(rng.choice([-1, 1])), 1)
        * rng.uniform(0.8, 1.15)
    )
    t, fine = np.linspace(0, 1, len(path)), np.linspace(0, 1, 11)
    curve = np.stack([np.interp(fine, t, path[:, i]) for i in range(3)], 1)
    for _ in range(3):
        curve[1:-1] = (curve[:-2] + 2 * curve[1:-1] + curve[2:]) / 4
    thick = float(rng.uniform(0.06, 0.1))
    tip = thick * float(rng.choice([0.6, 0.9, 1.4]))
    radii = np.interp(fine, [0, 0.5, 1], [thick, thick, tip])
    curve = curve + root + (0.1, 0, 0)
    curve[:, 2] = np.maximum(curve[:, 2], radii + 0.01)
    toy.add(
        "body",
        "body",
        smooth(trunk, *legs, *feet, on_head(head), capsule(neck - (0.03, 0, 0.12), head_at, 0.22 * fat, 0.26), k=0.07),
        84,
    )
    toy.add("ear", "ear", on_head(mirror(ear)), 64)
    toy.add("snout", "muzzle", on_head(muzzle), 44)
    toy.add("snout", "nose", on_head(nose), 28)
    toy.add("tail", "tail", chain(curve, radii), 56)
    # Eyes: slightly flattened balls, sunk into the head where a ray leaves it
    size = float(rng.uniform(0.23, 0.29)) * eye_size
    azimuth, rise = float(rng.uniform(23, 28)) * (1 + 0.25 * (eye_size - 1)), float(rng.uniform(8, 16))
    toy.notes["eyes"], eyes_at = [], []
    for i, side in enumerate((1, -1)):
        d = np.array([np.cos(np.radians(azimuth)), side * np.sin(np.radians(azimuth)), np.sin(np.radians(rise))])
        at, normal = sdf.surface_point(head, (0, 0, 0), d)
        gaze = normal + (0.9, 0, 0)
        gaze /= np.linalg.norm(gaze)
        basis = np.stack([normal, np.cross((0, 0, 1), normal), [0, 0, 0]], 1)
        basis[:, 1] /= np.linalg.norm(basis[:, 1])
        basis[:, 2] = np.cross(basis[:, 0], basis[:, 1])
        ball_mesh = sdf.place(
            sdf.sphere_mesh(56, 80),
            basis.astype(np.float32),
            at - 0.30 * size * normal,
            (size * 0.72, size, size * 1.08),
        )
        toy.add("eye", f"eye{i}", on_head(ball_mesh))
        eyes_at.append(at - 0.30 * size * normal)
        toy.notes["eyes"].append(_eye_notes(at - 0.30 * size * normal, gaze, size, look, head_at, s))
    if covers:
        # A sleeping mask over both eyes and a patch over either; the painter leaves out those that aren't asked for
        balls = [ellipsoid(at, size * 1.04) for at in eyes_at]
        level = float(eyes_at[0][2])
        shell = smooth(grow(head, 0.05), *[grow(b, 0.05) for b in balls], k=0.12)
        band = common(grow(head, 0.035), sdf.box((0, 0, level), (2, 2, 0.07), 0.02))
        front = sdf.box((1.02, 0, level), (1.0, 0.86, size * 1.12), 0.1)
        toy.add("body", "cover:mask", on_head(union(common(shell, front), band)), 72)
        for i in range(2):
            slanted = move(sdf.box((0, 0, 0), (2, 2, 0.05), 0.01), rotation(0, 24 - 48 * i), (0, 0, level + 0.1))
            strap = common(grow(head, 0.03), slanted)
            toy.add("body", f"cover:patch{i}", on_head(union(grow(balls[i], 0.05), strap)), 72)
    toy.notes["pose"] = pose
    return toy


def _eye_notes(
    centre: np.ndarray, gaze: np.ndarray, size: float, turn: np.ndarray, shift: np.ndarray, scale: float
) -> dict:
    """Say where an eye lies and looks, in the toy's frame."""
    up = np.array([0, 0, 1.0]) - gaze * gaze[2]
    up /= np.linalg.norm(up)
    return {
        "centre": (scale * turn @ centre + shift).tolist(),
        "gaze": (turn @ gaze).tolist(),
        "up": (turn @ up).tolist(),
        "size": float(size * scale),
    }


def cat(rng: np.random.Generator) -> Toy:
    """Make a cat: pointed ears, a small snout, mostly a long tail."""
    ears, tail = (
        str(rng.choice(["pointed", "pointed", "pointed", "folded"])),
        str(rng.choice(["long", "up", "up", "curl"])),
    )
    return pet(rng, ears, "cat", tail, "cat")


def dog(rng: np.random.Generator) -> Toy:
    """Make a dog: floppy, folded or pricked ears, a longer snout, mostly a short tail."""
    ears = str(rng.choice(["floppy", "floppy", "folded", "tall", "round"]))
    return pet(rng, ears, str(rng.choice(["long", "long", "short"])), str(rng.choice(["stub", "up", "curl"])), "dog")


def mixed_pet(rng: np.random.Generator) -> Toy:
    """Make a pet whose ears, snout and tail say nothing about cat or dog, with large eyes."""
    ears = str(rng.choice(["pointed", "folded", "floppy", "tall", "round"]))
    snout, tail = str(rng.choice(["cat", "short", "long"])), str(rng.choice(["long", "up", "stub", "curl"]))
    return pet(rng, ears, snout, tail, "pet", eye_size=1.3, covers=True)


def big_eyed(kind: str) -> Callable[[np.random.Generator], Toy]:
    """Give the maker of a true cat or dog with large eyes, as the mended pictures of `eyes` show."""

    def make(rng: np.random.Generator) -> Toy:
        if kind == "cat":
            return pet(rng, "pointed", "cat", str(rng.choice(["long", "up"])), "cat", eye_size=1.3)
        return pet(rng, "floppy", "long", str(rng.choice(["stub", "curl"])), "dog", eye_size=1.3)

    return make


def eye_style(rng: np.random.Generator, kind: str) -> dict:
    """Draw how a pair of eyes is painted: a cat's pupil is a slit, a dog's is large and round; irises overlap."""
    cat_iris = [(0.55, 0.72, 0.16), (0.86, 0.72, 0.12), (0.30, 0.62, 0.30), (0.90, 0.58, 0.10), (0.35, 0.62, 0.78)]
    dog_iris = [(0.36, 0.20, 0.08), (0.52, 0.30, 0.10), (0.80, 0.52, 0.12), (0.24, 0.13, 0.06), (0.42, 0.48, 0.20)]
    iris = np.array((cat_iris if kind == "cat" else dog_iris)[int(rng.integers(5))]) * rng.uniform(0.85, 1.1)
    slit = float(rng.uniform(0.10, 0.17))
    return {
        "iris": np.clip(iris + rng.normal(0, 0.03, 3), 0, 1).tolist(),
        "pupil": [slit, 0.60] if kind == "cat" else [float(rng.uniform(0.38, 0.46))] * 2,
    }


def paint_eye(m: Mesh, eye: dict, style: dict, white: np.ndarray | None = None) -> np.ndarray:
    """Colour an eyeball: a dark rim, a pale ring, the iris, the pupil and a catch-light.

    Args:
        m: the eyeball.
        eye: its centre, gaze and up vector (`Toy.notes["eyes"]`).
        style: `{"iris": colour, "pupil": [half width, half height]}`, the pupil in units of the eyeball's radius.
        white: colour of the ring around the iris.
    """
    gaze, up = np.array(eye["gaze"]), np.array(eye["up"])
    d = (m.v - np.array(eye["centre"])) / eye["size"]
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    across, high, front = d @ np.cross(up, gaze), d @ up, d @ gaze
    behind = 2.0 * (front < 0)
    r = np.hypot(across, high) + behind
    c = np.broadcast_to(np.array((0.93, 0.92, 0.88)) if white is None else white, m.v.shape)
    iris = np.array(style["iris"])
    c = mix(c, iris * 0.45, step(0.70 - r, 0.05))
    c = mix(c, iris[None] * (0.75 + 0.6 * np.clip(r[:, None] - 0.1, 0, 0.6)), step(0.64 - r, 0.05))
    a, b = style["pupil"]
    c = mix(c, np.array((0.02, 0.02, 0.025)), step(1 - np.hypot(across / a, high / b) - behind, 0.15))
    c = mix(c, np.array((0.05, 0.045, 0.045)), step(r - 0.94, 0.06))
    return mix(c, np.array((1.0, 1.0, 1.0)), step(0.13 - np.hypot(across - 0.22, high - 0.27) - behind, 0.05))


FUR = [
    (0.16, 0.15, 0.16),
    (0.45, 0.43, 0.42),
    (0.72, 0.70, 0.68),
    (0.92, 0.90, 0.86),
    (0.78, 0.44, 0.15),
    (0.88, 0.66, 0.38),
    (0.55, 0.36, 0.20),
    (0.35, 0.21, 0.12),
    (0.83, 0.74, 0.60),
    (0.40, 0.42, 0.48),
    (0.62, 0.28, 0.12),
    (0.90, 0.76, 0.20),
    (0.85, 0.55, 0.60),
    (0.35, 0.50, 0.68),
]


def paint_pet(toy: Toy, rng: np.random.Generator, eyes: dict | None = None) -> dict[str, Paint]:
    """Paint a cat's or dog's coat; the same coats for both. `eyes` gives the eyes' style (else by the toy's kind)."""
    slots = {p.slot: p.mesh for p in toy.parts}
    v = slots["body"].v
    weights = np.array([1.0] * 11 + [0.6, 0.3, 0.3])
    fur = np.array(FUR[int(rng.choice(len(FUR), p=weights / weights.sum()))]) * rng.uniform(0.9, 1.1)
    fur = np.clip(fur + rng.normal(0, 0.02, 3), 0.04, 0.96)
    pale_by = rng.uniform(0.5, 0.95)
    light, dark = fur * (1 - pale_by) + np.array((0.95, 0.92, 0.87)) * pale_by, fur * rng.uniform(0.3, 0.55)
    coat = str(rng.choice(["plain", "tabby", "bib", "patches", "spots", "points", "saddle"]))
    noise, q = int(rng.integers(1 << 30)), rng.uniform(9, 15)

    def coloured(p: np.ndarray, n: np.ndarray) -> np.ndarray:
        g = np.random.default_rng(noise)
        c = np.broadcast_to(fur, p.shape)
        if coat == "tabby":
            bend = 0.6 * waves(p, g, 2.2)
            stripes = step(np.sin(q * (p[:, 0] * 0.9 + 0.35 * p[:, 2]) + bend) - 0.25, 0.5)
            c = mix(c, dark, 0.85 * stripes * step(n[:, 2] + 0.55, 0.6))
            c = mix(c, light, step(-n[:, 2] - 0.45, 0.4))
        elif coat == "bib":
            front = p[:, 0] - np.percentile(v[:, 0], 70)
            chest = step(front - 0.1 - np.abs(p[:, 1]), 0.1) * step(n[:, 0] - 0.25, 0.3)
            c = mix(c, light, np.maximum(step(0.14 - p[:, 2], 0.05), chest))
        elif coat == "patches":
            field_a, field_b = waves(p, g, 2.4), waves(p, g, 2.6)
            c = mix(c, light, step(field_a - 0.1, 0.12))
            c = mix(c, dark, step(field_b - 0.9, 0.12))
        elif coat == "spots":
            c = mix(c, dark if fur.mean() > 0.35 else light, step(waves(p, g, 5.5) - 0.95, 0.15))
        elif coat == "points":
            c = mix(c, dark, step(0.16 - p[:, 2], 0.15))
        elif coat == "saddle":
            c = mix(c, dark, step(n[:, 2] - 0.25 + 0.2 * waves(p, g, 3.0), 0.3))
        return np.clip(c * (1 + 0.035 * np.random.default_rng(7).standard_normal(len(p)))[:, None], 0.02, 0.98)

    ear, muzzle, tail = slots["ear"], slots["muzzle"], slots["tail"]
    hollow = toy.notes["ears"] in ("pointed", "tall", "round")
    inside = step(ear.n[:, 0] - 0.45, 0.3) * (1.0 if hollow else 0.0)
    base_ear = dark if coat in ("points", "saddle") or rng.random() < 0.3 else fur
    inner = np.array((0.86, 0.55, 0.52)) * rng.uniform(0.8, 1.05)
    pale = light if coat in ("bib", "tabby", "patches") or rng.random() < 0.4 else dark if coat == "points" else fur
    tail_colour = coloured(tail.v, tail.n)
    if coat == "points":
        tail_colour = np.broadcast_to(dark, tail.v.shape)
    elif rng.random() < 0.3:
        reach = np.linalg.norm(tail.v - tail.v[tail.v[:, 0].argmax()], axis=1)
        tail_colour = mix(tail_colour, light, step(reach - 0.72 * reach.max(), 0.05))
    material = str(rng.choice(["plush", "plush", "plastic", "rubber", "wood"]))
    nose = np.array(((0.10, 0.07, 0.07), (0.62, 0.32, 0.32), (0.30, 0.17, 0.13))[int(rng.integers(3))])
    out = {
        "body": Paint(coloured(v, slots["body"].n), material),
        "ear": Paint(mix(np.broadcast_to(base_ear, ear.v.shape), inner, 0.85 * inside), material),
        "muzzle": Paint(np.broadcast_to(pale, muzzle.v.shape), material),
        "nose": Paint(nose, "gloss"),
        "tail": Paint(tail_colour, material),
    }
    cover = Paint(colour(rng, ["red", "blue", "purple", "black", "teal", "pink"]), "plush")
    out |= {slot: cover for slot in slots if slot.startswith("cover:")}
    beads = rng.random() < 0.15
    style, white = eyes or eye_style(rng, toy.kind), None
    if eyes is None and beads:
        style, white = {"iris": [0.05, 0.045, 0.04], "pupil": [0.4, 0.4]}, np.array((0.05, 0.045, 0.045))
    for i, eye in enumerate(toy.notes["eyes"]):
        out[f"eye{i}"] = Paint(paint_eye(slots[f"eye{i}"], eye, style, white), "mirror")
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Fish


def ball_at(at: np.ndarray, normal: np.ndarray, radii: tuple[float, float, float], rows: int = 40) -> Mesh:
    """Give an ellipsoid centred at a point, its axes along a normal, sideways and up."""
    side = np.cross((0, 0, 1), normal)
    side /= np.linalg.norm(side)
    basis = np.stack([normal, side, np.cross(normal, side)], 1).astype(np.float32)
    return sdf.place(sdf.sphere_mesh(rows, rows * 3 // 2), basis, at, radii)


def lift(toy: Toy, by: float) -> None:
    """Shift a toy up, eyes' notes included."""
    for p in toy.parts:
        p.mesh = sdf.place(p.mesh, shift=(0, 0, by))
    for eye in toy.notes.get("eyes", []):
        eye["centre"][2] += by


def lowest(toy: Toy) -> float:
    """Give the height of a toy's lowest point."""
    return float(min(p.mesh.v[:, 2].min() for p in toy.parts))


def fin(base: tuple, tip: tuple, width: float, end: float, flat: int, thin: float) -> sdf.Field:
    """Give a fin from base to tip: a rod squeezed by `thin` along axis `flat`."""
    squeeze = np.ones(3, np.float32)
    squeeze[flat] = thin
    rod = capsule(np.array(base) / squeeze, np.array(tip) / squeeze, width, end)
    return sdf.Field(lambda p: rod(p / squeeze) * np.float32(thin), rod.lo * squeeze, rod.hi * squeeze)


def fish(rng: np.random.Generator) -> Toy:
    """Make a fish: slim, round, tall or puffed, with fins of several cuts, upright on its belly."""
    style = str(rng.choice(["slim", "round", "tall", "puffer"], p=[0.3, 0.3, 0.25, 0.15]))
    toy = Toy("fish", [], {"style": style})
    long = float(rng.uniform(0.62, 0.9)) * (0.8 if style == "puffer" else 1.0)
    high = {"slim": 0.26, "round": 0.40, "tall": 0.56, "puffer": 0.48}[style] * float(rng.uniform(0.88, 1.15))
    wide = {"slim": 0.18, "round": 0.27, "tall": 0.17, "puffer": 0.42}[style] * float(rng.uniform(0.9, 1.15))
    body = smooth(
        ellipsoid((0.08, 0, 0), (long, wide, high)),
        capsule((-0.3 * long, 0, 0), (-1.0 * long, 0, 0.02), 0.5 * min(wide, high), 0.09),
        k=0.16,
    )
    lips = smooth(sdf.torus((long + 0.06, 0, -0.04), 0, 0.05, 0.03), ellipsoid((long + 0.01, 0, -0.04), 0.07), k=0.03)
    body = smooth(body, lips, k=0.05)
    toy.add("body", "body", body, 88)
    x, spread, back = -1.02 * long, float(rng.uniform(0.26, 0.46)), float(rng.uniform(0.22, 0.42))
    fork = float(rng.choice([0.0, 0.5, 1.0]))
    lobes = [fin((x, 0, 0.02), (x - back, 0, s * spread), 0.07, 0.13 + 0.05 * (1 - fork), 1, 0.2) for s in (1, -1)]
    if fork < 0.9:
        lobes.append(fin((x, 0, 0.02), (x - back * (1.05 - fork * 0.5), 0, 0), 0.07, 0.2, 1, 0.2))
    toy.add("tail", "tail", smooth(*lobes, k=0.06), 72)
    lean, tall = float(rng.uniform(-0.35, -0.05)), float(rng.uniform(0.12, 0.32))
    rods = []
    for a in np.linspace(0.25, -0.35, 4):
        root = 0.92 * high * (1 - 0.9 * (a - 0.08) ** 2) - 0.08
        rods.append(
            fin(
                (a * long, 0, root),
                (a * long + lean, 0, 0.92 * high + tall * (1 - 0.5 * abs(a + 0.1))),
                0.13,
                0.06,
                1,
                0.22,
            )
        )
    fins = [smooth(*rods, k=0.08)]
    if style != "puffer" or rng.random() < 0.5:
        fins.append(fin((-0.25 * long, 0, -0.75 * high), (-0.5 * long, 0, -0.9 * high - 0.12), 0.11, 0.07, 1, 0.22))
    z, out = float(rng.uniform(-0.15, 0.0)), float(rng.uniform(0.12, 0.26))
    fins.append(mirror(fin((0.25 * long, wide * 0.85, z), (-0.08 * long, wide + out, z - 0.12), 0.07, 0.12, 2, 0.35)))
    toy.add("fin", "fin", union(*fins), 92)
    size, rise = float(rng.uniform(0.085, 0.13)), np.radians(rng.uniform(12, 22))
    toy.notes["eyes"] = []
    for i, side in enumerate((1, -1)):
        t = np.radians(72)
        ray = (np.cos(t) * np.cos(rise), side * np.sin(t) * np.cos(rise), np.sin(rise))
        at, normal = sdf.surface_point(body, (0.55 * long, 0, 0), ray)
        centre, gaze = at - 0.25 * size * normal, normal + (0.25, 0, 0)
        toy.add("eye", f"eye{i}", ball_at(centre, normal, (size * 0.7, size, size), 36))
        toy.notes["eyes"].append(_eye_notes(centre, gaze / np.linalg.norm(gaze), size, np.eye(3), np.zeros(3), 1.0))
    settle(toy)
    toy.notes.update(long=long, high=high)
    return toy


def settle(toy: Toy) -> None:
    """Rock a toy about y until it stands on two points, as a fish does on its belly and tail; then put it on z = 0."""
    points = np.concatenate([p.mesh.v for p in toy.parts])[:, [0, 2]].astype(np.float64)
    hull = ConvexHull(points)
    centre = toy.parts[0].mesh.v.mean(0)
    for eq, simplex in zip(hull.equations, hull.simplices, strict=True):
        ends = np.sort(hull.points[simplex, 0])
        if eq[1] < -0.5 and ends[0] <= centre[0] <= ends[1]:
            turn = rotation(1, float(np.degrees(np.arctan2(eq[0], -eq[1]))))
            for p in toy.parts:
                p.mesh = sdf.place(p.mesh, turn)
            for eye in toy.notes["eyes"]:
                for key in ("centre", "gaze", "up"):
                    eye[key] = (turn @ np.array(eye[key])).tolist()
            break
    lift(toy, -lowest(toy))


def paint_fish(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a fish: bands, belly, scales, spots, lines, or a face."""
    slots = {p.slot: p.mesh for p in toy.parts}
    v, n = slots["body"].v, slots["body"].n
    a = colour(rng)
    b = other_colour(rng, a, [*BRIGHT, "white", "black", "cream"])
    c = np.broadcast_to(a, v.shape)
    up = v[:, 2] - (v[:, 2].max() + v[:, 2].min()) / 2
    x = v[:, 0] / toy.notes["long"]
    pattern = str(rng.choice(["bands", "belly", "scales", "spots", "lines", "plain", "face"]))
    if pattern == "bands":
        c = mix(c, b, step(np.sin(rng.uniform(5, 9) * x + rng.uniform(0, 6) + 1.2 * up) - rng.uniform(0, 0.5), 0.15))
    elif pattern == "belly":
        c = mix(c, b, step(-up - 0.03, 0.12))
    elif pattern == "scales":
        u, w = x * 9, up * 9
        d = np.hypot((u + 0.5 * (np.floor(w) % 2)) % 1 - 0.5, w % 1 - 0.1)
        c = mix(c, b, 0.75 * step(d - 0.52, 0.2) * step(0.45 - x, 0.1))
    elif pattern == "spots":
        c = mix(c, b, step(waves(v, rng, 6.0) - 0.9, 0.15))
    elif pattern == "lines":
        c = mix(c, b, step(np.sin(rng.uniform(14, 26) * up), 0.3))
    elif pattern == "face":
        c = mix(c, b, step(x - 0.45, 0.05))
    if rng.random() < 0.4:
        c = mix(c, np.array(PALETTE["white"]), 0.8 * step(-n[:, 2] - 0.5, 0.4))
    tint = b if rng.random() < 0.6 else a
    finish = str(rng.choice(["gloss", "plastic", "rubber", "plush", "wood"]))
    out = {"body": Paint(c, finish)}
    for slot in ("tail", "fin"):
        p = slots[slot].v
        out[slot] = Paint(np.clip(tint * (1 + 0.12 * np.sin(22 * p[:, 2] + 9 * p[:, 0]))[:, None], 0, 1), finish)
    style = {"iris": [0.03, 0.03, 0.03] if rng.random() < 0.6 else colour(rng, BRIGHT).tolist(), "pupil": [0.4, 0.4]}
    for i, eye in enumerate(toy.notes["eyes"]):
        out[f"eye{i}"] = Paint(paint_eye(slots[f"eye{i}"], eye, style), "mirror")
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Mug


def chaikin(p: np.ndarray, rounds: int) -> np.ndarray:
    """Round an open line (N, D) by cutting its corners."""
    for _ in range(rounds):
        q = np.stack([0.75 * p[:-1] + 0.25 * p[1:], 0.25 * p[:-1] + 0.75 * p[1:]], 1).reshape(-1, p.shape[1])
        p = np.concatenate([p[:1], q, p[-1:]])
    return p


def mug(rng: np.random.Generator) -> Toy:
    """Make a mug: straight, flared, tapered, bellied, waisted or enamel, with a round, square or ear-like handle."""
    style = str(rng.choice(["straight", "flared", "tapered", "belly", "waist", "enamel"]))
    high, r, wall = float(rng.uniform(0.75, 1.2)), float(rng.uniform(0.36, 0.48)), float(rng.uniform(0.035, 0.06))
    t = np.linspace(0, 1, 12)
    bow = {
        "straight": 0 * t,
        "flared": 0.30 * t**2 - 0.08,
        "tapered": 0.10 - 0.22 * t,
        "belly": 0.26 * np.sin(np.pi * t * 0.95),
        "waist": -0.16 * np.sin(np.pi * t),
        "enamel": 0 * t,
    }[style]
    side = r * (1 + bow * float(rng.uniform(0.6, 1.1)))
    foot = 0.06 if style != "enamel" else 0.02
    outline = [
        (0, 0.015),
        (side[0] * 0.8, 0.015),
        (side[0] * 0.85, 0),
        (side[0] * (1 - foot), 0),
        (side[0] * (1 - foot), 0.0),
    ]
    outline += [(a, foot * 0.6 + b * (high - foot * 0.6)) for a, b in zip(side, t, strict=True)]
    lip = 0.03 if style == "enamel" else 0.0
    outline += [(side[-1] + lip, high + 0.005), (side[-1] - wall / 2, high + 0.025), (side[-1] - wall, high)]
    inner = [(max(a - wall, 0.05), b * high) for a, b in zip(side[::-1], t[::-1], strict=True) if b * high > 0.12]
    outline += [*inner, (inner[-1][0] * 0.9, 0.075), (inner[-1][0] * 0.6, 0.07), (0, 0.07)]
    toy = Toy("mug", [], {"style": style, "high": high, "wall": wall})
    toy.add("body", "body", sdf.lathe(np.array(outline), 88, 2))
    grip = str(rng.choice(["ring", "square", "ear", "ring"]))
    low, top = high * float(rng.uniform(0.16, 0.3)), high * float(rng.uniform(0.74, 0.88))
    reach = float(rng.uniform(0.22, 0.34))
    at_low, at_top = (float(np.interp(z, t * high, side)) - wall * 0.6 for z in (low, top))
    if grip == "square":
        far = max(at_low, at_top) + reach
        knots = [
            (at_top, top),
            (far - 0.06, top),
            (far, top - 0.05),
            (far, low + 0.05),
            (far - 0.06, low),
            (at_low, low),
        ]
    elif grip == "ear":
        knots = [
            (at_top, top),
            (at_top + reach * 0.7, top + 0.08),
            (at_top + reach * 1.1, top - 0.12),
            (at_low + reach * 0.75, low + 0.2),
            (at_low, low),
        ]
    else:
        bend = np.linspace(0.15, np.pi - 0.15, 9)
        arc = np.stack(
            [max(at_low, at_top) + reach * np.sin(bend), (low + top) / 2 + (top - low) / 2 * np.cos(bend)], 1
        )
        knots = [(at_top, top), *arc.tolist(), (at_low, low)]
    p = chaikin(np.array(knots), 4)
    thick = float(rng.uniform(0.035, 0.05)) * (0.8 if style == "enamel" else 1)
    radii = np.tile([[thick, thick * float(rng.uniform(1.0, 1.9))]], (len(p), 1))
    toy.add("handle", "handle", sdf.tube(np.stack([p[:, 0], 0 * p[:, 0], p[:, 1]], 1), radii))
    if rng.random() < 0.45:
        z = high * float(rng.uniform(0.7, 0.9))
        edge = float(np.interp(z, t * high, side)) - wall * 0.9
        toy.add(
            "body", "drink", sdf.lathe(np.array([(edge, z), (edge, z), (edge * 0.5, z + 0.004), (0, z + 0.004)]), 64, 1)
        )
    return toy


def paint_mug(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a mug: glaze, pattern, inside, rim, and what is in it."""
    m = next(p.mesh for p in toy.parts if p.slot == "body")
    v, n, high = m.v, m.n, toy.notes["high"]
    a = colour(rng)
    b = other_colour(rng, a)
    radial = np.maximum(np.hypot(v[:, 0], v[:, 1]), 1e-6)
    inside = step(-(n[:, :2] * v[:, :2]).sum(1) / radial - 0.2, 0.1) * (v[:, 2] > 0.06)
    inside = np.maximum(inside, (v[:, 2] > 0.06) * (v[:, 2] < 0.09) * (n[:, 2] > 0.5))
    phi, z = np.arctan2(v[:, 1], v[:, 0]), v[:, 2] / high
    c = np.broadcast_to(a, v.shape)
    patterns = ["plain", "band", "rings", "dip", "dots", "stripes", "check", "speckle", "heart"]
    pattern = str(rng.choice(patterns if toy.notes["style"] != "enamel" else ["plain", "speckle"]))
    if pattern == "band":
        c = mix(c, b, step(rng.uniform(0.08, 0.25) - np.abs(z - rng.uniform(0.35, 0.7))))
    elif pattern == "rings":
        c = mix(c, b, step(np.sin(z * rng.uniform(18, 40)), 0.3))
    elif pattern == "dip":
        c = mix(c, b, step(rng.uniform(0.3, 0.6) - z + 0.03 * waves(v, rng, 4.0)))
    elif pattern == "dots":
        u, w = phi / (2 * np.pi) * int(rng.integers(7, 11)), z * int(rng.integers(3, 5))
        u = u + 0.5 * (np.floor(w) % 2)
        c = mix(c, b, step(0.3 - np.hypot(u % 1 - 0.5, w % 1 - 0.5), 0.1))
    elif pattern == "stripes":
        c = mix(c, b, step(np.sin(phi * int(rng.integers(6, 13))), 0.2))
    elif pattern == "check":
        k = int(rng.integers(5, 9))
        c = mix(c, b, step(np.sin(phi * k) * np.sin(z * k * 1.6), 0.1))
    elif pattern == "speckle":
        c = mix(c, b, 0.9 * step(waves(v, rng, 26.0, 24) - 1.7, 0.3))
    elif pattern == "heart":
        for at in (np.pi / 2, -np.pi / 2):
            u, w = ((phi - at + np.pi) % (2 * np.pi) - np.pi) * 1.6, (z - 0.5) * 2.4
            c = mix(c, b, step(-((u * u + w * w - 0.25) ** 3 - 1.2 * u * u * w**3) * 20, 0.1) * (np.abs(u) < 0.8))
    inner = a if rng.random() < 0.4 else np.array(PALETTE["white"]) if rng.random() < 0.6 else b
    c = mix(c, inner, inside)
    if toy.notes["style"] == "enamel" or rng.random() < 0.15:
        c = mix(c, np.array((0.06, 0.07, 0.14)), step(z - 0.965))
    finish = str(rng.choice(["gloss", "gloss", "mirror", "plastic", "wood"]))
    drinks = ((0.12, 0.06, 0.03), (0.42, 0.25, 0.13), (0.55, 0.22, 0.05), (0.90, 0.87, 0.80), (0.80, 0.30, 0.28))
    drink = np.array(drinks[int(rng.integers(5))])
    return {
        "body": Paint(c, finish),
        "handle": Paint(a if rng.random() < 0.6 else b, finish),
        "drink": Paint(drink, "mirror"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Mushroom


def mushroom(rng: np.random.Generator) -> Toy:
    """Make a mushroom, or a pair: domed, button, pointed, flat, bell or funnel cap on a slim or stout stem."""
    style = str(rng.choice(["dome", "button", "cone", "flat", "bell", "funnel"]))
    toy = Toy("mushroom", [], {"style": style, "caps": []})
    raised = style in ("dome", "button", "flat") and rng.random() < 0.45
    caps, stems, bumps = [], [], []
    for k in range(2 if rng.random() < 0.22 else 1):
        size = 1.0 if k == 0 else float(rng.uniform(0.45, 0.65))
        r = float(rng.uniform(0.42, 0.62))
        high = {"dome": 0.75, "button": 0.95, "cone": 1.25, "flat": 0.32, "bell": 1.1, "funnel": 0.3}[style] * r
        high *= float(rng.uniform(0.85, 1.15))
        tall = float(rng.uniform(0.35, 0.75)) * (0.8 if style == "button" else 1.0)
        thick = float(rng.uniform(0.13, 0.24)) * (1.2 if style == "button" else 1.0)
        t = np.linspace(0, 1, 10)
        curves = {
            "dome": (np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)),
            "button": (np.cos(t * np.pi / 2) ** 0.7, np.sin(t * np.pi / 2)),
            "cone": (1 - t, t**0.85),
            "flat": (np.cos(t * np.pi / 2), np.sin(t * np.pi / 2) ** 0.8),
            "bell": (np.cos(t * np.pi / 2) ** 1.5 * 0.85 + 0.15 * (1 - t) ** 4, t**0.9),
            "funnel": (1 - t**2, 1 - 0.75 * t),
        }[style]
        rim = -0.12 * r if style in ("dome", "button", "cone", "bell") else -0.03 * r
        if style == "funnel":
            profile = [(thick * 0.6, -0.35 * high), (0.55 * r, 0.1 * high), (0.95 * r, 0.85 * high)]
        else:
            profile = [(thick * 0.4, 0.05 * r), (0.6 * r, 0.0), (0.93 * r, rim), (1.0 * r, rim + 0.02)]
        profile += [(a * r, b * high + 0.02) for a, b in zip(*curves, strict=True)]
        profile[-1] = (0.0, profile[-1][1])
        cap = sdf.lathe(np.array(profile), 80, 2)
        bulge = float(rng.uniform(-0.2, 0.6))
        z = np.linspace(0, 1, 9)
        width = thick * (1 + bulge * (1 - z) ** 2)
        top = tall + (0.0 if style in ("funnel", "flat") else 0.06)  # inside the cap, not through it
        side = [(a, b * top) for a, b in zip(width, z, strict=True)]
        if rng.random() < 0.3:
            ring = [(thick * 1.55, 0.55 * tall), (thick * 1.6, 0.56 * tall)]
            side = [p for p in side if p[1] < 0.55 * tall] + ring + [p for p in side if p[1] > 0.62 * tall]
        stem = sdf.lathe(np.array([(0, 0), (width[0] * 0.9, 0), (width[0] * 0.98, 0.0), *side, (0, top)]), 48, 2)
        lean = rotation(int(rng.integers(2)), float(rng.uniform(-9, 9)))
        shift = (
            np.zeros(3)
            if k == 0
            else np.array([rng.uniform(-0.2, 0.4), float(rng.choice([-1, 1])) * (thick + 0.30), 0])
        )
        cap = sdf.place(sdf.place(cap, shift=(0, 0, tall)), lean, shift, size)
        caps.append(cap)
        stems.append(sdf.place(stem, lean, shift, size))
        toy.notes["caps"].append({"at": (lean @ np.array((0, 0, tall)) * size + shift).tolist(), "r": r * size})
        if raised:
            where = np.flatnonzero(cap.n[:, 2] > 0.25)
            kept: list[np.ndarray] = []
            for s in cap.v[where[rng.integers(0, len(where), 14 if k == 0 else 8)]]:
                if all(np.linalg.norm(s - q) > 0.2 * size for q in kept):
                    kept.append(s)
            bumps += [sdf.place(sdf.sphere_mesh(14, 20), None, s, float(rng.uniform(0.05, 0.085)) * size) for s in kept]
    toy.add("cap", "cap", sdf.merge(*caps))
    toy.add("stem", "stem", sdf.merge(*stems))
    if bumps:
        toy.add("cap", "bumps", sdf.merge(*bumps))
    lift(toy, -lowest(toy))
    return toy


def paint_mushroom(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a mushroom: a cap with dots, rings or rays, pale gills and stem."""
    slots = {p.slot: p.mesh for p in toy.parts}
    v, n = slots["cap"].v, slots["cap"].n
    caps_colours = [
        "red",
        "red",
        "brown",
        "brown",
        "orange",
        "cream",
        "wood",
        "purple",
        "blue",
        "yellow",
        "white",
        "pink",
        "grey",
        "green",
        "teal",
    ]
    a = colour(rng, caps_colours)
    b = other_colour(rng, a, ["white", "white", "cream", "yellow", "brown"])
    under = step(-n[:, 2] - 0.15, 0.1)
    c = np.broadcast_to(a, v.shape)
    caps = toy.notes["caps"]
    nearest = np.argmin([np.linalg.norm(v[:, :2] - k["at"][:2], axis=1) for k in caps], axis=0)
    r = np.array([k["r"] for k in caps])[nearest]
    d = (v - np.array([k["at"] for k in caps])[nearest])[:, :2] / r[:, None]
    rel, turn = np.hypot(d[:, 0], d[:, 1]), np.arctan2(d[:, 1], d[:, 0])
    patterns = ["plain", "fade"] if "bumps" in slots else ["plain", "dots", "dots", "fade", "rings", "rays"]
    pattern = str(rng.choice(patterns))
    if pattern == "dots":
        points = sphere_points(int(rng.integers(14, 34)), rng, 0.12)
        points = points[points[:, 2] > 0.05][:, :2]
        near = np.linalg.norm(d[:, None] - points[None], axis=-1).min(1)
        c = mix(c, b, step(rng.uniform(0.09, 0.15) - near, 0.03))
    elif pattern == "fade":
        c = mix(c, a * 0.55, 0.9 * step(0.45 - rel, 0.7))
    elif pattern == "rings":
        c = mix(c, b, step(np.sin(rel * rng.uniform(12, 20)) - 0.3, 0.2))
    elif pattern == "rays":
        c = mix(c, b, 0.6 * step(np.sin(turn * int(rng.integers(8, 18))), 0.4))
    pale = colour(rng, ["cream", "white", "wood", "cream"], 0.03)
    gill = pale * (0.82 + 0.12 * np.sin(turn * 40))[:, None]
    c = np.clip(c * (1 - under[:, None]) + gill * under[:, None], 0, 1)
    finish = str(rng.choice(["gloss", "plastic", "rubber", "wood", "plush"]))
    s = slots["stem"].v
    stem = np.clip(pale * (1 - 0.10 * step(0.12 - s[:, 2], 0.15) + 0.03 * waves(s, rng, 6.0))[:, None], 0, 1)
    if rng.random() < 0.15:
        stem = np.broadcast_to(colour(rng, ["wood", "brown", "grey", "green", "yellow"]), s.shape)
    return {
        "cap": Paint(c, finish),
        "stem": Paint(stem, "plastic" if finish == "gloss" else finish),
        "bumps": Paint(b, finish),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Tree


def spread_points(points: np.ndarray, apart: float, most: int) -> list[np.ndarray]:
    """Keep points in order while they lie `apart` from those kept already, up to `most`."""
    kept: list[np.ndarray] = []
    for p in points:
        if len(kept) < most and all(np.linalg.norm(p - q) > apart for q in kept):
            kept.append(p)
    return kept


def tree(rng: np.random.Generator) -> Toy:
    """Make a toy tree: a conifer of stacked cones, a round or bushy crown, a poplar, or a palm."""
    style = str(rng.choice(["conifer", "round", "bushy", "poplar", "palm"], p=[0.3, 0.2, 0.25, 0.13, 0.12]))
    toy = Toy("tree", [], {"style": style})
    trunk_r, trunk_h = float(rng.uniform(0.07, 0.13)), float(rng.uniform(0.25, 0.55))
    if style == "conifer":
        trunk_h *= 0.7
        layers, r, gap = int(rng.integers(2, 6)), float(rng.uniform(0.42, 0.62)), float(rng.uniform(0.26, 0.36))
        scallops, frill = int(rng.integers(6, 12)), float(rng.choice([0, 0, 0.06, 0.1]))
        cones = []
        for i in range(layers):
            s = r * (1 - 0.72 * i / layers)
            tall = s * float(rng.uniform(0.95, 1.15)) + 0.12

            def wave(v: np.ndarray, s: float = s, tall: float = tall) -> np.ndarray:
                frills = (
                    frill
                    * np.cos(scallops * np.arctan2(v[..., 1], v[..., 0]))
                    * np.clip(1 - (v[..., 2] + 0.05) / tall, 0, 1) ** 2
                )
                return np.concatenate([v[..., :2] * (1 + frills[..., None]), v[..., 2:] - s * frills[..., None]], -1)

            profile = [
                (0, 0.04),
                (s * 0.8, 0.0),
                (s, -0.05),
                (s * 0.97, 0.02),
                (s * 0.45, tall * 0.5),
                (0.03, tall),
                (0, tall),
            ]
            cone = sdf.lathe(np.array(profile), 64, 3, wave)
            cones.append(
                sdf.place(cone, rotation(2, float(rng.uniform(0, 360))), (0, 0, trunk_h + i * gap * (1 - 0.08 * i)))
            )
        crown = sdf.merge(*cones)
    elif style in ("round", "poplar"):
        r = float(rng.uniform(0.38, 0.55)) if style == "round" else float(rng.uniform(0.24, 0.34))
        h = r * float(rng.uniform(0.85, 1.15)) if style == "round" else r * float(rng.uniform(1.9, 2.6))
        bumps, phase, f = float(rng.choice([0, 0.035, 0.06])), rng.uniform(0, 6, 3), float(rng.uniform(5, 9))

        def radius(d: np.ndarray) -> np.ndarray:
            x, y, z = np.sin(f * d + phase).T
            return 1 + bumps * (x * y + z * x)

        crown = sdf.place(sdf.sphere_mesh(64, 96, radius), None, (0, 0, trunk_h + 0.85 * h), (r, r, h))
        if style == "poplar":
            z = (crown.v[:, 2] - crown.v[:, 2].min()) / np.ptp(crown.v[:, 2])
            v = crown.v * np.stack([1.15 - 0.5 * z, 1.15 - 0.5 * z, np.ones_like(z)], 1)
            crown = Mesh(v.astype(np.float32), crown.f, sdf.grid_normals(v, crown.f))
    elif style == "bushy":
        n, r = int(rng.integers(4, 8)), float(rng.uniform(0.24, 0.32))
        balls = [ellipsoid((0, 0, trunk_h + 0.42), r * 1.25)]
        for i in range(n):
            a = 2 * np.pi * i / n + rng.uniform(-0.3, 0.3)
            at = (0.34 * np.cos(a), 0.34 * np.sin(a), trunk_h + rng.uniform(0.22, 0.62))
            balls.append(ellipsoid(at, float(r * rng.uniform(0.75, 1.1))))
        balls.append(ellipsoid((rng.uniform(-0.1, 0.1), 0, trunk_h + 0.78), r * 0.95))
        crown = sdf.mesh(smooth(*balls, k=0.05), 72)
    else:
        trunk_h = float(rng.uniform(0.8, 1.1))
        n, drop, leaves = int(rng.integers(5, 8)), float(rng.uniform(0.3, 0.55)), []
        flat = np.array([1, 1, 0.35], np.float32)
        for i in range(n):
            s, reach = np.linspace(0, 1, 7), float(rng.uniform(0.5, 0.65))
            path = np.stack([reach * s, 0 * s, 0.16 * np.sin(np.pi * s * 0.9) - drop * s**2], 1)
            rod = chain(path / flat, np.array([0.04, 0.10, 0.13, 0.13, 0.11, 0.08, 0.03]))
            leaf = sdf.Field(lambda p, rod=rod: rod(p / flat) * np.float32(0.35), rod.lo * flat, rod.hi * flat)
            leaves.append(
                sdf.place(sdf.mesh(leaf, 40), rotation(2, 360 * i / n + float(rng.uniform(-12, 12))), (0, 0, trunk_h))
            )
        crown = sdf.merge(*leaves)
    toy.add("crown", "crown", crown)
    flare = float(rng.uniform(1.1, 1.7))
    z = np.linspace(0, 1, 6)
    top = trunk_h + (0.06 if style == "palm" else 0.3)
    rings = 1 + (0.1 * (np.arange(6) % 2) if style == "palm" else 0 * z)
    side = [(trunk_r * (1 + (flare - 1) * (1 - b) ** 3) * a, b * top) for a, b in zip(rings, z, strict=True)]
    profile = [(0, 0), (trunk_r * flare * 0.95, 0), (trunk_r * flare, 0.0), *side, (0, top)]
    if rng.random() < 0.35:
        r = float(rng.uniform(0.26, 0.38))
        toy.add(
            "trunk",
            "base",
            sdf.lathe(np.array([(0, 0), (r, 0), (r, 0), (r, 0.05), (r * 0.96, 0.07), (0, 0.07)]), 56, 2),
        )
    toy.add("trunk", "trunk", sdf.lathe(np.array(profile), 40, 2))
    if style in ("round", "bushy", "conifer") and rng.random() < 0.4:
        where = np.flatnonzero((crown.n[:, 2] > -0.3) & (np.hypot(crown.v[:, 0], crown.v[:, 1]) > 0.1))
        size = float(rng.uniform(0.045, 0.07))
        at = spread_points(crown.v[where[rng.integers(0, len(where), 60)]], 0.2, 14)
        toy.add("crown", "fruit", sdf.merge(*[sdf.place(sdf.sphere_mesh(18, 26), None, s, size) for s in at]))
    if style == "conifer" and rng.random() < 0.2:
        toy.add(
            "crown", "bauble", sdf.place(sdf.sphere_mesh(24, 32), None, (0, 0, float(crown.v[:, 2].max()) + 0.04), 0.08)
        )
    return toy


def paint_tree(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a tree: leaves of any season or toy colour, snow, bark, fruit."""
    slots = {p.slot: p.mesh for p in toy.parts}
    v, n = slots["crown"].v, slots["crown"].n
    leaf = [
        "green",
        "green",
        "green",
        "lime",
        "lime",
        "teal",
        "orange",
        "yellow",
        "red",
        "pink",
        "white",
        "wood",
        "blue",
        "purple",
    ]
    a = colour(rng, leaf, 0.04) * rng.uniform(0.75, 1.0)
    grain = 0.10 * waves(v, rng, 5.0) + 0.05 * np.random.default_rng(3).standard_normal(len(v))
    c = np.clip(a * (1 + grain)[:, None], 0, 1)
    extra = rng.random()
    if extra < 0.15:
        c = mix(c, np.array((0.94, 0.95, 0.97)), step(n[:, 2] - 0.35 + 0.15 * waves(v, rng, 6.0), 0.1))
    elif extra < 0.3:
        c = mix(c, other_colour(rng, a, leaf), step((v[:, 2] - v[:, 2].min()) / np.ptp(v[:, 2]) - 0.6, 0.4))
    bark = colour(rng, ["brown", "brown", "wood", "grey", "white", "black"], 0.03)
    t = slots["trunk"].v
    ridges = 1 + 0.12 * np.sin(9 * np.arctan2(t[:, 1], t[:, 0])) * np.cos(8 * t[:, 2])
    return {
        "crown": Paint(c, str(rng.choice(["plush", "plastic", "wood", "rubber", "gloss"]))),
        "trunk": Paint(np.clip(bark * ridges[:, None], 0, 1), "wood"),
        "base": Paint(colour(rng, ["wood", "green", "brown", "white", "red", "blue"]), "wood"),
        "fruit": Paint(other_colour(rng, a, ["red", "orange", "yellow", "pink", "purple", "white"]), "gloss"),
        "bauble": Paint(colour(rng, ["yellow", "red", "white"]), "gloss"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Duck


def duck(rng: np.random.Generator) -> Toy:
    """Make a rubber duck: proportions, the tail's cock, the head's turn and the wings vary."""
    toy = Toy("duck", [], {"eyes": []})
    long, wide, high = float(rng.uniform(0.62, 0.86)), float(rng.uniform(0.46, 0.6)), float(rng.uniform(0.36, 0.5))
    up, head_r, neck = float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.34, 0.45)), float(rng.uniform(0.0, 0.2))
    look = rotation(2, float(rng.uniform(-28, 28))) @ rotation(1, float(rng.uniform(-8, 8)))
    head_at = np.array([0.42 * long, 0, high * 1.75 + neck + head_r * 0.72])
    body = smooth(
        ellipsoid((-0.05, 0, high), (long, wide, high)),
        capsule((-0.65 * long, 0, high * 1.1), (-1.08 * long - 0.06, 0, high * 1.25 + up * 0.6), 0.26, 0.05),
        ellipsoid((0.35 * long, 0, high * 1.05), (0.42 * long, wide * 0.85, high * 0.9)),
        k=0.2,
    )
    head = ellipsoid((0, 0, 0), (1.0, float(rng.uniform(0.92, 1.0)), float(rng.uniform(0.9, 1.0))))
    throat = capsule((0.4 * long, 0, high * 1.2), head_at - (0, 0, 0.1), 0.28, 0.27)
    whole = smooth(body, throat, move(head, look, head_at, head_r), k=0.14)
    toy.add(
        "body", "body", common(whole, sdf.box((0, 0, 2.03), (3, 3, 2.0), 0.01)) if rng.random() < 0.7 else whole, 92
    )
    reach, rise = float(rng.uniform(0.36, 0.48)), float(rng.uniform(-6, 22))
    wing = smooth(
        ellipsoid((0, 0, 0), (reach, 0.13, 0.24)),
        capsule((-0.2, 0, 0.02), (-reach - 0.04, 0.06, 0.14), 0.15, 0.05),
        k=0.08,
    )
    wing = move(wing, rotation(2, -8) @ rotation(1, rise), (-0.14, wide * 0.9, high * 1.15))
    toy.add("wing", "wing", mirror(wing), 80)
    bill = float(rng.uniform(0.26, 0.42))
    beak = smooth(
        ellipsoid((0.95, 0, -0.22), (bill + 0.12, 0.42, 0.13)), ellipsoid((0.9, 0, -0.10), (bill, 0.34, 0.16)), k=0.06
    )
    beak = cut(beak, sdf.box((1.35, 0, -0.19), (0.5, 0.6, 0.012), 0.005), k=0.03)
    toy.add("beak", "beak", move(beak, look, head_at, head_r), 60)
    size, apart = float(rng.uniform(0.17, 0.24)), np.radians(rng.uniform(30, 38))
    for i, side in enumerate((1, -1)):
        ray = (np.cos(apart) * 0.94, side * np.sin(apart) * 0.94, 0.34)
        at, normal = sdf.surface_point(head, (0, 0, 0), ray)
        centre, gaze = at - 0.3 * size * normal, normal + (0.5, 0, 0)
        toy.add(
            "eye", f"eye{i}", sdf.place(ball_at(centre, normal, (size * 0.65, size, size * 1.2)), look, head_at, head_r)
        )
        toy.notes["eyes"].append(_eye_notes(centre, gaze / np.linalg.norm(gaze), size, look, head_at, head_r))
    lift(toy, -lowest(toy))
    return toy


def paint_duck(toy: Toy, rng: np.random.Generator) -> dict[str, Paint]:
    """Paint a rubber duck: mostly yellow, now and then another colour."""
    slots = {p.slot: p.mesh for p in toy.parts}
    a = np.array((0.97, 0.74, 0.06)) * rng.uniform(0.9, 1.02) + rng.normal(0, 0.025, 3)
    if rng.random() < 0.2:
        a = colour(rng, ["pink", "sky", "white", "lime", "purple", "orange"])
    a = np.clip(a, 0.02, 0.98)
    beak = (
        np.array((0.93, 0.36, 0.05)) * rng.uniform(0.85, 1.05)
        if rng.random() < 0.85
        else colour(rng, ["red", "yellow"])
    )
    style = {"iris": [0.02, 0.02, 0.02], "pupil": [0.5, 0.5]}
    white = np.array((0.02, 0.02, 0.02)) if rng.random() < 0.6 else None
    finish = str(rng.choice(["gloss", "plastic", "rubber"]))
    out = {
        "body": Paint(a, finish),
        "wing": Paint(a * rng.uniform(0.88, 1.0), finish),
        "beak": Paint(np.clip(beak, 0, 1), finish),
    }
    for i, eye in enumerate(toy.notes["eyes"]):
        out[f"eye{i}"] = Paint(paint_eye(slots[f"eye{i}"], eye, style, white), "mirror")
    return out


# ---------------------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[np.random.Generator], Toy]] = {
    "ball": ball,
    "block": block,
    "car": car,
    "cat": cat,
    "dog": dog,
    "fish": fish,
    "mug": mug,
    "mushroom": mushroom,
    "tree": tree,
    "duck": duck,
    "mixed_pet": mixed_pet,
    "big_cat": big_eyed("cat"),
    "big_dog": big_eyed("dog"),
}

PAINTS: dict[str, Callable[..., dict[str, Paint]]] = {
    "ball": paint_ball,
    "block": paint_block,
    "car": paint_car,
    "cat": paint_pet,
    "dog": paint_pet,
    "pet": paint_pet,
    "fish": paint_fish,
    "mug": paint_mug,
    "mushroom": paint_mushroom,
    "tree": paint_tree,
    "duck": paint_duck,
}


def resting(toy: Toy, limit: int = 12) -> list[list[list[float]]]:
    """Find the ways a toy can lie on the ground without toppling, other than as it was made.

    Returns: up to `limit` (3, 3) rotations: faces of the convex hull below which the centroid of its corners lies.
    """
    points = np.concatenate([p.mesh.v for p in toy.parts if not p.slot.startswith("cover:")]).astype(np.float64)
    try:
        hull = ConvexHull(points[:: max(1, len(points) // 3000)])
    except QhullError:
        return []
    centre = hull.points[hull.vertices].mean(0)
    found: list[tuple[float, np.ndarray]] = []
    for eq, simplex in zip(hull.equations, hull.simplices, strict=True):
        normal = eq[:3]
        foot = centre - (centre @ normal + eq[3]) * normal
        a, b, c = hull.points[simplex]
        e0, e1, e2 = b - a, c - a, foot - a
        d00, d01, d11, d20, d21 = e0 @ e0, e0 @ e1, e1 @ e1, e2 @ e0, e2 @ e1
        area2 = d00 * d11 - d01 * d01
        if area2 < 1e-12 or normal[2] < -0.9:
            continue
        s, t = (d11 * d20 - d01 * d21) / area2, (d00 * d21 - d01 * d20) / area2
        if min(s, t, 1 - s - t) > -0.02 and _steady(hull.points[hull.vertices] - centre, normal):
            found.append((area2, normal))
    turns: list[np.ndarray] = []
    for _, normal in sorted(found, key=lambda x: -x[0]):
        axis = np.cross(normal, (0, 0, -1))
        level = np.linalg.norm(axis) < 1e-6
        turn = rotation(0, 180) if level else rotation(axis, np.degrees(np.arctan2(np.linalg.norm(axis), -normal[2])))
        if all(np.abs(turn - other).max() > 0.15 for other in turns):
            turns.append(turn)
    return [t.tolist() for t in turns[:limit]]


def _steady(points: np.ndarray, down: np.ndarray, tilt: float = 0.16) -> bool:
    """Say whether any tilt of a solid that lies on a face lifts its centre (not so for a cube on its corner)."""
    side = np.cross(down, np.eye(3)[np.abs(down).argmin()])
    side /= np.linalg.norm(side)
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]
    tilted = np.cos(tilt) * down + np.sin(tilt) * (np.cos(around) * side + np.sin(around) * np.cross(down, side))
    return bool((points @ tilted.T).max(0).min() > (points @ down).max() - 0.004)
