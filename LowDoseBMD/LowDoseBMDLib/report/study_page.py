"""Pages about a group of people: one look, and text that the templates escape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, page: Mapping[str, Any]) -> str:
    """HTML text of a template that extends study.html.j2.

    page holds what study.html.j2 shows, title, heading (texts), synthetic (a sentence or ""), findings and statements
    (sentences), and what the template itself shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(page=page)
