"""The command line as a user meets it: mistakes, interruptions, folders that hold something else, and privacy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.calibration import save_calibration
from LowDoseBMDLib.calibration_models import LineCalibration
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.files.segmentation import write_segmentation
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import Mask, Rois

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"
SECRET = "SECRET^NAME"
BIRTH_DATE = "19310203"
REGIONS = {"trabecular_L1": ((26, 30, 30), 120), "trabecular_L2": ((8, 30, 30), 100), "psoas_left": ((8, 30, 48), 55),
           "fat_anterior": ((8, 6, 24), -105)}
"""First voxel k, j, i of cubes of 12 x 12 x 12 voxels of 3 mm (47 cm3), and their HU."""


@pytest.fixture
def a_ct(tmp_path: Path) -> Path:
    """A block of soft tissue in air, with a bar of bone and four cubes of known HU."""
    hu = np.full((40, 64, 72), -1000, np.int16)
    hu[:, 4:60, 14:68] = 40
    hu[:, 50:54, 30:42] = 500
    for start, value in REGIONS.values():
        hu[_cube(start)] = value
    sitk.WriteImage(_grid().to_image(hu), str(tmp_path / "ct.nii.gz"), True, 1)
    return tmp_path / "ct.nii.gz"


def _cube(start: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(slice(s, s + 12) for s in start)


def _grid(offset_lps_mm: tuple[float, float, float] = (0, 0, 0)) -> Geometry:
    matrix = np.diag([3.0, 3.0, 3.0, 1.0])
    matrix[:3, 3] = offset_lps_mm
    return Geometry((40, 64, 72), matrix)


def _segmentation(path: Path, offset_lps_mm: tuple[float, float, float] = (0, 0, 0)) -> Path:
    masks = {name: Mask(np.ones((12, 12, 12), bool), start) for name, (start, _) in REGIONS.items()}
    write_segmentation(path, Rois(_grid(offset_lps_mm), masks))
    return path


def _record(out: Path) -> dict:
    return json.loads((out / "measurement.json").read_text(encoding="utf-8"))


def _codes(out: Path) -> set[str]:
    return {flag["code"] for flag in _record(out)["flags"]}


def _dicom_series(folder: Path, hu: np.ndarray, number: int, kernel: str, uids: tuple[str, str]) -> None:
    """Slices of 3 mm with the patient's name in every header that holds one; uids: of study and series."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    for k, plane in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.PatientName = file.ReferringPhysicianName = SECRET
        file.PatientID = file.AccessionNumber = file.StudyDescription = file.InstitutionName = SECRET
        file.PatientBirthDate, file.PatientAge, file.PatientSex = BIRTH_DATE, "093Y", "F"
        file.StudyInstanceUID, file.SeriesInstanceUID = uids
        file.Modality, file.Manufacturer, file.KVP, file.ConvolutionKernel = "CT", "SIEMENS", "120", kernel
        file.ManufacturerModelName = "Definition AS"
        file.SeriesNumber, file.InstanceNumber, file.SliceThickness = number, k + 1, "3"
        file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, 3.0 * k], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, (file.Rows, file.Columns) = [3.0, 3.0], plane.shape
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
        file.RescaleIntercept, file.RescaleSlope = "-1024", "1"
        file.PixelData = (plane.astype(np.int32) + 1024).astype("<u2").tobytes()
        file.save_as(folder / f"{SECRET}-{k}", enforce_file_format=True)


@pytest.fixture
def a_dicom_folder(a_ct: Path, tmp_path: Path) -> Path:
    from pydicom.uid import generate_uid

    hu, folder, study = sitk.GetArrayFromImage(sitk.ReadImage(str(a_ct))), tmp_path / SECRET, generate_uid()
    _dicom_series(folder / "smooth", hu, 2, "B30f", (study, generate_uid()))
    _dicom_series(folder / "sharp", hu + 20, 3, "B70f", (study, generate_uid()))
    (folder / "notes.txt").write_text("not DICOM")
    return folder


