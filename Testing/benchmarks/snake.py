"""How well and how fast a snake fills a vertebra from bubbles, against a label map.

    python Testing/benchmarks/snake.py CT LABELS --labels T12=32 L1=31 L2=30 [--bubbles 12 24] [--iterations 70]

Bubbles are placed by the label map, as a careful annotator would place them: each where it covers most of what is not
covered yet. All settings are those that the tool proposes. Seconds are of the processor, from the CT to the region.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("LowDoseBMD", "LowDoseBMDTrainer", "Testing/library")]

from LowDoseBMDLib.geometry import Geometry  # noqa: E402
from LowDoseBMDTrainerLib.scores import dice  # noqa: E402
from placed_bubbles import ITERATIONS, covering_bubbles, grown  # noqa: E402


def main() -> None:
    """Print a line for each structure and number of bubbles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("labels_file", type=Path, metavar="LABELS")
    parser.add_argument("--labels", nargs="+", required=True, metavar="NAME=NUMBER")
    parser.add_argument("--bubbles", nargs="+", type=int, default=[12, 24])
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    arguments = parser.parse_args()
    image = sitk.ReadImage(str(arguments.ct))
    grid, hu = Geometry.from_image(image), sitk.GetArrayFromImage(image)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(arguments.labels_file)))
    for name, number in (entry.split("=") for entry in arguments.labels):
        truth = labels == int(number)
        for count in arguments.bubbles:
            bubbles = covering_bubbles(truth, grid, count)
            began = time.process_time()
            found = grown(hu, grid, bubbles, arguments.iterations)
            seconds = time.process_time() - began
            scores = ", ".join(f"{iterations}: {dice(mask, truth):.3f}" for iterations, mask in found.items())
            print(f"{name}, {count} bubbles, {seconds:.1f} s; Dice after iterations {scores}", flush=True)


if __name__ == "__main__":
    main()
