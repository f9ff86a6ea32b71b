"""Two annotators compared: every number on small boxes is known by arithmetic."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import Geometry
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDTrainerLib import raters_report
from LowDoseBMDTrainerLib.cases import Labels, open_for_writing
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.compare_files import read_pairs
from LowDoseBMDTrainerLib.project import Arrival, Project, create_project
from LowDoseBMDTrainerLib.raters import DIFFERENT, ONLY_FIRST, ONLY_SECOND, compare_readings
from LowDoseBMDTrainerLib.raters_project import numbers_of, pairs_of, summarise

SHAPE_KJI = (24, 30, 40)
SPACING_IJK_MM = (1.0, 2.0, 4.0)
"""Thick slices and oblong pixels: an error in the order of axes changes every distance."""


def geometry() -> Geometry:
    matrix = np.diag([*SPACING_IJK_MM, 1.0])
    matrix[:3, 3] = (-20.0, -30.0, -400.0)
    return Geometry(SHAPE_KJI, matrix)


def box(start: tuple[int, int, int], shape: tuple[int, int, int]) -> Mask:
    return Mask(np.ones(shape, bool), start)


def drawn(keypoints: tuple[Keypoint, ...] = (), **masks: Mask) -> Labels:
    return Labels(geometry(), masks, keypoints)


def test_a_box_and_the_same_box_shifted_by_one_pixel() -> None:
    """6 x 8 x 10 voxels, moved by one column (1 mm): 9 of 10 columns are shared. Each box has 480 voxels, of which
    4 x 6 x 8 = 192 are inside; of its 288 surface voxels, 48 lie in the column that the other lacks, 1 mm from the
    nearest, and so do the 24 inner ones of the column that is surface here and inside there."""
    found = compare_readings(drawn(ribs=box((5, 5, 5), (6, 8, 10))), drawn(ribs=box((5, 5, 6), (6, 8, 10))))
    score = found.structure("ribs")
    assert score.dice == pytest.approx(2 * 432 / 960)
    assert score.volume_cm3 == pytest.approx((480 * 8 / 1000, 480 * 8 / 1000))
    assert score.surface.nsd == 1.0
    assert score.surface.hd95_mm == pytest.approx(1.0)
    assert score.surface.mean_mm == pytest.approx((48 + 24) / 288)
    assert found.spots == ()
    values, counts = np.unique(found.disagreement.full(geometry()), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: math.prod(SHAPE_KJI) - 96, ONLY_FIRST: 48,
                                                                       ONLY_SECOND: 48}


@pytest.mark.parametrize(("axis", "mm"), [(0, 4.0), (1, 2.0), (2, 1.0)])
def test_distances_know_the_spacing_of_their_axis(axis: int, mm: float) -> None:
    """Two plates of one voxel, three voxels apart along an axis: every distance is three spacings of that axis."""
    shape = tuple(1 if n == axis else 8 for n in range(3))
    start = [8, 8, 8]
    start[axis] += 3
    found = compare_readings(drawn(ribs=box((8, 8, 8), shape)), drawn(ribs=box(tuple(start), shape)))
    score = found.structure("ribs")
    assert (score.dice, score.surface.hd95_mm, score.surface.mean_mm) == (0.0, pytest.approx(3 * mm), pytest.approx(3 * mm))
    assert score.surface.nsd == 0.0
    spots = [(reader, pytest.approx(64 * 8), pytest.approx(3 * mm)) for reader in (0, 1)] if 3 * mm > 4 else []
    assert [(spot.reader, spot.volume_mm3, spot.reach_mm) for spot in found.spots] == spots


def test_a_spot_is_only_what_lies_beyond_a_voxel() -> None:
    """A rib 10 columns longer: the first four columns lie within the 4 mm that slices are apart of the other's end."""
    found = compare_readings(drawn(ribs=box((5, 5, 5), (2, 3, 20))), drawn(ribs=box((5, 5, 5), (2, 3, 10))))
    spot, = found.spots
    assert (spot.structure, spot.reader, spot.slice in (5, 6)) == ("ribs", 0, True)
    assert spot.volume_mm3 == pytest.approx(2 * 3 * 6 * 8.0)
    assert spot.reach_mm == pytest.approx(10.0)
    inside = np.rint(geometry().to_kji(np.array(spot.position_lps_mm))).astype(int)
    assert np.all(inside >= (5, 5, 19)) and np.all(inside < (7, 8, 25))
    assert np.count_nonzero(found.beyond.voxels) == 36 and np.count_nonzero(found.disagreement.voxels) == 60


