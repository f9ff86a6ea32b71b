"""Agreement statistics against other programs' (scipy, statsmodels, pingouin) and against closed forms derived here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pingouin
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from LowDoseBMDLib.agreement import (
    Estimate,
    bland_altman,
    complete,
    deming,
    icc_agreement,
    icc_consistency,
    lin_ccc,
    passing_bablok,
    pearson,
    spearman,
)
from paired_values import DATA, Paired, like_the_paper, peak_flow
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

CLOSE = 1e-6
FUNCTIONS: list[Callable] = [pearson, spearman, icc_agreement, icc_consistency, lin_ccc, bland_altman, deming,
                             passing_bablok]


@pytest.fixture(scope="module", params=DATA.values(), ids=DATA.keys())
def pairs(request: pytest.FixtureRequest) -> Paired:
    return request.param


def three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def close(*values: float) -> object:
    return pytest.approx(values if len(values) > 1 else values[0], rel=CLOSE, abs=CLOSE)


def long_table(pairs: Paired) -> pd.DataFrame:
    n = pairs.test.size
    return pd.DataFrame({"person": [*range(n)] * 2, "method": ["test"] * n + ["reference"] * n,
                         "value": np.concatenate([pairs.test, pairs.reference])})


def test_pearson_as_scipy(pairs: Paired) -> None:
    theirs = stats.pearsonr(pairs.test, pairs.reference)
    assert three(pearson(pairs.test, pairs.reference)) == close(theirs.statistic, *theirs.confidence_interval(0.95))


def test_spearman_as_scipy_with_the_interval_of_bonett_and_wright(pairs: Paired) -> None:
    r, n = stats.spearmanr(pairs.test, pairs.reference).statistic, pairs.test.size
    z, reach = 0.5 * math.log((1 + r) / (1 - r)), 1.9599639845400545 * math.sqrt((1 + r**2 / 2) / (n - 3))
    limits = [(math.exp(2 * e) - 1) / (math.exp(2 * e) + 1) for e in (z - reach, z + reach)]
    assert three(spearman(pairs.test, pairs.reference)) == close(r, *limits)


@pytest.fixture(scope="module")
def mean_squares(pairs: Paired) -> tuple[float, float, float]:
    """Mean squares of people, methods and residual, by statsmodels."""
    table = anova_lm(ols("value ~ C(person) + C(method)", long_table(pairs)).fit())
    return tuple(table["sum_sq"] / table["df"])


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pingouin's, with pandas
@pytest.mark.parametrize(("ours", "name"), [(icc_agreement, "ICC(A,1)"), (icc_consistency, "ICC(C,1)")])
def test_icc_as_pingouin(pairs: Paired, ours: Callable, name: str) -> None:
    theirs = pingouin.intraclass_corr(long_table(pairs), "person", "method", "value").set_index("Type").loc[name]
    estimate = ours(pairs.test, pairs.reference)
    assert estimate.value == close(theirs["ICC"])
    assert (estimate.low, estimate.high) == pytest.approx(theirs["CI95"], abs=0.00501)  # printed to 0.01


def test_icc_agreement_interval_in_the_form_of_shrout_and_fleiss(pairs: Paired,
                                                                 mean_squares: tuple[float, float, float]) -> None:
    """Their degrees of freedom are written with F of the methods, from statsmodels' analysis of variance."""
    (people, methods, error), n, k = mean_squares, pairs.test.size, 2
    icc = (people - error) / (people + (k - 1) * error + k * (methods - error) / n)
    f, g = methods / error, n * (1 + (k - 1) * icc) - k * icc
    v = (k - 1) * (n - 1) * (k * icc * f + g) ** 2 / ((n - 1) * k**2 * icc**2 * f**2 + g**2)
    up, down = stats.f.isf(0.025, n - 1, v), stats.f.isf(0.025, v, n - 1)
    low = n * (people - up * error) / (up * (k * methods + (k * n - k - n) * error) + n * people)
    high = n * (down * people - error) / (k * methods + (k * n - k - n) * error + n * down * people)
    assert three(icc_agreement(pairs.test, pairs.reference)) == close(icc, low, high)


def test_icc_consistency_interval_from_f(pairs: Paired, mean_squares: tuple[float, float, float]) -> None:
    (people, _, error), n = mean_squares, pairs.test.size
    f, critical = people / error, stats.f.isf(0.025, n - 1, n - 1)
    expected = [(g - 1) / (g + 1) for g in (f, f / critical, f * critical)]
    assert three(icc_consistency(pairs.test, pairs.reference)) == close(*expected)


