"""Train: data, network, time; the curves while it runs; and the runs of the project, which outlive the window.

A training is a process of its own that writes into its folder, PROJECT/runs/NAME. It goes on when Slicer is closed; the
panel finds it again by the lock that it holds. Cancel asks it to end and keeps the best network so far.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDLib.bundle import MODELS, model_sets
from LowDoseBMDQt.models_box import networkName
from LowDoseBMDTrainerLib.cases import Case
from LowDoseBMDTrainerLib.runs import Run, Runs, RunState, free_name, task_of, write_command
from LowDoseBMDTrainerLib.training_log import ask_to_stop
from LowDoseBMDTrainerMRML.curves import Curves, create_curves, remove_curves, update_curves
from slicer.i18n import tr as _

from .run_words import completed, dataHtml, hasAnatomy, progressText, runRow, runTip
from .section import CommandSection, fillCombo, fillTable, prepareTable, problemHtml
from .trainer_process import TrainerProcess, outputOf

OUTPUT = "output.txt"
"""File in a run's folder: what its process said."""

NAME, NETWORK, STATE, STEP, SCORE = range(5)
WIDTHS = {NETWORK: 88, STATE: 84, STEP: 64, SCORE: 84}

EMBEDDED, SCRATCH = "embedded", "none"
"""Starts of ``lowdosebmd-train train``, besides folders."""

SMALLER_SAMPLES = (96, 64)
"""Sides in voxels; the time of a step follows their cube."""

FOLLOW_MS = 1000


