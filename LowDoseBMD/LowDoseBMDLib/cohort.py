"""A cohort of people measured twice, by this program and by a reference QCT, and its CSV file."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .cohort_columns import BY_NAME, COLUMNS, MISSING, SPLITS, column_named, parse_cell
from .files.atomic import write_whole
from .report.tables import csv_text

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t")
"""Tried on the header; a comma stands for the decimal point only in a file parted by semicolons."""

PROBLEMS_SHOWN = 5
"""So many wrong cells are named at once; the rest is counted."""

LEAST_DENSITY_MG_CM3 = 5.0
"""No cohort has every density below this; one that does is in g/cm3."""

EXAMPLES = ("example-1", "example-2")
"""Ids of the template's rows. A file that still holds them is refused: their numbers are nobody's."""

REQUIRED = tuple(column.name for column in COLUMNS if column.required)
_AS_NAMED: Mapping[str, str] = MappingProxyType({})


class CohortError(ValueError):
    """A cohort file that cannot be used: names the file, and rows and columns that are wrong."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """N people, one entry each in every array of shape (N,). Unknown is NaN in numbers and "" in texts.

    id: without identity, no two alike. split: "training" or "test". sex: "F", "M" or "". Densities on the K2HPO4
    scale: reference by QCT, measured by this program. spine_hu: mean of the levels measured; *_se_hu: standard errors
    of the three means. scan_date: ISO. synthetic: True for a person drawn by this program, not scanned. Raises
    ValueError naming an array of another shape.
    """

    id: np.ndarray
    split: np.ndarray
    age_years: np.ndarray
    sex: np.ndarray
    height_cm: np.ndarray
    weight_kg: np.ndarray
    reference_mg_cm3: np.ndarray
    measured_mg_cm3: np.ndarray
    spine_hu: np.ndarray
    muscle_hu: np.ndarray
    fat_hu: np.ndarray
    spine_se_hu: np.ndarray
    muscle_se_hu: np.ndarray
    fat_se_hu: np.ndarray
    kvp: np.ndarray
    scanner: np.ndarray
    kernel: np.ndarray
    scan_date: np.ndarray
    synthetic: np.ndarray

    def __post_init__(self) -> None:
        for entry in fields(self):
            if np.shape(getattr(self, entry.name)) != (len(self.id),):
                raise ValueError(f"{entry.name} has the shape {np.shape(getattr(self, entry.name))}; one entry for each "
                                 f"of {len(self.id)} people is needed")

    @classmethod
    def of(cls, **known: Any) -> Cohort:
        """A cohort from what is known, at least id; split is then "test", synthetic False and all else unknown."""
        count = len(known["id"])
        arrays = {column.name: np.full(count, column.unknown) for column in COLUMNS}
        given = {name: np.asarray(values, BY_NAME[name].dtype) for name, values in known.items()}
        return cls(**arrays | given)

    def __len__(self) -> int:
        return len(self.id)

    @property
    def bmi_kg_m2(self) -> np.ndarray:
        """(N,) weight over height squared; NaN where one of them is unknown."""
        return self.weight_kg / (self.height_cm / 100) ** 2

    @property
    def paired(self) -> np.ndarray:
        """(N,) True where both densities are known."""
        return np.isfinite(self.reference_mg_cm3) & np.isfinite(self.measured_mg_cm3)

    @property
    def missing(self) -> dict[str, int]:
        """How many values are unknown, by column; columns without a gap are left out, empty ones count everybody."""
        counts = {column.name: int(np.sum(column.is_unknown(getattr(self, column.name)))) for column in COLUMNS}
        return {name: count for name, count in counts.items() if count}

    def where(self, chosen: np.ndarray) -> Cohort:
        """The people for whom chosen, (N,) of bool, is True."""
        return Cohort(**{entry.name: getattr(self, entry.name)[chosen] for entry in fields(self)})

    def of_split(self, split: str) -> Cohort:
        """The people of "training" or of "test"; may be none. Raises ValueError for another word."""
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        return self.where(self.split == split)


def parse_columns(text: str) -> dict[str, str]:
    """A mapping for read_cohort out of "reference=QCT,measured=AI". Raises ValueError naming the part that is wrong."""
    mapping: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not (ours and equals and theirs):
            raise ValueError(f"{part!r} names no column; write for example reference=QCT,measured=AI")
        if column_named(ours).name in mapping:
            raise ValueError(f"{part!r} names the column {column_named(ours).name} a second time")
        mapping[column_named(ours).name] = theirs
    return mapping


def read_cohort(path: str | Path, columns: Mapping[str, str] = _AS_NAMED,
                needed: Collection[str] = REQUIRED) -> Cohort:
    """Read a cohort file: CSV in UTF-8, one header row, one row a person; the columns are those of layout().

    columns: our name of a column, with or without its unit -> its name in this file. Names match whatever their
    case. needed: columns that the file must have. Without a column split everybody is "test"; cells empty or NA are
    unknown. Columns that are not ours are passed over and logged. Raises CohortError naming the rows and columns that
    are wrong; OSError if unreadable.
    """
    path = Path(path)
    try:
        return _cohort_of(_table(path.read_bytes()), columns, needed)
    except ValueError as error:
        raise CohortError(f"{path.name}: {error}") from error


class _Row(NamedTuple):
    number: int
    """As a spreadsheet counts, the first row being 1."""
    cells: list[str]


@dataclass(frozen=True)
class _Table:
    header: list[str]
    rows: list[_Row]
    decimal_comma: bool


class _Problem(NamedTuple):
    row: int
    text: str


def _table(data: bytes) -> _Table:
    """The cells of a CSV file; every row is as long as the header."""
    text = _text(data)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    header, *rows = _rows(text, delimiter) or [_Row(1, [])]
    if not rows:
        raise ValueError("it holds no people; below the header one row for each is needed")
    width = len(header.cells)
    rows = [_Row(row.number, row.cells[:width] if not any(row.cells[width:]) else row.cells) for row in rows]
    _refuse([_Problem(row.number, f"has {len(row.cells)} cells, but the header has {width}; is there a delimiter too "
                                  "many or too few, or a text with one that is not in quotes?")
             for row in rows if len(row.cells) != width])
    return _Table([cell.strip() for cell in header.cells], rows, decimal_comma=delimiter == ";")


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("it is not text in UTF-8; save it from the spreadsheet program as 'CSV UTF-8'")
    return text


def _rows(text: str, delimiter: str) -> list[_Row]:
    """Rows that hold anything, with the number that a spreadsheet shows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [_Row(number, cells) for number, cells in enumerate(reader, 1) if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error}); is a quote left open?") from error


