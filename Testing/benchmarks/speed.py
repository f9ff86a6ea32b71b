"""Seconds and memory of a study and of a batch, beside nnU-Net v2 and beside what the arithmetic alone would take.

    python Testing/benchmarks/speed.py [CT ...] [--runs 3] [--threads 2] [--studies 6] [--without growth batch nnunet floor]

Measured are the CTs given and a synthetic one of 512 x 512 x 320 voxels, 1.25 mm, drawn from a phantom with noise. Every
run is a whole process, from its start to its last file, with --detail fast and full in turn: wall clock, memory at its
peak, and the shares of its stages. Growth: the synthetic body in 100, 300 and 900 slices. Batch: copies of the synthetic CT
with one worker and with two, fast and full. Ratios are to fast.
Floor: the floating-point operations of the three networks on the tiles that were run, over the rate of a matrix product
(torch, fp32, same threads) in this run, and the bytes of the file over the rate at which it is read. nnU-Net: see
nnunet_3mm.py; needs nnunetv2. Machines are shared and differ: compare the ratios of one run, and where others work on the
same machine the seconds of processor (of all threads); the load is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

HERE = Path(__file__).resolve().parent
MODULE = HERE.parents[1] / "LowDoseBMD"
sys.path.insert(0, str(MODULE))

SHAPE_KJI = (320, 512, 512)
SPACING_MM = (0.75, 0.75, 1.25)
NOISE_HU = 20.0
SLICES = (100, 300, 900)
PARTS = ("growth", "batch", "nnunet", "floor")
DETAILS = ("fast", "full")
ADOPT_CHILDREN = 36
"""PR_SET_CHILD_SUBREAPER of Linux's prctl."""


@dataclass(frozen=True)
class Run:
    """One process. cpu_seconds: of all its threads; said: its standard output; 0 and "" where it is not known."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    said: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cts", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--studies", type=int, default=6)
    parser.add_argument("--without", nargs="*", default=[], choices=PARTS)
    options = parser.parse_args()
    if sys.platform == "linux":  # a batch's fork server ends after the batch: as this process's child it is counted
        ctypes.CDLL(None).prctl(ADOPT_CHILDREN, 1, 0, 0, 0)
    print(f"{os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f} before")
    with TemporaryDirectory(prefix="speed-") as home:
        folder = Path(home)
        synthetic = draw(folder / "synthetic.nii.gz", SHAPE_KJI[0])
        for ct in (*options.cts, synthetic):
            one_study(ct, folder, options)
        if "growth" not in options.without:
            growth(folder, options)
        if "batch" not in options.without:
            batch(synthetic, folder, options)
    print(f"load {os.getloadavg()[0]:.1f} after")


def draw(path: Path, slices: int) -> Path:
    """A phantom in SHAPE_KJI's width and height and so many slices over 400 mm, with the noise of a low dose."""
    import SimpleITK as sitk
    from LowDoseBMDLib.geometry import Geometry, resample
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom

    made = make_phantom(PhantomSpec(seed=2, spacing_mm=(1.5, 1.5, 2.5), noise_hu=0.0, scan_bottom=("L4", 0.9))).ct
    spacing = (*SPACING_MM[:2], SPACING_MM[2] * SHAPE_KJI[0] / slices)
    shape = (slices, *SHAPE_KJI[1:])
    low, middle = made.geometry.to_lps(np.full(3, -0.5)), made.geometry.to_lps((np.array(made.hu.shape) - 1) / 2)
    matrix = np.diag([*spacing, 1.0])
    matrix[:2, 3] = middle[:2] - (np.array(shape[:0:-1]) - 1) / 2 * spacing[:2]
    matrix[2, 3] = low[2] + spacing[2] / 2
    grid = Geometry(shape, matrix)
    hu = resample(made.hu, made.geometry, grid, outside=-1000)
    random = np.random.default_rng(1)
    for plane in hu:
        plane[:] = np.rint(np.clip(plane + random.normal(0.0, NOISE_HU, plane.shape), -1024, 3000))
    sitk.WriteImage(grid.to_image(hu), str(path), True)
    return path


