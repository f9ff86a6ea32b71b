"""The three layers hold: imports point downwards, heavy packages load late, and nothing prints."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_FOLDERS = (ROOT / "LowDoseBMD", ROOT / "LowDoseBMDTrainer")

LIGHT = frozenset({"numpy", "scipy", "SimpleITK", "pydicom", "highdicom", "jinja2", "matplotlib", "safetensors"})
LATE = frozenset({"torch", "monai", "onnxruntime", "dask", "distributed", "psutil", "dicomweb_client", "requests",
                  "urllib3"})
"""Imported inside the functions that need them: measuring works without torch, and starting is quick."""

SLICER = frozenset({"slicer", "vtk", "qt", "ctk"})
APPLICATION = frozenset({"slicer.app", "slicer.mrmlScene", "slicer.modules"})
"""What slicer-core does not have, and a scene that is handed in does not need."""

PRINTING = frozenset({"cli.py", "cli_output.py"})
"""Files of the command line, which print."""


@dataclass(frozen=True)
class Layer:
    """What a layer may import at file scope (``early``) and only inside functions (``late``), and must not touch."""

    name: str
    early: frozenset[str]
    late: frozenset[str] = frozenset()
    untouched: frozenset[str] = frozenset()
    may_print: bool = False


LIBRARY = Layer("the library", LIGHT | {"LowDoseBMDLib"}, LATE)
SCENE = Layer("the scene layer", frozenset({"numpy", "vtk", "slicer", "LowDoseBMDLib", "LowDoseBMDMRML"}),
              untouched=APPLICATION)
WINDOW = Layer("the window layer", SLICER | {"LowDoseBMDLib", "LowDoseBMDMRML", "LowDoseBMDQt"},
               frozenset({"psutil", "packaging", "SampleData", "PyTorchUtils"}))
SCRIPT = Layer("a script for Slicer", frozenset(), frozenset({"slicer", "LowDoseBMDLib"}))
TRAINER = Layer("the Trainer's library", LIGHT | {"torch", "LowDoseBMDLib", "LowDoseBMDTrainerLib"}, LATE | {"onnx"})
"""Training is torch code throughout; what starts without torch (its command line) has a test of its own below."""
TRAINER_SCENE = Layer("the Trainer's scene layer", SCENE.early | {"LowDoseBMDTrainerLib", "LowDoseBMDTrainerMRML"},
                      untouched=APPLICATION)
TRAINER_WINDOW = Layer("the Trainer's window", WINDOW.early | {"LowDoseBMDTrainerLib", "LowDoseBMDTrainerMRML",
                                                               "LowDoseBMDTrainerQt", "LowDoseBMDTrainerEffects",
                                                               "SegmentEditorEffects"}, WINDOW.late)

PACKAGES = {"LowDoseBMDLib": LIBRARY, "LowDoseBMDMRML": SCENE, "LowDoseBMDQt": WINDOW, "LowDoseBMD.py": WINDOW,
            "Scripts": SCRIPT, "LowDoseBMDTrainerLib": TRAINER, "LowDoseBMDTrainerMRML": TRAINER_SCENE,
            "LowDoseBMDTrainerQt": TRAINER_WINDOW, "LowDoseBMDTrainerEffects": TRAINER_WINDOW,
            "LowDoseBMDTrainer.py": TRAINER_WINDOW}
"""By the first part of a file's path in its module folder. A new part must be given a layer here."""


@dataclass(frozen=True)
class Import:
    """One imported name, dotted as far as the source tells. late: inside a function or under TYPE_CHECKING."""

    line: int
    name: str
    late: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def violations(source: str, where: str, layer: Layer) -> list[str]:
    """What the source of one file does that its layer may not, one sentence each, with file and line."""
    tree = ast.parse(source, where)
    found = [(entry.line, f"may not import {entry.package}" + (" at file scope" if entry.package in layer.late else ""))
             for entry in imports(tree)
             if entry.package not in layer.early and not (entry.late and entry.package in layer.late)]
    found += [(line, f"may not use {name}") for line, name in dotted_names(tree) if name in layer.untouched]
    if not layer.may_print:
        found += [(node.lineno, "may not print") for node in ast.walk(tree) if is_print(node)]
    return [f"{where}:{line}: {layer.name} {what}" for line, what in sorted(found)]


