"""Parts of the panel that other programs of the application meet: keys, the DICOM database, sample data, the 3D view."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("slicer_adapter")
import slicer
import small_torso as torso
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.exchange import Proposal, write_ct
from LowDoseBMDMRML.remeasure import LiveMeasurement
from LowDoseBMDMRML.segments import SURFACE
from LowDoseBMDMRML.study import create_study
from LowDoseBMDMRML.surfaces import SurfaceMaker, missing_surfaces
from LowDoseBMDMRML.volumes import acquisition_of, ct_from_node, node_from_ct
from PySide6 import QtCore, QtTest, QtWidgets
from reader import torso_ct, torso_rois


@pytest.fixture
def part(a_slicer):
    """Imports a file of the panel."""
    return lambda name: importlib.import_module(f"LowDoseBMDQt.{name}")


# --- keys --------------------------------------------------------------------------------------------------------

@pytest.fixture
def pressed(a_slicer, part) -> Any:
    """A window with a text field and the keys M and Return; says which were heard."""
    heard: list[str] = []
    shortcuts = part("shortcuts").Shortcuts({key: (lambda key=key: heard.append(key)) for key in ("M", "Return")})
    field, other = QtWidgets.QLineEdit(), QtWidgets.QPushButton("elsewhere")
    box = QtWidgets.QWidget()
    layout = QtWidgets.QVBoxLayout(box)
    layout.addWidget(field)
    layout.addWidget(other)
    a_slicer.window.setCentralWidget(box)
    a_slicer.window.show()
    a_slicer.window.activateWindow()
    shortcuts.install()
    a_slicer.wait(20)
    yield SimpleNamespace(heard=heard, field=field, other=other, shortcuts=shortcuts, session=a_slicer)
    shortcuts.remove()


def press(pressed: Any, widget: QtWidgets.QWidget, key: QtCore.Qt.Key) -> None:
    widget.setFocus()
    pressed.session.wait(10)
    QtTest.QTest.keyClick(widget, key)
    pressed.session.wait(10)


def test_keys_work_in_the_window_and_leave_a_text_field_alone(pressed: Any) -> None:
    press(pressed, pressed.other, QtCore.Qt.Key.Key_M)
    assert pressed.heard == ["M"]
    press(pressed, pressed.field, QtCore.Qt.Key.Key_M)
    press(pressed, pressed.field, QtCore.Qt.Key.Key_Return)
    assert pressed.heard == ["M"] and pressed.field.text() == "m"
    press(pressed, pressed.other, QtCore.Qt.Key.Key_Return)
    assert pressed.heard == ["M", "Return"]


def test_keys_are_gone_when_the_module_is_left(pressed: Any) -> None:
    pressed.shortcuts.remove()
    press(pressed, pressed.other, QtCore.Qt.Key.Key_M)
    assert pressed.heard == []


# --- DICOM database ----------------------------------------------------------------------------------------------

class SmallDatabase:
    """A ctkDICOMDatabase that holds the headers of two slices; asked for a patient's name, it fails the test."""

    isOpen = True
    values = {"0008,0060": "CT", "0008,0070": "GE MEDICAL SYSTEMS", "0008,1090": "LightSpeed VCT", "0018,0060": "100",
              "0018,1210": "STANDARD", "0018,0050": "1.25", "0018,0010": "", "0008,0020": "20200102",
              "0020,000d": "1.2.3", "0020,000e": "1.2.3.4", "0010,1010": "057Y", "0010,0040": "F"}

    def fileForInstance(self, uid: str) -> str:
        return f"/archive/{uid}.dcm" if uid in ("1.1", "1.2") else ""

    def instanceValue(self, uid: str, tag: str) -> str:
        assert uid == "1.1" and tag not in ("0010,0010", "0010,0020", "0010,0030"), "an identity was asked for"
        return self.values.get(tag, "")


def test_facts_of_the_acquisition_come_from_the_dicom_database(a_slicer, part, monkeypatch) -> None:
    monkeypatch.setattr(slicer, "dicomDatabase", SmallDatabase(), raising=False)
    node = node_from_ct(slicer.mrmlScene, torso_ct(), "2: Chest")
    acquisition = part("acquisition")
    assert acquisition.acquisitionFromDicom(node) is None, "a volume that came from elsewhere"
    node.SetAttribute("DICOM.instanceUIDs", "1.1 1.2")
    found = acquisition.acquisitionFromDicom(node)
    assert (found.kvp, found.kernel, found.slice_thickness_mm) == (100.0, "STANDARD", 1.25)
    assert (found.scanner, found.contrast_agent, found.study_date) == ("LightSpeed VCT", None, "20200102")
    assert (found.patient_age_years, found.patient_sex) == (57.0, "F")
    assert [str(path) for path in acquisition.dicomFiles(node)] == ["/archive/1.1.dcm", "/archive/1.2.dcm"]
    node.SetAttribute("DICOM.instanceUIDs", "1.1 9.9")
    assert acquisition.dicomFiles(node) == (), "a slice that is gone"


