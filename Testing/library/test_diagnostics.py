"""ROC, two-by-two tables, kappa, cut-offs and the baseline table against other programs and the paper's own counts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pingouin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LowDoseBMDLib.baseline import compare_counts, compare_groups
from LowDoseBMDLib.diagnostics import (
    Proportion,
    classify_table,
    cut_off,
    diagnostic,
    proportion,
    roc,
    three_classes,
    weighted_kappa,
)
from paired_values import DATA, Paired
from scipy import stats
from sklearn import metrics
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

CLOSE = 1e-6


@pytest.fixture(params=DATA.values(), ids=DATA.keys())
def pairs(request: pytest.FixtureRequest) -> Paired:
    return request.param


def close(value: object) -> object:
    return pytest.approx(value, rel=CLOSE, abs=CLOSE)


def limits_of(share: Proportion) -> tuple[float, ...]:
    return share.wilson.low, share.wilson.high, share.exact.low, share.exact.high


@pytest.mark.parametrize(("count", "of", "percent", "wilson", "exact"), [
    (16, 38, "42.1", (0.279, 0.578), (0.263, 0.592)),
    (383, 383, "100.0", (0.990, 1.0), (0.990, 1.0)),
    (399, 421, "94.8", (0.922, 0.965), None),
    (16, 16, "100.0", (0.806, 1.0), (0.794, 1.0)),
    (383, 405, "94.6", (0.919, 0.964), None),
    (24, 421, "5.7", None, None),
    (51, 985, "5.2", None, None),  # the paper prints 0.052 % of 421
])
def test_the_papers_counts_give_its_percentages(count: int, of: int, percent: str, wilson: tuple[float, float] | None,
                                                exact: tuple[float, float] | None) -> None:
    share = proportion(count, of)
    assert f"{100 * share.value:.1f}" == percent
    for ours, printed in ((share.wilson, wilson), (share.exact, exact)):
        assert printed is None or (ours.low, ours.high) == pytest.approx(printed, abs=0.0005)


@pytest.mark.parametrize(("count", "of"), [(16, 38), (383, 383), (399, 421), (24, 421), (16, 16), (383, 405), (0, 5), (1, 1),
                                           (0, 421), (3, 10)])
def test_shares_as_statsmodels_and_scipy(count: int, of: int) -> None:
    ours, test = limits_of(proportion(count, of)), stats.binomtest(count, of)
    assert ours == close((*proportion_confint(count, of, method="wilson"), *proportion_confint(count, of, method="beta")))
    assert ours == close((*test.proportion_ci(method="wilson"), *test.proportion_ci(method="exact")))


def test_the_papers_test_set_as_a_table() -> None:
    table = diagnostic(tp=16, fp=0, fn=22, tn=383)
    assert [(s.count, s.of) for s in (table.sensitivity, table.specificity, table.accuracy, table.ppv, table.npv)] == [
        (16, 38), (383, 383), (399, 421), (16, 16), (383, 405)]


def test_roc_as_scikit_learn(pairs: Paired) -> None:
    ours = roc(pairs.test, pairs.positive, low_is_positive=True)
    false, true, threshold = metrics.roc_curve(pairs.positive, -pairs.test, drop_intermediate=False)
    assert ours.false_positive_rate == close(false)
    assert ours.true_positive_rate == close(true)
    assert ours.threshold[1:] == close(-threshold[1:])
    assert ours.threshold[0] == -math.inf
    assert ours.auc.value == close(metrics.roc_auc_score(pairs.positive, -pairs.test))
    same = roc(-pairs.test, pairs.positive)
    assert (same.auc, same.threshold.tolist()) == (ours.auc, (-ours.threshold).tolist())


def test_auc_interval_from_every_pair_of_people(pairs: Paired) -> None:
    """DeLong's SE from the (ill, well) matrix of wins; also AUC = U / (m n) of Mann and Whitney."""
    ill, well = pairs.test[pairs.positive], pairs.test[~pairs.positive]
    wins = (ill[:, None] < well).astype(float) + 0.5 * (ill[:, None] == well)
    se = math.sqrt(np.cov(wins.mean(axis=1)) / ill.size + np.cov(wins.mean(axis=0)) / well.size)
    area, reach = stats.mannwhitneyu(well, ill).statistic / wins.size, stats.norm.isf(0.025) * se
    auc = roc(pairs.test, pairs.positive, low_is_positive=True).auc
    assert (auc.value, auc.low, auc.high) == close((area, max(area - reach, 0), min(area + reach, 1)))


