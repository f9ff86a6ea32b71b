"""The panel as a reader uses it: the real .ui, the real scene, a worker process that hands over prepared regions."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer_adapter")
import slicer
import small_torso as torso
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.calibration import TwoPointCalibration, save_calibration
from LowDoseBMDLib.exchange import Proposal, write_ct, write_proposal
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.rois import Rois
from reader import Reader, torso_ct, torso_rois

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="the tests' PythonSlicer is a shell script"),
              pytest.mark.filterwarnings("ignore:.*setTextAlignment:DeprecationWarning")]

HERE = Path(__file__).parent
USE, VBMD, STATE = 1, 2, 6
OK, YES, NO = 0x400, 0x4000, 0x10000
"""Of QMessageBox."""


@pytest.fixture
def offer_worker(a_slicer, tmp_path: Path, monkeypatch):
    """Makes PythonSlicer run a script with arguments of its own before those of the panel."""
    def offer(script: str, *arguments: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        launcher = folder / "PythonSlicer"
        given = " ".join(f'"{each}"' for each in (sys.executable, HERE / script, *arguments))
        launcher.write_text(f'#!/bin/sh\nexec {given} "$@"\n', encoding="utf-8")
        launcher.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return offer


@pytest.fixture
def offer_regions(offer_worker, tmp_path: Path):
    def offer(rois: Rois) -> None:
        path = tmp_path / "regions.npz"
        write_proposal(path, Proposal(rois, {"engine": "none"}, {"bones": 1.0}))
        offer_worker("proposing_worker.py", str(path))
    return offer


@pytest.fixture
def offer_steps(offer_worker, tmp_path: Path):
    """A worker that says and does what it is told; see fake_worker.py."""
    def offer(*steps: list) -> None:
        path = tmp_path / "steps.json"
        path.write_text(json.dumps(steps), encoding="utf-8")
        # fake_worker.py takes the job as its second argument; the panel's stand before it.
        wrapper = tmp_path / "last_argument.py"
        wrapper.write_text("import runpy, sys\n"
                           f"sys.argv = [sys.argv[0], {str(path)!r}, sys.argv[-1]]\n"
                           f"runpy.run_path({str(HERE / 'fake_worker.py')!r}, run_name='__main__')\n", encoding="utf-8")
        offer_worker(str(wrapper))
    return offer


@pytest.fixture
def a_reader(a_slicer, offer_regions) -> Reader:
    """A person before the opened module; the worker finds every region of the torso."""
    offer_regions(torso_rois())
    return Reader(a_slicer, a_slicer.open("LowDoseBMD"))


# --- states ------------------------------------------------------------------------------------------------------

def test_without_a_ct_the_panel_says_what_to_load(a_reader: Reader) -> None:
    assert a_reader.state == "no_ct"
    assert not a_reader.ui.measureButton.enabled
    assert "Load a chest CT" in a_reader.card
    assert not a_reader.ui.levelsTable.visible


def test_one_click_gives_a_ct_to_try(a_reader: Reader) -> None:
    write_ct(Path(slicer.app.cachePath) / "LowDoseBMD-phantom-1", torso_ct())  # as if it had been made before
    a_reader.ui.cardLabel.linkActivated.emit("phantom:")
    a_reader.session.wait(10)
    assert a_reader.state == "ready" and a_reader.ui.measureButton.enabled
    assert "synthetic" in a_reader.ui.volumeSelector.currentNode().GetName()


def test_a_ct_shows_its_facts_and_what_speaks_against_it_before_the_run(a_reader: Reader) -> None:
    a_reader.load(torso_ct(kvp=100.0, kernel="LUNG", contrast_agent="Iohexol"))
    assert a_reader.state == "ready" and a_reader.ui.measureButton.enabled
    assert "100 kV" in a_reader.ui.factsLabel.text and "LUNG" in a_reader.ui.factsLabel.text
    warning = a_reader.ui.warningLabel.text
    assert all(word in warning for word in ("Contrast", "Sharp kernel", "100 kV", "120 kV"))


def test_measure_shows_the_number_with_unit_interval_and_state(a_reader: Reader) -> None:
    a_reader.measured()
    expected = measure(torso_ct(), torso_rois(), TwoPointCalibration())
    assert f"<b>{expected.mean_vbmd_mg_cm3:.0f}</b>" in a_reader.card
    low, high = expected.mean_vbmd_ci95
    assert "mg/cm³" in a_reader.card and f"95 %: {low:.0f} to {high:.0f}" in a_reader.card
    assert "provisional" in a_reader.card and "not yet read" in a_reader.card
    assert a_reader.cell("L1", VBMD) == f"{expected.level('L1').vbmd_mg_cm3:.0f}"
    assert [a_reader.cell(name, STATE) for name in LEVELS] == ["complete", "in the mean", "in the mean"]


def test_progress_names_the_stage_and_one_button_cancels(a_reader: Reader, offer_steps) -> None:
    offer_steps(["say", json.dumps({"event": "progress", "stage": "finding the bones", "fraction": 0.4})], ["sleep", 60])
    a_reader.load()
    a_reader.ui.measureButton.click()
    a_reader.session.wait_until(lambda: "finding the bones" in a_reader.ui.progressLabel.text)
    assert a_reader.ui.measureButton.text == "Cancel" and a_reader.ui.progressBar.value == 400
    assert not a_reader.ui.volumeSelector.enabled
    a_reader.ui.measureButton.click()
    assert "stopping" in a_reader.ui.progressLabel.text
    a_reader.session.wait_until(lambda: a_reader.state == "ready", 5.0)
    assert "Cancelled" in a_reader.card and a_reader.ui.measureButton.text == "Measure"


def test_a_crash_shows_the_real_error_and_the_log(a_reader: Reader, offer_steps) -> None:
    offer_steps(["log", "Fatal Python error: Segmentation fault"], ["kill", 11])
    a_reader.load()
    a_reader.measure()
    assert a_reader.state == "ready"
    assert "SIGSEGV" in a_reader.card and "Show the log" in a_reader.card
    a_reader.session.answer(OK)
    a_reader.ui.cardLabel.linkActivated.emit("log:")
    assert "Fatal Python error" in a_reader.session.dialogs[-1].detailed_text


def test_a_volume_deleted_during_the_run_is_said_and_nothing_is_left(a_reader: Reader, offer_steps) -> None:
    offer_steps(["say", json.dumps({"event": "progress", "stage": "bones", "fraction": 0.1})], ["sleep", 60])
    node = a_reader.load()
    a_reader.ui.measureButton.click()
    a_reader.session.wait_until(lambda: a_reader.panel.session.progress[0] == "bones")
    slicer.mrmlScene.RemoveNode(node)
    a_reader.session.wait_until(lambda: not a_reader.panel.session.busy, 5.0)
    a_reader.session.wait(20)
    assert a_reader.state == "no_ct"
    assert "removed while it was measured" in a_reader.card
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_refusal_gives_reasons_no_number_and_a_way_to_draw(a_reader: Reader, offer_regions) -> None:
    ct = torso.ct()
    flag = Flag("no_spine", Severity.REFUSED, "No vertebrae <were> found.")
    offer_regions(Rois(ct.geometry, flags=(flag,)))
    a_reader.load()
    a_reader.measure()
    assert a_reader.state == "refused"
    assert "Not measured" in a_reader.card and "No vertebrae &lt;were&gt; found." in a_reader.card
    assert "<b>" not in a_reader.card, "no number"
    assert not a_reader.ui.acceptButton.enabled and a_reader.ui.rejectButton.enabled
    a_reader.ui.cardLabel.linkActivated.emit("draw:trabecular_L1")
    assert not a_reader.ui.correctButton.collapsed
    assert a_reader.ui.segmentEditor.currentSegmentID() == "trabecular_L1"


def test_what_a_reader_draws_overrides_a_refusal(a_reader: Reader, offer_regions) -> None:
    """Drawn regions are measured as they are, and the card says whose they are."""
    offer_regions(Rois(torso.geometry(), flags=(Flag("no_spine", Severity.CAUTION, "No vertebrae were found."),)))
    a_reader.load()
    a_reader.measure()
    masks = torso.masks()
    for name in ("trabecular_L1", "trabecular_L2", "psoas_left", "fat_anterior"):
        a_reader.paint(name, masks[name].box)
    assert a_reader.state == "edited"
    assert "mg/cm³" in a_reader.card and "no automatic value" in a_reader.card
    assert a_reader.cell("L1", STATE) == "in the mean, edited"


def test_regions_that_are_deleted_in_the_scene_leave_a_ct_that_can_be_measured(a_reader: Reader) -> None:
    a_reader.measured()
    slicer.mrmlScene.RemoveNode(a_reader.live.study.segmentation_node)
    a_reader.session.wait(20)
    assert a_reader.state == "ready" and a_reader.ui.measureButton.enabled
    a_reader.measure()
    assert a_reader.state == "measured"


def test_a_ct_that_is_none_is_refused_in_the_panel(a_reader: Reader) -> None:
    a_reader.load(torso.ct())  # without air: its values are clipped
    a_reader.measure()
    assert a_reader.state == "ready"
    assert "HU" in a_reader.card and "Export the original DICOM series" in a_reader.card


# --- correction --------------------------------------------------------------------------------------------------

def test_the_number_follows_the_brush_and_undo_puts_it_back(a_reader: Reader) -> None:
    a_reader.measured()
    before, card = a_reader.live.measurement.mean_vbmd_mg_cm3, a_reader.card
    box = a_reader.live.rois.masks["psoas_left"].box
    # 16 x 10 x 4 voxels of water beside 16 x 10 x 10 of muscle at 50 HU on this side, as many on the other.
    grown = (box[0], box[1], slice(box[2].stop, box[2].stop + 4))
    a_reader.paint("psoas_left", grown)
    muscle = 50.0 * 2 * 1600 / (2 * 1600 + 640)
    spine, fat = (130.0 + 126.0) / 2, -100.0
    expected = 50.0 + (spine - muscle) * (50.0 + 78.0) / (muscle - fat)
    now = a_reader.live.measurement.mean_vbmd_mg_cm3
    assert now == pytest.approx(expected, abs=1e-6) and now != pytest.approx(before)
    assert a_reader.state == "edited" and f"{now - before:+.0f} mg/cm³ from the automatic" in a_reader.card
    assert a_reader.ui.undoButton.enabled
    a_reader.ui.undoButton.click()
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == before and a_reader.card == card
    a_reader.ui.redoButton.click()
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == now


def test_levels_move_by_one_and_back(a_reader: Reader) -> None:
    a_reader.measured()
    assert not a_reader.ui.levelsRightButton.visible
    a_reader.ui.levelsUpButton.click()
    assert a_reader.live.rois.masks["body_L2"].start_kji[0] == torso.BODIES["L1"]
    a_reader.ui.levelsDownButton.click()
    assert a_reader.live.rois.masks["body_L1"].start_kji[0] == torso.BODIES["L1"]


def test_doubtful_names_can_be_confirmed(a_reader: Reader, offer_regions) -> None:
    flag = Flag("level_uncertain", Severity.LIMITED, "The names may be one off.")
    offer_regions(replace(torso_rois(), flags=(flag,)))
    a_reader.load()
    a_reader.measure()
    assert a_reader.ui.levelsRightButton.visible
    a_reader.ui.levelsRightButton.click()
    assert not a_reader.ui.levelsRightButton.visible
    assert not any(flag.code == "level_uncertain" for flag in a_reader.live.measurement.flags)


def test_a_level_is_left_out_with_a_reason_and_taken_in_again(a_reader: Reader) -> None:
    a_reader.measured()
    item = a_reader.ui.levelsTable.item(a_reader.row("L1"), USE)
    item.setCheckState(0)
    assert a_reader.ui.reasonFrame.visible and "L1" in a_reader.ui.reasonLabel.text
    assert a_reader.live.rois.excluded == {}, "nothing happens before the reason is given"
    a_reader.ui.reasonComboBox.setEditText("old fracture")
    a_reader.ui.reasonOkButton.click()
    assert a_reader.live.measurement.mean_of == ("L2",)
    assert a_reader.cell("L1", STATE) == "left out: old fracture"
    a_reader.ui.levelsTable.item(a_reader.row("L1"), USE).setCheckState(2)
    assert a_reader.live.measurement.mean_of == ("L1", "L2")


def test_a_reason_that_is_not_given_leaves_the_level_in(a_reader: Reader) -> None:
    a_reader.measured()
    a_reader.ui.levelsTable.item(a_reader.row("L1"), USE).setCheckState(0)
    a_reader.ui.reasonCancelButton.click()
    assert a_reader.ui.levelsTable.item(a_reader.row("L1"), USE).checkState() == 2
    assert not a_reader.ui.reasonFrame.visible


def test_a_row_takes_the_views_there_and_selects_its_segment(a_reader: Reader) -> None:
    a_reader.measured()
    a_reader.ui.levelsTable.cellClicked.emit(a_reader.row("T12"), 0)
    assert a_reader.ui.segmentEditor.currentSegmentID() == "trabecular_T12"
    left, posterior, superior = a_reader.live.measurement.level("T12").centre_lps_mm
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx(superior)
    matrix = red.GetSliceToRAS()
    assert (matrix.GetElement(0, 3), matrix.GetElement(1, 3)) == pytest.approx((-left, -posterior))


def test_the_editor_lets_regions_lie_inside_each_other(a_reader: Reader) -> None:
    a_reader.measured()
    node = a_reader.ui.segmentEditor.mrmlSegmentEditorNode()
    assert node.GetSingletonTag() == "LowDoseBMD"
    assert node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    assert a_reader.ui.segmentEditor.segmentationNode() is a_reader.live.study.segmentation_node


def test_a_click_places_the_centre_of_a_level(a_reader: Reader) -> None:
    a_reader.measured()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    a_reader.ui.keypointComboBox.currentIndex = LEVELS.index("L1")
    a_reader.ui.keypointButton.click()
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    placed = slicer.mrmlScene.GetNodeByID(selection.GetActivePlaceNodeID())
    x, y, z = a_reader.live.rois.masks["body_L1"].centroid_lps_mm(torso.geometry())
    placed.AddControlPoint(-(x + 2.0), -y, z)
    a_reader.session.wait(20)
    assert a_reader.live.rois.keypoint("L1").position_lps_mm == pytest.approx((x + 2.0, y, z))
    assert not a_reader.ui.keypointButton.checked
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_escape_ends_placing_without_a_point(a_reader: Reader) -> None:
    a_reader.measured()
    nodes, rois = slicer.mrmlScene.GetNumberOfNodes(), a_reader.live.rois
    a_reader.ui.keypointButton.click()
    a_reader.panel._onEscape()
    a_reader.session.wait(20)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and a_reader.live.rois is rois
    assert not a_reader.ui.keypointButton.checked


def test_leaving_place_mode_in_the_views_ends_placing_too(a_reader: Reader) -> None:
    """The pointer in a view makes a preview point, which is not one that was placed."""
    a_reader.measured()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    a_reader.ui.keypointButton.click()
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    preview = slicer.mrmlScene.GetNodeByID(selection.GetActivePlaceNodeID())
    preview.AddNControlPoints(1, "", [0.0, 0.0, 0.0])
    preview.SetNthControlPointPosition(0, 0.0, 0.0, 0.0, preview.PositionPreview)
    a_reader.session.wait(0)
    interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    a_reader.session.wait(20)
    assert not a_reader.ui.keypointButton.checked and slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_measuring_again_asks_before_edits_are_lost(a_reader: Reader) -> None:
    a_reader.measured()
    box = a_reader.live.rois.masks["psoas_left"].box
    a_reader.paint("psoas_left", (box[0], box[1], slice(box[2].stop, box[2].stop + 1)))
    a_reader.session.answer(NO)
    a_reader.ui.measureButton.click()
    assert a_reader.state == "edited" and "replaced" in a_reader.session.dialogs[-1].text
    a_reader.session.answer(YES)
    a_reader.measure()
    assert a_reader.state == "measured"


# --- signing -----------------------------------------------------------------------------------------------------

def sign(reader: Reader, name: str = "AB") -> None:
    reader.ui.readerLineEdit.text = name
    reader.ui.acceptButton.click()


def test_accept_needs_a_name_locks_and_reopen_needs_a_reason(a_reader: Reader) -> None:
    a_reader.measured()
    a_reader.ui.acceptButton.click()
    assert a_reader.state == "measured", "nobody has signed"
    a_reader.ui.commentLineEdit.text = "clear case"
    sign(a_reader)
    assert a_reader.state == "accepted"
    assert "Accepted" in a_reader.card and "AB" in a_reader.card and "clear case" in a_reader.card
    assert not a_reader.ui.measureButton.enabled and a_reader.ui.segmentEditor.readOnly
    before = a_reader.live.measurement.mean_vbmd_mg_cm3
    box = a_reader.live.rois.masks["psoas_left"].box
    a_reader.paint("psoas_left", (box[0], box[1], slice(box[2].stop, box[2].stop + 4)))
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == before and "locked" in a_reader.card
    a_reader.ui.reopenButton.click()
    assert a_reader.ui.reopenFrame.visible
    a_reader.ui.reopenOkButton.click()
    assert a_reader.state == "accepted", "a reason is needed"
    a_reader.ui.reopenLineEdit.text = "second look"
    a_reader.ui.reopenOkButton.click()
    assert a_reader.state == "measured"


def test_reject_needs_a_comment(a_reader: Reader) -> None:
    a_reader.measured()
    a_reader.ui.readerLineEdit.text = "AB"
    a_reader.ui.rejectButton.click()
    assert a_reader.state == "measured"
    a_reader.ui.commentLineEdit.text = "motion"
    a_reader.ui.rejectButton.click()
    assert a_reader.state == "rejected" and "do not report" in a_reader.card


def test_a_ct_that_changes_afterwards_makes_the_number_stale(a_reader: Reader) -> None:
    node = a_reader.measured()
    node.GetImageData().GetPointData().GetScalars().SetComponent(0, 0, 0.0)
    node.GetImageData().Modified()
    node.InvokeEvent(slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)
    a_reader.session.wait(20)
    assert a_reader.state == "stale" and "Out of date" in a_reader.card
    assert not a_reader.ui.acceptButton.enabled and not a_reader.ui.exportButton.enabled


# --- settings ----------------------------------------------------------------------------------------------------

def test_a_calibration_of_the_site_changes_number_and_class(a_reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "calibrations"
    folder.mkdir()
    site = TwoPointCalibration(name="Site A", muscle_mg_cm3=45.0, fat_mg_cm3=-70.0, status="site", cohort_size=80,
                               scanner="LightSpeed VCT", kvp=100.0, date="2026-01-02")
    save_calibration(site, folder / "site.json")
    (folder / "broken.json").write_text("{}", encoding="utf-8")
    a_reader.measured()
    a_reader.session.answer(str(folder))
    a_reader.ui.calibrationFolderButton.click()
    titles = [a_reader.ui.calibrationComboBox.itemText(n) for n in range(a_reader.ui.calibrationComboBox.count)]
    assert titles[0] == "Constants of the literature" and "Site A (site.json)" in titles
    a_reader.ui.calibrationComboBox.currentIndex = titles.index("Site A (site.json)")
    facts, told = a_reader.ui.calibrationFactsLabel.text, ("K2HPO4", "100 kV", "LightSpeed VCT", "80 people", "2026-01-02")
    assert all(part in facts for part in (*told, "This scan: 120 kV"))
    expected = measure(torso_ct(), torso_rois(), site).mean_vbmd_mg_cm3
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == pytest.approx(expected)
    a_reader.ui.calibrationComboBox.currentIndex = next(n for n, title in enumerate(titles) if "broken" in title)
    assert "schema_version" in a_reader.card and "Site A" in a_reader.ui.calibrationComboBox.currentText
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == pytest.approx(expected), "what cannot be read changes nothing"


def test_the_calibration_for_the_scanner_and_voltage_of_a_ct_is_taken_by_itself(a_reader: Reader, tmp_path: Path) -> None:
    def site(name: str, **changes: object) -> None:
        known = {"muscle_mg_cm3": 45.0, "fat_mg_cm3": -70.0, "status": "site", "cohort_size": 80,
                 "date": "2026-01-02", "scanner": "LightSpeed VCT"} | changes
        save_calibration(TwoPointCalibration(name=name, **known), tmp_path / f"{name}.json")

    site("A")
    site("A of 2024", date="2024-01-02")
    site("A at 100 kV", kvp=100.0)
    site("B", scanner="Brilliance 64")
    site("nobody's", status="uncalibrated")
    a_reader.load(torso_ct(scanner="GE LightSpeed VCT", kvp=120.0))
    assert a_reader.ui.calibrationComboBox.currentText == "Constants of the literature"
    a_reader.session.answer(str(tmp_path))
    a_reader.ui.calibrationFolderButton.click()
    assert a_reader.ui.calibrationComboBox.currentText == "A (A.json)"
    assert "Taken for this scanner and tube voltage" in a_reader.ui.calibrationFactsLabel.text
    a_reader.load(torso_ct(scanner="Brilliance 64", kvp=120.0), "3: another scanner")
    assert a_reader.ui.calibrationComboBox.currentText == "B (B.json)"
    a_reader.load(torso_ct(scanner="Aquilion", kvp=120.0), "4: a scanner without a calibration")
    assert a_reader.ui.calibrationComboBox.currentText == "Constants of the literature"
    titles = [a_reader.ui.calibrationComboBox.itemText(n) for n in range(a_reader.ui.calibrationComboBox.count)]
    a_reader.ui.calibrationComboBox.currentIndex = titles.index("A (A.json)")
    a_reader.load(torso_ct(scanner=None, kvp=None), "5: nothing known")
    assert a_reader.ui.calibrationComboBox.currentText == "A (A.json)", "what a person chose stays"
    assert "Taken for" not in a_reader.ui.calibrationFactsLabel.text
    a_reader.measure()
    assert a_reader.live.measurement.calibration.name == "A"


def test_undo_takes_a_setting_back_in_the_panel_too(a_reader: Reader) -> None:
    a_reader.measured()
    before = a_reader.live.measurement.mean_vbmd_mg_cm3
    a_reader.ui.erosionComboBox.currentIndex = 1
    assert a_reader.live.rois.erosion == "paper"
    a_reader.panel.corrector.undo()
    assert a_reader.live.rois.erosion == "physical" and a_reader.ui.erosionComboBox.currentIndex == 0
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == before


def test_a_look_at_another_study_does_not_change_how_it_was_measured(a_reader: Reader) -> None:
    first = a_reader.measured()
    a_reader.load(name="3: other")
    a_reader.measure()
    a_reader.ui.erosionComboBox.currentIndex = 1
    a_reader.ui.volumeSelector.setCurrentNode(first)
    a_reader.session.wait(20)
    assert a_reader.live.rois.erosion == "physical" and a_reader.state == "measured"
    assert a_reader.ui.erosionComboBox.currentIndex == 0


def test_window_fill_and_opacity_reach_the_views(a_reader: Reader) -> None:
    node = a_reader.measured()
    display = a_reader.live.study.segmentation_node.GetDisplayNode()
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (1800.0, 400.0)
    a_reader.panel._onNextWindow()
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (400.0, 40.0)
    a_reader.ui.filledCheckBox.click()
    assert not display.GetVisibility2DFill()
    a_reader.ui.opacitySlider.value = 0.6
    assert display.GetSegmentOpacity2DFill("trabecular_L1") == pytest.approx(0.6)


# --- export, scene, module ---------------------------------------------------------------------------------------

def test_export_writes_the_present_state_to_a_folder_of_its_own(a_reader: Reader, tmp_path: Path) -> None:
    out = tmp_path / "Ergebnisse ü"
    out.mkdir()
    a_reader.measured()
    sign(a_reader)
    a_reader.session.answer(str(out))
    a_reader.ui.exportComboBox.currentIndex = 1
    a_reader.ui.exportButton.click()
    a_reader.session.wait_until(lambda: a_reader.panel.session.exported or a_reader.panel.session.message, 60.0)
    assert a_reader.panel.session.message == ""
    folder, = out.iterdir()
    record = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    assert record["mean_vbmd_mg_cm3"] == round(a_reader.live.measurement.mean_vbmd_mg_cm3, 1)
    assert record["review"]["reader"] == "AB"
    assert folder.name in a_reader.ui.exportLabel.text


def test_a_report_on_paper_is_a_pdf_and_nothing_else_is_left(a_reader: Reader, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    a_reader.measured()
    a_reader.session.answer(str(out))
    a_reader.ui.exportComboBox.setCurrentText("Report on paper (PDF)")
    a_reader.ui.exportButton.click()
    a_reader.session.wait_until(lambda: a_reader.panel.session.exported or a_reader.panel.session.message, 60.0)
    folder, = out.iterdir()
    assert [path.name for path in folder.iterdir()] == ["report.pdf"]
    content = (folder / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")


def test_another_ct_and_back_keeps_edits_and_signature(a_reader: Reader) -> None:
    first = a_reader.measured()
    a_reader.panel.session.live.set_used("L1", False, "fracture")
    a_reader.ui.commentLineEdit.text = "old fracture of L1"
    sign(a_reader)
    a_reader.load(name="3: other")
    assert a_reader.state == "ready" and a_reader.ui.commentLineEdit.text == ""
    a_reader.ui.volumeSelector.setCurrentNode(first)
    a_reader.session.wait(10)
    assert a_reader.state == "accepted" and a_reader.live.rois.excluded == {"L1": "fracture"}
    assert a_reader.ui.commentLineEdit.text == "old fracture of L1"


def test_flags_are_sentences_with_a_way_to_look_and_minor_ones_fold(a_reader: Reader, offer_regions) -> None:
    place = (1.0, 30.0, -350.0)
    flags = (Flag("here", Severity.LIMITED, "Look here.", "L1", place), Flag("far", Severity.INFO, "Worth knowing."))
    offer_regions(replace(torso_rois(), flags=flags))
    a_reader.load()
    a_reader.measure()
    rows = a_reader.ui.flagsWidget.findChildren("QLabel")
    assert "Look here." in rows[0].text, "the gravest comes first"
    minor = next(row for row in rows if "Worth knowing." in row.text)
    assert not minor.visible
    a_reader.ui.moreFlagsButton.click()
    assert minor.visible
    a_reader.ui.flagsWidget.findChildren("QToolButton")[0].click()
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx(place[2])


def test_a_stored_scene_is_taken_up_where_it_was_left(a_reader: Reader, tmp_path: Path) -> None:
    a_reader.measured()
    box = a_reader.live.rois.masks["psoas_left"].box
    a_reader.paint("psoas_left", (box[0], box[1], slice(box[2].stop, box[2].stop + 2)))
    value = a_reader.live.measurement.mean_vbmd_mg_cm3
    a_reader.ui.opacitySlider.value = 0.5
    a_reader.reopen_scene(tmp_path)
    assert a_reader.state == "edited"
    assert a_reader.live.measurement.mean_vbmd_mg_cm3 == value
    assert a_reader.ui.opacitySlider.value == 0.5


def observers(subject: Any) -> int:
    """How many observers a VTK object has."""
    return sum(1 for tag in range(20_000) if subject.GetCommand(tag) is not None)


def test_scene_close_leaves_no_node_and_no_observer(a_reader: Reader) -> None:
    a_reader.session.close_scene()
    a_reader.session.wait(20)
    nodes, watching = slicer.mrmlScene.GetNumberOfNodes(), observers(slicer.mrmlScene)
    node = a_reader.measured()
    study = a_reader.live.study
    subjects = [node, study.segmentation_node.GetSegmentation(), study.keypoints_node]
    assert all(observers(subject) for subject in subjects)
    a_reader.session.close_scene()
    a_reader.session.wait(50)
    assert a_reader.state == "no_ct" and a_reader.panel.session.live is None
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert observers(slicer.mrmlScene) == watching
    a_reader.measured()


def test_closing_the_scene_during_a_run_stops_it(a_reader: Reader, offer_steps) -> None:
    offer_steps(["say", json.dumps({"event": "progress", "stage": "bones", "fraction": 0.1})], ["sleep", 60])
    a_reader.load()
    a_reader.ui.measureButton.click()
    a_reader.session.wait_until(lambda: a_reader.panel.session.progress[0] == "bones")
    a_reader.session.close_scene()
    a_reader.session.wait_until(lambda: not a_reader.panel.session.busy, 5.0)
    a_reader.session.wait(20)
    assert a_reader.state == "no_ct" and "Cancelled" not in a_reader.card


def test_leaving_the_module_takes_the_keys_away_and_unloading_everything(a_slicer, offer_regions) -> None:
    from PySide6 import QtGui

    offer_regions(torso_rois())
    watching = observers(slicer.mrmlScene)
    reader = Reader(a_slicer, a_slicer.open("LowDoseBMD"))
    reader.measured()
    live = reader.live
    assert len(a_slicer.window.findChildren(QtGui.QShortcut)) >= len(LEVELS) + 8
    a_slicer.leave()
    a_slicer.wait(20)
    assert len(a_slicer.window.findChildren(QtGui.QShortcut)) == 0
    a_slicer.modules.unload(a_slicer.app.moduleManager())
    a_slicer.wait(50)
    assert observers(slicer.mrmlScene) == watching
    measured = live.measurement
    reader.paint("psoas_left", tuple(slice(each.start, each.stop + 1) for each in live.rois.masks["psoas_left"].box), live)
    assert live.measurement is measured, "nobody watches any more"


def test_missing_packages_are_said_before_anything_runs(a_reader: Reader, monkeypatch) -> None:
    from LowDoseBMDQt import dependencies

    lacking = [dependencies.Requirement("onnxruntime", "onnxruntime>=1.20", "runs the networks", 18.0)]
    monkeypatch.setattr(dependencies, "missing", lambda _path: lacking)
    a_reader.load()
    a_reader.ui.measureButton.click()
    assert a_reader.state == "ready"
    assert a_reader.ui.packagesFrame.visible
    assert "onnxruntime" in a_reader.ui.packagesLabel.text and "18 MB" in a_reader.ui.packagesLabel.text
    assert not a_reader.session.dialogs


def test_a_broken_installation_says_what_to_do(a_slicer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "LowDoseBMDQt.panel", None)
    widget = a_slicer.open("LowDoseBMD")
    assert widget.panel is None
    a_slicer.leave()


@pytest.mark.slow
def test_the_module_s_own_test_passes(a_slicer) -> None:
    """A phantom made, measured by the real worker, and read as by the command line's stages."""
    a_slicer.load("LowDoseBMD").LowDoseBMDTest().runTest()
