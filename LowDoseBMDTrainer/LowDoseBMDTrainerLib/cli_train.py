"""The command that trains a network."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from LowDoseBMDLib.cli_output import say
from LowDoseBMDLib.inference import DEVICES, threads

from .people import SPACING_MM

FROM_SCRATCH_RATE = 1.5e-3

FOLDS = 5
"""Annotated patients are divided into so many parts, of which one is held out, unless told otherwise."""


def add_train_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    train = commands.add_parser(
        "train", help="train one network; goes on where it was interrupted",
        description="Train one network in the folder RUN. The same command goes on with a run that was interrupted. To end "
                    "it early and keep the best network so far, press Ctrl-C or make a file RUN/stop.")
    train.add_argument("data", type=Path, help="a project, or a folder of prepared people (*.npz)")
    train.add_argument("--task", choices=tuple(SPACING_MM), required=True)
    train.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="such as PROJECT/runs/NAME")
    train.add_argument("--people", type=Path, help="a folder of prepared people to add to a project by synthesis")
    train.add_argument("--use", choices=("annotated", "synthetic", "both"), default="both",
                       help="completed cases, label maps by synthesis, or both (default: what is there)")
    train.add_argument("--start", default="none", metavar="none|embedded|FOLDER",
                       help="weights to begin with: those of LowDoseBMD, of a bundle or set of models, or of a run")
    _add_schedule(train)
    _add_machine(train)
    train.set_defaults(run=run_train)


def _add_schedule(train: argparse.ArgumentParser) -> None:
    train.add_argument("--steps", type=int, default=4000)
    train.add_argument("--minutes", type=float, default=0.0,
                       help="instead of --steps: as many as fit in, by a few steps that are timed first")
    train.add_argument("--batch", type=int, default=2, help="samples of a step, in each process")
    train.add_argument("--patch", type=int, default=0, metavar="VOXELS",
                       help="side of a sample, a multiple of 16, 32 at least; smaller is quicker, sees less (default: the "
                       "task's)")
    train.add_argument("--learning-rate", type=float, help=f"default {FROM_SCRATCH_RATE}, a fifth of it with --start")
    train.add_argument("--res-units", type=int, default=1, help="residual units of each level of the network")
    train.add_argument("--folds", type=int, default=FOLDS, help="parts into which patients are divided; 0 holds nothing out")
    train.add_argument("--fold", type=int, default=0, help="the part that is held out, from 0")
    train.add_argument("--synthetic-share", type=float, default=0.5, help="of samples, where there are annotated cases too")
    train.add_argument("--weight", action="append", default=[], metavar="NAME=W",
                       help="how often cases and people whose name begins with NAME are drawn (default 1)")
    train.add_argument("--validate-every", type=int, default=0, metavar="STEPS", help="default: about twenty times a run")
    train.add_argument("--patience", type=int, default=10, metavar="N", help="end after N validations with no better score")
    train.add_argument("--seed", type=int, default=1)


def _add_machine(train: argparse.ArgumentParser) -> None:
    train.add_argument("--device", choices=DEVICES, default="auto")
    train.add_argument("--workers", type=int, default=min(4, max(1, threads() - 1)), help="processes that draw samples")
    train.add_argument("--deterministic", action="store_true", help="the same bits every time on the same kind of machine")
    train.add_argument("--expect", action="store_true", help="only say what it will take: steps, time and memory")


def run_train(options: argparse.Namespace) -> int:
    """Train until the steps are done or somebody stops it."""
    from .datasets import load_data
    from .training import Conditions, train_run
    from .training_expectation import expectation
    from .training_parallel import join
    from .training_start import starting_point

    recipe, weights = starting_point(_recipe(options), options.start)
    with join(options.device) as ranks:
        with ranks.first_alone():
            data = load_data(recipe, options.data, options.people, options.use, _weights(options.weight),
                             ranks.device)
        if options.expect:
            result = expectation(recipe, data, ranks, options.workers).sentence
        else:
            with _stopped_by_signals() as wanted:
                reason = train_run(options.out, recipe, data, ranks, weights,
                                   Conditions(options.workers, wanted, _say_event))
            result = f"{reason}: {options.out}"
        if ranks.first:
            say(result)
    return 0


def _weights(entries: list[str]) -> dict[str, float]:
    """Raises ValueError for an entry that is not NAME=W."""
    try:
        return {name: float(value) for name, value in (entry.split("=", 1) for entry in entries)}
    except ValueError:
        raise ValueError(f"--weight {' '.join(entries)}: give NAME=W, such as --weight phantom=0.5") from None


def _recipe(options: argparse.Namespace) -> Any:
    from .training_recipe import FINE_TUNING_RATE, Recipe

    rate = options.learning_rate or (FROM_SCRATCH_RATE if options.start == "none" else FINE_TUNING_RATE)
    return Recipe(options.task, options.steps, options.batch, rate, seed=options.seed, minutes=options.minutes,
                  res_units=options.res_units, folds=options.folds, fold=options.fold, validate_every=options.validate_every,
                  patience=options.patience, shape_kji=(options.patch,) * 3 if options.patch else (),
                  synthetic_share=options.synthetic_share, deterministic=options.deterministic)


def _say_event(event: dict[str, Any]) -> None:
    """A line of the log, for a person."""
    kind = event["event"]
    if kind == "start":
        from .training_expectation import in_words

        cases = event["cases"]
        for side in ("training", "validation"):
            say(f"{side}: {', '.join(cases[side]) or 'nothing'}")
        for note in event["notes"]:
            say(note)
        say(f"{event['steps']} steps from {event['start_step']} on {event['device']}: about "
            f"{in_words(event['expected_seconds'])}, {event['expected_memory_gb']:.1f} GB of memory")
    elif kind == "step":
        say(f"step {event['step']}  loss {event['loss']:.4f}  {event['seconds']:.0f} s, {event['left_seconds']:.0f} s left")
    elif kind == "validation":
        each = event.get("dice") or {level: f"{mm} mm" for level, mm in event["keypoint_mm"].items()}
        say(f"step {event['step']}  held out: score {event['score']}, {', '.join(f'{k} {v}' for k, v in each.items())}")


@contextmanager
def _stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """A function that says whether to go on: no longer after Ctrl-C or the system's request to end. A second Ctrl-C ends the
    program at once."""
    asked = []

    def stop(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
