"""Heart, great vessels, airways, gullet, and the vessels of the lungs."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import ellipsoid, limb, smooth_line, sweep, unit
from .trunk import Trunk

LUNGS = (LABEL["lung_left"], LABEL["lung_right"])
LOOSE = (*LUNGS, LABEL["visceral_fat"])
AIRWAY_HU = -985.0


class Chest:
    """Places in the chest: x from the spine, forward of the vertebral centre, level number."""

    def __init__(self, canvas: Canvas, trunk: Trunk, physique: Physique, rng: np.random.Generator) -> None:
        self.canvas, self.trunk, self.rng, self.hu, self.s = canvas, trunk, rng, physique.hu, trunk.scale

    def place(self, x: float, forward: float, number: float) -> np.ndarray:
        centre = self.trunk.line.at(number)
        return np.array([centre[0] * 0.8 + x * self.s, centre[1] - forward * self.s, centre[2]])

    def tube(self, points: list[tuple[float, float, float]], radii: list[float], label: str, hu: float,
             coat: str | None = None, only: tuple[int, ...] | None = None) -> None:
        """A vessel along a smooth line; coat: a layer of mediastinal fat where it borders on lung."""
        line = smooth_line(np.array([self.place(*p) for p in points]), 5 * len(points))
        at = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(radii)), np.array(radii) * self.s)
        found = sweep(self.canvas, line, at, at, margin_mm=5.0)
        if found is None:
            return
        if coat:
            self.canvas.paint(found[0], found[1] - 2.5, self.hu["visceral"], LABEL["visceral_fat"], LUNGS)
        self.canvas.paint(*found, hu, LABEL[label], only)


def paint_heart(chest: Chest) -> None:
    """Heart in its fat: ventricles and the atria behind them."""
    s, hu = chest.s, chest.hu
    axes = np.array([unit([0.78, -0.50, -0.38]), unit([0.5, 0.85, -0.1]), [0, 0, 1]])
    axes[1] = unit(axes[1] - axes[0] * (axes[0] @ axes[1]))
    axes[2] = np.cross(axes[0], axes[1])
    parts = ((chest.place(25, 88, 8.6), np.array([57, 42, 38]) * s, axes),
             (chest.place(-8, 66, 7.8), np.array([40, 36, 36]) * s, None),
             (chest.place(4, 50, 7.3), np.array([34, 20, 24]) * s, None))
    for more, label, value, only in ((4.5, "visceral_fat", hu["visceral"], LUNGS), (0.0, "heart", hu["heart"], LOOSE)):
        for centre, radii, own in parts:
            reach = np.full(3, radii.max() + 8)
            box = chest.canvas.box(centre - reach, centre + reach)
            if box is not None:
                distance = ellipsoid(box.x, box.y, box.z, centre, radii + more, own)
                chest.canvas.paint(box, distance, value, LABEL[label], only)


def paint_vessels(chest: Chest) -> None:
    """Aorta, caval veins, pulmonary arteries and the branches of the arch."""
    hu, t = chest.hu, chest.tube
    t([(-16, 62, 5.2), (-22, 58, 6.4)], [10, 10], "superior_vena_cava", hu["vein"], "fat")
    t([(-24, 52, 3.2), (-18, 60, 4.6), (-20, 60, 5.6), (-22, 58, 6.8)], [8, 9, 10, 10.5], "superior_vena_cava", hu["vein"],
      "fat")
    t([(30, 50, 2.0), (10, 62, 3.0), (-20, 57, 3.6)], [7, 7.5, 8], "other_vein", hu["vein"], "fat")
    t([(14, 82, 6.6), (14, 70, 5.9), (24, 46, 5.7), (40, 34, 6.1)], [14, 13, 11.5, 9], "pulmonary_artery", hu["heart"],
      "fat")
    t([(8, 62, 5.9), (-16, 50, 5.9), (-40, 36, 6.4)], [12, 11, 8.5], "pulmonary_artery", hu["heart"], "fat")
    t([(0, 72, 7.2), (-8, 74, 6.2), (-8, 70, 5.0), (2, 56, 4.1), (14, 38, 4.0), (21, 22, 4.5), (23, 20, 5.5), (22, 24, 7.5),
       (18, 28, 9.5), (11, 32, 11.5), (7, 33, 13), (5, 32, 14.5), (4, 31, 16)],
      [15, 16, 15.5, 14.5, 13.5, 13, 12.8, 12.4, 11.8, 11, 10.2, 9.3, 8.6], "aorta", hu["blood"], "fat")
    for line in ([(-6, 54, 3.9), (-10, 46, 2.4), (-22, 38, 1.0)], [(6, 48, 3.8), (12, 36, 2.2), (15, 36, 0.2)],
                 [(14, 38, 3.8), (22, 24, 2.2), (40, 26, 1.2)]):
        t(line, [6, 5, 4.2], "other_artery", hu["blood"], "fat")
    t([(-24, 52, 9.2), (-24, 44, 10.5), (-22, 36, 12), (-19, 33, 13.5), (-17, 32, 15), (-14, 30, 16.5)],
      [12, 12, 11.5, 11, 10.5, 10], "inferior_vena_cava", hu["vein"])
    t([(5, 40, 12.6), (3, 60, 12.9)], [4, 3.2], "other_artery", hu["blood"], None, (LABEL["visceral_fat"],))
    t([(5, 40, 13.2), (5, 56, 14.0), (8, 62, 16.5)], [4, 4, 3.5], "other_artery", hu["blood"], None,
      (LABEL["visceral_fat"], LABEL["small_bowel"]))


def paint_airways(chest: Chest) -> None:
    """Trachea, main bronchi and gullet."""
    t, hu = chest.tube, chest.hu
    t([(2, 24, -0.5), (3, 20, 2), (6, 20, 4.5), (9, 26, 7), (14, 40, 9.2), (24, 56, 10.4), (34, 60, 11.0)],
      [6.5, 6.5, 6.5, 7, 7, 8, 9], "oesophagus", hu["muscle"] - 14)
    t([(2, 24, 1.2), (4, 21, 2.8)], [2.0, 1.2], "oesophagus", -700.0)
    ways = [([(0, 40, -1), (0, 34, 1), (-1, 32, 3), (-1, 33, 4.6)], [9, 9, 9, 9.5]),
            ([(-1, 33, 4.5), (-18, 32, 5.3), (-34, 28, 6.2)], [8.5, 7.5, 6]),
            ([(-1, 33, 4.5), (16, 34, 5.5), (36, 28, 6.4)], [8.5, 7, 5.5])]
    for points, radii in ways:
        t(points, [r + 1.6 for r in radii], "trachea", hu["muscle"] - 14)
    for points, radii in ways:
        t(points, radii, "trachea", AIRWAY_HU)


def _branches(chest: Chest, start: np.ndarray, way: np.ndarray, radius: float, length: float, depth: int,
              found: list[tuple[np.ndarray, float, float]]) -> None:
    rng = chest.rng
    end = start + way * length
    found.append((np.array([start, end]), radius, radius * 0.82))
    if depth == 0:
        return
    for _ in range(2):
        turn = unit(way + rng.normal(0, 0.45, 3))
        _branches(chest, end, turn, radius * float(rng.uniform(0.62, 0.8)), length * float(rng.uniform(0.7, 0.95)),
                  depth - 1, found)


def paint_lung_vessels(chest: Chest) -> None:
    """Branching vessels from both hila, only inside the lungs."""
    s, canvas, pieces = chest.s, chest.canvas, []
    for side in (-1, 1):
        hilum = chest.place(side * 40, 34, 6.2)
        targets = [(0.5, -0.2, 1.0), (0.8, -0.7, 0.6), (0.9, 0.5, 0.5), (1.0, -0.3, -0.1), (0.5, -0.9, 0.0),
                   (0.6, 0.4, -0.7), (0.5, 0.7, -0.6), (0.5, -0.3, -1.0), (0.3, 0.2, -1.0)]
        for way in targets:
            _branches(chest, hilum, unit(np.array(way) * [side, 1, 1] + chest.rng.normal(0, 0.12, 3)), 4.3 * s, 26 * s, 5,
                      pieces)
    for ends, first, last in pieces:
        reach = first + 1.5
        box = canvas.box(ends.min(axis=0) - reach, ends.max(axis=0) + reach)
        if box is None:
            continue
        distance = limb(box.x, box.y, box.z, ends, (first, last), (first, last))
        lung = np.isin(canvas.labels[box.slices], LUNGS)
        view = canvas.hu[box.slices]
        view += canvas.cover(distance) * lung * (chest.hu["vein"] - view)


def paint_neck(chest: Chest) -> None:
    """Fat round the vessels and gullet above the lungs, thyroid, and muscles of the neck."""
    hu, loose = chest.hu, (LABEL["muscle"],)
    for side in (-1, 1):
        chest.tube([(side * 26, 34, -2.5), (side * 26, 36, 0), (side * 30, 34, 1.5)], [9, 11, 12], "visceral_fat",
                   hu["visceral"], only=loose)
        chest.tube([(side * 13, 40, -0.6), (side * 12, 41, 0.8)], [7, 9], "muscle", hu["muscle"] + 40)
        chest.tube([(side * 24, 36, -2.5), (side * 22, 40, 0.5), (side * 20, 48, 2.2)], [5, 5.5, 6], "other_vein",
                   hu["vein"])
        chest.tube([(side * 17, 34, -2.5), (side * 18, 36, 0.5)], [3.6, 4], "other_artery", hu["blood"])
        chest.tube([(side * 60, 20, 0.6), (side * 74, 4, 2.2), (side * 88, 10, 4.2)], [10, 14, 12], "visceral_fat",
                   hu["visceral"], only=loose)
        chest.tube([(side * 46, -22, 0.6), (side * 52, -22, 3)], [6, 5], "visceral_fat", hu["visceral"], only=loose)


def paint_chest(canvas: Canvas, trunk: Trunk, physique: Physique, rng: np.random.Generator) -> None:
    """Everything between and inside the lungs."""
    chest = Chest(canvas, trunk, physique, rng)
    paint_lung_vessels(chest)
    paint_neck(chest)
    paint_heart(chest)
    paint_vessels(chest)
    paint_airways(chest)
