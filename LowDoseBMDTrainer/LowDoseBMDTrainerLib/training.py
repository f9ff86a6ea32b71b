"""Training of the two networks from synthetic CTs: resumable, seeded, on CPU or GPU."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .people import BONE_TARGETS, PARTS, Person
from .synthesis import KEYPOINT_LEVELS, TASKS, Task, anchors_of, draw_sample

log = logging.getLogger(__name__)

OUTPUTS: dict[str, tuple[str, ...]] = {
    "bones": BONE_TARGETS,
    "bodies": PARTS,
    "keypoints": KEYPOINT_LEVELS,
}
"""Names of the output channels of each network."""

EMA_DECAY = 0.995
"""The exported weights are a running mean over about 200 steps, which steadies short trainings."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on besides its people.

    pool: samples kept; each step takes the newest sample and one of the pool, so that the network does not wait
    for the generator. minutes: stop at this wall time even when steps are left (0: no limit); the learning rate
    then follows whichever is nearer to its end.
    """

    task: str
    steps: int = 4000
    batch: int = 2
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    seed: int = 1
    pool: int = 48
    minutes: float = 0.0
    res_units: int = 2


class Synthetic(torch.utils.data.IterableDataset):
    """Endless training pairs; each worker draws from its own stream of the seed."""

    def __init__(self, people: list[Person], task: Task, seed: int, weights: list[float] | None = None) -> None:
        self.people, self.task, self.seed = people, task, seed
        self.anchors = [anchors_of(person) for person in people]
        total = np.array(weights or [1.0] * len(people), float)
        self.weights = total / total.sum()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        torch.set_num_threads(1)
        while True:
            n = rng.choice(len(self.people), p=self.weights)
            image, target = draw_sample(rng, self.people[n], self.task, self.anchors[n])
            if self.task.target == "keypoints" or bool((target > 0).any()) or rng.random() < 0.1:
                yield image.half(), target.half() if target.is_floating_point() else target


def arguments(recipe: Recipe) -> dict[str, Any]:
    """Every argument of the network's builder, so that a bundle does not depend on defaults."""
    own = {"features": 8} if recipe.task == "keypoints" else {}
    return {"in_channels": 1, "out_channels": len(OUTPUTS[recipe.task]), "channels": (16, 32, 64, 128, 256),
            "res_units": recipe.res_units, **own}


def build(recipe: Recipe) -> torch.nn.Module:
    """The network of a recipe, freshly initialised from its seed."""
    from LowDoseBMDLib.networks.attention_unet import build_attention_unet
    from LowDoseBMDLib.networks.res_unet import build_res_unet

    torch.manual_seed(recipe.seed)
    make = build_attention_unet if recipe.task == "keypoints" else build_res_unet
    return make(**arguments(recipe))


def keypoint_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal cross entropy against soft heatmaps (as CenterNet's, arXiv 1904.07850); NaN targets teach nothing."""
    known = ~target.isnan()
    target = torch.nan_to_num(target)
    chance = torch.sigmoid(logits)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = (target - chance).abs() ** 2 + 4.0 * target**2 * (target - chance).abs()
    return (entropy * weight * known).sum() / (target.pow(2).sum() + 30.0)


def segmentation_loss(outputs: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Cross entropy plus Dice over the classes that are not background (MONAI)."""
    from monai.losses import DiceCELoss

    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-3,
                      smooth_dr=1e-3, weight=torch.tensor([0.5] + [1.0] * (outputs - 1)))


@dataclass
class _Run:
    """What a checkpoint holds besides the recipe."""

    network: torch.nn.Module
    average: torch.nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, recipe: Recipe) -> None:
        aside = path.with_suffix(".part")
        torch.save({"network": self.network.state_dict(), "average": self.average.state_dict(),
                    "optimiser": self.optimiser.state_dict(), "step": self.step, "seconds": self.seconds,
                    "recipe": json.dumps(asdict(recipe))}, aside)
        aside.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]


def _start(recipe: Recipe, device: str) -> _Run:
    network = build(recipe).to(device, memory_format=torch.channels_last_3d)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY))
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return _Run(network, average, optimiser)


def _rate(recipe: Recipe, done: float) -> float:
    """Learning rate after the fraction ``done``: short warm-up, then a half cosine down to 1 %."""
    warm = min(1.0, done / 0.02 + 0.05)
    return float(recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, done)))))


def train(recipe: Recipe, people: list[Person], checkpoint: Path, device: str = "cpu", workers: int = 1,
          weights: list[float] | None = None, report: Callable[[int, float, float], None] | None = None) -> _Run:
    """Train, or go on from ``checkpoint`` if it exists, and return the run whose ``average`` is the result.

    report(step, mean loss since the last call, seconds) is called every 50 steps; raise in it to stop (the last
    checkpoint stays). weights: how often each person is drawn.
    """
    run = _start(recipe, device)
    if checkpoint.is_file():
        run.load(checkpoint)
    task = TASKS[recipe.task]
    loss_of = keypoint_loss if task.target == "keypoints" else segmentation_loss(len(OUTPUTS[recipe.task]))
    data = Synthetic(people, task, recipe.seed + 1000 * run.step, weights)
    loader = iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=4))
    rng = np.random.default_rng([recipe.seed, run.step])
    pool: list[tuple[torch.Tensor, torch.Tensor]] = []
    started, losses = time.monotonic() - run.seconds, []
    while (done := _progress(recipe, run)) < 1.0:
        for group in run.optimiser.param_groups:
            group["lr"] = _rate(recipe, done)
        losses.append(_step(run, loss_of, _batch(recipe, loader, pool, rng), task, device))
        run.step, run.seconds = run.step + 1, time.monotonic() - started
        if run.step % 50 == 0:
            run.save(checkpoint, recipe)
            if report:
                report(run.step, float(np.mean(losses)), run.seconds)
            losses = []
    run.save(checkpoint, recipe)
    return run


def _progress(recipe: Recipe, run: _Run) -> float:
    spent = run.seconds / (60 * recipe.minutes) if recipe.minutes else 0.0
    return max(run.step / recipe.steps, spent)


def _batch(recipe: Recipe, loader: Iterator, pool: list, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    pool.append(next(loader))
    if len(pool) > recipe.pool:
        pool.pop(int(rng.integers(len(pool) - 1)))
    chosen = [pool[-1]] + [pool[int(rng.integers(len(pool)))] for _ in range(recipe.batch - 1)]
    return torch.stack([a for a, _ in chosen]), torch.stack([b for _, b in chosen])


def _step(run: _Run, loss_of: Callable, batch: tuple[torch.Tensor, torch.Tensor], task: Task, device: str) -> float:
    image, target = (part.to(device) for part in batch)
    target = target.float() if task.target == "keypoints" else target[:, None].long()
    image = image.float().to(memory_format=torch.channels_last_3d)
    with torch.autocast(device, torch.bfloat16):
        logits = run.network(image)
    loss = loss_of(logits.float(), target)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimiser.step()
    run.average.update_parameters(run.network)
    return float(loss.detach())
