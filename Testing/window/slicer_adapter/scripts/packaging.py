"""``slicer.packaging``: says what is missing; installing is recorded, never done."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

installed: list[list[str]] = []
"""What was asked to be installed, one list of requirements a call."""


def load_requirements(path: str | Path) -> list[Requirement]:
    """The requirements of a requirements.txt."""
    lines = [line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _as_requirements(requirements: Any) -> list[Requirement]:
    if isinstance(requirements, (str, Requirement)):
        requirements = [requirements]
    return [r if isinstance(r, Requirement) else Requirement(r) for r in requirements]


def pip_check(requirements: Any) -> bool:
    """True when every requirement is met."""
    return all(map(_met, _as_requirements(requirements)))


def _met(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def pip_install(requirements: Any, *_arguments: Any, **_options: Any) -> None:
    """Records what would be installed."""
    wanted: Iterable[Any] = requirements.split() if isinstance(requirements, str) else requirements
    installed.append([str(w) for w in wanted])


def pip_ensure(requirements: Any, *arguments: Any, **options: Any) -> None:
    """Records what would be installed of what is missing."""
    missing = [r for r in _as_requirements(requirements) if not _met(r)]
    if missing:
        pip_install(missing, *arguments, **options)


def isPipInstallInProgress() -> bool:
    """Nothing is ever under way here."""
    return False
