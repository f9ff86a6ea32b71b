"""The registry of every structure the product names: label, colour, title and DICOM codes.

Label numbers, colours and codes are written here and nowhere else. SNOMED CT and DCM codes were taken
from the DICOM content mapping resources; where they have no concept (trabecular bone of a vertebral body)
a private modifier with the scheme ``99SBMD`` is used instead of an invented SNOMED code.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVELS: tuple[str, ...] = ("T12", "L1", "L2")
"""The levels that are measured, from head to foot."""

SPINE: tuple[str, ...] = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
)
"""Names of the presacral vertebrae of the usual spine, from head to foot."""

BONES: tuple[str, ...] = ("vertebrae", "clavicles", "scapulae", "ribs")
"""The bone classes of the published method, in the order of its network's outputs after background."""

OTHER_BONES = "other_bones"
"""Sternum, humeri, hips and sacrum: drawn, where an annotator wants to, so that none is learnt as a rib or a vertebra."""

SIDES: tuple[str, ...] = ("left", "right")


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning, as in a DICOM code sequence."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Structure:
    """One structure of the registry.

    ``name`` is the key used in code and files, ``title`` what a reader sees, ``label`` the value in a label
    map, ``colour`` sRGB 0-255, ``group`` one of bone, body, trabecular, muscle, fat, vessel.
    """

    name: str
    title: str
    label: int
    colour: tuple[int, int, int]
    group: str
    category: Code
    type: Code
    modifier: Code | None = None


ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
BOTH_SIDES = Code("51440002", "SCT", "Right and left")
TRABECULAR_ROI = Code("TRABROI", "99SBMD", "Trabecular region of interest")
VERTEBRAL_BODY = Code("3572006", "SCT", "Vertebral body")
VERTEBRA = {
    "T12": Code("23215003", "SCT", "T12 vertebra"),
    "L1": Code("66794005", "SCT", "L1 vertebra"),
    "L2": Code("14293000", "SCT", "L2 vertebra"),
}
_LATERALITY = {"left": LEFT, "right": RIGHT}
_LEVEL_COLOURS = {
    "T12": ((86, 180, 233), (0, 92, 148)),
    "L1": ((120, 200, 140), (0, 122, 84)),
    "L2": ((240, 180, 90), (178, 84, 0)),
}
"""Per level: body, trabecular. After Okabe and Ito's palette for colour-blind readers, light and dark."""


def _bones() -> tuple[Structure, ...]:
    return (
        Structure("vertebrae", "Vertebrae", 1, (230, 220, 170), "bone", ANATOMICAL_STRUCTURE,
                  Code("51282000", "SCT", "Vertebra")),
        Structure("clavicles", "Clavicles", 2, (213, 94, 0), "bone", ANATOMICAL_STRUCTURE,
                  Code("51299004", "SCT", "Clavicle"), BOTH_SIDES),
        Structure("scapulae", "Scapulae", 3, (204, 121, 167), "bone", ANATOMICAL_STRUCTURE,
                  Code("79601000", "SCT", "Scapula"), BOTH_SIDES),
        Structure("ribs", "Ribs", 4, (0, 114, 178), "bone", ANATOMICAL_STRUCTURE,
                  Code("113197003", "SCT", "Rib"), BOTH_SIDES),
        Structure(OTHER_BONES, "Other bones", 5, (150, 150, 150), "bone", ANATOMICAL_STRUCTURE,
                  Code("272673000", "SCT", "Bone")),
    )


def _levels() -> tuple[Structure, ...]:
    rows = []
    for n, level in enumerate(LEVELS):
        light, dark = _LEVEL_COLOURS[level]
        rows.append(Structure(f"body_{level}", f"{level} vertebral body", 11 + n, light, "body",
                              ANATOMICAL_STRUCTURE, VERTEBRA[level], VERTEBRAL_BODY))
        rows.append(Structure(f"trabecular_{level}", f"{level} trabecular bone", 21 + n, dark, "trabecular",
                              ANATOMICAL_STRUCTURE, VERTEBRA[level], TRABECULAR_ROI))
    return tuple(rows)


def _tissues() -> tuple[Structure, ...]:
    iliopsoas = Code("68455001", "SCT", "Iliopsoas muscle")
    erector = Code("44947003", "SCT", "Erector spinae muscle")
    subcutaneous = Code("67769002", "SCT", "Subcutaneous fatty tissue")
    rows = []
    for n, side in enumerate(SIDES):
        rows.append(Structure(f"psoas_{side}", f"Psoas {side}", 31 + n, (160, 60 + 30 * n, 60), "muscle",
                              ANATOMICAL_STRUCTURE, iliopsoas, _LATERALITY[side]))
        rows.append(Structure(f"paraspinal_{side}", f"Paraspinal muscle {side}", 33 + n,
                              (120, 50 + 30 * n, 90), "muscle", ANATOMICAL_STRUCTURE, erector,
                              _LATERALITY[side]))
    for n, site in enumerate(("anterior", "flank", "posterior")):
        rows.append(Structure(f"fat_{site}", f"Subcutaneous fat, {site}", 41 + n, (240, 228 - 30 * n, 66),
                              "fat", TISSUE, subcutaneous))
    rows.append(Structure("aorta", "Aorta", 51, (200, 30, 30), "vessel", ANATOMICAL_STRUCTURE,
                          Code("15825003", "SCT", "Aorta")))
    return tuple(rows)


STRUCTURES: dict[str, Structure] = {s.name: s for s in (*_bones(), *_levels(), *_tissues())}
"""Every structure by name, in the order in which a reader meets them."""

BY_LABEL: dict[int, Structure] = {s.label: s for s in STRUCTURES.values()}
