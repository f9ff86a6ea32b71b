"""The worker as whoever starts it meets it: a process, a folder, JSON lines, an exit status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib import worker
from LowDoseBMDLib.bundle import load_models, models_folder
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import HU_FILE, Proposal, read_proposal
from LowDoseBMDLib.failures import explain
from LowDoseBMDLib.flags import Severity
from LowDoseBMDLib.job import JOB_FILE, LOG_FILE, PROPOSAL_FILE, ROIS_FILE, STOP_FILE, Job, write_job
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
from LowDoseBMDLib.review import Reading, Review

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(MODULE)}
LONGEST_SECONDS = 120.0

posix_only = pytest.mark.skipif(os.name == "nt", reason="limits and signals of POSIX systems")


@pytest.fixture
def a_folder(tmp_path: Path) -> Path:
    """A job's folder whose name would break a program that takes text for ASCII or for shell words."""
    return tmp_path / "Patientin Müller 肺 $1"


@pytest.fixture(scope="module")
def a_phantom_ct() -> CTVolume:
    """Chest to L3, coarse enough to be quick."""
    return make_phantom(PhantomSpec(seed=4, spacing_mm=(1.2, 1.2, 2.5))).ct


def start(job: Path, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "LowDoseBMDLib.worker", str(job)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and events, without the signs of life; every line must be one."""
    lines = process.communicate(timeout=LONGEST_SECONDS)[0].splitlines()
    return process.returncode, [event for event in map(json.loads, lines) if event["event"] != "alive"]


def run(job: Path, *before: str) -> tuple[int, list[dict[str, Any]]]:
    return finish(start(job, *before))


def wait_for_stage(process: subprocess.Popen[str], stage: str) -> None:
    for line in process.stdout:
        if json.loads(line).get("stage") == stage:
            return
    raise AssertionError(f"the worker ended before {stage!r}")


def failure(job: Path, *before: str) -> str:
    """The message of a job that fails, which must be logged too."""
    status, events = run(job, *before)
    assert (status, events[-1]["event"]) == (worker.FAILED, "failed"), events
    log = Path(events[-1]["log"])
    assert log == job.parent / LOG_FILE
    return events[-1]["message"]


def an_export(folder: Path, **changes: Any) -> Path:
    job = Job(**{"kind": "export", "out": folder / "Ergebnis", **changes})
    return write_job(folder, job, torso.ct(), Proposal(torso.rois(), {"engine": "none"}, {"bones": 1.5}))


def test_a_job_survives_the_way_through_its_file() -> None:
    job = Job("export", "paper", "onnx", "cpu", Path("models"), Path("Ergebnis ü"), ("html", "dicom"),
              replace(TwoPointCalibration(), name="Site Ä"),
              Reading(Review("accepted", "AB", "ok", "2026-01-02T03:04:05+01:00"), 98.7, ("AB took it back",)),
              (Path("a b.dcm"), Path("c.dcm")))
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(Job("propose").to_json()) == Job("propose")


@pytest.mark.parametrize(("fields", "part"), [
    ({"kind": "dance"}, "'dance'"), ({"kind": "export"}, "folder"), ({"kind": "propose", "formats": ("pdf",)}, "'pdf'")])
def test_a_job_that_cannot_be_done_is_refused_when_it_is_made(fields: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Job(**fields)


@pytest.mark.slow
def test_regions_of_a_phantom_are_proposed_and_measured(a_folder: Path, a_phantom_ct: CTVolume) -> None:
    """One way through everything: progress rises to the end, stages are known, the regions give a plausible number."""
    status, events = run(write_job(a_folder, Job("propose"), a_phantom_ct))
    assert (status, events[-1]) == (worker.DONE, {"event": "done", "status": "measured"})
    told = [event for event in events if event["event"] == "progress"]
    assert [event["fraction"] for event in told] == sorted(event["fraction"] for event in told)
    assert told[-1]["fraction"] > 0.9
    assert {event["stage"] for event in told} <= set(worker.STAGE_SHARES["propose"]), "give the new stage its share"
    proposal = read_proposal(a_folder / PROPOSAL_FILE)
    assert set(proposal.networks) == {*load_models(), "engine"}
    assert {"loading the networks", "checking", "bones"} <= set(proposal.seconds)
    assert measure(a_phantom_ct, proposal.rois, TwoPointCalibration()).mean_vbmd_mg_cm3 > 0


def test_a_ct_without_a_spine_is_refused_as_a_result(a_folder: Path) -> None:
    grid = torso.geometry()
    water = CTVolume(np.zeros(grid.shape_kji, np.int16), grid)
    status, events = run(write_job(a_folder, Job("propose", erosion="paper"), water))
    assert (status, events[-1]) == (worker.DONE, {"event": "done", "status": "refused"})
    rois = read_proposal(a_folder / PROPOSAL_FILE).rois
    assert any(flag.severity is Severity.REFUSED for flag in rois.flags)
    assert (rois.masks, rois.erosion, rois.geometry.shape_kji) == ({}, "paper", grid.shape_kji)


def test_dicom_results_that_cannot_be_written_are_said_and_the_rest_is_there(a_folder: Path) -> None:
    (a_folder.parent / "not a slice.dcm").write_bytes(b"nothing")
    message = failure(an_export(a_folder, formats=("json", "dicom"), dicom_files=(a_folder.parent / "not a slice.dcm",)))
    assert "No DICOM results" in message and "Everything else was written" in message
    assert (a_folder / "Ergebnis" / "measurement.json").is_file()


def test_an_export_writes_the_number_of_the_given_regions(a_folder: Path) -> None:
    review = Review("accepted", "AB", "gut", "2026-01-02T03:04:05+01:00")
    status, events = run(an_export(a_folder, reading=Reading(review, 88.0, ("CD",))))
    assert (status, events[-1]) == (worker.DONE, {"event": "done", "status": "measured"}), events
    record = json.loads((a_folder / "Ergebnis" / "measurement.json").read_text(encoding="utf-8"))
    expected = measure(torso.ct(), torso.rois(), TwoPointCalibration()).mean_vbmd_mg_cm3
    assert record["mean_vbmd_mg_cm3"] == round(expected, 1)
    assert record["review"]["reader"] == "AB"
    assert (record["automatic_mean_vbmd_mg_cm3"], record["reopened"]) == (88.0, ["CD"])
    written = {path.name for path in (a_folder / "Ergebnis").iterdir()}
    assert {"report.html", "measurement.csv", "segmentation.seg.nrrd", "keypoints.mrk.json", "sagittal.png"} <= written


@pytest.mark.parametrize("stage", ["loading the networks", "checking", "finding the bones"])
def test_a_file_named_stop_ends_the_job(a_folder: Path, a_phantom_ct: CTVolume, stage: str) -> None:
    process = start(write_job(a_folder, Job("propose"), a_phantom_ct))
    wait_for_stage(process, stage)
    (a_folder / STOP_FILE).touch()
    status, events = finish(process)
    assert (status, events[-1]) == (worker.CANCELLED, {"event": "cancelled"})
    assert not (a_folder / PROPOSAL_FILE).exists()


@posix_only
def test_sigterm_ends_the_job_and_leaves_nothing_half_written(a_folder: Path, a_phantom_ct: CTVolume) -> None:
    process = start(write_job(a_folder, Job("propose"), a_phantom_ct))
    wait_for_stage(process, "checking")
    process.send_signal(signal.SIGTERM)
    status, events = finish(process)
    assert (status, events[-1]) == (worker.CANCELLED, {"event": "cancelled"})
    assert not list(a_folder.glob(".*"))


@posix_only
def test_the_job_ends_when_whoever_started_it_is_killed_behind_a_launcher(a_folder: Path, a_phantom_ct: CTVolume,
                                                                          tmp_path: Path) -> None:
    """As in Slicer: the window starts PythonSlicer, which starts Python; then the window is killed."""
    job = write_job(a_folder, Job("propose"), a_phantom_ct)
    window = ("import subprocess, sys, time\n"
              "process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, start_new_session=True)\n"
              "for line in process.stdout: print(line.decode(), end='', flush=True)\n")
    launcher = ["sh", "-c", f'echo $$ > "{tmp_path}/launcher"; "$@"; echo $? > "{tmp_path}/status"', "launcher"]
    command = [sys.executable, "-c", window, *launcher, sys.executable, "-m", "LowDoseBMDLib.worker", str(job)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, encoding="utf-8")
    wait_for_stage(process, "checking")
    process.kill()
    process.wait()
    end = time.monotonic() + 60.0
    while not (tmp_path / "status").exists():
        assert time.monotonic() < end, "the worker outlives its window"
        time.sleep(0.05)
    time.sleep(0.1)
    assert (tmp_path / "status").read_text().strip() == str(worker.ORPHANED)


def damaged_models(folder: Path) -> Path:
    shutil.copytree(models_folder(), folder)
    graph = folder / "bones" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    return folder


def test_a_truncated_model_is_said(a_folder: Path, tmp_path: Path) -> None:
    job = write_job(a_folder, Job("propose", models=damaged_models(tmp_path / "models")), torso.ct())
    message = failure(job)
    assert "bones: model.onnx is not the file" in message
    assert "Reinstall LowDoseBMD" in message


def test_a_missing_model_is_said(a_folder: Path, tmp_path: Path) -> None:
    message = failure(write_job(a_folder, Job("propose", models=tmp_path / "none"), torso.ct()))
    assert "no bundle.json" in message and "Reinstall LowDoseBMD" in message


def test_a_missing_package_is_said(a_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that cannot be imported stands before the installed one."""
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('No module', name='onnxruntime')\n")
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", os.pathsep.join([str(tmp_path), str(MODULE)]))
    message = failure(write_job(a_folder, Job("propose", engine="onnx"), torso.ct()))
    assert "'onnxruntime' is missing" in message and "pip install onnxruntime" in message


@posix_only
def test_memory_that_runs_out_is_said(a_folder: Path) -> None:
    """A CT (a file of holes) of 0.8 GB that is to be worked on in 1.5 GB."""
    job = write_job(a_folder, Job("propose"), torso.ct())
    shape = (1500, 512, 512)
    np.lib.format.open_memmap(a_folder / HU_FILE, "w+", np.int16, shape).flush()
    assert "not enough memory" in failure(job, "sh", "-c", 'ulimit -v 1500000; exec "$@"', "limited")


@posix_only
def test_a_full_disk_is_said(a_folder: Path) -> None:
    """No file may grow beyond 4 KiB: what a full disk does, without one."""
    out = a_folder / "Ergebnis"
    message = failure(an_export(a_folder, formats=("html",)), "sh", "-c", 'ulimit -f 8; exec "$@"', "limited")
    assert message.startswith("The disk is full")
    assert not list(out.iterdir()), "nothing half-written stays"


@pytest.mark.parametrize("name", [HU_FILE, ROIS_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_an_input_that_is_gone_or_cut_is_said(a_folder: Path, name: str, damage: str) -> None:
    job = an_export(a_folder)
    if damage == "missing":
        (a_folder / name).unlink()
    else:
        (a_folder / name).write_bytes((a_folder / name).read_bytes()[:-100])
    assert "missing or not whole" in failure(job)


def test_a_job_file_that_is_no_job_fails_with_a_sentence(a_folder: Path) -> None:
    a_folder.mkdir()
    (a_folder / JOB_FILE).write_text('{"kind": "propose"}', encoding="utf-8")
    assert "no job of this version" in failure(a_folder / JOB_FILE)


def test_without_a_job_file_the_arguments_are_unusable(a_folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "LowDoseBMDLib.worker", str(a_folder / JOB_FILE)], env=ENVIRONMENT,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, "there is no job" in done.stderr) == (worker.UNUSABLE, True)


@pytest.mark.parametrize(("error", "part"), [
    (MemoryError(), "memory"), (RuntimeError("[ONNXRuntimeError] : 6 : bad allocation"), "memory"),
    (OSError(28, "No space left on device", "ct.npy"), "disk is full (ct.npy)"),
    (OSError("1048576 requested and 400 written"), "disk is full"),
    (PermissionError(13, "Permission denied", "report.html"), "(report.html)"), (KeyError("x"), "report this")])
def test_faults_are_explained_with_a_way_out(error: Exception, part: str) -> None:
    assert part in explain(error)
