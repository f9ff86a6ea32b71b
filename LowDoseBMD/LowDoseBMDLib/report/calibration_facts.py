"""A calibration in words for a report: what it computes, what it holds for and what it was fitted on.

Every function takes the calibration as in a calibration file or a record (a mapping); what an older file does not hold is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calibration import SITE, SYNTHETIC
from .numbers import number, with_unit

TITLES = {
    "two_point": "line through the patient's own muscle and fat",
    "shrunk_two_point": "line through muscle and fat, drawn towards what this scanner's tissue reads",
    "line": "line of this scanner; muscle and fat are not read",
    "regression": "regression on the HU of bone, muscle and fat",
    "rescaled": "another calibration, rescaled to the spread of the reference for the sake of the class",
}
READS = {
    "line": "mean HU of trabecular bone on the CT's own grid, turned into density by the scanner's own line; muscle and fat "
            "only tell whether the scanner reads as it did",
    "regression": "mean HU of trabecular bone on the CT's own grid, with the HU of the patient's muscle and fat in a "
                  "regression fitted at this site",
}
_PAPER_READS = ("mean HU of trabecular bone on the CT's own grid, with the HU of the patient's muscle and fat as the "
                "density scale (after Zhao et al. 2024, doi 10.13609/j.cnki.1000-0313.2024.02.019)")
_INTERVALS = {
    "two_point": ("the noise of each region", "the spread of muscle and fat between people",
                  "what is not known of the constants"),
    "shrunk_two_point": ("the noise of each region", "what is not known of muscle and fat on this scanner",
                         "what is not known of the constants"),
    "line": ("the noise of the vertebral regions", "what is not known of the line"),
    "regression": ("the noise of each region", "what is not known of the coefficients"),
}
_RESIDUAL = "the scatter that is left in people on whom it was not fitted"


def facts(calibration: Mapping[str, Any], why_provisional: str = "") -> list[tuple[str, str]]:
    """Title and text of each fact. why_provisional: of the class, empty when it is not."""
    found = [("Name", calibration["name"]), ("Kind", TITLES.get(calibration["kind"], calibration["kind"])),
             ("Status", _status(calibration, why_provisional)), ("Scale", f"{calibration['unit']}, mg/cm³"),
             *_constants(calibration), ("Made for", _made_for(calibration))]
    if calibration.get("cohort_size"):
        found.append(("Fitted on", f"{calibration['cohort_size']} pairs, {calibration.get('date') or 'no date'}"))
    return [*found, *_cohort(calibration)]


def reads(calibration: Mapping[str, Any]) -> str:
    """How a vBMD comes about, of the kind or of the kind that is rescaled."""
    return READS.get(_inner(calibration)["kind"], _PAPER_READS)


def interval(calibration: Mapping[str, Any]) -> str:
    """What the 95 % interval holds."""
    inner = _inner(calibration)
    parts = [*_INTERVALS.get(inner["kind"], ("the noise of each region",)),
             *([_RESIDUAL] if inner.get("residual_sd_mg_cm3") else [])]
    return f"from {', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else f"from {parts[0]}"


def equation(calibration: Mapping[str, Any]) -> str:
    """Constants or coefficients in one line, mg/cm³ and HU; empty for a kind that this program does not know."""
    kind, c = calibration["kind"], calibration
    if kind in ("two_point", "shrunk_two_point"):
        return f"muscle {_signed(c['muscle_mg_cm3'], 1)}, fat {_signed(c['fat_mg_cm3'], 1)} mg/cm³"
    if kind == "line":
        return f"{number(c['intercept_mg_cm3'], 1)} {_term(c['slope_mg_cm3_per_hu'])} × HU, in mg/cm³"
    if kind == "regression":
        return (f"{number(c['intercept_mg_cm3'], 1)} {_term(c['spine_mg_cm3_per_hu'])} × bone "
                f"{_term(c['muscle_mg_cm3_per_hu'])} × muscle {_term(c['fat_mg_cm3_per_hu'])} × fat, HU in, mg/cm³ out")
    if kind == "rescaled":
        return f"{number(c['intercept_mg_cm3'], 1)} {_term(c['slope'])} × v, in mg/cm³"
    return ""


def _constants(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    text = equation(calibration)
    found = [("Constants", text)] if text else []
    if base := calibration.get("base"):
        found.append(("v is of", f"{TITLES.get(base['kind'], base['kind'])}: {equation(base)}"))
    if _inner(calibration)["kind"] == "shrunk_two_point":
        found.append(("Weight of own tissue", _weights(_inner(calibration))))
    return found


def _weights(calibration: Mapping[str, Any]) -> str:
    from ..calibration import calibration_from_dict

    muscle, fat = calibration_from_dict(calibration).weights
    return f"muscle {100 * muscle:.0f} %, fat {100 * fat:.0f} %; the rest is the cohort's mean"


def _cohort(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the people and scans it was fitted on."""
    found = []
    if calibration.get("scans_from") or calibration.get("scans_to"):
        found.append(("Scans of", f"{calibration.get('scans_from') or '?'} to {calibration.get('scans_to') or '?'}"))
    if calibration.get("reference"):
        found.append(("Reference", calibration["reference"]))
    low, high = calibration.get("lowest_mg_cm3"), calibration.get("highest_mg_cm3")
    if low or high:
        found.append(("Cohort's vBMD", f"{number(low, 0)} to {number(high, 0)} mg/cm³"))
    tissues = [_tissue(calibration, name) for name in ("muscle", "fat")
               if calibration.get(f"expected_{name}_hu") is not None]
    return [*found, ("Cohort's tissue", ", ".join(tissues) + " HU")] if tissues else found


def _tissue(calibration: Mapping[str, Any], name: str) -> str:
    spread = calibration.get(f"{name}_spread_hu")
    return f"{name} {number(calibration[f'expected_{name}_hu'], 0)}" + (f" ± {spread:.1f}" if spread else "")


def _status(calibration: Mapping[str, Any], why_provisional: str) -> str:
    if calibration["status"] == SYNTHETIC:
        return "fitted on synthetic people: not for patients, class provisional"
    if calibration["status"] != SITE:
        return "uncalibrated: literature constants, class provisional"
    return "fitted at this site" + (f"; class provisional: {why_provisional}" if why_provisional else "")


def _made_for(calibration: Mapping[str, Any]) -> str:
    scanner = ", ".join(_listed(calibration.get("scanner"))) or "any scanner"
    kernel = ", ".join(_listed(calibration.get("kernel"))) or "any kernel"
    return f"{with_unit(calibration.get('kvp'), 'kV')}, {scanner}, {kernel}"


def _listed(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(";") if name.strip()]


def _inner(calibration: Mapping[str, Any]) -> Mapping[str, Any]:
    return calibration.get("base") or calibration


def _term(coefficient: float) -> str:
    return f"{'−' if coefficient < 0 else '+'} {abs(coefficient):.3f}"


def _signed(value: float, digits: int) -> str:
    return ("+" if value > 0 else "") + number(value, digits)
