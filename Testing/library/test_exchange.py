"""What goes from one process to another arrives as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.ctvolume import Acquisition, CTVolume
from LowDoseBMDLib.editing import shift_levels
from LowDoseBMDLib.exchange import Proposal, read_ct, read_proposal, rois_state, write_ct, write_proposal
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import measure
from LowDoseBMDLib.rois import NO_VOXELS, Rois, Vertebra


def some_rois() -> Rois:
    rois = torso.rois()
    spine = tuple(Vertebra(18 + n, rois.masks[f"body_{name}"]) for n, name in enumerate(("T12", "L1", "L2")))
    return replace(rois.with_masks({"fat_flank": NO_VOXELS}), spine=spine, edited=frozenset({"psoas_left", "keypoint_L1"}),
                   excluded={"T12": "a spur"},
                   flags=(Flag("level_uncertain", Severity.LIMITED, "Confirm.", "T12", (1.0, 2.5, -3.25)),))


def test_a_ct_arrives_with_its_grid_values_and_facts(tmp_path: Path) -> None:
    facts = Acquisition(source="dicom", kvp=100.0, kernel="B30f", patient_age_years=61.0)
    ct = CTVolume(torso.hu().astype(np.int16), torso.geometry(), facts)
    write_ct(tmp_path, ct)
    found = read_ct(tmp_path)
    np.testing.assert_array_equal(found.hu, ct.hu)
    assert found.hu.dtype == ct.hu.dtype
    np.testing.assert_array_equal(found.geometry.ijk_to_lps, ct.geometry.ijk_to_lps)
    assert found.acquisition == facts


def test_regions_arrive_with_everything_known_of_them(tmp_path: Path) -> None:
    rois = some_rois()
    write_proposal(tmp_path / "a.npz", Proposal(rois, {"bones": "1 abc"}, {"bones": 0.5}))
    found = read_proposal(tmp_path / "a.npz")
    assert (found.networks, found.seconds) == ({"bones": "1 abc"}, {"bones": 0.5})
    assert rois_state(found.rois) == rois_state(rois)
    assert (found.rois.levels, found.rois.keypoints, found.rois.flags) == (rois.levels, rois.keypoints, rois.flags)
    assert found.rois.geometry.same_grid(rois.geometry, tolerance_mm=0.0)
    assert list(found.rois.masks) == list(rois.masks)
    for name, mask in rois.masks.items():
        np.testing.assert_array_equal(found.rois.masks[name].full(rois.geometry), mask.full(rois.geometry), err_msg=name)


def test_numbers_are_the_same_on_both_sides_also_after_an_edit(tmp_path: Path) -> None:
    rois, ct = some_rois(), torso.ct()
    write_proposal(tmp_path / "a.npz", Proposal(rois))
    found = read_proposal(tmp_path / "a.npz").rois
    for here, there in ((rois, found), (shift_levels(ct, rois, -1), shift_levels(ct, found, -1))):
        assert measure(ct, here, TwoPointCalibration()) == measure(ct, there, TwoPointCalibration())


def test_a_refused_study_without_regions_arrives_too(tmp_path: Path) -> None:
    refused = Flag("no_spine", Severity.REFUSED, "No vertebrae were found.")
    write_proposal(tmp_path / "a.npz", Proposal(Rois(torso.geometry(), flags=(refused,))))
    found = read_proposal(tmp_path / "a.npz").rois
    assert (dict(found.masks), found.spine, found.flags) == ({}, (), (refused,))


def test_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write_ct(tmp_path, torso.ct())
    facts = json.loads((tmp_path / "ct.json").read_text())
    (tmp_path / "ct.json").write_text(json.dumps({**facts, "version": 99}))
    with pytest.raises(ValueError, match="99.*measure again"):
        read_ct(tmp_path)
