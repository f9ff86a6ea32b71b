"""Imitates Slicer's package of that name: what a scripted effect inherits."""

from __future__ import annotations

from typing import Any

import slicer


class AbstractScriptedSegmentEditorEffect:
    """The script of an effect; ``scriptedEffect`` is the object that the editor knows."""

    def __init__(self, scriptedEffect: Any) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def xyToRas(self, xy: tuple[int, int], viewWidget: Any) -> list[float]:
        return list(viewWidget.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*xy, 0.0, 1.0))[:3])
