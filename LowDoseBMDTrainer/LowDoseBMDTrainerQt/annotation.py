"""The case that is open: read, drawn, saved behind the annotator's back, and left, with nothing lost on the way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import qt
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDTrainerLib.cases import (
    Case,
    CaseTaken,
    Labels,
    Status,
    Writing,
    open_for_writing,
    read_image,
    read_labels,
)
from LowDoseBMDTrainerLib.effort import complete
from LowDoseBMDTrainerLib.project import Project
from LowDoseBMDTrainerMRML.case_nodes import create_case_nodes, set_segment_status
from LowDoseBMDTrainerMRML.live_case import LiveCase
from slicer.i18n import tr as _

from .activity import Activity
from .background import Background

SAVE_MS = 2000
"""After a stroke; those that come meanwhile are saved with it."""

WORKED_ON = (Status.IN_PROGRESS, Status.FLAGGED)
"""Work on these is counted when they are left; a completed case has its time since it was completed."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A case as read in the background. reader: whose second reading it is, or empty for the case's own labels. writing:
    None when it may only be looked at, because of ``why``."""

    case: Case
    ct: CTVolume
    labels: Labels
    writing: Writing | None
    lock: contextlib.ExitStack
    why: str
    reader: str


def load(case: Case, annotator: str, reader: str = "") -> Loaded:
    """Lock a case and read it; read it only where somebody else has it. Raises ValueError or OSError when that fails."""
    with contextlib.ExitStack() as lock:
        writing, why = None, ""
        try:
            writing = lock.enter_context(open_for_writing(case, annotator))
        except CaseTaken as error:
            why = str(error)
        fresh = writing.case if writing else case
        ct = read_image(fresh)
        labels = read_labels(fresh, reader or None, ct.geometry)
        return Loaded(fresh, ct, labels, writing, lock.pop_all(), why, reader)


def store(writing: Writing, labels: Labels, reader: str) -> None:
    """Save labels as the case's own, or as the second reading of ``reader``."""
    if reader:
        writing.save_reading(reader, labels)
    else:
        writing.save(labels)


