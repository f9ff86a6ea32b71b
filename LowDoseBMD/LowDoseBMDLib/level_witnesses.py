"""Who says which vertebra a body is: the keypoint network, the lowest ribs, ribs counted from the first, the sacrum.

Each witness gives, for every body, how well what it saw there fits each place of the spine, and says in a sentence what
that was. They see different things: none of them uses what another one says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .anatomy import SPINE
from .bodies import Body
from .bones import Bones
from .keypoints import Heatmaps
from .level_chain import PLACES
from .level_ribs import OwnRibs, RibMap, distances_near, kind_of

T1, T12, L1, L5 = (SPINE.index(name) for name in ("T1", "T12", "L1", "L5"))

RIB_SIDES: dict[str, tuple[float, float, float]] = {
    "C": (0.97, 0.025, 0.005), "C7": (0.40, 0.20, 0.40), "T12": (0.35, 0.25, 0.40),
    "L1": (0.94, 0.04, 0.02), "L": (0.97, 0.025, 0.005),
}
"""How often the bone network shows a rib on no, one, or both sides where a body's own would be; of the thoracic vertebrae
above T12 see RIB_MISSED. In 50 synthetic scans, seeds 300 to 349: usual twelfth ribs 0.28, 0.32, 0.40 of 25, short ones
0.67, 0.11, 0.22 of 9, long ones 0.18, 0.09, 0.73 of 11, blended for adults, of whom some 5 % have none; L2 to L5 on no
side of 69. L1 without ribs showed some on one side in 7 of 36 there, by twelfth ribs drawn long, in none of 15 views of real
scans: judgement between; lumbar ribs occur in some 5 % of adults. Beside C7 it is the first rib that lies there."""

RIB_MISSED, RIB_MISSED_OF, RIB_MISSED_MOST = 1.0, 15.0, 0.4
"""Between T1 and T11 a rib is missed on both sides, or on one, in 1 of 15 before anything is known of a scan, and as often
as that and the scan's own vertebrae above the lowest ribs tell together; never more often than 0.4 (judgement)."""

RIB_SHARE: dict[str, tuple[float, float]] = {"T": (0.93, 0.07), "T11": (0.85, 0.10), "T12": (0.59, 0.13), "L": (0.53, 0.12)}
"""Reach of a rib to the side as a share of the widest ribs', mean and standard deviation. Seven label maps: eleventh ribs
0.80-0.98, twelfth 0.62-0.73. As the network shows them in 50 synthetic scans, seeds 300 to 349: T7 to T10 0.95 (0.07),
eleventh 0.85 (0.14, with broken ones), usual twelfth 0.55 (0.10), long ones 0.73 (0.12), L1 0.61 (0.12) of 7."""

RIB_BROKEN = 0.1
"""A rib is broken in the bone network's map, and of any length there, so often (judgement)."""

WIDE = SPINE[T1:SPINE.index("T11")]
"""Vertebrae whose ribs can all be the widest."""

FAR = 1.25
"""A first sacral body so many usual distances below the last vertebra, or further, may have been taken for one with the
fifth lumbar one (judgement)."""

LAST_LUMBAR = {L5 - 1: 0.04, L5: 0.91, L5 + 1: 0.05}
"""Which vertebra lies on the sacrum: L4, L5, or a sixth one. Four or six lumbar vertebrae in some 8 % of adults."""

BELOW_CENTRE: dict[int, tuple[float, float]] = {
    1: (0.1, 0.6), 2: (-0.75, 0.4), 3: (-0.85, 0.4), 4: (-0.9, 0.4), 5: (-0.8, 0.35), 6: (-0.7, 0.25), 7: (-0.6, 0.25),
    8: (-0.4, 0.25), 9: (-0.2, 0.25), 10: (-0.1, 0.25), 11: (0.25, 0.25), 12: (0.6, 0.25), 13: (0.6, 0.25),
}
"""How far a rib lies below its own body's centre 30 to 50 mm to the side, in distances between neighbouring bodies: mean and
standard deviation, of both sides of three label maps, the latter not below 0.25. A thirteenth rib as the twelfth."""

COUNT_ERRORS = (0.0, 0.25, 0.1)
"""How often a count is one off when it was possible on no, one, or both sides (judgement)."""

COUNT_UNTOLD, COUNT_FLOOR = 0.2, 0.03
"""Likelihood beside 1 for a rib just where it belongs: of a place of which the count says nothing, and of one whose rib lies
elsewhere (judgement)."""

HEAT_FLOOR = 0.03
"""No heatmap rules a level out completely."""

HEAT_ERROR = 0.12
"""How often the network is one off as a whole: in 4 of the first 20 synthetic scans tried and in one of four real CTs, in
most of these with little certainty (judgement: half of that)."""

HEAT_SEEN = 0.1
"""A body at which no heatmap is higher than this was not noticed: the network says nothing of it."""

