"""A training run in its folder: begun, or gone on with after an interruption, until it has done its steps or is stopped.

What a run comes to depends on its recipe and its data only, not on when it was interrupted: samples and the learning rate
are functions of the step, and a checkpoint holds all the rest.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from LowDoseBMDLib.files.atomic import remove_unfinished, write_whole
from LowDoseBMDLib.manifest import Manifest

from .datasets import Batches, TrainingData
from .training_expectation import Expectation, expectation
from .training_log import BEST, CANCELLED, DONE, EARLY_STOP, FINISHED, LAST, LOG, RECIPE, STOP, ended, read_json
from .training_losses import make_loss
from .training_parallel import Ranks, precision_of
from .training_recipe import OUTPUTS, Recipe, learning_rate, recipe_of, record_of
from .training_step import State, load_state, new_state, save_best, save_state, train_step
from .training_validation import Held, held_volumes, validate

SAVE_SECONDS = 20.0
"""A checkpoint is written so often: no more than that is lost."""

SAMPLES_PER_FRESH = 4
"""On an H100 a synthetic sample took as long to draw as five to learn from, and is drawn while others are learnt from: with
one new one in four neither waits long."""

RECKONED = frozenset({"steps", "validate_every", "precision", "streams", "fresh"})
"""Fields of a recipe that are reckoned when a run begins, and kept when it goes on elsewhere."""

Event = dict[str, Any]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Conditions:
    """How a run is carried out; none of it changes what it comes to.

    workers: processes that draw samples, 0 for none. wanted: False asks the run to stop, as the
    file ``stop`` does. report: called with every line of the log. save_seconds: between two checkpoints.
    """

    workers: int = 1
    wanted: Callable[[], bool] = lambda: True
    report: Callable[[Event], None] = lambda event: None
    save_seconds: float = SAVE_SECONDS


def train_run(run: Path, asked: Recipe, data: TrainingData, ranks: Ranks = Ranks("cpu"), weights: Weights | None = None,
              conditions: Conditions = Conditions()) -> str:
    """Train in the folder ``run``, which is made or gone on with; returns why it ended, as in training_log.

    weights: of the network at the start; drawn from the seed where there are none. Raises ValueError when the folder holds
    another run, another process trains there, the data have changed since it began, or the memory is not enough.
    """
    with _Folder(run, ranks, conditions.report) as folder:
        reason = ranks.told(ended(run))
        if reason in (FINISHED, EARLY_STOP):
            return reason
        folder.clear()
        recipe, expected, threads = _settled(run, asked, data, ranks, conditions.workers)
        with _determinism(recipe, ranks, threads):
            state = new_state(recipe, ranks, weights)
            if ranks.told((run / LAST).exists()):
                load_state(run / LAST, state, ranks.device)
            folder.append(_start_event(recipe, data, ranks, expected, state.step))
            return _Course(folder, recipe, data, ranks, state, conditions).go()


class _Folder:
    """The run's folder and its log, which the first process alone writes."""

    def __init__(self, run: Path, ranks: Ranks, report: Callable[[Event], None]) -> None:
        self.run, self.ranks, self.report, self.manifest = run, ranks, report, Manifest(run / LOG)

    def __enter__(self) -> _Folder:
        if self.ranks.first:
            self.manifest.claim()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None,
                 _traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self.append({"event": "failed", "message": str(error) or type(error).__name__})
        self.manifest.close()

    def append(self, event: Event) -> None:
        if self.ranks.first:
            self.manifest.append(event)
            self.report(event)

    def clear(self) -> None:
        """Remove what a killed process left, and the marks of an earlier end."""
        if self.ranks.first:
            remove_unfinished(self.run)
            for name in (STOP, DONE):
                (self.run / name).unlink(missing_ok=True)


def _settled(run: Path, asked: Recipe, data: TrainingData, ranks: Ranks,
             workers: int) -> tuple[Recipe, Expectation, int]:
    """The recipe with what is reckoned on this machine, what it will cost, and the number of threads it began with."""
    record = ranks.told(read_json(run / RECIPE))
    if record is not None:
        recipe = recipe_of(record["recipe"])
        _refuse_another(run, recipe, asked, record["data"], data)
        return recipe, Expectation(**record["expectation"]), record["threads"]
    recipe = replace(asked, precision=ranks.told(precision_of(ranks.device)), streams=max(asked.streams, ranks.world),
                     fresh=_fresh(asked.batch, data))
    expected = ranks.told(expectation(recipe, data, ranks, workers))
    recipe = replace(recipe, steps=expected.steps, validate_every=expected.validate_every)
    threads = ranks.told(torch.get_num_threads())
    if ranks.first:
        record = {"recipe": record_of(recipe), "data": data.digests(), "notes": data.notes, "threads": threads,
                  "expectation": asdict(expected)}
        write_whole(run / RECIPE, json.dumps(record, indent=1) + "\n")
    return recipe, expected, threads


