"""Pictures of a study as Slicer shows it, without Slicer's window: cuts through the CT, and the bones in 3D.

They come from Slicer's own displayable managers, in a scene of their own (offscreen.py): the nodes handed in, their
display and their scene stay as they are. Left of an axial or coronal picture is the patient's right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.geometry import lps_to_ras
from vtk.util.numpy_support import numpy_to_vtk

from .node_copies import copy_points, copy_segmentation, copy_surfaces, copy_volume
from .offscreen import OffscreenWindow
from .segments import LABELMAP, SURFACE

BONE_WINDOW_HU = (1800.0, 400.0)
"""Width and level of the usual bone window."""
SOFT_TISSUE_WINDOW_HU = (400.0, 40.0)
"""Width and level of the usual soft-tissue window."""
ORIENTATIONS: tuple[str, ...] = ("Axial", "Sagittal", "Coronal")
VIEW_FROM_LPS: dict[str, tuple[float, float, float]] = {
    "anterior": (0.0, -1.0, 0.0), "posterior": (0.0, 1.0, 0.0), "left": (1.0, 0.0, 0.0), "right": (-1.0, 0.0, 0.0),
    "oblique": (0.55, -0.8, 0.2),
}
"""Directions from the patient to the eye."""

BONE_OPACITY = 0.35
"""Of bones in 3D: what lies inside is seen, and shape remains."""
BACKGROUND = (0.08, 0.09, 0.11)
"""Of the 3D picture."""
FRAME_FILLED = 0.92
"""Share of the frame that the bones take up."""
NAME_COLOUR = (1.0, 1.0, 0.55)
LETTER_PIXELS = 18
CAPTION_PIXELS = 13
MARGIN_PIXELS = 8
ABOVE_RULER = 0.06
"""Share of the height that the scale takes at the bottom."""

_SIDES = (("R", "L"), ("A", "P"), ("S", "I"))
"""Letters towards the positive and the negative end of R, A, S."""


@dataclass(frozen=True)
class SegmentStyle:
    """How segments are drawn on a cut; None: as the segmentation node shows them.

    outline_px: width of all outlines, 0 for none. fill: opacity of the inside of all segments, 0..1. shown: ids of the
    segments (names of the registry).
    """

    outline_px: int | None = None
    fill: float | None = None
    shown: tuple[str, ...] | None = None


# --- cuts --------------------------------------------------------------------------------------------------

def slice_picture(volume_node: slicer.vtkMRMLScalarVolumeNode, segmentation_node: slicer.vtkMRMLSegmentationNode | None,
                  orientation: str, centre_lps_mm: Sequence[float], *, size: tuple[int, int] = (600, 600),
                  field_of_view_mm: float = 200.0, window_hu: tuple[float, float] = BONE_WINDOW_HU,
                  markups_node: slicer.vtkMRMLMarkupsNode | None = None,
                  style: SegmentStyle = SegmentStyle()) -> np.ndarray:
    """A plane cut through the CT with segments, names of control points, letters of the sides and a scale.

    orientation: Axial, Sagittal or Coronal. centre_lps_mm: (3,) the point in the middle of the picture. size: (width,
    height) in pixels. field_of_view_mm: width of the picture. window_hu: (width, level). markups_node: points whose
    labels are written at them; on an axial cut those near the plane, else all of them, projected.

    Returns (H, W, 3) uint8 RGB, row 0 at the top. Raises ValueError for an unknown orientation, a field of view or a
    size that shows nothing, or a volume without voxels; RuntimeError without OpenGL.
    """
    if orientation not in ORIENTATIONS:
        raise ValueError(f"orientation {orientation!r} is unknown; use one of {', '.join(ORIENTATIONS)}")
    if not field_of_view_mm > 0:
        raise ValueError(f"a field of view of {field_of_view_mm} mm shows nothing")
    if np.shape(centre_lps_mm) != (3,):
        raise ValueError(f"{centre_lps_mm} is no point in LPS mm")
    with OffscreenWindow(size) as view:
        volume = copy_volume(view.scene, volume_node, window_hu)
        if segmentation_node is not None:
            _style_segments(copy_segmentation(view.scene, segmentation_node, style.shown), style)
        if markups_node is not None:
            _style_points(copy_points(view.scene, markups_node), project=orientation != "Axial")
        logic = _slice_logic(view, volume)
        try:
            _place_slice(logic.GetSliceNode(), orientation, centre_lps_mm, size, field_of_view_mm)
            _draw_volume(view, logic)
            view.draw_with(_slice_managers(), logic.GetSliceNode())
            _write_letters(view, logic.GetSliceNode())
            _write(view, f"{orientation}\nW {window_hu[0]:.0f}  L {window_hu[1]:.0f}", (0.0, 1.0), CAPTION_PIXELS)
            return view.pixels()
        finally:
            logic.SetMRMLScene(None)


def _slice_managers() -> tuple[type, ...]:
    # Looked up when they are used: Slicer loads them with its modules, which may be after this file.
    return (slicer.vtkMRMLSegmentationsDisplayableManager2D, slicer.vtkMRMLMarkupsDisplayableManager,
            slicer.vtkMRMLRulerDisplayableManager)


def _style_segments(node: slicer.vtkMRMLSegmentationNode, style: SegmentStyle) -> None:
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName2D(LABELMAP)
    if style.outline_px is not None:
        display.SetVisibility2DOutline(style.outline_px > 0)
        display.SetSliceIntersectionThickness(max(1, style.outline_px))
    if style.fill is not None:
        display.SetVisibility2DFill(style.fill > 0)
        display.SetOpacity2DFill(style.fill)
        for segment_id in node.GetSegmentation().GetSegmentIDs():
            display.SetSegmentOpacity2DFill(segment_id, 1.0)


def _style_points(node: slicer.vtkMRMLMarkupsFiducialNode, project: bool) -> None:
    display = node.GetDisplayNode()
    display.SetGlyphTypeFromString("Cross2D")
    display.SetGlyphScale(2.0)
    display.SetTextScale(3.5)
    display.SetColor(*NAME_COLOUR)
    display.SetSelectedColor(*NAME_COLOUR)
    display.GetTextProperty().SetBold(True)
    display.SetSliceProjection(project)
    display.SetSliceProjectionUseFiducialColor(True)
    display.SetSliceProjectionOpacity(1.0)


def _slice_logic(view: OffscreenWindow, volume: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSliceLogic:
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(view.scene, True)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(view.application_logic)
    logic.SetMRMLScene(view.scene)
    logic.AddSliceNode("Picture")
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    return logic


def _place_slice(node: slicer.vtkMRMLSliceNode, orientation: str, centre_lps_mm: Sequence[float], size: tuple[int, int],
                 field_of_view_mm: float) -> None:
    width, height = size
    node.SetOrientation(orientation)
    node.SetDimensions(width, height, 1)
    node.SetFieldOfView(field_of_view_mm, field_of_view_mm * height / width, 1.0)
    for row, value in enumerate(lps_to_ras(centre_lps_mm)):
        node.GetSliceToRAS().SetElement(row, 3, float(value))
    node.UpdateMatrices()
    node.SetRulerType(slicer.vtkMRMLAbstractViewNode.RulerTypeThin)


def _draw_volume(view: OffscreenWindow, logic: slicer.vtkMRMLSliceLogic) -> None:
    """The resliced CT as the picture's background; it is drawn first, for overlays blend with what is there."""
    logic.UpdatePipeline()
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255.0)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    view.renderer.GetActiveCamera().ParallelProjectionOn()
    view.renderer.AddViewProp(actor)


