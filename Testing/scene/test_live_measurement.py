"""The number follows a reader's hand in a real scene, every step can be undone, and a stored scene reads the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import Proposal
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.geometry import lps_to_ras
from LowDoseBMDLib.rois import Rois

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from LowDoseBMDMRML import segments  # noqa: E402
from LowDoseBMDMRML.markups import read_keypoints  # noqa: E402
from LowDoseBMDMRML.remeasure import LiveMeasurement  # noqa: E402
from LowDoseBMDMRML.study import create_study, find_study  # noqa: E402
from LowDoseBMDMRML.volumes import ct_from_node, node_from_ct  # noqa: E402
from slicer_scene import reopened  # noqa: E402 - needs slicer
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

CALIBRATION = TwoPointCalibration()
HU, BELOW = torso.CHAIN_HU, torso.CHAIN
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


class Later:
    """What Slicer's timers do: runs what it was given when the test says that time has passed."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        self.waiting.append(work)

    def pass_time(self) -> int:
        """Number of things that were done."""
        work, self.waiting = self.waiting, []
        for entry in work:
            entry()
        return len(work)


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def later() -> Later:
    return Later()


def a_live_measurement(scene, later: Later, ct: CTVolume | None = None, rois: Rois | None = None) -> LiveMeasurement:
    volume_node = node_from_ct(scene, ct or torso.chain_ct(), "Chest")
    live = LiveMeasurement(create_study(scene, volume_node), ct_from_node(volume_node), later)
    live.load(Proposal(rois or torso.chain_rois(), {"bones": "1 abc"}, {"bones": 0.5}), CALIBRATION)
    return live


@pytest.fixture
def live(scene, later: Later) -> LiveMeasurement:
    return a_live_measurement(scene, later)


