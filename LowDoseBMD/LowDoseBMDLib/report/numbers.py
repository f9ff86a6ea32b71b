"""Numbers and statistics as a report prints them.

Every interval is a 95 % interval. A minus is the true minus sign, which does not break from its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..agreement import Estimate
    from ..diagnostics import Proportion

UNKNOWN = "not stated"
NO_VALUE = "–"
UNIT = "mg/cm³"
SMALLEST_P = 0.001


def number(value: float | None, digits: int) -> str:
    """Fixed digits; a dash for nothing; never minus zero."""
    if value is None:
        return NO_VALUE
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def between(low: float, high: float, digits: int) -> str:
    """An interval: with "to", because a dash beside a minus sign cannot be read."""
    return f"{number(low, digits)} to {number(high, digits)}"


def estimate(found: Estimate | None, digits: int) -> str:
    """Value (low to high)."""
    return NO_VALUE if found is None else f"{number(found.value, digits)} ({between(found.low, found.high, digits)})"


def p_value(p: float | None) -> str:
    """P = 0.123, or P < 0.001."""
    if p is None:
        return NO_VALUE
    return f"P < {SMALLEST_P}" if p < SMALLEST_P else f"P = {number(p, 3)}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.421 as 42.1 %; whole ends without a decimal, as the paper prints 100 %."""
    if fraction is None:
        return NO_VALUE
    return f"{100 * fraction:.0f} %" if fraction in (0, 1) else f"{100 * fraction:.{digits}f} %"


def counts(found: Proportion | None) -> str:
    """42.1 % (16/38), or a dash when nobody is counted."""
    if found is None or not found.of:
        return NO_VALUE
    return f"{percent(found.value)} ({found.count}/{found.of})"


def typed(text: str) -> str:
    """The text in signs that every terminal shows."""
    return text.replace("−", "-").replace("³", "3").replace("±", "+-").replace("≥", ">=").replace("–", "-")


def with_unit(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:g} {unit}"
