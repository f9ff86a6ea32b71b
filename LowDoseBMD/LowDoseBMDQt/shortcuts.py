"""Keys of the panel: there while the module is open, silent while somebody types into a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer

TEXT_FIELDS = ("QLineEdit", "QTextEdit", "QPlainTextEdit", "QAbstractSpinBox")


class Shortcuts:
    """actions: what each key does. ``install`` in enter(), ``remove`` in exit()."""

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self._actions = dict(actions)
        self._installed: list[Any] = []

    def install(self) -> None:
        """Put the keys on the main window; no effect when they are there, or when there is no window."""
        window = slicer.util.mainWindow()
        if self._installed or window is None:
            return
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.connect("activated()", action)
            self._installed.append(shortcut)
        slicer.app.connect("focusChanged(QWidget*,QWidget*)", self._onFocusChanged)

    def remove(self) -> None:
        """Take the keys from the main window."""
        if not self._installed:
            return
        slicer.app.disconnect("focusChanged(QWidget*,QWidget*)", self._onFocusChanged)
        for shortcut in self._installed:
            shortcut.enabled = False
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._installed = []

    def _onFocusChanged(self, _old: Any, now: Any) -> None:
        typing = bool(now) and any(now.inherits(name) for name in TEXT_FIELDS)
        for shortcut in self._installed:
            shortcut.enabled = not typing
