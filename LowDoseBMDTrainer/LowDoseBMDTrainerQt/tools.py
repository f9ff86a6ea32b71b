"""The row of tools: each turns an effect of the Segment Editor on, with ITK-SNAP's way of brushes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from LowDoseBMDLib.anatomy import STRUCTURES
from slicer.i18n import tr as _

from .editor import CLEAR, EVERYTHING, VISIBLE, Editor

ROUND, BALL, SQUARE, CUBE = "round", "ball", "square", "cube"
"""Shapes of the brush."""

CURSOR, BRUSH, ERASE, ADAPTIVE = "cursor", "brush", "erase", "adaptive"


@dataclass(frozen=True)
class Tool:
    """effect: of the Segment Editor, "" for none. parameters: of the effect, set when it is turned on. bare: it has no options of its own."""

    name: str
    effect: str
    parameters: tuple[tuple[str, str], ...] = ()
    bare: bool = False


TOOLS = (
    Tool(CURSOR, ""), Tool(BRUSH, "Paint", bare=True), Tool(ERASE, "Erase", bare=True),
    Tool("polygon", "Draw", bare=True), Tool("interpolate", "Fill between slices"),
    Tool("scalpel", "Scissors", (("Operation", "EraseInside"), ("Shape", "FreeForm"))),
    Tool("islands", "Islands", (("Operation", "KEEP_LARGEST_ISLAND"),)),
)


class ToolRow:
    """Buttons <tool>Button of ``ui``. onTool() after another tool was chosen."""

    def __init__(self, ui: Any, editor: Editor, onTool: Callable[[], None]) -> None:
        self._ui, self._editor, self._onTool = ui, editor, onTool
        self.current, self._label = CURSOR, ""
        self._tools = {tool.name: tool for tool in TOOLS}
        for name, text in ((ROUND, _("round")), (BALL, _("ball, 3D"))):
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
        for name, text in ((EVERYTHING, _("all labels")), (VISIBLE, _("visible labels")),
                           (CLEAR, _("nothing drawn yet"))):
            box.addItem(text, name)
        for name in labels:
            box.addItem(_("{label} only").format(label=STRUCTURES[name].title), name)
        box.setCurrentIndex(max(0, box.findData(chosen)))
        box.blockSignals(blocked)

    def choose(self, name: str) -> None:
        """Turn a tool on; the cursor when there is nothing to draw in."""
        tool = self._tools[name]
        ready = bool(self._label) and self._editor.widget.segmentationNode() is not None
        self.current = name if ready else CURSOR
        if self._editor.widget.segmentationNode() is not None:
            effect = self._editor.activate(tool.effect if ready else "")
            for key, value in tool.parameters if effect else ():
                effect.setParameter(key, value)
        self._show()
        self._onTool()

    def _show(self) -> None:
        tool = self._tools[self.current]
        for name in self._tools:
            self._button(name).checked = name == self.current
        self._ui.segmentEditor.visible = bool(tool.effect) and not tool.bare

    def setLabel(self, label: str) -> None:
        """The label that is drawn from now on; "" for none."""
        self._label = label
        if not label:
            self.choose(CURSOR)
            return
        self._editor.select(label)
        self._applyBrush()
        self._applyMask()

    def _applyBrush(self) -> None:
        if self._label:
            self._editor.setBrush(float(self._ui.brushSpinBox.value), self._ui.shapeComboBox.currentData == BALL)

    def _applyMask(self) -> None:
        ui = self._ui
        limited = ui.thresholdCheckBox.checked
        ui.lowSpinBox.enabled = ui.highSpinBox.enabled = limited
        if self._label:
            self._editor.setOver(ui.overComboBox.currentData or EVERYTHING, self._label)
            low, high = sorted((float(ui.lowSpinBox.value), float(ui.highSpinBox.value)))
            self._editor.setRange((low, high) if limited else None)