def test_lin_by_the_delta_method(pairs: Paired) -> None:
    """Lin's variance is that of z as a function of five normal moments; here the gradient is by complex steps."""
    x, y, n = pairs.test, pairs.reference, pairs.test.size
    (xx, xy), (_, yy) = np.cov(x, y, ddof=0)
    moments = np.array([x.mean(), y.mean(), xx, yy, xy])

    def z(m: np.ndarray) -> complex:
        return np.arctanh(2 * m[4] / (m[2] + m[3] + (m[0] - m[1]) ** 2))

    gradient = np.array([z(moments + 1e-20j * e).imag / 1e-20 for e in np.eye(5)])
    spread = np.zeros((5, 5))
    spread[:2, :2] = [[xx, xy], [xy, yy]]
    spread[2:, 2:] = [[2 * xx**2, 2 * xy**2, 2 * xx * xy], [2 * xy**2, 2 * yy**2, 2 * yy * xy],
                      [2 * xx * xy, 2 * yy * xy, xx * yy + xy**2]]
    centre, reach = z(moments).real, stats.norm.isf(0.025) * math.sqrt(gradient @ spread @ gradient / (n - 2))
    assert three(lin_ccc(x, y)) == close(*np.tanh([centre, centre - reach, centre + reach]))


def test_bland_altman_as_statsmodels(pairs: Paired) -> None:
    ours = bland_altman(pairs.test, pairs.reference)
    difference, n = pairs.test - pairs.reference, pairs.test.size
    theirs = sm.stats.DescrStatsW(difference)
    assert three(ours.bias) == close(theirs.mean, *theirs.tconfint_mean())
    assert ours.sd == close(theirs.std * math.sqrt(n / (n - 1)))
    fit = sm.OLS(difference, sm.add_constant((pairs.test + pairs.reference) / 2)).fit()
    assert three(ours.slope) == close(fit.params[1], *fit.conf_int()[1])
    assert ours.slope_p == close(fit.pvalues[1])
    t, se = stats.t.isf(0.025, n - 1), math.sqrt(ours.sd**2 / n + 1.96**2 * ours.sd**2 / (2 * (n - 1)))
    for limit, centre in ((ours.lower, theirs.mean - 1.96 * ours.sd), (ours.upper, theirs.mean + 1.96 * ours.sd)):
        assert three(limit) == close(centre, centre - t * se, centre + t * se)
    assert ours.outside == sum(not ours.lower.value <= d <= ours.upper.value for d in difference)


def test_bland_and_altman_in_their_own_words() -> None:
    """Their paper: mean difference -2.1, SD 38.8, limits -79.7 and 75.5 l/min (with 2 SD; with 1.96 a little less)."""
    ours = bland_altman(peak_flow().test, peak_flow().reference)
    assert (round(ours.bias.value, 1), round(ours.sd, 1)) == (-2.1, 38.8)
    assert ours.bias.value - 2 * ours.sd == pytest.approx(-79.7, abs=0.06)
    assert round(pearson(peak_flow().test, peak_flow().reference).value, 2) == 0.94


@pytest.mark.parametrize(("n", "bias", "sd", "half_widths"), [
    (985, -1.425, 10.45, (0.655, 1.12)), (421, -1.23, 10.35, (0.99, 1.70))])
def test_the_papers_bland_altman_has_these_intervals(n: int, bias: float, sd: float,
                                                     half_widths: tuple[float, float]) -> None:
    difference = np.random.default_rng(n).normal(size=n)
    difference = bias + sd * (difference - difference.mean()) / difference.std(ddof=1)
    reference = np.random.default_rng(1).normal(125.0, 34.0, n)
    ours = bland_altman(reference + difference, reference)
    assert ours.bias.value == pytest.approx(bias)
    assert ours.bias.high - bias == pytest.approx(half_widths[0], abs=0.005)
    assert ours.upper.high - ours.upper.value == pytest.approx(half_widths[1], abs=0.005)
    assert (ours.lower.value, ours.upper.value) == pytest.approx((bias - 1.96 * sd, bias + 1.96 * sd))


def principal_axis(x: np.ndarray, y: np.ndarray, ratio: float) -> tuple[float, float]:
    """Deming's line as the first principal axis of values whose errors are made equal."""
    values = np.column_stack([x, y / math.sqrt(ratio)])
    across, up = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)[2][0]
    slope = up / across * math.sqrt(ratio)
    return slope, y.mean() - slope * x.mean()


