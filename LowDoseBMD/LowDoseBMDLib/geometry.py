"""Where voxels lie in the patient: the one file that converts between index orders and coordinate systems.

Conventions of the whole library: arrays are indexed (k, j, i) like SimpleITK's and numpy's view of a volume;
points are in LPS, millimetres (x towards the patient's Left, y Posterior, z Superior), as in DICOM and ITK.
Slicer and NIfTI use RAS: flip the signs of x and y, here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .nearby import bounding_box

if TYPE_CHECKING:
    import SimpleITK

    from .rois import Mask

GRID_TOLERANCE_MM = 1e-2
"""Two grids whose corners differ by less are the same grid: NIfTI headers round at 1e-4..1e-3 mm."""

MARGIN_VOXELS = 2
"""Of a grid, round what a target covers: linear interpolation needs one."""

_MOST_INT16 = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid in the patient.

    shape_kji: number of voxels along k, j, i. ijk_to_lps: (4, 4) float64, maps homogeneous voxel indices
    (i, j, k) at voxel centres to LPS mm; its axes must be orthogonal.
    """

    shape_kji: tuple[int, int, int]
    ijk_to_lps: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) distance between voxel centres along i, j, k, in mm."""
        return np.linalg.norm(self.ijk_to_lps[:3, :3], axis=0)

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Spacing in array order, as scipy.ndimage's ``sampling`` wants it."""
        i, j, k = self.spacing_mm
        return float(k), float(j), float(i)

    @property
    def direction(self) -> np.ndarray:
        """(3, 3) unit columns: where the axes i, j, k point in LPS."""
        return self.ijk_to_lps[:3, :3] / self.spacing_mm

    @property
    def voxel_volume_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def to_lps(self, kji: np.ndarray) -> np.ndarray:
        """(..., 3) array indices (k, j, i), may be fractional -> (..., 3) LPS mm."""
        ijk = np.asarray(kji, dtype=float)[..., ::-1]
        return ijk @ self.ijk_to_lps[:3, :3].T + self.ijk_to_lps[:3, 3]

    def to_kji(self, lps_mm: np.ndarray) -> np.ndarray:
        """(..., 3) LPS mm -> (..., 3) fractional array indices (k, j, i)."""
        inverse = np.linalg.inv(self.ijk_to_lps)
        ijk = np.asarray(lps_mm, dtype=float) @ inverse[:3, :3].T + inverse[:3, 3]
        return ijk[..., ::-1]

    def same_grid(self, other: Geometry, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """True when both have the same shape and every corner lies within the tolerance."""
        if self.shape_kji != other.shape_kji:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape_kji])).reshape(3, -1).T
        return bool(np.abs(self.to_lps(corners) - other.to_lps(corners)).max() <= tolerance_mm)

    def crop(self, start_kji: tuple[int, int, int], shape_kji: tuple[int, int, int]) -> Geometry:
        """The sub-grid that begins at start_kji; indices outside the grid are allowed (padding)."""
        matrix = self.ijk_to_lps.copy()
        matrix[:3, 3] = self.to_lps(np.asarray(start_kji))
        return Geometry(tuple(int(n) for n in shape_kji), matrix)

    def with_spacing(self, spacing_mm: float | tuple[float, float, float]) -> Geometry:
        """A grid over the same extent with another spacing (mm along i, j, k); keeps the outer corner."""
        new = np.broadcast_to(np.asarray(spacing_mm, dtype=float), 3)
        size_ijk = np.asarray(self.shape_kji[::-1]) * self.spacing_mm
        shape_ijk = np.maximum(1, np.ceil(size_ijk / new - 1e-6).astype(int))
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * new
        corner = self.to_lps(np.full(3, -0.5))
        matrix[:3, 3] = corner + matrix[:3, :3] @ np.full(3, 0.5)
        return Geometry(tuple(int(n) for n in shape_ijk[::-1]), matrix)

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """(4, 4) voxel indices (i, j, k) -> RAS mm, as Slicer and NIfTI want it."""
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.ijk_to_lps

    @staticmethod
    def from_ijk_to_ras(shape_kji: tuple[int, int, int], ijk_to_ras: np.ndarray) -> Geometry:
        """The inverse of ijk_to_ras."""
        return Geometry(shape_kji, np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras)

    @staticmethod
    def from_image(image: SimpleITK.Image) -> Geometry:
        """Geometry of a 3D SimpleITK image."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        matrix[:3, 3] = image.GetOrigin()
        return Geometry(tuple(int(n) for n in image.GetSize()[::-1]), matrix)

    def to_image(self, array: np.ndarray) -> SimpleITK.Image:
        """A SimpleITK image of ``array`` (k, j, i) on this grid; the array's shape must be the grid's."""
        import SimpleITK as sitk

        if array.shape != self.shape_kji:
            raise ValueError(f"array of shape {array.shape} does not lie on a grid of shape {self.shape_kji}")
        image = sitk.GetImageFromArray(array.astype(np.uint8) if array.dtype == bool else array)
        image.SetOrigin(self.ijk_to_lps[:3, 3].tolist())
        image.SetSpacing(self.spacing_mm.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        return image


def lps_to_ras(points_mm: np.ndarray) -> np.ndarray:
    """(..., 3) LPS mm <-> RAS mm (its own inverse)."""
    return np.asarray(points_mm, dtype=float) * np.array([-1.0, -1.0, 1.0])


def ras_point(lps_mm: Sequence[float]) -> tuple[float, float, float]:
    """One point LPS mm <-> RAS mm (its own inverse), as plain numbers."""
    x, y, z = lps_to_ras(lps_mm)
    return float(x), float(y), float(z)


def resample(array: np.ndarray, source: Geometry, target: Geometry, outside: float,
             nearest: bool = False, lowest: float | None = None) -> np.ndarray:
    """Values of ``array`` (k, j, i on ``source``) at the voxels of ``target``.

    Linear interpolation, or nearest neighbour for label maps. When the target is coarser, images are first
    averaged over whole blocks of source voxels so that thin cortex does not alias. ``outside`` fills what lies
    beyond the source; values below ``lowest`` are averaged as if they were it. Returns the dtype of the input.
    """
    import SimpleITK as sitk

    bins = np.floor(target.spacing_mm / source.spacing_mm + 1e-6).astype(int)
    if not nearest:
        bins_kji = tuple(int(n) for n in np.maximum(bins, 1)[::-1])
        if lowest is not None or max(bins_kji) > 1:
            array, source = _block_means(array, source, bins_kji, lowest, target)
    image = source.to_image(array)
    grid = sitk.Resample(
        image, target.shape_kji[::-1], sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        target.ijk_to_lps[:3, 3].tolist(), target.spacing_mm.tolist(), target.direction.ravel().tolist(),
        float(outside), image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(grid).astype(bool if array.dtype == bool else array.dtype, copy=False)


def _block_means(array: np.ndarray, source: Geometry, bins_kji: tuple[int, int, int], lowest: float | None,
                 target: Geometry) -> tuple[np.ndarray, Geometry]:
    """Means over blocks of so many voxels, of the array's type (halves are rounded up), and their grid; 0 where the target
    does not look.

    The array's last slice, row and column stand for those that its last blocks lack. One slice of blocks is summed at a
    time, so that no copy of the array is made.
    """
    bins_k, bins_j, bins_i = bins_kji
    count = int(np.prod(bins_kji))
    means = np.zeros([-(-n // b) for n, b in zip(array.shape, bins_kji, strict=True)], array.dtype)
    matrix = source.ijk_to_lps.copy()
    matrix[:3, :3] *= bins_kji[::-1]
    matrix[:3, 3] = source.to_lps((np.array(bins_kji) - 1) / 2)
    grid = Geometry(means.shape, matrix)
    seen_k, seen_j, seen_i = _seen(grid, target)
    box = slice(seen_j.start * bins_j, seen_j.stop * bins_j), slice(seen_i.start * bins_i, seen_i.stop * bins_i)
    for k in range(seen_k.start, seen_k.stop):
        slab = array[(slice(k * bins_k, (k + 1) * bins_k), *box)]
        slab = slab if lowest is None else np.maximum(slab, array.dtype.type(lowest))
        planes = [slab[min(n, len(slab) - 1)] for n in range(bins_k)]
        narrow = array.dtype == np.int16 and max(-int(slab.min()), int(slab.max())) * bins_k * bins_j <= _MOST_INT16
        rows = _total(planes if narrow else [_wide(plane) for plane in planes])
        rows = np.pad(rows, [(0, -n % b) for n, b in zip(rows.shape, (bins_j, bins_i), strict=True)], mode="edge")
        rows = _wide(_total([rows[n::bins_j] for n in range(bins_j)]))
        total = _total([rows[:, n::bins_i] for n in range(bins_i)])
        means[k, seen_j, seen_i] = total / count if total.dtype.kind == "f" else (2 * total + count) // (2 * count)
    return means, grid


def _seen(grid: Geometry, target: Geometry) -> tuple[slice, slice, slice]:
    """The voxels of a grid that bear on a target's voxels."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in target.shape_kji))).reshape(3, -1).T
    kji = grid.to_kji(target.to_lps(corners))
    low = np.floor(kji.min(axis=0)).astype(int) - MARGIN_VOXELS
    high = np.ceil(kji.max(axis=0)).astype(int) + 1 + MARGIN_VOXELS
    return tuple(slice(min(max(a, 0), n - 1), max(min(b, n), 1)) for a, b, n in zip(low, high, grid.shape_kji, strict=True))


