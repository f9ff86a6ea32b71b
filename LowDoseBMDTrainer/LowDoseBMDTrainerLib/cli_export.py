"""The command that makes a bundle of a training run."""

from __future__ import annotations

import argparse
from pathlib import Path

from LowDoseBMDLib.cli_output import say


def add_export_command(commands: argparse._SubParsersAction) -> None:
    """Add the command, with its options, to those of the command line."""
    export = commands.add_parser("export", help="a run's best network as a bundle that LowDoseBMD loads",
                                 description="Write the best network of RUN to MODELS/TASK: weights (safetensors, ONNX), "
                                 "bundle.json and a card. No image data, no path and no name go with it.")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    place = export.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--out", type=Path, metavar="MODELS", help="folder of the set of models")
    place.add_argument("--install", metavar="NAME", help="into the user's sets of models, under this name")
    export.add_argument("--evaluation", type=Path, metavar="OUT", help="folder of an evaluation of this run, for the scores")
    export.add_argument("--version", default="0.1")
    export.add_argument("--monai", action="store_true", help="a MONAI bundle in MODELS/monai/TASK too")
    export.add_argument("--replace", action="store_true", help="what lies there already")
    export.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """``lowdosebmd-train export``."""
    from LowDoseBMDLib.bundle import user_models_folder

    from .export import export_run

    models = options.out or user_models_folder() / options.install
    bundle = export_run(options.run_folder, models, options.version, options.evaluation, options.replace, options.monai)
    say(f"{bundle.identity}: {bundle.folder}\nUse it: lowdosebmd measure CT -o OUT --model-dir {options.install or models}")
    return 0
