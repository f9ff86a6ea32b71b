"""Small CTs and projects for the tests of cases and imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.volumes import write_volume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask

SHAPE_KJI = (24, 20, 22)
SPACING_MM = (1.5, 1.25, 2.0)
ROOT = Path(__file__).resolve().parents[2]


def geometry() -> Geometry:
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = (-15.0, 7.0, -120.0)
    return Geometry(SHAPE_KJI, matrix)


def ct(seed: int = 0) -> CTVolume:
    """Noise between air and bone: another one for each seed."""
    return CTVolume(np.random.default_rng(seed).integers(-1000, 1200, SHAPE_KJI).astype(np.int16), geometry())


def ct_file(folder: Path, seed: int = 0, name: str = "ct.nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    volume = ct(seed)
    write_volume(folder / name, volume.hu, volume.geometry)
    return folder / name


def block(start: tuple[int, int, int], shape: tuple[int, int, int] = (3, 4, 5)) -> Mask:
    return Mask(np.ones(shape, bool), start)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs ``code`` with the libraries of the checkout."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("LowDoseBMD", "LowDoseBMDTrainer"))
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=os.environ | {"PYTHONPATH": paths},
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
