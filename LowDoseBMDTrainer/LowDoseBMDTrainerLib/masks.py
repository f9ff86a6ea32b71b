"""Masks put together and taken apart, inside their bounding boxes: a stroke touches a thousandth of a CT."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from LowDoseBMDLib.rois import Mask


def apart(masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """The masks without voxels in common: each voxel stays with the first that has it."""
    found: dict[str, Mask] = {}
    for name, mask in masks.items():
        for before in found.values():
            mask = without(mask, before)
        found[name] = mask
    return found


def inside(mask: Mask, frame: Mask) -> np.ndarray:
    """Bool of the frame's box: where the mask has voxels."""
    found = np.zeros(frame.voxels.shape, bool)
    low = [max(a, b) for a, b in zip(mask.start_kji, frame.start_kji, strict=True)]
    high = [min(a.stop, b.stop) for a, b in zip(mask.box, frame.box, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        found[_part(low, high, frame)] = mask.voxels[_part(low, high, mask)]
    return found


def _part(low: list[int], high: list[int], mask: Mask) -> tuple[slice, ...]:
    return tuple(slice(a - start, b - start) for a, b, start in zip(low, high, mask.start_kji, strict=True))


def joined(mask: Mask, added: Mask) -> Mask:
    """Both together; each cropped to its bounding box, as the result is."""
    if mask.empty:
        return added
    low = [min(a, b) for a, b in zip(mask.start_kji, added.start_kji, strict=True)]
    high = [max(a.stop, b.stop) for a, b in zip(mask.box, added.box, strict=True)]
    voxels = np.zeros([b - a for a, b in zip(low, high, strict=True)], bool)
    whole = Mask(voxels, tuple(low))
    for each in (mask, added):
        voxels[_part([s.start for s in each.box], [s.stop for s in each.box], whole)] |= each.voxels
    return whole


def without(mask: Mask, taken: Mask) -> Mask:
    """The mask less the voxels of another; the same object when they do not meet."""
    there = inside(taken, mask) & mask.voxels
    return Mask.from_array(mask.voxels & ~there, mask.start_kji) if there.any() else mask