def test_the_worst_slice_is_the_one_with_most_of_the_spots() -> None:
    mine = drawn(ribs=box((3, 4, 4), (10, 12, 30)), vertebrae=box((20, 5, 5), (1, 10, 10)))
    theirs = drawn(ribs=box((3, 4, 5), (10, 12, 29)))
    found = compare_readings(mine, theirs)
    assert found.worst_slice == 20, "the rim of the ribs has more voxels, but is 1 mm thick"
    middle = geometry().to_lps(np.array([20, 9.5, 9.5]))
    assert found.worst_lps_mm == pytest.approx(tuple(middle))


def test_a_region_that_got_another_name_differs_in_both() -> None:
    found = compare_readings(drawn(ribs=box((5, 5, 5), (2, 3, 4))), drawn(vertebrae=box((5, 5, 5), (2, 3, 4))))
    assert set(np.unique(found.disagreement.voxels)) == {DIFFERENT}
    assert [(row.name, row.dice) for row in found.structures] == [("vertebrae", 0.0), ("ribs", 0.0)]
    assert all(math.isinf(spot.reach_mm) for spot in found.spots)


def test_a_body_inside_its_vertebra_counts_by_itself() -> None:
    vertebra, body = box((5, 5, 5), (6, 8, 10)), box((6, 6, 6), (3, 4, 5))
    found = compare_readings(drawn(vertebrae=vertebra, body_L1=body), drawn(vertebrae=vertebra, body_L1=NO_VOXELS))
    assert np.count_nonzero(found.disagreement.voxels == ONLY_FIRST) == 60
    assert found.structure("vertebrae").dice == 1.0 and found.structure("body_L1").dice == 0.0


def test_what_need_not_be_drawn_counts_only_where_both_have_it() -> None:
    vertebra, body = box((5, 5, 5), (6, 8, 10)), box((6, 6, 6), (3, 4, 5))
    found = compare_readings(drawn(vertebrae=vertebra, body_L1=body, other_bones=body), drawn(vertebrae=vertebra))
    assert [row.name for row in found.structures] == ["vertebrae"] and not found.disagreement.voxels.any()
    missed = compare_readings(drawn(ribs=vertebra), drawn(vertebrae=vertebra))
    assert {row.name: row.dice for row in missed.structures} == {"vertebrae": 0.0, "ribs": 0.0}


def test_keypoints_are_compared_by_level() -> None:
    mine = (Keypoint("T12", (0.0, 0.0, 0.0)), Keypoint("L1", (0.0, 0.0, -30.0)))
    theirs = (Keypoint("L1", (2.0, 3.0, -36.0)), Keypoint("L2", (0.0, 0.0, -60.0)))
    found = compare_readings(drawn(mine), drawn(theirs))
    assert found.keypoint_mm == {"T12": math.inf, "L1": pytest.approx(7.0), "L2": math.inf}


def test_equal_readings_differ_nowhere() -> None:
    labels = drawn((Keypoint("L1", (1.0, 2.0, 3.0)),), ribs=box((5, 5, 5), (2, 3, 4)), scapulae=NO_VOXELS)
    found = compare_readings(labels, labels)
    assert (found.worst_slice, found.worst_lps_mm, found.spots) == (None, None, ())
    assert [(row.name, row.dice, row.surface.mean_mm) for row in found.structures] == [("ribs", 1.0, 0.0)]
    assert found.keypoint_mm == {"L1": 0.0}
    assert not found.disagreement.full(geometry()).any()


def test_readings_of_two_grids_are_refused() -> None:
    other = replace(geometry(), shape_kji=(24, 30, 41))
    with pytest.raises(ValueError, match="readings of one CT"):
        compare_readings(drawn(ribs=box((5, 5, 5), (2, 3, 4))), Labels(other))


# --- over a project ----------------------------------------------------------------------------------------

