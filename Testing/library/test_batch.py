"""Many studies as a site meets them: found in an archive, measured apart, killed, resumed, and named to nobody."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import small_torso as torso
from dicom_series import PATIENT, write_ct_series
from LowDoseBMDLib import batch
from LowDoseBMDLib.bundle import load_models
from LowDoseBMDLib.cli import main
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_ct
from LowDoseBMDLib.files.studies import Study, find_studies
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from pydicom.uid import generate_uid

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"
SECRET = "SECRET^NAME"
DAMAGED = b"\0" * 128 + b"DICM" + b"\1" * 40


# --- finding studies ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ten_slices():
    """A few slices are enough where no pixel is read."""
    return CTVolume(torso.hu()[:4, ::6, ::6].astype(np.int16), Geometry((4, 10, 14), torso.geometry().ijk_to_lps))


def contents(studies: list[Study], home: Path) -> list[list[str]]:
    return [sorted(str(path.relative_to(home)) for path in study.sources) for study in studies]


def slices(*folders: str) -> list[str]:
    return sorted(f"{folder}/{k:04d}.dcm" for folder in folders for k in range(4))


def test_files_belong_together_by_the_study_they_name(ten_slices, tmp_path: Path) -> None:
    """One study over two folders, two studies in one folder, and what is no CT slice of them."""
    first, second, third = (generate_uid() for _ in range(3))
    write_ct_series(tmp_path / "x" / "a", ten_slices, first)
    write_ct_series(tmp_path / "y" / "a", ten_slices, first)
    write_ct_series(tmp_path / "x" / "mr", ten_slices, first, Modality="MR")
    for uid, name in ((second, "s"), (third, "t")):
        write_ct_series(tmp_path / name, ten_slices, uid)
        for path in (tmp_path / name).iterdir():
            (tmp_path / "both").mkdir(exist_ok=True)
            path.rename(tmp_path / "both" / f"{name}{path.name}")
        (tmp_path / name).rmdir()
    write_ct_series(tmp_path / "only_mr", ten_slices, generate_uid(), Modality="MR")
    (tmp_path / "both" / "notes.txt").write_text("no image")
    (tmp_path / "both" / "torn.dcm").write_bytes(DAMAGED)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.dcm").write_bytes(DAMAGED)
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "ct.nii.gz").write_bytes(b"")
    (tmp_path / "v.nii.gz").write_bytes(b"")
    (tmp_path / "v.seg.nrrd").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ct.nii.gz").write_bytes(b"")
    found = contents(find_studies(tmp_path, skip=tmp_path / "out"), tmp_path)
    assert found == [[f"both/s000{k}.dcm" for k in range(4)], [f"both/t000{k}.dcm" for k in range(4)], slices("only_mr"),
                     ["torn"], ["v.nii.gz"], slices("x/a", "y/a")]


def test_a_link_to_a_folder_is_not_followed(ten_slices, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "elsewhere" / "a", ten_slices, generate_uid())
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "loop").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="holds no studies"):
        find_studies(tmp_path / "tree")


def test_a_dicomdir_names_its_studies(ten_slices, tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    files = FileSet()
    for name in ("a", "b"):
        write_ct_series(tmp_path / name, ten_slices, generate_uid(), SeriesNumber=1)
        for path in (tmp_path / name).iterdir():
            files.add(path)
    files.write(tmp_path / "disc")
    (tmp_path / "disc" / "not_listed.nii.gz").write_bytes(b"")
    found = find_studies(tmp_path / "disc" / "DICOMDIR")
    assert [len(study.sources) for study in found] == [4, 4]
    assert {study.names[0] for study in found} == {
        str(pydicom.dcmread(tmp_path / name / "0000.dcm").StudyInstanceUID) for name in ("a", "b")}


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_that_names_files_elsewhere_is_refused(ten_slices, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "private", ten_slices, generate_uid())
    (tmp_path / "disc").mkdir()
    record = pydicom.Dataset()
    record.ReferencedFileID = ["..", "private", "0000.dcm"]
    listing = pydicom.dcmread(tmp_path / "private" / "0000.dcm")
    listing.DirectoryRecordSequence = [record]
    listing.save_as(tmp_path / "disc" / "DICOMDIR")
    with pytest.raises(ValueError, match="outside its folder"):
        find_studies(tmp_path / "disc" / "DICOMDIR")


def test_rows_of_a_csv_are_studies_once_each(ten_slices, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", ten_slices, generate_uid())
    write_ct_series(tmp_path / "two" / "b", ten_slices, generate_uid())
    write_ct_series(tmp_path / "two" / "c", ten_slices, generate_uid())
    (tmp_path / "list.csv").write_text("\ufeffpath,labels\na,\ntwo,\na,\nct.nii.gz,\nct.nii.gz,l.nii.gz\ngone,\n", "utf-8")
    found = find_studies(tmp_path / "list.csv")
    assert contents(found, tmp_path) == [slices("a"), slices("two/b"), slices("two/c"), ["ct.nii.gz"], ["ct.nii.gz"],
                                         ["gone"]]
    assert [study.labels for study in found[3:5]] == [None, tmp_path / "l.nii.gz"]


@pytest.mark.parametrize(("better", "worse", "why"), [
    ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, "sharp kernel"),
    ({"SliceThickness": "2"}, {"SliceThickness": "5"}, "thicker slices"),
    ({"ContrastBolusAgent": ""}, {"ContrastBolusAgent": "Iohexol"}, "contrast agent"),
    ({"ContrastBolusAgent": "", "ConvolutionKernel": "B70f"}, {"ContrastBolusAgent": "Iohexol"}, "contrast agent")])
def test_of_a_study_the_best_series_is_taken_and_the_reason_told(tmp_path: Path, better, worse, why) -> None:
    """Although it lies in another folder and comes second."""
    hu = torso.hu()[:24, ::4, ::4]
    hu[0], hu[1, :4] = -1000, 500
    study, ct = generate_uid(), CTVolume(hu, Geometry(hu.shape, torso.geometry().ijk_to_lps))
    write_ct_series(tmp_path / "a", ct, study, SeriesNumber=1, **worse)
    best = write_ct_series(tmp_path / "b" / "c", ct, study, SeriesNumber=2, **better)
    (found,) = find_studies(tmp_path)
    acquisition = read_ct(found.sources).acquisition
    assert acquisition.series_uid == best
    assert acquisition.series_choice.endswith(f"Left out series 1: {why}.")


# --- measuring them ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def a_phantom(tmp_path_factory) -> Path:
    """A folder with a phantom's CT, coarse to be quick, and its vertebrae in VerSe's numbers."""
    folder = tmp_path_factory.mktemp("phantom")
    made = make_phantom(PhantomSpec(seed=4, spacing_mm=(3.0, 3.0, 4.0)))
    for name, values in (("ct", made.ct.hu), ("labels", made.vertebra_index.astype(np.uint8))):
        sitk.WriteImage(made.ct.geometry.to_image(values), str(folder / f"{name}.nrrd"))
    return folder


def list_studies(a_phantom: Path, home: Path) -> Path:
    """A CSV of four studies: one that is measured, two that are refused, one that is not there."""
    home.mkdir()
    shutil.copytree(a_phantom, home / "p")
    (home / "=broken.nii.gz").write_bytes(b"not an image")
    write_ct_series(home / "dicom", CTVolume(torso.hu()[:24], Geometry((24, *torso.SHAPE_KJI[1:]),
                                                                      torso.geometry().ijk_to_lps)), generate_uid())
    lines = ("path,labels", "p/ct.nrrd,p/labels.nrrd", "=broken.nii.gz,", "dicom,", "gone.nii.gz,")
    (home / "studies.csv").write_text("\n".join(lines), "utf-8")
    return home / "studies.csv"


@pytest.fixture
def studies(a_phantom: Path, tmp_path: Path) -> Path:
    return list_studies(a_phantom, tmp_path / SECRET)


def run(studies: Path, out: Path, *options: str) -> int:
    return main(["batch", str(studies), "-o", str(out), "--scheme", "verse", *options])


def process(studies: Path, out: Path, *options: str, **more) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "LowDoseBMDLib", "batch", str(studies), "-o", str(out), "--scheme", "verse", *options]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(MODULE)}, text=True, **more)


@dataclass(frozen=True)
class Done:
    """A batch that has run: its CSV, its results, and all that it printed."""

    studies: Path
    out: Path
    said: str


@pytest.fixture(scope="module")
def done(a_phantom: Path, tmp_path_factory) -> Done:
    home = tmp_path_factory.mktemp("done")
    studies, out = list_studies(a_phantom, home / SECRET), home / "out"
    going = process(studies, out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = going.communicate(timeout=300)
    assert going.returncode == 1, said
    return Done(studies, out, said)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ends(out: Path) -> list[dict]:
    return [entry for entry in Manifest(out / "manifest.jsonl").entries() if entry["state"] == "ended"]


def states(out: Path) -> list[str]:
    return [row["status"] for row in rows(out)]


def test_a_batch_measures_what_it_can_and_names_nobody(done: Done) -> None:
    out = done.out
    assert states(out) == ["measured", "refused", "refused", "refused"]
    assert "4 studies: 1 measured, 3 refused, 0 failed" in done.said
    measured, broken, dicom, gone = rows(out)
    assert 0 < float(measured["mean_vbmd_mg_cm3"]) < 200 and measured["flags"] and not measured["reason"]
    assert "There is nothing at" in gone["reason"]
    for row in rows(out):
        record = json.loads((out / row["study"] / "measurement.json").read_text(encoding="utf-8"))
        assert record["status"] == row["status"]
        assert f'href="{row["study"]}/report.html"' in (out / "overview.html").read_text(encoding="utf-8")
    for word in (SECRET, PATIENT, "19600102", "broken", str(done.studies.parent)):
        assert word not in done.said
        assert not [path for path in out.rglob("*") if word in path.name]
        assert [path.name for path in out.rglob("*") if path.is_file() and word.encode() in path.read_bytes()] in (
            [], ["key.csv"])
    with (out / "key.csv").open(newline="", encoding="utf-8") as file:
        places = {row["study"]: row["path"] for row in csv.DictReader(file)}
    assert places[dicom["study"]] == str(done.studies.parent / "dicom")
    assert places[broken["study"]] == str(done.studies.parent / "=broken.nii.gz")


def test_the_manifest_says_how_each_study_was_made(done: Done) -> None:
    entries = Manifest(done.out / "manifest.jsonl").entries()
    assert [entry["state"] for entry in entries] == ["started", "ended"] * 4
    first = entries[1]
    assert first["key"] == first["results"] == rows(done.out)[0]["study"]
    assert (first["outcome"], first["status"], first["transient"]) == ("done", "measured", False)
    assert first["when"].endswith("+00:00") and first["seconds"] > 0
    assert set(first["models"]) == set(load_models()) and first["version"] and first["calibration"]
    if Path("/proc/self/status").exists():
        assert 50 < first["peak_memory_mb"] < 3000


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_what_tells_who_is_who_is_for_its_owner(done: Done) -> None:
    assert {name: stat.S_IMODE((done.out / name).stat().st_mode) for name in ("key.csv", ".key")} == {
        "key.csv": 0o600, ".key": 0o600}
    assert not (done.out / ".jobs").exists()


def test_a_folder_that_holds_a_batch_is_taken_up_only_when_asked(done: Done, tmp_path: Path, capsys) -> None:
    """And then nothing is done twice: only what was not there is looked for again."""
    out = shutil.copytree(done.out, tmp_path / "out")
    before, lines = rows(out), len(ends(out))
    assert run(done.studies, out) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(done.studies, out, "--resume") == 1
    assert [entry["key"] for entry in ends(out)[lines:]] == [before[3]["study"]], "the drive may be connected now"
    assert [{**row, "note": ""} for row in rows(out)] == before


@pytest.mark.slow
def test_a_resumed_batch_says_what_it_did_again_and_why(done: Done, tmp_path: Path) -> None:
    out = shutil.copytree(done.out, tmp_path / "out")
    before = rows(out)
    (out / before[1]["study"] / "measurement.json").unlink()
    run(done.studies, out, "--resume")
    assert [row["note"].partition(":")[0] for row in rows(out)] == ["", "its results were missing", "", "tried again after"]
    run(done.studies, out, "--resume", "--erosion", "paper")
    assert [row["note"] for row in rows(out)][:3] == ["measured again: it was made by other settings"] * 3
    assert rows(out)[0]["mean_vbmd_mg_cm3"] != before[0]["mean_vbmd_mg_cm3"]
    assert [row["study"] for row in rows(out)] == [row["study"] for row in before]


def test_a_study_that_takes_too_long_or_too_much_is_tried_again(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sitk.WriteImage(sitk.Image(512, 512, 200, sitk.sitkInt16), str(studies.parent / "air.nii.gz"))  # slow to read
    studies.write_text("path\nair.nii.gz\n", "utf-8")
    assert run(studies, out, "--timeout", "0.05") == 1
    assert states(out) == ["failed"] and "not done after 0.05 s" in rows(out)[0]["reason"]
    if Path("/proc/self/status").exists():
        assert run(studies, out, "--resume", "--memory", "0.02") == 1
        assert states(out) == ["failed"] and "limit of 0.02 GB" in rows(out)[0]["reason"]
    assert run(studies, out, "--resume") == 1
    assert states(out) == ["refused"] and rows(out)[0]["note"].startswith("tried again after: It ")


def test_a_key_that_is_gone_is_said_before_any_work(studies: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    run(studies, out, "--timeout", "0.01")
    (out / ".key").unlink()
    assert run(studies, out, "--resume") == 2
    assert ".key is gone" in capsys.readouterr().err


def test_sources_are_named_when_asked(studies: Path, tmp_path: Path) -> None:
    run(studies, tmp_path / "out", "--identified", "--timeout", "0.01")
    assert rows(tmp_path / "out")[1]["path"] == str(studies.parent / "=broken.nii.gz")
    assert "=broken" in (tmp_path / "out" / "overview.html").read_text(encoding="utf-8")


def test_where_no_process_can_be_started_studies_are_measured_here(studies: Path, tmp_path: Path, monkeypatch) -> None:
    def nothing() -> str:
        raise ValueError("no Python was found")

    opened = []
    monkeypatch.setattr(batch, "python_command", nothing)
    monkeypatch.setattr(batch, "open_models", lambda *_arguments: opened.append(1))
    studies.write_text("path\n=broken.nii.gz\ngone.nii.gz\n", "utf-8")
    assert run(studies, tmp_path / "out") == 1
    assert states(tmp_path / "out") == ["refused", "refused"] and len(opened) == 1


def test_without_dask_a_cluster_is_refused_with_the_way_out(studies: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(studies, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1") == 2
    assert "pip install distributed" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--workers", "0"], ["--timeout", "0"], ["--workers", "2", "--scheduler", "tcp://x:1"]])
def test_options_that_make_no_sense_are_refused(studies: Path, tmp_path: Path, options: list[str]) -> None:
    assert run(studies, tmp_path / "out", *options) == 2


# --- killed ------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_batch_killed_at_any_moment_and_resumed_equals_an_unbroken_one(a_phantom: Path, tmp_path: Path) -> None:
    """Five refusals and a measurement; killed twice, at moments drawn at random but the same in every run of this test."""
    lines = ["path,labels", f"{a_phantom / 'ct.nrrd'},{a_phantom / 'labels.nrrd'}"]
    for n in range(5):
        (tmp_path / f"{n}.nii.gz").write_bytes(b"not an image")
        lines.append(f"{tmp_path / f'{n}.nii.gz'},")
    studies = tmp_path / "studies.csv"
    studies.write_text("\n".join(lines), "utf-8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(studies, whole)
    killed.mkdir()
    shutil.copy(whole / ".key", killed / ".key")
    moments = random.Random(7)
    for n in range(2):
        going = process(studies, killed, *(["--resume"] if n else []), stdout=subprocess.DEVNULL)
        wait_for_lines(killed / "manifest.jsonl", 1 + 4 * n)
        time.sleep(moments.uniform(0.0, 1.5))
        going.send_signal(signal.SIGKILL)
        going.wait()
    assert len(ends(killed)) < 6, "it was killed before its end"
    assert run(studies, killed, "--resume") == 1
    assert rows(killed) == rows(whole)
    assert sorted(row["study"] for row in rows(killed)) == sorted({entry["key"] for entry in ends(killed)})
    assert not [path for path in killed.rglob(".*") if path.name not in (".key", ".manifest.jsonl.lock")]


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end
        time.sleep(0.02)
