"""A synthetic scan comes with the truth about it."""

from __future__ import annotations

import numpy as np
import pytest
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDTrainerLib.synthesis_subject import make_subject
from LowDoseBMDTrainerLib.synthetic_scans import ScanOptions, SyntheticScan, draw_scan
from scipy import ndimage
from spine_person import spine_person

QUICK = ScanOptions(spacing_kji_mm=(4.0, 3.0, 3.0), abdomen=0.3)


@pytest.fixture(scope="module")
def some_scans() -> list[SyntheticScan]:
    subject = make_subject(spine_person("T1", "L5"))
    return [draw_scan(subject, seed, QUICK) for seed in range(8)]


def test_every_whole_body_has_its_centre_and_its_name_in_order(some_scans):
    for scan in some_scans:
        levels = list(scan.centres_lps_mm)
        heights = [scan.centres_lps_mm[level][2] for level in levels]
        assert heights == sorted(heights, reverse=True)
        gaps = -np.diff(heights)
        assert gaps.min() > 20 and gaps.max() < 60, (scan.name, "neighbours are one vertebra apart: none was left out")
        assert {point.level for point in scan.labels.keypoints} == set(levels)


def test_a_cut_body_has_no_centre(some_scans):
    """Below the last and above the first centre no other body fits into the scan."""
    for scan in some_scans:
        vertebrae = scan.labels.masks["vertebrae"].full(scan.labels.geometry).any(axis=(1, 2))
        last = min(point[2] for point in scan.centres_lps_mm.values())
        below = scan.labels.geometry.to_kji(np.array([0.0, 0.0, last]))[0]
        pieces, count = ndimage.label(vertebrae[: int(below)])
        whole = [piece for piece in ndimage.find_objects(pieces) if piece[0].start > 0]
        assert len(whole) <= 1, (scan.name, "its own lower half alone")


def test_bodies_lie_in_vertebrae_and_round_their_centres(some_scans):
    for scan in some_scans:
        grid = scan.labels.geometry
        vertebrae = scan.labels.masks["vertebrae"].full(grid)
        for level in LEVELS:
            body = scan.labels.masks[f"body_{level}"]
            assert body.empty == (level not in scan.centres_lps_mm)
            if not body.empty:
                assert vertebrae[body.box][body.voxels].mean() > 0.97
                assert np.linalg.norm(body.centroid_lps_mm(grid) - scan.centres_lps_mm[level]) < 0.1
                assert scan.ct.hu[body.box][body.voxels].mean() > scan.ct.hu[scan.ct.hu > -200].mean()


def test_the_kinds_are_as_drawn(some_scans):
    assert any("abdomen" in scan.kinds for scan in some_scans)
    for scan in some_scans:
        assert ("T1" in scan.centres_lps_mm or "T2" in scan.centres_lps_mm) == ("abdomen" not in scan.kinds), scan.name
        if "4 lumbar vertebrae" in scan.kinds:
            assert "L5" not in scan.centres_lps_mm
        ribs = scan.labels.masks["ribs"]
        if scan.rib_12 == "absent":
            assert ribs.empty, "it has no other ribs"
        assert scan.rib_12 in ("absent", "short", "usual", "long")
    assert len({scan.kinds for scan in some_scans}) > 4


def test_the_same_seed_gives_the_same_scan_and_a_person_does_as_well_as_a_subject():
    person = spine_person("T9", "L5")
    whom = (person, 3), (make_subject(person), 3), (person, 4)
    first, again, other = (draw_scan(who, seed, QUICK) for who, seed in whom)
    assert np.array_equal(first.ct.hu, again.ct.hu) and first.centres_lps_mm == again.centres_lps_mm
    assert first.ct.hu.shape != other.ct.hu.shape or not np.array_equal(first.ct.hu, other.ct.hu)
    assert "abdomen" in first.kinds, "without T1 there is no chest scan"


def test_a_person_without_the_levels_is_refused():
    with pytest.raises(ValueError, match="spine: a scan needs a person in whom one of T10 to L1 is named"):
        draw_scan(spine_person("T1", "T9"), 1, QUICK)
