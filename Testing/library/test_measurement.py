"""Measurement on a CT of boxes whose answers follow by arithmetic, and on a real chest CT."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.calibration import Calibration, TwoPointCalibration
from LowDoseBMDLib.calibration_models import LineCalibration, RescaledCalibration
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.measurement import Measurement, choose_levels, classify, measure, probability_below
from LowDoseBMDLib.record import to_dict
from LowDoseBMDLib.rois import Keypoint, LevelFinding, Mask, Rois
from LowDoseBMDLib.roistats import read_region
from scipy import ndimage

CALIBRATION = TwoPointCalibration()
SITE = TwoPointCalibration(name="Site", status="site", cohort_size=80, muscle_variance=1.0, fat_variance=1.0,
                           covariance=0.0)


def codes(measurement: Measurement) -> set[str]:
    return {flag.code for flag in measurement.flags}


def test_numbers_follow_by_arithmetic() -> None:
    """50 + (S - 50) * 128 / 150 with muscle 50 HU and fat -100 HU."""
    result = measure(torso.ct(), torso.rois(), CALIBRATION)
    for name, hu in (("T12", 140.0), ("L1", 130.0), ("L2", 126.0)):
        level = result.level(name)
        assert (level.hu_mean, level.hu_sd, level.hu_median) == (hu, 0.0, hu)
        assert level.vbmd_mg_cm3 == pytest.approx(50 + (hu - 50) * 128 / 150)
        assert level.volume_mm3 == pytest.approx(8 * 12 * 16 * 4.5)
        assert level.kept_fraction == pytest.approx(8 * 12 * 16 / (12 * 20 * 24))
        assert level.confidence == 0.9
    assert result.status == "measured"
    assert result.mean_of == ("L1", "L2")
    assert [level.used for level in result.levels] == [False, True, True]
    assert result.mean_vbmd_mg_cm3 == pytest.approx(50 + 78 * 128 / 150)
    assert (result.muscle.hu_mean, result.fat.hu_mean) == (50.0, -100.0)
    assert result.muscle.structures == ("psoas_left", "psoas_right")
    assert result.muscle.volume_mm3 == pytest.approx(2 * 1600 * 4.5)
    assert result.category == "low_bone_mass"


def test_muscle_pools_both_sides_by_voxel() -> None:
    ct, rois = torso.ct(), torso.rois()
    ct.hu[rois.masks["psoas_left"].box] = 56.0
    half = {"psoas_left": torso.box((10, 24, 60), (8, 10, 10))}
    muscle = measure(ct, rois.with_masks(half), CALIBRATION).muscle
    assert muscle.side_hu == {"psoas_left": 56.0, "psoas_right": 50.0}
    assert muscle.hu_mean == pytest.approx((56 * 800 + 50 * 1600) / 2400)


def test_zero_hu_counts_and_nan_does_not() -> None:
    ct, rois = torso.ct(), torso.rois()
    values = ct.hu[rois.masks["trabecular_L1"].box]
    values[:4], values[4:] = 0.0, 100.0
    values[0, 0, 0] = np.nan
    level = measure(ct, rois, CALIBRATION).level("L1")
    assert level.hu_mean == pytest.approx(100 * 768 / 1535)


def test_interval_of_the_mean_keeps_common_errors() -> None:
    rng = np.random.default_rng(0)
    ct = torso.ct()
    noisy = CTVolume(ct.hu + rng.normal(0, 40, ct.hu.shape).astype(np.float32), ct.geometry)
    result = measure(noisy, torso.rois(), SITE)
    l1, l2 = result.level("L1"), result.level("L2")
    spine = np.hypot(l1.hu_se, l2.hu_se) / 2
    expected = SITE.variance((l1.hu_mean + l2.hu_mean) / 2, result.muscle.hu_mean, result.fat.hu_mean,
                             spine, result.muscle.hu_se, result.fat.hu_se)
    assert result.mean_vbmd_sd_mg_cm3 == pytest.approx(expected.sd)
    assert result.mean_vbmd_sd_mg_cm3 > l1.vbmd_sd_mg_cm3 / np.sqrt(2) * 1.2
    low, high = result.mean_vbmd_ci95
    assert (high - low) / 2 == pytest.approx(1.96 * expected.sd, rel=1e-4)


@pytest.mark.parametrize("smoothing_mm", [0.0, 0.7])
def test_standard_error_is_honest_under_correlated_noise(smoothing_mm: float) -> None:
    """The SE must agree with the spread of the mean over 60 noise images, where SD/sqrt(N) is far too small."""
    rng, grid, mask = np.random.default_rng(1), torso.geometry(), torso.box((5, 5, 5), (16, 20, 20))
    means, errors, naive = [], [], []
    for _ in range(60):
        noise = rng.normal(0, 50, (26, 30, 30))
        if smoothing_mm:
            noise = 50 * (smooth := ndimage.gaussian_filter(noise, smoothing_mm / np.array([2, 1.5, 1.5]))) / smooth.std()
        small = CTVolume(noise.astype(np.float32), grid.crop((0, 0, 0), noise.shape))
        stats = read_region(small, [mask])
        means.append(stats.hu_mean)
        errors.append(stats.hu_se)
        naive.append(stats.hu_sd / np.sqrt(stats.count))
    ratio = np.mean(errors) / np.std(means)
    assert 0.75 < ratio < 1.3
    if smoothing_mm:
        assert np.mean(naive) < 0.7 * np.std(means)


@pytest.mark.parametrize(("usable", "expected"), [
    (("T12", "L1", "L2"), ("L1", "L2")), (("L1", "L2"), ("L1", "L2")), (("T12", "L1"), ("T12", "L1")),
    (("T12", "L2"), ("L2",)), (("T12",), ("T12",)), (("L1",), ("L1",)), (("L2",), ("L2",)), ((), ()),
])
def test_levels_of_the_mean(usable: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert choose_levels(usable) == expected
    missing = torso.incomplete(*(name for name in LEVELS if name not in usable))
    result = measure(torso.ct(), torso.rois(**missing), CALIBRATION)
    assert result.mean_of == expected
    assert {level.name for level in result.levels if level.used} == set(expected)
    assert ("single_level" in codes(result)) == (len(expected) == 1)
    assert result.status == ("measured" if expected else "refused")
    for level in result.levels:
        assert level.measured == (level.name in usable)
        assert (level.vbmd_mg_cm3 is None) == (level.name not in usable)


def test_no_level_is_a_refusal_that_says_why() -> None:
    result = measure(torso.ct(), torso.rois(**torso.incomplete(*LEVELS)), CALIBRATION)
    refusal = next(flag for flag in result.flags if flag.severity is Severity.REFUSED)
    assert refusal.code == "no_level"
    assert "lower endplate lies outside the scan" in refusal.sentence
    assert result.mean_vbmd_mg_cm3 is result.category is result.p_below_80 is None
    assert result.muscle.hu_mean == 50.0


@pytest.mark.parametrize(("names", "code"), [
    (("psoas_left", "psoas_right"), "no_muscle"), (("fat_anterior",), "no_fat"),
])
def test_without_reference_tissue_hu_stand_but_no_vbmd(names: tuple[str, ...], code: str) -> None:
    result = measure(torso.ct(), torso.without(torso.rois(), *names), CALIBRATION)
    assert result.status == "refused"
    assert code in codes(result)
    assert result.level("L1").hu_mean == 130.0
    assert all(level.vbmd_mg_cm3 is None and not level.used for level in result.levels)


def test_muscle_and_fat_that_read_alike_are_refused() -> None:
    result = measure(torso.ct(fat=20.0), torso.rois(), CALIBRATION)
    assert result.status == "refused"
    assert "tissue_contrast" in codes(result)


def test_other_tissues_stand_in() -> None:
    found = torso.rois()
    moved = {"paraspinal_left": found.masks["psoas_left"], "paraspinal_right": found.masks["psoas_right"],
             "fat_posterior": found.masks["fat_anterior"]}
    bare = torso.without(found, "psoas_left", "psoas_right", "fat_anterior")
    result = measure(torso.ct(), bare.with_masks(moved), CALIBRATION)
    assert result.status == "measured"
    assert result.muscle.structures == ("paraspinal_left", "paraspinal_right")
    assert result.fat.structures == ("fat_posterior",)
    assert {"muscle_paraspinal", "fat_posterior"} <= codes(result)


@pytest.mark.parametrize(("shape", "measured", "small"), [
    ((8, 12, 16), True, False), ((8, 10, 8), True, True), ((6, 6, 6), False, False),
])
def test_small_trabecular_regions(shape: tuple[int, int, int], measured: bool, small: bool) -> None:
    """6.9 cm3; 2.9 cm3 (11 % of the body); 0.97 cm3."""
    core = {"trabecular_L2": torso.box((14, 24, 32), shape)}
    result = measure(torso.ct(), torso.rois().with_masks(core), CALIBRATION)
    assert result.level("L2").measured == measured
    assert ("small_roi" in codes(result)) == small
    assert ("level_not_measured" in codes(result)) == (not measured)
    assert result.mean_of == (("L1", "L2") if measured else ("T12", "L1"))


def test_small_share_of_the_body() -> None:
    """3.2 cm3 are enough, but not when they are 12.5 % of the body; without a body mask nothing is known of it."""
    found = torso.rois().with_masks({"trabecular_L2": torso.box((14, 24, 32), (8, 10, 9))})
    assert "small_roi" in codes(measure(torso.ct(), found, CALIBRATION))
    bare = measure(torso.ct(), torso.without(found, "body_L2"), CALIBRATION)
    assert bare.level("L2").kept_fraction is None
    assert "small_roi" not in codes(bare)


@pytest.mark.parametrize("mask", [
    Mask(np.zeros((0, 0, 0), bool), (0, 0, 0)), Mask(np.zeros((3, 3, 3), bool), (4, 4, 4)),
    Mask(np.ones((9, 9, 9), bool), (-20, 0, 0)), Mask(np.ones((9, 9, 9), bool), (500, 500, 500)),
])
@pytest.mark.parametrize("name", [*torso.masks()])
def test_empty_masks_and_masks_outside_never_raise(name: str, mask: Mask) -> None:
    result = measure(torso.ct(), torso.rois().with_masks({name: mask}), CALIBRATION)
    if name.startswith("trabecular"):
        assert not result.level(name.removeprefix("trabecular_")).measured
    elif name == "fat_anterior":
        assert "no_fat" in codes(result)
    else:
        assert result.status == "measured"
        assert result.mean_vbmd_mg_cm3 == pytest.approx(50 + 78 * 128 / 150)


def test_a_mask_over_the_edge_counts_only_inside() -> None:
    over = {"fat_anterior": torso.box((10, -4, 20), (16, 12, 40))}
    fat = measure(torso.ct(), torso.rois().with_masks(over), CALIBRATION).fat
    assert fat.volume_mm3 == pytest.approx(16 * 8 * 40 * 4.5)
    assert fat.hu_mean == pytest.approx(-100 * 6 / 8)


def test_a_scan_of_nothing_is_refused_not_raised() -> None:
    empty = CTVolume(np.full(torso.SHAPE_KJI, np.nan, np.float32), torso.geometry())
    result = measure(empty, torso.rois(), CALIBRATION)
    assert result.status == "refused"
    assert {"no_level", "no_muscle", "no_fat"} <= codes(result)


def test_regions_of_another_grid_are_a_user_error() -> None:
    other = replace(torso.rois(), geometry=torso.geometry().crop((1, 0, 0), torso.SHAPE_KJI))
    with pytest.raises(ValueError, match="resample"):
        measure(torso.ct(), other, CALIBRATION)


@pytest.mark.parametrize(("vbmd", "category"), [
    (120.01, "normal"), (120.0, "low_bone_mass"), (80.0, "low_bone_mass"), (79.99, "osteoporosis_range"),
    (-5.0, "osteoporosis_range"),
])
def test_class_boundaries(vbmd: float, category: str) -> None:
    assert classify(vbmd) == category


def test_probability_below() -> None:
    assert probability_below(80.0, 80.0, 7.0) == 0.5
    assert probability_below(80.0, 80.0 + 1.959964 * 7, 7.0) == pytest.approx(0.025, abs=1e-6)
    assert (probability_below(80.0, 79.0, 0.0), probability_below(80.0, 81.0, 0.0)) == (1.0, 0.0)


@pytest.mark.parametrize(("spine_hu", "grey"), [
    (62.0, set()), (88.0, {"grey_zone_80"}), (110.0, set()), (128.0, {"grey_zone_120"}), (200.0, set()),
])
def test_grey_zones(spine_hu: float, grey: set[str]) -> None:
    result = measure(torso.ct(T12=spine_hu, L1=spine_hu, L2=spine_hu), torso.rois(), SITE)
    assert {code for code in codes(result) if code.startswith("grey")} == grey


def test_class_is_provisional_until_a_site_calibration() -> None:
    literature, site = (measure(torso.ct(), torso.rois(), c) for c in (CALIBRATION, SITE))
    assert (literature.category_provisional, site.category_provisional) == (True, False)
    assert "uncalibrated" in codes(literature) - codes(site)


@pytest.mark.parametrize(("kvp", "code", "provisional"), [(100.0, "kvp", True), (120.0, None, False),
                                                          (None, "kvp_unknown", False)])
def test_a_site_calibration_holds_for_its_own_voltage(kvp: float | None, code: str | None, provisional: bool) -> None:
    result = measure(replace(torso.ct(), acquisition=Acquisition(kvp=kvp)), torso.rois(), SITE)
    assert codes(result) & {"kvp", "kvp_unknown"} == ({code} if code else set())
    assert result.category_provisional == provisional


def test_a_calibration_fitted_at_another_voltage_is_the_right_one_there() -> None:
    ct = replace(torso.ct(), acquisition=Acquisition(kvp=100.0))
    assert "kvp" in codes(measure(ct, torso.rois(), CALIBRATION))
    assert "kvp" not in codes(measure(ct, torso.rois(), replace(SITE, kvp=100.0)))


def test_flags_of_earlier_stages_stay_and_are_not_doubled() -> None:
    earlier = (Flag("thick_slices", Severity.CAUTION, "Slices are 5 mm."),
               Flag("single_level", Severity.LIMITED, "stale", "L2"))
    rois = replace(torso.rois(**torso.incomplete("T12", "L1")), flags=earlier)
    flags = measure(torso.ct(), rois, CALIBRATION).flags
    assert flags[0].code == "thick_slices"
    assert [flag.sentence for flag in flags if flag.code == "single_level"] != ["stale"]
    assert len({(flag.code, flag.level) for flag in flags}) == len(flags)


def test_json_is_plain_and_complete() -> None:
    result = measure(torso.ct(), torso.rois(**torso.incomplete("T12")), CALIBRATION)
    data = to_dict(result, Acquisition(source="phantom", kvp=120.0), {"lowdosebmd": "0.1.0"}, {"measure": np.float32(0.01)})
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["schema_version"], data["status"], data["mean_of"]) == (1, "measured", ["L1", "L2"])
    t12, l1, _ = data["levels"]
    assert (t12["complete"], t12["hu_mean"], t12["vbmd_mg_cm3"], t12["vbmd_ci95"]) == (False, None, None, None)
    assert {"name", "complete", "hu_mean", "hu_sd", "volume_mm3", "vbmd_mg_cm3", "vbmd_ci95", "centre_lps_mm",
            "confidence"} <= l1.keys()
    assert l1["vbmd_mg_cm3"] == 118.3
    assert data["mean_vbmd_mg_cm3"] == 116.6
    assert data["category"] == "low_bone_mass"
    assert data["calibration"]["kind"] == "two_point"
    assert data["acquisition"]["kvp"] == 120.0
    assert {"code", "severity", "sentence", "level", "position_lps_mm"} == data["flags"][0].keys()
    assert data["muscle"]["side_hu"] == {"psoas_left": 50.0, "psoas_right": 50.0}
    assert (data["aorta"]["hu_mean"], data["aorta"]["structures"]) == (40.0, ["aorta"])


def test_the_aorta_is_kept_and_moves_no_number() -> None:
    """36 voxels in a slice of 40, 4.5 mm3 each; one of 27 voxels is too small to speak of blood."""
    with_aorta = measure(torso.ct(), torso.rois(), CALIBRATION)
    without = measure(torso.ct(), torso.without(torso.rois(), "aorta"), CALIBRATION)
    assert with_aorta.aorta.volume_mm3 == pytest.approx(36 * 40 * 4.5)
    assert replace(with_aorta, aorta=None) == without
    speck = torso.rois().with_masks({"aorta": torso.box((20, 14, 38), (3, 3, 3))})
    assert measure(torso.ct(), speck, CALIBRATION).aorta is None


def test_json_of_a_refusal_holds_null_not_nan() -> None:
    empty = CTVolume(np.full(torso.SHAPE_KJI, np.nan, np.float32), torso.geometry())
    data = to_dict(measure(empty, torso.rois(), CALIBRATION), Acquisition(), {}, 0.1)
    json.dumps(data, allow_nan=False)
    assert (data["status"], data["muscle"], data["mean_vbmd_mg_cm3"]) == ("refused", None, None)


def test_a_large_ct_with_regions_of_clinical_size_is_measured() -> None:
    """512 x 512 x 320 voxels; every trabecular region holds 60 HU."""
    shape = (320, 512, 512)
    grid = Geometry(shape, np.diag([0.7, 0.7, 1.0, 1.0]))
    ct = CTVolume(np.zeros(shape, np.int16), grid)
    masks = {"psoas_left": torso.box((20, 250, 330), (60, 40, 40)), "psoas_right": torso.box((20, 250, 150), (60, 40, 40)),
             "fat_anterior": torso.box((20, 40, 150), (60, 30, 200)), "aorta": torso.box((20, 200, 260), (250, 30, 30))}
    for n, name in enumerate(LEVELS):
        masks[f"body_{name}"] = torso.box((110 - 35 * n, 240, 230), (27, 42, 58))
        masks[f"trabecular_{name}"] = torso.box((115 - 35 * n, 248, 238), (17, 26, 42))
    for name, mask in masks.items():
        ct.hu[mask.box] = -100 if name.startswith("fat") else 60
    rois = Rois(grid, masks, (), tuple(LevelFinding(name, True) for name in LEVELS))
    result = measure(ct, rois, CALIBRATION)
    assert result.status == "measured"
    assert all(level.hu_mean == 60 for level in result.levels)


def test_real_chest_ct_agrees_with_a_reader(shared_data) -> None:
    """Cylinders at the reader's centres give the reader's HU, and vBMD by hand from the reader's numbers."""
    import SimpleITK as sitk

    read = json.loads((shared_data / "levels.json").read_text())["lidc0001"]
    image = sitk.DICOMOrient(sitk.ReadImage(str(shared_data / "lidc0001" / "ct.nii.gz")), "LPS")
    ct = CTVolume(sitk.GetArrayFromImage(image), Geometry.from_image(image))
    cylinders = {f"trabecular_{name}": _cylinder(ct.geometry, read[name]["centre_lps_mm"]) for name in LEVELS}
    findings = tuple(LevelFinding(name, True) for name in LEVELS)
    keypoints = tuple(Keypoint(name, tuple(read[name]["centre_lps_mm"])) for name in LEVELS)
    result = measure(ct, Rois(ct.geometry, cylinders, keypoints, findings), CALIBRATION)
    for name in LEVELS:
        low, high = read[name]["hu_range"]
        assert low - 5 < result.level(name).hu_mean < high + 5
    assert result.status == "refused"
    hu = [read[name]["hu_mean"] for name in LEVELS]
    vbmd = [CALIBRATION.vbmd(s, 57.0, read["fat_hu"]) for s in hu]
    assert vbmd == pytest.approx([86.6, 59.8, 53.6], abs=0.05)


