"""Checks of a structure's shape: islands, holes, and slices that were left out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from LowDoseBMDLib.anatomy import OTHER_BONES, STRUCTURES
from LowDoseBMDLib.bones import MIN_PIECE_MM3
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask
from scipy import ndimage

from .checks_spine import PAIRED, Midline
from .findings import LOOK, MUST, Finding
from .raters import TOUCHING, middle_voxel, point_of

HOLE_MM3 = 50.0
"""Smaller cavities are left by joints and by the steps of the grid: all but three of those in the vertebrae of eight label
maps are smaller."""

MOST_LISTED = 8
"""Findings of one kind in one structure, the largest; more are counted."""


def title(name: str) -> str:
    """What a reader calls a structure, as part of a sentence: a vertebra's level keeps its capital letter."""
    text = STRUCTURES[name].title
    return text if text[1].isdigit() else text[0].lower() + text[1:]


def islands(name: str, mask: Mask, geometry: Geometry) -> Iterator[Finding]:
    """Separate pieces smaller than MIN_PIECE_MM3, but for those that the end of the scan has cut off."""
    pieces, count = ndimage.label(mask.voxels, TOUCHING)
    if count < 2:
        return
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        start = np.array([part.start for part in box]) + mask.start_kji
        at_end = np.any(start == 0) or np.any(start + inside.shape == geometry.shape_kji)
        volume = np.count_nonzero(inside) * geometry.voxel_volume_mm3
        if volume < MIN_PIECE_MM3 and not at_end:
            found.append((volume, point_of(geometry, middle_voxel(inside) + start)))
    yield from _listed(found, "island", name, "A separate piece of {volume:.0f} mm³ is labelled {title}. Remove it, or join "
                                              "it to its bone.")


def holes(name: str, mask: Mask, others: np.ndarray, geometry: Geometry) -> Iterator[Finding]:
    """Cavities that the structure encloses on all sides; bones are drawn filled. others: bool array like mask.voxels, what
    other structures fill."""
    outside, _ = ndimage.label(np.pad(~mask.voxels, 1, constant_values=True))
    cavities = (outside > 0) & (outside != outside[0, 0, 0])
    pieces, _ = ndimage.label(cavities[1:-1, 1:-1, 1:-1] & ~others)
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        volume = np.count_nonzero(inside) * geometry.voxel_volume_mm3
        if volume >= HOLE_MM3:
            start = np.array([part.start for part in box]) + mask.start_kji
            found.append((volume, point_of(geometry, middle_voxel(inside) + start)))
    yield from _listed(found, "hole", name, "A cavity of {volume:.0f} mm³ inside {title} is not labelled. Bones are drawn "
                                            "filled, with their marrow.")


def _listed(found: list[tuple[float, tuple[float, float, float]]], code: str, name: str, text: str) -> Iterator[Finding]:
    """The largest, and a last one that says how many more there are."""
    found = sorted(found, reverse=True)
    for volume, place in found[:MOST_LISTED]:
        yield Finding(code, LOOK, text.format(volume=volume, title=title(name)), place, name)
    if more := found[MOST_LISTED:]:
        yield Finding(code, LOOK, f"{len(more)} smaller {code}s of {title(name)} are not listed.", more[0][1], name)


def slice_gaps(name: str, mask: Mask, geometry: Geometry, midline: Midline | None) -> Iterator[Finding]:
    """Slices without the structure between slices that have it; left and right of paired structures by themselves.

    In vertebrae that is an error; between two ribs there may be such a slice, and other bones lie far apart.
    """
    if name == OTHER_BONES or (name in PAIRED and midline is None):
        return
    sides = midline.sides(mask) if name in PAIRED else {"": mask.voxels}
    severity = LOOK if name == "ribs" else MUST
    for side, voxels in sides.items():
        which = f"{side} {title(name)}".strip()
        gaps = list(_gaps(voxels))
        for before, after in gaps[:MOST_LISTED]:
            middle = middle_voxel(voxels[before]) + np.array(mask.start_kji[1:])
            place = point_of(geometry, np.array([(before + after) / 2 + mask.start_kji[0], *middle]))
            first, last = mask.start_kji[0] + before + 2, mask.start_kji[0] + after  # counted from 1
            slices = f"Slice {first} holds" if first == last else f"Slices {first} to {last} hold"
            yield Finding("slice_gap", severity, f"{slices} no {which}, though slices above and below do. Draw or "
                          "interpolate them there.", place, name)
        if len(gaps) > MOST_LISTED:
            yield Finding("slice_gap", severity, f"{len(gaps) - MOST_LISTED} more gaps of {which} are not listed.", None,
                          name)


def _gaps(voxels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Slices before and after each run of empty slices between others."""
    rows = np.flatnonzero(voxels.any(axis=(1, 2)))
    for before, after in zip(rows, rows[1:], strict=False):
        if after - before > 1:
            yield int(before), int(after)
