"""How well two annotators of a case agree, and where they do not.

Both readings lie on the CT's grid. Numbers are those of scores.py; the places are given so that a person can look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.anatomy import BONES, LEVELS, STRUCTURES
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from scipy import ndimage
from scipy.spatial import cKDTree

from .cases import Labels
from .scores import TOLERANCE_MM, SurfaceScores, cut_to_both, dice, keypoint_errors_mm, surface_points_mm, surface_scores

ONLY_FIRST, ONLY_SECOND, DIFFERENT = 1, 2, 3
"""Values of a map of disagreement: drawn by the first annotator only, by the second only, by both but as different
structures."""

MOST_SPOTS = 20
"""Places listed of one comparison, the largest first."""

TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that meet at a corner belong together."""


@dataclass(frozen=True)
class StructureAgreement:
    """One structure of two readings. volume_cm3: of the first and the second reading."""

    name: str
    dice: float
    surface: SurfaceScores
    volume_cm3: tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """A connected region that one annotator drew and that lies further from what the other drew than the tolerance, and
    than the longest side of a voxel: one voxel more or less at a border is none.

    reader: 0 or 1, who drew it. reach_mm: how far its farthest voxel lies from the other's region; infinite where the
    other drew none. slice, position_lps_mm: k index, from 0, and place of a voxel of it near its middle.
    """

    structure: str
    reader: int
    volume_mm3: float
    reach_mm: float
    slice: int
    position_lps_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class DisagreementMap:
    """Where two readings differ. voxels: (k, j, i) uint8 of a box of the CT's grid, 0 or ONLY_FIRST, ONLY_SECOND,
    DIFFERENT. start_kji: the box's first voxel."""

    voxels: np.ndarray
    start_kji: tuple[int, int, int]

    def full(self, geometry: Geometry) -> np.ndarray:
        """The map over the whole grid."""
        array = np.zeros(geometry.shape_kji, np.uint8)
        array[tuple(slice(s, s + n) for s, n in zip(self.start_kji, self.voxels.shape, strict=True))] = self.voxels
        return array


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two readings of one case.

    structures: those that at least one of them drew, in the registry's order. keypoint_mm: by level, infinite where
    only one placed it. disagreement: every voxel that differs; beyond: those of them that make up spots. worst_slice: the
    k index with most voxels of ``beyond``, or of disagreement where that is empty, None when they are the same;
    worst_lps_mm: the middle of these voxels. spots: the largest first.
    """

    geometry: Geometry
    structures: tuple[StructureAgreement, ...]
    keypoint_mm: Mapping[str, float]
    disagreement: DisagreementMap
    beyond: DisagreementMap
    worst_slice: int | None
    worst_lps_mm: tuple[float, float, float] | None
    spots: tuple[Spot, ...]

    def structure(self, name: str) -> StructureAgreement | None:
        return next((entry for entry in self.structures if entry.name == name), None)


def compare_readings(a: Labels, b: Labels, tolerance_mm: float = TOLERANCE_MM) -> Comparison:
    """Compare two readings of one CT.

    Bones are compared whoever drew them; what need not be drawn (other bones, bodies) where both have it, be it empty.
    Raises ValueError when the readings do not lie on one grid.
    """
    if not a.geometry.same_grid(b.geometry):
        raise ValueError(f"the readings lie on grids of {a.geometry.shape_kji} and {b.geometry.shape_kji} voxels or at "
                         "different places; compare readings of one CT")
    pairs = {name: (a.masks.get(name, NO_VOXELS), b.masks.get(name, NO_VOXELS)) for name in STRUCTURES
             if name in BONES or (name in a.masks and name in b.masks)}
    pairs = {name: pair for name, pair in pairs.items() if not (pair[0].empty and pair[1].empty)}
    structures = tuple(_agreement(name, *pair, a.geometry, tolerance_mm) for name, pair in pairs.items())
    apart_mm = spot_distance_mm(a.geometry, tolerance_mm)
    far = {name: _far(*pair, a.geometry, apart_mm) for name, pair in pairs.items()}
    spots = [spot for name, both in far.items() for reader, one in enumerate(both)
             for spot in _spots(name, reader, one, a.geometry)]
    every, beyond = disagreement(pairs.values()), disagreement((one.mask, other.mask) for one, other in far.values())
    worst, where = _worst_slice(beyond if beyond.voxels.any() else every, a.geometry)
    return Comparison(a.geometry, structures, keypoint_distances_mm(a.keypoints, b.keypoints), every, beyond, worst, where,
                      tuple(sorted(spots, key=lambda spot: -spot.volume_mm3)[:MOST_SPOTS]))


def spot_distance_mm(geometry: Geometry, tolerance_mm: float = TOLERANCE_MM) -> float:
    """How far from the other's region a spot begins."""
    return max(tolerance_mm, *geometry.spacing_kji_mm)


