"""`lowdosebmd agree` and `lowdosebmd cohort` as a study's statistician meets them: files, numbers, hostile tables."""

from __future__ import annotations

import csv
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.cohort import Cohort, read_cohort, write_cohort

FIGURES = ("figure_2_scatter_training", "figure_3_scatter_test", "figure_4_bland_altman_training",
           "figure_5_bland_altman_test", "figure_6_roc_training", "figure_7_roc_test")
TEST_FIGURES = tuple(name for name in FIGURES if name.endswith("_test"))
SVG = "{http://www.w3.org/2000/svg}"
PUBLISHED = {"training": {"spearman": 0.957, "icc": 0.946, "bias": -1.425, "limits": (-21.90, 19.05), "auc": 0.986},
             "test": {"spearman": 0.955, "icc": 0.945, "bias": -1.23, "limits": (-21.51, 19.05), "auc": 0.975}}


def draw(path: Path, *options: str) -> Path:
    assert main(["cohort", "-o", str(path), *options]) == 0
    return path


def agree(file: Path, out: Path, *options: str) -> int:
    return main(["agree", str(file), "-o", str(out), *options])


def numbers(out: Path) -> dict:
    """agreement.json, which holds nothing that JSON does not know."""
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in agreement.json")

    return json.loads((out / "agreement.json").read_text(encoding="utf-8"), parse_constant=refuse)


