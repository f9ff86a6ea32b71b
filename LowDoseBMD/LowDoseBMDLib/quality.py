"""What the picture says about the number: flags, as data, found anew after every edit.

``assess`` is called by measurement.measure; call it directly only with that function's own results. Slice
thickness, tube voltage, kernel and field of view are judged when a CT is read, not here. Thresholds without a
published source are named as judgement; they were looked at on a real contrast-enhanced chest CT.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .anatomy import LEVELS
from .ctvolume import CTVolume
from .flags import Flag, Severity
from .rois import LevelFinding, Mask, Rois
from .roistats import clip
from .vertebrae import EROSION_MM

if TYPE_CHECKING:
    from .measurement import LevelMeasurement, TissueMeasurement

CONTRAST_HU = 100.0
CONTRAST_POSSIBLE_HU = 70.0
"""Blood without contrast reads 30-60 HU; exclusion limits in use lie at 70-100 HU in the aorta. With contrast bone
rises by about 12 %, psoas by 18-26 %."""

METAL_HU = 2000.0
"""Sharp kernels bring cortical bone to about 1400 HU and dense renal contrast beyond 1000; metal exceeds 2000."""
METAL_MARGIN_MM = 15.0
METAL_MM3 = 20.0
"""Single bright voxels are noise; 20 mm3 is less than one pedicle-screw thread (judgement)."""
CEMENT_HU = 1000.0
"""Inside the eroded body no bone reads 1000 HU: cement, metal or a region that left the bone."""

FAT_LEAST_MM3 = 2000.0
FAT_RANGE_HU = (-130.0, -70.0)
"""Adipose tissue is accepted at -100 +- 30 HU (open-source internal calibration, Ogo)."""
FAT_BLOCK_SD_HU = 25.0
"""SD of smoothed fat above 25 HU: septa, skin or muscle are inside."""
MUSCLE_RANGE_HU = (30.0, 75.0)
"""Psoas reads 48 +- 5.5 HU (19-40 y), less with age, up to a quarter more with contrast."""
MUSCLE_LEAST_MM3 = 2000.0
"""Least psoas volume of each side."""
MUSCLE_SIDES_HU = 8.0
"""Left and right psoas of one person agree within 8 HU."""

DISAGREEMENT_MG_CM3 = 20.0
DISAGREEMENT_FRACTION = 0.20
"""Of the two levels of the mean (judgement, until a site knows its own spread of the ratio)."""

HEIGHT_RATIO = 0.8
"""Genant grade 1 begins at 20 % loss of height."""
TILT_DEG = 15.0
ROTATION_DEG = 10.0
"""Bodies cut obliquely: the paper's failures were rotated and strongly curved spines (limits: judgement)."""

TRABECULAR_BLOCK_SD_HU = 40.0
"""SD of 6 mm block means inside a trabecular region. Seen on a real scan: 14-26 HU in clean cores, 49-125
with cortex or sclerosis inside (judgement)."""
CORTEX_HU = 400.0
"""Trabecular bone stays below 350-400 HU."""
CORTEX_EXCESS = 0.03
"""Share of the region's outermost voxels above CORTEX_HU, less that of its core, so that noise, which is the
same in both, does not count. Real scan: 0-0.004 in clean cores, 0.04-0.14 with cortex inside (judgement)."""



def assess(ct: CTVolume, rois: Rois, levels: tuple[LevelMeasurement, ...], muscle: TissueMeasurement | None,
           fat: TissueMeasurement | None, aorta: TissueMeasurement | None) -> tuple[Flag, ...]:
    """Every quality flag of the current regions. levels, muscle, fat, aorta: as measured on this ct and rois.

    Findings at a level that is not part of the mean are at most CAUTION: they do not bear on the mean.
    """
    flags = [*_contrast(aorta), *_muscle(muscle), *_fat(fat), *_disagreement(levels)]
    for level in levels:
        flags += _level(ct, rois, level)
    return (*flags, *_crushed(rois, levels))


def _contrast(aorta: TissueMeasurement | None) -> list[Flag]:
    if aorta is None:
        return []
    blood = aorta.hu_mean
    if blood > CONTRAST_HU:
        return [Flag("contrast", Severity.CAUTION, f"The aorta reads {blood:.0f} HU: intravenous contrast was given. "
                     "Bone HU read high (about 12 %), muscle HU too (about 20 %); the two only partly cancel, so vBMD "
                     "may read high. Confirm on an unenhanced scan.")]
    if blood > CONTRAST_POSSIBLE_HU:
        return [Flag("contrast_possible", Severity.INFO, f"The aorta reads {blood:.0f} HU: contrast is possible; "
                     "vBMD may then read high.")]
    return []


