"""``slicer.packaging``: says what is missing; installing is recorded, never done."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
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


def pip_install(requirements: str | list[str], constraints: str | Path | None = None,
                no_deps_requirements: str | list[str] | None = None, skip_packages: list[str] | None = None,
                blocking: bool = True, show_progress: bool = True, requester: str | None = None,
                logCallback: Callable[[str], None] | None = None,
                completedCallback: Callable[[int], None] | None = None) -> list[str] | None:
    """Records what would be installed; a call that does not block reports success later."""
    installed.append(requirements.split() if isinstance(requirements, str) else [str(r) for r in requirements])
    if not blocking and completedCallback is not None:
        qt.QTimer.singleShot(0, lambda: completedCallback(0))
    return [] if skip_packages else None


def pip_ensure(requirements: Any, constraints: str | Path | None = None, skip_packages: list[str] | None = None,
               prompt_install: bool = True, prompt_restart: bool = True, requester: str | None = None,
               skip_in_testing: bool = True, show_progress: bool = True) -> list[str] | None:
    """Asks, and records what would be installed of what is missing.

    Raises
    ------
    RuntimeError
        When the question was declined.
    """
    missing = [str(r) for r in _as_requirements(requirements) if not _met(r)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return None
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
            f"{len(missing)} packages are to be installed. Continue?", requester, detailedText="\n".join(missing)):
        raise RuntimeError("User declined package installation")
    return pip_install(missing, constraints=constraints, skip_packages=skip_packages, requester=requester,
                       show_progress=show_progress)


def isPipInstallInProgress() -> bool:
    """Nothing is ever under way here."""
    return False
