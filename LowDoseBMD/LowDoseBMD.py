"""The Slicer module: choose a CT, measure it, correct what is wrong, sign and export. Bindings only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

PACKAGES = ("LowDoseBMDQt", "LowDoseBMDMRML", "LowDoseBMDLib")
"""What "Reload" reads anew besides this file."""


class LowDoseBMD(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "LowDoseBMD"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["Segmentations", "Markups", "Plots", "SubjectHierarchy", "Tables"]
        self.parent.contributors = ["LowDoseBMD contributors"]
        self.parent.helpText = _(
            "Reads trabecular volumetric bone mineral density (mg/cm3) of T12, L1 and L2 from a chest CT. Choose a CT "
            "and click Measure. Research software, not a medical device: it cannot be used to rule out low bone "
            "density.")
        self.parent.acknowledgementText = _(
            "Automates the method of Zhao et al., 2024 (doi 10.13609/j.cnki.1000-0313.2024.02.019).")
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self) -> None:
        """Offer the phantom in the module Sample Data; a program without it is no failure."""
        try:
            from LowDoseBMDQt.sample_data import registerSampleData
        except ImportError:
            logging.exception("LowDoseBMD: no sample data")
            return
        registerSampleData(self.resourcePath("Icons/LowDoseBMD.png"))


class LowDoseBMDWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the panel and tells it what happens to the module and the scene."""

    def __init__(self, parent: Any = None) -> None:
        self.logic: LowDoseBMDLogic | None = None
        self.panel: Any = None
        self._parameterNode: Any = None
        self._guiTag: Any = None
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Load the form and bind it; a sentence stands there when the program cannot be imported."""
        ScriptedLoadableModuleWidget.setup(self)
        try:
            from LowDoseBMDQt.panel import Panel
        except ImportError as error:
            logging.exception("LowDoseBMD cannot be used")
            self.layout.addWidget(brokenLabel(error))
            self.layout.addStretch(1)
            return
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LowDoseBMD.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LowDoseBMDLogic()
        self.panel = Panel(self.ui, self.logic.session, self.resourcePath("requirements.txt"))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        if self.panel is None:
            return
        self.setParameterNode(None)
        self.removeObservers()
        self.panel.close()
        self.panel = None

    def enter(self) -> None:
        if self.panel is not None:
            self.initializeParameterNode()
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
        self.setParameterNode(None)

    def onSceneEndClose(self, _caller: Any, _event: str) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, _caller: Any, _event: str) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Use the choices of this scene; the first CT is chosen when none is."""
        parameterNode = self.logic.getParameterNode()
        if not parameterNode.inputVolume:
            parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        self.setParameterNode(parameterNode)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Connect the widgets and the panel to the choices of a scene; None lets go of them."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
        self._parameterNode, self._guiTag = parameterNode, None
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
        self.panel.setParameterNode(parameterNode)

    def _onParametersChanged(self, _caller: Any = None, _event: str = "") -> None:
        self.panel.onParametersChanged()


class LowDoseBMDLogic(ScriptedLoadableModuleLogic):
    """The choices of a scene, and the session that measures; for the panel, scripts and the self test."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from LowDoseBMDQt.session import Session

        self.session = Session(slicer.mrmlScene, slicer.app.temporaryPath)

    def getParameterNode(self) -> Any:
        from LowDoseBMDQt.parameter_node import LowDoseBMDParameterNode

        return LowDoseBMDParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))


def brokenLabel(error: ImportError) -> Any:
    """What stands in the panel's place when a part of the program cannot be imported."""
    label = qt.QLabel(_("LowDoseBMD cannot be used: {error}.\n\nInstall the extension again from the Extensions Manager and "
                        "restart. If the name of a Python package stands above, install it from the Python console with "
                        "slicer.util.pip_install and restart.").format(error=error))
    label.wordWrap = True
    label.textInteractionFlags = qt.Qt.TextSelectableByMouse
    return label


class LowDoseBMDTest(ScriptedLoadableModuleTest):
    """Self test: the panel's number for a phantom is the command line's number for it."""

    LONGEST_RUN_SECONDS = 600.0

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_PhantomReadsAsOnTheCommandLine()

    def test_PhantomReadsAsOnTheCommandLine(self) -> None:
        """A phantom measured through the window has the number that the library gives."""
        from importlib.util import find_spec

        if find_spec("onnxruntime") is None:
            self.delayDisplay("Skipped: the packages of Resources/requirements.txt are not installed")
            return
        from LowDoseBMDLib.calibration import TwoPointCalibration
        from LowDoseBMDQt.card import cardHtml

        volumeNode = self._phantom()
        logic = LowDoseBMDLogic()
        session = logic.session
        try:
            session.choose(volumeNode)
            session.measure("physical", "auto", TwoPointCalibration())
            self._wait(lambda: session.state != "running")
            self.assertEqual(session.message, "")
            self.assertEqual(session.state, "measured")
            found = session.live.measurement.mean_vbmd_mg_cm3
            self.assertAlmostEqual(found, self._onTheCommandLine(session.live.ct), delta=0.1)
            self.assertIn("mg/cm³", cardHtml(session.live.measurement, session.state))
            self.assertGreater(session.live.study.segmentation_node.GetSegmentation().GetNumberOfSegments(), 0)
        finally:
            session.close()
        self.delayDisplay("Test passed")

    def _phantom(self) -> Any:
        from LowDoseBMDQt.sample_data import PhantomMaker

        loaded: list[Any] = []
        PhantomMaker.start(loaded.append)
        self._wait(lambda: bool(loaded))
        return loaded[0]

    def _onTheCommandLine(self, ct: Any) -> float:
        """The mean vBMD that the stages of ``lowdosebmd measure`` give for the same CT, without its report."""
        from LowDoseBMDLib.calibration import TwoPointCalibration
        from LowDoseBMDLib.measurement import measure
        from LowDoseBMDLib.pipeline import open_models, propose_rois

        return measure(ct, propose_rois(ct, open_models()), TwoPointCalibration()).mean_vbmd_mg_cm3

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + self.LONGEST_RUN_SECONDS
        while not done():
            self.assertLess(time.monotonic(), end, "the run takes too long")
            slicer.app.processEvents()
            time.sleep(0.02)