SACRUM_MM, SACRUM_BEHIND_MM, SACRUM_MM3, SACRUM_SEEN_MM = 22.0, 8.0, 6000.0, 25.0
"""Below the last body, within SACRUM_MM of where the next one would lie and a little behind it, as the sacrum turns
backwards, this much other bone is the sacrum, where the scan goes on for SACRUM_SEEN_MM: last slices are often misread."""

CORE_MM, WING_MM = 6.0, 9.0
WING_LATERAL_MM, WING_BEHIND_MM = 38.0, 12.0
"""Half of the cubes in which bone classes are looked at: at a body's centre, and beside it, where a first sacral body has
its wings."""

WINGS_SACRAL, WINGS_DOUBTFUL, CORE_DOUBTFUL = 0.5, 0.2, 0.1
"""Share of other bone in both wings from which a body is the sacrum's; from which, in wings or core, it may be. In 14 scans
a first sacral body had 0.3 to 0.9, a last lumbar one 0 to 0.2 in its emptier wing."""


@dataclass(frozen=True, eq=False)
class Witness:
    """name: in words. emission: (views, bodies, PLACES), how likely is what it saw of a body at each place, the same for all
    where it saw nothing; several views, such as either side, are alternatives. error: how often it is wrong by one vertebra
    as a whole. saw: in words."""

    name: str
    emission: np.ndarray
    error: float
    saw: str = ""

    @property
    def silent(self) -> bool:
        return bool(np.ptp(self.emission, axis=2).max(initial=0.0) == 0.0)


def _blank(bodies: int) -> np.ndarray:
    return np.ones((bodies, PLACES))


# --- keypoint network --------------------------------------------------------------------------------------

def heat_witness(bodies: tuple[Body, ...], heatmaps: Heatmaps) -> Witness:
    """What the keypoint network says.

    It has no channel beyond its first and last level, and shows what lies just beyond in those; so they do not speak
    against a vertebra beyond them, the other channels do. Each body counts in full: in 165 phantoms, real CTs and cuts of
    these true names were likeliest with weights of 1.0 to 1.4, though neighbouring channels err together.
    """
    heat = np.array([heatmaps.at(body.centre_lps_mm) for body in bodies]).reshape(len(bodies), -1)
    emission = _blank(len(bodies))
    noticed = np.flatnonzero(heat.max(axis=1, initial=0.0) >= HEAT_SEEN)
    places = [SPINE.index(level) for level in heatmaps.levels]
    for body in noticed:
        emission[body, :places[0]] = (1.0 - heat[body, 1:].max()) ** 2
        emission[body, places[-1] + 1:] = (1.0 - heat[body, :-1].max()) ** 2
        emission[body, places] = heat[body]
    return Witness("keypoint network", np.maximum(emission, HEAT_FLOOR)[None], HEAT_ERROR)


# --- ribs --------------------------------------------------------------------------------------------------

def rib_witness(ribs: tuple[OwnRibs, ...], higher: tuple[OwnRibs, ...]) -> Witness:
    """Who carries ribs, and how long they are.

    ribs: at each body where those of T12 and L1 would be. higher: where those of T11 and the vertebrae above would be.
    """
    missed = _missed(higher)
    emission = np.array([[_rib_chance(place, low if place >= T12 else high, missed) for place in range(PLACES)]
                         for low, high in zip(ribs, higher, strict=True)])
    ribbed = [kind_of(rib) for rib in ribs if rib.sides]
    length = {"seen": "of unknown length"}.get(ribbed[-1], ribbed[-1]) if ribbed else ""
    where = "1 vertebra" if len(ribbed) == 1 else f"{len(ribbed)} vertebrae"
    saw = f"seen at {where}, the lowest {length}" if ribbed else "none was seen"
    return Witness("lowest ribs", emission[None], 0.04, saw)


def _missed(ribs: tuple[OwnRibs, ...]) -> float:
    """How often ribs are missed in this scan, by the bodies above the lowest one at which some were seen."""
    seen = [rib.sides > 0 for rib in ribs if not rib.hidden]
    above = seen[:-1 - seen[::-1].index(True)] if any(seen) else []
    return min(RIB_MISSED_MOST, (RIB_MISSED + above.count(False)) / (RIB_MISSED_OF + len(above)))


def _rib_chance(place: int, rib: OwnRibs, missed: float) -> float:
    name = SPINE[place] if place < len(SPINE) else "L"
    if rib.hidden:
        return 1.0
    thoracic = (missed, missed, 1.0 - 2.0 * missed)
    sides = RIB_SIDES.get(name) or (thoracic if name[0] == "T" else RIB_SIDES[name[0]])
    chance = sides[1] + sides[2] if rib.cut else sides[rib.sides]  # the other side may lie below the scan
    if rib.share is None or name[0] == "C":
        return chance
    mean, spread = RIB_SHARE.get(name, RIB_SHARE[name[0]])
    off = (rib.share - mean) / spread
    if rib.cut:
        fits = ndtr(-off)
    else:
        fits = np.exp(-0.5 * (max(0.0, -off) if name in WIDE else off) ** 2) / (np.sqrt(2.0 * np.pi) * spread)
    return chance * float((1.0 - RIB_BROKEN) * fits + RIB_BROKEN)


