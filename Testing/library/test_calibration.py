"""The two-point calibration: identities, derivatives, variance and file format."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from LowDoseBMDLib.calibration import (
    DEFAULT_FAT_MG_CM3,
    DEFAULT_MUSCLE_MG_CM3,
    TwoPointCalibration,
    calibration_to_dict,
    load_calibration,
    save_calibration,
)

FITTED = TwoPointCalibration(
    name="Fitted", muscle_mg_cm3=45.0, fat_mg_cm3=-82.0, muscle_variance=9.0, fat_variance=16.0, covariance=-4.0,
    residual_sd_mg_cm3=2.0, scanner="A scanner", kernel="STANDARD", cohort_size=60, date="2024-02-01", status="site")
EXACT = TwoPointCalibration(muscle_mg_cm3=45.0, fat_mg_cm3=-82.0, muscle_variance=0.0, fat_variance=0.0,
                            covariance=0.0, muscle_biological_sd_hu=0.0, fat_biological_sd_hu=0.0)


@pytest.mark.parametrize(("muscle", "fat"), [(57.0, -107.1), (48.0, -95.0)])
def test_muscle_and_fat_read_their_own_density(muscle: float, fat: float) -> None:
    calibration = TwoPointCalibration()
    assert calibration.vbmd(muscle, muscle, fat) == DEFAULT_MUSCLE_MG_CM3 == 50.0
    assert calibration.vbmd(fat, muscle, fat) == pytest.approx(DEFAULT_FAT_MG_CM3)
    assert DEFAULT_FAT_MG_CM3 == -78.0


def test_vbmd_by_hand() -> None:
    assert TwoPointCalibration().vbmd(130.0, 50.0, -78.0) == pytest.approx(130.0)
    assert EXACT.vbmd(100.0, 50.0, -77.0) == pytest.approx(45.0 + 50.0)


@pytest.mark.parametrize("point", [(80.0, 57.0, -104.0), (30.0, 60.0, -90.0), (210.0, 45.0, -110.0)])
def test_gradient_agrees_with_finite_differences(point: tuple[float, float, float]) -> None:
    def value(x: np.ndarray) -> float:
        return TwoPointCalibration(muscle_mg_cm3=x[3], fat_mg_cm3=x[4]).vbmd(*x[:3])

    centre, step = np.array([*point, 45.0, -82.0]), 1e-4
    numeric = [(value(centre + step * e) - value(centre - step * e)) / (2 * step) for e in np.eye(5)]
    assert EXACT.gradient(*point) == pytest.approx(numeric, abs=1e-6)


@pytest.mark.parametrize(("spine", "errors", "sd"), [
    (80.0, (1.5, 1.0, 1.0), 1.5), (100.0, (1.5, 5.0, 5.0), 5.2), (160.0, (2.0, 8.0, 6.0), 10.9),
    (200.0, (1.5, 5.0, 5.0), 8.3),
])
def test_sd_agrees_with_the_published_style_table(spine: float, errors: tuple[float, ...], sd: float) -> None:
    """SDs of the table for muscle 57 HU, fat -104 HU, densities 45 and -82; it is printed to 0.1."""
    assert EXACT.variance(spine, 57.0, -104.0, *errors).sd == pytest.approx(sd, abs=0.06)


def test_interval_holds_in_a_simulation() -> None:
    """100,000 patients whose ROI errors, tissue biology, constants and residual are drawn at random."""
    rng, n = np.random.default_rng(7), 100_000
    spine, muscle, fat, errors = 110.0, 57.0, -104.0, (2.0, 1.5, 1.0)
    md, fd = rng.multivariate_normal([45.0, -82.0], [[9.0, -4.0], [-4.0, 16.0]], n).T
    s = rng.normal(spine, errors[0], n)
    m = rng.normal(muscle, math.hypot(errors[1], 5.5), n)
    f = rng.normal(fat, math.hypot(errors[2], 4.0), n)
    drawn = md + (s - m) * (md - fd) / (m - f) + rng.normal(0.0, 2.0, n)
    value, sd = FITTED.vbmd(spine, muscle, fat), FITTED.variance(spine, muscle, fat, *errors).sd
    assert drawn.std() == pytest.approx(sd, rel=0.02)
    assert np.mean(np.abs(drawn - value) < 1.96 * sd) == pytest.approx(0.95, abs=0.01)


def test_mean_of_two_levels_averages_only_the_spine_error() -> None:
    """Both levels share muscle, fat and constants: a simulated mean has the variance of the mean HU."""
    rng, n = np.random.default_rng(3), 100_000
    m, f = rng.normal(57.0, math.hypot(1.5, 5.5), n), rng.normal(-104.0, math.hypot(1.0, 4.0), n)
    levels = [45.0 + (rng.normal(hu, 6.0, n) - m) * 127.0 / (m - f) for hu in (120.0, 100.0)]
    model = TwoPointCalibration(muscle_mg_cm3=45.0, fat_mg_cm3=-82.0, muscle_variance=0, fat_variance=0, covariance=0)
    one = model.variance(110.0, 57.0, -104.0, 6.0, 1.5, 1.0)
    two = model.variance(110.0, 57.0, -104.0, 6.0 / math.sqrt(2), 1.5, 1.0)
    assert np.mean(levels, axis=0).std() == pytest.approx(two.sd, rel=0.02)
    assert two.spine == pytest.approx(one.spine / 2)
    assert two.common == one.common > one.spine


def test_literature_constants_give_a_wide_interval() -> None:
    """Half the interval near 80 mg/cm3 covers the ends of the plausible ranges and every known source."""
    calibration = TwoPointCalibration()
    assert calibration.provisional
    assert not FITTED.provisional
    spine, muscle, fat = 100.0, 57.0, -105.0
    half = 1.96 * calibration.variance(spine, muscle, fat, 2.0, 1.0, 1.0).sd
    for md, fd in ((30, -78), (60, -78), (50, -55), (50, -90), (46, -72), (54, -80), (33, -58), (30, -80)):
        other = TwoPointCalibration(muscle_mg_cm3=md, fat_mg_cm3=fd).vbmd(spine, muscle, fat)
        assert abs(other - calibration.vbmd(spine, muscle, fat)) < half
    assert 20.0 < half < 40.0


def test_a_saved_calibration_comes_back_equal(tmp_path) -> None:
    path = tmp_path / "site.json"
    save_calibration(FITTED, path)
    assert load_calibration(path) == FITTED
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.json"]
    data = json.loads(path.read_text())
    assert (data["schema_version"], data["kind"], data["unit"]) == (2, "two_point", "K2HPO4")


@pytest.mark.parametrize(("field", "value"), [
    ("schema_version", 3), ("schema_version", None), ("schema_version", True), ("kind", "spline"), ("kind", ["two_point"]),
    ("muscle_mg_cm3", float("nan")), ("fat_variance", float("inf")), ("muscle_mg_cm3", "50"), ("kvp", True),
    ("muscle_mg_cm3", -82.0), ("unit", "HA"), ("muscle_variance", -1.0), ("covariance", 13.0),
    ("status", "trusted"), ("cohort_size", 0), ("cohort_size", 10.5), ("scanner", None), ("kvp", 0.0),
])
def test_a_bad_field_is_named(tmp_path, field: str, value: object) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(calibration_to_dict(FITTED) | {field: value}))
    with pytest.raises(ValueError, match=field) as caught:
        load_calibration(path)
    assert "bad.json" in str(caught.value)


def test_missing_and_unknown_fields_are_named(tmp_path) -> None:
    path = tmp_path / "bad.json"
    data = calibration_to_dict(FITTED)
    path.write_text(json.dumps({key: value for key, value in data.items() if key != "fat_variance"}))
    with pytest.raises(ValueError, match="'fat_variance' is missing"):
        load_calibration(path)
    path.write_text(json.dumps(data | {"muscel_variance": 1.0}))
    with pytest.raises(ValueError, match="muscel_variance"):
        load_calibration(path)


@pytest.mark.parametrize("text", ["[]", "3", "{", ""])
def test_what_is_no_calibration_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json"):
        load_calibration(path)