def imports(tree: ast.AST, late: bool = False) -> Iterator[Import]:
    """Every absolute import of a package outside the standard library."""
    for node in ast.iter_child_nodes(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        entries = (Import(node.lineno, name, late) for name in names)
        yield from (entry for entry in entries if entry.package not in sys.stdlib_module_names)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_type_checking(node)
        yield from imports(node, late or inside)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def dotted_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """``slicer.app`` whether it is used as an attribute or imported by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"
    for entry in imports(tree):
        yield entry.line, entry.name


def product_files() -> list[Path]:
    return [path for folder in MODULE_FOLDERS for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


def layer_of(path: Path) -> Layer:
    folder = next(folder for folder in MODULE_FOLDERS if path.is_relative_to(folder))
    part = path.relative_to(folder).parts[0]
    assert part in PACKAGES, f"{path.relative_to(ROOT)}: {part} belongs to no layer; add it to PACKAGES in {__file__}"
    layer = PACKAGES[part]
    return Layer(layer.name, layer.early, layer.late, layer.untouched, may_print=path.name in PRINTING)


def test_every_file_keeps_to_its_layer() -> None:
    found = [sentence for path in product_files()
             for sentence in violations(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)), layer_of(path))]
    assert not found, "\n" + "\n".join(found)


BAD = [
    (LIBRARY, "import os\nimport slicer\n", "bad.py:2: the library may not import slicer"),
    (LIBRARY, "def f():\n    from vtk.util import numpy_support\n", "bad.py:2: the library may not import vtk"),
    (LIBRARY, "try:\n    import torch.nn\nexcept ImportError:\n    pass\n",
     "bad.py:2: the library may not import torch at file scope"),
    (LIBRARY, "class A:\n    import onnxruntime\n", "bad.py:2: the library may not import onnxruntime at file scope"),
    (LIBRARY, "from LowDoseBMDTrainerLib.people import Person\n",
     "bad.py:1: the library may not import LowDoseBMDTrainerLib"),
    (LIBRARY, "import LowDoseBMDMRML.volumes\n", "bad.py:1: the library may not import LowDoseBMDMRML"),
    (LIBRARY, "import pandas\n", "bad.py:1: the library may not import pandas"),
    (LIBRARY, "def f():\n    print(1)\n", "bad.py:2: the library may not print"),
    (SCENE, "import qt\n", "bad.py:1: the scene layer may not import qt"),
    (SCENE, "import slicer\n\ndef f():\n    return slicer.mrmlScene\n",
     "bad.py:4: the scene layer may not use slicer.mrmlScene"),
    (SCENE, "from slicer import app\n", "bad.py:1: the scene layer may not use slicer.app"),
    (WINDOW, "def f():\n    import numpy as np\n", "bad.py:2: the window layer may not import numpy"),
    (WINDOW, "import psutil\n", "bad.py:1: the window layer may not import psutil at file scope"),
    (TRAINER, "import monai.losses\n", "bad.py:1: the Trainer's library may not import monai at file scope"),
    (TRAINER, "import qt\n", "bad.py:1: the Trainer's library may not import qt"),
]


@pytest.mark.parametrize(("layer", "source", "sentence"), BAD)
def test_the_check_catches_a_violation(layer: Layer, source: str, sentence: str) -> None:
    assert violations(source, "bad.py", layer) == [sentence]


GOOD = [
    (LIBRARY, "from __future__ import annotations\nfrom . import slicer\nfrom .vtk import torch\n"),
    (LIBRARY, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"),
    (LIBRARY, "def f():\n    import torch\n    def print_it(): ...\n    print_it()\n"),
    (SCENE, "import slicer\nnode = slicer.vtkMRMLSegmentationNode\n"),
    (TRAINER, "from LowDoseBMDLib.anatomy import LEVELS\n"),
]


@pytest.mark.parametrize(("layer", "source"), GOOD)
def test_the_check_lets_the_right_pass(layer: Layer, source: str) -> None:
    assert violations(source, "good.py", layer) == []


IMPORT_ALL = """
import importlib, pkgutil, sys
blocked = set(sys.argv[1].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is imported too early")

sys.meta_path.insert(0, Blocker())
for top in sys.argv[2:]:
    module = importlib.import_module(top)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), top + "."):
        try:
            importlib.import_module(found.name)
        except Exception as error:
            sys.exit(f"{found.name}: {type(error).__name__}: {error}")
"""


def import_everything(folders: list[Path], modules: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules, and all inside those that are packages, in a new Python that has no torch and the like."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(LATE | SLICER | {"onnx"}), *modules]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_library_and_both_command_lines_import_without_torch_monai_onnx_and_slicer() -> None:
    done = import_everything(list(MODULE_FOLDERS), ["LowDoseBMDLib", "LowDoseBMDTrainerLib.cli"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "something prints at import"


def test_the_blocker_catches_an_early_import(tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "__init__.py").write_text("")
    (tmp_path / "early" / "heavy.py").write_text("import torch\n")
    done = import_everything([tmp_path], ["early"])
    assert done.returncode == 1
    assert "early.heavy: ImportError: torch is imported too early" in done.stderr


def test_what_is_imported_is_declared() -> None:
    """A package that the library imports is a dependency; one that only the Trainer imports is in an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {distribution(line) for line in project["dependencies"]}
    extras = project["optional-dependencies"]
    late = {distribution(line) for name in ("torch", "cluster", "dicomweb") for line in extras[name]}
    allowed = {LIBRARY: core | late,
               TRAINER: core | {distribution(line) for line in extras["train"]}}
    missing = []
    for path in product_files():
        declared = allowed.get(PACKAGES[path.relative_to(ROOT).parts[1]])
        tree = ast.parse(path.read_text(encoding="utf-8"))
        missing += [f"{path.relative_to(ROOT)}:{entry.line}: {entry.package} is not declared in pyproject.toml"
                    for entry in imports(tree) if declared is not None and not entry.name.startswith("LowDoseBMD")
                    and entry.package.lower() not in declared]
    assert not missing, "\n" + "\n".join(missing)


def distribution(requirement: str) -> str:
    """Its name as it is imported, where the two differ by the hyphen only."""
    return re.match(r"[\w.-]+", requirement).group().lower().replace("-", "_")
