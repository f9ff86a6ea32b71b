"""One CT series out of a DICOM folder: find the series, choose one, check its slices, stack them in HU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ctvolume import Acquisition
from ..flags import Refusal
from ..geometry import Geometry
from ..headers import age_years, sex
from .series import Plane, Series, choose_series, group_planes
from .stack import stack_geometry

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

HEADER_TAGS: tuple[str, ...] = (
    "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "Manufacturer", "ManufacturerModelName",
    "SeriesInstanceUID", "StudyInstanceUID", "StudyDate", "SeriesNumber", "SeriesDescription", "InstanceNumber",
    "AcquisitionNumber", "KVP", "XRayTubeCurrent", "ConvolutionKernel", "SliceThickness", "ReconstructionDiameter",
    "ContrastBolusAgent", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "RescaleIntercept", "RescaleSlope", "RescaleType", "NumberOfFrames",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PatientAge", "PatientSex",
)
"""What is read of each header; nothing that names the patient. Of the age, see headers.age_years."""

_BARE_DICOM_STARTS = (b"\x08\x00", b"\x02\x00")
"""First bytes of DICOM files that some archives write without the 128-byte preamble (groups 0008, 0002)."""

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"


HU_RESCALE_TYPES = frozenset({"HU", "US"})
"""What Rescale Type may say: HU, or US (unspecified), which some scanners write for plain CT; absent means HU."""


@dataclass(frozen=True)
class Identity:
    """To which study and series a DICOM image belongs; "" where its header does not say, or is damaged."""

    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""


def identity_of(path: Path) -> Identity | None:
    """Where an image belongs; None for a file that is no DICOM file, or a DICOM object without an image."""
    header = _header(path, ("SOPClassUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "Rows"))
    if header is None:
        try:
            return Identity() if _claims_dicom(path) else None
        except OSError:  # it may be one; who reads it later says what is wrong
            return Identity()
    if header.get("SOPClassUID") == _DICOMDIR_CLASS or (header.get("SeriesInstanceUID") and not header.get("Rows")):
        return None
    return Identity(*(str(header.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID", "Modality")))


def read_series(source: Path | Sequence[Path], series: str | None = None) -> tuple[np.ndarray, Geometry, Acquisition]:
    """Read the series that suits best, or the named one, from a folder and its subfolders, or from files.

    source: a folder; one DICOM file (its folder is read and that file's series taken); or the files to choose from. series:
    SeriesInstanceUID or series number. Returns HU (k, j, i) as stored (float32, or int16 when the rescale is
    whole), its grid, and the acquisition.

    Raises Refusal when there is no CT, when slices are missing, uneven, doubled or sheared, when the rescale
    to HU is missing, or when pixel data are incomplete.
    """
    files, wanted = _files_and_series(source, series)
    planes = [plane for file in files for plane in planes_of(file)]
    chosen, why = choose_series(group_planes(planes), wanted)
    _refuse_unscaled(chosen)
    ordered, geometry = stack_geometry(chosen)
    return _stack_hu(ordered), geometry, _acquisition(chosen, why)


def source_files(source: Path | Sequence[Path], series_uid: str | None) -> list[Path]:
    """The files of the series that ``read_series`` took, in the order of their paths.

    source: the folder, or one DICOM file of it, that was read; or files among which those of the series are. series_uid: of
    the series; None takes the one that suits best, as ``read_series`` does. Raises Refusal when the series is not there.
    """
    if isinstance(source, Path):
        source = _files(source if source.is_dir() else source.parent)
    chosen, _ = choose_series(group_planes(plane for file in source for plane in planes_of(Path(file))), series_uid)
    return sorted({plane.path for plane in chosen.planes})


def _files_and_series(source: Path | Sequence[Path], series: str | None) -> tuple[Sequence[Path], str | None]:
    if not isinstance(source, Path):
        return source, series
    if source.is_dir():
        return _files(source), series
    return _files(source.parent), series or _series_of(source)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.upper() != "DICOMDIR")


def _series_of(path: Path) -> str:
    header = _header(path)
    if header is None or "SeriesInstanceUID" not in header:
        raise Refusal("no_image", f"{path.suffix or 'This kind of file'} is not an image that is read here, nor a "
                      "DICOM file. Give a DICOM folder, .nii, .nii.gz, .nrrd, .nhdr or .mha.")
    return str(header.SeriesInstanceUID)


def _claims_dicom(path: Path) -> bool:
    """By its first bytes. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:2] in _BARE_DICOM_STARTS