def paint(live: LiveMeasurement, name: str, box: tuple[slice, slice, slice], value: int = 1) -> None:
    """As a brush of the Segment Editor does: a labelmap in the CT's grid is merged into the segment."""
    image = slicer.vtkOrientedImageData()
    k, j, i = box
    image.SetExtent(i.start, i.stop - 1, j.start, j.stop - 1, k.start, k.stop - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = 1
    matrix = vtk.vtkMatrix4x4()
    live.study.volume_node.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    mode = logic.MODE_MERGE_MAX if value else logic.MODE_MERGE_MASK
    if not value:
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = 0
        mode = logic.MODE_MERGE_MIN
    assert logic.SetBinaryLabelmapToSegment(image, live.study.segmentation_node, name, mode, image.GetExtent())


def vbmds(live: LiveMeasurement) -> list[float | None]:
    return [level.vbmd_mg_cm3 for level in live.measurement.levels]


L1_SLAB = (slice(BELOW["L1"] + 2, BELOW["L1"] + 4), slice(25, 35), slice(30, 50))
"""400 voxels of bone."""


# --- live --------------------------------------------------------------------------------------------------

def test_a_fresh_study_shows_every_region_and_the_number(live: LiveMeasurement) -> None:
    segmentation = live.study.segmentation_node.GetSegmentation()
    assert {"vertebrae", "ribs", "trabecular_L1", "psoas_left", "fat_anterior"} <= set(segmentation.GetSegmentIDs())
    assert segmentation.GetSegment("body_L1").GetName() == "L1 vertebral body"
    assert live.state == "measured"
    assert live.measurement.mean_vbmd_mg_cm3 == pytest.approx(torso.vbmd(128.0))
    assert live.study.table_node.GetTable().GetColumnByName("vbmd").GetValue(0) == pytest.approx(torso.vbmd(128.0), abs=0.05)


def test_painting_bone_into_the_psoas_moves_the_mean_as_arithmetic_says(live: LiveMeasurement, later: Later) -> None:
    before = vbmds(live)
    paint(live, "psoas_left", L1_SLAB)
    paint(live, "psoas_left", L1_SLAB)
    assert vbmds(live) == before, "nothing is measured while the brush is down"
    assert later.pass_time() == 1, "a burst of strokes is measured once"
    muscle = (2 * 1600 * HU["muscle"] + 400 * HU["L1"]) / 3600
    assert live.measurement.muscle.hu_mean == pytest.approx(muscle)
    assert live.measurement.mean_vbmd_mg_cm3 == pytest.approx(torso.vbmd(128.0, muscle))
    assert (live.state, live.automatic_mean_mg_cm3) == ("edited", pytest.approx(torso.vbmd(128.0)))
    live.undo()
    assert (vbmds(live), live.state) == (before, "measured")
    assert live.rois.masks["psoas_left"].voxels.sum() == 1600
    live.redo()
    assert live.measurement.muscle.hu_mean == pytest.approx(muscle)


def test_an_edited_body_gets_a_new_core_in_its_segment(live: LiveMeasurement, later: Later) -> None:
    def core_voxels() -> int:
        segment = live.study.segmentation_node.GetSegmentation().GetSegment("trabecular_L1")
        image = segment.GetRepresentation("Binary labelmap")
        return int(np.count_nonzero(vtk_to_numpy(image.GetPointData().GetScalars())))

    before = core_voxels()
    paint(live, "body_L1", (slice(BELOW["L1"], BELOW["L1"] + 12), slice(20, 40), slice(44, 52)), value=0)
    later.pass_time()
    assert core_voxels() < before
    assert live.measurement.level("L1").edited
    assert later.pass_time() == 0, "what the program writes itself is no edit"
    live.undo()
    assert core_voxels() == before


def test_a_deleted_segment_is_an_empty_region_and_comes_back_with_undo(live: LiveMeasurement, later: Later) -> None:
    live.study.segmentation_node.GetSegmentation().RemoveSegment("trabecular_L2")
    later.pass_time()
    assert live.measurement.mean_of == ("T12", "L1")
    live.undo()
    assert live.measurement.mean_of == ("L1", "L2")
    assert live.study.segmentation_node.GetSegmentation().GetSegment("trabecular_L2").GetName() == "L2 trabecular bone"


def test_a_dragged_keypoint_is_read_when_it_is_let_go(live: LiveMeasurement, later: Later) -> None:
    node, before = live.study.keypoints_node, vbmds(live)
    x, y, z = lps_to_ras(torso.chain_body("T11").centroid_lps_mm(live.ct.geometry))
    node.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointStartInteractionEvent)
    node.SetNthControlPointPosition(0, x, y, z - 20.0)
    assert later.pass_time() == 0
    node.SetNthControlPointPosition(0, x, y, z)
    node.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    later.pass_time()
    assert live.measurement.level("T12").hu_mean == HU["T11"]
    live.undo()
    assert vbmds(live) == before
    placed = lps_to_ras(np.array(node.GetNthControlPointPosition(0)))
    np.testing.assert_allclose(placed, torso.chain_body("T12").centroid_lps_mm(live.ct.geometry), atol=1e-6)


def test_names_are_moved_and_moved_back_by_one_undo(live: LiveMeasurement) -> None:
    before = vbmds(live)
    live.shift_levels(1)
    assert [level.hu_mean for level in live.measurement.levels] == [HU["T11"], HU["T12"], HU["L1"]]
    assert live.state == "edited"
    live.undo()
    assert (vbmds(live), live.can_undo, live.can_redo) == (before, False, True)


def test_a_level_left_out_and_taken_in_again(live: LiveMeasurement) -> None:
    live.set_used("L2", False, "fracture")
    assert (live.measurement.mean_of, live.state) == (("T12", "L1"), "edited")
    live.undo()
    assert (live.measurement.mean_of, live.state) == (("L1", "L2"), "measured")


def test_another_calibration_is_a_step_and_moves_the_value_before_edits_too(live: LiveMeasurement) -> None:
    live.set_used("L2", False, "fracture")
    live.set_calibration(TwoPointCalibration(muscle_mg_cm3=60.0))
    assert live.automatic_mean_mg_cm3 == pytest.approx(60.0 + 78.0 * 138.0 / 150.0)
    live.undo()
    assert live.automatic_mean_mg_cm3 == pytest.approx(torso.vbmd(128.0))


def test_the_readers_region_overrides_a_refusal(scene, later: Later) -> None:
    refused = Flag("no_spine", Severity.REFUSED, "No vertebrae were found.")
    live = a_live_measurement(scene, later, rois=Rois(torso.chain_ct().geometry, flags=(refused,)))
    assert live.state == "refused" and live.measurement.mean_vbmd_mg_cm3 is None
    for name in ("trabecular_L1", "trabecular_L2", "psoas_left", "fat_anterior"):
        paint(live, name, torso.masks()[name].box)
    later.pass_time()
    assert live.state == "edited"
    assert live.measurement.mean_vbmd_mg_cm3 == pytest.approx(torso.vbmd(128.0))
    assert "no_spine" in [flag.code for flag in live.measurement.flags]


