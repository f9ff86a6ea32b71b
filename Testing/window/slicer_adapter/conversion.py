"""Values on their way between Python and Qt as PythonQt passes them: enums are ints, properties convert leniently."""

from __future__ import annotations

import enum
import inspect
import math
import os
import typing
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore
from shibokensupport.signature import get_signature


def enum_to_int(value: enum.Enum) -> int:
    """Enumerators and flags arrive in Python as plain integers."""
    return int(value.value)


def property_value(value: Any, type_name: str) -> Any:
    """What PythonQt writes into a property of this C++ type: text by str(), bool by truth, whole numbers by floor.

    Raises
    ------
    TypeError
        When the value cannot become one of that type.
    """
    converters: dict[str, Callable[[Any], Any]] = {
        "QString": str, "bool": bool, "int": _whole_number, "uint": _whole_number, "double": _real_number,
        "QStringList": _texts,
    }
    convert = converters.get(type_name)
    return value if convert is None else convert(value)


def _whole_number(value: Any) -> int:
    if isinstance(value, str) or value is None:
        raise TypeError(f"{value!r} is no number")
    return math.floor(value)


def _real_number(value: Any) -> float:
    if isinstance(value, str) or value is None:
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(f"{value!r} is no sequence of texts")
    return [str(item) for item in value]


def call(function: Callable, arguments: list[Any]) -> Any:
    """Call a PySide6 function with integers where it asks for enums.

    Raises
    ------
    TypeError
        When no overload takes the arguments, as PySide6 says it.
    """
    _refuse_paths(function, arguments)
    try:
        return function(*arguments)
    except TypeError:
        for converted in _with_enums(function, arguments):
            return function(*converted)
        raise


def _refuse_paths(function: Callable, arguments: list[Any]) -> None:
    """PySide6 takes pathlib paths for texts; PythonQt does not."""
    for argument in arguments:
        if isinstance(argument, os.PathLike):
            raise TypeError(f"{getattr(function, '__name__', function)}: a path is passed as text, not as {argument!r}")


def _with_enums(function: Callable, arguments: list[Any]) -> list[list[Any]]:
    """The argument lists, of overloads that fit, in which integers became the enums asked for."""
    found = []
    for signature in _signatures(function):
        parameters = [p for p in signature.parameters.values() if p.name != "self" and p.kind != p.KEYWORD_ONLY]
        required = sum(p.default is inspect.Parameter.empty and p.kind != p.VAR_POSITIONAL for p in parameters)
        if not required <= len(arguments) <= len(parameters):
            continue
        converted = [_as_enum(a, p.annotation) for a, p in zip(arguments, parameters, strict=False)]
        if any(c is not a for c, a in zip(converted, arguments, strict=True)):
            found.append(converted)
    return found


def _signatures(function: Callable) -> list[inspect.Signature]:
    owner = getattr(function, "__self__", None)
    found = get_signature(function)
    if found is None and owner is not None:
        found = get_signature(getattr(owner if isinstance(owner, type) else type(owner), function.__name__, None))
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _as_enum(value: Any, annotation: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, (bool, enum.Enum)):
        return value
    for candidate in typing.get_args(annotation) or (annotation,):
        if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
            return candidate(value)
    return value


def argument_count(function: Callable) -> int | None:
    """How many arguments of a signal PythonQt hands to a callable; None: all of them.

    Only plain Python functions and bound methods without ``*args`` are cut down; defaults count as arguments too, so
    a lambda with a default receives what the signal carries.
    """
    bound = inspect.ismethod(function)
    plain = function.__func__ if bound else function
    if not inspect.isfunction(plain) or plain.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return plain.__code__.co_argcount - int(bound)


def normalized(signature: str) -> str:
    """A signal's signature as the meta object spells it."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature.lstrip("0123456789"))).decode()
