"""Export: what is written, where to, and what became of it."""

from __future__ import annotations

import html
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from LowDoseBMDMRML.remeasure import STALE
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from .session import Session

FOLDER_SETTING = "LowDoseBMD/ExportFolder"

REPORT = ("html", "csv", "json", "figures")
PDF = ("print",)
SEGMENTATION = ("segmentation",)
DICOM = ("dicom",)


def formatChoices() -> list[tuple[str, tuple[str, ...]]]:
    """What a reader can choose, and the library's formats for it."""
    return [(_("Everything"), (*REPORT, *PDF, *SEGMENTATION, *DICOM)), (_("Report (HTML, CSV, JSON)"), REPORT),
            (_("Report on paper (PDF)"), PDF),
            (_("Regions (.seg.nrrd)"), SEGMENTATION), (_("DICOM (SEG, SR)"), DICOM)]


class ExportBox:
    """The choice of formats, the button, and a line that says what happened."""

    def __init__(self, ui: Any, session: Session) -> None:
        self._ui = ui
        self._session = session
        self._choices = formatChoices()
        for title, _formats in self._choices:
            ui.exportComboBox.addItem(title)
        ui.exportButton.connect("clicked(bool)", lambda _checked=False: self._onExport())
        ui.exportComboBox.connect("currentIndexChanged(int)", lambda _index=0: self.update())
        ui.exportLabel.openExternalLinks = True

    def update(self) -> None:
        """What can be exported now."""
        live, ui = self._session.live, self._ui
        formats = self._formats()
        ready = live is not None and live.state != STALE and not self._session.busy
        ui.exportComboBox.enabled = live is not None
        ui.exportButton.enabled = ready and bool(formats)
        ui.exportButton.toolTip = _("Choose a folder; the files are written there.") if formats else _(
            "DICOM needs a CT that was loaded from the DICOM database.")
        self._showResult(live is not None and self._session.busy)

    def _formats(self) -> tuple[str, ...]:
        """The chosen formats; DICOM only where there are DICOM files to refer to."""
        formats = self._choices[max(self._ui.exportComboBox.currentIndex, 0)][1]
        return formats if self._session.dicomFiles else tuple(name for name in formats if name not in DICOM)

    def _showResult(self, writing: bool) -> None:
        label, folder = self._ui.exportLabel, self._session.exported
        if writing:
            label.text = _("Writing... {percent:.0f} %").format(percent=100 * self._session.progress[1])
        elif folder is not None:
            label.text = _("Written to {folder}").format(folder=_link(folder))
        label.visible = writing or folder is not None

    def _onExport(self) -> None:
        settings = qt.QSettings()
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the results"),
                                                     str(settings.value(FOLDER_SETTING) or ""))
        if folder:
            settings.setValue(FOLDER_SETTING, folder)
            out = Path(folder) / f"LowDoseBMD {datetime.now():%Y-%m-%d %H.%M.%S}"
            self._session.export(out, self._formats())


def _link(folder: Path) -> str:
    return f"<a href='{html.escape(folder.as_uri(), quote=True)}'>{html.escape(folder.name or str(folder))}</a>"
