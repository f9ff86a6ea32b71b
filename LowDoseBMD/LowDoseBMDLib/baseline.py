"""Rows of a baseline table: two groups compared, by the test that their distributions call for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .agreement import Numbers, checked
from .diagnostics import Proportion, proportion

SIGNIFICANT = 0.05
SHAPIRO_EXACT = 5000
"""People up to whom scipy vouches for the p-value of Shapiro and Wilk."""
SMALLEST_EXPECTED = 5.0
"""Cochran's rule: below this expected count chi-square's p-value is not to be trusted."""


@dataclass(frozen=True)
class Summary:
    """One group, in the unit of its values; sd with n - 1."""

    n: int
    mean: float
    sd: float
    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class BaselineRow:
    """Two groups of values. shapiro_p: of normal values in a and b; levene_p: of equal spread.

    test: "Mann-Whitney" when either group is not normal, else "Welch" when the spreads differ, else "t".
    statistic: U of a, or t of a - b; p: two-sided. note: what to keep in mind, else empty.
    """

    name: str
    a: Summary
    b: Summary
    shapiro_p: tuple[float, float]
    levene_p: float
    test: str
    statistic: float
    p: float
    note: str = ""


@dataclass(frozen=True)
class CountRow:
    """Two shares. test: "chi-square", or "Fisher" (its statistic None) when an expected count is below 5."""

    name: str
    a: Proportion
    b: Proportion
    test: str
    statistic: float | None
    p: float


def compare_groups(name: str, a: Numbers, b: Numbers) -> BaselineRow:
    """Compare two separate groups of people as SPSS would, at SIGNIFICANT: Shapiro-Wilk, Levene (about the mean), then
    Student's t, Welch, or Mann-Whitney (normal approximation with ties, without continuity correction).

    Raises ValueError, in one sentence, as ``agreement`` does, for either group.
    """
    first, second = checked(a, f"{name} (first group)"), checked(b, f"{name} (second group)")
    shapiro = (_shapiro_p(first), _shapiro_p(second))
    levene = float(stats.levene(first, second, center="mean").pvalue)
    if min(shapiro) < SIGNIFICANT:
        test, result = "Mann-Whitney", stats.mannwhitneyu(first, second, method="asymptotic", use_continuity=False)
    elif levene < SIGNIFICANT:
        test, result = "Welch", stats.ttest_ind(first, second, equal_var=False)
    else:
        test, result = "t", stats.ttest_ind(first, second)
    large = max(first.size, second.size) > SHAPIRO_EXACT
    note = f"the p-value of Shapiro-Wilk is approximate above {SHAPIRO_EXACT} people" if large else ""
    return BaselineRow(name, _summary(first), _summary(second), shapiro, levene, test,
                       float(result.statistic), float(result.pvalue), note)


def compare_counts(name: str, count_a: int, of_a: int, count_b: int, of_b: int) -> CountRow:
    """Compare two shares: chi-square of the 2 x 2 table without continuity correction, Fisher's exact test where an
    expected count is below SMALLEST_EXPECTED.

    Raises ValueError for an empty group, and where all or none of the people are counted.
    """
    shares = (proportion(count_a, of_a), proportion(count_b, of_b))
    if 0 in (of_a, of_b):
        raise ValueError(f"{name}: a group of nobody cannot be compared")
    table = np.array([[share.count, share.of - share.count] for share in shares])
    if 0 in table.sum(axis=0):
        raise ValueError(f"{name}: {'none' if table[:, 0].sum() == 0 else 'all'} of the people are counted in both groups: "
                         "there is nothing to compare")
    if stats.contingency.expected_freq(table).min() < SMALLEST_EXPECTED:
        return CountRow(name, *shares, "Fisher", None, float(stats.fisher_exact(table).pvalue))
    result = stats.chi2_contingency(table, correction=False)
    return CountRow(name, *shares, "chi-square", float(result.statistic), float(result.pvalue))


def _shapiro_p(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*p-value may not be accurate", category=UserWarning)
        return float(stats.shapiro(values).pvalue)


def _summary(values: np.ndarray) -> Summary:
    lower, median, upper = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Summary(values.size, float(values.mean()), float(values.std(ddof=1)), median, lower, upper)
