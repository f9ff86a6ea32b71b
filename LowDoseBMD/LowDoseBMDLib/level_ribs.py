"""What ribs say of a chain of vertebrae: who carries one, how long it is, and which one it is from the first down."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .bodies import Body
from .bones import Bones
from .geometry import Geometry

SHORT_RIB = 0.77
"""A rib whose reach to the side is less than this share of the widest rib's is called short. Seven label maps: twelfth ribs
0.62-0.73, eleventh 0.80-0.98."""

RIB_LATERAL_MM = (18.0, 60.0)
RIB_BEHIND_MM = (-8.0, 60.0)
RIB_SLOPE, RIB_STARTS_MM, RIB_BAND_MM = 0.7, 17.0, 12.0
"""Where a body's own rib runs, from the body's centre: to the side, behind it, and downwards by RIB_SLOPE beyond
RIB_STARTS_MM to the side, within RIB_BAND_MM. Read off the twelfth ribs of seven label maps: at 30, 40, 50 mm to the
side they lie 7-14, 11-23, 18-30 mm below the centre; a rib of the body above runs 26 mm higher. For bodies STEP_MM apart;
in proportion for others."""

STEP_MM = 29.0
SCALES = (0.65, 1.35)
"""Usual distance of the bodies from T11 to L1, and how far others may be from it before something else is the matter."""

RIB_END_MM = 9.0
"""A rib that comes this near to the last slice goes on below the scan: its length is not known."""

HIDDEN_MM = (30.0, 12.0)
"""A body nearer than this to the lower, or upper, end of the scan may have ribs outside of it (for bodies STEP_MM apart)."""

HIGHER_MM = 12.0
"""So much higher than the twelfth ribs, beside their own body, run those of T11 and of the vertebrae above (BELOW_CENTRE of
level_witnesses.py: a third of the distance between bodies). Of 20 synthetic scans the eleventh ribs were seen on no, one,
both sides in 4, 6, 10 where twelfth ribs run, in 1, 1, 18 at 10 mm higher."""

RIB_SEEN, RIB_SURE = 0.2, 0.5
"""Chance of rib from which a voxel is one: at a body, where a thin rib that is broken looks short, and in the count. In 20
synthetic scans fewer eleventh ribs were missed with 0.2 than with 0.5, and no more were seen at L1."""

RIB_MIN_MM3 = 400.0
"""Rib in that place on one side for it to count as seen; 40 mm of a rib have about 2,500 mm3."""

ROW_LATERAL_MM = (30.0, 50.0)
ROW_BEHIND_MM = (-5.0, 70.0)
"""Where ribs are counted, to the side of the spine and behind its front: beyond the transverse processes, whose tips reach
30 mm, and short of the scapulae; ribs lie well apart there."""

ROW_SPAN_MM = 10.0
"""A piece that does not run this far to the side there is no rib."""

ROW_HIGH_MM = 32.0
"""A piece as high as this is more than one rib: the count ends there."""

ROW_LEAST = 7
"""Fewer ribs than this on one side are no count from the first: a scan of the upper abdomen shows five at most."""

FIRST_GAP = 0.43
"""The second rib lies hardly lower than the first there, as the first one slopes most: less than this part of the mean
distance of all ribs (three label maps 0.1 to 0.3; without the first rib 0.5 and more). Where it does not, the first rib was
missed."""

ROW_UNEVEN = (0.5, 1.55)
"""From the second rib on, a distance between ribs is this many times the mean of its neighbours; else one was missed, or is
none."""

TOP_MM = 6.0
TOP_MM3, TOP_RIB_MM3 = 300.0, 4000.0
TOP_LATERAL_MM = 130.0
"""A rib of TOP_RIB_MM3 at least, with TOP_MM3 of it this near to the first slice, goes on above the scan. What is smaller,
or further to the side, is an arm or a shoulder blade that was taken for a rib (read off 20 cuts of one chest)."""


@dataclass(frozen=True)
class OwnRibs:
    """The ribs of one body. sides: on how many one was seen. reach_mm: how far to its side they reach, the longer one; 0
    where none was seen. cut: one runs out of the scan. hidden: where they would be is not in the scan. share: of the reach
    of the widest ribs; None where there is no other to compare with."""

    sides: int = 0
    reach_mm: float = 0.0
    cut: bool = False
    hidden: bool = False
    share: float | None = None


@dataclass(frozen=True, eq=False)
class RibMap:
    """Ribs on the bones' grid. pieces: (k, j, i) numbers of connected pieces. boxes: of the pieces. counted_mm: on the
    patient's right and left, heights (LPS z) of the ribs where they are counted, the first rib first; empty where they
    cannot be counted from the first."""

    geometry: Geometry
    pieces: np.ndarray
    boxes: list[tuple[slice, slice, slice]]
    counted_mm: tuple[np.ndarray, ...] = ()


def map_ribs(bodies: tuple[Body, ...], bones: Bones) -> RibMap:
    """Pieces and counts of the ribs beside a chain of bodies."""
    grid = bones.geometry
    chance = bones.of("ribs")
    pieces, _ = ndimage.label(chance > RIB_SEEN, np.ones((3, 3, 3)))
    found = RibMap(grid, pieces, ndimage.find_objects(pieces))
    index = np.argwhere(chance > RIB_SURE)
    left_mm, behind_mm = _beside(index, bodies, grid)
    if _goes_on_above(found, index, left_mm):
        return found
    near = (behind_mm >= ROW_BEHIND_MM[0]) & (behind_mm <= ROW_BEHIND_MM[1])
    sides = []
    for side in (-1, 1):
        there = near & (side * left_mm >= ROW_LATERAL_MM[0]) & (side * left_mm <= ROW_LATERAL_MM[1])
        sides.append(_row(index[there], np.abs(left_mm[there]), found))
    return replace(found, counted_mm=tuple(sides))


def _goes_on_above(ribs: RibMap, index: np.ndarray, left_mm: np.ndarray) -> bool:
    """Whether a rib runs out of the scan at its upper end, so that the first one seen need not be the first."""
    grid = ribs.geometry
    of_voxel = ribs.pieces[tuple(index.T)]
    at_top = (index[:, 0] >= ribs.pieces.shape[0] - TOP_MM / grid.spacing_kji_mm[0]) & (np.abs(left_mm) <= TOP_LATERAL_MM)
    there = np.bincount(of_voxel[at_top], minlength=len(ribs.boxes) + 1) * grid.voxel_volume_mm3 >= TOP_MM3
    large = np.bincount(of_voxel, minlength=len(ribs.boxes) + 1) * grid.voxel_volume_mm3 >= TOP_RIB_MM3
    return bool((there & large).any())


def _beside(index: np.ndarray, bodies: tuple[Body, ...], grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """How far (N,) voxels lie to the left of the spine and behind it, at their own height."""
    centres = np.array([grid.to_kji(body.centre_lps_mm) for body in bodies[::-1]])
    order = np.argsort(centres[:, 0])
    _, j_mm, i_mm = grid.spacing_kji_mm
    j, i = (np.interp(index[:, 0], centres[order, 0], centres[order, axis]) for axis in (1, 2))
    return (index[:, 2] - i) * i_mm, (index[:, 1] - j) * j_mm


def _row(index: np.ndarray, side_mm: np.ndarray, ribs: RibMap) -> np.ndarray:
    """Heights of the ribs of one side, from the first down, as far as they are single ribs; none when they are too few to
    begin at the first."""
    grid = ribs.geometry
    if not len(index):
        return np.zeros(0)
    inside = tuple((index - index.min(axis=0)).T)
    there = np.zeros(np.ptp(index, axis=0) + 1, bool)
    there[inside] = True
    parts, count = ndimage.label(there)
    of_voxel = parts[inside]
    found = []
    for part in range(1, count + 1):
        own = of_voxel == part
        span_mm = np.ptp(side_mm[own]) + grid.spacing_kji_mm[2]
        if np.count_nonzero(own) * grid.voxel_volume_mm3 >= RIB_MIN_MM3 and span_mm >= ROW_SPAN_MM:
            found.append((index[own, 0].max(), index[own, 0].min()))
    heights = []
    for high, low in sorted(found, reverse=True):
        if (high - low) * grid.spacing_kji_mm[0] >= ROW_HIGH_MM:
            break
        heights.append(grid.to_lps(np.array([(high + low) / 2, *np.array(ribs.pieces.shape[1:]) / 2]))[2])
    return np.array(heights if len(heights) >= ROW_LEAST and _from_the_first(-np.diff(heights)) else [])


def _from_the_first(gaps_mm: np.ndarray) -> bool:
    """Whether distances between ribs are those from the first down with none missed."""
    later = gaps_mm[1:]
    before, after = np.r_[later[1], later[:-1]], np.r_[later[1:], later[-2]]
    even = 2.0 * later / (before + after)
    return bool(gaps_mm[0] <= FIRST_GAP * gaps_mm.mean() and np.all((even >= ROW_UNEVEN[0]) & (even <= ROW_UNEVEN[1])))


def distances_near(bodies: tuple[Body, ...]) -> np.ndarray:
    """(bodies,) usual distance between neighbours round each body, mm."""
    steps = np.linalg.norm(np.diff([body.centre_lps_mm for body in bodies], axis=0), axis=1)
    return np.array([np.median(steps[max(0, n - 2):n + 2]) if steps.size else STEP_MM for n in range(len(bodies))])


def own_ribs(bodies: tuple[Body, ...], ribs: RibMap, higher_mm: float = 0.0) -> tuple[OwnRibs, ...]:
    """The ribs that the bone network shows at each body, head to foot, where those of T12 and L1 would be, or higher_mm
    above that (for bodies STEP_MM apart), where the eleventh and tenth are.

    Further up it is a neighbour's rib that lies there: all that is told of those bodies is that there are ribs. One body
    may be wider than all others, as an arm can be taken for a rib: where more than three have ribs, the second widest
    counts.
    """
    scales = np.clip(distances_near(bodies) / STEP_MM, *SCALES)
    found = [_at_body(body.centre_lps_mm, float(scale), ribs, higher_mm) for body, scale in zip(bodies, scales, strict=True)]
    reaches = sorted(one.reach_mm for one in found if one.sides)
    if len(reaches) < 2:
        return tuple(found)
    widest = reaches[-2 if len(reaches) > 3 else -1]
    return tuple(replace(one, share=min(1.0, one.reach_mm / widest)) if one.sides else one for one in found)


def _at_body(centre_lps_mm: np.ndarray, scale: float, ribs: RibMap, higher_mm: float) -> OwnRibs:
    grid = ribs.geometry
    centre, spacing = grid.to_kji(centre_lps_mm), np.array(grid.spacing_kji_mm) / scale
    down = RIB_SLOPE * (RIB_LATERAL_MM[1] - RIB_STARTS_MM) + RIB_BAND_MM
    low = centre - np.array([down, -RIB_BEHIND_MM[0], RIB_LATERAL_MM[1]]) / spacing
    high = centre + np.array([RIB_BAND_MM + higher_mm, RIB_BEHIND_MM[1], RIB_LATERAL_MM[1]]) / spacing
    low = np.clip(np.floor(low).astype(int), 0, grid.shape_kji)
    high = np.clip(np.ceil(high).astype(int) + 1, low, grid.shape_kji)
    index = np.argwhere(ribs.pieces[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]) + low
    up, behind, left = ((index - centre) * spacing).T
    side = np.abs(left)
    course = up - higher_mm + RIB_SLOPE * np.maximum(side - RIB_STARTS_MM, 0.0)
    own = ((np.abs(course) <= RIB_BAND_MM) & (behind >= RIB_BEHIND_MM[0]) & (behind <= RIB_BEHIND_MM[1])
           & (side >= RIB_LATERAL_MM[0]) & (side <= RIB_LATERAL_MM[1]))
    halves = [index[own & (np.sign(left) == sign)] for sign in (-1, 1)]
    seen = [half for half in halves if len(half) * grid.voxel_volume_mm3 >= RIB_MIN_MM3 * scale]
    if not seen:
        ends = (centre[0] + 0.5) * spacing[0], (grid.shape_kji[0] - 0.5 - centre[0]) * spacing[0]
        return OwnRibs(hidden=ends[0] < HIDDEN_MM[0] or ends[1] < HIDDEN_MM[1])
    k_mm, _, i_mm = grid.spacing_kji_mm
    boxes = [ribs.boxes[piece - 1] for piece in np.unique(ribs.pieces[tuple(np.concatenate(seen).T)])]
    reach = max(abs(end - centre[2]) for _, _, i in boxes for end in (i.start, i.stop - 1)) * i_mm
    return OwnRibs(len(seen), float(reach), min(k.start for k, _, _ in boxes) * k_mm < RIB_END_MM)


def kind_of(rib: OwnRibs) -> str:
    """``none``, a ``short`` or a ``long`` own rib, ``seen`` when there is no other to compare with or it runs out of the
    scan, or ``hidden``."""
    if not rib.sides:
        return "hidden" if rib.hidden else "none"
    if rib.share is None or rib.cut and rib.share < SHORT_RIB:
        return "seen"
    return "long" if rib.share >= SHORT_RIB else "short"
