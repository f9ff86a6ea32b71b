"""Label maps that were made elsewhere, in our names.

Label numbers of other tools stand here and nowhere else; our own come from the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from .anatomy import BONES, BY_LABEL, OTHER_BONES, SIDES, SPINE, STRUCTURES
from .flags import Refusal
from .rois import Mask


def _totalsegmentator() -> dict[int, str]:
    """TotalSegmentator v2, task ``total`` (its map_to_binary.py); left is the patient's left."""
    organs = ["spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "adrenal_gland_right",
              "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
              "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea", "thyroid_gland", "small_bowel",
              "duodenum", "colon", "urinary_bladder", "prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum"]
    spine = [f"vertebrae_{name}" for name in ("S1", *reversed(SPINE))]
    vessels = ["heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right",
               "subclavian_artery_left", "common_carotid_artery_right", "common_carotid_artery_left",
               "brachiocephalic_vein_left", "brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava",
               "inferior_vena_cava", "portal_vein_and_splenic_vein"]
    limbs = _both_sides("iliac_artery", "iliac_vena", "humerus", "scapula", "clavicula", "femur", "hip")
    muscles = _both_sides("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")
    ribs = [f"rib_{side}_{n}" for side in SIDES for n in range(1, 13)]
    names = [*organs, *spine, *vessels, *limbs, "spinal_cord", *muscles, "brain", "skull", *ribs, "sternum",
             "costal_cartilages"]
    return dict(enumerate(names, start=1))


def _both_sides(*parts: str) -> list[str]:
    return [f"{part}_{side}" for part in parts for side in SIDES]


def _verse() -> dict[int, str]:
    """VerSe 2019 and 2020 (challenge paper, Med Image Anal 2021;73:102166) and CTSpine1K: vertebrae only."""
    names = {n: f"C{n}" for n in range(1, 8)} | {7 + n: f"T{n}" for n in range(1, 13)}
    names |= {19 + n: f"L{n}" for n in range(1, 7)} | {28: "T13"}
    return {label: f"vertebrae_{name}" for label, name in names.items()}


PUBLIC: dict[str, dict[int, str]] = {
    "totalsegmentator": _totalsegmentator(),
    "verse": _verse(),
    "ribseg": {n: f"rib_{n}" for n in range(1, 25)},
}
"""Label value -> structure, under the names of the public sets. RibSeg v2 (IEEE TMI 2023) numbers 24 ribs."""

VERTEBRAE = frozenset(f"{part}{n}" for part, last in (("C", 7), ("T", 13), ("L", 6)) for n in range(1, last + 1))
_BODY = "body_"

_VERTEBRA = re.compile(r"(?P<before>(?:vertebral |vertebrae? )?(?:body )?(?:of )?)(?P<part>c|th?|l) ?0?(?P<number>\d{1,2})"
                       r"(?P<after>(?: vertebral| vertebrae?)?(?: body)?)")
_CHINESE_VERTEBRA = re.compile(r"(?P<part>[颈胸腰])椎?第?(?P<number>\d{1,2})椎?(?P<after>体)?")
_CHINESE_ORDINAL = re.compile(r"第?(\d{1,2})([颈胸腰])椎")
_CHINESE_PARTS = {"颈": "C", "胸": "T", "腰": "L"}
_NOT_BONE = re.compile(r"cartilage|\bcord\b|\bcanal\b|\bdis[ck]s?\b|arter|\bvein|\bvena|muscle|nerve|lesion|fracture|"
                       r"软骨|椎间盘|椎管|动脉|静脉|骨折|肌")
_WORDS = (
    (re.compile(r"clavic|collar ?bone|锁骨"), "clavicles"),
    (re.compile(r"scapula|shoulder ?blade|肩胛"), "scapulae"),
    (re.compile(r"\bribs?\b|肋"), "ribs"),
    (re.compile(r"\bvertebrae? s\d|sternum|manubrium|humer|\bhips?\b|pelvis|\bilium\b|sacrum|coccyx|femur|femora|skull"
                r"|胸骨|肱骨|髋骨|髂骨|骶骨|尾骨|股骨|颅骨"),
     OTHER_BONES),
    (re.compile(r"vertebra|spine\b|spinal column|椎|脊柱"), "vertebrae"),
)
"""Words by which a name is known, in the order in which they count."""


def structure_named(text: str) -> str | None:
    """What of ours the name of a label means, whoever wrote it; None when it means nothing of ours.

    One vertebra gives its name (T12), its body body_<name>; ribs, clavicles, scapulae and the bones that are none of ours
    are joined under the names of the registry, which are understood themselves ("rib left 3": ribs; "Sternum": other_bones).
    English, the Latin of the public sets, and Chinese are read.
    """
    plain = " ".join(re.sub(r"[\W_]+", " ", text).casefold().split())
    for structure in STRUCTURES.values():
        if plain in (structure.name.replace("_", " ").casefold(), structure.title.casefold()):
            return structure.name
    match = _VERTEBRA.fullmatch(plain) or _CHINESE_VERTEBRA.fullmatch(_CHINESE_ORDINAL.sub(r"\2\1", plain))
    if match:
        part = match["part"]
        name = f"{_CHINESE_PARTS.get(part, part[0].upper())}{int(match['number'])}"
        body = any(match.groupdict().get(place) and re.search("body|体", match[place]) for place in ("before", "after"))
        return None if name not in VERTEBRAE else _BODY + name if body else name
    if _NOT_BONE.search(plain):
        return None
    return next((name for word, name in _WORDS if word.search(plain)), None)


_MEASURED = frozenset({*_both_sides("humerus", "hip", "autochthon", "iliopsoas"), "sacrum", "aorta", "spinal_cord",
                       "sternum"})
"""Other structures of TotalSegmentator that stages ask for, under its own names."""


def _ours(names: Mapping[int, str]) -> dict[int, str]:
    wanted = {label: name if name in _MEASURED else structure_named(name) for label, name in names.items()}
    return {label: name for label, name in wanted.items() if name and name != OTHER_BONES}


SCHEMES: dict[str, dict[int, str]] = {
    "totalsegmentator": _ours(PUBLIC["totalsegmentator"]),
    "verse": _ours(PUBLIC["verse"]),
    "lowdosebmd": {label: structure.name for label, structure in BY_LABEL.items()},
}
"""Label value -> name, per scheme. Several labels of one name (ribs) are joined. Whole vertebrae are named C1..L6
and T13, vertebral bodies body_<level>."""


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
    masks = masks_by_name(labels, SCHEMES[scheme])
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


def masks_by_name(labels: np.ndarray, names: Mapping[int, str]) -> dict[str, Mask]:
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
