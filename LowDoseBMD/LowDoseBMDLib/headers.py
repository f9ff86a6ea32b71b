"""What the words in a CT header mean: reconstruction kernels, contrast agents, the patient's age and sex."""

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

_PLAIN = """
    CHEST THORAX LUNG LUNGS ABDOMEN ABD PELVIS SPINE LIVER HEART CARDIAC TRUNK BODY NECK BONE BONES SOFT TISSUE MEDIASTINUM
    WHOLE UPPER LOWER
    AXIAL AX TRANSVERSE CORONAL COR SAGITTAL SAG OBLIQUE MPR MIP MINIP RECON REFORMAT LOCALIZER LOCALISER SCOUT TOPOGRAM
    CT LDCT HRCT CTA PET LOW DOSE LD ULTRA STANDARD STD ROUTINE SCREENING VOLUME HELICAL SPIRAL SERIES BASE SLICE THIN THICK
    WITH WITHOUT NO NON WO CONTRAST NATIVE NATIV PLAIN ENHANCED POST PRE IV ORAL NONE
    ARTERIAL VENOUS PORTAL DELAYED DELAY PHASE INSP INSPIRATION EXP EXPIRATION BREATH HOLD FREE PRONE SUPINE
    SMOOTH SHARP EDGE DETAIL KERNEL FILTER ASIR IDOSE SAFIRE ADMIRE AIDR FBP IR MM KV KVP HU AND OF THE IN
    IOHEXOL OMNIPAQUE IOPAMIDOL ISOVUE IODIXANOL VISIPAQUE IOPROMIDE ULTRAVIST IOMEPROL IOMERON IOVERSOL OPTIRAY
    IOBITRIDOL XENETIX IODINE BARIUM WATER
"""
PLAIN_WORDS: frozenset[str] = frozenset(_PLAIN.split())
"""Words of series descriptions and contrast agents that name no person: body parts, planes, phases, kernels, agents."""

_PLAIN_NUMBER = re.compile(r"\d{1,3}\.\d{1,2}(MM)?|\d{1,3}(MM|KV|KVP|HU)|"
                           r"(B|H|I|J|BL|BR|BV|HR|QR|SA|FC)\d{2}[A-Z]?", re.IGNORECASE)
"""1.25, 5mm, 120kV, B30f, FC51. Bare whole numbers are left out: three of them may be a day of birth."""

OLDEST_AGE_YEARS = 90.0
"""Stands for every age over 89: so few people are that old that the age itself could name one, which is why rules
of de-identification (HIPAA, 45 CFR 164.514) fold them into one group. Applied in age_years and nowhere else."""

DAYS_PER_YEAR = 365.25
_UNITS_PER_YEAR = {"D": DAYS_PER_YEAR, "W": DAYS_PER_YEAR / 7, "M": 12.0, "Y": 1.0}

_AGE = re.compile(r"^(\d{1,3})([DWMY])$")
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


def plain_words(text: str | None) -> str | None:
    """What of a free text in a header may be shown: words that name no person, and sizes; None when nothing is left.

    Series descriptions are typed by people, and some type the patient's name.
    """
    words = [word.strip(".") for word in re.split(r"[\s,;:()<>^=_/+\\-]+", text or "")]
    return " ".join(word for word in words if word.upper() in PLAIN_WORDS or _PLAIN_NUMBER.fullmatch(word)) or None


def plain_agent(text: str | None) -> str | None:
    """The Contrast/Bolus Agent (0018,0010) in plain words; "stated" for one whose name may not be shown."""
    if not names_contrast(text):
        return text
    words = plain_words(text)
    return words if names_contrast(words) else "stated"


def age_years(text: str | None) -> float | None:
    """The Patient's Age (0010,1010), such as 057Y, 018M, 003W, in years; OLDEST_AGE_YEARS when over 89.

    None when it is absent, malformed, or zero, which is what anonymisers write for "not told".
    """
    match = _AGE.match((text or "").strip().upper())
    if match is None or int(match[1]) == 0:
        return None
    age = int(match[1]) / _UNITS_PER_YEAR[match[2]]
    return OLDEST_AGE_YEARS if age >= OLDEST_AGE_YEARS else age


def age_text(years: float) -> str:
    """An age in words: whole years, months below two years, and the oldest as the group that they are."""
    if years >= OLDEST_AGE_YEARS:
        return f"{OLDEST_AGE_YEARS:.0f} years or older"
    return f"{12 * years:.0f} months" if years < 2 else f"{int(years)} years"


def sex(text: str | None) -> str | None:
    """The Patient's Sex (0010,0040) as F or M; None for O (other), or when it is absent."""
    letter = (text or "").strip().upper()
    return letter if letter in ("F", "M") else None
