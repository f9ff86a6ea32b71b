"""Where the time of one study goes: share of each stage, over several runs in one process.

    python Testing/benchmarks/stages.py CT [--labels FILE] [--runs 3]

Machines differ and are shared, so compare shares of one run, not seconds between runs. For the whole process with its
start and peak memory: /usr/bin/time -v lowdosebmd measure CT -o OUT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "LowDoseBMD"))


def main() -> None:
    """Measure and print the median share of each stage."""
    from LowDoseBMDLib.study import Settings, measure_study

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with TemporaryDirectory() as folder:
            runs.append(measure_study(options.ct, Path(folder), Settings(labels=options.labels))["seconds"])
    totals = [sum(run.values()) for run in runs]
    print(f"{options.ct.name}: total {min(totals):.1f} to {max(totals):.1f} s over {options.runs} runs")
    for stage in runs[0]:
        shares = [100 * run[stage] / total for run, total in zip(runs, totals, strict=True)]
        print(f"  {stage:<22} {np.median(shares):5.1f} %")


if __name__ == "__main__":
    main()
