"""Read a CT or a label map from whatever a clinic has: a DICOM folder, NIfTI, NRRD or MetaImage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..ctvolume import Acquisition, CTVolume
from ..flags import Refusal
from ..geometry import Geometry, resample
from . import volumes

MIN_SLICES = 20
"""Fewer slices cannot hold two vertebrae: 20 slices of 3 mm are 60 mm, about L1 and L2."""

AIR_BELOW_HU = -200.0
"""Every CT of a trunk holds air or lung far below this; fat, the lightest soft tissue, is about -110 HU."""

BONE_ABOVE_HU = 150.0
"""Every CT of a trunk holds cortical bone or metal above this."""

MIN_ALIGNMENT = 0.7
"""Cosine between a grid axis and the patient's axis that ``CTVolume`` needs (45 degrees)."""

MIN_LABEL_OVERLAP = 0.5
"""Share of a label map's voxels that must lie inside the CT to believe that it belongs to it."""

SAMPLED_VOXELS = 4e6
"""Overlap is judged on about this many voxels of a label map: positions of all of them would take gigabytes."""

_INT16 = np.iinfo(np.int16)


def read_ct(path: Path | Sequence[Path], series: str | None = None) -> CTVolume:
    """Read one CT.

    path: a DICOM folder (searched with its subfolders), one DICOM file of a series, the DICOM files of one study, NIfTI
    (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd). series: SeriesInstanceUID or series number, DICOM only;
    without it the series that suits best is chosen and ``acquisition.series_choice`` says why.

    Returns the CT with canonical axes (i to Left, j to Posterior, k to Superior), by permuting and flipping
    axes only: values are never resampled. int16 when all values are whole numbers that fit, else float32.

    Raises Refusal with the reason and the way out when the data cannot be a CT that is fit to measure.
    """
    path = Path(path) if isinstance(path, (str, Path)) else tuple(path)
    if isinstance(path, Path) and not path.exists():
        raise Refusal("path_missing", "There is nothing at the given path. Check the spelling and that the drive "
                      "is connected.")
    if isinstance(path, Path) and path.is_file() and (kind := volumes.kind_of(path)):
        array, geometry = volumes.read_volume(path)
        return ct_from_array(array, geometry, Acquisition(source=kind))
    from .dicom import read_series

    read = read_series(path, series)
    return replace(ct_from_array(read.hu, read.geometry, read.acquisition), flags=read.flags)


def ct_from_array(array: np.ndarray, geometry: Geometry, acquisition: Acquisition) -> CTVolume:
    """A CT from values (k, j, i) on a grid whose axes may run anywhere; values are copied only where they must be.

    Raises Refusal when they cannot be a CT that is fit to measure.
    """
    refuse_implausible(array)
    ct = reorient(compact(array), geometry, acquisition)
    if ct.hu.shape[0] < MIN_SLICES:
        raise Refusal("too_few_slices", f"The scan has {ct.hu.shape[0]} slices; at least {MIN_SLICES} are needed "
                      "to hold two whole vertebrae. Choose the full axial series.")
    return ct


def reorient(hu: np.ndarray, geometry: Geometry, acquisition: Acquisition | None = None) -> CTVolume:
    """The same voxels with canonical axes: i to the patient's Left, j to Posterior, k to Superior.

    hu: (k, j, i) on ``geometry``, whose axes may run anywhere. Axes are permuted and flipped, values kept.
    Raises Refusal ``oblique`` when an axis is 45 degrees or more from the patient's.
    """
    array, grid = _canonical(hu, geometry)
    return CTVolume(array, grid, acquisition or Acquisition())


def _canonical(array: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    direction = geometry.direction
    ijk_axes = _closest_axes(direction)
    columns, flips = [], []
    origin = geometry.ijk_to_lps[:3, 3].copy()
    for patient_axis, grid_axis in enumerate(ijk_axes):
        step = geometry.ijk_to_lps[:3, grid_axis]
        flip = step[patient_axis] < 0
        if flip:
            origin += step * (geometry.shape_kji[2 - grid_axis] - 1)
        columns.append(-step if flip else step)
        flips.append(flip)
    order = tuple(2 - ijk_axes[patient_axis] for patient_axis in (2, 1, 0))
    array = array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in reversed(flips))]
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack(columns)
    matrix[:3, 3] = origin
    return np.ascontiguousarray(array), Geometry(array.shape, matrix)


def _closest_axes(direction: np.ndarray) -> tuple[int, int, int]:
    """For each of the patient's axes x, y, z the grid axis (0 i, 1 j, 2 k) that runs along it."""
    axes = tuple(int(a) for a in np.abs(direction).argmax(axis=1))
    cosines = np.abs(direction[np.arange(3), axes])
    if len(set(axes)) < 3 or cosines.min() < MIN_ALIGNMENT:
        angle = float(np.degrees(np.arccos(min(1.0, cosines.min()))))
        raise Refusal("oblique", f"The scan's axes are {angle:.0f} degrees off the patient's axes. Use the "
                      "original axial series, or resample the volume to axial slices and export again.")
    return axes


