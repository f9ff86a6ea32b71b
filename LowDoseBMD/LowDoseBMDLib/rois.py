"""Regions of interest on the CT's own grid: what is proposed, edited, stored and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .anatomy import SPINE
from .flags import Flag
from .geometry import Geometry
from .nearby import bounding_box


@dataclass(frozen=True, eq=False)
class Mask:
    """A binary region, stored inside its bounding box on the CT's grid.

    voxels: bool (k, j, i) of the box. start_kji: index of the box's first voxel on the CT's grid.
    """

    voxels: np.ndarray
    start_kji: tuple[int, int, int]

    @staticmethod
    def from_array(array: np.ndarray, start_kji: tuple[int, int, int] = (0, 0, 0)) -> Mask:
        """Crop a bool array (k, j, i), which begins at start_kji of the CT's grid, to its bounding box."""
        box = bounding_box(array)
        if box is None:
            return NO_VOXELS
        start = tuple(a + s.start for a, s in zip(start_kji, box, strict=True))
        return Mask(np.ascontiguousarray(array[box]).astype(bool), start)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the bounding box lies on the CT's grid."""
        return tuple(slice(s, s + n) for s, n in zip(self.start_kji, self.voxels.shape, strict=True))

    @property
    def empty(self) -> bool:
        return not self.voxels.any()

    def same_as(self, other: Mask) -> bool:
        """True when both hold the same voxels of one grid. Both must be cropped to their bounding boxes (from_array)."""
        if self.empty or other.empty:
            return self.empty and other.empty
        return self.start_kji == other.start_kji and np.array_equal(self.voxels, other.voxels)

    def values(self, array: np.ndarray) -> np.ndarray:
        """(N,) values of a full-grid array (k, j, i) inside the region."""
        return array[self.box][self.voxels]

    def volume_mm3(self, geometry: Geometry) -> float:
        return float(np.count_nonzero(self.voxels)) * geometry.voxel_volume_mm3

    def centroid_lps_mm(self, geometry: Geometry) -> np.ndarray:
        """(3,) centre of mass in LPS mm; the region must not be empty."""
        kji = np.argwhere(self.voxels).mean(axis=0) + np.asarray(self.start_kji)
        return geometry.to_lps(kji)

    def full(self, geometry: Geometry) -> np.ndarray:
        """The region as a bool array over the whole grid."""
        array = np.zeros(geometry.shape_kji, bool)
        array[self.box] = self.voxels
        return array


NO_VOXELS = Mask(np.zeros((0, 0, 0), bool), (0, 0, 0))
"""The empty region."""


@dataclass(frozen=True)
class Keypoint:
    """Centre of a vertebral body. confidence: 0..1, or None when a person or another label map set it."""

    level: str
    position_lps_mm: tuple[float, float, float]
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class Vertebra:
    """One vertebral body of the chain that was found. place: its index in anatomy.SPINE; may lie outside of it."""

    place: int
    body: Mask

    @property
    def name(self) -> str | None:
        """C1 to L5, or None beyond the usual spine."""
        return SPINE[self.place] if 0 <= self.place < len(SPINE) else None


@dataclass(frozen=True)
class LevelFinding:
    """What is known of one level besides its masks.

    complete: the whole body is in the scan. reason: why not, or empty. axes_lps: unit vectors as rows,
    (left, posterior, superior) of the vertebra itself; None when unknown. height_mm: (anterior, middle,
    posterior) heights of the body; None when unknown. erosion_mm: distance actually used for the
    trabecular mask (mode physical), None otherwise. overridden: why the body did not look whole, where a reader's
    own region is measured all the same.
    """

    name: str
    complete: bool
    reason: str = ""
    axes_lps: tuple[tuple[float, float, float], ...] | None = None
    height_mm: tuple[float, float, float] | None = None
    erosion_mm: float | None = None
    overridden: str = ""


@dataclass(frozen=True)
class Rois:
    """Every region of one study on the CT's grid, whoever drew it.

    masks: by structure name of the registry (anatomy.STRUCTURES); absent means not found. levels: one
    LevelFinding for each level that was found at all. flags: what the proposing stages had to say.
    erosion: how trabecular masks were made: physical, paper or voxels; edited, when all that is known is that
    a reader gave them. spine: every vertebral body that was found, head to foot, for neighbours and for a reader
    who moves the names. edited: names of the structures that a reader drew or changed, keypoint_<level> of keypoints
    that a reader moved, level_names where a reader moved the names. excluded: levels that a reader left out of the mean,
    with the reason.
    """

    geometry: Geometry
    masks: Mapping[str, Mask] = field(default_factory=dict)
    keypoints: tuple[Keypoint, ...] = ()
    levels: tuple[LevelFinding, ...] = ()
    flags: tuple[Flag, ...] = ()
    erosion: str = "physical"
    spine: tuple[Vertebra, ...] = ()
    edited: frozenset[str] = frozenset()
    excluded: Mapping[str, str] = field(default_factory=dict)

    def level(self, name: str) -> LevelFinding | None:
        return next((entry for entry in self.levels if entry.name == name), None)

    def keypoint(self, level: str) -> Keypoint | None:
        return next((entry for entry in self.keypoints if entry.level == level), None)

    def with_masks(self, masks: Mapping[str, Mask]) -> Rois:
        """A copy in which the named masks are replaced or added."""
        return replace(self, masks={**self.masks, **masks})
