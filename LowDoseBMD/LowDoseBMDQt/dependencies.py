"""The Python packages that Slicer lacks: what is missing, how large it is, and installing it when that is allowed.

What needs no window comes first and asks nobody. Packages that are installed already, those that Slicer bundles above
all, are never replaced: pip is given their versions as constraints.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

REQUESTER = "LowDoseBMD"
SIZES_FILE = "package_sizes.json"
OWN_SIZES = Path(__file__).resolve().parents[1] / "Resources" / SIZES_FILE

TORCH_REQUIREMENT = ">=2.5"
BESIDE_TORCH = ("monai>=1.6", "safetensors>=0.4")
"""What the networks need beside torch; monai asks for torch, so pip gets it only when torch is there."""

WHEEL_FOLDER_SETTING = "LowDoseBMD/WheelFolder"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class NotInstalled(RuntimeError):
    """What is needed is not there; the message says why and what to do."""


@dataclass(frozen=True)
class Requirement:
    """One package. specification: as in a requirements file; megabytes: of the download, approximate, None if unknown."""

    name: str
    specification: str
    purpose: str
    megabytes: float | None


def missing(requirementsPath: str | Path) -> list[Requirement]:
    """What a requirements file asks for and this Python lacks, or has in a version that does not do.

    Sizes come from package_sizes.json beside the file, else from LowDoseBMD's own. Looks at what is on the disk and
    imports nothing.
    """
    path = Path(requirementsPath)
    beside = path.with_name(SIZES_FILE)
    sizes = json.loads((beside if beside.is_file() else OWN_SIZES).read_text(encoding="utf-8"))
    wanted = specifications(path.read_text(encoding="utf-8"))
    importlib.invalidate_caches()
    return [Requirement(packageName(line), line, _purpose(packageName(line)), _megabytes(sizes, packageName(line)))
            for line in wanted if not isInstalled(line)]


def specifications(text: str) -> list[str]:
    """The requirements in the text of a requirements file: no comments, no options."""
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and line[0] not in "#-"]


def packageName(specification: str) -> str:
    """The name in a requirement, as indexes spell it: lower case, dashes."""
    return re.sub(r"[-_.]+", "-", _NAME.match(specification).group()).lower()


def isInstalled(specification: str) -> bool:
    """Whether an installed version meets a requirement; one for another system counts as met."""
    from packaging.requirements import Requirement as Parsed

    parsed = Parsed(specification)
    if parsed.marker is not None and not parsed.marker.evaluate():
        return True
    try:
        return parsed.specifier.contains(metadata.version(parsed.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _purpose(name: str) -> str:
    return {
        "onnxruntime": _("runs the networks"),
        "jinja2": _("writes the report"),
        "matplotlib": _("draws the report's pictures"),
        "safetensors": _("reads and writes the networks for torch"),
        "monai": _("losses and transforms of the training"),
        "onnx": _("writes trained networks for LowDoseBMD"),
        "onnxscript": _("writes trained networks for LowDoseBMD"),
    }.get(name, "")


def _megabytes(sizes: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    return sizes.get(name, {}).get(sys.platform)


def question(requirements: Iterable[Requirement], wheelFolder: str = "") -> str:
    """What to ask before anything is installed: what, what for, how large, from where."""
    lines = [_("LowDoseBMD needs Python packages that this Slicer lacks:"), ""]
    known, total = True, 0.0
    for requirement in requirements:
        size = _("about {size} MB").format(size=_rounded(requirement.megabytes)) if requirement.megabytes else ""
        details = ", ".join(filter(None, [requirement.purpose, size]))
        lines.append(f"- {requirement.specification}" + (f" ({details})" if details else ""))
        known, total = known and requirement.megabytes is not None, total + (requirement.megabytes or 0.0)
    if wheelFolder:
        source = _("They are taken from the folder {folder}; nothing is downloaded.").format(folder=wheelFolder)
    elif known:
        source = _("Download: about {size} MB from the Python package index.").format(size=_rounded(total))
    else:
        source = _("They are downloaded from the Python package index.")
    return "\n".join([*lines, "", source, _("Packages that Slicer brings along stay as they are. Install now?")])


def _rounded(megabytes: float) -> str:
    return f"{megabytes:.0f}" if megabytes >= 1 else f"{megabytes:.1f}"


def installedVersions() -> dict[str, str]:
    """Version of every installed package, by packageName."""
    importlib.invalidate_caches()
    found = ((entry.metadata["Name"], entry.metadata["Version"]) for entry in metadata.distributions())
    return {packageName(name): version for name, version in found if name and version}


def constraints(installed: Mapping[str, str], free: Iterable[str]) -> str:
    """Text of a constraints file that holds everything where it is, but the packages ``free``.

    Versions that pip cannot compare, as of private builds, are left out.
    """
    from packaging.version import InvalidVersion, Version

    lines = []
    for name, version in sorted(installed.items()):
        try:
            Version(version)
        except InvalidVersion:
            continue
        if name not in free:
            lines.append(f"{name}=={version}\n")
    return "".join(lines)


def pipArguments(requirements: Iterable[str], wheelFolder: str = "") -> list[str]:
    """Arguments of ``pip install``. wheelFolder: take packages from there and from nowhere else."""
    offline = ["--no-index", "--find-links", wheelFolder] if wheelFolder else []
    return [*requirements, "--only-binary", ":all:", "--disable-pip-version-check", *offline]


def loadedInAnotherVersion(before: Mapping[str, str], after: Mapping[str, str], imported: Iterable[str]) -> list[str]:
    """Packages that this process has imported and that now lie on the disk in another version: it must restart.

    before, after: installedVersions; imported: names of imported modules.
    """
    imported = {name.partition(".")[0] for name in imported}
    modules: dict[str, set[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(packageName(package), set()).add(module)
    return sorted(name for name, version in after.items()
                  if before.get(name) != version and modules.get(name, {name}) & imported)


def wheelFolder() -> str:
    """The folder of wheels that a person chose in the settings for a computer without a network, or an empty text."""
    return str(slicer.app.userSettings().value(WHEEL_FOLDER_SETTING) or "")


def ensure(requirementsPath: str | Path, wheels: str = "") -> None:
    """Ask, then install what is missing; returns at once when nothing is.

    wheels: a folder of wheels to install from, without a network. Raises NotInstalled when the person declines or pip
    fails, and in Slicer's testing mode, which asks nobody and installs nothing.
    """
    lacking = missing(requirementsPath)
    if not lacking:
        return
    names = ", ".join(requirement.name for requirement in lacking)
    if slicer.app.testingEnabled():
        raise NotInstalled(_("{names}: not installed, and nothing is installed in testing mode.").format(names=names))
    if wheels and not Path(wheels).is_dir():
        raise NotInstalled(_("The folder of wheels {folder} is not there. Choose another one in Settings, or leave it "
                             "empty to use the network.").format(folder=wheels))
    if not slicer.util.confirmOkCancelDisplay(question(lacking, wheels), _("LowDoseBMD - Install packages")):
        raise NotInstalled(_("Nothing was installed. Without {names} LowDoseBMD cannot measure; press Measure again to be "
                             "asked again.").format(names=names))
    install([requirement.specification for requirement in lacking], wheels)
    still = missing(requirementsPath)
    if still:
        raise NotInstalled(_("{names}: still missing after the installation. Restart Slicer and try again.").format(
            names=", ".join(requirement.name for requirement in still)))


def install(requirements: list[str], wheels: str = "") -> None:
    """Install with a progress dialog, and offer a restart where it is needed. Raises NotInstalled when pip fails."""
    from slicer.packaging import pip_install

    before = installedVersions()
    with tempfile.TemporaryDirectory(prefix="LowDoseBMD-pip-") as folder:
        held = Path(folder) / "constraints.txt"
        held.write_text(constraints(before, {packageName(text) for text in requirements}), encoding="utf-8")
        try:
            pip_install(pipArguments(requirements, wheels), constraints=str(held), requester=REQUESTER)
        except (subprocess.CalledProcessError, RuntimeError) as error:
            raise NotInstalled(_installFailure(requirements, wheels)) from error
    offerRestart(loadedInAnotherVersion(before, installedVersions(), list(sys.modules)))


def _installFailure(requirements: list[str], wheels: str) -> str:
    if wheels:
        way = _("Does {folder} hold wheels for this system and Python {version}, of these and of what they need?").format(
            folder=wheels, version=f"{sys.version_info.major}.{sys.version_info.minor}")
    else:
        way = _("Is there a network? Without one: fetch the wheels elsewhere with pip download, and choose their folder in "
                "Settings.")
    return _("{names} could not be installed; pip's messages are in the Python console.").format(
        names=", ".join(map(packageName, requirements))) + " " + way


def offerRestart(packages: list[str]) -> None:
    """Ask to restart Slicer when packages in use were replaced."""
    if packages and slicer.util.confirmYesNoDisplay(
            _("{names}: already in use in another version. Slicer must restart before they work. Restart now? Unsaved data "
              "will be lost.").format(names=", ".join(packages)), _("LowDoseBMD - Restart")):
        slicer.util.restart()


def torchInstalled() -> bool:
    """Whether torch lies on the disk; it is not imported."""
    return find_spec("torch") is not None


def ensureTorch() -> None:
    """Offer torch for a GPU, through the PyTorch extension, and what the networks need beside it.

    Raises NotInstalled when the extension is not there, the person declines or an installation fails.
    """
    if not torchInstalled():
        without = _("Choose the device CPU to measure without it.")
        _torchLogic(without)  # before anything is asked
        if not slicer.util.confirmOkCancelDisplay(torchQuestion() + " " + _("Continue?"), _("LowDoseBMD - Install torch")):
            raise NotInstalled(_("torch was not installed.") + " " + without)
        installTorch(without)
    beside = [text for text in BESIDE_TORCH if not isInstalled(text)]
    if beside:
        install(beside)


def torchQuestion() -> str:
    """What torch is, how large, and from where it comes."""
    return _("torch is large: about 0.2 GB for the CPU, 3 GB for an NVIDIA GPU. The extension PyTorch chooses the build for "
             "this computer and downloads it.")


def installTorch(without: str) -> None:
    """Install torch through the PyTorch extension, without asking. without: a sentence on what to do without torch.

    Raises NotInstalled when the extension is not there or the installation fails.
    """
    logic = _torchLogic(without)
    try:
        torch = logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT)
    except (subprocess.CalledProcessError, ImportError, RuntimeError) as error:
        raise NotInstalled(_("torch could not be installed ({error}).").format(error=error) + " " + without) from error
    if torch is None:
        raise NotInstalled(_("torch was not installed.") + " " + without)


def _torchLogic(without: str) -> Any:
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        raise NotInstalled(_("torch is installed by the extension PyTorch, in the right build for this computer: install "
                             "that extension from the Extensions Manager, restart Slicer and try again.")
                           + " " + without) from None
    return PyTorchUtilsLogic()