def _write_letters(view: OffscreenWindow, node: slicer.vtkMRMLSliceNode) -> None:
    """R, L, A, P, S, I at the edges, from where the cut's axes point."""
    matrix = node.GetSliceToRAS()
    right, up = (np.array([matrix.GetElement(row, axis) for row in range(3)]) for axis in (0, 1))
    for direction, place in ((right, (1.0, 0.5)), (-right, (0.0, 0.5)), (up, (0.5, 1.0)), (-up, (0.5, ABOVE_RULER))):
        axis = int(np.argmax(np.abs(direction)))
        _write(view, _SIDES[axis][int(direction[axis] < 0)], place, LETTER_PIXELS)


def _write(view: OffscreenWindow, text: str, place: tuple[float, float], pixels: int) -> None:
    """White text with a shadow; place: 0 left or bottom, 0.5 middle, 1 right or top, and between."""
    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    style = actor.GetTextProperty()
    style.SetFontSize(pixels)
    style.SetShadow(True)
    style.SetJustification(round(2 * place[0]))
    style.SetVerticalJustification(round(2 * place[1]))
    position = (MARGIN_PIXELS + part * (length - 2 * MARGIN_PIXELS) for part, length in zip(place, view.size, strict=True))
    actor.SetDisplayPosition(*(round(value) for value in position))
    view.renderer.AddViewProp(actor)


# --- bones in 3D -------------------------------------------------------------------------------------------

