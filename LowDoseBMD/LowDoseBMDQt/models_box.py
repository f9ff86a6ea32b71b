"""Which networks: those that come with the product, a set of the user's models folder, or a folder chosen by hand."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qt
from LowDoseBMDLib.bundle import EMBEDDED, MODELS, ModelSet, model_sets, models_folder, read_set, user_models_folder
from slicer.i18n import tr as _


def networkName(name: str) -> str:
    """What a reader calls the network of a bundle."""
    return {"bones": _("bones"), "bones_fine": _("fine bones"), "bodies": _("vertebral bodies"),
            "keypoints": _("levels")}.get(name, name)


class ModelsBox:
    """The combo box of sets, what the chosen one holds, and the button for a folder elsewhere.

    onChosen(path): a person chose another set; an empty path stands for the product's own. Files are not verified here,
    which would block the window: a run does, and says what is damaged.
    """

    def __init__(self, ui: Any, onChosen: Callable[[str], None]) -> None:
        self._ui = ui
        self._onChosen = onChosen
        self._sets: list[ModelSet] = []
        self._filling = False
        ui.modelsComboBox.connect("currentIndexChanged(int)", self._onIndexChanged)
        ui.modelsFolderButton.connect("clicked(bool)", lambda _checked=False: self._onFolder())

    def fill(self, chosen: str) -> None:
        """List what there is now and select ``chosen``, a path, also when nothing lies there any more."""
        self._sets = list(model_sets(verify=False))
        if chosen and Path(chosen) not in [each.folder for each in self._sets]:
            self._sets.append(read_set(Path(chosen), verify=False))
        box = self._ui.modelsComboBox
        self._filling = True
        box.clear()
        for each in self._sets:
            box.addItem(_title(each))
        box.currentIndex = max(0, next((n for n, each in enumerate(self._sets) if _path(each) == chosen), 0))
        self._filling = False

    def whyNot(self) -> str:
        """Why the chosen set cannot be used; empty when it can."""
        return self._chosen.problem if self._sets else ""

    def show(self, networks: Mapping[str, str]) -> None:
        """What the chosen set holds. networks: those of the measurement that is shown, empty when there is none."""
        self._ui.modelsFactsLabel.text = factsText(self._chosen, networks) if self._sets else ""

    @property
    def _chosen(self) -> ModelSet:
        return self._sets[max(0, self._ui.modelsComboBox.currentIndex)]

    def _onIndexChanged(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._sets):
            self._onChosen(_path(self._sets[index]))

    def _onFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder with models ({names})").format(names=", ".join(MODELS)),
                                                     str(user_models_folder()))
        if folder:
            self.fill(str(Path(folder)))
            self._onChosen(str(Path(folder)))


def factsText(chosen: ModelSet, networks: Mapping[str, str]) -> str:
    """Networks of a set with versions, what the product's own stand in for, and that a shown number is of others; rich text.

    networks: identity by name, of the measurement that is shown.
    """
    if chosen.problem:
        return _warning(chosen.problem)
    lines = [" · ".join(html.escape(identity) for identity in chosen.holds.values())]
    if chosen.completed_by:
        names = ", ".join(map(networkName, chosen.completed_by))
        lines.append(html.escape(_("From LowDoseBMD itself: {names}.").format(names=names)))
    if any(networks.get(name, identity) != identity for name, identity in chosen.holds.items()):
        lines.append(_warning(_("The number shown was measured with other networks. Measure again to use these.")))
    return "<br>".join(lines)


def _path(entry: ModelSet) -> str:
    return "" if entry.folder == models_folder() else str(entry.folder)


def _title(entry: ModelSet) -> str:
    if entry.name == EMBEDDED and not _path(entry):
        return _("LowDoseBMD's own")
    if entry.problem:
        return _("{name} (cannot be used)").format(name=entry.name)
    return entry.name if not entry.completed_by else _("{name} ({networks})").format(
        name=entry.name, networks=", ".join(map(networkName, entry.holds)))


def _warning(text: str) -> str:
    return f"<span style='color:#8a5a00'>{html.escape(text)}</span>"
