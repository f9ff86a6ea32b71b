"""The card of a model: what it was trained on, how well it does, where it fails and what it is for.

A card counts; it names nobody: no case, no person, no path, no UID, no digest of an image.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LowDoseBMDLib import __version__
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.bundle import Bundle, file_sha256
from LowDoseBMDLib.report.numbers import NO_VALUE, number
from LowDoseBMDLib.results import DISCLAIMER

from .evaluation_report import MEANINGS, counted
from .evaluation_subject import HELD_OUT, SYNTHESIS, TRAINED, UNKNOWN
from .project import PROJECT_FILE, open_project
from .score_files import SCORES
from .training_log import BEST, read_json, read_log

if TYPE_CHECKING:
    from .training_step import Trained

FEW_PEOPLE = 30
"""Fewer people than this say little about people in general (judgement)."""

INTENDED_USE: dict[str, str] = {
    "bones": "Draws vertebrae, clavicles, scapulae and ribs in chest or abdominal CT, as the first step of LowDoseBMD.",
    "bones_fine": "Draws bones that were found before at 3 mm again and finely, in chest or abdominal CT, as a step of "
                  "LowDoseBMD.",
    "bodies": "Tells vertebral bodies from posterior elements and discs along the spine, as the second step of LowDoseBMD.",
    "keypoints": "Finds vertebral levels in chest or abdominal CT; LowDoseBMD names them by it, ribs and sacrum together.",
}
"""By task."""

_PLAIN_WORD = re.compile(r"[A-Za-z][\w +.-]{0,30}")
_DIGEST = re.compile(r"\(([0-9a-f]{12})\)$")


# --- what goes into bundle.json ----------------------------------------------------------------------------

def training_of(run: Path, trained: Trained) -> dict[str, Any]:
    """What a run was trained on, in numbers: annotated_cases, annotated_people and synthetic_cases of them (None where the
    run does not lie in its project), label_maps (used by synthesis), held_out_cases, sources {kind: cases}; steps, device,
    recipe, software."""
    log = read_log(run)
    annotated = [name for name in log.training if not name.endswith(SYNTHESIS)]
    return {
        "annotated_cases": len(annotated), "label_maps": len(log.training) - len(annotated),
        "held_out_cases": len(log.validation_cases), **_of_project(run, annotated),
        "steps": trained.step, "device": log.device, "recipe": _recipe(trained),
        "software": f"LowDoseBMDTrainer {__version__}",
    }


def _recipe(trained: Trained) -> dict[str, Any]:
    """A run that gave the first weights may be named after anybody: its digest stays, its name does not."""
    from .training_recipe import record_of

    record = record_of(trained.recipe)
    if record["start"] and (match := _DIGEST.search(record["start"])):
        record["start"] = f"weights {match.group(1)}"
    return record


def _of_project(run: Path, names: Sequence[str]) -> dict[str, Any]:
    home = run.resolve().parent.parent
    unknown = {"annotated_people": None, "synthetic_cases": None, "sources": {}}
    if not names:
        return {**unknown, "annotated_people": 0, "synthetic_cases": 0}
    if not (home / PROJECT_FILE).exists():
        return unknown
    cases = [case for case in open_project(home).cases() if case.name in names]
    kinds = Counter(case.source if _PLAIN_WORD.fullmatch(case.source) else "other" for case in cases)
    return {"annotated_people": len({case.patient for case in cases}),
            "synthetic_cases": sum(case.synthetic for case in cases), "sources": dict(kinds)}


def scores_of(evaluation: Path, run: Path) -> dict[str, Any]:
    """The summary of an evaluation's folder. Raises ValueError when there is none or it is of another network."""
    record = read_json(evaluation / SCORES)
    if record is None:
        raise ValueError(f"{evaluation} holds no {SCORES}; make it: lowdosebmd-train evaluate {run} PROJECT -o {evaluation}")
    if record.get("checkpoint_sha256") != file_sha256(run / BEST):
        raise ValueError(f"{evaluation} is the evaluation of {record.get('title')}, not of the network that {run} holds "
                         "now; evaluate it again")
    return {name: record[name] for name in ("by_exposure", "by_perturbation")}


