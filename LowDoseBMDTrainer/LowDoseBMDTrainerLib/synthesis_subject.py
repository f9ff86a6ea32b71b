"""A person on the device where its CTs are drawn, with what every sample looks up in it found once."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from .people import BONE_PARTS, PARTS, Person, bone_targets

RIM_MM = 7.0
"""Osteophytes grow within this distance of a body's rim: larger ones are rare."""

RIM_BEHIND_MM = 6.0
"""No osteophyte lies further behind a body's centre: the canal begins there."""

LAST_RIBS = 6
"""The twelfth ribs among the anchors: they name the levels and are easily missed, so they count as a class of their own."""


@dataclass(frozen=True, eq=False)
class Rib:
    """The twelfth rib of one side. index: (N, 3) voxels k, j, i. depth_mm: (N,). reach_mm: (N,) distance to the side of the
    vertebra's centre. tip: (3,) unit vector along which it ends, k, j, i."""

    index: torch.Tensor
    depth_mm: torch.Tensor
    reach_mm: torch.Tensor
    tip: torch.Tensor


@dataclass(frozen=True, eq=False)
class Rims:
    """Where osteophytes may grow. index: (N, 3) voxels. bone: (N,) uint8, part of the vertebra beside it. body_mm, disc_mm:
    (N,) distance from the body and from the disc."""

    index: torch.Tensor
    bone: torch.Tensor
    body_mm: torch.Tensor
    disc_mm: torch.Tensor


@dataclass(frozen=True, eq=False)
class Subject:
    """A person's arrays as tensors (k, j, i), and what is found in them once.

    spine_ji: (K, 2) float32, where the spine runs, for each slice. half_width_mm: of the trunk. anchors: for each bone class
    voxel places (N, 3) to centre samples on. ribs: the twelfth ones, none where they are not labelled.
    """

    person: Person
    tissue: torch.Tensor
    bone: torch.Tensor
    depth_mm: torch.Tensor
    inside_mm: torch.Tensor
    outside_mm: torch.Tensor
    part: torch.Tensor
    hu: torch.Tensor | None
    spine_ji: torch.Tensor
    half_width_mm: float
    anchors: dict[int, np.ndarray]
    ribs: tuple[Rib, ...]
    rims: Rims

    def to(self, device: torch.device | str) -> Subject:
        """The same subject on another device."""
        return _moved(self, torch.device(device))

    @property
    def device(self) -> torch.device:
        return self.bone.device

    @property
    def spacing_mm(self) -> float:
        return self.person.spacing_mm

    @property
    def centres(self) -> dict[str, np.ndarray]:
        """Of the bodies in voxels k, j, i, head to foot."""
        found = self.person.centres_kji
        return {level: np.array(found[level]) for level in sorted(found, key=BONE_PARTS.index)}


def make_subject(person: Person, device: torch.device | str = "cpu") -> Subject:
    """Put a person on a device. Raises ValueError when no vertebral body is named."""
    if not person.centres_kji:
        raise ValueError(f"{person.name}: no vertebral body is named, so nothing can be centred on; leave this person out")
    names = "tissue", "bone", "depth_mm", "inside_mm", "outside_mm", "part"
    arrays = {name: _tensor(getattr(person, name)) for name in names}
    hu = None if person.hu is None else _tensor(person.hu)
    subject = Subject(person, **arrays, hu=hu, spine_ji=_tensor(_spine_line(person)), half_width_mm=_half_width(person),
                      anchors=_anchors(person), ribs=_last_ribs(person), rims=_rims(person))
    return subject.to(device)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _moved(value: Any, device: torch.device) -> Any:
    """A dataclass of tensors on a device; people stay where they are."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, Person):
        return type(value)(**{part.name: _moved(getattr(value, part.name), device) for part in fields(value)})
    return value


def _spine_line(person: Person) -> np.ndarray:
    points = np.array(sorted(person.centres_kji.values()))
    slices = np.arange(person.bone.shape[0])
    line = np.stack([np.interp(slices, points[:, 0], points[:, axis]) for axis in (1, 2)], axis=1)
    return line.astype(np.float32)


def _half_width(person: Person) -> float:
    across = (person.inside_mm > 0).any(axis=1).sum(axis=1)
    return float(np.median(across[across > 0])) / 2 * person.spacing_mm if across.any() else 0.0


def _anchors(person: Person, per_class: int = 4000) -> dict[int, np.ndarray]:
    """For each bone class up to per_class voxel places (N, 3) k, j, i; the twelfth ribs as LAST_RIBS."""
    classes = bone_targets()[person.bone]
    classes[person.bone == BONE_PARTS.index("rib_12")] = LAST_RIBS
    rng = np.random.default_rng(0)
    found = {}
    for value in range(1, LAST_RIBS + 1):
        flat = np.flatnonzero(classes == value)
        if flat.size:
            chosen = rng.choice(flat, min(per_class, flat.size), replace=False)
            found[value] = np.stack(np.unravel_index(chosen, classes.shape), axis=1)
    return found


def _last_ribs(person: Person) -> tuple[Rib, ...]:
    """Left and right, each where it is labelled."""
    if "T12" not in person.centres_kji:
        return ()
    index = np.argwhere(person.bone == BONE_PARTS.index("rib_12"))
    side = (index[:, 2] - person.centres_kji["T12"][2]) * person.spacing_mm
    ribs = []
    for half in (side > 0, side <= 0):
        if np.count_nonzero(half) < 8:
            continue
        own, reach = index[half], np.abs(side[half])
        outer, before = own[reach >= np.quantile(reach, 0.85)], own[(reach >= np.quantile(reach, 0.4))
                                                                    & (reach <= np.quantile(reach, 0.6))]
        tip = outer.mean(0) - before.mean(0)
        depth = person.depth_mm[tuple(own.T)].astype(np.float32)
        parts = own, depth, reach.astype(np.float32), (tip / max(np.linalg.norm(tip), 1e-6)).astype(np.float32)
        ribs.append(Rib(*(_tensor(part) for part in parts)))
    return tuple(ribs)


def _rims(person: Person) -> Rims:
    body, disc = (person.part == PARTS.index(name) for name in ("vertebral body", "disc"))
    boxes = ndimage.find_objects((body | disc).astype(np.uint8))
    margin = int(np.ceil(RIM_MM / person.spacing_mm)) + 1
    box = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in boxes[0]) if boxes else (slice(0, 1),) * 3
    body, disc, bone = body[box], disc[box], person.bone[box]
    body_mm, nearest = ndimage.distance_transform_edt(~body, sampling=person.spacing_mm, return_indices=True)
    disc_mm = ndimage.distance_transform_edt(~disc, sampling=person.spacing_mm)
    start = np.array([s.start for s in box])
    near = np.argwhere((body_mm <= RIM_MM) & (disc_mm <= RIM_MM) & ~disc & ~body & (bone == 0))
    line = _spine_line(person)[near[:, 0] + start[0]]
    near = near[(near[:, 1] + start[1] - line[:, 0]) * person.spacing_mm < RIM_BEHIND_MM]
    at = tuple(near.T)
    vertebra = bone[tuple(axis[at] for axis in nearest)]
    parts = near + start, vertebra, body_mm[at].astype(np.float32), disc_mm[at].astype(np.float32)
    return Rims(*(_tensor(part) for part in parts))
