"""What the images of a synthetic cohort add to its numbers: errors of HU and vBMD against the truth, refusals, and time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .calibration import Calibration
from .cohort import Cohort
from .cohort_columns import HU_COLUMNS
from .files.atomic import write_whole
from .report.tables import csv_text

OTHER_VERTEBRA_MM = 15.0
"""A centre farther from the true one than this is of another vertebra: those of T12, L1 and L2 lie 32 mm and more apart."""

_TRUTH = ("id", "status", "mean_of", "true_mg_cm3", "measured_mg_cm3", "from_true_hu_mg_cm3", "true_spine_hu", "spine_hu",
          "true_muscle_hu", "muscle_hu", "true_fat_hu", "fat_hu", "level_offset_mm", "seconds", "reason")


def write_truth(path: Path, people: Cohort, rows: list[dict[str, Any]]) -> None:
    """Write truth.csv, a row for each person: what is true beside what was measured.

    people: with their true HU, as ImageCohort.people. rows: entries of the manifest in their order. true_spine_hu is of the
    levels measured, else of L1 and L2; from_true_hu_mg_cm3 is what the calibration makes of the true HU.
    """
    write_whole(path, csv_text(_TRUTH, (_truth_row(people, place, row) for place, row in enumerate(rows))))


def _truth_row(people: Cohort, place: int, row: dict[str, Any]) -> list[Any]:
    result = row["result"] or {}
    true = {name: float(getattr(people, name)[place]) for name in HU_COLUMNS}
    return [people.id[place], status_of(row), " ".join(result.get("mean_of", [])), people.reference_mg_cm3[place],
            result.get("measured_mg_cm3"), people.measured_mg_cm3[place],
            true["spine_hu"] if result.get("true_spine_hu") is None else result["true_spine_hu"], result.get("spine_hu"),
            true["muscle_hu"], result.get("muscle_hu"), true["fat_hu"], result.get("fat_hu"), result.get("level_offset_mm"),
            row["seconds"], " ".join(reasons_of(row))]


def status_of(row: dict[str, Any]) -> str:
    """measured, refused, or how the process of this person ended without a result."""
    return row["result"]["status"] if row["status"] == "done" else row["status"]


def reasons_of(row: dict[str, Any]) -> list[str]:
    """Why there is no number, in sentences; empty when there is one."""
    return row["result"]["reasons"] if row["status"] == "done" else [row["message"].partition("\n")[0]]


def summarise(people: Cohort, rows: list[dict[str, Any]], calibration: Calibration) -> dict[str, Any]:
    """Counts by status, reasons with their counts, image_errors and seconds_per_study.

    image_errors: measured less true, as count, mean and sd: of spine_hu (the levels measured), muscle_hu and fat_hu, and of
    vbmd_mg_cm3 against what the calibration makes of the true HU. other_vertebra: how many were measured at another
    vertebra than was thought. seconds_per_study: median of the whole process and of each stage, and each stage's share of
    all time.
    """
    measured = [(place, row["result"]) for place, row in enumerate(rows) if status_of(row) == "measured"]
    reasons = Counter(reason for row in rows for reason in reasons_of(row))
    return {"people": len(people), "status": dict(Counter(map(status_of, rows))), "reasons": dict(reasons),
            "other_vertebra": sum(result["level_offset_mm"] > OTHER_VERTEBRA_MM for _, result in measured),
            "image_errors": _errors(people, measured, calibration), "seconds_per_study": _times(rows)}


def _errors(people: Cohort, measured: list[tuple[int, dict[str, Any]]], calibration: Calibration) -> dict[str, Any]:
    places = [place for place, _ in measured]

    def found(name: str) -> np.ndarray:
        return np.array([result[name] for _, result in measured], float)

    true = found("true_spine_hu"), people.muscle_hu[places], people.fat_hu[places]
    return {"spine_hu": _spread(found("spine_hu") - true[0]), "muscle_hu": _spread(found("muscle_hu") - true[1]),
            "fat_hu": _spread(found("fat_hu") - true[2]),
            "vbmd_mg_cm3": _spread(found("measured_mg_cm3") - calibration.vbmd(*true))}


def _spread(values: np.ndarray) -> dict[str, float | int | None]:
    """count, mean and sd; None where too few are there to tell."""
    return {"count": len(values), "mean": round(float(values.mean()), 2) if len(values) else None,
            "sd": round(float(values.std(ddof=1)), 2) if len(values) > 1 else None}


def _times(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "done"]
    stages = list(dict.fromkeys(name for row in done for name in row["result"]["seconds"]))
    total = sum(row["seconds"] for row in done)
    spent = {name: np.array([row["result"]["seconds"].get(name, 0.0) for row in done]) for name in stages}
    if done:
        spent["starting and writing"] = np.array([row["seconds"] - sum(row["result"]["seconds"].values()) for row in done])
    return {"median": round(float(np.median([row["seconds"] for row in done])), 1) if done else None,
            "stages": {name: {"median": round(float(np.median(part)), 2), "share": round(float(part.sum()) / total, 3)}
                       for name, part in spent.items()}}
