"""Two charts in the scene: HU in the trabecular regions, and the patient's vBMD beside what is usual at the age.

A chart is a plot chart node with its series and tables. The chart holds references to all of them under roles of
its own, so that they are found again in a scene that was saved and reopened, also those that are not drawn now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.headers import age_text
from LowDoseBMDLib.measurement import NORMAL_ABOVE_MG_CM3, OSTEOPOROSIS_BELOW_MG_CM3, Measurement
from LowDoseBMDLib.reference import AGE_RANGE_YEARS, CAVEAT, SD_MG_CM3, SEXES, SOURCE, has_reference, reference_curve
from LowDoseBMDLib.report.figures import HISTOGRAM_EDGES_HU, hu_shares
from LowDoseBMDLib.rois import Rois
from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLScene,
    vtkMRMLTableNode,
)

from .tables import NOT_KNOWN, Column, fill_numbers, set_columns

ROLE = "LowDoseBMD."
"""Begins the roles under which a chart refers to its series and tables."""

LINE, DASHES, DASH_DOTS = (vtkMRMLPlotSeriesNode.LineStyleSolid, vtkMRMLPlotSeriesNode.LineStyleDash,
                           vtkMRMLPlotSeriesNode.LineStyleDashDot)
LEVEL_LINES = {"T12": DASH_DOTS, "L1": LINE, "L2": DASHES}
"""Levels are told apart without colour too. VTK draws dots too thin to follow."""

SEX_TITLES = {"F": "women", "M": "men"}
SEX_COLOURS = {"F": (204, 121, 167), "M": (0, 114, 178)}
"""From Okabe and Ito's palette for colour-blind readers."""
PATIENT_COLOUR = (0, 0, 0)
LIMIT_COLOUR = (130, 130, 130)

AGE_AXIS_YEARS = (20.0, 95.0)
"""Ages over which the limits are drawn: every adult is on the chart, with a reference or without."""

_TITLE_SIZE, _TEXT_SIZE = 14, 12
"""Font sizes in points: Slicer's own (20 and 16) leave little of a small view for the curves."""


@dataclass(frozen=True)
class _Series:
    """How one series is drawn: its role, its table's role, columns of x and y, colour 0-255, line or marker."""

    role: str
    table: str
    x: str
    y: str
    colour: tuple[int, int, int]
    line: int = LINE
    width: float = 2.0
    marker: int = vtkMRMLPlotSeriesNode.MarkerStyleNone


# --- HU in the trabecular regions --------------------------------------------------------------------------

_HISTOGRAM_COLUMNS = (
    Column("hu", "HU", "HU", "Middle of the bin"),
    *(Column(name, f"{name} (% of voxels)", "%", f"Share of the trabecular region of {name}") for name in LEVELS),
)
_HISTOGRAM_SERIES = tuple(
    _Series(name, "histogram", "hu", name, STRUCTURES[f"trabecular_{name}"].colour, LEVEL_LINES[name])
    for name in LEVELS)


def create_histogram(scene: vtkMRMLScene) -> vtkMRMLPlotChartNode:
    """A chart of HU per level with its table and series, all in the scene, and nothing drawn yet."""
    chart = _create_chart(scene, "HU in the trabecular regions", "CT number (HU)", "share of the region (% of voxels)")
    table = _create_table(chart, "histogram", "HU histogram", _HISTOGRAM_COLUMNS, HISTOGRAM_EDGES_HU.size - 1)
    fill_numbers(table, {"hu": (HISTOGRAM_EDGES_HU[:-1] + HISTOGRAM_EDGES_HU[1:]) / 2})
    for series in _HISTOGRAM_SERIES:
        _create_series(chart, series)
    return chart


def update_histogram(chart: vtkMRMLPlotChartNode, ct: CTVolume, rois: Rois, measurement: Measurement) -> None:
    """Draw the share of voxels per bin of every level that was measured, in place.

    Bins are those of the report (15 HU from -200 HU). The levels' names in the legend carry their means.
    """
    levels = {level.name: level for level in measurement.levels if level.measured}
    shares = {name: hu_shares(ct, rois.masks[f"trabecular_{name}"]) if name in levels
              else np.zeros(HISTOGRAM_EDGES_HU.size - 1) for name in LEVELS}
    with _one_change(chart):
        fill_numbers(_part(chart, "histogram"), shares)
        for name, level in levels.items():
            _part(chart, name).SetName(f"{name}, mean {level.hu_mean:.0f} HU")
        _show(chart, [name for name in LEVELS if name in levels])


# --- vBMD and age ------------------------------------------------------------------------------------------

