"""What Slicer lacks is said before anything is installed, and nothing that is there is replaced."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESOURCES = ROOT / "LowDoseBMD" / "Resources"
LISTS = (RESOURCES / "requirements.txt", ROOT / "LowDoseBMDTrainer" / "Resources" / "trainer_requirements.txt")


@pytest.fixture
def dependencies(a_slicer):
    return importlib.import_module("LowDoseBMDQt.dependencies")


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """A requirements file of one package that is there, one that is not, and one that is too old."""
    path = tmp_path / "requirements.txt"
    path.write_text("# why\nnumpy>=1.20\n\n--index-url x\nonnxruntime>=999\nNo_such.package>=2 # why\n", encoding="utf-8")
    (tmp_path / "package_sizes.json").write_text('{"onnxruntime": {"linux": 28.2, "win32": 28.2, "darwin": 28.2}}')
    return path


@pytest.fixture
def a_pip(dependencies, monkeypatch) -> types.SimpleNamespace:
    """Stands in for slicer.packaging.pip_install: keeps its arguments and the text of the constraints file."""
    import slicer.packaging

    pip = types.SimpleNamespace(calls=[], constraints="", error=None)

    def pip_install(requirements: list[str], constraints: str, requester: str) -> None:
        pip.calls.append(requirements)
        pip.constraints = Path(constraints).read_text(encoding="utf-8")
        if pip.error:
            raise pip.error

    monkeypatch.setattr(slicer.packaging, "pip_install", pip_install)
    return pip


@pytest.fixture
def answers(dependencies, monkeypatch):
    """Answers to the questions to come, and the texts that were asked."""
    import slicer

    asked = types.SimpleNamespace(texts=[], answers=[], restarts=0)

    def ask(text: str, *_arguments: object, **_options: object) -> bool:
        asked.texts.append(text)
        return asked.answers.pop(0)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", ask)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", ask)
    monkeypatch.setattr(slicer.util, "restart", lambda: setattr(asked, "restarts", asked.restarts + 1), raising=False)
    return asked


def test_what_is_missing_is_known_without_asking(dependencies, requirements: Path) -> None:
    lacking = dependencies.missing(requirements)
    assert [(r.name, r.specification) for r in lacking] == [
        ("onnxruntime", "onnxruntime>=999"), ("no-such-package", "No_such.package>=2")]
    assert lacking[0].megabytes == 28.2 and lacking[0].purpose
    assert lacking[1].megabytes is None


def test_every_package_that_is_asked_for_has_a_size_and_a_purpose(dependencies) -> None:
    import json

    sizes = json.loads((RESOURCES / dependencies.SIZES_FILE).read_text(encoding="utf-8"))
    lines = [line for path in LISTS for line in dependencies.specifications(path.read_text(encoding="utf-8"))]
    for name in map(dependencies.packageName, lines):
        assert set(sizes[name]) == {"linux", "win32", "darwin"}
        assert dependencies._purpose(name)


def test_the_question_names_sizes_and_their_sum(dependencies) -> None:
    wanted = [dependencies.Requirement("onnxruntime", "onnxruntime>=1.20", "runs the networks", 28.2),
              dependencies.Requirement("jinja2", "jinja2>=3.1", "writes the report", 0.2)]
    text = dependencies.question(wanted)
    assert "onnxruntime>=1.20 (runs the networks, about 28 MB)" in text
    assert "jinja2>=3.1 (writes the report, about 0.2 MB)" in text
    assert "about 28 MB from the Python package index" in text
    offline = dependencies.question(wanted, "/media/usb stick")
    assert "/media/usb stick; nothing is downloaded" in offline
    unknown = dependencies.question([dependencies.Requirement("x", "x", "", None)])
    assert "- x\n" in unknown and "MB" not in unknown


def test_what_is_installed_is_held_but_what_is_asked_for(dependencies) -> None:
    text = dependencies.constraints({"numpy": "2.4.6", "onnxruntime": "1.1", "slicer-thing": "5.12-dirty build"},
                                    {"onnxruntime"})
    assert text == "numpy==2.4.6\n"


def test_nothing_is_asked_when_nothing_is_missing(dependencies, tmp_path: Path, a_pip, answers) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\nnothing>=1; sys_platform == 'none'\n")
    (tmp_path / "package_sizes.json").write_text("{}")
    dependencies.ensure(tmp_path / "requirements.txt")
    assert not a_pip.calls and not answers.texts


def test_declining_installs_nothing_and_says_what_follows(dependencies, requirements: Path, a_pip, answers) -> None:
    answers.answers = [False]
    with pytest.raises(dependencies.NotInstalled, match="onnxruntime, no-such-package .*press Measure again"):
        dependencies.ensure(requirements)
    assert not a_pip.calls


def test_bundled_packages_are_held_where_they_are(dependencies, requirements: Path, a_pip, answers) -> None:
    answers.answers = [True]
    with pytest.raises(dependencies.NotInstalled, match="still missing"):
        dependencies.ensure(requirements)
    assert a_pip.calls[0][:2] == ["onnxruntime>=999", "No_such.package>=2"]
    assert "--no-index" not in a_pip.calls[0]
    held = a_pip.constraints.splitlines()
    assert f"numpy=={metadata.version('numpy')}" in held
    assert not any(line.startswith("onnxruntime==") for line in held)


def test_a_folder_of_wheels_takes_the_place_of_the_network(dependencies, requirements: Path, a_pip, answers,
                                                           tmp_path: Path) -> None:
    wheels = tmp_path / "Räder 1"
    wheels.mkdir()
    answers.answers = [True]
    a_pip.error = subprocess.CalledProcessError(1, "pip")
    with pytest.raises(dependencies.NotInstalled, match="Räder 1 hold wheels for this system"):
        dependencies.ensure(requirements, str(wheels))
    assert a_pip.calls[0][-3:] == ["--no-index", "--find-links", str(wheels)]
    with pytest.raises(dependencies.NotInstalled, match="is not there"):
        dependencies.ensure(requirements, str(tmp_path / "none"))
    assert len(answers.texts) == 1, "a folder that is not there is said before anything is asked"


def test_a_failed_download_says_the_way_without_a_network(dependencies, requirements: Path, a_pip, answers) -> None:
    answers.answers, a_pip.error = [True], subprocess.CalledProcessError(1, "pip")
    with pytest.raises(dependencies.NotInstalled, match="Is there a network"):
        dependencies.ensure(requirements)


def test_the_arguments_are_what_pip_takes(dependencies, tmp_path: Path) -> None:
    """The real pip installs from a folder of wheels with these arguments, and does not replace what is held."""
    wheels = tmp_path / "Räder 1"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "small_a", version, "")
    make_wheel(wheels, "small_b", "1.0", "Requires-Dist: small_a>=1\n")
    held = tmp_path / "constraints.txt"
    held.write_text(dependencies.constraints({"small-a": "1.0"}, {"small-b"}), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", *dependencies.pipArguments(["small_b>=1"], str(wheels)), "-c",
               str(held), "--target", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "site").glob("*.dist-info")) == [
        "small_a-1.0.dist-info", "small_b-1.0.dist-info"]


def make_wheel(folder: Path, name: str, version: str, more: str) -> None:
    info = f"{name}-{version}.dist-info"
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_a_restart_is_needed_when_something_in_use_changed(dependencies, answers) -> None:
    before = {"numpy": "1.0", "scipy": "1.0", "never-imported": "1.0"}
    after = {"numpy": "2.0", "scipy": "1.0", "never-imported": "2.0", "onnxruntime": "1.0"}
    changed = dependencies.loadedInAnotherVersion(before, after, ["numpy.linalg", "scipy", "os"])
    assert changed == ["numpy"]
    answers.answers = [False]
    dependencies.offerRestart(changed)
    dependencies.offerRestart([])
    assert answers.restarts == 0 and len(answers.texts) == 1 and "numpy" in answers.texts[0]
    answers.answers = [True]
    dependencies.offerRestart(changed)
    assert answers.restarts == 1


def test_the_wheel_folder_is_remembered_in_the_settings(dependencies) -> None:
    import slicer

    assert dependencies.wheelFolder() == ""
    slicer.app.userSettings().setValue(dependencies.WHEEL_FOLDER_SETTING, "/media/stick")
    assert dependencies.wheelFolder() == "/media/stick"


@pytest.fixture
def without_torch(dependencies, monkeypatch) -> None:
    monkeypatch.setattr(dependencies, "torchInstalled", lambda: False)


def test_torch_never_comes_from_pip(dependencies, without_torch, a_pip, answers) -> None:
    with pytest.raises(dependencies.NotInstalled, match="extension PyTorch"):
        dependencies.ensureTorch()
    assert not a_pip.calls and not answers.texts


@pytest.mark.parametrize(("answer", "result", "sentence"), [
    (False, "torch", "was not installed"), (True, None, "was not installed"), (True, RuntimeError("x"), "could not be")])
def test_torch_is_offered_through_its_extension(dependencies, without_torch, a_pip, answers, monkeypatch, answer: bool,
                                                result: object, sentence: str) -> None:
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation: bool, torchVersionRequirement: str) -> object:  # noqa: N802, N803
            asked.append(torchVersionRequirement)
            if isinstance(result, Exception):
                raise result
            return result

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    answers.answers = [answer]
    with pytest.raises(dependencies.NotInstalled, match=sentence):
        dependencies.ensureTorch()
    assert asked == ([dependencies.TORCH_REQUIREMENT] if answer else [])
    assert "GB" in answers.texts[0] and not a_pip.calls


def test_what_training_needs_is_asked_for_in_one_place_and_torch_comes_first(dependencies, without_torch, tmp_path: Path,
                                                                            a_pip, monkeypatch) -> None:
    from LowDoseBMDQt.packages_box import PackagesBox

    ui = types.SimpleNamespace(packagesFrame=types.SimpleNamespace(), packagesLabel=types.SimpleNamespace())
    buttons = types.SimpleNamespace(connect=lambda *_arguments: None)
    ui.installButton = ui.wheelsButton = buttons
    order: list[str] = []
    monkeypatch.setattr(dependencies, "installTorch", lambda _without: order.append("torch"))
    monkeypatch.setattr(dependencies, "install", lambda wanted, _wheels: order.extend(wanted))
    path = tmp_path / "trainer_requirements.txt"
    path.write_text("monai>=999\n")
    box = PackagesBox(ui, str(path), lambda: None, withTorch=True)
    assert not box.complete() and ui.packagesFrame.visible
    assert "3 GB" in ui.packagesLabel.text and "monai&gt;=999" in ui.packagesLabel.text and "2 MB" in ui.packagesLabel.text
    box._install("")
    assert order == ["torch", "monai>=999"]
