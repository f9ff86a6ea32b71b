"""Checks of where structures lie: what was given to the wrong structure, and what is missing on one side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from LowDoseBMDLib.anatomy import BONES, SIDES
from LowDoseBMDLib.bones import MIN_PIECE_MM3
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Mask
from scipy import ndimage

from .checks_image import Body
from .checks_shape import title
from .checks_spine import PAIRED, Midline
from .findings import LOOK, MUST, Finding
from .raters import TOUCHING, middle_voxel, point_of
from .scores import cut_to_both

PROCESS_MM = 65.0
"""Vertebrae reach less far to the side of the spine's midline: transverse processes of L3 to L5 end at 41 to 59 mm in eight
label maps (lidc0001, four TotalSegmentator cases, two VerSe cases, ts_example)."""

COLUMN_MM = 30.0
"""A separate piece of at least MIN_PIECE_MM3 that stays further from the midline than this, and is not only behind it as a
spinous process is, does not belong to the column (judgement)."""

INSIDE_COLUMN_MM = 10.0
"""Ribs stay further from the middle of the vertebrae within a slice: 23 mm in five of these label maps, 11 mm in a phantom
whose rib heads reach into the bodies."""

MISPLACED_MM3 = 100.0
"""Less of a structure in a wrong place is a slip of the brush at its border."""

ONE_SIDE_SHARE = 0.05
"""A side with less than this share of the other's volume is missing."""
ONE_SIDE_MM = 40.0
"""Ribs on one side only over this height: more than the space between two ribs (judgement)."""
LEAST_RIB_MM2 = 20.0
"""Area of rib in a slice that counts as rib (judgement)."""
COVERED_SHARE = 0.5
"""The scan covers the place of the missing side when so much of the other side's mirror image lies in the body."""


def misplaced(masks: Mapping[str, Mask], midline: Midline, geometry: Geometry) -> Iterator[Finding]:
    """Ribs labelled as vertebrae, and other bones in the middle of the spinal column."""
    vertebrae = masks["vertebrae"]
    index = np.argwhere(vertebrae.voxels) + vertebrae.start_kji
    aside = np.abs(midline.aside_mm(index))
    wrong = (aside > PROCESS_MM) | _off_column(vertebrae, aside, midline.distance_mm(index), geometry)
    for volume, place in _lumps(index[wrong], geometry):
        off = midline.aside_mm(geometry_index(place, geometry)[None])[0]
        side = "left" if off > 0 else "right"
        yield Finding("rib_as_vertebra", MUST, f"{volume / 1000:.1f} cm³ labelled vertebrae lie {abs(off):.0f} mm to the "
                      f"{side} of the spine's midline, where no vertebra reaches. Is it a rib?", place, "vertebrae")
    for name in PAIRED:
        mask = masks.get(name, NO_VOXELS)
        if not mask.empty:
            index = np.argwhere(mask.voxels) + mask.start_kji
            for volume, place in _lumps(index[midline.distance_mm(index) < INSIDE_COLUMN_MM], geometry):
                yield Finding("bone_in_column", MUST, f"{volume / 1000:.1f} cm³ labelled {title(name)} lie in the middle of "
                              "the spinal column. Is it a vertebra?", place, name)


