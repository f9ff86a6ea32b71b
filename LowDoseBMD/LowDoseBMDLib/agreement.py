"""How well two methods that measured the same people agree: correlation, ICC, Lin, Bland-Altman, fitted lines.

Every interval is a 95 % interval. Every function takes one value per person and method and raises ValueError, in
one sentence, for fewer than MINIMUM_PEOPLE, missing or infinite values (``complete`` leaves those people out), a
method that gives everyone the same value, and lists that do not match. No result holds NaN or infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Numbers = Sequence[float] | np.ndarray
"""(N,) one value per person."""

MINIMUM_PEOPLE = 10
"""Fewer carry no statistic worth printing: an interval for a correlation of 0.9 then reaches below 0.6."""

Z95 = float(stats.norm.ppf(0.975))
LIMITS_SD = 1.96
"""Bland and Altman's limits of agreement in SDs of the difference; they, and the paper, print them with 1.96."""

MAXIMUM_PAIRS = 10_000
"""People for Passing-Bablok, which holds every slope between two of them: at this number 400 MB."""

_SAME = 1e-12
"""Values that differ by less than this part of their size are the same."""
_LARGEST = 1e100
"""Beyond it (or closer together than its inverse) sums of squares leave the range of floating point numbers."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, both ends finite."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A statistic of n people with its 95 % interval. reason: why the interval is not to be trusted, if it is not.

    Raises ValueError when a number is not finite.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError("the statistic or its interval is not a finite number for these values; look at them in a "
                             "scatter plot: a typing error, or hardly any spread, does this")


@dataclass(frozen=True)
class BlandAltman:
    """Differences test - reference, in the unit of the values.

    bias: mean difference. lower, upper: limits of agreement, bias -+ 1.96 sd. sd: of the differences.
    outside: people beyond the limits. slope: regression of the difference on the mean of the two, per unit: below 0
    the test compresses the range (proportional bias); slope_p: of a slope of 0.
    """

    bias: Estimate
    lower: Estimate
    upper: Estimate
    sd: float
    outside: int
    n: int
    slope: Estimate
    slope_p: float


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x."""

    slope: Estimate
    intercept: Estimate


def complete(*columns: Numbers) -> tuple[tuple[np.ndarray, ...], int]:
    """The columns without the people who lack a finite value in any of them, and how many those were.

    Raises ValueError for columns of different length.
    """
    arrays = [_numbers(column, f"column {number}") for number, column in enumerate(columns, 1)]
    _same_length(arrays, [f"column {number}" for number in range(1, len(arrays) + 1)])
    kept = np.all([np.isfinite(array) for array in arrays], axis=0)
    return tuple(array[kept] for array in arrays), int(np.sum(~kept))


def checked(values: Numbers, name: str) -> np.ndarray:
    """(N,) float64. Raises ValueError as this file's first lines say; ``name`` is what the sentence calls them."""
    array = _numbers(values, name)
    missing = int(np.sum(~np.isfinite(array)))
    if missing:
        raise ValueError(f"{missing} of {array.size} values of {name} are missing or not finite; "
                         "leave those people out first")
    if array.size < MINIMUM_PEOPLE:
        raise ValueError(f"{array.size} values of {name} are too few: at least {MINIMUM_PEOPLE} are needed")
    largest = np.max(np.abs(array))
    if largest > _LARGEST:
        raise ValueError(f"{largest:g} cannot be a value of {name}: it is too large to compute with")
    if np.ptp(array) <= max(_SAME * largest, 1 / _LARGEST):
        raise ValueError(f"every value of {name} is {array[0]:g}: there is nothing to compare")
    return array


def checked_pair(first: Numbers, second: Numbers, names: tuple[str, str] = ("x", "y")) -> tuple[np.ndarray, np.ndarray]:
    """Two (N,) float64 arrays of the same people. Raises ValueError as ``checked``, or where the lengths differ."""
    arrays = [_numbers(values, name) for values, name in zip((first, second), names, strict=True)]
    _same_length(arrays, names)
    return checked(arrays[0], names[0]), checked(arrays[1], names[1])


def pearson(x: Numbers, y: Numbers) -> Estimate:
    """Linear correlation; interval by Fisher's z with SE 1/sqrt(n - 3)."""
    a, b = checked_pair(x, y)
    return _fisher(_correlation(a, b), 1 / math.sqrt(a.size - 3), a.size)


def spearman(x: Numbers, y: Numbers) -> Estimate:
    """Rank correlation (ties share their mean rank); Fisher's z with the variance (1 + r^2/2)/(n - 3) of Bonett and
    Wright, Psychometrika 2000;65:23-28, because ranks scatter more than normal values do.
    """
    a, b = checked_pair(x, y)
    r = _correlation(stats.rankdata(a), stats.rankdata(b))
    return _fisher(r, math.sqrt((1 + r * r / 2) / (a.size - 3)), a.size)


