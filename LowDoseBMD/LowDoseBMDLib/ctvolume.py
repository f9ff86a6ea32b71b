"""A CT in Hounsfield units with its geometry and the facts of its acquisition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .flags import Flag
from .geometry import Geometry


@dataclass(frozen=True)
class Acquisition:
    """How the CT was made, as far as the files say; None where they do not.

    Holds no patient identity. ``source`` is the kind of file (dicom, nifti, nrrd, phantom). Age and sex belong to
    the reading of a vBMD: patient_age_years is as of headers.age_years (over 89 it is 90), patient_sex "F" or "M".
    """

    source: str = ""
    modality: str | None = None
    manufacturer: str | None = None
    scanner: str | None = None
    kvp: float | None = None
    tube_current_ma: float | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None
    field_of_view_mm: float | None = None
    contrast_agent: str | None = None
    study_date: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    series_description: str | None = None
    series_choice: str | None = None
    """Which series was taken and why, when the folder held several."""
    patient_age_years: float | None = None
    patient_sex: str | None = None


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT volume.

    hu: (k, j, i) int16 or float32 in HU. The axes are canonical: i grows to the patient's Left, j to
    Posterior, k to Superior (each within 45 degrees of it; oblique grids keep their direction), so stages
    may speak of "in front of" and "below" in array terms. geometry: where the voxels lie, LPS mm. flags: what reading it
    found that bears on the number.
    """

    hu: np.ndarray
    geometry: Geometry
    acquisition: Acquisition = field(default_factory=Acquisition)
    flags: tuple[Flag, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.shape != self.geometry.shape_kji:
            raise ValueError(f"HU array {self.hu.shape} does not fit its grid {self.geometry.shape_kji}")
        if np.any(np.diag(self.geometry.direction) < 0.7):
            raise ValueError("CTVolume axes must run to Left, Posterior, Superior; use files.reorient first")
