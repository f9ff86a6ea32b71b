"""Pictures show what lies where in the patient, and leave the study as it was.

Places come from arithmetic: a picture of 480 x 480 pixels over 120 mm has 4 pixels a millimetre round its centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_torso
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.segmentation import write_segmentation
from LowDoseBMDLib.geometry import lps_to_ras
from LowDoseBMDLib.rois import Mask, Rois

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
pictures = pytest.importorskip("LowDoseBMDMRML.pictures")
offscreen = pytest.importorskip("LowDoseBMDMRML.offscreen")

if not offscreen.can_draw():
    pytest.skip("no OpenGL to draw with", allow_module_level=True)

SIZE, FIELD_MM = 480, 120.0
PIXELS_PER_MM = SIZE / FIELD_MM
CENTRE_LPS_MM = (34.0, 52.0, -366.0)
"""Inside psoas_left, which touches no other region, and off the middle of it along every axis."""
AXES = {"Axial": (0, 1, 1), "Sagittal": (1, 2, -1), "Coronal": (0, 2, -1)}
"""LPS axis to the right of the picture, LPS axis along its height, +1 when that grows downwards."""
BONES = {"ribs": ((10, 20, 66), (40, 20, 8)), "clavicles": ((10, 20, 6), (12, 20, 8)),
         "vertebrae": ((6, 18, 24), (56, 24, 32))}
"""Boxes: ribs on the patient's left, clavicles low on the right, vertebrae round all trabecular boxes."""


@pytest.fixture
def a_scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def a_volume_node(a_scene):
    ct = small_torso.ct()
    return add_volume(a_scene, ct.hu, ct.geometry.ijk_to_lps)


@pytest.fixture
def a_segmentation_node(a_scene, tmp_path: Path):
    return add_segmentation(a_scene, small_torso.rois(), tmp_path)


@pytest.fixture
def a_markups_node(a_scene):
    node = slicer.vtkMRMLMarkupsFiducialNode()
    a_scene.AddNode(node)
    for name, z in (("T12", -300.0), ("L1", -340.0), ("L2", -380.0)):
        node.AddControlPoint(vtk.vtkVector3d(*lps_to_ras((0.0, 54.0, z))), name)
    return node


def add_volume(scene, hu: np.ndarray, ijk_to_lps: np.ndarray):
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(*hu.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(hu.ravel(), deep=True))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_lps).ravel())
    node = slicer.vtkMRMLScalarVolumeNode()
    scene.AddNode(node)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    return node


def add_segmentation(scene, rois: Rois, folder: Path):
    write_segmentation(folder / "a.seg.nrrd", rois)
    node = slicer.vtkMRMLSegmentationNode()
    scene.AddNode(node)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(folder / "a.seg.nrrd"))
    assert storage.ReadData(node) == 1
    node.CreateDefaultDisplayNodes()
    return node


def take(volume, segmentation=None, orientation: str = "Axial", centre=CENTRE_LPS_MM, **options) -> np.ndarray:
    return pictures.slice_picture(volume, segmentation, orientation, centre, size=(SIZE, SIZE),
                                  field_of_view_mm=FIELD_MM, **options)


def style(name: str | None = None, fill: float = 1.0, outline_px: int = 0) -> pictures.SegmentStyle:
    return pictures.SegmentStyle(outline_px, fill, None if name is None else (name,))


def pixel(orientation: str, lps_mm, centre=CENTRE_LPS_MM) -> tuple[float, float]:
    """(row, column), not rounded, of a point; pixel n reaches from n to n + 1."""
    across, along, down = AXES[orientation]
    row = SIZE / 2 + down * (lps_mm[along] - centre[along]) * PIXELS_PER_MM
    return row, SIZE / 2 + (lps_mm[across] - centre[across]) * PIXELS_PER_MM


def frame(orientation: str, mask: Mask) -> np.ndarray:
    """(row from, row to, column from, column to) of a box of voxels, edges of its outer voxels."""
    geometry = small_torso.geometry()
    low = geometry.to_lps(np.array(mask.start_kji) - 0.5)
    high = geometry.to_lps(np.array(mask.start_kji) + mask.voxels.shape - 0.5)
    rows, columns = zip(pixel(orientation, low), pixel(orientation, high), strict=True)
    return np.array([*sorted(rows), *sorted(columns)])


