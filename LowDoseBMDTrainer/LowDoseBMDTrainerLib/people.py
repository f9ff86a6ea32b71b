"""Label maps of whole people, made ready for synthesis: what tissue and what bone each voxel is.

A public label map names organs and bones but not skin, fat and the tissue between organs. Here these are
derived: the trunk is the closing of everything that is named, subcutaneous fat and skin lie round it at a depth
that the synthesis draws anew for each CT.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from LowDoseBMDLib.files.atomic import whole_file
from LowDoseBMDLib.geometry import Geometry, resample
from scipy import ndimage

TISSUES: tuple[str, ...] = (
    "unnamed", "lung", "liver", "spleen", "kidney", "heart", "artery", "vein", "bowel", "stomach", "organ",
    "airway", "cord", "disc", "cartilage", "muscle", "psoas", "paraspinal", "fat",
)
"""Soft tissues that differ in their range of HU; the order is the value in ``Person.tissue``."""

BONE_PARTS: tuple[str, ...] = (
    "none", *(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 7)),
    "rib", "rib_12", "clavicle", "scapula", "sternum", "humerus", "hip", "sacrum", "other",
)
"""What a bone voxel belongs to; the order is the value in ``Person.bone``."""

PARTS: tuple[str, ...] = ("background", "vertebral body", "posterior elements", "disc")
"""Classes of the body network; the disc is one of them so that neighbouring bodies are kept apart."""

BONE_TARGETS: tuple[str, ...] = ("background", "vertebrae", "clavicles", "scapulae", "ribs", "other bone")
"""Classes of the bone network. ``other bone`` (sternum, humeri, hips, sacrum) is counted as background when
measuring; as a class of its own it keeps these from being taken for ribs and vertebrae."""

DENSE_HU = 120.0
"""Above soft tissue: bone, or contrast."""

PAD_MM = 36.0
"""Air added left, right, front and back, so that fat and skin fit round the trunk."""

SPACING_MM: dict[str, float] = {"bones": 2.0, "bones_fine": 1.5, "bodies": 1.5, "keypoints": 3.0}
"""Grid on which people are prepared for each task: finer than the network's, coarse enough to render quickly."""

SPINE_MARGIN_MM = 45.0
"""People and cases for the bodies task are cut to the vertebrae and this much round them."""

CLOSING_MM = 36.0
"""Radius that bridges the gaps between named structures of the trunk, e.g. between ribs."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person's anatomy on an isotropic grid, arrays (k, j, i) with k up, j posterior, i to the left.

    tissue: uint8, TISSUES, also under the bones (what would be there without them). bone: uint8, BONE_PARTS.
    depth_mm: float16, distance from a bone voxel to the bone's surface. inside_mm, outside_mm: uint8, distance
    inside and outside the trunk's surface. part: uint8, PARTS.
    centres_kji: centre of each vertebral body whose body is whole, by name, in voxels. hu: int16, the real CT
    where there is one, else None.
    """

    name: str
    spacing_mm: float
    tissue: np.ndarray
    bone: np.ndarray
    depth_mm: np.ndarray
    inside_mm: np.ndarray
    outside_mm: np.ndarray
    part: np.ndarray
    centres_kji: dict[str, tuple[float, float, float]]
    hu: np.ndarray | None = None


def with_density(hu: Any, times: float) -> Any:
    """A CT (HU, an array or a tensor) as if the person's bones, and contrast, were ``times`` as dense."""
    return hu + (times - 1) * (hu - DENSE_HU).clip(min=0)


def bone_targets() -> np.ndarray:
    """(len(BONE_PARTS),) uint8: class of the bone network for each bone part."""
    classes = {"rib": 4, "rib_12": 4, "clavicle": 2, "scapula": 3}
    other = {"none": 0, "sternum": 5, "humerus": 5, "hip": 5, "sacrum": 5, "other": 5}
    return np.array([classes.get(part, other.get(part, 1)) for part in BONE_PARTS], np.uint8)