def _muscle(muscle: TissueMeasurement | None) -> list[Flag]:
    if muscle is None:
        return []
    flags = [*_muscle_choice(muscle)]
    low, high = MUSCLE_RANGE_HU
    if not low <= muscle.hu_mean <= high:
        flags.append(Flag("muscle_hu", Severity.CAUTION, f"Muscle reads {muscle.hu_mean:.0f} HU, outside {low:.0f} to "
                          f"{high:.0f} HU; 1 HU of error in muscle moves vBMD by about 1 mg/cm3. Check its region."))
    hu = list(muscle.side_hu.values())
    if len(hu) == 2 and abs(hu[0] - hu[1]) > MUSCLE_SIDES_HU:
        flags.append(Flag("muscle_asymmetry", Severity.CAUTION, f"Left and right muscle differ by "
                          f"{abs(hu[0] - hu[1]):.0f} HU (limit {MUSCLE_SIDES_HU:.0f} HU): one region may hold fat, "
                          "vessel or bowel."))
    return flags


def _muscle_choice(muscle: TissueMeasurement) -> list[Flag]:
    flags = []
    if not muscle.structures[0].startswith("psoas"):
        flags.append(Flag("muscle_paraspinal", Severity.LIMITED, "No psoas was found; paraspinal muscle stands in, which "
                          "holds more fat and reads lower than psoas: vBMD reads high."))
    if len(muscle.structures) == 1:
        flags.append(Flag("muscle_one_side", Severity.CAUTION, f"Muscle was read on one side only "
                          f"({muscle.structures[0]}), so the sides cannot be compared."))
    if muscle.volume_mm3 < MUSCLE_LEAST_MM3 * len(muscle.structures):
        flags.append(Flag("muscle_small", Severity.CAUTION, f"Only {muscle.volume_mm3 / 1000:.1f} cm3 of muscle was "
                          f"read (at least {MUSCLE_LEAST_MM3 / 1000:.0f} cm3 a side is wanted): its HU is uncertain."))
    return flags


def _fat(fat: TissueMeasurement | None) -> list[Flag]:
    if fat is None:
        return []
    flags = []
    low, high = FAT_RANGE_HU
    if fat.structures[0] != "fat_anterior":
        flags.append(Flag(fat.structures[0], Severity.CAUTION, "Too little fat was found under the anterior abdominal "
                          f"wall; {fat.structures[0].removeprefix('fat_')} subcutaneous fat stands in."))
    if fat.volume_mm3 < FAT_LEAST_MM3:
        flags.append(Flag("fat_small", Severity.CAUTION, f"Only {fat.volume_mm3 / 1000:.1f} cm3 of subcutaneous fat was "
                          f"read (at least {FAT_LEAST_MM3 / 1000:.0f} cm3 is wanted): its HU is uncertain."))
    if not low <= fat.hu_mean <= high:
        flags.append(Flag("fat_hu", Severity.CAUTION, f"Fat reads {fat.hu_mean:.0f} HU, outside {low:.0f} to {high:.0f} "
                          "HU: its region may hold skin, muscle or air, which displaces vBMD."))
    if fat.hu_block_sd is not None and fat.hu_block_sd > FAT_BLOCK_SD_HU:
        flags.append(Flag("fat_mixed", Severity.CAUTION, f"The fat region is not uniform (SD {fat.hu_block_sd:.0f} HU "
                          f"between its parts, limit {FAT_BLOCK_SD_HU:.0f} HU): other tissue is inside."))
    return flags


def _disagreement(levels: tuple[LevelMeasurement, ...]) -> list[Flag]:
    pair = [level for level in levels if level.used and level.vbmd_mg_cm3 is not None]
    if len(pair) != 2:
        return []
    a, b = pair
    apart = abs(a.vbmd_mg_cm3 - b.vbmd_mg_cm3)
    mean = abs(a.vbmd_mg_cm3 + b.vbmd_mg_cm3) / 2
    if apart <= DISAGREEMENT_MG_CM3 and apart <= DISAGREEMENT_FRACTION * mean:
        return []
    return [Flag("level_disagreement", Severity.CAUTION, f"{a.name} and {b.name} differ by {apart:.0f} mg/cm3 "
                 f"(limits {DISAGREEMENT_MG_CM3:.0f} mg/cm3 and {100 * DISAGREEMENT_FRACTION:.0f} %): look for a "
                 "fracture, sclerosis or a wrong region in one of them.")]


