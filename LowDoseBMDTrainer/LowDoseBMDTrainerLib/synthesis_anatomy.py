"""What makes the anatomy of one sample another than its person's: ribs, number of lumbar vertebrae, fractures, osteophytes,
curvature, arms, build and metal.

How often, in adults: 13 pairs of ribs or lumbar ribs and 11 pairs in about 5 % each, six or four lumbar vertebrae in about
8 % together, osteophytes in most old people, vertebral fractures in a fifth of old women, metal in the spine in a few. The
shares below are raised where a rare thing must be learnt from few samples; how far is judgement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from LowDoseBMDLib.anatomy import SPINE

from .people import BONE_PARTS
from .synthesis_fields import Box, Chance, Grid
from .synthesis_subject import Rib, Subject

THIRTEEN_PAIRS, ELEVEN_PAIRS, OTHER_LENGTH = 0.09, 0.09, 0.5
"""Shares of samples with ribs on L1, without the twelfth ribs, and with twelfth ribs of another length."""

LONGER_MM, SHORTEST_MM, LONGEST_L1_MM = 70.0, 22.0, 90.0
"""The twelfth rib grows by so much at most; ribs end at least so far to the side, and those of L1 at most."""

FOUR_LUMBAR, SIX_LUMBAR = 0.07, 0.07
FRACTURES, OSTEOPHYTES, BENT, HUNCHED, ARMS_DOWN, NO_HUMERI, METAL = 0.2, 0.45, 0.18, 0.2, 0.2, 0.25, 0.05
"""Shares of samples with each."""

HEIGHT_LOSS = (0.15, 0.55)
"""Of a fractured body: from the least that is called a fracture to severe (Genant: 20, 25, 40 %)."""

METAL_NEAR = 5
"""Metal lies at one of so many vertebrae next to the sample's middle, so that it is seen."""

SHORT_RIB_MM, LONG_RIB_MM = 60.0, 100.0
"""For the report: a twelfth rib that ends nearer to the middle is short, further out long (judgement)."""

L6 = "L6"
"""Name of a sixth lumbar vertebra. The keypoint network has no channel for it."""


@dataclass(frozen=True)
class Fracture:
    """shape: wedge, biconcave or crush. loss: share of the height, where most is lost. upper: the upper endplate alone."""

    shape: str
    loss: float
    upper: bool


@dataclass(frozen=True)
class Build:
    """age: 0 young to 1 old. layer_mm: of subcutaneous fat. front: how much thicker it is in front than behind, -0.4 to
    0.4. breast_mm: 0 for none. muscle_fat: share of fat in muscle."""

    age: float = 0.5
    layer_mm: float = 12.0
    front: float = 0.0
    breast_mm: float = 0.0
    muscle_fat: float = 0.1


@dataclass(frozen=True)
class Anatomy:
    """One sample's anatomy; the default is the person's own.

    rib_12_mm: how far to the side each twelfth rib ends, left and right, from T12's centre; inf as the person has it, more
    than that by ``longer_mm``; 0 for none. rib_l1_mm: of ribs on L1, 0 for none. changed_at: the vertebra that is missing
    below it (four lumbar) or is there twice (six). scoliosis_mm, period_mm, phase: of the bend to the side. hunch_mm: how
    far the thoracic spine bulges backwards. metal: kinds of it, shoulder_mm: how far the shoulders are lifted.
    """

    rib_12_mm: tuple[float, float] = (np.inf, np.inf)
    longer_mm: tuple[float, float] = (0.0, 0.0)
    rib_l1_mm: tuple[float, float] = (0.0, 0.0)
    lumbar: int = 5
    changed_at: str = ""
    fractures: Mapping[str, Fracture] = field(default_factory=dict)
    osteophytes_mm: float = 0.0
    scoliosis_mm: float = 0.0
    period_mm: float = 300.0
    phase: float = 0.0
    hunch_mm: float = 0.0
    shoulder_mm: float = 0.0
    arms_down: bool = False
    humeri: bool = True
    metal: tuple[str, ...] = ()
    build: Build = Build()


