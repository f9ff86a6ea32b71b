"""What a reader adds to a measurement besides regions: a signature, and what was signed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACCEPTED, REJECTED = "accepted", "rejected"
DECISIONS = (ACCEPTED, REJECTED)


@dataclass(frozen=True)
class Review:
    """What a reader decided. decision: accepted or rejected. signed_at: ISO 8601 with the zone.

    Raises ValueError for another decision or without a reader's name.
    """

    decision: str
    reader: str
    comment: str
    signed_at: str

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"decision {self.decision!r}: one of {', '.join(DECISIONS)}")
        if not self.reader.strip():
            raise ValueError("a measurement is signed by name: give the reader's name or initials")


@dataclass(frozen=True)
class Reading:
    """The part of a reader in a measurement.

    automatic_mean_mg_cm3: the mean before any edit, None when nothing was measured then or it is not known.
    reopened: signatures that were taken back, a sentence each, oldest first.
    """

    review: Review | None = None
    automatic_mean_mg_cm3: float | None = None
    reopened: tuple[str, ...] = ()

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Reading:
        """The inverse of dataclasses.asdict. Raises KeyError or TypeError for other data."""
        return Reading(data["review"] and Review(**data["review"]), data["automatic_mean_mg_cm3"], tuple(data["reopened"]))


NOBODY = Reading()
"""A measurement that no reader has seen."""
