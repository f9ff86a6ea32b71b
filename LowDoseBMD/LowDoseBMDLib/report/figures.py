"""Pictures of what was measured: cuts through the CT with the regions outlined, and their HU.

Pictures are drawn with matplotlib's object interface, never pyplot, so that they can be made in any thread and
inside Slicer. Left of a coronal or axial picture is the patient's right, as on a reading screen.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..anatomy import LEVELS, STRUCTURES
from ..ctvolume import CTVolume
from ..measurement import Measurement
from ..results import PICTURES
from ..rois import Mask, Rois
from ..roistats import hu_inside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BONE_WINDOW_HU = (700.0, 150.0)
"""Width and level for trabecular bone at low dose: in the usual bone window (1800/400) 50..150 HU are one grey."""
SOFT_TISSUE_WINDOW_HU = (400.0, 40.0)
"""Width and level of the usual soft-tissue window."""

SLAB_MM = 3.0
"""Long cuts average this thickness: single low-dose slices are too noisy to judge an outline."""
AROUND_SPINE_MM = {"k": (60.0, 60.0), "j": (85.0, 65.0), "i": (75.0, 75.0)}
"""What long cuts show below and above, before and behind, right and left of the level centres."""
BODY_ABOVE_HU = -300.0
"""Parts the body from the air round it, for cropping only."""
MARGIN_MM = 8.0
SCALE_BAR_MM = 50.0
WIDTH_INCHES = 3.6
"""Of every picture: two stand side by side on A4, so that type has one size in all of them."""
HEIGHT_INCHES = 5.0
"""At most; a taller picture is made narrower."""
PNG_COMPRESSION = 3
"""Of 9: a third of the time of the usual 6, for some more bytes."""
DOTS_PER_INCH = 200
NAME_GAP_MM = 3.0
LETTER_INCHES = 0.078
"""Width of a letter of a level's name."""
HISTOGRAM_RANGE_HU = (-200.0, 450.0)
HISTOGRAM_STEP_HU = 15.0
HISTOGRAM_EDGES_HU = np.arange(HISTOGRAM_RANGE_HU[0], HISTOGRAM_RANGE_HU[1] + HISTOGRAM_STEP_HU, HISTOGRAM_STEP_HU)
"""Borders of the bins, the last not below the end of the range; a bin holds its lower border."""
_LINES = {"T12": ":", "L1": "-", "L2": "--"}


@dataclass(frozen=True)
class _Picture:
    """One cut. hu: (rows, columns), first row at the top. sides: letters left, right, top, bottom.
    regions: by structure name, bool like hu. points: (text, colour, row, column)."""

    hu: np.ndarray
    row_mm: float
    column_mm: float
    sides: str
    window_hu: tuple[float, float]
    note: str
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    points: tuple[tuple[str, tuple[float, ...], float, float], ...] = ()

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        return self.hu.shape[1] * self.column_mm, self.hu.shape[0] * self.row_mm

    @property
    def mm_per_inch(self) -> float:
        """Millimetres of patient in an inch of picture."""
        return max(self.size_mm[0] / WIDTH_INCHES, self.size_mm[1] / HEIGHT_INCHES)


def make_figures(ct: CTVolume, rois: Rois, measurement: Measurement,
                 wanted: Collection[str] = PICTURES) -> dict[str, bytes]:
    """PNG files by name, those that are wanted: sagittal, coronal, and as far as there are regions axial_bone, axial_tissue,
    histogram.

    Regions and keypoints that are missing are left out; without any, the cuts show the middle of the scan.
    """
    centres = _centres(ct, rois, measurement)
    pictures = {"sagittal": _long_cut(ct, rois, measurement, centres, 2),
                "coronal": _long_cut(ct, rois, measurement, centres, 1)}
    level = next((name for name in (*measurement.mean_of, "L1", "L2", "T12") if name in centres), None)
    if level is not None:
        pictures["axial_bone"] = _axial(ct, rois, measurement, round(centres[level][0]), level)
    tissue_k = _tissue_slice(rois, _tissue_names(rois, measurement))
    if tissue_k is not None:
        pictures["axial_tissue"] = _axial(ct, rois, measurement, tissue_k, "muscle and fat")
    figures = {name: _draw(picture) for name, picture in pictures.items() if name in wanted}
    if "histogram" in wanted and any(level.measured for level in measurement.levels):
        figures["histogram"] = _draw_histogram(ct, rois, measurement)
    return figures


