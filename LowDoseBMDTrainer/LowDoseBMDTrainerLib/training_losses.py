"""What the networks are punished for. Nothing that a case does not say is taught as false."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from .people import PARTS

HIDDEN = -1e4
"""Logit of a class that cannot be told from another in this sample: its chance is zero in single precision."""

BODY_OR_POSTERIOR = len(PARTS)
"""Target value of the body network where a vertebra is drawn and nobody said which part of it."""

BACKGROUND_WEIGHT = 0.5
"""Weight of background in the cross entropy: most of a sample is background, and easy (judgement)."""

SegmentationLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def keypoint_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal cross entropy against soft heatmaps (as CenterNet's, arXiv 1904.07850); NaN targets teach nothing."""
    known = ~target.isnan()
    target = torch.nan_to_num(target)
    chance = torch.sigmoid(logits)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = (target - chance).abs() ** 2 + 4.0 * target**2 * (target - chance).abs()
    return (entropy * weight * known).sum() / (target.pow(2).sum() + 30.0)


def merge_unknown(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and target in which classes that a sample does not tell apart are one.

    logits: (N, C, K, J, I). target: (N, 1, K, J, I) integers. known: (N, C) bool. In a sample whose class c is not known, a
    voxel without a label may be background or c: the chances of the two are added (log-sum-exp) under background and c has
    none, so that the loss is that of the marginal probability. Where the target is BODY_OR_POSTERIOR the two parts are
    added under the second.
    """
    if not bool(known.all()):
        logits = torch.cat([_one_background(logits[n:n + 1], known[n]) for n in range(len(logits))])
    either = target == BODY_OR_POSTERIOR
    if logits.shape[1] == len(PARTS) and bool(either.any()):
        body, posterior = PARTS.index("vertebral body"), PARTS.index("posterior elements")
        channels = list(logits.split(1, dim=1))
        both = torch.logaddexp(channels[body], channels[posterior])
        channels[posterior] = torch.where(either, both, channels[posterior])
        channels[body] = channels[body].masked_fill(either, HIDDEN)
        logits, target = torch.cat(channels, dim=1), torch.where(either, posterior, target)
    return logits, target


def _one_background(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, K, J, I) with every class that is not known (C,) under background."""
    channels = list(logits.split(1, dim=1))
    for n in torch.nonzero(~known).flatten().tolist():
        channels[0] = torch.logaddexp(channels[0], channels[n])
        channels[n] = torch.full_like(channels[n], HIDDEN)
    return torch.cat(channels, dim=1)


def segmentation_loss(outputs: int) -> torch.nn.Module:
    """Cross entropy plus Dice over the classes that are not background (MONAI), of logits (N, outputs, K, J, I) and target
    (N, 1, K, J, I)."""
    from monai.losses import DiceCELoss

    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-3,
                      smooth_dr=1e-3, weight=torch.tensor([BACKGROUND_WEIGHT] + [1.0] * (outputs - 1)))


@lru_cache(maxsize=4)
def make_loss(task: str, outputs: int, device: str) -> SegmentationLoss:
    """loss(logits, target, known) of a task; float32. Target: (N, K, J, I) classes, or (N, outputs, K, J, I) heatmaps."""
    if task == "keypoints":
        return lambda logits, target, _known: keypoint_loss(logits.float(), target.float())
    whole = segmentation_loss(outputs).to(device)

    def loss(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return whole(*merge_unknown(logits.float(), target[:, None].long(), known))

    return loss