_REFERENCE_COLUMNS = (
    Column("age", "Age (years)", "a"),
    *(Column(sex, f"{SEX_TITLES[sex]} (mg/cm3)", "mg/cm3", f"{SOURCE}. {CAVEAT}.") for sex in SEXES),
)
_BAND_COLUMNS = (
    Column("age", "Age (years)", "a", "To the oldest age along the lower border, and back along the upper one"),
    *(Column(sex, f"{SEX_TITLES[sex]}, mean ± {SD_MG_CM3[sex]:.0f} (mg/cm3)", "mg/cm3", f"{SOURCE}. {CAVEAT}.")
      for sex in SEXES),
)
_PATIENT_COLUMNS = (
    Column("age", "Age (years)", "a", "The patient's age, 90 for every age over 89"),
    Column("vbmd", "vBMD (mg/cm3)", "mg/cm3", "The patient's mean vBMD"),
    Column("interval", "95 % interval (mg/cm3)", "mg/cm3", "Lower and upper end"),
    Column("axis", "Limits from, to (years)", "a"),
    Column("osteoporosis", "Osteoporosis below (mg/cm3)", "mg/cm3"),
    Column("normal", "Normal above (mg/cm3)", "mg/cm3"),
)
_AGE_SERIES = (
    *(_Series(f"mean_{sex}", "reference", "age", sex, SEX_COLOURS[sex], width=3.0) for sex in SEXES),
    *(_Series(f"band_{sex}", "band", "age", sex, SEX_COLOURS[sex], width=1.0) for sex in SEXES),
    _Series("limit_osteoporosis", "patient", "axis", "osteoporosis", LIMIT_COLOUR, LINE, 1.0),
    _Series("limit_normal", "patient", "axis", "normal", LIMIT_COLOUR, DASHES, 1.0),
    _Series("interval", "patient", "age", "interval", PATIENT_COLOUR),
    _Series("vbmd", "patient", "age", "vbmd", PATIENT_COLOUR, vtkMRMLPlotSeriesNode.LineStyleNone,
            marker=vtkMRMLPlotSeriesNode.MarkerStyleCircle),
)
_AGE_NAMES = {
    **{f"mean_{sex}": f"{SEX_TITLES[sex]}, mean" for sex in SEXES},
    **{f"band_{sex}": f"{SEX_TITLES[sex]}, mean ± {SD_MG_CM3[sex]:.0f} (assumed)" for sex in SEXES},
    "limit_osteoporosis": f"osteoporosis below {OSTEOPOROSIS_BELOW_MG_CM3:.0f}",
    "limit_normal": f"normal above {NORMAL_ABOVE_MG_CM3:.0f}",
    "interval": "95 % interval", "vbmd": "this patient",
}
"""In the legend."""


def create_age_chart(scene: vtkMRMLScene) -> vtkMRMLPlotChartNode:
    """A chart of the reference by age with its tables and series, all in the scene, and no patient on it yet."""
    # One line would be wider than a small view.
    note = f"{SOURCE}.\n{CAVEAT}.".replace("; ", ";\n")
    chart = _create_chart(scene, "vBMD and age", f"age (years)\n{note}", "trabecular vBMD (mg/cm3)")
    ages = np.arange(AGE_RANGE_YEARS[0], AGE_RANGE_YEARS[1] + 1)
    curves = {sex: reference_curve(sex, ages) for sex in SEXES}
    reference = _create_table(chart, "reference", "vBMD reference", _REFERENCE_COLUMNS, ages.size)
    fill_numbers(reference, {"age": ages, **curves})
    band = _create_table(chart, "band", "vBMD reference, spread", _BAND_COLUMNS, 2 * ages.size)
    fill_numbers(band, {"age": np.concatenate([ages, ages[::-1]]),
                        **{sex: np.concatenate([mean - SD_MG_CM3[sex], mean[::-1] + SD_MG_CM3[sex]])
                           for sex, mean in curves.items()}})
    patient = _create_table(chart, "patient", "vBMD of the patient", _PATIENT_COLUMNS, 2)
    fill_numbers(patient, {"axis": AGE_AXIS_YEARS, "osteoporosis": [OSTEOPOROSIS_BELOW_MG_CM3] * 2,
                           "normal": [NORMAL_ABOVE_MG_CM3] * 2,
                           **dict.fromkeys(("age", "vbmd", "interval"), [NOT_KNOWN] * 2)})
    for series in _AGE_SERIES:
        _create_series(chart, series).SetName(_AGE_NAMES[series.role])
    _show(chart, [series.role for series in _AGE_SERIES if series.role not in ("interval", "vbmd")])
    return chart


def update_age_chart(chart: vtkMRMLPlotChartNode, measurement: Measurement, acquisition: Acquisition) -> None:
    """Draw the patient's point with its 95 % interval on the curve of the patient's sex, in place.

    Both sexes' curves are drawn while the sex is not known. Without an age or a mean vBMD there is no point, and
    the title says why.
    """
    age, sex = acquisition.patient_age_years, acquisition.patient_sex
    vbmd, ci95 = measurement.mean_vbmd_mg_cm3, measurement.mean_vbmd_ci95
    known = age is not None and vbmd is not None
    sexes = (sex,) if sex in SEXES else SEXES
    shown = [f"{part}_{name}" for part in ("mean", "band") for name in sexes] + ["limit_osteoporosis", "limit_normal"]
    with _one_change(chart):
        fill_numbers(_part(chart, "patient"), {"age": [age if known else NOT_KNOWN] * 2,
                                               "vbmd": [vbmd if known else NOT_KNOWN] * 2,
                                               "interval": ci95 if known else [NOT_KNOWN] * 2})
        if known:
            _part(chart, "vbmd").SetName(f"this patient, {vbmd:.0f} mg/cm3 at {age_text(age)}")
        chart.SetTitle(_age_title(vbmd, age))
        _show(chart, [*shown, "interval", "vbmd"] if known else shown)


