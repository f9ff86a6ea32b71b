"""Annotated cases as a network sees them: brought to its grid once, then cut and varied for every sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.files.atomic import whole_file
from LowDoseBMDLib.geometry import Geometry, resample
from LowDoseBMDLib.rois import Mask

from .cases import KEYPOINTS, LABELS, Case, Labels, read_image, read_labels
from .people import BONE_TARGETS, PARTS, SPINE_MARGIN_MM, with_density
from .synthesis import CLIP_HU, KEYPOINT_LEVELS, SCALE_HU, Task, peak_map
from .synthesis_fields import AIR_HU
from .synthesis_tissue import DENSITY
from .training_losses import BODY_OR_POSTERIOR

PREPARED_VERSION = 1
"""Raised when a case would be prepared in another way, so that what lies on the disk is made anew."""

ON_BONE = 0.65
"""Share of the samples that are centred on a voxel of a class; the others lie anywhere (judgement)."""

ROOM = 1.5
"""Sides of what is cut from the case, in sides of a sample: scaled by 1.2 and turned by 10 degrees it fits inside."""

ANCHORS = 4000
"""Voxels of each class that a sample may be centred on."""

CUT_SHORT = 0.3
"""Share of the keypoint samples whose scan is made to end early at the top or at the bottom (judgement)."""


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case on a network's grid, arrays (k, j, i).

    hu: int16. target: uint8 classes of the task's outputs, or BODY_OR_POSTERIOR; all 0 for keypoints. known: (outputs,)
    bool, which classes were drawn; voxels without a label may be any of the others. points_kji: voxel places of the levels
    that were set.
    """

    name: str
    patient: str
    hu: np.ndarray
    target: np.ndarray
    known: np.ndarray
    points_kji: Mapping[str, tuple[float, float, float]]


def usable(case: Case, labels: Labels, task: Task) -> str:
    """Why a case teaches nothing about a task; empty when it does."""
    drawn = set(labels.masks)
    if task.target == "bones" and not drawn & set(BONES):
        return f"none of {', '.join(BONES)} is drawn"
    if task.target == "parts" and ("vertebrae" not in drawn or not _bodies(labels)):
        return "it needs vertebrae and the body of one of " + ", ".join(LEVELS)
    if task.target == "keypoints" and not any(point.level in KEYPOINT_LEVELS for point in labels.keypoints):
        return "no level is set"
    return ""


def _bodies(labels: Labels) -> list[Mask]:
    masks = (labels.masks.get(f"body_{level}") for level in LEVELS)
    return [mask for mask in masks if mask is not None and not mask.empty]


def prepare_case(case: Case, task: Task) -> PreparedCase:
    """Raises ValueError when the case cannot be read, or teaches nothing about the task."""
    labels = read_labels(case)
    if why := usable(case, labels, task):
        raise ValueError(f"{case.name}: {why}")
    ct = read_image(case)
    grid = ct.geometry.with_spacing(task.spacing_mm)
    if task.target == "parts":
        grid = _round_the_spine(labels.masks["vertebrae"], ct.geometry, grid)
    hu = resample(ct.hu, ct.geometry, grid, outside=AIR_HU)
    target, known = _target(labels, ct.geometry, grid, task)
    points = {point.level: tuple(float(n) for n in grid.to_kji(np.array(point.position_lps_mm)))
              for point in labels.keypoints if point.level in KEYPOINT_LEVELS}
    return PreparedCase(case.name, case.patient, np.rint(hu).astype(np.int16), target, known, points)


def _round_the_spine(vertebrae: Mask, source: Geometry, grid: Geometry) -> Geometry:
    ends = np.array([vertebrae.start_kji, np.add(vertebrae.start_kji, vertebrae.voxels.shape) - 1])
    corners = grid.to_kji(source.to_lps(np.array(np.meshgrid(*ends.T)).reshape(3, -1).T))
    margin = SPINE_MARGIN_MM / np.array(grid.spacing_kji_mm)
    low = np.maximum(np.floor(corners.min(0) - margin).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(0) + margin).astype(int) + 1, grid.shape_kji)
    return grid.crop(tuple(low), tuple(high - low))


