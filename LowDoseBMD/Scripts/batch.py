"""The command line inside Slicer, with no window.

::

    Slicer --no-main-window --python-script LowDoseBMD/Scripts/batch.py -- STUDIES -o OUT
    Slicer --no-main-window --python-script LowDoseBMD/Scripts/batch.py -- measure CT -o OUT

What follows ``--`` are the commands and options of ``lowdosebmd``, ``batch`` when none is named; the exit status is that
of ``lowdosebmd``: 0 all measured; 1 some study failed or was refused, or the run was stopped; 2 unusable arguments, or a
Python package is missing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

FAILED, UNUSABLE = 1, 2

IMPLIED = "batch"

SWITCHES = frozenset({
    "-", "--", "--testing", "--ignore-rest", "--ignore-slicerrc", "--attach-process", "--disable-settings",
    "--keep-temporary-settings", "--disable-message-handlers", "--disable-terminal-outputs", "--disable-tooltips",
    "--no-splash", "--no-main-window", "--show-python-console", "--show-python-interactor", "--qt-testing",
    "--exit-after-startup", "--disable-python", "--verbose-module-discovery", "--disable-modules",
    "--disable-builtin-modules", "--disable-cli-modules", "--disable-builtin-cli-modules", "--disable-loadable-modules",
    "--disable-builtin-loadable-modules", "--disable-scripted-loadable-modules",
    "--disable-builtin-scripted-loadable-modules"})
"""Slicer's own options that may be left in front of ours (qSlicerCoreCommandOptions, qSlicerCommandOptions)."""

WITH_VALUE = frozenset({"--python-script", "--python-code", "--additional-module-path", "--additional-module-paths",
                        "--modules-to-ignore", "-platform", "-style", "-display"})
"""The same, followed by a value; the last three are Qt's."""


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """Our arguments, with the command that is implied.

    Slicer takes the ``--`` away and leaves some of its own options in front of ours; they are dropped, also when their
    value is joined with ``=``.
    """
    own = list(arguments)
    while own and own[0].partition("=")[0] in SWITCHES | WITH_VALUE:
        del own[:2 if own[0] in WITH_VALUE else 1]
    if not own or own[0] in (*_commands(), "-h", "--help", "--version"):
        return own
    return [IMPLIED, *own]


def _commands() -> list[str]:
    from LowDoseBMDLib.cli import build_parser

    return [name for action in build_parser()._actions for name in (action.choices or ())]


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit status, whatever happens."""
    try:
        from LowDoseBMDLib.cli import main

        own = own_arguments(arguments)
        lacking = missing_packages() if {"-h", "--help", "--version"}.isdisjoint(own) else []
        if lacking:
            return _say_missing(lacking)
        return main(own)
    except SystemExit as stop:  # argparse: --help, unusable arguments
        return stop.code if isinstance(stop.code, int) else FAILED * (stop.code is not None)
    except KeyboardInterrupt:
        sys.stderr.write("lowdosebmd: stopped\n")
        return FAILED
    except ImportError as error:
        return _say_missing([error.name or str(error)])
    except Exception:
        logging.exception("LowDoseBMD stopped on an error")
        return FAILED


def missing_packages() -> list[str]:
    """Packages of requirements.txt that this Python lacks; said before the first study, not after the last."""
    import re
    from importlib.util import find_spec

    text = requirements_file().read_text(encoding="utf-8")
    names = [re.match(r"[\w.-]+", line).group() for line in text.splitlines() if line and not line.startswith(("#", "-"))]
    return [name for name in names if find_spec(name) is None]


def requirements_file() -> Path:
    return Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def _say_missing(names: Sequence[str]) -> int:
    sys.stderr.write(f"lowdosebmd: Python packages are missing or damaged: {', '.join(names)}. Press Measure once in "
                     "Slicer's module LowDoseBMD and allow their installation, or run: "
                     f'PythonSlicer -m pip install -r "{requirements_file()}"\n')
    return UNUSABLE


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
