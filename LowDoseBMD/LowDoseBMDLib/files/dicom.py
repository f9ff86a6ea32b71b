"""One CT series out of a DICOM folder: find the series, choose one, check its slices, stack them in HU."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ctvolume import Acquisition
from ..flags import Flag, Refusal, Severity
from ..geometry import Geometry
from ..headers import age_years, plain_agent, plain_words, sex
from .dicom_folder import Folder, left_out_flags, look_into
from .dicom_pixels import damages, decode, place, stack_hu
from .series import Plane, Series, choose_series, group_planes
from .stack import stack_geometry

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

logger = logging.getLogger(__name__)

HEADER_TAGS: tuple[str, ...] = (
    "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "Manufacturer", "ManufacturerModelName",
    "SeriesInstanceUID", "StudyInstanceUID", "StudyDate", "SeriesNumber", "SeriesDescription", "InstanceNumber",
    "AcquisitionNumber", "KVP", "XRayTubeCurrent", "ConvolutionKernel", "SliceThickness", "ReconstructionDiameter",
    "ContrastBolusAgent", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "RescaleIntercept", "RescaleSlope", "RescaleType", "NumberOfFrames",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PatientAge", "PatientSex",
    "LossyImageCompression",
)
"""What is read of each header; nothing that names the patient. Of the age, see headers.age_years."""

CT_CLASSES: frozenset[str] = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1",
                                        "1.2.840.10008.5.1.4.1.1.2.2"})
"""SOP classes of CT Image, Enhanced CT Image and Legacy Converted Enhanced CT Image Storage (PS3.4 B.5)."""

_BARE_DICOM_STARTS = (b"\x08\x00", b"\x02\x00")
"""First bytes of DICOM files that some archives write without the 128-byte preamble (groups 0008, 0002)."""

_PREAMBLE_BYTES = 132
"""128 of any content, mostly zeros, and DICM."""

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


@dataclass(frozen=True, eq=False)
class StackedSeries:
    """hu: (k, j, i) as stored, float32, or int16 or int32 when the rescale is whole; flags: what reading it found."""

    hu: np.ndarray
    geometry: Geometry
    acquisition: Acquisition
    flags: tuple[Flag, ...] = ()


def read_series(source: Path | Sequence[Path], series: str | None = None) -> StackedSeries:
    """Read the series that suits best, or the named one, from a folder and its subfolders, or from files.

    source: a folder; one DICOM file (its folder is read and that file's series taken); or the files to choose from. series:
    SeriesInstanceUID or series number.

    Raises Refusal when there is no CT, when slices are missing, uneven, doubled or sheared, when the rescale
    to HU is missing, or when a file of the series is incomplete.
    """
    folder, wanted = _files_and_series(source, series)
    planes, damaged = _planes_and_damaged(folder.files)
    if not planes:
        _refuse_no_plane(folder, damaged)
    chosen, why = choose_series(group_planes(planes), wanted)
    _refuse_damaged(chosen, damaged)
    _refuse_unscaled(chosen)
    ordered, geometry = stack_geometry(chosen)
    _refuse_false_copies(chosen)
    return StackedSeries(stack_hu(ordered), geometry, _acquisition(chosen, why),
                         (*left_out_flags(folder, list(damaged)), *_compression_flags(chosen)))


def source_files(source: Path | Sequence[Path], series_uid: str | None) -> list[Path]:
    """The files of the series that ``read_series`` took, in the order of their paths.

    See source_series.
    """
    return sorted({plane.path for plane in source_series(source, series_uid).planes})


def source_series(source: Path | Sequence[Path], series_uid: str | None) -> Series:
    """The series that ``read_series`` took.

    source: the folder, or one DICOM file of it, that was read; or files among which those of the series are. series_uid: of
    the series; None takes the one that suits best, as ``read_series`` does. Raises Refusal when the series is not there.
    """
    if isinstance(source, Path):
        source = look_into(source if source.is_dir() else source.parent).files
    return choose_series(group_planes(plane for file in source for plane in planes_of(Path(file))), series_uid)[0]


def _files_and_series(source: Path | Sequence[Path], series: str | None) -> tuple[Folder, str | None]:
    if not isinstance(source, Path):
        return Folder(tuple(source)), series
    if source.is_dir():
        return look_into(source), series
    return look_into(source.parent), series or _series_of(source)


def _planes_and_damaged(files: Sequence[Path]) -> tuple[list[Plane], dict[Path, str]]:
    """The image planes of all files, and the damaged DICOM files with the UID of their series ("" where it is lost)."""
    planes: list[Plane] = []
    damaged: dict[Path, str] = {}
    for path in files:
        found = list(planes_of(path))
        planes += found
        if not found and (series_uid := _damaged_series(path)) is not None:
            damaged[path] = series_uid
    return planes, damaged


def _damaged_series(path: Path) -> str | None:
    """Of a file without image planes: None when that is as it should be, else the UID of its series, or "".

    A file that does not say what it is was cut short, and so was a CT image without rows. An empty file, and one that ends
    in the preamble of zeros, counts when its name does not speak of another kind.
    """
    try:
        if not _claims_dicom(path):
            blank = path.stat().st_size < _PREAMBLE_BYTES and not path.read_bytes().strip(b"\0")
            return "" if blank and path.suffix.lower() in ("", ".dcm", ".ima") else None
    except OSError:  # gone, or not to be read: an image may be missing
        return ""
    header = _header(path, ("SOPClassUID", "SeriesInstanceUID"))
    if header is None or not header.get("SOPClassUID"):
        return ""
    cut_or_ct = any(uid.startswith(str(header.SOPClassUID)) for uid in CT_CLASSES)
    return str(header.get("SeriesInstanceUID") or "") if cut_or_ct else None


def _refuse_no_plane(folder: Folder, damaged: Mapping[Path, str]) -> None:
    if damaged:
        raise Refusal("truncated", f"All {len(damaged)} DICOM images are cut short, or their headers hold what cannot be "
                      "read. Send the series from the archive again.")
    if folder.unopened:
        raise Refusal("no_image", f"No DICOM image was found. Not opened: {folder.unopened}. Unpack or copy the CT into a "
                      "folder of its own.")


def _refuse_damaged(series: Series, damaged: Mapping[Path, str]) -> None:
    count = sum(uid == series.uid for uid in damaged.values())
    if count:
        raise Refusal("truncated", f"{count} of the series' files {'is' if count == 1 else 'are'} cut short or damaged. "
                      "Send the series from the archive again.")


def _refuse_false_copies(series: Series) -> None:
    """A file with the UID of another is a copy of it, or the two are not to be told apart."""
    first = {(plane.sop_uid, plane.frame): plane for plane in series.planes}
    compared = set()
    for copy in series.copies:
        one = first.get((copy.sop_uid, copy.frame))
        if one is None or (one.path, copy.path) in compared or filecmp.cmp(one.path, copy.path, shallow=False):
            continue
        compared.add((one.path, copy.path))
        if (one.position, one.slope, one.intercept) != (copy.position, copy.slope, copy.intercept) or not np.array_equal(
                decode(one), decode(copy)):
            raise Refusal("doubled_slices", f"Different slices bear the same SOP Instance UID, the first at {place(one)}: "
                          "perhaps of several people or reconstructions. Export one series from the archive again.")


def _compression_flags(series: Series) -> tuple[Flag, ...]:
    if all(str(plane.header.get("LossyImageCompression") or "00") != "01" for plane in series.planes):
        return ()
    return (Flag("lossy_compression", Severity.CAUTION, "The slices were compressed with loss, which smooths or shifts HU. "
                 "Measure the original series where it still exists."),)


def _series_of(path: Path) -> str:
    header = _header(path)
    if header is None or "SeriesInstanceUID" not in header:
        raise Refusal("no_image", f"{path.suffix or 'This kind of file'} is not an image that is read here, nor a "
                      "DICOM file. Give a DICOM folder, .nii, .nii.gz, .nrrd, .nhdr or .mha.")
    return str(header.SeriesInstanceUID)


def _claims_dicom(path: Path) -> bool:
    """By its first bytes. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        start = file.read(_PREAMBLE_BYTES)
    return start[-4:] == b"DICM" and len(start) == _PREAMBLE_BYTES or start[:2] in _BARE_DICOM_STARTS


def _header(path: Path, tags: Sequence[str] = HEADER_TAGS) -> Dataset | None:
    """The header without pixels, or None when the file is not DICOM."""
    import pydicom

    try:
        if not _claims_dicom(path):
            return None
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_numbered(tuple(tags)))
        for _ in header:  # values are made out of bytes when they are asked for: better here than where nobody expects it
            pass
        return header
    except damages() as error:
        logger.debug("a file is not readable as DICOM: %s", type(error).__name__)
        return None


