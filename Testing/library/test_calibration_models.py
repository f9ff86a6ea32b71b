"""Every calibration model: values by hand, variance by finite differences and simulation, arrays, and the file format."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LowDoseBMDLib.calibration import (
    Calibration,
    TwoPointCalibration,
    calibration_from_dict,
    calibration_to_dict,
    load_calibration,
    save_calibration,
)
from LowDoseBMDLib.calibration_models import (
    MODELS,
    LineCalibration,
    RegressionCalibration,
    RescaledCalibration,
    ShrunkTwoPointCalibration,
)

FROM_PAIRS = {"status": "site", "cohort_size": 80, "scanner": "LightSpeed VCT", "kernel": "STANDARD", "date": "2026-03-01",
              "scans_from": "2025-01-02", "scans_to": "2026-02-03", "reference": "QCT with a phantom",
              "lowest_mg_cm3": 40.0, "highest_mg_cm3": 210.0, "expected_muscle_hu": 57.0, "expected_fat_hu": -104.0,
              "muscle_spread_hu": 6.0, "fat_spread_hu": 5.0}
COEFFICIENT_SD = np.array([3.0, 0.03, 0.05, 0.04])
CORRELATION = np.array([[1, -0.6, -0.3, 0.2], [-0.6, 1, -0.2, 0.1], [-0.3, -0.2, 1, 0.3], [0.2, 0.1, 0.3, 1]])
COVARIANCE = CORRELATION * np.outer(COEFFICIENT_SD, COEFFICIENT_SD)

TWO_POINT = TwoPointCalibration(
    name="Two-point", muscle_mg_cm3=45.0, fat_mg_cm3=-82.0, muscle_variance=9.0, fat_variance=16.0, covariance=-4.0,
    residual_sd_mg_cm3=2.0, **FROM_PAIRS)
LINE = LineCalibration(name="Line", intercept_mg_cm3=8.12, slope_mg_cm3_per_hu=0.8, intercept_variance=9.0,
                       slope_variance=4e-4, covariance=-0.04, residual_sd_mg_cm3=4.0, **FROM_PAIRS)
REGRESSION = RegressionCalibration(
    name="Regression", intercept_mg_cm3=12.0, spine_mg_cm3_per_hu=0.82, muscle_mg_cm3_per_hu=-0.2, fat_mg_cm3_per_hu=0.1,
    coefficient_covariance=COVARIANCE, residual_sd_mg_cm3=3.0, **FROM_PAIRS)
SHRUNK = ShrunkTwoPointCalibration(
    name="Shrunk", muscle_mg_cm3=45.0, fat_mg_cm3=-82.0, muscle_variance=9.0, fat_variance=16.0, covariance=-4.0,
    residual_sd_mg_cm3=2.0, muscle_scanner_sd_hu=2.0, fat_scanner_sd_hu=3.0, **FROM_PAIRS)
RESCALED = RescaledCalibration(name="Rescaled", base=SHRUNK, intercept_mg_cm3=-20.0, slope=1.2, **FROM_PAIRS)
RESCALED_LINE = replace(RESCALED, name="Rescaled line", base=LINE)

EVERY = [TWO_POINT, LINE, REGRESSION, SHRUNK, RESCALED, RESCALED_LINE]
POINT = 110.0, 60.0, -100.0
ERRORS = 2.0, 1.5, 1.0
every_model = pytest.mark.parametrize("calibration", EVERY, ids=lambda c: c.name)


# --- values ------------------------------------------------------------------------------------------------

def test_values_by_hand() -> None:
    assert LINE.vbmd(100.0, math.nan, math.nan) == pytest.approx(88.12)
    assert REGRESSION.vbmd(100.0, 50.0, -100.0) == pytest.approx(12 + 82 - 10 - 10)
    assert RESCALED_LINE.vbmd(100.0, 0.0, 0.0) == pytest.approx(-20 + 1.2 * 88.12)
    # Weights 4 / (4 + 5.5^2) and 9 / (9 + 4^2).
    muscle, fat = 57 + 3 * 4 / 34.25, -104 + 4 * 0.36
    assert SHRUNK.weights == pytest.approx((4 / 34.25, 0.36))
    assert SHRUNK.vbmd(*POINT) == pytest.approx(45 + (110 - muscle) * 127 / (muscle - fat))


def test_shrinking_goes_from_the_cohort_mean_to_the_patient_himself() -> None:
    stable = replace(SHRUNK, muscle_scanner_sd_hu=0.0, fat_scanner_sd_hu=0.0)
    assert stable.vbmd(*POINT) == TWO_POINT.vbmd(110.0, 57.0, -104.0) == stable.vbmd(110.0, 80.0, -70.0)
    unknown = replace(SHRUNK, muscle_scanner_sd_hu=1e6, fat_scanner_sd_hu=1e6)
    assert unknown.vbmd(*POINT) == pytest.approx(TWO_POINT.vbmd(*POINT))
    assert unknown.variance(*POINT, *ERRORS).sd == pytest.approx(TWO_POINT.variance(*POINT, *ERRORS).sd)
    sds = [each.variance(*POINT, *ERRORS).sd for each in (stable, SHRUNK, unknown)]
    assert sds == sorted(sds), "the less is known of the scanner, the wider the interval"
    exact = replace(SHRUNK, muscle_biological_sd_hu=0.0, muscle_scanner_sd_hu=0.0)
    assert exact.weights[0] == 0.0, "nothing spreads: no division by zero"


def test_who_needs_tissue() -> None:
    assert [each.needs_tissue for each in EVERY] == [True, False, True, True, True, False]
    for line in (LINE, RESCALED_LINE):
        found = line.variance(110.0, math.nan, math.nan, 2.0, math.nan, math.nan)
        assert found.sd == line.variance(*POINT, *ERRORS).sd


@every_model
def test_vbmd_is_linear_in_the_spine(calibration: Calibration) -> None:
    """So that the mean of two levels is the value at their mean HU."""
    low, middle, high = (calibration.vbmd(hu, 60.0, -100.0) for hu in (40.0, 110.0, 180.0))
    assert middle == pytest.approx((low + high) / 2)


@every_model
def test_arrays_go_element_by_element(calibration: Calibration) -> None:
    points = np.array(list(product((40.0, 150.0), (50.0, 62.0), (-110.0, -95.0)))).T
    errors = np.linspace(0.5, 3.0, points.size).reshape(points.shape)
    values, variance = calibration.vbmd(*points), calibration.variance(*points, *errors)
    for n in range(points.shape[1]):
        one = calibration.variance(*points[:, n], *errors[:, n])
        assert values[n] == pytest.approx(calibration.vbmd(*points[:, n]))
        assert (variance.spine[n], variance.common[n], variance.sd[n]) == pytest.approx((one.spine, one.common, one.sd))


# --- variance ----------------------------------------------------------------------------------------------

def slope_of(calibration: Calibration, step: np.ndarray) -> float:
    """Central difference of vbmd along a step of (spine, muscle, fat) HU."""
    return (calibration.vbmd(*(np.array(POINT) + step)) - calibration.vbmd(*(np.array(POINT) - step))) / 2e-3


@every_model
@pytest.mark.parametrize("which", [0, 1, 2], ids=["spine", "muscle", "fat"])
def test_roi_errors_enter_by_the_derivative(calibration: Calibration, which: int) -> None:
    """What one ROI error of 1 HU adds to the variance is the square of vbmd's derivative by that HU."""
    none, one = calibration.variance(*POINT, 0, 0, 0), calibration.variance(*POINT, *np.eye(3)[which])
    added = (one.spine - none.spine, one.common - none.common)
    expected = slope_of(calibration, 1e-3 * np.eye(3)[which])**2
    assert added == pytest.approx((expected, 0) if which == 0 else (0, expected), abs=1e-6)


