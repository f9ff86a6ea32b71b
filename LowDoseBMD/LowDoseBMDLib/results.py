"""The files that a study leaves in its folder, whoever drew the regions: the command line and the window write the same."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .files.atomic import whole_results, write_whole
from .files.markups import write_keypoints
from .files.segmentation import write_segmentation
from .rois import Rois

if TYPE_CHECKING:
    from .ctvolume import CTVolume
    from .measurement import Measurement
    from .pipeline import Stopwatch

log = logging.getLogger(__name__)

DISCLAIMER = ("Research software, not a medical device. It cannot be used to rule out low bone density; confirm by "
              "QCT or DXA.")

FORMATS: tuple[str, ...] = ("html", "csv", "json", "segmentation", "figures", "dicom", "print")
"""What can be written: segmentation is the .seg.nrrd and the keypoints' .mrk.json; dicom is SEG and SR; print is the report
for paper, which Slicer's window makes a PDF of."""
STANDARD: tuple[str, ...] = ("html", "csv", "json", "segmentation", "figures", "dicom")
"""What the command line writes."""

PICTURES: tuple[str, ...] = ("sagittal", "coronal", "axial_bone", "axial_tissue", "histogram")
FAST_PICTURES: tuple[str, ...] = ("sagittal", "axial_tissue")
"""Where levels and tissues were read: enough to see that nothing went wrong."""

DICOM_NOT_WRITTEN = "dicom_not_written"
"""Code of the flag that says why there are no results in DICOM."""

PRINT_FILE = "report-for-print.html"

STORED_FILE = "stored.json"
"""What an archive said of the DICOM results that were sent to it."""

RECORD_FILE, SEGMENTATION_FILE = "measurement.json", "segmentation.seg.nrrd"
"""The record is written last: where it lies, all else of the study does."""

RESULTS: tuple[str, ...] = (RECORD_FILE, "measurement.csv", "report.html", "keypoints.mrk.json",
                            *(f"{name}.png" for name in PICTURES), "segmentation.dcm", "report.dcm", STORED_FILE)
"""What a study may have left in its folder: removed before new results, so that none of another run stands beside."""


def clear_results(out: Path) -> None:
    """Remove an older result, measurement.json first; a segmentation stays, as a reader may have worked on it."""
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)


def software(networks: Mapping[str, str]) -> dict[str, Any]:
    """Versions and model hashes for the record."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("numpy", "scipy", "SimpleITK", "pydicom", "onnxruntime"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "bundled"
    return {"name": "LowDoseBMD", "version": __version__, "python": platform.python_version(), "libraries": versions,
            "networks": dict(networks), "statement": DISCLAIMER}


def write_regions(out: Path, rois: Rois, segmentation: bool = True) -> None:
    """Write segmentation.seg.nrrd, if that is wanted, and keypoints.mrk.json."""
    if segmentation:
        write_segmentation(out / SEGMENTATION_FILE, rois)
    write_keypoints(out / "keypoints.mrk.json", rois.keypoints)


def _same_file(path: Path, other: Path | None) -> bool:
    return other is not None and path.exists() and other.exists() and path.samefile(other)


def write_dicom(out: Path, source: Path | Sequence[Path], rois: Rois, record: dict[str, Any]) -> dict[str, Any]:
    """Write segmentation.dcm and report.dcm; returns the record, with a flag when they could not be written."""
    from .files.dicom_results import DicomResultError, write_dicom_results

    try:
        write_dicom_results(out, source, rois, record)
    except DicomResultError as error:
        log.warning("%s", error)
        flag = {"code": DICOM_NOT_WRITTEN, "severity": "info", "sentence": str(error), "level": None,
                "position_lps_mm": None}
        return {**record, "flags": [*record["flags"], flag]}
    return record


def write_results(out: Path, ct: CTVolume, rois: Rois, measurement: Measurement, record_of: Callable[[], dict[str, Any]],
                  watch: Stopwatch, formats: Collection[str] = STANDARD, given: Path | None = None,
                  dicom: Path | Sequence[Path] = (), pictures: Collection[str] = PICTURES) -> dict[str, Any]:
    """Write all that is wanted of a measured study; returns the record as it was written.

    An earlier result goes only when the new one is whole: a disk that is full leaves ``out`` as it was. record_of: makes
    the record, once the regions and pictures are there. given: the segmentation file that was measured, which is left as it
    is. dicom: the series or its files, for results in DICOM; none are written without. pictures: which of PICTURES.
    """
    from .report.figures import make_figures

    figures: dict[str, bytes] = {}
    with whole_results(out, lambda: clear_results(out), RECORD_FILE) as folder:
        if "segmentation" in formats:
            with watch.stage("segmentation file"):
                write_regions(folder, rois, not _same_file(out / SEGMENTATION_FILE, given))
        if {"html", "figures", "print"} & set(formats):
            with watch.stage("pictures"):
                figures = make_figures(ct, rois, measurement, pictures)
        record = record_of()
        if "dicom" in formats and dicom:
            with watch.stage("DICOM files"):
                record = write_dicom(folder, dicom, rois, record)
        _write_record(folder, record, figures, formats)
    return record


def write_refused(out: Path, record: Mapping[str, Any], figures: Mapping[str, bytes]) -> None:
    """Write what there is of a study without regions, in the place of an earlier result; a segmentation stays, as a reader
    may have worked on it. figures: PNG by name. Raises OSError when the folder cannot be written."""
    with whole_results(out, lambda: clear_results(out), RECORD_FILE) as folder:
        _write_record(folder, record, figures, STANDARD)


def _write_record(out: Path, record: Mapping[str, Any], figures: Mapping[str, bytes], formats: Collection[str]) -> None:
    """Pictures, report, table and record."""
    from .report.html import render_print, render_report
    from .report.tables import write_csv, write_json

    if "figures" in formats:
        for name, png in figures.items():
            write_whole(out / f"{name}.png", png)
    if "html" in formats:
        write_whole(out / "report.html", render_report(record, figures))
    if "print" in formats:
        write_whole(out / PRINT_FILE, render_print(record, figures))
    if "csv" in formats:
        write_csv(out / "measurement.csv", record)
    if "json" in formats:
        write_json(out / RECORD_FILE, record)
