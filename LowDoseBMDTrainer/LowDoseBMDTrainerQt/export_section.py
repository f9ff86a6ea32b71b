"""Export: a run's best network into a set of models that LowDoseBMD lists at once, a MONAI bundle, labels for ITK-SNAP."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDLib.bundle import user_models_folder
from LowDoseBMDTrainerLib.runs import Run, Runs, RunState, folder_name, free_name, task_of
from LowDoseBMDTrainerLib.score_files import CARD, SCORES
from LowDoseBMDTrainerLib.training_log import BEST
from slicer.i18n import tr as _

from .evaluate_section import EVALUATION
from .run_words import scoreText
from .section import TITLE, CommandSection, fillCombo, link, warningHtml

FIRST_VERSION = "0.1"
FOLDER_SETTING = "LowDoseBMDTrainer/ExportFolder"
LOWDOSEBMD = "LowDoseBMD"


class ExportSection(CommandSection):
    """The section Export."""

    FORM = "ExportSection"

    def __init__(self, frame: Any, host: Any) -> None:
        super().__init__(frame, host, "exportButton")
        self._runs: Runs | None = None
        self._listed: tuple[Run, ...] = ()
        ui = self.ui
        ui.versionLineEdit.text = FIRST_VERSION
        ui.runComboBox.connect("currentIndexChanged(int)", lambda _index=0: self._showFacts())
        ui.setLineEdit.connect("textChanged(QString)", lambda _text="": self._showFacts())
        ui.monaiButton.connect("clicked(bool)", lambda _checked=False: self.exportMonai())
        ui.itksnapButton.connect("clicked(bool)", lambda _checked=False: self.exportLabels())
        ui.resultLabel.connect("linkActivated(QString)", _open)
        ui.cardBrowser.connect("anchorClicked(QUrl)", lambda _url: None)

    # --- what is shown -------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The runs of the project, to make one a set of models."""
        project = self.openedProject(self.ui.factsLabel)
        if project is None:
            return
        if self._runs is None or self._runs.folder != project.runs_folder:
            self._runs = Runs(project.runs_folder)
            self.ui.setLineEdit.text = folder_name(project.title)
            self._showResult("")
        self._listed = tuple(run for run in self._runs.read() if run.has_best and run.state is not RunState.RUNNING)
        entries = [(f"{run.name} ({task_of(run)}, {scoreText(run.log)})", str(run.folder)) for run in self._listed]
        fillCombo(self.ui.runComboBox, entries, self.ui.runComboBox.currentData or "")
        self._showFacts()

    def _showFacts(self) -> None:
        ui, run = self.ui, self.chosen
        if run is None:
            text = _("Train a network first.")
        elif self.evaluation is None:
            text = warningHtml(_("Not evaluated: the card of the model will have no scores."))
        else:
            text = _("The card of the model gets the scores of the evaluation.")
        place = self._place(run) if run is not None else None
        if place is not None and place.exists():
            text += "<br>" + warningHtml(_("The set {name} has a network of this kind; it would be replaced.").format(
                name=self.setName))
        ui.factsLabel.text = text
        self.tick()

    def tick(self) -> None:
        super().tick()
        ui, running = self.ui, self.process.running
        ui.exportButton.enabled = running or (self.chosen is not None and bool(self.setName))
        ui.monaiButton.enabled = not running and self.chosen is not None
        ui.itksnapButton.enabled = not running and self.host.currentCase is not None

    @property
    def chosen(self) -> Run | None:
        folder = self.ui.runComboBox.currentData
        return next((run for run in self._listed if str(run.folder) == folder), None)

    @property
    def setName(self) -> str:
        """Name of the set, such as a folder may have; empty when none is given."""
        text = self.ui.setLineEdit.text.strip()
        return folder_name(text) if text else ""

    @property
    def evaluation(self) -> Path | None:
        """The evaluation of the chosen run's network as it is now; None when there is none, or it is of an earlier one."""
        run = self.chosen
        try:
            folder = run.folder / EVALUATION
            fresh = (folder / SCORES).stat().st_mtime >= (run.folder / BEST).stat().st_mtime
        except (OSError, AttributeError):
            return None
        return folder if fresh else None

    def _place(self, run: Run) -> Path | None:
        return user_models_folder() / self.setName / task_of(run) if self.setName else None

    # --- what a person does --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Export the chosen run for LowDoseBMD."""
        run, name = self.chosen, self.setName
        place = self._place(run)
        arguments = [*self._export(run), "--install", name]
        if place.exists():
            if not slicer.util.confirmYesNoDisplay(_("The set {name} has a network {task} already. Replace it?").format(
                    name=name, task=task_of(run)), windowTitle=TITLE):
                return
            arguments.append("--replace")
        self._showResult("")
        self.run(arguments, self._output("export"), lambda: self._onExported(place, name))

    def _export(self, run: Run) -> list[str]:
        scores = ["--evaluation", str(self.evaluation)] if self.evaluation is not None else []
        return ["export", str(run.folder), "--version", self.ui.versionLineEdit.text.strip() or FIRST_VERSION, *scores]

    def _onExported(self, place: Path, name: str) -> None:
        self._showResult(_("LowDoseBMD lists these models now as <b>{name}</b> (Settings, Models). "
                           "<a href='module:{module}'>Measure with them</a>").format(name=html.escape(name),
                                                                                     module=LOWDOSEBMD), place / CARD)

    def exportMonai(self) -> None:
        """Write the chosen run's network as a bundle, and as a MONAI bundle, into a folder."""
        folder = self._askFolder(_("Folder for the MONAI bundle"))
        if folder is None or not self.packages.complete():
            return
        out = folder / free_name(folder, self.setName or self.chosen.name)
        task = task_of(self.chosen)
        self._showResult("")
        self.run([*self._export(self.chosen), "-o", str(out), "--monai"], self._output("monai"),
                 lambda: self._showResult(_("Written to {folder}").format(folder=link(out / "monai" / task, str(out))),
                                          out / task / CARD))

    def exportLabels(self) -> None:
        """Write CT, labels, label descriptions and workspace of the current case for ITK-SNAP."""
        case = self.host.currentCase
        folder = self._askFolder(_("Folder for the files of ITK-SNAP"))
        if folder is None or case is None:
            return
        out = folder / free_name(folder, f"{case.name}-itksnap")
        self._showResult("")
        self.run(["labels", str(self.host.project.folder), case.name, "--itksnap", str(out)], self._output("labels"),
                 lambda: self._showResult(_("Written to {folder}").format(folder=link(out, str(out)))))

    def _askFolder(self, title: str) -> Path | None:
        settings = qt.QSettings()
        folder = qt.QFileDialog.getExistingDirectory(None, title, str(settings.value(FOLDER_SETTING) or ""))
        if not folder:
            return None
        settings.setValue(FOLDER_SETTING, folder)
        return Path(folder)

    def _output(self, command: str) -> Path:
        return Path(slicer.app.temporaryPath) / f"LowDoseBMDTrainer-{command}.txt"

    def _showResult(self, text: str, card: Path | None = None) -> None:
        ui = self.ui
        ui.resultLabel.text = text
        ui.resultLabel.visible = bool(text)
        shown = _textOf(card) if card is not None else ""
        ui.cardBrowser.setMarkdown(shown)
        ui.cardBrowser.visible = bool(shown)


def _textOf(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _open(target: str) -> None:
    kind, _colon, name = target.partition(":")
    if kind == "module":
        slicer.util.selectModule(name)
    else:
        qt.QDesktopServices.openUrl(qt.QUrl(target))
