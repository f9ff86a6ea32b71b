"""What Python packages are missing, said in the panel; they are installed when the reader presses the button."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import dependencies


class PackagesBox:
    """onInstalled() when everything is there after an installation. withTorch: torch is needed too, which is installed
    through the PyTorch extension."""

    def __init__(self, ui: Any, requirementsPath: str, onInstalled: Callable[[], None], withTorch: bool = False) -> None:
        self._ui = ui
        self._path = requirementsPath
        self._onInstalled = onInstalled
        self._withTorch = withTorch
        ui.installButton.connect("clicked(bool)", lambda _checked=False: self._install(""))
        ui.wheelsButton.connect("clicked(bool)", lambda _checked=False: self._installFromFolder())

    def complete(self) -> bool:
        """Whether all is there; otherwise the panel says what is missing and offers to install it."""
        lacking = dependencies.missing(self._path)
        torch = self._lacksTorch()
        self._ui.packagesFrame.visible = bool(lacking) or torch
        asked = [dependencies.question(lacking, dependencies.wheelFolder())] if lacking else []
        if torch:
            asked.insert(0, dependencies.torchQuestion())
        self._ui.packagesLabel.text = _toHtml("\n\n".join(asked))
        return not asked

    def _lacksTorch(self) -> bool:
        return self._withTorch and not dependencies.torchInstalled()

    def _installFromFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of wheels"), dependencies.wheelFolder())
        if folder:
            slicer.app.userSettings().setValue(dependencies.WHEEL_FOLDER_SETTING, folder)
            self._install(folder)

    def _install(self, wheels: str) -> None:
        try:
            if self._lacksTorch():  # first: others ask for it, and would bring whatever build the index has
                dependencies.installTorch("")
            lacking = dependencies.missing(self._path)
            if lacking:
                dependencies.install([requirement.specification for requirement in lacking],
                                     wheels or dependencies.wheelFolder())
        except dependencies.NotInstalled as error:
            self._ui.packagesLabel.text = _toHtml(str(error))
            return
        if self.complete():
            self._onInstalled()


def _toHtml(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