@pytest.mark.parametrize("ratio", [1.0, 0.25, 3.0])
def test_deming_is_the_principal_axis_and_its_interval_a_jackknife(pairs: Paired, ratio: float) -> None:
    x, y, n = pairs.reference, pairs.test, pairs.test.size
    whole = np.array(principal_axis(x, y, ratio))
    without = np.array([principal_axis(np.delete(x, i), np.delete(y, i), ratio) for i in range(n)])
    pseudo = n * whole - (n - 1) * without
    reach = stats.t.isf(0.025, n - 2) * pseudo.std(axis=0, ddof=1) / math.sqrt(n)
    line = deming(x, y, ratio)
    for number, ours in enumerate((line.slope, line.intercept)):
        assert three(ours) == close(whole[number], whole[number] - reach[number], whole[number] + reach[number])


def slopes_one_by_one(x: np.ndarray, y: np.ndarray) -> list[float]:
    slopes = []
    for (xi, yi), (xj, yj) in itertools.combinations(zip(x, y, strict=True), 2):
        if xi != xj:
            slopes.append((yi - yj) / (xi - xj))
        elif yi != yj:
            slopes.append(math.inf)
    return sorted(s for s in slopes if s != -1)


def test_passing_bablok_counted_slope_by_slope(pairs: Paired) -> None:
    x, y, n = pairs.reference, pairs.test, pairs.test.size
    s = slopes_one_by_one(x, y)
    k, big_n = sum(value < -1 for value in s), len(s)
    middle = s[(big_n + 1) // 2 + k - 1] if big_n % 2 else 0.5 * (s[big_n // 2 + k - 1] + s[big_n // 2 + k])
    c = stats.norm.isf(0.025) * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    m1 = round((big_n - c) / 2)
    low, high = s[m1 + k - 1], s[big_n - m1 + 1 + k - 1]
    line = passing_bablok(x, y)
    assert three(line.slope) == close(middle, low, high)
    assert three(line.intercept) == close(*(np.median(y - b * x) for b in (middle, high, low)))


def test_passing_bablok_is_theil_sen_where_nothing_falls() -> None:
    """Without slopes below -1 there is no shift, and the median of the slopes is Theil's."""
    x = np.arange(15.0) ** 1.5
    y = 3 + 0.9 * x + np.sin(7 * x)
    slope, intercept, low, high = stats.theilslopes(y, x, method="joint")
    line = passing_bablok(x, y)
    assert line.slope.value == close(slope)
    assert line.intercept.value == close(intercept)
    assert (line.slope.low, line.slope.high) == close(low, high)


def test_lines_do_not_care_which_method_comes_first() -> None:
    """What ordinary regression lacks: exchanging the methods turns the slope into its inverse."""
    pairs = like_the_paper()
    x, y = pairs.reference[:30], pairs.test[:30]  # an odd number (435) of slopes: one slope is the median
    for fit in (deming, passing_bablok):
        assert fit(x, y).slope.value * fit(y, x).slope.value == close(1.0)
    assert deming(x, y, 4.0).slope.value * deming(y, x, 0.25).slope.value == close(1.0)


@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (5.0, 1.0), (-3.0, 0.8)])
def test_methods_without_error_give_their_line_and_no_width(shift: float, slope: float) -> None:
    x = np.linspace(50.0, 200.0, 25)
    y = shift + slope * x
    for line in (deming(x, y), passing_bablok(x, y)):
        assert three(line.slope) == close(slope, slope, slope)
        assert three(line.intercept) == close(shift, shift, shift)
    assert three(pearson(x, y)) == close(1.0, 1.0, 1.0)
    assert three(spearman(x, y)) == (1.0, 1.0, 1.0)
    altman = bland_altman(y, x)
    assert altman.slope.value == close((slope - 1) / ((slope + 1) / 2))
    assert altman.outside == 0


def test_the_same_values_twice_agree_wholly_and_a_constant_difference_only_consistently() -> None:
    x = np.linspace(50.0, 200.0, 25)
    for agree in (icc_agreement, icc_consistency, lin_ccc):
        assert three(agree(x, x)) == (1.0, 1.0, 1.0)
    assert three(icc_consistency(x + 5, x)) == close(1.0, 1.0, 1.0)
    estimate = icc_agreement(x + 5, x)
    assert estimate.low < estimate.value < estimate.high < 1
    assert lin_ccc(x + 5, x).value == close(2 * x.var() / (2 * x.var() + 25))


