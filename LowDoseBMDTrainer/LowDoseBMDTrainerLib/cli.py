"""lowdosebmd-train: annotate CTs, prepare label maps, look at synthetic CTs, train, evaluate, export.

    lowdosebmd-train new PROJECT
    lowdosebmd-train import PROJECT VERSE CHESTS --copy
    lowdosebmd-train list PROJECT
    lowdosebmd-train labels PROJECT 0001 --itksnap OUT
    lowdosebmd-train labels PROJECT 0001 --take OUT/segmentation.nii.gz --annotator AB
    lowdosebmd-train predraw PROJECT
    lowdosebmd-train rank PROJECT
    lowdosebmd-train check PROJECT
    lowdosebmd-train compare PROJECT -o agreement
    lowdosebmd-train effort PROJECT
    lowdosebmd-train prepare PEOPLE.csv -o people
    lowdosebmd-train synthesize people --task bones --count 6 -o samples
    lowdosebmd-train train people --task bones --minutes 40 -o runs/bones
    lowdosebmd-train evaluate runs/bones PROJECT -o evaluation
    lowdosebmd-train export runs/bones -o models --evaluation evaluation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .cli_assist import add_assist_commands
from .cli_cases import add_case_commands
from .cli_evaluate import add_evaluate_command
from .cli_export import add_export_command
from .cli_people import add_people_commands
from .cli_quality import add_quality_commands
from .cli_train import add_train_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 something failed, 2 unusable arguments)."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"lowdosebmd-train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lowdosebmd-train: stopped; nothing half-written was left", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = argparse.ArgumentParser(prog="lowdosebmd-train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", required=True)
    for add in (add_case_commands, add_assist_commands, add_quality_commands, add_people_commands, add_train_command,
                add_evaluate_command, add_export_command):
        add(commands)
    return parser
