"""Stage 1, bones: the 3D-ResUNet over the whole CT."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import BONES
from .ctvolume import CTVolume
from .geometry import Geometry, draw_mask, resample
from .inference import Engine, Progress, predict, silent, softmax
from .nearby import bounding_box
from .rois import NO_VOXELS, Mask

MAX_TILE_KJI = (144, 128, 128)
"""A chest at 3 mm, of up to 430 mm, fits one such tile; a tile this size takes about 0.4 GB while it runs."""

MIN_PIECE_MM3 = 600.0
"""Smaller separate pieces of a bone class are dropped: specks in vessels, couch and bowel. A short twelfth rib has
1,000 to 3,000 mm3."""

AIR_HU = -1000.0

OTHER = "other bone"
"""Output of bone networks that keep bones apart which are not measured."""


@dataclass(frozen=True, eq=False)
class Bones:
    """What the bone network found.

    geometry: the network's grid. chance: (len(BONES), k, j, i) float32, probability of vertebrae, clavicles,
    scapulae and ribs, zero where a piece was too small to be kept. other: (k, j, i) of bones that are not measured (sternum,
    humeri, hips, sacrum); None where the network does not tell them from background.
    """

    geometry: Geometry
    chance: np.ndarray
    other: np.ndarray | None = None

    def of(self, name: str) -> np.ndarray:
        """(k, j, i) probability of one bone class of anatomy.BONES."""
        return self.chance[BONES.index(name)]

    def masks(self, geometry: Geometry, names: Collection[str] = BONES) -> dict[str, Mask]:
        """Those of the named bones that were found, drawn on a CT's grid."""
        drawn = {name: draw_mask(self.of(name), self.geometry, geometry) for name in BONES if name in names}
        return {name: mask for name, mask in drawn.items() if not mask.empty}

    def other_mask(self, geometry: Geometry) -> Mask:
        """Bones that are not measured, drawn on a CT's grid; empty where the network does not know them."""
        return NO_VOXELS if self.other is None else draw_mask(self.other, self.geometry, geometry)


def segment_bones(ct: CTVolume, engine: Engine, progress: Progress = silent) -> Bones:
    """Vertebrae, clavicles, scapulae and ribs of a CT."""
    grid = ct.geometry.with_spacing(engine.bundle.spacing_mm)
    hu = resample(ct.hu, ct.geometry, grid, outside=AIR_HU)
    chance = softmax(predict(engine, hu, MAX_TILE_KJI, progress=progress, stage="finding the bones"))
    outputs = engine.bundle.outputs
    wanted = chance[[outputs.index(name) for name in BONES]]
    other = chance[[outputs.index(name) for name in outputs if name == OTHER]]
    for values in (*wanted, *other):
        drop_specks(values, grid)
    return Bones(grid, wanted, other[0] if len(other) else None)


def drop_specks(chance: np.ndarray, grid: Geometry) -> None:
    """Set the chance (k, j, i) of a bone to 0, in place, where a piece of it is smaller than MIN_PIECE_MM3."""
    chance[(chance > 0.25) & ~_large_pieces(chance > 0.5, grid.voxel_volume_mm3)] = 0.0


def _large_pieces(mask: np.ndarray, voxel_mm3: float) -> np.ndarray:
    """The mask's connected pieces of at least MIN_PIECE_MM3, grown by one voxel so that soft borders stay."""
    large = np.zeros_like(mask)
    if box := bounding_box(mask, margin=1):
        pieces, count = ndimage.label(mask[box])
        keep = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_mm3 >= MIN_PIECE_MM3
        keep[0] = False
        large[box] = ndimage.binary_dilation(keep[pieces])
    return large
