"""Pictures of where the models do worst: the outline that a person drew and the one that was found, on the CT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.report.figures import DOTS_PER_INCH, SCALE_BAR_MM, halo
from LowDoseBMDLib.rois import NO_VOXELS, Mask

from .evaluation import PLAIN, Drawn
from .evaluation_subject import IN_TRAINING
from .scores import IDENTIFIED_WITHIN_MM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = 5
"""How many are kept."""

WINDOW_HU = (1800.0, 400.0)
"""Width and level of the usual bone window."""

MARGIN_MM = 25.0
LEAST_SIDE_MM = 120.0
"""What a picture shows round both outlines, and at least: enough to see where in the body it is."""

LONGEST_SIDE_INCHES = 4.6
ROUND_POINTS_MM = 80.0
"""What a picture of a level shows before and behind, above and below."""

TRUTH_COLOUR, FOUND_COLOUR = "#f0e442", "#56b4e9"
"""Yellow and sky blue after Okabe and Ito; the outline that was found is dashed, so that grey prints tell them apart."""


@dataclass(frozen=True)
class Picture:
    """badness: 0 perfect, 1 as bad as can be. caption: a sentence."""

    case: str
    subject: str
    badness: float
    title: str
    caption: str
    png: bytes


@dataclass
class Worst:
    """Keeps the worst few pictures while cases go by, so that no CT need be kept."""

    kept: list[Picture] = field(default_factory=list)

    def add(self, drawn: Drawn) -> None:
        """Draw what is worse than what is kept; perturbed cases are passed over."""
        if drawn.scores.perturbation != PLAIN:
            return
        for badness, subject in sorted(_candidates(drawn), reverse=True)[:PICTURES]:
            if len(self.kept) == PICTURES and badness <= self.kept[-1].badness:
                break
            self.kept.append(_picture(drawn, subject, badness))
            self.kept = sorted(self.kept, key=lambda picture: -picture.badness)[:PICTURES]


def _candidates(drawn: Drawn) -> Iterator[tuple[float, str]]:
    """(badness, name of a structure or level). A point that is 20 mm off is as bad as a structure that was missed."""
    for score in drawn.scores.structures:
        if score.dice < 1:
            yield 1.0 - score.dice, score.structure
    worst = max(drawn.scores.keypoints, key=lambda score: score.error_mm, default=None)
    if worst is not None and worst.error_mm > 0:
        yield min(1.0, worst.error_mm / IDENTIFIED_WITHIN_MM), worst.level


def _picture(drawn: Drawn, subject: str, badness: float) -> Picture:
    if subject in STRUCTURES:
        return _of_structure(drawn, subject, badness)
    return _of_level(drawn, subject, badness)


# --- structures --------------------------------------------------------------------------------------------

def _of_structure(drawn: Drawn, name: str, badness: float) -> Picture:
    score = next(one for one in drawn.scores.structures if one.structure == name)
    truth, found = (labels.masks.get(name, NO_VOXELS) for labels in (drawn.truth, drawn.found))
    k = worst_slice(truth, found)
    rows, columns = (_span(truth, found, axis, drawn.ct.geometry) for axis in (1, 2))
    cut = [slice_of(mask, k, rows, columns) for mask in (truth, found)]
    _, j_mm, i_mm = drawn.ct.geometry.spacing_kji_mm
    png = draw_cut(drawn.ct.hu[k][rows, columns], (j_mm, i_mm), "RLAP", f"slice {k + 1}",
                   lambda axes: outlines(axes, cut, (j_mm, i_mm)))
    far = "nothing was found" if found.empty else "nothing is there" if truth.empty else f"HD95 {score.hd95_mm:.1f} mm"
    return Picture(drawn.scores.case, name, badness, f"Case {drawn.scores.case}, {STRUCTURES[name].title.lower()}",
                   f"Dice {score.dice:.2f}, {far}; {IN_TRAINING[drawn.scores.exposure]}.", png)


def worst_slice(truth: Mask, found: Mask) -> int:
    """k of the slice in which two regions, not both empty, differ most."""
    areas: dict[int, int] = {}
    both = [mask for mask in (truth, found) if not mask.empty]
    for k in range(min(mask.box[0].start for mask in both), max(mask.box[0].stop for mask in both)):
        low = [min(mask.box[axis].start for mask in both) for axis in (1, 2)]
        high = [max(mask.box[axis].stop for mask in both) for axis in (1, 2)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        areas[k] = int(np.count_nonzero(slice_of(truth, k, *box) ^ slice_of(found, k, *box)))
    return max(areas, key=areas.__getitem__)


def slice_of(mask: Mask, k: int, rows: slice, columns: slice) -> np.ndarray:
    """(rows, columns) bool of one slice of a region."""
    result = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
    if mask.empty or not mask.box[0].start <= k < mask.box[0].stop:
        return result
    whole = [mask.box[axis] for axis in (1, 2)]
    inner = [slice(max(w.start, s.start), min(w.stop, s.stop)) for w, s in zip(whole, (rows, columns), strict=True)]
    if all(s.stop > s.start for s in inner):
        there = tuple(slice(s.start - o.start, s.stop - o.start) for s, o in zip(inner, (rows, columns), strict=True))
        here = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(inner, whole, strict=True))
        result[there] = mask.voxels[k - mask.box[0].start][here]
    return result


def _span(truth: Mask, found: Mask, axis: int, geometry: Geometry) -> slice:
    both = [mask.box[axis] for mask in (truth, found) if not mask.empty]
    low, high = min(s.start for s in both), max(s.stop for s in both)
    spacing = geometry.spacing_kji_mm[axis]
    margin = max(MARGIN_MM, (LEAST_SIDE_MM - (high - low) * spacing) / 2) / spacing
    return slice(max(0, math.floor(low - margin)), min(geometry.shape_kji[axis], math.ceil(high + margin)))


def outlines(axes: Axes, cut: list[np.ndarray], spacing_mm: tuple[float, float]) -> None:
    row_mm, column_mm = spacing_mm
    for inside, colour, style in zip(cut, (TRUTH_COLOUR, FOUND_COLOUR), ("solid", (0, (3, 1.5))), strict=True):
        if inside.any():
            x = (np.arange(inside.shape[1] + 2) - 0.5) * column_mm
            y = (np.arange(inside.shape[0] + 2) - 0.5) * row_mm
            axes.contour(x, y, np.pad(inside.astype(float), 1), levels=[0.5], linewidths=1.1, colors=[colour],
                         linestyles=[style])


# --- levels ------------------------------------------------------------------------------------------------

def _of_level(drawn: Drawn, level: str, badness: float) -> Picture:
    """Sagittal cut through the true centre of a level, with all centres."""
    geometry = drawn.ct.geometry
    score = next(one for one in drawn.scores.keypoints if one.level == level)
    places = [{point.level: geometry.to_kji(np.array(point.position_lps_mm)) for point in labels.keypoints}
              for labels in (drawn.truth, drawn.found)]
    centre = places[0][level]
    k_mm, j_mm, _ = geometry.spacing_kji_mm
    spans = []
    for axis, spacing in ((0, k_mm), (1, j_mm)):
        low, high = centre[axis] - ROUND_POINTS_MM / spacing, centre[axis] + ROUND_POINTS_MM / spacing
        spans.append(slice(max(0, math.floor(low)), min(geometry.shape_kji[axis], math.ceil(high) + 1)))
    i = int(np.clip(round(centre[2]), 0, geometry.shape_kji[2] - 1))
    png = draw_cut(drawn.ct.hu[spans[0], spans[1], i][::-1], (k_mm, j_mm), "APSI", f"through {level}",
                   lambda axes: _points(axes, places, spans, (k_mm, j_mm)))
    far = "Not found" if math.isinf(score.error_mm) else f"{score.error_mm:.1f} mm off"
    right = "identified" if score.identified else "not identified"
    return Picture(drawn.scores.case, level, badness, f"Case {drawn.scores.case}, {level}",
                   f"{far}, {right}; {IN_TRAINING[drawn.scores.exposure]}.", png)


def _points(axes: Axes, places: list[dict[str, np.ndarray]], spans: list[slice], spacing_mm: tuple[float, float]) -> None:
    for points, colour, sign, side in zip(places, (TRUTH_COLOUR, FOUND_COLOUR), ("+", "x"), (-1, 1), strict=True):
        for name, (k, j, _) in points.items():
            if spans[0].start <= k < spans[0].stop and spans[1].start <= j < spans[1].stop:
                x, y = (j - spans[1].start + 0.5) * spacing_mm[1], (spans[0].stop - 0.5 - k) * spacing_mm[0]
                axes.plot([x], [y], sign, color=colour, markersize=7, markeredgewidth=1.4)
                axes.text(x + 5 * side, y, name, color=colour, fontsize=9, va="center", ha="left" if side > 0 else "right",
                          path_effects=halo(2.0))


# --- drawing -----------------------------------------------------------------------------------------------

def draw_cut(hu: np.ndarray, spacing_mm: tuple[float, float], sides: str, note: str,
             overlay: Callable[[Axes], None]) -> bytes:
    """PNG of a cut (first row at the top); sides: letters left, right, top, bottom."""
    import io

    from matplotlib.figure import Figure

    height_mm, width_mm = hu.shape[0] * spacing_mm[0], hu.shape[1] * spacing_mm[1]
    inches = LONGEST_SIDE_INCHES / max(height_mm, width_mm)
    figure = Figure(figsize=(width_mm * inches, height_mm * inches), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    width_hu, level_hu = WINDOW_HU
    axes.imshow(hu, cmap="gray", vmin=level_hu - width_hu / 2, vmax=level_hu + width_hu / 2, aspect="equal",
                extent=(0.0, width_mm, height_mm, 0.0), interpolation="bilinear")
    overlay(axes)
    _letters(axes, sides, f"{note}\nW {width_hu:.0f}  L {level_hu:.0f}")
    bar_mm = SCALE_BAR_MM if width_mm > 2.5 * SCALE_BAR_MM else SCALE_BAR_MM / 5
    x, y = width_mm * 0.97, height_mm * 0.97
    axes.plot([x - bar_mm, x], [y, y], color="white", linewidth=1.6, solid_capstyle="butt", path_effects=halo(2.8))
    axes.text(x - bar_mm / 2, y - 0.015 * height_mm, f"{bar_mm:.0f} mm", color="white", fontsize=7, ha="center", va="bottom",
              path_effects=halo(1.8))
    axes.set(xlim=(0, width_mm), ylim=(height_mm, 0))
    axes.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()


def _letters(axes: Axes, sides: str, note: str) -> None:
    places = ((0.012, 0.5, "left", "center"), (0.988, 0.5, "right", "center"), (0.5, 0.99, "center", "top"),
              (0.5, 0.01, "center", "bottom"))
    for letter, (x, y, ha, va) in zip(sides, places, strict=True):
        axes.text(x, y, letter, color="white", fontsize=8, ha=ha, va=va, transform=axes.transAxes, path_effects=halo(1.8))
    axes.text(0.012, 0.99, note, color="white", fontsize=7, ha="left", va="top", transform=axes.transAxes,
              path_effects=halo(1.8))
