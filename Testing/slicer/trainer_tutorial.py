r"""The Trainer's tutorial, step by step, in a running Slicer with its real widgets and views::

    Slicer --no-splash --additional-module-paths LowDoseBMD --additional-module-paths LowDoseBMDTrainer \
        --python-script Testing/slicer/trainer_tutorial.py

It makes a project of three phantoms, two of them completed, and annotates the third: the models draw first, mouse events
correct, the case is checked and completed. Then it trains for LOWDOSEBMD_MINUTES (2) minutes, evaluates, exports, and
measures with the new set in LowDoseBMD; with 0 minutes it ends after the annotation. Pictures of the window go to the folder
named by LOWDOSEBMD_PICTURES, when it is set. Exit status 0: all steps passed; 1: one did not, its traceback is printed.
Needs torch and the packages of trainer_requirements.txt.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qt
import slicer
from tutorial import click, picture, run, until

MINUTES = int(os.environ.get("LOWDOSEBMD_MINUTES", "2"))
ANNOTATOR = "AB"
PHANTOM_SPACING_MM = (1.7, 1.7, 3.0)
SEEDS = (1, 2, 3)
"""Of the phantoms; the last one comes without labels."""


def the_panel() -> Any:
    return slicer.modules.LowDoseBMDTrainerWidget.panel


def section(name: str) -> Any:
    """A section of the panel by the name of its class, unfolded, the others folded."""
    panel = the_panel()
    found = next(each for each in panel.sections if type(each).__name__ == name)
    for each in panel.sections:
        each.fold.collapsed = each is not found
    return found


def look_at(widget: Any) -> None:
    """Scroll the panel until a widget is seen."""
    area = widget.parent()
    while area is not None and area.className() != "QScrollArea":
        area = area.parent()
    if area is not None:
        area.ensureWidgetVisible(widget)


def make_project(folder: Path) -> None:
    """Two phantoms, completed with their true labels, and one that nobody has drawn."""
    from LowDoseBMDLib.anatomy import BONES, LEVELS
    from LowDoseBMDLib.files.volumes import write_volume
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
    from LowDoseBMDLib.phantom.labels import CLASSES
    from LowDoseBMDLib.rois import Keypoint
    from LowDoseBMDTrainerLib.cases import Labels, Status
    from LowDoseBMDTrainerLib.project import Arrival, create_project

    project = create_project(folder / "site a")
    for seed in SEEDS:
        phantom = make_phantom(PhantomSpec(seed=seed, spacing_mm=PHANTOM_SPACING_MM))
        beginnings = dict(zip(BONES, ("vertebra_", "clavicle", "scapula", "rib"), strict=True))
        masks = {bone: phantom.mask(*(name for name in CLASSES if name.startswith(begins)))
                 for bone, begins in beginnings.items()}
        centres = phantom.truth.centres_lps_mm
        labels = Labels(phantom.ct.geometry, masks, tuple(Keypoint(level, centres[level]) for level in LEVELS))
        path = folder / f"phantom {seed}.nii.gz"
        write_volume(path, phantom.ct.hu, phantom.ct.geometry)
        drawn = Arrival(labels=labels, status=Status.COMPLETED, annotator=ANNOTATOR, synthetic=True)
        project.add(path, phantom.ct, arrival=Arrival(synthetic=True) if seed == SEEDS[-1] else drawn)


def open_project(folder: Path) -> Iterator[float]:
    panel = the_panel()
    panel.ui.annotatorLineEdit.text = ANNOTATOR
    panel.openProject(str(folder / "site a"))
    assert [case.name for case in panel.project.cases()] == ["0001", "0002", "0003"]
    panel.ui.nextButton.click()
    yield from until(lambda: panel.currentCase is not None)
    assert panel.currentCase.name == "0003", "the only case that is not completed"
    yield 1.0


def settled() -> Iterator[float]:
    """Until nothing is read, written or checked in the background."""
    yield from until(lambda: not the_panel().annotation.background.busy)
    yield 0.5


def predraw() -> Iterator[float]:
    panel = the_panel()
    panel.ui.predrawButton.click()
    yield from until(lambda: not panel.predraw.running)
    yield from settled()
    labels = panel.annotation.live.labels
    assert {"vertebrae", "ribs"} <= set(labels.masks) and labels.keypoints, panel.ui.stateLabel.text
    picture("predrawn")


def correct() -> Iterator[float]:
    """Slicer's round brush, our square one, a keypoint; each with mouse events, each undone as a whole."""
    panel = the_panel()
    ui, live = panel.ui, panel.annotation.live
    before = live.labels
    panel.labels.choose("ribs")
    for shape in ("round", "square"):
        ui.shapeComboBox.setCurrentIndex(ui.shapeComboBox.findData(shape))
        ui.brushButton.click()
        yield 0.5
        click()
        yield 0.5
        assert live.labels.masks["ribs"].voxels.sum() > before.masks["ribs"].voxels.sum(), shape
        picture(f"brush {shape}")
        ui.undoButton.click()
        assert live.labels is before, "one action, one step"
    ui.cursorButton.click()
    ui.keypointL2Button.click()
    yield 0.5
    click(dx=8)
    yield 0.5
    assert live.labels is not before and not panel.keypoints.active
    ui.undoButton.click()
    assert live.labels is before


