"""Stand-ins for ``slicer.app``, the main window and the module manager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from slicer_adapter.modules import Modules
from slicer_adapter.standins import standin, stored
from slicer_adapter.views import qSlicerLayoutManager

VERSION = (5, 12)


class qSlicerCommandOptions(QtCore.QObject):  # noqa: N801
    """What the program was started with."""

    noMainWindow = stored(bool, "noMainWindow", False)
    isTestingEnabled = stored(bool, "isTestingEnabled", False)


class qSlicerModuleFactoryManager(QtCore.QObject):  # noqa: N801
    """Knows which modules were loaded."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self._modules = modules

    def loadedModuleNames(self) -> list[str]:
        return self._modules.names()


class qSlicerModuleManager(QtCore.QObject):  # noqa: N801
    """Gives modules by name, and says which goes."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self._modules = modules
        self._factory = qSlicerModuleFactoryManager(modules)

    def module(self, name: str) -> Any:
        return self._modules.find(name)

    def factoryManager(self) -> QtCore.QObject:
        return self._factory


class qSlicerModuleSelectorToolBar(QtCore.QObject):  # noqa: N801
    """Chooses the module that is shown."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self._modules = modules

    selectedModule = QtCore.Property(str, lambda self: self._modules.shown_name)

    def selectModule(self, name: str) -> None:
        self._modules.show(name)
        self.moduleSelected.emit(name)


class qSlicerMainWindow(QtWidgets.QMainWindow):  # noqa: N801
    """The main window; it holds the status bar and the parent of dialogs."""

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = qSlicerModuleSelectorToolBar(modules)
        self.statusBar()

    def moduleSelector(self) -> QtCore.QObject:
        return self._selector


@standin("slicer")
class qSlicerApplication(QtCore.QObject):  # noqa: N801
    """The application."""

    startupCompleted = QtCore.Signal()
    aboutToQuit = QtCore.Signal()
    renderPaused = QtCore.Signal(bool)
    focusChanged = QtCore.Signal(QtWidgets.QWidget, QtWidgets.QWidget)
    lastWindowClosed = QtCore.Signal()
    temporaryPath = stored(str, "temporaryPath", "")
    cachePath = stored(str, "cachePath", "")
    slicerHome = stored(str, "slicerHome", "")
    startupWorkingPath = stored(str, "startupWorkingPath", "")
    applicationName = stored(str, "applicationName", "Slicer")
    mainApplicationName = stored(str, "mainApplicationName", "Slicer")
    applicationVersion = stored(str, "applicationVersion", "5.12.0-2026-06-23")
    revision = stored(str, "revision", "a5df714")
    documentationBaseUrl = stored(str, "documentationBaseUrl", "https://slicer.readthedocs.io/en/latest/")
    majorVersion = QtCore.Property(int, lambda self: VERSION[0])
    minorVersion = QtCore.Property(int, lambda self: VERSION[1])
    os = QtCore.Property(str, lambda self: {"windows": "win", "osx": "macosx"}.get(QtCore.QSysInfo.productType(), "linux"))

    def __init__(self, scene: Any, modules: Modules, folder: Path) -> None:
        super().__init__()
        self._scene, self._folder = scene, folder
        self._testing = False
        self.temporaryPath, self.slicerHome = str(folder / "temporary"), str(folder / "home")
        self.cachePath, self.startupWorkingPath = str(folder / "cache"), str(Path.cwd())
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(scene)
        self._logic.SetTemporaryPath(self.temporaryPath)
        self._layout_manager = qSlicerLayoutManager(scene, self._logic)
        self._module_manager = qSlicerModuleManager(modules)
        self._settings = QtCore.QSettings(str(folder / "Slicer.ini"), QtCore.QSettings.Format.IniFormat)
        self._options = qSlicerCommandOptions()
        QtWidgets.QApplication.instance().focusChanged.connect(self.focusChanged)
        QtWidgets.QApplication.instance().lastWindowClosed.connect(self.lastWindowClosed)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> QtCore.QObject:
        return self._layout_manager

    def moduleManager(self) -> QtCore.QObject:
        return self._module_manager

    def moduleLogic(self, name: str) -> Any:
        module = self._module_manager.module(name)
        return module.logic() if module is not None else None

    def commandOptions(self) -> QtCore.QObject:
        return self._options

    def settings(self) -> QtCore.QSettings:
        return self._settings

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def revisionUserSettings(self) -> QtCore.QSettings:
        return self._settings

    def testingEnabled(self) -> bool:
        return self._testing

    def translate(self, _context: str, text: str) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def environment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def processEvents(self) -> None:
        QtCore.QCoreApplication.processEvents()

    def topLevelWidgets(self) -> list[QtWidgets.QWidget]:
        return QtWidgets.QApplication.topLevelWidgets()

    def activeWindow(self) -> Any:
        return QtWidgets.QApplication.activeWindow()

    def activeModalWidget(self) -> Any:
        return QtWidgets.QApplication.activeModalWidget()

    def focusWidget(self) -> Any:
        return QtWidgets.QApplication.focusWidget()

    def clipboard(self) -> QtGui.QClipboard:
        return QtWidgets.QApplication.clipboard()

    def palette(self) -> QtGui.QPalette:
        return QtWidgets.QApplication.palette()

    def setOverrideCursor(self, cursor: QtGui.QCursor | QtCore.Qt.CursorShape) -> None:
        QtWidgets.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        QtWidgets.QApplication.restoreOverrideCursor()

    def pauseRender(self) -> None:
        self.renderPaused.emit(True)

    def resumeRender(self) -> None:
        self.renderPaused.emit(False)
