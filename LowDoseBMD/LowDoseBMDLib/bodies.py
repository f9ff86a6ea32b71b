"""Stage 3a, bodies: every vertebral body in the scan, drawn finely along the spine, not yet named.

A residual UNet at 1.5 mm looks at tiles centred on the vertebrae that the bone network found and tells bodies from
posterior elements. Discs separate the bodies; where osteophytes join two, a watershed of the distance from the
surface parts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from .bones import AIR_HU, Bones
from .ctvolume import CTVolume
from .flags import Refusal
from .geometry import Geometry, draw_mask, resample
from .inference import Engine, Progress, predict, silent, softmax
from .nearby import bounding_box
from .rois import Mask

TILE_KJI = (96, 80, 80)
"""144 x 120 x 120 mm at 1.5 mm: four to five vertebrae with their processes."""

STEP_MM = 96.0
"""Distance along the spine between tiles; a third of each tile is seen twice."""

MIN_SPINE_MM = 40.0
"""Less spine than this in the scan holds no whole vertebra with its neighbours."""

MIN_BODY_MM3 = 3000.0
"""Smaller pieces are no bodies: the smallest thoracic body of an adult has about 5 cm3."""

CORE_MM = 4.5
"""A body's centre lies deeper than this; joints between bodies do not (half of a thin T1 body's height is 7 mm)."""

CENTRE_APART_MM = 14.0
"""Centres of neighbouring bodies are further apart than this (T1-T2 about 17 mm in small adults)."""


SMOOTH_REACH_VOXELS = 8
"""Beyond this the smoothed depth of a body is 0, on grids down to 1 mm."""

DEPTH_STEP_MM = 0.01
"""Of the depth that is flooded: whole steps are flooded in less than half the time of fractions."""

ACROSS_MM = 70.0
"""Across the spine there is one body: a body cut flat by the end of a scan must not fall into a left and a right half."""


@dataclass(frozen=True, eq=False)
class Body:
    """One unnamed vertebral body. number: its value in Spine.numbers."""

    number: int
    centre_lps_mm: np.ndarray
    volume_mm3: float


@dataclass(frozen=True, eq=False)
class Spine:
    """All bodies that were found, from head to foot.

    geometry: the fine grid along the spine. body, posterior: (k, j, i) float32 probabilities. numbers: (k, j, i)
    uint8, 0 or the number of the body that a voxel belongs to.
    """

    geometry: Geometry
    body: np.ndarray
    posterior: np.ndarray
    numbers: np.ndarray
    bodies: tuple[Body, ...]

    def vertebrae(self, geometry: Geometry) -> Mask:
        """All vertebrae, bodies and posterior elements, drawn on a CT's grid: finer than the bone network's."""
        return draw_mask(self.body + self.posterior, self.geometry, geometry)

    @cached_property
    def _boxes(self) -> list[tuple[slice, ...]]:
        return ndimage.find_objects(self.numbers)

    def mask(self, body: Body, geometry: Geometry) -> Mask:
        """One body drawn on a CT's grid."""
        found = self._boxes[body.number - 1]
        box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in found)
        numbers, chance = self.numbers[box], self.body[box]
        own = ndimage.binary_dilation(numbers == body.number)
        others = (numbers > 0) & (numbers != body.number)
        part = self.geometry.crop(tuple(s.start for s in box), chance.shape)
        return draw_mask(np.where(own & ~others, chance, 0.0), part, geometry)


