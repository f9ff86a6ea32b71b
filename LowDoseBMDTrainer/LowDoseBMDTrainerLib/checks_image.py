"""Checks of labels against the CT: what lies in air or outside of the patient, and whether bone has the HU of bone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.orientation import COARSE_MM, coarse_body
from LowDoseBMDLib.rois import Mask
from scipy import ndimage

from .checks_shape import title
from .findings import MUST, Finding
from .raters import TOUCHING, middle_voxel, point_of

AIR_HU = -300.0
"""Between lung and soft tissue: no bone, and no marrow of pure fat, is below."""

AIR_MM3 = 300.0
"""Connected labelled air that is more than the rim of a rib against lung: model labels of a chest CT have rims of up to
42 mm3, on a grid of 3 mm 81 mm3."""

OUTSIDE_MM3 = 500.0
SKIN_MM = 8.0
"""The body is found on a grid of 4 mm; within two of its voxels of the skin nothing is outside."""

VERTEBRAE_HU = (20.0, 700.0)
"""Median HU of whole vertebrae, cortex included: 245 to 307 in a chest CT and two phantoms. Outside of this wide range the
labels lie beside the bone, or the values are no HU (judgement)."""


@dataclass(frozen=True, eq=False)
class Body:
    """The patient in a CT, lungs included, couch not, and SKIN_MM round. inside: (k, j, i) bool on ``grid``; geometry: of
    the CT."""

    inside: np.ndarray
    grid: Geometry
    geometry: Geometry

    def covers(self, index_kji: np.ndarray) -> np.ndarray:
        """(N,) bool, which voxels (N, 3) of the CT lie in the patient; those beyond the scan do not."""
        there = np.rint(self.grid.to_kji(self.geometry.to_lps(index_kji))).astype(int)
        found = np.all((index_kji >= 0) & (index_kji < self.geometry.shape_kji), axis=1)
        found &= np.all((there >= 0) & (there < self.inside.shape), axis=1)
        found[found] = self.inside[tuple(there[found].T)]
        return found


def body_of(ct: CTVolume) -> Body:
    """Where the patient is."""
    inside = ndimage.binary_dilation(coarse_body(ct).body, iterations=round(SKIN_MM / COARSE_MM))
    return Body(inside, ct.geometry.with_spacing(COARSE_MM), ct.geometry)


def in_air(name: str, mask: Mask, ct: CTVolume) -> Iterator[Finding]:
    """A connected part of a structure whose HU are those of air or lung."""
    volume, place = _largest(mask.voxels & (ct.hu[mask.box] < AIR_HU), AIR_MM3, mask, ct)
    if place is not None:
        yield Finding("in_air", MUST, f"{volume / 1000:.1f} cm³ labelled {title(name)} are air or lung (below {AIR_HU:.0f} "
                      "HU).", place, name)


def outside_body(name: str, mask: Mask, ct: CTVolume, body: Body) -> Iterator[Finding]:
    """A connected part of a structure outside of the patient, such as in the couch."""
    index = np.argwhere(mask.voxels)
    out = index[~body.covers(index + mask.start_kji)]
    region = np.zeros(mask.voxels.shape, bool)
    region[tuple(out.T)] = True
    volume, place = _largest(region, OUTSIDE_MM3, mask, ct)
    if place is not None:
        yield Finding("outside_body", MUST, f"{volume / 1000:.1f} cm³ labelled {title(name)} lie outside of the patient.",
                      place, name)


def _largest(region: np.ndarray, least_mm3: float, mask: Mask,
             ct: CTVolume) -> tuple[float, tuple[float, float, float] | None]:
    """Volume and middle of the largest connected part of a bool array like mask.voxels; (0, None) when it has less than
    least_mm3."""
    voxel_mm3 = ct.geometry.voxel_volume_mm3
    if np.count_nonzero(region) * voxel_mm3 < least_mm3:
        return 0.0, None
    pieces, _ = ndimage.label(region, TOUCHING)
    sizes = np.bincount(pieces.ravel())[1:]
    number = int(np.argmax(sizes)) + 1
    volume = float(sizes[number - 1]) * voxel_mm3
    if volume < least_mm3:
        return 0.0, None
    return volume, point_of(ct.geometry, middle_voxel(pieces == number) + mask.start_kji)


def vertebrae_hu(mask: Mask, ct: CTVolume) -> Iterator[Finding]:
    """Vertebrae whose HU are not those of bone."""
    median = float(np.median(mask.values(ct.hu)))
    low, high = VERTEBRAE_HU
    if not low <= median <= high:
        place = point_of(ct.geometry, middle_voxel(mask.voxels) + mask.start_kji)
        yield Finding("vertebrae_hu", MUST, f"The vertebrae have a median of {median:.0f} HU, expected are {low:.0f} to "
                      f"{high:.0f}. Do the labels belong to this CT?", place, "vertebrae")
