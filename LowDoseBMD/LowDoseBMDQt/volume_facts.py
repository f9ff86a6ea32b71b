"""The line below the CT's name: what the scan is, and what speaks against it before anything runs. Pure text."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from LowDoseBMDLib.calibration_match import Fit, match
from LowDoseBMDLib.headers import is_sharp, names_contrast
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LowDoseBMDLib.calibration import Calibration
    from LowDoseBMDLib.ctvolume import Acquisition

THICK_SLICES_MM = 3.0
"""From here on the library flags the slices (check.CAUTION_SLICE_MM)."""


def factsText(acquisition: Acquisition, patient: str, spacingMm: tuple[float, float, float],
              lengthMm: float) -> str:
    """kVp, kernel, slices and length; the patient's name stands first, for the reader's eyes only."""
    facts = [f"{acquisition.kvp:.0f} kV" if acquisition.kvp else _("kV unknown"),
             _("kernel {name}").format(name=acquisition.kernel) if acquisition.kernel else _("kernel unknown"),
             _("{mm:.2g} mm slices").format(mm=acquisition.slice_thickness_mm or max(spacingMm)),
             _("{cm:.0f} cm long").format(cm=lengthMm / 10)]
    if acquisition.scanner:
        facts.append(acquisition.scanner)
    text = " · ".join(html.escape(fact) for fact in facts)
    return f"<b>{html.escape(patient)}</b> · {text}" if patient else text


def warningText(acquisition: Acquisition, calibration: Calibration, spacingMm: tuple[float, float, float]) -> str:
    """Sentences about what will be flagged; empty when there is nothing to say."""
    warnings = []
    if names_contrast(acquisition.contrast_agent):
        warnings.append(_("Contrast agent was given: vBMD reads too high."))
    if is_sharp(acquisition.kernel):
        warnings.append(_("Sharp kernel: choose a soft-tissue series of the same scan if there is one."))
    if max(spacingMm) > THICK_SLICES_MM:
        warnings.append(_("Slices of {mm:.1f} mm: endplates mix into the region.").format(mm=max(spacingMm)))
    if match(calibration, acquisition).kvp is Fit.DIFFERS:
        warnings.append(_("{scan:.0f} kV, but the calibration holds for {fitted:.0f} kV.").format(
            scan=acquisition.kvp, fitted=calibration.kvp))
    return " ".join(warnings)
