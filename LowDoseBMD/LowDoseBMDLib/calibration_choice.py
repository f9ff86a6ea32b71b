"""Which calibration to use: every model refitted with people left out, compared on those people, one recommended.

The people are training people throughout. What the test set says is for ``agree --calibration``, once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from . import agreement, diagnostics
from .agreement import BlandAltman, Estimate
from .calibration import Calibration, TwoPointCalibration
from .calibration_apply import Prediction, coverage, predict
from .calibration_fit import PREDICTIONS, Fit, FitSettings, fit_rescaled
from .calibration_models import RescaledCalibration
from .calibration_people import names_of
from .cohort import Cohort
from .cohort_columns import HU_COLUMNS
from .diagnostics import CutOff, Diagnostic, Proportion
from .measurement import OSTEOPOROSIS_BELOW_MG_CM3

FOLDS = 10
LITERATURE, RESCALED = "literature", "rescaled"
TITLES: Mapping[str, str] = {
    LITERATURE: "Two-point, literature", "two_point": "Two-point, site constants", "line": "Site line",
    "regression": "Regression, bone, muscle, fat", "shrunk_two_point": "Two-point, shrunk tissue",
    RESCALED: "Rescaled, for classes"}
"""In the order of tables."""

SAME_ERROR_MG_CM3 = 0.1
"""Errors that differ by less are the same, however exactly they are known. Judgement."""


@dataclass(frozen=True)
class Performance:
    """Of one model against QCT. rmse_se: standard error of rmse. slope: of the prediction on QCT, least squares.
    auc, cut_off: None, and reason says why, when all people are on one side of the limit. cut_off: of the prediction, for
    the largest sensitivity at a specificity of at least 97 %; found on these people. coverage: people whose QCT density
    lies within the model's 95 % interval."""

    n: int
    rmse_mg_cm3: float
    rmse_se_mg_cm3: float
    bland_altman: BlandAltman
    slope: float
    pearson: Estimate
    icc_agreement: Estimate
    auc: Estimate | None
    diagnostic: Diagnostic
    cut_off: CutOff | None
    coverage: Proportion
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One model. calibration: fitted on all training people, residual SD included. performance: on people left out of the
    fit. shift_mg_cm3_per_hu: how far the mean person's value moves when the HU of bone, muscle and fat all rise by 1."""

    kind: str
    calibration: Calibration
    held_out: Prediction
    performance: Performance
    shift_mg_cm3_per_hu: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """candidates: by kind, in the order of TITLES. failed: kind -> why it could not be fitted. recommended: a kind; reason:
    why, in a sentence."""

    people: Cohort
    folds: int
    seed: int
    candidates: Mapping[str, Candidate]
    failed: Mapping[str, str]
    recommended: str
    reason: str


def compare(people: Cohort, settings: FitSettings, seed: int = 1) -> Comparison:
    """Fit every model on the training people, each also FOLDS times with a part of them left out, and recommend one.

    The literature's line is the first row, and nothing of it is fitted. Raises ValueError when no model can be fitted,
    or for people who cannot be compared (``agreement``).
    """
    fold = assign_folds(people.scanner, FOLDS, seed)
    found = {LITERATURE: _candidate(LITERATURE, TwoPointCalibration(kvp=settings.kvp), people, None, fold)}
    failed: dict[str, str] = {}
    for kind, fit in PREDICTIONS.items():
        _try(found, failed, kind, people, partial(fit, settings=settings), fold)
    fitted = [found[kind] for kind in PREDICTIONS if kind in found]
    if not fitted:
        raise ValueError(f"no calibration can be fitted on these people: {next(iter(failed.values()))}")
    recommended, reason = recommend(fitted, len(names_of(people.scanner)))
    _try(found, failed, RESCALED, people, partial(fit_rescaled, settings=settings, base=PREDICTIONS[recommended]), fold)
    ordered = {kind: found[kind] for kind in TITLES if kind in found}
    return Comparison(people, FOLDS, seed, ordered, failed, recommended, reason)


