"""Charts in the scene: a plot chart node with its series and tables, updated in place.

A chart holds references to all its parts under roles of its own, so that they are found again in a scene that was saved
and reopened, also those that are not drawn now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLScene,
    vtkMRMLTableNode,
)

from .tables import Column, set_columns

ROLE = "LowDoseBMD."
"""Begins the roles under which a chart refers to its series and tables."""

LINE, DASHES, DASH_DOTS = (vtkMRMLPlotSeriesNode.LineStyleSolid, vtkMRMLPlotSeriesNode.LineStyleDash,
                           vtkMRMLPlotSeriesNode.LineStyleDashDot)

_TITLE_SIZE, _TEXT_SIZE = 14, 12
"""Font sizes in points: Slicer's own (20 and 16) leave little of a small view for the curves."""


@dataclass(frozen=True)
class Series:
    """How one series is drawn: its role, its table's role, columns of x and y, colour 0-255, line or marker."""

    role: str
    table: str
    x: str
    y: str
    colour: tuple[int, int, int]
    line: int = LINE
    width: float = 2.0
    marker: int = vtkMRMLPlotSeriesNode.MarkerStyleNone


def chart_parts(chart: vtkMRMLPlotChartNode) -> tuple[vtkMRMLNode, ...]:
    """The tables and series of a chart, drawn or not, tables first."""
    roles: list[str] = []
    chart.GetNodeReferenceRoles(roles)
    parts = [part for role in roles if role.startswith(ROLE) and (part := chart.GetNodeReference(role))]
    return tuple(sorted(parts, key=lambda part: part.IsA("vtkMRMLPlotSeriesNode")))


def remove_chart(chart: vtkMRMLPlotChartNode) -> None:
    """Take a chart with its series, tables and their storage nodes out of its scene."""
    scene = chart.GetScene()
    remove_parts(chart)
    scene.RemoveNode(chart)


def remove_parts(chart: vtkMRMLPlotChartNode) -> None:
    """Take the series, tables and their storage nodes of a chart out of its scene; views go on showing the chart."""
    scene, parts = chart.GetScene(), chart_parts(chart)
    storage = [part.GetStorageNode() for part in parts if part.IsA("vtkMRMLTableNode") and part.GetStorageNode()]
    chart.RemoveAllPlotSeriesNodeIDs()
    for node in (*reversed(parts), *storage):
        scene.RemoveNode(node)


@contextmanager
def one_change(chart: vtkMRMLPlotChartNode) -> Iterator[None]:
    """Chart and tables change together and are drawn once, also when something fails on the way."""
    nodes = [chart, *chart_parts(chart)]
    were_modifying = [node.StartModify() for node in nodes]
    try:
        yield
        for table in nodes:
            if table.IsA("vtkMRMLTableNode"):
                table.GetTable().Modified()
    finally:
        for node, was_modifying in reversed(list(zip(nodes, were_modifying, strict=True))):
            node.EndModify(was_modifying)


def part_of(chart: vtkMRMLPlotChartNode, role: str) -> vtkMRMLNode:
    """A table or series of a chart by its role. Raises ValueError when someone has deleted the part."""
    node = chart.GetNodeReference(ROLE + role)
    if node is None:
        raise ValueError(f"the chart {chart.GetName()!r} has lost its part {role!r}: remove it and make it anew")
    return node


def create_chart(scene: vtkMRMLScene, title: str, x_title: str, y_title: str) -> vtkMRMLPlotChartNode:
    """An empty chart; its points cannot be dragged."""
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetXAxisTitle(x_title)
    chart.SetYAxisTitle(y_title)
    chart.SetTitleFontSize(_TITLE_SIZE)
    chart.SetAxisTitleFontSize(_TEXT_SIZE)
    chart.SetLegendFontSize(_TEXT_SIZE)
    chart.SetEnablePointMoveAlongX(False)
    chart.SetEnablePointMoveAlongY(False)
    return chart


def create_table(chart: vtkMRMLPlotChartNode, role: str, name: str, columns: Iterable[Column],
                 rows: int) -> vtkMRMLTableNode:
    """A table of the chart, found again by its role."""
    table = chart.GetScene().AddNewNodeByClass("vtkMRMLTableNode", name)
    set_columns(table, tuple(columns), rows)
    table.SetLocked(True)
    chart.SetNodeReferenceID(ROLE + role, table.GetID())
    return table


def create_series(chart: vtkMRMLPlotChartNode, series: Series) -> vtkMRMLPlotSeriesNode:
    """A series of the chart, named after its role, which is not drawn yet."""
    node = chart.GetScene().AddNewNodeByClass("vtkMRMLPlotSeriesNode", series.role)
    node.SetAndObserveTableNodeID(part_of(chart, series.table).GetID())
    node.SetPlotType(vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetXColumnName(series.x)
    node.SetYColumnName(series.y)
    node.SetColor(*(c / 255 for c in series.colour))
    node.SetLineStyle(series.line)
    node.SetLineWidth(series.width)
    node.SetMarkerStyle(series.marker)
    chart.SetNodeReferenceID(ROLE + series.role, node.GetID())
    return node


def show_series(chart: vtkMRMLPlotChartNode, roles: Iterable[str]) -> None:
    """Draw these series and no others; nothing is touched when it is so already."""
    wanted = [part_of(chart, role).GetID() for role in roles]
    if [chart.GetNthPlotSeriesNodeID(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] != wanted:
        chart.RemoveAllPlotSeriesNodeIDs()
        for series_id in wanted:
            chart.AddAndObservePlotSeriesNodeID(series_id)
