"""What a comparison of annotators leaves in its folder: compare.html, compare.json, compare.csv, and each map of
disagreement as a label map on the CT's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from LowDoseBMDLib import __version__
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.atomic import whole_file, write_whole
from LowDoseBMDLib.report.numbers import NO_VALUE, number, typed
from LowDoseBMDLib.report.study_page import embedded, render
from LowDoseBMDLib.report.tables import csv_text, plain, write_json
from LowDoseBMDLib.results import DISCLAIMER

from .cases import Case, read_image
from .compare_files import PAGE, RECORD
from .raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND
from .raters_pictures import COLOURS, View, draw_pair, spot_sentence
from .raters_project import Compared, Pair, PairSummary, numbers_of, pairs_of, summarise
from .scores import TOLERANCE_MM

SCHEMA_VERSION = 1
"""Of compare.json; raised when a field changes its meaning or goes, not when one is added."""

TABLE, MAP_FILES = "compare.csv", "disagreement_*.nii.gz"

COLUMNS: tuple[str, ...] = ("case", "reader_a", "reader_b", "name", "dice", "nsd_2mm", "hd95_mm", "mean_mm", "volume_a_cm3",
                            "volume_b_cm3", "distance_mm")
"""Of compare.csv, one row a structure or level of a pair of readings; a distance to what only one drew is inf."""

NAMES: dict[int, str] = {ONLY_FIRST: "only_first", ONLY_SECOND: "only_second", DIFFERENT: "different"}
"""Of the values of a map, in compare.json."""

SPOTS_SHOWN = 5
PICTURED = 8
"""Pairs with pictures, those whose spots are largest: a page of a hundred cases must still open."""

STATEMENTS: tuple[str, ...] = (
    f"NSD: share of both surfaces that lies within {TOLERANCE_MM:.0f} mm of the other. HD95: the larger of the two directed "
    "95th percentiles of the distance between the surfaces; mean: over both surfaces. Surfaces are counted in voxels.",
    f"A spot is a connected region that one drew and that lies more than {TOLERANCE_MM:.0f} mm, and more than the longest "
    "side of a voxel, from what the other drew.",
    f"Pictures are those of the {PICTURED} pairs that differ most; maps of disagreement lie beside this page for all.",
    "Means run over cases. A bone that only one drew counts as Dice 0 and has no distance; other bones and bodies, which "
    "need not be drawn, are compared where both readings have them.",
    "Agreement of two annotators says how well the task is defined, not that both are right.",
    DISCLAIMER,
)


@dataclass(frozen=True)
class Agreement:
    """All pairs of a project. pictures: by place in ``pairs``, of those that differ most. left_out: (case, why) of cases
    without two readings; unreadable: likewise. synthetic: cases that are no patients."""

    title: str
    pairs: tuple[Compared, ...] = ()
    pictures: Mapping[int, tuple[View, ...]] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    synthetic: tuple[str, ...] = ()


def compare_cases(title: str, cases: Sequence[Case], out: Path, tell: Callable[[str], None]) -> Agreement:
    """Compare every two readings of the cases, one case in memory at a time, and write the report to ``out`` when there are
    any. tell: called with the name of each case before it is compared. Raises OSError when out cannot be written."""
    pairs: list[Compared] = []
    pictures: dict[int, tuple[View, ...]] = {}
    left_out, unreadable = [], []
    for case in cases:
        tell(case.name)
        try:
            for pair in () if case.problem else pairs_of(case):
                if not pairs:
                    _clear(out)
                pairs.append(numbers_of(pair))
                _write_map(out / map_name(case.name, pair.readers), pair)
                _keep_worst(pictures, pairs, pair, case)
        except ValueError as error:
            unreadable.append((case.name, str(error)))
            continue
        if not pairs or pairs[-1].case != case.name:
            left_out.append((case.name, case.problem or "only one person has drawn it, or nobody"))
    compared = {pair.case for pair in pairs}
    found = Agreement(title, tuple(pairs), pictures, tuple(left_out), tuple(unreadable),
                      tuple(case.name for case in cases if case.synthetic and case.name in compared))
    if pairs:
        _write(found, out)
    return found


def _keep_worst(pictures: dict[int, tuple[View, ...]], pairs: Sequence[Compared], pair: Pair, case: Case) -> None:
    """Draw the pair that came last when it is among the PICTURED with the largest spots; drop another for it."""
    last = len(pairs) - 1
    least = min(pictures, key=lambda place: pairs[place].spots_mm3, default=last)
    if len(pictures) == PICTURED:
        if pairs[last].spots_mm3 <= pairs[least].spots_mm3:
            return
        del pictures[least]
    pictures[last] = draw_pair(read_image(case), pair)


def _clear(out: Path) -> None:
    """Remove what an earlier comparison has left."""
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / PAGE, out / RECORD, out / TABLE, *out.glob(MAP_FILES)]:
        path.unlink(missing_ok=True)


def _write(found: Agreement, out: Path) -> None:
    summaries = summarise(found.pairs)
    write_whole(out / TABLE, csv_text(COLUMNS, _rows(found.pairs)))
    write_whole(out / PAGE, render("compare.html.j2", _page(found, summaries), Path(__file__).parent / "templates"))
    write_json(out / RECORD, to_record(found, summaries))


def map_name(case: str, readers: tuple[str, str]) -> str:
    """File name of a pair's map of disagreement."""
    names = "-".join("".join(c if c.isalnum() else "_" for c in reader) for reader in readers)
    return MAP_FILES.replace("*", f"{case}_{names}")


def _write_map(path: Path, pair: Pair) -> None:
    import SimpleITK as sitk

    found = pair.comparison
    with whole_file(path) as aside:
        sitk.WriteImage(found.geometry.to_image(found.disagreement.full(found.geometry)), str(aside), useCompression=True)