def test_two_by_two_table_as_scikit_learn(pairs: Paired) -> None:
    table = classify_table(pairs.test, pairs.reference, pairs.limit)
    truth, found = pairs.positive, pairs.test < pairs.limit
    assert (table.tn, table.fp, table.fn, table.tp) == tuple(metrics.confusion_matrix(truth, found).ravel())
    assert table.sensitivity.value == close(metrics.recall_score(truth, found))
    assert table.specificity.value == close(metrics.recall_score(~truth, ~found))
    assert table.accuracy.value == close(metrics.accuracy_score(truth, found))
    assert table.ppv.value == close(metrics.precision_score(truth, found))
    assert table.npv.value == close(metrics.precision_score(~truth, ~found))


def test_a_value_at_the_limit_is_not_below_it() -> None:
    values = np.array([79.9, 80.0, 80.1, *range(90, 100)])
    assert classify_table(values, values).tp == 1
    assert three_classes([*values, 120.0, 120.1], [*values, 120.0, 120.1]).table.tolist() == [
        [1, 0, 0], [0, 13, 0], [0, 0, 1]]


def test_three_classes_as_scikit_learn_and_statsmodels(pairs: Paired) -> None:
    limits = (pairs.limit, 1.5 * pairs.limit if pairs.limit != 400 else 450.0)
    ours = three_classes(pairs.test, pairs.reference, limits)
    classes = [np.select([v < limits[0], v <= limits[1]], [0, 1], 2) for v in (pairs.reference, pairs.test)]
    assert ours.table.tolist() == metrics.confusion_matrix(*classes, labels=[0, 1, 2]).tolist()
    kappa, theirs = ours.weighted_kappa, cohens_kappa(ours.table, wt="linear")
    assert kappa.value == close(metrics.cohen_kappa_score(*classes, weights="linear"))
    assert (kappa.value, kappa.low, kappa.high) == close((theirs.kappa, theirs.kappa_low, min(theirs.kappa_upp, 1.0)))


@pytest.mark.parametrize("table", [np.diag([3, 5, 9]), np.array([[10, 2], [3, 20]]), np.arange(16).reshape(4, 4)])
def test_weighted_kappa_of_tables_of_any_size(table: np.ndarray) -> None:
    ours, theirs = weighted_kappa(table), cohens_kappa(table, wt="linear")
    assert (ours.value, ours.low, ours.high, ours.n) == close(
        (theirs.kappa, theirs.kappa_low, min(theirs.kappa_upp, 1.0), table.sum()))


def every_cut(pairs: Paired) -> list[tuple[float, float, float]]:
    """(sensitivity, specificity, cut) for cuts at every measured value, the lowest first."""
    return [(float(np.mean(pairs.test[pairs.positive] < cut)), float(np.mean(pairs.test[~pairs.positive] >= cut)), cut)
            for cut in np.unique(pairs.test)]


def test_cut_offs_are_the_best_of_all(pairs: Paired) -> None:
    found, cuts = cut_off(pairs.test, pairs.reference, pairs.limit), every_cut(pairs)
    youden = max(sensitivity + specificity for sensitivity, specificity, _ in cuts)
    assert found.youden.sensitivity.value + found.youden.specificity.value == close(youden)
    assert found.specific.specificity.value >= 0.97
    assert found.specific.sensitivity.value == close(max(a for a, b, _ in cuts if b >= 0.97))
    table = classify_table(pairs.test, pairs.reference, pairs.limit, cut=found.youden.threshold)
    assert (table.sensitivity, table.specificity) == (found.youden.sensitivity, found.youden.specificity)
    assert found.youden.threshold not in pairs.test or found.youden.threshold == pairs.test.min()


@pytest.mark.parametrize("hundreds", [1, 3, 7])
def test_a_specificity_of_exactly_the_least_is_enough(hundreds: int) -> None:
    """The ill lie above 3 % of the well: 97 of 100 are spared where all ill are found."""
    test = np.concatenate([np.repeat(np.arange(1.0, 101.0), hundreds), np.full(10, 3.5)])
    found = cut_off(test, np.where(np.arange(test.size) < 100 * hundreds, 100.0, 70.0)).specific
    assert (found.threshold, found.sensitivity.value, found.specificity.value) == (3.75, 1.0, 0.97)


def test_youden_as_scikit_learn(pairs: Paired) -> None:
    false, true, _ = metrics.roc_curve(pairs.positive, -pairs.test)
    best = cut_off(pairs.test, pairs.reference, pairs.limit).youden
    assert best.sensitivity.value + best.specificity.value - 1 == close(np.max(true - false))


