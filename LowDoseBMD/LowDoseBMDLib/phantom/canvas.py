"""The grid on which shapes are painted, each inside its bounding box, with anti-aliased edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

AIR_HU = -1000.0
SLAB_SLICES = 4
"""Slices painted at once by shapes that fill the scan: such a slab stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Box:
    """Part of the canvas: its slices (k, j, i) and the LPS coordinates of its voxels, ready to broadcast.

    x: (1, 1, I), y: (1, J, 1), z: (K, 1, 1), float32 mm.
    """

    slices: tuple[slice, slice, slice]
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.shape[0], self.y.shape[1], self.x.shape[2]


class Canvas:
    """HU, labels and vertebral parts under construction, on a grid along the LPS axes.

    x_mm, y_mm, z_mm: coordinates of voxel centres along i, j, k. edge_mm: width over which an edge fades, about
    one voxel, which gives each voxel the mean of what it covers.
    """

    def __init__(self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray) -> None:
        self.axes = tuple(np.asarray(a, np.float32) for a in (z_mm, y_mm, x_mm))
        shape = tuple(len(a) for a in self.axes)
        self.step = tuple(float(a[1] - a[0]) for a in self.axes)
        self.edge_mm = float(np.mean(self.step))
        self.hu = np.full(shape, AIR_HU, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.part = np.zeros(shape, np.uint8)

    def box(self, low_mm: np.ndarray, high_mm: np.ndarray) -> Box | None:
        """The part of the canvas between two corners (x, y, z), or None when it lies outside."""
        slices = []
        for axis, step, low, high in zip(self.axes, self.step, low_mm[::-1], high_mm[::-1], strict=True):
            first = max(0, int(np.floor((low - axis[0]) / step)))
            last = min(len(axis), int(np.ceil((high - axis[0]) / step)) + 1)
            if last <= first:
                return None
            slices.append(slice(first, last))
        return self._cut(tuple(slices))

    def _cut(self, slices: tuple[slice, slice, slice]) -> Box:
        z, y, x = (axis[s] for axis, s in zip(self.axes, slices, strict=True))
        return Box(slices, x[None, None, :], y[None, :, None], z[:, None, None])

    def slabs(self, low_mm: np.ndarray | None = None, high_mm: np.ndarray | None = None) -> Iterator[Box]:
        """The canvas, or its part between two corners, in slabs of a few slices."""
        far = np.full(3, 1e5)
        box = self.box(-far if low_mm is None else low_mm, far if high_mm is None else high_mm)
        if box is None:
            return
        k, j, i = box.slices
        for first in range(k.start, k.stop, SLAB_SLICES):
            yield self._cut((slice(first, min(first + SLAB_SLICES, k.stop)), j, i))

    def cover(self, distance_mm: np.ndarray) -> np.ndarray:
        """Fraction of each voxel inside a surface, from its signed distance (negative inside)."""
        cover = distance_mm * np.float32(-1.0 / self.edge_mm)
        cover += np.float32(0.5)
        return np.clip(cover, 0, 1, out=cover)

    def paint(self, box: Box, distance_mm: np.ndarray, hu: float | np.ndarray, label: int,
              only: tuple[int, ...] | None = None) -> None:
        """Lay one tissue over what is there; ``only``: just over these labels."""
        view, labels = self.hu[box.slices], self.labels[box.slices]
        cover = self.cover(distance_mm)
        inside = distance_mm < 0
        if only is not None:
            allowed = np.isin(labels, only)
            cover *= allowed
            inside &= allowed
        view += cover * (hu - view)
        labels[inside] = label

    def paint_bone(self, box: Box, distance_mm: np.ndarray, label: int, core_hu: float | np.ndarray,
                   cortex_hu: float | np.ndarray, cortex_mm: float, part: int = 0) -> None:
        """Lay a bone over what is there: a dense shell of cortex_mm round a core."""
        view = self.hu[box.slices]
        outer, inner = self.cover(distance_mm), self.cover(distance_mm + np.float32(cortex_mm))
        view *= 1 - outer
        view += (outer - inner) * cortex_hu
        view += inner * core_hu
        inside = distance_mm < 0
        self.labels[box.slices][inside] = label
        self.part[box.slices][inside] = part
