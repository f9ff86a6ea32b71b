"""The nodes of one study: found by their roles, kept under one folder, saved and restored with the scene."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import slicer

from . import markups, segments
from .charts import remove_chart
from .plots import create_age_chart, create_histogram

ROLE = "LowDoseBMD.Role"
REGIONS, SPINE, KEYPOINTS, RESULTS = "regions", "spine", "keypoints", "results"
HISTOGRAM, AGE_CHART = "histogram", "age chart"
ROLES = (REGIONS, SPINE, KEYPOINTS, RESULTS, HISTOGRAM, AGE_CHART)
CT = "LowDoseBMD.CT"
"""Reference role, by which every node of a study names its CT."""
STATE = "LowDoseBMD.State"


class Study:
    """The nodes that belong to one CT. Made by create_study, found again by find_study."""

    def __init__(self, scene: slicer.vtkMRMLScene, volume_node: slicer.vtkMRMLScalarVolumeNode,
                 nodes: dict[str, slicer.vtkMRMLNode]) -> None:
        self.scene = scene
        self.volume_node = volume_node
        self._nodes = nodes

    @property
    def segmentation_node(self) -> slicer.vtkMRMLSegmentationNode:
        return self._nodes[REGIONS]

    @property
    def spine_node(self) -> slicer.vtkMRMLSegmentationNode:
        """Hidden: every vertebral body that was found, for a reader who moves the names of the levels."""
        return self._nodes[SPINE]

    @property
    def keypoints_node(self) -> slicer.vtkMRMLMarkupsFiducialNode:
        return self._nodes[KEYPOINTS]

    @property
    def table_node(self) -> slicer.vtkMRMLTableNode:
        return self._nodes[RESULTS]

    @property
    def histogram_node(self) -> slicer.vtkMRMLPlotChartNode:
        return self._nodes[HISTOGRAM]

    @property
    def age_chart_node(self) -> slicer.vtkMRMLPlotChartNode:
        return self._nodes[AGE_CHART]

    @property
    def nodes(self) -> tuple[slicer.vtkMRMLNode, ...]:
        return tuple(self._nodes.values())

    @property
    def whole(self) -> bool:
        """All nodes of the study, and its CT, are still in the scene."""
        return all(node.GetScene() is self.scene for node in (self.volume_node, *self.nodes))

    @property
    def folder_item(self) -> int:
        """The study's folder in the subject hierarchy; made when it is not there."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = hierarchy.GetItemByDataNode(self.segmentation_node)
        parent = hierarchy.GetItemParent(item) if item else 0
        if parent and hierarchy.GetItemName(parent) == folder_name(self.volume_node):
            return parent
        volume_item = hierarchy.GetItemByDataNode(self.volume_node)
        above = hierarchy.GetItemParent(volume_item) if volume_item else hierarchy.GetSceneItemID()
        return hierarchy.CreateFolderItem(above, folder_name(self.volume_node))

    def add_to_folder(self, *nodes: slicer.vtkMRMLNode) -> None:
        """Put nodes into the study's folder."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        folder = self.folder_item
        for node in nodes:
            item = hierarchy.GetItemByDataNode(node)
            if item:
                hierarchy.SetItemParent(item, folder)
            else:
                hierarchy.CreateItem(folder, node)

    def store_state(self, state: dict[str, Any]) -> None:
        """Keep what is known of the study besides voxels; it is saved with the scene.

        Without an event: nobody shows it, and in a running Slicer a changed segmentation node has views drawn anew, a
        second for each brush stroke.
        """
        told = self.spine_node.GetDisableModifiedEvent()
        self.spine_node.SetDisableModifiedEvent(True)
        self.spine_node.SetAttribute(STATE, json.dumps(state))
        self.spine_node.SetDisableModifiedEvent(told)

    def stored_state(self) -> dict[str, Any] | None:
        text = self.spine_node.GetAttribute(STATE)
        return json.loads(text) if text else None

    def remove(self) -> None:
        """Remove the nodes and the folder from the scene; the CT stays."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        folder = self.folder_item
        hierarchy.RemoveItem(folder, False, True)
        for chart in (self.histogram_node, self.age_chart_node):
            if chart.GetScene() is self.scene:
                remove_chart(chart)
        for node in self.nodes:
            if node.GetScene() is self.scene:
                remove_whole(node)


def create_study(scene: slicer.vtkMRMLScene, volume_node: slicer.vtkMRMLScalarVolumeNode) -> Study:
    """Nodes for a study of this CT, still empty. Raises flags.Refusal when the volume cannot be a CT."""
    name = volume_node.GetName()
    spine = segments.create_segmentation(scene, volume_node, f"{name} vertebral bodies")
    spine.SetHideFromEditors(True)
    spine.GetDisplayNode().SetVisibility(False)
    results = slicer.vtkMRMLTableNode()
    results.SetName(f"{name} vBMD")
    scene.AddNode(results)
    nodes = {REGIONS: segments.create_segmentation(scene, volume_node, f"{name} regions"), SPINE: spine,
             KEYPOINTS: markups.create_keypoints(scene, f"{name} levels"), RESULTS: results,
             HISTOGRAM: create_histogram(scene), AGE_CHART: create_age_chart(scene)}
    for role, node in nodes.items():
        node.SetAttribute(ROLE, role)
        node.SetNodeReferenceID(CT, volume_node.GetID())
    study = Study(scene, volume_node, nodes)
    study.add_to_folder(*nodes.values())
    return study


def find_study(scene: slicer.vtkMRMLScene, volume_node: slicer.vtkMRMLScalarVolumeNode) -> Study | None:
    """The study of this CT in the scene, or None. Of several for one CT the newest counts."""
    found = {node.GetAttribute(ROLE): node for node in _nodes(scene)
             if node.GetAttribute(ROLE) and node.GetNodeReference(CT) is volume_node}
    if not found.keys() >= set(ROLES):
        return None
    return Study(scene, volume_node, {role: found[role] for role in ROLES})


def studies(scene: slicer.vtkMRMLScene) -> list[Study]:
    """Every study of the scene, oldest first."""
    volumes = {node.GetNodeReference(CT) for node in _nodes(scene) if node.GetAttribute(ROLE) == REGIONS}
    found = (find_study(scene, volume) for volume in volumes if volume is not None)
    return sorted((study for study in found if study), key=lambda study: study.segmentation_node.GetMTime())


def folder_name(volume_node: slicer.vtkMRMLScalarVolumeNode) -> str:
    return f"{volume_node.GetName()} LowDoseBMD"


def remove_whole(node: slicer.vtkMRMLDisplayableNode) -> None:
    """A node with its display and storage, which the scene would keep."""
    scene = node.GetScene()
    displays = node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0
    parts = [node.GetNthDisplayNode(n) for n in range(displays)]
    if node.IsA("vtkMRMLStorableNode"):
        parts.append(node.GetStorageNode())
    for part in (node, *parts):
        if part is not None:
            scene.RemoveNode(part)


def _nodes(scene: slicer.vtkMRMLScene) -> Iterator[slicer.vtkMRMLNode]:
    for index in range(scene.GetNumberOfNodes()):
        yield scene.GetNthNode(index)
