"""Where in the person each voxel of a sample looks: pose, curvature of the spine, changed number of vertebrae, fractures.

A place is carried through three frames, all in the person's voxels: of the varied person (before ``renumber``), of its
bones, and of its soft tissue, which slides and is scaled against the skeleton.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .synthesis_anatomy import Anatomy, Fracture, lumbar_shift
from .synthesis_fields import Chance, Grid
from .synthesis_subject import Subject

TILT_REACH_MM = 40.0
"""A bend tilts the vertebrae; the trunk beyond this distance from the spine no further (judgement)."""

SPINE_MM = (30.0, 50.0)
"""Soft tissue moves with the bones within the first distance from the spine's line, freely beyond the second."""

ORGANS_MM = 70.0
"""Organs are stretched along the body by up to this half length round the middle of the sample (judgement)."""

CUT_SLOPE, CUT_STARTS_MM = 0.45, 15.0
"""Between two lumbar vertebrae the cut runs down behind the body, below the joints and the spinous process."""

RUN_OUT_MM = 200.0
"""Over this length soft tissue makes up for a vertebra more or less."""

CUT_REACH_MM = (70.0, 100.0)
"""The cut is sharp within the first distance from the spine's line; ribs and hips beyond the second run out as soft tissue
does."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Places (3, K, J, I) in the person's voxels k, j, i. varied: in which true_centres are. bones, soft: what is there."""

    varied: torch.Tensor
    bones: torch.Tensor
    soft: torch.Tensor


def draw_pose(chance: Chance, subject: Subject, anatomy: Anatomy, grid: Grid, centre_kji: np.ndarray,
              upright: bool = False) -> Pose:
    """Place a sample about centre_kji of the person.

    Scale 0.75-1.3 and 0.88-1.14 per axis, rotation with an SD of 5 degrees about each axis (rarely 12), bends of
    the spine with an SD of 8 mm, elastic deformation 7 / 2.5 / 0.8 mm SD at 130 / 55 / 26 mm, mirrored left-right
    in one of two. upright: turned and scaled less, as a whole scan is.
    """
    axes = [torch.arange(n, dtype=torch.float32, device=subject.device) - (n - 1) / 2 for n in grid.shape_kji]
    axes = [axis * s for axis, s in zip(axes, grid.spacing_kji_mm, strict=True)]
    mm = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    zoom = (_zoom(chance, 0.85, 1.15, 0.94, 1.06) if upright else _zoom(chance, 0.75, 1.3, 0.88, 1.14))
    if chance.happens(0.5):
        zoom[2] = -zoom[2]
    degrees = 3.0 if upright else 12.0 if chance.happens(0.15) else 5.0
    matrix = torch.from_numpy((_rotation(chance, degrees) / zoom).astype(np.float32)).to(subject.device)
    place = torch.einsum("ab,bkji->akji", matrix, mm)
    for period, sd in ((130.0, 7.0), (55.0, 2.5), (26.0, 0.8)):
        place += sd * chance.field(grid, period, 3)
    column = Grid((grid.shape_kji[0], 2, 2), grid.spacing_kji_mm)
    place[1:] += 8.0 * chance.field(column, 110.0, 2)[:, :, :1, :1]
    middle = torch.from_numpy(centre_kji.astype(np.float32)).to(subject.device).reshape(3, 1, 1, 1)
    place = place / subject.spacing_mm + middle
    bend(subject, anatomy, place)
    return _carried(chance, subject, anatomy, grid, place)


def _zoom(chance: Chance, low: float, high: float, axis_low: float, axis_high: float) -> np.ndarray:
    return chance.uniform(low, high) * chance.rng.uniform(axis_low, axis_high, 3)


def _rotation(chance: Chance, degrees: float) -> np.ndarray:
    matrix = np.eye(3)
    for axis in range(3):
        angle = np.deg2rad(chance.rng.normal(0, degrees))
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def bend(subject: Subject, anatomy: Anatomy, place: torch.Tensor) -> None:
    """Scoliosis, kyphosis and lifted shoulders, in place; vertebrae stay square to the bent spine."""
    step = subject.spacing_mm
    wave = 2 * np.pi / anatomy.period_mm * step
    phase = place[0] * wave + anatomy.phase
    aside = anatomy.scoliosis_mm * torch.sin(phase)
    tilt = anatomy.scoliosis_mm * wave / step * torch.cos(phase)
    shift = torch.zeros_like(place)
    ahead, left = _from_spine(subject, place)
    shift[2] -= aside
    shift[0] += tilt * TILT_REACH_MM * torch.tanh((left - aside) / TILT_REACH_MM)
    if "T7" in subject.centres or "T10" in subject.centres:
        top = subject.centres.get("T7", subject.centres.get("T10"))[0]
        up = (place[0] - top) * step
        bulge = anatomy.hunch_mm * torch.exp(-((up / 130.0) ** 2))
        shift[1] -= bulge
        shift[0] -= 2 * up / 130.0**2 * bulge * TILT_REACH_MM * torch.tanh(ahead / TILT_REACH_MM)
    if "T6" in subject.centres:
        up = (place[0] - subject.centres["T6"][0]) * step
        shift[0] -= anatomy.shoulder_mm * ((left.abs() - 75.0) / 60.0).clamp(0, 1) * (up / 80.0).clamp(0, 1)
    place += shift / step


