"""Shapes as signed distances, and their meshes.

A `Field` is a function of points (..., 3) that is negative inside a shape, with a box that holds the shape, so that
marching cubes need only look there. Everything is float32: a toy is meshed in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.measure import marching_cubes

Vector = Sequence[float] | np.ndarray


class Mesh(NamedTuple):
    """Triangles: vertices `v` (N, 3) float32, corner indices `f` (M, 3) uint32, outward unit normals `n` (N, 3)."""

    v: np.ndarray
    f: np.ndarray
    n: np.ndarray


@dataclass(frozen=True)
class Field:
    """Hold a signed distance `f` and the corners `lo`, `hi` of a box around the shape."""

    f: Callable[[np.ndarray], np.ndarray]
    lo: np.ndarray
    hi: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.f(points)


def _vec(x: Vector) -> np.ndarray:
    return np.asarray(x, np.float32)


def _length(p: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...i,...i->...", p, p))


def ellipsoid(centre: Vector, radii: Vector | float) -> Field:
    """Give an ellipsoid with its axes along x, y, z. Source: I. Quilez, "Ellipsoid SDF", the first-order bound."""
    c, r = _vec(centre), _vec(np.broadcast_to(radii, 3))

    def f(p: np.ndarray) -> np.ndarray:
        q = (p - c) / r
        k0 = _length(q)
        return k0 * (k0 - 1) / np.maximum(_length(q / r), 1e-6)

    return Field(f, c - r, c + r)


def capsule(a: Vector, b: Vector, radius_a: float, radius_b: float | None = None) -> Field:
    """Give a rod with round ends whose radius runs from `radius_a` at `a` to `radius_b` at `b`."""
    a, b = _vec(a), _vec(b)
    radius_b = radius_a if radius_b is None else radius_b
    ab = b - a
    scale = 1 / max(float(ab @ ab), 1e-9)

    def f(p: np.ndarray) -> np.ndarray:
        t = np.clip((p - a) @ (ab * np.float32(scale)), 0, 1)
        return _length(p - a - t[..., None] * ab) - (radius_a + np.float32(radius_b - radius_a) * t)

    return Field(f, np.minimum(a - radius_a, b - radius_b), np.maximum(a + radius_a, b + radius_b))


def chain(points: np.ndarray, radii: np.ndarray) -> Field:
    """Give a bent rod through `points` (N, 3), its radius at each in `radii` (N,)."""
    return union(*[capsule(points[i], points[i + 1], radii[i], radii[i + 1]) for i in range(len(points) - 1)])


def box(centre: Vector, half: Vector, rounding: float = 0.02) -> Field:
    """Give a box of half sizes `half` whose edges are rounded by `rounding` (inside the box's own size)."""
    c, h = _vec(centre), _vec(half)
    inner = np.maximum(h - rounding, 1e-4)

    def f(p: np.ndarray) -> np.ndarray:
        q = np.abs(p - c) - inner
        return _length(np.maximum(q, 0)) + np.minimum(q.max(-1), 0) - rounding

    return Field(f, c - h, c + h)


def cylinder(centre: Vector, axis: int, radius: float, half: float, rounding: float = 0.02) -> Field:
    """Give a cylinder along axis 0, 1 or 2 with rounded rims."""
    c = _vec(centre)
    others = [i for i in range(3) if i != axis]

    def f(p: np.ndarray) -> np.ndarray:
        q = p - c
        a = _length(q[..., others]) - (radius - rounding)
        b = np.abs(q[..., axis]) - (half - rounding)
        return np.minimum(np.maximum(a, b), 0) + np.hypot(np.maximum(a, 0), np.maximum(b, 0)) - rounding

    size = np.full(3, radius, np.float32)
    size[axis] = half
    return Field(f, c - size, c + size)


def torus(centre: Vector, axis: int, radius: float, thickness: float, stretch: Vector = (1, 1, 1)) -> Field:
    """Give a ring about `axis`; `stretch` widens it along x, y, z (the distance is then a bound)."""
    c, s = _vec(centre), _vec(stretch)
    others = [i for i in range(3) if i != axis]

    def f(p: np.ndarray) -> np.ndarray:
        q = (p - c) / s
        return np.hypot(_length(q[..., others]) - radius, q[..., axis]) - thickness

    size = np.full(3, radius + thickness, np.float32)
    size[axis] = thickness
    return Field(f, c - size * s, c + size * s)


def union(*fields: Field) -> Field:
    """Join shapes, with a crease where they meet."""
    return smooth(*fields, k=0.0)


def smooth(*fields: Field, k: float = 0.08) -> Field:
    """Join shapes with a fillet of width `k`. Source: I. Quilez, "Smooth minimum", the polynomial form."""

    def f(p: np.ndarray) -> np.ndarray:
        d = fields[0](p)
        for g in fields[1:]:
            e = g(p)
            if k > 0:
                h = np.clip(0.5 + 0.5 * (e - d) / k, 0, 1)
                d = e * (1 - h) + d * h - k * h * (1 - h)
            else:
                d = np.minimum(d, e)
        return d

    lo = np.min([g.lo for g in fields], axis=0) - k / 4
    hi = np.max([g.hi for g in fields], axis=0) + k / 4
    return Field(f, lo, hi)


def cut(field: Field, *tools: Field, k: float = 0.01) -> Field:
    """Take `tools` away from `field`, with edges rounded by `k`."""

    def f(p: np.ndarray) -> np.ndarray:
        d = field(p)
        for tool in tools:
            e = -tool(p)
            h = np.clip(0.5 - 0.5 * (e - d) / k, 0, 1)
            d = e * (1 - h) + d * h + k * h * (1 - h)
        return d

    return Field(f, field.lo, field.hi)


def common(*fields: Field) -> Field:
    """Keep what lies in all of `fields`."""
    lo = np.max([g.lo for g in fields], axis=0)
    hi = np.min([g.hi for g in fields], axis=0)
    return Field(lambda p: np.max([g(p) for g in fields], axis=0), lo, hi)


def grow(field: Field, by: float) -> Field:
    """Move the surface outwards by `by` (inwards where negative)."""
    return Field(lambda p: field(p) - np.float32(by), field.lo - by, field.hi + by)


def mirror(field: Field) -> Field:
    """Repeat a shape that lies at y > 0 on the other side of the plane y = 0."""
    flip = _vec((1, -1, 1))

    def f(p: np.ndarray) -> np.ndarray:
        q = p.copy()
        q[..., 1] = np.abs(q[..., 1])
        return field(q)

    return Field(f, np.minimum(field.lo, field.lo * flip - (field.hi - field.lo) * (0, 1, 0)), field.hi)


def rotation(axis: int | Vector, degrees: float) -> np.ndarray:
    """Give the (3, 3) matrix that turns points about an axis (0, 1, 2 or a vector), anticlockwise."""
    a = np.eye(3)[axis] if isinstance(axis, int) else np.asarray(axis, float) / np.linalg.norm(axis)
    t = np.radians(degrees)
    k = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    return (np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k).astype(np.float32)


def move(field: Field, turn: np.ndarray | None = None, shift: Vector = (0, 0, 0), scale: float = 1.0) -> Field:
    """Scale a shape about the origin, turn it by a (3, 3) matrix, then shift it."""
    turn = np.eye(3, dtype=np.float32) if turn is None else _vec(turn)
    shift = _vec(shift)
    corners = np.array(np.meshgrid(*zip(field.lo, field.hi, strict=True))).reshape(3, -1).T
    corners = scale * corners @ turn.T + shift

    def f(p: np.ndarray) -> np.ndarray:
        return field(((p - shift) @ turn) / np.float32(scale)) * np.float32(scale)

    return Field(f, corners.min(0).astype(np.float32), corners.max(0).astype(np.float32))


def surface_point(field: Field, origin: Vector, direction: Vector, far: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Find where a ray that starts inside a shape leaves it.

    Returns: the point (3,) and the outward unit normal (3,).
    """
    origin, direction = _vec(origin), _vec(direction) / np.linalg.norm(direction)
    t = np.linspace(0, far, 400, dtype=np.float32)
    inside = field(origin + t[:, None] * direction) < 0
    near, away = t[np.flatnonzero(inside)[-1]], min(far, t[np.flatnonzero(inside)[-1]] + t[1])
    for _ in range(20):
        middle = (near + away) / 2
        near, away = (middle, away) if field(origin + middle * direction) < 0 else (near, middle)
    point = origin + near * direction
    return point, normals(field, point[None])[0]


def normals(field: Field, points: np.ndarray, step: float = 2e-3) -> np.ndarray:
    """Give the outward unit normals of a field at points (N, 3), by the tetrahedron's four differences."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    n = sum(c * field(points + step * c)[:, None] for c in corners)
    return (n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def mesh(field: Field, cells: int = 56) -> Mesh:
    """Turn a field into triangles with smooth normals; `cells` grid cells span the longest side of its box."""
    step = float((field.hi - field.lo).max()) / cells
    lo, hi = field.lo - 1.5 * step, field.hi + 1.5 * step
    counts = np.ceil((hi - lo) / step).astype(int) + 1
    axes = [
        np.float32(low) + np.float32(step) * np.arange(n, dtype=np.float32) for low, n in zip(lo, counts, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    v, f, _, _ = marching_cubes(field(grid), 0.0, spacing=(step,) * 3)
    v = (v + lo).astype(np.float32)
    return outward(Mesh(v, f.astype(np.uint32), normals(field, v, 0.25 * step)))


def outward(m: Mesh) -> Mesh:
    """Order each triangle's corners so that it faces the way its vertex normals do."""
    a, b, c = (m.v[m.f[:, i]] for i in range(3))
    wrong = np.einsum("ij,ij->i", np.cross(b - a, c - a), m.n[m.f].sum(1)) < 0
    f = m.f.copy()
    f[wrong] = f[wrong][:, ::-1]
    return Mesh(m.v, f, m.n)


def merge(*meshes: Mesh) -> Mesh:
    """Put meshes into one."""
    starts = np.cumsum([0] + [len(m.v) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.v for m in meshes]),
        np.concatenate([m.f + np.uint32(s) for m, s in zip(meshes, starts, strict=True)]),
        np.concatenate([m.n for m in meshes]),
    )


def place(m: Mesh, turn: np.ndarray | None = None, shift: Vector = (0, 0, 0), scale: Vector | float = 1.0) -> Mesh:
    """Scale a mesh about the origin (one factor or three), turn it, then shift it."""
    turn = np.eye(3, dtype=np.float32) if turn is None else _vec(turn)
    s = _vec(np.broadcast_to(scale, 3))
    n = (m.n / s) @ turn.T
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)
    return Mesh(((m.v * s) @ turn.T + _vec(shift)).astype(np.float32), m.f, n.astype(np.float32))


def _sheet(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Give the triangles (M, 3) of a rows × columns grid of vertices; `closed` joins the last column to the first."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    quads = np.stack([a, b, b + columns, a, b + columns, a + columns], -1)
    return quads.reshape(-1, 3).astype(np.uint32)


def grid_normals(v: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Give area-weighted vertex normals (N, 3) of triangles."""
    a, b, c = (v[f[:, i]].astype(np.float64) for i in range(3))
    face = np.cross(b - a, c - a)
    n = np.zeros((len(v), 3))
    for i in range(3):
        np.add.at(n, f[:, i], face)
    return (n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def sphere_mesh(rows: int = 64, columns: int = 96, radius: Callable[[np.ndarray], np.ndarray] | None = None) -> Mesh:
    """Give a unit sphere, poles on z; `radius` may change the radius for unit directions (N, 3)."""
    theta = np.linspace(0, np.pi, rows)
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    d = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1).reshape(-1, 3)
    f = _sheet(rows, columns, closed=True)
    if radius is None:
        return outward(Mesh(d.astype(np.float32), f, d.astype(np.float32)))
    v = d * radius(d)[:, None]
    n = grid_normals(v, f)
    n = np.where(np.einsum("ij,ij->i", n, d)[:, None] < 0, -n, n)
    for row in (slice(0, columns), slice(-columns, None)):
        n[row] = n[row].mean(0) / max(np.linalg.norm(n[row].mean(0)), 1e-9)
    return outward(Mesh(v.astype(np.float32), f, n.astype(np.float32)))


def lathe(profile: np.ndarray, columns: int = 72, rounds: int = 3, wave: Callable | None = None) -> Mesh:
    """Turn a profile about z.

    Args:
        profile: (N, 2) points (radius, z), ordered so that the solid lies to the left going along it (from the
            bottom outwards and up).
        columns: steps around.
        rounds: times that corners are cut (Chaikin), which rounds the profile; repeat a point to keep its corner.
        wave: changes the vertices (rows, columns, 3) for frills and scallops.
    """
    p = np.asarray(profile, np.float64)
    for _ in range(rounds):
        q = 0.75 * p[:-1] + 0.25 * p[1:]
        r = 0.25 * p[:-1] + 0.75 * p[1:]
        p = np.concatenate([p[:1], np.stack([q, r], 1).reshape(-1, 2), p[-1:]])
    keep = np.concatenate([[True], np.linalg.norm(np.diff(p, axis=0), axis=1) > 1e-5])
    p = p[keep]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    v = np.stack([p[:, :1] * np.cos(phi), p[:, :1] * np.sin(phi), np.repeat(p[:, 1:], columns, 1)], -1)
    if wave is not None:
        v = wave(v)
    v = v.reshape(-1, 3)
    f = _sheet(len(p), columns, closed=True)
    n = grid_normals(v, f)
    for row, end in ((slice(0, columns), 0), (slice(-columns, None), -1)):
        if p[end, 0] < 1e-6:
            n[row] = n[row].mean(0) / max(np.linalg.norm(n[row].mean(0)), 1e-9)
    return Mesh(v.astype(np.float32), f, n)


def tube(points: np.ndarray, radii: np.ndarray, columns: int = 20) -> Mesh:
    """Give a bent tube with open ends through `points` (N, 3), for handles; `radii` (N, 2) across and along y."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.broadcast_to(np.array([0.0, 1.0, 0.0]), tangent.shape)
    up = np.cross(tangent, side)
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    v = (
        points[:, None]
        + radii[:, None, :1] * np.cos(phi)[None, :, None] * up[:, None]
        + radii[:, None, 1:] * np.sin(phi)[None, :, None] * side[:, None]
    )
    d = (v - points[:, None]).reshape(-1, 3)
    v = v.reshape(-1, 3)
    f = _sheet(len(points), columns, closed=True)
    n = grid_normals(v, f)
    n = np.where(np.einsum("ij,ij->i", n, d)[:, None] < 0, -n, n)
    return outward(Mesh(v.astype(np.float32), f, n.astype(np.float32)))


def rounded_box_mesh(half: Vector, rounding: float, cells: int = 40) -> Mesh:
    """Give a box with rounded edges as six fine sheets, so that pictures can be painted on its faces."""
    half = np.asarray(half, float)
    inner = np.maximum(half - rounding, 1e-4)
    t = np.linspace(-1, 1, cells)
    sheets = []
    for axis in range(3):
        for sign in (-1, 1):
            a, b = [i for i in range(3) if i != axis]
            p = np.zeros((cells, cells, 3))
            p[..., axis] = sign * half[axis]
            p[..., a], p[..., b] = t[:, None] * half[a], t[None, :] * half[b]
            core = np.clip(p, -inner, inner)
            n = p - core
            n /= np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-9)
            v = core + rounding * n
            f = _sheet(cells, cells, closed=False)
            sheets.append(outward(Mesh(v.reshape(-1, 3).astype("f4"), f, n.reshape(-1, 3).astype("f4"))))
    return merge(*sheets)
