"""Working copies of a part of the CT, and the spine's own coordinates, in which tissues are looked for.

Regions are found on averages over small blocks of whole CT voxels: noise falls, a region maps back onto
the CT's voxels without interpolation, and a scan of 300 slices costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import SPINE
from .ctvolume import CTVolume
from .nearby import bounding_box, near
from .rois import Mask

LEVEL_SPACING_MM = 32.0
"""Distance of neighbouring body centres between T12 and L3, used where only one level is known: 26-35 mm
(mean 32) on the four scans and five label maps of development."""

CLIP_HU = (-250.0, 350.0)
"""HU are clipped before smoothing: a metal clip or cortex must not spill into the muscle beside it. Block
averages of muscle and fat never reach these limits, so that no noise is cut off."""

BONE_HU = 180.0
"""Smoothed HU of cortex and laminae; soft tissue beside them stays below, even enhanced muscle."""

WALL_MM = (12.0, 28.0)
"""Where the side wall of a body is looked for, from its centre: half widths of T12 to L3 were 16-26 mm in the
five label maps of development; a kidney begins further out."""

WALL_BAND_MM = 5.0
"""The wall is averaged over this height and depth to either side of the centre: the waist, clear of pedicles."""

WALL_HU = 110.0
"""Mean of clipped HU over the wall's band; lower is no cortex."""

MUSCLE_HU = 50.0
"""What lies outside the wall."""

WALL_SHIFT_MM = 8.0
"""A wall that would move the centre further than this is another structure."""

ROTATION_LIMIT_DEG = 20.0
"""A larger turn of the spinous process than this is taken for a fault of the estimate and limited."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block averages of a box of the CT.

    hu: (k, j, i) float32. start_kji: first CT voxel of the box. factors_kji: CT voxels per block along
    each axis. spacing_kji_mm: block size in mm.
    """

    hu: np.ndarray
    start_kji: tuple[int, int, int]
    factors_kji: tuple[int, int, int]
    spacing_kji_mm: tuple[float, float, float]

    def centres_mm(self, axis: int) -> np.ndarray:
        """(N,) positions of the block centres along one array axis, in mm from CT voxel 0."""
        factor = self.factors_kji[axis]
        index = self.start_kji[axis] + (np.arange(self.hu.shape[axis]) + 0.5) * factor - 0.5
        return index * self.spacing_kji_mm[axis] / factor

    def smoothed(self, sigma_mm: float) -> np.ndarray:
        """(k, j, i) float32 HU after clipping and a 3D Gaussian of sigma_mm."""
        sigma = [sigma_mm / s for s in self.spacing_kji_mm]
        return ndimage.gaussian_filter(np.clip(self.hu, *CLIP_HU), sigma, truncate=3.0)

    def depth_mm(self, region: np.ndarray) -> np.ndarray:
        """(k, j, i) distance of each block centre inside a bool region from its surface, mm; the box's
        faces are no surface."""
        half_block = 0.5 * min(self.spacing_kji_mm)
        depth = np.full(region.shape, np.inf if region.all() else -half_block)
        if (box := bounding_box(region, margin=1)) and not region[box].all():
            depth[box] = ndimage.distance_transform_edt(region[box], sampling=self.spacing_kji_mm) - half_block
        return depth

    def near(self, region: np.ndarray, distance_mm: float) -> np.ndarray:
        """(k, j, i) bool: the region and everything within distance_mm of it."""
        return near(region, distance_mm, self.spacing_kji_mm)

    def volume_mm3(self, region: np.ndarray) -> float:
        return float(np.count_nonzero(region) * np.prod(self.spacing_kji_mm))

    def to_mask(self, region: np.ndarray) -> Mask:
        """A bool region of blocks as a mask on the CT's own voxels."""
        where = np.argwhere(region)
        if where.size == 0:
            return Mask.from_array(np.zeros((1, 1, 1), bool))
        low, high = where.min(axis=0), where.max(axis=0) + 1
        voxels = region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        for axis, factor in enumerate(self.factors_kji):
            voxels = np.repeat(voxels, factor, axis=axis)
        start = np.asarray(self.start_kji) + low * np.asarray(self.factors_kji)
        return Mask.from_array(voxels, tuple(int(s) for s in start))

    def from_mask(self, mask: Mask) -> np.ndarray:
        """(k, j, i) bool: blocks of which at least half lies in a mask on the CT's grid."""
        size = [n * f for n, f in zip(self.hu.shape, self.factors_kji, strict=True)]
        box = np.zeros(size, bool)
        source, target = [], []
        for s, n, start, length in zip(mask.start_kji, mask.voxels.shape, self.start_kji, size, strict=True):
            low, high = max(s, start), min(s + n, start + length)
            if low >= high:
                return np.zeros(self.hu.shape, bool)
            source.append(slice(low - s, high - s))
            target.append(slice(low - start, high - start))
        box[tuple(target)] = mask.voxels[tuple(source)]
        return _block_mean(box, self.factors_kji) >= 0.5


