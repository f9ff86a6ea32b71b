"""Does a scanner read the same tissue as it did? Control charts of the monthly mean HU, with a trend.

Shewhart's X-bar chart with three of the Western Electric rules; people take the place of a phantom: many of them have
the same mean HU in muscle, fat and blood as long as the scanner, and who is scanned, stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache

import numpy as np
from scipy import stats

from .agreement import Estimate
from .headers import DAYS_PER_YEAR

LEAST_BASELINE = 20
"""People for a centre and a spread: the centre is then known to 0.22, the spread to 16 % (judgement)."""
BASELINE_MONTHS = 3
LEAST_MONTH = 5
"""A month of fewer people is drawn but not judged: their mean may be far from normal (judgement)."""

MONTH_SD_HU = 0.33
"""What the means of two months of a steady scanner differ by beyond chance, as other people come; it keeps the 3 SD limits
at least 1 HU, which is 1 mg/cm3, from the centre (judgement)."""
ALARM_SD, WARNING_SD = 3.0, 2.0
RUN = 8
RULES = {"beyond_3_sd": "3 SD", "two_of_three": "2 of 3", "run": f"{RUN} in a row", "trend": "trend"}
"""In words as short as a table's. Western Electric, Statistical Quality Control Handbook (1956), without its rule of 4 of 5
beyond 1 SD; and the trend at the level of the 3 SD limits."""
WARNINGS = frozenset({"two_of_three"})
"""Rules that ask for a second look. On three charts 2 of 3 months beyond 2 SD turns up by chance so often (see
test_drift.py) that a scanner is not called out of control for it alone (judgement)."""
IN_CONTROL, WATCH, OUT, TOO_FEW = STATUSES = ("in_control", "watch", "out_of_control", "too_few")
TREND_P = 2 * float(stats.norm.sf(ALARM_SD))
RECENT = 3
"""Months that say where a scanner is now."""


@dataclass(frozen=True)
class Baseline:
    """What a tissue reads on the scanner as it should be. sd_hu: between people.

    first, last: its months (YYYY-MM), empty when it is a calibration's cohort.
    """

    mean_hu: float
    sd_hu: float
    n: int
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Month:
    """People of one month. alarm_hu, warning_hu: how far from the centre its mean may lie. rules: those it breaks.

    judged: after the baseline and of LEAST_MONTH people; the limits are None without people.
    """

    month: str
    n: int
    mean_hu: float | None = None
    alarm_hu: float | None = None
    warning_hu: float | None = None
    in_baseline: bool = False
    judged: bool = False
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """How a tissue left its baseline. pattern: "step" (at ``since``), "trend" (noticed at ``since``) or "passing" (between
    ``since`` and ``until``). shift_hu: from the centre, after the step, in the passing months, or lately.
    """

    pattern: str
    since: str
    until: str
    shift_hu: Estimate


@dataclass(frozen=True)
class Chart:
    """One tissue on one scanner. reason: why it cannot be judged, else empty. trend_hu: per year, over all months."""

    tissue: str
    n: int
    months: tuple[Month, ...]
    baseline: Baseline | None = None
    trend_hu: Estimate | None = None
    trend_p: float | None = None
    change: Change | None = None
    rules: tuple[str, ...] = ()
    reason: str = ""

    @property
    def status(self) -> str:
        """One of STATUSES."""
        if self.reason:
            return TOO_FEW
        return OUT if set(self.rules) - WARNINGS else WATCH if self.rules else IN_CONTROL


def baseline_months(days: Sequence[date]) -> tuple[str, str] | None:
    """First and last of the months of the baseline: the first three with people, and on until LEAST_BASELINE of them.

    None when there are not so many people.
    """
    months, counts = np.unique([month_of(day) for day in days], return_counts=True)
    enough = np.flatnonzero(np.cumsum(counts) >= LEAST_BASELINE)
    if enough.size == 0:
        return None
    return str(months[0]), str(months[min(max(enough[0], BASELINE_MONTHS - 1), len(months) - 1)])


def month_of(day: date) -> str:
    """2024-03 of a day in March 2024."""
    return f"{day.year:04d}-{day.month:02d}"


def draw_chart(tissue: str, days: Sequence[date], hu: Sequence[float], span: tuple[str, str],
               baseline: tuple[str, str] | Baseline | None) -> Chart:
    """Judge one tissue of one stratum. days, hu: (N,), one of each scan; span: first and last month to show.

    baseline: the months (YYYY-MM) that set the centre, or the centre itself, against which all months are judged.
    """
    values, labels = np.asarray(hu, float), np.array([month_of(day) for day in days])
    groups = {name: values[labels == name] for name in months_between(*span)}
    bare = Chart(tissue, len(values), tuple(_plain(name, group) for name, group in groups.items()))
    known = baseline if isinstance(baseline, Baseline) else _from_months(groups, baseline)
    if known is None or known.n < LEAST_BASELINE:
        return replace(bare, reason=f"fewer than {LEAST_BASELINE} people for a baseline")
    months = tuple(_limited(month, known) for month in bare.months)
    chart = replace(bare, baseline=known, months=_with_rules(months, known))
    if not any(month.judged for month in months):
        return replace(chart, reason=f"no month after the baseline has {LEAST_MONTH} people")
    return _with_change(_with_trend(chart, days, values))


def months_between(first: str, last: str) -> list[str]:
    """All months from first to last, both included."""
    start, stop = (int(name[:4]) * 12 + int(name[5:]) - 1 for name in (first, last))
    return [f"{number // 12:04d}-{number % 12 + 1:02d}" for number in range(start, stop + 1)]


def _plain(name: str, hu: np.ndarray) -> Month:
    return Month(name, hu.size, float(hu.mean()) if hu.size else None)


def _from_months(groups: dict[str, np.ndarray], span: tuple[str, str] | None) -> Baseline | None:
    if span is None:
        return None
    hu = np.concatenate([np.zeros(0), *(group for name, group in groups.items() if span[0] <= name <= span[1])])
    if hu.size < LEAST_BASELINE:
        return None
    return Baseline(float(hu.mean()), float(hu.std(ddof=1)), hu.size, *span)


# --- limits and rules --------------------------------------------------------------------------------------

def mean_error_hu(baseline: Baseline, n: int) -> float:
    """SD of the difference between the mean of n people and the centre, on a steady scanner."""
    return math.sqrt(baseline.sd_hu**2 * (1 / n + 1 / baseline.n) + MONTH_SD_HU**2)


def limit_hu(baseline: Baseline, n: int, sds: float) -> float:
    """How far the mean of n people may lie from the centre, at the level of so many SDs of a normal distribution.

    The centre and the spread are known only from the baseline's people: limits of prediction, with Student's t.
    """
    return _student(sds, baseline.n - 1) * mean_error_hu(baseline, n)


@cache
def _student(sds: float, freedom: int) -> float:
    return float(stats.t.isf(stats.norm.sf(sds), freedom))


def band_hu(baseline: Baseline) -> float:
    """Half the 95 % interval of the centre: within it no month lies on a side of it."""
    return float(stats.t.ppf(0.975, baseline.n - 1)) * math.hypot(baseline.sd_hu / math.sqrt(baseline.n), MONTH_SD_HU)


def _limited(month: Month, baseline: Baseline) -> Month:
    if month.n == 0:
        return month
    return replace(month, alarm_hu=limit_hu(baseline, month.n, ALARM_SD), warning_hu=limit_hu(baseline, month.n, WARNING_SD),
                   in_baseline=baseline.first <= month.month <= baseline.last,
                   judged=month.month > baseline.last and month.n >= LEAST_MONTH)


def _with_rules(months: tuple[Month, ...], baseline: Baseline) -> tuple[Month, ...]:
    """Each month with the rules that are broken at it; months that are not judged are passed over."""
    judged = [month for month in months if month.judged]
    away = np.array([month.mean_hu - baseline.mean_hu for month in judged])
    warning = np.array([month.warning_hu for month in judged])
    band = band_hu(baseline)
    broken = {}
    for at, month in enumerate(judged):
        side = math.copysign(1, away[at])
        rules = ["beyond_3_sd"] if abs(away[at]) > month.alarm_hu else []
        near = slice(max(0, at - 2), at + 1)
        if side * away[at] > warning[at] and np.count_nonzero(side * away[near] > warning[near]) >= 2:
            rules.append("two_of_three")
        if at + 1 >= RUN and np.all(side * away[at + 1 - RUN:at + 1] > band):
            rules.append("run")
        broken[month.month] = tuple(rules)
    return tuple(replace(month, rules=broken.get(month.month, ())) for month in months)


# --- trend and change --------------------------------------------------------------------------------------

def _with_trend(chart: Chart, days: Sequence[date], hu: np.ndarray) -> Chart:
    """Least squares of HU on the day, over all people."""
    years = np.array([day.toordinal() for day in days]) / DAYS_PER_YEAR
    if np.unique(years).size < 3 or np.ptp(hu) == 0:
        return chart
    fit = stats.linregress(years, hu)
    half = float(stats.t.ppf(0.975, hu.size - 2) * fit.stderr)
    return replace(chart, trend_hu=Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, hu.size),
                   trend_p=float(fit.pvalue))


def _trending(chart: Chart) -> bool:
    """Surely, and by more over the whole time than the narrowest limits."""
    if chart.trend_hu is None:
        return False
    years = len(chart.months) / 12
    return chart.trend_p < TREND_P and abs(chart.trend_hu.value) * years > ALARM_SD * MONTH_SD_HU


def _with_change(chart: Chart) -> Chart:
    found = {rule for month in chart.months for rule in month.rules} | ({"trend"} if _trending(chart) else set())
    if not found:
        return chart
    chart = replace(chart, rules=tuple(rule for rule in RULES if rule in found))
    judged = [month for month in chart.months if month.judged]
    alarmed = [month for month in judged if month.rules]
    if not found & {"run", "trend"} and _back(judged, chart.baseline):
        return replace(chart, change=_change("passing", alarmed, chart.baseline))
    step = _step(judged, chart.baseline)
    if "trend" not in found or _misfit_of_step(chart.months, chart.baseline, step) <= _misfit_of_line(chart.months):
        return replace(chart, change=_change("step", judged[step:], chart.baseline))
    noticed = alarmed[0].month if alarmed else judged[-1].month
    return replace(chart, change=replace(_change("trend", judged[-RECENT:], chart.baseline), since=noticed))


def _change(pattern: str, months: Sequence[Month], baseline: Baseline) -> Change:
    n = sum(month.n for month in months)
    shift = _mean(months) - baseline.mean_hu
    half = float(stats.t.ppf(0.975, baseline.n - 1)) * baseline.sd_hu * math.sqrt(1 / n + 1 / baseline.n)
    return Change(pattern, months[0].month, months[-1].month, Estimate(shift, shift - half, shift + half, n))


def _mean(months: Sequence[Month]) -> float:
    return float(np.average([month.mean_hu for month in months], weights=[month.n for month in months]))


def _back(judged: Sequence[Month], baseline: Baseline) -> bool:
    """The last months lie at the centre again, none of them breaking a rule."""
    last = judged[-RECENT:]
    n = sum(month.n for month in last)
    return not any(month.rules for month in last) and abs(_mean(last) - baseline.mean_hu) < limit_hu(baseline, n, WARNING_SD)


def _step(judged: Sequence[Month], baseline: Baseline) -> int:
    """Index of the first month after a change, by maximum likelihood with the centre known (Samuel, Pignatiello and Calvin,
    Quality Engineering 1998;10:521): it maximises n (mean - centre)^2 of all months from it on."""
    n = np.array([month.n for month in judged], float)
    excess = n * np.array([month.mean_hu - baseline.mean_hu for month in judged])
    after_n, after = np.cumsum(n[::-1])[::-1], np.cumsum(excess[::-1])[::-1]
    return int(np.argmax(after**2 / after_n))


def _misfit_of_step(months: Sequence[Month], baseline: Baseline, step: int) -> float:
    """Sum of squares of all people's monthly means about the centre before the step and their own mean after it."""
    first = [month.month for month in months if month.judged][step]
    before = [month for month in months if month.n and month.month < first]
    after = [month for month in months if month.n and month.month >= first]
    return _squares(before, baseline.mean_hu) + _squares(after, _mean(after))


def _misfit_of_line(months: Sequence[Month]) -> float:
    place = np.array([at for at, month in enumerate(months) if month.n], float)
    hu = np.array([month.mean_hu for month in months if month.n])
    weight = np.sqrt([month.n for month in months if month.n])
    if place.size < 3:
        return math.inf
    line = np.polynomial.Polynomial.fit(place, hu, 1, w=weight)
    return float(np.sum((weight * (hu - line(place)))**2))


def _squares(months: Sequence[Month], centre_hu: float) -> float:
    return sum(month.n * (month.mean_hu - centre_hu)**2 for month in months)
