"""Nothing that is written or said names the patient, and what strangers wrote into headers stays text.

Names are planted in headers, in names of folders and files, and in descriptions; then every byte of output is searched.
Only the DICOM results, and the key of a batch, may hold them.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from fault_cases import write_ct_series
from fault_scene import ENVIRONMENT, Given, Scene, run, write_volume
from pydicom.dataset import FileDataset

SECRETS = ("ZQNAME", "Zqfirst", "ZQ77123", "19310203", "1931-02-03", "ZQACC9", "ZQHOSP")
"""Family name, first name, ID, date of birth, accession number, institution: words that occur nowhere by chance."""

MAY_NAME = frozenset({"segmentation.dcm", "report.dcm", "key.csv"})

HOSTILE = {"Manufacturer": "<script>alert(1)</script>", "ManufacturerModelName": "=cmd()|' /C calc'!A0",
           "ConvolutionKernel": "../../escaped", "SeriesDescription": "<img src=x onerror=alert(2)>=1+1",
           "ContrastBolusAgent": "@SUM(1)\x1b[31m", "StudyDate": "/escaped", "ProtocolName": "../../escaped",
           "SeriesInstanceUID": "../../../escaped", "StudyInstanceUID": "/escaped/1.2.3"}
"""Paths, markup, formulas of spreadsheets, and what turns a terminal red."""


def plant(file: FileDataset) -> None:
    file.PatientName, file.PatientID, file.AccessionNumber = "ZQNAME^Zqfirst", "ZQ77123", "ZQACC9"
    file.InstitutionName, file.ReferringPhysicianName = "ZQHOSP", "ZQNAME^Dr"
    file.SeriesDescription, file.StudyDescription = "Chest 1.25 ZQNAME 1931-02-03 ZQ77123", "ZQNAME"
    file.ProtocolName, file.ContrastBolusAgent, file.StationName = "ZQNAME", "none ZQNAME", "ZQHOSP"
    file.PatientComments = file.ImageComments = "ZQNAME, born 19310203"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such values are in archives; whoever quotes them in a warning names the patient
        file.add_new("PatientBirthDate", "DA", "19310203 ZQNAME")
        file.add_new("StudyTime", "TM", "ZQNAME")


def named(out: Path, said: str) -> list[str]:
    """Where a secret stands: in what was said, in file names, and in any byte of any file that may not name the patient."""
    found = [f"said: {word}" for word in SECRETS if word in said]
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() and path.name not in MAY_NAME else b""
        found += [f"{path.name}: {word}" for word in SECRETS
                  if word.encode() in content or word in path.relative_to(out).as_posix()]
    return found


@pytest.fixture
def a_named_series(a_scene: Scene, tmp_path: Path) -> Path:
    return write_ct_series(a_scene, tmp_path / "ZQNAME Zqfirst 19310203", change=plant)


def test_a_measured_series_names_nobody_but_in_dicom(a_scene: Scene, a_named_series: Path, tmp_path: Path) -> None:
    given = Given(a_named_series, ("--rois", str(a_scene.rois), "--verbose", "--json"), own_process=True)
    outcome = run(given, tmp_path / "out")
    assert outcome.record["levels"] == a_scene.levels
    assert not named(tmp_path / "out", outcome.said)
    assert outcome.record["acquisition"]["series_description"] == "Chest 1.25"
    for name in ("segmentation.dcm", "report.dcm"):
        content = (tmp_path / "out" / name).read_bytes()
        assert b"ZQNAME^Zqfirst" in content and b"ZQ77123" in content and b"ZQACC9" in content, "the archive needs them"


@pytest.mark.parametrize(("options", "attributes", "code"), [
    (("--series", "9"), {}, "no_series"), ((), {"RescaleIntercept": 0}, "hu_implausible"),
    ((), {"Modality": "MR"}, "not_ct")])
def test_a_refused_series_names_nobody(options: tuple[str, ...], attributes: dict, code: str, a_scene: Scene,
                                       tmp_path: Path) -> None:
    series = write_ct_series(a_scene, tmp_path / "ZQNAME", change=plant, **attributes)
    outcome = run(Given(series, (*options, "--verbose")), tmp_path / "out")
    assert (outcome.status, outcome.code) == ("refused", code)
    assert not named(tmp_path / "out", outcome.said)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_batch_names_nobody(options: tuple[str, ...], a_scene: Scene, a_named_series: Path, tmp_path: Path) -> None:
    """Measured, refused and damaged studies, and one that is gone; with --json only the refused ones, which are quick."""
    cut = write_volume(tmp_path / "ZQNAME.nrrd", a_scene.hu, a_scene.geometry)
    cut.write_bytes(cut.read_bytes()[:10000])
    (tmp_path / "ZQNAME.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")
    rows = [a_named_series.parent, cut, tmp_path / "ZQNAME.mha", tmp_path / "ZQ77123.nii.gz"][0 if not options else 1:]
    (tmp_path / "studies.csv").write_text("path,labels\n" + "".join(f"{row},{a_scene.labels}\n" for row in rows))
    command = [sys.executable, "-m", "LowDoseBMDLib", "batch", str(tmp_path / "studies.csv"), "-o", str(tmp_path / "out"),
               "--scheme", "verse", "--verbose", *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert not named(tmp_path / "out", done.stdout + done.stderr)
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == (
            ["refused"] * 3 if options else ["measured", "refused", "refused", "refused"])


def test_what_headers_hold_is_text_and_nothing_else(a_scene: Scene, tmp_path: Path) -> None:
    """Never a path, markup, a formula, or an order to the terminal."""
    def poison(file: FileDataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in HOSTILE.items():
                setattr(file, name, value)
    (tmp_path / "a" / "b").mkdir(parents=True)
    series = write_ct_series(a_scene, tmp_path / "a" / "b", change=poison)
    out = tmp_path / "a" / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = run(Given(series, ("--rois", str(a_scene.rois))), out)
    assert outcome.record["levels"] == a_scene.levels
    assert not [*tmp_path.rglob("*escaped*"), *Path("/").glob("escaped*")]
    assert {path.name for path in [*tmp_path.iterdir(), *out.parent.iterdir()]} == {"a", "b", "out"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page and "<img src=x" not in page
    with (out / "measurement.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.])", cell)]
    texts = [outcome.said, *(path.read_text(encoding="utf-8") for path in out.iterdir()
                             if path.suffix in (".html", ".csv", ".json"))]
    assert not [text for text in texts if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.replace("\r\n", "\n"))]


def test_a_result_that_is_a_link_is_replaced_not_followed(a_scene: Scene, tmp_path: Path) -> None:
    """Somebody else's link in the result folder does not lead what is written out of it."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere.json"
    shutil.copytree(a_scene.folder / "plain", out)
    elsewhere.write_text("{}")
    (out / "measurement.json").unlink()
    (out / "measurement.json").symlink_to(elsewhere)
    run(Given(a_scene.ct, ("--rois", str(a_scene.rois))), out)
    assert elsewhere.read_text() == "{}" and not (out / "measurement.json").is_symlink()
