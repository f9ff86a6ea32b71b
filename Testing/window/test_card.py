"""What the card, the flags and the facts say about a measurement: pure text on real measurements."""

from __future__ import annotations

import importlib
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

pytest.importorskip("slicer_adapter")
import small_torso as torso
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.calibration_models import LineCalibration
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.review import Review
from LowDoseBMDLib.rois import LevelFinding


@pytest.fixture
def part(a_slicer):
    """Imports a file of the panel."""
    return lambda name: importlib.import_module(f"LowDoseBMDQt.{name}")


def measurement(calibration: TwoPointCalibration = TwoPointCalibration(), **findings: LevelFinding) -> Measurement:
    return measure(torso.ct(), torso.rois(**findings), calibration)


def test_number_comes_with_unit_interval_levels_and_state(part) -> None:
    found = measurement()
    low, high = found.mean_vbmd_ci95
    text = part("card").cardHtml(found, "measured")
    assert f"<b>{found.mean_vbmd_mg_cm3:.0f}</b>" in text and "mg/cm³" in text
    assert f"95 %: {low:.0f} to {high:.0f}" in text and "mean of L1, L2" in text
    assert "provisional: uncalibrated scanner" in text and "not yet read" in text


def test_refusal_gives_the_reasons_and_no_number(part) -> None:
    cut = {name: LevelFinding(name, False, f"{name} is <cut> by the edge") for name in ("T12", "L1", "L2")}
    text = part("card").cardHtml(measurement(**cut), "refused")
    assert "Not measured" in text and "mg/cm³" not in text
    assert "L1 is &lt;cut&gt; by the edge" in text, "text from the record is not markup"
    assert all(f"href='draw:trabecular_{name}'" in text for name in ("T12", "L1", "L2"))


@pytest.mark.parametrize(("automatic", "sentence"), [
    (-3.0, "+3 mg/cm³ from the automatic"), (0.2, "within 0.5 mg/cm³ of the automatic"),
    (None, "there was no automatic value")])
def test_edits_are_said_with_their_effect(part, automatic: float | None, sentence: str) -> None:
    found = measurement()
    before = None if automatic is None else found.mean_vbmd_mg_cm3 + automatic
    assert sentence in part("card").cardHtml(found, "edited", before)


def test_beside_the_brush_stands_the_number_with_unit_interval_and_state(part) -> None:
    found = measurement()
    low, high = found.mean_vbmd_ci95
    line = part("card").shortText(found, "edited")
    assert line == f"vBMD {found.mean_vbmd_mg_cm3:.0f} mg/cm³ ({low:.0f} to {high:.0f}), provisional, after your edits"
    cut = {name: LevelFinding(name, False, "cut") for name in ("T12", "L1", "L2")}
    assert part("card").shortText(measurement(**cut), "refused") == "not measured"


def test_a_signature_and_the_edits_before_it_are_both_said(part) -> None:
    found = measurement()
    review = Review("accepted", "A <B>", "clear", "2026-01-02T03:04:05+01:00")
    text = part("card").cardHtml(found, "accepted", found.mean_vbmd_mg_cm3 - 5, review, edited=True)
    assert "Accepted" in text and "A &lt;B&gt;, 2026-01-02 03:04: clear" in text and "+5 mg/cm³" in text


def test_a_number_that_is_out_of_date_says_why(part) -> None:
    assert "Out of date: The CT was moved." in part("card").cardHtml(measurement(), "stale", staleReason="The CT was moved.")


def test_a_site_calibration_is_not_provisional(part) -> None:
    site = TwoPointCalibration(status="site", cohort_size=50)
    assert "provisional" not in part("card").cardHtml(measurement(site), "measured")


def test_graver_flags_come_first_and_refusals_are_the_card_itself(part) -> None:
    flags = tuple(Flag(each.value, each, each.value) for each in
                  (Severity.INFO, Severity.REFUSED, Severity.CAUTION, Severity.LIMITED))
    listed = part("card").notes(replace(measurement(), flags=flags))
    assert [flag.code for flag in listed] == ["limited", "caution", "info"]


def test_facts_of_a_scan_stand_before_the_run(part) -> None:
    facts = part("volume_facts")
    scan = Acquisition(kvp=100.0, kernel="B70f", slice_thickness_mm=5.0, scanner="X<1>", contrast_agent="Iopromide")
    text = facts.factsText(scan, "Doe <Jane>", (0.7, 0.7, 5.0), 320.0)
    assert text.startswith("<b>Doe &lt;Jane&gt;</b>") and "X&lt;1&gt;" in text
    assert all(fact in text for fact in ("100 kV", "kernel B70f", "5 mm slices", "32 cm long"))
    warning = facts.warningText(scan, TwoPointCalibration(), (0.7, 0.7, 5.0))
    assert all(word in warning for word in ("Contrast", "Sharp", "5.0 mm", "100 kV"))
    assert facts.warningText(Acquisition(kvp=120.0, kernel="STANDARD"), TwoPointCalibration(), (0.7, 0.7, 1.25)) == ""


def test_the_voltage_of_a_site_calibration_must_fit(part) -> None:
    calibrations = part("calibrations")
    site = TwoPointCalibration(status="site", cohort_size=50, scanner="LightSpeed VCT", kvp=120.0)
    fitting: Any = Acquisition(kvp=120.0, scanner="LightSpeed VCT")
    assert calibrations.mismatchText(site, fitting) == ""
    assert calibrations.mismatchText(site, Acquisition(kvp=100.0, scanner="Aquilion")) == (
        "This scan: 100 kV. This scan: Aquilion.")
    assert calibrations.mismatchText(replace(site, kernel="B30f"), replace(fitting, kernel="B70f")) == (
        "This scan: kernel B70f, calibrated on B30f.")


def test_the_class_says_when_the_scanner_is_another_one(part) -> None:
    site = TwoPointCalibration(status="site", cohort_size=50, scanner="LightSpeed VCT")
    ct = replace(torso.ct(), acquisition=Acquisition(kvp=120.0, scanner="Aquilion"))
    text = part("card").cardHtml(measure(ct, torso.rois(), site), "measured")
    assert "(provisional: other scanner than calibrated)" in text


def test_facts_of_a_calibration_tell_its_people_and_its_age(part) -> None:
    calibrations, today = part("calibrations"), date(2026, 11, 20)
    line = LineCalibration(name="Ours", status="site", cohort_size=61, scanner="CT <1>;CT 2", kvp=100, date="2024-03-01",
                           scans_from="2023-05-02", scans_to="2024-02-01", lowest_mg_cm3=31, highest_mg_cm3=204,
                           intercept_mg_cm3=8, slope_mg_cm3_per_hu=0.8, intercept_variance=1, slope_variance=1e-4,
                           covariance=0, residual_sd_mg_cm3=4)
    text = calibrations.factsText(line, today)
    assert text == ("line of the scanner, without muscle and fat · mg/cm³ K2HPO4 · 100 kV · CT &lt;1&gt;, CT 2 · "
                    "61 people · 31 to 204 mg/cm³ · scans of 2023-05-02 to 2024-02-01 · fitted 2024-03-01, 2.7 years ago")
    assert calibrations.ageText(line, today).startswith("2.8 years old")
    assert calibrations.ageText(line, date(2026, 1, 31)) == "", "two years less a day"
    assert calibrations.factsText(line, date(2024, 3, 31)).endswith("fitted 2024-03-01, 30 days ago")
    assert calibrations.ageText(TwoPointCalibration(date="1999-01-01"), today) == "", "literature has no scanner to drift"