@pytest.fixture
def a_project(tmp_path: Path) -> Project:
    """0001: AB and CD, one column apart; 0002: CD has the labels and AB the reading; 0003: nobody but AB."""
    project = create_project(tmp_path / "project", "Two readers")
    wide, narrow = box((5, 5, 5), (6, 8, 10)), box((5, 5, 5), (6, 8, 5))
    for number, (owner, mine, reader, theirs) in enumerate([
            ("AB", wide, "CD", box((5, 5, 6), (6, 8, 10))), ("CD", narrow, "AB", wide), ("AB", wide, "", NO_VOXELS)]):
        rng = np.random.default_rng(number)
        ct = CTVolume(rng.integers(-1000, 400, SHAPE_KJI).astype(np.int16), geometry())
        path = tmp_path / f"ct{number}.nii.gz"
        sitk.WriteImage(geometry().to_image(ct.hu), str(path))
        points = (Keypoint("L1", (-5.0, -10.0, -350.0 + number)),)
        labels = drawn(points, ribs=mine)
        case = project.add(path, arrival=Arrival(labels=labels, annotator=owner, synthetic=number == 1))
        if reader:
            with open_for_writing(case, reader) as writing:
                writing.save_reading(reader, drawn((Keypoint("L1", (-5.0, -10.0, -353.0)),), ribs=theirs))
    return project


def test_pairs_are_joined_whoever_has_the_labels(a_project: Project) -> None:
    pairs = [pair for case in a_project.cases() for pair in pairs_of(case)]
    assert [(pair.case, pair.readers) for pair in pairs] == [("0001", ("AB", "CD")), ("0002", ("CD", "AB"))]
    summary, = summarise([numbers_of(pair) for pair in pairs])
    assert summary.cases == ("0001", "0002")
    ribs, = summary.structures
    assert (ribs.cases, ribs.both) == (2, 2)
    assert ribs.dice == pytest.approx((0.9 + 2 * 240 / 720) / 2)
    point, = summary.keypoints
    assert (point.both, point.one, point.mean_mm, point.largest_mm) == (2, 0, pytest.approx(3.5), pytest.approx(4.0))


def test_compare_command_writes_a_report(a_project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "agreement"
    assert main(["compare", str(a_project.folder), "-o", str(out)]) == 0
    assert "Dice 0.783" in capsys.readouterr().out
    record = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert record["left_out"] == [{"case": "0003", "why": "only one person has drawn it, or nobody"}]
    volumes = {"only_first": pytest.approx(0.384), "only_second": pytest.approx(0.384), "different": 0.0}
    assert record["pairs"][0]["disagreement_cm3"] == volumes
    rows = list(csv.DictReader((out / "compare.csv").open(encoding="utf-8")))
    assert [(row["case"], row["name"], row["dice"]) for row in rows if row["dice"]] == [
        ("0001", "ribs", "0.9"), ("0002", "ribs", "0.6667")]
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "Synthetic CTs, no patients: 0002." in page
    assert page.count("data:image/png") == 2 + 3, "two pictures of the first case, and its largest spot in the second"
    for pair, compared in zip(record["pairs"], read_pairs(out), strict=True):
        map_ = sitk.GetArrayFromImage(sitk.ReadImage(str(compared.map)))
        assert np.count_nonzero(map_ == ONLY_FIRST) * 0.008 == pytest.approx(pair["disagreement_cm3"]["only_first"])
        assert compared.readers == tuple(pair["readers"])


def test_only_those_that_differ_most_have_pictures(a_project: Project, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raters_report, "PICTURED", 1)
    found = raters_report.compare_cases("", a_project.cases(), tmp_path / "out", lambda _name: None)
    assert [len(views) for views in found.pictures.values()] == [3] and list(found.pictures) == [1]
    assert (tmp_path / "out" / "compare.html").read_text(encoding="utf-8").count("data:image/png") == 3
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_compare_says_what_to_do_without_a_second_reading(a_project: Project, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(a_project.folder), "--case", "0003", "-o", str(tmp_path / "out")]) == 1
    assert "lowdosebmd-train reading" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_second_reading_comes_in_as_a_file(a_project: Project, tmp_path: Path) -> None:
    from LowDoseBMDTrainerLib.cases import write_labels

    write_labels(tmp_path / "EF.seg.nrrd", tmp_path / "EF.mrk.json", drawn(ribs=box((5, 5, 5), (6, 8, 9))))
    assert main(["reading", str(a_project.folder), "0003", str(tmp_path / "EF.seg.nrrd"), "--reader", "EF"]) == 0
    pair, = pairs_of(a_project.case("0003"))
    assert pair.readers == ("AB", "EF")
    assert pair.comparison.structure("ribs").dice == pytest.approx(2 * 432 / 912)