def to_record(found: Agreement, summaries: Sequence[PairSummary]) -> dict[str, Any]:
    """The content of compare.json, schema version 1; null where there is no number or a distance is infinite.

    Fields: schema_version; software; title; synthetic (cases); map_values {value: meaning}; summaries[]:
    raters_project.PairSummary; pairs[]: raters_project.Compared with disagreement_cm3 {only_first, only_second, different}
    and map (file); left_out[]: case, why.
    """
    return plain({
        "schema_version": SCHEMA_VERSION, "software": {"name": "LowDoseBMDTrainer", "version": __version__},
        "title": found.title, "synthetic": found.synthetic, "summaries": summaries,
        "pairs": [_pair_record(pair) for pair in found.pairs],
        "map_values": {str(ONLY_FIRST): "only the first reader", str(ONLY_SECOND): "only the second reader",
                       str(DIFFERENT): "both, as different structures"},
        "left_out": [{"case": case, "why": why} for case, why in (*found.left_out, *found.unreadable)]})


def _pair_record(pair: Compared) -> dict[str, Any]:
    volumes = {NAMES[value]: volume for value, volume in pair.disagreement_cm3.items()}
    record = {each.name: getattr(pair, each.name) for each in fields(pair)}
    return {**record, "disagreement_cm3": volumes, "map": map_name(pair.case, pair.readers)}


def _rows(pairs: Sequence[Compared]) -> Iterator[list[Any]]:
    for pair in pairs:
        start = [pair.case, *pair.readers]
        for row in pair.structures:
            numbers = (row.dice, row.surface.nsd, row.surface.hd95_mm, row.surface.mean_mm, *row.volume_cm3)
            yield [*start, row.name, *(round(value, 4) for value in numbers), None]
        for level, distance in pair.keypoint_mm.items():
            yield [*start, level, *[None] * 6, round(distance, 2)]


def summary_lines(summaries: Sequence[PairSummary]) -> str:
    """The summaries in a few lines of text."""
    lines = []
    for pair in summaries:
        lines.append(f"{' and '.join(pair.readers)}: {_cases(len(pair.cases))}")
        lines += [f"  {STRUCTURES[row.name].title:<24} Dice {number(row.dice, 3)}  NSD {number(row.nsd, 3)}  "
                  f"HD95 {number(row.hd95_mm, 1)} mm  mean {number(row.mean_mm, 2)} mm" for row in pair.structures]
        lines += [f"  {row.level:<24} {number(row.mean_mm, 1)} mm apart" +
                  (f", {row.one} placed by one only" if row.one else "") for row in pair.keypoints]
    return typed("\n".join(lines))


def _cases(count: int) -> str:
    return f"{count} case" + "s" * (count != 1)


# --- the page ----------------------------------------------------------------------------------------------

def _page(found: Agreement, summaries: Sequence[PairSummary]) -> dict[str, Any]:
    cases = len({pair.case for pair in found.pairs})
    return {
        "title": "Agreement of annotators", "heading": [found.title, _cases(cases), f"LowDoseBMDTrainer {__version__}"],
        "synthetic": f"Synthetic CTs, no patients: {', '.join(found.synthetic)}." if found.synthetic else "",
        "findings": [sentence for summary in summaries for sentence in _findings(summary)],
        "summaries": [_summary_section(summary) for summary in summaries],
        "pairs": [_pair_section(pair, found.pictures.get(place, ())) for place, pair in enumerate(found.pairs)],
        "left_out": (*found.unreadable, *found.left_out), "statements": STATEMENTS}


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


def _pair_section(pair: Compared, pictures: Sequence[View]) -> dict[str, Any]:
    first, second = pair.readers
    tables = [_table(["Structure", "Dice", "NSD 2 mm", "HD95, mm", "mean, mm", f"{first}, cm³", f"{second}, cm³"],
                     [[STRUCTURES[row.name].title, number(row.dice, 3), _finite(row.surface.nsd, 3),
                       _finite(row.surface.hd95_mm, 1), _finite(row.surface.mean_mm, 2),
                       *(number(volume, 1) for volume in row.volume_cm3)] for row in pair.structures])]
    if pair.keypoint_mm:
        tables.append(_table(["Keypoint", "distance, mm"], [
            [level, number(mm, 1) if math.isfinite(mm) else "placed by one only"]
            for level, mm in pair.keypoint_mm.items()]))
    if pair.spots:
        tables.append(_table(["Largest spots", "slice", "L, P, S in mm"], [
            [spot_sentence(spot, pair.readers), str(spot.slice + 1), ", ".join(number(x, 0) for x in spot.position_lps_mm)]
            for spot in pair.spots[:SPOTS_SHOWN]]))
    words = {ONLY_FIRST: f"only {first}", ONLY_SECOND: f"only {second}", DIFFERENT: "both, as different structures"}
    return {"title": f"Case {pair.case}: {first} and {second}", "said": _volumes(pair), "tables": tables,
            "readers": pair.readers, "pictures": [embedded(view) for view in pictures],
            "legend": [{"colour": colour, "text": words[value]} for value, colour in COLOURS.items()]}


def _volumes(pair: Compared) -> str:
    """How much differs, in words."""
    volumes, (first, second) = pair.disagreement_cm3, pair.readers
    if not any(volumes.values()):
        return "Both drew the same voxels."
    return (f"{number(sum(volumes.values()), 1)} cm³ differ: {number(volumes[ONLY_FIRST], 1)} cm³ only by {first}, "
            f"{number(volumes[ONLY_SECOND], 1)} cm³ only by {second}, {number(volumes[DIFFERENT], 1)} cm³ by both as "
            "different structures.")


def _finite(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else NO_VALUE


def _table(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"header": header, "rows": rows}
