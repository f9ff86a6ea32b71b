"""Organs of the belly."""

from __future__ import annotations

import numpy as np

from .canvas import Box, Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import ellipsoid, smooth_line, smooth_max, sweep, unit
from .trunk import Diaphragm, Trunk, even

FAT = (LABEL["visceral_fat"],)
GAS_HU = -950.0


class Belly:
    """Places in the belly named by level: x from the middle, y from the vertebral centre, level number."""

    def __init__(self, canvas: Canvas, trunk: Trunk, diaphragm: Diaphragm, physique: Physique,
                 rng: np.random.Generator) -> None:
        self.canvas, self.trunk, self.diaphragm, self.physique, self.rng = canvas, trunk, diaphragm, physique, rng
        self.s, self.hu = trunk.scale, physique.hu

    def place(self, x: float, forward: float, number: float) -> np.ndarray:
        """LPS point x mm to the left of the spine, forward mm before its centre, at a level number."""
        centre = self.trunk.line.at(number)
        return np.array([centre[0] + x * self.s, centre[1] - forward * self.s, centre[2]])

    def under_diaphragm(self, box: Box, gap_mm: float) -> np.ndarray:
        """Signed distance of the belly: under the diaphragm and inside the wall."""
        x, y = np.broadcast_arrays(box.x[0], box.y[0])
        roof = (box.z - self.diaphragm.height(x, y)[None]) * np.float32(0.75)
        wall = self.trunk.distance(box, even(-7.5))
        return smooth_max(roof, wall, 6.0) + np.float32(gap_mm)

    def blob(self, centre: np.ndarray, radii: np.ndarray, label: str, hu: float, axes: np.ndarray | None = None,
             only: tuple[int, ...] | None = FAT, gap_mm: float = 3.0) -> None:
        """An ellipsoid organ, kept under the diaphragm."""
        reach = np.full(3, max(radii)) + 3
        box = self.canvas.box(centre - reach, centre + reach)
        if box is not None:
            distance = smooth_max(ellipsoid(box.x, box.y, box.z, centre, radii, axes), self.under_diaphragm(box, gap_mm), 4)
            self.canvas.paint(box, distance, hu, LABEL[label], only)


def paint_diaphragm(belly: Belly) -> None:
    """The muscle sheet itself, seen where fat lies under it."""
    line = belly.trunk.line
    low, high = line.z(14), line.z(8.5)
    for box in belly.canvas.slabs(np.array([-1e5, -1e5, low]), np.array([1e5, 1e5, high])):
        x, y = np.broadcast_arrays(box.x[0], box.y[0])
        sheet = np.abs((belly.diaphragm.height(x, y)[None] - box.z) * np.float32(0.75) - 0.9) - 1.0
        belly.canvas.paint(box, sheet, belly.hu["muscle"], LABEL["muscle"], FAT)


def paint_liver(belly: Belly) -> None:
    """Right lobe under the right dome, left lobe across the middle."""
    s, rng = belly.s, belly.rng
    low = float(rng.uniform(13.2, 14.2))
    right, left = belly.place(-62, 42, 11.4), belly.place(8, 88, 11.2)
    reach = np.array([85, 95, 95]) * s
    box = belly.canvas.box(np.minimum(right - reach, left - reach), np.maximum(right + reach, left + reach))
    if box is None:
        return
    x, y, z = box.x, box.y, box.z
    lobe = ellipsoid(x, y, z, right, np.array([66, 88, 92]) * s)
    floor = (belly.trunk.line.z(low) - z) + (x - right[0]) * np.float32(0.55) - (y - right[1]) * np.float32(0.15)
    lobe = smooth_max(lobe, floor * np.float32(0.8), 14.0)
    small = ellipsoid(x, y, z, left, np.array([62, 34, 36]) * s)
    distance = smooth_max(np.minimum(lobe, small), belly.under_diaphragm(box, 2.5), 4.0)
    belly.canvas.paint(box, distance, belly.hu["liver"], LABEL["liver"], (*FAT, LABEL["muscle"]))
    gall = belly.place(-38, 78, low - 0.2)
    belly.blob(gall, np.array([12, 17, 24]) * s, "small_bowel", 8.0, only=(*FAT, LABEL["liver"]))


def paint_stomach(belly: Belly) -> None:
    """Stomach with an air bubble in front, and spleen."""
    s = belly.s
    belly.blob(belly.place(93, 8, 11.3), np.array([24, 46, 44]) * s, "spleen", belly.hu["spleen"], gap_mm=2.5)
    inside = (LABEL["stomach"],)
    centre = belly.place(50, 62, 11.6)
    axes = np.array([unit([1, 0.2, 0.5]), unit(np.cross([0, 0, 1], [1, 0.2, 0.5])), [0, 0, 1]])
    axes[2] = np.cross(axes[0], axes[1])
    radii = np.array([40, 44, 34]) * s
    belly.blob(centre, radii, "stomach", belly.hu["muscle"] - 12, axes)
    belly.blob(centre, radii - 4, "stomach", 18.0, axes, only=inside)
    bubble = centre + np.array([0, -20, 8]) * s
    belly.blob(bubble, np.array([27, 17, 22]) * s, "stomach", GAS_HU, axes, only=inside)
    tube(belly, [belly.place(30, 84, 12.4), belly.place(5, 88, 13.4), belly.place(-22, 76, 13.6)],
         np.array([24, 17, 13]), "stomach", belly.hu["muscle"] - 14)


