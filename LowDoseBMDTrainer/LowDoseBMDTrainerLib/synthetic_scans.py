"""Whole synthetic CTs whose levels are known: what the naming of levels is proved on.

A person prepared for the bones is varied as for training (ribs, lumbar vertebrae, fractures, curvature, build, metal) and
scanned from above the lungs down, or through the abdomen. Truth comes with the scan. Synthetic scans stand beside real
ones, never for them: the people are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from LowDoseBMDLib.anatomy import BONES, LEVELS, OTHER_BONES
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask

from .cases import Labels
from .people import BONE_PARTS, PARTS, Person, bone_targets
from .synthesis_anatomy import Anatomy, draw_anatomy, kinds, rib_12_kind, true_centres
from .synthesis_fields import Chance, Grid
from .synthesis_pose import Pose, draw_pose
from .synthesis_scanner import scan
from .synthesis_subject import Subject, make_subject
from .synthesis_tissue import draw_ct

LARGEST = 1.25
"""A person is drawn at most so many times as large as it is (Pose of whole scans)."""

BESIDE_MM = 12.0
"""Air beside the patient that the field of view takes in."""

ABOVE_APEX_MM = (25.0, 70.0)
"""A chest scan begins so far above T1's centre, which lies about as high as the apex of the lungs."""


