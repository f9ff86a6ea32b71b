"""The Slicer module of the Trainer: annotate cases, train, evaluate, hand over a model. Bindings only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

PACKAGES = ("LowDoseBMDTrainerEffects", "LowDoseBMDTrainerQt", "LowDoseBMDTrainerMRML", "LowDoseBMDTrainerLib")
"""What "Reload" reads anew besides this file."""


class LowDoseBMDTrainer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "LowDoseBMD Trainer"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["LowDoseBMD", "Segmentations", "Markups", "Plots"]
        self.parent.contributors = ["LowDoseBMD contributors"]
        self.parent.helpText = _(
            "Annotate cases as in ITK-SNAP, let a model draw first, train, evaluate and export models for LowDoseBMD. "
            "Research software, not a medical device.")
        self.parent.acknowledgementText = ""


class LowDoseBMDTrainerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the panel and tells it what happens to the module and the scene."""

    def __init__(self, parent: Any = None) -> None:
        self.panel: Any = None
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Load the form and bind it; a sentence stands there when the program cannot be imported."""
        ScriptedLoadableModuleWidget.setup(self)
        try:
            from LowDoseBMDTrainerEffects import registerEffects
            from LowDoseBMDTrainerQt.panel import Panel
        except ImportError as error:
            logging.exception("LowDoseBMD Trainer cannot be used")
            self.layout.addWidget(brokenLabel(error))
            self.layout.addStretch(1)
            return
        registerEffects()  # before the form, whose Segment Editor offers the effects that are there
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LowDoseBMDTrainer.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.panel = Panel(self.ui)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)

    def cleanup(self) -> None:
        if self.panel is None:
            return
        self.removeObservers()
        self.panel.close()
        self.panel = None

    def enter(self) -> None:
        if self.panel is not None:
            self.panel.enter()

    def exit(self) -> None:
        if self.panel is not None:
            self.panel.exit()

    def onReload(self) -> None:
        """Read the module's packages anew, not this file alone."""
        self.cleanup()
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, _caller: Any, _event: str) -> None:
        self.panel.forgetScene()


def brokenLabel(error: ImportError) -> Any:
    """What stands in the panel's place when a part of the program cannot be imported."""
    label = qt.QLabel(_("The Trainer cannot be used: {error}.\n\nInstall the extension again from the Extensions Manager "
                        "and restart.").format(error=error))
    label.wordWrap = True
    label.textInteractionFlags = qt.Qt.TextSelectableByMouse
    return label


class LowDoseBMDTrainerTest(ScriptedLoadableModuleTest):
    """Self test: what is drawn on a case through the window is what stands in its folder."""

    LONGEST_WAIT_SECONDS = 60.0

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_WhatIsDrawnIsSaved()

    def test_WhatIsDrawnIsSaved(self) -> None:
        """A small synthetic case is opened, drawn, left and read back."""
        import tempfile

        from LowDoseBMDQt.session import defer
        from LowDoseBMDTrainerLib.cases import Status, read_labels
        from LowDoseBMDTrainerLib.project import create_project
        from LowDoseBMDTrainerQt.annotation import Annotation

        with tempfile.TemporaryDirectory(prefix="LowDoseBMDTrainer-test-") as folder:
            project = create_project(Path(folder) / "project")
            writeBall(Path(folder) / "ball.nii")
            project.add(Path(folder) / "ball.nii")
            annotation = Annotation(slicer.mrmlScene, defer, lambda _case, _labels, error: self.fail(str(error)))
            try:
                annotation.openProject(project)
                annotation.open(annotation.cases[0], "self test")
                self._wait(lambda: not annotation.opening)
                self.assertEqual((annotation.message, annotation.readOnly), ("", ""))
                paintBox(annotation.live.nodes, "ribs", BOX)
                annotation.live.place("L1", (-5.0, -6.0, 7.0))
            finally:
                annotation.close()
            case = project.cases()[0]
            labels = read_labels(case)
            self.assertAlmostEqual(labels.masks["ribs"].volume_mm3(labels.geometry), 5 * 4 * 3 * VOXEL_MM ** 3, places=3)
            self.assertEqual([point.level for point in labels.keypoints], ["L1"])
            self.assertEqual((case.status, case.annotator), (Status.IN_PROGRESS, "self test"))
        self.delayDisplay("Test passed")

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + self.LONGEST_WAIT_SECONDS
        while not done():
            self.assertLess(time.monotonic(), end, "the work in the background takes too long")
            slicer.app.processEvents()
            time.sleep(0.02)


VOXEL_MM = 2.0
BOX = (10, 14, 10, 13, 10, 12)
"""First and last voxel along i, j, k."""


def writeBall(path: Path) -> None:
    """A synthetic CT of a few voxels: a ball of bone in air."""
    ball = vtk.vtkImageEllipsoidSource()
    ball.SetWholeExtent(0, 31, 0, 31, 0, 31)
    ball.SetCenter(16, 16, 16)
    ball.SetRadius(10, 10, 10)
    ball.SetInValue(400)
    ball.SetOutValue(-1000)
    ball.SetOutputScalarTypeToShort()
    spaced = vtk.vtkImageChangeInformation()
    spaced.SetInputConnection(ball.GetOutputPort())
    spaced.SetOutputSpacing(VOXEL_MM, VOXEL_MM, VOXEL_MM)
    writer = vtk.vtkNIFTIImageWriter()
    writer.SetInputConnection(spaced.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()


def paintBox(nodes: Any, label: str, extent: tuple[int, ...]) -> None:
    """Put a box of voxels into a segment, as a brush does."""
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetExtent(extent)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(1)
    nodes.volume_node.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetBinaryLabelmapToSegment(image, nodes.segmentation_node, label, logic.MODE_MERGE_MAX, image.GetExtent())
