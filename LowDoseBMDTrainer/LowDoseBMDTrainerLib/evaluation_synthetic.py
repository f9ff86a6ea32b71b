"""Scores of models on scans that are drawn of people (synthetic_scans.py): what the naming of levels is worth.

All vertebrae of such a scan are known, so that a name given to another vertebra is seen as such even where the level itself
is not in the scan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from LowDoseBMDLib.anatomy import LEVELS, SPINE
from LowDoseBMDLib.inference import Progress, silent
from LowDoseBMDLib.rois import Keypoint

from .evaluation import PLAIN, CaseScores, Drawn, Predictor, Scope, evaluate_scan
from .evaluation_subject import TRAINED
from .people import load_person, people_files
from .synthesis_anatomy import L6
from .synthesis_subject import make_subject
from .synthetic_scans import SyntheticScan, draw_scan

NAMES = (*SPINE, L6)

USUAL = "nothing special"
"""Kind of a scan in which nothing was varied that bears on the names of the levels."""


def drawn_scans(folder: Path, count: int, seed: int) -> Iterator[SyntheticScan | tuple[str, str]]:
    """``count`` scans of the people prepared for the bones in a folder, in turn, person by person.

    Scan n is drawn with the seed ``seed + n``. (name, why not) of people who show too little to be drawn. Raises ValueError
    when there is nobody.
    """
    files = people_files(folder)
    for first, path in enumerate(files[:count]):
        try:
            subject = make_subject(load_person(path))
            scan = draw_scan(subject, seed + first)
        except ValueError as error:
            yield path.stem, str(error)
            continue
        yield scan
        yield from (draw_scan(subject, seed + number) for number in range(first + len(files), count, len(files)))


def score_scan(scan: SyntheticScan, predict: Predictor, scope: Scope, exposure: str, perturbations: Sequence[str] = (),
               progress: Progress = silent) -> Iterator[Drawn]:
    """Scores of one scan, as it is and perturbed."""
    truth = replace(scan.labels, keypoints=tuple(point for point in scan.labels.keypoints if point.level in LEVELS))
    blank = CaseScores(scan.name, scan.person, PLAIN, exposure, True, kinds=scan.kinds or (USUAL,))
    for drawn in evaluate_scan(blank, scan.ct, truth, predict, scope, perturbations, progress):
        wrong = misnamed(drawn.found.keypoints, scan.centres_lps_mm) if drawn.scores.perturbation == PLAIN else ()
        yield replace(drawn, scores=replace(drawn.scores, misnamed=wrong))


def misnamed(found: Sequence[Keypoint], centres_lps_mm: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Levels that were found at another vertebra.

    centres_lps_mm: of all vertebrae that are whole in the scan, head to foot. A point nearer to the place of the next one
    beyond the first or last of these, which is cut, is held to be that one.
    """
    if len(centres_lps_mm) < 2:
        return ()
    places = _with_ends(centres_lps_mm)
    return tuple(point.level for point in found
                 if min(places, key=lambda name: math.dist(places[name], point.position_lps_mm)) != point.level)


def _with_ends(centres_lps_mm: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    names = list(centres_lps_mm)
    places = dict(centres_lps_mm)
    for end, inner, step in ((names[0], names[1], -1), (names[-1], names[-2], 1)):
        beyond = NAMES.index(end) + step
        if 0 <= beyond < len(NAMES):
            places[NAMES[beyond]] = [2 * a - b for a, b in zip(centres_lps_mm[end], centres_lps_mm[inner], strict=True)]
    return places


def known_people(names: Collection[str], trained_on: Collection[str]) -> dict[str, str]:
    """Exposure of people of whom it is known that they were trained on. Raises ValueError for one who is not there."""
    if unknown := [name for name in trained_on if name not in names]:
        raise ValueError(f"nobody is called {', '.join(unknown)} there; there are {', '.join(sorted(names))}")
    return dict.fromkeys(trained_on, TRAINED)
