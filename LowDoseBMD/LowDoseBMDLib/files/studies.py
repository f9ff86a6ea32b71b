"""Which studies an archive holds: a folder tree, a CSV of paths, or a DICOMDIR; headers only, no pixels are read."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .dicom import Identity, identity_of
from .dicom_folder import DICOMDIR, leads_out
from .dicom_pixels import damages
from .volumes import kind_of
from .web_series import WebSource

logger = logging.getLogger(__name__)

SEGMENTATION = ".seg.nrrd"
"""Files that end so hold regions, not a CT."""


@dataclass(frozen=True)
class Study:
    """One study to measure.

    names: what tells it from every other: the UIDs of the study and of its CT series, or its path. sources: its DICOM files,
    or the one path that was given for it. dicom: sources are the files of one DICOM study. labels: its label map, to be
    taken instead of the networks. web: the server that has it, in place of sources.
    """

    names: tuple[str, ...]
    sources: tuple[Path, ...]
    dicom: bool = False
    labels: Path | None = None
    web: WebSource | None = None

    @property
    def place(self) -> Path | str:
        """Where a person would look for it: the volume file, the folder that holds all its DICOM files, or an address."""
        if self.web:
            return f"{self.web.server.url.rstrip('/')}/studies/{self.web.study_uid}"
        if not self.dicom:
            return self.sources[0]
        return Path(os.path.commonpath([str(path.parent) for path in self.sources]))


def find_studies(source: Path, skip: Path | None = None) -> list[Study]:
    """All studies, each once, in the order of their paths or of the CSV's rows.

    source: a folder tree; a DICOMDIR; or a CSV with the column ``path`` and, if wanted, ``labels``, both relative to it.
    skip: a folder inside source that is not searched, such as that of the results. DICOM files belong together by their
    StudyInstanceUID wherever they lie; of a study that has CT series only these are taken. Every volume file is a study.
    Raises ValueError when source is none of these, the CSV has no such column, or nothing is found.
    """
    source, skip = source.resolve(), skip and skip.resolve()
    if source.is_dir():
        studies = _in_files(_files_below(source, skip))
    elif source.name.upper() == DICOMDIR and source.is_file():
        studies = _in_files(_files_of_dicomdir(source))
    elif source.suffix.lower() == ".csv" and source.is_file():
        studies = [study for row in _rows(source) for study in _of_row(source.parent, row, skip)]
    else:
        raise ValueError(f"{source} is neither a folder, a DICOMDIR nor a CSV of studies")
    if not studies:
        raise ValueError(f"{source} holds no studies")
    once: dict[tuple[str, ...], Study] = {}
    for study in studies:
        once.setdefault(study.names, study)
    return list(once.values())


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or []):
            raise ValueError(f"{path.name}: a column named 'path' is needed; it has {reader.fieldnames}")
        return [row for row in reader if row["path"]]


def _of_row(home: Path, row: dict[str, str], skip: Path | None) -> list[Study]:
    """A row that names nothing usable is a study still: it is refused with the reason, and so not lost."""
    path, labels = home / row["path"], home / row["labels"] if row.get("labels") else None
    if labels is not None:
        return [Study((str(path), str(labels)), (path,), labels=labels)]
    if path.is_dir():
        found = _in_files(_files_below(path.resolve(), skip))
    elif path.name.upper() == DICOMDIR and path.is_file():
        found = _in_files(_files_of_dicomdir(path))
    else:
        found = []
    return found or [Study((str(path),), (path,))]


def _files_below(folder: Path, skip: Path | None) -> Iterator[Path]:
    """As _walk, without links that lead out of ``folder``: how many there are is logged."""
    home, links = folder.resolve(), 0
    for path in _walk(folder, skip):
        if path.is_symlink() and leads_out(path, home):
            links += 1
        else:
            yield path
    if links:
        logger.warning("%d links that lead out of the folder were not followed; copy what they lead to into it", links)


def _walk(folder: Path, skip: Path | None) -> Iterator[Path]:
    """In the order of their paths; links to folders are not followed, hidden files and folders are left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path == skip:
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _walk(path, skip)
        elif path.is_file() and path.name.upper() != DICOMDIR:
            yield path


def _files_of_dicomdir(path: Path) -> Iterator[Path]:
    """Raises ValueError when it cannot be read, or names a file outside its folder."""
    import pydicom

    try:
        records = pydicom.dcmread(path).get("DirectoryRecordSequence") or ()
        names = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    except damages() as error:
        raise ValueError(f"{path} cannot be read as a DICOMDIR ({type(error).__name__}). Give the folder that holds it: "
                         "then its files are found without it.") from None
    home = path.parent.resolve()
    for name in names:
        relative = PurePosixPath(*([name] if isinstance(name, str) else name))
        file = (home / relative).resolve()
        if not file.is_relative_to(home):
            raise ValueError(f"{path} names a file outside its folder, which is not followed. Give the folder instead.")
        if file.is_file():
            yield file
        else:
            logger.warning("a file that the DICOMDIR names is not there")


@dataclass
class _Found:
    """DICOM files of one study, by series."""

    series: dict[str, list[Path]] = field(default_factory=dict)
    modalities: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path, identity: Identity) -> None:
        self.series.setdefault(identity.series_uid, []).append(path)
        self.modalities[identity.series_uid] = identity.modality

    def study(self, uid: str) -> Study:
        ct = [series for series in self.series if self.modalities[series] == "CT"]
        kept = sorted(ct or self.series)
        return Study((uid, *kept), tuple(sorted(path for series in kept for path in self.series[series])), dicom=True)


def _in_files(files: Iterable[Path]) -> list[Study]:
    """Studies in the order of their first files. A folder with nothing but damaged DICOM files is one, to be refused."""
    found: dict[str, _Found] = {}
    volumes: list[Study] = []
    damaged: dict[Path, Path] = {}
    sound: set[Path] = set()
    for path in files:
        if kind_of(path):
            if not path.name.lower().endswith(SEGMENTATION):
                volumes.append(Study((str(path),), (path,)))
            continue
        identity = identity_of(path)
        if identity is None:
            continue
        if not identity.series_uid:
            damaged.setdefault(path.parent, path)
            continue
        sound.add(path.parent)
        found.setdefault(identity.study_uid or str(path.parent), _Found()).add(path, identity)
    broken = [Study((str(folder),), (folder,)) for folder in damaged if folder not in sound]
    return sorted([*volumes, *broken, *(one.study(uid) for uid, one in found.items())], key=lambda study: study.sources[0])
