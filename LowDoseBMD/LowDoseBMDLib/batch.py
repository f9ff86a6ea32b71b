"""Many studies, each in a process of its own; one that fails never stops the rest, and a run that was killed goes on.

``OUT`` of a batch holds manifest.jsonl (what was done, from which everything resumes), summary.csv, overview.html, a folder
of results for each study, and key.csv. Folders are named by a keyed hash and nothing but key.csv names a source, so that all
but key.csv and .key may be shown to others.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import __version__
from .bundle import identities, load_models
from .calibration import TwoPointCalibration, calibration_to_dict
from .files.atomic import whole_file, write_private
from .files.studies import Study, find_studies
from .inference import choose_engine
from .manifest import Manifest
from .pipeline import DETAILS, open_models
from .report.overview import Overview, write_overview
from .report.tables import csv_text
from .results import RECORD_FILE, STORED_FILE
from .runner import FAILED, Limits, Outcome, Task, python_command, run_tasks
from .study import Settings
from .study_process import ROW, StudyJob, measure_job

log = logging.getLogger(__name__)

MANIFEST, SUMMARY, OVERVIEW, KEY_TABLE = "manifest.jsonl", "summary.csv", "overview.html", "key.csv"
SECRET, JOBS = ".key", ".jobs"
"""The key of the hash that names folders, and the folder of what each process is told; both for their owner only."""

NAME_DIGITS = 16
"""Hexadecimal digits of a study's name: two of a million studies share one with a probability of 3 in 100 million."""

SUMMARY_SECONDS = 30.0
"""Between two writings of the summary while a batch runs; the manifest has every study at once."""

PASSING_REFUSALS = frozenset({"path_missing"})
"""Codes of refusals that a resumed batch tries again: the drive may be connected by now."""

STARTED, ENDED = "started", "ended"
MADE_BY = {"version": "another version of the program", "models": "other models", "calibration": "another calibration",
           "settings": "other settings"}
"""What a result was made by, as in the manifest, and how a summary says that it is measured again for that."""


@dataclass(frozen=True)
class Options:
    """How a batch is run. identified: the summary names the studies' sources. See runner.run_tasks for the others."""

    resume: bool = False
    workers: int = 1
    scheduler: str | None = None
    limits: Limits = Limits()
    identified: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a batch is: studies that have ended, of all; seconds_left as those of this run took."""

    ended: int
    total: int
    seconds_left: float


Report = Callable[[dict[str, Any], Progress], None]
"""Called with each study's row of the summary as it ends."""


def run_studies(source: Path | Sequence[Study], out: Path, settings: Settings, report: Report,
                options: Options = Options()) -> list[dict[str, Any]]:
    """Measure every study of ``source`` into its own folder of ``out``; returns all rows of the summary.

    source: as of files.studies.find_studies, or the studies themselves. Raises ValueError when there are no studies, when
    ``out`` holds another batch and this is not to resume it, when another run writes there, or when the engine, Dask or a
    model is missing; OSError when ``out`` cannot be written.
    """
    made_by = _made_by(settings)
    engine, _ = choose_engine(settings.engine, settings.device)
    _refuse_earlier(Manifest(out / MANIFEST), options)  # before an archive is searched, which may take an hour
    studies = find_studies(source, skip=out) if isinstance(source, Path) else source
    with Manifest(out / MANIFEST) as manifest:
        _refuse_earlier(manifest, options)
        secret = _secret(out, bool(manifest.entries()))
        named = {name_of(study, secret): study for study in studies}
        batch = _Batch(out, settings, options, manifest, named, made_by, report, engine)
        _write_private_table(out / KEY_TABLE, batch.studies)
        try:
            batch.run()
        finally:
            rows = batch.write()
    return rows


def name_of(study: Study, secret: bytes) -> str:
    """A folder name from which nobody without the key can tell the study."""
    return hmac.new(secret, "\0".join(study.names).encode(), hashlib.sha256).hexdigest()[:NAME_DIGITS]


def _made_by(settings: Settings) -> dict[str, Any]:
    """What makes a result another one. Raises BundleError when a model is missing or not what it says."""
    given = (settings.calibration or TwoPointCalibration(), *settings.calibrations)
    models = load_models(settings.models, fine=settings.detail == "full")
    return {"version": __version__, "models": identities(models),
            "calibration": _digest([calibration_to_dict(each) for each in given]),
            "settings": _digest([settings.erosion, settings.scheme, *_fast(settings)])}


def _fast(settings: Settings) -> list[str]:
    """Nothing for full detail: so results of before there was a choice count on."""
    return [settings.detail] if settings.detail != DETAILS[0] else []


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:NAME_DIGITS]


def _refuse_earlier(manifest: Manifest, options: Options) -> None:
    if not options.resume and (names := manifest.latest()):
        raise ValueError(f"{manifest.path.parent} holds a batch of {len(names)} studies already. Go on with it by --resume, "
                         "or choose another folder.")


def _secret(out: Path, needed: bool) -> bytes:
    """The key of this folder's names, made at first. Raises ValueError when it is gone but needed."""
    path = out / SECRET
    if path.exists():
        return bytes.fromhex(path.read_text(encoding="ascii"))
    if needed:
        raise ValueError(f"{path} is gone, so that the studies measured in {out} cannot be recognised. Put it back, or "
                         "choose another folder.")
    secret = secrets.token_bytes(32)
    write_private(path, secret.hex())
    return secret


