"""A project: a folder of cases, training runs and models; plain files, no database.

    PROJECT/project.json   title
    PROJECT/cases/0001/    see cases.py
    PROJECT/runs/          training runs
    PROJECT/models/        exported models
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.atomic import remove_unfinished, write_private, write_whole
from LowDoseBMDLib.files.locks import Held, lock
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.geometry import Geometry

from .cases import (
    IMAGE_COPY,
    KEYPOINTS,
    LABELS,
    LOCK,
    Case,
    Labels,
    Status,
    fingerprint_of,
    note,
    read_case,
    time_now,
    write_anatomy,
    write_case,
    write_labels,
)

SCHEMA_VERSION = 1

PROJECT_FILE, CASES, RUNS, MODELS = "project.json", "cases", "runs", "models"
PATIENTS = ".patients.json"
"""Which patient has which number, by a keyed hash, and the key; for the project's owner only."""

WAIT_SECONDS = 60.0
"""How long somebody who adds a case waits for another who does; one case takes seconds."""

_POLL_SECONDS = 0.1


class CaseThere(ValueError):
    """The CT is a case of the project already."""

    def __init__(self, case: Case) -> None:
        super().__init__(f"the CT is case {case.name} of the project already")
        self.case = case


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A complete label map: labels (k, j, i) integers on ``geometry``; names: the structure of each label as public sets
    call it (vertebrae_T12, rib_left_3, liver)."""

    labels: np.ndarray
    geometry: Geometry
    names: dict[int, str]


@dataclass(frozen=True)
class Arrival:
    """What is known of a CT besides its voxels when it comes into a project.

    series: UID of a DICOM series. patient: anything that tells the patient from others, which is not stored; None for a
    patient of whom there is no other CT. source: what kind of data it came from. labels, status: what is drawn already, and
    how far it is. annotator: who drew it. reason: what is missing. anatomy: the complete label map that the labels were
    taken from. report: what the history tells of how the labels were made.
    """

    series: str | None = None
    patient: str | None = None
    source: str = ""
    synthetic: bool = False
    labels: Labels | None = None
    status: Status = Status.NOT_STARTED
    annotator: str = ""
    reason: str = ""
    anatomy: Anatomy | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """An opened project."""

    folder: Path
    title: str

    @property
    def runs_folder(self) -> Path:
        return self.folder / RUNS

    @property
    def models_folder(self) -> Path:
        return self.folder / MODELS

    def cases(self) -> tuple[Case, ...]:
        """All cases in the order of their names; one that cannot be read has ``problem`` set."""
        home = self.folder / CASES
        folders = sorted(path for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(read_case(folder) for folder in folders)

    def case(self, name: str) -> Case:
        """Raises ValueError when there is none of that name."""
        folder = self.folder / CASES / name
        if not name or Path(name).name != name or name.startswith(".") or not folder.is_dir():
            known = ", ".join(case.name for case in self.cases()[:8])
            raise ValueError(f"{self.folder} has no case {name!r}; it has {known or 'none yet'}")
        return read_case(folder)

    def add(self, image: Path, ct: CTVolume | None = None, copy: bool = False, arrival: Arrival = Arrival()) -> Case:
        """A new case of a CT, not started unless it came with labels.

        A case that could not be read, and refers to the same image, becomes this one.

        ct: what was read from ``image`` already. copy: keep the CT in the project, without anything of the patient, instead
        of a reference to where it lies. Raises CaseThere when the CT is a case already, ValueError when it cannot be read.
        """
        from LowDoseBMDLib.files.read import read_ct

        ct = ct or read_ct(image, arrival.series)
        case = Case(Path(), "", str(Path(image).resolve()), arrival.series, "", arrival.status, arrival.annotator,
                    arrival.reason, source=arrival.source, synthetic=arrival.synthetic, fingerprint=fingerprint_of(ct),
                    geometry=ct.geometry)
        with self._adding() as cases:
            for there in cases:
                if there.fingerprint == case.fingerprint:
                    raise CaseThere(there)
            return self._place(case, arrival, cases, ct if copy else None, _unread(case, cases))

    def add_unreadable(self, image: Path, problem: str, source: str = "", series: str | None = None) -> Case:
        """A case that only says why its CT cannot be read, or the one that says so already."""
        case = Case(Path(), "", str(Path(image).resolve()), series, problem=problem, source=source)
        with self._adding() as cases:
            there = _unread(case, cases)
            if there is not None:
                write_case(replace(there, problem=problem, changed=time_now()))
                return read_case(there.folder)
            return self._place(case, Arrival(), cases)

    def _place(self, case: Case, arrival: Arrival, cases: tuple[Case, ...], copied: CTVolume | None = None,
               instead_of: Case | None = None) -> Case:
        """Write a case aside and rename its folder, so that no half of one is ever seen."""
        home = self.folder / CASES
        aside = home / f".{uuid.uuid4().hex[:12]}-case"
        aside.mkdir()
        if copied is not None:
            write_volume(aside / IMAGE_COPY, copied.hu, copied.geometry)
            case = replace(case, image=str(aside / IMAGE_COPY), series=None)
        now = time_now()
        case = replace(case, folder=aside, patient=self._patient(arrival.patient, cases), created=now, changed=now)
        if arrival.labels is not None:
            write_labels(aside / LABELS, aside / KEYPOINTS, arrival.labels)
        if arrival.anatomy is not None:
            write_anatomy(aside, arrival.anatomy.labels, arrival.anatomy.geometry, arrival.anatomy.names)
        write_case(case)
        note(aside, arrival.annotator, "added", source=case.source, status=str(case.status), problem=case.problem,
             **arrival.report)
        if instead_of is not None:
            shutil.rmtree(instead_of.folder)
        numbers = [int(path.name) for path in home.iterdir() if path.name.isdecimal()]
        folder = instead_of.folder if instead_of is not None else home / f"{max(numbers, default=0) + 1:04d}"
        aside.rename(folder)
        return read_case(folder)

    @contextmanager
    def _adding(self) -> Iterator[tuple[Case, ...]]:
        """All cases, while nobody else can add one. Raises ValueError when another takes longer than WAIT_SECONDS."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                held = lock(self.folder / LOCK, "adding cases")
                break
            except Held:
                if time.monotonic() > until:
                    raise ValueError(f"another process adds cases to {self.folder}; try again when it is done") from None
                time.sleep(_POLL_SECONDS)
        try:
            remove_unfinished(self.folder / CASES)
            yield self.cases()
        finally:
            held.release()

    def _patient(self, identity: str | None, cases: tuple[Case, ...]) -> str:
        """The number of a patient: the one given before to the same identity, else the next."""
        path = self.folder / PATIENTS
        data = _patients(path)
        digest = identity and hmac.new(bytes.fromhex(data["key"]), identity.encode(), hashlib.sha256).hexdigest()
        number = data["numbers"].get(digest)
        if number is None:
            taken = (int(case.patient) for case in cases if case.patient.isdecimal())
            number = max(data["next"], max(taken, default=0) + 1)
            data["next"] = number + 1
            if digest:
                data["numbers"][digest] = number
            write_private(path, json.dumps(data, indent=1))
        return str(number)


