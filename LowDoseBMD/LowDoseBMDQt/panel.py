"""The panel: which part shows what in which state. Each part has a file of its own."""

from __future__ import annotations

import html
from datetime import datetime
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.flags import LEVEL_UNCERTAIN
from LowDoseBMDLib.geometry import ras_point
from LowDoseBMDLib.pipeline import centre_of
from LowDoseBMDMRML.volumes import acquisition_of
from slicer.i18n import tr as _

from . import views
from .bones3d import Bones3D
from .calibrations import CalibrationList
from .card import cardHtml, notes
from .compare import Comparer
from .correct import Corrector
from .exclusion import ExclusionBox
from .export import ExportBox
from .flags_list import FlagsList
from .input_box import InputBox
from .levels_table import LevelsTable
from .models_box import ModelsBox
from .packages_box import PackagesBox
from .parameter_node import Erosion, WindowPreset
from .review import ReviewBox
from .run_bar import RunBar
from .sample_data import PhantomMaker
from .session import NO_CT, RUNNING, Session
from .shortcuts import Shortcuts

EROSIONS = frozenset(each.value for each in Erosion)
READER_SETTING = "LowDoseBMD/Reader"
"""Key of the application's settings: who signed last on this computer."""


class Panel:
    """Binds the widgets of LowDoseBMD.ui (``ui``) to a session. parameterNode: None while no scene is shown.

    requirements: path of the file of packages that measuring needs.
    """

    def __init__(self, ui: Any, session: Session, requirements: str) -> None:
        self.ui = ui
        self.session = session
        self.parameterNode: Any = None
        self._live: Any = None
        self.calibrations = CalibrationList(ui, self._onCalibrationChosen, self._matchCalibration)
        self.models = ModelsBox(ui, self._onModelsChosen)
        self.input = InputBox(ui, session, self.calibrations)
        self.runBar = RunBar(ui, session, self.measure)
        self.flags = FlagsList(ui, self._onShowFlag)
        self.table = LevelsTable(ui.levelsTable, self.goTo, self._onUse)
        self.exclusion = ExclusionBox(ui, self._onExcluded, self.update)
        self.corrector = Corrector(ui, self.table.select)
        self.comparer = Comparer(ui)
        self.review = ReviewBox(ui, self._onSign, self._onReopen)
        self.export = ExportBox(ui, session)
        self.packages = PackagesBox(ui, requirements, self.update)
        self.bones = Bones3D(views.show3D)
        self.shortcuts = Shortcuts(self._keys())
        self._connect()
        session.listeners.append(self.update)

    def _connect(self) -> None:
        ui = self.ui
        ui.levelsUpButton.connect("clicked(bool)", lambda _checked=False: self._shift(1))
        ui.levelsDownButton.connect("clicked(bool)", lambda _checked=False: self._shift(-1))
        ui.levelsRightButton.connect("clicked(bool)", lambda _checked=False: self.session.live.confirm_levels())
        ui.fourUpButton.connect("clicked(bool)", lambda _checked=False: self._onFourUp())
        ui.cardLabel.connect("linkActivated(QString)", self._onLink)

    def _keys(self) -> dict[str, Any]:
        ui = self.ui
        keys = {"M": self._onMeasureKey, "Escape": self._onEscape, "R": self._onNextRegion,
                "F": lambda: self._toggle(ui.filledCheckBox), "W": self._onNextWindow,
                "Ctrl+Z": self.corrector.undo, "Ctrl+Y": self.corrector.redo, "Ctrl+Shift+Z": self.corrector.redo,
                "Return": lambda: self.review.sign(True), "Enter": lambda: self.review.sign(True)}
        for number, level in enumerate(LEVELS, 1):
            keys[str(number)] = lambda level=level: self.goTo(f"trabecular_{level}")
        return keys

    # --- module opened, left, scene closed -----------------------------------------------------------------------

    def enter(self) -> None:
        self.corrector.enter()
        self.shortcuts.install()
        if self.parameterNode is not None:
            self.models.fill(self.parameterNode.modelsPath)  # the Trainer may have exported a set meanwhile
        self.update()

    def exit(self) -> None:
        self.shortcuts.remove()
        self.corrector.release()

    def setParameterNode(self, parameterNode: Any) -> None:
        """Use the choices of this scene; None when the scene goes."""
        self.parameterNode = parameterNode
        if parameterNode is None:
            self.session.forgetScene()
            self._live = None
            self.bones.close()
            self.comparer.attach(None)
            self.corrector.forgetScene()
            return
        self.calibrations.fill(parameterNode.calibrationPath)
        self.models.fill(parameterNode.modelsPath)
        if not parameterNode.reader:
            parameterNode.reader = str(qt.QSettings().value(READER_SETTING) or "")
        self.session.takeUp()
        self.onParametersChanged()

    def close(self) -> None:
        """The module goes."""
        self.shortcuts.remove()
        self.runBar.close()
        self.bones.close()
        self.corrector.release()
        self.session.close()

    def onParametersChanged(self) -> None:
        """A choice changed, by a widget or in the scene."""
        node = self.parameterNode
        if node is None or slicer.mrmlScene.IsBatchProcessing():
            return
        if node.inputVolume is not self.session.volumeNode and not self.session.busy:
            self._choose(node.inputVolume)
        live = self.session.live
        if live is not None and not live.locked:
            live.set_erosion(node.erosion.value)
        self._applyView()
        self.update()

    def _choose(self, volumeNode: Any) -> None:
        self.session.choose(volumeNode)
        if volumeNode is not None:
            views.showVolume(volumeNode)
            views.setWindow(volumeNode, self.parameterNode.windowPreset.value)
            self._matchCalibration()

    def _matchCalibration(self) -> None:
        """Before a CT is measured, take the site's calibration for its scanner and voltage; a person may choose another."""
        node, volumeNode = self.parameterNode, self.session.volumeNode
        if volumeNode is None or self.session.live is not None:
            return
        path = self.calibrations.suggestion(acquisition_of(volumeNode), node.calibrationPath)
        if path != node.calibrationPath:
            node.calibrationPath = path
            self.calibrations.fill(path)
        self.update()

    def _applyView(self) -> None:
        node, volumeNode = self.parameterNode, self.session.volumeNode
        if volumeNode is not None:
            views.setWindow(volumeNode, node.windowPreset.value)
        if self.session.live is not None:
            views.drawRegions(self.session.live.study.segmentation_node, node.showFilled, node.opacity)

    # --- what is shown -------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Show the session as it is now."""
        if self.parameterNode is None:
            return
        live = self.session.live
        fresh = live is not self._live
        if fresh:
            self._follow(live)
        self._showSettings()
        self._showInput()
        self._showCard()
        self._showTable()
        self.corrector.update()
        self.comparer.update()
        self.review.show(self._state(), live.review if live else None)
        self.export.update()
        if fresh and live is not None:
            self._goToFirstLevel()

    def _state(self) -> str:
        return self.session.state

    def _follow(self, live: Any) -> None:
        """Another measurement, or none, is shown from now on."""
        self._live = live
        self.corrector.attach(live)
        self.comparer.attach(live)
        self.exclusion.cancel()
        self.review.begin()
        self.bones.show(live.study.segmentation_node if live else None)
        if live is not None:
            live.listeners.append(self.bones.refresh)
            views.drawRegions(live.study.segmentation_node, self.parameterNode.showFilled, self.parameterNode.opacity)

    def _goToFirstLevel(self) -> None:
        measurement = self._live.measurement
        seen = (*measurement.mean_of, *(level.name for level in measurement.levels if level.centre_lps_mm), LEVELS[1])
        level = seen[0]
        self.goTo(f"trabecular_{level}")
        position = _positionOf(self._live, f"trabecular_{level}")
        if position is not None:
            views.showSpine(ras_point(position))

    def _showInput(self) -> None:
        choice = self.calibrations.choice(self.parameterNode.calibrationPath)
        self.input.show(choice)
        self.models.show(self.session.live.networks if self.session.live else {})
        why = self.input.whyNot(choice) or self.models.whyNot()
        self.runBar.update(not why, why)

    def _showSettings(self) -> None:
        """The choices are those of the measurement that is shown, also after undo; a signed one has no others."""
        live, node = self.session.live, self.parameterNode
        for widget in (self.ui.calibrationComboBox, self.ui.calibrationFolderButton, self.ui.erosionComboBox):
            widget.enabled = live is None or not live.locked
        if live is None:
            return
        if live.rois.erosion in EROSIONS and node.erosion.value != live.rois.erosion:
            node.erosion = Erosion(live.rois.erosion)
        path = self.calibrations.pathOf(live.calibration, node.calibrationPath)
        if path != node.calibrationPath:
            node.calibrationPath = path
            self.calibrations.fill(path)

    def _showCard(self) -> None:
        live, state = self.session.live, self._state()
        lines = []
        if self.session.message:
            lines.append(_messageHtml(self.session.message, bool(self.session.log)))
        if state == NO_CT:
            lines.append(_noCtHtml())
        elif live is not None and state != RUNNING:
            if live.notice:
                lines.append(_messageHtml(live.notice, False))
            lines.append(cardHtml(live.measurement, live.state, live.automatic_mean_mg_cm3, live.review,
                                  live.stale_reason, live.touched))
        self.ui.cardLabel.text = "".join(lines)
        self.ui.cardFrame.visible = bool(lines)
        self.flags.show(notes(live.measurement) if live is not None and state != RUNNING else [])

    def _showTable(self) -> None:
        live, ui = self.session.live, self.ui
        shown = live is not None and self._state() != RUNNING
        if shown:
            self.table.show(live.measurement, live.locked)
        else:
            self.table.clear()
        uncertain = shown and any(flag.code == LEVEL_UNCERTAIN for flag in live.measurement.flags)
        for button in (ui.levelsUpButton, ui.levelsDownButton):
            button.visible = shown
            button.enabled = shown and not live.locked and bool(live.rois.spine)
        ui.levelsRightButton.visible = uncertain
        ui.levelsRightButton.enabled = uncertain and not live.locked
        for widget in (ui.windowComboBox, ui.filledCheckBox, ui.opacitySlider, ui.fourUpButton):
            widget.visible = self._state() != NO_CT
        ui.reviewFrame.visible = shown

    # --- what the reader does ------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Start a run on the chosen CT."""
        node = self.parameterNode
        choice = self.calibrations.choice(node.calibrationPath)
        if choice.calibration is None or self.session.volumeNode is None or not self.packages.complete():
            return
        if self._wouldLoseEdits() and not slicer.util.confirmYesNoDisplay(
                _("Your corrections of this CT will be replaced. Measure again?"), windowTitle="LowDoseBMD"):
            return
        views.showFourUp()
        self.session.measure(node.erosion.value, node.device.value, choice.calibration,
                             Path(node.modelsPath) if node.modelsPath else None)

    def _wouldLoseEdits(self) -> bool:
        live = self.session.live
        return live is not None and live.touched

    def goTo(self, structure: str) -> None:
        """Centre the views on a structure and preset the editor to it."""
        live = self.session.live
        if live is None:
            return
        self.corrector.select(structure)
        self.table.select(structure)
        position = _positionOf(live, structure)
        if position is not None:
            views.centreOn(ras_point(position))

    def _onShowFlag(self, flag: Any) -> None:
        if flag.level is not None:
            self.goTo(f"trabecular_{flag.level}")
        if flag.position_lps_mm is not None:
            views.centreOn(ras_point(flag.position_lps_mm))

    def _onUse(self, level: str, used: bool) -> None:
        if used:
            self.session.live.set_used(level, True)
        else:
            self.exclusion.ask(level)

    def _onExcluded(self, level: str, reason: str) -> None:
        if self.session.live is not None:
            self.session.live.set_used(level, False, reason)

    def _shift(self, step: int) -> None:
        try:
            self.session.live.shift_levels(step)
        except ValueError as error:
            self.session.say(str(error))

    def _onSign(self, accepted: bool, reader: str, comment: str) -> None:
        live, now = self.session.live, datetime.now().astimezone()
        try:
            (live.accept if accepted else live.reject)(reader, comment, now)
            qt.QSettings().setValue(READER_SETTING, reader)
        except ValueError as error:
            self.session.say(str(error))

    def _onReopen(self, reason: str) -> None:
        self.session.live.reopen(reason)

    def _onCalibrationChosen(self, path: str) -> None:
        choice, live = self.calibrations.choice(path), self.session.live
        if choice.calibration is None:
            self.calibrations.fill(self.parameterNode.calibrationPath)
            self.session.say(choice.problem)
            return
        self.parameterNode.calibrationPath = path
        if live is not None:
            live.set_calibration(choice.calibration)
        self.update()

    def _onModelsChosen(self, path: str) -> None:
        self.parameterNode.modelsPath = path
        self.update()

    def _onLink(self, link: str) -> None:
        kind, _colon, target = link.partition(":")
        if kind == "draw":
            self.corrector.open(target)
            self.goTo(target)
        elif kind == "log":
            slicer.util.infoDisplay(self.session.message, windowTitle="LowDoseBMD", detailedText=self.session.log)
        elif kind == "module":
            slicer.util.selectModule(target)
        elif kind == "phantom":
            self.session.say(_("The synthetic CT is being made, about half a minute."))
            PhantomMaker.start(self._onPhantom)

    def _onPhantom(self, volumeNode: Any) -> None:
        if self.parameterNode is not None:
            self.parameterNode.inputVolume = volumeNode

    # --- keys ----------------------------------------------------------------------------------------------------

    def _onMeasureKey(self) -> None:
        if self._state() != RUNNING:
            self.runBar.press()

    def _onEscape(self) -> None:
        if self.corrector.placing:
            self.corrector.endPlacing()
        elif self.exclusion.asking:
            self.exclusion.cancel()
        else:
            self.runBar.cancel()

    def _onNextRegion(self) -> None:
        structure = self.corrector.next()
        if structure:
            self.goTo(structure)

    def _onNextWindow(self) -> None:
        presets = list(WindowPreset)
        place = presets.index(self.parameterNode.windowPreset)
        self.parameterNode.windowPreset = presets[(place + 1) % len(presets)]

    def _onFourUp(self) -> None:
        views.showFourUp()
        if self.session.volumeNode is not None:
            views.showVolume(self.session.volumeNode)

    def _toggle(self, checkBox: Any) -> None:
        if checkBox.enabled:
            checkBox.checked = not checkBox.checked


def _positionOf(live: Any, structure: str) -> tuple[float, float, float] | None:
    """Where a structure lies, LPS mm: a level's centre, otherwise the middle of the region; None when it is empty."""
    kind, level = structure.partition("_")[::2]
    if kind in ("body", "trabecular") and level in LEVELS:
        measured = live.measurement.level(level)
        if measured.centre_lps_mm is not None:
            return measured.centre_lps_mm
    mask = live.rois.masks.get(structure)
    if mask is None or mask.empty:
        return None
    return centre_of(mask, live.rois.geometry)


def _messageHtml(message: str, withLog: bool) -> str:
    text = html.escape(message).replace("\n", "<br>")
    if withLog:
        text += f" <a href='log:'>{_('Show the log')}</a>"
    return f"<div style='color:#a11622'>{text}</div>"


def _noCtHtml() -> str:
    return _("No CT is chosen. <a href='module:DICOM'>Load a chest CT from DICOM</a>, drop a file into the window, or try "
             "<a href='phantom:'>a synthetic CT</a> whose vBMD is known (made here, nothing is fetched).")
