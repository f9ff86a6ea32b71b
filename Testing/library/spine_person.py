"""A made-up person whose spine can be reckoned by hand: equal bodies at equal distances, straight twelfth ribs."""

from __future__ import annotations

import numpy as np
from LowDoseBMDLib.anatomy import SPINE
from LowDoseBMDTrainerLib.people import BONE_PARTS, PARTS, TISSUES, Person

SPACING_MM, PERIOD, HALF, LOWEST = 3.0, 12, 4, 10
"""Voxels of 3 mm; bodies are 9 slices high, 36 mm apart, with discs of 3 slices between them; slice of the last centre."""

MIDDLE_J, MIDDLE_I = 28, 40


def spine_person(first: str = "T9", last: str = "L5") -> Person:
    """Bodies from first to last in a trunk of muscle with air round it, and ribs at T12 from 24 to 60 mm to both sides."""
    levels = SPINE[SPINE.index(first):SPINE.index(last) + 1]
    shape = (PERIOD * len(levels) + LOWEST, 56, 81)
    tissue = np.full(shape, TISSUES.index("muscle"), np.uint8)
    bone, part, depth = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.float16)
    centres = {}
    for n, level in enumerate(reversed(levels)):
        k = LOWEST + PERIOD * n
        box = slice(k - HALF, k + HALF + 1), slice(MIDDLE_J - 5, MIDDLE_J + 6), slice(MIDDLE_I - 7, MIDDLE_I + 8)
        bone[box], part[box] = BONE_PARTS.index(level), PARTS.index("vertebral body")
        disc = slice(k + HALF + 1, k + PERIOD - HALF), *box[1:]
        tissue[disc], part[disc] = TISSUES.index("disc"), PARTS.index("disc")
        centres[level] = (float(k), float(MIDDLE_J), float(MIDDLE_I))
    if "T12" in centres:
        k = int(centres["T12"][0])
        for across in (slice(MIDDLE_I - 20, MIDDLE_I - 7), slice(MIDDLE_I + 8, MIDDLE_I + 21)):
            bone[k - 1:k + 1, MIDDLE_J + 3:MIDDLE_J + 5, across] = BONE_PARTS.index("rib_12")
    depth[bone > 0] = SPACING_MM
    y, x = np.meshgrid(np.arange(shape[1]) - MIDDLE_J, np.arange(shape[2]) - MIDDLE_I, indexing="ij")
    beyond = (np.sqrt((y / 16) ** 2 + (x / 30) ** 2) - 1)[None].repeat(shape[0], 0) * 60
    inside, outside = (np.clip(sign * beyond, 0, 255).astype(np.uint8) for sign in (-1, 1))
    return Person("spine", SPACING_MM, tissue, bone, depth, inside, outside, part, centres)
