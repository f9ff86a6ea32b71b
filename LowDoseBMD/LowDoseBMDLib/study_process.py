"""One study of a batch in a process of its own: ``python -m LowDoseBMDLib.study_process JOB.json``.

Prints one JSON object: the study's row of the summary (ROW), or why there is none. Nothing that it prints names the patient
or a path. Exit status 0 when the study was measured or refused, 1 when it failed; ``transient`` then says whether another
try may end better.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import sys
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .anatomy import LEVELS
from .bundle import BundleError
from .calibration import calibration_from_dict, calibration_to_dict
from .failures import explain, is_full_disk, is_memory
from .files.dicomweb import WebError
from .files.studies import Study
from .files.web_series import WebSource
from .flags import refusals
from .study import Settings, measure_study
from .web_study import measure_web_study, store_study

if TYPE_CHECKING:
    from .pipeline import Models

log = logging.getLogger(__name__)

ROW: tuple[str, ...] = ("status", "mean_vbmd_mg_cm3", "ci95_low_mg_cm3", "ci95_high_mg_cm3", "mean_of", "category",
                        "category_provisional", *(f"{name.lower()}_vbmd_mg_cm3" for name in LEVELS), "flags", "reason")
"""What a study gives to the summary. status: measured, refused or failed; flags: codes, each once; reason: why there is no
number."""

_ASIDE = re.compile(r"^\.[0-9a-f]{12}-")
"""What a killed process wrote aside (files.atomic.whole_file, whole_results)."""
_PATHS = ("models", "labels", "rois")


@dataclass(frozen=True)
class StudyJob:
    """What one process needs: the study, how it is measured, and the folder for its results."""

    study: Study
    settings: Settings
    out: Path

    def write(self, path: Path) -> None:
        """For read. The file names paths: it belongs into a folder that only its owner may read. Raises OSError."""
        settings = asdict(replace(self.settings, calibration=None, calibrations=()))
        settings |= {name: settings[name] and str(settings[name].absolute()) for name in _PATHS}
        settings["calibration"] = self.settings.calibration and calibration_to_dict(self.settings.calibration)
        settings["calibrations"] = [calibration_to_dict(each) for each in self.settings.calibrations]
        study = {"names": self.study.names, "sources": [str(path) for path in self.study.sources], "dicom": self.study.dicom,
                 "labels": self.study.labels and str(self.study.labels),
                 "web": self.study.web and self.study.web.to_dict()}
        path.write_text(json.dumps({"study": study, "settings": settings, "out": str(self.out.absolute())}),
                        encoding="utf-8")

    @staticmethod
    def read(path: Path) -> StudyJob:
        """The inverse of write. Raises OSError."""
        data = json.loads(path.read_text(encoding="utf-8"))
        study, settings = data["study"], data["settings"]
        settings |= {name: settings[name] and Path(settings[name]) for name in _PATHS}
        settings["calibration"] = settings["calibration"] and calibration_from_dict(settings["calibration"])
        settings["calibrations"] = tuple(calibration_from_dict(each) for each in settings["calibrations"])
        labels = study["labels"] and Path(study["labels"])
        web = study["web"] and WebSource.from_dict(study["web"])
        return StudyJob(Study(tuple(study["names"]), tuple(map(Path, study["sources"])), study["dicom"], labels, web),
                        Settings(**settings), Path(data["out"]))


def main(arguments: list[str]) -> int:
    """Measure the study of a job's file; returns the exit status."""
    logging.basicConfig(level=logging.WARNING)
    row = measure_job(StudyJob.read(Path(arguments[0])))
    sys.stdout.write(f"{json.dumps(row)}\n")
    return int(row["status"] == "failed")


def measure_job(job: StudyJob, models: Models | None = None) -> dict[str, Any]:
    """The study's row; a failed one has ``transient`` too. models: already opened networks."""
    remove_left_overs(job.out)
    settings = replace(job.settings, labels=job.study.labels) if job.study.labels else job.settings
    try:
        if job.study.web:
            return _measure_web(job.study.web, job.out, settings, models)
        source = job.study.sources if job.study.dicom else job.study.sources[0]
        return row_of(measure_study(source, job.out, settings, models=models))
    except Exception as error:  # any fault of one study must not end the batch; it is reported
        return failed_row(error)


def _measure_web(web: WebSource, out: Path, settings: Settings, models: Models | None) -> dict[str, Any]:
    """Results that could not be stored make the row a failed one, which keeps its numbers."""
    row = row_of(measure_web_study(web.server, web.study_uid, out, settings, models=models))
    try:
        if web.store:
            store_study(web.server, out)
    except WebError as error:
        return row | {"status": "failed", "reason": str(error), "transient": True}
    return row


def remove_left_overs(folder: Path) -> None:
    """What a killed process had written aside."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _ASIDE.match(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a study that was measured or refused. record: content of measurement.json."""
    low, high = record["mean_vbmd_ci95"] or (None, None)
    levels = {level["name"]: level["vbmd_mg_cm3"] for level in record["levels"]}
    return {
        "status": record["status"], "mean_vbmd_mg_cm3": record["mean_vbmd_mg_cm3"], "ci95_low_mg_cm3": low,
        "ci95_high_mg_cm3": high, "mean_of": " ".join(record["mean_of"]), "category": record["category"],
        "category_provisional": record["category_provisional"],
        **{f"{name.lower()}_vbmd_mg_cm3": levels.get(name) for name in LEVELS},
        "flags": " ".join(dict.fromkeys(flag["code"] for flag in record["flags"])),
        "reason": " ".join(refusals(record)) if record["status"] != "measured" else None}


def failed_row(error: Exception) -> dict[str, Any]:
    """The row of a study that failed. The error's own text may name a path, so it is told by its kind and place."""
    log.debug("the study failed", exc_info=error)
    passing = is_memory(error) or isinstance(error, (OSError, WebError, ImportError, BundleError))
    if isinstance(error, WebError):  # names the server only
        reason = str(error)
    elif isinstance(error, OSError):
        number = errno.ENOSPC if is_full_disk(error) else error.errno or 0
        reason = explain(OSError(number, error.strerror or "unknown fault"))  # without the file's name
    elif is_memory(error) or isinstance(error, (ImportError, BundleError)):
        reason = explain(error)
    else:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = "".join(f" in {Path(frame.filename).name}, line {frame.lineno}" for frame in place)
        reason = f"A fault of the program ({type(error).__name__}{where}). Please report it."
    return {**dict.fromkeys(ROW), "status": "failed", "reason": reason, "transient": passing}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
