"""A case in a scene: what is drawn there is what is saved, stroke by stroke, and can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import BONES, LEVELS
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, Status
from LowDoseBMDTrainerLib.masks import apart, without

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from LowDoseBMDMRML.volumes import node_grid  # noqa: E402 - needs slicer
from LowDoseBMDTrainerMRML.case_nodes import ANNOTATED, CaseNodes, create_case_nodes, set_segment_status  # noqa: E402
from LowDoseBMDTrainerMRML.live_case import LiveCase  # noqa: E402
from LowDoseBMDTrainerMRML.painting import (  # noqa: E402
    ADAPTIVE,
    CLEAR,
    EVERYTHING,
    SQUARE,
    VISIBLE,
    Brush,
    Rules,
    dab,
    painted,
)
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

VERTEBRAE = torso.box((12, 20, 28), (30, 20, 24))


def paint(nodes: CaseNodes, name: str, mask: Mask, erase: bool = False) -> None:
    """A stroke: the voxels of ``mask`` are put into a segment, or taken out of it, as the Segment Editor's brush does."""
    image = slicer.vtkOrientedImageData()
    k, j, i = ((part.start, part.stop - 1) for part in mask.box)
    image.SetExtent([*i, *j, *k])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = (mask.voxels != erase).ravel()
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node_grid(nodes.volume_node).ijk_to_ras.ravel().tolist())
    image.SetImageToWorldMatrix(matrix)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    mode = logic.MODE_MERGE_MIN if erase else logic.MODE_MERGE_MAX
    assert logic.SetBinaryLabelmapToSegment(image, nodes.segmentation_node, name, mode, image.GetExtent())


