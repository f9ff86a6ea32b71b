"""What the panel writes about a measurement: pure text, so it is tested without Slicer on a real measurement.json."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.rois import LevelFinding

MODULE_FILE = Path(__file__).resolve().parents[2] / "LowDoseBMD" / "LowDoseBMD.py"


class AnyClass:
    """Stands in for Slicer's base classes, which the text does not use."""


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch):
    """LowDoseBMD.py, imported with empty stand-ins for what only Slicer has."""
    bases = ("", "Widget", "Logic", "Test")
    names = {"qt": {}, "slicer": {}, "slicer.i18n": {"tr": str, "translate": lambda _context, text: text},
             "slicer.ScriptedLoadableModule": {f"ScriptedLoadableModule{base}": AnyClass for base in bases}}
    for name, content in names.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("panel", MODULE_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(**findings: LevelFinding) -> dict:
    """A measurement.json as the library writes and the panel reads it."""
    measurement = measure(torso.ct(), torso.rois(**findings), TwoPointCalibration())
    return json.loads(json.dumps(to_dict(measurement, torso.ct().acquisition, {}, {})))


def test_number_comes_with_unit_interval_levels_and_state(panel) -> None:
    content = record()
    low, high = content["mean_vbmd_ci95"]
    text = panel.answerHtml(content)
    assert f"<b>vBMD {content['mean_vbmd_mg_cm3']:.0f} mg/cm³ (95 %: {low:.0f} to {high:.0f}), mean of L1, L2; " in text
    assert "provisional: uncalibrated scanner" in text
    assert all(f"{level}: " in text for level in ("T12", "L1", "L2"))


def test_refusal_gives_the_reasons_and_no_number(panel) -> None:
    cut = {name: LevelFinding(name, False, f"{name} is <cut> by the edge") for name in ("T12", "L1", "L2")}
    text = panel.answerHtml(record(**cut))
    assert text.startswith("<b>Not measured.</b>")
    assert "L1 is &lt;cut&gt; by the edge" in text, "text from the record is not markup"
    assert "mg/cm³" not in text


@pytest.mark.parametrize(("line", "value"), [
    ('{"progress": "bones", "fraction": 0.5}', {"progress": "bones", "fraction": 0.5}),
    ("WARNING something", {}), ("3", {}), ("", {})])
def test_lines_that_are_no_report_are_told_apart(panel, line: str, value: dict) -> None:
    assert panel.jsonObject(line) == value
