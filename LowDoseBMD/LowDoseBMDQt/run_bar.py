"""One button, Measure or Cancel, with the stage's name and the seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from .session import RUNNING

if TYPE_CHECKING:
    from .session import Session

TICK_MS = 250
"""The seconds count on while a stage has nothing to say."""


class RunBar:
    """onMeasure() when Measure was pressed; Cancel goes to the session."""

    def __init__(self, ui: Any, session: Session, onMeasure: Callable[[], None]) -> None:
        self._ui = ui
        self._session = session
        self._onMeasure = onMeasure
        self._cancelling = False
        self._timer = qt.QTimer()
        self._timer.interval = TICK_MS
        self._timer.connect("timeout()", self._tick)
        ui.measureButton.connect("clicked(bool)", lambda _checked=False: self.press())

    def press(self) -> None:
        """As if the button was pressed."""
        if not self._ui.measureButton.enabled:
            return
        if self._session.state == RUNNING:
            self.cancel()
        else:
            self._onMeasure()

    def cancel(self) -> None:
        if self._session.state == RUNNING and not self._cancelling:
            self._cancelling = True
            self._session.cancel()
            self._tick()

    def close(self) -> None:
        self._timer.stop()

    def update(self, canMeasure: bool, why: str) -> None:
        """canMeasure: there is a CT that may be measured; why: what is missing otherwise."""
        ui, running = self._ui, self._session.state == RUNNING
        ui.measureButton.text = _("Cancel") if running else self._measureText()
        ui.measureButton.enabled = running or (canMeasure and not self._session.busy)
        ui.measureButton.toolTip = _("Stop (Esc).") if running else why or _("Find the regions and measure (M).")
        ui.progressBar.visible = ui.progressLabel.visible = running
        if running and not self._timer.active:
            self._timer.start()
        if not running:
            self._timer.stop()
            self._cancelling = False
        self._tick()

    def _measureText(self) -> str:
        return _("Measure again") if self._session.live is not None else _("Measure")

    def _tick(self) -> None:
        stage, fraction = self._session.progress
        self._ui.progressBar.value = round(1000 * fraction)
        name = _("stopping") if self._cancelling else stageName(stage)
        self._ui.progressLabel.text = _("{stage} · {seconds:.0f} s").format(stage=name, seconds=self._session.seconds)


def stageName(stage: str) -> str:
    """What the reader sees of a stage of the library; stages that are not known here stay as they are."""
    return {
        "": _("starting"), "loading the networks": _("loading the networks"), "checking": _("checking the CT"),
        "bones": _("bones"), "finding the bones": _("finding the bones"), "vertebral bodies": _("vertebral bodies"),
        "drawing the vertebral bodies": _("drawing the vertebral bodies"), "keypoints": _("levels"),
        "finding T12, L1 and L2": _("finding T12, L1 and L2"), "drawing regions": _("drawing regions"),
        "fine bones": _("drawing bones finely"),
        "drawing ribs, clavicles and scapulae": _("drawing ribs, clavicles and scapulae"),
        "trabecular bone": _("trabecular bone"), "muscle and fat": _("muscle and fat"),
        "finding muscle": _("finding muscle"), "finding the aorta": _("finding the aorta"),
        "finding subcutaneous fat": _("finding subcutaneous fat"), "writing the regions": _("writing the regions"),
    }.get(stage, stage)
