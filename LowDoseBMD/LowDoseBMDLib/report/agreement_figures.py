"""Figures 2 to 7 of the published study, drawn from any cohort: scatter, Bland-Altman and ROC of each set.

Drawn with matplotlib's object interface, never pyplot, at the width of a journal's column. The statistics stand
above the axes, where they hide no point.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .agreement_text import SPLIT_TITLES
from .numbers import UNIT, between, counts, estimate, number, p_value, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..agreement import Line
    from .agreement_sets import SetStatistics

SIZE_INCHES = (3.5, 4.15)
"""One column of a journal (89 mm)."""
DOTS_PER_INCH = 300
COLOURS = {"training": "#22577a", "test": "#a8481c"}
INK, SOFT, PALE = "#1d2329", "#5a646e", "#d5dbe0"
LINE_POINTS = 10.5
TYPE_POINTS = {"title": 8.5, "text": 7.0, "ticks": 7.0}
MEASURED_AXIS = f"vBMD by low-dose CT (AI), {UNIT}"
REFERENCE_AXIS = f"vBMD by QCT, {UNIT}"
MEAN_AXIS = f"Mean of AI and QCT, {UNIT}"
DIFFERENCE_AXIS = f"Difference AI − QCT, {UNIT}"
STEP_MG_CM3 = 50.0
"""Between marks on density axes, which end on a multiple of it."""
MARGIN_MG_CM3 = 5.0
LABEL_SHARE = 0.15
"""Of half the axis: lines closer than this are not named, because their names would overlap."""


@dataclass(frozen=True)
class Axis:
    """What the axes of all sets show, so that training and test can be compared by eye; mg/cm3."""

    low: float
    high: float
    reach: float
    """Of the differences, either way."""


@dataclass(frozen=True)
class Drawing:
    """One figure as files. number: as in the published study."""

    number: int
    name: str
    title: str
    caption: str
    png: bytes
    svg: bytes


def draw_figures(sets: list[SetStatistics]) -> Iterator[Drawing]:
    """The figures in the study's order: scatter of training and test (2, 3), Bland-Altman (4, 5), ROC (6, 7).

    A figure whose statistics could not be computed is left out.
    """
    kinds = (("scatter", _scatter, 2), ("bland_altman", _bland_altman, 4), ("roc", _roc, 6))
    axis = _common_axis(sets)
    for kind, draw, first in kinds:
        for found in sets:
            if _can_draw(kind, found):
                place = first + list(SPLIT_TITLES).index(found.split)
                figure, caption = draw(found, axis)
                title = f"Figure {place}. {SPLIT_TITLES[found.split]} (n = {found.n})"
                yield Drawing(place, f"figure_{place}_{kind}_{found.split}", title, caption,
                              as_file(figure, "png"), as_file(figure, "svg"))


def _can_draw(kind: str, found: SetStatistics) -> bool:
    needed = {"scatter": found.spearman, "bland_altman": found.bland_altman, "roc": found.roc}
    return needed[kind] is not None


# --- scatter -----------------------------------------------------------------------------------------------

def _common_axis(sets: list[SetStatistics]) -> Axis:
    values = np.concatenate([part for found in sets for part in (found.measured, found.reference)])
    limits = [edge for found in sets if found.bland_altman
              for edge in (found.bland_altman.lower.low, found.bland_altman.upper.high)]
    differences = np.concatenate([np.abs(limits), *(np.abs(found.measured - found.reference) for found in sets)])
    high = STEP_MG_CM3 * np.ceil((values.max() + MARGIN_MG_CM3) / STEP_MG_CM3)
    return Axis(min(0.0, float(values.min()) - MARGIN_MG_CM3), float(high), 1.15 * max(float(differences.max()), 1.0))


def _density_ticks(axis: Axis) -> np.ndarray:
    return np.arange(STEP_MG_CM3 * np.ceil(axis.low / STEP_MG_CM3), axis.high + 1, STEP_MG_CM3)


def _scatter(found: SetStatistics, axis: Axis) -> tuple[Figure, str]:
    """Measured against reference, with the line of identity and the Passing-Bablok line."""
    lines = [f"Spearman r = {estimate(found.spearman, 3)}, {p_value(found.spearman_p)}"]
    if found.icc_agreement is not None:
        lines.append(f"ICC(A,1) = {estimate(found.icc_agreement, 3)}")
    if found.passing_bablok is not None:
        lines.append(f"Passing-Bablok (solid) {_equation(found.passing_bablok)}")
    figure, axes = _new_figure(found, lines)
    ends = (axis.low, axis.high)
    axes.plot(ends, ends, color=SOFT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=2)
    _limit_lines(axes, found.limit, axis)
    _points(axes, found, found.reference, found.measured)
    if found.passing_bablok is not None:
        line, between_ends = found.passing_bablok, np.array([found.reference.min(), found.reference.max()])
        axes.plot(between_ends, line.intercept.value + line.slope.value * between_ends, color=INK, linewidth=1.2, zorder=4)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=REFERENCE_AXIS, ylabel=MEASURED_AXIS,
             xticks=_density_ticks(axis), yticks=_density_ticks(axis))
    return figure, (f"Each point is one person. Dashed: identity; solid: Passing-Bablok regression; dotted: "
                    f"{found.limit:.0f} {UNIT}, the limit of osteoporosis.")


def _equation(line: Line) -> str:
    sign = "−" if line.intercept.value < 0 else "+"
    return f"y = {number(line.slope.value, 2)}x {sign} {number(abs(line.intercept.value), 1)}"


# --- Bland-Altman ------------------------------------------------------------------------------------------

def _bland_altman(found: SetStatistics, axis: Axis) -> tuple[Figure, str]:
    """Difference on mean, with bias, limits of agreement, their intervals and the line of proportional bias."""
    result = found.bland_altman
    lines = [f"Bias {estimate(result.bias, 2)} {UNIT}",
             f"95 % limits of agreement {between(result.lower.value, result.upper.value, 2)} {UNIT}",
             f"Outside the limits {result.outside}/{result.n} ({percent(result.outside / result.n)})",
             f"Slope of difference on mean (dotted) {number(result.slope.value, 3)}, {p_value(result.slope_p)}"]
    figure, axes = _new_figure(found, lines)
    mean, difference = (found.measured + found.reference) / 2, found.measured - found.reference
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=1)
    _points(axes, found, mean, difference)
    room = result.upper.value - result.bias.value > LABEL_SHARE * axis.reach
    for name, level, style in (("+1.96 SD", result.upper, "--"), ("bias", result.bias, "-"),
                               ("−1.96 SD", result.lower, "--")):
        axes.axhspan(level.low, level.high, color=SOFT, alpha=0.18, linewidth=0, zorder=2)
        axes.axhline(level.value, color=INK, linewidth=1.0, linestyle=style, zorder=4)
        if room or name == "bias":
            axes.annotate(f"{name}\n{number(level.value, 1)}", (1.015, level.value), xycoords=("axes fraction", "data"),
                          fontsize=TYPE_POINTS["text"], va="center", color=INK, linespacing=1.05)
    ends = np.array([mean.min(), mean.max()])  # the line passes through the means of both
    axes.plot(ends, result.bias.value + result.slope.value * (ends - mean.mean()), color=INK, linewidth=1.1, linestyle=":",
              zorder=4)
    axes.set(xlim=(axis.low, axis.high), ylim=(-axis.reach, axis.reach), xlabel=MEAN_AXIS, ylabel=DIFFERENCE_AXIS,
             xticks=_density_ticks(axis))
    return figure, ("Solid: bias; dashed: 95 % limits of agreement (bias ± 1.96 SD); grey bands: their 95 % confidence "
                    "intervals; dotted: regression of the difference on the mean. A sloping dotted line means that "
                    "low and high densities are misread in opposite directions.")


# --- ROC ---------------------------------------------------------------------------------------------------

def _roc(found: SetStatistics, _axis: Axis) -> tuple[Figure, str]:
    """The curve of "below the limit by QCT", with the operating point at the limit itself and Youden's."""
    below = int(np.count_nonzero(found.reference < found.limit))
    lines = [f"AUC = {estimate(found.roc.auc, 3)}",
             f"{below} of {found.n} below {found.limit:.0f} {UNIT} by QCT"]
    table = found.diagnostic
    if table is not None:
        lines += [f"AI below {found.limit:.0f} {UNIT} (dot): sensitivity {counts(table.sensitivity)},",
                  f"specificity {counts(table.specificity)}"]
    figure, axes = _new_figure(found, lines)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    axes.plot(found.roc.false_positive_rate, found.roc.true_positive_rate, color=COLOURS[found.split], linewidth=1.6,
              zorder=3, clip_on=False)
    if table is not None:
        axes.plot([1 - table.specificity.value], [table.sensitivity.value], "o", color=INK, markersize=5, zorder=5,
                  clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="1 − specificity", ylabel="Sensitivity")
    return figure, (f"Detection of vBMD below {found.limit:.0f} {UNIT} by QCT. Dot: where the AI value is held against "
                    "the same limit; dashed: chance.")


