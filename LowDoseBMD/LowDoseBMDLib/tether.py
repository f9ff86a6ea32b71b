"""Run a module as the main program, tied to whoever started this process: ``python -m LowDoseBMDLib.tether MODULE ...``.

Standard input is the tie: it is never written to, and when it ends, because whoever holds the other end has ended, however
that came about, this process ends too. SIGTERM ends the module as an exception does, so that files written aside are
removed. Memory that runs out is told by the exit status, and everything printed is UTF-8.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

OUT_OF_MEMORY, STOPPED, UNTIED = 87, 88, 89
"""Exit status: no memory was left; SIGTERM asked for the end; whoever started it is gone."""


def main() -> None:
    """Run the module that the first argument names; the rest are its arguments."""
    threading.Thread(target=_end_when_untied, daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


def run_forked(streams: tuple[Connection, Connection, Connection], environment: Mapping[str, str],
               arguments: Sequence[str]) -> None:
    """main in a process that was forked from another (runner.py): in a session of its own, with these as standard input,
    output and error, and with the environment that a started process would have. arguments: the module's name, and its own.
    """
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")
    os.environ.update(environment)
    sys.argv = ["", *arguments]
    main()


def _end_when_untied() -> None:
    while os.read(0, 1):
        pass
    os._exit(UNTIED)


def _stop(_number: int, _frame: object) -> None:
    """Once: a second signal must not interrupt the clearing away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()
