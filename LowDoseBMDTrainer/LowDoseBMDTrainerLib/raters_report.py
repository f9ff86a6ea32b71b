"""What a comparison of annotators leaves in its folder: compare.html, compare.json, compare.csv, and each map of
disagreement as a label map on the CT's grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from LowDoseBMDLib import __version__
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.atomic import whole_file, write_whole
from LowDoseBMDLib.report.numbers import NO_VALUE, number, typed
from LowDoseBMDLib.report.study_page import embedded, render
from LowDoseBMDLib.report.tables import csv_text, plain, write_json
from LowDoseBMDLib.results import DISCLAIMER

from .compare_files import PAGE, RECORD
from .raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND, Spot
from .raters_pictures import COLOURS, View, spot_sentence
from .raters_project import Pair, PairSummary, summarise
from .scores import TOLERANCE_MM

SCHEMA_VERSION = 1
"""Of compare.json; raised when a field changes its meaning or goes, not when one is added."""

TABLE, MAP_FILES = "compare.csv", "disagreement_*.nii.gz"

COLUMNS: tuple[str, ...] = ("case", "reader_a", "reader_b", "name", "dice", "nsd_2mm", "hd95_mm", "mean_mm", "volume_a_cm3",
                            "volume_b_cm3", "distance_mm")
"""Of compare.csv, one row a structure or level of a pair of readings; a distance to what only one drew is inf."""

SPOTS_SHOWN = 5

STATEMENTS: tuple[str, ...] = (
    f"NSD: share of both surfaces that lies within {TOLERANCE_MM:.0f} mm of the other. HD95: the larger of the two directed "
    "95th percentiles of the distance between the surfaces; mean: over both surfaces. Surfaces are counted in voxels.",
    f"A spot is a connected region that one drew and that lies more than {TOLERANCE_MM:.0f} mm, and more than the longest "
    "side of a voxel, from what the other drew.",
    "Means run over cases. A structure that only one drew counts as Dice 0 and has no distance.",
    "Agreement of two annotators says how well the task is defined, not that both are right.",
    DISCLAIMER,
)


@dataclass(frozen=True, eq=False)
class Agreement:
    """All pairs of a project, with their pictures. left_out: (case, why) of cases without two readings, or unreadable."""

    title: str
    pairs: tuple[Pair, ...]
    pictures: tuple[tuple[View, ...], ...]
    left_out: tuple[tuple[str, str], ...] = ()


def write_comparison(found: Agreement, out: Path) -> dict[str, Any]:
    """Write the report; returns the content of compare.json. Raises OSError when out cannot be written."""
    summaries = summarise(found.pairs)
    record = to_record(found, summaries)
    page = render("compare.html.j2", _page(found, summaries), Path(__file__).parent / "templates")
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / PAGE, out / RECORD, out / TABLE, *out.glob(MAP_FILES)]:
        path.unlink(missing_ok=True)
    for pair in found.pairs:
        _write_map(out / map_name(pair), pair)
    write_whole(out / TABLE, csv_text(COLUMNS, _rows(found.pairs)))
    write_whole(out / PAGE, page)
    write_json(out / RECORD, record)
    return record


def map_name(pair: Pair) -> str:
    """File name of a pair's map of disagreement."""
    names = "-".join("".join(c if c.isalnum() else "_" for c in reader) for reader in pair.readers)
    return MAP_FILES.replace("*", f"{pair.case}_{names}")


def _write_map(path: Path, pair: Pair) -> None:
    import SimpleITK as sitk

    found = pair.comparison
    with whole_file(path) as aside:
        sitk.WriteImage(found.geometry.to_image(found.disagreement.full(found.geometry)), str(aside), useCompression=True)


