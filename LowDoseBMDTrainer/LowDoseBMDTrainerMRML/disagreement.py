"""The map of disagreement of two annotators as a segmentation over the CT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask
from LowDoseBMDMRML.segments import create_segmentation, write_region
from LowDoseBMDMRML.volumes import node_grid
from LowDoseBMDTrainerLib.raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND

COLOURS: Mapping[int, tuple[int, int, int]] = {ONLY_FIRST: (0, 114, 178), ONLY_SECOND: (230, 159, 0),
                                               DIFFERENT: (204, 121, 167)}
"""From Okabe and Ito's palette for colour-blind readers."""

FILL_OPACITY = 0.6


@dataclass(frozen=True, eq=False)
class MapParts:
    """Regions of a map by its values, on ``geometry``; values that do not occur are left out."""

    masks: Mapping[int, Mask]
    geometry: Geometry


def read_map(path: Path) -> MapParts:
    """The regions of a map's file; takes up to a second, and touches no scene. Raises ValueError when it cannot be read."""
    from LowDoseBMDLib.files.read import read_label_map

    labels, geometry = read_label_map(path)
    return MapParts({value: Mask.from_array(labels == value, (0, 0, 0)) for value in COLOURS if np.any(labels == value)},
                    geometry)


def create_map(volume_node: slicer.vtkMRMLScalarVolumeNode, parts: MapParts,
               readers: tuple[str, str]) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of a map over the CT, each value a segment that says in words who drew it; not to be edited."""
    names = {ONLY_FIRST: f"only {readers[0]}", ONLY_SECOND: f"only {readers[1]}", DIFFERENT: "both, as different structures"}
    node = create_segmentation(volume_node.GetScene(), volume_node, f"Disagreement of {readers[0]} and {readers[1]}")
    node.SetSaveWithScene(False)
    grid, display = node_grid(volume_node), node.GetDisplayNode()
    for value, mask in parts.masks.items():
        write_region(node, grid, names[value], mask, parts.geometry)
        node.GetSegmentation().GetSegment(names[value]).SetColor(*(part / 255 for part in COLOURS[value]))
        display.SetSegmentOpacity2DFill(names[value], FILL_OPACITY)
    return node


def remove_map(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Take a map with its display out of its scene."""
    scene, display = node.GetScene(), node.GetDisplayNode()
    if scene is not None:
        scene.RemoveNode(node)
        if display is not None and display.GetScene() is scene:
            scene.RemoveNode(display)
