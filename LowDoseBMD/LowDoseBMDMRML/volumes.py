"""CT volume nodes and CTVolume: the same voxels, seen by Slicer and by the library."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import slicer
import vtk
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.files.read import ct_from_array
from LowDoseBMDLib.files.volumes import refuse_shear
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.geometry import Geometry
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

ACQUISITION = "LowDoseBMD.Acquisition"
"""Attribute of a volume node: the facts of its acquisition as JSON, without identity of the patient."""


def ct_from_node(node: slicer.vtkMRMLScalarVolumeNode) -> CTVolume:
    """The CT of a volume node where it lies in the world, with canonical axes; voxels are shared where they can be.

    Linear parent transforms are applied to the position of the voxels, never to their values.
    Raises Refusal ``no_image``, ``labels``, ``transform_nonlinear``, ``sheared`` or what files.read refuses.
    """
    geometry = node_grid(node)
    refuse_shear(geometry.direction)
    return ct_from_array(node_voxels(node), geometry, acquisition_of(node))


def node_grid(node: slicer.vtkMRMLScalarVolumeNode) -> Geometry:
    """The node's own voxel grid in the world, axes as they are stored. Raises Refusal as ct_from_node."""
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise Refusal("labels", "The chosen volume is a label map, not a CT. Choose the CT.")
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise Refusal("no_image", "The chosen volume holds no image. Load the CT again.")
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    vtk.vtkMatrix4x4.Multiply4x4(_to_world(node), to_ras, to_ras)
    return Geometry.from_ijk_to_ras(image.GetDimensions()[::-1], matrix_array(to_ras))


def _to_world(node: slicer.vtkMRMLTransformableNode) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is None:
        return matrix
    if not transform.IsTransformToWorldLinear():
        raise Refusal("transform_nonlinear", "The CT lies under a transform that bends it, which would change its HU. Take "
                      "the CT out of the transform, or choose the untransformed CT.")
    transform.GetMatrixTransformToWorld(matrix)
    return matrix


def node_voxels(node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """(k, j, i) voxels of a node with an image, shared with it. Raises Refusal ``colour``."""
    image = node.GetImageData()
    if image.GetNumberOfScalarComponents() != 1:
        raise Refusal("colour", "The chosen volume holds colours or vectors, not HU. Choose the original CT series.")
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def acquisition_of(node: slicer.vtkMRMLScalarVolumeNode) -> Acquisition:
    """What is known of how the volume was made; fields of an older or newer version are passed over."""
    stored = json.loads(node.GetAttribute(ACQUISITION) or "{}")
    known = Acquisition.__dataclass_fields__
    return Acquisition(**{"source": "slicer", **{name: value for name, value in stored.items() if name in known}})


def set_acquisition(node: slicer.vtkMRMLScalarVolumeNode, acquisition: Acquisition) -> None:
    """Keep the facts of the acquisition with the volume; they are saved with the scene."""
    node.SetAttribute(ACQUISITION, json.dumps(asdict(acquisition)))


def node_from_ct(scene: slicer.vtkMRMLScene, ct: CTVolume, name: str,
                 window_hu: tuple[float, float] | None = None) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume node with a copy of the CT. window_hu: width and level; Slicer's own choice, which looks at all voxels and
    takes a second, when it is left out."""
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(name)
    if window_hu is not None:
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(*window_hu)
    image = vtk.vtkImageData()
    image.SetDimensions(ct.hu.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(ct.hu).ravel(), deep=True))
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(vtk_matrix(ct.geometry.ijk_to_ras))
    if window_hu is None:
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
    set_acquisition(node, ct.acquisition)
    return node


def matrix_array(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """The inverse of matrix_array."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(array.ravel().tolist())
    return matrix
