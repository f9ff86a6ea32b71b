"""Boxes round regions, and what lies near them: bool arrays (k, j, i) on any grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROUNDING = 1e-6
"""Of distances counted in voxels: one that is reached exactly is reached."""


def bounding_box(region: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds a bool region (k, j, i), as far as the array goes margin voxels larger to every side; None
    when it is empty."""
    plane = region.any(axis=0)
    rows = [np.flatnonzero(along) for along in (region.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0))]
    if not rows[0].size:
        return None
    return tuple(slice(max(0, int(row[0]) - margin), min(size, int(row[-1]) + 1 + margin))
                 for row, size in zip(rows, region.shape, strict=True))


def near(region: np.ndarray, distance_mm: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """(k, j, i) bool: a region and every voxel whose centre lies at most distance_mm from one of its voxels.

    spacing_mm: along k, j, i, or along j, i: then each slice is looked at alone. The region is moved by every step that is
    short enough: for a few voxels much faster than a distance transform, and the same.
    """
    spacing_mm = (np.inf,) * (3 - len(spacing_mm)) + tuple(spacing_mm)
    reach = [int(distance_mm / s + ROUNDING) for s in spacing_mm]
    found, wide, widened = np.zeros_like(region), region.copy(), 0
    for width, k, j in sorted(_row_steps(distance_mm, spacing_mm, reach)):
        for i in range(widened + 1, width + 1):
            _add_moved(wide, region, (0, 0, i))
            _add_moved(wide, region, (0, 0, -i))
        widened = width
        _add_moved(found, wide, (k, j, 0))
    return found


def deeper(region: np.ndarray, depth_mm: float, spacing_ji_mm: tuple[float, float]) -> np.ndarray:
    """(k, j, i) bool: voxels of a region further than depth_mm, in their slice, from all that is outside of it. Beyond the
    array is outside."""
    outside = np.pad(~region, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    return ~near(outside, depth_mm, spacing_ji_mm)[:, 1:-1, 1:-1]


def _row_steps(distance_mm: float, spacing_mm: tuple[float, ...], reach: list[int]) -> Iterator[tuple[int, int, int]]:
    """(voxels along i that are within distance_mm, k, j) for each step along k and j."""
    for k in range(-reach[0], reach[0] + 1):
        for j in range(-reach[1], reach[1] + 1):
            left = distance_mm**2 - sum((n * s)**2 for n, s in zip((k, j), spacing_mm, strict=False) if n)
            if left > -ROUNDING:
                yield int(np.sqrt(max(left, 0.0)) / spacing_mm[2] + ROUNDING), k, j


def _add_moved(found: np.ndarray, region: np.ndarray, steps: tuple[int, int, int]) -> None:
    """Add a region, moved by whole voxels, to another one in place."""
    to = tuple(slice(max(0, n), min(size, size + n)) for n, size in zip(steps, region.shape, strict=True))
    source = tuple(slice(max(0, -n), min(size, size - n)) for n, size in zip(steps, region.shape, strict=True))
    found[to] |= region[source]