@dataclass(frozen=True)
class ScanOptions:
    """What kind of scans are drawn. spacing_kji_mm: of the voxels. abdomen: share of scans that begin between T8 and T10
    instead of above the lungs, and go on to the end of the lumbar spine."""

    spacing_kji_mm: tuple[float, float, float] = (2.5, 1.5, 1.5)
    abdomen: float = 0.2


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan and what is true of it.

    name: the person's and the seed. centres_lps_mm: of every vertebral body that is whole in the scan, head to foot, by its
    true name: counted from T1 down with 12 thoracic vertebrae, L6 where there are six lumbar ones. labels: bone classes and
    bodies of the measured levels as they are, on the CT's grid (a body that is not whole in the scan is empty), with the
    centres as keypoints. rib_12: of the person as drawn: absent, short, usual or long. kinds: what was varied, in words for
    a table, such as "13 pairs of ribs" or "6 lumbar vertebrae", and "abdomen" for a scan that does not show the lungs' apex.
    """

    name: str
    person: str
    ct: CTVolume
    centres_lps_mm: Mapping[str, tuple[float, float, float]]
    labels: Labels
    rib_12: str
    kinds: tuple[str, ...]


def draw_scan(person: Person | Subject, seed: int, options: ScanOptions = ScanOptions()) -> SyntheticScan:
    """A scan of a person prepared for ``bones``, the same for the same seed.

    person: a Subject saves the seconds of making one for each scan. Raises ValueError when no body below T9 is named.
    """
    subject = person if isinstance(person, Subject) else make_subject(person)
    chance = Chance(np.random.default_rng(seed), subject.device)
    anatomy = draw_anatomy(chance, subject)
    top, bottom, chest = _range(chance, subject, anatomy, options)
    grid, pose = _posed(chance, subject, anatomy, (top, bottom), options)
    hu, bone, part = draw_ct(chance, subject, anatomy, grid, pose)
    hu, _ = scan(chance, hu, grid, cropped=False)
    matrix = np.diag([*grid.spacing_kji_mm[::-1], 1.0])
    geometry = Geometry(grid.shape_kji, matrix)
    bodies = _bodies(subject, anatomy, pose, bone, part)
    labels = _labels(geometry, bone, bodies)
    ct = CTVolume(hu.round().clamp(-1024, 3071).short().cpu().numpy(), geometry,
                  Acquisition(source="synthetic", modality="CT", slice_thickness_mm=grid.spacing_kji_mm[0]))
    centres = {point.level: point.position_lps_mm for point in labels.keypoints}
    found = (*kinds(anatomy, subject), *([] if chest else ["abdomen"]))
    name = subject.person.name
    return SyntheticScan(f"{name} {seed}", name, ct, centres, labels, rib_12_kind(anatomy, subject), found)


def _range(chance: Chance, subject: Subject, anatomy: Anatomy, options: ScanOptions) -> tuple[float, float, bool]:
    """(top, bottom) of the scan in the person's slices, and whether it begins above the lungs.

    A chest scan ends between T12 and L4, an abdominal one below L5, or where the person does.
    """
    known = {level: centre[0] for level, centre in true_centres(subject, anatomy).items() if centre is not None}
    if not any(level in known for level in ("T10", "T11", "T12", "L1")):
        raise ValueError(f"{subject.person.name}: a scan needs a person in whom one of T10 to L1 is named")
    last = float(subject.bone.shape[0] - 1)
    if "T1" in known and not chance.happens(options.abdomen):
        top = known["T1"] + chance.uniform(*ABOVE_APEX_MM) / subject.spacing_mm
        ends = [known[level] for level in ("T12", "L1", "L2", "L3", "L4") if level in known]
        return min(top, last), max(0.0, chance.uniform(min(ends), max(ends)) - 10.0 / subject.spacing_mm), True
    starts = [known[level] for level in ("T8", "T9", "T10") if level in known]
    top = chance.uniform(min(starts), max(starts)) + 14.0 / subject.spacing_mm if starts else last
    return min(top, last), max(0.0, min(known.values()) - chance.uniform(20, 60) / subject.spacing_mm), False


def _posed(chance: Chance, subject: Subject, anatomy: Anatomy, ends: tuple[float, float],
           options: ScanOptions) -> tuple[Grid, Pose]:
    """The scan's voxels, as many slices as show the person from top to bottom, and where they look."""
    top, bottom = ends
    trunk = (subject.inside_mm > 0).any(0)
    depth = int(trunk.any(1).sum()) * subject.spacing_mm
    beside = 2 * (anatomy.build.layer_mm + BESIDE_MM)
    sides_mm = ((top - bottom) * subject.spacing_mm * LARGEST, (depth + beside) * 1.05,
                (2 * subject.half_width_mm + beside) * 1.05)
    shape = tuple(int(np.ceil(side / step / 2)) * 2 for side, step in zip(sides_mm, options.spacing_kji_mm, strict=True))
    grid = Grid(shape, options.spacing_kji_mm)
    middle = [float(n.float().mean()) for n in trunk.nonzero(as_tuple=True)]
    pose = draw_pose(chance, subject, anatomy, grid, np.array([(top + bottom) / 2, *middle]), upright=True)
    column = pose.varied[0][:, shape[1] // 2, shape[2] // 2]
    inside = ((column >= bottom) & (column <= top)).nonzero()[:, 0]
    kept = slice(int(inside.min()), int(inside.max()) + 1)
    parts = {name: getattr(pose, name)[:, kept].contiguous() for name in ("varied", "bones", "soft")}
    return replace(grid, shape_kji=(kept.stop - kept.start, *shape[1:])), Pose(**parts)


def _bodies(subject: Subject, anatomy: Anatomy, pose: Pose, bone: torch.Tensor, part: torch.Tensor) -> dict[str, Mask]:
    """The vertebral bodies that are whole in the scan by their true names, head to foot.

    Every voxel of a body is that of the nearest true centre.
    """
    centres = {level: centre for level, centre in true_centres(subject, anatomy).items() if centre is not None}
    known = torch.tensor([BONE_PARTS.index(level) for level in subject.centres], device=bone.device)
    is_body = (part == PARTS.index("vertebral body")) & torch.isin(bone.int(), known)
    index = is_body.nonzero()
    place = torch.stack([pose.varied[a][is_body] for a in range(3)], dim=1)
    points = torch.tensor(np.array(list(centres.values())), dtype=torch.float32, device=place.device)
    nearest = torch.cdist(place, points).argmin(1)
    bodies = {}
    for n, level in enumerate(centres):
        own = index[nearest == n].cpu().numpy()
        if len(own) and own[:, 0].min() > 0 and own[:, 0].max() < bone.shape[0] - 1:
            low = own.min(0)
            voxels = np.zeros(own.max(0) - low + 1, bool)
            voxels[tuple((own - low).T)] = True
            bodies[level] = Mask(voxels, tuple(int(a) for a in low))
    return bodies


def _labels(geometry: Geometry, bone: torch.Tensor, bodies: Mapping[str, Mask]) -> Labels:
    classes = bone_targets()[bone.cpu().numpy()]
    masks = {name: Mask.from_array(classes == n) for n, name in enumerate((*BONES, OTHER_BONES), start=1)}
    masks |= {f"body_{level}": bodies.get(level, NO_VOXELS) for level in LEVELS}
    centres = {level: body.centroid_lps_mm(geometry) for level, body in bodies.items()}
    points = (Keypoint(level, tuple(float(x) for x in centre)) for level, centre in centres.items())
    return Labels(geometry, masks, tuple(points))