def page(out: Path) -> str:
    return (out / "agreement.html").read_text(encoding="utf-8")


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def both_kinds(figures: tuple[str, ...]) -> set[str]:
    return {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def a_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    """A synthetic cohort of 300 people and the folder of its report."""
    folder = tmp_path_factory.mktemp("study")
    file = draw(folder / "cohort.csv", "--count", "300", "--seed", "4")
    assert agree(file, folder / "out") == 0
    return read_cohort(file), folder / "out"


@pytest.fixture(scope="module")
def a_paper_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 1406 pairs drawn to the published parameters."""
    folder = tmp_path_factory.mktemp("paper")
    assert agree(draw(folder / "cohort.csv", "--kind", "paper-numbers"), folder / "out") == 0
    return folder / "out"


def pairs(cohort: Cohort, split: str) -> tuple[np.ndarray, np.ndarray]:
    part = cohort.of_split(split)
    return part.measured_mg_cm3, part.reference_mg_cm3


# --- what is written ---------------------------------------------------------------------------------------

def test_table_1_and_figures_2_to_7_are_there_in_both_kinds(a_study: tuple[Cohort, Path]) -> None:
    _, out = a_study
    assert names(out) == {"agreement.json", "agreement.html", "table_1.csv"} | both_kinds(FIGURES)
    for name in FIGURES:
        assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert ElementTree.fromstring((out / f"{name}.svg").read_bytes()).tag.endswith("svg")


def test_the_page_stands_alone_and_says_what_it_is(a_study: tuple[Cohort, Path]) -> None:
    html = page(a_study[1])
    assert html.count("data:image/png;base64,") == len(FIGURES)
    assert not re.search(r"""\b(src|href)=(?!"data:)""", html)
    assert "All people of this cohort are synthetic" in html
    assert "research software, not a medical device" in html and "cannot be used to rule out low bone density" in html
    places = [html.index(f"Figure {number}. ") for number in range(2, 8)]
    assert html.index("Table 1.") < html.index("Table 2.") < places[0] and places == sorted(places)


def test_the_svg_of_a_figure_holds_every_person(a_study: tuple[Cohort, Path]) -> None:
    cohort, out = a_study
    for name, split in (("figure_3_scatter_test", "test"), ("figure_4_bland_altman_training", "training")):
        svg = ElementTree.fromstring((out / f"{name}.svg").read_bytes())
        cloud = next(group for group in svg.iter(f"{SVG}g") if group.get("id") == "PathCollection_1")
        assert len(list(cloud.iter(f"{SVG}use"))) == len(cohort.of_split(split))


def test_table_1_compares_the_sets(a_study: tuple[Cohort, Path]) -> None:
    cohort, out = a_study
    rows = {row[0]: row for row in csv.reader((out / "table_1.csv").read_text(encoding="utf-8").splitlines())}
    assert list(rows) == ["", "Age, years", "Men", "Height, cm", "Weight, kg", "BMI, kg/m²", "vBMD by QCT, mg/cm³",
                          "QCT below 80 mg/cm³"]
    assert rows[""][1:] == ["Training set (n = 210)", "Test set (n = 90)", "test", "P"]
    for place, split in ((1, "training"), (2, "test")):
        part = cohort.of_split(split)
        values, men = part.reference_mg_cm3, int(np.sum(part.sex == "M"))
        assert rows["vBMD by QCT, mg/cm³"][place] == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
        assert rows["Men"][place] == f"{men} ({100 * men / len(part):.1f} %)"
    men = [[int(np.sum(cohort.of_split(split).sex == sex)) for sex in "MF"] for split in ("training", "test")]
    assert rows["Men"][3] == f"χ² = {chi_square(np.array(men, float)):.3f}"


def chi_square(table: np.ndarray) -> float:
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(np.sum((table - expected) ** 2 / expected))


# --- the numbers -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("split", ["training", "test"])
def test_the_numbers_are_those_of_plain_arithmetic(a_study: tuple[Cohort, Path], split: str) -> None:
    cohort, out = a_study
    found = numbers(out)["sets"][split]
    measured, reference = pairs(cohort, split)
    difference = measured - reference
    bias, sd = difference.mean(), difference.std(ddof=1)
    result = found["bland_altman"]
    assert [result["lower"]["value"], result["bias"]["value"], result["upper"]["value"]] == \
        pytest.approx([bias - 1.96 * sd, bias, bias + 1.96 * sd], abs=1e-9)
    assert result["outside"] == sum(abs(value - bias) > 1.96 * sd for value in difference)
    assert result["slope"]["value"] == pytest.approx(np.polyfit((measured + reference) / 2, difference, 1)[0], abs=1e-9)
    assert found["icc_agreement"]["value"] == pytest.approx(icc(measured, reference), abs=1e-9)
    assert found["spearman"]["value"] == pytest.approx(np.corrcoef(ranks(measured), ranks(reference))[0, 1], abs=1e-9)
    assert found["roc"]["auc"]["value"] == pytest.approx(auc(measured, reference < 80), abs=1e-9)


def icc(measured: np.ndarray, reference: np.ndarray) -> float:
    """ICC(A,1) out of the sums of squares of a two-way table."""
    table = np.column_stack([measured, reference])
    n, k = table.shape
    people, methods, all_of_it = table.mean(1), table.mean(0), table.mean()
    rows = k * np.sum((people - all_of_it) ** 2) / (n - 1)
    columns = n * np.sum((methods - all_of_it) ** 2) / (k - 1)
    rest = np.sum((table - people[:, None] - methods + all_of_it) ** 2) / ((n - 1) * (k - 1))
    return float((rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n))


def ranks(values: np.ndarray) -> np.ndarray:
    return np.array([np.sum(values < value) + (np.sum(values == value) + 1) / 2 for value in values])


def auc(measured: np.ndarray, ill: np.ndarray) -> float:
    """Share of pairs of an ill and a well person in which the ill one measures lower, equals counting half."""
    apart = measured[~ill][None, :] - measured[ill][:, None]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


def test_the_training_sets_cut_off_is_held_against_the_test_set(a_study: tuple[Cohort, Path]) -> None:
    cohort, out = a_study
    sets = numbers(out)["sets"]
    cut = sets["training"]["cut_offs"]["specific"]["threshold"]
    measured, reference = pairs(cohort, "test")
    table = sets["test"]["trained_specific"]
    assert table["cut"] == cut
    assert (table["tp"], table["fp"]) == (np.sum((measured < cut) & (reference < 80)),
                                          np.sum((measured < cut) & (reference >= 80)))
    assert sets["training"]["trained_specific"] is None


def test_from_the_papers_own_counts_exactly_its_percentages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    reference = np.concatenate([rng.uniform(40, 79, 38), rng.uniform(85, 200, 383)]).round(2)
    measured = np.concatenate([rng.uniform(50, 79, 16), rng.uniform(81, 95, 22), rng.uniform(82, 190, 383)]).round(2)
    write_cohort(tmp_path / "cohort.csv", Cohort.of(id=[f"p{number}" for number in range(421)],
                                                    reference_mg_cm3=reference, measured_mg_cm3=measured))
    assert agree(tmp_path / "cohort.csv", tmp_path / "out") == 0
    assert ("sensitivity 42.1 % (16/38), specificity 100 % (383/383), accuracy 94.8 % (399/421)"
            in capsys.readouterr().out)
    for share in ("42.1 % (16/38)", "100 % (383/383)", "94.8 % (399/421)", "100 % (16/16)", "94.6 % (383/405)"):
        assert page(tmp_path / "out").count(share) >= 3, "this cohort's, in two tables, and the published one"
    assert "misses 22 of 38 people" in page(tmp_path / "out")
    assert "synthetic" not in page(tmp_path / "out").split("</style>")[1]


@pytest.mark.parametrize("split", ["training", "test"])
def test_numbers_drawn_to_the_papers_parameters_give_the_papers_table(a_paper_study: Path, split: str) -> None:
    """Within four standard errors of the smaller set, or as far as the printed AUC leaves what the others imply."""
    found, published = numbers(a_paper_study)["sets"][split], PUBLISHED[split]
    assert found["n"] == {"training": 985, "test": 421}[split]
    assert found["spearman"]["value"] == pytest.approx(published["spearman"], abs=0.02)
    assert found["icc_agreement"]["value"] == pytest.approx(published["icc"], abs=0.02)
    result = found["bland_altman"]
    assert result["bias"]["value"] == pytest.approx(published["bias"], abs=2.0)
    assert (result["lower"]["value"], result["upper"]["value"]) == pytest.approx(published["limits"], abs=3.5)
    assert found["roc"]["auc"]["value"] == pytest.approx(published["auc"], abs=0.025)
    assert 0.03 < result["outside"] / result["n"] < 0.08
    assert 0.35 < found["diagnostic"]["sensitivity"]["value"] < 0.80


def test_the_papers_slips_are_not_repeated(a_paper_study: Path) -> None:
    html = page(a_paper_study)
    assert "5.2 % (51/985)" in html and "5.7 % (24/421)" in html
    assert "0.052" not in html and "0.057" not in html and "51/421" not in html
    assert "proportional bias, low densities read high and high ones low" in html
    assert "Training set (n = 985)" in html and "Test set (n = 421)" in html


# --- the user's own tables ---------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
REFERENCE = RNG.normal(120, 34, 60).round(1)
MEASURED = (REFERENCE + RNG.normal(0, 9, 60)).round(1)


def table(path: Path, reference: list, measured: list, **columns: list) -> Path:
    rows = [["id", "reference", "measured", *columns]]
    rows += [[f"p{number}", *row] for number, row in enumerate(zip(reference, measured, *columns.values(), strict=True))]
    path.write_text("\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    return path


def with_gaps(values: np.ndarray, every: int) -> list:
    return ["" if number % every == 0 else value for number, value in enumerate(values)]


POOR = {
    "people without one density": (with_gaps(REFERENCE, 3), MEASURED, {}, "20 of 60 people lack one", TEST_FIGURES),
    "nine people": (REFERENCE[:9], MEASURED[:9], {}, "9 values of the measured density are too few", ()),
    "nobody below the limit": (REFERENCE + 100, MEASURED + 100, {}, "nobody is below 80", TEST_FIGURES[:2]),
    "everybody below the limit": (REFERENCE / 3, MEASURED / 3, {}, "everybody is below 80", TEST_FIGURES[:2]),
    "one value for everybody": (REFERENCE, [100] * 60, {}, "every value of the measured density is 100", ()),
    "too small a training set": (REFERENCE, MEASURED, {"split": ["training"] * 5 + ["test"] * 55},
                                 "5 values of the measured density are too few", TEST_FIGURES),
    "a test set without densities": (REFERENCE, with_gaps(MEASURED[:0], 1) + [*MEASURED[:50], *[""] * 10],
                                     {"split": ["training"] * 50 + ["test"] * 10}, "0 values of the measured density",
                                     tuple(name for name in FIGURES if name.endswith("_training"))),
    "the reference itself": (REFERENCE, REFERENCE, {}, "", TEST_FIGURES),
    "densities upside down": (REFERENCE, 250 - MEASURED, {}, "do not rise together", TEST_FIGURES),
}
SOME_STATISTIC_MISSING = {name for name in POOR if name not in ("people without one density", "the reference itself")}


@pytest.mark.parametrize("name", POOR)
def test_a_poor_table_is_told_what_it_lacks(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, measured, columns, sentence, figures = POOR[name]
    file = table(tmp_path / "cohort.csv", list(reference), list(measured), **columns)
    assert agree(file, tmp_path / "out") == (1 if name in SOME_STATISTIC_MISSING else 0)
    assert sentence in capsys.readouterr().out
    assert sentence in page(tmp_path / "out")
    assert {file for file in names(tmp_path / "out") if file.startswith("figure")} == both_kinds(figures)
    assert numbers(tmp_path / "out")["schema_version"] == 1


REFUSED = {
    "no density of anybody": (",".join, "nobody in the cohort has both"),
    "infinity": (lambda row: ",".join([row[0], "inf", row[2]]), "'inf' is not a number"),
    "the same id twice": (lambda row: ",".join(["p1", *row[1:]]), "has the id 'p1' of row"),
    "words": (lambda row: ",".join([row[0], "high", row[2]]), "row 2 column 'reference'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(name: str, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    change, sentence = REFUSED[name]
    rows = [[f"p{number}", "" if name == "no density of anybody" else "100", "90"] for number in range(20)]
    (tmp_path / "cohort.csv").write_text("\n".join(["id,reference,measured", *map(change, rows)]), encoding="utf-8")
    assert agree(tmp_path / "cohort.csv", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_table_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "picture.csv").write_bytes(bytes(range(256)))
    for name in ("empty.csv", "picture.csv", "absent.csv", "."):
        assert agree(tmp_path / name, tmp_path / "out") == 2
        assert capsys.readouterr().err.startswith("lowdosebmd: ")
    assert not (tmp_path / "out").exists()


def test_columns_by_other_names_and_text_that_is_html(tmp_path: Path) -> None:
    file = table(tmp_path / "<img src=x>.csv", list(REFERENCE), list(MEASURED))
    file.write_text(file.read_text().replace("id,reference,measured", "Id,QCT,<b>AI</b>"))
    assert agree(file, tmp_path / "out", "--columns", "reference=QCT,measured=<b>AI</b>") == 0
    assert "<img src=x>" not in page(tmp_path / "out") and "&lt;img src=x&gt;.csv" in page(tmp_path / "out")
    assert numbers(tmp_path / "out")["source"] == "<img src=x>.csv"


def test_a_file_without_split_is_a_test_set(tmp_path: Path) -> None:
    assert agree(table(tmp_path / "cohort.csv", list(REFERENCE), list(MEASURED)), tmp_path / "out") == 0
    assert list(numbers(tmp_path / "out")["sets"]) == ["test"]
    assert "The file holds no training set." in page(tmp_path / "out")
    assert "Training set" not in page(tmp_path / "out")


def test_nothing_of_an_older_report_stays(tmp_path: Path) -> None:
    both = ["training"] * 30 + ["test"] * 30
    agree(table(tmp_path / "a.csv", list(REFERENCE), list(MEASURED), split=both), tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    agree(table(tmp_path / "b.csv", list(REFERENCE), list(MEASURED)), tmp_path / "out")
    assert not any("training" in name for name in names(tmp_path / "out"))
    assert (tmp_path / "out" / "notes.txt").exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_the_way_to_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert agree(table(tmp_path / "cohort.csv", list(REFERENCE), list(MEASURED)), tmp_path / "out") == 2
    assert re.search(rf"package '{package}' is missing; install it with: \S+ -m pip install {package}",
                     capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_no_folder_for_the_results_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", str(table(tmp_path / "cohort.csv", list(REFERENCE), list(MEASURED)))]) == 2
    assert "give one with -o" in capsys.readouterr().err


def test_json_on_standard_output_is_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agree(table(tmp_path / "cohort.csv", list(REFERENCE), list(MEASURED)), tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out) == numbers(tmp_path / "out")


# --- making files ------------------------------------------------------------------------------------------

def test_the_template_is_written_once_and_refused_until_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", str(tmp_path / "mine.csv"), "--template"]) == 0
    header = (tmp_path / "mine.csv").read_text(encoding="utf-8").splitlines()[0]
    assert {"id", "split", "reference_mg_cm3", "measured_mg_cm3"} <= set(header.split(","))
    assert main(["agree", str(tmp_path / "mine.csv"), "--template"]) == 2
    assert agree(tmp_path / "mine.csv", tmp_path / "out") == 2
    assert "is the template's" in capsys.readouterr().err


def test_a_cohort_is_the_same_for_its_seed_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (draw(tmp_path / f"{name}.csv", "--count", "40", "--seed", seed).read_bytes()
                           for name, seed in (("a", "1"), ("b", "1"), ("c", "2")))
    assert first == again != other
    assert main(["cohort", "-o", str(tmp_path / "a.csv")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_bytes() == first


@pytest.mark.parametrize("options", [("--count", "0"), ("--seed", "-1"), ("--kind", "paper-numbers", "--count", "9")])
def test_a_cohort_that_cannot_be_drawn_is_refused(options: tuple[str, ...], tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cohort", "-o", str(tmp_path / "a.csv"), *options]) == 2
    assert capsys.readouterr().err.startswith("lowdosebmd: ")
    assert not (tmp_path / "a.csv").exists()


def test_every_kind_of_cohort_is_marked_synthetic(tmp_path: Path) -> None:
    for kind in ("literature", "paper-like", "paper-numbers"):
        assert read_cohort(draw(tmp_path / f"{kind}.csv", "--kind", kind)).synthetic.all()
