"""A measurement as JSON and as a table: one row for the mean, each level, muscle, fat and aorta."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import write_whole
from ..flags import refusals

COLUMNS: tuple[str, ...] = (
    "region", "state", "used_in_mean", "complete", "hu_mean", "hu_sd", "hu_median", "volume_mm3", "kept_fraction",
    "vbmd_mg_cm3", "vbmd_sd_mg_cm3", "vbmd_ci95_low_mg_cm3", "vbmd_ci95_high_mg_cm3", "category",
    "category_provisional", "p_below_80_mg_cm3", "calibration", "calibration_unit", "erosion", "flags", "note",
)
"""Columns of measurement.csv. kept_fraction and p_below_80_mg_cm3 are 0..1; flags are codes; note says which levels
or regions a row is made of, or why there is no value."""

TISSUES = ("muscle", "fat", "aorta")
"""Fields of the record that hold a tissue, in reading order; a record of an earlier version has no aorta."""

FORMULA_STARTS = ("=", "+", "-", "@")
"""A cell that begins so is run as a formula by spreadsheet programs, also behind white space."""
_CONTROL_STARTS = ("\t", "\n")


def neutralise(text: str) -> str:
    """Text that a spreadsheet will show and not run: a leading apostrophe where it needs one.

    Carriage returns become newlines: Python's csv writer leaves a bare one unquoted, which would break the row.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    dangerous = text.lstrip().startswith(FORMULA_STARTS) or text.startswith(_CONTROL_STARTS)
    return f"'{text}" if dangerous else text


def plain(value: Any) -> Any:
    """Plain JSON data: dataclasses as objects, arrays as lists, NaN and infinity as null."""
    if is_dataclass(value):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write the content of measurement.json (see record.to_dict), UTF-8, whole or not at all.

    Raises ValueError when it holds NaN or infinity, which JSON cannot say.
    """
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, record: Mapping[str, Any]) -> None:
    """Write measurement.csv from the content of measurement.json: columns COLUMNS, UTF-8, empty where unknown."""
    write_whole(path, csv_text(COLUMNS, ([row.get(name) for name in COLUMNS] for row in table_rows(record))))


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as CSV: texts that a spreadsheet would run are neutralised, None is an empty cell, lines end in a newline."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([neutralise(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def table_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows in reading order: mean, levels, then muscle, fat and aorta when they were found."""
    return [_mean_row(record), *(_level_row(record, level) for level in record["levels"]),
            *(_tissue_row(name, record[name]) for name in TISSUES if record.get(name))]


def _mean_row(record: Mapping[str, Any]) -> dict[str, Any]:
    low, high = record["mean_vbmd_ci95"] or (None, None)
    calibration = record["calibration"]
    return {
        "region": "mean", "state": record["status"], "vbmd_mg_cm3": record["mean_vbmd_mg_cm3"],
        "vbmd_sd_mg_cm3": record["mean_vbmd_sd_mg_cm3"], "vbmd_ci95_low_mg_cm3": low,
        "vbmd_ci95_high_mg_cm3": high, "category": record["category"],
        "category_provisional": record["category_provisional"], "p_below_80_mg_cm3": record["p_below_80"],
        "calibration": f"{calibration['name']} ({calibration['status']})", "calibration_unit": calibration["unit"],
        "erosion": record["erosion"], "flags": _codes(record, None), "note": " ".join(record["mean_of"] or refusals(record)),
    }


def _level_row(record: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    low, high = level["vbmd_ci95"] or (None, None)
    return {
        "region": level["name"], "state": "not measured" if level["hu_mean"] is None else "measured",
        "used_in_mean": level["used"],
        **{key: level[key] for key in ("complete", "hu_mean", "hu_sd", "hu_median", "volume_mm3", "kept_fraction",
                                       "vbmd_mg_cm3", "vbmd_sd_mg_cm3")},
        "vbmd_ci95_low_mg_cm3": low, "vbmd_ci95_high_mg_cm3": high, "flags": _codes(record, level["name"]),
        "note": level["reason"],
    }


def _tissue_row(name: str, tissue: Mapping[str, Any]) -> dict[str, Any]:
    return {"region": name, "state": "measured", "note": " ".join(tissue["structures"]),
            **{key: tissue[key] for key in ("hu_mean", "hu_sd", "hu_median", "volume_mm3")}}


def _codes(record: Mapping[str, Any], level: str | None) -> str:
    return " ".join(flag["code"] for flag in record["flags"] if flag["level"] == level)
