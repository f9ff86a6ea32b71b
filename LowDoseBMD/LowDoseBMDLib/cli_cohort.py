"""The commands of many people: agree and cohort."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .cli_output import MEASURED, SOME_FAILED, line, refuse_existing, say

COHORTS = ("literature", "paper-like", "paper-numbers")


def add_cohort_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands of this file, with their options, to those of the command line."""
    _add_agree(commands)
    _add_cohort(commands)


def _add_agree(commands: argparse._SubParsersAction) -> None:
    from .cohort import layout

    parser = commands.add_parser("agree", help="compare measured with QCT densities: statistics, figures and a page",
                                 formatter_class=argparse.RawDescriptionHelpFormatter,
                                 epilog=f"columns of COHORT:\n{layout()}")
    parser.add_argument("cohort", type=Path, help="CSV, one row for each person; columns below")
    parser.add_argument("-o", "--out", type=Path, help="folder for agreement.html, agreement.json, Table 1 and Figures 2-7")
    parser.add_argument("--columns", default="", metavar="OURS=THEIRS,...",
                        help="what the file calls a column, for example reference=QCT,measured=AI")
    parser.add_argument("--calibration", type=Path, help="compute the measured densities anew from spine_hu, muscle_hu and "
                        "fat_hu with this calibration file")
    parser.add_argument("--template", action="store_true", help="write an empty COHORT with all columns, and stop")
    parser.add_argument("--json", action="store_true", help="the content of agreement.json on standard output")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_agree)


def _add_cohort(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("cohort", help="draw a synthetic cohort, to try agree without patients")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the CSV file to write; a folder with --images")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--count", type=int, help="how many people in numbers, 1406 without it")
    size.add_argument("--images", type=int, metavar="N", help="make a phantom CT of each of N people and measure it; the "
                      "folder then holds cohort.csv, truth.csv, summary.json and all results. Started again, it goes "
                      "on where it was ended")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other people")
    parser.add_argument("--kind", choices=COHORTS, default=COHORTS[0],
                        help="literature: HU of bone, muscle and fat scatter as published, densities by the two-point line "
                             "(default); paper-like: the same with what could explain the paper's result; paper-numbers: "
                             "no HU, 1406 pairs of densities drawn to the paper's means, SDs and correlation")
    parser.add_argument("--workers", type=int, default=1, help="how many people in images are measured at a time")
    parser.add_argument("--calibration", type=Path, help="a calibration file for images; default: literature constants")
    parser.add_argument("--json", action="store_true", help="one JSON object per line on standard output, for images")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_cohort)


def run_agree(options: argparse.Namespace) -> int:
    """``lowdosebmd agree``."""
    from .cohort import parse_columns, read_cohort, template

    if options.template:
        refuse_existing(options.cohort)
        template(options.cohort)
        say(f"Template: {options.cohort}. Remove its example rows.")
        return MEASURED
    if options.out is None:
        raise ValueError("agree needs a folder for its results; give one with -o")
    from .calibration import load_calibration
    from .calibration_apply import apply
    from .report.agreement import summary, write_agreement

    columns = parse_columns(options.columns)
    if options.calibration is None:
        cohort, applied = read_cohort(options.cohort, columns), None
    else:
        calibration = load_calibration(options.calibration)
        cohort = read_cohort(options.cohort, columns, needed=("id", "reference_mg_cm3", "spine_hu"))
        applied = apply(calibration, cohort, options.calibration.name)
    record = write_agreement(cohort, options.out, options.cohort.name, applied)
    if options.json:
        say(json.dumps(record))
    else:
        say(f"{summary(record)}\nReport: {options.out / 'agreement.html'}")
    return SOME_FAILED if any(found["reasons"] for found in record["sets"].values()) else MEASURED


def run_cohort(options: argparse.Namespace) -> int:
    """``lowdosebmd cohort``."""
    if options.images is not None:
        return _run_images(options)
    if options.calibration is not None:
        raise ValueError("--calibration is of people in images; give how many with --images, or leave it out")
    from . import cohort_synthesis as synthesis
    from .cohort import write_cohort

    refuse_existing(options.out)
    count = synthesis.PAPER_COUNT if options.count is None else options.count
    if options.kind == "paper-numbers":
        if count != synthesis.PAPER_COUNT:
            raise ValueError(f"--kind paper-numbers always draws {synthesis.PAPER_COUNT} people; leave --count out")
        cohort = synthesis.paper_cohort(options.seed)
    else:
        scatter, scanner = synthesis.KINDS[options.kind]
        cohort = synthesis.synthetic_cohort(count, options.seed, scatter, (scanner,))
    write_cohort(options.out, cohort)
    say(f"{len(cohort)} synthetic people: {options.out}")
    return MEASURED


def _run_images(options: argparse.Namespace) -> int:
    from .calibration import load_calibration
    from .cohort_images import COHORT_FILE, ImageCohort, run_image_cohort

    calibration = load_calibration(options.calibration) if options.calibration else None
    cohort = ImageCohort(options.images, options.seed, options.kind, calibration)
    summary = run_image_cohort(options.out, cohort, line if options.json else lambda entry: say(_person(entry)),
                               options.workers)
    if options.json:
        line(summary)
    else:
        say(f"{_image_summary(summary)}\nCohort: {options.out / COHORT_FILE}; compare it with: lowdosebmd agree "
            f"{options.out / COHORT_FILE} -o OUT")
    return MEASURED if summary["status"] == {"measured": summary["people"]} else SOME_FAILED


def _person(entry: dict[str, Any]) -> str:
    from .cohort_image_errors import reasons_of, status_of

    if status_of(entry) == "measured":
        return f"{entry['key']}: {entry['result']['measured_mg_cm3']:.1f} mg/cm3, {entry['seconds']:.0f} s"
    return f"{entry['key']}: {status_of(entry)}, {' '.join(reasons_of(entry))}"


def _image_summary(summary: dict[str, Any]) -> str:
    """The content of summary.json in a few lines of text."""
    lines = [f"{summary['people']} synthetic people in images: "
             + ", ".join(f"{count} {status}" for status, count in summary["status"].items())]
    lines += [f"  {count} x {reason}" for reason, count in summary["reasons"].items()]
    if summary["other_vertebra"]:
        lines.append(f"  {summary['other_vertebra']} measured at another vertebra than was thought")
    for name, unit in (("spine", "hu"), ("muscle", "hu"), ("fat", "hu"), ("vbmd", "mg_cm3")):
        error = summary["image_errors"][f"{name}_{unit}"]
        if error["sd"] is not None:
            words = {"hu": "HU", "mg_cm3": "mg/cm3"}[unit]
            lines.append(f"  error of the images alone, {name}: {error['mean']:+.1f} +- {error['sd']:.1f} {words}")
    times = summary["seconds_per_study"]
    if times["stages"]:
        shares = sorted(times["stages"].items(), key=lambda stage: -stage[1]["share"])
        lines.append(f"  {times['median']:.1f} s per study (median): "
                     + ", ".join(f"{name} {100 * stage['share']:.0f} %" for name, stage in shares))
    return "\n".join(lines)
