"""Two charts in the scene: HU in the trabecular regions, and the patient's vBMD beside what is usual at the age."""

from __future__ import annotations

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.headers import age_text
from LowDoseBMDLib.measurement import NORMAL_ABOVE_MG_CM3, OSTEOPOROSIS_BELOW_MG_CM3, Measurement
from LowDoseBMDLib.reference import AGE_RANGE_YEARS, CAVEAT, SD_MG_CM3, SEXES, SOURCE, has_reference, reference_curve
from LowDoseBMDLib.report.figures import HISTOGRAM_EDGES_HU, hu_shares
from LowDoseBMDLib.rois import Rois
from slicer import vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode, vtkMRMLScene

from .charts import (
    DASH_DOTS,
    DASHES,
    LINE,
    Series,
    create_chart,
    create_series,
    create_table,
    one_change,
    part_of,
    show_series,
)
from .tables import NOT_KNOWN, Column, fill_numbers

LEVEL_LINES = {"T12": DASH_DOTS, "L1": LINE, "L2": DASHES}
"""Levels are told apart without colour too. VTK draws dots too thin to follow."""

SEX_TITLES = {"F": "women", "M": "men"}
SEX_COLOURS = {"F": (204, 121, 167), "M": (0, 114, 178)}
"""From Okabe and Ito's palette for colour-blind readers."""
PATIENT_COLOUR = (0, 0, 0)
LIMIT_COLOUR = (130, 130, 130)

AGE_AXIS_YEARS = (20.0, 95.0)
"""Ages over which the limits are drawn: every adult is on the chart, with a reference or without."""

# --- HU in the trabecular regions --------------------------------------------------------------------------

_HISTOGRAM_COLUMNS = (
    Column("hu", "HU", "HU", "Middle of the bin"),
    *(Column(name, f"{name} (% of voxels)", "%", f"Share of the trabecular region of {name}") for name in LEVELS),
)
_HISTOGRAM_SERIES = tuple(
    Series(name, "histogram", "hu", name, STRUCTURES[f"trabecular_{name}"].colour, LEVEL_LINES[name])
    for name in LEVELS)


def create_histogram(scene: vtkMRMLScene) -> vtkMRMLPlotChartNode:
    """A chart of HU per level with its table and series, all in the scene, and nothing drawn yet."""
    chart = create_chart(scene, "HU in the trabecular regions", "CT number (HU)", "share of the region (% of voxels)")
    table = create_table(chart, "histogram", "HU histogram", _HISTOGRAM_COLUMNS, HISTOGRAM_EDGES_HU.size - 1)
    fill_numbers(table, {"hu": (HISTOGRAM_EDGES_HU[:-1] + HISTOGRAM_EDGES_HU[1:]) / 2})
    for series in _HISTOGRAM_SERIES:
        create_series(chart, series)
    return chart


def update_histogram(chart: vtkMRMLPlotChartNode, ct: CTVolume, rois: Rois, measurement: Measurement) -> None:
    """Draw the share of voxels per bin of every level that was measured, in place.

    Bins are those of the report (15 HU from -200 HU). The levels' names in the legend carry their means.
    """
    levels = {level.name: level for level in measurement.levels if level.measured}
    shares = {name: hu_shares(ct, rois.masks[f"trabecular_{name}"]) if name in levels
              else np.zeros(HISTOGRAM_EDGES_HU.size - 1) for name in LEVELS}
    with one_change(chart):
        fill_numbers(part_of(chart, "histogram"), shares)
        for name, level in levels.items():
            part_of(chart, name).SetName(f"{name}, mean {level.hu_mean:.0f} HU")
        show_series(chart, [name for name in LEVELS if name in levels])


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
    *(Series(f"mean_{sex}", "reference", "age", sex, SEX_COLOURS[sex], width=3.0) for sex in SEXES),
    *(Series(f"band_{sex}", "band", "age", sex, SEX_COLOURS[sex], width=1.0) for sex in SEXES),
    Series("limit_osteoporosis", "patient", "axis", "osteoporosis", LIMIT_COLOUR, LINE, 1.0),
    Series("limit_normal", "patient", "axis", "normal", LIMIT_COLOUR, DASHES, 1.0),
    Series("interval", "patient", "age", "interval", PATIENT_COLOUR),
    Series("vbmd", "patient", "age", "vbmd", PATIENT_COLOUR, vtkMRMLPlotSeriesNode.LineStyleNone,
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
    chart = create_chart(scene, "vBMD and age", f"age (years)\n{note}", "trabecular vBMD (mg/cm3)")
    ages = np.arange(AGE_RANGE_YEARS[0], AGE_RANGE_YEARS[1] + 1)
    curves = {sex: reference_curve(sex, ages) for sex in SEXES}
    reference = create_table(chart, "reference", "vBMD reference", _REFERENCE_COLUMNS, ages.size)
    fill_numbers(reference, {"age": ages, **curves})
    band = create_table(chart, "band", "vBMD reference, spread", _BAND_COLUMNS, 2 * ages.size)
    fill_numbers(band, {"age": np.concatenate([ages, ages[::-1]]),
                        **{sex: np.concatenate([mean - SD_MG_CM3[sex], mean[::-1] + SD_MG_CM3[sex]])
                           for sex, mean in curves.items()}})
    patient = create_table(chart, "patient", "vBMD of the patient", _PATIENT_COLUMNS, 2)
    fill_numbers(patient, {"axis": AGE_AXIS_YEARS, "osteoporosis": [OSTEOPOROSIS_BELOW_MG_CM3] * 2,
                           "normal": [NORMAL_ABOVE_MG_CM3] * 2,
                           **dict.fromkeys(("age", "vbmd", "interval"), [NOT_KNOWN] * 2)})
    for series in _AGE_SERIES:
        create_series(chart, series).SetName(_AGE_NAMES[series.role])
    show_series(chart, [series.role for series in _AGE_SERIES if series.role not in ("interval", "vbmd")])
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
    with one_change(chart):
        fill_numbers(part_of(chart, "patient"), {"age": [age if known else NOT_KNOWN] * 2,
                                                 "vbmd": [vbmd if known else NOT_KNOWN] * 2,
                                                 "interval": ci95 if known else [NOT_KNOWN] * 2})
        if known:
            part_of(chart, "vbmd").SetName(f"this patient, {vbmd:.0f} mg/cm3 at {age_text(age)}")
        chart.SetTitle(_age_title(vbmd, age))
        show_series(chart, [*shown, "interval", "vbmd"] if known else shown)


def _age_title(vbmd_mg_cm3: float | None, age_years: float | None) -> str:
    low, high = AGE_RANGE_YEARS
    if vbmd_mg_cm3 is None:
        return "vBMD and age: there is no mean vBMD"
    if age_years is None:
        return "vBMD and age: the patient's age is not known"
    if not has_reference(age_years):
        return f"vBMD and age: the reference covers {low:.0f} to {high:.0f} years"
    return "vBMD and age"