def run(arguments: list[str], threads: int) -> Run:
    """A Python process and what it used. Raises RuntimeError when it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(MODULE), os.environ.get("PYTHONPATH", "")]),
                   "OMP_NUM_THREADS": str(threads), "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    cpu_seconds = used.ru_utime + used.ru_stime + _of_those_left()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} ended with status {process.returncode}: {said}")
    return Run(seconds, cpu_seconds, used.ru_maxrss / 1024, said)


def _of_those_left() -> float:
    """Seconds of processor of processes that a run left behind, once they have ended, and of their children."""
    total = 0.0
    with contextlib.suppress(ChildProcessError):
        while True:
            used = os.wait4(-1, 0)[2]
            total += used.ru_utime + used.ru_stime
    return total


def measure(ct: Path, out: Path, threads: int, detail: str) -> tuple[Run, dict]:
    """A whole process, and its record."""
    done = run(["-m", "LowDoseBMDLib", "measure", str(ct), "-o", str(out), "--detail", detail], threads)
    return done, json.loads((out / "measurement.json").read_text(encoding="utf-8"))


def one_study(ct: Path, folder: Path, options: argparse.Namespace) -> None:
    """The tables of one CT; the numbers of both details must be the same."""
    print(f"\n{ct.name}, {size(ct)}, {ct.stat().st_size / 1e6:.0f} MB\n"
          f"{'':<27}{'wall clock':>10}{'ratio':>10}{'processor':>10}{'ratio':>10}{'peak memory':>10}")
    runs = {detail: [] for detail in DETAILS}
    for _ in range(options.runs):
        for detail in DETAILS:
            runs[detail].append(measure(ct, folder / "out", options.threads, detail))
    best = {detail: min((done for done, _ in runs[detail]), key=lambda done: done.seconds) for detail in DETAILS}
    for detail in DETAILS:
        most = max(done.seconds for done, _ in runs[detail])
        row(f"whole process, {detail}", best[detail], best["fast"], f"up to {most:.1f} s in {options.runs} runs")
    numbers = {detail: [level["vbmd_mg_cm3"] for level in runs[detail][0][1]["levels"]] for detail in DETAILS}
    other = "the same" if numbers["fast"] == numbers["full"] else numbers["full"]
    print(f"vBMD in mg/cm3: {numbers['fast']}, {other} in full")
    for detail in DETAILS:
        records = [record["seconds"] for _, record in runs[detail]]
        stages = {name: min(seconds[name] for seconds in records) for name in records[0]}
        row(f"{detail}: start and rest", Run(best[detail].seconds - sum(stages.values())), best["fast"])
        for name, seconds in stages.items():
            row(f"  {name}", Run(seconds), best["fast"])
    if "floor" not in options.without:
        seconds, words = floor(ct, options.threads)
        row("physical floor", Run(seconds), best["fast"], words)
    if "nnunet" not in options.without:
        nnunet(ct, best["fast"], options.threads)


def row(name: str, done: Run, beside: Run, note: str = "") -> None:
    """Seconds, how many times those of another run; the same of the processor; memory."""
    processor = " " * 20
    if done.cpu_seconds:
        processor = f"{done.cpu_seconds:8.1f} s{done.cpu_seconds / beside.cpu_seconds:8.2f} x"
    memory = f"{done.peak_mb:7.0f} MB" if done.peak_mb else " " * 10
    print(f"{name:<27}{done.seconds:8.2f} s{done.seconds / beside.seconds:8.2f} x{processor}{memory}  {note}".rstrip(),
          flush=True)


def size(ct: Path) -> str:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(ct))
    reader.ReadImageInformation()
    voxel = " x ".join(f"{length:.2f}" for length in reader.GetSpacing())
    return f"{' x '.join(map(str, reader.GetSize()))} voxels of {voxel} mm"


def nnunet(ct: Path, ours: Run, threads: int) -> None:
    try:
        done = run([str(HERE / "nnunet_3mm.py"), str(ct), "--threads", str(threads)], threads)
    except RuntimeError as error:
        print(f"nnU-Net v2: {error}")
        return
    said = json.loads(done.said.splitlines()[-1])
    row("nnU-Net v2, 3 mm", Run(said["seconds"], said["cpu_seconds"], said["peak_mb"]), ours,
        f"{said['million_weights']:g} million weights, {said['shape']} voxels, prediction alone")


# --- the floor ---------------------------------------------------------------------------------------------

def floor(ct: Path, threads: int) -> tuple[float, str]:
    """Seconds of the networks' arithmetic and of reading the file at this machine's rates, and both in words."""
    operations, count = operations_of(ct)
    rate = gemm_rate(threads)
    bandwidth = read_rate(ct)
    seconds = operations / rate + ct.stat().st_size / bandwidth
    return seconds, (f"{operations / 1e12:.2f} TFLOP in {count} tiles at {rate / 1e9:.0f} GFLOP/s, "
                     f"{ct.stat().st_size / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s")


def operations_of(ct: Path) -> tuple[float, int]:
    """Floating-point operations (a multiplication and an addition are two) of the networks on this CT, and the tiles."""
    import torch
    from LowDoseBMDLib.files.read import read_ct
    from LowDoseBMDLib.inference import open_engine
    from LowDoseBMDLib.pipeline import Models, open_models, propose_rois
    from torch.utils.flop_counter import FlopCounterMode

    models = open_models(engine="onnx", device="cpu")
    tiles: list[tuple[str, tuple[int, ...]]] = []
    for name, engine in models.engines.items():
        engine.run = _listened(engine.run, name, tiles)
    propose_rois(read_ct(ct), Models(**vars(models)))
    total = 0
    for name, shape in tiles:
        network = open_engine(vars(models)[name].bundle, "torch", "cpu").network.to("meta")
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(shape, device="meta"))
        total += counter.get_total_flops()
    return float(total), len(tiles)


def _listened(run_tile, name: str, tiles: list):
    def listening(tile: np.ndarray) -> np.ndarray:
        tiles.append((name, tile.shape))
        return run_tile(tile)
    return listening


def gemm_rate(threads: int, side: int = 2048) -> float:
    """Floating-point operations in a second: the best of eight products of fp32 matrices."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(side, side), torch.rand(side, side)
    return 2 * side**3 / min(_seconds(lambda: a @ b) for _ in range(8))