def draw_bodies(ct: CTVolume, bones: Bones, engine: Engine, progress: Progress = silent) -> Spine:
    """Find and separate the vertebral bodies of a CT.

    Raises Refusal (code no_spine) when the bone network found too little of a spine.
    """
    path = spine_path(bones)
    grid, starts = _tiles(path, ct.geometry, engine.bundle.spacing_mm)
    total = np.zeros((2, *grid.shape_kji), np.float32)
    weight = np.full(grid.shape_kji, 1e-6, np.float32)
    hu = resample(ct.hu, ct.geometry, grid, outside=AIR_HU)
    for done, start in enumerate(starts):
        progress("drawing the vertebral bodies", done / len(starts))
        box = tuple(slice(s, s + n) for s, n in zip(start, TILE_KJI, strict=True))
        logits = predict(engine, hu[box], TILE_KJI)
        bell = np.minimum(1.0, (1.1 - np.abs(np.linspace(-1, 1, TILE_KJI[0])))).astype(np.float32)[:, None, None]
        total[(slice(None), *box)] += softmax(logits)[1:3] * bell
        weight[box] += bell
    body, posterior = total / weight
    numbers, found = separate(body, grid)
    if not found:
        raise Refusal("no_spine", "No whole vertebral body was found in this scan. Load a CT of the lower chest or the "
                                  "upper abdomen, or draw the regions yourself.")
    return Spine(grid, body, posterior, numbers, found)


def spine_path(bones: Bones) -> np.ndarray:
    """(N, 3) LPS mm: centre of the vertebrae in each slice of the bone grid that shows them, foot to head,
    smoothed over 20 mm."""
    found = bones.of("vertebrae") > 0.5
    box = bounding_box(found, margin=2)
    if box is None:
        raise Refusal("no_spine", "No vertebrae were found in this scan. Load a CT of the chest or abdomen.")
    pieces, _ = ndimage.label(ndimage.binary_dilation(found[box], iterations=2))
    spread = [s[0].stop - s[0].start for s in ndimage.find_objects(pieces)]
    mask = (pieces == int(np.argmax(spread)) + 1) & found[box]
    rows = np.flatnonzero(mask.sum(axis=(1, 2)) >= 3)
    if rows.size * bones.geometry.spacing_kji_mm[0] < MIN_SPINE_MM:
        raise Refusal("no_spine", f"Less than {MIN_SPINE_MM:.0f} mm of spine was found in this scan. "
                                  "Load a CT that shows the lower chest or the upper abdomen.")
    centres = np.array([[k, *ndimage.center_of_mass(mask[k])] for k in rows])
    sigma = 10.0 / bones.geometry.spacing_kji_mm[0]
    centres[:, 1:] = ndimage.gaussian_filter1d(centres[:, 1:], sigma, axis=0, mode="nearest")
    return bones.geometry.to_lps(centres + [s.start for s in box])


def _tiles(path: np.ndarray, ct: Geometry, spacing_mm: float) -> tuple[Geometry, list[tuple[int, int, int]]]:
    """A grid along the path with the CT's axes, and the first voxels (k, j, i) of tiles that cover it.

    Bodies lie in front of the vertebra's centre of mass, so tiles sit 10 mm in front of the path.
    """
    whole = ct.with_spacing(spacing_mm)
    kji = whole.to_kji(path)
    kji[:, 1] -= 10.0 / spacing_mm
    low, high = kji[:, 0].min() - 12.0 / spacing_mm, kji[:, 0].max() + 12.0 / spacing_mm
    count = max(1, int(np.ceil((high - low - TILE_KJI[0]) / (STEP_MM / spacing_mm))) + 1)
    if count == 1:
        tops = [0.5 * (low + high) - TILE_KJI[0] / 2]
    else:
        tops = np.linspace(low, high - TILE_KJI[0], count)
    starts = []
    for top in tops:
        near = kji[np.abs(kji[:, 0] - top - TILE_KJI[0] / 2) <= TILE_KJI[0] / 2]
        middle = (near.min(axis=0) + near.max(axis=0))[1:] / 2 if len(near) else kji.mean(axis=0)[1:]
        starts.append((round(top), *(round(m - t / 2) for m, t in zip(middle, TILE_KJI[1:], strict=True))))
    first = np.min(starts, axis=0)
    shape = np.max(starts, axis=0) + TILE_KJI - first
    return whole.crop(tuple(first), tuple(shape)), [tuple(int(n) for n in s - first) for s in np.array(starts)]


