"""Many studies, one after the other; one that fails never stops the rest."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files.atomic import write_whole
from .files.volumes import kind_of
from .pipeline import Models, open_models
from .report.tables import neutralise
from .study import Settings, measure_study

log = logging.getLogger(__name__)

COLUMNS: tuple[str, ...] = ("study", "path", "status", "mean_vbmd_mg_cm3", "ci95_low_mg_cm3", "ci95_high_mg_cm3",
                            "mean_of", "category", "flags", "reason")


SEGMENTATION = ".seg.nrrd"
"""Files that end so hold regions, not a CT."""


def find_studies(source: Path) -> list[Path]:
    """Studies named by a CSV (column ``path``, relative to the CSV) or found under a folder.

    In a folder tree a study is a volume file (NIfTI, NRRD, MetaImage) or a folder that directly holds DICOM files, with
    what lies below it. Raises ValueError when nothing is found or the CSV has no such column.
    """
    if source.is_file() and source.suffix.lower() == ".csv":
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or []):
                raise ValueError(f"{source.name}: a column named 'path' is needed; it has {reader.fieldnames}")
            studies = [source.parent / row["path"] for row in reader if row["path"]]
    elif source.is_dir():
        studies = _in_folder(source)
    else:
        raise ValueError(f"{source} is neither a folder nor a CSV of studies")
    if not studies:
        raise ValueError(f"{source} holds no studies")
    return studies


def _in_folder(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if kind_of(path) and not path.name.lower().endswith(SEGMENTATION)]
    if any(_is_dicom(path) for path in files):
        return [*found, folder]
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
        found += _in_folder(below)
    return found


def _is_dicom(path: Path) -> bool:
    """A DICOM file by its preamble; a DICOMDIR is an index, not an image."""
    if path.name.upper() == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def study_name(path: Path) -> str:
    """A folder name without identity: the first 12 digits of the SHA-256 of the study's path."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]


def run_studies(source: Path, out: Path, settings: Settings,
                report: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Measure every study of ``source`` into its own folder of ``out`` and write ``out/summary.csv``.

    report is called with each study's row as it ends. Returns all rows; status is measured, refused or failed.
    """
    rows = []
    studies = find_studies(source)
    out.mkdir(parents=True, exist_ok=True)
    models = open_models(settings.models, settings.engine, settings.device)
    for path in studies:
        rows.append(_one(path, out, settings, models))
        _write_summary(out / "summary.csv", rows)
        report(rows[-1])
    return rows


def _one(path: Path, out: Path, settings: Settings, models: Models) -> dict[str, Any]:
    name = study_name(path)
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"study": name, "path": str(path)}
    try:
        record = measure_study(path, out / name, settings, models=models)
    except Exception as error:  # any fault of one study must not end the batch; it is logged and reported
        log.error("study %s failed (%s); the summary says more", name, type(error).__name__)
        log.debug("study %s", name, exc_info=True)  # may hold the study's path
        return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    refusals = [flag["sentence"] for flag in record["flags"] if flag["severity"] == "refused"]
    low, high = record["mean_vbmd_ci95"] or (None, None)
    return row | {
        "status": record["status"], "mean_vbmd_mg_cm3": record["mean_vbmd_mg_cm3"], "ci95_low_mg_cm3": low,
        "ci95_high_mg_cm3": high, "mean_of": " ".join(record["mean_of"]), "category": record["category"],
        "flags": " ".join(flag["code"] for flag in record["flags"]),
        "reason": " ".join(refusals) if record["status"] != "measured" else None}


def _write_summary(path: Path, rows: list[dict[str, Any]]) -> None:
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: neutralise(value) if isinstance(value, str) else value for key, value in row.items()})
    write_whole(path, text.getvalue())
