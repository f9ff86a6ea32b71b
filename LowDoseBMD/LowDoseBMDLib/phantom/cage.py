"""Ribs and their cartilages, sternum, clavicles, scapulae, heads of the humeri."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import limb, plate, smooth_line, sweep
from .spine import Vertebra
from .trunk import Trunk
from .vertebrae import arch_size

RIB_END_DEG = (150, 152, 151, 149, 147, 144, 140, 130, 119, 106, 84, 52)
"""Where each rib's bone ends on its way round the chest: 90 is the side, 180 the front."""

RIB_EXTRA_DROP_MM = (-22, -27, -23, -16, -11, -8, -5, -1, 4, 12, 40, 46)
"""How far each rib's end lies below the plane in which it begins."""

BACK_DROP_MM, BACK_DROP_DEG = 19.0, 62.0
"""How far ribs 2 to 10 fall behind the chest, before they turn forward, and over which angle."""

NOTCH_LEVELS = (0.75, 1.65, 2.4, 3.1, 3.75, 4.3, 4.7)
"""Planes (level numbers) in which the cartilages of ribs 1 to 7 reach the sternum."""

SIDE_NAMES = ((1, "left"), (-1, "right"))


def rib_start(vertebrae: dict[str, Vertebra], number: int, side: int, scale: float) -> np.ndarray:
    """(3, 3): head of a rib at its vertebra, its neck, and its tubercle before the transverse process."""
    v = vertebrae[f"T{number}"]
    joint = 0.12 if number in (1, 11, 12) else 0.42
    tip, deep = arch_size("transverse_tip", v, scale), arch_size("canal_depth", v, scale)
    back = float(np.interp(number, (1, 6, 10, 12), (3, 9, 11, 7)))
    if number > 10:
        tip, deep = v.width_mm / 2 + 11 * scale, deep * 0.6
    head = v.point(side * (v.width_mm * 0.46 + 2), v.depth_mm * 0.40, joint * v.height_mm)
    tubercle = v.point(side * (tip + 3.0), v.depth_mm / 2 + 0.8 * deep + back - 6.5, 0.16 * v.height_mm)
    neck = head * 0.45 + tubercle * 0.55 + np.array([0, -1.0, 1.0])
    return np.array([head, neck, tubercle])


def rib_plane(trunk: Trunk, number: int, t: np.ndarray) -> np.ndarray:
    """Plane (zeta) of a rib along its bone, t from 0 to 1."""
    begin = trunk.line.z(number) - 7 * trunk.scale
    if number > 10:
        return begin - RIB_EXTRA_DROP_MM[number - 1] * trunk.scale * t ** 0.9
    lateral = np.clip(t * (RIB_END_DEG[number - 1] - 27) / BACK_DROP_DEG, 0, 1)
    back = (7 if number == 1 else BACK_DROP_MM) * np.sin(lateral * np.pi / 2)
    return begin - (back + RIB_EXTRA_DROP_MM[number - 1] * t ** 1.5) * trunk.scale


def rib_line(trunk: Trunk, vertebrae: dict[str, Vertebra], number: int, side: int) -> np.ndarray:
    """(N, 3) centre line of a rib's bone from its head to its end."""
    first = {1: 40.0, 11: 24.0, 12: 20.0}.get(number, 27.0)
    theta = np.linspace(first, RIB_END_DEG[number - 1], 14)
    t = (theta - first) / (theta[-1] - first)
    shaft = trunk.point(side, theta, rib_plane(trunk, number, t))
    start = rib_start(vertebrae, number, side, trunk.scale)
    return smooth_line(np.vstack([start, shaft]), 34 if number < 11 else 22)


def _outward(trunk: Trunk, line: np.ndarray) -> np.ndarray:
    """Directions away from the chest's axis."""
    spine_x, spine_y = trunk.line.xy_at(line[:, 2])
    return np.stack([line[:, 0] - spine_x, (line[:, 1] - (spine_y - 45 * trunk.scale)) * 1.3,
                     np.full(len(line), 12.0)], axis=1)


