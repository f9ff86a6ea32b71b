"""Which calibration: the constants of the literature, or a site's file out of one folder."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date as Date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from LowDoseBMDLib.calibration import SYNTHETIC, Calibration, TwoPointCalibration, load_calibration
from LowDoseBMDLib.calibration_match import OLD_YEARS, Fit, age_years, as_date, best_match, match
from LowDoseBMDLib.headers import DAYS_PER_YEAR
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


def factsText(calibration: Calibration, today: Date) -> str:
    """Model, unit, voltage, scanner, people, scans and age of a calibration, as rich text."""
    facts = [kindName(calibration.kind), f"mg/cm³ {calibration.unit}", f"{calibration.kvp:.0f} kV"]
    if calibration.provisional:
        why = {SYNTHETIC: _("fitted on synthetic people: not for patients")}
        return " · ".join([*facts, why.get(calibration.status, _("not fitted to any scanner: classes are provisional"))])
    facts.append(calibration.scanner.replace(";", ", ") or _("scanner not named"))
    facts.append(_("{count} people").format(count=calibration.cohort_size))
    if calibration.highest_mg_cm3:
        facts.append(_("{low:.0f} to {high:.0f} mg/cm³").format(low=calibration.lowest_mg_cm3,
                                                                high=calibration.highest_mg_cm3))
    if calibration.scans_from and calibration.scans_to:
        facts.append(_("scans of {first} to {last}").format(first=calibration.scans_from, last=calibration.scans_to))
    if calibration.date:
        facts.append(_fitted(calibration.date, today))
    return " · ".join(html.escape(fact) for fact in facts)


def kindName(kind: str) -> str:
    """The model in a few words."""
    return {"two_point": _("line through muscle and fat"), "shrunk_two_point": _("line through shrunk muscle and fat"),
            "line": _("line of the scanner, without muscle and fat"), "regression": _("regression"),
            "rescaled": _("rescaled for classes")}.get(kind, kind)


def mismatchText(calibration: Calibration, acquisition: Acquisition | None) -> str:
    """What of the scan does not fit what the calibration was fitted on; empty when nothing is known to differ."""
    if acquisition is None:
        return ""
    found, told = match(calibration, acquisition), []
    if found.kvp is Fit.DIFFERS:
        told.append(_("This scan: {kvp:.0f} kV.").format(kvp=acquisition.kvp))
    if found.scanner is Fit.DIFFERS:
        told.append(_("This scan: {scanner}.").format(scanner=acquisition.scanner))
    if found.kernel is Fit.DIFFERS:
        told.append(_("This scan: kernel {kernel}, calibrated on {fitted}.").format(
            kernel=acquisition.kernel, fitted=calibration.kernel.replace(";", ", ")))
    return " ".join(told)


def ageText(calibration: Calibration, today: Date) -> str:
    """A warning when a site's calibration is old; empty when it is not, or when its age is not known."""
    years = None if calibration.provisional else age_years(calibration, today)
    if years is None or years <= OLD_YEARS:
        return ""
    return _("{years:.1f} years old: scanners drift by 1 to 2 HU a year. Fit it again on recent scans.").format(years=years)


def _fitted(date: str, today: Date) -> str:
    days = (today - as_date(date)).days
    if days < 0:
        return _("fitted {date}").format(date=date)
    years = days / DAYS_PER_YEAR
    ago = _("{years:.1f} years ago").format(years=years) if years >= 1 else _("{days} days ago").format(days=days)
    return _("fitted {date}, {ago}").format(date=date, ago=ago)


class CalibrationList:
    """The combo box, its facts, and the button that chooses the folder. onChosen gets the path of a file, or "".

    onFolder: called when another folder is listed. today: the day by which ages are told.
    """

    def __init__(self, ui: Any, onChosen: Callable[[str], None], onFolder: Callable[[], None],
                 today: Callable[[], Date] = Date.today) -> None:
        self._ui = ui
        self._today = today
        self._onChosen = onChosen
        self._onOtherFolder = onFolder
        self._choices: list[Choice] = []
        self._matched = ""  # the path that was taken because it matches the scan
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

    def suggestion(self, acquisition: Acquisition, chosen: str) -> str:
        """The path to take for a new scan: of the site's calibration for its scanner and voltage, else what is chosen.

        A calibration that was taken because it matched an earlier scan gives way to the literature when it does not
        match this one; what a person chose stays.
        """
        index = best_match([choice.calibration for choice in self._choices], acquisition)
        if index is None and chosen == self._matched:
            chosen = ""
        self._matched = "" if index is None else self._choices[index].path
        return self._matched or chosen

    def choice(self, path: str) -> Choice:
        """The choice with this path, as it was read when the list was filled."""
        return next((choice for choice in self._choices if choice.path == path), None) or readChoice(path)

    def pathOf(self, calibration: Calibration, likely: str) -> str:
        """The path of a calibration in the list, ``likely`` when that is the one; ``likely`` too when none is."""
        found = [choice.path for choice in self._choices if choice.calibration == calibration]
        return likely if likely in found or not found else found[0]

    def showFacts(self, choice: Choice, acquisition: Acquisition | None) -> None:
        """Facts of a choice, where the scan differs from it, and whether it is old."""
        if choice.calibration is None:
            text = _warning(choice.problem)
        else:
            today = self._today()
            why = [_("Taken for this scanner and tube voltage.")] if choice.path and choice.path == self._matched else []
            warnings = (mismatchText(choice.calibration, acquisition), ageText(choice.calibration, today))
            text = "<br>".join([factsText(choice.calibration, today), *why, *(_warning(each) for each in warnings if each)])
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
            self._onOtherFolder()


def _title(choice: Choice) -> str:
    if not choice.path:
        return _("Constants of the literature")
    name = choice.calibration.name if choice.calibration else _("cannot be read")
    return f"{name} ({Path(choice.path).name})"


def _warning(text: str) -> str:
    return f"<span style='color:#8a5a00'>{html.escape(text)}</span>"