def test_dicom_reads_as_nifti_does_and_names_nobody(a_dicom_folder, a_ct, tmp_path, capsys, caplog):
    rois = _segmentation(tmp_path / "regions.seg.nrrd")
    assert main(["measure", str(a_ct), "--rois", str(rois), "-o", str(tmp_path / "nifti")]) == 0
    capsys.readouterr()
    out = tmp_path / "dicom"
    assert main(["measure", str(a_dicom_folder), "--rois", str(rois), "-o", str(out), "--verbose"]) == 0
    said = capsys.readouterr()
    assert "Took series 2" in said.out and "sharp kernel" in said.out
    record = _record(out)
    assert record["acquisition"]["kernel"] == "B30f" and record["acquisition"]["kvp"] == 120
    assert record["levels"] == _record(tmp_path / "nifti")["levels"]
    assert (record["acquisition"]["patient_age_years"], record["acquisition"]["patient_sex"]) == (90.0, "F")
    for word in (SECRET, BIRTH_DATE):
        assert word not in said.out + said.err + caplog.text
        assert not [path.name for path in out.iterdir() if word.encode() in path.read_bytes() or word in path.name]


def test_of_a_folder_of_calibrations_a_scan_takes_that_of_its_scanner_and_voltage(a_dicom_folder, a_ct, tmp_path, capsys):
    folder, regions = tmp_path / "calibrations", _segmentation(tmp_path / "s.seg.nrrd")
    folder.mkdir()
    known = {"status": "site", "cohort_size": 80, "intercept_mg_cm3": 8.0, "slope_mg_cm3_per_hu": 0.8,
             "intercept_variance": 1.0, "slope_variance": 0.0, "covariance": 0.0, "residual_sd_mg_cm3": 4.0}
    made_for = {"AS": ("Definition AS", 120.0), "AS 100": ("Definition AS", 100.0), "VCT": ("LightSpeed VCT", 120.0)}
    for name, (scanner, kvp) in made_for.items():
        save_calibration(LineCalibration(**known | {"name": name, "scanner": scanner, "kvp": kvp}), folder / f"{name}.json")
    common = ["-o", str(tmp_path / "out"), "--rois", str(regions), "--calibration"]
    assert main(["measure", str(a_dicom_folder), *common, str(folder)]) == 0
    assert _record(tmp_path / "out")["calibration"]["name"] == "AS"
    assert _record(tmp_path / "out")["mean_vbmd_mg_cm3"] == 96.0, "8 + 0.8 * 110 HU"
    assert main(["measure", str(a_ct), *common, str(folder)]) == 0
    assert _record(tmp_path / "out")["calibration"]["status"] == "uncalibrated", "a scan that does not say its scanner"
    assert main(["measure", str(a_ct), *common, str(folder / "VCT.json")]) == 0
    assert _record(tmp_path / "out")["calibration"]["name"] == "VCT", "a file is for every scan"
    assert main(["measure", str(a_ct), *common, str(tmp_path / "out")]) == 2
    assert "schema_version" in capsys.readouterr().err


def test_the_named_series_is_taken(a_dicom_folder, tmp_path):
    rois = _segmentation(tmp_path / "regions.seg.nrrd")
    main(["measure", str(a_dicom_folder), "--series", "3", "--rois", str(rois), "-o", str(tmp_path / "out")])
    by_name = {level["name"]: level["hu_mean"] for level in _record(tmp_path / "out")["levels"]}
    assert by_name["L1"] == 140 and by_name["L2"] == 120


@pytest.mark.parametrize("name", [f"{SECRET}.nii", f"{SECRET}.nrrd", f"{SECRET}.nii.gz", f"{SECRET}.mha", SECRET])
def test_a_broken_or_missing_file_is_refused_without_its_name(tmp_path, name):
    path = tmp_path / name
    if name != SECRET:
        path.write_bytes(b"garbage")
    assert main(["measure", str(path), "--rois", str(_segmentation(tmp_path / "r.seg.nrrd")), "-o",
                 str(tmp_path / "out")]) == 1
    for file in (tmp_path / "out").iterdir():
        assert SECRET not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("offset_lps_mm", "code"), [((0, 0, 900), "segmentation_elsewhere"),
                                                     ((-80.4, 0, 0), "regions_elsewhere")])
