"""A synthetic cohort of images: each person of cohort_synthesis as a phantom CT, measured as any CT is.

The people, and the true HU of their bone, muscle and fat, are those of synthetic_cohort with the same kind, count and
seed: what differs between the two cohorts is what images do. Each person is measured in a process of its own
(cohort_person.py); what is done is kept in a manifest, so that a run that was ended goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .calibration import Calibration, TwoPointCalibration, calibration_from_dict, calibration_to_dict
from .cohort import Cohort, write_cohort
from .cohort_image_errors import summarise, write_truth
from .cohort_synthesis import BMI_KG_M2, HEIGHT_CM, KINDS, osteophyte_severity, synthetic_cohort
from .files.atomic import write_whole
from .manifest import Manifest
from .phantom import PhantomSpec
from .runner import DONE, Outcome, Task, run_tasks

PERSON_MODULE = f"{__package__}.cohort_person"
SETTINGS_FILE, MANIFEST_FILE, COHORT_FILE, TRUTH_FILE, SUMMARY_FILE, PEOPLE_FOLDER = (
    "settings.json", "manifest.jsonl", "cohort.csv", "truth.csv", "summary.json", "people")

FAT_MM = {"F": 18.0, "M": 15.0}
"""Subcutaneous fat of the abdomen at the mean BMI of a sex: the phantom's mean thickness."""
FAT_MM_PER_KG_M2 = 2.0
"""How much thicker it is for each kg/m2 (judgement; the spread of BMI then gives most of the phantom's spread)."""
FAT_LIMITS_MM = (7.0, 38.0)
"""The thinnest and thickest that the phantom draws itself."""

SEEDS_APART = 1_000_000
"""Between the phantoms' seeds of two cohorts' seeds, so that no two cohorts share an anatomy."""


