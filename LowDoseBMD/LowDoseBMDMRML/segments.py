"""Regions as segments: the registry's names, colours and codes, voxels on the CT's own grid.

A segment's id is the region's name. Every segment has a labelmap of its own, as regions lie inside each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import slicer
import vtk
from LowDoseBMDLib.anatomy import BONES, LEVELS, STRUCTURES
from LowDoseBMDLib.files.segmentation import terminology_entry
from LowDoseBMDLib.geometry import Geometry, move_voxels
from LowDoseBMDLib.rois import NO_VOXELS, Mask
from LowDoseBMDLib.roistats import clip
from vtk.util.numpy_support import vtk_to_numpy

from .volumes import matrix_array, node_grid, vtk_matrix

LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
_REFERENCE = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()

OFFERED: tuple[str, ...] = (*BONES, *(f"{part}_{level}" for level in LEVELS for part in ("body", "trabecular")),
                            "psoas_left", "psoas_right", "fat_anterior")
"""Regions that stand in the list even when they were not found, so that a reader can draw them."""

FILL_OPACITY, BONE_FILL_OPACITY = 0.3, 0.0
BONE_OPACITY_3D = 0.35
OUTLINE_PIXELS = 1


def create_segmentation(scene: slicer.vtkMRMLScene, volume_node: slicer.vtkMRMLScalarVolumeNode,
                        name: str) -> slicer.vtkMRMLSegmentationNode:
    """An empty segmentation whose reference geometry is the CT's grid."""
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(name)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume_node.GetID())
    grid = node_grid(volume_node)
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(
        vtk_matrix(grid.ijk_to_ras), _labelmap((0, 0, 0), tuple(grid.shape_kji), None))
    node.GetSegmentation().SetConversionParameter(_REFERENCE, text)
    node.GetDisplayNode().SetSliceIntersectionThickness(OUTLINE_PIXELS)
    return node


def write_region(node: slicer.vtkMRMLSegmentationNode, grid: Geometry, name: str, mask: Mask,
                 geometry: Geometry) -> None:
    """Put a region into its segment, which is made when it is not there.

    grid: the volume node's own grid (volumes.node_grid). mask: on ``geometry``, the canonical grid of the same CT.
    """
    image, segmentation = _image(grid, mask, geometry), node.GetSegmentation()
    segment = segmentation.GetSegment(name) or _add_segment(node, name, image)
    if segment.GetRepresentation(LABELMAP) is not image:
        segment.AddRepresentation(LABELMAP, image)  # not written into the old image: that would drop ALL surfaces
    if segment.GetLabelValue() != 1:
        segment.SetLabelValue(1)
    if segment.GetRepresentation(SURFACE) is not None:
        segment.RemoveRepresentation(SURFACE)
    segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified, name)


def read_region(node: slicer.vtkMRMLSegmentationNode, name: str, geometry: Geometry) -> Mask:
    """The region that a segment holds now, on ``geometry``; empty when there is no such segment."""
    segment = node.GetSegmentation().GetSegment(name)
    image = None if segment is None else segment.GetRepresentation(LABELMAP)
    low_i, high_i, low_j, high_j, low_k, high_k = (0, -1) * 3 if image is None else image.GetExtent()
    if high_i < low_i or high_j < low_j or high_k < low_k:
        return NO_VOXELS
    shape = (high_k - low_k + 1, high_j - low_j + 1, high_i - low_i + 1)
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    inside = Mask.from_array(labels == segment.GetLabelValue(), (low_k, low_j, low_i))
    if inside.empty:
        return inside
    to_ras = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_ras)
    origin = Geometry.from_ijk_to_ras((1, 1, 1), matrix_array(to_ras))
    stored = origin.crop(inside.start_kji, inside.voxels.shape)
    voxels, start, _exact = move_voxels(inside.voxels, stored, geometry)
    return clip(Mask.from_array(voxels, start), geometry.shape_kji)


