"""Regions and keypoints survive the way to disk and back, also through what Slicer does to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.atomic import whole_file, write_whole
from LowDoseBMDLib.files.markups import read_keypoints, write_keypoints
from LowDoseBMDLib.files.segmentation import load_segmentation, read_segmentation, write_segmentation
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Keypoint, Mask, Rois


def an_oblique_grid(shape: tuple[int, int, int] = (24, 40, 36)) -> Geometry:
    angle = np.deg2rad(7.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array([0.7, 0.8, 2.5])
    matrix[:3, 3] = (-120.25, 31.5, -402.125)
    return Geometry(shape, matrix)


def nested_rois(geometry: Geometry) -> Rois:
    """Trabecular inside body inside vertebrae, ribs apart, and one structure that was found empty."""
    shape = geometry.shape_kji
    masks = {}
    for name, margin in (("vertebrae", 4), ("body_L1", 6), ("trabecular_L1", 8)):
        array = np.zeros(shape, bool)
        array[margin:-margin, margin:-margin, margin:-margin] = True
        masks[name] = Mask.from_array(array)
    corner = np.zeros(shape, bool)
    corner[-3:, -2:, :5] = True
    masks["ribs"] = Mask.from_array(corner)
    speckle = np.random.default_rng(3).random(shape) > 0.9
    masks["psoas_left"] = Mask.from_array(speckle)
    masks["fat_flank"] = Mask.from_array(np.zeros(shape, bool))
    return Rois(geometry, masks)


def assert_same_masks(found: dict[str, Mask], expected: dict[str, Mask]) -> None:
    assert set(found) == set(expected)
    for name, mask in expected.items():
        assert found[name].start_kji == mask.start_kji, name
        np.testing.assert_array_equal(found[name].voxels, mask.voxels, err_msg=name)


def relabelled(path: Path, out: Path, change: dict[str, str]) -> Path:
    """The file with some header values replaced: what renaming in Slicer does."""
    image = sitk.ReadImage(str(path))
    header, _, data = path.read_bytes().partition(b"\n\n")
    text = header.decode()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    assert image.GetDimension() == 3
    out.write_bytes(text.encode() + b"\n\n" + data)
    return out


def test_every_mask_returns_exactly(tmp_path: Path) -> None:
    rois = nested_rois(an_oblique_grid())
    write_segmentation(tmp_path / "a.seg.nrrd", rois)
    stored = load_segmentation(tmp_path / "a.seg.nrrd", rois.geometry)
    assert_same_masks(stored.masks, dict(rois.masks))
    assert stored.unknown == () and not stored.resampled
    assert [p.name for p in tmp_path.iterdir()] == ["a.seg.nrrd"]


def test_one_region_and_no_region(tmp_path: Path) -> None:
    geometry = an_oblique_grid()
    one = Rois(geometry, {"trabecular_L1": nested_rois(geometry).masks["trabecular_L1"]})
    write_segmentation(tmp_path / "one.seg.nrrd", one)
    assert_same_masks(read_segmentation(tmp_path / "one.seg.nrrd", geometry), dict(one.masks))
    write_segmentation(tmp_path / "none.seg.nrrd", Rois(geometry))
    with pytest.raises(Refusal, match="L1 trabecular bone") as refusal:
        read_segmentation(tmp_path / "none.seg.nrrd", geometry)
    assert refusal.value.code == "segmentation_unmatched"


def test_a_mask_outside_the_registry_or_the_grid_is_an_error(tmp_path: Path) -> None:
    geometry = an_oblique_grid()
    with pytest.raises(ValueError, match="spleen"):
        write_segmentation(tmp_path / "a.seg.nrrd", Rois(geometry, {"spleen": Mask(np.ones((1, 1, 1), bool), (0, 0, 0))}))
    with pytest.raises(ValueError, match="beyond the grid"):
        write_segmentation(tmp_path / "a.seg.nrrd", Rois(geometry, {"ribs": Mask(np.ones((1, 1, 9), bool), (0, 0, 30))}))
    assert list(tmp_path.iterdir()) == []


def test_renamed_segments_are_found_by_what_the_reader_sees(tmp_path: Path) -> None:
    rois = nested_rois(an_oblique_grid())
    write_segmentation(tmp_path / "a.seg.nrrd", rois)
    edited = relabelled(tmp_path / "a.seg.nrrd", tmp_path / "b.seg.nrrd", {
        "_ID:=trabecular_L1": "_ID:=Segment_7", "_Name:=L1 trabecular bone": "_Name:=l1 TRABECULAR bone",
        "_Name:=L1 vertebral body": "_Name:=L2 vertebral body", "_Name:=Ribs": "_Name:=my ribs",
        "_ID:=psoas_left": "_ID:=Segment_8", "_Name:=Psoas left": "_Name:=tumour?"})
    stored = load_segmentation(edited, rois.geometry)
    assert set(stored.masks) == {"trabecular_L1", "body_L2", "ribs", "vertebrae", "fat_flank"}
    np.testing.assert_array_equal(stored.masks["body_L2"].voxels, rois.masks["body_L1"].voxels)
    assert stored.unknown == ("tumour?",)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SAL"])
def test_a_label_map_in_any_axis_order_is_read_exactly(tmp_path: Path, orientation: str) -> None:
    rois = nested_rois(an_oblique_grid())
    name = "trabecular_L1"
    labels = rois.masks[name].full(rois.geometry).astype(np.uint8) * STRUCTURES[name].label
    image = sitk.DICOMOrient(rois.geometry.to_image(labels), orientation)
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    stored = load_segmentation(tmp_path / "a.nii.gz", rois.geometry)
    assert_same_masks(stored.masks, {name: rois.masks[name]})
    assert not stored.resampled


def test_cropped_and_padded_files_keep_their_place(tmp_path: Path) -> None:
    rois = nested_rois(an_oblique_grid())
    name = "trabecular_L1"
    labels = rois.geometry.to_image(rois.masks[name].full(rois.geometry).astype(np.uint8) * STRUCTURES[name].label)
    sitk.WriteImage(sitk.ConstantPad(labels, (3, 0, 5), (0, 4, 2)), str(tmp_path / "padded.nrrd"))
    sitk.WriteImage(labels[7:30, 5:, 7:], str(tmp_path / "cropped.nrrd"))
    for file in ("padded.nrrd", "cropped.nrrd"):
        assert_same_masks(read_segmentation(tmp_path / file, rois.geometry), {name: rois.masks[name]})


def test_another_grid_is_resampled_to_the_right_place(tmp_path: Path) -> None:
    rois = nested_rois(an_oblique_grid())
    name = "body_L1"
    fine = rois.geometry.with_spacing((0.5, 0.6, 0.9))
    centre = rois.masks[name].centroid_lps_mm(rois.geometry)
    points = fine.to_lps(np.stack(np.meshgrid(*map(np.arange, fine.shape_kji), indexing="ij"), -1))
    ball = np.linalg.norm(points - centre, axis=-1) < 8.0
    sitk.WriteImage(fine.to_image(ball.astype(np.uint8) * STRUCTURES[name].label), str(tmp_path / "a.nrrd"))
    stored = load_segmentation(tmp_path / "a.nrrd", rois.geometry)
    mask = stored.masks[name]
    assert stored.resampled
    np.testing.assert_allclose(mask.centroid_lps_mm(rois.geometry), centre, atol=0.3)
    assert mask.volume_mm3(rois.geometry) == pytest.approx(4 / 3 * np.pi * 8.0**3, rel=0.05)


def test_a_foreign_numbering_or_a_ct_is_refused_not_guessed(tmp_path: Path) -> None:
    geometry = an_oblique_grid()
    ct = np.random.default_rng(0).integers(-1000, 400, geometry.shape_kji).astype(np.int16)
    sitk.WriteImage(geometry.to_image(ct), str(tmp_path / "ct.nrrd"))
    with pytest.raises(Refusal, match="not ours") as refusal:
        read_segmentation(tmp_path / "ct.nrrd", geometry)
    assert refusal.value.code == "segmentation_foreign_labels"
    (tmp_path / "text.seg.nrrd").write_text("hello")
    for name in ("text.seg.nrrd", "missing.seg.nrrd"):
        with pytest.raises(Refusal) as refusal:
            read_segmentation(tmp_path / name, geometry)
        assert refusal.value.code == "segmentation_unreadable"


def test_a_whole_chest_is_written_small_and_returns(tmp_path: Path) -> None:
    """512 x 512 x 320 with 15 segments, bones spread over the chest."""
    geometry = Geometry((320, 512, 512), np.diag([0.7, 0.7, 1.0, 1.0]))
    k, j, i = np.ogrid[:320, :512, :512]
    wall = np.abs(np.hypot((j - 256) / 180.0, (i - 256) / 230.0) - 1) < 0.03
    masks = {"ribs": Mask.from_array((k % 24 < 8) & wall),
             "vertebrae": Mask.from_array((np.hypot(j - 400, i - 256) < 45) & (k % 30 < 26))}
    for n, name in enumerate(list(STRUCTURES)[4:10]):
        size = 36 - 8 * name.startswith("trab")
        masks[name] = Mask(np.ones((20, size, size), bool), (40 * (n // 2), 400 - size // 2, 256 - size // 2))
    for n, name in enumerate(list(STRUCTURES)[10:17]):
        masks[name] = Mask(np.ones((30, 30, 30), bool), (10, 300, 40 * n))
    assert len(masks) == 15
    write_segmentation(tmp_path / "a.seg.nrrd", Rois(geometry, masks))
    stored = read_segmentation(tmp_path / "a.seg.nrrd", geometry)
    assert_same_masks(stored, masks)
    assert (tmp_path / "a.seg.nrrd").stat().st_size < 5e6


def test_keypoints_return(tmp_path: Path) -> None:
    points = (Keypoint("T12", (17.25, 50.0, -254.125), 0.873), Keypoint("L2", (1.5, -2.5, 3.0), None))
    write_keypoints(tmp_path / "a.mrk.json", points)
    assert read_keypoints(tmp_path / "a.mrk.json") == points
    stored = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]
    assert [p["label"] for p in stored["controlPoints"]] == ["T12", "L1", "L2"]
    assert stored["controlPoints"][1]["positionStatus"] == "undefined"


def test_keypoints_in_ras_are_turned_and_nonsense_is_refused(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "a.mrk.json", (Keypoint("L1", (10.0, 20.0, 30.0), 0.5),))
    content = json.loads((tmp_path / "a.mrk.json").read_text())
    content["markups"][0]["coordinateSystem"] = "RAS"
    (tmp_path / "ras.mrk.json").write_text(json.dumps(content))
    assert read_keypoints(tmp_path / "ras.mrk.json")[0].position_lps_mm == (-10.0, -20.0, 30.0)
    content["markups"][0]["controlPoints"][1]["position"] = [1, "x", 2]
    (tmp_path / "bad.mrk.json").write_text(json.dumps(content))
    (tmp_path / "list.mrk.json").write_text("[1]")
    for name in ("bad", "list"):
        with pytest.raises(Refusal, match="point list"):
            read_keypoints(tmp_path / f"{name}.mrk.json")


def test_files_are_whole_or_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "first é")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "first é"
    write_whole(path, b"\x00second")
    assert path.read_bytes() == b"\x00second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
