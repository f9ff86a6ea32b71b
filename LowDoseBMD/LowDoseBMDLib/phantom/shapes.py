"""Signed distances (mm, negative inside) of the few shapes that the phantom is made of.

Coordinates are arrays that broadcast to the wanted grid; distances are exact near the surface to first order,
which is what anti-aliased edges and thin shells need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .canvas import Box, Canvas

_TINY = np.float32(1e-8)


def unit(vector: Sequence[float]) -> np.ndarray:
    vector = np.asarray(vector, float)
    return vector / np.linalg.norm(vector)


def along(x: np.ndarray, y: np.ndarray, z: np.ndarray, origin: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Coordinate along an axis through an origin."""
    o, a = np.asarray(origin, np.float32), np.asarray(axis, np.float32)
    return (x - o[0]) * a[0] + (y - o[1]) * a[1] + (z - o[2]) * a[2]


def ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: Sequence[float], radii: Sequence[float],
              axes: np.ndarray | None = None) -> np.ndarray:
    """Ellipsoid; axes: rows are the directions of the radii, the coordinate axes by default."""
    r = np.asarray(radii, np.float32)
    if axes is None:
        p, q, s = ((v - np.float32(c)) / n for v, c, n in zip((x, y, z), centre, r, strict=True))
    else:
        p, q, s = (along(x, y, z, centre, axis) / n for axis, n in zip(axes, r, strict=True))
    pp, qq, ss = p * p, q * q, s * s
    square = pp + qq + ss + _TINY
    slope = np.sqrt(pp / r[0] ** 2 + qq / r[1] ** 2 + ss / r[2] ** 2 + _TINY / r.max() ** 2)
    return (square - np.sqrt(square)) / slope


def limb(x: np.ndarray, y: np.ndarray, z: np.ndarray, ends: np.ndarray, thick: Sequence[float],
         wide: Sequence[float], normal: Sequence[float] | None = None) -> np.ndarray:
    """A piece of limb between two ends (2, 3): elliptic cross-section, round caps.

    thick, wide: half axes at both ends, along ``normal`` (made perpendicular to the limb) and across it.
    """
    ends = np.asarray(ends, float)
    length = max(float(np.linalg.norm(ends[1] - ends[0])), 1e-3)
    axis = (ends[1] - ends[0]) / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
    normal = _perpendicular(axis, normal)
    s = along(x, y, z, ends[0], axis)
    p = along(x, y, z, ends[0], normal)
    q = along(x, y, z, ends[0], np.cross(axis, normal))
    t = np.clip(s * np.float32(1 / length), 0, 1)
    s -= t * np.float32(length)
    a = _between(thick, t)
    b = a if tuple(thick) == tuple(wide) else _between(wide, t)
    c = a if b is a else np.minimum(a, b)
    p /= a
    q /= b
    s /= c
    p *= p
    q *= q
    s *= s
    square = p + q + s + _TINY
    slope = np.sqrt(p / (a * a) + q / (b * b) + s / (c * c) + _TINY / (a * a))
    return (square - np.sqrt(square)) / slope


def _between(pair: Sequence[float], t: np.ndarray) -> np.ndarray | np.float32:
    first, last = (np.float32(v) for v in pair)
    return first if first == last else first + (last - first) * t


def _perpendicular(axis: np.ndarray, normal: Sequence[float] | None) -> np.ndarray:
    guess = np.asarray((0.0, 1.0, 0.0) if normal is None else normal, float)
    guess = guess - axis * (guess @ axis)
    if np.linalg.norm(guess) < 1e-6:
        guess = np.cross(axis, (1.0, 0.3, 0.2))
    return unit(guess)


def plate(x: np.ndarray, y: np.ndarray, z: np.ndarray, corners: np.ndarray, half_mm: float) -> np.ndarray:
    """A triangular plate: distance to the triangle (3, 3) less half its thickness."""
    a, b, c = np.asarray(corners, float)
    normal = unit(np.cross(b - a, c - a))
    height = along(x, y, z, a, normal)
    inside = np.ones(np.broadcast_shapes(x.shape, y.shape, z.shape), bool)
    nearest = None
    for first, second in ((a, b), (b, c), (c, a)):
        edge = second - first
        outward = unit(np.cross(edge, normal))
        side = along(x, y, z, first, outward)
        inside &= side <= 0
        length = np.linalg.norm(edge)
        s = along(x, y, z, first, edge / length)
        s -= np.clip(s, 0, np.float32(length))
        square = side * side + s * s
        nearest = square if nearest is None else np.minimum(nearest, square)
    flat = np.where(inside, 0, nearest)
    return np.sqrt(flat + height * height) - np.float32(half_mm)


def smooth_max(a: np.ndarray, b: np.ndarray, radius_mm: float) -> np.ndarray:
    """Intersection of two shapes with a rounded edge."""
    overlap = np.maximum(np.float32(radius_mm) - np.abs(a - b), 0)
    return np.maximum(a, b) + overlap * overlap * np.float32(0.25 / radius_mm)


def smooth_min(a: np.ndarray, b: np.ndarray, radius_mm: float) -> np.ndarray:
    """Union of two shapes with a rounded seam."""
    return -smooth_max(-a, -b, radius_mm)


def smooth_line(points: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) points of a smooth curve through the given ones (N, 3), equally spaced."""
    from scipy.interpolate import PchipInterpolator, make_interp_spline

    points = np.asarray(points, float)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    curve = make_interp_spline(steps, points, k=min(2, len(points) - 1)) if len(points) < 4 else \
        PchipInterpolator(steps, points)
    return curve(np.linspace(0, steps[-1], count))


def sweep(canvas: Canvas, points: np.ndarray, thick: Sequence[float] | float, wide: Sequence[float] | float,
          normals: np.ndarray | None = None, margin_mm: float = 3.0) -> tuple[Box, np.ndarray] | None:
    """A tube along a line: its box and signed distances in it, or None outside the canvas.

    points: (N, 3). thick, wide: half axes of the cross-section at each point, along ``normals`` and across.
    Beyond margin_mm outside the tube the distance is only known to be larger than the margin.
    """
    points = np.asarray(points, float)
    thick, wide = (np.broadcast_to(np.asarray(v, float), len(points)) for v in (thick, wide))
    reach = np.maximum(thick, wide)[:, None] + margin_mm
    box = canvas.box((points - reach).min(axis=0), (points + reach).max(axis=0))
    if box is None:
        return None
    distance = np.full(box.shape, margin_mm, np.float32)
    start = [s.start for s in box.slices]
    for n in range(len(points) - 1):
        ends, r = points[n:n + 2], reach[n:n + 2]
        part = canvas.box((ends - r).min(axis=0), (ends + r).max(axis=0))
        if part is None:
            continue
        view = distance[tuple(slice(s.start - o, s.stop - o) for s, o in zip(part.slices, start, strict=True))]
        normal = None if normals is None else normals[n] + normals[n + 1]
        np.minimum(view, limb(part.x, part.y, part.z, ends, thick[n:n + 2], wide[n:n + 2], normal), out=view)
    return box, distance
