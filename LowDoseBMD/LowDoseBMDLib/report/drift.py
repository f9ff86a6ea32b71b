"""The report about an archive's scanners: drift.json, drift.csv, drift.html and a control chart of each.

No name, path or UID of a study is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..calibration import Calibration
from ..drift import RULES, Chart
from ..drift_records import Archive
from ..drift_strata import Judged
from ..files.atomic import write_whole
from .agreement_figures import Drawing
from .drift_figures import FILE_PATTERN, draw_chart_figures
from .drift_text import STATEMENTS, STATUS_TITLES, advice, meaning, notes, sentence
from .numbers import NO_VALUE, between, number, typed
from .study_page import embedded, render, write_figures
from .tables import csv_text, plain, write_json

SCHEMA_VERSION = 1
"""Of drift.json; raised when a field changes its meaning or goes, not when one is added."""

COLUMNS: tuple[str, ...] = ("chart", "maker", "scanner", "kvp", "kernel", "tissue", "month", "n", "mean_hu", "centre_hu",
                            "warning_hu", "alarm_hu", "in_baseline", "judged", "rules")
"""Of drift.csv, one row a month: warning_hu and alarm_hu are how far from centre_hu the mean may lie."""


def write_drift(archive: Archive, strata: Sequence[Judged], out: Path,
                calibration: Calibration | None = None) -> dict[str, Any]:
    """Write the report; returns the record. Raises OSError when out cannot be written."""
    figures = draw_chart_figures(strata)
    record = to_record(archive, strata, figures, calibration)
    page = _page(record, strata, figures)
    out.mkdir(parents=True, exist_ok=True)
    for path in [*(out / f"drift.{kind}" for kind in ("json", "csv", "html")), *out.glob(f"{FILE_PATTERN}.png"),
                 *out.glob(f"{FILE_PATTERN}.svg")]:
        path.unlink(missing_ok=True)
    write_figures(out, figures)
    write_whole(out / "drift.csv", _table(strata))
    write_whole(out / "drift.html", page)
    write_json(out / "drift.json", record)
    return record


def to_record(archive: Archive, strata: Sequence[Judged], figures: Sequence[Drawing],
              calibration: Calibration | None = None) -> dict[str, Any]:
    """The content of drift.json, schema version 1; null where a number is not known.

    Fields: schema_version; software; records: found, used, left_out {why: count}; calibration: name of the one whose cohort
    is a baseline, or null; confidence (of every low and high); rules {name: words}; strata[]: maker, scanner, kvp, kernel
    (sharp, smooth, unknown), status (in_control, watch, out_of_control, too_few), sentence, meaning[], advice, notes[], n,
    first and last (months, YYYY-MM), months_without[], held_against_calibration, figure (name of its files, or null),
    charts[]: the fields of drift.Chart with its status, and effect: line_mg_cm3, alone_mg_cm3 (drift_strata.Effect) or null;
    statements[]. HU, HU per year and mg/cm3.
    """
    names = {figure.number: figure.name for figure in figures}
    return {
        "schema_version": SCHEMA_VERSION,
        "software": {"name": "LowDoseBMD", "version": __version__},
        "records": {"found": archive.records, "used": len(archive.readings), "left_out": dict(archive.left_out)},
        "calibration": None if calibration is None else calibration.name,
        "confidence": 0.95,
        "rules": dict(RULES),
        "strata": [_stratum(found, names.get(place)) for place, found in enumerate(strata, 1)],
        "statements": list(STATEMENTS),
    }


def _stratum(found: Judged, figure: str | None) -> dict[str, Any]:
    return plain({
        **plain(found.stratum), "status": found.status, "sentence": sentence(found), "meaning": meaning(found),
        "advice": advice(found), "notes": notes(found), "n": found.n, "first": found.first, "last": found.last,
        "months_without": found.empty, "held_against_calibration": found.calibrated, "figure": figure,
        "charts": [{**plain(chart), "status": chart.status, "effect": plain(found.effects.get(chart.tissue))}
                   for chart in found.charts]})


def _table(strata: Sequence[Judged]) -> str:
    return csv_text(COLUMNS, ([row[name] for name in COLUMNS] for row in _months(strata)))


def _months(strata: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    for place, found in enumerate(strata, 1):
        scanner = {"chart": place, "maker": found.stratum.maker, "scanner": found.stratum.scanner,
                   "kvp": f"{found.stratum.kvp:g}", "kernel": found.stratum.kernel}
        for chart in found.charts:
            for month in chart.months:
                row = {**plain(month), "rules": " ".join(month.rules), "tissue": chart.tissue,
                       "centre_hu": chart.baseline and chart.baseline.mean_hu}
                yield {**scanner, **{key: round(value, 2) if isinstance(value, float) else value
                                     for key, value in row.items()}}


def summary(record: Mapping[str, Any]) -> str:
    """The verdicts in a few lines of text."""
    lines = [records_sentence(record)]
    for found in record["strata"]:
        lines += [found["sentence"], *(f"  {text}" for text in (*found["meaning"], found["advice"], *found["notes"]))]
    return typed("\n".join(lines))


def records_sentence(record: Mapping[str, Any]) -> str:
    """How many records were read, and why others do not count."""
    records = record["records"]
    left_out = ", ".join(f"{count} {why}" for why, count in sorted(records["left_out"].items(), key=lambda item: -item[1]))
    return f"{records['used']} of {records['found']} records used" + (f"; left out: {left_out}." if left_out else ".")


# --- the page ----------------------------------------------------------------------------------------------

def _page(record: Mapping[str, Any], strata: Sequence[Judged], figures: Sequence[Drawing]) -> str:
    software = record["software"]
    drawn = {figure.number: embedded(figure) for figure in figures}
    return render("drift.html.j2", {
        "title": "Drift of scanners, read in the tissue of patients",
        "heading": [records_sentence(record), f"{software['name']} {software['version']}"],
        "synthetic": "",
        "findings": [found["sentence"] for found in record["strata"]],
        "scanners": [{"title": found.stratum.title, "status": found.status, "word": STATUS_TITLES[found.status],
                      "said": [*entry["meaning"], entry["advice"], *entry["notes"]], "figure": drawn.get(place),
                      "rows": [_row(chart) for chart in found.charts], "baselines": _baselines(found)}
                     for place, (found, entry) in enumerate(zip(strata, record["strata"], strict=True), 1)],
        "statements": record["statements"],
    })


def _row(chart: Chart) -> list[str]:
    """Tissue, people, baseline, trend, change, rules, verdict."""
    base, trend, change = chart.baseline, chart.trend_hu, chart.change
    return [
        chart.tissue.capitalize(), str(chart.n),
        f"{number(base.mean_hu, 1)} ± {number(base.sd_hu, 1)} ({base.n})" if base else NO_VALUE,
        f"{number(trend.value, 2)} ({between(trend.low, trend.high, 2)})" if trend else NO_VALUE,
        f"{number(change.shift_hu.value, 1)} ({between(change.shift_hu.low, change.shift_hu.high, 1)}), {change.since}"
        if change else NO_VALUE,
        ", ".join(RULES[rule] for rule in chart.rules) or NO_VALUE, STATUS_TITLES[chart.status]]


def _baselines(found: Judged) -> str:
    """Where the baselines come from."""
    where: dict[str, list[str]] = {}
    for chart in found.charts:
        if base := chart.baseline:
            source = f"months {base.first} to {base.last}" if base.first else "the people of the calibration"
            where.setdefault(source, []).append(chart.tissue)
    return "; ".join(f"{', '.join(tissues)}: {source}" for source, tissues in where.items())
