"""One self-contained page for a radiologist, made from the content of measurement.json and the pictures.

Everything that is shown is formatted here; the template only places it. Text from files (series description,
kernel, names of segments) is escaped by the template engine.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ..flags import refusals
from ..headers import age_text
from ..record import SCHEMA_VERSION, why_provisional
from . import calibration_facts
from .figures import captions
from .numbers import NO_VALUE, UNKNOWN, number, with_unit
from .tables import TISSUES
from .templating import fill

CATEGORY_TITLES = {"normal": "Normal", "low_bone_mass": "Low bone mass", "osteoporosis_range": "Range of osteoporosis"}
SEVERITIES = {"refused": "Refused", "limited": "Limited", "caution": "Caution", "info": "Note"}
"""Words for severities, gravest first."""

EROSION_TITLES = {
    "physical": "distance in mm from the surface of the vertebral body",
    "paper": "ellipsoid of 3.9 x 3.9 x 5.0 mm, as published",
    "voxels": "ball of 4 voxels",
    "edited": "regions drawn or edited by a reader",
}
STATEMENTS = (
    "This is research software, not a medical device. A reader must check level names and regions before using a value.",
    "It cannot be used to rule out low bone density. Confirm an abnormal or doubtful result by QCT or DXA.",
    "The value is a volumetric density of trabecular bone (mg/cm³, K2HPO4 scale). It is not a DXA T-score and must not "
    "be converted into one.",
    "It is not for monitoring: changes below the least significant change (2.77 times the precision SD, which each "
    "site must determine) mean nothing.",
    "The limits 80 and 120 mg/cm³ hold for unenhanced CT, for the mean of two vertebral bodies, and for "
    "post-menopausal women and elderly men. Intravenous contrast makes vBMD read high.",
)
NEXT_STEPS = (
    "Check that the series is a chest CT in Hounsfield units that reaches below L2, and choose another series or a "
    "longer reconstruction where there is one.",
    "Or draw the missing regions in 3D Slicer (L1 and L2 trabecular bone, psoas, subcutaneous fat), save them as "
    "segmentation.seg.nrrd and measure again with --rois; the report will say that a reader drew them.",
    "Where bone density matters for this patient, refer to QCT or DXA: this CT says nothing about it.",
)
SEX_TITLES = {"F": "female", "M": "male"}

PRINT_PICTURE_PX = 210
"""Height of a picture on paper, at 96 pixels an inch: two rows and the tables fit on one page of A4."""

_SCALE_MG_CM3 = 200.0
"""Upper end of the drawn density scale."""


def render_report(record: Mapping[str, Any], figures: Mapping[str, bytes] | None = None) -> str:
    """The page as HTML text. record: as of record.to_dict; figures: PNG by name, as of figures.make_figures.

    Raises ValueError when the record has a newer schema than this program knows.
    """
    return _render("report.html.j2", record, figures)


def render_print(record: Mapping[str, Any], figures: Mapping[str, bytes] | None = None) -> str:
    """The same for paper, in the part of HTML that Qt's QTextDocument draws; see render_report."""
    return _render("print.html.j2", record, figures, picture_height=PRINT_PICTURE_PX)


def _render(template: str, record: Mapping[str, Any], figures: Mapping[str, bytes] | None, **layout: Any) -> str:
    if record.get("schema_version", 0) > SCHEMA_VERSION:
        raise ValueError(f"the measurement has schema version {record['schema_version']}, this program knows "
                         f"{SCHEMA_VERSION}: update the program")
    return fill(template, report=_view(record, figures or {}), **layout)


def _view(record: Mapping[str, Any], figures: Mapping[str, bytes]) -> dict[str, Any]:
    acquisition = record.get("acquisition") or {}
    return {
        "measured": record["status"] == "measured",
        "signature": _signature(record),
        "heading": _heading(acquisition),
        "result": _result(record) if record["status"] == "measured" else None,
        "refusals": refusals(record),
        "next_steps": NEXT_STEPS,
        "flags": _flags(record),
        "levels": [_level(record, level) for level in record["levels"]],
        "tissues": [_tissue(name, record[name]) for name in TISSUES if record.get(name)],
        "figures": _figures(figures),
        "facts": [*([("Reader", _reader(record))] if _read(record) else []),
                  ("Acquisition", _acquisition(acquisition)), ("Method", _method(record)),
                  ("Calibration", calibration_facts.facts(record["calibration"], why_provisional(record))),
                  ("Software", _software(record))],
        "statements": STATEMENTS,
    }


def _heading(acquisition: Mapping[str, Any]) -> list[str]:
    parts = (("", acquisition.get("series_description")), ("study of ", _date(acquisition.get("study_date"))))
    return [f"{prefix}{value}" for prefix, value in parts if value]


