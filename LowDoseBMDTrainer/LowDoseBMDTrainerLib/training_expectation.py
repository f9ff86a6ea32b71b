"""What a training will cost, before it begins: seconds and memory, from a few steps that are thrown away."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from LowDoseBMDLib.inference import STRIDE
from LowDoseBMDLib.runner import memory_mb

from .datasets import Batches, TrainingData
from .training_losses import make_loss
from .training_parallel import Ranks
from .training_recipe import OUTPUTS, Recipe, build
from .training_step import State, new_state, train_step
from .training_validation import held_volumes, validate

PROBE_STEPS, PROBE_SECONDS = 8, 8.0
"""The probe ends after so many timed steps or so many seconds, whichever is first, but not before one timed step."""

GRADIENTS = 2.5
"""Memory of a whole step in sizes of what the forward pass keeps: 1.6 to 2.4 was measured for the three tasks on a CPU."""

VALIDATION_SHARE = 0.2
"""Of the time of the steps, at most (judgement)."""

COPIES = 5
"""The network, its gradients, its running mean and the two moments of the optimiser."""


@dataclass(frozen=True)
class Expectation:
    """What a run will need: seconds of training with its validations, memory in GB (10^9 bytes; on a GPU that of the GPU),
    steps. step_seconds, validation_seconds: what one takes. validate_every: steps between two validations."""

    seconds: float
    memory_gb: float
    steps: int
    step_seconds: float
    validation_seconds: float
    validate_every: int

    @property
    def sentence(self) -> str:
        """For a person who decides whether to start."""
        return (f"{self.steps} steps, about {in_words(self.seconds)} ({self.step_seconds:.2f} s a step), "
                f"{self.memory_gb:.1f} GB of memory")


def in_words(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def expectation(recipe: Recipe, data: TrainingData, ranks: Ranks = Ranks("cpu"), workers: int = 1) -> Expectation:
    """Measured by steps of a network that is thrown away. With ``recipe.minutes`` the steps are those that fit in; without
    ``recipe.validate_every`` a run is validated so seldom that it costs at most VALIDATION_SHARE of the time.

    Raises ValueError when the memory that is free is not enough.
    """
    refuse_without_memory(recipe, ranks)
    state, loss_of = new_state(recipe, ranks), make_loss(recipe.task, len(OUTPUTS[recipe.task]), ranks.device)
    held = held_volumes(recipe, data)
    step_seconds, memory_gb = _probe(recipe, data, state, ranks, workers)
    started = time.monotonic()
    validate(state.average.module, held[:1], recipe, loss_of, ranks.device)
    validation_seconds = (time.monotonic() - started) * len(held)
    return schedule(recipe, step_seconds, validation_seconds, memory_gb)


def schedule(recipe: Recipe, step_seconds: float, validation_seconds: float, memory_gb: float) -> Expectation:
    """Steps and validations of a run whose steps and validations take so long."""
    seldom = math.ceil(validation_seconds / (VALIDATION_SHARE * step_seconds))
    steps = recipe.steps
    if recipe.minutes:
        every = recipe.validate_every or seldom
        steps = max(1, int((60 * recipe.minutes - validation_seconds) / (step_seconds + validation_seconds / every)))
    every = recipe.validate_every or min(steps, max(seldom, replace(recipe, steps=steps).validation_every))
    seconds = steps * step_seconds + math.ceil(steps / every) * validation_seconds
    return Expectation(seconds, memory_gb, steps, step_seconds, validation_seconds, every)


def _probe(recipe: Recipe, data: TrainingData, state: State, ranks: Ranks, workers: int) -> tuple[float, float]:
    """Seconds of a step, drawing of samples included, and memory in GB. The first step, which is slower, is not
    timed."""
    alone = replace(ranks, rank=0, world=1)
    streams = ranks.streams(recipe.streams)
    batches = Batches(replace(recipe, steps=PROBE_STEPS + 1), data.training, streams, 0, workers)
    began = time.monotonic()
    train_step(state, recipe, batches.next(), alone)
    started = time.monotonic()
    done = 0
    while done < PROBE_STEPS and (done == 0 or time.monotonic() - began < PROBE_SECONDS):
        train_step(state, recipe, batches.next(), alone)
        done += 1
    return (time.monotonic() - started) / done, _memory_gb(recipe, ranks)


# --- memory ------------------------------------------------------------------------------------------------

def refuse_without_memory(recipe: Recipe, ranks: Ranks) -> None:
    """Raises ValueError, with the way out, when a step needs more memory than is free."""
    need, free = needed_gb(recipe), free_gb(ranks)
    if free is not None and need > free:
        raise ValueError(f"a step of {recipe.batch} samples of {' x '.join(map(str, recipe.sample.shape_kji))} voxels needs "
                         f"about {need:.1f} GB of memory, and {free:.1f} GB are free on {ranks.device}. Close other "
                         f"programs, {'use --batch 1, ' if recipe.batch > 1 else ''}or train on another machine.")


def needed_gb(recipe: Recipe) -> float:
    """Memory of one step beyond what the process holds: reckoned from what the forward pass of a small volume keeps for the
    backward pass."""
    network = build(recipe)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    own = {p.data_ptr() for p in network.parameters()}
    small = [min(n, 2 * STRIDE) for n in recipe.sample.shape_kji]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    outputs = len(OUTPUTS[recipe.task])
    target = torch.zeros(1, *([outputs] if recipe.task == "keypoints" else []), *small)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(torch.zeros(1, 1, *small))
        make_loss(recipe.task, outputs, "cpu")(logits, target, torch.arange(outputs)[None] + 1 < outputs)
    ratio = recipe.batch * torch.Size(recipe.sample.shape_kji).numel() / torch.Size(small).numel()
    half = 0.5 if recipe.precision == "bf16" else 1.0
    return (half * GRADIENTS * ratio * sum(kept.values()) + COPIES * weights) / 1e9


def free_gb(ranks: Ranks) -> float | None:
    """Memory that can be had now, shared by the processes on this machine; None where the system does not tell."""
    if ranks.kind == "cuda":
        return torch.cuda.mem_get_info(ranks.device)[0] / 1e9
    free = [value for value in (_proc_free(), _group_free()) if value is not None]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if ranks.world > 1 else 1
    return min(free) / 1e9 / here if free else None


def _proc_free() -> int | None:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def _group_free() -> int | None:
    """What the control group of a container has left (version 2, Linux)."""
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    return None


def _memory_gb(recipe: Recipe, ranks: Ranks) -> float:
    """The most that this process and its workers have held so far, and the pool that will fill up. On a GPU its own."""
    if ranks.kind == "cuda":
        return torch.cuda.max_memory_reserved(ranks.device) / 1e9
    held = memory_mb(os.getpid())[1] or 0.0
    voxels = torch.Size(recipe.sample.shape_kji).numel()
    values = 2 * len(OUTPUTS["keypoints"]) if recipe.task == "keypoints" else 1
    return held / 1e3 + recipe.pool * len(ranks.streams(recipe.streams)) * voxels * (2 + values) / 1e9
