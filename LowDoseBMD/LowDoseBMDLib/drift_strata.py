"""Every scanner of an archive of measured studies judged: its charts, and what its drift does to vBMD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .calibration import Calibration, TwoPointCalibration
from .calibration_match import match
from .ctvolume import Acquisition
from .drift import (
    IN_CONTROL,
    LEAST_BASELINE,
    OUT,
    TOO_FEW,
    WATCH,
    Baseline,
    Chart,
    baseline_months,
    draw_chart,
    month_of,
    months_between,
)
from .drift_records import Archive, Reading, Stratum
from .report.tables import TISSUES

GRAVEST = (OUT, WATCH, IN_CONTROL, TOO_FEW)
"""The status of a stratum is the gravest of its charts."""


@dataclass(frozen=True)
class Effect:
    """What a tissue's shift means for vBMD, mg/cm3.

    line: of a site's line through bone HU, if bone moved as the tissue did. alone: of the calibration, if the tissue alone
    moved and bone did not; None for the aorta, which no calibration reads.
    """

    line_mg_cm3: float
    alone_mg_cm3: float | None


@dataclass(frozen=True)
class Judged:
    """One stratum. empty: months without people. programs: versions and models that drew its regions.

    calibrated: its muscle and fat are held against a calibration's cohort. effects: by tissue, of charts with a change.
    """

    stratum: Stratum
    n: int
    first: str
    last: str
    empty: tuple[str, ...]
    charts: tuple[Chart, ...]
    calibrated: bool
    programs: int
    effects: dict[str, Effect]

    @property
    def status(self) -> str:
        return next(status for status in GRAVEST if any(chart.status == status for chart in self.charts))

    @property
    def changed(self) -> tuple[Chart, ...]:
        """Charts that left their baseline, as gravely as the stratum, the surest first."""
        changed = [chart for chart in self.charts if chart.change and chart.status == self.status]
        return tuple(sorted(changed, key=lambda chart: -abs(chart.change.shift_hu.value) / chart.baseline.sd_hu))


def judge_archive(archive: Archive, months: tuple[str, str] | None = None,
                  calibration: Calibration | None = None) -> list[Judged]:
    """Judge every stratum, the gravest first. months: first and last of the baseline, else each stratum's own first months.

    calibration: its cohort is the baseline of muscle and fat where scanner and voltage fit. Raises ValueError when it does
    not say what its cohort read.
    """
    if calibration is not None and expected(calibration, "muscle") is None and expected(calibration, "fat") is None:
        raise ValueError(f"the calibration {calibration.name!r} does not say what muscle and fat read on its scanner, or of "
                         f"fewer than {LEAST_BASELINE} people: fit it again with calibrate, or give --baseline")
    found = [_judge(stratum, readings, months, calibration) for stratum, readings in archive.strata().items()]
    return sorted(found, key=lambda one: GRAVEST.index(one.status))


def expected(calibration: Calibration, tissue: str) -> Baseline | None:
    """What a tissue read in the people of a calibration, or None when it does not say."""
    mean, spread = (getattr(calibration, f"{name}_hu", None) for name in (f"expected_{tissue}", f"{tissue}_spread"))
    if mean is None or not spread or calibration.cohort_size < LEAST_BASELINE:
        return None
    return Baseline(mean, spread, calibration.cohort_size)


def _judge(stratum: Stratum, readings: Sequence[Reading], months: tuple[str, str] | None,
           calibration: Calibration | None) -> Judged:
    fits = calibration is not None and not match(calibration, _acquisition(stratum)).contradicts
    days = [reading.day for reading in readings]
    span = month_of(days[0]), month_of(days[-1])
    own = months or baseline_months(days)
    charts = []
    for tissue in TISSUES:
        read = [reading for reading in readings if tissue in reading.hu]
        known = expected(calibration, tissue) if fits else None
        charts.append(draw_chart(tissue, [reading.day for reading in read], [reading.hu[tissue] for reading in read], span,
                                 known or own))
    used = {month_of(day) for day in days}
    return Judged(stratum, len(readings), *span, tuple(name for name in months_between(*span) if name not in used),
                  tuple(charts), fits, len({reading.program for reading in readings}),
                  _effects(charts, readings, calibration or TwoPointCalibration()))


def _acquisition(stratum: Stratum) -> Acquisition:
    return Acquisition(scanner=stratum.scanner, kvp=stratum.kvp)


def _effects(charts: Sequence[Chart], readings: Sequence[Reading], calibration: Calibration) -> dict[str, Effect]:
    """At the stratum's mean bone, muscle and fat; empty when one of them is not known."""
    spine = [reading.spine_hu for reading in readings if reading.spine_hu is not None]
    centre = {chart.tissue: chart.baseline.mean_hu for chart in charts if chart.baseline}
    if not spine or not {"muscle", "fat"} <= centre.keys():
        return {}
    at = {"spine_hu": sum(spine) / len(spine), "muscle_hu": centre["muscle"], "fat_hu": centre["fat"]}
    slope = _derivative(calibration, at, "spine_hu")
    return {chart.tissue: Effect(slope * chart.change.shift_hu.value,
                                 None if chart.tissue == "aorta" else
                                 _derivative(calibration, at, f"{chart.tissue}_hu") * chart.change.shift_hu.value)
            for chart in charts if chart.change}


def _derivative(calibration: Calibration, at: dict[str, float], name: str) -> float:
    """mg/cm3 per HU, over 1 HU either way."""
    high, low = (calibration.vbmd(**{**at, name: at[name] + step}) for step in (1.0, -1.0))
    return (high - low) / 2
