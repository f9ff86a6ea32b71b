"""What may go wrong with a scan, done to a CT and to its truth together, so that the scores say what holds.

Amounts are judgement: what is met in low-dose chest CT, strong enough to be seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry, resample
from LowDoseBMDLib.rois import Keypoint, Mask
from scipy import ndimage

from .cases import Labels
from .people import with_density

AIR_HU = -1000
NOISE_SD_HU = 40.0
"""Added to the scan's own noise; low-dose chest CT in a sharp kernel has 40 to 70 HU."""
THICK_MM = 5.0
OFFSET_HU = 60.0
"""About what intravenous contrast, or another tube voltage, does to bone marrow."""
DENSER = 2.0
"""The ribs of LIDC-IDRI-0314 have twice the HU of those of LIDC-IDRI-0001."""
SCALE = 0.85
"""A person smaller by this factor."""
ROLL_DEGREES, LEAN_DEGREES = 10.0, 5.0
"""Turned about the body's long axis, and leaning to one side."""
CROPPED = 0.35
"""Share of the slices that is cut off at the head: no clavicles, no first ribs to count from."""
SHARPENING = 1.0
"""Weight of what an unsharp mask of 1 mm adds: a lung kernel."""
NEAR_EDGE_MM = 15.0
"""A vertebral body whose centre lies this near to the cut is not whole, so its point is no truth any more."""

Changed = tuple[CTVolume, Labels]


def perturb(name: str, ct: CTVolume, truth: Labels, seed: str) -> Changed:
    """The scan and its truth after the perturbation ``name`` of PERTURBATIONS. seed: decides the noise.

    Raises ValueError for an unknown name.
    """
    if name not in PERTURBATIONS:
        raise ValueError(f"perturbation {name!r}: use some of {', '.join(PERTURBATIONS)}")
    return PERTURBATIONS[name](ct, truth, np.random.default_rng(zlib.crc32(seed.encode())))


def _with_hu(ct: CTVolume, hu: np.ndarray) -> CTVolume:
    return replace(ct, hu=np.clip(np.rint(hu), -1024, 4095).astype(np.int16))


def _noise(ct: CTVolume, truth: Labels, rng: np.random.Generator) -> Changed:
    return _with_hu(ct, ct.hu + rng.normal(0, NOISE_SD_HU, ct.hu.shape).astype(np.float32)), truth


