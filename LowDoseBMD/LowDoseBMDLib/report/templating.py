"""The one way in which templates are filled: everything that comes from files is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def fill(template: str, home: Path = TEMPLATES, **shown: Any) -> str:
    """HTML text of a template. home: its folder; it may extend a template of this one. shown: what the template speaks of;
    a name that is missing raises."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader([home, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**shown)