def captions() -> dict[str, tuple[str, str]]:
    """Title and sentence for each picture, in reading order; the sentence names window and level."""
    bone = f"mean of {SLAB_MM:.0f} mm, window {BONE_WINDOW_HU[0]:.0f}, level {BONE_WINDOW_HU[1]:.0f} HU"
    soft = f"window {SOFT_TISSUE_WINDOW_HU[0]:.0f}, level {SOFT_TISSUE_WINDOW_HU[1]:.0f} HU"
    return {
        "sagittal": ("Sagittal", "Through the vertebral bodies, following their centres where they were found; "
                                 f"{bone}. Dotted: vertebral body; solid: trabecular region."),
        "coronal": ("Coronal", f"Through the vertebral bodies likewise; {bone}. The patient's right is on the left."),
        "axial_bone": ("Axial, trabecular bone", f"Through the first level of the mean, or the best found; {soft}."),
        "axial_tissue": ("Axial, reference tissues", f"Where the muscle and fat regions are largest; {soft}."),
        "histogram": ("HU in the trabecular regions", f"Share of voxels per {HISTOGRAM_STEP_HU:.0f} HU; grey lines: means "
                                                      "of muscle and fat."),
    }


def hu_shares(ct: CTVolume, mask: Mask) -> np.ndarray:
    """(N,) per cent of the mask's voxels in each of the N bins of HISTOGRAM_EDGES_HU; zeros for an empty mask."""
    hu = hu_inside(ct, mask)
    bins = np.floor((hu - HISTOGRAM_EDGES_HU[0]) / HISTOGRAM_STEP_HU)
    count = HISTOGRAM_EDGES_HU.size - 1
    inside = bins[(bins >= 0) & (bins < count)].astype(int)
    return 100.0 * np.bincount(inside, minlength=count) / max(1, hu.size)


# --- cuts --------------------------------------------------------------------------------------------------

def _centres(ct: CTVolume, rois: Rois, measurement: Measurement) -> dict[str, np.ndarray]:
    """(3,) array indices k, j, i of every known level centre inside the scan, from head to foot."""
    points = {entry.level: entry.position_lps_mm for entry in rois.keypoints}
    for level in measurement.levels:
        if level.centre_lps_mm is not None:
            points.setdefault(level.name, level.centre_lps_mm)
    found = {name: ct.geometry.to_kji(np.asarray(points[name])) for name in LEVELS if name in points}
    last = np.asarray(ct.hu.shape) - 1
    return {name: kji for name, kji in found.items() if np.all(kji > -0.5) and np.all(kji < last + 0.5)}


def _long_cut(ct: CTVolume, rois: Rois, measurement: Measurement, centres: Mapping[str, np.ndarray],
              across: int) -> _Picture:
    """Sagittal (across axis 2, i) or coronal (across axis 1, j) cut that follows the line of the level centres."""
    side = 3 - across
    spacing_kji = ct.geometry.spacing_kji_mm
    middle = list(centres.values()) or [_fallback_centre(ct, rois)]
    rows = _span(middle, 0, AROUND_SPINE_MM["k"], ct, bool(centres))[::-1]
    columns = _span(middle, side, AROUND_SPINE_MM["kji"[side]], ct, bool(centres))
    depth = _curve(middle, across, rows, ct.hu.shape[across])
    index = {0: rows[:, None], side: columns[None, :], across: depth[:, None]}
    points = tuple((_name(measurement, name), _colour(f"body_{name}"), rows[0] - kji[0], kji[side] - columns[0])
                   for name, kji in centres.items())
    names = [f"{part}_{name}" for part in ("body", "trabecular") for name in LEVELS]
    note = "along the vertebral bodies" if len(centres) > 1 else "plane cut"
    return _Picture(_slab(ct, index, across), spacing_kji[0], spacing_kji[side], "APSI" if across == 2 else "RLSI",
                    BONE_WINDOW_HU, note, _regions(rois, names, index), points)


