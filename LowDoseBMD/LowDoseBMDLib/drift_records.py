"""What measured studies say of the scanner: the HU of muscle, fat and aorta out of their records, scan by scan.

Only what is needed is kept; no name, path or UID leaves this file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from .anatomy import SIDES
from .calibration_match import as_date
from .headers import is_sharp
from .record import SCHEMA_VERSION
from .report.tables import TISSUES
from .results import RECORD_FILE

CONTRAST_FLAGS = frozenset({"contrast", "contrast_possible", "contrast_header"})
PSOAS = frozenset(f"psoas_{side}" for side in SIDES)
SITES: Mapping[str, frozenset[str]] = {"muscle": PSOAS, "fat": frozenset({"fat_anterior"}), "aorta": frozenset({"aorta"})}
"""Regions that are compared; those that stand in for them read other HU."""


@dataclass(frozen=True, order=True)
class Stratum:
    """Scans whose HU may be compared. scanner: the model, which does not tell two of one model apart.

    kernel: "sharp", "smooth" or "unknown".
    """

    maker: str
    scanner: str
    kvp: float
    kernel: str

    @property
    def title(self) -> str:
        return f"{self.maker} {self.scanner}, {self.kvp:g} kV, {self.kernel} kernel".lstrip()


@dataclass(frozen=True)
class Reading:
    """One scan. hu: mean HU of each of TISSUES that was read at its usual site. spine_hu: mean HU of its trabecular bone.

    program: version and models that drew the regions.
    """

    stratum: Stratum
    day: date
    hu: Mapping[str, float]
    spine_hu: float | None = None
    program: str = ""


@dataclass(frozen=True)
class Archive:
    """Readings in order of their days. left_out: why other records do not count, and how many."""

    readings: tuple[Reading, ...]
    left_out: Mapping[str, int]
    records: int

    def strata(self) -> dict[Stratum, list[Reading]]:
        found: dict[Stratum, list[Reading]] = {}
        for reading in self.readings:
            found.setdefault(reading.stratum, []).append(reading)
        return dict(sorted(found.items()))


def read_archive(sources: Sequence[Path]) -> Archive:
    """Read every measurement.json at or below ``sources``.

    Of a study that was measured more than once in the same way the newest file counts. Raises ValueError when a source
    does not exist or there is no record at all.
    """
    left_out: Counter[str] = Counter()
    newest: dict[Any, Reading] = {}
    paths = _record_files(sources)
    for path in paths:
        found = _read(path)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        reading, identity = found
        key = (reading.stratum, identity) if identity else path
        left_out["measured more than once"] += key in newest
        newest[key] = reading
    readings = sorted(newest.values(), key=lambda reading: (reading.day, sorted(reading.hu.items())))
    return Archive(tuple(readings), {reason: count for reason, count in left_out.items() if count}, len(paths))


def _record_files(sources: Sequence[Path]) -> list[Path]:
    """Each file once, oldest first."""
    found: dict[Path, Path] = {}
    for source in sources:
        if not source.exists():
            raise ValueError(f"there is nothing at {source}; give the folder of a batch's results, or one above it")
        for path in [source] if source.is_file() else source.rglob(RECORD_FILE):
            found[path.resolve()] = path
    if not found:
        raise ValueError(f"there is no {RECORD_FILE} in {', '.join(map(str, sources))}; give folders that hold results of "
                         "measure or batch")
    return sorted(found, key=lambda path: (path.stat().st_mtime, path))


def _read(path: Path) -> tuple[Reading, str] | str:
    """A reading and what identifies its study, or why there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] > SCHEMA_VERSION:
            return "written by a newer program"
        reason = next(_objections(record), "")
        return reason or (_reading(record), _identity(record["acquisition"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "not a whole record"


def _objections(record: Mapping[str, Any]) -> Iterator[str]:
    """Why a record says nothing of its scanner."""
    acquisition = record["acquisition"]
    if record["status"] != "measured":
        yield "refused"
    if (record.get("review") or {}).get("decision") == "rejected":
        yield "rejected by a reader"
    if not (acquisition["scanner"] and acquisition["kvp"]):
        yield "scanner or tube voltage not known"
    if as_date(acquisition["study_date"]) is None:
        yield "date not known"
    if CONTRAST_FLAGS & {flag["code"] for flag in record["flags"]}:
        yield "contrast given, or possible"
    if not set((record["muscle"] or {}).get("structures", ["none"])) <= PSOAS:
        yield "muscle not read in the psoas"


def _reading(record: Mapping[str, Any]) -> Reading:
    acquisition, software = record["acquisition"], record.get("software") or {}
    kernel = acquisition["kernel"]
    sharpness = ("sharp" if is_sharp(kernel) else "smooth") if kernel else "unknown"
    stratum = Stratum(str(acquisition.get("manufacturer") or ""), str(acquisition["scanner"]), float(acquisition["kvp"]),
                      sharpness)
    hu = {name: float(record[name]["hu_mean"]) for name in TISSUES
          if record.get(name) and set(record[name]["structures"]) <= SITES[name]}
    spine = [level["hu_mean"] for level in record["levels"] if level["used"]]
    return Reading(stratum, as_date(acquisition["study_date"]), hu, sum(spine) / len(spine) if spine else None,
                   json.dumps([software.get("version"), software.get("networks")], sort_keys=True))


def _identity(acquisition: Mapping[str, Any]) -> str:
    """Two series of one study, read in the same way, are one person on one day."""
    return acquisition.get("study_uid") or acquisition.get("series_uid") or ""
