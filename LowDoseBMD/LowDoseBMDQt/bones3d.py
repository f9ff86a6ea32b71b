"""Bones and regions in the 3D view: surfaces one after the other, in a thread, so that nothing waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDMRML.segments import SURFACE
from LowDoseBMDMRML.surfaces import SurfaceMaker, missing_surfaces

LOOK_MS = 40
YIELD_SECONDS = 0.002
"""Slept at each look, as in job.py: an idle event loop holds Python's lock, and the thread gets on only now."""
AFTER_EDIT_MS = 1500
"""A stroke drops surfaces; they are made anew when the hand has rested for this long."""

SHOWN_GROUPS = ("trabecular", "bone")
"""Trabecular regions first, as they are small; then bones round them, half transparent."""


class Bones3D:
    """Makes the surfaces that are missing."""

    def __init__(self, onWhole: Callable[[], None]) -> None:
        """onWhole: called once for each segmentation, when the surfaces that it began with are there."""
        self._onWhole = onWhole
        self._told = False
        self._node: Any = None
        self._maker: SurfaceMaker | None = None
        self._failed: set[str] = set()
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)  # the property has the name of a static method
        self._timer.connect("timeout()", self._look)

    def show(self, segmentationNode: Any) -> None:
        """Show this segmentation in 3D, or none."""
        self._node, self._maker, self._failed, self._told = segmentationNode, None, set(), False
        if segmentationNode is None:
            self._timer.stop()
            return
        display = segmentationNode.GetDisplayNode()
        display.SetPreferredDisplayRepresentationName3D(SURFACE)
        for name in segmentationNode.GetSegmentation().GetSegmentIDs():
            shown = name in STRUCTURES and STRUCTURES[name].group in SHOWN_GROUPS
            display.SetSegmentVisibility3D(name, shown)
        self._timer.start(LOOK_MS)

    def refresh(self) -> None:
        """Something was drawn: surfaces follow when the hand rests."""
        if self._node is not None:
            self._failed = set()
            self._timer.start(AFTER_EDIT_MS)

    def close(self) -> None:
        self.show(None)

    def _look(self) -> None:
        if self._node is None or self._node.GetScene() is None:
            return
        if self._maker is None:
            self._maker = self._next()
        elif self._maker.done:
            if not self._maker.finish():
                self._failed.add(self._maker.name)
            self._maker = None
        else:
            time.sleep(YIELD_SECONDS)
        if self._maker is not None or self._missing():
            self._timer.start(LOOK_MS)
        elif not self._told:
            self._told = True
            self._onWhole()

    def _next(self) -> SurfaceMaker | None:
        missing = self._missing()
        return SurfaceMaker(self._node, missing[0]) if missing else None

    def _missing(self) -> list[str]:
        names = [name for group in SHOWN_GROUPS for name, each in STRUCTURES.items() if each.group == group]
        return [name for name in missing_surfaces(self._node, names) if name not in self._failed]
