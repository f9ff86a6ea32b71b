"""The command that scores a run or a set of models on annotated cases."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LowDoseBMDLib.cli_output import MEASURED, SOME_FAILED, line, passing, progress_for, say
from LowDoseBMDLib.inference import DEVICES, ENGINES

from .evaluation_perturb import PERTURBATIONS

if TYPE_CHECKING:
    from .cases import Case
    from .evaluation import CaseScores
    from .evaluation_report import Evaluation
    from .evaluation_subject import Subject

DEFAULT_FOLDS = 5


def add_evaluate_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    parser = commands.add_parser(
        "evaluate", help="score a training run or a set of models on the completed cases of a project",
        epilog="exit status: 0 all cases scored, 1 some case could not be read or had nothing to score, 2 unusable "
        "arguments")
    parser.add_argument("subject", type=Path, metavar="RUN|MODELS",
                        help="folder of a run or of models, the name of a set, or LowDoseBMD for the product's own models")
    parser.add_argument("project", type=Path, nargs="?")
    parser.add_argument("-o", "--out", type=Path, required=True,
                        help="folder for scores.json, cases.csv, evaluation.html and pictures of the worst five")
    parser.add_argument("--synthetic", type=Path, metavar="PEOPLE",
                        help="instead of a project: scans with varied anatomy, drawn of the people prepared for the bones "
                        "in this folder")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="how many scans are drawn (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="of the scans; the same seed draws the same ones (default 1)")
    parser.add_argument("--trained-on", nargs="+", default=(), metavar="NAME",
                        help="people that the networks were trained on; what a run was trained on itself is known")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="these cases, completed or not")
    parser.add_argument("--fold", type=int, metavar="F", help="only cases whose patients are held out of fold F")
    parser.add_argument("--folds", type=int, metavar="K", help=f"number of folds (a run's own, else {DEFAULT_FOLDS})")
    parser.add_argument("--perturb", type=_perturbations, default=(), metavar="NAMES",
                        help=f"score each case again under perturbations, with commas, or 'all': {', '.join(PERTURBATIONS)}")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object per line: progress, then each case, then "
                        "the summary")
    parser.set_defaults(run=run_evaluate)


def _perturbations(text: str) -> tuple[str, ...]:
    names = tuple(PERTURBATIONS) if text == "all" else tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in PERTURBATIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: use some of {', '.join(PERTURBATIONS)}")
    return names


def run_evaluate(options: argparse.Namespace) -> int:
    """``lowdosebmd-train evaluate``."""
    from .evaluation_report import write_evaluation
    from .evaluation_subject import open_subject
    from .project import open_project
    from .score_files import PAGE

    _check(options)
    project = None if options.synthetic else open_project(options.project)
    subject = open_subject(options.subject, project, options.engine, options.device)
    if project is None:
        unreadable, found = False, _evaluate_synthetic(options, subject)
    else:
        chosen, left_out = _chosen(options, subject, project.cases())
        unreadable = any(case.problem for case in project.cases() if not options.cases)
        found = _evaluate(options, subject, chosen, tuple(left_out))
    record = write_evaluation(found, options.out)
    _show(options, found, record)
    if not options.json:
        say(f"Report: {options.out / PAGE}")
    return SOME_FAILED if unreadable or any(row.problem for row in found.rows) else MEASURED


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for what does not go together."""
    if (options.project is None) == (options.synthetic is None):
        raise ValueError("score either on a PROJECT or on scans of people with --synthetic PEOPLE")
    if options.synthetic and (options.cases or options.fold is not None):
        raise ValueError("--cases and --fold choose cases of a project; --synthetic draws scans")
    if options.count < 1:
        raise ValueError(f"--count {options.count}: draw one scan at least")


def _chosen(options: argparse.Namespace, subject: Subject,
            cases: Sequence[Case]) -> tuple[list[Case], list[tuple[str, str]]]:
    """The cases to score and the others with the reason. Raises ValueError when there is none to score."""
    from .evaluation import scored_cases

    chosen, left_out = scored_cases(cases, options.cases)
    if options.fold is not None:
        inside = _in_fold(options, subject, chosen)
        left_out += [(case.name, f"it is not in fold {options.fold}") for case in chosen if case not in inside]
        chosen = inside
    if not chosen:
        raise ValueError("there is no case to score: complete one, or name some with --cases")
    return chosen, left_out