def _cylinder(grid: Geometry, centre_lps_mm: list[float]) -> Mask:
    """Elliptic cylinder of 20 x 14 x 9 mm."""
    kji = np.rint(grid.to_kji(centre_lps_mm)).astype(int) + np.indices((9, 41, 41)).reshape(3, -1).T - (4, 20, 20)
    away = (grid.to_lps(kji) - centre_lps_mm) / (10.0, 7.0, 4.5)
    inside = (np.hypot(away[:, 0], away[:, 1]) <= 1) & (np.abs(away[:, 2]) <= 1)
    return Mask.from_array(inside.reshape(9, 41, 41), tuple(int(n) for n in kji[0]))


def test_a_single_level_of_doubtful_name_is_refused():
    found = torso.rois()
    doubt = Flag("level_uncertain", Severity.LIMITED, "Confirm the level.")
    one = replace(torso.without(found, "trabecular_T12", "trabecular_L2"), flags=(doubt,))
    assert measure(torso.ct(), replace(found, flags=(doubt,)), CALIBRATION).status == "measured"
    result = measure(torso.ct(), one, CALIBRATION)
    assert result.status == "refused" and "level_unknown" in codes(result)
    assert result.mean_vbmd_mg_cm3 is None
    assert measure(torso.ct(), replace(one, flags=()), CALIBRATION).status == "measured"


