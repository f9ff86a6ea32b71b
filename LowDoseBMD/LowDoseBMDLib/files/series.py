"""Which series of a DICOM folder is the CT to measure."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..flags import Refusal
from ..headers import is_sharp, names_contrast, plain_words

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

NOT_A_SCAN_TYPES: frozenset[str] = frozenset({
    "LOCALIZER", "SCREEN SAVE", "SCREEN_SAVE", "DOSE", "DOSE_INFO", "MIP", "MINIP", "MIN_IP", "PROJECTION",
    "PROJECTION IMAGE", "MAX_IP", "VOLUME_RENDERING", "VOLREN",
})
"""Values of Image Type of pictures that are not the scan itself."""

NOT_A_SCAN = re.compile(
    r"\b(LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM|DOSE (REPORT|INFO|RECORD)|PATIENT PROTOCOL|SCREEN ?SAVE|"
    r"SCREENSHOT|MIP|MINIP|MPR THICK)\b"
)
"""The same in a Series Description. "Low dose" alone is an ordinary scan."""

AXIAL_COSINE = 0.85
"""A slice normal within 32 degrees of the head-foot axis is axial; gantries tilt by up to 30 degrees."""

THIN_MM = 3.0
"""The method needs slices of at most 3 mm."""

PAPER_SLICE_MM = 1.25
"""Among thin series the one closest to the published method's slice spacing is taken."""

COVERAGE_STEP_MM = 50.0
"""Series whose lengths differ by less cover the same body: one and a half vertebrae."""

_ROUND_ORIENTATION = 3
_ROUND_SPACING = 4


@dataclass(frozen=True, eq=False)
class Plane:
    """One image plane and what its header says; None where it says nothing.

    position, pixel_spacing (row, column) in mm and LPS; orientation: direction of a row, then of a column.
    frame: index in a multi-frame file, else None.
    """

    path: Path
    frame: int | None
    header: Dataset
    sop_uid: str
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    slope: float | None
    intercept: float | None
    image_type: tuple[str, ...]
    kernel: str | None
    kvp: float | None
    slice_thickness_mm: float | None
    field_of_view_mm: float | None
    tube_current_ma: float | None

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slice, LPS."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        normal = np.cross(row, column)
        return normal / np.linalg.norm(normal)

    @property
    def depth_mm(self) -> float:
        """Distance of the slice along its own normal."""
        return float(np.dot(self.position, self.normal))


@dataclass(frozen=True, eq=False)
class Series:
    """Planes of one series that share orientation, matrix and pixel spacing; not yet sorted.

    copies: planes that bear the UID of one of these, or of another phase of the same series.
    """

    planes: tuple[Plane, ...]
    copies: tuple[Plane, ...] = ()

    @property
    def uid(self) -> str:
        return str(self.planes[0].header.SeriesInstanceUID)

    @property
    def number(self) -> str:
        return str(self.planes[0].header.get("SeriesNumber") or "")

    @property
    def description(self) -> str | None:
        return str(self.planes[0].header.get("SeriesDescription") or "").strip() or None

    @property
    def modality(self) -> str:
        return str(self.planes[0].header.get("Modality") or "").upper()

    @property
    def contrast(self) -> bool:
        return names_contrast(str(self.planes[0].header.get("ContrastBolusAgent") or ""))

    @property
    def placed(self) -> bool:
        """Every plane says where it lies."""
        return all(p.position and p.orientation and p.pixel_spacing for p in self.planes)

    @property
    def axial(self) -> bool:
        return self.placed and abs(self.planes[0].normal[2]) >= AXIAL_COSINE

    @property
    def scan(self) -> bool:
        """False for localizers, dose reports, projections and screen captures."""
        typed = NOT_A_SCAN_TYPES.intersection(self.planes[0].image_type)
        return not typed and not NOT_A_SCAN.search((self.description or "").upper().replace("_", " "))

    @property
    def depths_mm(self) -> np.ndarray:
        """(N,) sorted slice positions along the normal."""
        return np.sort([p.depth_mm for p in self.planes])

    @property
    def length_mm(self) -> float:
        return float(np.ptp(self.depths_mm)) if self.placed else 0.0

    @property
    def spacing_mm(self) -> float:
        """Median distance between slices; the slice thickness of a single slice."""
        if self.placed and len(self.planes) > 1:
            return float(np.median(np.diff(self.depths_mm)))
        return self.planes[0].slice_thickness_mm or 0.0

    @property
    def thickness_mm(self) -> float:
        return max(self.planes[0].slice_thickness_mm or 0.0, self.spacing_mm)

    @property
    def sharp(self) -> bool:
        return is_sharp(self.planes[0].kernel)

    @property
    def secondary(self) -> bool:
        """Made from other images on a workstation."""
        return "SECONDARY" in self.planes[0].image_type or "REFORMATTED" in self.planes[0].image_type

    @property
    def title(self) -> str:
        """Number, and description as far as it is plain words, for a reader; never the patient."""
        number = f"series {self.number}" if self.number else "a series without number"
        words = plain_words(self.description)
        return f"{number} ({words})" if words else number


def group_planes(planes: Iterable[Plane]) -> list[Series]:
    """Planes by series, orientation, matrix and pixel spacing; copies of the same image are dropped.

    A series that holds several acquisitions at the same positions (phases) is split by acquisition.
    """
    groups: dict[tuple, dict[tuple, Plane]] = defaultdict(dict)
    copies: dict[tuple, list[Plane]] = defaultdict(list)
    for plane in planes:
        key = _group_key(plane)
        if groups[key].setdefault((plane.sop_uid, plane.frame), plane) is not plane:
            copies[key].append(plane)
    return [part for key, group in groups.items()
            for part in _split_phases(Series(tuple(group.values()), tuple(copies[key])))]