def test_a_compressed_test_needs_a_higher_cut() -> None:
    """The paper's finding: at 80 half of the osteoporoses are missed, though the test ranks people well."""
    pairs = DATA["like the paper"]
    at_80, best = classify_table(pairs.test, pairs.reference), cut_off(pairs.test, pairs.reference)
    assert at_80.sensitivity.value < 0.7
    assert best.youden.threshold > 85
    assert best.youden.sensitivity.value > 0.85


def test_baseline_rows_as_pingouin() -> None:
    rng = np.random.default_rng(4)
    normal, shifted, wide = rng.normal(57, 10, 200), rng.normal(60, 10, 120), rng.normal(58, 17, 90)
    skewed, rounded = rng.exponential(5, 150), np.round(rng.exponential(6, 80))
    tests = []
    for a, b in itertools.combinations((normal, shifted, wide, skewed, rounded), 2):
        row = compare_groups("age", a, b)
        tests.append(row.test)
        theirs = [float(pingouin.normality(v)["pval"].iloc[0]) for v in (a, b)]
        assert row.shapiro_p == close(theirs)
        assert row.levene_p == close(stats.levene(a, b, center="mean").pvalue)
        assert row.a.sd == close(np.sqrt(np.sum((a - a.mean()) ** 2) / (a.size - 1)))
        if row.test == "Mann-Whitney":
            assert min(theirs) < 0.05
            assert (row.statistic, row.p) == close(rank_sum(a, b))
        else:
            assert min(theirs) >= 0.05
            assert (row.levene_p < 0.05) == (row.test == "Welch")
            result = pingouin.ttest(a, b, correction=row.test == "Welch").iloc[0]
            assert (row.statistic, row.p) == close((result["T"], result["p_val"]))
    assert {*tests} == {"t", "Welch", "Mann-Whitney"}


def rank_sum(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """U of a and its two-sided p by the normal approximation with Lehmann's correction for ties."""
    u = float(np.sum(a[:, None] > b) + 0.5 * np.sum(a[:, None] == b))
    n, ties = a.size + b.size, np.unique(np.concatenate([a, b]), return_counts=True)[1]
    variance = a.size * b.size / 12 * (n + 1 - np.sum(ties**3 - ties) / (n * (n - 1)))
    return u, math.erfc(abs(u - a.size * b.size / 2) / math.sqrt(2 * variance))


def test_the_papers_men_in_either_set() -> None:
    """The paper prints chi-square 0.021 and p 0.885: that is without continuity correction."""
    row = compare_counts("Men", 624, 985, 265, 421)
    assert (row.test, round(row.statistic, 4), round(row.p, 3)) == ("chi-square", 0.0208, 0.885)
    a, b, c, d = 624, 985 - 624, 265, 421 - 265
    assert row.statistic == close((a * d - b * c) ** 2 * 1406 / (985 * 421 * (a + c) * (b + d)))
    assert row.p == close(math.erfc(math.sqrt(row.statistic / 2)))
    assert (f"{100 * row.a.value:.1f}", f"{100 * row.b.value:.1f}") == ("63.4", "62.9")


def test_small_counts_are_compared_exactly() -> None:
    """Fisher's tea: 3 of 4 against 1 of 4, p = 34/70."""
    row = compare_counts("Milk first", 3, 4, 1, 4)
    assert (row.test, row.statistic) == ("Fisher", None)
    assert row.p == close(34 / 70)


def test_more_people_than_shapiro_knows_are_noted_not_warned(recwarn: pytest.WarningsRecorder) -> None:
    rng = np.random.default_rng(0)
    assert "approximate above 5000" in compare_groups("vBMD", rng.normal(size=5001), rng.normal(size=50)).note
    assert not recwarn.list


VALUES = np.linspace(90.0, 180.0, 12)


def test_one_class_only_is_said() -> None:
    table = classify_table(VALUES, VALUES)
    assert (table.sensitivity.value, table.sensitivity.wilson, table.sensitivity.exact) == (None, None, None)
    assert table.sensitivity.reason == "nobody is positive by the reference"
    assert table.ppv.reason == "nobody is positive by the test"
    assert table.specificity.value == 1
    with pytest.raises(ValueError, match="nobody is below 80 by the reference: there is no cut-off"):
        cut_off(VALUES, VALUES)
    with pytest.raises(ValueError, match="everybody is below 200"):
        cut_off(VALUES, VALUES, 200.0)
    for positive, count in ((VALUES < 80, 0), (VALUES < 91, 1), (VALUES < 200, 12)):
        with pytest.raises(ValueError, match=f"{count} of 12 people are positive: a ROC curve needs two of either"):
            roc(VALUES, positive)
    normal = three_classes(VALUES + 40, VALUES + 31)
    assert normal.weighted_kappa is None
    assert "all are in one class" in normal.reason


def test_kinds_that_do_not_overlap_have_an_interval_without_width_and_it_is_said() -> None:
    auc = roc(VALUES, VALUES > 130).auc
    assert (auc.value, auc.low, auc.high) == (1, 1, 1)
    assert "do not overlap" in auc.reason


def with_nan(values: np.ndarray) -> np.ndarray:
    return np.append(values[:-1], math.nan)


@pytest.mark.parametrize("function", [classify_table, three_classes, cut_off,
                                      lambda a, b: roc(a, np.asarray(b) > 100 if len(b) == len(a) else [True] * len(b)),
                                      lambda a, b: compare_groups("age", a, b) if len(a) == len(b) else roc(a, b)])
@pytest.mark.parametrize(("a", "b", "sentence"), [
    (VALUES[:9], VALUES[:9], "9 values of .* are too few: at least 10"),
    (np.full(12, 57.0), VALUES, "every value of .* is 57"),
    (with_nan(VALUES), VALUES, "1 of 12 values of .* are missing or not finite"),
    (VALUES, np.ones(11), "has 12 values and .* 11"),
    (["a"] * 12, VALUES, "not a number"),
])
@pytest.mark.filterwarnings("error")
def test_hostile_values_give_a_sentence(function, a: object, b: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(a, b)


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=10, max_size=14))
def test_any_few_values_with_any_ties_give_finite_numbers_or_a_sentence(people: list[tuple[int, int]]) -> None:
    a, b = np.array(people, float).T
    for call in (lambda: roc(a, b < 2).auc, lambda: three_classes(a, b, (1, 3)).weighted_kappa):
        try:
            found = call()
        except ValueError as error:
            assert " " in str(error)
        else:
            assert found is None or found.low <= found.value <= found.high
    for call in (lambda: cut_off(a, b, 2), lambda: classify_table(a, b, 2), lambda: compare_groups("age", a, b)):
        try:
            numbers = flat(call())
        except ValueError as error:
            assert " " in str(error)
        else:
            assert all(number is None or math.isfinite(number) for number in numbers)