# --- parts -------------------------------------------------------------------------------------------------

def _new_figure(found: SetStatistics, lines: list[str]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{SPLIT_TITLES[found.split]}, n = {found.n}", loc="left", fontweight="bold", color=INK,
                   fontsize=TYPE_POINTS["title"], pad=8 + LINE_POINTS * len(lines))
    axes.annotate("\n".join(lines), (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points",
                  fontsize=TYPE_POINTS["text"], color=INK, linespacing=1.35, va="bottom").set_in_layout(False)
    axes.tick_params(labelsize=TYPE_POINTS["ticks"], length=3, color=SOFT)
    axes.xaxis.label.set_fontsize(TYPE_POINTS["text"])
    axes.yaxis.label.set_fontsize(TYPE_POINTS["text"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    return figure, axes


def _points(axes: Axes, found: SetStatistics, x: np.ndarray, y: np.ndarray) -> None:
    """Fainter the more there are, so that a cloud shows its density."""
    alpha = float(np.clip(18 / np.sqrt(max(1, found.n)) / 2, 0.3, 0.9))
    axes.scatter(x, y, s=9, color=COLOURS[found.split], alpha=alpha, linewidths=0, zorder=3)


def _limit_lines(axes: Axes, limit: float, axis: Axis) -> None:
    style = {"color": SOFT, "linewidth": 0.8, "linestyle": ":", "zorder": 1}
    axes.axvline(limit, **style)
    axes.axhline(limit, **style)
    axes.text(limit - 0.01 * (axis.high - axis.low), axis.high, f"{limit:.0f}", fontsize=TYPE_POINTS["ticks"], color=SOFT,
              ha="right", va="top")
    axes.text(axis.high, limit - 0.01 * (axis.high - axis.low), f"{limit:.0f}", fontsize=TYPE_POINTS["ticks"], color=SOFT,
              ha="right", va="top")


def as_file(figure: Figure, kind: str) -> bytes:
    """The figure as "png" or "svg"; the PNG first, whose layout the SVG takes over."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    if kind == "png":
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=DOTS_PER_INCH)
        figure.set_layout_engine("none")  # the SVG, which comes next, is laid out as the PNG is
    else:
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
