"""``slicer.parameterNodeWrapper``: typed parameters in a vtkMRMLScriptedModuleNode, bound to widgets.

Smaller than the real one: bool, int, float, str, paths, enums, MRML nodes (or None), and the widgets for them. Whatever
else a parameter or a widget is raises.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import ctk
import qt
import slicer
import vtk

SlicerParameterNamePropertyName = "SlicerParameterName"
PATHS = (pathlib.Path, pathlib.PurePath, type(pathlib.Path()))


class Default:
    """The value of a parameter that was never written."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        """The default."""
        return self._generator() if self._generator else self._value


class Validator:
    """Base of validators."""

    def validate(self, value: Any) -> None:
        """Raise ValueError for a value that must not be."""
        raise NotImplementedError


@dataclass
class WithinRange(Validator):
    """From minimum to maximum, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} to {self.maximum}")


@dataclass
class Minimum(Validator):
    """Not below."""

    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is below {self.minimum}")


@dataclass
class Maximum(Validator):
    """Not above."""

    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is above {self.maximum}")


@dataclass
class Choice(Validator):
    """One of these."""

    choices: list[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value} is none of {self.choices}")


@dataclass
class Decimals:
    """Decimals of a spin box."""

    value: int


@dataclass
class SingleStep:
    """Step of a spin box."""

    value: float


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


class Parameter:
    """One typed parameter and how it is written."""

    def __init__(self, name: str, annotation: Any, given: Any, has_default: bool) -> None:
        kind, *notes = typing.get_args(Annotated[annotation, "end"])
        self.name, self.notes = name, notes[:-1]
        parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
        self.kinds = tuple(p for p in parts if p is not type(None))
        self.kind = self.kinds[0]
        if not (all(map(_is_node, self.kinds)) or self.kind in (bool, int, float, str, *PATHS)
                or (isinstance(self.kind, type) and issubclass(self.kind, enum.Enum))):
            raise TypeError(f"parameter {name}: the adapter's parameter node knows no {annotation}")
        self.default = Default(given) if has_default else self.note(Default) or Default(self._empty())

    def note(self, kind: type) -> Any:
        """The first annotation of a kind."""
        return next((n for n in self.notes if isinstance(n, kind)), None)

    def _empty(self) -> Any:
        if _is_node(self.kind):
            return None
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def read(self, node: Any) -> Any:
        """The value in the node."""
        if _is_node(self.kind):
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        """Check and store."""
        for validator in (n for n in self.notes if isinstance(n, Validator)):
            validator.validate(value)
        if _is_node(self.kind):
            if value is not None and not isinstance(value, self.kinds):
                raise TypeError(f"{self.name} takes {self.kinds}, got {type(value).__name__}")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, (self.kind, int) if self.kind is float else PATHS if self.kind in PATHS else self.kind):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, got {value!r}")
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))


def _bounds(widget: Any, parameter: Parameter) -> None:
    within = parameter.note(WithinRange)
    low, high = parameter.note(Minimum) or within, parameter.note(Maximum) or within
    if low is not None:
        widget.minimum = low.minimum
    if high is not None:
        widget.maximum = high.maximum
    if parameter.note(Decimals):
        widget.decimals = parameter.note(Decimals).value
    if parameter.note(SingleStep):
        widget.singleStep = parameter.note(SingleStep).value


@dataclass
class Connector:
    """A widget that shows one parameter: how it is read, written, and which signal says that it changed."""

    widget: Any
    signal: str
    read: Callable[[], Any]
    write: Callable[[Any], None]


def _connector(widget: Any, parameter: Parameter) -> Connector:
    kind, cls = parameter.kind, type(widget)
    if _is_node(kind) and cls is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = [k().GetClassName() for k in parameter.kinds]
        return Connector(widget, "currentNodeChanged", widget.currentNode, widget.setCurrentNode)
    if cls in (qt.QComboBox, ctk.ctkComboBox):
        return _combo_connector(widget, parameter)
    for kinds, classes, prop, signal in _PLAIN:
        if kind in kinds and cls in classes():
            if kind in (int, float):
                _bounds(widget, parameter)
            if kind is bool and prop == "checked" and hasattr(widget, "checkable") and not widget.checkable:
                widget.checkable = True
            return _plain_connector(widget, signal, prop, kind)
    raise RuntimeError(f"parameter {parameter.name} ({kind}) cannot be shown by {cls.__name__}")


def _plain_connector(widget: Any, signal: str, prop: str, kind: type) -> Connector:
    def write(value: Any) -> None:
        if value != getattr(widget, prop):
            setattr(widget, prop, str(value) if kind in PATHS else value)

    return Connector(widget, signal, lambda: kind(getattr(widget, prop)), write)


