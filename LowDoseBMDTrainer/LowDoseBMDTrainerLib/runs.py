"""The training runs of a project, as their folders tell: which runs now, which has ended, which can go on."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.files.locks import holder_of
from LowDoseBMDLib.manifest import lock_of

from .training_log import BEST, CANCELLED, DONE, EARLY_STOP, FINISHED, LAST, LOG, RECIPE, TrainingLog, read_json, read_log

COMMAND = "command.json"
"""Arguments of ``lowdosebmd-train`` that began the run, so that it can go on with the very same ones."""


class RunState(enum.StrEnum):
    """How far a run is."""

    RUNNING = "running"
    FINISHED = FINISHED
    EARLY_STOP = EARLY_STOP
    CANCELLED = CANCELLED
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Run:
    """A training run. command: arguments that began it, empty when they are not known. has_best: there is a network."""

    folder: Path
    state: RunState
    log: TrainingLog
    command: tuple[str, ...] = ()
    has_best: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def can_go_on(self) -> bool:
        """Whether the same command would go on with it, or try again."""
        return bool(self.command) and self.state in (RunState.INTERRUPTED, RunState.CANCELLED, RunState.FAILED)


class Runs:
    """The runs of one folder; read again only where something changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, tuple[tuple[object, ...], Run]] = {}

    def read(self) -> tuple[Run, ...]:
        """All runs, the newest first."""
        found = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")] \
            if self.folder.is_dir() else []
        self._known = {path: self._one(path) for path in found}
        return tuple(run for _mark, run in sorted(self._known.values(), key=lambda known: -known[1].folder.stat().st_mtime))

    def _one(self, folder: Path) -> tuple[tuple[object, ...], Run]:
        running = holder_of(lock_of(folder / LOG)) is not None
        mark = (running, *(_changed(folder / name) for name in (LOG, DONE, BEST, LAST, COMMAND)))
        known = self._known.get(folder)
        return known if known is not None and known[0] == mark else (mark, read_run(folder, running))


def read_run(folder: Path, running: bool) -> Run:
    """A run as its folder tells; running: whether a process holds its lock."""
    log = read_log(folder)
    if running:
        state = RunState.RUNNING
    elif log.failed:
        state = RunState.FAILED
    else:
        state = RunState(log.reason) if log.reason in set(RunState) else RunState.INTERRUPTED
    return Run(folder, state, log, command_of(folder), (folder / BEST).exists() or (folder / LAST).exists())


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def write_command(folder: Path, arguments: Sequence[str]) -> None:
    """Make the folder of a run, and keep there what began it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / COMMAND, json.dumps(list(arguments), indent=1) + "\n")


def command_of(folder: Path) -> tuple[str, ...]:
    """Arguments that began a run; empty when they are not known."""
    try:
        record = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(record) if isinstance(record, list) and all(isinstance(each, str) for each in record) else ()


def task_of(run: Run) -> str:
    """Which network a run trains; empty when nothing tells."""
    if run.log.task:
        return run.log.task
    try:
        record = read_json(run.folder / RECIPE)
    except ValueError:
        return ""
    return str((record or {}).get("recipe", {}).get("task", ""))


def folder_name(wanted: str) -> str:
    """``wanted`` with what folders do not like in their names replaced."""
    return re.sub(r"[^\w.+-]+", "-", wanted).strip("-.") or "run"


def free_name(folder: Path, wanted: str) -> str:
    """``wanted`` as the name of a new run in ``folder`` (see folder_name); a number follows where it is taken."""
    base = folder_name(wanted)
    name, number = base, 1
    while (folder / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name