# --- any CT ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
def test_painting_reads_the_same_however_the_volume_is_stored(scene, later: Later, flips: tuple[int, int, int]) -> None:
    ct = torso.chain_ct()
    volume_node = node_from_ct(scene, ct, "Chest")
    array = np.ascontiguousarray(ct.hu[tuple(slice(None, None, f) for f in flips[::-1])])
    vtk_to_numpy(volume_node.GetImageData().GetPointData().GetScalars())[:] = array.ravel()
    matrix = ct.geometry.ijk_to_ras
    for axis, flip in enumerate(flips):
        if flip < 0:
            matrix[:3, 3] += matrix[:3, axis] * (ct.geometry.shape_kji[2 - axis] - 1)
            matrix[:3, axis] *= -1
    stored = vtk.vtkMatrix4x4()
    stored.DeepCopy(matrix.ravel().tolist())
    volume_node.SetIJKToRASMatrix(stored)
    live = LiveMeasurement(create_study(scene, volume_node), ct_from_node(volume_node), later)
    live.load(Proposal(torso.chain_rois()), CALIBRATION)
    slab = tuple(slice(n - s.stop, n - s.start) if f < 0 else s
                 for s, n, f in zip(L1_SLAB, ct.hu.shape, flips[::-1], strict=True))
    paint(live, "psoas_left", slab)
    later.pass_time()
    assert live.measurement.muscle.hu_mean == pytest.approx((2 * 1600 * HU["muscle"] + 400 * HU["L1"]) / 3600)


def test_a_moved_ct_makes_the_number_stale_and_it_cannot_be_signed(live: LiveMeasurement) -> None:
    vtk_to_numpy(live.study.volume_node.GetImageData().GetPointData().GetScalars())[0] = 5
    live.study.volume_node.GetImageData().Modified()
    assert live.state == "stale"
    with pytest.raises(ValueError, match="Measure again"):
        live.accept("AB", "", NOW)


# --- signing -----------------------------------------------------------------------------------------------

def test_an_accepted_study_is_locked_until_it_is_opened_again_with_a_reason(live: LiveMeasurement, later: Later) -> None:
    before = vbmds(live)
    with pytest.raises(ValueError, match="name or initials"):
        live.accept("  ", "", NOW)
    live.accept("AB", "fine", NOW)
    assert live.state == "accepted"
    paint(live, "psoas_left", L1_SLAB)
    later.pass_time()
    live.shift_levels(1)
    live.undo()
    assert vbmds(live) == before and "locked" in live.notice
    assert live.rois.masks["psoas_left"].voxels.sum() == 1600
    record = live.record({})
    assert record["review"]["reader"] == "AB" and record["review"]["signed_at"].startswith("2026-01-31T")
    with pytest.raises(ValueError, match="why"):
        live.reopen(" ")
    live.reopen("second look")
    paint(live, "psoas_left", L1_SLAB)
    later.pass_time()
    assert live.state == "edited"
    assert "accepted by AB" in live.record({})["reopened"][0] and "second look" in live.record({})["reopened"][0]


def test_nothing_is_accepted_while_the_names_are_in_doubt(scene, later: Later) -> None:
    doubt = Flag("level_uncertain", Severity.LIMITED, "Confirm the level.", "T12")
    live = a_live_measurement(scene, later, rois=replace(torso.chain_rois(), flags=(doubt,)))
    with pytest.raises(ValueError, match="Count them"):
        live.accept("AB", "", NOW)
    live.confirm_levels()
    live.accept("AB", "", NOW)
    assert live.state == "accepted"


def test_a_study_without_a_number_can_be_rejected_but_not_accepted(live: LiveMeasurement) -> None:
    for level in ("T12", "L1", "L2"):
        live.set_used(level, False, "metal")
    with pytest.raises(ValueError, match="no number to accept"):
        live.accept("AB", "", NOW)
    live.reject("AB", "metal", NOW)
    assert live.state == "rejected"


# --- saved and left ----------------------------------------------------------------------------------------

