"""One case of a project: a folder of plain files that one person at a time may change and anybody may read.

case.json says what the case is and how far it is, labels.seg.nrrd and keypoints.mrk.json are the truth, history.jsonl who
did what when. Every file is written aside and renamed; the lock of a writer goes with its process.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.atomic import remove_unfinished, write_whole
from LowDoseBMDLib.files.locks import Held, holder_of, lock
from LowDoseBMDLib.files.markups import read_keypoints, write_keypoints
from LowDoseBMDLib.files.segmentation import load_segmentation, write_segmentation
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.manifest import Manifest, append_line
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask, Rois

SCHEMA_VERSION = 1

CASE_FILE, HISTORY, LOCK = "case.json", "history.jsonl", ".lock"
LABELS, KEYPOINTS = "labels.seg.nrrd", "keypoints.mrk.json"
PROPOSED_LABELS, PROPOSED_KEYPOINTS = "proposal.seg.nrrd", "proposal.mrk.json"
READERS, READER_FILE = "readers", "reader.json"
ANATOMY, ANATOMY_NAMES = "anatomy.nii.gz", "anatomy.json"
IMAGE_COPY = "ct.nii.gz"
"""Names of the files in a case's folder."""

DRAWN: tuple[str, ...] = (*BONES, OTHER_BONES, *(f"body_{level}" for level in LEVELS))
"""Structures that an annotator draws, in the order of their labels."""

_INITIALS = re.compile(r"\w(?:[\w .-]{0,38}\w)?")
"""Names of annotators: they become names of folders."""


class Status(enum.StrEnum):
    """How far a case is; the words of Slicer's own segment status."""

    NOT_STARTED = "not started"
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    FLAGGED = "flagged"


class CaseTaken(ValueError):
    """Somebody else has the case open for writing."""


@dataclass(frozen=True)
class Effort:
    """What a case has cost. seconds: of work on it; changed_voxels, dice: between what the model drew and the final labels,
    None where no model drew."""

    seconds: float = 0.0
    changed_voxels: int | None = None
    dice: float | None = None


@dataclass(frozen=True)
class Case:
    """What case.json says.

    image: absolute path of the CT, with the series' UID where it is DICOM. patient: number of the group that is never
    divided between training and validation. annotator: who worked on it last. reason: why it is flagged, or what is missing.
    problem: why it cannot be read; empty when it can. source: what kind of data it came from. created, changed: ISO 8601
    times, UTC. uncertainty: of the model, 0 to 1. geometry: the CT's grid with canonical axes. fingerprint: of its voxels.
    """

    folder: Path
    name: str
    image: str = ""
    series: str | None = None
    patient: str = ""
    status: Status = Status.NOT_STARTED
    annotator: str = ""
    reason: str = ""
    problem: str = ""
    source: str = ""
    synthetic: bool = False
    created: str = ""
    changed: str = ""
    effort: Effort = Effort()
    uncertainty: float | None = None
    fingerprint: str = ""
    geometry: Geometry | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Labels:
    """What was drawn on a case.

    masks: by name of the registry, on ``geometry``, the CT's grid; a structure that is absent was not drawn, one that is
    empty was looked for and is not there. keypoints: centres of vertebral bodies, LPS mm.
    """

    geometry: Geometry
    masks: Mapping[str, Mask] = field(default_factory=dict)
    keypoints: tuple[Keypoint, ...] = ()


# --- reading -----------------------------------------------------------------------------------------------

