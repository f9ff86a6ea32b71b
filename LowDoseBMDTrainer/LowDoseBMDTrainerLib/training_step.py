"""One step of training, and all that has to be kept so that the next is the same after an interruption."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from LowDoseBMDLib.files.atomic import whole_file

from .datasets import Batch
from .training_losses import make_loss
from .training_parallel import Ranks
from .training_recipe import OUTPUTS, Recipe, build, learning_rate, recipe_of, record_of

EMA_DECAY = 0.995
"""The exported weights are a running mean over about 200 steps, which steadies short trainings."""

LONGEST_GRADIENT = 5.0
"""Gradients are cut to this length, so that one odd sample does not undo much (judgement)."""


@dataclass
class State:
    """What a checkpoint holds besides the recipe. step: done so far. losses: since the last point of the curve. stale:
    validations since the best one."""

    network: torch.nn.Module
    average: torch.optim.swa_utils.AveragedModel
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0


_MODULES = ("network", "average", "optimiser")
_NUMBERS = ("step", "seconds", "losses", "best_score", "best_step", "stale")


def new_state(recipe: Recipe, ranks: Ranks, weights: dict[str, torch.Tensor] | None = None) -> State:
    """weights: of the network at the start; drawn from the recipe's seed where there are none."""
    network = build(recipe)
    if weights is not None:
        network.load_state_dict(weights)
    network = network.to(ranks.device, memory_format=torch.channels_last_3d)
    average = torch.optim.swa_utils.AveragedModel(network, avg_fn=_running_mean)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return State(network, average, optimiser)


def _running_mean(mean: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """Short at first, so that the untrained weights of the beginning are soon forgotten; then as EMA_DECAY says."""
    decay = min(EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    return torch.lerp(current, mean, decay)


def save_state(path: Path, state: State, recipe: Recipe) -> None:
    """Whole or not at all: a kill while it is written leaves the checkpoint before."""
    record = {name: getattr(state, name).state_dict() for name in _MODULES}
    record |= {name: getattr(state, name) for name in _NUMBERS} | {"recipe": json.dumps(record_of(recipe))}
    with whole_file(path) as aside:
        torch.save(record, aside)


def load_state(path: Path, state: State, device: str) -> None:
    """Fill ``state`` from a checkpoint."""
    record = torch.load(path, map_location=device, weights_only=True)
    for name in _MODULES:
        getattr(state, name).load_state_dict(record[name])
    for name in _NUMBERS:
        setattr(state, name, record[name])


def save_best(path: Path, state: State, recipe: Recipe, score: float | None) -> None:
    """The averaged network of this step, its score and the recipe."""
    record = {"average": state.average.state_dict(), "step": state.step, "score": score,
              "recipe": json.dumps(record_of(recipe))}
    with whole_file(path) as aside:
        torch.save(record, aside)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run has come to. weights: state of the network of ``build(recipe)``, float32. score: as in the log; None where
    it was not validated at that step."""

    recipe: Recipe
    weights: dict[str, torch.Tensor]
    step: int
    score: float | None


def load_trained(path: Path) -> Trained:
    """The averaged network of best.pt or last.pt. Raises ValueError when the file is no such checkpoint."""
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("module."): value for name, value in record["average"].items()
                   if name.startswith("module.")}
        recipe = recipe_of(json.loads(record["recipe"]))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; train first, or give the folder of a run") from None
    except Exception as error:  # what torch raises for a damaged file has no class in common
        raise ValueError(f"{path} cannot be read as a checkpoint of a training ({error})") from error
    return Trained(recipe, weights, record["step"], record.get("score"))


def train_step(state: State, recipe: Recipe, batches: Sequence[Batch], ranks: Ranks,
               network: torch.nn.Module | None = None) -> float:
    """One step of the optimiser on one batch for each stream of this process; returns the mean loss of these batches.

    network: ``state.network`` as ``ranks.wrap`` gave it. The gradient is the mean over all streams of all processes.
    """
    network, loss_of = network or state.network, make_loss(recipe.task, len(OUTPUTS[recipe.task]), ranks.device)
    state.optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for n, (image, target, known) in enumerate(batches):
        image = image.to(ranks.device).float().to(memory_format=torch.channels_last_3d)
        apart = ranks.world > 1 and n + 1 < len(batches)
        with network.no_sync() if apart else contextlib.nullcontext():
            with torch.autocast(ranks.kind, torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = network(image)
            loss = loss_of(logits, target.to(ranks.device), known.to(ranks.device)) / len(batches)
            loss.backward()
        total += float(loss.detach())
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, state.step)
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), LONGEST_GRADIENT)
    state.optimiser.step()
    state.average.update_parameters(state.network)
    state.step += 1
    return total
