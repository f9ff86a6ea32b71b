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
from LowDoseBMDTrainerLib.cases import Labels, Status
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
    ui.syntheticCheckBox.checked = False
    ui.nameLineEdit.text = "first / try"
    ui.startButton.click()
    training.until(lambda: not training.part.process.running)
    run = training.project.runs_folder / "first-try"
    assert offer() == ["train", str(training.project.folder), "--task", "keypoints", "--out", str(run), "--start", "none",
                       "--minutes", "3", "--folds", "4", "--fold", "2", "--seed", "7", "--device", "auto", "--use",
                       "annotated"]
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