def _write_private_table(path: Path, studies: Mapping[str, Study]) -> None:
    """key.csv: which folder is whose. All studies that were ever measured here stay in it."""
    known = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            known = {row["study"]: row["path"] for row in csv.DictReader(file)}
    known |= {name: str(study.place) for name, study in studies.items()}
    write_private(path, csv_text(("study", "path"), known.items()))


@dataclass
class _Batch:
    """One run of a batch. studies: by name, in the order of the summary."""

    out: Path
    settings: Settings
    options: Options
    manifest: Manifest
    studies: Mapping[str, Study]
    made_by: Mapping[str, Any]
    report: Report
    engine: str
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    begun: float = 0.0
    here: int = 0
    written: float = 0.0

    def run(self) -> None:
        """Measure what is not there yet."""
        latest = self.manifest.latest()
        waiting = []
        for name in self.studies:
            entry = latest.get(name)
            why = self._why_again(name, entry) if entry else ""
            if why is None:
                self.ended[name] = entry
            else:
                waiting.append(name)
                self.again[name] = why
        self.begun = self.written = time.monotonic()
        self._measure(waiting)

    def _why_again(self, name: str, entry: Mapping[str, Any]) -> str | None:
        """None when the result counts; else why it is measured again, "" when nothing needs to be said about it."""
        if entry["state"] != ENDED:
            return ""
        if entry["transient"]:
            return f"tried again after: {entry['row']['reason']}"
        if entry["row"]["status"] != FAILED and not (self.out / name / RECORD_FILE).is_file():
            return "its results were missing"
        web = self.studies[name].web
        if web and web.store and entry["row"]["status"] == "measured" and not (self.out / name / STORED_FILE).is_file():
            return "its results had not been stored"
        others = [words for what, words in MADE_BY.items() if entry[what] != self.made_by[what]]
        return f"measured again: it was made by {', '.join(others)}" if others else None

    def _measure(self, names: list[str]) -> None:
        try:
            python_command()
        except ValueError as error:  # inside Slicer without PythonSlicer
            log.warning("%s; they are measured in this process, without limits", error)
            self._measure_here(names)
            return
        jobs = self.out / JOBS
        jobs.mkdir(mode=0o700, exist_ok=True)
        try:
            tasks = [Task(name, (str(self._write_job(name).absolute()),)) for name in names]
            run_tasks("LowDoseBMDLib.study_process", tasks, self._end, self.options.workers, self.options.scheduler,
                      self.options.limits, self._start, "preload_torch" if self.engine == "torch" else "preload")
        finally:
            for path in jobs.iterdir():
                path.unlink(missing_ok=True)
            jobs.rmdir()

    def _measure_here(self, names: list[str]) -> None:
        models = open_models(self.settings.models, self.settings.engine, self.settings.device, self.settings.detail)
        for name in names:
            self._start(name)
            begun = time.monotonic()
            row = measure_job(self._job(name), models)
            status = FAILED if row["status"] == FAILED else "done"
            self._end(Outcome(name, status, row, "", round(time.monotonic() - begun, 3), None, bool(row.get("transient"))))

    def _job(self, name: str) -> StudyJob:
        return StudyJob(self.studies[name], self.settings, self.out / name)

    def _write_job(self, name: str) -> Path:
        path = self.out / JOBS / f"{name}.json"
        self._job(name).write(path)
        return path

    def _start(self, name: str) -> None:
        self.manifest.append({"key": name, "state": STARTED, "when": _now(), "why": self.again[name] or None})

    def _end(self, outcome: Outcome) -> None:
        row = outcome.result if outcome.result and "status" in outcome.result else None
        if row is None:
            log.info("study %s: %s", outcome.key, outcome.status)
            row = {**dict.fromkeys(ROW), "status": FAILED, "reason": outcome.message.partition("\n")[0]}
        passing = outcome.transient or bool(row["status"] == "refused" and PASSING_REFUSALS & set(row["flags"].split()))
        entry = {
            "key": outcome.key, "state": ENDED, "outcome": outcome.status, "status": row["status"], "transient": passing,
            "when": _now(), "seconds": outcome.seconds, "peak_memory_mb": outcome.peak_memory_mb, **self.made_by,
            "results": outcome.key if (self.out / outcome.key / RECORD_FILE).is_file() else None,
            "why": self.again[outcome.key] or None, "row": {name: row[name] for name in ROW}}
        self.manifest.append(entry)
        self.ended[outcome.key] = entry
        (self.out / JOBS / f"{outcome.key}.json").unlink(missing_ok=True)
        self.here += 1
        self.report(self._row(outcome.key), self._progress())
        if time.monotonic() - self.written > SUMMARY_SECONDS:
            self.written = time.monotonic()
            self.write()

    def _progress(self) -> Progress:
        left = len(self.studies) - len(self.ended)
        return Progress(len(self.ended), len(self.studies), (time.monotonic() - self.begun) / self.here * left)

    def _row(self, name: str) -> dict[str, Any]:
        entry = self.ended[name]
        path = {"path": str(self.studies[name].place)} if self.options.identified else {}
        return {"study": name, **path, **entry["row"], "note": entry["why"]}

    def write(self) -> list[dict[str, Any]]:
        """Write summary.csv and overview.html from what has ended; returns the rows."""
        rows = [self._row(name) for name in self.studies if name in self.ended]
        columns = ("study", *(("path",) if self.options.identified else ()), *ROW, "note")
        with whole_file(self.out / SUMMARY) as aside:
            table = csv_text(columns, ([row[name] for name in columns] for row in rows))
            aside.write_text(table, encoding="utf-8", newline="")
        write_overview(self.out / OVERVIEW, Overview(rows, len(self.studies), self.out, self.made_by))
        return rows


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
