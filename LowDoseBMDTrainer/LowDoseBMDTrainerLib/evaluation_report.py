"""What an evaluation leaves in its folder: scores.json, cases.csv, evaluation.html and pictures of the worst five."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from LowDoseBMDLib import __version__
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.files.atomic import write_whole
from LowDoseBMDLib.report.numbers import NO_VALUE, between, number, percent
from LowDoseBMDLib.report.study_page import render
from LowDoseBMDLib.report.tables import csv_text, plain, write_json
from LowDoseBMDLib.results import DISCLAIMER

from .evaluation import PLAIN, CaseScores
from .evaluation_perturb import IN_WORDS
from .evaluation_pictures import Picture
from .evaluation_subject import HELD_OUT, NEW, TRAINED, UNKNOWN, Subject
from .evaluation_summary import (
    EXPOSURES,
    OUTCOMES,
    GroupSummary,
    KindSummary,
    LevelsSummary,
    Spread,
    by_kind,
    summarise,
)
from .score_files import PAGE, SCORES
from .scores import IDENTIFIED_WITHIN_MM, TOLERANCE_MM

SCHEMA_VERSION = 1
"""Of scores.json; raised when a field changes its meaning or goes, not when one is added."""

FEWEST_FOR_INTERVAL = 6
"""Fewer people allow no exact interval of a median; a share gets none either, as it would say nothing."""

TABLE = "cases.csv"
PICTURE_FILES = "worst_*.png"

TEMPLATES = Path(__file__).parent / "templates"

COLUMNS: tuple[str, ...] = (
    "case", "patient", "perturbation", "exposure", "synthetic", "name", "dice", "nsd_2mm", "hd95_mm", "mean_mm", "truth_mm3",
    "found_mm3", "error_mm", "identified", "core_recall", "truth_hu", "found_hu", "confidence", "asks", "problem", "kinds",
    "misnamed",
)
"""Of cases.csv, one row a structure or level of a case; a distance to what was not found is inf."""

STATEMENTS: tuple[str, ...] = (
    "The truth is what the project's cases hold: the work of its annotators, or labels that another model made and that "
    "were imported as they are. A score against a model's labels says how alike two models are.",
    f"NSD: share of both surfaces that lies within {TOLERANCE_MM:.0f} mm of the other. HD95: the larger of the two "
    "directed 95th percentiles of the distance between the surfaces. Surfaces are counted in voxels.",
    "Identified, as VerSe counts it: the point found under a name is the nearest one, and within "
    f"{IDENTIFIED_WITHIN_MM:.0f} mm.",
    "Intervals are exact 95 % intervals of the median by order statistics; fewer than six people allow none.",
    "A case that was held out was not trained on, but the network was kept at the step at which held-out cases score best: "
    "its score flatters a little. Scores on cases that were trained on say nothing about new scans.",
    DISCLAIMER,
)

MEANINGS: dict[str, str] = {
    NEW: "Cases that were not trained on", HELD_OUT: "Cases that were held out of the training",
    UNKNOWN: "Cases of which it is not known whether they were trained on", TRAINED: "Cases that were trained on",
}


@dataclass(frozen=True)
class Evaluation:
    """All that was found. left_out: (case, why) of cases that were not scored."""

    subject: Subject
    rows: tuple[CaseScores, ...]
    left_out: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]

    @property
    def scored(self) -> tuple[CaseScores, ...]:
        """Rows that have scores."""
        return tuple(row for row in self.rows if row.structures or row.keypoints)


def write_evaluation(found: Evaluation, out: Path) -> dict[str, Any]:
    """Write the report; returns the content of scores.json. Raises OSError when out cannot be written."""
    groups, perturbed = summarise(found.rows)
    record = to_record(found, groups, perturbed)
    page = render("evaluation.html.j2", _page(found, groups, perturbed), TEMPLATES)
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / SCORES, out / TABLE, out / PAGE, *out.glob(PICTURE_FILES)]:
        path.unlink(missing_ok=True)
    for place, picture in enumerate(found.pictures, 1):
        write_whole(out / f"worst_{place}_{picture.case}_{picture.subject}.png", picture.png)
    write_whole(out / TABLE, csv_text(COLUMNS, _table(found.rows)))
    write_whole(out / PAGE, page)
    write_json(out / SCORES, record)
    return record


def to_record(found: Evaluation, groups: Sequence[GroupSummary], perturbed: Sequence[GroupSummary]) -> dict[str, Any]:
    """The content of scores.json, schema version 1; null where a number is not known or a distance infinite.

    Fields: schema_version; software; title (what was evaluated); task (of a run, or null); models {name: identity};
    checkpoint_sha256 (of a run's network, or null); by_exposure[], by_perturbation[]: evaluation_summary.GroupSummary;
    by_kind[]: evaluation_summary.KindSummary of scans that were drawn;
    cases[]: evaluation.CaseScores; left_out[]: case, why; worst[]: case, subject, caption.
    """
    return plain({
        "schema_version": SCHEMA_VERSION,
        "software": {"name": "LowDoseBMDTrainer", "version": __version__},
        "title": found.subject.title, "task": found.subject.task, "models": dict(found.subject.identities),
        "checkpoint_sha256": found.subject.checkpoint_sha256,
        "by_exposure": groups, "by_perturbation": perturbed, "by_kind": by_kind(found.scored), "cases": found.rows,
        "left_out": [{"case": case, "why": why} for case, why in found.left_out],
        "worst": [{"case": one.case, "subject": one.subject, "caption": one.caption} for one in found.pictures],
    })


def _table(rows: Sequence[CaseScores]) -> Iterator[list[Any]]:
    for row in rows:
        scores = [asdict(score) for score in (*row.structures, *row.keypoints, *row.trabecular)] or [{}]
        common = {name: getattr(row, name) for name in ("case", "patient", "perturbation", "exposure", "synthetic",
                                                        "confidence", "asks", "problem")}
        common |= {name: "; ".join(getattr(row, name)) for name in ("kinds", "misnamed")}
        for score in scores:
            name = score.get("structure") or score.get("level", "")
            cells = {**common, **score, "name": f"trabecular_{name}" if "core_recall" in score else name,
                     "nsd_2mm": score.get("nsd")}
            yield [_cell(cells.get(column)) for column in COLUMNS]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value


# --- the page ----------------------------------------------------------------------------------------------

def _page(found: Evaluation, groups: Sequence[GroupSummary], perturbed: Sequence[GroupSummary]) -> dict[str, Any]:
    sections = [{"title": f"{MEANINGS[one.name]} ({counted(one.cases, 'case')} of "
                 f"{counted(one.patients, 'person', 'people')})", "tables": _group_tables(one)} for one in groups]
    sections.append({"title": "Case by case", "tables": _case_tables(found.scored)})
    if perturbed:
        sections.append({"title": "Under perturbations", "tables": [_perturbed_table(perturbed)]})
    if kinds := by_kind(found.scored):
        sections.insert(0, {"title": "Levels by kind of anatomy", "tables": [_kinds_table(kinds)]})
    synthetic = sum(row.synthetic for row in found.scored if row.perturbation == PLAIN)
    return {
        "title": f"Evaluation of {found.subject.title}",
        "heading": list(found.subject.identities.values()),
        "synthetic": f"{counted(synthetic, 'synthetic case')} among these: scores there follow their generator's idea of a "
                     "person." if synthetic else "",
        "findings": list(findings(found, groups, perturbed)), "statements": list(STATEMENTS), "sections": sections,
        "left_out": [*found.left_out, *((row.case, row.problem) for row in found.rows if row.problem)],
        "pictures": [{"title": one.title, "caption": one.caption, "png": base64.b64encode(one.png).decode("ascii")}
                     for one in found.pictures],
    }


def findings(found: Evaluation, groups: Sequence[GroupSummary], perturbed: Sequence[GroupSummary]) -> Iterator[str]:
    """What the numbers mean, the most important first."""
    if not groups:
        yield "No case could be scored."
        return
    names = {one.name for one in groups}
    if names == {TRAINED}:
        yield "All cases were trained on: these scores say how well the models remember, not how well they do on new scans."
    elif found.subject.otherwise == UNKNOWN:
        yield ("It is not known what all of the models, or the weights that they began with, were trained on: cases that do "
               "not count as trained on may be among it.")
    for one in groups:
        if one.structures:
            worst = min(one.structures, key=lambda row: row.dice.median)
            yield (f"{MEANINGS[one.name]}: median Dice "
                   + ", ".join(f"{_title(row.structure)} {number(row.dice.median, 2)}" for row in one.structures)
                   + f"; the worst single one is {number(min(row.dice.worst for row in one.structures), 2)}"
                   + (f", the weakest structure {_title(worst.structure)}." if len(one.structures) > 1 else "."))
        if one.levels:
            yield f"{MEANINGS[one.name]}: {_levels_sentence(one.levels, one.patients)}"
    for everything in by_kind(found.scored)[:1]:
        yield (f"Of {counted(everything.scans, 'scan')} that were drawn: "
               + ", ".join(f"{name} {count}" for name, count in zip(OUTCOMES, everything.outcomes, strict=True)) + ".")
    wrong = [IN_WORDS[one.name] for one in perturbed if one.name != PLAIN and one.levels and one.levels.confident_wrong]
    if wrong:
        yield f"Under these perturbations a wrong level would have been measured without asking: {', '.join(wrong)}."
    missed = sum(row.problem != "" for row in found.scored)
    if missed:
        yield f"{counted(missed, 'scan')} could not be drawn at all; all that was to be found there counts as missed."


def _levels_sentence(levels: LevelsSummary, people: int) -> str:
    right = levels.all_right
    interval = (f" (95 % interval {percent(right.exact.low, 0)} to {percent(right.exact.high, 0)})"
                if people == right.of >= FEWEST_FOR_INTERVAL else "")
    return (f"{levels.identified} of {counted(levels.vertebrae, 'level')} identified, all of them in {right.count} of "
            f"{counted(right.of, 'case')}{interval}; {levels.confident_wrong} of {counted(levels.confident, 'naming')} that "
            f"would be measured without asking wrong.")


def _group_tables(one: GroupSummary) -> Iterator[dict[str, Any]]:
    if one.structures:
        yield _grid(
            ("structure", "cases", "Dice, median", "worst", "NSD 2 mm, median", "worst", "HD95, mm, median", "worst"),
            [(_title(row.structure), row.cases, *_cells(row.dice, 3), *_cells(row.nsd, 3), *_cells(row.hd95_mm, 1))
             for row in one.structures])
    if one.keypoints:
        yield _grid(("level", "cases", "centre error, mm, median", "worst", "identified"),
                    [(row.level, row.cases, *_cells(row.error_mm, 1), f"{row.identified} of {row.cases}")
                     for row in one.keypoints])
    if one.trabecular:
        yield _grid(("trabecular bone", "cases", "core found, median", "worst", "HU, found minus truth, median", "largest"),
                    [(row.level, row.cases, *_cells(row.core_recall, 3), *_cells(row.hu_difference, 1))
                     for row in one.trabecular],
                    note="Core found: share of the eroded true body that lies in the body that was found.")
    if one.levels and (bins := [entry for entry in one.levels.reliability if entry[2]]):
        yield _grid(("confidence of the names", "cases", "all levels right"),
                    [(f"{low:g} to {high:g}", cases, f"{right} of {cases}") for low, high, cases, right in bins])


def _cells(spread: Spread, digits: int) -> tuple[str, str]:
    interval = "" if spread.low is None else f" ({_between(spread.low, spread.high, digits)})"
    return _distance(spread.median, digits) + interval, _distance(spread.worst, digits)


def _between(low: float, high: float, digits: int) -> str:
    return between(low, high, digits) if math.isfinite(high) else f"{number(low, digits)} to not found"


def _distance(value: float, digits: int) -> str:
    if math.isinf(value):
        return "not found"
    return NO_VALUE if math.isnan(value) else number(value, digits)


def _case_tables(rows: Sequence[CaseScores]) -> Iterator[dict[str, Any]]:
    plain_rows = [row for row in rows if row.perturbation == PLAIN]
    ordered = sorted(plain_rows, key=lambda row: (EXPOSURES.index(row.exposure), row.case))
    names = _names(score.structure for row in ordered for score in row.structures)
    if names:
        yield _grid(("case", "in training", *(f"Dice {_short(name)}" for name in names), "worst HD95, mm"),
                    [(row.case, _marks(row), *_by_name(row, names), _worst_distance(row)) for row in ordered], texts=(1,))
    levels = list(dict.fromkeys(score.level for row in ordered for score in row.keypoints))
    if levels:
        yield _grid(("case", "in training", *(f"{level}, mm" for level in levels), "identified", "confidence"),
                    [(row.case, _marks(row), *_errors(row, levels),
                      f"{sum(score.identified for score in row.keypoints)} of {len(row.keypoints)}",
                      number(row.confidence, 3)) for row in ordered if row.keypoints], texts=(1,))


def _names(found: Iterator[str]) -> list[str]:
    there = set(found)
    return [name for name in STRUCTURES if name in there]


def _marks(row: CaseScores) -> str:
    return ", ".join([row.exposure, *(["synthetic"] if row.synthetic else []), *(["refused"] if row.problem else [])])


def _by_name(row: CaseScores, names: Sequence[str]) -> list[str]:
    found = {score.structure: score.dice for score in row.structures}
    return [number(found.get(name), 3) for name in names]


def _worst_distance(row: CaseScores) -> str:
    return _distance(max((score.hd95_mm for score in row.structures), default=math.nan), 1)


def _errors(row: CaseScores, levels: Sequence[str]) -> list[str]:
    found = {score.level: score.error_mm for score in row.keypoints}
    return [_distance(found.get(level, math.nan), 1) for level in levels]


def _perturbed_table(groups: Sequence[GroupSummary]) -> dict[str, Any]:
    names = _names(row.structure for one in groups for row in one.structures)
    rows = []
    for one in groups:
        medians = {row.structure: row.dice.median for row in one.structures}
        levels = one.levels
        rows.append((IN_WORDS.get(one.name, "as it is"), one.cases, *(number(medians.get(name), 3) for name in names),
                     f"{levels.identified} of {levels.vertebrae}" if levels else NO_VALUE,
                     f"{levels.confident_wrong} of {levels.confident}" if levels else NO_VALUE))
    return _grid(("perturbation", "cases", *(_short(name) for name in names), "levels identified", "confident and wrong"),
                 rows, note="Median Dice of each structure. CT and truth are changed together. All cases, trained on or "
                 "not; confident: levels that would be measured without asking.")


def _kinds_table(kinds: Sequence[KindSummary]) -> dict[str, Any]:
    return _grid(("scans that were drawn", "scans", *OUTCOMES),
                 [(one.kind, one.scans, *(count or "" for count in one.outcomes)) for one in kinds],
                 note="Measured: T12, L1, L2 named rightly and measured without asking. Asked: a reader is asked to confirm "
                 "them. Sure and wrong: a wrong level would have been measured. A scan counts under each of its kinds.")


def _grid(header: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "", texts: Sequence[int] = ()) -> dict[str, Any]:
    return {"header": header, "rows": rows, "note": note, "texts": texts}


def _title(name: str) -> str:
    title = STRUCTURES[name].title
    return title if title.startswith(("T1", "L1", "L2")) else title.lower()


def _short(name: str) -> str:
    return _title(name).replace(" vertebral", "")


def counted(number_of: int, one: str, many: str = "") -> str:
    """3 cases, 1 person."""
    return f"{number_of} {one if number_of == 1 else many or one + 's'}"
