"""Scores on scans that are drawn: whose names are wrong, what is counted by kind of anatomy, what the command refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.flags import LEVEL_UNCERTAIN, Flag, Severity
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Keypoint
from LowDoseBMDTrainerLib.cases import Labels
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.evaluation import PLAIN, CaseScores, KeypointScore, Scope
from LowDoseBMDTrainerLib.evaluation_report import Evaluation, write_evaluation
from LowDoseBMDTrainerLib.evaluation_subject import NEW, TRAINED, UNKNOWN, Subject
from LowDoseBMDTrainerLib.evaluation_summary import ALL, OUTCOMES, by_kind, group
from LowDoseBMDTrainerLib.evaluation_synthetic import USUAL, known_people, misnamed, score_scan
from LowDoseBMDTrainerLib.predraw import Prediction
from LowDoseBMDTrainerLib.synthetic_scans import SyntheticScan

SPINE_MM = {name: (0.0, 0.0, -30.0 * n) for n, name in enumerate(("T10", "T11", "T12", "L1"))}


def points(**height_mm: float) -> tuple[Keypoint, ...]:
    return tuple(Keypoint(level, (0.0, 0.0, z), 0.97) for level, z in height_mm.items())


def a_scan(kinds: tuple[str, ...] = ()) -> SyntheticScan:
    """Bodies 30 mm apart, the last one that is whole is L1; L2 would lie at -120 mm."""
    grid = Geometry((4, 4, 4), np.eye(4))
    labels = Labels(grid, {}, tuple(Keypoint(name, place) for name, place in SPINE_MM.items()))
    return SyntheticScan("a 1", "a", CTVolume(np.zeros((4, 4, 4), np.int16), grid), SPINE_MM, labels, "usual", kinds)


@pytest.mark.parametrize(("found", "wrong"), [
    (points(T12=-62, L1=-88), ()),
    (points(T12=-62, L1=-88, L2=-112), ()),
    (points(T12=-31, L1=-61), ("T12", "L1")),
    (points(T12=-92, L1=-118), ("T12", "L1")),
    ((), ()),
])
def test_a_name_is_wrong_where_another_vertebra_lies(found: tuple[Keypoint, ...], wrong: tuple[str, ...]) -> None:
    """Also beyond the last whole body: what lies 28 mm below L1 is the cut L2, and not L1."""
    assert misnamed(found, SPINE_MM) == wrong


def test_a_scan_is_scored_as_a_case_of_measured_levels() -> None:
    flag = Flag(LEVEL_UNCERTAIN, Severity.LIMITED, "?")

    def shifted(ct: CTVolume, _progress: object) -> Prediction:
        return Prediction(Labels(ct.geometry, {}, points(T12=-30, L1=-60)), (flag,))

    (drawn,) = score_scan(a_scan(), shifted, Scope((), True), UNKNOWN)
    row = drawn.scores
    assert [point.level for point in row.keypoints] == ["T12", "L1"] and not any(p.identified for p in row.keypoints)
    assert (row.misnamed, row.asks, row.kinds, row.patient, row.synthetic) == (("T12", "L1"), True, (USUAL,), "a", True)


def row(name: str, kinds: tuple[str, ...], wrong: bool = False, asks: bool = False, confidence: float | None = 0.97,
        identified: bool = True) -> CaseScores:
    return CaseScores(name, name, PLAIN, NEW, True, keypoints=(KeypointScore("L1", 2.0, identified),), kinds=kinds,
                      asks=asks, confidence=confidence, misnamed=("L1",) if wrong else ())


ROWS = [row("1", (USUAL,)), row("2", ("13 pairs of ribs",), asks=True),
        row("3", ("13 pairs of ribs", "abdomen"), wrong=True),
        row("4", ("abdomen",), confidence=None, identified=False), row("5", ("abdomen",), wrong=True, asks=True),
        row("6", (USUAL,), identified=False)]


def test_scans_are_counted_under_each_of_their_kinds() -> None:
    counts = {one.kind: (one.scans, dict(zip(OUTCOMES, one.outcomes, strict=True))) for one in by_kind(ROWS)}
    assert counts[ALL] == (6, {"measured": 2, "asked, right": 1, "asked, wrong": 1, "sure and wrong": 1, "none named": 1})
    assert counts["abdomen"][0] == 3 and counts["abdomen"][1]["sure and wrong"] == 1
    assert counts[USUAL] == (2, {**dict.fromkeys(OUTCOMES, 0), "measured": 2})
    assert by_kind([row("1", ())]) == ()


def test_a_level_that_was_missed_is_no_wrong_name() -> None:
    """Of the three that are sure, one has another vertebra's name; one's level was not found, which misleads no reader."""
    found = group("x", ROWS).levels
    assert (found.confident, found.confident_wrong) == (3, 1)
    assert found.reliability[-1] == (0.95, 1.0, 5, 3)


def test_the_report_shows_kinds(tmp_path: Path) -> None:
    subject = Subject("the models a", None, None, Scope((), True), {"bones": "b"}, None, {}, UNKNOWN)
    record = write_evaluation(Evaluation(subject, tuple(ROWS), (), ()), tmp_path)
    assert record["by_kind"][0] == {"kind": ALL, "scans": 6, "outcomes": [2, 1, 1, 1, 1]}
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert "Levels by kind of anatomy" in page and "Of 6 scans that were drawn: measured 2" in page
    assert "13 pairs of ribs; abdomen" in (tmp_path / "cases.csv").read_text(encoding="utf-8")


def test_people_that_were_trained_on_must_be_there() -> None:
    assert known_people(["a", "b"], ["b"]) == {"b": TRAINED}
    with pytest.raises(ValueError, match="nobody is called c"):
        known_people(["a", "b"], ["c"])


@pytest.mark.parametrize(("extra", "message"), [
    ([], "either on a PROJECT or"), (["--synthetic", "people", "--fold", "1"], "cases of a project"),
    (["--synthetic", "people", "--count", "0"], "one scan at least"), (["--synthetic", "nowhere"], "no prepared people"),
])
def test_what_does_not_go_together_is_refused(extra: list[str], message: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "LowDoseBMD", *extra, "-o", "out"]) == 2
    assert message in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.slow
def test_the_command_draws_scores_and_reports(tmp_path: Path) -> None:
    """One scan of a phantom's person, through the product's own networks."""
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
    from LowDoseBMDLib.phantom.labels import names_by_label
    from LowDoseBMDTrainerLib.people import person_for, save_person

    phantom = make_phantom(PhantomSpec(seed=5, spacing_mm=(2.0, 2.0, 2.5), scan_top=("T8", 0.5), scan_bottom=("L4", 0.9)))
    save_person(tmp_path / "people" / "somebody.npz", person_for("bones", "somebody", phantom.labels, phantom.ct.geometry,
                                                                 names_by_label(), phantom.ct.hu))
    assert main(["evaluate", "LowDoseBMD", "--synthetic", str(tmp_path / "people"), "--count", "1", "--seed", "3",
                 "--trained-on", "somebody", "-o", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    (case,) = record["cases"]
    assert (case["case"], case["exposure"], case["synthetic"]) == ("somebody 3", TRAINED, True)
    assert record["by_kind"][0]["outcomes"][OUTCOMES.index("sure and wrong")] == 0
    bones = {score["structure"]: score["dice"] for score in case["structures"]}
    assert bones["vertebrae"] > 0.6 and bones["ribs"] > 0.5


def test_people_of_whom_no_scan_can_be_drawn_are_left_out(tmp_path: Path) -> None:
    from LowDoseBMDTrainerLib.evaluation_synthetic import drawn_scans
    from LowDoseBMDTrainerLib.people import Person, save_person

    shape = (20, 20, 20)
    zero, byte = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    save_person(tmp_path / "neck.npz", Person("neck", 2.0, zero, zero, zero.astype(np.float16), byte, zero, zero, {}))
    ((name, why),) = drawn_scans(tmp_path, 1, 5)
    assert name == "neck" and "no vertebral body is named" in why