def to_record(found: Agreement, summaries: Sequence[PairSummary]) -> dict[str, Any]:
    """The content of compare.json, schema version 1; null where there is no number or a distance is infinite.

    Fields: schema_version; software; title; map_values {value: meaning}; summaries[]: raters_project.PairSummary; pairs[]:
    case, readers, structures[] (raters.StructureAgreement), keypoint_mm {level: mm}, disagreement_cm3 {only_first,
    only_second, different}, worst_slice (from 0), worst_lps_mm, spots[] (raters.Spot; reader: 0 or 1), map (file);
    left_out[]: case, why.
    """
    return plain({
        "schema_version": SCHEMA_VERSION, "software": {"name": "LowDoseBMDTrainer", "version": __version__},
        "title": found.title, "summaries": summaries, "pairs": [_pair_record(pair) for pair in found.pairs],
        "map_values": {str(ONLY_FIRST): "only the first reader", str(ONLY_SECOND): "only the second reader",
                       str(DIFFERENT): "both, as different structures"},
        "left_out": [{"case": case, "why": why} for case, why in found.left_out]})


def _pair_record(pair: Pair) -> dict[str, Any]:
    found = pair.comparison
    return {"case": pair.case, "readers": pair.readers, "structures": found.structures, "keypoint_mm": found.keypoint_mm,
            "disagreement_cm3": disagreement_cm3(pair), "worst_slice": found.worst_slice,
            "worst_lps_mm": found.worst_lps_mm, "spots": found.spots, "map": map_name(pair)}


def disagreement_cm3(pair: Pair) -> dict[str, float]:
    """Volume of each value of the map."""
    found = pair.comparison
    cm3 = found.geometry.voxel_volume_mm3 / 1000.0
    return {name: int(np.count_nonzero(found.disagreement.voxels == value)) * cm3 for name, value in
            (("only_first", ONLY_FIRST), ("only_second", ONLY_SECOND), ("different", DIFFERENT))}


def _rows(pairs: Sequence[Pair]) -> Iterator[list[Any]]:
    for pair in pairs:
        start = [pair.case, *pair.readers]
        for row in pair.comparison.structures:
            numbers = (row.dice, row.surface.nsd, row.surface.hd95_mm, row.surface.mean_mm, *row.volume_cm3)
            yield [*start, row.name, *(round(value, 4) for value in numbers), None]
        for level, distance in pair.comparison.keypoint_mm.items():
            yield [*start, level, *[None] * 6, round(distance, 2)]


def summary_lines(record: Mapping[str, Any]) -> str:
    """The summaries in a few lines of text."""
    lines = []
    for pair in record["summaries"]:
        lines.append(f"{' and '.join(pair['readers'])}: {_cases(len(pair['cases']))}")
        lines += [f"  {STRUCTURES[row['name']].title:<24} Dice {number(row['dice'], 3)}  NSD {number(row['nsd'], 3)}  "
                  f"HD95 {number(row['hd95_mm'], 1)} mm  mean {number(row['mean_mm'], 2)} mm" for row in pair["structures"]]
        lines += [f"  {row['level']:<24} {number(row['mean_mm'], 1)} mm apart" +
                  (f", {row['one']} placed by one only" if row["one"] else "") for row in pair["keypoints"]]
    return typed("\n".join(lines))


def _cases(count: int) -> str:
    return f"{count} case" + "s" * (count != 1)


# --- the page ----------------------------------------------------------------------------------------------

def _page(found: Agreement, summaries: Sequence[PairSummary]) -> dict[str, Any]:
    cases = len({pair.case for pair in found.pairs})
    return {
        "title": "Agreement of annotators", "heading": [found.title, _cases(cases), f"LowDoseBMDTrainer {__version__}"],
        "synthetic": "", "findings": [sentence for summary in summaries for sentence in _findings(summary)],
        "summaries": [_summary_section(summary) for summary in summaries],
        "pairs": [_pair_section(*both) for both in zip(found.pairs, found.pictures, strict=True)],
        "left_out": found.left_out, "statements": STATEMENTS}