def draw_anatomy(chance: Chance, subject: Subject, organs: bool = True) -> Anatomy:
    """organs: False for a real CT, whose soft tissue cannot follow a changed number of vertebrae."""
    age = chance.uniform(0, 1)
    rib_12, longer, rib_l1 = _draw_ribs(chance)
    lumbar, changed_at = _draw_lumbar(chance, subject) if organs else (5, "")
    return Anatomy(
        rib_12, longer, rib_l1, lumbar, changed_at,
        fractures=_draw_fractures(chance, subject, age) if chance.happens(2 * age * FRACTURES) else {},
        osteophytes_mm=chance.uniform(1, 8) if chance.happens(2 * age * OSTEOPHYTES) else 0.0,
        scoliosis_mm=chance.uniform(12, 35) if chance.happens(BENT) else chance.uniform(0, 5),
        period_mm=chance.uniform(220, 450), phase=chance.uniform(0, 2 * np.pi),
        hunch_mm=chance.uniform(10, 45) * (0.5 + age) if chance.happens(HUNCHED) else chance.uniform(-12, 8),
        shoulder_mm=float(chance.rng.normal(0, 14)), arms_down=organs and chance.happens(ARMS_DOWN),
        humeri=not chance.happens(NO_HUMERI), metal=_draw_metal(chance) if chance.happens(METAL) else (),
        build=_draw_build(chance, age))


