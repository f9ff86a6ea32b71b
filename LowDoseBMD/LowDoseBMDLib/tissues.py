"""Stage 5, tissues: muscle and fat, which calibrate the CT numbers, and a look into the aorta.

Regions are proposals: a person may edit them. HU are read later, on the CT's own voxels, as plain means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .anatomy import SIDES
from .ctvolume import CTVolume
from .flags import Flag, Severity
from .inference import Progress, silent
from .rois import Mask
from .tissue_aorta import find_aorta
from .tissue_fat import LEAST_THICKNESS_MM, FatRegion, find_fat
from .tissue_fat import WANTED_MM3 as FAT_WANTED_MM3
from .tissue_grid import Blocks, LocalCoordinates, SpineFrame, average_blocks, local_coordinates, spine_frame
from .tissue_muscle import (
    LEAST_SIDE_MM3,
    LEAST_TOTAL_MM3,
    PSOAS_LAST_LEVEL,
    WANTED_MM3,
    MuscleSide,
    find_paraspinal,
    find_psoas,
    smoothed_for_muscle,
)

TOP_LEVEL = -0.4
"""The box round the spine begins at the upper part of T12, where the aorta is looked for."""

LEAST_HEIGHT_MM = 40.0
"""Height of the box where the known levels lie elsewhere: room for one body."""

BOX_AHEAD_MM, BOX_BEHIND_MM, BOX_SIDE_MM = 60.0, 85.0, 75.0
"""Round the bodies' centres: holds the aorta in front, the erector spinae behind, psoas at the sides."""

SIDES_APART_HU = 12.0
"""Left and right muscle of one person agree within 8 HU; a small region that lies further from a large one on
the other side is something else."""

BLOCK_MM = (2.0, 1.5, 1.5)
"""Working blocks (k, j, i): a psoas of 8 mm is five blocks wide, and noise of 60 HU falls to 30."""

MUSCLES = tuple(f"{muscle}_{side}" for muscle in ("psoas", "paraspinal") for side in SIDES)

Finder = Callable[..., MuscleSide]


@dataclass(frozen=True)
class Tissues:
    """Proposed tissue regions by registry name, on the CT's grid, and what there is to say about them.

    masks: psoas_left, psoas_right, or where psoas is not usable paraspinal_left, paraspinal_right; one of
    fat_anterior, fat_flank, fat_posterior; aorta. Absent means not found, and a flag says so.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """The box round the spine with what every finder needs."""

    blocks: Blocks
    smooth: np.ndarray
    at: LocalCoordinates
    bone: np.ndarray | None


def find_tissues(ct: CTVolume, bodies: Mapping[str, Mask], bone: Mask | None = None,
                 muscles: Mapping[str, Mask] | None = None, progress: Progress = silent) -> Tissues:
    """Muscle, subcutaneous fat and aorta beside the vertebral bodies that are known.

    Parameters
    ----------
    ct: the CT, canonical axes.
    bodies: masks of vertebral bodies by level (T12, L1, L2, any neighbour); rough ones will do (ellipsoids
        round the body centres). Levels between and one level beyond are continued.
    bone: vertebrae and ribs to be kept out; without it, bone is known by its HU.
    muscles: masks of an existing segmentation under registry names (psoas_left, ...); they replace the search
        for the muscle's place, and are eroded and windowed in the same way.
    progress: called between the steps; may raise to cancel.

    Returns
    -------
    Tissues; a tissue that is not found is no error.

    Raises
    ------
    ValueError: a body or muscle has an unknown name.

    Source: the muscle and fat regions of Zhao et al. 2024 (psoas chosen from the key points, anterior abdominal
    subcutaneous fat by CT number); their rules are this project's, see the constants of the tissue_ files.
    """
    given = dict(muscles or {})
    unknown = [name for name in given if name not in MUSCLES]
    if unknown:
        raise ValueError(f"muscles are named {', '.join(MUSCLES)}, not {unknown[0]!r}")
    if all(body.empty for body in bodies.values()):
        return Tissues({}, (_no_muscle(), _no_fat(), _no_aorta()))
    frame = spine_frame(ct, bodies)
    progress("finding muscle", 0.0)
    blocks = average_blocks(ct, *_spine_box(ct, frame), BLOCK_MM)
    at = local_coordinates(blocks, frame)
    near = _Surroundings(blocks, smoothed_for_muscle(blocks, at), at,
                         None if bone is None or bone.empty else blocks.from_mask(bone))
    masks, flags = _muscle(near, given)
    progress("finding the aorta", 0.4)
    aorta = find_aorta(blocks, at, frame)
    progress("finding subcutaneous fat", 0.5)
    fat = find_fat(ct, frame)
    if fat is not None:
        masks[f"fat_{fat.site}"] = fat.blocks.to_mask(fat.region)
    if aorta is not None:
        masks["aorta"] = blocks.to_mask(aorta.region)
    progress("tissues found", 1.0)
    return Tissues(masks, (*flags, *_fat_flags(fat), *([] if aorta else [_no_aorta()])))


def _spine_box(ct: CTVolume, frame: SpineFrame) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Corners (k, j, i) of the box round the spine, cut to the CT."""
    low_z = max(0.0, frame.height_of(PSOAS_LAST_LEVEL))
    high_z = max(frame.height_of(TOP_LEVEL), low_z + LEAST_HEIGHT_MM)
    rows = (frame.z_mm >= low_z - LEAST_HEIGHT_MM) & (frame.z_mm <= high_z + LEAST_HEIGHT_MM)
    x, y = frame.x_mm[rows], frame.y_mm[rows]
    spacing = np.asarray(ct.geometry.spacing_kji_mm)
    low = np.array([low_z, y.min() - BOX_AHEAD_MM, x.min() - BOX_SIDE_MM]) / spacing
    high = np.array([high_z, y.max() + BOX_BEHIND_MM, x.max() + BOX_SIDE_MM]) / spacing
    return tuple(np.floor(low).astype(int)), tuple(np.ceil(high).astype(int) + 1)


