"""The repository's own order: what is built and installed is complete, and nothing of one machine is left in it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "LowDoseBMD" / "Resources" / "Models"
LARGEST_MODEL_FILE_BYTES = 15 * 1024 * 1024

MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:root|home|tmp|work|opt|Users|mnt)/\w|[A-Z]:\\\\?Users\\")
"""A path that exists on one machine only. Absolute on purpose: ``../home/x`` or a URL is none."""

CATALOGUE_FIELDS = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies",
                    "dicom_support_rule", "build_subdirectory", "enabled", "tier"}
"""All that schema v1.0.2 of the Slicer extensions catalogue allows."""


def load_script(path: Path):
    """A file of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cmake_lists = load_script(ROOT / "Testing" / "update_cmake_lists.py")


@pytest.fixture(scope="module")
def checkout() -> list[Path]:
    """Files of the checkout, relative to its root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return cmake_lists.checkout_files(ROOT)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("module", cmake_lists.MODULES)
def test_cmake_lists_every_file_of_the_module(module: str, checkout: list[Path]) -> None:
    listed = cmake_lists.read_lists((ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8"))
    for name, wanted in cmake_lists.wanted_lists(ROOT / module).items():
        missing, extra = sorted(set(wanted) - set(listed[name])), sorted(set(listed[name]) - set(wanted))
        assert listed[name] == wanted, (f"{module}/CMakeLists.txt, {name}: missing {missing}, not on the disk {extra}; "
                                        "run python Testing/update_cmake_lists.py")


def test_cmake_lists_are_written_and_read_back() -> None:
    text = f"set({cmake_lists.SCRIPTS}\n  old.py\n  )\n\nset({cmake_lists.RESOURCES})\nlast()\n"
    lists = {cmake_lists.SCRIPTS: ["a.py", "b/c.py"], cmake_lists.RESOURCES: ["Resources/x.png"]}
    written = cmake_lists.write_lists(text, lists)
    assert cmake_lists.read_lists(written) == lists
    assert written.endswith("Resources/x.png\n  )\nlast()\n")
    assert cmake_lists.write_lists(written, lists) == written


def test_every_python_file_parses(checkout: list[Path]) -> None:
    for path in checkout:
        if path.suffix == ".py":
            ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def test_no_file_holds_a_path_of_one_machine(checkout: list[Path]) -> None:
    found = [f"{path}:{number}: {line.strip()[:100]}" for path in checkout
             for number, line in enumerate(text_of(ROOT / path).splitlines(), 1) if MACHINE_PATH.search(line)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("line", "caught"), [
    ("open('/" + "home/ann/ct.nrrd')", True), ("cd /" + "tmp/x", True), ("'C:\\" + "Users\\ann'", True),
    ("see ../home/ann", False), ("https://example.invalid/home/ann", False), ("a/opt/b", False)])
def test_the_path_check_catches_what_it_should(line: str, caught: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is caught


def text_of(path: Path) -> str:
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", errors="replace")


def test_licence_is_there(project: dict) -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert project["license"] == "Apache-2.0"


def test_models_are_there_and_small_enough() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert any(path.suffix == ".onnx" for path in files), f"no models in {MODELS.relative_to(ROOT)}"
    too_large = [path.name for path in files if path.stat().st_size > LARGEST_MODEL_FILE_BYTES]
    assert not too_large, f"larger than 15 MB: {too_large}"


def test_readme_gives_the_command_that_ci_runs() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines() if " && " in line]
    assert len(commands) == 1, ".ci/run should hold one chain of commands"
    assert commands[0] in (ROOT / "README.md").read_text(encoding="utf-8"), f"README.md lacks: {commands[0]}"


def test_catalogue_entry_keeps_to_the_schema() -> None:
    path = ROOT / "Resources" / "LowDoseBMD.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert {"$schema", "category", "scm_url"} <= set(entry) <= CATALOGUE_FIELDS
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert f"project({path.stem})" in cmake
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in cmake
    assert entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer"), "the index asks for a repository named Slicer..."


@pytest.mark.parametrize("icon", ["Resources/LowDoseBMD.png", "LowDoseBMD/Resources/Icons/LowDoseBMD.png",
                                  "LowDoseBMDTrainer/Resources/Icons/LowDoseBMDTrainer.png"])
def test_icons_are_square_pictures(icon: str) -> None:
    header = (ROOT / icon).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)


def test_slicer_is_asked_only_for_declared_packages(project: dict) -> None:
    lines = (ROOT / "LowDoseBMD" / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    assert asked and asked <= set(project["dependencies"])


@pytest.fixture(scope="module")
def installed(checkout: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout, unpacked: what ``pip install .`` puts into a Python."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in checkout:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(target)], cwd=source, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(target.glob("lowdosebmd-*.whl"))) as wheel:
        wheel.extractall(target / "site")
    return target / "site"


PACKAGE_FOLDERS = {"LowDoseBMDLib": "LowDoseBMD/LowDoseBMDLib", "LowDoseBMDModels": "LowDoseBMD/Resources/Models",
                   "LowDoseBMDTrainerLib": "LowDoseBMDTrainer/LowDoseBMDTrainerLib"}


def test_the_wheel_holds_every_file_of_its_packages(installed: Path, checkout: list[Path]) -> None:
    missing = []
    for package, folder in PACKAGE_FOLDERS.items():
        inside = [path.relative_to(folder) for path in checkout if path.is_relative_to(folder)]
        missing += [f"{folder}/{path.as_posix()}" for path in inside if not (installed / package / path).is_file()]
    assert not missing, f"not in the wheel; see packages and package-data in pyproject.toml: {missing}"


def test_the_installed_library_finds_its_models(installed: Path, tmp_path: Path) -> None:
    ask = ("from LowDoseBMDLib.bundle import models_folder; import LowDoseBMDLib; "
           "print(LowDoseBMDLib.__file__); print(models_folder())")
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    library, models = map(Path, done.stdout.split("\n")[:2])
    assert library.is_relative_to(installed)
    assert models == installed / "LowDoseBMDModels" and models.is_dir()
