"""The commands of many people: agree and cohort."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .cli_output import MEASURED, SOME_FAILED, say

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
    parser.add_argument("--template", action="store_true", help="write an empty COHORT with all columns, and stop")
    parser.add_argument("--json", action="store_true", help="the content of agreement.json on standard output")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_agree)


def _add_cohort(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("cohort", help="draw a synthetic cohort of numbers, to try agree without patients")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--count", type=int, help="how many people, 1406 without it")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other people")
    parser.add_argument("--kind", choices=COHORTS, default=COHORTS[0],
                        help="literature: HU of bone, muscle and fat scatter as published, densities by the two-point line "
                             "(default); paper-like: the same with what could explain the paper's result; paper-numbers: "
                             "no HU, 1406 pairs of densities drawn to the paper's means, SDs and correlation")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_cohort)


def run_agree(options: argparse.Namespace) -> int:
    """``lowdosebmd agree``."""
    from .cohort import parse_columns, read_cohort, template

    if options.template:
        _refuse_existing(options.cohort)
        template(options.cohort)
        say(f"Template: {options.cohort}. Remove its example rows.")
        return MEASURED
    if options.out is None:
        raise ValueError("agree needs a folder for its results; give one with -o")
    from .report.agreement import summary, write_agreement

    cohort = read_cohort(options.cohort, parse_columns(options.columns))
    record = write_agreement(cohort, options.out, options.cohort.name)
    if options.json:
        say(json.dumps(record))
    else:
        say(f"{summary(record)}\nReport: {options.out / 'agreement.html'}")
    return SOME_FAILED if any(found["reasons"] for found in record["sets"].values()) else MEASURED


def run_cohort(options: argparse.Namespace) -> int:
    """``lowdosebmd cohort``."""
    from . import cohort_synthesis as synthesis
    from .cohort import write_cohort

    _refuse_existing(options.out)
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


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another name")
