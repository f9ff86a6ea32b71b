"""Slicer's Segment Editor as the Trainer uses it: its effects and their options; labels and brush stand in our own panel."""

from __future__ import annotations

from typing import Any

import slicer
from LowDoseBMDQt.editor_node import ownEditorNode
from LowDoseBMDTrainerMRML.painting import CLEAR, EVERYTHING, VISIBLE

EDITOR_TAG = "LowDoseBMDTrainer"
"""Singleton tag of the parameters of our Segment Editor: those of Slicer's own module stay as they are."""

HIDDEN = ("EffectsGroupBox", "UndoRedoGroupBox", "SegmentsTableResizableFrame", "EffectHelpBrowser")
"""Parts of the widget that the panel has in its own form."""


class Editor:
    """The widget ``editor`` and the parameter node behind it."""

    def __init__(self, editor: Any) -> None:
        self.widget = editor
        for name in ("segmentationNodeSelectorVisible", "sourceVolumeNodeSelectorVisible", "maskingSectionVisible",
                     "addRemoveSegmentButtonsVisible", "switchToSegmentationsButtonVisible", "specifyGeometryButtonVisible",
                     "show3DButtonVisible"):
            setattr(editor, name, False)
        # One history for labels and keypoints: ours. The editor's own knows its strokes only.
        editor.undoEnabled = False
        for name in HIDDEN:
            slicer.util.findChild(editor, name).setVisible(False)

    @property
    def node(self) -> Any:
        """Our parameters in the scene; made when they are not there."""
        return ownEditorNode(self.widget, EDITOR_TAG, saved=False)

    def attach(self, nodes: Any) -> None:
        """Draw in these nodes of a case; None lets go of them."""
        if nodes is None and self.widget.mrmlSegmentEditorNode() is None:
            return
        self.exit()
        self.node.SetSelectedSegmentID("")
        self.widget.setSegmentationNode(nodes.segmentation_node if nodes else None)
        self.widget.setSourceVolumeNode(nodes.volume_node if nodes else None)
        if nodes:
            self.enter()

    def enter(self) -> None:
        """The module is shown: the views listen to the effects while there is something to draw in."""
        if self.widget.segmentationNode() is not None:
            self.widget.setupViewObservations()

    def exit(self) -> None:
        """Another module is shown."""
        self.widget.setActiveEffect(None)
        self.widget.removeViewObservations()

    def forgetScene(self) -> None:
        """Before the scene is closed: nothing in it may be held."""
        if self.widget.mrmlSegmentEditorNode() is not None:
            self.attach(None)
            self.widget.setMRMLSegmentEditorNode(None)

    def select(self, label: str) -> None:
        """Draw this label from now on."""
        if self.widget.segmentationNode() is not None and self.widget.currentSegmentID() != label:
            self.widget.setCurrentSegmentID(label)

    def activate(self, effect: str) -> Any:
        """Turn an effect on by its name, or all off when it is empty; returns the effect."""
        self.widget.setActiveEffectByName(effect)
        return self.widget.activeEffect()

    def setBrush(self, diameterMm: float, sphere: bool) -> None:
        """The brush that painting and erasing share."""
        node = self.node
        node.SetAttribute("BrushDiameterIsRelative", "0")
        node.SetAttribute("BrushAbsoluteDiameter", str(diameterMm))
        node.SetAttribute("BrushSphere", str(int(sphere)))

    def setOver(self, over: str, own: str) -> None:
        """What may be painted over: EVERYTHING, VISIBLE, CLEAR or the name of a label. own: the label that is drawn."""
        node, segmentation = self.node, slicer.vtkMRMLSegmentationNode
        single = over not in (EVERYTHING, VISIBLE, CLEAR)
        modes = {CLEAR: segmentation.EditAllowedOutsideAllSegments}
        node.SetMaskMode(segmentation.EditAllowedInsideSingleSegment if single and over != own else
                         modes.get(over, segmentation.EditAllowedEverywhere))
        node.SetMaskSegmentID(over if single and over != own else "")
        node.SetOverwriteMode(node.OverwriteVisibleSegments if over == VISIBLE else node.OverwriteAllSegments)

    def setRange(self, rangeHu: tuple[float, float] | None) -> None:
        """Only voxels in this range are painted; None: all."""
        self.node.SetSourceVolumeIntensityMask(rangeHu is not None)
        if rangeHu is not None:
            self.node.SetSourceVolumeIntensityMaskRange(*rangeHu)
