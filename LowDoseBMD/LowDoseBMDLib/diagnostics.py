"""How well a measurement tells who lies below a limit of the reference: ROC, sensitivity and its kin, cut-offs.

Positive is a value BELOW a limit (osteoporosis: vBMD below 80 mg/cm3). Every interval is a 95 % interval; errors
are those of ``agreement``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .agreement import MINIMUM_PEOPLE, Z95, Estimate, Interval, Numbers, checked, checked_pair

OSTEOPOROSIS_MG_CM3 = 80.0
LOW_MG_CM3 = 120.0
"""Below 80 osteoporosis, 80 to 120 low, above 120 normal (QCT, lumbar trabecular vBMD)."""

_ONE_CLASS = "all are in one class by both methods: kappa has no meaning"


@dataclass(frozen=True)
class Proportion:
    """count of ``of`` people. value, wilson (score) and exact (Clopper-Pearson) interval are None, and reason says
    why, when ``of`` is 0: a share of nobody."""

    count: int
    of: int
    value: float | None
    wilson: Interval | None
    exact: Interval | None
    reason: str = ""


@dataclass(frozen=True)
class Roc:
    """auc with DeLong's interval; the curve as (K,) arrays from (0, 0) to (1, 1).

    threshold: score at or above which (at or below which, for low_is_positive) a person is called positive; its
    first entry, where nobody is, is infinite.
    """

    auc: Estimate
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class Diagnostic:
    """Two-by-two table: positive are reference < limit and test < cut."""

    limit: float
    cut: float
    tp: int
    fp: int
    fn: int
    tn: int
    sensitivity: Proportion
    specificity: Proportion
    accuracy: Proportion
    ppv: Proportion
    npv: Proportion


@dataclass(frozen=True)
class ThreeClasses:
    """table: (3, 3) people, rows the reference's class, columns the test's, lowest values first.

    weighted_kappa: Cohen's with linear weights; None, and reason says why, when all are in one class.
    """

    limits: tuple[float, float]
    table: np.ndarray
    weighted_kappa: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class CutOff:
    """People with test < threshold are called positive."""

    threshold: float
    sensitivity: Proportion
    specificity: Proportion


@dataclass(frozen=True)
class CutOffs:
    """Cut-offs of the test for reference < limit. youden: largest sensitivity + specificity - 1. specific: largest
    sensitivity at a specificity of at least least_specificity. Chosen on these people, hence flattering on them:
    take them to other people with ``classify_table(..., cut=threshold)``.
    """

    limit: float
    least_specificity: float
    youden: CutOff
    specific: CutOff


def proportion(count: int, of: int, nobody: str = "there is nobody to count") -> Proportion:
    """A share with its Wilson and exact intervals. nobody: the reason given when ``of`` is 0.

    Raises ValueError for counts that cannot be.
    """
    if not (float(count).is_integer() and float(of).is_integer() and 0 <= count <= of):
        raise ValueError(f"{count} of {of} people cannot be: give whole numbers with 0 <= count <= of")
    count, of = int(count), int(of)
    if of == 0:
        return Proportion(0, 0, None, None, None, nobody)
    return Proportion(count, of, count / of, _wilson(count, of), _exact(count, of))


def roc(score: Numbers, positive: Sequence[bool] | np.ndarray, *, low_is_positive: bool = False) -> Roc:
    """ROC curve of a score against the truth, ties counting half; DeLong, Biometrics 1988;44:837-845.

    positive: (N,) bool. Raises ValueError when fewer than two people are positive, or fewer than two are not, too.
    """
    values, truth = checked(score, "the score"), _truth(positive)
    if truth.size != values.size:
        raise ValueError(f"the score has {values.size} values and the truth {truth.size}; give one of each per person")
    if min(truth.sum(), (~truth).sum()) < 2:
        raise ValueError(f"{truth.sum()} of {truth.size} people are positive: a ROC curve needs two of either kind")
    sign = -1.0 if low_is_positive else 1.0
    up, steps = sign * values, np.unique(sign * values)[::-1]
    rates = [np.concatenate([[0.0], 1 - np.searchsorted(np.sort(up[kind]), steps) / kind.sum()])
             for kind in (~truth, truth)]
    return Roc(_delong(up[truth], up[~truth]), *rates, sign * np.concatenate([[np.inf], steps]))


def diagnostic(tp: int, fp: int, fn: int, tn: int, limit: float = OSTEOPOROSIS_MG_CM3,
               cut: float | None = None) -> Diagnostic:
    """Sensitivity and its kin from the four counts. cut: of the test; None for the limit itself."""
    cut = limit if cut is None else cut
    if not (math.isfinite(limit) and math.isfinite(cut)):
        raise ValueError(f"the limit {limit:g} or the cut {cut:g} is not a finite number")
    for count in (tp, fp, fn, tn):
        proportion(count, count)
    people = tp + fp + fn + tn
    if people < MINIMUM_PEOPLE:
        raise ValueError(f"{people} people are too few: at least {MINIMUM_PEOPLE} are needed")
    return Diagnostic(
        limit, cut, int(tp), int(fp), int(fn), int(tn),
        sensitivity=proportion(tp, tp + fn, "nobody is positive by the reference"),
        specificity=proportion(tn, tn + fp, "nobody is negative by the reference"),
        accuracy=proportion(tp + tn, people),
        ppv=proportion(tp, tp + fp, "nobody is positive by the test"),
        npv=proportion(tn, tn + fn, "nobody is negative by the test"))


def classify_table(test: Numbers, reference: Numbers, limit: float = OSTEOPOROSIS_MG_CM3,
                   cut: float | None = None) -> Diagnostic:
    """Who is below the limit by the reference, and below ``cut`` (None: the limit) by the test."""
    a, b = checked_pair(test, reference, ("the test", "the reference"))
    found, ill = a < (limit if cut is None else cut), b < limit
    counts = (int(np.sum(which)) for which in (found & ill, found & ~ill, ~found & ill, ~found & ~ill))
    return diagnostic(*counts, limit, cut)


def three_classes(test: Numbers, reference: Numbers,
                  limits: tuple[float, float] = (OSTEOPOROSIS_MG_CM3, LOW_MG_CM3)) -> ThreeClasses:
    """Below the first limit, between the two (both included), above the second. Raises ValueError for limits out of
    order, too."""
    a, b = checked_pair(test, reference, ("the test", "the reference"))
    if not -math.inf < limits[0] < limits[1] < math.inf:
        raise ValueError(f"the limits must rise, not be {limits[0]:g} and {limits[1]:g}")
    table = np.zeros((3, 3), int)
    np.add.at(table, tuple((values >= limits[0]).astype(int) + (values > limits[1]) for values in (b, a)), 1)
    if a.size in np.diag(table):
        return ThreeClasses(limits, table, None, _ONE_CLASS)
    return ThreeClasses(limits, table, weighted_kappa(table))


def weighted_kappa(table: np.ndarray) -> Estimate:
    """Cohen's kappa with linear weights of a (K, K) table of people; SE of Fleiss, Cohen and Everitt,
    Psychol Bull 1969;72:323-327. Clipped to -1..1.

    Raises ValueError for fewer than MINIMUM_PEOPLE, or all of them in one class by both.
    """
    n = int(table.sum())
    if n < MINIMUM_PEOPLE:
        raise ValueError(f"{n} people are too few: at least {MINIMUM_PEOPLE} are needed")
    if n in np.diag(table):
        raise ValueError(_ONE_CLASS)
    share = table / n
    classes = np.arange(len(table))
    weight = 1 - np.abs(classes[:, None] - classes) / (len(table) - 1)
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    expected = float(rows @ weight @ columns)
    kappa = (float(np.sum(weight * share)) - expected) / (1 - expected)
    mean_weight = (weight @ columns)[:, None] + rows @ weight
    spread = float(np.sum(share * (weight - mean_weight * (1 - kappa)) ** 2)) - (kappa - expected * (1 - kappa)) ** 2
    return _clipped(kappa, math.sqrt(max(spread, 0.0) / n) / (1 - expected), n, -1.0)


def cut_off(test: Numbers, reference: Numbers, limit: float = OSTEOPOROSIS_MG_CM3,
            specificity: float = 0.97) -> CutOffs:
    """The best cut-offs of the test, halfway between two measured values; of equals the most specific.

    Raises ValueError for a specificity outside 0..1, and when everybody, or nobody, is below the limit by the
    reference, too.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"a specificity lies between 0 and 1, unlike {specificity:g}")
    a, b = checked_pair(test, reference, ("the test", "the reference"))
    ill = b < limit
    if ill.all() or not ill.any():
        raise ValueError(f"{'everybody' if ill.all() else 'nobody'} is below {limit:g} by the reference: "
                         "there is no cut-off to find")
    values = np.unique(a)
    thresholds = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])  # the first calls nobody positive
    found = np.searchsorted(np.sort(a[ill]), thresholds)
    spared = np.sum(~ill) - np.searchsorted(np.sort(a[~ill]), thresholds)
    youden = np.argmax(found * np.sum(~ill) + spared * np.sum(ill))  # whole numbers: ties are ties
    specific = np.argmax(np.where(spared / np.sum(~ill) >= specificity, found, -1))
    first, second = (_at(float(thresholds[index]), a, b, limit) for index in (youden, specific))
    return CutOffs(limit, specificity, first, second)


