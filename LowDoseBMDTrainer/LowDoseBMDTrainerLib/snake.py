"""An active contour ("snake"): a front that grows from bubbles in a speed image, as in ITK-SNAP.

The front is the zero level of a function that is negative inside, near it the distance in mm. In every step it moves
along its normal by balloon x speed - curvature (and, at edges, is pulled to them), on ITK's level-set filters with sparse
fields (Whitaker, IJCV 29:203, 1998; edges: geodesic active contour, Caselles et al., IJCV 22:61, 1997). It moves on a grid
of cubes with as much volume as the CT's voxels: taken up again on thick slices, those filters lose what moved across them.
A front is never changed in place: an earlier one can be taken up again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from LowDoseBMDLib.geometry import Geometry, resample
from scipy import ndimage

from .presegmentation import Edges, Presegmentation, Speed, speed_image

if TYPE_CHECKING:
    import SimpleITK

STEP_ITERATIONS = 5
"""Iterations between two looks at the front; in a box round a vertebra about 50 ms."""

TINY = 1e-6
"""Far from the front its function is flat and has no normal."""

REACH_CUBES = 4
"""So far from the front its function is computed: ITK's three layers and one for their slopes."""

OVERHANG = 3
"""Voxels by which a box is continued for interpolation: enough for cubes five times as long as a voxel's shortest side."""

SETTLED_SHARE = 0.002
"""The front stands when, per iteration, less than this share of its own voxels changes sides. Judgement."""


@dataclass(frozen=True)
class Bubble:
    """A ball from which the front grows: centre in LPS mm, radius in mm."""

    centre_lps_mm: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True)
class Forces:
    """What moves the front.

    balloon: factor of the speed image; below 0 the front shrinks where the speed is positive. curvature_mm: the front
    resists bending; a tube whose radius is below it, and a ball of twice that radius, do not grow at full speed.
    advection: pull to edges, only in the edge mode.
    """

    balloon: float = 1.0
    curvature_mm: float = 0.3
    advection: float = 1.0


@dataclass(frozen=True, eq=False)
class Front:
    """Where the snake stands. level: (k, j, i) float32 on the snake's grid of cubes, negative inside. iterations: from
    the bubbles to here. changed_voxels: how many cubes changed sides in the last step, which took ``step_iterations``.
    """

    level: np.ndarray
    iterations: int = 0
    changed_voxels: int = 0
    step_iterations: int = 0

    @property
    def inside(self) -> np.ndarray:
        """(k, j, i) bool: the cubes whose centres lie inside."""
        return self.level < 0

    @property
    def settled(self) -> bool:
        """The last step hardly moved it."""
        inside = self.inside
        size = max(1, _surface_voxels(inside))
        return self.step_iterations > 0 and self.changed_voxels <= SETTLED_SHARE * size * self.step_iterations


