"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CTs and labels beside the repository; tests that need it are skipped without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LOWDOSEBMD_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real CTs here: set LOWDOSEBMD_DATA to a folder that holds them")
    return folder
