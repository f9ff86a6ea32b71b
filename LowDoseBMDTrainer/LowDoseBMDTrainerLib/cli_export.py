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
    import torch

    from .export import export_bundle, network_weights
    from .training import Recipe

    state = torch.load(options.checkpoint, weights_only=True)
    card = json.loads(options.card.read_text(encoding="utf-8")) if options.card else {}
    training = {**card.get("training", {}), "steps": state["step"], "recipe": json.loads(state["recipe"])}
    bundle = export_bundle(Recipe(**training["recipe"]), network_weights(state["average"]), options.out,
                           options.version, training, card.get("scores", {}), tuple(card.get("limits", ())))
    say(bundle.identity)
    return 0
