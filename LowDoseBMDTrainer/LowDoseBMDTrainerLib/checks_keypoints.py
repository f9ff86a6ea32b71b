"""Checks of the keypoints: their order, their distances, and whether they lie in the middle of a body."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.levels import CERTAIN
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from scipy import ndimage

from .findings import LOOK, MUST, Finding

STEP_MM = (15.0, 60.0)
"""Centres of neighbouring bodies from T12 to L3 lie 26 to 35 mm apart in four scans and five label maps; less is one
vertebra marked twice, more is a vertebra passed over, each with room for small people and fractures (judgement)."""

OUTSIDE_MM = 3.0
"""A point this far from every labelled voxel is outside of the vertebrae; a voxel's diagonal is not."""

ROUND_MM = 18.0
"""In this radius is the middle of the body in which a keypoint lies."""

DEPTH_SHARE = 0.4
"""A keypoint whose distance from the surface is a smaller share of the largest one round it is not in the middle of its
body: with half heights of 12 mm, it lies within 5 mm of the surface."""

BODY_CENTRE_MM = 8.0
"""From the centre of mass of its body, where bodies are drawn; a quarter of the distance between neighbours."""


def keypoint_findings(points: Sequence[Keypoint], masks: Mapping[str, Mask], geometry: Geometry) -> Iterator[Finding]:
    """All that is wrong with the keypoints of a case."""
    vertebrae = masks.get("vertebrae", NO_VOXELS)
    placed = {point.level: point for point in points}
    if len(placed) < len(points):
        yield Finding("keypoint_twice", MUST, "A level has two keypoints. Keep one.", None, points[-1].level)
    if not placed:
        if not vertebrae.empty:
            yield Finding("no_keypoints", LOOK, "No keypoint is placed. Place T12, L1 and L2 as far as the scan shows them.")
        return
    inside = {}
    for level, point in placed.items():
        kji = geometry.to_kji(np.array(point.position_lps_mm))
        if np.any(kji < -0.5) or np.any(kji > np.array(geometry.shape_kji) - 0.5):
            yield Finding("keypoint_outside_scan", MUST, f"{level} lies outside of the scan.", point.position_lps_mm, level)
        else:
            inside[level] = kji
    wrong = list(_order(placed, inside))
    yield from wrong or _distances(placed)  # exchanged points are wrongly spaced too
    yield from _unsure(points)
    for level, kji in inside.items():
        if not vertebrae.empty:
            yield from _middle(placed[level], kji, masks, geometry)


def _order(placed: Mapping[str, Keypoint], kji: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """T12 above L1 above L2 along the scan's axis from foot to head."""
    for upper, lower in pairwise(level for level in LEVELS if level in kji):
        if kji[upper][0] <= kji[lower][0]:
            yield Finding("keypoint_order", MUST, f"{upper} lies below {lower}. Exchange the two keypoints.",
                          placed[upper].position_lps_mm, upper)


def _distances(placed: Mapping[str, Keypoint]) -> Iterator[Finding]:
    """Neighbours too near or too far, and a level left out between two others."""
    low, high = STEP_MM
    levels = [level for level in LEVELS if level in placed]
    for upper, lower in pairwise(levels):
        steps = LEVELS.index(lower) - LEVELS.index(upper)
        distance = math.dist(placed[upper].position_lps_mm, placed[lower].position_lps_mm)
        if not steps * low <= distance <= steps * high:
            why = "One vertebra seems to be marked twice" if distance < steps * low else "A vertebra seems to be passed over"
            yield Finding("keypoint_distance", MUST, f"{upper} and {lower} lie {distance:.0f} mm apart, expected are "
                          f"{steps * low:.0f} to {steps * high:.0f} mm. {why}.", placed[lower].position_lps_mm, lower)
        if steps > 1:
            between = tuple((a + b) / 2 for a, b in zip(placed[upper].position_lps_mm, placed[lower].position_lps_mm,
                                                        strict=True))
            yield Finding("keypoint_missing", MUST, f"{LEVELS[LEVELS.index(upper) + 1]} has no keypoint, though {upper} and "
                          f"{lower} have.", between, LEVELS[LEVELS.index(upper) + 1])


def _unsure(points: Sequence[Keypoint]) -> Iterator[Finding]:
    """Levels that a model has named and is not certain of; a point that a person moved has no confidence any more. All
    levels of a scan are named together, so that one sentence is enough."""
    doubtful = [point for point in points if point.confidence is not None and point.confidence < CERTAIN]
    if doubtful:
        first = min(doubtful, key=lambda point: point.confidence)
        yield Finding("level_uncertain", LOOK, f"The model is {100 * first.confidence:.0f} % certain that this is "
                      f"{first.level}. Count the vertebrae.", first.position_lps_mm, first.level)


def _middle(point: Keypoint, kji: np.ndarray, masks: Mapping[str, Mask], geometry: Geometry) -> Iterator[Finding]:
    """Whether a keypoint lies in the vertebrae, and in the middle of a body."""
    level, where = point.level, point.position_lps_mm
    distance, share = _depth(kji, masks["vertebrae"], geometry)
    if distance > OUTSIDE_MM:
        far = f"{distance:.0f} mm from" if math.isfinite(distance) else "far from"
        yield Finding("keypoint_outside", MUST, f"{level} lies outside of the vertebrae, {far} the nearest.", where, level)
        return
    body = masks.get(f"body_{level}", NO_VOXELS)
    if not body.empty:
        off = float(np.linalg.norm(body.centroid_lps_mm(geometry) - where))
        if off > BODY_CENTRE_MM:
            yield Finding("keypoint_off_centre", LOOK, f"{level} lies {off:.0f} mm from the centre of its body.", where,
                          level)
    elif share < DEPTH_SHARE:
        yield Finding("keypoint_off_centre", LOOK, f"{level} lies near the surface of the vertebrae, not in the middle of a "
                      "body.", where, level)


def _depth(kji: np.ndarray, vertebrae: Mask, geometry: Geometry) -> tuple[float, float]:
    """Distance of a point to the nearest vertebra (0 inside; infinite beyond ROUND_MM), and its depth below the surface as a
    share of the largest within ROUND_MM."""
    spacing = np.array(geometry.spacing_kji_mm)
    reach = np.ceil(2 * ROUND_MM / spacing).astype(int)
    low = np.rint(kji).astype(int) - reach
    shape = 2 * reach + 1
    near = np.zeros(shape, bool)
    start = np.maximum(low, vertebrae.start_kji)
    stop = np.minimum(low + shape, np.add(vertebrae.start_kji, vertebrae.voxels.shape))
    if np.all(stop > start):
        near[tuple(slice(a, b) for a, b in zip(start - low, stop - low, strict=True))] = vertebrae.voxels[
            tuple(slice(a, b) for a, b in zip(start - vertebrae.start_kji, stop - vertebrae.start_kji, strict=True))]
    offset = np.indices(shape).transpose(1, 2, 3, 0) * spacing - (kji - low) * spacing
    away = np.linalg.norm(offset, axis=-1)
    distance = float(away[near].min()) if near.any() else math.inf
    depth = ndimage.distance_transform_edt(near, sampling=spacing)
    largest = float(depth[away <= ROUND_MM].max())
    here = float(depth[tuple(np.rint(kji - low).astype(int))])
    nearest_voxel_mm = float(np.linalg.norm(spacing)) / 2
    return (0.0 if distance <= nearest_voxel_mm else distance), (here / largest if largest else 0.0)