_TISSUE_WORDS = (
    ("lung", "lung"), ("liver", "liver"), ("spleen", "spleen"), ("kidney", "kidney"), ("heart", "heart"),
    ("atrial", "heart"), ("portal", "vein"), ("vein", "vein"), ("vena", "vein"), ("cava", "vein"), ("ivc", "vein"),
    ("aorta", "artery"), ("artery", "artery"), ("trunk", "artery"), ("bowel", "bowel"), ("duodenum", "bowel"),
    ("colon", "bowel"), ("stomach", "stomach"), ("trachea", "airway"), ("spinal_cord", "cord"), ("disc", "disc"),
    ("cartilage", "cartilage"), ("psoas", "psoas"), ("autochthon", "paraspinal"), ("erector", "paraspinal"),
    ("gluteus", "muscle"), ("muscle", "muscle"), ("diaphragm", "muscle"), ("fat", "fat"), ("skin", "fat"),
)
_BONE_WORDS = (
    ("rib_left_12", "rib_12"), ("rib_right_12", "rib_12"), ("rib_", "rib"), ("clavic", "clavicle"),
    ("scapula", "scapula"), ("sternum", "sternum"), ("humerus", "humerus"), ("hip", "hip"), ("sacrum", "sacrum"),
    ("vertebrae_s1", "sacrum"), ("femur", "other"), ("skull", "other"), ("carpal", "other"),
)


def classify(name: str) -> tuple[str, str]:
    """(tissue, bone part) of a structure by its name in a public label map."""
    low = name.lower()
    for part in BONE_PARTS[1:26]:
        if low in (f"vertebrae_{part.lower()}", f"vertebra_{part.lower()}"):
            return "unnamed", part
    bone = next((value for word, value in _BONE_WORDS if word in low), "none")
    if bone != "none":
        return "unnamed", bone
    return next((value for word, value in _TISSUE_WORDS if word in low), "organ"), "none"


def tables(names: dict[int, str]) -> tuple[np.ndarray, np.ndarray]:
    """Look-up tables (256,) uint8 from label value to tissue and to bone part."""
    tissue, bone = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for label, name in names.items():
        a, b = classify(name)
        tissue[label], bone[label] = TISSUES.index(a), BONE_PARTS.index(b)
    return tissue, bone


def _outside_trunk(names: dict[int, str]) -> list[int]:
    return [label for label, name in names.items() if name in ("subcutaneous_fat", "skin", "couch")]


