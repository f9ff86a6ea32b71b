"""What the data say about quality, as data: flags that a reader sees, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

LEVEL_UNCERTAIN = "level_uncertain"
"""Code of the flag that asks a reader to confirm the level."""

LEVELS_NAMED = "levels_named"
"""Code of the flag that says what the names of the levels rest on, where a reader need not confirm them."""


class Severity(Enum):
    """How a flag bears on the number.

    INFO: worth knowing. CAUTION: read the number with care. LIMITED: the number may be wrong by more than
    its interval; confirm first. REFUSED: no number is given.
    """

    INFO = "info"
    CAUTION = "caution"
    LIMITED = "limited"
    REFUSED = "refused"


@dataclass(frozen=True)
class Flag:
    """One finding: a stable code, its severity, a plain sentence with units, and where to look."""

    code: str
    severity: Severity
    sentence: str
    level: str | None = None
    position_lps_mm: tuple[float, float, float] | None = None


class Refusal(ValueError):
    """The input cannot be measured. ``code`` is stable; the message says why and what to do."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    @property
    def flag(self) -> Flag:
        return Flag(self.code, Severity.REFUSED, str(self))


def refusals(record: Mapping[str, Any]) -> list[str]:
    """The sentences of a record (the content of measurement.json) that say why there is no number."""
    return [flag["sentence"] for flag in record["flags"] if flag["severity"] == Severity.REFUSED.value]
