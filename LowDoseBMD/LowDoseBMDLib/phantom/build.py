"""Puts the phantom together."""

from __future__ import annotations

import numpy as np

from ..anatomy import LEVELS
from ..ctvolume import Acquisition, CTVolume
from ..geometry import Geometry
from . import cage, chest, muscles, organs, scanner, trunk, vertebrae
from .canvas import Canvas
from .labels import LABEL
from .model import Phantom, PhantomSpec, PhantomTruth
from .physique import Physique, draw_physique, stream
from .spine import Vertebra, build_spine

MARGIN_MM = 12.0
"""Air beside the widest part of the chest and in front of it."""
APEX_MARGIN_MM = 14.0
"""How far an ordinary scan begins above the top of the first ribs' heads."""
BELOW_BACK_MM = 62.0
"""Room for the table."""
HIGHEST_HU, LOWEST_HU = 3071, -1024


def make_phantom(spec: PhantomSpec) -> Phantom:
    """A synthetic chest CT of one person.

    The same specification always gives the same phantom. The bodies' mean HU (5.5 mm inside their surface)
    and the densities of the truth lie on the specification's scanner_line or, without one, on the two-point line
    v = MD + (S - M)(MD - FD)/(M - F) with the default constants of ``calibration``. Raises ValueError for a scan
    whose top is not above its bottom.
    """
    physique = draw_physique(spec)
    rng = stream(spec, "anatomy")
    spine = build_spine(physique.scale, physique.kyphosis_deg, physique.curvature_deg, rng)
    body = trunk.Trunk(spine, physique, width=float(rng.uniform(0.95, 1.07)), depth=float(rng.uniform(0.93, 1.08)))
    canvas = _canvas(spec, spine, body)
    screws = _paint(spec, canvas, physique, spine, body)
    _scan(spec, canvas, body, screws)
    truth = _truth(spec, canvas, physique, spine)
    acquisition = Acquisition(source="phantom", modality="CT", manufacturer="LowDoseBMD", scanner="phantom", kvp=120.0,
                              kernel=scanner.KERNELS[spec.kernel].name, slice_thickness_mm=float(spec.spacing_mm[2]),
                              field_of_view_mm=float(canvas.step[2] * canvas.hu.shape[2]),
                              contrast_agent="iodine" if spec.contrast_hu else None)
    np.clip(canvas.hu, LOWEST_HU, HIGHEST_HU, out=canvas.hu)
    ct = CTVolume(np.rint(canvas.hu, out=canvas.hu).astype(np.int16), _geometry(canvas), acquisition)
    return Phantom(ct, truth, canvas.labels, canvas.part, spec)


def _height_in(spine: tuple[Vertebra, ...], level: str, fraction: float) -> float:
    vertebra = next(v for v in spine if v.name == level)
    return float(vertebra.point(0, 0, (0.5 - fraction) * vertebra.height_mm)[2])


def _canvas(spec: PhantomSpec, spine: tuple[Vertebra, ...], body: trunk.Trunk) -> Canvas:
    bottom = _height_in(spine, *spec.scan_bottom)
    top = body.line.z(1) + APEX_MARGIN_MM if spec.scan_top is None else _height_in(spine, *spec.scan_top)
    if top <= bottom:
        raise ValueError(f"the scan's top {spec.scan_top} is not above its bottom {spec.scan_bottom}")
    z = np.linspace(bottom, top, 12)
    x, y, half, deep = body.section(np.linspace(bottom, top + 60, 24), body.skin)
    low_x, high_x = (x - half).min() - MARGIN_MM, (x + half).max() + MARGIN_MM
    low_y = (y - deep).min() - MARGIN_MM - 8
    high_y = (y + deep).max() + (BELOW_BACK_MM if spec.couch else MARGIN_MM)
    axes = []
    for low, high, step in zip((low_x, low_y, z[0]), (high_x, high_y, z[-1]), spec.spacing_mm, strict=True):
        axes.append(low + step * (np.arange(max(2, int(np.ceil((high - low) / step)))) + 0.5))
    return Canvas(*axes)


def _geometry(canvas: Canvas) -> Geometry:
    matrix = np.diag([*canvas.step[::-1], 1.0])
    matrix[:3, 3] = [float(axis[0]) for axis in canvas.axes[::-1]]
    return Geometry(canvas.hu.shape, matrix)


