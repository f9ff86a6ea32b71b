"""A vertebra's own axes: the curve through its neighbours, a local grid along its axes, and the body's shape.

Local grids are indexed (u, a, l): up along the vertebra's own axis, to its own posterior, to its own left. Axes
are unit vectors in LPS, stored as rows in the order left, posterior, superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .geometry import Geometry
from .rois import Mask

ENDPLATE_PART = 0.7
"""Endplates are fitted within this part of the footprint's half axes: rims and osteophytes lie outside."""

ENDPLATE_TURN = 0.36
"""Largest slope (20 degrees) by which endplates may correct the axis that the spine's curve gives."""

HEIGHT_STRIPS = {"anterior": 0.15, "middle": 0.5, "posterior": 0.85}
"""Where heights are read, as a part of the body's depth from its front, after Genant's six points."""

STRIP_HALF_DEPTH = 0.08
STRIP_HALF_WIDTH = 0.2
"""Half size of the area over which a height is averaged, as a part of the body's depth and width."""

ROUND_RATIO = 1.2
"""Width over depth below which a body's footprint does not tell where its front is (upper thoracic bodies)."""

FLANK_PERCENTILE = 1.0
"""Percentile of voxel positions taken as the body's edge, so that a spur does not set width and depth."""

LOCAL_SPACING_MM = 1.2
"""Spacing of local grids: the thinnest wall that matters there, an endplate rim, is 2-3 mm."""

PAD_MM = 4.0


@dataclass(frozen=True, eq=False)
class LocalGrid:
    """An isotropic grid along a vertebra's own axes.

    axes: (3, 3) rows left, posterior, superior (unit, LPS). corner_lps_mm: centre of voxel (0, 0, 0).
    shape: voxels along u, a, l.
    """

    axes: np.ndarray
    corner_lps_mm: np.ndarray
    spacing_mm: float
    shape: tuple[int, int, int]

    def coordinates(self, lps_mm: np.ndarray) -> np.ndarray:
        """(..., 3) LPS mm -> (..., 3) fractional indices (u, a, l)."""
        return (np.asarray(lps_mm) - self.corner_lps_mm) @ self.axes[::-1].T / self.spacing_mm

    def to_lps(self, ual: np.ndarray) -> np.ndarray:
        """(..., 3) indices (u, a, l) -> (..., 3) LPS mm."""
        return self.corner_lps_mm + self.spacing_mm * np.asarray(ual, dtype=float) @ self.axes[::-1]

    def sample(self, mask: Mask, geometry: Geometry) -> np.ndarray:
        """(u, a, l) float32 share of the mask at each local voxel, linear between the CT's voxels."""
        start = geometry.to_kji(self.to_lps(np.zeros(3)))
        matrix = (geometry.to_kji(self.to_lps(np.eye(3))) - start).T
        return ndimage.affine_transform(np.pad(mask.voxels, 1).astype(np.float32), matrix,
                                        start - np.asarray(mask.start_kji) + 1, self.shape, order=1)

    def draw(self, values: np.ndarray, mask: Mask, geometry: Geometry) -> np.ndarray:
        """Local float values (u, a, l), linear, at the voxels of the mask's box: (k, j, i) float32."""
        first = np.asarray(mask.start_kji)
        start = self.coordinates(geometry.to_lps(first))
        matrix = (self.coordinates(geometry.to_lps(first + np.eye(3))) - start).T
        return ndimage.affine_transform(values.astype(np.float32), matrix, start, mask.voxels.shape, order=1)


@dataclass(frozen=True, eq=False)
class BodyShape:
    """Size and attitude of one vertebral body.

    axes: (3, 3) rows left, posterior, superior (unit, LPS). height_mm: anterior, middle, posterior.
    """

    centre_lps_mm: np.ndarray
    axes: np.ndarray
    height_mm: tuple[float, float, float]
    width_mm: float
    depth_mm: float


