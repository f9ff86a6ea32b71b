"""`lowdosebmd calibrate`, and `agree --calibration`, as a site meets them: files, sentences, and a test set left alone."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.calibration import TwoPointCalibration, load_calibration, save_calibration
from LowDoseBMDLib.calibration_choice import TITLES
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.cohort import read_cohort
from LowDoseBMDLib.report.calibrate_page import render_page

FIGURES = ("figure_1_predicted", "figure_2_residual", "figure_3_tissue")


def draw(path: Path, *options: str) -> Path:
    assert main(["cohort", "-o", str(path), "--kind", "paper-like", *options]) == 0
    return path


def calibrate(cohort: Path, out: Path, *options: str) -> int:
    return main(["calibrate", str(cohort), "-o", str(out), *options])


def agree(cohort: Path, out: Path, calibration: Path) -> int:
    return main(["agree", str(cohort), "-o", str(out), "--calibration", str(calibration)])


def rewritten(path: Path, out: Path, change: object) -> Path:
    """The cohort file with every row, a dict, put through change."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [change(row) for row in reader]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.fixture(scope="module")
def a_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("cohort") / "people.csv", "--count", "400")


@pytest.fixture(scope="module")
def a_report(a_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report; the calibration beside it."""
    folder = tmp_path_factory.mktemp("calibration")
    assert calibrate(a_cohort, folder / "site.json", "--report", str(folder / "report")) == 0
    return folder / "report"


def numbers(report: Path) -> dict:
    return json.loads((report / "calibrate.json").read_text(encoding="utf-8"))


# --- what is written ---------------------------------------------------------------------------------------------

def test_the_calibration_can_be_used_and_says_where_it_comes_from(a_report: Path) -> None:
    model = load_calibration(a_report.parent / "site.json")
    assert (model.kind, model.status, model.cohort_size) == ("line", "synthetic", 280)
    assert (model.kvp, model.scanner) == (120.0, "synthetic CT")
    assert model.residual_sd_mg_cm3 > 3 and model.reference == "QCT densities of people.csv"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", model.date) and "(synthetic people)" in model.name


def test_the_report_holds_table_figures_recommendation_and_warnings(a_report: Path) -> None:
    assert {path.name for path in a_report.iterdir()} == {"calibrate.html", "calibrate.json"} | {
        f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    html = (a_report / "calibrate.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == len(FIGURES) and not re.search(r"""\b(src|href)=(?!"data:)""", html)
    for words in (*TITLES.values(), "Recommended: Site line.", "must not be used on patients",
                  "cannot be used to rule out low bone", "The test set was not used", "lowdosebmd drift",
                  "as no line of a QCT phantom was given"):
        assert words in html, words


def test_the_numbers_are_those_of_the_people_left_out(a_report: Path, a_cohort: Path) -> None:
    record, people = numbers(a_report), read_cohort(a_cohort).of_split("training")
    assert record["training"]["people"] == len(people)
    assert record["training"]["below"] == np.sum(people.reference_mg_cm3 < 80)
    rows = {row["kind"]: row for row in record["models"]}
    assert list(rows) == list(TITLES) and record["recommended"] == record["chosen"] == "line" and record["failed"] == {}
    difference = people.measured_mg_cm3 - people.reference_mg_cm3
    literature = rows["literature"]["performance"]
    assert literature["bland_altman"]["bias"]["value"] == pytest.approx(difference.mean(), abs=0.01)
    assert literature["rmse_mg_cm3"] == pytest.approx(np.sqrt(np.mean(difference**2)), abs=0.01)
    assert literature["slope"] == pytest.approx(np.polyfit(people.reference_mg_cm3, people.measured_mg_cm3, 1)[0], abs=1e-3)
    ill = people.reference_mg_cm3 < 80
    assert literature["diagnostic"]["tp"] == np.sum(people.measured_mg_cm3[ill] < 80)
    assert record["calibration"] == json.loads((a_report.parent / "site.json").read_text())


def test_nothing_of_the_test_set_is_in_the_file(a_cohort: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """Every value of every test person is another; the calibration is the same to the last digit, and so is the report."""
    rng = np.random.default_rng(1)

    def change(row: dict) -> dict:
        if row["split"] == "training":
            return row
        return row | {"id": f"other {rng.random()}", "reference_mg_cm3": rng.uniform(10, 200), "kvp": 80,
                      "spine_hu": rng.uniform(0, 300), "muscle_hu": rng.uniform(0, 90), "fat_hu": rng.uniform(-150, -50),
                      "measured_mg_cm3": rng.uniform(0, 90), "scanner": "another", "age_years": 20, "sex": "",
                      "height_cm": "", "weight_kg": 90, "synthetic": "no"}

    changed = rewritten(a_cohort, tmp_path / "people.csv", change)
    said = []
    for name, file in (("a", a_cohort), ("b", changed)):
        capsys.readouterr()
        assert calibrate(file, tmp_path / f"{name}.json", "--model", "regression", "--json") == 0
        said.append(capsys.readouterr().out)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert said[0] == said[1]


def test_a_training_person_moves_it(a_cohort: Path, tmp_path: Path) -> None:
    first = read_cohort(a_cohort).of_split("training").id[0]
    changed = rewritten(a_cohort, tmp_path / "people.csv",
                        lambda row: row | {"reference_mg_cm3": 150} if row["id"] == first else row)
    for name, file in (("a", a_cohort), ("b", changed)):
        assert calibrate(file, tmp_path / f"{name}.json") == 0
    assert (tmp_path / "a.json").read_bytes() != (tmp_path / "b.json").read_bytes()


# --- options -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model", ["line", "regression", "shrunk-two-point", "two-point", "rescaled"])
def test_another_model_can_be_asked_for_and_that_is_said(model: str, a_cohort: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(a_cohort, tmp_path / "site.json", "--model", model, "--name", "Our CT") == 0
    found = load_calibration(tmp_path / "site.json")
    assert found.kind == model.replace("-", "_") and found.name == "Our CT (synthetic people)"
    said = capsys.readouterr().out
    assert ("as was asked for, not the recommended Site line" in said) == (model != "line")
    assert "Traceback" not in said and "the test set was not used" in said


def test_the_phantoms_line_is_used_and_named(a_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(a_cohort, tmp_path / "site.json", "--model", "two-point", "--qct-line", "0.87,1.5", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    muscle = read_cohort(a_cohort).of_split("training").muscle_hu.mean()
    assert record["calibration"]["muscle_mg_cm3"] == pytest.approx(1.5 + 0.87 * muscle)
    assert record["qct_line"] == {"slope_mg_cm3_per_hu": 0.87, "intercept_mg_cm3": 1.5}
    assert any("the line of the QCT phantom, 0.87 mg/cm³ per HU and 1.5 mg/cm³" in text for text in record["statements"])


def test_columns_by_other_names_and_no_measured_density(a_cohort: Path, tmp_path: Path) -> None:
    def change(row: dict) -> dict:
        return {"id": row["id"], "Set": row["split"], "QCT": row["reference_mg_cm3"], "HU": row["spine_hu"],
                "muscle_hu": row["muscle_hu"], "fat_hu": row["fat_hu"]}

    file = rewritten(a_cohort, tmp_path / "ours.csv", change)
    assert calibrate(file, tmp_path / "site.json", "--columns", "split=Set,reference=QCT,spine=HU", "--kvp", "120") == 0
    assert load_calibration(tmp_path / "site.json").cohort_size == 280


REFUSED = {
    "no training set": (lambda row: row | {"split": "test"}, (), "none of the 400 people is of the training set"),
    "several voltages": (lambda row: row | {"kvp": 100 if row["id"].endswith("1") else 120}, (), "choose with --kvp 120"),
    "nobody has fat": (lambda row: row | {"fat_hu": ""}, (), "280 have no HU of fat"),
    "no column of fat": (lambda row: {key: value for key, value in row.items() if key != "fat_hu"}, (),
                         "there is no column 'fat_hu'"),
    "densities upside down": (lambda row: row | {"reference_mg_cm3": 250 - float(row["reference_mg_cm3"])}, (),
                              "no calibration can be fitted on these people"),
    "words for a line": (lambda row: row, ("--qct-line", "steep"), "--qct-line 'steep' is not two numbers"),
    "a falling line": (lambda row: row, ("--qct-line", "0,8"), "a QCT line of slope 0 and intercept 8 cannot be"),
    "a scanner that is not there": (lambda row: row, ("--scanner", "X"), "there are: 'synthetic CT'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(name: str, a_cohort: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    change, options, words = REFUSED[name]
    file = rewritten(a_cohort, tmp_path / "people.csv", change)
    assert calibrate(file, tmp_path / "site.json", "--report", str(tmp_path / "report"), *options) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("lowdosebmd: ") and "Traceback" not in said
    assert not (tmp_path / "site.json").exists() and not (tmp_path / "report").exists()


def test_a_calibration_is_never_written_over(a_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.json").write_text("mine")
    assert calibrate(a_cohort, tmp_path / "site.json") == 2
    assert "exists already" in capsys.readouterr().err and (tmp_path / "site.json").read_text() == "mine"


def test_text_that_is_html_stays_text(a_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = rewritten(a_cohort, tmp_path / "people.csv", lambda row: row | {"scanner": "<img src=x>"})
    assert calibrate(file, tmp_path / "site.json", "--json") == 0
    html = render_page(json.loads(capsys.readouterr().out), ())
    assert "<img src=x>" not in html and "&lt;img src=x&gt;" in html


# --- agree --calibration -------------------------------------------------------------------------------------------

def test_agree_compares_the_densities_of_a_calibration(a_report: Path, a_cohort: Path, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert agree(a_cohort, tmp_path / "out", a_report.parent / "site.json") == 0
    record = json.loads((tmp_path / "out" / "agreement.json").read_text(encoding="utf-8"))
    model, test = load_calibration(a_report.parent / "site.json"), read_cohort(a_cohort).of_split("test")
    predicted = model.intercept_mg_cm3 + model.slope_mg_cm3_per_hu * test.spine_hu
    found = record["sets"]["test"]
    assert found["bland_altman"]["bias"]["value"] == pytest.approx(np.mean(predicted - test.reference_mg_cm3))
    sd = np.sqrt(model.residual_sd_mg_cm3**2 + model.intercept_variance + test.spine_hu**2 * model.slope_variance
                 + 2 * test.spine_hu * model.covariance)
    assert found["coverage"]["count"] == np.sum(np.abs(predicted - test.reference_mg_cm3) <= 1.959964 * sd)
    assert found["coverage"]["of"] == 120 and found["coverage"]["wilson"]["low"] > 0.85
    assert record["calibration"]["file"] == "site.json" and record["calibration"]["kind"] == "line"
    said, html = capsys.readouterr().out, (tmp_path / "out" / "agreement.html").read_text(encoding="utf-8")
    for text in (said, html):
        assert "computed from the cohort&#39;s HU" in text or "computed from the cohort's HU" in text
    assert "QCT within 95 % interval" in html and "QCT within the 95 % interval" in said


def test_who_has_no_hu_is_left_out_and_another_scanner_is_told(a_cohort: Path, tmp_path: Path) -> None:
    ids = set(read_cohort(a_cohort).id[:7])
    file = rewritten(a_cohort, tmp_path / "people.csv", lambda row: row | ({"muscle_hu": ""} if row["id"] in ids else {}))
    save_calibration(TwoPointCalibration(scanner="Somatom X"), tmp_path / "two.json")
    assert agree(file, tmp_path / "out", tmp_path / "two.json") == 0
    record = json.loads((tmp_path / "out" / "agreement.json").read_text(encoding="utf-8"))
    assert record["people"]["paired"] == 393 and record["calibration"]["without_hu"] == 7
    sentences = " ".join(record["findings"])
    assert "7 of 400 people have not the HU for that and are left out" in sentences
    assert "400 of 400 people were scanned with another tube voltage or scanner" in sentences


def test_agree_without_hu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_calibration(TwoPointCalibration(), tmp_path / "two.json")
    assert main(["cohort", "-o", str(tmp_path / "c.csv"), "--kind", "paper-numbers"]) == 0
    assert agree(tmp_path / "c.csv", tmp_path / "out", tmp_path / "two.json") == 2
    assert "there is no column 'spine_hu'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
