"""Control charts of scanners: numbers by arithmetic, drifts that are known, steady scanners, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import scanner_archive as synthetic
from LowDoseBMDLib.calibration import Calibration, TwoPointCalibration, save_calibration
from LowDoseBMDLib.calibration_models import LineCalibration
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.drift import (
    IN_CONTROL,
    OUT,
    TOO_FEW,
    WATCH,
    Baseline,
    Chart,
    baseline_months,
    draw_chart,
    limit_hu,
    month_of,
    months_between,
)
from LowDoseBMDLib.drift_records import Archive, Reading, Stratum, read_archive
from LowDoseBMDLib.drift_strata import Judged, judge_archive
from scanner_archive import Scanner
from scipy import stats

KNOWN = Baseline(50.0, 5.0, 10_000)
"""So many people that centre and spread are as good as known."""
PERSON = {"muscle": 50.0, "fat": -105.0, "aorta": 42.0}


def chart_of(means: list[float], n: int = 25, baseline: Baseline = KNOWN) -> Chart:
    """Months from 2022-01 on with exactly these means and an SD of 5 HU, n people each, on the 15th."""
    days = [date(2022 + at // 12, at % 12 + 1, 15) for at, _ in enumerate(means) for _ in range(n)]
    people = np.linspace(-1, 1, n)
    hu = np.concatenate([mean + 5 * people / people.std() for mean in means])
    return draw_chart("muscle", days, hu, (month_of(days[0]), month_of(days[-1])), baseline)


def rules_at(chart: Chart) -> dict[str, tuple[str, ...]]:
    return {month.month: month.rules for month in chart.months if month.rules}


def judged(scanner: Scanner, seed: int, calibration: Calibration | None = None) -> Judged:
    days, hu = synthetic.scans(scanner, seed)
    stratum = Stratum("Maker", scanner.model, scanner.kvp, "smooth")
    readings = tuple(Reading(stratum, day, {name: hu[name][at] for name in hu}, 140.0) for at, day in enumerate(days))
    return judge_archive(Archive(readings, {}, len(readings)), None, calibration)[0]


# --- limits and rules --------------------------------------------------------------------------------------

def test_limits_are_those_of_a_mean_when_the_baseline_is_known() -> None:
    """3 SD of a mean of 25 people is 3 * 5 / 5 HU; with 0.33 HU between months, 3 * hypot(1, 0.33)."""
    assert limit_hu(KNOWN, 25, 3.0) == pytest.approx(3 * math.hypot(1.0, 0.33), rel=0.005)


def test_limits_know_how_little_a_small_baseline_says() -> None:
    """The mean of n people less that of N: a prediction interval with N - 1 degrees of freedom."""
    small = Baseline(50.0, 5.0, 20)
    wanted = stats.t(19).isf(stats.norm.sf(3)) * math.sqrt(25 * (1 / 25 + 1 / 20) + 0.33**2)
    assert limit_hu(small, 25, 3.0) == pytest.approx(wanted)
    assert limit_hu(small, 25, 3.0) > 1.5 * limit_hu(KNOWN, 25, 3.0)


def test_a_month_beyond_three_sd_is_named() -> None:
    chart = chart_of([50.0] * 4 + [53.4] + [50.0] * 4)
    assert rules_at(chart) == {"2022-05": ("beyond_3_sd",)}
    assert (chart.status, chart.change.pattern) == (OUT, "passing")
    assert (chart.change.since, chart.change.until) == ("2022-05", "2022-05")
    assert chart.change.shift_hu.value == pytest.approx(3.4)


def test_two_of_three_months_beyond_two_sd_ask_for_a_second_look() -> None:
    chart = chart_of([50.0, 52.5, 50.0, 52.5, 50.0, 50.0, 50.0])
    assert rules_at(chart) == {"2022-04": ("two_of_three",)}
    assert chart.status == WATCH
    assert chart_of([50.0, 52.5, 50.0, 47.5, 50.0]).status == IN_CONTROL, "the rule holds for one side"


def test_eight_months_on_one_side() -> None:
    assert chart_of([50.8] * 7 + [50.0] * 5).status == IN_CONTROL
    chart = chart_of([50.8] * 8)
    assert rules_at(chart) == {"2022-08": ("run",)}
    assert (chart.status, chart.change.pattern, chart.change.since) == (OUT, "step", "2022-01")


def test_small_months_are_shown_and_not_judged() -> None:
    chart = chart_of([50.0, 70.0, 50.0], n=4)
    assert [month.n for month in chart.months] == [4, 4, 4] and not any(month.judged for month in chart.months)
    assert chart.status == TOO_FEW and "5 people" in chart.reason


def test_the_trend_is_the_slope_of_a_line() -> None:
    """0.25 HU a month without scatter is 3 HU a year, but for the months' unequal lengths."""
    chart = chart_of([50.0 + 0.25 * at for at in range(24)])
    assert chart.trend_hu.value == pytest.approx(3.0, abs=0.02)
    assert chart.change.pattern == "trend" and "trend" in chart.rules