def compact(values: np.ndarray) -> np.ndarray:
    """int16 when all values are whole numbers that fit, else float32. Shape is kept."""
    if values.dtype == np.int16:
        return values
    if values.min() >= _INT16.min and values.max() <= _INT16.max:
        whole = values.astype(np.int16)
        if np.array_equal(whole, values):
            return whole
    return values.astype(np.float32)


def refuse_implausible(hu: np.ndarray) -> None:
    """Raise Refusal when the values cannot be the HU of a person's trunk.

    hu: any shape. Codes: ``not_finite``, ``constant``, ``hu_implausible``.
    """
    low, high = float(hu.min()), float(hu.max())
    if not np.all(np.isfinite((low, high))):
        raise Refusal("not_finite", f"{np.count_nonzero(~np.isfinite(hu))} voxels are not numbers (NaN or "
                      "infinite). Export the CT again from the original DICOM series.")
    if low == high:
        raise Refusal("constant", f"Every voxel has the same value ({low:g}): the volume is empty. Choose another "
                      "series or export again.")
    if low >= 0:
        raise Refusal("hu_implausible", f"The values run from {low:g} to {high:g} and none is negative: raw or "
                      "windowed values whose rescale to HU was lost. Export the original DICOM series with its "
                      "rescale intercept (often -1024).")
    if low > AIR_BELOW_HU:
        raise Refusal("hu_implausible", f"The lowest value is {low:g} HU, but air is near -1000 HU: the scale is "
                      "not HU or the values were clipped. Export the original DICOM series.")
    if high < BONE_ABOVE_HU:
        raise Refusal("hu_implausible", f"The highest value is {high:g} HU, too low for bone: the values were "
                      "clipped or the volume holds no bone. Export the original DICOM series.")


def read_labels(path: Path, ct_geometry: Geometry) -> np.ndarray:
    """A label map on the CT's grid.

    path: NIfTI, NRRD or MetaImage of whole numbers. Returns (k, j, i) unsigned or signed integers on
    ``ct_geometry``: voxel for voxel when the file has the same grid in any axis order, else by nearest
    neighbour, 0 outside the file's extent.

    Raises Refusal: ``path_missing``, ``unreadable``, ``labels_not_whole``, ``labels_empty``,
    ``labels_elsewhere`` (less than half of the labelled voxels lie inside the CT).
    """
    labels, grid = read_label_map(path)
    _refuse_labels_elsewhere(labels, grid, ct_geometry)
    if grid.same_grid(ct_geometry):
        return labels
    return resample(labels, grid, ct_geometry, outside=0, nearest=True)


def read_label_map(path: Path) -> tuple[np.ndarray, Geometry]:
    """A label map on its own grid with canonical axes: integers (k, j, i) and where they lie.

    Raises Refusal: ``path_missing``, ``unreadable``, ``labels_not_whole``.
    """
    path = Path(path)
    if not path.is_file():
        raise Refusal("path_missing", "There is no label map at the given path. Check the spelling.")
    if volumes.kind_of(path) is None:
        raise Refusal("unreadable", f"{path.suffix or 'No ending'} is not a label map format that is read here. "
                      f"Use one of {', '.join(volumes.KINDS)}.")
    labels, grid = volumes.read_volume(path)
    return _canonical(_whole_labels(labels), grid)


def _whole_labels(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values.sum(dtype=np.float64)) or not np.array_equal(values, np.rint(values)):
        raise Refusal("labels_not_whole", "The label map holds values that are not whole numbers: it is an image, "
                      "or was resampled with interpolation. Export it as a label map (nearest neighbour).")
    low, high = int(values.min()), int(values.max())
    kinds = (np.uint8, np.uint16, np.int16, np.int32)
    fits = next((t for t in kinds if np.iinfo(t).min <= low and high <= np.iinfo(t).max), np.int64)
    return values.astype(fits)


def _refuse_labels_elsewhere(labels: np.ndarray, grid: Geometry, ct_geometry: Geometry) -> None:
    stride = max(1, int(np.cbrt(labels.size / SAMPLED_VOXELS)))
    labelled = np.argwhere(labels[::stride, ::stride, ::stride] != 0) * stride
    if labelled.size == 0:
        labelled = np.argwhere(labels != 0)
    if labelled.size == 0:
        raise Refusal("labels_empty", "The label map is empty: every voxel is 0. Choose the file that holds the "
                      "regions.")
    kji = ct_geometry.to_kji(grid.to_lps(labelled))
    inside = np.all((kji > -0.5) & (kji < np.asarray(ct_geometry.shape_kji) - 0.5), axis=1).mean()
    if inside < MIN_LABEL_OVERLAP:
        raise Refusal("labels_elsewhere", f"Only {100 * inside:.0f} % of the labelled voxels lie inside the CT: "
                      "the label map belongs to another scan, or its position was lost. Export it with the CT.")
