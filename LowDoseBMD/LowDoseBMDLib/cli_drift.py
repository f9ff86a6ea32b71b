"""The command that watches scanners: drift."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from .cli_output import MEASURED, SOME_FAILED, say

MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def add_drift_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    parser = commands.add_parser("drift", help="has a scanner drifted? Control charts of the HU of muscle, fat and aorta "
                                 "in measured studies", epilog="exit status: 0 all scanners in control or to be watched, "
                                 "1 one has drifted or none could be judged, 2 unusable arguments")
    parser.add_argument("results", type=Path, nargs="+", help="folder that holds results of measure or batch at any depth")
    parser.add_argument("-o", "--out", type=Path, required=True,
                        help="folder for drift.html, drift.json, drift.csv and a chart of each scanner")
    centre = parser.add_mutually_exclusive_group()
    centre.add_argument("--baseline", metavar="FROM,TO", help="months when the scanners were right, for example "
                        "2024-01,2024-06; default: each scanner's first three months, or more until there are 20 people")
    centre.add_argument("--calibration", type=Path, help="a site's calibration file: what muscle and fat read in its people "
                        "is the baseline of its scanner")
    parser.add_argument("--json", action="store_true", help="the content of drift.json on standard output")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_drift)


def run_drift(options: argparse.Namespace) -> int:
    """``lowdosebmd drift``."""
    from .calibration import load_calibration
    from .drift import IN_CONTROL, OUT, WATCH
    from .drift_records import read_archive
    from .drift_strata import judge_archive
    from .report.drift import summary, write_drift

    months = _months(options.baseline)
    calibration = load_calibration(options.calibration) if options.calibration else None
    archive = read_archive(options.results)
    record = write_drift(archive, judge_archive(archive, months, calibration), options.out, calibration)
    say(json.dumps(record) if options.json else f"{summary(record)}\nReport: {options.out / 'drift.html'}")
    found = {stratum["status"] for stratum in record["strata"]}
    return SOME_FAILED if OUT in found or not found & {IN_CONTROL, WATCH} else MEASURED


def _months(text: str | None) -> tuple[str, str] | None:
    """First and last month of --baseline. Raises ValueError when it is not FROM,TO."""
    if text is None:
        return None
    first, _, last = (part.strip() for part in text.partition(","))
    if not (MONTH.fullmatch(first) and MONTH.fullmatch(last)) or first > last:
        raise ValueError(f"--baseline is {text!r}; give the first and the last month, for example 2024-01,2024-06")
    return first, last
