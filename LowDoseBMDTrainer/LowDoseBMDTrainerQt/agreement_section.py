"""Agreement: two annotators of the current case in numbers, where they differ, and the start of a second reading."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from LowDoseBMDLib.geometry import ras_point
from LowDoseBMDQt.views import centreOn
from LowDoseBMDTrainerLib.cases import Case, readers_of
from LowDoseBMDTrainerLib.compare_files import RECORD, PairCompared, read_pairs
from LowDoseBMDTrainerMRML.disagreement import MapParts, create_map, read_map, remove_map
from slicer.i18n import tr as _

from .background import Background
from .evaluate_section import numberText, titleOf
from .section import CommandSection, fillCombo, fillTable, prepareTable

AGREEMENT = "agreement"
"""Folder of a project: a comparison of each case in a folder of its name."""

STRUCTURE, DICE, NSD, HD95, MEAN = range(5)
SCORE_WIDTHS = {DICE: 52, NSD: 76, HD95: 80, MEAN: 80}
SPOT_WIDTHS = {1: 84, 2: 96, 3: 84}


class AgreementSection(CommandSection):
    """The section Agreement.

    Of the host it uses besides: ``volumeNode``, the CT of the open case, and ``openReading(case)``, which opens the case as
    a second reading of the annotator.
    """

    FORM = "AgreementSection"

    def __init__(self, frame: Any, host: Any) -> None:
        super().__init__(frame, host, "compareButton", withPackages=False)
        self._readers: list[str] = []
        self._pairs: tuple[PairCompared, ...] = ()
        self._case = ""
        self._map: Any = None
        self._mapOf: PairCompared | None = None
        self._background = Background()
        ui = self.ui
        prepareTable(ui.scoresTable, SCORE_WIDTHS, STRUCTURE)
        prepareTable(ui.spotsTable, SPOT_WIDTHS, STRUCTURE)
        for box in (ui.firstComboBox, ui.secondComboBox):
            box.connect("currentIndexChanged(int)", lambda _index=0: self._showPair())
        ui.secondReadingButton.connect("clicked(bool)", lambda _checked=False: self.readAgain())
        ui.mapCheckBox.connect("toggled(bool)", lambda _checked=False: self._showMap())
        ui.spotsTable.connect("cellClicked(int,int)", lambda row, _column: self._onPlace(row))

    # --- what is shown -------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The second readings of the open case, to compare with its labels."""
        case, ui = self.host.currentCase, self.ui
        self.widget.enabled = case is not None
        if case is None:
            ui.factsLabel.text = _("Open a case first.")
            self._pairs, self._readers, self._case = (), [], ""
        else:
            self._readers = annotatorsOf(case)
            ui.factsLabel.text = factsText(case, self._readers)
            self._readPairs(case)
        self._fillReaders()
        ui.secondReadingButton.visible = hasattr(self.host, "openReading")
        self._showPair()
        self.tick()

    def tick(self) -> None:
        super().tick()
        ui, running = self.ui, self.process.running
        ui.compareButton.enabled = running or len(self._readers) > 1
        ui.compareButton.toolTip = "" if len(self._readers) > 1 else _("Two people must have drawn the case.")
        ui.secondReadingButton.enabled = self.host.currentCase is not None

    def _readPairs(self, case: Case) -> None:
        try:
            self._pairs = read_pairs(self._folder(case))
        except ValueError as error:
            self._pairs = ()
            self.say(str(error))
        self._case = case.name

    def _folder(self, case: Case) -> Path:
        return self.host.project.folder / AGREEMENT / case.name

    def _fillReaders(self) -> None:
        entries = [(name, name) for name in self._readers]
        ui = self.ui
        fillCombo(ui.firstComboBox, entries, ui.firstComboBox.currentData or (self._readers or [""])[0])
        second = ui.secondComboBox.currentData
        if second not in self._readers or second == ui.firstComboBox.currentData:
            second = next((name for name in self._readers if name != ui.firstComboBox.currentData), "")
        fillCombo(ui.secondComboBox, entries, second)
        if second:
            ui.secondComboBox.setCurrentIndex(self._readers.index(second))

    @property
    def pair(self) -> PairCompared | None:
        """The comparison of the two who are chosen; None when there is none."""
        chosen = {self.ui.firstComboBox.currentData, self.ui.secondComboBox.currentData}
        return next((pair for pair in self._pairs if set(pair.readers) == chosen), None)

    def _showPair(self) -> None:
        ui, pair = self.ui, self.pair
        fillTable(ui.scoresTable, scoreRows(pair) if pair else [])
        ui.keypointsLabel.text = keypointsHtml(pair) if pair else ""
        ui.keypointsLabel.visible = bool(ui.keypointsLabel.text)
        fillTable(ui.spotsTable, placeRows(pair) if pair else [])
        ui.spotsLabel.visible = bool(pair and pair.places)
        ui.mapCheckBox.enabled = pair is not None and getattr(self.host, "volumeNode", None) is not None
        self._showMap()

    def _onPlace(self, row: int) -> None:
        if self.pair is not None and 0 <= row < len(self.pair.places):
            centreOn(ras_point(self.pair.places[row].position_lps_mm))

    # --- the map -------------------------------------------------------------------------------------------------

    def _showMap(self) -> None:
        """Show the map of the chosen pair, or take it away; it is read in the background."""
        wanted = self.pair if self.ui.mapCheckBox.checked and self.ui.mapCheckBox.enabled else None
        if wanted == self._mapOf and (self._map is None or self._map.GetScene() is not None):
            return
        self._removeMap()
        self._mapOf = wanted
        if wanted is not None:
            self._background.run(lambda: read_map(wanted.map), lambda parts: self._onMap(wanted, parts),
                                 lambda error: self.say(_("The map cannot be shown: {error}").format(error=error)))

    def _onMap(self, pair: PairCompared, parts: MapParts) -> None:
        volumeNode = getattr(self.host, "volumeNode", None)
        if pair is not self._mapOf or volumeNode is None:  # another one was asked for meanwhile
            return
        try:
            self._map = create_map(volumeNode, parts, pair.readers)
        except ValueError as error:
            self.say(_("The map cannot be shown: {error}").format(error=error))

    def _removeMap(self) -> None:
        if self._map is not None:
            remove_map(self._map)
        self._map, self._mapOf = None, None

    # --- what a person does --------------------------------------------------------------------------------------

    def readAgain(self) -> None:
        """Open the case as a second reading of who sits here now."""
        case = self.host.currentCase
        if self.host.annotator == case.annotator:
            self.say(_("{who} drew the labels of this case: a second reading is another person's. Give your own initials in "
                       "the field Annotator.").format(who=case.annotator))
        else:
            self.say("")
            self.host.openReading(case)

    def begin(self) -> None:
        """Compare all readings of the current case."""
        case = self.host.currentCase
        folder = self._folder(case)
        self._removeMap()
        self.run(["compare", str(self.host.project.folder), "--case", case.name, "--out", str(folder)],
                 folder.with_name(f".{folder.name}.txt"), lambda: None, folder / RECORD)

    def close(self) -> None:
        self._removeMap()
        self._background.close()
        super().close()


