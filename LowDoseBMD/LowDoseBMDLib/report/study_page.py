"""Pages about a group of people: one look."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.atomic import write_whole
from .templating import TEMPLATES, fill

if TYPE_CHECKING:
    from .agreement_figures import Drawing


def render(template: str, page: Mapping[str, Any], home: Path = TEMPLATES) -> str:
    """HTML text of a template that extends study.html.j2. home: folder of the template.

    page holds what study.html.j2 shows, title, heading (texts), synthetic (a sentence or ""), findings and statements
    (sentences), and what the template itself shows.
    """
    return fill(template, home, page=page)


def embedded(figure: Drawing) -> dict[str, str]:
    """What a template shows of a figure, its picture as base64 PNG."""
    return {"title": figure.title, "caption": figure.caption, "png": base64.b64encode(figure.png).decode("ascii")}


def write_figures(out: Path, figures: Iterable[Drawing]) -> None:
    """Write each figure as PNG and SVG. Raises OSError when out cannot be written."""
    for figure in figures:
        write_whole(out / f"{figure.name}.png", figure.png)
        write_whole(out / f"{figure.name}.svg", figure.svg)
