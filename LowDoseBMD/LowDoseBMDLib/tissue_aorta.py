"""A small region in the aorta beside T12 and L1, to tell whether contrast was given.

The lumen is round and uniform: rays cast from its centre meet a change of HU at nearly the same radius all
round, with or without contrast. Where unenhanced neighbours (crus, vein) blur it, its usual place decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .tissue_grid import Blocks, LocalCoordinates, SpineFrame

AORTA_LEVELS = (-0.4, 1.4)
"""From the upper part of T12 to the disc L1/L2."""

SMOOTHING_MM = 2.0
"""Sigma of the smoothed copy: a wall of fat of 2 mm still shows, noise falls below 8 HU."""

PLACE_LEFT_MM = (9.0, 9.0)
PLACE_AHEAD_MM = (13.0, 5.0)
"""Usual place of the centre: left of the body's centre, and ahead of its front wall (mean, SD; the aorta of
five label maps at T12 and L1: 3 to 22 mm left, 5 to 16 mm ahead)."""

LIKELY = 0.5
"""Part of the usual place's likelihood above which a place is tried first: 33 of 228 places; a round aorta scores more."""

RADIUS_MM = (6.0, 18.0)
"""Radius of the lumen: 8.6-13.6 mm on the same label maps; small women to mild aneurysm."""

EDGE_HU = 20.0
EDGE_FRACTION = 0.25
"""A change of HU by this much, or by this part of the centre's HU, is the wall: fat, bone or lung are 100 HU
and more away, a crus with contrast in the aorta too."""

ROUND_TOLERANCE = 0.3
"""Rays within this part of the median radius count as round."""

LEAST_ROUND = 0.5
"""At least half of the rays must be: neighbours of equal HU hide up to half of the wall."""

UNIFORM_HU = 15.0
UNIFORM_FRACTION = 0.1
"""SD of the smoothed HU in the middle: at most this much, or this part of the mean."""

BLOOD_HU = (15.0, 700.0)
"""Unenhanced blood 20 +- 40 HU (Ogo's gate) but hardly below 15; 700 HU is above any arterial phase."""

ROI_RADIUS_MM = 5.0
ROI_HALF_LENGTH_MM = 10.0
"""Of the region: a short cylinder of 1.6 cm3 along the spine, clear of the lumen's wall."""

RAYS = 24
STEP_MM = 1.0
GRID_MM = 2.5
"""Rays per centre, samples along each, and distance of the centres tried."""


@dataclass(frozen=True, eq=False)
class AortaRegion:
    """A region of blocks in the aorta and what speaks for it: share of round rays and lumen radius."""

    region: np.ndarray
    mean_hu: float
    roundness: float
    radius_mm: float


def _radii_mm(plane: np.ndarray, j: np.ndarray, i: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """(N, RAYS) distance along each ray from centres (j, i blocks) to the first change of HU."""
    angle = np.linspace(0.0, 2 * np.pi, RAYS, endpoint=False)
    steps = np.arange(STEP_MM, RADIUS_MM[1] + 4.0, STEP_MM)
    along_j = j[:, None, None] + np.sin(angle)[None, :, None] * steps / spacing[0]
    along_i = i[:, None, None] + np.cos(angle)[None, :, None] * steps / spacing[1]
    hu = ndimage.map_coordinates(plane, [along_j, along_i], order=1, mode="nearest")
    middle = hu[:, :, steps <= 3.0].mean(axis=(1, 2))
    limit = np.maximum(EDGE_HU, EDGE_FRACTION * np.abs(middle))
    beyond = np.abs(hu - middle[:, None, None]) > limit[:, None, None]
    first = np.where(beyond.any(axis=2), beyond.argmax(axis=2), len(steps) - 1)
    return steps[first]


def _roundness(radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) share of rays near the median radius, and that radius; 0 where the radius is no aorta's."""
    radius = np.median(radii, axis=1)
    share = (np.abs(radii - radius[:, None]) <= ROUND_TOLERANCE * radius[:, None]).mean(axis=1)
    return np.where((radius >= RADIUS_MM[0]) & (radius <= RADIUS_MM[1]), share, 0.0), radius


def _candidates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left, ahead, prior) of a grid of centres in front of the spine: mm, mm, 0..1."""
    left, ahead = np.meshgrid(np.arange(-15.0, 31.0, GRID_MM), np.arange(0.0, 28.0, GRID_MM))
    left, ahead = left.ravel(), ahead.ravel()
    prior = np.exp(-0.5 * (((left - PLACE_LEFT_MM[0]) / PLACE_LEFT_MM[1]) ** 2
                           + ((ahead - PLACE_AHEAD_MM[0]) / PLACE_AHEAD_MM[1]) ** 2))
    return left, ahead, prior


def _scores(blocks: Blocks, smooth: np.ndarray, frame: SpineFrame, slices: np.ndarray, left: np.ndarray,
            ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slices, N) roundness and radius of candidate centres, left of and ahead of the bodies in mm, on the given slices."""
    spacing = blocks.spacing_kji_mm[1:]
    y0, x0 = blocks.centres_mm(1)[0], blocks.centres_mm(2)[0]
    rows = []
    for k in slices:
        z = blocks.centres_mm(0)[k]
        turn, behind = frame.at(frame.turn_rad, z), -frame.at(frame.half_depth_mm, z) - ahead
        x = frame.at(frame.x_mm, z) + left * np.cos(turn) + behind * np.sin(turn)
        y = frame.at(frame.y_mm, z) - left * np.sin(turn) + behind * np.cos(turn)
        rows.append(_roundness(_radii_mm(smooth[k], (y - y0) / spacing[0], (x - x0) / spacing[1], spacing)))
    return tuple(np.asarray(column) for column in zip(*rows, strict=True))


