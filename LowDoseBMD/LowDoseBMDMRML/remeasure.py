"""The number follows the reader: regions, keypoints and choices are measured again at once and can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from LowDoseBMDLib import editing
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.calibration import Calibration, calibration_from_dict, calibration_to_dict
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import Proposal
from LowDoseBMDLib.flags import LEVEL_UNCERTAIN
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.review import ACCEPTED, REJECTED, Reading, Review
from LowDoseBMDLib.rois import Rois

from . import markups, segments
from .history import History
from .plots import update_age_chart, update_histogram
from .regions import read_regions, region_times, rois_of, separate_regions, show_rois, state_of, stored_grid, strange_regions
from .study import Study
from .tables import write_results
from .watch import Defer, StudyWatch

MEASURED, EDITED, REFUSED, STALE = "measured", "edited", "refused", "stale"
"""States beside those of a review, accepted and rejected."""


@dataclass(frozen=True, eq=False)
class Step:
    """What undo goes back to."""

    rois: Rois
    calibration: Calibration


class LiveMeasurement:
    """One study under a reader's hand.

    Edits of segments and keypoints are gathered until ``defer`` runs what it was given, then measured once; every such
    burst is one step of undo. ``listeners`` are called after each change of the measurement or of ``state``. An accepted
    or rejected study is locked: edits are put back, and ``notice`` says so.

    rois, measurement, calibration: as they stand. automatic_mean_mg_cm3: the mean of the proposal with the same
    calibration, None when there was none. networks, seconds: of the run that made the proposal. reopened: signatures
    that were taken back, with the reason. stale_reason: why the CT is no longer the one that was measured, or empty.
    """

    def __init__(self, study: Study, ct: CTVolume, defer: Defer) -> None:
        self.study, self.ct = study, ct
        self.listeners: list[Callable[[], None]] = []
        self.networks: Mapping[str, str] = {}
        self.seconds: Mapping[str, float] = {}
        self.review: Review | None = None
        self.reopened: tuple[str, ...] = ()
        self.stale_reason = self.notice = ""
        self.rois = Rois(ct.geometry)
        self.calibration: Calibration | None = None
        self.measurement: Measurement | None = None
        self._proposed = self.rois
        self._history = History()
        self._times: dict[str, int] = {}
        self._watch = StudyWatch(study, defer, self.flush, self._on_ct_changed)

    # --- beginning and end -------------------------------------------------------------------------------------

    def load(self, proposal: Proposal, calibration: Calibration) -> None:
        """Fill the study's nodes with a fresh proposal and measure it."""
        self._watch.stop()
        self.networks, self.seconds = dict(proposal.networks), dict(proposal.seconds)
        self.calibration, self.review, self.reopened, self._history = calibration, None, (), History()
        self.stale_reason = self.notice = ""
        self._proposed = proposal.rois
        show_rois(self.study, proposal.rois, None)
        self._measure(proposal.rois)
        self.automatic_mean_mg_cm3 = self.measurement.mean_vbmd_mg_cm3
        self._lock(False)
        self._begin()

    def restore(self) -> bool:
        """Go on with the nodes of a reopened scene; False when they hold no measurement.

        Raises ValueError when the stored state is of another version or does not fit the nodes.
        """
        stored = self.study.stored_state()
        if stored is None:
            return False
        self._watch.stop()
        self.calibration = calibration_from_dict(stored["calibration"])
        self.networks, self.seconds = stored["networks"], stored["seconds"]
        reading = Reading.from_dict(stored["reading"])
        self.review, self.reopened = reading.review, reading.reopened
        self.automatic_mean_mg_cm3 = reading.automatic_mean_mg_cm3
        self._history = History()
        self.ct = replace(self.ct, geometry=stored_grid(stored["rois"], self.ct.geometry))
        self._measure(rois_of(self.study, stored["rois"], self.ct.geometry))
        self._separate()
        self._begin()
        self._take_in_strange_edits(stored["rois"])
        return True

    def _take_in_strange_edits(self, state: Mapping[str, Any]) -> None:
        """What was drawn while nobody watched, as in a scene that was edited and saved without this module."""
        strange = strange_regions(self.rois, state)
        if strange:
            known = {name: mask for name, mask in self.rois.masks.items() if name not in strange}
            before = replace(self.rois, masks=known)
            self._become(editing.replace_masks(self.ct, before, strange), self.rois)

    def close(self) -> None:
        """Stop watching; the nodes stay as they are."""
        self._watch.stop()
        self.listeners.clear()

    def _begin(self) -> None:
        self._times = region_times(self.study)
        self._store()
        self._watch.start()
        self._tell()

    # --- what the panel asks -----------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """stale, accepted, rejected, refused, edited or measured."""
        if self.stale_reason:
            return STALE
        if self.review is not None:
            return self.review.decision
        if self.measurement.status == REFUSED:
            return REFUSED
        return EDITED if self.touched else MEASURED

    @property
    def touched(self) -> bool:
        """A reader drew, moved or left out something."""
        return bool(self.rois.edited or self.rois.excluded)

    @property
    def locked(self) -> bool:
        return self.review is not None

    @property
    def can_undo(self) -> bool:
        return bool(self._history.past) and not self.locked

    @property
    def can_redo(self) -> bool:
        return bool(self._history.future) and not self.locked

    @property
    def proposal(self) -> Proposal:
        """The present regions, for export by another process."""
        return Proposal(self.rois, self.networks, self.seconds)

    def record(self, software: Mapping[str, Any]) -> dict[str, Any]:
        """The content of measurement.json as things stand."""
        return to_dict(self.measurement, self.ct.acquisition, software, self.seconds, self.reading)

    @property
    def reading(self) -> Reading:
        """What the reader added besides regions."""
        return Reading(self.review, self.automatic_mean_mg_cm3, self.reopened)

    # --- what a reader does ------------------------------------------------------------------------------------

    def shift_levels(self, step: int) -> None:
        """Move the names T12, L1, L2 by vertebrae, towards the head when positive. Raises ValueError at the chain's end."""
        self._edit(lambda rois: editing.shift_levels(self.ct, rois, step))

    def confirm_levels(self) -> None:
        """The reader says that the names are right."""
        self._edit(editing.confirm_levels)

    def set_used(self, level: str, used: bool, reason: str = "") -> None:
        """Leave a level out of the mean, with a reason, or take it in again."""
        self._edit(lambda rois: editing.set_used(rois, level, used, reason))

    def rederive(self, level: str) -> None:
        """Give up the reader's own trabecular region of a level."""
        self._edit(lambda rois: editing.rederive(self.ct, rois, level))

    def move_keypoint(self, level: str, position_lps_mm: tuple[float, float, float]) -> None:
        """Read the level at another place."""
        self._edit(lambda rois: editing.move_keypoint(self.ct, rois, level, position_lps_mm))

    def set_erosion(self, mode: str) -> None:
        """Make the trabecular regions in another mode; the reader's own stay."""
        if self.rois.erosion != mode:
            self._edit(lambda rois: editing.with_erosion(self.ct, rois, mode))

    def set_calibration(self, calibration: Calibration) -> None:
        """Measure with another calibration."""
        if calibration != self.calibration:
            self._edit(lambda rois: rois, calibration)

    def undo(self) -> None:
        """Back by one step; does nothing at the first or while locked."""
        self._travel(self._history.back)

    def redo(self) -> None:
        """Forth again."""
        self._travel(self._history.forth)

    # --- signing -----------------------------------------------------------------------------------------------

    def accept(self, reader: str, comment: str, now: datetime) -> None:
        """Sign and lock. Raises ValueError without a reader's name, without a valid number, or while the names of the levels
        are in doubt."""
        self.flush()
        if self.stale_reason:
            raise ValueError(f"{self.stale_reason} Measure again before you sign.")
        if self.measurement.status == REFUSED:
            raise ValueError("There is no number to accept: draw what is missing, or reject the study.")
        if any(flag.code == LEVEL_UNCERTAIN for flag in self.measurement.flags):
            raise ValueError("It is not certain which vertebra is which. Count them, then say that the levels are right, or "
                             "move the names, before you sign.")
        self._sign(_review(ACCEPTED, reader, comment, now))

    def reject(self, reader: str, comment: str, now: datetime) -> None:
        """Sign that this measurement is not to be used, and lock. Raises ValueError without a reader's name."""
        self.flush()
        self._sign(_review(REJECTED, reader, comment, now))

    def reopen(self, reason: str) -> None:
        """Take the signature back; it stays on record with the reason. Raises ValueError without a reason."""
        if self.review is None:
            return
        if not reason.strip():
            raise ValueError("Say why the signed measurement is opened again.")
        self.reopened = (*self.reopened, f"{self.review.decision} by {self.review.reader} at {self.review.signed_at}; "
                                         f"reopened: {reason.strip()}")
        self._sign(None)

    def _sign(self, review: Review | None) -> None:
        self.review, self.notice = review, ""
        self._lock(review is not None)
        self._store()
        self._tell()

    def _lock(self, locked: bool) -> None:
        with self._watch.quiet():
            segments.lock(self.study.segmentation_node, STRUCTURES, locked)
            markups.lock(self.study.keypoints_node, locked)

    # --- steps -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take in what was drawn or dragged since the last time and measure it; nothing when nothing changed."""
        if not self._watch.watching or not self.study.whole or self.stale_reason:
            return
        times = region_times(self.study)
        touched = [name for name, time in times.items() if time != self._times.get(name)]
        self._times = times
        drawn = editing.changed_masks(self.rois, read_regions(self.study, touched, self.ct.geometry))
        rois = editing.replace_masks(self.ct, self.rois, drawn)
        for point in markups.moved_keypoints(self.study.keypoints_node, self.rois.keypoints):
            rois = editing.move_keypoint(self.ct, rois, point.level, point.position_lps_mm)
        if rois is self.rois:
            self._separate()
            return
        shown = self.rois.with_masks(drawn)
        if self.locked:
            self._show(self.rois, shown)
            self._refuse_edit()
            return
        self._history.push(Step(self.rois, self.calibration))
        self._become(rois, shown)
        self._separate()

    def _separate(self) -> None:
        with self._watch.quiet():
            if separate_regions(self.study):
                self._times = region_times(self.study)

    def _edit(self, change: Callable[[Rois], Rois], calibration: Calibration | None = None) -> None:
        """One step of undo: change the regions or the calibration. Only says so while locked."""
        self.flush()
        if self.locked:
            self._refuse_edit()
            return
        step, changed = Step(self.rois, self.calibration), change(self.rois)
        if changed is self.rois and calibration is None:
            return
        self._history.push(step)
        self._recalibrate(calibration or self.calibration)
        self._become(changed, self.rois)

    def _travel(self, take: Callable[[Step], Step | None]) -> None:
        self.flush()
        step = None if self.locked else take(Step(self.rois, self.calibration))
        if step is not None:
            self._recalibrate(step.calibration)
            self._become(step.rois, self.rois)

    def _recalibrate(self, calibration: Calibration) -> None:
        """The value before edits is read with the same calibration, so that the difference shows the edits alone."""
        if calibration == self.calibration:
            return
        before = measure(self.ct, self._proposed, calibration) if self._proposed.masks else None
        self.calibration = calibration
        self.automatic_mean_mg_cm3 = before.mean_vbmd_mg_cm3 if before else None

    def _become(self, rois: Rois, shown: Rois) -> None:
        self.notice = ""
        self._show(rois, shown)
        self._measure(rois)
        self._store()
        self._tell()

    def _show(self, rois: Rois, shown: Rois) -> None:
        with self._watch.quiet():
            show_rois(self.study, rois, shown)
        self._times = region_times(self.study)

    def _measure(self, rois: Rois) -> None:
        self.rois = rois
        self.measurement = measure(self.ct, rois, self.calibration)
        write_results(self.study.table_node, self.measurement)
        update_histogram(self.study.histogram_node, self.ct, rois, self.measurement)
        update_age_chart(self.study.age_chart_node, self.measurement, self.ct.acquisition)

    def _store(self) -> None:
        self.study.store_state({
            "rois": state_of(self.rois), "calibration": calibration_to_dict(self.calibration),
            "networks": dict(self.networks), "seconds": dict(self.seconds),
            "reading": asdict(self.reading)})

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _refuse_edit(self) -> None:
        self.notice = (f"This measurement was {self.review.decision} by {self.review.reader} and is locked. Reopen it to "
                       "make changes.")
        self._tell()

    def _on_ct_changed(self) -> None:
        if not self.stale_reason:
            self.stale_reason = "The CT was changed or moved after it was measured."
            self._tell()


def _review(decision: str, reader: str, comment: str, now: datetime) -> Review:
    return Review(decision, reader.strip(), comment.strip(), now.astimezone().isoformat(timespec="seconds"))