def constants(calibration: Calibration) -> dict[str, float]:
    """The constants that a fit leaves uncertain, and the field of each one's variance."""
    if isinstance(calibration, LineCalibration):
        return {"intercept_mg_cm3": "intercept_variance", "slope_mg_cm3_per_hu": "slope_variance"}
    return {"muscle_mg_cm3": "muscle_variance", "fat_mg_cm3": "fat_variance"}


@pytest.mark.parametrize("calibration", [TWO_POINT, SHRUNK, LINE], ids=lambda c: c.name)
def test_constants_enter_by_the_derivative(calibration: Calibration) -> None:
    names, step = constants(calibration), 1e-4
    bare = replace(calibration, covariance=0.0, **dict.fromkeys(names.values(), 0.0))
    derivatives = [(replace(bare, **{name: getattr(bare, name) + step}).vbmd(*POINT)
                    - replace(bare, **{name: getattr(bare, name) - step}).vbmd(*POINT)) / (2 * step) for name in names]
    start = bare.variance(*POINT, *ERRORS).common
    for field, derivative in zip(names.values(), derivatives, strict=True):
        assert replace(bare, **{field: 1.0}).variance(*POINT, *ERRORS).common - start == pytest.approx(derivative**2)
    both = replace(bare, covariance=-0.5, **dict.fromkeys(names.values(), 1.0)).variance(*POINT, *ERRORS).common - start
    assert both == pytest.approx(sum(np.square(derivatives)) - math.prod(derivatives))


