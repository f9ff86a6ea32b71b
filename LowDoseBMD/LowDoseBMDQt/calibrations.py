"""Which calibration: the constants of the literature, or a site's file out of one folder."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from LowDoseBMDLib.calibration import Calibration, TwoPointCalibration, load_calibration
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LowDoseBMDLib.ctvolume import Acquisition

FOLDER_SETTING = "LowDoseBMD/CalibrationFolder"
"""Key of the application's settings: the folder is the site's, not the scene's."""


@dataclass(frozen=True)
class Choice:
    """One entry of the list. path: empty for the literature. problem: why the file cannot be used, or empty."""

    path: str
    calibration: Calibration | None
    problem: str = ""


def literature() -> Choice:
    return Choice("", TwoPointCalibration())


def readChoice(path: str) -> Choice:
    """A calibration by its path; one that cannot be read is a choice with a problem."""
    if not path:
        return literature()
    try:
        return Choice(path, load_calibration(path))
    except (OSError, ValueError) as error:
        return Choice(path, None, str(error))


def choicesOf(folder: str, chosen: str) -> list[Choice]:
    """The literature, every JSON file of the folder, and the chosen file wherever it lies."""
    found = sorted(Path(folder).glob("*.json")) if folder and Path(folder).is_dir() else []
    paths = [str(path) for path in found]
    if chosen and chosen not in paths:
        paths.append(chosen)
    return [literature(), *(readChoice(path) for path in paths)]


def factsText(calibration: Calibration) -> str:
    """Unit, voltage, scanner, people and date of a calibration."""
    facts = [f"mg/cm³ {calibration.unit}", f"{calibration.kvp:.0f} kV"]
    if calibration.provisional:
        return " · ".join([*facts, _("not fitted to any scanner: classes are provisional")])
    facts.append(calibration.scanner or _("scanner not named"))
    people, date = getattr(calibration, "cohort_size", 0), getattr(calibration, "date", "")
    if people:
        facts.append(_("{count} people").format(count=people))
    if date:
        facts.append(_("fitted {date}").format(date=date))
    return " · ".join(html.escape(fact) for fact in facts)


def mismatchText(calibration: Calibration, acquisition: Acquisition | None) -> str:
    """What of the scan does not fit what the calibration was fitted on; empty when nothing is known to differ."""
    if acquisition is None:
        return ""
    found = []
    if acquisition.kvp and abs(acquisition.kvp - calibration.kvp) > 1:
        found.append(_("This scan: {kvp:.0f} kV.").format(kvp=acquisition.kvp))
    scanner = (acquisition.scanner or "").strip()
    if calibration.scanner and scanner and scanner.lower() not in calibration.scanner.lower():
        found.append(_("This scan: {scanner}.").format(scanner=scanner))
    return " ".join(found)


class CalibrationList:
    """The combo box, its facts, and the button that chooses the folder. onChosen gets the path of a file, or ""."""

    def __init__(self, ui: Any, onChosen: Callable[[str], None]) -> None:
        self._ui = ui
        self._onChosen = onChosen
        self._choices: list[Choice] = []
        self._filling = False
        ui.calibrationComboBox.connect("currentIndexChanged(int)", self._onIndexChanged)
        ui.calibrationFolderButton.connect("clicked(bool)", self._onFolder)

    def fill(self, chosen: str) -> None:
        """List what there is and select ``chosen``."""
        self._choices = choicesOf(str(qt.QSettings().value(FOLDER_SETTING) or ""), chosen)
        box = self._ui.calibrationComboBox
        self._filling = True
        box.clear()
        for choice in self._choices:
            box.addItem(_title(choice))
        box.currentIndex = next((n for n, choice in enumerate(self._choices) if choice.path == chosen), 0)
        self._filling = False

    def choice(self, path: str) -> Choice:
        """The choice with this path, as it was read when the list was filled."""
        return next((choice for choice in self._choices if choice.path == path), None) or readChoice(path)

    def pathOf(self, calibration: Calibration, likely: str) -> str:
        """The path of a calibration in the list, ``likely`` when that is the one; ``likely`` too when none is."""
        found = [choice.path for choice in self._choices if choice.calibration == calibration]
        return likely if likely in found or not found else found[0]

    def showFacts(self, choice: Choice, acquisition: Acquisition | None) -> None:
        """Facts of a choice, and where the scan differs from it."""
        if choice.calibration is None:
            text = _warning(choice.problem)
        else:
            text = factsText(choice.calibration)
            if mismatch := mismatchText(choice.calibration, acquisition):
                text += "<br>" + _warning(mismatch)
        self._ui.calibrationFactsLabel.text = text

    def _onIndexChanged(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._choices):
            self._onChosen(self._choices[index].path)

    def _onFolder(self, _checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of calibration files"),
                                                     str(qt.QSettings().value(FOLDER_SETTING) or ""))
        if folder:
            qt.QSettings().setValue(FOLDER_SETTING, folder)
            logging.info("calibration folder chosen")
            self.fill(self._choices[self._ui.calibrationComboBox.currentIndex].path if self._choices else "")


def _title(choice: Choice) -> str:
    if not choice.path:
        return _("Constants of the literature")
    name = choice.calibration.name if choice.calibration else _("cannot be read")
    return f"{name} ({Path(choice.path).name})"


def _warning(text: str) -> str:
    return f"<span style='color:#8a5a00'>{html.escape(text)}</span>"
