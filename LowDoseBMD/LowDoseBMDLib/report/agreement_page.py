"""The page of an agreement study: formatted here, only placed by the template, which escapes all text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..agreement import Interval, Line
from ..baseline import CountRow
from ..cohort_columns import column_named
from ..diagnostics import CutOff, Diagnostic, Proportion
from .agreement_figures import Drawing
from .agreement_sets import LIMITS_MG_CM3, SetStatistics, TableRow
from .agreement_text import SPLIT_TITLES, STATISTIC_TITLES
from .numbers import NO_VALUE, UNIT, between, counts, estimate, number, p_value, percent
from .study_page import embedded, render

IN_TABLES = ("age_years", "sex", "height_cm", "weight_kg", "reference_mg_cm3", "measured_mg_cm3")
CLASSES = ("< 80", "80–120", "> 120")
TEST_SIGNS = {"t": "t", "Welch": "Welch t", "Mann-Whitney": "U", "chi-square": "χ²"}
MEASURES = (("sensitivity", "Sensitivity"), ("specificity", "Specificity"), ("accuracy", "Accuracy"), ("ppv", "PPV"),
            ("npv", "NPV"))

PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "training": {"n": "985", "spearman": "0.957", "icc_agreement": "0.946 (0.940 to 0.952)", "bias": "−1.43",
                 "limits": "−21.90 to 19.05", "outside": "5.2 % (51/985)", "auc": "0.986 (0.979 to 0.993)",
                 "sensitivity": "47.5 %", "specificity": "100 %", "accuracy": "95.7 %"},
    "test": {"n": "421", "spearman": "0.955", "icc_agreement": "0.945 (0.934 to 0.954)", "bias": "−1.23",
             "limits": "−21.51 to 19.05", "outside": "5.7 % (24/421)", "auc": "0.975 (0.953 to 0.997)",
             "sensitivity": "42.1 % (16/38)", "specificity": "100 % (383/383)", "accuracy": "94.8 % (399/421)",
             "ppv": "100 % (16/16)", "npv": "94.6 % (383/405)"},
}
"""Zhao et al. 2024, Results. The shares outside the limits are computed from its counts of points: it prints 0.052 % and
0.057 %, and 421 as the size of both sets."""


def render_page(record: Mapping[str, Any], sets: Sequence[SetStatistics], table: Sequence[TableRow],
                figures: Sequence[Drawing]) -> str:
    """The page as HTML text, with its figures inside."""
    return render("agreement.html.j2", _view(record, sets, table, figures))


def _view(record: Mapping[str, Any], sets: Sequence[SetStatistics], table: Sequence[TableRow],
          figures: Sequence[Drawing]) -> dict[str, Any]:
    people, software = record["people"], record["software"]
    synthetic = people["synthetic"] > 0
    return {
        "title": "Agreement of vBMD from low-dose chest CT with QCT",
        "heading": [part for part in (record["source"], f"{people['total']} people",
                                      f"{software['name']} {software['version']}") if part],
        "synthetic": record["findings"][0] if synthetic else "",
        "findings": record["findings"][1:] if synthetic else record["findings"],
        "sets": [{"title": SPLIT_TITLES[found.split], "n": found.n} for found in sets],
        "baseline_columns": baseline_columns(sets),
        "baseline": baseline_view(sets, table),
        "baseline_reasons": [f"{row.name}: {row.reason}." for row in table if row.reason and len(sets) > 1],
        "agreement": _agreement_rows(sets),
        "diagnostic": _diagnostic_rows(sets),
        "tables": [_cross_table(found) for found in sets if found.three_classes is not None],
        "classes": CLASSES,
        "cut_offs": _cut_off_rows(sets),
        "reasons": _sentences(sets, "reasons"),
        "notes": _sentences(sets, "notes"),
        "missing": ", ".join(f"{column_named(name).short} of {count}" for name, count in people["missing"].items()
                             if name in IN_TABLES and count < people["total"]),
        "figures": [embedded(figure) for figure in figures],
        "statements": record["statements"],
    }


def _sentences(sets: Sequence[SetStatistics], which: str) -> list[str]:
    return [f"{SPLIT_TITLES[found.split]}, {STATISTIC_TITLES[name]}: {sentence}."
            for found in sets for name, sentence in getattr(found, which).items()]


# --- table 1 -----------------------------------------------------------------------------------------------

def baseline_columns(sets: Sequence[SetStatistics]) -> list[str]:
    """Head of Table 1."""
    sizes = {found.split: found.n + found.left_out for found in sets}
    heads = [f"{SPLIT_TITLES[split]} (n = {size})" for split, size in sizes.items()]
    return ["", *heads, *(["test", "P"] if len(sets) > 1 else [])]


def baseline_view(sets: Sequence[SetStatistics], table: Sequence[TableRow]) -> list[list[str]]:
    """Table 1 as cells: mean ± SD, or count (share); the test that the distributions called for, and its P."""
    sizes = {found.split: found.n + found.left_out for found in sets}
    return [[row.name + (f", {row.unit}" if row.unit else ""), *(_group(row, split, size) for split, size in sizes.items()),
             *(_test(row) if len(sets) > 1 else [])] for row in table]


def _group(row: TableRow, split: str, size: int) -> str:
    if split not in row.values:
        return NO_VALUE
    first, second = row.values[split]
    text = f"{first:.0f} ({percent(second)})" if row.counted else f"{number(first, row.digits)} ± {_sd(second, row.digits)}"
    known = row.known[split]
    return text if known == size else f"{text}, n = {known}"


def _sd(value: float, digits: int) -> str:
    return NO_VALUE if value != value else number(value, digits)


def _test(row: TableRow) -> list[str]:
    found = row.row
    if found is None:
        return [NO_VALUE, NO_VALUE]
    sign = TEST_SIGNS.get(found.test, found.test)
    digits = 0 if found.test == "Mann-Whitney" else 3 if isinstance(found, CountRow) else 2
    statistic = sign if found.statistic is None else f"{sign} = {number(found.statistic, digits)}"
    return [statistic, p_value(found.p).removeprefix("P ").removeprefix("= ")]


# --- agreement ---------------------------------------------------------------------------------------------

def _agreement_rows(sets: Sequence[SetStatistics]) -> list[list[str]]:
    """Cells: name, each set, then the published value for each set; densities in mg/cm3."""
    limit = f"{LIMITS_MG_CM3[0]:.0f}"
    rows = [
        ("n", "n", lambda s: str(s.n)),
        ("Spearman r", "spearman", lambda s: estimate(s.spearman, 3)),
        ("Pearson r", "", lambda s: estimate(s.pearson, 3)),
        ("ICC(A,1), agreement", "icc_agreement", lambda s: estimate(s.icc_agreement, 3)),
        ("ICC(C,1), consistency", "", lambda s: estimate(s.icc_consistency, 3)),
        ("Lin's concordance", "", lambda s: estimate(s.lin_ccc, 3)),
        ("Bias, AI − QCT", "bias", lambda s: estimate(s.bland_altman and s.bland_altman.bias, 2)),
        ("95 % limits of agreement", "limits", _limits),
        ("lower limit", "", lambda s: estimate(s.bland_altman and s.bland_altman.lower, 2)),
        ("upper limit", "", lambda s: estimate(s.bland_altman and s.bland_altman.upper, 2)),
        ("Outside the limits", "outside", _outside),
        ("Slope, difference on mean", "", lambda s: estimate(s.bland_altman and s.bland_altman.slope, 3)),
        ("Passing-Bablok slope", "", lambda s: _slope(s.passing_bablok)),
        ("Passing-Bablok intercept", "", lambda s: _intercept(s.passing_bablok)),
        ("Deming slope", "", lambda s: _slope(s.deming)),
        ("Deming intercept", "", lambda s: _intercept(s.deming)),
        (f"AUC, QCT below {limit}", "auc", lambda s: estimate(s.roc and s.roc.auc, 3)),
        *((f"{title} at {limit}", measure, partial(_share, measure)) for measure, title in MEASURES),
        *(_coverage_rows() if any(found.coverage for found in sets) else []),
    ]
    return [[name, *(value(found) for found in sets), *_published(sets, key)] for name, key, value in rows]


def _published(sets: Sequence[SetStatistics], key: str) -> list[str]:
    return [PUBLISHED[found.split].get(key, "") for found in sets]


def _coverage_rows() -> list[tuple[str, str, Callable[[SetStatistics], str]]]:
    return [("QCT within 95 % interval", "", lambda s: counts(s.coverage)),
            ("its own interval (Wilson), %", "", lambda s: _interval(s.coverage and s.coverage.wilson))]


def _limits(found: SetStatistics) -> str:
    result = found.bland_altman
    return NO_VALUE if result is None else between(result.lower.value, result.upper.value, 2)


def _outside(found: SetStatistics) -> str:
    result = found.bland_altman
    return NO_VALUE if result is None else f"{percent(result.outside / result.n)} ({result.outside}/{result.n})"


def _share(measure: str, found: SetStatistics) -> str:
    return NO_VALUE if found.diagnostic is None else counts(getattr(found.diagnostic, measure))


def _slope(line: Line | None) -> str:
    return estimate(line and line.slope, 3)


def _intercept(line: Line | None) -> str:
    return estimate(line and line.intercept, 1)


# --- diagnosis ---------------------------------------------------------------------------------------------

def _diagnostic_rows(sets: Sequence[SetStatistics]) -> list[dict[str, Any]]:
    """A block for each limit; cells: name, then for each set its counts, Wilson and exact interval."""
    blocks = []
    for limit, name in zip(LIMITS_MG_CM3, ("diagnostic", "diagnostic_low"), strict=True):
        tables = [getattr(found, name) for found in sets]
        if any(tables):
            rows = [[title, *(cell for table in tables for cell in _proportion(table, measure))]
                    for measure, title in MEASURES]
            blocks.append({"title": f"Below {limit:.0f} {UNIT}, AI held against QCT", "rows": rows,
                           "counts": [_four(found, table) for found, table in zip(sets, tables, strict=True)]})
    return blocks


def _proportion(table: Diagnostic | None, measure: str) -> list[str]:
    if table is None:
        return [NO_VALUE] * 3
    found: Proportion = getattr(table, measure)
    return [counts(found), _interval(found.wilson), _interval(found.exact)]


def _interval(found: Interval | None) -> str:
    """In per cent, without the sign."""
    return NO_VALUE if found is None else between(100 * found.low, 100 * found.high, 1)


def _four(found: SetStatistics, table: Diagnostic | None) -> str:
    title = SPLIT_TITLES[found.split]
    if table is None:
        return f"{title}: {NO_VALUE}"
    return (f"{title}: {table.tp} true positive, {table.fn} false negative, {table.fp} false positive, {table.tn} true "
            "negative")


def _cross_table(found: SetStatistics) -> dict[str, Any]:
    table = found.three_classes
    rows = [[CLASSES[row], *(f"{count:.0f}" for count in table.table[row]), f"{table.table[row].sum():.0f}"]
            for row in range(len(CLASSES))]
    return {"title": SPLIT_TITLES[found.split], "rows": rows, "kappa": estimate(table.weighted_kappa, 3)}


def _cut_off_rows(sets: Sequence[SetStatistics]) -> list[list[str]]:
    """Cells: what, cut-off, sensitivity, specificity."""
    rows = []
    for found in sets:
        title = SPLIT_TITLES[found.split]
        if found.cut_offs is not None:
            rows.append(_cut_off(f"{title}, its own best (Youden)", found.cut_offs.youden))
            rows.append(_cut_off(f"{title}, its own best at specificity ≥ 97 %", found.cut_offs.specific))
        for table, name in ((found.trained_youden, "Youden"), (found.trained_specific, "specificity ≥ 97 %")):
            if table is not None:
                rows.append([f"{title}, the training set's cut-off ({name})", number(table.cut, 1),
                             counts(table.sensitivity), counts(table.specificity)])
    return rows


def _cut_off(title: str, found: CutOff) -> list[str]:
    return [title, number(found.threshold, 1), counts(found.sensitivity), counts(found.specificity)]
