"""The agreement of annotators over a project: every pair of readings of every case, and each pair of annotators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES

from .cases import Case, Labels, read_labels, readers_of
from .raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND, Comparison, Spot, StructureAgreement, compare_readings

TRUTH = "labels"
"""What the labels of a case are called that nobody has signed."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two readings of one case and how they compare."""

    case: str
    readers: tuple[str, str]
    readings: tuple[Labels, Labels]
    comparison: Comparison


@dataclass(frozen=True)
class Compared:
    """What is kept of a pair: its numbers. disagreement_cm3: volume of each value of the map of disagreement. The other
    fields are those of raters.Comparison."""

    case: str
    readers: tuple[str, str]
    structures: tuple[StructureAgreement, ...]
    keypoint_mm: Mapping[str, float]
    disagreement_cm3: Mapping[int, float]
    worst_slice: int | None
    worst_lps_mm: tuple[float, float, float] | None
    spots: tuple[Spot, ...]

    @property
    def spots_mm3(self) -> float:
        return sum(spot.volume_mm3 for spot in self.spots)


@dataclass(frozen=True)
class StructureSummary:
    """Means over the cases of a pair of annotators. cases: in which at least one drew the structure; both: in which both
    did, over which nsd, hd95_mm and mean_mm run; they are None when there is none. dice counts a missed structure as 0."""

    name: str
    cases: int
    both: int
    dice: float
    nsd: float | None
    hd95_mm: float | None
    mean_mm: float | None


@dataclass(frozen=True)
class PointSummary:
    """One level. both: cases in which both placed it, over which mean_mm and largest_mm run; one: in which only one did."""

    level: str
    both: int
    one: int
    mean_mm: float | None
    largest_mm: float | None


@dataclass(frozen=True)
class PairSummary:
    """Two annotators over all cases that both have drawn."""

    readers: tuple[str, str]
    cases: tuple[str, ...]
    structures: tuple[StructureSummary, ...]
    keypoints: tuple[PointSummary, ...]


def readings(case: Case) -> dict[str, Labels]:
    """Every reading of a case that holds anything, by who drew it: its labels first, then those of second readers."""
    name = case.annotator or TRUTH
    found = {name: read_labels(case)}
    for reader in readers_of(case):
        found[reader if reader != name else f"{reader} (second)"] = read_labels(case, reader)
    return {who: labels for who, labels in found.items() if labels.keypoints or
            any(not mask.empty for mask in labels.masks.values())}


def pairs_of(case: Case) -> Iterator[Pair]:
    """Every two readings of a case compared. Raises ValueError when one cannot be read."""
    for (first, a), (second, b) in combinations(readings(case).items(), 2):
        yield Pair(case.name, (first, second), (a, b), compare_readings(a, b))


def numbers_of(pair: Pair) -> Compared:
    """The numbers of a pair, without the regions that they come from."""
    found = pair.comparison
    counts = np.bincount(found.disagreement.voxels.ravel(), minlength=DIFFERENT + 1)
    volumes = {value: float(counts[value] * found.geometry.voxel_volume_mm3 / 1000.0)
               for value in (ONLY_FIRST, ONLY_SECOND, DIFFERENT)}
    return Compared(pair.case, pair.readers, found.structures, found.keypoint_mm, volumes, found.worst_slice,
                    found.worst_lps_mm, found.spots)


def summarise(pairs: Sequence[Compared]) -> tuple[PairSummary, ...]:
    """One summary per pair of annotators, in whichever order they stand in a case."""
    groups: dict[frozenset[str], list[Compared]] = {}
    for pair in pairs:
        groups.setdefault(frozenset(pair.readers), []).append(pair)
    return tuple(_summary(group) for group in groups.values())


def _summary(group: Sequence[Compared]) -> PairSummary:
    rows = [row for one in group for row in one.structures]
    structures = tuple(_structure(name, [row for row in rows if row.name == name]) for name in STRUCTURES
                       if any(row.name == name for row in rows))
    points = tuple(_point(level, [one.keypoint_mm for one in group]) for level in LEVELS
                   if any(level in one.keypoint_mm for one in group))
    return PairSummary(group[0].readers, tuple(one.case for one in group), structures, points)


def _structure(name: str, rows: Sequence[StructureAgreement]) -> StructureSummary:
    both = [row.surface for row in rows if math.isfinite(row.surface.mean_mm)]
    return StructureSummary(name, len(rows), len(both), fmean(row.dice for row in rows),
                            *(fmean(getattr(score, field) for score in both) if both else None
                              for field in ("nsd", "hd95_mm", "mean_mm")))


def _point(level: str, found: Sequence[Mapping[str, float]]) -> PointSummary:
    distances = [one[level] for one in found if level in one]
    both = [distance for distance in distances if math.isfinite(distance)]
    return PointSummary(level, len(both), len(distances) - len(both), fmean(both) if both else None, max(both, default=None))
