"""What the commands print, their exit status, and what they do not overwrite."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from .inference import Progress, silent

MEASURED, SOME_FAILED, UNUSABLE = 0, 1, 2
"""Exit status: all measured; some study failed or was refused, or some statistic could not be computed; unusable
arguments."""


def line(row: dict[str, Any]) -> None:
    """One JSON object as a line of standard output."""
    print(json.dumps(row), flush=True)


def say(text: str) -> None:
    """Print what a reader of the output may no longer wait for."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def passing(text: str) -> None:
    """A line on the terminal of standard error that the next one replaces; "" removes it. Nothing where there is none."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def progress_for(as_json: bool, before: str = "") -> Progress:
    """Progress as JSON lines, or as passing lines of a terminal. before: said in front of each stage."""
    if as_json:
        return lambda stage, part: line({"progress": before + stage, "fraction": round(part, 3)})
    return (lambda stage, part: passing(f"{before}{stage} {100 * part:3.0f} %")) if sys.stderr.isatty() else silent


def refuse_existing(path: Path) -> None:
    """Raises ValueError when there is something that a command would overwrite."""
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another name")
