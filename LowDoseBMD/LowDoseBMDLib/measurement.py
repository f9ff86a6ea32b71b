"""From regions to numbers: HU, vBMD, its interval and class. Pure arithmetic, fast enough for a brush.

``measure`` reads the CT on its own grid inside the CURRENT masks, whoever drew them; it looks at nothing
outside their boxes. Quality findings come from quality.assess, which ``measure`` calls, so the flags too
follow every edit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from . import quality
from .anatomy import LEVELS, SIDES, STRUCTURES
from .calibration import Z95, Calibration
from .calibration_flags import calibration_flags, provisional_flags
from .calibration_match import match
from .ctvolume import CTVolume
from .flags import LEVEL_UNCERTAIN, Flag, Severity
from .rois import Rois
from .roistats import RoiStats, clip, read_region

OSTEOPOROSIS_BELOW_MG_CM3 = 80.0
NORMAL_ABOVE_MG_CM3 = 120.0
"""vBMD limits, K2HPO4 scale: < 80 osteoporosis, 80..120 low, > 120 normal (Chinese QCT consensus 2018/2020,
ACR). The paper uses < 80."""

NORMAL = "normal"
LOW_BONE_MASS = "low_bone_mass"
OSTEOPOROSIS_RANGE = "osteoporosis_range"

SMALL_ROI_MM3 = 3000.0
"""Below 3 cm3 a trabecular region is too small to trust: an eroded body holds 5-11 cm3."""
SMALL_ROI_FRACTION = 0.15
"""A region below 15 % of its body is too little of it to speak for it."""
LEAST_ROI_MM3 = 1000.0
"""Below 1 cm3 a level is not measured at all."""
LEAST_TISSUE_MM3 = 500.0
"""A tissue region below 0.5 cm3 counts as not found, and the next site is tried."""

LEAST_CONTRAST_HU = 60.0
"""Muscle less fat is about 160 HU; below 60 the two regions cannot be what their names say."""

MUSCLE_SITES = ("psoas", "paraspinal")
FAT_SITES = ("fat_anterior", "fat_flank", "fat_posterior")
"""Reference tissues in the order in which they are taken; the paper's own come first."""

MEAN_PAIRS = (("L1", "L2"), ("T12", "L1"))
SINGLE_ORDER = ("L1", "L2", "T12")
"""Which single level stands in when no pair of neighbours can be measured."""


@dataclass(frozen=True)
class LevelMeasurement:
    """One vertebral level. HU and vBMD are None when it was not measured; ``reason`` says why.

    used: it belongs to the mean. kept_fraction: trabecular over body volume, None without a body mask.
    hu_se: standard error of hu_mean. hu_block_sd: SD of 6 mm block means, nearly free of noise.
    confidence: of the keypoint, 0..1, None when a person set it. edited: a reader drew its body or region or moved its
    keypoint. excluded: why a reader left it out of the mean, or empty.
    """

    name: str
    complete: bool
    used: bool = False
    hu_mean: float | None = None
    hu_sd: float | None = None
    hu_median: float | None = None
    hu_se: float | None = None
    hu_block_sd: float | None = None
    volume_mm3: float = 0.0
    kept_fraction: float | None = None
    vbmd_mg_cm3: float | None = None
    vbmd_sd_mg_cm3: float | None = None
    vbmd_ci95: tuple[float, float] | None = None
    centre_lps_mm: tuple[float, float, float] | None = None
    confidence: float | None = None
    reason: str = ""
    edited: bool = False
    excluded: str = ""

    @property
    def measured(self) -> bool:
        return self.hu_mean is not None


@dataclass(frozen=True)
class TissueMeasurement:
    """Muscle, fat or blood: the pooled regions in ``structures``. side_hu: mean HU of each of them."""

    structures: tuple[str, ...]
    hu_mean: float
    hu_sd: float
    hu_median: float
    hu_se: float
    hu_block_sd: float | None
    volume_mm3: float
    side_hu: Mapping[str, float]


