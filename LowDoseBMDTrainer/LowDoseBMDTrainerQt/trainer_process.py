"""Commands of ``lowdosebmd-train`` in processes of their own, while the window stays alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from LowDoseBMDQt.job import SHOWN_LINES, unexpectedEnd
from LowDoseBMDQt.processes import endTree, pythonSlicer, startProcess
from slicer.i18n import tr as _

TRAINER_FOLDER = Path(__file__).resolve().parents[1]
"""What must be on the path of a process that imports LowDoseBMDTrainerLib."""

COMMANDS = ("-m", "LowDoseBMDTrainerLib")
ERROR_BEGINS = "lowdosebmd-train: "
"""How the command line begins the sentence that says why a command could not be done."""

POLL_MS = 200
KILL_SECONDS = 1.0
"""After a cancel the processes are asked to end, and killed when they have not."""
READ_BYTES = 65536
LOG_BYTES = 200_000


class TrainerProcess:
    """One command at a time. lasting: it goes on when the window closes, as a training does.

    python: the Python that runs the commands, PythonSlicer by default. commands: its arguments before those of a command.
    """

    def __init__(self, lasting: bool = False, python: str | None = None, commands: Sequence[str] = COMMANDS) -> None:
        self._lasting = lasting
        self._python = python
        self._commands = commands
        self._process: Any = None
        self._output = Path()
        self._read = 0
        self._half = b""
        self._started = 0.0
        self._cancelAsked: float | None = None
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._poll)

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the start; 0 when nothing runs."""
        return time.monotonic() - self._started if self.running else 0.0

    def start(self, arguments: Sequence[str], output: Path, onLine: Callable[[str], None], onDone: Callable[[], None],
              onFailed: Callable[[str, str], None], onCancelled: Callable[[], None] = lambda: None) -> None:
        """Start a command; returns at once. output: file for what it says, made anew in a folder that is there.

        onLine(line) for each line; then exactly one of onDone(), onFailed(sentence, text of the output) and onCancelled().
        Raises RuntimeError when a command is running or PythonSlicer is not there, OSError when it cannot be started.
        """
        if self.running:
            raise RuntimeError(_("Another command is still running; wait for it or cancel it."))
        python = self._python or pythonSlicer()
        if python is None:
            raise RuntimeError(_("PythonSlicer was not found: this Slicer is incomplete. Install it again."))
        with output.open("wb") as file:
            self._process = startProcess([python, *self._commands, *arguments], [TRAINER_FOLDER], file)
        self._callbacks = onLine, onDone, onFailed, onCancelled
        self._output, self._read, self._half, self._cancelAsked = output, 0, b"", None
        self._started = time.monotonic()
        self._timer.start()

    def cancel(self) -> None:
        """Ask the command, if there is one, to end; it is killed when it does not."""
        if self.running and self._cancelAsked is None:
            self._cancelAsked = time.monotonic()
            endTree(self._process, force=False)

    def close(self) -> None:
        """The window goes: no further callback; what is not lasting is ended."""
        self._timer.stop()
        process, self._process = self._process, None
        if process is not None and not self._lasting:
            endTree(process, force=True)
            process.wait()

    def _poll(self) -> None:
        status = self._process.poll()
        onLine, onDone, onFailed, onCancelled = self._callbacks
        for line in self._newLines():
            onLine(line)
        if status is None:
            if self._cancelAsked is not None and time.monotonic() - self._cancelAsked > KILL_SECONDS:
                endTree(self._process, force=True)
            return
        self._timer.stop()
        self._process = None
        if self._cancelAsked is not None:
            onCancelled()
        elif status == 0:
            onDone()
        else:
            text = outputOf(self._output)
            sentence = failureOf(status, text)
            logging.error("LowDoseBMD Trainer: %s", sentence)
            onFailed(sentence, text)

    def _newLines(self) -> list[str]:
        """What the command said since the last look, whole lines only."""
        try:
            with self._output.open("rb") as file:
                file.seek(self._read)
                said = file.read(READ_BYTES)
        except OSError:
            return []
        self._read += len(said)
        *lines, self._half = (self._half + said).split(b"\n")
        return [line.decode("utf-8", errors="replace").strip() for line in lines]


def outputOf(path: Path) -> str:
    """The end of what a command said; empty when its file is gone."""
    try:
        return path.read_bytes()[-LOG_BYTES:].decode("utf-8", errors="replace")
    except OSError:
        return ""


def failureOf(status: int, text: str) -> str:
    """Why a command failed: the sentence that it said itself, otherwise what its status tells and its last lines."""
    lines = text.strip().splitlines()
    said = [line.removeprefix(ERROR_BEGINS) for line in lines if line.startswith(ERROR_BEGINS)]
    if said:
        return said[-1]
    return unexpectedEnd(status, lines[-SHOWN_LINES:], _("command"), _("close other programs and volumes"))
