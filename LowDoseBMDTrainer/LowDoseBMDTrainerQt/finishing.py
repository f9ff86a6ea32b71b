"""The end of the work on a case: checked, completed, flagged with a reason, opened again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from LowDoseBMDLib.geometry import ras_point
from LowDoseBMDTrainerLib.case_checks import check_case
from LowDoseBMDTrainerLib.cases import Labels, Status
from LowDoseBMDTrainerLib.findings import MUST, Finding
from LowDoseBMDTrainerMRML.case_nodes import ANNOTATED
from slicer.i18n import tr as _

from . import cursor
from .annotation import Annotation
from .findings_list import FindingsList

ENDED = (Status.COMPLETED, Status.FLAGGED)


class Finisher:
    """say(text): a sentence in the panel. onNext(): another case, please. onLabel(name): the label that a finding means."""

    def __init__(self, ui: Any, annotation: Annotation, say: Callable[[str], None], onNext: Callable[[], None],
                 onLabel: Callable[[str], None]) -> None:
        self._ui, self._annotation, self._say, self._onNext, self._onLabel = ui, annotation, say, onNext, onLabel
        self.findings = FindingsList(ui, self._onFinding)
        self._checked: Labels | None = None
        clicks = {ui.completeButton: self.complete, ui.checkButton: self.check, ui.flagButton: self._onFlag,
                  ui.flagYesButton: self._onFlagYes, ui.flagNoButton: self._onFlagNo}
        for button, action in clicks.items():
            button.connect("clicked(bool)", lambda _checked=False, action=action: action())
        ui.reasonLineEdit.connect("returnPressed()", self._onFlagYes)

    def begin(self) -> None:
        """Another case, or none, is open."""
        self._checked = None
        self.findings.show(())
        self._ui.flagFrame.visible = False

    def show(self) -> None:
        """Enable what makes sense for the open case."""
        annotation, ui = self._annotation, self._ui
        ui.flagButton.enabled = annotation.editable and not annotation.reader
        ui.completeButton.enabled = not annotation.readOnly
        ui.completeButton.text = (_("End the reading") if annotation.reader else
                                  _("Reopen") if annotation.case.status in ENDED else _("Completed, next"))

    def complete(self) -> None:
        """Completed: check, save and open the next one. A completed or flagged case is opened again instead, and a second
        reading is left."""
        annotation = self._annotation
        if annotation.live is None or annotation.readOnly:
            return
        if annotation.reader:
            annotation.leave()
        elif annotation.case.status in ENDED:
            annotation.reopen()
        elif self._checked is annotation.live.labels:  # the findings were seen
            annotation.complete(self._onNext)
        else:
            self._check(self._onCheckedForCompletion)

    # --- checks --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Look for what is most often wrong."""
        self._check(self._onChecked)

    def _check(self, then: Callable[[Labels, tuple[Finding, ...]], None]) -> None:
        live = self._annotation.live
        if live is None:
            return
        live.flush()
        labels, ct = live.labels, live.ct
        self._say(_("Checking..."))
        self._annotation.background.run(lambda: check_case(labels, ct), lambda found: then(labels, found),
                                        lambda error: self._say(str(error)))

    def _onChecked(self, labels: Labels, found: tuple[Finding, ...]) -> None:
        live = self._annotation.live
        if live is None or labels is not live.labels:
            self._say("")  # something was drawn meanwhile
            return
        self._checked = labels
        self.findings.show(found)
        must = sum(finding.severity == MUST for finding in found)
        self._say(_("{count} to put right, {rest} to look at.").format(count=must, rest=len(found) - must) if found else
                  _("Nothing was found."))

    def _onCheckedForCompletion(self, labels: Labels, found: tuple[Finding, ...]) -> None:
        self._onChecked(labels, found)
        if self._checked is not labels:
            return
        if any(finding.severity == MUST for finding in found):
            self._say(_("Not completed yet: put right what the list says, or press again to complete it all the same."))
        else:
            self.complete()

    def _onFinding(self, finding: Finding) -> None:
        if finding.structure in ANNOTATED:
            self._onLabel(finding.structure)
        if finding.position_lps_mm is not None:
            cursor.goTo(ras_point(finding.position_lps_mm))

    # --- flags ---------------------------------------------------------------------------------------------------

    def _onFlag(self) -> None:
        self._ui.flagFrame.visible = True
        self._ui.reasonLineEdit.setFocus()

    def _onFlagNo(self) -> None:
        self._ui.flagFrame.visible = False

    def _onFlagYes(self) -> None:
        reason = self._ui.reasonLineEdit.text.strip()
        if not reason:
            self._say(_("Say why the case is flagged."))
            return
        self._ui.flagFrame.visible = False
        self._ui.reasonLineEdit.text = ""
        self._annotation.flag(reason, self._onNext)