def _in_fold(options: argparse.Namespace, subject: Subject, cases: Sequence[Case]) -> list[Case]:
    """A run's own fold is what its log says; other folds are made of the cases as they are now."""
    from .evaluation_subject import HELD_OUT, in_fold
    from .training_log import RECIPE, read_json

    recipe = (read_json(options.subject / RECIPE) or {}).get("recipe", {})
    if options.fold == recipe.get("fold") and options.folds is None and HELD_OUT in subject.known.values():
        return [case for case in cases if subject.exposure(case) == HELD_OUT]
    return in_fold(cases, options.folds or recipe.get("folds") or DEFAULT_FOLDS, options.fold, recipe.get("seed", 1))


def _evaluate(options: argparse.Namespace, subject: Subject, cases: Sequence[Case],
              left_out: tuple[tuple[str, str], ...]) -> Evaluation:
    from .evaluation import Drawn, evaluate_case
    from .evaluation_pictures import Worst
    from .evaluation_report import Evaluation

    rows: list[CaseScores] = []
    worst = Worst()
    for done, case in enumerate(cases):
        progress = progress_for(options.json, f"case {case.name}, {done + 1} of {len(cases)}: ")
        for result in evaluate_case(case, subject.predict, subject.scope, subject.exposure(case), options.perturb, progress):
            if isinstance(result, Drawn):
                worst.add(result)
                result = result.scores
            rows.append(result)
            _show_row(options, result)
    return Evaluation(subject, tuple(rows), left_out, tuple(worst.kept))


def _evaluate_synthetic(options: argparse.Namespace, subject: Subject) -> Evaluation:
    from .evaluation_pictures import Worst
    from .evaluation_report import Evaluation
    from .evaluation_synthetic import drawn_scans, known_people, score_scan
    from .people import people_files

    names = [path.stem for path in people_files(options.synthetic)]
    known = {**subject.known, **known_people(names, options.trained_on)}
    rows: list[CaseScores] = []
    left_out: list[tuple[str, str]] = []
    worst = Worst()
    for done, scan in enumerate(drawn_scans(options.synthetic, options.count, options.seed), start=1):
        if isinstance(scan, tuple):
            left_out.append(scan)
            continue
        progress = progress_for(options.json, f"scan {scan.name}, {done} of {options.count}: ")
        exposure = known.get(scan.person, subject.otherwise)
        for drawn in score_scan(scan, subject.predict, subject.scope, exposure, options.perturb, progress):
            worst.add(drawn)
            rows.append(drawn.scores)
            _show_row(options, drawn.scores)
    return Evaluation(subject, tuple(rows), tuple(left_out), tuple(worst.kept))


def _show_row(options: argparse.Namespace, row: CaseScores) -> None:
    from .evaluation import PLAIN, as_record

    if options.json:
        line(dict(as_record(row)))
        return
    passing("")
    name = row.case if row.perturbation == PLAIN else f"{row.case}, {row.perturbation}"
    say(f"{name} ({row.exposure}): {row.problem or _in_short(row)}")


def _in_short(row: CaseScores) -> str:
    parts = [f"{score.structure} {score.dice:.3f}" for score in row.structures]
    parts += [f"{score.level} {score.error_mm:.1f} mm" for score in row.keypoints]
    return ", ".join(parts)


def _show(options: argparse.Namespace, found: Evaluation, record: dict[str, Any]) -> None:
    from LowDoseBMDLib.report.numbers import typed

    from .evaluation_report import findings
    from .evaluation_summary import summarise

    if options.json:
        say(json.dumps({name: record[name] for name in ("title", "models", "by_exposure", "by_perturbation", "by_kind",
                                                         "left_out")}))
    else:
        say("\n".join(typed(sentence) for sentence in findings(found, *summarise(found.rows))))