def _age_title(vbmd_mg_cm3: float | None, age_years: float | None) -> str:
    low, high = AGE_RANGE_YEARS
    if vbmd_mg_cm3 is None:
        return "vBMD and age: there is no mean vBMD"
    if age_years is None:
        return "vBMD and age: the patient's age is not known"
    if not has_reference(age_years):
        return f"vBMD and age: the reference covers {low:.0f} to {high:.0f} years"
    return "vBMD and age"


# --- charts and their parts --------------------------------------------------------------------------------

def chart_parts(chart: vtkMRMLPlotChartNode) -> tuple[vtkMRMLNode, ...]:
    """The tables and series of a chart, drawn or not, tables first."""
    roles: list[str] = []
    chart.GetNodeReferenceRoles(roles)
    parts = [part for role in roles if role.startswith(ROLE) and (part := chart.GetNodeReference(role))]
    return tuple(sorted(parts, key=lambda part: part.IsA("vtkMRMLPlotSeriesNode")))


def remove_chart(chart: vtkMRMLPlotChartNode) -> None:
    """Take a chart with its series, tables and their storage nodes out of its scene."""
    scene, parts = chart.GetScene(), chart_parts(chart)
    storage = [part.GetStorageNode() for part in parts if part.IsA("vtkMRMLTableNode") and part.GetStorageNode()]
    for node in (chart, *reversed(parts), *storage):
        scene.RemoveNode(node)


@contextmanager
def _one_change(chart: vtkMRMLPlotChartNode) -> Iterator[None]:
    """Chart and tables change together and are drawn once, also when something fails on the way."""
    nodes = [chart, *chart_parts(chart)]
    were_modifying = [node.StartModify() for node in nodes]
    try:
        yield
        for table in nodes:
            if table.IsA("vtkMRMLTableNode"):
                table.GetTable().Modified()
    finally:
        for node, was_modifying in reversed(list(zip(nodes, were_modifying, strict=True))):
            node.EndModify(was_modifying)


def _part(chart: vtkMRMLPlotChartNode, role: str) -> vtkMRMLNode:
    """Raises ValueError when someone has deleted the part."""
    node = chart.GetNodeReference(ROLE + role)
    if node is None:
        raise ValueError(f"the chart {chart.GetName()!r} has lost its part {role!r}: remove it and make it anew")
    return node


def _create_chart(scene: vtkMRMLScene, title: str, x_title: str, y_title: str) -> vtkMRMLPlotChartNode:
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetXAxisTitle(x_title)
    chart.SetYAxisTitle(y_title)
    chart.SetTitleFontSize(_TITLE_SIZE)
    chart.SetAxisTitleFontSize(_TEXT_SIZE)
    chart.SetLegendFontSize(_TEXT_SIZE)
    chart.SetEnablePointMoveAlongX(False)
    chart.SetEnablePointMoveAlongY(False)
    return chart


def _create_table(chart: vtkMRMLPlotChartNode, role: str, name: str, columns: Iterable[Column],
                  rows: int) -> vtkMRMLTableNode:
    table = chart.GetScene().AddNewNodeByClass("vtkMRMLTableNode", name)
    set_columns(table, tuple(columns), rows)
    table.SetLocked(True)
    chart.SetNodeReferenceID(ROLE + role, table.GetID())
    return table


def _create_series(chart: vtkMRMLPlotChartNode, series: _Series) -> vtkMRMLPlotSeriesNode:
    node = chart.GetScene().AddNewNodeByClass("vtkMRMLPlotSeriesNode", series.role)
    node.SetAndObserveTableNodeID(_part(chart, series.table).GetID())
    node.SetPlotType(vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(series.x)
    node.SetYColumnName(series.y)
    node.SetColor(*(c / 255 for c in series.colour))
    node.SetLineStyle(series.line)
    node.SetLineWidth(series.width)
    node.SetMarkerStyle(series.marker)
    chart.SetNodeReferenceID(ROLE + series.role, node.GetID())
    return node


def _show(chart: vtkMRMLPlotChartNode, roles: Iterable[str]) -> None:
    """Draw these series and no others; nothing is touched when it is so already."""
    wanted = [_part(chart, role).GetID() for role in roles]
    if [chart.GetNthPlotSeriesNodeID(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] != wanted:
        chart.RemoveAllPlotSeriesNodeIDs()
        for series_id in wanted:
            chart.AddAndObservePlotSeriesNodeID(series_id)
