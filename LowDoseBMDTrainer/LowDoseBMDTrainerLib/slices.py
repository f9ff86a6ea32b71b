"""Drawing slice by slice: which slices are labelled, and an adaptive brush.

Arrays are (k, j, i); ``axis`` counts in that order: 0 axial, 1 coronal, 2 sagittal slices of a canonical CT.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

BRUSH_SIGMA_MM = 0.7
"""The CT is smoothed by this before the adaptive brush compares: noise of one voxel is no edge."""

BRUSH_TOLERANCE_HU = 100.0
"""By how much a voxel may differ from the brush's centre. Judgement: half the step from bone marrow to cortex."""


def labelled_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    """(N,) bool: the slices along the axis in which the region (k, j, i, bool) has a voxel."""
    return mask.any(axis=tuple(a for a in range(3) if a != axis))


def adaptive_brush(hu: np.ndarray, spacing_kji_mm: Sequence[float], centre_kji: tuple[int, int, int], radius_mm: float,
                   tolerance_hu: float = BRUSH_TOLERANCE_HU, flat_axis: int | None = None,
                   ) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """What a brush at the centre paints: voxels of the ball that look like its centre and hang together with it.

    hu: (k, j, i) of the CT. flat_axis: paint in the slice across this axis only, else in 3D. Returns a bool array and
    the box of the CT where it lies. Raises ValueError for a centre outside of the CT or a radius that is not positive.
    """
    if radius_mm <= 0 or not all(0 <= c < n for c, n in zip(centre_kji, hu.shape, strict=True)):
        raise ValueError(f"a brush of radius {radius_mm:g} mm at voxel {tuple(centre_kji)} does not touch the CT")
    reach = [0 if a == flat_axis else int(radius_mm / s) for a, s in enumerate(spacing_kji_mm)]
    box = tuple(slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(centre_kji, reach, hu.shape, strict=True))
    sigma = [0.0 if a == flat_axis else BRUSH_SIGMA_MM / s for a, s in enumerate(spacing_kji_mm)]
    image = ndimage.gaussian_filter(np.asarray(hu[box], dtype=np.float32), sigma)
    centre = tuple(c - s.start for c, s in zip(centre_kji, box, strict=True))
    offsets = [(np.arange(n) - c) * s for n, c, s in zip(image.shape, centre, spacing_kji_mm, strict=True)]
    near = offsets[0][:, None, None] ** 2 + offsets[1][:, None] ** 2 + offsets[2] ** 2 <= radius_mm**2
    alike = near & (np.abs(image - image[centre]) <= tolerance_hu)
    parts, _ = ndimage.label(alike)
    return parts == parts[centre], box