class Later:
    """Gathers what is deferred, until the stroke is over."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def let_go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def a_live_case(later: Later) -> LiveCase:
    nodes = create_case_nodes(slicer.vtkMRMLScene(), "0001", torso.ct())
    keypoints = (Keypoint("L1", (0.0, 40.0, -340.0)),)
    return LiveCase(nodes, torso.ct(), Labels(torso.geometry(), {"vertebrae": VERTEBRAE}, keypoints), later)


def voxels(live: LiveCase, name: str) -> int:
    return int(np.count_nonzero(live.labels.masks[name].voxels))


def test_every_label_can_be_drawn_and_a_case_comes_back_as_it_was(a_live_case: LiveCase) -> None:
    segmentation = a_live_case.nodes.segmentation_node.GetSegmentation()
    assert tuple(segmentation.GetSegmentIDs()) == ANNOTATED
    assert segmentation.GetSegment("ribs").GetName() == "Ribs"
    a_live_case.flush()
    assert set(a_live_case.labels.masks) == {"vertebrae"}, "labels that nobody drew are not saved as looked for and absent"
    assert a_live_case.labels.masks["vertebrae"].same_as(VERTEBRAE)
    assert [point.level for point in a_live_case.labels.keypoints] == ["L1"]
    np.testing.assert_allclose(a_live_case.labels.keypoints[0].position_lps_mm, (0.0, 40.0, -340.0))


def test_a_stroke_is_taken_in_once_and_undone_as_a_whole(a_live_case: LiveCase, later: Later) -> None:
    told = []
    a_live_case.listeners.append(lambda: told.append(a_live_case.labels))
    paint(a_live_case.nodes, "ribs", torso.box((5, 5, 5), (1, 4, 6)))
    paint(a_live_case.nodes, "ribs", torso.box((6, 5, 5), (1, 4, 6)))
    later.let_go()
    assert len(told) == 1 and voxels(a_live_case, "ribs") == 48
    paint(a_live_case.nodes, "ribs", torso.box((6, 5, 5), (1, 4, 6)), erase=True)
    later.let_go()
    assert voxels(a_live_case, "ribs") == 24
    a_live_case.undo()
    assert voxels(a_live_case, "ribs") == 48
    a_live_case.undo()
    assert "ribs" not in a_live_case.labels.masks and not a_live_case.can_undo
    a_live_case.redo()
    a_live_case.redo()
    assert voxels(a_live_case, "ribs") == 24 and not a_live_case.can_redo
    a_live_case.flush()
    assert voxels(a_live_case, "ribs") == 24, "undo and redo are in the scene, not in the copy alone"


def test_labels_that_were_given_to_save_stay_as_they_were(a_live_case: LiveCase, later: Later) -> None:
    given = a_live_case.labels
    paint(a_live_case.nodes, "vertebrae", VERTEBRAE, erase=True)
    later.let_go()
    assert a_live_case.labels.masks["vertebrae"].empty, "erased: looked for and not there"
    assert given.masks["vertebrae"].same_as(VERTEBRAE)


def test_a_keypoint_is_placed_dragged_and_undone(a_live_case: LiveCase, later: Later) -> None:
    a_live_case.place("T12", (1.0, 2.0, 3.0))
    node = a_live_case.nodes.keypoints_node
    node.SetNthControlPointPosition(node.GetControlPointIndexByLabel("T12"), -5.0, -2.0, 3.0)  # RAS
    later.let_go()
    where = {point.level: point.position_lps_mm for point in a_live_case.labels.keypoints}
    np.testing.assert_allclose(where["T12"], (5.0, 2.0, 3.0))
    a_live_case.undo()
    where = {point.level: point.position_lps_mm for point in a_live_case.labels.keypoints}
    np.testing.assert_allclose(where["T12"], (1.0, 2.0, 3.0))
    a_live_case.undo()
    assert [point.level for point in a_live_case.labels.keypoints] == ["L1"]
    node.UnsetNthControlPointPosition(node.GetControlPointIndexByLabel("L1"))
    a_live_case.flush()
    assert a_live_case.labels.keypoints == ()


def test_painting_a_bone_over_all_takes_nothing_from_the_body_inside_it(a_live_case: LiveCase, later: Later) -> None:
    body = torso.box((30, 22, 30), (6, 4, 4))
    a_live_case.replace({"body_L1": body})
    a_live_case.active = "ribs"
    stroke = torso.box((30, 22, 30), (6, 4, 2))
    paint(a_live_case.nodes, "ribs", stroke)
    for name in ("body_L1", "vertebrae"):  # "over all": the editor takes the stroke from every other segment
        paint(a_live_case.nodes, name, stroke, erase=True)
    later.let_go()
    assert voxels(a_live_case, "ribs") == 48
    assert voxels(a_live_case, "vertebrae") == VERTEBRAE.voxels.size - 48
    assert a_live_case.labels.masks["body_L1"].same_as(body)
    a_live_case.flush()
    assert voxels(a_live_case, "body_L1") == body.voxels.size, "it is put back in the scene too"


def test_a_locked_case_puts_back_what_is_drawn(a_live_case: LiveCase, later: Later) -> None:
    a_live_case.lock(True)
    paint(a_live_case.nodes, "ribs", torso.box((5, 5, 5), (2, 2, 2)))
    later.let_go()
    assert set(a_live_case.labels.masks) == {"vertebrae"} and not a_live_case.can_undo
    a_live_case.lock(False)
    a_live_case.flush()
    assert set(a_live_case.labels.masks) == {"vertebrae"}


@pytest.mark.parametrize("status", Status)
def test_the_status_of_a_case_is_that_of_its_segments(a_live_case: LiveCase, status: Status) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    set_segment_status(a_live_case.nodes, status)
    names = {Status.NOT_STARTED: "Not started", Status.IN_PROGRESS: "In progress", Status.COMPLETED: "Completed",
             Status.FLAGGED: "Flagged"}
    segmentation = a_live_case.nodes.segmentation_node.GetSegmentation()
    found = {logic.GetSegmentStatusAsHumanReadableString(logic.GetSegmentStatus(segmentation.GetSegment(name)))
             for name in BONES}
    assert found == {names[status]}


def test_a_case_leaves_nothing_in_the_scene(a_live_case: LiveCase) -> None:
    scene = a_live_case.nodes.scene
    a_live_case.close()
    a_live_case.nodes.remove()
    left = [scene.GetNthNode(n).GetClassName() for n in range(scene.GetNumberOfNodes())]
    assert not [name for name in left if "Segmentation" in name or "Volume" in name or "Markups" in name], left


def test_the_label_under_a_point_and_the_slices_that_hold_it(a_live_case: LiveCase) -> None:
    assert a_live_case.label_at(*_ras(20, 25, 30)) == ("vertebrae", torso.HU["L2"])
    assert a_live_case.label_at(*_ras(2, 2, 2)) == ("", 0.0)
    assert a_live_case.label_at(1e6, 0.0, 0.0) == ("", None)
    a_live_case.replace({"ribs": Mask(np.array([[[True]], [[False]], [[True]]]), (3, 4, 5))})
    held = a_live_case.slices_of("ribs")
    assert len(held) == torso.SHAPE_KJI[0]
    assert [k for k, there in enumerate(held) if there] == [3, 5]
    assert not any(a_live_case.slices_of("clavicles"))
    assert a_live_case.slice_at(*_ras(7, 0, 0)) == 7
    np.testing.assert_allclose(a_live_case.slice_ras(7)[2], _ras(7, 0, 0)[2])


def _ras(k: int, j: int, i: int) -> tuple[float, float, float]:
    x, y, z = torso.geometry().to_lps(np.array([k, j, i]))
    return -float(x), -float(y), float(z)


def test_keypoints_of_all_levels_and_a_proposal_are_one_step(a_live_case: LiveCase) -> None:
    before = a_live_case.labels
    points = tuple(Keypoint(level, (0.0, 0.0, float(n))) for n, level in enumerate(LEVELS))
    a_live_case.replace({"ribs": torso.box((1, 1, 1), (2, 2, 2))}, points)
    assert {point.level for point in a_live_case.labels.keypoints} == set(LEVELS)
    a_live_case.undo()
    assert a_live_case.labels is before and replace(before).keypoints == before.keypoints


# --- our own brushes -----------------------------------------------------------------------------------------------

def test_a_square_brush_is_as_wide_as_it_says_in_the_slice_that_is_shown() -> None:
    ct = torso.ct()  # voxels of 1.5 x 1.5 x 2 mm
    flat = dab(ct, Brush(SQUARE, 9.0), _ras(20, 30, 40), axis=0)
    assert flat.voxels.shape == (1, 7, 7) and flat.start_kji == (20, 27, 37)
    assert dab(ct, Brush(SQUARE, 9.0), _ras(20, 30, 40), axis=2).voxels.shape == (5, 7, 1)
    assert dab(ct, Brush(SQUARE, 9.0, flat=False), _ras(20, 30, 40), axis=0).voxels.shape == (5, 7, 7)
    assert dab(ct, Brush(SQUARE, 9.0), (1e6, 0.0, 0.0), axis=0).empty


def test_an_adaptive_brush_stops_at_the_edge_of_a_body() -> None:
    body = torso.masks()["body_L2"]
    mask = dab(torso.ct(L2=500.0), Brush(ADAPTIVE, 30.0), _ras(15, 25, 30), axis=0)
    assert not mask.empty and not without(mask, body).voxels.any()


def test_the_rules_of_painting_over() -> None:
    ct = torso.ct()
    masks = {"vertebrae": torso.box((10, 10, 10), (4, 4, 4)), "ribs": torso.box((10, 10, 14), (4, 4, 4)),
             "body_L1": torso.box((10, 10, 10), (4, 4, 4))}
    stroke = torso.box((10, 10, 12), (1, 1, 6))  # two voxels of vertebrae, four of ribs
    count = {name: int(mask.voxels.sum()) for name, mask in masks.items()}

    def after(rules: Rules) -> dict[str, int]:
        changed = painted(masks, ct, "clavicles", stroke, rules)
        return {name: int(mask.voxels.sum()) - count.get(name, 0) for name, mask in changed.items()}

    assert after(Rules(EVERYTHING)) == {"clavicles": 6, "vertebrae": -2, "ribs": -4}
    assert after(Rules(VISIBLE, {"ribs"})) == {"clavicles": 6, "ribs": -4}
    assert after(Rules(CLEAR)) == {}
    assert after(Rules("vertebrae")) == {"clavicles": 2, "vertebrae": -2}
    assert after(Rules(EVERYTHING, range_hu=(1000.0, 2000.0))) == {}
    assert sum(after(Rules(EVERYTHING, range_hu=(-2000.0, 2000.0))).values()) == 0


def test_a_stroke_of_our_brush_is_one_step_of_undo(a_live_case: LiveCase) -> None:
    a_live_case.paint("ribs", torso.box((2, 2, 2), (1, 2, 2)), Rules(), begins=True)
    a_live_case.paint("ribs", torso.box((2, 4, 2), (1, 2, 2)), Rules(), begins=False)
    assert voxels(a_live_case, "ribs") == 8
    a_live_case.paint("ribs", torso.box((2, 2, 2), (1, 1, 2)), Rules(), begins=True, erase=True)
    assert voxels(a_live_case, "ribs") == 6
    a_live_case.undo()
    a_live_case.undo()
    assert "ribs" not in a_live_case.labels.masks and not a_live_case.can_undo


def test_the_nearest_drawn_slice_is_copied(a_live_case: LiveCase) -> None:
    a_live_case.replace({"ribs": Mask(np.array([[[True, False]], [[False, False]], [[True, True]]]), (3, 4, 5))})
    assert a_live_case.copy_slice("ribs", 7) == 5
    copied = a_live_case.labels.masks["ribs"].full(torso.geometry())
    assert np.argwhere(copied[7]).tolist() == [[4, 5], [4, 6]] and copied.sum() == 5
    with pytest.raises(ValueError, match="draw one first"):
        a_live_case.copy_slice("clavicles", 7)


def test_a_slice_is_copied_in_place_of_what_is_there_as_one_step(a_live_case: LiveCase) -> None:
    a_live_case.replace({"ribs": torso.box((3, 4, 5), (1, 2, 2)), "clavicles": torso.box((4, 4, 6), (2, 1, 3))})
    a_live_case.replace({"ribs": Mask.from_array(a_live_case.labels.masks["ribs"].full(torso.geometry())
                                                 | torso.box((4, 9, 9), (1, 3, 3)).full(torso.geometry()))})
    before = a_live_case.labels
    assert a_live_case.copy_slice("ribs", 4, instead=True) == 3
    masks = {name: mask.full(torso.geometry()) for name, mask in a_live_case.labels.masks.items()}
    assert np.argwhere(masks["ribs"][4]).tolist() == [[4, 5], [4, 6], [5, 5], [5, 6]] and masks["ribs"].sum() == 8
    assert np.argwhere(masks["clavicles"][4]).tolist() == [[4, 7], [4, 8]], "a voxel has one label"
    a_live_case.undo()
    assert a_live_case.labels is before


def test_masks_taken_apart_share_no_voxel_and_lose_none() -> None:
    first, second, third = torso.box((0, 0, 0), (4, 4, 4)), torso.box((2, 2, 2), (4, 4, 4)), torso.box((3, 3, 3), (1, 1, 1))
    found = apart({"vertebrae": first, "ribs": second, "clavicles": third})
    assert found["vertebrae"] is first and found["clavicles"].empty
    assert found["ribs"].voxels.sum() == 64 - 8
    both = first.full(torso.geometry()) & found["ribs"].full(torso.geometry())
    assert not both.any()
