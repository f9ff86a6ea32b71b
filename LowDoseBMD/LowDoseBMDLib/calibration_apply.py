"""A calibration applied to a cohort's HU: its densities, their intervals, and for whom it was not made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .agreement import Z95
from .calibration import Calibration
from .calibration_match import match
from .cohort import Cohort
from .ctvolume import Acquisition
from .diagnostics import Proportion, proportion
from .measurement import LEAST_CONTRAST_HU


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N people: predicted, sd: (N,) mg/cm3."""

    predicted: np.ndarray
    sd: np.ndarray


@dataclass(frozen=True, eq=False)
class Applied:
    """cohort: its measured densities are this calibration's, NaN without the HU that it needs. sd: (N,) mg/cm3.

    without_hu: people whose density cannot be computed; muscle and fat too close, as a measurement refuses them, are among
    them. elsewhere: people scanned with another tube voltage or scanner than the calibration was fitted on.
    """

    calibration: Calibration
    file: str
    cohort: Cohort
    sd_mg_cm3: np.ndarray
    without_hu: int
    elsewhere: int


def predict(calibration: Calibration, people: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """(N,) vBMD and its (N,) variance from the people's HU; standard errors that are unknown count as 0."""
    hu = (people.spine_hu, people.muscle_hu, people.fat_hu)
    errors = (np.nan_to_num(getattr(people, name)) for name in ("spine_se_hu", "muscle_se_hu", "fat_se_hu"))
    return calibration.vbmd(*hu), np.broadcast_to(calibration.variance(*hu, *errors).total, (len(people),))


def coverage(prediction: Prediction, reference: np.ndarray) -> Proportion:
    """Share of the (N,) QCT densities that lie within the 95 % interval."""
    inside = np.abs(prediction.predicted - reference) <= Z95 * prediction.sd
    return proportion(int(np.count_nonzero(inside)), len(reference))


def apply(calibration: Calibration, cohort: Cohort, file: str = "") -> Applied:
    """Measure everybody anew from their HU. file: what reports call the calibration's file.

    Raises ValueError when nobody has the HU that the calibration needs.
    """
    apart = cohort.muscle_hu - cohort.fat_hu >= LEAST_CONTRAST_HU
    known = np.isfinite(cohort.spine_hu) & (apart | (not calibration.needs_tissue))
    with np.errstate(divide="ignore", invalid="ignore"):
        vbmd, variance = predict(calibration, cohort)
    measured = np.where(known, vbmd, np.nan)
    if np.isnan(measured).all():
        needed = "bone, muscle and fat" if calibration.needs_tissue else "bone"
        raise ValueError(f"nobody in the cohort has the HU of {needed} that the calibration needs; add the columns, or "
                         "leave --calibration out")
    return Applied(calibration, file, replace(cohort, measured_mg_cm3=measured), np.sqrt(variance),
                   int(np.count_nonzero(np.isnan(measured))), _elsewhere(calibration, cohort))


def _elsewhere(calibration: Calibration, cohort: Cohort) -> int:
    scans = list(zip(cohort.kvp.tolist(), cohort.scanner.tolist(), strict=True))
    other = {scan for scan in set(scans) if match(calibration, Acquisition(
        kvp=scan[0] if np.isfinite(scan[0]) else None, scanner=scan[1] or None)).contradicts}
    return sum(scan in other for scan in scans)
