"""Checks of a case: a clean phantom has no finding, and each fault that is planted in it is found where it was planted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.files.read import read_ct, read_labels
from LowDoseBMDLib.phantom import LABEL, Phantom, PhantomSpec, make_phantom
from LowDoseBMDLib.rois import Keypoint, Mask
from LowDoseBMDLib.schemes import read_scheme
from LowDoseBMDTrainerLib.case_checks import check_case
from LowDoseBMDTrainerLib.cases import Labels
from LowDoseBMDTrainerLib.cli import main
from LowDoseBMDTrainerLib.findings import LOOK, MUST, Finding
from LowDoseBMDTrainerLib.project import Arrival, create_project

PREFIXES = {"vertebrae": "vertebra_", "clavicles": "clavicle_", "scapulae": "scapula_", "ribs": "rib_"}
LEVELS = ("T12", "L1", "L2")


@dataclass
class Drawn:
    """A phantom's labels, to be spoilt: bool arrays (k, j, i) by structure, and keypoints by level."""

    phantom: Phantom
    masks: dict[str, np.ndarray]
    points: dict[str, np.ndarray]

    @property
    def labels(self) -> Labels:
        points = tuple(Keypoint(level, tuple(float(x) for x in place)) for level, place in self.points.items())
        return Labels(self.phantom.ct.geometry, {name: Mask.from_array(array) for name, array in self.masks.items()}, points)

    def of(self, name: str) -> np.ndarray:
        """Where the phantom has a structure of its own list."""
        return self.phantom.labels == LABEL[name]

    def at(self, lps_mm: np.ndarray, size: int) -> tuple[slice, ...]:
        """A cube of size voxels at a place."""
        low = np.rint(self.phantom.ct.geometry.to_kji(lps_mm)).astype(int) - size // 2
        return tuple(slice(n, n + size) for n in low)

    def middle(self, where: np.ndarray) -> np.ndarray:
        """(3,) LPS mm of the centre of mass of a bool array."""
        return self.phantom.ct.geometry.to_lps(np.argwhere(where).mean(axis=0))

    def check(self, ct: CTVolume | None = None) -> tuple[Finding, ...]:
        return check_case(self.labels, ct or self.phantom.ct)


@pytest.fixture(scope="module")
def a_phantom() -> Phantom:
    return make_phantom(PhantomSpec(seed=3, spacing_mm=(2.5, 2.5, 3.0)))


@pytest.fixture
def drawn(a_phantom: Phantom) -> Drawn:
    masks = {name: np.isin(a_phantom.labels, [label for title, label in LABEL.items() if title.startswith(prefix)])
             for name, prefix in PREFIXES.items()}
    return Drawn(a_phantom, masks, {level: np.array(a_phantom.truth.centres_lps_mm[level]) for level in LEVELS})


def test_a_clean_case_has_no_finding(drawn: Drawn) -> None:
    assert drawn.check() == ()


def rib_as_vertebra(drawn: Drawn) -> np.ndarray:
    rib = drawn.of("rib_left_7")
    drawn.masks["ribs"] &= ~rib
    drawn.masks["vertebrae"] |= rib
    return drawn.middle(rib)


def vertebra_as_rib(drawn: Drawn) -> np.ndarray:
    vertebra = drawn.of("vertebra_T9")
    drawn.masks["vertebrae"] &= ~vertebra
    drawn.masks["ribs"] |= vertebra
    return drawn.middle(vertebra)


def island(drawn: Drawn) -> np.ndarray:
    liver = drawn.middle(drawn.of("liver"))
    drawn.masks["ribs"][drawn.at(liver, 3)] = True
    return liver


def hole(drawn: Drawn) -> np.ndarray:
    centre = np.array(drawn.phantom.truth.centres_lps_mm["T10"])
    drawn.masks["vertebrae"][drawn.at(centre, 2)] = False
    return centre


def missing_side(drawn: Drawn) -> np.ndarray:
    clavicle = drawn.of("clavicle_left")
    drawn.masks["clavicles"] &= ~clavicle
    return drawn.middle(clavicle)


def exchanged_points(drawn: Drawn) -> np.ndarray:
    drawn.points["T12"], drawn.points["L1"] = drawn.points["L1"], drawn.points["T12"]
    return drawn.points["T12"]


def point_in_front(drawn: Drawn) -> np.ndarray:
    drawn.points["L1"] = drawn.points["L1"] - [0.0, 45.0, 0.0]
    return drawn.points["L1"]


def point_at_the_edge(drawn: Drawn) -> np.ndarray:
    drawn.points["L1"] = drawn.points["L1"] + [0.0, -12.0, 0.0]
    return drawn.points["L1"]


def point_outside_the_scan(drawn: Drawn) -> np.ndarray:
    drawn.points["T12"] = drawn.points["T12"] + [0.0, 0.0, 2000.0]
    return drawn.points["T12"]