def test_the_patient_is_shown_and_stored_nowhere(a_slicer, part, monkeypatch) -> None:
    monkeypatch.setattr(slicer, "dicomDatabase", SmallDatabase(), raising=False)
    widget = a_slicer.open("LowDoseBMD")
    node = node_from_ct(slicer.mrmlScene, torso_ct(), "2: Chest")
    node.SetAttribute("DICOM.instanceUIDs", "1.1 1.2")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe^Jane")
    hierarchy.SetItemAttribute(patient, "Level", "Patient")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(patient, node), patient)
    widget.ui.volumeSelector.setCurrentNode(node)
    a_slicer.wait(10)
    assert "<b>Doe^Jane</b>" in widget.ui.factsLabel.text and "100 kV" in widget.ui.factsLabel.text
    assert acquisition_of(node).kvp == 100.0
    attributes = " ".join(f"{name}={node.GetAttribute(name)}" for name in node.GetAttributeNames())
    assert "Doe" not in attributes and "57" in attributes


# --- sample data -------------------------------------------------------------------------------------------------

def test_the_phantom_is_offered_as_sample_data_and_made_once(a_slicer, part, monkeypatch, tmp_path: Path) -> None:
    offered: list[dict[str, Any]] = []
    module = ModuleType("SampleData")
    module.SampleDataLogic = SimpleNamespace(registerCustomSampleDataSource=lambda **given: offered.append(given))
    monkeypatch.setitem(sys.modules, "SampleData", module)
    a_slicer.load("LowDoseBMD")
    a_slicer.start_up()
    source, = offered
    assert source["category"] == "LowDoseBMD" and Path(source["thumbnailFileName"]).is_file()
    write_ct(Path(slicer.app.cachePath) / "LowDoseBMD-phantom-1", torso_ct(kvp=90.0))
    source["customDownloader"](None)
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert "synthetic" in node.GetName() and acquisition_of(node).kvp == 90.0


# --- 3D ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def a_live(a_slicer) -> LiveMeasurement:
    from LowDoseBMDLib.calibration import TwoPointCalibration

    node = node_from_ct(slicer.mrmlScene, torso_ct(), "2: Chest")
    live = LiveMeasurement(create_study(slicer.mrmlScene, node), ct_from_node(node), lambda run: run())
    live.load(Proposal(torso_rois()), TwoPointCalibration())
    yield live
    live.close()


def test_a_surface_lies_round_the_voxels_of_its_segment(a_live: LiveMeasurement) -> None:
    node = a_live.study.segmentation_node
    assert "trabecular_L1" in missing_surfaces(node, STRUCTURES)
    maker = SurfaceMaker(node, "trabecular_L1")
    maker._thread.join(20)
    assert maker.done and maker.finish()
    surface = node.GetSegmentation().GetSegment("trabecular_L1").GetRepresentation(SURFACE)
    mask = a_live.rois.masks["trabecular_L1"]
    low, high = (torso.geometry().to_lps([n + shift for n, shift in zip(corner, (-0.5 if end else 0.5,) * 3, strict=True)])
                 for end, corner in ((1, mask.start_kji), (0, [each.stop - 1 for each in mask.box])))
    expected = [-high[0], -low[0], -high[1], -low[1], low[2], high[2]]
    assert surface.GetBounds() == pytest.approx(expected, abs=1.0), "RAS, to within a voxel"


def test_a_surface_of_what_was_drawn_meanwhile_is_not_kept(a_live: LiveMeasurement) -> None:
    node = a_live.study.segmentation_node
    maker = SurfaceMaker(node, "trabecular_L1")
    maker._thread.join(20)
    node.GetSegmentation().GetSegment("trabecular_L1").GetRepresentation("Binary labelmap").Modified()
    assert not maker.finish()


def test_all_that_is_shown_in_3d_gets_a_surface_by_itself(a_slicer, part, a_live: LiveMeasurement) -> None:
    whole: list[bool] = []
    bones = part("bones3d").Bones3D(lambda: whole.append(True))
    node = a_live.study.segmentation_node
    bones.show(node)
    shown = [name for name, each in STRUCTURES.items() if each.group in ("bone", "trabecular")]
    a_slicer.wait_until(lambda: not missing_surfaces(node, shown), 20.0)
    a_slicer.wait_until(lambda: bool(whole), 5.0)
    assert whole == [True], "said once"
    assert node.GetDisplayNode().GetSegmentVisibility3D("trabecular_L1")
    assert not node.GetDisplayNode().GetSegmentVisibility3D("psoas_left")
    bones.close()
