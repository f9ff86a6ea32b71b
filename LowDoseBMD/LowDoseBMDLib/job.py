"""A job for a process of its own: what is to be done with the CT of a folder, as one JSON file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .calibration import Calibration, calibration_from_dict, calibration_to_dict
from .ctvolume import CTVolume
from .exchange import Proposal, write_ct, write_proposal
from .files.atomic import write_whole
from .results import FORMATS, STANDARD
from .review import NOBODY, Reading

PROPOSE, EXPORT = "propose", "export"
KINDS = (PROPOSE, EXPORT)

JOB_FILE, PROPOSAL_FILE, ROIS_FILE, LOG_FILE, STOP_FILE = "job.json", "proposal.npz", "rois.npz", "worker.log", "stop"
"""Names in a job's folder, besides those of exchange.write_ct. STOP_FILE, once there, asks the job to stop."""

_PATHS = ("models", "out")


@dataclass(frozen=True)
class Job:
    """One job. kind: propose (regions by the networks) or export (results of given regions).

    erosion, engine, device, models: as in study.Settings, for propose. out: folder of an export, made when it is not
    there; formats: of results.FORMATS; calibration, reading: what the results are written with; dicom_files:
    those that the CT was read from, for DICOM results.
    Raises ValueError for an unknown kind or format, an export without a folder, or DICOM results without such files.
    """

    kind: str
    erosion: str = "physical"
    engine: str = "auto"
    device: str = "auto"
    models: Path | None = None
    out: Path | None = None
    formats: tuple[str, ...] = tuple(name for name in STANDARD if name != "dicom")
    calibration: Calibration | None = None
    reading: Reading = NOBODY
    dicom_files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a job of kind {self.kind!r}: one of {', '.join(KINDS)}")
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown:
            raise ValueError(f"formats {', '.join(map(repr, unknown))}: use some of {', '.join(FORMATS)}")
        if self.kind == EXPORT and self.out is None:
            raise ValueError("an export needs the folder to write to")
        if self.kind == EXPORT and "dicom" in self.formats and not self.dicom_files:
            raise ValueError("results in DICOM need the DICOM files that the CT was read from; leave them out otherwise")

    def to_json(self) -> str:
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data |= {name: data[name] and str(data[name]) for name in _PATHS}
        data["dicom_files"] = [str(path) for path in self.dicom_files]
        data["calibration"] = self.calibration and calibration_to_dict(self.calibration)
        data["reading"] = asdict(self.reading)
        return json.dumps(data, indent=1)

    @staticmethod
    def from_json(text: str) -> Job:
        """Raises ValueError when the text is no job."""
        data = json.loads(text)
        try:
            data |= {name: data[name] and Path(data[name]) for name in _PATHS}
            data["dicom_files"] = tuple(map(Path, data["dicom_files"]))
            data["formats"] = tuple(data["formats"])
            data["calibration"] = data["calibration"] and calibration_from_dict(data["calibration"])
            data["reading"] = Reading.from_dict(data["reading"])
            return Job(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no job of this version ({error})") from None


def write_job(folder: Path, job: Job, ct: CTVolume, proposal: Proposal | None = None) -> Path:
    """Write all that a worker needs to a folder; returns the path of the job's file, which comes last.

    proposal: the regions of an export. Raises ValueError when an export has none, OSError when the disk is full.
    """
    if job.kind == EXPORT and proposal is None:
        raise ValueError("an export needs regions")
    write_ct(folder, ct)
    if proposal is not None:
        write_proposal(folder / ROIS_FILE, proposal)
    write_whole(folder / JOB_FILE, job.to_json())
    return folder / JOB_FILE
