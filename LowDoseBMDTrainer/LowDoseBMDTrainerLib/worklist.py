"""Which case is drawn next."""

from __future__ import annotations

from collections.abc import Iterable

from .cases import Case, Status
from .importing import IMPORTER

IN_ORDER, UNCERTAIN = "in order", "uncertain"
ORDERS: tuple[str, ...] = (UNCERTAIN, IN_ORDER)

HIGH, LOW = 0.4, 0.2
"""From and below these uncertainties the model is very, and little, uncertain of a case; see uncertainty.py (judgement)."""


def waiting(cases: Iterable[Case], order: str = UNCERTAIN, annotator: str = "") -> tuple[Case, ...]:
    """The readable cases that are neither completed nor flagged, the next first.

    order: in order of their names, or the most uncertain first and those whose uncertainty is not known last. annotator:
    what this person has begun comes first, what another person has begun last. Raises ValueError for another order.
    """
    if order not in ORDERS:
        raise ValueError(f"order {order!r}: use one of {', '.join(ORDERS)}")
    found = [case for case in cases if not case.problem and case.status in (Status.NOT_STARTED, Status.IN_PROGRESS)]
    return tuple(sorted(found, key=lambda case: (_whose(case, annotator), _known(case, order), case.name)))


def _whose(case: Case, annotator: str) -> int:
    """0: begun by this person, or by anybody where it is not said who asks; 1: by nobody; 2: by another."""
    if case.status is not Status.IN_PROGRESS or case.annotator == IMPORTER:
        return 1
    return 0 if annotator in ("", case.annotator) else 2


def _known(case: Case, order: str) -> float:
    return 1.0 if case.uncertainty is None or order == IN_ORDER else -case.uncertainty


def next_case(cases: Iterable[Case], order: str = UNCERTAIN, after: str = "", annotator: str = "") -> Case | None:
    """The next of those that wait (see waiting), None when there is none. after: name of the case just left; where it still
    waits, the one behind it in the list, so that cases can be passed over."""
    found = list(waiting(cases, order, annotator))
    place = next((n for n, case in enumerate(found) if case.name == after), None)
    if place is not None:
        found = [*found[place + 1:], *found[:place]]
    return found[0] if found else None


def degree(uncertainty: float | None) -> str:
    """An uncertainty in a word: low, middle, high; a hyphen when it is not known."""
    if uncertainty is None:
        return "-"
    return "high" if uncertainty >= HIGH else "low" if uncertainty < LOW else "middle"
