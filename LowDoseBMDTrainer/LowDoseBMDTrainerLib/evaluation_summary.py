"""Many cases in a few numbers: median, worst, and intervals where they are honest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.diagnostics import Proportion, proportion
from LowDoseBMDLib.levels import CERTAIN
from scipy import stats

from .evaluation import PLAIN, CaseScores
from .evaluation_subject import HELD_OUT, NEW, TRAINED, UNKNOWN

EXPOSURES = (NEW, HELD_OUT, UNKNOWN, TRAINED)
"""Groups in the order of what they are worth."""

CONFIDENCES = (0.0, 0.5, 0.8, CERTAIN, 1.0)
"""Borders of the bins of the reliability of the levels' names; the last bin is what is measured without asking."""


@dataclass(frozen=True)
class Spread:
    """Of one score over cases. low, high: exact 95 % interval of the median (order statistics); None where fewer than six
    cases, or several of one person, allow none."""

    median: float
    worst: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class StructureSummary:
    structure: str
    cases: int
    dice: Spread
    nsd: Spread
    hd95_mm: Spread


@dataclass(frozen=True)
class KeypointSummary:
    level: str
    cases: int
    error_mm: Spread
    identified: int


@dataclass(frozen=True)
class TrabecularSummary:
    """hu_difference: found minus truth; worst is the largest absolute one."""

    level: str
    cases: int
    core_recall: Spread
    hu_difference: Spread


@dataclass(frozen=True)
class LevelsSummary:
    """How far the names of levels can be trusted.

    vertebrae, identified: how many levels were annotated and identified. all_right: cases in which all were. confident:
    cases whose levels would be measured without asking a reader; confident_wrong: of these, those with a wrong level (in
    scans that were drawn, a level's name at another vertebra; elsewhere, a level that is not identified).
    reliability: (from, to, cases, cases with all right) by confidence.
    """

    vertebrae: int
    identified: int
    all_right: Proportion
    confident: int
    confident_wrong: int
    reliability: tuple[tuple[float, float, int, int], ...]


@dataclass(frozen=True)
class GroupSummary:
    """Cases of one exposure, or under one perturbation. name: of either."""

    name: str
    cases: int
    patients: int
    structures: tuple[StructureSummary, ...]
    keypoints: tuple[KeypointSummary, ...]
    trabecular: tuple[TrabecularSummary, ...]
    levels: LevelsSummary | None


def summarise(rows: Sequence[CaseScores]) -> tuple[tuple[GroupSummary, ...], tuple[GroupSummary, ...]]:
    """(by exposure, unperturbed; by perturbation, of all exposures; empty when nothing was perturbed)."""
    scored = [row for row in rows if row.structures or row.keypoints]
    plain = [row for row in scored if row.perturbation == PLAIN]
    present = {row.exposure for row in plain}
    by_exposure = tuple(group(name, [row for row in plain if row.exposure == name]) for name in EXPOSURES if name in present)
    names = list(dict.fromkeys(row.perturbation for row in scored))
    if len(names) < 2:
        return by_exposure, ()
    return by_exposure, tuple(group(name, [row for row in scored if row.perturbation == name]) for name in names)


def group(name: str, rows: Sequence[CaseScores]) -> GroupSummary:
    """Summary of some rows."""
    patients = len({row.patient for row in rows})
    independent = patients == len(rows)
    by_structure = _sorted_in((score.structure, score) for row in rows for score in row.structures)
    by_level = _sorted_in((score.level, score) for row in rows for score in row.keypoints)
    by_core = _sorted_in((score.level, score) for row in rows for score in row.trabecular)
    return GroupSummary(
        name, len(rows), patients,
        tuple(StructureSummary(key, len(scores), spread([s.dice for s in scores], min, independent),
                               spread([s.nsd for s in scores], min, independent),
                               spread([s.hd95_mm for s in scores], max, independent)) for key, scores in by_structure),
        tuple(KeypointSummary(key, len(scores), spread([s.error_mm for s in scores], max, independent),
                              sum(s.identified for s in scores)) for key, scores in by_level),
        tuple(TrabecularSummary(key, len(scores), spread([s.core_recall for s in scores], min, independent),
                                spread([s.found_hu - s.truth_hu for s in scores], _largest, independent))
              for key, scores in by_core),
        _levels(rows))


