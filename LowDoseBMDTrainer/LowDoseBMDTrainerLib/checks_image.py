"""Checks of labels against the CT: what lies in air or outside of the patient, and whether bone has the HU of bone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import resample
from LowDoseBMDLib.orientation import COARSE_MM, coarse_body
from LowDoseBMDLib.rois import Mask
from scipy import ndimage

from .checks_shape import TOUCHING, title
from .findings import MUST, Finding
from .raters import middle_voxel, point_of

AIR_HU = -300.0
"""Between lung and soft tissue: no bone, and no marrow of pure fat, is below."""

AIR_MM3 = 300.0
"""Connected labelled air that is more than the rim of a rib against lung: in lidc0001 the largest such rim has 64 mm3."""

OUTSIDE_MM3 = 500.0
SKIN_MM = 8.0
"""The body is found on a grid of 4 mm; within two of its voxels of the skin nothing is outside."""

VERTEBRAE_HU = (20.0, 700.0)
"""Median HU of whole vertebrae, cortex included: 245 to 307 in the scans of development, near 80 in severe osteoporosis;
outside of this the labels lie beside the bone, or the values are no HU (judgement)."""


def body_of(ct: CTVolume) -> np.ndarray:
    """(k, j, i) bool on the CT's grid: the patient, lungs included, couch not, and SKIN_MM round."""
    grid = ct.geometry.with_spacing(COARSE_MM)
    body = ndimage.binary_dilation(coarse_body(ct).body, iterations=round(SKIN_MM / COARSE_MM))
    return resample(body.astype(np.uint8), grid, ct.geometry, outside=0, nearest=True).astype(bool)


def in_air(name: str, mask: Mask, ct: CTVolume) -> Iterator[Finding]:
    """A connected part of a structure whose HU are those of air or lung."""
    pieces, count = ndimage.label(mask.voxels & (ct.hu[mask.box] < AIR_HU), TOUCHING)
    if not count:
        return
    volume, place = _largest(pieces, mask, ct)
    if volume >= AIR_MM3:
        yield Finding("in_air", MUST, f"{volume / 1000:.1f} cm³ labelled {title(name)} are air or lung (below {AIR_HU:.0f} "
                      "HU).", place, name)


def outside_body(name: str, mask: Mask, ct: CTVolume, body: np.ndarray) -> Iterator[Finding]:
    """A connected part of a structure outside of the patient, such as in the couch. body: of body_of."""
    pieces, count = ndimage.label(mask.voxels & ~body[mask.box], TOUCHING)
    if not count:
        return
    volume, place = _largest(pieces, mask, ct)
    if volume >= OUTSIDE_MM3:
        yield Finding("outside_body", MUST, f"{volume / 1000:.1f} cm³ labelled {title(name)} lie outside of the patient.",
                      place, name)


def _largest(pieces: np.ndarray, mask: Mask, ct: CTVolume) -> tuple[float, tuple[float, float, float]]:
    sizes = np.bincount(pieces.ravel())[1:]
    number = int(np.argmax(sizes)) + 1
    place = point_of(ct.geometry, middle_voxel(pieces == number) + mask.start_kji)
    return float(sizes[number - 1]) * ct.geometry.voxel_volume_mm3, place


def vertebrae_hu(mask: Mask, ct: CTVolume) -> Iterator[Finding]:
    """Vertebrae whose HU are not those of bone."""
    median = float(np.median(mask.values(ct.hu)))
    low, high = VERTEBRAE_HU
    if not low <= median <= high:
        place = point_of(ct.geometry, middle_voxel(mask.voxels) + mask.start_kji)
        yield Finding("vertebrae_hu", MUST, f"The vertebrae have a median of {median:.0f} HU, expected are {low:.0f} to "
                      f"{high:.0f}. Do the labels belong to this CT?", place, "vertebrae")
