"""The command that trains a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from LowDoseBMDLib.cli_output import say

from .cli_people import SPACING_MM, prepared_people


def add_train_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    train = commands.add_parser("train", help="train one network; goes on from the checkpoint if it exists")
    train.add_argument("people", type=Path)
    train.add_argument("--task", choices=tuple(SPACING_MM), required=True)
    train.add_argument("-o", "--out", type=Path, required=True)
    train.add_argument("--steps", type=int, default=20000)
    train.add_argument("--minutes", type=float, default=0.0, help="stop at this time (0: at --steps)")
    train.add_argument("--batch", type=int, default=2)
    train.add_argument("--learning-rate", type=float, default=1.5e-3)
    train.add_argument("--res-units", type=int, default=1)
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--weight", action="append", default=[], metavar="NAME=W",
                       help="how often people whose name begins with NAME are drawn (default 1)")
    train.set_defaults(run=run_train)


def run_train(options: argparse.Namespace) -> int:
    """Train until steps or minutes are used up."""
    from .training import Recipe, train

    people = prepared_people(options.people)
    wanted = dict(entry.split("=", 1) for entry in options.weight)
    weights = [float(next((w for name, w in wanted.items() if p.name.startswith(name)), 1.0)) for p in people]
    recipe = Recipe(options.task, options.steps, options.batch, options.learning_rate, seed=options.seed,
                    minutes=options.minutes, res_units=options.res_units)
    say(f"{len(people)} people: {', '.join(p.name for p in people)}")
    train(recipe, people, options.out, options.device, weights=weights,
          report=lambda step, loss, seconds: say(f"step {step}  loss {loss:.4f}  {seconds:.0f} s"))
    return 0
