"""Flags below the card: each a sentence, and a button that takes the views to the place."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LowDoseBMDLib.flags import Flag

SHOWN_AT_ONCE = 3
"""More flags than these are folded away, so that the table below stays in sight; none of the gravest ever is."""

_MARKS = {"limited": ("#a11622", "!!"), "caution": ("#8a5a00", "!"), "info": ("#6b7580", "i")}
"""Colour and sign by severity: the sign says it without colour too."""


def flagHtml(flag: Flag) -> str:
    colour, mark = _MARKS[flag.severity.value]
    return f"<span style='color:{colour}'><b>{mark}</b></span> {html.escape(flag.sentence)}"


class FlagsList:
    """One row per flag, the gravest first. onShow(flag) when its button is pressed; what weighs little is folded away."""

    def __init__(self, ui: Any, onShow: Callable[[Any], None]) -> None:
        self._layout = ui.flagsWidget.layout()
        self._container = ui.flagsWidget
        self._more = ui.moreFlagsButton
        self._onShow = onShow
        self._shown: tuple[Any, ...] = ()
        self._rows: list[Any] = []
        self._folded: list[Any] = []
        self._more.connect("toggled(bool)", self._onMore)
        self.show([])

    def show(self, flags: list[Flag]) -> None:
        """List the flags; nothing is rebuilt while they stay the same, as during a brush stroke."""
        if tuple(flags) == self._shown and self._rows:
            return
        self._shown = tuple(flags)
        self._clear()
        for n, flag in enumerate(flags):
            row = self._row(flag)
            self._layout.addWidget(row)
            self._rows.append(row)
            if _folds(n, flag):
                self._folded.append(row)
        self._container.visible = bool(flags)
        self._onMore(self._more.checked)

    def _clear(self) -> None:
        for row in self._rows:
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self._rows, self._folded = [], []

    def _row(self, flag: Flag) -> Any:
        row = qt.QWidget()
        layout = qt.QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        label = qt.QLabel(flagHtml(flag))
        label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        label.wordWrap = True  # after the policy, which forgets that the height follows from the width
        layout.addWidget(label, 1)
        if flag.position_lps_mm is not None or flag.level is not None:
            button = qt.QToolButton()
            button.text = _("show")
            button.toolTip = _("Take the views to the place.")
            button.connect("clicked(bool)", lambda _checked=False, flag=flag: self._onShow(flag))
            layout.addWidget(button, 0, qt.Qt.AlignTop)
        return row

    def _onMore(self, checked: bool) -> None:
        for row in self._folded:
            row.visible = bool(checked)
        self._more.visible = bool(self._folded)
        self._more.text = _("Show fewer") if checked else _("Show {count} more").format(count=len(self._folded))


def _folds(place: int, flag: Flag) -> bool:
    severity = flag.severity.value
    return severity == "info" or (severity == "caution" and place >= SHOWN_AT_ONCE)