def _cohort_of(table: _Table, columns: Mapping[str, str], needed: Collection[str]) -> Cohort:
    places = _places(table.header, columns, needed)
    known: dict[str, list[Any]] = {}
    problems: list[_Problem] = []
    for name, place in places.items():
        known[name] = []
        for number, cells in table.rows:
            try:
                known[name].append(parse_cell(BY_NAME[name], cells[place], table.decimal_comma))
            except ValueError as error:
                problems.append(_Problem(number, f"column {table.header[place]!r}: {error}"))
    _refuse([*problems, *([] if problems else _wrong_ids(known["id"], table.rows))])
    cohort = Cohort.of(**known)
    for name in ("reference_mg_cm3", "measured_mg_cm3"):
        if name in places:
            _check_unit(getattr(cohort, name), table.header[places[name]])
    return cohort


def _places(header: list[str], columns: Mapping[str, str], needed: Collection[str]) -> dict[str, int]:
    """Our columns -> their places in the header."""
    folded = [name.casefold() for name in header]
    if double := next((name for name in folded if name and folded.count(name) > 1), None):
        raise ValueError(f"the header has {double!r} twice; rename or remove one of the columns")
    given = {column_named(ours).name: theirs for ours, theirs in columns.items()}
    places: dict[str, int] = {}
    for column in COLUMNS:
        names = [given[column.name]] if column.name in given else [column.name, column.short]
        place = next((folded.index(name.strip().casefold()) for name in names if name.strip().casefold() in folded), None)
        if place is not None:
            places[column.name] = place
        elif column.name in needed or column.name in given:
            raise ValueError(f"there is no column {names[0]!r} among {', '.join(filter(None, header))}; name the file's "
                             f"column for it, as in {column.short}=NAME")
    _check_used_once(places, header)
    if unused := [name for place, name in enumerate(header) if name and place not in places.values()]:
        log.warning("columns that are not used: %s", ", ".join(unused))
    return places


