"""The synthesis keeps anatomy and target together, and is the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LowDoseBMDTrainerLib.people import BONE_PARTS, TISSUES, Person, bone_targets, classify, with_density
from LowDoseBMDTrainerLib.synthesis import KEYPOINT_LEVELS, SCALE_HU, Task, draw_sample, heatmaps
from LowDoseBMDTrainerLib.synthesis_subject import Subject, make_subject
from LowDoseBMDTrainerLib.training_losses import keypoint_loss


@pytest.fixture(scope="module")
def a_person() -> Person:
    """A trunk of muscle with a column of three named vertebrae (T12, L1, L2) and two ribs."""
    shape, spacing = (90, 70, 90), 2.0
    tissue = np.full(shape, TISSUES.index("muscle"), np.uint8)
    bone, part = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    centres = {}
    for n, level in enumerate(("L2", "L1", "T12")):
        k = 25 + 17 * n
        bone[k - 6:k + 7, 35:49, 36:56] = BONE_PARTS.index(level)
        part[k - 6:k + 7, 35:49, 36:56] = 1
        centres[level] = (float(k), 41.5, 45.5)
    bone[60:64, 30:34, 5:30] = bone[60:64, 30:34, 62:86] = BONE_PARTS.index("rib")
    y, x = np.meshgrid(np.arange(shape[1]) - 35, np.arange(shape[2]) - 45, indexing="ij")
    radius = np.sqrt((y / 28) ** 2 + (x / 40) ** 2)[None].repeat(shape[0], 0)
    outside = np.clip((radius - 1) * 60, 0, 255).astype(np.uint8)
    inside = np.clip((1 - radius) * 60, 0, 255).astype(np.uint8)
    depth = np.where(bone > 0, 3.0, 0.0).astype(np.float16)
    return Person("made up", spacing, tissue, bone, depth, inside, outside, part, centres)


@pytest.fixture(scope="module")
def a_subject(a_person: Person) -> Subject:
    return make_subject(a_person)


@pytest.mark.parametrize(("structure", "expected"), [
    ("vertebrae_L1", ("unnamed", "L1")), ("vertebra_T12", ("unnamed", "T12")), ("rib_left_12", ("unnamed", "rib_12")),
    ("rib_right_3", ("unnamed", "rib")), ("clavicula_left", ("unnamed", "clavicle")), ("kidney_left", ("kidney", "none")),
    ("iliopsoas_right", ("psoas", "none")), ("aorta", ("artery", "none")), ("costal_cartilages", ("cartilage", "none")),
    ("vertebrae_S1", ("unnamed", "sacrum")), ("lung_upper_lobe_left", ("lung", "none")),
])
def test_structures_of_public_label_maps_are_understood(structure, expected):
    assert classify(structure) == expected


def test_other_bones_are_no_vertebrae():
    targets = dict(zip(BONE_PARTS, bone_targets(), strict=True))
    assert targets["T12"] == targets["L5"] == 1
    assert targets["sternum"] == targets["humerus"] == targets["sacrum"] == 5
    assert (targets["rib"], targets["clavicle"], targets["scapula"], targets["none"]) == (4, 2, 3, 0)


def test_same_seed_same_sample(a_subject):
    task = Task("bones", 4.0, (48, 48, 48))
    first, second, other = (draw_sample(np.random.default_rng(s), a_subject, task) for s in (5, 5, 6))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_images_stay_in_the_normalised_range_and_targets_in_their_classes(a_subject):
    task = Task("bones", 4.0, (48, 48, 48))
    rng, seen = np.random.default_rng(1), set()
    for _ in range(12):
        image, target = draw_sample(rng, a_subject, task)
        assert image.shape == (1, 48, 48, 48) and target.shape == (48, 48, 48)
        assert torch.isfinite(image).all() and image.min() >= -2.0 and image.max() <= 3.0
        seen |= set(target.unique().tolist())
    assert {0, 1, 4} <= seen <= {0, 1, 4, 5}, "5: arms beside the trunk"


def test_heatmaps_stand_at_the_body_centres(a_person):
    axes = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in (45, 35, 45)], indexing="ij"))
    place = axes * 2.0
    maps = heatmaps(a_person.centres_kji, place, torch.ones(45, 35, 45, dtype=torch.bool))
    for level, centre in a_person.centres_kji.items():
        peak = np.unravel_index(int(maps[KEYPOINT_LEVELS.index(level)].argmax()), (45, 35, 45))
        np.testing.assert_allclose(np.array(peak) * 2.0, centre, atol=1.5)
    assert maps[KEYPOINT_LEVELS.index("T10")].isnan().all(), "a level that the person lacks teaches nothing"


def test_a_level_outside_the_scan_has_an_empty_heatmap(a_person):
    axes = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in (45, 35, 45)], indexing="ij"))
    seen = torch.ones(45, 35, 45, dtype=torch.bool)
    seen[:18] = False
    maps = heatmaps(a_person.centres_kji, axes * 2.0, seen)
    assert maps[KEYPOINT_LEVELS.index("L2")].max() == 0
    assert maps[KEYPOINT_LEVELS.index("T12")].max() == 1


def test_keypoint_loss_prefers_the_truth_and_ignores_the_unknown():
    target = torch.zeros(1, 2, 8, 8, 8)
    target[0, 0, 4, 4, 4] = 1.0
    target[0, 1] = torch.nan
    right, wrong = torch.full(target.shape, -6.0), torch.full(target.shape, -6.0)
    right[0, 0, 4, 4, 4], wrong[0, 0, 1, 1, 1] = 6.0, 6.0
    assert keypoint_loss(right, target) < 0.01 * keypoint_loss(wrong, target)
    noisy = right.clone()
    noisy[0, 1] = 5.0
    assert torch.equal(keypoint_loss(noisy, target), keypoint_loss(right, target))


def test_only_what_is_denser_than_soft_tissue_changes_with_the_density_of_bone() -> None:
    hu = np.array([-1000.0, 60.0, 120.0, 220.0, 1120.0], np.float32)
    assert with_density(hu, 1.5) == pytest.approx([-1000.0, 60.0, 120.0, 270.0, 1620.0])
    assert with_density(torch.from_numpy(hu), 0.5).tolist() == pytest.approx([-1000.0, 60.0, 120.0, 170.0, 620.0])


def test_the_cortex_reaches_from_that_of_thin_bones_to_that_of_dense_ones(a_person: Person) -> None:
    thin = make_subject(replace(a_person, depth_mm=np.where(a_person.bone > 0, 1.0, 0.0).astype(np.float16)))
    task = Task("bones", spacing_mm=2.0, shape_kji=(64, 64, 64))
    densest = []
    for seed in range(24):
        image, target = draw_sample(np.random.default_rng(seed), thin, task)[:2]
        if int((target > 0).sum()) > 500:
            densest.append(float(image[0][target > 0].quantile(0.9)) * SCALE_HU)
    assert len(densest) >= 12 and min(densest) < 400 and max(densest) > 1100
