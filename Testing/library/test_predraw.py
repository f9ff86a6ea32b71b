"""The models' help for annotators: pre-drawing, what it saves, how uncertain the models are, and which case comes next.

The product's own networks run on a phantom of the loins at 3 mm.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.inference import Cancelled
from LowDoseBMDLib.phantom import LABEL, Phantom, PhantomSpec, make_phantom
from LowDoseBMDLib.pipeline import Models, open_models
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDTrainerLib.cases import (
    Case,
    CaseTaken,
    Effort,
    Labels,
    Status,
    open_for_writing,
    read_history,
    read_labels,
    read_proposal,
)
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.effort import complete, costs, effort_between, sentence, trend
from LowDoseBMDTrainerLib.predraw import Wanted, predraw, read_result, store
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from LowDoseBMDTrainerLib.scores import cut_to_both, dice
from LowDoseBMDTrainerLib.uncertainty import (
    Look,
    Uncertainty,
    _peak,
    bone_difference,
    look_at,
    measure_uncertainty,
    put_back,
)
from LowDoseBMDTrainerLib.worklist import IN_ORDER, UNCERTAIN, degree, next_case, waiting

LOINS = PhantomSpec(seed=4, spacing_mm=(3.0, 3.0, 3.0), scan_top=("T10", 0.0), scan_bottom=("L4", 0.5), couch=False)


@pytest.fixture(scope="module")
def loins() -> Phantom:
    return make_phantom(LOINS)


@pytest.fixture(scope="module")
def models() -> Models:
    return open_models(engine="onnx")


@pytest.fixture(scope="module")
def proposal(loins: Phantom, models: Models) -> Labels:
    return predraw(loins.ct, models, Wanted(bodies=True)).labels


def box(start: tuple[int, int, int], shape: tuple[int, int, int]) -> Mask:
    return Mask(np.ones(shape, bool), start)


# --- pre-drawing -------------------------------------------------------------------------------------------

def test_bones_and_keypoints_are_drawn(loins: Phantom, proposal: Labels) -> None:
    truth = np.isin(loins.labels, [label for name, label in LABEL.items() if name.startswith("vertebra_")])
    assert dice(*cut_to_both(Mask.from_array(truth), proposal.masks["vertebrae"])) > 0.8
    assert {"vertebrae", "ribs", "body_L1"} <= set(proposal.masks)
    assert [point.level for point in proposal.keypoints] == ["T12", "L1", "L2"]
    for point in proposal.keypoints:
        assert np.linalg.norm(np.array(loins.truth.centres_lps_mm[point.level]) - point.position_lps_mm) < 5.0


def test_a_scan_without_spine_gets_its_bones_only(models: Models) -> None:
    rng = np.random.default_rng(0)
    air = CTVolume(rng.normal(-1000, 10, (24, 24, 24)).astype(np.float32), Geometry((24, 24, 24), np.diag([3.0, 3, 3, 1])))
    labels = predraw(air, models).labels
    assert labels.keypoints == () and labels.geometry is air.geometry


def test_pre_drawing_can_be_stopped(loins: Phantom, models: Models) -> None:
    def progress(stage: str, _fraction: float) -> None:
        if stage == "drawing the vertebral bodies":
            raise Cancelled

    with pytest.raises(Cancelled):
        predraw(loins.ct, models, progress=progress)


@pytest.fixture
def a_project(loins: Phantom, tmp_path: Path) -> Project:
    """0001: nothing drawn; 0002: AB has begun; 0003: completed."""
    project = create_project(tmp_path / "project")
    ribs = Labels(loins.ct.geometry, {"ribs": box((2, 2, 2), (3, 3, 3))})
    for number, (labels, status) in enumerate([(None, Status.NOT_STARTED), (ribs, Status.IN_PROGRESS),
                                               (ribs, Status.COMPLETED)]):
        path = tmp_path / f"ct{number}.nii.gz"
        sitk.WriteImage(loins.ct.geometry.to_image(loins.ct.hu + np.int16(number)), str(path))
        project.add(path, arrival=Arrival(labels=labels, status=status, annotator="AB" if labels else ""))
    return project


def test_what_a_person_drew_stays(a_project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predraw", str(a_project.folder), "--json", "--engine", "onnx"]) == 0
    events = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    told = [event["fraction"] for event in events if event["event"] == "progress"]
    assert told == sorted(told) and 0.8 < told[-1] <= 1.0
    assert [event["case"] for event in events if event["event"] == "case"] == ["0001"]
    assert events[-1] == {"event": "done", "failed": 0}
    first, begun, completed = a_project.cases()
    assert (first.status, first.annotator) == (Status.NOT_STARTED, "")
    assert same(read_labels(first), read_proposal(first)) and "vertebrae" in read_labels(first).masks
    assert [entry["what"] for entry in read_history(first)] == ["added", "proposal saved", "labels begun"]
    for case in (begun, completed):
        assert read_proposal(case) is None and set(read_labels(case).masks) == {"ribs"}


def same(a: Labels, b: Labels) -> bool:
    return a.keypoints == b.keypoints and a.masks.keys() == b.masks.keys() and all(
        np.array_equal(a.masks[name].voxels, b.masks[name].voxels) for name in a.masks)


def test_again_draws_over_work_but_never_over_a_completed_case(a_project: Project, proposal: Labels,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predraw", str(a_project.folder), "0002", "0003"]) == 0
    said = capsys.readouterr().out
    assert "0002: skipped: it has labels already" in said and "0003: skipped: it is completed" in said
    _, begun, completed = a_project.cases()
    assert (store(begun, proposal), store(completed, proposal, again=True)) == (False, False)
    assert set(read_labels(begun).masks) == set(read_labels(completed).masks) == {"ribs"}
    assert store(begun, proposal, again=True)
    assert same(read_labels(begun), read_proposal(begun)) and "vertebrae" in read_labels(begun).masks
    begun = a_project.case("0002")
    assert (begun.status, begun.annotator) == (Status.IN_PROGRESS, "AB")


def test_a_case_that_is_open_elsewhere_is_not_touched(a_project: Project, proposal: Labels, tmp_path: Path) -> None:
    """The window, which has the case open, asks for files instead."""
    case = a_project.case("0001")
    with open_for_writing(case, "CD"):
        with pytest.raises(CaseTaken, match="CD on host"):
            store(case, proposal)
        assert main(["predraw", str(a_project.folder), "0001", "--to", str(tmp_path / "to")]) == 0
    assert read_proposal(case) is None and not read_labels(case).masks
    assert "vertebrae" in read_result(tmp_path / "to", case.geometry).masks


def test_a_file_stops_it(a_project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stop").touch()
    assert main(["predraw", str(a_project.folder), "--json", "--stop", str(tmp_path / "stop")]) == 3
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == {"event": "cancelled"}
    assert read_proposal(a_project.case("0001")) is None


def test_what_cannot_be_is_an_event_and_a_sentence(a_project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predraw", str(a_project.folder), "--models", "nowhere", "--json"]) == 2
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["event"] == "failed" and "no models at nowhere" in last["message"]
    Path(a_project.case("0001").image).unlink()
    assert main(["predraw", str(a_project.folder)]) == 1
    assert "0001: failed: 0001: there is no CT at" in capfd.readouterr().out


# --- effort ------------------------------------------------------------------------------------------------

def test_effort_counts_voxels_and_overlap() -> None:
    """60 voxels of rib, of which 12 are taken away and 24 added; 8 voxels of vertebra become rib."""
    grid = Geometry((20, 20, 20), np.eye(4))
    before = Labels(grid, {"ribs": box((0, 0, 0), (3, 4, 5)), "vertebrae": box((10, 10, 10), (2, 2, 2))})
    after_ribs = np.zeros(grid.shape_kji, bool)
    after_ribs[0:3, 0:4, 1:7] = True
    after_ribs[10:12, 10:12, 10:12] = True
    after = Labels(grid, {"ribs": Mask.from_array(after_ribs), "vertebrae": NO_VOXELS})
    effort = effort_between(before, after, 90.0)
    assert effort.changed_voxels == 12 + 24 + 8
    assert effort.dice == pytest.approx(2 * 48 / (60 + 8 + 72 + 8))
    assert effort_between(None, after, 90.0) == Effort(90.0)
    assert effort_between(before, before, 1.0) == Effort(1.0, 0, 1.0)
    with pytest.raises(ValueError, match="the CT that the proposal was made for"):
        effort_between(before, replace(after, geometry=replace(grid, shape_kji=(20, 20, 21))), 0.0)


def test_completing_a_case_records_what_it_cost(a_project: Project) -> None:
    case = a_project.case("0001")
    drawn = Labels(case.geometry, {"ribs": box((2, 2, 2), (4, 5, 6))})
    with open_for_writing(case, "AB") as writing:
        writing.save_proposal(drawn)
        writing.record(effort=Effort(60.0))
        complete(writing, Labels(case.geometry, {"ribs": box((2, 2, 2), (4, 5, 5))}), 30.0)
    case = a_project.case("0001")
    assert case.status is Status.COMPLETED
    assert case.effort == Effort(90.0, 20, pytest.approx(200 / 220))
    cost, = costs(a_project.cases())
    assert (cost.case, cost.annotator) == ("0001", "AB"), "0003 came completed and has cost nothing"


def test_effort_command_shows_that_cases_get_cheaper(loins: Phantom, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    project = create_project(tmp_path / "project")
    assert main(["effort", str(project.folder)]) == 0
    assert "No completed case has a time yet" in capsys.readouterr().out
    labels = Labels(loins.ct.geometry, {"ribs": box((2, 2, 2), (4, 5, 6))})
    for number, minutes in enumerate((12, 10, 9, 7, 6, 5)):
        path = tmp_path / f"ct{number}.nii.gz"
        sitk.WriteImage(loins.ct.geometry.to_image(loins.ct.hu + np.int16(number)), str(path))
        with open_for_writing(project.add(path), "AB") as writing:
            writing.save_proposal(labels)
            complete(writing, labels, 60.0 * minutes)
    assert trend(costs(project.cases())) == (660.0, 330.0)
    assert main(["effort", str(project.folder), "-o", str(tmp_path / "out")]) == 0
    assert "first third took 11.0, the last 5.5 (-50 %)" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "effort.csv").open(encoding="utf-8")))
    assert [float(row["seconds"]) / 60 for row in rows] == [12, 10, 9, 7, 6, 5]
    assert {(row["changed_voxels"], row["dice_with_proposal"]) for row in rows} == {("0", "1.0")}
    assert (tmp_path / "out" / "effort.png").read_bytes().startswith(b"\x89PNG")


def test_few_cases_show_no_trend() -> None:
    assert trend(()) is None and "No completed case" in sentence(())


# --- uncertainty -------------------------------------------------------------------------------------------

LOOK = Look(mirrored=True, before_kji=(3, 0, 5))


def test_an_answer_about_a_changed_ct_is_put_back_onto_it() -> None:
    rng = np.random.default_rng(1)
    ct = CTVolume(rng.normal(0, 100, (6, 7, 8)).astype(np.float32), Geometry((6, 7, 8), np.diag([3.0, 3, 3, 1])))
    seen = look_at(ct, LOOK)
    assert seen.hu.shape == (9, 7, 13)
    assert np.array_equal(put_back(seen.hu[None], LOOK)[0], ct.hu)
    brighter = look_at(ct, replace(LOOK, brighter_hu=15.0))
    assert np.allclose(put_back(brighter.hu, LOOK) - ct.hu, 15.0, atol=1e-3)


def test_a_keypoint_seen_in_a_changed_ct_is_where_it_is() -> None:
    """A heatmap on a grid of 5 mm over the changed CT, with its centre where the point is in a mirrored person."""
    grid = Geometry((40, 30, 36), np.diag([3.0, 3, 3, 1]))
    seen = look_at(CTVolume(np.zeros(grid.shape_kji, np.float32), grid), LOOK)
    coarse = seen.geometry.with_spacing(5.0)
    there = grid.to_lps(np.array([20.0, 11.0, 9.0]))
    in_mirror = grid.to_lps(np.array([20.0, 11.0, 35.0 - 9.0]))
    points = coarse.to_lps(np.indices(coarse.shape_kji).transpose(1, 2, 3, 0))
    heat = np.exp(-0.5 * (np.linalg.norm(points - in_mirror, axis=-1) / 6.0) ** 2)
    place, height = _peak(heat, coarse, grid, LOOK)
    assert np.linalg.norm(place - there) < 1.0
    assert height == pytest.approx(1.0, abs=0.2)


def test_difference_of_probabilities() -> None:
    bone = np.zeros((2, 4, 4, 4), np.float32)
    bone[0, :2] = 1.0
    assert bone_difference(bone, bone) == 0.0
    assert bone_difference(bone, bone[::-1]) == 1.0
    assert bone_difference(bone, 0.5 * bone) == pytest.approx(1 / 3)
    assert bone_difference(0 * bone, 0 * bone) == 1.0, "where nothing is found, nothing is known"


def test_the_larger_of_bones_and_keypoints_counts() -> None:
    assert Uncertainty(0.1, {}).value == pytest.approx(0.1)
    assert Uncertainty(0.1, {"T12": 3.0, "L1": 12.0}).value == pytest.approx(0.4)
    assert Uncertainty(0.1, {"L1": 90.0}).value == 1.0


def test_a_noisy_scan_is_more_uncertain_and_the_same_seed_says_the_same(loins: Phantom, models: Models) -> None:
    rng = np.random.default_rng(2)
    noisy = replace(loins.ct, hu=(loins.ct.hu + rng.normal(0, 400, loins.ct.hu.shape)).astype(np.float32))
    plain, again, worse = (measure_uncertainty(ct, models, seed=3, looks=1) for ct in (loins.ct, loins.ct, noisy))
    assert plain == again
    assert worse.bones > plain.bones > 0
    with pytest.raises(ValueError, match="at least one"):
        measure_uncertainty(loins.ct, models, looks=0)


def test_rank_command_records_and_orders(a_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(a_project.folder), "0001", "0003"]) == 0
    said = capsys.readouterr().out
    first, begun, completed = a_project.cases()
    assert 0 < first.uncertainty < 1 and f"uncertainty {first.uncertainty:.2f}" in said
    assert begun.uncertainty is None and completed.uncertainty is None
    assert first.status is Status.NOT_STARTED
    assert [text.split()[0] for text in said.partition("first:")[2].splitlines() if text] == ["0002", "0001"]


# --- which case next ---------------------------------------------------------------------------------------

def a_case(name: str, uncertainty: float | None = None, **more: object) -> Case:
    return Case(Path(name), name, uncertainty=uncertainty, **more)


CASES = (a_case("1", 0.2), a_case("2", 0.7), a_case("3"), a_case("4", 0.9, status=Status.COMPLETED),
         a_case("5", 0.8, status=Status.FLAGGED), a_case("6", 0.99, problem="its CT is gone"))


def test_the_most_uncertain_is_next_or_the_first() -> None:
    assert [case.name for case in waiting(CASES, UNCERTAIN)] == ["2", "1", "3"]
    assert [case.name for case in waiting(CASES, IN_ORDER)] == ["1", "2", "3"]
    assert next_case(CASES, UNCERTAIN).name == "2"
    assert next_case(CASES, IN_ORDER, after="1").name == "2"
    assert next_case(CASES[3:]) is None
    with pytest.raises(ValueError, match="use one of"):
        waiting(CASES, "by colour")


def test_what_one_has_begun_comes_first_and_what_another_has_last() -> None:
    begun = a_case("9", 0.1, status=Status.IN_PROGRESS, annotator="AB")
    imported = a_case("8", 0.6, status=Status.IN_PROGRESS, annotator="import")
    cases = (*CASES, begun, imported)
    assert [case.name for case in waiting(cases, annotator="AB")] == ["9", "2", "8", "1", "3"]
    assert [case.name for case in waiting(cases, annotator="CD")] == ["2", "8", "1", "3", "9"]
    assert next_case(cases).name == "9"


def test_cases_can_be_passed_over_one_by_one() -> None:
    """Two that were begun must not send a person to and fro between them."""
    cases = (*CASES, *(a_case(name, status=Status.IN_PROGRESS, annotator="AB") for name in ("8", "9")))
    seen, after = [], ""
    for _ in range(6):
        after = next_case(cases, IN_ORDER, after, "AB").name
        seen.append(after)
    assert seen == ["8", "9", "1", "2", "3", "8"]
    assert next_case(CASES[:1], after="1") is None, "the only one that is left is open"


def test_uncertainty_in_a_word() -> None:
    assert [degree(value) for value in (None, 0.1, 0.3, 0.5)] == ["-", "low", "middle", "high"]


def test_keypoints_of_proposals_keep_their_confidence(proposal: Labels) -> None:
    assert all(isinstance(point, Keypoint) and 0 < point.confidence <= 1 for point in proposal.keypoints)