@cache
def _numbered(names: tuple[str, ...]) -> list[BaseTag]:
    """The tags of attributes: looked up once, not for every slice."""
    from pydicom.tag import Tag

    return [Tag(name) for name in names]


def planes_of(path: Path) -> Iterator[Plane]:
    """The image planes of one file: one, or one per frame of an enhanced CT; none for other objects, and damaged ones."""
    header = _header(path)
    if header is None:
        return
    try:
        planes = list(planes_of_header(path, header))
    except damages() as error:
        logger.debug("a header holds what cannot be read: %s", type(error).__name__)
        return
    yield from planes


def planes_of_header(path: Path, header: Dataset) -> Iterator[Plane]:
    """As planes_of, of a header (HEADER_TAGS) that has been read; ``path`` is where its file lies, or will lie."""
    if header.get("SOPClassUID") == _DICOMDIR_CLASS:
        return
    sides = [int(header.get(name) or 0) for name in ("Rows", "Columns")]  # in a damaged header each may be a list
    if not all(sides) or not header.get("SeriesInstanceUID"):
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
            found = None if dataset is None else dataset.get(name)
            if found not in (None, ""):
                return found
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
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _text(value: object) -> str | None:
    """One line of text without control characters; several values are joined with a backslash, as in DICOM."""
    if value is None or isinstance(value, str):
        text = value or ""
    elif isinstance(value, Iterable):
        text = "\\".join(str(v).strip() for v in value)
    else:
        text = str(value)
    return "".join(letter for letter in text if letter.isprintable()).strip() or None


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
        contrast_agent=plain_agent(_text(header.get("ContrastBolusAgent"))),
        study_date=_date(_text(header.get("StudyDate"))),
        study_uid=_text(header.get("StudyInstanceUID")),
        series_uid=series.uid,
        series_description=plain_words(series.description),
        series_choice=why,
        patient_age_years=age_years(_text(header.get("PatientAge"))),
        patient_sex=sex(_text(header.get("PatientSex"))),
    )


def _date(text: str | None) -> str | None:
    """None for what is no date: words may stand there."""
    return text if text and len(text) == 8 and text.isdecimal() else None


def _mean_current(series: Series) -> float | None:
    currents = [p.tube_current_ma for p in series.planes if p.tube_current_ma is not None]
    return round(float(np.mean(currents)), 1) if currents else None
