"""Which way up the patient really lies in the array, read from the image alone.

Three cues, each between -1 and 1 and positive when array and header agree:

- ``spine``: behind the middle of the body there is more bone than in front of it (odd under a front-back flip);
- ``ribs``: ribs and hip bones run down from back to front (odd under a front-back and under a head-foot flip);
- ``lungs``: apices and bases of the lungs both bulge towards the head (odd under a head-foot flip).

Their product keeps its sign under every flip, so that they check each other. Left and right cannot be told
without recognising organs (a mirrored patient has a mirrored liver, but so have some people): not attempted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

from .ctvolume import CTVolume
from .geometry import resample

COARSE_MM = 4.0
"""Ribs are 6-12 mm thick: the coarsest grid on which their course is still seen."""

AIR_HU = -1024.0
BODY_ABOVE_HU = -300.0
"""Between lung (-850) and fat (-110): the body's outline, lungs filled in."""

LUNG_BELOW_HU = -500.0
BONE_ABOVE_HU = 200.0
"""Above muscle and most organs with contrast; enhanced heart and vessels are kept out by depth and position."""

BONE_CAP_HU = 700.0
"""Metal must not outweigh bone."""

SKIN_MM = 6.0
SPINE_DEPTH_MM = 50.0
"""Spinous processes, arches and sternum lie this near the skin; heart and aorta do not."""

SPINE_HALF_WIDTH_MM = 50.0
RIB_DEPTH_MM = 60.0
RIB_FROM_MIDLINE_MM = 40.0
LUNG_MIN_MM3 = 1e5
"""100 mL; air in the bowel mostly comes in smaller pockets."""

GAS_BELOW_HU = -940.0
"""Lung is -900..-700 HU on average, gas in the bowel -1000; only its rim on a coarse grid lies between."""

LUNG_FULL_MM3 = 1e6
"""1 L: with less (an abdominal scan) the shape of the lungs says little, and the cue is scaled down."""

MIN_SLICE_AREA = 0.3
"""Slices with less of the median body area (neck, end slices) are left out."""

FULL_SPINE, FULL_RIBS, FULL_LUNGS = 0.4, 0.4, 0.5
"""Values at which a cue counts fully: the lower end of what four real chest and abdominal CTs show."""


@dataclass(frozen=True, eq=False)
class CoarseBody:
    """The CT on an isotropic coarse grid. hu, body, depth_mm: (k, j, i); depth from the skin, per slice."""

    hu: np.ndarray
    body: np.ndarray
    depth_mm: np.ndarray


@dataclass(frozen=True)
class Cues:
    """Agreement of image and header, -1..1 each; 0 when the scan does not show it."""

    spine: float
    ribs: float
    lungs: float

    def score(self, front_back: int, head_foot: int) -> float:
        """How well the image fits when axes are kept (1) or flipped (-1); -3..3."""
        return self.spine * front_back + self.ribs * front_back * head_foot + self.lungs * head_foot


def coarse_body(ct: CTVolume) -> CoarseBody:
    """Resample to ``COARSE_MM`` and find the body: the largest connected part denser than air, holes filled."""
    grid = ct.geometry.with_spacing(COARSE_MM)
    hu = resample(ct.hu, ct.geometry, grid, AIR_HU, lowest=AIR_HU).astype(np.float32)
    # Lungs are filled before the opening, which cuts off the table but would break a thin chest wall.
    filled = np.stack([ndi.binary_fill_holes(plane) for plane in hu > BODY_ABOVE_HU])
    body = largest(ndi.binary_opening(filled, iterations=2))
    depth = np.stack([ndi.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1] for plane in body]) * COARSE_MM
    return CoarseBody(hu, body, depth)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool array; the array itself when it is empty."""
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def read_cues(coarse: CoarseBody) -> Cues:
    """The three cues of a scan, clipped to -1..1."""
    found = (spine_cue(coarse) / FULL_SPINE, rib_cue(coarse) / FULL_RIBS, lung_cue(coarse) / FULL_LUNGS)
    return Cues(*(float(np.clip(value, -1.0, 1.0)) for value in found))


def _distance_from_midline(body: np.ndarray) -> np.ndarray:
    """(i,) mm from the body's centre of mass, left to right."""
    columns = np.arange(body.shape[2])
    mass = body.sum(axis=(0, 1))
    return np.abs(columns - (mass * columns).sum() / max(1, mass.sum())) * COARSE_MM


