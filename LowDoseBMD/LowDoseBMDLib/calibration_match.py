"""Does a calibration hold for a scan? Tube voltage, scanner and kernel compared, and the best of several calibrations.

The one place where a scan is compared with a calibration; measurement, panel and command line all ask here. No clock: days
are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import date as Date
from enum import Enum
from typing import TYPE_CHECKING

from .headers import DAYS_PER_YEAR

if TYPE_CHECKING:
    from .calibration import Calibration
    from .ctvolume import Acquisition

VOLTAGE_TOLERANCE_KV = 1.0
"""Tube voltages are nominal whole numbers; headers round them."""

OLD_YEARS = 2.0
"""A scanner drifts by 0.6-2.3 HU a year (PMC6682570): after two years by up to the error of a vertebra's own region
and more (judgement)."""

VENDOR_WORDS = frozenset({
    "ge", "medical", "systems", "system", "healthcare", "siemens", "healthineers", "philips", "toshiba", "canon", "hitachi",
    "fujifilm", "corporation", "united", "imaging", "uih", "neusoft", "samsung", "neurologica", "minfound", "anke",
})
"""Words of makers' names, which one person writes before the model and the other does not."""


class Fit(Enum):
    """Whether one property of a scan is as in the calibration's own scans; UNKNOWN when either side does not say."""

    FITS = "fits"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Match:
    """A scan beside the scans on which a calibration was fitted."""

    kvp: Fit
    scanner: Fit
    kernel: Fit

    @property
    def holds(self) -> bool:
        """Same voltage and same scanner: the calibration may be used without a person's choice."""
        return self.kvp is Fit.FITS and self.scanner is Fit.FITS

    @property
    def contradicts(self) -> bool:
        """Another voltage or another scanner: what follows is provisional."""
        return Fit.DIFFERS in (self.kvp, self.scanner)


def match(calibration: Calibration, acquisition: Acquisition) -> Match:
    """Compare a scan with a calibration.

    Scanners are compared by their words without the maker's, kernels by the first value of the header; case does not
    count. A calibration that names several (separated by ";") fits each of them.
    """
    return Match(_kvp(calibration.kvp, acquisition.kvp),
                 _named(calibration.scanner, acquisition.scanner, _scanner_words),
                 _named(calibration.kernel, acquisition.kernel, _kernel_words))


def best_match(calibrations: Sequence[Calibration | None], acquisition: Acquisition) -> int | None:
    """Index of the calibration to take for a scan without asking, or None when a person must choose.

    Only a site's own calibration with the scan's voltage and scanner is ever taken; of several the one with the same
    kernel, then the newest, then that of the most people, then the first. None entries (files that cannot be read) are
    passed over.
    """
    best, highest = None, None
    for index, calibration in enumerate(calibrations):
        if calibration is None or calibration.provisional:
            continue
        found = match(calibration, acquisition)
        rank = (_KERNEL_RANK[found.kernel], calibration.date, calibration.cohort_size)
        if found.holds and (highest is None or rank > highest):
            best, highest = index, rank
    return best


def age_years(calibration: Calibration, on: Date) -> float | None:
    """Years from the calibration's last scan (or, not knowing that, its fit) to a day; negative before it. None: no date."""
    day = as_date(calibration.scans_to or calibration.date)
    return None if day is None else (on - day).days / DAYS_PER_YEAR


def as_date(text: str | None) -> Date | None:
    """2024-03-01, or DICOM's 20240301, as a date; None for anything else."""
    try:
        return Date.fromisoformat(text or "")
    except ValueError:
        return None


_KERNEL_RANK = {Fit.FITS: 2, Fit.UNKNOWN: 1, Fit.DIFFERS: 0}


def _kvp(fitted: float, scanned: float | None) -> Fit:
    if not scanned:
        return Fit.UNKNOWN
    return Fit.FITS if abs(scanned - fitted) < VOLTAGE_TOLERANCE_KV else Fit.DIFFERS


def _named(fitted: str, scanned: str | None, words: Callable[[str], Hashable]) -> Fit:
    known, own = [key for entry in fitted.split(";") if (key := words(entry))], words(scanned or "")
    if not known or not own:
        return Fit.UNKNOWN
    return Fit.FITS if own in known else Fit.DIFFERS


def _scanner_words(text: str) -> tuple[str, ...]:
    """Words and numbers of a model's name; "+" belongs to a name (Definition AS+ is another scanner than AS)."""
    words = tuple(re.findall(r"[^\W_]+\+?", text.casefold()))
    return tuple(word for word in words if word not in VENDOR_WORDS) or words


def _kernel_words(text: str) -> str:
    return text.split("\\")[0].strip().casefold()
