"""A job in the background, with real processes and real files: exactly one ending, soon after a cancel, nothing left."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.bundle import models_folder
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.exchange import Proposal, read_ct, read_proposal
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.job import PROPOSAL_FILE, Job
from LowDoseBMDLib.measurement import measure

FAKE_WORKER = str(Path(__file__).with_name("fake_worker.py"))
CANCEL_WITHIN_SECONDS = 2.0
"""One second is promised; machines that run tests are busy."""
LONGEST_SECONDS = 120.0

posix_only = pytest.mark.skipif(os.name == "nt", reason="limits and signals of POSIX systems")


@pytest.fixture
def a_job_module(a_slicer):
    return importlib.import_module("LowDoseBMDQt.job")


@pytest.fixture
def a_temporary_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Dr. Müller 肺 $HOME"
    folder.mkdir()
    return folder


class Endings:
    """What a job called back, in order."""

    def __init__(self) -> None:
        self.progress: list[tuple[str, float]] = []
        self.endings: list[tuple[str, Any]] = []
        self.seen_in_folder: list[str] = []
        self.read: Callable[[Path], Any] = lambda folder: None
        self.result: Any = None

    def on_progress(self, stage: str, fraction: float) -> None:
        self.progress.append((stage, fraction))

    def on_done(self, status: str, folder: Path) -> None:
        self.seen_in_folder = sorted(path.name for path in folder.iterdir())
        self.result = self.read(folder)
        self.endings.append(("done", status))

    def on_failed(self, message: str, log: str) -> None:
        self.endings.append(("failed", (message, log)))

    def on_cancelled(self) -> None:
        self.endings.append(("cancelled", None))


@pytest.fixture
def an_environment(a_job_module, a_temporary_folder: Path, a_slicer):
    """Makes jobs whose worker is a script of steps (fake_worker.py), or the real one; ends them all."""
    made = []

    def make(steps: list | None = None) -> Any:
        worker = a_job_module.WORKER
        if steps is not None:
            script = a_temporary_folder.parent / f"script {len(made)} ü.json"
            script.write_text(json.dumps(steps), encoding="utf-8")
            worker = (FAKE_WORKER, str(script))
        made.append(a_job_module.BackgroundJob(str(a_temporary_folder), sys.executable, worker))
        return made[-1]

    yield make
    for job in made:
        job.close()


@pytest.fixture
def spin(a_slicer) -> Callable[..., float]:
    """Runs the event loop until something holds; returns the seconds that it took."""
    def until(condition: Callable[[], Any], seconds: float = LONGEST_SECONDS) -> float:
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, "waited in vain"
            a_slicer.wait(1)
        return time.monotonic() - started
    return until


def start(background: Any, job: Job | None = None, ct: CTVolume | None = None, **options: Any) -> Endings:
    heard = Endings()
    background.start(job or Job("propose"), ct or torso.ct(), heard.on_progress, heard.on_done, heard.on_failed,
                     heard.on_cancelled, **options)
    return heard


def event(name: str, **content: Any) -> list:
    return ["say", json.dumps({"event": name, **content})]


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_job_ends_once_with_its_folder_and_leaves_nothing(an_environment, spin, a_temporary_folder: Path) -> None:
    background = an_environment([event("progress", stage="bones", fraction=0.4), ["sleep", 0.2],
                                 event("done", status="measured")])
    heard = start(background)
    assert background.running and not heard.endings, "nothing is called back from within start"
    spin(lambda: heard.endings)
    assert ("bones", 0.4) in heard.progress
    assert heard.endings == [("done", "measured")]
    assert {"ct.npy", "ct.json", "job.json"} <= set(heard.seen_in_folder)
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)
    assert not background.running and background.elapsed == 0.0


def test_the_ct_arrives_as_it_was(an_environment, spin) -> None:
    background = an_environment([event("done", status="measured")])
    heard = start(background)
    heard.read = lambda folder: np.array(read_ct(folder).hu)
    spin(lambda: heard.endings)
    np.testing.assert_array_equal(heard.result, torso.ct().hu)


def test_a_second_job_waits_for_the_first_and_may_start_from_its_ending(an_environment, spin) -> None:
    background = an_environment([event("done", status="refused")])
    heard, second = start(background), []
    heard.read = lambda folder: second.append(start(background))
    with pytest.raises(RuntimeError, match="already running"):
        start(background)
    spin(lambda: second and second[0].endings)
    assert heard.endings == second[0].endings == [("done", "refused")]


def test_the_real_worker_refuses_water(an_environment, spin, a_temporary_folder: Path) -> None:
    """The whole way with a path that is neither ASCII nor free of spaces."""
    grid = torso.geometry()
    heard = start(an_environment(), ct=CTVolume(np.zeros(grid.shape_kji, np.int16), grid))
    heard.read = lambda folder: read_proposal(folder / PROPOSAL_FILE)
    spin(lambda: heard.endings)
    assert heard.endings == [("done", "refused")]
    assert heard.result.rois.flags
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)


def test_the_real_worker_exports_given_regions(an_environment, spin, tmp_path: Path) -> None:
    out = tmp_path / "Ergebnis ü"
    heard = start(an_environment(), Job("export", out=out, formats=("json",)), proposal=Proposal(torso.rois()))
    spin(lambda: heard.endings)
    assert heard.endings == [("done", "measured")]
    record = json.loads((out / "measurement.json").read_text(encoding="utf-8"))
    expected = measure(torso.ct(), torso.rois(), TwoPointCalibration()).mean_vbmd_mg_cm3
    assert record["mean_vbmd_mg_cm3"] == round(expected, 1)


def test_a_failure_comes_with_its_sentence_and_the_log(an_environment, spin, a_temporary_folder: Path) -> None:
    background = an_environment([["log", "Traceback: zu wenig Platz, 肺"], event("failed", message="The disk is full.")])
    heard = start(background)
    spin(lambda: heard.endings)
    (kind, (message, log)), = heard.endings
    assert (kind, message) == ("failed", "The disk is full.") and "zu wenig Platz, 肺" in log
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)


@pytest.mark.parametrize(("steps", "parts"), [
    ([["say", "ImportError: libfoo.so.1: cannot open"], ["exit", 7]], ["status 7", "libfoo.so.1"]),
    ([["say", "[1, 2]"], ["say", "\x00\u00ff no JSON"], ["exit", 0]], ["status 0", "no JSON"]),
    ([["log", "Fatal Python error: Segmentation fault"], ["kill", int(signal.SIGSEGV)]],
     ["SIGSEGV", "Fatal Python error"]),
    ([event("progress", stage="bones", fraction=0.5), ["kill", int(getattr(signal, "SIGKILL", 9))]], ["memory ran out"]),
    ([["exit", 137]], ["memory ran out"])])
@posix_only
def test_a_crash_shows_the_real_last_words(an_environment, spin, steps: list, parts: list[str]) -> None:
    heard = start(an_environment(steps))
    spin(lambda: heard.endings)
    (kind, (message, _log)), = heard.endings
    assert kind == "failed"
    assert all(part in message for part in parts), message


@posix_only
def test_a_killed_worker_is_a_failure(an_environment, spin) -> None:
    background = an_environment([event("progress", stage="bones", fraction=0.1), ["sleep", 60]])
    heard = start(background)
    spin(lambda: heard.progress and heard.progress[-1][0] == "bones")
    os.kill(background._run._process.pid, signal.SIGKILL)
    spin(lambda: heard.endings, 10.0)
    assert heard.endings[0][0] == "failed"


def test_without_pythonslicer_it_is_said(a_job_module, a_temporary_folder: Path, spin, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(a_temporary_folder))
    background = a_job_module.BackgroundJob(str(a_temporary_folder))
    heard = start(background)
    spin(lambda: heard.endings)
    assert "PythonSlicer was not found" in heard.endings[0][1][0]
    background.close()


def test_a_temporary_folder_that_is_gone_is_said(an_environment, spin, a_temporary_folder: Path) -> None:
    background = an_environment([])
    a_temporary_folder.rmdir()
    heard = start(background)
    spin(lambda: heard.endings)
    assert heard.endings[0][0] == "failed" and "Dr. Müller" in heard.endings[0][1][0]


@posix_only
def test_a_full_disk_while_the_ct_is_handed_over_is_said(an_environment, spin, a_temporary_folder: Path) -> None:
    """No file of this process may grow beyond 64 KiB for a moment: what a full disk does, without one."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        heard = start(an_environment([]))
        spin(lambda: heard.endings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert heard.endings[0][0] == "failed" and "disk is full" in heard.endings[0][1][0]
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)


