"""What a clinic has: DICOM folders, volume files with label maps beside them, a CSV of paths, or an ITK-SNAP workspace.

A label map belongs to the CT of the same folder whose name differs only by such words as ct and labels:
``ct.nii.gz`` and ``labels.nii.gz``, ``case7_image.nrrd`` and ``case7.seg.nrrd``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from LowDoseBMDLib.files.studies import Study, find_studies
from LowDoseBMDLib.files.volumes import kind_of

from ..itksnap import read_workspace
from ..mapping import map_file, plain_stem
from .found import Found, ReadLabels

WORKSPACE = ".itksnap"
_IMAGE_WORDS = frozenset({"ct", "image", "img", "volume", "scan"})
_LABEL_WORDS = frozenset({"label", "labels", "seg", "segmentation", "mask", "masks", "msk"})


@dataclass(frozen=True)
class Meaning:
    """What the labels of label maps mean; see mapping.Foreign. names: None looks for a file of names beside each map."""

    names: Mapping[int, str] | None = None
    complete: bool = False


def find(source: Path, labels: Path | None = None, meaning: Meaning = Meaning()) -> list[Found]:
    """Every CT of a folder tree, a CSV, a workspace or a file. labels: the label map of the only CT; meaning: of its labels.

    Raises ValueError when there is none, or ``labels`` is given for several.
    """
    if source.suffix.lower() == WORKSPACE:
        found = [_of_workspace(source, meaning)]
    elif source.is_file() and kind_of(source):
        found = [_of_volume(source, _labels_of(source, list(source.parent.iterdir())), meaning)]
    elif source.is_file() and source.suffix.lower() != ".csv" and source.name.upper() != "DICOMDIR":
        found = [Found((source,), source, "DICOM", dicom=True)]
    else:
        found = _of_studies(find_studies(source), meaning)
    if labels is None:
        return found
    if len(found) != 1:
        raise ValueError(f"{source} holds {len(found)} CTs, so that it is not known to which {labels.name} belongs; give "
                         "one CT")
    return [replace(found[0], read_labels=reader(labels, meaning))]


def _of_studies(studies: list[Study], meaning: Meaning) -> list[Found]:
    files = [study.sources[0] for study in studies if not study.dicom]
    found = []
    for study in studies:
        path = study.sources[0]
        if study.dicom:
            series = study.names[1] if len(study.names) == 2 else None
            found.append(Found(study.sources, Path(study.place), "DICOM", dicom=True, series=series))
        elif study.labels:
            found.append(_of_volume(path, study.labels, meaning))
        elif not _is_label_map(path) or _image_of(path, files) is None:
            beside = list(path.parent.iterdir()) if path.is_file() else []
            found.append(_of_volume(path, _labels_of(path, beside), meaning))
    return found


def _of_volume(path: Path, labels: Path | None, meaning: Meaning) -> Found:
    kind = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage"}.get(kind_of(path) or "", "DICOM")
    return Found((path,), path, kind, read_labels=labels and reader(labels, meaning))


def _of_workspace(path: Path, meaning: Meaning) -> Found:
    workspace = read_workspace(path)
    if meaning.names is None:
        meaning = replace(meaning, names={label.index: label.name for label in workspace.labels})
    labels = workspace.segmentation
    return Found((workspace.image,), workspace.image, "ITK-SNAP workspace", read_labels=labels and reader(labels, meaning))


def reader(labels: Path, meaning: Meaning) -> ReadLabels:
    """What reads a file of labels."""
    return partial(map_file, labels, names=meaning.names, complete=meaning.complete)


def _words(path: Path) -> list[str]:
    return re.split(r"[\s_.-]+", plain_stem(path).casefold())


def _is_label_map(path: Path) -> bool:
    return path.name.lower().endswith(".seg.nrrd") or not _LABEL_WORDS.isdisjoint(_words(path))


def _key(path: Path) -> tuple[Path, tuple[str, ...]]:
    """What an image and its label map have in common."""
    return path.parent, tuple(word for word in _words(path) if word not in _IMAGE_WORDS | _LABEL_WORDS)


def _image_of(labels: Path, files: list[Path]) -> Path | None:
    return next((file for file in files if _key(file) == _key(labels) and not _is_label_map(file)), None)


def _labels_of(image: Path, files: list[Path]) -> Path | None:
    """A segmentation with names is taken before a label map."""
    own = [file for file in files if kind_of(file) and _is_label_map(file) and _key(file) == _key(image)]
    return min(own, key=lambda file: (not file.name.lower().endswith(".seg.nrrd"), file.name), default=None)
