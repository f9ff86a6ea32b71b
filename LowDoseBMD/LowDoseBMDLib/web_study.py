"""One study of a DICOMweb server: fetched into a folder that is removed again, measured, and its results stored there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .ctvolume import CTVolume
from .files.atomic import write_whole
from .files.dicom_results import DICOM_RESULTS
from .files.dicomweb import Server
from .files.read import read_ct
from .files.web_series import choose_web_series, fetch_series
from .files.web_store import Stored, refuse_not_stored, store_results
from .inference import Progress, silent
from .pipeline import Models, Stopwatch
from .results import STORED_FILE
from .study import Settings, measure_from

INCOMING = ".incoming"
"""Folder beside the results that holds the fetched images while they are measured: always the same, so that a run which
was killed leaves nothing that the next one does not remove."""


def measure_web_study(server: Server, study_uid: str, out: Path, settings: Settings = Settings(),
                      progress: Progress = silent, models: Models | None = None) -> dict[str, Any]:
    """Fetch the study's best CT series, measure it as study.measure_study does, and remove the images again.

    Returns the record. Raises files.dicomweb.WebError, and leaves no record, when the images do not come.
    """
    watch = Stopwatch(progress)
    with _incoming(out) as folder:
        return measure_from(lambda: _fetched(server, study_uid, folder, watch), folder, out, settings, watch, models)


@contextmanager
def _incoming(out: Path) -> Iterator[Path]:
    folder = out / INCOMING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _fetched(server: Server, study_uid: str, folder: Path, watch: Stopwatch) -> CTVolume:
    with watch.stage("fetching"):
        series = choose_web_series(server, study_uid)
        fetch_series(server, series, folder)
    with watch.stage("reading"):
        ct = read_ct(folder)
    return replace(ct, acquisition=replace(ct.acquisition, series_choice=series.why or ct.acquisition.series_choice))


def store_study(server: Server, out: Path) -> tuple[Stored, ...]:
    """Store segmentation.dcm and report.dcm of a study's folder; what the server said of each is written to stored.json.

    Nothing is sent when there are none. Raises WebError when the server cannot be asked, or does not hold one of them
    afterwards: they stay as they are, and another try is safe, as the same results are not stored twice.
    """
    files = [out / name for name in DICOM_RESULTS if (out / name).exists()]
    if not files:
        return ()
    results = store_results(server, files)
    write_whole(out / STORED_FILE, json.dumps([asdict(result) for result in results], indent=1) + "\n")
    refuse_not_stored(results)
    return results
