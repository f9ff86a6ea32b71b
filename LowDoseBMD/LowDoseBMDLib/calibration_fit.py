"""Calibrations fitted on people who have QCT too: one function for each model, all with the covariance of what they fit.

Every function takes training people (calibration_people.training_people) and refuses people of the test set. The
residual SD stays 0 here: it comes from people held out of the fit (calibration_choice).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .agreement import deming, deming_without_each
from .calibration import SITE, SYNTHETIC, Calibration, TwoPointCalibration
from .calibration_models import (
    LineCalibration,
    RegressionCalibration,
    RescaledCalibration,
    ShrunkTwoPointCalibration,
)
from .calibration_people import names_of
from .cohort import Cohort

QCT_ERROR_SD_MG_CM3 = 3.0
SPINE_ERROR_SD_HU = 4.0
"""Errors of QCT and of the bone's HU, whose ratio the Deming line needs where no phantom's line is given. 3 mg/cm3 is what
the reconstruction kernel alone does to QCT (Eur Radiol Exp 2024, 10.1186/s41747-024-00483-9); 4 HU: judgement. At the
correlations of CT with QCT (above 0.95) the slope hardly depends on it."""

SCANNER_SD_HU = 2.0
"""How far a scanner's HU may have moved since the fit, where the cohort cannot tell: scanners drift by 0.6 to 2.3 HU a year
(PMC6682570). Judgement."""
FEWEST_SCANNERS = 3
"""From so many on, the spread between the scanners of a cohort is estimated from it."""

PENALTIES = (0.0, *np.logspace(-4, 2, 13))
"""Ridge penalties tried, for each person, on muscle and fat in units of their SD: from none to so much that both are as
good as left out."""


@dataclass(frozen=True)
class QctLine:
    """The line of the QCT phantom on this scanner: vBMD = slope * HU + intercept. Raises ValueError for a falling one."""

    slope_mg_cm3_per_hu: float
    intercept_mg_cm3: float

    def __post_init__(self) -> None:
        if not (0 < self.slope_mg_cm3_per_hu < math.inf and math.isfinite(self.intercept_mg_cm3)):
            raise ValueError(f"a QCT line of slope {self.slope_mg_cm3_per_hu:g} and intercept {self.intercept_mg_cm3:g} "
                             "cannot be; give both as numbers, the slope in mg/cm3 per HU above 0, as in 0.80,8.1")


@dataclass(frozen=True)
class FitSettings:
    """What a fit is told. date: of the fit, ISO. reference: the QCT method in words."""

    kvp: float
    date: str = ""
    reference: str = "QCT"
    qct_line: QctLine | None = None


Fit = Callable[[Cohort, FitSettings], Calibration]


def fit_two_point(people: Cohort, settings: FitSettings) -> TwoPointCalibration:
    """Two-point line whose densities are the tissues' HU read through a QCT line: MD = mean(a + b M), FD likewise.

    The line is the phantom's, taken as exact, or the Deming line of QCT on the bone's HU; covariance by the jackknife
    over people, in which the Deming line is fitted anew each time. Why not by regression on vertebrae: that attenuates
    the constants, because muscle and fat err too.
    """
    people = _training(people)
    muscle, fat = people.muscle_hu, people.fat_hu
    if settings.qct_line is not None:
        slope, intercept = settings.qct_line.slope_mg_cm3_per_hu, settings.qct_line.intercept_mg_cm3
        slopes, intercepts, name = slope, intercept, "the phantom's line"
    else:
        pair, ratio = (people.spine_hu, people.reference_mg_cm3), (QCT_ERROR_SD_MG_CM3 / SPINE_ERROR_SD_HU) ** 2
        line = deming(*pair, ratio)
        slope, intercept = line.slope.value, line.intercept.value
        (slopes, intercepts), name = deming_without_each(*pair, ratio), "the Deming line"
    variance = _jackknife_covariance(*(intercepts + slopes * _means_without_each(tissue) for tissue in (muscle, fat)))
    facts = _facts(people, settings, "Two-point, site constants")
    facts["reference"] += f"; muscle and fat read through {name} {slope:.4f} HU {intercept:+.2f}"
    return TwoPointCalibration(
        **facts, **_biology(people),
        muscle_mg_cm3=float(intercept + slope * muscle.mean()), fat_mg_cm3=float(intercept + slope * fat.mean()),
        muscle_variance=float(variance[0, 0]), fat_variance=float(variance[1, 1]), covariance=float(variance[0, 1]))


def fit_line(people: Cohort, settings: FitSettings) -> LineCalibration:
    """Least squares of QCT on the bone's HU."""
    people = _training(people)
    found, covariance = _least_squares(np.column_stack([np.ones(len(people)), people.spine_hu]), people.reference_mg_cm3)
    return LineCalibration(
        **_facts(people, settings, "Site line"), residual_sd_mg_cm3=0.0,
        intercept_mg_cm3=float(found[0]), slope_mg_cm3_per_hu=float(found[1]), intercept_variance=float(covariance[0, 0]),
        slope_variance=float(covariance[1, 1]), covariance=float(covariance[0, 1]))


