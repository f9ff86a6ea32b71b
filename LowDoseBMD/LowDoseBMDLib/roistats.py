"""What the CT reads inside a region: HU statistics and an honest standard error of the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .ctvolume import CTVolume
from .rois import NO_VOXELS, Mask

BLOCK_MM = 6.0
"""Edge of the blocks whose means give the standard error. Neighbouring voxels share noise, such blocks hardly:
on simulated noise (8 cm3 region) the error found is 1.0 of the true one for a point spread of 1.2 mm FWHM, 0.9 for
1.6 mm, 0.7 for 2.4-2.8 mm, which only very smooth kernels have; larger blocks gain little and scatter more."""

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
        return NO_VOXELS
    inner = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    return Mask(mask.voxels[inner], tuple(int(n) for n in low))


def hu_inside(ct: CTVolume, mask: Mask) -> np.ndarray:
    """(N,) finite HU of the CT inside a mask, float64; empty for a mask outside the scan."""
    values = clip(mask, ct.hu.shape).values(ct.hu).astype(float)
    return values[np.isfinite(values)]


def read_region(ct: CTVolume, masks: Iterable[Mask]) -> RoiStats:
    """HU statistics of masks pooled voxel by voxel, on the CT's own grid (nothing is resampled)."""
    edge = np.maximum(2, np.rint(BLOCK_MM / np.asarray(ct.geometry.spacing_kji_mm))).astype(int)
    values, blocks, used = [np.zeros(0)], [np.zeros(0, int)], 0
    for mask in masks:
        inner = clip(mask, ct.hu.shape)
        hu, block = inner.values(ct.hu).astype(float), _block_ids(inner, edge)
        finite = np.isfinite(hu)
        values.append(hu[finite])
        blocks.append(block[finite] + used)
        used += int(block.max(initial=-1)) + 1
    return _statistics(np.concatenate(values), np.concatenate(blocks), int(np.prod(edge)),
                       ct.geometry.voxel_volume_mm3)


def _block_ids(mask: Mask, edge_kji: np.ndarray) -> np.ndarray:
    """(N,) number of the block in which each voxel of the mask lies; blocks are cubes of the mask's box."""
    k, j, i = (np.arange(n) // e for n, e in zip(mask.voxels.shape, edge_kji, strict=True))
    rows, columns = j.max(initial=0) + 1, i.max(initial=0) + 1
    return ((k[:, None, None] * rows + j[:, None]) * columns + i)[mask.voxels]


def _statistics(hu: np.ndarray, block: np.ndarray, block_voxels: int, voxel_mm3: float) -> RoiStats:
    if hu.size == 0:
        return NO_STATS
    mean, sd = float(hu.mean()), float(hu.std(ddof=1)) if hu.size > 1 else 0.0
    error, block_sd = _block_spread(hu - mean, block, block_voxels, sd)
    return RoiStats(hu.size, hu.size * voxel_mm3, mean, sd, float(np.median(hu)), error, block_sd)


def _block_spread(deviation: np.ndarray, block: np.ndarray, block_voxels: int, sd: float) -> tuple[float, float]:
    """Standard error of the mean and SD of block means, from deviations (N,) and block numbers (N,).

    Cluster-robust: SE^2 = B/(B-1) * sum_b (sum of deviations in block b)^2 / N^2, so that partly filled
    blocks at the rim count by their voxels. Never below the SE of independent voxels.
    """
    n, counts = deviation.size, np.bincount(block)
    sums = np.bincount(block, weights=deviation)[counts > 0]
    counts = counts[counts > 0]
    half_full = counts >= 0.5 * block_voxels
    block_sd = float(np.std(sums[half_full] / counts[half_full], ddof=1)) if half_full.sum() > 2 else math.nan
    if counts.size < MINIMUM_BLOCKS:
        return sd / math.sqrt(max(1.0, n / block_voxels)), block_sd
    clustered = math.sqrt(counts.size / (counts.size - 1) * float(np.sum(sums**2))) / n
    return max(clustered, sd / math.sqrt(n)), block_sd
