"""The check before any network: flipped patients and impossible content are caught, good CTs pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from LowDoseBMDLib.check import acquisition_flags, check_ct, orientation_flags, padding_flags, spacing_flags
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.flags import Refusal, Severity
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.headers import is_sharp
from LowDoseBMDLib.orientation import Cues

QUICK_CTS = ("lidc0001/lidc0001_ct_3mm", "lidc0001/lidc0001_ct_T11-L3_1.5x1.5x2.5", "crlm1006/ct", "ts_example/ct")
LARGE_CTS = ("lidc0001/ct", "lidc0314/ct")
ALL_CTS = [*QUICK_CTS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE_CTS)]

FLIPS = {
    "orientation_front_back": (slice(None), slice(None, None, -1), slice(None)),
    "orientation_head_foot": (slice(None, None, -1), slice(None), slice(None)),
    "orientation_rotated": (slice(None, None, -1), slice(None, None, -1), slice(None)),
}


@cache
def load(path: Path) -> CTVolume:
    return read_ct(path)


def block(hu: np.ndarray, spacing_mm: float = 4.0) -> CTVolume:
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    return CTVolume(hu, Geometry(hu.shape, matrix))


def trunk(shape_kji: tuple[int, int, int] = (40, 60, 90), half_width: int = 30) -> np.ndarray:
    """(k, j, i) on 4 mm: an elliptic cylinder of muscle in fat, 2 * half_width voxels wide, with a spine behind."""
    k, j, i = np.indices(shape_kji)
    centre = (np.asarray(shape_kji) - 1) / 2
    radius = np.hypot((j - centre[1]) / 20, (i - centre[2]) / half_width)
    hu = np.full(shape_kji, -1000, np.int16)
    hu[radius < 1.0] = -100
    hu[radius < 0.85] = 50
    hu[(np.abs(i - centre[2]) < 4) & (np.abs(j - centre[1] - 10) < 4)] = 300
    return hu


# --- real CTs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_CTS)
def test_real_cts_pass_and_are_not_called_flipped(name: str, shared_data: Path) -> None:
    codes = [flag.code for flag in check_ct(load(shared_data / f"{name}.nii.gz"))]
    assert not [code for code in codes if code.startswith("orientation")]


@pytest.mark.parametrize("name", ALL_CTS)
@pytest.mark.parametrize("code", FLIPS)
def test_flipped_arrays_under_an_unchanged_header_are_refused(name: str, code: str, shared_data: Path) -> None:
    ct = load(shared_data / f"{name}.nii.gz")
    with pytest.raises(Refusal) as caught:
        check_ct(replace(ct, hu=np.ascontiguousarray(ct.hu[FLIPS[code]])))
    assert caught.value.code == code
    assert "exchange" in str(caught.value)


@pytest.mark.parametrize("name", QUICK_CTS)
def test_a_patient_mirrored_left_to_right_is_not_guessed_at(name: str, shared_data: Path) -> None:
    ct = load(shared_data / f"{name}.nii.gz")
    codes = [flag.code for flag in check_ct(replace(ct, hu=np.ascontiguousarray(ct.hu[:, :, ::-1])))]
    assert not [code for code in codes if code.startswith("orientation")]


@pytest.mark.parametrize(("name", "start", "length_mm"), [
    ("lidc0001/lidc0001_ct_3mm", 0.0, 150), ("lidc0001/lidc0001_ct_3mm", 0.0, 220),
    ("lidc0001/lidc0001_ct_3mm", 0.3, 200), ("crlm1006/ct", 0.0, 160), ("crlm1006/ct", 0.3, 160),
])
def test_parts_of_a_scan_are_judged_like_the_whole(name: str, start: float, length_mm: float,
                                                   shared_data: Path) -> None:
    ct = load(shared_data / f"{name}.nii.gz")
    first, count = int(start * len(ct.hu)), int(length_mm / ct.geometry.spacing_kji_mm[0])
    grid = ct.geometry.crop((first, 0, 0), (min(count, len(ct.hu) - first), *ct.hu.shape[1:]))
    part = CTVolume(ct.hu[first:first + count], grid)
    assert not [flag.code for flag in check_ct(part) if flag.code.startswith("orientation")]
    for flip in FLIPS.values():
        with pytest.raises(Refusal, match="contradicts its header"):
            check_ct(replace(part, hu=np.ascontiguousarray(part.hu[flip])))


def test_thick_slices_and_filler_of_a_real_ct_are_flagged(shared_data: Path) -> None:
    flags = {flag.code: flag for flag in check_ct(load(shared_data / "crlm1006" / "ct.nii.gz"))}
    assert flags["thick_slices"].severity is Severity.CAUTION
    assert "5.0 mm" in flags["thick_slices"].sentence
    assert flags["padding"].severity is Severity.INFO
    assert "-3024 HU" in flags["padding"].sentence


# --- the decision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cues", "code"), [
    ((-1.0, -1.0, 1.0), "orientation_front_back"),
    ((-1.0, -0.8, 0.0), "orientation_front_back"),
    ((1.0, -1.0, -1.0), "orientation_head_foot"),
    ((1.0, -0.8, 0.0), "orientation_head_foot"),
    ((-1.0, 1.0, -1.0), "orientation_rotated"),
    ((-1.0, 0.9, 0.0), "orientation_rotated"),
])
def test_two_agreeing_cues_refuse(cues: tuple[float, float, float], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        orientation_flags(Cues(*cues))
    assert caught.value.code == code


@pytest.mark.parametrize(("cues", "codes"), [
    ((1.0, 1.0, 1.0), []),
    ((1.0, 0.8, -0.4), []),
    ((0.6, 0.6, 0.0), []),
    ((0.0, 0.0, 0.0), ["orientation_unconfirmed"]),
    ((1.0, 0.0, 0.1), ["orientation_unconfirmed"]),
    ((0.4, -0.3, -0.2), ["orientation_doubtful"]),
])
def test_agreement_passes_and_doubt_is_flagged(cues: tuple[float, float, float], codes: list[str]) -> None:
    assert [flag.code for flag in orientation_flags(Cues(*cues))] == codes


# --- not a body ------------------------------------------------------------------------------------------


def box_in_air(hu: float) -> np.ndarray:
    array = np.full((40, 60, 90), -1000, np.int16)
    array[2:38, 10:50, 15:75] = hu
    return array


@pytest.mark.parametrize(("hu", "word"), [
    (np.random.default_rng(0).normal(-1000, 20, (40, 60, 90)).astype(np.float32), "0.00 L"),
    (box_in_air(0.0), "0.0 % bone"),
    (box_in_air(900.0), "100.0 % bone"),
    (trunk() + 1024, "not a person's trunk"),
], ids=["air", "water box", "bone block", "HU shifted by 1024"])
def test_what_is_no_body_is_refused(hu: np.ndarray, word: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_ct(block(hu))
    assert caught.value.code == "not_a_body"
    assert word in str(caught.value)


# --- field of view, filler, header -----------------------------------------------------------------------


def codes_of(hu: np.ndarray) -> dict[str, Severity]:
    return {flag.code: flag.severity for flag in check_ct(block(hu))}


def test_a_body_inside_the_view_is_not_called_truncated() -> None:
    assert "truncated_view" not in codes_of(trunk())


def test_a_body_wider_than_the_image_is_truncated() -> None:
    assert codes_of(trunk()[:, :, 22:-22])["truncated_view"] is Severity.CAUTION


def test_a_body_cut_off_in_the_upper_half_only_is_worth_knowing() -> None:
    hu = trunk(half_width=20)
    hu[25:] = trunk(half_width=60)[25:]
    assert codes_of(hu)["truncated_view"] is Severity.INFO


def test_a_body_that_fills_the_round_view_is_truncated() -> None:
    hu = trunk((40, 70, 70), half_width=40)
    _, j, i = np.indices(hu.shape)
    hu[np.hypot(j - 34.5, i - 34.5) > 34] = -3024
    flags = codes_of(hu)
    assert flags["truncated_view"] is Severity.CAUTION
    assert flags["padding"] is Severity.INFO


def test_air_is_not_filler() -> None:
    assert padding_flags(np.array([-1024, -1200, 50])) == ()
    assert "25.0 %" in padding_flags(np.array([-2000, -1000, 50, 60]))[0].sentence


@pytest.mark.parametrize(("spacing_mm", "thickness_mm", "severity"), [
    (1.0, None, None), (3.0, 3.0, None), (3.0000002, None, None), (1.0, 5.0, Severity.CAUTION),
    (5.0, None, Severity.CAUTION), (6.0, 6.0, Severity.CAUTION), (7.5, None, Severity.LIMITED),
])
def test_thick_slices(spacing_mm: float, thickness_mm: float | None, severity: Severity | None) -> None:
    geometry = Geometry((30, 10, 10), np.diag([1.0, 1.0, spacing_mm, 1.0]))
    flags = spacing_flags(geometry, Acquisition(slice_thickness_mm=thickness_mm))
    assert [flag.severity for flag in flags] == ([severity] if severity else [])


@pytest.mark.parametrize(("acquisition", "codes"), [
    (Acquisition(), []),
    (Acquisition(kvp=120.0, kernel="B30f", contrast_agent="NONE"), []),
    (Acquisition(kernel="LUNG"), ["sharp_kernel"]),
    (Acquisition(contrast_agent="Omnipaque 300"), ["contrast_header"]),
    (Acquisition(kernel="YB", contrast_agent="IV"), ["sharp_kernel", "contrast_header"]),
])
def test_what_the_header_says(acquisition: Acquisition, codes: list[str]) -> None:
    assert [flag.code for flag in acquisition_flags(acquisition)] == codes


@pytest.mark.parametrize("kernel", ["B50f", "B70f", "Bl57d\\3", "I70f\\2", "LUNG", "BONEPLUS", "Lung", "FC51", "FC81",
                                    "FC30", "YA", "L", "B_SHARP_C", "EDGE"])
def test_sharp_kernels(kernel: str) -> None:
    assert is_sharp(kernel)


@pytest.mark.parametrize("kernel", [None, "", "B30f", "B45f", "Br40d\\3", "I31f", "Qr36", "STANDARD", "SOFT", "FC01",
                                    "FC13", "FC08-H", "B", "C", "B_SOFT_B", "unknown"])
def test_smooth_or_unknown_kernels(kernel: str | None) -> None:
    assert not is_sharp(kernel)
