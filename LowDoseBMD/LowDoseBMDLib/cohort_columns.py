"""The columns of a cohort file: what each means, what is plausible in it, and how one cell is read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date

import numpy as np

from .report.tables import neutralise

SPLITS: tuple[str, ...] = ("training", "test")

HU_COLUMNS: tuple[str, ...] = ("spine_hu", "muscle_hu", "fat_hu")
"""What a calibration reads of a person."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "."})
"""Cells that say unknown, in lower case."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_UNIT = re.compile("_(years|cm|kg|mg_cm3|hu)$")

_WORDS: dict[str, dict[str, str | bool]] = {
    "split": {"training": "training", "train": "training", "训练集": "training", "test": "test", "testing": "test",
              "测试集": "test"},
    "sex": {"f": "F", "female": "F", "woman": "F", "女": "F", "m": "M", "male": "M", "man": "M", "男": "M",
            "o": "", "u": "", "other": "", "unknown": ""},
    "synthetic": {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False},
}
"""What may stand in the columns of few values, in lower case, and what it means."""


@dataclass(frozen=True)
class Column:
    """One column. lowest, highest: what a number must lie between, else it is refused as a slip; None: not a number."""

    name: str
    meaning: str
    example: str
    required: bool = False
    lowest: float | None = None
    highest: float | None = None

    @property
    def short(self) -> str:
        """The name without its unit."""
        return _UNIT.sub("", self.name)

    @property
    def is_number(self) -> bool:
        return self.lowest is not None

    @property
    def dtype(self) -> type:
        """Of the array that holds the column."""
        if self.is_number:
            return float
        return bool if self.name == "synthetic" else str

    @property
    def unknown(self) -> str | float | bool:
        """What stands for a person of whom this is not known."""
        if self.is_number:
            return math.nan
        return {"split": "test", "synthetic": False}.get(self.name, "")

    def is_unknown(self, values: np.ndarray) -> np.ndarray:
        """True where a value of the column's array is unknown."""
        if self.is_number:
            return np.isnan(values)
        return np.zeros(len(values), bool) if self.name == "synthetic" else values == ""


def _number(name: str, meaning: str, example: str, lowest: float, highest: float, required: bool = False) -> Column:
    return Column(name, meaning, example, required, lowest, highest)


COLUMNS: tuple[Column, ...] = (
    Column("id", "a name for the person without identity, no two alike", "", required=True),
    Column("split", "training or test; without this column everybody is test", "test"),
    _number("age_years", "age in years", "57", 0, 120),
    Column("sex", "F or M", "F"),
    _number("height_cm", "height in cm", "164", 50, 250),
    _number("weight_kg", "weight in kg", "64.5", 15, 350),
    _number("reference_mg_cm3", "vBMD by QCT, mean of the vertebrae, mg/cm3 of K2HPO4", "125.6", -50, 500, required=True),
    _number("measured_mg_cm3", "vBMD by this program, mg/cm3 of K2HPO4", "124.2", -50, 500, required=True),
    _number("spine_hu", "trabecular bone, mean of the vertebrae, HU", "147.1", -200, 1000),
    _number("muscle_hu", "psoas muscle, HU", "54.3", -100, 200),
    _number("fat_hu", "subcutaneous fat, HU", "-104.8", -200, 0),
    _number("spine_se_hu", "standard error of spine_hu, HU", "1.1", 0, 100),
    _number("muscle_se_hu", "standard error of muscle_hu, HU", "0.9", 0, 100),
    _number("fat_se_hu", "standard error of fat_hu, HU", "0.6", 0, 100),
    _number("kvp", "tube voltage in kV", "120", 40, 200),
    Column("scanner", "scanner, as its DICOM header names the model: calibrations are found by it", "LightSpeed VCT"),
    Column("kernel", "reconstruction kernel, as the scanner calls it", "B30f"),
    Column("scan_date", "day of the scan as year-month-day", "2026-03-31"),
    Column("synthetic", "yes for a person drawn by a program, not scanned; otherwise no or empty", "no"),
)
"""In the order in which they are written. The limits are far outside what lives, so that only slips are refused:
metres for centimetres, muscle and fat exchanged, a lost decimal point."""

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}


def column_named(name: str) -> Column:
    """The column with this name, with or without its unit. Raises ValueError naming those there are."""
    wanted = name.strip().casefold()
    found = next((column for column in COLUMNS if wanted in (column.name, column.short)), None)
    if found is None:
        raise ValueError(f"a cohort has no column {name!r}; it has {', '.join(column.short for column in COLUMNS)}")
    return found


def parse_cell(column: Column, cell: str, decimal_comma: bool) -> str | float | bool:
    """The value of one cell. Raises ValueError saying what is wrong with it and what is wanted."""
    text = cell.strip()
    if column.is_number:
        return math.nan if text.casefold() in MISSING else _parse_number(column, text, decimal_comma)
    if column.name == "id":
        return without_apostrophe(text)
    if column.name in _WORDS:
        return _parse_word(column, text)
    if column.name == "scan_date":
        return "" if text.casefold() in MISSING else _parse_date(text)
    return "" if text.casefold() in MISSING else without_apostrophe(text)


def without_apostrophe(text: str) -> str:
    """The text that neutralise put behind an apostrophe."""
    return text[1:] if text.startswith("'") and neutralise(text[1:]) == text else text


def _parse_number(column: Column, text: str, decimal_comma: bool) -> float:
    plain = text.replace(",", ".") if decimal_comma and text.count(",") == 1 and "." not in text else text
    if not _NUMBER.fullmatch(plain):
        way_out = "; write a decimal point" if "," in text else "; leave the cell empty if it is unknown"
        raise ValueError(f"{text!r} is not a number{way_out}")
    value = float(plain)
    if not column.lowest <= value <= column.highest:
        raise ValueError(f"{text} is not between {column.lowest:g} and {column.highest:g} ({column.meaning})")
    return value


def _parse_date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a day; write it as 2026-03-31") from None


def _parse_word(column: Column, text: str) -> str | bool:
    words = _WORDS[column.name]
    if text.casefold() in words:
        return words[text.casefold()]
    if text.casefold() in MISSING and column.name != "split":
        return column.unknown
    raise ValueError(f"{text!r} is not known here ({column.meaning})")
