"""One job in a process of its own: ``python -m LowDoseBMDLib.worker JOB.json``.

Standard output carries one JSON object a line: ``{"event": "progress", "stage", "fraction"}`` (0..1 of the whole job),
``{"event": "alive"}`` once a second, and one of these at the end: ``{"event": "done", "status"}`` (measured, refused),
``{"event": "failed", "message", "log"}``, ``{"event": "cancelled"}``. What libraries print goes to worker.log in the
job's folder. A file named ``stop`` in that folder, or SIGTERM, asks the job to stop. The job also ends when nobody
reads its output any more: whoever started it is gone, even when a launcher stands between.

Exit status: see DONE, FAILED, UNUSABLE, CANCELLED, ORPHANED.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from .calibration import TwoPointCalibration
from .ctvolume import CTVolume
from .exchange import Proposal, read_ct, read_proposal, write_proposal
from .failures import explain, is_memory, refusal_of
from .flags import Refusal
from .inference import Cancelled
from .job import EXPORT, LOG_FILE, PROPOSAL_FILE, PROPOSE, ROIS_FILE, STOP_FILE, Job
from .rois import Rois

if TYPE_CHECKING:
    from .measurement import Measurement
    from .pipeline import Stopwatch

log = logging.getLogger(__name__)

DONE, FAILED, UNUSABLE, CANCELLED, ORPHANED = range(5)
"""Exit status: the job was done (a refusal is a result); it failed; the job file cannot be used; it was asked to stop;
nobody reads the output any more."""

LOOK_SECONDS = 0.05
"""Between two looks for the file that asks to stop, and between two lines of progress within a stage."""
ALIVE_SECONDS = 1.0

STAGE_SHARES: dict[str, dict[str, float]] = {
    PROPOSE: {
        "loading the networks": 0.05, "checking": 0.15, "bones": 0.04, "finding the bones": 0.25, "vertebral bodies": 0.03,
        "drawing the vertebral bodies": 0.25, "keypoints": 0.01, "finding T12, L1 and L2": 0.05, "fine bones": 0.01,
        "drawing ribs, clavicles and scapulae": 0.25, "drawing regions": 0.06, "trabecular bone": 0.02,
        "muscle and fat": 0.01, "finding muscle": 0.03, "finding the aorta": 0.01,
        "finding subcutaneous fat": 0.03, "tissues found": 0.0, "writing the regions": 0.01},
    EXPORT: {"measuring": 0.03, "segmentation file": 0.1, "pictures": 0.7, "DICOM files": 0.17},
}
"""Share of a job's time that each stage takes, in their order; measured on a chest CT of 512 x 512 x 133 on two cores."""


class Channel:
    """Events to whoever started the job, one JSON line each; written at once, so that threads may share it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._over = threading.Event()

    def send(self, event: str, **content: Any) -> None:
        """Raises OSError when nobody reads any more."""
        line = json.dumps({"event": event, **content}) + "\n"
        os.write(self._descriptor, line.encode("ascii"))

    def end_when_unread(self) -> None:
        """Runs until ``over``; ends the process, at once and from any stage, when nobody reads any more."""
        while not self._over.is_set():
            try:
                self.send("alive")
            except OSError:
                log.error("whoever started this job is gone")
                os._exit(ORPHANED)
            self._over.wait(ALIVE_SECONDS)

    def over(self) -> None:
        """Nothing more is sent: whoever reads may go."""
        self._over.set()


class JobProgress:
    """The progress callback of a job: passes on how far the whole job is and stops it when that was asked for.

    stop: the file that asks to stop. shares: share of each stage in the time, in their order. parts: how often all stages
    are gone through; begin_part says when.
    """

    def __init__(self, channel: Channel, stop: Path | None, shares: Mapping[str, float], parts: int = 1) -> None:
        self._channel = channel
        self._stop = stop
        self._shares = shares
        self._total = sum(shares.values()) * parts
        self._done = 0.0
        self._stage, self._told, self._looked, self._fraction = "", -1.0, -1.0, 0.0

    def begin_part(self, number: int) -> None:
        """number: of the part that begins, from 0."""
        self._stage, self._done = "", number * sum(self._shares.values())

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if self._stop is not None and self._stop.exists():
                raise Cancelled
        if stage != self._stage or now - self._told >= LOOK_SECONDS:
            self._stage, self._told = stage, now
            self._channel.send("progress", stage=stage, fraction=round(self._overall(stage, fraction), 3))

    def _overall(self, stage: str, fraction: float) -> float:
        """0..1 of the whole job; never falls, and stands still in a stage that is not known."""
        if stage in self._shares:
            names = list(self._shares)
            before = self._done + sum(self._shares[name] for name in names[:names.index(stage)])
            reached = (before + self._shares[stage] * min(max(fraction, 0.0), 1.0)) / self._total
            self._fraction = max(self._fraction, reached)
        return self._fraction


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one job; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m LowDoseBMDLib.worker", description=__doc__.partition(".")[0])
    parser.add_argument("job", type=Path, help="a job's file; its folder holds what the job needs")
    path = parser.parse_args(arguments).job.absolute()
    if not path.is_file():
        parser.error(f"there is no job at {path}")
    channel = Channel(_divert_output(path.parent / LOG_FILE))
    threading.Thread(target=channel.end_when_unread, daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _do(path, channel)
    except OSError:  # while sending: nobody reads any more
        return ORPHANED


def _divert_output(log_path: Path) -> int:
    """Everything that is printed, by native code too, goes to the log; returns a descriptor of the real output."""
    sys.stdout.flush()
    sys.stderr.flush()
    real = os.dup(1)
    diverted = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(diverted, 1)
    os.dup2(diverted, 2)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    return real


def _stop(_number: int, _frame: object) -> None:
    """Once: a second signal must not interrupt the clearing away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Cancelled


