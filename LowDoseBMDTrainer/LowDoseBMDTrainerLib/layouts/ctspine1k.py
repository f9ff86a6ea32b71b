"""CTSpine1K: volumes and masks in trees of their own, <name>.nii.gz and <name>_seg.nii.gz; labels as in VerSe.

Deng et al., arXiv 2105.14711.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from LowDoseBMDLib.schemes import PUBLIC

from ..mapping import map_file
from .found import Found, files_with_masks

MASK, CT = "_seg.nii.gz", ".nii.gz"


def find(folder: Path) -> list[Found]:
    """Every CT that has a mask, in the order of the masks' paths."""
    return [Found((image,), image, f"CTSpine1K {name}", f"CTSpine1K {name}", partial(map_file, mask, names=PUBLIC["verse"]))
            for name, image, mask in files_with_masks(folder, CT, MASK)]