def limits_of(training: Mapping[str, Any], scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the model is not to be trusted, one sentence each."""
    return tuple(_limits(training, scores))


def _limits(training: Mapping[str, Any], scores: Mapping[str, Any]) -> Iterator[str]:
    people = training["annotated_people"]
    known = people if people is not None else training["annotated_cases"]
    total = known + training["label_maps"]
    if total < FEW_PEOPLE:
        yield (f"Few data: {counted(total, 'person or label map', 'people and label maps')}, fewer than the {FEW_PEOPLE} "
               "from which something can be said of people in general.")
    if training["label_maps"] and not training["annotated_cases"]:
        yield "Trained on synthetic CTs alone: no image of a real scanner was seen."
    elif training["synthetic_cases"]:
        yield f"Synthetic themselves, of the {training['annotated_cases']} annotated cases: {training['synthetic_cases']}."
    if training["recipe"]["start"]:
        yield (f"Began with trained {training['recipe']['start']}: what those had learned from comes on top of the data "
               "named here, and may hold cases that count as held out.")
    yield ("One project, and so perhaps one site and one way of annotating: other scanners, kernels, doses and contrast "
           "phases were not tested. There was no external test.")
    groups = {one["name"]: one["cases"] for one in scores.get("by_exposure", ())}
    if not groups:
        yield "Not evaluated: nothing is known of how well it does."
    elif set(groups) == {TRAINED}:
        yield "Scored on cases that it was trained on only: the scores say nothing about new scans."
    elif set(groups) <= {TRAINED, HELD_OUT}:
        yield (f"Scored on {counted(groups[HELD_OUT], 'held-out case')} by which the step of the training was chosen, so "
               "that the scores flatter it a little.")
    elif UNKNOWN in groups:
        yield "It is not known of all scored cases whether they were trained on."
    yield "Nothing is known of children, and of surgery, metal, tumour, severe fracture or fused vertebrae."


# --- the text ----------------------------------------------------------------------------------------------

def card_text(bundle: Bundle) -> str:
    """The card as Markdown, from what bundle.json holds; of a bundle that export_run has not made as it stands there."""
    if "annotated_cases" in bundle.training:
        told = ["## Data", *_data(bundle.training), "## Training", _list(_course(bundle)),
                "## Scores", *_scores(bundle.scores)]
    else:
        told = [part for title, record in (("Training", bundle.training), ("Scores", bundle.scores))
                for part in (f"## {title}", "```\n" + json.dumps(dict(record), indent=1) + "\n```")]
    parts = [f"# {bundle.name} {bundle.version}", INTENDED_USE.get(bundle.name, ""), DISCLAIMER, *told,
             "## Limits", _list(bundle.limits), "## Files", _list(_files(bundle))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(training: Mapping[str, Any]) -> Iterator[str]:
    people = training["annotated_people"]
    of = f" of {counted(people, 'person', 'people')}" if people is not None else ""
    sources = ", ".join(f"{count} {kind}" for kind, count in sorted(training["sources"].items()))
    yield _list([
        f"annotated cases: {training['annotated_cases']}{of}" + (f" ({sources})" if sources else ""),
        *([f"of these synthetic: {training['synthetic_cases']}"] if training["synthetic_cases"] else []),
        f"label maps from which CTs were synthesised: {training['label_maps']}",
        f"cases held out of the training: {training['held_out_cases']}",
    ])


def _course(bundle: Bundle) -> Iterator[str]:
    recipe = bundle.training["recipe"]
    yield f"network: {bundle.network}, {bundle.spacing_mm:g} mm, outputs {', '.join(bundle.outputs)}"
    yield f"{bundle.training['steps']} steps on {bundle.training['device'] or 'an unknown device'}"
    chosen = ("batch", "learning_rate", "weight_decay", "seed", "folds", "fold", "synthetic_share", "start")
    yield ", ".join(f"{name} {recipe[name]}" for name in chosen if recipe.get(name) not in ("", None))


def _scores(scores: Mapping[str, Any]) -> Iterator[str]:
    if not scores.get("by_exposure"):
        yield "None: the model was not evaluated."
        return
    for one in scores["by_exposure"]:
        yield (f"{MEANINGS[one['name']]}: {counted(one['cases'], 'case')} of "
               f"{counted(one['patients'], 'person', 'people')}.")
        if one["structures"]:
            yield _table(("structure", "cases", "Dice, median", "worst", "NSD 2 mm, median", "HD95, mm, median", "worst"),
                         [(STRUCTURES[row["structure"]].title, row["cases"], *_both(row["dice"], 3),
                           number(row["nsd"]["median"], 3), *_both(row["hd95_mm"], 1)) for row in one["structures"]])
        if one["keypoints"]:
            yield _table(("level", "cases", "centre error, mm, median", "worst", "identified"),
                         [(row["level"], row["cases"], *_both(row["error_mm"], 1), f"{row['identified']} of {row['cases']}")
                          for row in one["keypoints"]])
    yield f"A distance of {NO_VALUE} is infinite: something was not found."


def _both(spread: Mapping[str, Any], digits: int) -> tuple[str, str]:
    return number(spread["median"], digits), number(spread["worst"], digits)


def _files(bundle: Bundle) -> Iterator[str]:
    for name, digest in bundle.sha256.items():
        yield f"{name}: SHA-256 {digest}"


def _list(sentences: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
