"""Vertebrae, discs and spinal canal."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .canvas import Box, Canvas
from .labels import LABEL
from .physique import Physique
from .shapes import along, limb, plate, smooth_max, sweep
from .spine import Vertebra

BODY, POSTERIOR = 1, 2
"""Values of ``Phantom.part``."""

ROI_DEPTH_MM = 5.5
"""Depth below which a body's mean is set to its truth: the default erosion of the measurement."""

TEXTURE_SD_HU = 18.0
"""SD of the trabecular pattern before the scanner's blur."""

WAIST = 0.09
"""How much narrower a body is at mid height."""

_BY_LEVEL = {
    "canal_half": ((-1, 1, 2, 10, 12, 15, 17), (12, 11, 8.8, 8.6, 10.5, 11.8, 13)),
    "canal_depth": ((-1, 1, 5, 12, 15, 17), (14, 15, 15, 15.5, 16, 16)),
    "pedicle_thick": ((1, 3, 5, 8, 11, 12, 13, 15, 17), (8, 6, 5, 6, 8, 8, 7.8, 9.5, 14)),
    "pedicle_high": ((1, 5, 12, 15, 17), (10, 11, 15, 14.5, 13.5)),
    "spinous_length": ((-1, 1, 5, 8, 12, 13, 15, 17), (24, 29, 31, 31, 25, 26, 29, 22)),
    "spinous_down_deg": ((-1, 1, 4, 7, 9, 11, 12, 13, 17), (15, 28, 48, 56, 50, 32, 20, 14, 12)),
    "spinous_high": ((1, 10, 12, 13, 15, 17), (4.5, 5, 7.5, 9, 10, 8)),
    "transverse_tip": ((-1, 1, 3, 8, 10, 11, 12, 13, 14, 15, 16, 17), (27, 34, 30, 29, 27, 23, 20, 33, 38, 42, 40, 39)),
    "facet_radius": ((1, 11, 13, 15), (4.0, 4.4, 5.2, 6.0)),
}
"""Sizes of the arch in mm (degrees) by level number (T1 is 1, L1 is 13): rounded means of adults."""


def arch_size(name: str, vertebra: Vertebra, scale: float) -> float:
    """One size of the arch of a vertebra: mm, degrees where the name says so."""
    return float(np.interp(vertebra.index, *_BY_LEVEL[name])) * (1 if name.endswith("deg") else scale)


def local(box: Box, vertebra: Vertebra) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates left, back and up in the vertebra's own axes, (k, j, i) each."""
    return tuple(along(box.x, box.y, box.z, vertebra.centre, axis) for axis in vertebra.axes)


def body_distance(u: np.ndarray, v: np.ndarray, w: np.ndarray, vertebra: Vertebra, osteophytes: float = 0.0,
                  phase: float = 0.0) -> np.ndarray:
    """Signed distance of a vertebral body in its own axes: waisted, flat behind, with hollow endplates."""
    a, b, h = vertebra.width_mm / 2, vertebra.depth_mm / 1.8, vertebra.height_mm / 2
    v = v - np.float32(0.1 * b)
    level = np.minimum(np.abs(w) / np.float32(h), 1.15)
    waist = 1 - np.float32(WAIST) * np.clip(1 - level * level, 0, 1)
    p, q = np.abs(u) / (a * waist), np.abs(v) / (b * waist)
    if osteophytes > 0:
        spur = _spurs(u, v, level, osteophytes, phase)
        p, q = p / (1 + spur / a), q / (1 + spur / b)
    n = np.where(v < 0, np.float32(2.15), np.float32(3.0))
    p1, q1 = p ** (n - 1), q ** (n - 1)
    power = p1 * p + q1 * q
    side = (power - 1) / (n * np.sqrt((p1 / a) ** 2 + (q1 / b) ** 2 + np.float32(1e-6)))
    hollow = np.float32(1.3) * np.clip(1 - power, 0, 1)
    end = np.abs(w) - (h - hollow)
    back = v - (0.8 * b - np.float32(1.3) * np.clip(1 - (u / (0.55 * a)) ** 2, 0, 1))
    return smooth_max(smooth_max(side, end, 2.0), back, 3.0)


