"""Fitted calibrations give back what made the cohort, know how far they are known, and never look at the test set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.calibration_apply import Prediction, coverage, predict
from LowDoseBMDLib.calibration_choice import RESCALED, TITLES, assign_folds, compare, performance, recommend
from LowDoseBMDLib.calibration_fit import (
    PREDICTIONS,
    FitSettings,
    QctLine,
    fit_line,
    fit_regression,
    fit_rescaled,
    fit_shrunk_two_point,
    fit_two_point,
    ridge,
    scanner_sd_hu,
)
from LowDoseBMDLib.calibration_people import training_people
from LowDoseBMDLib.cohort import Cohort
from LowDoseBMDLib.cohort_synthesis import PAPER_SCANNER, PAPER_SCATTER, Scanner, Scatter, synthetic_cohort

SETTINGS = FitSettings(kvp=120.0, date="2026-01-31")
STILL = Scatter(0, 0, 0, muscle_hu_per_year=0)
MONTE_CARLO = 400
WITHIN = 4 / np.sqrt(2 * MONTE_CARLO)
"""Relative error of an SD out of that many draws, four standard errors wide."""


def people(count: int = 400, seed: int = 3, scatter: Scatter = PAPER_SCATTER, **known: object) -> Cohort:
    cohort = synthetic_cohort(count, seed, scatter, (PAPER_SCANNER,)).of_split("training")
    return replace(cohort, **known)


# --- exact recovery ------------------------------------------------------------------------------------------

def test_without_scatter_every_model_gives_back_the_scanners_line() -> None:
    """vBMD = 0.87 HU + 1.5; muscle reads 54 and fat -105 HU in everybody, so 48.48 and -89.85 mg/cm3."""
    cohort = people(scatter=STILL)
    line, two_point = fit_line(cohort, SETTINGS), fit_two_point(cohort, SETTINGS)
    assert (line.slope_mg_cm3_per_hu, line.intercept_mg_cm3) == pytest.approx((0.87, 1.5), abs=2e-3)
    assert (two_point.muscle_mg_cm3, two_point.fat_mg_cm3) == pytest.approx((48.48, -89.85), abs=0.02)
    shrunk = fit_shrunk_two_point(cohort, SETTINGS)
    assert (shrunk.muscle_mg_cm3, shrunk.fat_mg_cm3) == pytest.approx((48.48, -89.85), abs=0.02)
    regression = fit_regression(cohort, SETTINGS)
    assert (regression.muscle_mg_cm3_per_hu, regression.fat_mg_cm3_per_hu) == (0, 0), "nothing of them is known"
    rescaled = fit_rescaled(cohort, SETTINGS, fit_line)
    assert (rescaled.slope, rescaled.intercept_mg_cm3) == pytest.approx((1, 0), abs=1e-3)
    for model in (line, two_point, shrunk, regression, rescaled):
        np.testing.assert_allclose(predict(model, cohort)[0], cohort.reference_mg_cm3, atol=0.02)


def test_regression_without_noise_gives_back_its_coefficients() -> None:
    cohort = people()
    exact = 3 + 0.9 * cohort.spine_hu - 0.2 * cohort.muscle_hu + 0.1 * cohort.fat_hu
    model = fit_regression(replace(cohort, reference_mg_cm3=exact), SETTINGS)
    assert (model.intercept_mg_cm3, model.spine_mg_cm3_per_hu, model.muscle_mg_cm3_per_hu,
            model.fat_mg_cm3_per_hu) == pytest.approx((3, 0.9, -0.2, 0.1), abs=1e-8)


def test_the_two_point_line_reads_tissue_through_the_phantoms_line() -> None:
    cohort = people()
    model = fit_two_point(cohort, replace(SETTINGS, qct_line=QctLine(0.8, 8.0)))
    assert model.muscle_mg_cm3 == pytest.approx(8 + 0.8 * cohort.muscle_hu.mean())
    assert model.fat_mg_cm3 == pytest.approx(8 + 0.8 * cohort.fat_hu.mean())
    assert model.reference == "QCT; muscle and fat read through the phantom's line 0.8000 HU +8.00"
    covariance = 0.64 * np.cov(cohort.muscle_hu, cohort.fat_hu) / len(cohort)
    assert [model.muscle_variance, model.fat_variance, model.covariance] == \
        pytest.approx([covariance[0, 0], covariance[1, 1], covariance[0, 1]])


def test_constants_by_regression_on_vertebrae_would_be_attenuated_and_are_not() -> None:
    """With muscle and fat that scatter, least squares on t gives 46 and -76; tissue read through the line stays."""
    cohort = people(20000, scatter=Scatter(muscle_hu_per_year=0))
    t = (cohort.spine_hu - cohort.muscle_hu) / (cohort.muscle_hu - cohort.fat_hu)
    slope, intercept = np.polyfit(t, cohort.reference_mg_cm3, 1)
    model = fit_two_point(cohort, SETTINGS)
    assert model.fat_mg_cm3 == pytest.approx(-89.85, abs=1.5)
    assert intercept - slope > model.fat_mg_cm3 + 5


def test_a_rescaled_model_has_the_spread_and_mean_of_qct() -> None:
    cohort = people()
    predicted, reference = predict(fit_rescaled(cohort, SETTINGS, fit_two_point), cohort)[0], cohort.reference_mg_cm3
    assert (predicted.mean(), predicted.std()) == pytest.approx((reference.mean(), reference.std()))


# --- covariance and penalties against second opinions ----------------------------------------------------------

def test_the_lines_covariance_is_that_of_statsmodels() -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    cohort = people()
    model = fit_line(cohort, SETTINGS)
    oracle = statsmodels.OLS(cohort.reference_mg_cm3, statsmodels.add_constant(cohort.spine_hu)).fit()
    np.testing.assert_allclose([model.intercept_mg_cm3, model.slope_mg_cm3_per_hu], oracle.params, rtol=1e-6)
    np.testing.assert_allclose([[model.intercept_variance, model.covariance], [model.covariance, model.slope_variance]],
                               oracle.cov_params(), rtol=1e-6)


def test_without_a_penalty_the_covariance_is_that_of_statsmodels() -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    cohort = people()
    x = np.column_stack([cohort.spine_hu, cohort.muscle_hu, cohort.fat_hu])
    oracle = statsmodels.OLS(cohort.reference_mg_cm3, statsmodels.add_constant(x)).fit()
    found = ridge(x, cohort.reference_mg_cm3, 0.0)
    np.testing.assert_allclose(found.coefficients, oracle.params, rtol=1e-6)
    np.testing.assert_allclose(found.covariance, oracle.cov_params(), rtol=1e-6)
    left_out = oracle.get_influence().resid_press
    assert found.left_out_error == pytest.approx(np.mean(left_out**2), rel=1e-6)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_a_penalty_is_that_of_scikit_learn(penalty: float) -> None:
    """The bone is not penalised: it is taken out of the others first (Frisch and Waugh)."""
    linear = pytest.importorskip("sklearn.linear_model")
    cohort = people()
    spine, tissue, y = cohort.spine_hu[:, None], np.column_stack([cohort.muscle_hu, cohort.fat_hu]), cohort.reference_mg_cm3
    scaled = tissue / tissue.std(axis=0)
    rest = [values - linear.LinearRegression().fit(spine, values).predict(spine) for values in (scaled, y)]
    oracle = linear.Ridge(alpha=penalty * len(y), fit_intercept=False, solver="cholesky").fit(*rest)
    found = ridge(np.column_stack([spine, tissue]), y, penalty)
    np.testing.assert_allclose(found.coefficients[2:] * tissue.std(axis=0), oracle.coef_, rtol=1e-6)
    back = y - tissue @ found.coefficients[2:]
    np.testing.assert_allclose(found.coefficients[1], linear.LinearRegression().fit(spine, back).coef_[0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two_point", "shrunk_two_point", "line"])
def test_the_variance_of_the_constants_is_how_they_scatter_over_cohorts(kind: str) -> None:
    """Monte Carlo: other people of the same kind each time. Their spread against the variance that one fit claims."""
    everybody = synthetic_cohort(200 * MONTE_CARLO, 8, Scatter(), (PAPER_SCANNER,))
    everybody = replace(everybody, split=np.full(len(everybody), "training"))
    first, second = ("intercept_mg_cm3", "slope_mg_cm3_per_hu") if kind == "line" else ("muscle_mg_cm3", "fat_mg_cm3")
    variances = (first.replace("mg_cm3", "variance"), "slope_variance" if kind == "line" else "fat_variance", "covariance")
    fits = [PREDICTIONS[kind](everybody.where(np.arange(len(everybody)) // 200 == number), SETTINGS)
            for number in range(MONTE_CARLO)]
    seen = np.cov([[getattr(model, name) for model in fits] for name in (first, second)])
    claimed = np.median([[getattr(model, name) for name in variances] for model in fits], axis=0)
    assert np.sqrt(claimed[:2] / np.diag(seen)) == pytest.approx([1, 1], abs=1.3 * WITHIN)
    assert claimed[2] / np.sqrt(claimed[0] * claimed[1]) == pytest.approx(
        seen[0, 1] / np.sqrt(seen[0, 0] * seen[1, 1]), abs=0.15)


def test_how_scanners_differ_is_estimated_from_three_on() -> None:
    rng = np.random.default_rng(4)
    scanners = np.repeat([f"CT {number}" for number in range(60)], 40)
    values = 50 + np.repeat(rng.normal(0, 3, 60), 40) + rng.normal(0, 5.5, 2400)
    assert scanner_sd_hu(values, scanners) == pytest.approx(3, rel=4 / np.sqrt(120))
    assert scanner_sd_hu(values[:80], scanners[:80]) == 2.0, "two scanners: the prior"
    assert scanner_sd_hu(rng.normal(0, 5.5, 2400), scanners) < 1


# --- what a calibration says of itself ---------------------------------------------------------------------------

@pytest.mark.parametrize("kind", PREDICTIONS)
def test_where_a_calibration_comes_from_stands_in_it(kind: str) -> None:
    cohort = people()
    days = np.array([f"2025-{1 + number % 12:02d}-15" for number in range(len(cohort))])
    scanned = replace(cohort, scan_date=days, kernel=np.full(len(cohort), "B30f"))
    model = PREDICTIONS[kind](scanned, SETTINGS)
    assert (model.status, model.cohort_size, model.kvp, model.scanner, model.kernel, model.date, model.scans_from,
            model.scans_to) == ("synthetic", 280, 120.0, "synthetic CT", "B30f", "2026-01-31", "2025-01-15", "2025-12-15")
    assert (model.lowest_mg_cm3, model.highest_mg_cm3) == (cohort.reference_mg_cm3.min(), cohort.reference_mg_cm3.max())
    assert model.expected_muscle_hu == pytest.approx(cohort.muscle_hu.mean())
    assert model.fat_spread_hu == pytest.approx(cohort.fat_hu.std(ddof=1))
    assert model.provisional and "synthetic people" in model.name
    of_people = PREDICTIONS[kind](replace(scanned, synthetic=np.zeros(len(cohort), bool)), SETTINGS)
    assert of_people.status == "site" and not of_people.provisional and "synthetic" not in of_people.name.split(",")[0]


def test_the_error_of_the_regions_is_taken_off_the_biology() -> None:
    cohort = people()
    plain = fit_two_point(cohort, SETTINGS)
    known = fit_two_point(replace(cohort, muscle_se_hu=np.full(len(cohort), 3.0)), SETTINGS)
    assert known.muscle_biological_sd_hu**2 == pytest.approx(plain.muscle_biological_sd_hu**2 - 9)
    assert known.muscle_spread_hu == plain.muscle_spread_hu


@pytest.mark.parametrize("fit", PREDICTIONS.values())
def test_people_of_the_test_set_are_refused(fit: object) -> None:
    cohort = synthetic_cohort(100, 1)
    with pytest.raises(ValueError, match="30 of 100 people are of the test set; a calibration is fitted on training people"):
        fit(cohort, SETTINGS)


# --- who is fitted on --------------------------------------------------------------------------------------------

def test_who_cannot_be_used_is_left_out_and_counted() -> None:
    cohort = synthetic_cohort(100, 1)
    first = np.flatnonzero(cohort.split == "training")
    muscle, reference = cohort.muscle_hu.copy(), cohort.reference_mg_cm3.copy()
    muscle[first[:3]], reference[first[10:12]] = np.nan, np.nan
    found = training_people(replace(cohort, muscle_hu=muscle, reference_mg_cm3=reference))
    assert len(found.people) == 65 and (found.people.split == "training").all()
    assert found.left_out == {"have no QCT density": 2, "have no HU of muscle": 3}
    fat = np.where(cohort.id == cohort.id[first[5]], cohort.muscle_hu, cohort.fat_hu)
    assert list(training_people(replace(cohort, fat_hu=np.minimum(fat, 0))).left_out.values()) == [1]
    assert "3 training people have no HU of muscle and are left out." in found.warnings


def test_small_narrow_and_mixed_cohorts_are_warned_of() -> None:
    small = training_people(synthetic_cohort(60, 1)).warnings
    assert any("Only 42 pairs: at least 50 are advised" in text for text in small)
    assert any("people are below 80 mg/cm³ by QCT" in text for text in small)
    mixed = synthetic_cohort(200, 1, scanners=[Scanner("A"), Scanner("B")])
    narrow = replace(mixed, reference_mg_cm3=mixed.reference_mg_cm3 / 2 + 100)
    warnings = training_people(narrow).warnings
    assert any("do not span 80" in text for text in warnings)
    assert any("of 2 scanners (A, B)" in text and "--scanner" in text for text in warnings)
    assert any("synthetic people" in text for text in warnings)


REFUSED = {
    "no training set": ({"split": np.full(200, "test")}, {}, "none of the 200 people is of the training set.*column split"),
    "no tube voltage": ({"kvp": np.full(200, np.nan)}, {}, "does not tell the tube voltage.*--kvp 120"),
    "two tube voltages": ({"kvp": np.where(np.arange(200) < 150, 120.0, 100.0)}, {},
                          r"100 kV \(\d+ people\), 120 kV.*--kvp 120"),
    "another voltage": ({}, {"kvp": 80.0}, "no training person was scanned at 80 kV; there are 120 kV"),
    "another scanner": ({}, {"scanner": "X"}, "no training person has the scanner 'X'; there are: 'synthetic CT'"),
    "one HU": ({"spine_hu": np.full(200, 100.0)}, {}, "every value of the HU of bone is 100: there is nothing to compare"),
    "no fat": ({"fat_hu": np.full(200, np.nan)}, {}, "0 training people are too few.*140 have no HU of fat"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cohort_that_cannot_be_fitted_is_refused_with_the_way_out(name: str) -> None:
    known, chosen, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        training_people(replace(synthetic_cohort(200, 1), **known), **chosen)


def test_one_voltage_and_one_scanner_can_be_chosen_or_said() -> None:
    cohort = synthetic_cohort(400, 1, scanners=[Scanner("A"), Scanner("B", kvp=100.0)])
    assert set(training_people(cohort, kvp=100.0).people.scanner) == {"B"}
    unknown = replace(cohort, kvp=np.full(400, np.nan))
    found = training_people(unknown, kvp=110.0, scanner="A")
    assert found.kvp == 110.0 and set(found.people.scanner) == {"A"}


# --- cross-validation and choice ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def a_comparison():
    return compare(training_people(synthetic_cohort(1406, 1, PAPER_SCATTER, (PAPER_SCANNER,))).people, SETTINGS)


def test_folds_are_even_random_and_spread_over_scanners() -> None:
    scanners = np.array(["A"] * 83 + ["B"] * 20)
    fold = assign_folds(scanners, 10, 1)
    assert np.ptp(np.bincount(fold)) <= 1 and np.bincount(fold[83:]).tolist() == [2] * 10
    assert (fold == assign_folds(scanners, 10, 1)).all() and (fold != assign_folds(scanners, 10, 2)).any()


def test_a_person_left_out_does_not_move_their_own_prediction() -> None:
    """Changing one person's QCT density changes the models of others' folds, never the one that judges that person."""
    cohort = people()
    changed = cohort.reference_mg_cm3.copy()
    changed[7] += 60
    before, after = compare(cohort, SETTINGS), compare(replace(cohort, reference_mg_cm3=changed), SETTINGS)
    fold = assign_folds(cohort.scanner, 10, 1)
    for kind in TITLES:
        if kind == "literature":
            continue
        one, other = before.candidates[kind].held_out.predicted, after.candidates[kind].held_out.predicted
        np.testing.assert_array_equal(one[fold == fold[7]], other[fold == fold[7]])
        assert (one[fold != fold[7]] != other[fold != fold[7]]).any()


def test_the_penalty_of_a_fold_does_not_see_its_people() -> None:
    cohort = people(120)
    fold = assign_folds(cohort.scanner, 10, 1)
    found = compare(cohort, SETTINGS).candidates["regression"].held_out.predicted
    for number in (0, 5):
        alone = fit_regression(cohort.where(fold != number), SETTINGS)
        np.testing.assert_allclose(found[fold == number], predict(alone, cohort.where(fold == number))[0], rtol=1e-12)


def test_residual_and_propagated_parts_make_up_the_error_on_people_left_out(a_comparison) -> None:
    reference = a_comparison.people.reference_mg_cm3
    for kind in ("line", "regression", "shrunk_two_point", "two_point", RESCALED):
        one = a_comparison.candidates[kind]
        seen = np.mean((one.held_out.predicted - reference) ** 2)
        claimed = predict(one.calibration, a_comparison.people)[1].mean()
        assert claimed == pytest.approx(seen, rel=0.01), kind
        assert 0.93 < one.performance.coverage.value < 0.97, kind


def test_known_errors_of_the_regions_leave_the_residual() -> None:
    cohort = people(1000)
    cohort = replace(cohort, spine_se_hu=np.full(len(cohort), 3.0))
    plain = compare(replace(cohort, spine_se_hu=np.full(len(cohort), np.nan)), SETTINGS).candidates["line"].calibration
    known = compare(cohort, SETTINGS).candidates["line"].calibration
    spine_part = (3 * known.slope_mg_cm3_per_hu) ** 2
    assert known.residual_sd_mg_cm3**2 == pytest.approx(plain.residual_sd_mg_cm3**2 - spine_part, rel=0.01)


def test_the_literature_is_a_row_and_not_fitted(a_comparison) -> None:
    first = a_comparison.candidates["literature"]
    assert list(a_comparison.candidates)[0] == "literature" and first.calibration == TwoPointCalibration()
    assert 0.94 < first.performance.pearson.value < 0.97


def test_on_one_scanner_the_line_is_taken_and_said_to_be_blind_to_drift(a_comparison) -> None:
    assert a_comparison.recommended == "line"
    assert "cannot see the scanner drift" in a_comparison.reason and "lowdosebmd drift" in a_comparison.reason
    assert a_comparison.candidates["line"].shift_mg_cm3_per_hu == pytest.approx(0.878, abs=0.001)
    assert a_comparison.candidates["two_point"].shift_mg_cm3_per_hu == pytest.approx(0, abs=1e-9)
    errors = [a_comparison.candidates[kind].performance.rmse_mg_cm3 for kind in ("two_point", "line")]
    equal_at_hu = np.sqrt(errors[0]**2 - errors[1]**2) / 0.878
    assert f"errs less only once the HU have moved by {equal_at_hu:.0f} or more" in a_comparison.reason


def test_on_scanners_that_differ_a_model_that_reads_tissue_is_taken() -> None:
    scanners = [Scanner(f"CT {number}", offset_hu=offset) for number, offset in enumerate((-12.0, -4.0, 5.0, 12.0))]
    found = compare(synthetic_cohort(1000, 2, Scatter(), scanners).of_split("training"), SETTINGS)
    line = found.candidates["line"].performance.rmse_mg_cm3
    assert found.candidates[found.recommended].calibration.needs_tissue
    assert found.candidates[found.recommended].performance.rmse_mg_cm3 < line - 1


def test_of_equal_models_the_reason_follows_the_number_of_scanners(a_comparison) -> None:
    pair = [a_comparison.candidates[kind] for kind in ("line", "regression")]
    assert recommend(pair, 1)[0] == "line"
    kind, reason = recommend(pair, 2)
    assert kind == min(pair, key=lambda one: one.shift_mg_cm3_per_hu).kind and "on several scanners" in reason


def test_a_model_that_cannot_be_fitted_does_not_take_the_others_along() -> None:
    cohort = people()
    found = compare(replace(cohort, fat_hu=cohort.spine_hu * 0 - 105.0, muscle_hu=cohort.spine_hu * 0 + 54.0), SETTINGS)
    assert {"line", "two_point", "regression"} <= found.candidates.keys()
    with pytest.raises(ValueError, match="no calibration can be fitted on these people: .*"):
        compare(replace(cohort, reference_mg_cm3=250 - cohort.reference_mg_cm3), SETTINGS)


def test_coverage_counts_qct_inside_the_interval() -> None:
    prediction = Prediction(np.array([100.0, 100.0, 100.0]), np.array([1.0, 1.0, 2.0]))
    inside = coverage(prediction, np.array([101.9, 102.0, 103.9]))
    assert (inside.count, inside.of) == (2, 3)


# --- what the product must show ------------------------------------------------------------------------------------

def test_the_recommended_calibration_reaches_the_aim_on_the_421(a_comparison) -> None:
    """On the paper-like cohort of seed 1. Its 33 people below 80 carry no sensitivity; that is the next test's."""
    cohort = synthetic_cohort(1406, 1, PAPER_SCATTER, (PAPER_SCANNER,))
    test = cohort.of_split("test")
    literature = performance(Prediction(test.measured_mg_cm3, np.ones(len(test))), test.reference_mg_cm3)
    assert 0.94 < literature.pearson.value < 0.97 and 0.40 < literature.diagnostic.sensitivity.value < 0.65
    chosen = a_comparison.candidates[a_comparison.recommended]
    predicted, variance = predict(chosen.calibration, test)
    found = performance(Prediction(predicted, np.sqrt(variance)), test.reference_mg_cm3)
    assert found.icc_agreement.value >= 0.98 and abs(found.bland_altman.bias.value) <= 2
    assert found.bland_altman.lower.value >= -13 and found.bland_altman.upper.value <= 13
    assert 0.95 <= found.slope <= 1.05 and found.auc.value >= 0.99
    assert 0.93 <= found.coverage.value <= 0.97
    assert found.diagnostic.specificity.value >= 0.97


def test_the_recommended_calibration_finds_enough_of_many_people_below_the_limit(a_comparison) -> None:
    """Other people of the same kind, enough (1800 below 80) that chance moves the share by less than 2 per cent."""
    others = synthetic_cohort(20000, 99, PAPER_SCATTER, (PAPER_SCANNER,))
    for kind in ("line", RESCALED):
        predicted, variance = predict(a_comparison.candidates[kind].calibration, others)
        table = performance(Prediction(predicted, np.sqrt(variance)), others.reference_mg_cm3).diagnostic
        assert table.sensitivity.value >= 0.85 and table.specificity.value >= 0.97, kind
