"""The row of tools: each turns an effect of the Segment Editor on, or a brush of our own, with ITK-SNAP's way of brushes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDTrainerMRML.painting import ADAPTIVE, CLEAR, EVERYTHING, SQUARE, VISIBLE, Brush, Rules
from slicer.i18n import tr as _

from .editor import Editor
from .slice_brush import SliceBrush

ROUND, BALL, CUBE = "round", "ball", "cube"
"""Shapes of the brush, besides SQUARE."""

CURSOR, BRUSH, ERASE, INTERPOLATE, ISLANDS = "cursor", "brush", "erase", "interpolate", "islands"


@dataclass(frozen=True)
class Tool:
    """effect: of the Segment Editor, "" for none. parameters: of the effect, set when it is turned on. bare: it has no
    options of its own."""

    name: str
    effect: str
    parameters: tuple[tuple[str, str], ...] = ()
    bare: bool = False


TOOLS = (
    Tool(CURSOR, ""), Tool(BRUSH, "Paint", bare=True), Tool(ADAPTIVE, "", bare=True), Tool("polygon", "Draw", bare=True),
    Tool("snake", "Snake"), Tool(INTERPOLATE, "Fill between slices"),
    Tool("scalpel", "Scissors", (("Operation", "EraseInside"), ("Shape", "FreeForm"))), Tool(ERASE, "Erase", bare=True),
    Tool(ISLANDS, "Islands", (("Operation", "REMOVE_SMALL_ISLANDS"),)),
)


class ToolRow:
    """Buttons <tool>Button of ``ui``. onTool() after another tool was chosen. sliceBrush: paints what the editor cannot."""

    def __init__(self, ui: Any, editor: Editor, sliceBrush: SliceBrush, onTool: Callable[[], None]) -> None:
        self._ui, self._editor, self._sliceBrush, self._onTool = ui, editor, sliceBrush, onTool
        self.current, self._label, self._least = CURSOR, "", 1
        self._tools = {tool.name: tool for tool in TOOLS}
        for name, text in ((ROUND, _("round")), (SQUARE, _("square")), (BALL, _("ball, 3D")), (CUBE, _("cube, 3D"))):
            ui.shapeComboBox.addItem(text, name)
        for name in self._tools:
            self._button(name).connect("clicked(bool)", lambda _checked=False, name=name: self.choose(name))
        ui.shapeComboBox.connect("currentIndexChanged(int)", lambda _index: self._applyBrush())
        ui.brushSpinBox.connect("valueChanged(double)", lambda _value: self._applyBrush())
        ui.overComboBox.connect("currentIndexChanged(int)", lambda _index: self._applyMask())
        for signal, widget in (("toggled(bool)", ui.thresholdCheckBox), ("valueChanged(int)", ui.lowSpinBox),
                               ("valueChanged(int)", ui.highSpinBox)):
            widget.connect(signal, lambda _value: self._applyMask())
        self._show()

    def _button(self, name: str) -> Any:
        return getattr(self._ui, f"{name}Button")

    def fillOver(self, labels: tuple[str, ...]) -> None:
        """Offer these labels as the only ones that may be painted over."""
        box = self._ui.overComboBox
        chosen = box.currentData or EVERYTHING
        blocked = box.blockSignals(True)
        box.clear()
        for name, text in ((EVERYTHING, _("all labels")), (VISIBLE, _("visible labels")), (CLEAR, _("nothing drawn yet"))):
            box.addItem(text, name)
        for name in labels:
            box.addItem(_("{label} only").format(label=STRUCTURES[name].title), name)
        box.setCurrentIndex(max(0, box.findData(chosen)))
        box.blockSignals(blocked)

    def setLeastPiece(self, voxels: int) -> None:
        """Islands removes smaller pieces than this. Not all but the largest: ribs, scapulae and clavicles are several."""
        self._least = voxels

    # --- which tool ----------------------------------------------------------------------------------------------

    def choose(self, name: str) -> None:
        """Turn a tool on; the cursor when there is nothing to draw in."""
        segmentation = self._editor.widget.segmentationNode() is not None
        self.current = name if self._label and segmentation else CURSOR
        tool, own = self._tools[self.current], self._ownBrush()
        if segmentation:
            effect = self._editor.activate("" if own else tool.effect)
            for key, value in tool.parameters if effect else ():
                effect.setParameter(key, value)
            if effect and name == ISLANDS:
                effect.setParameter("MinimumSize", str(self._least))
        if own is None:
            self._sliceBrush.stop()
        else:
            self._sliceBrush.start(own)
        self._show()
        self._onTool()

    def _ownBrush(self) -> Brush | None:
        """The brush when it is one that Slicer's editor does not have."""
        shape, diameter = self._ui.shapeComboBox.currentData, float(self._ui.brushSpinBox.value)
        flat = shape not in (BALL, CUBE)
        if self.current == ADAPTIVE:
            return Brush(ADAPTIVE, diameter, flat)
        if self.current in (BRUSH, ERASE) and shape in (SQUARE, CUBE):
            return Brush(SQUARE, diameter, flat)
        return None

    def _show(self) -> None:
        tool = self._tools[self.current]
        for name in self._tools:
            self._button(name).checked = name == self.current
        self._ui.segmentEditor.visible = bool(tool.effect) and not tool.bare

    def enable(self, enabled: bool) -> None:
        """Tools that draw, where something may be drawn; one whose effect this Slicer lacks stays off."""
        for name, tool in self._tools.items():
            there = not tool.effect or bool(self._editor.widget.effectByName(tool.effect))
            self._button(name).enabled = name == CURSOR or (enabled and there)

    # --- how it draws --------------------------------------------------------------------------------------------

    def setLabel(self, label: str) -> None:
        """The label that is drawn from now on; "" for none."""
        self._label = label
        if not label:
            self.choose(CURSOR)
            return
        self._editor.select(label)
        self._applyBrush()
        self._applyMask()

    def rules(self, visible: frozenset[str]) -> Rules:
        """Where our own brushes may paint. visible: labels that are seen."""
        return Rules(self._ui.overComboBox.currentData or EVERYTHING, visible, self._range())

    def _range(self) -> tuple[float, float] | None:
        ui = self._ui
        low, high = sorted((float(ui.lowSpinBox.value), float(ui.highSpinBox.value)))
        return (low, high) if ui.thresholdCheckBox.checked else None

    def _applyBrush(self) -> None:
        if not self._label:
            return
        self._editor.setBrush(float(self._ui.brushSpinBox.value), self._ui.shapeComboBox.currentData == BALL)
        if self.current in (BRUSH, ERASE, ADAPTIVE):
            self.choose(self.current)

    def _applyMask(self) -> None:
        ui = self._ui
        ui.lowSpinBox.enabled = ui.highSpinBox.enabled = bool(ui.thresholdCheckBox.checked)
        if self._label:
            self._editor.setOver(ui.overComboBox.currentData or EVERYTHING, self._label)
            self._editor.setRange(self._range())


def step(spinBox: Any, factor: float) -> None:
    """A larger or smaller brush."""
    spinBox.value = spinBox.value * factor
