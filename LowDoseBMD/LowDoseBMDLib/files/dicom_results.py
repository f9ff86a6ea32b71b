"""The DICOM results of one study: segmentation.dcm and report.dcm beside its other results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..flags import Refusal
from ..rois import Rois
from .dicom import source_series
from .dicom_source import DicomResultError, SourceSeries, read_source

log = logging.getLogger(__name__)

SEGMENTATION, REPORT = "segmentation.dcm", "report.dcm"
DICOM_RESULTS: tuple[str, ...] = (SEGMENTATION, REPORT)


def write_dicom_results(out: Path, source: Path | Sequence[Path], rois: Rois, record: Mapping[str, Any]) -> None:
    """Write segmentation.dcm and report.dcm of a measured or refused study to the folder ``out``.

    source: the DICOM folder, or one file of it, that was measured; or files among which those of the series are. rois: the
    regions behind the numbers; when all are empty there is no segmentation.dcm. record: content of measurement.json. DICOM
    results of an earlier run are removed first, and a report is written even when a segmentation cannot be.

    Raises DicomResultError, and only that besides OSError, when one of them cannot be written: the folder no longer holds
    the series, its headers lack what a reference needs or hold what no writer accepts, or highdicom is missing. The other
    results of the study do not depend on it: report its sentence and go on.
    """
    for name in DICOM_RESULTS:
        (out / name).unlink(missing_ok=True)
    try:
        _write(out, source, rois, record)
    except DicomResultError as error:
        raise DicomResultError(f"{_what_there_is(out)} {error}") from error


def _what_there_is(out: Path) -> str:
    written = [name for name in DICOM_RESULTS if (out / name).exists()]
    return f"Of the DICOM results only {written[0]} was written." if written else "No DICOM results were written."


def _write(out: Path, source: Path | Sequence[Path], rois: Rois, record: Mapping[str, Any]) -> None:
    """The segmentation, then the report, which refers to it; a failed segmentation is raised after the report is there."""
    _require_highdicom()
    series = _of_the_headers(lambda: read_source(source_series(source, record["acquisition"]["series_uid"])))
    failed: DicomResultError | None = None
    segmentation = None
    if any(not mask.empty for mask in rois.masks.values()):
        try:
            segmentation = _write_segmentation(out / SEGMENTATION, rois, series)
        except DicomResultError as error:
            failed = error
    _write_report(out / REPORT, record, series, segmentation)
    if failed:
        raise failed


def _write_segmentation(path: Path, rois: Rois, series: SourceSeries) -> Path:
    from .dicom_seg import write_dicom_seg

    _of_the_headers(lambda: write_dicom_seg(path, rois, series))
    return path


def _write_report(path: Path, record: Mapping[str, Any], series: SourceSeries, segmentation: Path | None) -> None:
    from .dicom_sr import write_dicom_sr

    _of_the_headers(lambda: write_dicom_sr(path, record, series, segmentation))


def _require_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise DicomResultError("The Python package highdicom is missing. Install highdicom 0.27 or later; "
                               "the other results are complete without it.") from error


def _of_the_headers(work: Callable[[], Any]) -> Any:
    """Run a step that depends on what strangers' headers hold; whatever they break becomes a DicomResultError.

    The error's own text stays in the log: it may quote the patient's name.
    """
    try:
        return work()
    except DicomResultError:
        raise
    except Refusal as refusal:
        raise DicomResultError(str(refusal)) from refusal
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, OverflowError) as error:
        log.debug("DICOM results failed", exc_info=True)
        raise DicomResultError(f"A header of the series holds what cannot be carried over ({type(error).__name__}). Export "
                               "the original series from the archive; the other results are complete.") from error