def assign_folds(scanners: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(N,) fold of each person, 0..count - 1: at random, each scanner's (N,) people spread evenly over the folds."""
    order = np.random.default_rng(seed).permutation(len(scanners))
    order = order[np.argsort(scanners[order], kind="stable")]
    fold = np.empty(len(scanners), int)
    fold[order] = np.arange(len(scanners)) % count
    return fold


def performance(held_out: Prediction, reference: np.ndarray) -> Performance:
    """How predictions agree with (N,) QCT densities. Raises ValueError as ``agreement``."""
    predicted, limit = held_out.predicted, OSTEOPOROSIS_BELOW_MG_CM3
    squares = (predicted - reference) ** 2
    rmse = math.sqrt(squares.mean())
    correlation = agreement.pearson(predicted, reference)
    try:
        auc, reason = diagnostics.roc(predicted, reference < limit, low_is_positive=True).auc, ""
        cut_off = diagnostics.cut_off(predicted, reference, limit).specific
    except ValueError as error:
        auc, cut_off, reason = None, None, str(error)
    return Performance(
        n=len(reference), rmse_mg_cm3=rmse,
        rmse_se_mg_cm3=float(squares.std(ddof=1)) / math.sqrt(len(reference)) / (2 * rmse) if rmse else 0.0,
        bland_altman=agreement.bland_altman(predicted, reference),
        slope=correlation.value * float(predicted.std() / reference.std()), pearson=correlation,
        icc_agreement=agreement.icc_agreement(predicted, reference), auc=auc,
        diagnostic=diagnostics.classify_table(predicted, reference, limit), cut_off=cut_off,
        coverage=coverage(held_out, reference), reason=reason)


def recommend(fitted: Sequence[Candidate], scanners: int) -> tuple[str, str]:
    """Kind and reason of the model to use, among those that aim at the least error; scanners: named in the cohort.

    Models within one standard error of the least RMSE count as equal. Of equals, on one scanner, the one that leans
    least on muscle and fat (the order of PREDICTIONS): those differ between people, a patient's wasted muscle would move
    the value, and one stable scanner gives them nothing to correct. On several scanners, the one that an offset of the
    HU moves least.
    """
    best = min(fitted, key=lambda candidate: candidate.performance.rmse_mg_cm3)
    margin = max(best.performance.rmse_se_mg_cm3, SAME_ERROR_MG_CM3)
    equal = [one for one in fitted if one.performance.rmse_mg_cm3 <= best.performance.rmse_mg_cm3 + margin]
    order = list(PREDICTIONS)
    chosen = min(equal, key=lambda one: abs(one.shift_mg_cm3_per_hu) if scanners > 1 else order.index(one.kind))
    parts = (_error(chosen, best, margin, len(equal)), _choice(len(equal), scanners), _drift(chosen, fitted))
    return chosen.kind, " ".join(filter(None, parts))


def _error(chosen: Candidate, best: Candidate, margin: float, equals: int) -> str:
    own = chosen.performance.rmse_mg_cm3
    text = (f"Recommended: {TITLES[chosen.kind]}. On people left out of the fit it errs by {own:.1f} mg/cm³ (root mean "
            "square)")
    if equals == 1:
        return f"{text}, less than every other model."
    least = "the least" if chosen is best else f"the least is {best.performance.rmse_mg_cm3:.1f}"
    return f"{text}, {least}; {equals} models within {margin:.1f} of the least count as equal."


def _choice(equals: int, scanners: int) -> str:
    if equals == 1:
        return ""
    if scanners > 1:
        return "Of equals, on several scanners, the one is taken that an offset of the HU moves least."
    return ("Of equals, on one scanner, the one is taken that leans least on muscle and fat: they differ between people and "
            "have nothing to correct while the scanner is stable.")


def _drift(chosen: Candidate, fitted: Sequence[Candidate]) -> str:
    shift = chosen.shift_mg_cm3_per_hu
    if abs(shift) < SAME_ERROR_MG_CM3:
        return "An offset of all HU hardly moves it."
    blind = "" if chosen.calibration.needs_tissue else "It does not read muscle and fat and cannot see the scanner drift. "
    text = (f"{blind}Its value moves by {shift:.2f} mg/cm³ for each HU by which the scanner drifts, so lowdosebmd drift "
            "must watch the scanner.")
    for other in fitted:
        if abs(other.shift_mg_cm3_per_hu) < SAME_ERROR_MG_CM3:
            apart = other.performance.rmse_mg_cm3**2 - chosen.performance.rmse_mg_cm3**2
            text += (f" {TITLES[other.kind]}, which a drift does not move, errs less only once the HU have moved by "
                     f"{math.sqrt(max(0.0, apart)) / abs(shift):.0f} or more.")
    return text


def _try(found: dict[str, Candidate], failed: dict[str, str], kind: str, people: Cohort, fit: Any, fold: np.ndarray) -> None:
    try:
        found[kind] = _candidate(kind, fit(people), people, fit, fold)
    except ValueError as error:
        failed[kind] = str(error)


def _candidate(kind: str, calibration: Calibration, people: Cohort, fit: Fit | None, fold: np.ndarray) -> Candidate:
    """fit: None for a calibration that is not fitted and keeps its own residual SD."""
    reference = people.reference_mg_cm3
    if fit is None:
        predicted, variance = predict(calibration, people)
    else:
        predicted, propagated = _left_out(people, fit, fold)
        excess = (predicted - reference) ** 2 - propagated
        # The residual of a fold's people comes from the errors of the other folds, or it would know their answers.
        others = np.array([max(0.0, excess[fold != number].mean()) for number in range(fold.max() + 1)])
        variance = propagated + others[fold]
        calibration = with_residual(calibration, math.sqrt(max(0.0, float(excess.mean()))))
    held_out = Prediction(predicted, np.sqrt(variance))
    return Candidate(kind, calibration, held_out, performance(held_out, reference), shift_mg_cm3_per_hu(calibration, people))


def _left_out(people: Cohort, fit: Any, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) predictions and propagated variances, each person's by the model fitted without their fold."""
    predicted, propagated = np.empty((2, len(people)))
    for number in range(fold.max() + 1):
        out = fold == number
        predicted[out], propagated[out] = predict(fit(people.where(~out)), people.where(out))
    return predicted, propagated


def with_residual(calibration: Calibration, residual_sd_mg_cm3: float) -> Calibration:
    """The calibration with this residual SD of its values; a rescaled one keeps it in its base, on the base's scale."""
    if isinstance(calibration, RescaledCalibration):
        return replace(calibration, base=with_residual(calibration.base, residual_sd_mg_cm3 / calibration.slope))
    return replace(calibration, residual_sd_mg_cm3=residual_sd_mg_cm3)


def shift_mg_cm3_per_hu(calibration: Calibration, people: Cohort) -> float:
    """How far the value at the people's mean HU moves when all HU rise by 1."""
    hu = [float(getattr(people, name).mean()) for name in HU_COLUMNS]
    return float(calibration.vbmd(*(value + 0.5 for value in hu)) - calibration.vbmd(*(value - 0.5 for value in hu)))
