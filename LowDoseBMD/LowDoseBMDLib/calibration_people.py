"""Who of a cohort a calibration may be fitted on: training people of one tube voltage with all HU; and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .agreement import checked_pair
from .cohort import Cohort
from .cohort_columns import HU_COLUMNS
from .measurement import LEAST_CONTRAST_HU, OSTEOPOROSIS_BELOW_MG_CM3

FEWEST_PEOPLE = 20
"""Fewer leave nobody to check a fit on. Judgement."""
FEW_PEOPLE = 50
"""Below this a cohort is called small: 50 pairs over 50 to 200 mg/cm3 are the usual advice for phantomless calibration."""
FEW_BELOW = 10
"""With fewer people below the limit a held-out sensitivity says nearly nothing. Judgement."""


@dataclass(frozen=True, eq=False)
class TrainingPeople:
    """people: those to fit on, all of the training set. left_out: why -> how many training people are not among them.

    warnings: sentences about what this cohort cannot carry.
    """

    people: Cohort
    kvp: float
    left_out: Mapping[str, int]
    warnings: tuple[str, ...]


def training_people(cohort: Cohort, kvp: float | None = None, scanner: str | None = None,
                    kernel: str | None = None) -> TrainingPeople:
    """The training people of one stratum with QCT density and all three HU. People of the test set are not read.

    kvp, scanner, kernel: take only these; kvp is taken at its word where the cohort does not tell it. Raises ValueError
    with the way out for a cohort without training people, of several or unknown tube voltages, with too few people, or
    with the same HU or density in all.
    """
    people = cohort.of_split("training")
    if not len(people):
        raise ValueError(f"none of the {len(cohort)} people is of the training set, and nothing is ever fitted on the test "
                         "set; choose people at random and write 'training' for them in the column split")
    left_out: dict[str, int] = {}
    kvp = _voltage(people, kvp)
    if np.isfinite(people.kvp).any():
        people = _keep(people, people.kvp == kvp, f"were not scanned at {kvp:g} kV, or the kV is unknown", left_out)
    for column, wanted in (("scanner", scanner), ("kernel", kernel)):
        if wanted is not None:
            people = _of_name(people, column, wanted, left_out)
    for name, what in zip(("reference_mg_cm3", *HU_COLUMNS), ("QCT density", "HU of bone", "HU of muscle", "HU of fat"),
                          strict=True):
        people = _keep(people, np.isfinite(getattr(people, name)), f"have no {what}", left_out)
    people = _keep(people, people.muscle_hu - people.fat_hu >= LEAST_CONTRAST_HU,
                   f"have muscle and fat less than {LEAST_CONTRAST_HU:.0f} HU apart", left_out)
    if len(people) < FEWEST_PEOPLE:
        lost = "; ".join(f"{count} {why}" for why, count in left_out.items())
        raise ValueError(f"{len(people)} training people are too few to fit on{f' ({lost})' if lost else ''}: "
                         f"at least {FEWEST_PEOPLE} with QCT density and HU of bone, muscle and fat are needed")
    checked_pair(people.spine_hu, people.reference_mg_cm3, ("the HU of bone", "the QCT density"))
    return TrainingPeople(people, kvp, left_out, tuple(_warnings(people, left_out)))


def names_of(values: np.ndarray) -> list[str]:
    """The known names in (N,) texts, sorted, without the separator of a calibration's fields."""
    return sorted({str(name).replace(";", ",") for name in np.unique(values) if name})


def _voltage(people: Cohort, kvp: float | None) -> float:
    known, counts = np.unique(people.kvp[np.isfinite(people.kvp)], return_counts=True)
    if kvp is not None:
        if known.size and kvp not in known:
            raise ValueError(f"no training person was scanned at {kvp:g} kV; there are {_listed(known, counts)}")
        return float(kvp)
    if known.size == 0:
        raise ValueError("the cohort does not tell the tube voltage, on which HU depend; add the column kvp, or say it with "
                         "--kvp 120")
    if known.size > 1:
        raise ValueError(f"the training people were scanned at {_listed(known, counts)}; HU depend on it, so a calibration "
                         f"holds for one: choose with --kvp {known[np.argmax(counts)]:g}")
    return float(known[0])


def _listed(values: np.ndarray, counts: np.ndarray) -> str:
    return ", ".join(f"{value:g} kV ({count} people)" for value, count in zip(values, counts, strict=True))


def _of_name(people: Cohort, column: str, wanted: str, left_out: dict[str, int]) -> Cohort:
    values = getattr(people, column)
    if wanted not in values:
        names = ", ".join(repr(name) for name in names_of(values)) or "none named"
        raise ValueError(f"no training person has the {column} {wanted!r}; there are: {names}")
    return _keep(people, values == wanted, f"have another {column} than {wanted!r}", left_out)


def _keep(people: Cohort, chosen: np.ndarray, why: str, left_out: dict[str, int]) -> Cohort:
    if not chosen.all():
        left_out[why] = int(np.count_nonzero(~chosen))
    return people.where(chosen)


def _warnings(people: Cohort, left_out: Mapping[str, int]) -> list[str]:
    """In order of weight."""
    limit, reference = OSTEOPOROSIS_BELOW_MG_CM3, people.reference_mg_cm3
    below = int(np.count_nonzero(reference < limit))
    found = []
    if people.synthetic.any():
        found.append("The calibration is fitted on synthetic people, drawn by a program: it must not be used on "
                     "patients.")
    if len(people) < FEW_PEOPLE:
        found.append(f"Only {len(people)} pairs: at least {FEW_PEOPLE} are advised, spread over 50 to 200 mg/cm³.")
    if not reference.min() < limit < reference.max():
        found.append(f"The QCT densities, {reference.min():.0f} to {reference.max():.0f} mg/cm³, do not span {limit:.0f}: "
                     "around the limit of osteoporosis this calibration is a guess.")
    elif below < FEW_BELOW:
        found.append(f"Only {below} people are below {limit:.0f} mg/cm³ by QCT: how many of such people are found is hardly "
                     "known.")
    for column, lost in (("scanner", "differences between them stay in every value; fit one with --scanner"),
                         ("kernel", "fit one with --kernel")):
        if len(names := names_of(getattr(people, column))) > 1:
            found.append(f"The people are of {len(names)} {column}s ({', '.join(names)}): {lost}.")
    found += [f"{count} training people {why} and are left out." for why, count in left_out.items()]
    return found