def _patients(path: Path) -> dict[str, Any]:
    """Raises ValueError when the file is there but not whole."""
    if not path.exists():
        return {"key": secrets.token_hex(32), "next": 1, "numbers": {}}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        bytes.fromhex(data["key"]), int(data["next"]), dict(data["numbers"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}), so that patients cannot be recognised. Put a copy of it back, "
                         "or remove it: then patients that are added from now on get new numbers.") from None
    return data


def _unread(case: Case, cases: tuple[Case, ...]) -> Case | None:
    """The case of the same image that was added without its CT, so that there is no work in it."""
    return next((each for each in cases if each.problem and each.geometry is None and each.image == case.image
                 and each.series in (None, case.series)), None)


def create_project(folder: Path, title: str = "") -> Project:
    """A new, empty project. Raises ValueError when ``folder`` holds anything already."""
    folder = Path(folder).resolve()
    if (folder / PROJECT_FILE).exists():
        raise ValueError(f"{folder} is a project already; open it, or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; choose a new folder for the project")
    for name in (CASES, RUNS, MODELS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    record = {"schema_version": SCHEMA_VERSION, "title": title or folder.name, "created": time_now()}
    write_whole(folder / PROJECT_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return open_project(folder)


def open_project(folder: Path) -> Project:
    """Raises ValueError when ``folder`` is no project or project.json cannot be read."""
    folder = Path(folder).resolve()
    try:
        data = json.loads((folder / PROJECT_FILE).read_text(encoding="utf-8"))
        version, title = data["schema_version"], str(data["title"])
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} is no project: it has no {PROJECT_FILE}. Make one: lowdosebmd-train new "
                         "FOLDER") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / PROJECT_FILE} cannot be read ({error}). Correct it: it needs schema_version "
                         f"{SCHEMA_VERSION} and a title.") from None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{folder} is a project of version {version}, not {SCHEMA_VERSION}: open it with the program that "
                         "made it")
    for name in (CASES, RUNS, MODELS):
        (folder / name).mkdir(exist_ok=True)
    return Project(folder, title)
