"""Which label is drawn, and where the levels are: buttons with the colours and numbers of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from LowDoseBMDLib.anatomy import BONES, LEVELS, STRUCTURES
from LowDoseBMDQt.placing import PointPlacer
from LowDoseBMDTrainerMRML.case_nodes import ANNOTATED, MORE
from slicer.i18n import tr as _

SWATCH_PIXELS = 12
PLACED = " ✓"

COLUMNS = 3
"""Of the buttons of labels: two rows, so that they fit the width of Slicer's panel."""
MORE_CHARACTERS = 6
"""Width of the list of further labels; its titles may be longer."""


class LabelsRow:
    """Buttons for the bones, and a list of the rest. onLabel(name) when another label was chosen."""

    def __init__(self, ui: Any, onLabel: Callable[[str], None]) -> None:
        self._onLabel = onLabel
        self.current = BONES[0]
        self._buttons: dict[str, Any] = {}
        layout = ui.labelsWidget.layout()
        for number, name in enumerate(BONES, 1):
            button = qt.QToolButton()
            button.text = f"{number} {STRUCTURES[name].title}"
            button.toolTip = _("Draw this label ({key}); V hides it.").format(key=number)
            button.toolButtonStyle = qt.Qt.ToolButtonTextBesideIcon
            button.checkable = True
            button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            button.connect("clicked(bool)", lambda _checked=False, name=name: self.choose(name))
            layout.addWidget(button, *divmod(number - 1, COLUMNS))
            self._buttons[name] = button
        self._more = qt.QComboBox()
        self._more.toolTip = _("Labels that are drawn when they are wanted.")
        self._more.addItem(_("more"), "")
        for name in MORE:
            self._more.addItem(swatch(name), STRUCTURES[name].title, name)
        self._more.connect("activated(int)", lambda _index: self._onMore())
        self._more.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._more.setMinimumContentsLength(MORE_CHARACTERS)
        self._more.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        row, column = divmod(len(BONES), COLUMNS)
        layout.addWidget(self._more, row, column, 1, COLUMNS - column)
        self._hidden: frozenset[str] = frozenset()
        self._show()

    @property
    def visible(self) -> frozenset[str]:
        """Labels that are shown in the views."""
        return frozenset(ANNOTATED) - self._hidden

    def toggleVisible(self) -> None:
        """Hide the label that is drawn, or show it again."""
        self._hidden = self._hidden ^ {self.current}
        self._show()

    def choose(self, name: str) -> None:
        """Draw this label from now on."""
        self.current = name
        self._show()
        self._onLabel(name)

    def _onMore(self) -> None:
        if self._more.currentData:
            self.choose(self._more.currentData)
        else:
            self._show()

    def _show(self) -> None:
        for name, button in self._buttons.items():
            button.checked = name == self.current
            button.icon = swatch(name, name in self._hidden)
        self._more.setCurrentIndex(max(0, self._more.findData(self.current)))


class KeypointsRow:
    """Buttons keypoint<level>Button: click one, click into a view, and the next level's turn comes by itself.

    onPlaced(level, LPS mm).
    """

    def __init__(self, ui: Any, onPlaced: Callable[[str, tuple[float, float, float]], None]) -> None:
        self._onPlaced = onPlaced
        self._placed: frozenset[str] = frozenset()
        self._level = ""
        self._placer = PointPlacer(self._onPoint, self._onEnded)
        self._buttons = {level: getattr(ui, f"keypoint{level}Button") for level in LEVELS}
        for level, button in self._buttons.items():
            button.connect("clicked(bool)", lambda checked, level=level: self.start(level) if checked else self.cancel())

    @property
    def active(self) -> bool:
        return self._placer.active

    def start(self, level: str) -> None:
        """Wait for the click that places this level."""
        self._placer.cancel()
        self._level = level if self._placer.start(level) else ""
        self._showActive()

    def cancel(self) -> None:
        """Wait no longer."""
        self._level = ""
        self._placer.cancel()
        self._showActive()

    def show(self, placed: frozenset[str]) -> None:
        """Tick the levels that have their keypoint."""
        self._placed = placed
        for level, button in self._buttons.items():
            text = level + (PLACED if level in placed else "")
            if button.text != text:
                button.text = text

    def _onPoint(self, positionLps: tuple[float, float, float]) -> None:
        level = self._level
        self._onPlaced(level, positionLps)
        following = [each for each in LEVELS[LEVELS.index(level) + 1:] if each not in self._placed - {level}]
        if following:
            self.start(following[0])
        else:
            self.cancel()

    def _onEnded(self) -> None:
        self._showActive()

    def _showActive(self) -> None:
        for level, button in self._buttons.items():
            button.checked = self._placer.active and level == self._level


def swatch(name: str, hidden: bool = False) -> Any:
    """A small square in a label's colour, as an icon; a hollow one for a label that is hidden."""
    pixmap, colour = qt.QPixmap(SWATCH_PIXELS, SWATCH_PIXELS), qt.QColor(*STRUCTURES[name].colour)
    pixmap.fill(colour)
    if hidden:
        painter, inner = qt.QPainter(pixmap), SWATCH_PIXELS - 4
        painter.fillRect(2, 2, inner, inner, qt.QColor(255, 255, 255))
        painter.end()
    return qt.QIcon(pixmap)
