"""Stand-ins for the Segment Editor and the markups place widget, on the real nodes and the real undo history."""

from __future__ import annotations

import enum
import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

from slicer_adapter import pythonqt
from slicer_adapter.mrml_widgets import SCENE_SIGNAL, SceneObserver, qMRMLWidget, qSlicerWidget
from slicer_adapter.standins import standin, stored

EFFECT_NAMES = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin",
                "Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume")


class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):  # noqa: N801
    """An effect: its name and its parameters in the parameter set node."""

    name = stored(str, "name", "")
    title = stored(str, "title", "")

    def __init__(self, editor: qMRMLSegmentEditorWidget | None, name: str) -> None:
        super().__init__(editor)
        self._editor = editor
        self.name = self.title = name

    def activate(self) -> None:
        """The editor turns it on."""

    def deactivate(self) -> None:
        """The editor turns it off."""

    def parameterSetNode(self) -> Any:
        return self._editor.mrmlSegmentEditorNode()

    def setParameter(self, name: str, value: Any) -> None:
        self.parameterSetNode().SetAttribute(f"{self.name}.{name}", str(value))

    def setParameterDefault(self, name: str, value: Any) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def parameterDefined(self, name: str) -> bool:
        return self.parameterSetNode().GetAttribute(f"{self.name}.{name}") is not None

    def parameter(self, name: str) -> str:
        return self.parameterSetNode().GetAttribute(f"{self.name}.{name}") or ""

    def integerParameter(self, name: str) -> int:
        return int(self.parameter(name) or 0)

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name) or 0.0)

    def setCommonParameter(self, name: str, value: Any) -> None:
        self.parameterSetNode().SetAttribute(name, str(value))

    def commonParameter(self, name: str) -> str:
        return self.parameterSetNode().GetAttribute(name) or ""

    def saveStateForUndo(self) -> None:
        self._editor.saveStateForUndo()


registered: list[Any] = []
"""Scripted effects, in the order in which they were registered; the session forgets them."""


@standin("slicer")
class qSlicerSegmentEditorEffectFactory(QtCore.QObject):  # noqa: N801
    """Where effects are registered, by their names."""

    @staticmethod
    def instance() -> Any:
        return qSlicerSegmentEditorEffectFactory()

    def registerEffect(self, effect: Any) -> bool:
        if any(other.name == effect.name for other in registered):
            return False
        registered.append(effect)
        return True


@standin("slicer")
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):  # noqa: N801
    """An effect written in Python: its class has the name of its file, and is looked for in the package of its folder."""

    ConfirmationResult = enum.Enum("ConfirmationResult", "NotConfirmed ConfirmedWithoutDialog ConfirmedWithDialog", start=0)
    ModificationMode = enum.Enum("ModificationMode", "ModificationModeSet ModificationModeAdd ModificationModeRemove "
                                 "ModificationModeRemoveAll", start=0)
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = ConfirmationResult
    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = ModificationMode

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(None, "UnnamedScriptedEffect")
        self._script: Any = None

    def setPythonSource(self, path: str) -> bool:
        package, name = Path(path).parent.name, Path(path).stem
        script = getattr(sys.modules.get(package) or importlib.import_module(package), name)
        self._script = script(pythonqt.wrap(self))
        return True

    def self(self) -> Any:
        return self._script

    def activate(self) -> None:
        self._script.activate()

    def deactivate(self) -> None:
        self._script.deactivate()

    def addOptionsWidget(self, widget: Any) -> None:
        self._editor.findChild(QtWidgets.QFrame, "OptionsGroupBox").layout().addWidget(pythonqt.unwrap(widget))

    def confirmCurrentSegmentVisible(self) -> int:
        return self.ConfirmedWithoutDialog.value

    def modifySelectedSegmentByLabelmap(self, labelmap: Any, mode: int) -> None:
        """Adds to the selected segment; both lie on voxels of one grid. The editor's mask is no part of the imitation."""
        if mode != self.ModificationModeAdd.value:
            raise NotImplementedError(f"modification mode {mode}")
        node = self.parameterSetNode()
        segment = node.GetSegmentationNode().GetSegmentation().GetSegment(node.GetSelectedSegmentID())
        old = segment.GetRepresentation("Binary labelmap")
        merged = slicer.vtkOrientedImageData()
        merged.DeepCopy(labelmap)
        if old is not None and old.GetNumberOfPoints():
            ends = [(old.GetExtent()[n], labelmap.GetExtent()[n]) for n in range(6)]
            merged.SetExtent([max(pair) if n % 2 else min(pair) for n, pair in enumerate(ends)])
            merged.AllocateScalars(labelmap.GetScalarType(), 1)
            _voxels(merged)[...] = 0
            for image in (old, labelmap):
                _part(merged, image)[...] |= _voxels(image) != 0
        segment.AddRepresentation("Binary labelmap", merged)
        node.GetSegmentationNode().GetSegmentation().InvokeEvent(
            slicer.vtkSegmentation.SourceRepresentationModified, node.GetSelectedSegmentID())


