"""The modules ``qt`` and ``ctk``: one flat namespace each, filled as names are asked for."""

from __future__ import annotations

import enum
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtNetwork, QtPrintSupport, QtSvg, QtWidgets

from slicer_adapter import conversion, dialogs, pythonqt, standins
from slicer_adapter.uiloader import QUiLoader

QT_LIBRARIES = (QtCore, QtGui, QtWidgets, QtNetwork, QtPrintSupport, QtSvg)

PYSIDE_ONLY = frozenset({"Signal", "Slot", "Property", "SignalInstance", "SIGNAL", "SLOT", "ClassInfo", "QtMsgType",
                         "QEnum", "QFlag", "Q_ARG", "Q_RETURN_ARG", "QPyTextObject", "QMutexLocker", "QReadLocker",
                         "QWriteLocker", "QMetaObject", "QKeyCombination", "QOverrideCursorGuard", "QPainterStateGuard",
                         "QRangeModel", "QCalendar", "QVersionNumber", "QTreeWidgetItemIterator", "QPageRanges"})
PYSIDE_ONLY_BEGINNINGS = ("QRhi", "QCbor", "QShader", "QHttp", "QNative", "QRest", "QDtls")
"""Names of PySide6 that PythonQt's generated wrappers do not have."""

REMOVED_IN_QT6 = frozenset({"QRegExp", "QTextCodec", "QDesktopWidget", "QMatrix", "QStringRef"})
"""Qt 5 has them, Qt 6 has not: code for Slicer must run on both, so asking for one raises."""

DIALOG_STATICS = {
    QtWidgets.QMessageBox: ("question", "information", "warning", "critical", "about"),
    QtWidgets.QFileDialog: ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"),
    QtWidgets.QInputDialog: ("getText", "getMultiLineText", "getItem", "getInt", "getDouble"),
}


class QtModule(ModuleType):
    """``qt``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_", *PYSIDE_ONLY_BEGINNINGS)) or name in PYSIDE_ONLY | REMOVED_IN_QT6:
            raise AttributeError(f"module 'qt' has no attribute '{name}'")
        for library in QT_LIBRARIES:
            if hasattr(library, name):
                return _dressed(getattr(library, name), name)
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


def _dressed(value: Any, name: str) -> Any:
    if isinstance(value, type) and issubclass(value, enum.Enum):
        raise AttributeError(f"module 'qt' has no attribute '{name}'")
    if isinstance(value, type):
        return pythonqt.wrapper_class(value)
    if isinstance(value, enum.Enum):
        return conversion.enum_to_int(value)
    if callable(value):
        return pythonqt.Slot(value, name)
    raise AttributeError(f"module 'qt' has no attribute '{name}'")


def qt_module() -> ModuleType:
    """A fresh ``qt``."""
    module = QtModule("qt")
    module.QUiLoader = pythonqt.wrapper_class(QUiLoader)
    _answer_dialogs()
    return module


def _answer_dialogs() -> None:
    pythonqt.overrides[(QtWidgets.QDialog, "exec")] = dialogs.execute
    pythonqt.overrides[(QtGui.QTextDocument, "print")] = lambda document, device: document.print_(pythonqt.unwrap(device))
    pythonqt.overrides[(QtWidgets.QMenu, "exec")] = lambda menu, *_: dialogs.asked("QMenu", menu.title())
    for cls, names in DIALOG_STATICS.items():
        for name in names:
            kind = f"{cls.__name__}.{name}"
            pythonqt.static_overrides[(cls, name)] = lambda *arguments, k=kind: dialogs.static_question(k, arguments)


def ctk_module() -> ModuleType:
    """A fresh ``ctk``."""
    module = ModuleType("ctk")
    for cls in standins.classes["ctk"].values():
        setattr(module, cls.__name__, pythonqt.wrapper_class(cls))
    return module
