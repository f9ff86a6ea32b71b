"""A reader's edits are pure functions: the number moves by what arithmetic says, and what was is not changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_torso as torso
from LowDoseBMDLib.anatomy import LEVELS
from LowDoseBMDLib.calibration import TwoPointCalibration
from LowDoseBMDLib.editing import (
    NO_REASON,
    confirm_levels,
    move_keypoint,
    rederive,
    replace_masks,
    set_used,
    shift_levels,
    with_erosion,
)
from LowDoseBMDLib.flags import Flag, Severity
from LowDoseBMDLib.measurement import Measurement, measure
from LowDoseBMDLib.rois import NO_VOXELS, Mask, Rois, Vertebra

BELOW, HU = torso.CHAIN, torso.CHAIN_HU
a_ct, some_rois, body, vbmd = torso.chain_ct, torso.chain_rois, torso.chain_body, torso.vbmd


def result(rois: Rois) -> Measurement:
    return measure(a_ct(), rois, TwoPointCalibration())


def codes(rois: Rois) -> set[str]:
    return {flag.code for flag in result(rois).flags}


def test_the_regions_before_any_edit_read_as_built() -> None:
    found = result(some_rois())
    assert [round(level.vbmd_mg_cm3, 6) for level in found.levels] == [round(vbmd(HU[name]), 6) for name in LEVELS]
    assert found.mean_of == ("L1", "L2")
    assert found.edited == () and not any(level.edited for level in found.levels)


# --- drawing -----------------------------------------------------------------------------------------------

def test_painting_bone_into_the_psoas_moves_the_mean_by_the_line() -> None:
    rois = some_rois()
    grown = rois.masks["psoas_left"].full(rois.geometry)
    grown[BELOW["L1"] + 2:BELOW["L1"] + 4, 25:35, 30:50] = True
    edited = replace_masks(a_ct(), rois, {"psoas_left": Mask.from_array(grown)})
    muscle = (2 * 1600 * HU["muscle"] + 400 * HU["L1"]) / (2 * 1600 + 400)
    assert result(edited).muscle.hu_mean == pytest.approx(muscle)
    assert result(edited).mean_vbmd_mg_cm3 == pytest.approx(vbmd((HU["L1"] + HU["L2"]) / 2, muscle))
    assert edited.edited == {"psoas_left"}
    assert result(rois).mean_vbmd_mg_cm3 == pytest.approx(vbmd(128.0)), "the regions before are as they were"


def test_a_mask_that_is_the_same_is_no_edit() -> None:
    rois = some_rois()
    same = Mask.from_array(rois.masks["trabecular_L1"].full(rois.geometry))
    assert replace_masks(a_ct(), rois, {"trabecular_L1": same, "ribs": NO_VOXELS}) is rois


def test_a_drawn_body_gets_a_new_core_and_the_level_says_so() -> None:
    rois = some_rois()
    half = torso.box((BELOW["L1"], 20, 28), (12, 20, 16))
    edited = replace_masks(a_ct(), rois, {"body_L1": half})
    assert edited.masks["trabecular_L1"].volume_mm3(rois.geometry) < rois.masks["trabecular_L1"].volume_mm3(rois.geometry)
    assert not np.any(edited.masks["trabecular_L1"].full(rois.geometry) & ~half.full(rois.geometry))
    assert result(edited).level("L1").edited and not result(edited).level("L2").edited
    assert edited.spine[2].body is half, "the chain knows the new body, so that names can be moved later"


def test_the_readers_own_core_outlives_an_edit_of_its_body_until_it_is_given_up() -> None:
    rois, ct = some_rois(), a_ct()
    core = torso.box((BELOW["L1"] + 3, 25, 33), (6, 10, 14))
    drawn = replace_masks(ct, rois, {"trabecular_L1": core})
    wider = replace_masks(ct, drawn, {"body_L1": torso.box((BELOW["L1"], 20, 27), (12, 20, 25))})
    assert wider.masks["trabecular_L1"] is core
    eroded = rederive(ct, wider, "L1")
    assert eroded.masks["trabecular_L1"] is not core
    assert "trabecular_L1" not in eroded.edited and "body_L1" in eroded.edited


def test_a_core_drawn_in_a_cut_body_is_measured_and_says_why_not_everybody_would() -> None:
    ct, rois = a_ct(), some_rois()
    cut = torso.box((0, 20, 28), (12, 20, 24))
    low = replace_masks(ct, rois, {"body_L2": cut})
    assert "lower end of the scan" in result(low).level("L2").reason
    drawn = replace_masks(ct, low, {"trabecular_L2": torso.box((2, 24, 32), (8, 12, 16))})
    assert result(drawn).level("L2").hu_mean == 0.0, "the box lies below the bone, in water"
    assert "reader_overrides" in codes(drawn)
    assert "reader_overrides" not in codes(rederive(ct, drawn, "L2"))


def test_an_emptied_core_leaves_its_level_out() -> None:
    edited = replace_masks(a_ct(), some_rois(), {"trabecular_L1": NO_VOXELS})
    assert result(edited).level("L1").reason == "a reader left its region empty"
    assert result(edited).mean_of == ("L2",)


def test_what_was_said_of_a_proposed_tissue_goes_when_a_reader_draws_it() -> None:
    thin = Flag("fat_thin", Severity.CAUTION, "The fat layer is thin.")
    rois = replace(some_rois(), flags=(thin,))
    assert "fat_thin" in codes(rois)
    assert "fat_thin" in codes(replace_masks(a_ct(), rois, {"psoas_left": torso.box((10, 24, 60), (16, 9, 10))}))
    assert "fat_thin" not in codes(replace_masks(a_ct(), rois, {"fat_anterior": torso.box((10, 2, 20), (16, 5, 40))}))


# --- levels ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("step", "below"), [(1, {"T12": "T11", "L1": "T12", "L2": "L1"}), (-1, {"T12": "L1", "L1": "L2"})])
def test_moved_names_read_the_vertebrae_that_they_moved_to(step: int, below: dict[str, str]) -> None:
    moved = result(shift_levels(a_ct(), some_rois(), step))
    assert {level.name: level.hu_mean for level in moved.levels if level.measured} == \
        {name: HU[vertebra] for name, vertebra in below.items()}
    assert "level_names" in moved.edited
    assert all(level.confidence is None for level in moved.levels)


def test_names_moved_there_and_back_read_the_same() -> None:
    ct, rois = a_ct(), some_rois()
    back = shift_levels(ct, shift_levels(ct, rois, 1), -1)
    assert [level.vbmd_mg_cm3 for level in result(back).levels] == [level.vbmd_mg_cm3 for level in result(rois).levels]


def test_what_a_reader_drew_and_left_out_moves_with_its_vertebra() -> None:
    ct, core = a_ct(), torso.box((BELOW["T12"] + 3, 25, 33), (6, 10, 14))
    rois = set_used(replace_masks(ct, some_rois(), {"trabecular_T12": core}), "T12", False, "haemangioma")
    moved = shift_levels(ct, rois, 1)
    assert moved.masks["trabecular_L1"] is core
    assert "trabecular_L1" in moved.edited and "trabecular_T12" not in moved.edited
    assert moved.excluded == {"L1": "haemangioma"}


def test_names_cannot_leave_the_chain() -> None:
    with pytest.raises(ValueError, match="cannot be moved so far"):
        shift_levels(a_ct(), some_rois(), 5)


def test_names_may_move_far_where_the_chain_is_long() -> None:
    rois = some_rois()
    low = replace(rois, spine=tuple(Vertebra(v.place + 3, v.body) for v in rois.spine))
    assert [v.name for v in low.spine] == ["L2", "L3", "L4", "L5"]
    found = result(shift_levels(a_ct(), low, -4))
    assert [level.hu_mean for level in found.levels] == [HU["L1"], HU["L2"], None]


def test_a_doubt_of_the_names_is_settled_by_confirming_or_moving_them() -> None:
    doubt = Flag("level_uncertain", Severity.LIMITED, "Confirm the level.", "T12")
    rois = replace(some_rois(), flags=(doubt,))
    assert "level_uncertain" in codes(rois)
    assert {"level_uncertain", "levels_confirmed"} & codes(confirm_levels(rois)) == {"levels_confirmed"}
    assert {"level_uncertain", "levels_moved"} & codes(shift_levels(a_ct(), rois, 1)) == {"levels_moved"}


def test_a_level_left_out_is_read_but_not_in_the_mean() -> None:
    rois = set_used(some_rois(), "L2", False, "crushed")
    found = result(rois)
    assert found.mean_of == ("T12", "L1")
    assert found.level("L2").vbmd_mg_cm3 == pytest.approx(vbmd(HU["L2"])) and not found.level("L2").used
    assert "A reader left L2 out of the mean: crushed." in [flag.sentence for flag in found.flags]
    assert result(set_used(rois, "L2", True)).mean_of == ("L1", "L2")
    assert set_used(rois, "L1", False).excluded["L1"] == NO_REASON


def test_all_levels_left_out_are_a_refusal_with_the_reasons() -> None:
    rois = some_rois()
    for level in LEVELS:
        rois = set_used(rois, level, False, f"no {level}")
    found = result(rois)
    assert found.status == "refused" and found.mean_vbmd_mg_cm3 is None
    assert "L1: left out by a reader (no L1)" in found.flags[0].sentence


# --- keypoints ---------------------------------------------------------------------------------------------

def centre(name: str) -> tuple[float, float, float]:
    return tuple(body(name).centroid_lps_mm(some_rois().geometry))


def test_a_keypoint_within_its_body_moves_only_the_point() -> None:
    rois, (x, y, z) = some_rois(), centre("L1")
    moved = move_keypoint(a_ct(), rois, "L1", (x + 5.0, y, z - 3.0))
    assert moved.keypoint("L1").position_lps_mm == (x + 5.0, y, z - 3.0)
    assert moved.masks == rois.masks
    assert result(moved).level("L1").edited


def test_a_keypoint_on_another_vertebra_reads_that_one_and_the_other_name_waits() -> None:
    moved = move_keypoint(a_ct(), some_rois(), "L1", centre("T12"))
    found = result(moved)
    assert found.level("L1").hu_mean == HU["T12"]
    assert not found.level("T12").measured and "move its keypoint too" in found.level("T12").reason
    assert result(move_keypoint(a_ct(), moved, "T12", centre("T11"))).level("T12").hu_mean == HU["T11"]
    back = move_keypoint(a_ct(), moved, "L1", centre("L1"))
    assert result(back).level("L1").hu_mean == HU["L1"], "the body that was left is still known"


def test_a_keypoint_where_no_body_was_found_copies_its_neighbour_and_says_so() -> None:
    ct, rois = a_ct(), some_rois()
    unseen = replace(rois, spine=tuple(v for v in rois.spine if v.name != "L2"),
                     masks={name: mask for name, mask in rois.masks.items() if not name.endswith("_L2")},
                     levels=tuple(level for level in rois.levels if level.name != "L2"), keypoints=rois.keypoints[:2])
    assert not result(unseen).level("L2").measured
    placed = move_keypoint(ct, unseen, "L2", centre("L2"))
    assert result(placed).level("L2").hu_mean == HU["L2"]
    assert "body_copied" in codes(placed)
    corrected = replace_masks(ct, placed, {"body_L2": torso.box((BELOW["L2"], 20, 28), (12, 20, 23))})
    assert "body_copied" not in codes(corrected)


# --- erosion -----------------------------------------------------------------------------------------------

def test_another_erosion_redraws_what_no_reader_drew() -> None:
    ct, core = a_ct(), torso.box((BELOW["L1"] + 3, 25, 33), (6, 10, 14))
    rois = replace_masks(ct, some_rois(), {"trabecular_L1": core})
    paper = with_erosion(ct, rois, "paper")
    assert paper.masks["trabecular_L1"] is core
    assert paper.masks["trabecular_L2"].volume_mm3(rois.geometry) > rois.masks["trabecular_L2"].volume_mm3(rois.geometry)
    with pytest.raises(ValueError, match="physical, paper, voxels"):
        with_erosion(ct, rois, "thin")


@pytest.mark.parametrize("edit", [lambda r: set_used(r, "L5", False), lambda r: rederive(a_ct(), r, "T11"),
                                  lambda r: move_keypoint(a_ct(), r, "sacrum", (0, 0, 0))])
def test_levels_that_are_not_measured_are_named_in_the_error(edit) -> None:
    with pytest.raises(ValueError, match="only T12, L1, L2"):
        edit(some_rois())
