"""What a DICOM report says in words: findings, the reader's part, the algorithm's parameters and the disclaimer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..anatomy import STRUCTURES
from ..record import why_provisional
from ..review import ACCEPTED

CLASS_WORDS = {"normal": "normal", "low_bone_mass": "low bone mass", "osteoporosis_range": "range of osteoporosis"}

CALIBRATION_FACTS = (
    "name", "kind", "status", "unit", "kvp", "muscle_mg_cm3", "fat_mg_cm3", "intercept_mg_cm3", "slope",
    "slope_mg_cm3_per_hu", "spine_mg_cm3_per_hu", "muscle_mg_cm3_per_hu", "fat_mg_cm3_per_hu", "expected_muscle_hu",
    "expected_fat_hu", "muscle_scanner_sd_hu", "fat_scanner_sd_hu", "muscle_biological_sd_hu", "fat_biological_sd_hu",
    "scanner", "kernel", "cohort_size", "date", "scans_from", "scans_to", "reference")
"""Fields of the calibration that tell it from another one, of whatever kind."""


def sentences(record: Mapping[str, Any]) -> list[str]:
    """The result, what bears on it, who signed it and the disclaimer, one sentence or paragraph each.

    record: content of measurement.json.
    """
    from ..results import DISCLAIMER

    flags = [f"[{flag['severity']}] {flag['sentence']}" for flag in record["flags"]]
    return [*_result(record), *flags, *_unmeasured(record), *_readers_part(record), DISCLAIMER]


def _result(record: Mapping[str, Any]) -> Iterator[str]:
    if record["mean_vbmd_mg_cm3"] is None:
        yield "No mean vBMD is given."
        return
    low, high = record["mean_vbmd_ci95"]
    provisional = f", provisional ({why})" if (why := why_provisional(record)) else ""
    yield (f"Mean vBMD of {' and '.join(record['mean_of'])}: {record['mean_vbmd_mg_cm3']:.1f} mg/cm3, 95 % interval "
           f"{low:.1f} to {high:.1f} mg/cm3; {CLASS_WORDS[record['category']]}{provisional}.")


def _unmeasured(record: Mapping[str, Any]) -> Iterator[str]:
    for level in record["levels"]:
        if level["hu_mean"] is None:
            yield f"{level['name']} was not measured: {level['reason'] or 'no reason is recorded'}."


def _readers_part(record: Mapping[str, Any]) -> Iterator[str]:
    if edited := record.get("edited"):
        names = (STRUCTURES[name].title if name in STRUCTURES else name.replace("_", " ") for name in edited)
        yield f"A reader drew or changed: {', '.join(names)}."
    if (before := record.get("automatic_mean_vbmd_mg_cm3")) is not None:
        yield f"Mean vBMD before the reader's changes: {before:.1f} mg/cm3."
    yield from record.get("reopened", ())
    if review := record.get("review"):
        verb = "Accepted" if review["decision"] == ACCEPTED else "Rejected"
        comment = f": {review['comment']}" if review["comment"] else "."
        yield f"{verb} by {review['reader']}, {review['signed_at']}{comment}"


def algorithm_parameters(record: Mapping[str, Any]) -> list[str]:
    """``name=value`` of what the numbers depend on: networks with their hashes, calibration, erosion, tube voltage."""
    networks = [f"network {name}={value}" for name, value in record["software"].get("networks", {}).items()]
    calibration = [*_calibration("calibration", record["calibration"])]
    kvp = record["acquisition"].get("kvp")
    scan = [] if kvp is None else [f"scan kvp={kvp:g}"]
    return [*networks, *calibration, f"erosion={record['erosion']}", *scan]


def _calibration(title: str, calibration: Mapping[str, Any]) -> Iterator[str]:
    """The facts of a calibration, and of the one that it rescales."""
    for name in CALIBRATION_FACTS:
        if calibration.get(name) not in (None, ""):
            yield f"{title} {name}={calibration[name]}"
    if base := calibration.get("base"):
        yield from _calibration(f"{title} base", base)