def read_rate(path: Path) -> float:
    """Bytes in a second, file cached as for the runs before."""
    return path.stat().st_size / min(_seconds(path.read_bytes) for _ in range(3))


def _seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# --- growth and batch --------------------------------------------------------------------------------------

def growth(folder: Path, options: argparse.Namespace) -> None:
    print(f"\nsynthetic body of 400 mm in more and more slices of 512 x 512, best of {options.runs}")
    first = None
    for slices in SLICES:
        ct = draw(folder / f"{slices}.nii.gz", slices)
        for detail in DETAILS:
            runs = [measure(ct, folder / "out", options.threads, detail)[0] for _ in range(options.runs)]
            best = min(runs, key=lambda done: done.seconds)
            first = first or best
            row(f"{slices} slices, {detail}", best, first)
        ct.unlink()


def batch(ct: Path, folder: Path, options: argparse.Namespace) -> None:
    print(f"\nbatch of {options.studies} studies of {SHAPE_KJI[2]} x {SHAPE_KJI[1]} x {SHAPE_KJI[0]}")
    studies = folder / "studies"
    studies.mkdir()
    for n in range(options.studies):
        shutil.copyfile(ct, studies / f"{n}.nii.gz")
    each: dict[tuple[str, int], Run] = {}
    for detail in DETAILS:
        for workers in (1, 2):
            out = folder / f"batch-{detail}-{workers}"
            done = run(["-m", "LowDoseBMDLib", "batch", str(studies), "-o", str(out), "--workers", str(workers), "--detail",
                        detail], options.threads)
            with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
                measured = sum(entry["status"] == "measured" for entry in csv.DictReader(file))
            one = each[detail, workers] = Run(done.seconds / options.studies, done.cpu_seconds / options.studies)
            row(f"{workers} worker{'s' * (workers > 1)}, {detail}, a study", one, each["fast", 1],
                f"{3600 / one.seconds / min(options.threads, os.cpu_count()):.0f} studies an hour and core; "
                f"{measured} of {options.studies} measured")
        print(f"{detail}, 1 -> 2 workers: {each[detail, 1].seconds / each[detail, 2].seconds:.2f} times as many studies")


if __name__ == "__main__":
    main()
