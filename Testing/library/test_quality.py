"""Each quality flag on a made-up fault with a known answer, and silence on a clean CT."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.quality import cortex_excess, tilt_and_rotation_deg
from LowDoseBMDLib.rois import LevelFinding, Rois

SITE = TwoPointCalibration(name="Site", status="site", cohort_size=80, muscle_variance=0.0, fat_variance=0.0,
                           covariance=0.0, muscle_biological_sd_hu=0.1, fat_biological_sd_hu=0.1)
"""So precise that no grey zone is flagged: a clean CT must then carry no flag at all."""


def flags(ct: CTVolume, rois: Rois) -> dict[tuple[str, str | None], Flag]:
    return {(flag.code, flag.level): flag for flag in measure(ct, rois, SITE).flags}


def painted(box: tuple[tuple[int, int, int], tuple[int, int, int]], hu: float) -> CTVolume:
    ct = torso.ct()
    ct.hu[torso.box(*box).box] = hu
    return ct


def finding(name: str, **changes: object) -> dict[str, LevelFinding]:
    return {name: replace(torso.rois().level(name), **changes)}


def test_a_clean_ct_has_no_flag() -> None:
    assert flags(torso.ct(), torso.rois()) == {}


def test_a_clean_noisy_ct_has_no_flag() -> None:
    """Noise of 60 HU, as in a thin low-dose slice, is no fault of the regions."""
    noise = np.random.default_rng(5).normal(0, 60, torso.SHAPE_KJI).astype(np.float32)
    assert flags(replace(torso.ct(), hu=torso.hu() + noise), torso.rois()) == {}


@pytest.mark.parametrize(("aorta", "code", "severity"), [
    (101.0, "contrast", Severity.CAUTION), (99.0, "contrast_possible", Severity.INFO), (69.0, None, None),
])
def test_contrast(aorta: float, code: str | None, severity: Severity | None) -> None:
    found = flags(torso.ct(aorta=aorta), torso.rois())
    assert [flag.severity for flag in found.values()] == ([severity] if code else [])
    assert [key[0] for key in found] == ([code] if code else [])


def test_a_speck_of_aorta_says_nothing() -> None:
    speck = {"aorta": torso.box((20, 14, 38), (3, 3, 3))}
    assert flags(torso.ct(aorta=300.0), torso.rois().with_masks(speck)) == {}


@pytest.mark.parametrize(("hu", "size", "found"), [
    (2500.0, (2, 2, 2), True), (1400.0, (6, 6, 6), False), (2500.0, (1, 1, 4), False),
])
def test_metal_beside_a_body(hu: float, size: tuple[int, int, int], found: bool) -> None:
    """36 mm3 of metal behind L2; sharp cortical bone (1400 HU) and single voxels are none."""
    result = flags(painted(((14, 45, 40), size), hu), torso.rois())
    assert (("metal", "L2") in result) == found
    assert ("metal", "T12") not in result
    if found:
        flag = result["metal", "L2"]
        assert flag.severity is Severity.LIMITED
        assert flag.position_lps_mm == pytest.approx(torso.geometry().to_lps(np.array([14.5, 45.5, 40.5])))


def test_cement_inside_a_body() -> None:
    found = flags(painted(((15, 26, 36), (2, 2, 2)), 1200.0), torso.rois())
    assert found["cement", "L2"].severity is Severity.LIMITED
    assert ("cement", "L1") not in found


def test_findings_at_an_unused_level_are_only_caution() -> None:
    found = flags(painted(((51, 26, 36), (2, 2, 2)), 1200.0), torso.rois())
    assert found["cement", "T12"].severity is Severity.CAUTION


@pytest.mark.parametrize(("changes", "code"), [
    ({"fat": -131.0}, "fat_hu"), ({"fat": -69.0}, "fat_hu"), ({"muscle": 29.0}, "muscle_hu"),
    ({"muscle": 76.0}, "muscle_hu"),
])
def test_tissue_hu_out_of_range(changes: dict[str, float], code: str) -> None:
    assert (code, None) in flags(torso.ct(**changes), torso.rois())


@pytest.mark.parametrize("changes", [{"fat": -129.0}, {"fat": -71.0}, {"muscle": 31.0}, {"muscle": 74.0}])
def test_tissue_hu_in_range(changes: dict[str, float]) -> None:
    found = flags(torso.ct(**changes), torso.rois())
    assert not {code for code, _ in found} & {"fat_hu", "muscle_hu"}


@pytest.mark.parametrize(("difference", "found"), [(7.9, False), (8.1, True)])
def test_muscle_asymmetry(difference: float, found: bool) -> None:
    ct, rois = torso.ct(), torso.rois()
    ct.hu[rois.masks["psoas_left"].box] = 50.0 + difference
    assert (("muscle_asymmetry", None) in flags(ct, rois)) == found


def test_one_sided_and_small_muscle() -> None:
    one = flags(torso.ct(), torso.without(torso.rois(), "psoas_left"))
    assert set(one) == {("muscle_one_side", None)}
    small = {"psoas_left": torso.box((10, 24, 60), (4, 9, 10)), "psoas_right": torso.box((10, 24, 10), (4, 9, 10))}
    assert set(flags(torso.ct(), torso.rois().with_masks(small))) == {("muscle_small", None)}


@pytest.mark.parametrize(("rows", "found"), [(5, True), (6, False)])
def test_little_fat(rows: int, found: bool) -> None:
    """5 and 6 rows of 2 x 40 voxels: 1.8 and 2.2 cm3."""
    little = {"fat_anterior": torso.box((10, 2, 20), (rows, 2, 40))}
    assert (("fat_small", None) in flags(torso.ct(), torso.rois().with_masks(little))) == found


def test_fat_mixed_with_muscle() -> None:
    ct = painted(((10, 2, 20), (16, 6, 8)), 20.0)
    assert ("fat_mixed", None) in flags(ct, torso.rois())


@pytest.mark.parametrize(("l1", "l2", "found"), [
    (160.0, 185.0, True), (160.0, 180.0, False), (62.0, 80.0, True), (65.0, 72.0, False),
])
def test_levels_that_disagree(l1: float, l2: float, found: bool) -> None:
    """0.853 mg/cm3 per HU: 21.3 and 17.1 of about 150 mg/cm3; 15.4 of 68 (23 %) and 6.0 of 66 (9 %)."""
    assert (("level_disagreement", None) in flags(torso.ct(L1=l1, L2=l2), torso.rois())) == found


def test_incomplete_level_says_why_and_is_information_only() -> None:
    flag = flags(torso.ct(), torso.rois(**torso.incomplete("L2")))["level_incomplete", "L2"]
    assert flag.severity is Severity.INFO
    assert "lower endplate lies outside the scan" in flag.sentence


@pytest.mark.parametrize(("height", "found"), [
    ((19.0, 24.0, 25.0), True), ((24.0, 19.0, 25.0), True), ((20.5, 21.0, 25.0), False),
])
def test_wedge_and_biconcave_fracture(height: tuple[float, float, float], found: bool) -> None:
    result = flags(torso.ct(), torso.rois(**finding("L1", height_mm=height)))
    assert (("fracture_suspected", "L1") in result) == found


@pytest.mark.parametrize(("height", "found"), [(19.0, True), (20.0, False)])
def test_crush_fracture_beside_a_neighbour(height: float, found: bool) -> None:
    """Neighbours are 24.3 mm high on average: 78 % and 82 %. The taller neighbours are not accused."""
    result = flags(torso.ct(), torso.rois(**finding("L1", height_mm=(height,) * 3)))
    assert set(result) == ({("height_below_neighbour", "L1")} if found else set())


def _turned(axis: str, deg: float) -> tuple[tuple[float, float, float], ...]:
    c, s = math.cos(math.radians(deg)), math.sin(math.radians(deg))
    if axis == "coronal":
        return (c, 0.0, -s), (0.0, 1.0, 0.0), (s, 0.0, c)
    if axis == "axial":
        return (c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0)
    return (1.0, 0.0, 0.0), (0.0, c, s), (0.0, -s, c)


@pytest.mark.parametrize(("axis", "deg", "found"), [
    ("coronal", 16, True), ("coronal", -16, True), ("coronal", 14, False), ("axial", 11, True), ("axial", -11, True),
    ("axial", 9, False), ("sagittal", 25, False),
])
def test_rotated_vertebra(axis: str, deg: float, found: bool) -> None:
    """Sagittal tilt is the spine's normal curve and no fault."""
    axes = _turned(axis, deg)
    assert (("rotated", "L2") in flags(torso.ct(), torso.rois(**finding("L2", axes_lps=axes)))) == found
    expected = {"coronal": (abs(deg), 0), "axial": (0, abs(deg)), "sagittal": (0, 0)}[axis]
    assert tilt_and_rotation_deg(axes) == pytest.approx(expected)


