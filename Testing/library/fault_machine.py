"""Faults of the machine: disk, memory, clock, models, links, and processes that are killed."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fault_cases import Fault, files_of, write_ct_series
from fault_scene import ENVIRONMENT, NOT_HERE, Given, Outcome, Scene
from LowDoseBMDLib.bundle import models_folder

KEPT = frozenset({".key", ".manifest.jsonl.lock"})
"""Hidden files that a batch keeps: the key of its names, and the file that one run at a time has locked."""

KILLS = 50
SECOND_KILL_RANGE = (0.2, 8.0)
"""Seconds after its start at which a batch is killed: from before its first study to after its last."""

_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, t);
  const char *shift = getenv("CLOCK_SHIFT");
  if (id == CLOCK_REALTIME && shift) t->tv_sec += atol(shift);
  return status;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""
"""Stands before the C library: every process that loads it sees the time of day moved by CLOCK_SHIFT seconds."""

_YEAR_SECONDS = 365 * 24 * 3600


def _with_earlier(scene: Scene, out: Path) -> Path:
    """A result folder in which an earlier result lies."""
    shutil.copytree(scene.folder / "plain", out, dirs_exist_ok=True)
    return out


def _rois(scene: Scene, **how: object) -> Given:
    return Given(scene.ct, ("--rois", str(scene.rois)), **how)


def _mounted(folder: Path, size: str) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)


# --- disk --------------------------------------------------------------------------------------------------


def _full_disk(scene: Scene, folder: Path) -> Given | Outcome:
    """A file system in memory that has room for half of a second result."""
    disk = folder / "disk"
    if not _mounted(disk, "4m"):
        return NOT_HERE
    out = _with_earlier(scene, disk / "out")
    room = shutil.disk_usage(disk).free - sum(path.stat().st_size for path in out.iterdir()) // 2
    (disk / "fill").write_bytes(b"\0" * room)
    return _rois(scene, out=out, own_process=True, after=partial(_unmount, disk))


def _small_files(scene: Scene, folder: Path) -> Given:
    """No file may grow beyond 16 KiB: what a full disk does to whoever writes, without one."""
    out = _with_earlier(scene, folder / "out")
    return _rois(scene, out=out, before=("sh", "-c", 'ulimit -f 32; exec "$@"', "limited"))


def _read_only(scene: Scene, folder: Path) -> Given | Outcome:
    disk = folder / "disk"
    if _mounted(disk, "8m"):
        out = _with_earlier(scene, disk / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return _rois(scene, out=out, after=partial(_unmount, disk))
    if os.geteuid() == 0:
        return NOT_HERE  # root writes whatever the permissions say
    out = _with_earlier(scene, disk / "out")
    out.chmod(0o555)
    return _rois(scene, out=out, after=partial(out.chmod, 0o755))


def _a_file(scene: Scene, folder: Path) -> Given:
    (folder / "out").write_text("not a folder")
    return _rois(scene)


# --- memory, models, clock ---------------------------------------------------------------------------------


def _little_memory(scene: Scene, folder: Path, megabytes: int, networks: bool) -> Given:
    out = _with_earlier(scene, folder / "out")
    options = () if networks else ("--rois", str(scene.rois))
    return Given(scene.ct, options, ("sh", "-c", f'ulimit -v {1024 * megabytes}; exec "$@"', "limited"), out=out)


def _models(folder: Path) -> Path:
    shutil.copytree(models_folder(), folder / "models")
    return folder / "models"


def _cut_model(scene: Scene, folder: Path) -> Given:
    graph = _models(folder) / "bodies" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    return Given(scene.ct, ("--models", str(folder / "models")))


def _swapped_model(scene: Scene, folder: Path, whole: bool) -> Given:
    """The keypoints' network in the place of the bones': its file, or its whole bundle, which is sound in itself."""
    models = _models(folder)
    shutil.copy(models / "keypoints" / "model.onnx", models / "bones" / "model.onnx")
    if whole:
        shutil.rmtree(models / "bones")
        shutil.copytree(models / "keypoints", models / "bones")
    return Given(scene.ct, ("--models", str(models)))


def _clock(scene: Scene, folder: Path) -> Given | Outcome:
    """The earlier result and the CT are of next year; the program then runs two years before."""
    (folder / "clock.c").write_text(_CLOCK)
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(folder / "clock.c"), "-ldl"]
    if not compiler or not sys.platform.startswith("linux") or subprocess.run(command, check=False).returncode:
        return NOT_HERE
    out = _with_earlier(scene, folder / "out")
    ct = folder / "ct.nii"
    shutil.copy(scene.ct, ct)
    for path in (ct, *out.iterdir()):
        os.utime(path, (time.time() + _YEAR_SECONDS,) * 2)
    return Given(ct, ("--rois", str(scene.rois)), out=out, environment={
        "LD_PRELOAD": str(folder / "clock.so"), "CLOCK_SHIFT": str(-2 * _YEAR_SECONDS)})


# --- links and packed files --------------------------------------------------------------------------------


def _links(scene: Scene, folder: Path, some: bool) -> Given:
    """Slices that are links to files outside the folder of the study: another person's, perhaps."""
    kept = write_ct_series(scene, folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for path in files_of(kept)[70 if some else 0:]:
        shutil.move(path, elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
    (kept / "all").symlink_to(elsewhere)
    return Given(kept, ("--rois", str(scene.rois)))


def _zip(scene: Scene, folder: Path, beside: bool) -> Given:
    """A packed file whose member would be written outside; beside: beside a good series."""
    series = write_ct_series(scene, folder)
    with zipfile.ZipFile(folder / "study.zip", "w") as packed:
        packed.write(files_of(series)[0], "../../escaped.dcm")
    if not beside:
        shutil.rmtree(series)
        series.mkdir()
    shutil.move(folder / "study.zip", series / "study.zip")
    return Given(series, ("--rois", str(scene.rois)))


# --- batches -----------------------------------------------------------------------------------------------


def _studies(scene: Scene, folder: Path) -> Path:
    """Two that are measured and one that is refused."""
    (folder / "broken.nii").write_bytes(b"garbage")
    shutil.copy(scene.ct, folder / "second.nii")
    rows = [(scene.ct, scene.labels), (folder / "second.nii", scene.labels), (folder / "broken.nii", scene.labels)]
    text = "path,labels\n" + "".join(f"{ct},{labels}\n" for ct, labels in rows)
    (folder / "studies.csv").write_text(text)
    return folder / "studies.csv"


def _batch(studies: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "LowDoseBMDLib", "batch", str(studies), "-o", str(out), "--scheme", "verse", *more]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def _found(out: Path) -> list[tuple[str, str | None]]:
    """Status and levels of every study of the summary, in its order. Raises OSError or ValueError when one is missing."""
    rows = []
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            record = json.loads((out / row["study"] / "measurement.json").read_text(encoding="utf-8"))
            rows.append((row["status"], json.dumps(record["levels"])))
    return rows


def kill_and_resume(scene: Scene, folder: Path, kills: int = KILLS) -> Outcome:
    """Batches are killed with signal 9 at random moments, alone or with all their processes, and resumed to their end."""
    begun, chance = time.monotonic(), random.Random(1)
    studies = _studies(scene, folder)
    _batch(studies, folder / "unbroken").communicate()
    wanted, lost, done, rounds = _found(folder / "unbroken"), [], 0, 0
    while done < kills:
        out, rounds = folder / f"killed-{rounds}", rounds + 1
        while done < kills:
            process = _batch(studies, out, "--resume")
            try:
                process.communicate(timeout=chance.uniform(*SECOND_KILL_RANGE))
                break
            except subprocess.TimeoutExpired:
                done += 1
                (os.killpg if chance.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
                process.communicate()
        _, errors = _batch(studies, out, "--resume").communicate()
        lost += _differs(out, wanted, errors)
        shutil.rmtree(out)
    sentence = f"{kills} kills; batches of {len(wanted)} studies ({rounds} in all) ended like an unbroken one when resumed."
    return Outcome("measured", "", sentence, "; ".join(lost), time.monotonic() - begun)


def _differs(out: Path, wanted: list, errors: str) -> list[str]:
    try:
        found = [] if _found(out) == wanted else ["another summary than an unbroken batch"]
    except (OSError, ValueError) as error:
        found = [f"the summary lacks a result ({type(error).__name__})"]
    left = [f"{path.name} was left behind" for path in out.rglob(".*") if path.name not in KEPT]
    return [*found, *left, *(["a traceback"] if "Traceback" in errors else [])]


def two_batches(scene: Scene, folder: Path) -> Outcome:
    """Started at one time for one folder: one does the work, the other says why it does not."""
    begun = time.monotonic()
    studies, out = _studies(scene, folder), folder / "out"
    both = [_batch(studies, out, "--resume") for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    statuses = sorted(process.returncode for process in both)
    sentences = [line.removeprefix("lowdosebmd: ") for text in told for line in text.splitlines()
                 if line.startswith("lowdosebmd: ")]
    lost = [] if sorted(status for status, _ in _found(out)) == ["measured", "measured", "refused"] else ["a study"]
    lost += ["a traceback"] if "Traceback" in "".join(told) else []
    status = "refused" if statuses == [1, 2] and len(sentences) == 1 else f"exit {statuses}"
    return Outcome(status, "exit 2", " ".join(sentences), "; ".join(lost), time.monotonic() - begun)


# --- all of them -------------------------------------------------------------------------------------------


def _of_machine() -> Iterator[Fault]:
    yield Fault("disk full", "file system of 4 MB in memory", _full_disk, "failed", ("exit 1",), heavy=True)
    yield Fault("disk full", "files of at most 16 KiB", _small_files, "failed", ("exit 1",))
    yield Fault("read-only output", "mounted, or not writable", _read_only, "failed", ("exit 2",))
    yield Fault("read-only output", "a file of that name", _a_file, "failed", ("exit 2",))
    yield Fault("out of memory", "450 MB", partial(_little_memory, megabytes=450, networks=False), "failed", ("exit 1",))
    for megabytes in (500, 550, 600, 700):
        yield Fault("out of memory", f"{megabytes} MB", partial(_little_memory, megabytes=megabytes, networks=False),
                    "failed or measured", heavy=True)
    for megabytes in (600, 700, 800, 1000, 1200):
        yield Fault("out of memory", f"{megabytes} MB, networks",
                    partial(_little_memory, megabytes=megabytes, networks=True), "failed or measured", heavy=True)
    yield Fault("model truncated", "1,000 bytes short", _cut_model, "failed", ("exit 2",))
    yield Fault("model swapped", "keypoints' file for bones'", partial(_swapped_model, whole=False), "failed", ("exit 2",))
    yield Fault("model swapped", "whole bundle of keypoints", partial(_swapped_model, whole=True), "failed", ("exit 2",))
    yield Fault("clock jump", "two years back between runs", _clock, "measured", same=True)
    yield Fault("links", "6 slices lie elsewhere", partial(_links, some=True), "measured", ("files_left_out",))
    yield Fault("links", "all slices lie elsewhere", partial(_links, some=False), "refused", ("no_image",))
    yield Fault("zip", "nothing else in the folder", partial(_zip, beside=False), "refused", ("no_image",))
    yield Fault("zip", "beside the series", partial(_zip, beside=True), "measured", ("files_left_out",), same=True)
    yield Fault("kill -9", "50 times, then resumed", kill_and_resume, "measured", heavy=True)
    yield Fault("two batches", "one output folder", two_batches, "refused", heavy=True)


MACHINE_FAULTS: tuple[Fault, ...] = tuple(_of_machine())
