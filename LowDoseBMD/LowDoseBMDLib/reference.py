"""What trabecular vBMD is usual at an age: a named reference, and what of it is published and what is not.

Source of the anchors: Cheng et al., J Bone Miner Res 2021;36:427-435, doi 10.1002/jbmr.4187: lumbar (L1-L2)
trabecular vBMD by QCT in low-dose chest CT of 69,095 Chinese adults (40,733 men, 28,362 women). Its abstract
prints four means: at the peak, 30-34 years, 185.4 mg/cm3 in women and 176.6 in men; at 80 years 62.4 and 92.1.
Everything between those ages is INTERPOLATED BY THIS PROJECT, and the SDs are ASSUMED BY IT (chosen so that a
simulated cohort has the spread of Zhao 2024). So a value may be looked at beside the curve, but no Z-score is
offered here: it would claim a spread by age that the source, as far as it was read, does not give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEXES: tuple[str, ...] = ("F", "M")
"""Sexes with a reference, as in DICOM's Patient's Sex."""

AGE_RANGE_YEARS = (30.0, 80.0)
"""Ages with a reference, both ends included: from the youngest of the peak's age group to the oldest mean."""

PEAK_AGE_YEARS = 32.0
"""Middle of the age group 30-34 of the published peak; the peak is held from 30 to here."""

MEAN_MG_CM3: dict[str, dict[float, float]] = {
    "F": {PEAK_AGE_YEARS: 185.4, 40.0: 178.0, 45.0: 170.0, 50.0: 152.0, 55.0: 131.0, 60.0: 115.0, 65.0: 100.0,
          70.0: 87.0, 80.0: 62.4},
    "M": {PEAK_AGE_YEARS: 176.6, 40.0: 163.0, 50.0: 144.0, 60.0: 126.0, 70.0: 108.0, 80.0: 92.1},
}
"""Mean vBMD by sex and age. The first and last knot of each sex are Cheng 2021; those between are this project's,
placed so that loss speeds up at the menopause in women and is nearly even in men."""

SD_MG_CM3: dict[str, float] = {"F": 26.0, "M": 27.0}
"""Spread between people of one age and sex: assumed by this project, the same at every age."""

SOURCE = "Cheng 2021, QCT of 69,095 Chinese adults, doi 10.1002/jbmr.4187"
"""The reference by name, for a reader."""

CAVEAT = "Only the means at 30-34 and 80 years are published; between them interpolated, and SD assumed, by this program"
"""What a reader must know of the curve; shown wherever the curve is."""


@dataclass(frozen=True)
class Reference:
    """Usual trabecular vBMD at an age, mg/cm3 on the K2HPO4 scale. sd: assumed, see SD_MG_CM3."""

    mean_mg_cm3: float
    sd_mg_cm3: float
    source: str = SOURCE
    caveat: str = CAVEAT


def reference_vbmd(age_years: float, sex: str) -> Reference:
    """The reference for one person. sex: "F" or "M".

    Raises ValueError for another sex, or an age outside AGE_RANGE_YEARS, where there is no reference.
    """
    return Reference(float(reference_curve(sex, (age_years,))[0]), SD_MG_CM3[sex])


def reference_curve(sex: str, ages_years: Sequence[float] | np.ndarray) -> np.ndarray:
    """(N,) mean vBMD in mg/cm3 at (N,) ages in years, linear between the knots of MEAN_MG_CM3.

    Raises ValueError as reference_vbmd.
    """
    if sex not in MEAN_MG_CM3:
        raise ValueError(f"there is a vBMD reference for the sexes {' and '.join(SEXES)} only, not for {sex!r}")
    ages = np.asarray(ages_years, float)
    low, high = AGE_RANGE_YEARS
    outside = ages[~((ages >= low) & (ages <= high))]
    if outside.size:
        raise ValueError(f"the vBMD reference covers {low:.0f} to {high:.0f} years, not {outside[0]:g} years")
    knots = MEAN_MG_CM3[sex]
    return np.interp(ages, list(knots), list(knots.values()))


def has_reference(age_years: float | None) -> bool:
    """True for a known age that the reference covers."""
    return age_years is not None and AGE_RANGE_YEARS[0] <= age_years <= AGE_RANGE_YEARS[1]
