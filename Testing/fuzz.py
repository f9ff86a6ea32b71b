"""Gives every reader damaged inputs: bytes changed, cut off, blocks doubled, moved and dropped, odd numbers and words.

    python Testing/fuzz.py [--count 10000] [--seed 1] [--workers 2] [--only NIfTI] [--keep FOLDER]

A reader must accept an input or refuse it with one of the exceptions that its callers turn into a sentence: it must not
crash the process, hang (--seconds for one input), raise anything else, or write outside the folder of the results. Inputs
are read in processes of their own with little memory (--memory GB), so that a crash is caught; those that show a fault are
copied into --keep. Prints a row for each reader, then the faults; exit status 0 when there is none, else 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "LowDoseBMD"), str(ROOT / "Testing" / "library")]

from fuzz_inputs import ACCEPTED, READERS, REFUSED, WRONG, attempt, make_input, make_seeds, plan  # noqa: E402 - of the checkout

CRASHED, HUNG = "crashed", "hung"
OUTCOMES = (ACCEPTED, REFUSED, WRONG, CRASHED, HUNG)
EXAMPLES = 3
"""So many inputs of each fault are kept."""


@dataclass(frozen=True)
class Tried:
    """What came of one input. number: of the plan."""

    number: int
    reader: str
    outcome: str
    detail: str
    seconds: float


def main() -> int:
    options = _options()
    if options.range:
        return read_here(options)
    names = [name if not options.only or options.only in name else "" for name in plan(options.count, options.seed)]
    begun = time.monotonic()
    with TemporaryDirectory(prefix="fuzz-") as home, ThreadPoolExecutor(options.workers) as pool:
        make_seeds(Path(home) / "seeds")
        share = -(-len(names) // options.workers)
        runs = [pool.submit(lambda first: list(in_processes(options, Path(home), first, min(first + share, len(names)))),
                            first) for first in range(0, len(names), share)]
        tried = [one for run in runs for one in run.result()]
        _keep(options, Path(home) / "seeds", tried)
    return _tell(tried, time.monotonic() - begun)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--memory", type=float, default=8.0)
    parser.add_argument("--range", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- one process -------------------------------------------------------------------------------------------

def read_here(options: argparse.Namespace) -> int:
    """Read the inputs of a range; says before each that it begins, and after it what came of it, in JSON lines."""
    import pydicom
    import SimpleITK as sitk

    logging.disable(logging.CRITICAL)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    _limit_memory(options.memory)
    names = plan(options.count, options.seed)
    for number in range(*options.range):
        if options.only not in names[number]:
            continue
        _say(number=number)
        with TemporaryDirectory(dir=options.home) as folder:
            begun = time.perf_counter()
            result = attempt(names[number], options.home / "seeds", number, options.seed, Path(folder))
            seconds = time.perf_counter() - begun
        _say(number=number, outcome=result.outcome, detail=result.detail, seconds=round(seconds, 3))
    return 0


def _limit_memory(gigabytes: float) -> None:
    if os.name != "nt":
        import resource

        most = int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _say(**facts: object) -> None:
    _write(json.dumps(facts))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# --- all processes -----------------------------------------------------------------------------------------

def in_processes(options: argparse.Namespace, home: Path, first: int, stop: int) -> Iterator[Tried]:
    """The inputs first to stop; a process that ends early is followed by another, which goes on behind its last input."""
    names = plan(options.count, options.seed)
    while first < stop:
        begun, last = time.monotonic(), None
        with _process(options, home, first, stop) as process:
            watchdog = _watch(process, options.seconds)
            for line in process.stdout:
                watchdog.cancel()
                watchdog = _watch(process, options.seconds)
                facts = json.loads(line)
                if "outcome" in facts:
                    yield Tried(facts["number"], names[facts["number"]], facts["outcome"], facts["detail"], facts["seconds"])
                    last = None
                else:
                    last, begun = facts["number"], time.monotonic()
            watchdog.cancel()
        if last is None:
            if process.returncode:
                raise RuntimeError(f"a process ended with status {process.returncode} before its first input")
            return
        hung = time.monotonic() - begun >= options.seconds
        detail = f"longer than {options.seconds:g} s" if hung else _how(process.returncode)
        yield Tried(last, names[last], HUNG if hung else CRASHED, detail, time.monotonic() - begun)
        first = last + 1


def _process(options: argparse.Namespace, home: Path, first: int, stop: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", __file__, "--range", str(first), str(stop), "--home", str(home), "--count",
               str(options.count), "--seed", str(options.seed), "--only", options.only, "--memory", str(options.memory)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "PYTHONUTF8": "1",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
                            cwd=home)


def _watch(process: subprocess.Popen[str], seconds: float) -> Timer:
    timer = Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


# --- what is told ------------------------------------------------------------------------------------------

def _faults(tried: list[Tried]) -> dict[tuple[str, str, str], list[Tried]]:
    found: dict[tuple[str, str, str], list[Tried]] = {}
    for one in tried:
        if one.outcome not in (ACCEPTED, REFUSED):
            found.setdefault((one.reader, one.outcome, one.detail.partition(":")[0]), []).append(one)
    return found


def _keep(options: argparse.Namespace, seeds: Path, tried: list[Tried]) -> None:
    for few in _faults(tried).values() if options.keep else ():
        for one in few[:EXAMPLES]:
            folder = options.keep / f"{one.reader} {one.number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make_input(one.reader, seeds, one.number, options.seed, folder)


def _tell(tried: list[Tried], seconds: float) -> int:
    head = ("reader", "inputs", *OUTCOMES, "slowest")
    _write(f"{head[0]:<18}" + "".join(f"{cell:>10}" for cell in head[1:]))
    for name in READERS:
        of_reader = [one for one in tried if one.reader == name]
        if of_reader:
            _write(_row(name, of_reader))
    _write(_row("all", tried))
    _write(f"{seconds:.0f} s")
    for (reader, outcome, _), few in _faults(tried).items():
        _write(f"{reader}: {outcome}, {few[0].detail} ({len(few)} inputs: {', '.join(str(one.number) for one in few[:5])})")
    return int(any(one.outcome not in (ACCEPTED, REFUSED) for one in tried))


def _row(name: str, tried: list[Tried]) -> str:
    counts = Counter(one.outcome for one in tried)
    slowest = max((one.seconds for one in tried), default=0.0)
    return f"{name:<18}{len(tried):>10}" + "".join(f"{counts[outcome]:>10}" for outcome in OUTCOMES) + f"{slowest:>8.1f} s"


if __name__ == "__main__":
    sys.exit(main())
