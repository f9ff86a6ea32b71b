"""Fixtures of the library's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def a_scene(tmp_path_factory: pytest.TempPathFactory):
    """A small phantom as files, and what is measured on it when nothing is wrong: a fault_scene.Scene."""
    from fault_scene import make_scene

    return make_scene(tmp_path_factory.mktemp("scene"))