def extent(changed: np.ndarray) -> np.ndarray:
    """(row from, row to, column from, column to) of all that is True."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])


def changes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one != other).any(axis=2)


def grey(hu: float, window_hu: tuple[float, float]) -> float:
    return 255 * np.clip((hu - window_hu[1]) / window_hu[0] + 0.5, 0, 1)


@pytest.mark.parametrize("orientation", AXES)
def test_a_segment_has_its_colour_in_its_place_and_nowhere_else(orientation: str, a_volume_node,
                                                                a_segmentation_node) -> None:
    painted = take(a_volume_node, a_segmentation_node, orientation, style=style("psoas_left"))
    changed = changes(painted, take(a_volume_node, None, orientation))
    expected = frame(orientation, small_torso.masks()["psoas_left"])
    np.testing.assert_allclose(extent(changed), expected, atol=1.0)
    top, bottom, left, right = extent(changed)
    assert changed[top:bottom, left:right].all()
    inside = painted[top:bottom, left:right].reshape(-1, 3)
    np.testing.assert_allclose(inside, np.broadcast_to(STRUCTURES["psoas_left"].colour, inside.shape), atol=1)


@pytest.mark.parametrize("fill", [0.3, 0.6])
def test_a_fill_lets_the_ct_through(fill: float, a_volume_node, a_segmentation_node) -> None:
    window = (400.0, 40.0)
    painted = take(a_volume_node, a_segmentation_node, style=style("psoas_left", fill), window_hu=window)
    below = grey(small_torso.HU["muscle"], window)
    expected = (1 - fill) * below + fill * np.array(STRUCTURES["psoas_left"].colour)
    np.testing.assert_allclose(painted[SIZE // 2 + 4, SIZE // 2 + 4], expected, atol=2)


def test_an_outline_runs_along_the_border_and_leaves_the_inside(a_volume_node, a_segmentation_node) -> None:
    drawn = take(a_volume_node, a_segmentation_node, style=style("psoas_left", fill=0.0, outline_px=1))
    changed = changes(drawn, take(a_volume_node, None))
    top, bottom, left, right = extent(changed)
    np.testing.assert_allclose([top, bottom, left, right], frame("Axial", small_torso.masks()["psoas_left"]), atol=2.0)
    assert not changed[top + 3:bottom - 3, left + 3:right - 3].any()
    for edge in (changed[top:top + 3, left:right].any(axis=0), changed[bottom - 3:bottom, left:right].any(axis=0),
                 changed[top:bottom, left:left + 3].any(axis=1), changed[top:bottom, right - 3:right].any(axis=1)):
        assert edge.all()
    assert changed.sum() < 2.5 * (bottom - top + right - left)


def test_segments_that_share_an_image_are_told_apart(a_volume_node, a_segmentation_node) -> None:
    """psoas left and right, bodies and fat lie in one layer of the file."""
    painted = take(a_volume_node, a_segmentation_node, "Coronal", centre=(0.0, 52.0, -366.0), style=style())
    for name, lps in (("psoas_left", (34.0, 52.0, -366.0)), ("psoas_right", (-40.0, 52.0, -366.0)),
                      ("body_L1", (-14.0, 52.0, -330.0)), ("trabecular_L1", (0.0, 52.0, -330.0))):
        row, column = pixel("Coronal", lps, centre=(0.0, 52.0, -366.0))
        np.testing.assert_allclose(painted[int(row), int(column)], STRUCTURES[name].colour, atol=1, err_msg=name)


def test_what_the_node_hides_is_hidden(a_volume_node, a_segmentation_node) -> None:
    plain = take(a_volume_node)
    a_segmentation_node.GetDisplayNode().SetSegmentVisibility("psoas_left", False)
    assert not changes(take(a_volume_node, a_segmentation_node, style=style()), plain)[230:260, 230:260].any()
    shown = take(a_volume_node, a_segmentation_node, style=style("psoas_left"))
    assert changes(shown, plain).any(), "asked for by name it is shown"
    a_segmentation_node.GetDisplayNode().SetVisibility(False)
    assert not changes(take(a_volume_node, a_segmentation_node, style=style()), plain).any()


def test_opacity_is_the_nodes_where_none_is_asked_for(a_volume_node, a_segmentation_node) -> None:
    window = (400.0, 40.0)
    display, colour = a_segmentation_node.GetDisplayNode(), np.array(STRUCTURES["psoas_left"].colour)
    display.SetOpacity2DFill(1.0)
    for fill in (0.4, 0.0):
        display.SetSegmentOpacity2DFill("psoas_left", fill)
        painted = take(a_volume_node, a_segmentation_node, window_hu=window)
        expected = (1 - fill) * grey(small_torso.HU["muscle"], window) + fill * colour
        np.testing.assert_allclose(painted[SIZE // 2, SIZE // 2], expected, atol=2)
    painted = take(a_volume_node, a_segmentation_node, style=style("psoas_left"))
    np.testing.assert_allclose(painted[SIZE // 2, SIZE // 2], colour, atol=1)


@pytest.mark.parametrize("window_hu", [(400.0, 40.0), (1800.0, 400.0), (100.0, 500.0)])
def test_grey_follows_window_and_level(window_hu: tuple[float, float], a_volume_node) -> None:
    taken = take(a_volume_node, centre=(0.0, 54.0, -330.0), window_hu=window_hu)
    for hu, (row, column) in ((small_torso.HU["L1"], (SIZE // 2, SIZE // 2)), (0.0, (SIZE // 2, 60))):
        np.testing.assert_allclose(taken[row, column], grey(hu, window_hu), atol=1.5)


def test_names_stand_at_their_points(a_volume_node, a_markups_node) -> None:
    centre = (0.0, 54.0, -340.0)
    for orientation, names in (("Axial", ("L1",)), ("Sagittal", ("T12", "L1", "L2")), ("Coronal", ("T12", "L1", "L2"))):
        named = take(a_volume_node, None, orientation, centre, markups_node=a_markups_node)
        changed = changes(named, take(a_volume_node, None, orientation, centre))
        for z in {"T12": -300.0, "L1": -340.0, "L2": -380.0}.items():
            if z[0] in names:
                row, column = (int(value) for value in pixel(orientation, (0.0, 54.0, z[1]), centre))
                written = slice(row - 40, row + 20), slice(column - 15, column + 60)
                assert changed[written].sum() > 50, (orientation, z)
                changed[written] = False
        assert not changed.any(), f"{orientation}: something is drawn away from {names}"


def test_sides_are_lettered(a_volume_node) -> None:
    """Beyond the CT all is black but the letters."""
    wide = {name: pictures.slice_picture(a_volume_node, None, name, CENTRE_LPS_MM, size=(SIZE, SIZE), field_of_view_mm=400.0)
            for name in AXES}
    left, right, top = np.s_[200:280, :30], np.s_[200:280, -30:], np.s_[:40, 200:280]
    assert all(taken[place].any() for taken in wide.values() for place in (left, right, top))
    np.testing.assert_array_equal(wide["Axial"][left], wide["Coronal"][left], "R and R")
    np.testing.assert_array_equal(wide["Axial"][right], wide["Coronal"][right], "L and L")
    np.testing.assert_array_equal(wide["Sagittal"][top], wide["Coronal"][top], "S and S")
    for one, other in (((wide["Axial"], left), (wide["Axial"], right)), ((wide["Axial"], top), (wide["Coronal"], top)),
                       ((wide["Axial"], left), (wide["Sagittal"], left))):
        assert changes(one[0][one[1]], other[0][other[1]]).any()


def test_the_scale_is_as_long_as_it_says(a_volume_node) -> None:
    """A quarter of 400 mm: the manager draws 10 cm."""
    taken = pictures.slice_picture(a_volume_node, None, "Axial", (0.0, 400.0, -330.0), size=(SIZE, SIZE),
                                   field_of_view_mm=400.0)
    lines = [np.flatnonzero(row[100:345]) for row in taken[-30:, :, 0]]
    longest = max((line for line in lines if line.size), key=len)
    assert longest[-1] - longest[0] + 1 == pytest.approx(100.0 * SIZE / 400.0, abs=3)


def test_parent_transforms_move_ct_segments_and_names(a_scene, a_volume_node, a_segmentation_node, a_markups_node) -> None:
    def shot(centre):
        return take(a_volume_node, a_segmentation_node, "Coronal", centre, markups_node=a_markups_node)

    before = shot(CENTRE_LPS_MM)
    parents = []
    for step_ras in ((10.0, 0.0, 0.0), (6.0, -8.0, 12.0)):
        matrix = vtk.vtkMatrix4x4()
        for row, value in enumerate(step_ras):
            matrix.SetElement(row, 3, value)
        parents.append(slicer.vtkMRMLLinearTransformNode())
        a_scene.AddNode(parents[-1])
        parents[-1].SetMatrixTransformToParent(matrix)
    parents[0].SetAndObserveTransformNodeID(parents[1].GetID())
    for node in (a_volume_node, a_segmentation_node, a_markups_node):
        node.SetAndObserveTransformNodeID(parents[0].GetID())
    after = shot(np.array(CENTRE_LPS_MM) + (-16.0, 8.0, 12.0))
    assert changes(after, before).mean() < 0.005, "edges may round otherwise"
    assert changes(shot(CENTRE_LPS_MM), before).mean() > 0.05


# --- bones in 3D ---------------------------------------------------------------------------------------------

@pytest.fixture
def some_bones(a_scene, tmp_path: Path):
    rois = small_torso.rois()
    return add_segmentation(a_scene, rois.with_masks({n: small_torso.box(*b) for n, b in BONES.items()}), tmp_path)


def where(picture: np.ndarray, colour: str, inside: bool) -> np.ndarray:
    """(H, W) bool: blue (ribs, T12) or orange (clavicles, L2), in the middle third or beside it, without the marker."""
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    found = blue - red > 30 if colour == "blue" else red - blue > 60
    third = picture.shape[1] // 3
    found[:, third:-third] &= inside
    found[:, :third] &= not inside
    found[:, -third:] &= not inside
    return found


def middle(found: np.ndarray) -> np.ndarray:
    return np.argwhere(found).mean(axis=0)


@pytest.mark.parametrize(("view_from", "left_on_right"), [("anterior", True), ((0, 1, 0.0), False)])
def test_bones_stand_upright_with_the_right_side_where_one_looks_from(view_from, left_on_right: bool, some_bones) -> None:
    picture = pictures.bones_picture(some_bones, view_from, (400, 400))
    ribs, clavicles = middle(where(picture, "blue", inside=False)), middle(where(picture, "orange", inside=False))
    assert (ribs[1] > clavicles[1]) is np.bool_(left_on_right)
    assert clavicles[0] > ribs[0] + 20, "the low box is lower in the picture"
    t12, l2 = middle(where(picture, "blue", inside=True)), middle(where(picture, "orange", inside=True))
    assert l2[0] > t12[0] + 50, "trabecular bone is seen through its vertebra"


def test_bones_fill_the_frame_at_one_scale(some_bones) -> None:
    picture = pictures.bones_picture(some_bones, "anterior", (400, 400))
    ribs = extent(where(picture, "blue", inside=False))
    (_, (nk, _, ni)), (si, _, sk) = BONES["ribs"], small_torso.SPACING_MM
    assert (ribs[1] - ribs[0]) / (ribs[3] - ribs[2]) == pytest.approx(nk * sk / (ni * si), rel=0.15)
    drawn = extent(changes(picture[:350], np.broadcast_to(picture[0, 0], picture[:350].shape)))
    assert max(drawn[1] - drawn[0], drawn[3] - drawn[2]) > 0.7 * 400


def test_surfaces_that_are_there_are_used(some_bones) -> None:
    """Here a ball above everything stands for the surface of the ribs."""
    ball = vtk.vtkSphereSource()
    ball.SetRadius(15.0)
    ball.SetCenter(*lps_to_ras((0.0, 54.0, -230.0)))
    ball.Update()
    some_bones.GetSegmentation().GetSegment("ribs").AddRepresentation("Closed surface", ball.GetOutput())
    picture = pictures.bones_picture(some_bones, "anterior", (400, 400))
    assert where(picture, "blue", inside=True)[:60].sum() > 500
    assert not where(picture, "blue", inside=False).any()


# --- the study stays as it was ---------------------------------------------------------------------------------

def things(*nodes) -> Iterator[vtk.vtkObject]:
    """The nodes, their scene, display, voxels and segments."""
    yield nodes[0].GetScene()
    for node in nodes:
        yield node
        yield from (node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes()))
        if node.IsA("vtkMRMLVolumeNode"):
            yield node.GetImageData()
        if node.IsA("vtkMRMLSegmentationNode"):
            segmentation = node.GetSegmentation()
            yield segmentation
            for segment in map(segmentation.GetSegment, segmentation.GetSegmentIDs()):
                yield from (segment, segment.GetRepresentation("Binary labelmap"))


def state(*nodes) -> list:
    """What anybody could notice: nodes of the scene, last changes, observers, representations, voxels."""
    from vtk.util.numpy_support import vtk_to_numpy

    scene = nodes[0].GetScene()
    found = [[scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]]
    for thing in things(*nodes):
        found.append((thing.GetClassName(), thing.GetMTime(), str(thing).count("vtkObserver")))
        if thing.IsA("vtkSegmentation"):
            found.append(thing.ContainsRepresentation("Closed surface"))
        if thing.IsA("vtkImageData"):
            found.append((thing.GetReferenceCount(), vtk_to_numpy(thing.GetPointData().GetScalars()).sum()))
    return found


def test_a_picture_changes_nothing(a_volume_node, a_segmentation_node, a_markups_node, some_bones) -> None:
    nodes = (a_volume_node, a_segmentation_node, a_markups_node, some_bones)
    before = state(*nodes)
    take(a_volume_node, a_segmentation_node, markups_node=a_markups_node)
    pictures.bones_picture(some_bones)
    assert state(*nodes) == before


def test_a_failure_changes_nothing(a_volume_node, a_segmentation_node, a_markups_node, some_bones,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (a_volume_node, a_segmentation_node, a_markups_node, some_bones)
    before = state(*nodes)

    def fail(self) -> None:
        raise MemoryError

    monkeypatch.setattr(offscreen.OffscreenWindow, "pixels", fail)
    with pytest.raises(MemoryError):
        take(a_volume_node, a_segmentation_node, markups_node=a_markups_node)
    with pytest.raises(MemoryError):
        pictures.bones_picture(some_bones)
    assert state(*nodes) == before


# --- mistakes and files ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "sentence"), [
    ({"orientation": "Oblique"}, "Oblique"), ({"field_of_view_mm": 0.0}, "0.0 mm"), ({"size": (0, 100)}, "0 x 100"),
    ({"centre_lps_mm": (1.0, 2.0)}, "is no point")])
def test_a_mistake_is_named(options: dict, sentence: str, a_volume_node) -> None:
    call = {"orientation": "Axial", "centre_lps_mm": CENTRE_LPS_MM} | options
    with pytest.raises(ValueError, match=sentence):
        pictures.slice_picture(a_volume_node, None, **call)


def test_a_volume_without_voxels_is_named(a_scene) -> None:
    node = a_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Chest")
    with pytest.raises(ValueError, match="Chest has no voxels"):
        take(node)


def test_no_bones_and_no_direction_are_named(a_scene, some_bones) -> None:
    with pytest.raises(ValueError, match="holds no bones"):
        pictures.bones_picture(a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty"))
    with pytest.raises(ValueError, match="above"):
        pictures.bones_picture(some_bones, "above")
    with pytest.raises(ValueError, match="no direction"):
        pictures.bones_picture(some_bones, (0.0, 0.0, 0.0))


def test_a_png_holds_the_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    picture = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    pictures.save_png(tmp_path / "a.png", picture)
    stored = np.round(255 * imread(tmp_path / "a.png")).astype(np.uint8)
    np.testing.assert_array_equal(stored, picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
