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


STUDIES = ["a.csv", "-o", "out dir", "--erosion", "paper"]


@pytest.mark.parametrize("left_by_slicer", [
    [], ["--ignore-slicerrc"], ["--ignore-slicerrc", "--testing", "--no-splash"], ["--attach-process"],
    ["--additional-module-paths", "LowDoseBMD"], ["--additional-module-path=LowDoseBMD", "-platform", "offscreen"]])
def test_slicers_own_options_in_front_are_dropped(batch, left_by_slicer: list[str]) -> None:
    """As Slicer 5.13 hands them to a script; with ``-- a.csv -o "out dir"`` it leaves --ignore-slicerrc, not the ``--``."""
    assert batch.own_arguments([*left_by_slicer, "batch", *STUDIES]) == ["batch", *STUDIES]
    assert batch.own_arguments([*left_by_slicer, *STUDIES]) == ["batch", *STUDIES], "batch is implied"
    assert batch.own_arguments([*left_by_slicer, "-o", "out dir", "a.csv"]) == ["batch", "-o", "out dir", "a.csv"]
    assert batch.own_arguments([*left_by_slicer, "--help"]) == ["--help"]
    for command in ("measure", "demo"):
        assert batch.own_arguments([*left_by_slicer, command, "x"]) == [command, "x"]


@pytest.mark.parametrize("arguments", [
    ["no-such-command"], ["measure"], [], ["measrue", "ct", "-o", "out"], ["no-such-folder", "-o", "out"]])
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


def test_help_ends_slicer_with_status_0(batch, exit_statuses, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["batch.py", "--ignore-slicerrc", "--help"])
    batch.run_in_slicer()
    assert exit_statuses == [0] and "batch" in capsys.readouterr().out


def test_studies_alone_are_a_batch(batch, exit_statuses, monkeypatch, tmp_path: Path) -> None:
    """A study that cannot be measured: the batch ends with its summary and status 1."""
    (tmp_path / "Studien ü").mkdir()
    (tmp_path / "Studien ü" / "broken.nii.gz").write_bytes(b"no image")
    monkeypatch.setattr(sys, "argv", ["batch.py", "--ignore-slicerrc", str(tmp_path / "Studien ü"), "-o",
                                      str(tmp_path / "out dir")])
    batch.run_in_slicer()
    assert exit_statuses == [1]
    assert "refused" in (tmp_path / "out dir" / "summary.csv").read_text(encoding="utf-8")


def test_missing_packages_are_said_before_any_work(batch, exit_statuses, monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "requirements.txt").write_text("# why\nnumpy>=1\nno_such_package>=2\n")
    monkeypatch.setattr(batch, "requirements_file", lambda: tmp_path / "requirements.txt")
    monkeypatch.setattr(sys, "argv", ["batch.py", str(tmp_path), "-o", str(tmp_path / "out")])
    batch.run_in_slicer()
    assert exit_statuses == [2]
    said = capsys.readouterr().err
    assert "missing or damaged: no_such_package." in said and "PythonSlicer -m pip install" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("error", "status"), [
    (KeyboardInterrupt(), 1), (ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"), 2),
    (SystemExit(2), 2), (SystemExit("text"), 1), (SystemExit(None), 0)])
def test_every_end_has_its_status(batch, exit_statuses, monkeypatch, error: BaseException, status: int) -> None:
    from LowDoseBMDLib import cli

    def end(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "main", end)
    monkeypatch.setattr(sys, "argv", ["batch.py", "studies", "-o", "out"])
    batch.run_in_slicer()
    assert exit_statuses == [status]
