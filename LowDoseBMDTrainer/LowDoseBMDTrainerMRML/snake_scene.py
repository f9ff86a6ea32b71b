"""A snake in the scene: its box, where it may go, its bubbles and its front, each as a node that goes when it is closed.

Nothing is written into the annotator's segmentation here. Points are RAS mm, as the scene has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from LowDoseBMDLib.geometry import lps_to_ras
from LowDoseBMDLib.rois import NO_VOXELS, Mask
from LowDoseBMDMRML import segments, volumes
from LowDoseBMDTrainerLib.presegmentation import Presegmentation, WholeBone
from LowDoseBMDTrainerLib.snake import Bubble, Forces, Front, Snake, box_geometry
from vtk.util.numpy_support import numpy_to_vtk

BOX_MM = (100.0, 100.0, 60.0)
"""Width, depth and height of a new box: a lumbar vertebra with its processes."""

MARGIN_MM = 10.0
"""By so much the box reaches beyond a bubble for which it had to grow."""

MOST_VOXELS = 6_000_000
"""Of a box: beyond, a step takes seconds."""

MOST_STEPS_BACK = 40
"""Fronts that are kept to go back to; 2 MB each round a vertebra."""

FRONT = "snake"
"""Name of the only segment of the front's node."""

SPEED_COLOURS = "vtkMRMLColorTableNodeFileDivergingBlueRed.txt"
"""Blue where the snake draws back, red where it grows."""