def bones_picture(segmentation_node: slicer.vtkMRMLSegmentationNode,
                  view_from: str | Sequence[float] = "oblique", size: tuple[int, int] = (600, 600)) -> np.ndarray:
    """Bones half transparent with the trabecular regions inside them, in parallel projection with a scale.

    view_from: a key of VIEW_FROM_LPS, or the direction (3,) in LPS from the patient to the eye. size: (width, height) in
    pixels. Surfaces that the segmentation does not have yet are made for the picture only.

    Returns (H, W, 3) uint8 RGB, row 0 at the top. Raises ValueError when there is no such direction or the segmentation
    holds neither bones nor trabecular regions; RuntimeError without OpenGL.
    """
    direction = _direction_ras(view_from)
    names = [name for name, structure in STRUCTURES.items() if structure.group in ("bone", "trabecular")]
    with OffscreenWindow(size) as view:
        copy = copy_surfaces(view.scene, segmentation_node, names)
        if copy.GetSegmentation().GetNumberOfSegments() == 0:
            raise ValueError(f"the segmentation {segmentation_node.GetName()} holds no bones and no trabecular regions")
        _style_bones(copy)
        view.draw_with(_bone_managers(), _threed_node(view.scene))
        _light(view.renderer)
        _aim(view.renderer, direction)
        return view.pixels()


def _bone_managers() -> tuple[type, ...]:
    return (slicer.vtkMRMLSegmentationsDisplayableManager3D, slicer.vtkMRMLRulerDisplayableManager,
            slicer.vtkMRMLOrientationMarkerDisplayableManager)


def _direction_ras(view_from: str | Sequence[float]) -> np.ndarray:
    if isinstance(view_from, str) and view_from not in VIEW_FROM_LPS:
        raise ValueError(f"cannot look from {view_from!r}; use a direction or one of {', '.join(VIEW_FROM_LPS)}")
    direction = np.array(VIEW_FROM_LPS[view_from] if isinstance(view_from, str) else view_from, dtype=float)
    if direction.shape != (3,) or not np.linalg.norm(direction) > 0:
        raise ValueError(f"{view_from} is no direction in space")
    return lps_to_ras(direction / np.linalg.norm(direction))


def _style_bones(node: slicer.vtkMRMLSegmentationNode) -> None:
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D(SURFACE)
    for segment_id in node.GetSegmentation().GetSegmentIDs():
        bone = STRUCTURES[segment_id].group == "bone"
        display.SetSegmentOpacity3D(segment_id, BONE_OPACITY if bone else 1.0)


def _threed_node(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLViewNode:
    node = slicer.vtkMRMLViewNode()
    node.SetLayoutName("Picture")
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    node.SetRenderMode(slicer.vtkMRMLViewNode.Orthographic)
    node.SetRulerType(slicer.vtkMRMLAbstractViewNode.RulerTypeThin)
    node.SetOrientationMarkerType(slicer.vtkMRMLAbstractViewNode.OrientationMarkerTypeCube)
    node.SetOrientationMarkerSize(slicer.vtkMRMLAbstractViewNode.OrientationMarkerSizeSmall)
    scene.AddNode(node)
    return node


def _light(renderer: vtk.vtkRenderer) -> None:
    renderer.SetBackground(*BACKGROUND)
    renderer.SetUseDepthPeeling(True)
    renderer.SetUseFXAA(True)


def _aim(renderer: vtk.vtkRenderer, direction_ras: np.ndarray) -> None:
    """Look at all that is drawn, from ``direction_ras``, head up (seen along the spine: back up)."""
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    along_spine = abs(direction_ras[2]) > 0.95
    camera.SetFocalPoint(0.0, 0.0, 0.0)
    camera.SetPosition(*direction_ras)
    camera.SetViewUp(*((0.0, -1.0, 0.0) if along_spine else (0.0, 0.0, 1.0)))
    renderer.ResetCameraScreenSpace(FRAME_FILLED)


# --- files -------------------------------------------------------------------------------------------------

def save_png(path: Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB, row 0 at the top, whole or not at all. Raises OSError when it cannot be written."""
    height, width, _ = picture.shape
    scalars = numpy_to_vtk(np.ascontiguousarray(picture[::-1]).reshape(-1, 3), deep=True)
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(scalars)
    writer = vtk.vtkPNGWriter()
    writer.SetInputData(image)
    writer.SetWriteToMemory(True)
    writer.Write()
    write_whole(Path(path), bytes(memoryview(writer.GetResult())))
