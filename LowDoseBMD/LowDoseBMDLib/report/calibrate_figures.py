"""Figures of a calibration: every model against QCT, its residuals, and what the residuals still follow.

All points are people left out of the fit of the model that judged them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..calibration_choice import LITERATURE, TITLES, Candidate, Comparison
from ..measurement import OSTEOPOROSIS_BELOW_MG_CM3
from .agreement_figures import COLOURS, INK, PALE, SOFT, STEP_MG_CM3, TYPE_POINTS, Drawing, as_file
from .numbers import UNIT, between, counts, number, p_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
PANEL_INCHES = (2.55, 2.75)
FACTORS = (("muscle_hu", "Muscle, HU"), ("fat_hu", "Fat, HU"), ("age_years", "Age, years"))
FEWEST_POINTS = 10
"""With fewer people whose factor is known its panel stays empty."""


def draw_figures(found: Comparison, chosen: str) -> Iterator[Drawing]:
    """Predicted against QCT and residual against mean, one panel a model; residual against muscle, fat and age for the
    literature's line and the model ``chosen``."""
    drawings = (
        ("figure_1_predicted", "Predicted density against QCT", _predicted(found, chosen),
         f"Dashed: identity; dotted: {OSTEOPOROSIS_BELOW_MG_CM3:.0f} {UNIT}. Points left of the upright and above the level "
         "dotted line are people with osteoporosis whom the model misses at that limit. Coloured: the model of this file."),
        ("figure_2_residual", "Residual against the mean of prediction and QCT", _residuals(found, chosen),
         "Solid: bias; dashed: 95 % limits of agreement; dotted: regression of the difference on the mean. A falling dotted "
         "line means that low densities read high and high ones low."),
        ("figure_3_tissue", "What the residual follows", _factors(found, chosen),
         "Solid: least squares. A residual that follows muscle or fat HU shows what people's own tissue does to the value; "
         "one that follows age, a bias in the old, such as bony spurs."))
    for place, (name, title, figure, caption) in enumerate(drawings, 1):
        yield Drawing(place, name, f"Figure {place}. {title}", caption, as_file(figure, "png"), as_file(figure, "svg"))


def _predicted(found: Comparison, chosen: str) -> Figure:
    reference, limit = found.people.reference_mg_cm3, OSTEOPOROSIS_BELOW_MG_CM3
    values = np.concatenate([reference, *(one.held_out.predicted for one in found.candidates.values())])
    ends = _ends(values)
    figure, panels = _panels(len(found.candidates))
    for axes, one in zip(panels, found.candidates.values(), strict=True):
        result = one.performance
        _titled(axes, TITLES[one.kind], [f"r {number(result.pearson.value, 3)}, slope {number(result.slope, 2)}",
                                         f"below {limit:.0f}: {counts(result.diagnostic.sensitivity)} found"])
        axes.plot(ends, ends, color=SOFT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=2)
        for line in (axes.axvline, axes.axhline):
            line(limit, color=SOFT, linewidth=0.8, linestyle=":", zorder=1)
        _points(axes, reference, one.held_out.predicted, one.kind == chosen)
        axes.set(xlim=ends, ylim=ends, aspect="equal", xticks=_ticks(ends), yticks=_ticks(ends))
    _label(figure, f"vBMD by QCT, {UNIT}", f"Predicted vBMD, {UNIT}")
    return figure