def paint_ribs(canvas: Canvas, trunk: Trunk, spine: tuple[Vertebra, ...], physique: Physique,
               twelfth: float) -> None:
    """All ribs with their cartilages. twelfth: length of the last rib relative to the usual one."""
    vertebrae = {v.name: v for v in spine}
    s = trunk.scale
    for side, name in SIDE_NAMES:
        previous = None
        for number in range(1, 13):
            line = rib_line(trunk, vertebrae, number, side)
            if number == 12:
                line = line[: max(8, int(len(line) * twelfth))]
            if number <= 10:
                previous = _cartilage_line(trunk, number, side, line[-1], previous)
                _paint_cartilage(canvas, previous, trunk, physique)
            t = np.linspace(0, 1, len(line))
            high = (5.2 + 1.2 * np.sin(np.pi * np.clip(t * 1.2, 0, 1))) * s * (0.75 if number == 12 else 1)
            thick = np.interp(t, (0, 0.1, 0.2, 0.9, 1), (3.6, 3.2, 3.9, 3.4, 3.2)) * s * (0.85 if number > 10 else 1)
            if number == 1:
                thick, high = high * 0.65, thick * 0.95 + 2
            found = sweep(canvas, line, thick, high, _outward(trunk, line))
            if found:
                canvas.paint_bone(*found, LABEL[f"rib_{name}_{number}"], 130.0, 850.0, 1.1 * physique.cortex)


