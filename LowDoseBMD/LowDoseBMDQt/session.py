"""One CT at a time: the run that proposes its regions, and the measurement that follows the reader's hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from LowDoseBMDLib.calibration import Calibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import read_proposal
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.job import EXPORT, PROPOSAL_FILE, PROPOSE, Job
from LowDoseBMDLib.results import PRINT_FILE
from LowDoseBMDMRML.remeasure import LiveMeasurement
from LowDoseBMDMRML.study import create_study, find_study
from LowDoseBMDMRML.volumes import acquisition_of, ct_from_node, set_acquisition
from slicer import vtkMRMLScene
from slicer.i18n import tr as _

from .acquisition import acquisitionFromDicom, dicomFiles
from .job import WORKER, BackgroundJob
from .pdf import PDF_FILE, writePdf

NO_CT, READY, RUNNING = "no_ct", "ready", "running"
"""States before there is a measurement; afterwards those of LiveMeasurement."""


def defer(function: Callable[[], None]) -> None:
    """Run a function when the event loop is back: after a brush stroke, not inside it."""
    qt.QTimer.singleShot(0, function)


class Session:
    """listeners are called after every change of ``state``, ``message`` or the measurement.

    temporaryFolder, python, worker: see BackgroundJob.
    """

    def __init__(self, scene: Any, temporaryFolder: str, python: str | None = None,
                 worker: Sequence[str] = WORKER) -> None:
        self.volumeNode: Any = None
        self.live: LiveMeasurement | None = None
        self.message, self.log = "", ""
        self.progress: tuple[str, float] = ("", 0.0)
        self.exported: Path | None = None
        self.dicomFiles: tuple[Path, ...] = ()
        self.listeners: list[Callable[[], None]] = []
        self._scene = scene
        self._job = BackgroundJob(temporaryFolder, python, worker)
        self._measuring = False
        self._removalTags = [scene.AddObserver(vtkMRMLScene.NodeRemovedEvent, lambda *_args: self._onNodeRemoved())]

    @property
    def state(self) -> str:
        if self._job.running and self._measuring:
            return RUNNING
        if self.live is not None:
            return self.live.state
        return READY if self.volumeNode is not None else NO_CT

    @property
    def busy(self) -> bool:
        """A run or an export is on its way."""
        return self._job.running

    @property
    def seconds(self) -> float:
        return self._job.elapsed

    # --- which CT ------------------------------------------------------------------------------------------------

    def choose(self, volumeNode: Any) -> None:
        """Work on this CT; a measurement that the scene holds of it is taken up again."""
        if volumeNode is self.volumeNode:
            return
        self._letGo()
        self.volumeNode = volumeNode
        self.message, self.log, self.exported, self.dicomFiles = "", "", None, ()
        if volumeNode is not None:
            self.dicomFiles = dicomFiles(volumeNode)
            self._noteAcquisition(volumeNode)
            self.takeUp()
        self._tell()

    def _noteAcquisition(self, volumeNode: Any) -> None:
        acquisition = acquisitionFromDicom(volumeNode)
        if acquisition is not None and acquisition != acquisition_of(volumeNode):
            set_acquisition(volumeNode, acquisition)

    def takeUp(self) -> None:
        """Go on with the measurement that the scene holds of the chosen CT, when none is at hand, as after an import."""
        study = find_study(self._scene, self.volumeNode) if self.volumeNode is not None and self.live is None else None
        if study is None:
            return
        try:
            live = LiveMeasurement(study, ct_from_node(self.volumeNode), defer)
            if live.restore():
                self._follow(live)
        except (KeyError, ValueError) as error:
            logging.exception("a stored measurement cannot be taken up")
            self.message = _("The measurement of this CT in the scene cannot be read ({error}). Measure again.").format(
                error=error)

    def _follow(self, live: LiveMeasurement) -> None:
        self.live = live
        live.listeners.append(self._onMeasured)

    def _onMeasured(self) -> None:
        self.message, self.log = "", ""
        self._tell()

    def _letGo(self) -> None:
        if self.live is not None:
            self.live.flush()
            self.live.close()
            self.live = None

    # --- measuring -----------------------------------------------------------------------------------------------

    def measure(self, erosion: str, device: str, calibration: Calibration, models: Path | None = None) -> None:
        """Start a run on the chosen CT; what it finds replaces an earlier measurement of it.

        models: folder of the networks; None for the product's.
        """
        self.message, self.log, self.exported = "", "", None
        try:
            ct = ct_from_node(self.volumeNode)
        except Refusal as refusal:
            self.message = str(refusal)
            self._tell()
            return
        self._measuring, self.progress = True, ("", 0.0)
        self._job.start(Job(PROPOSE, erosion=erosion, device=device, models=models), ct, self._onProgress,
                        lambda _status, folder: self._onProposed(ct, folder, calibration), self._onFailed,
                        self._onCancelled)
        self._tell()

    def cancel(self) -> None:
        self._job.cancel()

    def _onProgress(self, stage: str, fraction: float) -> None:
        self.progress = (stage, fraction)
        self._tell()

    def _onProposed(self, ct: CTVolume, folder: Path, calibration: Calibration) -> None:
        self._measuring = False
        if self.volumeNode is None or self.volumeNode.GetScene() is not self._scene:
            self._fail(_("The CT was removed while it was measured. Load it again."))
            return
        try:
            proposal = read_proposal(folder / PROPOSAL_FILE)
            self._letGo()
            study = find_study(self._scene, self.volumeNode) or create_study(self._scene, self.volumeNode)
            live = LiveMeasurement(study, ct, defer)
            live.load(proposal, calibration)
        except (KeyError, OSError, ValueError) as error:
            logging.exception("a proposal cannot be shown")
            self._fail(_("The result cannot be shown: {error}").format(error=error))
            return
        self._follow(live)
        self._tell()

    def _onFailed(self, message: str, log: str) -> None:
        logging.error("LowDoseBMD: %s", message)
        self._fail(message, log)

    def _onCancelled(self) -> None:
        # Nobody cancelled when the CT or the whole scene has gone: what is said then stays.
        self._fail(self.message if self.volumeNode is None else _("Cancelled."))

    def say(self, message: str) -> None:
        """Show a sentence above the card."""
        self.message, self.log = message, ""
        self._tell()

    def _fail(self, message: str, log: str = "") -> None:
        self._measuring = False
        self.message, self.log = message, log
        self._tell()

    # --- export --------------------------------------------------------------------------------------------------

    def export(self, out: Path, formats: tuple[str, ...]) -> None:
        """Write results of the present regions to a folder, in a process of its own."""
        live = self.live
        live.flush()
        self.message, self.log, self.exported = "", "", None
        job = Job(EXPORT, out=out, formats=formats, calibration=live.calibration, reading=live.reading,
                  dicom_files=self.dicomFiles)
        self._job.start(job, live.ct, self._onProgress, lambda _status, _folder: self._onExported(out), self._onFailed,
                        self._onCancelled, live.proposal)
        self._tell()

    def _onExported(self, out: Path) -> None:
        self.exported = out
        page = out / PRINT_FILE
        try:
            if page.is_file():
                writePdf(page, out / PDF_FILE)
                page.unlink()
        except OSError as error:
            self._fail(_("Everything but the PDF was written: {error}").format(error=error))
            return
        self._tell()

    # --- the scene goes, or parts of it --------------------------------------------------------------------------

    def _onNodeRemoved(self) -> None:
        volumeGone = self.volumeNode is not None and self.volumeNode.GetScene() is not self._scene
        if self.live is not None and (volumeGone or not self.live.study.whole):
            self.live.close()
            self.live = None
            defer(self._tell)
        if volumeGone:
            self.volumeNode = None
            if self.state == RUNNING:
                self.message = _("The CT was removed while it was measured. Load it again.")
                self._job.cancel()
            defer(self._tell)

    def forgetScene(self) -> None:
        """Before the scene is closed: nothing in it is held, and what runs is stopped."""
        if self.live is not None:
            self.live.close()
        self.live, self.volumeNode = None, None
        self.message, self.log, self.exported = "", "", None
        self._job.cancel()

    def close(self) -> None:
        """The module goes."""
        self.listeners.clear()
        self.forgetScene()
        self._job.close()
        for tag in self._removalTags:
            self._scene.RemoveObserver(tag)
        self._removalTags = []

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()
