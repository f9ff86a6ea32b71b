"""Scores of models on annotated cases: each case through the same inference as the product, against what a person drew.

What a case does not annotate is not scored. Cases that the models were trained on are scored too and marked so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.failures import is_memory, refusal_of
from LowDoseBMDLib.flags import LEVEL_UNCERTAIN
from LowDoseBMDLib.inference import Progress, silent
from LowDoseBMDLib.rois import NO_VOXELS, Mask

from .cases import Case, Labels, Status, read_image, read_labels
from .predraw import Prediction
from .scores import cut_to_both, dice, identified, keypoint_errors_mm, surface_scores

PLAIN = "none"
"""Name of the perturbation that changes nothing."""

Predictor = Callable[[CTVolume, Progress], Prediction]
"""What the models draw on a CT."""


@dataclass(frozen=True)
class StructureScore:
    """One structure of one case; dice, nsd, hd95_mm, mean_mm as of scores.py. truth_mm3, found_mm3: volumes."""

    structure: str
    dice: float
    nsd: float
    hd95_mm: float
    mean_mm: float
    truth_mm3: float
    found_mm3: float


@dataclass(frozen=True)
class KeypointScore:
    """One level of one case. error_mm is infinite where the level was not found; identified as VerSe has it."""

    level: str
    error_mm: float
    identified: bool


@dataclass(frozen=True)
class TrabecularScore:
    """Trabecular bone of one level, both regions made from the bodies as the product makes them.

    core_recall: share of the truth's region that lies in the body that was found. truth_hu, found_hu: mean HU inside.
    """

    level: str
    core_recall: float
    truth_hu: float
    found_hu: float


@dataclass(frozen=True)
class CaseScores:
    """All scores of one case under one perturbation.

    exposure: whether the models know the case (evaluation_subject.py). confidence: of the names of the levels, None where
    none was found. asks: LowDoseBMD has a reader confirm them. problem: why there are no scores, or why all was missed;
    empty else. kinds: what was varied in a scan that was drawn. misnamed: levels whose name was given to another vertebra,
    where all of the vertebrae are known.
    """

    case: str
    patient: str
    perturbation: str
    exposure: str
    synthetic: bool
    structures: tuple[StructureScore, ...] = ()
    keypoints: tuple[KeypointScore, ...] = ()
    trabecular: tuple[TrabecularScore, ...] = ()
    confidence: float | None = None
    asks: bool = False
    seconds: float = 0.0
    problem: str = ""
    kinds: tuple[str, ...] = ()
    misnamed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Drawn:
    """A scored case with what it was scored on, for pictures."""

    scores: CaseScores
    ct: CTVolume
    truth: Labels
    found: Labels


# --- one case ----------------------------------------------------------------------------------------------

def score_structures(found: Labels, truth: Labels, names: Iterable[str]) -> tuple[StructureScore, ...]:
    """Scores of the named structures that the truth annotates; those that are empty in both are left out."""
    scores = []
    for name in names:
        if name not in truth.masks:
            continue
        mask, true = found.masks.get(name, NO_VOXELS), truth.masks[name]
        if mask.empty and true.empty:
            continue
        pair = cut_to_both(mask, true)
        surface = surface_scores(*pair, truth.geometry.spacing_kji_mm)
        scores.append(StructureScore(name, dice(*pair), surface.nsd, surface.hd95_mm, surface.mean_mm,
                                     true.volume_mm3(truth.geometry), mask.volume_mm3(truth.geometry)))
    return tuple(scores)


def score_keypoints(found: Labels, truth: Labels) -> tuple[KeypointScore, ...]:
    """Scores of the levels that the truth annotates."""
    errors = keypoint_errors_mm(found.keypoints, truth.keypoints)
    right = identified(*({point.level: point.position_lps_mm for point in labels.keypoints} for labels in (found, truth)))
    return tuple(KeypointScore(level, errors[level], right[level]) for level in errors)


def score_trabecular(ct: CTVolume, found: Labels, truth: Labels) -> tuple[TrabecularScore, ...]:
    """Scores of the levels whose bodies the truth annotates and shows whole."""
    true, other = (_cores(ct, labels) for labels in (truth, found))
    scores = []
    for level, core in true.items():
        body, own = cut_to_both(found.masks.get(f"body_{level}", NO_VOXELS), core)
        hu = float(other[level].values(ct.hu).mean()) if level in other else float("nan")
        scores.append(TrabecularScore(level, float((body & own).sum() / own.sum()), float(core.values(ct.hu).mean()), hu))
    return tuple(scores)


def _cores(ct: CTVolume, labels: Labels) -> dict[str, Mask]:
    """Trabecular regions by level, made from the bodies."""
    from LowDoseBMDLib.pipeline import rois_from_masks

    bodies = {name: mask for name, mask in labels.masks.items() if name.startswith("body_") and not mask.empty}
    masks = rois_from_masks(ct, bodies).masks if bodies else {}
    return {level: masks[f"trabecular_{level}"] for level in LEVELS if f"trabecular_{level}" in masks}


# --- many cases --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Scope:
    """What a subject's models draw, and so what is scored. structures: names of the registry."""

    structures: tuple[str, ...]
    keypoints: bool