@pytest.mark.parametrize("entry", [*product(range(4), range(4))])
def test_coefficients_of_a_regression_enter_pairwise(entry: tuple[int, int]) -> None:
    row, column = entry
    names = ("intercept_mg_cm3", "spine_mg_cm3_per_hu", "muscle_mg_cm3_per_hu", "fat_mg_cm3_per_hu")
    by = [replace(REGRESSION, **{name: getattr(REGRESSION, name) + 1.0}).vbmd(*POINT) - REGRESSION.vbmd(*POINT)
          for name in (names[row], names[column])]
    unit = np.zeros((4, 4))
    unit[row, row] = unit[column, column] = 1.0
    alone = replace(REGRESSION, coefficient_covariance=unit).variance(*POINT, *ERRORS).common
    unit[row, column] = unit[column, row] = 0.4 if row != column else 1.4
    together = replace(REGRESSION, coefficient_covariance=unit).variance(*POINT, *ERRORS).common
    assert together - alone == pytest.approx((2 if row != column else 1) * 0.4 * by[0] * by[1])


COUNT = 100_000


def drawn_constants(rng: np.random.Generator) -> np.ndarray:
    return rng.multivariate_normal([45.0, -82.0], [[9.0, -4.0], [-4.0, 16.0]], COUNT).T


def drawn_rois(rng: np.random.Generator, *more_sd: float) -> list[np.ndarray]:
    """(spine, muscle, fat) HU of many patients round POINT, with the errors of their ROIs and what more spreads them."""
    return [rng.normal(hu, math.hypot(error, more), COUNT)
            for hu, error, more in zip(POINT, ERRORS, more_sd or (0, 0, 0), strict=True)]


def simulated_two_point(rng: np.random.Generator) -> np.ndarray:
    s, m, f = drawn_rois(rng, 0.0, 5.5, 4.0)
    md, fd = drawn_constants(rng)
    return md + (s - m) * (md - fd) / (m - f) + rng.normal(0, 2.0, COUNT)


def simulated_line(rng: np.random.Generator) -> np.ndarray:
    a, b = rng.multivariate_normal([8.12, 0.8], [[9.0, -0.04], [-0.04, 4e-4]], COUNT).T
    return a + b * drawn_rois(rng)[0] + rng.normal(0, 4.0, COUNT)


