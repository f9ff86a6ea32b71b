"""What a reader does to proposed regions: pure functions from regions to regions.

The arrays are never changed in place, so earlier regions stay as they were and can be put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .anatomy import LEVELS, SPINE
from .ctvolume import CTVolume
from .flags import LEVEL_UNCERTAIN, LEVELS_NAMED, Flag, Severity
from .pipeline import EROSIONS, NEAR_LEVELS, centre_of, drawn_level, trabecular_core
from .rois import NO_VOXELS, Keypoint, LevelFinding, Mask, Rois, Vertebra
from .roistats import clip
from .vertebrae import assess_levels

REACH_MM = 25.0
"""A keypoint this near to a body's centre can mean that body; between two, the nearer. Lumbar bodies are 35 mm apart."""

LEVEL_NAMES = "level_names"
"""Stands in Rois.edited when a reader moved the names."""

NO_REASON = "no reason given"


def replace_masks(ct: CTVolume, rois: Rois, masks: Mapping[str, Mask]) -> Rois:
    """The regions after a reader drew.

    A body that was drawn gets a new trabecular core, unless the core is the reader's own; a core that was drawn is
    measured as it is, even when its body looks incomplete. Masks equal to those there are no change.
    """
    changed = changed_masks(rois, masks)
    if not changed:
        return rois
    drawn = replace(rois, masks={**rois.masks, **changed}, edited=rois.edited | changed.keys())
    for level in LEVELS:
        if f"body_{level}" in changed:
            drawn = _with_vertebra(drawn, level, rois.masks.get(f"body_{level}"), changed[f"body_{level}"])
            drawn = _settle(ct, drawn, level)
        elif f"trabecular_{level}" in changed:
            drawn = _with_core(ct, drawn, level, changed[f"trabecular_{level}"])
    return drawn


