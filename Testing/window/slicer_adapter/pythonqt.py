"""PySide6 classes and objects dressed as PythonQt shows them to Slicer's Python.

Every native object is held by a wrapper. A wrapper's attributes are, in this order: Python attributes of a derived
class, Qt properties (plain values), methods, signals, enumerators, dynamic properties, children by object name.
Anything else is an AttributeError, on reading and on writing.
"""

from __future__ import annotations

import enum
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore
from shiboken6 import Shiboken

from slicer_adapter import conversion, signals

_classes: dict[type, type] = {}
_living: weakref.WeakValueDictionary[int, Instance] = weakref.WeakValueDictionary()
_shims: dict[type, type] = {}

PYSIDE_ONLY = frozenset({"connect", "disconnect", "emit", "receivers", "signatures", "staticMetaObject"})
"""Names that PySide6 or a stand-in adds and PythonQt does not have."""

overrides: dict[tuple[type, str], Callable] = {}
"""Methods that are answered here instead of by Qt, by native class and name: what would wait for a person."""

static_overrides: dict[tuple[type, str], Callable] = {}
"""The same for static methods; they get the arguments only."""


class EnumType:
    """An enumeration's type: it makes plain integers; its enumerators stand in the class around it, not in it."""

    def __init__(self, native: type[enum.Enum]) -> None:
        self.__name__ = native.__name__

    def __call__(self, value: int = 0) -> int:
        return int(value)


class WrapperClass(type):
    """The class of wrapper classes: class attributes are enumerators, enumerations, static and unbound methods."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        native = cls._native
        if (replacement := _override(static_overrides, native, name)) is not None:
            return Slot(replacement, name)
        found = class_member(native, name)
        if isinstance(found, enum.Enum):
            return conversion.enum_to_int(found)
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return EnumType(found)
        if isinstance(found, type):
            return wrapper_class(found)
        if isinstance(found, (QtCore.Signal, QtCore.Property)) or not callable(found):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        if isinstance(inspect.getattr_static(native, name), staticmethod) or inspect.isbuiltin(found):
            return Slot(found, name)
        return UnboundSlot(native, name)


def _override(table: dict[tuple[type, str], Callable], native: type, name: str) -> Callable | None:
    return next((table[(base, name.removesuffix("_"))] for base in native.__mro__
                 if (base, name.removesuffix("_")) in table), None)


def class_member(native: type, name: str) -> Any:
    """The attribute of a native class under a C++ name; a keyword may carry a trailing underscore (``exec_``).

    Raises
    ------
    AttributeError
        When there is none, or it is private to the stand-in.
    """
    for candidate in (name, name.removesuffix("_")):
        if not candidate.startswith("_") and candidate not in PYSIDE_ONLY and hasattr(native, candidate):
            return getattr(native, candidate)
    raise AttributeError(f"type object '{native.__name__}' has no attribute '{name}'")


class Slot:
    """A method bound to its native object, taking and giving PythonQt's values."""

    def __init__(self, function: Callable, name: str) -> None:
        self._function, self.__name__ = function, name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if keywords:
            raise TypeError(f"{self.__name__}() takes no keyword arguments, {sorted(keywords)} given")
        return wrap(conversion.call(self._function, [_argument(a) for a in arguments]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slot) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)


class UnboundSlot:
    """A method taken from the class: the object is its first argument."""

    def __init__(self, native: type, name: str) -> None:
        self._native, self.__name__ = native, name

    def __call__(self, instance: Instance, *arguments: Any) -> Any:
        function = getattr(self._native, self.__name__.removesuffix("_") if self.__name__ not in dir(self._native)
                           else self.__name__)
        return wrap(conversion.call(function, [native_of(instance), *map(_argument, arguments)]))


