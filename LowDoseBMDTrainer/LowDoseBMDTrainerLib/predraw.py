"""A case drawn by the current models, for an annotator to correct."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.bones import segment_bones
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.markups import read_keypoints
from LowDoseBMDLib.files.segmentation import load_segmentation
from LowDoseBMDLib.flags import Flag, Refusal
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.inference import Progress, silent
from LowDoseBMDLib.pipeline import Models, Skeleton, Stopwatch, draw_bones, find_skeleton

from .cases import (
    PROPOSED_KEYPOINTS,
    PROPOSED_LABELS,
    Case,
    Labels,
    Status,
    open_for_writing,
    read_image,
    read_labels,
    write_labels,
)
from .masks import apart

ANNOTATOR = "model"
"""Who has drawn a proposal, in the history of a case."""

STAGE_SHARES: dict[str, float] = {
    "reading the CT": 0.17, "bones": 0.02, "finding the bones": 0.24, "vertebral bodies": 0.02,
    "drawing the vertebral bodies": 0.38, "keypoints": 0.01, "finding T12, L1 and L2": 0.07, "fine bones": 0.01,
    "drawing ribs, clavicles and scapulae": 0.35, "drawing regions": 0.07,
    "saving": 0.02}
"""Share of a case's time that each stage takes, in their order; processor time of a chest CT of 512 x 512 x 133."""


@dataclass(frozen=True)
class Wanted:
    """What is drawn besides the four classes of bone and the keypoints. other_bones: sternum, humeri, hips, sacrum, where
    the bone network has that class. bodies: the bodies of T12, L1, L2 without their arches."""

    other_bones: bool = False
    bodies: bool = False


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the models draw, and what LowDoseBMD says to a reader of the names of the levels."""

    labels: Labels
    flags: tuple[Flag, ...] = ()


def predraw(ct: CTVolume, models: Models, wanted: Wanted = Wanted(), progress: Progress = silent) -> Prediction:
    """Bones and keypoints of a CT as LowDoseBMD finds them; only bones where it finds no spine.

    Raises inference.Cancelled when the progress callback asks.
    """
    watch = Stopwatch(progress)
    names = (*BONES, OTHER_BONES) if wanted.other_bones else BONES
    try:
        found = find_skeleton(ct, models, watch, wanted.other_bones)
    except Refusal:  # no spine in the scan: shoulders alone are worth drawing too
        with watch.stage("bones"):
            bones = segment_bones(ct, models.bones, progress)
        found = Skeleton(draw_bones(ct, bones, models, watch, names))
    drawn = {name: found.bones[name] for name in names if name in found.bones and not found.bones[name].empty}
    masks = apart(drawn)  # each class is brought to the CT's grid by itself, so that neighbours may overlap by a voxel
    if wanted.bodies:
        masks |= {f"body_{name}": found.bodies[name] for name in LEVELS if name in found.bodies}
    return Prediction(Labels(ct.geometry, masks, found.keypoints), found.flags)


def why_not(case: Case, again: bool = False) -> str:
    """Why a case is not pre-drawn, empty when it is. again: also where somebody has drawn already, but never over a
    completed case."""
    if case.problem:
        return f"it cannot be read: {case.problem}"
    if case.status is Status.COMPLETED:
        return "it is completed"
    labels = read_labels(case)
    drawn = any(not mask.empty for mask in labels.masks.values()) or labels.keypoints
    return "it has labels already" if drawn and not again else ""


def store(case: Case, proposal: Labels, again: bool = False) -> bool:
    """Keep the proposal with its case, as its labels too when it has none, or when ``again`` says so; returns whether they
    became its labels. Raises cases.CaseTaken when somebody works on the case."""
    with open_for_writing(case, ANNOTATOR) as writing:
        start = not why_not(writing.case, again)
        writing.save_proposal(proposal)
        if start:
            writing.start_from(proposal)
    return start


def predraw_case(case: Case, models: Models, wanted: Wanted = Wanted(), again: bool = False,
                 progress: Progress = silent) -> bool:
    """Read, pre-draw and store one case; returns whether the proposal became its labels.

    Raises ValueError when its CT cannot be read, cases.CaseTaken, inference.Cancelled.
    """
    progress("reading the CT", 0.0)
    proposal = predraw(read_image(case), models, wanted, progress).labels
    progress("saving", 0.0)
    return store(case, proposal, again)


def write_result(folder: Path, proposal: Labels) -> None:
    """The proposal as files beside the project, for a program that has the case open itself."""
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / PROPOSED_LABELS, folder / PROPOSED_KEYPOINTS, proposal)


def read_result(folder: Path, geometry: Geometry) -> Labels:
    """What write_result has written. geometry: of the CT. Raises ValueError when it is not whole."""
    return Labels(geometry, load_segmentation(folder / PROPOSED_LABELS, geometry).masks,
                  read_keypoints(folder / PROPOSED_KEYPOINTS))
