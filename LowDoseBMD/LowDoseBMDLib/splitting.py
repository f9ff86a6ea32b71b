"""Cut a vertebra into body and posterior elements, by the vertebra's own axes and never the scan's.

The spinal canal is the hole of the vertebra seen along its own axis; the body is what lies in front of the canal's
front wall and is thick enough to be no pedicle and no transverse process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .geometry import Geometry
from .rois import Mask
from .spine import (
    LOCAL_SPACING_MM,
    LocalGrid,
    axes_from,
    endplate_axis,
    inner_part,
    local_grid,
    middle_of,
    tangents,
    unit,
)

SPLIT_ORDER: tuple[str, ...] = (*(f"C{n}" for n in range(3, 8)), *(f"T{n}" for n in range(1, 14)),
                                *(f"L{n}" for n in range(1, 7)))
"""Vertebrae that have a body in the sense of this stage, from head to foot, with T13 and L6."""

FIRST_SPACING_MM = 2.0
"""Local grid of the first look, which only finds the canal."""

CANAL_AREA_MM2 = (60.0, 900.0)
"""Cross-section of an adult's bony canal, from a narrow mid-thoracic (about 130 mm2) to a wide one at L5, with
room for coarse grids; transverse foramina (about 30 mm2) are smaller."""

CANAL_TRIES = ((0.0, 0.0), (0.0, 2.5), (3.0, 0.0), (3.0, 2.5), (0.0, 5.0), (6.0, 0.0), (6.0, 4.0))
"""(bone thinner than this along the axis is not seen, mm; closing radius, mm), in the order in which they are
tried: a tilted arch covers the canal with thin bone, coarse grids open the ring."""

CANAL_OFF_LINE_MM = 12.0
"""A canal centre further from the line through its neighbours is not believed: a spine that turns by 25 degrees
per level stays within 8 mm, and centres scatter by 3 mm."""

RAY_HALF_WIDTH_MM = 5.0
"""Rays from the canal to the posterior wall run this far to both sides of the midline."""

RAY_REACH_MM = 22.0
"""A wall further from the canal's centre is another surface."""

WALL_SLOPE = 0.4
"""Largest slope of the posterior wall against the vertebra's axis."""

OPENING_MM = (2.0, 4.5)
"""Least and usual radius of the ball that must fit into what belongs to the body: pedicle roots and transverse
processes are thinner than 9 mm in one direction, the body of T1 is about 15 mm high. Crushed bodies need less."""

OPENING_PART = 0.4
"""Radius of that ball as a part of the body's height where it is low (its lowest fifth of columns)."""

REGROWTH_MM = 2.4
"""How far the body may regain the rims that the opening rounded off."""

SMOOTHING_MM = 1.0

RIM_AHEAD, RIM_PART = 0.8, 0.1
"""A loose piece is a rim when this part of it lies in front of the wall and it is this small beside the body."""

LEAST_AHEAD_MM = 3.0
"""A body's centre lies at least this much in front of the canal's: 15 mm and more in adults, less where the spine
is tilted by 60 degrees."""

LEAST_BODY_MM3 = 1500.0
"""Less than this is a sliver at the end of the scan, not a body."""


@dataclass(frozen=True, eq=False)
class SplitVertebra:
    """A vertebra cut in two.

    body, posterior: disjoint, together the vertebra. axes: (3, 3) rows left, posterior, superior, unit LPS.
    canal_lps_mm: (3,) centre of the spinal canal at this level; None when it was not found and could not be
    interpolated.
    """

    body: Mask
    posterior: Mask
    axes: np.ndarray
    canal_lps_mm: np.ndarray | None