def _group_key(plane: Plane) -> tuple:
    header = plane.header
    localizer = "LOCALIZER" in plane.image_type
    return (
        str(header.SeriesInstanceUID), str(header.get("Modality")), localizer, header.Rows, header.Columns,
        None if plane.orientation is None else tuple(np.round(plane.orientation, _ROUND_ORIENTATION) + 0.0),
        None if plane.pixel_spacing is None else tuple(np.round(plane.pixel_spacing, _ROUND_SPACING)),
    )


def _split_phases(series: Series) -> list[Series]:
    """Split by acquisition number when that, and only that, explains doubled positions."""
    if not series.placed or not _doubled(series):
        return [series]
    parts: dict[str, list[Plane]] = defaultdict(list)
    for plane in series.planes:
        parts[str(plane.header.get("AcquisitionNumber"))].append(plane)
    split = [Series(tuple(part), series.copies) for part in parts.values()]
    return split if len(split) > 1 and not any(_doubled(s) for s in split) else [series]


def _doubled(series: Series) -> bool:
    return bool(np.any(np.diff(series.depths_mm) < 0.01))


def choose_series(candidates: list[Series], wanted: str | None = None) -> tuple[Series, str | None]:
    """The series to measure, and a sentence that says why when there was a choice.

    wanted: SeriesInstanceUID or series number; then only its planes count. Order of preference: axial, most of
    the body covered, original before made on a workstation, without contrast agent, smooth kernel, slices of
    3 mm or less, spacing closest to the published method's.

    Raises Refusal: ``no_image``, ``no_series``, ``not_ct``, ``no_axial_ct``, ``several_studies``.
    """
    if not candidates:
        raise Refusal("no_image", "No DICOM image was found in the folder or below it. Choose the folder that "
                      "holds the CT slices, or a NIfTI or NRRD file.")
    if wanted is not None:
        candidates = _named(candidates, wanted)
    scans = [s for s in candidates if s.modality == "CT" and s.scan]
    if not scans:
        _refuse_no_ct(candidates)
    axial = [s for s in scans if s.axial]
    if not axial:
        _refuse_not_axial(scans)
    _refuse_several_studies(axial)
    longest_mm = max(s.length_mm for s in axial)
    best, *others = sorted(axial, key=lambda s: _preference(s, longest_mm))
    for other in candidates:
        logger.debug("series with %d planes, modality %s, considered", len(other.planes), other.modality)
    if wanted is not None:
        return best, f"Took {best.title} because it was asked for."
    return best, _sentence(best, others) if others else None


def _refuse_several_studies(axial: list[Series]) -> None:
    """A folder with several studies may hold several people: which one is meant is not ours to guess."""
    studies = {str(s.planes[0].header.get("StudyInstanceUID") or "") for s in axial}
    if len(studies) > 1:
        raise Refusal("several_studies", f"The folder holds CT series of {len(studies)} different studies, perhaps of "
                      "different people. Measure the folder of one study, or name the series by its "
                      "SeriesInstanceUID with --series.")


def _named(candidates: list[Series], wanted: str) -> list[Series]:
    named = [s for s in candidates if wanted.strip() in (s.uid, s.number)]
    if not named:
        there = "; ".join(sorted({s.title for s in candidates}))
        raise Refusal("no_series", f"No series has the UID or number {wanted}. There are: {there}.")
    return named


def _refuse_no_ct(candidates: list[Series]) -> None:
    found = sorted({s.modality or "unknown" for s in candidates})
    if "CT" in found:
        raise Refusal("no_axial_ct", "Only localizers, dose reports or derived pictures were found, not the CT "
                      "slices themselves. Export the axial CT series.")
    raise Refusal("not_ct", f"The images are not CT (modality {', '.join(found)}). Bone density is read from CT "
                  "only: choose the CT series.")


def _refuse_not_axial(scans: list[Series]) -> None:
    if any(s.placed for s in scans):
        raise Refusal("no_axial_ct", "Only coronal or sagittal reformats were found. Export the axial CT series.")
    raise Refusal("no_position", "The slices do not say where they lie (no position, orientation or pixel "
                  "spacing). Export the original series from the archive.")


def _preference(series: Series, longest_mm: float) -> tuple:
    return (
        int((longest_mm - series.length_mm) // COVERAGE_STEP_MM),
        series.secondary, series.contrast, series.sharp, series.thickness_mm > THIN_MM,
        round(abs(series.spacing_mm - PAPER_SLICE_MM), 2), series.number.zfill(8), series.uid,
    )


def _sentence(best: Series, others: list[Series]) -> str:
    facts = [f"{best.length_mm:.0f} mm long", f"{best.spacing_mm:.2f} mm apart"]
    if best.planes[0].kernel:
        facts.append(f"{'sharp' if best.sharp else 'smooth or standard'} kernel {best.planes[0].kernel}")
    facts.append("contrast agent in the header" if best.contrast else "no contrast agent in the header")
    left = "; ".join(f"{s.title}: {_reason(s, best)}" for s in others)
    return f"Took {best.title}: {len(best.planes)} slices, {', '.join(facts)}. Left out {left}."


def _reason(other: Series, best: Series) -> str:
    """The first thing in which the other series is worse."""
    if best.length_mm - other.length_mm >= COVERAGE_STEP_MM:
        return "covers less"
    for worse, why in ((other.secondary > best.secondary, "made on a workstation"),
                       (other.contrast > best.contrast, "contrast agent"),
                       (other.sharp > best.sharp, "sharp kernel"),
                       (other.thickness_mm > THIN_MM >= best.thickness_mm, "thicker slices")):
        if worse:
            return why
    return "spacing further from 1.25 mm" if other.spacing_mm != best.spacing_mm else "no better"
