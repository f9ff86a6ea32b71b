"""Surfaces of single segments, made in a thread, so that a window stays alive meanwhile.

vtkSegmentation converts all segments at once and waits: a second for the spine of a chest CT. VTK lets go of Python's
lock while a filter works, so the same in a thread does not hold anybody up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import slicer
import vtk

from .segments import LABELMAP, SURFACE


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


class SurfaceMaker:
    """Begins to make the surface of a segment that holds voxels; ``finish`` puts it there when ``done``."""

    def __init__(self, node: slicer.vtkMRMLSegmentationNode, name: str) -> None:
        self.name = name
        self._node = node
        segment = node.GetSegmentation().GetSegment(name)
        image = segment.GetRepresentation(LABELMAP)
        self._drawn = image.GetMTime()
        self._surface: vtk.vtkPolyData | None = None
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        self._thread = threading.Thread(target=self._make, args=(_voxels(image), segment.GetLabelValue(), matrix),
                                        daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def finish(self) -> bool:
        """Give the segment its surface. False when it has none, or was drawn in or removed meanwhile."""
        segment = self._node.GetSegmentation().GetSegment(self.name)
        image = None if segment is None else segment.GetRepresentation(LABELMAP)
        if self._surface is None or image is None or image.GetMTime() != self._drawn:
            return False
        segment.AddRepresentation(SURFACE, self._surface)
        if self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().Modified()
        return True

    def _make(self, voxels: vtk.vtkImageData, label: int, to_world: vtk.vtkMatrix4x4) -> None:
        surface = surface_of(voxels, label, to_world)
        if surface.GetNumberOfCells():
            self._surface = surface


def surface_of(voxels: vtk.vtkImageData, label: int, to_world: vtk.vtkMatrix4x4) -> vtk.vtkPolyData:
    """The closed, smoothed surface round the voxels of a label, in the world. voxels: indices as coordinates."""
    padded = vtk.vtkImageConstantPad()
    padded.SetInputData(voxels)
    padded.SetOutputWholeExtent([edge + (1 if n % 2 else -1) for n, edge in enumerate(voxels.GetExtent())])
    nets = vtk.vtkSurfaceNets3D()
    nets.SetInputConnection(padded.GetOutputPort())
    nets.SetValue(0, label)
    nets.SmoothingOn()
    transform = vtk.vtkTransform()
    transform.SetMatrix(to_world)
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetTransform(transform)
    placed.SetInputConnection(nets.GetOutputPort())
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(placed.GetOutputPort())
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _voxels(image: slicer.vtkOrientedImageData) -> vtk.vtkImageData:
    """A copy that nobody else touches, with indices as coordinates."""
    copy = vtk.vtkImageData()
    copy.SetExtent(image.GetExtent())
    scalars = image.GetPointData().GetScalars().NewInstance()
    scalars.DeepCopy(image.GetPointData().GetScalars())
    copy.GetPointData().SetScalars(scalars)
    return copy
