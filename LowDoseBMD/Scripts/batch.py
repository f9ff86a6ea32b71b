"""The command line inside Slicer, with no window.

::

    Slicer --no-main-window --ignore-slicerrc --python-script LowDoseBMD/Scripts/batch.py -- batch STUDIES -o OUT

What follows ``--`` are the commands and options of ``lowdosebmd``; the exit status is that of ``lowdosebmd``.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

FAILED = 1


def own_arguments(arguments: Iterable[str]) -> list[str]:
    """The arguments from the first command on.

    Slicer takes the ``--`` away and leaves some of its own options (``--ignore-slicerrc``) in front of ours.
    """
    return list(itertools.dropwhile(lambda argument: argument.startswith("-"), arguments))


def run(arguments: Iterable[str]) -> int:
    """Run the command line; returns its exit status, whatever happens."""
    try:
        from LowDoseBMDLib.cli import main

        return main(own_arguments(arguments))
    except SystemExit as stop:  # argparse: --help, unusable arguments
        return stop.code if isinstance(stop.code, int) else FAILED * (stop.code is not None)
    except Exception:
        logging.exception("LowDoseBMD stopped on an error")
        return FAILED


def run_in_slicer() -> None:
    """Run and end Slicer: an error that gets past ``--python-script`` would leave it running for ever."""
    import slicer

    status = FAILED
    try:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        status = run(sys.argv[1:])
    finally:
        slicer.util.exit(status)


if __name__ == "__main__":
    run_in_slicer()
