"""Label maps that were made elsewhere, as what an annotator draws here: bones by our names, and keypoints."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from LowDoseBMDLib.anatomy import BONES, LEVELS, STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.markups import read_keypoints
from LowDoseBMDLib.files.read import read_labels
from LowDoseBMDLib.files.segmentation import load_segmentation
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.pipeline import NEAR_LEVELS, centre_of
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDLib.schemes import PUBLIC, VERTEBRAE, joined, masks_by_name, structure_named

from . import itksnap
from .cases import DRAWN, Labels
from .project import Anatomy

Point = tuple[float, float, float]

NEAR_MM = 5.0
"""A given centre is believed when it lies in the box round its vertebra, or this near to it: centres that were given in
another convention land tens of mm away. Judgement."""

NAMES_ENDINGS = (".csv", ".json", ".txt", ".label")
"""Files that may say what the labels of a map are."""

SCHEMES: dict[str, dict[int, str]] = {**PUBLIC, "lowdosebmd": {each.label: each.name for each in STRUCTURES.values()}}
"""Label value -> name, for label maps that come without a file of names."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """A label map as it came.

    labels: (k, j, i) integers on the CT's grid. names: the structure of each label. centres: of vertebral bodies by vertebra
    name, LPS mm, where they came with it. complete: every structure that has a name was looked for, so that one without a
    voxel is not in the CT; else it may be there, undrawn.
    """

    labels: np.ndarray
    names: Mapping[int, str]
    centres: Mapping[str, Point] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True, eq=False)
class Mapped:
    """What became of a label map.

    mapped: our names, each with the names of the labels that went into it and are in this CT. unmapped: labels of this CT
    that mean nothing of ours. notes: sentences on keypoints that could not be set. anatomy: the map as it came.
    """

    labels: Labels
    mapped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Bones that the label map does not know, whether they are in the CT or not."""
        return tuple(name for name in BONES if name not in self.labels.masks)


def map_labels(foreign: Foreign, ct: CTVolume) -> Mapped:
    """Sort a label map by our names, and set keypoints on whole vertebrae.

    A bone without a voxel is an empty region where the map is complete; else it is absent, like one without a name.
    """
    ours = {label: name for label, text in foreign.names.items() if (name := structure_named(text)) in (*DRAWN, *VERTEBRAE)}
    present = _values(foreign.labels)
    if not foreign.complete:
        ours = {label: name for label, name in ours.items() if label in present}
    found = masks_by_name(foreign.labels, ours) if ours else {}
    vertebrae = {name: mask for name, mask in found.items() if name in VERTEBRAE}
    bodies = {name.removeprefix("body_"): mask for name, mask in found.items() if name.startswith("body_")}
    masks = {name: found.get(name, NO_VOXELS) for name in DRAWN if name in ours.values()}
    parts = (*vertebrae.values(), *bodies.values(), masks.get("vertebrae", NO_VOXELS))
    if any(name in VERTEBRAE or name == "vertebrae" or name.startswith("body_") for name in ours.values()):
        masks = {"vertebrae": joined(parts)} | {name: mask for name, mask in masks.items() if name != "vertebrae"}
    keypoints, notes = keypoints_of(vertebrae, bodies, foreign.centres, ct)
    went: dict[str, tuple[str, ...]] = {}
    for label in present:
        if label in ours:
            name = "vertebrae" if ours[label] in VERTEBRAE else ours[label]
            went[name] = (*went.get(name, ()), foreign.names[label])
    unmapped = tuple(foreign.names.get(label, f"label {label}") for label in present if label not in ours)
    names = {label: foreign.names[label] for label in present if label in foreign.names}
    anatomy = Anatomy(foreign.labels, ct.geometry, names) if names else None
    return Mapped(Labels(ct.geometry, masks, keypoints), went, unmapped, notes, anatomy)


def _values(labels: np.ndarray) -> list[int]:
    """Values above 0 that occur."""
    return [int(value) for value in np.flatnonzero(np.bincount(labels[labels > 0].ravel()))]


def keypoints_of(vertebrae: Mapping[str, Mask], bodies: Mapping[str, Mask],
                 centres: Mapping[str, Point], ct: CTVolume) -> tuple[tuple[Keypoint, ...], tuple[str, ...]]:
    """Keypoints of T12, L1 and L2: the given centre where there is one, else the centre of the body where it is whole.

    vertebrae, bodies: by vertebra name on the CT's grid. Returns the keypoints, and a sentence for each level that lies in
    the label map but got none, or not the one that was given.
    """
    from LowDoseBMDLib.splitting import split_vertebrae
    from LowDoseBMDLib.vertebrae import assess_levels

    whole = {name: mask for name, mask in vertebrae.items() if name in NEAR_LEVELS and not mask.empty}
    wrong = [level for level in LEVELS
             if level in centres and level in whole and not _near(centres[level], whole[level], ct.geometry)]
    notes = [f"{level}: the given centre lies outside of the vertebra and was not taken" for level in wrong]
    points = {level: Keypoint(level, centres[level]) for level in LEVELS if level in centres and level not in wrong}
    if any(level in {**whole, **bodies} and level not in points for level in LEVELS):
        split = split_vertebrae({name: mask for name, mask in whole.items() if name not in bodies}, ct.geometry)
        every = {**bodies, **{name: parts.body for name, parts in split.items()}}
        for finding in assess_levels(every, ct.geometry, ct):
            if finding.name in points:
                continue
            if finding.complete:
                points[finding.name] = Keypoint(finding.name, centre_of(every[finding.name], ct.geometry))
            else:
                notes.append(f"{finding.name}: no keypoint: {finding.reason}")
    return tuple(points[level] for level in LEVELS if level in points), tuple(notes)


