"""One job at a time in a process of its own, while the window stays alive."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import Proposal
from LowDoseBMDLib.failures import explain
from LowDoseBMDLib.job import JOB_FILE, LOG_FILE, STOP_FILE, Job, write_job
from slicer.i18n import tr as _

from .processes import clearLeftOvers, endTree, makeJobFolder, pythonSlicer, removeFolder, startProcess

WORKER = ("-m", "LowDoseBMDLib.worker")

POLL_MS = 30
YIELD_SECONDS = 0.002
"""Slept at each look: while Slicer's event loop is idle it holds Python's lock, and our thread gets on only now."""

ASK_SECONDS, KILL_SECONDS, GIVE_UP_SECONDS = 0.6, 0.75, 0.9
"""After a cancel: the processes are asked to end, are killed, and are no longer waited for."""

CLOSE_SECONDS = 2.0
REPORTS_AT_ONCE = 500
KEPT_LINES = 200
SHOWN_LINES = 3
LOG_BYTES = 200_000


class BackgroundJob:
    """Runs jobs of LowDoseBMDLib.worker, one after the other.

    temporaryFolder: where the job's own folder is made; it is removed when the job has ended. python: the Python that runs
    the worker, PythonSlicer by default. worker: its arguments before the job's file.
    """

    def __init__(self, temporaryFolder: str, python: str | None = None, worker: Sequence[str] = WORKER) -> None:
        self._temporaryFolder = temporaryFolder
        self._python = python
        self._worker = worker
        self._run: _Run | None = None
        self._abandoned: list[_Run] = []
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self._poll)
        clearLeftOvers(temporaryFolder)

    @property
    def running(self) -> bool:
        return self._run is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the start; 0 when nothing runs."""
        return time.monotonic() - self._run.started if self._run else 0.0

    def start(self, job: Job, ct: CTVolume, onProgress: Callable[[str, float], None],
              onDone: Callable[[str, Path], None], onFailed: Callable[[str, str], None],
              onCancelled: Callable[[], None], proposal: Proposal | None = None) -> None:
        """Start a job on a CT. proposal: the regions of an export. Returns at once.

        onProgress(stage, fraction 0..1 of the whole job); then exactly one of onDone(status "measured" or "refused", the
        job's folder, which goes away when onDone returns), onFailed(message, text of the log) and onCancelled(), each in
        the main thread and never from within start. Raises RuntimeError when a job is running.
        """
        if self.running:
            raise RuntimeError(_("A measurement is already running."))
        self._run = _Run(job, ct, proposal, self._temporaryFolder, self._command())
        self._callbacks = onProgress, onDone, onFailed, onCancelled
        self._timer.start()

    def cancel(self) -> None:
        """Ask the job, if there is one, to stop; onCancelled comes within a second."""
        if self._run and self._run.cancelAsked is None:
            self._run.askToStop()

    def close(self) -> None:
        """End everything without a further callback: the window goes."""
        runs = [*self._abandoned, *filter(None, [self._run])]
        self._run, self._abandoned = None, []
        self._timer.stop()
        for run in runs:
            run.abandon()
        end = time.monotonic() + CLOSE_SECONDS
        for run in runs:
            run.thread.join(max(0.0, end - time.monotonic()))

    def _command(self) -> list[str]:
        python = self._python or pythonSlicer()
        return [python, *self._worker] if python else []

    def _poll(self) -> None:
        time.sleep(YIELD_SECONDS)
        self._abandoned = [run for run in self._abandoned if run.thread.is_alive()]
        run = self._run
        if run is None:
            if not self._abandoned:
                self._timer.stop()
            return
        onProgress, onDone, onFailed, onCancelled = self._callbacks
        progress = run.readReports()
        if run.cancelAsked is not None:
            if run.stopped():
                self._end(onCancelled)
        elif run.outcome:
            self._end({"done": onDone, "failed": onFailed}[run.outcome[0]], *run.outcome[1:])
        elif progress:
            onProgress(*progress)

    def _end(self, callback: Callable[..., None], *arguments: Any) -> None:
        run, self._run = self._run, None
        try:
            callback(*arguments)
        finally:
            run.abandon()
            self._abandoned.append(run)


