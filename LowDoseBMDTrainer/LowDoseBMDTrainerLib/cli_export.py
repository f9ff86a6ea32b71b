"""The command that makes a bundle of a trained network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from LowDoseBMDLib.cli_output import say


def add_export_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    export = commands.add_parser("export", help="checkpoint to bundle (safetensors, ONNX, metadata)")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("-o", "--out", type=Path, required=True)
    export.add_argument("--version", default="0.1")
    export.add_argument("--card", type=Path, help="JSON with training, scores and limits for the bundle's metadata")
    export.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Write the bundle of a checkpoint."""
    from .export import export_bundle
    from .training_log import BEST
    from .training_recipe import record_of
    from .training_step import load_trained

    folder = options.checkpoint
    trained = load_trained(folder / BEST if folder.is_dir() else folder)
    card = json.loads(options.card.read_text(encoding="utf-8")) if options.card else {}
    training = {**card.get("training", {}), "steps": trained.step, "recipe": record_of(trained.recipe)}
    bundle = export_bundle(trained.recipe, trained.weights, options.out, options.version, training,
                           card.get("scores", {}), tuple(card.get("limits", ())))
    say(bundle.identity)
    return 0
