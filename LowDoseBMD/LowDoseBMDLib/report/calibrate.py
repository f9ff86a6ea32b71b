"""The report of a fitted calibration: every model on people left out of its fit, the one recommended, and why.

Writes calibrate.html, calibrate.json and the figures; the calibration itself is written by the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..calibration import Calibration, calibration_to_dict
from ..calibration_choice import TITLES, Candidate, Comparison
from ..calibration_fit import (
    FEWEST_SCANNERS,
    PENALTIES,
    QCT_ERROR_SD_MG_CM3,
    SCANNER_SD_HU,
    SPINE_ERROR_SD_HU,
    FitSettings,
)
from ..calibration_people import TrainingPeople, names_of
from ..files.atomic import write_whole
from ..measurement import OSTEOPOROSIS_BELOW_MG_CM3
from .calibrate_figures import draw_figures
from .calibrate_page import render_page
from .numbers import between, number, percent, typed
from .study_page import write_figures
from .tables import plain, write_json

SCHEMA_VERSION = 1
"""Of calibrate.json; raised when a field changes its meaning or goes, not when one is added."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that a report tells of. chosen: kind that is written, calibration: what is written."""

    training: TrainingPeople
    settings: FitSettings
    comparison: Comparison
    chosen: str
    calibration: Calibration
    source: str


def to_record(fitted: Fitted) -> dict[str, Any]:
    """The content of calibrate.json, schema version 1; null where the data do not allow a number.

    Fields: schema_version; software; source; date; training: people, below (80 mg/cm3 by QCT), lowest, highest, kvp,
    scanners, kernels, synthetic, roi_errors_known {column: people}, left_out {why: people}; qct_line (null: the Deming line
    of QCT on the HU of bone); cross_validation: folds, seed; models[]: kind, title, performance (calibration_choice.
    Performance), shift_mg_cm3_per_hu, calibration (as in its file); failed {kind: why}; recommended and chosen: kinds;
    reason: of the recommendation; calibration: the one written; warnings[], statements[]: sentences. Densities in mg/cm3.
    """
    people, found, settings = fitted.training.people, fitted.comparison, fitted.settings
    reference = people.reference_mg_cm3
    return {
        "schema_version": SCHEMA_VERSION,
        "software": {"name": "LowDoseBMD", "version": __version__},
        "source": fitted.source,
        "date": settings.date,
        "training": {
            "people": len(people), "below": int(np.count_nonzero(reference < OSTEOPOROSIS_BELOW_MG_CM3)),
            "lowest": float(reference.min()), "highest": float(reference.max()), "kvp": settings.kvp,
            "scanners": names_of(people.scanner), "kernels": names_of(people.kernel),
            "synthetic": int(np.count_nonzero(people.synthetic)),
            "roi_errors_known": {name: int(np.count_nonzero(np.isfinite(getattr(people, name))))
                                 for name in ("spine_se_hu", "muscle_se_hu", "fat_se_hu")},
            "left_out": dict(fitted.training.left_out)},
        "qct_line": plain(settings.qct_line),
        "cross_validation": {"folds": found.folds, "seed": found.seed},
        "models": [_model(one) for one in found.candidates.values()],
        "failed": dict(found.failed),
        "recommended": found.recommended,
        "reason": found.reason,
        "chosen": fitted.chosen,
        "calibration": calibration_to_dict(fitted.calibration),
        "warnings": [*_overridden(fitted), *fitted.training.warnings,
                     *(f"{TITLES[kind]} could not be fitted: {why}." for kind, why in found.failed.items())],
        "statements": _statements(fitted),
    }


def _model(one: Candidate) -> dict[str, Any]:
    return {"kind": one.kind, "title": TITLES[one.kind], "performance": plain(one.performance),
            "shift_mg_cm3_per_hu": one.shift_mg_cm3_per_hu, "calibration": calibration_to_dict(one.calibration)}