def _sides(near: _Surroundings, find: Finder, muscle: str, given: Mapping[str, Mask]) -> dict[str, MuscleSide]:
    """The plausible regions of one muscle by registry name; empty when they are too small together."""
    found = {}
    for side in SIDES:
        name = f"{muscle}_{side}"
        drawn = near.blocks.from_mask(given[name]) if name in given else None
        region = find(near.blocks, near.smooth, near.at, side, near.bone, drawn)
        if drawn is not None and not region.plausible:
            region = find(near.blocks, near.smooth, near.at, side, near.bone)
        if region.plausible:
            found[name] = region
    if len(found) == 2:
        small, large = sorted(found, key=lambda name: found[name].volume_mm3)
        if found[small].volume_mm3 < LEAST_SIDE_MM3 and found[large].volume_mm3 >= WANTED_MM3 and \
                abs(found[small].mean_hu - found[large].mean_hu) > SIDES_APART_HU:
            del found[small]
    enough = sum(region.volume_mm3 for region in found.values()) >= LEAST_TOTAL_MM3
    return found if enough else {}


def _muscle(near: _Surroundings, given: Mapping[str, Mask]) -> tuple[dict[str, Mask], list[Flag]]:
    """Psoas, else the erector spinae, as masks with their flags."""
    found = _sides(near, find_psoas, "psoas", given)
    flags = []
    if not found:
        found = _sides(near, find_paraspinal, "paraspinal", given)
        flags = [_paraspinal()] if found else [_no_muscle()]
    masks = {name: near.blocks.to_mask(region.region) for name, region in found.items()}
    return masks, [*flags, *_size_flags(found)]


def _size_flags(found: Mapping[str, MuscleSide]) -> list[Flag]:
    flags = []
    if len(found) == 1:
        flags.append(Flag("muscle_one_side", Severity.CAUTION, f"Muscle was found on one side only ({next(iter(found))}): "
                          "the sides cannot be compared. Draw the other side if it can be seen."))
    small = [f"{name} {region.volume_mm3 / 1000:.1f} cm3" for name, region in found.items()
             if region.volume_mm3 < WANTED_MM3]
    if small:
        flags.append(Flag("muscle_small", Severity.CAUTION, f"Little muscle could be read ({', '.join(small)}; "
                          f"{WANTED_MM3 / 1000:.0f} cm3 a side are wanted): its HU is uncertain, and 1 HU of error "
                          "in muscle moves vBMD by about 1 mg/cm3."))
    return flags


def _fat_flags(fat: FatRegion | None) -> list[Flag]:
    if fat is None:
        return [_no_fat()]
    flags = []
    if fat.site != "anterior":
        flags.append(Flag(f"fat_{fat.site}", Severity.CAUTION, f"The fat under the front of the abdomen is too thin or "
                          f"out of view; fat of the {_PLACE[fat.site]} was read, whose HU may differ by some HU. "
                          "vBMD shifts by less than 0.5 mg/cm3 for each HU."))
    if fat.thickness_mm < LEAST_THICKNESS_MM:
        flags.append(Flag("fat_thin", Severity.CAUTION, f"The fat layer is only {fat.thickness_mm:.0f} mm thick (at least "
                          f"{LEAST_THICKNESS_MM:.0f} mm is wanted): skin and muscle beside it may raise its HU, and "
                          "vBMD then reads somewhat low where bone is less dense than muscle, high where it is denser."))
    if fat.volume_mm3 < FAT_WANTED_MM3:
        flags.append(Flag("fat_small", Severity.CAUTION, f"Only {fat.volume_mm3 / 1000:.1f} cm3 of subcutaneous fat could "
                          f"be read (at least {FAT_WANTED_MM3 / 1000:.0f} cm3 is wanted): its HU is uncertain."))
    return flags


_PLACE = {"flank": "flank", "posterior": "back"}


def _paraspinal() -> Flag:
    return Flag("muscle_paraspinal", Severity.LIMITED, "No usable psoas was found; the back muscle (erector spinae) stands "
                "in. It holds more fat and reads lower than psoas, so vBMD reads high.")


def _no_muscle() -> Flag:
    return Flag("muscle_not_found", Severity.LIMITED, "Neither psoas nor back muscle of plausible HU was found: "
                "without muscle HU cannot be calibrated on the patient. Draw the psoas beside L1-L2.")


def _no_fat() -> Flag:
    return Flag("fat_not_found", Severity.LIMITED, "No subcutaneous fat layer that can be read was found: without fat HU "
                "cannot be calibrated on the patient. Draw fat under the skin of abdomen or back, clear of skin and muscle.")


def _no_aorta() -> Flag:
    return Flag("aorta_not_found", Severity.INFO, "The aorta was not found beside T12-L1: whether contrast was given cannot "
                "be judged from the CT; look at the aorta and the kidneys.")
