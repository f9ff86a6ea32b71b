"""A cohort of images is the cohort of numbers with what images do to it: same people, same truth, each exactly once."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from LowDoseBMDLib import cli
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.cohort import read_cohort
from LowDoseBMDLib.cohort_image_errors import summarise
from LowDoseBMDLib.cohort_images import (
    COHORT_FILE,
    MANIFEST_FILE,
    PEOPLE_FOLDER,
    SETTINGS_FILE,
    SUMMARY_FILE,
    TRUTH_FILE,
    ImageCohort,
    run_image_cohort,
)
from LowDoseBMDLib.cohort_synthesis import KINDS, synthetic_cohort
from LowDoseBMDLib.manifest import Manifest
from LowDoseBMDLib.phantom.physique import draw_physique

LIBRARY = Path(cli.__file__).parents[1]
SITE = TwoPointCalibration(name="Site", muscle_mg_cm3=45.0, fat_mg_cm3=-82.0)


@pytest.mark.parametrize("kind", KINDS)
def test_phantoms_hold_what_is_true_of_the_people(kind: str) -> None:
    cohort = ImageCohort(12, seed=3, kind=kind)
    people = cohort.people()
    for place in range(len(people)):
        physique = draw_physique(cohort.phantom(people, place))
        assert (physique.vbmd_mg_cm3["L1"] + physique.vbmd_mg_cm3["L2"]) / 2 == pytest.approx(people.reference_mg_cm3[place])
        assert (physique.trabecular_hu["L1"] + physique.trabecular_hu["L2"]) / 2 == pytest.approx(people.spine_hu[place])
        assert (physique.hu["muscle"], physique.hu["fat"]) == (people.muscle_hu[place], people.fat_hu[place])


def test_the_people_are_those_of_the_cohort_of_numbers() -> None:
    scatter, scanner = KINDS["paper-like"]
    numbers = synthetic_cohort(20, 5, scatter, (scanner,), SITE)
    people = ImageCohort(20, 5, "paper-like", SITE).people()
    for name in ("id", "split", "age_years", "reference_mg_cm3", "measured_mg_cm3", "spine_hu", "muscle_hu", "fat_hu"):
        assert np.array_equal(getattr(people, name), getattr(numbers, name))


def test_tall_people_are_large_and_heavy_people_fat() -> None:
    cohort = ImageCohort(60, seed=2)
    people = cohort.people()
    specs = [cohort.phantom(people, place) for place in range(60)]
    for sex in "FM":
        chosen = people.sex == sex
        size, fat = (np.array([getattr(spec, name) for spec in specs])[chosen] for name in ("scale", "fat_thickness_mm"))
        assert np.corrcoef(size, people.height_cm[chosen])[0, 1] == pytest.approx(1)
        assert np.corrcoef(fat, people.bmi_kg_m2[chosen])[0, 1] > 0.98
        assert 7 <= fat.min() < fat.max() <= 38


def test_no_two_people_share_an_anatomy() -> None:
    seeds = {cohort.phantom(people, place).seed for cohort in (ImageCohort(9, 1), ImageCohort(9, 2))
             for people in [cohort.people()] for place in range(9)}
    assert len(seeds) == 18


def test_settings_are_read_back_alike() -> None:
    cohort = ImageCohort(30, 4, "paper-like", SITE, (1.0, 1.0, 2.0))
    assert ImageCohort.of_json(cohort.to_json()) == cohort
    with pytest.raises(ValueError, match="no settings"):
        ImageCohort.of_json("{}")


@pytest.mark.parametrize(("wrong", "said"), [({"kind": "paper-numbers"}, "paper-numbers"), ({"count": 1}, "1 people"),
                                             ({"seed": -1}, "-1")])
def test_wrong_settings_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageCohort(**{"count": 5, **wrong})


def a_row(key: str, seconds: float = 10.0, **result: Any) -> dict[str, Any]:
    """A person as the manifest keeps it."""
    usual = {"status": "measured", "reasons": [], "flags": [], "mean_of": ["L1", "L2"], "spine_se_hu": 1.0,
             "muscle_se_hu": 0.5, "fat_se_hu": 0.4, "level_offset_mm": 0.4,
             "seconds": {"making the phantom": 6.0, "bones": 2.0}}
    return {"key": key, "status": "done", "message": "", "seconds": seconds, "peak_memory_mb": 9.0, "result": usual | result}


def refused(key: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("measured_mg_cm3", "spine_hu", "spine_se_hu", "true_spine_hu", "muscle_hu", "muscle_se_hu",
                             "fat_hu", "fat_se_hu", "level_offset_mm"))
    return a_row(key, status="refused", reasons=["No spine."], mean_of=[], **nothing)


def measured(cohort: ImageCohort, place: int, errors_hu: tuple[float, float, float]) -> dict[str, Any]:
    """A person of whom the images read spine, muscle and fat wrong by so much."""
    people = cohort.people()
    true = [float(getattr(people, f"{name}_hu")[place]) for name in ("spine", "muscle", "fat")]
    spine, muscle, fat = np.add(true, errors_hu)
    return a_row(str(people.id[place]), spine_hu=spine, true_spine_hu=true[0], muscle_hu=muscle, fat_hu=fat,
                 measured_mg_cm3=cohort.used_calibration.vbmd(spine, muscle, fat))


@pytest.fixture
def all_done(tmp_path: Path) -> Iterator[tuple[Path, ImageCohort]]:
    """A folder in which four people are done: errors of 1, 0 and -1 HU and of 3, 2 and 1 HU, a refusal, and one at a wrong
    vertebra."""
    cohort = ImageCohort(4, 7)
    ids = cohort.people().id.tolist()
    wrong = measured(cohort, 3, (5.0, 1.0, 0.0))
    wrong["result"]["level_offset_mm"] = 35.0
    with Manifest(tmp_path / MANIFEST_FILE) as manifest:
        for row in (refused(ids[2]), measured(cohort, 1, (3.0, 2.0, 1.0)), wrong, measured(cohort, 0, (1.0, 0.0, -1.0))):
            manifest.append(row)
    (tmp_path / SETTINGS_FILE).write_text(cohort.to_json())
    yield tmp_path, cohort


def test_nobody_is_measured_twice(all_done: tuple[Path, ImageCohort]) -> None:
    folder, cohort = all_done
    run_image_cohort(folder, cohort, lambda entry: pytest.fail(f"{entry['key']} was measured again"))
    found = read_cohort(folder / COHORT_FILE)
    people = cohort.people()
    assert found.id.tolist() == people.id.tolist()
    assert np.array_equal(found.reference_mg_cm3, people.reference_mg_cm3), "the truth stands for everybody"
    assert found.paired.tolist() == [True, True, False, True], "of the refused one nothing is measured"
    assert np.isnan([getattr(found, name)[2] for name in ("spine_hu", "muscle_hu", "fat_hu", "spine_se_hu")]).all()
    assert found.spine_hu[0] == pytest.approx(people.spine_hu[0] + 1)
    assert found.synthetic.all()


def test_the_summary_counts_refusals_and_errors_of_the_images(all_done: tuple[Path, ImageCohort]) -> None:
    folder, cohort = all_done
    summary = run_image_cohort(folder, cohort, print)
    assert json.loads((folder / SUMMARY_FILE).read_text()) == summary
    assert (summary["people"], summary["status"]) == (4, {"measured": 3, "refused": 1})
    assert (summary["reasons"], summary["other_vertebra"]) == ({"No spine.": 1}, 1)
    assert summary["image_errors"]["spine_hu"] == {"count": 3, "mean": 3.0, "sd": 2.0}
    assert summary["image_errors"]["muscle_hu"] == {"count": 3, "mean": 1.0, "sd": 1.0}
    assert summary["image_errors"]["fat_hu"] == {"count": 3, "mean": 0.0, "sd": 1.0}
    stages = summary["seconds_per_study"]["stages"]
    assert summary["seconds_per_study"]["median"] == 10.0
    assert {name: (stage["median"], stage["share"]) for name, stage in stages.items()} == {
        "making the phantom": (6.0, 0.6), "bones": (2.0, 0.2), "starting and writing": (2.0, 0.2)}


def test_the_truth_stands_beside_what_was_measured(all_done: tuple[Path, ImageCohort]) -> None:
    folder, cohort = all_done
    run_image_cohort(folder, cohort, print)
    with (folder / TRUTH_FILE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["measured", "measured", "refused", "measured"]
    assert float(rows[1]["spine_hu"]) - float(rows[1]["true_spine_hu"]) == pytest.approx(3.0)
    assert (rows[2]["measured_mg_cm3"], rows[2]["reason"]) == ("", "No spine.")
    assert float(rows[2]["true_spine_hu"]) == cohort.people().spine_hu[2]


def test_a_process_that_failed_is_counted_with_its_reason() -> None:
    cohort = ImageCohort(2)
    failed = {"key": "b", "status": "timeout", "message": "It was not done after 600 s.\nTrace", "seconds": 600.0,
              "peak_memory_mb": None, "result": None}
    summary = summarise(cohort.people(), [measured(cohort, 0, (0, 0, 0)), failed], cohort.used_calibration)
    assert summary["status"] == {"measured": 1, "timeout": 1}
    assert summary["reasons"] == {"It was not done after 600 s.": 1}
    assert summary["seconds_per_study"]["median"] == 10.0, "only whole studies tell how long one takes"


def test_a_folder_of_other_people_is_left_alone(all_done: tuple[Path, ImageCohort]) -> None:
    folder, _ = all_done
    with pytest.raises(ValueError, match="other settings"):
        run_image_cohort(folder, ImageCohort(4, 8), print)
    assert not (folder / COHORT_FILE).exists()


def test_the_command_says_what_was_found(all_done: tuple[Path, ImageCohort], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = all_done
    arguments = ["cohort", "--images", "4", "--seed", "7", "-o", str(folder)]
    assert cli.main(arguments) == 1, "one of them was refused"
    said = capsys.readouterr().out
    assert "4 synthetic people in images: 3 measured, 1 refused" in said
    assert "1 x No spine." in said
    assert "spine: +3.0 +- 2.0 HU" in said
    assert "10.0 s per study (median): making the phantom 60 %" in said
    assert cli.main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == {"measured": 3, "refused": 1}


def test_numbers_without_hu_have_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cohort", "--images", "4", "--kind", "paper-numbers", "-o", str(tmp_path / "out")]) == 2
    assert "paper-numbers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_images_are_refused_for_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cohort", "--calibration", "site.json", "-o", str(tmp_path / "out.csv")]) == 2
    assert "--images" in capsys.readouterr().err


SMALL = ImageCohort(2, 1, "paper-like", spacing_mm=(2.5, 2.5, 4.0))
"""So few and coarse because each takes the networks a quarter of a minute."""
RUN_SMALL = ("import sys; from pathlib import Path; from LowDoseBMDLib.cohort_images import ImageCohort, run_image_cohort; "
             "run_image_cohort(Path(sys.argv[1]), ImageCohort.of_json(sys.argv[2]), print)")


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed without warning while it measures the second person, who had failed in a run before."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    keys = SMALL.people().id.tolist()
    run_image_cohort(whole, SMALL, lambda entry: None, workers=2)
    with Manifest(broken / MANIFEST_FILE) as manifest:
        manifest.append({"key": keys[1], "status": "killed", "message": "", "seconds": 1.0, "result": None})
    killed = subprocess.Popen([sys.executable, "-c", RUN_SMALL, str(broken), SMALL.to_json()], stdout=subprocess.DEVNULL,
                              env=os.environ | {"PYTHONPATH": str(LIBRARY)})
    while len(Manifest(broken / MANIFEST_FILE).entries()) < 2 and killed.poll() is None:
        time.sleep(0.1)
    assert killed.poll() is None, "it ended before it could be killed"
    time.sleep(2.0)
    killed.kill()
    killed.wait()
    assert not (broken / COHORT_FILE).exists()
    again: list[str] = []
    run_image_cohort(broken, SMALL, lambda entry: again.append(entry["key"]))
    assert again == keys[1:], "the first was done"
    assert (broken / COHORT_FILE).read_bytes() == (whole / COHORT_FILE).read_bytes()
    assert {path.name for path in (broken / PEOPLE_FOLDER).iterdir()} == set(keys)
    found = read_cohort(whole / COHORT_FILE)
    people = SMALL.people()
    assert np.abs(found.spine_hu - people.spine_hu).max() < 6, "the images read the bone that was put into them"
    assert np.abs(found.muscle_hu - people.muscle_hu).max() < 3
    assert np.abs(found.fat_hu - people.fat_hu).max() < 3
