"""Bones and regions in the 3D view: one surface per turn of the event loop, so that nothing waits for them."""

from __future__ import annotations

from typing import Any

import qt
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDMRML.surfaces import SURFACE, make_surface, missing_surfaces

PAUSE_MS = 60
AFTER_EDIT_MS = 1500
"""A stroke drops surfaces; they are made anew when the hand has rested for this long."""

SHOWN_GROUPS = ("bone", "trabecular")
"""Bones half transparent, trabecular regions inside them."""


class Bones3D:
    """Makes the surfaces that are missing, small ones first."""

    def __init__(self) -> None:
        self._node: Any = None
        self._failed: set[str] = set()
        self._timer = qt.QTimer()
        self._timer.singleShot = True
        self._timer.connect("timeout()", self._step)

    def show(self, segmentationNode: Any) -> None:
        """Show this segmentation in 3D, or none."""
        self._node = segmentationNode
        self._failed = set()
        if segmentationNode is None:
            self._timer.stop()
            return
        display = segmentationNode.GetDisplayNode()
        display.SetPreferredDisplayRepresentationName3D(SURFACE)
        for name in segmentationNode.GetSegmentation().GetSegmentIDs():
            shown = name in STRUCTURES and STRUCTURES[name].group in SHOWN_GROUPS
            display.SetSegmentVisibility3D(name, shown)
        self._timer.start(PAUSE_MS)

    def refresh(self) -> None:
        """Something was drawn: surfaces follow when the hand rests."""
        if self._node is not None:
            self._failed = set()
            self._timer.start(AFTER_EDIT_MS)

    def close(self) -> None:
        self.show(None)

    def _step(self) -> None:
        if self._node is None or self._node.GetScene() is None:
            return
        names = [name for name, structure in STRUCTURES.items() if structure.group in SHOWN_GROUPS]
        missing = [name for name in missing_surfaces(self._node, names) if name not in self._failed]
        if not missing:
            return
        name = min(missing, key=lambda name: STRUCTURES[name].group == "bone")
        if not make_surface(self._node, name):
            self._failed.add(name)
        self._timer.start(PAUSE_MS)