def keypoint_distances_mm(a: Sequence[Keypoint], b: Sequence[Keypoint]) -> dict[str, float]:
    """Distance by level that at least one placed; infinite where only one did."""
    distances = {**keypoint_errors_mm(a, b), **keypoint_errors_mm(b, a)}
    return {level: distances[level] for level in LEVELS if level in distances}


def disagreement(pairs: Iterable[tuple[Mask, Mask]]) -> DisagreementMap:
    """The map of all structures together. pairs: first and second reading of each, on one grid; structures may overlap
    (a body lies in its vertebra): what counts is whether one has a structure at a voxel that the other has not."""
    pairs = [pair for pair in pairs if not (pair[0].empty and pair[1].empty)]
    if not pairs:
        return DisagreementMap(np.zeros((0, 0, 0), np.uint8), (0, 0, 0))
    drawn = [mask for pair in pairs for mask in pair if not mask.empty]
    low = np.min([mask.start_kji for mask in drawn], axis=0)
    high = np.max([np.add(mask.start_kji, mask.voxels.shape) for mask in drawn], axis=0)
    voxels = np.zeros(high - low, np.uint8)
    for pair in pairs:
        start = np.min([mask.start_kji for mask in pair if not mask.empty], axis=0) - low
        first, second = cut_to_both(*pair)
        box = voxels[tuple(slice(s, s + n) for s, n in zip(start, first.shape, strict=True))]
        box[first & ~second] |= ONLY_FIRST
        box[second & ~first] |= ONLY_SECOND
    return DisagreementMap(voxels, tuple(int(n) for n in low))


def _agreement(name: str, a: Mask, b: Mask, geometry: Geometry, tolerance_mm: float) -> StructureAgreement:
    first, second = cut_to_both(a, b)
    scores = surface_scores(first, second, geometry.spacing_kji_mm, tolerance_mm)
    return StructureAgreement(name, dice(first, second), scores,
                              (a.volume_mm3(geometry) / 1000.0, b.volume_mm3(geometry) / 1000.0))


@dataclass(frozen=True, eq=False)
class _Far:
    """What one drew further than apart_mm from the other's region. distance_mm: (k, j, i) like mask.voxels, 0 outside
    of the mask."""

    mask: Mask
    distance_mm: np.ndarray


def _far(a: Mask, b: Mask, geometry: Geometry, apart_mm: float) -> tuple[_Far, _Far]:
    """Of the first and of the second."""
    arrays = cut_to_both(a, b)
    start = np.min([mask.start_kji for mask in (a, b) if not mask.empty], axis=0)
    return tuple(_beyond(own, other, start, geometry, apart_mm) for own, other in (arrays, arrays[::-1]))


def _beyond(own: np.ndarray, other: np.ndarray, start: np.ndarray, geometry: Geometry, apart_mm: float) -> _Far:
    """start: index k, j, i of both arrays' first voxel."""
    spacing = np.array(geometry.spacing_kji_mm)
    index = np.argwhere(own & ~other)
    surface = surface_points_mm(other, spacing)
    distance = cKDTree(surface).query(index * spacing)[0] if len(surface) and len(index) else np.full(len(index), np.inf)
    index, distance = index[distance > apart_mm], distance[distance > apart_mm]
    if not len(index):
        return _Far(NO_VOXELS, np.zeros((0, 0, 0)))
    low = index.min(axis=0)
    reach = np.zeros(index.max(axis=0) - low + 1)
    reach[tuple((index - low).T)] = distance
    return _Far(Mask(reach > 0, tuple(int(n) for n in start + low)), reach)


def _spots(name: str, reader: int, far: _Far, geometry: Geometry) -> list[Spot]:
    if far.mask.empty:
        return []
    pieces, _ = ndimage.label(far.mask.voxels, TOUCHING)
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = pieces[box] == number
        middle = middle_voxel(inside) + [part.start for part in box] + far.mask.start_kji
        found.append(Spot(name, reader, np.count_nonzero(inside) * geometry.voxel_volume_mm3,
                          float(far.distance_mm[box][inside].max()), int(middle[0]), point_of(geometry, middle)))
    return found


def middle_voxel(region: np.ndarray) -> np.ndarray:
    """(3,) index k, j, i of the voxel of a bool array that lies nearest to its centre of mass; it must not be empty."""
    index = np.argwhere(region)
    return index[np.argmin(((index - index.mean(axis=0)) ** 2).sum(axis=1))]


def point_of(geometry: Geometry, kji: np.ndarray) -> tuple[float, float, float]:
    """An index (k, j, i) as LPS mm, plain numbers."""
    x, y, z = geometry.to_lps(kji)
    return float(x), float(y), float(z)


def _worst_slice(found: DisagreementMap, geometry: Geometry) -> tuple[int | None, tuple[float, float, float] | None]:
    areas = np.count_nonzero(found.voxels, axis=(1, 2))
    if not areas.any():
        return None, None
    k = int(np.argmax(areas))
    middle = np.argwhere(found.voxels[k]).mean(axis=0)
    return k + found.start_kji[0], point_of(geometry, np.array([k, *middle]) + found.start_kji)
