"""How uncertain the models are of a CT: how much their answers change when the CT is changed in ways that must not matter.

Test-time augmentation after Wang et al. 2019 (doi 10.1016/j.neucom.2019.01.103): the CT is mirrored, moved by parts of
the networks' coarsest step, made a little brighter and noisier; the answers are put back and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.bones import AIR_HU, segment_bones
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry, resample
from LowDoseBMDLib.inference import Progress, silent
from LowDoseBMDLib.keypoints import find_keypoints
from LowDoseBMDLib.pipeline import Models

LOOKS = 4
"""Changed CTs that are compared with the CT itself (judgement: more make the ranking little steadier)."""

SHIFT_VOXELS = 9
"""Up to so many voxels of air are put before the CT: the networks halve four times, so that 16 is their coarsest step."""

BRIGHTER_HU, NOISE_HU = 15.0, 20.0
"""SDs of what is added: a scanner's offset; noise that a low-dose scan still has on a grid of 3 mm (judgement)."""

STEP_MM = 30.0
"""Keypoints that scatter by the distance of two vertebrae are as uncertain as they can be: the level is not known."""

SEEN = 0.2
"""A level counts when its heatmap reaches this as the mean of all looks; lower ones are not in the scan."""

PEAK_MM = 8.0
"""A keypoint is the centre of mass of its heatmap this near to the highest voxel: finer than the grid of 5 mm."""


STAGE_SHARES: dict[str, float] = {"reading the CT": 0.1, "looking at the CT again": 0.9}
"""Share of a case's time that each stage takes, in their order."""


@dataclass(frozen=True)
class Uncertainty:
    """How much the answers changed.

    bones: 0..1, disagreement of the bone probabilities (0: the same in all looks, 1: nothing in common, or no bone was
    found). keypoint_mm: by level that was seen, RMS distance of its places from their mean.
    """

    bones: float
    keypoint_mm: Mapping[str, float]

    @property
    def value(self) -> float:
        """0..1, by which cases are ranked: that of the bones, or of the worst keypoint in parts of STEP_MM if larger."""
        return float(min(1.0, max([self.bones, *(mm / STEP_MM for mm in self.keypoint_mm.values())])))


@dataclass(frozen=True)
class Look:
    """One change of a CT. before_kji: voxels of air put before its first voxel along each axis."""

    mirrored: bool = False
    before_kji: tuple[int, int, int] = (0, 0, 0)
    brighter_hu: float = 0.0
    noise_hu: float = 0.0
    seed: int = 0


def measure_uncertainty(ct: CTVolume, models: Models, seed: int = 1, looks: int = LOOKS,
                        progress: Progress = silent) -> Uncertainty:
    """Uncertainty of the bone and keypoint networks on a CT; the same again for the same seed.

    Raises inference.Cancelled when the progress callback asks, ValueError for less than one look.
    """
    if looks < 1:
        raise ValueError(f"{looks} looks: at least one is needed to compare with the CT itself")
    coarse = _coarse(ct, models.bones.bundle.spacing_mm)
    plans = (Look(), *_plans(seed, looks))
    first, differences, places, heights = None, [], [], []
    for number, look in enumerate(plans):
        progress("looking at the CT again", number / len(plans))
        seen = look_at(coarse, look)
        chance = put_back(segment_bones(seen, models.bones).chance, look)
        first = chance if first is None else first
        differences.append(bone_difference(first, chance))
        heat = find_keypoints(seen, models.keypoints)
        peaks = [_peak(channel, heat.geometry, coarse.geometry, look) for channel in heat.chance]
        places.append([place for place, _ in peaks])
        heights.append([height for _, height in peaks])
    levels = models.keypoints.bundle.outputs
    return Uncertainty(float(np.mean(differences[1:])), _spread_mm(levels, np.array(places), np.array(heights)))


def _coarse(ct: CTVolume, spacing_mm: float) -> CTVolume:
    """The CT on the bone network's grid, as that network sees it; the keypoint network's is coarser."""
    grid = ct.geometry.with_spacing(spacing_mm)
    return CTVolume(resample(ct.hu, ct.geometry, grid, outside=AIR_HU).astype(np.float32), grid)


def _plans(seed: int, looks: int) -> Iterator[Look]:
    rng = np.random.default_rng(seed)
    for number in range(looks):
        before = tuple(int(n) for n in rng.integers(0, SHIFT_VOXELS + 1, 3))
        yield Look(number % 2 == 0, before, float(rng.normal(0, BRIGHTER_HU)), NOISE_HU, int(rng.integers(2**31)))


def look_at(ct: CTVolume, look: Look) -> CTVolume:
    """The CT as a look sees it: the whole of it, mirrored within its grid where the look says so."""
    hu = ct.hu + np.float32(look.brighter_hu)
    if look.noise_hu:
        hu += look.noise_hu * np.random.default_rng(look.seed).standard_normal(hu.shape, np.float32)
    hu = np.pad(hu[:, :, ::-1] if look.mirrored else hu, [(n, 0) for n in look.before_kji], constant_values=AIR_HU)
    return CTVolume(hu, ct.geometry.crop(tuple(-n for n in look.before_kji), hu.shape))


def put_back(answer: np.ndarray, look: Look) -> np.ndarray:
    """An answer (..., k, j, i) about a look, on the grid of the CT itself."""
    k, j, i = look.before_kji
    inner = answer[..., k:, j:, i:]
    return inner[..., ::-1] if look.mirrored else inner


def bone_difference(a: np.ndarray, b: np.ndarray) -> float:
    """0..1, sum |a - b| / sum (a + b) of probabilities of one shape: one minus a soft Dice of all classes together. Where
    there is no bone in either, 1."""
    total = float(a.sum(dtype=float) + b.sum(dtype=float))
    return float(np.abs(a - b).sum(dtype=float)) / total if total >= 1.0 else 1.0


def _peak(heat: np.ndarray, grid: Geometry, ct: Geometry, look: Look) -> tuple[np.ndarray, float]:
    """(3,) LPS mm of the keypoint that a heatmap (k, j, i) of a look shows, in the CT itself; its height."""
    top = np.array(np.unravel_index(int(np.argmax(heat)), heat.shape))
    reach = np.ceil(PEAK_MM / np.array(grid.spacing_kji_mm)).astype(int)
    low, high = np.maximum(top - reach, 0), np.minimum(top + reach + 1, heat.shape)
    part = heat[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    kji = ct.to_kji(grid.to_lps((index * part[..., None]).sum(axis=(0, 1, 2)) / max(float(part.sum()), 1e-12)))
    if look.mirrored:
        kji[2] = ct.shape_kji[2] - 1 - kji[2]
    return ct.to_lps(kji), float(heat.max())


def _spread_mm(levels: tuple[str, ...], places: np.ndarray, heights: np.ndarray) -> dict[str, float]:
    """By level that was seen; places: (looks, levels, 3) mm, heights: (looks, levels)."""
    off = np.linalg.norm(places - places.mean(axis=0), axis=-1)
    rms = np.sqrt((off**2).mean(axis=0))
    return {level: float(rms[n]) for n, level in enumerate(levels) if level in LEVELS and heights[:, n].mean() >= SEEN}