def _off_column(vertebrae: Mask, aside_mm: np.ndarray, distance_mm: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N,) whether each voxel belongs to a separate piece beside the column; both distances are of the same voxels."""
    pieces, count = ndimage.label(vertebrae.voxels, TOUCHING)
    of, every = pieces[vertebrae.voxels], np.arange(1, count + 1)
    volume = np.bincount(of, minlength=count + 1)[1:] * geometry.voxel_volume_mm3
    off = ((volume >= MIN_PIECE_MM3) & (np.asarray(ndimage.minimum(distance_mm, of, every)) > COLUMN_MM)
           & (np.asarray(ndimage.maximum(aside_mm, of, every)) > COLUMN_MM))
    return off[of - 1]


def _lumps(index_kji: np.ndarray, geometry: Geometry) -> Iterator[tuple[float, tuple[float, float, float]]]:
    """Volume and middle of the connected parts of at least MISPLACED_MM3 of a list of voxels, the largest first."""
    if not len(index_kji):
        return
    low = index_kji.min(axis=0)
    region = np.zeros(index_kji.max(axis=0) - low + 1, bool)
    region[tuple((index_kji - low).T)] = True
    pieces, _ = ndimage.label(region, TOUCHING)
    sizes = np.bincount(pieces.ravel())[1:] * geometry.voxel_volume_mm3
    for number in np.argsort(sizes)[::-1]:
        if sizes[number] >= MISPLACED_MM3:
            yield float(sizes[number]), point_of(geometry, middle_voxel(pieces == number + 1) + low)


def geometry_index(place_lps_mm: tuple[float, float, float], geometry: Geometry) -> np.ndarray:
    """(3,) the voxel k, j, i at a place."""
    return np.rint(geometry.to_kji(np.array(place_lps_mm))).astype(int)


def overlaps(masks: Mapping[str, Mask], geometry: Geometry) -> Iterator[Finding]:
    """Voxels that belong to two kinds of bone: a network can learn only one."""
    drawn = [name for name in BONES if not masks.get(name, NO_VOXELS).empty]
    for n, first in enumerate(drawn):
        for second in drawn[n + 1:]:
            both = np.logical_and(*cut_to_both(masks[first], masks[second]))
            volume = np.count_nonzero(both) * geometry.voxel_volume_mm3
            if volume >= MISPLACED_MM3:
                low = np.minimum(masks[first].start_kji, masks[second].start_kji)
                yield Finding("overlap", MUST, f"{volume / 1000:.1f} cm³ are labelled both {title(first)} and "
                              f"{title(second)}. Give them to one of the two.",
                              point_of(geometry, middle_voxel(both) + low), second)


def one_sided(masks: Mapping[str, Mask], midline: Midline, geometry: Geometry,
              body: Body | None) -> Iterator[Finding]:
    """Paired bones on one side only, where the scan covers the other. body: None: the whole scan counts."""
    for name in PAIRED:
        mask = masks.get(name, NO_VOXELS)
        if mask.empty:
            continue
        sides = midline.sides(mask)
        volumes = {side: np.count_nonzero(sides[side]) * geometry.voxel_volume_mm3 for side in SIDES}
        less, more = sorted(SIDES, key=volumes.__getitem__)
        if volumes[less] >= ONE_SIDE_SHARE * volumes[more]:
            if name == "ribs":
                yield from _one_sided_slices(sides, mask, midline, geometry, body)
            continue
        index = np.argwhere(sides[more]) + mask.start_kji
        if volumes[more] >= MIN_PIECE_MM3 and _covered(midline.mirrored(index), body, geometry) >= COVERED_SHARE:
            other = middle_voxel(sides[more]) + mask.start_kji
            yield Finding("side_missing", MUST, f"No {less} {title(name)} are labelled, though the {more} ones are and the "
                          "scan covers their place.", point_of(geometry, midline.mirrored(other[None])[0]), name)


def _covered(index_kji: np.ndarray, body: Body | None, geometry: Geometry) -> float:
    """Share of voxels that lie in the scan, and in the body where that is known."""
    if body is not None:
        return float(body.covers(index_kji).mean())
    return float(np.all((index_kji >= 0) & (index_kji < geometry.shape_kji), axis=1).mean())


def _one_sided_slices(sides: Mapping[str, np.ndarray], ribs: Mask, midline: Midline, geometry: Geometry,
                      body: Body | None) -> Iterator[Finding]:
    """Runs of slices of at least ONE_SIDE_MM with ribs on one side only."""
    k_mm, j_mm, i_mm = geometry.spacing_kji_mm
    areas = {side: np.count_nonzero(sides[side], axis=(1, 2)) * j_mm * i_mm for side in SIDES}
    for less, more in (SIDES, SIDES[::-1]):
        alone, count = ndimage.label((areas[more] >= LEAST_RIB_MM2) & (areas[less] == 0))
        for number in range(1, count + 1):
            rows = np.flatnonzero(alone == number)
            if rows.size * k_mm < ONE_SIDE_MM:
                continue
            index = np.argwhere(sides[more][rows[0]:rows[-1] + 1]) + ribs.start_kji + np.array([rows[0], 0, 0])
            mirrored = midline.mirrored(index)
            if _covered(mirrored, body, geometry) >= COVERED_SHARE:
                place = point_of(geometry, mirrored[len(mirrored) // 2])
                yield Finding("ribs_one_sided", LOOK, f"Over {rows.size * k_mm:.0f} mm there are ribs on the {more} only. "
                              f"Is a {less} rib missing?", place, "ribs")