def _residuals(found: Comparison, chosen: str) -> Figure:
    reference = found.people.reference_mg_cm3
    means = {kind: (one.held_out.predicted + reference) / 2 for kind, one in found.candidates.items()}
    reach = _reach(found, found.candidates.values())
    ends = _ends(np.concatenate(list(means.values())))
    figure, panels = _panels(len(found.candidates))
    for axes, (kind, one) in zip(panels, found.candidates.items(), strict=True):
        result = one.performance.bland_altman
        _titled(axes, TITLES[kind], [f"bias {number(result.bias.value, 1)}, slope {number(result.slope.value, 3)}",
                                     f"limits {between(result.lower.value, result.upper.value, 1)}"])
        axes.axhline(0, color=PALE, linewidth=0.8, zorder=1)
        _points(axes, means[kind], one.held_out.predicted - reference, kind == chosen)
        for level, style in ((result.lower, "--"), (result.bias, "-"), (result.upper, "--")):
            axes.axhline(level.value, color=INK, linewidth=0.9, linestyle=style, zorder=4)
        span = np.array([means[kind].min(), means[kind].max()])
        axes.plot(span, result.bias.value + result.slope.value * (span - means[kind].mean()), color=INK, linewidth=1.1,
                  linestyle=":", zorder=4)
        axes.set(xlim=ends, ylim=(-reach, reach), xticks=_ticks(ends))
    _label(figure, f"Mean of prediction and QCT, {UNIT}", f"Prediction − QCT, {UNIT}")
    return figure


def _factors(found: Comparison, chosen: str) -> Figure:
    shown = [found.candidates[kind] for kind in dict.fromkeys((LITERATURE, chosen)) if kind in found.candidates]
    reach = _reach(found, shown)
    figure, panels = _panels(len(FACTORS) * len(shown))
    pairs = [(one, *factor) for one in shown for factor in FACTORS]
    for axes, (one, name, title) in zip(panels, pairs, strict=True):
        _factor(axes, found, one, name, one.kind == chosen)
        axes.set_xlabel(title, fontsize=TYPE_POINTS["text"])
        axes.set(ylim=(-reach, reach))
    _label(figure, "", f"Prediction − QCT, {UNIT}")
    return figure


def _factor(axes: Axes, found: Comparison, one: Candidate, name: str, coloured: bool) -> None:
    from scipy.stats import linregress

    values, residual = getattr(found.people, name), one.held_out.predicted - found.people.reference_mg_cm3
    known = np.isfinite(values)
    values, residual = values[known], residual[known]
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=1)
    if values.size < FEWEST_POINTS or np.ptp(values) == 0:
        _titled(axes, TITLES[one.kind], ["not known, or the same in all"])
        return
    line = linregress(values, residual)
    _titled(axes, TITLES[one.kind], [f"slope {number(line.slope, 2)}, {p_value(line.pvalue)}"])
    _points(axes, values, residual, coloured)
    span = np.array([values.min(), values.max()])
    axes.plot(span, line.intercept + line.slope * span, color=INK, linewidth=1.1, zorder=4)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1]), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.05)
    panels = [figure.add_subplot(rows, COLUMNS, place + 1) for place in range(count)]
    for axes in panels:
        axes.tick_params(labelsize=TYPE_POINTS["ticks"], length=3, color=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(SOFT)
    return figure, panels


def _titled(axes: Axes, title: str, lines: list[str]) -> None:
    axes.set_title("\n".join([title, *lines]), loc="left", fontsize=TYPE_POINTS["text"], color=INK, linespacing=1.3)


def _label(figure: Figure, x: str, y: str) -> None:
    if x:
        figure.supxlabel(x, fontsize=TYPE_POINTS["title"], color=INK)
    figure.supylabel(y, fontsize=TYPE_POINTS["title"], color=INK)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, coloured: bool) -> None:
    """Fainter the more there are, so that a cloud shows its density."""
    alpha = float(np.clip(7 / np.sqrt(max(1, len(x))), 0.2, 0.8))
    axes.scatter(x, y, s=6, color=COLOURS["training"] if coloured else SOFT, alpha=alpha, linewidths=0, zorder=3)


def _ends(values: np.ndarray) -> tuple[float, float]:
    return min(0.0, float(values.min()) - 5), float(STEP_MG_CM3 * np.ceil((values.max() + 5) / STEP_MG_CM3))


def _ticks(ends: tuple[float, float]) -> np.ndarray:
    return np.arange(STEP_MG_CM3 * np.ceil(ends[0] / STEP_MG_CM3), ends[1] + 1, STEP_MG_CM3)


def _reach(found: Comparison, shown: object) -> float:
    return 1.1 * max(1.0, *(float(np.abs(one.held_out.predicted - found.people.reference_mg_cm3).max()) for one in shown))
