"""One case as nodes of a scene: its CT, every label that may be drawn, and the keypoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import slicer
from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.rois import NO_VOXELS, Mask
from LowDoseBMDMRML import markups, segments
from LowDoseBMDMRML.study import remove_whole
from LowDoseBMDMRML.volumes import node_from_ct, node_grid
from LowDoseBMDTrainerLib.cases import Labels, Status

MORE: tuple[str, ...] = (OTHER_BONES, *(f"body_{level}" for level in LEVELS))
"""Labels besides the bones, which an annotator draws when they are wanted."""

ANNOTATED: tuple[str, ...] = (*BONES, *MORE)
"""Labels that an annotator may draw, in the order of the panel."""

FILL_OPACITY = 0.4
"""A labelled bone is seen through; ITK-SNAP starts at 50 %, which hides trabeculae. Judgement."""

BONE_WINDOW_HU = (1800.0, 400.0)
"""Width and level."""


@dataclass(frozen=True)
class CaseNodes:
    """The nodes of the case that is shown. Named as StudyWatch wants them."""

    scene: slicer.vtkMRMLScene
    volume_node: slicer.vtkMRMLScalarVolumeNode
    segmentation_node: slicer.vtkMRMLSegmentationNode
    keypoints_node: slicer.vtkMRMLMarkupsFiducialNode

    @property
    def nodes(self) -> tuple[slicer.vtkMRMLNode, ...]:
        return self.volume_node, self.segmentation_node, self.keypoints_node

    @property
    def whole(self) -> bool:
        """All of them are still in the scene."""
        return all(node.GetScene() is self.scene for node in self.nodes)

    def remove(self) -> None:
        """Take what is left of them out of the scene."""
        for node in reversed(self.nodes):
            if node.GetScene() is self.scene:
                remove_whole(node)


def create_case_nodes(scene: slicer.vtkMRMLScene, name: str, ct: CTVolume) -> CaseNodes:
    """Nodes for a case of this CT: every label is offered, nothing is drawn. They are not saved with the scene: a case has
    files of its own."""
    volume = node_from_ct(scene, ct, name, BONE_WINDOW_HU)
    segmentation = segments.create_segmentation(scene, volume, f"{name} labels")
    keypoints = markups.create_keypoints(scene, f"{name} levels")
    nodes = CaseNodes(scene, volume, segmentation, keypoints)
    for node in nodes.nodes:
        node.SaveWithSceneOff()
    grid = node_grid(volume)
    for label in ANNOTATED:
        segments.write_region(segmentation, grid, label, NO_VOXELS, grid)
    set_opacity(segmentation, FILL_OPACITY)
    return nodes


def write_labels(nodes: CaseNodes, labels: Labels, shown: Mapping[str, Mask]) -> None:
    """Show these labels and keypoints. shown: the masks that the nodes hold; what is the same object is not written."""
    grid = node_grid(nodes.volume_node)
    for name in (*ANNOTATED, *(each for each in labels.masks if each not in ANNOTATED)):
        mask = labels.masks.get(name, NO_VOXELS)
        if mask is not shown.get(name, NO_VOXELS):
            segments.write_region(nodes.segmentation_node, grid, name, mask, labels.geometry)
    for name in [each for each in shown if each not in labels.masks and each not in ANNOTATED]:
        nodes.segmentation_node.GetSegmentation().RemoveSegment(name)
    markups.write_keypoints(nodes.keypoints_node, labels.keypoints)


def set_segment_status(nodes: CaseNodes, status: Status) -> None:
    """The status of the case as Slicer shows it in its list of segments, for every label that has voxels."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    known = {Status.NOT_STARTED: logic.NotStarted, Status.IN_PROGRESS: logic.InProgress,
             Status.COMPLETED: logic.Completed, Status.FLAGGED: logic.Flagged}
    segmentation = nodes.segmentation_node.GetSegmentation()
    for name in segmentation.GetSegmentIDs():
        logic.SetSegmentStatus(segmentation.GetSegment(name), known[status])


def set_opacity(node: slicer.vtkMRMLSegmentationNode, opacity: float) -> None:
    """How much of the labels is seen in the slices, 0..1."""
    display = node.GetDisplayNode()
    for name in node.GetSegmentation().GetSegmentIDs():
        display.SetSegmentOpacity2DFill(name, opacity)


def set_visible(node: slicer.vtkMRMLSegmentationNode, visible: bool, names: Collection[str]) -> None:
    """Show these labels, or the CT alone."""
    display = node.GetDisplayNode()
    display.SetVisibility(visible)
    for name in node.GetSegmentation().GetSegmentIDs():
        if display.GetSegmentVisibility(name) != (name in names):
            display.SetSegmentVisibility(name, name in names)

