"""Where voxels lie in the patient: the one file that converts between index orders and coordinate systems.

Conventions of the whole library: arrays are indexed (k, j, i) like SimpleITK's and numpy's view of a volume;
points are in LPS, millimetres (x towards the patient's Left, y Posterior, z Superior), as in DICOM and ITK.
Slicer and NIfTI use RAS: flip the signs of x and y, here only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import SimpleITK

    from .rois import Mask

GRID_TOLERANCE_MM = 1e-2
"""Two grids whose corners differ by less are the same grid: NIfTI headers round at 1e-4..1e-3 mm."""


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
             nearest: bool = False) -> np.ndarray:
    """Values of ``array`` (k, j, i on ``source``) at the voxels of ``target``.

    Linear interpolation, or nearest neighbour for label maps. When the target is coarser, images are first
    averaged over whole blocks of source voxels so that thin cortex does not alias. ``outside`` fills what lies
    beyond the source. Returns the dtype of the input.
    """
    import SimpleITK as sitk

    bins = np.floor(target.spacing_mm / source.spacing_mm + 1e-6).astype(int)
    if nearest or bins.max() <= 1:
        image = source.to_image(array)
    else:
        bins = np.maximum(bins, 1)
        short = (-np.array(array.shape)) % bins[::-1]
        padded = np.pad(array, [(0, n) for n in short], mode="edge") if short.any() else array
        image = sitk.BinShrink(replace(source, shape_kji=padded.shape).to_image(padded), bins.tolist())
    grid = sitk.Resample(
        image, target.shape_kji[::-1], sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        target.ijk_to_lps[:3, 3].tolist(), target.spacing_mm.tolist(), target.direction.ravel().tolist(),
        float(outside), image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(grid).astype(bool if array.dtype == bool else array.dtype, copy=False)


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


def draw_mask(chance: np.ndarray, source: Geometry, target: Geometry, threshold: float = 0.5) -> Mask:
    """The region where ``chance`` (k, j, i on ``source``, float) exceeds the threshold, drawn on ``target``.

    The chance, not a binary mask, is interpolated, so that borders have no steps of the coarse grid. Only the
    region's surroundings are computed.
    """
    from .rois import Mask

    found = ndimage.find_objects((chance > 0.5 * threshold).astype(np.uint8))
    if not found:
        return Mask.from_array(np.zeros((1, 1, 1), bool))
    low = np.array([s.start for s in found[0]]) - 1
    high = np.array([s.stop for s in found[0]])
    corners = target.to_kji(source.to_lps(np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T))
    start = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    stop = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, target.shape_kji)
    if np.any(stop <= start):
        return Mask.from_array(np.zeros((1, 1, 1), bool))
    grid = target.crop(tuple(start), tuple(stop - start))
    box = tuple(slice(max(0, a), b + 1) for a, b in zip(low, high, strict=True))
    cut = np.ascontiguousarray(chance[box], dtype=np.float32)
    part = source.crop(tuple(s.start for s in box), cut.shape)
    return Mask.from_array(resample(cut, part, grid, outside=0.0) > threshold, tuple(int(n) for n in start))