def covers(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """400 draws of 60 people from a known normal distribution: 95 % +- 3.3 % (three standard errors)."""
    rng, draws, people, names = np.random.default_rng(3), 400, 60, ("pearson", "spearman", "icc", "lin", "bias", "limit",
                                                                    "deming", "passing")
    hits = dict.fromkeys(names, 0)
    for _ in range(draws):
        truth = rng.normal(100.0, 30.0, people)
        x, y = truth + rng.normal(0.0, 10.0, people), truth + rng.normal(0.0, 10.0, people)
        altman = bland_altman(x, y)
        estimates = (pearson(x, y), spearman(x, y), icc_agreement(x, y), lin_ccc(x, y), altman.bias, altman.upper,
                     deming(x, y).slope, passing_bablok(x, y).slope)
        truths = (0.9, 6 / math.pi * math.asin(0.45), 0.9, 0.9, 0.0, 1.96 * 10 * math.sqrt(2), 1.0, 1.0)
        for name, estimate, value in zip(names, estimates, truths, strict=True):
            hits[name] += covers(estimate, value)
    assert {name: count for name, count in hits.items() if abs(count / draws - 0.95) > 0.033} == {}


GOOD = np.linspace(60.0, 180.0, 12)
HOSTILE = [
    (GOOD[:9], GOOD[:9] + 1, "9 values of .* are too few: at least 10 are needed"),
    ([], [], "0 values of .* are too few"),
    (GOOD, np.full(12, 57.0), "every value of .* is 57: there is nothing to compare"),
    (np.full(12, 1e9) + np.arange(12) * 1e-6, GOOD, r"every value of .* is 1e\+09"),
    (GOOD * 1e-200, GOOD, "every value of .* is 6e-199"),
    (GOOD * 1e300, GOOD, r"1.8e\+302 cannot be a value of .*: it is too large"),
    (np.append(GOOD, math.nan), np.append(GOOD, 1.0), "1 of 13 values of .* are missing or not finite; leave"),
    (GOOD, np.where(GOOD > 150, math.inf, GOOD), "3 of 12 values of .* are missing or not finite"),
    ([*GOOD, None], [*GOOD, 3.0], "1 of 13 values of .* are missing or not finite"),
    (GOOD, GOOD[:11], "has 12 values and .* 11; give one of each per person"),
    ([*GOOD[:11], "n/a"], GOOD, "holds something that is not a number: .*n/a"),
    (np.stack([GOOD, GOOD]), np.stack([GOOD, GOOD]), r"one list of numbers, not an array of shape \(2, 12\)"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("x", "y", "sentence"), HOSTILE)
def test_what_cannot_be_computed_is_said_in_a_sentence(function: Callable, x: object, y: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(x, y)


@pytest.mark.filterwarnings("error")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=10, max_size=14), st.sampled_from(FUNCTIONS))
def test_any_few_values_with_any_ties_give_finite_numbers_or_a_sentence(people: list[tuple[int, int]],
                                                                        function: Callable) -> None:
    try:
        result = function(*np.array(people, float).T)
    except ValueError as error:
        assert " " in str(error)
    else:
        found = [result] if isinstance(result, Estimate) else [e for e in vars(result).values() if isinstance(e, Estimate)]
        assert all(e.low <= e.value <= e.high for e in found)


@pytest.mark.filterwarnings("error")
def test_lines_that_have_no_answer_are_refused() -> None:
    zigzag = np.tile([1.0, 2.0], 10)
    with pytest.raises(ValueError, match="not related at all"):
        deming(np.repeat([1.0, 2.0], 10), zigzag)
    with pytest.raises(ValueError, match="without one of the people x and y are not related"):
        deming(np.append(np.zeros(11), 5.0), GOOD)  # without the last there is no line
    with pytest.raises(ValueError, match="do not rise together"):
        passing_bablok(GOOD, -3 * GOOD)
    with pytest.raises(ValueError, match="too many people have the same x"):
        passing_bablok(np.repeat([1.0, 2.0], 10), np.arange(20.0))
    with pytest.raises(ValueError, match="10001 people are too many"):
        passing_bablok(np.arange(10_001.0), np.arange(10_001.0))
    with pytest.raises(ValueError, match="above 0, not -1"):
        deming(GOOD, GOOD, -1.0)
    with pytest.raises(ValueError, match="every value of the mean of the two is 120"):
        bland_altman(GOOD, 240 - GOOD)


def test_complete_leaves_out_whoever_lacks_a_value() -> None:
    (x, y, z), left_out = complete([1.0, math.nan, 3.0, 4.0], [1, 2, math.inf, 4], [5, 6, 7, 8])
    assert (x.tolist(), y.tolist(), z.tolist(), left_out) == ([1, 4], [1, 4], [5, 8], 2)
    with pytest.raises(ValueError, match="column 1 has 2 values and column 2 3"):
        complete([1, 2], [1, 2, 3])
