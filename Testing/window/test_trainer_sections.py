"""The sections Train, Evaluate, Export and Agreement as a person uses them; the commands are stood in for."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slicer_adapter")
import slicer
import small_torso as torso
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.rois import Keypoint
from LowDoseBMDMRML.volumes import node_from_ct
from LowDoseBMDTrainerLib.cases import Labels, Status, open_for_writing, read_image
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from LowDoseBMDTrainerLib.training_log import BEST, DONE
from reader import torso_ct

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="the tests' PythonSlicer is a shell script"),
              pytest.mark.filterwarnings("ignore:.*setTextAlignment:DeprecationWarning")]

HERE = Path(__file__).parent
START = {"event": "start", "task": "bones", "steps": 200, "start_step": 0, "device": "cpu", "expected_seconds": 130.0,
         "expected_memory_gb": 1.7, "cases": {"training": ["0001"], "validation": ["0002"]}}
STEP = {"event": "step", "step": 50, "loss": 0.75, "seconds": 30.0, "left_seconds": 600.0, "learning_rate": 1e-3}
VALIDATION = {"event": "validation", "step": 50, "loss": 0.8, "score": 0.5, "dice": {"vertebrae": 0.625, "ribs": 0.375}}
END = {"event": "end", "reason": "finished", "step": 200}


@pytest.fixture
def a_project(tmp_path: Path) -> Project:
    """Two completed cases of one small torso, and one that was not begun."""
    project = create_project(tmp_path / "site ü")
    labels = Labels(torso.geometry(), {"vertebrae": torso.box((12, 20, 28), (30, 20, 24))},
                    (Keypoint("L1", (0.0, 40.0, -340.0)),))
    for number, status in enumerate((Status.COMPLETED, Status.COMPLETED, Status.NOT_STARTED)):
        path = tmp_path / f"{number}.nii.gz"
        ct = torso_ct()
        ct.hu[0, 5, 5] = number
        write_volume(path, ct.hu, ct.geometry)
        done = status is Status.COMPLETED
        project.add(path, arrival=Arrival(labels=labels if done else None, status=status, annotator="AB" if done else ""))
    return project


class Host:
    """What the panel is to its sections."""

    def __init__(self, project: Project) -> None:
        self.project, self.currentCase, self.annotator = project, None, "AB"
        self.said: list[str] = []
        self.opened: list[str] = []
        self.listeners: list[Any] = []
        self.say = self.said.append

    def openCase(self, case: Any) -> None:
        self.opened.append(case.name)

    def tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()


@pytest.fixture
def offer(a_slicer, tmp_path: Path, monkeypatch):
    """Makes PythonSlicer do the steps of fake_trainer.py; returns the arguments of the last command when called empty."""
    folder, script = tmp_path / "bin", tmp_path / "script.json"
    folder.mkdir()
    launcher = folder / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_trainer.py"}" "{script}" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def offer(**commands: list) -> list[str]:
        if commands:
            script.write_text(json.dumps(commands), encoding="utf-8")
            return []
        return json.loads((tmp_path / "arguments.json").read_text(encoding="utf-8"))
    return offer


@pytest.fixture
def section(a_slicer, a_project: Project, monkeypatch, tmp_path: Path):
    """Makes a section in a frame that is unfolded, with a host of its own."""
    import ctk
    import qt

    monkeypatch.setenv("LOWDOSEBMD_MODELS", str(tmp_path / "models"))
    made: list[Any] = []

    def make(module: str, name: str) -> SimpleNamespace:
        button = ctk.ctkCollapsibleButton()
        layout, frame = qt.QVBoxLayout(button), qt.QFrame()
        layout.addWidget(frame)
        host = Host(a_project)
        part = getattr(importlib.import_module(f"LowDoseBMDTrainerQt.{module}"), name)(frame, host)
        made.append(part)
        button.show()
        part.update()
        return SimpleNamespace(part=part, ui=part.ui, host=host, button=button, session=a_slicer, project=a_project,
                               until=lambda done, seconds=20.0: a_slicer.wait_until(done, seconds))
    yield make
    for part in made:
        part.close()


@pytest.fixture
def training(section):
    return section("train_section", "TrainSection")


def cells(table: Any, row: int) -> list[str]:
    return [table.item(row, column).text() for column in range(table.columnCount)]


def rows(table: Any) -> list[list[str]]:
    return [cells(table, row) for row in range(table.rowCount)]


# --- train -------------------------------------------------------------------------------------------------------

def test_what_there_is_to_learn_from_is_said_before_anything_starts(training) -> None:
    assert "2 completed cases" in training.ui.dataLabel.text and "Few cases" in training.ui.dataLabel.text
    assert "30 min" in training.ui.expectationLabel.text
    assert training.ui.startButton.enabled and training.ui.startButton.text == "Train"


def test_time_and_memory_are_measured_on_request(training, offer) -> None:
    offer(train=[["say", "9 steps"], ["say", "600 steps, about 2 min (0.20 s a step), 1.7 GB of memory"]])
    training.ui.expectationLabel.linkActivated.emit("expect:")
    assert "Timing" in training.ui.expectationLabel.text
    training.until(lambda: "1.7 GB" in training.ui.expectationLabel.text)
    assert "--expect" in offer()
    training.ui.minutesSpinBox.value = 7
    assert "7 min" in training.ui.expectationLabel.text, "what was measured for another setting is not shown"


def test_the_form_says_what_is_run(training, offer) -> None:
    offer(train=[["log", START], ["log", END]])
    ui = training.ui
    ui.taskComboBox.setCurrentIndex(2)
    ui.startComboBox.setCurrentIndex(1)
    ui.minutesSpinBox.value, ui.seedSpinBox.value, ui.foldsSpinBox.value = 3, 7, 4
    ui.foldComboBox.setCurrentIndex(2)
    ui.patchComboBox.setCurrentIndex(2)
    ui.syntheticCheckBox.checked = False
    ui.nameLineEdit.text = "first / try"
    ui.startButton.click()
    training.until(lambda: not training.part.process.running)
    run = training.project.runs_folder / "first-try"
    assert offer() == ["train", str(training.project.folder), "--task", "keypoints", "--out", str(run), "--start", "none",
                       "--minutes", "3", "--folds", "4", "--fold", "2", "--seed", "7", "--device", "auto", "--patch",
                       "64", "--use", "annotated"]
    assert (run / "output.txt").exists() and json.loads((run / "command.json").read_text()) == offer()


def test_a_run_is_followed_drawn_and_ended_with_the_best_kept(training, offer) -> None:
    offer(train=[["log", START], ["log", STEP], ["log", VALIDATION], ["wait stop"],
                 ["log", {"event": "end", "reason": "cancelled", "step": 51}]])
    training.ui.nameLineEdit.text = "one"
    training.ui.startButton.click()
    training.until(lambda: "step 50 of 200" in training.ui.progressLabel.text)
    said = training.ui.progressLabel.text
    assert "10 min left" in said and "loss 0.750" in said and "best Dice 0.50 at step 50" in said
    assert training.ui.progressBar.value == 250 and training.ui.startButton.text == "Cancel, keep the best"
    assert rows(training.ui.runsTable) == [["one", "bones", "running", "50/200", "Dice 0.50"]]
    titles = {node.GetTitle() for node in slicer.util.getNodesByClass("vtkMRMLPlotChartNode")}
    assert titles == {"one: loss", "one: Dice by class"}
    training.ui.startButton.click()
    assert "stopping" in training.ui.progressLabel.text and not training.ui.startButton.enabled
    training.until(lambda: rows(training.ui.runsTable)[0][2] == "cancelled")
    training.until(lambda: training.ui.startButton.text == "Train")
    assert training.ui.messageLabel.text == "" and training.ui.continueButton.enabled


def test_a_training_goes_on_without_the_window_and_is_found_again(section, offer) -> None:
    offer(train=[["log", START], ["log", STEP], ["wait stop"], ["log", {"event": "end", "reason": "cancelled", "step": 60}]])
    first = section("train_section", "TrainSection")
    first.ui.nameLineEdit.text = "long"
    first.ui.startButton.click()
    first.until(lambda: "step 50" in first.ui.progressLabel.text)
    first.part.close()
    second = section("train_section", "TrainSection")
    assert rows(second.ui.runsTable)[0][2] == "running" and "step 50" in second.ui.progressLabel.text
    assert second.ui.startButton.text == "Cancel, keep the best"
    second.ui.startButton.click()
    second.until(lambda: rows(second.ui.runsTable)[0][2] == "cancelled")


def test_a_training_of_another_project_can_still_be_ended(training, offer) -> None:
    offer(train=[["log", START], ["log", STEP], ["wait stop"]])
    training.ui.startButton.click()
    training.until(lambda: "step 50" in training.ui.progressLabel.text)
    training.host.project = create_project(training.project.folder.with_name("other"))
    training.host.tell()
    assert training.ui.startButton.text == "Cancel, keep the best" and training.ui.runsTable.rowCount == 0
    training.ui.startButton.click()
    training.until(lambda: not training.part.process.running)


def test_an_interrupted_run_goes_on_with_the_command_that_began_it(training, offer) -> None:
    offer(train=[["log", START], ["log", STEP], ["exit", 137]])
    training.ui.nameLineEdit.text = "broken"
    training.ui.startButton.click()
    training.until(lambda: not training.part.process.running)
    training.until(lambda: rows(training.ui.runsTable)[0][2] == "interrupted")
    assert "memory ran out" in training.ui.messageLabel.text
    began = offer()
    training.ui.minutesSpinBox.value = 99
    offer(train=[["log", START | {"start_step": 50}], ["log", END]])
    training.ui.continueButton.click()
    training.until(lambda: rows(training.ui.runsTable)[0][2] == "finished")
    assert offer() == began and not training.ui.continueButton.enabled


def test_a_failed_run_says_why_and_shows_what_was_said(training, offer) -> None:
    offer(train=[["say", "Traceback"], ["log", {"event": "failed", "message": "the disk is full"}], ["exit", 1]])
    training.ui.startButton.click()
    training.until(lambda: "the disk is full" in training.ui.messageLabel.text)
    training.session.answer(0x400)
    training.ui.messageLabel.linkActivated.emit("log:")
    assert "Traceback" in training.session.dialogs[-1].detailed_text
    training.until(lambda: rows(training.ui.runsTable)[0][2] == "failed")


def test_without_a_completed_case_nothing_starts_and_the_reason_is_there(training) -> None:
    training.host.project = create_project(training.project.folder.with_name("empty"))
    training.host.tell()
    assert not training.ui.startButton.enabled and "Complete a case first" in training.ui.startButton.toolTip
    training.host.project = None
    training.host.tell()
    assert "Open a project" in training.ui.dataLabel.text and not training.part.widget.enabled


def test_a_trained_run_is_a_start_for_the_next_of_its_network(training) -> None:
    folder = training.project.runs_folder / "old"
    folder.mkdir(parents=True)
    for name in (BEST, DONE):
        (folder / name).write_text('{"reason": "finished"}')
    (folder / "log.jsonl").write_text(json.dumps(START) + "\n" + json.dumps(END) + "\n")
    training.host.tell()
    box = training.ui.startComboBox
    assert [box.itemText(n) for n in range(box.count)] == ["LowDoseBMD's own network", "nothing (random weights)", "run old"]
    training.ui.taskComboBox.setCurrentIndex(2)
    assert box.count == 2


# --- evaluate ----------------------------------------------------------------------------------------------------

def spread(median: float | None, worst: float | None = None) -> dict[str, float | None]:
    return {"median": median, "worst": median if worst is None else worst, "low": None, "high": None}


def a_record(**changes: Any) -> dict[str, Any]:
    """What ``evaluate`` writes, as far as the panel reads it."""
    group = {"name": "held out", "cases": 2, "patients": 2, "trabecular": [], "levels": None,
             "structures": [{"structure": "vertebrae", "cases": 2, "dice": spread(0.91, 0.72), "nsd": spread(0.85),
                             "hd95_mm": spread(None)}],
             "keypoints": [{"level": "L1", "cases": 2, "error_mm": spread(3.25), "identified": 2}]}
    return {"schema_version": 1, "title": "the run old", "task": "bones", "by_exposure": [group], "cases": [],
            "worst": [{"case": "0002", "subject": "vertebrae", "caption": "Dice 0.72."}],
            "left_out": [{"case": "0003", "why": "it is not completed"}]} | changes


@pytest.fixture
def a_run(a_project: Project) -> Path:
    """A finished run of the bones, 0002 held out."""
    folder = a_project.runs_folder / "old"
    folder.mkdir(parents=True)
    (folder / BEST).write_bytes(b"weights")
    lines = [START, VALIDATION, END]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def a_written_evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "evaluation.html").write_text("<html></html>")
    (folder / "scores.json").write_text(json.dumps(a_record()))
    return folder


def test_scores_are_shown_with_what_they_are_worth_and_the_worst_case_opens(section, a_run, offer,
                                                                           a_written_evaluation: Path) -> None:
    offer(evaluate=[["say", json.dumps({"progress": "case 0002, 1 of 1: bones", "fraction": 0.25})], ["sleep", 1.0],
                    ["copy", str(a_written_evaluation)], ["exit", 1]])
    page = section("evaluate_section", "EvaluateSection")
    assert page.ui.casesComboBox.currentText == "held out of the training (1)" and not page.ui.reportButton.enabled
    page.ui.evaluateButton.click()
    page.until(lambda: "1 of 1: bones" in page.ui.progressLabel.text)
    assert page.ui.progressBar.value == 250 and page.ui.evaluateButton.text == "Cancel"
    page.until(lambda: not page.part.process.running)
    assert offer() == ["evaluate", str(a_run), str(page.project.folder), "-o", str(a_run / "evaluation"), "--json",
                       "--cases", "0002"]
    assert rows(page.ui.scoresTable) == [["Vertebrae", "0.91", "0.72", "0.85", "-"]]
    assert page.ui.keypointsLabel.text == "L1: 3.2 mm off (median), identified in 2 of 2"
    assert "held out of the training" in page.ui.factsLabel.text and "0003: it is not completed" in page.ui.factsLabel.text
    assert page.ui.messageLabel.text == "", "some case failed, which the scores tell"
    assert rows(page.ui.worstTable) == [["0002", "Vertebrae: Dice 0.72."]]
    page.ui.worstTable.cellClicked.emit(0, 0)
    assert page.host.opened == ["0002"]
    assert page.ui.reportButton.enabled


def test_scores_on_cases_that_were_trained_on_are_called_that(section, a_run) -> None:
    folder = a_run / "evaluation"
    folder.mkdir()
    record = a_record()
    record["by_exposure"][0]["name"] = "trained on"
    (folder / "scores.json").write_text(json.dumps(record))
    page = section("evaluate_section", "EvaluateSection")
    assert "how well it remembers" in page.ui.factsLabel.text


def test_an_evaluation_that_fails_or_is_damaged_says_so(section, a_run, offer) -> None:
    offer(evaluate=[["say", "lowdosebmd-train: there is no case to score"], ["exit", 2]])
    page = section("evaluate_section", "EvaluateSection")
    page.ui.evaluateButton.click()
    page.until(lambda: "no case to score" in page.ui.messageLabel.text)
    assert page.ui.messageLabel.text.startswith("<span style='color:#a11622'>there is no case")
    (a_run / "evaluation").mkdir(exist_ok=True)
    (a_run / "evaluation" / "scores.json").write_text("{")
    page.host.tell()
    assert "is damaged" in page.ui.messageLabel.text


# --- export ------------------------------------------------------------------------------------------------------

@pytest.fixture
def a_written_bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "card.md").write_text("# Bones 0.2\n\nTrained on 1 case.\n")
    return folder


def test_an_exported_set_is_where_lowdosebmd_looks_and_its_card_is_shown(section, a_run, offer, tmp_path: Path,
                                                                        a_written_bundle: Path, monkeypatch) -> None:
    (tmp_path / "elsewhere" / "ward-3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")  # what lies where Slicer was started has no part in the name
    (a_run / "evaluation").mkdir()
    (a_run / "evaluation" / "scores.json").write_text("{}")
    place = tmp_path / "models" / "ward-3" / "bones"
    offer(export=[["copy", str(a_written_bundle), str(place)]])
    page = section("export_section", "ExportSection")
    assert page.ui.runComboBox.currentText == "old (bones, Dice 0.50)" and "gets the scores" in page.ui.factsLabel.text
    page.ui.setLineEdit.text, page.ui.versionLineEdit.text = "ward 3", "0.2"
    page.ui.exportButton.click()
    page.until(lambda: not page.part.process.running)
    assert offer() == ["export", str(a_run), "--version", "0.2", "--evaluation", str(a_run / "evaluation"), "--install",
                       "ward-3"]
    assert "<b>ward-3</b>" in page.ui.resultLabel.text and "Trained on 1 case" in page.ui.cardBrowser.toPlainText()
    assert "would be replaced" in page.ui.factsLabel.text
    page.session.answer(0x10000)
    page.ui.exportButton.click()
    assert not page.part.process.running, "declined"
    page.session.answer(0x4000)
    page.ui.exportButton.click()
    page.until(lambda: not page.part.process.running)
    assert offer()[-1] == "--replace"


def test_labels_of_the_current_case_go_out_for_itk_snap(section, a_run, offer, tmp_path: Path) -> None:
    offer(labels=[["say", "done"]])
    page = section("export_section", "ExportSection")
    assert not page.ui.itksnapButton.enabled
    page.host.currentCase = page.project.case("0001")
    page.host.tell()
    page.session.answer(str(tmp_path))
    page.ui.itksnapButton.click()
    page.until(lambda: not page.part.process.running)
    assert offer() == ["labels", str(page.project.folder), "0001", "--itksnap", str(tmp_path / "0001-itksnap")]
    assert "0001-itksnap" in page.ui.resultLabel.text


def test_without_a_run_nothing_is_exported(section) -> None:
    page = section("export_section", "ExportSection")
    assert not page.ui.exportButton.enabled and "Train a network first" in page.ui.factsLabel.text


# --- agreement ---------------------------------------------------------------------------------------------------

@pytest.fixture
def two_readings(a_project: Project) -> Any:
    """Case 0001, drawn by AB and, moved by two voxels, by CD, who set L1 3 mm lower."""
    case = a_project.case("0001")
    other = Labels(torso.geometry(), {"vertebrae": torso.box((14, 20, 28), (30, 20, 24))},
                   (Keypoint("L1", (0.0, 40.0, -343.0)),))
    with open_for_writing(case, "CD") as writing:
        writing.save_reading("CD", other)
    return a_project.case("0001")


def test_one_annotator_alone_is_no_agreement(section, a_project: Project) -> None:
    page = section("agreement_section", "AgreementSection")
    assert "Open a case" in page.ui.factsLabel.text
    page.host.currentCase = a_project.case("0001")
    page.host.tell()
    assert "drawn by AB only" in page.ui.factsLabel.text and not page.ui.compareButton.enabled


def test_a_second_reading_is_another_persons(section, a_project: Project) -> None:
    page = section("agreement_section", "AgreementSection")
    page.host.currentCase = a_project.case("0001")
    read: list[str] = []
    page.host.openReading = lambda case: read.append(case.name)
    page.host.tell()
    page.ui.secondReadingButton.click()
    assert read == [] and "AB drew the labels" in page.ui.messageLabel.text
    page.host.annotator = "CD"
    page.ui.secondReadingButton.click()
    assert read == ["0001"] and page.ui.messageLabel.text == ""


def test_two_readings_are_compared_shown_as_a_map_and_visited(section, two_readings, a_project: Project) -> None:
    page = section("agreement_section", "AgreementSection")
    page.host.volumeNode = node_from_ct(slicer.mrmlScene, read_image(two_readings), "0001")
    page.host.currentCase = two_readings
    page.host.tell()
    assert page.ui.compareButton.enabled and page.ui.scoresTable.rowCount == 0
    page.ui.compareButton.click()
    page.until(lambda: not page.part.process.running, 60.0)
    assert page.ui.messageLabel.text == ""
    # 30 slices each, 28 of them in common: 2 * 28 / 60
    title, dice, nsd, hd95, mean = cells(page.ui.scoresTable, 0)
    assert (title, dice) == ("Vertebrae", "0.93") and float(hd95) > float(mean) > 0 and 0 < float(nsd) <= 1
    assert page.ui.keypointsLabel.text == "L1: 3.0 mm apart"
    page.ui.mapCheckBox.checked = True
    page.until(lambda: slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    node, = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["only AB", "only CD"]
    assert page.ui.spotsTable.rowCount > 0
    page.ui.spotsTable.cellClicked.emit(0, 0)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed").GetSliceToRAS().GetElement(2, 3)
    place = page.part.pair.places[0].position_lps_mm
    assert red == pytest.approx(place[2], abs=0.01)
    page.ui.mapCheckBox.checked = False
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
