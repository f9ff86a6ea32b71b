"""A cohort file says what is wrong with it, comes back as it was written, and a drawn cohort is like the paper's."""

from __future__ import annotations

import csv
import logging
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.cohort import Cohort, CohortError, layout, parse_columns, read_cohort, template, write_cohort
from LowDoseBMDLib.cohort_columns import COLUMNS
from LowDoseBMDLib.cohort_synthesis import (
    PAPER_SCANNER,
    PAPER_SCATTER,
    Scanner,
    Scatter,
    paper_cohort,
    synthetic_cohort,
)

HEADER = "id,split,age_years,sex,reference_mg_cm3,measured_mg_cm3\n"


def a_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return path


def same(a: Cohort, b: Cohort) -> None:
    for entry in fields(Cohort):
        np.testing.assert_array_equal(getattr(a, entry.name), getattr(b, entry.name), err_msg=entry.name)


def complaint(folder: Path, text: str, **columns: str) -> str:
    with pytest.raises(CohortError) as caught:
        read_cohort(a_file(folder, text), columns)
    assert str(caught.value).startswith("cohort.csv: ")
    return str(caught.value)


# Reading

TWO = HEADER + "p1,training,57,F,125.6,124.2\np2,test,61,M,79.5,88\n"


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    cohort = read_cohort(a_file(tmp_path, TWO))
    assert cohort.id.tolist() == ["p1", "p2"] and cohort.split.tolist() == ["training", "test"]
    assert cohort.age_years.tolist() == [57, 61] and cohort.sex.tolist() == ["F", "M"]
    assert cohort.reference_mg_cm3.tolist() == [125.6, 79.5] and cohort.measured_mg_cm3.tolist() == [124.2, 88]
    assert cohort.paired.all() and not cohort.synthetic.any()
    assert np.isnan(cohort.height_cm).all() and cohort.scanner.tolist() == ["", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_spreadsheet_may_have_written_it(tmp_path: Path, encoding: str, ends: str, delimiter: str) -> None:
    text = TWO.replace(",", delimiter).replace("\n", ends)
    same(read_cohort(a_file(tmp_path, text, encoding)), read_cohort(a_file(tmp_path, TWO)))


def test_a_decimal_comma_is_read_between_semicolons(tmp_path: Path) -> None:
    cohort = read_cohort(a_file(tmp_path, "id;reference;measured\n1;125,6;79.5\n"))
    assert (cohort.reference_mg_cm3[0], cohort.measured_mg_cm3[0]) == (125.6, 79.5)
    text = complaint(tmp_path, 'id,reference,measured\n1,"125,6",79.5\n')
    assert "row 2" in text and "'reference'" in text and "'125,6' is not a number; write a decimal point" in text


def test_blank_rows_empty_cells_beyond_the_header_and_names_without_unit_do_no_harm(tmp_path: Path) -> None:
    cohort = read_cohort(a_file(tmp_path, " ID ,Age,Reference,MEASURED,,\n,,,,,\n\n 7 , 50 ,100, 90,,\n8,51,110,95,,,,\n"))
    assert cohort.id.tolist() == ["7", "8"] and cohort.age_years.tolist() == [50, 51]
    assert cohort.measured_mg_cm3.tolist() == [90, 95]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    text = "No.,QCT,AI,Sex,Set\nA,100,90,male,train\nB,110,95,女,测试集\n"
    cohort = read_cohort(a_file(tmp_path, text), parse_columns("id = no., reference=qct, measured_mg_cm3=AI,split=Set"))
    assert cohort.id.tolist() == ["A", "B"] and cohort.reference_mg_cm3.tolist() == [100, 110]
    assert cohort.sex.tolist() == ["M", "F"] and cohort.split.tolist() == ["training", "test"]


def test_a_mapping_goes_before_a_column_of_our_name(tmp_path: Path) -> None:
    path = a_file(tmp_path, "id,reference,QCT,measured\n1,1,100,90\n")
    assert read_cohort(path, {"reference": "QCT"}).reference_mg_cm3.tolist() == [100]


def test_what_is_not_used_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_cohort(a_file(tmp_path, "id,reference,measured,hight\n1,100,90,160\n"))
    assert "hight" in caplog.text


def test_unknown_is_counted_and_not_dropped(tmp_path: Path) -> None:
    rows = "1,test,,F,100,90\n2,test,NA,,n/a,95\n3,test,60,M,110,-\n"
    cohort = read_cohort(a_file(tmp_path, HEADER + rows))
    assert len(cohort) == 3 and cohort.paired.tolist() == [True, False, False]
    counts = cohort.missing
    assert (counts["age_years"], counts["sex"], counts["reference_mg_cm3"], counts["measured_mg_cm3"]) == (2, 1, 1, 1)
    assert counts["scanner"] == 3 and not {"id", "split", "synthetic"} & counts.keys()


def test_without_a_split_everybody_is_of_the_test_set(tmp_path: Path) -> None:
    cohort = read_cohort(a_file(tmp_path, "id,reference,measured\n1,100,90\n"))
    assert len(cohort.of_split("test")) == 1 and len(cohort.of_split("training")) == 0
    with pytest.raises(ValueError, match="no split 'train'; choose one of training, test"):
        cohort.of_split("train")


@pytest.mark.parametrize(("row", "words"), [
    ("p1,test,57,F,12x,90", "row 2 column 'reference_mg_cm3': '12x' is not a number; leave the cell empty"),
    ("p1,test,57,F,1_0,90", "'1_0' is not a number"), ("p1,test,57,F,inf,90", "'inf' is not a number"),
    ("p1,test,１２,F,100,90", "'１２' is not a number"), ("p1,test,57,F,1e999,90", "1e999 is not between -50 and 500"),
    ("p1,test,157,F,100,90", "row 2 column 'age_years': 157 is not between 0 and 120 (age in years)"),
    ("p1,validation,57,F,100,90", "row 2 column 'split': 'validation' is not known here (training or test"),
    ("p1,,57,F,100,90", "row 2 column 'split': '' is not known here"),
    ("p1,test,57,1,100,90", "row 2 column 'sex': '1' is not known here (F or M)"),
    (",test,57,F,100,90", "row 2 has no id"), ("p1,test,57,F,100", "row 2 has 5 cells, but the header has 6"),
    ("p1,test,57,F,100,90,5", "row 2 has 7 cells"), ("example-1,test,57,F,100,90", "row 2 is the template's example-1"),
    ("p1,test,57,F,100,90\n\np2,test,57,F,100,90\np1,test,58,F,101,91", "row 5 has the id 'p1' of row 2"),
    ('p1,test,57,F,100,"90', "is a quote left open?")])
def test_what_is_wrong_is_named_by_row_and_column(tmp_path: Path, row: str, words: str) -> None:
    assert words in complaint(tmp_path, HEADER + row + "\n")


@pytest.mark.parametrize(("text", "words"), [
    ("", "it holds no people"), (HEADER, "it holds no people"),
    ("id,QCT,AI\n1,2,3\n", "there is no column 'reference_mg_cm3' among id, QCT, AI; name the file's column for it, as in "
                           "reference=NAME"),
    ("id,reference,measured,Measured\n1,100,90,91\n", "the header has 'measured' twice"),
    ("id,reference,measured\n1,0.1256,0.1\n2,,0.09\n", "the column 'reference' is nowhere above 0.1256; give the "
                                                       "densities in mg/cm3"),
    ("id,reference,measured,height\n1,100,90,1.64\n", "1.64 is not between 50 and 250 (height in cm)"),
    ("id,reference,measured,muscle,fat\n1,100,90,-104,54\n", "column 'muscle': -104 is not between -100 and 200")])
def test_a_file_that_is_no_cohort_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in complaint(tmp_path, text)


@pytest.mark.parametrize("data", ["编号,参考".encode("gbk"), TWO.encode("utf-16"), b"PK\x03\x04\x14\0\x06\0"])
def test_another_encoding_or_a_workbook_is_refused_with_the_way_out(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cohort.csv"
    path.write_bytes(data)
    with pytest.raises(CohortError, match="not text in UTF-8; save it from the spreadsheet program as 'CSV UTF-8'"):
        read_cohort(path)


def test_many_wrong_cells_are_counted_first_rows_first(tmp_path: Path) -> None:
    text = complaint(tmp_path, HEADER + "".join(f"p{n},test,x,F,y,90\n" for n in range(10)))
    assert text.index("row 2 column 'age_years'") < text.index("row 2 column 'reference") < text.index("row 3")
    assert text.endswith("and 15 more") and "row 5" not in text


@pytest.mark.parametrize(("columns", "words"), [
    ({"reference": "QCT"}, "there is no column 'QCT' among id, split"), ({"bone": "QCT"}, "a cohort has no column 'bone'"),
    ({"height": "QCT"}, "there is no column 'QCT'"),
    ({"reference": "age_years", "measured": "age_years"}, "'age_years' is named for both")])
def test_a_mapping_that_does_not_fit_is_named(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    assert words in complaint(tmp_path, TWO, **columns)


@pytest.mark.parametrize(("text", "words"), [
    ("reference", "'reference' names no column; write for example reference=QCT"), ("=QCT", "names no column"),
    ("reference=", "names no column"), ("bone=QCT", "a cohort has no column 'bone'; it has id, split, age"),
    ("reference=A,reference_mg_cm3=B", "names the column reference_mg_cm3 a second time")])
def test_a_mapping_in_words_that_cannot_be_is_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_columns(text)


def test_no_mapping_in_words_is_none() -> None:
    assert parse_columns("") == {} and parse_columns("id=a=b") == {"id": "a=b"}


def test_day_kernel_and_standard_errors_are_read(tmp_path: Path) -> None:
    cohort = read_cohort(a_file(tmp_path, "id,reference,measured,spine,spine_se,kernel,scan_date\n"
                                          "1,100,90,120,1.5,B30f,20260331\n2,110,95,130,,,\n"))
    assert cohort.spine_se_hu[0] == 1.5 and np.isnan(cohort.spine_se_hu[1])
    assert cohort.kernel.tolist() == ["B30f", ""] and cohort.scan_date.tolist() == ["2026-03-31", ""]
    text = complaint(tmp_path, "id,reference,measured,scan_date\n1,100,90,31.3.2026\n")
    assert "row 2 column 'scan_date': '31.3.2026' is not a day; write it as 2026-03-31" in text


def test_only_the_columns_that_a_use_needs_must_be_there(tmp_path: Path) -> None:
    path = a_file(tmp_path, "id,reference,spine\n1,100,120\n")
    assert read_cohort(path, needed=("id", "reference_mg_cm3")).spine_hu.tolist() == [120]
    with pytest.raises(CohortError, match="there is no column 'fat_hu'"):
        read_cohort(path, needed=("id", "fat_hu"))


# Writing

def test_what_is_written_comes_back_alike(tmp_path: Path) -> None:
    cohort = replace(synthetic_cohort(30), age_years=np.where(np.arange(30) == 3, np.nan, 57.0))
    write_cohort(tmp_path / "out" / "cohort.csv", cohort)
    same(read_cohort(tmp_path / "out" / "cohort.csv"), cohort)


def test_columns_that_nobody_has_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    write_cohort(path, Cohort.of(id=["a"], reference_mg_cm3=[100.0], measured_mg_cm3=[90.5]))
    assert path.read_text() == "id,split,reference_mg_cm3,measured_mg_cm3\na,test,100,90.5\n"


@pytest.mark.parametrize("text", ["=1+1", "+49", "-7", "@SUM(A1)", " =1", "a;b,\"c\"", "两 CT"])
def test_no_text_runs_as_a_formula_and_all_come_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cohort.csv"
    cohort = Cohort.of(id=["1"], reference_mg_cm3=[-5.0], measured_mg_cm3=[9.0], scanner=[text], fat_hu=[-105.0])
    write_cohort(path, cohort)
    with path.open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert not row["scanner"].lstrip().startswith(("=", "+", "-", "@"))
    assert (row["fat_hu"], row["reference_mg_cm3"]) == ("-105", "-5")
    assert read_cohort(path).scanner[0] == text


@pytest.mark.parametrize(("value", "words"), [(np.inf, "reference_mg_cm3 of a is inf, not between -50 and 500"),
                                              (501.0, "reference_mg_cm3 of a is 501")])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_cohort(tmp_path / "cohort.csv", Cohort.of(id=["a"], reference_mg_cm3=[value], measured_mg_cm3=[1.0]))
    assert not list(tmp_path.iterdir())


def test_the_template_is_refused_until_its_examples_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    template(path)
    with pytest.raises(CohortError, match="row 2 is the template's example-1; remove it; row 3 is the template's"):
        read_cohort(path)
    path.write_text(path.read_text().replace("example-", "person "))
    cohort = read_cohort(path)
    assert len(cohort) == 2 and not cohort.missing and cohort.fat_hu.tolist() == [-104.8, -104.8]


def test_the_layout_tells_every_column() -> None:
    assert all(column.name in layout() and column.meaning in layout() for column in COLUMNS)


def test_arrays_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"age_years has the shape \(3,\); one entry for each of 2 people"):
        Cohort.of(id=["a", "b"], age_years=[1.0, 2.0, 3.0])


def test_body_mass_index() -> None:
    cohort = Cohort.of(id=["a", "b"], height_cm=[160.0, np.nan], weight_kg=[64.0, 64.0])
    np.testing.assert_allclose(cohort.bmi_kg_m2, [25.0, np.nan])


# Drawn cohorts

def near(values: np.ndarray, mean: float, sd: float) -> None:
    """Mean and SD within 3 standard errors, to which the published rounding and sampling come."""
    count = len(values)
    assert values.mean() == pytest.approx(mean, abs=3 * sd * np.sqrt(1 / count + 1 / 1406))
    assert values.std(ddof=1) == pytest.approx(sd, abs=3 * sd * np.sqrt(0.5 / count + 0.5 / 1406))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_synthetic_cohort_has_the_published_margins(seed: int) -> None:
    cohort = synthetic_cohort(seed=seed)
    assert len(cohort) == 1406 and len(cohort.of_split("training")) == 985 and cohort.synthetic.all()
    near(cohort.age_years, 57, 10)
    near(cohort.height_cm, 164, 7.8)
    near(cohort.weight_kg, 64.4, 10.8)
    near(cohort.bmi_kg_m2, 23.8, 2.7)
    near(cohort.reference_mg_cm3, 125.5, 34.3)
    assert cohort.age_years.min() >= 40 and cohort.age_years.max() <= 94
    assert np.mean(cohort.sex == "M") == pytest.approx(889 / 1406, abs=3 * 0.0182)
    assert np.mean(cohort.reference_mg_cm3 < 80) == pytest.approx(118 / 1406, abs=3 * 0.0105)


def test_what_is_measured_is_the_calibration_of_the_hu() -> None:
    calibration = TwoPointCalibration(muscle_mg_cm3=45, fat_mg_cm3=-82)
    cohort = synthetic_cohort(50, calibration=calibration)
    np.testing.assert_allclose(cohort.measured_mg_cm3, calibration.vbmd(cohort.spine_hu, cohort.muscle_hu, cohort.fat_hu),
                               atol=0.006)


def test_without_scatter_the_scanners_line_is_met_exactly() -> None:
    still = Scatter(0, 0, 0, muscle_hu_per_year=0)
    cohort = synthetic_cohort(200, scatter=still)
    # vBMD = 0.8 HU + 8; the two-point line runs through (54, 50) and (-105, -78).
    np.testing.assert_allclose(0.8 * cohort.spine_hu + 8, cohort.reference_mg_cm3, atol=0.005)
    np.testing.assert_allclose(50 + (cohort.spine_hu - 54) * 128 / 159, cohort.measured_mg_cm3, atol=0.006)


def test_an_offset_of_the_scanner_moves_hu_and_not_the_two_point_line() -> None:
    plain, moved = synthetic_cohort(200), synthetic_cohort(200, scanners=[Scanner("B", offset_hu=6.0)])
    for name in ("spine_hu", "muscle_hu", "fat_hu"):
        np.testing.assert_allclose(getattr(moved, name) - getattr(plain, name), 6, atol=0.011)
    np.testing.assert_allclose(moved.measured_mg_cm3, plain.measured_mg_cm3, atol=0.05)
    assert set(moved.scanner) == {"B"}


def test_people_stay_who_they_are_whatever_scans_them() -> None:
    plain = synthetic_cohort(100, seed=4)
    other = synthetic_cohort(100, seed=4, scatter=PAPER_SCATTER, scanners=[Scanner("A"), Scanner("B", kvp=100)])
    for name in ("id", "split", "age_years", "sex", "height_cm", "weight_kg", "reference_mg_cm3"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
    assert set(zip(other.scanner, other.kvp, strict=True)) == {("A", 120.0), ("B", 100.0)}


def test_a_seed_gives_one_cohort() -> None:
    same(synthetic_cohort(40, seed=5), synthetic_cohort(40, seed=5))
    same(paper_cohort(5), paper_cohort(5))
    assert not np.array_equal(synthetic_cohort(40, 5).reference_mg_cm3, synthetic_cohort(40, 6).reference_mg_cm3)


def test_an_error_of_the_reference_is_added_to_the_truth() -> None:
    truth, read = synthetic_cohort(5000), synthetic_cohort(5000, scatter=Scatter(reference_sd_mg_cm3=3.0))
    error = read.reference_mg_cm3 - truth.reference_mg_cm3
    assert error.mean() == pytest.approx(0, abs=3 * 3 / np.sqrt(5000))
    assert error.std() == pytest.approx(3, abs=3 * 3 / np.sqrt(10000))
    np.testing.assert_array_equal(read.measured_mg_cm3, truth.measured_mg_cm3)


def test_the_papers_scatter_gives_nearly_the_papers_result() -> None:
    cohort = synthetic_cohort(20000, scatter=PAPER_SCATTER, scanners=[PAPER_SCANNER])
    reference, measured = cohort.reference_mg_cm3, cohort.measured_mg_cm3
    low = reference < 80
    assert 0.94 < np.corrcoef(reference, measured)[0, 1] < 0.97
    assert measured.std() == pytest.approx(29, abs=1)
    assert abs(np.mean(measured - reference)) < 2
    assert 0.40 < np.mean(measured[low] < 80) < 0.65 and np.mean(measured[~low] >= 80) > 0.99


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_papers_cohort_has_the_papers_parameters(seed: int) -> None:
    cohort = paper_cohort(seed)
    assert cohort.synthetic.all() and cohort.paired.all() and cohort.missing.keys() >= {"spine_hu", "muscle_hu", "fat_hu"}
    for split, men, women, reference, measured, r in (("training", 624, 361, (125.6, 34.4), (124.2, 29.5), 0.958),
                                                      ("test", 265, 156, (125.2, 33.9), (124.0, 28.6), 0.959)):
        part = cohort.of_split(split)
        assert (np.sum(part.sex == "M"), np.sum(part.sex == "F")) == (men, women)
        near(part.reference_mg_cm3, *reference)
        near(part.measured_mg_cm3, *measured)
        z = np.arctanh(np.corrcoef(part.reference_mg_cm3, part.measured_mg_cm3)[0, 1])
        assert z == pytest.approx(np.arctanh(r), abs=3 / np.sqrt(len(part) - 3))


@pytest.mark.parametrize(("make", "words"), [
    (lambda: synthetic_cohort(1), "a cohort of 1 cannot be parted"), (lambda: synthetic_cohort(-5), "a cohort of -5"),
    (lambda: synthetic_cohort(9, seed=-1), "the seed is -1"), (lambda: synthetic_cohort(9, scanners=()), "needs a scanner"),
    (lambda: Scatter(muscle_sd_hu=-1), "muscle_sd_hu is -1"), (lambda: Scatter(spine_sd_hu=float("nan")), "spine_sd_hu"),
    (lambda: Scatter(muscle_with_bone=1.2), "between -1 and 1"), (lambda: Scanner(slope_mg_cm3_per_hu=0), "above 0")])
def test_what_cannot_be_drawn_is_named(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