class TrainSection(CommandSection):
    """The section Train."""

    FORM = "TrainSection"

    def __init__(self, frame: Any, host: Any) -> None:
        super().__init__(frame, host, "startButton", lasting=True)
        self._expecting = TrainerProcess()
        self._expected = ""
        self._runs: Runs | None = None
        self._listed: tuple[Run, ...] = ()
        self._cases: tuple[Case, ...] = ()
        self._started: Path | None = None
        self._curves: Curves | None = None
        self._drawn = self._offered = ""
        self._shownRun: Run | None = None
        self._stopping = False
        ui = self.ui
        for task in MODELS:
            ui.taskComboBox.addItem(networkName(task), task)
        for title, device in ((_("automatic"), "auto"), (_("processor"), "cpu"), (_("graphics card (CUDA)"), "cuda")):
            ui.deviceComboBox.addItem(title, device)
        ui.patchComboBox.addItem(_("full size"), "0")
        for side in SMALLER_SAMPLES:
            ui.patchComboBox.addItem(_("{side} voxels wide").format(side=side), str(side))
        prepareTable(ui.runsTable, WIDTHS, NAME)
        self._connect()
        self._follower = qt.QTimer()
        self._follower.interval = FOLLOW_MS
        self._follower.connect("timeout()", self.follow)
        self._fillFolds()

    def _connect(self) -> None:
        ui = self.ui
        for box in (ui.taskComboBox, ui.startComboBox, ui.deviceComboBox, ui.foldComboBox, ui.patchComboBox):
            box.connect("currentIndexChanged(int)", lambda _index=0: self._onSetting())
        for spin in (ui.minutesSpinBox, ui.seedSpinBox):
            spin.connect("valueChanged(int)", lambda _value=0: self._onSetting())
        ui.foldsSpinBox.connect("valueChanged(int)", lambda _value=0: self._fillFolds())
        ui.syntheticCheckBox.connect("toggled(bool)", lambda _checked=False: self._onSetting())
        ui.expectationLabel.connect("linkActivated(QString)", lambda _link="": self.expect())
        ui.runsTable.connect("currentCellChanged(int,int,int,int)", lambda *_cells: self._onRun())
        ui.continueButton.connect("clicked(bool)", lambda _checked=False: self.goOn())
        ui.lossButton.connect("clicked(bool)", lambda _checked=False: self.showCurve("loss"))
        ui.scoresButton.connect("clicked(bool)", lambda _checked=False: self.showCurve("scores"))

    # --- what is shown -------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The runs of the project with how far each is, and what a new one would train on."""
        project = self.openedProject(self.ui.dataLabel)
        if project is None:
            self._follower.stop()
            return
        if self._runs is None or self._runs.folder != project.runs_folder:
            self._runs, self._listed = Runs(project.runs_folder), ()
            fillTable(self.ui.runsTable, [])
            self._forgetCurves()
        self._cases = project.cases()
        self.ui.dataLabel.text = dataHtml(self._cases)
        self._readRuns()
        self._fillStarts()
        self._offerName()
        self._showExpectation()
        self._follower.start()

    def follow(self) -> None:
        """While the section is unfolded or a training runs: look at the runs again."""
        if self._runs is None or not (self.shown or self.process.running or self._running() is not None):
            self._follower.stop()
            return
        self._readRuns()

    def _readRuns(self) -> None:
        listed = self._runs.read()
        if listed != self._listed or not self.ui.runsTable.rowCount:
            self._listed = listed
            fillTable(self.ui.runsTable, [runRow(run) for run in listed], [runTip(run) for run in listed])
        self.tick()
        self._drawCurves()

    def _chosen(self) -> Run | None:
        row = self.ui.runsTable.currentRow()
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def _running(self) -> Run | None:
        """The run that goes on now, whoever started it."""
        return next((run for run in self._listed if run.state is RunState.RUNNING), None)

    def tick(self) -> None:
        """The button, and how far the run is."""
        ui, run = self.ui, self._running()
        busy = self.process.running or run is not None
        if not busy:
            self._stopping = False
        stopping = self._stopping
        self._button.text = _("Cancel, keep the best") if busy else self._title
        self._button.enabled = not stopping if busy else not self._whyNot()
        self._button.toolTip = _("End the training; the best network so far is kept.") if busy else self._whyNot()
        ui.progressBar.visible = ui.progressLabel.visible = busy
        ui.progressBar.maximum = 1000 if run is not None and run.log.points else 0
        if run is not None and run.log.points:
            ui.progressBar.value = round(1000 * run.log.step / max(1, run.log.steps))
        ui.progressLabel.text = html.escape(self._progressText(run))
        chosen = self._chosen()
        ui.continueButton.enabled = not busy and chosen is not None and chosen.can_go_on
        for button in (ui.lossButton, ui.scoresButton):
            button.enabled = chosen is not None

    def _progressText(self, run: Run | None) -> str:
        if self._stopping:
            return _("stopping; the best network is kept")
        if run is None and any(each.folder == self._started and each.log.reason for each in self._listed):
            return _("ending")
        return progressText(run)

    def _whyNot(self) -> str:
        """Why no training can be started; empty when one can."""
        if self.host.project is None:
            return _("Open a project first.")
        if completed(self._cases):
            return ""
        if any(map(hasAnatomy, self._cases)):
            return "" if self.ui.syntheticCheckBox.checked else _("Complete a case, or learn from synthetic CTs.")
        return _("Complete a case first: networks learn from completed cases.")

    # --- settings ------------------------------------------------------------------------------------------------

    def _fillFolds(self) -> None:
        parts = self.ui.foldsSpinBox.value
        fillCombo(self.ui.foldComboBox, [(_("part {number}").format(number=n + 1), str(n)) for n in range(parts)], "0")
        self.ui.foldComboBox.enabled = parts > 1
        self._onSetting()

    def _fillStarts(self) -> None:
        task = self.ui.taskComboBox.currentData
        own, *sets = model_sets(verify=False)
        entries = [(_("LowDoseBMD's own network"), EMBEDDED)] if task in own.holds else []
        entries.append((_("nothing (random weights)"), SCRATCH))
        entries += [(_("run {name}").format(name=run.name), str(run.folder)) for run in self._listed
                    if run.has_best and task_of(run) == task and run.state is not RunState.RUNNING]
        entries += [(_("models {name}").format(name=each.name), str(each.folder)) for each in sets if task in each.holds]
        fillCombo(self.ui.startComboBox, entries, self.ui.startComboBox.currentData or EMBEDDED)

    def _onSetting(self) -> None:
        self._expected = ""
        self._expecting.cancel()
        if self.host.project is not None and self._runs is not None:
            self._offerName()
            self._fillStarts()
            self._showExpectation()
            self.tick()

    def _offerName(self) -> None:
        """A name after network and day, as long as a person gives none."""
        if self.ui.nameLineEdit.text in ("", self._offered):
            self.ui.nameLineEdit.text = self._offered = self._newName()

    def _newName(self) -> str:
        base = _("{network} {date}").format(network=self.ui.taskComboBox.currentData, date=time.strftime("%Y-%m-%d"))
        return free_name(self._runs.folder, base)

    def arguments(self, run: Path) -> list[str]:
        """Of the command that trains as the form says, into the folder of a run."""
        ui, folds = self.ui, self.ui.foldsSpinBox.value
        synthetic = ui.syntheticCheckBox.checked
        return ["train", str(self.host.project.folder), "--task", ui.taskComboBox.currentData, "--out", str(run),
                "--start", ui.startComboBox.currentData, "--minutes", str(ui.minutesSpinBox.value),
                "--folds", str(folds if folds > 1 else 0), "--fold", ui.foldComboBox.currentData or "0",
                "--seed", str(ui.seedSpinBox.value), "--device", ui.deviceComboBox.currentData,
                "--patch", ui.patchComboBox.currentData, "--use", "both" if synthetic else "annotated"]

    # --- what it will take ---------------------------------------------------------------------------------------

    def expect(self) -> None:
        """Measure, by a few steps that are thrown away, what the training will take."""
        if self._expecting.running or self.process.running or not self.packages.complete():
            return
        output = Path(slicer.app.temporaryPath) / "LowDoseBMDTrainer-expect.txt"
        arguments = [*self.arguments(self._runs.folder / "expected"), "--expect"]
        try:
            self._expecting.start(arguments, output, lambda line: None, lambda: self._onExpected(outputOf(output)),
                                  lambda sentence, _log: self._onExpected(sentence, failed=True), self._showExpectation)
        except (OSError, RuntimeError) as error:
            self._expected = problemHtml(str(error))
        self._showExpectation()

    def _onExpected(self, text: str, failed: bool = False) -> None:
        lines = text.strip().splitlines()
        self._expected = problemHtml(text) if failed else html.escape(
            _("It will take {what}.").format(what=lines[-1] if lines else "-"))
        self._showExpectation()

    def _showExpectation(self) -> None:
        label = self.ui.expectationLabel
        if self._expecting.running:
            label.text = _("Timing a few steps...")
        else:
            label.text = self._expected or _("{minutes} min, as asked. <a href='expect:'>How many steps, how much "
                                             "memory?</a>").format(minutes=self.ui.minutesSpinBox.value)

    # --- runs ----------------------------------------------------------------------------------------------------

    def press(self) -> None:
        """Train; or, while a training runs, ask it to end and keep the best network."""
        run = self._running()
        if run is not None or self.process.running:
            folder = run.folder if run is not None else self._started
            self._stopping = True
            ask_to_stop(folder)
            self.tick()
        elif self.packages.complete():
            self.begin()

    def begin(self) -> None:
        """Start a new run with the settings of the form."""
        if self._whyNot():
            self.say(self._whyNot())
            return
        folder = self._runs.folder / free_name(self._runs.folder, self.ui.nameLineEdit.text.strip() or self._newName())
        self._startIn(folder, self.arguments(folder))
        self.ui.nameLineEdit.text = ""

    def goOn(self) -> None:
        """Continue the chosen run where it stopped, with the very command that began it."""
        chosen = self._chosen()
        if chosen is not None and chosen.can_go_on and self.packages.complete():
            self._startIn(chosen.folder, list(chosen.command))

    def _startIn(self, folder: Path, arguments: Sequence[str]) -> None:
        self._expecting.cancel()
        try:
            write_command(folder, arguments)
        except OSError as error:
            self.say(_("The folder of the run cannot be written: {error}").format(error=error))
            return
        self._started = folder
        if self.run(arguments, folder / OUTPUT, lambda: None):
            self._listed = self._runs.read()
            self._select(folder)
            self.showCurve("loss")
        self.update()

    def onFailed(self, sentence: str, log: str) -> None:
        failed = next((run for run in self._runs.read() if run.folder == self._started), None)
        self.say(failed.log.failed if failed is not None and failed.log.failed else sentence, log)

    def _select(self, folder: Path) -> None:
        fillTable(self.ui.runsTable, [runRow(run) for run in self._listed])
        for number, run in enumerate(self._listed):
            if run.folder == folder:
                self.ui.runsTable.selectRow(number)

    # --- curves --------------------------------------------------------------------------------------------------

    def _onRun(self) -> None:
        self.tick()
        self._drawCurves()

    def showCurve(self, which: str) -> None:
        """Show a chart of the chosen run in the views. which: loss or scores."""
        self._drawCurves()
        if self._curves is not None:
            slicer.modules.plots.logic().ShowChartInLayout(getattr(self._curves, which))

    def _drawCurves(self) -> None:
        """The charts are those of the chosen run; they follow it."""
        run = self._chosen() or self._running()
        if run is None or (run is self._shownRun and self._curves is not None and self._curves.whole):
            return
        self._shownRun = run
        if self._curves is not None and (self._drawn != str(run.folder) or not self._curves.whole):
            self._forgetCurves()
        if self._curves is None:
            self._curves, self._drawn = create_curves(slicer.mrmlScene, run.name, run.log), str(run.folder)
            return
        try:
            self._curves = update_curves(self._curves, run.log)
        except ValueError:  # somebody has deleted a table or a series
            self._forgetCurves()

    def _forgetCurves(self) -> None:
        if self._curves is not None:
            remove_curves(self._curves)
        self._curves, self._shownRun, self._drawn = None, None, ""

    def close(self) -> None:
        """The module goes; a training goes on."""
        self._follower.stop()
        self._expecting.close()
        self._forgetCurves()
        super().close()
