"""A reader's signature under a measurement."""

from __future__ import annotations

from dataclasses import dataclass

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