def test_the_trend_has_the_interval_of_an_independent_program() -> None:
    days, hu = synthetic.scans(Scanner(months=12), 7)
    found = draw_chart("muscle", days, hu["muscle"], ("2022-01", "2022-12"), baseline_months(days)).trend_hu
    years = np.array([day.toordinal() for day in days]) / 365.25
    design = np.stack([np.ones_like(years), years - years.mean()], axis=1)
    beta, residual, _, _ = np.linalg.lstsq(design, hu["muscle"], rcond=None)
    error = math.sqrt(residual[0] / (len(days) - 2) * np.linalg.inv(design.T @ design)[1, 1])
    assert found.value == pytest.approx(beta[1])
    assert found.high - found.value == pytest.approx(stats.t(len(days) - 2).ppf(0.975) * error)


def test_the_baseline_is_three_months_or_until_there_are_twenty_people() -> None:
    def days(*counts: int) -> list[date]:
        return [date(2022, at + 1, 1) for at, count in enumerate(counts) for _ in range(count)]

    assert baseline_months(days(30, 30, 30, 30)) == ("2022-01", "2022-03")
    assert baseline_months(days(5, 0, 5, 5, 5, 9)) == ("2022-01", "2022-05"), "a month without people does not count"
    assert baseline_months(days(5, 5, 5)) is None


def test_months_are_counted_over_the_turn_of_a_year() -> None:
    assert months_between("2022-11", "2023-02") == ["2022-11", "2022-12", "2023-01", "2023-02"]


# --- known scanners ----------------------------------------------------------------------------------------

def test_a_scanner_that_loses_two_hu_a_year_is_found() -> None:
    found = judged(Scanner(move=lambda years: -2.0 * years), 1)
    assert found.status == OUT and len(found.changed) == 3
    for chart in found.charts:
        assert chart.trend_hu.low < -2.0 < chart.trend_hu.high
        assert chart.change.shift_hu.value < -1.5


def test_drifts_of_two_hu_a_year_are_hardly_ever_missed() -> None:
    found = [judged(Scanner(move=lambda years: -2.0 * years), 100 + seed).status for seed in range(20)]
    assert found.count(OUT) == 20


def test_a_jump_is_dated_within_a_month() -> None:
    """A new tube on 1 March 2023: 4 HU lower."""
    since = []
    for seed in range(20):
        found = judged(Scanner(move=lambda years: -4.0 * (years >= 424 / 365.25)), 200 + seed)
        assert found.status == OUT
        since.append(found.changed[0].change.since)
    assert sum(month in ("2023-02", "2023-03", "2023-04") for month in since) >= 19
    assert since.count("2023-03") >= 15