def test_sclerosis_in_a_trabecular_region() -> None:
    found = flags(painted(((14, 24, 32), (8, 6, 8)), 300.0), torso.rois())
    assert found["inhomogeneous", "L2"].severity is Severity.CAUTION


def test_cortex_in_the_rim() -> None:
    ct, rois = torso.ct(), torso.rois()
    mask = rois.masks["trabecular_L2"]
    ct.hu[mask.box][0] = 600.0
    rim = 8 * 12 * 16 - 6 * 10 * 14
    assert cortex_excess(ct, mask) == pytest.approx(12 * 16 / rim)
    assert ("cortex_inside", "L2") in flags(ct, rois)


def test_dense_noise_is_not_cortex() -> None:
    noise = np.random.default_rng(2).normal(0, 150, torso.SHAPE_KJI).astype(np.float32)
    ct = CTVolume(torso.hu(L2=200.0) + noise, torso.geometry())
    assert abs(cortex_excess(ct, torso.rois().masks["trabecular_L2"])) < 0.03


@pytest.mark.parametrize(("erosion_mm", "mode", "found"), [
    (4.5, "physical", True), (5.5, "physical", False), (None, "physical", False), (4.5, "paper", False),
])
def test_eroded_by_less_than_asked(erosion_mm: float | None, mode: str, found: bool) -> None:
    rois = replace(torso.rois(**finding("L1", erosion_mm=erosion_mm)), erosion=mode)
    assert (("eroded_less", "L1") in flags(torso.ct(), rois)) == found


def test_sentences_are_whole_and_carry_a_place() -> None:
    ct = painted(((14, 45, 40), (3, 3, 3)), 3000.0)
    for flag in flags(ct, torso.rois(**finding("L1", height_mm=(10.0, 20.0, 25.0)))).values():
        assert flag.sentence.endswith(".")
        assert flag.position_lps_mm is not None
        assert flag.level in flag.sentence