@dataclass(frozen=True, eq=False)
class Snake:
    """A box of a CT in which fronts move.

    box: where the CT's voxels of the box lie. grid: cubes over the same box. speed: on the grid. at_edges: the speed marks
    edges, not inside and outside.
    """

    speed: Speed
    grid: Geometry
    box: Geometry
    at_edges: bool = False

    @staticmethod
    def of(hu: np.ndarray, box: Geometry, way: Presegmentation) -> Snake:
        """The snake of a box of a CT (k, j, i). Raises ValueError for settings that give no speed image."""
        grid = box.with_spacing(box.voxel_volume_mm3 ** (1 / 3))
        speed = speed_image(_at_voxels(hu, box, grid), grid.spacing_kji_mm, way)
        return Snake(speed, grid, box, isinstance(way, Edges))

    def mask(self, front: Front) -> np.ndarray:
        """(k, j, i) bool: the voxels of the box whose centres lie inside of the front."""
        inside = np.zeros(self.box.shape_kji, bool)
        window = _window(front.inside, 2)
        if window is None:
            return inside
        part = box_geometry(self.grid, window)
        corners = self.box.to_kji(part.to_lps(np.array([(0, 0, 0), part.shape_kji])))
        start = np.maximum(np.floor(corners[0]).astype(int), 0)
        stop = np.minimum(np.ceil(corners[1]).astype(int), inside.shape)
        there = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        inside[there] = _at_voxels(front.level[window], part, box_geometry(self.box, there)) < 0
        return inside

    def start(self, bubbles: Sequence[Bubble]) -> Front:
        """The front that is the union of the bubbles. A bubble takes at least the voxel in which its centre lies.

        Raises ValueError without a bubble in the box.
        """
        inside = [bubble for bubble in bubbles if self._holds(bubble)]
        if not inside:
            raise ValueError("no bubble lies in the box: place one inside of the structure, or move the box")
        level = np.full(self.grid.shape_kji, np.inf, np.float32)
        for bubble in inside:
            np.minimum(level, self._distance_mm(bubble), out=level)
        return Front(level)

    def step(self, front: Front, forces: Forces = Forces(), iterations: int = STEP_ITERATIONS) -> Front:
        """The front some iterations later; it moves less than half a voxel in each. An empty front stays empty.

        Raises ValueError when the front is of another box.
        """
        if front.level.shape != self.grid.shape_kji:
            raise ValueError(f"a front of shape {front.level.shape} is not of this box of shape {self.grid.shape_kji}")
        inside = front.inside
        if not inside.any() or inside.all():
            return Front(front.level, front.iterations + iterations, 0, iterations)
        window = _window(inside, iterations + REACH_CUBES)
        level = front.level.copy()
        level[window] = self._moved(window, level[window], forces, iterations)
        return Front(level, front.iterations + iterations, int(np.count_nonzero((level < 0) != inside)), iterations)

    def run(self, front: Front, forces: Forces = Forces(), most_iterations: int = 500) -> Front:
        """Steps until the front stands, or most_iterations are made."""
        stop = front.iterations + most_iterations
        while front.iterations < stop:
            front = self.step(front, forces, min(STEP_ITERATIONS, stop - front.iterations))
            if front.settled:
                break
        return front

    def _moved(self, window: tuple[slice, ...], level: np.ndarray, forces: Forces, iterations: int) -> np.ndarray:
        """(k, j, i) the part of the front's function in a window of the grid, after the iterations."""
        import SimpleITK as sitk

        if self.at_edges:
            filter_ = sitk.GeodesicActiveContourLevelSetImageFilter()
            filter_.SetAdvectionScaling(forces.advection)
        else:
            filter_ = sitk.ThresholdSegmentationLevelSetImageFilter()
            # Its speed is the feature's distance to the nearer threshold: between 0 and 2, up to 1, the feature itself.
            filter_.SetLowerThreshold(0.0)
            filter_.SetUpperThreshold(2.0)
        filter_.SetPropagationScaling(forces.balloon)
        filter_.SetCurvatureScaling(forces.curvature_mm)
        filter_.SetMaximumRMSError(0.0)
        filter_.SetNumberOfIterations(iterations)
        return sitk.GetArrayFromImage(filter_.Execute(self._image(level), self._image(self._speed_at(window, level))))

    def _speed_at(self, window: tuple[slice, ...], level: np.ndarray) -> np.ndarray:
        """(k, j, i) float32; as the front moves outwards where the speed depends on it."""
        speed = self.speed.part(window)
        if speed.steps is None:
            return speed.still
        slopes = np.gradient(level, *self.grid.spacing_kji_mm)
        length = np.maximum(np.sqrt(sum(slope * slope for slope in slopes)), TINY)
        return speed.towards([slope / length for slope in slopes])

    def _image(self, array: np.ndarray) -> SimpleITK.Image:
        """With spacing only: ITK would turn the gradient of the edges into the patient's axes, but not the front's."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.grid.spacing_mm.tolist())
        return image

    def _holds(self, bubble: Bubble) -> bool:
        kji = np.rint(self.grid.to_kji(np.asarray(bubble.centre_lps_mm)))
        return bool(np.all(kji >= 0) and np.all(kji < self.grid.shape_kji))

    def _distance_mm(self, bubble: Bubble) -> np.ndarray:
        """(k, j, i) float32 distance to the bubble's surface, negative inside; the axes are orthogonal."""
        centre = self.grid.to_kji(np.asarray(bubble.centre_lps_mm))
        spacing = self.grid.spacing_kji_mm
        axes = [((np.arange(n) - c) * s) ** 2 for n, c, s in zip(self.grid.shape_kji, centre, spacing, strict=True)]
        distance = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2]).astype(np.float32) - bubble.radius_mm
        nearest = tuple(np.rint(centre).astype(int))
        distance[nearest] = min(distance[nearest], -0.25 * min(spacing))
        return distance


def _at_voxels(array: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    """(k, j, i) float32 linear interpolation, beyond the outermost voxel centres their value."""
    padded = source.crop((-OVERHANG,) * 3, tuple(n + 2 * OVERHANG for n in source.shape_kji))
    return resample(np.pad(array.astype(np.float32, copy=False), OVERHANG, mode="edge"), padded, target, outside=1.0)


def _window(inside: np.ndarray, margin: int) -> tuple[slice, slice, slice] | None:
    """The box of the cubes inside, wider by the margin; None when there are none."""
    found = ndimage.find_objects(inside.view(np.uint8))
    if not found:
        return None
    low, high = ([getattr(s, end) for s in found[0]] for end in ("start", "stop"))
    return tuple(slice(max(0, a - margin), min(n, b + margin)) for a, b, n in zip(low, high, inside.shape, strict=True))


def box_around(geometry: Geometry, bubbles: Sequence[Bubble], margin_mm: float) -> tuple[slice, slice, slice]:
    """The voxels of the grid (k, j, i) within ``margin_mm`` of the bubbles, along the grid's axes.

    Raises ValueError when that lies outside of the grid.
    """
    spacing = np.array(geometry.spacing_kji_mm)
    centres = [geometry.to_kji(np.asarray(bubble.centre_lps_mm)) for bubble in bubbles]
    reach = [(bubble.radius_mm + margin_mm) / spacing for bubble in bubbles]
    low = np.min([c - r for c, r in zip(centres, reach, strict=True)], axis=0)
    high = np.max([c + r for c, r in zip(centres, reach, strict=True)], axis=0)
    start = np.maximum(np.floor(low).astype(int), 0)
    stop = np.minimum(np.ceil(high).astype(int) + 1, geometry.shape_kji)
    if np.any(stop <= start):
        raise ValueError("the bubbles lie outside of the CT: place them inside of the structure")
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def box_geometry(geometry: Geometry, box: tuple[slice, slice, slice]) -> Geometry:
    """The grid of a box of a grid."""
    return geometry.crop(tuple(s.start for s in box), tuple(s.stop - s.start for s in box))


def _surface_voxels(inside: np.ndarray) -> int:
    """How many faces between inside and outside there are: a measure of the front's size in voxels."""
    return sum(int(np.count_nonzero(np.diff(inside, axis=axis))) for axis in range(3))
