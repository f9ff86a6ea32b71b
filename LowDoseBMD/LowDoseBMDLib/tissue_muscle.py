"""Muscle regions beside the spine: psoas, or the erector spinae where psoas is not usable.

No network draws them. The psoas lies in a known place beside the bodies of L1 to L3, measured on the ten
psoas muscles of five people's label maps (CC BY, public segmentation model); there, tissue like muscle on a
smoothed copy, well inside its own borders, is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .tissue_grid import BONE_HU, Blocks, LocalCoordinates

MUSCLE_WINDOW_HU = (-29.0, 150.0)
"""Muscle on a smoothed copy (window of body-composition work, Sci Rep 2025, s41598-025-96238-6, table 1)."""

MUSCLE_GATE_HU = (15.0, 90.0)
"""Plausible mean of healthy to enhanced muscle: healthy psoas 48 +- 5.5 HU (JFSF 2022;7:38), 18-26 % more
with contrast; below 15 HU it is mostly fat, above 90 HU it is a kidney or bowel."""

LEARN_WINDOW_HU = (0.0, 90.0)
"""Where a muscle's own HU is learnt: no half-fat strands, no disc, no kidney with contrast."""

SMOOTHING_MM = ((25.0, 1.5), (40.0, 2.2), (np.inf, 3.0))
"""Sigma of the smoothed copy up to a block noise in HU: leaves at most about 8 HU of noise. 1.5 mm keeps a fat
plane of 3 mm and does for most scans; a lung kernel at the lowest dose needs more (noise added to the scans of
development: the mean of the region then moved by up to 6 HU instead of 20)."""

HALF_WINDOW_HU = 30.0
"""Smoothed HU within this of the muscle's own median belong to it: symmetric and four times the noise left,
so the mean is not pulled; an enhanced kidney, a disc and a fat plane are further away."""

EROSION_MM = 3.0
"""From the muscle's border (clinical reference of this project: 3 mm inside)."""

THIN_EROSION_MM = 2.0
"""Where 3 mm leave too little of a thin muscle: still one voxel and more of partial volume."""

PSOAS_LEVELS = (1.25, 2.75)
"""From the lower third of L1 to below the disc L2/L3: above it the muscle is thinner than 7 mm."""

PSOAS_LAST_LEVEL = 3.3
"""As far below as is searched when the usual range holds too little (the body of L3)."""

WANTED_MM3 = 2000.0
"""Volume wanted on each side."""

LEAST_SIDE_MM3 = 1000.0
"""A side that holds less after the full erosion is eroded by THIN_EROSION_MM instead."""

LEAST_TOTAL_MM3 = 1000.0
"""Both sides together; below, psoas is not usable."""

LEAST_PIECE_MM3 = 150.0
"""Smaller separate pieces are dropped."""

FENCE_LEVEL = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
FENCE_OUTER_MM = (13.0, 18.0, 23.0, 28.0, 32.0, 36.0)
FENCE_HALF_DEPTH_MM = (13.0, 17.0, 19.0, 20.0, 21.0, 22.0)
"""Where psoas lies in one fifth or more of the ten muscles: an ellipse from FENCE_INNER_MM to the outer
distance beside the body's wall, FENCE_BEHIND_MM behind the body's centre."""
FENCE_INNER_MM = 2.0
FENCE_BEHIND_MM = 7.0

CORE_SCALE = 0.65
"""The middle part of that ellipse holds psoas in nearly all; the muscle's HU is learnt there, and
CORE_SHARE of each piece must lie there: vein, ureter and kidney stay at the edge."""

CORE_SHARE = 0.35

LEAST_DEEP_BLOCKS = 30
"""Fewer blocks give no steady median (8 HU of noise: +-2 HU)."""

COLUMN_MARGIN_MM = 2.0
"""Kept from bodies and discs."""

BONE_MARGIN_MM = 2.0
"""Kept from transverse processes, ribs and osteophytes."""