LINE = LineCalibration(name="Line", status="site", cohort_size=80, intercept_mg_cm3=8.0, slope_mg_cm3_per_hu=0.8,
                       intercept_variance=1.0, slope_variance=1e-4, covariance=-0.005, residual_sd_mg_cm3=4.0)


@pytest.mark.parametrize("names", [("psoas_left", "psoas_right"), ("fat_anterior",),
                                   ("psoas_left", "psoas_right", "fat_anterior"), ()])
@pytest.mark.parametrize("calibration", [LINE, RescaledCalibration(name="R", base=LINE, intercept_mg_cm3=0.0, slope=1.0,
                                                                   status="site", cohort_size=80)])
def test_a_line_needs_no_muscle_and_fat(calibration: Calibration, names: tuple[str, ...]) -> None:
    """8 + 0.8 * 128 HU; without tissue nothing tells whether the scanner still reads as it did."""
    result = measure(torso.ct(), torso.without(torso.rois(), *names), calibration)
    assert result.status == "measured"
    assert result.mean_vbmd_mg_cm3 == pytest.approx(110.4)
    variance = 1 + 128**2 * 1e-4 - 2 * 128 * 0.005 + 16
    assert result.mean_vbmd_sd_mg_cm3 == pytest.approx(np.sqrt(variance + (0.8 * np.hypot(
        *(result.level(name).hu_se for name in ("L1", "L2"))) / 2)**2))
    found = {flag.code: flag for flag in result.flags}
    missing = {code for code, tissue in (("no_muscle", "psoas_left"), ("no_fat", "fat_anterior")) if tissue in names}
    assert found.keys() & {"no_muscle", "no_fat"} == missing
    assert all(found[code].severity is Severity.LIMITED for code in missing)
    json.dumps(to_dict(result, Acquisition(), {}, 0.1), allow_nan=False)


def test_a_line_measures_where_muscle_and_fat_read_alike() -> None:
    result = measure(torso.ct(fat=20.0), torso.rois(), LINE)
    assert result.mean_vbmd_mg_cm3 == pytest.approx(110.4)
    assert next(flag for flag in result.flags if flag.code == "tissue_contrast").severity is Severity.LIMITED


def test_a_refusal_for_want_of_tissue_is_said_once() -> None:
    flags = measure(torso.ct(), torso.without(torso.rois(), "fat_anterior"), CALIBRATION).flags
    assert [flag.code for flag in flags].count("no_fat") == 1