def simulated_regression(rng: np.random.Generator) -> np.ndarray:
    b = rng.multivariate_normal([12.0, 0.82, -0.2, 0.1], COVARIANCE, COUNT).T
    s, m, f = drawn_rois(rng)
    return b[0] + b[1] * s + b[2] * m + b[3] * f + rng.normal(0, 3.0, COUNT)


def simulated_shrunk_error(rng: np.random.Generator) -> np.ndarray:
    """Value less truth. Truth: the line through what muscle and fat read on the scanner of that day."""
    today = 57.0 + rng.normal(0, 2.0, COUNT), -104.0 + rng.normal(0, 3.0, COUNT)
    read = [rng.normal(hu, math.hypot(se, biology), COUNT)
            for hu, se, biology in zip(today, ERRORS[1:], (5.5, 4.0), strict=True)]
    md, fd = drawn_constants(rng)
    k = (md - fd) / (today[0] - today[1])
    truth = md + (110.0 - today[0]) * k + rng.normal(0, 2.0, COUNT)
    return SHRUNK.vbmd(rng.normal(110.0, ERRORS[0], COUNT), *read) - truth


@pytest.mark.parametrize(("calibration", "simulate", "scale"), [
    (TWO_POINT, simulated_two_point, 1.0), (LINE, simulated_line, 1.0), (REGRESSION, simulated_regression, 1.0),
    (SHRUNK, simulated_shrunk_error, 1.0), (RESCALED, simulated_shrunk_error, 1.2), (RESCALED_LINE, simulated_line, 1.2),
], ids=lambda value: getattr(value, "name", ""))
def test_the_whole_variance_holds_in_a_simulation(calibration: Calibration, simulate, scale: float) -> None:
    """The SD of 100,000 patients is known to 0.22 %; first-order propagation may add 1 % in models that divide by HU."""
    spread = scale * simulate(np.random.default_rng(5)).std()
    point = (110.0, 57.0, -104.0) if simulate is simulated_shrunk_error else POINT
    exact = simulate in (simulated_line, simulated_regression)
    assert spread == pytest.approx(calibration.variance(*point, *ERRORS).sd, rel=0.008 if exact else 0.02)


@every_model
def test_rounding_never_gives_a_negative_variance(calibration: Calibration) -> None:
    """At the HU where perfectly correlated constants cancel, the variance is 0, not a hair below."""
    line = replace(LINE, intercept_variance=0.49, slope_variance=0.01, covariance=-0.07, residual_sd_mg_cm3=0.0)
    for hu in np.linspace(6.99, 7.01, 201):
        assert line.variance(float(hu), 0, 0, 0, 0, 0).sd >= 0
    assert calibration.variance(*POINT, *ERRORS).total > 0


# --- the file ----------------------------------------------------------------------------------------------

numbers = st.floats(-1e6, 1e6)
not_negatives = st.floats(0, 1e6)
risings = st.floats(1e-6, 1e6)
texts = st.text(max_size=20)
days = st.dates().map(lambda day: day.isoformat())


@st.composite
def provenances(draw: st.DrawFn) -> dict[str, object]:
    scans = sorted((draw(days), draw(days)))
    low = draw(numbers)
    return {
        "name": draw(texts), "kvp": draw(st.floats(40, 200)), "scanner": draw(texts), "kernel": draw(texts),
        "cohort_size": draw(st.integers(1, 10**6)), "date": draw(st.just("") | days), "status": draw(
            st.sampled_from(("site", "synthetic", "uncalibrated"))), "scans_from": scans[0], "scans_to": scans[1],
        "reference": draw(texts), "lowest_mg_cm3": low, "highest_mg_cm3": low + draw(st.floats(1, 1e6)),
        "expected_muscle_hu": draw(st.floats(0, 200)), "expected_fat_hu": draw(st.floats(-200, -1)),
        "muscle_spread_hu": draw(st.none() | not_negatives), "fat_spread_hu": draw(st.none() | not_negatives)}


