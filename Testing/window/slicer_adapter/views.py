"""Stand-ins for the layout manager and the views in it: real slice and view nodes and logics, nothing drawn."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from slicer_adapter.standins import standin


class View(QtWidgets.QWidget):
    """A view: it can be asked to draw."""

    def forceRender(self) -> None:
        """Nothing is drawn."""

    def scheduleRender(self) -> None:
        """Nothing is drawn."""

    def resetFocalPoint(self) -> None:
        """Nothing is drawn."""


class qMRMLSliceView(View):  # noqa: N801
    """A slice view: a window that is never drawn, and an interactor that gets the events that a test invokes."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._window, self._interactor = vtk.vtkRenderWindow(), vtk.vtkGenericRenderWindowInteractor()
        self._window.AddRenderer(vtk.vtkRenderer())

    def interactor(self) -> Any:
        return self._interactor

    def renderWindow(self) -> Any:
        return self._window


class qMRMLThreeDView(View):  # noqa: N801
    """A 3D view."""

    def resetCamera(self, *_: Any) -> None:
        """Nothing is drawn."""


@standin("slicer")
class qMRMLSliceWidget(QtWidgets.QWidget):  # noqa: N801
    """A slice view with its controller: the real slice node, composite node and logic."""

    def __init__(self, logic: Any, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._logic, self._view = logic, qMRMLSliceView(self)

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceView(self) -> QtWidgets.QWidget:
        return self._view

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


@standin("slicer")
class qMRMLThreeDWidget(QtWidgets.QWidget):  # noqa: N801
    """A 3D view with its controller."""

    def __init__(self, node: Any, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node, self._view = node, qMRMLThreeDView(self)

    def mrmlViewNode(self) -> Any:
        return self._node

    def threeDView(self) -> QtWidgets.QWidget:
        return self._view


@standin("slicer")
class qSlicerLayoutManager(QtCore.QObject):  # noqa: N801
    """The views of the layout."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Any, application_logic: Any) -> None:
        super().__init__()
        self._scene = scene
        self._layout_logic = slicer.vtkMRMLLayoutLogic()
        self._layout_logic.SetMRMLScene(scene)
        self._layout_logic.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._slice_logics = vtk.vtkCollection()
        self._slices: dict[str, qMRMLSliceWidget] = {}
        for name in ("Red", "Green", "Yellow"):
            self._add_slice(name)
        application_logic.SetSliceLogics(self._slice_logics)
        self._three_d = qMRMLThreeDWidget(scene.GetFirstNodeByClass("vtkMRMLViewNode"))

    def _add_slice(self, name: str) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLScene(self._scene)
        logic.SetSliceNode(self._scene.GetNodeByID(f"vtkMRMLSliceNode{name}"))
        self._slice_logics.AddItem(logic)
        self._slices[name] = qMRMLSliceWidget(logic)

    def _set_layout(self, number: int) -> None:
        self.setLayout(number)

    layout = QtCore.Property(int, lambda self: self._layout_logic.GetLayoutNode().GetViewArrangement(), _set_layout,
                             notify=layoutChanged)
    threeDViewCount = QtCore.Property(int, lambda self: 1)
    tableViewCount = QtCore.Property(int, lambda self: 0)
    plotViewCount = QtCore.Property(int, lambda self: 0)

    def setLayout(self, number: int) -> None:
        self._layout_logic.GetLayoutNode().SetViewArrangement(number)
        self.layoutChanged.emit(number)

    def layoutLogic(self) -> Any:
        return self._layout_logic

    def mrmlScene(self) -> Any:
        return self._scene

    def mrmlSliceLogics(self) -> Any:
        return self._slice_logics

    def sliceViewNames(self) -> list[str]:
        return list(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return self._slices.get(name)

    def threeDWidget(self, index: int) -> Any:
        return self._three_d if index == 0 else None

    def activeMRMLThreeDViewNode(self) -> Any:
        return self._three_d.mrmlViewNode()

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self._three_d.threeDView().resetFocalPoint()

    def pauseRender(self) -> None:
        """Nothing is drawn."""

    def resumeRender(self) -> None:
        """Nothing is drawn."""
