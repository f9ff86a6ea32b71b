"""The control chart of one scanner: monthly means of muscle, fat and aorta between their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..drift import Chart, Month
from ..drift_strata import Judged
from .agreement_figures import COLOURS, INK, PALE, SOFT, TYPE_POINTS, Drawing, as_file
from .numbers import between, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, PANEL_INCHES, MARGIN_INCHES = 7.0, 1.75, 0.75
ALARM, GROUND = "#a11622", "#8fbcdd"
MOST_LABELS = 12
"""Months named on the axis."""
FILE_PATTERN = "chart_[0-9]*"


def draw_chart_figures(strata: Sequence[Judged]) -> list[Drawing]:
    """One figure for each stratum with a baseline, in their order."""
    drawn = [(place, found) for place, found in enumerate(strata, 1) if any(chart.baseline for chart in found.charts)]
    return [_drawing(place, found) for place, found in drawn]


def _drawing(place: int, found: Judged) -> Drawing:
    figure = _figure(found)
    return Drawing(place, f"chart_{place}", f"Chart {place}. {found.stratum.title}", CAPTION, as_file(figure, "png"),
                   as_file(figure, "svg"))


CAPTION = ("Each point is the mean of one month's people, their number below. Solid: the baseline's mean; grey: 2 SD (dark) "
           "and 3 SD (pale) of such a mean; blue ground: months of the baseline. Hollow points are not judged; red ones "
           "break a rule. Dotted: trend; upright line: since when.")


def _figure(found: Judged) -> Figure:
    from matplotlib.figure import Figure

    charts = [chart for chart in found.charts if chart.baseline]
    size = (WIDTH_INCHES, PANEL_INCHES * len(charts) + MARGIN_INCHES)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    first = None
    for place, chart in enumerate(charts):
        first = axes = figure.add_subplot(len(charts), 1, place + 1, sharex=first)
        _panel(axes, chart)
        axes.tick_params(labelbottom=place == len(charts) - 1)
    months = charts[0].months
    step = max(1, -(-len(months) // MOST_LABELS))
    axes.set_xticks(range(0, len(months), step), [month.month for month in months[::step]])
    figure.suptitle(f"{found.stratum.title}, n = {found.n}", x=0.01, ha="left", fontweight="bold", color=INK,
                    fontsize=TYPE_POINTS["title"])
    return figure


def _panel(axes: Axes, chart: Chart) -> None:
    centre = chart.baseline.mean_hu
    _limits(axes, chart.months, centre)
    axes.axhline(centre, color=INK, linewidth=0.9, zorder=3)
    for at, month in enumerate(chart.months):
        if month.in_baseline:
            axes.axvspan(at - 0.5, at + 0.5, color=GROUND, alpha=0.3, linewidth=0, zorder=2)
    _points(axes, chart)
    title = f"{chart.tissue.capitalize()}, HU"
    if chart.trend_hu is not None:
        title += (f"    trend {number(chart.trend_hu.value, 2)} a year, 95 % "
                  f"{between(chart.trend_hu.low, chart.trend_hu.high, 2)}")
        if chart.change is None or chart.change.pattern == "trend":
            _trend(axes, chart)
    if chart.change is not None and chart.change.pattern != "passing":
        since = [month.month for month in chart.months].index(chart.change.since)
        axes.axvline(since - 0.5, color=ALARM, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    axes.set_title(title, loc="left", fontsize=TYPE_POINTS["text"], color=INK)
    _room(axes, chart)
    axes.tick_params(labelsize=TYPE_POINTS["ticks"], length=3, color=SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)


def _limits(axes: Axes, months: Sequence[Month], centre: float) -> None:
    """Bands in steps, as wide as a month's people are few; none where nobody was scanned."""
    edges = np.arange(len(months) + 1) - 0.5
    for name, colour in (("alarm_hu", "#eef1f3"), ("warning_hu", PALE)):
        width = np.array([getattr(month, name) or np.nan for month in months])
        axes.stairs(centre + width, edges, baseline=centre - width, fill=True, color=colour, linewidth=0, zorder=1)


def _points(axes: Axes, chart: Chart) -> None:
    known = [(at, month) for at, month in enumerate(chart.months) if month.n]
    axes.plot([at for at, _ in known], [month.mean_hu for _, month in known], color=SOFT, linewidth=0.7, zorder=4)
    for at, month in known:
        colour = ALARM if month.rules else COLOURS["training"]
        filled = month.judged or month.in_baseline
        axes.plot([at], [month.mean_hu], "o", color=colour, markersize=4.2, markeredgewidth=0.9,
                  markerfacecolor=colour if filled else "white", zorder=5)


def _trend(axes: Axes, chart: Chart) -> None:
    """Through the mean of all people, at the middle of their months."""
    known = [(at, month) for at, month in enumerate(chart.months) if month.n]
    n = [month.n for _, month in known]
    place = float(np.average([at for at, _ in known], weights=n))
    mean = float(np.average([month.mean_hu for _, month in known], weights=n))
    ends = np.array([known[0][0], known[-1][0]])
    axes.plot(ends, mean + chart.trend_hu.value / 12 * (ends - place), color=INK, linewidth=1.0, linestyle=":", zorder=4)


def _room(axes: Axes, chart: Chart) -> None:
    """Axis that holds points and most limits, with the numbers of people below."""
    known = [month for month in chart.months if month.n]
    means = [month.mean_hu for month in known]
    reach = float(np.median([month.alarm_hu for month in known])) * 1.15
    low = min(*means, chart.baseline.mean_hu - reach)
    high = max(*means, chart.baseline.mean_hu + reach)
    axes.set_ylim(low - 0.28 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(-0.5, len(chart.months) - 0.5)
    step = max(1, -(-len(chart.months) // 30))
    for at, month in enumerate(chart.months):
        if at % step == 0:
            axes.annotate(f"{month.n}", (at, 0.03), xycoords=("data", "axes fraction"), ha="center", color=SOFT,
                          fontsize=TYPE_POINTS["ticks"] - 1.5)