def _date(text: str | None) -> str | None:
    """DICOM's 20240131 as 2024-01-31; any other text as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text and len(text) == 8 and text.isdigit() else text


# --- the answer --------------------------------------------------------------------------------------------

def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    low, high = record["mean_vbmd_ci95"]
    limits = record.get("limits_mg_cm3") or [80.0, 120.0]
    return {
        "value": number(record["mean_vbmd_mg_cm3"], 1),
        "interval": _interval(record["mean_vbmd_ci95"]),
        "category": CATEGORY_TITLES.get(record["category"], record["category"]),
        "provisional": f"provisional class: {why}" if (why := why_provisional(record)) else "",
        "mean_of": "mean of " + " and ".join(record["mean_of"]) if len(record["mean_of"]) > 1
                   else f"{record['mean_of'][0]} only",
        "probability": _percent(record["p_below_80"]),
        "scale": {"low": _place(low), "high": _place(high), "value": _place(record["mean_vbmd_mg_cm3"]),
                  "limits": [(_place(limit), f"{limit:.0f}") for limit in limits], "end": f"{_SCALE_MG_CM3:.0f}",
                  "beyond": record["mean_vbmd_mg_cm3"] > _SCALE_MG_CM3},
    }


def _place(vbmd_mg_cm3: float) -> float:
    """Position on the drawn scale, 0..100, kept inside."""
    return round(100 * min(max(vbmd_mg_cm3 / _SCALE_MG_CM3, 0.0), 1.0), 2)


def _flags(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Findings, gravest first. Refusals of a refused study stand in the headline already."""
    order = list(SEVERITIES)
    shown = [flag for flag in record["flags"] if record["status"] == "measured" or flag["severity"] != "refused"]
    shown.sort(key=lambda flag: order.index(flag["severity"]) if flag["severity"] in order else 0)
    return [{"severity": flag["severity"] if flag["severity"] in SEVERITIES else "limited",
             "word": SEVERITIES.get(flag["severity"], flag["severity"]), "sentence": flag["sentence"]}
            for flag in shown]


def _level(record: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    measured = level["hu_mean"] is not None
    return {
        "name": level["name"],
        "used": level["used"],
        "vbmd": number(level["vbmd_mg_cm3"], 1),
        "interval": _interval(level["vbmd_ci95"]),
        "hu": _spread(level["hu_mean"], level["hu_sd"]),
        "median": number(level.get("hu_median"), 0),
        "volume": number(level["volume_mm3"] / 1000, 1) if measured else NO_VALUE,
        "kept": _percent(level["kept_fraction"]) if measured else NO_VALUE,
        "state": _state(record, level),
    }


def _state(record: Mapping[str, Any], level: Mapping[str, Any]) -> str:
    if level["hu_mean"] is None:
        return f"not measured: {level['reason']}" if level["reason"] else "not measured"
    state = "complete" if level["complete"] else "incomplete"
    if record.get("erosion") == "edited" or level.get("edited"):
        state += ", edited by a reader"
    if level.get("excluded"):
        state += f", left out by a reader: {level['excluded']}"
    return state


def _tissue(name: str, tissue: Mapping[str, Any]) -> dict[str, str]:
    sides = tissue.get("side_hu") or {}
    each = ", ".join(f"{_region(side)} {number(hu, 0)}" for side, hu in sides.items()) if len(sides) > 1 else ""
    where = ", ".join(_region(structure) for structure in tissue["structures"])
    return {"name": name.capitalize(), "where": each + " HU" if each else where,
            "hu": _spread(tissue["hu_mean"], tissue["hu_sd"]), "median": number(tissue.get("hu_median"), 0),
            "volume": number(tissue["volume_mm3"] / 1000, 1)}


def _region(name: str) -> str:
    from ..anatomy import STRUCTURES

    return STRUCTURES[name].title.lower() if name in STRUCTURES else name


def _figures(figures: Mapping[str, bytes]) -> list[dict[str, str]]:
    known = captions()
    names = [*(name for name in known if name in figures), *(name for name in figures if name not in known)]
    return [{"name": name if name in known else "other", "title": known.get(name, (name, ""))[0],
             "caption": known.get(name, (name, ""))[1], "png": base64.b64encode(figures[name]).decode("ascii")}
            for name in names]


# --- the reader --------------------------------------------------------------------------------------------

SIGNATURES = {"accepted": "Accepted", "rejected": "Rejected: this value is not to be used. Signed"}


def _signature(record: Mapping[str, Any]) -> dict[str, str] | None:
    review = record.get("review")
    if not review:
        return None
    comment = f" {review['comment']}" if review["comment"] else ""
    return {"decision": review["decision"],
            "sentence": f"{SIGNATURES[review['decision']]} by {review['reader']}, {_moment(review['signed_at'])}.{comment}"}


def _moment(iso: str) -> str:
    """2026-01-31T10:20:30+01:00 as 2026-01-31 10:20 (UTC+01:00)."""
    from datetime import datetime

    moment = datetime.fromisoformat(iso)
    return f"{moment:%Y-%m-%d %H:%M} ({moment.tzinfo})" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M}"


