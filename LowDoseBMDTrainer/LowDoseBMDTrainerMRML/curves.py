"""The curves of a training run as two charts in the scene: the loss, and Dice by class or error by keypoint.

Both are updated in place while the run goes on, so that a view that shows them follows by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDMRML.charts import (
    DASH_DOTS,
    DASHES,
    LINE,
    Series,
    create_chart,
    create_series,
    create_table,
    one_change,
    part_of,
    remove_chart,
    remove_parts,
    show_series,
)
from LowDoseBMDMRML.tables import NOT_KNOWN, Column, fill_numbers, set_columns
from LowDoseBMDTrainerLib.training_log import TrainingLog, Validation
from slicer import vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode, vtkMRMLScene

MOST_POINTS = 300
"""Points of the training loss that are drawn; more are averaged in groups, which steadies the line too."""

PALETTE = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""Okabe and Ito's, for colour-blind readers; for classes that are not in the registry."""
PALE = 3 * 180
"""Sum of red, green and blue above which a line is hardly seen on white: it is drawn darker. Judgement."""
LINES = (LINE, DASHES, DASH_DOTS)
"""Taken in turn, so that curves are told apart without colour too."""

ROOM_FOR_LEGEND = 1.4
"""Width of a chart, in planned steps: the legend stands top right, where good scores would be."""

TRAINING_COLOUR, VALIDATION_COLOUR = (110, 110, 110), (213, 94, 0)
DOTS, NO_MARKER = vtkMRMLPlotSeriesNode.MarkerStyleCircle, vtkMRMLPlotSeriesNode.MarkerStyleNone
"""A validation is a measurement: its points are marked, and a single one is seen."""
NO_LINE = vtkMRMLPlotSeriesNode.LineStyleNone
"""VTK complains of a line of one point."""
FEW_POINTS = 3
"""So few points of the training loss are marked too: a line of one point is not seen."""

_TRAINING = (Column("step", "Step"), Column("loss", "Loss", description="Mean over the steps since the last point"))
_VALIDATION = (Column("step", "Step"), Column("loss", "Loss", description="On cases that are not trained on"))
_LOSS_SERIES = (
    Series("loss of training", "training", "step", "loss", TRAINING_COLOUR),
    Series("loss of validation", "validation", "step", "loss", VALIDATION_COLOUR, DASHES, marker=DOTS),
)