def icc_agreement(x: Numbers, y: Numbers) -> Estimate:
    """ICC(A,1): two-way random, single measure, absolute agreement; interval of McGraw and Wong 1996."""
    a, b = checked_pair(x, y)
    n = a.size
    rows, columns, error = _mean_squares(a, b)
    icc = (rows - error) / (rows + error + 2 * (columns - error) / n)
    if icc >= 1:  # the two are the same
        return Estimate(1.0, 1.0, 1.0, n)
    p, q = 2 * icc / (n * (1 - icc)), 1 + 2 * icc * (n - 1) / (n * (1 - icc))
    freedom = (p * columns + q * error) ** 2 / ((p * columns) ** 2 + (q * error) ** 2 / (n - 1))
    spread = 2 * columns + (n - 2) * error
    low, high = float(stats.f.ppf(0.975, n - 1, freedom)), float(stats.f.ppf(0.975, freedom, n - 1))
    return Estimate(icc, n * (rows - low * error) / (low * spread + n * rows),
                    n * (high * rows - error) / (spread + n * high * rows), n)


def icc_consistency(x: Numbers, y: Numbers) -> Estimate:
    """ICC(C,1): as ICC(A,1), but a constant difference between the methods does not count against them."""
    a, b = checked_pair(x, y)
    n = a.size
    rows, _, error = _mean_squares(a, b)
    critical = float(stats.f.ppf(0.975, n - 1, n - 1))

    def icc(factor: float) -> float:
        return (rows - factor * error) / (rows + factor * error)

    return Estimate(icc(1.0), icc(critical), icc(1 / critical), n)


def lin_ccc(x: Numbers, y: Numbers) -> Estimate:
    """Lin's concordance correlation (moments over n); Fisher's z with Lin's variance.

    Lin, Biometrics 1989;45:255-268, with the correction of 2000;56:324-325.
    """
    a, b = checked_pair(x, y)
    n, shift = a.size, float(np.mean(a) - np.mean(b))
    sd_a, sd_b = float(np.std(a)), float(np.std(b))
    r = _correlation(a, b)
    accuracy = 2 * sd_a * sd_b / (sd_a**2 + sd_b**2 + shift**2)
    ccc, u2 = r * accuracy, shift**2 / (sd_a * sd_b)
    variance = ((1 - r * r) * accuracy**2 * (1 - ccc * ccc) + 2 * accuracy * ccc * ccc * (1 - ccc) * u2
                - (accuracy * ccc * u2) ** 2 / 2) / (n - 2)
    return _fisher(ccc, math.sqrt(max(variance, 0.0)) / (1 - ccc * ccc) if abs(ccc) < 1 else 0.0, n)


def bland_altman(test: Numbers, reference: Numbers) -> BlandAltman:
    """Bias and limits of agreement with their intervals, and the slope of the difference on the mean.

    SE of a limit: sd sqrt(1/n + 1.96^2/(2(n - 1))) (Bland and Altman 1999), with Student's t of n - 1.
    """
    a, b = checked_pair(test, reference, ("the test", "the reference"))
    difference, mean, n = a - b, checked((a + b) / 2, "the mean of the two"), a.size
    bias, sd = float(np.mean(difference)), _sd(difference, mean)
    reach = LIMITS_SD * sd
    t, limit_se = _t95(n - 1), sd * math.sqrt(1 / n + LIMITS_SD**2 / (2 * (n - 1)))
    slope, slope_p = _slope(mean, difference) if sd else (_around(0.0, 0.0, n), 1.0)
    return BlandAltman(
        bias=_around(bias, t * sd / math.sqrt(n), n),
        lower=_around(bias - reach, t * limit_se, n), upper=_around(bias + reach, t * limit_se, n),
        sd=sd, outside=int(np.sum(np.abs(difference - bias) > reach)) if sd else 0, n=n,
        slope=slope, slope_p=slope_p)


def deming(x: Numbers, y: Numbers, ratio: float = 1.0) -> Line:
    """Line for errors in both methods. ratio: error variance of y over that of x.

    Intervals by the jackknife with Student's t of n - 2 (Linnet, Clin Chem 1993;39:424-432). Raises ValueError for a
    ratio that is not above 0, too.
    """
    a, b = checked_pair(x, y)
    slopes, intercepts = deming_without_each(a, b, ratio)
    slope = float(_deming_slope(_sums(a, b), ratio))
    return Line(_jackknife(slope, slopes), _jackknife(float(b.mean() - slope * a.mean()), intercepts))


