"""Synthetic CTs from label maps of people: what the first networks are trained on.

One sample is drawn in five steps, on torch tensors on the device of its subject, without a file in the loop: what its
anatomy has of its own (synthesis_anatomy), a pose that says where in the person each target voxel looks (synthesis_pose),
HU of tissues and bones near there (synthesis_tissue), scanner effects (synthesis_scanner), and the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .people import bone_targets
from .synthesis_anatomy import draw_anatomy, true_centres
from .synthesis_fields import AIR_HU, Chance, Grid
from .synthesis_pose import draw_pose
from .synthesis_scanner import scan
from .synthesis_subject import Subject
from .synthesis_tissue import draw_ct

CLIP_HU, SCALE_HU = (AIR_HU, 1500.0), 500.0
"""Network input is clip(HU) / scale; a bundle carries both, so that inference does the same."""

KEYPOINT_LEVELS: tuple[str, ...] = (*(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6)))
"""Channels of the keypoint network: all that can be counted from the first rib down or from the sacrum up, so that a
scan that shows one end only names its levels too."""

HEATMAP_SD_VOXELS = 1.6

REAL_SHARE = 0.5
"""Of the samples of a person with a CT, so many show it."""


@dataclass(frozen=True)
class Task:
    """What one network sees: grid of a sample and which target is drawn.

    target: bones (class map), parts (people.PARTS) or keypoints (heatmaps).
    """

    target: str
    spacing_mm: float
    shape_kji: tuple[int, int, int]

    @property
    def grid(self) -> Grid:
        return Grid(tuple(self.shape_kji), (self.spacing_mm,) * 3)


TASKS: dict[str, Task] = {
    "bones": Task("bones", 3.0, (96, 96, 96)),
    "bones_fine": Task("bones", 1.5, (96, 96, 96)),
    "bodies": Task("parts", 1.5, (96, 80, 80)),
    "keypoints": Task("keypoints", 5.0, (80, 48, 80)),
}


def peak_map(shape: tuple[int, int, int], peak: tuple[int, int, int], device: torch.device | str = "cpu") -> torch.Tensor:
    """(K, J, I) float32 Gaussian of HEATMAP_SD_VOXELS, 1 at the voxel ``peak``."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) - p for n, p in zip(shape, peak, strict=True)]
    k, j, i = (torch.exp(-0.5 * axis**2 / HEATMAP_SD_VOXELS**2) for axis in axes)
    return k[:, None, None] * j[:, None] * i


def heatmaps(centres: Mapping[str, np.ndarray | None], place: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(len(KEYPOINT_LEVELS), K, J, I) Gaussians at the body centres that lie in the scan.

    centres: voxels k, j, i by level; None where there is no such vertebra. NaN when the person's label map does not tell, so
    that nothing is taught there. place: (3, K, J, I) in the same voxels. seen: bool (K, J, I).
    """
    shape = tuple(place.shape[1:])
    maps = torch.zeros(len(KEYPOINT_LEVELS), *shape, device=place.device)
    for channel, level in enumerate(KEYPOINT_LEVELS):
        if level not in centres:
            maps[channel] = torch.nan
        elif centres[level] is not None and (peak := nearest_voxel(centres[level], place)) is not None and bool(seen[peak]):
            maps[channel] = peak_map(shape, peak, place.device)
    return maps


def nearest_voxel(centre: np.ndarray, place: torch.Tensor) -> tuple[int, int, int] | None:
    """The voxel that looks at a place of the person; None when none looks within three of its voxels."""
    squared = sum((place[a] - float(centre[a])) ** 2 for a in range(3))
    flat = int(squared.argmin())
    if float(squared.flatten()[flat]) > 9.0:
        return None
    return tuple(int(n) for n in np.unravel_index(flat, squared.shape))


def _choose_centre(chance: Chance, subject: Subject, task: Task) -> np.ndarray:
    """A place (k, j, i voxels) to centre a sample on: bones by class, or the spine."""
    rng, person, anchors = chance.rng, subject.person, subject.anchors
    if task.target == "bones" and anchors and rng.random() < 0.7:
        points = anchors[rng.choice(list(anchors))]
        return points[rng.integers(len(points))] + rng.normal(0, 28, 3) / person.spacing_mm
    levels = list(person.centres_kji)
    if task.target == "parts":
        low = [n for n in levels if n in ("T10", "T11", "T12", "L1", "L2", "L3")]
        pool = low if low and rng.random() < 0.7 else levels
        return np.array(person.centres_kji[pool[rng.integers(len(pool))]]) + rng.normal(0, 14, 3) / person.spacing_mm
    shape = np.array(person.bone.shape)
    centre = np.array([rng.uniform(0, 1), 0.5, 0.5]) * shape
    if task.target == "keypoints" and rng.random() < 0.75:
        centre[0] = person.centres_kji[levels[rng.integers(len(levels))]][0] + rng.normal(0, 60) / person.spacing_mm
    return centre + rng.normal(0, 1, 3) * np.array([0, 18, 25]) / person.spacing_mm


def normalise(hu: torch.Tensor) -> torch.Tensor:
    """Network input from HU."""
    return hu.clamp(*CLIP_HU) / SCALE_HU


def draw_sample(rng: np.random.Generator, subject: Subject, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """One training pair on the subject's device: image (1, K, J, I) float32 normalised, target (K, J, I) uint8 or heatmaps
    float32."""
    chance = Chance(rng, subject.device)
    real = subject.hu is not None and chance.happens(REAL_SHARE)
    anatomy = draw_anatomy(chance, subject, organs=not real)
    pose = draw_pose(chance, subject, anatomy, task.grid, _choose_centre(chance, subject, task))
    hu, bone, part = draw_ct(chance, subject, anatomy, task.grid, pose, real)
    hu, seen = scan(chance, hu, task.grid)
    image = normalise(hu)[None]
    if task.target == "keypoints":
        return image, heatmaps(true_centres(subject, anatomy), pose.varied, seen)
    target = torch.from_numpy(bone_targets()).to(bone.device)[bone.int()] if task.target == "bones" else part
    return image, target.masked_fill(~seen, 0)
