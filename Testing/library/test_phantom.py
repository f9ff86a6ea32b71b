"""The phantom's truth against its own voxels: what every test that relies on the phantom takes for granted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.calibration import DEFAULT_FAT_MG_CM3, DEFAULT_MUSCLE_MG_CM3
from LowDoseBMDLib.phantom import CLASSES, LABEL, Phantom, PhantomSpec, make_phantom, names_by_label
from LowDoseBMDLib.phantom.physique import draw_physique
from scipy import ndimage

LOIN = PhantomSpec(seed=4, spacing_mm=(1.0, 1.0, 1.5), scan_top=("T11", 0.3), scan_bottom=("L2", 1.3), noise_hu=0.0)
"""T12 to L2 with a little above and below: all that the calibration needs."""


@pytest.fixture(scope="module")
def loin() -> Phantom:
    return make_phantom(LOIN)


@pytest.fixture(scope="module")
def noisy_loin() -> Phantom:
    return make_phantom(replace(LOIN, noise_hu=25.0))


@pytest.fixture(scope="module")
def whole() -> Phantom:
    return make_phantom(PhantomSpec(seed=7, spacing_mm=(2.0, 2.0, 2.5), humeri=True))


def core(phantom: Phantom, level: str, depth_mm: float = 5.5) -> np.ndarray:
    """HU deeper than depth_mm inside a body."""
    mask = phantom.body_mask(level)
    depth = ndimage.distance_transform_edt(np.pad(mask.voxels, 1), sampling=phantom.ct.geometry.spacing_kji_mm)
    return phantom.ct.hu[mask.box][depth[1:-1, 1:-1, 1:-1] > depth_mm]


def deep_hu(phantom: Phantom, *names: str, voxels: int = 3) -> np.ndarray:
    mask = np.isin(phantom.labels, [LABEL[name] for name in names])
    return phantom.ct.hu[ndimage.binary_erosion(mask, iterations=voxels)]


def test_truth_lies_on_the_two_point_line(loin: Phantom) -> None:
    truth = loin.truth
    assert (truth.muscle_mg_cm3, truth.fat_mg_cm3) == (DEFAULT_MUSCLE_MG_CM3, DEFAULT_FAT_MG_CM3)
    slope = (truth.muscle_mg_cm3 - truth.fat_mg_cm3) / (truth.muscle_hu - truth.fat_hu)
    for level in LEVELS:
        read = truth.muscle_mg_cm3 + (truth.trabecular_hu[level] - truth.muscle_hu) * slope
        assert read == pytest.approx(truth.vbmd_mg_cm3[level], abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_bodies_hold_their_true_hu(loin: Phantom, noisy_loin: Phantom, level: str) -> None:
    for phantom in (loin, noisy_loin):
        values = core(phantom, level)
        assert values.size > 1000
        assert values.mean() == pytest.approx(phantom.truth.trabecular_hu[level], abs=3.0)


def test_reference_tissues_hold_their_true_hu(loin: Phantom) -> None:
    for side in ("left", "right"):
        assert deep_hu(loin, f"psoas_{side}").mean() == pytest.approx(loin.truth.muscle_hu, abs=1.0)
    assert deep_hu(loin, "subcutaneous_fat").mean() == pytest.approx(loin.truth.fat_hu, abs=1.0)


def test_given_densities_are_kept() -> None:
    phantom = make_phantom(replace(LOIN, spacing_mm=(1.5, 1.5, 2.0), vbmd_mg_cm3={"L1": 66.0, "L2": 143.0}))
    assert phantom.truth.vbmd_mg_cm3["L1"] == 66.0
    assert core(phantom, "L2", 6.0).mean() - core(phantom, "L1", 6.0).mean() == pytest.approx(
        (143 - 66) * (phantom.truth.muscle_hu - phantom.truth.fat_hu) / 128.0, abs=4.0)


ON_A_LINE = replace(LOIN, spacing_mm=(1.2, 1.2, 1.5), mean_vbmd_mg_cm3=90.0, muscle_hu=48.0, fat_hu=-110.0,
                    scanner_line=(0.8, 8.0), trabecular_shift_hu=5.0)


def test_bodies_follow_the_scanner_and_not_the_muscle() -> None:
    """(90 - 8) / 0.8 + 5 = 107.5 HU for the mean of L1 and L2, with any muscle; muscle and fat read what was asked."""
    for muscle_hu in (48.0, 60.0):
        phantom = make_phantom(replace(ON_A_LINE, muscle_hu=muscle_hu))
        truth = phantom.truth
        assert (truth.vbmd_mg_cm3["L1"] + truth.vbmd_mg_cm3["L2"]) / 2 == pytest.approx(90.0)
        assert (truth.trabecular_hu["L1"] + truth.trabecular_hu["L2"]) / 2 == pytest.approx(107.5)
        assert np.mean([core(phantom, level).mean() for level in ("L1", "L2")]) == pytest.approx(107.5, abs=3.0)
        assert (truth.muscle_hu, truth.fat_hu) == (muscle_hu, -110.0)
        assert deep_hu(phantom, "psoas_left", "psoas_right").mean() == pytest.approx(muscle_hu, abs=1.0)
        assert deep_hu(phantom, "subcutaneous_fat").mean() == pytest.approx(-110.0, abs=1.0)


def test_no_two_point_densities_are_claimed_for_a_scanner_line() -> None:
    truth = make_phantom(replace(ON_A_LINE, spacing_mm=(3.0, 3.0, 4.0))).truth
    assert (truth.muscle_mg_cm3, truth.fat_mg_cm3) == (None, None)


def test_given_muscle_and_fat_keep_the_two_point_line_exact() -> None:
    physique = draw_physique(PhantomSpec(seed=2, muscle_hu=40.0, fat_hu=-100.0, vbmd_mg_cm3={"L1": 50.0, "L2": -78.0}))
    assert physique.trabecular_hu["L1"] == pytest.approx(40.0)
    assert physique.trabecular_hu["L2"] == pytest.approx(-100.0)


def test_what_is_given_moves_no_other_draw() -> None:
    plain = draw_physique(PhantomSpec(seed=2))
    given = draw_physique(PhantomSpec(seed=2, muscle_hu=40.0, mean_vbmd_mg_cm3=100.0, scanner_line=(0.8, 8.0)))
    for name in ("scale", "kyphosis_deg", "curvature_deg", "fat_mm", "osteophytes"):
        assert getattr(plain, name) == getattr(given, name)
    assert {name: hu for name, hu in plain.hu.items() if name not in ("muscle", "paraspinal")} == \
        {name: hu for name, hu in given.hu.items() if name not in ("muscle", "paraspinal")}


def test_phantoms_of_earlier_versions_are_the_same_person() -> None:
    """Drawn by the first version, which had no scanner line."""
    physique = draw_physique(PhantomSpec(seed=4))
    assert physique.vbmd_mg_cm3["L1"] == pytest.approx(75.69086055838798)
    assert physique.hu["muscle"] == pytest.approx(54.04071960142535)
    assert physique.trabecular_hu["L1"] == pytest.approx(84.9374487444625)


def test_centres_and_labels_agree(loin: Phantom) -> None:
    for level, centre in loin.truth.centres_lps_mm.items():
        if loin.truth.complete[level]:
            found = loin.body_mask(level).centroid_lps_mm(loin.ct.geometry)
            assert np.linalg.norm(found - np.array(centre)) < 1.5
    assert [level for level, whole in loin.truth.complete.items() if whole] == list(LEVELS)


def test_every_vertebra_voxel_is_body_or_posterior(loin: Phantom) -> None:
    assert np.array_equal(loin.vertebra_index > 0, loin.part > 0)
    assert set(np.unique(loin.part)) == {0, 1, 2}


def test_scan_that_ends_in_a_body_says_so() -> None:
    phantom = make_phantom(replace(LOIN, spacing_mm=(2.0, 2.0, 2.0), scan_bottom=("L2", 0.4)))
    assert phantom.truth.complete == {"T11": False, "T12": True, "L1": True, "L2": False}
    assert set(phantom.truth.vbmd_mg_cm3) == set(LEVELS)
    bottom = phantom.ct.geometry.to_lps(np.array([-0.5, 0, 0]))[2]
    _, _, z = phantom.truth.centres_lps_mm["L2"]
    assert bottom > z  # 40 % of the body is seen, so its centre lies below the scan
    assert LABEL["vertebra_L2"] in phantom.labels
    assert LABEL["vertebra_L3"] not in phantom.labels[phantom.part == 1]


def test_scan_that_misses_l2_does_not_claim_it() -> None:
    phantom = make_phantom(replace(LOIN, spacing_mm=(2.5, 2.5, 2.5), scan_bottom=("L1", 1.1)))
    assert "L2" not in phantom.truth.vbmd_mg_cm3


def test_same_seed_same_phantom_other_seed_other_person() -> None:
    small = replace(LOIN, spacing_mm=(3.0, 3.0, 4.0), noise_hu=20.0)
    first, again, other = make_phantom(small), make_phantom(small), make_phantom(replace(small, seed=5))
    assert np.array_equal(first.ct.hu, again.ct.hu)
    assert np.array_equal(first.labels, again.labels)
    assert first.truth == again.truth
    assert first.truth.muscle_hu != other.truth.muscle_hu
    assert first.truth.centres_lps_mm["L1"] != other.truth.centres_lps_mm["L1"]


def test_noise_changes_nothing_but_hu(loin: Phantom, noisy_loin: Phantom) -> None:
    assert loin.truth == noisy_loin.truth
    assert np.array_equal(loin.labels, noisy_loin.labels)
    difference = noisy_loin.ct.hu.astype(float) - loin.ct.hu
    values = noisy_loin.body_mask("L1").values(difference)
    assert values.std() == pytest.approx(25.0, rel=0.2)
    assert abs(values.mean()) < 1.0


def test_lung_kernel_is_noisier_and_sharper() -> None:
    small = replace(LOIN, scan_top=("L1", 0.0), scan_bottom=("L1", 1.0), noise_hu=20.0)
    soft, lung = make_phantom(small), make_phantom(replace(small, kernel="lung"))
    assert deep_hu(lung, "subcutaneous_fat").std() > 1.6 * deep_hu(soft, "subcutaneous_fat").std()
    assert (soft.ct.acquisition.kernel, lung.ct.acquisition.kernel) == ("SOFT", "LUNG")


def test_contrast_and_metal_show() -> None:
    small = replace(LOIN, spacing_mm=(1.5, 1.5, 2.0), scan_top=("L1", 0.0))
    plain, special = make_phantom(small), make_phantom(replace(small, contrast=150.0, metal=True))
    rise = deep_hu(special, "aorta", voxels=2).mean() - deep_hu(plain, "aorta", voxels=2).mean()
    assert rise == pytest.approx(150, abs=15)
    assert plain.ct.hu.max() < 1500 < 2000 < special.ct.hu[special.labels == LABEL["metal"]].max()


def test_whole_trunk_is_one_piece(whole: Phantom) -> None:
    body = (whole.labels > 0) & (whole.labels != LABEL["couch"])
    pieces, count = ndimage.label(body)
    assert np.bincount(pieces.ravel())[1:].max() > 0.9999 * body.sum(), count


def test_every_bone_is_one_piece_and_on_its_side(whole: Phantom) -> None:
    x = whole.ct.geometry.to_lps(np.stack(np.indices(whole.labels.shape), axis=-1)[0, 0])[:, 0]
    names = [*(f"rib_{s}_{n}" for s in ("left", "right") for n in range(1, 13)),
             *(f"{b}_{s}" for b in ("scapula", "clavicle", "lung") for s in ("left", "right"))]
    for name in names:
        mask = whole.labels == LABEL[name]
        sizes = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
        assert sizes.size and sizes.max() > 0.9 * sizes.sum(), name
        assert (np.average(x, weights=mask.sum(axis=(0, 1))) > 0) == ("left" in name), name


@pytest.mark.parametrize("number", range(1, 13))
def test_ribs_spring_from_their_own_vertebra(whole: Phantom, number: int) -> None:
    mask = whole.labels == LABEL[f"vertebra_T{number}"]
    away = ndimage.distance_transform_edt(~mask, sampling=whole.ct.geometry.spacing_kji_mm)
    for side in ("left", "right"):
        assert away[whole.labels == LABEL[f"rib_{side}_{number}"]].min() <= 3.3


def test_vertebrae_follow_each_other_from_head_to_foot(whole: Phantom) -> None:
    centres = whole.truth.centres_lps_mm
    assert list(centres)[1:] == [*(f"T{n}" for n in range(1, 13)), "L1", "L2", "L3"]
    heights = [centre[2] for centre in centres.values()]
    assert np.all(np.diff(heights) < -10)


def test_tissues_are_where_and_what_they_should_be(whole: Phantom) -> None:
    geometry = whole.ct.geometry

    def centre(name: str) -> np.ndarray:
        return whole.mask(name).centroid_lps_mm(geometry)

    assert centre("liver")[0] < 0 < centre("spleen")[0]
    assert centre("inferior_vena_cava")[0] < whole.truth.centres_lps_mm["L1"][0] < centre("spleen")[0]
    assert centre("kidney_right")[1] > centre("small_bowel")[1]
    assert centre("sternum")[1] < centre("heart")[1] < whole.truth.centres_lps_mm["T8"][1]
    assert deep_hu(whole, "lung_left", "lung_right").mean() == pytest.approx(-840, abs=60)
    assert deep_hu(whole, "liver").mean() == pytest.approx(58, abs=20)
    assert whole.ct.hu[:, 0].mean() < -950
    bodies = whole.part == 1
    assert (whole.ct.hu[bodies] > 300).mean() > 0.02  # cortex


def test_labels_are_documented(whole: Phantom) -> None:
    assert len(set(CLASSES)) == len(CLASSES) < 256
    assert set(np.unique(whole.labels)) - {0} <= set(names_by_label())
    assert CLASSES[whole.vertebra_index[whole.labels == LABEL["vertebra_T12"]][0]] == "vertebra_T12"
    assert whole.ct.acquisition.source == "phantom"
    assert whole.ct.acquisition.kvp == 120.0


def test_density_falls_with_age_as_in_people() -> None:
    """Cheng 2021: women 185 mg/cm3 at 32 years and 62 at 80; men 177 and 92."""
    for sex, young, old in (("f", 185.4, 62.4), ("m", 176.6, 92.1)):
        for age, mean in ((32, young), (80, old)):
            drawn = [draw_physique(PhantomSpec(age=age, sex=sex, seed=n)).vbmd_mg_cm3["L1"] for n in range(120)]
            assert np.mean(drawn) == pytest.approx(mean, abs=8)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"sex": "x"}, "sex"), ({"kernel": "bone"}, "kernel"), ({"scan_bottom": ("S1", 0.5)}, "S1"),
    ({"vbmd_mg_cm3": {"C1": 100.0}}, "C1"), ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
    ({"noise_hu": -1.0}, "noise_hu"), ({"scanner_line": (0.0, 8.0)}, "scanner_line"),
    ({"trabecular_shift_hu": 4.0}, "trabecular_shift_hu"), ({"muscle_hu": -110.0, "fat_hu": -100.0}, "muscle_hu"),
])
def test_wrong_specifications_are_named(wrong: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PhantomSpec(**wrong)


def test_scan_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="top"):
        make_phantom(replace(LOIN, scan_top=("L3", 0.5), scan_bottom=("T12", 0.5)))


def test_psoas_is_set_off_from_the_organs_by_fat(loin: Phantom) -> None:
    organs = np.isin(loin.labels, [LABEL[name] for name in ("kidney_left", "kidney_right", "liver", "colon")])
    away = ndimage.distance_transform_edt(~organs, sampling=loin.ct.geometry.spacing_kji_mm)
    for side in ("left", "right"):
        assert away[loin.labels == LABEL[f"psoas_{side}"]].min() >= 4.0
