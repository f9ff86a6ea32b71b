"""``qt.QUiLoader`` and the .ui file's connections, with the stand-ins as custom widgets."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from slicer_adapter import signals, standins

QT_WIDGETS = {name for name in dir(QtWidgets) if name.startswith("Q")} | {"Line"}
SCRIPT_PROPERTIES = ("SlicerParameterName", "SlicerPackParameterName")
"""Dynamic properties that scripts read; any other that a stand-in does not know is taken for a spelling mistake."""


class QUiLoader(QtCore.QObject):
    """Loads a .ui file for real.

    Raises
    ------
    ValueError
        For a widget class, property, signal or slot that neither Qt nor a stand-in has.
    """

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """The root widget with its children, connections made."""
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        _check_classes(root)
        connections = _take_connections(root)
        widget = _load(root, parent)
        _check_properties(widget)
        for sender, signal, receiver, slot in connections:
            _connect(_named(widget, sender), signal, _named(widget, receiver), slot)
        return widget


def _check_classes(root: ElementTree.Element) -> None:
    known = QT_WIDGETS | set(standins.classes["ctk"]) | set(standins.classes["slicer"])
    for element in root.iter("widget"):
        if element.get("class") not in known:
            raise ValueError(f"no widget class {element.get('class')!r} ({element.get('name')}) in Qt or the stand-ins")


def _take_connections(root: ElementTree.Element) -> list[tuple[str, str, str, str]]:
    section = root.find("connections")
    if section is None:
        return []
    root.remove(section)
    return [tuple(c.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))
            for c in section.findall("connection")]


def _load(root: ElementTree.Element, parent: QtWidgets.QWidget | None) -> QtWidgets.QWidget:
    loader = QtUiTools.QUiLoader()
    for cls in [*standins.classes["ctk"].values(), *standins.classes["slicer"].values()]:
        if issubclass(cls, QtWidgets.QWidget):
            loader.registerCustomWidget(cls)
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(root))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget = loader.load(buffer, parent)
    if widget is None:
        raise ValueError(f"the .ui file cannot be loaded: {loader.errorString()}")
    return widget


def _check_properties(widget: QtWidgets.QWidget) -> None:
    for child in [widget, *widget.findChildren(QtWidgets.QWidget)]:
        if type(child).__module__.startswith("PySide6"):
            continue
        for name in (bytes(p.data()).decode() for p in child.dynamicPropertyNames()):
            if name not in SCRIPT_PROPERTIES and not name.startswith("_"):
                raise ValueError(f"{type(child).__name__} {child.objectName()!r} has no property {name!r}")


def _named(widget: QtWidgets.QWidget, name: str) -> QtCore.QObject:
    found = widget if widget.objectName() == name else widget.findChild(QtCore.QObject, name)
    if found is None:
        raise ValueError(f"a connection of the .ui file names {name!r}, which is not in it")
    return found


def _connect(sender: QtCore.QObject, signal: str, receiver: QtCore.QObject, slot: str) -> None:
    if not signals.connect_slot(sender, signal, receiver, slot):
        raise ValueError(f"cannot connect {sender.objectName()}.{signal} to {receiver.objectName()}.{slot}")
