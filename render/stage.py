"""Where the toys stand: grounds and walls drawn with NumPy, lights, cameras, and the scene that Mitsuba renders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from sdf import Mesh
from toys import PALETTE, Paint, colour

GROUNDS = ["wood", "carpet", "tiles", "pavement", "grass", "table", "cloth"]
WALLS = ["plain", "stripes", "bricks", "dots", "boards"]
OUTDOOR_WALLS = ["bricks", "fence", "hedge"]
TEXTURE_SIZE = 512
TEXTURE_SPAN = 6.0  # scene units that a texture covers; a toy is about one unit

# Roughness of a material's gloss; None is a matt surface without any
MATERIALS = {"plastic": 0.18, "gloss": 0.07, "mirror": 0.04, "rubber": 0.38, "wood": 0.28, "plush": None}


def linear(srgb: np.ndarray) -> np.ndarray:
    """Turn sRGB values in [0, 1] into linear ones."""
    c = np.asarray(srgb, np.float64)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


# ---------------------------------------------------------------------------------------------------------------------
# Textures: seamless (H, W, 3) sRGB pictures in [0, 1], each with a height map for the fine relief


def noise(
    rng: np.random.Generator, slope: float = 1.0, stretch: tuple[float, float] = (1, 1), n: int = TEXTURE_SIZE
) -> np.ndarray:
    """Give seamless noise (n, n) of mean 0 and spread 1 whose amplitude falls as frequency ** -slope.

    Args:
        stretch: how far it is drawn out along y and x.
    """
    f = np.fft.fftfreq(n) * n
    radius = np.hypot(f[:, None] * stretch[0], f[None, : n // 2 + 1] * stretch[1])
    radius[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((n, n))) * radius**-slope
    spectrum[0, 0] = 0
    x = np.fft.irfft2(spectrum, (n, n))
    return (x / x.std()).astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    t = (np.arange(TEXTURE_SIZE) + 0.5) / TEXTURE_SIZE
    return np.meshgrid(t, t, indexing="ij")


def _tint(base: np.ndarray, light: np.ndarray) -> np.ndarray:
    return np.clip(base * light[..., None], 0, 1)


def planks(rng: np.random.Generator, base: np.ndarray, count: int, gap: float = 0.006) -> tuple[np.ndarray, np.ndarray]:
    """Draw boards along x with grain, knots' waviness, joints and differing tones."""
    y, x = _grid()
    row = np.floor(y * count).astype(int)
    ends = rng.uniform(0, 1, count)
    per = int(rng.integers(1, 4))
    piece = np.floor((x + ends[row]) * per).astype(int) % per
    tone = 1 + rng.normal(0, 0.09, (count, per))[row, piece]
    hue = rng.normal(0, 0.02, (count, per, 3))[row, piece]
    warp = noise(rng, 1.6, (1, 0.35))
    offset = rng.uniform(0, 9, (count, per))[row, piece]
    rings = np.sin((y * count * rng.uniform(5, 9) + offset * 6 + 0.9 * warp) * 2 * np.pi / 3)
    fine = noise(rng, 0.6, (1, 0.04))
    light = tone * (1 + 0.05 * rings + 0.05 * fine)
    edge = np.minimum(np.abs((y * count) % 1), 1 - (y * count) % 1) / count
    across = np.abs(((x + ends[row]) * per) % 1)
    across = np.minimum(across, 1 - across) / per
    joint = np.clip(np.minimum(edge, across * (1 if per > 1 else 99)) / gap, 0, 1)
    image = np.clip((base + hue) * light[..., None] * (0.45 + 0.55 * joint)[..., None], 0, 1)
    return image, 0.6 * joint + 0.04 * fine


