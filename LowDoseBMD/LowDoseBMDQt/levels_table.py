"""The table of levels and tissues: click a row and the views go there; a level is left out with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LowDoseBMDLib.measurement import LevelMeasurement, Measurement, TissueMeasurement

LEVEL, USE, VBMD, INTERVAL, HU, VOLUME, STATE = range(7)
COLUMN_WIDTHS = {LEVEL: 64, USE: 36, VBMD: 48, INTERVAL: 70, HU: 44, VOLUME: 44}
ROW_HEIGHT = 23
NOTHING = "-"


def levelState(level: LevelMeasurement) -> str:
    """What of a level is worth knowing, in a few words."""
    if level.excluded:
        return _("left out: {reason}").format(reason=level.excluded)
    if not level.measured:
        return _("not measured: {reason}").format(reason=level.reason) if level.reason else _("not measured")
    place = _("in the mean") if level.used else _("complete")
    return _("{place}, edited").format(place=place) if level.edited else place


def levelCells(level: LevelMeasurement) -> dict[int, str]:
    """Texts of one level's row, by column."""
    cells = {LEVEL: level.name, USE: "", VBMD: NOTHING, INTERVAL: NOTHING, HU: NOTHING, STATE: levelState(level),
             VOLUME: f"{level.volume_mm3 / 1000:.1f}" if level.volume_mm3 else NOTHING}
    if level.vbmd_mg_cm3 is not None:
        low, high = level.vbmd_ci95
        cells |= {VBMD: f"{level.vbmd_mg_cm3:.0f}", INTERVAL: f"{low:.0f} - {high:.0f}"}
    if level.hu_mean is not None:
        cells[HU] = f"{level.hu_mean:.0f}"
    return cells


def tissueCells(title: str, tissue: TissueMeasurement | None, edited: tuple[str, ...]) -> dict[int, str]:
    """Texts of a reference tissue's row, by column. edited: names of the structures that a reader changed."""
    cells = {LEVEL: title, VBMD: NOTHING, HU: NOTHING, VOLUME: NOTHING, STATE: _("not found")}
    if tissue is not None:
        cells |= {HU: f"{tissue.hu_mean:.0f}", VOLUME: f"{tissue.volume_mm3 / 1000:.1f}", STATE: tissueState(tissue)}
        if set(edited) & set(tissue.structures):
            cells[STATE] = _("{place}, edited").format(place=cells[STATE])
    return cells


def tissueState(tissue: TissueMeasurement) -> str:
    """Which regions stand for the tissue, in a few words."""
    sites = {"psoas": _("psoas"), "paraspinal": _("paraspinal"), "fat_anterior": _("anterior"),
             "fat_flank": _("flank"), "fat_posterior": _("posterior")}
    sides = {"left": _("L"), "right": _("R")}
    first = tissue.structures[0]
    if first in sites:
        return sites[first]
    site = first.rpartition("_")[0]
    shown = "+".join(sides[name.rpartition("_")[2]] for name in tissue.structures)
    return f"{sites[site]} {shown}"