def _offset(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    return _with_hu(ct, ct.hu + np.where(ct.hu > -300, OFFSET_HU, 0.0)), truth


def _dense(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    return _with_hu(ct, with_density(ct.hu.astype(np.float32), DENSER)), truth


def _kernel(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    hu = ct.hu.astype(np.float32)
    i_mm, j_mm, _ = ct.geometry.spacing_mm
    return _with_hu(ct, hu + SHARPENING * (hu - ndimage.gaussian_filter(hu, (0, 1.0 / j_mm, 1.0 / i_mm)))), truth


def _flip(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    """Left and right exchanged about the middle of the grid; no structure of the registry that is scored has a side."""
    last = ct.geometry.shape_kji[2] - 1

    def turned(mask: Mask) -> Mask:
        k, j, i = mask.start_kji
        return Mask(np.ascontiguousarray(mask.voxels[:, :, ::-1]), (k, j, last - (i + mask.voxels.shape[2] - 1)))

    def moved(point: Keypoint) -> Keypoint:
        k, j, i = ct.geometry.to_kji(np.array(point.position_lps_mm))
        return _at(point, ct.geometry.to_lps(np.array([k, j, last - i])))

    masks = {name: mask if mask.empty else turned(mask) for name, mask in truth.masks.items()}
    points = tuple(moved(point) for point in truth.keypoints)
    return replace(ct, hu=np.ascontiguousarray(ct.hu[:, :, ::-1])), Labels(ct.geometry, masks, points)


def _thick(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    i_mm, j_mm, k_mm = ct.geometry.spacing_mm
    return _on(ct, truth, ct.geometry, ct.geometry.with_spacing((i_mm, j_mm, max(k_mm, THICK_MM))))


def _rotate(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    return _moved(ct, truth, _turn(ROLL_DEGREES, 0, 1) @ _turn(LEAN_DEGREES, 0, 2))


def _scale(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    return _moved(ct, truth, SCALE * np.eye(3))


def _turn(degrees: float, first: int, second: int) -> np.ndarray:
    """(3, 3) rotation in the plane of two LPS axes."""
    matrix, angle = np.eye(3), np.deg2rad(degrees)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _moved(ct: CTVolume, truth: Labels, matrix: np.ndarray) -> Changed:
    """The patient under a (3, 3) LPS map about the middle of the scan, on the scan's own grid."""
    middle = ct.geometry.to_lps((np.array(ct.geometry.shape_kji) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, middle - matrix @ middle
    points = tuple(_at(point, affine[:3, :3] @ np.array(point.position_lps_mm) + affine[:3, 3]) for point in truth.keypoints)
    source = Geometry(ct.geometry.shape_kji, affine @ ct.geometry.ijk_to_lps)
    changed, labels = _on(ct, truth, source, ct.geometry)
    inside = [point for point in points if _edge_mm(ct.geometry, point) >= NEAR_EDGE_MM]
    return changed, replace(labels, keypoints=tuple(inside))


def _on(ct: CTVolume, truth: Labels, source: Geometry, target: Geometry) -> Changed:
    """Everything, which lies on ``source``, on another grid."""
    hu = resample(ct.hu, source, target, outside=AIR_HU)
    masks = {name: Mask.from_array(resample(mask.full(source), source, target, outside=0, nearest=True))
             for name, mask in truth.masks.items()}
    return replace(ct, hu=hu, geometry=target), Labels(target, masks, truth.keypoints)


def _crop(ct: CTVolume, truth: Labels, _rng: np.random.Generator) -> Changed:
    k, j, i = ct.geometry.shape_kji
    left = max(1, round(k * (1 - CROPPED)))
    target = ct.geometry.crop((0, 0, 0), (left, j, i))
    masks = {name: Mask.from_array(mask.voxels[:max(0, left - mask.start_kji[0])], mask.start_kji)
             for name, mask in truth.masks.items()}
    points = tuple(point for point in truth.keypoints if _edge_mm(target, point) >= NEAR_EDGE_MM)
    return replace(ct, hu=np.ascontiguousarray(ct.hu[:left]), geometry=target), Labels(target, masks, points)


def _edge_mm(geometry: Geometry, point: Keypoint) -> float:
    """Distance of a point to the nearest face of the grid; negative outside."""
    kji = geometry.to_kji(np.array(point.position_lps_mm))
    near = np.minimum(kji + 0.5, np.array(geometry.shape_kji) - 0.5 - kji)
    return float((near * geometry.spacing_kji_mm).min())


def _at(point: Keypoint, place_lps_mm: np.ndarray) -> Keypoint:
    return replace(point, position_lps_mm=tuple(float(c) for c in place_lps_mm))


PERTURBATIONS: dict[str, Callable[[CTVolume, Labels, np.random.Generator], Changed]] = {
    "noise": _noise, "flip": _flip, "thick": _thick, "rotate": _rotate, "crop": _crop, "hu": _offset, "scale": _scale,
    "kernel": _kernel, "dense": _dense,
}
"""By name, in the order in which they are reported."""

IN_WORDS: dict[str, str] = {
    "noise": f"noise of {NOISE_SD_HU:.0f} HU added", "flip": "left and right exchanged",
    "thick": f"slices of {THICK_MM:.0f} mm", "rotate": f"turned by {ROLL_DEGREES:.0f}°, leaning by {LEAN_DEGREES:.0f}°",
    "crop": f"{100 * CROPPED:.0f} % cut off at the head", "hu": f"{OFFSET_HU:+.0f} HU", "scale": f"{SCALE:.2f} of the size",
    "kernel": "sharpened", "dense": f"bones {DENSER:.0f} times as dense",
}
