"""The Slicer module: choose a CT, measure it in a process of its own, see the regions and the number."""

from __future__ import annotations

import html
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

STATUS_MEASURED, STATUS_REFUSED = 0, 1
"""Exit statuses of the command line that leave a measurement.json; 1 also stands for a failed run."""

KEPT_LOG_LINES = 30


class LowDoseBMD(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "LowDoseBMD"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["LowDoseBMD contributors"]
        self.parent.helpText = _(
            "Reads trabecular volumetric bone mineral density (mg/cm3) of T12, L1 and L2 from a chest CT. Choose a CT "
            "and click Measure. Research software, not a medical device: it cannot be used to rule out low bone "
            "density.")
        self.parent.acknowledgementText = _(
            "Automates the method of Zhao et al., 2024 (doi 10.13609/j.cnki.1000-0313.2024.02.019).")


class LowDoseBMDWidget(ScriptedLoadableModuleWidget):
    """The panel: a CT, one button, the answer."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = LowDoseBMDLogic()
        self.logic.onProgress = self.onProgress
        self.logic.onResult = self.onResult
        self.logic.onFailure = self.onFailure

        self.volumeSelector = slicer.qMRMLNodeComboBox()
        self.volumeSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumeSelector.addEnabled = False
        self.volumeSelector.removeEnabled = False
        self.volumeSelector.noneEnabled = True
        self.volumeSelector.setMRMLScene(slicer.mrmlScene)
        self.volumeSelector.toolTip = _("The chest CT. It must reach down to L1 or, better, below L2.")
        self.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateButton)

        self.measureButton = qt.QPushButton()
        self.measureButton.connect("clicked(bool)", self.onMeasureOrCancel)

        self.progressBar = qt.QProgressBar()
        self.progressBar.maximum = 100
        self.progressBar.visible = False

        self.answerLabel = qt.QLabel()
        self.answerLabel.wordWrap = True
        self.answerLabel.textInteractionFlags = qt.Qt.TextSelectableByMouse

        form = qt.QFormLayout()
        form.addRow(_("CT"), self.volumeSelector)
        self.layout.addLayout(form)
        for widget in (self.measureButton, self.progressBar, self.answerLabel):
            self.layout.addWidget(widget)
        self.layout.addStretch(1)
        self.updateButton()

    def cleanup(self) -> None:
        self.logic.forgetCallbacks()
        self.logic.cancel()

    def updateButton(self, _node: Any = None) -> None:
        if self.logic.running:
            self.measureButton.text = _("Cancel")
            self.measureButton.enabled = True
            return
        self.measureButton.text = _("Measure")
        self.measureButton.enabled = self.volumeSelector.currentNode() is not None
        self.measureButton.toolTip = "" if self.measureButton.enabled else _("Load a chest CT and choose it above.")

    def onMeasureOrCancel(self, _checked: bool = False) -> None:
        if self.logic.running:
            self.logic.cancel()
            return
        with slicer.util.tryWithErrorDisplay(_("The measurement could not be started."), waitCursor=True):
            self.logic.ensureDependencies(self.resourcePath("requirements.txt"))
            self.answerLabel.text = ""
            self.progressBar.value = 0
            self.logic.start(self.volumeSelector.currentNode())
        self.progressBar.visible = self.logic.running
        self.updateButton()

    def onProgress(self, stage: str, percent: int) -> None:
        self.progressBar.format = f"{stage} %p%"
        self.progressBar.value = percent

    def onResult(self, record: dict[str, Any]) -> None:
        self.progressBar.visible = False
        self.answerLabel.text = answerHtml(record)
        self.updateButton()

    def onFailure(self, message: str) -> None:
        self.progressBar.visible = False
        self.answerLabel.text = html.escape(message)
        self.updateButton()


class LowDoseBMDLogic(ScriptedLoadableModuleLogic):
    """One measurement at a time: the command line on a copy of the volume, in a process of its own.

    onProgress(stage, percent), onResult(content of measurement.json) and onFailure(message) are called in the main
    thread; exactly one of the last two ends a run.
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._process: Any = None
        self._folder: Path | None = None
        self._cancelled = False
        self._log: list[str] = []
        self.segmentationNode: Any = None
        self.forgetCallbacks()

    @property
    def running(self) -> bool:
        return self._process is not None

    def forgetCallbacks(self) -> None:
        self.onProgress: Callable[[str, int], None] = lambda stage, percent: None
        self.onResult: Callable[[dict[str, Any]], None] = lambda record: None
        self.onFailure: Callable[[str], None] = lambda message: None

    def ensureDependencies(self, requirementsPath: str) -> None:
        """Offer to install what measuring needs and Slicer lacks. Raises RuntimeError when the user declines."""
        from slicer.packaging import load_requirements, pip_ensure

        pip_ensure(load_requirements(requirementsPath), requester="LowDoseBMD")

    def start(self, volumeNode: Any) -> None:
        """Measure a volume. Raises RuntimeError when a run is on its way or the volume cannot be written."""
        if self.running:
            raise RuntimeError(_("A measurement is already running."))
        self._folder = Path(tempfile.mkdtemp(prefix="LowDoseBMD-", dir=slicer.app.temporaryPath))
        source = self._folder / "ct.nrrd"
        if not slicer.util.exportNode(volumeNode, str(source), {"useCompression": 0}, world=True):
            self._removeFolder()
            raise RuntimeError(_("The volume could not be written to a temporary file."))
        self._cancelled, self._log = False, []
        self._process = runLibrary(["measure", str(source), "-o", str(self._folder / "out"), "--json"],
                                   self._onLine, self._onCompleted)

    def cancel(self) -> None:
        """Stop the run, if there is one; onFailure says so once the process has ended."""
        if not self.running:
            return
        self._cancelled = True
        endProcessTree(self._process.pid)

    def _onLine(self, line: str) -> None:
        report = jsonObject(line)
        if "progress" in report:
            self.onProgress(report["progress"], round(100 * report["fraction"]))
        elif not report and line.strip():
            logging.info(line)
            self._log = [*self._log, line][-KEPT_LOG_LINES:]

    def _onCompleted(self, status: int) -> None:
        self._process = None
        try:
            result = self._folder / "out" / "measurement.json"
            if self._cancelled:
                self.onFailure(_("Cancelled."))
            elif status in (STATUS_MEASURED, STATUS_REFUSED) and result.is_file():
                self._showRegions(self._folder / "out" / "segmentation.seg.nrrd")
                self.onResult(json.loads(result.read_text(encoding="utf-8")))
            else:
                self.onFailure(_("The measurement failed.") + "\n" + "\n".join(self._log))
        finally:
            self._removeFolder()

    def _showRegions(self, path: Path) -> None:
        if not path.is_file():
            return
        self.segmentationNode = slicer.util.loadSegmentation(str(path))
        storageNode = self.segmentationNode.GetStorageNode()
        if storageNode:  # it names the temporary file, which goes away
            slicer.mrmlScene.RemoveNode(storageNode)

    def _removeFolder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def runLibrary(arguments: list[str], onLine: Callable[[str], None], onCompleted: Callable[[int], None]) -> Any:
    """Start ``python -m LowDoseBMDLib`` in Slicer's Python; the callbacks come in the main thread."""
    python = shutil.which("PythonSlicer")
    if not python:
        raise RuntimeError(_("PythonSlicer was not found; this Slicer installation is incomplete."))
    return slicer.util.launchConsoleProcess(
        [python, "-m", "LowDoseBMDLib", *arguments], useStartupEnvironment=False, cwd=str(Path(__file__).parent),
        blocking=False, logCallback=onLine, completedCallback=onCompleted)


def endProcessTree(pid: int) -> None:
    """End a process and what it started: PythonSlicer is a launcher, the work is done by its child."""
    import psutil

    try:
        parent = psutil.Process(pid)
        processes = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue


def jsonObject(line: str) -> dict[str, Any]:
    """The JSON object that a line of output holds, or an empty one."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def answerHtml(record: dict[str, Any]) -> str:
    """The answer of a measurement.json: number, unit, interval, state and flags, as rich text."""
    lines = [_headline(record)]
    for level in record["levels"]:
        if level["vbmd_mg_cm3"] is None:
            lines.append(_("{level}: not measured, {reason}").format(level=level["name"], reason=level["reason"]))
        else:
            lines.append(f"{level['name']}: {level['vbmd_mg_cm3']:.0f} mg/cm³ ({level['hu_mean']:.0f} HU)")
    lines += [flag["sentence"] for flag in record["flags"] if flag["severity"] != "info"]
    lines.append(_("Research software; it cannot be used to rule out low bone density."))
    first, *rest = (html.escape(line) for line in lines)
    return f"<b>{first}</b><br>" + "<br>".join(rest)


def _headline(record: dict[str, Any]) -> str:
    if record["status"] != "measured":
        return _("Not measured.")
    low, high = record["mean_vbmd_ci95"]
    state = _("provisional: uncalibrated scanner") if record["category_provisional"] else _("site calibration")
    return _("vBMD {value:.0f} mg/cm³ (95 %: {low:.0f} to {high:.0f}), mean of {levels}; {state}").format(
        value=record["mean_vbmd_mg_cm3"], low=low, high=high, levels=", ".join(record["mean_of"]), state=state)


class LowDoseBMDTest(ScriptedLoadableModuleTest):
    """Self test: the panel's number for a phantom is the command line's number for it."""

    LONGEST_RUN_SECONDS = 600.0

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_PhantomReadsAsOnTheCommandLine()

    def test_PhantomReadsAsOnTheCommandLine(self) -> None:
        from importlib.util import find_spec

        if not all(find_spec(name) for name in ("onnxruntime", "jinja2", "matplotlib")):
            self.delayDisplay("Skipped: the packages of Resources/requirements.txt are not installed")
            return
        out = Path(tempfile.mkdtemp(prefix="LowDoseBMD-test-", dir=slicer.app.temporaryPath))
        try:
            statuses: list[int] = []
            runLibrary(["demo", "-o", str(out)], logging.info, statuses.append)
            self._wait(lambda: bool(statuses))
            self.assertEqual(statuses, [STATUS_MEASURED])
            expected = json.loads((out / "measurement.json").read_text(encoding="utf-8"))
            record, logic = self._measure(slicer.util.loadVolume(str(out / "phantom.nii.gz")))
        finally:
            shutil.rmtree(out, ignore_errors=True)
        self.assertAlmostEqual(record["mean_vbmd_mg_cm3"], expected["mean_vbmd_mg_cm3"], delta=1.0)
        self.assertIn("mg/cm³", answerHtml(record))
        self.assertGreater(logic.segmentationNode.GetSegmentation().GetNumberOfSegments(), 0)
        self.delayDisplay("Test passed")

    def _measure(self, volumeNode: Any) -> tuple[dict[str, Any], LowDoseBMDLogic]:
        logic, records, failures = LowDoseBMDLogic(), [], []
        logic.onResult, logic.onFailure = records.append, failures.append
        logic.start(volumeNode)
        self._wait(lambda: not logic.running)
        self.assertEqual(failures, [])
        return records[0], logic

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + self.LONGEST_RUN_SECONDS
        while not done():
            self.assertLess(time.monotonic(), end, "the run takes too long")
            slicer.app.processEvents()
            time.sleep(0.02)