class LevelsTable:
    """onRow(structure name) when a row is chosen; onUse(level, used) when a check box was clicked."""

    def __init__(self, table: Any, onRow: Callable[[str], None], onUse: Callable[[str, bool], None]) -> None:
        self._table = table
        self._onRow = onRow
        self._onUse = onUse
        self._structures: list[str] = []
        self._shown: list[Any] = []
        self._filling = False
        self._prepare()

    def clear(self) -> None:
        self._filling = True
        self._table.setRowCount(0)
        self._filling = False
        self._structures, self._shown = [], []
        self._table.visible = False

    def redraw(self) -> None:
        """What a reader changed in a cell was not taken: show the table anew with the next ``show``."""
        self._shown = []

    def show(self, measurement: Measurement, locked: bool) -> None:
        """Fill the rows that differ from what is shown; the chosen row stays."""
        rows = [(f"trabecular_{level.name}", levelCells(level), level) for level in measurement.levels]
        for title, tissue, fallback in ((_("muscle"), measurement.muscle, "psoas_left"),
                                        (_("fat"), measurement.fat, "fat_anterior")):
            rows.append((tissue.structures[0] if tissue else fallback, tissueCells(title, tissue, measurement.edited), None))
        self._structures = [structure for structure, _cells, _level in rows]
        self._filling = True
        self._table.setRowCount(len(rows))
        for n, (_structure, cells, level) in enumerate(rows):
            if self._shown[n:n + 1] != [(cells, locked)]:
                self._fillRow(n, cells, level, locked)
        self._filling = False
        self._shown = [(cells, locked) for _structure, cells, _level in rows]
        self._table.visible = True
        self._fitHeight()

    def select(self, structure: str) -> None:
        """Mark the row of a structure without calling anybody."""
        row = next((n for n, name in enumerate(self._structures) if _sameRow(name, structure)), -1)
        self._filling = True
        if row < 0:
            self._table.clearSelection()
        else:
            self._table.selectRow(row)
        self._filling = False

    def _prepare(self) -> None:
        header = self._table.horizontalHeader()
        for column, width in COLUMN_WIDTHS.items():
            self._table.setColumnWidth(column, width)
        header.setSectionResizeMode(STATE, qt.QHeaderView.Stretch)
        header.highlightSections = False
        self._table.verticalHeader().visible = False
        self._table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self._table.connect("cellClicked(int,int)", self._onCellClicked)
        self._table.connect("currentCellChanged(int,int,int,int)", self._onCurrentCellChanged)
        self._table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)
        self.clear()

    def _fillRow(self, row: int, cells: dict[int, str], level: LevelMeasurement | None, locked: bool) -> None:
        for column in range(STATE + 1):
            item = self._item(row, column)
            item.setText(cells.get(column, ""))
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            item.setTextAlignment(_alignment(column))
            item.setToolTip(cells[STATE] if column == STATE else "")
            font = item.font()
            font.setBold(level is not None and level.used)
            item.setFont(font)
        if level is not None:
            self._fillCheck(self._item(row, USE), level, locked)

    def _item(self, row: int, column: int) -> Any:
        item = self._table.item(row, column)
        if not item:
            item = qt.QTableWidgetItem()
            self._table.setItem(row, column, item)
        return item

    def _fillCheck(self, item: Any, level: LevelMeasurement, locked: bool) -> None:
        can = not locked and (level.measured or bool(level.excluded))
        if can:
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
        checked = level.measured and not level.excluded
        item.setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)
        item.setToolTip(_("Checked: may stand in the mean. Bold rows do."))

    def _fitHeight(self) -> None:
        rows = sum(self._table.rowHeight(n) for n in range(len(self._structures)))
        self._table.setFixedHeight(rows + self._table.horizontalHeader().sizeHint.height() + 2 * self._table.frameWidth)

    def _onCellClicked(self, row: int, _column: int) -> None:
        self._choose(row)

    def _onCurrentCellChanged(self, row: int, _column: int, previous: int, _previousColumn: int) -> None:
        if row != previous and self._table.hasFocus() and not qt.QApplication.mouseButtons():
            self._choose(row)

    def _choose(self, row: int) -> None:
        if not self._filling and 0 <= row < len(self._structures):
            self._onRow(self._structures[row])

    def _onItemChanged(self, item: Any) -> None:
        if self._filling or item.column() != USE:
            return
        structure = self._structures[item.row()]
        if structure.startswith("trabecular_"):
            self.redraw()
            self._onUse(structure.partition("_")[2], item.checkState() == qt.Qt.Checked)


def _sameRow(row: str, structure: str) -> bool:
    """Whether a structure belongs to the row of another one: a body to its level, one side to both."""
    kind, part = row.partition("_")[::2]
    other, otherPart = structure.partition("_")[::2]
    if kind == "trabecular":
        return other in ("trabecular", "body") and part == otherPart
    return kind == other


def _alignment(column: int) -> int:
    side = qt.Qt.AlignLeft if column in (LEVEL, STATE) else qt.Qt.AlignHCenter if column == USE else qt.Qt.AlignRight
    return int(side | qt.Qt.AlignVCenter)
