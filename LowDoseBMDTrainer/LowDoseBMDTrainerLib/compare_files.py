"""A comparison of annotators as it lies on the disk, read without what it takes to make one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD, PAGE = "compare.json", "compare.html"
"""Names of the files of a comparison that are read again."""


@dataclass(frozen=True)
class StructureAgreed:
    """One structure of two readings. None where only one of the two drew it, and there is no distance."""

    name: str
    dice: float
    nsd: float | None
    hd95_mm: float | None
    mean_mm: float | None


@dataclass(frozen=True)
class PlaceApart:
    """A region that one drew and the other did not. reader: 0 or 1. reach_mm: None where the other drew none at all."""

    structure: str
    reader: int
    volume_cm3: float
    reach_mm: float | None
    position_lps_mm: tuple[float, float, float]


@dataclass(frozen=True)
class PairCompared:
    """Two readings of one case. keypoint_mm: by level, None where only one placed it. map: file of the map of
    disagreement. places: the largest first."""

    case: str
    readers: tuple[str, str]
    structures: tuple[StructureAgreed, ...]
    keypoint_mm: Mapping[str, float | None]
    places: tuple[PlaceApart, ...]
    map: Path


def read_pairs(folder: Path) -> tuple[PairCompared, ...]:
    """The pairs of a comparison's folder; none where there is no comparison. Raises ValueError when it cannot be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return tuple(_pair(one, folder) for one in record["pairs"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} cannot be read ({error}); compare again") from None


def _pair(record: Mapping[str, Any], folder: Path) -> PairCompared:
    first, second = record["readers"]
    structures = tuple(StructureAgreed(one["name"], one["dice"], one["surface"]["nsd"], one["surface"]["hd95_mm"],
                                       one["surface"]["mean_mm"]) for one in record["structures"])
    places = tuple(PlaceApart(one["structure"], one["reader"], one["volume_mm3"] / 1000.0, one["reach_mm"],
                              tuple(one["position_lps_mm"])) for one in record["spots"])
    return PairCompared(record["case"], (first, second), structures, record["keypoint_mm"], places, folder / record["map"])