def _header(path: Path, tags: Sequence[str] = HEADER_TAGS) -> Dataset | None:
    """The header without pixels, or None when the file is not DICOM."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        if not _claims_dicom(path):
            return None
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(tags))
    except (InvalidDicomError, EOFError, OSError, ValueError, NotImplementedError) as error:
        logger.debug("a file is not readable as DICOM: %s", type(error).__name__)
        return None


def planes_of(path: Path) -> Iterator[Plane]:
    """The image planes of one file: one, or one per frame of an enhanced CT; none for other objects."""
    header = _header(path)
    if header is not None:
        yield from planes_of_header(path, header)


def planes_of_header(path: Path, header: Dataset) -> Iterator[Plane]:
    """As planes_of, of a header (HEADER_TAGS) that has been read; ``path`` is where its file lies, or will lie."""
    if header.get("SOPClassUID") == _DICOMDIR_CLASS:
        return
    if not header.get("Rows") or not header.get("SeriesInstanceUID"):
        logger.debug("a DICOM object without an image is skipped")
        return
    frames = int(header.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" in header:
        for n in range(frames):
            yield _frame_plane(path, header, n)
    else:
        yield _plane(path, header, {"header": header}, None)


def _frame_plane(path: Path, header: Dataset, n: int) -> Plane:
    """Plane of frame n of an enhanced CT: what the frame does not say, the shared groups do."""
    groups = [header.PerFrameFunctionalGroupsSequence[n], *(header.get("SharedFunctionalGroupsSequence") or [])]
    found = {}
    for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
                 "PixelValueTransformationSequence", "CTXRayDetailsSequence", "CTReconstructionSequence",
                 "CTExposureSequence", "CTImageFrameTypeSequence"):
        found[name] = next((g[name][0] for g in groups if g.get(name)), None)
    return _plane(path, header, found, n)


def _plane(path: Path, header: Dataset, groups: dict[str, Dataset | None], frame: int | None) -> Plane:
    def value(name: str) -> object:
        """The first filled value of an attribute, in the frame's groups before the file's header."""
        for dataset in (*groups.values(), header):
            if dataset is not None and dataset.get(name) not in (None, ""):
                return dataset[name].value
        return None

    return Plane(
        path=path, frame=frame, header=header,
        sop_uid=str(header.get("SOPInstanceUID", path.name)),
        position=_numbers(value("ImagePositionPatient"), 3),
        orientation=_numbers(value("ImageOrientationPatient"), 6),
        pixel_spacing=_numbers(value("PixelSpacing"), 2),
        slope=_number(value("RescaleSlope")), intercept=_number(value("RescaleIntercept")),
        image_type=tuple(str(v).upper() for v in (value("FrameType") or header.get("ImageType") or ())),
        kernel=_text(value("ConvolutionKernel")), kvp=_number(value("KVP")),
        slice_thickness_mm=_number(value("SliceThickness")),
        field_of_view_mm=_number(value("ReconstructionDiameter")),
        tube_current_ma=_number(value("XRayTubeCurrentInmA") or value("XRayTubeCurrent")),
    )


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.all(np.isfinite(numbers)) else None


def _number(value: object) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: object) -> str | None:
    """One line of text; several values are joined with a backslash, as in DICOM."""
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    try:
        return "\\".join(str(v).strip() for v in value) or None
    except TypeError:
        return str(value).strip() or None


def _refuse_unscaled(series: Series) -> None:
    if any(p.slope is None or p.intercept is None or p.slope == 0 for p in series.planes):
        raise Refusal("no_rescale", "Slices have no rescale slope and intercept, so their values cannot be turned "
                      "into HU. Export the original series from the archive, not a secondary capture.")
    kinds = {str(p.header.get("RescaleType") or "HU").strip().upper() for p in series.planes}
    if not kinds <= HU_RESCALE_TYPES:
        raise Refusal("no_rescale", f"The values are stated to be {', '.join(sorted(kinds))}, not HU (Rescale Type). Choose "
                      "the CT series in Hounsfield units.")
    if any(int(p.header.get("SamplesPerPixel") or 1) != 1 for p in series.planes):
        raise Refusal("colour", "The slices are colour pictures, not HU. Choose the original CT series.")


def _acquisition(series: Series, why: str | None) -> Acquisition:
    first, header = series.planes[0], series.planes[0].header

    return Acquisition(
        source="dicom",
        modality=_text(header.get("Modality")),
        manufacturer=_text(header.get("Manufacturer")),
        scanner=_text(header.get("ManufacturerModelName")),
        kvp=first.kvp,
        tube_current_ma=_mean_current(series),
        kernel=first.kernel,
        slice_thickness_mm=first.slice_thickness_mm,
        field_of_view_mm=first.field_of_view_mm,
        contrast_agent=_text(header.get("ContrastBolusAgent")),
        study_date=_text(header.get("StudyDate")),
        study_uid=_text(header.get("StudyInstanceUID")),
        series_uid=series.uid,
        series_description=series.description,
        series_choice=why,
        patient_age_years=age_years(_text(header.get("PatientAge"))),
        patient_sex=sex(_text(header.get("PatientSex"))),
    )


def _mean_current(series: Series) -> float | None:
    currents = [p.tube_current_ma for p in series.planes if p.tube_current_ma is not None]
    return round(float(np.mean(currents)), 1) if currents else None


def _stack_hu(planes: list[Plane]) -> np.ndarray:
    """(k, j, i) HU of the planes in the given order; int16 when every rescale is whole and fits."""
    whole = all(float(p.slope).is_integer() and float(p.intercept).is_integer() for p in planes)
    shape = len(planes), int(planes[0].header.Rows), int(planes[0].header.Columns)
    hu = np.empty(shape, np.int32 if whole else np.float32)
    decoded: tuple[Path | None, np.ndarray | None] = None, None
    for k, plane in enumerate(planes):
        if plane.path != decoded[0]:
            decoded = plane.path, _decode(plane)
        stored = decoded[1] if plane.frame is None else decoded[1].reshape(-1, *shape[1:])[plane.frame]
        hu[k] = stored * hu.dtype.type(plane.slope) + hu.dtype.type(plane.intercept)
    return hu


def _decode(plane: Plane) -> np.ndarray:
    """Stored values (rows, columns), or (frames, rows, columns), of a plane's file as int32."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        dataset = pydicom.dcmread(plane.path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return dataset.pixel_array.astype(np.int32)
    except RuntimeError as error:
        # pydicom raises RuntimeError when no installed plugin decodes this compression; ITK's GDCM often does.
        logger.debug("pydicom cannot decode this compression: %s", type(error).__name__)
        return _decode_with_gdcm(plane)
    except (ValueError, AttributeError, EOFError, OSError, KeyError) as error:
        raise Refusal("truncated", f"The pixel data of the slice at {_where(plane)} are incomplete or damaged. "
                      "Send the series from the archive again.") from error


def _decode_with_gdcm(plane: Plane) -> np.ndarray:
    """Stored values through ITK, which applies the rescale itself: undo it, since it rounds as it likes."""
    import SimpleITK as sitk

    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(plane.path)))
    except RuntimeError as error:
        raise Refusal("compression", f"The slice at {_where(plane)} is compressed in a way that cannot be read "
                      "here. Export the series without compression (Explicit VR Little Endian).") from error
    stored = np.rint((values.astype(np.float64) - plane.intercept) / plane.slope).astype(np.int32)
    return stored[0] if plane.frame is None else stored


def _where(plane: Plane) -> str:
    if plane.position is None:
        return "an unknown position"
    return f"({plane.position[0]:.1f}, {plane.position[1]:.1f}, {plane.position[2]:.1f}) mm"