def _cartilage_line(trunk: Trunk, number: int, side: int, end: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    if number > 7:
        target = previous[int(len(previous) * 0.35)]
        middle = (end + target) / 2 + np.array([0, -4.0, -3.0])
        return smooth_line(np.array([end, middle, target]), 10)
    theta = np.linspace(RIB_END_DEG[number - 1], 166, 8)
    t = (theta - theta[0]) / (theta[-1] - theta[0])
    begin = rib_plane(trunk, number, np.array([1.0]))[0]
    zeta = begin + (trunk.line.z(NOTCH_LEVELS[number - 1]) - begin) * t ** 1.2
    line = trunk.point(side, theta, zeta)
    line[:, 1] += 1.0
    edge = np.sign(side) * _sternum_half(number) * trunk.scale
    line[-1, 0] = trunk.section(zeta[-1:], trunk.muscle)[0][0] + edge
    return smooth_line(np.vstack([end, line[1:]]), 16)


def _sternum_half(number: int) -> float:
    return float(np.interp(number, (1, 2, 3, 7), (25, 17, 15, 14)))


def _paint_cartilage(canvas: Canvas, line: np.ndarray, trunk: Trunk, physique: Physique) -> None:
    found = sweep(canvas, line, 4.0 * trunk.scale, 6.2 * trunk.scale, _outward(trunk, line))
    if found:
        canvas.paint(*found, physique.hu["cartilage"], LABEL["costal_cartilage"])


def paint_sternum(canvas: Canvas, trunk: Trunk, physique: Physique) -> None:
    """Manubrium and body of the sternum."""
    levels = np.array([0.4, 0.75, 1.2, 1.6, 1.75, 2.4, 3.2, 4.0, 4.75, 5.1])
    half = np.array([23, 27, 23, 17, 16, 15, 16, 18, 15, 8]) * trunk.scale
    line = trunk.point(1, np.full(len(levels), 180.0), np.array([trunk.line.z(n) for n in levels]))
    found = sweep(canvas, line, 5.0 * trunk.scale, half, np.tile([0.0, -1.0, 0.35], (len(line), 1)))
    if found:
        canvas.paint_bone(*found, LABEL["sternum"], 110.0, 520.0, 0.8 * physique.cortex)


def shoulder_points(trunk: Trunk, side: int) -> dict[str, np.ndarray]:
    """Landmarks of one scapula and clavicle with the arms raised, LPS mm."""
    line, s = trunk.line, trunk.scale
    joint = np.array([side * 112 * s, line.at(1)[1] + 0 * s, line.z(1.3)])
    return {
        "inferior": trunk.point(side, 60.0, line.z(7.2), 9.0 * s),
        "root": trunk.point(side, 36.0, line.z(3.2), 13.0 * s),
        "superior": trunk.point(side, 42.0, line.z(1.9), 15.0 * s),
        "neck": joint + np.array([-side * 14, 7, -8]) * s,
        "joint": joint,
        "acromion": joint + np.array([side * 12, 20, 22]) * s,
        "coracoid": joint + np.array([-side * 10, -26, 6]) * s,
        "sternal": trunk.point(side, 180.0, line.z(0.46)) + np.array([side * 27, 2, 4]) * s,
        "humerus": joint + np.array([side * 25, -7, 14]) * s,
        "elbow": joint + np.array([side * 52, -24, 150]) * s,
    }


def paint_scapula(canvas: Canvas, trunk: Trunk, physique: Physique, side: int, name: str) -> None:
    """Blade, borders, spine with acromion, glenoid and coracoid of one scapula."""
    p, s = shoulder_points(trunk, side), trunk.scale
    corners = np.array([p[k] for k in ("inferior", "root", "superior", "neck", "joint", "acromion", "coracoid")])
    box = canvas.box(corners.min(axis=0) - 26, corners.max(axis=0) + 26)
    if box is None:
        return
    x, y, z = box.x, box.y, box.z
    distance = np.minimum(plate(x, y, z, np.array([p["inferior"], p["root"], p["neck"]]), 1.5 * s),
                          plate(x, y, z, np.array([p["superior"], p["root"], p["neck"]]), 1.5 * s))
    ridge = p["root"] * 0.25 + p["neck"] * 0.75 + np.array([0, 16, 6]) * s
    pieces = (
        ("inferior", "neck", (2.6, 4.5), (4.2, 6.5)), ("inferior", "root", (2.6, 2.4), (2.6, 2.4)),
        ("root", "superior", (2.2, 2.6), (2.2, 2.6)), ("neck", "joint", (8.0, 11.0), (10.0, 15.0)),
        ("neck", "coracoid", (6.0, 5.0), (6.0, 5.0)),
    )
    for a, b, thick, wide in pieces:
        part = limb(x, y, z, np.array([p[a], p[b]]), np.array(thick) * s, np.array(wide) * s, (1, 0, 0))
        np.minimum(distance, part, out=distance)
    for a, b, thick, wide in ((p["root"], ridge, (2, 3.5), (3, 8)), (ridge, p["acromion"], (3.5, 4.5), (8, 10))):
        part = limb(x, y, z, np.array([a, b]), np.array(thick) * s, np.array(wide) * s, (0.2, 0.2, 1))
        np.minimum(distance, part, out=distance)
    distance = np.minimum(distance, plate(x, y, z, np.array([p["root"], ridge, p["neck"]]), 1.6 * s))
    sheet = np.abs(distance - np.float32(10 * s)) - np.float32(0.6)
    canvas.paint(box, sheet, physique.hu["visceral"], LABEL["muscle"], (LABEL["muscle"],))
    cup = limb(x, y, z, np.array([p["humerus"], p["humerus"] + 1]), (24.5 * s,) * 2, (24.5 * s,) * 2)
    canvas.paint_bone(box, np.maximum(distance, -cup), LABEL[f"scapula_{name}"], 140.0, 820.0, 1.1 * physique.cortex)


def paint_clavicle(canvas: Canvas, trunk: Trunk, physique: Physique, side: int, name: str) -> None:
    """One clavicle: an S from the manubrium to the acromion."""
    p, s = shoulder_points(trunk, side), trunk.scale
    first, last = p["sternal"], p["acromion"] + np.array([-side * 4, -11, 1]) * s
    way = last - first
    line = smooth_line(np.array([first, first + way * 0.35 + np.array([0, -9, 5]) * s,
                                 first + way * 0.72 + np.array([0, 6, 7]) * s, last]), 22)
    t = np.linspace(0, 1, len(line))
    thick = np.interp(t, (0, 0.15, 0.5, 0.85, 1), (9, 6.5, 5.2, 4.8, 5)) * s
    wide = np.interp(t, (0, 0.15, 0.5, 0.85, 1), (10, 6.8, 5.6, 8, 9)) * s
    found = sweep(canvas, line, thick, wide, np.tile([0.0, 0.0, 1.0], (len(line), 1)))
    if found:
        canvas.paint_bone(*found, LABEL[f"clavicle_{name}"], 140.0, 820.0, 1.2 * physique.cortex)


def paint_humerus(canvas: Canvas, trunk: Trunk, physique: Physique, side: int, name: str) -> None:
    """Head and shaft of one raised humerus."""
    p, s = shoulder_points(trunk, side), trunk.scale
    way = (p["elbow"] - p["humerus"]) / np.linalg.norm(p["elbow"] - p["humerus"])
    line = np.array([p["humerus"], p["humerus"] + way * 22 * s, p["humerus"] + way * 48 * s, p["elbow"]])
    found = sweep(canvas, line, np.array([22.5, 20, 12.5, 11]) * s, np.array([22.5, 20, 12.5, 11]) * s, margin_mm=14.0)
    if found:
        sheet = np.abs(found[1] - np.float32(8 * s)) - np.float32(0.8)
        canvas.paint(found[0], sheet, physique.hu["visceral"], LABEL["muscle"], (LABEL["muscle"],))
        canvas.paint_bone(*found, LABEL[f"humerus_{name}"], 70.0, 900.0, np.float32(1.4 * physique.cortex))


def paint_girdle(canvas: Canvas, trunk: Trunk, physique: Physique) -> None:
    """Scapulae, clavicles and, where drawn, humeri."""
    for side, name in SIDE_NAMES:
        paint_scapula(canvas, trunk, physique, side, name)
        paint_clavicle(canvas, trunk, physique, side, name)
        if physique.humeri:
            paint_humerus(canvas, trunk, physique, side, name)