def test_a_missing_model_is_said(an_environment, spin, tmp_path: Path) -> None:
    heard = start(an_environment(), Job("propose", models=tmp_path / "none"))
    spin(lambda: heard.endings)
    (kind, (message, log)), = heard.endings
    assert kind == "failed" and "model" in message and "BundleError" in log


STAGES = ["handing over the CT", "loading the networks", "checking", "finding the bones", "drawing the vertebral bodies"]


@pytest.fixture(scope="module")
def a_phantom_ct() -> CTVolume:
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom

    return make_phantom(PhantomSpec(seed=4, spacing_mm=(1.2, 1.2, 2.5))).ct


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_cancel_at_every_stage_of_the_real_worker(an_environment, spin, a_phantom_ct, stage: str,
                                                  a_temporary_folder: Path) -> None:
    background = an_environment()
    heard = start(background, ct=a_phantom_ct)
    spin(lambda: heard.progress and heard.progress[-1][0] == stage)
    background.cancel()
    background.cancel()
    assert spin(lambda: heard.endings, 10.0) < CANCEL_WITHIN_SECONDS
    assert heard.endings == [("cancelled", None)]
    assert not background.running
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)


def test_cancel_while_a_large_ct_is_written(an_environment, spin, a_temporary_folder: Path) -> None:
    shape = (200, 512, 512)
    ct = CTVolume(np.broadcast_to(np.int16(0), shape), Geometry(shape, np.eye(4)))  # slow to write: it is not contiguous
    background = an_environment([event("done", status="measured")])
    heard = start(background, ct=ct)
    spin(lambda: list(a_temporary_folder.glob("*/.*ct.npy")))
    background.cancel()
    assert spin(lambda: heard.endings, 10.0) < CANCEL_WITHIN_SECONDS
    assert heard.endings == [("cancelled", None)]
    spin(lambda: not list(a_temporary_folder.iterdir()), 60.0)
    assert heard.endings == [("cancelled", None)], "what goes on behind is not heard of"


