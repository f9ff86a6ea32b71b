"""A window nobody sees, drawn by Slicer's own displayable managers.

The window has a scene of its own. Nodes of a study are copied into it (node_copies.py), so that the study's scene gets
no view nodes, its display nodes are not touched, and a layout manager that watches it opens no view. Managers are added
to the group one by one: the factories of Slicer's views are shared by the whole application and stay as they are.
"""

from __future__ import annotations

from types import TracebackType

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


class OffscreenWindow:
    """A render window, its scene and the logics that displayable managers ask for. Use it in a ``with`` block.

    size: (width, height) in pixels. Raises RuntimeError when there is no OpenGL to draw with, ValueError for a size
    that is no picture.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        if min(size) < 1:
            raise ValueError(f"a picture of {size[0]} x {size[1]} pixels holds nothing")
        self.size = size
        self.window = _render_window(size)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkMRMLApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self._markups_logic = slicer.vtkSlicerMarkupsLogic()
        self._markups_logic.SetMRMLApplicationLogic(self.application_logic)
        self._markups_logic.SetMRMLScene(self.scene)
        self.application_logic.SetModuleLogic("Markups", self._markups_logic)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()

    def __enter__(self) -> OffscreenWindow:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def draw_with(self, managers: tuple[type, ...], view_node: slicer.vtkMRMLAbstractViewNode) -> None:
        """Let displayable managers draw, in this order, what the scene shows in ``view_node``."""
        # Markups warn of any other setting; Slicer sets the same when it opens its first view.
        vtk.vtkMapper.SetResolveCoincidentTopologyToPolygonOffset()
        self._group.SetRenderer(self.renderer)
        for kind in managers:
            manager = kind()
            manager.SetMRMLApplicationLogic(self.application_logic)
            self._group.AddDisplayableManager(manager)
        self._group.SetMRMLDisplayableNode(view_node)

    def pixels(self) -> np.ndarray:
        """Render; (H, W, 3) uint8 RGB, row 0 at the top."""
        self.window.Render()
        width, height = self.size
        buffer = vtk.vtkUnsignedCharArray()
        self.window.GetPixelData(0, 0, width - 1, height - 1, 0, buffer, 0)
        return np.ascontiguousarray(vtk_to_numpy(buffer).reshape(height, width, 3)[::-1])

    def close(self) -> None:
        """Let go of everything, the shared voxels of the copied nodes first of all."""
        self._group.SetMRMLDisplayableNode(None)
        self._interactor.SetRenderWindow(None)
        self.application_logic.SetModuleLogic("Markups", None)
        for node in self.scene.GetNodesByClass("vtkMRMLSegmentationNode"):
            _empty(node.GetSegmentation())
        self.scene.Clear(True)
        self.window.RemoveRenderer(self.renderer)
        self.window.Finalize()


def can_draw() -> bool:
    """Whether there is an OpenGL to draw with: a display, EGL or OSMesa."""
    try:
        _render_window((1, 1)).Finalize()
    except RuntimeError:
        return False
    return True


def _render_window(size: tuple[int, int]) -> vtk.vtkRenderWindow:
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    # Slice views draw to the pixel, and half transparent surfaces are peeled: neither goes with multisampling.
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(True)
    window.SetSize(*size)
    window.Initialize()
    # SupportsOpenGL() says yes to an OSMesa that is not installed.
    if not window.GetInitialized():
        raise RuntimeError("There is no OpenGL here to draw a picture with: start with a display, or install EGL or OSMesa.")
    return window


def _empty(segmentation: slicer.vtkSegmentation) -> None:
    """Take the images out of segments first: a segment that shares one is else cut out of it, at a second a study."""
    for segment_id in segmentation.GetSegmentIDs():
        segmentation.GetSegment(segment_id).RemoveAllRepresentations()