def _closing(solid: np.ndarray, radius_mm: float, spacing_mm: float) -> np.ndarray:
    pad = int(np.ceil(radius_mm / spacing_mm)) + 1
    grown = ndimage.distance_transform_edt(~np.pad(solid, pad, mode="edge"), sampling=spacing_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > radius_mm
    return closed[pad:-pad, pad:-pad, pad:-pad] | solid


def _discs(part: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Gaps of up to about 12 mm between neighbouring bodies."""
    body = part == PARTS.index("vertebral body")
    reach = max(1, int(round(6.0 / spacing_mm)))
    structure = np.zeros((2 * reach + 1, 3, 3), bool)
    structure[:, 1, 1] = True
    return ndimage.binary_closing(body, structure) & ~body


def _bytes(distance_mm: np.ndarray) -> np.ndarray:
    return np.minimum(distance_mm, 255.0).astype(np.uint8)


def make_person(name: str, labels: np.ndarray, geometry: Geometry, names: dict[int, str], spacing_mm: float,
                hu: np.ndarray | None = None) -> Person:
    """A Person from a label map (k, j, i; canonical axes) and the names of its labels.

    hu: the CT on the same grid when there is one. Bodies are split from posterior elements by
    ``LowDoseBMDLib.splitting.split_vertebrae``.
    """
    from LowDoseBMDLib.rois import Mask
    from LowDoseBMDLib.splitting import split_vertebrae

    grid = geometry.with_spacing(spacing_mm)
    pad = int(np.ceil(PAD_MM / spacing_mm))
    k, j, i = grid.shape_kji
    grid = grid.crop((0, -pad, -pad), (k, j + 2 * pad, i + 2 * pad))
    if labels.max() > 255:
        raise ValueError(f"{name}: label {labels.max()} is above 255; map its labels to 1..255 first")
    labels = resample(labels.astype(np.uint8), geometry, grid, outside=0, nearest=True)
    tissue_of, bone_of = tables(names)
    bone = bone_of[labels]
    masks = {part: Mask.from_array(bone == n) for n, part in enumerate(BONE_PARTS[:26]) if n and (bone == n).any()}
    split = split_vertebrae(masks, grid)
    part, centres = np.where((bone > 0) & (bone < 26), PARTS.index("posterior elements"), 0).astype(np.uint8), {}
    for level, pieces in split.items():
        part[pieces.body.box][pieces.body.voxels] = PARTS.index("vertebral body")
        centres[level] = tuple(float(c) for c in grid.to_kji(pieces.body.centroid_lps_mm(grid)))
    trunk = _closing((labels > 0) & ~np.isin(labels, _outside_trunk(names)), CLOSING_MM, spacing_mm)
    tissue = tissue_of[labels]
    tissue[_discs(part, spacing_mm) & (bone == 0) & (tissue == 0)] = TISSUES.index("disc")
    part[(tissue == TISSUES.index("disc")) & (bone == 0)] = PARTS.index("disc")
    nearest = ndimage.distance_transform_edt(bone > 0, return_distances=False, return_indices=True)
    tissue = tissue[tuple(nearest)]
    return Person(
        name, spacing_mm, tissue, bone,
        ndimage.distance_transform_edt(bone > 0, sampling=spacing_mm).astype(np.float16),
        _bytes(ndimage.distance_transform_edt(trunk, sampling=spacing_mm)),
        _bytes(ndimage.distance_transform_edt(~trunk, sampling=spacing_mm)),
        part, centres,
        None if hu is None else resample(hu, geometry, grid, outside=-1000),
    )


def person_for(task: str, name: str, labels: np.ndarray, geometry: Geometry, names: dict[int, str],
               hu: np.ndarray | None = None) -> Person:
    """make_person on the grid of a task; for bodies cut to the spine."""
    if task == "bodies":
        labels, geometry, hu = spine_only(labels, geometry, names, hu)
    return make_person(name, labels, geometry, names, SPACING_MM[task], hu)


def spine_only(labels: np.ndarray, geometry: Geometry, names: dict[int, str],
               hu: np.ndarray | None) -> tuple[np.ndarray, Geometry, np.ndarray | None]:
    """The part of a label map, its grid and its CT within SPINE_MARGIN_MM of the vertebrae.

    Raises ValueError when there are none.
    """
    wanted = [label for label, name in names.items() if classify(name)[1] in BONE_PARTS[1:26]]
    where = np.argwhere(np.isin(labels, wanted))
    if not len(where):
        raise ValueError("the label map names no vertebra; use one that does, such as TotalSegmentator's vertebrae_L1")
    margin = np.ceil(SPINE_MARGIN_MM / np.array(geometry.spacing_kji_mm)).astype(int)
    low, high = np.maximum(where.min(0) - margin, 0), np.minimum(where.max(0) + margin, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    labels = labels[box]
    return labels, geometry.crop(tuple(int(n) for n in low), labels.shape), None if hu is None else hu[box]


def save_person(path: Path, person: Person) -> None:
    """Store a Person as one .npz, so that label maps are prepared once."""
    arrays = {k: v for k, v in vars(person).items() if isinstance(v, np.ndarray)}
    meta = json.dumps({"name": person.name, "spacing_mm": person.spacing_mm, "centres_kji": person.centres_kji})
    with whole_file(path) as aside:
        np.savez_compressed(aside, meta=np.array(meta), **arrays)


def load_person(path: Path) -> Person:
    """Read what save_person wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files if k != "meta"}
        meta = json.loads(str(file["meta"]))
    return Person(**meta, **arrays)


def load_people(folder: Path) -> list[Person]:
    """Every person of a folder. Raises ValueError when there is none."""
    return [load_person(path) for path in people_files(folder)]


def people_files(folder: Path) -> list[Path]:
    """Raises ValueError when there is none."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ValueError(f"{folder} holds no prepared people (*.npz) and is no project; run: lowdosebmd-train prepare, or "
                         "lowdosebmd-train new")
    return files