def _total(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Their sum, in their own type."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _wide(values: np.ndarray) -> np.ndarray:
    """In a type in which a block's sum is exact."""
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int32 if values.itemsize <= 2 else np.int64)


def move_voxels(array: np.ndarray, source: Geometry, target: Geometry) -> tuple[np.ndarray, tuple[int, int, int], bool]:
    """A region from one grid on another: the bool array (k, j, i) along the target's axes, the target's index of its
    first voxel (which may lie outside of the target), and whether it was moved exactly.

    Where the voxels of both grids coincide, in any order of axes, the region is turned and nothing is lost; else each
    target voxel takes the nearest source voxel.
    """
    if array.size == 0:
        return np.zeros((0, 0, 0), bool), (0, 0, 0), True
    to_target = np.linalg.inv(target.ijk_to_lps) @ source.ijk_to_lps
    turn, offset = np.rint(to_target[:3, :3]).astype(int), np.rint(to_target[:3, 3]).astype(int)
    coincide = np.all(np.abs(turn).sum(axis=0) == 1) and np.all(np.abs(turn).sum(axis=1) == 1)
    last = np.array(source.shape_kji[::-1]) - 1
    corners = np.array(np.meshgrid(*zip((0, 0, 0), last, strict=True))).reshape(3, -1).T
    drift = (corners @ (to_target[:3, :3] - turn).T + to_target[:3, 3] - offset) * target.spacing_mm
    if not coincide or np.abs(drift).max() > GRID_TOLERANCE_MM:
        return resample(array, source, target, outside=0, nearest=True), (0, 0, 0), False
    axes = np.abs(turn).argmax(axis=1)
    flips = turn[np.arange(3), axes] < 0
    low = np.minimum(offset, offset + turn @ last)
    order = tuple(2 - int(a) for a in axes[::-1])
    turned = array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips[::-1])]
    return turned, tuple(int(n) for n in low[::-1]), True


