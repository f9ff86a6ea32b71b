"""Between the regions of a study and its nodes: shown, read where they were touched, read back whole."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.exchange import rois_from_state, rois_state
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Mask, Rois

from . import markups, segments
from .study import Study
from .volumes import node_grid

ROUNDING_MM = 1e-6
"""Files store spacing and direction apart, which changes the last digits of positions."""


def show_rois(study: Study, rois: Rois, shown: Rois | None) -> None:
    """Write into the study's nodes what differs from what they show; all of it when that is None."""
    grid = node_grid(study.volume_node)
    before = dict.fromkeys(segments.OFFERED) if shown is None else shown.masks
    for name in {**before, **rois.masks}:
        mask = rois.masks.get(name)
        if mask is None or mask is not before.get(name):
            _show_region(study, grid, name, mask, rois.geometry)
    _show_spine(study, grid, rois, () if shown is None else _bodies(shown))
    segments.order_segments(study.segmentation_node)
    markups.write_keypoints(study.keypoints_node, rois.keypoints)


def _show_region(study: Study, grid: Geometry, name: str, mask: Mask | None, geometry: Geometry) -> None:
    node = study.segmentation_node
    if mask is None and name not in segments.OFFERED:
        node.GetSegmentation().RemoveSegment(name)
    else:
        segments.write_region(node, grid, name, NO_VOXELS if mask is None else mask, geometry)


def _bodies(rois: Rois) -> tuple[Mask, ...]:
    return tuple(vertebra.body for vertebra in rois.spine)


def _show_spine(study: Study, grid: Geometry, rois: Rois, shown: tuple[Mask, ...]) -> None:
    bodies = _bodies(rois)
    for number, body in enumerate(bodies):
        if shown[number:number + 1] != (body,):
            segments.write_region(study.spine_node, grid, _spine_id(number), body, rois.geometry)
    for number in range(len(bodies), study.spine_node.GetSegmentation().GetNumberOfSegments()):
        study.spine_node.GetSegmentation().RemoveSegment(_spine_id(number))


def _spine_id(number: int) -> str:
    """Vertebral bodies are numbered from the head, whatever they are called."""
    return f"vertebral_body_{number + 1}"


def separate_regions(study: Study) -> bool:
    """Give every measured region an image of its own again, where Slicer put several into one, as it does when it saves
    them: else each stroke in one of them would have all of them read. True when there was something to do."""
    shared = [name for name in segments.shared_regions(study.segmentation_node) if STRUCTURES[name].group != "bone"]
    for name in shared:
        segments.separate(study.segmentation_node, name)
    return bool(shared)


def region_times(study: Study) -> dict[str, int]:
    """For every region a number that changes when its voxels may have changed."""
    return {name: segments.region_time(study.segmentation_node, name) for name in STRUCTURES}


def read_regions(study: Study, names: list[str], geometry: Geometry) -> dict[str, Mask]:
    """These regions as their segments hold them now."""
    return {name: segments.read_region(study.segmentation_node, name, geometry) for name in names}


def state_of(rois: Rois) -> dict[str, Any]:
    """All that the nodes' voxels do not hold, and a check sum of those that do; the counterpart of rois_of."""
    return {**rois_state(rois), "ijk_to_lps": rois.geometry.ijk_to_lps.tolist(),
            "masks": {name: _check_sum(name, mask) for name, mask in rois.masks.items()}}


def stored_grid(state: Mapping[str, Any], geometry: Geometry) -> Geometry:
    """The grid that was measured, where the one that was read is the same but for the rounding of files."""
    stored = Geometry(geometry.shape_kji, np.array(state["ijk_to_lps"]))
    return stored if geometry.same_grid(stored, ROUNDING_MM) else geometry


def rois_of(study: Study, state: Mapping[str, Any], geometry: Geometry) -> Rois:
    """The regions of a scene that was stored. Raises ValueError when the state does not fit the nodes."""
    masks = read_regions(study, list(state["masks"]), geometry)
    spine = tuple(segments.read_region(study.spine_node, _spine_id(number), geometry)
                  for number in range(len(state["places"])))
    return rois_from_state(state, geometry, masks, spine)


def strange_regions(rois: Rois, state: Mapping[str, Any]) -> dict[str, Mask]:
    """Regions whose voxels are not those that were there when the state was stored."""
    return {name: mask for name, mask in rois.masks.items() if _check_sum(name, mask) != state["masks"].get(name)}


def _check_sum(name: str, mask: Mask) -> int:
    """0 for bones: they are large and no number rests on them."""
    if mask.empty or STRUCTURES[name].group == "bone":
        return 0
    tight = Mask.from_array(mask.voxels, mask.start_kji)
    return zlib.crc32(np.packbits(tight.voxels).tobytes() + repr((tight.start_kji, tight.voxels.shape)).encode())