def _block_mean(array: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Means over blocks; the shape must be a multiple of the factors. One float32 array of the result's size
    is all the memory it takes."""
    fk, fj, fi = factors
    total = np.zeros([n // f for n, f in zip(array.shape, factors, strict=True)], np.float32)
    for k in range(fk):
        for j in range(fj):
            for i in range(fi):
                total += array[k::fk, j::fj, i::fi]
    return total / (fk * fj * fi)


def average_blocks(ct: CTVolume, low_kji: tuple[int, int, int], high_kji: tuple[int, int, int],
                   block_mm: tuple[float, float, float]) -> Blocks:
    """Averages of the CT over blocks of about block_mm (k, j, i), in the box [low, high) of CT indices.

    The box is cut to the CT and to whole blocks. Raises ValueError when nothing of it is left.
    """
    spacing = ct.geometry.spacing_kji_mm
    factors = tuple(max(1, round(b / s)) for b, s in zip(block_mm, spacing, strict=True))
    low = [max(0, int(v)) for v in low_kji]
    high = [min(n, int(v)) for n, v in zip(ct.hu.shape, high_kji, strict=True)]
    count = [(b - a) // f for a, b, f in zip(low, high, factors, strict=True)]
    if min(count) < 1:
        raise ValueError(f"the box {tuple(low_kji)}..{tuple(high_kji)} does not lie in a CT of {ct.hu.shape}")
    box = tuple(slice(a, a + n * f) for a, n, f in zip(low, count, factors, strict=True))
    size = tuple(s * f for s, f in zip(spacing, factors, strict=True))
    return Blocks(_block_mean(ct.hu[box], factors), tuple(low), factors, size)


@dataclass(frozen=True, eq=False)
class SpineFrame:
    """The course of the vertebral bodies, one row per known level and one continued at either end.

    All arrays (N,), sorted from foot to head, in mm from CT voxel 0 along the array axes. level: 0 at the
    centre of T12, 1 at L1, 2 at L2 (fractions between). half_width_mm, half_depth_mm: of the body's waist.
    flare_mm: by how much the end plates stand out beyond the waist. turn_rad: how far the spinous process
    points to the patient's left.
    """

    z_mm: np.ndarray
    y_mm: np.ndarray
    x_mm: np.ndarray
    level: np.ndarray
    half_width_mm: np.ndarray
    half_depth_mm: np.ndarray
    flare_mm: np.ndarray
    turn_rad: np.ndarray

    def at(self, values: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
        """One of the frame's arrays interpolated at heights z_mm."""
        return np.interp(z_mm, self.z_mm, values)

    def height_of(self, level: float) -> float:
        """z in mm of a level (may be fractional); the ends of the frame beyond it."""
        return float(np.interp(level, self.level[::-1], self.z_mm[::-1]))


@dataclass(frozen=True, eq=False)
class LocalCoordinates:
    """Where blocks lie relative to the vertebral bodies.

    left_mm, behind_mm: (k, j, i) distance to the patient's left of, and behind, the body's centre, in the
    vertebra's own axes. level, half_width_mm, half_depth_mm, flare_mm: (k, 1, 1), of each slice.
    """

    left_mm: np.ndarray
    behind_mm: np.ndarray
    level: np.ndarray
    half_width_mm: np.ndarray
    half_depth_mm: np.ndarray
    flare_mm: np.ndarray

    def column(self, margin_mm: float) -> np.ndarray:
        """(k, j, i) bool: bodies and discs, and margin_mm round them, as an elliptic column with end plates."""
        from_waist = np.abs(self.level - np.round(self.level)) * 2.0
        grow = self.flare_mm * from_waist + margin_mm
        return ((self.left_mm / (self.half_width_mm + grow)) ** 2
                + (self.behind_mm / (self.half_depth_mm + grow)) ** 2) <= 1.0


def _body_row(mask: Mask, spacing: tuple[float, float, float]) -> tuple[float, ...]:
    """(z, y, x, half width, half depth, flare) of one body mask, mm; the waist is its middle third."""
    kji = np.argwhere(mask.voxels)
    low, high = np.percentile(kji, [1, 99], axis=0)
    third = (high[0] - low[0]) / 6
    middle = kji[np.abs(kji[:, 0] - (low[0] + high[0]) / 2) <= max(third, 0.5)]
    waist_low, waist_high = np.percentile(middle, [1, 99], axis=0)
    centre = (np.asarray(mask.start_kji) + [(low[0] + high[0]) / 2, *((waist_low + waist_high) / 2)[1:]]) * spacing
    half = ((waist_high - waist_low)[1:] + 1) / 2 * np.asarray(spacing[1:])
    widest = ((high - low)[2] + 1) / 2 * spacing[2]
    return (*centre, half[1], half[0], max(0.0, float(widest - half[1])))


def _with_walls(ct: CTVolume, row: tuple[float, ...]) -> tuple[float, ...]:
    """A body row whose middle and half width are set by the bright side walls, where both are seen near it."""
    z, y, x, width, depth, flare = row
    walls = [_wall_mm(ct, (z, y, x), side) for side in (-1.0, 1.0)]
    if None in walls:
        return row
    middle, half = x + (walls[1] - walls[0]) / 2, (walls[0] + walls[1]) / 2
    if abs(middle - x) > WALL_SHIFT_MM:
        return row
    return z, y, middle, half, depth, max(0.0, width + flare - half)


def _wall_mm(ct: CTVolume, centre_mm: tuple[float, float, float], side: float) -> float | None:
    """Distance from a body's centre to its side wall (half height of the cortex), or None without a clear one."""
    spacing = np.asarray(ct.geometry.spacing_kji_mm)
    reach = sorted((side * (WALL_MM[0] - 4.0), side * (WALL_MM[1] + 6.0)))
    low = np.asarray(centre_mm) + [-WALL_BAND_MM, -WALL_BAND_MM, reach[0]]
    high = np.asarray(centre_mm) + [WALL_BAND_MM, WALL_BAND_MM, reach[1]]
    try:
        blocks = average_blocks(ct, tuple(np.floor(low / spacing)), tuple(np.ceil(high / spacing)), (2.0, 2.0, 1.0))
    except ValueError:
        return None
    profile = np.clip(blocks.hu, *CLIP_HU).mean(axis=(0, 1))
    away = side * (blocks.centres_mm(2) - centre_mm[2])
    order = np.argsort(away)
    away, profile = away[order], profile[order]
    inside = (away >= WALL_MM[0]) & (away <= WALL_MM[1])
    if not inside.any():
        return None
    peak = int(np.flatnonzero(inside)[profile[inside].argmax()])
    below = np.flatnonzero(profile[peak:] < (profile[peak] + MUSCLE_HU) / 2)
    if profile[peak] < WALL_HU or below.size == 0:
        return None
    return float(away[peak + below[0]])


def _continued(rows: np.ndarray) -> np.ndarray:
    """Rows (level, z, y, x, ...) with one level more at either end, along the slope of the outermost two."""
    step = np.zeros(rows.shape[1])
    step[:2] = 1.0, -LEVEL_SPACING_MM
    first = last = step
    if len(rows) > 1:
        first = (rows[1] - rows[0]) / (rows[1, 0] - rows[0, 0])
        last = (rows[-1] - rows[-2]) / (rows[-1, 0] - rows[-2, 0])
    only_course = np.arange(rows.shape[1]) < 4
    return np.vstack([rows[0] - first * only_course, rows, rows[-1] + last * only_course])


def spine_frame(ct: CTVolume, bodies: Mapping[str, Mask]) -> SpineFrame:
    """The spine's course from body masks named by level (T12, L1, ...), empty ones left out.

    Raises ValueError when no level is left, or a name is no vertebra.
    """
    unknown = [name for name in bodies if name not in SPINE]
    if unknown:
        raise ValueError(f"bodies are named by level (T12, L1, ...), not {unknown[0]!r}")
    spacing = ct.geometry.spacing_kji_mm
    rows = [(SPINE.index(name) - SPINE.index("T12"), *_with_walls(ct, _body_row(mask, spacing)))
            for name, mask in bodies.items() if not mask.empty]
    if not rows:
        raise ValueError("no vertebral body is known: tissues are looked for beside one")
    table = np.array(sorted(rows))
    turn = [_turn_rad(ct, row[1:]) for row in table]
    table = _continued(np.column_stack([table, turn]))[::-1]
    level, z, y, x, width, depth, flare, turn_rad = table.T
    return SpineFrame(z, y, x, level, width, depth, flare, turn_rad)


def _turn_rad(ct: CTVolume, row: np.ndarray) -> float:
    """How far laminae and spinous process lie to the left of straight behind the body's centre, radians."""
    z, y, x, _, depth, _ = row
    spacing = np.asarray(ct.geometry.spacing_kji_mm)
    low = np.array([z - 16.0, y + depth + 14.0, x - 24.0]) / spacing
    high = np.array([z + 12.0, y + depth + 52.0, x + 24.0]) / spacing
    try:
        blocks = average_blocks(ct, tuple(np.ceil(low)), tuple(np.floor(high)), (2.0, 2.0, 2.0))
    except ValueError:
        return 0.0
    bone = np.argwhere(blocks.hu > BONE_HU)
    if len(bone) < 20:
        return 0.0
    at = [blocks.centres_mm(axis)[bone[:, axis]].mean() for axis in (1, 2)]
    limit = np.radians(ROTATION_LIMIT_DEG)
    return float(np.clip(np.arctan2(at[1] - x, at[0] - y), -limit, limit))


def local_coordinates(blocks: Blocks, frame: SpineFrame) -> LocalCoordinates:
    """Coordinates of every block relative to the spine."""
    z = blocks.centres_mm(0)

    def slices(values: np.ndarray) -> np.ndarray:
        return frame.at(values, z).astype(np.float32)[:, None, None]

    dy = blocks.centres_mm(1).astype(np.float32)[None, :, None] - slices(frame.y_mm)
    dx = blocks.centres_mm(2).astype(np.float32)[None, None, :] - slices(frame.x_mm)
    cos, sin = np.cos(slices(frame.turn_rad)), np.sin(slices(frame.turn_rad))
    return LocalCoordinates(dx * cos - dy * sin, dx * sin + dy * cos, slices(frame.level),
                            slices(frame.half_width_mm), slices(frame.half_depth_mm), slices(frame.flare_mm))