def _voxels(image: Any) -> np.ndarray:
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _part(whole: Any, image: Any) -> np.ndarray:
    """Where an image lies in another that holds it."""
    low, size = np.array(image.GetExtent())[::2] - np.array(whole.GetExtent())[::2], image.GetDimensions()
    return _voxels(whole)[tuple(slice(int(a), int(a) + n) for a, n in zip(low[::-1], size[::-1], strict=True))]


@standin("slicer")
class qMRMLSegmentEditorWidget(qMRMLWidget):  # noqa: N801
    """The Segment Editor: segment list, effects, undo. Its own effects do nothing: a test edits the segment itself."""

    signatures = {
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged(PyObject)",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged(PyObject)",
    }
    currentSegmentIDChanged = QtCore.Signal(str)
    segmentationNodeChanged = QtCore.Signal(object)
    sourceVolumeNodeChanged = QtCore.Signal(object)

    segmentationNodeSelectorVisible = stored(bool, "segmentationNodeSelectorVisible", True)
    sourceVolumeNodeSelectorVisible = stored(bool, "sourceVolumeNodeSelectorVisible", True)
    maskingSectionVisible = stored(bool, "maskingSectionVisible", True)
    specifyGeometryButtonVisible = stored(bool, "specifyGeometryButtonVisible", True)
    show3DButtonVisible = stored(bool, "show3DButtonVisible", True)
    addRemoveSegmentButtonsVisible = stored(bool, "addRemoveSegmentButtonsVisible", True)
    autoShowSourceVolumeNode = stored(bool, "autoShowSourceVolumeNode", True)
    switchToSegmentationsButtonVisible = stored(bool, "switchToSegmentationsButtonVisible", True)
    undoEnabled = stored(bool, "undoEnabled", True)
    maximumNumberOfUndoStates = stored(int, "maximumNumberOfUndoStates", 10, after="_limit_undo")
    readOnly = stored(bool, "readOnly", False, after="_refresh")
    effectButtonStyle = stored(int, "effectButtonStyle", 0)
    effectColumnCount = stored(int, "effectColumnCount", 0)
    unorderedEffectsVisible = stored(bool, "unorderedEffectsVisible", True, after="_refresh")
    defaultTerminologyEntrySettingsKey = stored(str, "defaultTerminologyEntrySettingsKey", "")
    defaultTerminologyEntry = stored(str, "defaultTerminologyEntry", "")
    jumpToSelectedSegmentEnabled = stored(bool, "jumpToSelectedSegmentEnabled", False)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node, self._segmentation_node, self._source_node = None, None, None
        self._order: list[str] = []
        self._effects = {name: qSlicerSegmentEditorAbstractEffect(self, name) for name in EFFECT_NAMES}
        self._active: Any = None
        self._history = slicer.vtkSegmentationHistory()
        self._history.SetMaximumNumberOfStates(10)
        self._observer = SceneObserver(self)
        self._shortcuts: list[QtGui.QShortcut] = []
        self._build()

    def _build(self) -> None:
        self._effect_label = QtWidgets.QLabel(self)
        self._effect_label.setObjectName("EffectsGroupBox")
        self._effect_label.setWordWrap(True)
        self._list = QtWidgets.QListWidget(self)
        self._list.setObjectName("SegmentsTableResizableFrame")
        self._list.setMaximumHeight(140)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._list)
        layout.addWidget(self._effect_label)
        for name in ("UndoRedoGroupBox", "EffectHelpBrowser", "OptionsGroupBox"):
            part = QtWidgets.QFrame(self)
            part.setObjectName(name)
            layout.addWidget(part)
            QtWidgets.QVBoxLayout(part)
        self._list.currentRowChanged.connect(self._row_chosen)
        for effect in registered:
            self._add_scripted(effect)
        self._refresh()

    def _add_scripted(self, effect: Any) -> None:
        """An effect of our own, with its form."""
        script = effect.self().clone().self()
        native = pythonqt.unwrap(script.scriptedEffect)
        native._editor = self
        self._effects[native.name] = native
        script.setupOptionsFrame()

    def _limit_undo(self) -> None:
        self._history.SetMaximumNumberOfStates(self.maximumNumberOfUndoStates)

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)

    @QtCore.Slot(object)
    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node
        self.updateWidgetFromMRML()

    def _has_node(self, method: str) -> bool:
        if self._node is None:
            logging.error("qMRMLSegmentEditorWidget::%s: Invalid segment editor parameter set node!", method)
        return self._node is not None

    def segmentationNode(self) -> Any:
        return self._segmentation_node

    def segmentationNodeID(self) -> str:
        return self._segmentation_node.GetID() if self._segmentation_node else ""

    @QtCore.Slot(object)
    def setSegmentationNode(self, node: Any) -> None:
        if self._has_node("setSegmentationNode"):
            self._node.SetAndObserveSegmentationNode(node)
            self.updateWidgetFromMRML()

    def sourceVolumeNode(self) -> Any:
        return self._source_node

    def sourceVolumeNodeID(self) -> str:
        return self._source_node.GetID() if self._source_node else ""

    @QtCore.Slot(object)
    def setSourceVolumeNode(self, node: Any) -> None:
        if self._has_node("setSourceVolumeNode"):
            self._node.SetAndObserveSourceVolumeNode(node)
            self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        segmentation = self._node.GetSegmentationNode() if self._node else None
        if segmentation is not self._segmentation_node:
            self._use_segmentation(segmentation)
        source = self._node.GetSourceVolumeNode() if self._node else None
        if source is not self._source_node:
            self._source_node = source
            self.sourceVolumeNodeChanged.emit(source)
        self._refresh()

    def _use_segmentation(self, node: Any) -> None:
        self._observer.clear()
        self._segmentation_node = node
        self._history.SetSegmentation(node.GetSegmentation() if node else None)
        if node is not None:
            for event in (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved,
                          slicer.vtkSegmentation.SegmentModified):
                self._observer.observe(node.GetSegmentation(), event, lambda *_: self._refresh())
            ids = node.GetSegmentation().GetSegmentIDs()
            if ids and self._node.GetSelectedSegmentID() not in ids:
                self._node.SetSelectedSegmentID(ids[0])
        self.segmentationNodeChanged.emit(node)

    def _refresh(self) -> None:
        blocker = QtCore.QSignalBlocker(self._list)
        self._list.clear()
        if self._segmentation_node is not None:
            segmentation = self._segmentation_node.GetSegmentation()
            for segment_id in segmentation.GetSegmentIDs():
                segment, pixmap = segmentation.GetSegment(segment_id), QtGui.QPixmap(12, 12)
                pixmap.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
                self._list.addItem(QtWidgets.QListWidgetItem(QtGui.QIcon(pixmap), segment.GetName()))
            ids = list(segmentation.GetSegmentIDs())
            if self.currentSegmentID() in ids:
                self._list.setCurrentRow(ids.index(self.currentSegmentID()))
        blocker.unblock()
        self._effect_label.setText("  ".join(self._visible_effects()))
        self.setEnabled(not self.readOnly)

    def _visible_effects(self) -> list[str]:
        rest = [n for n in self._effects if n not in self._order] if self.unorderedEffectsVisible else []
        return [n for n in self._order if n in self._effects] + rest

    def _row_chosen(self, row: int) -> None:
        ids = self._segmentation_node.GetSegmentation().GetSegmentIDs()
        if 0 <= row < len(ids):
            self.setCurrentSegmentID(ids[row])

    def currentSegmentID(self) -> str:
        return (self._node.GetSelectedSegmentID() or "") if self._node else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if self._has_node("setCurrentSegmentID") and segment_id != self.currentSegmentID():
            self._node.SetSelectedSegmentID(segment_id)
            self._refresh()
            self.currentSegmentIDChanged.emit(segment_id)

    def activeEffect(self) -> Any:
        return self._effects.get((self._node.GetActiveEffectName() or "") if self._node else "")

    def setActiveEffect(self, effect: Any) -> None:
        self.setActiveEffectByName(effect.name if effect is not None else "")

    def setActiveEffectByName(self, name: str) -> None:
        if self._has_node("setActiveEffectByName"):
            if name and not self.currentSegmentID():
                raise TypeError(f"effect {name} activated without a selected segment: select the segment first")
            self._node.SetActiveEffectName(name if name in self._effects else "")
            self._switch(self.activeEffect())

    def _switch(self, effect: Any) -> None:
        if effect is not self._active:
            old, self._active = self._active, effect
            if old is not None:
                old.deactivate()
            if effect is not None:
                effect.activate()

    def effectByName(self, name: str) -> Any:
        return self._effects.get(name)

    def availableEffectNames(self) -> list[str]:
        return list(self._effects)

    def setEffectNameOrder(self, names: list[str]) -> None:
        self._order = list(names)
        self._refresh()

    def effectNameOrder(self) -> list[str]:
        return self._order

    def saveStateForUndo(self) -> None:
        self._history.SaveState()

    def undo(self) -> None:
        self._history.RestorePreviousState()

    def redo(self) -> None:
        self._history.RestoreNextState()

    def installKeyboardShortcuts(self, parent: QtWidgets.QWidget | None = None) -> None:
        """The keys that the real widget takes for itself: effects by number, undo, redo, previous and next segment."""
        self.uninstallKeyboardShortcuts()
        keys = {"Ctrl+Z": self.undo, "Ctrl+Y": self.redo, "Q": self.selectPreviousSegment, "W": self.selectNextSegment,
                "Esc": lambda: self.setActiveEffectByName("")}
        for sequence, action in keys.items():
            shortcut = QtGui.QShortcut(QtGui.QKeySequence(sequence), parent or self)
            shortcut.activated.connect(action)
            self._shortcuts.append(shortcut)

    def uninstallKeyboardShortcuts(self) -> None:
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def setupViewObservations(self) -> None:
        """The views are no part of the imitation."""

    def removeViewObservations(self) -> None:
        """The views are no part of the imitation."""

    def rotateSliceViewsToSegmentation(self) -> None:
        """The views are no part of the imitation."""

    def selectNextSegment(self) -> None:
        self.selectSegmentAtOffset(1)

    def selectPreviousSegment(self) -> None:
        self.selectSegmentAtOffset(-1)

    def selectSegmentAtOffset(self, offset: int) -> None:
        ids = list(self._segmentation_node.GetSegmentation().GetSegmentIDs()) if self._segmentation_node else []
        if self.currentSegmentID() in ids:
            self.setCurrentSegmentID(ids[(ids.index(self.currentSegmentID()) + offset) % len(ids)])