@pytest.mark.slow
def test_steady_scanners_raise_no_more_alarms_than_the_rules_must() -> None:
    """200 scanners, 24 months of 30 people, 3 charts each, of which 21 months are judged.

    With centre and spread known a chart that uses beyond 3 SD and 8 on one side runs 152.7 months on average until it
    cries wolf (Champ and Woodall, Technometrics 1987;29:393); three charts and a trend at P < 0.0027 each then alarm in
    at most 1 - exp(-3 * (21 / 152.7 + 0.0027)) = 34 % of steady scanners. The baseline's own error widens the limits
    here, so that it must be well below: 13.5 % were seen.
    """
    found = [judged(Scanner(), 1000 + seed).status for seed in range(200)]
    assert found.count(OUT) / len(found) < 0.20
    assert found.count(TOO_FEW) == 0
    assert found.count(WATCH) / len(found) < 0.20


def test_what_a_shift_means_for_vbmd_is_slope_times_shift() -> None:
    """Two-point: slope k = 128 / 155, t = (140 - 50) / 155; muscle alone moves the value by -k (1 + t) of its shift."""
    stratum = Stratum("", "A", 120.0, "smooth")
    readings = [Reading(stratum, date(2022 + at // 12, at % 12 + 1, 15), PERSON | {"muscle": 50.0 + step + 5 * side}, 140.0)
                for at in range(12) for step in [4.0 * (at >= 6)] for side in (-1, 1) for _ in range(15)]
    found = judge_archive(Archive(tuple(readings), {}, len(readings)))[0]
    assert [chart.tissue for chart in found.changed] == ["muscle"]
    k, t = 128 / 155, 90 / 155
    assert found.changed[0].change.shift_hu.value == pytest.approx(4.0)
    assert found.effects["muscle"].line_mg_cm3 == pytest.approx(4 * k)
    assert found.effects["muscle"].alone_mg_cm3 == pytest.approx(-4 * k * (1 + t), rel=0.001)


def test_a_calibration_says_what_its_people_read() -> None:
    """All months 5 HU below the cohort's muscle: no month of the archive itself shows it."""
    cohort = LineCalibration(name="Site", scanner="Alpha 64", status="site", cohort_size=100, expected_muscle_hu=55.0,
                             muscle_spread_hu=5.5, expected_fat_hu=-105.0, fat_spread_hu=4.0, intercept_mg_cm3=8.0,
                             slope_mg_cm3_per_hu=0.8, intercept_variance=0.0, slope_variance=0.0, covariance=0.0,
                             residual_sd_mg_cm3=5.0)
    found = judged(Scanner("Alpha 64", months=4), 3, cohort)
    muscle = found.charts[0]
    assert found.calibrated and found.status == OUT and muscle.baseline.mean_hu == 55.0
    assert (muscle.change.pattern, muscle.change.since) == ("step", "2022-01")
    assert muscle.change.shift_hu.value == pytest.approx(-5.0, abs=1.5)
    assert found.effects["muscle"].line_mg_cm3 == pytest.approx(0.8 * muscle.change.shift_hu.value)
    assert found.effects["muscle"].alone_mg_cm3 == pytest.approx(0.0, abs=1e-9), "a line does not read muscle"
    other = judged(Scanner("Beta", months=4), 3, cohort)
    assert not other.calibrated and other.status == IN_CONTROL


# --- records -----------------------------------------------------------------------------------------------

def test_records_that_say_nothing_of_the_scanner_are_counted(tmp_path: Path) -> None:
    day, without_scanner = date(2022, 5, 3), Scanner(model="")
    records = {
        "good": synthetic.a_record(day, PERSON, uid="1.1"),
        "again": synthetic.a_record(day, PERSON, uid="1.1"),
        "contrast": synthetic.a_record(day, PERSON, Scanner(), "1.2", "contrast"),
        "perhaps": synthetic.a_record(day, PERSON, Scanner(), "1.3", "contrast_possible"),
        "no date": synthetic.a_record(None, PERSON, uid="1.4"),
        "no scanner": synthetic.a_record(day, PERSON, without_scanner, "1.5"),
        "paraspinal": synthetic.a_record(day, PERSON, uid="1.6", muscle="paraspinal"),
        "refused": synthetic.a_record(day, PERSON, uid="1.7") | {"status": "refused"},
        "old": {key: value for key, value in synthetic.a_record(day, PERSON, uid="1.8").items() if key != "aorta"},
        "future": synthetic.a_record(day, PERSON, uid="1.9") | {"schema_version": 99},
        "torn": {"schema_version": 1},
    }
    for name, record in records.items():
        synthetic.write_record(tmp_path / name, record)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "measurement.json").write_text('{"schema_ver', encoding="utf-8")
    archive = read_archive([tmp_path, tmp_path / "good"])
    assert archive.left_out == {
        "measured more than once": 1, "contrast given, or possible": 2, "date not known": 1,
        "scanner or tube voltage not known": 1, "muscle not read in the psoas": 1, "refused": 1, "not a whole record": 2,
        "written by a newer program": 1}
    assert sorted(len(reading.hu) for reading in archive.readings) == [2, 3], "an old record has no aorta"
    assert archive.records == len(archive.readings) + sum(archive.left_out.values()) == 12


def test_two_series_of_a_study_are_one_person_and_two_kernels_two_charts(tmp_path: Path) -> None:
    for place, (kernel, series) in enumerate((("Br40", "a"), ("Br40", "b"), ("Br64", "c"))):
        record = synthetic.a_record(date(2022, 1, 1), PERSON, Scanner(kernel=kernel), "1.1")
        record["acquisition"]["series_uid"] = series
        synthetic.write_record(tmp_path / str(place), record)
    assert {stratum.kernel: len(found) for stratum, found in read_archive([tmp_path]).strata().items()} == {
        "smooth": 1, "sharp": 1}


# --- the command -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def an_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanner that loses 4 HU a year and one of too few people."""
    folder = tmp_path_factory.mktemp("archive")
    synthetic.write_archive(folder / "a", Scanner(months=14, move=lambda years: -4.0 * years), 1)
    synthetic.write_archive(folder / "b", Scanner("Rare 4", people=1.0, months=12), 2)
    return folder


def test_the_command_writes_page_numbers_and_charts(an_archive: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing of a study's path or UIDs."""
    assert main(["drift", str(an_archive), "-o", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    assert [found["status"] for found in record["strata"]] == [OUT, TOO_FEW]
    assert "Alpha 64, 120 kV, smooth kernel: drifted" in printed and "too few studies" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"drift.json", "drift.html", "drift.csv", "chart_1.png",
                                                          "chart_1.svg"}
    rows = (tmp_path / "drift.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + sum(len(chart["months"]) for found in record["strata"] for chart in found["charts"])
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page stands alone"
    for path in tmp_path.iterdir():
        text = path.read_bytes().decode("utf-8", errors="replace")
        assert "2.25." not in text and str(an_archive) not in text and not re.search(r"/0\d{4}/", text), path.name


def test_months_of_the_baseline_can_be_given(an_archive: Path) -> None:
    found = judge_archive(read_archive([an_archive / "a"]), ("2022-04", "2022-06"))[0].charts[0]
    assert (found.baseline.first, found.baseline.last) == ("2022-04", "2022-06")
    assert [month.month for month in found.months if month.in_baseline] == ["2022-04", "2022-05", "2022-06"]
    assert not any(month.judged for month in found.months[:6]) and found.status == OUT


@pytest.mark.parametrize("arguments", [
    lambda folder: [str(folder / "nowhere")], lambda folder: [str(folder)],
    lambda folder: [str(folder / "in"), "--baseline", "2022"],
    lambda folder: [str(folder / "in"), "--baseline", "2022-05,2022-04"],
    lambda folder: [str(folder / "in"), "--calibration", str(folder / "plain.json")],
], ids=["no folder", "no records", "half a baseline", "baseline backwards", "a calibration without people"])
def test_what_cannot_be_used_is_said(arguments: Callable[[Path], list[str]], tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path)
    if len(given) > 1:
        synthetic.write_record(tmp_path / "in", synthetic.a_record(date(2022, 1, 1), PERSON))
        save_calibration(TwoPointCalibration(), tmp_path / "plain.json")
    assert main(["drift", *given, "-o", str(tmp_path / "out")]) == 2
    assert "lowdosebmd: " in capsys.readouterr().err and not (tmp_path / "out").exists()
