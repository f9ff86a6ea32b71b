"""The spine's course through the labels: what lies to its left and right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.anatomy import SIDES
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask
from scipy import ndimage

PAIRED: tuple[str, ...] = ("clavicles", "scapulae", "ribs")
"""Structures on both sides of the spine."""

SMOOTH_MM = 40.0
"""The course is the running median over this length: more than one vertebra, so that a rib that was labelled vertebra does
not bend it."""


@dataclass(frozen=True, eq=False)
class Midline:
    """The middle of the vertebrae in each slice. ji: (slices, 2) float array indices j and i; straight on beyond the
    vertebrae."""

    ji: np.ndarray
    geometry: Geometry

    def aside_mm(self, index_kji: np.ndarray) -> np.ndarray:
        """(N,) how far voxels lie to the left (positive) or right of it, mm."""
        return (index_kji[:, 2] - self.ji[index_kji[:, 0], 1]) * self.geometry.spacing_kji_mm[2]

    def distance_mm(self, index_kji: np.ndarray) -> np.ndarray:
        """(N,) distance within the slice, mm."""
        behind = (index_kji[:, 1] - self.ji[index_kji[:, 0], 0]) * self.geometry.spacing_kji_mm[1]
        return np.hypot(self.aside_mm(index_kji), behind)

    def sides(self, mask: Mask) -> dict[str, np.ndarray]:
        """The parts of a region left and right of it, bool like mask.voxels."""
        k, _, i = mask.start_kji
        columns = i + np.arange(mask.voxels.shape[2])
        left = columns[None, :] > self.ji[k:k + mask.voxels.shape[0], 1][:, None]
        return {side: mask.voxels & (left if side == "left" else ~left)[:, None, :] for side in SIDES}

    def mirrored(self, index_kji: np.ndarray) -> np.ndarray:
        """(N, 3) the voxels on the other side of it, rounded; may lie outside of the grid."""
        other = index_kji.copy()
        other[:, 2] = np.rint(2 * self.ji[index_kji[:, 0], 1] - index_kji[:, 2]).astype(int)
        return other


def midline_of(vertebrae: Mask, geometry: Geometry) -> Midline | None:
    """The course of the vertebrae; None when there are none."""
    if vertebrae.empty:
        return None
    rows = np.flatnonzero(vertebrae.voxels.any(axis=(1, 2)))
    middles = np.array([np.median(np.argwhere(vertebrae.voxels[row]), axis=0) for row in rows]) + vertebrae.start_kji[1:]
    size = max(1, int(SMOOTH_MM / geometry.spacing_kji_mm[0])) | 1
    smooth = ndimage.median_filter(middles, (size, 1), mode="nearest")
    every = np.arange(geometry.shape_kji[0])
    known = rows + vertebrae.start_kji[0]
    return Midline(np.stack([np.interp(every, known, smooth[:, axis]) for axis in (0, 1)], axis=1), geometry)
