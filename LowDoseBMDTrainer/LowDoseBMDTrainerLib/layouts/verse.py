"""VerSe 2019 and 2020: rawdata/sub-x/sub-x_ct.nii.gz, derivatives/sub-x/sub-x_seg-vert_msk.nii.gz and _seg-subreg_ctd.json.

Centres are voxel coordinates of the mask. The file's first entry, ``direction``, names for X, Y and Z to which side of the
patient each grows (["P", "I", "R"]: X to the back, Y to the feet, Z to the right), whatever way the mask's own axes run.
Sekuboyina et al., Medical Image Analysis 2021;73:102166.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_label_map, read_labels
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.schemes import PUBLIC

from ..mapping import Foreign, Mapped, map_labels
from .found import Found

MASK, CENTRES, CT = "_seg-vert_msk.nii.gz", "_seg-subreg_ctd.json", "_ct.nii.gz"
_SUBJECT = re.compile(r"sub-[A-Za-z]*\d+")

_AXES = {"L": (2, False), "R": (2, True), "P": (1, False), "A": (1, True), "S": (0, False), "I": (0, True)}
"""Side -> index of the canonical axis (k, j, i: to Superior, Posterior, Left) along it, and whether that runs away."""


def find(folder: Path) -> list[Found]:
    """Every CT that has a mask, in the order of the masks' paths."""
    images = {path.name: path for path in sorted(folder.rglob(f"*{CT}"))}
    found = []
    for mask in sorted(folder.rglob(f"*{MASK}")):
        image = images.get(mask.name.removesuffix(MASK) + CT)
        if image is not None:
            subject = _SUBJECT.match(mask.name)
            patient = f"VerSe {subject[0] if subject else mask.name.removesuffix(MASK)}"
            found.append(Found((image,), image, f"VerSe {mask.name.removesuffix(MASK)}", patient, partial(read, mask)))
    return found


def read(mask: Path, ct: CTVolume) -> Mapped:
    """The vertebrae of one CT, with keypoints from the centres where these can be read."""
    names, centres_file = PUBLIC["verse"], mask.with_name(mask.name.removesuffix(MASK) + CENTRES)
    centres: dict[str, tuple[float, float, float]] = {}
    if centres_file.exists():
        _, grid = read_label_map(mask)
        by_label = read_centres(centres_file, grid)
        centres = {names[label].removeprefix("vertebrae_"): centre for label, centre in by_label.items() if label in names}
    return map_labels(Foreign(read_labels(mask, ct.geometry), names, centres), ct)


def read_centres(path: Path, grid: Geometry) -> dict[int, tuple[float, float, float]]:
    """Label -> centre in LPS mm. grid: of the mask, with canonical axes.

    Raises ValueError when the file is not in the form of VerSe's complete data sets (those of the two challenges gave mm
    without a direction).
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    entries = data if isinstance(data, list) else []
    direction = next((entry["direction"] for entry in entries if isinstance(entry, dict) and "direction" in entry), None)
    if direction is None or sorted(_AXES[side][0] for side in direction if side in _AXES) != [0, 1, 2]:
        raise ValueError(f"{path.name} does not say in which direction its coordinates run: take the file of VerSe's "
                         'complete data set, whose first entry is {"direction": ["P", "I", "R"]} or the like')
    points = {int(entry["label"]): _voxel(entry, direction, grid) for entry in entries if "label" in entry}
    return {label: tuple(float(x) for x in grid.to_lps(kji)) for label, kji in points.items() if np.isfinite(kji).all()}


def _voxel(entry: dict[str, Any], direction: list[str], grid: Geometry) -> np.ndarray:
    """(3,) index k, j, i on the canonical grid."""
    kji = np.zeros(3)
    for side, key in zip(direction, "XYZ", strict=True):
        axis, backwards = _AXES[side]
        kji[axis] = grid.shape_kji[axis] - 1 - float(entry[key]) if backwards else float(entry[key])
    return kji