def spine_cue(coarse: CoarseBody) -> float:
    """Mean over slices of (bone behind - bone in front) / all, near the skin of the middle of the body."""
    middle = _distance_from_midline(coarse.body) < SPINE_HALF_WIDTH_MM
    near = coarse.body & (coarse.depth_mm > SKIN_MM) & (coarse.depth_mm < SPINE_DEPTH_MM)
    bone = (np.clip(coarse.hu, BONE_ABOVE_HU, BONE_CAP_HU) - BONE_ABOVE_HU) * near
    area = coarse.body.sum(axis=(1, 2))
    shares = [_behind(b[:, middle].sum(axis=1), m[:, middle].any(axis=1))
              for b, m, n in zip(bone, coarse.body, area, strict=True)
              if n > MIN_SLICE_AREA * np.median(area[area > 0])] if area.any() else []
    seen = [share for share in shares if share is not None]
    return float(np.mean(seen)) if seen else 0.0


def _behind(bone_rows: np.ndarray, body_rows: np.ndarray) -> float | None:
    rows = np.flatnonzero(body_rows)
    if not rows.size or bone_rows.sum() < 500:
        return None
    offset = np.arange(bone_rows.size) - rows[[0, -1]].mean()
    return float((bone_rows * np.sign(offset)).sum() / bone_rows.sum())


def rib_cue(coarse: CoarseBody) -> float:
    """Balance of bone strands near the skin, off the midline, that fall towards the front; from -1 to 1.

    The course of a strand is the direction of least change: the last eigenvector of the structure tensor.
    """
    lateral = _distance_from_midline(coarse.body) > RIB_FROM_MIDLINE_MM
    near = coarse.body & (coarse.depth_mm > SKIN_MM) & (coarse.depth_mm < RIB_DEPTH_MM)
    bone = near & lateral & (coarse.hu > BONE_ABOVE_HU - 20)
    if np.count_nonzero(bone) < 50:
        return 0.0
    gradient = np.gradient(ndi.gaussian_filter(np.clip(coarse.hu, 0.0, 500.0), 0.6))
    tensor = np.empty((np.count_nonzero(bone), 3, 3))
    for a in range(3):
        for b in range(a, 3):
            tensor[:, a, b] = tensor[:, b, a] = ndi.gaussian_filter(gradient[a] * gradient[b], 1.5)[bone]
    spread, axes = np.linalg.eigh(tensor)
    strandness = (spread[:, 1] - spread[:, 0]) / np.maximum(spread[:, 2], 1e-6)
    slope = strandness * axes[:, 0, 0] * axes[:, 1, 0]
    return float(slope.sum() / max(np.abs(slope).sum(), 1e-9))


def lung_cue(coarse: CoarseBody) -> float:
    """How much upper and lower lung surfaces rise from the chest wall inwards: the sum of two correlations."""
    lungs = _lungs(coarse)
    columns = lungs.any(axis=0)
    if not columns.any():
        return 0.0
    area = coarse.body.sum(axis=(1, 2))
    outline = np.median(coarse.body[area > MIN_SLICE_AREA * np.median(area[area > 0])], axis=0) > 0.5
    inwards_mm = ndi.distance_transform_edt(np.pad(outline, 1))[1:-1, 1:-1] * COARSE_MM
    last = lungs.shape[0] - 1
    low, high = lungs.argmax(axis=0), last - lungs[::-1].argmax(axis=0)
    rise = sum(_rise(height, inwards_mm, columns & (inwards_mm > 0) & (np.abs(height - end) > 1))
               for height, end in ((low, 0), (high, last)))
    return float(rise * min(1.0, lungs.sum() * COARSE_MM**3 / LUNG_FULL_MM3))


def _lungs(coarse: CoarseBody) -> np.ndarray:
    air = ndi.binary_opening(coarse.body & (coarse.hu < LUNG_BELOW_HU))
    labels, count = ndi.label(air)
    parts = np.arange(count + 1)
    is_lung = np.bincount(labels.ravel(), minlength=count + 1) * COARSE_MM**3 > LUNG_MIN_MM3
    is_lung &= ndi.mean(coarse.hu, labels, parts) > GAS_BELOW_HU
    is_lung[0] = False
    return is_lung[labels]


def _rise(height: np.ndarray, inwards_mm: np.ndarray, where: np.ndarray) -> float:
    if np.count_nonzero(where) < 50 or np.ptp(height[where]) == 0 or np.ptp(inwards_mm[where]) == 0:
        return 0.0
    return float(np.corrcoef(height[where], inwards_mm[where])[0, 1])