def _paint(spec: PhantomSpec, canvas: Canvas, physique: Physique, spine: tuple[Vertebra, ...],
           body: trunk.Trunk) -> list[np.ndarray]:
    rng = stream(spec, "organs")
    diaphragm = trunk.Diaphragm(body, rng)
    trunk.paint_trunk(canvas, body, physique, spec.sex)
    trunk.paint_lungs(canvas, body, diaphragm, spine, physique.hu["lung"])
    organs.paint_belly(canvas, body, diaphragm, physique, rng)
    muscles.paint_psoas(canvas, spine, physique, bulk=(0.88 if spec.sex == "f" else 1.0) * float(rng.uniform(0.85, 1.15)))
    muscles.paint_fascia(canvas, body, physique, rng)
    muscles.paint_back_muscles(canvas, body, spine, physique)
    chest.paint_chest(canvas, body, physique, stream(spec, "chest"))
    cage.paint_ribs(canvas, body, spine, physique, twelfth=float(rng.uniform(0.5, 1.0)))
    cage.paint_sternum(canvas, body, physique)
    cage.paint_girdle(canvas, body, physique)
    vertebrae.paint_discs(canvas, spine, physique)
    vertebrae.paint_canal(canvas, spine, physique)
    bone = stream(spec, "bone")
    for vertebra, phase in zip(spine, _spur_phases(spec, spine), strict=True):
        vertebrae.paint_body(canvas, vertebra, physique, phase, bone)
    for vertebra in spine:
        vertebrae.paint_arch(canvas, vertebra, physique)
    vertebrae.paint_sacrum(canvas, spine, physique)
    return vertebrae.paint_screws(canvas, spine, physique.scale) if spec.metal else []


def _spur_phases(spec: PhantomSpec, spine: tuple[Vertebra, ...]) -> list[float]:
    return stream(spec, "spurs").uniform(0, 2 * np.pi, len(spine)).tolist()


def _scan(spec: PhantomSpec, canvas: Canvas, body: trunk.Trunk, screws: list[np.ndarray]) -> None:
    rng, kernel = stream(spec, "noise"), scanner.KERNELS[spec.kernel]
    if spec.couch:
        filled = np.flatnonzero((canvas.labels[:, :, canvas.labels.shape[2] // 2] > 0).any(axis=0))
        scanner.paint_couch(canvas, float(canvas.axes[1][filled.max()]) if filled.size else 100.0)
    scanner.add_metal_streaks(canvas, screws, rng)
    scanner.blur(canvas.hu, spec.spacing_mm, kernel)
    if spec.noise_hu <= 0:
        return
    area = np.count_nonzero((canvas.labels > 0) & (canvas.labels != LABEL["couch"]), axis=(1, 2)).astype(float)
    scanner.add_noise(canvas.hu, spec.spacing_mm, kernel, spec.noise_hu, area / area.max(), rng)
    z = canvas.axes[0]
    wide = np.clip((z - body.line.z(3.5)) / max(body.line.z(1) - body.line.z(3.5), 1), 0, 1.2)
    scanner.add_streaks(canvas.hu, spec.spacing_mm, wide, 1.1 * spec.noise_hu, rng)


def _truth(spec: PhantomSpec, canvas: Canvas, physique: Physique, spine: tuple[Vertebra, ...]) -> PhantomTruth:
    z, step = canvas.axes[0], canvas.step[0]
    low, high = float(z[0]) - step / 2, float(z[-1]) + step / 2
    centres, complete = {}, {}
    for vertebra, phase in zip(spine, _spur_phases(spec, spine), strict=True):
        centre, reach = vertebrae.body_centroid(vertebra, physique.osteophytes, phase)
        if reach[1] > low + step and reach[0] < high - step:
            centres[vertebra.name] = tuple(float(c) for c in centre)
            complete[vertebra.name] = bool(reach[0] >= low + step and reach[1] <= high - step)
    vbmd = {level: physique.vbmd_mg_cm3[level] for level in LEVELS if level in centres}
    hu = {level: physique.trabecular_hu[level] for level in centres}
    return PhantomTruth(vbmd, hu, centres, complete, physique.hu["muscle"], physique.hu["fat"], physique.muscle_mg_cm3,
                        physique.fat_mg_cm3)