def complete() -> Iterator[float]:
    panel = the_panel()
    panel.ui.checkButton.click()
    yield from settled()
    picture("checked")
    panel.ui.completeButton.click()
    yield from settled()
    case = panel.project.case("0003")
    assert case.status == "completed" and case.annotator == ANNOTATOR, panel.ui.stateLabel.text
    assert case.effort.dice == 1.0, "nothing was left changed in what the model drew"
    assert panel.ui.doneLabel.text == "3 / 3 done"
    picture("completed")


def train() -> Iterator[float]:
    part = section("TrainSection")
    ui = part.ui
    assert "3 completed cases" in ui.dataLabel.text
    ui.minutesSpinBox.value = MINUTES
    ui.patchComboBox.setCurrentIndex(2)
    ui.foldsSpinBox.value = 2
    ui.nameLineEdit.text = "first"
    ui.startButton.click()
    assert part.process.running, ui.messageLabel.text
    yield from until(lambda: "loss" in ui.progressLabel.text or not part.process.running, 60 * MINUTES + 600)
    look_at(ui.lossButton)
    yield 1.0
    picture("training")
    yield from until(lambda: not part.process.running, 60 * MINUTES + 600)
    yield 2.0
    assert ui.messageLabel.text == ""
    titles = {node.GetTitle() for node in slicer.util.getNodesByClass("vtkMRMLPlotChartNode")}
    assert titles == {"first: loss", "first: Dice by class"}
    ui.scoresButton.click()
    look_at(ui.lossButton)
    yield 1.0
    picture("trained")


def evaluate() -> Iterator[float]:
    part = section("EvaluateSection")
    part.ui.evaluateButton.click()
    yield from until(lambda: not part.process.running, 600)
    yield 1.0
    assert part.ui.messageLabel.text == "" and part.ui.scoresTable.rowCount == 4
    assert "held out" in part.ui.factsLabel.text
    look_at(part.ui.reportButton)
    yield 0.5
    picture("evaluated")


def export() -> Iterator[float]:
    part = section("ExportSection")
    part.ui.setLineEdit.text = "site a"
    part.ui.exportButton.click()
    yield from until(lambda: not part.process.running, 600)
    yield 1.0
    assert "site-a" in part.ui.resultLabel.text, part.ui.messageLabel.text
    assert "bones" in part.ui.cardBrowser.plainText
    look_at(part.ui.cardBrowser)
    yield 0.5
    picture("exported")


def measure() -> Iterator[float]:
    node = the_panel().volumeNode
    slicer.util.selectModule("LowDoseBMD")
    yield 1.0
    panel = slicer.modules.LowDoseBMDWidget.panel
    box = panel.ui.modelsComboBox
    assert [box.itemText(n) for n in range(box.count)] == ["LowDoseBMD's own", "site-a (bones)"]
    box.setCurrentIndex(1)
    panel.parameterNode.inputVolume = node
    yield 0.5
    panel.ui.measureButton.click()
    yield from until(lambda: panel.session.state != "running")
    assert panel.session.state == "measured", panel.session.message
    yield 3.0
    networks = panel.session.live.networks
    assert "of LowDoseBMD" in networks["keypoints"] and "of LowDoseBMD" not in networks["bones"]
    picture("measured with it")


def steps(folder: Path) -> Iterator[float]:
    os.environ["LOWDOSEBMD_MODELS"] = str(folder / "models")
    make_project(folder)
    slicer.util.mainWindow().showMaximized()
    slicer.util.selectModule("LowDoseBMDTrainer")
    yield 1.0
    for step in (lambda: open_project(folder), predraw, correct, complete):
        yield from step()
    for step in (train, evaluate, export, measure) if MINUTES else ():
        yield from step()


if __name__ == "__main__":
    temporary = tempfile.TemporaryDirectory(prefix="LowDoseBMDTrainer-tutorial-")
    qt.QTimer.singleShot(1000, lambda: run(steps(Path(temporary.name)), temporary))
