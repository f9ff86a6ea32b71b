"""The CT that is chosen: its facts, what speaks against it, and whether it can be measured."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from LowDoseBMDMRML.volumes import acquisition_of
from slicer.i18n import tr as _

from .acquisition import patientName
from .review import SIGNED
from .session import NO_CT
from .volume_facts import factsText, warningText

if TYPE_CHECKING:
    from LowDoseBMDLib.ctvolume import Acquisition

    from .calibrations import CalibrationList, Choice
    from .session import Session


class InputBox:
    """The lines below the selector, and the facts of calibration and device in the settings."""

    def __init__(self, ui: Any, session: Session, calibrations: CalibrationList) -> None:
        self._ui = ui
        self._session = session
        self._calibrations = calibrations

    def show(self, choice: Choice) -> None:
        """choice: the calibration that is chosen."""
        ui, volumeNode = self._ui, self._session.volumeNode
        ui.volumeSelector.enabled = not self._session.busy
        acquisition = acquisition_of(volumeNode) if volumeNode is not None else None
        self._calibrations.showFacts(choice, acquisition)
        ui.factsLabel.visible = volumeNode is not None
        warning = self._showVolume(volumeNode, acquisition, choice) if volumeNode is not None else ""
        ui.warningLabel.text = f"<span style='color:#8a5a00'>{html.escape(warning)}</span>"
        ui.warningLabel.visible = bool(warning)
        self._showEngine()

    def whyNot(self, choice: Choice) -> str:
        """Why Measure cannot be pressed; empty when it can."""
        if self._session.state == NO_CT:
            return _("Load a chest CT and choose it above.")
        if self._session.state in SIGNED:
            return _("This measurement is signed. Reopen it first.")
        return choice.problem

    def _showVolume(self, volumeNode: Any, acquisition: Acquisition, choice: Choice) -> str:
        """Show the facts of a volume; returns what speaks against it."""
        spacing = volumeNode.GetSpacing()
        image = volumeNode.GetImageData()
        length = spacing[2] * image.GetDimensions()[2] if image is not None else 0.0
        self._ui.factsLabel.text = factsText(acquisition, patientName(volumeNode), spacing, length)
        return choice.problem if choice.calibration is None else warningText(acquisition, choice.calibration, spacing)

    def _showEngine(self) -> None:
        """On what the networks ran, once they did."""
        live, label = self._session.live, self._ui.deviceFactsLabel
        engine = live.networks.get("engine", "") if live is not None else ""
        label.text = html.escape(_("Measured with: {engine}").format(engine=engine))
        label.visible = bool(engine)
