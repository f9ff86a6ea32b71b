"""The record of one measurement: the content of measurement.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .calibration import SITE, SYNTHETIC, UNCALIBRATED, calibration_to_dict
from .ctvolume import Acquisition
from .flags import Flag
from .measurement import (
    NORMAL_ABOVE_MG_CM3,
    OSTEOPOROSIS_BELOW_MG_CM3,
    LevelMeasurement,
    Measurement,
    TissueMeasurement,
)
from .review import NOBODY, Reading

SCHEMA_VERSION = 1
"""Of measurement.json; raised when a field changes its meaning or goes, not when one is added."""

_PROVISIONAL = {"kvp": "other tube voltage than calibrated", "scanner": "other scanner than calibrated"}
"""Flags that make the class of a site's own calibration provisional."""


def to_dict(measurement: Measurement, acquisition: Acquisition, software: Mapping[str, Any],
            seconds: float | Mapping[str, float], reading: Reading = NOBODY, detail: str = "full") -> dict[str, Any]:
    """The content of measurement.json, schema version 1; null where a value is not known or not measured.

    Fields: schema_version; status (measured, refused); levels[]: name, complete, used, hu_mean, hu_sd,
    hu_median, hu_se, volume_mm3, kept_fraction (0..1), vbmd_mg_cm3, vbmd_sd_mg_cm3, vbmd_ci95 [low, high],
    centre_lps_mm [x, y, z], confidence (0..1), reason (why not measured, or empty), edited (by a reader), excluded (why a
    reader left it out of the mean, or empty); muscle, fat and aorta (which no vBMD rests on):
    structures[], hu_mean, hu_sd, hu_median, hu_se, volume_mm3, side_hu {structure: HU};
    mean_vbmd_mg_cm3, mean_vbmd_sd_mg_cm3, mean_vbmd_ci95, mean_of[]; category (normal, low_bone_mass,
    osteoporosis_range), category_provisional, p_below_80, limits_mg_cm3 [80, 120]; calibration: as in a
    calibration file; erosion (physical, paper, voxels, edited); detail (full, fast); flags[]: code, severity (info, caution,
    limited, refused), sentence, level, position_lps_mm; acquisition: the fields of Acquisition; software: as
    given (versions, model hashes); seconds: as given; edited[]: what a reader changed, as in Rois.edited;
    automatic_mean_vbmd_mg_cm3: the mean before a reader's edits; review: null, or decision (accepted, rejected), reader,
    comment, signed_at (ISO 8601); reopened[]: signatures that were taken back, a sentence each. HU, mm, mm3 and mg/cm3
    are rounded to 0.1, fractions and probabilities to 0.001.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "status": measurement.status,
        "levels": [_level_dict(level) for level in measurement.levels],
        "muscle": _tissue_dict(measurement.muscle),
        "fat": _tissue_dict(measurement.fat),
        "aorta": _tissue_dict(measurement.aorta),
        "mean_vbmd_mg_cm3": _rounded(measurement.mean_vbmd_mg_cm3),
        "mean_vbmd_sd_mg_cm3": _rounded(measurement.mean_vbmd_sd_mg_cm3),
        "mean_vbmd_ci95": _rounded(measurement.mean_vbmd_ci95),
        "mean_of": list(measurement.mean_of),
        "category": measurement.category,
        "category_provisional": measurement.category_provisional,
        "p_below_80": _rounded(measurement.p_below_80, 3),
        "limits_mg_cm3": [OSTEOPOROSIS_BELOW_MG_CM3, NORMAL_ABOVE_MG_CM3],
        "calibration": calibration_to_dict(measurement.calibration),
        "erosion": measurement.erosion,
        "detail": detail,
        "flags": [_flag_dict(flag) for flag in measurement.flags],
        "acquisition": _rounded(asdict(acquisition), 6),
        "software": _rounded(dict(software), 6),
        "seconds": _rounded(seconds, 3),
        "edited": list(measurement.edited),
        "automatic_mean_vbmd_mg_cm3": _rounded(reading.automatic_mean_mg_cm3),
        "review": None if reading.review is None else asdict(reading.review),
        "reopened": list(reading.reopened),
    }


def why_provisional(record: Mapping[str, Any]) -> str:
    """Why the class of a record is provisional, in words; empty when it is not."""
    if not record["category_provisional"]:
        return ""
    if record["calibration"]["status"] != SITE:
        return {SYNTHETIC: "calibrated on synthetic people"}.get(record["calibration"]["status"], UNCALIBRATED)
    codes = {flag["code"] for flag in record["flags"]}
    found = [text for code, text in _PROVISIONAL.items() if code in codes]
    return " and ".join(found) or "calibrated for other scans"


def _level_dict(level: LevelMeasurement) -> dict[str, Any]:
    data = asdict(level)
    del data["hu_block_sd"]
    fine = {name: _rounded(data[name], 3) for name in ("kept_fraction", "confidence")}
    return {**_rounded(data), **fine}


def _tissue_dict(tissue: TissueMeasurement | None) -> dict[str, Any] | None:
    if tissue is None:
        return None
    data = asdict(tissue)
    del data["hu_block_sd"]
    return _rounded(data)


def _flag_dict(flag: Flag) -> dict[str, Any]:
    return {"code": flag.code, "severity": flag.severity.value, "sentence": flag.sentence, "level": flag.level,
            "position_lps_mm": _rounded(flag.position_lps_mm)}


def _rounded(value: Any, digits: int = 1) -> Any:
    """Plain JSON data: floats rounded, NaN and infinity as None, numpy scalars and tuples converted."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry, digits) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_rounded(entry, digits) for entry in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), digits) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