def deming_without_each(x: Numbers, y: Numbers, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(N,) slopes and (N,) intercepts of the Deming line with each person left out in turn, for a jackknife.

    Raises ValueError as ``deming``.
    """
    a, b = checked_pair(x, y)
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"the ratio of error variances must be above 0, not {ratio:g}")
    n, da, db = a.size, a - a.mean(), b - b.mean()
    sums = _sums(a, b)
    if abs(sums[2]) <= _SAME * math.sqrt(sums[0] * sums[1]):
        raise ValueError("x and y are not related at all: no line can be fitted")
    without = sums[:, None] - n / (n - 1) * np.array([da * da, db * db, da * db])
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = _deming_slope(without, ratio)
    if not np.isfinite(slopes).all():
        raise ValueError("without one of the people x and y are not related at all: no line can be fitted")
    return slopes, (b.mean() - db / (n - 1)) - slopes * (a.mean() - da / (n - 1))


def passing_bablok(x: Numbers, y: Numbers) -> Line:
    """Line through the shifted median of all slopes between two people; no error model, robust to outliers.

    Passing and Bablok, J Clin Chem Clin Biochem 1983;21:709-720. Slopes of -1 and equal pairs are left out, equal x
    counts as a slope above all others. Raises ValueError for methods that do not rise together, too.
    """
    a, b = checked_pair(x, y)
    slopes = _pairwise_slopes(a, b)
    count, shift, n = slopes.size, int(np.sum(slopes < -1)), a.size
    half_width = Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((count - half_width) / 2)
    last = count - first + 1 + shift
    if first < 1 or last > count:
        raise ValueError("x and y do not rise together clearly enough for a Passing-Bablok line")
    slope = float(slopes[(count - 1) // 2 + shift] + slopes[count // 2 + shift]) / 2
    low, high = float(slopes[first + shift - 1]), float(slopes[last - 1])
    if math.isinf(high):
        raise ValueError("too many people have the same x for a Passing-Bablok line")
    intercept, lowest, highest = (float(np.median(b - s * a)) for s in (slope, high, low))
    return Line(Estimate(slope, low, high, n), Estimate(intercept, lowest, highest, n))


def _numbers(values: Numbers, name: str) -> np.ndarray:
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something that is not a number: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must be one list of numbers, not an array of shape {array.shape}")
    return array


def _same_length(arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    for array, name in zip(arrays[1:], names[1:], strict=True):
        if array.size != arrays[0].size:
            raise ValueError(f"{names[0]} has {arrays[0].size} values and {name} {array.size}; "
                             "give one of each per person, in the same order")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    da, db = a - a.mean(), b - b.mean()
    return min(1.0, max(-1.0, float(np.sum(da * db) / math.sqrt(np.sum(da * da) * np.sum(db * db)))))


def _fisher(r: float, se: float, n: int) -> Estimate:
    if abs(r) >= 1:
        return Estimate(r, r, r, n)
    z = math.atanh(r)
    return Estimate(r, math.tanh(z - Z95 * se), math.tanh(z + Z95 * se), n)


def _mean_squares(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Of people, methods and what is left, of two methods; what is left below rounding counts as nothing."""
    n, difference = a.size, a - b
    people = 2 * float(np.var((a + b) / 2, ddof=1))
    methods, error = n * float(np.mean(difference)) ** 2 / 2, float(np.var(difference, ddof=1)) / 2
    return people, methods, error if error > _SAME * people else 0.0


def _sd(difference: np.ndarray, mean: np.ndarray) -> float:
    """0 for differences that are all the same but for rounding."""
    sd = float(np.std(difference, ddof=1))
    return sd if sd > _SAME * float(np.max(np.abs(mean))) else 0.0


def _slope(mean: np.ndarray, difference: np.ndarray) -> tuple[Estimate, float]:
    """Of least squares, and the p-value of a slope of 0."""
    fit = stats.linregress(mean, difference)
    return _around(float(fit.slope), _t95(mean.size - 2) * float(fit.stderr), mean.size), float(fit.pvalue)


def _t95(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom))


def _around(value: float, half_width: float, n: int) -> Estimate:
    return Estimate(value, value - half_width, value + half_width, n)


def _sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3,) sums of squares and products about the means, as _deming_slope takes them."""
    da, db = a - a.mean(), b - b.mean()
    return np.array([np.sum(da * da), np.sum(db * db), np.sum(da * db)])


def _deming_slope(sums: np.ndarray, ratio: float) -> np.ndarray:
    """From sums of squares and products (3, ...) of x, y and both."""
    xx, yy, xy = sums
    lead = yy - ratio * xx
    return (lead + np.sqrt(lead**2 + 4 * ratio * xy**2)) / (2 * xy)


def _jackknife(value: float, without: np.ndarray) -> Estimate:
    n = without.size
    se = math.sqrt((n - 1) / n * float(np.sum((without - without.mean()) ** 2)))
    return _around(value, _t95(n - 2) * se, n)


def _pairwise_slopes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sorted slopes between every two people who differ, less those of exactly -1."""
    if a.size > MAXIMUM_PAIRS:
        raise ValueError(f"{a.size} people are too many for a Passing-Bablok line: {MAXIMUM_PAIRS} are the most")
    i, j = np.triu_indices(a.size, 1)
    da, db = a[i] - a[j], b[i] - b[j]
    slopes = np.divide(db, da, out=np.full(da.size, np.inf), where=da != 0)[(da != 0) | (db != 0)]
    return np.sort(slopes[slopes != -1])
