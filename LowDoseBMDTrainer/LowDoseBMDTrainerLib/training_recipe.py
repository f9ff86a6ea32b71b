"""What a training run is to do: task, network, samples, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from LowDoseBMDLib.inference import STRIDE

from .people import BONE_TARGETS, PARTS
from .synthesis import KEYPOINT_LEVELS, TASKS, Task

OUTPUTS: dict[str, tuple[str, ...]] = {
    "bones": BONE_TARGETS,
    "bones_fine": BONE_TARGETS,
    "bodies": PARTS,
    "keypoints": KEYPOINT_LEVELS,
}
"""Names of the output channels of each network."""

FINE_TUNING_RATE = 3e-4
"""Learning rate from a trained network on: a fifth of that from scratch, so that what it knows is not washed out
(judgement)."""

WARM_UP = 0.02
"""Share of the steps over which the learning rate rises."""

LAST_RATE = 0.01
"""Share of the learning rate that is left at the last step."""

FOR_CHOICE = 3
"""Part of the seed for the choice among the pool, apart from those of datasets.py."""

LOG_POINTS, LOG_EVERY = 500, 20
"""A run writes about so many points of its curve, and one at least every so many steps."""

VALIDATIONS, VALIDATE_EVERY = 20, 250
"""A run is validated about so many times, and at least every so many steps."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on besides its data.

    steps: of the optimiser. minutes: what steps was reckoned from, on the machine where the run began (0: given as steps).
    streams, batch: every step takes ``batch`` samples of each stream; a process has one stream or more. fresh: samples of a
    stream's batch that are new at each step; the others are chosen among its ``pool`` newest ones, so that the network does
    not wait for the generator. folds, fold: patients whose number modulo ``folds`` is ``fold`` are held out (folds 0: none).
    validate_every: steps, 0 for about VALIDATIONS times. patience: validations without a better score after which the run
    ends. synthetic_share: of samples that are synthesised where there are annotated cases too. start: identity of the
    bundle that gave the first weights. precision: fp32, or bf16 for automatic mixed precision. shape_kji: sides of a sample
    in voxels, the task's own where it is empty. channels, res_units, features: of the network.
    """

    task: str
    steps: int = 4000
    batch: int = 2
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    seed: int = 1
    pool: int = 48
    minutes: float = 0.0
    res_units: int = 1
    streams: int = 1
    fresh: int = 1
    folds: int = 0
    fold: int = 0
    validate_every: int = 0
    patience: int = 10
    synthetic_share: float = 0.5
    start: str = ""
    precision: str = "fp32"
    deterministic: bool = False
    shape_kji: tuple[int, ...] = ()
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    features: int = 8

    def __post_init__(self) -> None:
        """Raises ValueError when the numbers do not fit together."""
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r}: use one of {', '.join(TASKS)}")
        if self.steps < 1 or self.batch < 1 or self.streams < 1 or self.pool < 1 or not 1 <= self.fresh <= self.batch:
            raise ValueError(f"steps {self.steps}, batch {self.batch}, streams {self.streams}, pool {self.pool}, fresh "
                             f"{self.fresh}: each is 1 at least, and fresh at most the batch")
        least = max(STRIDE, 2 ** len(self.channels))
        if any(n < least or n % STRIDE for n in self.shape_kji) or len(self.shape_kji) not in (0, 3):
            raise ValueError(f"a sample of {self.shape_kji} voxels: its three sides are multiples of {STRIDE}, of "
                             f"{least} at least")
        if self.folds and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}: folds are counted from 0 to {self.folds - 1}")

    @property
    def sample(self) -> Task:
        """Grid and target of a sample."""
        task = TASKS[self.task]
        return replace(task, shape_kji=tuple(self.shape_kji)) if self.shape_kji else task

    @property
    def log_every(self) -> int:
        """Steps between two points of the curve."""
        return min(LOG_EVERY, max(1, self.steps // LOG_POINTS))

    @property
    def validation_every(self) -> int:
        """Steps between two validations."""
        return self.validate_every or min(VALIDATE_EVERY, max(1, self.steps // VALIDATIONS))


def recipe_of(record: Mapping[str, Any]) -> Recipe:
    """The recipe of a JSON object; fields of other versions are passed over."""
    known = {field.name for field in fields(Recipe)}
    return Recipe(**{name: tuple(value) if isinstance(value, list) else value
                     for name, value in record.items() if name in known})


def record_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a JSON object."""
    return asdict(recipe)


def arguments(recipe: Recipe) -> dict[str, Any]:
    """Every argument of the network's builder, so that a bundle does not depend on defaults."""
    own = {"features": recipe.features} if recipe.task == "keypoints" else {}
    return {"in_channels": 1, "out_channels": len(OUTPUTS[recipe.task]), "channels": tuple(recipe.channels),
            "res_units": recipe.res_units, **own}


def build(recipe: Recipe) -> torch.nn.Module:
    """The network of a recipe, freshly initialised from its seed."""
    from LowDoseBMDLib.networks.attention_unet import build_attention_unet
    from LowDoseBMDLib.networks.res_unet import build_res_unet

    torch.manual_seed(recipe.seed)
    make = build_attention_unet if recipe.task == "keypoints" else build_res_unet
    return make(**arguments(recipe))


def learning_rate(recipe: Recipe, step: int) -> float:
    """Of one step, counted from 0: a short rise, then half a cosine down to LAST_RATE. It depends on the step alone."""
    done = step / recipe.steps
    rise = min(1.0, done / WARM_UP + 0.05)
    return float(recipe.learning_rate * rise * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + np.cos(np.pi * done))))


def chosen_samples(recipe: Recipe, step: int, stream: int) -> list[int]:
    """Numbers of the samples that one stream gives at a step: its new ones, then some of its pool.

    They depend on the recipe and the step alone. Streams share no sample.
    """
    newest = (step + 1) * recipe.fresh
    rng = np.random.default_rng([recipe.seed, FOR_CHOICE, step, stream])
    old = rng.integers(max(0, newest - recipe.pool), newest, recipe.batch - recipe.fresh)
    own = [*range(newest - recipe.fresh, newest), *(int(n) for n in old)]
    return [n * recipe.streams + stream for n in own]
