"""The views: layout, window of the CT, where they look, and how regions are drawn in them."""

from __future__ import annotations

from typing import Any

import slicer
from LowDoseBMDLib.anatomy import STRUCTURES

WINDOWS_HU: dict[str, tuple[float, float]] = {"bone": (1800.0, 400.0), "soft_tissue": (400.0, 40.0)}
"""Width and level of the presets."""

SPINE_FIELD_MM = 180.0
"""Shorter side of a slice view: five vertebrae, psoas and the abdominal wall in front of them."""

OUTLINE_PIXELS = 1


def showFourUp() -> None:
    """Axial, coronal and sagittal views, and 3D."""
    showLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)


def showLayout(layout: int) -> None:
    """One of Slicer's layouts; no effect in a program without a window."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(layout)


def showVolume(volumeNode: Any) -> None:
    """The CT in the background of every slice view, fitted to it."""
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)


def setWindow(volumeNode: Any, preset: str) -> None:
    """Window of the CT. preset: a key of WINDOWS_HU."""
    display = volumeNode.GetDisplayNode()
    if display is None:
        volumeNode.CreateDefaultDisplayNodes()
        display = volumeNode.GetDisplayNode()
    if display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(*WINDOWS_HU[preset])


def showSpine(positionRas: tuple[float, float, float]) -> None:
    """Every slice view near the spine round a point: a body fills a fifth of it. positionRas: mm."""
    for sliceNode in _sliceNodes():
        width, height, depth = sliceNode.GetFieldOfView()
        factor = SPINE_FIELD_MM / max(min(width, height), 1.0)
        sliceNode.SetFieldOfView(width * factor, height * factor, depth)
    centreOn(positionRas)


def show3D() -> None:
    """All that the 3D views hold, from the front."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.resetThreeDViews()


def _sliceNodes() -> list[Any]:
    manager = slicer.app.layoutManager()
    names = manager.sliceViewNames() if manager is not None else ()
    return [manager.sliceWidget(name).mrmlSliceNode() for name in names]


def centreOn(positionRas: tuple[float, float, float]) -> None:
    """Every slice view goes through the point and has it in its middle. positionRas: mm."""
    sliceNode = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode")
    if sliceNode is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *positionRas,
                                              slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def drawRegions(segmentationNode: Any, filled: bool, opacity: float) -> None:
    """Outlines of one pixel, and the inside filled or not; bones stay outlines. opacity: of the inside, 0..1."""
    display = segmentationNode.GetDisplayNode()
    if display is None:
        return
    display.SetVisibility2DFill(filled)
    display.SetVisibility2DOutline(True)
    display.SetSliceIntersectionThickness(OUTLINE_PIXELS)
    for name in segmentationNode.GetSegmentation().GetSegmentIDs():
        if name in STRUCTURES and STRUCTURES[name].group != "bone":
            display.SetSegmentOpacity2DFill(name, opacity)
