"""Curves of a training run in a real scene: the numbers of the log, updated in place, no more points than can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDTrainerLib.training_log import TrainingLog, log_of

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from LowDoseBMDMRML.charts import chart_parts  # noqa: E402 - needs slicer
from LowDoseBMDTrainerMRML.curves import (  # noqa: E402 - needs slicer
    MOST_POINTS,
    Curves,
    create_curves,
    grouped,
    remove_curves,
    update_curves,
)


def a_log(*more: dict, steps: int = 4) -> TrainingLog:
    lines = [{"event": "start", "task": "bones", "steps": 100, "start_step": 0, "cases": {}, "device": "cpu"}]
    lines += [{"event": "step", "step": 10 * n, "loss": 1.0 / n, "seconds": n, "left_seconds": 9.0, "learning_rate": 1e-3}
              for n in range(1, steps + 1)]
    return log_of([*lines, *more])


def a_validation(step: int, **scores: dict[str, float]) -> dict:
    return {"event": "validation", "step": step, "loss": 0.5, "score": 0.1, **scores}


DICE_AT_20 = a_validation(20, dice={"vertebrae": 0.25, "ribs": 0.5})
DICE_AT_40 = a_validation(40, dice={"vertebrae": 0.75, "ribs": 0.625})


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


def drawn(chart) -> dict[str, list[tuple[float, float]]]:
    """Points of every drawn series by its name in the legend."""
    found = {}
    for n in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(n)
        table = series.GetTableNode().GetTable()
        x, y = (table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName()))
        found[series.GetName()] = [(x.GetValue(row), y.GetValue(row)) for row in range(table.GetNumberOfRows())]
    return found


def test_the_curves_are_the_numbers_of_the_log(scene) -> None:
    curves = create_curves(scene, "first try", a_log(DICE_AT_20, DICE_AT_40))
    assert drawn(curves.loss) == {"loss of training": [(10, 1.0), (20, 0.5), (30, 1 / 3), (40, 0.25)],
                                  "loss of validation": [(20, 0.5), (40, 0.5)]}
    assert drawn(curves.scores) == {"vertebrae, 0.75": [(20, 0.25), (40, 0.75)], "ribs, 0.62": [(20, 0.5), (40, 0.625)]}
    assert curves.scores.GetTitle() == "first try: Dice by class"


def test_a_run_that_goes_on_is_drawn_in_place(scene) -> None:
    curves = create_curves(scene, "run", a_log(DICE_AT_20))
    nodes, changes = scene.GetNumberOfNodes(), []
    curves.loss.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_args: changes.append(1))
    later = update_curves(curves, a_log(DICE_AT_20, DICE_AT_40, steps=5))
    assert later is curves and scene.GetNumberOfNodes() == nodes
    assert len(drawn(curves.loss)["loss of training"]) == 5 and len(drawn(curves.scores)["vertebrae, 0.75"]) == 2
    assert len(changes) <= 1, "drawn once"


def test_the_first_validation_brings_its_classes_and_their_unit(scene) -> None:
    curves = create_curves(scene, "run", a_log())
    assert drawn(curves.scores) == {} and curves.scores.GetTitle() == "run: no validation yet"
    chart = curves.scores
    curves = update_curves(curves, a_log(a_validation(40, keypoint_mm={"T12": 12.5, "L1": 8.0})))
    assert curves.scores is chart, "a view that shows it shows the scores too"
    assert drawn(curves.scores) == {"T12, 12.5 mm": [(40, 12.5)], "L1, 8.0 mm": [(40, 8.0)]}
    assert curves.scores.GetYAxisTitle() == "mean distance (mm)"
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 4


def test_many_steps_are_averaged_in_groups() -> None:
    steps, losses = grouped(range(1, 2 * MOST_POINTS + 2), [float(n % 2) for n in range(2 * MOST_POINTS + 1)])
    assert len(steps) <= MOST_POINTS and steps[0] == 3 and steps[-1] == 2 * MOST_POINTS + 1
    assert losses[0] == pytest.approx(1 / 3) and losses[1] == pytest.approx(2 / 3)
    assert [part.size for part in grouped([], [])] == [0, 0]


def test_a_score_that_is_not_known_leaves_a_gap(scene) -> None:
    curves = create_curves(scene, "run", a_log(DICE_AT_20, a_validation(40, dice={"ribs": 0.75})))
    points = drawn(curves.scores)["vertebrae, 0.25"]
    assert points[0] == (20, 0.25) and np.isnan(points[1][1])


def test_removing_leaves_nothing_behind_and_a_lost_part_is_said(scene) -> None:
    before = scene.GetNumberOfNodes()
    curves: Curves = create_curves(scene, "run", a_log(DICE_AT_20))
    assert curves.whole
    scene.RemoveNode(chart_parts(curves.loss)[0])
    with pytest.raises(ValueError, match="lost its part"):
        update_curves(curves, a_log(DICE_AT_20))
    remove_curves(curves)
    assert scene.GetNumberOfNodes() == before and not curves.whole
