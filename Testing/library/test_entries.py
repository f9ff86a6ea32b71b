"""The two ways into the command line besides the installed script: ``python -m`` and Slicer without a window."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import LowDoseBMDLib
import pytest

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"


@pytest.fixture
def batch():
    spec = importlib.util.spec_from_file_location("slicer_batch", MODULE / "Scripts" / "batch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def exit_statuses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for Slicer: only ``slicer.util.exit``, which keeps the statuses it was given."""
    statuses: list[int] = []
    fake = types.SimpleNamespace(util=types.SimpleNamespace(exit=statuses.append))
    monkeypatch.setitem(sys.modules, "slicer", fake)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return statuses


def python_m(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(MODULE)}
    return subprocess.run([sys.executable, "-m", "LowDoseBMDLib", *arguments], env=environment, capture_output=True,
                          text=True, check=False)


def test_python_m_gives_the_version() -> None:
    done = python_m("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"lowdosebmd {LowDoseBMDLib.__version__}")


def test_python_m_says_unusable_arguments_with_status_2() -> None:
    assert python_m("no-such-command").returncode == 2


def test_slicers_own_options_in_front_are_dropped(batch) -> None:
    """The arguments as Slicer 5.13 hands them to a script started with ``-- batch a.csv -o "out dir"``."""
    left_by_slicer = ["--ignore-slicerrc", "batch", "a.csv", "-o", "out dir", "--erosion", "paper"]
    assert batch.own_arguments(left_by_slicer) == ["batch", "a.csv", "-o", "out dir", "--erosion", "paper"]


@pytest.mark.parametrize("arguments", [["no-such-command"], ["measure"], []])
def test_slicer_ends_with_the_status_of_unusable_arguments(batch, exit_statuses, monkeypatch, arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["batch.py", "--ignore-slicerrc", *arguments])
    batch.run_in_slicer()
    assert exit_statuses == [2]


def test_slicer_ends_with_status_1_when_a_study_is_refused(batch, exit_statuses, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["batch.py", "measure", str(tmp_path / "empty"), "-o", str(tmp_path / "out")])
    batch.run_in_slicer()
    assert exit_statuses == [1]
    assert '"refused"' in (tmp_path / "out" / "measurement.json").read_text(encoding="utf-8")


def test_slicer_ends_on_an_error_that_nobody_expected(batch, exit_statuses, monkeypatch) -> None:
    from LowDoseBMDLib import cli

    def fail(_arguments: list[str]) -> int:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(sys, "argv", ["batch.py", "measure"])
    batch.run_in_slicer()
    assert exit_statuses == [1]
