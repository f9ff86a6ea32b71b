"""All statistics of a cohort: each set on its own, and the two compared in a baseline table.

A statistic that the data do not allow (too few people, nobody below the limit, a constant) is None, and ``reasons``
says why: the others still stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from .. import agreement, baseline, diagnostics
from ..agreement import BlandAltman, Estimate, Line
from ..baseline import BaselineRow, CountRow
from ..calibration_apply import Prediction, coverage
from ..cohort import SPLITS, Cohort
from ..diagnostics import CutOffs, Diagnostic, Proportion, Roc, ThreeClasses
from ..measurement import NORMAL_ABOVE_MG_CM3, OSTEOPOROSIS_BELOW_MG_CM3

LIMITS_MG_CM3 = (OSTEOPOROSIS_BELOW_MG_CM3, NORMAL_ABOVE_MG_CM3)
TRAINED_ON, TESTED_ON = SPLITS
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class SetStatistics:
    """One set. measured, reference: (n,) mg/cm3 of the people with both. left_out: people without one of them.

    diagnostic: below ``limit``; diagnostic_low: below 120. cut_offs: found in this set, so too good for it.
    trained_youden, trained_specific: the training set's cut-offs held against this (test) set. coverage: QCT within the
    95 % interval of the measured density, where a calibration was given. reasons: by field, why
    it is None, or "all": why every one is. notes: by field, what to keep in mind of it.
    """

    split: str
    measured: np.ndarray
    reference: np.ndarray
    left_out: int
    limit: float = OSTEOPOROSIS_BELOW_MG_CM3
    spearman: Estimate | None = None
    spearman_p: float | None = None
    pearson: Estimate | None = None
    icc_agreement: Estimate | None = None
    icc_consistency: Estimate | None = None
    lin_ccc: Estimate | None = None
    bland_altman: BlandAltman | None = None
    passing_bablok: Line | None = None
    deming: Line | None = None
    roc: Roc | None = None
    diagnostic: Diagnostic | None = None
    diagnostic_low: Diagnostic | None = None
    three_classes: ThreeClasses | None = None
    cut_offs: CutOffs | None = None
    trained_youden: Diagnostic | None = None
    trained_specific: Diagnostic | None = None
    coverage: Proportion | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """People with both densities."""
        return int(self.measured.size)

    @property
    def below(self) -> int:
        """People whom the reference finds below the limit."""
        return int(np.count_nonzero(self.reference < self.limit))


@dataclass(frozen=True)
class TableRow:
    """A row of the baseline table. known: people with a value, by set. values: mean and SD (counted: number and share)
    of each set that has people. row: the comparison; None, and reason says why, when the sets cannot be compared."""

    name: str
    unit: str
    digits: int
    known: Mapping[str, int]
    values: Mapping[str, tuple[float, float]]
    row: BaselineRow | CountRow | None
    reason: str = ""

    @property
    def counted(self) -> bool:
        """A share, not a mean."""
        return not self.unit


def analyse(cohort: Cohort, sd_mg_cm3: np.ndarray | None = None) -> list[SetStatistics]:
    """Every set that has people, training first. sd_mg_cm3: (N,) of the measured densities, if known.

    Raises ValueError when nobody has both densities.
    """
    if not cohort.paired.any():
        raise ValueError("nobody in the cohort has both a measured and a reference density: there is nothing to compare")
    sets: list[SetStatistics] = []
    for split in SPLITS:
        part = cohort.of_split(split)
        if len(part):
            found = _analyse_set(part, split, sets[0].cut_offs if sets else None)
            sets.append(found if sd_mg_cm3 is None else _covered(found, sd_mg_cm3[(cohort.split == split) & cohort.paired]))
    return sets


def _covered(found: SetStatistics, sd_mg_cm3: np.ndarray) -> SetStatistics:
    return replace(found, coverage=coverage(Prediction(found.measured, sd_mg_cm3), found.reference))


def _analyse_set(part: Cohort, split: str, trained: CutOffs | None) -> SetStatistics:
    measured, reference = part.measured_mg_cm3[part.paired], part.reference_mg_cm3[part.paired]
    limit, normal = LIMITS_MG_CM3
    low_is_positive = {"low_is_positive": True}
    reasons: dict[str, str] = {}
    pair = (measured, reference)
    if _of(reasons, "all", agreement.checked_pair, *pair, ("the measured density", "the reference density")) is None:
        return SetStatistics(split, *pair, len(part) - measured.size, limit, reasons=reasons)
    found: dict[str, Any] = {
        "spearman": _of(reasons, "spearman", agreement.spearman, *pair),
        "pearson": _of(reasons, "pearson", agreement.pearson, *pair),
        "icc_agreement": _of(reasons, "icc_agreement", agreement.icc_agreement, *pair),
        "icc_consistency": _of(reasons, "icc_consistency", agreement.icc_consistency, *pair),
        "lin_ccc": _of(reasons, "lin_ccc", agreement.lin_ccc, *pair),
        "bland_altman": _of(reasons, "bland_altman", agreement.bland_altman, *pair),
        "passing_bablok": _of(reasons, "passing_bablok", agreement.passing_bablok, reference, measured),
        "deming": _of(reasons, "deming", agreement.deming, reference, measured),
        "roc": _of(reasons, "roc", diagnostics.roc, measured, reference < limit, **low_is_positive),
        "diagnostic": _of(reasons, "diagnostic", diagnostics.classify_table, *pair, limit),
        "diagnostic_low": _of(reasons, "diagnostic_low", diagnostics.classify_table, *pair, normal),
        "three_classes": _of(reasons, "three_classes", diagnostics.three_classes, *pair, LIMITS_MG_CM3),
        "cut_offs": _of(reasons, "cut_offs", diagnostics.cut_off, *pair, limit),
    }
    if found["spearman"] is not None:
        found["spearman_p"] = _spearman_p(*pair)
    if trained is not None:
        for name, cut in (("trained_youden", trained.youden), ("trained_specific", trained.specific)):
            found[name] = _of(reasons, name, diagnostics.classify_table, *pair, limit, cut.threshold)
    notes = {name: "; ".join(dict.fromkeys(_notes(result))) for name, result in found.items() if any(_notes(result))}
    return SetStatistics(split, *pair, len(part) - measured.size, limit, reasons=reasons, notes=notes, **found)


def _of(reasons: dict[str, str], name: str, function: Callable[..., Result], *values: Any, **named: Any) -> Result | None:
    try:
        return function(*values, **named)
    except ValueError as error:
        reasons[name] = str(error)
        return None


def _notes(result: Any) -> Iterator[str]:
    """Every ``reason`` inside a result."""
    if is_dataclass(result):
        if getattr(result, "reason", ""):
            yield result.reason
        for entry in fields(result):
            yield from _notes(getattr(result, entry.name))


def _spearman_p(measured: np.ndarray, reference: np.ndarray) -> float:
    """Two-sided, t distribution."""
    from scipy.stats import spearmanr

    return float(spearmanr(measured, reference).pvalue)


# --- the baseline table ------------------------------------------------------------------------------------

def baseline_table(cohort: Cohort) -> list[TableRow]:
    """Age, sex, height, weight, BMI and reference density, training against test; columns nobody has are left out."""
    numbers = [("Age", "years", 0, cohort.age_years), ("Height", "cm", 1, cohort.height_cm),
               ("Weight", "kg", 1, cohort.weight_kg), ("BMI", "kg/m²", 1, cohort.bmi_kg_m2),
               ("vBMD by QCT", "mg/cm³", 1, cohort.reference_mg_cm3)]
    rows = [_number_row(cohort, *entry) for entry in numbers if np.isfinite(entry[-1]).any()]
    sex = [_count_row("Men", cohort, cohort.sex != "", cohort.sex == "M")] if np.any(cohort.sex != "") else []
    known = np.isfinite(cohort.reference_mg_cm3)
    limit = LIMITS_MG_CM3[0]
    below = _count_row(f"QCT below {limit:.0f} mg/cm³", cohort, known, cohort.reference_mg_cm3 < limit)
    age_first = 1 if rows and rows[0].name == "Age" else 0
    return [*rows[:age_first], *sex, *rows[age_first:], below]


def _number_row(cohort: Cohort, name: str, unit: str, digits: int, values: np.ndarray) -> TableRow:
    parts = {split: values[(cohort.split == split) & np.isfinite(values)] for split in SPLITS}
    known = {split: int(part.size) for split, part in parts.items()}
    summary = {split: (float(part.mean()), float(part.std(ddof=1)) if part.size > 1 else math.nan)
               for split, part in parts.items() if part.size}
    return _compared(name, unit, digits, known, summary, baseline.compare_groups, *parts.values())


def _count_row(name: str, cohort: Cohort, known: np.ndarray, positive: np.ndarray) -> TableRow:
    of = {split: int(np.count_nonzero(known & (cohort.split == split))) for split in SPLITS}
    count = {split: int(np.count_nonzero(known & positive & (cohort.split == split))) for split in SPLITS}
    summary = {split: (count[split], count[split] / of[split]) for split in SPLITS if of[split]}
    four = [number for split in SPLITS for number in (count[split], of[split])]
    return _compared(name, "", 0, of, summary, baseline.compare_counts, *four)


def _compared(name: str, unit: str, digits: int, known: Mapping[str, int], values: Mapping[str, tuple[float, float]],
              compare: Callable[..., BaselineRow | CountRow], *parts: Any) -> TableRow:
    reasons: dict[str, str] = {}
    empty = [split for split in SPLITS if not known[split]]
    if empty:
        return TableRow(name, unit, digits, known, values, None, f"nobody in the {' or '.join(empty)} set has a value")
    row = _of(reasons, name, compare, name, *parts)
    return TableRow(name, unit, digits, known, values, row, reasons.get(name, ""))