@posix_only
def test_a_worker_that_does_not_listen_is_killed_with_all_its_children(an_environment, spin, tmp_path: Path) -> None:
    background = an_environment([["child", str(tmp_path / "child")], event("progress", stage="deaf", fraction=0.0),
                                 ["sleep", 600]])
    heard = start(background)
    spin(lambda: heard.progress and heard.progress[-1][0] == "deaf")
    background.cancel()
    assert spin(lambda: heard.endings, 10.0) < CANCEL_WITHIN_SECONDS
    assert heard.endings == [("cancelled", None)]
    pid = int((tmp_path / "child").read_text())
    spin(lambda: not alive(pid), 5.0)


@posix_only
def test_closing_the_window_ends_everything_in_silence(an_environment, spin, tmp_path: Path,
                                                       a_temporary_folder: Path) -> None:
    background = an_environment([["child", str(tmp_path / "child")], event("progress", stage="deaf", fraction=0.0),
                                 ["sleep", 600]])
    heard = start(background)
    spin(lambda: heard.progress and heard.progress[-1][0] == "deaf")
    background.close()
    assert not list(a_temporary_folder.iterdir())
    pid = int((tmp_path / "child").read_text())
    spin(lambda: not alive(pid), 5.0)
    assert not heard.endings and not background.running


def test_an_ending_that_raises_still_leaves_nothing(an_environment, spin, a_slicer, a_temporary_folder: Path) -> None:
    background, heard, raised = an_environment([event("done", status="measured")]), Endings(), []

    def on_done(_status: str, _folder: Path) -> None:
        raised.append(True)
        raise LookupError("the volume was deleted")

    background.start(Job("propose"), torso.ct(), heard.on_progress, on_done, heard.on_failed, heard.on_cancelled)
    spin(lambda: raised)
    spin(lambda: not list(a_temporary_folder.iterdir()), 5.0)
    assert not heard.endings and not background.running
    assert isinstance(a_slicer.slot_errors.pop(), LookupError)


def test_the_window_stays_alive_while_a_large_ct_is_handed_over(an_environment, a_slicer) -> None:
    """The longest wait between two turns of the event loop; 100 ms is what a panel may block."""
    shape = (400, 512, 512)
    ct = CTVolume(np.zeros(shape, np.float32), Geometry(shape, np.eye(4)))
    heard = start(an_environment([event("done", status="measured")]), ct=ct)
    waits, end = [], time.monotonic() + LONGEST_SECONDS
    while not heard.endings and time.monotonic() < end:
        before = time.monotonic()
        a_slicer.qt_application.processEvents()
        if not heard.endings:
            waits.append(time.monotonic() - before)
        time.sleep(0.001)
    assert heard.endings == [("done", "measured")]
    assert sorted(waits)[-3] < 0.1, "more than an odd hiccup of the machine"


@posix_only
def test_left_overs_of_crashed_sessions_go_and_nothing_else(a_job_module, a_temporary_folder: Path) -> None:
    dead = 2 ** 22 + 1  # above what Linux gives out
    kept = [f"LowDoseBMD-job-{os.getppid()}-abc", f"LowDoseBMD-job-{os.getpid()}-abc", "LowDoseBMD-job-notes",
            f"Other-{dead}-abc", f"LowDoseBMD-job-x{dead}-abc"]
    old = f"LowDoseBMD-job-{os.getppid()}-old"
    for name in [*kept, old, f"LowDoseBMD-job-{dead}-abc"]:
        (a_temporary_folder / name).mkdir()
        (a_temporary_folder / name / "ct.npy").write_bytes(b"x")
    os.utime(a_temporary_folder / old, (0, 0))
    a_job_module.BackgroundJob(str(a_temporary_folder), sys.executable)
    assert sorted(path.name for path in a_temporary_folder.iterdir()) == sorted(kept)


def test_a_truncated_model_is_said(an_environment, spin, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_folder(), models)
    graph = models / "bones" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    heard = start(an_environment(), Job("propose", models=models))
    spin(lambda: heard.endings)
    assert "damaged or replaced" in heard.endings[0][1][0]