def separate(chance: np.ndarray, grid: Geometry) -> tuple[np.ndarray, tuple[Body, ...]]:
    """Number the bodies in a probability map (k, j, i): (uint8 numbers, bodies from head to foot)."""
    numbers = np.zeros(chance.shape, np.uint8)
    box = bounding_box(chance > 0.5, SMOOTH_REACH_VOXELS)
    if box is None:
        return numbers, ()
    part = grid.crop(tuple(s.start for s in box), chance[box].shape)
    flooded = _divided(chance[box] > 0.5, part.spacing_kji_mm)
    volumes = np.bincount(flooded.ravel()) * grid.voxel_volume_mm3
    kept = [n for n in range(1, len(volumes)) if volumes[n] >= MIN_BODY_MM3]
    centres = {n: part.to_lps(np.argwhere(flooded[at] == n).mean(axis=0) + [s.start for s in at])
               for n, at in enumerate(ndimage.find_objects(flooded), start=1) if n in kept}
    ordered = sorted(kept, key=lambda n: -centres[n][2])
    new_number = np.zeros(len(volumes), np.uint8)
    new_number[ordered] = np.arange(1, len(ordered) + 1)
    numbers[box] = new_number[flooded]
    return numbers, tuple(Body(new, centres[old], float(volumes[old])) for new, old in enumerate(ordered, start=1))


def _divided(mask: np.ndarray, spacing_kji_mm: tuple[float, ...]) -> np.ndarray:
    """uint8 numbers of the bodies in a region, 0 outside of them.

    A piece with one centre is one body. One with several is flooded from them; a crumb with none, from the bodies near it.
    """
    mask = ndimage.binary_opening(mask)
    smooth = ndimage.gaussian_filter(_depth_mm(mask, spacing_kji_mm), [2.0 / s for s in spacing_kji_mm])
    centres = _centres(smooth, spacing_kji_mm)
    pieces, count = ndimage.label(mask)
    holds = np.zeros((count + 1, int(centres.max()) + 1), bool)
    holds[pieces[centres > 0], centres[centres > 0]] = True
    numbers = np.where(holds.sum(axis=1) == 1, holds.argmax(axis=1), 0).astype(np.uint8)[pieces]
    for piece, found in enumerate(ndimage.find_objects(pieces), start=1):
        if holds[piece].sum() != 1:
            reach_mm = 0.0 if holds[piece].any() else CENTRE_APART_MM
            box = tuple(slice(max(0, s.start - n), s.stop + n) for s, n in
                        zip(found, (int(reach_mm / s) for s in spacing_kji_mm), strict=True))
            part = _flooded(smooth[box], np.where(numbers[box] > 0, numbers[box], centres[box]))
            np.copyto(numbers[box], part, where=pieces[box] == piece)
    return np.where(mask, numbers, 0)


def _depth_mm(mask: np.ndarray, spacing_kji_mm: tuple[float, ...]) -> np.ndarray:
    """(k, j, i) float32 distance of a region's voxels from the nearest one outside, which is also all beyond the array."""
    import SimpleITK as sitk

    outside = sitk.GetImageFromArray(np.pad(~mask, 1, constant_values=True).astype(np.uint8))
    outside.SetSpacing(spacing_kji_mm[::-1])
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(outside, squaredDistance=False, useImageSpacing=True))
    return np.maximum(depth[1:-1, 1:-1, 1:-1], 0.0)


def _flooded(smooth_depth: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """uint8 numbers of the markers from which each voxel is reached first."""
    import SimpleITK as sitk

    height = np.rint(smooth_depth / -DEPTH_STEP_MM).astype(np.int16)
    return sitk.GetArrayFromImage(sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(height), sitk.GetImageFromArray(markers), markWatershedLine=False, fullyConnected=True))


def _centres(smooth_depth: np.ndarray, spacing_kji_mm: tuple[float, ...]) -> np.ndarray:
    """uint8 markers at the deepest places, at least CENTRE_APART_MM apart along the spine."""
    size = [max(3, int(reach / s) | 1) for reach, s in
            zip((CENTRE_APART_MM, ACROSS_MM, ACROSS_MM), spacing_kji_mm, strict=True)]
    top = (smooth_depth == ndimage.maximum_filter(smooth_depth, size)) & (smooth_depth > CORE_MM - 1.0)
    markers, _ = ndimage.label(top, np.ones((3, 3, 3)))
    return markers.astype(np.uint8)
