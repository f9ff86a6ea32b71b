"""What a stroke of our own brushes does to the labels: where it may paint, and what it takes from others. Pure arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry, lps_to_ras
from LowDoseBMDLib.rois import NO_VOXELS, Mask
from LowDoseBMDTrainerLib.masks import inside, joined, without
from LowDoseBMDTrainerLib.slices import adaptive_brush

EVERYTHING, VISIBLE, CLEAR = "everything", "visible", "clear"
"""What may be painted over, besides the name of a single label."""

SQUARE, ADAPTIVE = "square", "adaptive"
"""Brushes that Slicer's editor does not have."""


@dataclass(frozen=True)
class Brush:
    """kind: SQUARE or ADAPTIVE. flat: paints in the slice that is shown, else in 3D."""

    kind: str
    diameter_mm: float
    flat: bool = True


@dataclass(frozen=True)
class Rules:
    """over: EVERYTHING, VISIBLE, CLEAR or the name of a label. visible: labels that are seen. range_hu: only voxels in this
    range are painted; None: all."""

    over: str = EVERYTHING
    visible: Collection[str] = ()
    range_hu: tuple[float, float] | None = None


def dab(ct: CTVolume, brush: Brush, ras_mm: tuple[float, float, float], axis: int) -> Mask:
    """The voxels under a brush at a point. axis: across which a flat brush does not reach, 0 axial, 1 coronal, 2 sagittal.

    Empty outside of the CT.
    """
    centre = tuple(int(n) for n in np.rint(ct.geometry.to_kji(lps_to_ras(np.array(ras_mm)))))
    if not all(0 <= c < n for c, n in zip(centre, ct.hu.shape, strict=True)):
        return NO_VOXELS
    flat_axis = axis if brush.flat else None
    if brush.kind == ADAPTIVE:
        voxels, box = adaptive_brush(ct.hu, ct.geometry.spacing_kji_mm, centre, brush.diameter_mm / 2, flat_axis=flat_axis)
        return Mask.from_array(voxels, tuple(part.start for part in box))
    return _square(ct.geometry, centre, brush.diameter_mm / 2, flat_axis)


def _square(geometry: Geometry, centre: tuple[int, ...], half_mm: float, flat_axis: int | None) -> Mask:
    reach = [0 if axis == flat_axis else int(half_mm / spacing) for axis, spacing in enumerate(geometry.spacing_kji_mm)]
    low = tuple(max(0, c - r) for c, r in zip(centre, reach, strict=True))
    high = tuple(min(n, c + r + 1) for c, r, n in zip(centre, reach, geometry.shape_kji, strict=True))
    return Mask(np.ones([b - a for a, b in zip(low, high, strict=True)], bool), low)


def painted(masks: Mapping[str, Mask], ct: CTVolume, name: str, stroke: Mask, rules: Rules) -> dict[str, Mask]:
    """The labels that a stroke of ``name`` changes. Voxels come from labels of the same group only: a vertebral body lies
    inside the vertebrae."""
    rivals = [each for each in masks if each != name and _group(each) == _group(name)]
    allowed = stroke.voxels & _allowed(masks, ct, name, stroke, rules, rivals)
    added = Mask.from_array(allowed, stroke.start_kji)
    if added.empty:
        return {}
    taken = {each: without(masks[each], added) for each in rivals if rules.over != VISIBLE or each in rules.visible}
    return {name: joined(masks.get(name, NO_VOXELS), added),
            **{each: mask for each, mask in taken.items() if mask is not masks[each]}}


def _allowed(masks: Mapping[str, Mask], ct: CTVolume, name: str, stroke: Mask, rules: Rules,
             rivals: Collection[str]) -> np.ndarray:
    """Bool of the stroke's box: where the rules let it paint."""
    allowed = np.ones(stroke.voxels.shape, bool)
    if rules.range_hu is not None:
        hu = ct.hu[stroke.box]
        allowed &= (hu >= rules.range_hu[0]) & (hu <= rules.range_hu[1])
    if rules.over == CLEAR:
        for each in rivals:
            allowed &= ~inside(masks[each], stroke)
    elif rules.over not in (EVERYTHING, VISIBLE, name):
        allowed &= inside(masks.get(rules.over, NO_VOXELS), stroke)
    return allowed


def _group(name: str) -> str:
    return STRUCTURES[name].group if name in STRUCTURES else name
