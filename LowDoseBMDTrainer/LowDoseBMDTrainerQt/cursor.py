"""The cursor: where it is in three views, and which label lies under the mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from LowDoseBMDQt import views
from LowDoseBMDQt.placing import INTERACTION_NODE

AXIAL = "vtkMRMLSliceNodeRed"
LEFT = int(qt.Qt.LeftButton)


class Cursor:
    """While ``jumping``, a click or a drag with the left button in a slice view takes all views there.

    onMoved(RAS mm or None outside of the views) while the mouse moves; onSlice() when another axial slice is shown.
    """

    def __init__(self, onMoved: Callable[[tuple[float, float, float] | None], None], onSlice: Callable[[], None]) -> None:
        self._onMoved, self._onSlice = onMoved, onSlice
        self.jumping = False
        self._pressed = False
        self._observations: list[tuple[Any, int]] = []

    def start(self) -> None:
        """Follow the mouse; no effect when it is followed already."""
        crosshair = _crosshair()
        if self._observations or crosshair is None:
            return
        self._mode = crosshair.GetCrosshairMode()
        crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowBasic)
        self._observe(crosshair, slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onCursor)
        sliceNode = slicer.mrmlScene.GetNodeByID(AXIAL)
        if sliceNode is not None:
            self._observe(sliceNode, "ModifiedEvent", lambda *_arguments: self._onSlice())
        for interactor in _interactors():
            self._observe(interactor, "LeftButtonPressEvent", self._onPress)

    def stop(self) -> None:
        """Follow it no longer."""
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        crosshair = _crosshair()
        if self._observations and crosshair is not None:
            crosshair.SetCrosshairMode(self._mode)
        self._observations, self._pressed = [], False

    def _observe(self, node: Any, event: Any, callback: Callable[..., None]) -> None:
        self._observations.append((node, node.AddObserver(event, callback)))

    def _onCursor(self, crosshair: Any, _event: str) -> None:
        position = [0.0, 0.0, 0.0]
        inside = crosshair.GetCursorPositionRAS(position)
        self._onMoved(tuple(position) if inside else None)
        if self._pressed and not int(qt.QApplication.mouseButtons()) & LEFT:
            self._pressed = False  # the view kept the release to itself
        if inside and self._pressed and self.jumping:
            self._jump(position)

    def _onPress(self, interactor: Any, _event: str) -> None:
        position = [0.0, 0.0, 0.0]
        self._pressed = self.jumping and not interactor.GetShiftKey() and not _placing()
        if self._pressed and _crosshair().GetCursorPositionRAS(position):
            self._jump(position)

    def _jump(self, positionRas: list[float]) -> None:
        _crosshair().SetCrosshairRAS(positionRas)
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *positionRas, slicer.vtkMRMLSliceNode.OffsetJumpSlice)


def goTo(positionRas: tuple[float, float, float]) -> None:
    """Every view and the cross-hair go to a point."""
    views.centreOn(positionRas)
    crosshair = _crosshair()
    if crosshair is not None:
        crosshair.SetCrosshairRAS(positionRas)


def axialPosition() -> tuple[float, float, float] | None:
    """A point of the axial slice that is shown, RAS mm."""
    sliceNode = slicer.mrmlScene.GetNodeByID(AXIAL)
    if sliceNode is None:
        return None
    matrix = sliceNode.GetSliceToRAS()
    return tuple(matrix.GetElement(row, 3) for row in range(3))


def showSlice(positionRas: tuple[float, float, float]) -> None:
    """The axial view shows the slice of a point."""
    sliceNode = slicer.mrmlScene.GetNodeByID(AXIAL)
    if sliceNode is not None:
        sliceNode.JumpSliceByOffsetting(*positionRas)


def _crosshair() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")


def _placing() -> bool:
    """A click is waited for that places a point."""
    interaction = slicer.mrmlScene.GetNodeByID(INTERACTION_NODE)
    return interaction is not None and interaction.GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place


def _interactors() -> list[Any]:
    manager = slicer.app.layoutManager()
    names = manager.sliceViewNames() if manager is not None else ()
    return [manager.sliceWidget(name).sliceView().interactor() for name in names]