PARASPINAL_LATERAL_MM = (12.0, 50.0)
"""Erector spinae: from the multifidus' outer part to the longissimus, measured from the midline (5th to 95th
percentile of the deep back muscles of five label maps: 10 to 65 mm)."""

PARASPINAL_BEHIND_MM = (34.0, 75.0)
"""Behind the body's centre (same label maps: 40 to 72 mm)."""

PARASPINAL_EROSION_MM = 4.0
"""More than for psoas: its border towards the fat is ragged."""

PARASPINAL_CORE_HU = 20.0
"""Smoothed HU within this of the lean part's median; fatty parts lie below."""


@dataclass(frozen=True, eq=False)
class MuscleSide:
    """A region of blocks on one side. mean_hu: of the block averages (equals the plain mean on the CT)."""

    region: np.ndarray
    volume_mm3: float
    mean_hu: float

    @property
    def plausible(self) -> bool:
        return self.volume_mm3 > 0 and MUSCLE_GATE_HU[0] <= self.mean_hu <= MUSCLE_GATE_HU[1]


def smoothed_for_muscle(blocks: Blocks, at: LocalCoordinates) -> np.ndarray:
    """(k, j, i) smoothed HU of blocks round the spine; how far is set by the noise of the back muscles there."""
    noise = _noise_hu(blocks, at)
    return blocks.smoothed(next(sigma for limit, sigma in SMOOTHING_MM if noise <= limit))


def _noise_hu(blocks: Blocks, at: LocalCoordinates) -> float:
    """SD of the noise of single blocks, from neighbouring slices of the back muscles: MAD of their differences;
    0 where there is too little muscle or one slice."""
    lateral = np.abs(at.left_mm)
    place = (lateral >= PARASPINAL_LATERAL_MM[0]) & (lateral <= PARASPINAL_LATERAL_MM[1])
    place &= (at.behind_mm >= PARASPINAL_BEHIND_MM[0]) & (at.behind_mm <= PARASPINAL_BEHIND_MM[1])
    place &= _within(blocks.smoothed(SMOOTHING_MM[-1][1]), MUSCLE_WINDOW_HU)
    steps = np.diff(blocks.hu, axis=0)[place[1:] & place[:-1]]
    if steps.size < LEAST_DEEP_BLOCKS:
        return 0.0
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2.0))


def _side(blocks: Blocks, region: np.ndarray) -> MuscleSide:
    mean = float(blocks.hu[region].mean()) if region.any() else float("nan")
    return MuscleSide(region, blocks.volume_mm3(region), mean)


