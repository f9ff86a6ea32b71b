"""Evaluate: scores of a run or a set of models on completed cases, the worst cases, and the report."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import qt
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.bundle import EMBEDDED, model_sets
from LowDoseBMDTrainerLib.runs import Runs, RunState
from LowDoseBMDTrainerLib.score_files import PAGE, SCORES, ScoredGroup, Scores, read_scores
from slicer.i18n import tr as _

from .run_words import completed
from .section import CommandSection, fillCombo, fillTable, prepareTable, warningHtml

EVALUATION = "evaluation"
"""Folder of the evaluation in that of a run; those of sets of models lie in PROJECT/evaluations/NAME."""
EVALUATIONS = "evaluations"

STRUCTURE, DICE, WORST, NSD, HD95 = range(5)
SCORE_WIDTHS = {DICE: 52, WORST: 56, NSD: 84, HD95: 92}
CASE_COLUMN, WHY_COLUMN = range(2)

ALL, HELD_OUT = "all", "held out"


class EvaluateSection(CommandSection):
    """The section Evaluate. The host's openCase(case) is called when one of the worst cases is clicked."""

    FORM = "EvaluateSection"

    def __init__(self, frame: Any, host: Any) -> None:
        super().__init__(frame, host, "evaluateButton")
        self._runs: Runs | None = None
        self._names: list[str] = []
        self._ready = False
        ui = self.ui
        prepareTable(ui.scoresTable, SCORE_WIDTHS, STRUCTURE)
        prepareTable(ui.worstTable, {CASE_COLUMN: 70}, WHY_COLUMN)
        ui.modelsComboBox.connect("currentIndexChanged(int)", lambda _index=0: self.update())
        ui.worstTable.connect("cellClicked(int,int)", lambda row, _column: self._onWorst(row))
        ui.reportButton.connect("clicked(bool)", lambda _checked=False: self.openReport())

    # --- what is shown -------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The runs of the project, to score one."""
        project = self.openedProject(self.ui.factsLabel)
        if project is None:
            return
        if self._runs is None or self._runs.folder != project.runs_folder:
            self._runs = Runs(project.runs_folder)
        self._fill()
        cases = completed(project.cases())
        self.ui.factsLabel.text = _("{count} completed cases can be scored.").format(count=len(cases))
        self._ready = bool(cases) and self.ui.modelsComboBox.count > 0
        self._showScores()
        self.tick()

    def tick(self) -> None:
        super().tick()
        self.ui.evaluateButton.enabled = self.process.running or self._ready
        self.ui.modelsComboBox.enabled = self.ui.casesComboBox.enabled = not self.process.running

    def _fill(self) -> None:
        box = self.ui.modelsComboBox
        entries = [(_("run {name}").format(name=run.name), str(run.folder)) for run in self._runs.read()
                   if run.has_best and run.state is not RunState.RUNNING]
        entries.append((_("LowDoseBMD's own models"), EMBEDDED))
        entries += [(_("models {name}").format(name=each.name), str(each.folder)) for each in model_sets(verify=False)[1:]
                    if not each.problem]
        fillCombo(box, entries, box.currentData or "")
        cases = [(_("all completed cases"), ALL)]
        run = next((run for run in self._runs.read() if str(run.folder) == box.currentData), None)
        if run is not None and run.log.validation_cases:
            cases.insert(0, (_("held out of the training ({count})").format(count=len(run.log.validation_cases)), HELD_OUT))
        fillCombo(self.ui.casesComboBox, cases, self.ui.casesComboBox.currentData or "")

    @property
    def folder(self) -> Path | None:
        """Where the evaluation of what is chosen lies, or will."""
        chosen = self.ui.modelsComboBox.currentData
        if self.host.project is None or not chosen:
            return None
        if Path(chosen).parent == self.host.project.runs_folder:
            return Path(chosen) / EVALUATION
        return self.host.project.folder / EVALUATIONS / Path(chosen).name

    def _showScores(self) -> None:
        ui, scores = self.ui, None
        try:
            scores = read_scores(self.folder) if self.folder is not None else None
        except ValueError as error:
            self.say(str(error))
        group = scores.groups[0] if scores is not None and scores.groups else None
        fillTable(ui.scoresTable, structureRows(group) if group else [])
        ui.keypointsLabel.text = levelsHtml(group) if group else ""
        ui.keypointsLabel.visible = bool(ui.keypointsLabel.text)
        worst = scores.worst if scores is not None else ()
        self._names = [one.case for one in worst]
        fillTable(ui.worstTable, [[one.case, f"{titleOf(one.subject)}: {one.caption}"] for one in worst])
        ui.worstLabel.visible = bool(self._names)
        ui.reportButton.enabled = self.folder is not None and (self.folder / PAGE).exists()
        if scores is not None:
            ui.factsLabel.text = ui.factsLabel.text + "<br>" + groupHtml(scores)

    # --- what a person does --------------------------------------------------------------------------------------

    def begin(self) -> None:
        chosen, folder = self.ui.modelsComboBox.currentData, self.folder
        arguments = ["evaluate", chosen, str(self.host.project.folder), "-o", str(folder), "--json"]
        run = next((run for run in self._runs.read() if str(run.folder) == chosen), None)
        if run is not None and self.ui.casesComboBox.currentData == HELD_OUT:
            arguments += ["--cases", *run.log.validation_cases]
        self.run(arguments, folder.with_name(f".{folder.name}.txt"), lambda: None, folder / SCORES)

    def _onWorst(self, row: int) -> None:
        if 0 <= row < len(self._names):
            try:
                self.host.openCase(self.host.project.case(self._names[row]))
            except ValueError as error:
                self.say(str(error))

    def openReport(self) -> None:
        """Show the report in the browser."""
        if self.folder is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.folder / PAGE)))


