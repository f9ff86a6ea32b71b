"""A strip that shows which axial slices hold the label, so that a slice left out is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

HELD, GAP, NONE, HERE = "#2f7d4f", "#c8102e", "#d8d8d8", "#101010"
"""Slices that hold the label, those left out between two that do, the rest, and the one that is shown."""

HERE_PIXELS = 2


class SlicesBar:
    """Paints into the QLabel ``bar``."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._shown: tuple[Any, ...] = ()

    def show(self, held: Sequence[bool], here: int) -> None:
        """held: for every slice, from the feet up. here: the slice that is shown, may lie outside."""
        width, height = self._bar.width, self._bar.height
        wanted = (tuple(held), here, width, height)
        if wanted != self._shown and width > 0 and height > 0:
            self._shown = wanted
            self._bar.setPixmap(painted(held, here, width, height))


def painted(held: Sequence[bool], here: int, width: int, height: int) -> Any:
    """The strip as a picture; a gap is as wide as a pixel at least."""
    pixmap = qt.QPixmap(width, height)
    pixmap.fill(qt.QColor(NONE))
    painter = qt.QPainter(pixmap)
    missing = frozenset(gaps(held))
    for colour, wanted in ((HELD, [n for n, there in enumerate(held) if there]), (GAP, sorted(missing))):
        for n in wanted:
            left = n * width // len(held)
            painter.fillRect(left, 0, max(1, (n + 1) * width // len(held) - left), height, qt.QColor(colour))
    if 0 <= here < len(held):
        middle = (2 * here + 1) * width // (2 * len(held))
        painter.fillRect(middle - HERE_PIXELS // 2, 0, HERE_PIXELS, height, qt.QColor(HERE))
    painter.end()
    return pixmap


def gaps(held: Sequence[bool]) -> list[int]:
    """Slices without the label between slices that have it."""
    there = [n for n, each in enumerate(held) if each]
    return [n for n in range(there[0], there[-1]) if not held[n]] if there else []


def nextGap(held: Sequence[bool], here: int) -> int | None:
    """The first gap above the slice that is shown, or from the feet again; None when there is none."""
    missing = gaps(held)
    return next((n for n in missing if n > here), missing[0] if missing else None)