def _do(path: Path, channel: Channel) -> int:
    folder = path.parent
    try:
        job = Job.from_json(path.read_text(encoding="utf-8"))
        progress = JobProgress(channel, folder / STOP_FILE, STAGE_SHARES[job.kind])
        status = (propose if job.kind == PROPOSE else export)(folder, job, progress)
    except (Cancelled, KeyboardInterrupt):
        log.info("stopped, as was asked")
        channel.send("cancelled")
        return CANCELLED
    except Exception as error:  # whatever it is, the window must hear of it as a sentence
        log.exception("the job failed")
        channel.send("failed", message=explain(error), log=str(folder / LOG_FILE))
        return FAILED
    channel.send("done", status=status)
    return DONE


@contextmanager
def _whole_inputs() -> Iterator[None]:
    """Raises ValueError with a sentence when what was handed over cannot be read."""
    try:
        yield
    except (OSError, ValueError, LookupError, EOFError, BadZipFile) as error:
        raise ValueError("What was handed to the measurement is missing or not whole: "
                         f"{getattr(error, 'strerror', None) or error}. Perhaps temporary files were cleaned up, or the "
                         "disk is full. Try again.") from error


def propose(folder: Path, job: Job, progress: JobProgress) -> str:
    """Regions of the folder's CT by the networks, to proposal.npz; "refused" when there is nothing to measure.

    A stage that fails on the scan refuses it (code ``internal``, logged), as on the command line.
    """
    from .check import check_ct
    from .pipeline import Stopwatch, open_models, propose_rois

    with _whole_inputs():
        ct = read_ct(folder)
    watch = Stopwatch(progress)
    with watch.stage("loading the networks"):
        models = open_models(job.models, job.engine, job.device)
    networks = {**models.identities, "engine": models.bones.description}
    status, flags = "measured", ()
    try:
        with watch.stage("checking"):
            flags = check_ct(ct)
        rois = propose_rois(ct, models, job.erosion, watch)
    except (ValueError, IndexError, RuntimeError) as error:
        status, rois = "refused", Rois(ct.geometry, flags=(_refusal(error).flag,), erosion=job.erosion)
    with watch.stage("writing the regions"):
        rois = replace(rois, flags=(*flags, *rois.flags))
        write_proposal(folder / PROPOSAL_FILE, Proposal(rois, networks, watch.seconds))
    return status


def _refusal(error: Exception) -> Refusal:
    """Memory that ran out is no property of the scan: it is raised."""
    if is_memory(error):
        raise error
    if not isinstance(error, Refusal):
        log.error("a stage failed", exc_info=error)
    return refusal_of(error)


def export(folder: Path, job: Job, progress: JobProgress) -> str:
    """Results of the folder's regions, measured anew from its CT, in the folder that the job names for them.

    Raises ValueError when all was written but the DICOM files that were asked for.
    """
    from .measurement import measure
    from .pipeline import Stopwatch

    with _whole_inputs():
        ct, proposal = read_ct(folder), read_proposal(folder / ROIS_FILE)
    watch = Stopwatch(progress, dict(proposal.seconds))
    with watch.stage("measuring"):
        measurement = measure(ct, proposal.rois, job.calibration or TwoPointCalibration())
    _write_results(ct, proposal, measurement, job, watch)
    return measurement.status


def _write_results(ct: CTVolume, proposal: Proposal, measurement: Measurement, job: Job, watch: Stopwatch) -> None:
    """The same files as those of the command line, as far as the job asks for them."""
    from .record import to_dict
    from .results import DICOM_NOT_WRITTEN, software, write_results

    record = write_results(
        job.out, ct, proposal.rois, measurement,
        lambda: to_dict(measurement, ct.acquisition, software(proposal.networks), proposal.seconds, job.reading), watch,
        job.formats, dicom=job.dicom_files)
    unwritten = [flag["sentence"] for flag in record["flags"] if flag["code"] == DICOM_NOT_WRITTEN]
    if unwritten:
        raise ValueError(" ".join([*unwritten, f"Everything else was written to {job.out}."]))


if __name__ == "__main__":
    sys.exit(main())
