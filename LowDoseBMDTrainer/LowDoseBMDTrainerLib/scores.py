"""How well regions and points agree: Dice, surface scores in mm, keypoint errors, identification.

Surfaces are the voxels of a region that touch its outside by a face; distances run between their centres in mm, so
that they hold on grids whose slices are thicker than their pixels. Definitions are those of ``monai.metrics``.
Where both regions are empty there is nothing to score and every score is NaN; where one is, Dice and NSD are 0 and
distances infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.rois import Keypoint, Mask
from scipy import ndimage
from scipy.spatial import cKDTree

TOLERANCE_MM = 2.0
"""Surfaces this near are as good as the same: about what two readers of bone borders differ by (judgement)."""

HAUSDORFF_PERCENTILE = 95.0

IDENTIFIED_WITHIN_MM = 20.0
"""VerSe's limit for the right vertebra (Sekuboyina et al. 2021, doi 10.1016/j.media.2021.102166)."""


@dataclass(frozen=True)
class SurfaceScores:
    """Agreement of two surfaces.

    nsd: normalised surface Dice, share of both surfaces within the tolerance of the other (Nikolov et al. 2021, doi
    10.2196/26151; counted in surface voxels). hd95_mm: the larger of the two directed 95th percentiles. mean_mm: mean
    over both surfaces of the distance to the other.
    """

    nsd: float
    hd95_mm: float
    mean_mm: float


NOTHING = SurfaceScores(math.nan, math.nan, math.nan)
MISSED = SurfaceScores(0.0, math.inf, math.inf)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2 |a and b| / (|a| + |b|) of two bool arrays of one shape; NaN when both are empty."""
    _refuse_other_shape(a, b)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else math.nan


def surface_scores(a: np.ndarray, b: np.ndarray, spacing_kji_mm: Sequence[float],
                   tolerance_mm: float = TOLERANCE_MM) -> SurfaceScores:
    """Surface scores of two bool arrays (k, j, i) of one shape. spacing_kji_mm: as Geometry.spacing_kji_mm."""
    _refuse_other_shape(a, b)
    points = [surface_points_mm(region, spacing_kji_mm) for region in (a, b)]
    if not all(len(part) for part in points):
        return MISSED if any(len(part) for part in points) else NOTHING
    trees = [cKDTree(part) for part in points]
    there, back = trees[1].query(points[0])[0], trees[0].query(points[1])[0]
    both = np.concatenate([there, back])
    worst = max(float(np.percentile(part, HAUSDORFF_PERCENTILE)) for part in (there, back))
    return SurfaceScores(float(np.mean(both <= tolerance_mm)), worst, float(both.mean()))


def surface_points_mm(region: np.ndarray, spacing_kji_mm: Sequence[float]) -> np.ndarray:
    """(N, 3) places (k, j, i) in mm of the voxels of a bool array that touch its outside by a face."""
    inside = np.pad(region.astype(bool), 1)
    border = inside & ~ndimage.binary_erosion(inside)
    return (np.argwhere(border) - 1) * np.asarray(spacing_kji_mm, float)


def cut_to_both(a: Mask, b: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Two regions of one grid as bool arrays (k, j, i) of the smallest box that holds both."""
    boxes = [mask for mask in (a, b) if not mask.empty]
    if not boxes:
        return np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0), bool)
    low = np.min([mask.start_kji for mask in boxes], axis=0)
    high = np.max([np.add(mask.start_kji, mask.voxels.shape) for mask in boxes], axis=0)
    arrays = np.zeros((2, *(high - low)), bool)
    for array, mask in zip(arrays, (a, b), strict=True):
        if not mask.empty:
            array[tuple(slice(s, s + n) for s, n in zip(mask.start_kji - low, mask.voxels.shape, strict=True))] = mask.voxels
    return arrays[0], arrays[1]


def keypoint_errors_mm(found: Sequence[Keypoint], truth: Sequence[Keypoint]) -> dict[str, float]:
    """Distance by level of the truth; infinite where the level was not found."""
    places = {point.level: point.position_lps_mm for point in found}
    return {point.level: math.dist(places[point.level], point.position_lps_mm) if point.level in places else math.inf
            for point in truth}


def identified(found: Mapping[str, Sequence[float]], truth: Mapping[str, Sequence[float]]) -> dict[str, bool]:
    """By level of the truth (LPS mm): the found point of that name is the nearest of all that were found, and within
    IDENTIFIED_WITHIN_MM, as VerSe counts a vertebra as identified."""
    right = {}
    for level, place in truth.items():
        distances = {name: math.dist(position, place) for name, position in found.items()}
        nearest = min(distances, key=distances.__getitem__, default=None)
        right[level] = nearest == level and distances[level] < IDENTIFIED_WITHIN_MM
    return right


def _refuse_other_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"regions of shapes {a.shape} and {b.shape} cannot be compared; put both on one grid first")
