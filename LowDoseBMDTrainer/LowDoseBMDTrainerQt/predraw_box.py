"""Pre-draw: the models draw the open case in a process of their own; the annotator corrects what comes."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from LowDoseBMDLib.bundle import model_sets
from LowDoseBMDQt.job import jsonObject
from LowDoseBMDQt.packages_box import PackagesBox
from LowDoseBMDQt.processes import MODULE_FOLDER, removeFolder
from LowDoseBMDQt.run_bar import stageName
from LowDoseBMDTrainerLib.cases import Case, Labels
from LowDoseBMDTrainerLib.predraw import read_result
from LowDoseBMDTrainerLib.project import Project
from slicer.i18n import tr as _

from .trainer_process import TrainerProcess

REQUIREMENTS = MODULE_FOLDER / "Resources" / "requirements.txt"
"""The packages that networks need."""

OUTPUT, RESULT, STOP = "output.txt", "proposal", "stop"
"""Names in the folder of a run."""


class PredrawBox:
    """onDone(case, proposal) in the main thread; say(text) for what went wrong. background: reads the result.
    packages: what networks need."""

    def __init__(self, ui: Any, background: Any, onDone: Callable[[Case, Labels], None],
                 say: Callable[[str], None]) -> None:
        self._ui, self._background, self._onDone, self._say = ui, background, onDone, say
        self._process = TrainerProcess()
        self.packages = PackagesBox(ui, str(REQUIREMENTS), lambda: None)
        self._folder: Path | None = None
        self._stage, self._fraction = "", 0.0
        self._failed = ""
        ui.cancelButton.connect("clicked(bool)", lambda _checked=False: self.cancel())

    @property
    def running(self) -> bool:
        return self._folder is not None

    def fillModels(self, project: Project | None) -> None:
        """Offer the product's models, those of the user and those of the project."""
        box = self._ui.modelsComboBox
        sets = [("", _("LowDoseBMD's own"))]
        sets += [(str(each.folder), each.name) for each in model_sets(verify=False)[1:] if not each.problem]
        if project is not None:
            sets += [(str(each.folder), _("{name} of this project").format(name=each.name))
                     for each in model_sets(project.models_folder, verify=False)[1:] if not each.problem]
        if sets != [(box.itemData(n), box.itemText(n)) for n in range(box.count)]:
            chosen = box.currentData
            box.clear()
            for folder, title in sets:
                box.addItem(title, folder)
            box.setCurrentIndex(max(0, box.findData(chosen)))

    def start(self, project: Project, case: Case, bodies: bool, otherBones: bool) -> None:
        """Draw this case. bodies, otherBones: these labels too."""
        if self.running or not self.packages.complete():
            return
        self._folder = Path(tempfile.mkdtemp(prefix="LowDoseBMDTrainer-", dir=slicer.app.temporaryPath))
        self._stage, self._fraction, self._failed = "", 0.0, ""
        chosen = self._ui.modelsComboBox.currentData
        arguments = ["predraw", str(project.folder), case.name, "--to", str(self._folder / RESULT), "--json", "--stop",
                     str(self._folder / STOP), *(["--models", chosen] if chosen else []), *(["--bodies"] if bodies else []),
                     *(["--other-bones"] if otherBones else [])]
        try:
            self._process.start(arguments, self._folder / OUTPUT, self._onLine, lambda: self._onEnded(case),
                                lambda text, _log: self._end(self._failed or text), lambda: self._end(_("Stopped.")))
        except (OSError, RuntimeError) as error:
            self._end(str(error))
            return
        self._show()

    def cancel(self) -> None:
        """Stop drawing; nothing of the case is changed."""
        if self.running:
            self._stage = _("stopping")
            self._process.cancel()
            self._show()

    def close(self) -> None:
        self._process.close()
        self._clear()

    def _onLine(self, line: str) -> None:
        event = jsonObject(line)
        if event.get("event") == "progress":
            self._stage, self._fraction = stageName(event["stage"]), float(event["fraction"])
            self._show()
        elif event.get("event") == "failed":
            self._failed = str(event["message"])
        elif event.get("event") == "case" and event.get("state") != "done":
            self._failed = str(event["text"])

    def _onEnded(self, case: Case) -> None:
        if self._failed:
            self._end(self._failed)
            return
        folder, grid = self._folder / RESULT, case.geometry
        self._background.run(lambda: read_result(folder, grid), lambda proposal: self._onRead(case, proposal),
                             lambda error: self._end(str(error)))

    def _onRead(self, case: Case, proposal: Labels) -> None:
        self._end("")
        self._onDone(case, proposal)

    def _end(self, problem: str) -> None:
        self._clear()
        if problem:
            self._say(problem)

    def _clear(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            removeFolder(folder)
        self._show()

    def _show(self) -> None:
        ui = self._ui
        for widget in (ui.progressBar, ui.progressLabel, ui.cancelButton):
            widget.visible = self.running
        ui.progressBar.value = round(1000 * self._fraction)
        ui.progressLabel.text = html.escape(_("The model draws: {stage}").format(stage=self._stage or _("starting")))
        ui.predrawButton.enabled = not self.running
