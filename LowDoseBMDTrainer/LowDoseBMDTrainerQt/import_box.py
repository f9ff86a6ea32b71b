"""Import: CTs and their labels into the project, in a process of its own, with a report of what was taken from them."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from LowDoseBMDTrainerLib.importing import LAYOUTS
from slicer.i18n import tr as _

from .trainer_process import TrainerProcess, outputOf

FILES = "CT (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.itksnap)"
REPORT = ".import.txt"
"""File of a project's folder: what the last import said."""


class ImportBox:
    """The frame under the button Import. folder(): of the project. onChanged() when there may be new cases."""

    def __init__(self, ui: Any, folder: Callable[[], Path | None], onChanged: Callable[[], None]) -> None:
        self._ui, self._folder, self._onChanged = ui, folder, onChanged
        self._process = TrainerProcess()
        self._output = Path()
        for layout in LAYOUTS:
            ui.layoutComboBox.addItem(_("automatic") if layout == LAYOUTS[0] else layout, layout)
        ui.importButton.connect("clicked(bool)", lambda _checked=False: self._onButton())
        ui.importFolderButton.connect("clicked(bool)", lambda _checked=False: self._ask(
            lambda: qt.QFileDialog.getExistingDirectory(None, _("Folder with CTs"))))
        ui.importFileButton.connect("clicked(bool)", lambda _checked=False: self._ask(
            lambda: qt.QFileDialog.getOpenFileName(None, _("CT"), "", FILES)))
        ui.importLabel.connect("linkActivated(QString)", lambda _link: slicer.util.infoDisplay(
            _("What was imported, and what was not:"), windowTitle=_("Import"), detailedText=outputOf(self._output)))

    @property
    def running(self) -> bool:
        return self._process.running

    def cancel(self) -> None:
        """Stop; the cases that are in the project stay there."""
        self._process.cancel()

    def close(self) -> None:
        self._process.close()

    def start(self, source: str) -> None:
        """Import from a folder or file."""
        folder = self._folder()
        if folder is None or self.running:
            return
        arguments = ["import", str(folder), source, "--layout", self._ui.layoutComboBox.currentData]
        if self._ui.copyCheckBox.checked:
            arguments.append("--copy")
        self._output = folder / REPORT
        try:
            self._process.start(arguments, self._output, self._onLine, self._onEnd, lambda text, _log: self._onEnd(text),
                                lambda: self._onEnd(_("Stopped. What was imported until then is kept.")))
        except (OSError, RuntimeError) as error:
            self._say(str(error), False)
            return
        self._say(_("Looking for CTs..."), False)
        self._show()

    def _onButton(self) -> None:
        if self.running:
            self.cancel()
        else:
            self._ui.importFrame.visible = not self._ui.importFrame.visible

    def _ask(self, dialog: Callable[[], str]) -> None:
        source = dialog()
        if source:
            self.start(source)

    def _onLine(self, line: str) -> None:
        if line:
            self._say(line, False)
        if line.startswith("["):
            self._onChanged()

    def _onEnd(self, problem: str = "") -> None:
        lines = outputOf(self._output).strip().splitlines()
        self._say(problem or (lines[-1] if lines else _("No CT was found there.")), bool(lines))
        self._show()
        self._onChanged()

    def _say(self, text: str, withReport: bool) -> None:
        link = f" <a href='report:'>{_('Show the report')}</a>" if withReport else ""
        self._ui.importLabel.text = html.escape(text) + link

    def _show(self) -> None:
        ui = self._ui
        ui.importButton.text = _("Cancel") if self.running else _("Import...")
        for widget in (ui.importFolderButton, ui.importFileButton, ui.layoutComboBox, ui.copyCheckBox):
            widget.enabled = not self.running
