"""Numbers as a report prints them."""

from __future__ import annotations

UNKNOWN = "not stated"
NO_VALUE = "–"


def number(value: float | None, digits: int) -> str:
    """With a true minus sign, which does not break from its number and is read as minus."""
    if value is None:
        return NO_VALUE
    text = f"{value:.{digits}f}"
    return "0" if text == "-0" else text.replace("-", "−")


def with_unit(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:g} {unit}"