def changed_masks(rois: Rois, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Those of the masks that hold other voxels than the regions do; no region and an empty one are the same."""
    return {name: mask for name, mask in masks.items() if not mask.same_as(rois.masks.get(name, NO_VOXELS))}


def move_keypoint(ct: CTVolume, rois: Rois, level: str, position_lps_mm: tuple[float, float, float]) -> Rois:
    """The level is read where its keypoint lies now.

    A keypoint on another vertebra takes that vertebra's body; the level that had it is then not measured until its
    own keypoint is moved too. Where no body was found, the body of the nearest level is copied, with a flag.
    """
    _known(level)
    moved = replace(rois, keypoints=_with_keypoint(rois, Keypoint(level, tuple(map(float, position_lps_mm)))),
                    edited=rois.edited | {f"keypoint_{level}"})
    point = np.asarray(position_lps_mm, dtype=float)
    there = _body_at(rois, point)
    if there is None:
        return _copy_neighbour(ct, moved, level, point)
    return moved if there is rois.masks.get(f"body_{level}") else _take(ct, moved, level, there)


def shift_levels(ct: CTVolume, rois: Rois, step: int) -> Rois:
    """Every name moves by ``step`` vertebrae, towards the head when positive; what a reader drew stays with its vertebra.

    Raises ValueError when no vertebra is known that a name could move to.
    """
    if step == 0:
        return rois
    spine = tuple(Vertebra(v.place + step, v.body) for v in rois.spine)
    if not any(v.name in LEVELS for v in spine):
        raise ValueError("no vertebra is known there: the names of T12, L1 and L2 cannot be moved so far. Draw the bodies.")
    was = {level: Vertebra(SPINE.index(level) - step, NO_VOXELS).name or "" for level in LEVELS}
    shifted = replace(rois, spine=spine, edited=_renamed(rois, was) | {LEVEL_NAMES},
                      masks=_moved_masks(rois, spine, was), keypoints=_moved_keypoints(ct, spine),
                      excluded={level: rois.excluded[was[level]] for level in LEVELS if was[level] in rois.excluded},
                      levels=(), flags=_named_by_reader(rois, "levels_moved", "A reader moved the names of the levels "
                                                        "to other vertebrae than those that were proposed."))
    for level in LEVELS:
        shifted = _settle(ct, shifted, level)
    return shifted


def confirm_levels(rois: Rois) -> Rois:
    """A reader says that the names of the levels are right."""
    return replace(rois, flags=_named_by_reader(rois, "levels_confirmed", "A reader confirmed the names of the levels."))


def set_used(rois: Rois, level: str, used: bool, reason: str = "") -> Rois:
    """Leave a level out of the mean, or take it in again."""
    _known(level)
    excluded = {name: why for name, why in rois.excluded.items() if name != level}
    return replace(rois, excluded=excluded if used else {**excluded, level: reason.strip() or NO_REASON})


def rederive(ct: CTVolume, rois: Rois, level: str) -> Rois:
    """Drop the reader's own trabecular region of a level and erode its body again."""
    _known(level)
    return _settle(ct, replace(rois, edited=rois.edited - {f"trabecular_{level}"}), level)


def with_erosion(ct: CTVolume, rois: Rois, mode: str) -> Rois:
    """Make the trabecular regions in another mode; the reader's own stay. Raises ValueError for an unknown mode."""
    if mode not in EROSIONS:
        raise ValueError(f"erosion mode {mode!r}: choose {', '.join(EROSIONS)}")
    changed = replace(rois, erosion=mode)
    for level in LEVELS:
        changed = _settle(ct, changed, level)
    return changed


# --- one level ---------------------------------------------------------------------------------------------

def _settle(ct: CTVolume, rois: Rois, level: str) -> Rois:
    """Assess a level's body and give it its trabecular region, or keep the reader's."""
    name, body = f"trabecular_{level}", rois.masks.get(f"body_{level}")
    finding = None if body is None or body.empty else _assess(ct, rois, level)
    core = rois.masks.get(name)
    if name in rois.edited and core is not None:
        finding = drawn_level(level, core, finding)
    else:
        core = None
        if finding is not None and finding.complete:
            core, finding = trabecular_core(ct, body, finding, rois.erosion)
    masks = {key: mask for key, mask in rois.masks.items() if key != name}
    if core is not None:
        masks[name] = core
    return replace(rois, masks=masks, levels=_with_finding(rois.levels, level, finding))


def _with_core(ct: CTVolume, rois: Rois, level: str, core: Mask) -> Rois:
    """A reader drew the core alone: what was found of its body stands, and the brush need not wait for it."""
    found = rois.level(level)
    if found is None or found.axes_lps is None:
        return _settle(ct, rois, level)
    assessed = replace(found, reason=found.reason or found.overridden)
    return replace(rois, levels=_with_finding(rois.levels, level, drawn_level(level, core, assessed)))


def _assess(ct: CTVolume, rois: Rois, level: str) -> LevelFinding:
    body = rois.masks[f"body_{level}"]
    own = next(v.place for v in rois.spine if v.body is body)
    named = {Vertebra(v.place - own + SPINE.index(level), v.body).name: v.body for v in rois.spine if not v.body.empty}
    near = {name: named[name] for name in NEAR_LEVELS if name in named}
    return assess_levels({**near, level: body}, ct.geometry, ct, levels=(level,))[0]


def _with_finding(levels: tuple[LevelFinding, ...], level: str, finding: LevelFinding | None) -> tuple[LevelFinding, ...]:
    known = {entry.name: entry for entry in levels if entry.name != level}
    if finding is not None:
        known[level] = finding
    return tuple(known[name] for name in LEVELS if name in known)


def _with_vertebra(rois: Rois, level: str, before: Mask | None, body: Mask) -> Rois:
    """The chain with this body instead of the level's former one, and a keypoint on it when the level had none."""
    place = next((v.place for v in rois.spine if v.body is before), SPINE.index(level))
    others = [v for v in rois.spine if v.body is not before]
    spine = others if body.empty else [*others, Vertebra(place, body)]
    keypoints = rois.keypoints
    if not body.empty and rois.keypoint(level) is None:
        keypoints = _with_keypoint(rois, Keypoint(level, centre_of(body, rois.geometry)))
    return replace(rois, spine=tuple(sorted(spine, key=lambda v: v.place)), keypoints=keypoints)


def _with_keypoint(rois: Rois, keypoint: Keypoint) -> tuple[Keypoint, ...]:
    known = {point.level: point for point in (*rois.keypoints, keypoint)}
    return tuple(known[level] for level in LEVELS if level in known)


# --- keypoints ---------------------------------------------------------------------------------------------

def _body_at(rois: Rois, point_lps_mm: np.ndarray) -> Mask | None:
    """The body that a point means: the one that it lies in, else the nearest within reach."""
    bodies = [v.body for v in rois.spine if not v.body.empty]
    inside = next((body for body in bodies if _holds(body, rois, point_lps_mm)), None)
    if inside is not None or not bodies:
        return inside
    nearest = min(bodies, key=lambda body: _distance_mm(body, rois, point_lps_mm))
    return nearest if _distance_mm(nearest, rois, point_lps_mm) <= REACH_MM else None


def _holds(body: Mask, rois: Rois, point_lps_mm: np.ndarray) -> bool:
    index = np.rint(rois.geometry.to_kji(point_lps_mm)).astype(int) - body.start_kji
    return bool(np.all((index >= 0) & (index < body.voxels.shape)) and body.voxels[tuple(index)])


def _distance_mm(body: Mask, rois: Rois, point_lps_mm: np.ndarray) -> float:
    return float(np.linalg.norm(body.centroid_lps_mm(rois.geometry) - point_lps_mm))


def _take(ct: CTVolume, rois: Rois, level: str, body: Mask) -> Rois:
    """The level has this vertebra's body; a level that had it has none."""
    other = next((name for name in LEVELS if rois.masks.get(f"body_{name}") is body), None)
    rois = _without_level(rois, level)
    if other is not None:
        rois = _without_level(rois, other)
        given = LevelFinding(other, False, f"its vertebra was named {level} by a reader; move its keypoint too")
        rois = replace(rois, levels=_with_finding(rois.levels, other, given))
    return _settle(ct, rois.with_masks({f"body_{level}": body}), level)


def _copy_neighbour(ct: CTVolume, rois: Rois, level: str, point_lps_mm: np.ndarray) -> Rois:
    """The outline of the nearest body, put where the keypoint is."""
    bodies = [v.body for v in rois.spine if not v.body.empty]
    rois = _without_level(rois, level)
    if not bodies:
        return rois
    nearest = min(bodies, key=lambda body: _distance_mm(body, rois, point_lps_mm))
    step = ct.geometry.to_kji(point_lps_mm) - ct.geometry.to_kji(nearest.centroid_lps_mm(ct.geometry))
    start = tuple(int(n) for n in np.rint(step).astype(int) + nearest.start_kji)
    copied = clip(Mask(nearest.voxels, start), ct.geometry.shape_kji)
    if copied.empty:
        return rois
    flag = Flag("body_copied", Severity.CAUTION, f"No vertebral body was found at the keypoint of {level}: the outline of "
                "its neighbour was put there. Correct it before the value is used.", level, tuple(map(float, point_lps_mm)))
    given = replace(rois.with_masks({f"body_{level}": copied}), flags=(*rois.flags, flag))
    return _settle(ct, _with_vertebra(given, level, None, copied), level)


def _without_level(rois: Rois, level: str) -> Rois:
    """Without the level's regions, edits of them, and what was said of them."""
    names = {f"body_{level}", f"trabecular_{level}"}
    return replace(rois, masks={name: mask for name, mask in rois.masks.items() if name not in names},
                   edited=rois.edited - names, levels=_with_finding(rois.levels, level, None),
                   flags=tuple(f for f in rois.flags if (f.code, f.level) != ("body_copied", level)))


# --- names -------------------------------------------------------------------------------------------------

_PARTS = ("body", "trabecular", "keypoint")


def _renamed(rois: Rois, was: Mapping[str, str]) -> frozenset[str]:
    """Names of what was edited after the levels were renamed. was: new name -> old name."""
    levels = {f"{part}_{level}" for part in _PARTS for level in LEVELS}
    moved = {f"{part}_{new}" for part in _PARTS for new, old in was.items() if f"{part}_{old}" in rois.edited}
    return frozenset((rois.edited - levels) | moved)


def _moved_masks(rois: Rois, spine: tuple[Vertebra, ...], was: Mapping[str, str]) -> dict[str, Mask]:
    masks = {name: mask for name, mask in rois.masks.items() if not name.startswith(("body_", "trabecular_"))}
    masks |= {f"body_{v.name}": v.body for v in spine if v.name in LEVELS}
    for new, old in was.items():
        if f"trabecular_{old}" in rois.edited and f"trabecular_{old}" in rois.masks:
            masks[f"trabecular_{new}"] = rois.masks[f"trabecular_{old}"]
    return masks


def _moved_keypoints(ct: CTVolume, spine: tuple[Vertebra, ...]) -> tuple[Keypoint, ...]:
    return tuple(Keypoint(v.name, centre_of(v.body, ct.geometry)) for v in spine if v.name in LEVELS)


def _named_by_reader(rois: Rois, code: str, sentence: str) -> tuple[Flag, ...]:
    """The flags, without the doubt of the names, and with who settled it."""
    settled = (LEVEL_UNCERTAIN, LEVELS_NAMED, "levels_confirmed", "levels_moved")
    return (*(flag for flag in rois.flags if flag.code not in settled), Flag(code, Severity.INFO, sentence))


def _known(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: only {', '.join(LEVELS)} are measured")
