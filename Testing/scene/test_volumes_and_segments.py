"""CT nodes and segments are the library's CT and regions, voxel for voxel, wherever the node lies."""

from __future__ import annotations

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import Acquisition
from LowDoseBMDLib.files.segmentation import terminology_entry
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.rois import NO_VOXELS, Mask

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")

from LowDoseBMDMRML import segments  # noqa: E402 - needs slicer
from LowDoseBMDMRML.volumes import (  # noqa: E402
    acquisition_of,
    ct_from_node,
    node_from_ct,
    node_grid,
    node_voxels,
    set_acquisition,
    vtk_matrix,
)


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def a_volume_node(scene):
    return node_from_ct(scene, torso.chain_ct(), "Chest")


def under_transform(scene, node, matrix: np.ndarray) -> None:
    transform = slicer.vtkMRMLLinearTransformNode()
    scene.AddNode(transform)
    transform.SetMatrixTransformToParent(vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())


def test_a_ct_comes_back_without_a_copy_of_its_voxels(a_volume_node) -> None:
    ct = ct_from_node(a_volume_node)
    np.testing.assert_array_equal(ct.hu, torso.chain_ct().hu)
    assert np.shares_memory(ct.hu, node_voxels(a_volume_node))
    assert ct.geometry.same_grid(torso.chain_ct().geometry)
    assert ct.acquisition == torso.chain_ct().acquisition


def test_a_shift_by_a_transform_moves_the_place_and_not_the_values(scene, a_volume_node) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = (10.0, -20.0, 30.0)  # RAS
    under_transform(scene, a_volume_node, matrix)
    ct, before = ct_from_node(a_volume_node), torso.chain_ct()
    np.testing.assert_array_equal(ct.hu, before.hu)
    np.testing.assert_allclose(ct.geometry.to_lps(np.zeros(3)) - before.geometry.to_lps(np.zeros(3)), (-10.0, 20.0, 30.0))


def test_a_half_turn_by_a_transform_turns_the_axes(scene, a_volume_node) -> None:
    under_transform(scene, a_volume_node, np.diag([-1.0, -1.0, 1.0, 1.0]))
    ct, before = ct_from_node(a_volume_node), torso.chain_ct()
    np.testing.assert_array_equal(ct.hu, before.hu[:, ::-1, ::-1])


def refused(node) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ct_from_node(node)
    return caught.value


def test_a_bending_transform_is_refused_with_the_way_out(scene, a_volume_node) -> None:
    bend = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for point in ((0, 0, 0), (100, 0, 0), (0, 100, 0), (0, 0, 100), (50, 50, 50)):
        points.InsertNextPoint(point)
    moved = vtk.vtkPoints()
    moved.DeepCopy(points)
    moved.SetPoint(4, 60, 50, 50)
    bend.SetSourceLandmarks(points)
    bend.SetTargetLandmarks(moved)
    transform = slicer.vtkMRMLTransformNode()
    scene.AddNode(transform)
    transform.SetAndObserveTransformToParent(bend)
    a_volume_node.SetAndObserveTransformNodeID(transform.GetID())
    assert refused(a_volume_node).code == "transform_nonlinear"
    assert "Take the CT out of the transform" in str(refused(a_volume_node))


def test_a_sheared_transform_is_refused(scene, a_volume_node) -> None:
    shear = np.eye(4)
    shear[0, 1] = 0.2
    under_transform(scene, a_volume_node, shear)
    assert refused(a_volume_node).code == "sheared"


def test_what_is_no_ct_is_refused(scene) -> None:
    empty = slicer.vtkMRMLScalarVolumeNode()
    scene.AddNode(empty)
    assert refused(empty).code == "no_image"
    labels = slicer.vtkMRMLLabelMapVolumeNode()
    scene.AddNode(labels)
    assert refused(labels).code == "labels"


def test_facts_of_the_acquisition_stay_with_the_volume(a_volume_node) -> None:
    facts = Acquisition(source="dicom", kvp=100.0, kernel="LUNG", slice_thickness_mm=1.25, patient_sex="F")
    set_acquisition(a_volume_node, facts)
    assert acquisition_of(a_volume_node) == facts
    a_volume_node.SetAttribute("LowDoseBMD.Acquisition", '{"kvp": 80.0, "from_a_later_version": 1}')
    assert acquisition_of(a_volume_node) == Acquisition(source="slicer", kvp=80.0)


# --- segments ----------------------------------------------------------------------------------------------

@pytest.fixture
def a_segmentation_node(scene, a_volume_node):
    return segments.create_segmentation(scene, a_volume_node, "Regions")


def test_regions_come_back_as_they_were_with_names_colours_and_codes(a_segmentation_node, a_volume_node) -> None:
    geometry, grid = torso.chain_ct().geometry, node_grid(a_volume_node)
    masks = torso.chain_rois().masks
    for name, mask in masks.items():
        segments.write_region(a_segmentation_node, grid, name, mask, geometry)
    for name, mask in masks.items():
        found = segments.read_region(a_segmentation_node, name, geometry)
        np.testing.assert_array_equal(found.full(geometry), mask.full(geometry), err_msg=name)
        segment = a_segmentation_node.GetSegmentation().GetSegment(name)
        assert segment.GetName() == STRUCTURES[name].title
        assert segment.GetTerminology() == terminology_entry(STRUCTURES[name])
        np.testing.assert_allclose(segment.GetColor(), np.array(STRUCTURES[name].colour) / 255, atol=1e-5)


def test_segments_that_slicer_put_into_one_image_are_written_one_by_one(a_segmentation_node, a_volume_node) -> None:
    geometry, grid = torso.chain_ct().geometry, node_grid(a_volume_node)
    masks = torso.chain_rois().masks
    for name, mask in masks.items():
        segments.write_region(a_segmentation_node, grid, name, mask, geometry)
    a_segmentation_node.GetSegmentation().CollapseBinaryLabelmaps(False)
    segments.write_region(a_segmentation_node, grid, "psoas_left", torso.box((10, 24, 60), (3, 10, 10)), geometry)
    for name, mask in masks.items():
        found = segments.read_region(a_segmentation_node, name, geometry)
        expected = 300 if name == "psoas_left" else mask.voxels.sum()
        assert found.voxels.sum() == expected, name


def test_what_is_drawn_beyond_the_ct_is_cut_off(a_segmentation_node, a_volume_node) -> None:
    geometry, grid = torso.chain_ct().geometry, node_grid(a_volume_node)
    beyond = Mask(np.ones((4, 4, 4), bool), (-2, 0, 0))
    segments.write_region(a_segmentation_node, grid, "psoas_left", beyond, geometry)
    found = segments.read_region(a_segmentation_node, "psoas_left", geometry)
    assert (found.start_kji, found.voxels.shape) == ((0, 0, 0), (2, 4, 4))


def test_an_empty_or_missing_segment_is_no_region(a_segmentation_node, a_volume_node) -> None:
    geometry = torso.chain_ct().geometry
    segments.write_region(a_segmentation_node, node_grid(a_volume_node), "psoas_left", NO_VOXELS, geometry)
    assert segments.read_region(a_segmentation_node, "psoas_left", geometry).empty
    assert segments.read_region(a_segmentation_node, "psoas_right", geometry).empty
