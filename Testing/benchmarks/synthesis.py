"""How long the synthesis takes for a sample of each task.

    python Testing/benchmarks/synthesis.py PEOPLE [--tasks bones bodies ...] [--count 20] [--device cpu] [--threads 2]

PEOPLE holds one folder of prepared people for each task, made with ``lowdosebmd-train prepare``. Samples are drawn of each
person in turn. Prints seconds of the processor and of the clock for a sample, the mean and (in brackets) the longest.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("LowDoseBMD", "LowDoseBMDTrainer")]

from LowDoseBMDTrainerLib.people import load_people  # noqa: E402
from LowDoseBMDTrainerLib.synthesis import TASKS, draw_sample  # noqa: E402
from LowDoseBMDTrainerLib.synthesis_subject import make_subject  # noqa: E402


def main() -> None:
    """Print a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path, metavar="PEOPLE")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.tasks:
        task = TASKS[name]
        subjects = [make_subject(person, arguments.device) for person in load_people(arguments.people / name)]
        draw_sample(np.random.default_rng(0), subjects[0], task)  # the first one warms up
        spent = []
        for n in range(arguments.count):
            began = time.process_time(), time.perf_counter()
            image, _ = draw_sample(np.random.default_rng(n), subjects[n % len(subjects)], task)
            float(image[0, 0, 0, 0])  # a GPU is done only when its result is asked for
            spent.append((time.process_time() - began[0], time.perf_counter() - began[1]))
        processor, clock = np.array(spent).T
        grid = f"{' x '.join(map(str, task.shape_kji))} voxels of {task.spacing_mm} mm on {arguments.device}"
        print(f"{name}: {grid}; processor {processor.mean():.2f} s ({processor.max():.2f}), "
              f"clock {clock.mean():.2f} s ({clock.max():.2f})", flush=True)


if __name__ == "__main__":
    main()
