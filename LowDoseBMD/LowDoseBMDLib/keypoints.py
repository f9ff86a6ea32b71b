"""Stage 2, keypoints: the Attention-UNet's heatmaps of the vertebral levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bones import AIR_HU
from .ctvolume import CTVolume
from .geometry import Geometry, resample
from .inference import Engine, Progress, predict, sigmoid, silent

MAX_TILE_KJI = (128, 80, 112)
"""A whole trunk at 5 mm in one tile: the network needs to see where in the body it looks."""

REACH_MM = 6.0
"""A heatmap speaks for a vertebral body when its value is taken within this distance of the body's centre: the error
of the centres (1-4 mm on real scans) and half a voxel, a quarter of the distance between neighbours."""


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Where the network sees each level.

    levels: names of the channels, head to foot. geometry: the network's grid. chance: (len(levels), k, j, i)
    float32, 0..1.
    """

    levels: tuple[str, ...]
    geometry: Geometry
    chance: np.ndarray

    def at(self, position_lps_mm: np.ndarray) -> np.ndarray:
        """(len(levels),) highest value of each channel within REACH_MM of a place."""
        centre = self.geometry.to_kji(position_lps_mm)
        reach = REACH_MM / np.array(self.geometry.spacing_kji_mm)
        low = np.maximum(np.floor(centre - reach).astype(int), 0)
        high = np.ceil(centre + reach).astype(int) + 1
        box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
        part = self.chance[(slice(None), *box)]
        if part.size == 0:
            return np.zeros(len(self.levels))
        index = np.stack(np.meshgrid(*[np.arange(s.start, s.start + n) for s, n in
                                       zip(box, part.shape[1:], strict=True)], indexing="ij"), axis=-1)
        near = np.linalg.norm((index - centre) * self.geometry.spacing_kji_mm, axis=-1) <= REACH_MM
        return np.where(near, part, 0.0).reshape(len(self.levels), -1).max(axis=1)


def find_keypoints(ct: CTVolume, engine: Engine, progress: Progress = silent) -> Heatmaps:
    """Heatmaps of the levels that the network knows, over the whole CT."""
    grid = ct.geometry.with_spacing(engine.bundle.spacing_mm)
    hu = resample(ct.hu, ct.geometry, grid, outside=AIR_HU)
    logits = predict(engine, hu, MAX_TILE_KJI, progress=progress, stage="finding T12, L1 and L2")
    return Heatmaps(engine.bundle.outputs, grid, sigmoid(logits))