def split_vertebrae(vertebrae: Mapping[str, Mask], geometry: Geometry) -> dict[str, SplitVertebra]:
    """Cut all vertebrae of a label map into bodies and posterior elements.

    vertebrae: whole vertebrae by name (SPLIT_ORDER; others are passed over). Vertebrae of which the scan holds no
    body (only tips of processes, less than LEAST_BODY_MM3) are left out of the answer.
    """
    names = [name for name in SPLIT_ORDER if name in vertebrae and not vertebrae[name].empty]
    masks = [vertebrae[name] for name in names]
    if not masks:
        return {}
    centres = np.array([mask.centroid_lps_mm(geometry) for mask in masks])
    ups = _axes_of_curve(masks, centres, geometry)
    back = np.array([0.0, 1.0, 0.0])
    canals = [find_canal(mask, geometry, axes_from(up, back)) for mask, up in zip(masks, ups, strict=True)]
    positions = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))])
    canals = middle_of(_believed(canals, positions), positions)
    if len(masks) > 1 and all(canal is not None for canal in canals):
        ups = tangents(np.array(canals))
    found: dict[str, SplitVertebra] = {}
    for name, mask, up, canal in zip(names, masks, ups, canals, strict=True):
        split = split_vertebra(mask, geometry, up, canal)
        if split.body.volume_mm3(geometry) >= LEAST_BODY_MM3 and _before_canal(split, geometry):
            found[name] = split
    return found


def _before_canal(split: SplitVertebra, geometry: Geometry) -> bool:
    """A body lies in front of its canal; where only processes are labelled, what was cut off does not."""
    if split.canal_lps_mm is None:
        return True
    return bool(split.canal_lps_mm[1] - split.body.centroid_lps_mm(geometry)[1] > LEAST_AHEAD_MM)


def _axes_of_curve(masks: list[Mask], centres: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, 3) directions of the spine's curve. A vertebra cut by the end of the scan has no true centre: it takes
    the direction of the nearest whole one."""
    whole = np.flatnonzero([not _reaches_end(mask, geometry) for mask in masks])
    if len(whole) < 2:
        return tangents(centres)
    ups = tangents(centres[whole])
    return ups[[int(np.abs(whole - n).argmin()) for n in range(len(masks))]]


def _believed(canals: list[np.ndarray | None], positions: np.ndarray) -> list[np.ndarray | None]:
    """Canal centres without those that lie far from the line through their neighbours."""
    known = [n for n, canal in enumerate(canals) if canal is not None]
    kept = list(canals)
    for before, here, after in zip(known, known[1:], known[2:], strict=False):
        share = (positions[here] - positions[before]) / (positions[after] - positions[before])
        expected = canals[before] + share * (canals[after] - canals[before])
        if np.linalg.norm(canals[here] - expected) > CANAL_OFF_LINE_MM:
            kept[here] = None
    return kept


def split_vertebra(mask: Mask, geometry: Geometry, superior: np.ndarray | None = None,
                   canal_lps_mm: np.ndarray | None = None) -> SplitVertebra:
    """Cut one vertebra into body and posterior elements.

    mask: the whole vertebra. superior: (3,) rough direction towards the head, LPS (default: the patient's).
    canal_lps_mm: a point of the spinal canal, used when the vertebra's own ring is open.
    """
    up = np.array([0.0, 0.0, 1.0]) if superior is None else unit(superior)
    axes, canal = axes_from(up, np.array([0.0, 1.0, 0.0])), canal_lps_mm
    body = None
    for spacing in (FIRST_SPACING_MM, LOCAL_SPACING_MM):
        if canal is not None:
            axes = _turned(mask, geometry, axes, canal, body)
        grid = local_grid(mask, geometry, axes, spacing)
        local = grid.sample(mask, geometry)
        bone = ndimage.binary_fill_holes(local > 0.5)
        own = _canal_in(bone, grid)
        canal = canal if own is None else grid.to_lps(own)
        region, front = _body_region(bone, grid, canal)
        inside = (grid.draw(region, mask, geometry) > 0.5) & ndimage.binary_fill_holes(mask.voxels)
        body = Mask.from_array(inside, mask.start_kji)
        if not body.empty and not _reaches_end(body, geometry):
            axes = axes_from(endplate_axis(region > 0.5, axes), axes[1])
    inside = _with_rims(inside, mask.voxels, grid.draw(front, mask, geometry) > 0.25)
    return SplitVertebra(Mask.from_array(inside, mask.start_kji),
                         Mask.from_array(mask.voxels & ~inside, mask.start_kji), axes, canal)


def _with_rims(inside: np.ndarray, bone: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The body with the loose pieces in front of its posterior wall: rims and spurs that smoothing left out."""
    pieces, count = ndimage.label(bone & ~inside)
    if count == 0 or not inside.any():
        return inside
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)
    ahead = np.bincount(pieces[front], minlength=count + 1)
    rim = (ahead > RIM_AHEAD * voxels) & (voxels < RIM_PART * np.count_nonzero(inside))
    rim[0] = False
    touching = np.zeros(count + 1, bool)
    touching[np.unique(pieces[ndimage.binary_dilation(inside)])] = True
    return inside | (rim & touching)[pieces]


