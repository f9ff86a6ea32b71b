"""The command that fits a calibration: calibrate."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_output import MEASURED, refuse_existing, say

if TYPE_CHECKING:
    from .calibration_fit import QctLine
    from .report.calibrate import Fitted

MODELS = ("auto", "line", "regression", "shrunk-two-point", "two-point", "rescaled")


def add_calibrate_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    from .cohort import layout

    parser = commands.add_parser("calibrate", help="fit a site's calibration on people who were measured by QCT too",
                                 formatter_class=argparse.RawDescriptionHelpFormatter,
                                 epilog="columns of COHORT (here measured_mg_cm3 is not needed; spine_hu, muscle_hu and "
                                        f"fat_hu are):\n{layout()}")
    parser.add_argument("cohort", type=Path, help="CSV, one row for each person; only rows of split training are used")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the calibration file (JSON) to write")
    parser.add_argument("--report", type=Path, help="folder for calibrate.html, calibrate.json and the figures")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="auto: the recommended one (default)")
    parser.add_argument("--qct-line", metavar="SLOPE,INTERCEPT",
                        help="the QCT phantom's line on this scanner, mg/cm3 per HU and mg/cm3, for the two-point model; "
                             "without it the Deming line of QCT on the HU of bone")
    parser.add_argument("--kvp", type=float, help="fit on scans of this tube voltage, or say it where the file does not")
    parser.add_argument("--scanner", help="fit on this scanner only")
    parser.add_argument("--kernel", help="fit on this kernel only")
    parser.add_argument("--columns", default="", metavar="OURS=THEIRS,...",
                        help="what the file calls a column, for example reference=QCT,spine=HU")
    parser.add_argument("--name", help="what measurements shall call the calibration")
    parser.add_argument("--seed", type=int, default=1, help="of the folds of the cross-validation")
    parser.add_argument("--json", action="store_true", help="the content of calibrate.json on standard output")
    parser.add_argument("--verbose", action="store_true")
    parser.set_defaults(run=run_calibrate)


def run_calibrate(options: argparse.Namespace) -> int:
    """``lowdosebmd calibrate``."""
    from .calibration import save_calibration
    from .report.calibrate import summary, to_record, write_report

    refuse_existing(options.out)
    fitted = fit(options, date.today().isoformat())
    record = write_report(fitted, options.report) if options.report else to_record(fitted)
    save_calibration(fitted.calibration, options.out)
    if options.json:
        say(json.dumps(record))
    else:
        report = f"\nReport: {options.report / 'calibrate.html'}" if options.report else ""
        say(f"{summary(record)}\nCalibration: {options.out}{report}")
    return MEASURED


def fit(options: argparse.Namespace, today: str) -> Fitted:
    """What the parsed options ask for. Raises ValueError when the cohort or an option cannot be used."""
    from .calibration_choice import compare
    from .calibration_fit import FitSettings
    from .calibration_people import training_people
    from .cohort import parse_columns, read_cohort
    from .cohort_columns import HU_COLUMNS
    from .report.calibrate import Fitted

    cohort = read_cohort(options.cohort, parse_columns(options.columns), needed=("id", "reference_mg_cm3", *HU_COLUMNS))
    training = training_people(cohort, options.kvp, options.scanner, options.kernel)
    settings = FitSettings(training.kvp, today, f"QCT densities of {options.cohort.name}", _qct_line(options.qct_line))
    found = compare(training.people, settings, options.seed)
    chosen = found.recommended if options.model == "auto" else options.model.replace("-", "_")
    if chosen not in found.candidates:
        raise ValueError(f"the model {options.model} could not be fitted: {found.failed[chosen]}")
    calibration = found.candidates[chosen].calibration
    if options.name:
        synthetic = " (synthetic people)" if training.people.synthetic.any() else ""
        calibration = replace(calibration, name=f"{options.name}{synthetic}")
    return Fitted(training, settings, found, chosen, calibration, options.cohort.name)


def _qct_line(text: str | None) -> QctLine | None:
    from .calibration_fit import QctLine

    if text is None:
        return None
    try:
        slope, intercept = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--qct-line {text!r} is not two numbers; write slope and intercept, as in 0.80,8.1") from None
    return QctLine(slope, intercept)