def test_regions_of_another_scan_are_refused(a_ct, tmp_path, offset_lps_mm, code):
    rois = _segmentation(tmp_path / "other.seg.nrrd", offset_lps_mm)
    assert main(["measure", str(a_ct), "--rois", str(rois), "-o", str(tmp_path / "out")]) == 1
    assert code in _codes(tmp_path / "out")


@pytest.mark.parametrize("scan_is_there", [True, False])
def test_the_readers_own_file_in_the_result_folder_is_left_alone(a_ct, tmp_path, scan_is_there):
    (tmp_path / "out").mkdir()
    rois = _segmentation(tmp_path / "out" / "segmentation.seg.nrrd")
    before = rois.read_bytes()
    ct = a_ct if scan_is_there else tmp_path / "typo.nii.gz"
    status = main(["measure", str(ct), "--rois", str(rois), "-o", str(tmp_path / "out")])
    assert status == (0 if scan_is_there else 1)
    assert rois.read_bytes() == before


@pytest.mark.parametrize("more", [["--labels", "nowhere"], ["--rois", "nowhere"], ["--models", "nowhere"],
                                  ["--series", "2"]])
def test_a_wrong_option_is_said_before_any_work(a_ct, tmp_path, capsys, more):
    assert main(["measure", str(a_ct), "-o", str(tmp_path / "out"), *more]) == 2
    said = capsys.readouterr()
    assert more[0] in said.err and not said.out
    assert not (tmp_path / "out").exists()


def test_a_result_folder_that_cannot_be_one_is_said_before_reading(a_ct, tmp_path, capsys):
    (tmp_path / "a_file").write_text("")
    rois = _segmentation(tmp_path / "r.seg.nrrd")
    assert main(["measure", str(a_ct), "--rois", str(rois), "-o", str(tmp_path / "a_file"), "--json"]) == 2
    said = capsys.readouterr()
    assert "--out" in said.err and "a_file" in said.err and '"progress"' not in said.out


def test_every_json_line_is_an_object_and_the_last_one_is_the_record(a_ct, tmp_path, capsys):
    rois = _segmentation(tmp_path / "r.seg.nrrd")
    assert main(["measure", str(a_ct), "--rois", str(rois), "-o", str(tmp_path / "out"), "--json"]) == 0
    *progress, record = map(json.loads, capsys.readouterr().out.splitlines())
    assert record == _record(tmp_path / "out")
    assert progress and all(line.keys() == {"progress", "fraction"} and 0 <= line["fraction"] <= 1 for line in progress)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stage", ["reading regions", "pictures"])
def test_an_interrupted_run_leaves_no_half_file_and_no_result(a_ct, tmp_path, name, stage):
    """The signal is sent as soon as the run says that it is at the stage."""
    rois, out = _segmentation(tmp_path / "r.seg.nrrd"), tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-m", "LowDoseBMDLib", "measure", str(a_ct), "--rois", str(rois), "-o",
                            str(out), "--json"], env=os.environ | {"PYTHONPATH": str(MODULE)}, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           # a shell starts background jobs with SIGINT ignored, and children inherit that
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for line in run.stdout:
        if json.loads(line).get("progress") == stage:
            run.send_signal(getattr(signal, name))
            break
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1 and "stopped" in errors and "Traceback" not in errors
    assert not [path.name for path in out.iterdir() if path.name.startswith(".") or path.name == "measurement.json"]


def test_the_real_demo_takes_the_way_of_measure(tmp_path, monkeypatch):
    from LowDoseBMDLib import demo

    monkeypatch.setattr(demo, "real_ct", lambda _allowed: tmp_path / "gone.nii.gz")
    assert main(["demo", "--real", "-o", str(tmp_path / "out")]) == 1
    assert _codes(tmp_path / "out") == {"path_missing"}


def test_a_reader_of_the_output_that_leaves_early_is_no_error(a_ct, tmp_path):
    rois, out = _segmentation(tmp_path / "r.seg.nrrd"), tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-m", "LowDoseBMDLib", "measure", str(a_ct), "--rois", str(rois), "-o",
                            str(out)],
                           env=os.environ | {"PYTHONPATH": str(MODULE)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    errors = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=60) == 0 and errors == b""
    assert _record(out)["status"] == "measured"