@dataclass(frozen=True)
class Measurement:
    """What one CT says. status: measured or refused; when refused, HU stand but there is no mean vBMD.

    levels: T12, L1, L2, always all three. mean_of: the levels of the mean. category: NORMAL, LOW_BONE_MASS or
    OSTEOPOROSIS_RANGE; category_provisional while the calibration is not a site's own for this voltage and scanner.
    p_below_80: probability that the true mean lies below 80 mg/cm3. flags: those of the Rois first, then what was found
    here. edited: what a reader changed, as in Rois, sorted. aorta: tells of contrast and, without it, of the scanner; no
    vBMD rests on it. muscle and fat may be None in a measurement whose calibration does not need them.
    """

    status: str
    levels: tuple[LevelMeasurement, ...]
    muscle: TissueMeasurement | None
    fat: TissueMeasurement | None
    calibration: Calibration
    mean_vbmd_mg_cm3: float | None = None
    mean_vbmd_sd_mg_cm3: float | None = None
    mean_vbmd_ci95: tuple[float, float] | None = None
    mean_of: tuple[str, ...] = ()
    category: str | None = None
    category_provisional: bool = True
    p_below_80: float | None = None
    flags: tuple[Flag, ...] = ()
    erosion: str = "physical"
    edited: tuple[str, ...] = ()
    aorta: TissueMeasurement | None = None

    def level(self, name: str) -> LevelMeasurement | None:
        return next((entry for entry in self.levels if entry.name == name), None)


def measure(ct: CTVolume, rois: Rois, calibration: Calibration) -> Measurement:
    """Measure the current regions on the CT's original grid.

    Masks that are absent, empty or outside the scan are no error: their level or tissue is then not
    measured, with the reason. Raises ValueError when the regions lie on another grid than the CT.
    Source: Zhao 2024, steps 3 and 4; interval by error propagation.
    """
    if not ct.geometry.same_grid(rois.geometry):
        raise ValueError(f"the regions lie on a grid of shape {rois.geometry.shape_kji}, the CT on "
                         f"{ct.hu.shape} or elsewhere; resample the regions to the CT first")
    muscle = _muscle(ct, rois)
    fat = _fat(ct, rois)
    aorta = _tissue(ct, rois, ("aorta",))
    levels = tuple(_level(ct, rois, name) for name in LEVELS)
    mean_of = choose_levels(tuple(level.name for level in levels if level.measured and not level.excluded))
    about_tissue = _tissue_flags(muscle, fat, calibration.needs_tissue)
    refusals = (*_no_level(levels), *_unknown_level(rois, mean_of),
                *(about_tissue if calibration.needs_tissue else ()))
    if not _missing_reference(refusals):
        levels = tuple(_with_vbmd(level, muscle, fat, calibration, mean_of) for level in levels)
    bare = Measurement("refused" if refusals else "measured", levels, muscle, fat, calibration,
                       category_provisional=calibration.provisional or match(calibration, ct.acquisition).contradicts,
                       erosion=rois.erosion, edited=tuple(sorted(rois.edited)), aorta=aorta)
    result = bare if refusals else _with_mean(bare, mean_of)
    found = (*refusals, *(() if calibration.needs_tissue else about_tissue), *_result_flags(result),
             *calibration_flags(result, ct.acquisition), *quality.assess(ct, rois, levels, muscle, fat, aorta))
    return replace(result, flags=_merge(tuple(f for f in rois.flags if not _superseded(f, rois.edited)), found))


def choose_levels(usable: tuple[str, ...]) -> tuple[str, ...]:
    """The levels of the mean: L1 and L2, else T12 and L1, else one (L1, L2, T12 in that order), else none."""
    for pair in MEAN_PAIRS:
        if set(pair) <= set(usable):
            return pair
    return next(((name,) for name in SINGLE_ORDER if name in usable), ())


def classify(vbmd_mg_cm3: float) -> str:
    """The class of a mean vBMD: > 120 normal, 80..120 low bone mass, < 80 the range of osteoporosis."""
    if vbmd_mg_cm3 > NORMAL_ABOVE_MG_CM3:
        return NORMAL
    return OSTEOPOROSIS_RANGE if vbmd_mg_cm3 < OSTEOPOROSIS_BELOW_MG_CM3 else LOW_BONE_MASS


