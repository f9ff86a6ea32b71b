"""Tools to write stand-ins for C++ widgets: properties that store, and a registry by class name.

In a stand-in every name that starts with an underscore is hidden from scripts; what has none is a slot or invokable
method of the real widget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

classes: dict[str, dict[str, type]] = {"ctk": {}, "slicer": {}}
"""Stand-ins by the module that scripts take them from."""


def standin(module: str) -> Callable[[type], type]:
    """Class decorator: the stand-in is found in this module and in .ui files."""
    def register(cls: type) -> type:
        classes[module][cls.__name__] = cls
        return cls
    return register


def stored(type_name: Any, name: str, default: Any, after: str | None = None) -> QtCore.Property:
    """A Qt property that keeps its value, and calls the method ``after`` when it changed."""
    key = f"_stored_{name}"

    def read(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def write(self: Any, value: Any) -> None:
        if value != read(self):
            self.__dict__[key] = value
            if after is not None:
                getattr(self, after)()

    return QtCore.Property(type_name, read, write)
