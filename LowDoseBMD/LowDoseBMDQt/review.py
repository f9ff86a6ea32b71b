"""Reader, comment, Accept, Reject and Reopen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from LowDoseBMDLib.review import DECISIONS
from LowDoseBMDMRML.remeasure import EDITED, MEASURED, REFUSED, STALE
from slicer.i18n import tr as _

SIGNABLE = frozenset({MEASURED, EDITED})
REJECTABLE = SIGNABLE | {REFUSED, STALE}
SIGNED = frozenset(DECISIONS)


class ReviewBox:
    """onSign(accepted, reader, comment) and onReopen(reason); nothing is signed without a name."""

    def __init__(self, ui: Any, onSign: Callable[[bool, str, str], None], onReopen: Callable[[str], None]) -> None:
        self._ui = ui
        self._onSign = onSign
        self._onReopen = onReopen
        self._state = ""
        ui.acceptButton.connect("clicked(bool)", lambda _checked=False: self.sign(True))
        ui.rejectButton.connect("clicked(bool)", lambda _checked=False: self.sign(False))
        ui.reopenButton.connect("clicked(bool)", self._onAskWhy)
        ui.reopenOkButton.connect("clicked(bool)", self._onReopenOk)
        ui.reopenCancelButton.connect("clicked(bool)", lambda _checked=False: self._ask(False))
        ui.reopenLineEdit.connect("returnPressed()", self._onReopenOk)
        ui.readerLineEdit.connect("textChanged(QString)", lambda _text="": self._update())

    def begin(self) -> None:
        """Another measurement is shown: what was typed about the last one does not belong to it."""
        self._ask(False)
        self._ui.commentLineEdit.text = ""

    def show(self, state: str, review: Any) -> None:
        """Adapt to the state of the measurement; review: the signature, or None."""
        if state != self._state:
            self._ask(False)
        self._state = state
        if review is not None and state in SIGNED:
            self._ui.commentLineEdit.text = review.comment
        self._update()

    def sign(self, accepted: bool) -> None:
        """Sign when it may be signed; otherwise the cursor goes where something is missing."""
        if self._state not in (SIGNABLE if accepted else REJECTABLE):
            return
        if not self._reader():
            self._ui.readerLineEdit.setFocus()
            return
        if not accepted and not self._comment():
            self._ui.commentLineEdit.placeholderText = _("Why is it rejected?")
            self._ui.commentLineEdit.setFocus()
            return
        self._onSign(accepted, self._reader(), self._comment())

    def _reader(self) -> str:
        return self._ui.readerLineEdit.text.strip()

    def _comment(self) -> str:
        return self._ui.commentLineEdit.text.strip()

    def _update(self) -> None:
        ui, signed = self._ui, self._state in SIGNED
        ui.acceptButton.visible = ui.rejectButton.visible = not signed
        ui.reopenButton.visible = signed
        ui.readerLineEdit.readOnly = ui.commentLineEdit.readOnly = signed
        ui.acceptButton.enabled = self._state in SIGNABLE
        ui.rejectButton.enabled = self._state in REJECTABLE
        ui.acceptButton.toolTip = (_("Sign the measurement: regions are locked, time and edits are noted (Enter).")
                                   if self._reader() else _("Give your name or initials first."))
        if not signed and not self._comment():
            ui.commentLineEdit.placeholderText = _("optional; needed to reject")

    def _onAskWhy(self, _checked: bool = False) -> None:
        self._ask(True)
        self._ui.reopenLineEdit.setFocus()

    def _ask(self, asking: bool) -> None:
        self._ui.reopenFrame.visible = asking
        self._ui.reopenLineEdit.text = ""

    def _onReopenOk(self, _checked: bool = False) -> None:
        reason = self._ui.reopenLineEdit.text.strip()
        if not reason:
            self._ui.reopenLineEdit.setFocus()
            return
        self._ask(False)
        self._onReopen(reason)
