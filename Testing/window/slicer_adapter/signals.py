"""Signals connected by C++ signature, with PythonQt's rules: an unknown signal is False, errors stay in the slot."""

from __future__ import annotations

import logging
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PySide6 import QtCore
from shiboken6 import Shiboken

from slicer_adapter import conversion

slot_errors: list[BaseException] = []
"""What scripts' slots raised. Qt goes on after such an error; a test must not."""

_connections: dict[int, list[Connection]] = {}


@dataclass
class Connection:
    """One callable of a script on one signal."""

    signature: str
    receiver: Callable
    handler: Callable
    native: weakref.ref[QtCore.QObject] = field(repr=False)


def declared_signatures(native: QtCore.QObject) -> dict[str, str]:
    """C++ signature -> the meta object's, for signals of the stand-ins that carry VTK objects."""
    found: dict[str, str] = {}
    for base in reversed(type(native).__mro__):
        found.update(vars(base).get("signatures", {}))
    return found


def first_signature(native: QtCore.QObject, name: str) -> str | None:
    """The meta object's signature of a signal's first overload, None when there is no such signal."""
    for cpp, spelled in declared_signatures(native).items():
        if cpp.startswith(f"{name}("):
            return spelled
    meta = native.metaObject()
    for index in range(meta.methodCount()):
        method = meta.method(index)
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and bytes(method.name().data()).decode() == name:
            return bytes(method.methodSignature().data()).decode()
    return None


def _known(native: QtCore.QObject, signal: str) -> str | None:
    signature = conversion.normalized(signal)
    declared = declared_signatures(native)
    if signature in declared:
        return declared[signature]
    if "PyObject" in signature:
        return None
    return signature if native.metaObject().indexOfSignal(signature) >= 0 else None


def connect(native: QtCore.QObject, signal: str, receiver: Callable) -> bool:
    """Connect; False (and nothing raised) when the object has no such signal or the receiver cannot be called."""
    signature = _known(native, signal)
    if signature is None or not callable(receiver):
        logging.getLogger(__name__).warning("%s has no signal '%s'", type(native).__name__, signal)
        return False
    return connect_known(native, signature, receiver)


def connect_known(native: QtCore.QObject, signature: str, receiver: Callable) -> bool:
    """Connect a signature that the meta object has."""
    handler = guarded(receiver)
    QtCore.QObject.connect(native, QtCore.SIGNAL(signature), handler)
    pointer = Shiboken.getCppPointer(native)[0]
    if pointer not in _connections:
        _connections[pointer] = []
        native.destroyed.connect(lambda *_: _connections.pop(pointer, None))
    _connections[pointer].append(Connection(signature, receiver, handler, weakref.ref(native)))
    return True


def connect_slot(native: QtCore.QObject, signal: str, receiver: QtCore.QObject, slot: str) -> bool:
    """Connect to a slot by its signature; False when either side is unknown."""
    signature, name = _known(native, signal), conversion.normalized(slot).split("(")[0]
    if signature is None or not callable(getattr(receiver, name, None)):
        return False
    wanted = conversion.normalized(slot)
    count = 0 if wanted.endswith("()") else wanted.count(",") + 1
    bound = getattr(receiver, name)
    QtCore.QObject.connect(native, QtCore.SIGNAL(signature), lambda *arguments: bound(*arguments[:count]))
    return True


def disconnect(native: QtCore.QObject, signal: str, receiver: Callable | None) -> bool:
    """Take connections off again; False when there was none."""
    signature = _known(native, signal)
    return signature is not None and disconnect_known(native, signature, receiver)


def disconnect_known(native: QtCore.QObject, signature: str, receiver: Callable | None) -> bool:
    """The same for a signature that the meta object has."""
    mine = _connections.get(Shiboken.getCppPointer(native)[0], [])
    gone = [c for c in mine if c.signature == signature and (receiver is None or c.receiver == receiver)]
    for connection in gone:
        QtCore.QObject.disconnect(native, QtCore.SIGNAL(signature), connection.handler)
        mine.remove(connection)
    return bool(gone)


def connection_count(native: QtCore.QObject) -> int:
    """How many callables of scripts hang on an object's signals."""
    return len(_connections.get(Shiboken.getCppPointer(native)[0], []))


def forget_all() -> None:
    """Take every connection of scripts off."""
    for connections in list(_connections.values()):
        for connection in list(connections):
            native = connection.native()
            if native is not None and Shiboken.isValid(native):
                QtCore.QObject.disconnect(native, QtCore.SIGNAL(connection.signature), connection.handler)
    _connections.clear()
    slot_errors.clear()


def guarded(receiver: Callable) -> Callable:
    """The callable as Qt calls it: arguments wrapped and cut to what it takes, errors kept in ``slot_errors``."""
    from slicer_adapter.pythonqt import wrap

    count = conversion.argument_count(receiver)

    def handler(*arguments: Any) -> Any:
        try:
            return receiver(*[wrap(a) for a in arguments[:count]])
        except Exception as error:
            slot_errors.append(error)
            logging.getLogger(__name__).error("in a slot:\n%s", traceback.format_exc())
            return None

    return handler


class SignalFunction:
    """``obj.clicked``: connect, disconnect, emit; calling it emits."""

    def __init__(self, native: QtCore.QObject, name: str) -> None:
        self._native, self.__name__ = native, name
        self._signature = first_signature(native, name)

    def connect(self, receiver: Callable) -> bool:
        """Connect a callable to the first overload."""
        return connect_known(self._native, self._signature, receiver)

    def disconnect(self, receiver: Callable | None = None) -> bool:
        """Take one callable, or all of them, off."""
        return disconnect_known(self._native, self._signature, receiver)

    def emit(self, *arguments: Any) -> None:
        """Emit the first overload, or the one with as many arguments."""
        from slicer_adapter.pythonqt import unwrap

        getattr(self._native, self.__name__).emit(*map(unwrap, arguments))

    __call__ = emit
