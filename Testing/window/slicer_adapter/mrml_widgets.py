"""Stand-ins for the MRML widgets: the real ones' public names, on the real scene."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from slicer_adapter import ctk_widgets
from slicer_adapter.standins import standin, stored

SCENE_SIGNAL = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged(PyObject)"}


class SceneObserver(QtCore.QObject):
    """Observes VTK objects for a widget, and lets go when the widget is destroyed."""

    def __init__(self, widget: QtWidgets.QWidget) -> None:
        super().__init__()
        self._tags: list[tuple[Any, int]] = []
        widget.destroyed.connect(self.clear)

    def observe(self, observed: Any, event: int | str, callback: Any) -> None:
        """Add one observation."""
        self._tags.append((observed, observed.AddObserver(event, callback)))

    def clear(self, *_: Any) -> None:
        """Remove all observations."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags.clear()


@standin("slicer")
class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """A widget with a scene."""

    signatures = SCENE_SIGNAL
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scene = None

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standin("slicer")
class qSlicerWidget(QtWidgets.QWidget):  # noqa: N801
    """A module's widget with a scene."""

    signatures = SCENE_SIGNAL
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scene = None

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standin("slicer")
class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801
    """A combo box of the scene's nodes of some classes."""

    signatures = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged(PyObject)",
        "currentNodeChanged(bool)": "currentNodeChanged(bool)",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated(PyObject)",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded(PyObject)",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser(PyObject)",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved(PyObject)",
    }
    currentNodeChanged = QtCore.Signal((object,), (bool,))
    currentNodeIDChanged = QtCore.Signal(str)
    currentNodeRenamed = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)

    nodeTypes = stored("QStringList", "nodeTypes", [], after="_refresh")
    showHidden = stored(bool, "showHidden", False, after="_refresh")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, after="_refresh")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], after="_refresh")
    noneEnabled = stored(bool, "noneEnabled", False, after="_refresh")
    noneDisplay = stored(str, "noneDisplay", "None", after="_refresh")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    editEnabled = stored(bool, "editEnabled", False)
    renameEnabled = stored(bool, "renameEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    baseName = stored(str, "baseName", "")
    sizeAdjustPolicy = stored(int, "sizeAdjustPolicy", 0)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene, self._current, self._attributes = None, None, []
        self._nodes: list[Any] = []
        self._box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(self._activated)
        self._observer = SceneObserver(self)
        self._box.setEnabled(False)

    def _current_id(self) -> str:
        return self._current.GetID() if self._current is not None else ""

    currentNodeID = QtCore.Property(str, _current_id, lambda self, v: self.setCurrentNodeID(v), notify=currentNodeIDChanged)

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._observer.clear()
        self._scene = scene
        self._box.setEnabled(scene is not None)
        if scene is not None:
            self._observe(scene)
        self._refresh()

    def _observe(self, scene: Any) -> None:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_caller: Any, _event: str, node: Any) -> None:
            self._refresh()
            if self._shows(node):
                self.nodeAdded.emit(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def leaving(_caller: Any, _event: str, node: Any) -> None:
            if self._shows(node):
                self.nodeAboutToBeRemoved.emit(node)

        self._observer.observe(scene, slicer.vtkMRMLScene.NodeAddedEvent, added)
        self._observer.observe(scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, leaving)
        for event in (slicer.vtkMRMLScene.NodeRemovedEvent, slicer.vtkMRMLScene.EndCloseEvent,
                      slicer.vtkMRMLScene.EndImportEvent, slicer.vtkMRMLScene.EndBatchProcessEvent):
            self._observer.observe(scene, event, lambda *_: self._refresh())

    def _shows(self, node: Any) -> bool:
        kinds = self.nodeTypes
        if not any(node.IsA(k) if self.showChildNodeTypes else node.GetClassName() == k for k in kinds):
            return False
        if node.GetHideFromEditors() and not self.showHidden or any(node.IsA(k) for k in self.hideChildNodeTypes):
            return False
        wanted = [(name, value) for kind, name, value in self._attributes if node.IsA(kind)]
        return all(node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
                   for name, value in wanted)

    def _refresh(self) -> None:
        nodes = []
        if self._scene is not None:
            for index in range(self._scene.GetNumberOfNodes()):
                node = self._scene.GetNthNode(index)
                if self._shows(node):
                    nodes.append(node)
        self._nodes = nodes
        self._box.clear()
        self._box.addItems(([self.noneDisplay] if self.noneEnabled else []) + [n.GetName() or "" for n in nodes])
        keep = self._current if any(n is self._current for n in nodes) else None
        if keep is None and nodes and not self.noneEnabled:
            keep = nodes[0]
        self._select(keep)

    def _select(self, node: Any) -> None:
        offset = int(self.noneEnabled)
        self._box.setCurrentIndex(self._nodes.index(node) + offset if node is not None else offset - 1)
        if node is not self._current:
            self._current = node
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(self._current_id())

    def _activated(self, index: int) -> None:
        index -= int(self.noneEnabled)
        self._select(self._nodes[index] if index >= 0 else None)
        self.nodeActivated.emit(self._current)

    def addAttribute(self, node_type: str, name: str, value: str | None = None) -> None:
        self._attributes.append((node_type, name, value))
        self._refresh()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, name)]
        self._refresh()

    def nodeCount(self) -> int:
        return len(self._nodes)

    def nodeFromIndex(self, index: int) -> Any:
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def currentNode(self) -> Any:
        return self._current

    @QtCore.Slot(object)
    def setCurrentNode(self, node: Any) -> None:
        if isinstance(node, str):
            self.setCurrentNodeID(node)
        else:
            self._select(node if any(n is node for n in self._nodes) else None if self.noneEnabled else self._current)

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(next((n for n in self._nodes if n.GetID() == node_id), None))

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def addNode(self, node_type: str | None = None) -> Any:
        node = self._scene.AddNewNodeByClass(node_type or self.nodeTypes[0], self.baseName)
        self.nodeAddedByUser.emit(node)
        if self.selectNodeUponCreation:
            self._select(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._current is not None:
            self._scene.RemoveNode(self._current)


@standin("slicer")
class qMRMLTableView(QtWidgets.QTableView):  # noqa: N801
    """A view of a table node."""

    signatures = SCENE_SIGNAL
    mrmlSceneChanged = QtCore.Signal(object)
    selectionChanged_ = QtCore.Signal()
    transposed = stored(bool, "transposed", False, after="_refresh")
    firstRowLocked = stored(bool, "firstRowLocked", False)
    firstColumnLocked = stored(bool, "firstColumnLocked", False)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene, self._table = None, None
        self._observer = SceneObserver(self)
        self._items = QtCore.QObject(self)

    def mrmlScene(self) -> Any:
        return self._scene

    def mrmlTableNode(self) -> Any:
        return self._table

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    @QtCore.Slot(object)
    def setMRMLTableNode(self, node: Any) -> None:
        self._observer.clear()
        self._table = node
        if node is not None:
            self._observer.observe(node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._refresh())
        self._refresh()

    def _refresh(self) -> None:
        from PySide6 import QtGui
        model = QtGui.QStandardItemModel(self)
        node = self._table
        if node is not None:
            columns = range(node.GetNumberOfColumns())
            model.setHorizontalHeaderLabels([node.GetColumnName(c) for c in columns])
            for row in range(node.GetNumberOfRows()):
                model.appendRow([QtGui.QStandardItem(node.GetCellText(row, c)) for c in columns])
        self.setModel(model)


@standin("slicer")
class qMRMLPlotView(QtWidgets.QWidget):  # noqa: N801
    """Holds a plot view node; draws nothing."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene, self._view_node = None, None

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._view_node = node

    def mrmlPlotViewNode(self) -> Any:
        return self._view_node


@standin("slicer")
class qMRMLPlotWidget(qMRMLPlotView):  # noqa: N801
    """A plot view with its controller."""

    def plotView(self) -> Any:
        return self


@standin("slicer")
class qMRMLSliderWidget(ctk_widgets.ctkSliderWidget):  # noqa: N801
    """A slider that knows units."""

    quantity = stored(str, "quantity", "")

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene


@standin("slicer")
class qMRMLSpinBox(ctk_widgets.ctkDoubleSpinBox):  # noqa: N801
    """A spin box that knows units."""

    quantity = stored(str, "quantity", "")

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene


@standin("slicer")
class qMRMLRangeWidget(ctk_widgets.ctkRangeWidget):  # noqa: N801
    """A range that knows units."""

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