def _fallback_centre(ct: CTVolume, rois: Rois) -> np.ndarray:
    spine = rois.masks.get("vertebrae")
    if spine is not None and not spine.empty:
        return ct.geometry.to_kji(spine.centroid_lps_mm(ct.geometry))
    return (np.asarray(ct.hu.shape) - 1) / 2


def _span(points: list[np.ndarray], axis: int, around_mm: tuple[float, float], ct: CTVolume,
          close: bool) -> np.ndarray:
    """Indices along one axis, from around the points when ``close``, else of the whole scan."""
    if not close:
        return np.arange(ct.hu.shape[axis])
    spacing = ct.geometry.spacing_kji_mm[axis]
    low = min(point[axis] for point in points) - around_mm[0] / spacing
    high = max(point[axis] for point in points) + around_mm[1] / spacing
    return np.arange(max(0, round(low)), min(ct.hu.shape[axis] - 1, round(high)) + 1)


def _curve(points: list[np.ndarray], axis: int, rows: np.ndarray, size: int) -> np.ndarray:
    """Index along ``axis`` for every row: linear between the points, constant beyond the last ones."""
    along = sorted((point[0], point[axis]) for point in points)
    depth = np.interp(rows, [k for k, _ in along], [value for _, value in along])
    return np.clip(np.rint(depth).astype(int), 0, size - 1)


def _slab(ct: CTVolume, index: Mapping[int, np.ndarray], across: int) -> np.ndarray:
    """Mean HU over SLAB_MM across the cut."""
    reach = int(SLAB_MM / 2 / ct.geometry.spacing_kji_mm[across])
    total = 0.0
    for offset in range(-reach, reach + 1):
        moved = np.clip(index[across] + offset, 0, ct.hu.shape[across] - 1)
        total = total + ct.hu[tuple(moved if axis == across else index[axis] for axis in range(3))].astype(np.float32)
    return total / (2 * reach + 1)


