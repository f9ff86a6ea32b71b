"""RibSeg v2 on the CTs of RibFrac: RibFrac1-image.nii.gz and RibFrac1-rib-seg.nii.gz, labels 1 to 24 for the ribs.

Jin et al., IEEE Transactions on Medical Imaging 2023 (RibSeg v2); Jin et al., EBioMedicine 2020;62:103106 (RibFrac).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from LowDoseBMDLib.schemes import PUBLIC

from ..mapping import map_file
from .found import Found, files_with_masks

MASK, CT = "-rib-seg.nii.gz", "-image.nii.gz"


def find(folder: Path) -> list[Found]:
    """Every CT that has a mask, in the order of the masks' paths."""
    return [Found((image,), image, f"RibSeg {name}", f"RibFrac {name}", partial(map_file, mask, names=PUBLIC["ribseg"]))
            for name, image, mask in files_with_masks(folder, CT, MASK)]