def _draw_ribs(chance: Chance) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """(how far the twelfth ribs reach, by how much they are longer, how far ribs of L1 reach), left and right each."""
    kind = chance.rng.random()
    if kind < ELEVEN_PAIRS:
        return (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    own, none = (np.inf, np.inf), (0.0, 0.0)
    if kind < ELEVEN_PAIRS + THIRTEEN_PAIRS:
        one_sided = chance.happens(0.25)
        lengths = _pair(chance, SHORTEST_MM, LONGEST_L1_MM)
        return own, none, (lengths[0], 0.0) if one_sided else lengths
    if not chance.happens(OTHER_LENGTH / (1 - ELEVEN_PAIRS - THIRTEEN_PAIRS)):
        return own, none, none
    if chance.happens(0.3):
        return own, _pair(chance, 0.0, LONGER_MM), none
    return _pair(chance, SHORTEST_MM, 110.0), none, none


def _pair(chance: Chance, low: float, high: float) -> tuple[float, float]:
    """Left and right are much alike, rarely not."""
    first = chance.uniform(low, high)
    second = chance.uniform(low, high) if chance.happens(0.15) else first * chance.uniform(0.85, 1.15)
    return (first, second) if chance.happens(0.5) else (second, first)


def _draw_lumbar(chance: Chance, subject: Subject) -> tuple[int, str]:
    """(number of lumbar vertebrae, the vertebra below which one is taken out or that is repeated)."""
    kind = chance.rng.random()
    if kind > FOUR_LUMBAR + SIX_LUMBAR:
        return 5, ""
    known, fewer = subject.centres, kind < FOUR_LUMBAR
    needed = 3 if fewer else 2
    lower = [SPINE[n:n + needed] for n in (SPINE.index("L1"), SPINE.index("L2"), SPINE.index("L3"))]
    places = [levels[0] for levels in lower if all(level in known for level in levels)]
    places = [level for level in places if level != "L1"] or places
    return (4 if fewer else 6, places[chance.rng.integers(len(places))]) if places else (5, "")


def _draw_fractures(chance: Chance, subject: Subject, age: float) -> dict[str, Fracture]:
    levels = [level for level in subject.centres if level[0] != "C"]
    chosen = chance.rng.permutation(levels)[: 1 + chance.rng.binomial(3, 0.5 * age)]
    return {str(level): Fracture(str(chance.rng.choice(["wedge", "wedge", "biconcave", "crush"])),
                                 chance.uniform(*HEIGHT_LOSS), chance.happens(0.5)) for level in chosen}


def _draw_metal(chance: Chance) -> tuple[str, ...]:
    return (str(chance.rng.choice(["screws", "screws", "cement", "joints"])),)


def _draw_build(chance: Chance, age: float) -> Build:
    fat = chance.uniform(0, 1) ** 2
    breast = chance.uniform(8, 31) if chance.happens(0.5) else 0.0
    return Build(age, min(2.0 + 45.0 * fat, 33.0), chance.uniform(-0.4, 0.4), breast,
                 float(np.clip(0.25 * age + 0.15 * fat + chance.rng.normal(0, 0.08), 0, 0.45)))


# --- the truth ---------------------------------------------------------------------------------------------

def true_centres(subject: Subject, anatomy: Anatomy) -> dict[str, np.ndarray | None]:
    """Centres of the bodies by their true names, counted down with twelve thoracic vertebrae; voxels k, j, i of Pose.varied.

    None for a lumbar vertebra that this sample does not have, and for vertebrae beyond an end of the label map that comes
    so soon that they lie out of it. Of another level that is not named in the label map nothing is known: it is not in it.
    """
    named = _renamed(subject, anatomy)
    places = [SPINE.index(level) for level in named if level in SPINE]
    above, below = _map_ends(subject)
    return {**dict.fromkeys(SPINE[:min(places)] if above else (), None), **named,
            **dict.fromkeys(SPINE[max(places) + 1:] if below else (), None)}


def _map_ends(subject: Subject) -> tuple[bool, bool]:
    """Whether the label map ends less than a vertebra above the first named body, and below the last."""
    slices = [centre[0] for centre in subject.centres.values()]
    if len(slices) < 2:
        return False, False
    return (subject.bone.shape[0] - 1 - slices[0] < slices[0] - slices[1], slices[-1] < slices[-2] - slices[-1])


def _renamed(subject: Subject, anatomy: Anatomy) -> dict[str, np.ndarray | None]:
    known = subject.centres
    if anatomy.lumbar == 5:
        return dict(known)
    order = list(known)
    at = order.index(anatomy.changed_at)
    shift = lumbar_shift(subject, anatomy)
    below = order[at + 2:] if anatomy.lumbar == 4 else order[at:]
    names = [*SPINE, L6]
    first = names.index(anatomy.changed_at) + 1
    result: dict[str, np.ndarray | None] = {level: known[level] for level in order[:at + 1]}
    result |= {names[first + n]: known[level] - shift for n, level in enumerate(below)}
    if anatomy.lumbar == 4 and "L5" in known:
        result["L5"] = None
    return result


def lumbar_shift(subject: Subject, anatomy: Anatomy) -> np.ndarray:
    """(3,) voxels k, j, i: how far the person's anatomy is moved below ``changed_at``: away, or back."""
    known = subject.centres
    order = list(known)
    at = order.index(anatomy.changed_at)
    here, next_one = known[order[at]], known[order[at + 1]]
    return known[order[at + 2]] - next_one if anatomy.lumbar == 4 else here - next_one


def kinds(anatomy: Anatomy, subject: Subject) -> tuple[str, ...]:
    """What is unusual about an anatomy, in words for a table."""
    found = []
    if any(anatomy.rib_l1_mm):
        found.append("13 pairs of ribs" if all(anatomy.rib_l1_mm) else "a rib on one side of L1")
    if subject.ribs:
        found += {"absent": ["11 pairs of ribs"], "short": ["short twelfth rib"]}.get(rib_12_kind(anatomy, subject), [])
    if anatomy.lumbar != 5:
        found.append(f"{anatomy.lumbar} lumbar vertebrae")
    found += ["fracture"] * bool(anatomy.fractures) + ["osteophytes"] * (anatomy.osteophytes_mm > 2.0)
    found += ["scoliosis"] * (anatomy.scoliosis_mm >= 12.0) + ["kyphosis"] * (anatomy.hunch_mm >= 10.0)
    return (*found, *(f"metal: {kind}" for kind in anatomy.metal), *["arms down"] * anatomy.arms_down)


def rib_12_kind(anatomy: Anatomy, subject: Subject) -> str:
    """absent, short or long, after the longer side; of a person's own too."""
    reach = max((min(float(rib.reach_mm.max()), limit) + longer for rib, limit, longer in
                 zip(subject.ribs, anatomy.rib_12_mm, anatomy.longer_mm, strict=False) if limit > 0), default=0.0)
    return "absent" if reach == 0 else "short" if reach < SHORT_RIB_MM else "long" if reach > LONG_RIB_MM else "usual"


# --- bones -------------------------------------------------------------------------------------------------

def edit_bones(chance: Chance, subject: Subject, anatomy: Anatomy, bone: torch.Tensor, depth_mm: torch.Tensor,
               box: Box) -> None:
    """Change ribs, osteophytes and humeri of the bone parts (uint8) and depths (float) inside ``box``, in place."""
    for n, rib in enumerate(subject.ribs):
        limit, longer, on_l1 = anatomy.rib_12_mm[n], anatomy.longer_mm[n], anatomy.rib_l1_mm[n]
        if limit < np.inf:
            _put(bone, depth_mm, box, rib.index[rib.reach_mm > limit], 0, 0.0, over=True)
        if longer > 0:
            _lengthen(subject, rib, longer, bone, depth_mm, box)
        if on_l1 > 0 and "L1" in subject.centres:
            step = torch.from_numpy(np.rint(subject.centres["L1"] - subject.centres["T12"])).long().to(subject.device)
            near = rib.reach_mm <= on_l1
            _put(bone, depth_mm, box, rib.index[near] + step, BONE_PARTS.index("rib_12"), rib.depth_mm[near])
    if anatomy.osteophytes_mm > 0:
        _grow_osteophytes(chance, subject, anatomy.osteophytes_mm, bone, depth_mm, box)
    if not anatomy.humeri:
        bone[bone == BONE_PARTS.index("humerus")] = 0


def _put(bone: torch.Tensor, depth_mm: torch.Tensor, box: Box, index: torch.Tensor, part: int | torch.Tensor,
         depth: float | torch.Tensor, over: bool = False) -> None:
    """Set bone at voxels (N, 3) of the person that lie in the box; over other bone only where ``over``."""
    local = index - torch.tensor([s.start for s in box], device=index.device)
    inside, at = _within(local, bone.shape)
    kept = (inside if over else inside & (bone[at] == 0)).nonzero()[:, 0]
    at = tuple(axis[kept] for axis in at)
    bone[at] = part[kept] if isinstance(part, torch.Tensor) else part
    depth_mm[at] = (depth[kept] if isinstance(depth, torch.Tensor) else depth_mm.new_tensor(depth)).to(depth_mm.dtype)


def _within(index: torch.Tensor, shape: torch.Size) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """(which of the voxels (N, 3) lie in an array of this shape, k, j, i of the nearest voxels that do)."""
    nearest = torch.minimum(index.clamp(min=0), torch.tensor(shape, device=index.device) - 1)
    return (nearest == index).all(1), tuple(nearest.unbind(1))


def _lengthen(subject: Subject, rib: Rib, longer_mm: float, bone: torch.Tensor, depth_mm: torch.Tensor, box: Box) -> None:
    """The outer part of the rib goes on along its tip, as far as there is a trunk for it."""
    outer = (rib.reach_mm > 0.7 * rib.reach_mm.max()).nonzero()[:, 0]
    steps = torch.arange(int(longer_mm / subject.spacing_mm), 0, -1, device=outer.device)
    index = (rib.index[outer] + torch.round(rib.tip * steps[:, None, None]).long()).reshape(-1, 3)
    depth = rib.depth_mm[outer].expand(len(steps), -1).reshape(-1)
    inside, at = _within(index, subject.bone.shape)
    deep = (inside & (subject.inside_mm[at] > 5)).nonzero()[:, 0]
    _put(bone, depth_mm, box, index[deep], BONE_PARTS.index("rib_12"), depth[deep])


def _grow_osteophytes(chance: Chance, subject: Subject, size_mm: float, bone: torch.Tensor, depth_mm: torch.Tensor,
                      box: Box) -> None:
    """Beaks at the rims of endplates, in some places as far as the next body; they are no part of the body."""
    rims = subject.rims
    size = size_mm * chance.field_at(rims.index.float(), subject.spacing_mm, 22.0).clamp(-1, 2)
    grown = rims.body_mm <= size * torch.exp(-rims.disc_mm / 4.0)
    _put(bone, depth_mm, box, rims.index[grown], rims.bone[grown], 0.7 * subject.spacing_mm)


# --- metal -------------------------------------------------------------------------------------------------

def metal_in(chance: Chance, subject: Subject, anatomy: Anatomy, place: torch.Tensor, grid: Grid) -> torch.Tensor | None:
    """(K, J, I) how much of each voxel is screws, rods or cement, 0 to 1; None where there is nothing of the kind.

    place: (3, K, J, I) voxels of the person.
    """
    levels = [level for level in subject.centres if level[0] != "C"]
    if not set(anatomy.metal) & {"screws", "cement"} or len(levels) < 2:
        return None
    middle = place[:, place.shape[1] // 2, place.shape[2] // 2, place.shape[3] // 2].cpu().numpy()
    away_mm = [np.linalg.norm(subject.centres[level] - middle) * subject.spacing_mm for level in levels]
    first = min(int(chance.rng.choice(np.argsort(away_mm)[:METAL_NEAR])), len(levels) - 2)
    chosen = levels[first: first + 2 + int(chance.rng.integers(3))]
    mm = place * subject.spacing_mm
    soft = float(np.mean(grid.spacing_kji_mm))
    if "cement" in anatomy.metal:
        away = mm - _point(subject, subject.centres[chosen[0]])
        distance = (away**2).sum(0).sqrt() + 3.0 * chance.field(grid, 8.0)[0]
        return ((chance.uniform(8, 13) - distance) / soft + 0.5).clamp(0, 1)
    metal, heads = torch.zeros(place.shape[1:], device=place.device), {-1: [], 1: []}
    for level in chosen:
        for side in (-1, 1):
            head = subject.centres[level] + np.array([2.0, 42.0, side * 24.0]) / subject.spacing_mm
            tip = subject.centres[level] + np.array([0.0, -6.0, side * 11.0]) / subject.spacing_mm
            metal = torch.maximum(metal, _rod(mm, _point(subject, head), _point(subject, tip), 3.0, soft))
            heads[side].append(head)
    for side in (-1, 1):
        for a, b in zip(heads[side], heads[side][1:], strict=False):
            metal = torch.maximum(metal, _rod(mm, _point(subject, a), _point(subject, b), 3.0, soft))
    return metal


def _point(subject: Subject, kji: np.ndarray) -> torch.Tensor:
    values = torch.tensor(kji * subject.spacing_mm, dtype=torch.float32, device=subject.device)
    return values.reshape(3, 1, 1, 1)


def _rod(mm: torch.Tensor, start: torch.Tensor, end: torch.Tensor, radius_mm: float, soft_mm: float) -> torch.Tensor:
    along = end - start
    share = (((mm - start) * along).sum(0) / (along**2).sum()).clamp(0, 1)
    distance = ((mm - start - share * along) ** 2).sum(0).sqrt()
    return ((radius_mm - distance) / soft_mm + 0.5).clamp(0, 1)
