"""The program's start: the command line, and for one study a process that watches the one that measures.

Where memory runs out inside a native library, that may end the process by itself: an exception in a thread of its own aborts
it, OpenBLAS exits. So may the system when its memory is full. No code of the same process can then say a word; this does.
On Linux only: elsewhere libraries may not survive a fork. It takes some milliseconds, as nothing is loaded yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

WATCHED = ("measure", "demo")
"""Commands that run networks in their own process; those of a batch are watched by runner.py."""

FAILED = 1
"""As cli_output.SOME_FAILED, which would load numpy."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
ITK_THREADS = {"ITK_GLOBAL_DEFAULT_THREADER": "Pool"}
"""Where no thread can be started for want of memory, ITK's own choice may wait for ever for one; this one aborts."""


def main() -> int:
    """Run the command line that sys.argv holds; returns the exit status."""
    if sys.platform == "linux" and set(WATCHED) & set(sys.argv[1:2]) and threading.active_count() == 1:
        return _watched()
    return _run()


def _run() -> int:
    from .cli import main as run

    return run()


def _watched() -> int:
    """In the child: runs. In the parent: passes signals on, and tells an end that the child could not."""
    told, telling = os.pipe()
    parent, before = os.getpid(), signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.close(told)
        signal.signal(signal.SIGINT, before)
        _end_with(parent)
        os.environ.update(ITK_THREADS)
        try:
            status = _run()
        finally:  # of Python's own accord, whatever the status
            os.write(telling, b"\0")
        _end(status)
    os.close(telling)
    _pass_signals_to(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0 and os.read(told, 1):
        return code
    if -code in (signal.SIGINT, signal.SIGTERM):  # before the command line could say so
        sys.stderr.write("lowdosebmd: stopped\n")
        return FAILED
    how = f" ({signal.strsignal(-code)})" if code < 0 else ""
    sys.stderr.write(f"lowdosebmd: The measurement was cut off{how}, most likely because there is not enough memory for "
                     "this CT. Close other programs and volumes, or crop the CT to the spine from T10 to L3, and measure "
                     "again. If memory was left, please report this.\n")
    return FAILED


def _end(status: int) -> NoReturn:
    """Without Python's clearing away: a thread that study.py left within an import must not be met in it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _pass_signals_to(child: int) -> None:
    def tell(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, tell)


def _end_with(parent: int) -> None:
    """The child is asked to end when the parent is killed."""
    import ctypes

    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(FAILED)
