"""What a check of the labels found; a click on a line takes the views there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from LowDoseBMDTrainerLib.findings import MUST, Finding

MUST_COLOUR, LOOK_COLOUR = "#a11622", "#8a5a00"


class FindingsList:
    """Fills the list ``findingsList``. onFinding(finding) when a line was clicked."""

    def __init__(self, ui: Any, onFinding: Callable[[Finding], None]) -> None:
        self._list, self._onFinding = ui.findingsList, onFinding
        self._findings: tuple[Finding, ...] = ()
        self._list.connect("itemClicked(QListWidgetItem*)", lambda _item: self._onClicked())

    def show(self, findings: Sequence[Finding]) -> None:
        """Show these; the list goes when there are none."""
        self._findings = tuple(findings)
        self._list.clear()
        for finding in self._findings:
            item = qt.QListWidgetItem(f"{'✗' if finding.severity == MUST else '?'}  {finding.sentence}")
            item.setForeground(qt.QBrush(qt.QColor(MUST_COLOUR if finding.severity == MUST else LOOK_COLOUR)))
            item.setToolTip(finding.sentence)
            self._list.addItem(item)
        self._list.visible = bool(self._findings)

    def _onClicked(self) -> None:
        row = self._list.currentRow
        if 0 <= row < len(self._findings):
            self._onFinding(self._findings[row])