def local_grid(mask: Mask, geometry: Geometry, axes: np.ndarray, spacing_mm: float) -> LocalGrid:
    """The smallest local grid along ``axes`` that holds the mask with a margin."""
    along = geometry.to_lps(_row_ends(mask.voxels) + mask.start_kji) @ axes[::-1].T
    low, high = along.min(axis=0) - PAD_MM, along.max(axis=0) + PAD_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    return LocalGrid(axes, low @ axes[::-1], spacing_mm, shape)


def _row_ends(voxels: np.ndarray) -> np.ndarray:
    """(N, 3) first and last voxel of every row along i: they bound a region in any direction, as all its voxels do."""
    kj = np.argwhere(voxels.any(axis=2))
    rows = voxels[kj[:, 0], kj[:, 1]]
    first, last = rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([kj, first]), np.column_stack([kj, last])])


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1."""
    return np.asarray(vector, dtype=float) / np.linalg.norm(vector)


def axes_from(superior: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Right-angled axes (rows left, posterior, superior) that keep ``superior`` and turn ``posterior`` onto it."""
    up = unit(superior)
    back = unit(np.asarray(posterior) - up * np.dot(posterior, up))
    return np.array([np.cross(back, up), back, up])


def tangents(points_mm: np.ndarray) -> np.ndarray:
    """(N, 3) points along the spine from head to foot -> (N, 3) unit vectors along it, towards the head.

    One point alone is given the patient's own axis. At both ends the curve's bend is continued.
    """
    points = np.asarray(points_mm, dtype=float)
    if len(points) < 2:
        return np.tile([0.0, 0.0, 1.0], (len(points), 1))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    slope = -np.gradient(points, np.maximum.accumulate(along + 1e-3 * np.arange(len(along))), axis=0,
                         edge_order=2 if len(points) > 2 else 1)
    return slope / np.linalg.norm(slope, axis=1, keepdims=True)


