"""Who says which vertebra a body is: the keypoint network, the lowest ribs, ribs counted from the first, the sacrum.

Each witness gives, for every body, how well what it saw there fits each place of the spine, and says in a sentence what
that was. They see different things: none of them uses what another one says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import SPINE
from .bodies import Body
from .bones import Bones
from .keypoints import Heatmaps
from .level_chain import PLACES
from .level_ribs import RibMap, distances_near

T1, L1, L5 = (SPINE.index(name) for name in ("T1", "L1", "L5"))

RIB_CHANCES: dict[str, tuple[float, float, float]] = {
    "T": (0.05, 0.10, 0.85), "T12": (0.35, 0.60, 0.05), "L1": (0.94, 0.055, 0.005), "L": (0.97, 0.025, 0.005),
}
"""How often the bone network shows no, a short, or a long rib beside T1-T11, T12, L1, L2-L5 (judgement): twelfth ribs
are thin, short or absent in many, lumbar ribs occur in some 5 % of adults."""

LAST_LUMBAR = {L5 - 1: 0.04, L5: 0.91, L5 + 1: 0.05}
"""Which vertebra lies on the sacrum: L4, L5, or a sixth one. Four or six lumbar vertebrae in some 8 % of adults."""

BELOW_CENTRE = {8: -0.40, 9: -0.22, 10: -0.07, 11: 0.23, 12: 0.60, 13: 0.60}
BELOW_SPREAD = 0.25
"""How far a rib lies below its own body's centre 30 to 50 mm to the side, in distances between neighbouring bodies, and how
much people differ in that. Mean of both sides of three label maps; further up they differ too much. A thirteenth rib as the
twelfth."""

COUNT_UNTOLD, COUNT_FLOOR = 0.3, 0.03
"""Likelihood beside 1 for a rib just where it belongs: of a place of which the count says nothing, and of one whose rib lies
elsewhere (judgement)."""

HEAT_FLOOR = 0.03
"""No heatmap rules a level out completely."""

HEAT_BODIES = 2.5
"""Heatmaps of neighbouring levels come from one network and err together: however many bodies there are, they count as this
many independent ones (judgement)."""

HEAT_SEEN = 0.1
"""A body at which no heatmap is higher than this was not noticed: the network says nothing of it."""

SACRUM_MM, SACRUM_BEHIND_MM, SACRUM_MM3 = 22.0, 8.0, 2000.0
"""Below the last body, within SACRUM_MM of where the next one would lie and a little behind it, as the sacrum turns
backwards, this much other bone is the sacrum."""

CORE_MM = 6.0
"""Half of the cube at a body's centre in which bone classes are compared."""


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
    against a vertebra beyond them, the other channels do.
    """
    heat = np.array([heatmaps.at(body.centre_lps_mm) for body in bodies]).reshape(len(bodies), -1)
    emission = _blank(len(bodies))
    noticed = np.flatnonzero(heat.max(axis=1, initial=0.0) >= HEAT_SEEN)
    places = [SPINE.index(level) for level in heatmaps.levels]
    for body in noticed:
        emission[body, :places[0]] = (1.0 - heat[body, 1:].max()) ** 2
        emission[body, places[-1] + 1:] = (1.0 - heat[body, :-1].max()) ** 2
        emission[body, places] = heat[body]
    if noticed.size:
        emission = np.maximum(emission, HEAT_FLOOR) ** min(1.0, HEAT_BODIES / noticed.size)
    return Witness("keypoint network", emission[None], 0.06)


# --- ribs --------------------------------------------------------------------------------------------------

def rib_witness(kinds: tuple[str, ...]) -> Witness:
    """Who carries ribs, and how long they are."""
    emission = np.array([[_rib_chance(place, kind) for place in range(PLACES)] for kind in kinds])
    ribbed = [kind for kind in kinds if kind not in ("none", "hidden")]
    saw = f"the lowest of {len(ribbed)} is {ribbed[-1]}" if ribbed else "none was seen"
    return Witness("lowest ribs", emission[None], 0.04, saw)


def _rib_chance(place: int, kind: str) -> float:
    name = SPINE[place] if T1 <= place < len(SPINE) else "L"
    none, short, long = RIB_CHANCES.get(name, RIB_CHANCES[name[0]])
    return {"none": none, "short": short, "long": long, "seen": short + long, "hidden": 1.0}[kind]


def count_witness(bodies: tuple[Body, ...], ribs: RibMap) -> Witness:
    """Ribs counted from the first one down: which of them lies where a body's own would be, on each side."""
    views = [_counted(bodies, heights) for heights in ribs.counted_mm if len(heights)]
    sides = zip(("right", "left"), ribs.counted_mm, strict=False)
    saw = ", ".join(f"{len(heights)} on the {side}" for side, heights in sides if len(heights))
    return Witness("ribs counted from the first", np.array(views or [_blank(len(bodies))]), 0.1, saw)


def _counted(bodies: tuple[Body, ...], heights_mm: np.ndarray) -> np.ndarray:
    emission = np.full((len(bodies), PLACES), COUNT_UNTOLD)
    steps = distances_near(bodies)
    for n, body in enumerate(bodies):
        for number, usual in BELOW_CENTRE.items():
            if number <= len(heights_mm):
                off = (body.centre_lps_mm[2] - heights_mm[number - 1]) / steps[n] - usual
                emission[n, T1 + number - 1] = max(COUNT_FLOOR, np.exp(-0.5 * (off / BELOW_SPREAD) ** 2))
    return emission


# --- sacrum ------------------------------------------------------------------------------------------------

def sacral(body: Body, bones: Bones) -> bool:
    """Whether the bone network takes a body for sacrum rather than for a vertebra."""
    if bones.other is None:
        return False
    near = _near(body.centre_lps_mm, CORE_MM, bones)
    return bool(bones.other[near].sum() > bones.of("vertebrae")[near].sum())


def _near(centre_lps_mm: np.ndarray, reach_mm: float, bones: Bones) -> tuple[slice, ...]:
    """The cube of bone voxels within reach of a place."""
    centre = bones.geometry.to_kji(centre_lps_mm)
    reach = reach_mm / np.array(bones.geometry.spacing_kji_mm)
    low = np.clip(np.floor(centre - reach).astype(int), 0, bones.geometry.shape_kji)
    high = np.clip(np.ceil(centre + reach).astype(int) + 1, low, bones.geometry.shape_kji)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def sacrum_witness(bodies: tuple[Body, ...], dropped: int, bones: Bones) -> Witness:
    """The sacrum below the last body. dropped: bodies below it that are sacrum themselves."""
    emission = _blank(len(bodies))
    seen = dropped > 0 or _sacrum_below(bodies, bones)
    if seen:
        emission[-1] = [LAST_LUMBAR.get(place, 1e-3) for place in range(PLACES)]
    return Witness("sacrum", emission[None], 0.04, "the sacrum lies below the last vertebra" if seen else "")


def _sacrum_below(bodies: tuple[Body, ...], bones: Bones) -> bool:
    if bones.other is None or len(bodies) < 2:
        return False
    last, above = (body.centre_lps_mm for body in (bodies[-1], bodies[-2]))
    near = _near(last + (last - above) + SACRUM_BEHIND_MM * np.array([0.0, 1.0, 0.0]), SACRUM_MM, bones)
    return bool(np.count_nonzero(bones.other[near] > 0.5) * bones.geometry.voxel_volume_mm3 >= SACRUM_MM3)
