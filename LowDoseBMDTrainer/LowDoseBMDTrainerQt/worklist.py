"""The table of cases: how far each is, who drew it, and what the model thinks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from LowDoseBMDTrainerLib.cases import Case, Status
from LowDoseBMDTrainerLib.worklist import degree
from slicer.i18n import tr as _

NAME, STATUS, BY, DICE, UNCERTAIN = range(5)
WIDTHS = {NAME: 70, BY: 70, DICE: 55, UNCERTAIN: 80}
ROW_PIXELS = 22
LEAST_ROWS, MOST_ROWS = 2, 6
"""Rows that are seen at once; more are scrolled."""

BROKEN = "#a11622"
COLOURS = {Status.COMPLETED: "#1b7f3b", Status.IN_PROGRESS: "#b36b00", Status.FLAGGED: "#a11622"}


class Worklist:
    """onOpen(case) when a row was double clicked."""

    def __init__(self, table: Any, onOpen: Callable[[Case], None]) -> None:
        self._table, self._onOpen = table, onOpen
        self._cases: tuple[Case, ...] = ()
        self._shown: list[tuple[Case, bool]] = []
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Interactive)
        header.setSectionResizeMode(STATUS, qt.QHeaderView.Stretch)
        for column, width in WIDTHS.items():
            table.setColumnWidth(column, width)
        table.connect("cellDoubleClicked(int,int)", lambda row, _column: self._onRow(row))

    def show(self, cases: Sequence[Case], current: str) -> None:
        """current: name of the case that is open."""
        wanted = [(case, case.name == current) for case in cases]
        if wanted == self._shown:
            return
        if len(wanted) != len(self._shown):
            self._table.setRowCount(len(wanted))
            rows = min(max(len(wanted), LEAST_ROWS), MOST_ROWS)
            self._table.setFixedHeight(self._table.horizontalHeader().sizeHint.height() + rows * ROW_PIXELS + 4)
        for row, (each, before) in enumerate(zip(wanted, [*self._shown, *[None] * len(wanted)], strict=False)):
            if each != before:
                self._showRow(row, *each)
        self._cases, self._shown = tuple(cases), wanted
        for row, (_case, open_) in enumerate(wanted):
            if open_:
                self._table.selectRow(row)
                self._table.scrollToItem(self._table.item(row, NAME))

    def _showRow(self, row: int, case: Case, current: bool) -> None:
        dice = case.effort.dice
        texts = {NAME: f"▶ {case.name}" if current else case.name, STATUS: statusText(case), BY: case.annotator or "-",
                 DICE: "-" if dice is None else f"{dice:.2f}", UNCERTAIN: degreeText(case.uncertainty)}
        for column, text in texts.items():
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tipOf(case))
            if column in (DICE, UNCERTAIN):
                item.setTextAlignment(qt.Qt.AlignCenter)
            if column == STATUS and (case.problem or case.status in COLOURS):
                item.setForeground(qt.QBrush(qt.QColor(BROKEN if case.problem else COLOURS[case.status])))
            if current:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
            self._table.setItem(row, column, item)

    def _onRow(self, row: int) -> None:
        if 0 <= row < len(self._cases):
            self._onOpen(self._cases[row])


def statusText(case: Case) -> str:
    """The status in a word; for a case that cannot be read, and a flagged one, why."""
    if case.problem:
        return _("unreadable: {problem}").format(problem=case.problem)
    words = {Status.NOT_STARTED: _("not started"), Status.IN_PROGRESS: _("in progress"), Status.COMPLETED: _("completed"),
             Status.FLAGGED: _("flagged")}
    text = words[case.status]
    return _("{status}: {reason}").format(status=text, reason=case.reason) if case.reason else text


def degreeText(uncertainty: float | None) -> str:
    """An uncertainty in a word."""
    known = {"high": _("HIGH"), "middle": _("middle"), "low": _("low")}
    return known.get(degree(uncertainty), "-")


def tipOf(case: Case) -> str:
    """What the table has no room for."""
    lines = [statusText(case)]
    if case.synthetic:
        lines.append(_("synthetic"))
    if case.source:
        lines.append(_("from {source}").format(source=case.source))
    if case.effort.seconds:
        lines.append(_("{minutes:.0f} min of work").format(minutes=case.effort.seconds / 60))
    if case.effort.changed_voxels is not None:
        lines.append(_("{count} voxels of the proposal changed").format(count=case.effort.changed_voxels))
    if case.uncertainty is not None:
        lines.append(_("uncertainty {value:.2f}").format(value=case.uncertainty))
    return "\n".join(lines)