def _from_spine(subject: Subject, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mm behind, mm to the left) of the spine's line."""
    slices = place[0].round().long().clamp(0, len(subject.spine_ji) - 1)
    line = subject.spine_ji[slices]
    return (place[1] - line[..., 0]) * subject.spacing_mm, (place[2] - line[..., 1]) * subject.spacing_mm


def _carried(chance: Chance, subject: Subject, anatomy: Anatomy, grid: Grid, varied: torch.Tensor) -> Pose:
    """The places of bones and of soft tissue."""
    sharp, smooth = varied, varied
    if anatomy.lumbar != 5:
        sharp, smooth = renumber(subject, anatomy, varied)
    bones = sharp.clone()
    for level, fracture in anatomy.fractures.items():
        collapse(subject, level, fracture, bones)
    far = smooth + _organ_shift(chance, subject, grid)
    behind, left = _from_spine(subject, bones)
    near = ((SPINE_MM[1] - (behind**2 + left**2).sqrt()) / (SPINE_MM[1] - SPINE_MM[0])).clamp(0, 1)
    return Pose(varied, bones, far + near * (bones - far))


def _organ_shift(chance: Chance, subject: Subject, grid: Grid) -> torch.Tensor:
    """(3, K, J, I) voxels: organs slide and are stretched against the skeleton, most along the body, so that they name no
    level."""
    shift = chance.field(grid, 200.0, 3)
    shift *= shift.new_tensor([14.0, 2.5, 2.5]).reshape(3, 1, 1, 1) * chance.uniform(0, 1)
    up = (torch.arange(grid.shape_kji[0], device=subject.device) - grid.shape_kji[0] / 2) * grid.spacing_kji_mm[0]
    shift[0] += chance.uniform(-0.25, 0.25) * ORGANS_MM * torch.tanh(up / ORGANS_MM)[:, None, None]
    return shift / subject.spacing_mm


def renumber(subject: Subject, anatomy: Anatomy, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(places with a sharp cut, places that run out smoothly) for a lumbar vertebra less or more."""
    known = subject.centres
    order = list(known)
    at = order.index(anatomy.changed_at)
    here, below = known[order[at]], known[order[at + 1]]
    axis = (here - below) / np.linalg.norm(here - below)
    middle = (here + below) / 2
    up = sum((place[a] - float(middle[a])) * float(axis[a]) for a in range(3)) * subject.spacing_mm
    behind = (place[1] - float(middle[1])) * subject.spacing_mm
    under = up < -CUT_SLOPE * (behind - CUT_STARTS_MM).clamp(0, 50)
    shift = torch.from_numpy(lumbar_shift(subject, anatomy).astype(np.float32)).to(place.device).reshape(3, 1, 1, 1)
    smooth = (0.5 - up / RUN_OUT_MM).clamp(0, 1)
    near = ((CUT_REACH_MM[1] - _from_spine(subject, place)[1].abs()) / (CUT_REACH_MM[1] - CUT_REACH_MM[0])).clamp(0, 1)
    return place + shift * (near * under + (1 - near) * smooth), place + shift * smooth


def collapse(subject: Subject, level: str, fracture: Fracture, place: torch.Tensor) -> None:
    """Lower one body, in place: its own height is lost to the discs beside it."""
    order = list(subject.centres)
    n, centre, spacing = order.index(level), subject.centres[level], subject.spacing_mm
    ends = subject.centres[order[max(0, n - 1)]], subject.centres[order[min(len(order) - 1, n + 1)]]
    axis = ends[0] - ends[1]
    length = np.linalg.norm(axis)
    period = length * spacing / (min(len(order) - 1, n + 1) - max(0, n - 1))
    apart = place - place.new_tensor(centre).reshape(3, 1, 1, 1)
    where = (apart.abs().amax(0) * spacing < 45.0).nonzero(as_tuple=True)
    if not len(where[0]):
        return
    here = torch.stack([apart[a][where] for a in range(3)]) * spacing
    direction = place.new_tensor(axis / length)
    up = (here * direction[:, None]).sum(0)
    loss = fracture.loss * _profile(fracture, here)
    if fracture.upper:
        loss = loss * (up > 0)
    moved = _squeezed(up, loss, 0.39 * period, 0.6 * period)
    for a in range(3):
        place[a][where] += (moved - up) * direction[a] / spacing


def _profile(fracture: Fracture, here: torch.Tensor) -> torch.Tensor:
    """(N,) how much of the loss there is at mm (3, N) from the centre; none at the pedicles."""
    _, behind, left = here
    edge = ((34.0 - left.abs()) / 8.0).clamp(0, 1) * ((24.0 - (behind + 8.0).abs()) / 8.0).clamp(0, 1)
    if fracture.shape == "wedge":
        return edge * (0.5 - behind / 28.0).clamp(0, 1)
    if fracture.shape == "biconcave":
        return edge * torch.exp(-(behind**2 + left**2) / 14.0**2)
    return edge


def _squeezed(up: torch.Tensor, loss: torch.Tensor, half_mm: float, next_mm: float) -> torch.Tensor:
    """Where along the axis (mm from the centre) to look so that a body of +- half_mm loses a share of its height; as it is
    beyond next_mm, where the neighbour begins."""
    away = up.abs()
    edge = half_mm * (1 - loss)
    inside = away / (1 - loss)
    between = half_mm + (away - edge) * (next_mm - half_mm) / (next_mm - edge)
    looked = torch.where(away < edge, inside, torch.where(away < next_mm, between, away))
    return looked * up.sign()
