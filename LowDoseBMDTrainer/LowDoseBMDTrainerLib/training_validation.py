"""How good a network is on what was held out, while it is trained: Dice by class, or the error of the levels in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LowDoseBMDLib import bones, keypoints
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.inference import STRIDE

from .datasets import MOST_VALIDATION_CASES, VALIDATION_SAMPLES, CaseSource, Samples, TrainingData
from .synthesis import normalise
from .training_cases import level_maps
from .training_losses import BODY_OR_POSTERIOR, SegmentationLoss, merge_unknown
from .training_recipe import OUTPUTS, Recipe

NOT_SCORED = frozenset({"background", "other bone", "disc"})
"""Classes that are learnt so that they are not taken for others; what is measured does not need them."""

OVERLAP = 0.25
"""Share of a window that it has in common with the next."""

VALIDATION_SEED = 1 << 30
"""Numbers of validation samples begin here, far behind those of training."""


@dataclass(frozen=True, eq=False)
class Held:
    """One volume to validate on. image: (1, 1, K, J, I) float32 normalised. target: (1, K, J, I) classes or (1, levels, K,
    J, I) heatmaps. known: (1, outputs) bool."""

    name: str
    image: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor


def held_volumes(recipe: Recipe, data: TrainingData) -> list[Held]:
    """Whole volumes of the annotated cases that are held out; else samples of the held-out label maps, else other samples of
    the training data. The same for the same recipe and data."""
    cases = [source.case for source in data.validation if isinstance(source, CaseSource)][:MOST_VALIDATION_CASES]
    held = []
    for case in cases:
        image = normalise(torch.from_numpy(case.hu.astype(np.float32)))[None, None]
        target = (level_maps(case.points_kji, case.hu.shape) if recipe.task == "keypoints"
                  else torch.from_numpy(case.target))
        held.append(Held(case.name, image, target[None], torch.from_numpy(case.known)[None]))
    if held:
        return held
    samples = Samples(recipe, data.validation or data.training, VALIDATION_SEED)
    for n in range(VALIDATION_SAMPLES):
        _, image, target, known = samples[n]
        held.append(Held(f"sample {n}", image[None].float(), target[None], known[None]))
    return held


def validate(network: torch.nn.Module, held: Sequence[Held], recipe: Recipe, loss_of: SegmentationLoss,
             device: str) -> dict[str, Any]:
    """loss, score, and dice by class or keypoint_mm by level, as a line of the log has them."""
    losses, score = [], _Points(recipe) if recipe.task == "keypoints" else _Overlap(recipe)
    network.eval()
    with torch.inference_mode():
        for volume in held:
            logits = predict(network, volume.image, recipe, device)
            target, known = volume.target.to(device), volume.known.to(device)
            losses.append(float(loss_of(logits, target, known)))
            score.add(logits, target, known)
    network.train()
    return {"loss": round(float(np.mean(losses)), 6), **score.result()}


def predict(network: torch.nn.Module, image: torch.Tensor, recipe: Recipe, device: str) -> torch.Tensor:
    """Logits (1, outputs, K, J, I) float32 of a volume, through windows as large as those that measuring looks through: most
    chests are seen whole."""
    from monai.inferers import sliding_window_inference

    largest = keypoints.MAX_TILE_KJI if recipe.task == "keypoints" else bones.MAX_TILE_KJI
    windows = tuple(min(m, -(-n // STRIDE) * STRIDE) for n, m in zip(image.shape[2:], largest, strict=True))
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16"):
        return sliding_window_inference(image.to(device), windows, 1, network, overlap=OVERLAP, mode="gaussian",
                                        cval=float(normalise(torch.tensor(-1e4)))).float()


class _Overlap:
    """Dice of each class over all voxels of the volumes in which it was drawn."""

    def __init__(self, recipe: Recipe) -> None:
        self.names = OUTPUTS[recipe.task]
        self.counts = np.zeros((3, len(self.names)))

    def add(self, logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> None:
        merged, _ = merge_unknown(logits, target[:, None].long(), known)
        found = merged.argmax(dim=1)
        told = target != BODY_OR_POSTERIOR if self.names == OUTPUTS["bodies"] else torch.ones_like(target, dtype=torch.bool)
        for n in range(1, len(self.names)):
            if bool(known[0, n]):
                a, b = (found == n) & told, (target == n) & told
                self.counts[:, n] += [int((a & b).sum()), int(a.sum()), int(b.sum())]

    def result(self) -> dict[str, Any]:
        both, found, there = self.counts
        dice = {name: round(float(2 * both[n] / (found[n] + there[n])), 4) for n, name in enumerate(self.names) if there[n]}
        scored = [value for name, value in dice.items() if name not in NOT_SCORED]
        return {"dice": dice, "score": round(float(np.mean(scored)), 4) if scored else None}


class _Points:
    """Mean distance in mm between the highest voxel of each level's heatmap and the level's place."""

    def __init__(self, recipe: Recipe) -> None:
        self.spacing_mm, self.errors = recipe.sample.spacing_mm, {}

    def add(self, logits: torch.Tensor, target: torch.Tensor, _known: torch.Tensor) -> None:
        for n, level in enumerate(OUTPUTS["keypoints"]):
            if float(target[0, n].max()) == 1.0:
                places = [np.array(np.unravel_index(int(values[0, n].argmax()), values.shape[2:])) for values in
                          (logits, target)]
                self.errors.setdefault(level, []).append(self.spacing_mm * float(np.linalg.norm(places[0] - places[1])))

    def result(self) -> dict[str, Any]:
        error = {level: round(float(np.mean(self.errors[level])), 2)
                 for level in OUTPUTS["keypoints"] if level in self.errors}
        scored = [error[level] for level in LEVELS if level in error] or list(error.values())
        return {"keypoint_mm": error, "score": round(-float(np.mean(scored)), 3) if scored else None}
