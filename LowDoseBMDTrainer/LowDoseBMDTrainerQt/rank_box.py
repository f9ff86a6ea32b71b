"""Rank: the models say how uncertain they are of each case that waits, in a process of its own."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from LowDoseBMDQt.job import jsonObject
from LowDoseBMDQt.packages_box import PackagesBox
from LowDoseBMDQt.processes import removeFolder
from LowDoseBMDQt.run_bar import stageName
from LowDoseBMDTrainerLib.cases import Case
from LowDoseBMDTrainerLib.project import Project
from LowDoseBMDTrainerLib.worklist import waiting
from slicer.i18n import tr as _

from .trainer_process import TrainerProcess

OUTPUT = "output.txt"
"""Name in the folder of a run."""


class RankBox:
    """rankButton starts and stops it. packages: what networks need. onValue() after each case that was measured; say(text)
    for how it ended."""

    def __init__(self, ui: Any, packages: PackagesBox, onValue: Callable[[], None], say: Callable[[str], None]) -> None:
        self._ui, self._packages, self._onValue, self._say = ui, packages, onValue, say
        self._process = TrainerProcess()
        self._title = ui.rankButton.text
        self._folder: Path | None = None
        self._failed: list[str] = []
        self._done = self._count = 0
        self._show("")

    @property
    def running(self) -> bool:
        return self._folder is not None

    def start(self, project: Project, opened: str) -> None:
        """Measure the cases that wait and are not known yet; all that wait once every one of them is known.

        opened: name of the case that is being drawn; it is left out.
        """
        cases = [case for case in waiting(project.cases()) if case.name != opened]
        if not cases:
            self._say(_("No other case waits: there is nothing to rank."))
            return
        if self.running or not self._packages.complete():
            return
        unknown = [case for case in cases if case.uncertainty is None]
        self._folder = Path(tempfile.mkdtemp(prefix="LowDoseBMDTrainer-", dir=slicer.app.temporaryPath))
        self._failed, self._done, self._count = [], 0, len(unknown or cases)
        self._say("")
        self._show("")
        try:
            self._process.start(self._arguments(project, unknown or cases, again=not unknown), self._folder / OUTPUT,
                                self._onLine, self._onDone, self._onFailed, lambda: self._end(
                                    _("Ranking was stopped; what is known is kept.")))
        except (OSError, RuntimeError) as error:
            self._end(str(error))

    def _arguments(self, project: Project, cases: list[Case], again: bool) -> list[str]:
        models = self._ui.modelsComboBox.currentData
        return ["rank", str(project.folder), *(case.name for case in cases), "--json", *(["--again"] if again else []),
                *(["--models", models] if models else [])]

    def cancel(self) -> None:
        """Stop; the cases that were measured keep their values."""
        self._process.cancel()

    def close(self) -> None:
        self._process.close()
        self._clear()

    def _onLine(self, line: str) -> None:
        event = jsonObject(line)
        if event.get("event") == "progress":
            self._ui.rankBar.value = round(1000 * float(event["fraction"]))
            self._show(stageName(event["stage"]))
        elif event.get("event") == "failed":
            self._failed = [str(event["message"])]
        elif event.get("event") == "case":
            self._done += 1
            if event.get("state") == "done":
                self._onValue()
            else:
                self._failed.append(f"{event['case']}: {event['text']}")

    def _onDone(self) -> None:
        self._end("\n".join(self._failed) or _("The cases are ranked."))

    def _onFailed(self, sentence: str, _log: str) -> None:
        """Some case could not be measured, or nothing could."""
        self._end("\n".join(self._failed) or sentence)

    def _end(self, text: str) -> None:
        self._clear()
        self._say(text)

    def _clear(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            removeFolder(folder)
        self._show("")

    def _show(self, stage: str) -> None:
        ui = self._ui
        ui.rankButton.text = _("Stop") if self.running else self._title
        ui.rankBar.visible = ui.rankLabel.visible = self.running
        number = min(self._done + 1, self._count)
        ui.rankLabel.text = html.escape(_("Ranking {number} of {count}: {stage}").format(
            number=number, count=self._count, stage=stage or _("starting")))
        if not self.running:
            ui.rankBar.value = 0
