"""Whether the slices of a series make a regular grid, and which one."""

from __future__ import annotations

import numpy as np

from ..flags import Refusal
from ..geometry import Geometry
from .series import Plane, Series

SPACING_TOLERANCE = 0.1
"""Share of the slice spacing by which single gaps may differ: positions are often rounded to 0.1 mm."""

SPACING_TOLERANCE_MM = 0.11
"""The same in mm, for thin slices."""

DOUBLED_MM = 0.01
"""Slices closer together than this lie at the same position."""

MAX_TILT_DEGREES = 0.5
"""Angle between slice normal and slice shift above which the grid is sheared; 0.5 degrees moves 3 mm in 350."""

MAX_DRIFT_MM = 1.0
"""In-plane wander of single slices off the straight line: about one pixel."""


def stack_geometry(series: Series) -> tuple[list[Plane], Geometry]:
    """The planes in order along their normal, and the grid they make.

    Raises Refusal: ``too_few_slices``, ``doubled_slices``, ``missing_slices``, ``uneven_slices``,
    ``gantry_tilt``.
    """
    planes = sorted(series.planes, key=lambda p: p.depth_mm)
    if len(planes) < 2:
        raise Refusal("too_few_slices", f"{series.title} has a single slice. Choose the full axial series.")
    depths = np.array([p.depth_mm for p in planes])
    positions = np.array([p.position for p in planes])
    _refuse_doubled(depths, positions)
    _refuse_gaps(depths, positions)
    _refuse_shear(positions, planes[0].normal)
    return planes, Geometry((len(planes), int(planes[0].header.Rows), int(planes[0].header.Columns)),
                            _matrix(planes, depths))


def _refuse_doubled(depths: np.ndarray, positions: np.ndarray) -> None:
    twice = np.flatnonzero(np.diff(depths) < DOUBLED_MM)
    if twice.size:
        raise Refusal("doubled_slices", f"{twice.size} slice positions occur twice, the first at z = "
                      f"{positions[twice[0], 2]:.1f} mm: several phases or reconstructions in one series. Export "
                      "them as separate series, or choose another with the series option.")


def _refuse_gaps(depths: np.ndarray, positions: np.ndarray) -> None:
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(SPACING_TOLERANCE * usual, SPACING_TOLERANCE_MM))
    if not odd.size:
        return
    between = ", ".join(f"{positions[n, 2]:.1f} and {positions[n + 1, 2]:.1f}" for n in odd[:5])
    more = f" (and {odd.size - 5} more places)" if odd.size > 5 else ""
    counts = gaps[odd] / usual
    if np.all(np.abs(counts - np.rint(counts)) < 0.1) and np.all(counts > 1.5):
        missing = int(np.rint(counts).sum()) - odd.size
        raise Refusal("missing_slices", f"{missing} of {len(depths) + missing} slices are missing, between z = "
                      f"{between} mm{more}. Send the series from the archive again.")
    raise Refusal("uneven_slices", f"The slices are {usual:.2f} mm apart, but not between z = {between} mm{more}. "
                  "Export one evenly spaced series; two scan ranges may have been joined.")


def _refuse_shear(positions: np.ndarray, normal: np.ndarray) -> None:
    shift = positions[-1] - positions[0]
    along = float(np.dot(shift, normal))
    across = float(np.linalg.norm(shift - along * normal))
    tilt = float(np.degrees(np.arctan2(across, along)))
    if tilt > MAX_TILT_DEGREES:
        raise Refusal("gantry_tilt", f"The gantry was tilted by {tilt:.1f} degrees and the series was not "
                      "resampled, so the slices are sheared. In 3D Slicer, load it with 'apply regularization "
                      "transform', harden the transform, and measure the exported volume.")
    line = positions[0] + ((positions - positions[0]) @ normal / along)[:, None] * shift
    drift = float(np.linalg.norm(positions - line, axis=1).max())
    if drift > MAX_DRIFT_MM:
        raise Refusal("uneven_slices", f"Single slices lie {drift:.1f} mm beside the others: the image centre was "
                      "moved during the series. Export a series with one reconstruction centre.")


def _matrix(planes: list[Plane], depths: np.ndarray) -> np.ndarray:
    """(4, 4) IJK to LPS; the axis k runs along the normal at the mean spacing."""
    row, column = np.array(planes[0].orientation[:3]), np.array(planes[0].orientation[3:])
    row_spacing, column_spacing = planes[0].pixel_spacing
    matrix = np.eye(4)
    matrix[:3, 0] = row / np.linalg.norm(row) * column_spacing
    matrix[:3, 1] = column / np.linalg.norm(column) * row_spacing
    matrix[:3, 2] = planes[0].normal * (depths[-1] - depths[0]) / (len(depths) - 1)
    matrix[:3, 3] = planes[0].position
    return matrix
