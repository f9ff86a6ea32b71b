"""Damaged inputs of every reader are accepted or refused: none crashes the process, hangs, or ends in a traceback."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from fault_scene import write_volume
from fuzz_inputs import slices, small
from LowDoseBMDLib.calibration import TwoPointCalibration, load_calibration, save_calibration
from LowDoseBMDLib.files.dicom import identity_of, planes_of
from LowDoseBMDLib.files.dicom_pixels import decode
from LowDoseBMDLib.files.markups import read_keypoints
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.segmentation import load_segmentation
from LowDoseBMDLib.flags import Refusal
from LowDoseBMDLib.manifest import Manifest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz.py"


def test_no_reader_falls_over_damaged_inputs() -> None:
    """A few of those that the command gives them, in a process that may crash."""
    run = subprocess.run([sys.executable, str(FUZZ), "--count", "200", "--workers", "1"], capture_output=True, text=True,
                         timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("field", ["space directions: (0.8", "sizes: 36", "space origin: (-31.5"])
def test_a_nrrd_header_with_which_its_library_crashes_is_refused(field: str, tmp_path: Path) -> None:
    path = write_volume(tmp_path / "ct.nrrd", *small())
    content = path.read_bytes()
    assert field.encode() in content
    path.write_bytes(content.replace(field.encode(), field.encode() + b"0" * 5000, 1))
    _refused_as_nrrd(path)
    path.write_bytes(content.replace(field.encode(), field.partition(":")[0].encode() + b" " * 5000, 1))  # no colon at all
    _refused_as_nrrd(path)


def _refused_as_nrrd(path: Path) -> None:
    for read in (read_ct, lambda given: load_segmentation(given, small()[1])):
        with pytest.raises(Refusal, match="5[0-9]{3} characters"):
            read(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_header_that_promises_more_than_the_file_holds_is_refused(ending: str, tmp_path: Path) -> None:
    """A packed NIfTI that was cut before it was packed would else be filled up with water."""
    path = write_volume(tmp_path / f"ct{ending}", *small())
    content = path.read_bytes()
    if ending == ".nii.gz":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-5000]))
    else:
        path.write_bytes(content.replace(b"36 34 20", b"36000 34000 20000", 1))
    with pytest.raises(Refusal, match="shorter than its header says"):
        read_ct(path)


def test_a_deflated_slice_whose_stream_is_damaged_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    slices(tmp_path / "slices")
    path = next(file for file in (tmp_path / "slices").iterdir()
                if pydicom.dcmread(file).file_meta.TransferSyntaxUID == pydicom.uid.DeflatedExplicitVRLittleEndian)
    plane, content = next(planes_of(path)), path.read_bytes()
    path.write_bytes(content[:600] + bytes(200) + content[800:])
    assert list(planes_of(path)) == [] and identity_of(path).series_uid == ""
    with pytest.raises(Refusal, match="damaged"):
        decode(plane)


@pytest.mark.parametrize("number", ["1e308", "1" + "0" * 400])
def test_a_number_whose_square_is_none_is_refused_in_a_calibration(number: str, tmp_path: Path) -> None:
    save_calibration(TwoPointCalibration(covariance=-12.5), tmp_path / "site.json")
    text = (tmp_path / "site.json").read_text().replace("-12.5", number)
    (tmp_path / "site.json").write_text(text)
    with pytest.raises(ValueError, match="covariance"):
        load_calibration(tmp_path / "site.json")


@pytest.mark.parametrize(("read", "ending"), [(load_calibration, ".json"), (read_keypoints, ".mrk.json"),
                                              (lambda path: Manifest(path).latest() or int("none"), ".jsonl")])
def test_json_that_is_nested_without_end_is_not_json(read: Callable[[Path], object], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep{ending}"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError):
        read(path)
