"""Tasks in processes of their own, and the record of a long run, as whoever starts and kills them meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from LowDoseBMDLib import runner
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDLib.runner import Limits, Outcome, Task, run_tasks

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "LowDoseBMD"
PATHS = os.pathsep.join([str(MODULE), str(HERE)])
TASK = "trying_task"

posix_only = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")


@pytest.fixture(autouse=True)
def _the_task_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)


def run(*whats: str, **options) -> dict[str, Outcome]:
    outcomes: list[Outcome] = []
    run_tasks(TASK, [Task(what, (what,)) for what in whats], outcomes.append, **options)
    assert len(outcomes) == len(whats), "each task is reported once"
    return {outcome.key: outcome for outcome in outcomes}


def tries(folder: Path) -> list[tuple[str, int]]:
    try:
        lines = (folder / "tries").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(line.rsplit(" ", 1)[0], int(line.rsplit(" ", 1)[1])) for line in lines]


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """A process that is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_last_line_is_the_result() -> None:
    outcome = run("answer")["answer"]
    assert (outcome.status, outcome.message, outcome.transient) == ("done", "", False)
    assert outcome.result["text"] == "肺"
    assert 0 < outcome.seconds < 30


@pytest.mark.parametrize(("what", "status", "transient", "part"), [
    pytest.param("crash", "failed", False, "SIGSEGV", marks=posix_only),
    pytest.param("killed", "killed", True, "from outside", marks=posix_only),
    pytest.param("library out of memory", "out_of_memory", True, "more memory", marks=posix_only),
    ("no memory", "out_of_memory", True, "more memory"), ("silent", "failed", False, "without a result"),
    ("passing", "failed", True, "status 1"), ("error", "failed", False, "broken stage")])
def test_every_end_is_told_from_the_others(what: str, status: str, transient: bool, part: str) -> None:
    outcome = run(what)[what]
    assert (outcome.status, outcome.transient) == (status, transient)
    assert part in outcome.message


def test_a_task_that_hangs_is_ended_and_the_next_one_runs() -> None:
    outcomes = run("hang", "answer", limits=Limits(seconds=1.5))
    assert outcomes["hang"].status == "timeout" and outcomes["hang"].transient
    assert 1.5 <= outcomes["hang"].seconds < 6
    assert outcomes["answer"].status == "done"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of another process is read from /proc")
def test_a_task_that_grows_is_ended_at_its_limit() -> None:
    outcome = run("grow", limits=Limits(seconds=60, memory_gb=0.3))["grow"]
    assert outcome.status == "out_of_memory" and outcome.transient
    assert 300 <= outcome.peak_memory_mb < 900, "ended soon after the limit"


@pytest.mark.parametrize(("name", "value"), [("seconds", 0), ("memory_gb", -1)])
def test_a_limit_of_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Limits(**{name: value})


def test_workers_run_beside_each_other_and_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "threads", lambda: 5)
    tasks = [Task(what, (what, str(tmp_path))) for what in ("meet one", "meet two", "answer")]
    outcomes: list[Outcome] = []
    run_tasks(TASK, tasks, outcomes.append, workers=2, limits=Limits(120))
    found = {outcome.key: outcome for outcome in outcomes}
    assert {outcome.status for outcome in outcomes} == {"done"}, "each of two waits for the other"
    assert found["answer"].result["threads"] == "2"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_is_told_before_its_end(workers: int) -> None:
    news: list[str] = []
    run_tasks(TASK, [Task(what, (what,)) for what in ("sleep0.5", "sleep1")],
              lambda outcome: news.append(f"end {outcome.key}"), workers, started=lambda key: news.append(f"start {key}"))
    assert sorted(news) == ["end sleep0.5", "end sleep1", "start sleep0.5", "start sleep1"]
    assert all(news.index(f"start {key}") < news.index(f"end {key}") for key in ("sleep0.5", "sleep1"))


PRELOADED = """
from LowDoseBMDLib.runner import Task, run_tasks
tasks = [Task("one", ("loaded",))]
run_tasks("trying_task", tasks, lambda outcome: print(*outcome.result["loaded"]), preload="preload_torch")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_what_tasks_are_forked_from_has_loaded_torch_for_them() -> None:
    pytest.importorskip("monai")
    said = subprocess.run([sys.executable, "-c", PRELOADED], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["LowDoseBMDLib.study", "monai.networks.nets", "torch"]


RUN = """
import sys, signal
from LowDoseBMDLib.runner import Task, run_tasks
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)
tasks = [Task(str(n), ("hang", sys.argv[1])) for n in range(3)]
run_tasks("trying_task", tasks, print, workers=int(sys.argv[2]))
"""


@posix_only
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_task_outlives_its_runner(tmp_path: Path, name: str, workers: int) -> None:
    whole = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), str(workers)], stderr=subprocess.PIPE)
    wait_for(lambda: len(tries(tmp_path)) == workers)
    children = [pid for _, pid in tries(tmp_path)]
    assert all(map(lives, children))
    whole.send_signal(getattr(signal, name))
    _, errors = whole.communicate(timeout=20)
    if name != "SIGKILL":
        assert b"KeyboardInterrupt" in errors
        assert not any(map(lives, children)), "ended before the runner"
    wait_for(lambda: not any(map(lives, children)), 5)
    assert len(tries(tmp_path)) == workers, "no other task was begun"


# --- the manifest ------------------------------------------------------------------------------------------

def test_a_torn_last_line_counts_as_never_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.append({"key": "a", "n": 1})
        manifest.append({"key": "b", "n": "ü\n"})
        manifest.append({"key": "a", "n": 2})
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(last, len(whole) - 1):
        path.write_bytes(whole[:end])
        torn = Manifest(path)
        assert torn.latest() == {"a": {"key": "a", "n": 1}, "b": {"key": "b", "n": "ü\n"}}
        torn.append({"key": "a", "n": 3})
        torn.close()
        assert torn.latest()["a"]["n"] == 3 and len(torn.entries()) == 3


def test_a_manifest_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Manifest(tmp_path / "none.jsonl").entries() == []
    assert not list(tmp_path.iterdir()), "reading writes nothing"


WRITE = """
import sys, time
from pathlib import Path
from LowDoseBMDLib.manifest import Manifest
manifest = Manifest(Path(sys.argv[1]))
manifest.append({"key": "first"})
print("written", flush=True)
time.sleep(600)
"""


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    first = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"written\n"
    second = Manifest(path)
    with pytest.raises(ValueError, match=f"another run writes to .* \\(process {first.pid} on .*another folder"):
        second.append({"key": "second"})
    assert [entry["key"] for entry in second.entries()] == ["first"], "reading is free"
    first.kill()
    first.communicate()
    second.append({"key": "second"})
    with pytest.raises(ValueError, match="another run writes"):
        Manifest(path).claim()
    second.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["first", "second"]
