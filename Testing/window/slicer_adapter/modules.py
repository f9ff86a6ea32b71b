"""Stand-ins for modules: Slicer's own by their real logics, scripted ones loaded as Slicer loads them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from slicer_adapter import pythonqt
from slicer_adapter.mrml_widgets import SCENE_SIGNAL
from slicer_adapter.standins import standin, stored

LOGICS = {
    "Colors": "vtkSlicerColorLogic", "CropVolume": "vtkSlicerCropVolumeLogic", "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic", "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic", "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic", "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Transforms": "vtkSlicerTransformLogic", "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic", "Volumes": "vtkSlicerVolumesLogic",
}
"""Slicer's own modules whose logic slicer-core holds."""

WITHOUT_THEIR_FILES = frozenset({"Colors", "Terminologies", "Units"})
"""Logics that complain at start, because the files they read come with the application: made when they are asked for."""


@standin("slicer")
class qSlicerLoadableModule(QtCore.QObject):  # noqa: N801
    """A module of Slicer's own: a name and a logic."""

    name = stored(str, "name", "")
    title = stored(str, "title", "")

    def __init__(self, name: str, scene: Any) -> None:
        super().__init__()
        self.name = self.title = name
        self._scene, self._logic = scene, None

    def logic(self) -> Any:
        if self._logic is None:
            self._logic = getattr(slicer, LOGICS[self.name])()
            self._logic.SetMRMLApplicationLogic(pythonqt.unwrap(slicer.app).applicationLogic())
            self._logic.SetMRMLScene(self._scene)
        return self._logic


@standin("slicer")
class qSlicerScriptedLoadableModule(QtCore.QObject):  # noqa: N801
    """What a scripted module's class gets as parent."""

    name = stored(str, "name", "")
    title = stored(str, "title", "")
    categories = stored("QStringList", "categories", [])
    dependencies = stored("QStringList", "dependencies", [])
    contributors = stored("QStringList", "contributors", [])
    associatedNodeTypes = stored("QStringList", "associatedNodeTypes", [])
    helpText = stored(str, "helpText", "")
    acknowledgementText = stored(str, "acknowledgementText", "")
    icon = stored(QtGui.QIcon, "icon", QtGui.QIcon())
    path = stored(str, "path", "")
    hidden = stored(bool, "hidden", False)
    widgetRepresentationCreationEnabled = stored(bool, "widgetRepresentationCreationEnabled", True)
    index = stored(int, "index", -1)

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.name, self.path, self._widget = name, str(path), None

    def widgetRepresentation(self) -> Any:
        return self._widget

    def logic(self) -> Any:
        return None


@standin("slicer")
class qSlicerScriptedLoadableModuleWidget(QtWidgets.QWidget):  # noqa: N801
    """What a scripted module's widget class gets as parent."""

    signatures = SCENE_SIGNAL
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._scene, self._script, self._entered = None, None, False
        self.setLayout(QtWidgets.QVBoxLayout())

    isEntered = QtCore.Property(bool, lambda self: self._entered)

    def enter(self) -> None:
        self._entered = True
        self._tell("enter")

    def exit(self) -> None:
        self._entered = False
        self._tell("exit")

    def _tell(self, method: str) -> None:
        if hasattr(self._script, method):
            getattr(self._script, method)()

    def self(self) -> Any:
        return self._script

    def mrmlScene(self) -> Any:
        return self._scene

    @QtCore.Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class Modules:
    """``slicer.modules``: Slicer's own modules made on demand, and the scripted ones that a test loads."""

    def __init__(self, scene: Any, namespace: ModuleType, names: ModuleType) -> None:
        self._scene, self._namespace, self._names = scene, namespace, names
        self._own = {name: qSlicerLoadableModule(name, scene) for name in LOGICS if hasattr(slicer, LOGICS[name])}
        self._scripted: dict[str, qSlicerScriptedLoadableModule] = {}
        self.shown_name = ""
        for name, module in self._own.items():
            self._publish(name, module)

    def _publish(self, name: str, module: QtCore.QObject) -> None:
        setattr(self._namespace, name.lower(), pythonqt.wrap(module))
        setattr(self._names, name, name)

    def start_logics(self) -> None:
        """Make the logics: they register their node classes in the scene."""
        for name, module in self._own.items():
            if name not in WITHOUT_THEIR_FILES:
                module.logic()

    def names(self) -> list[str]:
        """Every module loaded."""
        return [*self._own, *self._scripted]

    def scripted_names(self) -> list[str]:
        """The scripted modules loaded."""
        return list(self._scripted)

    def find(self, name: str) -> Any:
        """A module by name, None when it is not loaded."""
        return self._scripted.get(name) or self._own.get(name)

    def load(self, name: str) -> ModuleType:
        """Import a scripted module and make its module object, as Slicer does at start; no widget yet."""
        script = importlib.import_module(name)
        parent = qSlicerScriptedLoadableModule(name, Path(script.__file__))
        parent.title = name
        self._scripted[name] = parent
        self._publish(name, parent)
        setattr(self._namespace, f"{name}Instance", getattr(script, name)(pythonqt.wrap(parent)))
        return script

    def open(self, name: str) -> Any:
        """Make the module's widget: constructor, setup(), then the scene. The script's widget object is returned."""
        parent = self._scripted[name]
        representation = qSlicerScriptedLoadableModuleWidget()
        parent._widget = representation
        widget = getattr(sys.modules[name], f"{name}Widget")(pythonqt.wrap(representation))
        representation._script = widget
        setattr(self._namespace, f"{name}Widget", widget)
        widget.setup()
        representation.setMRMLScene(self._scene)
        return widget

    def show(self, name: str) -> None:
        """Leave the module that is shown and enter another.

        Raises
        ------
        RuntimeError
            When there is no such module.
        """
        if name not in self.names():
            raise RuntimeError(f"Could not find module with name '{name}'")
        if name == self.shown_name:
            return
        self._exit_shown()
        self.shown_name = name
        parent = self._scripted.get(name)
        if parent is not None:
            if parent._widget is None:
                self.open(name)
            parent._widget.enter()

    def _exit_shown(self) -> None:
        parent = self._scripted.get(self.shown_name)
        if parent is not None and parent._widget is not None:
            parent._widget.exit()

    def unload(self, manager: QtCore.QObject) -> None:
        """Say that every scripted module goes, and delete the widgets."""
        self._exit_shown()
        self.shown_name = ""
        for name, parent in self._scripted.items():
            manager.moduleAboutToBeUnloaded.emit(name)
            if parent._widget is not None:
                parent._widget.deleteLater()
                parent._widget = None
        self._scripted.clear()
