"""Whether a calibration holds for a scan, which of several is taken, and what is flagged when one does not hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import Calibration, TwoPointCalibration
from LowDoseBMDLib.calibration_match import Fit, age_years, as_date, best_match, match
from LowDoseBMDLib.calibration_models import LineCalibration
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import Measurement, measure

SCAN = Acquisition(kvp=120.0, manufacturer="GE MEDICAL SYSTEMS", scanner="LightSpeed VCT", kernel="STANDARD",
                   study_date="20260401")
SITE = TwoPointCalibration(
    name="Ours", status="site", cohort_size=80, scanner="LightSpeed VCT", kernel="STANDARD", date="2026-03-01",
    muscle_variance=0.0, fat_variance=0.0, covariance=0.0, lowest_mg_cm3=40.0, highest_mg_cm3=210.0,
    expected_muscle_hu=50.0, expected_fat_hu=-100.0, muscle_spread_hu=6.0, fat_spread_hu=5.0)
LINE = LineCalibration(
    name="Line", status="site", cohort_size=80, scanner="LightSpeed VCT", kernel="STANDARD", date="2026-03-01",
    intercept_mg_cm3=8.0, slope_mg_cm3_per_hu=0.8, intercept_variance=1.0, slope_variance=1e-4, covariance=0.0,
    residual_sd_mg_cm3=4.0)


@pytest.mark.parametrize(("fitted", "scanned", "fit"), [
    (120.0, 120.0, Fit.FITS), (120.0, 119.6, Fit.FITS), (120.0, 100.0, Fit.DIFFERS), (120.0, 121.0, Fit.DIFFERS),
    (120.0, None, Fit.UNKNOWN), (120.0, 0.0, Fit.UNKNOWN),
])
def test_voltages(fitted: float, scanned: float | None, fit: Fit) -> None:
    assert match(replace(SITE, kvp=fitted), replace(SCAN, kvp=scanned)).kvp is fit


@pytest.mark.parametrize(("fitted", "scanned", "fit"), [
    ("LightSpeed VCT", "LightSpeed VCT", Fit.FITS), ("lightspeed  vct ", "LightSpeed VCT", Fit.FITS),
    ("GE LightSpeed VCT", "LightSpeed VCT", Fit.FITS), ("GE MEDICAL SYSTEMS LightSpeed VCT", "LightSpeed VCT", Fit.FITS),
    ("Aquilion", "TOSHIBA Aquilion", Fit.FITS), ("Aquilion ONE;LightSpeed VCT", "LightSpeed VCT", Fit.FITS),
    ("Aquilion", "Aquilion ONE", Fit.DIFFERS), ("Aquilion ONE", "Aquilion", Fit.DIFFERS),
    ("SOMATOM Definition AS", "SOMATOM Definition AS+", Fit.DIFFERS), ("Brilliance 64", "Brilliance 16", Fit.DIFFERS),
    ("Brilliance-64", "Brilliance 64", Fit.FITS), ("Philips", "Philips", Fit.FITS), ("联影 uCT 760", "uCT 760", Fit.DIFFERS),
    ("", "LightSpeed VCT", Fit.UNKNOWN), (" ; ", "LightSpeed VCT", Fit.UNKNOWN), ("LightSpeed VCT", None, Fit.UNKNOWN),
    ("LightSpeed VCT", "  ", Fit.UNKNOWN), ("CT 1", "LightSpeed VCT", Fit.DIFFERS),
])
def test_scanners(fitted: str, scanned: str | None, fit: Fit) -> None:
    assert match(replace(SITE, scanner=fitted), replace(SCAN, scanner=scanned)).scanner is fit


@pytest.mark.parametrize(("fitted", "scanned", "fit"), [
    ("STANDARD", "Standard", Fit.FITS), ("B30f;B31f", "B31f", Fit.FITS), ("Br40d", "Br40d\\3", Fit.FITS),
    ("B30f", "B30s", Fit.DIFFERS), ("STANDARD", None, Fit.UNKNOWN), ("", "B30f", Fit.UNKNOWN),
])
def test_kernels(fitted: str, scanned: str | None, fit: Fit) -> None:
    assert match(replace(SITE, kernel=fitted), replace(SCAN, kernel=scanned)).kernel is fit


# --- the best of several -----------------------------------------------------------------------------------

OTHER_KERNEL = replace(SITE, kernel="LUNG", date="2026-12-31", cohort_size=900)
NO_KERNEL = replace(SITE, kernel="", date="2026-12-31")
NEWER = replace(SITE, date="2026-03-02", cohort_size=50)
LARGER = replace(SITE, cohort_size=81)


@pytest.mark.parametrize(("several", "best"), [
    ([], None), ([TwoPointCalibration()], None), ([None], None), ([None, SITE], 1),
    ([replace(TwoPointCalibration(), scanner="LightSpeed VCT")], None),
    ([replace(SITE, kvp=100.0)], None), ([replace(SITE, scanner="Aquilion")], None), ([replace(SITE, scanner="")], None),
    ([OTHER_KERNEL], 0), ([OTHER_KERNEL, SITE], 1), ([OTHER_KERNEL, NO_KERNEL], 1), ([NO_KERNEL, SITE], 1),
    ([SITE, NEWER], 1), ([LARGER, NEWER], 1), ([SITE, LARGER], 1), ([LARGER, SITE], 0), ([SITE, SITE], 0),
    ([replace(SITE, date=""), NEWER], 1), ([TwoPointCalibration(), LINE, replace(SITE, kvp=100.0)], 1),
])
def test_best_of_several(several: list[Calibration | None], best: int | None) -> None:
    assert best_match(several, SCAN) == best


@pytest.mark.parametrize("scan", [replace(SCAN, kvp=None), replace(SCAN, scanner=None), Acquisition()])
def test_nothing_is_taken_for_a_scan_that_does_not_say_what_it_is(scan: Acquisition) -> None:
    assert best_match([SITE, LINE], scan) is None


# --- age ---------------------------------------------------------------------------------------------------

def test_age_counts_from_the_last_scan_or_else_the_fit() -> None:
    on = date(2028, 3, 1)
    assert age_years(SITE, on) == pytest.approx(2.0, abs=0.003)
    assert age_years(replace(SITE, scans_to="2025-03-01"), on) == pytest.approx(3.0, abs=0.003)
    assert age_years(replace(SITE, date=""), on) is None
    assert age_years(SITE, date(2025, 3, 1)) == pytest.approx(-1.0, abs=0.003)


@pytest.mark.parametrize(("text", "day"), [
    ("2024-03-01", date(2024, 3, 1)), ("20240301", date(2024, 3, 1)), ("", None), (None, None), ("2024", None),
    ("20241301", None),
])
def test_dates(text: str | None, day: date | None) -> None:
    assert as_date(text) == day


# --- flags -------------------------------------------------------------------------------------------------

def measured(calibration: Calibration, scan: Acquisition = SCAN, **hu: float) -> Measurement:
    return measure(replace(torso.ct(**hu), acquisition=scan), torso.rois(), calibration)


def flags(calibration: Calibration, scan: Acquisition = SCAN, **hu: float) -> dict[str, Flag]:
    return {flag.code: flag for flag in measured(calibration, scan, **hu).flags}


ABOUT_CALIBRATION = {"kvp", "kvp_unknown", "scanner", "scanner_unknown", "kernel_other", "calibration_old",
                     "muscle_unexpected", "fat_unexpected", "extrapolated", "uncalibrated"}


@pytest.mark.parametrize("calibration", [SITE, LINE])
def test_a_calibration_that_fits_says_nothing(calibration: Calibration) -> None:
    assert not ABOUT_CALIBRATION & flags(calibration).keys()
    assert not measured(calibration).category_provisional


@pytest.mark.parametrize(("scan", "code", "severity", "provisional"), [
    (replace(SCAN, kvp=100.0), "kvp", Severity.LIMITED, True),
    (replace(SCAN, kvp=None), "kvp_unknown", Severity.CAUTION, False),
    (replace(SCAN, scanner="Aquilion"), "scanner", Severity.CAUTION, True),
    (replace(SCAN, scanner=None), "scanner_unknown", Severity.INFO, False),
    (replace(SCAN, kernel="LUNG"), "kernel_other", Severity.INFO, False),
    (replace(SCAN, study_date="20280401"), "calibration_old", Severity.INFO, False),
    (replace(SCAN, study_date="20280227"), None, None, False), (replace(SCAN, study_date="20200101"), None, None, False),
    (replace(SCAN, study_date=None), None, None, False),
])
def test_a_scan_that_differs(scan: Acquisition, code: str | None, severity: Severity | None, provisional: bool) -> None:
    found = flags(SITE, scan)
    assert ABOUT_CALIBRATION & found.keys() == ({code} if code else set())
    assert code is None or found[code].severity is severity
    assert measured(SITE, scan).category_provisional == provisional


def test_without_tissue_an_unknown_scanner_is_graver() -> None:
    assert flags(LINE, replace(SCAN, scanner=None))["scanner_unknown"].severity is Severity.CAUTION


@pytest.mark.parametrize(("hu", "code"), [
    ({"muscle": 69.0}, "muscle_unexpected"), ({"muscle": 31.0}, "muscle_unexpected"), ({"muscle": 67.0}, None),
    ({"fat": -116.0}, "fat_unexpected"), ({"fat": -84.0}, "fat_unexpected"), ({"fat": -114.0}, None),
])
def test_tissue_more_than_three_spreads_from_the_cohort(hu: dict[str, float], code: str | None) -> None:
    wide = replace(SITE, lowest_mg_cm3=0.0, highest_mg_cm3=0.0)
    assert ABOUT_CALIBRATION & flags(wide, **hu).keys() == ({code} if code else set())
    blind = replace(wide, muscle_spread_hu=None, fat_spread_hu=None)
    assert not ABOUT_CALIBRATION & flags(blind, **hu).keys()


@pytest.mark.parametrize(("spine", "extrapolated"), [(18.0, True), (22.0, False), (256.0, False), (262.0, True)])
def test_a_value_beyond_the_densities_of_the_cohort(spine: float, extrapolated: bool) -> None:
    """40 to 198 mg/cm3 and a tenth of the range: 24.2 to 213.8. The line reads 8 + 0.8 HU: 22.4, 25.6, 212.8 and 217.6."""
    narrow = replace(LINE, lowest_mg_cm3=40.0, highest_mg_cm3=198.0)
    assert ("extrapolated" in flags(narrow, T12=spine, L1=spine, L2=spine)) == extrapolated


def test_literature_constants_are_judged_by_voltage_alone() -> None:
    other = Acquisition(kvp=100.0, scanner="Aquilion", kernel="LUNG", study_date="20990101")
    assert ABOUT_CALIBRATION & flags(TwoPointCalibration(), other).keys() == {"uncalibrated", "kvp"}