@st.composite
def two_points(draw: st.DrawFn, kind: type = TwoPointCalibration) -> TwoPointCalibration:
    fat, variances = draw(numbers), (draw(not_negatives), draw(not_negatives))
    own = {} if kind is TwoPointCalibration else {"muscle_scanner_sd_hu": draw(not_negatives),
                                                  "fat_scanner_sd_hu": draw(not_negatives)}
    return kind(**draw(provenances()), **own, fat_mg_cm3=fat, muscle_mg_cm3=fat + draw(st.floats(1, 1e6)),
                muscle_variance=variances[0], fat_variance=variances[1], residual_sd_mg_cm3=draw(not_negatives),
                covariance=draw(st.floats(-1, 1)) * math.sqrt(math.prod(variances)),
                muscle_biological_sd_hu=draw(not_negatives), fat_biological_sd_hu=draw(not_negatives))


@st.composite
def lines(draw: st.DrawFn) -> LineCalibration:
    variances = draw(not_negatives), draw(not_negatives)
    return LineCalibration(
        **draw(provenances()), intercept_mg_cm3=draw(numbers), slope_mg_cm3_per_hu=draw(risings),
        intercept_variance=variances[0], slope_variance=variances[1], residual_sd_mg_cm3=draw(not_negatives),
        covariance=draw(st.floats(-1, 1)) * math.sqrt(math.prod(variances)))


@st.composite
def regressions(draw: st.DrawFn) -> RegressionCalibration:
    root = np.array(draw(st.lists(st.floats(-10, 10), min_size=16, max_size=16))).reshape(4, 4)
    return RegressionCalibration(
        **draw(provenances()), intercept_mg_cm3=draw(numbers), spine_mg_cm3_per_hu=draw(risings),
        muscle_mg_cm3_per_hu=draw(numbers), fat_mg_cm3_per_hu=draw(numbers), residual_sd_mg_cm3=draw(not_negatives),
        coefficient_covariance=root @ root.T + np.diag([1e-3] * 4))


plain = two_points() | two_points(ShrunkTwoPointCalibration) | lines() | regressions()


@st.composite
def rescaleds(draw: st.DrawFn) -> RescaledCalibration:
    base = draw(plain)
    return RescaledCalibration(**(draw(provenances()) | {"kvp": base.kvp}), base=base, intercept_mg_cm3=draw(numbers),
                               slope=draw(risings))


@settings(max_examples=60, deadline=None)
@given(plain | rescaleds())
def test_every_calibration_survives_its_file(calibration: Calibration) -> None:
    text = json.dumps(calibration_to_dict(calibration), allow_nan=False)
    assert calibration_from_dict(json.loads(text)) == calibration


@every_model
def test_a_file_holds_every_kind(tmp_path, calibration: Calibration) -> None:
    save_calibration(calibration, tmp_path / "site.json")
    assert load_calibration(tmp_path / "site.json") == calibration
    assert json.loads((tmp_path / "site.json").read_text())["kind"] == calibration.kind


def test_every_kind_is_tried_here() -> None:
    assert {type(each) for each in EVERY} == {TwoPointCalibration, *MODELS}


VERSION_1 = {
    "schema_version": 1, "kind": "two_point", "name": "Fitted", "muscle_mg_cm3": 45.0, "fat_mg_cm3": -82.0,
    "muscle_variance": 9.0, "fat_variance": 16.0, "covariance": -4.0, "residual_sd_mg_cm3": 2.0,
    "muscle_biological_sd_hu": 5.5, "fat_biological_sd_hu": 4.0, "unit": "K2HPO4", "kvp": 120.0, "scanner": "A scanner",
    "kernel": "STANDARD", "cohort_size": 60, "date": "2024-02-01", "status": "site"}


