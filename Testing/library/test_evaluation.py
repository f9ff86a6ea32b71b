"""Evaluation: scores of a project's cases, with answers known by arithmetic; exposure, perturbations, summary, report."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.bundle import file_sha256
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.inference import silent
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, Status
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.evaluation import (
    PLAIN,
    CaseScores,
    Drawn,
    KeypointScore,
    Scope,
    StructureScore,
    evaluate_case,
    score_structures,
    scored_cases,
)
from LowDoseBMDTrainerLib.evaluation_perturb import CROPPED, PERTURBATIONS, SCALE, perturb
from LowDoseBMDTrainerLib.evaluation_pictures import PICTURES, Worst, worst_slice
from LowDoseBMDTrainerLib.evaluation_report import Evaluation, findings, write_evaluation
from LowDoseBMDTrainerLib.evaluation_subject import (
    HELD_OUT,
    NEW,
    SCOPES,
    TRAINED,
    UNKNOWN,
    Subject,
    exposures,
    in_fold,
    known_to_run,
    trained_here,
    with_people,
)
from LowDoseBMDTrainerLib.evaluation_summary import group, spread, summarise
from LowDoseBMDTrainerLib.predraw import Prediction
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from LowDoseBMDTrainerLib.scores import dice

SCOPE = Scope(("vertebrae", "ribs", "scapulae"), True)
SHAPE = (40, 48, 56)


def grid() -> Geometry:
    """2 x 2 x 3 mm, away from the origin."""
    matrix = np.diag([2.0, 2.0, 3.0, 1.0])
    matrix[:3, 3] = (-50, 30, 100)
    return Geometry(SHAPE, matrix)


def block(start: tuple[int, int, int], shape: tuple[int, int, int] = (10, 10, 10)) -> Mask:
    return Mask(np.ones(shape, bool), start)


def a_scan(offset: int = 0) -> tuple[CTVolume, Labels]:
    """Bone of 700 HU in soft tissue, off the middle; everything that is bright is the vertebra, its centre is L1."""
    hu = np.full(SHAPE, 20, np.int16)
    hu[:, :3] = -1000
    bone = block((5 + offset, 17, 14), (14, 20, 20))
    hu[bone.box] = 700
    centre = tuple(float(c) for c in bone.centroid_lps_mm(grid()))
    return CTVolume(hu, grid()), Labels(grid(), {"vertebrae": bone, "ribs": NO_VOXELS}, (Keypoint("L1", centre),))


@pytest.fixture
def a_project(tmp_path: Path) -> Project:
    """Three completed cases of two people and one that is not completed; the third is synthetic."""
    project = create_project(tmp_path / "project")
    for n, patient in enumerate(("a", "a", None, None)):
        ct, labels = a_scan(n)
        ct.hu[0, 0, n] = 100  # no two alike
        path = tmp_path / f"secret_name_{n}.nii.gz"
        sitk.WriteImage(ct.geometry.to_image(ct.hu), str(path))
        status = Status.COMPLETED if n < 3 else Status.IN_PROGRESS
        project.add(path, ct, arrival=Arrival(patient=patient, synthetic=n == 2, labels=labels, status=status))
    return project


def bright(ct: CTVolume) -> Labels:
    """What a perfect model would draw on such a scan."""
    mask = Mask.from_array(ct.hu > 350)
    return Labels(ct.geometry, {"vertebrae": mask}, (Keypoint("L1", tuple(mask.centroid_lps_mm(ct.geometry)), 0.97),))


def perfect(ct: CTVolume, _progress: object) -> Prediction:
    return Prediction(bright(ct))


# --- one case ----------------------------------------------------------------------------------------------

def test_a_moved_block_scores_what_arithmetic_says() -> None:
    found = Labels(grid(), {"vertebrae": block((12, 20, 16)), "scapulae": block((0, 0, 0))})
    truth = Labels(grid(), {"vertebrae": block((10, 20, 16)), "ribs": NO_VOXELS})
    (score,) = score_structures(found, truth, SCOPE.structures)
    assert (score.structure, score.dice) == ("vertebrae", pytest.approx(0.8))
    assert score.hd95_mm == pytest.approx(6.0) and score.truth_mm3 == score.found_mm3 == 12000


def test_what_is_not_there_must_not_be_found() -> None:
    truth = Labels(grid(), {"ribs": NO_VOXELS})
    (score,) = score_structures(Labels(grid(), {"ribs": block((0, 0, 0))}), truth, ("ribs",))
    assert score.dice == 0 and math.isinf(score.hd95_mm)
    assert score_structures(Labels(grid()), truth, ("ribs",)) == ()


def test_a_case_is_scored_on_what_it_annotates(a_project: Project) -> None:
    (drawn,) = evaluate_case(a_project.case("0001"), perfect, SCOPE, NEW)
    assert isinstance(drawn, Drawn)
    assert [score.structure for score in drawn.scores.structures] == ["vertebrae"]
    assert drawn.scores.structures[0].dice == 1.0
    assert drawn.scores.keypoints == (KeypointScore("L1", pytest.approx(0, abs=1e-6), True),)
    assert drawn.scores.confidence == pytest.approx(0.97)


def test_a_scan_that_is_refused_counts_as_missed(a_project: Project) -> None:
    def refuse(_ct: CTVolume, _progress: object) -> Prediction:
        raise Refusal("no_spine", "No spine.")

    (drawn,) = evaluate_case(a_project.case("0001"), refuse, SCOPE, NEW)
    assert drawn.scores.structures[0].dice == 0 and math.isinf(drawn.scores.keypoints[0].error_mm)
    assert "No spine." in drawn.scores.problem


def test_a_stage_that_fails_on_a_scan_does_not_end_the_evaluation(a_project: Project) -> None:
    def fail(_ct: CTVolume, _progress: object) -> Prediction:
        raise RuntimeError("singular")

    (drawn,) = evaluate_case(a_project.case("0001"), fail, SCOPE, NEW)
    assert drawn.scores.structures[0].dice == 0 and "singular" in drawn.scores.problem

    def exhaust(_ct: CTVolume, _progress: object) -> Prediction:
        raise RuntimeError("bad_alloc")

    with pytest.raises(MemoryError):
        list(evaluate_case(a_project.case("0001"), exhaust, SCOPE, NEW))


def test_a_case_whose_ct_is_gone_says_so(a_project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret_name_0.nii.gz").unlink()
    (row,) = evaluate_case(a_project.case("0001"), perfect, SCOPE, NEW)
    assert isinstance(row, CaseScores) and "no CT" in row.problem and not row.structures


def test_a_case_without_anything_to_score_says_so(a_project: Project) -> None:
    (row,) = evaluate_case(a_project.case("0001"), perfect, Scope(("clavicles",), False), NEW)
    assert "annotates nothing" in row.problem


def test_completed_cases_are_scored_unless_others_are_named(a_project: Project) -> None:
    chosen, others = scored_cases(a_project.cases())
    assert [case.name for case in chosen] == ["0001", "0002", "0003"]
    assert others == [("0004", "it is in progress, not completed")]
    assert [case.name for case in scored_cases(a_project.cases(), ["0004"])[0]] == ["0004"]
    with pytest.raises(ValueError, match="no case 0009"):
        scored_cases(a_project.cases(), ["0009"])


def test_trabecular_bone_is_compared_where_bodies_are_drawn(a_project: Project) -> None:
    shape = (10, 18, 18)
    truth = Labels(grid(), {"body_L1": block((10, 15, 16), shape)})
    ct = CTVolume(np.full(SHAPE, 20, np.int16), grid())
    ct.hu[:, :3] = -1000  # a slice of one value is no slice of a scan
    ct.hu[truth.masks["body_L1"].box] = 150
    ct.hu[10:20, 15:33, 30:34] = 250  # within the other body's core only
    from LowDoseBMDTrainerLib.evaluation import score_trabecular

    same, = score_trabecular(ct, truth, truth)
    assert (same.core_recall, same.found_hu) == (1.0, same.truth_hu)
    moved, = score_trabecular(ct, Labels(grid(), {"body_L1": block((10, 15, 20), shape)}), truth)
    assert moved.found_hu > moved.truth_hu + 5
    none, = score_trabecular(ct, Labels(grid()), truth)
    assert none.core_recall == 0 and math.isnan(none.found_hu)


# --- perturbations -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PERTURBATIONS)
def test_truth_follows_the_scan(name: str) -> None:
    """After every perturbation the bright voxels are still the truth and the point their centre, to about half a voxel."""
    ct, truth = a_scan()
    changed, labels = perturb(name, ct, truth, "0001")
    assert changed.hu.shape == changed.geometry.shape_kji and changed.hu.dtype == np.int16
    mask = Mask.from_array(changed.hu > 350)
    assert dice(mask.full(changed.geometry), labels.masks["vertebrae"].full(changed.geometry)) > 0.93
    (point,) = labels.keypoints
    assert np.linalg.norm(np.subtract(point.position_lps_mm, mask.centroid_lps_mm(changed.geometry))) < 1.3
    assert not np.array_equal(changed.hu, ct.hu) or changed.geometry is not ct.geometry


def test_perturbations_do_what_they_say() -> None:
    ct, truth = a_scan()
    flipped, labels = perturb("flip", ct, truth, "0001")
    np.testing.assert_array_equal(flipped.hu, ct.hu[:, :, ::-1])
    assert labels.masks["vertebrae"].start_kji == (5, 17, 56 - 14 - 20)
    assert perturb("scale", ct, truth, "")[1].masks["vertebrae"].voxels.sum() == pytest.approx(5600 * SCALE**3, rel=0.1)
    assert perturb("crop", ct, truth, "")[0].hu.shape[0] == round(40 * (1 - CROPPED))
    assert perturb("thick", ct, truth, "")[0].geometry.spacing_kji_mm == pytest.approx((5, 2, 2))
    denser = perturb("dense", ct, truth, "")[0].hu
    assert denser.max() - 120 == 2 * (ct.hu.max() - 120) and np.array_equal(denser[ct.hu < 120], ct.hu[ct.hu < 120])
    noisy = perturb("noise", ct, truth, "0001")[0].hu
    assert np.std(noisy[30:, 5:] - 20.0) == pytest.approx(40, rel=0.05)
    np.testing.assert_array_equal(noisy, perturb("noise", ct, truth, "0001")[0].hu)
    with pytest.raises(ValueError, match="noise, flip"):
        perturb("earthquake", ct, truth, "")


def test_a_body_near_the_cut_is_no_truth_any_more() -> None:
    ct, truth = a_scan(offset=12)  # its centre lies in slice 24 of the 26 that are left
    assert perturb("crop", ct, truth, "")[1].keypoints == ()


def test_a_case_is_scored_once_more_for_each_perturbation(a_project: Project) -> None:
    results = list(evaluate_case(a_project.case("0001"), perfect, SCOPE, NEW, ("noise", "flip")))
    assert [drawn.scores.perturbation for drawn in results] == [PLAIN, "noise", "flip"]
    assert all(drawn.scores.structures[0].dice == 1 for drawn in results)


# --- what the models know ----------------------------------------------------------------------------------

def write_log(run: Path, training: list[str], validation: list[str]) -> Path:
    run.mkdir(parents=True)
    start = {"event": "start", "task": "bones", "steps": 9, "start_step": 0, "device": "cpu",
             "cases": {"training": training, "validation": validation}}
    (run / "log.jsonl").write_text(json.dumps(start) + "\n")
    return run


def test_the_log_of_a_run_says_what_was_trained_on(tmp_path: Path) -> None:
    run = write_log(tmp_path / "run", ["0001", "0003 (synthesis)"], ["0002"])
    assert exposures(run) == {"0001": TRAINED, "0002": HELD_OUT, "0003": TRAINED}


def test_what_the_first_weights_had_seen_counts_too(a_project: Project) -> None:
    first = write_log(a_project.runs_folder / "first", ["0001"], ["0002"])
    (first / "best.pt").write_bytes(b"weights")
    second = write_log(a_project.runs_folder / "second", ["0002"], ["0001"])
    start = f"first ({file_sha256(first / 'best.pt')[:12]})"
    (second / "recipe.json").write_text(json.dumps({"recipe": {"task": "bones", "start": start}}))
    assert known_to_run(first, a_project) == ({"0001": TRAINED, "0002": HELD_OUT}, NEW)
    assert known_to_run(second, a_project) == ({"0001": TRAINED, "0002": TRAINED}, NEW)
    (second / "recipe.json").write_text(json.dumps({"recipe": {"task": "bones", "start": "bones 0.1 (89a381ecbcae)"}}))
    assert known_to_run(second, a_project) == ({"0001": HELD_OUT, "0002": TRAINED}, UNKNOWN), "weights from elsewhere"


def test_another_case_of_a_person_who_was_trained_on_is_no_new_case(a_project: Project) -> None:
    assert with_people({"0001": TRAINED, "0003": HELD_OUT}, a_project.cases()) == {
        "0001": TRAINED, "0002": TRAINED, "0003": HELD_OUT}


def test_a_run_elsewhere_is_known_by_its_cases(a_project: Project, tmp_path: Path) -> None:
    from LowDoseBMDTrainerLib.synthesis import TASKS
    from LowDoseBMDTrainerLib.training_cases import case_digest

    run = write_log(tmp_path / "elsewhere", ["0001"], [])
    assert not trained_here(run, a_project), "another project has a case 0001 too"
    digest = case_digest(a_project.case("0001"), TASKS["bones"])
    record = {"recipe": {"task": "bones"}, "data": {"training": {"0001": digest}, "validation": {}}}
    (run / "recipe.json").write_text(json.dumps(record))
    assert trained_here(run, a_project)
    assert trained_here(write_log(a_project.runs_folder / "inside", ["0001"], []), a_project)


def test_folds_divide_people(a_project: Project) -> None:
    cases = a_project.cases()
    folds = [{case.name for case in in_fold(cases, 3, fold)} for fold in range(3)]
    assert sum(len(fold) for fold in folds) == len(set.union(*folds)) == 4
    assert any({"0001", "0002"} <= fold for fold in folds), "both cases of one person"
    with pytest.raises(ValueError, match="fold 3"):
        in_fold(cases, 3, 3)


# --- summary and report ------------------------------------------------------------------------------------

def row(name: str, value: float, exposure: str = NEW, patient: str = "", confidence: float = 0.99,
        right: bool = True) -> CaseScores:
    structure = StructureScore("ribs", value, value, 10 * (1 - value), 1.0, 1.0, 1.0)
    return CaseScores(name, patient or name, PLAIN, exposure, False, (structure,), (KeypointScore("L1", 3.0, right),),
                      confidence=confidence)


def test_median_worst_and_exact_interval() -> None:
    """Of ten ordered values the exact 95 % interval of the median runs from the second to the ninth (sign test)."""
    found = spread([n / 10 for n in range(1, 11)], min, True)
    assert (found.median, found.worst, found.low, found.high) == pytest.approx((0.55, 0.1, 0.2, 0.9))
    assert spread([1.0, 2.0, 3.0], max, True).low is None, "five or fewer allow none"
    assert spread([n / 10 for n in range(1, 11)], min, False).low is None, "several of one person allow none"
    assert spread([1.0, math.inf, math.inf], max, True).median == math.inf


def test_groups_by_exposure_and_reliability() -> None:
    rows = [row("1", 0.9), row("2", 0.5, right=False), row("3", 0.7, TRAINED, confidence=0.6)]
    groups, perturbed = summarise(rows)
    assert [one.name for one in groups] == [NEW, TRAINED] and perturbed == ()
    new = groups[0]
    assert (new.cases, new.structures[0].dice.median, new.structures[0].dice.worst) == (2, pytest.approx(0.7), 0.5)
    assert (new.levels.identified, new.levels.vertebrae, new.levels.confident, new.levels.confident_wrong) == (1, 2, 2, 1)
    assert new.levels.all_right.exact.low == pytest.approx(0.0126, abs=1e-3)
    assert groups[1].levels.reliability[1] == (0.5, 0.8, 1, 1)
    assert group("x", [row("1", 0.9, patient="p"), row("2", 0.8, patient="p")]).patients == 1


def drawn(name: str, shift: int, exposure: str = NEW) -> Drawn:
    ct, truth = a_scan()
    found = Labels(grid(), {"vertebrae": block((5 + shift, 17, 14), (14, 20, 20))},
                   (Keypoint("L1", tuple(np.add(truth.keypoints[0].position_lps_mm, (0, 0, 3.0 * shift)))),))
    scores = CaseScores(name, name, PLAIN, exposure, False, score_structures(found, truth, SCOPE.structures))
    return Drawn(scores, ct, truth, found)


def test_the_worst_five_are_kept_worst_first() -> None:
    worst = Worst()
    for name, shift in (("1", 1), ("2", 0), ("3", 6), ("4", 3), ("5", 2), ("6", 5), ("7", 4)):
        worst.add(drawn(name, shift))
    assert [picture.case for picture in worst.kept] == ["3", "6", "7", "4", "5"] and len(worst.kept) == PICTURES
    assert all(picture.png.startswith(b"\x89PNG") for picture in worst.kept)
    assert "Dice 0.57" in worst.kept[0].caption  # 8 of 14 slices are common


def test_the_slice_that_differs_most_is_shown() -> None:
    truth, found = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    truth[5:15, 10:20, 10:20], found[5:15, 10:20, 10:20] = True, True
    found[9, 10:20, 10:18] = False
    assert worst_slice(Mask.from_array(truth), Mask.from_array(found)) == 9
    assert worst_slice(Mask.from_array(truth), NO_VOXELS) in range(5, 15)


def an_evaluation(exposure: str) -> Evaluation:
    results = [drawn("0001", 2, exposure), drawn("0002", 0, exposure)]
    missed = replace(drawn("0003", 0, exposure).scores,
                     structures=(StructureScore("vertebrae", 0.0, 0.0, math.inf, math.inf, 1000.0, 0.0),))
    worst = Worst()
    for result in results:
        worst.add(result)
    subject = Subject("the run <first> (bones)", "bones", None, SCOPES["bones"], {"bones": "bones of a run (0123456789ab)"},
                      "ff", {}, exposure)
    return Evaluation(subject, (*(result.scores for result in results), missed), (("0009", "it is not completed"),),
                      tuple(worst.kept))


def test_the_report_is_written_and_says_what_was_trained_on(tmp_path: Path) -> None:
    write_evaluation(an_evaluation(TRAINED), tmp_path)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["by_exposure"][0]["structures"][0]["dice"]["median"] == pytest.approx(12 / 14)
    assert record["cases"][2]["structures"][0]["hd95_mm"] is None and record["checkpoint_sha256"] == "ff"
    page = (tmp_path / "evaluation.html").read_text()
    assert "All cases were trained on" in page and "0009" in page and "not found" in page
    assert "&lt;first&gt;" in page and "<first>" not in page
    assert page.count("data:image/png") == 1
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["case"], r["name"], r["dice"]) for r in rows] == [
        ("0001", "vertebrae", "0.8571"), ("0002", "vertebrae", "1.0"), ("0003", "vertebrae", "0.0")]
    assert rows[2]["hd95_mm"] == "inf" and rows[0]["exposure"] == "trained on"
    assert [path.name for path in tmp_path.glob("worst_*.png")] == ["worst_1_0001_vertebrae.png"]


@pytest.mark.parametrize(("exposure", "sentence"), [(UNKNOWN, "It is not known"), (NEW, "Cases that were not trained on")])
def test_findings_begin_with_what_the_scores_are_worth(exposure: str, sentence: str) -> None:
    found = an_evaluation(exposure)
    assert next(findings(found, *summarise(found.rows))).startswith(sentence)


def test_a_confident_wrong_level_under_a_perturbation_is_a_finding() -> None:
    found = an_evaluation(NEW)
    wrong = replace(row("0001", 0.9, right=False), perturbation="scale")
    rows = (row("0001", 0.9), wrong, replace(row("0001", 0.9), perturbation="noise"))
    said = list(findings(replace(found, rows=rows), *summarise(rows)))
    assert "without asking: 0.85 of the size." in said[-1]
    asked = (row("0001", 0.9), replace(wrong, asks=True))
    assert not any("wrong level" in sentence for sentence in findings(replace(found, rows=asked), *summarise(asked)))
    assert not any("wrong level" in sentence for sentence in findings(replace(found, rows=rows[::2]), *summarise(rows[::2])))


# --- the command -------------------------------------------------------------------------------------------

def test_wrong_arguments_are_said(a_project: Project, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "out")
    assert main(["evaluate", "nowhere", str(a_project.folder), "-o", out]) == 2
    assert "no models at nowhere" in capsys.readouterr().err
    assert main(["evaluate", "LowDoseBMD", str(tmp_path), "-o", out]) == 2
    assert "no project" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "LowDoseBMD", str(a_project.folder), "-o", out, "--perturb", "noise,mist"])
    assert "mist" in capsys.readouterr().err and not Path(out).exists()


@pytest.mark.slow
def test_the_products_own_models_on_a_phantom(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
    from LowDoseBMDLib.phantom.labels import LABEL

    phantom = make_phantom(PhantomSpec(seed=11, spacing_mm=(2.5, 2.5, 3.0)))
    sitk.WriteImage(phantom.ct.geometry.to_image(phantom.ct.hu), str(tmp_path / "ct.nii.gz"))
    vertebrae = [value for name, value in LABEL.items() if name.startswith("vertebra_")]
    spine = Mask.from_array(np.isin(phantom.labels, vertebrae))
    points = tuple(Keypoint(name, tuple(map(float, phantom.truth.centres_lps_mm[name]))) for name in ("T12", "L1", "L2"))
    project = create_project(tmp_path / "project")
    project.add(tmp_path / "ct.nii.gz", phantom.ct, arrival=Arrival(
        synthetic=True, labels=Labels(phantom.ct.geometry, {"vertebrae": spine}, points), status=Status.COMPLETED))
    out = str(tmp_path / "out")
    assert main(["evaluate", "LowDoseBMD", str(project.folder), "-o", out, "--device", "cpu", "--json"]) == 0
    *lines, summary = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert {"progress", "fraction"} <= lines[0].keys() and lines[-1]["case"] == "0001"
    one = summary["by_exposure"][0]
    assert one["name"] == UNKNOWN and one["structures"][0]["dice"]["median"] > 0.8
    assert one["levels"]["identified"] == 3
    assert all(point["error_mm"]["worst"] < 3 for point in one["keypoints"])


def test_progress_can_stop_an_evaluation(a_project: Project) -> None:
    from LowDoseBMDLib.inference import Cancelled

    def stop(_stage: str, _part: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        list(evaluate_case(a_project.case("0001"), perfect, SCOPE, NEW, (), stop))
    assert len(list(evaluate_case(a_project.case("0001"), perfect, SCOPE, NEW, (), silent))) == 1