def region_time(node: slicer.vtkMRMLSegmentationNode, name: str) -> int:
    """Changes whenever the voxels of a segment may have changed; 0 when there is none."""
    segment = node.GetSegmentation().GetSegment(name)
    image = None if segment is None else segment.GetRepresentation(LABELMAP)
    return 0 if image is None else image.GetMTime()


def shared_regions(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    """Regions whose segments lie in one image with others."""
    segmentation = node.GetSegmentation()
    images = {name: segmentation.GetSegment(name).GetRepresentation(LABELMAP) for name in segmentation.GetSegmentIDs()
              if name in STRUCTURES}
    counts = Counter(map(id, images.values()))
    return [name for name, image in images.items() if image is not None and counts[id(image)] > 1]


def separate(node: slicer.vtkMRMLSegmentationNode, name: str) -> None:
    """Give a segment an image of its own with the same voxels; its surface stays."""
    segment = node.GetSegmentation().GetSegment(name)
    shared = segment.GetRepresentation(LABELMAP)
    own = slicer.vtkOrientedImageData()
    own.DeepCopy(shared)
    labels = vtk_to_numpy(own.GetPointData().GetScalars())
    labels[:] = labels == segment.GetLabelValue()
    segment.AddRepresentation(LABELMAP, own)
    if segment.GetLabelValue() != 1:
        segment.SetLabelValue(1)


def order_segments(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Segments in the order of the registry, in which a reader meets them."""
    segmentation = node.GetSegmentation()
    present = segmentation.GetSegmentIDs()
    wanted = sorted(present, key=lambda name: list(STRUCTURES).index(name) if name in STRUCTURES else len(STRUCTURES))
    if list(present) != wanted:
        segmentation.ReorderSegments(wanted)


def lock(node: slicer.vtkMRMLSegmentationNode, names: Iterable[str], locked: bool) -> None:
    """Mark segments as completed, or as in progress again, as Slicer shows it in its list."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    status = logic.Completed if locked else logic.InProgress
    for name in names:
        segment = node.GetSegmentation().GetSegment(name)
        if segment is not None:
            logic.SetSegmentStatus(segment, status)


def _add_segment(node: slicer.vtkMRMLSegmentationNode, name: str,
                 image: slicer.vtkOrientedImageData) -> slicer.vtkSegment:
    segment = slicer.vtkSegment()
    structure = STRUCTURES.get(name)
    segment.SetName(structure.title if structure else name)
    if structure:
        segment.SetColor(*(part / 255 for part in structure.colour))
        segment.SetTerminology(terminology_entry(structure))
    segment.AddRepresentation(LABELMAP, image)
    node.GetSegmentation().AddSegment(segment, name)
    bone = bool(structure) and structure.group == "bone"
    display = node.GetDisplayNode()
    display.SetSegmentOpacity2DFill(name, BONE_FILL_OPACITY if bone else FILL_OPACITY)
    display.SetSegmentOpacity3D(name, BONE_OPACITY_3D if bone else 1.0)
    return node.GetSegmentation().GetSegment(name)


def _image(grid: Geometry, mask: Mask, geometry: Geometry) -> slicer.vtkOrientedImageData:
    """The region as a labelmap; an empty one lies on the grid too: Slicer saves all segments on the grid of the first."""
    voxels, start, exact = move_voxels(mask.voxels, geometry.crop(mask.start_kji, mask.voxels.shape), grid)
    if not mask.empty and not exact:
        raise ValueError("the regions do not lie on the voxels of this CT")
    image = _labelmap(start, voxels.shape, voxels)
    image.SetImageToWorldMatrix(vtk_matrix(grid.ijk_to_ras))
    return image


def _labelmap(start_kji: tuple[int, int, int], shape_kji: tuple[int, int, int],
              voxels: np.ndarray | None) -> slicer.vtkOrientedImageData:
    """An image over a box; with voxels None only its extent."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent([n for start, size in zip(start_kji[::-1], shape_kji[::-1], strict=True)
                     for n in (start, start + size - 1)])
    if voxels is not None:
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape_kji)[...] = voxels
    return image
