"""Work that must not hold up the window: one thread that does it in order, and says in the main thread how it ended."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import qt

POLL_MS = 15
YIELD_SECONDS = 0.008
"""Slept at each look: while Slicer's event loop is idle it holds Python's lock, and the thread gets on only now. A third of
the time is enough for files, and nobody sees 8 ms."""

CLOSE_SECONDS = 120.0
"""How long the end of the program waits for what is being saved, which takes seconds."""


class Background:
    """Runs functions one after the other in a thread of its own; started when there is something to do."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pending = 0
        self._thread: threading.Thread | None = None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._poll)

    @property
    def busy(self) -> bool:
        return self._pending > 0

    def run(self, work: Callable[[], Any], onDone: Callable[[Any], None], onFailed: Callable[[Exception], None]) -> None:
        """Do the work after what was given before. onDone(its result) or onFailed(error) comes in the main thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="LowDoseBMDTrainer files", daemon=True)
            self._thread.start()
        self._pending += 1
        self._waiting.put((work, onDone, onFailed))
        self._timer.start()

    def finish(self) -> None:
        """Wait until everything is done, as before the program ends; what ended work starts is done too."""
        end = time.monotonic() + CLOSE_SECONDS
        while self._pending and time.monotonic() < end:
            self._poll()

    def close(self) -> None:
        """Finish, and end the thread."""
        self.finish()
        self._timer.stop()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread = None

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            work, onDone, onFailed = task
            try:
                result = work()
            except Exception as error:  # whatever went wrong is said in the panel; the thread serves the next case too
                if not isinstance(error, (ValueError, OSError)):
                    logging.exception("work in the background failed")
                self._ended.put((onFailed, error))
            else:
                self._ended.put((onDone, result))

    def _poll(self) -> None:
        time.sleep(YIELD_SECONDS)
        while True:
            try:
                callback, result = self._ended.get_nowait()
            except queue.Empty:
                break
            self._pending -= 1
            callback(result)
        if not self._pending:
            self._timer.stop()