@dataclass(frozen=True)
class ImageCohort:
    """What decides a cohort of images. kind: of cohort_synthesis.KINDS. calibration None: the literature's two-point line.

    Raises ValueError for a kind without HU, fewer than 2 people, or more than SEEDS_APART.
    """

    count: int
    seed: int = 1
    kind: str = "literature"
    calibration: Calibration | None = None
    spacing_mm: tuple[float, float, float] = PhantomSpec.spacing_mm

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there are no images of the kind {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not 2 <= self.count < SEEDS_APART:
            raise ValueError(f"{self.count} people in images: give a number from 2 to {SEEDS_APART - 1}")
        if self.seed < 0:
            raise ValueError(f"the seed is {self.seed}; give a whole number from 0 on")

    def to_json(self) -> str:
        """Of the settings file; names the program's version, as people measured by two do not belong together."""
        calibration = self.calibration and calibration_to_dict(self.calibration)
        data = {"version": __version__, "count": self.count, "seed": self.seed, "kind": self.kind,
                "calibration": calibration, "spacing_mm": list(self.spacing_mm)}
        return json.dumps(data, indent=1) + "\n"

    @staticmethod
    def of_json(text: str) -> ImageCohort:
        """Raises ValueError when the text is none of to_json."""
        try:
            data = json.loads(text)
            calibration = data["calibration"] and calibration_from_dict(data["calibration"])
            return ImageCohort(data["count"], data["seed"], data["kind"], calibration, tuple(data["spacing_mm"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"these are no settings of a cohort of images ({error})") from None

    @property
    def used_calibration(self) -> Calibration:
        return self.calibration or TwoPointCalibration()

    def people(self) -> Cohort:
        """Everybody with their true HU; measured_mg_cm3 is what the calibration makes of those."""
        scatter, scanner = KINDS[self.kind]
        return synthetic_cohort(self.count, self.seed, scatter, (scanner,), self.used_calibration)

    def phantom(self, people: Cohort, place: int) -> PhantomSpec:
        """The specification of the person at a place of people(). L1 and L2 have the person's vBMD and HU on average."""
        _, scanner = KINDS[self.kind]
        sex, bmi = str(people.sex[place]), float(people.bmi_kg_m2[place])
        vbmd, line = float(people.reference_mg_cm3[place]), (scanner.slope_mg_cm3_per_hu, scanner.intercept_mg_cm3)
        fat_mm = FAT_MM[sex] + FAT_MM_PER_KG_M2 * (bmi - BMI_KG_M2[sex][0])
        return PhantomSpec(
            age=float(people.age_years[place]), sex=sex.lower(), seed=self.seed * SEEDS_APART + place + 1,
            spacing_mm=self.spacing_mm, scale=float(people.height_cm[place]) / HEIGHT_CM[sex][0],
            fat_thickness_mm=float(np.clip(fat_mm, *FAT_LIMITS_MM)),
            osteophytes=float(osteophyte_severity(people.age_years, self.seed)[place]), mean_vbmd_mg_cm3=vbmd,
            muscle_hu=float(people.muscle_hu[place]), fat_hu=float(people.fat_hu[place]), scanner_line=line,
            trabecular_shift_hu=float(people.spine_hu[place]) - (vbmd - line[1]) / line[0])


def run_image_cohort(folder: Path, cohort: ImageCohort, report: Callable[[dict[str, Any]], None],
                     workers: int = 1) -> dict[str, Any]:
    """Measure everybody who is not measured yet and write the cohort; returns the content of summary.json.

    Leaves settings.json, manifest.jsonl, people/ID/ (the results of each, without the CT), and when all are done
    cohort.csv (read_cohort), truth.csv and summary.json. report is called with the manifest's entry of each person as
    it ends. People whose process failed are tried again by the next run. Raises ValueError when the folder holds
    another cohort, or one that another process is measuring; OSError when it cannot be written.
    """
    with Manifest(folder / MANIFEST_FILE) as manifest:
        _claim(folder, cohort)
        people = cohort.people()
        done = {key for key, entry in manifest.latest().items() if entry["status"] == DONE}
        tasks = [Task(key, (str(folder.absolute()), str(place))) for place, key in enumerate(people.id.tolist())
                 if key not in done]

        def keep(outcome: Outcome) -> None:
            entry = {name: getattr(outcome, name) for name in ("key", "status", "message", "seconds", "peak_memory_mb",
                                                               "result")}
            manifest.append(entry)
            report(entry)

        run_tasks(PERSON_MODULE, tasks, keep, workers)
        return _gather(folder, cohort, people, manifest.latest())


def _claim(folder: Path, cohort: ImageCohort) -> None:
    """Write the settings, or see that those there are the same."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        write_whole(path, cohort.to_json())
    elif path.read_text(encoding="utf-8") != cohort.to_json():
        raise ValueError(f"{folder} holds people drawn or measured with other settings (see {SETTINGS_FILE}); give the same "
                         "settings to go on there, or choose another folder")


def _gather(folder: Path, cohort: ImageCohort, people: Cohort, entries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    rows = [entries[key] for key in people.id.tolist()]
    write_cohort(folder / COHORT_FILE, measured_cohort(people, rows))
    write_truth(folder / TRUTH_FILE, people, rows)
    summary = {"settings": json.loads(cohort.to_json()), **summarise(people, rows, cohort.used_calibration)}
    write_whole(folder / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
    return summary


def measured_cohort(people: Cohort, rows: list[dict[str, Any]]) -> Cohort:
    """The people with what the images gave; unknown for those refused or failed.

    rows: entries of the manifest in the people's order. reference_mg_cm3 stays the true mean of L1 and L2, which a QCT
    reads, whatever levels were measured.
    """
    names = ("measured_mg_cm3", "spine_hu", "muscle_hu", "fat_hu", "spine_se_hu", "muscle_se_hu", "fat_se_hu")
    return replace(people, **{name: column_of(rows, name) for name in names})


def column_of(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """(N,) one number of every person's result; NaN where there is none."""
    values = ((row["result"] or {}).get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], float)
