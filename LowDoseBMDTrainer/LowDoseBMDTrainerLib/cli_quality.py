"""The commands on the quality of annotation: reading, compare, check and effort."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from LowDoseBMDLib.cli_output import SOME_FAILED, line, passing, say
from LowDoseBMDLib.report.numbers import typed
from LowDoseBMDLib.report.tables import csv_text, plain

from .cases import Case, Labels, open_for_writing, read_image, read_labels

if TYPE_CHECKING:
    from .effort import Cost
    from .project import Project

DONE = 0


def add_quality_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands, with their options, to those of the command line."""
    reading = commands.add_parser("reading", help="what a second person drew on a case, to compare it with its labels")
    reading.add_argument("project", type=Path)
    reading.add_argument("case")
    reading.add_argument("segmentation", type=Path, help=".seg.nrrd of Slicer, or a label map with this program's numbers")
    reading.add_argument("--reader", required=True, help="who drew it, such as initials")
    reading.add_argument("--keypoints", type=Path, help="point list of Slicer (.mrk.json) with T12, L1, L2")
    reading.set_defaults(run=run_reading)

    compare = commands.add_parser(
        "compare", help="how well annotators agree on the cases that two or more have drawn",
        epilog="exit status: 0 all compared, 1 some case could not be read or none has two readings, 2 unusable arguments")
    compare.add_argument("project", type=Path)
    compare.add_argument("--case", action="append", metavar="CASE", help="only this one; may be repeated")
    compare.add_argument("-o", "--out", type=Path, required=True,
                         help="folder for compare.html, compare.json, compare.csv and the maps of disagreement")
    compare.set_defaults(run=run_compare)

    check = commands.add_parser(
        "check", help="what is wrong with the labels of cases",
        epilog="exit status: 0 nothing must be put right, 1 something must, or a case cannot be read, 2 unusable arguments")
    check.add_argument("project", type=Path)
    check.add_argument("cases", nargs="*", metavar="CASE", help="these; without any, every case that has labels")
    check.add_argument("--json", action="store_true", help="one JSON object per line: case and its findings")
    check.set_defaults(run=run_check)

    effort = commands.add_parser("effort", help="what completed cases have cost: time, and voxels changed in what was "
                                 "pre-drawn")
    effort.add_argument("project", type=Path)
    effort.add_argument("-o", "--out", type=Path, help="folder for effort.csv and effort.png too")
    effort.set_defaults(run=run_effort)


def chosen_cases(project: Project, names: list[str] | None) -> tuple[Case, ...]:
    """The named cases, or all. Raises ValueError for a name that is not there."""
    return tuple(project.case(name) for name in names) if names else project.cases()


def run_reading(options: argparse.Namespace) -> int:
    """Keep a second person's reading with its case."""
    from LowDoseBMDLib.files.markups import read_keypoints
    from LowDoseBMDLib.files.segmentation import load_segmentation

    from .project import open_project

    case = open_project(options.project).case(options.case)
    with open_for_writing(case, options.reader) as writing:
        grid = writing.case.geometry
        points = read_keypoints(options.keypoints) if options.keypoints else ()
        labels = Labels(grid, load_segmentation(options.segmentation, grid).masks, points)
        writing.save_reading(options.reader, labels)
    say(f"{case.name}: {', '.join(labels.masks)}, {len(points)} keypoints by {options.reader}")
    return DONE


def run_compare(options: argparse.Namespace) -> int:
    """Compare every two readings of the cases, and write the report."""
    from .compare_files import PAGE
    from .project import open_project
    from .raters_project import summarise
    from .raters_report import compare_cases, summary_lines

    project = open_project(options.project)
    found = compare_cases(project.title, chosen_cases(project, options.case), options.out,
                          lambda name: passing(f"{name} ..."))
    passing("")
    for name, why in found.unreadable:
        say(f"{name}: {why}")
    if not found.pairs:
        say("No case has been drawn by two people. A second reading comes into a project in the window, or with: "
            f"lowdosebmd-train reading {options.project} CASE FILE --reader WHO")
        return SOME_FAILED
    say(summary_lines(summarise(found.pairs)))
    say(f"Report: {options.out / PAGE}")
    return SOME_FAILED if found.unreadable else DONE


def run_check(options: argparse.Namespace) -> int:
    """Check the labels of cases one by one."""
    from .case_checks import check_case
    from .findings import MUST
    from .project import open_project

    status, count = DONE, 0
    for case in chosen_cases(open_project(options.project), options.cases):
        passing(f"{case.name} ...")
        try:
            labels = read_labels(case)
            if not options.cases and not labels.masks and not labels.keypoints:
                continue
            found, problem = check_case(labels, read_image(case)), ""
        except ValueError as error:
            found, problem = (), str(error)
        finally:
            passing("")
        count += 1
        if problem or any(finding.severity == MUST for finding in found):
            status = SOME_FAILED
        if options.json:
            line({"case": case.name, "problem": problem, "findings": plain(found)})
            continue
        say(f"{case.name}: {problem or (f'{len(found)} findings' if found else 'nothing found')}")
        for finding in found:
            say(typed(f"  {finding.severity}  {finding.sentence}{_place(finding.position_lps_mm)}"))
    if not count and not options.json:
        say("No case has labels yet.")
    return status


def _place(position_lps_mm: tuple[float, float, float] | None) -> str:
    return "" if position_lps_mm is None else " [L {:.0f}, P {:.0f}, S {:.0f} mm]".format(*position_lps_mm)


def run_effort(options: argparse.Namespace) -> int:
    """The table of what cases have cost, and whether they get cheaper."""
    from .effort import costs, sentence
    from .project import open_project

    found = costs(open_project(options.project).cases())
    if found:
        say("case      completed         by         minutes  voxels changed  Dice with proposal")
    for cost in found:
        say(f"{cost.case:<8}  {cost.when[:16].replace('T', ' ')}  {cost.annotator:<9}  {cost.effort.seconds / 60:7.1f}  "
            f"{_or_dash(cost.effort.changed_voxels, 'd'):>14}  {_or_dash(cost.effort.dice, '.3f'):>18}")
    say(sentence(found))
    if options.out:
        _write_effort(options.out, found)
    return DONE


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _write_effort(out: Path, found: tuple[Cost, ...]) -> None:
    from LowDoseBMDLib.files.atomic import write_whole

    from .effort import COLUMNS, draw_curve, table

    write_whole(out / "effort.csv", csv_text(COLUMNS, table(found)))
    if found:
        write_whole(out / "effort.png", draw_curve(found))
    say(f"{out / 'effort.csv'}" + (f", {out / 'effort.png'}" if found else ""))