def probability_below(limit_mg_cm3: float, vbmd_mg_cm3: float, sd_mg_cm3: float) -> float:
    """Phi((limit - vBMD) / SD): probability that the true value lies below the limit; a step when SD is 0."""
    if sd_mg_cm3 == 0:
        return float(vbmd_mg_cm3 < limit_mg_cm3)
    return 0.5 * math.erfc((vbmd_mg_cm3 - limit_mg_cm3) / (sd_mg_cm3 * math.sqrt(2)))


def _level(ct: CTVolume, rois: Rois, name: str) -> LevelMeasurement:
    finding, keypoint = rois.level(name), rois.keypoint(name)
    level = LevelMeasurement(name, complete=finding is not None and finding.complete,
                             confidence=keypoint.confidence if keypoint else None,
                             centre_lps_mm=_centre(ct, rois, name), excluded=rois.excluded.get(name, ""),
                             edited=any(f"{part}_{name}" in rois.edited for part in ("body", "trabecular", "keypoint")))
    stats = _stats(ct, rois, f"trabecular_{name}")
    body = _volume_mm3(ct, rois, f"body_{name}")
    level = replace(level, volume_mm3=stats.volume_mm3, kept_fraction=stats.volume_mm3 / body if body else None)
    if finding is None:
        return replace(level, reason="it was not found in the scan")
    if not finding.complete:
        return replace(level, reason=finding.reason.rstrip(".") or "the vertebral body is not wholly in the scan")
    if stats.volume_mm3 < LEAST_ROI_MM3:
        return replace(level, reason=_too_small(stats))
    return replace(level, hu_mean=stats.hu_mean, hu_sd=stats.hu_sd, hu_median=stats.hu_median, hu_se=stats.hu_se,
                   hu_block_sd=_number(stats.hu_block_sd))


def _too_small(stats: RoiStats) -> str:
    if stats.count == 0:
        return "there is no trabecular region inside the scan"
    return (f"its trabecular region is {stats.volume_mm3 / 1000:.1f} cm3, less than "
            f"{LEAST_ROI_MM3 / 1000:.0f} cm3")


def _stats(ct: CTVolume, rois: Rois, *names: str) -> RoiStats:
    return read_region(ct, [rois.masks[name] for name in names if name in rois.masks])


def _volume_mm3(ct: CTVolume, rois: Rois, name: str) -> float:
    mask = rois.masks.get(name)
    return 0.0 if mask is None else clip(mask, ct.hu.shape).volume_mm3(ct.geometry)


def _centre(ct: CTVolume, rois: Rois, name: str) -> tuple[float, float, float] | None:
    if keypoint := rois.keypoint(name):
        return keypoint.position_lps_mm
    for part in ("body", "trabecular"):
        mask = rois.masks.get(f"{part}_{name}")
        if mask is not None and not mask.empty:
            x, y, z = mask.centroid_lps_mm(ct.geometry)
            return float(x), float(y), float(z)
    return None


def _muscle(ct: CTVolume, rois: Rois) -> TissueMeasurement | None:
    sites = (tuple(f"{site}_{side}" for side in SIDES) for site in MUSCLE_SITES)
    return next((found for names in sites if (found := _tissue(ct, rois, names))), None)


def _fat(ct: CTVolume, rois: Rois) -> TissueMeasurement | None:
    return next((found for name in FAT_SITES if (found := _tissue(ct, rois, (name,)))), None)


