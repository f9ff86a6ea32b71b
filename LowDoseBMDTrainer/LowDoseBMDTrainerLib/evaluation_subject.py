"""What is evaluated: a training run, or a set of models; and which cases it knows already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.bones import OTHER, segment_bones
from LowDoseBMDLib.bones_fine import REDRAWN
from LowDoseBMDLib.bundle import BONES_FINE, WEIGHTS, Bundle, file_sha256, find_models
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.inference import Progress, choose_engine
from LowDoseBMDLib.pipeline import Models, Stopwatch, draw_bones, open_models

from .cases import Case, Labels
from .evaluation import Predictor, Scope
from .predraw import Prediction, Wanted, predraw
from .project import Project
from .training_log import BEST, LOG, RECIPE, read_json, read_log

if TYPE_CHECKING:
    from LowDoseBMDLib.inference import Engine

    from .training_recipe import Recipe

TRAINED, HELD_OUT, NEW, UNKNOWN = "trained on", "held out", "not trained on", "not known"
"""What the models know of a case. A held-out case was not trained on, but its score chose the step that was kept."""

IN_TRAINING: dict[str, str] = {TRAINED: "trained on", HELD_OUT: "held out", NEW: "not trained on",
                               UNKNOWN: "not known whether trained on"}
"""In words beside a case."""

SYNTHESIS = " (synthesis)"
"""Ends the name of a case, in the log of a run, that was trained on by its label map."""

EXPORTED = "exported.json"
"""File of a run that names the bundles made of it: {"sha256": [of the weights, ...]}. It stays with the run."""

BODIES = tuple(f"body_{level}" for level in LEVELS)


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    title: in words. task: of a run, None for a set. identities: by name of the model, as in a measurement's record.
    checkpoint_sha256: of a run's best network, None for a set. known: exposure by name of a case, where it is known; the
    others are ``otherwise``.
    """

    title: str
    task: str | None
    models: Models
    scope: Scope
    identities: Mapping[str, str]
    checkpoint_sha256: str | None
    known: Mapping[str, str]
    otherwise: str

    def exposure(self, case: Case) -> str:
        """TRAINED, HELD_OUT, NEW or UNKNOWN."""
        return self.known.get(case.name, self.otherwise)

    @property
    def predict(self) -> Predictor:
        """Draws what the scope says, by the stages of the product."""
        return self._bones if self.task in ("bones", BONES_FINE) else self._all

    def _bones(self, ct: CTVolume, progress: Progress) -> Prediction:
        found = segment_bones(ct, self.models.bones, progress)
        return Prediction(Labels(ct.geometry, draw_bones(ct, found, self.models, Stopwatch(progress))))

    def _all(self, ct: CTVolume, progress: Progress) -> Prediction:
        return predraw(ct, self.models, Wanted(other_bones=True, bodies=True), progress)


SCOPES: dict[str | None, Scope] = {
    None: Scope((*BONES, OTHER_BONES, *BODIES), True),
    "bones": Scope((*BONES, OTHER_BONES), False),
    BONES_FINE: Scope((*REDRAWN, OTHER_BONES), False),
    "bodies": Scope(("vertebrae", *BODIES), False),
    "keypoints": Scope((), True),
}
"""By task of a run; None for a set of models."""


def scope_of(task: str | None, models: Models) -> Scope:
    """Bones that are not measured are scored where the bone network tells them from background."""
    scope = SCOPES[task]
    if OTHER in models.bones.bundle.outputs:
        return scope
    return replace(scope, structures=tuple(name for name in scope.structures if name != OTHER_BONES))


def open_subject(place: Path, project: Project | None, engine: str = "auto", device: str = "auto") -> Subject:
    """A run's folder, a folder of models or the name of a set. Without a project only what the log of a run says of people
    is known. Raises ValueError when it is none of them."""
    is_run = (place / LOG).exists() or (place / BEST).exists()
    subject = _run(place, project, device) if is_run else _set(place, project, engine, device)
    return subject if project is None else replace(subject, known=with_people(subject.known, project.cases()))


def with_people(known: Mapping[str, str], cases: Sequence[Case]) -> dict[str, str]:
    """What is known of each case, where another case of its person was trained on too."""
    people = {case.patient for case in cases if known.get(case.name) == TRAINED}
    return {**dict.fromkeys((case.name for case in cases if case.patient in people), TRAINED), **known}


def _set(place: Path, project: Project | None, engine: str, device: str) -> Subject:
    folder = find_models(place)
    models = open_models(folder, engine, device)
    known, otherwise = ({}, UNKNOWN) if project is None else _known_to_set(models, project)
    title = "the models of LowDoseBMD" if folder is None else f"the models {folder.name}"
    return Subject(title, None, models, scope_of(None, models), models.identities, None, known, otherwise)


