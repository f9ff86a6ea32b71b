"""Results table and charts in a real scene: right numbers, updated in place, the same after saving and reopening."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.rois import Mask, Rois

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from LowDoseBMDMRML.charts import chart_parts, remove_chart  # noqa: E402 - needs slicer
from LowDoseBMDMRML.plots import (  # noqa: E402 - needs slicer
    create_age_chart,
    create_histogram,
    update_age_chart,
    update_histogram,
)
from LowDoseBMDMRML.tables import RESULT_COLUMNS, ROWS, write_results  # noqa: E402 - needs slicer
from slicer_scene import reopened  # noqa: E402 - needs slicer

CALIBRATION = TwoPointCalibration()
"""Muscle +50 at 50 HU and fat -78 at -100 HU: one HU is 128/150 mg/cm3 in the torso."""
WOMAN_OF_61 = Acquisition(patient_age_years=61.0, patient_sex="F")


def measured(rois: Rois | None = None, **hu: float) -> Measurement:
    return measure(torso.ct(**hu), rois or torso.rois(), CALIBRATION)


def vbmd_of(hu: float) -> float:
    return 50.0 + (hu - 50.0) * 128.0 / 150.0


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def a_table_node(scene):
    return scene.AddNewNodeByClass("vtkMRMLTableNode", "Results")


@pytest.fixture
def a_histogram(scene):
    return create_histogram(scene)


@pytest.fixture
def an_age_chart(scene):
    return create_age_chart(scene)


def cell(table_node, region: str, column: str):
    """A number as float, a text as str."""
    array = table_node.GetTable().GetColumnByName(column)
    value = array.GetValue(ROWS.index(region))
    return value if isinstance(value, str) else float(value)


def row(table_node, region: str) -> dict:
    return {column.name: cell(table_node, region, column.name) for column in RESULT_COLUMNS}


def drawn(chart) -> dict[str, np.ndarray]:
    """(N, 2) points of every drawn series by its name in the legend."""
    found = {}
    for n in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(n)
        table = series.GetTableNode().GetTable()
        columns = [table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName())]
        points = [[column.GetValue(i) for column in columns] for i in range(table.GetNumberOfRows())]
        found[series.GetName()] = np.array(points)
    return found


def changes(nodes: list) -> Counter:
    """Counts the Modified events of nodes from now on, by class."""
    counts: Counter = Counter()
    for node in nodes:
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, _: counts.update([caller.GetClassName()]))
    return counts


# --- the results table -------------------------------------------------------------------------------------

def test_the_table_holds_the_numbers_of_the_measurement(a_table_node) -> None:
    result = measured()
    write_results(a_table_node, result)
    assert a_table_node.GetNumberOfRows() == len(ROWS) == 6
    assert [cell(a_table_node, region, "region") for region in ROWS] == ["mean", "T12", "L1", "L2", "muscle", "fat"]
    for name in ("T12", "L1", "L2"):
        assert cell(a_table_node, name, "vbmd") == round(vbmd_of(torso.HU[name]), 1)
        assert cell(a_table_node, name, "hu_mean") == torso.HU[name]
        assert cell(a_table_node, name, "hu_sd") == 0
        # 8 x 12 x 16 voxels of 1.5 x 1.5 x 2 mm
        assert cell(a_table_node, name, "volume") == round(8 * 12 * 16 * 4.5 / 1000, 1)
    assert cell(a_table_node, "mean", "vbmd") == round(vbmd_of((130 + 126) / 2), 1)
    ends = [cell(a_table_node, "mean", name) for name in ("vbmd_low", "vbmd_high")]
    assert ends == [round(end, 1) for end in result.mean_vbmd_ci95]
    assert [cell(a_table_node, region, "used") for region in ROWS] == ["", "no", "yes", "yes", "", ""]
    assert (cell(a_table_node, "muscle", "hu_mean"), cell(a_table_node, "fat", "hu_mean")) == (50, -100)
    assert cell(a_table_node, "muscle", "volume") == round(2 * 16 * 10 * 10 * 4.5 / 1000, 1)


def test_what_does_not_apply_is_no_number(a_table_node) -> None:
    write_results(a_table_node, measured())
    assert math.isnan(cell(a_table_node, "muscle", "vbmd")) and math.isnan(cell(a_table_node, "mean", "hu_mean"))


def test_every_number_stands_under_its_unit(a_table_node) -> None:
    write_results(a_table_node, measured())
    assert a_table_node.GetUseColumnTitleAsColumnHeader() and a_table_node.GetLocked()
    for column in RESULT_COLUMNS:
        array = a_table_node.GetTable().GetColumnByName(column.name)
        assert array.GetDataType() == (vtk.VTK_DOUBLE if column.numeric else vtk.VTK_STRING)
        assert a_table_node.GetColumnUnitLabel(column.name) == column.unit
        assert a_table_node.GetColumnTitle(column.name).endswith(f"({column.unit})" if column.numeric else column.title)
        assert a_table_node.GetColumnDescription(column.name)


def test_states_in_words(a_table_node) -> None:
    rois = torso.rois(**torso.incomplete("L2"))
    write_results(a_table_node, measured(rois))
    assert cell(a_table_node, "L1", "state") == "complete"
    assert cell(a_table_node, "L2", "state") == "its lower endplate lies outside the scan"
    assert math.isnan(cell(a_table_node, "L2", "vbmd"))
    assert [cell(a_table_node, name, "used") for name in ("T12", "L1", "L2")] == ["yes", "yes", "no"]
    assert cell(a_table_node, "mean", "state") == "normal (provisional), mean of T12 and L1"
    assert cell(a_table_node, "muscle", "state") == "Psoas left, Psoas right"


def test_a_readers_hand_is_told(a_table_node) -> None:
    rois = replace(torso.rois(), edited=frozenset({"trabecular_L1", "psoas_left"}), excluded={"T12": "old fracture"})
    write_results(a_table_node, measured(rois))
    assert cell(a_table_node, "L1", "state") == "edited by reader"
    assert cell(a_table_node, "T12", "state") == "left out: old fracture, complete"
    assert cell(a_table_node, "L2", "state") == "complete"
    assert cell(a_table_node, "muscle", "state") == "Psoas left, Psoas right, edited by reader"
    assert cell(a_table_node, "fat", "state") == "Subcutaneous fat, anterior"


def test_a_refusal_keeps_hu_and_says_why(a_table_node) -> None:
    write_results(a_table_node, measured())
    write_results(a_table_node, measured(torso.without(torso.rois(), "fat_anterior")))
    assert cell(a_table_node, "mean", "state").startswith("refused: No vBMD: no subcutaneous fat")
    assert math.isnan(cell(a_table_node, "mean", "vbmd")) and math.isnan(cell(a_table_node, "L1", "vbmd"))
    assert cell(a_table_node, "L1", "hu_mean") == 130
    assert cell(a_table_node, "fat", "state") == "not found" and math.isnan(cell(a_table_node, "fat", "hu_mean"))


def test_a_study_that_was_refused_before_any_region(a_table_node) -> None:
    flag = Flag("no_spine", Severity.REFUSED, "The scan ends above T12.")
    write_results(a_table_node, Measurement("refused", (), None, None, CALIBRATION, flags=(flag,)))
    assert cell(a_table_node, "mean", "state") == "refused: The scan ends above T12."
    assert [cell(a_table_node, name, "state") for name in ("T12", "muscle")] == ["not measured", "not found"]


def test_the_table_is_updated_in_place_and_told_once(a_table_node) -> None:
    write_results(a_table_node, measured())
    arrays = [a_table_node.GetTable().GetColumn(n) for n in range(len(RESULT_COLUMNS))]
    counts = changes([a_table_node])
    write_results(a_table_node, measured(L1=100.0))
    assert counts == {"vtkMRMLTableNode": 1}
    assert [a_table_node.GetTable().GetColumn(n) for n in range(len(RESULT_COLUMNS))] == arrays
    assert cell(a_table_node, "L1", "vbmd") == round(vbmd_of(100.0), 1)


def test_a_table_that_holds_something_else_is_made_anew(a_table_node) -> None:
    a_table_node.AddColumn().SetName("mine")
    a_table_node.AddEmptyRow()
    write_results(a_table_node, measured())
    assert a_table_node.GetNumberOfColumns() == len(RESULT_COLUMNS)
    assert cell(a_table_node, "L2", "hu_mean") == 126


def test_the_saved_table_reads_back_and_goes_on(scene, a_table_node, tmp_path: Path) -> None:
    write_results(a_table_node, measured())
    node = reopened(scene, tmp_path).GetFirstNodeByName("Results")
    for region in ROWS:
        assert row(node, region) == pytest.approx(row(a_table_node, region), nan_ok=True), region
    assert node.GetColumnTitle("vbmd") == "vBMD (mg/cm3)" and node.GetColumnUnitLabel("volume") == "cm3"
    arrays = [node.GetTable().GetColumn(n) for n in range(len(RESULT_COLUMNS))]
    write_results(node, measured(L1=100.0))
    assert [node.GetTable().GetColumn(n) for n in range(len(RESULT_COLUMNS))] == arrays
    assert cell(node, "L1", "hu_mean") == 100


# --- HU in the trabecular regions --------------------------------------------------------------------------

def test_all_voxels_of_a_uniform_level_lie_in_one_bin(a_histogram) -> None:
    update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
    series = drawn(a_histogram)
    assert list(series) == ["T12, mean 140 HU", "L1, mean 130 HU", "L2, mean 126 HU"]
    # Bins begin at -200 + 15 n: 140 HU lies in 130..145, 130 is the lower border of that bin, 126 in 115..130.
    for name, middle in (("T12, mean 140 HU", 137.5), ("L1, mean 130 HU", 137.5), ("L2, mean 126 HU", 122.5)):
        x, y = series[name].T
        assert y.sum() == y[x == middle] == 100


def test_shares_are_of_the_voxels_of_the_level(a_histogram) -> None:
    ct = torso.ct()
    box = torso.masks()["trabecular_L1"].box
    ct.hu[box][:2] = 20.0  # two of eight slices
    ct.hu[box][2] = 2000.0  # one beyond the drawn range
    update_histogram(a_histogram, ct, torso.rois(), measure(ct, torso.rois(), CALIBRATION))
    x, y = next(points for name, points in drawn(a_histogram).items() if name.startswith("L1")).T
    assert y[x == 17.5] == pytest.approx(25) and y[x == 137.5] == pytest.approx(62.5)
    assert y.sum() == pytest.approx(87.5)


def test_levels_have_the_registrys_colours_and_own_lines(a_histogram) -> None:
    update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
    series = [a_histogram.GetNthPlotSeriesNode(n) for n in range(3)]
    for node, name in zip(series, ("T12", "L1", "L2"), strict=True):
        np.testing.assert_allclose(node.GetColor(), np.array(STRUCTURES[f"trabecular_{name}"].colour) / 255)
    assert len({node.GetLineStyle() for node in series}) == 3
    assert "(HU)" in a_histogram.GetXAxisTitle() and "%" in a_histogram.GetYAxisTitle() and a_histogram.GetTitle()


def test_a_level_that_is_not_measured_is_not_drawn_until_it_is(a_histogram) -> None:
    rois = torso.without(torso.rois(**torso.incomplete("L2")), "trabecular_L2")
    update_histogram(a_histogram, torso.ct(), rois, measured(rois))
    assert [name[:3] for name in drawn(a_histogram)] == ["T12", "L1,"]
    update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
    assert [name[:3] for name in drawn(a_histogram)] == ["T12", "L1,", "L2,"]


def test_a_brush_stroke_redraws_the_histogram_once(scene, a_histogram) -> None:
    update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
    nodes = scene.GetNumberOfNodes()
    counts = changes([a_histogram, *chart_parts(a_histogram)])
    painted = torso.rois().with_masks({"trabecular_L1": Mask(np.ones((4, 12, 16), bool), (32, 24, 32))})
    ct = torso.ct()
    ct.hu[32:36] += 15.0
    update_histogram(a_histogram, ct, painted, measure(ct, painted, CALIBRATION))
    assert counts["vtkMRMLPlotChartNode"] == counts["vtkMRMLTableNode"] == 1
    assert "L1, mean 145 HU" in drawn(a_histogram) and scene.GetNumberOfNodes() == nodes


# --- vBMD and age ------------------------------------------------------------------------------------------

def test_a_patient_of_known_age_and_sex(an_age_chart) -> None:
    result = measured()
    update_age_chart(an_age_chart, result, WOMAN_OF_61)
    series = drawn(an_age_chart)
    assert not [name for name in series if name.startswith("men")]
    ages, means = series["women, mean"].T
    # 60: 115 and 65: 100 mg/cm3, so 112 at 61.
    assert means[ages == 61] == pytest.approx(112) and (ages[0], ages[-1]) == (30, 80)
    borders = series["women, mean ± 26 (assumed)"]
    assert borders[borders[:, 0] == 61, 1] == pytest.approx([112 - 26, 112 + 26])
    np.testing.assert_allclose(series["osteoporosis below 80"][:, 1], 80)
    np.testing.assert_allclose(series["normal above 120"][:, 1], 120)
    point = series["this patient, 117 mg/cm3 at 61 years"]
    np.testing.assert_allclose(point, [[61, vbmd_of(128)]] * 2)
    np.testing.assert_allclose(series["95 % interval"], [[61, end] for end in result.mean_vbmd_ci95])


def test_the_chart_says_what_of_the_reference_is_published(an_age_chart) -> None:
    text = an_age_chart.GetXAxisTitle()
    for words in ("age (years)", "Cheng 2021", "Only the means at 30-34 and 80 years are published",
                  "between them interpolated", "SD assumed"):
        assert words in text
    assert an_age_chart.GetYAxisTitle() == "trabecular vBMD (mg/cm3)"


@pytest.mark.parametrize(("acquisition", "title"), [
    (WOMAN_OF_61, "vBMD and age"), (Acquisition(patient_age_years=61.0), "vBMD and age"),
    (Acquisition(patient_sex="M"), "vBMD and age: the patient's age is not known"),
    (Acquisition(patient_age_years=24.0), "vBMD and age: the reference covers 30 to 80 years")])
def test_the_title_says_what_is_missing(an_age_chart, acquisition: Acquisition, title: str) -> None:
    update_age_chart(an_age_chart, measured(), acquisition)
    assert an_age_chart.GetTitle() == title


@pytest.mark.parametrize(("acquisition", "sexes", "on_chart"), [
    (Acquisition(), {"women", "men"}, False), (Acquisition(patient_sex="M"), {"men"}, False),
    (Acquisition(patient_age_years=61.0), {"women", "men"}, True), (WOMAN_OF_61, {"women"}, True),
    (Acquisition(patient_age_years=90.0, patient_sex="M"), {"men"}, True)])
def test_what_is_drawn_follows_what_is_known(an_age_chart, acquisition: Acquisition, sexes: set, on_chart: bool) -> None:
    update_age_chart(an_age_chart, measured(), WOMAN_OF_61)
    update_age_chart(an_age_chart, measured(), acquisition)
    names = list(drawn(an_age_chart))
    assert {name.split(",")[0] for name in names if "mean" in name} == sexes
    assert ("95 % interval" in names, any(name.startswith("this patient") for name in names)) == (on_chart, on_chart)
    assert all(np.isfinite(points).all() for points in drawn(an_age_chart).values())


def test_the_oldest_are_shown_as_a_group(an_age_chart) -> None:
    update_age_chart(an_age_chart, measured(), Acquisition(patient_age_years=90.0, patient_sex="F"))
    assert "this patient, 117 mg/cm3 at 90 years or older" in drawn(an_age_chart)


def test_a_refused_study_has_no_point(an_age_chart) -> None:
    update_age_chart(an_age_chart, measured(), WOMAN_OF_61)
    update_age_chart(an_age_chart, measured(torso.without(torso.rois(), "fat_anterior")), WOMAN_OF_61)
    assert an_age_chart.GetTitle() == "vBMD and age: there is no mean vBMD"
    assert not [name for name in drawn(an_age_chart) if "patient" in name or "interval" in name]


# --- nodes -------------------------------------------------------------------------------------------------

def test_charts_reopen_as_they_were_and_go_on(scene, a_histogram, an_age_chart, tmp_path: Path) -> None:
    rois = torso.rois(**torso.incomplete("L2"))
    update_histogram(a_histogram, torso.ct(), rois, measured(rois))
    update_age_chart(an_age_chart, measured(rois), Acquisition())
    other = reopened(scene, tmp_path)
    assert other.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 2
    for chart in (a_histogram, an_age_chart):
        again = other.GetFirstNodeByName(chart.GetName())
        assert (again.GetTitle(), again.GetXAxisTitle()) == (chart.GetTitle(), chart.GetXAxisTitle())
        assert len(chart_parts(again)) == len(chart_parts(chart))
        before, after = drawn(chart), drawn(again)
        assert list(after) == list(before)
        for name, points in before.items():
            np.testing.assert_allclose(after[name], points, rtol=1e-5, err_msg=name)
    nodes = other.GetNumberOfNodes()
    update_histogram(other.GetFirstNodeByName(a_histogram.GetName()), torso.ct(), torso.rois(), measured())
    update_age_chart(other.GetFirstNodeByName(an_age_chart.GetName()), measured(), WOMAN_OF_61)
    assert len(drawn(other.GetFirstNodeByName(a_histogram.GetName()))) == 3 and other.GetNumberOfNodes() == nodes
    assert "this patient, 117 mg/cm3 at 61 years" in drawn(other.GetFirstNodeByName(an_age_chart.GetName()))


def test_two_studies_do_not_share_a_chart(scene, a_histogram) -> None:
    other = create_histogram(scene)
    update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
    update_histogram(other, torso.ct(L1=300.0), torso.rois(), measured(L1=300.0))
    assert "L1, mean 130 HU" in drawn(a_histogram) and "L1, mean 300 HU" in drawn(other)


def test_removal_leaves_nothing_behind(scene, tmp_path: Path) -> None:
    nodes = scene.GetNumberOfNodes()
    charts = [create_histogram(scene), create_age_chart(scene)]
    update_histogram(charts[0], torso.ct(), torso.rois(), measured())
    assert scene.WriteToMRB(str(tmp_path / "study.mrb"))  # gives the tables storage nodes
    for chart in charts:
        remove_chart(chart)
    assert scene.GetNumberOfNodes() == nodes


def test_a_part_that_was_deleted_by_hand_is_named(scene, a_histogram) -> None:
    scene.RemoveNode(a_histogram.GetNthNodeReference("LowDoseBMD.L1", 0))
    with pytest.raises(ValueError, match="lost its part 'L1'"):
        update_histogram(a_histogram, torso.ct(), torso.rois(), measured())
