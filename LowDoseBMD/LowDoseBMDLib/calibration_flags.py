"""What speaks against the calibration of a measurement: other voltage, scanner or kernel, drift, age, extrapolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calibration import SYNTHETIC
from .calibration_match import OLD_YEARS, Fit, age_years, as_date, match
from .flags import Flag, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .calibration import Calibration
    from .ctvolume import Acquisition
    from .measurement import Measurement, TissueMeasurement

UNEXPECTED_SPREADS = 3.0
"""Of 370 people one has muscle or fat so far from the mean of all; more often the scanner has moved."""
EXTRAPOLATED = 0.1
"""How far beyond the densities of the cohort, as a share of their range, a value is still taken as within (judgement)."""


def calibration_flags(result: Measurement, acquisition: Acquisition) -> tuple[Flag, ...]:
    """Flags that follow from the calibration's provenance and the scan's header.

    Of literature constants only the voltage is judged: they were fitted on no scanner, which has a flag of its own.
    """
    calibration = result.calibration
    flags = [*_voltage(calibration, acquisition)]
    if not calibration.provisional:
        flags += [*_scanner(calibration, acquisition), *_kernel(calibration, acquisition), *_age(calibration, acquisition),
                  *_tissue(result), *_range(result)]
    return tuple(flags)


def provisional_flags(calibration: Calibration) -> tuple[Flag, ...]:
    """That a calibration was fitted on no scanner, or on nobody; none of a site's own."""
    if calibration.status == SYNTHETIC:
        return (Flag("calibration_synthetic", Severity.CAUTION, "The calibration was fitted on synthetic people, drawn "
                     "by a program: vBMD and class say nothing of a patient. Load a site calibration."),)
    if calibration.provisional:
        return (Flag("uncalibrated", Severity.CAUTION, "The calibration rests on literature constants, not on "
                     "this scanner: vBMD and class are provisional until a site calibration is loaded."),)
    return ()


def _voltage(calibration: Calibration, acquisition: Acquisition) -> Iterator[Flag]:
    fit, own = match(calibration, acquisition).kvp, not calibration.provisional
    if fit is Fit.UNKNOWN:
        yield Flag("kvp_unknown", Severity.CAUTION if own else Severity.INFO, "The tube voltage of the scan is not known; "
                   f"the calibration holds for {calibration.kvp:.0f} kV.")
    elif fit is Fit.DIFFERS:
        kvp = acquisition.kvp
        yield Flag("kvp", Severity.LIMITED if own else Severity.CAUTION, f"The scan was made at {kvp:.0f} kV, the "
                   f"calibration holds for {calibration.kvp:.0f} kV; bone HU depend on it and the class is provisional. "
                   f"Load a calibration fitted at {kvp:.0f} kV.")


def _scanner(calibration: Calibration, acquisition: Acquisition) -> Iterator[Flag]:
    fit = match(calibration, acquisition).scanner
    if fit is Fit.DIFFERS:
        yield Flag("scanner", Severity.CAUTION, f"The scan was made on {acquisition.scanner}, the calibration was fitted on "
                   f"{calibration.scanner}: the class is provisional. Load a calibration of this scanner.")
    elif fit is Fit.UNKNOWN and calibration.scanner:
        yield Flag("scanner_unknown", Severity.INFO if calibration.needs_tissue else Severity.CAUTION, "The scanner of the "
                   f"scan is not known; the calibration was fitted on {calibration.scanner}.")


def _kernel(calibration: Calibration, acquisition: Acquisition) -> Iterator[Flag]:
    if match(calibration, acquisition).kernel is Fit.DIFFERS:
        yield Flag("kernel_other", Severity.INFO, f"The kernel of the scan is {acquisition.kernel}, the calibration was "
                   f"fitted on {calibration.kernel}; another kernel moves vBMD by about 3 mg/cm3.")


def _age(calibration: Calibration, acquisition: Acquisition) -> Iterator[Flag]:
    scanned = as_date(acquisition.study_date)
    years = None if scanned is None else age_years(calibration, scanned)
    if years is not None and years > OLD_YEARS:
        yield Flag("calibration_old", Severity.INFO, f"The scan was made {years:.1f} years after the calibration; scanners "
                   "drift by 1 to 2 HU a year. Fit the calibration again on recent scans.")


def _tissue(result: Measurement) -> Iterator[Flag]:
    c = result.calibration
    for name, tissue, expected, spread in (("muscle", result.muscle, c.expected_muscle_hu, c.muscle_spread_hu),
                                           ("fat", result.fat, c.expected_fat_hu, c.fat_spread_hu)):
        if tissue is not None and expected is not None and spread and _far(tissue, expected, spread):
            yield Flag(f"{name}_unexpected", Severity.CAUTION, f"{name.capitalize()} reads {tissue.hu_mean:.0f} HU; in the "
                       f"people of the calibration it read {expected:.0f} HU with an SD of {spread:.1f} HU. The scanner may "
                       "have drifted, contrast may have been given, or the region is wrong. Check the region first.")


def _far(tissue: TissueMeasurement, expected_hu: float, spread_hu: float) -> bool:
    return abs(tissue.hu_mean - expected_hu) > UNEXPECTED_SPREADS * spread_hu


def _range(result: Measurement) -> Iterator[Flag]:
    low, high = result.calibration.lowest_mg_cm3, result.calibration.highest_mg_cm3
    value, margin = result.mean_vbmd_mg_cm3, EXTRAPOLATED * (high - low)
    if value is not None and high > low and not low - margin <= value <= high + margin:
        yield Flag("extrapolated", Severity.CAUTION, f"vBMD of {value:.0f} mg/cm3 lies beyond the {low:.0f} to {high:.0f} "
                   "mg/cm3 of the people on whom the calibration was fitted: it is extrapolated, and its interval may be "
                   "too narrow.")
