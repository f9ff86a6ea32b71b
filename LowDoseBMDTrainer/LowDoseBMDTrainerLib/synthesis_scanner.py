"""What the scanner does to HU: slice thickness, kernel, noise, streaks, couch, field of view, scan range."""

from __future__ import annotations

import numpy as np
import torch

from .synthesis_fields import AIR_HU, Chance, Grid, blur

STREAK_REACH_MM = 90.0
"""Streaks of metal fade over this distance (judgement)."""

METAL_SEEN_HU = 2200.0
"""What is denser than any bone makes streaks."""


def scan(chance: Chance, hu: torch.Tensor, grid: Grid, cropped: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Scanner effects on HU (K, J, I). Returns the HU and the bool mask of what lies in the scan.

    cropped: the scan may end anywhere in the sample, and its field of view may be small.
    """
    _add_couch(chance, hu, grid.spacing_kji_mm[1])
    hu = _add_streaks(chance, hu, grid)
    slice_sigma = chance.uniform(1, 7) / 2.355 / grid.spacing_kji_mm[0] if chance.happens(0.7) else 0.0
    plane_sigma = chance.uniform(0, 0.6)
    hu = blur(hu, (slice_sigma, plane_sigma, plane_sigma))
    hu = _add_noise(chance, hu)
    if chance.happens(0.3):
        hu = hu + chance.uniform(0.2, 0.9) * (hu - blur(hu, (0, 0.8, 0.8)))
    hu = hu * chance.uniform(0.97, 1.03) + chance.uniform(-15, 15)
    seen = _field_of_view(chance, hu) if cropped else torch.ones(hu.shape, dtype=torch.bool, device=hu.device)
    return hu.masked_fill(~seen, AIR_HU), seen


def _add_couch(chance: Chance, hu: torch.Tensor, spacing_mm: float) -> None:
    """A shell with foam behind the patient, flat or curved."""
    behind = torch.nonzero((hu > -300).any(0).any(1))
    if chance.happens(0.25) or behind.numel() == 0:
        return
    _, depth, width = hu.shape
    across = (torch.arange(width, device=hu.device) - width * chance.uniform(0.4, 0.6)) * spacing_mm
    top = int(behind.max()) * spacing_mm + chance.uniform(-6, 12)
    surface = top - chance.uniform(0, 0.0008) * across**2
    below = (torch.arange(depth, device=hu.device) * spacing_mm)[:, None] - surface[None]
    wide = (across.abs() < chance.uniform(180, 260))[None]
    air = hu < -300
    shell = chance.uniform(1.5, 5.0)
    height = chance.uniform(20, 60)
    foam = wide & (below > 0) & (below < height)
    hu[air & foam[None]] = chance.uniform(-990, -800)
    hard = wide & (((below > 0) & (below < shell)) | ((below > height - shell) & (below < height)))
    hu[air & hard[None]] = chance.uniform(-400, 350)


def _add_streaks(chance: Chance, hu: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Bright and dark rays round metal, in the slices that hold it."""
    metal = hu > METAL_SEEN_HU
    amount = metal.flatten(1).sum(1)
    if not bool(amount.any()):
        return hu
    _, j, i = metal.nonzero(as_tuple=True)
    behind = (torch.arange(hu.shape[1], device=hu.device) - j.float().mean()) * grid.spacing_kji_mm[1]
    left = (torch.arange(hu.shape[2], device=hu.device) - i.float().mean()) * grid.spacing_kji_mm[2]
    angle = torch.atan2(behind[:, None], left[None])
    rays = sum(torch.cos(n * angle + chance.uniform(0, 2 * np.pi)) for n in (2, 3, 5, 8, 13))
    rays = rays * torch.exp(-(behind[:, None] ** 2 + left[None] ** 2).sqrt() / STREAK_REACH_MM)
    strength = chance.uniform(20, 250) * (amount / amount.max()).sqrt()
    return hu + strength[:, None, None] * rays * (hu > -950)


def _add_noise(chance: Chance, hu: torch.Tensor) -> torch.Tensor:
    sd = float(np.exp(chance.uniform(np.log(3), np.log(55))))
    noise = chance.normal(*hu.shape)
    sigma = chance.uniform(0, 0.9)
    if sigma > 0.2:
        noise = blur(noise, (0.3 * sigma, sigma, sigma))
        noise /= noise.std()
    hu = hu + sd * noise * (hu > -950)
    if chance.happens(0.3):
        hu = hu + chance.uniform(0, 30) * chance.normal(*hu.shape[:2], 1) * (hu > -600)
    return hu


def _field_of_view(chance: Chance, hu: torch.Tensor) -> torch.Tensor:
    slices, depth, width = hu.shape
    seen = torch.ones(hu.shape, dtype=torch.bool, device=hu.device)
    if chance.happens(0.4):
        seen[: int(chance.uniform(0.0, 0.6) * slices)] = False
    if chance.happens(0.25):
        seen[slices - int(chance.uniform(0.0, 0.5) * slices):] = False
    if chance.happens(0.3):
        y = torch.arange(depth, device=hu.device)[:, None] - depth * chance.uniform(0.4, 0.6)
        x = torch.arange(width, device=hu.device)[None] - width * chance.uniform(0.4, 0.6)
        seen &= ((y**2 + x**2).sqrt() < width * chance.uniform(0.4, 0.75))[None]
    return seen
