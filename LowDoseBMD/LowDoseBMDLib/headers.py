"""What the words in a CT header mean: reconstruction kernels and contrast agents."""

from __future__ import annotations

import re

SHARP_WORDS: tuple[str, ...] = ("LUNG", "BONE", "EDGE", "SHARP")
"""Words in the names of GE, Philips and United Imaging lung and bone kernels (BONEPLUS, B_SHARP_C, ...)."""

SHARP_NAMES: frozenset[str] = frozenset({"D", "E", "L", "YA", "YB", "YC", "YD"})
"""Philips kernels that enhance edges; A, B and C are its smooth to standard body kernels."""

SIEMENS_SHARP_FROM = 50
"""Siemens kernels (B30f, Br40, I70f, Qr44) carry their sharpness; 50 and above enhance edges."""

CANON_SHARP_TENS: frozenset[int] = frozenset({3, 5, 8})
"""Canon/Toshiba FC30-39 (bone), FC50-59 (lung), FC80-89 (high resolution)."""

NO_AGENT: frozenset[str] = frozenset({"", "NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "W/O"})
"""What scanners and technologists write in the contrast field of an unenhanced scan."""

_SIEMENS = re.compile(r"^[A-Z]{1,2}(\d{2})[A-Z]?$")
_CANON = re.compile(r"^FC(\d{2})")


def is_sharp(kernel: str | None) -> bool:
    """True when the convolution kernel is known to enhance edges; False when smooth or unknown.

    kernel: the DICOM Convolution Kernel (0018,1210); of several values joined by a backslash, the first.
    """
    name = (kernel or "").split("\\")[0].strip().upper()
    if name in SHARP_NAMES or any(word in name for word in SHARP_WORDS):
        return True
    if match := _CANON.match(name):
        return int(match[1]) // 10 in CANON_SHARP_TENS
    match = _SIEMENS.match(name)
    return bool(match) and int(match[1]) >= SIEMENS_SHARP_FROM


def names_contrast(agent: str | None) -> bool:
    """True when the Contrast/Bolus Agent (0018,0010) names one."""
    return (agent or "").strip().upper() not in NO_AGENT