def _near(centre_lps_mm: Point, mask: Mask, geometry: Geometry) -> bool:
    kji, low = geometry.to_kji(np.array(centre_lps_mm)), np.array(mask.start_kji) - 0.5
    beyond_mm = np.maximum(np.maximum(low - kji, kji - low - mask.voxels.shape), 0) * geometry.spacing_kji_mm
    return float(np.linalg.norm(beyond_mm)) <= NEAR_MM


# --- files -------------------------------------------------------------------------------------------------

def map_file(path: Path, ct: CTVolume, names: Mapping[int, str] | None = None, complete: bool = False) -> Mapped:
    """The labels of one file: a segmentation of ours or of Slicer (.seg.nrrd), or a label map with its names.

    names: the structure of each label; None looks for a file of names beside the label map. complete: as of Foreign. Raises
    ValueError when there are no names, or the file cannot be read or lies elsewhere than the CT.
    """
    if path.name.lower().endswith(".seg.nrrd"):
        return _map_segmentation(path, ct)
    if names is None:
        beside = names_beside(path)
        if beside is None:
            raise ValueError(f"{path.name} holds numbers without names. Give the names of its labels (--names FILE, such as "
                             f"ITK-SNAP's label descriptions) or its numbering (--scheme {'|'.join(SCHEMES)})")
        names = read_names(beside)
    return map_labels(Foreign(read_labels(path, ct.geometry), names, complete=complete), ct)


def _map_segmentation(path: Path, ct: CTVolume) -> Mapped:
    stored = load_segmentation(path, ct.geometry)
    masks = {name: mask for name, mask in stored.masks.items() if name in DRAWN}
    points_file = path.with_name(path.name[:-len(".seg.nrrd")] + ".mrk.json")
    points_file = points_file if points_file.exists() else path.with_name("keypoints.mrk.json")
    keypoints, notes = read_keypoints(points_file) if points_file.exists() else (), ()
    if not keypoints:
        bodies = {level: mask for level in LEVELS if not (mask := masks.get(f"body_{level}", NO_VOXELS)).empty}
        keypoints, notes = keypoints_of({}, bodies, {}, ct)
    left_out = tuple(name for name in stored.masks if name not in DRAWN)
    return Mapped(Labels(ct.geometry, masks, keypoints), {name: (STRUCTURES[name].title,) for name in masks},
                  (*stored.unknown, *left_out), notes)


def names_beside(path: Path) -> Path | None:
    """The file of names that belongs to a label map: of the same name, or the only one of its folder that is one."""
    stem = plain_stem(path)
    own = [path.with_name(stem + ending) for ending in NAMES_ENDINGS]
    folder = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in NAMES_ENDINGS]
    for candidates in ([file for file in own if _holds_names(file)], [file for file in folder if _holds_names(file)]):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _holds_names(path: Path) -> bool:
    try:
        return path.is_file() and bool(read_names(path))
    except (ValueError, OSError):
        return False


def read_names(path: Path) -> dict[int, str]:
    """The structure of each label: CSV with the columns id and structure, JSON label -> name, or ITK-SNAP's descriptions.

    Raises ValueError when the file is none of these.
    """
    if path.suffix.lower() == ".json":
        return _json_names(path)
    if path.suffix.lower() == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"id", "structure"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{path.name} needs the columns id and structure; it has {rows.fieldnames}")
            return {int(row["id"]): row["structure"] for row in rows}
    return {label.index: label.name for label in itksnap.read_label_descriptions(path) if label.index > 0}


def _json_names(path: Path) -> dict[int, str]:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not all(isinstance(name, str) and label.isdecimal() for label, name in data.items()):
        raise ValueError(f"{path.name} is no JSON object of label: name")
    return {int(label): name for label, name in data.items()}


def plain_stem(path: Path) -> str:
    """The name of a file without its ending (.nii.gz, .seg.nrrd, .nrrd)."""
    name = path.name
    for ending in (".seg.nrrd", ".nii.gz"):
        if name.lower().endswith(ending):
            return name[:-len(ending)]
    return path.stem