class SnakeScene:
    """One use of the tool on the CT of ``volume_node``. way: how the CT becomes a speed. bubbles: LPS, as placed.

    roi_node: the box, to be dragged. front_node: a segmentation that shows the bubbles or the front. speed_node: a volume
    that shows where the snake may go, from the first look at it.
    """

    def __init__(self, scene: slicer.vtkMRMLScene, volume_node: slicer.vtkMRMLScalarVolumeNode,
                 centre_ras_mm: Sequence[float], colour: Sequence[float]) -> None:
        self._scene = scene
        self._ct, self._grid = volumes.ct_from_node(volume_node), volumes.node_grid(volume_node)
        self.way: Presegmentation = WholeBone()
        self.bubbles: tuple[Bubble, ...] = ()
        self._snake: Snake | None = None
        self._made_for: tuple[object, ...] = ()
        self._fronts: deque[Front] = deque(maxlen=MOST_STEPS_BACK)
        self.roi_node = self._box_node(centre_ras_mm)
        self.front_node = _hidden(segments.create_segmentation(scene, volume_node, "Snake"))
        self.speed_node: slicer.vtkMRMLScalarVolumeNode | None = None
        self._show(NO_VOXELS)
        self.front_node.GetSegmentation().GetSegment(FRONT).SetColor(*colour)

    def close(self) -> None:
        """Take all its nodes, and what displays them, out of the scene."""
        for node in (self.roi_node, self.front_node, self.speed_node):
            if node is not None and node.GetScene() is self._scene:
                displays = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
                self._scene.RemoveNode(node)
                for display in displays:
                    if display.GetScene() is self._scene:
                        self._scene.RemoveNode(display)

    # --- where it may go ---------------------------------------------------------------------------------------

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The voxels (k, j, i) of the CT in the box. Raises ValueError when there are none, or too many."""
        bounds = [0.0] * 6
        self.roi_node.GetRASBounds(bounds)
        corners = np.array(np.meshgrid(bounds[0:2], bounds[2:4], bounds[4:6])).reshape(3, -1).T
        kji = self._ct.geometry.to_kji(lps_to_ras(corners))
        start = np.maximum(np.ceil(kji.min(axis=0)).astype(int), 0)
        stop = np.minimum(np.floor(kji.max(axis=0)).astype(int) + 1, self._ct.hu.shape)
        if np.any(stop - start < 2):
            raise ValueError("The box lies outside of the CT: drag it over the structure.")
        if np.prod(stop - start) > MOST_VOXELS:
            raise ValueError(f"The box holds {np.prod(stop - start) / 1e6:.0f} million voxels; make it smaller than "
                             f"{MOST_VOXELS / 1e6:.0f} million, around one bone.")
        return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))

    def prepare(self, way: Presegmentation) -> Snake:
        """The snake of this box with these settings; made anew when one of them changed, then without a front.

        Raises ValueError for a box or settings that cannot be used.
        """
        box = self.box
        wanted = (way, *((s.start, s.stop) for s in box))
        if self._snake is None or wanted != self._made_for:
            self._snake = Snake.of(self._ct.hu[box], box_geometry(self._ct.geometry, box), way)
            self.way, self._made_for = way, wanted
            self._fronts.clear()
        return self._snake

    def look(self, way: Presegmentation) -> slicer.vtkMRMLScalarVolumeNode:
        """The volume that shows where the snake would grow (above 0) and draw back (below)."""
        snake = self.prepare(way)
        if self.speed_node is None:
            self.speed_node = self._speed_volume()
        image = vtk.vtkImageData()
        image.SetDimensions(snake.grid.shape_kji[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(snake.speed.still.ravel(), deep=True))
        self.speed_node.SetIJKToRASMatrix(volumes.vtk_matrix(snake.grid.ijk_to_ras))
        self.speed_node.SetAndObserveImageData(image)
        return self.speed_node

    # --- bubbles and front -------------------------------------------------------------------------------------

    def add_bubble(self, ras_mm: Sequence[float], radius_mm: float) -> None:
        """Place a bubble; the box grows to hold it, and the snake starts again. Raises ValueError for a radius that is not
        positive.
        """
        if radius_mm <= 0:
            raise ValueError(f"a bubble of radius {radius_mm:g} mm: it must be above 0")
        centre = tuple(float(x) for x in lps_to_ras(np.asarray(ras_mm, dtype=float)))
        self._hold(np.asarray(ras_mm, dtype=float), radius_mm)
        self.set_bubbles((*self.bubbles, Bubble(centre, float(radius_mm))))

    def _hold(self, centre_ras_mm: np.ndarray, radius_mm: float) -> None:
        """A box that cuts a bubble grows beyond it; one that holds it stays as the annotator made it."""
        bounds = [0.0] * 6
        self.roi_node.GetRASBounds(bounds)
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        bubble_low, bubble_high = centre_ras_mm - radius_mm, centre_ras_mm + radius_mm
        new_low = np.where(bubble_low < low, bubble_low - MARGIN_MM, low)
        new_high = np.where(bubble_high > high, bubble_high + MARGIN_MM, high)
        if np.any(new_low < low) or np.any(new_high > high):
            self.roi_node.SetCenter(*((new_low + new_high) / 2))
            self.roi_node.SetSize(*(new_high - new_low))

    def set_bubbles(self, bubbles: Sequence[Bubble]) -> None:
        """These bubbles and no others; the snake starts again."""
        self.bubbles = tuple(bubbles)
        self.restart()

    def restart(self) -> None:
        """Back to the bubbles; where none lies in the box, to nothing."""
        self._fronts.clear()
        if not self.bubbles:
            self._show(NO_VOXELS)
            return
        snake = self.prepare(self.way)
        self._fronts.append(snake.start(self.bubbles))
        self._show_front(snake)

    @property
    def front(self) -> Front | None:
        """Where the snake stands; None before it was started."""
        return self._fronts[-1] if self._fronts else None

    def step(self, way: Presegmentation, forces: Forces, iterations: int) -> Front:
        """Let the snake go on. Raises ValueError without bubbles, or for a box or settings that cannot be used."""
        snake = self.prepare(way)
        if not self._fronts:
            self._fronts.append(snake.start(self.bubbles))
        self._fronts.append(snake.step(self._fronts[-1], forces, iterations))
        self._show_front(snake)
        return self._fronts[-1]

    @property
    def can_go_back(self) -> bool:
        return len(self._fronts) > 1

    def back(self) -> None:
        """One step back; nothing at the first that is kept."""
        if self.can_go_back and self._snake is not None:
            self._fronts.pop()
            self._show_front(self._snake)

    @property
    def image(self) -> slicer.vtkOrientedImageData:
        """What is shown as a labelmap on the voxels of the CT."""
        return self.front_node.GetSegmentation().GetSegment(FRONT).GetRepresentation(segments.LABELMAP)

    @property
    def volume_ml(self) -> float:
        """Of what is shown."""
        return self._mask.volume_mm3(self._ct.geometry) / 1000

    # --- nodes -------------------------------------------------------------------------------------------------

    def _show_front(self, snake: Snake) -> None:
        low = self._ct.geometry.to_kji(snake.box.to_lps(np.zeros(3)))
        self._show(Mask.from_array(snake.mask(self._fronts[-1]), tuple(int(n) for n in np.rint(low))))

    def _show(self, mask: Mask) -> None:
        self._mask = mask
        segments.write_region(self.front_node, self._grid, FRONT, mask, self._ct.geometry)

    def _box_node(self, centre_ras_mm: Sequence[float]) -> slicer.vtkMRMLMarkupsROINode:
        node = slicer.vtkMRMLMarkupsROINode()
        node.SetName("Snake's box")
        self._scene.AddNode(_hidden(node))
        node.CreateDefaultDisplayNodes()
        node.SetCenter(*centre_ras_mm)
        node.SetSize(*BOX_MM)
        node.GetDisplayNode().SetFillVisibility(False)
        node.GetDisplayNode().SetPropertiesLabelVisibility(False)
        return node

    def _speed_volume(self) -> slicer.vtkMRMLScalarVolumeNode:
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName("Where the snake may go")
        self._scene.AddNode(_hidden(node))
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(2.0, 0.0)
        display.SetAndObserveColorNodeID(SPEED_COLOURS)
        return node


def _hidden(node: slicer.vtkMRMLNode) -> slicer.vtkMRMLNode:
    """It is a tool's, not the user's: it stands in no list and is not saved."""
    node.SetHideFromEditors(True)
    node.SaveWithSceneOff()
    return node
