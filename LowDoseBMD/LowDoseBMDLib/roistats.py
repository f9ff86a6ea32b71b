"""What the CT reads inside a region: HU statistics and an honest standard error of the mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .ctvolume import CTVolume
from .rois import Mask

BLOCK_MM = 5.0
"""Edge of the blocks whose means give the standard error: 4 voxels of 1.25 mm, the least that
decorrelates CT noise (block means of >= 4^3 voxels); neighbouring voxels share noise, 5 mm blocks hardly."""

MINIMUM_BLOCKS = 6
"""Fewer blocks give no usable spread; then each block's volume counts as one independent sample."""


@dataclass(frozen=True)
class RoiStats:
    """HU statistics of one region or several pooled ones; NaN where the region holds no finite voxel.

    hu_sd: of single voxels. hu_block_sd: of the means of BLOCK_MM blocks, hence nearly free of noise.
    hu_se: standard error of hu_mean under correlated noise.
    """

    count: int
    volume_mm3: float
    hu_mean: float
    hu_sd: float
    hu_median: float
    hu_se: float
    hu_block_sd: float


NO_STATS = RoiStats(0, 0.0, *(float("nan"),) * 5)


def clip(mask: Mask, shape_kji: tuple[int, int, int]) -> Mask:
    """The part of a mask that lies on a grid of this shape; masks may reach over the edge or lie outside."""
    start = np.asarray(mask.start_kji)
    low = np.maximum(start, 0)
    high = np.minimum(start + mask.voxels.shape, shape_kji)
    if np.any(high <= low):
        return Mask(np.zeros((0, 0, 0), bool), (0, 0, 0))
    inner = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    return Mask(mask.voxels[inner], tuple(int(n) for n in low))


def hu_inside(ct: CTVolume, mask: Mask) -> np.ndarray:
    """(N,) finite HU of the CT inside a mask, float64; empty for a mask outside the scan."""
    values = clip(mask, ct.hu.shape).values(ct.hu).astype(float)
    return values[np.isfinite(values)]


def read_region(ct: CTVolume, masks: Iterable[Mask]) -> RoiStats:
    """HU statistics of masks pooled voxel by voxel, on the CT's own grid (nothing is resampled)."""
    values, blocks = [], []
    edge = np.maximum(2, np.rint(BLOCK_MM / np.asarray(ct.geometry.spacing_kji_mm))).astype(int)
    for mask in masks:
        inner = clip(mask, ct.hu.shape)
        values.append(inner.values(ct.hu).astype(float))
        blocks.append((np.argwhere(inner.voxels) + inner.start_kji) // edge)
    if not values:
        return NO_STATS
    hu, block = np.concatenate(values), np.concatenate(blocks)
    finite = np.isfinite(hu)
    return _statistics(hu[finite], block[finite], float(np.prod(edge)), ct.geometry.voxel_volume_mm3)


def _statistics(hu: np.ndarray, block_kji: np.ndarray, block_voxels: float, voxel_mm3: float) -> RoiStats:
    if hu.size == 0:
        return NO_STATS
    mean, sd = float(hu.mean()), float(hu.std(ddof=1)) if hu.size > 1 else 0.0
    error, block_sd = _block_spread(hu - mean, block_kji, block_voxels)
    return RoiStats(hu.size, hu.size * voxel_mm3, mean, sd, float(np.median(hu)), error, block_sd)


def _block_spread(deviation: np.ndarray, block_kji: np.ndarray, block_voxels: float) -> tuple[float, float]:
    """Standard error of the mean and SD of block means, from deviations (N,) and block indices (N, 3).

    Cluster-robust: SE^2 = B/(B-1) * sum_b (sum of deviations in block b)^2 / N^2, so that partly filled
    blocks at the rim count by their voxels. Never below the SE of independent voxels.
    """
    n = deviation.size
    low = block_kji.min(axis=0)
    ids = np.ravel_multi_index((block_kji - low).T, block_kji.max(axis=0) - low + 1)
    counts = np.bincount(ids)
    sums = np.bincount(ids, weights=deviation)[counts > 0]
    counts = counts[counts > 0]
    blocks = counts.size
    sd = float(np.sqrt(np.sum(deviation**2) / max(n - 1, 1)))
    whole = counts >= 0.5 * block_voxels
    block_sd = float(np.std(sums[whole] / counts[whole], ddof=1)) if whole.sum() > 2 else float("nan")
    if blocks < MINIMUM_BLOCKS:
        return sd / np.sqrt(max(1.0, n / block_voxels)), block_sd
    clustered = np.sqrt(blocks / (blocks - 1) * np.sum(sums**2)) / n
    return float(max(clustered, sd / np.sqrt(n))), block_sd