def test_a_reopened_scene_reads_the_same_to_the_last_digit(live: LiveMeasurement, later: Later, tmp_path: Path) -> None:
    live.shift_levels(1)
    live.set_used("L2", False, "crushed")
    paint(live, "psoas_left", L1_SLAB)
    live.study.scene.WriteToMRB(str(tmp_path / "unsaved.mrb"))
    assert later.pass_time() == 1 and live.rois.masks["psoas_left"].voxels.sum() == 2000, "saving takes in what was drawn"
    live.accept("AB", "fine", NOW)
    other = reopened(live.study.scene, tmp_path)
    volume_node = other.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    again = LiveMeasurement(find_study(other, volume_node), ct_from_node(volume_node), later)
    assert again.restore()
    assert again.measurement == live.measurement
    assert (again.review, again.state, again.networks) == (live.review, "accepted", {"bones": "1 abc"})
    again.reopen("look")
    again.shift_levels(-1)
    live.reopen("look")
    live.shift_levels(-1)
    assert again.measurement == live.measurement
    assert len(read_keypoints(again.study.keypoints_node)) == 3


def test_what_was_drawn_while_nobody_watched_is_taken_in_as_a_readers_edit(live: LiveMeasurement, tmp_path: Path) -> None:
    live.close()
    paint(live, "body_L1", (slice(BELOW["L1"], BELOW["L1"] + 12), slice(20, 40), slice(44, 52)), value=0)
    other = reopened(live.study.scene, tmp_path)
    volume_node = other.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    again = LiveMeasurement(find_study(other, volume_node), ct_from_node(volume_node), Later())
    assert again.restore()
    assert again.rois.edited == {"body_L1"} and again.state == "edited"
    assert again.measurement.level("L1").volume_mm3 < live.measurement.level("L1").volume_mm3


def test_everything_lies_in_one_folder_and_goes_with_the_study(scene, later: Later) -> None:
    volume_node = node_from_ct(scene, torso.chain_ct(), "Chest")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    nodes, items = scene.GetNumberOfNodes(), hierarchy.GetNumberOfItems()
    live = LiveMeasurement(create_study(scene, volume_node), ct_from_node(volume_node), later)
    live.load(Proposal(torso.chain_rois()), CALIBRATION)
    folder = live.study.folder_item
    for node in (live.study.segmentation_node, live.study.keypoints_node, live.study.table_node):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == folder
    live.close()
    live.study.remove()
    assert find_study(scene, volume_node) is None
    left = [scene.GetNthNode(n).GetClassName() for n in range(nodes, scene.GetNumberOfNodes())]
    assert left == []
    assert hierarchy.GetNumberOfItems() == items


def test_after_closing_nothing_is_watched(live: LiveMeasurement, later: Later) -> None:
    told: list[int] = []
    live.listeners.append(lambda: told.append(1))
    live.close()
    paint(live, "psoas_left", L1_SLAB)
    live.study.volume_node.GetImageData().Modified()
    assert later.pass_time() == 0 and told == []


def test_after_saving_strokes_read_one_region_and_not_all_that_slicer_put_into_one_image(
        live: LiveMeasurement, later: Later) -> None:
    segmentation = live.study.segmentation_node.GetSegmentation()
    segmentation.CollapseBinaryLabelmaps(False)
    live.flush()
    shared = segments.shared_regions(live.study.segmentation_node)
    assert not set(shared) & set(live.rois.masks), "all that is measured has an image of its own again"
    before = {name: mask.voxels.sum() for name, mask in live.rois.masks.items()}
    paint(live, "psoas_left", L1_SLAB)
    later.pass_time()
    assert {name: mask.voxels.sum() for name, mask in live.rois.masks.items()} == {**before, "psoas_left": 2000}
    assert live.rois.edited == {"psoas_left"}


def test_a_ct_put_under_a_transform_is_stale_and_fresh_again_when_measured_again(scene, live: LiveMeasurement) -> None:
    transform = slicer.vtkMRMLLinearTransformNode()
    scene.AddNode(transform)
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, 25.0)
    transform.SetMatrixTransformToParent(matrix)
    live.study.volume_node.SetAndObserveTransformNodeID(transform.GetID())
    assert live.state == "stale"
    live.study.volume_node.SetAndObserveTransformNodeID(None)
    live.load(Proposal(torso.chain_rois()), CALIBRATION)
    assert live.state == "measured"