def scored_cases(cases: Sequence[Case], names: Sequence[str] | None = None) -> tuple[list[Case], list[tuple[str, str]]]:
    """(cases to score, (name, why not) of the others). Without names: all completed ones. Raises ValueError for a name that
    is none."""
    known = {case.name: case for case in cases}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"no case {', '.join(unknown)} in this project; it has {', '.join(known) or 'none'}")
    chosen, others = [], []
    for case in (known[name] for name in names) if names else cases:
        why = f"it cannot be read: {case.problem}" if case.problem else ""
        if not why and not names and case.status is not Status.COMPLETED:
            why = f"it is {case.status}, not completed"
        if why:
            others.append((case.name, why))
        else:
            chosen.append(case)
    return chosen, others


def evaluate_case(case: Case, predict: Predictor, scope: Scope, exposure: str, perturbations: Sequence[str] = (),
                  progress: Progress = silent) -> Iterator[Drawn | CaseScores]:
    """The case as it is, then under each perturbation (evaluation_perturb.py); CaseScores alone where it cannot be scored.

    Raises inference.Cancelled when the progress callback asks, MemoryError.
    """
    blank = CaseScores(case.name, case.patient, PLAIN, exposure, case.synthetic)
    try:
        ct, truth = read_image(case), read_labels(case)
    except (ValueError, OSError) as error:
        yield replace(blank, problem=str(error))
        return
    if not scope.keypoints:
        truth = replace(truth, keypoints=())
    if not truth.keypoints and not set(truth.masks) & set(scope.structures):
        yield replace(blank, problem="it annotates nothing that these models draw")
        return
    yield from evaluate_scan(blank, ct, truth, predict, scope, perturbations, progress)


def evaluate_scan(blank: CaseScores, ct: CTVolume, truth: Labels, predict: Predictor, scope: Scope,
                  perturbations: Sequence[str] = (), progress: Progress = silent) -> Iterator[Drawn]:
    """A scan as it is, then under each perturbation. blank: the scores to fill."""
    from .evaluation_perturb import perturb

    for name in (PLAIN, *perturbations):
        changed = (ct, truth) if name == PLAIN else perturb(name, ct, truth, blank.case)
        yield _scored(replace(blank, perturbation=name), *changed, predict, scope, progress)


def _scored(blank: CaseScores, ct: CTVolume, truth: Labels, predict: Predictor, scope: Scope,
            progress: Progress) -> Drawn:
    begun = time.perf_counter()
    try:
        proposal = predict(ct, progress)
    except (ValueError, IndexError, RuntimeError) as error:
        if is_memory(error):
            raise MemoryError(str(error)) from error
        proposal = Prediction(Labels(ct.geometry))
        blank = replace(blank, problem=f"refused: {refusal_of(error)}")
    seconds, found = time.perf_counter() - begun, proposal.labels
    progress("scoring", 0.0)
    names = [name for name in scope.structures if not name.startswith("body_")]
    bodies = [name for name in scope.structures if name.startswith("body_")]
    scores = replace(
        blank, seconds=seconds, confidence=_confidence(found),
        asks=any(flag.code == LEVEL_UNCERTAIN for flag in proposal.flags),
        structures=score_structures(found, truth, [*names, *bodies]), keypoints=score_keypoints(found, truth),
        trabecular=score_trabecular(ct, found, truth) if bodies else ())
    return Drawn(scores, ct, truth, found)


def _confidence(found: Labels) -> float | None:
    known = [point.confidence for point in found.keypoints if point.confidence is not None]
    return float(np.mean(known)) if known else None


def as_record(scores: CaseScores) -> Mapping[str, object]:
    """Plain data of one row of scores.json; infinite distances are null."""
    from LowDoseBMDLib.report.tables import plain

    return plain(scores)
