"""Surfaces of single segments, so that a window can make them one after the other and stay alive."""

from __future__ import annotations

from collections.abc import Iterable

import slicer

LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def missing_surfaces(node: slicer.vtkMRMLSegmentationNode, names: Iterable[str]) -> list[str]:
    """Segments of ``names`` that hold voxels but no surface: never made, or dropped when something was drawn."""
    segmentation = node.GetSegmentation()
    found = []
    for name in names:
        segment = segmentation.GetSegment(name)
        image = None if segment is None else segment.GetRepresentation(LABELMAP)
        if image is not None and not image.IsEmpty() and segment.GetRepresentation(SURFACE) is None:
            found.append(name)
    return found


def make_surface(node: slicer.vtkMRMLSegmentationNode, name: str) -> bool:
    """Make the surface of one segment; False when its voxels give none.

    vtkSegmentation converts all segments at once; here the segment is converted in a segmentation of its own.
    """
    segment = node.GetSegmentation().GetSegment(name)
    alone = slicer.vtkSegmentation()
    alone.CopyConversionParameters(node.GetSegmentation())
    copy = slicer.vtkSegment()
    copy.SetLabelValue(segment.GetLabelValue())
    copy.AddRepresentation(LABELMAP, segment.GetRepresentation(LABELMAP))
    alone.AddSegment(copy, name)
    if not alone.CreateRepresentation(SURFACE):
        return False
    surface = copy.GetRepresentation(SURFACE)
    if surface is None or surface.GetNumberOfCells() == 0:
        return False
    segment.AddRepresentation(SURFACE, surface)
    return True
