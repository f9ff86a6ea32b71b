"""Which networks a run uses: the product's own, a set of the user's folder, or a folder that is chosen by hand."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer_adapter")
from LowDoseBMDLib import bundle
from LowDoseBMDLib.bundle import load_bundle, models_folder
from LowDoseBMDLib.exchange import Proposal, write_proposal
from reader import Reader, torso_rois

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tests' PythonSlicer is a shell script")

HERE = Path(__file__).parent


@pytest.fixture
def a_models_folder(tmp_path: Path, monkeypatch) -> Path:
    """The user's models: a set "ward" with bones alone, and "broken" without its weights."""
    home = tmp_path / "models ü"
    for name in ("ward", "broken"):
        shutil.copytree(models_folder() / "bones", home / name / "bones")
    (home / "broken" / "bones" / "model.onnx").unlink()
    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(home))
    return home


@pytest.fixture
def a_reader(a_slicer, a_models_folder: Path, tmp_path: Path, monkeypatch) -> Reader:
    """A person before the opened module. The worker keeps its job in ``job.json`` and finds every region of the torso."""
    write_proposal(tmp_path / "regions.npz", Proposal(torso_rois(), {"engine": "none", "bones": "bones 0.1 (0123456789ab)"}))
    folder = tmp_path / "bin"
    folder.mkdir()
    launcher = folder / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\nfor last; do :; done\ncp "$last" "{tmp_path}/job.json"\n'
                        f'exec "{sys.executable}" "{HERE}/proposing_worker.py" "{tmp_path}/regions.npz" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Reader(a_slicer, a_slicer.open("LowDoseBMD"))


def listed(reader: Reader) -> list[str]:
    box = reader.ui.modelsComboBox
    return [box.itemText(n) for n in range(box.count)]


def job_of(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))


def test_the_product_and_the_sets_of_the_user_are_listed_with_what_they_hold(a_reader: Reader) -> None:
    assert listed(a_reader) == ["LowDoseBMD's own", "broken (cannot be used)", "ward (bones)"]
    assert a_reader.ui.modelsFactsLabel.text.startswith(load_bundle(models_folder() / "bones").identity)
    a_reader.ui.modelsComboBox.setCurrentIndex(2)
    facts = a_reader.ui.modelsFactsLabel.text
    assert "From LowDoseBMD itself: vertebral bodies, levels." in facts and "with other networks" not in facts


def test_a_run_uses_the_chosen_set_and_the_panel_says_when_a_number_is_of_others(a_reader: Reader, tmp_path: Path,
                                                                                a_models_folder: Path) -> None:
    a_reader.measured()
    assert job_of(tmp_path)["models"] is None
    a_reader.ui.modelsComboBox.setCurrentIndex(2)
    assert "Measure again" in a_reader.ui.modelsFactsLabel.text
    a_reader.measure()
    assert job_of(tmp_path)["models"] == str(a_models_folder / "ward")


def test_a_set_that_cannot_be_used_says_why_and_is_not_run(a_reader: Reader) -> None:
    a_reader.load()
    a_reader.ui.modelsComboBox.setCurrentIndex(1)
    assert "model.onnx" in a_reader.ui.modelsFactsLabel.text
    assert not a_reader.ui.measureButton.enabled and "model.onnx" in a_reader.ui.measureButton.toolTip
    a_reader.ui.modelsComboBox.setCurrentIndex(0)
    assert a_reader.ui.measureButton.enabled


def test_a_set_that_was_exported_meanwhile_is_listed_when_the_module_is_entered(a_reader: Reader,
                                                                                a_models_folder: Path, monkeypatch) -> None:
    shutil.copytree(models_folder() / "keypoints", a_models_folder / "new" / "keypoints")
    read: list[Path] = []
    monkeypatch.setattr(bundle, "file_sha256", read.append)
    a_reader.session.leave()
    a_reader.session.open("LowDoseBMD")
    assert "new (levels)" in listed(a_reader)
    assert read == [], "reading every file of every set would block the window"


def test_a_folder_elsewhere_is_chosen_and_remembered_with_the_scene(a_reader: Reader, tmp_path: Path) -> None:
    elsewhere = tmp_path / "stick" / "second"
    shutil.copytree(models_folder() / "bones", elsewhere / "bones")
    a_reader.load()
    a_reader.session.answer(str(elsewhere))
    a_reader.ui.modelsFolderButton.click()
    assert a_reader.ui.modelsComboBox.currentText == "second (bones)"
    a_reader.reopen_scene(tmp_path)
    assert a_reader.ui.modelsComboBox.currentText == "second (bones)"
    assert a_reader.panel.parameterNode.modelsPath == str(elsewhere)
    shutil.rmtree(elsewhere)
    a_reader.session.leave()
    a_reader.session.open("LowDoseBMD")
    assert a_reader.ui.modelsComboBox.currentText == "second (cannot be used)"
