"""The commands on projects and their cases: new, import, list, set and labels."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from LowDoseBMDLib.cli_output import SOME_FAILED, say

from .cases import Case, Status, open_for_writing, read_image, read_labels, readers_of, writer_of

if TYPE_CHECKING:
    from .importing import Imported
    from .mapping import Mapped

DONE = 0


def add_case_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands, with their options, to those of the command line."""
    new = commands.add_parser("new", help="an empty project of cases to annotate")
    new.add_argument("project", type=Path, help="folder that is not there yet, or empty")
    new.add_argument("--title", default="")
    new.set_defaults(run=run_new)

    _add_import(commands)

    show = commands.add_parser("list", help="the cases of a project and how far they are")
    show.add_argument("project", type=Path)
    show.add_argument("--status", choices=[str(status) for status in Status], help="only these")
    show.set_defaults(run=run_list)

    change = commands.add_parser("set", help="status, patient's group or place of the CT of a case")
    change.add_argument("project", type=Path)
    change.add_argument("case")
    change.add_argument("--status", choices=[str(status) for status in Status])
    change.add_argument("--reason", default="", help="why, with --status")
    change.add_argument("--patient", help="number of the patient's group, which is never divided between training and test")
    change.add_argument("--image", type=Path, help="where the CT is now")
    change.add_argument("--annotator", required=True, help="who says so, such as initials")
    change.set_defaults(run=run_set)

    _add_labels(commands)


def _add_import(commands: argparse._SubParsersAction) -> None:
    from .importing import LAYOUTS

    take = commands.add_parser("import", help="CTs, with their labels where there are any, into a project")
    take.add_argument("project", type=Path)
    take.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="DICOM folder, NIfTI or NRRD file, ITK-SNAP "
                      "workspace, folder tree, CSV with the column path (and labels), or a public data set")
    take.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="how the data set lies on the disk (auto: by "
                      "its file names)")
    take.add_argument("--labels", type=Path, help="label map or segmentation of the only CT")
    _add_names(take)
    take.add_argument("--complete", action="store_true", help="the label maps were looked through for every bone that has a "
                      "name: one without a voxel is not in the CT (else it counts as not drawn)")
    take.add_argument("--copy", action="store_true", help="keep the CTs in the project, without anything of the patient")
    take.add_argument("--to-check", action="store_true", help="imported labels are in progress until a person has looked")
    take.add_argument("--synthetic", action="store_true", help="the CTs were drawn by a program, as by synthesize; every "
                      "table and card says so")
    take.set_defaults(run=run_import)


def _add_labels(commands: argparse._SubParsersAction) -> None:
    labels = commands.add_parser("labels", help="the labels of a case to ITK-SNAP, and from it or any other program")
    labels.add_argument("project", type=Path)
    labels.add_argument("case")
    way = labels.add_mutually_exclusive_group(required=True)
    way.add_argument("--itksnap", type=Path, metavar="OUT", help="folder for image, segmentation, label descriptions and a "
                     "workspace")
    way.add_argument("--take", type=Path, metavar="FILE", help="label map or segmentation whose labels replace those of the "
                     "case; names as of import")
    labels.add_argument("--annotator", help="who drew them, with --take, such as initials")
    labels.add_argument("--reader", help="write the reading of this person instead of the truth")
    _add_names(labels)
    labels.set_defaults(run=run_labels)


def _add_names(command: argparse.ArgumentParser) -> None:
    from .mapping import SCHEMES

    numbering = command.add_mutually_exclusive_group()
    numbering.add_argument("--names", type=Path, help="names of the labels: ITK-SNAP label descriptions, CSV (id, "
                           "structure) or JSON")
    numbering.add_argument("--scheme", choices=tuple(SCHEMES), help="numbering of the labels, where there are no names")


def run_new(options: argparse.Namespace) -> int:
    """Make a project."""
    from .project import create_project

    project = create_project(options.project, options.title)
    say(f"{project.folder}: an empty project. Add CTs: lowdosebmd-train import {options.project} SOURCE")
    return DONE


