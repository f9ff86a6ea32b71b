"""One run of the imitated application: the names are there while it is installed, and gone afterwards."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import slicer
import slicer.util
from PySide6 import QtCore, QtGui, QtTest, QtWidgets

from slicer_adapter import (  # noqa: F401  the stand-ins register when they are imported
    application,
    ctk_widgets,
    dialogs,
    mrml_widgets,
    namespaces,
    pythonqt,
    segment_editor,
    signals,
    standins,
)
from slicer_adapter.modules import Modules

NONE_RESERVE = 1 << 40

SLICER_FILES = ("i18n", "ScriptedLoadableModule", "parameterNodeWrapper", "packaging")
"""Slicer's own Python files that slicer-core does not ship."""

SLICER_PYTHON_FOLDER = "SLICER_PYTHON_FOLDER"
"""Environment variable: the folder Base/Python/slicer of a Slicer checkout, to run its real files."""


def keep_none_alive() -> None:
    """Give None references in reserve, on a Python older than 3.12.

    PySide6 6.12 takes None to be immortal, which it is from Python 3.12 on: every call that returns None releases one
    reference too many, and the process ends with "deallocating None" after some thousand calls.
    """
    if sys.version_info < (3, 12) and sys.getrefcount(None) < NONE_RESERVE:
        ctypes.c_ssize_t.from_address(id(None)).value += NONE_RESERVE


def qt_application() -> QtWidgets.QApplication:
    """The process's only Qt application, off screen, with the fonts that matplotlib brings."""
    keep_none_alive()
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QT_QPA_FONTDIR", str(fonts))
    app = QtWidgets.QApplication.instance()
    if app is None:
        app = QtWidgets.QApplication(["Slicer"])
        app.setStyle("Fusion")
        for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf"):
            QtGui.QFontDatabase.addApplicationFont(str(fonts / name))
        app.setFont(QtGui.QFont("DejaVu Sans", 9))
    return app


class Session:
    """What a test holds: the scene, the dialogs that were shown, and ways to let time pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scene = slicer.vtkMRMLScene()
        self.qt_application = qt_application()
        self.modules: Modules | None = None
        self.app: application.qSlicerApplication | None = None
        self.window: application.qSlicerMainWindow | None = None

    @property
    def dialogs(self) -> list[dialogs.Shown]:
        """Every dialog that a person would have seen, in order."""
        return dialogs.shown

    def answer(self, *values: Any) -> None:
        """Queue answers for the dialogs to come: button codes, paths, texts."""
        dialogs.answer(*values)

    def unused_answers(self) -> list[Any]:
        """Answers that no dialog has asked for."""
        return dialogs.unused_answers()

    @property
    def slot_errors(self) -> list[BaseException]:
        """Errors that slots raised; those left at the end fail the test. Clear the list when they were expected."""
        return signals.slot_errors

    def load(self, name: str) -> ModuleType:
        """Load a scripted module as Slicer does at start."""
        return self.modules.load(name)

    def open(self, name: str) -> Any:
        """Load a module if need be, show it (setup, then enter) and return its widget object."""
        if name not in self.modules.names():
            self.load(name)
        self.modules.show(name)
        return getattr(slicer.modules, f"{name}Widget")

    def leave(self) -> None:
        """Show another module: the widget's exit() is called."""
        self.modules.show("Volumes")

    def start_up(self) -> None:
        """Emit startupCompleted() as at the end of Slicer's start."""
        self.app.startupCompleted.emit()

    def close_scene(self) -> None:
        """File, Close scene."""
        self.scene.Clear(0)

    def press(self, widget: Any, keys: str) -> None:
        """Press a key sequence, such as "Ctrl+Z" or "M", in a widget's window."""
        native = pythonqt.unwrap(widget)
        native.show()
        native.activateWindow()
        self.wait(20)
        QtTest.QTest.keySequence(native, QtGui.QKeySequence(keys))
        self.wait(20)

    def wait(self, milliseconds: int = 0) -> None:
        """Let Qt work for a while; timers, deletions and processes go on."""
        end = time.monotonic() + milliseconds / 1000
        while True:
            self.qt_application.processEvents()
            self.qt_application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
            if time.monotonic() >= end:
                return
            time.sleep(0.002)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Let Qt work until something is true.

        Raises
        ------
        TimeoutError
            When it does not come true in time.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {seconds} s")
            self.wait(5)


def _qt_message(kind: QtCore.QtMsgType, _context: Any, message: str) -> None:
    """Qt's own messages go to the log, but for one that every off-screen window causes."""
    if "propagateSizeHints" not in message:
        level = {QtCore.QtMsgType.QtWarningMsg: logging.WARNING, QtCore.QtMsgType.QtDebugMsg: logging.DEBUG,
                 QtCore.QtMsgType.QtInfoMsg: logging.INFO}.get(kind, logging.ERROR)
        logging.getLogger("qt").log(level, message)