def paint_kidneys(belly: Belly) -> None:
    """Kidneys in their fat, with the fat of the sinus, and adrenals left out."""
    s, rng = belly.s, belly.rng
    others = (*FAT, LABEL["liver"], LABEL["spleen"], LABEL["stomach"])
    for side, name, number in ((1, "left", 13.1), (-1, "right", 13.5)):
        centre = belly.place(side * 65, -8, number + float(rng.uniform(-0.2, 0.2)))
        up = unit([-side * 0.28, 0.18, 1.0])
        across = unit(np.cross([0.5 * side, 1.0, 0.0], up))
        axes = np.array([across, np.cross(up, across), up])
        radii = np.array([26, 28, 54]) * s * float(rng.uniform(0.92, 1.06))
        belly.blob(centre, radii + 8 * s, "visceral_fat", belly.hu["visceral"], axes, others)
        belly.blob(centre, radii, f"kidney_{name}", belly.hu["kidney"], axes)
        hilum = centre + np.array([-side * 18, -8, 0]) * s
        belly.blob(hilum, np.array([13, 9, 22]) * s, "visceral_fat", belly.hu["visceral"] + 18, axes,
                   (LABEL[f"kidney_{name}"],))
        tube(belly, [hilum, belly.place(side * 14, 24, number)], np.array([3.2, 4.0]), "other_vein", belly.hu["vein"])


def tube(belly: Belly, points: list[np.ndarray], radii: np.ndarray, label: str, hu: float,
         only: tuple[int, ...] | None = FAT) -> None:
    """An organ of tubular form along a smooth line."""
    line = smooth_line(np.array(points), 6 * len(points))
    at = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(radii)), radii * belly.s)
    found = sweep(belly.canvas, line, at, at)
    if found:
        belly.canvas.paint(*found, hu, LABEL[label], only)


def paint_bowel(belly: Belly) -> None:
    """Colon with gas and stool, pancreas, and loops of small bowel."""
    p, rng, hu = belly.place, belly.rng, belly.hu
    tube(belly, [p(-40, 48, 14.2), p(-8, 52, 13.6), p(30, 46, 13.2), p(68, 22, 12.4)], np.array([13, 10, 9, 8]),
         "pancreas", hu["pancreas"])
    frame = [p(-82, 20, 16.5), p(-84, 32, 14.6), p(-66, 78, 14.3), p(-30, 100, 15.0), p(10, 104, 15.1), p(52, 94, 14.2),
             p(86, 60, 12.5), p(92, 30, 12.6), p(94, 24, 14.5), p(92, 26, 16.5)]
    frame = [q + rng.normal(0, 4, 3) for q in frame]
    wide = rng.uniform(16, 23, 14)
    tube(belly, frame, wide, "colon", hu["bowel"] + 5)
    inside = (LABEL["colon"],)
    tube(belly, frame, wide - 2.8, "colon", -30.0, inside)
    line = smooth_line(np.array(frame), 60)
    for n in range(0, 60, 2):
        place = line[n] + rng.normal(0, 3, 3) + np.array([0, -5, 0])
        radius = float(rng.uniform(5, 15)) * belly.s
        gas = rng.random() < 0.6
        belly.blob(place, np.array([radius, radius * 0.8, radius]), "colon", GAS_HU if gas else float(rng.uniform(-150, 60)),
                   only=inside)
    for _ in range(16):
        start = p(float(rng.uniform(-58, 62)), float(rng.uniform(45, 92)), float(rng.uniform(13.7, 17)))
        loop = [start]
        for _ in range(3):
            loop.append(loop[-1] + rng.normal(0, 1, 3) * np.array([26, 14, 12]) * belly.s)
        loop = [np.minimum(q, [1e5, belly.trunk.line.at(15)[1] - 42 * belly.s, 1e5]) for q in loop]
        tube(belly, loop, rng.uniform(9, 13, 4), "small_bowel", hu["bowel"] + float(rng.uniform(-8, 8)))


def paint_belly_wall(belly: Belly) -> None:
    """The white line between the straight muscles: fat and fascia in front."""
    trunk, s = belly.trunk, belly.s
    levels = np.array([10.0, 12.0, 14.0, 16.0])
    z = np.array([trunk.line.z(n) for n in levels])
    front = trunk.section(z, trunk.muscle)
    y = front[1] - front[3]
    for side in (-1, 1):
        line = np.stack([front[0] + side * 68 * s, y + 14 * s, trunk.z_of(y + 14 * s, z)], axis=1)
        found = sweep(belly.canvas, line, 1.2 * s, 7.0 * s, np.tile([side * 1.0, -0.6, 0.0], (4, 1)))
        if found:
            belly.canvas.paint(*found, belly.hu["visceral"], LABEL["visceral_fat"], (LABEL["muscle"],))


def paint_belly(canvas: Canvas, trunk: Trunk, diaphragm: Diaphragm, physique: Physique,
                rng: np.random.Generator) -> None:
    """Everything under the diaphragm but vessels and muscles."""
    belly = Belly(canvas, trunk, diaphragm, physique, rng)
    paint_diaphragm(belly)
    paint_liver(belly)
    paint_stomach(belly)
    paint_kidneys(belly)
    paint_bowel(belly)
    paint_belly_wall(belly)
