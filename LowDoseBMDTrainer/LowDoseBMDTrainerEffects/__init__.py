"""Effects of Slicer's Segment Editor. Slicer looks for an effect's class by its name in the package of its folder."""

from __future__ import annotations

from pathlib import Path

import slicer

from .SegmentEditorSnakeEffect import SegmentEditorSnakeEffect

__all__ = ["SegmentEditorSnakeEffect", "registerEffects"]


def registerEffects() -> None:
    """Offer the effects in every Segment Editor that is made from now on; a second call changes nothing."""
    effect = slicer.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource((Path(__file__).parent / "SegmentEditorSnakeEffect.py").as_posix())
    effect.self().register()
