"""How long somebody works on a case: pauses do not count."""

from __future__ import annotations

import time
from collections.abc import Callable

IDLE_SECONDS = 60.0
"""A longer pause than this between two actions is no work on the case."""


class Activity:
    """clock: seconds, growing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self.seconds = 0.0

    def touch(self) -> None:
        """Somebody moved the mouse, drew or pressed a key."""
        now = self._clock()
        if self._last is not None and now - self._last <= IDLE_SECONDS:
            self.seconds += now - self._last
        self._last = now

    def take(self) -> float:
        """The seconds since the last time they were taken."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def begin(self) -> None:
        """Another case: what went before does not count for it."""
        self.seconds, self._last = 0.0, self._clock()
