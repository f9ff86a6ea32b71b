"""Fixtures of the window tests: Slicer's names on PySide6 and slicer-core, for the length of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """An alignment is an integer in Slicer's Python; PySide6 calls that overload deprecated."""
    config.addinivalue_line("filterwarnings", "ignore:.*setTextAlignment:DeprecationWarning")


@pytest.fixture
def a_slicer() -> Iterator[Any]:
    """The imitated application. An error that a slot raised, or an answer no dialog asked for, fails the test."""
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6.QtWidgets")
    adapter = pytest.importorskip("slicer_adapter")
    with adapter.installed_session() as session:
        yield session
        errors, unused = list(session.slot_errors), session.unused_answers()
    if errors:
        raise AssertionError(f"{len(errors)} slot(s) raised; the first: {errors[0]!r}") from errors[0]
    assert not unused, f"answers that no dialog asked for: {unused}"


@pytest.fixture
def a_widget(a_slicer: Any) -> Callable[[str], Any]:
    """A function: load a module by name as Slicer does, show it, and return its widget object."""
    return a_slicer.open


@pytest.fixture
def grab(a_slicer: Any) -> Callable[..., Path]:
    """A function: draw a widget into a PNG file."""
    from slicer_adapter import grab_png

    return grab_png
