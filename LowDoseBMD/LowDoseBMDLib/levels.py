"""Stage 3b, levels: which vertebra is which.

Two independent witnesses name the chain of bodies: the keypoint network's heatmaps, and the ribs, which T1-T12
carry and L1-L5 do not. They are combined into a probability of each numbering of the whole chain; where they
disagree, or the best numbering is not overwhelming, the levels are given with a flag that asks for confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import LEVELS, SPINE
from .bodies import Body, Spine
from .bones import Bones
from .flags import Flag, Severity
from .keypoints import Heatmaps

CERTAIN = 0.95
"""A numbering at least this probable, on which both witnesses agree, is used without asking."""

RIB_SEEN_IF_THERE, RIB_SEEN_IF_NOT = 0.9, 0.05
"""How often the bone network shows a rib beside a body that carries one, and beside one that does not (lumbar ribs
are seen in some 5 % of adults)."""

TWELFTH_RIB_SEEN = 0.6
"""Twelfth ribs are short, thin or absent in many people, and below the scan when it ends at T12."""

RIB_LATERAL_MM = (18.0, 60.0)
RIB_BEHIND_MM = (-8.0, 60.0)
RIB_SLOPE, RIB_STARTS_MM, RIB_BAND_MM = 0.7, 17.0, 12.0
"""Where a body's own rib runs, from the body's centre: to the side, behind it, and downwards by RIB_SLOPE beyond
RIB_STARTS_MM to the side, within RIB_BAND_MM. Read off the twelfth ribs of seven label maps: at 30, 40, 50 mm to the
side they lie 7-14, 11-23, 18-30 mm below the centre; a rib of the body above runs 26 mm higher."""

RIB_MIN_MM3 = 400.0
"""Rib in that place on one side for it to count as seen; 40 mm of a rib have about 2,500 mm3."""

RIBS_DOUBT = 1.0
"""The ribs speak against a numbering when another explains them better by this much (natural logarithm): one missed
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
    second, second_probability: names and probability of the next best. ribs: per body, (right, left) rib seen.
    flags: what a reader must know.
    """

    names: tuple[str | None, ...]
    probability: float
    second: tuple[str | None, ...]
    second_probability: float
    ribs: tuple[tuple[bool, bool], ...]
    flags: tuple[Flag, ...] = ()

    @property
    def certain(self) -> bool:
        return not self.flags


def name_levels(spine: Spine, heatmaps: Heatmaps, bones: Bones) -> Numbering:
    """Name every body of a spine."""
    slots = _slots(spine.bodies)
    ribs = tuple(ribs_beside(body, bones) for body in spine.bodies)
    heat = np.array([heatmaps.at(body.centre_lps_mm) for body in spine.bodies]).reshape(len(slots), -1)
    first = range(-max(slots, default=0), len(SPINE))
    by_heat = np.array([_heat_score(slots, heat, heatmaps.levels, n) for n in first])
    by_ribs = np.array([_rib_score(slots, ribs, n) for n in first])
    chance = np.exp(by_heat + by_ribs - (by_heat + by_ribs).max())
    chance /= chance.sum()
    order = np.argsort(chance)[::-1]
    best, second = (tuple(_name(slot + first[n]) for slot in slots) for n in order[:2])
    numbering = Numbering(best, float(chance[order[0]]), second, float(chance[order[1]]), ribs)
    return Numbering(best, numbering.probability, second, numbering.second_probability, ribs,
                     tuple(_flags(numbering, spine, by_heat, by_ribs, int(order[0]))))


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
    score = 0.0
    for slot, values in zip(slots, heat, strict=True):
        name = _name(slot + first)
        belief = values[levels.index(name)] if name in levels else (1.0 - values.max()) ** 2
        score += np.log(max(HEAT_FLOOR, float(belief)))
    return HEAT_TEMPER * score


def _rib_score(slots: list[int], ribs: tuple[tuple[bool, bool], ...], first: int) -> float:
    score = 0.0
    for slot, sides in zip(slots, ribs, strict=True):
        name = _name(slot + first)
        seen, chance = any(sides), RIB_SEEN_IF_NOT
        if name and name.startswith("T"):
            chance = TWELFTH_RIB_SEEN if name == "T12" else RIB_SEEN_IF_THERE
        score += np.log(chance if seen else 1.0 - chance)
    return score


def ribs_beside(body: Body, bones: Bones) -> tuple[bool, bool]:
    """(right, left): does the bone network show this body's own rib?"""
    grid = bones.geometry
    down = RIB_SLOPE * (RIB_LATERAL_MM[1] - RIB_STARTS_MM) + RIB_BAND_MM
    centre, spacing = grid.to_kji(body.centre_lps_mm), np.array(grid.spacing_kji_mm)
    low = centre - np.array([down, -RIB_BEHIND_MM[0], RIB_LATERAL_MM[1]]) / spacing
    high = centre + np.array([RIB_BAND_MM, RIB_BEHIND_MM[1], RIB_LATERAL_MM[1]]) / spacing
    low = np.clip(np.floor(low).astype(int), 0, grid.shape_kji)
    high = np.clip(np.ceil(high).astype(int) + 1, low, grid.shape_kji)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    k, j, i = np.nonzero(bones.of("ribs")[box] > 0.5)
    up, behind, left = ((np.stack([k, j, i], axis=1) + low - centre) * spacing).T
    side = np.abs(left)
    course = up + RIB_SLOPE * np.maximum(side - RIB_STARTS_MM, 0.0)
    own = ((np.abs(course) <= RIB_BAND_MM) & (behind >= RIB_BEHIND_MM[0]) & (behind <= RIB_BEHIND_MM[1])
           & (side >= RIB_LATERAL_MM[0]) & (side <= RIB_LATERAL_MM[1]))
    volumes = [np.count_nonzero(own & (np.sign(left) == sign)) * grid.voxel_volume_mm3 for sign in (-1, 1)]
    return volumes[0] >= RIB_MIN_MM3, volumes[1] >= RIB_MIN_MM3


def _flags(numbering: Numbering, spine: Spine, by_heat: np.ndarray, by_ribs: np.ndarray, best: int) -> list[Flag]:
    measured = [n for n, name in enumerate(numbering.names) if name in LEVELS]
    if not measured:
        return []
    where = spine.bodies[measured[0]].centre_lps_mm
    agree = by_ribs[best] >= by_ribs.max() - RIBS_DOUBT
    if numbering.probability >= CERTAIN and agree and int(by_heat.argmax()) == best:
        return []
    other = numbering.second[measured[0]]
    reason = ("the ribs and the keypoint network do not agree" if not agree or int(by_heat.argmax()) != best
              else "the evidence is not overwhelming")
    return [Flag("level_uncertain", Severity.LIMITED,
                 f"Confirm the level: {reason}. The vertebra read as {numbering.names[measured[0]]} "
                 f"({100 * numbering.probability:.0f} %) could be {other or 'another'} "
                 f"({100 * numbering.second_probability:.0f} %).",
                 numbering.names[measured[0]], tuple(float(c) for c in where))]