def read_case(folder: Path) -> Case:
    """A case as its case.json says; one that cannot be read has ``problem`` set, whatever is wrong with it."""
    folder = Path(folder)
    try:
        return _case(folder, json.loads((folder / CASE_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        problem = f"it has no {CASE_FILE}. Put it back, or remove the folder."
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        problem = f"{CASE_FILE} cannot be read: {error or type(error).__name__}. Correct it, or remove the folder."
    return Case(folder, folder.name, problem=problem)


def _case(folder: Path, data: Any) -> Case:
    """Raises ValueError, TypeError or KeyError when the content is not that of a case."""
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is {data['schema_version']!r}, not {SCHEMA_VERSION}")
    texts = {key: _text(data, key) for key in ("patient", "annotator", "reason", "problem", "source", "created", "changed",
                                               "fingerprint")}
    grid, series, uncertainty = data.get("grid"), data.get("series"), data.get("uncertainty")
    return Case(
        folder, folder.name, str(folder / _text(data, "image")), series and str(series),
        status=Status(data["status"]), synthetic=bool(data.get("synthetic", False)),
        effort=_effort(data.get("effort") or {}), uncertainty=None if uncertainty is None else float(uncertainty),
        geometry=grid and _grid(grid), **texts)


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r}, not a text")
    return value


def _effort(data: Mapping[str, Any]) -> Effort:
    changed, dice = data.get("changed_voxels"), data.get("dice")
    return Effort(float(data.get("seconds", 0.0)), None if changed is None else int(changed),
                  None if dice is None else float(dice))


def _grid(data: Mapping[str, Any]) -> Geometry:
    matrix, shape = np.array(data["ijk_to_lps"], float), tuple(int(n) for n in data["shape_kji"])
    if matrix.shape != (4, 4) or len(shape) != 3 or not np.isfinite(matrix).all():
        raise ValueError("its grid is not three sizes and a 4 by 4 matrix")
    return Geometry(shape, matrix)


def read_image(case: Case) -> CTVolume:
    """The case's CT. Raises ValueError when it is gone, is another one now, or cannot be read."""
    from LowDoseBMDLib.files.read import read_ct

    if not Path(case.image).exists():
        raise ValueError(f"{case.name}: there is no CT at {case.image}. Connect its drive, or say where it is now: "
                         f"lowdosebmd-train set PROJECT {case.name} --image PATH")
    ct = read_ct(Path(case.image), case.series)
    if case.geometry and not ct.geometry.same_grid(case.geometry):
        raise ValueError(f"{case.name}: the CT at {case.image} is another one than the case was drawn on ({ct.hu.shape} "
                         f"voxels, not {case.geometry.shape_kji}, or elsewhere). Put the right one back.")
    return ct


def read_labels(case: Case, reader: str | None = None, geometry: Geometry | None = None) -> Labels:
    """What was drawn: the truth, or what a second ``reader`` drew; no masks and no keypoints when there is nothing yet.

    geometry: the grid to read on; the case's own where it is left out. Raises ValueError when the case or its files cannot
    be read.
    """
    folder = case.folder if reader is None else _reader_folder(case, reader)
    return _read(case, folder / LABELS, folder / KEYPOINTS, geometry)


def read_proposal(case: Case) -> Labels | None:
    """What the model drew; None when it drew nothing."""
    files = case.folder / PROPOSED_LABELS, case.folder / PROPOSED_KEYPOINTS
    return _read(case, *files, None) if any(file.exists() for file in files) else None


def _read(case: Case, labels: Path, keypoints: Path, geometry: Geometry | None) -> Labels:
    grid = geometry or case.geometry
    if grid is None:
        raise ValueError(f"{case.name} cannot be read: {case.problem or 'its case.json names no grid'}")
    try:
        masks = load_segmentation(labels, grid).masks if labels.exists() else {}
        return Labels(grid, masks, read_keypoints(keypoints) if keypoints.exists() else ())
    except ValueError as error:
        raise ValueError(f"{case.name}: {error}") from error


def readers_of(case: Case) -> tuple[str, ...]:
    """Who else has drawn this case, by name."""
    return tuple(path.parent.name for path in sorted((case.folder / READERS).glob(f"*/{READER_FILE}")))


def read_history(case: Case) -> list[dict[str, Any]]:
    """Who did what when, oldest first: time, who, what, and what belongs to it. A line that a crash tore is left out."""
    return Manifest(case.folder / HISTORY).entries()


def read_anatomy(case: Case) -> tuple[np.ndarray, Geometry, dict[int, str]] | None:
    """The complete label map that a case came with: (k, j, i) integers, its grid, and the structure of each label by its
    public name; None when there is none. Raises ValueError when it cannot be read."""
    from LowDoseBMDLib.files.read import read_label_map

    if not (case.folder / ANATOMY_NAMES).exists():
        return None
    labels, geometry = read_label_map(case.folder / ANATOMY)
    names = json.loads((case.folder / ANATOMY_NAMES).read_text(encoding="utf-8"))
    return labels, geometry, {int(label): str(name) for label, name in names.items()}


def writer_of(case: Case) -> str | None:
    """Who has the case open for writing now, as one phrase; None when nobody has."""
    holder = holder_of(case.folder / LOCK)
    return None if holder is None else _phrase(holder)


def fingerprint_of(ct: CTVolume) -> str:
    """By which the same CT is known again, whatever file it lies in: SHA-256 of its voxels and their size."""
    digest = hashlib.sha256(np.ascontiguousarray(ct.hu, np.float32))
    digest.update(np.round(ct.geometry.spacing_mm, 3).astype("<f4").tobytes())
    return digest.hexdigest()


# --- writing -----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def open_for_writing(case: Case, annotator: str) -> Iterator[Writing]:
    """The case for changing, until the end of the ``with`` block or of the process.

    annotator: who; letters, digits, space, point and hyphen. Raises CaseTaken when somebody has it, ValueError for a case
    that cannot be read or no name, OSError when its folder cannot be written.
    """
    who = checked_name(annotator)
    now = datetime.now(UTC)
    holder = {"annotator": who, "host": socket.gethostname(), "process": os.getpid(), "since": now.isoformat("T", "seconds")}
    try:
        held = lock(case.folder / LOCK, json.dumps(holder, ensure_ascii=False))
    except Held as error:
        raise CaseTaken(f"{case.name} is being edited by {_phrase(error.holder)}. Wait until it is closed there, or take "
                        "another case.") from None
    try:
        remove_unfinished(case.folder)
        fresh = read_case(case.folder)
        if fresh.geometry is None:
            raise ValueError(f"{case.name} cannot be opened: {fresh.problem}")
        yield Writing(fresh, who)
    finally:
        held.release()


def _phrase(holder: str) -> str:
    """"AB on host X since 14:05" of what a lock file says, in this machine's time."""
    try:
        data = json.loads(holder)
        since = datetime.fromisoformat(data["since"]).astimezone()
    except (ValueError, KeyError, TypeError):
        return holder or "somebody"
    day = "" if since.date() == datetime.now().astimezone().date() else f"{since:%Y-%m-%d} "
    return f"{data.get('annotator')} on host {data.get('host')} since {day}{since:%H:%M} (process {data.get('process')})"


def checked_name(annotator: str) -> str:
    """The name without blanks round it. Raises ValueError when it cannot name a folder."""
    name = annotator.strip()
    if not _INITIALS.fullmatch(name):
        raise ValueError(f"{annotator!r} cannot be an annotator's name: use up to 40 letters, digits, spaces, points or "
                         "hyphens, such as initials")
    return name


def _reader_folder(case: Case, reader: str) -> Path:
    return case.folder / READERS / checked_name(reader)


@dataclass
class Writing:
    """A case that is open for writing. case: as it is on the disk after the last change."""

    case: Case
    annotator: str

    def save(self, labels: Labels) -> None:
        """The labels and keypoints as the truth; a case that was not started is in progress now."""
        write_labels(self.case.folder / LABELS, self.case.folder / KEYPOINTS, labels)
        self._note("labels saved", structures=sorted(labels.masks), keypoints=[point.level for point in labels.keypoints])
        started = Status.IN_PROGRESS if self.case.status is Status.NOT_STARTED else self.case.status
        self._change(status=started, annotator=self.annotator)

    def save_proposal(self, labels: Labels) -> None:
        """What the model drew, kept to compare the truth with."""
        write_labels(self.case.folder / PROPOSED_LABELS, self.case.folder / PROPOSED_KEYPOINTS, labels)
        self._note("proposal saved", structures=sorted(labels.masks), keypoints=[point.level for point in labels.keypoints])

    def start_from(self, labels: Labels) -> None:
        """Labels to begin with, which nobody has looked at yet: status and annotator stay."""
        write_labels(self.case.folder / LABELS, self.case.folder / KEYPOINTS, labels)
        self._note("labels begun", structures=sorted(labels.masks), keypoints=[point.level for point in labels.keypoints])
        self._change()

    def save_reading(self, reader: str, labels: Labels) -> None:
        """What another person drew, beside the truth."""
        folder = _reader_folder(self.case, reader)
        folder.mkdir(parents=True, exist_ok=True)
        write_labels(folder / LABELS, folder / KEYPOINTS, labels)
        write_whole(folder / READER_FILE, _json({"reader": checked_name(reader), "saved": time_now(), "by": self.annotator}))
        self._note("reading saved", reader=checked_name(reader), structures=sorted(labels.masks))

    def set_status(self, status: Status, reason: str = "") -> None:
        """reason: why it is flagged, or opened again."""
        self._note("status", status=str(status), before=str(self.case.status), reason=reason)
        self._change(status=Status(status), reason=reason, annotator=self.annotator)

    def record(self, effort: Effort | None = None, uncertainty: float | None = None) -> None:
        """What is known of the case besides its labels; what is left out stays. Raises ValueError outside of its range."""
        changes: dict[str, Any] = {}
        if effort is not None:
            if not math.isfinite(effort.seconds) or effort.seconds < 0:
                raise ValueError(f"a case cannot have cost {effort.seconds} seconds")
            changes["effort"] = effort
        if uncertainty is not None:
            if not 0 <= uncertainty <= 1:
                raise ValueError(f"an uncertainty of {uncertainty} is not between 0 and 1")
            changes["uncertainty"] = float(uncertainty)
        self._note("recorded", effort=effort and asdict(effort), uncertainty=uncertainty)
        self._change(**changes)

    def set_patient(self, patient: str) -> None:
        """The number of the group that is never divided between training and validation. Raises ValueError for no number."""
        if not patient.isdecimal():
            raise ValueError(f"the patient's group is a number, not {patient!r}: no name may stand in a project")
        self._note("patient", patient=patient, before=self.case.patient)
        self._change(patient=patient)

    def set_image(self, image: Path, series: str | None = None) -> None:
        """Where the same CT lies now. Raises ValueError when it is another one."""
        from LowDoseBMDLib.files.read import read_ct

        if fingerprint_of(read_ct(image, series)) != self.case.fingerprint:
            raise ValueError(f"{image} is not the CT of case {self.case.name}: its voxels differ")
        self._note("image moved")
        self._change(image=str(image.resolve()), series=series)

    def _change(self, **changes: Any) -> None:
        self.case = replace(self.case, **changes, changed=time_now())
        write_case(self.case)

    def _note(self, what: str, **more: Any) -> None:
        note(self.case.folder, self.annotator, what, **more)


def note(folder: Path, who: str, what: str, **more: Any) -> None:
    """One line of the history of the case in ``folder``; whoever calls has its lock, or the case is not known yet."""
    append_line(folder / HISTORY, {"time": time_now(), "who": who, "what": what, **more})


def write_labels(labels_file: Path, keypoints_file: Path, labels: Labels) -> None:
    """Both files of what was drawn, each whole or not at all."""
    masks = labels.masks or {"vertebrae": NO_VOXELS}  # a file without any segment cannot be read back
    write_segmentation(labels_file, Rois(labels.geometry, masks))
    write_keypoints(keypoints_file, labels.keypoints)


def write_case(case: Case) -> None:
    """case.json of a case, whole or not at all; whoever calls has its lock, or the case is not known yet."""
    write_whole(case.folder / CASE_FILE, _json({
        "schema_version": SCHEMA_VERSION, "image": _image_for(case), "series": case.series, "patient": case.patient,
        "status": str(case.status), "annotator": case.annotator, "reason": case.reason, "problem": case.problem,
        "source": case.source, "synthetic": case.synthetic, "created": case.created, "changed": case.changed,
        "effort": asdict(case.effort), "uncertainty": case.uncertainty, "fingerprint": case.fingerprint,
        "grid": case.geometry and {"shape_kji": list(case.geometry.shape_kji),
                                   "ijk_to_lps": case.geometry.ijk_to_lps.tolist()}}))


def _image_for(case: Case) -> str:
    """Relative where the CT lies in the case's folder, so that a project can be moved."""
    image = Path(case.image)
    return str(image.relative_to(case.folder)) if image.is_relative_to(case.folder) else str(image)


def write_anatomy(folder: Path, labels: np.ndarray, geometry: Geometry, names: Mapping[int, str]) -> None:
    """Keep a complete label map with a case: labels (k, j, i) integers on ``geometry``, names of its structures."""
    write_volume(folder / ANATOMY, labels, geometry)
    write_whole(folder / ANATOMY_NAMES, _json({str(label): name for label, name in sorted(names.items())}))


def time_now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat("T", "seconds")


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