def _spurs(u: np.ndarray, v: np.ndarray, level: np.ndarray, osteophytes: float, phase: float) -> np.ndarray:
    """How far (mm) the rims stand out, in front and at the sides, more at one place than another."""
    angle = np.arctan2(u, -v)
    front = np.clip(np.cos(angle) + 0.6, 0, 1) * np.clip(0.5 + 0.7 * np.sin(2 * angle + phase), 0, 1)
    return np.float32(5.5 * osteophytes) * front * np.exp(-((level - 1) / 0.16) ** 2)


def body_centroid(vertebra: Vertebra, osteophytes: float, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """(3,) centre of mass of a body in LPS mm and (2,) its lowest and highest z, wherever the scan ends."""
    reach = np.array([vertebra.width_mm, vertebra.depth_mm, vertebra.height_mm]) * 0.75
    u, v, w = np.meshgrid(*(np.arange(-r, r, 0.8, dtype=np.float32) for r in reach), indexing="ij")
    inside = body_distance(u, v, w, vertebra, osteophytes, phase) < 0
    points = np.stack([c[inside] for c in (u, v, w)], axis=-1).astype(float) @ vertebra.axes + vertebra.centre
    return points.mean(axis=0), np.array([points[:, 2].min(), points[:, 2].max()])


def _texture(shape: tuple[int, ...], sd_hu: float, rng: np.random.Generator) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (1.5, 0.9, 0.9), truncate=2.5)
    return field * np.float32(sd_hu / max(float(field.std()), 1e-6))


def _body_core(distance: np.ndarray, v: np.ndarray, w: np.ndarray, u: np.ndarray, vertebra: Vertebra, hu: float,
               rng: np.random.Generator) -> np.ndarray:
    """HU of the trabecular bone: its mean below ROI_DEPTH_MM is exactly ``hu``."""
    core = _texture(distance.shape, TEXTURE_SD_HU, rng)
    core += np.float32(70) * np.clip(1 - (vertebra.height_mm / 2 - np.abs(w)) / np.float32(4.0), 0, 1)
    vein = limb(u, v, w, np.array([[0, vertebra.depth_mm * 0.05, 0], [0, vertebra.depth_mm * 0.5, 0]]), (1.0, 2.0),
                (1.0, 3.0), (0, 0, 1))
    core -= np.float32(min(90.0, max(0.0, hu - 20))) * np.clip(0.5 - vein, 0, 1)
    deep = distance < -ROI_DEPTH_MM
    if deep.any():
        core -= core[deep].mean()
    return core + np.float32(hu)


def paint_body(canvas: Canvas, vertebra: Vertebra, physique: Physique, phase: float,
               rng: np.random.Generator) -> None:
    """One vertebral body with its cortex, endplates and, where asked, osteophytes."""
    reach = 0.62 * np.array([vertebra.width_mm, vertebra.depth_mm, vertebra.height_mm]) + 9
    size = np.abs(vertebra.axes.T) @ reach
    box = canvas.box(vertebra.centre - size, vertebra.centre + size)
    if box is None:
        return
    u, v, w = local(box, vertebra)
    distance = body_distance(u, v, w, vertebra, physique.osteophytes, phase)
    if vertebra.index <= 12:
        soft = np.isin(canvas.labels[box.slices], (LABEL["lung_left"], LABEL["lung_right"]))
        canvas.paint(box, np.where(soft, distance - 3.0, 9.0), physique.hu["muscle"], LABEL["muscle"])
    core = _body_core(distance, v, w, u, vertebra, physique.trabecular_hu[vertebra.name], rng)
    at_end = np.abs(w) > vertebra.height_mm / 2 - 3
    thick = physique.cortex * np.where(at_end, 0.85 + 0.5 * physique.osteophytes, 0.7).astype(np.float32)
    canvas.paint_bone(box, distance, LABEL[f"vertebra_{vertebra.name}"], core, 720.0, thick, BODY)