def _turned(mask: Mask, geometry: Geometry, axes: np.ndarray, canal: np.ndarray, body: Mask | None) -> np.ndarray:
    """Axes whose posterior direction runs from the body to the canal."""
    if body is None or body.empty:
        return axes
    across = canal - body.centroid_lps_mm(geometry)
    across = across - axes[2] * np.dot(across, axes[2])
    if np.linalg.norm(across) < 5.0 or np.dot(unit(across), axes[1]) < 0.5:
        return axes
    return axes_from(axes[2], across)


def _reaches_end(body: Mask, geometry: Geometry) -> bool:
    """Does the mask reach the first or last slice? Its face there is the scan's end, not an endplate."""
    return body.start_kji[0] <= 0 or body.start_kji[0] + body.voxels.shape[0] >= geometry.shape_kji[0]


def find_canal(mask: Mask, geometry: Geometry, axes: np.ndarray) -> np.ndarray | None:
    """(3,) LPS centre of the spinal canal: the hole of the vertebra seen along its own axis; None when open."""
    grid = local_grid(mask, geometry, axes, FIRST_SPACING_MM)
    centre = _canal_in(grid.sample(mask, geometry) > 0.5, grid)
    return None if centre is None else grid.to_lps(centre)


def _canal_in(bone: np.ndarray, grid: LocalGrid) -> np.ndarray | None:
    """(u, a, l) centre of the hole in the projection of ``bone`` along u."""
    thickness = np.count_nonzero(bone, axis=0) * grid.spacing_mm
    for thin_mm, closing_mm in CANAL_TRIES:
        seen = thickness > thin_mm
        if closing_mm:
            seen = _closed(seen, closing_mm / grid.spacing_mm)
        holes, count = ndimage.label(ndimage.binary_fill_holes(seen) & ~seen)
        areas = np.bincount(holes.ravel(), minlength=count + 1)[1:] * grid.spacing_mm**2
        if count and CANAL_AREA_MM2[0] <= areas.max() <= CANAL_AREA_MM2[1]:
            back, left = ndimage.center_of_mass(holes == 1 + int(areas.argmax()))
            u = np.average(np.arange(bone.shape[0]), weights=bone.sum(axis=(1, 2)))
            return np.array([u, back, left])
    return None


def _closed(seen: np.ndarray, radius: float) -> np.ndarray:
    pad = int(np.ceil(radius)) + 1
    wide = ndimage.distance_transform_edt(~np.pad(seen, pad)) <= radius
    inner = slice(pad + 1, -pad - 1)
    return (ndimage.distance_transform_edt(np.pad(wide, 1, mode="edge")) > radius)[inner, inner]


