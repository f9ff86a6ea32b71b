"""Synthetic archives of measured studies: real records of people scanned on scanners whose drift is known."""

from __future__ import annotations

import calendar
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import LevelMeasurement, Measurement, TissueMeasurement
from LowDoseBMDLib.record import to_dict

MEAN_HU = {"muscle": 50.0, "fat": -105.0, "aorta": 42.0}
SD_HU = {"muscle": 5.5, "fat": 4.0, "aorta": 5.0}
"""Of people: psoas and fat as in calibration.py; blood: judgement."""
SITES = {"muscle": ("psoas_left", "psoas_right"), "fat": ("fat_anterior",), "aorta": ("aorta",)}
Move = Callable[[float], float]
"""HU by which a scanner reads too high, by years since its first month."""


def steady(_years: float) -> float:
    return 0.0


@dataclass(frozen=True)
class Scanner:
    """people: a month, on average (Poisson)."""

    model: str = "Alpha 64"
    move: Move = steady
    people: float = 30
    months: int = 24
    first_year: int = 2022
    kvp: float = 120.0
    kernel: str | None = "Br40"


def scans(scanner: Scanner, seed: int) -> tuple[list[date], dict[str, np.ndarray]]:
    """Days, in order, and the HU of each tissue on them."""
    rng = np.random.default_rng(seed)
    days = []
    for place in range(scanner.months):
        year, month = scanner.first_year + place // 12, place % 12 + 1
        length = calendar.monthrange(year, month)[1]
        days += sorted(date(year, month, int(day)) for day in rng.integers(1, length + 1, rng.poisson(scanner.people)))
    years = [(day - date(scanner.first_year, 1, 1)).days / 365.25 for day in days]
    shift = np.array([scanner.move(year) for year in years])
    return days, {name: rng.normal(MEAN_HU[name], SD_HU[name], len(days)) + shift for name in MEAN_HU}


def a_record(day: date | None, hu: dict[str, float], scanner: Scanner = Scanner(), uid: str = "", *codes: str,
             muscle: str = "psoas") -> dict:
    """measurement.json of one study, through the product's own writer. codes: of its flags."""
    sites = SITES | ({} if muscle == "psoas" else {"muscle": (f"{muscle}_left",)})
    tissue = {name: TissueMeasurement(sites[name], hu[name], 20.0, hu[name], 0.5, None, 9000.0, {}) for name in hu}
    levels = tuple(LevelMeasurement(name, True, name != "T12", hu_mean=140.0 + place) for place, name in
                   enumerate(("T12", "L1", "L2")))
    flags = tuple(Flag(code, Severity.CAUTION, "A sentence.") for code in codes)
    found = Measurement("measured", levels, tissue.get("muscle"), tissue.get("fat"), TwoPointCalibration(), 110.0, 7.0,
                        (96.0, 124.0), ("L1", "L2"), "low_bone_mass", flags=flags, aorta=tissue.get("aorta"))
    acquisition = Acquisition(source="dicom", manufacturer="Maker", scanner=scanner.model, kvp=scanner.kvp,
                              kernel=scanner.kernel, study_date=day and f"{day:%Y%m%d}", study_uid=uid or None,
                              series_uid=f"{uid}.1" if uid else None)
    return to_dict(found, acquisition, {"version": "1", "networks": {"bones": "a"}}, 1.0)


def write_record(folder: Path, record: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "measurement.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def write_archive(folder: Path, scanner: Scanner, seed: int) -> int:
    """One folder a study, as batch leaves them; returns how many."""
    days, hu = scans(scanner, seed)
    for place, day in enumerate(days):
        write_record(folder / f"{place:05d}", a_record(day, {name: float(hu[name][place]) for name in hu}, scanner,
                                                       f"2.25.{seed}{place:05d}"))
    return len(days)