def arch_limbs(vertebra: Vertebra, scale: float) -> list[tuple]:
    """(ends, thick, wide, normal) of pedicles, facets, laminae and processes, in the vertebra's own axes."""
    h, p = vertebra.height_mm, vertebra.depth_mm / 2
    half, deep = arch_size("canal_half", vertebra, scale), arch_size("canal_depth", vertebra, scale)
    pt, ph = arch_size("pedicle_thick", vertebra, scale) / 2, arch_size("pedicle_high", vertebra, scale) / 2
    tip, facet = arch_size("transverse_tip", vertebra, scale), arch_size("facet_radius", vertebra, scale)
    pu, pw, lumbar = half + pt, 0.2 * h, vertebra.index >= 13
    parts: list[tuple] = []
    for s in (-1, 1):
        parts.append((((s * pu * 0.96, p - 5, pw), (s * (pu + 0.5), p + 0.75 * deep, pw * 0.8)), (pt, pt + 0.6),
                      (ph, ph), (1, 0, 0)))
        parts.append((((s * (half + 3), p + 0.85 * deep, 0.1 * h), (s * (half + 5), p + 0.8 * deep, 0.58 * h)),
                      (facet, facet * 0.8), (facet, facet * 0.8), (0, 1, 0)))
        parts.append((((s * (half + 2), p + deep, -0.1 * h), (s * (half + 0.5), p + deep + 2.5, -0.70 * h)),
                      (facet, facet * 0.75), (facet, facet * 0.75), (0, 1, 0)))
        parts.append((((s * (half + 2.5), p + 0.85 * deep, -0.1 * h), (0, p + deep + 4.5, -0.28 * h)), (2.9, 3.2),
                      (0.34 * h, 0.4 * h), (0, 1, 0)))
        parts.append(_transverse(vertebra, s, half, deep, tip, lumbar))
    return parts + _spinous(vertebra, p + deep + 3.0, scale)


def _transverse(vertebra: Vertebra, s: int, half: float, deep: float, tip: float, lumbar: bool) -> tuple:
    p, h = vertebra.depth_mm / 2, vertebra.height_mm
    if lumbar:
        return (((s * (half + 5), p + 0.55 * deep, 0.12 * h), (s * tip, p + 0.75 * deep + 2, 0.12 * h)), (3.2, 1.9),
                (5.0, 4.2), (0, 1, 0))
    back = float(np.interp(vertebra.index, (1, 6, 10, 12), (3, 9, 11, 7)))
    return (((s * (half + 3), p + 0.8 * deep, 0.15 * h), (s * tip, p + 0.8 * deep + back, 0.22 * h)), (4.6, 4.2),
            (5.2, 4.6), (0, 1, 0))


def _spinous(vertebra: Vertebra, start: float, scale: float) -> list[tuple]:
    length, high = arch_size("spinous_length", vertebra, scale), arch_size("spinous_high", vertebra, scale)
    down = np.deg2rad(arch_size("spinous_down_deg", vertebra, scale))
    h = vertebra.height_mm
    end = (0, start + length * np.cos(down), -0.22 * h - length * np.sin(down))
    return [(((0, start, -0.22 * h), end), (2.8, 2.9), (high, high * 0.85), (1, 0, 0))]


def paint_arch(canvas: Canvas, vertebra: Vertebra, physique: Physique) -> None:
    """Pedicles, laminae, facets, transverse and spinous processes of one vertebra."""
    scale, p = physique.scale, vertebra.depth_mm / 2
    tip = arch_size("transverse_tip", vertebra, scale) + 6
    down = 0.75 * vertebra.height_mm + arch_size("spinous_length", vertebra, scale) * 0.9
    corners = np.array([vertebra.point(u, v, w) for u in (-tip, tip) for v in (p - 12, p + 58 * scale)
                        for w in (-down, vertebra.height_mm * 0.95)])
    box = canvas.box(corners.min(axis=0), corners.max(axis=0))
    if box is None:
        return
    distance = np.full(box.shape, 9.0, np.float32)
    u, v, w = local(box, vertebra)
    for ends, thick, wide, normal in arch_limbs(vertebra, scale):
        np.minimum(distance, limb(u, v, w, np.array(ends, float), thick, wide, normal), out=distance)
    own = (canvas.labels[box.slices] == LABEL[f"vertebra_{vertebra.name}"]) & (canvas.part[box.slices] == BODY)
    core = np.float32(physique.trabecular_hu[vertebra.name] + 110)
    distance[own] = np.maximum(distance[own], 0.6)
    canvas.paint_bone(box, distance, LABEL[f"vertebra_{vertebra.name}"], core, 780.0, 1.15 * physique.cortex, POSTERIOR)