def _fresh(batch: int, data: TrainingData) -> int:
    """New samples of each batch: as many as are drawn in about the time of a step."""
    if not any(source.synthetic for source in data.training):
        return batch
    return 1 if any(source.on_cpu for source in data.training) else max(1, batch // SAMPLES_PER_FRESH)


def _refuse_another(run: Path, recipe: Recipe, asked: Recipe, digests: dict[str, dict[str, str]],
                    data: TrainingData) -> None:
    """Raises ValueError when the run in the folder is not the one that is asked for."""
    old, new = record_of(recipe), record_of(asked)
    told = {"steps"} if not asked.minutes else set()
    told |= {"validate_every"} if asked.validate_every else set()
    differs = [f"{name} {old[name]!r}, not {new[name]!r}" for name in old
               if old[name] != new[name] and (name not in RECKONED or name in told)]
    if differs:
        raise ValueError(f"{run} holds another run ({'; '.join(differs)}). Give what it began with to go on with it, or "
                         "choose another folder.")
    now = data.digests()
    changed = sorted({name for side in digests for name in digests[side].keys() | now[side].keys()
                      if digests[side].get(name) != now[side].get(name)})
    if changed:
        raise ValueError(f"the data of {run} have changed since it began: {', '.join(changed[:5])}. Begin a new run in "
                         "another folder; --start with this one keeps what it has learnt.")


@contextmanager
def _determinism(recipe: Recipe, ranks: Ranks, threads: int) -> Iterator[None]:
    """The same bits in every run on the same kind of machine, where the recipe asks for it; else the fastest way."""
    if not recipe.deterministic:
        torch.backends.cudnn.benchmark = ranks.kind == "cuda"
        yield
        return
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=ranks.kind == "cuda")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _start_event(recipe: Recipe, data: TrainingData, ranks: Ranks, expected: Expectation, step: int) -> Event:
    left = 1 - step / recipe.steps
    device = torch.cuda.get_device_name(ranks.device) if ranks.kind == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    if ranks.world > 1:
        device = f"{ranks.world} x {device}"
    return {"event": "start", "task": recipe.task, "steps": recipe.steps, "start_step": step,
            "cases": {side: list(names) for side, names in data.digests().items()},
            "device": f"{device}, {recipe.precision}",
            "expected_seconds": round(expected.seconds * left, 1), "expected_memory_gb": round(expected.memory_gb, 2),
            "notes": list(data.notes)}


@dataclass
class _Course:
    """The steps of a run from where it is to its end. first_step, seconds_before, began: where this process took it up,
    the seconds of training until then, and its clock."""

    folder: _Folder
    recipe: Recipe
    data: TrainingData
    ranks: Ranks
    state: State
    conditions: Conditions
    held: list[Held] = field(default_factory=list)
    first_step: int = 0
    seconds_before: float = 0.0
    began: float = 0.0

    def go(self) -> str:
        """Step until the end; returns why it ended."""
        recipe, state = self.recipe, self.state
        self.first_step, self.seconds_before, self.began = state.step, state.seconds, time.monotonic()
        saved = self.began
        self.held = held_volumes(recipe, self.data) if self.ranks.first else []
        network = self.ranks.wrap(state.network)
        streams = self.ranks.streams(recipe.streams)
        batches = Batches(recipe, self.data.training, streams, state.step, self.conditions.workers)
        while state.step < recipe.steps and state.stale < recipe.patience:
            if self.ranks.any(self.stopped()):
                return self.end(CANCELLED)
            loss = self.ranks.mean(train_step(state, recipe, batches.next(), self.ranks, network))
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss} at step {state.step}: begin again with a lower --learning-rate than "
                                 f"{recipe.learning_rate}")
            state.losses.append(loss)
            state.seconds = self.seconds_before + time.monotonic() - self.began
            self.note()
            if state.step % recipe.validation_every == 0 or state.step == recipe.steps:
                self.validate()
                saved = -math.inf
            if time.monotonic() - saved > self.conditions.save_seconds:
                self.save()
                saved = time.monotonic()
        return self.end(FINISHED if state.step == recipe.steps else EARLY_STOP)

    def stopped(self) -> bool:
        return not self.conditions.wanted() or (self.ranks.first and (self.folder.run / STOP).exists())

    def note(self) -> None:
        """A point of the curve, where one is due."""
        state = self.state
        if state.step % self.recipe.log_every and state.step != self.recipe.steps:
            return
        pace = (time.monotonic() - self.began) / (state.step - self.first_step)
        self.folder.append({
            "event": "step", "step": state.step, "loss": round(sum(state.losses) / len(state.losses), 6),
            "seconds": round(state.seconds, 1), "left_seconds": round(pace * (self.recipe.steps - state.step), 1),
            "learning_rate": learning_rate(self.recipe, state.step - 1)})
        state.losses.clear()

    def validate(self) -> None:
        """Score the averaged network, keep it when it is the best so far, and tell all processes.

        Where nothing is held out, it is always kept: the score of a few samples of the training data says less than further
        training does.
        """
        state, recipe = self.state, self.recipe
        found = None
        if self.ranks.first:
            loss_of = make_loss(recipe.task, len(OUTPUTS[recipe.task]), self.ranks.device)
            found = validate(state.average.module, self.held, recipe, loss_of, self.ranks.device)
            self.folder.append({"event": "validation", "step": state.step, **found})
        found = self.ranks.told(found)
        score = -found["loss"] if found["score"] is None else found["score"]
        state.stale += 1
        if not self.data.validation or state.best_score is None or score > state.best_score:
            state.best_score, state.best_step, state.stale = score, state.step, 0
            self.save_best(score)

    def save_best(self, score: float | None) -> None:
        if self.ranks.first:
            save_best(self.folder.run / BEST, self.state, self.recipe, score)

    def save(self) -> None:
        if self.ranks.first:
            save_state(self.folder.run / LAST, self.state, self.recipe)

    def end(self, reason: str) -> str:
        """Leave a checkpoint, a best network and the mark of the end."""
        state = self.state
        self.save()
        if state.best_score is None:
            state.best_step = state.step
            self.save_best(None)
        if self.ranks.first:
            done = {"reason": reason, "steps": state.step, "best_step": state.best_step, "best_score": state.best_score}
            write_whole(self.folder.run / DONE, json.dumps(done, indent=1) + "\n")
        self.folder.append({"event": "end", "reason": reason, "step": state.step})
        return reason
