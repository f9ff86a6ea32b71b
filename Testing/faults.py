"""Prints what becomes of every fault: damaged files, odd series, wrong values, a machine that fails.

One row for each: the fault, what was given, the outcome (measured, refused, failed) and its code, what a user reads,
whether nothing was lost, and seconds. A line beneath says what is not as it must be. The cases are those of
Testing/library/test_faults.py, and heavier ones that only run here::

    python Testing/faults.py                     # all, some 15 minutes on two cores
    python Testing/faults.py compressed "disk full"
    python Testing/faults.py --light             # those of the tests

Exit status 0 when every fault ended as it must, else 1.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "LowDoseBMD"), str(ROOT / "Testing" / "library")]

from fault_cases import FAULTS, Fault  # noqa: E402 - of the checkout
from fault_machine import MACHINE_FAULTS  # noqa: E402
from fault_scene import Outcome, make_scene  # noqa: E402

WIDTHS = (18, 27, 9, 25, 6, 7)
SENTENCE_COLUMNS = 96


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="only faults whose name or input holds one of these")
    parser.add_argument("--light", action="store_true", help="only those that the tests run too")
    options = parser.parse_args(arguments)
    chosen = [fault for fault in (*FAULTS, *MACHINE_FAULTS) if _wanted(fault, options)]
    _say(_row(("fault", "given", "outcome", "code", "lost", "seconds")) + "what a user reads")
    wrong = 0
    with TemporaryDirectory(prefix="faults-") as home:
        scene = make_scene(Path(home) / "scene")
        for fault in chosen:
            with TemporaryDirectory(dir=home) as folder:
                outcome = fault.run(scene, Path(folder))
            wrong += _tell(fault, outcome, fault.wrong(outcome, scene), home)
    _say(f"{len(chosen)} faults, {wrong} of them ended as they must not.")
    return int(wrong > 0)


def _wanted(fault: Fault, options: argparse.Namespace) -> bool:
    named = not options.names or any(name in f"{fault.name} {fault.given}" for name in options.names)
    return named and not (options.light and fault.heavy)


def _tell(fault: Fault, outcome: Outcome, wrong: str, home: str) -> bool:
    """Print one fault; True when it ended as it must not. home: the folder of this run, left out of sentences."""
    cells = (fault.name, fault.given, outcome.status, outcome.code or "-", "yes" if outcome.lost else "no",
             f"{outcome.seconds:.1f}")
    sentence = outcome.sentence.replace(home, "") or "(the plain result)"
    if outcome.peak_mb and fault.heavy:
        sentence += f" [memory: {outcome.peak_mb:.0f} MB]"
    if fault.same and outcome.status == "measured" and not wrong:
        sentence += " [HU and vBMD equal the plain CT's]"
    first, *rest = textwrap.wrap(sentence, SENTENCE_COLUMNS)
    _say(_row(cells) + first)
    for line in rest:
        _say(" " * (sum(WIDTHS) + len(WIDTHS)) + line)
    if wrong:
        _say(f"    WRONG: {wrong}")
    return bool(wrong)


def _row(cells: Sequence[str]) -> str:
    """Cells in columns; one that is too long pushes the rest."""
    return "".join(f"{cell:<{width}} " for cell, width in zip(cells, WIDTHS, strict=True))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
