"""Keypoints as a point list with a point for each level, known by its name."""

from __future__ import annotations

import numpy as np
import slicer
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.geometry import lps_to_ras
from LowDoseBMDLib.rois import Keypoint

NAME_COLOUR = (1.0, 0.94, 0.35)
"""Legible on bone, soft tissue and air, and no region's colour."""

MOVED_MM = 0.01
"""Smaller differences are rounding of a saved file, not a reader's hand."""


def create_keypoints(scene: slicer.vtkMRMLScene, name: str) -> slicer.vtkMRMLMarkupsFiducialNode:
    """A point list with T12, L1 and L2, none of them placed yet."""
    node = slicer.vtkMRMLMarkupsFiducialNode()
    node.SetName(name)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    for level in LEVELS:
        _index(node, level)
    display = node.GetDisplayNode()
    display.SetSelectedColor(NAME_COLOUR)
    display.SetColor(NAME_COLOUR)
    display.SetTextScale(3.0)
    display.GetTextProperty().SetBold(True)
    display.GetTextProperty().SetShadow(True)
    display.SetGlyphScale(1.2)
    return node


def write_keypoints(node: slicer.vtkMRMLMarkupsFiducialNode, keypoints: tuple[Keypoint, ...]) -> None:
    """Place the points of these levels; levels that are not given become unplaced, points that were removed come back."""
    placed = {point.level: point.position_lps_mm for point in keypoints}
    shown = {point.level: point.position_lps_mm for point in read_keypoints(node)}
    for level in LEVELS:
        index = _index(node, level)
        if level in placed and not _same(placed[level], shown.get(level)):
            node.SetNthControlPointPosition(index, *lps_to_ras(np.array(placed[level])).tolist())
        elif level not in placed and level in shown:
            node.UnsetNthControlPointPosition(index)


def _index(node: slicer.vtkMRMLMarkupsFiducialNode, level: str) -> int:
    """Index of the level's point; an unplaced one is added where there is none.

    The number of points is not fixed: Slicer 5.12 reads a point list of a fixed number from a stored scene as empty.
    """
    index = node.GetControlPointIndexByLabel(level)
    if index >= 0:
        return index
    index = node.AddControlPoint(0.0, 0.0, 0.0, level)
    node.UnsetNthControlPointPosition(index)
    return index


def read_keypoints(node: slicer.vtkMRMLMarkupsFiducialNode) -> tuple[Keypoint, ...]:
    """The placed points in the world, whoever placed them; confidence is not stored in the node."""
    found = []
    for level in LEVELS:
        index = node.GetControlPointIndexByLabel(level)
        if index >= 0 and node.GetNthControlPointPositionStatus(index) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            x, y, z = lps_to_ras(np.array(node.GetNthControlPointPositionWorld(index)))
            found.append(Keypoint(level, (float(x), float(y), float(z))))
    return tuple(found)


def moved_keypoints(node: slicer.vtkMRMLMarkupsFiducialNode, known: tuple[Keypoint, ...]) -> tuple[Keypoint, ...]:
    """Points that were placed or dragged since ``known``."""
    before = {point.level: point.position_lps_mm for point in known}
    return tuple(point for point in read_keypoints(node) if not _same(point.position_lps_mm, before.get(point.level)))


def lock(node: slicer.vtkMRMLMarkupsFiducialNode, locked: bool) -> None:
    """Let a reader drag the points, or not."""
    node.SetLocked(locked)


def _same(first: tuple[float, ...], second: tuple[float, ...] | None) -> bool:
    return second is not None and float(np.abs(np.subtract(first, second)).max()) <= MOVED_MM