def _tissue(ct: CTVolume, rois: Rois, names: tuple[str, ...]) -> TissueMeasurement | None:
    sides = {name: stats for name in names if (stats := _stats(ct, rois, name)).count}
    pooled = next(iter(sides.values())) if len(sides) == 1 else _stats(ct, rois, *sides)
    if pooled.volume_mm3 < LEAST_TISSUE_MM3:
        return None
    return TissueMeasurement(tuple(sides), pooled.hu_mean, pooled.hu_sd, pooled.hu_median, pooled.hu_se,
                             _number(pooled.hu_block_sd), pooled.volume_mm3,
                             {name: stats.hu_mean for name, stats in sides.items()})


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _with_vbmd(level: LevelMeasurement, muscle: TissueMeasurement | None, fat: TissueMeasurement | None,
               calibration: Calibration, mean_of: tuple[str, ...]) -> LevelMeasurement:
    if not level.measured:
        return level
    tissue_hu, tissue_se = _tissue_hu(muscle, fat)
    value = calibration.vbmd(level.hu_mean, *tissue_hu)
    sd = calibration.variance(level.hu_mean, *tissue_hu, level.hu_se, *tissue_se).sd
    return replace(level, used=level.name in mean_of, vbmd_mg_cm3=value, vbmd_sd_mg_cm3=sd,
                   vbmd_ci95=(value - Z95 * sd, value + Z95 * sd))


def _with_mean(bare: Measurement, mean_of: tuple[str, ...]) -> Measurement:
    used = [bare.level(name) for name in mean_of]
    tissue_hu, tissue_se = _tissue_hu(bare.muscle, bare.fat)
    spine_hu = float(np.mean([level.hu_mean for level in used]))
    spine_se = math.sqrt(sum(level.hu_se**2 for level in used)) / len(used)
    value = bare.calibration.vbmd(spine_hu, *tissue_hu)
    sd = bare.calibration.variance(spine_hu, *tissue_hu, spine_se, *tissue_se).sd
    return replace(bare, mean_vbmd_mg_cm3=value, mean_vbmd_sd_mg_cm3=sd, mean_of=mean_of,
                   mean_vbmd_ci95=(value - Z95 * sd, value + Z95 * sd), category=classify(value),
                   p_below_80=probability_below(OSTEOPOROSIS_BELOW_MG_CM3, value, sd))