@dataclass(frozen=True)
class _Centre:
    """The best centre: mm left of and ahead of the bodies, its row among the slices, and what speaks for it."""

    left_mm: float
    ahead_mm: float
    row: int
    score: float = 0.0
    roundness: float = 0.0
    radius_mm: float = 0.0


def _best_centre(blocks: Blocks, smooth: np.ndarray, frame: SpineFrame, slices: np.ndarray, reach: int) -> _Centre:
    """The centre with the highest score, the mean over reach slices to either side. No place scores more than its prior, so
    that unlikely places are tried only where the likely ones score less than that."""
    left, ahead, prior = _candidates()
    best = _Centre(0.0, 0.0, 0)
    for tried in (prior >= LIKELY, prior < LIKELY):
        places = np.flatnonzero(tried & (prior > best.score))
        if places.size:
            share, radius = _scores(blocks, smooth, frame, slices, left[places], ahead[places])
            along = ndimage.uniform_filter1d(share * prior[places], 2 * reach + 1, axis=0, mode="nearest")
            at = row, column = np.unravel_index(int(along.argmax()), along.shape)
            if along[at] > best.score:
                best = _Centre(left[places[column]], ahead[places[column]], int(row), float(along[at]), float(share[at]),
                               float(radius[at]))
    return best


def find_aorta(blocks: Blocks, at: LocalCoordinates, frame: SpineFrame) -> AortaRegion | None:
    """The aorta beside T12 and L1, or None when nothing round and uniform of blood's HU lies there.

    blocks: round the spine, reaching 40 mm in front of the bodies.
    """
    slices = np.flatnonzero((at.level.ravel() >= AORTA_LEVELS[0]) & (at.level.ravel() <= AORTA_LEVELS[1]))
    if slices.size == 0:
        return None
    smooth = blocks.smoothed(SMOOTHING_MM)
    reach = max(1, round(ROI_HALF_LENGTH_MM / blocks.spacing_kji_mm[0]))
    centre = _best_centre(blocks, smooth, frame, slices, reach)
    behind = -at.half_depth_mm - centre.ahead_mm
    near = np.zeros(at.level.shape, bool)
    near[slices[max(0, centre.row - reach):centre.row + reach + 1]] = True
    region = near & ((at.left_mm - centre.left_mm) ** 2 + (at.behind_mm - behind) ** 2 <= ROI_RADIUS_MM**2)
    return _judged(blocks, smooth, region, centre.roundness, centre.radius_mm)


def _judged(blocks: Blocks, smooth: np.ndarray, region: np.ndarray, share: float, radius: float) -> AortaRegion | None:
    if not region.any() or share < LEAST_ROUND:
        return None
    mean, spread = float(blocks.hu[region].mean()), float(smooth[region].std())
    if not BLOOD_HU[0] <= mean <= BLOOD_HU[1] or spread > max(UNIFORM_HU, UNIFORM_FRACTION * mean):
        return None
    return AortaRegion(region, mean, share, radius)
