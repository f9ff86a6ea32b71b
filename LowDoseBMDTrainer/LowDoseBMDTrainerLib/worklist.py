"""Which case is drawn next."""

from __future__ import annotations

from collections.abc import Iterable

from .cases import Case, Status

IN_ORDER, UNCERTAIN = "in order", "uncertain"
ORDERS: tuple[str, ...] = (UNCERTAIN, IN_ORDER)

HIGH, LOW = 0.4, 0.2
"""From and below these uncertainties the model is very, and little, uncertain of a case; see uncertainty.py (judgement)."""


def waiting(cases: Iterable[Case], order: str = UNCERTAIN, annotator: str = "") -> tuple[Case, ...]:
    """The readable cases that are neither completed nor flagged, the next first.

    order: in order of their names, or the most uncertain first and those whose uncertainty is not known last. What was
    begun comes first in both; what another than ``annotator``, where that is given, has begun is left out. Raises
    ValueError for another order.
    """
    if order not in ORDERS:
        raise ValueError(f"order {order!r}: use one of {', '.join(ORDERS)}")
    found = [case for case in cases if not case.problem and (
        case.status is Status.NOT_STARTED or
        (case.status is Status.IN_PROGRESS and annotator in ("", case.annotator)))]
    return tuple(sorted(found, key=lambda case: (*_rank(case, order), case.name)))


def _rank(case: Case, order: str) -> tuple[bool, float]:
    unknown = case.uncertainty is None or order == IN_ORDER
    return case.status is not Status.IN_PROGRESS, 1.0 if unknown else -case.uncertainty


def next_case(cases: Iterable[Case], order: str = UNCERTAIN, after: str = "", annotator: str = "") -> Case | None:
    """The first of those that wait (see waiting), None when there is none. after: name of a case that is not given again,
    such as the one just left."""
    return next((case for case in waiting(cases, order, annotator) if case.name != after), None)


def degree(uncertainty: float | None) -> str:
    """An uncertainty in a word: low, middle, high; a hyphen when it is not known."""
    if uncertainty is None:
        return "-"
    return "high" if uncertainty >= HIGH else "low" if uncertainty < LOW else "middle"
