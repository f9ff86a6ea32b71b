"""Files of a measurement open in Slicer's own libraries with names, colours, codes and the right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.markups import read_keypoints, write_keypoints
from LowDoseBMDLib.files.segmentation import (
    load_segmentation,
    read_segmentation,
    terminology_entry,
    write_segmentation,
)
from LowDoseBMDLib.geometry import Geometry, lps_to_ras
from LowDoseBMDLib.rois import Keypoint, Mask, Rois

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")


def a_grid() -> Geometry:
    """Oblique, as a tilted scan: a wrong axis order, sign or offset moves a voxel by millimetres."""
    angle = np.deg2rad(9.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array([0.7, 0.8, 2.5])
    matrix[:3, 3] = (-120.25, 31.5, -402.125)
    return Geometry((20, 30, 40), matrix)


def some_rois() -> Rois:
    """Three nested regions, one separate voxel that is easy to locate, and an empty region."""
    masks = {name: Mask(np.ones((12 - n, 14 - n, 16 - n), bool), (4, 6, 8))
             for n, name in enumerate(("vertebrae", "body_L1", "trabecular_L1"))}
    masks["psoas_left"] = Mask(np.ones((1, 1, 1), bool), (3, 25, 33))
    masks["fat_flank"] = Mask(np.zeros((0, 0, 0), bool), (0, 0, 0))
    return Rois(a_grid(), masks)


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


def load(scene, path: Path):
    node = slicer.vtkMRMLSegmentationNode()
    scene.AddNode(node)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


def save(scene, node, path: Path) -> None:
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(node) == 1


def voxels_ras(node, name: str) -> np.ndarray:
    """(N, 3) RAS mm of a segment's voxel centres, as Slicer's own libraries place them."""
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(name, image)
    low_i, high_i, low_j, high_j, low_k, high_k = image.GetExtent()
    if high_i < low_i:
        return np.zeros((0, 3))
    shape = (high_k - low_k + 1, high_j - low_j + 1, high_i - low_i + 1)
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    kji = np.argwhere(array != 0) + (low_k, low_j, low_i)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_ras = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    return kji[:, ::-1] @ to_ras[:3, :3].T + to_ras[:3, 3]


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    write_segmentation(tmp_path / "segmentation.seg.nrrd", some_rois())
    return tmp_path / "segmentation.seg.nrrd"


def test_names_colours_and_codes(scene, a_file: Path) -> None:
    segmentation = load(scene, a_file).GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    assert ids == [name for name in STRUCTURES if name in some_rois().masks]
    for name in ids:
        structure, segment = STRUCTURES[name], segmentation.GetSegment(name)
        assert segment.GetName() == structure.title
        np.testing.assert_allclose(segment.GetColor(), np.array(structure.colour) / 255, atol=1e-5)
        assert segment.GetTerminology() == terminology_entry(structure)
    assert "SCT^66794005^L1 vertebra" in segmentation.GetSegment("trabecular_L1").GetTerminology()


def test_every_voxel_lies_where_the_ct_has_it_and_overlap_stays(scene, a_file: Path) -> None:
    node, rois = load(scene, a_file), some_rois()
    for name, mask in rois.masks.items():
        kji = np.argwhere(mask.voxels) + np.asarray(mask.start_kji)
        expected = lps_to_ras(rois.geometry.to_lps(kji))
        found = voxels_ras(node, name)
        assert found.shape == expected.shape, name
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)


def test_drawing_is_not_confined_to_the_stored_box(scene, a_file: Path) -> None:
    node = load(scene, a_file)
    text = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    image = slicer.vtkOrientedImageData()
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    assert image.GetExtent() == (0, 39, 0, 29, 0, 19)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    corner = [matrix.GetElement(r, 3) for r in range(3)]
    np.testing.assert_allclose(corner, lps_to_ras(a_grid().ijk_to_lps[:3, 3]), atol=1e-4)


def test_saved_again_by_slicer_it_reads_back_the_same(scene, a_file: Path, tmp_path: Path) -> None:
    node, rois = load(scene, a_file), some_rois()
    node.GetSegmentation().RemoveSegment("vertebrae")
    node.GetSegmentation().GetSegment("body_L1").SetName("a note of mine")
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    save(scene, node, tmp_path / "again.seg.nrrd")
    stored = load_segmentation(tmp_path / "again.seg.nrrd", rois.geometry)
    assert set(stored.masks) == set(rois.masks) - {"vertebrae"}
    assert not stored.resampled
    for name, mask in stored.masks.items():
        assert mask.start_kji == rois.masks[name].start_kji, name
        np.testing.assert_array_equal(mask.voxels, rois.masks[name].voxels, err_msg=name)


def test_a_file_without_overlap_opens_too(scene, tmp_path: Path) -> None:
    rois = Rois(a_grid(), {"psoas_left": some_rois().masks["psoas_left"]})
    write_segmentation(tmp_path / "a.seg.nrrd", rois)
    node = load(scene, tmp_path / "a.seg.nrrd")
    expected = lps_to_ras(rois.geometry.to_lps(np.array([[3, 25, 33]])))
    np.testing.assert_allclose(voxels_ras(node, "psoas_left"), expected, atol=1e-4)
    assert set(read_segmentation(tmp_path / "a.seg.nrrd", rois.geometry)) == {"psoas_left"}


def test_a_file_without_any_region_opens(scene, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "a.seg.nrrd", Rois(a_grid()))
    assert load(scene, tmp_path / "a.seg.nrrd").GetSegmentation().GetNumberOfSegments() == 0


def test_keypoints_open_move_and_return(scene, tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.mrk.json", (Keypoint("T12", (17.0, 50.0, -254.0), 0.9),
                                              Keypoint("L2", (20.0, 30.0, -310.0), 0.4)))
    node = slicer.vtkMRMLMarkupsFiducialNode()
    scene.AddNode(node)
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "a.mrk.json"))
    assert storage.ReadData(node) == 1
    assert [node.GetNthControlPointLabel(n) for n in range(3)] == ["T12", "L1", "L2"]
    assert node.GetNumberOfDefinedControlPoints() == 2
    assert tuple(node.GetNthControlPointPosition(0)) == (-17.0, -50.0, -254.0)
    node.SetNthControlPointPosition(1, -21.0, -40.0, -280.0)
    storage.SetFileName(str(tmp_path / "b.mrk.json"))
    assert storage.WriteData(node) == 1
    points = read_keypoints(tmp_path / "b.mrk.json")
    assert [p.level for p in points] == ["T12", "L1", "L2"]
    assert points[1] == Keypoint("L1", (21.0, 40.0, -280.0), None)
    assert points[2].confidence == pytest.approx(0.4)