def test_files_of_version_1_are_read() -> None:
    found = calibration_from_dict(VERSION_1)
    assert (found.muscle_mg_cm3, found.scanner, found.cohort_size) == (45.0, "A scanner", 60)
    assert (found.lowest_mg_cm3, found.expected_muscle_hu, found.scans_to) == (0.0, None, "")
    with pytest.raises(ValueError, match="'kernel' is missing"):
        calibration_from_dict({name: value for name, value in VERSION_1.items() if name != "kernel"})
    with pytest.raises(ValueError, match="'kind' is 'line'"):
        calibration_from_dict(calibration_to_dict(LINE) | {"schema_version": 1})
    with pytest.raises(ValueError, match="'scans_from' is unknown"):
        calibration_from_dict(VERSION_1 | {"scans_from": "2024-01-01"})


BAD = [
    (LINE, "slope_mg_cm3_per_hu", -0.8), (LINE, "slope_mg_cm3_per_hu", None), (LINE, "covariance", 0.07),
    (LINE, "intercept_variance", -1.0), (LINE, "residual_sd_mg_cm3", -1.0), (LINE, "date", "yesterday"),
    (LINE, "date", "20240301"), (LINE, "scans_from", "2026-02-04"), (LINE, "highest_mg_cm3", 30.0),
    (LINE, "expected_muscle_hu", "57"), (LINE, "expected_muscle_hu", -110.0), (LINE, "muscle_spread_hu", -1.0),
    (LINE, "fat_spread_hu", float("nan")), (LINE, "reference", 5), (LINE, "unit", "HA"), (LINE, "cohort_size", 0),
    (REGRESSION, "spine_mg_cm3_per_hu", 0.0), (REGRESSION, "coefficient_covariance", [[1.0] * 4] * 3),
    (REGRESSION, "coefficient_covariance", "none"), (REGRESSION, "coefficient_covariance", [[math.inf] * 4] * 4),
    (REGRESSION, "coefficient_covariance", np.diag([1.0, -1.0, 1.0, 1.0]).tolist()),
    (REGRESSION, "coefficient_covariance", (np.eye(4) + 2 * np.eye(4)[::-1]).tolist()),
    (REGRESSION, "coefficient_covariance", (np.eye(4) + 0.5 * np.eye(4, k=1)).tolist()),
    (REGRESSION, "coefficient_covariance", [[1, 2], [3]]), (REGRESSION, "muscle_mg_cm3_per_hu", True),
    (SHRUNK, "expected_fat_hu", None), (SHRUNK, "muscle_scanner_sd_hu", -2.0), (SHRUNK, "muscle_mg_cm3", -90.0),
    (RESCALED, "slope", 0.0), (RESCALED, "base", None), (RESCALED, "base", {"kind": "two_point"}), (RESCALED, "base", [1]),
    (RESCALED, "base", calibration_to_dict(RESCALED)), (RESCALED, "kvp", 100.0),
    (RESCALED, "base", calibration_to_dict(LINE) | {"slope_mg_cm3_per_hu": -1.0}),
]


@pytest.mark.parametrize(("calibration", "field", "value"), BAD)
def test_a_bad_field_is_named(calibration: Calibration, field: str, value: object) -> None:
    data = calibration_to_dict(calibration) | {field: value}
    with pytest.raises(ValueError, match=field) as caught:
        calibration_from_dict(data)
    assert ("; " in str(caught.value) or ": " in str(caught.value)) and len(str(caught.value)) < 400


@every_model
def test_every_field_is_required_and_no_other_is_taken(calibration: Calibration) -> None:
    data = calibration_to_dict(calibration)
    for entry in fields(calibration):
        with pytest.raises(ValueError, match=f"'{entry.name}' is missing"):
            calibration_from_dict({key: value for key, value in data.items() if key != entry.name})
    with pytest.raises(ValueError, match="'slop' is unknown"):
        calibration_from_dict(data | {"slop": 1.0})


def test_a_provisional_kind_stays_provisional() -> None:
    assert not any(each.provisional for each in EVERY)
    assert replace(LINE, status="uncalibrated").provisional