def _within(smooth: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    return (smooth >= window[0]) & (smooth <= window[1])


def _fence(at: LocalCoordinates, side: str) -> np.ndarray:
    """(k, j, i) squared distance from the middle of the psoas' place, 1 at its border."""
    outer = np.interp(at.level, FENCE_LEVEL, FENCE_OUTER_MM)
    depth = np.interp(at.level, FENCE_LEVEL, FENCE_HALF_DEPTH_MM)
    lateral = (at.left_mm if side == "left" else -at.left_mm) - at.half_width_mm
    middle, half = (outer + FENCE_INNER_MM) / 2, (outer - FENCE_INNER_MM) / 2
    return ((lateral - middle) / half) ** 2 + ((at.behind_mm - FENCE_BEHIND_MM) / depth) ** 2


def _solid(blocks: Blocks, smooth: np.ndarray, at: LocalCoordinates, bone: np.ndarray | None) -> np.ndarray:
    """(k, j, i) bool: bodies, discs and bone with their margins."""
    hard = smooth > BONE_HU
    if bone is not None:
        hard = hard | bone
    return at.column(COLUMN_MARGIN_MM) | blocks.near(hard, BONE_MARGIN_MM)


def _pieces(blocks: Blocks, region: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The connected pieces of a region that are large enough and reach well into the core."""
    labels, count = ndimage.label(region)
    if count == 0:
        return region
    size = np.bincount(labels.ravel(), minlength=count + 1) * np.prod(blocks.spacing_kji_mm)
    inside = np.bincount(labels[core], minlength=count + 1) * np.prod(blocks.spacing_kji_mm)
    keep = (size >= LEAST_PIECE_MM3) & (inside >= CORE_SHARE * size)
    keep[0] = False
    return keep[labels]


def _choose(blocks: Blocks, depth_mm: np.ndarray, core: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The first of: usual range, longer range, longer range and less erosion, that holds enough."""
    best = np.zeros(depth_mm.shape, bool)
    for last, erosion, enough in ((PSOAS_LEVELS[1], EROSION_MM, WANTED_MM3),
                                  (PSOAS_LAST_LEVEL, EROSION_MM, LEAST_SIDE_MM3),
                                  (PSOAS_LAST_LEVEL, THIN_EROSION_MM, 0.0)):
        rows = (level >= PSOAS_LEVELS[0]) & (level <= last)
        best = _pieces(blocks, (depth_mm >= erosion) & rows, core)
        if blocks.volume_mm3(best) >= enough:
            break
    return best


def _deep(depth_mm: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The deep part of a muscle in its place, where its HU is learnt: thin strands are mixed with fat."""
    for depth in (EROSION_MM, THIN_EROSION_MM):
        deep = (depth_mm >= depth) & place
        if np.count_nonzero(deep) >= LEAST_DEEP_BLOCKS:
            return deep
    return (depth_mm > 0.0) & place


def find_psoas(blocks: Blocks, smooth: np.ndarray, at: LocalCoordinates, side: str,
               bone: np.ndarray | None = None, given: np.ndarray | None = None) -> MuscleSide:
    """Psoas core on one side, from the place beside the bodies and the CT number.

    blocks: round the spine; smooth: its smoothed HU; bone, given: (k, j, i) bool of bones and of a psoas
    segmentation, or None. With ``given`` the place is taken from it, window and erosion are the same.
    Returns an empty side when nothing is found.
    """
    fence = _fence(at, side)
    place, core = (fence <= 1.0, fence <= CORE_SCALE**2) if given is None else (given, given)
    free = place & ~_solid(blocks, smooth, at, bone) & _within(smooth, MUSCLE_WINDOW_HU)
    rows = (at.level >= PSOAS_LEVELS[0]) & (at.level <= PSOAS_LAST_LEVEL)
    lean = _deep(blocks.depth_mm(free & _within(smooth, LEARN_WINDOW_HU)), core & rows)
    if not lean.any():
        return _side(blocks, lean)
    middle = float(np.median(smooth[lean]))
    depth = blocks.depth_mm(free & (smooth <= middle + HALF_WINDOW_HU))
    depth[smooth < middle - HALF_WINDOW_HU] = 0.0
    return _side(blocks, _choose(blocks, depth, core, at.level))


def find_paraspinal(blocks: Blocks, smooth: np.ndarray, at: LocalCoordinates, side: str,
                    bone: np.ndarray | None = None, given: np.ndarray | None = None) -> MuscleSide:
    """Lean core of the erector spinae on one side; arguments as for find_psoas."""
    lateral = at.left_mm if side == "left" else -at.left_mm
    place = (lateral >= PARASPINAL_LATERAL_MM[0]) & (lateral <= PARASPINAL_LATERAL_MM[1])
    place &= (at.behind_mm >= PARASPINAL_BEHIND_MM[0]) & (at.behind_mm <= PARASPINAL_BEHIND_MM[1])
    if given is not None:
        place = given
    free = place & ~_solid(blocks, smooth, at, bone) & _within(smooth, MUSCLE_WINDOW_HU)
    lean = free & (smooth > MUSCLE_GATE_HU[0])
    if not lean.any():
        return _side(blocks, lean)
    middle = float(np.median(smooth[lean]))
    alike = np.abs(smooth - middle) <= PARASPINAL_CORE_HU
    return _side(blocks, _pieces(blocks, alike & (blocks.depth_mm(free) >= PARASPINAL_EROSION_MM), place))
