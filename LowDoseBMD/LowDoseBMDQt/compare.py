"""Comparison: the histogram and the age curve of this CT, and the other measurements of the scene."""

from __future__ import annotations

import html
import math
from typing import Any

import slicer
from LowDoseBMDMRML.study import Study, studies
from LowDoseBMDMRML.volumes import acquisition_of
from slicer.i18n import tr as _

from .views import showLayout

MEAN_ROW, VBMD_COLUMN = 0, "vbmd"
"""Where the mean stands in a study's table (tables.ROWS, tables.RESULT_COLUMNS)."""


class Comparer:
    """Shows the charts and the table of a study, which follow the measurement by themselves."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._live: Any = None
        ui.histogramButton.connect("clicked(bool)", lambda _checked=False: _showChart(self._live.study.histogram_node))
        ui.ageButton.connect("clicked(bool)", lambda _checked=False: _showChart(self._live.study.age_chart_node))
        ui.tableButton.connect("clicked(bool)", lambda _checked=False: _showTable(self._live.study.table_node))
        ui.compareButton.connect("contentsCollapsed(bool)", lambda _collapsed=False: self.update())
        self.attach(None)

    def attach(self, live: Any) -> None:
        """Compare this measurement from now on."""
        self._live = live
        ui = self._ui
        for widget in (ui.histogramButton, ui.ageButton, ui.tableButton, ui.compareButton):
            widget.enabled = live is not None
        self.update()

    def update(self) -> None:
        """List the other measurements anew; nothing is looked up while the section is folded."""
        if self._live is None or self._ui.compareButton.collapsed:
            return
        others = [study for study in studies(slicer.mrmlScene) if study.volume_node is not self._live.study.volume_node]
        now = self._live.measurement.mean_vbmd_mg_cm3
        lines = sorted(line for line in (_otherLine(study, now) for study in others) if line)
        self._ui.earlierLabel.text = "<br>".join(lines) or _(
            "Other measurements in this scene, such as earlier CTs of this person, would stand here.")


def _otherLine(study: Study, now: float | None) -> str:
    """Date, name, mean, and what it is now; empty when the other one has no mean."""
    column = study.table_node.GetTable().GetColumnByName(VBMD_COLUMN)
    vbmd = column.GetValue(MEAN_ROW) if column is not None else math.nan
    if math.isnan(vbmd):
        return ""
    date, name = acquisition_of(study.volume_node).study_date or "", study.volume_node.GetName()
    text = _("{date} {name}: {vbmd:.0f} mg/cm³").format(date=date, name=name, vbmd=vbmd).strip()
    if now is not None:
        text += " " + _("(now {difference:+.0f} mg/cm³)").format(difference=now - vbmd)
    return html.escape(text)


def _showChart(chart: Any) -> None:
    slicer.modules.plots.logic().ShowChartInLayout(chart)


def _showTable(table: Any) -> None:
    logic = slicer.app.applicationLogic()
    showLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    logic.GetSelectionNode().SetActiveTableID(table.GetID())
    logic.PropagateTableSelection()