def _tissue_hu(*tissues: TissueMeasurement | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """HU of the tissues and their standard errors; NaN for one that is absent, which only some calibrations read."""
    return (tuple(math.nan if tissue is None else tissue.hu_mean for tissue in tissues),
            tuple(math.nan if tissue is None else tissue.hu_se for tissue in tissues))


def _missing_reference(refusals: tuple[Flag, ...]) -> bool:
    return any(flag.code != "no_level" for flag in refusals)


def _no_level(levels: tuple[LevelMeasurement, ...]) -> tuple[Flag, ...]:
    if any(level.measured and not level.excluded for level in levels):
        return ()
    why = "; ".join(_why_not(level) for level in levels)
    return (Flag("no_level", Severity.REFUSED, f"No vBMD: neither T12, L1 nor L2 can be measured ({why}). "
                 "Use a scan that shows one of them whole, or draw the trabecular regions."),)


def _tissue_flags(muscle: TissueMeasurement | None, fat: TissueMeasurement | None, needed: bool) -> tuple[Flag, ...]:
    """Refusals when the calibration needs the tissue; otherwise its HU would only have told of the scanner."""
    found = {}
    if muscle is None:
        found["no_muscle"] = ("no psoas or paraspinal muscle of at least 0.5 cm3 was found",
                              "Draw the psoas beside L1-L2.")
    if fat is None:
        found["no_fat"] = ("no subcutaneous fat of at least 0.5 cm3 was found",
                           "Draw fat under the skin of the abdomen or back.")
    if muscle and fat and muscle.hu_mean - fat.hu_mean < LEAST_CONTRAST_HU:
        found["tissue_contrast"] = (f"muscle reads {muscle.hu_mean:.0f} HU and fat {fat.hu_mean:.0f} HU, less than "
                                    f"{LEAST_CONTRAST_HU:.0f} HU apart", "Correct the two regions.")
    if needed:
        return tuple(Flag(code, Severity.REFUSED, f"No vBMD: {what}, so HU cannot be calibrated. {remedy}")
                     for code, (what, remedy) in found.items())
    return tuple(Flag(code, Severity.LIMITED, f"{what[0].upper()}{what[1:]}: whether the scanner reads as when it was "
                      f"calibrated cannot be checked. {remedy}") for code, (what, remedy) in found.items())


def _why_not(level: LevelMeasurement) -> str:
    if level.measured:
        return f"{level.name}: left out by a reader ({level.excluded})"
    return level.reason if level.reason.startswith(level.name) else f"{level.name}: {level.reason}"


def _unknown_level(rois: Rois, mean_of: tuple[str, ...]) -> tuple[Flag, ...]:
    """One vertebra whose name is in doubt is no measurement of T12, L1 or L2; of two, a reader can confirm the names."""
    if len(mean_of) != 1 or not any(flag.code == LEVEL_UNCERTAIN for flag in rois.flags):
        return ()
    return (Flag("level_unknown", Severity.REFUSED, f"No vBMD: only one level could enter the mean, and that it is "
                 f"{mean_of[0]} is not certain. Use a scan that reaches below L2, or name the region yourself."),)


def _result_flags(result: Measurement) -> tuple[Flag, ...]:
    """Flags that follow from the measurement's own rules rather than from the picture."""
    flags = [flag for level in result.levels for flag in (*_roi_flags(level), *_reader_flags(level))]
    if result.status == "refused":
        return tuple(flags)
    if len(result.mean_of) == 1:
        flags.append(Flag("single_level", Severity.LIMITED, f"Only {result.mean_of[0]} could be measured; the method "
                          "needs the mean of two neighbouring vertebrae.", result.mean_of[0]))
    elif result.mean_of != MEAN_PAIRS[0]:
        flags.append(Flag("mean_not_l1_l2", Severity.INFO, f"The mean is of {' and '.join(result.mean_of)}, not of L1 "
                          "and L2; vBMD falls from the thoracic spine downwards, so it may read higher."))
    low, high = result.mean_vbmd_ci95
    for limit in (OSTEOPOROSIS_BELOW_MG_CM3, NORMAL_ABOVE_MG_CM3):
        if low < limit < high:
            flags.append(Flag(f"grey_zone_{limit:.0f}", Severity.CAUTION, f"The 95 % interval {low:.0f} to {high:.0f} "
                              f"mg/cm3 spans the limit of {limit:.0f} mg/cm3: the class is not certain."))
    return (*flags, *provisional_flags(result.calibration))


def _roi_flags(level: LevelMeasurement) -> tuple[Flag, ...]:
    if level.complete and not level.measured:
        return (Flag("level_not_measured", Severity.CAUTION, f"{level.name} was not measured: {level.reason}. "
                     "Draw or enlarge its trabecular region.", level.name, level.centre_lps_mm),)
    few = level.kept_fraction is not None and level.kept_fraction < SMALL_ROI_FRACTION
    if not level.measured or (level.volume_mm3 >= SMALL_ROI_MM3 and not few):
        return ()
    share = "" if level.kept_fraction is None else f", {100 * level.kept_fraction:.0f} % of its body"
    return (Flag("small_roi", Severity.LIMITED, f"The trabecular region of {level.name} is "
                 f"{level.volume_mm3 / 1000:.1f} cm3{share}; below 3 cm3 or 15 % it may not speak for the body.",
                 level.name, level.centre_lps_mm),)


def _reader_flags(level: LevelMeasurement) -> tuple[Flag, ...]:
    if not level.excluded:
        return ()
    sentence = f"A reader left {level.name} out of the mean: {level.excluded}."
    return (Flag("level_excluded", Severity.INFO, sentence, level.name, level.centre_lps_mm),)


_SUPERSEDED_BY = {"muscle": "muscle", "fat": "fat", "aorta": "vessel"}
"""First word of a proposal's flag and the group of the registry that it speaks of."""


def _superseded(flag: Flag, edited: frozenset[str]) -> bool:
    """What was said of a proposed region no longer holds once a reader drew it; quality.assess judges it anew."""
    if flag.code == "body_copied":
        return f"body_{flag.level}" in edited
    group = _SUPERSEDED_BY.get(flag.code.partition("_")[0])
    return group is not None and any(STRUCTURES[name].group == group for name in edited & STRUCTURES.keys())


def _merge(first: tuple[Flag, ...], then: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """All flags in order; what was found now replaces an earlier flag of the same code and level."""
    fresh = {(flag.code, flag.level) for flag in then}
    return (*(flag for flag in first if (flag.code, flag.level) not in fresh), *then)