class Instance(metaclass=WrapperClass):
    """A wrapper of one native object."""

    _native: type = object

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if keywords:
            raise TypeError(f"{type(self).__name__}() takes no keyword arguments, {sorted(keywords)} given")
        native_class = self._native if _is_plain(type(self)) else _shim(type(self))
        _adopt(self, conversion.call(native_class, [_argument(a) for a in arguments]))

    def delete(self) -> None:
        """Delete the C++ object now; the wrapper is falsy from then on."""
        native = self.__dict__.get("_qt")
        if native is not None and Shiboken.isValid(native):
            Shiboken.delete(native)

    def className(self) -> str:
        """The C++ class's name."""
        native = native_of(self)
        if isinstance(native, QtCore.QObject):
            return _public_meta_object(native).className()
        return type(self).__name__

    def inherits(self, name: str) -> bool:
        """True for the C++ class itself and those above it."""
        return any(base.__name__ == name for base in type(native_of(self)).__mro__)

    def help(self) -> None:
        """PythonQt prints the members here."""

    def __bool__(self) -> bool:
        native = self.__dict__.get("_qt")
        return native is not None and Shiboken.isValid(native)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        mine, theirs = self.__dict__.get("_qt"), other.__dict__.get("_qt")
        return mine is theirs or (not isinstance(mine, QtCore.QObject) and bool(mine == theirs))

    def __hash__(self) -> int:
        native = self.__dict__.get("_qt")
        return id(self) if native is None or isinstance(native, QtCore.QObject) else hash(native)

    def __repr__(self) -> str:
        return f"{type(self).__name__} ({'' if self else 'destroyed '}{type(self).__name__} at: {id(self):#x})"

    def __add__(self, other: Any) -> Any:
        return wrap(native_of(self) + unwrap(other))

    def __sub__(self, other: Any) -> Any:
        return wrap(native_of(self) - unwrap(other))

    def __mul__(self, other: Any) -> Any:
        return wrap(native_of(self) * unwrap(other))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_qt":
            raise AttributeError(name)
        native = self.__dict__.get("_qt")
        if native is None or not Shiboken.isValid(native):
            raise ValueError(f"Trying to read attribute '{name}' from a destroyed C++ {type(self).__name__} object")
        return _read(self, native, name)

    def __setattr__(self, name: str, value: Any) -> None:
        native = self.__dict__.get("_qt")
        if name == "_qt":
            self.__dict__[name] = value
        elif native is None or not Shiboken.isValid(native):
            if _is_plain(type(self)):
                raise AttributeError(f"Trying to set property '{name}' on a destroyed {type(self).__name__} object")
            object.__setattr__(self, name, value)
        else:
            _write(self, native, name, value)


def _read(instance: Instance, native: Any, name: str) -> Any:
    if isinstance(native, QtCore.QObject):
        meta = _property(native, name)
        if meta is not None:
            return wrap(native.property(meta.name()))
        if signals.first_signature(native, name) is not None:
            return signals.SignalFunction(native, name)
    if (replacement := _override(overrides, type(native), name)) is not None:
        return Slot(functools.partial(replacement, native), name)
    try:
        found = class_member(type(native), name)
    except AttributeError:
        return _read_dynamic(native, name)
    if callable(found) and not isinstance(found, type):
        spelled = name if hasattr(native, name) else name.removesuffix("_")
        return Slot(getattr(native, spelled), name)
    return getattr(type(instance), name)


def _read_dynamic(native: Any, name: str) -> Any:
    if isinstance(native, QtCore.QObject):
        if name.encode() in [bytes(p.data()) for p in native.dynamicPropertyNames()]:
            return wrap(native.property(name))
        for child in native.children():
            if child.objectName() == name:
                return wrap(child)
    raise AttributeError(f"{_name_of(native)} has no attribute named '{name}'")


def _write(instance: Instance, native: Any, name: str, value: Any) -> None:
    is_object = isinstance(native, QtCore.QObject)
    meta = _property(native, name) if is_object else None
    if isinstance(native, QtCore.QTimer) and name == "singleShot":  # the static function hides the property
        raise AttributeError(f"Slot '{name}' can not be overwritten on {_name_of(native)} object")
    if meta is not None:
        _write_property(native, meta, value)
    elif is_object and signals.first_signature(native, name) is not None:
        raise AttributeError(f"Signal '{name}' can not be overwritten on {_name_of(native)} object")
    elif _has_member(type(native), name):
        raise AttributeError(f"Slot '{name}' can not be overwritten on {_name_of(native)} object")
    elif is_object and name.encode() in [bytes(p.data()) for p in native.dynamicPropertyNames()]:
        native.setProperty(name, unwrap(value))
    elif _is_plain(type(instance)):
        raise AttributeError(f"'{name}' does not exist on {_name_of(native)} and creating new attributes "
                             "on C++ objects is not allowed")
    else:
        object.__setattr__(instance, name, value)


def _write_property(native: QtCore.QObject, meta: QtCore.QMetaProperty, value: Any) -> None:
    if not meta.isWritable():
        raise AttributeError(f"Property '{meta.name()}' of {_name_of(native)} object is not writable")
    refusal = (f"Property '{meta.name()}' of type '{meta.typeName()}' does not accept an object of type "
               f"{type(value).__name__} ({value})")
    try:
        converted = conversion.property_value(unwrap(value), meta.typeName())
    except (TypeError, ValueError) as error:
        raise AttributeError(refusal) from error
    if not native.setProperty(meta.name(), converted):
        raise AttributeError(refusal)


def _property(native: QtCore.QObject, name: str) -> QtCore.QMetaProperty | None:
    """The meta property; PythonQt in Slicer shows ``objectName`` as ``name`` too, where a class has no name of its own."""
    meta = native.metaObject()
    index = meta.indexOfProperty(name)
    if index < 0 and name == "name":
        index = meta.indexOfProperty("objectName")
    return None if index < 0 else meta.property(index)


def _has_member(native: type, name: str) -> bool:
    try:
        class_member(native, name)
    except AttributeError:
        return False
    return True


def _name_of(native: Any) -> str:
    return _public_class(type(native)).__name__


def _public_meta_object(native: QtCore.QObject) -> QtCore.QMetaObject:
    meta = native.metaObject()
    while meta.className() in {shim.__name__ for shim in _shims.values()}:
        meta = meta.superClass()
    return meta


