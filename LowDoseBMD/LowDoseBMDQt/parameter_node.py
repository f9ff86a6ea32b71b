"""What the panel remembers in the scene: choices of the reader, saved and opened again with it."""

import enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Erosion(enum.Enum):
    """How the trabecular region is cut out of a body; values are the library's."""

    PHYSICAL = "physical"
    PAPER = "paper"
    VOXELS = "voxels"

    def label(self) -> str:
        return {"physical": _("5.5 mm from the surface"), "paper": _("as published (3.9 x 3.9 x 5 mm)"),
                "voxels": _("4 voxels")}[self.value]


class Device(enum.Enum):
    """Where the networks run; values are the library's."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self) -> str:
        return {"auto": _("automatic"), "cpu": _("processor"), "cuda": _("graphics card (CUDA)")}[self.value]


class WindowPreset(enum.Enum):
    """Window of the CT in the slice views."""

    BONE = "bone"
    SOFT_TISSUE = "soft_tissue"

    def label(self) -> str:
        return {"bone": _("bone window"), "soft_tissue": _("soft tissue")}[self.value]


@parameterNodeWrapper
class LowDoseBMDParameterNode:
    """Choices of the panel. calibrationPath: a calibration file (JSON); empty for the constants of the literature.

    modelsPath: a folder of models; empty for those of the product.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    calibrationPath: str = ""
    erosion: Erosion = Erosion.PHYSICAL
    device: Device = Device.AUTO
    modelsPath: str = ""
    showFilled: bool = True
    opacity: Annotated[float, WithinRange(0, 1)] = 0.3
    windowPreset: WindowPreset = WindowPreset.BONE
    reader: str = ""