class Annotation:
    """One project and the case of it that is open. ``listeners`` are called after every change of anything below.

    project, cases: as on the disk when last read. case, live: None while none is open. opening: name of the case that is
    being read. reader: whose second reading is drawn, empty for the case's own labels. readOnly: why the open case cannot
    be changed, or empty. message: what went wrong. saved: how far saving is. onLoss: called with (case, labels, error) when
    labels could not be saved and nothing else holds them.
    """

    def __init__(self, scene: Any, defer: Callable[[Callable[[], None]], None],
                 onLoss: Callable[[Case, Labels, Exception], None]) -> None:
        self.project: Project | None = None
        self.cases: tuple[Case, ...] = ()
        self.case: Case | None = None
        self.live: LiveCase | None = None
        self.opening = self.readOnly = self.message = self.saved = self.reader = ""
        self.listeners: list[Callable[[], None]] = []
        self.activity = Activity()
        self.background = Background()
        self._scene, self._defer, self._onLoss = scene, defer, onLoss
        self._writing: Writing | None = None
        self._lock = contextlib.ExitStack()
        self._onDisk: Labels | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.interval = SAVE_MS
        self._timer.connect("timeout()", self.save)

    # --- the project ---------------------------------------------------------------------------------------------

    def openProject(self, project: Project) -> None:
        """Work on this project; the case of another that is open is saved and left."""
        self.leave()
        self.project, self.message = project, ""
        self.refresh()

    def refresh(self) -> None:
        """Read the list of cases again."""
        self.cases = self.project.cases() if self.project is not None else ()
        self.tell()

    # --- one case ------------------------------------------------------------------------------------------------

    def open(self, case: Case, annotator: str, reader: str = "") -> None:
        """Leave the open case and read this one; it is there when ``opening`` is empty again."""
        self.leave()
        self.message, self.opening = "", case.name
        self.background.run(lambda: load(case, annotator, reader), self._onLoaded, self._onNotLoaded)
        self.tell()

    def _onLoaded(self, loaded: Loaded) -> None:
        if loaded.case.name != self.opening:  # another one was asked for meanwhile
            self._release(loaded.lock)
            return
        self.opening = ""
        nodes = create_case_nodes(self._scene, loaded.case.name, loaded.ct)
        self.case, self._writing, self._lock = loaded.case, loaded.writing, loaded.lock
        self.live = LiveCase(nodes, loaded.ct, loaded.labels, self._defer)
        self.live.listeners.append(self._onChanged)
        self._onDisk, self.saved = loaded.labels, ""
        self.readOnly, self.reader = loaded.why, loaded.reader
        self._lockByState()
        self.activity.begin()
        self.tell()

    def _onNotLoaded(self, error: Exception) -> None:
        self.opening, self.message = "", str(error)
        self.tell()

    def _lockByState(self) -> None:
        self.live.lock(bool(self.readOnly) or (self.case.status is Status.COMPLETED and not self.reader))
        set_segment_status(self.live.nodes, self.case.status)

    @property
    def editable(self) -> bool:
        return self.live is not None and not self.live.locked

    @property
    def unsaved(self) -> bool:
        """Something was drawn that is not on the disk yet."""
        return self.live is not None and self._writing is not None and self.live.labels is not self._onDisk

    def _onChanged(self) -> None:
        self.activity.touch()
        self.saved = ""
        if not self._timer.active:  # not put off by each stroke: whoever draws without a pause is saved too
            self._timer.start()
        self.tell()

    def save(self) -> None:
        """Save behind the annotator's back what is not saved yet."""
        if not self.unsaved or self.background.busy:
            if self.unsaved:
                self._timer.start()
            return
        writing, labels, reader = self._writing, self.live.labels, self.reader
        self.saved = _("saving...")
        self.background.run(lambda: store(writing, labels, reader), lambda _nothing: self._onSaved(writing, labels),
                            self._onNotSaved)
        self.tell()

    def _onSaved(self, writing: Writing, labels: Labels) -> None:
        if writing is not self._writing:
            return
        self._onDisk, self.case, self.message = labels, writing.case, ""
        self.saved = "" if self.unsaved else _("saved {time}").format(time=f"{datetime.now():%H:%M}")
        self._replaceInList(writing.case)
        set_segment_status(self.live.nodes, self.case.status)
        if self.unsaved:
            self._timer.start()
        self.tell()

    def _onNotSaved(self, error: Exception) -> None:
        """The labels are still in the scene; the next stroke tries again, and so does leaving the case."""
        self.saved, self.message = _("not saved"), _("The labels could not be saved: {error}").format(error=error)
        self.tell()

    # --- the end of the work on a case ---------------------------------------------------------------------------

    def complete(self, onDone: Callable[[], None]) -> None:
        """Save, record what the case has cost, and say that it is completed."""
        self.live.flush()
        writing, labels, seconds = self._writing, self.live.labels, self.activity.take()
        self._finishCase(lambda: complete(writing, labels, seconds), writing, labels, onDone)

    def flag(self, reason: str, onDone: Callable[[], None]) -> None:
        """Save, and say why the case cannot be completed."""
        self._changeStatus(Status.FLAGGED, reason, onDone)

    def reopen(self) -> None:
        """Let a completed or flagged case be drawn again."""
        self._changeStatus(Status.IN_PROGRESS, "", lambda: None)

    def _changeStatus(self, status: Status, reason: str, onDone: Callable[[], None]) -> None:
        self.live.flush()
        writing, labels, changed = self._writing, self.live.labels, self.unsaved

        def work() -> None:
            if changed:
                writing.save(labels)
            writing.set_status(status, reason)

        self._finishCase(work, writing, labels, onDone)

    def _finishCase(self, work: Callable[[], Any], writing: Writing, labels: Labels, onDone: Callable[[], None]) -> None:
        def done(_result: Any) -> None:
            self._onSaved(writing, labels)
            if writing is self._writing:
                self._lockByState()
                self.tell()
                onDone()

        self.saved = _("saving...")
        self.background.run(work, done, self._onNotSaved)
        self.tell()

    def propose(self, labels: Labels) -> None:
        """Show what the model drew in place of what is there, as one step of undo, and keep it to compare with."""
        writing = self._writing
        if writing is None or not self.editable:
            return
        self.live.replace(labels.masks, labels.keypoints or None)
        self.background.run(lambda: writing.save_proposal(labels), lambda _nothing: None, self._onNotSaved)

    def leave(self, closing: bool = False) -> None:
        """Save the open case in the background, let others have it, and take it out of the scene. closing: as in forget."""
        self.opening = ""
        if self.live is None:
            return
        self.live.flush()
        self._timer.stop()
        if self._writing is not None:
            self._saveAndRelease(self._writing, self.live.labels if self.unsaved else None, self.activity.take())
        self.forget(closing)

    def _saveAndRelease(self, writing: Writing, labels: Labels | None, seconds: float) -> None:
        """labels: None when they are on the disk."""
        case, reader = writing.case, self.reader

        def work() -> None:
            if labels is not None:
                store(writing, labels, reader)
            if seconds >= 1.0 and not reader and (labels is not None or writing.case.status in WORKED_ON):
                effort = writing.case.effort
                writing.record(effort=replace(effort, seconds=effort.seconds + seconds))

        def failed(error: Exception) -> None:
            if labels is not None:
                self._onLoss(case, labels, error)
            else:
                self._onNotSaved(error)

        self.background.run(work, lambda _nothing: self._replaceInList(writing.case, tell=True), failed)
        self._release(self._lock)

    def _release(self, lock: contextlib.ExitStack) -> None:
        self.background.run(lock.close, lambda _nothing: None, lambda error: logging.error("a lock stays: %s", error))

    def forget(self, closing: bool = False) -> None:
        """Nothing of the case is held any more, and nothing of it is left in the scene. closing: the scene clears itself."""
        live, self.live, self.case, self._writing, self._onDisk = self.live, None, None, None, None
        self.readOnly = self.saved = self.reader = ""
        self._lock = contextlib.ExitStack()
        if live is not None:
            live.close()
        self.tell()  # whoever holds the nodes lets go of them before they go
        if live is not None and not closing:
            live.nodes.remove()

    def close(self) -> None:
        """The module goes: wait until everything is on the disk."""
        self.leave()
        self.background.close()
        self.listeners.clear()

    def _replaceInList(self, case: Case, tell: bool = False) -> None:
        if self.project is not None and case.folder.is_relative_to(self.project.folder):
            self.cases = tuple(case if each.name == case.name else each for each in self.cases)
        if tell:
            self.tell()

    def tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()