@dataclass(frozen=True)
class Curves:
    """The charts of one training run. names: classes or levels that the scores are drawn of."""

    loss: vtkMRMLPlotChartNode
    scores: vtkMRMLPlotChartNode
    names: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nobody has removed a chart from the scene."""
        return self.loss.GetScene() is not None and self.scores.GetScene() is not None


def create_curves(scene: vtkMRMLScene, run: str, log: TrainingLog) -> Curves:
    """Both charts with their tables and series, all in the scene, and the log drawn. run: name, for the titles."""
    loss = create_chart(scene, f"{run}: loss", "step", "loss")
    for role, columns in (("training", _TRAINING), ("validation", _VALIDATION)):
        create_table(loss, role, f"{run}: loss of {role}", columns, 0)
    for series in _LOSS_SERIES:
        create_series(loss, series)
    scores = create_chart(scene, f"{run}: scores", "step", _score_axis(log))
    curves = Curves(loss, scores)
    _create_score_parts(curves, score_names(log))
    return update_curves(curves, log)


def update_curves(curves: Curves, log: TrainingLog) -> Curves:
    """Draw what the log says now; returns the curves, whose scores are of other classes when the log has others.

    Raises ValueError when a part of a chart has been deleted.
    """
    names = score_names(log)
    if curves.names != names:
        remove_parts(curves.scores)
        curves = replace(curves, names=names)
        _create_score_parts(curves, names)
    _update_loss(curves.loss, log)
    _update_scores(curves, log)
    return curves


def _create_score_parts(curves: Curves, names: tuple[str, ...]) -> None:
    create_table(curves.scores, "scores", curves.scores.GetName(), _score_columns(names), 0)
    for number, name in enumerate(names):
        create_series(curves.scores, Series(name, "scores", "step", name, _colour(name, number),
                                            LINES[number % len(LINES)], marker=DOTS))


def remove_curves(curves: Curves) -> None:
    """Take both charts with their parts out of the scene."""
    for chart in (curves.loss, curves.scores):
        if chart.GetScene() is not None:
            remove_chart(chart)


def score_names(log: TrainingLog) -> tuple[str, ...]:
    """Classes or levels that the log has scores of, in the order in which they first stand there."""
    return tuple(dict.fromkeys(name for entry in log.validations for name in (*entry.dice, *entry.keypoint_mm)))


def _update_loss(chart: vtkMRMLPlotChartNode, log: TrainingLog) -> None:
    steps, losses = grouped([point.step for point in log.points], [point.loss for point in log.points])
    with one_change(chart):
        _leave_room(chart, log)
        _fill(chart, "training", _TRAINING, {"step": steps, "loss": losses})
        _fill(chart, "validation", _VALIDATION, {"step": [entry.step for entry in log.validations],
                                                 "loss": [entry.loss for entry in log.validations]})
        part_of(chart, "loss of training").SetMarkerStyle(DOTS if len(log.points) <= FEW_POINTS else NO_MARKER)
        drawn = dict(zip(_LOSS_SERIES, (log.points, log.validations), strict=True))
        for series, values in drawn.items():
            part_of(chart, series.role).SetLineStyle(series.line if len(values) > 1 else NO_LINE)
        show_series(chart, [series.role for series, values in drawn.items() if values])


def _update_scores(curves: Curves, log: TrainingLog) -> None:
    chart = curves.scores
    with one_change(chart):
        chart.SetTitle(f"{chart.GetName().removesuffix(': scores')}: {_score_title(log)}")
        chart.SetYAxisTitle(_score_axis(log))
        _leave_room(chart, log)
        columns = {name: [_score(entry, name) for entry in log.validations] for name in curves.names}
        _fill(chart, "scores", _score_columns(curves.names), {"step": [entry.step for entry in log.validations], **columns})
        for number, (name, values) in enumerate(columns.items()):
            series = part_of(chart, name)
            series.SetName(f"{name}, {_last(values, log)}")
            series.SetLineStyle(LINES[number % len(LINES)] if len(values) > 1 else NO_LINE)
        show_series(chart, curves.names)


def _leave_room(chart: vtkMRMLPlotChartNode, log: TrainingLog) -> None:
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(0.0, ROOM_FOR_LEGEND * max(log.steps, log.step, 1))


def grouped(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points: groups of neighbours by their means, the step that of the last of each group."""
    size = -(-len(steps) // MOST_POINTS) or 1
    starts = np.arange(0, len(steps), size)
    if not starts.size:
        return np.zeros(0), np.zeros(0)
    ends = np.append(starts[1:], len(steps))
    return np.asarray(steps, float)[ends - 1], np.add.reduceat(np.asarray(values, float), starts) / (ends - starts)


def _fill(chart: vtkMRMLPlotChartNode, role: str, columns: tuple[Column, ...], values: dict[str, Sequence[float]]) -> None:
    table = part_of(chart, role)
    set_columns(table, columns, len(values["step"]))
    fill_numbers(table, values)


def _score(entry: Validation, name: str) -> float:
    return entry.dice.get(name, entry.keypoint_mm.get(name, NOT_KNOWN))


def _last(values: list[float], log: TrainingLog) -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "not found"
    return f"{known[-1]:.1f} mm" if _in_mm(log) else f"{known[-1]:.2f}"


def _in_mm(log: TrainingLog) -> bool:
    return any(entry.keypoint_mm for entry in log.validations)


def _score_title(log: TrainingLog) -> str:
    if not log.validations:
        return "no validation yet"
    return "distance of the keypoints" if _in_mm(log) else "Dice by class"


def _score_axis(log: TrainingLog) -> str:
    return "mean distance (mm)" if _in_mm(log) else "Dice"


def _score_columns(names: tuple[str, ...]) -> tuple[Column, ...]:
    return (Column("step", "Step"), *(Column(name, name) for name in names))


def _colour(name: str, number: int) -> tuple[int, int, int]:
    structure = STRUCTURES.get(name)
    if structure is None:
        return PALETTE[number % len(PALETTE)]
    pale = sum(structure.colour) > PALE
    return tuple(part * 3 // 5 for part in structure.colour) if pale else structure.colour