def _public_class(native: type) -> type:
    while native in _shims.values():
        native = native.__mro__[1]
    return native


def _is_plain(cls: type) -> bool:
    """True for a class of the adapter's, False for one that a script derived."""
    return "_native" in cls.__dict__


def wrapper_class(native: type) -> type:
    """The wrapper class of a native class. Wrapper classes do not inherit from one another, as in PythonQt."""
    if native not in _classes:
        _classes[native] = WrapperClass(native.__name__, (QObjectInstance if issubclass(native, QtCore.QObject)
                                                          else Instance,), {"_native": native})
    return _classes[native]


def wrap(value: Any) -> Any:
    """A value that Qt gave, as Python sees it: enumerators as integers, every list as a tuple."""
    if isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6"):
        return conversion.enum_to_int(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    if not isinstance(value, Shiboken.Object):
        return value
    return _wrap_object(value)


def _wrap_object(native: Any) -> Instance:
    if not isinstance(native, QtCore.QObject):
        return _new_wrapper(native)
    derived = getattr(native, "_script_object", None)
    known = derived if derived is not None else _living.get(Shiboken.getCppPointer(native)[0])
    if known is not None and known:
        return known
    return _new_wrapper(native)


def _new_wrapper(native: Any) -> Instance:
    cls = wrapper_class(_public_class(type(native)))
    instance = cls.__new__(cls)
    _adopt(instance, native)
    return instance


def _adopt(instance: Instance, native: Any) -> None:
    instance.__dict__["_qt"] = native
    if isinstance(native, QtCore.QObject):
        _living[Shiboken.getCppPointer(native)[0]] = instance
    if not _is_plain(type(instance)):
        native._script_object = instance


def native_of(instance: Instance) -> Any:
    """The native object of a wrapper.

    Raises
    ------
    ValueError
        When it was destroyed.
    """
    native = instance.__dict__.get("_qt")
    if native is None or not Shiboken.isValid(native):
        raise ValueError(f"Trying to use a destroyed C++ {type(instance).__name__} object")
    return native


def unwrap(value: Any) -> Any:
    """A value of a script's, as Qt takes it."""
    if isinstance(value, Instance):
        return native_of(value)
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(item) for item in value)
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    return value


def _argument(value: Any) -> Any:
    """An argument of a method; a script's function is guarded so that its error is kept, as in a signal."""
    if inspect.isfunction(value) or inspect.ismethod(value) or isinstance(value, (Slot, signals.SignalFunction)):
        return signals.guarded(value)
    return unwrap(value)


def _shim(cls: type) -> type:
    """A native class whose virtual methods call those that a script's class defines."""
    if cls not in _shims:
        native = cls._native
        between = cls.__mro__[:next(n for n, base in enumerate(cls.__mro__) if _is_plain(base))]
        names = {name for base in between for name, value in vars(base).items()
                 if inspect.isfunction(value) and not name.startswith("__") and hasattr(native, name)}
        _shims[cls] = type(cls.__name__, (native,), {name: _forward(native, name) for name in names})
    return _shims[cls]


def _forward(native_class: type, name: str) -> Callable:
    def method(self: Any, *arguments: Any) -> Any:
        script_object = getattr(self, "_script_object", None)
        if script_object is None:
            return getattr(native_class, name)(self, *arguments)
        return unwrap(getattr(script_object, name)(*map(wrap, arguments)))
    method.__name__ = name
    return method


class QObjectInstance(Instance):
    """What PythonQt adds to every QObject."""

    _native = QtCore.QObject

    def connect(self, signal: str, receiver: Any, slot: str | None = None) -> bool:
        """Connect a signal by its C++ signature to a callable, or to a slot of another object by its signature."""
        if slot is not None:
            return signals.connect_slot(native_of(self), signal, unwrap(receiver), slot)
        return signals.connect(native_of(self), signal, receiver)

    def disconnect(self, signal: str, receiver: Any = None) -> bool:
        """Disconnect a callable, or everything that a script connected; False when there was nothing."""
        return signals.disconnect(native_of(self), signal, receiver)

    def setProperty(self, name: str, value: Any) -> bool:
        """Set a property; an unknown name becomes a dynamic property, readable as an attribute."""
        return native_of(self).setProperty(name, unwrap(value))

    def findChild(self, cls: type, name: str = "") -> Any:
        """The first descendant of a class, given as a wrapper class or by name."""
        found = self.findChildren(cls, name)
        return found[0] if found else None

    def findChildren(self, cls: type | str, name: str = "") -> tuple[Any, ...]:
        """The descendants of a class, given as a wrapper class or by its name."""
        wanted = cls if isinstance(cls, str) else cls.__name__
        children = native_of(self).findChildren(QtCore.QObject)
        return tuple(wrap(child) for child in children
                     if any(base.__name__ == wanted for base in type(child).__mro__) and name in ("", child.objectName()))


Instance._native = Shiboken.Object