def _read(record: Mapping[str, Any]) -> bool:
    return bool(record.get("edited") or record.get("review") or record.get("reopened") or _left_out(record))


def _left_out(record: Mapping[str, Any]) -> str:
    return "; ".join(f"{level['name']}: {level['excluded']}" for level in record["levels"] if level.get("excluded"))


def _reader(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    automatic = record.get("automatic_mean_vbmd_mg_cm3")
    facts = [("Edited", ", ".join(edit_title(name) for name in record["edited"]) or "nothing"),
             *([("Left out", _left_out(record))] if _left_out(record) else []),
             ("Before edits", f"{number(automatic, 1)} mg/cm³" if automatic is not None else "no value")]
    return [*facts, *(("Reopened", sentence) for sentence in record.get("reopened") or [])]


def edit_title(name: str) -> str:
    """What a reader changed, in words. name: as in the record's ``edited``."""
    if name.startswith("keypoint_"):
        return f"{name.removeprefix('keypoint_')} keypoint"
    return "names of the levels" if name == "level_names" else _region(name)


# --- the facts ---------------------------------------------------------------------------------------------

def _acquisition(acquisition: Mapping[str, Any]) -> list[tuple[str, str]]:
    scanner = " ".join(str(acquisition[key]) for key in ("manufacturer", "scanner") if acquisition.get(key))
    return [
        ("Scanner", scanner or UNKNOWN),
        ("Tube", " · ".join((with_unit(acquisition.get("kvp"), "kV"), with_unit(acquisition.get("tube_current_ma"), "mA")))
         if acquisition.get("tube_current_ma") else with_unit(acquisition.get("kvp"), "kV")),
        ("Kernel", acquisition.get("kernel") or UNKNOWN),
        ("Slice thickness", with_unit(acquisition.get("slice_thickness_mm"), "mm")),
        ("Field of view", with_unit(acquisition.get("field_of_view_mm"), "mm")),
        ("Contrast agent", acquisition.get("contrast_agent") or UNKNOWN),
        ("Source", acquisition.get("source") or UNKNOWN),
        *_patient(acquisition),
        *((title, str(acquisition[key])) for title, key in
          (("Series taken", "series_choice"), ("Study UID", "study_uid"), ("Series UID", "series_uid"))
          if acquisition.get(key)),
    ]


def _patient(acquisition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Age and sex, which bear on what a vBMD means, as far as they are known."""
    age, sex = acquisition.get("patient_age_years"), SEX_TITLES.get(acquisition.get("patient_sex"))
    return [(title, text) for title, text in (("Age", age and age_text(age)), ("Sex", sex)) if text]


def _method(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Reads", calibration_facts.reads(record["calibration"])),
        ("Trabecular region", EROSION_TITLES.get(record.get("erosion"), str(record.get("erosion")))),
        ("Classes", "below 80 range of osteoporosis, 80 to 120 low bone mass, above 120 mg/cm³ normal (QCT consensus)"),
        ("95 % interval", calibration_facts.interval(record["calibration"])),
    ]


def _software(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    software = record.get("software") or {}
    facts = [("Program", " ".join(str(software[key]) for key in ("name", "version") if software.get(key)) or UNKNOWN)]
    facts += [(f"Model {name}", str(value)) for name, value in (software.get("networks") or {}).items()]
    libraries = software.get("libraries") or {}
    if libraries:
        facts.append(("Libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())))
    facts.append(("Run time", _run_time(record.get("seconds"))))
    return facts


def _run_time(seconds: Any) -> str:
    total = sum(seconds.values()) if isinstance(seconds, Mapping) else seconds
    return UNKNOWN if not total else f"{total:.1f} s"


# --- numbers -----------------------------------------------------------------------------------------------

def _interval(ci95: list[float] | None) -> str:
    return NO_VALUE if ci95 is None else f"{number(ci95[0], 0)} to {number(ci95[1], 0)}"


def _spread(mean: float | None, sd: float | None) -> str:
    return NO_VALUE if mean is None else f"{number(mean, 0)} ± {number(sd, 0)}"


def _percent(fraction: float | None) -> str:
    """Whole per cent; the ends stay open, because 0 and 100 would claim certainty."""
    if fraction is None:
        return NO_VALUE
    if fraction < 0.01:
        return "< 1 %"
    return "> 99 %" if fraction > 0.99 else f"{100 * fraction:.0f} %"
