"""The page of a fitted calibration: formatted here, only placed by the template, which escapes all text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .agreement_figures import Drawing
from .numbers import NO_VALUE, UNIT, between, number, percent
from .study_page import embedded, render

Found = Mapping[str, Any]


def render_page(record: Found, figures: Sequence[Drawing]) -> str:
    """calibrate.html out of the content of calibrate.json and the figures."""
    training, software = record["training"], record["software"]
    synthetic = training["synthetic"] > 0
    return render("calibrate.html.j2", {
        "title": "Calibration of vBMD from low-dose chest CT",
        "heading": [part for part in (record["source"], f"{training['people']} training people", record["date"],
                                      f"{software['name']} {software['version']}") if part],
        "synthetic": next((text for text in record["warnings"] if "synthetic" in text), "") if synthetic else "",
        "findings": [record["reason"], *(text for text in record["warnings"] if not (synthetic and "synthetic" in text))],
        "models": [{"title": model["title"], "chosen": model["kind"] == record["chosen"]} for model in record["models"]],
        "rows": [[title, *(cell(model) for model in record["models"])] for title, cell in ROWS],
        "facts": _facts(record),
        "figures": [embedded(figure) for figure in figures],
        "statements": record["statements"],
    })


# --- the table of models: cells of a value and what stands below it, line by line ------------------------------

Cell = tuple[str, ...]


def _estimate(found: Found | None, digits: int) -> Cell:
    if found is None:
        return (NO_VALUE,)
    return number(found["value"], digits), between(found["low"], found["high"], digits)


def _share(found: Found) -> Cell:
    if not found["of"]:
        return (NO_VALUE,)
    interval = between(100 * found["wilson"]["low"], 100 * found["wilson"]["high"], 1)
    return percent(found["value"]), f"{found['count']}/{found['of']}", interval


def _limits(model: Found) -> Cell:
    result = model["performance"]["bland_altman"]
    return (between(result["lower"]["value"], result["upper"]["value"], 1),)


def _cut_off(model: Found) -> Cell:
    found = model["performance"]["cut_off"]
    if found is None:
        return (NO_VALUE,)
    return percent(found["sensitivity"]["value"]), f"below {number(found['threshold'], 1)}"


def _of(*path: str, digits: int) -> Callable[[Found], Cell]:
    def cell(model: Found) -> Cell:
        found = model["performance"]
        for name in path:
            found = found[name]
        return _estimate(found, digits)

    return cell


ROWS: tuple[tuple[str, Callable[[Found], Cell]], ...] = (
    (f"RMSE, {UNIT}", lambda model: (number(model["performance"]["rmse_mg_cm3"], 2),
                                     f"SE {number(model['performance']['rmse_se_mg_cm3'], 2)}")),
    (f"Bias, {UNIT}", _of("bland_altman", "bias", digits=2)),
    ("95 % limits of agreement", _limits),
    ("Slope of residual on mean", _of("bland_altman", "slope", digits=3)),
    ("Slope of prediction on QCT", lambda model: (number(model["performance"]["slope"], 3),)),
    ("Pearson r", _of("pearson", digits=3)),
    ("ICC(A,1)", _of("icc_agreement", digits=3)),
    ("AUC, QCT below 80", _of("auc", digits=3)),
    ("Sensitivity at 80", lambda model: _share(model["performance"]["diagnostic"]["sensitivity"])),
    ("Specificity at 80", lambda model: _share(model["performance"]["diagnostic"]["specificity"])),
    ("Sensitivity at specificity ≥ 97 %", _cut_off),
    ("QCT within 95 % interval", lambda model: _share(model["performance"]["coverage"])),
    ("Moves per HU of drift", lambda model: (number(model["shift_mg_cm3_per_hu"], 2),)),
)


# --- the calibration written -----------------------------------------------------------------------------------

COEFFICIENTS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "line": (("Intercept", "intercept_mg_cm3", "intercept_variance"),
             ("Slope per HU", "slope_mg_cm3_per_hu", "slope_variance")),
    "two_point": (("Muscle", "muscle_mg_cm3", "muscle_variance"), ("Fat", "fat_mg_cm3", "fat_variance")),
    "regression": (("Intercept", "intercept_mg_cm3", "0"), ("Bone per HU", "spine_mg_cm3_per_hu", "1"),
                   ("Muscle per HU", "muscle_mg_cm3_per_hu", "2"), ("Fat per HU", "fat_mg_cm3_per_hu", "3")),
}
"""By kind: what a constant is called, its field, and the field (of a matrix: the place) of its variance."""


def _facts(record: Found) -> list[tuple[str, str]]:
    """Name and value of what the file says."""
    calibration, training = record["calibration"], record["training"]
    scans = between_days(calibration["scans_from"], calibration["scans_to"])
    return [
        ("Name", calibration["name"]),
        *_constants(calibration),
        ("Residual SD", f"{number(calibration.get('base', calibration)['residual_sd_mg_cm3'], 2)} {UNIT}"),
        ("People", f"{calibration['cohort_size']}, {training['below']} of them below 80 {UNIT} by QCT"),
        ("QCT densities", f"{between(calibration['lowest_mg_cm3'], calibration['highest_mg_cm3'], 1)} {UNIT} "
                          f"({calibration['unit']} scale); {calibration['reference']}"),
        ("Scanner", f"{calibration['scanner'].replace(';', ', ') or 'not known'}; {calibration['kvp']:g} kV; kernel "
                    f"{calibration['kernel'].replace(';', ', ') or 'not known'}"),
        ("Scans", scans or "day not known"),
        *((f"{title} HU expected", f"{number(calibration[f'expected_{name}_hu'], 1)}, SD between people "
                                   f"{number(calibration[f'{name}_spread_hu'], 1)}")
          for name, title in (("muscle", "Muscle"), ("fat", "Fat"))),
    ]


def between_days(first: str, last: str) -> str:
    """Days of the scans in words."""
    return first if first == last else f"{first} to {last}"


def _constants(calibration: Found) -> list[tuple[str, str]]:
    if calibration["kind"] == "rescaled":
        own = f"{number(calibration['intercept_mg_cm3'], 2)} {UNIT} + {number(calibration['slope'], 4)} × the value below"
        return [("Rescaled", own), *_constants(calibration["base"])]
    rows = COEFFICIENTS[calibration["kind"].removeprefix("shrunk_")]
    return [(title, f"{number(calibration[field], 4)} ± {number(_variance(calibration, variance) ** 0.5, 4)} (SE)")
            for title, field, variance in rows]


def _variance(calibration: Found, where: str) -> float:
    if where.isdigit():
        return calibration["coefficient_covariance"][int(where)][int(where)]
    return calibration[where]
