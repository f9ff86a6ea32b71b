"""Stage 3b, levels: which vertebra is which.

Two independent witnesses name the chain of bodies: the keypoint network's heatmaps, and the ribs, which T1-T12
carry and L1-L5 do not. They are combined into a probability of each numbering of the whole chain; where they
disagree, or the best numbering is not overwhelming, the levels are given with a flag that asks for confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .anatomy import LEVELS, SPINE
from .bodies import Body, Spine
from .bones import Bones
from .flags import LEVEL_UNCERTAIN, Flag, Severity
from .keypoints import Heatmaps

CERTAIN = 0.95
"""A numbering at least this probable, on which both witnesses agree, is used without asking."""

RIB_CHANCES: dict[str, tuple[float, float, float]] = {
    "T": (0.05, 0.10, 0.85), "T12": (0.35, 0.60, 0.05), "L1": (0.94, 0.055, 0.005), "L": (0.97, 0.025, 0.005),
}
"""How often the bone network shows no, a short, or a long rib beside T1-T11, T12, L1, L2-L5 (judgement): twelfth ribs
are thin, short or absent in many, lumbar ribs occur in some 5 % of adults."""

SHORT_RIB = 0.77
"""A rib whose reach to the side is less than this share of the widest rib's is short. Seven label maps: twelfth ribs
0.62-0.73, eleventh 0.80-0.98."""

RIB_LATERAL_MM = (18.0, 60.0)
RIB_BEHIND_MM = (-8.0, 60.0)
RIB_SLOPE, RIB_STARTS_MM, RIB_BAND_MM = 0.7, 17.0, 12.0
"""Where a body's own rib runs, from the body's centre: to the side, behind it, and downwards by RIB_SLOPE beyond
RIB_STARTS_MM to the side, within RIB_BAND_MM. Read off the twelfth ribs of seven label maps: at 30, 40, 50 mm to the
side they lie 7-14, 11-23, 18-30 mm below the centre; a rib of the body above runs 26 mm higher."""

RIB_END_MM = 9.0
"""A rib that comes this near to the last slice goes on below the scan: its length is not known."""

RIB_MIN_MM3 = 400.0
"""Rib in that place on one side for it to count as seen; 40 mm of a rib have about 2,500 mm3."""

DOUBT = 1.0
"""A witness speaks against a numbering when another explains it better by this much (natural logarithm): one missed
twelfth rib does not, one rib too many or too few does."""

HEAT_FLOOR = 0.03
"""No heatmap rules a level out completely: one witness alone must not be certain."""

HEAT_TEMPER = 0.6
"""Heatmaps of neighbouring levels come from one network and err together: their evidence counts for less than the
sum over bodies."""

GAP = 1.55
"""Neighbours further apart than this many usual distances have a body between them that was not found."""


@dataclass(frozen=True)
class Numbering:
    """The names given to a chain of bodies, head to foot.

    names: one per body, None beyond the known spine. probability: of this numbering of the whole chain.
    second, second_probability: names and probability of the next best. ribs: per body, what read_ribs saw.
    flags: what a reader must know.
    """

    names: tuple[str | None, ...]
    probability: float
    second: tuple[str | None, ...]
    second_probability: float
    ribs: tuple[str, ...]
    flags: tuple[Flag, ...] = ()


def name_levels(spine: Spine, heatmaps: Heatmaps, bones: Bones) -> Numbering:
    """Name every body of a spine."""
    slots = _slots(spine.bodies)
    ribs = read_ribs(spine.bodies, bones)
    heat = np.array([heatmaps.at(body.centre_lps_mm) for body in spine.bodies]).reshape(len(slots), -1)
    first = range(-max(slots, default=0), len(SPINE))
    by_heat = np.array([_heat_score(slots, heat, heatmaps.levels, n) for n in first])
    by_ribs = np.array([_rib_score(slots, ribs, n) for n in first])
    chance = np.exp(by_heat + by_ribs - (by_heat + by_ribs).max())
    chance /= chance.sum()
    order = np.argsort(chance)[::-1]
    best, second = (tuple(_name(slot + first[n]) for slot in slots) for n in order[:2])
    numbering = Numbering(best, float(chance[order[0]]), second, float(chance[order[1]]), ribs)
    return replace(numbering, flags=tuple(_flags(numbering, spine, by_heat, by_ribs, int(order[0]))))


def _name(index: int) -> str | None:
    return SPINE[index] if 0 <= index < len(SPINE) else None


def _slots(bodies: tuple[Body, ...]) -> list[int]:
    """Place of each body in the chain; jumps where one was not found."""
    if not bodies:
        return []
    steps = np.array([np.linalg.norm(b.centre_lps_mm - a.centre_lps_mm)
                      for a, b in zip(bodies, bodies[1:], strict=False)])
    slots = [0]
    for n, step in enumerate(steps):
        near = np.delete(steps, n)[max(0, n - 2):n + 2]
        usual = float(np.median(near)) if near.size else float(step)
        slots.append(slots[-1] + (max(1, round(step / usual)) if step > GAP * usual else 1))
    return slots


def _heat_score(slots: list[int], heat: np.ndarray, levels: tuple[str, ...], first: int) -> float:
    score = sum(np.log(max(HEAT_FLOOR, _belief(slot + first, values, levels)))
                for slot, values in zip(slots, heat, strict=True))
    return HEAT_TEMPER * score


def _belief(index: int, values: np.ndarray, levels: tuple[str, ...]) -> float:
    """How well heatmap values fit a vertebra of the chain (0..1).

    The network has no channel beyond its first and last level, and shows what lies just beyond in those; so they do
    not speak against a vertebra beyond them, the other channels do.
    """
    name = _name(index)
    if name in levels:
        return float(values[levels.index(name)])
    others = values[1:] if index < SPINE.index(levels[0]) else values[:-1]
    return float((1.0 - others.max()) ** 2)


def _rib_score(slots: list[int], ribs: tuple[str, ...], first: int) -> float:
    return sum(np.log(_rib_chance(_name(slot + first), rib)) for slot, rib in zip(slots, ribs, strict=True))


def _rib_chance(name: str | None, rib: str) -> float:
    region = "L" if name is None or name.startswith("C") else name[0]
    none, short, long = RIB_CHANCES.get(name, RIB_CHANCES[region])
    return {"none": none, "short": short, "long": long, "seen": short + long}[rib]


def read_ribs(bodies: tuple[Body, ...], bones: Bones) -> tuple[str, ...]:
    """For each body: ``none``, a ``short`` or a ``long`` own rib, or ``seen`` when there is no other to compare with."""
    pieces, _ = ndimage.label(bones.of("ribs") > 0.5, np.ones((3, 3, 3)))
    ribs = [own_rib(body, bones, pieces) for body in bodies]
    widest = max((rib.reach_mm for rib in ribs if rib), default=0.0)
    alone = sum(rib is not None for rib in ribs) < 2
    kinds = []
    for rib in ribs:
        if rib is None:
            kinds.append("none")
        elif not alone and rib.reach_mm >= SHORT_RIB * widest:
            kinds.append("long")
        else:
            kinds.append("seen" if alone or rib.cut else "short")
    return tuple(kinds)


@dataclass(frozen=True)
class OwnRib:
    """reach_mm: how far to the side of its body a rib reaches, the longer side. cut: it runs out of the scan."""

    reach_mm: float
    cut: bool


def own_rib(body: Body, bones: Bones, pieces: np.ndarray) -> OwnRib | None:
    """The rib that the bone network shows at a body; None when there is none.

    pieces: (k, j, i) numbers of the connected pieces of rib on the bones' grid.
    """
    grid = bones.geometry
    down = RIB_SLOPE * (RIB_LATERAL_MM[1] - RIB_STARTS_MM) + RIB_BAND_MM
    centre, spacing = grid.to_kji(body.centre_lps_mm), np.array(grid.spacing_kji_mm)
    low = centre - np.array([down, -RIB_BEHIND_MM[0], RIB_LATERAL_MM[1]]) / spacing
    high = centre + np.array([RIB_BAND_MM, RIB_BEHIND_MM[1], RIB_LATERAL_MM[1]]) / spacing
    low = np.clip(np.floor(low).astype(int), 0, grid.shape_kji)
    high = np.clip(np.ceil(high).astype(int) + 1, low, grid.shape_kji)
    near = pieces[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    index = np.argwhere(near)
    up, behind, left = ((index + low - centre) * spacing).T
    side = np.abs(left)
    course = up + RIB_SLOPE * np.maximum(side - RIB_STARTS_MM, 0.0)
    own = ((np.abs(course) <= RIB_BAND_MM) & (behind >= RIB_BEHIND_MM[0]) & (behind <= RIB_BEHIND_MM[1])
           & (side >= RIB_LATERAL_MM[0]) & (side <= RIB_LATERAL_MM[1]))
    seen = [own & (np.sign(left) == sign) for sign in (-1, 1)]
    seen = [half for half in seen if np.count_nonzero(half) * grid.voxel_volume_mm3 >= RIB_MIN_MM3]
    if not seen:
        return None
    whole = np.argwhere(np.isin(pieces, np.unique(near[tuple(index[np.logical_or.reduce(seen)].T)])))
    reach = np.abs(whole[:, 2] - centre[2]).max() * spacing[2]
    return OwnRib(float(reach), bool(whole[:, 0].min() * spacing[0] < RIB_END_MM))


def _flags(numbering: Numbering, spine: Spine, by_heat: np.ndarray, by_ribs: np.ndarray, best: int) -> list[Flag]:
    measured = [n for n, name in enumerate(numbering.names) if name in LEVELS]
    if not measured:
        return []
    where = spine.bodies[measured[0]].centre_lps_mm
    agree = by_ribs[best] >= by_ribs.max() - DOUBT and by_heat[best] >= by_heat.max() - DOUBT
    if numbering.probability >= CERTAIN and agree:
        return []
    other = numbering.second[measured[0]]
    reason = ("the ribs and the keypoint network do not agree" if not agree
              else "the evidence is not overwhelming")
    return [Flag(LEVEL_UNCERTAIN, Severity.LIMITED,
                 f"Confirm the level: {reason}. The vertebra read as {numbering.names[measured[0]]} "
                 f"({100 * numbering.probability:.0f} %) could be {other or 'another'} "
                 f"({100 * numbering.second_probability:.0f} %).",
                 numbering.names[measured[0]], tuple(float(c) for c in where))]