@standin("slicer")
class qSlicerMarkupsPlaceWidget(qSlicerWidget):  # noqa: N801
    """Places control points of a markups node; a test adds the point itself."""

    signatures = SCENE_SIGNAL | {"activeMarkupsPlaceModeChanged(bool)": "activeMarkupsPlaceModeChanged(bool)"}
    ShowPlaceMultipleMarkupsOption, HidePlaceMultipleMarkupsOption = 0, 1
    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 2, 3
    activeMarkupsFiducialPlaceModeChanged = QtCore.Signal(bool)
    activeMarkupsPlaceModeChanged = QtCore.Signal(bool)
    buttonsVisible = stored(bool, "buttonsVisible", True)
    deleteAllControlPointsOptionVisible = stored(bool, "deleteAllControlPointsOptionVisible", True)
    unsetLastControlPointOptionVisible = stored(bool, "unsetLastControlPointOptionVisible", False)
    unsetAllControlPointsOptionVisible = stored(bool, "unsetAllControlPointsOptionVisible", False)
    placeMultipleMarkups = stored(int, "placeMultipleMarkups", 0)
    placeModePersistency = stored(bool, "placeModePersistency", False)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._markups, self._placing = None, False
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("+")
        self._button.setCheckable(True)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(self.setPlaceModeEnabled)

    def currentNode(self) -> Any:
        return self._markups

    def currentMarkupsNode(self) -> Any:
        return self._markups

    @QtCore.Slot(object)
    def setCurrentNode(self, node: Any) -> None:
        self._markups = node
        self.setPlaceModeEnabled(False)

    def interactionNode(self) -> Any:
        return self._scene.GetSingletonNode("Singleton", "vtkMRMLInteractionNode") if self._scene else None

    def selectionNode(self) -> Any:
        return self._scene.GetSingletonNode("Singleton", "vtkMRMLSelectionNode") if self._scene else None

    def placeButton(self) -> Any:
        return self._button

    def setPlaceModeEnabled(self, place: bool) -> None:
        place = bool(place) and self._markups is not None and self._scene is not None
        if place == self._placing:
            self._button.setChecked(place)
            return
        self._placing = place
        self._button.setChecked(place)
        self._tell_nodes(place)
        self.activeMarkupsPlaceModeChanged.emit(place)
        self.activeMarkupsFiducialPlaceModeChanged.emit(place)

    def _tell_nodes(self, place: bool) -> None:
        if place:
            self.selectionNode().SetReferenceActivePlaceNodeClassName(self._markups.GetClassName())
            self.selectionNode().SetActivePlaceNodeID(self._markups.GetID())
        self.interactionNode().SetPlaceModePersistence(int(self.placeModePersistency))
        mode = slicer.vtkMRMLInteractionNode.Place if place else slicer.vtkMRMLInteractionNode.ViewTransform
        self.interactionNode().SetCurrentInteractionMode(mode)

    placeModeEnabled = QtCore.Property(bool, lambda self: self._placing, lambda self, v: self.setPlaceModeEnabled(v))


