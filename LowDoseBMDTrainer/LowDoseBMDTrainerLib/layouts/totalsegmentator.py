"""TotalSegmentator v2's data set: a folder for each case with ct.nii.gz and segmentations/<structure>.nii.gz.

Wasserthal et al., Radiology: Artificial Intelligence 2023;5(5):e230024.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import reorient
from LowDoseBMDLib.files.volumes import read_volume
from LowDoseBMDLib.geometry import resample
from LowDoseBMDLib.schemes import PUBLIC

from ..mapping import Foreign, Mapped, map_labels
from .found import Found

CT, MASKS, ENDING = "ct.nii.gz", "segmentations", ".nii.gz"


def find(folder: Path) -> list[Found]:
    """Every case below ``folder``, in the order of their paths."""
    return [Found((masks.parent / CT,), masks.parent / CT, f"TotalSegmentator {masks.parent.name}",
                  f"TotalSegmentator {masks.parent.name}", partial(read, masks))
            for masks in sorted(folder.rglob(MASKS)) if (masks.parent / CT).is_file() and any(masks.glob(f"*{ENDING}"))]


def read(masks: Path, ct: CTVolume) -> Mapped:
    """The masks of one case, joined to a label map with the numbers of the task ``total``.

    Masks of other tasks get numbers after these. Where masks overlap, the one that comes first by number counts.
    """
    numbers = {name: label for label, name in PUBLIC["totalsegmentator"].items()}
    files = {path.name.removesuffix(ENDING): path for path in sorted(masks.glob(f"*{ENDING}"))}
    for name in files:
        numbers.setdefault(name, max(numbers.values()) + 1)
    labels = np.zeros(ct.geometry.shape_kji, np.uint8 if max(numbers.values()) < 256 else np.uint16)
    for name in sorted(files, key=numbers.__getitem__):
        mask = _on_grid(files[name], ct)
        labels[mask & (labels == 0)] = numbers[name]
    return map_labels(Foreign(labels, {numbers[name]: name for name in files}, complete=True), ct)


def _on_grid(path: Path, ct: CTVolume) -> np.ndarray:
    moved = reorient(*read_volume(path))
    mask = moved.hu != 0
    if moved.geometry.same_grid(ct.geometry):
        return mask
    return resample(mask, moved.geometry, ct.geometry, outside=0, nearest=True)