def _target(labels: Labels, source: Geometry, grid: Geometry, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(classes (k, j, i) uint8, which classes are known (outputs,) bool)."""
    if task.target == "keypoints":
        return np.zeros(grid.shape_kji, np.uint8), np.ones(len(KEYPOINT_LEVELS), bool)
    if task.target == "parts":
        body = np.max([_share(mask, source, grid) for mask in _bodies(labels)], axis=0)
        target = np.where(_share(labels.masks["vertebrae"], source, grid) > 0.5, BODY_OR_POSTERIOR, 0).astype(np.uint8)
        target[body > 0.5] = PARTS.index("vertebral body")
        return target, np.array([part != "disc" for part in PARTS])
    names = (*BONES, OTHER_BONES)
    shares = np.zeros((len(BONE_TARGETS), *grid.shape_kji), np.float32)
    shares[0] = 0.5
    for channel, name in enumerate(names, start=1):
        if name in labels.masks:
            shares[channel] = _share(labels.masks[name], source, grid)
    return shares.argmax(axis=0).astype(np.uint8), np.array([True, *(name in labels.masks for name in names)])


def _share(mask: Mask, source: Geometry, grid: Geometry) -> np.ndarray:
    """(k, j, i) float32, how much of each voxel of ``grid`` a mask on ``source`` fills, 0 to 1."""
    return resample(mask.full(source).astype(np.float32), source, grid, outside=0.0)


# --- on the disk -------------------------------------------------------------------------------------------

def case_digest(case: Case, task: Task) -> str:
    """Changes whenever the case, seen by the task's network, does."""
    digest = hashlib.sha256(f"{PREPARED_VERSION} {task.target} {task.spacing_mm} {case.fingerprint}".encode())
    for name in (LABELS, KEYPOINTS):
        path = case.folder / name
        digest.update(path.read_bytes() if path.exists() else b"-")
    return digest.hexdigest()[:16]


def prepared_case(case: Case, task: Task, home: Path) -> PreparedCase:
    """As prepare_case, but read from ``home`` where it was prepared before; older states of the case are removed there."""
    path = home / f"{case.name}-{case_digest(case, task)}.npz"
    if path.exists():
        return _load(path)
    prepared = prepare_case(case, task)
    home.mkdir(parents=True, exist_ok=True)
    for old in home.glob(f"{case.name}-*.npz"):
        old.unlink(missing_ok=True)
    meta = json.dumps({"name": prepared.name, "patient": prepared.patient, "points_kji": dict(prepared.points_kji)})
    with whole_file(path) as aside:
        np.savez_compressed(aside, meta=np.array(meta), hu=prepared.hu, target=prepared.target, known=prepared.known)
    return prepared


def _load(path: Path) -> PreparedCase:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        return PreparedCase(meta["name"], meta["patient"], file["hu"], file["target"], file["known"], meta["points_kji"])


# --- samples -----------------------------------------------------------------------------------------------

def anchors(case: PreparedCase) -> dict[int, np.ndarray]:
    """For each class of the case, up to ANCHORS voxel places (N, 3) k, j, i to centre samples on."""
    rng = np.random.default_rng(0)
    found = {}
    for value in np.unique(case.target[case.target > 0]):
        flat = np.flatnonzero(case.target == value)
        chosen = rng.choice(flat, min(ANCHORS, flat.size), replace=False)
        found[int(value)] = np.stack(np.unravel_index(chosen, case.target.shape), axis=1)
    return found


def draw_from_case(rng: np.random.Generator, case: PreparedCase, task: Task,
                   anchors: Mapping[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """One training pair: image (1, K, J, I) float32 normalised, target (K, J, I) uint8 or heatmaps float32.

    Its bones are made denser or less dense: those of one person would teach that what is denser is no bone.
    """
    centre = _centre(rng, case, task, anchors)
    room = tuple(int(np.ceil(n * ROOM)) for n in task.shape_kji)
    start = np.rint(centre - np.array(room) / 2).astype(int)
    hu = cut(case.hu, start, room, int(AIR_HU)).astype(np.float32)
    hu = with_density(hu, float(rng.uniform(*DENSITY))) - AIR_HU
    seen = 0, room[0]
    if task.target == "keypoints":
        seen = _cut_short(rng, max(0, -int(start[0])), min(room[0], case.hu.shape[0] - int(start[0])))
        hu[: seen[0]], hu[seen[1]:] = 0.0, 0.0
    points = np.array([case.points_kji[level] for level in case.points_kji]).reshape(-1, 3) - start
    varied = _variation(task.shape_kji, task.target)
    varied.set_random_state(seed=int(rng.integers(2**31)))
    result = varied({"image": _channel(hu), "target": _channel(cut(case.target, start, room, 0)),
                     "points": torch.from_numpy(points[None].astype(np.float32))})
    if task.target != "keypoints":
        return result["image"].as_tensor(), result["target"].as_tensor()[0].to(torch.uint8)
    moved = result["points"][0]
    whole = (points[:, 0] >= seen[0]) & (points[:, 0] <= seen[1] - 1)
    places = {level: tuple(map(float, moved[n])) if whole[n] else None for n, level in enumerate(case.points_kji)}
    return result["image"].as_tensor(), level_maps(places, task.shape_kji)


def level_maps(places_kji: Mapping[str, tuple[float, float, float] | None], shape: tuple[int, int, int]) -> torch.Tensor:
    """(len(KEYPOINT_LEVELS), K, J, I) Gaussians at the levels' places; empty where a level is not in the scan (None, or a
    place outside), NaN where it was not set."""
    maps = torch.full((len(KEYPOINT_LEVELS), *shape), torch.nan)
    for channel, level in enumerate(KEYPOINT_LEVELS):
        if level in places_kji:
            peak = None if places_kji[level] is None else np.rint(places_kji[level]).astype(int)
            inside = peak is not None and np.all(peak >= 0) and np.all(peak < shape)
            maps[channel] = peak_map(shape, tuple(int(n) for n in peak)) if inside else 0.0
    return maps


def _centre(rng: np.random.Generator, case: PreparedCase, task: Task, anchors: Mapping[int, np.ndarray]) -> np.ndarray:
    """A place (k, j, i voxels): on a class, each as likely as the others, or anywhere; round the levels for keypoints."""
    shape = np.array(case.hu.shape)
    if task.target == "keypoints":
        centre = shape / 2 + rng.normal(0, 1, 3) * np.array([0, 18, 25]) / task.spacing_mm
        levels = list(case.points_kji)
        centre[0] = case.points_kji[levels[rng.integers(len(levels))]][0] + rng.normal(0, 80) / task.spacing_mm
        return centre
    if anchors and rng.random() < ON_BONE:
        places = anchors[list(anchors)[rng.integers(len(anchors))]]
        return places[rng.integers(len(places))].astype(float)
    return rng.uniform(0, 1, 3) * shape


def _cut_short(rng: np.random.Generator, first: int, end: int) -> tuple[int, int]:
    """What is left of the slices from ``first`` up to, but not with, ``end``."""
    if rng.random() >= CUT_SHORT:
        return first, end
    where = first + int(rng.uniform(0.3, 0.7) * (end - first))
    return (where, end) if rng.random() < 0.5 else (first, where)


def cut(array: np.ndarray, start: np.ndarray, shape: tuple[int, int, int], outside: int) -> np.ndarray:
    """The box of ``shape`` at ``start``, which may lie beyond the array; filled with ``outside`` there."""
    result = np.full(shape, outside, array.dtype)
    low, high = np.maximum(start, 0), np.minimum(np.add(start, shape), array.shape)
    if np.all(high > low):
        inner = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        result[inner] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return result


def _channel(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None]


@lru_cache(maxsize=8)
def _variation(shape: tuple[int, int, int], target: str) -> Any:
    """MONAI's transforms of a dictionary of image (HU above air), target and points (1, N, 3) in voxels; the result has
    ``shape``, the points stay with the anatomy.

    Turned by up to 10 degrees about each axis, scaled by 0.8 to 1.2, moved by a tenth of a side, mirrored left-right in one
    of two; noise of up to 40 HU, smoothing, HU shifted by up to 20. Ranges are judgement: what differs between scanners and
    people, without making anatomy that does not exist.
    """
    from monai import transforms as monai

    turn, tenth = np.deg2rad(10.0), tuple(n / 10 for n in shape)
    spatial = ["image"] if target == "keypoints" else ["image", "target"]
    modes = ["bilinear", "nearest"][: len(spatial)]
    return monai.Compose([
        monai.RandAffined(spatial, prob=1.0, rotate_range=(turn,) * 3, scale_range=(0.2,) * 3, translate_range=tenth,
                          spatial_size=shape, mode=modes, padding_mode="zeros", cache_grid=True),
        monai.RandFlipd(spatial, prob=0.5, spatial_axis=2),
        monai.ApplyTransformToPointsd("points", refer_keys="image", invert_affine=True),
        monai.RandGaussianSmoothd("image", prob=0.3, sigma_x=(0.25, 0.9), sigma_y=(0.25, 0.9), sigma_z=(0.25, 0.9)),
        monai.RandGaussianNoised("image", prob=0.5, std=40.0),
        monai.RandShiftIntensityd("image", offsets=20.0, prob=0.5),
        monai.ScaleIntensityRanged("image", a_min=CLIP_HU[0] - AIR_HU, a_max=CLIP_HU[1] - AIR_HU,
                                   b_min=CLIP_HU[0] / SCALE_HU, b_max=CLIP_HU[1] / SCALE_HU, clip=True),
    ])
