"""What a person does with the panel in the tests: choose, press, type, paint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import small_torso as torso
import vtk
from LowDoseBMDLib.anatomy import SPINE
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.rois import Rois, Vertebra
from LowDoseBMDMRML.volumes import node_from_ct, node_grid
from vtk.util.numpy_support import vtk_to_numpy

AIR_HU, HARD_BONE_HU = -1000.0, 1200.0


def torso_ct(**changes: Any) -> CTVolume:
    """The CT of boxes with air in front and hard bone behind, so that its scale is that of a CT. changes: Acquisition."""
    ct = torso.ct()
    hu = ct.hu.copy()
    hu[:, :2], hu[:, -2:] = AIR_HU, HARD_BONE_HU
    return replace(ct, hu=hu, acquisition=replace(ct.acquisition, **changes))


def torso_rois() -> Rois:
    """Every region found, with the chain of vertebrae that names can move along."""
    rois = torso.rois()
    return replace(rois, spine=tuple(Vertebra(SPINE.index(name), rois.masks[f"body_{name}"]) for name in torso.BODIES))


class Reader:
    """A person at the panel of the module. session: the imitated application; widget: the module's."""

    def __init__(self, session: Any, widget: Any) -> None:
        self.session, self.widget, self.ui, self.panel = session, widget, widget.ui, widget.panel
        widget.parent.show()

    @property
    def live(self) -> Any:
        return self.panel.session.live

    @property
    def state(self) -> str:
        return self.panel.session.state

    @property
    def card(self) -> str:
        return self.ui.cardLabel.text

    def load(self, ct: CTVolume | None = None, name: str = "2: Chest LDCT") -> Any:
        """Load a CT and choose it."""
        node = node_from_ct(slicer.mrmlScene, ct or torso_ct(), name)
        self.ui.volumeSelector.setCurrentNode(node)
        self.session.wait(10)
        return node

    def measure(self, seconds: float = 60.0) -> None:
        """Press Measure and wait for the end."""
        self.ui.measureButton.click()
        self.session.wait_until(lambda: self.state != "running", seconds)
        self.session.wait(20)

    def measured(self) -> Any:
        """A CT, measured."""
        node = self.load()
        self.measure()
        assert self.state == "measured", self.panel.session.message
        return node

    def paint(self, name: str, box: tuple[slice, slice, slice], live: Any = None) -> None:
        """Add voxels (k, j, i of the CT) to a segment as a brush does, and let go of the mouse. live: the shown one."""
        study = (live or self.live).study
        label = slicer.vtkOrientedImageData()
        grid = node_grid(study.volume_node)
        k, j, i = (range(*each.indices(size)) for each, size in zip(box, grid.shape_kji, strict=True))
        extent = [i[0], i[-1], j[0], j[-1], k[0], k[-1]]
        label.SetExtent(extent)
        label.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        vtk_to_numpy(label.GetPointData().GetScalars())[:] = 1
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(np.asarray(grid.ijk_to_ras).ravel().tolist())
        label.SetImageToWorldMatrix(matrix)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        assert logic.SetBinaryLabelmapToSegment(label, study.segmentation_node, name, logic.MODE_MERGE_MAX, extent)
        self.session.wait(30)

    def reopen_scene(self, folder: Path) -> None:
        """Save the scene, close it and load it, as from the File menu."""
        path, scene = str(folder / "study ü.mrb"), slicer.mrmlScene
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(str(folder))
        manager.SetCacheManager(cache)
        scene.SetCacheManager(cache)
        scene.SetDataIOManager(manager)
        assert scene.WriteToMRB(path)
        self.session.close_scene()
        assert scene.ReadFromMRB(path)
        self.session.wait(50)

    def row(self, name: str) -> int:
        """Row of a level or tissue in the table."""
        table = self.ui.levelsTable
        return next(n for n in range(table.rowCount) if table.item(n, 0).text() == name)

    def cell(self, name: str, column: int) -> str:
        return self.ui.levelsTable.item(self.row(name), column).text()
