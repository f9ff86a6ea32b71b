"""What reports say of a calibration, of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import Calibration, calibration_to_dict
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.files.dicom_report_text import algorithm_parameters, sentences
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.record import to_dict, why_provisional
from LowDoseBMDLib.report import calibration_facts
from LowDoseBMDLib.report.html import render_print, render_report
from test_calibration_models import EVERY, LINE, REGRESSION, RESCALED, RESCALED_LINE, SHRUNK, TWO_POINT, VERSION_1

EQUATIONS = {
    TWO_POINT: "muscle +45.0, fat −82.0 mg/cm³", SHRUNK: "muscle +45.0, fat −82.0 mg/cm³",
    LINE: "8.1 + 0.800 × HU, in mg/cm³",
    REGRESSION: "12.0 + 0.820 × bone − 0.200 × muscle + 0.100 × fat, HU in, mg/cm³ out",
    RESCALED: "−20.0 + 1.200 × v, in mg/cm³", RESCALED_LINE: "−20.0 + 1.200 × v, in mg/cm³"}


def record_of(calibration: Calibration, **scan: object) -> dict:
    ct = replace(torso.ct(), acquisition=Acquisition(**({"kvp": 120.0, "scanner": "LightSpeed VCT"} | scan)))
    return to_dict(measure(ct, torso.rois(), calibration), ct.acquisition, {}, 1.0)


@pytest.mark.parametrize("calibration", EVERY, ids=lambda c: c.name)
def test_every_kind_is_told_in_page_print_and_dicom(calibration: Calibration) -> None:
    record = record_of(calibration)
    facts = dict(calibration_facts.facts(record["calibration"]))
    assert facts["Constants"] == EQUATIONS[calibration]
    assert facts["Status"] == "fitted at this site"
    assert facts["Cohort's vBMD"] == "40 to 210 mg/cm³"
    assert facts["Cohort's tissue"] == "muscle 57 ± 6.0, fat −104 ± 5.0 HU"
    assert facts["Scans of"] == "2025-01-02 to 2026-02-03"
    for page in (render_report(record), render_print(record)):
        assert EQUATIONS[calibration] in page and "QCT with a phantom" in page and "provisional" not in page
    told = algorithm_parameters(record)
    assert f"calibration kind={calibration.kind}" in told and "calibration scans_to=2026-02-03" in told


def test_a_rescaled_calibration_tells_its_base() -> None:
    facts = dict(calibration_facts.facts(calibration_to_dict(RESCALED)))
    assert facts["v is of"].endswith("muscle +45.0, fat −82.0 mg/cm³")
    assert facts["Weight of own tissue"] == "muscle 12 %, fat 36 %; the rest is the cohort's mean"
    told = algorithm_parameters(record_of(RESCALED_LINE))
    assert {"calibration slope=1.2", "calibration base kind=line", "calibration base slope_mg_cm3_per_hu=0.8"} <= set(told)


@pytest.mark.parametrize(("calibration", "own"), [
    (LINE, "the scanner's own line"), (RESCALED_LINE, "the scanner's own line"), (REGRESSION, "in a regression"),
    (RESCALED, "as the density scale"),
])
def test_what_a_value_rests_on(calibration: Calibration, own: str) -> None:
    data = calibration_to_dict(calibration)
    assert own in calibration_facts.reads(data)
    assert ("muscle" in calibration_facts.interval(data)) == (calibration is RESCALED)
    assert calibration_facts.interval(data).endswith("in people on whom it was not fitted")


@pytest.mark.parametrize(("scan", "why"), [
    ({}, ""), ({"scanner": "Aquilion"}, "other scanner than calibrated"),
    ({"kvp": 100.0}, "other tube voltage than calibrated"),
    ({"kvp": 80.0, "scanner": "Aquilion"}, "other tube voltage than calibrated and other scanner than calibrated"),
])
def test_why_a_class_is_provisional(scan: dict, why: str) -> None:
    record = record_of(TWO_POINT, **scan)
    assert why_provisional(record) == why
    assert (f"provisional ({why})" in sentences(record)[0]) == bool(why)
    status = dict(calibration_facts.facts(record["calibration"], why))["Status"]
    assert status == ("fitted at this site" + (f"; class provisional: {why}" if why else ""))


def test_a_calibration_of_synthetic_people_says_that_it_is_not_for_patients() -> None:
    record = record_of(replace(TWO_POINT, status="synthetic"))
    assert record["category_provisional"] and why_provisional(record) == "calibrated on synthetic people"
    codes = {flag["code"] for flag in record["flags"]}
    assert "calibration_synthetic" in codes and "uncalibrated" not in codes
    status = dict(calibration_facts.facts(record["calibration"], why_provisional(record)))["Status"]
    assert "not for patients" in status


def test_a_record_with_a_calibration_of_version_1_is_still_told() -> None:
    facts = dict(calibration_facts.facts(VERSION_1))
    assert (facts["Constants"], facts["Fitted on"]) == ("muscle +45.0, fat −82.0 mg/cm³", "60 pairs, 2024-02-01")