def _body_region(bone: np.ndarray, grid: LocalGrid, canal: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Two (u, a, l) float32 fields: > 0.5 in the body (thick, one piece, smooth), and in front of the wall."""
    offset, slope = _posterior_wall(bone, grid, canal)
    u, a = np.indices(bone.shape[:2])
    front = bone & (a <= offset + slope * u)[:, :, None]
    heights = np.count_nonzero(front, axis=0)[inner_part(front.any(axis=0))]
    low = OPENING_PART * float(np.percentile(heights, 20)) * grid.spacing_mm if heights.size else 0.0
    body = _largest(_opened(front, float(np.clip(low, *OPENING_MM)) / grid.spacing_mm))
    near = ndimage.distance_transform_edt(~body) <= REGROWTH_MM / grid.spacing_mm if body.any() else body
    body = ndimage.binary_fill_holes(near & front)
    smooth = ndimage.gaussian_filter(body.astype(np.float32), SMOOTHING_MM / grid.spacing_mm, truncate=3.0)
    return smooth, np.where(front, 1.0, 0.0).astype(np.float32)


def _opened(region: np.ndarray, radius: float) -> np.ndarray:
    """Opening by a ball; distances are to voxel centres outside, hence the half voxel."""
    core = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1, 1:-1] > radius + 0.5
    return region & (ndimage.distance_transform_edt(~core) <= radius + 0.5) if core.any() else core


def _largest(region: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(region)
    if count < 2:
        return region
    return labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())


def _posterior_wall(bone: np.ndarray, grid: LocalGrid, canal: np.ndarray | None) -> tuple[float, float]:
    """Posterior wall as a line in the midplane: a = offset + slope * u, in voxels of the local grid.

    Rays run forward from the canal at every height until they meet bone. Without a canal, the wall is where the
    section across the AP axis first falls to half of its largest.
    """
    hits = None if canal is None else _ray_hits(bone, grid, grid.coordinates(canal))
    if hits is None or len(hits) < 3:
        nothing = canal is not None and not _bone_ahead(bone, grid, grid.coordinates(canal))
        return (-1.0 if nothing else _wall_by_section(bone)), 0.0
    u, a = hits.T
    keep = np.ones(len(u), bool)
    slope, offset = 0.0, float(np.median(a))
    for _ in range(3):
        if np.count_nonzero(keep) < 5:
            break
        slope = float(np.clip(np.polyfit(u[keep], a[keep], 1)[0], -WALL_SLOPE, WALL_SLOPE))
        offset = float(np.median(a[keep] - slope * u[keep]))
        keep = np.abs(a - offset - slope * u) <= 2.0 / grid.spacing_mm
    return offset, slope


def _ray_hits(bone: np.ndarray, grid: LocalGrid, canal: np.ndarray) -> np.ndarray:
    """(N, 2) height u and depth a of the posterior wall: one row per height where rays from the canal meet it."""
    back, left = (int(round(c)) for c in canal[1:])
    half = int(round(RAY_HALF_WIDTH_MM / grid.spacing_mm))
    if not 0 < back < bone.shape[1] or not 0 <= left < bone.shape[2]:
        return np.empty((0, 2))
    rays = bone[:, back::-1, max(0, left - half):left + half + 1]
    steps = rays.argmax(axis=1)
    good = rays.any(axis=1) & (steps > 0) & (steps <= RAY_REACH_MM / grid.spacing_mm)
    heights = np.flatnonzero(np.count_nonzero(good, axis=1) >= 0.5 * good.shape[1])
    depth = np.array([np.median(back - steps[u][good[u]]) for u in heights])
    return np.column_stack([heights, depth]) if len(heights) else np.empty((0, 2))


def _bone_ahead(bone: np.ndarray, grid: LocalGrid, canal: np.ndarray) -> bool:
    """Is there bone in front of the canal's centre, near the midplane? Tips of processes have none."""
    back, left = (int(round(c)) for c in canal[1:])
    half = int(round(RAY_REACH_MM / grid.spacing_mm))
    return bool(bone[:, :max(0, back), max(0, left - half):max(0, left + half + 1)].any())


def _wall_by_section(bone: np.ndarray) -> float:
    section = bone.sum(axis=(0, 2)).astype(float)
    where = np.flatnonzero(section)
    if not where.size:
        return 0.0
    front = section[:where[0] + int(0.6 * (where[-1] - where[0])) + 1]
    peak = int(front.argmax())
    low = np.flatnonzero(section[peak:] < 0.5 * section[peak])
    return float(peak + (low[0] if low.size else 0)) - 1.0
