"""The trunk as nested surfaces: skin, outer face of the muscles, rib cage, inner cavity; and the lungs.

Every surface is a superellipse in planes that slope down towards the front like the ribs. A point's plane is named
by ``zeta``, the height (z, mm) at which it meets the back; rib n runs near the plane of vertebra n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Box, Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import ellipsoid, limb, smooth_max, smooth_min
from .spine import NOMINAL_KYPHOSIS_DEG, SpineLine, Vertebra, build_spine

SLOPE = 0.62
"""How far the planes fall per mm towards the front: ribs 3 to 9 slope by 30 to 35 degrees."""

_KNOTS = (-1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17)
"""Level numbers (T1 is 1, L1 is 13) of the tables below."""
_CAGE_HALF = (36, 38, 46, 69, 87, 97, 104, 110, 119, 123, 123, 121, 122)
_CAGE_FRONT_Y = (2, -1, -8, -26, -40, -53, -62, -70, -80, -84, -84, -83, -82)
_CAGE_BEHIND = (24, 24, 25, 28, 30, 32, 33, 35, 36, 36, 36, 34, 31)
"""Half width, y of the front, and distance of the back behind the vertebral centres, of the line of the ribs."""
_MUSCLE_SIDE = (24, 28, 32, 26, 21, 18, 16, 14, 12, 10, 9, 9, 9)
_MUSCLE_FRONT = (15, 15, 11, 11, 11, 11, 10, 9, 7, 6, 6, 6, 6)
_MUSCLE_BACK = (20, 21, 22, 22, 22, 22, 22, 22, 23, 24, 25, 28, 30)
"""Muscle outside the line of the ribs, at the side, in front and behind."""
_FAT_FRONT = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.62, 0.7, 0.9, 1, 1, 1, 1)
_FAT_SIDE = (0.4, 0.4, 0.45, 0.5, 0.55, 0.6, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95, 1)
_FAT_BACK = (0.6, 0.6, 0.6, 0.6, 0.55, 0.55, 0.55, 0.55, 0.6, 0.65, 0.75, 0.9, 1.1)
"""Thickness of subcutaneous fat relative to that in front at L1-L2."""

SKIN_MM = 1.7
CAVITY_MM = 5.0
"""The cavity's wall lies this far inside the line of the ribs."""


@dataclass(frozen=True)
class Growth:
    """How far a surface lies outside the line of the ribs (mm), at each of the knots."""

    side: tuple[float, ...]
    front: tuple[float, ...]
    back: tuple[float, ...]


def even(mm: float) -> Growth:
    """The same distance everywhere."""
    return Growth(*[(mm,) * len(_KNOTS)] * 3)


