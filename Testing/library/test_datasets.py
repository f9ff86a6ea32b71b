"""Annotated cases teach what was drawn and nothing else; patients stay together; samples depend on their number only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDTrainerLib.cases import Labels, Status
from LowDoseBMDTrainerLib.datasets import CaseSource, Samples, held_out, load_data
from LowDoseBMDTrainerLib.people import PARTS
from LowDoseBMDTrainerLib.project import Anatomy, Arrival, Project, create_project
from LowDoseBMDTrainerLib.synthesis import KEYPOINT_LEVELS, Task
from LowDoseBMDTrainerLib.training_cases import (
    PreparedCase,
    anchors,
    cut,
    draw_from_case,
    level_maps,
    prepare_case,
    prepared_case,
)
from LowDoseBMDTrainerLib.training_losses import BODY_OR_POSTERIOR, make_loss, merge_unknown
from LowDoseBMDTrainerLib.training_recipe import Recipe
from LowDoseBMDTrainerLib.training_validation import Held, validate
from tiny_training import a_case, a_recipe

CLASSES = 6
GRID = Geometry((40, 36, 36), np.diag([1.5, 1.5, 1.5, 1.0]))


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> Mask:
    return Mask(np.ones(np.subtract(high, low), bool), low)


@pytest.fixture
def a_project(tmp_path: Path) -> Project:
    """Two CTs of one patient and one of another. Only vertebrae are drawn in the first, all classes in the others."""
    import SimpleITK as sitk

    project = create_project(tmp_path / "project")
    spine, others = box((4, 12, 12), (36, 24, 24)), box((10, 2, 2), (16, 8, 34))
    every = {"vertebrae": spine, "clavicles": others, "scapulae": box((0, 0, 0), (2, 2, 2)),
             "ribs": box((20, 2, 2), (26, 8, 34)), "other_bones": box((30, 2, 2), (36, 8, 34))}
    drawn = ({"vertebrae": spine, "body_L1": box((10, 12, 12), (20, 18, 24))}, every, every)
    for n, (patient, masks) in enumerate(zip("AAB", drawn, strict=True)):
        hu = np.random.default_rng(n).normal(-200, 30, GRID.shape_kji).astype(np.int16)
        for mask in masks.values():
            hu[mask.box] = 400
        path = tmp_path / f"{n}.nii.gz"
        sitk.WriteImage(GRID.to_image(hu), str(path))
        labels = Labels(GRID, masks, (Keypoint("L1", tuple(GRID.to_lps(np.array([15.0, 15.0, 18.0])))),))
        project.add(path, arrival=Arrival(patient=patient, labels=labels, status=Status.COMPLETED, annotator="AB"))
    return project


# --- nothing false is taught --------------------------------------------------------------------------------

def loss_and_gradient(logits: torch.Tensor, target: torch.Tensor, known: list[bool]) -> tuple[float, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    loss = make_loss("bones", CLASSES, "cpu")(logits, target, torch.tensor([known]))
    loss.backward()
    return float(loss.detach()), logits.grad


def test_what_was_not_drawn_may_be_background_or_any_of_the_missing_classes():
    """Where nothing is drawn, ribs cost nothing more than background in a case without ribs, and much in a case with."""
    target = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    target[:, :1] = 1
    background, ribs = torch.full((1, CLASSES, 4, 4, 4), -8.0), torch.full((1, CLASSES, 4, 4, 4), -8.0)
    for logits, channel in ((background, 0), (ribs, 4)):
        logits[:, 1, :1], logits[:, channel, 1:] = 8.0, 8.0
    no_ribs = [True, True, True, True, False, True]
    assert loss_and_gradient(ribs, target, no_ribs)[0] == pytest.approx(loss_and_gradient(background, target, no_ribs)[0],
                                                                        abs=1e-4)
    assert loss_and_gradient(ribs, target, [True] * 6)[0] > 1.0 + loss_and_gradient(background, target, [True] * 6)[0]


def test_the_merged_cross_entropy_is_that_of_the_marginal_probability():
    """-log(p(background) + p(ribs) + p(other bone)), by hand from softmax."""
    torch.manual_seed(0)
    logits = torch.randn(1, CLASSES, 3, 3, 3)
    known = torch.tensor([[True, True, True, True, False, False]])
    merged, _ = merge_unknown(logits, torch.zeros(1, 1, 3, 3, 3, dtype=torch.long), known)
    chance = torch.softmax(logits, dim=1)
    torch.testing.assert_close(torch.softmax(merged, dim=1)[:, 0], chance[:, [0, 4, 5]].sum(1))
    torch.testing.assert_close(torch.softmax(merged, dim=1)[:, 1:4], chance[:, 1:4])


def test_cases_with_and_without_a_class_go_together_in_a_batch():
    logits = torch.zeros(2, CLASSES, 4, 4, 4)
    known = torch.tensor([[True] * 6, [True, True, True, True, False, True]])
    merged, _ = merge_unknown(logits, torch.zeros(2, 1, 4, 4, 4, dtype=torch.long), known)
    assert torch.equal(merged[0], logits[0]) and float(torch.softmax(merged, 1)[1, 0, 0, 0, 0]) == pytest.approx(2 / 6)


def test_the_part_of_a_vertebra_that_nobody_named_may_be_body_or_posterior():
    target = torch.full((1, 1, 2, 2, 2), BODY_OR_POSTERIOR)
    target[0, 0, 0] = PARTS.index("vertebral body")
    logits = torch.randn(1, len(PARTS), 2, 2, 2)
    merged, told = merge_unknown(logits, target, torch.ones(1, len(PARTS), dtype=torch.bool))
    chance, mine = torch.softmax(logits, dim=1), torch.softmax(merged, dim=1)
    body, posterior = PARTS.index("vertebral body"), PARTS.index("posterior elements")
    torch.testing.assert_close(mine[0, posterior, 1], chance[0, body, 1] + chance[0, posterior, 1])
    torch.testing.assert_close(mine[0, :, 0], chance[0, :, 0])
    assert told[0, 0, 0].eq(body).all() and told[0, 0, 1].eq(posterior).all()


def test_levels_that_were_not_set_teach_nothing_and_levels_outside_are_empty():
    maps = level_maps({"L1": (4.0, 5.0, 6.4), "L2": (-3.0, 5.0, 6.0), "T12": None}, (8, 8, 8))
    by_level = dict(zip(KEYPOINT_LEVELS, maps, strict=True))
    assert by_level["L1"][4, 5, 6] == 1 and by_level["L2"].max() == by_level["T12"].max() == 0
    assert all(by_level[level].isnan().all() for level in ("T10", "T11", "L3", "L4"))


# --- a case on the network's grid ---------------------------------------------------------------------------

def test_a_case_is_brought_to_the_grid_of_the_bones(a_project):
    prepared = prepare_case(a_project.cases()[1], Recipe("bones").sample)
    assert prepared.hu.shape == (20, 18, 18) and prepared.known.all()
    counts = np.bincount(prepared.target.ravel(), minlength=6)
    assert counts[1] == 16 * 6 * 6, "a box of 48 x 18 x 18 mm at 3 mm"
    assert prepared.target[10, 8, 8] == 1 and prepared.hu[10, 8, 8] == 400 and prepared.target[14, 2, 8] == 0


def test_classes_that_are_not_drawn_are_not_known(a_project):
    first = prepare_case(a_project.cases()[0], Recipe("bones").sample)
    assert first.known.tolist() == [True, True, False, False, False, False]


def test_bodies_are_taught_at_their_levels_only(a_project):
    prepared = prepare_case(a_project.cases()[0], Recipe("bodies").sample)
    assert prepared.target[15, 15, 18] == PARTS.index("vertebral body")
    assert prepared.target[30, 20, 18] == BODY_OR_POSTERIOR
    assert prepared.known.tolist() == [True, True, True, False], "a voxel outside of vertebrae may be a disc"
    with pytest.raises(ValueError, match="it needs vertebrae and the body"):
        prepare_case(a_project.cases()[1], Recipe("bodies").sample)


def test_a_case_is_prepared_anew_when_its_labels_change(a_project, tmp_path):
    from LowDoseBMDTrainerLib.cases import open_for_writing, read_labels

    case, task = a_project.cases()[1], Recipe("bones").sample
    before = prepared_case(case, task, tmp_path / "prepared")
    assert np.array_equal(prepared_case(case, task, tmp_path / "prepared").target, before.target)
    labels = read_labels(case)
    with open_for_writing(case, "AB") as writing:
        writing.save(Labels(labels.geometry, {**labels.masks, "ribs": box((20, 28, 2), (26, 34, 34))}))
    after = prepared_case(a_project.cases()[1], task, tmp_path / "prepared")
    assert after.target[11, 15, 8] == 4 != before.target[11, 15, 8]
    assert len(list((tmp_path / "prepared").glob("*.npz"))) == 1


def test_a_cut_beyond_the_volume_is_filled():
    array = np.arange(27).reshape(3, 3, 3)
    found = cut(array, np.array([-1, 1, 2]), (3, 2, 2), -5)
    assert found[1, 0, 0] == array[0, 1, 2] and (found[0] == -5).all() and (found[:, :, 1] == -5).all()


# --- samples ------------------------------------------------------------------------------------------------

def test_image_labels_and_levels_stay_together_when_a_sample_is_varied():
    """Three bright balls at three levels: each peak lies on its ball, of which the label map knows the place too."""
    hu, target = np.full((60, 60, 60), -500, np.int16), np.zeros((60, 60, 60), np.uint8)
    centres = {"T12": (44.0, 30.0, 34.0), "L1": (30.0, 28.0, 30.0), "L2": (16.0, 33.0, 25.0)}
    grid = np.indices(hu.shape)
    for n, centre in enumerate(centres.values()):
        ball = sum((grid[a] - centre[a]) ** 2 for a in range(3)) <= 9
        hu[ball], target[ball] = 900 + 200 * n, n + 1
    case = PreparedCase("balls", "1", hu, target, np.ones(6, bool), centres)
    levels, bones = Task("keypoints", 5.0, (64, 64, 64)), Task("bones", 3.0, (64, 64, 64))
    seen = 0
    for seed in range(6):
        image, maps = draw_from_case(np.random.default_rng(seed), case, levels, {})
        for n, level in enumerate(centres):
            channel = maps[KEYPOINT_LEVELS.index(level)]
            if channel.max() == 1:
                k, j, i = np.unravel_index(int(channel.argmax()), channel.shape)
                around = tuple(slice(max(0, n - 1), n + 2) for n in (k, j, i))
                assert image[0][around].max() > 1.0, (seed, level)
                seen += 1
        image, classes = draw_from_case(np.random.default_rng(seed), case, bones, anchors(case))
        for value in classes.unique()[1:]:
            ball = classes == value
            assert int(ball.sum()) < 60 or image[0][ball].mean() > 0.3, "whole balls of 123 voxels, smoothed, in HU -500"
    assert seen >= 8


def test_most_samples_are_centred_on_a_class():
    """A box of one voxel in 27,000 is in the middle of the share ON_BONE of the samples."""
    target = np.zeros((30, 30, 30), np.uint8)
    target[4, 25, 7] = 2
    case = PreparedCase("one", "1", np.zeros(target.shape, np.int16), target, np.ones(6, bool), {})
    task, hits = Task("bones", 3.0, (16, 16, 16)), 0
    for seed in range(40):
        _, classes = draw_from_case(np.random.default_rng(seed), case, task, anchors(case))
        hits += bool((classes == 2).any())
    assert 0.4 < hits / 40 < 0.95


def test_a_sample_is_a_function_of_seed_and_number():
    sources = (CaseSource(a_case("1"), ""), CaseSource(a_case("2", seed=1), ""))
    first, again, other = (Samples(a_recipe(seed=seed), sources) for seed in (1, 1, 2))
    in_order = [first[n][1] for n in range(4)]
    assert all(torch.equal(again[n][1], in_order[n]) for n in (3, 0, 2, 1)), "in any order"
    assert not torch.equal(other[0][1], in_order[0]) and not torch.equal(in_order[0], in_order[1])


def test_the_share_of_synthesis_and_weights_hold():
    annotated, synthetic = CaseSource(a_case("1"), "", weight=3.0), CaseSource(a_case("2"), "")
    synthetic.synthetic = True
    assert Samples(a_recipe(synthetic_share=0.2), (annotated, synthetic)).share.tolist() == pytest.approx([0.8, 0.2])
    synthetic.synthetic = False
    assert Samples(a_recipe(), (annotated, synthetic)).share.tolist() == pytest.approx([0.75, 0.25])


# --- what is held out ---------------------------------------------------------------------------------------

def test_every_patient_is_held_out_once_and_folds_are_the_same_for_the_same_seed():
    patients = [str(n) for n in range(11)]
    folds = [held_out(patients, a_recipe(folds=4, fold=fold)) for fold in range(4)]
    assert sorted(patient for fold in folds for patient in fold) == sorted(patients)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert folds[1] == held_out(reversed(patients), a_recipe(folds=4, fold=1))
    assert [held_out(patients, a_recipe(folds=4, fold=fold, seed=2)) for fold in range(4)] != folds


def test_cases_of_a_patient_are_never_on_both_sides(a_project):
    sides = [load_data(Recipe("bones", folds=2, fold=fold), a_project.folder) for fold in (0, 1)]
    names = [({source.name for source in data.training}, {source.name for source in data.validation}) for data in sides]
    assert sorted(map(sorted, (names[0][1], names[1][1]))) == [["0001", "0002"], ["0003"]]
    assert all(not training & validation for training, validation in names)


def test_complete_label_maps_are_synthesised_unless_their_patient_is_held_out(a_project, tmp_path):
    """Patient B comes again with the complete label map of a CT, patient C with bones alone."""
    import SimpleITK as sitk

    labels = np.zeros(GRID.shape_kji, np.uint8)
    for value, (low, high) in enumerate((((4, 12, 12), (36, 24, 24)), ((20, 2, 2), (26, 8, 34)), ((0, 24, 2), (40, 34, 34)),
                                         ((0, 2, 2), (18, 10, 16)), ((0, 2, 18), (18, 10, 34))), start=1):
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = value
    names = {1: "vertebrae_L1", 2: "rib_left_1", 3: "liver", 4: "lung_upper_lobe_left", 5: "kidney_left"}
    for patient, kept in (("B", 5), ("C", 2)):
        path = tmp_path / f"{patient}.nii.gz"
        hu = np.random.default_rng(kept).normal(-200, 30, GRID.shape_kji).astype(np.int16)
        sitk.WriteImage(GRID.to_image(np.where(labels > 0, 300, hu)), str(path))
        anatomy = Anatomy(np.where(labels <= kept, labels, 0), GRID, {n: names[n] for n in range(1, kept + 1)})
        drawn = Labels(GRID, {"vertebrae": Mask.from_array(labels == 1)})
        a_project.add(path, arrival=Arrival(patient=patient, labels=drawn, status=Status.COMPLETED, annotator="AB",
                                            anatomy=anatomy))
    everything = load_data(Recipe("bones"), a_project.folder)
    assert set(everything.digests()["training"]) == {"0001", "0002", "0003", "0004", "0004 (synthesis)", "0005"}
    assert any(note.startswith("left out of the synthesis: 0005: its label map names bones") for note in everything.notes)
    for fold in range(3):
        data = load_data(Recipe("bones", folds=3, fold=fold), a_project.folder)
        beside = {source.patient for source in data.training} & {source.patient for source in data.validation}
        assert not beside and not any(source.synthetic for source in data.validation)
    only = load_data(Recipe("bones"), a_project.folder, use="synthetic")
    assert [source.name for source in only.training] == ["0004"]
    assert only.training[0].known.tolist() == [True, True, False, False, True, False], "its own CT shows what has no label"


def test_only_completed_cases_are_used_and_what_is_left_out_is_said(a_project):
    from LowDoseBMDTrainerLib.cases import open_for_writing

    with open_for_writing(a_project.cases()[2], "AB") as writing:
        writing.set_status(Status.FLAGGED, "odd")
    data = load_data(Recipe("bodies", folds=2), a_project.folder)
    assert [source.name for source in data.training] == ["0001"] and not data.validation
    assert any(note.startswith("left out: 0002: it needs vertebrae") for note in data.notes)
    assert any("nothing is held out" in note for note in data.notes)


def test_nothing_to_train_on_is_said_with_the_way_out(tmp_path):
    project = create_project(tmp_path / "empty")
    with pytest.raises(ValueError, match="Complete a case first"):
        load_data(Recipe("bones"), project.folder)
    with pytest.raises(ValueError, match="lowdosebmd-train prepare"):
        load_data(Recipe("bones"), tmp_path)


# --- the score ----------------------------------------------------------------------------------------------

class _Says(torch.nn.Module):
    """A network that gives the same logits whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _image: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_dice_is_counted_over_known_classes():
    """Vertebrae: 32 voxels found, 16 there, 16 in common: 2 * 16 / 48. Ribs, which were not drawn, do not count."""
    target = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    target[0, 0, 0] = 1
    logits = torch.zeros(1, CLASSES, 16, 16, 16)
    logits[:, 0] = 1.0
    logits[0, 1, 0, :2], logits[0, 4, 5:] = 5.0, 9.0
    held = [Held("one", torch.zeros(1, 1, 16, 16, 16), target, torch.tensor([[True, True, True, True, False, True]]))]
    found = validate(_Says(logits), held, a_recipe(), make_loss("bones", CLASSES, "cpu"), "cpu")
    assert found["dice"] == {"vertebrae": pytest.approx(2 * 16 / 48, abs=1e-4)}
    assert found["score"] == found["dice"]["vertebrae"]


def test_the_error_of_a_level_is_in_millimetres():
    """3 and 4 voxels of 5 mm beside the truth: 25 mm; the other levels were not set."""
    target = level_maps({"L1": (8.0, 8.0, 8.0)}, (16, 16, 16))[None]
    logits = torch.full((1, len(KEYPOINT_LEVELS), 16, 16, 16), -5.0)
    logits[0, KEYPOINT_LEVELS.index("L1"), 8, 11, 12] = 5.0
    held = [Held("one", torch.zeros(1, 1, 16, 16, 16), target, torch.ones(1, len(KEYPOINT_LEVELS), dtype=torch.bool))]
    recipe = Recipe("keypoints", shape_kji=(16, 16, 16), channels=(4, 8))
    found = validate(_Says(logits), held, recipe, make_loss("keypoints", len(KEYPOINT_LEVELS), "cpu"), "cpu")
    assert found["keypoint_mm"] == {"L1": 25.0} and found["score"] == -25.0