def _level(ct: CTVolume, rois: Rois, level: LevelMeasurement) -> list[Flag]:
    finding = rois.level(level.name)
    if finding is None:
        return [_at(level, "level_not_found", Severity.INFO, f"{level.name} was not found in the scan.")]
    if not finding.complete:
        return [_at(level, "level_incomplete", Severity.INFO, f"{level.name} was not measured: {level.reason}.")]
    return [*_override(finding, level), *_shape(finding, level), *_metal(ct, rois, level), *_texture(ct, rois, level),
            *_erosion(rois, level)]


def _override(finding: LevelFinding, level: LevelMeasurement) -> list[Flag]:
    if not finding.overridden:
        return []
    return [_at(level, "reader_overrides", Severity.CAUTION, f"{level.name} is measured in the reader's own region although "
                f"{finding.overridden}")]


def _at(level: LevelMeasurement, code: str, severity: Severity, sentence: str,
        position_lps_mm: tuple[float, float, float] | None = None) -> Flag:
    if severity is Severity.LIMITED and not level.used:
        severity = Severity.CAUTION
    return Flag(code, severity, sentence, level.name, position_lps_mm or level.centre_lps_mm)


def _shape(finding: LevelFinding, level: LevelMeasurement) -> list[Flag]:
    flags = []
    if finding.height_mm is not None:
        front, middle, back = finding.height_mm
        if back > 0 and min(front, middle) < HEIGHT_RATIO * back:
            flags.append(_at(level, "fracture_suspected", Severity.LIMITED, f"{level.name} has lost height (front "
                             f"{front:.0f}, middle {middle:.0f}, back {back:.0f} mm; less than {HEIGHT_RATIO:.0%} of the "
                             "back): a fracture compacts bone and vBMD reads high. Leave this level out."))
    if finding.axes_lps is not None:
        tilt, rotation = tilt_and_rotation_deg(finding.axes_lps)
        if tilt > TILT_DEG or rotation > ROTATION_DEG:
            flags.append(_at(level, "rotated", Severity.CAUTION, f"{level.name} is tilted by {tilt:.0f} deg sideways and "
                             f"rotated by {rotation:.0f} deg (limits {TILT_DEG:.0f} and {ROTATION_DEG:.0f} deg): check "
                             "that its region holds no endplate, pedicle or cortex."))
    return flags


def tilt_and_rotation_deg(axes_lps: tuple[tuple[float, float, float], ...]) -> tuple[float, float]:
    """Sideways tilt (of the superior axis in the coronal plane) and axial rotation (of the posterior axis in
    the axial plane) of a vertebra, in degrees >= 0. axes_lps: rows left, posterior, superior."""
    _, posterior, superior = axes_lps
    tilt = math.degrees(math.atan2(abs(superior[0]), superior[2]))
    return tilt, math.degrees(math.atan2(abs(posterior[0]), posterior[1]))


def _crushed(rois: Rois, levels: tuple[LevelMeasurement, ...]) -> list[Flag]:
    """A body whose mean height falls below HEIGHT_RATIO of a neighbour's has lost height all over."""
    heights = {}
    for name in LEVELS:
        finding = rois.level(name)
        if finding is not None and finding.complete and finding.height_mm is not None:
            heights[name] = sum(finding.height_mm) / 3
    low = {}
    for pair in pairwise(LEVELS):
        if heights.keys() >= set(pair):
            lower, taller = sorted(pair, key=heights.__getitem__)
            if heights[lower] < HEIGHT_RATIO * heights[taller]:
                low[lower] = taller
    return [_at(level, "height_below_neighbour", Severity.LIMITED, f"{level.name} is {heights[level.name]:.0f} mm high, "
                f"{low[level.name]} {heights[low[level.name]]:.0f} mm (less than {HEIGHT_RATIO:.0%}): a crush fracture is "
                "possible, and vBMD then reads high.") for level in levels if level.name in low]