def flat(result: object) -> list[float | None]:
    """Every number of nested dataclasses."""
    if dataclasses.is_dataclass(result):
        return [number for field in vars(result).values() for number in flat(field)]
    if isinstance(result, tuple):
        return [number for part in result for number in flat(part)]
    return [] if isinstance(result, str) else [result]


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: proportion(5, 3), "5 of 3 people cannot be"),
    (lambda: proportion(-1, 3), "-1 of 3 people cannot be"),
    (lambda: proportion(1.5, 3), "1.5 of 3 people cannot be"),
    (lambda: proportion(math.nan, 3), "nan of 3 people cannot be"),
    (lambda: diagnostic(1, 2, 3, 3), "9 people are too few"),
    (lambda: diagnostic(-1, 20, 3, 3), "-1 of -1 people cannot be"),
    (lambda: roc(VALUES, np.arange(12)), "yes and no"),
    (lambda: roc(VALUES, [0.0, math.nan] * 6), "yes and no"),
    (lambda: three_classes(VALUES, VALUES, (120, 80)), "the limits must rise, not be 120 and 80"),
    (lambda: three_classes(VALUES, VALUES, (80, math.nan)), "the limits must rise, not be 80 and nan"),
    (lambda: weighted_kappa(np.diag([0, 20, 0])), "all are in one class"),
    (lambda: weighted_kappa(np.diag([1, 2, 3])), "6 people are too few"),
    (lambda: classify_table(VALUES, VALUES, math.nan), "the limit nan or the cut nan is not a finite number"),
    (lambda: cut_off(VALUES, VALUES, 100.0, specificity=97), "a specificity lies between 0 and 1, unlike 97"),
    (lambda: compare_counts("Men", 1, 2, 0, 0), "Men: a group of nobody"),
    (lambda: compare_counts("Men", 0, 20, 0, 30), "Men: none of the people"),
    (lambda: compare_counts("Men", 20, 20, 30, 30), "Men: all of the people"),
])
def test_what_cannot_be_is_refused(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_auc_interval_holds_the_truth_as_often_as_it_says() -> None:
    """400 draws of 40 ill and 80 well, normal with one SD between them: AUC = Phi(1/sqrt 2)."""
    rng, truth, ill = np.random.default_rng(5), stats.norm.cdf(1 / math.sqrt(2)), np.arange(120) < 40
    aucs = [roc(rng.normal(size=120) + ill, ill).auc for _ in range(400)]
    assert np.mean([auc.low <= truth <= auc.high for auc in aucs]) == pytest.approx(0.95, abs=0.033)
