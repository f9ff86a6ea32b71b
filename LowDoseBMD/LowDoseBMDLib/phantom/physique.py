"""What is drawn at random for one phantom: body build, tissue HU and bone density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy import SPINE
from .model import PhantomSpec

AGE_KNOTS = {
    "m": ((32, 40, 50, 60, 70, 80), (176.6, 163.0, 144.0, 126.0, 108.0, 92.1)),
    "f": ((32, 40, 45, 50, 55, 60, 65, 70, 80), (185.4, 178.0, 170.0, 152.0, 131.0, 115.0, 100.0, 87.0, 62.4)),
}
"""Mean vBMD (mg/cm3) of L1-L2 by age; ends from Cheng 2021 (69,095 low-dose CTs), knots between interpolated."""

WITHIN_SD_MG_CM3 = {"m": 27.0, "f": 26.0}
"""SD between people of one age; with the knots it gives the margins of the published cohort."""

LEVEL_OFFSET_MG_CM3 = {"C6": 110.0, "C7": 90.0, "T1": 60.0, "T6": 24.0, "T12": 5.0, "L1": 1.0, "L2": -2.0,
                       "L3": -5.0, "L5": 0.0}
"""vBMD against the mean of L1-L2; density falls from T1 to L3 (Budoff 2012). Sizes are a judgement."""

LEVEL_SD_MG_CM3 = 3.0
SEX_SCALE = {"f": 0.94, "m": 1.0}
LOWEST_MG_CM3, HIGHEST_MG_CM3 = 15.0, 260.0


@dataclass(frozen=True)
class Physique:
    """One person. Lengths in mm, angles in degrees, tissue values in HU (arteries and organs with contrast)."""

    scale: float
    kyphosis_deg: float
    curvature_deg: float
    fat_mm: float
    osteophytes: float
    humeri: bool
    vbmd_mg_cm3: dict[str, float]
    trabecular_hu: dict[str, float]
    cortex: float
    hu: dict[str, float]
    muscle_mg_cm3: float | None
    fat_mg_cm3: float | None


def stream(spec: PhantomSpec, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that one part's draws never move another's."""
    return np.random.default_rng([spec.seed, *purpose.encode()])


def mean_vbmd_mg_cm3(age: float, sex: str) -> float:
    """Mean vBMD of L1-L2 at an age (years)."""
    ages, values = AGE_KNOTS[sex]
    return float(np.interp(age, ages, values))


def draw_physique(spec: PhantomSpec) -> Physique:
    """Everything about a person that the specification leaves open."""
    rng = stream(spec, "physique")
    scale = SEX_SCALE[spec.sex] * float(np.clip(rng.normal(1, 0.035), 0.92, 1.08))
    kyphosis = float(np.clip(rng.normal(40 + 0.2 * (spec.age - 60), 6), 22, 62))
    curvature = float(rng.normal(0, 4))
    fat = float(np.clip(rng.gamma(6.0, (3.0 if spec.sex == "f" else 2.5)), 7, 38))
    osteophytes = float(np.clip(rng.beta(1.2, 3) * (spec.age - 30) / 40, 0, 1))
    hu = _tissue_hu(spec, rng)
    vbmd = _draw_vbmd(spec, rng)
    trabecular, muscle_mg_cm3, fat_mg_cm3 = _trabecular_hu(spec, hu["muscle"], hu["fat"], vbmd)
    return Physique(
        scale=scale if spec.scale is None else SEX_SCALE[spec.sex] * spec.scale,
        kyphosis_deg=kyphosis if spec.kyphosis_deg is None else spec.kyphosis_deg,
        curvature_deg=curvature if spec.lateral_curvature_deg is None else spec.lateral_curvature_deg,
        fat_mm=fat if spec.fat_thickness_mm is None else spec.fat_thickness_mm,
        osteophytes=osteophytes if spec.osteophytes is None else spec.osteophytes,
        humeri=bool(rng.random() < 0.6) if spec.humeri is None else spec.humeri,
        vbmd_mg_cm3=vbmd, trabecular_hu=trabecular,
        cortex=float(np.interp(vbmd["L1"], (50, 180), (0.75, 1.1))), hu=hu, muscle_mg_cm3=muscle_mg_cm3,
        fat_mg_cm3=fat_mg_cm3,
    )


def _trabecular_hu(spec: PhantomSpec, muscle_hu: float, fat_hu: float,
                   vbmd: dict[str, float]) -> tuple[dict[str, float], float | None, float | None]:
    """HU by level, and the densities of muscle and fat that make the two-point line exact, where there are any."""
    from ..calibration import DEFAULT_FAT_MG_CM3, DEFAULT_MUSCLE_MG_CM3

    if spec.scanner_line is None:
        md, fd = DEFAULT_MUSCLE_MG_CM3, DEFAULT_FAT_MG_CM3
        return {level: muscle_hu + (v - md) * (muscle_hu - fat_hu) / (md - fd) for level, v in vbmd.items()}, md, fd
    slope, intercept = spec.scanner_line
    return {level: (v - intercept) / slope + spec.trabecular_shift_hu for level, v in vbmd.items()}, None, None


def _draw_vbmd(spec: PhantomSpec, rng: np.random.Generator) -> dict[str, float]:
    levels = SPINE[5:]
    base = mean_vbmd_mg_cm3(spec.age, spec.sex) + rng.normal(0, WITHIN_SD_MG_CM3[spec.sex])
    known = [SPINE.index(level) for level in LEVEL_OFFSET_MG_CM3]
    offsets = np.interp([SPINE.index(level) for level in levels], known, list(LEVEL_OFFSET_MG_CM3.values()))
    drawn = np.clip(base + offsets + rng.normal(0, LEVEL_SD_MG_CM3, len(levels)), LOWEST_MG_CM3, HIGHEST_MG_CM3)
    if spec.mean_vbmd_mg_cm3 is not None:
        drawn += spec.mean_vbmd_mg_cm3 - (drawn[levels.index("L1")] + drawn[levels.index("L2")]) / 2
    return {level: float(v) for level, v in zip(levels, drawn, strict=True)} | dict(spec.vbmd_mg_cm3 or {})


def _tissue_hu(spec: PhantomSpec, rng: np.random.Generator) -> dict[str, float]:
    """Muscle and fat (54 +- 5, -105 +- 4 HU where not given), organs at unenhanced 120 kVp."""
    muscle = float(np.clip(rng.normal(54, 5), 40, 68))
    fat = float(np.clip(rng.normal(-105, 4), -116, -94))
    muscle, fat = (drawn if given is None else given for drawn, given in ((muscle, spec.muscle_hu), (fat, spec.fat_hu)))
    blood, more = float(rng.normal(40, 4)), spec.contrast_hu
    plain = {
        "muscle": muscle, "fat": fat, "visceral": fat + 3, "paraspinal": muscle - float(rng.uniform(0, 6)),
        "skin": 30.0, "blood": blood + more, "vein": blood + 0.35 * more, "heart": blood + 0.75 * more,
        "liver": float(rng.normal(58, 6)) + 0.25 * more, "spleen": float(rng.normal(48, 4)) + 0.4 * more,
        "kidney": float(rng.normal(33, 3)) + 0.8 * more, "bowel": 35.0 + 0.2 * more, "pancreas": 42.0 + 0.3 * more,
        "lung": float(rng.normal(-855, 18)), "disc": float(rng.uniform(70, 95)), "cord": 36.0, "csf": 14.0,
        "cartilage": float(rng.uniform(85, 125)),
    }
    return plain