def endplate_axis(body: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The superior axis midway between a body's two endplates.

    body: (u, a, l) bool on an isotropic grid along ``axes``. Planes are fitted to the upper and lower faces away
    from the rim; returns the unit LPS vector that halves their normals.
    """
    columns = np.argwhere(inner_part(body.any(axis=0)))
    if len(columns) < 12:
        return axes[2]
    faces = body[:, columns[:, 0], columns[:, 1]]
    present = faces.any(axis=0)
    columns, faces = columns[present], faces[:, present]
    lower, upper = faces.argmax(axis=0), faces.shape[0] - 1 - faces[::-1].argmax(axis=0)
    slope = 0.5 * (_plane(columns, lower) + _plane(columns, upper))
    slope *= min(1.0, ENDPLATE_TURN / max(float(np.linalg.norm(slope)), 1e-9))
    return unit(axes[2] - slope[0] * axes[1] - slope[1] * axes[0])


def inner_part(footprint: np.ndarray) -> np.ndarray:
    """The part of a footprint (a, l) inside a scaled copy of the ellipse with its second moments."""
    where = np.argwhere(footprint)
    if len(where) < 4:
        return footprint
    offset = np.indices(footprint.shape).reshape(2, -1).T - where.mean(axis=0)
    spread = np.cov(where.T) + 1e-6 * np.eye(2)
    distance2 = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(spread), offset) / 4.0
    return footprint & (distance2 <= ENDPLATE_PART**2).reshape(footprint.shape)


def _plane(columns: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(2,) slopes of a plane through (N,) heights over (N, 2) columns (a, l); far-off columns are dropped once."""
    design = np.column_stack([columns, np.ones(len(columns))])
    fit = np.linalg.lstsq(design, height, rcond=None)[0]
    error = np.abs(design @ fit - height)
    keep = error <= max(1.5, 2.5 * float(np.median(error)))
    return np.linalg.lstsq(design[keep], height[keep], rcond=None)[0][:2]


def describe_body(body: Mask, geometry: Geometry, above_mm: np.ndarray | None = None,
                  below_mm: np.ndarray | None = None, posterior: Mask | None = None,
                  axes: np.ndarray | None = None) -> BodyShape:
    """Axes and size of a vertebral body from its mask alone.

    above_mm, below_mm: (3,) LPS centres of the neighbouring bodies, where known; they give the first guess of the
    axis, the endplates the rest. posterior: the posterior elements, which tell the AP axis best; without them the
    footprint's short axis does where it is clearly wider than deep, else the patient's own AP direction.
    axes: (3, 3), when known already. The mask must not be empty.
    """
    centre = body.centroid_lps_mm(geometry)
    if axes is None:
        axes = _body_axes(body, geometry, centre, above_mm, below_mm, posterior)
    grid = local_grid(body, geometry, axes, LOCAL_SPACING_MM)
    local = grid.sample(body, geometry) > 0.5
    edges = [np.percentile(where, [FLANK_PERCENTILE, 100 - FLANK_PERCENTILE]) for where in np.nonzero(local)[1:]]
    depth, width = (float(high - low + 1) for low, high in edges)
    heights = tuple(_height(local, edges[0][0] + part * depth, float(edges[1].mean()), depth, width)
                    * grid.spacing_mm for part in HEIGHT_STRIPS.values())
    return BodyShape(centre, axes, heights, width * grid.spacing_mm, depth * grid.spacing_mm)


def _height(local: np.ndarray, back: float, left: float, depth: float, width: float) -> float:
    """Mean height in voxels over a small area round (back, left)."""
    box = tuple(slice(max(0, int(np.floor(c - half))), int(np.ceil(c + half)) + 1)
                for c, half in ((back, STRIP_HALF_DEPTH * depth), (left, STRIP_HALF_WIDTH * width)))
    height = np.count_nonzero(local[:, box[0], box[1]], axis=0)
    return float(height[height > 0].mean()) if height.any() else 0.0


def _body_axes(body: Mask, geometry: Geometry, centre: np.ndarray, above: np.ndarray | None,
               below: np.ndarray | None, posterior: Mask | None) -> np.ndarray:
    upper, lower = (centre if above is None else above), (centre if below is None else below)
    up = np.array([0.0, 0.0, 1.0]) if above is None and below is None else unit(np.asarray(upper) - lower)
    back = np.array([0.0, 1.0, 0.0])
    if posterior is not None and not posterior.empty:
        back = posterior.centroid_lps_mm(geometry) - centre
    for _ in range(2):
        axes = axes_from(up, back)
        local = local_grid(body, geometry, axes, LOCAL_SPACING_MM).sample(body, geometry) > 0.5
        up = endplate_axis(local, axes)
    if posterior is None or posterior.empty:
        back = _short_axis(local.sum(axis=0), axes)
    return axes_from(up, back)


def _short_axis(footprint: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The posterior direction by the footprint's inertia, or the given one when the footprint is too round."""
    where = np.argwhere(footprint > 0.5 * footprint.max())
    if len(where) < 3:
        return axes[1]
    values, vectors = np.linalg.eigh(np.cov(where.T))
    short = vectors[:, 0] * np.sign(vectors[0, 0])
    if np.sqrt(values[1] / max(values[0], 1e-9)) < ROUND_RATIO or abs(short[0]) < np.cos(np.radians(25.0)):
        return axes[1]
    return short[0] * axes[1] + short[1] * axes[0]


def middle_of(points: Sequence[np.ndarray | None], positions: np.ndarray) -> list[np.ndarray | None]:
    """Fill gaps in points along the spine by the line through the nearest known ones.

    points: (3,) LPS mm or None. positions: (N,) where each lies along the spine, mm. None stays where nothing is
    known at all.
    """
    known = [n for n, p in enumerate(points) if p is not None]
    return [p if p is not None else _on_line(points, positions, known, n) for n, p in enumerate(points)]


def _on_line(points: Sequence[np.ndarray | None], positions: np.ndarray, known: list[int],
             n: int) -> np.ndarray | None:
    if len(known) < 2:
        return None
    below = [m for m in known if m < n]
    above = [m for m in known if m > n]
    first, second = (below[-1], above[0]) if below and above else (below[-2:] if below else above[:2])
    share = (positions[n] - positions[first]) / (positions[second] - positions[first])
    return points[first] + share * (points[second] - points[first])