def fit_regression(people: Cohort, settings: FitSettings) -> RegressionCalibration:
    """Ridge regression of QCT on the HU of bone, muscle and fat. The penalty is on muscle and fat only.

    Of PENALTIES the one with the least error of prediction when each of these people is left out (PRESS, in closed
    form). Covariance: s^2 A^-1 X'X A^-1 with A = X'X + P and s^2 over n less the trace of the hat matrix.
    """
    people = _training(people)
    x = np.column_stack([people.spine_hu, people.muscle_hu, people.fat_hu])
    ridges = [ridge(x, people.reference_mg_cm3, penalty) for penalty in PENALTIES]
    best = min(ridges, key=lambda found: found.left_out_error)
    return RegressionCalibration(
        **_facts(people, settings, "Site regression"), residual_sd_mg_cm3=0.0,
        **dict(zip(("intercept_mg_cm3", "spine_mg_cm3_per_hu", "muscle_mg_cm3_per_hu", "fat_mg_cm3_per_hu"),
                   best.coefficients.tolist(), strict=True)),
        coefficient_covariance=tuple(map(tuple, best.covariance.tolist())))


def fit_shrunk_two_point(people: Cohort, settings: FitSettings) -> ShrunkTwoPointCalibration:
    """Two-point line with muscle and fat drawn towards the cohort's means; its constants by least squares of QCT.

    With M*, F* and t = (S - M*)/(M* - F*), QCT = MD (1 + t) - FD t. The scanner's SD is that between the cohort's
    scanners, from FEWEST_SCANNERS on, else SCANNER_SD_HU.
    """
    people = _training(people)
    facts = {**_facts(people, settings, "Two-point, shrunk tissue"), **_biology(people),
             "muscle_scanner_sd_hu": scanner_sd_hu(people.muscle_hu, people.scanner),
             "fat_scanner_sd_hu": scanner_sd_hu(people.fat_hu, people.scanner)}
    # Any line has this curve's t: read off with muscle 1, fat 0 mg/cm3, the density is 1 + t.
    unit = ShrunkTwoPointCalibration(**facts, muscle_mg_cm3=1.0, fat_mg_cm3=0.0)
    t = unit.vbmd(people.spine_hu, people.muscle_hu, people.fat_hu) - 1
    found, covariance = _least_squares(np.column_stack([1 + t, -t]), people.reference_mg_cm3)
    return ShrunkTwoPointCalibration(
        **facts, muscle_mg_cm3=float(found[0]), fat_mg_cm3=float(found[1]), muscle_variance=float(covariance[0, 0]),
        fat_variance=float(covariance[1, 1]), covariance=float(covariance[0, 1]))


def fit_rescaled(people: Cohort, settings: FitSettings, base: Fit) -> RescaledCalibration:
    """The base model, its values spread as QCT's are: v' = mean_q + (s_q / s_p)(v - mean_p)."""
    people = _training(people)
    model, reference = base(people, settings), people.reference_mg_cm3
    predicted = model.vbmd(people.spine_hu, people.muscle_hu, people.fat_hu)
    slope = float(reference.std() / predicted.std())
    return RescaledCalibration(**_facts(people, settings, "Spread as QCT, for classes"), base=model, slope=slope,
                               intercept_mg_cm3=float(reference.mean() - slope * predicted.mean()))


PREDICTIONS: dict[str, Fit] = {"line": fit_line, "regression": fit_regression, "shrunk_two_point": fit_shrunk_two_point,
                               "two_point": fit_two_point}