def paint_discs(canvas: Canvas, spine: tuple[Vertebra, ...], physique: Physique) -> None:
    """Discs, a little narrower than the bodies that they join."""
    for above, below in zip(spine[:-1], spine[1:], strict=True):
        ends = np.array([above.point(0, 0, -above.height_mm * 0.25), below.point(0, 0, below.height_mm * 0.25)])
        half = max(above.width_mm, below.width_mm)
        box = canvas.box(ends.min(axis=0) - half, ends.max(axis=0) + half)
        if box is None:
            continue
        axes = above.axes + below.axes
        axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        u, v, w = (along(box.x, box.y, box.z, ends.mean(axis=0), axis) for axis in axes)
        size = [(a + b) / 2 for a, b in ((above.width_mm, below.width_mm), (above.depth_mm, below.depth_mm))]
        shape = Vertebra("L1", size[0] * 1.01, size[1] * 1.01, above.disc_mm + 5.0, 0.0, ends.mean(axis=0), axes)
        canvas.paint(box, body_distance(u, v, w, shape), physique.hu["disc"], LABEL["intervertebral_disc"])


def paint_canal(canvas: Canvas, spine: tuple[Vertebra, ...], physique: Physique) -> None:
    """Epidural fat, dural sac and cord along the canal."""
    scale, hu = physique.scale, physique.hu
    half = np.array([arch_size("canal_half", v, scale) for v in spine])
    deep = np.array([arch_size("canal_depth", v, scale) for v in spine])
    line = np.array([v.point(0, v.depth_mm / 2 + d / 2 - 1, 0) for v, d in zip(spine, deep, strict=True)])
    normals = np.array([v.axes[1] for v in spine])
    for name, key, a, b in (("epidural_fat", "visceral", 0.55, 1.06), ("spinal_cord", "csf", 0.42, 0.75)):
        found = sweep(canvas, line, deep * a, half * b, normals)
        if found:
            canvas.paint(*found, hu[key], LABEL[name])
    cord = slice(0, 14)
    found = sweep(canvas, line[cord], deep[cord] * 0.24, half[cord] * 0.45, normals[cord])
    if found:
        canvas.paint(*found, hu["cord"], LABEL["spinal_cord"])


def paint_sacrum(canvas: Canvas, spine: tuple[Vertebra, ...], physique: Physique) -> None:
    """Sacrum and iliac wings, for scans that reach below L4."""
    last, s = spine[-1], physique.scale
    top = last.point(0, 2, -(last.height_mm / 2 + last.disc_mm))
    down, back = np.array([0, 0.55, -0.83]), np.array([0, 0.83, 0.55])
    found = sweep(canvas, np.array([top + down * 6, top + down * 40 * s, top + down * 85 * s]),
                  np.array([15, 12, 6]) * s, np.array([45, 38, 18]) * s, np.array([back] * 3))
    if found:
        canvas.paint_bone(*found, LABEL["sacrum"], physique.trabecular_hu["L5"], 600.0, 1.3)
    for side, name in ((1, "left"), (-1, "right")):
        joint, low = top + np.array([side * 44, 30, -25]) * s, top + np.array([side * 75, -25, -85]) * s
        crest = top + np.array([side * 105, -15, 12]) * s
        front, rear = top + np.array([side * 118, -62, -28]) * s, top + np.array([side * 48, 52, -8]) * s
        corners = np.array([joint, low, crest, front, rear])
        box = canvas.box(corners.min(axis=0) - 12, corners.max(axis=0) + 12)
        if box is None:
            continue
        faces = ((rear, crest, joint), (joint, crest, low), (crest, front, low))
        distance = np.minimum.reduce([plate(box.x, box.y, box.z, np.array(f), 5.0) for f in faces])
        canvas.paint_bone(box, distance, LABEL[f"hip_{name}"], physique.trabecular_hu["L5"] + 30, 750.0, 1.5)


def paint_screws(canvas: Canvas, spine: tuple[Vertebra, ...], scale: float, level: str = "L2") -> list[np.ndarray]:
    """Two titanium pedicle screws; gives their ends (2, 3), which streaks run from."""
    vertebra = next(v for v in spine if v.name == level)
    half = arch_size("canal_half", vertebra, scale) + arch_size("pedicle_thick", vertebra, scale) / 2
    screws = []
    for s in (-1, 1):
        ends = np.array([vertebra.point(s * (half + 5), vertebra.depth_mm / 2 + 22, 0.2 * vertebra.height_mm),
                         vertebra.point(s * half * 0.45, -vertebra.depth_mm * 0.2, 0.12 * vertebra.height_mm)])
        screws.append(ends)
        found = sweep(canvas, ends, 2.8, 2.8)
        if found:
            canvas.paint(*found, 3000.0, LABEL["metal"])
    return screws
