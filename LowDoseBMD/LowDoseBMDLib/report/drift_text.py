"""The findings about a scanner in sentences: what moved, by how much, since when, what it means and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from ..drift import IN_CONTROL, LEAST_BASELINE, LEAST_MONTH, OUT, TOO_FEW, WATCH, Chart
from ..drift_strata import Judged
from .numbers import UNIT, between, number
from .tables import TISSUES

STATUS_TITLES = {IN_CONTROL: "in control", WATCH: "to be watched", OUT: "drifted", TOO_FEW: "too few studies"}
SMALL_MG_CM3 = 0.05
STATEMENTS = (
    "This is research software, not a medical device. It does not replace the scanner's constancy tests with a phantom.",
    "A chart of people follows the scanner only while the same kind of people is scanned in the same way: other ages, "
    "another referral, contrast agent that was not noticed or new regions move the means too.",
    "The files name maker and model, not the single machine: two scanners of one model are one chart here.",
    "Limits: 3 SD (alarm) and 2 SD (warning) of the mean of a month's people about the baseline, with what chance does to "
    "the baseline itself (Student's t), and never closer to it than about 1 HU and 0.7 HU. Rules: a month beyond 3 SD; 2 of "
    "3 months beyond 2 SD on one side (a warning); 8 months in a row on one side of the 95 % interval of the centre; a "
    "trend over all months with P < 0.0027. A scanner that does not change breaks one now and then.",
    f"A baseline needs {LEAST_BASELINE} people, a month {LEAST_MONTH} to be judged.",
)


def sentence(found: Judged) -> str:
    """The verdict on a stratum."""
    return f"{found.stratum.title}: {_VERDICTS[found.status](found)}"


def _steady(found: Judged) -> str:
    trends = ", ".join(f"{chart.tissue} {_signed(trend.value)} ({between(trend.low, trend.high, 1)})"
                       for chart in found.charts if (trend := chart.trend_hu) and chart.status == IN_CONTROL)
    return f"in control from {found.first} to {found.last}, {found.n} studies. HU per year (95 %): {trends}."


def _few(found: Judged) -> str:
    reasons = sorted({chart.reason for chart in found.charts})
    return f"too few studies to judge, {found.n} from {found.first} to {found.last}: {'; '.join(reasons)}."


def _moved(found: Judged) -> str:
    head = "drifted. " if found.status == OUT else "to be watched. "
    return head + " ".join(_change(chart) for chart in found.changed)


_VERDICTS = {IN_CONTROL: _steady, TOO_FEW: _few, WATCH: _moved, OUT: _moved}


def _change(chart: Chart) -> str:
    change, tissue = chart.change, chart.tissue.capitalize()
    shift = change.shift_hu
    far = (f"{number(abs(shift.value), 1)} HU {'lower' if shift.value < 0 else 'higher'} than in the baseline (95 % of the "
           f"shift {between(shift.low, shift.high, 1)})")
    if change.pattern == "step":
        return f"{tissue} reads {far} since {change.since}."
    if change.pattern == "passing":
        when = f"in {change.since}" if change.since == change.until else f"from {change.since} to {change.until}"
        return f"{tissue} read {far} {when} and is back."
    trend = chart.trend_hu
    return (f"{tissue} moves by {_signed(trend.value)} HU a year (95 % {between(trend.low, trend.high, 1)}), noticed in "
            f"{change.since}; it now reads {far}.")


def _signed(value: float) -> str:
    return ("+" if value >= 0.05 else "") + number(value, 1)


def meaning(found: Judged) -> list[str]:
    """What the changes point to, and what they do to vBMD."""
    if not found.changed:
        return []
    lead = found.changed[0]
    effect = found.effects.get(lead.tissue)
    said = [_cause(found)] if _cause(found) else []
    if effect is not None:
        text = f"If bone moved as {lead.tissue} did, a site's line through the HU of bone reads {_off(effect.line_mg_cm3)}"
        if effect.alone_mg_cm3 is not None and abs(effect.alone_mg_cm3) >= SMALL_MG_CM3:
            text += (f"; if {lead.tissue} alone moved, a calibration on muscle and fat reads {_off(effect.alone_mg_cm3)}, "
                     "otherwise it follows the scanner")
        said.append(f"{text}.")
    return said


def _off(value: float) -> str:
    return f"{number(abs(value), 1)} {UNIT} too {'low' if value < 0 else 'high'}"


def _cause(found: Judged) -> str:
    shift: Mapping[str, float] = {chart.tissue: chart.change.shift_hu.value for chart in found.changed}
    if len(shift) == 1:
        return (f"Only {next(iter(shift))} moved: look at who was scanned, at its regions and at the version of the program "
                "before the scanner.")
    if "muscle" in shift and "fat" in shift and shift["muscle"] * shift["fat"] < 0:
        return ("Muscle and fat moved in opposite directions: this points to the energy of the beam (tube, filter, voltage, "
                "reconstruction).")
    if len({value > 0 for value in shift.values()}) == 1:
        names = [name for name in TISSUES if name in shift]
        return (f"{', '.join(names[:-1]).capitalize()} and {names[-1]} moved the same way: this points to the scanner, an "
                "offset of all HU.")
    return ""


def advice(found: Judged) -> str:
    """What to do."""
    if found.status == OUT:
        return (f"Look at the scanner's constancy tests, service and software about {found.changed[0].change.since}. Until "
                "the cause is known, do not use a site's line on these scans; fit the calibration again on scans made after "
                "the change.")
    if found.status == WATCH:
        return "Look again after the next month: this happens by chance, too."
    if found.status == TOO_FEW:
        return "Measure more scans of this scanner, or hold them against the cohort of a calibration file (--calibration)."
    return "Nothing to do. Look again each month, and after every service."


def notes(found: Judged) -> list[str]:
    """What else bears on the verdict."""
    said = []
    if found.empty:
        said.append(f"{len(found.empty)} months without studies: {', '.join(found.empty[:6])}"
                    f"{' and more' if len(found.empty) > 6 else ''}.")
    if found.programs > 1:
        said.append(f"The regions were drawn by {found.programs} versions of program or models: measure all with one before "
                    "the scanner is blamed.")
    said += [f"{chart.tissue.capitalize()} is not judged: {chart.reason}." for chart in found.charts
             if chart.status == TOO_FEW and found.status != TOO_FEW]
    return said
