"""The program's start: whatever ends the process that measures, a sentence and a status are given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there a process is watched by a forked one")

ENDS = """
import os, signal, sys, threading, time, types
import LowDoseBMDLib
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background of a shell
stand_in = types.ModuleType("LowDoseBMDLib.cli")
def main():
    print("begun", os.getpid(), flush=True)
    return {what}
stand_in.main = main
sys.modules["LowDoseBMDLib.cli"] = stand_in
from LowDoseBMDLib.watched import main
sys.argv = ["lowdosebmd", "{command}"]
sys.exit(main())
"""
"""A program whose command ends in its own way. Its second process takes its end from the first."""

LIBRARY_ABORTS = """
import os, sys
import LowDoseBMDLib.study
LowDoseBMDLib.study.measure_study = lambda *given, **named: os.abort()
sys.argv = ["lowdosebmd", "measure", "ct.nii", "-o", sys.argv[1]]
from LowDoseBMDLib.watched import main
sys.exit(main())
"""


def start(what: str, command: str = "measure") -> subprocess.Popen[str]:
    return _started(ENDS.format(what=what, command=command))


def _started(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": str(MODULE)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("command", ["measure", "demo"])
@pytest.mark.parametrize(("what", "how"), [
    ("os.abort()", "(Aborted)"), ("os._exit(1)", "cut off, most"), ("os._exit(0)", "cut off, most"),
    ("os.kill(os.getpid(), 9)", "(Killed)"), ("os.kill(os.getpid(), 11)", "(Segmentation fault)")])
def test_an_end_that_python_cannot_see_is_told(command: str, what: str, how: str) -> None:
    process = start(what, command)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.startswith("lowdosebmd: ") and "not enough memory" in errors and how in errors


def test_a_library_that_aborts_a_measurement_is_told(tmp_path: Path) -> None:
    process = _started(LIBRARY_ABORTS, str(tmp_path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("lowdosebmd: ") and "not enough memory" in errors


@pytest.mark.parametrize(("what", "status"), [("0", 0), ("1", 1), ("sys.exit(2)", 2)])
def test_every_other_status_is_passed_on_without_a_word(what: str, status: int) -> None:
    process = start(what)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (status, "")


def test_a_thread_that_waits_for_ever_is_not_waited_for() -> None:
    """As one may that imports modules ahead, when Ctrl-C comes within an import."""
    process = start("threading.Thread(target=threading.Event().wait).start() or 1")
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (1, "")


def test_a_fault_of_the_program_stays_a_traceback() -> None:
    process = start("1 / 0")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and "ZeroDivisionError" in errors and "memory" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on(number: signal.Signals) -> None:
    process = start("time.sleep(600)")
    assert _begun(process) != process.pid
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)  # the output ends with the last of the two processes
    assert process.returncode == 1 and "lowdosebmd: stopped" in errors and "memory" not in errors


def test_what_measures_does_not_outlive_its_killed_parent() -> None:
    process = start("time.sleep(600)")
    _begun(process)
    process.kill()
    process.communicate(timeout=20)


def _begun(process: subprocess.Popen[str]) -> int:
    return int(process.stdout.readline().split()[1])
