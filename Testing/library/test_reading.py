"""Reading CTs and label maps: the same patient comes out of every file, and unfit data are refused by name."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
from dataclasses import fields, replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_ct, read_labels, reorient
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.geometry import Geometry
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

SHAPE_KJI = (24, 22, 26)
SPACING_MM = (0.8, 0.9, 2.5)
ORIGIN_MM = (-31.5, 12.25, -400.0)
MARK_KJI, MARK_HU = (5, 7, 11), 1234
CODES = ["".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)]


def make_hu() -> np.ndarray:
    """(k, j, i) int16, no two rows alike, from -1000 to 800 HU, one marked voxel."""
    hu = np.random.default_rng(7).integers(-1000, 800, SHAPE_KJI).astype(np.int16)
    hu[MARK_KJI] = MARK_HU
    return hu


def make_image(hu: np.ndarray | None = None, direction: np.ndarray | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray(make_hu() if hu is None else hu)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_MM)
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    return image


def turned(degrees: float) -> np.ndarray:
    """(3, 3) rotation about the head-foot axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def write(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def mark_lps_mm(ct: CTVolume) -> np.ndarray:
    return ct.geometry.to_lps(np.argwhere(ct.hu == MARK_HU)[0])


def refused(path: Path, series: str | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_ct(path, series)
    return caught.value


# --- NIfTI, NRRD, MetaImage ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_every_axis_order_reads_back_to_the_same_patient(code: str, tmp_path: Path) -> None:
    stored = sitk.DICOMOrient(make_image(), code)
    ct = read_ct(write(stored, tmp_path / "ct.nrrd"))
    assert ct.hu.dtype == np.int16
    np.testing.assert_array_equal(ct.hu, make_hu())
    np.testing.assert_allclose(ct.geometry.spacing_mm, SPACING_MM)
    truth = np.array(ORIGIN_MM) + np.array(SPACING_MM) * MARK_KJI[::-1]
    np.testing.assert_allclose(mark_lps_mm(ct), truth, atol=1e-4)


def test_there_are_48_axis_orders() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha"])
def test_oblique_volumes_keep_direction_and_values_in_every_format(ending: str, tmp_path: Path) -> None:
    image = sitk.DICOMOrient(make_image(direction=turned(12.0)), "RAS")
    ct = read_ct(write(image, tmp_path / f"ct{ending}"))
    np.testing.assert_array_equal(ct.hu, make_hu())
    np.testing.assert_allclose(ct.geometry.direction, turned(12.0), atol=1e-5)
    truth = np.array(ORIGIN_MM) + turned(12.0) @ (np.array(SPACING_MM) * MARK_KJI[::-1])
    np.testing.assert_allclose(mark_lps_mm(ct), truth, atol=1e-3)


def test_whole_numbers_become_int16_and_fractions_stay(tmp_path: Path) -> None:
    whole = make_hu().astype(np.float64)
    assert read_ct(write(make_image(whole), tmp_path / "whole.nrrd")).hu.dtype == np.int16
    ct = read_ct(write(make_image(whole + 0.25), tmp_path / "fraction.nrrd"))
    assert ct.hu.dtype == np.float32
    np.testing.assert_array_equal(ct.hu, (whole + 0.25).astype(np.float32))


def test_a_nifti_scale_and_offset_are_applied(tmp_path: Path) -> None:
    path = write(make_image((make_hu() + 1024).astype(np.int16)), tmp_path / "ct.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([1.0, -1024.0], "<f4").tobytes()
    path.write_bytes(content)
    np.testing.assert_array_equal(read_ct(path).hu, make_hu())


def test_axes_between_the_patients_axes_are_refused() -> None:
    between_all_axes = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
    with pytest.raises(Refusal) as caught:
        reorient(make_hu(), Geometry.from_image(make_image(direction=between_all_axes)))
    assert caught.value.code == "oblique"


def with_nan() -> np.ndarray:
    hu = make_hu().astype(np.float32)
    hu[3, 3, 3] = np.nan
    return hu


@pytest.mark.parametrize(("hu", "code", "word"), [
    (make_hu()[:19], "too_few_slices", "19 slices"),
    (with_nan(), "not_finite", "1 voxels"),
    (np.full(SHAPE_KJI, -1000, np.int16), "constant", "-1000"),
    ((make_hu() + 1024).astype(np.uint16), "hu_implausible", "rescale"),
    (np.clip(make_hu(), -150, 250), "hu_implausible", "-150"),
    (np.clip(make_hu(), -1000, 100), "hu_implausible", "bone"),
], ids=["slices", "nan", "constant", "raw", "windowed", "no bone"])
def test_values_that_cannot_be_a_ct_are_refused(hu: np.ndarray, code: str, word: str, tmp_path: Path) -> None:
    refusal = refused(write(make_image(hu), tmp_path / "ct.nrrd"))
    assert refusal.code == code
    assert word in str(refusal)


def test_a_4d_file_with_one_volume_is_that_volume(tmp_path: Path) -> None:
    path = write(sitk.JoinSeries([make_image()]), tmp_path / "ct.nii")
    np.testing.assert_array_equal(read_ct(path).hu, make_hu())


def test_colour_flat_and_time_series_are_refused(tmp_path: Path) -> None:
    grey = make_image((make_hu() + 1024).astype(np.uint8))
    assert refused(write(sitk.Compose([grey] * 3), tmp_path / "rgb.nrrd")).code == "colour"
    assert refused(write(sitk.JoinSeries([make_image()] * 2), tmp_path / "4d.nrrd")).code == "not_3d"
    assert refused(write(make_image()[:, :, 3], tmp_path / "slice.nrrd")).code == "not_3d"


def test_a_sheared_nifti_is_refused_with_its_angle(tmp_path: Path) -> None:
    path = write(make_image(), tmp_path / "ct.nii")
    content = bytearray(path.read_bytes())
    srow = np.frombuffer(bytes(content[280:328]), "<f4").reshape(3, 4).copy()
    srow[1, 2] += SPACING_MM[2] * np.tan(np.radians(10.0))
    content[280:328] = srow.tobytes()
    path.write_bytes(content)
    refusal = refused(path)
    assert refusal.code == "sheared"
    assert "10.0 degrees" in str(refusal) or "right angles" in str(refusal)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_files_cut_short_are_refused(ending: str, tmp_path: Path) -> None:
    path = write(make_image(), tmp_path / f"ct{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refused(path).code in ("truncated", "unreadable")


def test_gzip_in_several_members_is_whole(tmp_path: Path) -> None:
    content = write(make_image(), tmp_path / "ct.nii").read_bytes()
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    np.testing.assert_array_equal(read_ct(path).hu, make_hu())


def test_nothing_there_and_nothing_readable(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent").code == "path_missing"
    (tmp_path / "notes.txt").write_text("no image")
    assert refused(tmp_path).code == "no_image"
    assert refused(tmp_path / "notes.txt").code == "no_image"


# --- DICOM -----------------------------------------------------------------------------------------------


def make_slice(k: int, series_uid: str, number: int = 1, **changes: object) -> pydicom.FileDataset:
    """Slice k of an axial series: stored values are HU + 1024. A change to None removes the attribute."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.Modality, ds.StudyDate = "SECRET^NAME", "CT", "20240131"
    ds.Manufacturer, ds.ManufacturerModelName = "ACME", "Scan 64"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SeriesNumber = "1.2.3", series_uid, number
    ds.SeriesDescription, ds.InstanceNumber, ds.ImageType = "Chest", k + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP, ds.XRayTubeCurrent, ds.ConvolutionKernel, ds.SliceThickness = 120, 40, "B30f", 2.5
    ds.ReconstructionDiameter = 350
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [ORIGIN_MM[0], ORIGIN_MM[1], round(ORIGIN_MM[2] + SPACING_MM[2] * k, 1)]
    ds.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
    ds.Rows, ds.Columns = SHAPE_KJI[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = (make_hu()[k] + 1024).astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def write_series(folder: Path, number: int = 1, slices: tuple[int, ...] = tuple(range(SHAPE_KJI[0])),
                 **changes: object) -> str:
    """Write slices under names in no useful order; returns the series UID."""
    folder.mkdir(exist_ok=True, parents=True)
    uid = generate_uid()
    for n, k in enumerate(slices):
        ds = make_slice(k, uid, number, **changes)
        ds.save_as(folder / f"{number}_{(k * 7) % SHAPE_KJI[0]:03d}_{n}")
    return uid


def rewrite(folder: Path, change: object) -> None:
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path)


def test_a_dicom_folder_gives_hu_geometry_and_acquisition(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "deep" / "er")
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    ct = read_ct(tmp_path)
    assert ct.hu.dtype == np.int16
    np.testing.assert_array_equal(ct.hu, make_hu())
    truth = np.array(ORIGIN_MM) + np.array(SPACING_MM) * MARK_KJI[::-1]
    np.testing.assert_allclose(mark_lps_mm(ct), truth, atol=1e-4)
    a = ct.acquisition
    assert (a.source, a.modality, a.manufacturer, a.scanner) == ("dicom", "CT", "ACME", "Scan 64")
    assert (a.kvp, a.tube_current_ma, a.kernel, a.slice_thickness_mm) == (120.0, 40.0, "B30f", 2.5)
    assert (a.field_of_view_mm, a.contrast_agent, a.study_date) == (350.0, None, "20240131")
    assert (a.study_uid, a.series_uid, a.series_description, a.series_choice) == ("1.2.3", uid, "Chest", None)
    assert (a.patient_age_years, a.patient_sex) == (None, None)
    assert not any("SECRET" in str(getattr(a, f.name)) for f in fields(a))


@pytest.mark.parametrize(("age", "sex", "expected"), [
    ("057Y", "F", (57.0, "F")), ("018M", "M", (1.5, "M")), ("093Y", "F", (90.0, "F")), ("", "O", (None, None)),
    ("000Y", "", (None, None))])
def test_age_and_sex_are_read_and_no_other_identity(age: str, sex: str, expected: tuple, tmp_path: Path) -> None:
    write_series(tmp_path, PatientAge=age, PatientSex=sex, PatientBirthDate="19480203")
    a = read_ct(tmp_path).acquisition
    assert (a.patient_age_years, a.patient_sex) == expected
    told = str(replace(a, series_uid=None))  # a random number, which may hold any digits
    assert not any(word in told for word in ("SECRET", "1948", "93"))


def test_one_slice_of_a_series_stands_for_it(tmp_path: Path) -> None:
    write_series(tmp_path, 1)
    uid = write_series(tmp_path, 2, RescaleIntercept=-1000)
    ct = read_ct(sorted(tmp_path.glob("2_*"))[0])
    assert ct.acquisition.series_uid == uid
    np.testing.assert_array_equal(ct.hu, make_hu() + 24)


def test_the_rescale_of_each_slice_counts(tmp_path: Path) -> None:
    write_series(tmp_path)

    def halve(ds: Dataset) -> None:
        if ds.InstanceNumber % 2:
            ds.RescaleSlope, ds.RescaleIntercept = "0.5", -1000
    rewrite(tmp_path, halve)
    truth = make_hu().astype(np.float32)
    truth[::2] = (truth[::2] + 1024) * 0.5 - 1000
    np.testing.assert_array_equal(read_ct(tmp_path).hu, truth)


def test_a_prone_feet_first_series_is_turned_back(tmp_path: Path) -> None:
    write_series(tmp_path, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    np.testing.assert_array_equal(read_ct(tmp_path).hu, make_hu()[:, ::-1, ::-1])


@pytest.mark.parametrize(("first", "second", "taken", "why"), [
    ({"ConvolutionKernel": "B70f"}, {}, 2, "sharp kernel"),
    ({}, {"ConvolutionKernel": "LUNG"}, 1, "sharp kernel"),
    ({"ContrastBolusAgent": "Iohexol"}, {}, 2, "contrast agent"),
    ({}, {"SliceThickness": 5}, 1, "thicker"),
    ({"slices": tuple(range(21))}, {"slices": tuple(range(24)), "spacing": True}, 2, "covers less"),
    ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, {}, 2, "workstation"),
    ({"SeriesDescription": "LOW DOSE CHEST"}, {"SeriesDescription": "Thick MIP"}, 1, None),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {}, 2, None),
    ({"Modality": "PT"}, {}, 2, None),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, {}, 2, None),
])
def test_the_series_that_suits_is_chosen(first: dict, second: dict, taken: int, why: str | None,
                                         tmp_path: Path) -> None:
    second = dict(second)
    stretch = second.pop("spacing", False)
    uids = {1: write_series(tmp_path / "a", 1, **first), 2: write_series(tmp_path / "b", 2, **second)}
    if stretch:
        rewrite(tmp_path / "b", lambda ds: setattr(ds, "ImagePositionPatient", [0, 0, 5.0 * ds.InstanceNumber]))
    acquisition = read_ct(tmp_path).acquisition
    assert acquisition.series_uid == uids[taken]
    if why:
        assert f"Took series {taken} (Chest)" in acquisition.series_choice
        assert why in acquisition.series_choice.split("Left out")[1]


def test_the_series_can_be_named(tmp_path: Path) -> None:
    first, second = write_series(tmp_path, 1), write_series(tmp_path, 2, ConvolutionKernel="B70f")
    assert read_ct(tmp_path, series="2").acquisition.series_uid == second
    assert read_ct(tmp_path, series=first).acquisition.series_uid == first
    refusal = refused(tmp_path, series="9")
    assert refusal.code == "no_series"
    assert "series 1 (Chest)" in str(refusal)


def test_copies_of_a_slice_are_one_slice(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    (tmp_path / "copy").write_bytes(sorted((tmp_path / "a").iterdir())[3].read_bytes())
    np.testing.assert_array_equal(read_ct(tmp_path).hu, make_hu())


def test_missing_slices_are_counted_and_placed(tmp_path: Path) -> None:
    write_series(tmp_path, slices=tuple(k for k in range(24) if k not in (10, 11)))
    refusal = refused(tmp_path)
    assert refusal.code == "missing_slices"
    assert "2 of 24 slices" in str(refusal)
    assert "-377.5 and -370.0" in str(refusal)


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)

    def spread(ds: Dataset) -> None:
        if ds.InstanceNumber > 12:
            ds.ImagePositionPatient = [*ORIGIN_MM[:2], float(ds.ImagePositionPatient[2]) + 1.1]
    rewrite(tmp_path, spread)
    refusal = refused(tmp_path)
    assert refusal.code == "uneven_slices"
    assert "-372.5 and -368.9" in str(refusal)


def test_doubled_positions_are_refused_unless_acquisitions_explain_them(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "a", 1)
    for k in range(24):
        make_slice(k, uid, 1, AcquisitionNumber=2, RescaleIntercept=-1000).save_as(tmp_path / "a" / f"second_{k}")
    assert read_ct(tmp_path).acquisition.series_uid == uid
    rewrite(tmp_path / "a", lambda ds: setattr(ds, "AcquisitionNumber", 1))
    refusal = refused(tmp_path)
    assert refusal.code == "doubled_slices"
    assert "24 slice positions" in str(refusal)


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    c, s = np.cos(np.radians(15.0)), np.sin(np.radians(15.0))
    write_series(tmp_path, ImageOrientationPatient=[1, 0, 0, 0, float(c), float(-s)])
    refusal = refused(tmp_path)
    assert refusal.code == "gantry_tilt"
    assert "15.0 degrees" in str(refusal)


def test_tilted_slices_that_are_stacked_along_their_normal_are_read(tmp_path: Path) -> None:
    write_series(tmp_path)
    c, s = np.cos(np.radians(15.0)), np.sin(np.radians(15.0))

    def turn(ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 0, 0, 0, float(round(c, 8)), float(round(-s, 8))]
        ds.ImagePositionPatient = [float(round(v, 6)) for v in np.array([0, s, c]) * 2.5 * ds.InstanceNumber]
    rewrite(tmp_path, turn)
    ct = read_ct(tmp_path)
    np.testing.assert_array_equal(ct.hu, make_hu())
    np.testing.assert_allclose(ct.geometry.direction[:, 2], [0, s, c], atol=1e-6)


@pytest.mark.parametrize(("changes", "code", "word"), [
    ({"RescaleIntercept": None}, "no_rescale", "secondary capture"),
    ({"RescaleSlope": None}, "no_rescale", "HU"),
    ({"Modality": "MR", "SOPClassUID": MRImageStorage}, "not_ct", "MR"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "no_axial_ct", "localizer"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "no_axial_ct", "coronal"),
    ({"ImagePositionPatient": None}, "no_position", "position"),
    ({"RescaleIntercept": 0}, "hu_implausible", "rescale"),
    ({"slices": tuple(range(12))}, "too_few_slices", "12"),
    ({"slices": (3,)}, "too_few_slices", "single"),
    ({"PixelData": b"\0" * 100}, "truncated", "incomplete"),
])
def test_unfit_series_are_refused(changes: dict, code: str, word: str, tmp_path: Path) -> None:
    write_series(tmp_path, **changes)
    refusal = refused(tmp_path)
    assert refusal.code == code
    assert word in str(refusal)
    assert "SECRET" not in str(refusal)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_lossless_compressed_slices_are_read(compressor: str, tmp_path: Path) -> None:
    write_series(tmp_path / "scan")

    def compress(ds: Dataset) -> None:
        stored = sitk.GetImageFromArray((make_hu()[[ds.InstanceNumber - 1]] + 1024).astype(np.uint16))
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "compressed.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(stored)
        compressed = pydicom.dcmread(tmp_path / "compressed.dcm")
        ds.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        ds["PixelData"] = compressed["PixelData"]
        assert ds.file_meta.TransferSyntaxUID.is_compressed
    rewrite(tmp_path / "scan", compress)
    np.testing.assert_array_equal(read_ct(tmp_path / "scan").hu, make_hu())


HTJ2K_RAMP = base64.b64decode(
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHIAAf+TwAAmq/0FB3QAAMAAEsAAEwDwAMd0AJD8Aod0AMAAEsAAE4DAAEJ0"
    "AEYa+QCDVADAABLAABVg8LTydAAePTw8/sAxgey2AMAAJ4AAWgAA58ApS+YAft/3fd/3/YQge/YQgey6AP/Z")
"""Stored values 64 j + i of 16 x 16 voxels, as OpenJPH encodes them without loss; no package of the tests does."""


def test_high_throughput_jpeg_2000_slices_are_read(tmp_path: Path) -> None:
    def compress(ds: Dataset) -> None:
        ds.Rows, ds.Columns, ds.RescaleSlope = 16, 16, 2
        store(ds, HTJ2K_RAMP, pydicom.uid.HTJ2KLossless)
    write_series(tmp_path)
    rewrite(tmp_path, compress)
    ramp = 2 * (64 * np.arange(16)[:, None] + np.arange(16)) - 1024
    np.testing.assert_array_equal(read_ct(tmp_path).hu, np.broadcast_to(ramp, (SHAPE_KJI[0], 16, 16)))


def test_a_compression_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_series(tmp_path)
    rewrite(tmp_path, lambda ds: store(ds, ds.PixelData, pydicom.uid.MPEG2MPML))
    refusal = refused(tmp_path)
    assert refusal.code == "compression"
    assert "MPEG2 Main Profile" in str(refusal) and "1.2.840.10008.1.2.4.100" in str(refusal)


def store(ds: Dataset, code: bytes, syntax: str) -> None:
    """One compressed frame, as its transfer syntax says."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pydicom.encaps.encapsulate([code])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True


def test_run_length_compressed_slices_are_read(tmp_path: Path) -> None:
    write_series(tmp_path)
    rewrite(tmp_path, lambda ds: ds.compress(pydicom.uid.RLELossless))
    np.testing.assert_array_equal(read_ct(tmp_path).hu, make_hu())


def test_slices_without_preamble_are_read(tmp_path: Path) -> None:
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        ds.preamble, ds.file_meta = None, FileMetaDataset()
        pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert next(tmp_path.iterdir()).read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_ct(tmp_path).hu, make_hu())


def group(**values: object) -> Sequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def test_an_enhanced_multi_frame_ct_is_read(tmp_path: Path) -> None:
    ds = make_slice(0, generate_uid(), RescaleSlope=None, RescaleIntercept=None, ImagePositionPatient=None,
                    ImageOrientationPatient=None, PixelSpacing=None, KVP=None, ConvolutionKernel=None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    order = np.random.default_rng(1).permutation(SHAPE_KJI[0])
    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = group(PixelSpacing=[SPACING_MM[1], SPACING_MM[0]], SliceThickness=2.5)
    shared.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-1024)
    shared.CTXRayDetailsSequence = group(KVP=100)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[*ORIGIN_MM[:2], ORIGIN_MM[2] + 2.5 * int(k)])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.NumberOfFrames = SHAPE_KJI[0]
    ds.PixelData = (make_hu()[order] + 1024).astype("<u2").tobytes()
    ds.save_as(tmp_path / "enhanced.dcm")
    ct = read_ct(tmp_path)
    np.testing.assert_array_equal(ct.hu, make_hu())
    assert ct.acquisition.kvp == 100.0
    truth = np.array(ORIGIN_MM) + np.array(SPACING_MM) * MARK_KJI[::-1]
    np.testing.assert_allclose(mark_lps_mm(ct), truth, atol=1e-4)


# --- label maps ------------------------------------------------------------------------------------------


def make_labels() -> np.ndarray:
    labels = np.zeros(SHAPE_KJI, np.uint8)
    labels[4:12, 5:15, 6:18] = 31
    labels[14:20, 5:15, 6:18] = 32
    return labels


@pytest.mark.parametrize("code", ["RAS", "LPS", "PSR", "AIL"])
def test_labels_on_the_same_grid_in_another_axis_order_are_exact(code: str, tmp_path: Path) -> None:
    ct = reorient(make_hu(), Geometry.from_image(make_image()))
    path = write(sitk.DICOMOrient(make_image(make_labels()), code), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_labels(path, ct.geometry), make_labels())


def test_labels_on_another_grid_take_the_nearest_voxel(tmp_path: Path) -> None:
    geometry = Geometry.from_image(make_image())
    fine = make_labels().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    image = geometry.with_spacing(tuple(geometry.spacing_mm / 2)).to_image(fine)
    np.testing.assert_array_equal(read_labels(write(image, tmp_path / "l.nrrd"), geometry), make_labels())


def test_labels_written_as_whole_floats_are_labels(tmp_path: Path) -> None:
    path = write(make_image(make_labels().astype(np.float32)), tmp_path / "l.nii.gz")
    labels = read_labels(path, Geometry.from_image(make_image()))
    assert np.issubdtype(labels.dtype, np.integer)
    np.testing.assert_array_equal(labels, make_labels())


@pytest.mark.parametrize(("labels", "shift_mm", "code"), [
    (make_labels() * 0, 0.0, "labels_empty"),
    (make_labels() + 0.5, 0.0, "labels_not_whole"),
    (make_labels(), 40.0, "labels_elsewhere"),
])
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, shift_mm: float, code: str,
                                            tmp_path: Path) -> None:
    image = make_image(labels)
    image.SetOrigin((ORIGIN_MM[0], ORIGIN_MM[1], ORIGIN_MM[2] + shift_mm))
    path = write(image, tmp_path / "l.nrrd")
    with pytest.raises(Refusal) as caught:
        read_labels(path, Geometry.from_image(make_image()))
    assert caught.value.code == code


# --- real CTs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lidc0001/lidc0001_ct_3mm", "crlm1006/ct", "ts_example/ct"])
def test_real_cts_keep_every_voxel_in_its_place(name: str, shared_data: Path) -> None:
    path = shared_data / f"{name}.nii.gz"
    ct, image = read_ct(path), sitk.ReadImage(str(path))
    for kji in np.random.default_rng(3).integers(0, ct.hu.shape, (200, 3)):
        index = image.TransformPhysicalPointToIndex(ct.geometry.to_lps(kji).tolist())
        assert image.GetPixel(index) == ct.hu[tuple(kji)]


def test_labels_of_a_real_ct_lie_on_its_bones(shared_data: Path) -> None:
    ct = read_ct(shared_data / "ts_example" / "ct.nii.gz")
    bodies = read_labels(shared_data / "ts_example" / "vertebral_bodies.nii.gz", ct.geometry)
    assert bodies.shape == ct.hu.shape
    assert np.median(ct.hu[bodies > 0]) > np.median(ct.hu[(bodies == 0) & (ct.hu > -300)]) + 50


def test_a_folder_with_two_studies_is_not_guessed_at(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 1)
    uid = write_series(tmp_path / "b", 2, StudyInstanceUID="1.2.4")
    with pytest.raises(Refusal, match="2 different studies") as refusal:
        read_ct(tmp_path)
    assert refusal.value.code == "several_studies"
    assert read_ct(tmp_path, series=uid).acquisition.study_uid == "1.2.4"


def test_values_that_are_stated_not_to_be_hu_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "od", RescaleType="OD")
    with pytest.raises(Refusal, match="OD") as refusal:
        read_ct(tmp_path / "od")
    assert refusal.value.code == "no_rescale"
    write_series(tmp_path / "us", RescaleType="US")
    assert read_ct(tmp_path / "us").hu.shape == SHAPE_KJI


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
import SimpleITK
from LowDoseBMDLib.files.volumes import read_volume
path = Path(sys.argv[1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
size = path.stat().st_size  # room for the image, but not for what the NIfTI library reads into as well
resource.setrlimit(resource.RLIMIT_AS, (used + size * 3 // 2,) * 2)
try:
    read_volume(path)
except MemoryError:
    print("no room")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_a_whole_file_that_memory_has_no_room_for_is_not_called_damaged(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((128, 512, 512), np.int16)), str(tmp_path / "ct.nii"))
    module = Path(__file__).resolve().parents[2] / "LowDoseBMD"
    done = subprocess.run([sys.executable, "-c", WITHOUT_ROOM, str(tmp_path / "ct.nii")], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(module)}, check=False)
    assert done.stdout == "no room\n", done.stderr