"""Models that aim at the least error, by kind; those that lean least on muscle and fat first."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """coefficients (1 + K,), the intercept first; covariance (1 + K, 1 + K); left_out_error: PRESS."""

    coefficients: np.ndarray
    covariance: np.ndarray
    left_out_error: float


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> Ridge:
    """Least squares of y (N,) on x (N, K) with penalty * N * sum of (coefficient * SD)^2 over all columns but the first.

    A column without spread gets the coefficient 0.
    """
    n, mean = len(y), x.mean(axis=0)
    centred, target = x - mean, y - y.mean()
    squares = centred.T @ centred
    inverse = np.linalg.pinv(squares + penalty * np.diag(np.diag(squares) * (np.arange(x.shape[1]) > 0)), hermitian=True)
    slopes = inverse @ (centred.T @ target)
    hat = 1 / n + np.einsum("ij,jk,ik->i", centred, inverse, centred)
    residual = target - centred @ slopes
    noise = float(residual @ residual) / (n - hat.sum())
    to_origin = np.vstack([-mean, np.eye(x.shape[1])])  # the intercept moves by -mean * slopes
    covariance = noise * to_origin @ inverse @ squares @ inverse @ to_origin.T
    covariance[0, 0] += noise / n
    return Ridge(np.concatenate([[y.mean() - mean @ slopes], slopes]), (covariance + covariance.T) / 2,
                 float(np.mean((residual / (1 - hat)) ** 2)))


def scanner_sd_hu(values: np.ndarray, scanners: np.ndarray) -> float:
    """SD of the scanners' own HU, (N,) values of people on (N,) scanners: one-way analysis of variance by moments.

    SCANNER_SD_HU for fewer than FEWEST_SCANNERS.
    """
    groups = [values[scanners == name] for name in np.unique(scanners)]
    if len(groups) < FEWEST_SCANNERS or len(groups) == len(values):
        return SCANNER_SD_HU
    sizes = np.array([len(group) for group in groups])
    means = np.array([group.mean() for group in groups])
    between = float(np.sum(sizes * (means - values.mean()) ** 2)) / (len(groups) - 1)
    within = _within_variance(values, scanners)
    size = (sizes.sum() - np.sum(sizes**2) / sizes.sum()) / (len(groups) - 1)
    return math.sqrt(max(0.0, (between - within) / size))


def _training(people: Cohort) -> Cohort:
    if strangers := int(np.count_nonzero(people.split != "training")):
        raise ValueError(f"{strangers} of {len(people)} people are of the test set; a calibration is fitted on training "
                         "people only: choose them with training_people")
    return people


def _facts(people: Cohort, settings: FitSettings, title: str) -> dict[str, Any]:
    """The fields that tell where a calibration comes from."""
    days, scanners = sorted(filter(None, people.scan_date.tolist())), names_of(people.scanner)
    synthetic = " (synthetic people)" if people.synthetic.any() else ""
    return {
        "name": f"{title}, {', '.join([*scanners, f'{settings.kvp:g} kV'])}{synthetic}",
        "kvp": settings.kvp, "scanner": ";".join(scanners), "kernel": ";".join(names_of(people.kernel)),
        "cohort_size": len(people), "date": settings.date, "status": SYNTHETIC if synthetic else SITE,
        "reference": settings.reference,
        "scans_from": days[0] if days else "", "scans_to": days[-1] if days else "",
        "lowest_mg_cm3": float(people.reference_mg_cm3.min()), "highest_mg_cm3": float(people.reference_mg_cm3.max()),
        "expected_muscle_hu": float(people.muscle_hu.mean()), "muscle_spread_hu": float(people.muscle_hu.std(ddof=1)),
        "expected_fat_hu": float(people.fat_hu.mean()), "fat_spread_hu": float(people.fat_hu.std(ddof=1))}


def _biology(people: Cohort) -> dict[str, float]:
    """How muscle and fat differ between people of one scanner, the error of their ROIs taken off."""
    tissues = {"muscle": (people.muscle_hu, people.muscle_se_hu), "fat": (people.fat_hu, people.fat_se_hu)}
    return {f"{name}_biological_sd_hu": math.sqrt(max(0.0, _within_variance(hu, people.scanner)
                                                      - float(np.mean(np.nan_to_num(errors) ** 2))))
            for name, (hu, errors) in tissues.items()}


def _within_variance(values: np.ndarray, scanners: np.ndarray) -> float:
    names, group = np.unique(scanners, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    return float(np.sum((values - means[group]) ** 2)) / max(1, len(values) - len(names))


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) coefficients and their (K, K) covariance."""
    inverse = np.linalg.inv(x.T @ x)
    found, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ found
    return found, float(residual @ residual) / (len(y) - x.shape[1]) * inverse


def _means_without_each(values: np.ndarray) -> np.ndarray:
    return (values.sum() - values) / (len(values) - 1)


def _jackknife_covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(2, 2) covariance of two statistics from their (N,) values with each person left out."""
    apart = np.array([first - first.mean(), second - second.mean()])
    return (first.size - 1) / first.size * apart @ apart.T
