"""Whole synthetic CTs whose levels are known: what the naming of levels is proved on.

A person prepared for the bones is varied as for training (ribs, lumbar vertebrae, fractures, pose, scanner) and
scanned from above the lungs down, or through the abdomen. Truth comes with the scan. Synthetic scans stand beside real
ones, never for them: the people are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Keypoint, Mask

from .cases import Labels
from .people import BONE_PARTS, PARTS, Person, bone_targets
from .synthesis import Task, draw_ct, draw_pose, scan


@dataclass(frozen=True)
class ScanOptions:
    """What kind of scans are drawn. spacing_mm: of the voxels. abdomen: share of scans that begin at about T9 instead of
    above the lungs."""

    spacing_mm: float = 2.0
    abdomen: float = 0.2


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan and what is true of it.

    name: the person's and the seed. centres_lps_mm: of every vertebral body that is whole in the scan, head to foot, by its
    true name: counted from T1 down with 12 thoracic vertebrae, L6 where there are six lumbar ones. labels: bone classes and
    bodies of the measured levels as they are, on the CT's grid, with the centres as keypoints. rib_12: of the person as
    drawn: absent, short or long. kinds: what was varied, in words for a table, such as "13 pairs of ribs" or "6 lumbar".
    """

    name: str
    person: str
    ct: CTVolume
    centres_lps_mm: Mapping[str, tuple[float, float, float]]
    labels: Labels
    rib_12: str
    kinds: tuple[str, ...]


def draw_scan(person: Person, seed: int, options: ScanOptions = ScanOptions()) -> SyntheticScan:
    """A scan of a person prepared for ``bones``, the same for the same seed.

    Raises ValueError when the person has fewer than two named bodies.
    """
    if len(person.centres_kji) < 2:
        raise ValueError(f"{person.name}: a scan needs a person with two named vertebral bodies at least")
    rng = np.random.default_rng(seed)
    shape = (160, 170, 210)
    task = Task("bones", options.spacing_mm, shape)
    middle = list(person.centres_kji.values())[len(person.centres_kji) // 2]
    place = draw_pose(rng, person, task, np.array([middle[0], person.bone.shape[1] / 2, person.bone.shape[2] / 2]))
    hu, bone, part = draw_ct(rng, person, task, place)
    hu, seen = scan(rng, hu, task.spacing_mm)
    matrix = np.diag([options.spacing_mm] * 3 + [1.0])
    geometry = Geometry(shape, matrix)
    centres = {}
    for level, centre in person.centres_kji.items():
        squared = sum((place[a] - centre[a]) ** 2 for a in range(3))
        peak = np.unravel_index(int(squared.argmin()), shape)
        if float(squared.min()) <= 3.0 and bool(seen[peak]) and 8 <= peak[0] < shape[0] - 8:
            centres[level] = tuple(float(x) for x in geometry.to_lps(np.array(peak)))
    classes = torch.from_numpy(bone_targets())[bone.int()].numpy()
    masks = {name: Mask.from_array(classes == n) for n, name in enumerate((*BONES, OTHER_BONES), start=1)}
    body = (part == PARTS.index("vertebral body")).numpy()
    masks |= {f"body_{n}": Mask.from_array(body & (bone.numpy() == BONE_PARTS.index(n))) for n in LEVELS if n in centres}
    labels = Labels(geometry, masks, tuple(Keypoint(name, at) for name, at in centres.items()))
    ct = CTVolume(np.rint(hu.numpy()).astype(np.int16), geometry, Acquisition(source="synthetic", modality="CT"))
    return SyntheticScan(f"{person.name} {seed}", person.name, ct, centres, labels, "long", ())
