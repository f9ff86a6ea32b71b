"""The tutorial, step by step, in a running Slicer with its real widgets, views and brush::

    Slicer --no-splash --additional-module-paths LowDoseBMD --python-script Testing/slicer/tutorial.py

It makes the phantom, measures, corrects with mouse events in the axial view, signs, exports, saves and reopens the scene,
and checks what a user relies on. Pictures of the window go to the folder named by LOWDOSEBMD_PICTURES, when it is set.
Exit status 0: all steps passed; 1: one did not, its traceback is printed. Needs the packages of Resources/requirements.txt.
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qt
import slicer

LONGEST_WAIT_SECONDS = 300.0
PICTURES = os.environ.get("LOWDOSEBMD_PICTURES")
BRUSH_MM = 10


def picture(name: str) -> None:
    """The main window as a user sees it."""
    slicer.app.processEvents()
    slicer.util.forceRenderAllViews()
    slicer.app.processEvents()
    if PICTURES:
        slicer.util.mainWindow().grab().save(str(Path(PICTURES) / f"{name}.png"))


def until(done: Callable[[], bool], seconds: float = LONGEST_WAIT_SECONDS) -> Iterator[float]:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "a step takes too long"
        yield 0.1


def thePanel() -> Any:
    return slicer.modules.LowDoseBMDWidget.panel


def click(dx: int = 0) -> None:
    """A click in the axial view, ``dx`` pixels beside its middle."""
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    interactor = view.interactorStyle().GetInteractor()
    width, height = view.renderWindow().GetSize()
    for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "MouseMoveEvent", "LeftButtonReleaseEvent"):
        interactor.SetEventInformation(width // 2 + dx, height // 2, 0, 0, "\0", 0, None)
        interactor.InvokeEvent(event)


def measure() -> Iterator[float]:
    from LowDoseBMDQt.sample_data import PhantomMaker

    made: list[Any] = []
    PhantomMaker.start(made.append)
    yield from until(lambda: bool(made))
    panel = thePanel()
    panel.parameterNode.inputVolume = made[0]
    yield 0.5
    assert panel.session.state == "ready"
    panel.ui.measureButton.click()
    assert panel.session.state == "running"
    yield from until(lambda: panel.session.state != "running")
    assert panel.session.state == "measured", panel.session.message
    yield 5.0
    picture("measured")


def correct() -> Iterator[float]:
    panel, live = thePanel(), thePanel().session.live
    before = live.measurement
    panel.ui.correctButton.collapsed = False
    panel.goTo("trabecular_L1")
    panel.ui.segmentEditor.setActiveEffectByName("Erase")
    yield 0.5
    effect = panel.ui.segmentEditor.activeEffect()
    effect.setCommonParameter("BrushDiameterIsRelative", 0)
    effect.setCommonParameter("BrushAbsoluteDiameter", str(BRUSH_MM))
    click()
    yield 0.5
    assert live.rois.edited == {"trabecular_L1"}
    assert live.measurement.level("L1").volume_mm3 < before.level("L1").volume_mm3
    assert live.state == "edited"
    picture("edited")
    panel.ui.undoButton.click()
    assert (live.measurement, live.state) == (before, "measured")
    panel.ui.levelsUpButton.click()
    assert live.measurement.level("L1").hu_mean == before.level("T12").hu_mean
    panel.ui.undoButton.click()
    assert live.measurement == before


def place() -> Iterator[float]:
    panel, live = thePanel(), thePanel().session.live
    panel.ui.segmentEditor.setActiveEffect(None)
    panel.ui.keypointComboBox.setCurrentText("L1")
    panel.ui.keypointButton.click()
    yield 0.5
    click(dx=8)
    yield 0.5
    assert "keypoint_L1" in live.rois.edited and not panel.corrector.placing
    panel.ui.undoButton.click()
    assert not live.rois.edited


def sign(folder: Path) -> Iterator[float]:
    panel, live = thePanel(), thePanel().session.live
    panel.ui.readerLineEdit.text = "AB"
    if panel.ui.levelsRightButton.visible:
        panel.ui.acceptButton.click()
        assert not live.locked, "the names are in doubt"
        panel.ui.levelsRightButton.click()
    panel.ui.acceptButton.click()
    assert live.state == "accepted" and not panel.ui.measureButton.enabled
    panel.session.export(folder / "out", ("html", "csv", "json", "segmentation", "print"))
    yield from until(lambda: not panel.session.busy)
    assert panel.session.message == ""
    assert {"report.html", "report.pdf", "measurement.json", "segmentation.seg.nrrd"} <= {
        path.name for path in (folder / "out").iterdir()}
    picture("accepted")


def reopen(folder: Path) -> Iterator[float]:
    panel = thePanel()
    before = panel.session.live.measurement
    assert slicer.util.saveScene(str(folder / "study.mrb"))
    slicer.mrmlScene.Clear(0)
    yield 1.0
    assert panel.session.state == "no_ct" and panel.session.live is None
    slicer.util.loadScene(str(folder / "study.mrb"))
    yield 2.0
    assert panel.session.state == "accepted"
    assert panel.session.live.measurement == before, "a reopened scene reads the same to the last digit"
    picture("reopened")


def steps(folder: Path) -> Iterator[float]:
    slicer.util.mainWindow().showMaximized()
    slicer.util.selectModule("LowDoseBMD")
    yield 1.0
    assert thePanel().session.state == "no_ct"
    for step in (measure, correct, place, lambda: sign(folder), lambda: reopen(folder)):
        yield from step()


def run(work: Iterator[float], folder: tempfile.TemporaryDirectory) -> None:
    """The next step after the pause that the last one asked for; ends Slicer when all are done, or one failed."""
    try:
        pause = next(work)
    except StopIteration:
        folder.cleanup()
        slicer.util.exit(0)
    except Exception:
        traceback.print_exc()
        picture("failed")
        slicer.util.exit(1)
    else:
        qt.QTimer.singleShot(int(1000 * pause), lambda: run(work, folder))


if __name__ == "__main__":
    temporary = tempfile.TemporaryDirectory(prefix="LowDoseBMD-tutorial-")
    qt.QTimer.singleShot(1000, lambda: run(steps(Path(temporary.name)), temporary))