def _sorted_in(pairs: Iterable[tuple[str, object]]) -> list[tuple[str, list]]:
    """Scores by name, in the order of the registry."""
    found: dict[str, list] = {}
    for name, score in pairs:
        found.setdefault(name, []).append(score)
    order = (*STRUCTURES, *LEVELS)
    return [(name, found[name]) for name in order if name in found]


def spread(values: Sequence[float], worst: Callable[[Sequence[float]], float], independent: bool) -> Spread:
    """worst: picks it (min or max). independent: one value a person. NaN is left out."""
    known = np.array([value for value in values if not math.isnan(value)])
    if known.size == 0:
        return Spread(math.nan, math.nan)
    low = high = None
    if independent and known.size > 1:
        interval = stats.quantile_test(known, q=0.0, p=0.5).confidence_interval(0.95)
        low, high = (None if math.isnan(end) else float(end) for end in interval)
    if low is None or high is None:
        low = high = None
    return Spread(float(np.median(known)), float(worst(known)), low, high)


def _largest(values: Iterable[float]) -> float:
    return max(values, key=abs)


def _levels(rows: Sequence[CaseScores]) -> LevelsSummary | None:
    named = [row for row in rows if row.keypoints]
    if not named:
        return None
    right = {id(row): all(score.identified for score in row.keypoints) for row in named}
    confident = [row for row in named if row.confidence is not None and not row.asks]
    named_right = {id(row): not row.misnamed if row.kinds else right[id(row)] for row in named}
    bins = tuple((low, high, *_count(named, named_right, low, high)) for low, high in pairwise(CONFIDENCES))
    return LevelsSummary(
        sum(len(row.keypoints) for row in named), sum(score.identified for row in named for score in row.keypoints),
        proportion(sum(right.values()), len(named)), len(confident),
        sum(not named_right[id(row)] for row in confident), bins)


def _count(rows: Sequence[CaseScores], right: dict[int, bool], low: float, high: float) -> tuple[int, int]:
    inside = [row for row in rows if row.confidence is not None
              and (low <= row.confidence < high or row.confidence == high == CONFIDENCES[-1])]
    return len(inside), sum(right[id(row)] for row in inside)


# --- scans that were drawn ----------------------------------------------------------------------------------

ALL = "all scans"

MEASURED, ASKED, ASKED_WRONG, WRONG, NONE = "measured", "asked, right", "asked, wrong", "sure and wrong", "none named"
OUTCOMES = (MEASURED, ASKED, ASKED_WRONG, WRONG, NONE)
"""What becomes of a scan's levels: named rightly and measured; a reader is asked, rightly or wrongly named; named wrongly
and measured; no T12, L1 or L2 named, which is right where none is whole in the scan."""


@dataclass(frozen=True)
class KindSummary:
    """Scans of one kind of anatomy by what becomes of their levels. outcomes: in the order of OUTCOMES."""

    kind: str
    scans: int
    outcomes: tuple[int, ...]


def outcome_of(row: CaseScores) -> str:
    """One of OUTCOMES."""
    if row.confidence is None:
        return NONE
    if row.misnamed:
        return ASKED_WRONG if row.asks else WRONG
    return ASKED if row.asks else MEASURED


def by_kind(rows: Sequence[CaseScores]) -> tuple[KindSummary, ...]:
    """Summaries of all scans that were drawn, then of each kind, the commonest first."""
    scans = [row for row in rows if row.kinds and row.perturbation == PLAIN]
    counts = Counter(kind for row in scans for kind in row.kinds)
    groups = {ALL: scans, **{kind: [row for row in scans if kind in row.kinds] for kind, _ in counts.most_common()}}
    return tuple(KindSummary(kind, len(some), tuple(sum(outcome_of(row) == one for row in some) for one in OUTCOMES))
                 for kind, some in groups.items() if some)
