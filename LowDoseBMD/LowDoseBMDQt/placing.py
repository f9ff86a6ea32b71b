"""One click in a slice view gives one point. The point lives in a node of its own that goes away again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from LowDoseBMDLib.geometry import ras_point

INTERACTION_NODE, SELECTION_NODE = "vtkMRMLInteractionNodeSingleton", "vtkMRMLSelectionNodeSingleton"
NODE_CLASS = "vtkMRMLMarkupsFiducialNode"


class PointPlacer:
    """onPlaced(LPS mm) when the click came; onEnded() afterwards, and when placing was given up."""

    def __init__(self, onPlaced: Callable[[tuple[float, float, float]], None], onEnded: Callable[[], None]) -> None:
        self._onPlaced = onPlaced
        self._onEnded = onEnded
        self._node: Any = None
        self._observations: list[tuple[Any, int]] = []

    @property
    def active(self) -> bool:
        return self._node is not None

    def start(self, name: str) -> bool:
        """Wait for a click. False when this Slicer has no views to click into."""
        self.cancel()
        scene = slicer.mrmlScene
        interaction, selection = scene.GetNodeByID(INTERACTION_NODE), scene.GetNodeByID(SELECTION_NODE)
        if interaction is None or selection is None:
            return False
        self._node = scene.AddNewNodeByClass(NODE_CLASS, name)
        self._node.SetHideFromEditors(True)
        self._node.SaveWithSceneOff()
        selection.SetReferenceActivePlaceNodeClassName(NODE_CLASS)
        selection.SetActivePlaceNodeID(self._node.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.Place)
        self._observe(self._node, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent, self._onPoint)
        self._observe(interaction, slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent, self._onMode)
        return True

    def cancel(self) -> None:
        """Give up; no effect when nothing is waited for."""
        node, self._node = self._node, None
        if node is None:
            return
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._observations = []
        scene = slicer.mrmlScene
        interaction = scene.GetNodeByID(INTERACTION_NODE)
        if interaction is not None and interaction.GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place:
            interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
        for each in (node.GetDisplayNode(), node.GetStorageNode(), node):
            if each is not None and scene.IsNodePresent(each):
                scene.RemoveNode(each)
        self._onEnded()

    def _observe(self, node: Any, event: int, callback: Callable[..., None]) -> None:
        self._observations.append((node, node.AddObserver(event, callback)))

    def _onPoint(self, _caller: Any, _event: str) -> None:
        # The click is still being handled by the view: the node goes when that is over.
        qt.QTimer.singleShot(0, self._finish)

    def _finish(self) -> None:
        if self.active and self._node.GetNumberOfDefinedControlPoints():
            position = ras_point(self._node.GetNthControlPointPositionWorld(0))
            self.cancel()
            self._onPlaced(position)

    def _onMode(self, caller: Any, _event: str) -> None:
        if caller.GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.Place:
            qt.QTimer.singleShot(0, self._giveUp)

    def _giveUp(self) -> None:
        """Placing was left in the views; a point that was set meanwhile has its own way to the end, and so has a placing
        that was begun meanwhile."""
        interaction = slicer.mrmlScene.GetNodeByID(INTERACTION_NODE)
        placing = interaction is not None and interaction.GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place
        if self.active and not placing and not self._node.GetNumberOfDefinedControlPoints():
            self.cancel()