def _overridden(fitted: Fitted) -> list[str]:
    if fitted.chosen == fitted.comparison.recommended:
        return []
    return [f"The file holds {TITLES[fitted.chosen]}, as was asked for, not the recommended "
            f"{TITLES[fitted.comparison.recommended]}."]


def _statements(fitted: Fitted) -> list[str]:
    found, line = fitted.comparison, fitted.settings.qct_line
    read = (f"the line of the QCT phantom, {line.slope_mg_cm3_per_hu:g} mg/cm³ per HU and {line.intercept_mg_cm3:g} mg/cm³, "
            "taken as exact" if line else
            "the Deming line of QCT on the HU of bone, as no line of a QCT phantom was given (errors of "
            f"{QCT_ERROR_SD_MG_CM3:g} mg/cm³ and {SPINE_ERROR_SD_HU:g} HU, a judgement that hardly matters)")
    return [
        "This is research software, not a medical device. Its values cannot be used to rule out low bone density, "
        "whatever the calibration.",
        f"Every number of the table is of training people, each judged by a model fitted without them: {found.folds} folds, "
        "constants and penalties fitted anew in each. The test set was not used. Hold the finished calibration against it "
        "once, with lowdosebmd agree --calibration.",
        f"Two-point with site constants: muscle and fat HU are read through {read}.",
        f"Regression: of {len(PENALTIES)} penalties on muscle and fat each fit takes the one that predicts best when each "
        "of its own people is left out in turn.",
        f"Two-point with shrunk tissue: from {FEWEST_SCANNERS} scanners on, how far scanners differ comes from the cohort; "
        f"with fewer, a scanner is taken to have moved by {SCANNER_SD_HU:g} HU (SD, a judgement: 1 to 2 HU a year).",
        "Rescaled spreads the values as QCT's are spread. It finds more of the people below the limit, at a larger error "
        "of the single value; --model rescaled writes it.",
        "95 % intervals hold the errors of the regions, how muscle and fat differ between people, the covariance of the "
        "fitted constants, and a residual SD from people left out of the fit, less the parts before. Where the cohort does "
        "not tell errors of the regions, the residual holds them; later intervals hold them again and err on the wide side.",
        "QCT is itself a measurement with an error, which every difference contains.",
    ]


def write_report(fitted: Fitted, out: Path) -> dict[str, Any]:
    """Write calibrate.json, calibrate.html and the figures as PNG and SVG to the folder; returns the record."""
    record = to_record(fitted)
    figures = list(draw_figures(fitted.comparison, fitted.chosen))
    page = render_page(record, figures)
    out.mkdir(parents=True, exist_ok=True)
    write_figures(out, figures)
    write_whole(out / "calibrate.html", page)
    write_json(out / "calibrate.json", record)
    return record


def summary(record: Mapping[str, Any]) -> str:
    """The models in a table, the recommendation and the warnings, as text for a terminal."""
    rows = [("", "bias", "95 % limits", "slope", "ICC(A,1)", "sensitivity at 80", "specificity", "in interval", "per HU"),
            *(_row(model, record) for model in record["models"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    training = record["training"]
    heading = (f"{training['people']} training people, {training['below']} below {OSTEOPOROSIS_BELOW_MG_CM3:.0f} mg/cm³ by "
               f"QCT; {record['cross_validation']['folds']} folds; the test set was not used")
    return typed("\n".join([heading, *table, record["reason"], *record["warnings"]]))


def _row(model: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, ...]:
    found = model["performance"]
    result, table = found["bland_altman"], found["diagnostic"]
    mark = " *" if model["kind"] == record["chosen"] else ""
    return (model["title"] + mark, number(result["bias"]["value"], 1),
            between(result["lower"]["value"], result["upper"]["value"], 1), number(found["slope"], 3),
            number(found["icc_agreement"]["value"], 3), _share(table["sensitivity"]), percent(table["specificity"]["value"]),
            percent(found["coverage"]["value"]), number(model["shift_mg_cm3_per_hu"], 2))


def _share(found: Mapping[str, Any]) -> str:
    return f"{percent(found['value'])} ({found['count']}/{found['of']})"