def _run(folder: Path, project: Project | None, device: str) -> Subject:
    recipe, engine = open_run(folder, device)
    others = open_models(None, "auto", device, detail="fast")  # a run of another task is scored without the fine drawing
    models = replace(others, **{recipe.task: engine})
    known, otherwise = (exposures(folder), UNKNOWN) if project is None else known_to_run(folder, project)
    identities = {**others.identities, recipe.task: engine.bundle.identity}
    return Subject(f"the run {folder.resolve().name} ({recipe.task})", recipe.task, models, scope_of(recipe.task, models),
                   identities, engine.bundle.sha256[WEIGHTS], known, otherwise)


def known_to_run(run: Path, project: Project) -> tuple[dict[str, str], str]:
    """(exposure by name of a case, exposure of the others) of a run, the weights that it began with included."""
    if not trained_here(run, project):
        return {}, UNKNOWN
    start = (read_json(run / RECIPE) or {}).get("recipe", {}).get("start", "")
    if not start:
        return exposures(run), NEW
    digest = start.rpartition("(")[2].rstrip(")")
    before = next((other for other in _runs(project) if other.resolve() != run.resolve() and _made(other, digest)), None)
    earlier, otherwise = ({}, UNKNOWN) if before is None else known_to_run(before, project)
    return _merged(earlier, exposures(run)), otherwise


def _made(run: Path, digest: str) -> bool:
    """Whether weights whose SHA-256 begins so are a run's own, or were exported from it."""
    own = [file_sha256(run / BEST)] if (run / BEST).exists() else []
    return any(sha256.startswith(digest) for sha256 in (*own, *_exported(run)))


def _runs(project: Project) -> list[Path]:
    home = project.runs_folder
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _merged(*known: Mapping[str, str]) -> dict[str, str]:
    """The worst that is known of each case: what one network was trained on is known, whatever another held out."""
    merged: dict[str, str] = {}
    for one in known:
        merged |= {name: how for name, how in one.items() if merged.get(name) != TRAINED}
    return merged


def trained_here(run: Path, project: Project) -> bool:
    """Whether a run trained on the cases of a project: it lies there, or some case is the same to the last voxel."""
    if run.resolve().is_relative_to(project.runs_folder.resolve()):
        return True
    from .synthesis import TASKS
    from .training_cases import case_digest

    record = read_json(run / RECIPE) or {}
    seen = {name: digest for side in record.get("data", {}).values() for name, digest in side.items()}
    task = TASKS.get(record.get("recipe", {}).get("task"))
    return task is not None and any(seen.get(case.name) == case_digest(case, task) for case in project.cases())


def exposures(run: Path) -> dict[str, str]:
    """What the log of a run says of cases, by name."""
    log = read_log(run)
    return {**dict.fromkeys(log.validation_cases, HELD_OUT),
            **{name.removesuffix(SYNTHESIS): TRAINED for name in log.training}}


def open_run(folder: Path, device: str = "auto") -> tuple[Recipe, Engine]:
    """(recipe, the run's best network ready to run).

    The weights are rounded as an exported bundle has them; the engine's bundle has the checkpoint's SHA-256 in their place.
    Raises ValueError when the run has no network yet.
    """
    from LowDoseBMDLib.inference import TorchEngine

    from .export import bundle_of, rounded
    from .training_step import load_trained

    trained = load_trained(folder / BEST)
    bundle = replace(bundle_of(trained.recipe, "of a run"), sha256={WEIGHTS: file_sha256(folder / BEST)}, folder=folder)
    place = choose_engine("torch", device)[1]
    return trained.recipe, TorchEngine(bundle, rounded(trained).to(place), place)


def in_fold(cases: Sequence[Case], folds: int, fold: int, seed: int = 1) -> list[Case]:
    """Those cases whose patients a training with these folds and seed holds out. Raises ValueError for a fold that is
    none."""
    from .datasets import held_out
    from .training_recipe import Recipe

    patients = held_out({case.patient for case in cases}, Recipe("bones", folds=folds, fold=fold, seed=seed))
    return [case for case in cases if case.patient in patients]


def note_export(run: Path, bundle: Bundle) -> None:
    """Remember with the run which weights were made of it, so that an evaluation of them knows what they were trained on."""
    import json

    from LowDoseBMDLib.files.atomic import write_whole

    made = _exported(run)
    write_whole(run / EXPORTED, json.dumps({"sha256": sorted({*made, file_sha256(bundle.folder / WEIGHTS)})}) + "\n")


def _exported(run: Path) -> list[str]:
    return list((read_json(run / EXPORTED) or {}).get("sha256", ()))


def _known_to_set(models: Models, project: Project) -> tuple[dict[str, str], str]:
    """What the models of a set know of a project's cases, as far as they were exported from its runs."""
    wanted = {engine.bundle.sha256[WEIGHTS] for engine in models.engines.values()}
    known: dict[str, str] = {}
    others = set()
    for run in _runs(project):
        if made := wanted & set(_exported(run)):
            wanted -= made
            of_run, otherwise = known_to_run(run, project)
            known = _merged(known, of_run)
            others.add(otherwise)
    return known, UNKNOWN if wanted or UNKNOWN in others else NEW
