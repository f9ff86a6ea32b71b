r"""The Trainer's tutorial, step by step, in a running Slicer with its real widgets and views::

    Slicer --no-splash --additional-module-paths LowDoseBMD --additional-module-paths LowDoseBMDTrainer \
        --python-script Testing/slicer/trainer_tutorial.py

It makes a project of two phantoms, trains for LOWDOSEBMD_MINUTES (2) minutes, evaluates, exports, and measures with the new
set in LowDoseBMD. Pictures of the window go to the folder named by LOWDOSEBMD_PICTURES, when it is set. Exit status 0: all
steps passed; 1: one did not, its traceback is printed. Needs torch and the packages of trainer_requirements.txt.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qt
import slicer
from tutorial import picture, run, until

MINUTES = int(os.environ.get("LOWDOSEBMD_MINUTES", "2"))
ANNOTATOR = "AB"
PHANTOM_SPACING_MM = (1.7, 1.7, 3.0)
SEEDS = (1, 2)


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
    """Two phantoms, completed with their true labels."""
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
        project.add(path, phantom.ct, arrival=Arrival(labels=labels, status=Status.COMPLETED, annotator=ANNOTATOR,
                                                      synthetic=True))


def open_project(folder: Path) -> Iterator[float]:
    panel = the_panel()
    panel.ui.annotatorLineEdit.text = ANNOTATOR
    panel.openProject(str(folder / "site a"))
    assert [case.name for case in panel.project.cases()] == ["0001", "0002"]
    panel.openCase(panel.project.case("0001"))
    yield from until(lambda: panel.currentCase is not None)
    yield 1.0


def train() -> Iterator[float]:
    part = section("TrainSection")
    ui = part.ui
    assert "2 completed cases" in ui.dataLabel.text
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
    for step in (lambda: open_project(folder), train, evaluate, export, measure):
        yield from step()


if __name__ == "__main__":
    temporary = tempfile.TemporaryDirectory(prefix="LowDoseBMDTrainer-tutorial-")
    qt.QTimer.singleShot(1000, lambda: run(steps(Path(temporary.name)), temporary))
