"""What a phantom is made from (PhantomSpec) and what comes out (Phantom, PhantomTruth)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..anatomy import SPINE
from ..ctvolume import CTVolume
from ..rois import Mask
from .labels import LABEL


@dataclass(frozen=True)
class PhantomSpec:
    """One synthetic person in one scanner. None means: drawn from ``seed``.

    age: years. sex: "f" or "m". spacing_mm: along i, j, k. fat_thickness_mm: anterior subcutaneous fat at L1-L2.
    lateral_curvature_deg: Cobb angle of a scoliosis, convex to the left when positive. kyphosis_deg: angle
    between T1 and T12. scan_top, scan_bottom: (level, fraction of that body's height counted downwards from
    its upper endplate), e.g. ("L2", 0.4) ends the scan when 40 % of L2 is seen; scan_top None is above the lung
    apices. osteophytes: 0..1. contrast: HU added to arteries, or True for 180 HU. metal: pedicle screws in L2.
    noise_hu: SD of the noise in the centre of the abdomen. kernel: "soft" or "lung". scale: body size, 1 is
    the average of that sex. vbmd_mg_cm3: by level; levels not named are drawn from age and sex. humeri: heads
    of the humeri of raised arms. couch: the table under the patient. mean_vbmd_mg_cm3: of L1 and L2, which moves
    the levels that vbmd_mg_cm3 does not name. muscle_hu, fat_hu: of psoas and subcutaneous fat.

    scanner_line: (slope in mg/cm3 per HU, intercept in mg/cm3) of a scanner, whose trabecular HU are
    (vBMD - intercept) / slope + trabecular_shift_hu, whatever muscle and fat read. None: trabecular HU follow from
    muscle and fat, so that the two-point line is exact. trabecular_shift_hu: what an offset of the scanner, marrow
    or sclerosis add to bone of one density. Raises ValueError naming what cannot be.
    """

    age: float = 60.0
    sex: str = "f"
    seed: int = 0
    spacing_mm: tuple[float, float, float] = (0.85, 0.85, 1.5)
    fat_thickness_mm: float | None = None
    lateral_curvature_deg: float | None = None
    kyphosis_deg: float | None = None
    scan_top: tuple[str, float] | None = None
    scan_bottom: tuple[str, float] = ("L3", 0.6)
    osteophytes: float | None = None
    contrast: bool | float = False
    metal: bool = False
    noise_hu: float = 22.0
    kernel: str = "soft"
    scale: float | None = None
    vbmd_mg_cm3: Mapping[str, float] | None = None
    humeri: bool | None = None
    couch: bool = True
    mean_vbmd_mg_cm3: float | None = None
    muscle_hu: float | None = None
    fat_hu: float | None = None
    scanner_line: tuple[float, float] | None = None
    trabecular_shift_hu: float = 0.0

    def __post_init__(self) -> None:
        if self.sex not in ("f", "m"):
            raise ValueError(f'sex must be "f" or "m", not {self.sex!r}')
        if self.kernel not in ("soft", "lung"):
            raise ValueError(f'kernel must be "soft" or "lung", not {self.kernel!r}')
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be three positive lengths along i, j, k, not {self.spacing_mm}")
        if self.noise_hu < 0:
            raise ValueError(f"noise_hu must not be negative: {self.noise_hu}")
        for level in (self.scan_bottom[0], *(() if self.scan_top is None else (self.scan_top[0],)),
                      *(self.vbmd_mg_cm3 or ())):
            if level not in SPINE[5:]:
                raise ValueError(f"level {level!r} is not one of C6 to L5")
        self._check_scanner()

    def _check_scanner(self) -> None:
        if self.scanner_line is not None and not self.scanner_line[0] > 0:
            raise ValueError(f"scanner_line is (slope, intercept) with a slope above 0, not {self.scanner_line}")
        if self.scanner_line is None and self.trabecular_shift_hu:
            raise ValueError(f"trabecular_shift_hu is {self.trabecular_shift_hu} without a scanner_line to shift from")
        if None not in (self.muscle_hu, self.fat_hu) and self.muscle_hu <= self.fat_hu:
            raise ValueError(f"muscle_hu {self.muscle_hu} must be above fat_hu {self.fat_hu}")

    @property
    def contrast_hu(self) -> float:
        """HU added to arteries."""
        return 180.0 if self.contrast is True else float(self.contrast)


@dataclass(frozen=True)
class PhantomTruth:
    """What is true in this phantom, before noise.

    vbmd_mg_cm3: trabecular vBMD of those of T12, L1, L2 whose body is in the scan, whole or cut. trabecular_hu,
    centres_lps_mm (centre of mass of the body, also when cut off) and complete: every vertebra whose body is in
    the scan at least in part. muscle_hu, fat_hu: HU of psoas and subcutaneous fat. muscle_mg_cm3,
    fat_mg_cm3: the densities with which the two-point line is exact; None with a scanner_line, where none are.
    """

    vbmd_mg_cm3: dict[str, float]
    trabecular_hu: dict[str, float]
    centres_lps_mm: dict[str, tuple[float, float, float]]
    complete: dict[str, bool]
    muscle_hu: float
    fat_hu: float
    muscle_mg_cm3: float | None
    fat_mg_cm3: float | None


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT with its truth.

    ct: int16 HU. labels: uint8 (k, j, i), values as in ``CLASSES``. part: uint8 (k, j, i), of vertebrae only:
    0 none, 1 body, 2 posterior elements.
    """

    ct: CTVolume
    truth: PhantomTruth
    labels: np.ndarray = field(repr=False)
    part: np.ndarray = field(repr=False)
    spec: PhantomSpec

    @property
    def vertebra_index(self) -> np.ndarray:
        """uint8 (k, j, i): 0, or 1 + index of the vertebra in ``anatomy.SPINE`` (T1 is 8, T12 19, L1 20)."""
        return np.where(self.labels <= len(SPINE), self.labels, 0).astype(np.uint8)

    def mask(self, *names: str) -> Mask:
        """The union of structures by their names in ``CLASSES``."""
        return Mask.from_array(np.isin(self.labels, [LABEL[name] for name in names]))

    def body_mask(self, level: str) -> Mask:
        """The vertebral body of one level, without posterior elements."""
        return Mask.from_array((self.labels == LABEL[f"vertebra_{level}"]) & (self.part == 1))
