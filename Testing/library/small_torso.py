"""A CT of boxes whose HU are known by construction, for the tests of measurement and quality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from LowDoseBMDLib.anatomy import LEVELS, SPINE
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.pipeline import rois_from_masks
from LowDoseBMDLib.rois import Keypoint, LevelFinding, Mask, Rois, Vertebra

SPACING_MM = (1.5, 1.5, 2.0)
SHAPE_KJI = (64, 60, 80)
HU = {"T12": 140.0, "L1": 130.0, "L2": 126.0, "muscle": 50.0, "fat": -100.0, "aorta": 40.0}
UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

BODIES = {"T12": 48, "L1": 30, "L2": 12}
"""First slice of each body; a body is 12 x 20 x 24 voxels (24 x 30 x 36 mm)."""


def box(start: tuple[int, int, int], shape: tuple[int, int, int]) -> Mask:
    return Mask(np.ones(shape, bool), start)


def geometry() -> Geometry:
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = (-60.0, 10.0, -400.0)
    return Geometry(SHAPE_KJI, matrix)


def masks() -> dict[str, Mask]:
    found = {}
    for name, k in BODIES.items():
        found[f"body_{name}"] = box((k, 20, 28), (12, 20, 24))
        found[f"trabecular_{name}"] = box((k + 2, 24, 32), (8, 12, 16))
    found["psoas_left"] = box((10, 24, 60), (16, 10, 10))
    found["psoas_right"] = box((10, 24, 10), (16, 10, 10))
    found["fat_anterior"] = box((10, 2, 20), (16, 6, 40))
    found["aorta"] = box((10, 12, 36), (40, 6, 6))
    return found


def rois(**changes: LevelFinding) -> Rois:
    """Every region found and every level whole; ``changes`` replaces the findings of single levels."""
    findings = {name: LevelFinding(name, True, "", UPRIGHT, (24.0, 24.0, 25.0), 5.5) for name in BODIES}
    keypoints = tuple(Keypoint(name, (0.0, 40.0, -400.0 + 2.0 * k), 0.9) for name, k in BODIES.items())
    return Rois(geometry(), masks(), keypoints, tuple((findings | changes).values()))


def hu(**changes: float) -> np.ndarray:
    """(k, j, i) float32: water, with HU (or ``changes``) in the regions, constant inside each."""
    values = HU | changes
    array = np.zeros(SHAPE_KJI, np.float32)
    for name, mask in masks().items():
        kind, _, part = name.partition("_")
        key = part if kind in ("body", "trabecular") else {"psoas": "muscle"}.get(kind, kind)
        array[mask.box] = values[key]
    return array


def ct(**changes: float) -> CTVolume:
    return CTVolume(hu(**changes), geometry(), Acquisition(kvp=120.0))


def without(found: Rois, *names: str) -> Rois:
    return replace(found, masks={name: mask for name, mask in found.masks.items() if name not in names})


def incomplete(*names: str) -> dict[str, LevelFinding]:
    return {name: LevelFinding(name, False, "its lower endplate lies outside the scan") for name in names}


# --- with a chain of vertebrae, for what a reader does to their names ---------------------------------------

CHAIN = {"T11": 66, **BODIES}
"""First slice of each body of the chain, head to foot."""
CHAIN_HU = {"T11": 150.0, **HU}
CHAIN_SHAPE_KJI = (90, *SHAPE_KJI[1:])


def chain_body(name: str) -> Mask:
    return box((CHAIN[name], 20, 28), (12, 20, 24))


def chain_ct() -> CTVolume:
    """With T11 on top; a whole body has the HU of its own level, so that reading a wrong one shows. Whole numbers."""
    array = np.zeros(CHAIN_SHAPE_KJI, np.int16)
    array[:SHAPE_KJI[0]] = hu()
    array[:, 0, 0] = -1000  # a slice of one value would count as padding beyond the scan
    array[:, 0, 1] = 400
    for name in CHAIN:
        array[chain_body(name).box] = CHAIN_HU[name]
    return CTVolume(array, replace(geometry(), shape_kji=CHAIN_SHAPE_KJI), Acquisition(kvp=120.0))


def chain_rois() -> Rois:
    """Regions of chain_ct as a proposal has them: cores by erosion, nothing edited."""
    ct = chain_ct()
    tissues = {name: mask for name, mask in masks().items() if not name.startswith(("body", "trabecular"))}
    rois = rois_from_masks(ct, {**tissues, **{f"body_{name}": chain_body(name) for name in LEVELS}})
    spine = tuple(Vertebra(SPINE.index(name), rois.masks.get(f"body_{name}", chain_body(name))) for name in CHAIN)
    return replace(rois, spine=spine, flags=())


def vbmd(hu_mean: float, muscle_hu: float = HU["muscle"], fat_hu: float = HU["fat"]) -> float:
    """mg/cm3 by the literature constants, +50 in muscle and -78 in fat."""
    return 50.0 + (hu_mean - muscle_hu) * 128.0 / (muscle_hu - fat_hu)
