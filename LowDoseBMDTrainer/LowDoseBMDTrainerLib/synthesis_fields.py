"""What the synthesis draws with: random fields, resampling and smoothing, on whatever device the arrays lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional

Box = tuple[slice, slice, slice]

AIR_HU = -1000.0


@dataclass(frozen=True)
class Grid:
    """The voxels of a sample: how many along k, j, i, and their sides in mm."""

    shape_kji: tuple[int, int, int]
    spacing_kji_mm: tuple[float, float, float]


class Chance:
    """The random numbers of one sample: single ones from numpy's generator, whole fields from torch's on the device.

    The same generator gives the same sample on one kind of device.
    """

    def __init__(self, rng: np.random.Generator, device: torch.device | str = "cpu") -> None:
        self.rng, self.device = rng, torch.device(device)
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(int(rng.integers(2**62)))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def happens(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def field(self, grid: Grid, period_mm: float, channels: int = 1) -> torch.Tensor:
        """(channels, K, J, I) standard normal values on nodes period_mm apart, interpolated in between."""
        sides_mm = np.multiply(grid.shape_kji, grid.spacing_kji_mm)
        nodes = [max(2, int(np.ceil(side / period_mm)) + 1) for side in sides_mm]
        values = self.normal(1, channels, *nodes)
        return functional.interpolate(values, size=grid.shape_kji, mode="trilinear", align_corners=True)[0]

    def field_at(self, place: torch.Tensor, spacing_mm: float, period_mm: float) -> torch.Tensor:
        """(N,) the same kind of field at places (N, 3), in voxels of spacing_mm."""
        if not len(place):
            return torch.zeros(0, device=self.device)
        unit = (place - place.amin(0)) * (spacing_mm / period_mm)
        size = [int(n) + 2 for n in unit.amax(0)]
        values = self.normal(1, 1, *size)
        unit = (unit / (torch.tensor(size, device=self.device) - 1) * 2 - 1).flip(1)
        return functional.grid_sample(values, unit[None, None, None], align_corners=True)[0, 0, 0, 0]


def box_of(place: torch.Tensor, shape: Sequence[int], margin: int = 2) -> Box | None:
    """The part of an array of this shape that holds the places (3, ...); None when it is too thin to interpolate in."""
    ends = torch.stack([place.flatten(1).amin(1).floor() - margin, place.flatten(1).amax(1).ceil() + margin + 1]).tolist()
    box = tuple(slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(*ends, shape, strict=True))
    return None if any(s.stop - s.start < 2 for s in box) else box


def starts(box: Box, device: torch.device) -> torch.Tensor:
    """(3, 1, 1, 1) float32, the first voxel of a box."""
    return torch.tensor([s.start for s in box], dtype=torch.float32, device=device).reshape(3, 1, 1, 1)


def sample_linear(channels: torch.Tensor, place: torch.Tensor, box: Box) -> torch.Tensor:
    """channels (C, k, j, i) inside ``box``, read at place (3, K, J, I); zero beyond."""
    size = torch.tensor(channels.shape[1:], dtype=torch.float32, device=place.device).reshape(3, 1, 1, 1)
    unit = ((place - starts(box, place.device)) / (size - 1) * 2 - 1).flip(0).permute(1, 2, 3, 0)
    return functional.grid_sample(channels[None], unit[None], mode="bilinear", padding_mode="zeros",
                                  align_corners=True)[0]


def sample_nearest(array: torch.Tensor, place: torch.Tensor, box: Box) -> torch.Tensor:
    """array (k, j, i) inside ``box``, the nearest voxel at place (3, K, J, I); zero beyond."""
    index = (place - starts(box, place.device) + 0.5).floor().int()
    size = torch.tensor(array.shape, dtype=torch.int32, device=place.device).reshape(3, 1, 1, 1)
    valid = ((index >= 0) & (index < size)).all(0)
    k, j, i = torch.minimum(index.clamp(min=0), size - 1)
    values = torch.take(array, ((k * array.shape[1] + j) * array.shape[2] + i).long())
    return values.masked_fill(~valid, 0)


def blur(hu: torch.Tensor, sigma_voxels: tuple[float, float, float]) -> torch.Tensor:
    """A Gaussian along each axis of (K, J, I); edges are continued.

    Shifted copies are added: for so few taps that is faster on a CPU than a convolution.
    """
    for axis, sigma in enumerate(sigma_voxels):
        if sigma < 0.15:
            continue
        radius, size = int(np.ceil(2.5 * sigma)), hu.shape[axis]
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        first, last = hu.narrow(axis, 0, 1), hu.narrow(axis, size - 1, 1)
        padded = torch.cat([first] * radius + [hu] + [last] * radius, dim=axis)
        hu = torch.zeros_like(hu)
        for n, tap in enumerate(taps / taps.sum()):
            hu.add_(padded.narrow(axis, n, size), alpha=float(tap))
    return hu
