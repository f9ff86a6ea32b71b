"""A batch that is killed with kill -9 at random moments and resumed: is every study in the summary exactly once?

    python Testing/benchmarks/batch_kill.py FOLDER [--studies 200] [--kills 3] [--workers 2]

Phantoms of ten people are drawn once into FOLDER/studies, coarse to be quick, each person many times with other noise, and
measured from their label maps. Then FOLDER/out is made: the batch is started, killed each time after a random number of
further studies and a random part of a second, resumed, and let end. Prints what was found; exit status 1 when it is wrong.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

MODULE = Path(__file__).resolve().parents[2] / "LowDoseBMD"
sys.path.insert(0, str(MODULE))

PEOPLE = 10
SPACING_MM = (3.0, 3.0, 4.0)
NOISE_HU = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    listed, out = draw(options.folder / "studies", options.studies), options.folder / "out"
    if out.exists():
        raise SystemExit(f"{out} exists already; remove it")
    begun = time.monotonic()
    moments = random.Random(options.seed)
    for n in range(options.kills):
        reach = (n + moments.random()) / options.kills * options.studies
        run_and_kill(listed, out, options.workers, int(reach), moments.random())
    status = start(listed, out, options.workers).wait()
    return report(out, options, status, time.monotonic() - begun)


def draw(folder: Path, count: int) -> Path:
    """The phantoms as volumes and label maps; returns the CSV that lists them."""
    import SimpleITK as sitk
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom

    listed = folder / "studies.csv"
    if listed.exists() and len(listed.read_text().splitlines()) == count + 1:
        return listed
    folder.mkdir(parents=True, exist_ok=True)
    noise, lines = np.random.default_rng(1), ["path,labels"]
    for person in range(PEOPLE):
        made = make_phantom(PhantomSpec(seed=person + 1, spacing_mm=SPACING_MM))
        grid = made.ct.geometry
        sitk.WriteImage(grid.to_image(made.vertebra_index.astype(np.uint8)), str(folder / f"labels{person}.nrrd"), True)
        for n in range(person, count, PEOPLE):
            hu = made.ct.hu + noise.normal(0.0, NOISE_HU, made.ct.hu.shape)
            sitk.WriteImage(grid.to_image(np.rint(hu).astype(np.int16)), str(folder / f"{n:04d}.nrrd"))
            lines.append(f"{n:04d}.nrrd,labels{person}.nrrd")
    listed.write_text("\n".join(lines))
    return listed


def start(listed: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "LowDoseBMDLib", "batch", str(listed), "-o", str(out), "--scheme", "verse", "--workers",
               str(workers), "--resume"]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(MODULE)}, stdout=subprocess.DEVNULL)


def run_and_kill(listed: Path, out: Path, workers: int, reach: int, more_seconds: float) -> None:
    """kill -9 a little after ``reach`` studies have ended."""
    going = start(listed, out, workers)
    while going.poll() is None and ended(out).total() < reach:
        time.sleep(0.2)
    time.sleep(more_seconds)
    going.send_signal(signal.SIGKILL)
    going.wait()
    print(f"killed after {ended(out).total()} studies", flush=True)


def ended(out: Path) -> Counter[str]:
    """How often each study has ended, by the manifest."""
    from LowDoseBMDLib.manifest import Manifest

    return Counter(entry["key"] for entry in Manifest(out / "manifest.jsonl").entries() if entry["state"] == "ended")


def report(out: Path, options: argparse.Namespace, status: int, seconds: float) -> int:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, ends = {row["study"] for row in rows}, ended(out)
    left_over = [path for path in out.rglob(".*-*") if path.is_file()]
    right = (len(rows) == len(names) == options.studies and set(ends) == names and not left_over
             and all((out / name / "measurement.json").is_file() for name in names))
    print(f"{len(rows)} rows, {len(names)} different studies of {options.studies}; states "
          f"{dict(Counter(row['status'] for row in rows))}; measured more than once: "
          f"{sum(count > 1 for count in ends.values())}; half-written files: {len(left_over)}; exit status {status}; "
          f"{seconds:.0f} s, {seconds / options.studies:.1f} s a study with {options.workers} workers")
    print("every study exactly once" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
