"""Correction: Slicer's Segment Editor on the region clicked, centres of levels, undo and redo."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import qt
import slicer
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from slicer.i18n import tr as _

from .card import shortText
from .editor_node import ownEditorNode
from .placing import PointPlacer

EDITOR_TAG = "LowDoseBMD"
"""Singleton tag of the parameters of our Segment Editor: those of Slicer's own module stay as they are."""


def reveal(widget: Any) -> None:
    """Scroll the panel so that a widget is seen from its top."""
    parent = widget.parentWidget()
    while parent and not parent.inherits("QScrollArea"):
        parent = parent.parentWidget()
    if parent:
        parent.ensureWidgetVisible(widget)


class Corrector:
    """The Correct section of a LiveMeasurement. onSelected(structure) when another segment was chosen in the editor."""

    def __init__(self, ui: Any, onSelected: Callable[[str], None]) -> None:
        self._ui = ui
        self._onSelected = onSelected
        self._live: Any = None
        self._structure = ""
        self._placer = PointPlacer(self._onPlaced, self._onPlacingEnded)
        for name in ("segmentationNodeSelectorVisible", "sourceVolumeNodeSelectorVisible", "maskingSectionVisible",
                     "addRemoveSegmentButtonsVisible", "switchToSegmentationsButtonVisible",
                     "specifyGeometryButtonVisible", "show3DButtonVisible"):
            setattr(ui.segmentEditor, name, False)
        # One history for regions, centres and names of levels: ours. The editor's own knows its strokes only.
        ui.segmentEditor.undoEnabled = False
        for level in LEVELS:
            ui.keypointComboBox.addItem(level)
        self._connect()
        self.attach(None)

    def _connect(self) -> None:
        ui = self._ui
        ui.undoButton.connect("clicked(bool)", lambda _checked=False: self.undo())
        ui.redoButton.connect("clicked(bool)", lambda _checked=False: self.redo())
        ui.rederiveButton.connect("clicked(bool)", self._onRederive)
        ui.keypointButton.connect("toggled(bool)", self._onPlaceToggled)
        ui.segmentEditor.connect("currentSegmentIDChanged(QString)", self._onSegmentChanged)
        ui.correctButton.connect("contentsCollapsed(bool)", self._onFolded)

    # --- the measurement that is corrected ---------------------------------------------------------------------

    def attach(self, live: Any) -> None:
        """Correct the regions of this measurement from now on."""
        self.endPlacing()
        self._live = live
        self._setEditorNode()
        editor = self._ui.segmentEditor
        editor.setActiveEffect(None)
        editor.setSegmentationNode(live.study.segmentation_node if live else None)
        editor.setSourceVolumeNode(live.study.volume_node if live else None)
        self._structure = ""
        self.update()

    def release(self) -> None:
        """Let go of the scene, as before it is closed or another module is shown."""
        self.endPlacing()
        if self._ui.segmentEditor.mrmlSegmentEditorNode() is not None:
            self._ui.segmentEditor.setActiveEffect(None)
        self._ui.segmentEditor.removeViewObservations()

    def forgetScene(self) -> None:
        """The scene goes: nothing in it may be held."""
        self.release()
        self._live = None
        editor = self._ui.segmentEditor
        if editor.mrmlSegmentEditorNode() is not None:
            editor.setSegmentationNode(None)
            editor.setSourceVolumeNode(None)
            editor.setMRMLSegmentEditorNode(None)
        self.update()

    def enter(self) -> None:
        self._setEditorNode()
        self._ui.segmentEditor.setupViewObservations()

    def _setEditorNode(self) -> None:
        """Our own editor parameters, so that a body may lie inside the vertebrae and its core inside the body."""
        node = ownEditorNode(self._ui.segmentEditor, EDITOR_TAG)
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)

    # --- what the reader does ----------------------------------------------------------------------------------

    def select(self, structure: str) -> None:
        """Preset the editor to a region; it is the one that "Derive again" means too."""
        self._structure = structure
        if self._live is None:
            return
        segmentation = self._live.study.segmentation_node.GetSegmentation()
        if segmentation.GetSegment(structure):
            self._ui.segmentEditor.setCurrentSegmentID(structure)
        level = structure.partition("_")[2]
        if level in LEVELS:
            self._ui.keypointComboBox.currentIndex = LEVELS.index(level)
        self.update()

    def open(self, structure: str) -> None:
        """Unfold the section on a region, ready to draw."""
        self._ui.correctButton.collapsed = False
        self.select(structure)

    def next(self) -> str:
        """The region after the selected one, in the order of the registry; empty when there is none."""
        if self._live is None:
            return ""
        present = list(self._live.study.segmentation_node.GetSegmentation().GetSegmentIDs())
        names = [name for name in STRUCTURES if name in present]
        if not names:
            return ""
        place = names.index(self._structure) if self._structure in names else -1
        return names[(place + 1) % len(names)]

    def undo(self) -> None:
        if self._editable() and self._live.can_undo:
            self._live.undo()

    def redo(self) -> None:
        if self._editable() and self._live.can_redo:
            self._live.redo()

    def _onRederive(self, _checked: bool = False) -> None:
        level = self._level()
        if level and self._editable():
            self._live.rederive(level)

    def _onSegmentChanged(self, segmentId: str) -> None:
        if segmentId and segmentId != self._structure:
            self._structure = segmentId
            self._onSelected(segmentId)
        self.update()

    def _level(self) -> str:
        level = self._structure.partition("_")[2]
        return level if level in LEVELS else ""

    def _editable(self) -> bool:
        return self._live is not None and not self._live.locked

    # --- centres of levels -------------------------------------------------------------------------------------

    def _onPlaceToggled(self, checked: bool) -> None:
        if not checked:
            self._placer.cancel()
        elif not (self._editable() and self._placer.start(self._ui.keypointComboBox.currentText)):
            self._ui.keypointButton.checked = False

    def _onFolded(self, folded: bool) -> None:
        """What was unfolded is scrolled into view, once it has its height."""
        if not folded:
            qt.QTimer.singleShot(0, lambda: reveal(self._ui.correctButton))

    def _onPlaced(self, positionLps: tuple[float, float, float]) -> None:
        if self._editable():
            self._live.move_keypoint(self._ui.keypointComboBox.currentText, positionLps)

    def _onPlacingEnded(self) -> None:
        self._ui.keypointButton.checked = False

    @property
    def placing(self) -> bool:
        return self._placer.active

    def endPlacing(self) -> None:
        self._placer.cancel()

    # --- what can be done now ----------------------------------------------------------------------------------

    def update(self) -> None:
        """Enable what makes sense in the present state."""
        ui, can = self._ui, self._editable()
        ui.segmentEditor.readOnly = not can
        ui.undoButton.enabled = bool(can and self._live.can_undo)
        ui.redoButton.enabled = bool(can and self._live.can_redo)
        ui.keypointButton.enabled = ui.keypointComboBox.enabled = can
        level = self._level()
        drawn = can and bool(level) and f"trabecular_{level}" in self._live.rois.edited
        ui.rederiveButton.enabled = drawn
        ui.correctButton.enabled = self._live is not None
        hint = self._hint(can, level, drawn)
        now = shortText(self._live.measurement, self._live.state) if self._live is not None else ""
        ui.correctLabel.text = f"{html.escape(hint)}<br><b>{html.escape(now)}</b>"

    def _hint(self, can: bool, level: str, drawn: bool) -> str:
        if self._live is None:
            return ""
        if not can:
            return _("Signed: the regions are locked. Reopen the study to correct them.")
        title = STRUCTURES[self._structure].title if self._structure in STRUCTURES else ""
        if not title:
            return _("Click a row above, then paint or erase; the number follows.")
        if drawn:
            return _("{region}: {level} is measured in your own region.").format(region=title, level=level)
        return _("{region}: paint or erase; the number follows.").format(region=title)