def _check_used_once(places: Mapping[str, int], header: list[str]) -> None:
    users: dict[int, str] = {}
    for name, place in places.items():
        if place in users:
            raise ValueError(f"the column {header[place]!r} is named for both {users[place]} and {name}")
        users[place] = name


def _wrong_ids(ids: list[str], rows: list[_Row]) -> list[_Problem]:
    """Ids that are empty, double or the template's."""
    problems = []
    first: dict[str, int] = {}
    for text, row in zip(ids, rows, strict=True):
        if not text:
            problems.append(_Problem(row.number, "has no id; give every person one of their own"))
        elif text in EXAMPLES:
            problems.append(_Problem(row.number, f"is the template's {text}; remove it"))
        elif text in first:
            problems.append(_Problem(row.number, f"has the id {text!r} of row {first[text]}; keep one row for each person"))
        first.setdefault(text, row.number)
    return problems


def _check_unit(values: np.ndarray, name: str) -> None:
    known = values[np.isfinite(values)]
    if known.size and np.all(np.abs(known) < LEAST_DENSITY_MG_CM3):
        raise ValueError(f"the column {name!r} is nowhere above {known.max():g}; give the densities in mg/cm3")


def _refuse(problems: Iterable[_Problem]) -> None:
    ordered = sorted(problems)
    if ordered:
        shown = "; ".join(f"row {problem.row} {problem.text}" for problem in ordered[:PROBLEMS_SHOWN])
        more = len(ordered) - PROBLEMS_SHOWN
        raise ValueError(shown + (f"; and {more} more" if more > 0 else ""))


def write_cohort(path: str | Path, cohort: Cohort) -> None:
    """Write the cohort as CSV that read_cohort reads back alike, whole or not at all; columns without a value are left out.

    Texts that a spreadsheet would run as a formula are written behind an apostrophe, which read_cohort removes.
    Raises ValueError for a number that read_cohort would refuse: infinity, or outside the limits of its column.
    """
    _check_limits(cohort)
    columns = [column for column in COLUMNS
               if column.required or not np.all(column.is_unknown(getattr(cohort, column.name)))]
    if not np.any(cohort.synthetic):
        columns = [column for column in columns if column.name != "synthetic"]
    rows = zip(*(map(_cell, getattr(cohort, column.name).tolist()) for column in columns), strict=True)
    write_whole(Path(path), csv_text([column.name for column in columns], rows))


def _check_limits(cohort: Cohort) -> None:
    for column in filter(lambda column: column.is_number, COLUMNS):
        values = getattr(cohort, column.name)
        outside = np.flatnonzero((values < column.lowest) | (values > column.highest))
        if outside.size:
            raise ValueError(f"{column.name} of {cohort.id[outside[0]]} is {values[outside[0]]:g}, not between "
                             f"{column.lowest:g} and {column.highest:g}; leave what is unknown as NaN")


def _cell(value: str | float | bool) -> str | float | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return None
    return int(value) if value == int(value) else value


def template(path: str | Path) -> None:
    """Write a cohort file with all columns and two example rows, which read_cohort refuses until they are removed."""
    example = [_cell(parse_cell(column, column.example, False)) for column in COLUMNS if column.name != "id"]
    rows = [[identity, *example] for identity in EXAMPLES]
    write_whole(Path(path), csv_text([column.name for column in COLUMNS], rows))


def layout() -> str:
    """The CSV layout in words: one line for each column, then the rules."""
    width = max(len(column.name) for column in COLUMNS)
    lines = [f"{column.name:{width}}  {'needed' if column.required else 'optional':8}  {column.meaning}"
             for column in COLUMNS]
    return "\n".join([
        *lines,
        "One header row, then one row for each person; UTF-8; parted by commas, semicolons or tabs. A decimal comma is "
        "read in files parted by semicolons.",
        f"Unknown: an empty cell or one of {', '.join(sorted(MISSING - {''}))}. Header names may lack their unit.",
    ])