def grab_png(widget: Any, path: Path | str, width: int = 0, height: int = 0) -> Path:
    """Draw a widget (a wrapper, or an object with a ``parent`` widget such as a module's) into a PNG."""
    native = pythonqt.unwrap(widget if isinstance(widget, pythonqt.Instance) else widget.parent)
    if width or height:
        native.resize(width or native.width(), height or native.height())
    native.show()
    for _ in range(5):
        QtWidgets.QApplication.processEvents()
    if not native.grab().save(str(path), "PNG"):
        raise OSError(f"cannot write {path}")
    return Path(path)


@contextmanager
def installed_session() -> Iterator[Session]:
    """Install the names for the length of the block, and leave the process as it was."""
    before_modules, before_slicer = set(sys.modules), dict(vars(slicer))
    before_util, before_environment = dict(vars(slicer.util)), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="slicer adapter ", ignore_cleanup_errors=True) as name:
        session = Session(Path(name))
        try:
            QtCore.qInstallMessageHandler(_qt_message)
            _install(session)
            yield session
        finally:
            scripts = session.modules.scripted_names() if session.modules is not None else []
            _uninstall(session)
            QtCore.qInstallMessageHandler(None)
            _restore(vars(slicer), before_slicer)
            _restore(vars(slicer.util), before_util)
            _forget_modules(before_modules, scripts)
            os.environ.clear()
            os.environ.update(before_environment)


def _install(session: Session) -> None:
    for folder in ("temporary", "home/bin", "cache"):
        (session.folder / folder).mkdir(parents=True)
    _offer_python_slicer(session.folder / "home" / "bin")
    QtCore.QCoreApplication.setOrganizationName("slicer.org")
    QtCore.QCoreApplication.setApplicationName("Slicer")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(session.folder))
    sys.modules["qt"], sys.modules["ctk"] = namespaces.qt_module(), namespaces.ctk_module()
    for cls in standins.classes["slicer"].values():
        setattr(slicer, cls.__name__, pythonqt.wrapper_class(cls))
    slicer.mrmlScene = session.scene
    slicer.modules, slicer.moduleNames = ModuleType("slicer.modules"), ModuleType("slicer.moduleNames")
    sys.modules["slicer.modules"], sys.modules["slicer.moduleNames"] = slicer.modules, slicer.moduleNames
    session.modules = Modules(session.scene, slicer.modules, slicer.moduleNames)
    session.app = application.qSlicerApplication(session.scene, session.modules, session.folder)
    session.window = application.qSlicerMainWindow(session.modules)
    slicer.app = pythonqt.wrap(session.app)
    session.modules.start_logics()
    dialogs.forget()
    for name in SLICER_FILES:
        _import_slicer_file(name)
    for name in ("SampleData", "SegmentEditorEffects"):
        _import_file(name, Path(__file__).parent / "scripts" / f"{name}.py")


def _offer_python_slicer(folder: Path) -> None:
    """PythonSlicer on the PATH, as in Slicer: this interpreter."""
    if os.name != "nt":
        launcher = folder / "PythonSlicer"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        launcher.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


def _import_slicer_file(name: str) -> None:
    """Import Slicer's own file where its sources are at hand, the imitation elsewhere, under Slicer's name."""
    real = os.environ.get(SLICER_PYTHON_FOLDER)
    folder = Path(real) if real else Path(__file__).parent / "scripts"
    file = next(f for f in (folder / f"{name}.py", folder / name / "__init__.py") if f.is_file())
    setattr(slicer, name, _import_file(f"slicer.{name}", file))


def _import_file(full_name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        full_name, file, submodule_search_locations=[str(file.parent)] if file.name == "__init__.py" else None)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module


def _uninstall(session: Session) -> None:
    try:
        if session.modules is not None and session.app is not None:
            session.modules.unload(session.app.moduleManager())
        session.wait()
        for widget in QtWidgets.QApplication.topLevelWidgets():
            widget.close()
            widget.deleteLater()
        session.wait()
    finally:
        signals.forget_all()
        dialogs.forget()
        segment_editor.registered.clear()
        session.scene.Clear(0)


def _restore(namespace: dict[str, Any], before: dict[str, Any]) -> None:
    for name in set(namespace) - set(before):
        del namespace[name]
    namespace.update(before)


def _forget_modules(before: set[str], scripts: list[str]) -> None:
    """Scripts that saw the adapter's names must not be found by a test that runs without it."""
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        top = name.split(".")[0]
        ours = top in ("qt", "ctk", "slicer", "SampleData", "SegmentEditorEffects", *scripts) or top.endswith("Qt")
        if ours or "qt" in vars(module):
            del sys.modules[name]
    for name in ("qt", "ctk"):
        sys.modules.pop(name, None)