# --- in words ----------------------------------------------------------------------------------------------------

def structureRows(group: ScoredGroup) -> list[list[str]]:
    """One row a structure: title, median Dice and the worst one, NSD, HD95."""
    return [[titleOf(one.structure), numberText(one.dice, 2), numberText(one.worst_dice, 2), numberText(one.nsd, 2),
             numberText(one.hd95_mm, 1)] for one in group.structures]


def levelsHtml(group: ScoredGroup) -> str:
    """Distance and identification of each level, as rich text; empty when none was scored."""
    return "<br>".join(html.escape(_("{level}: {error} mm off (median), identified in {right} of {cases}").format(
        level=one.level, error=numberText(one.error_mm, 1), right=one.identified, cases=one.cases))
        for one in group.levels)


def groupHtml(scores: Scores) -> str:
    """Which cases the numbers are of, and what that is worth, as rich text."""
    if not scores.groups:
        return warningHtml(_("No case could be scored."))
    first, *others = scores.groups
    meaning = {"not trained on": _("cases that were not trained on"), "held out": _("cases held out of the training"),
               "trained on": _("cases that were trained on: how well it remembers, not how well it does on new scans"),
               "not known": _("cases of which it is not known whether they were trained on")}
    text = html.escape(_("Shown: {what}, {cases} of {patients} patients (medians).").format(
        what=meaning.get(first.name, first.name), cases=first.cases, patients=first.patients))
    if first.name in ("trained on", "not known"):
        text = f"<span style='color:#8a5a00'>{text}</span>"
    if others:
        text += " " + html.escape(_("The report has the other {count} cases too.").format(
            count=sum(group.cases for group in others)))
    if scores.left_out:
        text += "<br>" + warningHtml(_("Not scored: {cases}.").format(
            cases="; ".join(f"{case}: {why}" for case, why in scores.left_out)))
    return text


def titleOf(structure: str) -> str:
    """What a person calls a structure."""
    return STRUCTURES[structure].title if structure in STRUCTURES else structure


def numberText(value: float | None, digits: int) -> str:
    """A number, or a hyphen for what was not found."""
    return "-" if value is None else f"{value:.{digits}f}"
