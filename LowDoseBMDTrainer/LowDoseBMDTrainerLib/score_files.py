"""An evaluation as it lies on the disk, read without what it takes to make one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCORES, PAGE = "scores.json", "evaluation.html"
"""Names of the files of an evaluation that are read again."""

CARD = "card.md"
"""What a bundle says of itself, with the scores of an evaluation, in its folder."""


@dataclass(frozen=True)
class StructureScores:
    """Medians over cases, and the worst Dice. hd95_mm: None where the structure was not found in most of them."""

    structure: str
    cases: int
    dice: float | None
    worst_dice: float | None
    nsd: float | None
    hd95_mm: float | None


@dataclass(frozen=True)
class LevelScores:
    """error_mm: median over cases, None where the level was not found in most of them. identified: how many were."""

    level: str
    cases: int
    error_mm: float | None
    identified: int


@dataclass(frozen=True)
class ScoredGroup:
    """Cases that the models know equally well. name: whether they were trained on."""

    name: str
    cases: int
    patients: int
    structures: tuple[StructureScores, ...]
    levels: tuple[LevelScores, ...]


@dataclass(frozen=True)
class WorstCase:
    """subject: a structure, or what else was scored. caption: how bad it is, in words."""

    case: str
    subject: str
    caption: str


@dataclass(frozen=True)
class Scores:
    """The content of scores.json that a panel shows. groups: what is worth most first. worst: the worst first.
    left_out: (case, why)."""

    title: str
    task: str | None
    groups: tuple[ScoredGroup, ...]
    worst: tuple[WorstCase, ...]
    left_out: tuple[tuple[str, str], ...]


def read_scores(folder: Path) -> Scores | None:
    """The scores of an evaluation's folder; None when there are none. Raises ValueError when they cannot be read."""
    try:
        record = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValueError(f"{folder / SCORES} is damaged; evaluate again") from None
    try:
        failed = [(row["case"], row["problem"]) for row in record["cases"] if row["problem"]]
        return Scores(record["title"], record["task"], tuple(_group(one) for one in record["by_exposure"]),
                      tuple(WorstCase(one["case"], one["subject"], one["caption"]) for one in record["worst"]),
                      (*((one["case"], one["why"]) for one in record["left_out"]), *failed))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / SCORES} is not of this version ({error}); evaluate again") from None


def _group(record: Mapping[str, Any]) -> ScoredGroup:
    structures = tuple(StructureScores(one["structure"], one["cases"], one["dice"]["median"], one["dice"]["worst"],
                                       one["nsd"]["median"], one["hd95_mm"]["median"]) for one in record["structures"])
    levels = tuple(LevelScores(one["level"], one["cases"], one["error_mm"]["median"], one["identified"])
                   for one in record["keypoints"])
    return ScoredGroup(record["name"], record["cases"], record["patients"], structures, levels)
