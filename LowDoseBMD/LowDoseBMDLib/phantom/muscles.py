"""Muscles that are measured or that lie beside the spine, and the crura of the diaphragm."""

from __future__ import annotations

import numpy as np

from .cage import SIDE_NAMES
from .canvas import Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import sweep
from .spine import Vertebra
from .trunk import Trunk, even
from .vertebrae import arch_size

FASCIA_MM = 1.6
"""Fat between muscle groups, which shows them apart."""

RETROPERITONEAL_MM = 5.0
"""Fat between psoas and the organs before it."""

PSOAS = {
    "T12": (2.0, 8.0, -0.5, 2.5, 3.0), "L1": (5.0, 6.0, -0.1, 5.5, 7.5), "L2": (9.0, 4.0, 0.0, 10.0, 12.5),
    "L3": (15.0, 1.0, 0.0, 14.0, 16.0), "L4": (20.0, -5.0, 0.0, 17.0, 18.5), "L5": (27.0, -18.0, -0.2, 18.0, 18.5),
}
"""By level: distance beside the body, behind its centre, up (in body heights), half axes across and along y, mm."""


def psoas_line(vertebrae: dict[str, Vertebra], side: int, scale: float, bulk: float) -> tuple[np.ndarray, ...]:
    """Centre line (N, 3) and half axes of one psoas."""
    points, across, along_y = [], [], []
    for level, (beside, back, up, a, b) in PSOAS.items():
        v = vertebrae[level]
        points.append(v.point(side * (v.width_mm * 0.46 + beside * scale * bulk), back * scale, up * v.height_mm))
        across.append(a * scale * bulk)
        along_y.append(b * scale * bulk)
    t = np.linspace(0, len(points) - 1, 16)
    n = np.arange(len(points))
    line = np.stack([np.interp(t, n, np.array(points)[:, c]) for c in range(3)], axis=1)
    return line, np.interp(t, n, across), np.interp(t, n, along_y)


def erector_line(spine: tuple[Vertebra, ...], side: int, scale: float) -> tuple[np.ndarray, ...]:
    """Centre line, half axes front to back and across, of the erector spinae of one side."""
    points, deep, wide = [], [], []
    for v in spine:
        n = v.index
        beside = np.interp(n, (-1, 2, 6, 12, 14, 17), (17, 19, 20, 25, 30, 30)) * scale
        a = np.interp(n, (-1, 2, 6, 10, 12, 14, 17), (11, 9, 8, 10, 14, 17, 17)) * scale
        lamina = np.interp(n, (-1, 4, 9, 12, 14), (5, 8, 8, 8, 9)) * scale
        back = v.depth_mm / 2 + arch_size("canal_depth", v, scale) + lamina
        points.append(v.point(side * beside, back + a * 0.35, 0))
        deep.append(a)
        wide.append(np.interp(n, (-1, 2, 6, 12, 14, 17), (15, 16, 17, 21, 25, 25)) * scale)
    return np.array(points), np.array(deep), np.array(wide)


def paint_back_muscles(canvas: Canvas, trunk: Trunk, spine: tuple[Vertebra, ...], physique: Physique) -> None:
    """Erector spinae and quadratus lumborum of both sides, each in a thin layer of fat."""
    s, hu = trunk.scale, physique.hu
    normals = np.array([v.axes[1] for v in spine])
    for side, name in SIDE_NAMES:
        line, deep, wide = erector_line(spine, side, s)
        found = sweep(canvas, line, deep, wide, normals)
        if found:
            canvas.paint(found[0], found[1] - np.float32(FASCIA_MM), 0.5 * (hu["fat"] + hu["muscle"]),
                         LABEL["muscle"], only=(LABEL["muscle"],))
            canvas.paint(*found, hu["paraspinal"], LABEL[f"erector_spinae_{name}"],
                         only=(LABEL["muscle"], LABEL["subcutaneous_fat"]))
        _paint_quadratus(canvas, spine, side, name, physique)


def _paint_quadratus(canvas: Canvas, spine: tuple[Vertebra, ...], side: int, name: str, physique: Physique) -> None:
    s, points = physique.scale, []
    for v in spine:
        if v.index >= 13:
            tip = arch_size("transverse_tip", v, s)
            points.append(v.point(side * (tip + (v.index - 11) * 4.5 * s), v.depth_mm / 2 + 10 * s, 0))
    n = len(points)
    found = sweep(canvas, np.array(points), np.linspace(4, 8, n) * s, np.linspace(9, 17, n) * s,
                  np.tile([side * 0.35, 1.0, 0.0], (n, 1)))
    if found:
        canvas.paint(*found, physique.hu["paraspinal"], LABEL[f"quadratus_lumborum_muscle_{name}"],
                     only=(LABEL["muscle"], LABEL["visceral_fat"]))


def paint_fascia(canvas: Canvas, trunk: Trunk, physique: Physique, rng: np.random.Generator) -> None:
    """Sheets of fat between the layers of the chest wall and of the belly's wall, thicker here and there."""
    s, only = trunk.scale, (LABEL["muscle"],)
    phase = rng.uniform(0, 2 * np.pi, 6)
    for box in canvas.slabs():
        wall = trunk.distance(box, even(5.5 * s))
        wave = np.sin(box.x / 23 + phase[0]) * np.sin(box.z / 31 + phase[1]) + np.sin(box.y / 19 + phase[2] + box.z / 40)
        thick = np.float32(0.35) + np.float32(0.9) * np.clip(0.5 + 0.5 * wave.astype(np.float32), 0, 2)
        canvas.paint(box, np.abs(wall) - thick, physique.hu["visceral"], LABEL["muscle"], only)
        if float(box.z.min()) > trunk.line.z(6.5):
            outer = np.abs(wall - np.float32(13 * s)) - thick
            canvas.paint(box, outer, physique.hu["visceral"], LABEL["muscle"], only)


def paint_psoas(canvas: Canvas, spine: tuple[Vertebra, ...], physique: Physique, bulk: float) -> None:
    """Both psoas muscles from T12-L1 downwards, and the crura in front of T12 to L2."""
    vertebrae = {v.name: v for v in spine}
    s, hu = physique.scale, physique.hu
    organs = tuple(LABEL[name] for name in ("kidney_left", "kidney_right", "liver", "spleen", "pancreas", "colon",
                                            "small_bowel", "other_vein"))
    for side, name in SIDE_NAMES:
        line, across, along_y = psoas_line(vertebrae, side, s, bulk)
        found = sweep(canvas, line, across, along_y, np.tile([1.0, 0.0, 0.0], (len(line), 1)), margin_mm=8.0)
        if found:
            canvas.paint(found[0], found[1] - np.float32(RETROPERITONEAL_MM), hu["visceral"], LABEL["visceral_fat"], organs)
            canvas.paint(*found, hu["muscle"], LABEL[f"psoas_{name}"])
        crus = np.array([vertebrae[level].point(side * x * s, -vertebrae[level].depth_mm / 2 - y * s, 0)
                         for level, x, y in (("T11", 17, 10), ("T12", 15, 6), ("L1", 13, 3), ("L2", 9, 2))])
        found = sweep(canvas, crus, np.array([4, 4.5, 4, 2.5]) * s, np.array([6, 7, 6, 4]) * s,
                      np.tile([0.0, 1.0, 0.0], (4, 1)))
        if found:
            canvas.paint(*found, hu["muscle"], LABEL["muscle"], only=(LABEL["visceral_fat"],))
