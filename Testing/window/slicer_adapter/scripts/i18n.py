"""``slicer.i18n``: texts as written; the context is the file's, as in Slicer."""

from __future__ import annotations

import slicer


def translate(context: str, text: str) -> str:
    """The text in the application's language."""
    return slicer.app.translate(context, text)


def tr(text: str) -> str:
    """The text in the application's language, for the calling file."""
    if not isinstance(text, str):
        raise TypeError(f"tr() takes a text, got {type(text).__name__}")
    return translate("", text)