def run_import(options: argparse.Namespace) -> int:
    """Import CTs one by one; returns 1 when one of them, or its labels, could not be read."""
    from .importing import ADDED, ImportOptions, find_all, import_cases
    from .project import open_project

    project = open_project(options.project)
    how = ImportOptions(options.layout, options.copy, options.to_check, options.labels, options.names, options.scheme,
                        options.complete, options.synthetic)
    found = find_all(options.sources, how, project.folder)
    outcomes, problems = [], 0
    for number, done in enumerate(import_cases(project, found, how), start=1):
        outcomes.append(done.outcome)
        problems += bool(done.problem)
        name = done.case.name if done.case else "-"
        say(f"[{number}/{len(found)}] {name} {done.outcome}: {done.place}" + _without_labels(done))
        for line in [done.problem] * bool(done.problem) + (_mapped_lines(done.mapped) if done.mapped else []):
            say(f"    {line}")
    say(", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes).items()) or "no CT found")
    added = [each for each, outcome in zip(found, outcomes, strict=True) if outcome == ADDED]
    if any(each.dicom for each in added) and not options.copy:
        say("The project refers to DICOM files by their paths. Where these name patients, import with --copy before you "
            "pass it on.")
    if (alone := sum(each.patient is None and not each.dicom for each in added)) > 1:
        say(f"{alone} CTs do not say whose they are: each counts as a patient of its own. Where two are of one patient: "
            f"lowdosebmd-train set {options.project} CASE --patient NUMBER --annotator WHO")
    return SOME_FAILED if problems else DONE


def _without_labels(done: Imported) -> str:
    untouched = done.case is not None and done.case.status is Status.NOT_STARTED
    return " (no labels)" if untouched and done.mapped is None and not done.problem else ""


def _mapped_lines(mapped: Mapped) -> list[str]:
    """What a person reads of what became of a label map."""
    lines = [f"{name}: {_short(mapped.mapped.get(name, ())) or 'not in this CT'}" for name in mapped.labels.masks]
    points = ", ".join(point.level for point in mapped.labels.keypoints)
    lines += [f"keypoints: {points or 'none'}", *mapped.notes]
    lines += [f"not mapped: {_short(mapped.unmapped)}"] if mapped.unmapped else []
    lines += [f"not drawn: {', '.join(mapped.missing)}"] if mapped.missing else []
    return lines


def _short(names: tuple[str, ...], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def run_list(options: argparse.Namespace) -> int:
    """Print the worklist; returns 1 when a case cannot be read."""
    from .project import open_project

    project = open_project(options.project)
    cases = project.cases()
    shown = [case for case in cases if options.status in (None, str(case.status)) or case.problem]
    say(f"{project.title}: {len(cases)} cases")
    if shown:
        say(f"{'case':6}{'status':13}{'by':10}{'patient':>8}{'minutes':>9}{'dice':>7}{'uncertain':>11}  source")
    for case in shown:
        say(_row(case))
    counts = Counter(str(case.status) for case in cases if not case.problem)
    problems = sum(bool(case.problem) for case in cases)
    say(", ".join([f"{counts[status]} {status}" for status in Status if counts[status]]
                  + [f"{problems} cannot be read"] * bool(problems)) or "no cases yet")
    return SOME_FAILED if problems else DONE


def _row(case: Case) -> str:
    if case.problem:
        return f"{case.name:6}cannot be read: {case.problem}"
    minutes = f"{case.effort.seconds / 60:.0f}" if case.effort.seconds else "-"
    dice = "-" if case.effort.dice is None else f"{case.effort.dice:.2f}"
    uncertain = "-" if case.uncertainty is None else f"{case.uncertainty:.2f}"
    more = [case.source + (" (synthetic)" if case.synthetic else "")]
    more += [f"read by {', '.join(readers)}"] if (readers := readers_of(case)) else []
    more += [case.reason] if case.reason else []
    more += [f"open: {who}"] if (who := writer_of(case)) else []
    return (f"{case.name:6}{case.status:13}{case.annotator or '-':10}{case.patient:>8}{minutes:>9}{dice:>7}{uncertain:>11}  "
            + "; ".join(more))


def run_set(options: argparse.Namespace) -> int:
    """Change a case by hand."""
    from .project import open_project

    if not (options.status or options.patient or options.image):
        raise ValueError("nothing to set: give --status, --patient or --image")
    case = open_project(options.project).case(options.case)
    with open_for_writing(case, options.annotator) as writing:
        if options.image:
            writing.set_image(options.image)
        if options.patient:
            writing.set_patient(options.patient)
        if options.status:
            writing.set_status(Status(options.status), options.reason)
    say(_row(writing.case))
    return DONE


def run_labels(options: argparse.Namespace) -> int:
    """Write what ITK-SNAP opens, or take in what was drawn with it."""
    from .itksnap import WORKSPACE, export_workspace
    from .project import open_project

    case = open_project(options.project).case(options.case)
    if options.take:
        return _take(case, options)
    ct = read_image(case)
    covered = export_workspace(options.itksnap, ct, read_labels(case, options.reader, ct.geometry))
    say(f"{options.itksnap / WORKSPACE}: open it with ITK-SNAP")
    if covered:
        say(f"smaller structures lie over {', '.join(covered)}; importing the segmentation again restores vertebrae")
    return DONE


def _take(case: Case, options: argparse.Namespace) -> int:
    from .importing import read_meaning, take_labels

    if not options.annotator:
        raise ValueError("--take needs --annotator: who drew the labels")
    with open_for_writing(case, options.annotator) as writing:
        mapped = take_labels(writing, options.take, read_meaning(options.names, options.scheme))
        say(f"{case.name}: labels of {options.take} by {options.annotator}")
    for line in _mapped_lines(mapped):
        say(f"    {line}")
    return DONE
