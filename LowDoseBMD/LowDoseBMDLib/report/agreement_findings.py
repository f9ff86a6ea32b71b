"""What the numbers of an agreement study mean, in sentences: the weaknesses that a table lets a reader miss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..calibration_apply import Applied
from ..cohort import Cohort
from .agreement_sets import LIMITS_MG_CM3, TESTED_ON, TRAINED_ON, SetStatistics
from .agreement_text import SPLIT_TITLES
from .numbers import UNIT, between, counts, number, percent

STATEMENTS = (
    "This is research software, not a medical device, and this page describes a group, not a patient. It cannot be used to "
    "rule out low bone density.",
    "Differences are AI minus QCT. Osteoporosis is vBMD below 80 mg/cm³ by QCT (K2HPO4 scale, mean of two vertebral "
    "bodies); a value of exactly 80 is not below it.",
    "QCT is itself a measurement with an error, which the limits of agreement contain.",
    "Values of the training set show how well a method fits what it was made from. Only the test set shows performance, "
    "and only for people and scanners like those in it.",
    "Intervals hold 95 %: Spearman and Pearson by Fisher's z, ICC after McGraw and Wong (A,1: agreement; C,1: consistency; "
    "two-way, single measurement), concordance after Lin, bias and limits by Student's t, Passing-Bablok by ranks, Deming "
    "by the jackknife, AUC after DeLong, proportions after Wilson and, exact, after Clopper and Pearson.",
)
FEW_POSITIVE = 50
"""Below this the interval of a sensitivity is wider than +-10 per cent even at 85 %."""
CLEAR_P = 0.05


def findings(cohort: Cohort, sets: Sequence[SetStatistics], applied: Applied | None = None) -> list[str]:
    """Sentences in order of weight: what the people are, what was computed anew, who is missing, then the test set's
    (without one, the training set's) own."""
    shown = [part for part in sets if part.n][-1]
    title = SPLIT_TITLES[shown.split]
    own = [f"{title}: {sentence}"
           for sentence in (*_missed(shown), *_few(shown), *_proportional(shown), *_range(shown))]
    return [*_synthetic(cohort), *_computed(cohort, applied), *_missing(cohort), *_absent(sets), *own, *_trained_cut(sets)]


def _synthetic(cohort: Cohort) -> list[str]:
    drawn = int(np.count_nonzero(cohort.synthetic))
    if not drawn:
        return []
    who = "All people of this cohort are" if drawn == len(cohort) else f"{drawn} of {len(cohort)} people of this cohort are"
    return [f"{who} synthetic: drawn by a program, as numbers or as images of phantoms. No person was scanned for them, "
            "and they say nothing about how well any method works on patients."]


def _computed(cohort: Cohort, applied: Applied | None) -> list[str]:
    if applied is None:
        return []
    found = [f"The AI densities are computed from the cohort's HU with the calibration {applied.file} "
             f"({applied.calibration.name}); its column of measured densities is not used."]
    if applied.without_hu:
        found.append(f"{applied.without_hu} of {len(cohort)} people have not the HU for that and are left out.")
    if applied.elsewhere:
        found.append(f"{applied.elsewhere} of {len(cohort)} people were scanned with another tube voltage or scanner than "
                     "the calibration was fitted on.")
    return found


def _missing(cohort: Cohort) -> list[str]:
    left_out = len(cohort) - int(np.count_nonzero(cohort.paired))
    return [f"{left_out} of {len(cohort)} people lack one of the two densities and are left out of every comparison."] \
        if left_out else []


def _absent(sets: Sequence[SetStatistics]) -> list[str]:
    present = {part.split for part in sets}
    return [f"The file holds no {split} set." for split in (TRAINED_ON, TESTED_ON) if split not in present]


def _proportional(part: SetStatistics) -> list[str]:
    result = part.bland_altman
    if result is None or not result.slope_p < CLEAR_P:
        return []
    compressed = result.slope.value < 0
    way = "low densities read high and high ones low" if compressed else "low densities read low and high ones high"
    slope = result.slope
    return [f"proportional bias, {way}: the difference changes by {number(10 * slope.value, 2)} {UNIT} "
            f"({between(10 * slope.low, 10 * slope.high, 2)}) for every 10 {UNIT} of the mean, so one pair of limits of "
            "agreement does not hold over the whole range."]


def _missed(part: SetStatistics) -> list[str]:
    table = part.diagnostic
    if table is None or not table.fn:
        return []
    return [f"held against {part.limit:.0f} {UNIT}, the AI value misses {table.fn} of {table.fn + table.tp} people whom QCT "
            f"finds below it. Accuracy ({percent(table.accuracy.value)}) hides this, because {table.tn + table.fp} of "
            f"{part.n} are not below it."]


def _few(part: SetStatistics) -> list[str]:
    table = part.diagnostic
    if table is None or not 0 < part.below < FEW_POSITIVE:
        return []
    interval = table.sensitivity.wilson
    people = "1 person is" if part.below == 1 else f"{part.below} people are"
    return [f"only {people} below {part.limit:.0f} {UNIT}, so the sensitivity may lie anywhere from "
            f"{percent(interval.low)} to {percent(interval.high)} (Wilson)."]


def _range(part: SetStatistics) -> list[str]:
    limit = LIMITS_MG_CM3[0]
    if part.reference.min() < limit < part.reference.max():
        return []
    values = between(part.reference.min(), part.reference.max(), 0)
    return [f"the reference values, {values} {UNIT}, do not span {limit:.0f}."]


def _trained_cut(sets: Sequence[SetStatistics]) -> list[str]:
    tested = next((part for part in sets if part.split == TESTED_ON), None)
    if tested is None or tested.trained_specific is None:
        return []
    table = tested.trained_specific
    return [f"The cut-off with which the training set finds most at a specificity of 97 %, AI below {number(table.cut, 1)} "
            f"{UNIT}, gives in the test set a sensitivity of {counts(table.sensitivity)} and a specificity of "
            f"{counts(table.specificity)}."]