def count_witness(bodies: tuple[Body, ...], ribs: RibMap) -> Witness:
    """Ribs counted from the first one down: which of them lies where a body's own would be, on each side."""
    views = [_counted(bodies, heights) for heights in ribs.counted_mm if len(heights)]
    sides = zip(("right", "left"), ribs.counted_mm, strict=False)
    saw = ", ".join(f"{len(heights)} on the {side}" for side, heights in sides if len(heights))
    error = COUNT_ERRORS[min(len(views), 2)]
    return Witness("ribs counted from the first", np.array(views or [_blank(len(bodies))]), error, saw)


def _counted(bodies: tuple[Body, ...], heights_mm: np.ndarray) -> np.ndarray:
    emission = np.full((len(bodies), PLACES), COUNT_UNTOLD)
    steps = distances_near(bodies)
    for n, body in enumerate(bodies):
        for number, (usual, spread) in BELOW_CENTRE.items():
            if number <= len(heights_mm):
                off = ((body.centre_lps_mm[2] - heights_mm[number - 1]) / steps[n] - usual) / spread
                emission[n, T1 + number - 1] = max(COUNT_FLOOR, np.exp(-0.5 * off**2))
    return emission


# --- sacrum ------------------------------------------------------------------------------------------------

def sacral(body: Body, bones: Bones) -> bool:
    """Whether a body is the sacrum's rather than a vertebra's."""
    if bones.other is None:
        return False
    core = _near(body.centre_lps_mm, CORE_MM, bones)
    return _wings(body, bones) >= WINGS_SACRAL or bool(bones.other[core].sum() > bones.of("vertebrae")[core].sum())


def _doubtful(body: Body, bones: Bones) -> bool:
    """Whether a body may be the sacrum's."""
    core = bones.other[_near(body.centre_lps_mm, CORE_MM, bones)]
    return _wings(body, bones) >= WINGS_DOUBTFUL or bool(core.size and core.mean() >= CORE_DOUBTFUL)


def _wings(body: Body, bones: Bones) -> float:
    """Share of other bone to the side of a body, where there is less of it."""
    sides = [bones.other[_near(body.centre_lps_mm + np.array([left, WING_BEHIND_MM, 0.0]), WING_MM, bones)]
             for left in (-WING_LATERAL_MM, WING_LATERAL_MM)]
    return min(float(side.mean()) if side.size else 0.0 for side in sides)


def _near(centre_lps_mm: np.ndarray, reach_mm: float, bones: Bones) -> tuple[slice, ...]:
    """The cube of bone voxels within reach of a place."""
    centre = bones.geometry.to_kji(centre_lps_mm)
    reach = reach_mm / np.array(bones.geometry.spacing_kji_mm)
    low = np.clip(np.floor(centre - reach).astype(int), 0, bones.geometry.shape_kji)
    high = np.clip(np.ceil(centre + reach).astype(int) + 1, low, bones.geometry.shape_kji)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def sacrum_witness(bodies: tuple[Body, ...], below: Body | None, bones: Bones) -> Witness:
    """The sacrum below the last body. below: the next body, when that is the sacrum's.

    The last body may be the first sacral one itself, and one further down than usual may hold the last lumbar one too.
    """
    emission = _blank(len(bodies))
    if below is None and not _sacrum_below(bodies, bones):
        return Witness("sacrum", emission[None], 0.04)
    last = np.array([LAST_LUMBAR.get(place, 1e-3) for place in range(PLACES)])
    views, saw = [last], "it lies below the last vertebra"
    if _doubtful(bodies[-1], bones):
        views, saw = [last, np.roll(last, 1)], "the last vertebra may be its first one"
    elif below is not None and _far(bodies, below):
        views, saw = [last, np.roll(last, -1)], "a vertebra may have been missed above it"
    emission[-1] = np.mean(views, axis=0)
    return Witness("sacrum", emission[None], 0.04, saw)


def _far(bodies: tuple[Body, ...], below: Body) -> bool:
    step = np.linalg.norm(below.centre_lps_mm - bodies[-1].centre_lps_mm)
    return bool(step >= FAR * distances_near(bodies)[-1])


def _sacrum_below(bodies: tuple[Body, ...], bones: Bones) -> bool:
    if bones.other is None or len(bodies) < 2:
        return False
    last, above = (body.centre_lps_mm for body in (bodies[-1], bodies[-2]))
    if bones.geometry.to_kji(last)[0] * bones.geometry.spacing_kji_mm[0] < SACRUM_SEEN_MM:
        return False
    near = _near(last + (last - above) + SACRUM_BEHIND_MM * np.array([0.0, 1.0, 0.0]), SACRUM_MM, bones)
    return bool(np.count_nonzero(bones.other[near] > 0.5) * bones.geometry.voxel_volume_mm3 >= SACRUM_MM3)
