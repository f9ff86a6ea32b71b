"""Pictures of where two annotators differ: the whole rib cage from the front, and the slices with most of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.rois import Mask

from .evaluation_pictures import FOUND_COLOUR, TRUTH_COLOUR, draw_cut, outlines, slice_of
from .raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND, DisagreementMap, Spot, spot_distance_mm
from .raters_project import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: dict[int, str] = {ONLY_FIRST: TRUTH_COLOUR, ONLY_SECOND: FOUND_COLOUR, DIFFERENT: "#cc79a7"}
"""Of the map of disagreement, after Okabe and Ito; the first two are those of the outlines."""

MARGIN_MM = 20.0
LEAST_SIDE_MM = 140.0
SPOT_SIDE_MM = 110.0


@dataclass(frozen=True)
class View:
    """One picture: what study_page.embedded shows."""

    name: str
    title: str
    caption: str
    png: bytes


def draw_pair(ct: CTVolume, pair: Pair) -> tuple[View, ...]:
    """The projection from the front, the slice with most disagreement, and the largest spot where it lies in another
    slice; none where two readings are the same."""
    found = pair.comparison
    if found.worst_slice is None:
        return ()
    box = _box(found.disagreement, pair, ct)
    views = [_front(ct, found.beyond, box),
             _axial(ct, pair, found.worst_slice, box[1:], "worst_slice", "Slice with most disagreement", "")]
    if found.spots:
        spot = found.spots[0]
        views.append(_axial(ct, pair, spot.slice, _around(spot, ct), "largest_spot", "Largest spot",
                            f"{spot_sentence(spot, pair.readers)} "))
    return tuple(views)


def spot_sentence(spot: Spot, readers: tuple[str, str]) -> str:
    """A spot in words."""
    who, other = readers[spot.reader], readers[1 - spot.reader]
    where = f"up to {spot.reach_mm:.0f} mm beyond {other}" if math.isfinite(spot.reach_mm) else f"none by {other}"
    return f"{spot.volume_mm3 / 1000:.2f} cm³ of {STRUCTURES[spot.structure].title.lower()} by {who}, {where}."


def _box(found: DisagreementMap, pair: Pair, ct: CTVolume) -> tuple[slice, slice, slice]:
    """What pictures show: all that both have drawn, and a margin."""
    drawn = [mask for labels in pair.readings for mask in labels.masks.values() if not mask.empty]
    low = np.min([mask.start_kji for mask in drawn], axis=0)
    high = np.max([np.add(mask.start_kji, mask.voxels.shape) for mask in drawn], axis=0)
    return tuple(_span((a + b) / 2, max((b - a) * mm + 2 * MARGIN_MM, LEAST_SIDE_MM), mm, size)
                 for a, b, mm, size in zip(low, high, ct.geometry.spacing_kji_mm, ct.hu.shape, strict=True))


def _span(middle: float, length_mm: float, spacing_mm: float, size: int) -> slice:
    half = length_mm / spacing_mm / 2
    return slice(max(0, math.floor(middle - half)), min(size, math.ceil(middle + half)))


def _around(spot: Spot, ct: CTVolume) -> tuple[slice, slice]:
    """Rows and columns round a spot."""
    kji = ct.geometry.to_kji(np.array(spot.position_lps_mm))
    rows, columns = (_span(kji[axis], SPOT_SIDE_MM, ct.geometry.spacing_kji_mm[axis], ct.hu.shape[axis]) for axis in (1, 2))
    return rows, columns


def _axial(ct: CTVolume, pair: Pair, k: int, box: tuple[slice, slice], name: str, title: str, text: str) -> View:
    spacing = ct.geometry.spacing_kji_mm[1:]
    cuts = [np.logical_or.reduce([slice_of(mask, k, *box) for mask in labels.masks.values()] or
                                 [np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), bool)])
            for labels in pair.readings]
    values = _slice_of_map(pair.comparison.disagreement, k, box)

    def overlay(axes: Axes) -> None:
        _fill(axes, values, spacing)
        outlines(axes, cuts, spacing)

    png = draw_cut(ct.hu[k][box], spacing, "RLAP", f"slice {k + 1}", overlay)
    return View(name, title, f"{text}Slice {k + 1} of {ct.hu.shape[0]}.", png)


def _slice_of_map(found: DisagreementMap, k: int, box: tuple[slice, slice]) -> np.ndarray:
    """(rows, columns) values of the map of disagreement."""
    values = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.uint8)
    for value in COLOURS:
        values[slice_of(Mask(found.voxels == value, found.start_kji), k, *box)] = value
    return values


def _front(ct: CTVolume, found: DisagreementMap, box: tuple[slice, slice, slice]) -> View:
    """The brightest voxel from front to back, and over it the most frequent value of a map behind each point."""
    shown = np.zeros((ct.hu.shape[0], ct.hu.shape[2]), np.uint8)
    k, _, i = found.start_kji
    counts = np.stack([np.count_nonzero(found.voxels == value, axis=1) for value in COLOURS])
    values = np.where(counts.any(axis=0), np.array(list(COLOURS), np.uint8)[counts.argmax(axis=0)], 0)
    shown[k:k + values.shape[0], i:i + values.shape[1]] = values
    k_mm, _, i_mm = ct.geometry.spacing_kji_mm
    png = draw_cut(ct.hu[box].max(axis=1)[::-1], (k_mm, i_mm), "RLSI", "from the front",
                   lambda axes: _fill(axes, shown[box[0], box[2]][::-1], (k_mm, i_mm)))
    return View("front", "From the front", "Brightest voxel of each line, and what lies more than "
                f"{spot_distance_mm(ct.geometry):.2g} mm from what the other drew.", png)


def _fill(axes: Axes, values: np.ndarray, spacing_mm: tuple[float, float]) -> None:
    """The map's colours where it is not 0; the first row at the top."""
    from matplotlib.colors import to_rgba

    picture = np.zeros((*values.shape, 4))
    for value, colour in COLOURS.items():
        picture[values == value] = to_rgba(colour, 0.65)
    height_mm, width_mm = values.shape[0] * spacing_mm[0], values.shape[1] * spacing_mm[1]
    axes.imshow(picture, extent=(0.0, width_mm, height_mm, 0.0), interpolation="nearest", aspect="equal")
