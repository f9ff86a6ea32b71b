"""The vBMD reference by age: what is published comes out as published, the rest is said to be interpolated."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDLib.headers import age_text, age_years, sex
from LowDoseBMDLib.reference import AGE_RANGE_YEARS, has_reference, reference_curve, reference_vbmd


@pytest.mark.parametrize(("age", "letter", "mean"), [
    (30, "F", 185.4), (32, "F", 185.4), (30, "M", 176.6), (32, "M", 176.6), (80, "F", 62.4), (80, "M", 92.1)])
def test_published_means_are_as_published(age: float, letter: str, mean: float) -> None:
    assert reference_vbmd(age, letter).mean_mg_cm3 == pytest.approx(mean)


def test_between_the_knots_it_is_a_straight_line() -> None:
    # Women 60: 115, 65: 100, so 15 mg/cm3 in 5 years; men 70: 108, 80: 92.1, so 7.95 at half way.
    assert reference_vbmd(62, "F").mean_mg_cm3 == pytest.approx(115 - 2 * 3)
    assert reference_vbmd(75, "M").mean_mg_cm3 == pytest.approx(108 - 7.95)
    np.testing.assert_allclose(reference_curve("F", [60, 61, 65]), [115, 112, 100])


def test_the_reader_is_told_what_is_not_published() -> None:
    reference = reference_vbmd(60, "F")
    assert "Cheng 2021" in reference.source and "10.1002/jbmr.4187" in reference.source
    assert "interpolated" in reference.caveat and "SD assumed" in reference.caveat
    assert (reference.sd_mg_cm3, reference_vbmd(60, "M").sd_mg_cm3) == (26.0, 27.0)


@pytest.mark.parametrize("letter", ["F", "M"])
def test_means_only_fall_with_age(letter: str) -> None:
    assert np.all(np.diff(reference_curve(letter, np.arange(32, 81))) < 0)


@pytest.mark.parametrize(("age", "letter", "words"), [
    (29.9, "F", "30 to 80 years, not 29.9 years"), (81, "M", "not 81 years"), (float("nan"), "M", "not nan years"),
    (60, "O", "not for 'O'"), (60, "", "F and M only")])
def test_where_there_is_no_reference_it_says_so(age: float, letter: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reference_vbmd(age, letter)


def test_an_age_may_be_asked_about_first() -> None:
    low, high = AGE_RANGE_YEARS
    assert all(has_reference(age) for age in (low, 55.0, high))
    assert not any(has_reference(age) for age in (None, low - 1, high + 1))


@pytest.mark.parametrize(("text", "years"), [
    ("057Y", 57.0), ("57Y", 57.0), (" 057y ", 57.0), ("018M", 1.5), ("026W", 26 * 7 / 365.25), ("003D", 3 / 365.25),
    ("089Y", 89.0), ("090Y", 90.0), ("104Y", 90.0), ("000Y", None), ("", None), (None, None), ("Y", None), ("57", None),
    ("-57Y", None), ("0057Y", None), ("57 years", None)])
def test_ages_of_headers(text: str | None, years: float | None) -> None:
    assert age_years(text) == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(("years", "words"), [
    (57.0, "57 years"), (57.9, "57 years"), (1.5, "18 months"), (2.0, "2 years"), (89.0, "89 years"),
    (90.0, "90 years or older")])
def test_ages_in_words(years: float, words: str) -> None:
    assert age_text(years) == words


@pytest.mark.parametrize(("text", "letter"), [
    ("F", "F"), ("m ", "M"), ("O", None), ("", None), (None, None), ("female", None)])
def test_sexes_of_headers(text: str | None, letter: str | None) -> None:
    assert sex(text) == letter