class _Run:
    """One job from its start to its end.

    Its thread writes the CT, starts the process, reads what it says, and, once the run is abandoned, removes the folder:
    the disk may take half a second for that.
    """

    def __init__(self, job: Job, ct: CTVolume, proposal: Proposal | None, temporaryFolder: str,
                 command: Sequence[str]) -> None:
        self.started = time.monotonic()
        self.cancelAsked: float | None = None
        self.outcome: tuple[Any, ...] = ()
        self._ending: dict[str, Any] = {}
        self._otherLines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reports: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self._process: Any = None
        self._folder: Path | None = None
        self.thread = threading.Thread(target=self._work, args=(job, ct, proposal, temporaryFolder, command), daemon=True)
        self.thread.start()

    def _work(self, job: Job, ct: CTVolume, proposal: Proposal | None, temporaryFolder: str,
              command: Sequence[str]) -> None:
        try:
            self._prepare(job, ct, proposal, temporaryFolder)
            if not command:
                self._reports.put(("failed", _("PythonSlicer was not found: this Slicer is incomplete. Install it again.")))
            elif self._launch(command):
                for line in self._process.stdout:
                    self._reports.put(("line", line.decode("utf-8", errors="replace").strip()))
                self._reports.put(("ended", self._process.wait()))
        except Exception as error:  # whatever it is, the window must hear of it as a sentence
            self._reports.put(("failed", explain(error)))
        finally:
            self._abandoned.wait()
            if self._folder is not None:
                removeFolder(self._folder)

    def _prepare(self, job: Job, ct: CTVolume, proposal: Proposal | None, temporaryFolder: str) -> None:
        self._reports.put(("progress", (_("handing over the CT"), 0.0)))
        self._folder = makeJobFolder(temporaryFolder)
        write_job(self._folder, job, ct, proposal)

    def _launch(self, command: Sequence[str]) -> bool:
        """False when nobody wants the process any more."""
        with self._lock:
            if not self._abandoned.is_set():
                self._process = startProcess([*command, str(self._folder / JOB_FILE)])
            return self._process is not None

    def readReports(self) -> tuple[str, float] | None:
        """Take in what the thread has to say; returns the latest progress. ``outcome`` is set when the job has ended."""
        progress = None
        for _number in range(REPORTS_AT_ONCE):
            try:
                kind, content = self._reports.get_nowait()
            except queue.Empty:
                break
            if kind == "progress":
                progress = content
            elif kind == "line":
                progress = self._takeLine(content) or progress
            elif kind == "failed":
                self.outcome = ("failed", content, self._log())
            else:
                self.outcome = self._concluded(content)
        return progress

    def _takeLine(self, line: str) -> tuple[str, float] | None:
        event = jsonObject(line)
        if event.get("event") == "progress":
            return event["stage"], event["fraction"]
        if event.get("event") in ("done", "failed", "cancelled"):
            self._ending = event
        elif not event and line:
            self._otherLines.append(line)
        return None

    def _concluded(self, status: int) -> tuple[Any, ...]:
        if self._ending.get("event") == "done":
            return "done", self._ending["status"], self._folder
        if self._ending.get("event") == "failed":
            return "failed", self._ending["message"], self._log()
        log = self._log()
        return "failed", unexpectedEnd(status, log.strip().splitlines()[-SHOWN_LINES:]), log

    def _log(self) -> str:
        """What was printed before the worker diverted it, and the end of its log."""
        logged = ""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                logged = (self._folder / LOG_FILE).read_bytes()[-LOG_BYTES:].decode("utf-8", errors="replace")
        return "\n".join([*self._otherLines, logged])

    def askToStop(self) -> None:
        self.cancelAsked = time.monotonic()
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a full disk; killing comes next
                (self._folder / STOP_FILE).touch()

    def stopped(self) -> bool:
        """After askToStop: whether the job has stopped, or will without being waited for. Ends the tree in time."""
        seconds = time.monotonic() - self.cancelAsked
        if self.outcome or self._process is None:
            return True
        if seconds >= ASK_SECONDS:
            endTree(self._process, force=seconds >= KILL_SECONDS)
        return seconds >= GIVE_UP_SECONDS

    def abandon(self) -> None:
        """Nobody needs the job or its folder any more: kill what still runs, and let the thread clear away."""
        with self._lock:
            self._abandoned.set()
            if self._process is not None:
                endTree(self._process, force=True)


def jsonObject(line: str) -> dict[str, Any]:
    """The JSON object that a line of output holds, or an empty one."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def unexpectedEnd(status: int, lastLines: Sequence[str], what: str = "", lessMemory: str = "") -> str:
    """What to say of a process that ended without saying why. status: as of subprocess, or a shell's 128 + signal.

    what: what ended, a measurement by default; lessMemory: what to do when memory ran out.
    """
    what = what or _("measurement")
    lessMemory = lessMemory or _("close other programs and volumes, or crop the CT to the spine")
    number = -status if status < 0 else status - 128
    if number == getattr(signal, "SIGKILL", None):
        reason = _("The system stopped the {what}, most often because memory ran out: {way}.").format(
            what=what, way=lessMemory)
    elif status < 0 or number in signal.valid_signals():
        reason = _("The {what} crashed ({signal}).").format(what=what, signal=signal.Signals(number).name)
    else:
        reason = _("The {what} ended unexpectedly (status {status}).").format(what=what, status=status)
    return "\n".join([reason, *lastLines])
