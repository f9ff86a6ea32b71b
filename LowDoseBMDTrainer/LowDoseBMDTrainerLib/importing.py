"""CTs, with or without labels, into a project: from a clinic's files or from public data sets, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.failures import is_memory
from LowDoseBMDLib.files.read import read_ct, read_label_map
from LowDoseBMDLib.rois import NO_VOXELS

from .cases import (
    LABELS,
    Case,
    CaseTaken,
    Status,
    Writing,
    open_for_writing,
    read_image,
    read_labels,
    write_anatomy,
)
from .layouts import ctspine1k, plain, ribseg, totalsegmentator, verse
from .layouts.found import Found
from .mapping import SCHEMES, Mapped, read_names
from .project import Arrival, CaseThere, Project

log = logging.getLogger(__name__)

PUBLIC_SETS: dict[str, Callable[[Path], list[Found]]] = {
    "verse": verse.find, "totalsegmentator": totalsegmentator.find, "ribseg": ribseg.find, "ctspine1k": ctspine1k.find}
"""Layouts by name, in the order in which they are tried."""

GUESSED = ("verse", "totalsegmentator", "ribseg")
"""Layouts whose file names no other data have. CTSpine1K's ``<name>_seg.nii.gz`` may be anything."""

AUTO, PLAIN = "auto", "plain"
LAYOUTS = (AUTO, PLAIN, *PUBLIC_SETS)

IMPORTER = "import"
"""Who is the annotator of labels that came with a CT."""

ADDED, LABELS_ADDED, THERE = "added", "labels added", "there already"
UNREADABLE, NO_CT = "cannot be read", "no CT"
"""What became of a CT. Only the last makes no case."""

LARGEST_LABEL = 255
"""A file of whole numbers from 0 to this at most is a label map or a picture: no CT lacks negative values."""


@dataclass(frozen=True)
class ImportOptions:
    """How to import.

    layout: one of LAYOUTS. copy: keep the CTs in the project, as NIfTI without anything of the patient. to_check: labels are
    in progress until a person has looked at them, whatever they hold. labels, names: the label map of the only CT, and the
    names of the labels of all. scheme: a key of mapping.SCHEMES, in place of names. complete: label maps were looked through
    for every bone that has a name, so that one without a voxel is not in the CT. synthetic: the CTs were drawn by a program.
    """

    layout: str = AUTO
    copy: bool = False
    to_check: bool = False
    labels: Path | None = None
    names: Path | None = None
    scheme: str | None = None
    complete: bool = False
    synthetic: bool = False


@dataclass(frozen=True, eq=False)
class Imported:
    """What became of one CT.

    case: None when it is no CT. problem: why it, or its labels, could not be read; empty when all is well. mapped: what
    became of its labels; None when there are none.
    """

    place: Path
    outcome: str
    case: Case | None = None
    problem: str = ""
    mapped: Mapped | None = None


def find_all(sources: Sequence[Path], options: ImportOptions = ImportOptions(), skip: Path | None = None) -> list[Found]:
    """Every CT of all sources, each once. skip: a folder inside of them that is left out, such as that of the project.

    Raises ValueError for an unknown layout or scheme, a source that is not there or holds no CT, or ``labels`` for several.
    """
    if options.layout not in LAYOUTS:
        raise ValueError(f"the layout {options.layout!r} is not known; use one of {', '.join(LAYOUTS)}")
    meaning = read_meaning(options.names, options.scheme, options.complete)
    found: dict[tuple[Path, ...], Found] = {}
    for source in sources:
        if not source.exists():
            raise ValueError(f"there is nothing at {source}; check the spelling")
        for each in _found_in(source.resolve(), options, meaning):
            if skip is None or not each.place.is_relative_to(skip):
                found.setdefault(each.sources, each)
    if options.labels and len(found) > 1:
        raise ValueError(f"--labels is the label map of one CT, but {len(found)} were found; import them one by one")
    return list(found.values())


def read_meaning(names: Path | None, scheme: str | None, complete: bool = False) -> plain.Meaning:
    """What labels mean, by a file of names or a key of mapping.SCHEMES, if one of them is given.

    complete: see mapping.Foreign. Raises ValueError for an unknown scheme or a file that is none of names, OSError without
    the file.
    """
    if scheme is None:
        return plain.Meaning(read_names(names) if names else None, complete)
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme {scheme!r} is not known; use one of {', '.join(SCHEMES)}")
    return plain.Meaning(SCHEMES[scheme], complete)


def _found_in(source: Path, options: ImportOptions, meaning: plain.Meaning) -> list[Found]:
    if options.layout == PLAIN or source.is_file() or options.labels:
        return plain.find(source, options.labels, meaning)
    if options.layout != AUTO:
        found = PUBLIC_SETS[options.layout](source)
        if not found:
            raise ValueError(f"{source} holds no case in the layout of {options.layout}: see its published folders")
        return found
    guesses = (PUBLIC_SETS[name](source) for name in GUESSED)
    return next((found for found in guesses if found), None) or plain.find(source, meaning=meaning)


def import_cases(project: Project, found: Sequence[Found], options: ImportOptions = ImportOptions()) -> Iterator[Imported]:
    """Add one CT after the other, and say what became of it; one that cannot be read becomes a case that says why.

    The next CT is read when the next answer is asked for. Raises OSError when the project cannot be written.
    """
    for each in found:
        yield _import(project, each, options)