def _at(threshold: float, test: np.ndarray, reference: np.ndarray, limit: float) -> CutOff:
    table = classify_table(test, reference, limit, threshold)
    return CutOff(threshold, table.sensitivity, table.specificity)


def _truth(positive: Sequence[bool] | np.ndarray) -> np.ndarray:
    array = np.asarray(positive)
    if array.ndim != 1 or not np.isin(array, (0, 1)).all():
        raise ValueError("the truth must be one list of yes and no (or 1 and 0), one per person")
    return array.astype(bool)


def _wilson(count: int, of: int) -> Interval:
    share, z2 = count / of, Z95**2
    centre, reach = share + z2 / (2 * of), Z95 * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    low, high = (centre - reach) / (1 + z2 / of), (centre + reach) / (1 + z2 / of)
    return Interval(0.0 if count == 0 else low, 1.0 if count == of else high)


def _exact(count: int, of: int) -> Interval:
    low = 0.0 if count == 0 else float(stats.beta.ppf(0.025, count, of - count + 1))
    return Interval(low, 1.0 if count == of else float(stats.beta.ppf(0.975, count + 1, of - count)))


def _delong(ill: np.ndarray, well: np.ndarray) -> Estimate:
    """AUC of scores that are higher in the ill; for each person the share of the others that are ranked rightly."""
    ranks = stats.rankdata(np.concatenate([ill, well]))
    of_ill = (ranks[:ill.size] - stats.rankdata(ill)) / well.size
    of_well = 1 - (ranks[ill.size:] - stats.rankdata(well)) / ill.size
    auc = float(np.mean(of_ill))
    se = math.sqrt(float(np.var(of_ill, ddof=1)) / ill.size + float(np.var(of_well, ddof=1)) / well.size)
    apart = "the two kinds do not overlap: DeLong's interval then has no width" if auc in (0.0, 1.0) else ""
    return _clipped(auc, se, ill.size + well.size, 0.0, apart)


def _clipped(value: float, se: float, n: int, lowest: float, reason: str = "") -> Estimate:
    return Estimate(value, max(lowest, value - Z95 * se), min(1.0, value + Z95 * se), n, reason)