def _findings(summary: PairSummary) -> Iterator[str]:
    """The worst structure and the worst level of two annotators."""
    who = " and ".join(summary.readers)
    worst = min(summary.structures, key=lambda row: row.dice, default=None)
    if worst is not None:
        yield (f"{who}, {_cases(len(summary.cases))}: least agreement in {STRUCTURES[worst.name].title.lower()}, Dice "
               f"{number(worst.dice, 2)}" + (f", surfaces {number(worst.mean_mm, 1)} mm apart." if worst.both else "."))
    far = max((row for row in summary.keypoints if row.both), key=lambda row: row.largest_mm, default=None)
    if far is not None:
        yield f"{who}: keypoints at most {number(far.largest_mm, 1)} mm apart ({far.level})."


def _summary_section(summary: PairSummary) -> dict[str, Any]:
    structures = [[STRUCTURES[row.name].title, str(row.cases), str(row.both), number(row.dice, 3), number(row.nsd, 3),
                   number(row.hd95_mm, 1), number(row.mean_mm, 2)] for row in summary.structures]
    points = [[row.level, str(row.both), str(row.one), number(row.mean_mm, 1), number(row.largest_mm, 1)]
              for row in summary.keypoints]
    tables = [_table(["Mean over cases", "cases", "drawn by both", "Dice", "NSD 2 mm", "HD95, mm", "mean, mm"], structures)]
    if points:
        tables.append(_table(["Keypoint", "placed by both", "by one only", "mean distance, mm", "largest, mm"], points))
    return {"title": f"{' and '.join(summary.readers)}, {_cases(len(summary.cases))}", "tables": tables}


def _pair_section(pair: Pair, pictures: Sequence[View]) -> dict[str, Any]:
    found, (first, second) = pair.comparison, pair.readers
    tables = [_table(["Structure", "Dice", "NSD 2 mm", "HD95, mm", "mean, mm", f"{first}, cm³", f"{second}, cm³"],
                     [[STRUCTURES[row.name].title, number(row.dice, 3), _finite(row.surface.nsd, 3),
                       _finite(row.surface.hd95_mm, 1), _finite(row.surface.mean_mm, 2),
                       *(number(volume, 1) for volume in row.volume_cm3)] for row in found.structures])]
    if found.keypoint_mm:
        tables.append(_table(["Keypoint", "distance, mm"], [
            [level, number(mm, 1) if math.isfinite(mm) else "placed by one only"]
            for level, mm in found.keypoint_mm.items()]))
    if found.spots:
        tables.append(_table(["Largest spots", "slice", "L, P, S in mm"], [
            [spot_sentence(spot, pair), str(_slice_of(spot, pair)), ", ".join(number(x, 0) for x in spot.position_lps_mm)]
            for spot in found.spots[:SPOTS_SHOWN]]))
    volumes = disagreement_cm3(pair)
    said = (f"{number(sum(volumes.values()), 1)} cm³ differ: {number(volumes['only_first'], 1)} cm³ only by {first}, "
            f"{number(volumes['only_second'], 1)} cm³ only by {second}, {number(volumes['different'], 1)} cm³ by both as "
            "different structures." if any(volumes.values()) else "Both drew the same voxels.")
    words = {ONLY_FIRST: f"only {first}", ONLY_SECOND: f"only {second}", DIFFERENT: "both, as different structures"}
    return {"title": f"Case {pair.case}: {first} and {second}", "said": said, "tables": tables, "readers": pair.readers,
            "pictures": [embedded(view) for view in pictures],
            "legend": [{"colour": colour, "text": words[value]} for value, colour in COLOURS.items()]}


def _slice_of(spot: Spot, pair: Pair) -> int:
    """From 1, as a picture names it."""
    return round(float(pair.comparison.geometry.to_kji(np.array(spot.position_lps_mm))[0])) + 1


def _finite(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else NO_VALUE


def _table(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"header": header, "rows": rows}