def _regions(rois: Rois, names: Iterable[str], index: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    found = {name: _inside(rois.masks[name], index) for name in names if name in rois.masks}
    return {name: inside for name, inside in found.items() if inside.any()}


def _inside(mask: Mask, index: Mapping[int, np.ndarray]) -> np.ndarray:
    """Whether the voxels at ``index`` (three arrays that broadcast to rows x columns) lie in the region."""
    shape = np.broadcast_shapes(*(index[axis].shape for axis in range(3)))
    if mask.empty:
        return np.zeros(shape, bool)
    local = [index[axis] - mask.start_kji[axis] for axis in range(3)]
    valid = [(entry >= 0) & (entry < size) for entry, size in zip(local, mask.voxels.shape, strict=True)]
    safe = [np.clip(entry, 0, size - 1) for entry, size in zip(local, mask.voxels.shape, strict=True)]
    return mask.voxels[tuple(safe)] & valid[0] & valid[1] & valid[2]


def _tissue_names(rois: Rois, measurement: Measurement) -> list[str]:
    """The reference tissues that were measured, or those that were found when none was."""
    measured = [name for tissue in (measurement.muscle, measurement.fat) if tissue for name in tissue.structures]
    return measured or [name for name, s in STRUCTURES.items() if s.group in ("muscle", "fat") and name in rois.masks]


def _tissue_slice(rois: Rois, names: Iterable[str]) -> int | None:
    """The slice with most of both tissues, each as a share of its own largest area; None when there is none."""
    areas: dict[str, np.ndarray] = {}
    for name in names:
        mask = rois.masks.get(name)
        if mask is not None and not mask.empty:
            group = areas.setdefault(STRUCTURES[name].group, np.zeros(rois.geometry.shape_kji[0]))
            group[mask.box[0]] += np.count_nonzero(mask.voxels, axis=(1, 2))
    if not areas:
        return None
    shares = np.array([area / area.max() for area in areas.values()])
    return int(np.argmax(shares.min(axis=0) + 1e-3 * shares.sum(axis=0)))


def _axial(ct: CTVolume, rois: Rois, measurement: Measurement, k: int, note: str) -> _Picture:
    rows, columns = _body_box(ct, k)
    index = {0: np.full((1, 1), k), 1: rows[:, None], 2: columns[None, :]}
    names = [f"trabecular_{name}" for name in LEVELS] + _tissue_names(rois, measurement)
    _, j_mm, i_mm = ct.geometry.spacing_kji_mm
    return _Picture(_slab(ct, index, 0), j_mm, i_mm, "RLAP", SOFT_TISSUE_WINDOW_HU, note, _regions(rois, names, index))


def _body_box(ct: CTVolume, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices of the largest piece of a slice above BODY_ABOVE_HU, and a margin."""
    from scipy.ndimage import binary_opening, find_objects, label

    pieces, count = label(binary_opening(ct.hu[k] > BODY_ABOVE_HU, iterations=2))
    if count == 0:
        return np.arange(ct.hu.shape[1]), np.arange(ct.hu.shape[2])
    largest = find_objects(pieces)[int(np.argmax(np.bincount(pieces.ravel())[1:]))]
    spans = []
    for axis, piece in enumerate(largest, start=1):
        margin = round(MARGIN_MM / ct.geometry.spacing_kji_mm[axis])
        spans.append(np.arange(max(0, piece.start - margin), min(ct.hu.shape[axis], piece.stop + margin)))
    return spans[0], spans[1]


def _name(measurement: Measurement, name: str) -> str:
    level = measurement.level(name)
    if level is None or not level.measured:
        return f"{name}\nnot measured"
    return name if level.used or not measurement.mean_of else f"{name}\nnot in mean"


def _colour(name: str) -> tuple[float, ...]:
    return tuple(c / 255 for c in STRUCTURES[name].colour)


# --- drawing -----------------------------------------------------------------------------------------------

def _draw(picture: _Picture) -> bytes:
    from matplotlib.figure import Figure

    width_mm, height_mm = picture.size_mm
    figure = Figure(figsize=(width_mm / picture.mm_per_inch, height_mm / picture.mm_per_inch), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    width_hu, level_hu = picture.window_hu
    axes.imshow(picture.hu, cmap="gray", vmin=level_hu - width_hu / 2, vmax=level_hu + width_hu / 2,
                extent=(0.0, width_mm, height_mm, 0.0), interpolation="bilinear", aspect="equal")
    for name, inside in picture.regions.items():
        _outline(axes, picture, name, inside)
    for point in picture.points:
        _mark(axes, picture, *point)
    _letters(axes, picture)
    _scale_bar(axes, picture)
    axes.set_xlim(0, width_mm)
    axes.set_ylim(height_mm, 0)
    axes.set_axis_off()
    return _png(figure)


def _outline(axes: Axes, picture: _Picture, name: str, inside: np.ndarray) -> None:
    """The region's border; a trabecular region in its body's light colour, which shows on dark pictures."""
    x = (np.arange(inside.shape[1] + 2) - 0.5) * picture.column_mm
    y = (np.arange(inside.shape[0] + 2) - 0.5) * picture.row_mm
    body = STRUCTURES[name].group == "body"
    axes.contour(x, y, np.pad(inside.astype(float), 1), levels=[0.5], linewidths=0.6 if body else 1.1,
                 colors=[_colour(name.replace("trabecular_", "body_"))], linestyles="dotted" if body else "solid")


def _mark(axes: Axes, picture: _Picture, text: str, colour: tuple[float, ...], row: float, column: float) -> None:
    """A cross at a level's centre and its name beside the outlines: right of them, or left where it fits not."""
    x, y = (column + 0.5) * picture.column_mm, (row + 0.5) * picture.row_mm
    axes.plot([x], [y], "+", color=colour, markersize=5, markeredgewidth=0.9)
    number = min(max(round(row), 0), picture.hu.shape[0] - 1)
    edges = [np.flatnonzero(region[number]) for region in picture.regions.values() if region[number].any()]
    left = min((found[0] * picture.column_mm for found in edges), default=x) - NAME_GAP_MM
    right = max(((found[-1] + 1) * picture.column_mm for found in edges), default=x) + NAME_GAP_MM
    length_mm = LETTER_INCHES * picture.mm_per_inch * max(len(line) for line in text.splitlines())
    fits = right + length_mm < picture.size_mm[0]
    axes.text(right if fits else left, y, text, color=colour, fontsize=8, fontweight="bold", va="center", linespacing=1.0,
              ha="left" if fits else "right", path_effects=halo(2.2))


def _letters(axes: Axes, picture: _Picture) -> None:
    left, right, top, bottom = picture.sides
    style = {"color": "white", "fontsize": 8, "path_effects": halo(1.8), "transform": axes.transAxes}
    axes.text(0.012, 0.5, left, ha="left", va="center", **style)
    axes.text(0.988, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.99, top, ha="center", va="top", **style)
    axes.text(0.5, 0.01, bottom, ha="center", va="bottom", **style)
    width_hu, level_hu = picture.window_hu
    axes.text(0.012, 0.99, f"{picture.note}\nW {width_hu:.0f}  L {level_hu:.0f}", ha="left", va="top",
              **style | {"fontsize": 7})


def _scale_bar(axes: Axes, picture: _Picture) -> None:
    width_mm, height_mm = picture.size_mm
    bar_mm = SCALE_BAR_MM if width_mm > 2.5 * SCALE_BAR_MM else SCALE_BAR_MM / 5
    x, y = width_mm * 0.97, height_mm * 0.97
    axes.plot([x - bar_mm, x], [y, y], color="white", linewidth=1.6, solid_capstyle="butt", path_effects=halo(2.8))
    axes.text(x - bar_mm / 2, y - 0.012 * height_mm, f"{bar_mm:.0f} mm", color="white", fontsize=7, ha="center",
              va="bottom", path_effects=halo(1.8))


def halo(width: float) -> list:
    """Path effects that keep light lines and letters readable on light grey. width: in points."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]


def _draw_histogram(ct: CTVolume, rois: Rois, measurement: Measurement) -> bytes:
    """Share of voxels per HU in every measured level, with the means of muscle and fat."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 2.1), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for level in measurement.levels:
        if level.measured:
            shares = hu_shares(ct, rois.masks[f"trabecular_{level.name}"])
            axes.stairs(shares, HISTOGRAM_EDGES_HU, color=_colour(f"trabecular_{level.name}"),
                        linestyle=_LINES[level.name], linewidth=1.3, label=f"{level.name}, mean {level.hu_mean:.0f} HU")
    for name, tissue in (("muscle", measurement.muscle), ("fat", measurement.fat)):
        if tissue is not None:
            axes.axvline(tissue.hu_mean, color="0.6", linewidth=0.8)
            axes.text(tissue.hu_mean, 1.01, f"{name} {tissue.hu_mean:.0f}", fontsize=6.5, color="0.3", va="bottom",
                      ha="center", transform=axes.get_xaxis_transform())
    axes.set_xlim(*HISTOGRAM_RANGE_HU)
    axes.set_xlabel("HU", fontsize=7)
    axes.set_ylabel("% of voxels", fontsize=7)
    axes.tick_params(labelsize=6.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=6.5, frameon=False, loc="upper right")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=DOTS_PER_INCH, facecolor=figure.get_facecolor(),
                                         pil_kwargs={"compress_level": PNG_COMPRESSION})
    return buffer.getvalue()
