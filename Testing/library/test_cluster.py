"""The same tasks on a Dask cluster: a real scheduler and workers as processes of their own, some of which are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDLib.runner import Outcome, Task, run_tasks

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kill -9")

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "LowDoseBMD"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(MODULE), str(HERE)])}


@dataclass(frozen=True)
class Cluster:
    address: str
    workers: list[subprocess.Popen[bytes]]


def dask(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "dask", *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler and two workers of one thread."""
    where = tmp_path / "scheduler.json"
    processes = [dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address",
                      "127.0.0.1:0", "--scheduler-file", str(where))]
    try:
        wait_for(where.exists)
        processes += [dask("worker", "--scheduler-file", str(where), "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny",
                           "--no-dashboard", "--local-directory", str(tmp_path)) for _ in range(2)]
        wait_for(lambda: where.read_text().strip() != "")
        yield Cluster(json.loads(where.read_text())["address"], processes[1:])
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def tries(folder: Path) -> list[int]:
    """Process numbers of all tasks that were begun."""
    path = folder / "tries"
    return [int(line.split()[-1]) for line in path.read_text().splitlines()] if path.exists() else []


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_is_done_by_another(cluster: Cluster, tmp_path: Path) -> None:
    """Four tasks on two workers; one worker is killed as soon as both are at work. Each result is there exactly once."""
    manifest = Manifest(tmp_path / "manifest.jsonl")
    killed: list[int] = []

    def started(key: str) -> None:
        manifest.append({"key": key, "state": "started"})
        wait_for(lambda: len(tries(tmp_path)) >= 2)
        if not killed:
            killed.extend(tries(tmp_path))
            cluster.workers[0].kill()

    def ended(outcome: Outcome) -> None:
        manifest.append({"key": outcome.key, "state": "ended", "status": outcome.status, "result": outcome.result})

    tasks = [Task(f"task{n}", ("sleep3", str(tmp_path))) for n in range(4)]
    run_tasks("trying_task", tasks, ended, scheduler=cluster.address, started=started)
    counts = Counter(entry["key"] for entry in manifest.entries() if entry["state"] == "ended")
    assert counts == {f"task{n}": 1 for n in range(4)}
    assert {(entry["status"], entry["result"]["slept"]) for entry in manifest.latest().values()} == {("done", "sleep3")}
    assert len(tries(tmp_path)) == 5, "one was begun twice"
    assert len(killed) == 2 and not any(map(lives, killed))


RUN = """
import sys
from LowDoseBMDLib.runner import Task, run_tasks
run_tasks("trying_task", [Task(str(n), ("hang", sys.argv[1])) for n in range(3)], print, scheduler=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_tasks_on_a_cluster_end_with_whoever_wanted_them(cluster: Cluster, tmp_path: Path, name: str) -> None:
    whole = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), cluster.address], env=ENVIRONMENT,
                             stderr=subprocess.DEVNULL,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    wait_for(lambda: len(tries(tmp_path)) == 2)
    whole.send_signal(getattr(signal, name))
    whole.wait(timeout=60)
    wait_for(lambda: not any(map(lives, tries(tmp_path))))
    assert all(worker.poll() is None for worker in cluster.workers), "the cluster is somebody else's"


@pytest.mark.slow
def test_a_batch_on_a_cluster_has_every_study_once_although_a_worker_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for n in range(6):
        (archive / f"{n}.nii.gz").write_bytes(b"not an image")
    batch = subprocess.Popen([sys.executable, "-m", "LowDoseBMDLib", "batch", str(archive), "-o", str(out), "--scheduler",
                              cluster.address], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: len(Manifest(out / "manifest.jsonl").entries()) >= 2)
    cluster.workers[1].kill()
    said, _ = batch.communicate(timeout=300)
    assert batch.returncode == 1, said
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["study"] for row in rows}) == len(rows) == 6
    assert {row["status"] for row in rows} == {"refused"}, said
    ends = Counter(entry["key"] for entry in Manifest(out / "manifest.jsonl").entries() if entry["state"] == "ended")
    assert ends == {row["study"]: 1 for row in rows}
