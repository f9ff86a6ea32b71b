"""One person of a cohort of images, in a process of its own: ``python -m LowDoseBMDLib.cohort_person FOLDER PLACE``.

Makes the phantom, measures it into FOLDER/people/ID and prints the result as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cohort_images import PEOPLE_FOLDER, SETTINGS_FILE, ImageCohort
from .flags import refusals
from .phantom import PhantomTruth, make_phantom
from .pipeline import Stopwatch
from .study import Settings, measure_ct

PHANTOM_STAGE = "making the phantom"


def measure_person(folder: Path, cohort: ImageCohort, place: int) -> dict[str, Any]:
    """Make and measure the person at a place of cohort.people(); the results lie in folder/people/ID.

    Returns status; reasons (of a refusal, sentences); flags (codes); mean_of; measured_mg_cm3; spine_hu, muscle_hu,
    fat_hu and their *_se_hu; true_spine_hu (of the levels measured); level_offset_mm (how far the worst of these
    levels' centres lies from the true one); seconds by stage. None: not measured.
    """
    people, watch = cohort.people(), Stopwatch()
    with watch.stage(PHANTOM_STAGE):
        phantom = make_phantom(cohort.phantom(people, place))
    record = measure_ct(phantom.ct, folder / PEOPLE_FOLDER / str(people.id[place]), Settings(calibration=cohort.calibration),
                        watch)
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    return {**result_of(record, phantom.truth), "seconds": seconds}


def result_of(record: dict[str, Any], truth: PhantomTruth) -> dict[str, Any]:
    """measure_person's result of a content of measurement.json, without the seconds."""
    used = [level for level in record["levels"] if level["name"] in record["mean_of"]]
    tissues: dict[str, float | None] = {}
    for name in ("muscle", "fat"):
        found = record[name] or {}
        tissues |= {f"{name}_hu": found.get("hu_mean"), f"{name}_se_hu": found.get("hu_se")}
    bone: dict[str, Any] = dict.fromkeys(("spine_hu", "spine_se_hu", "true_spine_hu", "level_offset_mm"))
    if used:
        offsets = [np.subtract(level["centre_lps_mm"], truth.centres_lps_mm[level["name"]]) for level in used]
        bone = {"spine_hu": round(float(np.mean([level["hu_mean"] for level in used])), 3),
                "spine_se_hu": round(float(np.linalg.norm([level["hu_se"] for level in used])) / len(used), 3),
                "true_spine_hu": round(float(np.mean([truth.trabecular_hu[level["name"]] for level in used])), 3),
                "level_offset_mm": round(float(np.linalg.norm(offsets, axis=1).max()), 1)}
    return {"status": record["status"], "reasons": refusals(record),
            "flags": [flag["code"] for flag in record["flags"]], "mean_of": record["mean_of"],
            "measured_mg_cm3": record["mean_vbmd_mg_cm3"], **bone, **tissues}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one person; the exit status is 0 whether measured or refused."""
    parser = argparse.ArgumentParser(prog="python -m LowDoseBMDLib.cohort_person", description=__doc__.partition(".")[0])
    parser.add_argument("folder", type=Path, help=f"of the cohort; its {SETTINGS_FILE} says who the people are")
    parser.add_argument("place", type=int, help="which person, from 0 on")
    options = parser.parse_args(arguments)
    cohort = ImageCohort.of_json((options.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(measure_person(options.folder, cohort, options.place)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
