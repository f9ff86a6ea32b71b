"""Undo and redo: the states before and after the present one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

UNDO_STEPS = 200
"""Regions share what did not change, so that a step costs no more than what was drawn in it."""

Step = TypeVar("Step")


@dataclass
class History(Generic[Step]):
    """Steps before (past) and after (future) the present one, each in the order in which they came."""

    past: list[Step] = field(default_factory=list)
    future: list[Step] = field(default_factory=list)

    def push(self, step: Step) -> None:
        """The present one is left for a new one: there is nothing to do again."""
        self.past = [*self.past, step][-UNDO_STEPS:]
        self.future.clear()

    def back(self, present: Step) -> Step | None:
        """The step before the present one, which is kept to go forth to; None at the first."""
        return _move(self.past, self.future, present)

    def forth(self, present: Step) -> Step | None:
        """The step after the present one; None at the last."""
        return _move(self.future, self.past, present)


def _move(source: list[Step], other: list[Step], present: Step) -> Step | None:
    if not source:
        return None
    other.append(present)
    return source.pop()