def slabs(
    rng: np.random.Generator,
    base: np.ndarray,
    rows: int,
    columns: int,
    joint_colour: np.ndarray,
    spread: float,
    shifted: bool,
    gap: float = 0.007,
    second: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a grid of tiles, bricks or paving slabs with joints; `second` makes it a chequerboard."""
    y, x = _grid()
    row = np.floor(y * rows).astype(int)
    u = (x + (0.5 / columns) * (row % 2 if shifted else 0)) % 1
    column = np.floor(u * columns).astype(int)
    tone = 1 + rng.normal(0, spread, (rows, columns))[row, column]
    hue = rng.normal(0, spread * 0.25, (rows, columns, 3))[row, column]
    edge_y, edge_x = (y * rows) % 1, (u * columns) % 1
    edge = np.minimum(np.minimum(edge_y, 1 - edge_y) / rows, np.minimum(edge_x, 1 - edge_x) / columns)
    wobble = 0.0015 * noise(rng, 1.2)
    body = np.clip((edge + wobble - gap) / (0.4 * gap), 0, 1)
    grain = 0.05 * noise(rng, 0.9) + 0.03 * noise(rng, 0.2)
    face = np.broadcast_to(base, (*y.shape, 3))
    if second is not None:
        face = np.where(((row + column) % 2)[..., None] == 0, base, second)
    image = (face + hue) * (tone + grain * min(1.0, spread * 12))[..., None]
    image = image * body[..., None] + joint_colour * (1 + 0.1 * grain)[..., None] * (1 - body[..., None])
    return np.clip(image, 0, 1), body + 0.3 * grain


def cobbles(rng: np.random.Generator, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw rounded stones: cells around shaken points."""
    from scipy.spatial import cKDTree

    n = int(rng.integers(14, 22))
    gy, gx = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    points = (np.stack([gy, gx + 0.5 * (gy % 2)], -1).reshape(-1, 2) + rng.uniform(0.2, 0.8, (n * n, 2))) / n % 1
    tree = cKDTree(points, boxsize=1)
    y, x = _grid()
    d, i = tree.query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    gap = ((d[:, 1] - d[:, 0]) * n).reshape(y.shape)
    body = np.clip((gap - 0.10) / 0.25, 0, 1)
    tone = (1 + rng.normal(0, 0.13, n * n))[i[:, 0]].reshape(y.shape)
    image = _tint(base, tone * (0.42 + 0.58 * body) * (1 + 0.06 * noise(rng, 0.6)))
    return image, np.sqrt(body) * 1.4


def grass(rng: np.random.Generator, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw a lawn as strokes of blades over patches of tone."""
    from PIL import Image, ImageDraw

    n = TEXTURE_SIZE
    image = Image.new("RGB", (n, n), tuple(int(255 * c) for c in base * 0.45))
    draw = ImageDraw.Draw(image)
    patch = noise(rng, 1.5)
    for x, y, a, length, t in zip(*rng.uniform(0, 1, (5, 14000)), strict=True):
        px, py = x * n, y * n
        tone = 0.6 + 0.65 * t + 0.1 * patch[int(py), int(px)]
        tip = base * tone + np.array((0.10, 0.06, 0.0)) * (length - 0.4)
        angle, reach = a * 2 * np.pi, 4 + 9 * length
        end = (px + reach * np.cos(angle), py + reach * np.sin(angle))
        fill = tuple(int(255 * np.clip(c, 0, 1)) for c in tip)
        draw.line((px, py, *end), fill=fill, width=1 + int(t * 2))
    out = np.asarray(image, np.float32) / 255
    return out, out.mean(-1) * 3


def texture(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a ground or wall.

    Returns: sRGB picture (512, 512, 3) in [0, 1] and height map (512, 512).
    """
    y, x = _grid()
    grey = np.array((1, 1, 1)) * rng.uniform(0.36, 0.62) + rng.normal(0, 0.012, 3)
    if kind == "wood":
        woods = (
            (0.66, 0.45, 0.26),
            (0.52, 0.33, 0.18),
            (0.78, 0.62, 0.42),
            (0.36, 0.22, 0.13),
            (0.70, 0.66, 0.60),
            (0.60, 0.34, 0.20),
            (0.84, 0.72, 0.55),
        )
        return planks(rng, np.array(woods[int(rng.integers(7))]) * rng.uniform(0.9, 1.08), int(rng.integers(8, 18)))
    if kind == "carpet":
        base = colour(
            rng,
            [
                "red",
                "blue",
                "teal",
                "purple",
                "cream",
                "brown",
                "green",
                "pink",
                "wood",
                "sky",
                "orange",
                "white",
                "yellow",
            ],
            0.04,
        )
        base = 0.65 * base + 0.35 * base.mean() * rng.uniform(0.7, 1.1)
        second = np.clip(base * rng.uniform(0.55, 0.8) if rng.random() < 0.5 else 0.5 * base + 0.5 * colour(rng), 0, 1)
        k = int(rng.integers(3, 9))
        pattern = str(rng.choice(["plain", "plain", "stripes", "diamonds", "dots", "zigzag"]))
        shape = {
            "plain": 0 * x,
            "stripes": np.sin(2 * np.pi * k * x) > 0.2,
            "diamonds": (np.abs((k * x) % 1 - 0.5) + np.abs((k * y) % 1 - 0.5)) < 0.3,
            "dots": np.hypot((k * x) % 1 - 0.5, (k * y) % 1 - 0.5) < 0.25,
            "zigzag": np.sin(2 * np.pi * (k * y + 0.35 * np.abs((2 * k * x) % 2 - 1))) > 0.1,
        }[pattern].astype(float)
        tuft = noise(rng, 0.35)
        image = (base * (1 - shape[..., None]) + second * shape[..., None]) * (
            1 + 0.12 * tuft + 0.04 * noise(rng, 1.3)
        )[..., None]
        return np.clip(image, 0, 1), 0.4 * tuft
    if kind == "tiles":
        n = int(rng.integers(5, 13))
        base = colour(
            rng, ["white", "cream", "wood", "teal", "sky", "red", "blue", "black", "green", "yellow", "pink"], 0.03
        )
        base = 0.8 * base + 0.2 * base.mean()
        second = np.array(PALETTE["white"]) * 0.95 if base.mean() < 0.6 else base * rng.uniform(0.35, 0.75)
        joint = np.array((1, 1, 1)) * rng.uniform(0.35, 0.8)
        return slabs(
            rng, base, n, n, joint, 0.03, bool(rng.random() < 0.2), 0.005, second if rng.random() < 0.55 else None
        )
    if kind == "pavement":
        style = str(rng.choice(["slabs", "bricks", "cobbles", "asphalt"]))
        if style == "cobbles":
            return cobbles(rng, grey)
        if style == "asphalt":
            fine = noise(rng, 0.15)
            light = 1 + 0.13 * fine + 0.05 * noise(rng, 1.4)
            image = _tint(grey * 0.72, light)
            crack = np.abs(noise(rng, 2.0)) < 0.012
            return np.clip(image * (1 - 0.35 * crack[..., None]), 0, 1), 0.5 * fine
        rows, columns = (
            (int(rng.integers(5, 10)),) * 2
            if style == "slabs"
            else (2 * int(rng.integers(7, 11)), int(rng.integers(6, 10)))
        )
        return slabs(rng, grey, rows, columns, grey * 0.45, 0.07, style == "bricks" or rng.random() < 0.4, 0.006)
    if kind == "grass":
        greens = ((0.30, 0.48, 0.14), (0.24, 0.42, 0.16), (0.42, 0.52, 0.18), (0.20, 0.44, 0.22))
        return grass(rng, np.array(greens[int(rng.integers(4))]))
    if kind == "table":
        base = colour(rng, None, 0.04)
        base = 0.75 * base + 0.25 * base.mean()
        return _tint(base, 1 + 0.025 * noise(rng, 1.5) + 0.012 * noise(rng, 0.3)), 0 * x
    if kind == "cloth":
        a = colour(rng, None, 0.03)
        b = np.array(PALETTE["white"]) if rng.random() < 0.6 else colour(rng)
        k = int(rng.integers(5, 14))
        pattern = str(rng.choice(["gingham", "stripes", "dots", "plaid"]))
        sx, sy = (np.sin(2 * np.pi * k * x) > 0).astype(float), (np.sin(2 * np.pi * k * y) > 0).astype(float)
        t = {
            "gingham": (sx + sy) / 2,
            "stripes": sx,
            "dots": (np.hypot((k * x) % 1 - 0.5, (k * y) % 1 - 0.5) < 0.28).astype(float),
            "plaid": np.clip(0.5 * sx + 0.5 * sy * (np.sin(6 * np.pi * k * y) > -0.3), 0, 1),
        }[pattern]
        weave = 1 + 0.05 * np.sin(2 * np.pi * 190 * x) * np.sin(2 * np.pi * 190 * y) + 0.03 * noise(rng, 0.8)
        return _tint(a * (1 - t[..., None]) + b * t[..., None], weave), 0.1 * noise(rng, 1.0)
    soft = colour(
        rng,
        ["cream", "white", "sky", "pink", "lime", "teal", "grey", "yellow", "wood", "orange", "purple", "blue"],
        0.03,
    )
    soft = 0.55 * soft + 0.45 * (0.4 + 0.5 * soft.mean())
    if kind == "stripes":
        k = int(rng.integers(5, 16))
        t = (np.sin(2 * np.pi * k * x) > rng.uniform(-0.5, 0.6)).astype(float)[..., None]
        return _tint(
            soft * (1 - t) + np.clip(soft * rng.uniform(0.7, 0.9), 0, 1) * t, 1 + 0.01 * noise(rng, 0.5)
        ), 0 * x
    if kind == "dots":
        k = int(rng.integers(6, 14))
        d = np.hypot((k * x + 0.5 * (np.floor(k * y) % 2)) % 1 - 0.5, (k * y) % 1 - 0.5)
        t = np.clip((rng.uniform(0.14, 0.24) - d) * 20, 0, 1)[..., None]
        return _tint(soft * (1 - t) + np.array(PALETTE["white"]) * t, 1 + 0.01 * noise(rng, 0.5)), 0 * x
    if kind == "bricks":
        clay = np.array(
            ((0.55, 0.26, 0.18), (0.62, 0.40, 0.28), (0.75, 0.72, 0.68), (0.45, 0.32, 0.28))[int(rng.integers(4))]
        )
        return slabs(
            rng,
            clay,
            2 * int(rng.integers(8, 13)),
            int(rng.integers(8, 13)),
            np.array((0.62, 0.60, 0.56)),
            0.11,
            True,
            0.006,
        )
    if kind in ("boards", "fence"):
        base = (
            soft
            if kind == "boards"
            else np.array(((0.48, 0.33, 0.20), (0.62, 0.58, 0.52), (0.35, 0.42, 0.36))[int(rng.integers(3))])
        )
        image, height = planks(rng, base, int(rng.integers(9, 18)), 0.008)
        return image.transpose(1, 0, 2), height.T
    if kind == "hedge":
        return grass(rng, np.array((0.16, 0.34, 0.14)) * rng.uniform(0.8, 1.3))
    return _tint(soft, 1 + 0.012 * noise(rng, 1.5)), 0 * x


def encode(image: np.ndarray, height: np.ndarray, relief: float = 0.5) -> np.ndarray:
    """Pack a texture as sRGB bytes (512, 512, 3), its relief shaded in as if lit from one side.

    A normal map would be truer, and costs a third of the rendering time.
    """
    slope = height - np.roll(np.roll(height, 1, 0), 1, 1)
    shaded = image * np.clip(1 + relief * slope, 0.75, 1.25)[..., None]
    return (np.clip(shaded, 0, 1) * 255).round().astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Camera


@dataclass
class Camera:
    """A pinhole camera: where it stands, what it looks at, its field of view, and a shift of the picture."""

    origin: np.ndarray
    target: np.ndarray
    fov: float
    shift: tuple[float, float] = (0.0, 0.0)

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the unit vectors to the right, up and forward."""
        forward = self.target - self.origin
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        return right, np.cross(right, forward), forward

    def project(self, points: np.ndarray) -> np.ndarray:
        """Give picture coordinates (N, 2) in units of the picture's side: x to the right, y down, centre at 0.5."""
        right, up, forward = self.axes()
        p = points - self.origin
        z = np.maximum(p @ forward, 1e-3) * 2 * np.tan(np.radians(self.fov) / 2)
        return np.stack([0.5 + p @ right / z + self.shift[0], 0.5 - p @ up / z + self.shift[1]], 1)


def aim(
    points: np.ndarray, azimuth: float, elevation: float, fov: float, fill: float, where: tuple[float, float]
) -> Camera:
    """Place a camera so that `points` fill the share `fill` of the picture's side.

    Args:
        where: centre of the points' box in the picture, as far between the extremes -1 and 1 as it can go unclipped.
    """
    a, e = np.radians(azimuth), np.radians(elevation)
    direction = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    target = (points.min(0) + points.max(0)) / 2
    points = points[:: 1 + len(points) // 4000]
    near, far = 0.8, 60.0
    for _ in range(22):
        distance = np.sqrt(near * far)
        size = np.ptp(Camera(target + distance * direction, target, fov).project(points), axis=0).max()
        near, far = (distance, far) if size > fill else (near, distance)
    camera = Camera(target + far * direction, target, fov)
    p = camera.project(points)
    lo, hi = p.min(0), p.max(0)
    room = np.maximum(1 - (hi - lo), 0.0) / 2
    centre = 0.5 + room * np.array(where)
    shift = centre - (lo + hi) / 2
    return Camera(camera.origin, camera.target, fov, (float(shift[0]), float(shift[1])))


# ---------------------------------------------------------------------------------------------------------------------
# Scene


@dataclass
class Piece:
    """One mesh in a scene. `instance` and `part` are its values in the masks; both 0 for ground and walls."""

    name: str
    mesh: Mesh
    paint: Paint
    instance: int
    part: int


@dataclass
class Stage:
    """Everything about a picture but the toys: seen from `camera`, all colours linear."""

    camera: Camera
    ground: str  # file of a texture, see `encode`
    ground_turn: float
    ground_gloss: float | None
    walls: list[tuple[str, np.ndarray, float]]  # texture file, a point at its foot, azimuth of its normal
    skirting: np.ndarray | None
    lights: list[dict]
    sky: np.ndarray  # (H, W, 3) linear


def _rgb(c: np.ndarray) -> dict:
    return {"type": "rgb", "value": [float(x) for x in c]}


def _bsdf(reflectance: dict, material: str) -> dict:
    alpha = MATERIALS[material]
    if alpha is None:
        bsdf = {"type": "diffuse", "reflectance": reflectance}
    else:
        # roughplastic would want the mean of the colours, which Mitsuba can't tell for colours at vertices
        bsdf = {"type": "principled", "base_color": reflectance, "roughness": float(np.sqrt(alpha)), "specular": 0.5}
    # Smooth normals turn away from the eye at outlines: one-sided surfaces would be black there
    return {"type": "twosided", "bsdf": bsdf}


@lru_cache(maxsize=200)
def _textured(key: str, repeats: float, gloss: float | None):
    """Give the material of a ground or wall whose texture lies in the file `key`."""
    import mitsuba as mi

    to_uv = mi.ScalarTransform3f().scale([repeats, repeats])
    picture = {"type": "bitmap", "bitmap": mi.Bitmap(np.load(key)), "wrap_mode": "repeat", "to_uv": to_uv}
    if gloss is None:
        return mi.load_dict({"type": "diffuse", "reflectance": picture})
    return mi.load_dict({"type": "roughplastic", "diffuse_reflectance": picture, "alpha": gloss, "nonlinear": True})


def mi_mesh(piece: Piece):
    """Turn a piece into a Mitsuba mesh with its colours at the vertices."""
    import mitsuba as mi

    c = np.asarray(piece.paint.colour, np.float64)
    vertex = c.ndim == 2
    reflectance = {"type": "mesh_attribute", "name": "vertex_color"} if vertex else _rgb(linear(c))
    props = mi.Properties()
    props["bsdf"] = mi.load_dict(_bsdf(reflectance, piece.paint.material))
    v, f, n = piece.mesh
    if piece.paint.material == "plush":
        fuzz = np.random.default_rng(11).normal(0, 0.10, n.shape).astype(np.float32)
        n = n + fuzz
        n /= np.linalg.norm(n, axis=1, keepdims=True)
    m = mi.Mesh(piece.name, len(v), len(f), props=props, has_vertex_normals=True)
    if vertex:
        m.add_attribute("vertex_color", 3, linear(np.clip(c, 0, 1)).astype(np.float32).ravel())
    p = mi.traverse(m)
    p["vertex_positions"] = np.ascontiguousarray(v, np.float32).ravel()
    p["vertex_normals"] = np.ascontiguousarray(n, np.float32).ravel()
    p["faces"] = np.ascontiguousarray(f, np.uint32).ravel()
    p.update()
    return m


def sensor(
    camera: Camera, size: int, masks: bool = False, spp: int = 1, crop: tuple[int, int, int, int] | None = None
) -> dict:
    """Give a camera's description.

    Args:
        masks: look once through the middle of every pixel, instead of `spp` times all over it.
        crop: (x, y, width, height) of the pixels to render.
    """
    import mitsuba as mi

    film = {"type": "hdrfilm", "width": size, "height": size, "component_format": "float32"}
    if crop is not None:
        film |= dict(zip(("crop_offset_x", "crop_offset_y", "crop_width", "crop_height"), map(int, crop), strict=True))
    if masks:
        film["rfilter"], sampler = {"type": "box"}, {"type": "stratified", "sample_count": 1, "jitter": False}
    else:
        film["rfilter"], sampler = {"type": "gaussian", "stddev": 0.42}, {"type": "multijitter", "sample_count": spp}
    return {
        "type": "perspective",
        "fov": camera.fov,
        "film": film,
        "sampler": sampler,
        "to_world": mi.ScalarTransform4f().look_at(
            origin=camera.origin.tolist(), target=camera.target.tolist(), up=[0, 0, 1]
        ),
        "principal_point_offset_x": -camera.shift[0],
        "principal_point_offset_y": -camera.shift[1],
    }


def scene(pieces: list[Piece], stage: Stage) -> dict:
    """Give the scene's description for `mitsuba.load_dict`, without cameras."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    out: dict = {
        "type": "scene",
        "sky": {
            "type": "envmap",
            "bitmap": mi.Bitmap(stage.sky.astype(np.float32)),
            "to_world": t().rotate([1, 0, 0], 90),
        },
        "ground": {
            "type": "rectangle",
            "to_world": t().rotate([0, 0, 1], stage.ground_turn).scale(40),
            "bsdf": _textured(stage.ground, 80 / TEXTURE_SPAN, stage.ground_gloss),
        },
    }
    for i, (data, foot, azimuth) in enumerate(stage.walls):
        stand = t().translate(foot.tolist()).rotate([0, 0, 1], azimuth)
        upright = t().rotate([0, 0, 1], 90).rotate([1, 0, 0], 90)
        out[f"wall{i}"] = {
            "type": "rectangle",
            "to_world": stand @ t().translate([0, 0, 20]) @ upright @ t().scale(20),
            "bsdf": _textured(data, 40 / TEXTURE_SPAN, None),
        }
        if stage.skirting is not None:
            out[f"skirting{i}"] = {
                "type": "cube",
                "to_world": stand @ t().translate([0.02, 0, 0.09]) @ t().scale([0.02, 20, 0.09]),
                "bsdf": _bsdf(_rgb(linear(stage.skirting)), "wood"),
            }
    for i, light in enumerate(stage.lights):
        out[f"light{i}"] = {
            "type": "sphere",
            "center": light["at"],
            "radius": light["radius"],
            "emitter": {"type": "area", "radiance": _rgb(np.array(light["radiance"]))},
        }
    for piece in pieces:
        out[piece.name] = mi_mesh(piece)
    return out


def lamp(
    rng: np.random.Generator,
    azimuth: float,
    elevation: float,
    power: float,
    warmth: float,
    radius: float,
    distance: float = 7.0,
) -> dict:
    """Give a ball-shaped light seen from the origin at an azimuth and elevation in degrees, with irradiance `power`."""
    a, e = np.radians(azimuth), np.radians(elevation)
    at = distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    tint = np.array([1 + 0.22 * warmth, 1.0, 1 - 0.28 * warmth])
    level = power * distance**2 / (np.pi * radius**2) / np.pi
    return {"at": at.tolist(), "radius": radius, "radiance": (level * np.pi * tint).tolist()}


def sky_map(rng: np.random.Generator, outdoors: bool, facing: float) -> np.ndarray:
    """Draw the light from all around (32, 64, 3): a gradient, and indoors windows or soft boxes.

    Args:
        facing: azimuth of the camera as seen from the toys; the lit boxes lie to its sides and above.
    """
    h, w = 32, 64
    up = np.cos((np.arange(h) + 0.5) / h * np.pi)[:, None, None]
    if outdoors:
        zenith, horizon = np.array((0.30, 0.45, 0.80)), np.array((0.75, 0.82, 0.92))
        if rng.random() < 0.35:
            zenith, horizon = np.array((0.62, 0.65, 0.70)), np.array((0.80, 0.81, 0.83))
        elif rng.random() < 0.25:
            zenith, horizon = np.array((0.35, 0.38, 0.62)), np.array((1.0, 0.74, 0.52))
    else:
        tone = rng.normal(0, 0.05, 3)
        zenith, horizon = (
            np.array((0.55, 0.54, 0.53)) + tone,
            np.array((0.62, 0.60, 0.57)) * rng.uniform(0.5, 1.2) + 2 * tone,
        )
    t = np.clip(up, 0, 1) ** 0.6
    image = np.where(up > 0, horizon * (1 - t) + zenith * t, np.array((0.25, 0.24, 0.23)))
    image = np.broadcast_to(image, (h, w, 3)).copy()
    if not outdoors:
        for _ in range(int(rng.integers(1, 4))):
            at = facing + float(rng.choice([-1, 1])) * rng.uniform(25, 110)
            column = int(((at + 180) % 360) / 360 * w)
            top, high, wide = int(rng.integers(4, 9)), int(rng.integers(3, 7)), int(rng.integers(3, 8))
            tint = np.array((1, 1, 1)) + rng.uniform(-0.15, 0.15) * np.array((1, 0, -1))
            image[top : top + high, (np.arange(column, column + wide)) % w] += rng.uniform(2.5, 6) * tint
    return np.clip(image, 0.02, None) * rng.uniform(0.35, 0.65)


def develop(radiance: np.ndarray, exposure: float) -> np.ndarray:
    """Turn linear radiance (H, W, 3) into an sRGB picture of bytes with a gentle shoulder.

    Source: K. Narkowicz, "ACES Filmic Tone Mapping Curve", 2016.
    """
    x = np.maximum(np.asarray(radiance, np.float64) * exposure, 0)
    x = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().astype(np.uint8)


def exposure_for(radiance: np.ndarray, target: float) -> float:
    """Give the factor that brings the picture's middle brightness to `target`, unless its lights would burn out."""
    y = np.asarray(radiance, np.float64) @ (0.2126, 0.7152, 0.0722)
    middle = np.exp(np.log(np.clip(y, 1e-3, 10)).mean())
    return float(min(target / max(middle, 1e-3), 1.0 / max(np.percentile(y, 96), 1e-3)))


ONE_PASS = ((3, 1, 0.06, 1),)
# For large images: each pass reaches further and is led by less noise, so it may look at smaller differences
WIDE_PASSES = ((2, 1, 0.5, 3), (2, 2, 0.2, 2), (2, 4, 0.1, 1))


def denoise(radiance: np.ndarray, albedo: np.ndarray, normal: np.ndarray, passes: tuple = ONE_PASS) -> np.ndarray:
    """Smooth the light but not the colours: a bilateral filter on radiance / albedo, led by albedo and normals.

    Args:
        radiance, albedo, normal: (H, W, 3), linear; albedo and normal hold next to no noise.
        passes: for each, how many neighbours on either side are averaged, how many pixels they are apart, the squared
            difference of their light (log) at which they count 1/e, and how often the light that this is measured on
            is blurred. Several passes make a wide filter of few neighbours.

    Source: H. Dammertz et al., "Edge-Avoiding À-Trous Wavelet Transform for fast Global Illumination Filtering", 2010.
    """
    a = np.clip(albedo, 0, 1) + 0.03
    light = (radiance / a).astype(np.float32)
    # A lone pixel far brighter than its neighbours is a path that met a lamp by chance
    around = np.median(_neighbours(light.sum(-1)), axis=0)
    light *= np.minimum(1, 3 * (around + 0.05) / np.maximum(light.sum(-1), 1e-6))[..., None]
    for each in passes:
        light = _smooth(light, albedo, normal, *each)
    return light * a


def _smooth(
    light: np.ndarray, albedo: np.ndarray, normal: np.ndarray, reach: int, stride: int, contrast: float, blurs: int
) -> np.ndarray:
    """Average each pixel's light with that of like neighbours, `stride` pixels apart."""
    guide = light
    for _ in range(blurs):
        guide = _blur(guide)
    guide = np.log(1e-2 + guide)
    total, weights = np.zeros_like(light), np.zeros(light.shape[:2], np.float32)
    h, w = weights.shape
    far = reach * stride
    pad = [(far, far), (far, far), (0, 0)]
    lights, guides, albedos, normals = (
        np.pad(x.astype(np.float32), pad, mode="edge") for x in (light, guide, albedo, normal)
    )
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            y, x = far + dy * stride, far + dx * stride
            window = np.s_[y : y + h, x : x + w]
            apart = ((guides[window] - guide) ** 2).sum(-1) / contrast
            apart += ((albedos[window] - albedo) ** 2).sum(-1) / 0.02 + ((normals[window] - normal) ** 2).sum(-1) / 0.05
            weight = np.exp(-apart - (dx * dx + dy * dy) / 5.0)
            total += weight[..., None] * lights[window]
            weights += weight
    return total / weights[..., None]


def _neighbours(x: np.ndarray) -> np.ndarray:
    """Stack a picture (H, W, ...) with its eight shifts: (9, H, W, ...)."""
    p = np.pad(x, [(1, 1), (1, 1), *[(0, 0)] * (x.ndim - 2)], mode="edge")
    return np.stack([p[dy : dy + x.shape[0], dx : dx + x.shape[1]] for dy in range(3) for dx in range(3)])


def _blur(x: np.ndarray) -> np.ndarray:
    """Average over 3 × 3 pixels."""
    return _neighbours(x).mean(0)
