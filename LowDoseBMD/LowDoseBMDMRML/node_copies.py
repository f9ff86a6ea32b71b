"""Copies of a study's nodes for a scene of their own: voxels are shared, everything else belongs to the copy."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import slicer
import vtk

from .segments import LABELMAP, SURFACE


def copy_volume(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLScalarVolumeNode,
                window_hu: tuple[float, float]) -> slicer.vtkMRMLScalarVolumeNode:
    """The volume in ``scene``, grey, with window (width, level) in HU. Raises ValueError when it has no voxels."""
    if node.GetImageData() is None:
        raise ValueError(f"the volume {node.GetName()} has no voxels")
    copy = slicer.vtkMRMLScalarVolumeNode()
    copy.SetName(node.GetName())
    scene.AddNode(copy)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    copy.SetIJKToRASMatrix(matrix)
    copy.SetAndObserveImageData(node.GetImageData())
    _copy_transform(scene, node, copy)
    _show_grey(scene, copy, window_hu)
    return copy


def _show_grey(scene: slicer.vtkMRMLScene, volume: slicer.vtkMRMLScalarVolumeNode,
               window_hu: tuple[float, float]) -> None:
    grey = slicer.vtkMRMLColorTableNode()
    grey.SetTypeToGrey()
    scene.AddNode(grey)
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*window_hu)
    scene.AddNode(display)
    display.SetAndObserveColorNodeID(grey.GetID())
    volume.SetAndObserveDisplayNodeID(display.GetID())


def copy_segmentation(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLSegmentationNode,
                      shown: Collection[str] | None = None) -> slicer.vtkMRMLSegmentationNode:
    """The segmentation in ``scene``; visible are the segments whose ids are in ``shown`` (None: those the node shows).

    Ids that the segmentation does not have are passed over: a study may lack a region.
    """
    copy = _add_segmentation(scene, node)
    images: dict[slicer.vtkOrientedImageData, slicer.vtkOrientedImageData] = {}
    for segment_id, source in _segments(node):
        # Hidden segments too: in an image that several share, values without a segment would be drawn as another one.
        copy.GetSegmentation().AddSegment(_copy_segment(source, images), segment_id)
        copy.GetDisplayNode().SetSegmentVisibility(segment_id, _is_shown(node, segment_id, shown))
    if node.GetDisplayNode() is not None:
        _copy_look(node.GetDisplayNode(), copy.GetDisplayNode(), copy.GetSegmentation().GetSegmentIDs())
    return copy


def copy_surfaces(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLSegmentationNode,
                  shown: Collection[str]) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of closed surfaces in ``scene``: those that the node has, else new ones, of the ids in ``shown``."""
    copy = _add_segmentation(scene, node)
    copy.GetSegmentation().SetSourceRepresentationName(SURFACE)
    for segment_id, source in _segments(node):
        if segment_id in shown:
            copy.GetSegmentation().AddSegment(_surface_segment(source), segment_id)
    return copy


def _add_segmentation(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLSegmentationNode:
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(node.GetName())
    scene.AddNode(copy)
    copy.CreateDefaultDisplayNodes()
    _copy_transform(scene, node, copy)
    return copy


def _segments(node: slicer.vtkMRMLSegmentationNode) -> Iterator[tuple[str, slicer.vtkSegment]]:
    segmentation = node.GetSegmentation()
    for segment_id in segmentation.GetSegmentIDs():
        yield segment_id, segmentation.GetSegment(segment_id)


def _is_shown(node: slicer.vtkMRMLSegmentationNode, segment_id: str, shown: Collection[str] | None) -> bool:
    if shown is not None:
        return segment_id in shown
    display = node.GetDisplayNode()
    return display is None or (bool(display.GetVisibility()) and display.GetSegmentVisibility(segment_id))


def _copy_look(source: slicer.vtkMRMLSegmentationDisplayNode, target: slicer.vtkMRMLSegmentationDisplayNode,
               segment_ids: Collection[str]) -> None:
    """How cuts show the segments: outline and fill of all of them, and of each."""
    target.SetSliceIntersectionThickness(source.GetSliceIntersectionThickness())
    target.SetVisibility2DFill(source.GetVisibility2DFill())
    target.SetVisibility2DOutline(source.GetVisibility2DOutline())
    target.SetOpacity2DFill(source.GetOpacity2DFill())
    target.SetOpacity2DOutline(source.GetOpacity2DOutline())
    for segment_id in segment_ids:
        target.SetSegmentVisibility2DFill(segment_id, source.GetSegmentVisibility2DFill(segment_id))
        target.SetSegmentVisibility2DOutline(segment_id, source.GetSegmentVisibility2DOutline(segment_id))
        target.SetSegmentOpacity2DFill(segment_id, source.GetSegmentOpacity2DFill(segment_id))
        target.SetSegmentOpacity2DOutline(segment_id, source.GetSegmentOpacity2DOutline(segment_id))


def _copy_segment(source: slicer.vtkSegment, images: dict[slicer.vtkOrientedImageData, slicer.vtkOrientedImageData],
                  ) -> slicer.vtkSegment:
    """The segment on a copy of its image that points to the same voxels; ``images`` holds the copies made so far.

    Never on the same image: segments share one, and a segmentation that goes away takes its own out of it, one by one.
    The image gets other voxels then; the old ones are not written.
    """
    segment = slicer.vtkSegment()
    segment.SetName(source.GetName())
    segment.SetColor(source.GetColor())
    segment.SetLabelValue(source.GetLabelValue())
    labelmap = source.GetRepresentation(LABELMAP)
    if labelmap not in images:
        images[labelmap] = slicer.vtkOrientedImageData()
        if labelmap is not None:
            images[labelmap].ShallowCopy(labelmap)
    segment.AddRepresentation(LABELMAP, images[labelmap])
    return segment


def _surface_segment(source: slicer.vtkSegment) -> slicer.vtkSegment:
    """The segment as a closed surface only: the source's own, else one as Slicer makes it."""
    segment = _copy_segment(source, {})
    made = source.GetRepresentation(SURFACE)
    if made is None:
        # The rule itself, for what a factory knows belongs to the whole application (and is nothing in slicer-core).
        slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule().Convert(segment)
    else:
        surface = vtk.vtkPolyData()
        surface.ShallowCopy(made)
        segment.AddRepresentation(SURFACE, surface)
    segment.RemoveRepresentation(LABELMAP)
    return segment


def copy_points(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLMarkupsNode) -> slicer.vtkMRMLMarkupsFiducialNode:
    """The defined control points in ``scene``, with their labels."""
    copy = slicer.vtkMRMLMarkupsFiducialNode()
    scene.AddNode(copy)
    copy.CreateDefaultDisplayNodes()
    for number in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(number) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            copy.AddControlPoint(node.GetNthControlPointPositionVector(number), node.GetNthControlPointLabel(number))
    _copy_transform(scene, node, copy)
    return copy


def _copy_transform(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLTransformableNode,
                    copy: slicer.vtkMRMLTransformableNode) -> None:
    """The whole chain of the node's parent transforms as one parent of the copy."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return
    to_world = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(to_world)
    transform = slicer.vtkMRMLTransformNode()
    scene.AddNode(transform)
    transform.SetAndObserveTransformToParent(to_world)
    copy.SetAndObserveTransformNodeID(transform.GetID())
