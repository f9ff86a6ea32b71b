"""The results as a table in the scene, and what every table of this layer is made with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import vtk
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.flags import Severity
from LowDoseBMDLib.measurement import LevelMeasurement, Measurement, TissueMeasurement
from LowDoseBMDLib.report.html import CATEGORY_TITLES
from slicer import vtkMRMLTableNode
from vtk.util.numpy_support import vtk_to_numpy

ROWS: tuple[str, ...] = ("mean", *LEVELS, "muscle", "fat")
"""First cells of the results table, in reading order; every row is always there."""

NOT_KNOWN = math.nan
"""A number that was not measured. Saved tables keep it: it is the null value of every column of numbers."""

EDITED = "edited by reader"

_DIGITS = 1
"""Decimals in the results table, as in measurement.json; a table view shows what is stored."""


@dataclass(frozen=True)
class Column:
    """One column: its name in code, its header with the unit, the unit alone, and a sentence for the tool tip."""

    name: str
    title: str
    unit: str = ""
    description: str = ""
    numeric: bool = True


RESULT_COLUMNS: tuple[Column, ...] = (
    Column("region", "Region", numeric=False, description="Mean of the levels used, each level, reference tissues"),
    Column("used", "Used", numeric=False, description="Whether the level belongs to the mean"),
    Column("vbmd", "vBMD (mg/cm3)", "mg/cm3", "Trabecular volumetric bone mineral density, K2HPO4 scale"),
    Column("vbmd_low", "95 % low (mg/cm3)", "mg/cm3", "Lower end of the 95 % interval of vBMD"),
    Column("vbmd_high", "95 % high (mg/cm3)", "mg/cm3", "Upper end of the 95 % interval of vBMD"),
    Column("hu_mean", "Mean (HU)", "HU", "Mean CT number inside the region, on the CT's own grid"),
    Column("hu_sd", "SD (HU)", "HU", "Standard deviation of single voxels inside the region"),
    Column("volume", "Volume (cm3)", "cm3", "Volume of the region"),
    Column("state", "State", numeric=False, description="Complete, edited, left out, or why it was not measured"),
)
"""Columns of the results table."""


def write_results(table_node: vtkMRMLTableNode, measurement: Measurement) -> None:
    """Write a measurement into a table node: rows ROWS, columns RESULT_COLUMNS, numbers rounded to 0.1.

    Updated in place with one Modified event, so that a view keeps its selection; a table that holds anything else
    is made anew. The table is locked: its numbers come from regions, not from typing.
    """
    rows = [_mean_row(measurement), *(_level_row(name, measurement.level(name)) for name in LEVELS),
            _tissue_row("muscle", measurement.muscle, measurement.edited),
            _tissue_row("fat", measurement.fat, measurement.edited)]
    was_modifying = table_node.StartModify()
    set_columns(table_node, RESULT_COLUMNS, len(rows))
    table_node.SetLocked(True)
    table_node.SetUseFirstColumnAsRowHeader(True)
    for column in RESULT_COLUMNS:
        cells = [row.get(column.name) for row in rows]
        if column.numeric:
            fill_numbers(table_node, {column.name: [_rounded(cell) for cell in cells]})
        else:
            _fill_texts(table_node, column.name, cells)
    table_node.GetTable().Modified()
    table_node.EndModify(was_modifying)


def set_columns(table_node: vtkMRMLTableNode, columns: Sequence[Column], rows: int) -> None:
    """Give a table node these columns and so many rows; what fits already is kept as it is, values too."""
    if not _fits(table_node, columns):
        table_node.RemoveAllColumns()
        for column in columns:
            _add_column(table_node, column)
        table_node.SetUseColumnTitleAsColumnHeader(True)
    if table_node.GetNumberOfRows() != rows:
        table_node.GetTable().SetNumberOfRows(rows)


def fill_numbers(table_node: vtkMRMLTableNode, values: Mapping[str, Sequence[float] | np.ndarray]) -> None:
    """Overwrite columns of numbers by name, each with as many values as there are rows; tells nobody.

    The caller calls table_node.GetTable().Modified() when all is written. Raises ValueError on another length.
    """
    for name, numbers in values.items():
        array = table_node.GetTable().GetColumnByName(name)
        vtk_to_numpy(array)[:] = np.asarray(numbers, float)
        array.Modified()


def _fits(table_node: vtkMRMLTableNode, columns: Sequence[Column]) -> bool:
    table = table_node.GetTable()
    found = [table.GetColumn(n) for n in range(table.GetNumberOfColumns())]
    return [(array.GetName(), array.GetDataType() == vtk.VTK_DOUBLE) for array in found] == [
        (column.name, column.numeric) for column in columns]


def _add_column(table_node: vtkMRMLTableNode, column: Column) -> None:
    array = vtk.vtkDoubleArray() if column.numeric else vtk.vtkStringArray()
    array.SetName(column.name)
    array.SetNumberOfValues(max(0, table_node.GetNumberOfRows()))
    table_node.AddColumn(array)
    table_node.SetColumnTitle(column.name, column.title)
    table_node.SetColumnUnitLabel(column.name, column.unit)
    table_node.SetColumnDescription(column.name, column.description)
    if column.numeric:
        table_node.SetColumnNullValue(column.name, str(NOT_KNOWN))


def _fill_texts(table_node: vtkMRMLTableNode, name: str, texts: Sequence[str | None]) -> None:
    array = table_node.GetTable().GetColumnByName(name)
    for row, text in enumerate(texts):
        array.SetValue(row, text or "")
    array.Modified()


def _rounded(value: float | None) -> float:
    return NOT_KNOWN if value is None else round(value, _DIGITS)


def _mean_row(measurement: Measurement) -> dict[str, str | float | None]:
    low, high = measurement.mean_vbmd_ci95 or (None, None)
    return {"region": "mean", "vbmd": measurement.mean_vbmd_mg_cm3, "vbmd_low": low, "vbmd_high": high,
            "state": _mean_state(measurement)}


def _mean_state(measurement: Measurement) -> str:
    """Class and levels of the mean, or the first reason why there is none."""
    if measurement.mean_vbmd_mg_cm3 is None:
        refusals = [flag.sentence for flag in measurement.flags if flag.severity is Severity.REFUSED]
        return f"refused: {refusals[0]}" if refusals else "not measured"
    title = CATEGORY_TITLES[measurement.category].lower()
    provisional = " (provisional)" if measurement.category_provisional else ""
    levels = measurement.mean_of
    return f"{title}{provisional}, " + (f"mean of {' and '.join(levels)}" if len(levels) > 1 else f"{levels[0]} only")


def _level_row(name: str, level: LevelMeasurement | None) -> dict[str, str | float | None]:
    if level is None:
        return {"region": name, "used": "no", "state": "not measured"}
    low, high = level.vbmd_ci95 or (None, None)
    return {"region": name, "used": "yes" if level.used else "no", "vbmd": level.vbmd_mg_cm3, "vbmd_low": low,
            "vbmd_high": high, "hu_mean": level.hu_mean, "hu_sd": level.hu_sd, "volume": level.volume_mm3 / 1000,
            "state": level_state(level)}


def level_state(level: LevelMeasurement) -> str:
    """The state of a level in words: left out and why, not measured and why, edited, or complete."""
    if not level.measured:
        state = level.reason or "not measured"
    else:
        state = EDITED if level.edited else "complete"
    return f"left out: {level.excluded}, {state}" if level.excluded else state


def _tissue_row(name: str, tissue: TissueMeasurement | None, edited: Sequence[str]) -> dict[str, str | float | None]:
    if tissue is None:
        return {"region": name, "state": "not found"}
    where = ", ".join(STRUCTURES[structure].title for structure in tissue.structures)
    if not set(edited).isdisjoint(tissue.structures):
        where = f"{where}, {EDITED}"
    return {"region": name, "hu_mean": tissue.hu_mean, "hu_sd": tissue.hu_sd, "volume": tissue.volume_mm3 / 1000,
            "state": where}
