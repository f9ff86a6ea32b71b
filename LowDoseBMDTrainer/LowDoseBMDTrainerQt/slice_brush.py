"""Brushes that Slicer's editor lacks, drawn by our own hand: square and adaptive ones, in the slice views."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from LowDoseBMDTrainerMRML.painting import SQUARE, Brush

AXES = {"Axial": 0, "Coronal": 1, "Sagittal": 2}
"""Across which axis of the CT a flat brush does not reach, by the orientation of a view."""

PRIORITY = 10.0
"""Of our observers; Slicer's own have 0."""

OUTLINE_COLOUR = (1.0, 0.85, 0.2)
CORNERS = 32
"""Of the outline of a round brush."""


class SliceBrush:
    """onDab(RAS mm, axis, begins) for each place that is painted. ``brush``: what it is now, None when it is off."""

    def __init__(self, onDab: Callable[[tuple[float, float, float], int, bool], None]) -> None:
        self._onDab = onDab
        self.brush: Brush | None = None
        self._painting = False
        self._observations: list[tuple[Any, int]] = []
        self._outlines: list[tuple[Any, Any]] = []
        self._last: tuple[int, int] | None = None

    def start(self, brush: Brush) -> None:
        """Paint with this brush from now on."""
        self.brush = brush
        if self._observations:
            return
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames() if manager is not None else ():
            self._watch(manager.sliceWidget(name))

    def stop(self) -> None:
        """Paint no longer."""
        self.brush, self._painting = None, False
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        for view, actor in self._outlines:
            _renderer(view).RemoveViewProp(actor)
            view.scheduleRender()
        self._observations, self._outlines = [], []

    def _watch(self, widget: Any) -> None:
        view, node = widget.sliceView(), widget.mrmlSliceNode()
        interactor, actor = view.interactor(), _outlineActor()
        _renderer(view).AddViewProp(actor)
        self._outlines.append((view, actor))
        for event, action in (("LeftButtonPressEvent", self._onPress), ("MouseMoveEvent", self._onMove),
                              ("LeftButtonReleaseEvent", self._onRelease), ("LeaveEvent", self._onLeave)):
            self._observe(interactor, event, lambda action=action: action(view, node, actor))

    def _observe(self, interactor: Any, event: str, action: Callable[[], None]) -> None:
        """Before the view's own tools, which hear nothing of a stroke: the one that takes a press keeps all that follows."""
        def heard(_caller: Any, _event: str) -> None:
            before = self._painting
            action()
            if before or self._painting:
                interactor.GetCommand(tags[0]).SetAbortFlag(1)

        tags = [interactor.AddObserver(event, heard, PRIORITY)]
        self._observations.append((interactor, tags[0]))

    def _onPress(self, view: Any, node: Any, _actor: Any) -> None:
        interactor = view.interactor()
        if not interactor.GetShiftKey() and not interactor.GetControlKey():
            self._painting = True
            self._paint(view, node, True)

    def _onMove(self, view: Any, node: Any, actor: Any) -> None:
        self._drawOutline(view, node, actor)
        if self._painting and tuple(view.interactor().GetEventPosition()) != self._last:
            self._paint(view, node, False)

    def _onRelease(self, _view: Any, _node: Any, _actor: Any) -> None:
        self._painting = False

    def _onLeave(self, view: Any, _node: Any, actor: Any) -> None:
        actor.SetVisibility(False)
        view.scheduleRender()

    def _paint(self, view: Any, node: Any, begins: bool) -> None:
        x, y = self._last = tuple(view.interactor().GetEventPosition())
        ras = node.GetXYToRAS().MultiplyPoint((x, y, 0.0, 1.0))
        self._onDab(tuple(ras[:3]), AXES.get(node.GetOrientation(), 0), begins)

    def _drawOutline(self, view: Any, node: Any, actor: Any) -> None:
        if self.brush is None:
            return
        x, y = view.interactor().GetEventPosition()
        radius = self.brush.diameter_mm / 2 * node.GetDimensions()[0] / max(node.GetFieldOfView()[0], 1e-6)
        _setOutline(actor, x, y, radius, self.brush.kind == SQUARE)
        actor.SetVisibility(True)
        view.scheduleRender()


def _renderer(view: Any) -> Any:
    return view.renderWindow().GetRenderers().GetFirstRenderer()


def _outlineActor() -> Any:
    data, mapper, actor = vtk.vtkPolyData(), vtk.vtkPolyDataMapper2D(), vtk.vtkActor2D()
    data.SetPoints(vtk.vtkPoints())
    data.SetLines(vtk.vtkCellArray())
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*OUTLINE_COLOUR)
    actor.SetVisibility(False)
    return actor


def _setOutline(actor: Any, x: float, y: float, radius: float, square: bool) -> None:
    """A closed line round a point of the view, in pixels."""
    count = 4 if square else CORNERS
    reach, turn = (radius * math.sqrt(2.0), math.pi / 4) if square else (radius, 0.0)
    points, lines = vtk.vtkPoints(), vtk.vtkCellArray()
    lines.InsertNextCell(count + 1)
    for n in range(count + 1):
        angle = turn + 2 * math.pi * n / count
        lines.InsertCellPoint(points.InsertNextPoint(x + reach * math.cos(angle), y + reach * math.sin(angle), 0.0))
    data = actor.GetMapper().GetInput()
    data.SetPoints(points)
    data.SetLines(lines)