def _import(project: Project, found: Found, options: ImportOptions) -> Imported:
    try:
        ct = read_ct(found.sources if found.dicom and len(found.sources) > 1 else found.sources[0])
        patient = found.patient or (_patient_of(found.sources[0]) if found.dicom else None)
    except (ValueError, OSError, MemoryError) as error:
        if not found.dicom and _is_label_map(found.sources[0]):
            return Imported(found.place, NO_CT, problem="it holds whole numbers from 0 to 255 only: a picture without HU, "
                            "or a label map without a CT of a like name (ct and labels) beside it; give both with --labels")
        sentence = _sentence(error)
        case = project.add_unreadable(found.place, sentence, found.source, found.series)
        return Imported(found.place, UNREADABLE, case, sentence)
    mapped, problem = _labels(found, ct)
    arrival = _arrival(found, ct, patient, mapped, options)
    try:
        case = project.add(found.place, ct, options.copy, arrival)
        return Imported(found.place, ADDED, case, problem, mapped)
    except CaseThere as there:
        return _add_labels(there.case, found, mapped, arrival, problem)


def _sentence(error: Exception) -> str:
    return "it does not fit into this computer's memory" if is_memory(error) else str(error)


def _is_label_map(path: Path) -> bool:
    try:
        labels, _ = read_label_map(path)
    except (ValueError, OSError, MemoryError):
        return False
    return int(labels.min()) >= 0 and int(labels.max()) <= LARGEST_LABEL


def _labels(found: Found, ct: CTVolume) -> tuple[Mapped | None, str]:
    """What became of the labels, and why there are none where there should be."""
    if found.read_labels is None:
        return None, ""
    try:
        mapped = found.read_labels(ct)
    except (ValueError, OSError, MemoryError) as error:
        return None, f"its labels were left out: {_sentence(error)}"
    if not mapped.labels.masks:
        found_names = ", ".join(mapped.unmapped[:6]) or "it is empty"
        return None, f"its labels were left out: none of them means a bone ({found_names})"
    return mapped, ""


def _arrival(found: Found, ct: CTVolume, patient: str | None, mapped: Mapped | None, options: ImportOptions) -> Arrival:
    series = (found.series or ct.acquisition.series_uid) if found.dicom else None
    if mapped is None:
        return Arrival(series, patient, found.source, options.synthetic)
    status = Status.IN_PROGRESS if mapped.missing or options.to_check else Status.COMPLETED
    reason = f"its labels hold no {', '.join(mapped.missing)}" if mapped.missing else "to be checked" * options.to_check
    report: dict[str, Any] = {"mapped": {name: list(labels) for name, labels in mapped.mapped.items()},
                              "not_mapped": list(mapped.unmapped), "notes": list(mapped.notes)}
    return Arrival(series, patient, found.source, options.synthetic, mapped.labels, status, IMPORTER, reason, mapped.anatomy,
                   report)


def _add_labels(case: Case, found: Found, mapped: Mapped | None, arrival: Arrival, problem: str) -> Imported:
    """Labels for a case that has none; a person's work is never replaced."""
    if mapped is None or case.status is not Status.NOT_STARTED or (case.folder / LABELS).exists():
        return Imported(found.place, THERE, case, problem)
    try:
        with open_for_writing(case, IMPORTER) as writing:
            writing.save(mapped.labels)
            if mapped.anatomy is not None:
                write_anatomy(case.folder, mapped.anatomy.labels, mapped.anatomy.geometry, mapped.anatomy.names)
            writing.set_status(arrival.status, arrival.reason)
            return Imported(found.place, LABELS_ADDED, writing.case, problem, mapped)
    except CaseTaken as taken:
        return Imported(found.place, THERE, case, f"its labels were left out: {taken}")


def take_labels(writing: Writing, path: Path, meaning: plain.Meaning = plain.Meaning()) -> Mapped:
    """Labels of a case from a file that was drawn elsewhere, such as ITK-SNAP's, in place of its own.

    A structure that was drawn before and is not in the file is empty now. Keypoints stay, where the case has some. Raises
    ValueError when the file cannot be read, or holds no bone; the case is as it was then.
    """
    before = read_labels(writing.case)
    mapped = plain.reader(path, meaning)(read_image(writing.case))
    if not mapped.labels.masks:
        raise ValueError(f"{path.name} holds nothing that is drawn here; its labels: {', '.join(mapped.unmapped) or 'none'}")
    masks = dict.fromkeys(before.masks, NO_VOXELS) | dict(mapped.labels.masks)
    labels = replace(mapped.labels, masks=masks, keypoints=before.keypoints or mapped.labels.keypoints)
    writing.save(labels)
    return replace(mapped, labels=labels)


def _patient_of(path: Path) -> str | None:
    """What tells the patient of a DICOM file from others; None when the file does not say. It is hashed, never stored."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True,
                             specific_tags=["PatientID", "IssuerOfPatientID", "StudyInstanceUID"])
    patient, study = str(header.get("PatientID") or "").strip(), str(header.get("StudyInstanceUID") or "")
    return f"{header.get('IssuerOfPatientID') or ''}\0{patient}" if patient else study or None