def _metal(ct: CTVolume, rois: Rois, level: LevelMeasurement) -> list[Flag]:
    flags = []
    body = rois.masks.get(f"body_{level.name}")
    if body is not None and (where := _bright(ct, *_around(ct, body), METAL_HU)) is not None:
        flags.append(_at(level, "metal", Severity.LIMITED, f"Metal (above {METAL_HU:.0f} HU) lies within about "
                         f"{METAL_MARGIN_MM:.0f} mm of {level.name}: streaks make its HU unreliable. Leave it out.", where))
    core = rois.masks.get(f"trabecular_{level.name}")
    if core is not None:
        inner = clip(core, ct.hu.shape)
        if (where := _bright(ct, inner.box, inner.voxels, CEMENT_HU)) is not None:
            flags.append(_at(level, "cement", Severity.LIMITED, f"The trabecular region of {level.name} holds voxels above "
                             f"{CEMENT_HU:.0f} HU: cement, metal or cortex; vBMD reads high.", where))
    return flags


def _around(ct: CTVolume, body: Mask) -> tuple[tuple[slice, slice, slice], bool]:
    """The box of a mask and METAL_MARGIN_MM round it, inside the scan; every voxel of it counts."""
    inner = clip(body, ct.hu.shape)
    if inner.empty:
        return inner.box, True
    margin = np.ceil(METAL_MARGIN_MM / np.asarray(ct.geometry.spacing_kji_mm)).astype(int)
    return tuple(slice(max(0, s.start - int(m)), min(n, s.stop + int(m)))
                 for s, m, n in zip(inner.box, margin, ct.hu.shape, strict=True)), True


def _bright(ct: CTVolume, box: tuple[slice, slice, slice], inside: np.ndarray | bool,
            above_hu: float) -> tuple[float, float, float] | None:
    """Centre (LPS mm) of the voxels above a value in a box, or None when they fill less than METAL_MM3."""
    found = (ct.hu[box] > above_hu) & inside
    if np.count_nonzero(found) * ct.geometry.voxel_volume_mm3 < METAL_MM3:
        return None
    kji = np.argwhere(found).mean(axis=0) + [s.start for s in box]
    x, y, z = ct.geometry.to_lps(kji)
    return float(x), float(y), float(z)


def _texture(ct: CTVolume, rois: Rois, level: LevelMeasurement) -> list[Flag]:
    if not level.measured:
        return []
    flags = []
    if level.hu_block_sd is not None and level.hu_block_sd > TRABECULAR_BLOCK_SD_HU:
        flags.append(_at(level, "inhomogeneous", Severity.CAUTION, f"The trabecular region of {level.name} is not uniform "
                         f"(SD {level.hu_block_sd:.0f} HU between its parts, limit {TRABECULAR_BLOCK_SD_HU:.0f} HU): "
                         "haemangioma, sclerosis, vein or cortex may be inside. Compare mean and median."))
    excess = cortex_excess(ct, rois.masks[f"trabecular_{level.name}"])
    if excess > CORTEX_EXCESS:
        flags.append(_at(level, "cortex_inside", Severity.CAUTION, f"{100 * excess:.0f} % of the rim of {level.name}'s "
                         f"trabecular region reads above {CORTEX_HU:.0f} HU: cortex or osteophyte is inside and vBMD reads "
                         "high. Shrink the region."))
    return flags


def cortex_excess(ct: CTVolume, mask: Mask) -> float:
    """Share of a region's outermost voxels above CORTEX_HU less the share in its core; 0 for no region."""
    inner = clip(mask, ct.hu.shape)
    if inner.empty:
        return 0.0
    core = ndimage.binary_erosion(inner.voxels)
    dense = ct.hu[inner.box] > CORTEX_HU
    rim = inner.voxels & ~core
    share = np.count_nonzero(dense & rim) / np.count_nonzero(rim)
    return float(share - (np.count_nonzero(dense & core) / np.count_nonzero(core) if core.any() else 0.0))


def _erosion(rois: Rois, level: LevelMeasurement) -> list[Flag]:
    finding = rois.level(level.name)
    if not level.measured or rois.erosion != "physical" or finding.erosion_mm is None:
        return []
    if finding.erosion_mm >= EROSION_MM - 0.01:
        return []
    return [_at(level, "eroded_less", Severity.CAUTION, f"{level.name} was eroded by {finding.erosion_mm:.1f} mm instead of "
                f"{EROSION_MM:.1f} mm because its core would have been too small; endplates may be inside and vBMD "
                "may read high.")]
