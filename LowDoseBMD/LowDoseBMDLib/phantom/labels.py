"""The phantom's own label list: what each value of ``Phantom.labels`` stands for."""

from __future__ import annotations

from ..anatomy import SIDES, SPINE

_BONES = (
    "sacrum",
    *(f"{name}_{side}" for name in ("clavicle", "scapula", "humerus", "hip") for side in SIDES),
    "sternum",
    *(f"rib_{side}_{n}" for side in SIDES for n in range(1, 13)),
)
_SOFT = (
    "costal_cartilage", "intervertebral_disc", "spinal_cord", "epidural_fat",
    *(f"{name}_{side}" for name in ("psoas", "erector_spinae", "quadratus_lumborum_muscle", "lung", "kidney")
      for side in SIDES),
    "muscle", "skin", "subcutaneous_fat", "visceral_fat",
    "heart", "aorta", "inferior_vena_cava", "superior_vena_cava", "pulmonary_artery", "other_vein", "other_artery",
    "trachea", "oesophagus", "liver", "spleen", "stomach", "pancreas", "colon", "small_bowel", "breast_gland",
    "metal", "couch",
)

CLASSES: tuple[str, ...] = ("background", *(f"vertebra_{level}" for level in SPINE), *_BONES, *_SOFT)
"""Name of each label value. 0 is air outside; 1..24 are C1..L5 in the order of ``anatomy.SPINE``."""

LABEL: dict[str, int] = {name: value for value, name in enumerate(CLASSES)}
"""Label value by name."""


def names_by_label() -> dict[int, str]:
    """{value: name} without the background, as label-map readers want it."""
    return {value: name for name, value in LABEL.items() if value}
