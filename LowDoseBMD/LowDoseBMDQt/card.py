"""The answer card: number, unit, interval, class and state as rich text. Pure text; no widget, no scene."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from LowDoseBMDLib.calibration import SYNTHETIC
from LowDoseBMDLib.measurement import LOW_BONE_MASS, NORMAL, OSTEOPOROSIS_RANGE
from LowDoseBMDLib.review import ACCEPTED, REJECTED
from LowDoseBMDMRML.remeasure import EDITED, MEASURED, REFUSED, STALE
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LowDoseBMDLib.flags import Flag
    from LowDoseBMDLib.measurement import Measurement
    from LowDoseBMDLib.review import Review

LEAST_SHOWN_DIFFERENCE_MG_CM3 = 0.5
"""Smaller differences than this round to nothing; both values then stand on the card."""

_SOFT = "#6b7580"
_TONES = {MEASURED: "#22577a", EDITED: "#8a5a00", ACCEPTED: "#1f6e43", REJECTED: "#a11622", REFUSED: "#a11622",
          STALE: "#8a5a00"}


def cardHtml(measurement: Measurement, state: str, automaticVbmd: float | None = None, review: Review | None = None,
             staleReason: str = "", edited: bool = False) -> str:
    """The whole card. automaticVbmd: mean before any edit, mg/cm3. edited: a reader changed what the number rests on."""
    if measurement.mean_vbmd_mg_cm3 is None:
        lines = _refused(measurement)
    else:
        lines = [_number(measurement), _classLine(measurement), _soft(_meanLine(measurement))]
    if edited or state == EDITED:
        lines.append(_coloured(EDITED, _edited(measurement, automaticVbmd)))
    lines += [_stateLine(state, staleReason), _reviewLine(review)]
    return "".join(f"<div style='margin-top:2px'>{line}</div>" for line in lines if line)


def shortText(measurement: Measurement, state: str) -> str:
    """Number, unit, interval and state in a line, for beside the brush."""
    if measurement.mean_vbmd_mg_cm3 is None:
        return _("not measured")
    low, high = measurement.mean_vbmd_ci95
    number = _("vBMD {value:.0f} mg/cm³ ({low:.0f} to {high:.0f})").format(
        value=measurement.mean_vbmd_mg_cm3, low=low, high=high)
    words = [_("provisional")] if measurement.category_provisional else []
    said = {MEASURED: _("automatic"), EDITED: _("after your edits"), ACCEPTED: _("accepted"), REJECTED: _("rejected"),
            STALE: _("out of date")}
    return ", ".join([number, *words, *filter(None, [said.get(state)])])


def refusalFlags(measurement: Measurement) -> list[Flag]:
    return [flag for flag in measurement.flags if flag.severity.value == "refused"]


def notes(measurement: Measurement) -> list[Flag]:
    """Flags that are listed below the card: all but refusals, which are its text.

    The gravest first; what the card says itself comes last among its equals.
    """
    order = {"limited": 0, "caution": 1, "info": 2}
    return sorted((flag for flag in measurement.flags if flag.severity.value in order),
                  key=lambda flag: (order[flag.severity.value], flag.code == "uncalibrated"))


def categoryName(category: str | None) -> str:
    return {NORMAL: _("normal bone density"), LOW_BONE_MASS: _("low bone mass"),
            OSTEOPOROSIS_RANGE: _("in the range of osteoporosis")}.get(category, "")


def _number(measurement: Measurement) -> str:
    low, high = measurement.mean_vbmd_ci95
    number = f"<span style='font-size:20pt'><b>{measurement.mean_vbmd_mg_cm3:.0f}</b></span>"
    interval = _("95 %: {low:.0f} to {high:.0f}").format(low=low, high=high)
    return f"vBMD&nbsp; {number} mg/cm³ &nbsp;&nbsp; {interval}"


def _classLine(measurement: Measurement) -> str:
    text = f"<b>{html.escape(categoryName(measurement.category))}</b>"
    if not measurement.category_provisional:
        return text
    return f"{text} <span style='color:#8a5a00'>({_('provisional')}: {_whyProvisional(measurement)})</span>"


def _whyProvisional(measurement: Measurement) -> str:
    if measurement.calibration.provisional:
        synthetic = measurement.calibration.status == SYNTHETIC
        return _("calibrated on synthetic people") if synthetic else _("uncalibrated scanner")
    reasons = {"kvp": _("other tube voltage than calibrated"), "scanner": _("other scanner than calibrated")}
    codes = {flag.code for flag in measurement.flags}
    return ", ".join(reason for code, reason in reasons.items() if code in codes)


def _meanLine(measurement: Measurement) -> str:
    levels = ", ".join(measurement.mean_of)
    text = _("mean of {levels}").format(levels=levels) if len(measurement.mean_of) > 1 else _("{level} only").format(
        level=levels)
    if measurement.p_below_80 is None:
        return text
    return text + " · " + _("P(&lt; 80 mg/cm³) = {percent}").format(percent=_percent(measurement.p_below_80))


def _percent(share: float) -> str:
    if share < 0.01:
        return "&lt; 1 %"
    return "&gt; 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _refused(measurement: Measurement) -> list[str]:
    lines = [f"<span style='font-size:14pt;color:{_TONES[REFUSED]}'>{_('Not measured')}</span>"]
    sentences = [flag.sentence for flag in refusalFlags(measurement)]
    # Why a level is not measured is mostly part of a refusal's sentence already.
    sentences += [_("{level}: {reason}").format(level=level.name, reason=level.reason) for level in measurement.levels
                  if level.reason and not any(level.reason in sentence for sentence in sentences)]
    return [*lines, *map(html.escape, sentences), _byHand(measurement)]


def _byHand(measurement: Measurement) -> str:
    """What a reader can still do: draw what is missing."""
    missing = [level.name for level in measurement.levels if not level.measured]
    links = [f"<a href='draw:trabecular_{name}'>{_('draw {level}').format(level=name)}</a>" for name in missing]
    if measurement.muscle is None:
        links.append(f"<a href='draw:psoas_left'>{_('draw muscle')}</a>")
    if measurement.fat is None:
        links.append(f"<a href='draw:fat_anterior'>{_('draw fat')}</a>")
    return _("By hand: {links}.").format(links=", ".join(links)) if links else ""


def _stateLine(state: str, staleReason: str) -> str:
    texts = {MEASURED: _("Automatic, not yet read"), ACCEPTED: _("Accepted; regions are locked"),
             REJECTED: _("Rejected: do not report"),
             STALE: _("Out of date: {reason}").format(reason=staleReason or _("measure again"))}
    return _coloured(state, texts.get(state, ""))


def _coloured(state: str, text: str) -> str:
    return f"<span style='color:{_TONES[state]}'>{html.escape(text)}</span>" if text else ""


def _edited(measurement: Measurement, automaticVbmd: float | None) -> str:
    now = measurement.mean_vbmd_mg_cm3
    if now is None:
        return _("After your edits")
    if automaticVbmd is None:
        return _("After your edits; there was no automatic value")
    difference = now - automaticVbmd
    if abs(difference) < LEAST_SHOWN_DIFFERENCE_MG_CM3:
        return _("After your edits; within 0.5 mg/cm³ of the automatic {value:.1f} mg/cm³").format(value=automaticVbmd)
    return _("After your edits: {difference:+.0f} mg/cm³ from the automatic {value:.0f} mg/cm³").format(
        difference=difference, value=automaticVbmd)


def _reviewLine(review: Review | None) -> str:
    if review is None:
        return ""
    when = review.signed_at[:16].replace("T", " ")
    line = _("{reader}, {when}").format(reader=review.reader, when=when)
    return _soft(html.escape(f"{line}: {review.comment}" if review.comment else line))


def _soft(text: str) -> str:
    return f"<span style='color:{_SOFT}'>{text}</span>" if text else ""
