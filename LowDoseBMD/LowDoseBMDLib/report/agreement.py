"""The report of an agreement study: every number in agreement.json, the published study's figures, one page.

After Zhao et al. 2024 (doi 10.13609/j.cnki.1000-0313.2024.02.019): its Table 1 and Figures 2 to 7 in its order, made
from any cohort of people who were measured by this program and by QCT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..calibration import calibration_to_dict
from ..calibration_apply import Applied
from ..cohort import SPLITS, Cohort
from ..files.atomic import write_whole
from .agreement_figures import Drawing, draw_figures
from .agreement_findings import STATEMENTS, findings
from .agreement_page import baseline_columns, baseline_view, render_page
from .agreement_sets import LIMITS_MG_CM3, SetStatistics, TableRow, analyse, baseline_table
from .agreement_text import STATISTIC_TITLES
from .numbers import between, number, percent, typed
from .study_page import write_figures
from .tables import csv_text, plain, write_json

SCHEMA_VERSION = 1
"""Of agreement.json; raised when a field changes its meaning or goes, not when one is added."""

FILES: tuple[str, ...] = ("agreement.json", "agreement.html", "table_1.csv")
FIGURE_PATTERN = "figure_[2-7]_*_{split}.{kind}"
"""An older report's figures are removed before a new report, so that none of another cohort stands beside it."""


def write_agreement(cohort: Cohort, out: Path, source: str = "", applied: Applied | None = None) -> dict[str, Any]:
    """Write agreement.json, agreement.html, table_1.csv and the figures as PNG and SVG; returns the record.

    source: what the page names as its origin, a file name without folder. applied: compare the densities of a
    calibration, applied to this cohort, instead of the cohort's own. Raises ValueError when nobody has both
    densities, OSError when out cannot be written.
    """
    if applied is not None:
        cohort = applied.cohort
    sets, table = analyse(cohort, applied and applied.sd_mg_cm3), baseline_table(cohort)
    figures = list(draw_figures(sets))
    record = to_record(cohort, sets, table, figures, source, applied)
    page = render_page(record, sets, table, figures)
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    write_figures(out, figures)
    write_whole(out / "table_1.csv", _table_csv(sets, table))
    write_whole(out / "agreement.html", page)
    write_json(out / "agreement.json", record)
    return record


def _clear(out: Path) -> None:
    figures = [path for split in SPLITS for kind in ("png", "svg")
               for path in out.glob(FIGURE_PATTERN.format(split=split, kind=kind))]
    for path in [*(out / name for name in FILES), *figures]:
        path.unlink(missing_ok=True)


def to_record(cohort: Cohort, sets: Sequence[SetStatistics], table: Sequence[TableRow], figures: Sequence[Drawing],
              source: str, applied: Applied | None = None) -> dict[str, Any]:
    """The content of agreement.json, schema version 1; null where the data do not allow a number.

    Fields: schema_version; software; source; people: total, paired, synthetic, missing {column: count}; limits_mg_cm3
    [80, 120]; confidence (of every low and high); difference (AI minus QCT); table_1[]: name, unit, known {set: n},
    values {set: [mean, SD] or [count, share]}, row (test, statistic, p and what it rests on), reason; sets {training,
    test}: n, left_out, below, and each statistic of SetStatistics by its name, with reasons {statistic, or "all": sentence}
    where one is null, and notes likewise; calibration: null, or what was applied: file, without_hu and elsewhere (people),
    and its fields; findings[] and statements[]: sentences; figures[]: name, title, caption. Densities in mg/cm3.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "software": {"name": "LowDoseBMD", "version": __version__},
        "source": source,
        "people": {"total": len(cohort), "paired": int(np.count_nonzero(cohort.paired)),
                   "synthetic": int(np.count_nonzero(cohort.synthetic)), "missing": dict(cohort.missing)},
        "limits_mg_cm3": list(LIMITS_MG_CM3),
        "confidence": 0.95,
        "difference": "AI minus QCT",
        "table_1": plain(table),
        "sets": {found.split: _set_record(found) for found in sets},
        "calibration": _calibration_record(applied),
        "findings": findings(cohort, sets, applied),
        "statements": list(STATEMENTS),
        "figures": [{"name": figure.name, "title": figure.title, "caption": figure.caption} for figure in figures],
    }


def _calibration_record(applied: Applied | None) -> dict[str, Any] | None:
    if applied is None:
        return None
    return {"file": applied.file, "without_hu": applied.without_hu, "elsewhere": applied.elsewhere,
            **calibration_to_dict(applied.calibration)}


def _set_record(found: SetStatistics) -> dict[str, Any]:
    names = [entry.name for entry in dataclasses.fields(found) if entry.name not in ("split", "measured", "reference")]
    return plain({"n": found.n, "below": found.below, **{name: getattr(found, name) for name in names}})


def _table_csv(sets: Sequence[SetStatistics], table: Sequence[TableRow]) -> str:
    """Table 1 as the page shows it."""
    return csv_text(baseline_columns(sets), baseline_view(sets, table))


def summary(record: Mapping[str, Any]) -> str:
    """The main numbers in a few lines of text, with what stands against them."""
    lines = [line for split, found in record["sets"].items() for line in _set_lines(split, found)]
    return typed("\n".join([*lines, *record["findings"]]))


def _set_lines(split: str, found: Mapping[str, Any]) -> list[str]:
    lines = [f"{split} set, n = {found['n']}, {found['below']} below {found['limit']:.0f} mg/cm3 by QCT"]
    for title, name, digits in (("Spearman r", "spearman", 3), ("ICC(A,1)", "icc_agreement", 3)):
        if found[name]:
            lines.append(f"  {title} {_ci(found[name], digits)}")
    if found["bland_altman"]:
        result = found["bland_altman"]
        limits = between(result["lower"]["value"], result["upper"]["value"], 2)
        lines.append(f"  bias {_ci(result['bias'], 2)} mg/cm3, 95 % limits of agreement {limits}, "
                     f"{result['outside']}/{result['n']} outside")
    if found["roc"]:
        lines.append(f"  AUC {_ci(found['roc']['auc'], 3)}")
    if found["diagnostic"]:
        parts = [(name, found["diagnostic"][name]) for name in ("sensitivity", "specificity", "accuracy")]
        lines.append("  " + ", ".join(f"{name} {percent(part['value'])} ({part['count']}/{part['of']})"
                                      for name, part in parts if part["of"]))
    if found["coverage"] and found["coverage"]["of"]:
        part = found["coverage"]
        lines.append(f"  QCT within the 95 % interval {percent(part['value'])} ({part['count']}/{part['of']}), Wilson "
                     f"{between(100 * part['wilson']['low'], 100 * part['wilson']['high'], 1)}")
    return [*lines, *(f"  no {STATISTIC_TITLES[name]}: {reason}" for name, reason in found["reasons"].items())]


def _ci(found: Mapping[str, Any], digits: int) -> str:
    return f"{number(found['value'], digits)} ({between(found['low'], found['high'], digits)})"