class Trunk:
    """Surfaces of one person's trunk."""

    def __init__(self, spine: tuple[Vertebra, ...], physique: Physique, width: float, depth: float) -> None:
        self.line, self.scale, self.width, self.depth = SpineLine(spine), physique.scale, width, depth
        self.fat_mm = physique.fat_mm
        usual = SpineLine(build_spine(physique.scale, NOMINAL_KYPHOSIS_DEG, 0.0))
        self._shift_y = 0.5 * (np.array([self.line.at(n)[1] for n in _KNOTS])
                               - np.array([usual.at(n)[1] for n in _KNOTS]))
        s = physique.scale
        self.muscle = Growth(*(tuple(v * s for v in t) for t in (_MUSCLE_SIDE, _MUSCLE_FRONT, _MUSCLE_BACK)))
        self.skin = Growth(*(tuple(m + physique.fat_mm * f + SKIN_MM + extra for m, f in zip(t, fat, strict=True))
                             for t, fat, extra in zip((self.muscle.side, self.muscle.front, self.muscle.back),
                                                      (_FAT_SIDE, _FAT_FRONT, _FAT_BACK), (0, 0, 3), strict=True)))

    def zeta(self, y_mm: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
        """Name of the plane through points (y, z)."""
        back = self.line.xy_at(z_mm)[1] + 20 * self.scale
        return z_mm + SLOPE * np.maximum(0, back - y_mm)

    def z_of(self, y_mm: np.ndarray, zeta: np.ndarray) -> np.ndarray:
        """Height of a plane at y."""
        z = np.asarray(zeta, float)
        for _ in range(12):
            z = z + 0.8 * (zeta - self.zeta(y_mm, z))
        return z

    def section(self, zeta: np.ndarray, grow: Growth) -> tuple[np.ndarray, ...]:
        """Centre x, centre y, half width and half depth of a surface in the planes ``zeta``."""
        n = self.line.number_at(zeta)
        s, spread = self.scale, self.width
        half = np.interp(n, _KNOTS, np.array(_CAGE_HALF) * s * spread + np.array(grow.side))
        front = np.interp(n, _KNOTS, np.array(_CAGE_FRONT_Y) * s * self.depth + self._shift_y - np.array(grow.front))
        x, y = self.line.xy_at(zeta)
        back = y + np.interp(n, _KNOTS, np.array(_CAGE_BEHIND) * s + np.array(grow.back))
        return 0.6 * x, (front + back) / 2, half, (back - front) / 2

    def point(self, side: int, theta_deg: np.ndarray | float, zeta: np.ndarray | float, out_mm: float = 0.0) -> np.ndarray:
        """(..., 3) LPS points on the line of the ribs: theta 0 behind, 90 at the side, 180 in front."""
        theta = np.deg2rad(np.asarray(theta_deg, float))
        zeta = np.broadcast_to(np.asarray(zeta, float), theta.shape)
        cx, cy, half, deep = self.section(zeta, even(out_mm))
        x = cx + side * half * np.abs(np.sin(theta)) ** 0.8
        y = cy + deep * np.where(np.cos(theta) > 0, np.abs(np.cos(theta)) ** 0.8, np.cos(theta))
        return np.stack([x, y, self.z_of(y, zeta)], axis=-1)

    def distance(self, box: Box, grow: Growth) -> np.ndarray:
        """Signed distance (k, j, i) of a surface."""
        y, z = box.y[:, :, 0], box.z[:, :, 0]
        cx, cy, half, deep = (a.astype(np.float32)[:, :, None] for a in
                              self.section(self.zeta(*np.broadcast_arrays(y, z)), grow))
        eta = (box.y - cy) / deep
        behind = eta > 0
        eta = np.abs(eta)
        steep = np.where(behind, eta * eta * np.sqrt(eta), eta * eta)
        eta_slope = np.square(np.where(behind, 2.5 * eta * np.sqrt(eta), 2 * eta) / deep)
        xi = np.abs(box.x - cx)
        xi /= half
        power = xi * np.sqrt(xi)
        slope = power * (2.5 / half)
        slope *= slope
        slope += eta_slope + np.float32(1e-6)
        power *= xi
        power += steep - 1
        power /= np.sqrt(slope, out=slope)
        return power

    def behind(self, box: Box) -> np.ndarray:
        """Signed distance of the wedge beside and behind the spine that belongs to the back."""
        x, y = (np.asarray(a, np.float32) for a in self.line.xy_at(box.z))
        s, rear = self.scale, box.y - y
        return np.maximum(np.abs(box.x - x) - (17 * s + np.float32(0.72) * (rear - 8 * s)), 8 * s - rear)


class Diaphragm:
    """The height under the lungs and above the abdominal organs."""

    def __init__(self, trunk: Trunk, rng: np.random.Generator) -> None:
        line, s = trunk.line, trunk.scale
        up = float(np.clip(rng.normal(0, 0.25), -0.4, 0.5))
        self.tops = (line.z(9.8 + up) - 9 * s, line.z(9.6 + up))
        _, cy, half, deep = trunk.section(np.array([line.z(9.5)]), even(-CAVITY_MM))
        self.half, self.cy, self.deep = float(half[0]), float(cy[0]), float(deep[0])
        self.front_z, self.back_z = line.z(10.8 + up), line.z(13.1 + up)

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the diaphragm; tops are (left, right)."""
        t = np.clip((y - (self.cy - self.deep)) / (2 * self.deep), 0, 1)
        rim = self.front_z + (self.back_z - self.front_z) * t ** 1.4
        best = None
        for side, top in ((1, self.tops[0]), (-1, self.tops[1])):
            beside = x - side * 0.5 * self.half
            reach = self.half * np.where(beside * side > 0, 0.47, 0.78)
            square = (beside / reach) ** 2 + ((y - self.cy) / (0.93 * self.deep)) ** 2
            dome = rim + (top - rim) * np.clip(1 - square * square, 0, 1)
            best = dome if best is None else np.maximum(best, dome)
        return best.astype(np.float32)


def shoulders(trunk: Trunk) -> list[tuple[np.ndarray, tuple[float, float]]]:
    """(ends, radii) of the muscle masses of the shoulders with raised arms."""
    line, s, parts = trunk.line, trunk.scale, []
    for side in (-1, 1):
        chest = np.array([side * 84 * s, line.at(5.5)[1] - 18 * s, line.z(5.5)])
        axilla = np.array([side * 98 * s, line.at(3)[1] - 14 * s, line.z(3)])
        joint = np.array([side * 118 * s, line.at(1)[1] - 4 * s, line.z(1)])
        arm = np.array([side * 140 * s, line.at(1)[1] - 20 * s, line.z(1) + 130 * s])
        parts += [(np.array([chest, axilla]), (34 * s, 42 * s)), (np.array([axilla, joint]), (42 * s, 43 * s)),
                  (np.array([joint, arm]), (43 * s, 36 * s))]
    return parts


def shoulder_distance(trunk: Trunk, box: Box) -> np.ndarray | None:
    """Signed distance of the shoulders' muscle, None where the slab lies below them."""
    if float(box.z.max()) < trunk.line.z(8):
        return None
    distance = np.full(box.shape, 60.0, np.float32)
    for ends, radii in shoulders(trunk):
        half = (box.x[0, 0] > 20) if ends[0, 0] > 0 else (box.x[0, 0] < -20)
        view = distance[:, :, half]
        distance[:, :, half] = smooth_min(view, limb(box.x[:, :, half], box.y, box.z, ends, radii, radii), 14.0)
    return distance


def breasts(trunk: Trunk, fat_mm: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(centre, radii) of the breasts of a woman lying on her back."""
    s, size = trunk.scale, np.clip(0.75 + fat_mm / 60, 0.8, 1.3)
    zeta = trunk.line.z(4.2)
    return [(trunk.point(side, 132.0, zeta, 6.0), np.array([50, 25, 50]) * s * size) for side in (-1, 1)]


def paint_trunk(canvas: Canvas, trunk: Trunk, physique: Physique, sex: str) -> None:
    """Skin, subcutaneous fat, muscle and the fat of the inner cavity, over air."""
    hu = physique.hu
    chest = breasts(trunk, physique.fat_mm) if sex == "f" else []
    low_chest, neck = trunk.line.z(10), trunk.line.z(0.9)
    for box in canvas.slabs():
        skin, muscle = trunk.distance(box, trunk.skin), trunk.distance(box, trunk.muscle)
        shoulder = shoulder_distance(trunk, box)
        if shoulder is not None:
            skin = smooth_min(skin, shoulder - np.float32(0.55 * physique.fat_mm + SKIN_MM), 14.0)
            muscle = smooth_min(muscle, shoulder, 14.0)
        if chest and float(box.z.max()) > low_chest:
            for centre, radii in chest:
                skin = smooth_min(skin, ellipsoid(box.x, box.y, box.z, centre, radii), 34.0)
        canvas.paint(box, skin, hu["skin"], LABEL["skin"])
        canvas.paint(box, skin + np.float32(SKIN_MM), hu["fat"], LABEL["subcutaneous_fat"])
        canvas.paint(box, np.maximum(muscle, skin + np.float32(SKIN_MM + 1)), hu["muscle"], LABEL["muscle"])
        cavity = smooth_max(trunk.distance(box, even(-CAVITY_MM)), -trunk.behind(box), 6.0)
        cavity = np.maximum(cavity, box.z - np.float32(neck))
        canvas.paint(box, cavity, hu["visceral"], LABEL["visceral_fat"])


def paint_lungs(canvas: Canvas, trunk: Trunk, diaphragm: Diaphragm, spine: tuple[Vertebra, ...], hu: float) -> None:
    """Both lungs: inside the cage, above the diaphragm, beside the mediastinum."""
    s, line = trunk.scale, trunk.line
    low, top = line.z(14.5), line.z(0.2)
    floor = diaphragm.height(*np.broadcast_arrays(canvas.axes[2][None, :], canvas.axes[1][:, None]))
    for box in canvas.slabs(np.array([-1e5, -1e5, low]), np.array([1e5, 1e5, top])):
        zeta = trunk.zeta(*np.broadcast_arrays(box.y[:, :, 0], box.z[:, :, 0])).astype(np.float32)[:, :, None]
        wall = trunk.distance(box, even(-CAVITY_MM - 0.8))
        x = box.x - trunk.section(zeta, even(0.0))[0].astype(np.float32)
        apex = (zeta - np.float32(line.z(0.95)) + np.square((np.abs(x) - 28 * s) / (20 * s)) * 7) * np.float32(0.8)
        bottom = (floor[None] - box.z) * np.float32(0.75)
        wall = smooth_max(smooth_max(wall, apex, 8.0), -trunk.behind(box) + 2.5, 8.0)
        lung = smooth_max(smooth_max(wall, mediastinum(trunk, box, spine), 6.0), bottom, 3.0)
        back = line.xy_at(box.z)[1].astype(np.float32)
        value = hu + 45 * np.clip(1 + (box.y - back) / (150 * s), 0, 1.2) - 22
        for label, keep in (("lung_left", x > 0), ("lung_right", x <= 0)):
            canvas.paint(box, np.where(keep, lung, 9.0), value, LABEL[label])


def mediastinum(trunk: Trunk, box: Box, spine: tuple[Vertebra, ...]) -> np.ndarray:
    """Signed distance of the lungs' side of the mediastinum (positive inside the mediastinum)."""
    s, line = trunk.scale, trunk.line
    z = box.z[:, :, 0]
    spine_x, spine_y = line.xy_at(z)
    body = np.interp(z, [v.centre[2] for v in spine[::-1]], [v.width_mm / 2 for v in spine[::-1]])
    front = trunk.section(trunk.zeta(*np.broadcast_arrays(np.float32(-60 * s), z)), even(0.0))
    t = np.clip((box.y[:, :, 0] - (front[1] - front[3])) / (spine_y - (front[1] - front[3])), 0, 1.2)
    upper = np.clip((z - line.z(6)) / (line.z(2) - line.z(6)), 0, 1)
    lower = np.clip((line.z(8.5) - z) / (line.z(8.5) - line.z(10.5)), 0, 1)
    middle = (24 + 6 * upper - 15 * lower) * s
    half = np.where(t < 0.3, 5 * s + (middle - 5 * s) * (t / 0.3) ** 0.7,
                    middle + (body + 3 * s - middle) * np.clip((t - 0.55) / 0.35, 0, 1))
    centre = 6 * s * np.clip(1 - t, 0, 1) * (1 - upper) + spine_x * np.clip(t, 0, 1)
    return (half.astype(np.float32)[:, :, None] - np.abs(box.x - centre.astype(np.float32)[:, :, None])) * np.float32(0.95)
