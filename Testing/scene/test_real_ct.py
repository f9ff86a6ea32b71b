"""A real chest CT through the scene: regions, codes, table, and the same numbers after saving and reopening."""

from __future__ import annotations

from pathlib import Path

import pytest
from LowDoseBMDLib.anatomy import LEVELS, STRUCTURES
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.exchange import Proposal
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.segmentation import terminology_entry
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.pipeline import open_models, propose_rois

slicer = pytest.importorskip("slicer")

from LowDoseBMDMRML.remeasure import LiveMeasurement  # noqa: E402
from LowDoseBMDMRML.study import create_study, find_study  # noqa: E402
from LowDoseBMDMRML.volumes import ct_from_node, node_from_ct  # noqa: E402
from slicer_scene import reopened  # noqa: E402 - needs slicer


@pytest.mark.slow
def test_a_real_ct_is_measured_stored_and_read_again_to_the_last_digit(shared_data: Path, tmp_path: Path) -> None:
    scene, ct, waiting = slicer.vtkMRMLScene(), read_ct(shared_data / "lidc0001" / "ct.nii.gz"), []
    rois = propose_rois(ct, open_models())
    volume_node = node_from_ct(scene, ct, "LIDC-IDRI-0001")
    live = LiveMeasurement(create_study(scene, volume_node), ct_from_node(volume_node), waiting.append)
    live.load(Proposal(rois), TwoPointCalibration())

    assert live.measurement == measure(ct, rois, TwoPointCalibration()), "the scene reads as the command line does"
    segmentation = live.study.segmentation_node.GetSegmentation()
    bones = ("vertebrae", "clavicles", "scapulae", "ribs")
    for name in (*bones, *(f"{part}_{level}" for part in ("body", "trabecular") for level in LEVELS), "psoas_left",
                 "psoas_right", "fat_anterior"):
        assert segmentation.GetSegment(name).GetTerminology() == terminology_entry(STRUCTURES[name])
    table = live.study.table_node.GetTable()
    assert table.GetColumnByName("vbmd").GetValue(0) == round(live.measurement.mean_vbmd_mg_cm3, 1)

    live.shift_levels(1)
    other = reopened(scene, tmp_path)
    again_node = other.GetFirstNodeByName("LIDC-IDRI-0001")
    again = LiveMeasurement(find_study(other, again_node), ct_from_node(again_node), waiting.append)
    assert again.restore()
    assert again.measurement == live.measurement
    again.shift_levels(-1)
    live.shift_levels(-1)
    assert again.measurement == live.measurement
