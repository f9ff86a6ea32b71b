"""Why a level is left out: a line below the table, not a dialog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _


def usualReasons() -> list[str]:
    """What a reader most often says; anything else can be typed."""
    return [_("fracture"), _("osteophytes or sclerosis"), _("metal or cement"), _("partly outside the scan"),
            _("lesion"), _("motion or noise")]


class ExclusionBox:
    """onReason(level, reason) when it was given; onCancelled() when the reader thought better of it."""

    def __init__(self, ui: Any, onReason: Callable[[str, str], None], onCancelled: Callable[[], None]) -> None:
        self._ui = ui
        self._onReason = onReason
        self._onCancelled = onCancelled
        self._level = ""
        for reason in usualReasons():
            ui.reasonComboBox.addItem(reason)
        ui.reasonOkButton.connect("clicked(bool)", lambda _checked=False: self.confirm())
        ui.reasonCancelButton.connect("clicked(bool)", lambda _checked=False: self.cancel())
        ui.reasonComboBox.lineEdit().connect("returnPressed()", self.confirm)

    @property
    def asking(self) -> bool:
        return bool(self._level)

    def ask(self, level: str) -> None:
        self._level = level
        self._ui.reasonLabel.text = _("Why is {level} left out of the mean?").format(level=level)
        self._ui.reasonFrame.visible = True
        self._ui.reasonComboBox.setFocus()

    def confirm(self) -> None:
        level, reason = self._level, self._ui.reasonComboBox.currentText.strip()
        if not level or not reason:
            return
        self._end()
        self._onReason(level, reason)

    def cancel(self) -> None:
        if self._level:
            self._end()
            self._onCancelled()

    def _end(self) -> None:
        self._level = ""
        self._ui.reasonFrame.visible = False
