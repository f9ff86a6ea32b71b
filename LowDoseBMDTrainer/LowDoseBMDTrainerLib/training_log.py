"""A training run on disk, as far as it can be read without torch: the log, its curves, and the file that stops it.

A run is a folder:

    recipe.json   everything that the result depends on besides the data
    log.jsonl     what happened, one JSON object a line, append only (below)
    last.pt       where the run goes on after an interruption
    best.pt       the network with the best score so far; where nothing is held out, the newest one
    stop          a file of this name ends the run early; the best network stays
    done.json     why the run ended: there when it has ended

Lines of the log: ``start`` (task, steps, start_step, cases, device, expected_seconds, expected_memory_gb), ``step`` (step,
loss, seconds, left_seconds, learning_rate), ``validation`` (step, loss, dice or keypoint_mm, score), ``end`` (reason, step)
and ``failed`` (message).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.manifest import Manifest

RECIPE, LOG, LAST, BEST, STOP, DONE = "recipe.json", "log.jsonl", "last.pt", "best.pt", "stop", "done.json"
"""Names of the files in a run's folder."""

FINISHED, CANCELLED, EARLY_STOP = "finished", "cancelled", "early stop"
"""Reasons for which a run ends."""


@dataclass(frozen=True)
class Point:
    """One step of the training curve. loss: mean since the point before. seconds: of training so far; left_seconds:
    expected until the end."""

    step: int
    loss: float
    seconds: float
    left_seconds: float
    learning_rate: float


@dataclass(frozen=True)
class Validation:
    """One validation. dice: by class, 0..1; keypoint_mm: mean distance by level, in mm; one of the two is empty. score: the
    higher the better, the mean Dice or minus the mean distance in mm; None when the data held out have nothing to score."""

    step: int
    loss: float
    score: float | None
    dice: Mapping[str, float] = field(default_factory=dict)
    keypoint_mm: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingLog:
    """What the log of a run says. steps: planned, 0 while unknown. training, validation_cases: names of the cases.

    reason: why it ended, "" while it runs or when it was interrupted; failed: the message of a run that broke off, "" else.
    """

    task: str = ""
    steps: int = 0
    device: str = ""
    training: tuple[str, ...] = ()
    validation_cases: tuple[str, ...] = ()
    expected_seconds: float | None = None
    expected_memory_gb: float | None = None
    points: tuple[Point, ...] = ()
    validations: tuple[Validation, ...] = ()
    reason: str = ""
    failed: str = ""

    @property
    def step(self) -> int:
        """The last step that the log names."""
        return max([point.step for point in self.points] + [entry.step for entry in self.validations], default=0)

    @property
    def left_seconds(self) -> float | None:
        """Time left as of the last point; None before the first and after the end."""
        return self.points[-1].left_seconds if self.points and not self.reason and not self.failed else None

    @property
    def best(self) -> Validation | None:
        """The validation of the network that is kept: the highest score, the earliest of equals; where nothing is held out,
        the newest one."""
        scored = [entry for entry in self.validations if entry.score is not None]
        if not self.validation_cases:
            return scored[-1] if scored else None
        return max(scored, key=lambda entry: entry.score, default=None)


def read_log(run: Path) -> TrainingLog:
    """The log of a run's folder; an empty TrainingLog when there is none yet.

    A run that went on after an interruption begins again at its last checkpoint: what an earlier process wrote about later
    steps is dropped. A torn last line counts as never written.
    """
    return log_of(Manifest(run / LOG).entries())


def log_of(entries: Iterable[Mapping[str, Any]]) -> TrainingLog:
    """TrainingLog of the lines of a log, oldest first; lines of unknown events are passed over."""
    start: Mapping[str, Any] = {}
    points: dict[int, Point] = {}
    validations: dict[int, Validation] = {}
    reason = failed = ""
    for entry in entries:
        event = entry.get("event")
        if event == "start":
            start, reason, failed = entry, "", ""
            points = {step: point for step, point in points.items() if step <= entry["start_step"]}
            validations = {step: one for step, one in validations.items() if step <= entry["start_step"]}
        elif event == "step":
            points[entry["step"]] = Point(**_fields(entry))
        elif event == "validation":
            validations[entry["step"]] = Validation(**_fields(entry))
        elif event == "end":
            reason = entry["reason"]
        elif event == "failed":
            failed = entry["message"]
    cases = start.get("cases", {})
    return TrainingLog(start.get("task", ""), start.get("steps", 0), start.get("device", ""),
                       tuple(cases.get("training", ())), tuple(cases.get("validation", ())), start.get("expected_seconds"),
                       start.get("expected_memory_gb"), tuple(points.values()), tuple(validations.values()), reason, failed)


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "event"}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of a run's folder; None when the file is not there. Raises ValueError when it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValueError(f"{path} is damaged; remove the run's folder and start again") from None
    return record


def ended(run: Path) -> str:
    """Why a run has ended; "" when it has not."""
    record = read_json(run / DONE)
    return record["reason"] if record else ""


def ask_to_stop(run: Path) -> None:
    """Ask a run, whatever process it runs in, to end after the step that it is at."""
    write_whole(run / STOP, "")