CELL_VOXELS = 16
"""A region is drawn cell by cell, each so many voxels of its own grid wide: ribs fill a tenth of the box round them."""


def draw_mask(chance: np.ndarray, source: Geometry, target: Geometry, threshold: float = 0.5) -> Mask:
    """The region where ``chance`` (k, j, i on ``source``, float) exceeds the threshold, drawn on ``target``.

    The chance, not a binary mask, is interpolated (linear; half a voxel beyond the source's edge it stays what it is there,
    further out it is 0), so that borders have no steps of the coarse grid; on a coarser target it is averaged first, as in
    resample. Only the region's surroundings are computed.
    Raises ValueError when the axes of both grids have not the same directions.
    """
    from .rois import Mask

    if not np.allclose(source.direction, target.direction, atol=1e-6):
        raise ValueError("a region is drawn on grids with axes of the same directions only")
    bins_kji = np.maximum(1, np.floor(target.spacing_mm / source.spacing_mm + 1e-6).astype(int))[::-1]
    if bins_kji.max() > 1 and (box := bounding_box(chance > 0.5 * threshold, margin=1)):
        part = source.crop(tuple(s.start for s in box), chance[box].shape)
        chance, source = _block_means(chance[box].astype(np.float32, copy=False), part, tuple(bins_kji), None, part)
    drawn = [_draw_cell(chance, source, target, threshold, cell) for cell in _cells(chance > 0.5 * threshold)]
    drawn = [(start, part) for start, part in drawn if part.any()]
    if not drawn:
        return Mask.from_array(np.zeros((1, 1, 1), bool))
    low = np.min([start for start, _ in drawn], axis=0)
    high = np.max([start + part.shape for start, part in drawn], axis=0)
    whole = np.zeros(high - low, bool)
    for start, part in drawn:
        whole[tuple(slice(a, a + n) for a, n in zip(start - low, part.shape, strict=True))] |= part
    return Mask.from_array(whole, tuple(int(n) for n in low))


def _cells(found: np.ndarray) -> list[tuple[slice, ...]]:
    """Boxes round the true voxels in each cell of CELL_VOXELS that holds any."""
    counts = [-(-n // CELL_VOXELS) for n in found.shape]
    k, j, i = (np.arange(n, dtype=np.int32) // CELL_VOXELS for n in found.shape)
    number = (k[:, None, None] * counts[1] + j[:, None]) * counts[2] + i + 1
    return [cell for cell in ndimage.find_objects(np.where(found, number, 0)) if cell]


def _draw_cell(chance: np.ndarray, source: Geometry, target: Geometry, threshold: float,
               cell: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What the voxels of a box bear on: the index of the first target voxel, and bool (k, j, i)."""
    ends = target.to_kji(source.to_lps([[s.start - 1 for s in cell], [s.stop for s in cell]]))
    start = np.maximum(np.floor(ends[0]).astype(int), 0)
    shape = np.maximum(np.minimum(np.ceil(ends[1]).astype(int) + 1, target.shape_kji) - start, 0)
    first, step = source.to_kji(target.to_lps(start)), np.array(target.spacing_kji_mm) / source.spacing_kji_mm
    part = chance
    for axis, size in enumerate(chance.shape):
        at = first[axis] + step[axis] * np.arange(shape[axis])
        inside = np.clip(at, 0, size - 1)
        low = np.minimum(inside.astype(int), max(size - 2, 0))
        share = (inside - low).astype(np.float32)
        here = (np.abs(at - inside) <= 0.5).astype(np.float32)
        along = [1] * axis + [-1] + [1] * (2 - axis)
        part = part.take(low, axis) * (here * (1 - share)).reshape(along) + part.take(
            np.minimum(low + 1, size - 1), axis) * (here * share).reshape(along)
    return start, part > threshold
