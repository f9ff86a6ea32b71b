"""Labels that cannot be saved in their project are offered another folder: the only question that the Trainer asks."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import qt
import slicer
from LowDoseBMDTrainerLib.cases import KEYPOINTS, LABELS, Case, Labels, write_labels
from slicer.i18n import tr as _

from .section import TITLE


def rescue(case: Case, labels: Labels, error: Exception) -> Path | None:
    """Ask for a folder until the labels are saved, or given up. Returns where they are now, None when they are lost."""
    logging.error("%s could not be saved: %s", case.name, error)
    text = _("The labels of {case} could not be saved: {error}\n\nSave them in another folder? They are lost "
             "otherwise.").format(case=case.name, error=error)
    while slicer.util.confirmYesNoDisplay(text, windowTitle=TITLE):
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the labels"))
        try:
            if folder:
                return _write(Path(folder), case, labels)
        except OSError as other:
            text = _("That failed too: {error}\n\nTry another folder?").format(error=other)
    return None


def _write(folder: Path, case: Case, labels: Labels) -> Path:
    target = folder / f"{case.name} {datetime.now():%Y-%m-%d %H-%M-%S}"
    target.mkdir(parents=True)
    write_labels(target / LABELS, target / KEYPOINTS, labels)
    return target