def point_on_the_same_vertebra(drawn: Drawn) -> np.ndarray:
    drawn.points["L2"] = drawn.points["L1"] - [0.0, 0.0, 5.0]
    return drawn.points["L2"]


def point_left_out(drawn: Drawn) -> np.ndarray:
    return drawn.points.pop("L1")


def slices_left_out(drawn: Drawn) -> np.ndarray:
    rows = np.flatnonzero(drawn.of("vertebra_T8").any(axis=(1, 2)))
    gap = drawn.masks["vertebrae"][rows[2]:rows[2] + 2]
    where = np.zeros(drawn.phantom.labels.shape, bool)
    where[rows[2]:rows[2] + 2] = gap
    gap[:] = False
    return drawn.middle(where)


def rib_in_lung(drawn: Drawn) -> np.ndarray:
    lung = drawn.middle(drawn.of("lung_right"))
    drawn.masks["ribs"][drawn.at(lung, 5)] = True
    return lung


def rib_outside(drawn: Drawn) -> np.ndarray:
    couch = drawn.of("couch")
    row = couch.shape[0] // 2
    low, high = np.argwhere(couch[row]).min(axis=0), np.argwhere(couch[row]).max(axis=0)
    box = (slice(row - 3, row + 3), slice(low[0], high[0] + 1), slice(couch.shape[2] // 2 - 5, couch.shape[2] // 2 + 5))
    drawn.masks["ribs"][box] = True
    return drawn.phantom.ct.geometry.to_lps(np.array([(part.start + part.stop - 1) / 2 for part in box]))


def two_names(drawn: Drawn) -> np.ndarray:
    scapula = drawn.of("scapula_right")
    drawn.masks["ribs"] |= scapula
    return drawn.middle(scapula)


FAULTS: list[tuple[Callable[[Drawn], np.ndarray], str, str, float]] = [
    (rib_as_vertebra, "rib_as_vertebra", MUST, 90.0), (vertebra_as_rib, "bone_in_column", MUST, 25.0),
    (island, "island", LOOK, 4.0), (hole, "hole", LOOK, 6.0), (missing_side, "side_missing", MUST, 30.0),
    (exchanged_points, "keypoint_order", MUST, 0.1), (point_in_front, "keypoint_outside", MUST, 0.1),
    (point_at_the_edge, "keypoint_off_centre", LOOK, 0.1), (point_outside_the_scan, "keypoint_outside_scan", MUST, 0.1),
    (point_on_the_same_vertebra, "keypoint_distance", MUST, 0.1), (point_left_out, "keypoint_missing", MUST, 6.0),
    (slices_left_out, "slice_gap", MUST, 45.0), (rib_in_lung, "in_air", MUST, 6.0),
    (rib_outside, "outside_body", MUST, 20.0), (two_names, "overlap", MUST, 30.0)]
"""What is planted, the code and severity that say so, and how near to it, in mm, a person is sent."""

COMPANIONS: Mapping[str, set[str]] = {
    "bone_in_column": {"slice_gap"}, "in_air": {"island"}, "outside_body": {"in_air", "island"}, "overlap": set(),
    "keypoint_outside_scan": {"keypoint_distance"}, "keypoint_outside": {"keypoint_distance"},
    "keypoint_distance": {"keypoint_off_centre"}, "slice_gap": {"island"}}
"""Other findings that a fault may bring along."""


@pytest.mark.parametrize(("plant", "code", "severity", "near_mm"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_planted_fault_is_found(drawn: Drawn, plant: Callable[[Drawn], np.ndarray], code: str, severity: str,
                                  near_mm: float) -> None:
    where = plant(drawn)
    found = drawn.check()
    mine = [finding for finding in found if finding.code == code]
    assert mine, f"only {[(finding.code, finding.sentence) for finding in found]}"
    assert {finding.severity for finding in mine} == {severity}
    assert min(np.linalg.norm(where - finding.position_lps_mm) for finding in mine) <= near_mm
    assert {finding.code for finding in found} - {code} <= COMPANIONS.get(code, set())


def test_what_must_be_put_right_comes_first(drawn: Drawn) -> None:
    island(drawn)
    missing_side(drawn)
    assert [finding.severity for finding in drawn.check()] == [MUST, LOOK]


def test_ribs_of_one_side_over_some_height(drawn: Drawn) -> None:
    for number in range(8, 13):
        drawn.masks["ribs"] &= ~drawn.of(f"rib_right_{number}")
    finding, = drawn.check()
    assert (finding.code, finding.severity) == ("ribs_one_sided", LOOK)
    assert "right rib" in finding.sentence


def test_a_side_outside_of_the_scan_is_not_missed(drawn: Drawn) -> None:
    """The same person in a field of view that ends 40 mm to the left of the spine."""
    ct, labels = drawn.phantom.ct, drawn.labels
    last = int(ct.geometry.to_kji(drawn.points["T12"] + [40.0, 0.0, 0.0])[2])
    shape = (*ct.hu.shape[:2], last)
    grid = ct.geometry.crop((0, 0, 0), shape)
    masks = {name: Mask.from_array(mask.full(ct.geometry)[:, :, :last]) for name, mask in labels.masks.items()}
    found = check_case(replace(labels, geometry=grid, masks=masks), CTVolume(ct.hu[:, :, :last], grid))
    assert "side_missing" not in {finding.code for finding in found}


def test_other_bones_may_lie_far_apart(drawn: Drawn) -> None:
    """Sternum and hips, with slices between them that have neither."""
    far = np.zeros_like(drawn.masks["vertebrae"])
    bone = drawn.of("sternum") & ~np.logical_or.reduce(list(drawn.masks.values()))
    rows = np.flatnonzero(bone.any(axis=(1, 2)))
    far[rows[0]:rows[0] + 12], far[rows[-1] - 12:rows[-1] + 1] = bone[rows[0]:rows[0] + 12], bone[rows[-1] - 12:rows[-1] + 1]
    drawn.masks["other_bones"] = far
    assert "slice_gap" not in {finding.code for finding in drawn.check()}


def test_wrong_hu_are_found(drawn: Drawn) -> None:
    ct = drawn.phantom.ct
    finding, = drawn.check(replace(ct, hu=np.where(ct.hu > 100, ct.hu + 700, ct.hu)))
    assert (finding.code, finding.severity) == ("vertebrae_hu", MUST)


def test_nothing_drawn_is_said(drawn: Drawn) -> None:
    drawn.masks, drawn.points = {}, {}
    assert [finding.code for finding in drawn.check()] == ["nothing_drawn"]


def test_keypoints_are_asked_for_where_vertebrae_are(drawn: Drawn) -> None:
    drawn.points = {}
    assert [(finding.code, finding.severity) for finding in drawn.check()] == [("no_keypoints", LOOK)]


def test_a_level_that_the_model_doubts_is_asked_for_once(drawn: Drawn) -> None:
    points = tuple(replace(point, confidence=0.7) for point in drawn.labels.keypoints)
    finding, = check_case(replace(drawn.labels, keypoints=points), drawn.phantom.ct)
    assert (finding.code, finding.severity) == ("level_uncertain", LOOK) and "70 % certain" in finding.sentence
    certain = tuple(replace(point, confidence=0.97) for point in points)
    assert check_case(replace(drawn.labels, keypoints=certain), drawn.phantom.ct) == ()


def test_labels_of_another_ct_are_refused(drawn: Drawn) -> None:
    ct = drawn.phantom.ct
    other = CTVolume(ct.hu[1:], ct.geometry.crop((1, 0, 0), ct.hu[1:].shape))
    with pytest.raises(ValueError, match="the CT that they were drawn on"):
        drawn.check(other)


def test_model_labels_of_a_real_ct(shared_data: Path) -> None:
    """Looked at: six cavities lie in joints and in front of a body, one in the middle of a body; of the islands one is a
    piece of rib that the grid of 3 mm has cut off, one a single voxel."""
    folder = shared_data / "lidc0001"
    ct = read_ct(folder / "lidc0001_ct_3mm.nii.gz")
    anatomy = read_scheme(read_labels(folder / "lidc0001_labels_3mm.nii.gz", ct.geometry), "totalsegmentator")
    points = tuple(Keypoint(level, place) for level, place in zip(
        LEVELS, ((17.0, 50.0, -254.0), (22.5, 39.0, -280.0), (26.5, 25.0, -308.0)), strict=True))
    found = check_case(Labels(ct.geometry, dict(anatomy.bones), points), ct)
    assert [(finding.code, finding.severity, finding.structure) for finding in found] == [
        *[("hole", LOOK, "vertebrae")] * 7, *[("island", LOOK, "ribs")] * 2]


def test_check_command(drawn: Drawn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ct.nii.gz"
    ct = drawn.phantom.ct
    sitk.WriteImage(ct.geometry.to_image(ct.hu), str(path))
    clean = create_project(tmp_path / "clean")
    clean.add(path, arrival=Arrival(labels=drawn.labels, annotator="AB"))
    assert main(["check", str(clean.folder)]) == 0
    assert capsys.readouterr().out == "0001: nothing found\n"
    exchanged_points(drawn)
    faulty = create_project(tmp_path / "faulty")
    faulty.add(path, arrival=Arrival(labels=drawn.labels, annotator="AB"))
    assert main(["check", str(faulty.folder), "--json"]) == 1
    row = json.loads(capsys.readouterr().out)
    assert (row["case"], row["problem"]) == ("0001", "")
    assert [finding["code"] for finding in row["findings"]] == ["keypoint_order"]
    empty = create_project(tmp_path / "empty")
    assert main(["check", str(empty.folder)]) == 0
    assert capsys.readouterr().out == "No case has labels yet.\n"
    path.unlink()
    assert main(["check", str(faulty.folder), "0001"]) == 1
    assert "there is no CT" in capsys.readouterr().out
