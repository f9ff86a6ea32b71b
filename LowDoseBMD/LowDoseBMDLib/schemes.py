"""Label maps that were made elsewhere, in our names.

Label numbers of other tools stand here and nowhere else; our own come from the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from .anatomy import BONES, BY_LABEL, SIDES
from .flags import Refusal
from .rois import Mask


def _totalsegmentator() -> dict[int, str]:
    """TotalSegmentator v2, task ``total`` (its map_to_binary.py); _left is the patient's left."""
    names = {27 + n: f"L{5 - n}" for n in range(5)} | {32 + n: f"T{12 - n}" for n in range(12)}
    names |= {44 + n: f"C{7 - n}" for n in range(7)}
    names |= {92 + n: "ribs" for n in range(24)}
    names |= {71: "scapulae", 72: "scapulae", 73: "clavicles", 74: "clavicles"}
    for n, side in enumerate(SIDES):
        names |= {69 + n: f"humerus_{side}", 77 + n: f"hip_{side}", 86 + n: f"autochthon_{side}",
                  88 + n: f"iliopsoas_{side}"}
    return names | {25: "sacrum", 52: "aorta", 79: "spinal_cord", 116: "sternum"}


def _verse() -> dict[int, str]:
    """VerSe 2019 and 2020 (challenge paper, Med Image Anal 2021;73:102166): vertebrae only."""
    names = {n: f"C{n}" for n in range(1, 8)} | {7 + n: f"T{n}" for n in range(1, 13)}
    return names | {19 + n: f"L{n}" for n in range(1, 7)} | {28: "T13"}


SCHEMES: dict[str, dict[int, str]] = {
    "totalsegmentator": _totalsegmentator(),
    "verse": _verse(),
    "lowdosebmd": {label: structure.name for label, structure in BY_LABEL.items()},
}
"""Label value -> name, per scheme. Several labels of one name (ribs) are joined. Whole vertebrae are named C1..L6
and T13, vertebral bodies body_<level>."""

VERTEBRAE = frozenset(f"{part}{n}" for part, last in (("C", 7), ("T", 13), ("L", 6)) for n in range(1, last + 1))
_BODY = "body_"


@dataclass(frozen=True, eq=False)
class LabelledAnatomy:
    """What a label map holds, by our names.

    vertebrae: whole vertebrae (C1..L6, T13). bodies: vertebral bodies without posterior elements, by vertebra
    name, where the scheme has them. bones: vertebrae (all of them), clavicles, scapulae, ribs, as far as present.
    others: everything else under the names of its scheme (iliopsoas_left, aorta, psoas_left ...).
    """

    vertebrae: Mapping[str, Mask] = field(default_factory=dict)
    bodies: Mapping[str, Mask] = field(default_factory=dict)
    bones: Mapping[str, Mask] = field(default_factory=dict)
    others: Mapping[str, Mask] = field(default_factory=dict)


def read_scheme(labels: np.ndarray, scheme: str) -> LabelledAnatomy:
    """Sort a label map by name.

    labels: (k, j, i) integers on the CT's grid. scheme: a key of SCHEMES.
    Raises Refusal: ``scheme_unknown``, ``labels_no_vertebrae``.
    """
    if scheme not in SCHEMES:
        raise Refusal("scheme_unknown", f"The label scheme {scheme!r} is not known here. Choose one of "
                      f"{', '.join(SCHEMES)}.")
    masks = _masks(labels, SCHEMES[scheme])
    vertebrae = {name: mask for name, mask in masks.items() if name in VERTEBRAE}
    bodies = {name.removeprefix(_BODY): mask for name, mask in masks.items() if name.startswith(_BODY)}
    if not vertebrae and not bodies:
        raise Refusal("labels_no_vertebrae", f"The label map holds no vertebra in the scheme {scheme!r} (labels "
                      f"{_found(labels)}). Name the scheme that it was made with ({', '.join(SCHEMES)}), or give "
                      "a map that covers the spine.")
    bones = {name: masks[name] for name in BONES if name in masks}
    if "vertebrae" not in bones and vertebrae:
        bones = {"vertebrae": joined(vertebrae.values())} | bones
    used = {*vertebrae, *bones, *(_BODY + name for name in bodies)}
    return LabelledAnatomy(vertebrae, bodies, bones, {n: m for n, m in masks.items() if n not in used})


def _masks(labels: np.ndarray, names: Mapping[int, str]) -> dict[str, Mask]:
    """One mask per name; each label is compared inside its bounding box only."""
    known = np.where((labels > 0) & (labels <= max(names)), labels, 0)
    parts: dict[str, list[Mask]] = {}
    for label, box in enumerate(ndimage.find_objects(known), start=1):
        if box is not None and label in names:
            mask = Mask(np.ascontiguousarray(known[box] == label), tuple(s.start for s in box))
            parts.setdefault(names[label], []).append(mask)
    return {name: joined(masks) for name, masks in parts.items()}


def joined(masks: Iterable[Mask]) -> Mask:
    """The union of masks on one grid."""
    every = [mask for mask in masks if not mask.empty]
    if len(every) == 1:
        return every[0]
    if not every:
        return Mask.from_array(np.zeros((1, 1, 1), bool))
    low = np.min([mask.start_kji for mask in every], axis=0)
    high = np.max([np.add(mask.start_kji, mask.voxels.shape) for mask in every], axis=0)
    union = np.zeros(high - low, bool)
    for mask in every:
        union[tuple(slice(s - a, s - a + n) for s, a, n in zip(mask.start_kji, low, mask.voxels.shape,
                                                               strict=True))] |= mask.voxels
    return Mask(union, tuple(int(n) for n in low))


def _found(labels: np.ndarray) -> str:
    values = [int(v) for v in np.unique(labels[::2, ::2, ::2]) if v][:12]
    return ", ".join(str(v) for v in values) or "none"