_PLAIN = (
    ((bool,), lambda: (qt.QCheckBox, ctk.ctkCheckBox), "checked", "stateChanged"),
    ((bool,), lambda: (qt.QPushButton,), "checked", "toggled"),
    ((int,), lambda: (qt.QSpinBox, qt.QSlider), "value", "valueChanged"),
    ((int, float), lambda: (qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox, slicer.qMRMLSliderWidget,
                            slicer.qMRMLSpinBox), "value", "valueChanged"),
    ((str,), lambda: (qt.QLineEdit,), "text", "textChanged"),
    (PATHS, lambda: (ctk.ctkPathLineEdit,), "currentPath", "currentPathChanged"),
    (PATHS, lambda: (ctk.ctkDirectoryButton,), "directory", "directoryChanged"),
)


def _combo_connector(widget: Any, parameter: Parameter) -> Connector:
    if issubclass(parameter.kind, enum.Enum):
        choices = list(parameter.kind)
        labels = [c.label() if hasattr(c, "label") else c.name for c in choices]
    elif parameter.note(Choice):
        choices = list(parameter.note(Choice).choices)
        labels = [str(c) for c in choices]
    else:
        raise RuntimeError(f"parameter {parameter.name}: a combo box needs a Choice or an enum")
    widget.clear()
    for label in labels:
        widget.addItem(label)

    def write(value: Any) -> None:
        widget.currentIndex = choices.index(value)

    return Connector(widget, "currentIndexChanged", lambda: choices[widget.currentIndex], write)


class _Wrapper:
    """The methods that the decorator adds."""

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[list[tuple[Parameter, Connector, Callable]], int]] = {}
        self._next_tag, self._showing = 0, False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default.value)

    def getValue(self, name: str) -> Any:
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self.allParameters[name].write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return self.allParameters[name].default

    def connectGui(self, gui: Any) -> int:
        """Bind every named child (or attribute) that carries the dynamic property SlicerParameterName."""
        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "findChildren") else list(vars(gui).values())
        named = {w.property(SlicerParameterNamePropertyName): w for w in widgets
                 if w.property(SlicerParameterNamePropertyName)}
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Bind widgets to parameters by name."""
        unknown = set(mapping) - set(self.allParameters)
        if unknown:
            raise ValueError(f"no parameters {sorted(unknown)}; there are {sorted(self.allParameters)}")
        bound = []
        for name, widget in mapping.items():
            parameter = self.allParameters[name]
            connector = _connector(widget, parameter)
            connector.write(parameter.read(self.parameterNode))
            changed = self._taker(parameter, connector)
            getattr(widget, connector.signal).connect(changed)
            bound.append((parameter, connector, changed))
        observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        self._next_tag += 1
        self._guis[self._next_tag] = (bound, observer)
        return self._next_tag

    def _taker(self, parameter: Parameter, connector: Connector) -> Callable[[], None]:
        def changed() -> None:
            if not self._showing:
                parameter.write(self.parameterNode, connector.read())
        return changed

    def _show(self) -> None:
        if self._showing:
            return
        self._showing = True
        try:
            for bound, _observer in self._guis.values():
                for parameter, connector, _changed in bound:
                    connector.write(parameter.read(self.parameterNode))
        finally:
            self._showing = False

    def disconnectGui(self, guiTag: int) -> None:
        """Undo one connectGui."""
        bound, observer = self._guis.pop(guiTag, ([], None))
        for _parameter, connector, changed in bound:
            getattr(connector.widget, connector.signal).disconnect(changed)
        if observer is not None:
            self.parameterNode.RemoveObserver(observer)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def StartModify(self) -> bool:
        return self.parameterNode.StartModify()

    def EndModify(self, was: bool) -> int:
        return self.parameterNode.EndModify(was)


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator: the class's annotations become parameters."""
    if classtype is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(classtype, include_extras=True)
    classtype.allParameters = {name: Parameter(name, hint, getattr(classtype, name, None), hasattr(classtype, name))
                               for name, hint in hints.items()}
    for name in hints:
        setattr(classtype, name, property(lambda self, n=name: self.getValue(n),
                                          lambda self, value, n=name: self.setValue(n, value)))
    for name, member in vars(_Wrapper).items():
        if name == "__init__" or not name.startswith("__"):
            setattr(classtype, name, member)
    return classtype


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    """True for what the decorator made."""
    return hasattr(classOrObj, "allParameters")
