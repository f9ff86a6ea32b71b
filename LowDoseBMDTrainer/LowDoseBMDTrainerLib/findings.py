"""What a check of labels says: a sentence, how serious it is, and where to look."""

from __future__ import annotations

from dataclasses import dataclass

MUST, LOOK = "must", "look"
"""Severity: must be put right before the case is completed, or is worth a look because it may be right."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found. code: stable; structure: name of the registry, or a level for a keypoint."""

    code: str
    severity: str
    sentence: str
    position_lps_mm: tuple[float, float, float] | None = None
    structure: str | None = None