# --- in words ----------------------------------------------------------------------------------------------------

def annotatorsOf(case: Case) -> list[str]:
    """Who has drawn a case: who drew its labels first, then the second readers."""
    return list(dict.fromkeys([*filter(None, [case.annotator]), *readers_of(case)]))


def factsText(case: Case, readers: list[str]) -> str:
    """Who has drawn the case."""
    if not readers:
        return _("{case}: nobody has drawn it yet.").format(case=case.name)
    if len(readers) == 1:
        return _("{case}: drawn by {who} only.").format(case=case.name, who=readers[0])
    return _("{case}: drawn by {who}.").format(case=case.name, who=", ".join(readers))


def scoreRows(pair: PairCompared) -> list[list[str]]:
    """One row a structure."""
    return [[titleOf(one.name), numberText(one.dice, 2), numberText(one.nsd, 2), numberText(one.hd95_mm, 1),
             numberText(one.mean_mm, 2)] for one in pair.structures]


def placeRows(pair: PairCompared) -> list[list[str]]:
    """One row a place where they differ, the largest first."""
    return [[titleOf(one.structure), pair.readers[one.reader], f"{one.volume_cm3:.2f}", numberText(one.reach_mm, 1)]
            for one in pair.places]


def keypointsHtml(pair: PairCompared) -> str:
    """How far apart the two set each level, as rich text."""
    texts = [_("{level}: {mm:.1f} mm apart").format(level=level, mm=mm) if mm is not None
             else _("{level}: set by one only").format(level=level) for level, mm in pair.keypoint_mm.items()]
    return html.escape(" · ".join(texts))
