"""The DICOM series that results belong to: its headers, its frames, and where the regions' voxels lie in them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..flags import Refusal
from ..geometry import Geometry
from ..rois import Mask
from ..roistats import clip
from .dicom import planes_of
from .series import Plane, Series, group_planes
from .stack import stack_geometry

if TYPE_CHECKING:
    from pydicom import Dataset

GRID_TOLERANCE = 0.25
"""Share of a voxel by which the regions' grid may differ from the slices: other readers round spacing and origin."""

SCHEME = "99SBMD"
SCHEME_NAME = "LowDoseBMD codes"
"""The private coding scheme of what standard dictionaries have no code for."""

MANUFACTURER = "LowDoseBMD"

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                 "StudyTime", "ReferringPhysicianName")
"""Attributes of type 2: an anonymiser may have removed them, which is mended by an empty value."""
_SEXES = ("M", "F", "O", "")


class DicomResultError(ValueError):
    """DICOM results cannot be written; the message says why and what to do, and names no patient."""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The slices on which regions lie.

    headers: one for each single-frame file, in the order of ``planes``, or the one of a multi-frame file; whole
    headers without pixels, so they name the patient. planes: along the slices' normal. geometry: of the stored
    slices, (planes, rows, columns).
    """

    headers: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    geometry: Geometry

    @property
    def multi_frame(self) -> bool:
        return self.planes[0].frame is not None

    @property
    def frame_count(self) -> int:
        return int(self.headers[0].NumberOfFrames) if self.multi_frame else len(self.headers)

    @property
    def sop_uids(self) -> list[str]:
        return [str(header.SOPInstanceUID) for header in self.headers]

    @property
    def slice_thickness_mm(self) -> float:
        """As stated, else the distance between slices."""
        return self.planes[0].slice_thickness_mm or self.geometry.spacing_kji_mm[0]

    def frame_of(self, k: int) -> int:
        """Number of the k-th plane among the frames: 0-based frame of a multi-frame file, else k itself."""
        return self.planes[k].frame if self.multi_frame else k

    @cached_property
    def planes_by_frame(self) -> dict[int, int]:
        return {self.frame_of(k): k for k in range(len(self.planes))}


def content_uid(*content: str | bytes | Iterable[str]) -> str:
    """A UID that follows from what an object says: the same result of the same slices is the same object in an archive.

    So a study that is measured again, after a crash or on another machine, is not stored there twice. The form is that of
    PS3.5 B.2, a UUID under the root 2.25; the UUID is one made from a name (RFC 9562, version 5).
    """
    digest = hashlib.sha256()
    for part in content:
        data = part if isinstance(part, bytes) else (part if isinstance(part, str) else "\n".join(part)).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest()).int}"


def read_source(sources: Sequence[Path] | Series, geometry: Geometry | None = None) -> SourceSeries:
    """The slices among the files or the series ``sources`` that make the grid ``geometry`` up to the order of its axes.

    geometry None: they must hold one stack of slices. Raises DicomResultError when no stack of them fits, or when their
    headers lack what a DICOM object that refers to them needs.
    """
    found = [sources] if isinstance(sources, Series) else group_planes(p for path in sources for p in planes_of(Path(path)))
    stacks = [stack for series in found if (stack := _stack(series))]
    fitting = [stack for stack in stacks if geometry is None or axes_between(geometry, stack[1]) is not None]
    if not fitting:
        raise DicomResultError("The given slices are not those on which the regions lie. Give the folder "
                               "of the series that was measured.")
    planes, stored = max(fitting, key=lambda stack: len(stack[0]))
    return SourceSeries(_headers(planes), tuple(planes), stored)


def _stack(series: Series) -> tuple[list[Plane], Geometry] | None:
    try:
        return stack_geometry(series) if series.placed else None
    except Refusal:
        return None


def _headers(planes: Sequence[Plane]) -> tuple[Dataset, ...]:
    import pydicom

    paths = list(dict.fromkeys(plane.path for plane in planes))
    if planes[0].frame is not None and len(paths) > 1:
        raise DicomResultError(f"The series is spread over {len(paths)} multi-frame files, to which one "
                               "object cannot refer. Export it as single slices or as one file.")
    headers = tuple(pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in paths)
    for header in headers:
        _refuse_incomplete(header)
        _complete(header)
    return headers


def _refuse_incomplete(header: Dataset) -> None:
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        raise DicomResultError(f"The slices lack {', '.join(missing)}, without which nothing can refer to "
                               "them. Export the original series from the archive.")


def _complete(header: Dataset) -> None:
    """Give empty values to attributes that may be empty but must be there, and drop a value no writer accepts."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    for name in ("PatientBirthDate", "StudyDate", "StudyTime"):
        try:
            validate_value(header[name].VR, str(header[name].value or ""), RAISE)
        except ValueError:
            setattr(header, name, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""


def frame_headers(source: SourceSeries) -> list[Dataset]:
    """Copies of the headers for a writer of frame headers: one pixel per frame, one orientation, a slice thickness."""
    copies = [deepcopy(header) for header in source.headers]
    for header in copies:
        header.Rows = header.Columns = 1
        if not source.multi_frame:
            header.ImageOrientationPatient = copies[0].ImageOrientationPatient
            header.SliceThickness = f"{source.slice_thickness_mm:.6g}"
    return copies


def axes_between(regions: Geometry, stored: Geometry) -> tuple[np.ndarray, np.ndarray] | None:
    """The whole-numbered map from indices of one grid to those of the other; None when there is none.

    Returns (matrix (3, 3) of -1, 0, 1, offset (3,)), both for (k, j, i): stored = matrix @ regions + offset. The grids must
    cover the same voxels to GRID_TOLERANCE; axes may be permuted and flipped.
    """
    probes = stored.to_kji(regions.to_lps(np.vstack([np.zeros(3), np.eye(3)])))
    matrix = np.rint(probes[1:] - probes[0]).T
    offset = np.rint(probes[0])
    if not np.array_equal(np.abs(matrix) @ np.ones(3), np.ones(3)) or abs(round(np.linalg.det(matrix))) != 1:
        return None
    if not np.array_equal(np.abs(matrix) @ regions.shape_kji, stored.shape_kji):
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in regions.shape_kji])).reshape(3, -1).T
    found = stored.to_kji(regions.to_lps(corners))
    exact = corners @ matrix.T + offset
    if np.abs(found - exact).max() > GRID_TOLERANCE or exact.min() < 0 or np.any(exact >= stored.shape_kji):
        return None
    return matrix.astype(int), offset.astype(int)


def mask_on_slices(mask: Mask, regions: Geometry, stored: Geometry) -> Mask:
    """The same voxels on the grid of the stored slices: axes permuted and flipped, what lies outside cut off.

    Raises DicomResultError when the two grids do not share their voxels.
    """
    axes = axes_between(regions, stored)
    if axes is None:
        raise DicomResultError("The regions lie on another grid than the slices. Measure the series "
                               "itself.")
    matrix, offset = axes
    inner = clip(mask, regions.shape_kji)
    order = np.abs(matrix).argmax(axis=1)
    signs = matrix.sum(axis=1)
    first = np.asarray(inner.start_kji)
    last = first + inner.voxels.shape - 1
    start = np.minimum(matrix @ first, matrix @ last) + offset
    voxels = inner.voxels.transpose(order)[tuple(slice(None, None, int(sign)) for sign in signs)]
    return Mask(voxels, tuple(int(n) for n in start))
